//! Reductions along axes.

use flagos_backend_api::{DType, Result};

use crate::dtypes::{ANY, BOOL, FLOATING, I64, NUMBER};
use crate::shape::{Inferred, axes, contiguous_strides, fault, no_check, reduced};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const ATTRIBUTES: &[Attribute] = &[
    Attribute::ints("dims", Some(&[]), "axes to reduce; none: all"),
    Attribute::boolean("keepdim", false, "keep reduced axes with extent 1"),
];
const Y: &str = "x's shape without the reduced axes, or with 1 there";

macro_rules! reduction {
    ($NAME:ident, $name:literal, $id:literal, $types:expr, $out:expr, $infer:expr, $check:expr, $numerics:expr, $aten:expr, $onnx:literal, $special:literal, $reference:expr, $doc:literal) => {
        #[doc = concat!("`", $name, "`.")]
        pub const $NAME: &Operator = &Operator {
            name: $name,
            id: $id,
            revision: 1,
            family: "reduction",
            aten: $aten,
            onnx: $onnx,
            inputs: &[Operand::new("x", TypeRule::Same('T', $types), "any shape")],
            outputs: &[Operand::new("y", $out, Y)],
            attributes: ATTRIBUTES,
            infer: $infer,
            check: $check,
            in_place: false,
            numerics: $numerics,
            special: $special,
            cases,
            reference: $reference,
            flops: |call| call.inputs[0].elems() as f64,
            doc: $doc,
        };
    };
}

const OUT_SUM: TypeRule = TypeRule::Same('S', NUMBER);
const OUT_SAME: TypeRule = TypeRule::Same('T', ANY);

reduction!(SUM, "sum", 120, ANY, OUT_SUM, infer_sum, no_check, Numerics::ForwardError, &["sum", "sum.dim_IntList", "sum.out", "sum.IntList_out"], "ReduceSum",
    "integers and bool give i64; empty: 0", sum, "Sum over the axes, accumulated in f32 for narrower floats, f64 for f64, i64 for integers.");
reduction!(PROD, "prod", 121, ANY, OUT_SUM, infer_sum, no_check, Numerics::ForwardError, &["prod", "prod.dim_int"], "ReduceProd",
    "integers and bool give i64; empty: 1", prod, "Product over the axes.");
reduction!(MEAN, "mean", 122, FLOATING, OUT_SAME, infer_same, no_check, Numerics::ForwardError, &["mean", "mean.dim", "mean.out"], "ReduceMean",
    "empty: NaN", mean, "Sum over the axes divided by the number of elements reduced.");
reduction!(AMAX, "amax", 123, NUMBER, OUT_SAME, infer_same, not_empty, Numerics::ForwardError, &["amax", "max"], "ReduceMax",
    "NaN wins; an empty axis is an error", amax, "Greatest element over the axes.");
reduction!(AMIN, "amin", 124, NUMBER, OUT_SAME, infer_same, not_empty, Numerics::ForwardError, &["amin", "min"], "ReduceMin",
    "NaN wins; an empty axis is an error", amin, "Least element over the axes.");
reduction!(ANY_OP, "any", 125, ANY, TypeRule::Any(BOOL), infer_bool, no_check, Numerics::Exact, &["any", "any.dim", "any.dims"], "",
    "empty: false; NaN is true", any, "Whether an element over the axes is not 0.");
reduction!(ALL, "all", 126, ANY, TypeRule::Any(BOOL), infer_bool, no_check, Numerics::Exact, &["all", "all.dim", "all.dims"], "",
    "empty: true; NaN is true", all, "Whether every element over the axes is not 0.");
reduction!(ARGMAX, "argmax", 127, NUMBER, TypeRule::Any(I64), infer_arg, one_axis, Numerics::Exact, &["argmax", "argmax.out"], "ArgMax",
    "the first of equals; the first NaN wins", |c, x| arg(c, x, true), "Index of the greatest element along one axis, or in the flattened tensor.");
reduction!(ARGMIN, "argmin", 128, NUMBER, TypeRule::Any(I64), infer_arg, one_axis, Numerics::Exact, &["argmin", "argmin.out"], "ArgMin",
    "the first of equals; the first NaN wins", |c, x| arg(c, x, false), "Index of the least element along one axis, or in the flattened tensor.");

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[SUM, PROD, MEAN, AMAX, AMIN, ANY_OP, ALL, ARGMAX, ARGMIN];

/// The reduced axes of a call.
pub fn reduced_axes(call: &Call) -> Result<Vec<usize>> {
    axes(call, call.attrs.ints("dims"), call.inputs[0].rank as usize)
}

fn shape(call: &Call) -> Result<Vec<i64>> {
    Ok(reduced(call.inputs[0].shape(), &reduced_axes(call)?, call.attrs.boolean("keepdim")))
}
fn infer_same(call: &Call) -> Result<Inferred> {
    Ok(vec![(Some(call.inputs[0].dtype), shape(call)?)])
}
fn infer_sum(call: &Call) -> Result<Inferred> {
    let t = call.inputs[0].dtype;
    Ok(vec![(Some(if t.is_float() { t } else { DType::I64 }), shape(call)?)])
}
fn infer_bool(call: &Call) -> Result<Inferred> {
    Ok(vec![(Some(DType::BOOL), shape(call)?)])
}
fn infer_arg(call: &Call) -> Result<Inferred> {
    Ok(vec![(Some(DType::I64), shape(call)?)])
}
fn not_empty(call: &Call) -> Result<()> {
    let x = &call.inputs[0];
    let empty = reduced_axes(call)?.iter().any(|d| x.shape[*d] == 0);
    if empty && shape(call)?.iter().all(|n| *n > 0) {
        return Err(fault(call, format!("an axis of shape {:?} has no elements to choose from", x.shape())));
    }
    Ok(())
}
fn one_axis(call: &Call) -> Result<()> {
    if call.attrs.ints("dims").len() > 1 {
        return Err(fault(call, format!("dims {:?}: give one axis, or none for the flattened tensor", call.attrs.ints("dims"))));
    }
    not_empty(call)
}

fn cases(c: &mut Cases) {
    let product = c.operator().id == PROD.id;
    let fill = if product { Fill::Uniform(0.5, 1.5) } else { Fill::Spread };
    let one = |shape: &[i64], layout| vec![TensorCase::new(shape, layout, fill)];
    let dims = |d: &[i64], keep: bool| vec![("dims", AttrValue::Ints(d.to_vec())), ("keepdim", AttrValue::Int(keep.into()))];
    c.add("all", one(&[7, 11], Layout::Contiguous), &[]);
    c.add("inner", one(&[9, 65], Layout::Contiguous), &dims(&[-1], false));
    c.add("outer", one(&[33, 17], Layout::Contiguous), &dims(&[0], true));
    c.add("middle", one(&[3, 10, 5], Layout::Strided), &dims(&[1], true));
    c.add("transposed", one(&[20, 31], Layout::Transposed), &dims(&[1], false));
    c.add("negative", one(&[6, 40], Layout::Negative), &dims(&[1], false));
    c.add("scalar", one(&[], Layout::Contiguous), &[]);
    c.add("no-rows", one(&[0, 5], Layout::Contiguous), &dims(&[1], false));
    c.add("special", vec![TensorCase::new(&[16, 9], Layout::Contiguous, Fill::Among(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))], &dims(&[1], false));
    if c.operator().id != ARGMAX.id && c.operator().id != ARGMIN.id {
        c.add("two", one(&[4, 5, 6], Layout::Offset), &dims(&[0, 2], false));
        c.add("rank8", one(&[2, 2, 1, 2, 3, 1, 2, 2], Layout::Contiguous), &dims(&[0, 3, 4, 7], true));
    } else {
        c.add("ties", vec![TensorCase::new(&[12, 33], Layout::Contiguous, Fill::Ties)], &dims(&[1], false));
    }
    if [SUM.id, PROD.id, ANY_OP.id, ALL.id, MEAN.id].contains(&c.operator().id) {
        c.add("empty-axis", one(&[4, 0], Layout::Contiguous), &dims(&[1], false));
    }
    if !product {
        c.quick("long", one(&[3, 100_003], Layout::Contiguous), &dims(&[1], false));
        c.quick("tall", one(&[10_007, 37], Layout::Contiguous), &dims(&[0], false));
        c.full("huge", one(&[4_000_037], Layout::Contiguous), &[]);
    }
    c.bench("16M", one(&[1 << 24], Layout::Contiguous), &[]);
    c.bench("4096x4096-dim0", one(&[4096, 4096], Layout::Contiguous), &dims(&[0], false));
    c.bench("4096x4096-dim1", one(&[4096, 4096], Layout::Contiguous), &dims(&[1], false));
}

/// For each output element the flat input indices reduced into it, in row-major order.
pub(crate) fn groups(x: &Array, over: &[usize]) -> Vec<Vec<usize>> {
    let strides = contiguous_strides(&x.shape);
    let kept: Vec<usize> = (0..x.shape.len()).filter(|d| !over.contains(d)).collect();
    let offsets = |dims: &[usize]| {
        let mut list = vec![0usize];
        for d in dims {
            list = list.iter().flat_map(|base| (0..x.shape[*d]).map(|i| base + i * strides[*d]).collect::<Vec<_>>()).collect();
        }
        list
    };
    let inner = offsets(over);
    offsets(&kept).into_iter().map(|base| inner.iter().map(|i| base + i).collect()).collect()
}

fn each<T>(call: &Call, x: &Array, f: impl FnMut(&[usize]) -> T) -> Result<Vec<T>> {
    let mut f = f;
    Ok(groups(x, &reduced_axes(call)?).iter().map(|g| f(g)).collect())
}

fn out_shape(call: &Call) -> Result<Vec<usize>> {
    Ok(shape(call)?.iter().map(|n| *n as usize).collect())
}

fn count(call: &Call) -> Result<usize> {
    Ok(reduced_axes(call)?.iter().map(|d| call.inputs[0].shape[*d] as usize).product())
}

fn sum(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = out_shape(call)?;
    if !call.inputs[0].dtype.is_float() {
        let v = x[0].ints();
        return Ok(vec![Reference::exact(Array::int(&shape, each(call, &x[0], |g| g.iter().map(|i| v[*i]).sum())?))]);
    }
    let v = x[0].floats();
    let value = each(call, &x[0], |g| g.iter().map(|i| v[*i]).collect::<Sum>().value())?;
    // Finite values whose absolute sum overflows have a great scale, not none.
    let scale = each(call, &x[0], |g| g.iter().map(|i| v[*i].abs()).sum::<f64>().min(f64::MAX))?;
    Ok(vec![Reference::scaled(Array::float(&shape, value), scale, count(call)?)])
}

fn mean(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let n = count(call)? as f64;
    let mut out = sum(call, x)?.remove(0);
    out.value = Array::float(&out.value.shape.clone(), out.value.floats().iter().map(|s| s / n).collect());
    out.scale.iter_mut().for_each(|s| *s /= n);
    Ok(vec![out])
}

fn prod(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = out_shape(call)?;
    if !call.inputs[0].dtype.is_float() {
        let v = x[0].ints();
        let value = each(call, &x[0], |g| g.iter().fold(1i64, |p, i| p.wrapping_mul(v[*i] as i64)).into())?;
        return Ok(vec![Reference::exact(Array::int(&shape, value))]);
    }
    let v = x[0].floats();
    let value = each(call, &x[0], |g| g.iter().map(|i| v[*i]).product::<f64>())?;
    let scale = value.iter().map(|p| p.abs()).collect();
    Ok(vec![Reference::scaled(Array::float(&shape, value), scale, count(call)?)])
}

fn extreme(call: &Call, x: &[Array], better: fn(f64, f64) -> bool, better_int: fn(i128, i128) -> bool) -> Result<Vec<Reference>> {
    let shape = out_shape(call)?;
    if !call.inputs[0].dtype.is_float() {
        let v = x[0].ints();
        let pick = |g: &[usize]| g.iter().map(|i| v[*i]).reduce(|a, b| if better_int(b, a) { b } else { a }).unwrap_or(0);
        return Ok(vec![Reference::exact(Array::int(&shape, each(call, &x[0], pick)?))]);
    }
    let v = x[0].floats();
    let pick = |g: &[usize]| g.iter().map(|i| v[*i]).reduce(|a, b| if a.is_nan() || !(b.is_nan() || better(b, a)) { a } else { b }).unwrap_or(0.0);
    let value = each(call, &x[0], pick)?;
    // No rounding happens; only the sign of a zero is left open.
    Ok(vec![Reference { numerics: Some(crate::numerics::ULP_HALF), ..Reference::new(Array::float(&shape, value)) }])
}

fn amax(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    extreme(call, x, |b, a| b > a, |b, a| b > a)
}
fn amin(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    extreme(call, x, |b, a| b < a, |b, a| b < a)
}

fn truth(x: &Array) -> Vec<bool> {
    match &x.data {
        crate::Data::Int(v) => v.iter().map(|x| *x != 0).collect(),
        _ => x.floats().iter().map(|x| *x != 0.0).collect(),
    }
}
fn any(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let v = truth(&x[0]);
    Ok(vec![Reference::exact(Array::int(&out_shape(call)?, each(call, &x[0], |g| g.iter().any(|i| v[*i]).into())?))])
}
fn all(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let v = truth(&x[0]);
    Ok(vec![Reference::exact(Array::int(&out_shape(call)?, each(call, &x[0], |g| g.iter().all(|i| v[*i]).into())?))])
}

fn arg(call: &Call, x: &[Array], greatest: bool) -> Result<Vec<Reference>> {
    let shape = out_shape(call)?;
    let best = |g: &[usize], better: &dyn Fn(usize, usize) -> bool| {
        let mut at = 0;
        for i in 1..g.len() {
            if better(g[i], g[at]) {
                at = i;
            }
        }
        at as i128
    };
    let value = if call.inputs[0].dtype.is_float() {
        let v = x[0].floats();
        let better = |b: usize, a: usize| !v[a].is_nan() && (v[b].is_nan() || if greatest { v[b] > v[a] } else { v[b] < v[a] });
        each(call, &x[0], |g| best(g, &better))?
    } else {
        let v = x[0].ints();
        let better = |b: usize, a: usize| if greatest { v[b] > v[a] } else { v[b] < v[a] };
        each(call, &x[0], |g| best(g, &better))?
    };
    Ok(vec![Reference::exact(Array::int(&shape, value))])
}
