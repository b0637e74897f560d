//! Double-double arithmetic (Dekker 1971; Knuth, TAOCP vol. 2, 4.2.2): about 106 bits, for references that must be better than f64.

use core::ops::{Add, Mul, Neg, Sub};

/// An unevaluated sum `hi + lo` with |lo| at most half a unit in the last place of `hi`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Double {
    /// The nearest f64.
    pub hi: f64,
    /// What it lacks.
    pub lo: f64,
}

/// A complex double-double.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ComplexDouble {
    /// Real part.
    pub re: Double,
    /// Imaginary part.
    pub im: Double,
}

const HALF_PI: Double = Double { hi: core::f64::consts::FRAC_PI_2, lo: 6.123_233_995_736_766e-17 };

#[inline]
fn renormalised(hi: f64, lo: f64) -> Double {
    let sum = hi + lo;
    Double { hi: sum, lo: lo - (sum - hi) }
}

/// a + b without error.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

impl Double {
    /// a/b of integers below 2^53.
    pub fn ratio(a: i64, b: i64) -> Double {
        Double { hi: a as f64, lo: 0.0 }.over(b as f64)
    }
    fn over(self, d: f64) -> Double {
        let q = self.hi / d;
        let rest = f64::mul_add(-q, d, self.hi) + self.lo;
        renormalised(q, rest / d)
    }
}

impl From<f64> for Double {
    fn from(hi: f64) -> Double {
        Double { hi, lo: 0.0 }
    }
}
impl Add for Double {
    type Output = Double;
    #[inline]
    fn add(self, b: Double) -> Double {
        let (hi, e) = two_sum(self.hi, b.hi);
        let (lo, f) = two_sum(self.lo, b.lo);
        let first = renormalised(hi, e + lo);
        renormalised(first.hi, first.lo + f)
    }
}
impl Neg for Double {
    type Output = Double;
    #[inline]
    fn neg(self) -> Double {
        Double { hi: -self.hi, lo: -self.lo }
    }
}
impl Sub for Double {
    type Output = Double;
    #[inline]
    fn sub(self, b: Double) -> Double {
        self + -b
    }
}
impl Mul for Double {
    type Output = Double;
    #[inline]
    fn mul(self, b: Double) -> Double {
        let p = self.hi * b.hi;
        let low = f64::mul_add(self.hi, b.hi, -p) + (self.hi * b.lo + self.lo * b.hi);
        renormalised(p, low)
    }
}

impl ComplexDouble {
    /// The conjugate.
    pub fn conj(self) -> ComplexDouble {
        ComplexDouble { im: -self.im, ..self }
    }
    /// exp(2πi·k/n), n below 2^51: k is reduced exactly, the rest is a Taylor series over at most an eighth of a turn.
    pub fn root(k: i64, n: i64) -> ComplexDouble {
        let k = i128::from(k).rem_euclid(n.into());
        let quarter = (4 * k * 2 + i128::from(n)).div_euclid(2 * i128::from(n));
        let angle = Double::ratio((4 * k - quarter * i128::from(n)) as i64, n) * HALF_PI;
        let square = angle * angle;
        let (mut sin, mut cos) = (Double::default(), Double::default());
        let (mut odd, mut even) = (angle, Double::from(1.0));
        // θ²⁸/28! lies below 2^-106 for θ up to π/4.
        for i in 0..14 {
            let i = f64::from(i);
            sin = sin + odd;
            cos = cos + even;
            even = -(even * square).over((2.0 * i + 1.0) * (2.0 * i + 2.0));
            odd = -(odd * square).over((2.0 * i + 2.0) * (2.0 * i + 3.0));
        }
        let (re, im) = match quarter.rem_euclid(4) {
            0 => (cos, sin),
            1 => (-sin, cos),
            2 => (-cos, -sin),
            _ => (sin, -cos),
        };
        ComplexDouble { re, im }
    }
}

impl Add for ComplexDouble {
    type Output = ComplexDouble;
    #[inline]
    fn add(self, b: ComplexDouble) -> ComplexDouble {
        ComplexDouble { re: self.re + b.re, im: self.im + b.im }
    }
}
impl Mul for ComplexDouble {
    type Output = ComplexDouble;
    #[inline]
    fn mul(self, b: ComplexDouble) -> ComplexDouble {
        ComplexDouble { re: self.re * b.re - self.im * b.im, im: self.re * b.im + self.im * b.re }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_unity_are_exact_at_quarters_and_powers_return_to_one() {
        let at = |k, n| (ComplexDouble::root(k, n).re.hi, ComplexDouble::root(k, n).im.hi);
        assert_eq!([at(0, 8), at(2, 8), at(4, 8), at(6, 8), at(-2, 8)].map(|(re, im)| (re + 0.0, im + 0.0)), [
            (1.0, 0.0),
            (0.0, 1.0),
            (-1.0, 0.0),
            (0.0, -1.0),
            (0.0, -1.0)
        ]);
        let eighth = ComplexDouble::root(1, 8);
        assert_eq!((eighth.re.hi, eighth.im.hi), (core::f64::consts::FRAC_1_SQRT_2, core::f64::consts::FRAC_1_SQRT_2));
        for n in [3, 7, 1009, 65536] {
            let one = (0..n).fold(ComplexDouble { re: 1.0.into(), im: 0.0.into() }, |z, _| z * ComplexDouble::root(1, n));
            let off = (one.re - 1.0.into()).hi.abs() + one.im.hi.abs();
            assert!(off < n as f64 * 2f64.powi(-100), "root({n})^{n} is off by {off:e}");
        }
    }
}
