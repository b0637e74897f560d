//! mm, bmm, matmul and addmm as products of cuBLASLt, for layouts it can address.

use flagos_backend_api::{DType, Error, Result, Tensor};
use flagos_catalog::{Call, matmul};

use crate::product::{Addend, Shape, Side, Turn};

/// A product and where its operands are among the bindings.
#[derive(Debug)]
pub struct Planned {
    /// The product, column-major.
    pub shape: Shape,
    /// Bindings of A, B and the output.
    pub operands: [usize; 3],
    /// Binding of what is added, where it is not the output.
    pub added: Option<usize>,
    /// Factors.
    pub factors: (f64, f64),
}

/// A matrix whose elements lie on a grid with one step of 1: its leading dimension, and whether it is row-major.
fn grid(rows: i64, columns: i64, down: i64, along: i64) -> Option<(i64, bool)> {
    let fits = |unit: i64, n: i64, step: i64, across: i64| (n == 1 || unit == 1) && (across == 1 || step >= n.max(1));
    if fits(along, columns, down, rows) {
        return Some((if rows == 1 { columns.max(1) } else { down }, true));
    }
    fits(down, rows, along, columns).then(|| (if columns == 1 { rows.max(1) } else { along }, false))
}

fn no(what: &str) -> Error {
    Error::unimplemented(format!("{what}; the portable kernel takes it"))
}

/// Leading axes as one: extent and strides in each of the tensors; `None` when they do not join.
fn leading(extents: &[i64], strides: &[Vec<i64>; 3]) -> Option<(i64, [i64; 3])> {
    let (mut extent, mut step) = (1i64, [0i64; 3]);
    for (axis, n) in extents.iter().enumerate().rev().filter(|(_, n)| **n != 1) {
        let here = [0, 1, 2].map(|t| strides[t][axis]);
        if extent == 1 {
            step = here;
        } else if (0..3).any(|t| here[t] != step[t] * extent) {
            return None;
        }
        extent *= n;
    }
    Some((extent, step))
}

/// Strides of a tensor's leading axes within the broadcast ones.
fn broadcast(t: &Tensor, own: usize, lead: usize) -> Vec<i64> {
    let mut list = vec![0; lead - own];
    list.extend((0..own).map(|d| if t.shape[d] == 1 { 0 } else { t.stride[d] }));
    list
}

/// The product of a checked call.
///
/// # Errors
/// UNIMPLEMENTED for types and layouts cuBLASLt does not take.
pub fn plan(call: &Call) -> Result<Planned> {
    let fused = call.operator.id == matmul::ADDMM.id;
    let first = usize::from(fused);
    let (a, b, y) = (&call.inputs[first], &call.inputs[first + 1], &call.outputs[0]);
    if ![DType::F16, DType::BF16, DType::F32, DType::F64].contains(&a.dtype) {
        return Err(no("a type cuBLASLt is not used for"));
    }
    if a.elems() == 0 || b.elems() == 0 || y.elems() == 0 {
        return Err(no("a product without elements or terms"));
    }
    // A vector is a row (a) or a column (b).
    let tail = |t: &Tensor| {
        let r = t.rank as usize;
        (r.saturating_sub(2), t.shape().get(r.wrapping_sub(2)).copied(), t.shape[r - 1], t.stride().get(r.wrapping_sub(2)).copied(), t.stride[r - 1])
    };
    let (a_lead, m, k, a_down, a_along) = tail(a);
    let (b_lead, b_rows, n, b_down, b_along) = tail(b);
    let (m, a_down) = (m.unwrap_or(1), a_down.unwrap_or(1));
    let (n, b_down, b_along) = if b_rows.is_some() { (n, b_down.unwrap_or(1), b_along) } else { (1, b_along, 1) };
    let lead = y.rank as usize - usize::from(a.rank > 1) - usize::from(b.rank > 1);
    let last = |d: usize| y.stride().get(d).copied().unwrap_or(1);
    let (y_down, y_along) = match (a.rank > 1, b.rank > 1) {
        (true, true) => (last(lead), last(lead + 1)),
        (true, false) => (last(lead), 1),
        (false, _) => (1, last(lead)),
    };
    let strides = [broadcast(a, a_lead, lead), broadcast(b, b_lead, lead), y.stride()[..lead].to_vec()];
    let (batch, [a_step, b_step, y_step]) = leading(&y.shape()[..lead], &strides).ok_or_else(|| no("leading axes that do not join into one"))?;
    let far = |what: &str| no(&format!("{what} with strides that are no leading dimension"));
    let (a_ld, a_row) = grid(m, k, a_down, a_along).ok_or_else(|| far("a"))?;
    let (b_ld, b_row) = grid(k, n, b_down, b_along).ok_or_else(|| far("b"))?;
    let (y_ld, y_row) = grid(m, n, y_down, y_along).ok_or_else(|| far("y"))?;
    if [a_step, b_step, y_step].iter().any(|s| *s < 0) || (batch > 1 && y_step == 0) || batch > i64::from(i32::MAX) {
        return Err(no("steps between matrices that are negative, or too many matrices"));
    }
    let (alpha, beta) = if fused { (call.attrs.number_at(0).0, call.attrs.number_at(1).0) } else { (1.0, 0.0) };
    if alpha == 0.0 {
        return Err(no("alpha = 0"));
    }
    let (addend, added) = if fused && beta != 0.0 { added(&call.inputs[0], y, y_row, beta)? } else { (Addend::Output, None) };
    // cuBLASLt is column-major: a row-major operand is a transposed one, a row-major result is the transposed product.
    let side = |ld, stride, turned: bool| Side { ld, stride, turn: if turned { Turn::Transposed } else { Turn::None } };
    let (left, right) = (side(a_ld, a_step, a_row != y_row), side(b_ld, b_step, b_row != y_row));
    let ((m, n), (l, r), order) = if y_row { ((n, m), (right, left), [first + 1, first]) } else { ((m, n), (left, right), [first, first + 1]) };
    let shape = Shape { input: a.dtype, output: y.dtype, m, n, k, batch, a: l, b: r, c: (y_ld, y_step), addend };
    Ok(Planned { shape, operands: [order[0], order[1], call.inputs.len()], added, factors: (alpha, beta) })
}

/// How c of addmm takes part, on a result that is row-major or not.
fn added(c: &Tensor, y: &Tensor, y_row: bool, beta: f64) -> Result<(Addend, Option<usize>)> {
    if c.shape() == y.shape()
        && let Some((ld, row)) = grid(y.shape[0], y.shape[1], c.stride[0], c.stride[1])
        && (row == y_row || y.shape[0] == 1 || y.shape[1] == 1)
    {
        let ld = if row == y_row { ld } else if y_row { y.shape[1] } else { y.shape[0] };
        let steps = c.stride[..2].iter().zip(&c.shape[..2]).all(|(s, n)| *n == 1 || *s == 1);
        if row == y_row || steps {
            return Ok((Addend::Matrix(ld, 0), Some(0)));
        }
    }
    // A row added to every row of a row-major result: to cuBLASLt a column, its bias.
    let columns = c.shape().last().copied().unwrap_or(0);
    let flat = c.rank == 1 || (c.rank == 2 && c.shape[0] == 1);
    let halves = y.dtype != DType::F64;
    if y_row && halves && beta == 1.0 && flat && columns == y.shape[1] && (columns == 1 || c.stride[c.rank as usize - 1] == 1) {
        return Ok((Addend::Bias, Some(0)));
    }
    Err(no("an addend that is neither a matrix in y's layout nor a bias with beta = 1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_catalog::AttrValue;

    fn call(op: &'static flagos_catalog::Operator, inputs: &[Tensor], out: Tensor, attrs: &[(&str, AttrValue)]) -> Call {
        let call = Call::new(op, inputs, &[out], attrs).unwrap();
        call.check().unwrap();
        call
    }
    fn full(shape: &[i64]) -> Tensor {
        Tensor::contiguous(DType::F16, shape)
    }

    #[test]
    fn row_major_results_turn_the_product() {
        let p = plan(&call(matmul::MM, &[full(&[7, 13]), full(&[13, 9])], full(&[7, 9]), &[])).unwrap();
        assert_eq!((p.shape.m, p.shape.n, p.shape.k, p.shape.c.0, p.operands), (9, 7, 13, 9, [1, 0, 2]));
        assert_eq!((p.shape.a.ld, p.shape.a.turn, p.shape.b.ld, p.shape.b.turn), (9, Turn::None, 13, Turn::None));
        let bt = Tensor::strided(DType::F16, &[13, 9], &[1, 13]);
        let p = plan(&call(matmul::MM, &[full(&[7, 13]), bt], full(&[7, 9]), &[])).unwrap();
        assert_eq!((p.shape.a.ld, p.shape.a.turn), (13, Turn::Transposed));
    }

    #[test]
    fn batches_join_or_are_left_to_others() {
        let p = plan(&call(matmul::MATMUL, &[full(&[2, 3, 5, 7]), full(&[7, 4])], full(&[2, 3, 5, 4]), &[])).unwrap();
        assert_eq!((p.shape.batch, p.shape.b.stride, p.shape.a.stride, p.shape.c.1), (6, 35, 0, 20));
        let refused = plan(&call(matmul::MATMUL, &[full(&[2, 1, 5, 7]), full(&[3, 7, 4])], full(&[2, 3, 5, 4]), &[])).unwrap_err();
        assert_eq!(refused.code, flagos_backend_api::Code::UNIMPLEMENTED);
        let odd = Tensor::strided(DType::F16, &[7, 13], &[-13, 1]);
        assert!(plan(&call(matmul::MM, &[odd, full(&[13, 9])], full(&[7, 9]), &[])).is_err());
    }

    #[test]
    fn a_bias_is_an_epilogue_and_a_matrix_an_addend() {
        let bias = plan(&call(matmul::ADDMM, &[full(&[9]), full(&[7, 13]), full(&[13, 9])], full(&[7, 9]), &[])).unwrap();
        assert_eq!((bias.shape.addend, bias.added, bias.operands), (Addend::Bias, Some(0), [2, 1, 3]));
        let c = plan(&call(matmul::ADDMM, &[full(&[7, 9]), full(&[7, 13]), full(&[13, 9])], full(&[7, 9]), &[("beta", AttrValue::Float(2.0))])).unwrap();
        assert_eq!((c.shape.addend, c.factors), (Addend::Matrix(9, 0), (1.0, 2.0)));
        let twice = call(matmul::ADDMM, &[full(&[9]), full(&[7, 13]), full(&[13, 9])], full(&[7, 9]), &[("beta", AttrValue::Float(2.0))]);
        assert!(plan(&twice).is_err());
    }
}
