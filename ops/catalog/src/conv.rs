//! Convolution.

use flagos_backend_api::Result;

use crate::dtypes::FLOATING;
use crate::shape::{Inferred, fault};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', FLOATING);

/// `conv2d`.
pub const CONV2D: &Operator = &Operator {
    name: "conv2d",
    id: 220,
    revision: 1,
    family: "conv",
    aten: &["conv2d"],
    onnx: "Conv",
    inputs: &[
        Operand::new("x", T, "[N, C, H, W]"),
        Operand::new("w", T, "[O, C/groups, KH, KW], KH and KW at least 1"),
        Operand::optional("bias", T, "[O]"),
    ],
    outputs: &[Operand::new("y", T, "[N, O, H', W'], H' = (H + 2·padding - dilation·(KH - 1) - 1) / stride + 1, rounded down")],
    attributes: &[
        Attribute::ints("stride", Some(&[1, 1]), "steps along H and W, at least 1"),
        Attribute::ints("padding", Some(&[0, 0]), "zeros before and after H and W"),
        Attribute::ints("dilation", Some(&[1, 1]), "steps between the kernel's elements along H and W, at least 1"),
        Attribute::int("groups", Some(1), 1, i64::MAX, "groups of channels convolved apart; divides C and O"),
    ],
    infer,
    check: |call| Extents::of(call).map(drop),
    in_place: false,
    numerics: Numerics::ForwardError,
    special: "NaN and infinities follow IEEE arithmetic; what infinite or NaN weights give over the padding is left open; C = 0 gives the bias",
    cases,
    reference,
    flops: |call| Extents::of(call).map_or(0.0, |e| 2.0 * e.terms() as f64 * e.out.iter().map(|n| *n as f64).product::<f64>()),
    doc: "y[n, o, i, j] = bias[o] + Σ x[n, c, i·stride₀ + p·dilation₀ - padding₀, j·stride₁ + q·dilation₁ - padding₁]·w[o, c, p, q] over the \
          channels c of o's group and the kernel's p, q (cross-correlation); outside of x lie zeros. Accumulated in f32 or wider, f64 for f64.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[CONV2D];

/// Shapes and attributes of a call, checked against each other.
struct Extents {
    x: [i64; 4],
    w: [i64; 4],
    out: [i64; 4],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
    groups: i64,
}

impl Extents {
    fn of(call: &Call) -> Result<Extents> {
        let [x, w, bias] = call.inputs.as_slice() else { return Err(fault(call, "takes x, w and an optional bias")) };
        let (Ok(xs), Ok(ws)) = (<[i64; 4]>::try_from(x.shape()), <[i64; 4]>::try_from(w.shape())) else {
            return Err(fault(call, format!("x has shape {:?} and w {:?}; both have 4 axes", x.shape(), w.shape())));
        };
        let pair = |name: &str, least: i64| match call.attrs.ints(name) {
            [a, b] if *a >= least && *b >= least => Ok([*a, *b]),
            other => Err(fault(call, format!("{name} is {other:?}; it is two numbers of at least {least}"))),
        };
        let (stride, padding, dilation) = (pair("stride", 1)?, pair("padding", 0)?, pair("dilation", 1)?);
        let groups = call.attrs.int("groups");
        if groups < 1 || xs[1] % groups != 0 || ws[0] % groups != 0 || ws[1] != xs[1] / groups {
            let (c, [o, per, ..]) = (xs[1], ws);
            return Err(fault(call, format!("groups is {groups}; x has {c} channels, w {o} outputs of {per}: groups divides both, and w has C/groups")));
        }
        if !bias.is_none() && bias.shape() != [ws[0]] {
            return Err(fault(call, format!("bias has shape {:?}; it is [{}]", bias.shape(), ws[0])).at(2));
        }
        let mut out = [xs[0], ws[0], 0, 0];
        for d in 0..2 {
            let (n, k) = (xs[2 + d], ws[2 + d]);
            let room = || n.checked_add(padding[d].checked_mul(2)?)?.checked_sub(dilation[d].checked_mul(k - 1)?)?.checked_sub(1);
            match room() {
                Some(room) if room >= 0 && k >= 1 => out[2 + d] = room / stride[d] + 1,
                _ => {
                    let (axis, dilation, padding) = (2 + d, dilation[d], padding[d]);
                    return Err(fault(call, format!("axis {axis}: a kernel of {k} with dilation {dilation} does not fit into {n} with padding {padding}")));
                }
            }
        }
        Ok(Extents { x: xs, w: ws, out, stride, padding, dilation, groups })
    }

    /// Products in an element of y.
    fn terms(&self) -> i64 {
        self.w[1..].iter().product()
    }
}

fn infer(call: &Call) -> Result<Inferred> {
    Ok(vec![(Some(call.inputs[0].dtype), Extents::of(call)?.out.to_vec())])
}

fn cases(c: &mut Cases) {
    use Layout::{Contiguous, Negative, Offset, Strided, Transposed};
    let pair = |x: &[i64], lx, w: &[i64], lw| vec![TensorCase::new(x, lx, Fill::Normal), TensorCase::new(w, lw, Fill::Normal)];
    let plain = |x: &[i64], w: &[i64]| pair(x, Contiguous, w, Contiguous);
    let biased = |x: &[i64], w: &[i64]| [plain(x, w), vec![TensorCase::new(&w[..1], Contiguous, Fill::Normal)]].concat();
    let two = |name: &'static str, a: i64, b: i64| (name, AttrValue::Ints(vec![a, b]));
    let groups = |n: i64| ("groups", AttrValue::Int(n));
    c.add("3x3", plain(&[2, 3, 7, 9], &[4, 3, 3, 3]), &[]);
    c.add("bias", biased(&[2, 3, 7, 9], &[5, 3, 3, 3]), &[two("padding", 1, 1)]);
    c.add("1x1", biased(&[2, 13, 5, 4], &[9, 13, 1, 1]), &[]);
    c.add("1x1-stride", plain(&[1, 5, 7, 8], &[3, 5, 1, 1]), &[two("stride", 2, 3)]);
    c.add("whole", plain(&[3, 4, 5, 6], &[7, 4, 5, 6]), &[]);
    c.add("one", biased(&[1, 1, 1, 1], &[1, 1, 1, 1]), &[]);
    c.add("stride", plain(&[1, 2, 11, 10], &[3, 2, 3, 2]), &[two("stride", 3, 2)]);
    c.add("padding", plain(&[1, 2, 4, 5], &[3, 2, 3, 5]), &[two("padding", 2, 3)]);
    c.add("padding-beyond-kernel", plain(&[1, 1, 2, 2], &[2, 1, 2, 2]), &[two("padding", 4, 5)]);
    c.add("dilation", plain(&[1, 2, 12, 9], &[3, 2, 3, 3]), &[two("dilation", 4, 2), two("padding", 0, 1)]);
    c.add("all-together", biased(&[2, 4, 13, 11], &[6, 2, 3, 2]), &[two("stride", 2, 3), two("padding", 2, 1), two("dilation", 2, 3), groups(2)]);
    c.add("groups", biased(&[2, 6, 5, 5], &[9, 2, 3, 3]), &[groups(3)]);
    c.add("depthwise", biased(&[1, 7, 6, 6], &[7, 1, 3, 3]), &[groups(7), two("padding", 1, 1)]);
    c.add("depthwise-twice", plain(&[1, 4, 6, 5], &[8, 1, 2, 3]), &[groups(4)]);
    c.add("strided", pair(&[2, 3, 6, 7], Strided, &[4, 3, 3, 3], Strided), &[two("padding", 1, 1)]);
    c.add("transposed", pair(&[2, 3, 6, 7], Transposed, &[4, 3, 3, 3], Transposed), &[two("padding", 1, 0)]);
    c.add("offset", pair(&[1, 3, 6, 7], Offset, &[4, 3, 2, 2], Offset), &[]);
    c.add("negative", pair(&[1, 3, 6, 7], Negative, &[4, 3, 3, 3], Negative), &[]);
    c.add("no-images", plain(&[0, 3, 6, 6], &[4, 3, 3, 3]), &[]);
    c.add("no-channels", biased(&[2, 0, 4, 4], &[3, 0, 3, 3]), &[]);
    c.add("no-outputs", plain(&[2, 3, 4, 4], &[0, 3, 3, 3]), &[]);
    c.add("empty-image", plain(&[1, 2, 0, 3], &[3, 2, 2, 2]), &[two("padding", 1, 1)]);
    let spread = |shape: &[i64]| TensorCase::new(shape, Contiguous, Fill::Spread);
    c.add("wide-range", vec![spread(&[1, 3, 6, 6]), spread(&[2, 3, 3, 3])], &[two("padding", 1, 1)]);
    // More than two extreme terms would make the result depend on the order of summation.
    let ones = TensorCase::new(&[3, 2, 1, 1], Contiguous, Fill::Ints(0, 1));
    c.add("special", vec![TensorCase::new(&[1, 2, 8, 8], Contiguous, Fill::Special), ones], &[]);
    c.quick("layer", biased(&[2, 17, 33, 31], &[35, 17, 3, 3]), &[two("padding", 1, 1)]);
    c.quick("7x7-stride2", plain(&[1, 3, 65, 63], &[16, 3, 7, 7]), &[two("stride", 2, 2), two("padding", 3, 3)]);
    c.quick("deep", plain(&[1, 259, 9, 7], &[33, 259, 3, 3]), &[]);
    c.quick("depthwise-large", biased(&[2, 131, 29, 27], &[131, 1, 5, 5]), &[groups(131), two("padding", 2, 2)]);
    c.bench("resnet-3x3", plain(&[32, 64, 56, 56], &[64, 64, 3, 3]), &[two("padding", 1, 1)]);
    c.bench("resnet-stem", plain(&[32, 3, 224, 224], &[64, 3, 7, 7]), &[two("stride", 2, 2), two("padding", 3, 3)]);
    c.bench("1x1", plain(&[32, 256, 28, 28], &[512, 256, 1, 1]), &[]);
    c.bench("depthwise", plain(&[32, 192, 56, 56], &[192, 1, 3, 3]), &[groups(192), two("padding", 1, 1)]);
}

fn reference(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let e = Extents::of(call)?;
    let size = |list: [i64; 4]| list.map(|n| n as usize);
    let ([_, channels, height, width], [_, per, kh, kw], out) = (size(e.x), size(e.w), size(e.out));
    let (image, weight, bias) = (x[0].floats(), x[1].floats(), x[2].floats());
    let each_group = (out[1] / e.groups as usize).max(1);
    // Place in x of kernel element k at output index i, or none in the padding.
    let place = |d: usize, i: usize, k: usize, n: usize| {
        let at = i as i64 * e.stride[d] + k as i64 * e.dilation[d] - e.padding[d];
        usize::try_from(at).ok().filter(|at| *at < n)
    };
    let element = |flat: usize| {
        let (j, i, o, n) = (flat % out[3], flat / out[3] % out[2], flat / (out[3] * out[2]) % out[1], flat / (out[3] * out[2] * out[1]));
        let (mut sum, mut scale) = (Sum::default(), 0.0);
        for c in 0..per {
            let plane = (n * channels + o / each_group * per + c) * height;
            for p in 0..kh {
                let Some(row) = place(0, i, p, height) else { continue };
                for q in 0..kw {
                    let Some(column) = place(1, j, q, width) else { continue };
                    let (a, b) = (image[(plane + row) * width + column], weight[((o * per + c) * kh + p) * kw + q]);
                    sum.add_product(a, b);
                    scale += (a * b).abs();
                }
            }
        }
        if let Some(b) = bias.get(o) {
            sum.add(*b);
            scale += b.abs();
        }
        (sum.value(), scale)
    };
    let (value, scale) = (0..out.iter().product()).map(element).unzip();
    Ok(vec![Reference::scaled(Array::float(&out, value), scale, e.terms() as usize + usize::from(!bias.is_empty()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_backend_api::{DType, Tensor};

    fn call(shapes: [&[i64]; 2], attrs: &[(&str, AttrValue)]) -> Result<Call> {
        Call::inferred(CONV2D, &shapes.map(|s| Tensor::contiguous(DType::F32, s)), DType::NONE, attrs)
    }
    fn two(name: &'static str, a: i64, b: i64) -> (&'static str, AttrValue) {
        (name, AttrValue::Ints(vec![a, b]))
    }

    #[test]
    fn padding_stride_and_dilation_by_hand() {
        let x = Array::float(&[1, 1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let w = Array::float(&[1, 1, 1, 2], vec![10.0, 1.0]);
        let run = |attrs: &[(&str, AttrValue)]| {
            let c = call([&[1, 1, 2, 3], &[1, 1, 1, 2]], attrs).unwrap();
            let value = reference(&c, &[x.clone(), w.clone(), Array::absent()]).unwrap().remove(0).value;
            assert_eq!(value.shape.iter().map(|n| *n as i64).collect::<Vec<_>>(), c.outputs[0].shape());
            value.floats()
        };
        assert_eq!(run(&[]), [12.0, 23.0, 45.0, 56.0]);
        assert_eq!(run(&[two("dilation", 1, 2)]), [13.0, 46.0]);
        assert_eq!(run(&[two("padding", 0, 1), two("stride", 2, 3)]), [1.0, 30.0]);
    }

    #[test]
    fn groups_see_their_own_channels_and_bias_is_added() {
        let c = call([&[1, 2, 1, 1], &[2, 1, 1, 1]], &[("groups", AttrValue::Int(2))]).unwrap();
        let x = Array::float(&[1, 2, 1, 1], vec![2.0, 3.0]);
        let w = Array::float(&[2, 1, 1, 1], vec![5.0, 7.0]);
        let y = reference(&c, &[x, w, Array::float(&[2], vec![0.5, -1.0])]).unwrap().remove(0).value.floats();
        assert_eq!(y, [10.5, 20.0]);
    }

    #[test]
    fn misfits_are_named() {
        let fail = |shapes, attrs: &[(&str, AttrValue)]| call(shapes, attrs).unwrap_err().message;
        assert!(fail([&[1, 2, 2, 9], &[3, 2, 3, 3]], &[]).contains("axis 2: a kernel of 3 with dilation 1 does not fit into 2"));
        assert!(fail([&[1, 3, 5, 5], &[3, 1, 3, 3]], &[("groups", AttrValue::Int(2))]).contains("groups is 2; x has 3 channels"));
        assert!(fail([&[1, 3, 5, 5], &[3, 3, 3, 3]], &[two("stride", 0, 1)]).contains("stride is [0, 1]"));
        assert!(fail([&[3, 5, 5], &[3, 3, 3, 3]], &[]).contains("both have 4 axes"));
        assert!(fail([&[1, 1, 5, 5], &[1, 1, 3, 3]], &[two("padding", i64::MAX, 0)]).contains("does not fit"));
    }
}
