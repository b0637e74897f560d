//! BLAS level 1: axpy, scal, dot, dotc, nrm2, asum.

use flagos_backend_api::{BlasDesc, BlasRoutine, DType, Error, Result};
use flagos_catalog::blas;
use num_complex::Complex;

use crate::blas::{BlasKernel, factor};
use crate::gemm_pack::{Factor, Operand};
use crate::pool::Pool;
use crate::scratch::{Bases, padded};
use crate::target::{Isa, Target};
use crate::tensor::settled_view;
use crate::vectorize::vectorize;

/// Elements of one task. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 16 << 10;
/// Bytes of a task's partial sum.
const PARTIAL: usize = 16;

#[derive(Clone, Copy)]
struct Chunk {
    n: usize,
    x: *mut u8,
    incx: isize,
    y: *mut u8,
    incy: isize,
    alpha: Factor,
}

/// Handles a chunk; sums go to `partial`.
type ChunkFn = unsafe fn(isa: Isa, chunk: &Chunk, partial: *mut u8);
/// Puts partial sums together.
type FinishFn = unsafe fn(partials: *const u8, count: usize, result: *mut u8);

struct Vector {
    isa: Isa,
    routine: BlasRoutine,
    compute: DType,
    batch: usize,
    n: usize,
    /// By vector: bytes to element 0, bytes between problems, increment, bytes of an element.
    vectors: Vec<(isize, isize, isize, usize)>,
    /// Bytes between results.
    result: Option<isize>,
    chunk: ChunkFn,
    finish: FinishFn,
}

/// Plans a vector routine; the descriptor is checked.
pub fn plan(desc: &BlasDesc, target: &Target) -> Result<Box<dyn BlasKernel>> {
    let routine = BlasRoutine(desc.routine);
    let kernels = match (desc.dtype.code, desc.dtype.bits) {
        (2, 32) => kernels::<f32>(routine),
        (2, 64) => kernels::<f64>(routine),
        (5, 64) => kernels::<Complex<f32>>(routine),
        (5, 128) => kernels::<Complex<f64>>(routine),
        _ => None,
    };
    let Some((chunk, finish)) = kernels else {
        return Err(Error::unimplemented(format!("{} has no kernel here", blas::symbol(desc))));
    };
    let (mut vectors, mut result) = (Vec::new(), None);
    for v in blas::views(desc).iter().map(settled_view) {
        let width = v.tensor.dtype.bytes() as isize;
        let between = (v.tensor.stride[0] as isize).wrapping_mul(width);
        if v.tensor.rank == 1 {
            result = Some(between);
        } else {
            vectors.push(((v.origin as isize).wrapping_mul(width), between, v.tensor.stride[1] as isize, width as usize));
        }
    }
    Ok(Box::new(Vector { isa: target.isa, routine, compute: desc.compute_dtype, batch: desc.batch as usize, n: desc.n as usize, vectors, result, chunk, finish }))
}

impl Vector {
    fn chunks(&self) -> usize {
        self.n.div_ceil(CHUNK)
    }
}

impl BlasKernel for Vector {
    unsafe fn run(&self, operands: &[*mut u8], alpha: Option<*const u8>, _: Option<*const u8>, workspace: *mut u8, pool: &Pool) -> Result<()> {
        // SAFETY: stated by the trait.
        let alpha = unsafe { factor(self.compute, alpha, Factor::ONE) };
        if self.routine == BlasRoutine::AXPY && (alpha.re, alpha.im) == (0.0, 0.0) {
            return Ok(());
        }
        let chunks = self.chunks();
        let bases = Bases(operands);
        let space = Bases(core::slice::from_ref(&workspace));
        let task = |task: usize| {
            let (problem, first) = (task / chunks, task % chunks * CHUNK);
            let at = |v: usize| {
                let (origin, between, inc, width) = self.vectors[v];
                (bases.get(v).wrapping_offset(origin + problem as isize * between + first as isize * inc * width as isize), inc)
            };
            let (x, incx) = at(0);
            let (y, incy) = if self.vectors.len() > 1 { at(1) } else { (core::ptr::null_mut(), 0) };
            let chunk = Chunk { n: CHUNK.min(self.n - first), x, incx, y, incy, alpha };
            // SAFETY: the chunk lies within the vectors; its partial sum is its own.
            unsafe { (self.chunk)(self.isa, &chunk, space.get(0).wrapping_add(task * PARTIAL)) };
        };
        let tasks = self.batch * chunks;
        if tasks > 1 && self.batch * self.n > 4 * CHUNK { pool.for_each(tasks, &task) } else { (0..tasks).for_each(task) }
        if let Some(between) = self.result {
            for problem in 0..self.batch {
                let result = operands[operands.len() - 1].wrapping_offset(problem as isize * between);
                // SAFETY: the partial sums are there; the result is an element of the output.
                unsafe { (self.finish)(workspace.wrapping_add(problem * chunks * PARTIAL), chunks, result) };
            }
        }
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        if self.result.is_some() { padded(self.batch * self.chunks() * PARTIAL) } else { 0 }
    }
    fn name(&self) -> String {
        format!("{:?} vectors", self.isa).to_lowercase()
    }
}

/// A vector's element: number whose parts are reals.
trait Number: Operand<Sum = Self> {
    /// Itself when real.
    type Real: Operand<Sum = Self::Real, Part = Self::Real> + Into<f64>;
    fn parts(self) -> [Self::Real; 2];
    /// From f64, rounded once.
    fn real(x: f64) -> Self::Real;
}

macro_rules! numbers {
    ($($real:ident)*) => { $(
        impl Number for $real {
            type Real = $real;
            #[inline(always)]
            fn parts(self) -> [$real; 2] {
                [self, 0.0]
            }
            #[inline(always)]
            fn real(x: f64) -> $real {
                x as $real
            }
        }
        impl Number for Complex<$real> {
            type Real = $real;
            #[inline(always)]
            fn parts(self) -> [$real; 2] {
                [self.re, self.im]
            }
            #[inline(always)]
            fn real(x: f64) -> $real {
                x as $real
            }
        }
    )* };
}
numbers! { f32 f64 }

fn kernels<T: Number>(routine: BlasRoutine) -> Option<(ChunkFn, FinishFn)> {
    match routine {
        BlasRoutine::AXPY => Some((axpy::<T>, nothing)),
        BlasRoutine::SCAL => Some((scal::<T>, nothing)),
        BlasRoutine::DOT => Some((dot::<T, false>, total::<T>)),
        BlasRoutine::DOTC => Some((dot::<T, true>, total::<T>)),
        BlasRoutine::ASUM => Some((asum::<T>, total::<T::Real>)),
        BlasRoutine::NRM2 => Some((squares::<T>, norm::<T>)),
        _ => None,
    }
}

/// # Safety
/// Does nothing.
unsafe fn nothing(_: *const u8, _: usize, _: *mut u8) {}

/// # Safety
/// `count` sums of type T stand at `partials`, `PARTIAL` bytes apart; `result` takes one.
unsafe fn total<T: Operand<Sum = T>>(partials: *const u8, count: usize, result: *mut u8) {
    // SAFETY: stated by the caller.
    unsafe {
        let sum = (0..count).map(|i| partials.add(i * PARTIAL).cast::<T>().read()).fold(T::factor(Factor::ZERO), T::plus);
        result.cast::<T>().write_unaligned(sum);
    }
}

/// Partial sums of squares with the scale they were taken at: Σx² = sum·scale².
///
/// # Safety
/// As [`total`], with pairs of f64.
unsafe fn norm<T: Number>(partials: *const u8, count: usize, result: *mut u8) {
    // SAFETY: stated by the caller.
    let pair = |i: usize| unsafe { partials.add(i * PARTIAL).cast::<[f64; 2]>().read() };
    let scale = (0..count).map(|i| pair(i)[1]).fold(0.0, f64::max);
    let nan = (0..count).any(|i| pair(i).iter().any(|x| x.is_nan()));
    let value = if nan {
        f64::NAN
    } else if scale == 0.0 || scale.is_infinite() {
        scale
    } else {
        let sum: f64 = (0..count).map(|i| pair(i)[0] * (pair(i)[1] / scale) * (pair(i)[1] / scale)).sum();
        sum.sqrt() * scale
    };
    // SAFETY: stated by the caller.
    unsafe { result.cast::<T::Real>().write_unaligned(T::real(value)) };
}

vectorize! {
    unsafe fn axpy[T: Number][](chunk: &Chunk, _partial: *mut u8) {
        let Chunk { n, incx, incy, .. } = *chunk;
        let (x, y, alpha) = (chunk.x.cast::<T>(), chunk.y.cast::<T>(), T::factor(chunk.alpha));
        // SAFETY: n elements of x and y at their increments.
        unsafe {
            if incx == 1 && incy == 1 {
                for i in 0..n {
                    *y.add(i) = T::plus(*y.add(i), T::times(alpha, *x.add(i)));
                }
            } else {
                for i in 0..n as isize {
                    let to = y.offset(i * incy);
                    *to = T::plus(*to, T::times(alpha, *x.offset(i * incx)));
                }
            }
        }
    }

    unsafe fn scal[T: Number][](chunk: &Chunk, _partial: *mut u8) {
        let (x, alpha) = (chunk.x.cast::<T>(), T::factor(chunk.alpha));
        for i in 0..chunk.n as isize {
            // SAFETY: n elements of x at its increment.
            unsafe {
                let to = if chunk.incx == 1 { x.offset(i) } else { x.offset(i * chunk.incx) };
                *to = T::times(alpha, *to);
            }
        }
    }

    unsafe fn dot[T: Number][CONJ: bool](chunk: &Chunk, partial: *mut u8) {
        let Chunk { n, incx, incy, .. } = *chunk;
        let (x, y, zero) = (chunk.x.cast::<T>(), chunk.y.cast::<T>(), T::factor(Factor::ZERO));
        let left = |p: *const T| {
            // SAFETY: callers below stay within x.
            let v = unsafe { *p };
            T::join(v.part(0, CONJ), v.part(T::PARTS - 1, CONJ))
        };
        let (mut lanes, mut i) = ([zero; 32], 0);
        // SAFETY: n elements of x and y at their increments.
        unsafe {
            if incx == 1 && incy == 1 {
                while i + 32 <= n {
                    for (l, lane) in lanes.iter_mut().enumerate() {
                        *lane = T::plus(*lane, T::times(left(x.add(i + l)), *y.add(i + l)));
                    }
                    i += 32;
                }
            }
            for i in i..n {
                let lane = &mut lanes[i % 32];
                *lane = T::plus(*lane, T::times(left(x.offset(i as isize * incx)), *y.offset(i as isize * incy)));
            }
            partial.cast::<T>().write(lanes.into_iter().fold(zero, T::plus));
        }
    }

    unsafe fn asum[T: Number][](chunk: &Chunk, partial: *mut u8) {
        let sum = fold::<T, T::Real>(chunk, <T::Real as Operand>::factor(Factor::ZERO), |x| {
            let zero = <T::Real as Operand>::factor(Factor::ZERO);
            let negative = <T::Real as Operand>::factor(Factor { re: -1.0, ..Factor::ZERO });
            let f: f64 = x.into();
            if f < 0.0 { <T::Real as Operand>::times(negative, x) } else { <T::Real as Operand>::plus(x, zero) }
        }, <T::Real as Operand>::plus);
        // SAFETY: room for one partial sum.
        unsafe { partial.cast::<T::Real>().write(sum) };
    }

    unsafe fn squares[T: Number][](chunk: &Chunk, partial: *mut u8) {
        let plain = fold::<T, f64>(chunk, 0.0, |x| {
            let x: f64 = x.into();
            x * x
        }, |a, b| a + b);
        let pair = if (1e-200..1e300).contains(&plain) {
            [plain, 1.0]
        } else {
            // Squares left the range of f64: scale by the greatest magnitude. Its own NaN test: max ignores NaN.
            let most = fold::<T, f64>(chunk, 0.0, |x| Into::<f64>::into(x).abs(), |a, b| if a.is_nan() || a > b { a } else { b });
            if most == 0.0 || !most.is_finite() {
                [most, most]
            } else {
                let sum = fold::<T, f64>(chunk, 0.0, |x| {
                    let x: f64 = Into::<f64>::into(x) / most;
                    x * x
                }, |a, b| a + b);
                [sum, most]
            }
        };
        // SAFETY: room for one partial sum.
        unsafe { partial.cast::<[f64; 2]>().write(pair) };
    }
}

/// Folds f over all parts of the chunk's x, in 16 lanes.
#[inline(always)]
fn fold<T: Number, A: Copy>(chunk: &Chunk, zero: A, f: impl Fn(T::Real) -> A, plus: impl Fn(A, A) -> A) -> A {
    let (mut lanes, mut i) = ([zero; 16], 0);
    if chunk.incx == 1 {
        // A dense vector is one of its parts.
        let (x, n) = (chunk.x.cast::<T::Real>(), chunk.n * T::PARTS);
        while i + 16 <= n {
            for (l, lane) in lanes.iter_mut().enumerate() {
                // SAFETY: i + l < n.
                *lane = plus(*lane, f(unsafe { *x.add(i + l) }));
            }
            i += 16;
        }
        for i in i..n {
            // SAFETY: i < n.
            lanes[i % 16] = plus(lanes[i % 16], f(unsafe { *x.add(i) }));
        }
    } else {
        for i in 0..chunk.n {
            // SAFETY: n elements at the increment.
            let parts = unsafe { *chunk.x.cast::<T>().offset(i as isize * chunk.incx) }.parts();
            for part in &parts[..T::PARTS] {
                lanes[i % 16] = plus(lanes[i % 16], f(*part));
            }
        }
    }
    lanes.into_iter().fold(zero, plus)
}
