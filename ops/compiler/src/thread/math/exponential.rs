//! Exponentials: exp, exp2, expm1, sinh, cosh, tanh.

use crate::thread::math::number::{Math, Num, Pair};

/// ln 2 to twice double precision.
pub const LN_2: [f64; 2] = [core::f64::consts::LN_2, 2.319_046_813_846_299_6e-17];

/// e^x as (1 + rest)·2^k.
pub struct Power<'m> {
    /// e^r - 1 for the reduced argument r, |r| ≤ ln 2 / 2.
    pub rest: Num<'m>,
    /// Integer, and the same as a float.
    pub k: Num<'m>,
}

impl<'m> Power<'m> {
    /// 1 + rest as a pair.
    pub fn significand(&self) -> Pair<'m> {
        self.rest.math().float(1.0).plus_smaller(self.rest)
    }

    /// The value, in two steps so that neither factor overflows and subnormal results are rounded once.
    pub fn value(&self) -> Num<'m> {
        let math = self.k.math();
        let half = self.k.sar(1);
        let sum = self.significand();
        (sum.hi + sum.lo) * math.power_of_two(half) * math.power_of_two(self.k - half)
    }
}

/// e^r - 1 for |r| ≤ ln 2 / 2.
fn reduced<'m>(r: Pair<'m>) -> Num<'m> {
    let math = r.hi.math();
    let terms = math.either(8, 14);
    let mut coefficients = Vec::new();
    let mut factorial = 1.0;
    for n in 2..=terms {
        factorial *= f64::from(n);
        coefficients.push(1.0 / factorial);
    }
    let x = r.hi;
    x + (x * x * math.polynomial(x, &coefficients) + (r.lo + x * r.lo))
}

/// e^x of a pair within the exponent's range.
pub fn power_of_e<'m>(x: Pair<'m>) -> Power<'m> {
    let math = x.hi.math();
    // ln 2 with so few bits that its multiples by k are exact, and the rest.
    let short = math.either(f64::from(f32::from_bits(core::f32::consts::LN_2.to_bits() & !0x3ff)), f64::from_bits(LN_2[0].to_bits() & !0x1f_ffff));
    let k = (x.hi * core::f64::consts::LOG2_E).round();
    let hi = x.hi - k * short;
    let r = hi.plus(x.lo - k * ((LN_2[0] - short) + LN_2[1]));
    Power { rest: reduced(r), k: k.to_int() }
}

/// Arguments where e^x is 0 or infinite for certain, so that clamping to them changes nothing.
fn clamped<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    x.at_most(math.either(89.0, 710.0)).at_least(math.either(-104.0, -746.0))
}

/// e^x.
pub fn exp<'m>(x: Num<'m>) -> Num<'m> {
    let value = power_of_e(clamped(x).widened()).value();
    let value = x.over(x.math().either(89.0, 710.0)).select(x.math().infinity(), value);
    x.is_nan().select(x, value)
}

/// 2^x.
pub fn exp2<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let (low, high) = math.either((-151.0, 128.0), (-1076.0, 1024.0));
    let c = x.at_most(high).at_least(low);
    let k = c.round();
    let f = c - k;
    let rest = reduced(f.widened() * math.pair(LN_2[0], LN_2[1]));
    let value = Power { rest, k: k.to_int() }.value();
    x.is_nan().select(x, value)
}

/// e^x - 1.
pub fn expm1<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let c = clamped(x).at_least(math.either(-20.0, -40.0));
    let power = power_of_e(c.widened());
    // Half of everything, so that 2^k stays finite.
    let scale = math.power_of_two(power.k - 1);
    let e = power.significand().scaled(scale);
    let sum = e.hi.plus(math.float(-0.5));
    let value = (sum.hi + (sum.lo + e.lo)) * 2.0;
    let value = power.k.is(0).select(power.rest, value);
    let value = x.equal(math.float(0.0)).any(x.is_nan()).select(x, value);
    x.over(math.either(89.0, 710.0)).select(math.infinity(), value)
}

/// x + x·z·P(z) with z = x², for the series Σ x^(2i+1) / (2i+1)!: sinh for |x| ≤ 1.
fn sinh_series<'m>(math: &'m Math, x: Num<'m>) -> Pair<'m> {
    let z = x * x;
    x.plus_smaller(x * z * math.polynomial(z, &inverse_factorials(3, math.either(9, 19))))
}

/// 1/n!, 1/(n+2)!, … up to `last`.
pub fn inverse_factorials(first: u32, last: u32) -> Vec<f64> {
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    (first..=last).step_by(2).map(|n| 1.0 / factorial(n)).collect()
}

/// e^|x| / 4 and e^-|x| / 4 as pairs, for |x| clamped to where e^|x| / 4 stays finite.
fn quarters<'m>(x: Num<'m>) -> (Pair<'m>, Pair<'m>) {
    let math = x.math();
    let power = power_of_e(x.at_most(math.either(89.5, 710.6)).widened());
    let one = power.significand();
    let up = one.scaled(math.power_of_two(power.k - 2));
    let down = math.float(1.0).widened().over(one);
    let k = power.k;
    let deepest = math.int(2 - math.bias());
    let exponent = math.int(-2) - k;
    let exponent = exponent.less(deepest).select(deepest, exponent);
    (up, down.scaled(math.power_of_two(exponent)))
}

/// sinh x.
pub fn sinh<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let (up, down) = quarters(a);
    let large = (up + -down).rounded() * 2.0;
    let small = sinh_series(math, a.at_most(1.0)).rounded();
    let value = a.under(1.0).select(small, large);
    let value = a.over(math.either(89.5, 710.6)).select(math.infinity(), value);
    x.is_nan().select(x, value.with_sign_of(x))
}

/// cosh x.
pub fn cosh<'m>(x: Num<'m>) -> Num<'m> {
    let a = x.abs();
    let (up, down) = quarters(a);
    let value = (up + down).rounded() * 2.0;
    let value = a.over(x.math().either(89.5, 710.6)).select(x.math().infinity(), value);
    x.is_nan().select(x, value)
}

/// tanh x.
pub fn tanh<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let c = a.at_most(math.either(10.0, 20.0));
    // 1 - 2 / (e^2x + 1), and sinh / cosh by their series where that cancels.
    let power = power_of_e((c + c).widened());
    let e = power.significand().scaled(math.power_of_two(power.k));
    let ratio = math.float(2.0).widened().over(e + math.float(1.0).widened());
    let large = (math.float(1.0).widened() + -ratio).rounded();
    let s = a.at_most(1.0);
    let z = s * s;
    let even = math.float(1.0).plus_smaller(z * math.polynomial(z, &inverse_factorials(2, math.either(10, 20))));
    let small = sinh_series(math, s).over(even).rounded();
    let tiny = a.under(math.either(1e-4, 1e-9));
    let value = tiny.select(a, a.under(1.0).select(small, large));
    x.is_nan().select(x, value.with_sign_of(x))
}
