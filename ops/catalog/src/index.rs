//! Gathering and scattering by index tensors.

use flagos_backend_api::{Result, Tensor};

use crate::copy::gather as pick;
use crate::dtypes::{ANY, FLOATING, INDEX, NUMBER};
use crate::shape::{Inferred, axis, contiguous_strides, fault, same_as_first, split};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Data, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', ANY);
const N: TypeRule = TypeRule::Same('T', NUMBER);
const F: TypeRule = TypeRule::Same('T', FLOATING);
const I: TypeRule = TypeRule::Any(INDEX);
const DIM: Attribute = Attribute::int("dim", None, -8, 7, "the axis the indices are along");
const SPECIAL: &str = "bits are kept; an index outside of 0..extent, negative ones included, is the caller's error: \
                       no memory outside is touched, the elements concerned are unspecified";

/// `gather`.
pub const GATHER: &Operator = &Operator {
    name: "gather",
    id: 170,
    revision: 1,
    family: "index",
    aten: &["gather", "gather.out"],
    onnx: "GatherElements",
    inputs: &[Operand::new("x", T, "any shape"), Operand::new("index", I, "x's rank; no extent beyond x's but along dim")],
    outputs: &[Operand::new("y", T, "the shape of index")],
    attributes: &[DIM],
    infer: |call| Ok(vec![(Some(call.inputs[0].dtype), call.inputs[1].shape().to_vec())]),
    check: |call| {
        let (x, index) = (&call.inputs[0], &call.inputs[1]);
        let dim = dim(call)?;
        fits(call, index, x, "x", Some(dim))?;
        not_empty(call, x, dim, index)
    },
    in_place: false,
    numerics: Numerics::Exact,
    special: SPECIAL,
    cases: gather_cases,
    reference: |call, x| {
        let sources = targets(call, &x[1], &x[0].shape, Some(dim(call)?))?;
        Ok(vec![Reference::exact(pick(&x[0], &x[1].shape, |flat| sources[flat]))])
    },
    flops: |_| 0.0,
    doc: "y[i, j, k] = x[i, index[i, j, k], k] for dim = 1, and likewise for other axes and ranks.",
};

/// `scatter_add`.
pub const SCATTER_ADD: &Operator = &Operator {
    name: "scatter_add",
    id: 171,
    aten: &["scatter_add", "scatter_add_", "scatter_add.out"],
    onnx: "ScatterElements",
    inputs: &[
        Operand::new("x", N, "any shape"),
        Operand::new("index", I, "x's rank; no extent beyond src's, nor beyond x's but along dim"),
        Operand::new("src", N, "x's rank; elements that no index belongs to are ignored"),
    ],
    outputs: &[Operand::new("y", N, "the shape of x")],
    infer: same_as_first,
    check: |call| {
        let (x, index, src) = (&call.inputs[0], &call.inputs[1], &call.inputs[2]);
        let dim = dim(call)?;
        fits(call, index, x, "x", Some(dim))?;
        fits(call, index, src, "src", None)?;
        not_empty(call, x, dim, index)
    },
    in_place: true,
    numerics: Numerics::ForwardError,
    special: "elements named twice are added twice, in any order; integers wrap; an index outside of 0..extent, negative \
              ones included, is the caller's error: no memory outside is touched, the elements concerned are unspecified",
    cases: scatter_cases,
    reference: scatter_add,
    flops: |call| call.inputs[1].elems() as f64,
    doc: "y = x, then y[i, index[i, j, k], k] += src[i, j, k] for dim = 1, and likewise for other axes and ranks. \
          Accumulated in f32 for narrower floats.",
    ..*GATHER
};

/// `index_select`.
pub const INDEX_SELECT: &Operator = &Operator {
    name: "index_select",
    id: 172,
    aten: &["index_select", "index_select.out"],
    onnx: "Gather",
    inputs: &[Operand::new("x", T, "rank 1 or more"), Operand::new("index", I, "[n]")],
    outputs: &[Operand::new("y", T, "x's shape with n in place of the extent along dim")],
    infer: infer_index_select,
    check: |call| {
        let (x, index) = (&call.inputs[0], &call.inputs[1]);
        not_empty(call, x, dim(call)?, index)
    },
    cases: select_cases,
    reference: |call, x| {
        let dim = dim(call)?;
        select(call, &x[0], &x[1], dim, shape_of(&infer_index_select(call)?[0].1))
    },
    doc: "y[i, j, k] = x[i, index[j], k] for dim = 1, and likewise for other axes and ranks.",
    ..*GATHER
};

/// `embedding`.
pub const EMBEDDING: &Operator = &Operator {
    name: "embedding",
    id: 173,
    aten: &["embedding", "embedding.out"],
    onnx: "",
    inputs: &[Operand::new("weight", F, "[V, D], a row for each word"), Operand::new("index", I, "any shape, rank 7 at most")],
    outputs: &[Operand::new("y", F, "index's shape, then D")],
    attributes: &[Attribute::int("padding_idx", Some(-1), -1, i64::MAX, "row whose gradient is 0; no effect forward; -1: none")],
    infer: infer_embedding,
    check: |call| not_empty(call, &call.inputs[0], 0, &call.inputs[1]),
    cases: embedding_cases,
    reference: |call, x| select(call, &x[0], &x[1], 0, shape_of(&infer_embedding(call)?[0].1)),
    doc: "y[i, …] = weight[index[i, …]], row by row.",
    ..*GATHER
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[GATHER, SCATTER_ADD, INDEX_SELECT, EMBEDDING];

fn dim(call: &Call) -> Result<usize> {
    axis(call, call.attrs.int("dim"), call.inputs[0].rank as usize)
}

/// `index` has the rank of `of` and stays within its extents but along `free`.
fn fits(call: &Call, index: &Tensor, of: &Tensor, name: &str, free: Option<usize>) -> Result<()> {
    let within = index.rank == of.rank && (0..index.rank as usize).all(|d| Some(d) == free || index.shape[d] <= of.shape[d]);
    if within {
        return Ok(());
    }
    let but = free.map_or(String::new(), |d| format!(" but along axis {d}"));
    Err(fault(call, format!("index of shape {:?} does not fit within {name}'s {:?}{but}", index.shape(), of.shape())).at(1))
}

fn not_empty(call: &Call, x: &Tensor, dim: usize, index: &Tensor) -> Result<()> {
    if index.elems() > 0 && x.shape().get(dim) == Some(&0) {
        return Err(fault(call, format!("axis {dim} of shape {:?} has no elements for indices to name", x.shape())));
    }
    Ok(())
}

fn infer_index_select(call: &Call) -> Result<Inferred> {
    let (x, index) = (&call.inputs[0], &call.inputs[1]);
    if x.rank == 0 || index.rank != 1 {
        return Err(fault(call, format!("x of rank {} and index of rank {}: they need rank 1 or more, and 1", x.rank, index.rank)));
    }
    let mut shape = x.shape().to_vec();
    shape[dim(call)?] = index.shape[0];
    Ok(vec![(Some(x.dtype), shape)])
}

fn infer_embedding(call: &Call) -> Result<Inferred> {
    let (weight, index) = (&call.inputs[0], &call.inputs[1]);
    if weight.rank != 2 || index.rank > 7 {
        return Err(fault(call, format!("weight of rank {} and index of rank {}: they need rank 2, and 7 at most", weight.rank, index.rank)));
    }
    Ok(vec![(Some(weight.dtype), [index.shape(), &weight.shape()[1..]].concat())])
}

fn shape_of(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|n| *n as usize).collect()
}

fn indices(upto: i64) -> Fill {
    Fill::Ints(0, upto - 1)
}

/// Name, shapes of x and index, dim, layout.
type Pair = (&'static str, &'static [i64], &'static [i64], i64, Layout);

/// Cases of both gather and scatter.
const PAIRS: &[Pair] = &[
    ("rows", &[37, 21], &[50, 21], 0, Layout::Contiguous),
    ("columns", &[9, 40], &[9, 65], 1, Layout::Contiguous),
    ("fewer", &[8, 30, 6], &[5, 11, 4], -2, Layout::Contiguous),
    ("strided", &[4, 9, 7], &[4, 5, 7], 1, Layout::Strided),
    ("transposed", &[17, 33], &[17, 20], 1, Layout::Transposed),
    ("offset", &[129], &[64], 0, Layout::Offset),
    ("negative", &[5, 31], &[5, 12], -1, Layout::Negative),
    ("collisions", &[3], &[700], 0, Layout::Contiguous),
    ("scalar", &[], &[], 0, Layout::Contiguous),
    ("no-index", &[4, 6], &[4, 0], 1, Layout::Contiguous),
    ("rank8", &[1, 2, 1, 3, 2, 1, 2, 3], &[1, 2, 1, 4, 2, 1, 2, 3], 3, Layout::Contiguous),
];

fn along(dim: i64) -> [(&'static str, AttrValue); 1] {
    [("dim", AttrValue::Int(dim))]
}

fn extent(shape: &[i64], dim: i64) -> i64 {
    if shape.is_empty() { 1 } else { shape[dim.rem_euclid(shape.len() as i64) as usize] }
}

fn gather_cases(c: &mut Cases) {
    let pair = |x: &[i64], index: &[i64], dim, layout, fill| {
        vec![TensorCase::new(x, layout, fill), TensorCase::new(index, layout, indices(extent(x, dim)))]
    };
    for (name, x, index, dim, layout) in PAIRS {
        c.add(name, pair(x, index, *dim, *layout, Fill::Spread), &along(*dim));
    }
    c.add("special", pair(&[200, 3], &[300, 3], 0, Layout::Contiguous, Fill::Special), &along(0));
    let mut permuted = pair(&[6, 50], &[6, 50], 1, Layout::Contiguous, Fill::Spread);
    permuted[1] = TensorCase::new(&[6, 50], Layout::Transposed, Fill::Permutation);
    c.add("permutation", permuted, &along(1));
    c.quick("large", pair(&[1009, 257], &[1009, 129], 1, Layout::Contiguous, Fill::Spread), &along(1));
    c.bench("4096x4096-dim1", pair(&[4096, 4096], &[4096, 4096], 1, Layout::Contiguous, Fill::Spread), &along(1));
}

fn scatter_cases(c: &mut Cases) {
    let triple = |x: &[i64], index: &[i64], src: &[i64], dim, layout, fill| {
        vec![TensorCase::new(x, layout, fill), TensorCase::new(index, layout, indices(extent(x, dim))), TensorCase::new(src, layout, fill)]
    };
    for (name, x, index, dim, layout) in PAIRS {
        c.add(name, triple(x, index, index, *dim, *layout, Fill::Spread), &along(*dim));
    }
    c.add("more-src", triple(&[20, 9], &[7, 8], &[11, 12], 0, Layout::Contiguous, Fill::Spread), &along(0));
    let special = Fill::Among(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    c.add("special", triple(&[40, 3], &[90, 3], &[90, 3], 0, Layout::Contiguous, special), &along(0));
    c.quick("large", triple(&[509, 129], &[5003, 129], &[5003, 129], 0, Layout::Contiguous, Fill::Spread), &along(0));
    c.bench("4096x4096-dim1", triple(&[4096, 4096], &[4096, 4096], &[4096, 4096], 1, Layout::Contiguous, Fill::Spread), &along(1));
}

fn select_cases(c: &mut Cases) {
    let pair = |x: &[i64], n, dim, layout, fill| vec![TensorCase::new(x, layout, fill), TensorCase::new(&[n], layout, indices(extent(x, dim)))];
    for (name, x, n, dim, layout) in [
        ("rows", &[37, 21][..], 50, 0, Layout::Contiguous),
        ("columns", &[9, 40], 17, -1, Layout::Contiguous),
        ("middle", &[4, 9, 7], 12, 1, Layout::Strided),
        ("transposed", &[17, 33], 20, 0, Layout::Transposed),
        ("offset", &[5, 12], 9, 1, Layout::Offset),
        ("negative", &[5, 31], 8, 0, Layout::Negative),
        ("flat", &[100], 257, 0, Layout::Contiguous),
        ("no-index", &[4, 6], 0, 1, Layout::Contiguous),
        ("empty", &[4, 0], 3, 0, Layout::Contiguous),
        ("rank8", &[1, 2, 1, 3, 2, 1, 2, 3], 5, 3, Layout::Contiguous),
    ] {
        c.add(name, pair(x, n, dim, layout, Fill::Spread), &along(dim));
    }
    c.add("special", pair(&[64, 5], 99, 0, Layout::Contiguous, Fill::Special), &along(0));
    c.quick("large", pair(&[2003, 129], 3001, 0, Layout::Contiguous, Fill::Spread), &along(0));
    c.bench("4096x4096-dim0", pair(&[4096, 4096], 4096, 0, Layout::Contiguous, Fill::Spread), &along(0));
}

fn embedding_cases(c: &mut Cases) {
    let pair = |v, d, index: &[i64], layout, fill| vec![TensorCase::new(&[v, d], layout, fill), TensorCase::new(index, layout, indices(v))];
    c.add("tokens", pair(50, 24, &[3, 17], Layout::Contiguous, Fill::Normal), &[]);
    c.add("padding", pair(20, 8, &[40], Layout::Contiguous, Fill::Normal), &[("padding_idx", AttrValue::Int(3))]);
    c.add("strided", pair(19, 7, &[4, 5], Layout::Strided, Fill::Normal), &[]);
    c.add("transposed", pair(33, 18, &[6, 3], Layout::Transposed, Fill::Normal), &[]);
    c.add("offset", pair(11, 16, &[9], Layout::Offset, Fill::Normal), &[]);
    c.add("negative", pair(12, 10, &[7], Layout::Negative, Fill::Normal), &[]);
    c.add("one-token", pair(9, 33, &[], Layout::Contiguous, Fill::Normal), &[]);
    c.add("no-token", pair(9, 33, &[0, 2], Layout::Contiguous, Fill::Normal), &[]);
    c.add("special", pair(40, 5, &[60], Layout::Contiguous, Fill::Special), &[]);
    c.quick("large", pair(3001, 128, &[7, 501], Layout::Contiguous, Fill::Normal), &[]);
    c.bench("32000x4096-8192", pair(32_000, 4096, &[8192], Layout::Contiguous, Fill::Normal), &[]);
}

fn position(call: &Call, index: i128, extent: usize) -> Result<usize> {
    let inside = usize::try_from(index).ok().filter(|i| *i < extent);
    inside.ok_or_else(|| fault(call, format!("index {index} is outside of 0..{extent}")).at(1))
}

/// For each element of `index`, in order, its place in an array of `shape`: its own coordinates, but for the index itself along `dim`.
fn targets(call: &Call, index: &Array, shape: &[usize], dim: Option<usize>) -> Result<Vec<usize>> {
    let (own, strides) = (contiguous_strides(&index.shape), contiguous_strides(shape));
    let place = |(flat, v): (usize, &i128)| {
        let mut at = 0;
        if shape.is_empty() && dim.is_some() {
            position(call, *v, 1)?;
        }
        for d in 0..shape.len() {
            at += strides[d] * if Some(d) == dim { position(call, *v, shape[d])? } else { flat / own[d] % index.shape[d] };
        }
        Ok(at)
    };
    index.ints().iter().enumerate().map(place).collect()
}

fn select(call: &Call, x: &Array, index: &Array, dim: usize, shape: Vec<usize>) -> Result<Vec<Reference>> {
    let (_, extent, inner) = split(&x.shape, dim);
    let chosen = index.ints().iter().map(|i| position(call, *i, extent)).collect::<Result<Vec<_>>>()?;
    let source = |flat: usize| {
        let (run, i) = (flat / inner, flat % inner);
        (run / chosen.len() * extent + chosen[run % chosen.len()]) * inner + i
    };
    Ok(vec![Reference::exact(pick(x, &shape, source))])
}

fn scatter_add(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = x[0].shape.clone();
    let to = targets(call, &x[1], &shape, Some(dim(call)?))?;
    let from = targets(call, &x[1], &x[2].shape, None)?;
    if let (Data::Int(v), Data::Int(src)) = (&x[0].data, &x[2].data) {
        let mut y = v.clone();
        to.iter().zip(from).for_each(|(t, f)| y[*t] += src[f]);
        return Ok(vec![Reference::exact(Array::int(&shape, y))]);
    }
    let (v, src) = (x[0].floats(), x[2].floats());
    let mut sums: Vec<Sum> = v.iter().map(|x| [*x].into_iter().collect()).collect();
    let (mut scale, mut added) = (v.iter().map(|x| x.abs()).collect::<Vec<f64>>(), vec![0usize; v.len()]);
    for (t, f) in to.into_iter().zip(from) {
        sums[t].add(src[f]);
        scale[t] += src[f].abs();
        added[t] += 1;
    }
    let terms = added.into_iter().max().unwrap_or(0);
    Ok(vec![Reference::scaled(Array::float(&shape, sums.into_iter().map(Sum::value).collect()), scale, terms)])
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::DType;

    use super::*;

    fn scatter(x: &[i64], index: &[i64], src: &[i64], indices: &[i128]) -> Result<Vec<Reference>> {
        let t = |d, shape: &[i64]| Tensor::contiguous(d, shape);
        let inputs = [t(DType::I8, x), t(DType::I64, index), t(DType::I8, src)];
        let call = Call::inferred(SCATTER_ADD, &inputs, DType::NONE, &along(0))?;
        let ones = |shape: &[i64]| Array::int(&shape_of(shape), vec![1; shape.iter().product::<i64>() as usize]);
        (call.operator.reference)(&call, &[ones(x), Array::int(&shape_of(index), indices.to_vec()), ones(src)])
    }

    #[test]
    fn duplicates_add_up_and_surplus_sources_do_not() {
        let y = scatter(&[3, 2], &[2, 1], &[4, 2], &[2, 2]).unwrap();
        assert_eq!(y[0].value.ints(), [1, 1, 1, 1, 3, 1]);
    }

    #[test]
    fn indices_outside_and_misfits_are_errors() {
        assert!(scatter(&[3], &[1], &[1], &[3]).is_err() && scatter(&[3], &[1], &[1], &[-1]).is_err());
        assert!(scatter(&[3, 2], &[1, 3], &[1, 3], &[0; 3]).is_err() && scatter(&[3], &[2], &[1], &[0; 2]).is_err());
        assert!(scatter(&[0], &[1], &[1], &[0]).is_err() && scatter(&[], &[], &[], &[1]).is_err());
    }
}
