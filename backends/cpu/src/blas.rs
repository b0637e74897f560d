//! BLAS calls: gemm, gemv and trsm over the product engine, and the vector routines.

use flagos_backend_api::{BlasDesc, BlasRoutine, BlasTrans, DType, Error, Result};
use flagos_catalog::blas::{self, View};

use crate::blas_trsm;
use crate::blas_vector;
use crate::gemm::{Batch, Operands, Shape};
use crate::gemm_pack::Factor;
use crate::pool::Pool;
use crate::scratch::Bases;
use crate::target::Target;
use crate::tensor::settled_view;

/// A planned BLAS call.
pub trait BlasKernel: Send + Sync {
    /// Computes. `operands` are the bindings' addresses in order, the lowest of each vector; `alpha` and `beta` address numbers of the
    /// compute type. Without alpha it is 1; without beta it is 0 and the output is not read.
    ///
    /// # Safety
    /// Every operand's span is readable or writable as the catalogue says, outputs overlap nothing else; `workspace` addresses
    /// [`BlasKernel::workspace_bytes`] bytes, 64-byte aligned, private to this run.
    unsafe fn run(&self, operands: &[*mut u8], alpha: Option<*const u8>, beta: Option<*const u8>, workspace: *mut u8, pool: &Pool) -> Result<()>;
    /// Workspace in bytes.
    fn workspace_bytes(&self) -> usize {
        0
    }
    /// Which implementation this is, for people.
    fn name(&self) -> String;
    /// Equal inputs give equal bits, whatever the number of threads.
    fn deterministic(&self) -> bool {
        true
    }
}

/// Plans a call.
///
/// # Errors
/// Those of [`blas::check`], which it runs first.
pub fn plan(desc: &BlasDesc, target: &Target) -> Result<Box<dyn BlasKernel>> {
    blas::check(desc)?;
    match BlasRoutine(desc.routine) {
        BlasRoutine::GEMM => product(desc, target, false),
        BlasRoutine::GEMV => product(desc, target, true),
        BlasRoutine::TRSM => blas_trsm::plan(desc, target),
        _ => blas_vector::plan(desc, target),
    }
}

/// A factor from its address; 1 (or what `absent` says) without one.
///
/// # Safety
/// The address is of a number of type `dtype`.
pub unsafe fn factor(dtype: DType, address: Option<*const u8>, absent: Factor) -> Factor {
    let Some(p) = address else { return absent };
    // SAFETY: stated by the caller; callers' numbers need no alignment.
    let real = |i: usize, wide: bool| unsafe {
        if wide { p.cast::<f64>().add(i).read_unaligned() } else { p.cast::<f32>().add(i).read_unaligned().into() }
    };
    match (dtype.code, dtype.bits) {
        (2, bits) => Factor { re: real(0, bits == 64), im: 0.0, int: 0 },
        (5, bits) => Factor { re: real(0, bits == 128), im: real(1, bits == 128), int: 0 },
        _ => {
            // SAFETY: as above; the remaining compute type is i32.
            let int = unsafe { p.cast::<i32>().read_unaligned() };
            Factor { re: int.into(), im: 0.0, int: int.into() }
        }
    }
}

/// gemm or gemv.
struct Product {
    batch: Batch,
    compute: DType,
    /// By operand: bytes from the binding to element (0, 0), and between problems.
    places: [(isize, isize); 3],
    /// gemv on a matrix without elements.
    idle: bool,
}

fn product(desc: &BlasDesc, target: &Target, vector: bool) -> Result<Box<dyn BlasKernel>> {
    let views: Vec<View> = blas::views(desc).iter().map(settled_view).collect();
    let [a, b, c] = views.as_slice() else { return Err(Error::invalid("a product has three operands")) };
    let conj = |trans: u32| trans == BlasTrans::CONJ_TRANS.0;
    let strides = |v: &View, trans: u32| {
        let (rows, columns) = (v.tensor.stride[1] as isize, v.tensor.stride[2] as isize);
        if trans == BlasTrans::NO_TRANS.0 { (rows, columns) } else { (columns, rows) }
    };
    let column = |v: &View| (v.tensor.stride[1] as isize, v.tensor.stride[1] as isize);
    let (m, n, k) = match (vector, desc.trans_a == BlasTrans::NO_TRANS.0) {
        (false, _) => (desc.m, desc.n, desc.k),
        (true, true) => (desc.m, 1, desc.n),
        (true, false) => (desc.n, 1, desc.m),
    };
    let (sb, sc) = if vector { (column(b), column(c)) } else { (strides(b, desc.trans_b), strides(c, BlasTrans::NO_TRANS.0)) };
    let shape = Shape {
        input: desc.dtype,
        output: desc.out_dtype,
        m: m as usize,
        n: n as usize,
        k: k as usize,
        a: strides(a, desc.trans_a),
        b: sb,
        d: sc,
        c: sc,
        conj_a: conj(desc.trans_a),
        conj_b: conj(desc.trans_b),
    };
    let place = |v: &View| {
        let width = v.tensor.dtype.bytes() as isize;
        // The stride between problems counts only where there are several; then its span was checked.
        (v.origin as isize * width, (v.tensor.stride[0] as isize).wrapping_mul(width))
    };
    Ok(Box::new(Product {
        batch: Batch::new(&shape, desc.batch as usize, target)?,
        compute: desc.compute_dtype,
        places: [place(a), place(b), place(c)],
        idle: vector && (desc.m == 0 || desc.n == 0),
    }))
}

impl BlasKernel for Product {
    unsafe fn run(&self, operands: &[*mut u8], alpha: Option<*const u8>, beta: Option<*const u8>, workspace: *mut u8, pool: &Pool) -> Result<()> {
        if self.idle {
            return Ok(());
        }
        // SAFETY: stated by the trait.
        let (alpha, beta) = unsafe { (factor(self.compute, alpha, Factor::ONE), factor(self.compute, beta, Factor::ZERO)) };
        let operands = Bases(operands);
        let one = |i: usize| {
            let at = |o: usize| operands.get(o).wrapping_offset(self.places[o].0 + i as isize * self.places[o].1);
            let d = if beta == Factor::ZERO { core::ptr::null() } else { at(2).cast_const() };
            Operands { a: at(0), b: at(1), d, c: at(2), alpha, beta }
        };
        // SAFETY: stated by the trait.
        unsafe { self.batch.run(&one, workspace, pool) };
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        self.batch.workspace_bytes()
    }
    fn name(&self) -> String {
        self.batch.name()
    }
}
