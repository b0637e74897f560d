//! Loops and branches.

use super::{Expr, Kernel, push, region};
use crate::tile::{OpKind, Type, Value};

fn types(values: &[Expr]) -> Vec<Type> {
    values.iter().map(|e| e.ty()).collect()
}
fn ids(values: &[Expr]) -> Vec<Value> {
    values.iter().map(|e| e.0).collect()
}
fn array<const N: usize>(values: &[Value]) -> [Expr; N] {
    core::array::from_fn(|i| Expr(values[i]))
}
fn same(what: &str, wanted: &[Type], got: &[Expr]) {
    assert_eq!(wanted, types(got), "what {what} passes on");
}

impl Kernel {
    /// for i in (low..high).step_by(step), with values carried from one iteration to the next; what they are at the end.
    pub fn fold<const N: usize>(&self, low: Expr, high: Expr, step: Expr, initial: [Expr; N], body: impl FnOnce(Expr, [Expr; N]) -> [Expr; N]) -> [Expr; N] {
        let carried = types(&initial);
        let args: Vec<Type> = core::iter::once(low.ty()).chain(carried.iter().cloned()).collect();
        let block = region(&args, OpKind::Yield, |a| {
            let next = body(a[0], core::array::from_fn(|i| a[1 + i])).to_vec();
            same("a loop", &carried, &next);
            next
        });
        let operands: Vec<Value> = [low, high, step].iter().chain(&initial).map(|e| e.0).collect();
        array(&push(OpKind::For { unsigned: false }, &operands, vec![block], &carried))
    }
    /// for i in (low..high).step_by(step), for its effects.
    pub fn each(&self, low: Expr, high: Expr, step: Expr, body: impl FnOnce(Expr)) {
        self.fold(low, high, step, [], |i, []| {
            body(i);
            []
        });
    }
    /// Runs `body` if the scalar condition holds.
    pub fn when(&self, condition: Expr, body: impl FnOnce()) {
        self.choose(
            condition,
            || {
                body();
                []
            },
            || [],
        );
    }
    /// The values of one of two branches, by a scalar condition.
    pub fn choose<const N: usize>(&self, condition: Expr, then: impl FnOnce() -> [Expr; N], other: impl FnOnce() -> [Expr; N]) -> [Expr; N] {
        let mut results = Vec::new();
        let yes = region(&[], OpKind::Yield, |_| {
            let values = then().to_vec();
            results = types(&values);
            values
        });
        let mut empty = false;
        let no = region(&[], OpKind::Yield, |_| {
            let values = other().to_vec();
            same("a branch", &results, &values);
            empty = values.is_empty();
            values
        });
        let no = if empty && no.ops.len() == 1 { Default::default() } else { no };
        array(&push(OpKind::If, &[condition.0], vec![yes, no], &results))
    }
    /// While `condition` of what is carried holds, `body` makes it anew; what it is at the end.
    pub fn repeat<const N: usize>(&self, initial: [Expr; N], condition: impl FnOnce([Expr; N]) -> Expr, body: impl FnOnce([Expr; N]) -> [Expr; N]) -> [Expr; N] {
        let carried = types(&initial);
        let before = region(&carried, OpKind::Condition, |a| {
            let go = condition(core::array::from_fn(|i| a[i]));
            core::iter::once(go).chain(a.iter().copied()).collect()
        });
        let after = region(&carried, OpKind::Yield, |a| {
            let next = body(core::array::from_fn(|i| a[i])).to_vec();
            same("a loop", &carried, &next);
            next
        });
        array(&push(OpKind::While, &ids(&initial), vec![before, after], &carried))
    }
}
