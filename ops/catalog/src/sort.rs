//! Sorting and selection of the greatest.

use core::cmp::Ordering;

use flagos_backend_api::{DType, Result};

use crate::copy::gather as pick;
use crate::dtypes::{I64, NUMBER};
use crate::shape::{Inferred, axis, fault, split};
use crate::{Array, AttrValue, Attribute, Call, Cases, Data, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', NUMBER);

/// `sort`.
pub const SORT: &Operator = &Operator {
    name: "sort",
    id: 200,
    revision: 1,
    family: "sort",
    aten: &["sort", "sort.stable", "sort.values", "sort.values_stable"],
    onnx: "",
    inputs: &[Operand::new("x", T, "any shape")],
    outputs: &[
        Operand::new("values", T, "the shape of x"),
        Operand::new("indices", TypeRule::Any(I64), "the shape of x: where along dim each value was"),
    ],
    attributes: &[
        Attribute::int("dim", Some(-1), -8, 7, "the axis sorted along"),
        Attribute::boolean("descending", false, "greatest first"),
    ],
    infer: |call| {
        let x = &call.inputs[0];
        Ok(vec![(Some(x.dtype), x.shape().to_vec()), (Some(DType::I64), x.shape().to_vec())])
    },
    check: |call| dim(call).map(drop),
    in_place: false,
    numerics: Numerics::Exact,
    special: "stable in both directions: equals keep their order, zeros of either sign are equal; NaN is greater than infinity and equal to NaN",
    cases: sort_cases,
    reference: |call, x| {
        let n = split(&x[0].shape, dim(call)?).1;
        ordered(call, &x[0], call.attrs.boolean("descending"), n)
    },
    flops: |call| {
        let n = call.inputs[0].shape().get(dim(call).unwrap_or(0)).map_or(1.0, |n| (*n).max(2) as f64);
        call.inputs[0].elems() as f64 * n.log2()
    },
    doc: "Elements in order along dim, and the indices they came from: values[i] = x[indices[i]].",
};

/// `topk`.
pub const TOPK: &Operator = &Operator {
    name: "topk",
    id: 201,
    aten: &["topk", "topk.values"],
    onnx: "TopK",
    outputs: &[
        Operand::new("values", T, "x's shape with k along dim"),
        Operand::new("indices", TypeRule::Any(I64), "the shape of values: where along dim each value was"),
    ],
    attributes: &[
        Attribute::int("k", None, 0, i64::MAX, "how many; at most the extent of dim, for a scalar 1"),
        Attribute::int("dim", Some(-1), -8, 7, "the axis chosen along"),
        Attribute::boolean("largest", true, "the greatest; else the least"),
        Attribute::boolean("sorted", true, "in order; the result is so in any case"),
    ],
    infer: infer_topk,
    check: |call| infer_topk(call).map(drop),
    special: "of equals the lower index comes first; NaN is greater than infinity and equal to NaN",
    cases: topk_cases,
    reference: |call, x| ordered(call, &x[0], call.attrs.boolean("largest"), call.attrs.int("k") as usize),
    doc: "The first k elements of a stable sort along dim, descending if largest, and the indices they came from.",
    ..*SORT
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[SORT, TOPK];

fn dim(call: &Call) -> Result<usize> {
    axis(call, call.attrs.int("dim"), call.inputs[0].rank as usize)
}

fn infer_topk(call: &Call) -> Result<Inferred> {
    let (k, dim, mut shape) = (call.attrs.int("k"), dim(call)?, call.inputs[0].shape().to_vec());
    match shape.get_mut(dim) {
        Some(n) if k <= *n => *n = k,
        None if k == 1 => {}
        n => return Err(fault(call, format!("k is {k}, but axis {dim} has {} elements; give at most as many", n.map_or(1, |n| *n)))),
    }
    Ok(vec![(Some(call.inputs[0].dtype), shape.clone()), (Some(DType::I64), shape)])
}

/// Total order of the family: NaN is greatest, all NaN are equal, -0 equals 0.
pub fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The first `keep` elements of each line in stable order, and their places.
fn ordered(call: &Call, x: &Array, descending: bool, keep: usize) -> Result<Vec<Reference>> {
    let dim = dim(call)?;
    let (outer, n, inner) = split(&x.shape, dim);
    let mut order = vec![0usize; outer * keep * inner];
    let floats = x.floats();
    let compare = |a: usize, b: usize| match &x.data {
        Data::Int(v) => v[a].cmp(&v[b]),
        _ => compare(floats[a], floats[b]),
    };
    for line in 0..outer * inner {
        let (o, i) = (line / inner, line % inner);
        let at = |j: usize| (o * n + j) * inner + i;
        let mut places: Vec<usize> = (0..n).collect();
        places.sort_by(|a, b| if descending { compare(at(*b), at(*a)) } else { compare(at(*a), at(*b)) });
        for (j, place) in places.into_iter().take(keep).enumerate() {
            order[(o * keep + j) * inner + i] = place;
        }
    }
    let mut shape = x.shape.clone();
    if let Some(extent) = shape.get_mut(dim) {
        *extent = keep;
    }
    let source = |flat: usize| (flat / inner / keep * n + order[flat]) * inner + flat % inner;
    let values = pick(x, &shape, source);
    Ok(vec![Reference::exact(values), Reference::exact(Array::int(&shape, order.into_iter().map(|i| i as i128).collect()))])
}

/// Name, shape, dim, layout, contents.
type Line = (&'static str, &'static [i64], i64, Layout, Fill);

/// Cases of both: an axis sorted along has 3 elements or more, as topk takes 3.
const LINES: &[Line] = &[
    ("rows", &[9, 67], -1, Layout::Contiguous, Fill::Spread),
    ("columns", &[33, 17], 0, Layout::Contiguous, Fill::Spread),
    ("ties", &[5, 200], 1, Layout::Contiguous, Fill::Ties),
    ("equal", &[3, 64], 1, Layout::Contiguous, Fill::Ints(7, 7)),
    ("permutation", &[4, 129], 1, Layout::Contiguous, Fill::Permutation),
    ("special", &[16, 40], 1, Layout::Contiguous, Fill::Special),
    ("middle", &[3, 10, 5], 1, Layout::Strided, Fill::Spread),
    ("transposed", &[20, 31], 1, Layout::Transposed, Fill::Spread),
    ("offset", &[257], 0, Layout::Offset, Fill::Spread),
    ("negative", &[4, 33], 1, Layout::Negative, Fill::Spread),
    ("repeated", &[3, 12], 1, Layout::Repeated, Fill::Spread),
    ("rank8", &[2, 1, 2, 5, 1, 2, 1, 2], 3, Layout::Contiguous, Fill::Spread),
    ("no-rows", &[0, 5], 1, Layout::Contiguous, Fill::Spread),
];

fn line(shape: &[i64], layout: Layout, fill: Fill) -> Vec<TensorCase> {
    vec![TensorCase::new(shape, layout, fill)]
}

fn sort_cases(c: &mut Cases) {
    let along = |dim: i64, down: bool| [("dim", AttrValue::Int(dim)), ("descending", AttrValue::Int(down.into()))];
    for (name, shape, dim, layout, fill) in LINES {
        c.add(name, line(shape, *layout, *fill), &along(*dim, false));
        c.add(&format!("{name}-descending"), line(shape, *layout, *fill), &along(*dim, true));
    }
    c.add("one", line(&[6, 1], Layout::Contiguous, Fill::Spread), &[]);
    c.add("scalar", line(&[], Layout::Contiguous, Fill::Spread), &[]);
    c.add("empty", line(&[4, 0], Layout::Contiguous, Fill::Spread), &[]);
    c.quick("long", line(&[3, 100_003], Layout::Contiguous, Fill::Spread), &along(1, false));
    c.quick("long-ties", line(&[2, 70_001], Layout::Contiguous, Fill::Ties), &along(1, true));
    c.quick("many", line(&[1031, 129], Layout::Contiguous, Fill::Spread), &along(0, false));
    c.full("huge", line(&[4_000_037], Layout::Contiguous, Fill::Spread), &[]);
    c.bench("16M", line(&[1 << 24], Layout::Contiguous, Fill::Spread), &[]);
    c.bench("4096x4096", line(&[4096, 4096], Layout::Contiguous, Fill::Spread), &[]);
}

fn topk_cases(c: &mut Cases) {
    let of = |k: i64, dim: i64, largest: bool| [("k", AttrValue::Int(k)), ("dim", AttrValue::Int(dim)), ("largest", AttrValue::Int(largest.into()))];
    for (name, shape, dim, layout, fill) in LINES {
        c.add(name, line(shape, *layout, *fill), &of(3, *dim, true));
        c.add(&format!("{name}-least"), line(shape, *layout, *fill), &of(3, *dim, false));
    }
    c.add("half", line(&[7, 100], Layout::Contiguous, Fill::Ties), &of(50, 1, true));
    c.add("all", line(&[5, 33], Layout::Contiguous, Fill::Spread), &of(33, 1, true));
    c.add("none", line(&[5, 33], Layout::Contiguous, Fill::Spread), &of(0, 1, true));
    c.add("scalar", line(&[], Layout::Contiguous, Fill::Spread), &[("k", AttrValue::Int(1))]);
    let unsorted = ("sorted", AttrValue::Int(0));
    c.add("unsorted", line(&[6, 80], Layout::Contiguous, Fill::Spread), &[("k", AttrValue::Int(8)), unsorted]);
    c.quick("long", line(&[3, 100_003], Layout::Contiguous, Fill::Spread), &of(64, 1, true));
    c.quick("long-ties", line(&[2, 70_001], Layout::Contiguous, Fill::Ties), &of(1000, 1, false));
    c.quick("many", line(&[129, 1031], Layout::Contiguous, Fill::Spread), &of(5, 0, true));
    c.bench("256x128000-50", line(&[256, 128_000], Layout::Contiguous, Fill::Spread), &of(50, 1, true));
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::Tensor;

    use super::*;

    fn run(operator: &'static Operator, x: Array, t: DType, attrs: &[(&str, AttrValue)]) -> (Array, Vec<i128>) {
        let shape: Vec<i64> = x.shape.iter().map(|n| *n as i64).collect();
        let call = Call::inferred(operator, &[Tensor::contiguous(t, &shape)], DType::NONE, attrs).unwrap();
        let out = (operator.reference)(&call, &[x]).unwrap();
        (out[0].value.clone(), out[1].value.ints())
    }

    #[test]
    fn nan_is_greatest_and_equals_keep_their_order() {
        let x = Array::float(&[6], vec![0.0, f64::NAN, -0.0, f64::INFINITY, f64::NAN, -1.0]);
        assert_eq!(run(SORT, x.clone(), DType::F32, &[]).1, [5, 0, 2, 3, 1, 4]);
        assert_eq!(run(SORT, x.clone(), DType::F32, &[("descending", AttrValue::Int(1))]).1, [1, 4, 3, 0, 2, 5]);
        assert_eq!(run(TOPK, x, DType::F32, &[("k", AttrValue::Int(3))]).1, [1, 4, 3]);
    }

    #[test]
    fn large_integers_are_told_apart_and_k_is_bounded() {
        let x = Array::int(&[2, 2], vec![(1 << 62) + 1, 5, 1 << 62, 6]);
        let (values, indices) = run(TOPK, x, DType::I64, &[("k", AttrValue::Int(1)), ("dim", AttrValue::Int(0)), ("largest", AttrValue::Int(0))]);
        assert_eq!((values.ints(), indices), (vec![1 << 62, 5], vec![1, 0]));
        let over = Call::inferred(TOPK, &[Tensor::contiguous(DType::F32, &[3])], DType::NONE, &[("k", AttrValue::Int(4))]);
        assert!(over.unwrap_err().to_string().contains("k is 4"));
    }
}
