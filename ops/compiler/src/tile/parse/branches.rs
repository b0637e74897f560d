//! Branches become regions: Triton prints an early return as `cf.cond_br` to a block that returns.
//!
//! Where two ways meet again, an `scf.if` ends; where they do not, what follows stands in one branch of it. A block that several ways
//! reach without a common end is repeated, within a limit. Loops made of branches are refused: Triton prints loops as `scf`.

use std::collections::HashMap;

use crate::error::{CompileError, Loc, Result};
use crate::tile::{Block, Function, Op, OpKind, Type, Value};

/// Most operations after repetition.
const MAX_OPS: usize = 1 << 18;
/// Most branches taken one after the other on any way (they become nested regions).
const MAX_NEST: u32 = super::MAX_DEPTH;

/// How a block with a branch ends.
pub(super) struct Terminator<'a> {
    /// Condition of a two-way branch.
    pub(super) condition: Option<Value>,
    /// Labels with the values handed over.
    pub(super) targets: Vec<(&'a str, Vec<Value>)>,
    /// Where.
    pub(super) loc: Loc,
}

struct Node<'a> {
    label: &'a str,
    args: Vec<Value>,
    ops: Vec<Op>,
    branch: Option<Terminator<'a>>,
}

/// The blocks of a function, entry first.
#[derive(Default)]
pub(super) struct Body<'a> {
    nodes: Vec<Node<'a>>,
}

/// What structuring carries along.
struct Walk<'f> {
    function: &'f mut Function,
    /// Types of what is returned or yielded at the exit.
    gives: Vec<Type>,
    /// New names of values in what is being written.
    names: HashMap<Value, Value>,
    /// By block: the block where its ways meet again, `exit` if none.
    join: Vec<usize>,
    /// By block: targets.
    next: Vec<Vec<usize>>,
    count: usize,
}

impl<'a> Body<'a> {
    pub(super) fn push(&mut self, label: &'a str, args: Vec<Value>, ops: Vec<Op>, branch: Option<Terminator<'a>>) {
        self.nodes.push(Node { label, args, ops, branch });
    }

    pub(super) fn has(&self, label: &str) -> bool {
        self.nodes.iter().any(|n| n.label == label)
    }

    /// One block with regions instead of branches; blocks without a branch end in `end`.
    pub(super) fn structure(mut self, function: &mut Function, end: &OpKind) -> Result<Block> {
        if self.nodes.len() == 1 && self.nodes[0].branch.is_none() {
            let node = self.nodes.remove(0);
            return Ok(Block { args: node.args, ops: node.ops });
        }
        let mut leaves = self.nodes.iter().filter(|n| n.branch.is_none()).filter_map(|n| n.ops.last());
        let gives = leaves.next().map_or_else(Vec::new, |op| op.operands.iter().map(|v| function.ty(*v).clone()).collect());
        let labels: HashMap<&str, usize> = self.nodes.iter().enumerate().skip(1).map(|(i, n)| (n.label, i)).collect();
        let mut next = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut targets = Vec::new();
            match &node.branch {
                None if !node.ops.last().is_some_and(|op| op.kind == *end) => {
                    let loc = node.ops.last().map_or(Loc::default(), |op| op.loc);
                    return Err(CompileError::invalid("tt.func", loc, "a block ends without a branch, a return or a yield"));
                }
                None => {}
                Some(branch) => {
                    for (label, values) in &branch.targets {
                        let Some(target) = labels.get(label) else {
                            return Err(CompileError::invalid("cf.br", branch.loc, format!("there is no block ^{label}")));
                        };
                        let args = &self.nodes[*target].args;
                        let fits = args.len() == values.len() && args.iter().zip(values).all(|(a, v)| function.ty(*a) == function.ty(*v));
                        if !fits {
                            return Err(CompileError::invalid("cf.br", branch.loc, format!("the values handed to ^{label} are not what it takes")));
                        }
                        targets.push(*target);
                    }
                }
            }
            next.push(targets);
        }
        let order = postorder(&next).ok_or_else(|| {
            CompileError::unsupported("cf.br", self.nodes[0].branch.as_ref().map_or(Loc::default(), |b| b.loc), "a loop made of branches")
        })?;
        let join = joins(&next, &order);
        let mut walk = Walk { function, gives, names: HashMap::new(), join, next, count: 0 };
        let mut ops = Vec::new();
        let values = self.write(&mut walk, 0, self.nodes.len(), &mut ops, 0)?;
        ops.push(Op { kind: end.clone(), operands: values, results: vec![], regions: vec![], loc: Loc::default() });
        Ok(Block { args: self.nodes.remove(0).args, ops })
    }

    /// Writes the blocks from `at` up to `stop`; gives what is handed to `stop`, or returned when that is the exit.
    fn write(&self, walk: &mut Walk, mut at: usize, stop: usize, out: &mut Vec<Op>, depth: u32) -> Result<Vec<Value>> {
        let exit = self.nodes.len();
        loop {
            let node = &self.nodes[at];
            let body = if node.branch.is_some() { node.ops.as_slice() } else { &node.ops[..node.ops.len() - 1] };
            for op in body {
                let copy = walk.copy(op)?;
                out.push(copy);
            }
            let Some(branch) = &node.branch else {
                return Ok(node.ops.last().map(|op| walk.renamed(&op.operands)).unwrap_or_default());
            };
            let Some(condition) = branch.condition else {
                let values = walk.renamed(&branch.targets[0].1);
                let target = walk.next[at][0];
                if target == stop {
                    return Ok(values);
                }
                walk.enter(&self.nodes[target].args, &values);
                at = target;
                continue;
            };
            if depth == MAX_NEST {
                return Err(CompileError::limit("cf.cond_br", branch.loc, format!("more than {MAX_NEST} branches, one after the other")));
            }
            let join = walk.join[at];
            let condition = walk.renamed(&[condition])[0];
            let types: Vec<Type> = if join == exit {
                walk.gives.clone()
            } else {
                self.nodes[join].args.iter().map(|a| walk.function.ty(*a).clone()).collect()
            };
            let mut regions = Vec::new();
            for (i, (_, values)) in branch.targets.iter().enumerate() {
                let mut ops = Vec::new();
                let values = walk.renamed(values);
                let target = walk.next[at][i];
                let operands = if target == join {
                    values
                } else {
                    walk.enter(&self.nodes[target].args, &values);
                    self.write(walk, target, join, &mut ops, depth + 1)?
                };
                let fits = operands.len() == types.len() && operands.iter().zip(&types).all(|(v, t)| walk.function.ty(*v) == t);
                if !fits {
                    return Err(CompileError::invalid("tt.return", branch.loc, "two ways return values of different types"));
                }
                ops.push(Op { kind: OpKind::Yield, operands, results: vec![], regions: vec![], loc: branch.loc });
                regions.push(Block { args: vec![], ops });
            }
            let results: Vec<Value> = types.into_iter().map(|t| walk.function.value(t)).collect();
            out.push(Op { kind: OpKind::If, operands: vec![condition], results: results.clone(), regions, loc: branch.loc });
            if join == stop {
                return Ok(results);
            }
            walk.enter(&self.nodes[join].args, &results);
            at = join;
        }
    }
}

impl Walk<'_> {
    fn renamed(&self, values: &[Value]) -> Vec<Value> {
        values.iter().map(|v| self.names.get(v).copied().unwrap_or(*v)).collect()
    }

    fn enter(&mut self, args: &[Value], values: &[Value]) {
        for (arg, value) in args.iter().zip(values) {
            self.names.insert(*arg, *value);
        }
    }

    fn fresh(&mut self, values: &[Value]) -> Vec<Value> {
        values
            .iter()
            .map(|v| {
                let new = self.function.value(self.function.ty(*v).clone());
                self.names.insert(*v, new);
                new
            })
            .collect()
    }

    /// A copy of an operation with new values for what it defines.
    fn copy(&mut self, op: &Op) -> Result<Op> {
        self.count += 1;
        if self.count > MAX_OPS || self.function.types.len() > 2 * super::MAX_VALUES {
            return Err(CompileError::limit("cf.cond_br", op.loc, format!("more than {MAX_OPS} operations after branches became regions")));
        }
        let operands = self.renamed(&op.operands);
        let mut regions = Vec::with_capacity(op.regions.len());
        for region in &op.regions {
            let args = self.fresh(&region.args);
            let ops = region.ops.iter().map(|o| self.copy(o)).collect::<Result<_>>()?;
            regions.push(Block { args, ops });
        }
        let results = self.fresh(&op.results);
        Ok(Op { kind: op.kind.clone(), operands, results, regions, loc: op.loc })
    }
}

/// Blocks reached from the entry, successors before predecessors; `None` if there is a loop.
fn postorder(next: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut state = vec![0u8; next.len()];
    let mut order = Vec::new();
    let mut stack = vec![(0, 0)];
    state[0] = 1;
    while let Some((node, child)) = stack.pop() {
        match next[node].get(child) {
            None => {
                state[node] = 2;
                order.push(node);
            }
            Some(&target) => {
                stack.push((node, child + 1));
                match state[target] {
                    0 => {
                        state[target] = 1;
                        stack.push((target, 0));
                    }
                    1 => return None,
                    _ => {}
                }
            }
        }
    }
    Some(order)
}

/// By block, its nearest block that every way from it to the exit passes (the exit is `next.len()`).
fn joins(next: &[Vec<usize>], order: &[usize]) -> Vec<usize> {
    let exit = next.len();
    let mut join = vec![exit; next.len()];
    let mut depth = vec![0usize; next.len() + 1];
    for &node in order {
        let mut common = None;
        for &target in &next[node] {
            common = Some(match common {
                None => target,
                Some(mut other) => {
                    let mut this = target;
                    while this != other {
                        if depth[this] >= depth[other] {
                            this = join[this];
                        } else {
                            other = join[other];
                        }
                    }
                    this
                }
            });
        }
        join[node] = common.unwrap_or(exit);
        depth[node] = depth[join[node]] + 1;
    }
    join
}
