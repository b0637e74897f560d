//! Numbers under construction: arithmetic written as formulas becomes instructions.
//!
//! Operators build what is exact everywhere: sums and products rounded once, comparisons, bits. Quotients and roots of the format are only
//! estimates; [`exact`](super::exact) makes them right. Products are never fused, and none of this relies on a fused instruction.

use core::cell::RefCell;
use core::ops::{Add, Mul, Neg, Sub};

use crate::Elem;
use crate::thread::build::Build;
use crate::thread::{Kernel, Stmt, Ty, Val, Var};
use crate::tile::{Binary, Cast, CmpF, CmpI, Unary};

/// Where instructions go, and the float type functions are computed in.
pub struct Math {
    kernel: RefCell<Kernel>,
    statements: RefCell<Vec<Stmt>>,
    /// f32 or f64.
    pub elem: Elem,
}

/// A value of a [`Math`]: a float, an integer or a truth value.
#[derive(Clone, Copy)]
pub struct Num<'m> {
    math: &'m Math,
    /// The value.
    pub val: Val,
}

/// An unevaluated sum of a float and a much smaller one.
#[derive(Clone, Copy)]
pub struct Pair<'m> {
    /// The sum rounded.
    pub hi: Num<'m>,
    /// What rounding lost.
    pub lo: Num<'m>,
}

impl Math {
    /// Appends to an empty list, for a kernel whose types and variables grow.
    pub fn new(kernel: Kernel, elem: Elem) -> Math {
        Math { kernel: RefCell::new(kernel), statements: RefCell::default(), elem }
    }

    /// The kernel, and the statements built.
    pub fn finish(self) -> (Kernel, Vec<Stmt>) {
        (self.kernel.into_inner(), self.statements.into_inner())
    }

    /// Builds with a builder.
    pub fn with<R>(&self, f: impl FnOnce(&mut Build<'_>) -> R) -> R {
        let mut kernel = self.kernel.borrow_mut();
        let mut build = Build::new(&mut kernel);
        build.replace(self.statements.take());
        let result = f(&mut build);
        self.statements.replace(build.finish());
        result
    }

    /// Bits of the significand, the hidden one counted: 24 or 53.
    pub fn precision(&self) -> i64 {
        if self.elem == Elem::F64 { 53 } else { 24 }
    }

    /// Bias of the exponent: 127 or 1023.
    pub fn bias(&self) -> i64 {
        if self.elem == Elem::F64 { 1023 } else { 127 }
    }

    /// Width in bits: 32 or 64.
    pub fn width(&self) -> i64 {
        i64::from(self.elem.bits())
    }

    /// One of two constants by type.
    pub fn either<T>(&self, single: T, double: T) -> T {
        if self.elem == Elem::F64 { double } else { single }
    }
}

impl Math {
    /// A value of the kernel.
    pub fn value(&self, val: Val) -> Num<'_> {
        Num { math: self, val }
    }

    /// A float constant, rounded to the type.
    pub fn float(&self, value: f64) -> Num<'_> {
        self.value(self.with(|b| b.float(self.elem, value)))
    }

    /// An integer constant of the float's width.
    pub fn int(&self, value: i64) -> Num<'_> {
        self.value(self.with(|b| b.int(self.elem.as_int(), value)))
    }

    /// A constant to twice the precision: `value + rest` as f64s; f32 takes its second half from `value`.
    pub fn pair(&self, value: f64, rest: f64) -> Pair<'_> {
        let lost = value - f64::from(value as f32);
        Pair { hi: self.float(value), lo: self.float(self.either(lost, rest)) }
    }

    /// Appends a statement.
    pub fn push(&self, stmt: Stmt) {
        self.with(|b| b.push(stmt));
    }

    /// What `f` builds, as a list of its own.
    pub fn nested(&self, f: impl FnOnce()) -> Vec<Stmt> {
        let outer = self.statements.take();
        f();
        self.statements.replace(outer)
    }

    /// A new variable with a first value.
    pub fn variable(&self, first: Num<'_>) -> Var {
        let ty = Ty::Elem(first.elem());
        self.with(|b| {
            let var = b.kernel.var(ty, 1);
            b.set(var, 0, first.val);
            var
        })
    }

    /// A variable's value.
    pub fn get(&self, var: Var) -> Num<'_> {
        self.value(self.with(|b| b.get(var, 0)))
    }

    /// Positive infinity.
    pub fn infinity(&self) -> Num<'_> {
        self.float(f64::INFINITY)
    }

    /// A quiet NaN.
    pub fn nan(&self) -> Num<'_> {
        self.float(f64::NAN)
    }

    /// 2^e for integer values e of normal numbers.
    pub fn power_of_two<'m>(&'m self, e: Num<'m>) -> Num<'m> {
        (e + self.bias()).shl(self.precision() - 1).as_float()
    }

    /// Σ coefficients\[i\]·x^i, by Horner's rule.
    pub fn polynomial<'m>(&'m self, x: Num<'m>, coefficients: &[f64]) -> Num<'m> {
        let mut terms = coefficients.iter().rev();
        let first = self.float(*terms.next().unwrap_or(&0.0));
        terms.fold(first, |sum, c| sum * x + *c)
    }
}

impl<'m> Num<'m> {
    /// The math it belongs to.
    pub fn math(self) -> &'m Math {
        self.math
    }

    fn of(self, val: Val) -> Num<'m> {
        self.math.value(val)
    }

    fn elem(self) -> Elem {
        self.math.with(|b| b.elem(self.val))
    }

    fn constant(self, value: i64) -> Num<'m> {
        let elem = self.elem();
        self.of(self.math.with(|b| b.int(elem, value)))
    }

    /// A function of the format.
    pub fn unary(self, op: Unary) -> Num<'m> {
        self.of(self.math.with(|b| b.unary(op, self.val)))
    }

    /// An operation of the format.
    pub fn binary(self, op: Binary, other: Num<'m>) -> Num<'m> {
        self.of(self.math.with(|b| b.binary(op, self.val, other.val)))
    }

    /// |x|.
    pub fn abs(self) -> Num<'m> {
        self.unary(Unary::AbsF)
    }

    /// The magnitude with another's sign.
    pub fn with_sign_of(self, other: Num<'m>) -> Num<'m> {
        let top = 1i64 << (self.math.width() - 1);
        (self.bits().and(!top).or(other.bits().and(top))).as_float()
    }

    /// To the nearest integer value, ties to even.
    pub fn round(self) -> Num<'m> {
        self.unary(Unary::RoundEven)
    }

    /// Whether it is NaN.
    pub fn is_nan(self) -> Num<'m> {
        self.unary(Unary::IsNan)
    }

    /// An estimate of the quotient within a few units in the last place.
    pub fn quotient_estimate(self, other: Num<'m>) -> Num<'m> {
        self.binary(Binary::DivF, other)
    }

    /// The smaller number.
    pub fn at_most(self, limit: f64) -> Num<'m> {
        let limit = self.math.float(limit);
        limit.less(self).select(limit, self)
    }

    /// The larger number.
    pub fn at_least(self, limit: f64) -> Num<'m> {
        let limit = self.math.float(limit);
        self.less(limit).select(limit, self)
    }

    fn compare(self, op: CmpF, other: Num<'m>) -> Num<'m> {
        self.of(self.math.with(|b| b.cmp_f(op, self.val, other.val)))
    }

    fn compare_int(self, op: CmpI, other: Num<'m>) -> Num<'m> {
        self.of(self.math.with(|b| b.cmp_i(op, self.val, other.val)))
    }

    /// self < other; false for NaN. Integers compare signed.
    pub fn less(self, other: Num<'m>) -> Num<'m> {
        if self.elem().is_float() { self.compare(CmpF::Olt, other) } else { self.compare_int(CmpI::Slt, other) }
    }

    /// self < other for unsigned integers.
    pub fn below(self, other: Num<'m>) -> Num<'m> {
        self.compare_int(CmpI::Ult, other)
    }

    /// self = other; false for NaN.
    pub fn equal(self, other: Num<'m>) -> Num<'m> {
        if self.elem().is_float() { self.compare(CmpF::Oeq, other) } else { self.compare_int(CmpI::Eq, other) }
    }

    /// self < a constant.
    pub fn under(self, limit: f64) -> Num<'m> {
        self.less(self.math.float(limit))
    }

    /// self > a constant.
    pub fn over(self, limit: f64) -> Num<'m> {
        self.math.float(limit).less(self)
    }

    /// self = an integer constant.
    pub fn is(self, value: i64) -> Num<'m> {
        self.equal(self.constant(value))
    }

    /// Truth values: a where true, else b.
    pub fn select(self, a: Num<'m>, b: Num<'m>) -> Num<'m> {
        self.of(self.math.with(|build| build.select(self.val, a.val, b.val)))
    }

    /// Truth values: both.
    pub fn both(self, other: Num<'m>) -> Num<'m> {
        self.binary(Binary::And, other)
    }

    /// Truth values: any.
    pub fn any(self, other: Num<'m>) -> Num<'m> {
        self.binary(Binary::Or, other)
    }

    /// Truth values: not.
    pub fn not(self) -> Num<'m> {
        let one = self.of(self.math.with(|b| b.bits(Elem::I1, 1)));
        self.binary(Binary::Xor, one)
    }

    fn cast(self, op: Cast, to: Elem) -> Num<'m> {
        self.of(self.math.with(|b| b.cast(op, to, self.val)))
    }

    /// A float's bits.
    pub fn bits(self) -> Num<'m> {
        self.cast(Cast::Bitcast, self.math.elem.as_int())
    }

    /// The float of bits.
    pub fn as_float(self) -> Num<'m> {
        self.cast(Cast::Bitcast, self.math.elem)
    }

    /// The integer toward zero.
    pub fn to_int(self) -> Num<'m> {
        self.cast(Cast::FpToSi, self.math.elem.as_int())
    }

    /// The float of a signed integer.
    pub fn to_float(self) -> Num<'m> {
        self.cast(Cast::SiToFp, self.math.elem)
    }

    /// In double precision.
    pub fn to_double(self) -> Num<'m> {
        self.cast(Cast::ExtF, Elem::F64)
    }

    /// A double in single precision.
    pub fn to_single(self) -> Num<'m> {
        self.cast(Cast::TruncF, Elem::F32)
    }

    /// A truth value as integer 0 or 1.
    pub fn as_int(self) -> Num<'m> {
        self.cast(Cast::ExtU, self.math.elem.as_int())
    }

    /// Bitwise and with a constant.
    pub fn and(self, mask: i64) -> Num<'m> {
        self.binary(Binary::And, self.constant(mask))
    }

    /// Bitwise or.
    pub fn or(self, other: Num<'m>) -> Num<'m> {
        self.binary(Binary::Or, other)
    }

    /// Left by a constant.
    pub fn shl(self, n: i64) -> Num<'m> {
        self.binary(Binary::Shl, self.constant(n))
    }

    /// Right by a constant, zeros in.
    pub fn shr(self, n: i64) -> Num<'m> {
        self.binary(Binary::ShrU, self.constant(n))
    }

    /// Right by a constant, the sign in.
    pub fn sar(self, n: i64) -> Num<'m> {
        self.binary(Binary::ShrS, self.constant(n))
    }

    /// Left by a value below the width.
    pub fn shl_by(self, n: Num<'m>) -> Num<'m> {
        self.binary(Binary::Shl, n)
    }

    /// Right by a value below the width, zeros in.
    pub fn shr_by(self, n: Num<'m>) -> Num<'m> {
        self.binary(Binary::ShrU, n)
    }

    /// The number of leading zero bits.
    pub fn leading_zeros(self) -> Num<'m> {
        self.unary(Unary::Ctlz)
    }

    /// High half of an unsigned product.
    pub fn mul_high(self, other: Num<'m>) -> Num<'m> {
        self.binary(Binary::MulHiU, other)
    }

    /// The float rounded to its upper half of bits, so that products of two such are exact.
    fn upper_half(self) -> Num<'m> {
        let scaled = self * self.math.either(4097.0, 134_217_729.0);
        scaled - (scaled - self)
    }

    /// The product exactly (Dekker); magnitudes stay clear of overflow and underflow.
    pub fn times(self, other: Num<'m>) -> Pair<'m> {
        let hi = self * other;
        let (a, b) = (self.upper_half(), other.upper_half());
        let (c, d) = (self - a, other - b);
        let lo = ((a * b - hi) + a * d + c * b) + c * d;
        Pair { hi, lo }
    }

    /// The sum exactly (Knuth).
    pub fn plus(self, other: Num<'m>) -> Pair<'m> {
        let hi = self + other;
        let b = hi - self;
        let lo = (self - (hi - b)) + (other - b);
        Pair { hi, lo }
    }

    /// The sum exactly where |self| ≥ |other| (Dekker).
    pub fn plus_smaller(self, other: Num<'m>) -> Pair<'m> {
        let hi = self + other;
        Pair { hi, lo: other - (hi - self) }
    }

    /// As a pair.
    pub fn widened(self) -> Pair<'m> {
        Pair { hi: self, lo: self.math.float(0.0) }
    }
}

impl<'m> Pair<'m> {
    /// One float.
    pub fn rounded(self) -> Num<'m> {
        self.hi + self.lo
    }

    /// Both halves times a power of two (or another factor that rounds nothing).
    pub fn scaled(self, by: Num<'m>) -> Pair<'m> {
        Pair { hi: self.hi * by, lo: self.lo * by }
    }

    /// The quotient of pairs, to about twice the precision less a few bits.
    pub fn over(self, other: Pair<'m>) -> Pair<'m> {
        let q = self.hi.quotient_estimate(other.hi);
        let p = q.times(other.hi);
        let rest = ((self.hi - p.hi) - p.lo) + (self.lo - q * other.lo);
        q.plus_smaller(rest.quotient_estimate(other.hi))
    }
}

impl<'m> Add for Pair<'m> {
    type Output = Pair<'m>;
    fn add(self, other: Pair<'m>) -> Pair<'m> {
        let sum = self.hi.plus(other.hi);
        sum.hi.plus_smaller(sum.lo + (self.lo + other.lo))
    }
}

impl<'m> Mul for Pair<'m> {
    type Output = Pair<'m>;
    fn mul(self, other: Pair<'m>) -> Pair<'m> {
        let p = self.hi.times(other.hi);
        p.hi.plus_smaller(p.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Neg for Pair<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        Pair { hi: -self.hi, lo: -self.lo }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $float:ident, $int:ident) => {
        impl<'m> $trait for Num<'m> {
            type Output = Num<'m>;
            fn $method(self, other: Num<'m>) -> Num<'m> {
                self.binary(if self.elem().is_float() { Binary::$float } else { Binary::$int }, other)
            }
        }
        impl<'m> $trait<f64> for Num<'m> {
            type Output = Num<'m>;
            fn $method(self, other: f64) -> Num<'m> {
                self.binary(Binary::$float, self.math.float(other))
            }
        }
        impl<'m> $trait<i64> for Num<'m> {
            type Output = Num<'m>;
            fn $method(self, other: i64) -> Num<'m> {
                self.binary(Binary::$int, self.constant(other))
            }
        }
    };
}

operator!(Add, add, AddF, AddI);
operator!(Sub, sub, SubF, SubI);
operator!(Mul, mul, MulF, MulI);

impl<'m> Neg for Num<'m> {
    type Output = Num<'m>;
    fn neg(self) -> Num<'m> {
        if self.elem().is_float() { self.unary(Unary::NegF) } else { self.constant(0) - self }
    }
}
