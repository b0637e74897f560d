//! Casts, copies, permutations and concatenation.

use flagos_backend_api::Result;

use crate::dtypes::ANY;
use crate::shape::{axis, broadcast, broadcast_index, contiguous_strides, fault, flops_per_element, no_check, split};
use crate::{Array, AttrValue, Attribute, Call, Data, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const SAME: TypeRule = TypeRule::Same('T', ANY);

/// `cast`.
pub const CAST: &Operator = &Operator {
    name: "cast",
    id: 110,
    revision: 1,
    family: "copy",
    aten: &["to.dtype", "_to_copy", "to_copy"],
    onnx: "Cast",
    inputs: &[Operand::new("x", TypeRule::Any(ANY), "any shape")],
    outputs: &[Operand::new("y", TypeRule::Any(ANY), "the shape of x; its type is the target")],
    attributes: &[],
    infer: |call| Ok(vec![(call.outputs.first().map(|t| t.dtype), call.inputs[0].shape().to_vec())]),
    check: no_check,
    in_place: false,
    numerics: Numerics::Exact,
    special: "to narrower floats: rounded to nearest even once; float to integer: toward zero, out of range and NaN unspecified; to bool: x != 0",
    cases: |c| {
        let one = |shape: &[i64], layout, fill| vec![TensorCase::new(shape, layout, fill)];
        c.add("flat", one(&[259], Layout::Contiguous, Fill::Spread), &[]);
        c.add("positive", one(&[64], Layout::Contiguous, Fill::Uniform(0.0, 100.0)), &[]);
        c.add("strided", one(&[5, 6, 7], Layout::Strided, Fill::Uniform(0.0, 100.0)), &[]);
        c.add("transposed", one(&[18, 17], Layout::Transposed, Fill::Uniform(0.0, 100.0)), &[]);
        c.add("scalar", one(&[], Layout::Contiguous, Fill::Uniform(0.0, 100.0)), &[]);
        c.add("empty", one(&[0], Layout::Contiguous, Fill::Normal), &[]);
        c.bench("16M", one(&[1 << 24], Layout::Contiguous, Fill::Normal), &[]);
    },
    reference: |call, x| {
        let to = call.outputs[0].dtype;
        // Values outside of the target's range are unspecified: the reference follows C's truncation with saturation there, and the
        // cases stay inside.
        let value = match &x[0].data {
            Data::Float(v) if to.is_bool() => Array::int(&x[0].shape, v.iter().map(|v| i128::from(*v != 0.0)).collect()),
            Data::Float(v) if !to.is_float() => {
                let low = if to.is_signed_int() { -(2f64.powi(i32::from(to.bits) - 1)) } else { 0.0 };
                Array::int(&x[0].shape, v.iter().map(|v| v.max(low) as i128).collect())
            }
            _ => x[0].clone(),
        };
        Ok(vec![Reference::exact(value)])
    },
    flops: flops_per_element,
    doc: "y = x converted to y's type.",
};

/// `copy`.
pub const COPY: &Operator = &Operator {
    name: "copy",
    id: 111,
    revision: 1,
    family: "copy",
    aten: &["copy_", "clone", "contiguous", "copy", "expand_copy"],
    onnx: "Identity",
    inputs: &[Operand::new("x", SAME, "a shape that broadcasts to y's")],
    outputs: &[Operand::new("y", SAME, "the caller's shape")],
    attributes: &[],
    infer: |call| {
        let x = call.inputs[0];
        let Some(y) = call.outputs.first() else { return Ok(vec![(Some(x.dtype), x.shape().to_vec())]) };
        if broadcast(call, &[x, *y])? != y.shape() {
            return Err(fault(call, format!("x of shape {:?} does not broadcast to y's {:?}", x.shape(), y.shape())));
        }
        Ok(vec![(Some(x.dtype), y.shape().to_vec())])
    },
    check: no_check,
    in_place: false,
    numerics: Numerics::Exact,
    special: "bits are kept",
    cases: |c| {
        for (name, shape, layout) in [
            ("flat", &[1021][..], Layout::Contiguous),
            ("strided", &[4, 5, 6], Layout::Strided),
            ("transposed", &[33, 47], Layout::Transposed),
            ("offset", &[129], Layout::Offset),
            ("negative", &[3, 50], Layout::Negative),
            ("repeated", &[6, 40], Layout::Repeated),
            ("scalar", &[], Layout::Contiguous),
            ("empty", &[2, 0], Layout::Contiguous),
            ("rank8", &[2, 1, 2, 3, 1, 2, 2, 2], Layout::Transposed),
        ] {
            c.add(name, vec![TensorCase::new(shape, layout, Fill::Special)], &[]);
        }
        c.add("expand", vec![TensorCase::new(&[7, 1], Layout::Contiguous, Fill::Normal)], &[]);
        c.with_output(&[3, 7, 5]);
        c.quick("large-transposed", vec![TensorCase::new(&[511, 1023], Layout::Transposed, Fill::Normal)], &[]);
        c.bench("16M", vec![TensorCase::new(&[1 << 24], Layout::Contiguous, Fill::Normal)], &[]);
    },
    reference: |call, x| {
        let shape: Vec<usize> = call.outputs[0].shape().iter().map(|n| *n as usize).collect();
        Ok(vec![Reference::exact(gather(&x[0], &shape, |flat| broadcast_index(flat, &shape, &x[0].shape)))])
    },
    flops: |_| 0.0,
    doc: "y = x, with any strides on both sides; x is broadcast to y's shape.",
};

/// `permute_copy`.
pub const PERMUTE: &Operator = &Operator {
    name: "permute_copy",
    id: 112,
    revision: 1,
    family: "copy",
    aten: &["permute_copy", "transpose_copy.int", "t_copy"],
    onnx: "Transpose",
    inputs: &[Operand::new("x", SAME, "any shape")],
    outputs: &[Operand::new("y", SAME, "axis i of y is axis dims[i] of x")],
    attributes: &[Attribute::ints("dims", None, "a permutation of the axes")],
    infer: |call| {
        let order = permutation(call)?;
        Ok(vec![(Some(call.inputs[0].dtype), order.iter().map(|d| call.inputs[0].shape[*d]).collect())])
    },
    check: no_check,
    in_place: false,
    numerics: Numerics::Exact,
    special: "bits are kept",
    cases: |c| {
        let dims = |d: &[i64]| [("dims", AttrValue::Ints(d.to_vec()))];
        c.add("matrix", vec![TensorCase::new(&[65, 130], Layout::Contiguous, Fill::Special)], &dims(&[1, 0]));
        c.add("rank4", vec![TensorCase::new(&[3, 4, 5, 6], Layout::Offset, Fill::Normal)], &dims(&[0, -1, 1, 2]));
        c.add("identity", vec![TensorCase::new(&[9, 10], Layout::Strided, Fill::Normal)], &dims(&[0, 1]));
        c.add("empty", vec![TensorCase::new(&[0, 3], Layout::Contiguous, Fill::Normal)], &dims(&[1, 0]));
        c.bench("4096x4096", vec![TensorCase::new(&[4096, 4096], Layout::Contiguous, Fill::Normal)], &dims(&[1, 0]));
    },
    reference: |call, x| {
        let order = permutation(call)?;
        let shape: Vec<usize> = order.iter().map(|d| x[0].shape[*d]).collect();
        let (to, from) = (contiguous_strides(&shape), contiguous_strides(&x[0].shape));
        let source = |flat: usize| (0..shape.len()).map(|i| flat / to[i] % shape[i] * from[order[i]]).sum();
        Ok(vec![Reference::exact(gather(&x[0], &shape, source))])
    },
    flops: |_| 0.0,
    doc: "y[i0, i1, …] = x with its axes in the order dims.",
};

/// `cat`.
pub const CAT: &Operator = &Operator {
    name: "cat",
    id: 113,
    revision: 1,
    family: "copy",
    aten: &["cat", "cat.out", "concat"],
    onnx: "Concat",
    inputs: &[Operand::many("tensors", SAME, "equal shapes but for axis dim")],
    outputs: &[Operand::new("y", SAME, "the sum of extents along dim")],
    attributes: &[Attribute::int("dim", Some(0), -8, 7, "the axis along which tensors follow each other")],
    infer: |call| {
        let first = call.inputs[0];
        let dim = axis(call, call.attrs.int("dim"), first.rank as usize)?;
        if first.rank == 0 {
            return Err(fault(call, "tensors of rank 0 have no axis to follow each other along"));
        }
        let mut shape = first.shape().to_vec();
        for (i, t) in call.inputs.iter().enumerate().skip(1) {
            let fits = t.rank == first.rank && (0..shape.len()).all(|d| d == dim || t.shape[d] == shape[d]);
            if !fits {
                return Err(fault(call, format!("tensor {i} of shape {:?} does not fit {:?} but for axis {dim}", t.shape(), first.shape())));
            }
            shape[dim] += t.shape[dim];
        }
        Ok(vec![(Some(first.dtype), shape)])
    },
    check: no_check,
    in_place: false,
    numerics: Numerics::Exact,
    special: "bits are kept",
    cases: |c| {
        let t = |shape: &[i64], layout| TensorCase::new(shape, layout, Fill::Special);
        c.add("rows", vec![t(&[2, 9], Layout::Contiguous), t(&[3, 9], Layout::Offset), t(&[1, 9], Layout::Strided)], &[]);
        c.add("columns", vec![t(&[5, 3], Layout::Transposed), t(&[5, 8], Layout::Contiguous)], &[("dim", AttrValue::Int(-1))]);
        c.add("one", vec![t(&[7], Layout::Negative)], &[]);
        c.add("with-empty", vec![t(&[0, 4], Layout::Contiguous), t(&[2, 4], Layout::Contiguous)], &[]);
        c.bench("2x8M", vec![TensorCase::new(&[1 << 23], Layout::Contiguous, Fill::Normal); 2], &[]);
    },
    reference: |call, x| {
        let dim = axis(call, call.attrs.int("dim"), x[0].shape.len())?;
        let mut shape = x[0].shape.clone();
        shape[dim] = x.iter().map(|a| a.shape[dim]).sum();
        let (outer, _, inner) = split(&shape, dim);
        let float = matches!(x[0].data, Data::Float(_));
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        for o in 0..outer {
            for a in x {
                let run = a.shape[dim] * inner;
                match &a.data {
                    Data::Float(v) => floats.extend_from_slice(&v[o * run..(o + 1) * run]),
                    Data::Int(v) => ints.extend_from_slice(&v[o * run..(o + 1) * run]),
                    Data::Complex(_) => {}
                }
            }
        }
        let data = if float { Data::Float(floats) } else { Data::Int(ints) };
        Ok(vec![Reference::exact(Array { shape, data })])
    },
    flops: |_| 0.0,
    doc: "The tensors one after the other along axis dim.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[CAST, COPY, PERMUTE, CAT];

/// `dims` as axes, checked to be a permutation.
pub fn permutation(call: &Call) -> Result<Vec<usize>> {
    let rank = call.inputs[0].rank as usize;
    let dims = call.attrs.ints("dims");
    let order = dims.iter().map(|d| axis(call, *d, rank)).collect::<Result<Vec<_>>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(fault(call, format!("dims {dims:?} is no permutation of {rank} axes")));
    }
    Ok(order)
}

/// An array of `shape` whose element `flat` is element `source(flat)` of `from`.
pub(crate) fn gather(from: &Array, shape: &[usize], source: impl Fn(usize) -> usize) -> Array {
    let n: usize = shape.iter().product();
    let data = match &from.data {
        Data::Float(v) => Data::Float((0..n).map(|i| v[source(i)]).collect()),
        Data::Int(v) => Data::Int((0..n).map(|i| v[source(i)]).collect()),
        Data::Complex(v) => Data::Complex((0..n).map(|i| v[source(i)]).collect()),
    };
    Array { shape: shape.to_vec(), data }
}
