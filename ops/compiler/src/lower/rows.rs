//! Products whose rows had better stay in one subgroup: those whose rows are reduced, and those on both ends of a product of a product.

use std::collections::{HashMap, HashSet};

use crate::tile::{Block, Function, Op, OpKind, Value};

/// What follows from products by operations on single elements.
struct Found<'a> {
    /// The products (their results) that a value is made of, where it is made of any.
    from: HashMap<Value, HashSet<Value>>,
    rows: HashSet<Value>,
    function: &'a Function,
}

/// The results of such products.
pub(super) fn rows(function: &Function) -> HashSet<Value> {
    let mut found = Found { from: HashMap::new(), rows: HashSet::new(), function };
    found.block(&function.body);
    found.rows
}

/// Whether an operation's result has the place of its operands, element by element.
pub(super) fn elementwise(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Fma | OpKind::CmpI(_) | OpKind::CmpF(_) | OpKind::Select | OpKind::Clamp { .. } | OpKind::Cast(_)
            | OpKind::Extern(_)
    )
}

impl Found<'_> {
    fn block(&mut self, block: &Block) {
        for op in &block.ops {
            op.regions.iter().for_each(|r| self.block(r));
            self.op(op);
        }
    }

    fn op(&mut self, op: &Op) {
        let made = |found: &Self, v: &Value| found.from.get(v).cloned().unwrap_or_default();
        match &op.kind {
            OpKind::Dot { .. } => {
                let left = made(self, &op.operands[0]);
                if !left.is_empty() {
                    self.rows.extend(left.iter().chain(&op.results));
                }
                self.from.extend(op.results.iter().map(|r| (*r, HashSet::from([*r]))));
            }
            OpKind::Reduce(axis) => {
                for v in &op.operands {
                    if *axis as usize + 1 == self.function.ty(*v).shape().len() {
                        self.rows.extend(made(self, v));
                    }
                }
            }
            OpKind::If => {
                for (i, r) in op.results.iter().enumerate() {
                    let yields = op.regions.iter().filter_map(|region| region.ops.last()?.operands.get(i));
                    let all: HashSet<Value> = yields.flat_map(|v| made(self, v)).collect();
                    self.from.insert(*r, all);
                }
            }
            kind if elementwise(kind) => {
                let all: HashSet<Value> = op.operands.iter().flat_map(|v| made(self, v)).collect();
                if !all.is_empty() {
                    self.from.extend(op.results.iter().map(|r| (*r, all.clone())));
                }
            }
            _ => {}
        }
    }
}
