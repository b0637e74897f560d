//! What holds of every program the rest of the compiler sees: types, shapes, dominance.

mod rules;

use std::collections::{HashMap, HashSet};

use crate::error::{CompileError, Loc, Result};
use crate::tile::parse::{MAX_DEPTH, MAX_VALUES};
use crate::tile::print::op_name;
use crate::tile::{Block, Function, Item, MAX_TILE_ELEMS, Op, OpKind, Program, Type, Value};

/// Checks a program: every value defined once and before its uses, every operation's operands, results, regions and attributes as
/// [`OpKind`] states them, calls of functions that exist and do not recurse. Errors name the operation and its line.
pub fn verify(program: &Program) -> Result<()> {
    let mut names = HashSet::new();
    for function in &program.functions {
        if function.name.is_empty() || function.name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
            return Err(of_function(function, "its name must be neither empty nor hold quotes, backslashes or control characters".into()));
        }
        if !names.insert(function.name.as_str()) {
            return Err(of_function(function, "there are two of this name".into()));
        }
        let mut check = Check { program, function, visible: vec![false; function.types.len()], defined: vec![false; function.types.len()] };
        check.function()?;
    }
    no_recursion(program)
}

fn of_function(function: &Function, message: String) -> CompileError {
    CompileError::invalid("tt.func", Loc::default(), format!("@{}: {message}", function.name))
}

pub(super) type Found<T> = core::result::Result<T, String>;

/// What a block must end in.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Yield,
    Condition,
    Return,
}

struct Check<'a> {
    program: &'a Program,
    function: &'a Function,
    visible: Vec<bool>,
    defined: Vec<bool>,
}

impl Check<'_> {
    fn function(&mut self) -> Result<()> {
        let f = self.function;
        if f.types.len() > MAX_VALUES {
            return Err(CompileError::limit("tt.func", Loc::default(), format!("@{}: more than {MAX_VALUES} values", f.name)));
        }
        if f.facts.len() != f.body.args.len() {
            return Err(of_function(f, format!("{} arguments but facts of {}", f.body.args.len(), f.facts.len())));
        }
        if let Some(facts) = f.facts.iter().find(|a| !a.divisibility.is_power_of_two()) {
            return Err(of_function(f, format!("divisibility {} is no power of two", facts.divisibility)));
        }
        if f.public && !f.results.is_empty() {
            return Err(of_function(f, "a kernel returns nothing".into()));
        }
        f.results.iter().chain(&f.types).try_for_each(well_formed).map_err(|m| of_function(f, m))?;
        self.block(&f.body, End::Return, 0).map(|_| ())
    }

    fn define(&mut self, value: Value) -> Found<()> {
        match self.defined.get(value.0 as usize) {
            None => Err(format!("%{} has no type", value.0)),
            Some(true) => Err(format!("%{} is defined twice", value.0)),
            Some(false) => {
                self.defined[value.0 as usize] = true;
                self.visible[value.0 as usize] = true;
                Ok(())
            }
        }
    }

    /// Checks a block; gives the types of its terminator's operands.
    fn block(&mut self, block: &Block, end: End, depth: u32) -> Result<Vec<Type>> {
        let place = block.ops.last().map_or(Loc::default(), |op| op.loc);
        if depth > MAX_DEPTH * 2 {
            return Err(CompileError::limit("", place, format!("regions nested deeper than {}", MAX_DEPTH * 2)));
        }
        for arg in &block.args {
            self.define(*arg).map_err(|m| CompileError::invalid("", place, m))?;
        }
        let Some((last, before)) = block.ops.split_last() else {
            return Err(CompileError::invalid("", place, "a block without a terminator"));
        };
        for op in before {
            if matches!(op.kind, OpKind::Yield | OpKind::Condition | OpKind::Return) {
                return Err(fault(op, "it must be the last of its block".into()));
            }
            self.op(op, depth)?;
        }
        let found = match last.kind {
            OpKind::Yield => Some(End::Yield),
            OpKind::Condition => Some(End::Condition),
            OpKind::Return => Some(End::Return),
            _ => None,
        };
        if found != Some(end) {
            let wanted = match end {
                End::Yield => "scf.yield",
                End::Condition => "scf.condition",
                End::Return => "tt.return",
            };
            return Err(fault(last, format!("the block must end in {wanted}")));
        }
        self.op(last, depth)?;
        let types = last.operands.iter().map(|v| self.function.ty(*v).clone()).collect();
        if end == End::Return && types != self.function.results {
            return Err(fault(last, "it returns other types than the function states".into()));
        }
        let defined = block.args.iter().chain(block.ops.iter().flat_map(|op| &op.results));
        defined.for_each(|v| self.visible[v.0 as usize] = false);
        Ok(types)
    }

    fn op(&mut self, op: &Op, depth: u32) -> Result<()> {
        for operand in &op.operands {
            if !self.visible.get(operand.0 as usize).is_some_and(|v| *v) {
                return Err(fault(op, format!("operand %{} is not defined here", operand.0)));
            }
        }
        if let Some(result) = op.results.iter().find(|r| r.0 as usize >= self.function.types.len()) {
            return Err(fault(op, format!("%{} has no type", result.0)));
        }
        let operands: Vec<&Type> = op.operands.iter().map(|v| self.function.ty(*v)).collect();
        let results: Vec<&Type> = op.results.iter().map(|v| self.function.ty(*v)).collect();
        if !rules::has_regions(&op.kind) && !op.regions.is_empty() {
            return Err(fault(op, "it takes no regions".into()));
        }
        if rules::has_regions(&op.kind) {
            self.regions(op, &operands, &results, depth)?;
        } else if let OpKind::Call(callee) = &op.kind {
            let Some(callee) = self.program.function(callee) else {
                return Err(fault(op, format!("there is no function @{callee}")));
            };
            let takes = callee.body.args.iter().map(|v| callee.types.get(v.0 as usize));
            if !takes.eq(operands.iter().map(|t| Some(*t))) || !callee.results.iter().eq(results.iter().copied()) {
                return Err(fault(op, format!("its types are not those of @{}", callee.name)));
            }
        } else {
            rules::check(&op.kind, &operands, &results).map_err(|m| fault(op, m))?;
        }
        op.results.iter().try_for_each(|r| self.define(*r)).map_err(|m| fault(op, m))
    }

    /// A region whose arguments and yielded values have given types.
    fn region(&mut self, op: &Op, index: usize, args: &[Type], end: End, depth: u32) -> Result<Vec<Type>> {
        let region = &op.regions[index];
        let have: Vec<_> = region.args.iter().map(|v| self.function.types.get(v.0 as usize)).collect();
        if !have.iter().copied().eq(args.iter().map(Some)) {
            return Err(fault(op, format!("the arguments of region {index} do not have the types of what it is given")));
        }
        self.block(region, end, depth + 1).map_err(|e| if e.operation.is_empty() { CompileError { kind: e.kind, ..fault(op, e.message) } } else { e })
    }

    fn regions(&mut self, op: &Op, operands: &[&Type], results: &[&Type], depth: u32) -> Result<()> {
        let wrong = |found: &[Type], wanted: &[&Type]| !found.iter().eq(wanted.iter().copied());
        let count = if matches!(op.kind, OpKind::If | OpKind::While) { 2 } else { 1 };
        if op.regions.len() != count {
            return Err(fault(op, format!("{} regions instead of {count}", op.regions.len())));
        }
        match &op.kind {
            OpKind::For { .. } => {
                let (args, carried) = rules::for_loop(operands, results).map_err(|m| fault(op, m))?;
                if wrong(&self.region(op, 0, &args, End::Yield, depth)?, &carried) {
                    return Err(fault(op, "its region yields other types than it carries".into()));
                }
            }
            OpKind::If => {
                rules::condition(operands).map_err(|m| fault(op, m))?;
                for i in 0..2 {
                    if i == 1 && op.regions[1].ops.is_empty() && op.regions[1].args.is_empty() && results.is_empty() {
                        continue;
                    }
                    if wrong(&self.region(op, i, &[], End::Yield, depth)?, results) {
                        return Err(fault(op, format!("region {i} yields other types than the results")));
                    }
                }
            }
            OpKind::While => {
                let initial: Vec<Type> = operands.iter().map(|t| (*t).clone()).collect();
                let forwarded = self.region(op, 0, &initial, End::Condition, depth)?;
                let Some((_, forwarded)) = forwarded.split_first().filter(|(c, _)| **c == Type::scalar(crate::Elem::I1)) else {
                    return Err(fault(op, "its first region must end in scf.condition with an i1".into()));
                };
                if wrong(forwarded, results) {
                    return Err(fault(op, "scf.condition forwards other types than the results".into()));
                }
                let after: Vec<Type> = forwarded.to_vec();
                if wrong(&self.region(op, 1, &after, End::Yield, depth)?, operands) {
                    return Err(fault(op, "its second region yields other types than the loop carries".into()));
                }
            }
            kind => {
                let (args, yields) = rules::combining(kind, operands, results).map_err(|m| fault(op, m))?;
                let yields: Vec<&Type> = yields.iter().collect();
                if wrong(&self.region(op, 0, &args, End::Yield, depth)?, &yields) {
                    return Err(fault(op, "its region yields other types than it combines".into()));
                }
            }
        }
        Ok(())
    }
}

fn fault(op: &Op, message: String) -> CompileError {
    CompileError::invalid(op_name(&op.kind), op.loc, message)
}

/// Extents are powers of two, and a tile is no larger than Triton allows.
fn well_formed(ty: &Type) -> Found<()> {
    let shape = ty.shape();
    if shape.is_empty() && !matches!(ty, Type::Scalar(Item::Elem(_) | Item::Ptr(_))) {
        return Err("a tile of rank 0".into());
    }
    if let Some(extent) = shape.iter().find(|n| !n.is_power_of_two()) {
        return Err(format!("extent {extent} of a tile is no power of two"));
    }
    match shape.iter().try_fold(1u64, |n, e| n.checked_mul(u64::from(*e))) {
        Some(n) if n <= MAX_TILE_ELEMS => Ok(()),
        _ => Err(format!("a tile of more than {MAX_TILE_ELEMS} elements")),
    }
}

fn no_recursion(program: &Program) -> Result<()> {
    fn calls(block: &Block, out: &mut Vec<String>) {
        for op in &block.ops {
            if let OpKind::Call(callee) = &op.kind {
                out.push(callee.clone());
            }
            op.regions.iter().for_each(|r| calls(r, out));
        }
    }
    let mut callees: HashMap<&str, Vec<String>> = HashMap::new();
    for function in &program.functions {
        calls(&function.body, callees.entry(&function.name).or_default());
    }
    // A function is done when every callee is; what is left over calls itself, through others or not.
    loop {
        let done: Vec<&str> = callees.iter().filter(|(_, c)| c.iter().all(|c| !callees.contains_key(c.as_str()))).map(|(n, _)| *n).collect();
        if done.is_empty() {
            return match callees.keys().min() {
                None => Ok(()),
                Some(name) => Err(CompileError::limit("tt.call", Loc::default(), format!("@{name} calls itself; there is no stack for that"))),
            };
        }
        done.iter().for_each(|n| drop(callees.remove(n)));
    }
}
