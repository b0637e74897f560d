//! First step: one function without calls, block pointers and descriptors.

use std::collections::HashMap;

use crate::error::{Loc, Result};
use crate::lower::pointers::Pointer;
use crate::tile::print::op_name;
use crate::tile::{Block, Function, Op, OpKind, Program, Type, Value};
use crate::CompileError;

/// Depth of calls at which recursion is assumed.
const MAX_CALLS: usize = 64;

/// What a value of the source has become.
#[derive(Clone)]
pub(super) enum New {
    /// One value.
    Value(Value),
    /// A block pointer or descriptor in parts.
    Pointer(Pointer),
}

/// The function being written.
pub(super) struct Expander<'a> {
    program: &'a Program,
    /// The new function.
    pub out: Function,
    /// Operation lists being written, innermost last.
    lists: Vec<Vec<Op>>,
    calls: usize,
    /// Place of the source operation.
    pub loc: Loc,
}

type Map = HashMap<Value, New>;

/// The entry function with everything it calls inlined.
pub(super) fn expand(program: &Program, entry: &str) -> Result<Function> {
    let source = program
        .function(entry)
        .ok_or_else(|| CompileError::invalid("", Loc::default(), format!("the program has no function '{entry}'")))?;
    let out = Function { name: source.name.clone(), public: true, facts: source.facts.clone(), results: Vec::new(), body: Block::default(), types: Vec::new() };
    let mut e = Expander { program, out, lists: Vec::new(), calls: 0, loc: Loc::default() };
    let mut map = Map::new();
    for arg in &source.body.args {
        let v = e.out.value(source.ty(*arg).clone());
        e.out.body.args.push(v);
        map.insert(*arg, New::Value(v));
    }
    e.lists.push(Vec::new());
    e.ops(source, &source.body, &mut map)?;
    e.emit(OpKind::Return, vec![], &[]);
    e.out.body.ops = e.lists.pop().unwrap_or_default();
    Ok(e.out)
}

impl Expander<'_> {
    /// Appends an operation; returns its results.
    pub fn emit(&mut self, kind: OpKind, operands: Vec<Value>, results: &[Type]) -> Vec<Value> {
        let results: Vec<Value> = results.iter().map(|t| self.out.value(t.clone())).collect();
        self.push(Op { kind, operands, results: results.clone(), regions: Vec::new(), loc: self.loc });
        results
    }

    /// Appends an operation with one result.
    pub fn one(&mut self, kind: OpKind, operands: Vec<Value>, result: Type) -> Value {
        self.emit(kind, operands, &[result])[0]
    }

    fn push(&mut self, op: Op) {
        if let Some(l) = self.lists.last_mut() {
            l.push(op);
        }
    }

    /// An error at the current operation.
    pub fn unsupported(&self, kind: &OpKind, message: impl Into<String>) -> CompileError {
        CompileError::unsupported(op_name(kind), self.loc, message)
    }

    fn get(&self, map: &Map, v: Value) -> Result<New> {
        map.get(&v).cloned().ok_or_else(|| CompileError::invalid("", self.loc, format!("value {} is used before it is defined", v.0)))
    }

    /// A value that is no block pointer.
    fn plain(&self, map: &Map, v: Value) -> Result<Value> {
        match self.get(map, v)? {
            New::Value(v) => Ok(v),
            New::Pointer(_) => Err(CompileError::unsupported("", self.loc, "a block pointer or descriptor in this place")),
        }
    }

    fn plains(&self, map: &Map, values: &[Value]) -> Result<Vec<Value>> {
        values.iter().map(|v| self.plain(map, *v)).collect()
    }

    /// Values with block pointers in parts.
    fn flat(&self, map: &Map, values: &[Value]) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        for v in values {
            match self.get(map, *v)? {
                New::Value(v) => out.push(v),
                New::Pointer(p) => out.extend(p.parts()),
            }
        }
        Ok(out)
    }

    /// New values for others like them: block pointers in parts.
    fn like(&mut self, source: &Function, values: &[Value], models: &[New], map: &mut Map) -> Vec<Value> {
        let mut out = Vec::new();
        for (v, model) in values.iter().zip(models) {
            match model {
                New::Value(_) => {
                    let new = self.out.value(source.ty(*v).clone());
                    out.push(new);
                    map.insert(*v, New::Value(new));
                }
                New::Pointer(p) => {
                    let parts: Vec<Value> = p.parts().iter().map(|x| self.out.value(self.out.ty(*x).clone())).collect();
                    out.extend(&parts);
                    map.insert(*v, New::Pointer(p.with(&parts)));
                }
            }
        }
        out
    }

    /// Copies operations up to the terminator; returns what it passes on.
    fn ops(&mut self, source: &Function, block: &Block, map: &mut Map) -> Result<Vec<Value>> {
        for op in &block.ops {
            self.loc = op.loc;
            if matches!(op.kind, OpKind::Yield | OpKind::Return | OpKind::Condition) {
                return Ok(op.operands.clone());
            }
            self.op(source, op, map)?;
        }
        Ok(Vec::new())
    }

    fn region(&mut self, source: &Function, block: &Block, args: Vec<Value>, map: &mut Map, end: OpKind) -> Result<Block> {
        self.lists.push(Vec::new());
        let yielded = self.ops(source, block, map)?;
        let operands = self.flat(map, &yielded)?;
        if !block.ops.is_empty() {
            self.emit(end, operands, &[]);
        }
        Ok(Block { args, ops: self.lists.pop().unwrap_or_default() })
    }

    fn op(&mut self, source: &Function, op: &Op, map: &mut Map) -> Result<()> {
        match &op.kind {
            OpKind::Call(callee) => self.call(op, callee, map),
            OpKind::For { .. } | OpKind::If | OpKind::While => self.control(source, op, map),
            _ => {
                let pointers = op.operands.iter().any(|o| matches!(map.get(o), Some(New::Pointer(_))));
                if pointers || matches!(op.kind, OpKind::MakeTensorPtr(_) | OpKind::MakeDescriptor(_)) {
                    let operands = op.operands.iter().map(|o| self.get(map, *o)).collect::<Result<Vec<_>>>()?;
                    let types: Vec<Type> = op.results.iter().map(|r| source.ty(*r).clone()).collect();
                    let result = self.pointer_op(&op.kind, &operands, &types)?;
                    if let (Some(r), Some(new)) = (op.results.first(), result) {
                        map.insert(*r, new);
                    }
                    return Ok(());
                }
                let operands = self.plains(map, &op.operands)?;
                let mut regions = Vec::new();
                for region in &op.regions {
                    let mut args = Vec::new();
                    for a in &region.args {
                        let new = self.out.value(source.ty(*a).clone());
                        map.insert(*a, New::Value(new));
                        args.push(new);
                    }
                    regions.push(self.region(source, region, args, map, OpKind::Yield)?);
                }
                self.loc = op.loc;
                let results: Vec<Value> = op.results.iter().map(|r| self.out.value(source.ty(*r).clone())).collect();
                for (old, new) in op.results.iter().zip(&results) {
                    map.insert(*old, New::Value(*new));
                }
                self.push(Op { kind: op.kind.clone(), operands, results, regions, loc: op.loc });
                Ok(())
            }
        }
    }

    fn call(&mut self, op: &Op, callee: &str, map: &mut Map) -> Result<()> {
        let program = self.program;
        let function = program.function(callee).ok_or_else(|| CompileError::invalid("tt.call", op.loc, format!("the program has no function '{callee}'")))?;
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(CompileError::limit("tt.call", op.loc, format!("'{callee}': calls nested deeper than {MAX_CALLS}; recursion is not supported")));
        }
        let mut inner = Map::new();
        for (p, a) in function.body.args.iter().zip(&op.operands) {
            inner.insert(*p, self.get(map, *a)?);
        }
        let returned = self.ops(function, &function.body, &mut inner)?;
        for (r, v) in op.results.iter().zip(&returned) {
            map.insert(*r, self.get(&inner, *v)?);
        }
        self.calls -= 1;
        Ok(())
    }

    fn control(&mut self, source: &Function, op: &Op, map: &mut Map) -> Result<()> {
        let loc = op.loc;
        match &op.kind {
            OpKind::For { .. } => {
                let models = op.operands[3..].iter().map(|o| self.get(map, *o)).collect::<Result<Vec<_>>>()?;
                let mut operands = self.plains(map, &op.operands[..3])?;
                operands.extend(self.flat(map, &op.operands[3..])?);
                let region = &op.regions[0];
                let index = self.out.value(source.ty(region.args[0]).clone());
                map.insert(region.args[0], New::Value(index));
                let mut args = vec![index];
                args.extend(self.like(source, &region.args[1..], &models, map));
                let body = self.region(source, region, args, map, OpKind::Yield)?;
                let results = self.like(source, &op.results, &models, map);
                self.push(Op { kind: op.kind.clone(), operands, results, regions: vec![body], loc });
            }
            OpKind::If => {
                let operands = self.plains(map, &op.operands)?;
                let mut regions = Vec::new();
                let mut models = Vec::new();
                for region in &op.regions {
                    regions.push(self.region(source, region, Vec::new(), map, OpKind::Yield)?);
                    if let (true, Some(end)) = (models.is_empty(), region.ops.last()) {
                        models = end.operands.iter().map(|o| self.get(map, *o)).collect::<Result<Vec<_>>>()?;
                    }
                }
                let results = self.like(source, &op.results, &models, map);
                self.push(Op { kind: op.kind.clone(), operands, results, regions, loc });
            }
            _ => {
                let models = op.operands.iter().map(|o| self.get(map, *o)).collect::<Result<Vec<_>>>()?;
                let operands = self.flat(map, &op.operands)?;
                let (before, after) = (&op.regions[0], &op.regions[1]);
                let args = self.like(source, &before.args, &models, map);
                let first = self.region(source, before, args, map, OpKind::Condition)?;
                let end = before.ops.last().map(|o| o.operands[1..].to_vec()).unwrap_or_default();
                let forwarded = end.iter().map(|o| self.get(map, *o)).collect::<Result<Vec<_>>>()?;
                let args = self.like(source, &after.args, &forwarded, map);
                let second = self.region(source, after, args, map, OpKind::Yield)?;
                let results = self.like(source, &op.results, &forwarded, map);
                self.push(Op { kind: op.kind.clone(), operands, results, regions: vec![first, second], loc });
            }
        }
        Ok(())
    }
}
