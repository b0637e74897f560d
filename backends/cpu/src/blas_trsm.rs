//! BLAS trsm: recursive halving, so that nearly all work is matrix products; the triangles left are solved in registers and cache.

use flagos_backend_api::{BlasDesc, BlasDiag, BlasSide, BlasTrans, BlasUplo, DType, Error, Result};
use flagos_catalog::blas::{self, View};
use num_complex::Complex;

use crate::blas::{BlasKernel, factor};
use crate::gemm::{Gemm, Operands, Shape, Strides};
use crate::gemm_pack::{Factor, Operand};
use crate::pool::Pool;
use crate::scratch::{Bases, Slots};
use crate::target::{Isa, Target};
use crate::tensor::settled_view;
use crate::vectorize::vectorize;

/// Order of the triangles solved directly, and right-hand sides of one task.
const ORDER: usize = 64;
const SIDES: usize = 32;

/// Solves T·X = B in place, T lower triangular of order m ≤ [`ORDER`], for up to [`SIDES`] columns.
type SolveFn = unsafe fn(isa: Isa, t: *const u8, ts: Strides, conj: bool, unit: bool, m: usize, b: *mut u8, bs: Strides, n: usize);

/// The call as T·X = alpha·B with T lower triangular; strides and origins say how A and B are seen as T and B.
struct Trsm {
    target: Target,
    dtype: DType,
    batch: usize,
    m: usize,
    n: usize,
    t: Strides,
    b: Strides,
    /// Bytes from the binding to element (0, 0) of T and of B, and between problems.
    origins: [isize; 2],
    between: [isize; 2],
    conj: bool,
    unit: bool,
    solve: SolveFn,
    side_by_side: bool,
    space: usize,
}

/// Plans trsm; the descriptor is checked.
pub fn plan(desc: &BlasDesc, target: &Target) -> Result<Box<dyn BlasKernel>> {
    let views: Vec<View> = blas::views(desc).iter().map(settled_view).collect();
    let [a, b] = views.as_slice() else { return Err(Error::invalid("trsm has two operands")) };
    let solve: SolveFn = match (desc.dtype.code, desc.dtype.bits) {
        (2, 32) => solve_block::<f32>,
        (2, 64) => solve_block::<f64>,
        (5, 64) => solve_block::<Complex<f32>>,
        (5, 128) => solve_block::<Complex<f64>>,
        _ => return Err(Error::unimplemented(format!("trsm has no kernel for {}", desc.dtype))),
    };
    let turn = |s: Strides| (s.1, s.0);
    let strides = |v: &View| (v.tensor.stride[1] as isize, v.tensor.stride[2] as isize);
    let (mut ts, mut bs, mut m, mut n) = (strides(a), strides(b), desc.m as usize, desc.n as usize);
    let mut lower = desc.uplo == BlasUplo::LOWER.0;
    if desc.trans_a != BlasTrans::NO_TRANS.0 {
        (ts, lower) = (turn(ts), !lower);
    }
    // X·op(A) = B is op(A)ᵀ·Xᵀ = Bᵀ.
    if desc.side == BlasSide::RIGHT.0 {
        (ts, bs, m, n, lower) = (turn(ts), turn(bs), n, m, !lower);
    }
    let mut origins = [0; 2];
    // An upper triangle read from its last element backwards is a lower one.
    if !lower {
        let last = m.saturating_sub(1) as isize;
        origins = [last * (ts.0 + ts.1), last * bs.0];
        ts = (-ts.0, -ts.1);
        bs.0 = -bs.0;
    }
    let width = desc.dtype.bytes() as isize;
    let mut call = Trsm {
        target: target.clone(),
        dtype: desc.dtype,
        batch: desc.batch as usize,
        m,
        n,
        t: ts,
        b: bs,
        origins: origins.map(|o| o * width),
        between: [a, b].map(|v| (v.tensor.stride[0] as isize).wrapping_mul(width)),
        conj: desc.trans_a == BlasTrans::CONJ_TRANS.0,
        unit: desc.diag == BlasDiag::UNIT.0,
        solve,
        side_by_side: desc.batch > 1 && m.saturating_mul(m).saturating_mul(n) < 1 << 24,
        space: 0,
    };
    call.space = call.space_of(m)?.max(call.gemm(m, 0)?.workspace_bytes());
    Ok(Box::new(call))
}

impl Trsm {
    /// Rows solved first, of m.
    fn half(m: usize) -> usize {
        (m / 2).next_multiple_of(ORDER)
    }
    /// The product of m rows and depth k.
    fn gemm(&self, m: usize, k: usize) -> Result<Gemm> {
        let shape = Shape { input: self.dtype, output: self.dtype, m, n: self.n, k, a: self.t, b: self.b, d: self.b, c: self.b, conj_a: self.conj, conj_b: false };
        Gemm::new(&shape, &self.target)
    }
    fn space_of(&self, m: usize) -> Result<usize> {
        if m <= ORDER {
            return Ok(0);
        }
        let first = Trsm::half(m);
        Ok(self.gemm(m - first, first)?.workspace_bytes().max(self.space_of(first)?).max(self.space_of(m - first)?))
    }

    /// # Safety
    /// T of order m at `t`, B of m rows at `b`; the workspace is this problem's.
    unsafe fn solve(&self, t: *const u8, b: *mut u8, m: usize, workspace: *mut u8, pool: Option<&Pool>) -> Result<()> {
        let width = self.dtype.bytes() as isize;
        if m <= ORDER {
            let addresses = [t.cast_mut(), b];
            let bases = Bases(&addresses);
            let task = |task: usize| {
                let to = bases.get(1).wrapping_offset((task * SIDES) as isize * self.b.1 * width);
                let n = SIDES.min(self.n - task * SIDES);
                // SAFETY: each task has its own columns.
                unsafe { (self.solve)(self.target.isa, bases.get(0), self.t, self.conj, self.unit, m, to, self.b, n) };
            };
            let tasks = self.n.div_ceil(SIDES);
            match pool {
                Some(pool) if tasks > 1 && m * m * self.n > 1 << 17 => pool.for_each(tasks, &task),
                _ => (0..tasks).for_each(task),
            }
            return Ok(());
        }
        let first = Trsm::half(m);
        let down = |s: Strides| first as isize * s.0 * width;
        let (below, rest) = (t.wrapping_offset(down(self.t)), b.wrapping_offset(down(self.b)));
        let x = Operands { a: below, b, d: rest, c: rest, alpha: Factor { re: -1.0, im: 0.0, int: -1 }, beta: Factor::ONE };
        // SAFETY: the parts of T and B lie within them, and the rows solved do not overlap those updated.
        unsafe {
            self.solve(t, b, first, workspace, pool)?;
            self.gemm(m - first, first)?.run(&x, workspace, pool);
            self.solve(below.wrapping_offset(first as isize * self.t.1 * width), rest, m - first, workspace, pool)
        }
    }

    /// # Safety
    /// As [`BlasKernel::run`] for problem `i`.
    unsafe fn problem(&self, bases: &Bases, i: usize, alpha: Factor, workspace: *mut u8, pool: Option<&Pool>) -> Result<()> {
        let at = |o: usize| bases.get(o).wrapping_offset(self.origins[o] + i as isize * self.between[o]);
        let (t, b) = (at(0), at(1));
        // SAFETY: stated by the caller.
        unsafe {
            if alpha != Factor::ONE {
                let zero = (alpha.re, alpha.im) == (0.0, 0.0);
                let d = if zero { core::ptr::null() } else { b.cast_const() };
                self.gemm(self.m, 0)?.run(&Operands { a: t, b, d, c: b, alpha: Factor::ONE, beta: alpha }, workspace, pool);
                if zero {
                    return Ok(());
                }
            }
            self.solve(t, b, self.m, workspace, pool)
        }
    }
}

impl BlasKernel for Trsm {
    unsafe fn run(&self, operands: &[*mut u8], alpha: Option<*const u8>, _: Option<*const u8>, workspace: *mut u8, pool: &Pool) -> Result<()> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        // SAFETY: stated by the trait.
        let alpha = unsafe { factor(self.dtype, alpha, Factor::ONE) };
        let alpha = if (alpha.re, alpha.im) == (1.0, 0.0) { Factor::ONE } else { alpha };
        let bases = Bases(operands);
        if self.side_by_side {
            let slots = Slots::new(workspace, self.target.threads, self.space);
            let failed = std::sync::atomic::AtomicBool::new(false);
            pool.for_each(self.batch, &|i| {
                // SAFETY: each task has its own problem and slot.
                let done = slots.with(|space| unsafe { self.problem(&bases, i, alpha, space, None) });
                failed.fetch_or(done.is_err(), std::sync::atomic::Ordering::Relaxed);
            });
            return if failed.into_inner() { Err(Error::invalid("trsm: a product could not be planned")) } else { Ok(()) };
        }
        // SAFETY: stated by the trait.
        (0..self.batch).try_for_each(|i| unsafe { self.problem(&bases, i, alpha, workspace, Some(pool)) })
    }
    fn workspace_bytes(&self) -> usize {
        if self.side_by_side { Slots::workspace(self.target.threads, self.space) } else { self.space }
    }
    fn name(&self) -> String {
        format!("{:?} recursive", self.target.isa).to_lowercase()
    }
}

vectorize! {
    unsafe fn solve_block[S: Operand][](t: *const u8, ts: Strides, conj: bool, unit: bool, m: usize, b: *mut u8, bs: Strides, n: usize) {
        let (t, b) = (t.cast::<S>(), b.cast::<S>());
        let zero = S::factor(Factor::ZERO);
        let minus = S::factor(Factor { re: -1.0, im: 0.0, int: -1 });
        let element = |i: usize, j: usize| {
            // SAFETY: i and j are below m, on or below the diagonal.
            let v = unsafe { *t.offset(i as isize * ts.0 + j as isize * ts.1) };
            S::join(v.part(0, conj), v.part(S::PARTS - 1, conj))
        };
        let mut x = [[zero; SIDES]; ORDER];
        // SAFETY: m rows of n columns.
        let place = |i: usize, j: usize| unsafe { b.offset(i as isize * bs.0 + j as isize * bs.1) };
        for (i, row) in x[..m].iter_mut().enumerate() {
            for (j, v) in row[..n].iter_mut().enumerate() {
                // SAFETY: within B.
                *v = unsafe { (*place(i, j)).read() };
            }
        }
        for i in 0..m {
            let (done, rest) = x.split_at_mut(i);
            let row = &mut rest[0];
            for (j, solved) in done.iter().enumerate() {
                let f = S::times(minus, element(i, j));
                for (v, s) in row.iter_mut().zip(solved) {
                    *v = S::plus(*v, S::times(f, *s));
                }
            }
            if !unit {
                let d = element(i, i);
                row.iter_mut().for_each(|v| *v = S::over(*v, d));
            }
        }
        for (i, row) in x[..m].iter().enumerate() {
            for (j, v) in row[..n].iter().enumerate() {
                // SAFETY: within B.
                unsafe { *place(i, j) = S::write(*v) };
            }
        }
    }
}
