//! Integers of every width: narrow ones are computed in 32 bits, and what a device might trap on or leave undefined is kept away from it.

use spirv::{GlslStd450Op as Glsl, Op};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::tile::{Binary, CmpI, Unary};

impl Emitter<'_> {
    /// An integer's bits in 32 or 64 bits, zero-extended; truth values as 0 or 1.
    pub(super) fn widen(&mut self, elem: Elem, value: Id) -> Id {
        if elem != Elem::I1 {
            return value;
        }
        let (one, zero) = (self.m.c32(1), self.m.c32(0));
        self.m.select(self.m.u32, value, one, zero)
    }

    /// The same, sign-extended.
    pub(super) fn widen_signed(&mut self, elem: Elem, value: Id) -> Id {
        if elem == Elem::I1 {
            let (all, none) = (self.m.c32(u32::MAX), self.m.c32(0));
            return self.m.select(self.m.u32, value, all, none);
        }
        if elem.bits() >= 32 {
            return value;
        }
        let by = self.m.c32(32 - elem.bits());
        let up = self.m.op(Op::ShiftLeftLogical, self.m.u32, &[value, by]);
        self.m.op(Op::ShiftRightArithmetic, self.m.u32, &[up, by])
    }

    /// Back from 32 or 64 bits: cuts off what is above the width.
    pub(super) fn narrow(&mut self, elem: Elem, value: Id) -> Id {
        if elem.bits() >= 32 {
            return value;
        }
        let mask = self.m.c32((1 << elem.bits()) - 1);
        let cut = self.m.op(Op::BitwiseAnd, self.m.u32, &[value, mask]);
        if elem == Elem::I1 { self.is_set(cut) } else { cut }
    }

    /// value != 0.
    pub(super) fn is_set(&mut self, value: Id) -> Id {
        let zero = self.m.c32(0);
        self.m.op(Op::INotEqual, self.m.bool, &[value, zero])
    }

    /// The type an integer is computed in, whether it is the 64-bit one, and a constant of it.
    fn wide(&mut self, elem: Elem) -> (Id, bool) {
        if elem.bits() == 64 { (self.m.u64, true) } else { (self.m.u32, false) }
    }
    /// A constant of the type an integer of this width is computed in.
    pub(super) fn number(&mut self, elem: Elem, value: i64) -> Id {
        if elem.bits() == 64 { self.m.c64(value as u64) } else { self.m.c32(value as u32) }
    }

    /// A function of two integers.
    pub(super) fn integers(&mut self, op: Binary, elem: Elem, a: Id, b: Id) -> Result<Id> {
        use Binary as B;
        if elem == Elem::I1 {
            let plain = match op {
                B::And => Some(Op::LogicalAnd),
                B::Or => Some(Op::LogicalOr),
                B::Xor => Some(Op::LogicalNotEqual),
                _ => None,
            };
            if let Some(op) = plain {
                return Ok(self.m.op(op, self.m.bool, &[a, b]));
            }
        }
        let (ty, _) = self.wide(elem);
        let signed = matches!(op, B::DivS | B::RemS | B::CeilDivS | B::FloorDivS | B::MaxS | B::MinS | B::ShrS);
        // The amount of a shift is unsigned.
        let x = if signed { self.widen_signed(elem, a) } else { self.widen(elem, a) };
        let y = if signed && op != B::ShrS { self.widen_signed(elem, b) } else { self.widen(elem, b) };
        let plain = |e: &mut Self, op: Op| e.m.op(op, ty, &[x, y]);
        let pick = |e: &mut Self, op: Op| {
            let first = e.m.op(op, e.m.bool, &[x, y]);
            e.m.select(ty, first, x, y)
        };
        let wide = match op {
            B::AddI => plain(self, Op::IAdd),
            B::SubI => plain(self, Op::ISub),
            B::MulI => plain(self, Op::IMul),
            B::And => plain(self, Op::BitwiseAnd),
            B::Or => plain(self, Op::BitwiseOr),
            B::Xor => plain(self, Op::BitwiseXor),
            B::MaxS => pick(self, Op::SGreaterThan),
            B::MaxU => pick(self, Op::UGreaterThan),
            B::MinS => pick(self, Op::SLessThan),
            B::MinU => pick(self, Op::ULessThan),
            B::MulHiU => self.high_product(elem, x, y),
            B::DivU | B::RemU => {
                let by = self.divisor(elem, false, x, y);
                self.m.op(if op == B::DivU { Op::UDiv } else { Op::UMod }, ty, &[x, by])
            }
            B::DivS | B::RemS | B::CeilDivS | B::FloorDivS => {
                let by = self.divisor(elem, true, x, y);
                self.signed_quotient(op, elem, x, by)
            }
            B::Shl | B::ShrS | B::ShrU => {
                let most = self.number(elem, if elem.bits() == 64 { 63 } else { 31 });
                let by = self.m.op(Op::BitwiseAnd, ty, &[y, most]);
                let op = match op {
                    B::Shl => Op::ShiftLeftLogical,
                    B::ShrS => Op::ShiftRightArithmetic,
                    _ => Op::ShiftRightLogical,
                };
                self.m.op(op, ty, &[x, by])
            }
            other => return unsupported(format!("{other:?}"), format!("{other:?} of {elem} is no operation on integers")),
        };
        Ok(self.narrow(elem, wide))
    }

    /// A divisor no device traps on: 1 instead of 0, and instead of -1 under the least number.
    fn divisor(&mut self, elem: Elem, signed: bool, x: Id, y: Id) -> Id {
        let (ty, wide) = self.wide(elem);
        let (zero, one) = (self.number(elem, 0), self.number(elem, 1));
        let mut bad = self.m.op(Op::IEqual, self.m.bool, &[y, zero]);
        if signed && elem.bits() >= 32 {
            let (least, minus) = (self.number(elem, if wide { i64::MIN } else { i64::from(i32::MIN) }), self.number(elem, -1));
            let (first, second) = (self.m.op(Op::IEqual, self.m.bool, &[x, least]), self.m.op(Op::IEqual, self.m.bool, &[y, minus]));
            let both = self.m.op(Op::LogicalAnd, self.m.bool, &[first, second]);
            bad = self.m.op(Op::LogicalOr, self.m.bool, &[bad, both]);
        }
        self.m.select(ty, bad, one, y)
    }

    /// Quotients and the remainder of signed numbers. Signed division of SPIR-V under Vulkan is only defined where no operand is negative
    /// for remainders, so the remainder is computed from the quotient.
    fn signed_quotient(&mut self, op: Binary, elem: Elem, x: Id, y: Id) -> Id {
        let (ty, _) = self.wide(elem);
        let q = self.m.op(Op::SDiv, ty, &[x, y]);
        if op == Binary::DivS {
            return q;
        }
        let back = self.m.op(Op::IMul, ty, &[q, y]);
        let rest = self.m.op(Op::ISub, ty, &[x, back]);
        if op == Binary::RemS {
            return rest;
        }
        let (zero, one) = (self.number(elem, 0), self.number(elem, 1));
        let uneven = self.m.op(Op::INotEqual, self.m.bool, &[rest, zero]);
        let signs = self.m.op(Op::BitwiseXor, ty, &[rest, y]);
        let floor = op == Binary::FloorDivS;
        let side = self.m.op(if floor { Op::SLessThan } else { Op::SGreaterThanEqual }, self.m.bool, &[signs, zero]);
        let both = self.m.op(Op::LogicalAnd, self.m.bool, &[uneven, side]);
        let step = self.m.select(ty, both, one, zero);
        self.m.op(if floor { Op::ISub } else { Op::IAdd }, ty, &[q, step])
    }

    /// The upper half of an unsigned product.
    pub(super) fn high_product(&mut self, elem: Elem, x: Id, y: Id) -> Id {
        let (u32, u64) = (self.m.u32, self.m.u64);
        match elem.bits() {
            64 => {
                let (mask, by) = (self.m.c64(0xffff_ffff), self.m.c32(32));
                let part = |e: &mut Self, v: Id| (e.m.op(Op::BitwiseAnd, u64, &[v, mask]), e.m.op(Op::ShiftRightLogical, u64, &[v, by]));
                let ((xl, xh), (yl, yh)) = (part(self, x), part(self, y));
                let [low, cross, other, high] = [[xl, yl], [xh, yl], [xl, yh], [xh, yh]].map(|p| self.m.op(Op::IMul, u64, &p));
                let carried = self.m.op(Op::ShiftRightLogical, u64, &[low, by]);
                let middle = self.m.op(Op::IAdd, u64, &[cross, carried]);
                let (ml, mh) = part(self, middle);
                let second = self.m.op(Op::IAdd, u64, &[other, ml]);
                let top = self.m.op(Op::ShiftRightLogical, u64, &[second, by]);
                let sum = self.m.op(Op::IAdd, u64, &[high, mh]);
                self.m.op(Op::IAdd, u64, &[sum, top])
            }
            32 => {
                let pair = self.m.global(Op::TypeStruct, None, &[u32, u32]);
                let both = self.m.op(Op::UMulExtended, pair, &[x, y]);
                self.m.op(Op::CompositeExtract, u32, &[both, 1])
            }
            bits => {
                let (product, by) = (self.m.op(Op::IMul, u32, &[x, y]), self.m.c32(bits));
                self.m.op(Op::ShiftRightLogical, u32, &[product, by])
            }
        }
    }

    /// Compares integers.
    pub(super) fn compare_integers(&mut self, op: CmpI, elem: Elem, a: Id, b: Id) -> Id {
        use CmpI as C;
        let signed = matches!(op, C::Slt | C::Sle | C::Sgt | C::Sge);
        let [x, y] = [a, b].map(|v| if signed { self.widen_signed(elem, v) } else { self.widen(elem, v) });
        let op = match op {
            C::Eq => Op::IEqual,
            C::Ne => Op::INotEqual,
            C::Slt => Op::SLessThan,
            C::Sle => Op::SLessThanEqual,
            C::Sgt => Op::SGreaterThan,
            C::Sge => Op::SGreaterThanEqual,
            C::Ult => Op::ULessThan,
            C::Ule => Op::ULessThanEqual,
            C::Ugt => Op::UGreaterThan,
            C::Uge => Op::UGreaterThanEqual,
        };
        self.m.op(op, self.m.bool, &[x, y])
    }

    /// Both halves of a 64-bit integer, low first.
    pub(super) fn halves(&mut self, value: Id) -> (Id, Id) {
        let by = self.m.c32(32);
        let high = self.m.op(Op::ShiftRightLogical, self.m.u64, &[value, by]);
        (self.m.op(Op::UConvert, self.m.u32, &[value]), self.m.op(Op::UConvert, self.m.u32, &[high]))
    }

    /// A function of one integer.
    pub(super) fn integer(&mut self, op: Unary, elem: Elem, a: Id) -> Result<Id> {
        let (ty, wide) = self.wide(elem);
        if op == Unary::AbsI {
            let (x, zero) = (self.widen_signed(elem, a), self.number(elem, 0));
            let (below, minus) = (self.m.op(Op::SLessThan, self.m.bool, &[x, zero]), self.m.op(Op::SNegate, ty, &[x]));
            let out = self.m.select(ty, below, minus, x);
            return Ok(self.narrow(elem, out));
        }
        let count: fn(&mut Self, Id) -> Id = match op {
            Unary::Ctlz => Self::leading,
            Unary::Cttz => Self::trailing,
            Unary::Ctpop => |e, v| e.m.op(Op::BitCount, e.m.u32, &[v]),
            other => return unsupported(format!("{other:?}"), format!("{other:?} of {elem} is no operation on integers")),
        };
        let x = self.widen(elem, a);
        let out = if wide {
            let (low, high) = self.halves(x);
            let (low_count, high_count) = (count(self, low), count(self, high));
            let sum = self.m.op(Op::IAdd, self.m.u32, &[low_count, high_count]);
            let total = match op {
                Unary::Ctpop => sum,
                // Where one half is all zeros its count is 32, and the other half's is added.
                _ => {
                    let (first, alone) = if op == Unary::Ctlz { (high, high_count) } else { (low, low_count) };
                    let found = self.is_set(first);
                    self.m.select(self.m.u32, found, alone, sum)
                }
            };
            self.m.op(Op::UConvert, self.m.u64, &[total])
        } else {
            match (op, elem.bits()) {
                (Unary::Ctlz, bits @ ..32) => {
                    let (all, above) = (count(self, x), self.m.c32(32 - bits));
                    self.m.op(Op::ISub, ty, &[all, above])
                }
                (Unary::Cttz, bits @ ..32) => {
                    let end = self.m.c32(1 << bits);
                    let ended = self.m.op(Op::BitwiseOr, ty, &[x, end]);
                    count(self, ended)
                }
                _ => count(self, x),
            }
        };
        Ok(self.narrow(elem, out))
    }

    /// Leading zeros of 32 bits; the highest bit of 0 is -1.
    fn leading(&mut self, x: Id) -> Id {
        let (bit, last) = (self.m.glsl(Glsl::FindUMsb, self.m.u32, &[x]), self.m.c32(31));
        self.m.op(Op::ISub, self.m.u32, &[last, bit])
    }

    /// Trailing zeros of 32 bits.
    fn trailing(&mut self, x: Id) -> Id {
        let (bit, found, all) = (self.m.glsl(Glsl::FindILsb, self.m.u32, &[x]), self.is_set(x), self.m.c32(32));
        self.m.select(self.m.u32, found, bit, all)
    }
}
