//! a·b + c rounded once. Vulkan lets a driver round the product too, so it is spelled out unless the device is known not to.

use spirv::{Decoration, GlslStd450Op, Op};

use super::module::Id;
use super::Emitter;
use crate::Elem;
use crate::tile::Unary;

impl Emitter<'_> {
    /// a·b + c of f32 or f64.
    pub(super) fn fused(&mut self, elem: Elem, [a, b, c]: [Id; 3]) -> Id {
        if self.device.fused(elem.bits()) {
            let ty = self.elem(elem);
            let id = self.m.glsl(GlslStd450Op::Fma, ty, &[a, b, c]);
            self.m.decorate(id, Decoration::NoContraction, &[]);
            return id;
        }
        if elem == Elem::F32 && self.device.double {
            return self.fused_through_double([a, b, c]);
        }
        self.fused_in_integers(elem, [a, b, c])
    }

    /// The product of two singles is exact in double precision; the sum is rounded to odd there, so that rounding it to single is rounding once.
    fn fused_through_double(&mut self, parts: [Id; 3]) -> Id {
        let (double, bool, u64) = (self.m.float(64), self.m.bool, self.m.u64);
        let [a, b, c] = parts.map(|p| self.m.op(Op::FConvert, double, &[p]));
        let product = self.m.exact(Op::FMul, double, &[a, b]);
        let sum = self.m.exact(Op::FAdd, double, &[product, c]);
        // What the sum lost, exactly.
        let back = self.m.exact(Op::FSub, double, &[sum, product]);
        let first = self.m.exact(Op::FSub, double, &[sum, back]);
        let first = self.m.exact(Op::FSub, double, &[product, first]);
        let second = self.m.exact(Op::FSub, double, &[c, back]);
        let lost = self.m.exact(Op::FAdd, double, &[first, second]);
        let zero = self.float(Elem::F64, 0.0);
        let inexact = self.m.op(Op::FOrdNotEqual, bool, &[lost, zero]);
        // Between two doubles the odd one is taken: one further in the direction of what was lost where the sum is even.
        let bits = self.bits(Elem::F64, sum);
        let rest = self.bits(Elem::F64, lost);
        let (one, none, less) = (self.m.c64(1), self.m.c64(0), self.m.c64(u64::MAX));
        let last = self.m.op(Op::BitwiseAnd, u64, &[bits, one]);
        let even = self.m.op(Op::IEqual, bool, &[last, none]);
        let moved = self.m.op(Op::LogicalAnd, bool, &[inexact, even]);
        let signs = self.m.op(Op::BitwiseXor, u64, &[bits, rest]);
        let apart = self.m.op(Op::SLessThan, bool, &[signs, none]);
        let step = self.m.select(u64, apart, less, one);
        let step = self.m.select(u64, moved, step, none);
        let odd = self.m.op(Op::IAdd, u64, &[bits, step]);
        let odd = self.reinterpret(Elem::F64, odd);
        self.m.op(Op::FConvert, self.m.f32, &[odd])
    }
}

/// Integers of a float's width, one after another; pairs are (high, low).
struct Words<'e, 'k> {
    e: &'e mut Emitter<'k>,
    elem: Elem,
    ty: Id,
    width: i64,
    /// Bits of a significand with the hidden one.
    precision: i64,
    bias: i64,
}

/// A float taken apart.
struct Parts {
    sign: Id,
    /// With the hidden bit in place, unless zero.
    significand: Id,
    /// Biased; of subnormal numbers as if they had more exponents.
    exponent: Id,
}

impl Words<'_, '_> {
    fn n(&mut self, value: i64) -> Id {
        self.e.number(self.elem, value)
    }
    fn op(&mut self, op: Op, a: Id, b: Id) -> Id {
        self.e.m.op(op, self.ty, &[a, b])
    }
    fn with(&mut self, op: Op, a: Id, b: i64) -> Id {
        let b = self.n(b);
        self.op(op, a, b)
    }
    fn test(&mut self, op: Op, a: Id, b: Id) -> Id {
        self.e.m.op(op, self.e.m.bool, &[a, b])
    }
    fn is(&mut self, op: Op, a: Id, b: i64) -> Id {
        let b = self.n(b);
        self.test(op, a, b)
    }
    fn both(&mut self, op: Op, a: Id, b: Id) -> Id {
        self.e.m.op(op, self.e.m.bool, &[a, b])
    }
    fn pick(&mut self, condition: Id, a: Id, b: Id) -> Id {
        self.e.m.select(self.ty, condition, a, b)
    }
    fn pick_pair(&mut self, condition: Id, a: (Id, Id), b: (Id, Id)) -> (Id, Id) {
        (self.pick(condition, a.0, b.0), self.pick(condition, a.1, b.1))
    }
    fn bit(&mut self, condition: Id) -> Id {
        let (one, zero) = (self.n(1), self.n(0));
        self.pick(condition, one, zero)
    }
    fn leading_zeros(&mut self, word: Id) -> Id {
        // Integers only: nothing that could be refused.
        self.e.integer(Unary::Ctlz, self.elem, word).unwrap_or(word)
    }

    fn parts(&mut self, bits: Id) -> Parts {
        let stored = self.precision - 1;
        let sign = self.with(Op::ShiftRightLogical, bits, self.width - 1);
        let size = self.with(Op::BitwiseAnd, bits, i64::MAX >> (64 - self.width));
        let (exponent, low) = (self.with(Op::ShiftRightLogical, size, stored), self.with(Op::BitwiseAnd, size, (1 << stored) - 1));
        let subnormal = self.is(Op::IEqual, exponent, 0);
        let zeros = self.leading_zeros(low);
        let by = self.with(Op::ISub, zeros, self.width - self.precision);
        // Zero stays zero however far it is shifted.
        let by = self.with(Op::BitwiseAnd, by, self.width - 1);
        let raised = self.op(Op::ShiftLeftLogical, low, by);
        let whole = self.with(Op::BitwiseOr, low, 1 << stored);
        let one = self.n(1);
        let lowered = self.op(Op::ISub, one, by);
        Parts { sign, significand: self.pick(subnormal, raised, whole), exponent: self.pick(subnormal, lowered, exponent) }
    }

    /// A pair shifted right by 0 to 2·width - 1; the last bit is set where anything was lost.
    fn right(&mut self, (high, low): (Id, Id), by: Id) -> (Id, Id) {
        let zero = self.n(0);
        let far = self.is(Op::UGreaterThanEqual, by, self.width);
        let (h, l) = self.pick_pair(far, (zero, high), (high, low));
        let dropped = self.pick(far, low, zero);
        let by = self.with(Op::BitwiseAnd, by, self.width - 1);
        let (one, last) = (self.n(1), self.n(self.width - 1));
        let rest = self.op(Op::ShiftLeftLogical, one, by);
        let rest = self.with(Op::ISub, rest, 1);
        let rest = self.op(Op::BitwiseAnd, l, rest);
        let lost = self.op(Op::BitwiseOr, rest, dropped);
        let lost = self.is(Op::INotEqual, lost, 0);
        let back = self.op(Op::ISub, last, by);
        let carried = self.with(Op::ShiftLeftLogical, h, 1);
        let carried = self.op(Op::ShiftLeftLogical, carried, back);
        let moved = self.op(Op::ShiftRightLogical, l, by);
        let (sticky, joined) = (self.bit(lost), self.op(Op::BitwiseOr, moved, carried));
        (self.op(Op::ShiftRightLogical, h, by), self.op(Op::BitwiseOr, joined, sticky))
    }

    /// A pair shifted left by 0 to 2·width - 1.
    fn left(&mut self, (high, low): (Id, Id), by: Id) -> (Id, Id) {
        let (zero, last) = (self.n(0), self.n(self.width - 1));
        let far = self.is(Op::UGreaterThanEqual, by, self.width);
        let (h, l) = self.pick_pair(far, (low, zero), (high, low));
        let by = self.with(Op::BitwiseAnd, by, self.width - 1);
        let back = self.op(Op::ISub, last, by);
        let carried = self.with(Op::ShiftRightLogical, l, 1);
        let carried = self.op(Op::ShiftRightLogical, carried, back);
        let moved = self.op(Op::ShiftLeftLogical, h, by);
        (self.op(Op::BitwiseOr, moved, carried), self.op(Op::ShiftLeftLogical, l, by))
    }

    /// a·b + c of finite numbers.
    fn fused(&mut self, [a, b, c]: [Id; 3]) -> Id {
        let (p, w) = (self.precision, self.width);
        let [a, b, c] = [a, b, c].map(|v| self.parts(v));
        let sign = self.op(Op::BitwiseXor, a.sign, b.sign);
        // The product below 2^(2w-2) and at least 2^(2w-4), the third number's highest bit at 2w-3.
        let low = self.op(Op::IMul, a.significand, b.significand);
        let high = self.e.high_product(self.elem.as_int(), a.significand, b.significand);
        let up = self.n(2 * w - 2 * p - 2);
        let product = self.left((high, low), up);
        let zero = self.n(0);
        let third = (self.with(Op::ShiftLeftLogical, c.significand, w - 2 - p), zero);
        // Exponents of both, and how far the smaller is to be shifted; zeros are below everything.
        let exponent = self.op(Op::IAdd, a.exponent, b.exponent);
        let of_product = self.with(Op::ISub, exponent, self.bias - 3);
        let of_third = self.with(Op::IAdd, c.exponent, 2);
        let any = self.op(Op::BitwiseOr, product.0, product.1);
        let (no_product, no_third) = (self.is(Op::IEqual, any, 0), self.is(Op::IEqual, c.significand, 0));
        let lowest = self.n(-(1 << 20));
        let of_product = self.pick(no_product, lowest, of_product);
        let of_third = self.pick(no_third, lowest, of_third);
        let less = self.test(Op::SLessThan, of_product, of_third);
        let (top, bottom) = (self.pick(less, of_third, of_product), self.pick(less, of_product, of_third));
        let (upper, lower) = (self.pick_pair(less, third, product), self.pick_pair(less, product, third));
        let (upper_sign, lower_sign) = (self.pick(less, c.sign, sign), self.pick(less, sign, c.sign));
        let apart = self.op(Op::ISub, top, bottom);
        let most = self.n(2 * w - 1);
        let far = self.test(Op::UGreaterThan, apart, most);
        let apart = self.pick(far, most, apart);
        let lower = self.right(lower, apart);
        // Sum of magnitudes, or their difference, the greater first.
        let sum_low = self.op(Op::IAdd, upper.1, lower.1);
        let carry = self.test(Op::ULessThan, sum_low, upper.1);
        let carry = self.bit(carry);
        let sum_high = self.op(Op::IAdd, upper.0, lower.0);
        let sum = (self.op(Op::IAdd, sum_high, carry), sum_low);
        let (above, equal, below) = (self.test(Op::ULessThan, upper.0, lower.0), self.test(Op::IEqual, upper.0, lower.0), self.test(Op::ULessThan, upper.1, lower.1));
        let tie = self.both(Op::LogicalAnd, equal, below);
        let turned = self.both(Op::LogicalOr, above, tie);
        let (from, by) = (self.pick_pair(turned, lower, upper), self.pick_pair(turned, upper, lower));
        let borrow = self.test(Op::ULessThan, from.1, by.1);
        let borrow = self.bit(borrow);
        let rest_high = self.op(Op::ISub, from.0, by.0);
        let rest = (self.op(Op::ISub, rest_high, borrow), self.op(Op::ISub, from.1, by.1));
        let same = self.test(Op::IEqual, upper_sign, lower_sign);
        let (total, differing) = (self.pick_pair(same, sum, rest), self.pick(turned, lower_sign, upper_sign));
        let out_sign = self.pick(same, upper_sign, differing);
        // The highest bit to the top; below the least exponent back again.
        let (zeros_high, zeros_low) = (self.leading_zeros(total.0), self.leading_zeros(total.1));
        let deeper = self.with(Op::IAdd, zeros_low, w);
        let short = self.is(Op::IEqual, total.0, 0);
        let zeros = self.pick(short, deeper, zeros_high);
        let (head, tail) = self.left(total, zeros);
        let exponent = self.op(Op::ISub, top, zeros);
        let inexact = self.is(Op::INotEqual, tail, 0);
        let sticky = self.bit(inexact);
        let head = self.op(Op::BitwiseOr, head, sticky);
        let tiny = self.is(Op::SLessThan, exponent, 1);
        let (one, limit) = (self.n(1), self.n(w - 1));
        let under = self.op(Op::ISub, one, exponent);
        let far = self.test(Op::UGreaterThan, under, limit);
        let under = self.pick(far, limit, under);
        let under = self.pick(tiny, under, zero);
        let exponent = self.pick(tiny, one, exponent);
        let (_, head) = self.right((zero, head), under);
        // To nearest even.
        let kept = self.with(Op::ShiftRightLogical, head, w - p);
        let last = self.with(Op::BitwiseAnd, kept, 1);
        let more = self.with(Op::IAdd, last, (1 << (w - p - 1)) - 1);
        let cut = self.with(Op::BitwiseAnd, head, (1 << (w - p)) - 1);
        let up = self.op(Op::IAdd, cut, more);
        let up = self.with(Op::ShiftRightLogical, up, w - p);
        let base = self.with(Op::ISub, exponent, 1);
        let base = self.with(Op::ShiftLeftLogical, base, p - 1);
        let bits = self.op(Op::IAdd, kept, up);
        let bits = self.op(Op::IAdd, bits, base);
        let (over, infinity) = (self.is(Op::SGreaterThan, exponent, 2 * self.bias), self.n((2 * self.bias + 1) << (p - 1)));
        let bits = self.pick(over, infinity, bits);
        // Nothing left: +0, unless both were zeros of one sign.
        let all = self.op(Op::BitwiseOr, total.0, total.1);
        let nothing = self.is(Op::IEqual, all, 0);
        let plus = self.pick(same, upper_sign, zero);
        let (out_sign, bits) = (self.pick(nothing, plus, out_sign), self.pick(nothing, zero, bits));
        let out_sign = self.with(Op::ShiftLeftLogical, out_sign, w - 1);
        self.op(Op::BitwiseOr, bits, out_sign)
    }
}

impl Emitter<'_> {
    /// On any device, with subnormal numbers.
    fn fused_in_integers(&mut self, elem: Elem, parts: [Id; 3]) -> Id {
        let (float, [a, b, c]) = (self.elem(elem), parts);
        let bits = parts.map(|p| self.bits(elem, p));
        let int = elem.as_int();
        let (ty, width, precision, bias) = (self.elem(int), i64::from(elem.bits()), if elem == Elem::F64 { 53 } else { 24 }, if elem == Elem::F64 { 1023 } else { 127 });
        let finite = Words { e: self, elem: int, ty, width, precision, bias }.fused(bits);
        let finite = self.reinterpret(elem, finite);
        let [fa, fb, fc] = parts.map(|p| self.is_finite(elem, p));
        let factors = self.m.op(Op::LogicalAnd, self.m.bool, &[fa, fb]);
        let product = self.m.exact(Op::FMul, float, &[a, b]);
        let special = self.m.exact(Op::FAdd, float, &[product, c]);
        // Finite factors do not overflow on the way to an infinite sum.
        let rest = self.m.select(float, fc, finite, c);
        self.m.select(float, factors, rest, special)
    }
}
