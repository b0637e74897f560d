//! Lowering: a kernel over tiles becomes the program of one thread.
//!
//! ```text
//! expand     calls inlined, block pointers and descriptors become pointers and masks, carried pointers become base + scalar
//! layout     which thread holds which element: each bit of the element number is a bit of a register or thread number
//! node       tiles as expressions, evaluated where and in the layout somebody wants them; index arithmetic is repeated, not moved
//! place      loops over the elements of a layout, storage, moves between layouts through shared memory
//! ```
//!
//! Tiles with few elements per thread are unrolled into scalars; larger ones (a block that is one thread, large tiles) live in array
//! variables and are passed by loops, chains of elementwise operations in one loop. All control flow over tiles is uniform: its
//! conditions and bounds are scalars, which every thread of a block computes alike.

mod build;
mod control;
mod dot;
mod dot_blocked;
mod dot_scaled;
mod expand;
mod facts;
mod gather;
mod layout;
mod masks;
mod matrix;
mod memory;
mod node;
mod ops;
mod pipeline;
mod place;
mod pointers;
mod prim;
mod reduce;
mod rows;
mod scan;
mod strength;
#[cfg(test)]
mod dot_tests;
#[cfg(test)]
mod tests;
mod wanted;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};

use crate::error::{Kind, Loc, Result};
use crate::thread::{Kernel, Param, Stmt, Ty, Val, Var};
use crate::tile::{self, Function, Item, Type, Value};
use crate::{CompileError, Options, Target};

use build::Scope;
use node::Node;
use place::Tee;

/// Registers per thread up to which tiles are unrolled when a block has one thread.
const UNROLL_ONE: u32 = 8;
/// The same for blocks of several threads.
const UNROLL_MANY: u32 = 128;
/// Cost up to which an element is computed again rather than stored or moved.
const CHEAP: u32 = 16;
/// Height of an expression from which it is stored.
const DEEP: u32 = 200;

/// What a value of the tile program is while it is lowered.
#[derive(Clone)]
enum Rep {
    /// A scalar.
    Scalar(Val),
    /// A tile.
    Tile(Rc<Node>),
}

/// The state of a lowering.
struct Lower<'a> {
    target: &'a Target,
    function: &'a Function,
    kernel: Kernel,
    thread_bits: usize,
    scopes: Vec<Scope>,
    consts: HashMap<Val, u64>,
    /// Index and width in bits of every rolled loop.
    loops: Vec<(Val, u8)>,
    dynamics: Vec<(Val, u8)>,
    pool: Rc<RefCell<Vec<(Ty, u32, Var)>>>,
    nodes: u32,
    /// Whether the node being made is wanted by several places.
    many_next: bool,
    many: HashSet<Value>,
    env: HashMap<Value, Rep>,
    /// Divisibility of scalars, pointers in bytes.
    divisible: HashMap<Val, u64>,
    /// The argument a scalar pointer was made from.
    arguments: HashMap<Val, Val>,
    /// Loads that have not been stored.
    pending: Vec<Weak<Node>>,
    tee: Option<Tee>,
    /// All threads are at the code being made.
    uniform: bool,
    loop_depth: u32,
    /// Shared arrays in use across several moves.
    held: Vec<u32>,
    /// Tiles in fragments of a matrix unit, by number of their node.
    fragments: HashMap<u32, matrix::Fragments>,
    /// Products whose rows had better stay in one subgroup, by result.
    rows: HashSet<Value>,
    /// Left factors that were made before a loop, by number of their node.
    lefts: HashMap<u32, Vec<Val>>,
    /// Rounds of loops that are under way at once where copies can be; 1: one after the other.
    stages: u32,
    /// Loads whose tiles lie in shared memory.
    staged: HashMap<Value, matrix::Factor>,
    /// Copies that start once a matrix unit is at work.
    later: Vec<Stmt>,
    /// Masks (numbers of nodes) known to be true where code is being made.
    assumed: HashSet<u32>,
    /// The operation being lowered.
    at: (String, Loc),
}

/// Lowers function `entry` of a verified program for a target. Errors: `Invalid` for a missing function or options out of range,
/// `Unsupported` with the operation, `Limit` for shared memory or recursion.
pub fn lower(program: &tile::Program, entry: &str, target: &Target, options: &Options) -> Result<Kernel> {
    let threads = options.threads;
    if !threads.is_power_of_two() || threads > target.max_block_threads.max(1) {
        let message = format!("{threads} threads per block: must be a power of two of at most {}", target.max_block_threads);
        return Err(CompileError::invalid("", Loc::default(), message));
    }
    let function = strength::reduce(expand::expand(program, entry)?);
    let stages = if target.copies_aside() { options.stages.max(1) } else { 1 };
    // Rounds under way give up shared memory that the rest of the kernel needs.
    let mut tries = (1..=stages).rev().map(|stages| lower_function(&function, target, threads, stages));
    tries.find(|t| !matches!(t, Err(e) if e.kind == Kind::Limit)).unwrap_or_else(|| lower_function(&function, target, threads, 1))
}

fn lower_function(function: &Function, target: &Target, threads: u32, stages: u32) -> Result<Kernel> {
    let subgroup = if target.subgroup.is_power_of_two() && threads > 1 { target.subgroup.min(threads) } else { 0 };
    let kernel = Kernel {
        name: function.name.clone(),
        params: Vec::new(),
        threads,
        subgroup,
        types: Vec::new(),
        vars: Vec::new(),
        shared: Vec::new(),
        fragments: Vec::new(),
        body: Vec::new(),
    };
    let mut l = Lower {
        target,
        function,
        kernel,
        thread_bits: threads.trailing_zeros() as usize,
        scopes: Vec::new(),
        consts: HashMap::new(),
        loops: Vec::new(),
        dynamics: Vec::new(),
        pool: Rc::default(),
        nodes: 0,
        many_next: false,
        many: wanted::many(function),
        env: HashMap::new(),
        divisible: HashMap::new(),
        arguments: HashMap::new(),
        pending: Vec::new(),
        tee: None,
        uniform: true,
        loop_depth: 0,
        held: Vec::new(),
        fragments: HashMap::new(),
        rows: rows::rows(function),
        lefts: HashMap::new(),
        stages,
        staged: HashMap::new(),
        later: Vec::new(),
        assumed: HashSet::new(),
        at: ("tt.func".into(), Loc::default()),
    };
    l.run()?;
    Ok(l.kernel)
}

impl Lower<'_> {
    fn run(&mut self) -> Result<()> {
        self.open();
        for (i, arg) in self.function.body.args.iter().enumerate() {
            let Type::Scalar(item) = self.function.ty(*arg) else {
                return Err(self.unsupported("an entry point takes pointers and numbers only"));
            };
            let ty = node::item_ty(*item);
            let value = self.fresh(ty);
            self.kernel.params.push(Param { value, ty });
            let fact = self.function.facts.get(i).copied().unwrap_or_default();
            let least = if let Item::Ptr(e) = item { e.bytes() } else { 1 };
            self.divisible.insert(value, facts::power(u64::from(fact.divisibility.max(least))));
            if matches!(item, Item::Ptr(_)) {
                self.arguments.insert(value, value);
            }
            self.env.insert(*arg, Rep::Scalar(value));
        }
        self.block(&self.function.body)?;
        self.kernel.body = self.close();
        Ok(())
    }

    /// Divisibility of a scalar.
    fn div(&self, v: Val) -> u64 {
        match (self.constant(v), self.kernel.ty(v)) {
            (Some(n), Ty::Elem(e)) if e.is_int() => facts::power(n),
            _ => self.divisible.get(&v).copied().unwrap_or(1),
        }
    }

    fn rep(&self, v: Value) -> Result<Rep> {
        self.env.get(&v).cloned().ok_or_else(|| self.internal(format!("value {} is not defined here", v.0)))
    }

    fn scalar(&self, v: Value) -> Result<Val> {
        match self.rep(v)? {
            Rep::Scalar(s) => Ok(s),
            Rep::Tile(_) => Err(self.internal(format!("value {} is a tile where a scalar is wanted", v.0))),
        }
    }

    fn tile(&self, v: Value) -> Result<Rc<Node>> {
        match self.rep(v)? {
            Rep::Tile(t) => Ok(t),
            Rep::Scalar(_) => Err(self.internal(format!("value {} is a scalar where a tile is wanted", v.0))),
        }
    }

    fn unsupported(&self, message: impl Into<String>) -> CompileError {
        CompileError::unsupported(self.at.0.clone(), self.at.1, message)
    }

    fn limit(&self, message: impl Into<String>) -> CompileError {
        CompileError::limit(self.at.0.clone(), self.at.1, message)
    }

    fn internal(&self, message: String) -> CompileError {
        CompileError::invalid(self.at.0.clone(), self.at.1, message)
    }
}
