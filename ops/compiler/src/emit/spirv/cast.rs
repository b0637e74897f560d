//! Conversions. Those of narrow floats are integer sequences, exact on every device; those of f16 are instructions where the device promises that
//! they keep subnormals and round to nearest even.

use spirv::Op;

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::tile::Cast;

/// Layout of a float below 32 bits.
#[derive(Clone, Copy)]
struct Small {
    /// Exponent bias.
    bias: u32,
    /// Mantissa bits.
    mantissa: u32,
    /// Greatest finite magnitude.
    most: u32,
    /// What larger magnitudes become.
    over: u32,
    /// NaN.
    nan: u32,
    /// Sign bit.
    sign: u32,
}

fn small(elem: Elem) -> Small {
    match elem {
        Elem::F16 => Small { bias: 15, mantissa: 10, most: 0x7bff, over: 0x7c00, nan: 0x7e00, sign: 0x8000 },
        Elem::BF16 => Small { bias: 127, mantissa: 7, most: 0x7f7f, over: 0x7f80, nan: 0x7fc0, sign: 0x8000 },
        Elem::F8E5M2 => Small { bias: 15, mantissa: 2, most: 0x7b, over: 0x7c, nan: 0x7e, sign: 0x80 },
        _ => Small { bias: 7, mantissa: 3, most: 0x7e, over: 0x7f, nan: 0x7f, sign: 0x80 },
    }
}

fn is_small(elem: Elem) -> bool {
    elem.is_float() && elem.bits() < 32
}

impl Emitter<'_> {
    fn word(&mut self, op: Op, a: Id, b: Id) -> Id {
        self.m.op(op, self.m.u32, &[a, b])
    }
    fn with(&mut self, op: Op, a: Id, b: u32) -> Id {
        let b = self.m.c32(b);
        self.word(op, a, b)
    }
    fn test(&mut self, op: Op, a: Id, b: u32) -> Id {
        let b = self.m.c32(b);
        self.m.op(op, self.m.bool, &[a, b])
    }

    /// A value from the low 32 bits of a word, cut to the element's width.
    pub(super) fn low_bits(&mut self, elem: Elem, word: Id) -> Id {
        if elem.is_float() && elem.bits() >= 32 { self.reinterpret(elem, word) } else { self.narrow(elem, word) }
    }

    /// Converts a value.
    pub(super) fn cast(&mut self, cast: Cast, from: Elem, to: Elem, value: Id) -> Result<Id> {
        match cast {
            Cast::TruncI | Cast::ExtU => {
                let wide = self.widen(from, value);
                Ok(self.resize(from, to, wide, Op::UConvert))
            }
            Cast::ExtS if from.bits() < 64 && to == Elem::I64 => {
                let wide = self.widen_signed(from, value);
                Ok(self.long(wide))
            }
            Cast::ExtS => {
                let wide = self.widen_signed(from, value);
                Ok(self.resize(from, to, wide, Op::UConvert))
            }
            Cast::Bitcast if from.bits() != to.bits() => unsupported("bitcast", format!("{from} has {} bits and {to} {}", from.bits(), to.bits())),
            Cast::Bitcast if from == to || from.bits() < 32 => Ok(value),
            Cast::Bitcast => {
                let bits = self.bits(from, value);
                Ok(self.reinterpret(to, bits))
            }
            Cast::PtrToInt | Cast::IntToPtr => Ok(value),
            Cast::TruncF | Cast::ExtF | Cast::FpToFp | Cast::FpToFpRtz => self.between_floats(from, to, value, cast == Cast::FpToFpRtz),
            Cast::SiToFp | Cast::UiToFp => self.integer_to_float(from, to, value, cast == Cast::SiToFp),
            Cast::FpToSi | Cast::FpToUi => self.float_to_integer(from, to, value, cast == Cast::FpToSi),
        }
    }

    /// 32 bits sign-extended to 64, without SConvert: lavapipe 22.3 compares its result with constants wrongly.
    fn long(&mut self, word: Id) -> Id {
        let (wide, sign) = (self.m.op(Op::UConvert, self.m.u64, &[word]), self.m.c64(1 << 31));
        let turned = self.m.op(Op::BitwiseXor, self.m.u64, &[wide, sign]);
        self.m.op(Op::ISub, self.m.u64, &[turned, sign])
    }

    /// From the 32 or 64 bits of one integer width to another's register.
    fn resize(&mut self, from: Elem, to: Elem, wide: Id, op: Op) -> Id {
        let resized = match (from.bits() == 64, to.bits() == 64) {
            (false, true) => self.m.op(op, self.m.u64, &[wide]),
            (true, false) => self.m.op(Op::UConvert, self.m.u32, &[wide]),
            _ => wide,
        };
        self.narrow(to, resized)
    }

    fn between_floats(&mut self, from: Elem, to: Elem, value: Id, cut: bool) -> Result<Id> {
        if from == to {
            return Ok(value);
        }
        if !from.is_float() || !to.is_float() {
            return unsupported("", format!("a conversion between floats from {from} to {to}"));
        }
        if from == Elem::F64 && is_small(to) {
            // Bits that single precision cannot hold live on in its last one, so that the second rounding sees them.
            let odd = self.double_to_odd(value);
            return Ok(self.single_to_small(to, odd, cut));
        }
        if from == Elem::F64 && cut {
            let odd = self.double_to_single(value, false);
            return Ok(self.reinterpret(Elem::F32, odd));
        }
        let single = if is_small(from) { self.small_to_single(from, value) } else { value };
        Ok(match to {
            Elem::F32 if from == Elem::F64 => self.m.op(Op::FConvert, self.m.f32, &[single]),
            Elem::F32 => single,
            Elem::F64 => {
                let ty = self.m.float(64);
                self.m.op(Op::FConvert, ty, &[single])
            }
            _ => {
                let bits = self.bits(Elem::F32, single);
                self.single_to_small(to, bits, cut)
            }
        })
    }

    /// The types of a half and of the two in a word.
    fn half_types(&mut self) -> (Id, Id) {
        let half = self.m.float(16);
        (half, self.m.vector(half, 2))
    }

    /// A narrow float in single precision, exactly.
    fn small_to_single(&mut self, elem: Elem, value: Id) -> Id {
        if elem == Elem::BF16 {
            let bits = self.with(Op::ShiftLeftLogical, value, 16);
            return self.reinterpret(Elem::F32, bits);
        }
        if elem == Elem::F16 && self.device.half_conversions() {
            let (half, pair) = self.half_types();
            let pair = self.m.op(Op::Bitcast, pair, &[value]);
            let low = self.m.op(Op::CompositeExtract, half, &[pair, 0]);
            return self.m.op(Op::FConvert, self.m.f32, &[low]);
        }
        let f = small(elem);
        let (size, sign) = (self.with(Op::BitwiseAnd, value, f.sign - 1), self.with(Op::BitwiseAnd, value, f.sign));
        let sign = self.with(Op::ShiftLeftLogical, sign, 32 - elem.bits());
        let shifted = self.with(Op::ShiftLeftLogical, size, 23 - f.mantissa);
        let normal = self.with(Op::IAdd, shifted, (127 - f.bias) << 23);
        // Subnormal: a whole number of the least one.
        let count = self.m.op(Op::ConvertUToF, self.m.f32, &[size]);
        let least = self.m.cf32(f32::from_bits((128 - f.bias - f.mantissa) << 23));
        let tiny = self.m.exact(Op::FMul, self.m.f32, &[count, least]);
        let tiny = self.bits(Elem::F32, tiny);
        let is_tiny = self.test(Op::ULessThan, size, 1 << f.mantissa);
        let finite = self.m.select(self.m.u32, is_tiny, tiny, normal);
        let special = self.with(Op::BitwiseOr, shifted, if elem == Elem::F8E4M3 { 0x7fc0_0000 } else { 0x7f80_0000 });
        let is_special = self.test(Op::UGreaterThan, size, f.most);
        let out = self.m.select(self.m.u32, is_special, special, finite);
        let signed = self.word(Op::BitwiseOr, out, sign);
        self.reinterpret(Elem::F32, signed)
    }

    /// Bits of a single-precision float as a narrow one, to nearest even or cut toward zero.
    fn single_to_small(&mut self, elem: Elem, bits: Id, cut: bool) -> Id {
        if elem == Elem::F16 && !cut && self.device.half_conversions() {
            let (half, pair) = self.half_types();
            let single = self.reinterpret(Elem::F32, bits);
            let low = self.m.op(Op::FConvert, half, &[single]);
            let zero = self.m.global(Op::ConstantNull, Some(half), &[]);
            let pair = self.m.op(Op::CompositeConstruct, pair, &[low, zero]);
            return self.m.op(Op::Bitcast, self.m.u32, &[pair]);
        }
        let f = small(elem);
        let (size, shift) = (self.with(Op::BitwiseAnd, bits, 0x7fff_ffff), 23 - f.mantissa);
        let sign = self.with(Op::ShiftRightLogical, bits, 32 - elem.bits());
        let sign = self.with(Op::BitwiseAnd, sign, f.sign);
        let round = |e: &mut Self, size: Id| {
            if cut {
                return size;
            }
            let last = e.with(Op::ShiftRightLogical, size, shift);
            let last = e.with(Op::BitwiseAnd, last, 1);
            let more = e.with(Op::IAdd, size, (1 << (shift - 1)) - 1);
            e.word(Op::IAdd, more, last)
        };
        let mut finite = if elem == Elem::BF16 {
            let rounded = round(self, size);
            self.with(Op::ShiftRightLogical, rounded, shift)
        } else {
            let based = self.with(Op::ISub, size, (127 - f.bias) << 23);
            let rounded = round(self, based);
            let normal = self.with(Op::ShiftRightLogical, rounded, shift);
            let tiny = self.count_of_least(f, size, cut);
            let is_tiny = self.test(Op::ULessThan, size, (128 - f.bias) << 23);
            self.m.select(self.m.u32, is_tiny, tiny, normal)
        };
        let large = self.test(Op::UGreaterThan, finite, f.most);
        let over = self.m.c32(if cut { f.most } else { f.over });
        finite = self.m.select(self.m.u32, large, over, finite);
        let (infinite, infinity) = (self.test(Op::IEqual, size, 0x7f80_0000), self.m.c32(f.over));
        finite = self.m.select(self.m.u32, infinite, infinity, finite);
        let (no_number, nan) = (self.test(Op::UGreaterThan, size, 0x7f80_0000), self.m.c32(f.nan));
        finite = self.m.select(self.m.u32, no_number, nan, finite);
        self.word(Op::BitwiseOr, finite, sign)
    }

    /// How many of a format's least subnormal number a small magnitude is: all its bits are shifted out by integers.
    fn count_of_least(&mut self, f: Small, size: Id, cut: bool) -> Id {
        let exponent = self.with(Op::ShiftRightLogical, size, 23);
        let fraction = self.with(Op::BitwiseAnd, size, 0x7f_ffff);
        let whole = self.with(Op::BitwiseOr, fraction, 0x80_0000);
        // The exponent at which the mantissa's last bit is worth one.
        let unit = self.m.c32(127 - f.bias + 24 - f.mantissa);
        let by = self.word(Op::ISub, unit, exponent);
        let (far, most) = (self.test(Op::UGreaterThan, by, 31), self.m.c32(31));
        let by = self.m.select(self.m.u32, far, most, by);
        let count = self.word(Op::ShiftRightLogical, whole, by);
        if cut {
            return count;
        }
        let one = self.m.c32(1);
        let step = self.word(Op::ShiftLeftLogical, one, by);
        let half = self.with(Op::ShiftRightLogical, step, 1);
        let mask = self.with(Op::ISub, step, 1);
        let rest = self.word(Op::BitwiseAnd, whole, mask);
        let above = self.m.op(Op::UGreaterThan, self.m.bool, &[rest, half]);
        let tie = self.m.op(Op::IEqual, self.m.bool, &[rest, half]);
        let odd = self.with(Op::BitwiseAnd, count, 1);
        let odd = self.is_set(odd);
        let up = self.m.op(Op::LogicalAnd, self.m.bool, &[tie, odd]);
        let up = self.m.op(Op::LogicalOr, self.m.bool, &[above, up]);
        let zero = self.m.c32(0);
        let more = self.m.select(self.m.u32, up, one, zero);
        self.word(Op::IAdd, count, more)
    }

    /// Single-precision bits of a double, rounded to odd.
    fn double_to_odd(&mut self, value: Id) -> Id {
        self.double_to_single(value, true)
    }

    /// Single-precision bits of a double, cut toward zero; `odd`: the last bit is set where anything was cut off.
    fn double_to_single(&mut self, value: Id, odd: bool) -> Id {
        let (u64, bool) = (self.m.u64, self.m.bool);
        let bits = self.bits(Elem::F64, value);
        let constant = |e: &mut Self, v: u64| e.m.c64(v);
        let rest = constant(self, i64::MAX as u64);
        let size = self.m.op(Op::BitwiseAnd, u64, &[bits, rest]);
        let (_, high) = self.halves(bits);
        let sign = self.with(Op::BitwiseAnd, high, 0x8000_0000);
        let exponent = {
            let by = self.m.c32(52);
            let e = self.m.op(Op::ShiftRightLogical, u64, &[size, by]);
            self.m.op(Op::UConvert, self.m.u32, &[e])
        };
        // Below 2^-126 more bits go: the exponent of single precision is 896 lower.
        let (hidden, fraction) = (constant(self, 1 << 52), constant(self, (1 << 52) - 1));
        let low = self.m.op(Op::BitwiseAnd, u64, &[size, fraction]);
        let whole = self.m.op(Op::BitwiseOr, u64, &[low, hidden]);
        let is_tiny = self.test(Op::ULessThan, exponent, 897);
        let start = self.m.c32(897 + 29);
        let by = self.word(Op::ISub, start, exponent);
        let (far, most) = (self.test(Op::UGreaterThan, by, 63), self.m.c32(63));
        let by = self.m.select(self.m.u32, far, most, by);
        let usual = self.m.c32(29);
        let by = self.m.select(self.m.u32, is_tiny, by, usual);
        let base = constant(self, 896 << 52);
        let normal = self.m.op(Op::ISub, u64, &[size, base]);
        let source = self.m.select(u64, is_tiny, whole, normal);
        let kept = self.m.op(Op::ShiftRightLogical, u64, &[source, by]);
        let mut out = self.m.op(Op::UConvert, self.m.u32, &[kept]);
        if odd {
            let back = self.m.op(Op::ShiftLeftLogical, u64, &[kept, by]);
            let lost = self.m.op(Op::INotEqual, bool, &[back, source]);
            let (one, zero) = (self.m.c32(1), self.m.c32(0));
            let sticky = self.m.select(self.m.u32, lost, one, zero);
            out = self.word(Op::BitwiseOr, out, sticky);
        }
        // Zero has no hidden bit: its exponent is far below, so `by` is 63 and nothing is left but the sticky bit.
        let none = constant(self, 0);
        let is_zero = self.m.op(Op::IEqual, bool, &[size, none]);
        let zero = self.m.c32(0);
        out = self.m.select(self.m.u32, is_zero, zero, out);
        let (large, greatest) = (self.test(Op::UGreaterThanEqual, exponent, 896 + 255), self.m.c32(0x7f7f_ffff));
        out = self.m.select(self.m.u32, large, greatest, out);
        let (infinity, inf) = (constant(self, 0x7ff0_0000_0000_0000), self.m.c32(0x7f80_0000));
        let infinite = self.m.op(Op::IEqual, bool, &[size, infinity]);
        out = self.m.select(self.m.u32, infinite, inf, out);
        let no_number = self.m.op(Op::UGreaterThan, bool, &[size, infinity]);
        let nan = self.m.c32(0x7fc0_0000);
        out = self.m.select(self.m.u32, no_number, nan, out);
        self.word(Op::BitwiseOr, out, sign)
    }

    fn integer_to_float(&mut self, from: Elem, to: Elem, value: Id, signed: bool) -> Result<Id> {
        if !from.is_int() || !to.is_float() {
            return unsupported("", format!("a conversion of an integer from {from} to {to}"));
        }
        let wide = if signed { self.widen_signed(from, value) } else { self.widen(from, value) };
        let op = if signed { Op::ConvertSToF } else { Op::ConvertUToF };
        if !is_small(to) {
            let ty = self.elem(to);
            return Ok(self.m.op(op, ty, &[wide]));
        }
        if from.bits() <= 16 {
            // Single precision holds it exactly.
            let single = self.m.op(op, self.m.f32, &[wide]);
            let bits = self.bits(Elem::F32, single);
            return Ok(self.single_to_small(to, bits, false));
        }
        let (ty, zero) = (self.elem(from), self.number(from, 0));
        let below = self.m.op(Op::SLessThan, self.m.bool, &[wide, zero]);
        let minus = self.m.op(Op::SNegate, ty, &[wide]);
        let size = if signed { self.m.select(ty, below, minus, wide) } else { wide };
        let single = self.odd_single(from, size);
        let small = self.single_to_small(to, single, false);
        if !signed {
            return Ok(small);
        }
        let sign = self.with(Op::BitwiseOr, small, self::small(to).sign);
        Ok(self.m.select(self.m.u32, below, sign, small))
    }

    /// Single-precision bits of an integer of 32 or 64 bits, rounded to odd: rounding them once more rounds the integer once.
    fn odd_single(&mut self, elem: Elem, size: Id) -> Id {
        let ty = self.elem(elem);
        let top = if elem == Elem::I64 {
            let (low, high) = self.halves(size);
            let (low_bit, high_bit) = (self.highest(low), self.highest(high));
            let (long, raised) = (self.is_set(high), self.with(Op::IAdd, high_bit, 32));
            self.m.select(self.m.u32, long, raised, low_bit)
        } else {
            self.highest(size)
        };
        let zero = self.m.c32(0);
        let (above, over) = (self.test(Op::SGreaterThan, top, 23), self.with(Op::ISub, top, 23));
        let cut = self.m.select(self.m.u32, above, over, zero);
        let kept = self.m.op(Op::ShiftRightLogical, ty, &[size, cut]);
        let back = self.m.op(Op::ShiftLeftLogical, ty, &[kept, cut]);
        let lost = self.m.op(Op::INotEqual, self.m.bool, &[back, size]);
        let kept = if elem == Elem::I64 { self.m.op(Op::UConvert, self.m.u32, &[kept]) } else { kept };
        let last = self.m.c32(23);
        let under = self.word(Op::ISub, last, top);
        let raise = self.m.select(self.m.u32, above, zero, under);
        let kept = self.word(Op::ShiftLeftLogical, kept, raise);
        let one = self.m.c32(1);
        let sticky = self.m.select(self.m.u32, lost, one, zero);
        let mantissa = self.word(Op::BitwiseOr, kept, sticky);
        let exponent = self.with(Op::IAdd, top, 126);
        let exponent = self.with(Op::ShiftLeftLogical, exponent, 23);
        let bits = self.word(Op::IAdd, exponent, mantissa);
        let none = self.number(elem, 0);
        let some = self.m.op(Op::INotEqual, self.m.bool, &[size, none]);
        self.m.select(self.m.u32, some, bits, zero)
    }

    /// Place of the highest bit set, from 0; 0 for none.
    fn highest(&mut self, word: Id) -> Id {
        let one = self.m.c32(1);
        let some = self.word(Op::BitwiseOr, word, one);
        self.m.glsl(spirv::GlslStd450Op::FindUMsb, self.m.u32, &[some])
    }

    fn float_to_integer(&mut self, from: Elem, to: Elem, value: Id, signed: bool) -> Result<Id> {
        if !from.is_float() || !to.is_int() {
            return unsupported("", format!("a conversion to an integer from {from} to {to}"));
        }
        let value = if is_small(from) { self.small_to_single(from, value) } else { value };
        let ty = if to.bits() == 64 { self.m.u64 } else { self.m.u32 };
        let op = if signed { Op::ConvertFToS } else { Op::ConvertFToU };
        let wide = self.m.op(op, ty, &[value]);
        Ok(self.narrow(to, wide))
    }
}
