//! Softmax and its logarithm.

use flagos_backend_api::Result;

use crate::dtypes::FLOATING;
use crate::shape::{axis, same_as_first, split};
use crate::sum::Sum;
use crate::{Array, AttrValue, Attribute, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', FLOATING);
const DIM: &[Attribute] = &[Attribute::int("dim", Some(-1), -8, 7, "the axis that sums to 1")];

/// `softmax`.
pub const SOFTMAX: &Operator = &Operator {
    name: "softmax",
    id: 140,
    revision: 1,
    family: "softmax",
    aten: &["softmax.int", "_softmax", "_softmax.out"],
    onnx: "Softmax",
    inputs: &[Operand::new("x", T, "any shape")],
    outputs: &[Operand::new("y", T, "the shape of x")],
    attributes: DIM,
    infer: same_as_first,
    check: |call| axis(call, call.attrs.int("dim"), call.inputs[0].rank as usize).map(drop),
    in_place: true,
    numerics: Numerics::ForwardError,
    special: "a row holding NaN or +inf becomes NaN; all -inf becomes NaN",
    cases,
    reference: |call, x| rows(call, x, false),
    flops: |call| 5.0 * call.inputs[0].elems() as f64,
    doc: "y[i] = exp(x[i] - max x) / Σ exp(x[j] - max x), along dim.",
};

/// `log_softmax`.
pub const LOG_SOFTMAX: &Operator = &Operator {
    name: "log_softmax",
    id: 141,
    aten: &["log_softmax.int", "_log_softmax", "_log_softmax.out"],
    onnx: "LogSoftmax",
    reference: |call, x| rows(call, x, true),
    doc: "y[i] = x[i] - max x - ln Σ exp(x[j] - max x), along dim.",
    ..*SOFTMAX
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[SOFTMAX, LOG_SOFTMAX];

fn cases(c: &mut Cases) {
    let one = |shape: &[i64], layout, fill| vec![TensorCase::new(shape, layout, fill)];
    let dim = |d: i64| [("dim", AttrValue::Int(d))];
    c.add("rows", one(&[9, 67], Layout::Contiguous, Fill::Normal), &[]);
    c.add("wide-range", one(&[5, 40], Layout::Contiguous, Fill::Spread), &[]);
    c.add("columns", one(&[21, 13], Layout::Contiguous, Fill::Normal), &dim(0));
    c.add("middle", one(&[3, 8, 5], Layout::Strided, Fill::Normal), &dim(1));
    c.add("transposed", one(&[12, 30], Layout::Transposed, Fill::Normal), &[]);
    c.add("negative", one(&[4, 33], Layout::Negative, Fill::Normal), &[]);
    c.add("one", one(&[6, 1], Layout::Contiguous, Fill::Spread), &[]);
    c.add("scalar", one(&[], Layout::Contiguous, Fill::Normal), &[]);
    c.add("empty", one(&[0, 4], Layout::Contiguous, Fill::Normal), &[]);
    c.add("special", one(&[32, 5], Layout::Contiguous, Fill::Special), &[]);
    c.quick("long", one(&[3, 50_021], Layout::Contiguous, Fill::Normal), &[]);
    c.quick("many", one(&[1031, 129], Layout::Contiguous, Fill::Normal), &[]);
    c.bench("4096x4096", one(&[4096, 4096], Layout::Contiguous, Fill::Normal), &[]);
}

fn rows(call: &Call, x: &[Array], log: bool) -> Result<Vec<Reference>> {
    let dim = axis(call, call.attrs.int("dim"), x[0].shape.len())?;
    let (outer, n, inner) = split(&x[0].shape, dim);
    let v = x[0].floats();
    let (mut y, mut scale) = (vec![0.0; v.len()], vec![0.0; v.len()]);
    for o in 0..outer {
        for i in 0..inner {
            let at = |j: usize| (o * n + j) * inner + i;
            let max = (0..n).map(|j| v[at(j)]).fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
            let total = (0..n).map(|j| libm::exp(v[at(j)] - max)).collect::<Sum>().value();
            let worst = (0..n).map(|j| (v[at(j)] - max).abs()).filter(|d| *d < 100.0).fold(0.0, f64::max);
            for j in 0..n {
                let d = v[at(j)] - max;
                // exp turns the rounding of x - max, relative to |x - max|, into a relative error of the result.
                (y[at(j)], scale[at(j)]) = if log {
                    (d - libm::log(total), d.abs() + libm::log(total).abs() + 1.0)
                } else {
                    let p = libm::exp(d) / total;
                    (p, p * (2.0 + (d.abs() + worst) / 4.0))
                };
            }
        }
    }
    // Partial sums in any order: log2 n additions suffice for a tree, n for a plain loop; the latter is allowed within 16.
    let terms = 16 + (n as f64).sqrt() as usize;
    Ok(vec![Reference::scaled(Array::float(&x[0].shape, y), scale, terms)])
}
