//! Elementwise operations on scalars: arithmetic of narrow floats in f32, truth values, clamping, libdevice names.

use crate::Elem;
use crate::error::Result;
use crate::lower::Lower;
use crate::lower::node::item_ty;
use crate::thread::{Inst, Ty, Val};
use crate::tile::{Binary, Cast, CmpF, CmpI, Item, Unary};

/// An elementwise operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Prim {
    /// One operand.
    Unary(Unary),
    /// Two operands.
    Binary(Binary),
    /// a·b + c.
    Fma,
    /// Integer comparison.
    CmpI(CmpI),
    /// Float comparison.
    CmpF(CmpF),
    /// condition ? a : b.
    Select,
    /// Between bounds; NaN stays if true.
    Clamp(bool),
    /// Conversion.
    Cast(Cast),
    /// Pointer plus elements.
    AddPtr,
}

impl Prim {
    /// Rough cost.
    pub fn cost(self) -> u32 {
        match self {
            Prim::Unary(Unary::NegF | Unary::AbsF | Unary::AbsI | Unary::IsNan | Unary::IsInf | Unary::IsFinite | Unary::Floor | Unary::Ceil | Unary::Trunc) => 1,
            Prim::Unary(_) => 20,
            Prim::Binary(Binary::Pow | Binary::Atan2 | Binary::RemF) => 40,
            Prim::Binary(Binary::DivF | Binary::DivS | Binary::DivU | Binary::RemS | Binary::RemU | Binary::CeilDivS | Binary::FloorDivS) => 6,
            _ => 1,
        }
    }
}

fn narrow(e: Elem) -> bool {
    e.is_float() && !matches!(e, Elem::F32 | Elem::F64)
}

impl Lower<'_> {
    /// An elementwise operation; `from` is the type of its first number operand, `to` of its result.
    pub fn prim(&mut self, prim: Prim, from: Item, to: Item, args: &[Val]) -> Result<Val> {
        let ty = item_ty(to);
        let (Item::Elem(fe), Item::Elem(te)) = (from, to) else { return Ok(self.pointer_prim(prim, from, to, args)) };
        Ok(match prim {
            Prim::Select => self.select(args[0], args[1], args[2]),
            Prim::Cast(op) => self.cast(op, fe, te, args[0]),
            Prim::AddPtr => return Err(self.internal("pointer arithmetic on numbers".into())),
            _ if narrow(fe) && !matches!(prim, Prim::Unary(Unary::Ctlz | Unary::Cttz | Unary::Ctpop)) => {
                let wide: Vec<Val> = args.iter().map(|a| self.inst(Ty::Elem(Elem::F32), Inst::Cast(widen(fe), *a))).collect();
                let result = if te.is_float() { Elem::F32 } else { te };
                let v = self.prim(prim, Item::Elem(Elem::F32), Item::Elem(result), &wide)?;
                if te.is_float() { self.inst(ty, Inst::Cast(shorten(te), v)) } else { v }
            }
            Prim::Unary(op) => self.inst(ty, Inst::Unary(op, args[0])),
            Prim::Binary(op) if fe == Elem::I1 => self.logic(op, args[0], args[1]),
            Prim::Binary(op) if fe.is_int() => self.int(op, fe, args[0], args[1]),
            Prim::Binary(op) => self.inst(ty, Inst::Binary(op, args[0], args[1])),
            Prim::Fma => self.inst(ty, Inst::Fma(args[0], args[1], args[2])),
            Prim::CmpI(op) if fe == Elem::I1 && !matches!(op, CmpI::Eq | CmpI::Ne) => {
                let signed = matches!(op, CmpI::Slt | CmpI::Sle | CmpI::Sgt | CmpI::Sge);
                let ext = if signed { Cast::ExtS } else { Cast::ExtU };
                let a = self.inst(Ty::Elem(Elem::I8), Inst::Cast(ext, args[0]));
                let b = self.inst(Ty::Elem(Elem::I8), Inst::Cast(ext, args[1]));
                self.cmp(op, a, b)
            }
            Prim::CmpI(op) => self.cmp(op, args[0], args[1]),
            Prim::CmpF(op) => self.inst(ty, Inst::CmpF(op, args[0], args[1])),
            Prim::Clamp(nan) => {
                let (max, min) = if nan { (Binary::MaximumF, Binary::MinimumF) } else { (Binary::MaxNumF, Binary::MinNumF) };
                let low = self.inst(ty, Inst::Binary(max, args[0], args[1]));
                self.inst(ty, Inst::Binary(min, low, args[2]))
            }
        })
    }

    fn pointer_prim(&mut self, prim: Prim, from: Item, to: Item, args: &[Val]) -> Val {
        let ty = item_ty(to);
        match prim {
            Prim::AddPtr if self.constant(args[1]) == Some(0) => args[0],
            Prim::AddPtr => self.inst(ty, Inst::PtrAdd(args[0], args[1])),
            Prim::Select => self.select(args[0], args[1], args[2]),
            Prim::CmpI(op) => {
                let a = self.inst(Ty::Elem(Elem::I64), Inst::Cast(Cast::PtrToInt, args[0]));
                let b = self.inst(Ty::Elem(Elem::I64), Inst::Cast(Cast::PtrToInt, args[1]));
                self.cmp(op, a, b)
            }
            Prim::Cast(_) if from == to => args[0],
            Prim::Cast(op) => match (from, to) {
                (Item::Ptr(_), Item::Ptr(_)) => {
                    let n = self.inst(Ty::Elem(Elem::I64), Inst::Cast(Cast::PtrToInt, args[0]));
                    self.inst(ty, Inst::Cast(Cast::IntToPtr, n))
                }
                (Item::Ptr(_), _) => self.inst(ty, Inst::Cast(Cast::PtrToInt, args[0])),
                (_, Item::Ptr(_)) => self.inst(ty, Inst::Cast(Cast::IntToPtr, args[0])),
                _ => self.inst(ty, Inst::Cast(op, args[0])),
            },
            _ => self.inst(ty, Inst::Undef),
        }
    }

    /// A conversion of numbers.
    pub fn cast(&mut self, op: Cast, from: Elem, to: Elem, v: Val) -> Val {
        if from == to && !matches!(op, Cast::FpToSi | Cast::FpToUi | Cast::SiToFp | Cast::UiToFp) {
            return v;
        }
        if let (Some(bits), true) = (self.constant(v), from.is_int() && to.is_int()) {
            let shift = 64 - from.bits();
            return match op {
                Cast::ExtS => self.bits(to, ((bits << shift) as i64 >> shift) as u64),
                _ => self.bits(to, bits),
            };
        }
        self.inst(Ty::Elem(to), Inst::Cast(op, v))
    }

    fn logic(&mut self, op: Binary, a: Val, b: Val) -> Val {
        let op = match op {
            Binary::AddI | Binary::SubI | Binary::Xor => Binary::Xor,
            Binary::MulI | Binary::And | Binary::MinU | Binary::MaxS => Binary::And,
            Binary::Or | Binary::MaxU | Binary::MinS => Binary::Or,
            other => other,
        };
        self.int(op, Elem::I1, a, b)
    }
}

fn widen(e: Elem) -> Cast {
    if e.bytes() == 1 { Cast::FpToFp } else { Cast::ExtF }
}

fn shorten(e: Elem) -> Cast {
    if e.bytes() == 1 { Cast::FpToFp } else { Cast::TruncF }
}
