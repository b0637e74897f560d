//! Tile values as scalars of the catalogue's expressions: pointwise operators are written once, there.

use core::cell::Cell;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Shl, Shr, Sub};

use flagos_catalog::{Arith, Bits, Float, Mask};
use flagos_compiler::Elem;
use flagos_compiler::build::{Expr, float_constant, int_constant};

thread_local! {
    /// Type of constants in the expression being built.
    static ELEM: Cell<Elem> = const { Cell::new(Elem::F32) };
}

/// Builds an expression whose constants have type `elem`.
pub fn within<R>(elem: Elem, f: impl FnOnce() -> R) -> R {
    ELEM.set(elem);
    f()
}

/// A truth value.
#[derive(Clone, Copy)]
pub struct Truth(pub Expr);

/// A float computed in f32 or f64.
#[derive(Clone, Copy)]
pub struct Real(pub Expr);

/// A signed integer computed in 32 or 64 bits.
#[derive(Clone, Copy)]
pub struct Whole(pub Expr);

macro_rules! operators {
    ($Lane:ident: $($Trait:ident $f:ident $sign:tt),*) => {$(
        impl $Trait for $Lane {
            type Output = $Lane;
            fn $f(self, b: $Lane) -> $Lane {
                $Lane(self.0 $sign b.0)
            }
        }
    )*};
}
macro_rules! negative {
    ($($Lane:ident $Trait:ident $f:ident $sign:tt),*) => {$(
        impl $Trait for $Lane {
            type Output = $Lane;
            fn $f(self) -> $Lane {
                $Lane($sign self.0)
            }
        }
    )*};
}
operators!(Truth: BitAnd bitand &, BitOr bitor |, BitXor bitxor ^);
operators!(Real: Add add +, Sub sub -, Mul mul *, Div div /);
operators!(Whole: Add add +, Sub sub -, Mul mul *, BitAnd bitand &, BitOr bitor |, BitXor bitxor ^, Shl shl <<, Shr shr >>);
negative!(Truth Not not !, Whole Not not !, Real Neg neg -, Whole Neg neg -);

impl Mask for Truth {
    fn splat(value: bool) -> Truth {
        Truth(int_constant(Elem::I1, value.into()))
    }
}

impl Real {
    fn map(self, f: impl FnOnce(Expr) -> Expr) -> Real {
        Real(f(self.0))
    }
    /// A quotient that rounding carried to an integer beyond the exact one, taken `back`; `rest` is what the quotient leaves, `wrong`
    /// whether its sign tells of that.
    fn overshot(q: Real, b: Real, rest: Real, wrong: Truth, back: impl FnOnce(Real) -> Real) -> Real {
        let exact = if q.0.elem() == Elem::F64 { 9_007_199_254_740_992.0 } else { 16_777_216.0 };
        // Larger quotients are integers with a rounding error of their own; an infinite divisor leaves nothing to settle.
        let near = q.abs().lt(Real::lit(exact)) & b.abs().lt(Real::lit(f64::INFINITY));
        let rest = rest.gt(Real::lit(0.0)) | rest.lt(Real::lit(0.0));
        Real::select(near & rest & wrong, back(q), q)
    }
}

impl Arith for Real {
    type Mask = Truth;
    const FLOAT: bool = true;
    fn int(value: i64) -> Real {
        Real(float_constant(ELEM.get(), value as f64))
    }
    fn number(float: f64, _: i64) -> Real {
        Real(float_constant(ELEM.get(), float))
    }
    fn lt(self, b: Real) -> Truth {
        Truth(self.0.lt(b.0))
    }
    fn le(self, b: Real) -> Truth {
        Truth(self.0.le(b.0))
    }
    fn eq(self, b: Real) -> Truth {
        Truth(self.0.equals(b.0))
    }
    fn ne(self, b: Real) -> Truth {
        Truth(self.0.differs(b.0))
    }
    fn is_nan(self) -> Truth {
        Truth(self.0.is_nan())
    }
    fn select(mask: Truth, a: Real, b: Real) -> Real {
        Real(mask.0.select(a.0, b.0))
    }
    fn abs(self) -> Real {
        self.map(Expr::abs)
    }
    fn maximum(self, b: Real) -> Real {
        Real(self.0.maximum(b.0))
    }
    fn minimum(self, b: Real) -> Real {
        Real(self.0.minimum(b.0))
    }
    fn div_trunc(self, b: Real) -> Real {
        let q = (self / b).trunc();
        let rest = Real((-q.0).fma(b.0, self.0));
        let wrong = rest.lt(Real::lit(0.0)) ^ self.lt(Real::lit(0.0));
        Real::overshot(q, b, rest, wrong, |q| (q.abs() - Real::lit(1.0)).copysign(q))
    }
    fn div_floor(self, b: Real) -> Real {
        let q = (self / b).floor();
        let rest = Real((-q.0).fma(b.0, self.0));
        let wrong = rest.lt(Real::lit(0.0)) ^ b.lt(Real::lit(0.0));
        Real::overshot(q, b, rest, wrong, |q| q - Real::lit(1.0))
    }
    fn remainder(self, b: Real) -> Real {
        let r = self.fmod(b);
        let turn = r.ne(Real::lit(0.0)) & (r.lt(Real::lit(0.0)) ^ b.lt(Real::lit(0.0)));
        Real::select(turn, r + b, r)
    }
    fn fmod(self, b: Real) -> Real {
        Real(self.0 % b.0)
    }
    fn add_product(self, f: Real, b: Real, c: Real) -> Real {
        if ELEM.get() == Elem::F64 {
            return self + f * b * c;
        }
        // Fused, the second product cannot leave the range before the sum; where the first one does, everything is scaled.
        let (fb, down, up) = (f * b, Real::lit(2f64.powi(-64)), Real::lit(2f64.powi(64)));
        let left = fb.abs().eq(Real::lit(f64::INFINITY)) & f.abs().lt(Real::lit(f64::INFINITY)) & b.abs().lt(Real::lit(f64::INFINITY));
        let scaled = (f * (b * down)).mul_add(c, self * down) * up;
        let scaled = Real::select(c.eq(Real::lit(0.0)), self, scaled);
        Real::select(left, scaled, fb.mul_add(c, self))
    }
}

impl Float for Real {
    fn lit(value: f64) -> Real {
        Real(float_constant(ELEM.get(), value))
    }
    fn mul_add(self, b: Real, c: Real) -> Real {
        Real(self.0.fma(b.0, c.0))
    }
    fn sqrt(self) -> Real {
        self.map(Expr::sqrt)
    }
    fn exp(self) -> Real {
        self.map(Expr::exp)
    }
    fn expm1(self) -> Real {
        self.map(Expr::expm1)
    }
    fn log(self) -> Real {
        self.map(Expr::log)
    }
    fn log1p(self) -> Real {
        self.map(Expr::log1p)
    }
    fn log2(self) -> Real {
        self.map(Expr::log2)
    }
    fn sin(self) -> Real {
        self.map(Expr::sin)
    }
    fn cos(self) -> Real {
        self.map(Expr::cos)
    }
    fn tanh(self) -> Real {
        self.map(Expr::tanh)
    }
    fn erf(self) -> Real {
        self.map(Expr::erf)
    }
    fn pow(self, b: Real) -> Real {
        Real(self.0.pow(b.0))
    }
    fn floor(self) -> Real {
        self.map(Expr::floor)
    }
    fn ceil(self) -> Real {
        self.map(Expr::ceil)
    }
    fn trunc(self) -> Real {
        self.map(Expr::trunc)
    }
    fn round_even(self) -> Real {
        self.map(Expr::round_even)
    }
    fn copysign(self, b: Real) -> Real {
        Real(self.0.copysign(b.0))
    }
    fn sigmoid(self) -> Real {
        // e⁻ˣ would overflow where the result is still a number.
        let (one, e) = (Real::lit(1.0), (-self.abs()).exp());
        Real::select(self.lt(Real::lit(0.0)), e, one) / (one + e)
    }
    fn silu(self) -> Real {
        // A subnormal sigmoid has few bits: multiply while eˣ is still normal. -∞ keeps the product's NaN.
        let (one, zero) = (Real::lit(1.0), Real::lit(0.0));
        let small = self.lt(Real::lit(if ELEM.get() == Elem::F64 { -600.0 } else { -80.0 })) & self.gt(Real::lit(f64::NEG_INFINITY));
        let e = Real::select(small, self + Real::lit(64.0), -self.abs()).exp();
        let usual = self * (Real::select(self.lt(zero), e, one) / (one + e));
        Real::select(small, self * e * Real::lit(E_TO_MINUS_64), usual)
    }
    fn silu_backward(self, dy: Real) -> Real {
        let (one, s) = (Real::lit(1.0), self.sigmoid());
        let small = self.lt(Real::lit(if ELEM.get() == Elem::F64 { -600.0 } else { -80.0 })) & self.gt(Real::lit(f64::NEG_INFINITY));
        // There 1 - s is 1, and s is eˣ, which has few bits: multiply while it has all.
        let e = (self + Real::lit(64.0)).exp();
        Real::select(small, dy * e * (one + self) * Real::lit(E_TO_MINUS_64), dy * (s + self.silu() * (one - s)))
    }
    fn lerp(self, b: Real, w: Real) -> Real {
        if ELEM.get() == Elem::F64 {
            return self + w * (b - self);
        }
        // The difference of two numbers near the end of the range leaves it: everything is scaled there.
        let near = Real::lit(2f64.powi(120));
        let large = near.lt(self.abs()) | near.lt(b.abs());
        let (down, up) = (Real::lit(2f64.powi(-4)), Real::lit(2f64.powi(4)));
        let (one, a) = (Real::lit(1.0), self);
        let (scale, back) = (Real::select(large, down, one), Real::select(large, up, one));
        let (x, z) = (a * scale, b * scale);
        (x + w * (z - x)) * back
    }
}

const E_TO_MINUS_64: f64 = 1.603_810_890_548_638e-28;

impl Arith for Whole {
    type Mask = Truth;
    const FLOAT: bool = false;
    fn int(value: i64) -> Whole {
        Whole(int_constant(ELEM.get(), value))
    }
    fn number(_: f64, int: i64) -> Whole {
        Whole(int_constant(ELEM.get(), int))
    }
    fn lt(self, b: Whole) -> Truth {
        Truth(self.0.lt(b.0))
    }
    fn le(self, b: Whole) -> Truth {
        Truth(self.0.le(b.0))
    }
    fn eq(self, b: Whole) -> Truth {
        Truth(self.0.equals(b.0))
    }
    fn is_nan(self) -> Truth {
        Mask::splat(false)
    }
    fn select(mask: Truth, a: Whole, b: Whole) -> Whole {
        Whole(mask.0.select(a.0, b.0))
    }
    fn abs(self) -> Whole {
        Whole::select(self.lt(Whole::int(0)), -self, self)
    }
    fn maximum(self, b: Whole) -> Whole {
        Whole(self.0.maximum(b.0))
    }
    fn minimum(self, b: Whole) -> Whole {
        Whole(self.0.minimum(b.0))
    }
    fn div_trunc(self, b: Whole) -> Whole {
        let (by, zero, minus) = b.divisor();
        let q = Whole(self.0 / by.0);
        Whole::select(zero, Whole::int(0), Whole::select(minus, -self, q))
    }
    fn div_floor(self, b: Whole) -> Whole {
        let (q, r) = (self.div_trunc(b), self.fmod(b));
        let turn = r.ne(Whole::int(0)) & (r.lt(Whole::int(0)) ^ b.lt(Whole::int(0)));
        Whole::select(turn, q - Whole::int(1), q)
    }
    fn remainder(self, b: Whole) -> Whole {
        let r = self.fmod(b);
        let turn = r.ne(Whole::int(0)) & (r.lt(Whole::int(0)) ^ b.lt(Whole::int(0)));
        Whole::select(turn, r + b, r)
    }
    fn fmod(self, b: Whole) -> Whole {
        let (by, zero, _) = b.divisor();
        Whole::select(zero, Whole::int(0), Whole(self.0 % by.0))
    }
}

impl Whole {
    /// This as a divisor no division stumbles over (0 and -1 become 1), and whether it is 0, or -1.
    fn divisor(self) -> (Whole, Truth, Truth) {
        let (zero, minus) = (self.eq(Whole::int(0)), self.eq(Whole::int(-1)));
        (Whole::select(zero | minus, Whole::int(1), self), zero, minus)
    }
}

impl Bits for Whole {}
