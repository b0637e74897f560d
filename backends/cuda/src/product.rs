//! Matrix products through cuBLASLt, with cuBLAS for what it has no algorithm for.
//!
//! Column-major: C (m×n) = alpha·op(A)·op(B) + beta·C, or + beta·addend, or + a bias of m elements. Two algorithms are chosen when planned: one for
//! operands on 16-byte boundaries, one for any. Sums are f32 for halves and f32 (never TF32), f64 for doubles, and are split only in the sums' own
//! type and in an order that does not change from run to run.

use core::ffi::c_void;
use std::sync::{Arc, Mutex};

use flagos_backend_api::{Code, DType, Error, Result};

use crate::device::{Chip, lock};
use crate::driver::Shared;
use crate::engine::{Number, PRODUCT_BYTES, blas, check, check_lt, data_type, lt, products};
use crate::stream::CudaStream;

/// Boundary in bytes the faster algorithm may rely on.
const ALIGNED: u64 = 16;

/// What is applied to a matrix operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// Transposition.
    Transposed,
    /// Transposition and conjugation.
    Conjugated,
}

/// A matrix operand, column-major as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Leading dimension in elements.
    pub ld: i64,
    /// Elements between problems.
    pub stride: i64,
    /// What is applied to it.
    pub turn: Turn,
}

/// What is added to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addend {
    /// The output's own contents.
    Output,
    /// Another matrix of the output's shape: its leading dimension and batch stride.
    Matrix(i64, i64),
    /// A vector of m elements, the same for every column, unscaled.
    Bias,
}

/// A product.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Type of A and B.
    pub input: DType,
    /// Type of C and of what is added.
    pub output: DType,
    /// Rows of C.
    pub m: i64,
    /// Columns of C.
    pub n: i64,
    /// Length of the sums; at least 1.
    pub k: i64,
    /// Number of problems.
    pub batch: i64,
    /// A.
    pub a: Side,
    /// B.
    pub b: Side,
    /// C: leading dimension and batch stride.
    pub c: (i64, i64),
    /// What is added.
    pub addend: Addend,
}

impl Shape {
    /// Type of sums and scalars.
    pub fn compute(&self) -> DType {
        if self.input.is_complex() || self.input == DType::F64 { self.input } else { DType::F32 }
    }
}

/// Addresses of a launch.
pub struct Addresses {
    /// A.
    pub a: u64,
    /// B.
    pub b: u64,
    /// What is added, where it is not the output.
    pub addend: u64,
    /// C.
    pub c: u64,
    /// At least [`Product::workspace_bytes`], on a 256-byte boundary.
    pub workspace: u64,
}

/// An object of cuBLASLt's, destroyed when dropped.
struct Owned<T>(Shared<*mut T>, unsafe fn(*mut T) -> lt::cublasStatus_t);

impl<T> Owned<T> {
    fn new(make: impl FnOnce(*mut *mut T) -> lt::cublasStatus_t, destroy: unsafe fn(*mut T) -> lt::cublasStatus_t) -> Result<Owned<T>> {
        let mut raw = core::ptr::null_mut();
        check_lt(make(&mut raw), "cublasLt…Create")?;
        Ok(Owned(Shared(raw), destroy))
    }
    fn raw(&self) -> *mut T {
        self.0.0
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { (self.1)(self.0.0) };
    }
}

type Layout = Owned<lt::cublasLtMatrixLayoutOpaque_t>;
type Description = Owned<lt::cublasLtMatmulDescOpaque_t>;

/// cuBLASLt's half of a product.
struct Light {
    description: Description,
    layouts: [Layout; 4],
    /// For operands on 16-byte boundaries, and for any.
    algorithms: [Option<lt::cublasLtMatmulAlgo_t>; 2],
    /// The bias's address is part of the description, so who enqueues holds the lock.
    biased: Option<Mutex<()>>,
}

/// A planned product.
pub struct Product {
    shape: Shape,
    light: Light,
    chip: Arc<Chip>,
}

fn lt_type(t: DType) -> Result<lt::cudaDataType_t> {
    use lt::cudaDataType_t as T;
    Ok(match (t.code, t.bits) {
        (2, 16) => T::CUDA_R_16F,
        (4, 16) => T::CUDA_R_16BF,
        (2, 32) => T::CUDA_R_32F,
        (2, 64) => T::CUDA_R_64F,
        (5, 64) => T::CUDA_C_32F,
        (5, 128) => T::CUDA_C_64F,
        _ => return Err(Error::unimplemented(format!("cuBLASLt is not used for {t}"))),
    })
}

/// As cuBLASLt takes it: its operations are cuBLAS's, which its bindings do not name.
fn turn_lt(turn: Turn) -> i32 {
    turn_blas(turn) as i32
}

/// As cuBLAS names it.
pub fn turn_blas(turn: Turn) -> blas::cublasOperation_t {
    match turn {
        Turn::None => blas::cublasOperation_t::CUBLAS_OP_N,
        Turn::Transposed => blas::cublasOperation_t::CUBLAS_OP_T,
        Turn::Conjugated => blas::cublasOperation_t::CUBLAS_OP_C,
    }
}

fn layout(t: DType, rows: i64, columns: i64, ld: i64, batch: i64, stride: i64) -> Result<Layout> {
    use lt::cublasLtMatrixLayoutAttribute_t as A;
    let t = lt_type(t)?;
    // SAFETY: the place is writable.
    let made = Owned::new(|p| unsafe { lt::cublasLtMatrixLayoutCreate(p, t, rows as u64, columns as u64, ld) }, lt::cublasLtMatrixLayoutDestroy)?;
    let batch = i32::try_from(batch).map_err(|_| Error::unimplemented(format!("{batch} products in one call; cuBLASLt counts to 2^31 - 1")))?;
    // SAFETY: the layout is alive; the values have the sizes the attributes state.
    unsafe {
        let count = lt::cublasLtMatrixLayoutSetAttribute(made.raw(), A::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, (&raw const batch).cast(), 4);
        check_lt(count, "cublasLtMatrixLayoutSetAttribute")?;
        let apart = lt::cublasLtMatrixLayoutSetAttribute(made.raw(), A::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, (&raw const stride).cast(), 8);
        check_lt(apart, "cublasLtMatrixLayoutSetAttribute")?;
    }
    Ok(made)
}

impl Light {
    fn new(shape: &Shape) -> Result<Light> {
        use lt::cublasLtMatmulDescAttributes_t as A;
        let compute = shape.compute();
        let wide = compute == DType::F64 || compute == DType::C128;
        let sums = if wide { lt::cublasComputeType_t::CUBLAS_COMPUTE_64F } else { lt::cublasComputeType_t::CUBLAS_COMPUTE_32F };
        let scale = lt_type(compute)?;
        // SAFETY: the place is writable.
        let description = Owned::new(|p| unsafe { lt::cublasLtMatmulDescCreate(p, sums, scale) }, lt::cublasLtMatmulDescDestroy)?;
        let set = |attribute, value: *const c_void| {
            // SAFETY: the description is alive; every attribute set here has 4 bytes.
            check_lt(unsafe { lt::cublasLtMatmulDescSetAttribute(description.raw(), attribute, value, 4) }, "cublasLtMatmulDescSetAttribute")
        };
        let (ta, tb) = (turn_lt(shape.a.turn), turn_lt(shape.b.turn));
        set(A::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const ta).cast())?;
        set(A::CUBLASLT_MATMUL_DESC_TRANSB, (&raw const tb).cast())?;
        let bias = shape.addend == Addend::Bias;
        if bias {
            let epilogue = lt::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            set(A::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast())?;
        }
        let turned = |s: Side, rows: i64, columns: i64| if s.turn == Turn::None { (rows, columns) } else { (columns, rows) };
        let ((ra, ca), (rb, cb)) = (turned(shape.a, shape.m, shape.k), turned(shape.b, shape.k, shape.n));
        let (ld, stride) = match shape.addend {
            Addend::Matrix(ld, stride) => (ld, stride),
            _ => shape.c,
        };
        let layouts = [
            layout(shape.input, ra, ca, shape.a.ld, shape.batch, shape.a.stride)?,
            layout(shape.input, rb, cb, shape.b.ld, shape.batch, shape.b.stride)?,
            layout(shape.output, shape.m, shape.n, ld, shape.batch, stride)?,
            layout(shape.output, shape.m, shape.n, shape.c.0, shape.batch, shape.c.1)?,
        ];
        Ok(Light { description, layouts, algorithms: [None; 2], biased: bias.then(|| Mutex::new(())) })
    }

    /// The best algorithm for operands on a boundary of `alignment` bytes; `None` when there is none.
    fn choose(&self, handle: lt::cublasLtHandle_t, alignment: u32) -> Result<Option<lt::cublasLtMatmulAlgo_t>> {
        use lt::cublasLtMatmulPreferenceAttributes_t as P;
        // SAFETY: the place is writable.
        let wish = Owned::new(|p| unsafe { lt::cublasLtMatmulPreferenceCreate(p) }, lt::cublasLtMatmulPreferenceDestroy)?;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the wish is alive; values have the sizes stated.
            check_lt(unsafe { lt::cublasLtMatmulPreferenceSetAttribute(wish.raw(), attribute, value, bytes) }, "cublasLtMatmulPreferenceSetAttribute")
        };
        // Partial sums meet in the compute type, in a fixed order.
        let (workspace, reduction) = (PRODUCT_BYTES, lt::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32);
        set(P::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)?;
        set(P::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const reduction).cast(), 4)?;
        for operand in [
            P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(operand, (&raw const alignment).cast(), 4)?;
        }
        let [a, b, c, d] = &self.layouts;
        let mut found = core::mem::MaybeUninit::<lt::cublasLtMatmulHeuristicResult_t>::zeroed();
        let mut count = 0;
        // SAFETY: all objects are alive; there is room for the one result that is asked for.
        let answer = unsafe {
            let (desc, wish) = (self.description.raw(), wish.raw());
            lt::cublasLtMatmulAlgoGetHeuristic(handle, desc, a.raw(), b.raw(), c.raw(), d.raw(), wish, 1, found.as_mut_ptr(), &mut count)
        };
        if answer != lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS || count < 1 {
            return Ok(None);
        }
        // SAFETY: the library filled one result; zeroes, which it began as, are a value of it too.
        let found = unsafe { found.assume_init() };
        Ok((found.state == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS).then_some(found.algo))
    }
}

impl Product {
    /// Plans a product. The context is current.
    ///
    /// # Errors
    /// UNIMPLEMENTED when neither library has an algorithm or is there.
    pub fn new(chip: &Arc<Chip>, shape: Shape) -> Result<Product> {
        products(chip)?;
        let handle = chip.engines.lt()?;
        let mut light = Light::new(&shape)?;
        let least = shape.input.bytes().min(shape.output.bytes()) as u32;
        light.algorithms = [light.choose(handle, ALIGNED as u32)?, light.choose(handle, least)?];
        if light.algorithms[1].is_none() && shape.addend != Addend::Output {
            return Err(Error::unimplemented("cuBLASLt has no algorithm for this product and what is added"));
        }
        Ok(Product { shape, light, chip: chip.clone() })
    }

    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> u64 {
        PRODUCT_BYTES
    }

    /// Enqueues. The context is current.
    ///
    /// # Errors
    /// Those of the libraries.
    pub fn run(&self, stream: &CudaStream, at: &Addresses, alpha: &Number, beta: &Number) -> Result<()> {
        let added = if self.shape.addend == Addend::Output { at.c } else { at.addend };
        let aligned = (at.a | at.b | at.c | added).is_multiple_of(ALIGNED);
        let [fast, plain] = &self.light.algorithms;
        match if aligned { fast.as_ref().or(plain.as_ref()) } else { plain.as_ref() } {
            Some(algorithm) => self.run_lt(stream, at, added, alpha, beta, algorithm),
            None if self.shape.addend == Addend::Output => {
                let s = &self.shape;
                run_blas(&self.chip, stream, s, (at.a, at.b, at.c), (alpha, beta), (at.workspace, PRODUCT_BYTES))
            }
            None => Err(Error::new(Code::INTERNAL, "a product was planned without an algorithm")),
        }
    }

    fn run_lt(&self, stream: &CudaStream, at: &Addresses, added: u64, alpha: &Number, beta: &Number, algorithm: &lt::cublasLtMatmulAlgo_t) -> Result<()> {
        let handle = self.chip.engines.lt()?;
        let (light, zero) = (&self.light, Number::real(self.shape.compute(), 0.0));
        let (beta, addend) = if light.biased.is_some() { (&zero, at.c) } else { (beta, added) };
        let _held = light.biased.as_ref().map(lock);
        if light.biased.is_some() {
            let attribute = lt::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            // SAFETY: the description is alive and, while the lock is held, this thread's; an address has 8 bytes.
            let set = unsafe { lt::cublasLtMatmulDescSetAttribute(light.description.raw(), attribute, (&raw const added).cast(), 8) };
            check_lt(set, "cublasLtMatmulDescSetAttribute")?;
        }
        let [la, lb, lc, ld] = &light.layouts;
        // SAFETY: all objects are alive; the host bound memory of the planned extents and a workspace of the planned size; scalars are read before
        // this returns.
        let answer = unsafe {
            lt::cublasLtMatmul(
                handle,
                light.description.raw(),
                alpha.address(),
                at.a as *const c_void,
                la.raw(),
                at.b as *const c_void,
                lb.raw(),
                beta.address(),
                addend as *const c_void,
                lc.raw(),
                at.c as *mut c_void,
                ld.raw(),
                algorithm,
                at.workspace as *mut c_void,
                PRODUCT_BYTES as usize,
                stream.raw().cast(),
            )
        };
        check_lt(answer, "cublasLtMatmul")
    }
}

/// A product by cuBLAS, which adds to the output only.
pub fn run_blas(
    chip: &Chip,
    stream: &CudaStream,
    s: &Shape,
    (a, b, c): (u64, u64, u64),
    (alpha, beta): (&Number, &Number),
    workspace: (u64, u64),
) -> Result<()> {
    let (input, output) = (data_type(s.input)?, data_type(s.output)?);
    let compute = s.compute();
    let wide = compute == DType::F64 || compute == DType::C128;
    let sums = if wide { blas::cublasComputeType_t::CUBLAS_COMPUTE_64F } else { blas::cublasComputeType_t::CUBLAS_COMPUTE_32F };
    let (ta, tb, algorithm) = (turn_blas(s.a.turn), turn_blas(s.b.turn), blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT);
    chip.engines.blas(stream, workspace, false, |h| {
        // SAFETY: the host bound memory of the planned extents; scalars are read before this returns.
        let answer = unsafe {
            let (a, b, c) = (a as *const c_void, b as *const c_void, c as *mut c_void);
            let (alpha, beta) = (alpha.address(), beta.address());
            blas::cublasGemmStridedBatchedEx_64(
                h, ta, tb, s.m, s.n, s.k, alpha, a, input, s.a.ld, s.a.stride, b, input, s.b.ld, s.b.stride, beta, c, output, s.c.0, s.c.1, s.batch, sums,
                algorithm,
            )
        };
        check(answer, "cublasGemmStridedBatchedEx")
    })
}
