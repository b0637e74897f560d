//! A builder of thread programs: statements are appended to a list, values get the types they must have.

use crate::Elem;
use crate::thread::{Effect, Inst, Kernel, Place, Shared, SharedInfo, Stmt, Ty, Val, Var, VarInfo};
use crate::tile::{Binary, Cast, CmpF, CmpI, Unary};

impl Kernel {
    /// A kernel without parameters and statements.
    pub fn new(name: &str, threads: u32, subgroup: u32) -> Kernel {
        Kernel {
            name: name.into(),
            params: Vec::new(),
            threads,
            subgroup,
            types: Vec::new(),
            vars: Vec::new(),
            shared: Vec::new(),
            fragments: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A new value, to be defined by its user.
    pub fn value(&mut self, ty: Ty) -> Val {
        self.types.push(ty);
        Val(self.types.len() as u32 - 1)
    }

    /// A new parameter; its value.
    pub fn param(&mut self, ty: Ty) -> Val {
        let value = self.value(ty);
        self.params.push(crate::thread::Param { value, ty });
        value
    }

    /// A new variable of `len` elements.
    pub fn var(&mut self, ty: Ty, len: u32) -> Var {
        self.vars.push(VarInfo { ty, len });
        Var(self.vars.len() as u32 - 1)
    }

    /// A new shared array.
    pub fn shared_array(&mut self, elem: Elem, len: u32) -> Shared {
        self.shared.push(SharedInfo { elem, len });
        Shared(self.shared.len() as u32 - 1)
    }
}

/// Appends statements for a kernel. What is built is taken with [`Build::finish`]; the kernel's own body is not touched.
pub struct Build<'k> {
    /// Types, variables and arrays grow here.
    pub kernel: &'k mut Kernel,
    statements: Vec<Stmt>,
}

impl<'k> Build<'k> {
    /// An empty list of statements.
    pub fn new(kernel: &'k mut Kernel) -> Build<'k> {
        Build { kernel, statements: Vec::new() }
    }

    /// The statements built.
    pub fn finish(self) -> Vec<Stmt> {
        self.statements
    }

    /// What `f` builds, as a list of its own.
    pub fn nested(&mut self, f: impl FnOnce(&mut Build<'_>)) -> Vec<Stmt> {
        let mut inner = Build::new(self.kernel);
        f(&mut inner);
        inner.finish()
    }

    /// Puts statements in place of those built; the ones built.
    pub fn replace(&mut self, statements: Vec<Stmt>) -> Vec<Stmt> {
        core::mem::replace(&mut self.statements, statements)
    }

    /// Appends a statement.
    pub fn push(&mut self, stmt: Stmt) {
        self.statements.push(stmt);
    }

    /// Appends an effect.
    pub fn effect(&mut self, effect: Effect) {
        self.push(Stmt::Do(effect));
    }

    /// An instruction with one result of a type.
    pub fn inst(&mut self, ty: Ty, inst: Inst) -> Val {
        let value = self.kernel.value(ty);
        self.push(Stmt::Let { results: vec![value], inst });
        value
    }

    /// An instruction with one number as its result.
    pub fn number(&mut self, elem: Elem, inst: Inst) -> Val {
        self.inst(Ty::Elem(elem), inst)
    }

    /// Element type of a number (pointers count as i64).
    pub fn elem(&self, value: Val) -> Elem {
        match self.kernel.ty(value) {
            Ty::Elem(e) => e,
            _ => Elem::I64,
        }
    }

    /// A constant by its bits; bits beyond the type's are dropped.
    pub fn bits(&mut self, elem: Elem, bits: u64) -> Val {
        let unused = 64 - elem.bits();
        self.number(elem, Inst::Const(bits << unused >> unused))
    }

    /// An integer constant.
    pub fn int(&mut self, elem: Elem, value: i64) -> Val {
        self.bits(elem, value as u64)
    }

    /// An i32 constant.
    pub fn i32(&mut self, value: i32) -> Val {
        self.int(Elem::I32, i64::from(value))
    }

    /// An f32 or f64 constant, rounded to the type.
    pub fn float(&mut self, elem: Elem, value: f64) -> Val {
        let bits = if elem == Elem::F64 { value.to_bits() } else { u64::from((value as f32).to_bits()) };
        self.bits(elem, bits)
    }

    /// A function of one operand with a result of its type.
    pub fn unary(&mut self, op: Unary, a: Val) -> Val {
        let elem = if matches!(op, Unary::IsNan | Unary::IsInf | Unary::IsFinite) { Elem::I1 } else { self.elem(a) };
        self.number(elem, Inst::Unary(op, a))
    }

    /// A function of two operands.
    pub fn binary(&mut self, op: Binary, a: Val, b: Val) -> Val {
        let elem = self.elem(a);
        self.number(elem, Inst::Binary(op, a, b))
    }

    /// A function of an integer and an integer constant.
    pub fn binary_int(&mut self, op: Binary, a: Val, b: i64) -> Val {
        let elem = self.elem(a);
        let b = self.int(elem, b);
        self.binary(op, a, b)
    }

    /// a·b + c rounded once.
    pub fn fma(&mut self, a: Val, b: Val, c: Val) -> Val {
        let elem = self.elem(a);
        self.number(elem, Inst::Fma(a, b, c))
    }

    /// An integer comparison.
    pub fn cmp_i(&mut self, op: CmpI, a: Val, b: Val) -> Val {
        self.number(Elem::I1, Inst::CmpI(op, a, b))
    }

    /// A float comparison.
    pub fn cmp_f(&mut self, op: CmpF, a: Val, b: Val) -> Val {
        self.number(Elem::I1, Inst::CmpF(op, a, b))
    }

    /// condition ? a : b.
    pub fn select(&mut self, condition: Val, a: Val, b: Val) -> Val {
        let ty = self.kernel.ty(a);
        self.inst(ty, Inst::Select(condition, a, b))
    }

    /// A conversion to an element type.
    pub fn cast(&mut self, op: Cast, to: Elem, a: Val) -> Val {
        self.number(to, Inst::Cast(op, a))
    }

    /// Pointer plus a number of elements.
    pub fn ptr_add(&mut self, pointer: Val, offset: Val) -> Val {
        let ty = self.kernel.ty(pointer);
        self.inst(ty, Inst::PtrAdd(pointer, offset))
    }

    /// Value of a variable's element.
    pub fn get(&mut self, var: Var, index: u32) -> Val {
        let ty = self.kernel.vars[var.0 as usize].ty;
        self.inst(ty, Inst::Get(var, index))
    }

    /// Sets a variable's element.
    pub fn set(&mut self, var: Var, index: u32, value: Val) {
        self.effect(Effect::Set(var, index, value));
    }

    /// `count` consecutive elements, unconditionally.
    pub fn load(&mut self, place: Place, count: usize) -> Vec<Val> {
        let elem = match place {
            Place::Global { pointer, .. } => match self.kernel.ty(pointer) {
                Ty::Ptr(e) | Ty::Elem(e) => e,
                Ty::Fragment(_) => Elem::I8,
            },
            Place::Shared { array, .. } => self.kernel.shared[array.0 as usize].elem,
        };
        let results: Vec<Val> = (0..count).map(|_| self.kernel.value(Ty::Elem(elem))).collect();
        self.push(Stmt::Let { results: results.clone(), inst: Inst::Load { place, mask: None, other: None, volatile: false } });
        results
    }

    /// Writes consecutive elements, unconditionally.
    pub fn store(&mut self, place: Place, values: &[Val]) {
        self.effect(Effect::Store { place, values: values.to_vec(), mask: None });
    }

    /// Runs what `then` builds when the condition holds.
    pub fn when(&mut self, condition: Val, uniform: bool, then: impl FnOnce(&mut Build<'_>)) {
        let then = self.nested(then);
        self.push(Stmt::If { condition, uniform, then, other: Vec::new() });
    }

    /// A counted loop over i32 that every thread runs alike; the body gets the index.
    pub fn count(&mut self, low: Val, high: Val, step: Val, unroll: u32, body: impl FnOnce(&mut Build<'_>, Val)) {
        let ty = self.kernel.ty(low);
        let index = self.kernel.value(ty);
        let body = self.nested(|b| body(b, index));
        self.push(Stmt::For { index, low, high, step, unsigned: false, uniform: true, unroll, body });
    }
}
