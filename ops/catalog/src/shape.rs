//! Shape rules shared by definitions.

use flagos_backend_api::{DType, Error, Result, Tensor};

use crate::{Call, TypeRule, dtypes};

/// Inferred outputs: type (`None`: the caller chooses) and shape.
pub type Inferred = Vec<(Option<DType>, Vec<i64>)>;

/// An error that names the operator.
pub fn fault(call: &Call, text: impl core::fmt::Display) -> Error {
    Error { operator: call.operator.id, ..Error::invalid(format!("{}: {text}", call.operator.name)) }
}

/// The shape of tensors broadcast together (NumPy's rule).
pub fn broadcast(call: &Call, tensors: &[Tensor]) -> Result<Vec<i64>> {
    let rank = tensors.iter().map(|t| t.rank as usize).max().unwrap_or(0);
    let mut shape = vec![1i64; rank];
    for t in tensors.iter().filter(|t| !t.is_none()) {
        let lead = rank - t.rank as usize;
        for (d, &n) in t.shape().iter().enumerate() {
            let into = &mut shape[lead + d];
            if *into == 1 {
                *into = n;
            } else if n != 1 && n != *into {
                let shapes: Vec<&[i64]> = tensors.iter().map(Tensor::shape).collect();
                return Err(fault(call, format!("shapes {shapes:?} do not broadcast: axis {d} has {n} and {into}")));
            }
        }
    }
    Ok(shape)
}

/// The strides of `t` seen with a shape it broadcasts to.
pub fn broadcast_strides(t: &Tensor, shape: &[i64]) -> Vec<i64> {
    let lead = shape.len() - t.rank as usize;
    (0..shape.len())
        .map(|d| if d < lead || t.shape[d - lead] == 1 && shape[d] != 1 { 0 } else { t.stride[d - lead] })
        .collect()
}

/// An axis in 0..rank from one that may be negative. Rank 0 counts as rank 1, as in PyTorch.
pub fn axis(call: &Call, dim: i64, rank: usize) -> Result<usize> {
    let n = rank.max(1) as i64;
    if dim < -n || dim >= n {
        return Err(fault(call, format!("dim {dim} is out of range for rank {rank}: use {} to {}", -n, n - 1)));
    }
    Ok(dim.rem_euclid(n) as usize)
}

/// Sorted axes without repetition; none given means all.
pub fn axes(call: &Call, dims: &[i64], rank: usize) -> Result<Vec<usize>> {
    if dims.is_empty() {
        return Ok((0..rank).collect());
    }
    let mut out = dims.iter().map(|d| axis(call, *d, rank)).collect::<Result<Vec<_>>>()?;
    out.sort_unstable();
    if out.windows(2).any(|w| w[0] == w[1]) {
        return Err(fault(call, format!("dims {dims:?} name an axis twice")));
    }
    out.retain(|d| *d < rank);
    Ok(out)
}

/// The shape after reducing `axes`.
pub fn reduced(shape: &[i64], axes: &[usize], keepdim: bool) -> Vec<i64> {
    let kept = |(d, n): (usize, &i64)| match (axes.contains(&d), keepdim) {
        (false, _) => Some(*n),
        (true, true) => Some(1),
        (true, false) => None,
    };
    shape.iter().enumerate().filter_map(kept).collect()
}

/// Infer rule: one output, like input 0.
pub fn same_as_first(call: &Call) -> Result<Inferred> {
    Ok(vec![(Some(call.inputs[0].dtype), call.inputs[0].shape().to_vec())])
}

/// Infer rule of rows: inputs broadcast; the type follows the output's rule.
pub fn pointwise(call: &Call) -> Result<Inferred> {
    let shape = broadcast(call, &call.inputs)?;
    let dtype = match call.operator.outputs[0].types {
        TypeRule::PromotedFloat => Some(dtypes::to_float(call.promoted())),
        TypeRule::Promoted => Some(call.promoted()),
        TypeRule::Any(set) if set == dtypes::BOOL => Some(DType::BOOL),
        _ => None,
    };
    Ok(vec![(dtype, shape)])
}

/// No checks beyond types and shapes.
pub fn no_check(_: &Call) -> Result<()> {
    Ok(())
}

/// One operation per output element.
pub fn flops_per_element(call: &Call) -> f64 {
    call.outputs.iter().map(|t| t.elems() as f64).sum()
}

/// Row-major strides.
pub fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * shape[d + 1].max(1);
    }
    strides
}

/// A shape split at an axis: (product before, extent, product after).
pub fn split(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    if shape.is_empty() {
        return (1, 1, 1);
    }
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Flat index into an array of `shape` of element `flat` of an array of shape `to` it broadcasts to.
pub fn broadcast_index(flat: usize, to: &[usize], shape: &[usize]) -> usize {
    let (mut rest, mut index, mut step) = (flat, 0, 1);
    let lead = to.len() - shape.len();
    for d in (0..to.len()).rev() {
        let i = rest % to[d];
        rest /= to[d];
        if d >= lead {
            if shape[d - lead] != 1 {
                index += i * step;
            }
            step *= shape[d - lead];
        }
    }
    index
}
