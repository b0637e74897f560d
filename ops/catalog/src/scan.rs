//! Prefix sums.

use flagos_backend_api::{DType, Result};

use crate::dtypes::{ANY, FLOATING, I64};
use crate::shape::{axis, split};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Data, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

/// `cumsum`.
pub const CUMSUM: &Operator = &Operator {
    name: "cumsum",
    id: 160,
    revision: 1,
    family: "scan",
    aten: &["cumsum", "cumsum_", "cumsum.out"],
    onnx: "CumSum",
    inputs: &[Operand::new("x", TypeRule::Same('T', ANY), "any shape")],
    outputs: &[Operand::new("y", TypeRule::Same('S', FLOATING.or(I64)), "the shape of x; i64 for integers and bool, else x's type")],
    attributes: &[
        Attribute::int("dim", None, -8, 7, "the axis summed along"),
        Attribute::boolean("exclusive", false, "leave the element itself out of its sum"),
        Attribute::boolean("reverse", false, "sum from the end"),
    ],
    infer: |call| {
        let x = &call.inputs[0];
        Ok(vec![(Some(if x.dtype.is_float() { x.dtype } else { DType::I64 }), x.shape().to_vec())])
    },
    check: |call| dim(call).map(drop),
    in_place: true,
    numerics: Numerics::ForwardError,
    special: "NaN, and infinities of both signs, make all later sums NaN; integer sums wrap",
    cases,
    reference,
    flops: |call| call.inputs[0].elems() as f64,
    doc: "y[i] = Σ x[j] over j ≤ i along dim; over j < i if exclusive; over j ≥ i or j > i if reverse. Accumulated in f32 for narrower floats, \
          i64 for integers. Each sum adds up its own elements: the difference of two sums is too inexact for it.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[CUMSUM];

fn dim(call: &Call) -> Result<usize> {
    axis(call, call.attrs.int("dim"), call.inputs[0].rank as usize)
}

fn cases(c: &mut Cases) {
    let one = |shape: &[i64], layout, fill| vec![TensorCase::new(shape, layout, fill)];
    let along = |dim: i64| ("dim", AttrValue::Int(dim));
    let (exclusive, reverse) = (("exclusive", AttrValue::Int(1)), ("reverse", AttrValue::Int(1)));
    c.add("rows", one(&[9, 67], Layout::Contiguous, Fill::Spread), &[along(-1)]);
    c.add("columns", one(&[33, 17], Layout::Contiguous, Fill::Spread), &[along(0)]);
    c.add("exclusive", one(&[5, 70], Layout::Contiguous, Fill::Spread), &[along(1), exclusive.clone()]);
    c.add("reverse", one(&[70, 5], Layout::Contiguous, Fill::Spread), &[along(0), reverse.clone()]);
    c.add("reverse-exclusive", one(&[6, 40], Layout::Contiguous, Fill::Spread), &[along(1), exclusive.clone(), reverse]);
    c.add("middle", one(&[3, 10, 5], Layout::Strided, Fill::Spread), &[along(1)]);
    c.add("transposed", one(&[20, 31], Layout::Transposed, Fill::Spread), &[along(1)]);
    c.add("offset", one(&[259], Layout::Offset, Fill::Spread), &[along(0)]);
    c.add("negative", one(&[4, 33], Layout::Negative, Fill::Spread), &[along(1)]);
    c.add("repeated", one(&[40, 3], Layout::Repeated, Fill::Spread), &[along(0)]);
    c.add("beyond-i8", one(&[300], Layout::Contiguous, Fill::Uniform(100.0, 120.0)), &[along(0)]);
    c.add("one", one(&[6, 1], Layout::Contiguous, Fill::Spread), &[along(1), exclusive]);
    c.add("scalar", one(&[], Layout::Contiguous, Fill::Spread), &[along(0)]);
    c.add("empty", one(&[3, 0], Layout::Contiguous, Fill::Spread), &[along(1)]);
    let special = Fill::Among(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    c.add("special", one(&[32, 9], Layout::Contiguous, special), &[along(1)]);
    c.add("rank8", one(&[2, 1, 2, 5, 1, 2, 1, 2], Layout::Contiguous, Fill::Spread), &[along(3)]);
    c.quick("long", one(&[3, 100_003], Layout::Contiguous, Fill::Normal), &[along(1)]);
    c.quick("tall", one(&[10_007, 37], Layout::Contiguous, Fill::Normal), &[along(0)]);
    c.full("huge", one(&[4_000_037], Layout::Contiguous, Fill::Normal), &[along(0)]);
    c.bench("16M", one(&[1 << 24], Layout::Contiguous, Fill::Normal), &[along(0)]);
    c.bench("4096x4096-dim0", one(&[4096, 4096], Layout::Contiguous, Fill::Normal), &[along(0)]);
    c.bench("4096x4096-dim1", one(&[4096, 4096], Layout::Contiguous, Fill::Normal), &[along(1)]);
}

/// Visits (flat index, place in its line) line by line, in the order of summation.
fn walk(call: &Call, shape: &[usize], mut visit: impl FnMut(usize, usize)) -> Result<()> {
    let (outer, n, inner) = split(shape, dim(call)?);
    let reverse = call.attrs.boolean("reverse");
    for line in 0..outer * inner {
        let base = line / inner * n * inner + line % inner;
        (0..n).for_each(|j| visit(base + if reverse { n - 1 - j } else { j } * inner, j));
    }
    Ok(())
}

fn reference(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let (shape, exclusive) = (&x[0].shape, call.attrs.boolean("exclusive"));
    if let Data::Int(v) = &x[0].data {
        let (mut y, mut total) = (vec![0; v.len()], 0i128);
        walk(call, shape, |at, j| {
            let before = if j == 0 { 0 } else { total };
            total = before + v[at];
            y[at] = if exclusive { before } else { total };
        })?;
        return Ok(vec![Reference::exact(Array::int(shape, y))]);
    }
    let v = x[0].floats();
    let (mut y, mut scale) = (vec![0.0; v.len()], vec![0.0; v.len()]);
    let (mut sum, mut size, n) = (Sum::default(), 0.0, split(shape, dim(call)?).1);
    walk(call, shape, |at, j| {
        if j == 0 {
            (sum, size) = (Sum::default(), 0.0);
        }
        let before = (sum.value(), size);
        sum.add(v[at]);
        size += v[at].abs();
        let (value, of) = if exclusive { before } else { (sum.value(), size) };
        // The bound multiplies by n + 2 terms; the j-th sum is entitled to its own j + 1 and no more.
        (y[at], scale[at]) = (value, of * (j + 3) as f64 / (n + 2) as f64);
    })?;
    Ok(vec![Reference::scaled(Array::float(shape, y), scale, n)])
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::Tensor;

    use super::*;

    #[test]
    fn directions_and_exclusion() {
        let x = Tensor::contiguous(DType::I8, &[2, 2]);
        let run = |exclusive, reverse| {
            let attrs = [("dim", AttrValue::Int(0)), ("exclusive", AttrValue::Int(exclusive)), ("reverse", AttrValue::Int(reverse))];
            let call = Call::inferred(CUMSUM, &[x], DType::NONE, &attrs).unwrap();
            assert_eq!(call.outputs[0].dtype, DType::I64);
            reference(&call, &[Array::int(&[2, 2], vec![1, 2, 30, 100])]).unwrap()[0].value.ints()
        };
        assert_eq!(run(0, 0), [1, 2, 31, 102]);
        assert_eq!(run(1, 0), [0, 0, 1, 2]);
        assert_eq!(run(0, 1), [31, 102, 30, 100]);
        assert_eq!(run(1, 1), [30, 100, 0, 0]);
    }
}
