//! Text in: the Triton dialect as Triton 3.4 to 3.9 prints it.
//!
//! A text of any content gives a program or an error, in time and stack bounded by its length.

mod arith;
mod branches;
mod compute;
mod control;
mod memory;
mod scan;
mod types;

use std::collections::HashMap;

use crate::error::{CompileError, Loc, Result};
use crate::tile::{ArgFacts, Block, Function, Op, OpKind, Program, Type, Value};

use scan::{Attrs, Scanner};

/// Longest text taken, in bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Deepest nesting of regions.
pub const MAX_DEPTH: u32 = 64;
/// Most values of a function.
pub const MAX_VALUES: usize = 1 << 20;

/// Reads a module, or functions without one around them.
pub fn parse(text: &str) -> Result<Program> {
    if text.len() > MAX_TEXT {
        return Err(CompileError::limit("", Loc::default(), format!("a text of {} bytes; at most {MAX_TEXT} are taken", text.len())));
    }
    let mut parser = Parser { s: Scanner::new(text), function: empty(), scope: HashMap::new(), undo: Vec::new(), depth: 0, branches: None };
    let mut program = Program::default();
    parser.module(&mut program)?;
    for function in &mut program.functions {
        crate::tile::renumber::renumber(function);
    }
    Ok(program)
}

fn empty() -> Function {
    Function { name: String::new(), public: true, facts: Vec::new(), results: Vec::new(), body: Block::default(), types: Vec::new() }
}

/// What an operation's text says, before its results get values.
struct Parsed {
    kind: OpKind,
    operands: Vec<Value>,
    results: Vec<Type>,
    regions: Vec<Block>,
}

impl Parsed {
    fn new(kind: OpKind, operands: Vec<Value>, results: Vec<Type>) -> Parsed {
        Parsed { kind, operands, results, regions: Vec::new() }
    }
}

/// A name in scope: consecutive values.
#[derive(Clone, Copy)]
struct Named {
    first: Value,
    count: u32,
}

struct Parser<'a> {
    s: Scanner<'a>,
    function: Function,
    scope: HashMap<&'a str, Named>,
    /// What names meant before the regions that are open rebound them.
    undo: Vec<(&'a str, Option<Named>)>,
    depth: u32,
    /// The blocks of a function body with branches, while one is read.
    branches: Option<branches::Terminator<'a>>,
}

impl<'a> Parser<'a> {
    fn module(&mut self, program: &mut Program) -> Result<()> {
        let mut open = false;
        let mut names = std::collections::HashSet::new();
        loop {
            self.s.operation.clear();
            if self.s.at_end() {
                if open {
                    return Err(self.s.error("the module has no end"));
                }
                return Ok(());
            }
            if self.s.peek() == b'#' {
                self.alias()?;
            } else if !open && self.s.eat_word("module") {
                if self.s.peek() == b'@' {
                    self.s.suffix("@")?;
                }
                if self.s.eat_word("attributes") {
                    self.s.skip_balanced()?;
                }
                self.s.expect("{")?;
                open = true;
            } else if open && self.s.eat("}") {
                open = false;
                self.s.skip_loc()?;
            } else if self.s.eat_word("tt.func") {
                let function = self.func()?;
                if !names.insert(function.name.clone()) {
                    return Err(self.s.error(format!("there are two functions @{}", function.name)));
                }
                program.functions.push(function);
            } else {
                let found = self.s.excerpt();
                return Err(self.s.error(format!("expected a module or tt.func, found {found}")));
            }
        }
    }

    /// `#loc1 = loc(…)`; other aliases are layouts, which mean TritonGPU text.
    fn alias(&mut self) -> Result<()> {
        let name = self.s.suffix("#")?;
        self.s.expect("=")?;
        if !self.s.at("loc(") {
            return Err(self.s.unsupported(format!("attribute alias #{name}: this is TritonGPU text; hand over the Triton dialect (asm[\"ttir\"])")));
        }
        self.s.skip_loc()
    }

    fn func(&mut self) -> Result<Function> {
        self.s.operation = "tt.func".into();
        self.scope.clear();
        self.undo.clear();
        self.function = empty();
        let private = self.s.eat_word("private") || self.s.eat_word("nested");
        if !private {
            self.s.eat_word("public");
        }
        self.function.name = self.s.suffix("@")?.to_owned();
        self.s.expect("(")?;
        while !self.s.eat(")") {
            if self.s.peek() != b'%' {
                return Err(self.s.unsupported("a function without a body"));
            }
            let name = self.s.suffix("%")?;
            self.s.expect(":")?;
            let ty = self.s.ty()?;
            let attrs = self.s.attrs()?;
            self.s.skip_loc()?;
            let divisibility = attrs.int("tt.divisibility").unwrap_or(1);
            let divisibility = u32::try_from(divisibility).ok().filter(|d| d.is_power_of_two());
            let Some(divisibility) = divisibility else {
                return Err(self.s.error("tt.divisibility must be a power of two"));
            };
            self.function.facts.push(ArgFacts { divisibility, small: attrs.int("tt.pointer_range") == Some(32) });
            let value = self.bind(name, &[ty])?;
            self.function.body.args.push(value);
            if !self.s.eat(",") {
                self.s.expect(")")?;
                break;
            }
        }
        if self.s.eat("->") {
            self.function.results = self.results_with_attrs()?;
        }
        self.function.public = !private && self.function.results.is_empty();
        if self.s.eat_word("attributes") {
            self.s.attrs()?;
        }
        if !self.s.at("{") {
            return Err(self.s.unsupported("a function without a body"));
        }
        self.function_body()?;
        self.s.skip_loc()?;
        Ok(core::mem::replace(&mut self.function, empty()))
    }

    /// Result types of a function, each with attributes that say nothing here.
    fn results_with_attrs(&mut self) -> Result<Vec<Type>> {
        if !self.s.eat("(") {
            return Ok(vec![self.s.ty()?]);
        }
        let mut types = Vec::new();
        while !self.s.eat(")") {
            types.push(self.s.ty()?);
            self.s.attrs()?;
            if !self.s.eat(",") {
                self.s.expect(")")?;
                break;
            }
        }
        Ok(types)
    }

    /// New consecutive values under a name.
    fn bind(&mut self, name: &'a str, types: &[Type]) -> Result<Value> {
        if self.function.types.len() + types.len() > MAX_VALUES {
            let loc = self.s.loc();
            return Err(CompileError::limit(self.s.operation.clone(), loc, format!("more than {MAX_VALUES} values in a function")));
        }
        let first = Value(self.function.types.len() as u32);
        self.function.types.extend_from_slice(types);
        self.bind_to(name, Named { first, count: types.len() as u32 })?;
        Ok(first)
    }

    fn bind_to(&mut self, name: &'a str, named: Named) -> Result<()> {
        let before = self.scope.insert(name, named);
        if before.is_some() {
            return Err(self.s.error(format!("%{name} is defined twice")));
        }
        self.undo.push((name, before));
        Ok(())
    }

    /// Reads a region's inside in a scope of its own.
    fn scoped<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            let loc = self.s.loc();
            return Err(CompileError::limit(self.s.operation.clone(), loc, format!("regions nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let mark = self.undo.len();
        let outer = (core::mem::take(&mut self.s.operation), core::mem::take(&mut self.s.begin));
        let result = read(self);
        for (name, before) in self.undo.drain(mark..).rev() {
            match before {
                Some(named) => self.scope.insert(name, named),
                None => self.scope.remove(name),
            };
        }
        self.depth -= 1;
        if result.is_ok() {
            (self.s.operation, self.s.begin) = outer;
        }
        result
    }

    /// A use of a value.
    fn value(&mut self) -> Result<Value> {
        if self.s.peek() != b'%' {
            let found = self.s.excerpt();
            return Err(self.s.error(format!("expected a value, found {found}")));
        }
        let name = self.s.suffix("%")?;
        let index = if self.s.byte() == b'#' {
            self.s.step();
            self.s.digits().parse::<u32>().unwrap_or(u32::MAX)
        } else {
            0
        };
        match self.scope.get(name) {
            Some(named) if index < named.count => Ok(Value(named.first.0 + index)),
            Some(named) => Err(self.s.error(format!("%{name}#{index} does not exist: %{name} names {} value(s)", named.count))),
            None => Err(self.s.error(format!("%{name} is not defined here"))),
        }
    }

    /// Values separated by commas; at least one.
    fn values(&mut self) -> Result<Vec<Value>> {
        let mut values = vec![self.value()?];
        while self.s.eat(",") {
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// Values in brackets of the given kind.
    fn bracketed(&mut self, open: &str, close: &str) -> Result<Vec<Value>> {
        self.s.expect(open)?;
        if self.s.eat(close) {
            return Ok(Vec::new());
        }
        let values = self.values()?;
        self.s.expect(close)?;
        Ok(values)
    }

    /// Exactly `count` values separated by commas.
    fn some_values(&mut self, count: usize) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(count);
        for i in 0..count {
            if i > 0 {
                self.s.expect(",")?;
            }
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn ty_of(&self, value: Value) -> Type {
        self.function.ty(value).clone()
    }

    /// Whether a value has the type its use states.
    fn check(&mut self, value: Value, stated: &Type) -> Result<()> {
        if self.function.ty(value) == stated {
            return Ok(());
        }
        let found = crate::tile::print::TypeText(self.function.ty(value)).to_string();
        Err(self.s.error(format!("an operand is {found}, but the text says {}", crate::tile::print::TypeText(stated))))
    }

    fn check_all(&mut self, values: &[Value], stated: &[Type]) -> Result<()> {
        if values.len() != stated.len() {
            return Err(self.s.error(format!("{} values but {} types", values.len(), stated.len())));
        }
        values.iter().zip(stated).try_for_each(|(v, t)| self.check(*v, t))
    }

    /// `: type, type, …` for the given values.
    fn colon_types(&mut self, values: &[Value]) -> Result<()> {
        self.s.expect(":")?;
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                self.s.expect(",")?;
            }
            let stated = self.s.ty()?;
            self.check(*value, &stated)?;
        }
        Ok(())
    }

    /// Operations up to the closing brace (taken) or the next block's label (left).
    fn ops(&mut self) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        loop {
            self.s.operation.clear();
            self.s.begin = Loc::default();
            if self.s.eat("}") {
                return Ok(ops);
            }
            if self.s.peek() == b'^' {
                return Ok(ops);
            }
            if self.s.at_end() {
                return Err(self.s.error("a region has no end"));
            }
            if self.branches.is_some() {
                return Err(self.s.error("an operation after a branch"));
            }
            if let Some(op) = self.op()? {
                ops.push(op);
            }
        }
    }

    /// One operation; none for a branch, which is left in `branches`.
    fn op(&mut self) -> Result<Option<Op>> {
        let loc = self.s.loc();
        let mut names = Vec::new();
        if self.s.peek() == b'%' {
            loop {
                let name = self.s.suffix("%")?;
                let count = if self.s.eat(":") { u32::try_from(self.s.integer()?).unwrap_or(0) } else { 1 };
                if count == 0 || count > 1 << 12 {
                    return Err(self.s.error(format!("%{name} names {count} values")));
                }
                names.push((name, count as usize));
                if !self.s.eat(",") {
                    break;
                }
            }
            self.s.expect("=")?;
        }
        let name = if self.s.peek() == b'"' { self.s.string()? } else { self.s.word()?.to_owned() };
        self.s.operation.clone_from(&name);
        self.s.begin = loc;
        if self.branch(&name, loc)? {
            return if names.is_empty() { Ok(None) } else { Err(self.s.error("a branch has no results")) };
        }
        let Some(parsed) = self.dispatch(&name)? else {
            return Err(CompileError::unsupported(name, loc, "the operation is outside the subset; ops/compiler/README.md lists what is taken"));
        };
        self.s.skip_loc()?;
        let total: usize = names.iter().map(|(_, n)| n).sum();
        if total != parsed.results.len() {
            return Err(self.s.error(format!("{total} names for {} results", parsed.results.len())));
        }
        let mut results = Vec::with_capacity(total);
        let mut types = parsed.results.as_slice();
        for (name, count) in names {
            let (these, rest) = types.split_at(count);
            let first = self.bind(name, these)?;
            results.extend((first.0..first.0 + count as u32).map(Value));
            types = rest;
        }
        Ok(Some(Op { kind: parsed.kind, operands: parsed.operands, results, regions: parsed.regions, loc }))
    }

    fn dispatch(&mut self, name: &str) -> Result<Option<Parsed>> {
        for read in [Self::elementwise, Self::compute, Self::memory, Self::control] {
            if let Some(parsed) = read(self, name)? {
                return Ok(Some(parsed));
            }
        }
        Ok(None)
    }

    /// An attribute dictionary that an operation's format allows but that says nothing here.
    fn skip_attrs(&mut self) -> Result<()> {
        self.s.attrs().map(|_: Attrs| ())
    }
}
