//! Float arithmetic and elementwise functions.

use spirv::{GlslStd450Op as Glsl, Op};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::tile::{Binary, Cast, CmpF, Unary};

impl Emitter<'_> {
    /// Computes in single precision where the element is narrower, and rounds the result once.
    pub(super) fn in_float(&mut self, elem: Elem, parts: &[Id], f: impl FnOnce(&mut Self, Elem, &[Id]) -> Result<Id>) -> Result<Id> {
        if matches!(elem, Elem::F32 | Elem::F64) {
            return f(self, elem, parts);
        }
        if !elem.is_float() {
            return unsupported("", format!("a float operation on {elem}"));
        }
        let wide = parts.iter().map(|p| self.cast(Cast::FpToFp, elem, Elem::F32, *p)).collect::<Result<Vec<Id>>>()?;
        let out = f(self, Elem::F32, &wide)?;
        self.cast(Cast::FpToFp, Elem::F32, elem, out)
    }

    /// Bits of a float as an integer of 32 or 64 bits.
    pub(super) fn bits(&mut self, elem: Elem, value: Id) -> Id {
        match elem {
            Elem::F32 => self.m.op(Op::Bitcast, self.m.u32, &[value]),
            Elem::F64 => self.m.op(Op::Bitcast, self.m.u64, &[value]),
            _ => value,
        }
    }

    /// A float from the bits of an integer of 32 or 64 bits.
    pub(super) fn reinterpret(&mut self, elem: Elem, bits: Id) -> Id {
        if !matches!(elem, Elem::F32 | Elem::F64) {
            return bits;
        }
        let ty = self.elem(elem);
        self.m.op(Op::Bitcast, ty, &[bits])
    }

    /// Sign bit, infinity, and the type of a float's bits.
    fn masks(&mut self, elem: Elem) -> (Id, Id, Id, Id) {
        let (sign, infinity) = match elem {
            Elem::F64 => (i64::MIN, 0x7ff0_0000_0000_0000),
            Elem::F32 => (0x8000_0000, 0x7f80_0000),
            Elem::F16 => (0x8000, 0x7c00),
            Elem::BF16 => (0x8000, 0x7f80),
            Elem::F8E5M2 => (0x80, 0x7c),
            // No infinity; all above it is NaN.
            _ => (0x80, 0x7e),
        };
        let ty = if elem == Elem::F64 { self.m.u64 } else { self.m.u32 };
        (self.number(elem, sign), self.number(elem, !sign & if elem == Elem::F64 { -1 } else { 0xffff_ffff }), self.number(elem, infinity), ty)
    }

    /// Whether a float is NaN, by its bits: drivers that assume there are none cannot be wrong.
    fn is_nan(&mut self, elem: Elem, value: Id) -> Id {
        self.class(elem, value, Op::UGreaterThan)
    }

    /// Whether a float is finite, by its bits.
    pub(super) fn is_finite(&mut self, elem: Elem, value: Id) -> Id {
        self.class(elem, value, Op::ULessThan)
    }

    /// Compares the magnitude's bits with infinity's.
    fn class(&mut self, elem: Elem, value: Id, op: Op) -> Id {
        let (_, rest, infinity, ty) = self.masks(elem);
        let bits = self.bits(elem, value);
        let size = self.m.op(Op::BitwiseAnd, ty, &[bits, rest]);
        self.m.op(op, self.m.bool, &[size, infinity])
    }

    /// A function of one operand.
    pub(super) fn unary(&mut self, op: Unary, elem: Elem, a: Id) -> Result<Id> {
        use Unary as U;
        match op {
            U::AbsI | U::Ctlz | U::Cttz | U::Ctpop => return self.integer(op, elem, a),
            _ if !elem.is_float() => return unsupported(format!("{op:?}"), format!("{op:?} of {elem}, which is no float")),
            U::IsNan => return Ok(self.is_nan(elem, a)),
            U::IsInf if elem == Elem::F8E4M3 => return Ok(self.m.truth(false)),
            U::IsInf => return Ok(self.class(elem, a, Op::IEqual)),
            U::IsFinite if elem == Elem::F8E4M3 => return Ok(self.class(elem, a, Op::ULessThanEqual)),
            U::IsFinite => return Ok(self.class(elem, a, Op::ULessThan)),
            U::NegF | U::AbsF => {
                let (sign, rest, _, ty) = self.masks(elem);
                let bits = self.bits(elem, a);
                let out = if op == U::NegF { self.m.op(Op::BitwiseXor, ty, &[bits, sign]) } else { self.m.op(Op::BitwiseAnd, ty, &[bits, rest]) };
                return Ok(self.reinterpret(elem, out));
            }
            _ => {}
        }
        self.in_float(elem, &[a], |e, elem, parts| e.function(op, elem, parts[0]))
    }

    /// A function of one f32 or f64.
    fn function(&mut self, op: Unary, elem: Elem, a: Id) -> Result<Id> {
        use Unary as U;
        let ty = self.elem(elem);
        let simple = match op {
            U::Floor => return Ok(self.whole(Glsl::Floor, elem, a)),
            U::Ceil => return Ok(self.whole(Glsl::Ceil, elem, a)),
            U::Trunc => return Ok(self.whole(Glsl::Trunc, elem, a)),
            U::RoundEven => return Ok(self.whole(Glsl::RoundEven, elem, a)),
            U::Sqrt => Some(Glsl::Sqrt),
            U::Rsqrt => Some(Glsl::InverseSqrt),
            _ => None,
        };
        if let Some(function) = simple {
            return Ok(self.m.glsl(function, ty, &[a]));
        }
        if op == U::Round {
            return Ok(self.round(elem, a));
        }
        let function = match op {
            U::Exp => Glsl::Exp,
            U::Exp2 => Glsl::Exp2,
            U::Log => Glsl::Log,
            U::Log2 => Glsl::Log2,
            U::Sin => Glsl::Sin,
            U::Cos => Glsl::Cos,
            U::Tan => Glsl::Tan,
            U::Asin => Glsl::Asin,
            U::Acos => Glsl::Acos,
            U::Atan => Glsl::Atan,
            U::Sinh => Glsl::Sinh,
            U::Cosh => Glsl::Cosh,
            U::Tanh => Glsl::Tanh,
            U::Asinh => Glsl::Asinh,
            U::Acosh => Glsl::Acosh,
            U::Atanh => Glsl::Atanh,
            other => return unsupported(format!("{other:?}"), format!("SPIR-V has no function {other:?} of {elem}")),
        };
        if elem != Elem::F32 {
            return unsupported(format!("{op:?}"), format!("SPIR-V has no function {op:?} of {elem}"));
        }
        Ok(self.m.glsl(function, ty, &[a]))
    }

    /// A whole number near a, with the sign of a.
    fn whole(&mut self, function: Glsl, elem: Elem, a: Id) -> Id {
        let ty = self.elem(elem);
        if elem == Elem::F64 { self.whole_f64(function, a) } else { self.m.glsl(function, ty, &[a]) }
    }

    /// To nearest, ties away from zero; a zero keeps its sign.
    fn round(&mut self, elem: Elem, a: Id) -> Id {
        let ty = self.elem(elem);
        let (half, one, zero) = (self.float(elem, 0.5), self.float(elem, 1.0), self.float(elem, 0.0));
        let (size, whole) = (self.size(elem, a), self.whole(Glsl::Trunc, elem, a));
        let whole = self.size(elem, whole);
        let rest = self.m.exact(Op::FSub, ty, &[size, whole]);
        let away = self.m.op(Op::FOrdGreaterThanEqual, self.m.bool, &[rest, half]);
        let step = self.m.select(ty, away, one, zero);
        let next = self.m.exact(Op::FAdd, ty, &[whole, step]);
        self.with_sign(elem, next, a)
    }

    /// Whole numbers in f64 by sums alone: lavapipe (22.3) without AVX-512 rounds nothing beyond 2²⁴ and gives zeros no sign.
    fn whole_f64(&mut self, function: Glsl, a: Id) -> Id {
        let (elem, ty, truth) = (Elem::F64, self.elem(Elem::F64), self.m.bool);
        let (most, one, zero) = (self.float(elem, (1u64 << 52) as f64), self.float(elem, 1.0), self.float(elem, 0.0));
        let size = self.size(elem, a);
        // To nearest, ties to even: beyond 2⁵² there are whole numbers alone.
        let near = self.m.exact(Op::FAdd, ty, &[size, most]);
        let near = self.m.exact(Op::FSub, ty, &[near, most]);
        // Up or down by one, where that was the wrong way.
        let (over, under) = (self.m.op(Op::FOrdGreaterThan, truth, &[near, size]), self.m.op(Op::FOrdLessThan, truth, &[near, size]));
        let negative = self.m.op(Op::FOrdLessThan, truth, &[a, zero]);
        let [down, up] = [(over, Op::FSub), (under, Op::FAdd)].map(|(wrong, op)| {
            let step = self.m.select(ty, wrong, one, zero);
            self.m.exact(op, ty, &[near, step])
        });
        let whole = match function {
            Glsl::Floor => self.m.select(ty, negative, up, down),
            Glsl::Ceil => self.m.select(ty, negative, down, up),
            Glsl::Trunc => down,
            _ => near,
        };
        let small = self.m.op(Op::FOrdLessThan, truth, &[size, most]);
        let whole = self.m.select(ty, small, whole, size);
        self.with_sign(elem, whole, a)
    }

    /// The magnitude of a float.
    fn size(&mut self, elem: Elem, a: Id) -> Id {
        let (_, rest, _, ty) = self.masks(elem);
        let bits = self.bits(elem, a);
        let size = self.m.op(Op::BitwiseAnd, ty, &[bits, rest]);
        self.reinterpret(elem, size)
    }

    /// A constant of f32 or f64.
    pub(super) fn float(&mut self, elem: Elem, value: f64) -> Id {
        if elem == Elem::F32 {
            return self.m.cf32(value as f32);
        }
        let (ty, bits) = (self.m.float(64), value.to_bits());
        self.m.global(Op::Constant, Some(ty), &[bits as u32, (bits >> 32) as u32])
    }

    /// The magnitude of one float with the sign of another.
    fn with_sign(&mut self, elem: Elem, size: Id, sign: Id) -> Id {
        let (mask, rest, _, ty) = self.masks(elem);
        let (size, sign) = (self.bits(elem, size), self.bits(elem, sign));
        let (size, sign) = (self.m.op(Op::BitwiseAnd, ty, &[size, rest]), self.m.op(Op::BitwiseAnd, ty, &[sign, mask]));
        let both = self.m.op(Op::BitwiseOr, ty, &[size, sign]);
        self.reinterpret(elem, both)
    }

    /// A function of two operands.
    pub(super) fn binary(&mut self, op: Binary, elem: Elem, a: Id, b: Id) -> Result<Id> {
        use Binary as B;
        match op {
            B::CopySign if elem.is_float() => return Ok(self.with_sign(elem, a, b)),
            B::AddF | B::SubF | B::MulF | B::DivF | B::RemF | B::MaximumF | B::MinimumF | B::MaxNumF | B::MinNumF | B::Pow | B::Atan2 | B::CopySign => {}
            _ => return self.integers(op, elem, a, b),
        }
        self.in_float(elem, &[a, b], |e, elem, parts| {
            let (ty, [a, b]) = (e.elem(elem), [parts[0], parts[1]]);
            Ok(match op {
                B::AddF => e.m.exact(Op::FAdd, ty, &[a, b]),
                B::SubF => e.m.exact(Op::FSub, ty, &[a, b]),
                B::MulF => e.m.exact(Op::FMul, ty, &[a, b]),
                B::DivF => e.m.exact(Op::FDiv, ty, &[a, b]),
                B::MaximumF | B::MinimumF | B::MaxNumF | B::MinNumF => e.extreme(op, elem, a, b),
                B::RemF => e.m.exact(Op::FRem, ty, &[a, b]),
                B::Pow if elem == Elem::F32 => e.m.glsl(Glsl::Pow, ty, &[a, b]),
                B::Atan2 if elem == Elem::F32 => e.m.glsl(Glsl::Atan2, ty, &[a, b]),
                other => return unsupported(format!("{other:?}"), format!("SPIR-V has no function {other:?} of {elem}")),
            })
        })
    }

    /// Maximum and minimum. GLSL.std.450 leaves NaN (FMax) or the sign of zero (NMax) open, so they are spelled out: -0 is below +0.
    fn extreme(&mut self, op: Binary, elem: Elem, a: Id, b: Id) -> Id {
        use Binary as B;
        let (ty, maximum) = (self.elem(elem), matches!(op, B::MaximumF | B::MaxNumF));
        let (first, second) = if maximum { (Op::FOrdGreaterThan, Op::FOrdLessThan) } else { (Op::FOrdLessThan, Op::FOrdGreaterThan) };
        let (takes_a, takes_b) = (self.m.op(first, self.m.bool, &[a, b]), self.m.op(second, self.m.bool, &[a, b]));
        // Equal numbers have equal bits, but for zeros, whose signs are joined.
        let (x, y) = (self.bits(elem, a), self.bits(elem, b));
        let bits = self.elem(elem.as_int());
        let joined = self.m.op(if maximum { Op::BitwiseAnd } else { Op::BitwiseOr }, bits, &[x, y]);
        let equal = self.reinterpret(elem, joined);
        let rest = self.m.select(ty, takes_b, b, equal);
        let number = self.m.select(ty, takes_a, a, rest);
        let (a_nan, b_nan) = (self.is_nan(elem, a), self.is_nan(elem, b));
        let (if_a, if_b) = if matches!(op, B::MaximumF | B::MinimumF) { (a, b) } else { (b, a) };
        let inner = self.m.select(ty, b_nan, if_b, number);
        self.m.select(ty, a_nan, if_a, inner)
    }

    /// Compares floats; narrow ones in single precision, which holds them all.
    pub(super) fn compare_floats(&mut self, op: CmpF, elem: Elem, a: Id, b: Id) -> Result<Id> {
        use CmpF as C;
        let [a, b] = if matches!(elem, Elem::F32 | Elem::F64) { [a, b] } else { [self.cast(Cast::FpToFp, elem, Elem::F32, a)?, self.cast(Cast::FpToFp, elem, Elem::F32, b)?] };
        let elem = if elem == Elem::F64 { elem } else { Elem::F32 };
        let plain = match op {
            C::Oeq => Op::FOrdEqual,
            C::Ogt => Op::FOrdGreaterThan,
            C::Oge => Op::FOrdGreaterThanEqual,
            C::Olt => Op::FOrdLessThan,
            C::Ole => Op::FOrdLessThanEqual,
            C::One => Op::FOrdNotEqual,
            C::Ueq => Op::FUnordEqual,
            C::Ugt => Op::FUnordGreaterThan,
            C::Uge => Op::FUnordGreaterThanEqual,
            C::Ult => Op::FUnordLessThan,
            C::Ule => Op::FUnordLessThanEqual,
            C::Une => Op::FUnordNotEqual,
            C::False | C::True => return Ok(self.m.truth(op == C::True)),
            C::Ord | C::Uno => {
                let (x, y) = (self.is_nan(elem, a), self.is_nan(elem, b));
                let either = self.m.op(Op::LogicalOr, self.m.bool, &[x, y]);
                return Ok(if op == C::Uno { either } else { self.m.op(Op::LogicalNot, self.m.bool, &[either]) });
            }
        };
        Ok(self.m.op(plain, self.m.bool, &[a, b]))
    }
}
