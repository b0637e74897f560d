//! BLAS routines: types, operands, argument checks, operation counts, reference and cases.
//!
//! Meaning, operand order and parameter numbers are those of the reference BLAS (Lawson et al. 1979; Dongarra et al. 1988, 1990), with additions:
//! - A batch repeats the routine: problem `i` lies `i` strides further. The strides are `stride_a`, `stride_b`, `stride_c` of the first, second and
//!   third binding; a result (dot, nrm2, asum) has `stride_c` always. Strides of inputs may be 0.
//! - A negative increment names the lowest address, as in the reference BLAS. An increment may be 0 only for vectors that level 1 just reads.
//! - `beta` = 0 and `alpha` = 0 keep NaN out of what they multiply, but for `scal`, where NaN and infinity times 0 are left open.
//! - `gemv` on a matrix without elements leaves y as it is; `gemm` with k = 0 gives beta·C.

mod cases;
mod reference;

use flagos_backend_api::{BlasDesc, BlasDiag, BlasOrder, BlasRoutine, BlasSide, BlasTrans, BlasUplo, DType, Error, Result, Tensor};
use num_complex::Complex;

pub use crate::View;
use crate::{Array, Data, Numerics, OperandSpan};
pub use cases::{BlasCase, BlasInstance, cases};
pub use reference::{Scalars, reference};

/// Tolerance of every routine: the forward-error bound with the magnitudes the reference states; integers are exact.
pub const NUMERICS: Numerics = Numerics::ForwardError;

/// Types a routine takes, with the name it has for them.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    /// "sgemm".
    pub symbol: &'static str,
    /// Of inputs.
    pub dtype: DType,
    /// Of what is written.
    pub out_dtype: DType,
    /// Of sums, alpha and beta.
    pub compute_dtype: DType,
}

/// Form of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Matrix with a leading dimension.
    Matrix,
    /// Vector with an increment.
    Vector,
    /// One element.
    Scalar,
}

/// One binding of a routine.
#[derive(Debug)]
pub struct Role {
    /// "a", "x", "result".
    pub name: &'static str,
    /// Its form.
    pub form: Form,
    /// Which of `stride_a`, `stride_b`, `stride_c` it follows: 0, 1, 2.
    pub stride: usize,
    /// Read.
    pub reads: bool,
    /// Written.
    pub writes: bool,
}

/// Definition of a routine.
#[derive(Debug)]
pub struct Routine {
    /// Number in descriptors.
    pub routine: BlasRoutine,
    /// Name without type letter.
    pub name: &'static str,
    /// BLAS level, 1 to 3.
    pub level: u32,
    /// Type combinations.
    pub types: &'static [Types],
    /// Bindings in order.
    pub operands: &'static [Role],
    /// Parameters in the reference BLAS's order, by descriptor field; xerbla's numbers count from 1.
    pub parameters: &'static [&'static str],
    /// The formula.
    pub doc: &'static str,
}

const fn types(symbol: &'static str, dtype: DType, out_dtype: DType, compute_dtype: DType) -> Types {
    Types { symbol, dtype, out_dtype, compute_dtype }
}
const fn same(symbol: &'static str, t: DType) -> Types {
    types(symbol, t, t, t)
}
const fn input(name: &'static str, form: Form, stride: usize) -> Role {
    Role { name, form, stride, reads: true, writes: false }
}
const fn updated(name: &'static str, form: Form, stride: usize) -> Role {
    Role { name, form, stride, reads: true, writes: true }
}
const RESULT: Role = Role { name: "result", form: Form::Scalar, stride: 2, reads: false, writes: true };

use DType as D;
use Form::{Matrix, Vector};

/// Every routine.
pub const ROUTINES: &[Routine] = &[
    Routine {
        routine: BlasRoutine::AXPY,
        name: "axpy",
        level: 1,
        types: &[same("saxpy", D::F32), same("daxpy", D::F64), same("caxpy", D::C64), same("zaxpy", D::C128)],
        operands: &[input("x", Vector, 0), updated("y", Vector, 1)],
        parameters: &["n", "alpha", "x", "incx", "y", "incy"],
        doc: "y ← alpha·x + y",
    },
    Routine {
        routine: BlasRoutine::SCAL,
        name: "scal",
        level: 1,
        types: &[same("sscal", D::F32), same("dscal", D::F64), same("cscal", D::C64), same("zscal", D::C128)],
        operands: &[updated("x", Vector, 0)],
        parameters: &["n", "alpha", "x", "incx"],
        doc: "x ← alpha·x",
    },
    Routine {
        routine: BlasRoutine::DOT,
        name: "dot",
        level: 1,
        types: &[same("sdot", D::F32), same("ddot", D::F64), same("cdotu", D::C64), same("zdotu", D::C128)],
        operands: &[input("x", Vector, 0), input("y", Vector, 1), RESULT],
        parameters: &["n", "x", "incx", "y", "incy"],
        doc: "result ← Σ xᵢ·yᵢ",
    },
    Routine {
        routine: BlasRoutine::NRM2,
        name: "nrm2",
        level: 1,
        types: &[same("snrm2", D::F32), same("dnrm2", D::F64), types("scnrm2", D::C64, D::F32, D::F32), types("dznrm2", D::C128, D::F64, D::F64)],
        operands: &[input("x", Vector, 0), RESULT],
        parameters: &["n", "x", "incx"],
        doc: "result ← √Σ|xᵢ|² without undue overflow or underflow; NaN if an xᵢ is NaN, else infinite if one is",
    },
    Routine {
        routine: BlasRoutine::ASUM,
        name: "asum",
        level: 1,
        types: &[same("sasum", D::F32), same("dasum", D::F64), types("scasum", D::C64, D::F32, D::F32), types("dzasum", D::C128, D::F64, D::F64)],
        operands: &[input("x", Vector, 0), RESULT],
        parameters: &["n", "x", "incx"],
        doc: "result ← Σ|re xᵢ| + |im xᵢ|",
    },
    Routine {
        routine: BlasRoutine::DOTC,
        name: "dotc",
        level: 1,
        types: &[same("cdotc", D::C64), same("zdotc", D::C128)],
        operands: &[input("x", Vector, 0), input("y", Vector, 1), RESULT],
        parameters: &["n", "x", "incx", "y", "incy"],
        doc: "result ← Σ conj(xᵢ)·yᵢ",
    },
    Routine {
        routine: BlasRoutine::GEMV,
        name: "gemv",
        level: 2,
        types: &[same("sgemv", D::F32), same("dgemv", D::F64), same("cgemv", D::C64), same("zgemv", D::C128)],
        operands: &[input("a", Matrix, 0), input("x", Vector, 1), updated("y", Vector, 2)],
        parameters: &["trans_a", "m", "n", "alpha", "a", "lda", "x", "incx", "beta", "y", "incy"],
        doc: "y ← alpha·op(A)·x + beta·y, A of m rows and n columns as stored",
    },
    Routine {
        routine: BlasRoutine::GEMM,
        name: "gemm",
        level: 3,
        types: &[
            same("sgemm", D::F32),
            same("dgemm", D::F64),
            same("cgemm", D::C64),
            same("zgemm", D::C128),
            types("hgemm", D::F16, D::F16, D::F32),
            types("shgemm", D::F16, D::F32, D::F32),
            types("bgemm", D::BF16, D::BF16, D::F32),
            types("sbgemm", D::BF16, D::F32, D::F32),
            types("gemm_s8s8s32", D::I8, D::I32, D::I32),
        ],
        operands: &[input("a", Matrix, 0), input("b", Matrix, 1), updated("c", Matrix, 2)],
        parameters: &["trans_a", "trans_b", "m", "n", "k", "alpha", "a", "lda", "b", "ldb", "beta", "c", "ldc"],
        doc: "C ← alpha·op(A)·op(B) + beta·C, op(A) m×k, op(B) k×n",
    },
    Routine {
        routine: BlasRoutine::TRSM,
        name: "trsm",
        level: 3,
        types: &[same("strsm", D::F32), same("dtrsm", D::F64), same("ctrsm", D::C64), same("ztrsm", D::C128)],
        operands: &[input("a", Matrix, 0), updated("b", Matrix, 1)],
        parameters: &["side", "uplo", "trans_a", "diag", "m", "n", "alpha", "a", "lda", "b", "ldb"],
        doc: "B ← X with op(A)·X = alpha·B (left) or X·op(A) = alpha·B (right), B m×n; A triangular, its other triangle and a unit diagonal not read",
    },
];

type Getter = fn(&BlasDesc) -> i64;

/// Descriptor fields a routine may leave unused, which then are 0.
const FIELDS: &[(&str, Getter)] = &[
    ("order", |d| d.order.into()),
    ("side", |d| d.side.into()),
    ("uplo", |d| d.uplo.into()),
    ("trans_a", |d| d.trans_a.into()),
    ("trans_b", |d| d.trans_b.into()),
    ("diag", |d| d.diag.into()),
    ("m", |d| d.m),
    ("n", |d| d.n),
    ("k", |d| d.k),
    ("lda", |d| d.lda),
    ("ldb", |d| d.ldb),
    ("ldc", |d| d.ldc),
    ("incx", |d| d.incx),
    ("incy", |d| d.incy),
];

/// The definition of a routine number.
pub fn routine(number: u32) -> Option<&'static Routine> {
    ROUTINES.iter().find(|r| r.routine.0 == number)
}

/// A routine's name without type letter ("gemm"); "?" for an unknown number.
pub fn name(number: u32) -> &'static str {
    routine(number).map_or("?", |r| r.name)
}

/// A call's name with type letter ("sgemm"); the plain name for types it is not offered in.
pub fn symbol(d: &BlasDesc) -> &'static str {
    routine(d.routine).and_then(|r| types_of(r, d)).map_or(name(d.routine), |t| t.symbol)
}

/// A descriptor of a routine in given types with every other field 0, but for `batch` = 1 and increments of 1 where there are any.
pub fn descriptor(r: &Routine, t: &Types) -> BlasDesc {
    let used = |field: &str| i64::from(r.parameters.contains(&field));
    BlasDesc {
        size: BlasDesc::SIZE,
        kind: BlasDesc::KIND,
        routine: r.routine.0,
        order: 0,
        trans_a: 0,
        trans_b: 0,
        uplo: 0,
        diag: 0,
        side: 0,
        dtype: t.dtype,
        out_dtype: t.out_dtype,
        compute_dtype: t.compute_dtype,
        m: 0,
        n: 0,
        k: 0,
        lda: 0,
        ldb: 0,
        ldc: 0,
        incx: used("incx"),
        incy: used("incy"),
        batch: 1,
        stride_a: 0,
        stride_b: 0,
        stride_c: 0,
    }
}

/// Checks a call.
///
/// # Errors
/// UNIMPLEMENTED for unknown routines and types; INVALID_ARGUMENT for the first illegal parameter, as `xerbla` would be told: the text names
/// routine, parameter, its number, its value and the legal range; [`Error::argument`] is the number in the Fortran interface (CBLAS counts one
/// more for `order`).
pub fn check(d: &BlasDesc) -> Result<()> {
    if d.size != BlasDesc::SIZE || d.kind != BlasDesc::KIND {
        let (size, kind) = (BlasDesc::SIZE, BlasDesc::KIND);
        return Err(Error::invalid(format!("flagos_blas_desc_t has size {} and kind {:#x}, this build's are {size} and {kind:#x}", d.size, d.kind)));
    }
    let r = routine(d.routine).ok_or_else(|| Error::unimplemented(format!("BLAS routine {} is not in this build's catalogue", d.routine)))?;
    if types_of(r, d).is_none() {
        let form = |t: &Types| format!("{} ({} → {}, compute {})", t.symbol, t.dtype, t.out_dtype, t.compute_dtype);
        let known: Vec<String> = r.types.iter().map(form).collect();
        let given = format!("{} → {}, compute {}", d.dtype, d.out_dtype, d.compute_dtype);
        return Err(Error::unimplemented(format!("{} is not offered for {given}; it is as {}", r.name, known.join(", "))));
    }
    for (field, get) in FIELDS {
        let value = get(d);
        let used = r.parameters.contains(field) || *field == "order" && r.level > 1;
        let unused = || (value != 0).then(|| "the routine does not use it: set it to 0".to_owned());
        if let Some(want) = if used { unlawful(d, r, field, value) } else { unused() } {
            return Err(illegal(d, r, field, value, &want));
        }
    }
    if d.batch < 0 {
        return Err(illegal(d, r, "batch", d.batch, "it must be at least 0"));
    }
    for (role, stride) in r.operands.iter().zip(strides(d, r)) {
        if stride < 0 && d.batch > 1 {
            return Err(illegal(d, r, ["stride_a", "stride_b", "stride_c"][role.stride], stride, "it must be at least 0"));
        }
    }
    operands(d).map(drop)
}

/// What each binding touches, in binding order. `check` has passed.
///
/// # Errors
/// INVALID_ARGUMENT for spans beyond 63 bits and for outputs whose elements overlap.
pub fn operands(d: &BlasDesc) -> Result<Vec<OperandSpan>> {
    let named = |e: Error| Error { message: format!("{}: {}", symbol(d), e.message), ..e };
    views(d).iter().map(|v| v.span().map_err(named)).collect()
}

/// Each binding as a strided view, in binding order: matrices as stored, `[batch, rows, columns]`; vectors `[batch, n]` in the routine's order of
/// elements; results `[batch]`. Empty for an unknown routine.
pub fn views(d: &BlasDesc) -> Vec<View> {
    let Some(r) = routine(d.routine) else { return Vec::new() };
    let view = |(role, stride): (&Role, i64)| {
        let dtype = if role.writes { d.out_dtype } else { d.dtype };
        let (tensor, origin) = match role.form {
            Matrix => {
                let ((rows, columns), ld) = (stored(d, role.name), leading(d, role.name));
                let (down, along) = if d.order == BlasOrder::ROW_MAJOR.0 { (ld, 1) } else { (1, ld) };
                (Tensor::strided(dtype, &[d.batch, rows, columns], &[stride, down, along]), 0)
            }
            Vector => {
                let (n, inc) = (length(d, role.name), if role.name == "x" { d.incx } else { d.incy });
                let back = if inc < 0 && n > 0 { (n - 1).saturating_mul(inc.saturating_abs()) } else { 0 };
                (Tensor::strided(dtype, &[d.batch, n], &[stride, inc]), back)
            }
            Form::Scalar => (Tensor::strided(dtype, &[d.batch], &[stride]), 0),
        };
        View { name: role.name, tensor, origin, reads: role.reads, writes: role.writes }
    };
    r.operands.iter().zip(strides(d, r)).map(view).collect()
}

/// Arithmetic operations; a complex multiply-add counts 8, a real one 2.
pub fn flops(d: &BlasDesc) -> f64 {
    let (m, n, k) = (d.m as f64, d.n as f64, d.k as f64);
    let one = match BlasRoutine(d.routine) {
        BlasRoutine::SCAL | BlasRoutine::ASUM => n,
        BlasRoutine::GEMV => 2.0 * m * n,
        BlasRoutine::GEMM => 2.0 * m * n * k,
        BlasRoutine::TRSM if d.side == BlasSide::LEFT.0 => m * m * n,
        BlasRoutine::TRSM => m * n * n,
        _ => 2.0 * n,
    };
    one * d.batch as f64 * if d.dtype.is_complex() { 4.0 } else { 1.0 }
}

/// A scalar in the call's compute type, as `flagos_launch_t` takes it.
pub fn scalar_bytes(d: &BlasDesc, value: Complex<f64>) -> Vec<u8> {
    let mut bytes = vec![0; d.compute_dtype.bytes()];
    let data = if d.compute_dtype.is_complex() { Data::Complex(vec![value]) } else { Data::Float(vec![value.re]) };
    Array { shape: vec![1], data }.put(0, d.compute_dtype, &mut bytes);
    bytes
}

fn types_of(r: &Routine, d: &BlasDesc) -> Option<&'static Types> {
    let r = routine(r.routine.0)?;
    r.types.iter().find(|t| t.dtype == d.dtype && t.out_dtype == d.out_dtype && t.compute_dtype == d.compute_dtype)
}

/// The batch stride of each binding.
fn strides(d: &BlasDesc, r: &Routine) -> Vec<i64> {
    r.operands.iter().map(|o| [d.stride_a, d.stride_b, d.stride_c][o.stride]).collect()
}

/// Rows and columns of a matrix as stored.
fn stored(d: &BlasDesc, matrix: &str) -> (i64, i64) {
    let turned = |trans: u32, (r, c): (i64, i64)| if trans == BlasTrans::NO_TRANS.0 { (r, c) } else { (c, r) };
    match (BlasRoutine(d.routine), matrix) {
        (BlasRoutine::GEMM, "a") => turned(d.trans_a, (d.m, d.k)),
        (BlasRoutine::GEMM, "b") => turned(d.trans_b, (d.k, d.n)),
        (BlasRoutine::TRSM, "a") => if d.side == BlasSide::LEFT.0 { (d.m, d.m) } else { (d.n, d.n) },
        _ => (d.m, d.n),
    }
}

fn leading(d: &BlasDesc, matrix: &str) -> i64 {
    match matrix {
        "a" => d.lda,
        "b" => d.ldb,
        _ => d.ldc,
    }
}

/// Length of a vector.
fn length(d: &BlasDesc, vector: &str) -> i64 {
    let along_rows = (vector == "x") == (d.trans_a == BlasTrans::NO_TRANS.0);
    if d.routine != BlasRoutine::GEMV.0 || along_rows { d.n } else { d.m }
}

/// What a used field must be, if it is not.
fn unlawful(d: &BlasDesc, r: &Routine, field: &str, value: i64) -> Option<String> {
    let one_of = |list: [u32; 2], names: &str| (!list.contains(&(value as u32))).then(|| format!("it must be {names}"));
    match field {
        "order" => one_of([BlasOrder::ROW_MAJOR.0, BlasOrder::COL_MAJOR.0], "101 (row-major) or 102 (column-major)"),
        "side" => one_of([BlasSide::LEFT.0, BlasSide::RIGHT.0], "141 (left) or 142 (right)"),
        "uplo" => one_of([BlasUplo::UPPER.0, BlasUplo::LOWER.0], "121 (upper) or 122 (lower)"),
        "diag" => one_of([BlasDiag::NON_UNIT.0, BlasDiag::UNIT.0], "131 (stored) or 132 (unit)"),
        "trans_a" | "trans_b" => {
            (!(111..=113).contains(&value)).then(|| "it must be 111 (as it is), 112 (transposed) or 113 (conjugated and transposed)".to_owned())
        }
        "m" | "n" | "k" => (value < 0).then(|| "it must be at least 0".to_owned()),
        "lda" | "ldb" | "ldc" => {
            let ((rows, columns), major) = (stored(d, &field[2..]), d.order == BlasOrder::ROW_MAJOR.0);
            let (least, why) = if major { (columns, "columns of the row-major") } else { (rows, "rows of the column-major") };
            (value < least.max(1)).then(|| format!("it must be at least {}, the {why} {}", least.max(1), field[2..].to_uppercase()))
        }
        _ => {
            let role = r.operands.iter().find(|o| o.name == &field[3..]);
            let may_rest = r.level == 1 && role.is_some_and(|o| !o.writes);
            (value == 0 && !may_rest).then(|| "it must not be 0".to_owned())
        }
    }
}

fn illegal(d: &BlasDesc, r: &Routine, field: &str, value: i64, want: &str) -> Error {
    match r.parameters.iter().position(|p| *p == field) {
        Some(at) => Error::invalid(format!("{}: parameter {} ({field}) is {value}; {want}", symbol(d), at + 1)).at(at as u32 + 1),
        None => Error::invalid(format!("{}: {field} is {value}; {want}", symbol(d))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gemm() -> BlasDesc {
        let r = routine(BlasRoutine::GEMM.0).unwrap();
        BlasDesc {
            order: BlasOrder::COL_MAJOR.0,
            trans_a: BlasTrans::NO_TRANS.0,
            trans_b: BlasTrans::TRANS.0,
            m: 3,
            n: 4,
            k: 5,
            lda: 3,
            ldb: 4,
            ldc: 6,
            ..descriptor(r, &r.types[0])
        }
    }

    #[test]
    fn illegal_parameters_are_named_with_their_numbers() {
        assert_eq!(check(&gemm()), Ok(()));
        let fail = |change: &dyn Fn(&mut BlasDesc)| {
            let mut d = gemm();
            change(&mut d);
            let e = check(&d).unwrap_err();
            (e.message, e.argument)
        };
        assert_eq!(fail(&|d| d.lda = 2), ("sgemm: parameter 8 (lda) is 2; it must be at least 3, the rows of the column-major A".into(), Some(8)));
        assert_eq!(fail(&|d| d.ldc = 0).1, Some(13));
        assert_eq!(fail(&|d| d.k = -1), ("sgemm: parameter 5 (k) is -1; it must be at least 0".into(), Some(5)));
        assert_eq!(fail(&|d| d.trans_b = 114).1, Some(2));
        assert!(fail(&|d| d.order = 0).0.contains("order is 0; it must be 101"));
        assert!(fail(&|d| d.incx = 1).0.contains("does not use it"));
        assert!(fail(&|d| (d.batch, d.stride_c) = (2, 4)).0.contains("operand c is written"));
        assert!(fail(&|d| d.dtype = DType::I64).0.contains("gemm_s8s8s32 (i8 → i32, compute i32)"));
        let (ld, row) = (i64::MAX / 2, BlasOrder::ROW_MAJOR.0);
        assert!(fail(&|d| (d.lda, d.ldb, d.ldc, d.order) = (ld, ld, ld, row)).0.contains("2^63"));
        let long = 1 << 40;
        assert!(fail(&|d| (d.batch, d.m, d.k, d.lda, d.ldc) = (0, long, long, long, long)).0.contains("2^59"));
    }

    #[test]
    fn vectors_run_backwards_from_the_lowest_address() {
        let r = routine(BlasRoutine::AXPY.0).unwrap();
        let d = BlasDesc { n: 4, incx: -3, incy: 2, ..descriptor(r, &r.types[1]) };
        let [x, y] = operands(&d).unwrap()[..] else { panic!() };
        assert_eq!((x.low_bytes, x.high_bytes, x.writes), (0, 80, false));
        assert_eq!((y.low_bytes, y.high_bytes, y.reads, y.writes), (0, 56, true, true));
        assert!(check(&BlasDesc { incx: 0, ..d }).is_ok());
        assert_eq!(check(&BlasDesc { incy: 0, ..d }).unwrap_err().message, "daxpy: parameter 6 (incy) is 0; it must not be 0");
    }

    #[test]
    fn spans_follow_order_batch_and_emptiness() {
        let bytes = |d: &BlasDesc| operands(d).unwrap().iter().map(|s| s.high_bytes / 4).collect::<Vec<_>>();
        assert_eq!(bytes(&gemm()), [15, 20, 21]);
        assert_eq!(bytes(&BlasDesc { k: 0, ..gemm() }), [0, 0, 21]);
        assert_eq!(bytes(&BlasDesc { batch: 2, stride_c: 30, ..gemm() }), [15, 20, 51]);
        assert_eq!(bytes(&BlasDesc { order: BlasOrder::ROW_MAJOR.0, lda: 5, ldb: 5, ..gemm() }), [15, 20, 16]);
    }
}
