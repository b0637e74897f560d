//! Matrix products.

use flagos_backend_api::{Result, Tensor};

use crate::dtypes::NUMBER;
use crate::shape::{Inferred, broadcast, broadcast_index, fault, no_check};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', NUMBER);
const SPECIAL: &str = "K = 0 gives 0; NaN and infinities follow IEEE arithmetic of the products and their sum; integers wrap to T";

/// `mm`.
pub const MM: &Operator = &Operator {
    name: "mm",
    id: 210,
    revision: 1,
    family: "matmul",
    aten: &["mm", "mm.out"],
    onnx: "",
    inputs: &[Operand::new("a", T, "[M, K]"), Operand::new("b", T, "[K, N]")],
    outputs: &[Operand::new("y", T, "[M, N]")],
    attributes: &[],
    infer,
    check: no_check,
    in_place: false,
    numerics: Numerics::ForwardError,
    special: SPECIAL,
    cases: mm_cases,
    reference,
    flops,
    doc: "y[m, n] = Σ a[m, k]·b[k, n] over k, accumulated in f32 or wider for floats up to f32, f64 for f64.",
};

/// `bmm`.
pub const BMM: &Operator = &Operator {
    name: "bmm",
    id: 211,
    aten: &["bmm", "bmm.out"],
    inputs: &[Operand::new("a", T, "[B, M, K]"), Operand::new("b", T, "[B, K, N]")],
    outputs: &[Operand::new("y", T, "[B, M, N]")],
    cases: bmm_cases,
    doc: "y[i, m, n] = Σ a[i, m, k]·b[i, k, n] over k.",
    ..*MM
};

/// `matmul`.
pub const MATMUL: &Operator = &Operator {
    name: "matmul",
    id: 212,
    aten: &["matmul", "matmul.out"],
    onnx: "MatMul",
    inputs: &[Operand::new("a", T, "[.., M, K] or [K]"), Operand::new("b", T, "[.., K, N] or [K]")],
    outputs: &[Operand::new("y", T, "[.., M, N] with leading axes broadcast; M or N is missing where a or b is 1-D")],
    cases: matmul_cases,
    doc: "y[.., m, n] = Σ a[.., m, k]·b[.., k, n] over k; leading axes broadcast, a 1-D operand counts as a row (a) or column (b).",
    ..*MM
};

/// `addmm`.
pub const ADDMM: &Operator = &Operator {
    name: "addmm",
    id: 213,
    aten: &["addmm", "addmm.out", "addmm_"],
    onnx: "Gemm",
    inputs: &[Operand::new("c", T, "broadcasts to [M, N]"), Operand::new("a", T, "[M, K]"), Operand::new("b", T, "[K, N]")],
    attributes: &[
        Attribute::number("alpha", Some(1.0), "factor of the product; integers take its integer part"),
        Attribute::number("beta", Some(1.0), "factor of c; integers take its integer part"),
    ],
    in_place: true,
    special: "beta = 0 ignores c and alpha = 0 ignores a and b, NaN included; K = 0 gives beta·c; integers wrap to T",
    cases: addmm_cases,
    doc: "y[m, n] = beta·c[m, n] + alpha·Σ a[m, k]·b[k, n] over k.",
    ..*MM
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[MM, BMM, MATMUL, ADDMM];

/// Extents of a product.
struct Product {
    batch: Vec<i64>,
    a_batch: Vec<i64>,
    b_batch: Vec<i64>,
    m: i64,
    k: i64,
    n: i64,
    out: Vec<i64>,
}

fn product(call: &Call) -> Result<Product> {
    let op = call.operator;
    let [.., a, b] = call.inputs.as_slice() else { return Err(fault(call, "takes two matrices")) };
    let rank = if op.id == BMM.id { 3 } else { 2 };
    let right = |t: &Tensor| if op.id == MATMUL.id { t.rank > 0 } else { t.rank == rank };
    if !right(a) || !right(b) {
        let wants = if op.id == MATMUL.id { "1 or more".to_owned() } else { rank.to_string() };
        return Err(fault(call, format!("a has shape {:?} and b {:?}; their rank is {wants}", a.shape(), b.shape())));
    }
    let (a_batch, m, k) = match a.shape() {
        [k] => (&[][..], 1, *k),
        [batch @ .., m, k] => (batch, *m, *k),
        [] => (&[][..], 1, 1),
    };
    let (b_batch, rows, n) = match b.shape() {
        [k] => (&[][..], *k, 1),
        [batch @ .., k, n] => (batch, *k, *n),
        [] => (&[][..], 1, 1),
    };
    if k != rows {
        return Err(fault(call, format!("a has shape {:?} and b {:?}: the columns of a ({k}) are not the rows of b ({rows})", a.shape(), b.shape())));
    }
    if op.id == BMM.id && a_batch != b_batch {
        return Err(fault(call, format!("a has {} matrices and b {}; matmul broadcasts them", a_batch[0], b_batch[0])));
    }
    let batch = broadcast(call, &[Tensor::contiguous(a.dtype, a_batch), Tensor::contiguous(b.dtype, b_batch)])?;
    let mut out = batch.clone();
    out.extend((a.rank > 1).then_some(m));
    out.extend((b.rank > 1).then_some(n));
    Ok(Product { a_batch: a_batch.to_vec(), b_batch: b_batch.to_vec(), batch, m, k, n, out })
}

fn infer(call: &Call) -> Result<Inferred> {
    let p = product(call)?;
    let first = &call.inputs[0];
    if call.operator.id == ADDMM.id && broadcast(call, &[*first, Tensor::contiguous(first.dtype, &p.out)])? != p.out {
        return Err(fault(call, format!("c has shape {:?}, which does not broadcast to {:?}", first.shape(), p.out)).at(0));
    }
    Ok(vec![(Some(first.dtype), p.out)])
}

fn flops(call: &Call) -> f64 {
    product(call).map_or(0.0, |p| 2.0 * p.batch.iter().chain(&[p.m, p.k, p.n]).map(|n| *n as f64).product::<f64>())
}

const fn numbers(alpha: f64, beta: f64) -> [(&'static str, AttrValue); 2] {
    [("alpha", AttrValue::Float(alpha)), ("beta", AttrValue::Float(beta))]
}

fn pair(a: &[i64], la: Layout, b: &[i64], lb: Layout) -> Vec<TensorCase> {
    vec![TensorCase::new(a, la, Fill::Normal), TensorCase::new(b, lb, Fill::Normal)]
}

fn mm_cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Offset, Repeated, Strided, Transposed};
    c.add("nn", pair(&[7, 13], Contiguous, &[13, 9], Contiguous), &[]);
    c.add("tn", pair(&[17, 33], Transposed, &[33, 5], Contiguous), &[]);
    c.add("nt", pair(&[8, 16], Contiguous, &[16, 24], Transposed), &[]);
    c.add("tt", pair(&[19, 31], Transposed, &[31, 23], Transposed), &[]);
    c.add("strided", pair(&[6, 11], Strided, &[11, 7], Strided), &[]);
    c.add("offset", pair(&[5, 8], Offset, &[8, 12], Offset), &[]);
    c.add("negative", pair(&[4, 10], Negative, &[10, 6], Negative), &[]);
    c.add("repeated", pair(&[5, 9], Repeated, &[9, 4], Repeated), &[]);
    c.add("one", pair(&[1, 1], Contiguous, &[1, 1], Contiguous), &[]);
    c.add("row", pair(&[1, 65], Contiguous, &[65, 33], Contiguous), &[]);
    c.add("column", pair(&[65, 33], Contiguous, &[33, 1], Contiguous), &[]);
    c.add("k0", pair(&[3, 0], Contiguous, &[0, 4], Contiguous), &[]);
    c.add("m0", pair(&[0, 5], Contiguous, &[5, 4], Contiguous), &[]);
    c.add("n0", pair(&[3, 5], Contiguous, &[5, 0], Contiguous), &[]);
    c.add("odd", pair(&[33, 67], Contiguous, &[67, 35], Contiguous), &[]);
    let spread = |shape: &[i64]| TensorCase::new(shape, Contiguous, Fill::Spread);
    c.add("wide-range", vec![spread(&[9, 21]), spread(&[21, 11])], &[]);
    // More than two extreme terms would make the result depend on the order of summation.
    c.add("special-outer", vec![TensorCase::new(&[16, 1], Contiguous, Fill::Special), TensorCase::new(&[1, 16], Contiguous, Fill::Special)], &[]);
    c.add("special", vec![TensorCase::new(&[24, 2], Contiguous, Fill::Special), TensorCase::new(&[2, 12], Contiguous, Fill::Ints(0, 1))], &[]);
    c.quick("257x513x129", pair(&[257, 513], Contiguous, &[513, 129], Contiguous), &[]);
    c.quick("long", pair(&[17, 4099], Contiguous, &[4099, 31], Transposed), &[]);
    c.quick("tall", pair(&[3001, 5], Transposed, &[5, 67], Contiguous), &[]);
    c.full("512", pair(&[512, 512], Contiguous, &[512, 512], Transposed), &[]);
    c.bench("1024", pair(&[1024, 1024], Contiguous, &[1024, 1024], Contiguous), &[]);
    c.bench("4096", pair(&[4096, 4096], Contiguous, &[4096, 4096], Contiguous), &[]);
    c.bench("1x4096x11008", pair(&[1, 4096], Contiguous, &[4096, 11008], Transposed), &[]);
}

fn bmm_cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Offset, Repeated, Strided, Transposed};
    c.add("flat", pair(&[3, 7, 13], Contiguous, &[3, 13, 9], Contiguous), &[]);
    c.add("transposed", pair(&[4, 6, 10], Transposed, &[4, 10, 5], Transposed), &[]);
    c.add("strided", pair(&[2, 5, 8], Strided, &[2, 8, 3], Contiguous), &[]);
    c.add("offset", pair(&[2, 8, 4], Offset, &[2, 4, 8], Transposed), &[]);
    c.add("negative", pair(&[2, 3, 9], Negative, &[2, 9, 5], Contiguous), &[]);
    c.add("shared", pair(&[5, 6, 7], Contiguous, &[5, 7, 4], Repeated), &[]);
    c.add("one", pair(&[1, 17, 33], Contiguous, &[1, 33, 9], Contiguous), &[]);
    c.add("b0", pair(&[0, 3, 4], Contiguous, &[0, 4, 5], Contiguous), &[]);
    c.add("k0", pair(&[2, 3, 0], Contiguous, &[2, 0, 5], Contiguous), &[]);
    c.quick("many", pair(&[131, 17, 19], Contiguous, &[131, 19, 23], Contiguous), &[]);
    c.quick("large", pair(&[5, 65, 257], Contiguous, &[5, 257, 129], Transposed), &[]);
    c.bench("64x512", pair(&[64, 512, 512], Contiguous, &[64, 512, 512], Contiguous), &[]);
    c.bench("4096x16", pair(&[4096, 16, 16], Contiguous, &[4096, 16, 16], Contiguous), &[]);
}

fn matmul_cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Strided, Transposed};
    c.add("dot", pair(&[37], Contiguous, &[37], Negative), &[]);
    c.add("dot-empty", pair(&[0], Contiguous, &[0], Contiguous), &[]);
    c.add("row", pair(&[13], Strided, &[13, 9], Contiguous), &[]);
    c.add("column", pair(&[9, 13], Contiguous, &[13], Strided), &[]);
    c.add("row-batch", pair(&[6], Contiguous, &[3, 6, 5], Transposed), &[]);
    c.add("column-batch", pair(&[2, 3, 4, 6], Contiguous, &[6], Contiguous), &[]);
    c.add("flat", pair(&[7, 13], Contiguous, &[13, 9], Transposed), &[]);
    c.add("batch", pair(&[2, 3, 5, 7], Contiguous, &[2, 3, 7, 4], Contiguous), &[]);
    c.add("broadcast", pair(&[2, 1, 5, 7], Strided, &[3, 7, 4], Contiguous), &[]);
    c.add("linear", pair(&[2, 9, 16], Contiguous, &[16, 11], Transposed), &[]);
    c.add("rank8", pair(&[2, 1, 1, 2, 1, 3, 4, 5], Contiguous, &[1, 2, 3, 1, 5, 2], Contiguous), &[]);
    c.add("m0", pair(&[3, 0, 5], Contiguous, &[5, 4], Contiguous), &[]);
    c.add("k0", pair(&[3, 2, 0], Contiguous, &[0, 4], Contiguous), &[]);
    c.quick("large", pair(&[3, 129, 65], Contiguous, &[65, 257], Contiguous), &[]);
    c.bench("8x512x1024", pair(&[8, 512, 1024], Contiguous, &[1024, 1024], Transposed), &[]);
}

fn addmm_cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Offset, Repeated, Strided, Transposed};
    let triple = |s: &[i64], l, a: &[i64], la, b: &[i64], lb| [vec![TensorCase::new(s, l, Fill::Normal)], pair(a, la, b, lb)].concat();
    c.add("flat", triple(&[7, 9], Contiguous, &[7, 13], Contiguous, &[13, 9], Contiguous), &[]);
    c.add("bias", triple(&[9], Contiguous, &[7, 13], Contiguous, &[13, 9], Transposed), &[]);
    c.add("column", triple(&[7, 1], Contiguous, &[7, 13], Transposed, &[13, 9], Contiguous), &numbers(2.0, 3.0));
    c.add("scalar", triple(&[], Contiguous, &[7, 13], Strided, &[13, 9], Contiguous), &numbers(-1.0, 2.0));
    c.add("transposed", triple(&[12, 10], Transposed, &[12, 6], Contiguous, &[6, 10], Contiguous), &numbers(1.0, -1.0));
    c.add("strided", triple(&[5, 6], Strided, &[5, 4], Offset, &[4, 6], Negative), &numbers(3.0, 1.0));
    c.add("repeated", triple(&[5, 6], Repeated, &[5, 4], Contiguous, &[4, 6], Contiguous), &[]);
    c.add("fractions", triple(&[8, 8], Contiguous, &[8, 8], Contiguous, &[8, 8], Contiguous), &numbers(0.75, -1.5));
    c.add("alpha0", triple(&[6, 4], Contiguous, &[6, 3], Contiguous, &[3, 4], Contiguous), &numbers(0.0, 2.0));
    c.add("k0", triple(&[3, 4], Contiguous, &[3, 0], Contiguous, &[0, 4], Contiguous), &numbers(2.0, 3.0));
    c.add("m0", triple(&[4], Contiguous, &[0, 3], Contiguous, &[3, 4], Contiguous), &[]);
    let mut nan = triple(&[5, 7], Contiguous, &[5, 3], Contiguous, &[3, 7], Contiguous);
    nan[0].fill = Fill::Uniform(f64::NAN, f64::NAN);
    c.add("nan-c", nan.clone(), &[]);
    c.add("beta0", nan, &numbers(2.0, 0.0));
    let mut nan = triple(&[5, 7], Contiguous, &[5, 3], Contiguous, &[3, 7], Contiguous);
    nan[1].fill = Fill::Uniform(f64::NAN, f64::NAN);
    c.add("alpha0-nan", nan, &numbers(0.0, 1.0));
    c.quick("large", triple(&[129], Contiguous, &[257, 300], Contiguous, &[300, 129], Transposed), &numbers(0.5, 2.0));
    c.bench("1024", triple(&[1024], Contiguous, &[1024, 1024], Contiguous, &[1024, 1024], Transposed), &[]);
}

fn reference(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let p = product(call)?;
    let size = |list: &[i64]| list.iter().map(|n| *n as usize).collect::<Vec<_>>();
    let (batch, a_batch, b_batch, out) = (size(&p.batch), size(&p.a_batch), size(&p.b_batch), size(&p.out));
    let (m, k, n) = (p.m as usize, p.k as usize, p.n as usize);
    let [.., a, b] = x else { return Err(fault(call, "takes two matrices")) };
    let c = (call.operator.id == ADDMM.id).then(|| &x[0]);
    // Places of a's row, b's column and c's element for each output element.
    let count: usize = out.iter().product();
    let places = (0..count).map(|flat| {
        let (i, row, column) = (flat / (m * n), flat / n % m, flat % n);
        let at = |own: &[usize]| broadcast_index(i, &batch, own);
        (at(&a_batch) * m * k + row * k, at(&b_batch) * k * n + column, c.map_or(0, |c| broadcast_index(flat, &out, &c.shape)))
    });
    let ((alpha, alpha_int), (beta, beta_int)) = if c.is_some() { (call.attrs.number_at(0), call.attrs.number_at(1)) } else { ((1.0, 1), (0.0, 0)) };
    if !call.inputs[0].dtype.is_float() {
        let (a, b, c) = (a.ints(), b.ints(), c.map_or_else(Vec::new, Array::ints));
        let dot = |(i, j, at): (usize, usize, usize)| {
            let sum = (0..k).fold(0i128, |s, l| s.wrapping_add(a[i + l] * b[j + l * n]));
            let add = if beta_int == 0 { 0 } else { c[at].wrapping_mul(beta_int.into()) };
            sum.wrapping_mul(alpha_int.into()).wrapping_add(add)
        };
        return Ok(vec![Reference::exact(Array::int(&out, places.map(dot).collect()))]);
    }
    let (a, b, c) = (a.floats(), b.floats(), c.map_or_else(Vec::new, Array::floats));
    let dot = |(i, j, at): (usize, usize, usize)| {
        let (mut y, mut scale) = (Sum::default(), 0.0);
        if alpha != 0.0 {
            let mut sum = Sum::default();
            for l in 0..k {
                sum.add_product(a[i + l], b[j + l * n]);
                scale += (a[i + l] * b[j + l * n]).abs();
            }
            y.add_product(alpha, sum.value());
            scale *= alpha.abs();
        }
        if beta != 0.0 {
            y.add_product(beta, c[at]);
            scale += (beta * c[at]).abs();
        }
        (y.value(), scale)
    };
    let (value, scale) = places.map(dot).unzip();
    // Beyond the products: rounding alpha and beta to the accumulator's type, their products and the sum.
    Ok(vec![Reference::scaled(Array::float(&out, value), scale, k + if alpha == 1.0 && beta == 0.0 { 0 } else { 3 })])
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_backend_api::DType;

    fn run(operator: &'static Operator, inputs: &[Array], attrs: &[(&str, AttrValue)]) -> Array {
        let tensors: Vec<Tensor> =
            inputs.iter().map(|a| Tensor::contiguous(DType::F64, &a.shape.iter().map(|n| *n as i64).collect::<Vec<_>>())).collect();
        let call = Call::inferred(operator, &tensors, DType::NONE, attrs).unwrap();
        reference(&call, inputs).unwrap().remove(0).value
    }

    #[test]
    fn products_are_right_and_broadcast() {
        let a = Array::float(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let b = Array::float(&[2, 1], vec![10.0, 1.0]);
        assert_eq!(run(MM, &[a.clone(), b.clone()], &[]).floats(), [12.0, 34.0]);
        let stack = Array::float(&[2, 1, 2], vec![1.0, 0.0, 0.0, 1.0]);
        let y = run(MATMUL, &[stack, a.clone()], &[]);
        assert_eq!((y.shape.as_slice(), y.floats()), (&[2, 1, 2][..], vec![1.0, 2.0, 3.0, 4.0]));
        let v = Array::float(&[2], vec![1.0, -1.0]);
        assert_eq!(run(MATMUL, &[v.clone(), a], &[]).floats(), [-2.0, -2.0]);
        assert_eq!(run(MATMUL, &[v.clone(), v], &[]), Array::float(&[], vec![2.0]));
    }

    #[test]
    fn zero_factors_hide_nan() {
        let nan = Array::float(&[1, 1], vec![f64::NAN]);
        let two = Array::float(&[1, 1], vec![2.0]);
        assert_eq!(run(ADDMM, &[nan.clone(), two.clone(), two.clone()], &numbers(1.0, 0.0)).floats(), [4.0]);
        assert_eq!(run(ADDMM, &[two.clone(), nan.clone(), two.clone()], &numbers(0.0, 3.0)).floats(), [6.0]);
        assert!(run(ADDMM, &[nan, two.clone(), two], &[]).floats()[0].is_nan());
    }

    #[test]
    fn mismatches_name_the_shapes() {
        let t = |shape: &[i64]| Tensor::contiguous(DType::F32, shape);
        let fail = |op, inputs: &[Tensor]| Call::inferred(op, inputs, DType::NONE, &[]).unwrap_err().message;
        assert!(fail(MM, &[t(&[2, 3]), t(&[4, 5])]).contains("columns of a (3) are not the rows of b (4)"));
        assert!(fail(MM, &[t(&[2, 3]), t(&[1, 3, 5])]).contains("rank is 2"));
        assert!(fail(BMM, &[t(&[2, 2, 3]), t(&[1, 3, 5])]).contains("a has 2 matrices and b 1"));
        assert!(fail(MATMUL, &[t(&[2, 2, 3]), t(&[3, 3, 5])]).contains("do not broadcast"));
        assert!(fail(ADDMM, &[t(&[3, 5]), t(&[2, 3]), t(&[3, 5])]).contains("broadcast"));
    }
}
