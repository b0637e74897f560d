//! Random numbers from a seed and an offset that are read on the device.

use flagos_backend_api::{DType, Result};

use crate::create::callers_output;
use crate::dtypes::{FLOATING, U64};
use crate::philox::{box_muller, pair24, pair53, uniform24, uniform53};
use crate::shape::{fault, flops_per_element};
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

/// `uniform`.
pub const UNIFORM: &Operator = &Operator {
    name: "uniform",
    id: 190,
    revision: 1,
    family: "random",
    aten: &["uniform_", "uniform", "rand", "rand_like"],
    onnx: "",
    inputs: &[Operand::new("seed", TypeRule::Any(U64), "[2]: seed and offset")],
    outputs: &[Operand::new("y", TypeRule::Any(FLOATING), "the caller's shape and type")],
    attributes: &[
        Attribute::float("low", Some(0.0), "the lower bound, included"),
        Attribute::float("high", Some(1.0), "the upper bound; not reached but by rounding"),
    ],
    infer: callers_output,
    check: check_uniform,
    in_place: false,
    numerics: Numerics::ForwardError,
    special: "low = high gives low; the offset's block counter wraps at 2^64",
    cases: |c| cases(c, &[("low", -1.0), ("high", 3.0)]),
    reference: uniform,
    flops: flops_per_element,
    doc: "y[i] = low + (high - low)·u[i], u[i] uniform in [0, 1) by Philox 4x32-10 as catalogue module philox maps it, i the row-major index. \
          Low and high - low are computed in f64 and rounded once to f32 (to f64 for f64); product and sum may be fused. \
          Exact for low = 0 and high - low a power of two, but for one rounding to a narrower type.",
};

/// `normal`.
pub const NORMAL: &Operator = &Operator {
    name: "normal",
    id: 191,
    aten: &["normal_", "normal", "normal.float_float", "randn", "randn_like"],
    attributes: &[Attribute::float("mean", Some(0.0), "the mean"), Attribute::float("std", Some(1.0), "the standard deviation; 0 or more")],
    check: check_normal,
    special: "std = 0 gives mean; |y - mean| ≤ 5.77·std, for f64 8.58·std; the offset's block counter wraps at 2^64",
    cases: |c| cases(c, &[("mean", -3.0), ("std", 0.25)]),
    reference: normal,
    doc: "y[i] = mean + std·z[i], z[i] normal by Box and Muller's transform of Philox 4x32-10 as catalogue module philox maps it, i the \
          row-major index. Computed in f32 for narrower floats. Words are equal everywhere; ln, sin and cos may differ in their last bits.",
    ..*UNIFORM
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[UNIFORM, NORMAL];

fn check_seed(call: &Call) -> Result<()> {
    match call.inputs[0].shape() {
        [2] => Ok(()),
        shape => Err(fault(call, format!("seed has shape {shape:?}; give [2]: seed and offset")).at(0)),
    }
}

fn check_uniform(call: &Call) -> Result<()> {
    let (low, high) = (call.attrs.float("low"), call.attrs.float("high"));
    if !(low <= high && (high - low).is_finite()) {
        return Err(fault(call, format!("low is {low}, high {high}; give finite numbers in order")));
    }
    check_seed(call)
}

fn check_normal(call: &Call) -> Result<()> {
    let (mean, std) = (call.attrs.float("mean"), call.attrs.float("std"));
    if !(std >= 0.0 && std.is_finite() && mean.is_finite()) {
        return Err(fault(call, format!("mean is {mean}, std {std}; give finite numbers, and std 0 or more")));
    }
    check_seed(call)
}

/// `changed`: both attributes off their defaults.
fn cases(c: &mut Cases, changed: &[(&'static str, f64); 2]) {
    let mut add = |name: &str, shape: &[i64], layout, seed_layout, fill, attrs: &[(&'static str, f64)]| {
        let attrs: Vec<_> = attrs.iter().map(|(n, v)| (*n, AttrValue::Float(*v))).collect();
        c.add(name, vec![TensorCase::new(&[2], seed_layout, fill)], &attrs);
        c.with_output(shape);
        c.with_output_layout(layout);
    };
    let plain = Layout::Contiguous;
    add("flat", &[1021], plain, plain, Fill::Seed, &[]);
    add("changed", &[515], plain, plain, Fill::Seed, changed);
    add("first", &[130], plain, plain, Fill::Seed, &changed[..1]);
    add("second", &[67], plain, plain, Fill::Seed, &changed[1..]);
    add("zero-seed", &[64], plain, plain, Fill::Ints(0, 0), &[]);
    add("small-seed", &[258], plain, plain, Fill::Ints(1, 1000), &[]);
    add("extreme-seed", &[257], plain, plain, Fill::Special, &[]);
    add("strided", &[4, 5, 6], Layout::Strided, Layout::Strided, Fill::Seed, &[]);
    add("transposed", &[19, 33], Layout::Transposed, plain, Fill::Seed, &[]);
    add("offset", &[129], Layout::Offset, Layout::Offset, Fill::Seed, &[]);
    add("negative", &[3, 7], plain, Layout::Negative, Fill::Seed, &[]);
    add("scalar", &[], plain, plain, Fill::Seed, &[]);
    add("empty", &[2, 0], plain, plain, Fill::Seed, &[]);
    add("rank8", &[2, 1, 2, 3, 1, 2, 2, 2], Layout::Transposed, plain, Fill::Seed, changed);
    c.quick("large", vec![TensorCase::new(&[2], plain, Fill::Seed)], &[]);
    c.with_output(&[300_007]);
    c.bench("16M", vec![TensorCase::new(&[2], plain, Fill::Seed)], &[]);
    c.with_output(&[1 << 24]);
}

/// (seed, offset), number of elements and shape of a call.
fn stream(call: &Call, x: &[Array]) -> (u64, u64, u64, Vec<usize>) {
    let (words, shape) = (x[0].ints(), call.outputs[0].shape().iter().map(|n| *n as usize).collect::<Vec<_>>());
    (words[0] as u64, words[1] as u64, shape.iter().product::<usize>() as u64, shape)
}

fn uniform(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let (seed, offset, n, shape) = stream(call, x);
    let (low, span) = (call.attrs.float("low"), call.attrs.float("high") - call.attrs.float("low"));
    let wide = call.outputs[0].dtype == DType::F64;
    let units = (0..n).map(|i| if wide { uniform53(seed, offset, i) } else { uniform24(seed, offset, i).into() });
    let (value, scale) = units.map(|u| (f64::mul_add(span, u, low), low.abs() + span * u)).unzip();
    let value = Array::float(&shape, value);
    // Nothing is rounded before the output: then every backend gives the same bits.
    if low == 0.0 && span > 0.0 && libm::frexp(span).0 == 0.5 {
        return Ok(vec![Reference::exact(value)]);
    }
    // Roundings, relative to the scale: of low or of high - low, of the product, and of the sum.
    Ok(vec![Reference::scaled(value, scale, 1)])
}

fn normal(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let (seed, offset, n, shape) = stream(call, x);
    let (mean, std) = (call.attrs.float("mean"), call.attrs.float("std"));
    let wide = call.outputs[0].dtype == DType::F64;
    let pairs = (0..n).map(|i| {
        let narrow = || pair24(seed, offset, i);
        let (u1, u2) = if wide { pair53(seed, offset, i) } else { (narrow().0.into(), narrow().1.into()) };
        box_muller(u1, u2, i)
    });
    let (value, scale) = pairs.map(|(r, z)| (f64::mul_add(std, z, mean), std * r + mean.abs())).unzip();
    // In units of 2^-24·r: 13 from rounding 2π and the angle (which is below 2π), 4 from a sine of 4 ULP, 3 from a logarithm of 3 ULP (halved by
    // the root), 6 from a root of 3 ULP, 4 from std, the two products and the sum; less the two that the bound adds by itself.
    Ok(vec![Reference::scaled(Array::float(&shape, value), scale, 28)])
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::Tensor;

    use super::*;
    use crate::numerics::judge;

    fn call(operator: &'static Operator, seed: &[i64], attrs: &[(&str, AttrValue)]) -> Call {
        Call::new(operator, &[Tensor::contiguous(DType::U64, seed)], &[Tensor::contiguous(DType::F32, &[3])], attrs).unwrap()
    }

    #[test]
    fn the_stream_of_zeros_is_known() {
        let seed = [Array::int(&[2], vec![0, 0])];
        let u: Vec<f64> = [0x0066_27e8_u32, 0x00e1_69c5, 0x00bc_57ac].map(|bits| f64::from(bits) * 2f64.powi(-24)).to_vec();
        let uniform = uniform(&call(UNIFORM, &[2], &[]), &seed).unwrap();
        assert_eq!(uniform[0].value.floats(), u);
        let normal = normal(&call(NORMAL, &[2], &[]), &seed).unwrap();
        let r = (-2.0 * (u[0] + 2f64.powi(-24)).ln()).sqrt();
        let angle = u[1] * core::f64::consts::TAU;
        let got = normal[0].value.floats();
        assert!((got[0] - r * angle.cos()).abs() < 1e-14 && (got[1] - r * angle.sin()).abs() < 1e-14);
        // A plain evaluation in f32 is good enough; an angle off by 2^-20 of a turn is not.
        let ok = |z0: f32, z1: f32| judge(NORMAL.numerics, DType::F32, &normal[0], &Array::float(&[3], vec![z0.into(), z1.into(), got[2]])).ok;
        let (r, angle) = ((-2.0 * (u[0] as f32 + 2f32.powi(-24)).ln()).sqrt(), u[1] as f32 * core::f32::consts::TAU);
        let next = angle + 2f32.powi(-20) * core::f32::consts::TAU;
        assert!(ok(r * angle.cos(), r * angle.sin()) && !ok(r * next.cos(), r * next.sin()));
    }

    #[test]
    fn bad_bounds_and_seeds_are_refused() {
        let of = |name, v| (name, AttrValue::Float(v));
        assert!(call(UNIFORM, &[2], &[of("low", 2.0)]).check().is_err() && call(UNIFORM, &[3], &[]).check().is_err());
        assert!(call(NORMAL, &[2], &[of("std", -1.0)]).check().is_err() && call(NORMAL, &[2], &[of("mean", f64::NAN)]).check().is_err());
    }
}
