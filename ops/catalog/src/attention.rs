//! Attention.

use flagos_backend_api::{DType, Result, Tensor};

use crate::dtypes::{FLOATING, accumulator, unit_roundoff};
use crate::shape::{Inferred, broadcast, broadcast_index, fault};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', FLOATING);

/// `scaled_dot_product_attention`.
pub const SCALED_DOT_PRODUCT_ATTENTION: &Operator = &Operator {
    name: "scaled_dot_product_attention",
    id: 230,
    revision: 1,
    family: "attention",
    aten: &["scaled_dot_product_attention"],
    onnx: "",
    inputs: &[
        Operand::new("q", T, "[.., L, E]"),
        Operand::new("k", T, "[.., S, E], leading axes as q"),
        Operand::new("v", T, "[.., S, Ev], leading axes as q"),
        Operand::optional("mask", TypeRule::SameOrBool('T', FLOATING), "broadcasts to [.., L, S]; bool: true is seen; T: added to the logits"),
    ],
    outputs: &[Operand::new("y", T, "[.., L, Ev]")],
    attributes: &[
        Attribute::boolean("is_causal", false, "query i sees keys 0 to i; not together with a mask"),
        Attribute::float("scale", Some(0.0), "factor of the dot products; 0: 1/√E"),
    ],
    infer,
    check: |call| Extents::of(call).map(drop),
    in_place: false,
    numerics: Numerics::ForwardError,
    special: "a query that sees no key (all hidden, all logits -inf, S = 0) gives 0; NaN or +inf among its logits gives NaN; \
              what NaN or infinity in v gives where the weight is 0 is left open",
    cases,
    reference,
    flops,
    doc: "y[l] = Σ softmax(scale·q[l]·k[s] + mask[l, s] over s)·v[s], in each of the leading axes. Dot products, softmax and sums are accumulated in \
          f32 or wider (f64 for f64); the weights may be rounded to T once.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[SCALED_DOT_PRODUCT_ATTENTION];

/// Shapes of a call, checked against each other.
struct Extents {
    lead: Vec<i64>,
    l: i64,
    s: i64,
    e: i64,
    ev: i64,
    scale: f64,
}

impl Extents {
    fn of(call: &Call) -> Result<Extents> {
        let [q, k, v, mask] = call.inputs.as_slice() else { return Err(fault(call, "takes q, k, v and an optional mask")) };
        let shapes = || format!("q has shape {:?}, k {:?}, v {:?}", q.shape(), k.shape(), v.shape());
        let ([lead @ .., l, e], [lead_k @ .., s, ek], [lead_v @ .., sv, ev]) = (q.shape(), k.shape(), v.shape()) else {
            return Err(fault(call, format!("{}; each has at least 2 axes", shapes())));
        };
        if lead != lead_k || lead != lead_v || e != ek || s != sv {
            return Err(fault(call, format!("{}; they are [.., L, E], [.., S, E], [.., S, Ev] with equal leading axes", shapes())));
        }
        if *e == 0 {
            return Err(fault(call, format!("{}; E is at least 1", shapes())));
        }
        let mut full = lead.to_vec();
        full.extend([*l, *s]);
        if !mask.is_none() {
            if call.attrs.boolean("is_causal") {
                return Err(fault(call, "is_causal and a mask are given; put the causal part into the mask"));
            }
            if !broadcast(call, &[*mask, Tensor::contiguous(mask.dtype, &full)]).is_ok_and(|shape| shape == full) {
                return Err(fault(call, format!("mask has shape {:?}, which does not broadcast to {full:?}", mask.shape())).at(3));
            }
        }
        let scale = match call.attrs.float("scale") {
            0.0 => 1.0 / (*e as f64).sqrt(),
            given => given,
        };
        Ok(Extents { lead: lead.to_vec(), l: *l, s: *s, e: *e, ev: *ev, scale })
    }
}

fn infer(call: &Call) -> Result<Inferred> {
    let x = Extents::of(call)?;
    Ok(vec![(Some(call.inputs[0].dtype), [x.lead, vec![x.l, x.ev]].concat())])
}

fn flops(call: &Call) -> f64 {
    let seen = if call.attrs.boolean("is_causal") { 0.5 } else { 1.0 };
    let count = |x: Extents| x.lead.iter().chain(&[x.l, x.s, x.e + x.ev]).map(|n| *n as f64).product::<f64>();
    Extents::of(call).map_or(0.0, |x| 2.0 * seen * count(x))
}

fn cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Offset, Repeated, Strided, Transposed};
    let qkv = |lead: &[i64], [l, s, e, ev]: [i64; 4], layout| {
        let of = |rows, columns| TensorCase::new(&[lead, &[rows, columns]].concat(), layout, Fill::Normal);
        vec![of(l, e), of(s, e), of(s, ev)]
    };
    let plain = |lead: &[i64], size| qkv(lead, size, Contiguous);
    let masked = |lead: &[i64], size, mask: &[i64], fill| [plain(lead, size), vec![TensorCase::new(mask, Contiguous, fill)]].concat();
    let causal = [("is_causal", AttrValue::Int(1))];
    let scale = |x: f64| [("scale", AttrValue::Float(x))];
    c.add("heads", plain(&[2, 3], [7, 9, 8, 8]), &[]);
    c.add("flat", plain(&[], [5, 6, 4, 3]), &[]);
    c.add("batch", plain(&[4], [3, 11, 5, 6]), &[]);
    c.add("rank8", plain(&[1, 2, 1, 1, 2, 1], [3, 4, 5, 2]), &[]);
    c.add("one", plain(&[1, 1], [1, 1, 1, 1]), &[]);
    c.add("decode", plain(&[2, 3], [1, 33, 16, 16]), &[]);
    c.add("odd", plain(&[1, 2], [33, 67, 13, 17]), &[]);
    c.add("scale", plain(&[2, 2], [5, 7, 8, 8]), &scale(0.7));
    c.add("scale-negative", plain(&[1, 2], [5, 7, 8, 8]), &scale(-1.5));
    c.add("causal", plain(&[2, 2], [9, 9, 8, 8]), &causal);
    c.add("causal-tall", plain(&[1, 2], [11, 6, 8, 8]), &causal);
    c.add("causal-wide", plain(&[1, 2], [6, 11, 8, 8]), &causal);
    c.add("causal-odd", plain(&[1, 1], [65, 65, 7, 5]), &causal);
    c.add("mask", masked(&[2, 3], [7, 9, 8, 8], &[2, 3, 7, 9], Fill::Ints(0, 1)), &[]);
    c.add("mask-shared", masked(&[2, 3], [7, 9, 8, 8], &[7, 9], Fill::Normal), &[]);
    c.add("mask-keys", masked(&[2, 3], [7, 9, 8, 8], &[2, 1, 1, 9], Fill::Among(&[f64::NEG_INFINITY])), &[]);
    c.add("mask-heads", masked(&[2, 3], [4, 6, 8, 8], &[1, 3, 4, 1], Fill::Normal), &[]);
    // A mask of one column hides whole rows; bool masks of zeros hide everything.
    c.add("mask-rows", masked(&[2, 2], [24, 5, 8, 4], &[2, 2, 24, 1], Fill::Among(&[f64::NEG_INFINITY])), &[]);
    c.add("mask-none-seen", masked(&[1, 2], [5, 6, 8, 4], &[5, 6], Fill::Ints(0, 0)), &[]);
    c.add("mask-all-seen", masked(&[1, 2], [5, 6, 8, 4], &[], Fill::Ints(1, 1)), &[]);
    let mut strided_mask = qkv(&[2, 2], [5, 8, 6, 7], Strided);
    strided_mask.push(TensorCase::new(&[2, 2, 5, 8], Transposed, Fill::Ints(0, 1)));
    c.add("mask-transposed", strided_mask, &[]);
    c.add("strided", qkv(&[2, 2], [5, 6, 4, 4], Strided), &[]);
    c.add("transposed", qkv(&[2, 2], [5, 6, 4, 4], Transposed), &causal);
    c.add("offset", qkv(&[2, 2], [5, 6, 4, 4], Offset), &[]);
    c.add("negative", qkv(&[2, 2], [5, 6, 4, 4], Negative), &[]);
    c.add("repeated", qkv(&[3, 2], [5, 6, 4, 4], Repeated), &[]);
    c.add("no-keys", plain(&[1, 2], [3, 0, 4, 5]), &[]);
    c.add("no-queries", plain(&[1, 2], [0, 3, 4, 5]), &[]);
    c.add("no-heads", plain(&[2, 0], [3, 4, 4, 5]), &[]);
    c.add("no-values", plain(&[1, 2], [3, 4, 4, 0]), &[]);
    let mut large = plain(&[1, 2], [6, 12, 16, 8]);
    large[..2].iter_mut().for_each(|t| t.fill = Fill::Uniform(-12.0, 12.0));
    c.add("large-logits", large, &[]);
    let mut nan = plain(&[1, 2], [12, 5, 2, 3]);
    nan[0].fill = Fill::Among(&[f64::NAN]);
    c.add("nan-queries", nan, &[]);
    c.quick("large", plain(&[1, 3], [257, 321, 65, 64]), &[]);
    c.quick("large-causal", plain(&[2, 1], [257, 257, 64, 33]), &causal);
    c.quick("large-mask", masked(&[1, 2], [129, 515, 32, 32], &[129, 515], Fill::Among(&[f64::NEG_INFINITY])), &[]);
    c.quick("long-decode", plain(&[1, 2], [1, 8195, 64, 64]), &[]);
    c.bench("prefill-2048", plain(&[1, 32], [2048, 2048, 128, 128]), &causal);
    c.bench("decode-4096", plain(&[16, 32], [1, 4096, 128, 128]), &[]);
    c.bench("vision", plain(&[32, 12], [197, 197, 64, 64]), &[]);
}

/// The mask as an addend: 0 or -inf where it is bool; empty where there is none.
fn addends(mask: &Array, dtype: DType) -> Vec<f64> {
    if dtype.is_bool() { mask.ints().iter().map(|m| if *m == 0 { f64::NEG_INFINITY } else { 0.0 }).collect() } else { mask.floats() }
}

fn reference(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let Extents { lead, l, s, e, ev, scale } = Extents::of(call)?;
    let (l, s, e, ev) = (l as usize, s as usize, e as usize, ev as usize);
    let lead: Vec<usize> = lead.iter().map(|n| *n as usize).collect();
    let (q, k, v) = (x[0].floats(), x[1].floats(), x[2].floats());
    let t = call.inputs[0].dtype;
    let (mask, causal) = (addends(&x[3], call.inputs[3].dtype), call.attrs.boolean("is_causal"));
    let full = [&lead[..], &[l, s]].concat();
    let rows = lead.iter().product::<usize>() * l;
    let (mut value, mut bound) = (Vec::with_capacity(rows * ev), Vec::with_capacity(rows * ev));
    let terms = e + s + 16;
    for row in 0..rows {
        let problem = row / l.max(1);
        // Per key: the logit and its magnitude scale·Σ|q||k| + |mask|.
        let (mut logits, mut sizes) = (Vec::with_capacity(s), Vec::with_capacity(s));
        for j in 0..s {
            let (mut dot, mut size) = (Sum::default(), 0.0);
            for i in 0..e {
                let (a, b) = (q[row * e + i], k[(problem * s + j) * e + i]);
                dot.add_product(a, b);
                size += (a * b * scale).abs();
            }
            let add = match () {
                () if causal && j > row % l => f64::NEG_INFINITY,
                () if mask.is_empty() => 0.0,
                () => mask[broadcast_index(row * s + j, &full, &x[3].shape)],
            };
            logits.push(dot.value() * scale + add);
            sizes.push(size + if add.is_finite() { add.abs() } else { 0.0 });
        }
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
        let hidden = most == f64::NEG_INFINITY;
        let weights: Vec<f64> = logits.iter().map(|z| if hidden { 0.0 } else { libm::exp(z - most) }).collect();
        let total = if hidden { 1.0 } else { weights.iter().copied().collect::<Sum>().value() };
        let mean = weights.iter().zip(&sizes).map(|(p, size)| p / total * size).sum::<f64>();
        for c in 0..ev {
            let (mut sum, mut size) = (Sum::default(), 0.0);
            for j in 0..s {
                let entry = v[(problem * s + j) * ev + c];
                sum.add_product(weights[j], entry);
                // A logit's error of γ_E·size is a relative error of its weight and, averaged, of the total; sums over keys add γ_S;
                // the weights may be rounded to T.
                let logit = (e + 8) as f64 * (sizes[j] + mean);
                let rounding = unit_roundoff(t) / unit_roundoff(accumulator(t));
                size += (weights[j] / total * entry).abs() * ((s + 8) as f64 + logit + 2.0 * rounding) / terms as f64;
            }
            value.push(sum.value() / total);
            bound.push(size);
        }
    }
    let shape = [&lead[..], &[l, ev]].concat();
    Ok(vec![Reference::scaled(Array::float(&shape, value), bound, terms)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::{judge, round_to};
    use crate::{Rng, contents};

    fn run(shapes: &[&[i64]], mask: Option<(Tensor, Array)>, data: [Vec<f64>; 3], attrs: &[(&str, AttrValue)]) -> Vec<f64> {
        let mut tensors: Vec<Tensor> = shapes.iter().map(|s| Tensor::contiguous(DType::F64, s)).collect();
        let size = |s: &[i64]| s.iter().map(|n| *n as usize).collect::<Vec<_>>();
        let mut arrays: Vec<Array> = shapes.iter().zip(data).map(|(s, d)| Array::float(&size(s), d)).collect();
        match mask {
            Some((t, a)) => (tensors.push(t), arrays.push(a)),
            None => ((), arrays.push(Array::absent())),
        };
        let call = Call::inferred(SCALED_DOT_PRODUCT_ATTENTION, &tensors, DType::NONE, attrs).unwrap();
        reference(&call, &arrays).unwrap().remove(0).value.floats()
    }
    const SHAPES: &[&[i64]] = &[&[2, 1], &[3, 1], &[3, 1]];
    fn data() -> [Vec<f64>; 3] {
        [vec![0.0, 2f64.ln()], vec![1.0, 2.0, 0.0], vec![3.0, 6.0, 12.0]]
    }
    fn near(got: &[f64], want: &[f64]) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14) && got.len() == want.len(), "{got:?} is not {want:?}");
    }

    #[test]
    fn weights_by_hand() {
        // Row 1: weights 2, 4, 1 of 7.
        near(&run(SHAPES, None, data(), &[]), &[7.0, 42.0 / 7.0]);
        near(&run(SHAPES, None, data(), &[("is_causal", AttrValue::Int(1))]), &[3.0, 30.0 / 6.0]);
        near(&run(SHAPES, None, data(), &[("scale", AttrValue::Float(-1.0))]), &[7.0, (3.0 / 2.0 + 6.0 / 4.0 + 12.0) / 1.75]);
    }

    #[test]
    fn rows_that_see_nothing_are_zero() {
        let bools = (Tensor::contiguous(DType::BOOL, &[2, 3]), Array::int(&[2, 3], vec![0, 0, 0, 1, 0, 1]));
        near(&run(SHAPES, Some(bools), data(), &[]), &[0.0, (2.0 * 3.0 + 12.0) / 3.0]);
        let floats = (Tensor::contiguous(DType::F64, &[2, 1]), Array::float(&[2, 1], vec![5.0, f64::NEG_INFINITY]));
        near(&run(SHAPES, Some(floats), data(), &[]), &[7.0, 0.0]);
        near(&run(&[&[1, 1], &[0, 1], &[0, 2]], None, [vec![1.0], vec![], vec![]], &[]), &[0.0, 0.0]);
    }

    /// One pass over the keys in f32 with running maximum, weights rounded to `t` before they meet v, as fused kernels do.
    fn fused(t: DType, q: &[f64], k: &[f64], v: &[f64], e: usize, keys: usize) -> f64 {
        let scale = 1.0 / (e as f32).sqrt();
        let (mut most, mut total, mut y) = (f32::NEG_INFINITY, 0f32, 0f32);
        for j in 0..keys {
            let z = (0..e).fold(0f32, |sum, i| sum + q[i] as f32 * k[j * e + i] as f32) * scale;
            let next = most.max(z);
            let (shrink, p) = ((most - next).exp(), (z - next).exp());
            (most, total) = (next, total * shrink + p);
            y = y * shrink + round_to(t, p.into()) as f32 * v[j] as f32;
        }
        round_to(t, (y / total).into())
    }

    #[test]
    fn fused_kernels_meet_the_bound_and_a_lost_key_does_not() {
        let (l, s, e) = (16, 67, 33);
        for t in [DType::F16, DType::BF16, DType::F32] {
            let tensors = [[l, e], [s, e], [s, 1]].map(|shape| Tensor::contiguous(t, &shape.map(|n: usize| n as i64)));
            let rng = &mut Rng(3);
            let mut values = |x: &Tensor| {
                let wide = contents(Fill::Normal, t, x.shape(), rng);
                Array::float(&wide.shape, wide.floats().iter().map(|x| round_to(t, *x)).collect())
            };
            let arrays = [values(&tensors[0]), values(&tensors[1]), values(&tensors[2]), Array::absent()];
            let call = Call::inferred(SCALED_DOT_PRODUCT_ATTENTION, &tensors, DType::NONE, &[]).unwrap();
            let want = reference(&call, &arrays).unwrap().remove(0);
            let (q, k, v) = (arrays[0].floats(), arrays[1].floats(), arrays[2].floats());
            let verdict = |keys: usize| {
                let y = (0..l).map(|row| fused(t, &q[row * e..], &k, &v, e, keys)).collect();
                judge(Numerics::ForwardError, t, &want, &Array::float(&[l, 1], y))
            };
            assert!(verdict(s).ok, "{t}: {:?}", verdict(s));
            assert!(!verdict(s - 1).ok, "{t}: {:?}", verdict(s - 1));
        }
    }

    #[test]
    fn misfits_are_named() {
        let t = |shape: &[i64]| Tensor::contiguous(DType::F32, shape);
        let op = SCALED_DOT_PRODUCT_ATTENTION;
        let fail = |inputs: &[Tensor], attrs: &[(&str, AttrValue)]| Call::inferred(op, inputs, DType::NONE, attrs).unwrap_err().message;
        assert!(fail(&[t(&[2, 3, 4]), t(&[1, 3, 4]), t(&[2, 3, 4])], &[]).contains("equal leading axes"));
        let qkv = [t(&[3, 4]), t(&[5, 4]), t(&[5, 4])];
        assert!(fail(&[qkv[0], qkv[1], qkv[2], t(&[5, 3])], &[]).contains("does not broadcast to [3, 5]"));
        assert!(fail(&[qkv[0], qkv[1], qkv[2], t(&[3, 5])], &[("is_causal", AttrValue::Int(1))]).contains("causal part"));
        let narrow = Tensor::contiguous(DType::F16, &[3, 5]);
        assert!(fail(&[qkv[0], qkv[1], qkv[2], narrow], &[]).contains("has type f16"));
        let count = Tensor::contiguous(DType::I32, &[3, 5]);
        assert!(fail(&[qkv[0], qkv[1], qkv[2], count], &[]).contains("it takes"));
    }
}
