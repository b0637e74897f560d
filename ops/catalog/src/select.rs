//! Selection by a condition.

use flagos_backend_api::Result;

use crate::dtypes::{ANY, BOOL};
use crate::shape::{broadcast, broadcast_index, flops_per_element, no_check};
use crate::{Array, Call, Cases, Data, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

/// `where`.
pub const WHERE: &Operator = &Operator {
    name: "where",
    id: 100,
    revision: 1,
    family: "select",
    aten: &["where.self", "where.self_out", "where.ScalarSelf", "where.ScalarOther"],
    onnx: "Where",
    inputs: &[
        Operand::new("condition", TypeRule::Any(BOOL), "any shape that broadcasts"),
        Operand::new("a", TypeRule::Promote(ANY), "any shape that broadcasts"),
        Operand::new("b", TypeRule::Promote(ANY), "any shape that broadcasts"),
    ],
    outputs: &[Operand::new("y", TypeRule::Promoted, "the broadcast shape")],
    attributes: &[],
    infer: |call| Ok(vec![(Some(call.promoted()), broadcast(call, &call.inputs)?)]),
    check: no_check,
    in_place: false,
    numerics: Numerics::Exact,
    special: "values are passed on bit for bit, but for promotion",
    cases,
    reference,
    flops: flops_per_element,
    doc: "y = condition ? a : b, element by element, with broadcasting; a and b are promoted to one type.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[WHERE];

fn cases(c: &mut Cases) {
    let triple = |shape: &[i64], layout| {
        vec![
            TensorCase::new(shape, layout, Fill::Ints(0, 1)),
            TensorCase::new(shape, layout, Fill::Spread),
            TensorCase::new(shape, layout, Fill::Spread),
        ]
    };
    c.add("flat", triple(&[513], Layout::Contiguous), &[]);
    c.add("transposed", triple(&[19, 33], Layout::Transposed), &[]);
    c.add("strided", triple(&[3, 5, 8], Layout::Strided), &[]);
    c.add("empty", triple(&[0, 4], Layout::Contiguous), &[]);
    c.add("scalar", triple(&[], Layout::Contiguous), &[]);
    let mut mixed = triple(&[6, 1, 9], Layout::Contiguous);
    mixed[1] = TensorCase::new(&[7, 1], Layout::Offset, Fill::Special);
    mixed[2] = TensorCase::new(&[], Layout::Contiguous, Fill::Normal);
    c.add("broadcast", mixed, &[]);
    c.quick("large", triple(&[100_003], Layout::Contiguous), &[]);
    c.bench("16M", triple(&[1 << 24], Layout::Contiguous), &[]);
}

fn reference(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape: Vec<usize> = broadcast(call, &call.inputs)?.iter().map(|n| *n as usize).collect();
    let n: usize = shape.iter().product();
    let condition = x[0].ints();
    let pick = |flat: usize| {
        let from = if condition[broadcast_index(flat, &shape, &x[0].shape)] != 0 { 1 } else { 2 };
        (from, broadcast_index(flat, &shape, &x[from].shape))
    };
    let to = call.promoted();
    let data = if to.is_float() {
        let columns = [vec![], x[1].converted(to), x[2].converted(to)];
        Data::Float((0..n).map(pick).map(|(from, at)| columns[from][at]).collect())
    } else {
        let columns = [vec![], x[1].ints(), x[2].ints()];
        Data::Int((0..n).map(pick).map(|(from, at)| columns[from][at]).collect())
    };
    Ok(vec![Reference::exact(Array { shape, data })])
}
