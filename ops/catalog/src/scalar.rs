//! The vocabulary scalar expressions are written in: one expression serves the reference, SIMD lanes and portable kernels.
//!
//! Expressions are branch-free: choices go through [`Arith::select`], so that a lane type can evaluate both sides.

use core::num::Wrapping;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Shl, Shr, Sub};

/// A truth value per lane.
pub trait Mask: Copy + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self> {
    /// The same truth value in every lane.
    fn splat(value: bool) -> Self;
}

/// Arithmetic common to integers (wrapping) and floats (IEEE).
pub trait Arith: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self> {
    /// Comparison results.
    type Mask: Mask;
    /// Whether values are floating point; a constant, so expressions may differ by it (`maximum` propagates NaN only here).
    const FLOAT: bool;
    /// An integer constant.
    fn int(value: i64) -> Self;
    /// A numeric attribute given as (float value, integer value): floats take the first, integers the second.
    fn number(float: f64, int: i64) -> Self;
    /// `a < b`; false when either is NaN.
    fn lt(self, b: Self) -> Self::Mask;
    /// `a <= b`; false when either is NaN.
    fn le(self, b: Self) -> Self::Mask;
    /// `a == b`; false when either is NaN.
    fn eq(self, b: Self) -> Self::Mask;
    /// Not a number; false for integers.
    fn is_nan(self) -> Self::Mask;
    /// `mask ? a : b`.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    /// Absolute value; of the least integer, itself.
    fn abs(self) -> Self;
    /// Exact quotient rounded toward zero. Integers: division by zero gives 0 (no trap), least / -1 gives least.
    fn div_trunc(self, b: Self) -> Self;
    /// Exact quotient rounded down; zero divisors as in `div_trunc`.
    fn div_floor(self, b: Self) -> Self;
    /// Remainder with the divisor's sign (Python's `%`); integer x % 0 is 0.
    fn remainder(self, b: Self) -> Self;
    /// Remainder with the dividend's sign (C's `fmod`); integer x fmod 0 is 0.
    fn fmod(self, b: Self) -> Self;

    /// self + f·b·c. Types whose range the product may leave although the sum does not take care of that.
    fn add_product(self, f: Self, b: Self, c: Self) -> Self {
        self + f * b * c
    }
    /// `a > b`.
    fn gt(self, b: Self) -> Self::Mask {
        b.lt(self)
    }
    /// `a >= b`.
    fn ge(self, b: Self) -> Self::Mask {
        b.le(self)
    }
    /// `a != b`; true when either is NaN.
    fn ne(self, b: Self) -> Self::Mask {
        !self.eq(b)
    }
    /// The greater; NaN if either is NaN.
    fn maximum(self, b: Self) -> Self {
        Self::select(self.gt(b) | self.is_nan(), self, b)
    }
    /// The lesser; NaN if either is NaN.
    fn minimum(self, b: Self) -> Self {
        Self::select(self.lt(b) | self.is_nan(), self, b)
    }
}

/// Real floating point with the usual functions.
pub trait Float: Arith + Div<Output = Self> {
    /// A constant, rounded to the type.
    fn lit(value: f64) -> Self;
    /// `self * b + c`, fused where the target has it.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// eˣ - 1.
    fn expm1(self) -> Self;
    /// Natural logarithm.
    fn log(self) -> Self;
    /// ln(1 + x).
    fn log1p(self) -> Self;
    /// Base-2 logarithm.
    fn log2(self) -> Self;
    /// Sine of radians.
    fn sin(self) -> Self;
    /// Cosine of radians.
    fn cos(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// selfᵇ as in C's `pow`.
    fn pow(self, b: Self) -> Self;
    /// Rounded down.
    fn floor(self) -> Self;
    /// Rounded up.
    fn ceil(self) -> Self;
    /// Rounded toward zero.
    fn trunc(self) -> Self;
    /// Rounded to nearest, ties to even.
    fn round_even(self) -> Self;
    /// Magnitude of self with the sign bit of `b`.
    fn copysign(self, b: Self) -> Self;

    /// 1/√x.
    fn rsqrt(self) -> Self {
        Self::lit(1.0) / self.sqrt()
    }
    /// 1/(1 + e⁻ˣ).
    fn sigmoid(self) -> Self {
        Self::lit(1.0) / (Self::lit(1.0) + (-self).exp())
    }
    /// x·sigmoid(x).
    fn silu(self) -> Self {
        self * self.sigmoid()
    }
    /// dy·s·(1 + x·(1 - s)), s = sigmoid(x). Types to which small numbers are few take care where s is small and dy is not.
    fn silu_backward(self, dy: Self) -> Self {
        let s = self.sigmoid();
        dy * (s + self.silu() * (Self::lit(1.0) - s))
    }
    /// self + w·(b - self). Types whose range the difference may leave take care of that.
    fn lerp(self, b: Self, w: Self) -> Self {
        self + w * (b - self)
    }
}

/// Bit patterns of integers, and truth values.
pub trait Bits:
    Copy + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self> + Shl<Output = Self> + Shr<Output = Self>
{
}

impl Mask for bool {
    fn splat(value: bool) -> bool {
        value
    }
}

/// The reference's float: f64 through the the `libm` crate, equal on every platform.
impl Arith for f64 {
    type Mask = bool;
    const FLOAT: bool = true;
    fn int(value: i64) -> f64 {
        value as f64
    }
    fn number(float: f64, _: i64) -> f64 {
        float
    }
    fn lt(self, b: f64) -> bool {
        self < b
    }
    fn le(self, b: f64) -> bool {
        self <= b
    }
    fn eq(self, b: f64) -> bool {
        self == b
    }
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
    fn select(mask: bool, a: f64, b: f64) -> f64 {
        if mask { a } else { b }
    }
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    fn div_trunc(self, b: f64) -> f64 {
        let q = f64::trunc(self / b);
        // The division may have rounded up to an integer the exact quotient does not reach.
        let rest = f64::mul_add(-q, b, self);
        if overshot(q, b) && rest != 0.0 && (rest < 0.0) != (self < 0.0) { (q.abs() - 1.0).copysign(q) } else { q }
    }
    fn div_floor(self, b: f64) -> f64 {
        let q = f64::floor(self / b);
        let rest = f64::mul_add(-q, b, self);
        if overshot(q, b) && rest != 0.0 && (rest < 0.0) != (b < 0.0) { q - 1.0 } else { q }
    }
    fn remainder(self, b: f64) -> f64 {
        let r = self % b;
        if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
    }
    fn fmod(self, b: f64) -> f64 {
        self % b
    }
}

impl Float for f64 {
    fn lit(value: f64) -> f64 {
        value
    }
    fn mul_add(self, b: f64, c: f64) -> f64 {
        f64::mul_add(self, b, c)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn expm1(self) -> f64 {
        libm::expm1(self)
    }
    fn log(self) -> f64 {
        libm::log(self)
    }
    fn log1p(self) -> f64 {
        libm::log1p(self)
    }
    fn log2(self) -> f64 {
        libm::log2(self)
    }
    fn sin(self) -> f64 {
        libm::sin(self)
    }
    fn cos(self) -> f64 {
        libm::cos(self)
    }
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn pow(self, b: f64) -> f64 {
        libm::pow(self, b)
    }
    fn floor(self) -> f64 {
        f64::floor(self)
    }
    fn ceil(self) -> f64 {
        f64::ceil(self)
    }
    fn trunc(self) -> f64 {
        f64::trunc(self)
    }
    fn round_even(self) -> f64 {
        f64::round_ties_even(self)
    }
    fn copysign(self, b: f64) -> f64 {
        f64::copysign(self, b)
    }
    fn sigmoid(self) -> f64 {
        // e⁻ˣ would overflow where the result is still subnormal.
        if self < 0.0 { libm::exp(self) / (1.0 + libm::exp(self)) } else { 1.0 / (1.0 + libm::exp(-self)) }
    }
    fn silu(self) -> f64 {
        // A subnormal sigmoid has few bits: multiply while eˣ is still normal. -∞ keeps the product's NaN.
        let small = self < -600.0 && self.is_finite();
        if small { self * libm::exp(self + 64.0) * E_TO_MINUS_64 } else { self * self.sigmoid() }
    }
}

/// Whether a quotient may have passed an integer by rounding: larger ones are integers with a rounding error of their own.
fn overshot(q: f64, b: f64) -> bool {
    q.abs() < 9_007_199_254_740_992.0 && b.is_finite()
}

const E_TO_MINUS_64: f64 = 1.603_810_890_548_638e-28;

/// The reference's integer: wide enough for every type, wrapped to the operand type when stored. Wrapping itself, because a product of
/// three 64-bit integers passes 128 bits.
impl Arith for Wrapping<i128> {
    type Mask = bool;
    const FLOAT: bool = false;
    fn int(value: i64) -> Self {
        Wrapping(value.into())
    }
    fn number(_: f64, int: i64) -> Self {
        Wrapping(int.into())
    }
    fn lt(self, b: Self) -> bool {
        self < b
    }
    fn le(self, b: Self) -> bool {
        self <= b
    }
    fn eq(self, b: Self) -> bool {
        self == b
    }
    fn is_nan(self) -> bool {
        false
    }
    fn select(mask: bool, a: Self, b: Self) -> Self {
        if mask { a } else { b }
    }
    fn abs(self) -> Self {
        Wrapping(self.0.wrapping_abs())
    }
    fn div_trunc(self, b: Self) -> Self {
        Wrapping(self.0.checked_div(b.0).unwrap_or(0))
    }
    fn div_floor(self, b: Self) -> Self {
        if b.0 == 0 { b } else { Wrapping(self.0.div_euclid(b.0) - i128::from(b.0 < 0 && self.0.rem_euclid(b.0) != 0)) }
    }
    fn remainder(self, b: Self) -> Self {
        if b.0 == 0 { b } else { self - b * Arith::div_floor(self, b) }
    }
    fn fmod(self, b: Self) -> Self {
        Wrapping(self.0.checked_rem(b.0).unwrap_or(0))
    }
}

impl Bits for i128 {}
