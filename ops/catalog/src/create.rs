//! Tensors made from numbers alone.

use flagos_backend_api::Result;

use crate::dtypes::{ANY, NUMBER, accumulator, unit_roundoff};
use crate::shape::{Inferred, fault, flops_per_element};
use crate::{Array, AttrValue, Attribute, Call, Cases, Layout, Numerics, Operand, Operator, Reference, TypeRule};

/// `arange`.
pub const ARANGE: &Operator = &Operator {
    name: "arange",
    id: 180,
    revision: 1,
    family: "create",
    aten: &["arange", "arange.start", "arange.start_step", "arange.out", "arange.start_out"],
    onnx: "Range",
    inputs: &[],
    outputs: &[Operand::new("y", TypeRule::Any(NUMBER), "[n], of the caller's type")],
    attributes: &[
        Attribute::number("start", Some(0.0), "the first element"),
        Attribute::number("end", None, "the bound that is not reached"),
        Attribute::number("step", Some(1.0), "the difference of neighbours; not 0"),
    ],
    infer: |call| Ok(vec![(call.outputs.first().map(|t| t.dtype), vec![length(call)?])]),
    check: |call| length(call).map(drop),
    in_place: false,
    numerics: Numerics::ForwardError,
    special: "integer outputs truncate start and step toward zero, but not for the length, and wrap; floating ones may overflow to infinity",
    cases: arange_cases,
    reference: arange,
    flops: flops_per_element,
    doc: "y[i] = start + i·step for i in 0..n, n = ⌈(end - start)/step⌉, computed in f64 or exactly if all three are integers. \
          Elements are computed in f32 for narrower floats, f64 for f64, and not by repeated addition; integers \
          below 2^24 (f64: 2^53) are exact, but for one rounding to a narrower type.",
};

/// `fill`.
pub const FILL: &Operator = &Operator {
    name: "fill",
    id: 181,
    aten: &["fill.Scalar", "fill_.Scalar", "fill.Scalar_out", "full", "full.out", "full_like"],
    onnx: "ConstantOfShape",
    outputs: &[Operand::new("y", TypeRule::Any(ANY), "the caller's shape and type")],
    attributes: &[Attribute::number("value", None, "the value of every element")],
    infer: callers_output,
    check: check_fill,
    numerics: Numerics::Exact,
    special: "floating outputs: rounded once to nearest even; integers: truncated toward zero, out of range is an error, negative numbers \
              of an unsigned type's size wrap; bool: value != 0",
    cases: fill_cases,
    reference: fill,
    flops: |_| 0.0,
    doc: "y = value everywhere.",
    ..*ARANGE
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[ARANGE, FILL];

/// Infer rule: one output, of the caller's shape and type.
pub fn callers_output(call: &Call) -> Result<Inferred> {
    let y = call.outputs.first().ok_or_else(|| fault(call, "the shape of the output is the caller's to choose: give an output tensor"))?;
    Ok(vec![(None, y.shape().to_vec())])
}

/// The attribute `name`, exactly, if it is an integer.
fn whole(call: &Call, name: &str) -> Option<i128> {
    match call.attrs.iter().find(|(a, _)| a.name == name)?.1 {
        AttrValue::Int(v) => Some((*v).into()),
        AttrValue::Float(v) => (v.fract() == 0.0 && v.abs() < 2f64.powi(100)).then_some(*v as i128),
        AttrValue::Ints(_) => None,
    }
}

/// Number of elements of `arange`: exact where start, end and step are integers, else from f64.
fn length(call: &Call) -> Result<i64> {
    let [start, end, step] = ["start", "end", "step"].map(|name| call.attrs.float(name));
    let n = match ["start", "end", "step"].map(|name| whole(call, name)) {
        [_, _, Some(0)] => None,
        [Some(start), Some(end), Some(step)] => {
            let (span, step) = ((end - start) * step.signum(), step.abs());
            i64::try_from((span + step - 1).div_euclid(step)).ok()
        }
        _ => Some(((end - start) / step).ceil()).filter(|n| n.abs() < 2f64.powi(62)).map(|n| n as i64),
    };
    n.filter(|n| (0..1 << 62).contains(n)).ok_or_else(|| {
        fault(call, format!("from {start} to {end} in steps of {step}: give a finite range and a step other than 0 that leads to its end"))
    })
}

fn arange(call: &Call, _: &[Array]) -> Result<Vec<Reference>> {
    let n = call.outputs[0].shape[0] as usize;
    let ((start, first), (step, by)) = (call.attrs.number_at(0), call.attrs.number_at(2));
    if !call.outputs[0].dtype.is_float() {
        return Ok(vec![Reference::exact(Array::int(&[n], (0..n as i128).map(|i| i128::from(first) + i * i128::from(by)).collect()))]);
    }
    let value = Array::float(&[n], (0..n).map(|i| f64::mul_add(i as f64, step, start)).collect());
    // Integers that the accumulator holds are not rounded before the output.
    let most = unit_roundoff(accumulator(call.outputs[0].dtype)).recip();
    if whole(call, "start").is_some() && whole(call, "step").is_some() && start.abs() + n as f64 * step.abs() <= most {
        return Ok(vec![Reference::exact(value)]);
    }
    let scale = (0..n).map(|i| start.abs() + (i as f64 * step).abs()).collect();
    // Roundings, relative to the scale: of the step, of i, of their product, and of the sum.
    Ok(vec![Reference::scaled(value, scale, 2)])
}

fn check_fill(call: &Call) -> Result<()> {
    let Some(t) = call.outputs.first().map(|t| t.dtype) else { return Ok(()) };
    let (value, _) = call.attrs.number_at(0);
    let high = 2f64.powi(i32::from(t.bits) - i32::from(t.is_signed_int()));
    // Of an unsigned type negative numbers are taken modulo its size, as in C.
    let low = if t.is_signed_int() { -high } else { 1.0 - high };
    let within = (low..high).contains(&value.trunc());
    if t.is_int() && !within {
        return Err(fault(call, format!("value {value} does not fit {t}: give {low} to {}", high - 1.0)));
    }
    Ok(())
}

fn fill(call: &Call, _: &[Array]) -> Result<Vec<Reference>> {
    let shape: Vec<usize> = call.outputs[0].shape().iter().map(|n| *n as usize).collect();
    let n = shape.iter().product();
    let ((float, int), t) = (call.attrs.number_at(0), call.outputs[0].dtype);
    Ok(vec![Reference::exact(if t.is_float() {
        Array::float(&shape, vec![float; n])
    } else {
        Array::int(&shape, vec![if t.is_bool() { i128::from(float != 0.0) } else { int.into() }; n])
    })])
}

fn arange_cases(c: &mut Cases) {
    let range = |start: f64, end: f64, step: f64| {
        [("start", AttrValue::Float(start)), ("end", AttrValue::Float(end)), ("step", AttrValue::Float(step))]
    };
    c.add("to", vec![], &[("end", AttrValue::Int(259))]);
    c.add("from", vec![], &range(-7.0, 100.0, 1.0));
    c.add("down", vec![], &range(90.0, -5.0, -3.0));
    c.add("uneven", vec![], &range(1.0, 50.0, 4.0));
    c.add("fraction", vec![], &range(0.5, 20.0, 0.3));
    c.add("fraction-down", vec![], &range(1.25, -3.0, -0.1));
    c.add("none", vec![], &range(3.0, 3.0, 1.0));
    c.add("one", vec![], &range(3.0, 3.5, 1.0));
    c.add("strided", vec![], &range(0.0, 65.0, 1.0));
    c.with_output_layout(Layout::Strided);
    c.add("offset", vec![], &range(2.0, 65.0, 2.0));
    c.with_output_layout(Layout::Offset);
    let far = |i: i64| AttrValue::Int((1 << 60) + i);
    c.add("beyond-f64", vec![], &[("start", far(1)), ("end", far(40)), ("step", AttrValue::Int(3))]);
    c.quick("large", vec![], &range(-50_000.0, 100_003.0, 1.0));
    c.bench("16M", vec![], &[("end", AttrValue::Int(1 << 24))]);
}

fn fill_cases(c: &mut Cases) {
    let mut add = |name, shape: &[i64], value: f64, layout| {
        c.add(name, vec![], &[("value", AttrValue::Float(value))]);
        c.with_output(shape);
        c.with_output_layout(layout);
    };
    add("flat", &[1021], 3.0, Layout::Contiguous);
    add("fraction", &[33], 2.7, Layout::Contiguous);
    add("negative", &[65], -5.3, Layout::Contiguous);
    add("half", &[9], 0.5, Layout::Contiguous);
    add("zero", &[130], 0.0, Layout::Contiguous);
    add("strided", &[4, 5, 6], 7.0, Layout::Strided);
    add("transposed", &[19, 33], 9.0, Layout::Transposed);
    add("offset", &[129], 11.0, Layout::Offset);
    add("scalar", &[], 1.0, Layout::Contiguous);
    add("empty", &[2, 0], 1.0, Layout::Contiguous);
    add("rank8", &[2, 1, 2, 3, 1, 2, 2, 2], 12.0, Layout::Transposed);
    c.quick("large", vec![], &[("value", AttrValue::Int(17))]);
    c.with_output(&[300_007]);
    c.bench("16M", vec![], &[("value", AttrValue::Float(1.0))]);
    c.with_output(&[1 << 24]);
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::{DType, Tensor};

    use super::*;

    fn range(start: AttrValue, end: AttrValue, step: AttrValue) -> Result<i64> {
        let call = Call::inferred(ARANGE, &[], DType::F32, &[("start", start), ("end", end), ("step", step)])?;
        Ok(call.outputs[0].shape[0])
    }

    #[test]
    fn lengths() {
        let (f, i) = (AttrValue::Float, AttrValue::Int);
        assert_eq!(range(f(0.0), f(1.0), f(0.1)).unwrap(), 10);
        assert_eq!(range(i(5), i(-1), i(-3)).unwrap(), 2);
        // In f64 both bounds are 2^53.
        assert_eq!(range(i(1 << 53), i((1 << 53) + 1), i(1)).unwrap(), 1);
        for (start, end, step) in [(0.0, 1.0, 0.0), (0.0, 1.0, -1.0), (0.0, f64::INFINITY, 1.0), (0.0, f64::NAN, 1.0)] {
            assert!(range(f(start), f(end), f(step)).is_err(), "{start} {end} {step}");
        }
    }

    #[test]
    fn fill_refuses_what_an_integer_cannot_hold() {
        let fits = |t: DType, value: f64| {
            let y = Tensor::contiguous(t, &[1]);
            Call::new(FILL, &[], &[y], &[("value", AttrValue::Float(value))]).unwrap().check().is_ok()
        };
        assert!(fits(DType::I8, -128.9) && !fits(DType::I8, 128.0) && fits(DType::U8, -255.0) && !fits(DType::U8, -256.0));
        assert!(!fits(DType::I32, f64::NAN) && fits(DType::F16, 1e9) && fits(DType::BOOL, 1e9) && !fits(DType::I64, 2f64.powi(63)));
    }
}
