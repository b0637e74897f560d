//! Folding, common subexpressions, dead code.
//!
//! Nothing here changes a result's bits: floats fold only where the operation is exactly rounded and gives a number, identities are those
//! that hold for NaNs and signed zeros, undefined results stay where they are.

mod fold;

use std::collections::HashMap;

use crate::thread::interpret::scalar;
use crate::tile::{Block, Function, Literal, Op, OpKind, Program, Type, Value, libdevice};

/// Simplifies a verified program in place; it stays valid.
pub fn simplify(program: &mut Program) {
    for function in &mut program.functions {
        let mut pass = Pass { alias: (0..function.types.len() as u32).map(Value).collect(), constant: HashMap::new(), made: HashMap::new(), seen: Vec::new() };
        let mut body = core::mem::take(&mut function.body);
        pass.block(function, &mut body);
        let mut used = vec![false; function.types.len()];
        sweep(&mut body, &mut used);
        function.body = body;
        super::renumber(function);
    }
}

/// What is known while a function is walked from its beginning.
struct Pass {
    /// By value: the value that stands for it.
    alias: Vec<Value>,
    /// Bits of the elements of values that are constant and the same everywhere.
    constant: HashMap<Value, u64>,
    /// What conversions made: kind, operand.
    made: HashMap<Value, (OpKind, Value)>,
    /// Results of what was computed, by operation, one table per open block.
    seen: Vec<HashMap<String, Vec<Value>>>,
}

/// What becomes of an operation.
enum Now {
    /// It stays, perhaps changed.
    Kept,
    /// Its only result is another value.
    Is(Value),
}

impl Pass {
    fn block(&mut self, function: &Function, block: &mut Block) {
        self.seen.push(HashMap::new());
        for op in core::mem::take(&mut block.ops) {
            self.op(function, op, &mut block.ops);
        }
        self.seen.pop();
    }

    fn resolve(&self, values: &mut [Value]) {
        values.iter_mut().for_each(|v| *v = self.alias[v.0 as usize]);
    }

    fn op(&mut self, function: &Function, mut op: Op, out: &mut Vec<Op>) {
        self.resolve(&mut op.operands);
        if op.kind == OpKind::If
            && let Some(condition) = self.constant.get(&op.operands[0])
        {
            // The branch taken stands in the place of the whole.
            let mut region = op.regions.swap_remove(usize::from(*condition == 0));
            let last = region.ops.pop();
            for inner in region.ops {
                self.op(function, inner, out);
            }
            let mut yields = last.map(|l| l.operands).unwrap_or_default();
            self.resolve(&mut yields);
            for (result, value) in op.results.iter().zip(yields) {
                self.is(*result, value);
            }
            return;
        }
        for region in &mut op.regions {
            self.block(function, region);
        }
        if let OpKind::For { .. } = op.kind {
            hoist(function, &mut op.regions[0], out);
        }
        if let OpKind::Extern(symbol) = &op.kind
            && let Some(kind) = library(function, symbol, &op)
        {
            op.kind = kind;
        }
        if let Now::Is(value) = self.fold(function, &mut op) {
            self.is(op.results[0], value);
            return;
        }
        if is_pure(&op) {
            let types: Vec<&Type> = op.results.iter().map(|v| function.ty(*v)).collect();
            let key = format!("{:?} {:?} {types:?}", op.kind, op.operands);
            if let Some(before) = self.seen.iter().find_map(|table| table.get(&key)) {
                for (result, value) in op.results.iter().zip(before.clone()) {
                    self.is(*result, value);
                }
                return;
            }
            if let Some(table) = self.seen.last_mut() {
                table.insert(key, op.results.clone());
            }
        }
        if let (OpKind::Constant(literal), Some(result)) = (&op.kind, op.results.first()) {
            let bits = match literal {
                Literal::Int(v) => *v as u64 & function.ty(*result).elem().map_or(u64::MAX, scalar::mask),
                Literal::Bits(b) => *b,
            };
            self.constant.insert(*result, bits);
        }
        if let (OpKind::Cast(_), Some(result)) = (&op.kind, op.results.first()) {
            self.made.insert(*result, (op.kind.clone(), op.operands[0]));
        }
        out.push(op);
    }

    fn is(&mut self, result: Value, value: Value) {
        self.alias[result.0 as usize] = value;
    }
}

/// The operation a library function is, if its types are what the function works on.
fn library(function: &Function, symbol: &str, op: &Op) -> Option<OpKind> {
    let ty = function.ty(*op.results.first()?);
    let fits = libdevice::fits(symbol, op.operands.len(), ty.elem()?) && op.operands.iter().all(|v| function.ty(*v) == ty);
    if fits { libdevice::operation(symbol) } else { None }
}

/// Whether an operation without regions gives the same whenever and however often it is done.
fn is_pure(op: &Op) -> bool {
    op.regions.is_empty()
        && !op.kind.has_effect()
        && !matches!(op.kind, OpKind::Load { .. } | OpKind::DescriptorLoad | OpKind::DescriptorGather | OpKind::Poison | OpKind::Extern(_))
}

/// Whether it pays to do an operation before a loop: scalars, constants, and tiles that are only indices of something.
fn is_cheap(function: &Function, op: &Op) -> bool {
    let scalar = op.results.iter().chain(&op.operands).all(|v| matches!(function.ty(*v), Type::Scalar(_)));
    let tile = matches!(op.kind, OpKind::Constant(_) | OpKind::MakeRange(_) | OpKind::Splat | OpKind::ExpandDims(_) | OpKind::Broadcast);
    is_pure(op) && (scalar || tile)
}

/// Moves what does not change in a loop before it.
fn hoist(function: &Function, body: &mut Block, out: &mut Vec<Op>) {
    let mut inside: std::collections::HashSet<Value> = body.args.iter().copied().collect();
    for op in core::mem::take(&mut body.ops) {
        if is_cheap(function, &op) && !op.operands.iter().any(|v| inside.contains(v)) {
            out.push(op);
        } else {
            inside.extend(&op.results);
            body.ops.push(op);
        }
    }
}

/// Removes operations whose results nobody uses, last to first.
fn sweep(block: &mut Block, used: &mut [bool]) {
    for op in core::mem::take(&mut block.ops).into_iter().rev() {
        let mut op = op;
        if !stays(&op) && !op.results.iter().any(|r| used[r.0 as usize]) {
            continue;
        }
        op.operands.iter().for_each(|v| used[v.0 as usize] = true);
        for region in op.regions.iter_mut().rev() {
            sweep(region, used);
        }
        block.ops.push(op);
    }
    block.ops.reverse();
}

/// Whether an operation must stay even if nobody uses its results.
fn stays(op: &Op) -> bool {
    match op.kind {
        // A loop with branches as its end may run for ever; others and branches are as good as what stands in them.
        OpKind::For { .. } | OpKind::If => op.regions.iter().flat_map(|r| &r.ops).any(|o| o.kind != OpKind::Yield && stays(o)),
        OpKind::Reduce(_) | OpKind::Scan { .. } | OpKind::MapElementwise(_) => false,
        _ => op.kind.has_effect(),
    }
}
