//! Values numbered in the order of the text, so that equal programs compare equal.

use crate::tile::{Block, Function, OpKind, Value};

/// Numbers the values of a function in the order in which its text defines them (arguments, then by operation: arguments of its regions
/// and what they define, then results), drops values nothing defines, and empties the else of an `if` that only yields nothing.
pub fn renumber(function: &mut Function) {
    let mut order = Vec::with_capacity(function.types.len());
    define(&mut function.body, &mut order);
    let mut new = vec![Value(u32::MAX); function.types.len()];
    let mut types = Vec::with_capacity(order.len());
    for value in order {
        if let Some(slot) = new.get_mut(value.0 as usize).filter(|s| s.0 == u32::MAX) {
            *slot = Value(types.len() as u32);
            types.push(function.types[value.0 as usize].clone());
        }
    }
    rename(&mut function.body, &new);
    function.types = types;
}

fn define(block: &mut Block, order: &mut Vec<Value>) {
    order.extend(&block.args);
    for op in &mut block.ops {
        if op.kind == OpKind::If
            && op.results.is_empty()
            && let Some(other) = op.regions.get_mut(1)
            && matches!(other.ops.as_slice(), [last] if last.kind == OpKind::Yield && last.operands.is_empty())
        {
            other.ops.clear();
        }
        for region in &mut op.regions {
            define(region, order);
        }
        order.extend(&op.results);
    }
}

fn rename(block: &mut Block, new: &[Value]) {
    let rename_all = |values: &mut Vec<Value>| values.iter_mut().for_each(|v| *v = new.get(v.0 as usize).copied().unwrap_or(*v));
    rename_all(&mut block.args);
    for op in &mut block.ops {
        rename_all(&mut op.operands);
        rename_all(&mut op.results);
        op.regions.iter_mut().for_each(|r| rename(r, new));
    }
}
