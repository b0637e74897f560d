//! Normalisation over trailing axes.

use flagos_backend_api::{Result, Tensor};

use crate::dtypes::{FLOATING, WIDE, accumulator, unit_roundoff};
use crate::shape::{Inferred, fault};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', FLOATING);
const S: TypeRule = TypeRule::Same('S', WIDE);
const SHAPE: Attribute = Attribute::ints("normalized_shape", None, "extents of the trailing axes that are normalised together; at least one");
const WEIGHT: Operand = Operand::optional("weight", T, "factor, of shape normalized_shape; absent: 1");

/// `layer_norm`.
pub const LAYER_NORM: &Operator = &Operator {
    name: "layer_norm",
    id: 150,
    revision: 1,
    family: "norm",
    aten: &["native_layer_norm", "native_layer_norm.out", "layer_norm"],
    onnx: "LayerNormalization",
    inputs: &[
        Operand::new("x", T, "rank 1 or more; its last axes are normalized_shape"),
        WEIGHT,
        Operand::optional("bias", T, "summand, of shape normalized_shape; absent: 0"),
    ],
    outputs: &[
        Operand::new("y", T, "the shape of x"),
        Operand::new("mean", S, "f32, for f64 f64; x's leading extents, then 1 for each normalised axis"),
        Operand::new("rstd", S, "type and shape of mean"),
    ],
    attributes: &[SHAPE, Attribute::float("eps", Some(1e-5), "added to the variance; 0 or more")],
    infer: infer_layer_norm,
    check,
    in_place: true,
    numerics: Numerics::ForwardError,
    special: "a row holding NaN becomes NaN in all outputs, as does a row of extent 0; what infinities give is unspecified",
    cases,
    reference: layer_norm,
    flops: |call| 8.0 * call.inputs[0].elems() as f64,
    doc: "y = (x - mean)·rstd·weight + bias, with mean = Σx/n and rstd = 1/√(Σ(x - mean)²/n + eps) over the normalised axes. \
          The variance is that of the differences: E[x²] - mean² is too inexact where the mean is large.",
};

/// `rms_norm`.
pub const RMS_NORM: &Operator = &Operator {
    name: "rms_norm",
    id: 151,
    aten: &["rms_norm", "_fused_rms_norm"],
    onnx: "RMSNormalization",
    inputs: &[Operand::new("x", T, "rank 1 or more; its last axes are normalized_shape"), WEIGHT],
    outputs: &[Operand::new("y", T, "the shape of x")],
    attributes: &[SHAPE, Attribute::float("eps", Some(1e-6), "added to the mean square; 0 or more")],
    infer: |call| {
        lead(call)?;
        crate::shape::same_as_first(call)
    },
    special: "a row holding NaN becomes NaN; a row holding infinities has NaN there and 0 elsewhere",
    reference: rms_norm,
    flops: |call| 4.0 * call.inputs[0].elems() as f64,
    doc: "y = x / √(Σx²/n + eps) · weight, over the normalised axes.",
    ..*LAYER_NORM
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[LAYER_NORM, RMS_NORM];

/// Number of axes before the normalised ones.
pub fn lead(call: &Call) -> Result<usize> {
    let (x, over) = (&call.inputs[0], call.attrs.ints("normalized_shape"));
    if over.is_empty() || !x.shape().ends_with(over) {
        return Err(fault(call, format!("normalized_shape {over:?} is not the last one or more extents of x's shape {:?}", x.shape())));
    }
    Ok(x.rank as usize - over.len())
}

fn infer_layer_norm(call: &Call) -> Result<Inferred> {
    let (x, lead) = (&call.inputs[0], lead(call)?);
    let mut rows = x.shape().to_vec();
    rows[lead..].fill(1);
    let wide = accumulator(x.dtype);
    Ok(vec![(Some(x.dtype), x.shape().to_vec()), (Some(wide), rows.clone()), (Some(wide), rows)])
}

fn check(call: &Call) -> Result<()> {
    lead(call)?;
    let over = call.attrs.ints("normalized_shape");
    for (i, t) in call.inputs.iter().enumerate().skip(1).filter(|(_, t)| !t.is_none()) {
        if t.shape() != over {
            return Err(fault(call, format!("{} has shape {:?}; give it normalized_shape {over:?}", call.rule(i).name, t.shape())).at(i as u32));
        }
    }
    let eps = call.attrs.float("eps");
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(fault(call, format!("eps is {eps}; give a finite number of 0 or more")));
    }
    Ok(())
}

fn cases(c: &mut Cases) {
    let many = c.operator().inputs.len();
    let over = |shape: &[i64]| [("normalized_shape", AttrValue::Ints(shape.to_vec()))];
    let affine = |shape: &[i64], over: &[i64], layout, fill| {
        let mut inputs = vec![TensorCase::new(over, layout, Fill::Normal); many];
        inputs[0] = TensorCase::new(shape, layout, fill);
        inputs
    };
    let plain = |shape: &[i64], layout, fill| vec![TensorCase::new(shape, layout, fill)];
    c.add("rows", affine(&[9, 67], &[67], Layout::Contiguous, Fill::Normal), &over(&[67]));
    c.add("plain", plain(&[7, 48], Layout::Contiguous, Fill::Normal), &over(&[48]));
    c.add("weight", affine(&[5, 33], &[33], Layout::Contiguous, Fill::Normal)[..2].to_vec(), &over(&[33]));
    if many > 2 {
        let mut bias = affine(&[5, 33], &[33], Layout::Contiguous, Fill::Normal);
        bias[1] = TensorCase::absent();
        c.add("bias", bias, &over(&[33]));
    } else {
        c.add("infinity", plain(&[24, 6], Layout::Contiguous, Fill::Among(&[f64::INFINITY, f64::NEG_INFINITY])), &over(&[6]));
    }
    c.add("shifted", plain(&[6, 300], Layout::Contiguous, Fill::Uniform(100.0, 104.0)), &over(&[300]));
    c.add("wide-range", affine(&[6, 129], &[129], Layout::Contiguous, Fill::Spread), &over(&[129]));
    c.add("two-axes", affine(&[4, 6, 11], &[6, 11], Layout::Contiguous, Fill::Normal), &over(&[6, 11]));
    c.add("strided", affine(&[3, 4, 10], &[4, 10], Layout::Strided, Fill::Normal), &over(&[4, 10]));
    c.add("transposed", affine(&[12, 30], &[30], Layout::Transposed, Fill::Normal), &over(&[30]));
    c.add("offset", affine(&[5, 31], &[31], Layout::Offset, Fill::Normal), &over(&[31]));
    c.add("negative", affine(&[4, 33], &[33], Layout::Negative, Fill::Normal), &over(&[33]));
    c.add("all-axes", affine(&[8, 9], &[8, 9], Layout::Contiguous, Fill::Normal), &over(&[8, 9]));
    c.add("one", affine(&[6, 1], &[1], Layout::Contiguous, Fill::Normal), &over(&[1]));
    c.add("rank8", affine(&[2, 1, 2, 1, 3, 1, 2, 5], &[2, 5], Layout::Contiguous, Fill::Normal), &over(&[2, 5]));
    c.add("empty", affine(&[0, 4], &[4], Layout::Contiguous, Fill::Normal), &over(&[4]));
    c.add("empty-rows", affine(&[3, 0], &[0], Layout::Contiguous, Fill::Normal), &over(&[0]));
    c.add("nan", affine(&[24, 6], &[6], Layout::Contiguous, Fill::Among(&[f64::NAN])), &over(&[6]));
    c.add("eps", plain(&[6, 17], Layout::Contiguous, Fill::Normal), &[over(&[17])[0].clone(), ("eps", AttrValue::Float(0.25))]);
    c.quick("long", affine(&[3, 50_021], &[50_021], Layout::Contiguous, Fill::Normal), &over(&[50_021]));
    c.quick("many", affine(&[1031, 129], &[129], Layout::Contiguous, Fill::Normal), &over(&[129]));
    c.bench("4096x4096", affine(&[4096, 4096], &[4096], Layout::Contiguous, Fill::Normal), &over(&[4096]));
}

/// Terms of an n-term sum's bound. Any order of summation that keeps several partial sums stays far within, as in softmax.
fn terms(n: usize) -> usize {
    16 + (n as f64).sqrt() as usize
}

/// The share of the sums' bound that what is computed once per row or element is entitled to: 8 roundings, for a reciprocal root of 4 ULP.
fn few(n: usize) -> f64 {
    8.0 / (terms(n) + 2) as f64
}

fn parts(call: &Call) -> Result<(usize, usize)> {
    let lead = lead(call)?;
    let product = |part: &[i64]| part.iter().product::<i64>() as usize;
    let x: &Tensor = &call.inputs[0];
    Ok((product(&x.shape()[..lead]), product(&x.shape()[lead..])))
}

/// Weight and bias, absent ones filled in.
fn affine(call: &Call, x: &[Array], index: usize, n: usize, absent: f64) -> Vec<f64> {
    if call.inputs.get(index).is_none_or(Tensor::is_none) { vec![absent; n] } else { x[index].floats() }
}

fn layer_norm(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let (rows, n) = parts(call)?;
    let (v, weight, bias, eps) = (x[0].floats(), affine(call, x, 1, n, 1.0), affine(call, x, 2, n, 0.0), call.attrs.float("eps"));
    let drift = terms(n) as f64 * unit_roundoff(accumulator(call.inputs[0].dtype));
    let (mut y, mut mean, mut rstd) = (Column::default(), Column::default(), Column::default());
    for row in (0..rows).map(|r| &v[r * n..(r + 1) * n]) {
        let of = |terms: Sum| terms.value() / n as f64;
        let m = of(row.iter().copied().collect());
        let variance = of(row.iter().map(|x| (x - m) * (x - m)).collect());
        let size = of(row.iter().map(|x| x * x).collect()).sqrt();
        let r = 1.0 / (variance + eps).sqrt();
        // The rounding of the mean, relative to the elements' size, shifts every difference; the shift enters the variance by its square
        // in two passes, by its product with the deviation in one (Chan, Golub, LeVeque 1983). Half of the variance's relative error is rstd's.
        let excess = (variance + variance.sqrt() * size + drift * size * size) / (2.0 * (variance + eps));
        let sum = of(row.iter().map(|x| x.abs()).collect());
        mean.put(m, sum);
        rstd.put(r, r * (excess + few(n)));
        for ((x, w), b) in row.iter().zip(&weight).zip(&bias) {
            let d = x - m;
            // Covers (x - mean)·rstd as well as x·rstd - mean·rstd: the latter rounds relative to x and the mean.
            let once = few(n) * ((w * r).abs() * (x.abs() + m.abs() + d.abs()) + b.abs());
            y.put(d * r * w + b, (w * r).abs() * (sum + d.abs() * excess) + once);
        }
    }
    let of_rows: Vec<usize> = infer_layer_norm(call)?[1].1.iter().map(|n| *n as usize).collect();
    Ok(vec![y.judged(&x[0].shape, terms(n)), mean.judged(&of_rows, terms(n)), rstd.judged(&of_rows, terms(n))])
}

fn rms_norm(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let (rows, n) = parts(call)?;
    let (v, weight, eps) = (x[0].floats(), affine(call, x, 1, n, 1.0), call.attrs.float("eps"));
    let mut y = Column::default();
    for row in (0..rows).map(|r| &v[r * n..(r + 1) * n]) {
        let mut square = Sum::default();
        row.iter().for_each(|x| square.add_product(*x, *x));
        let r = 1.0 / (square.value() / n as f64 + eps).sqrt();
        // Nothing cancels: half of the mean square's relative error, and those of the root and two products.
        row.iter().zip(&weight).for_each(|(x, w)| y.put(x * r * w, (x * r * w).abs() * (0.5 + few(n))));
    }
    Ok(vec![y.judged(&x[0].shape, terms(n))])
}

/// Values with their scales.
#[derive(Default)]
struct Column {
    value: Vec<f64>,
    scale: Vec<f64>,
}

impl Column {
    fn put(&mut self, value: f64, scale: f64) {
        self.value.push(value);
        self.scale.push(scale);
    }
    fn judged(self, shape: &[usize], terms: usize) -> Reference {
        Reference::scaled(Array::float(shape, self.value), self.scale, terms)
    }
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::DType;

    use super::*;
    use crate::numerics::judge;

    fn call(shape: &[i64], over: &[i64], weight: Option<&[i64]>) -> Result<Call> {
        let t = |shape: &[i64]| Tensor::contiguous(DType::F32, shape);
        let inputs = [Some(t(shape)), weight.map(t)];
        let inputs: Vec<Tensor> = inputs.into_iter().flatten().collect();
        Call::inferred(LAYER_NORM, &inputs, DType::NONE, &[("normalized_shape", AttrValue::Ints(over.to_vec())), ("eps", AttrValue::Float(0.0))])
    }

    #[test]
    fn statistics_have_their_shape_and_misfits_are_refused() {
        let shapes: Vec<Vec<i64>> = call(&[2, 3, 4], &[3, 4], Some(&[3, 4])).unwrap().outputs.iter().map(|t| t.shape().to_vec()).collect();
        assert_eq!(shapes, [vec![2, 3, 4], vec![2, 1, 1], vec![2, 1, 1]]);
        assert!(call(&[2, 3], &[2], None).is_err() && call(&[2, 3], &[], None).is_err() && call(&[2, 3], &[3], Some(&[1])).is_err());
    }

    /// The variance by E[x²] - mean² in f32 must not pass where the mean is 1000 deviations; that of differences must.
    #[test]
    fn cancellation_is_judged() {
        let row: Vec<f64> = (0..64).map(|i| 1000.0 + f64::from(i % 7)).collect();
        let call = call(&[64], &[64], None).unwrap();
        let reference = (call.operator.reference)(&call, &[Array::float(&[64], row.clone()), Array::absent(), Array::absent()]).unwrap();
        let n = row.len() as f32;
        let mean = row.iter().fold(0f32, |s, x| s + *x as f32) / n;
        let naive = row.iter().fold(0f32, |s, x| s + (*x as f32) * (*x as f32)) / n - mean * mean;
        let careful = row.iter().fold(0f32, |s, x| s + (*x as f32 - mean) * (*x as f32 - mean)) / n;
        let ok = |variance: f32| judge(LAYER_NORM.numerics, DType::F32, &reference[2], &Array::float(&[1], vec![(1.0 / variance.sqrt()).into()])).ok;
        assert!(ok(careful) && !ok(naive));
    }

    /// The bounds can be met: plain f32 loops with x·rstd - mean·rstd pass every case up to rows of 50 000 elements.
    #[test]
    fn plain_loops_pass() {
        let types = crate::assignments(LAYER_NORM).into_iter().find(|a| a.inputs[0] == DType::F32).unwrap();
        for case in Cases::of(LAYER_NORM).iter().filter(|c| c.tier <= crate::Tier::Quick) {
            let instance = case.instance(LAYER_NORM, &types, 3).unwrap();
            let x: Vec<Array> = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin).unwrap()).collect();
            let references = layer_norm(&instance.call, &x).unwrap();
            let ((rows, n), narrow) = (parts(&instance.call).unwrap(), |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>());
            let operand = |i, absent| narrow(affine(&instance.call, &x, i, n, absent));
            let (v, weight, bias) = (narrow(x[0].floats()), operand(1, 1.0), operand(2, 0.0));
            let mut out = [vec![], vec![], vec![]];
            for row in (0..rows).map(|r| &v[r * n..(r + 1) * n]) {
                let mean = row.iter().fold(0f32, |s, x| s + x) / n as f32;
                let variance = row.iter().fold(0f32, |s, x| s + (x - mean) * (x - mean)) / n as f32;
                let rstd = 1.0 / (variance + instance.call.attrs.float("eps") as f32).sqrt();
                out[0].extend((0..n).map(|i| f64::from((row[i] * rstd - mean * rstd) * weight[i] + bias[i])));
                out[1].push(mean.into());
                out[2].push(rstd.into());
            }
            for (got, want) in out.into_iter().zip(&references) {
                let verdict = judge(LAYER_NORM.numerics, DType::F32, want, &Array::float(&want.value.shape, got));
                assert!(verdict.ok, "{}: {verdict:?}", instance.id);
            }
        }
    }
}
