//! Builder: tile programs written in Rust that read like the kernel they describe.
//!
//! ```
//! use flagos_compiler::{Elem, build::kernel};
//!
//! let softmax = kernel("k_softmax", |k| {
//!     let (x, y, n) = (k.pointer(Elem::F16), k.pointer(Elem::F16), k.i32());
//!     let (row, i) = (k.program_id(0), k.arange(1024));
//!     let v = (x + row * n + i).load_masked(i.lt(n), f64::NEG_INFINITY).to(Elem::F32);
//!     let e = (v - v.max(0)).exp();
//!     (y + row * n + i).store_masked((e / e.sum(0)).to(Elem::F16), i.lt(n));
//! });
//! assert_eq!(softmax.functions[0].name, "k_softmax");
//! ```
//!
//! Values are handles ([`Expr`]) into the function being built on this thread; they mean nothing outside of the closure that made them.
//! A scalar meets a tile by being repeated, extents of 1 are repeated, i32 meets i64 by being widened. A misfit is a mistake in the
//! kernel's source and panics with both types.

mod control;
mod expr;
mod memory;
mod tile;

use std::cell::RefCell;

use crate::Elem;
use crate::tile::{ArgFacts, Block, Function, Item, Literal, Op, OpKind, Program, Type, Value, float_bits};

pub use expr::{Expr, IntoExpr};
pub use tile::{reduce, scan};

struct State {
    function: Function,
    /// The body, and inside of regions the blocks around the one being filled.
    blocks: Vec<Block>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(|s| f(s.as_mut().expect("values of a kernel are used inside of build::kernel")))
}

/// Builds a program of one kernel.
pub fn kernel(name: &str, body: impl FnOnce(&Kernel)) -> Program {
    let function =
        Function { name: name.to_owned(), public: true, facts: Vec::new(), results: Vec::new(), body: Block::default(), types: Vec::new() };
    STATE.with_borrow_mut(|s| {
        assert!(s.is_none(), "build::kernel inside of build::kernel");
        *s = Some(State { function, blocks: vec![Block::default()] });
    });
    let _clear = Clear;
    body(&Kernel(()));
    push(OpKind::Return, &[], Vec::new(), &[]);
    let mut state = STATE.take().expect("the state this function put there");
    state.function.body = state.blocks.pop().expect("the body");
    Program { functions: vec![state.function] }
}

/// Leaves no state behind when a kernel's source panics.
struct Clear;
impl Drop for Clear {
    fn drop(&mut self) {
        STATE.set(None);
    }
}

/// Adds an operation to the current block.
fn push(kind: OpKind, operands: &[Value], regions: Vec<Block>, results: &[Type]) -> Vec<Value> {
    with(|s| {
        let results: Vec<Value> = results.iter().map(|t| s.function.value(t.clone())).collect();
        let op = Op { kind, operands: operands.to_vec(), results: results.clone(), regions, loc: Default::default() };
        s.blocks.last_mut().expect("a block").ops.push(op);
        results
    })
}

/// Adds an operation with one result.
fn one(kind: OpKind, operands: &[Expr], result: Type) -> Expr {
    let operands: Vec<Value> = operands.iter().map(|e| e.0).collect();
    Expr(push(kind, &operands, Vec::new(), &[result])[0])
}

/// Fills a block with arguments of the given types; what `body` returns ends it.
fn region(args: &[Type], end: OpKind, body: impl FnOnce(&[Expr]) -> Vec<Expr>) -> Block {
    let args = with(|s| {
        let args: Vec<Value> = args.iter().map(|t| s.function.value(t.clone())).collect();
        s.blocks.push(Block { args: args.clone(), ops: Vec::new() });
        args
    });
    let exprs: Vec<Expr> = args.iter().map(|v| Expr(*v)).collect();
    let results: Vec<Value> = body(&exprs).iter().map(|e| e.0).collect();
    push(end, &results, Vec::new(), &[]);
    with(|s| s.blocks.pop().expect("the block pushed above"))
}

/// A constant of an element type, alone (`shape` empty) or as a tile of equal elements.
fn constant(shape: &[u32], elem: Elem, literal: Literal) -> Expr {
    let ty = if shape.is_empty() { Type::scalar(elem) } else { Type::tile(shape, elem) };
    one(OpKind::Constant(literal), &[], ty)
}

/// Literal of `elem` nearest to a number; integers take its integer part.
fn literal(elem: Elem, value: f64) -> Literal {
    float_bits(elem, value).map_or(Literal::Int(value as i64), Literal::Bits)
}

/// Literal of `elem` for an integer.
fn integer(elem: Elem, value: i64) -> Literal {
    float_bits(elem, value as f64).map_or(Literal::Int(value), Literal::Bits)
}

/// The kernel being built: its arguments, program ids, constants, control flow.
pub struct Kernel(());

impl Kernel {
    fn argument(&self, ty: Type, divisibility: u32) -> Expr {
        with(|s| {
            let value = s.function.value(ty);
            s.function.facts.push(ArgFacts { divisibility, ..ArgFacts::default() });
            s.blocks[0].args.push(value);
            Expr(value)
        })
    }
    /// A pointer argument.
    pub fn pointer(&self, elem: Elem) -> Expr {
        self.aligned_pointer(elem, 1)
    }
    /// A pointer argument whose address is a multiple of `bytes`.
    pub fn aligned_pointer(&self, elem: Elem, bytes: u32) -> Expr {
        self.argument(Type::Scalar(Item::Ptr(elem)), bytes)
    }
    /// A number argument.
    pub fn scalar(&self, elem: Elem) -> Expr {
        self.argument(Type::scalar(elem), 1)
    }
    /// An integer argument that is a multiple of `divisibility`.
    pub fn multiple(&self, elem: Elem, divisibility: u32) -> Expr {
        self.argument(Type::scalar(elem), divisibility)
    }
    /// An i32 argument.
    pub fn i32(&self) -> Expr {
        self.scalar(Elem::I32)
    }
    /// An i64 argument.
    pub fn i64(&self) -> Expr {
        self.scalar(Elem::I64)
    }
    /// Index of this program along an axis, i32.
    pub fn program_id(&self, axis: u8) -> Expr {
        one(OpKind::ProgramId(axis), &[], Type::scalar(Elem::I32))
    }
    /// Number of programs along an axis, i32.
    pub fn num_programs(&self, axis: u8) -> Expr {
        one(OpKind::NumPrograms(axis), &[], Type::scalar(Elem::I32))
    }
    /// The i32 tile 0, 1, …, n - 1.
    pub fn arange(&self, n: u32) -> Expr {
        one(OpKind::MakeRange(0), &[], Type::tile(&[n], Elem::I32))
    }
    /// A float constant, rounded to `elem`.
    pub fn float(&self, elem: Elem, value: f64) -> Expr {
        constant(&[], elem, literal(elem, value))
    }
    /// An integer constant.
    pub fn int(&self, elem: Elem, value: i64) -> Expr {
        constant(&[], elem, integer(elem, value))
    }
    /// A tile of equal elements.
    pub fn full(&self, shape: &[u32], elem: Elem, value: f64) -> Expr {
        constant(shape, elem, literal(elem, value))
    }
    /// A tile of equal integers (of floats nearest to them where `elem` is one).
    pub fn full_int(&self, shape: &[u32], elem: Elem, value: i64) -> Expr {
        constant(shape, elem, integer(elem, value))
    }
    /// A tile of zeros.
    pub fn zeros(&self, shape: &[u32], elem: Elem) -> Expr {
        self.full_int(shape, elem, 0)
    }
    /// Threads of the block meet; what they wrote to memory is seen after.
    pub fn barrier(&self) {
        push(OpKind::Barrier, &[], Vec::new(), &[]);
    }
}

/// A constant of any element type without a [`Kernel`] at hand, for code that is generic over scalars.
pub fn float_constant(elem: Elem, value: f64) -> Expr {
    constant(&[], elem, literal(elem, value))
}

/// An integer constant without a [`Kernel`] at hand.
pub fn int_constant(elem: Elem, value: i64) -> Expr {
    constant(&[], elem, integer(elem, value))
}

#[cfg(test)]
mod tests;
