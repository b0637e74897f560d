//! Control flow with regions, calls, and what a kernel says to its user.

use crate::Elem;
use crate::error::Result;
use crate::tile::{Block, Op, OpKind, Type, Value};

use super::branches::{Body, Terminator};
use super::{Parsed, Parser};

impl<'a> Parser<'a> {
    pub(super) fn control(&mut self, name: &str) -> Result<Option<Parsed>> {
        Ok(Some(match name {
            "scf.for" => self.scf_for()?,
            "scf.if" => self.scf_if()?,
            "scf.while" => self.scf_while()?,
            "scf.condition" => {
                let mut operands = self.bracketed("(", ")")?;
                self.skip_attrs()?;
                if self.s.peek() == b'%' {
                    let forwarded = self.values()?;
                    self.colon_types(&forwarded)?;
                    operands.extend(forwarded);
                }
                Parsed::new(OpKind::Condition, operands, vec![])
            }
            "scf.yield" | "tt.reduce.return" | "tt.scan.return" | "tt.map_elementwise.return" => {
                Parsed::new(OpKind::Yield, self.optional_values()?, vec![])
            }
            "tt.return" => Parsed::new(OpKind::Return, self.optional_values()?, vec![]),
            "tt.call" => {
                let callee = self.s.suffix("@")?.to_owned();
                let operands = self.bracketed("(", ")")?;
                self.skip_attrs()?;
                let results = self.signature(&operands)?;
                Parsed::new(OpKind::Call(callee), operands, results)
            }
            "tt.print" => {
                let prefix = self.s.string()?;
                self.skip_attrs()?;
                let mut operands = Vec::new();
                if self.s.eat(":") {
                    operands = self.values()?;
                    self.colon_types(&operands)?;
                }
                Parsed::new(OpKind::Print(prefix), operands, vec![])
            }
            "tt.assert" => {
                let operands = self.some_values(1)?;
                self.s.expect(",")?;
                let message = self.s.string()?;
                self.skip_attrs()?;
                self.colon_types(&operands)?;
                Parsed::new(OpKind::Assert(message), operands, vec![])
            }
            "llvm.intr.assume" => {
                let operands = self.some_values(1)?;
                self.skip_attrs()?;
                self.colon_types(&operands)?;
                Parsed::new(OpKind::Assume, operands, vec![])
            }
            "gpu.barrier" | "ttg.barrier" => {
                while self.s.eat_word("local") || self.s.eat_word("global_read") || self.s.eat_word("global_write") || self.s.eat_word("all") {
                    self.s.eat("|");
                }
                self.skip_attrs()?;
                Parsed::new(OpKind::Barrier, vec![], vec![])
            }
            _ => return Ok(None),
        }))
    }

    /// `%a, %b : types`, or nothing.
    fn optional_values(&mut self) -> Result<Vec<Value>> {
        self.skip_attrs()?;
        if self.s.peek() != b'%' {
            return Ok(Vec::new());
        }
        // A result name of the next operation also starts with '%'; a terminator is last, so what follows belongs to it.
        let values = self.values()?;
        self.skip_attrs()?;
        self.colon_types(&values)?;
        Ok(values)
    }

    /// `(%a = %x, %b = %y)`: names for a region's arguments, and their first values.
    fn initial(&mut self) -> Result<(Vec<&'a str>, Vec<Value>)> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        self.s.expect("(")?;
        while !self.s.eat(")") {
            names.push(self.s.suffix("%")?);
            self.s.expect("=")?;
            values.push(self.value()?);
            if !self.s.eat(",") {
                self.s.expect(")")?;
                break;
            }
        }
        Ok((names, values))
    }

    fn scf_for(&mut self) -> Result<Parsed> {
        let mut unsigned = self.s.eat_word("unsigned");
        let index = self.s.suffix("%")?;
        self.s.expect("=")?;
        let mut operands = vec![self.value()?];
        self.s.expect("to")?;
        operands.push(self.value()?);
        self.s.expect("step")?;
        operands.push(self.value()?);
        let (mut names, mut results) = (Vec::new(), Vec::new());
        if self.s.eat_word("iter_args") {
            let (these, initial) = self.initial()?;
            self.s.expect("->")?;
            results = self.s.ty_list()?;
            self.check_all(&initial, &results)?;
            names = these;
            operands.extend(initial);
        }
        self.s.expect(":")?;
        let ty = self.s.ty()?;
        operands[..3].to_vec().iter().try_for_each(|v| self.check(*v, &ty))?;
        self.s.expect("{")?;
        let body = self.scoped(|p| {
            let mut args = vec![p.bind(index, core::slice::from_ref(&ty))?];
            for (name, ty) in names.iter().zip(&results) {
                args.push(p.bind(name, core::slice::from_ref(ty))?);
            }
            p.inside(args)
        })?;
        let attrs = self.s.attrs()?;
        unsigned |= attrs.int("unsignedCmp") == Some(1);
        Ok(Parsed { kind: OpKind::For { unsigned }, operands, results, regions: vec![body] })
    }

    fn scf_if(&mut self) -> Result<Parsed> {
        let condition = self.value()?;
        self.check(condition, &Type::scalar(Elem::I1))?;
        let results = if self.s.eat("->") { self.s.ty_list()? } else { Vec::new() };
        self.s.expect("{")?;
        let then = self.scoped(|p| p.inside(Vec::new()))?;
        let other = if self.s.eat_word("else") {
            self.s.expect("{")?;
            self.scoped(|p| p.inside(Vec::new()))?
        } else {
            Block::default()
        };
        self.skip_attrs()?;
        Ok(Parsed { kind: OpKind::If, operands: vec![condition], results, regions: vec![then, other] })
    }

    fn scf_while(&mut self) -> Result<Parsed> {
        let (names, operands) = if self.s.peek() == b'(' { self.initial()? } else { (Vec::new(), Vec::new()) };
        self.s.expect(":")?;
        let types = self.s.ty_list()?;
        self.check_all(&operands, &types)?;
        self.s.expect("->")?;
        let results = self.s.ty_list()?;
        self.s.expect("{")?;
        let before = self.scoped(|p| {
            let mut args = Vec::new();
            for (name, ty) in names.iter().zip(&types) {
                args.push(p.bind(name, core::slice::from_ref(ty))?);
            }
            p.inside(args)
        })?;
        self.s.expect("do")?;
        self.s.expect("{")?;
        let after = self.labelled_region()?;
        if self.s.eat_word("attributes") || self.s.at("{") {
            self.skip_attrs()?;
        }
        Ok(Parsed { kind: OpKind::While, operands, results, regions: vec![before, after] })
    }

    /// The inside of a region after its brace; a missing terminator is the one that yields nothing.
    fn inside(&mut self, args: Vec<Value>) -> Result<Block> {
        let loc = self.s.loc();
        let mut ops = self.ops()?;
        if self.branches.take().is_some() || !self.closed() {
            return Err(self.s.unsupported("branches inside a region"));
        }
        if !ops.last().is_some_and(|op| matches!(op.kind, OpKind::Yield | OpKind::Condition | OpKind::Return)) {
            ops.push(end(loc));
        }
        Ok(Block { args, ops })
    }

    /// The inside of a region that may begin with `^bb0(%a: type, …):` and may have branches.
    pub(super) fn labelled_region(&mut self) -> Result<Block> {
        self.scoped(|p| {
            let (label, args) = if p.s.peek() == b'^' { p.label()? } else { ("", Vec::new()) };
            p.blocks(label, args, &OpKind::Yield)
        })
    }

    /// Whether the brace that ends a region was taken last.
    fn closed(&self) -> bool {
        self.s.text.as_bytes().get(self.s.pos.wrapping_sub(1)) == Some(&b'}')
    }

    /// `^bb1(%a: type loc(…), …):`.
    fn label(&mut self) -> Result<(&'a str, Vec<Value>)> {
        let name = self.s.suffix("^")?;
        let mut args = Vec::new();
        if self.s.eat("(") {
            while !self.s.eat(")") {
                let arg = self.s.suffix("%")?;
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                self.s.skip_loc()?;
                args.push(self.bind(arg, &[ty])?);
                if !self.s.eat(",") {
                    self.s.expect(")")?;
                    break;
                }
            }
        }
        self.s.expect(":")?;
        Ok((name, args))
    }

    /// The body of a function.
    pub(super) fn function_body(&mut self) -> Result<()> {
        self.s.expect("{")?;
        let args = self.function.body.args.clone();
        self.function.body = self.blocks("", args, &OpKind::Return)?;
        self.s.operation = "tt.func".into();
        Ok(())
    }

    /// One block, or blocks with branches, up to the closing brace.
    fn blocks(&mut self, mut label: &'a str, mut args: Vec<Value>, end: &OpKind) -> Result<Block> {
        let mut body = Body::default();
        loop {
            let ops = self.ops()?;
            let branch = self.branches.take();
            body.push(label, args, ops, branch);
            if self.closed() {
                return body.structure(&mut self.function, end);
            }
            (label, args) = self.label()?;
            if body.has(label) {
                return Err(self.s.error(format!("block ^{label} is defined twice")));
            }
        }
    }

    /// Reads `cf.br` and `cf.cond_br`; false for other operations.
    pub(super) fn branch(&mut self, name: &str, loc: crate::error::Loc) -> Result<bool> {
        let terminator = match name {
            "cf.br" => {
                let (target, args) = self.target()?;
                Terminator { condition: None, targets: vec![(target, args)], loc }
            }
            "cf.cond_br" => {
                let condition = self.value()?;
                self.check(condition, &Type::scalar(Elem::I1))?;
                let mut targets = Vec::new();
                for _ in 0..2 {
                    self.s.expect(",")?;
                    targets.push(self.target()?);
                }
                Terminator { condition: Some(condition), targets, loc }
            }
            _ => return Ok(false),
        };
        self.skip_attrs()?;
        self.s.skip_loc()?;
        self.branches = Some(terminator);
        Ok(true)
    }

    fn target(&mut self) -> Result<(&'a str, Vec<Value>)> {
        let name = self.s.suffix("^")?;
        let mut values = Vec::new();
        if self.s.eat("(") && !self.s.eat(")") {
            values = self.values()?;
            self.colon_types(&values)?;
            self.s.expect(")")?;
        }
        Ok((name, values))
    }
}

fn end(loc: crate::error::Loc) -> Op {
    Op { kind: OpKind::Yield, operands: vec![], results: vec![], regions: vec![], loc }
}
