//! Second step: tiles of pointers or integers that a loop moves by the same amount everywhere become the first tile plus a scalar.

use std::collections::HashMap;

use crate::Elem;
use crate::tile::{Binary, Block, Cast, Function, Item, Literal, Op, OpKind, Type, Value};

/// Rewrites the loops of a function.
pub(super) fn reduce(mut function: Function) -> Function {
    let mut body = std::mem::take(&mut function.body);
    let mut definitions = HashMap::new();
    collect(&body, &mut definitions);
    rewrite(&mut function, &mut body, &definitions);
    function.body = body;
    function
}

/// What equal elements a tile has.
#[derive(Clone, Copy)]
enum Equal {
    Scalar(Value),
    Constant(Literal),
}

fn collect(block: &Block, out: &mut HashMap<Value, Equal>) {
    for op in &block.ops {
        match (&op.kind, op.results.first()) {
            (OpKind::Splat, Some(r)) => {
                out.insert(*r, Equal::Scalar(op.operands[0]));
            }
            (OpKind::Constant(l @ Literal::Int(_)), Some(r)) => {
                out.insert(*r, Equal::Constant(*l));
            }
            _ => {}
        }
        op.regions.iter().for_each(|r| collect(r, out));
    }
}

fn rewrite(f: &mut Function, block: &mut Block, definitions: &HashMap<Value, Equal>) {
    let mut out = Vec::new();
    for mut op in std::mem::take(&mut block.ops) {
        for region in &mut op.regions {
            rewrite(f, region, definitions);
        }
        let mut after = Vec::new();
        if matches!(op.kind, OpKind::For { .. }) {
            for i in 0..op.results.len() {
                carried(f, &mut op, i, definitions, &mut out, &mut after);
            }
        }
        out.push(op);
        out.append(&mut after);
    }
    block.ops = out;
}

fn make(f: &mut Function, list: &mut Vec<Op>, like: &Op, kind: OpKind, operands: Vec<Value>, ty: Type) -> Value {
    let v = f.value(ty);
    list.push(Op { kind, operands, results: vec![v], regions: Vec::new(), loc: like.loc });
    v
}

/// Carried value `i` of a loop.
fn carried(f: &mut Function, op: &mut Op, i: usize, definitions: &HashMap<Value, Equal>, before: &mut Vec<Op>, after: &mut Vec<Op>) {
    let (arg, init) = (op.regions[0].args[i + 1], op.operands[i + 3]);
    let ty = f.ty(arg).clone();
    let Some(last) = op.regions[0].ops.last() else { return };
    let next = last.operands[i];
    let Some(def) = op.regions[0].ops.iter().find(|o| o.results.contains(&next)).cloned() else { return };
    let pointer = matches!(def.kind, OpKind::AddPtr);
    let fits = pointer || matches!((&def.kind, ty.elem()), (OpKind::Binary(Binary::AddI), Some(e)) if e != Elem::I1);
    if !ty.is_tile() || !fits || def.operands[0] != arg {
        return;
    }
    let Some(by) = definitions.get(&def.operands[1]).copied() else { return };
    let step_elem = f.ty(def.operands[1]).elem().unwrap_or(Elem::I32);
    let elem = if pointer { Elem::I64 } else { step_elem };
    let scalar = Type::scalar(elem);
    let start = make(f, before, op, OpKind::Constant(Literal::Int(0)), vec![], scalar.clone());
    op.operands[i + 3] = start;
    let offset = f.value(scalar.clone());
    op.regions[0].args[i + 1] = offset;
    // The tile as before, from the scalar, under its old name.
    let place = |f: &mut Function, list: &mut Vec<Op>, offset: Value, name: Value| {
        let spread = Type::Tile(ty.shape().to_vec(), Item::Elem(elem));
        let tile = make(f, list, op, OpKind::Splat, vec![offset], spread);
        let kind = if pointer { OpKind::AddPtr } else { OpKind::Binary(Binary::AddI) };
        list.push(Op { kind, operands: vec![init, tile], results: vec![name], regions: Vec::new(), loc: op.loc });
    };
    let mut first = Vec::new();
    place(f, &mut first, offset, arg);
    let result = f.value(scalar.clone());
    place(f, after, result, op.results[i]);
    let mut grown = Vec::new();
    let step = match by {
        Equal::Constant(l) => make(f, &mut grown, op, OpKind::Constant(l), vec![], scalar.clone()),
        Equal::Scalar(s) if step_elem == elem => s,
        Equal::Scalar(s) => make(f, &mut grown, op, OpKind::Cast(Cast::ExtS), vec![s], scalar.clone()),
    };
    let sum = make(f, &mut grown, op, OpKind::Binary(Binary::AddI), vec![offset, step], scalar);
    op.results[i] = result;
    let ops = &mut op.regions[0].ops;
    if let Some(mut end) = ops.pop() {
        end.operands[i] = sum;
        ops.append(&mut grown);
        ops.push(end);
    }
    ops.splice(0..0, first);
}
