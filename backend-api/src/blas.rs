//! BLAS table: one flat descriptor for every routine; the routine says which fields count.

use crate::{DType, Device, Plan, PlanLimits, PlanTable, Status, Support, abi_enum, abi_struct};

abi_enum! {
    /// BLAS routines, numbered for ever. Operand order follows the reference BLAS.
    BlasRoutine = "flagos_blas_routine_t", "FLAGOS_BLAS_" {
        /// y ← alpha·x + y. Bindings: x, y (also output).
        AXPY = 1,
        /// x ← alpha·x.
        SCAL = 2,
        /// result ← xᵀ·y. Bindings: x, y, result.
        DOT = 3,
        /// result ← ‖x‖₂, without undue overflow. Bindings: x, result.
        NRM2 = 4,
        /// result ← Σ|xᵢ| (complex: |re| + |im|). Bindings: x, result.
        ASUM = 5,
        /// result ← conj(x)ᵀ·y.
        DOTC = 6,
        /// y ← alpha·op(A)·x + beta·y. Bindings: A, x, y.
        GEMV = 101,
        /// C ← alpha·op(A)·op(B) + beta·C. Bindings: A, B, C.
        GEMM = 201,
        /// op(A)·X = alpha·B or X·op(A) = alpha·B; X overwrites B. Bindings: A, B.
        TRSM = 202,
    }
    /// Storage order.
    BlasOrder = "flagos_blas_order_t", "FLAGOS_BLAS_ORDER_" {
        /// Rows are contiguous.
        ROW_MAJOR = 101,
        /// Columns are contiguous.
        COL_MAJOR = 102,
    }
    /// Operation applied to a matrix operand.
    BlasTrans = "flagos_blas_trans_t", "FLAGOS_BLAS_" {
        /// As it is.
        NO_TRANS = 111,
        /// Transposed.
        TRANS = 112,
        /// Conjugated and transposed.
        CONJ_TRANS = 113,
    }
    /// Which triangle is stored.
    BlasUplo = "flagos_blas_uplo_t", "FLAGOS_BLAS_" {
        /// Upper.
        UPPER = 121,
        /// Lower.
        LOWER = 122,
    }
    /// Whether the diagonal is one.
    BlasDiag = "flagos_blas_diag_t", "FLAGOS_BLAS_" {
        /// Stored.
        NON_UNIT = 131,
        /// One, not read.
        UNIT = 132,
    }
    /// Side of the triangular operand.
    BlasSide = "flagos_blas_side_t", "FLAGOS_BLAS_" {
        /// op(A)·X.
        LEFT = 141,
        /// X·op(A).
        RIGHT = 142,
    }
}

abi_struct! {
    /// A BLAS call. Enumerations take CBLAS's values. Dimensions are in elements, as in the reference BLAS; fields a routine does not use are 0.
    BlasDesc = "flagos_blas_desc_t", kind 0x60 {
        /// `sizeof(flagos_blas_desc_t)`.
        size: u32,
        /// 0x60.
        kind: u32,
        /// A `flagos_blas_routine_t` value.
        routine: u32,
        /// A `flagos_blas_order_t` value.
        order: u32,
        /// op of A.
        trans_a: u32,
        /// op of B.
        trans_b: u32,
        /// Stored triangle of A.
        uplo: u32,
        /// Diagonal of A.
        diag: u32,
        /// Side of A.
        side: u32,
        /// Type of A, x and B, y.
        dtype: DType,
        /// Type of C, y or the result, where it differs from `dtype`; else equal to it.
        out_dtype: DType,
        /// Type products are accumulated in, and of alpha and beta.
        compute_dtype: DType,
        /// Rows of op(A) and C.
        m: i64,
        /// Columns of op(B) and C; length of vectors.
        n: i64,
        /// Columns of op(A).
        k: i64,
        /// Leading dimension of A.
        lda: i64,
        /// Leading dimension of B.
        ldb: i64,
        /// Leading dimension of C.
        ldc: i64,
        /// Increment of x; negative ones run from the end, as in the reference BLAS.
        incx: i64,
        /// Increment of y.
        incy: i64,
        /// Number of problems; 1 when not batched.
        batch: i64,
        /// Elements between problems in A or x.
        stride_a: i64,
        /// Elements between problems in B or y.
        stride_b: i64,
        /// Elements between problems in C or the result.
        stride_c: i64,
    }

    /// BLAS functions. Optional.
    BlasTable = "flagos_blas_table_t", kind 0x61 {
        /// `sizeof(flagos_blas_table_t)`.
        size: u32,
        /// 0x61.
        kind: u32,
        /// Whether a call is offered; as for operators.
        [Free] fn query(device: *mut Device, desc: *const BlasDesc, level: u32, out_support: *mut Support) -> *mut Status,
        /// Prepares a call.
        [Free] fn plan(device: *mut Device, desc: *const BlasDesc, limits: *const PlanLimits, out_plan: *mut *mut Plan) -> *mut Status,
        /// Plan functions.
        plans: *const PlanTable,
    }
}
