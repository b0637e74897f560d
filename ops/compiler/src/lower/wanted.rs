//! Which tiles several places want: those that end in more than one loop over elements.

use std::collections::{HashMap, HashSet};

use crate::tile::{Block, Function, OpKind, Value};

/// The places (numbered operations) that end up computing a value: none, one or several.
#[derive(Clone, Copy, PartialEq)]
enum Roots {
    One(usize),
    Many,
}

/// Values with several.
pub(super) fn many(function: &Function) -> HashSet<Value> {
    let mut roots = HashMap::new();
    let mut number = 0;
    block(&function.body, &mut number, &mut roots);
    roots.into_iter().filter(|(_, r)| *r == Roots::Many).map(|(v, _)| v).collect()
}

fn lazy(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Splat
            | OpKind::ExpandDims(_)
            | OpKind::Broadcast
            | OpKind::Reshape { .. }
            | OpKind::Trans(_)
            | OpKind::Cat
            | OpKind::Join
            | OpKind::Split
            | OpKind::Unary(_)
            | OpKind::Binary(_)
            | OpKind::Fma
            | OpKind::CmpI(_)
            | OpKind::CmpF(_)
            | OpKind::Select
            | OpKind::Clamp { .. }
            | OpKind::Cast(_)
            | OpKind::AddPtr
            | OpKind::Extern(_)
            | OpKind::Load { volatile: false, .. }
    )
}

fn add(roots: &mut HashMap<Value, Roots>, value: Value, root: Roots) {
    roots.entry(value).and_modify(|r| if *r != root { *r = Roots::Many }).or_insert(root);
}

fn block(b: &Block, number: &mut usize, roots: &mut HashMap<Value, Roots>) {
    for op in b.ops.iter().rev() {
        *number += 1;
        let own = *number;
        for region in &op.regions {
            let mut inner = HashMap::new();
            block(region, number, &mut inner);
            // A region stores what it takes from outside before it begins.
            for value in inner.into_keys() {
                add(roots, value, Roots::One(own));
            }
        }
        if lazy(&op.kind) {
            let results: Vec<Roots> = op.results.iter().filter_map(|r| roots.get(r).copied()).collect();
            let merged = results.iter().copied().reduce(|a, b| if a == b { a } else { Roots::Many });
            // A tile wanted several times is stored the first time, so that what it is made of is wanted once.
            if let Some(root) = merged.map(|m| if m == Roots::Many { Roots::One(own) } else { m }) {
                op.operands.iter().for_each(|o| add(roots, *o, root));
            }
        } else {
            op.operands.iter().for_each(|o| add(roots, *o, Roots::One(own)));
        }
    }
}
