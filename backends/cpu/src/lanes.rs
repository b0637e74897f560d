//! Floating-point lanes: what rows are evaluated on, one element at a time, in loops the compiler turns into SIMD code.
//!
//! A lane carries a mark beside its value: `hard` says that f32 (or the fast reduction) is not enough here, because the argument is huge
//! or an intermediate result leaves the range. Marks cost a compare where a function can set one and nothing elsewhere. A block with a
//! marked lane is computed again on the catalogue's own f64 scalars.

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

use flagos_catalog::{Arith, Float, Mask};

use crate::{math_f32, math_f64};

/// A lane as it lies in a block.
pub trait Lane: Copy {
    /// The element in memory.
    type Item: Copy + Default;
    /// Loads an element.
    fn load(item: Self::Item) -> Self;
    /// The element.
    fn item(self) -> Self::Item;
    /// Whether the value must be computed in f64 scalars instead.
    fn hard(self) -> bool;
}

/// A truth value with its operands' mark.
#[derive(Clone, Copy)]
pub struct Truth {
    /// The truth value.
    pub is: bool,
    /// See [`Lane::hard`].
    pub hard: bool,
}

macro_rules! truth_ops {
    ($($op:ident $f:ident $sign:tt),*) => {$(
        impl $op for Truth {
            type Output = Truth;
            #[inline(always)]
            fn $f(self, b: Truth) -> Truth {
                Truth { is: self.is $sign b.is, hard: self.hard | b.hard }
            }
        }
    )*};
}
truth_ops!(BitAnd bitand &, BitOr bitor |, BitXor bitxor ^);
impl Not for Truth {
    type Output = Truth;
    #[inline(always)]
    fn not(self) -> Truth {
        Truth { is: !self.is, hard: self.hard }
    }
}
impl Mask for Truth {
    #[inline(always)]
    fn splat(is: bool) -> Truth {
        Truth { is, hard: false }
    }
}

macro_rules! float_lane {
    ($Lane:ident, $t:ident, $math:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $Lane<const FMA: bool> {
            v: $t,
            hard: bool,
        }
        impl<const FMA: bool> $Lane<FMA> {
            #[inline(always)]
            fn easy(v: $t) -> Self {
                $Lane { v, hard: false }
            }
            #[inline(always)]
            fn with(self, v: $t) -> Self {
                $Lane { v, hard: self.hard }
            }
            #[inline(always)]
            fn both(self, b: Self, v: $t) -> Self {
                $Lane { v, hard: self.hard | b.hard }
            }
            #[inline(always)]
            fn mark(self, hard: bool) -> Self {
                $Lane { v: self.v, hard: self.hard | hard }
            }
            #[inline(always)]
            fn truth(self, b: Self, is: bool) -> Truth {
                Truth { is, hard: self.hard | b.hard }
            }
        }
        impl<const FMA: bool> Lane for $Lane<FMA> {
            type Item = $t;
            #[inline(always)]
            fn load(v: $t) -> Self {
                Self::easy(v)
            }
            #[inline(always)]
            fn item(self) -> $t {
                self.v
            }
            #[inline(always)]
            fn hard(self) -> bool {
                self.hard
            }
        }
        float_lane!(@op $Lane, Add add +, Sub sub -, Mul mul *, Div div /);
        impl<const FMA: bool> Neg for $Lane<FMA> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.with(-self.v)
            }
        }
        impl<const FMA: bool> Arith for $Lane<FMA> {
            type Mask = Truth;
            const FLOAT: bool = true;
            #[inline(always)]
            fn int(value: i64) -> Self {
                Self::easy(value as $t)
            }
            #[inline(always)]
            fn number(float: f64, _: i64) -> Self {
                Self::easy(float as $t)
            }
            #[inline(always)]
            fn lt(self, b: Self) -> Truth {
                self.truth(b, self.v < b.v)
            }
            #[inline(always)]
            fn le(self, b: Self) -> Truth {
                self.truth(b, self.v <= b.v)
            }
            #[inline(always)]
            fn eq(self, b: Self) -> Truth {
                self.truth(b, self.v == b.v)
            }
            #[inline(always)]
            fn gt(self, b: Self) -> Truth {
                self.truth(b, self.v > b.v)
            }
            #[inline(always)]
            fn ge(self, b: Self) -> Truth {
                self.truth(b, self.v >= b.v)
            }
            #[inline(always)]
            fn ne(self, b: Self) -> Truth {
                self.truth(b, self.v != b.v)
            }
            #[inline(always)]
            fn is_nan(self) -> Truth {
                self.truth(self, self.v.is_nan())
            }
            #[inline(always)]
            fn select(mask: Truth, a: Self, b: Self) -> Self {
                $Lane { v: if mask.is { a.v } else { b.v }, hard: mask.hard | if mask.is { a.hard } else { b.hard } }
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.with(self.v.abs())
            }
            #[inline(always)]
            fn maximum(self, b: Self) -> Self {
                self.both(b, if self.v > b.v || self.v.is_nan() { self.v } else { b.v })
            }
            #[inline(always)]
            fn minimum(self, b: Self) -> Self {
                self.both(b, if self.v < b.v || self.v.is_nan() { self.v } else { b.v })
            }
            float_lane!(@division $t);
        }
        impl<const FMA: bool> Float for $Lane<FMA> {
            #[inline(always)]
            fn lit(value: f64) -> Self {
                Self::easy(value as $t)
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                let v = if FMA { self.v.mul_add(b.v, c.v) } else { self.v * b.v + c.v };
                $Lane { v, hard: self.hard | b.hard | c.hard }
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.with(self.v.sqrt())
            }
            #[inline(always)]
            fn rsqrt(self) -> Self {
                self.with(1.0 / self.v.sqrt())
            }
            #[inline(always)]
            fn exp(self) -> Self {
                self.with($math::exp::<FMA>(self.v))
            }
            #[inline(always)]
            fn expm1(self) -> Self {
                self.with($math::expm1::<FMA>(self.v))
            }
            #[inline(always)]
            fn log(self) -> Self {
                self.with($math::log::<FMA>(self.v))
            }
            #[inline(always)]
            fn log1p(self) -> Self {
                self.with($math::log1p::<FMA>(self.v))
            }
            #[inline(always)]
            fn log2(self) -> Self {
                self.with($math::log2::<FMA>(self.v))
            }
            #[inline(always)]
            fn sin(self) -> Self {
                self.with($math::sin_quadrant::<FMA>(self.v, 0)).mark(self.v.abs() > $math::SIN_LIMIT && self.v.abs() < $t::INFINITY)
            }
            #[inline(always)]
            fn cos(self) -> Self {
                self.with($math::sin_quadrant::<FMA>(self.v, 1)).mark(self.v.abs() > $math::SIN_LIMIT && self.v.abs() < $t::INFINITY)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.with(self.v.floor())
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                self.with(self.v.ceil())
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                self.with(self.v.trunc())
            }
            #[inline(always)]
            fn round_even(self) -> Self {
                self.with(self.v.round_ties_even())
            }
            #[inline(always)]
            fn copysign(self, b: Self) -> Self {
                self.both(b, self.v.copysign(b.v))
            }
            float_lane!(@functions $t);
        }
    };
    (@op $Lane:ident, $($op:ident $f:ident $sign:tt),*) => {$(
        impl<const FMA: bool> $op for $Lane<FMA> {
            type Output = Self;
            #[inline(always)]
            fn $f(self, b: Self) -> Self {
                self.both(b, self.v $sign b.v)
            }
        }
    )*};
    // Quotients of f32 are exact enough in f64 for their whole part to be right (below 2²⁷).
    (@division f32) => {
        #[inline(always)]
        fn div_trunc(self, b: Self) -> Self {
            self.both(b, (f64::from(self.v) / f64::from(b.v)).trunc() as f32)
        }
        #[inline(always)]
        fn div_floor(self, b: Self) -> Self {
            self.both(b, (f64::from(self.v) / f64::from(b.v)).floor() as f32)
        }
        #[inline(always)]
        fn fmod(self, b: Self) -> Self {
            let (x, y) = (f64::from(self.v), f64::from(b.v));
            let q = (x / y).trunc();
            let r = if b.v.is_infinite() && self.v.is_finite() { x } else { x - q * y };
            self.both(b, (r as f32).copysign(self.v)).mark(q.abs() > 1e8 && q.abs() < f64::INFINITY)
        }
        #[inline(always)]
        fn remainder(self, b: Self) -> Self {
            let r = self.fmod(b);
            r.with(if r.v != 0.0 && (r.v < 0.0) != (b.v < 0.0) { r.v + b.v } else { r.v })
        }
    };
    (@division f64) => {
        #[inline(always)]
        fn div_trunc(self, b: Self) -> Self {
            self.both(b, (self.v / b.v).trunc())
        }
        #[inline(always)]
        fn div_floor(self, b: Self) -> Self {
            self.both(b, (self.v / b.v).floor())
        }
        #[inline(always)]
        fn fmod(self, b: Self) -> Self {
            self.both(b, self.v % b.v)
        }
        #[inline(always)]
        fn remainder(self, b: Self) -> Self {
            let r = self.v % b.v;
            self.both(b, if r != 0.0 && (r < 0.0) != (b.v < 0.0) { r + b.v } else { r })
        }
    };
    (@functions f32) => {
        #[inline(always)]
        fn tanh(self) -> Self {
            // An infinite argument is an overflow of whoever computed it, more often than a value of theirs.
            self.with(math_f32::tanh::<FMA>(self.v)).mark(self.v.is_infinite())
        }
        #[inline(always)]
        fn sigmoid(self) -> Self {
            // Down there the result is, or makes with one more factor, a subnormal with few digits.
            self.with(math_f32::sigmoid::<FMA>(self.v)).mark(self.v < -60.0 && self.v > -110.0)
        }
        #[inline(always)]
        fn erf(self) -> Self {
            self.with(math_f32::erf::<FMA>(self.v))
        }
        #[inline(always)]
        fn pow(self, b: Self) -> Self {
            let great = b.v.abs() >= 2_147_483_648.0 || b.v.is_nan();
            self.both(b, math_f32::pow::<FMA>(self.v, b.v)).mark(great || !self.v.is_finite())
        }
    };
    (@functions f64) => {
        #[inline(always)]
        fn tanh(self) -> Self {
            self.with(math_f64::tanh::<FMA>(self.v))
        }
        #[inline(always)]
        fn sigmoid(self) -> Self {
            self.with(math_f64::sigmoid::<FMA>(self.v))
        }
        // These two are the system's: they mark every lane, so that the loop over them stays out of the fast path.
        #[inline(always)]
        fn erf(self) -> Self {
            self.mark(true)
        }
        #[inline(always)]
        fn pow(self, _: Self) -> Self {
            self.mark(true)
        }
    };
}

float_lane!(F32, f32, math_f32, "An f32 lane; also f16 and bf16, which are computed in f32 and rounded once when stored.");
float_lane!(F64, f64, math_f64, "An f64 lane.");
