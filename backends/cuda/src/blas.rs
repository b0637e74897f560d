//! BLAS through cuBLAS and cuBLASLt. cuBLAS is column-major; row-major calls are the transposed ones.

use core::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;
use flagos_backend_api::{BlasDesc, BlasDiag, BlasOrder, BlasRoutine, BlasSide, BlasTrans, BlasUplo, DType, Error, Result};
use flagos_catalog::blas as catalogue;

use crate::device::Chip;
use crate::driver;
use crate::engine::{Number, PRODUCT_BYTES, VECTOR_BYTES, blas, check, data_type};
use crate::library::Culib;
use crate::product::{Addend, Addresses, Product, Shape, Side, Turn, run_blas, turn_blas};
use crate::stream::CudaStream;

/// Boundary of parts of a workspace in bytes.
const BOUNDARY: u64 = 256;

/// A planned call.
pub struct BlasCall {
    desc: BlasDesc,
    /// gemm with something to multiply.
    product: Option<Product>,
    chip: Arc<Chip>,
}

/// Checks a call; what cuBLAS has no routine for is UNIMPLEMENTED.
pub fn check_call(d: &BlasDesc) -> Result<()> {
    catalogue::check(d)?;
    if !Culib::Cublas.is_there() || !Culib::CublasLt.is_there() {
        return Err(Error::unimplemented("cuBLAS is not installed"));
    }
    if d.dtype.is_int() {
        return Err(Error::unimplemented("integer products are left to other implementations: cuBLAS takes some layouts only"));
    }
    Ok(())
}

fn row_major(d: &BlasDesc) -> bool {
    d.order == BlasOrder::ROW_MAJOR.0
}

fn turn(trans: u32, dtype: DType) -> Turn {
    match BlasTrans(trans) {
        BlasTrans::NO_TRANS => Turn::None,
        BlasTrans::CONJ_TRANS if dtype.is_complex() => Turn::Conjugated,
        _ => Turn::Transposed,
    }
}

/// The product of a gemm: row-major C is the column-major transpose, whose factors change places.
fn gemm_shape(d: &BlasDesc) -> Shape {
    let a = Side { ld: d.lda, stride: d.stride_a, turn: turn(d.trans_a, d.dtype) };
    let b = Side { ld: d.ldb, stride: d.stride_b, turn: turn(d.trans_b, d.dtype) };
    let ((m, n), (a, b)) = if row_major(d) { ((d.n, d.m), (b, a)) } else { ((d.m, d.n), (a, b)) };
    Shape { input: d.dtype, output: d.out_dtype, m, n, k: d.k, batch: d.batch, a, b, c: (d.ldc, d.stride_c), addend: Addend::Output }
}

/// Zeros stand for the factors of a product that is empty or not to be read: C ← 0·0 + beta·C.
fn idle_shape(s: &Shape) -> Shape {
    let side = |ld: i64| Side { ld, stride: 0, turn: Turn::None };
    Shape { k: 1, a: side(s.m), b: side(1), ..*s }
}

fn conjugates_rows(d: &BlasDesc) -> bool {
    row_major(d) && turn(d.trans_a, d.dtype) == Turn::Conjugated
}

/// Workspace of a checked call in bytes.
pub fn workspace_bytes(d: &BlasDesc) -> u64 {
    let (own, more) = match BlasRoutine(d.routine) {
        BlasRoutine::GEMM => (PRODUCT_BYTES, d.m.max(d.n)),
        BlasRoutine::GEMV if conjugates_rows(d) => (VECTOR_BYTES, d.m + d.n + 2 * BOUNDARY as i64),
        _ => (VECTOR_BYTES, 0),
    };
    own + (more as u64 * d.dtype.bytes() as u64).next_multiple_of(BOUNDARY)
}

impl BlasCall {
    /// Plans a call. The context is current.
    ///
    /// # Errors
    /// Those of [`check_call`] and of the libraries.
    pub fn new(chip: &Arc<Chip>, desc: &BlasDesc) -> Result<BlasCall> {
        check_call(desc)?;
        chip.engines.make_blas()?;
        let d = desc;
        let multiplies = d.routine == BlasRoutine::GEMM.0 && [d.m, d.n, d.k, d.batch].iter().all(|n| *n > 0);
        let product = multiplies.then(|| Product::new(chip, gemm_shape(d))).transpose()?;
        Ok(BlasCall { desc: *d, product, chip: chip.clone() })
    }

    /// Which implementation this is, for people.
    pub fn name(&self) -> String {
        format!("{} {}", if self.desc.routine == BlasRoutine::GEMM.0 { "cublasLt" } else { "cublas" }, catalogue::symbol(&self.desc))
    }

    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> u64 {
        workspace_bytes(&self.desc)
    }

    /// gemv with a conjugated row-major matrix, which is a conjugated but not transposed one to cuBLAS: it has none.
    fn conjugates_rows(&self) -> bool {
        conjugates_rows(&self.desc)
    }

    /// Enqueues; `at` are the bindings' addresses. The context is current.
    ///
    /// # Safety
    /// `alpha` and `beta` are NULL or of numbers of the compute type.
    pub unsafe fn run(&self, stream: &CudaStream, at: &[u64], alpha: *const c_void, beta: *const c_void, workspace: u64) -> Result<()> {
        let d = &self.desc;
        if d.batch == 0 {
            return Ok(());
        }
        // SAFETY: stated by the caller.
        let (alpha, beta) = unsafe { (Number::read(d.compute_dtype, alpha, 1.0), Number::read(d.compute_dtype, beta, 0.0)) };
        match (BlasRoutine(d.routine), at) {
            (BlasRoutine::GEMM, [a, b, c]) => self.gemm(stream, (*a, *b, *c), &alpha, &beta, workspace),
            (routine, at) => {
                let (width, out) = (d.dtype.bytes() as u64, d.out_dtype.bytes() as u64);
                let strides = [d.stride_a, d.stride_b, d.stride_c].map(|s| s as u64);
                for i in 0..d.batch as u64 {
                    let one = |operand: usize, stride: usize, width: u64| at.get(operand).map_or(0, |p| p.wrapping_add(i * strides[stride] * width));
                    match routine {
                        BlasRoutine::GEMV => self.gemv(stream, (one(0, 0, width), one(1, 1, width), one(2, 2, width)), &alpha, &beta, workspace),
                        BlasRoutine::TRSM => self.trsm(stream, one(0, 0, width), one(1, 1, width), &alpha, workspace),
                        BlasRoutine::AXPY | BlasRoutine::SCAL => self.update(stream, one(0, 0, width), one(1, 1, width), &alpha, workspace),
                        BlasRoutine::NRM2 | BlasRoutine::ASUM => self.reduce(stream, one(0, 0, width), 0, one(1, 2, out), workspace),
                        _ => self.reduce(stream, one(0, 0, width), one(1, 1, width), one(2, 2, out), workspace),
                    }?;
                }
                Ok(())
            }
        }
    }

    fn gemm(&self, stream: &CudaStream, (a, b, c): (u64, u64, u64), alpha: &Number, beta: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        if d.m == 0 || d.n == 0 {
            return Ok(());
        }
        if let Some(product) = self.product.as_ref().filter(|_| !alpha.zero) {
            let (a, b) = if row_major(d) { (b, a) } else { (a, b) };
            return product.run(stream, &Addresses { a, b, addend: 0, c, workspace }, alpha, beta);
        }
        let (shape, zeros) = (gemm_shape(d), workspace + PRODUCT_BYTES);
        let bytes = d.m.max(d.n) as usize * d.dtype.bytes();
        // SAFETY: the workspace has so many bytes behind the library's.
        driver::check(unsafe { sys::cuMemsetD8Async(zeros, 0, bytes, stream.raw()) }, "cuMemsetD8Async")?;
        let one = Number::real(d.compute_dtype, 1.0);
        run_blas(&self.chip, stream, &idle_shape(&shape), (zeros, zeros, c), (&one, beta), (workspace, PRODUCT_BYTES))
    }

    fn update(&self, stream: &CudaStream, x: u64, y: u64, alpha: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        let axpy = d.routine == BlasRoutine::AXPY.0;
        if d.n == 0 || (axpy && alpha.zero) {
            return Ok(());
        }
        let t = data_type(d.dtype)?;
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
            // SAFETY: the host bound memory of the planned extents; the scalar is read before this returns.
            let answer = unsafe {
                if axpy {
                    blas::cublasAxpyEx_64(h, d.n, alpha.address(), t, x as *const c_void, t, d.incx, y as *mut c_void, t, d.incy, t)
                } else {
                    // Every element is scaled, whichever way the vector runs.
                    blas::cublasScalEx_64(h, d.n, alpha.address(), t, x as *mut c_void, t, d.incx.abs(), t)
                }
            };
            check(answer, if axpy { "cublasAxpyEx" } else { "cublasScalEx" })
        })
    }

    fn reduce(&self, stream: &CudaStream, x: u64, y: u64, result: u64, workspace: u64) -> Result<()> {
        let d = &self.desc;
        if d.n == 0 {
            // SAFETY: the result is one element of the output type.
            return driver::check(unsafe { sys::cuMemsetD8Async(result, 0, d.out_dtype.bytes(), stream.raw()) }, "cuMemsetD8Async");
        }
        let (t, r) = (data_type(d.dtype)?, data_type(d.out_dtype)?);
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), true, |h| {
            let (x, y, result) = (x as *const c_void, y as *const c_void, result as *mut c_void);
            // SAFETY: the host bound memory of the planned extents; results go to the device.
            let answer = unsafe {
                match BlasRoutine(d.routine) {
                    // AsumEx takes real vectors only.
                    BlasRoutine::ASUM if d.dtype == DType::C64 => blas::cublasScasum_v2_64(h, d.n, x.cast(), d.incx.abs(), result.cast()),
                    BlasRoutine::ASUM if d.dtype == DType::C128 => blas::cublasDzasum_v2_64(h, d.n, x.cast(), d.incx.abs(), result.cast()),
                    BlasRoutine::NRM2 => blas::cublasNrm2Ex_64(h, d.n, x, t, d.incx.abs(), result, r, r),
                    BlasRoutine::ASUM => blas::cublasAsumEx_64(h, d.n, x, t, d.incx.abs(), result, r, r),
                    BlasRoutine::DOTC => blas::cublasDotcEx_64(h, d.n, x, t, d.incx, y, t, d.incy, result, r, r),
                    _ => blas::cublasDotEx_64(h, d.n, x, t, d.incx, y, t, d.incy, result, r, r),
                }
            };
            check(answer, "a reduction of cuBLAS")
        })
    }

    fn gemv(&self, stream: &CudaStream, (a, x, y): (u64, u64, u64), alpha: &Number, beta: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        if d.m == 0 || d.n == 0 {
            return Ok(());
        }
        let t = turn(d.trans_a, d.dtype);
        let length = if t == Turn::None { d.m } else { d.n };
        if alpha.zero {
            return self.scale(stream, y, length, beta, workspace);
        }
        if self.conjugates_rows() {
            return self.gemv_conjugated(stream, (a, x, y), alpha, beta, workspace);
        }
        let (rows, columns, t) = match (row_major(d), t) {
            (false, t) => (d.m, d.n, t),
            (true, Turn::None) => (d.n, d.m, Turn::Transposed),
            (true, _) => (d.n, d.m, Turn::None),
        };
        let t = turn_blas(t);
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
            macro_rules! gemv {
                ($f:ident, $T:ty) => {{
                    let (alpha, beta): (*const $T, *const $T) = (alpha.address().cast(), beta.address().cast());
                    blas::$f(h, t, rows, columns, alpha, a as *const $T, d.lda, x as *const $T, d.incx, beta, y as *mut $T, d.incy)
                }};
            }
            // SAFETY: the host bound memory of the planned extents; scalars are read before this returns.
            let answer = unsafe {
                match (d.dtype.is_complex(), d.dtype.bytes()) {
                    (false, 4) => gemv!(cublasSgemv_v2_64, f32),
                    (false, _) => gemv!(cublasDgemv_v2_64, f64),
                    (true, 8) => gemv!(cublasCgemv_v2_64, blas::cuComplex),
                    _ => gemv!(cublasZgemv_v2_64, blas::cuDoubleComplex),
                }
            };
            check(answer, "cublas<t>gemv")
        })
    }

    /// y ← beta·y, where beta = 0 does not read y.
    fn scale(&self, stream: &CudaStream, y: u64, n: i64, beta: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        let (inc, width) = (d.incy.unsigned_abs() as usize, d.dtype.bytes());
        if beta.zero {
            let units = width / 4;
            // SAFETY: the vector's elements, each a row of the set; elements are on 4-byte boundaries.
            let answer = unsafe { sys::cuMemsetD2D32Async(y, inc * width, 0, units, n as usize, stream.raw()) };
            return driver::check(answer, "cuMemsetD2D32Async");
        }
        let t = data_type(d.dtype)?;
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
            // SAFETY: as for every vector of the call.
            check(unsafe { blas::cublasScalEx_64(h, n, beta.address(), t, y as *mut c_void, t, inc as i64, t) }, "cublasScalEx")
        })
    }

    /// y ← alpha·conj(M)·x + beta·y as yᵀ ← alpha·xᵀ·Mᴴ + beta·yᵀ, on vectors gathered in the workspace.
    fn gemv_conjugated(&self, stream: &CudaStream, (a, x, y): (u64, u64, u64), alpha: &Number, beta: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        let x_packed = workspace + VECTOR_BYTES;
        let y_packed = x_packed + (d.m as u64 * d.dtype.bytes() as u64).next_multiple_of(BOUNDARY);
        self.copy(stream, d.m, (x, d.incx), (x_packed, 1), workspace)?;
        if !beta.zero {
            self.copy(stream, d.n, (y, d.incy), (y_packed, 1), workspace)?;
        }
        let row = Side { ld: 1, stride: 0, turn: Turn::None };
        let matrix = Side { ld: d.lda, stride: 0, turn: Turn::Conjugated };
        let (input, output) = (d.dtype, d.dtype);
        let shape = Shape { input, output, m: 1, n: d.n, k: d.m, batch: 1, a: row, b: matrix, c: (1, 0), addend: Addend::Output };
        run_blas(&self.chip, stream, &shape, (x_packed, a, y_packed), (alpha, beta), (workspace, VECTOR_BYTES))?;
        self.copy(stream, d.n, (y_packed, 1), (y, d.incy), workspace)
    }

    /// Copies a complex vector; increments are (address, increment).
    fn copy(&self, stream: &CudaStream, n: i64, (from, inc_from): (u64, i64), (to, inc_to): (u64, i64), workspace: u64) -> Result<()> {
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
            // SAFETY: vectors of the call, or of the workspace, of n elements.
            let answer = unsafe {
                if self.desc.dtype == DType::C64 {
                    blas::cublasCcopy_v2_64(h, n, from as *const blas::cuComplex, inc_from, to as *mut blas::cuComplex, inc_to)
                } else {
                    blas::cublasZcopy_v2_64(h, n, from as *const blas::cuDoubleComplex, inc_from, to as *mut blas::cuDoubleComplex, inc_to)
                }
            };
            check(answer, "cublas<t>copy")
        })
    }

    fn trsm(&self, stream: &CudaStream, a: u64, b: u64, alpha: &Number, workspace: u64) -> Result<()> {
        let d = &self.desc;
        if d.m == 0 || d.n == 0 {
            return Ok(());
        }
        // The transposed equation: the triangle changes sides and halves, its operation stays.
        let row = row_major(d);
        let ((m, n), left) = if row { ((d.n, d.m), d.side != BlasSide::LEFT.0) } else { ((d.m, d.n), d.side == BlasSide::LEFT.0) };
        let upper = (d.uplo == BlasUplo::UPPER.0) != row;
        let side = if left { blas::cublasSideMode_t::CUBLAS_SIDE_LEFT } else { blas::cublasSideMode_t::CUBLAS_SIDE_RIGHT };
        let half = if upper { blas::cublasFillMode_t::CUBLAS_FILL_MODE_UPPER } else { blas::cublasFillMode_t::CUBLAS_FILL_MODE_LOWER };
        let unit = d.diag == BlasDiag::UNIT.0;
        let diagonal = if unit { blas::cublasDiagType_t::CUBLAS_DIAG_UNIT } else { blas::cublasDiagType_t::CUBLAS_DIAG_NON_UNIT };
        if alpha.zero {
            // B ← 0 whatever it and A hold; cuBLAS would give NaN for 0 · NaN.
            let (units, pitch) = (d.dtype.bytes() / 4, d.ldb as usize * d.dtype.bytes());
            // SAFETY: n columns of m elements each, of which the host bound every one; elements are on 4-byte boundaries.
            let answer = unsafe { sys::cuMemsetD2D32Async(b, pitch, 0, m as usize * units, n as usize, stream.raw()) };
            return driver::check(answer, "cuMemsetD2D32Async");
        }
        let t = turn_blas(turn(d.trans_a, d.dtype));
        self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
            macro_rules! trsm {
                ($f:ident, $T:ty) => {
                    blas::$f(h, side, half, t, diagonal, m, n, alpha.address().cast(), a as *const $T, d.lda, b as *mut $T, d.ldb)
                };
            }
            // SAFETY: the host bound memory of the planned extents; the scalar is read before this returns.
            let answer = unsafe {
                match (d.dtype.is_complex(), d.dtype.bytes()) {
                    (false, 4) => trsm!(cublasStrsm_v2_64, f32),
                    (false, _) => trsm!(cublasDtrsm_v2_64, f64),
                    (true, 8) => trsm!(cublasCtrsm_v2_64, blas::cuComplex),
                    _ => trsm!(cublasZtrsm_v2_64, blas::cuDoubleComplex),
                }
            };
            check(answer, "cublas<t>trsm")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desc(routine: BlasRoutine) -> BlasDesc {
        let r = catalogue::routine(routine.0).unwrap();
        BlasDesc { order: BlasOrder::ROW_MAJOR.0, trans_a: BlasTrans::TRANS.0, trans_b: BlasTrans::NO_TRANS.0, ..catalogue::descriptor(r, &r.types[0]) }
    }

    #[test]
    fn row_major_products_are_transposed_ones() {
        let d = BlasDesc { m: 3, n: 4, k: 5, lda: 3, ldb: 4, ldc: 4, ..desc(BlasRoutine::GEMM) };
        catalogue::check(&d).unwrap();
        let s = gemm_shape(&d);
        assert_eq!((s.m, s.n, s.k, s.c), (4, 3, 5, (4, 0)));
        assert_eq!((s.a, s.b), (Side { ld: 4, stride: 0, turn: Turn::None }, Side { ld: 3, stride: 0, turn: Turn::Transposed }));
        let idle = idle_shape(&s);
        assert_eq!((idle.k, idle.a.ld, idle.b.ld, idle.a.turn), (1, 4, 1, Turn::None));
    }

    #[test]
    fn conjugation_is_for_complex_numbers() {
        let conjugated = BlasTrans::CONJ_TRANS.0;
        assert_eq!((turn(conjugated, DType::F32), turn(conjugated, DType::C64)), (Turn::Transposed, Turn::Conjugated));
    }
}
