//! Making thread code: values, constants, folding, equal instructions found again, scopes.

use std::collections::HashMap;
use std::rc::Weak;

use crate::Elem;
use crate::lower::Lower;
use crate::lower::layout::Bit;
use crate::lower::node::{Node, Pos};
use crate::thread::{Effect, Inst, Stmt, Ty, Val, Var, VarInfo};
use crate::tile::{Binary, CmpI};

/// What is known inside one statement list.
#[derive(Default)]
pub(super) struct Scope {
    stmts: Vec<Stmt>,
    equal: HashMap<(Ty, Inst), Val>,
    /// Values of nodes at element numbers.
    pub memo: HashMap<(u32, Pos), Val>,
    /// Nodes that got storage here.
    pub stored: Vec<Weak<Node>>,
}

fn pure(inst: &Inst) -> bool {
    matches!(
        inst,
        Inst::Const(_) | Inst::Undef | Inst::BlockId(_) | Inst::NumBlocks(_) | Inst::ThreadId | Inst::Unary(..) | Inst::Binary(..) | Inst::Fma(..)
            | Inst::CmpI(..) | Inst::CmpF(..) | Inst::Select(..) | Inst::Cast(..) | Inst::PtrAdd(..)
    )
}

impl Lower<'_> {
    /// Opens a statement list.
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Closes the innermost statement list; storage made in it is forgotten.
    pub fn close(&mut self) -> Vec<Stmt> {
        let depth = self.scopes.len();
        let Some(scope) = self.scopes.pop() else { return Vec::new() };
        for node in scope.stored.iter().filter_map(Weak::upgrade) {
            node.versions.borrow_mut().retain(|v| v.scope < depth);
        }
        scope.stmts
    }

    /// Appends a statement.
    pub fn push(&mut self, stmt: Stmt) {
        if let Some(s) = self.scopes.last_mut() {
            s.stmts.push(stmt);
        }
    }

    /// Appends an effect.
    pub fn effect(&mut self, effect: Effect) {
        self.push(Stmt::Do(effect));
    }

    /// A new value without definition (for instructions with several results and loop indices).
    pub fn fresh(&mut self, ty: Ty) -> Val {
        self.kernel.types.push(ty);
        Val(self.kernel.types.len() as u32 - 1)
    }

    /// A new variable.
    pub fn var(&mut self, ty: Ty, len: u32) -> Var {
        self.kernel.vars.push(VarInfo { ty, len });
        Var(self.kernel.vars.len() as u32 - 1)
    }

    /// Value of an instruction with one result; equal pure instructions in sight are found again.
    pub fn inst(&mut self, ty: Ty, inst: Inst) -> Val {
        if !pure(&inst) {
            let v = self.fresh(ty);
            self.push(Stmt::Let { results: vec![v], inst });
            return v;
        }
        let key = (ty, inst);
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.equal.get(&key)) {
            return *v;
        }
        let v = self.fresh(ty);
        if let Inst::Const(bits) = key.1 {
            self.consts.insert(v, bits);
        }
        self.push(Stmt::Let { results: vec![v], inst: key.1.clone() });
        if let Some(s) = self.scopes.last_mut() {
            s.equal.insert(key, v);
        }
        v
    }

    /// A constant of an element type, from its bits.
    pub fn bits(&mut self, elem: Elem, bits: u64) -> Val {
        let mask = if elem.bits() == 64 { u64::MAX } else { (1u64 << elem.bits()) - 1 };
        self.inst(Ty::Elem(elem), Inst::Const(bits & mask))
    }

    /// An i32 constant.
    pub fn i32(&mut self, n: i64) -> Val {
        self.bits(Elem::I32, n as u64)
    }

    /// An i1 constant.
    pub fn truth(&mut self, b: bool) -> Val {
        self.bits(Elem::I1, u64::from(b))
    }

    /// Bits of a value known to be constant.
    pub fn constant(&self, v: Val) -> Option<u64> {
        self.consts.get(&v).copied()
    }

    /// The thread's number.
    pub fn tid(&mut self) -> Val {
        if self.thread_bits == 0 { self.i32(0) } else { self.inst(Ty::Elem(Elem::I32), Inst::ThreadId) }
    }

    /// An integer operation, folded where that is plain.
    pub fn int(&mut self, op: Binary, elem: Elem, a: Val, b: Val) -> Val {
        let (ca, cb) = (self.constant(a), self.constant(b));
        match (op, ca, cb) {
            (Binary::AddI | Binary::Or | Binary::Xor, Some(0), _) => return b,
            (Binary::AddI | Binary::SubI | Binary::Or | Binary::Xor | Binary::Shl | Binary::ShrU | Binary::ShrS, _, Some(0)) => return a,
            (Binary::MulI, Some(1), _) => return b,
            (Binary::MulI | Binary::DivS | Binary::DivU, _, Some(1)) => return a,
            (Binary::MulI | Binary::And, Some(0), _) => return a,
            (Binary::MulI | Binary::And, _, Some(0)) => return b,
            (Binary::And, Some(x), _) if elem == Elem::I1 && x == 1 => return b,
            (Binary::And, _, Some(x)) if elem == Elem::I1 && x == 1 => return a,
            _ => {}
        }
        if let (Some(x), Some(y)) = (ca, cb) {
            let folded = match op {
                Binary::AddI => Some(x.wrapping_add(y)),
                Binary::SubI => Some(x.wrapping_sub(y)),
                Binary::MulI => Some(x.wrapping_mul(y)),
                Binary::And => Some(x & y),
                Binary::Or => Some(x | y),
                Binary::Xor => Some(x ^ y),
                Binary::Shl if y < u64::from(elem.bits()) => Some(x << y),
                Binary::ShrU if y < u64::from(elem.bits()) => Some(x >> y),
                _ => None,
            };
            if let Some(n) = folded {
                return self.bits(elem, n);
            }
        }
        self.inst(Ty::Elem(elem), Inst::Binary(op, a, b))
    }

    /// i32 sum.
    pub fn add(&mut self, a: Val, b: Val) -> Val {
        self.int(Binary::AddI, Elem::I32, a, b)
    }

    /// i1 and.
    pub fn and(&mut self, a: Val, b: Val) -> Val {
        self.int(Binary::And, Elem::I1, a, b)
    }

    /// Both masks where present.
    pub fn both(&mut self, a: Option<Val>, b: Option<Val>) -> Option<Val> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.and(a, b)),
            (a, b) => a.or(b),
        }
    }

    /// Integer comparison.
    pub fn cmp(&mut self, op: CmpI, a: Val, b: Val) -> Val {
        self.inst(Ty::Elem(Elem::I1), Inst::CmpI(op, a, b))
    }

    /// condition ? a : b.
    pub fn select(&mut self, condition: Val, a: Val, b: Val) -> Val {
        if a == b {
            return a;
        }
        match self.constant(condition) {
            Some(0) => b,
            Some(_) => a,
            None => {
                let ty = self.kernel.ty(a);
                self.inst(ty, Inst::Select(condition, a, b))
            }
        }
    }

    /// The i32 whose bits are given, lowest first.
    pub fn compose(&mut self, bits: &[Bit]) -> Val {
        let mut sum: Option<Val> = None;
        let mut fixed = 0u64;
        let mut i = 0;
        while i < bits.len() {
            let source = match bits[i] {
                Bit::Zero => None,
                Bit::One => {
                    fixed |= 1 << i;
                    None
                }
                Bit::Thread(b) => Some((b, 0, 0)),
                Bit::Loop(l, b) => Some((b, 1, l)),
                Bit::Value(l, b) => Some((b, 2, l)),
            };
            let Some((first, kind, number)) = source else {
                i += 1;
                continue;
            };
            let at = |n: u8| match kind {
                0 => Bit::Thread(first + n),
                1 => Bit::Loop(number, first + n),
                _ => Bit::Value(number, first + n),
            };
            let mut n = 1u8;
            while i + usize::from(n) < bits.len() && bits[i + usize::from(n)] == at(n) {
                n += 1;
            }
            let (value, width) = match kind {
                0 => (self.tid(), self.thread_bits as u8),
                1 => self.loops[number as usize],
                _ => self.dynamics[number as usize],
            };
            let shift = self.i32(i64::from(first));
            let mut piece = self.int(Binary::ShrU, Elem::I32, value, shift);
            if first + n < width {
                let mask = self.i32((1i64 << n) - 1);
                piece = self.int(Binary::And, Elem::I32, piece, mask);
            }
            let up = self.i32(i as i64);
            piece = self.int(Binary::Shl, Elem::I32, piece, up);
            sum = Some(match sum {
                None => piece,
                Some(s) => self.add(s, piece),
            });
            i += usize::from(n);
        }
        let fixed = self.i32(fixed as i64);
        match sum {
            None => fixed,
            Some(s) => self.add(s, fixed),
        }
    }

    /// The i1 value of one bit.
    pub fn bit(&mut self, bit: Bit) -> Val {
        match bit {
            Bit::Zero => self.truth(false),
            Bit::One => self.truth(true),
            other => {
                let (value, at) = match other {
                    Bit::Thread(b) => (self.tid(), b),
                    Bit::Loop(l, b) => (self.loops[l as usize].0, b),
                    Bit::Value(l, b) => (self.dynamics[l as usize].0, b),
                    _ => unreachable!("constants are handled above"),
                };
                let mask = self.i32(1 << at);
                let zero = self.i32(0);
                let masked = self.int(Binary::And, Elem::I32, value, mask);
                self.cmp(CmpI::Ne, masked, zero)
            }
        }
    }

    /// Registers an i32 value below 2^bits as a source of bits.
    pub fn dynamic(&mut self, value: Val, bits: usize) -> Vec<Bit> {
        let number = self.dynamics.len() as u32;
        self.dynamics.push((value, bits as u8));
        (0..bits).map(|b| Bit::Value(number, b as u8)).collect()
    }

    /// A loop over 0..2^bits; the closure gets the bits of its index.
    pub fn counted<R>(&mut self, bits: usize, uniform: bool, body: impl FnOnce(&mut Self, &[Bit]) -> R) -> R {
        if bits == 0 {
            return body(self, &[]);
        }
        let index = self.fresh(Ty::Elem(Elem::I32));
        let (low, high, step) = (self.i32(0), self.i32(1 << bits), self.i32(1));
        let number = self.loops.len() as u32;
        self.loops.push((index, bits as u8));
        self.open();
        let all: Vec<Bit> = (0..bits).map(|b| Bit::Loop(number, b as u8)).collect();
        let result = body(self, &all);
        let stmts = self.close();
        self.push(Stmt::For { index, low, high, step, unsigned: false, uniform, unroll: 0, body: stmts });
        result
    }

    /// Runs the closure's statements under a condition, without an else branch.
    pub fn when<R>(&mut self, condition: Option<Val>, uniform: bool, body: impl FnOnce(&mut Self) -> R) -> R {
        let Some(condition) = condition.filter(|c| self.constant(*c) != Some(1)) else { return body(self) };
        self.open();
        let result = body(self);
        let then = self.close();
        self.push(Stmt::If { condition, uniform, then, other: Vec::new() });
        result
    }
}
