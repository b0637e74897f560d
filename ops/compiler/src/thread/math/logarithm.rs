//! Logarithms and what is made of them: log, log2, log10, log1p, asinh, acosh, atanh, pow.

use core::f64::consts::{LOG2_E, LOG10_E, SQRT_2};

use crate::thread::math::exact::{divide, square_root};
use crate::thread::math::exponential::{LN_2, power_of_e};
use crate::thread::math::number::{Math, Num, Pair};
use crate::tile::Unary;

/// x = (1 + f)·2^k with √½ ≤ 1 + f < √2, k a float.
struct Split<'m> {
    f: Num<'m>,
    k: Num<'m>,
}

/// Takes positive numbers apart, subnormal ones too.
fn split<'m>(x: Num<'m>) -> Split<'m> {
    let math = x.math();
    let stored = math.precision() - 1;
    let bits = x.bits();
    let subnormal = bits.less(math.int(1 << stored));
    // A subnormal number's bits count the smallest one.
    let scaled = subnormal.select(bits.to_float().bits(), bits);
    let less = math.int(-(math.bias() + stored - 1));
    let root = math.float(SQRT_2 / 2.0).bits();
    let one = math.float(1.0).bits();
    let shifted = scaled + (one - root);
    let exponent = shifted.shr(stored) - math.bias();
    let k = subnormal.select(exponent + less, exponent);
    let m = (shifted.and((1 << stored) - 1) + root).as_float();
    Split { f: m - 1.0, k: k.to_float() }
}

/// 2/3 + 2/5·z + 2/7·z² + …, of which log is made with z = (f / (2 + f))².
fn series(math: &Math) -> Vec<f64> {
    (1..=math.either(4, 10)).map(|n| 2.0 / f64::from(2 * n + 1)).collect()
}

/// log(1 + f + c) - f's leading part: the pair's halves sum to log(1 + f + c) to several bits more than the precision; c is tiny.
fn log_of_one_plus<'m>(f: Num<'m>, c: Num<'m>) -> Pair<'m> {
    let math = f.math();
    let s = f.quotient_estimate(f + 2.0);
    let z = s * s;
    let square = f.times(f);
    let half = Pair { hi: square.hi * 0.5, lo: square.lo * 0.5 };
    let tail = s * (half.hi + z * math.polynomial(z, &series(math)));
    let first = f.plus_smaller(-half.hi);
    // The correction acts on log by its derivative.
    let correction = c - c * f + c * square.hi;
    first.hi.plus_smaller(first.lo - half.lo + tail + correction)
}

/// Adds k·ln 2 and gives the special values of a logarithm of x.
fn finish<'m>(x: Num<'m>, value: Num<'m>) -> Num<'m> {
    let math = x.math();
    let bits = x.bits();
    let infinity = math.infinity().bits();
    let value = bits.equal(infinity).select(x, value);
    let invalid = bits.less(math.int(0)).any(infinity.less(bits));
    let value = invalid.select(math.nan(), value);
    bits.shl(1).is(0).select(-math.infinity(), value)
}

/// ln 2 with few bits, and the rest: multiples by exponents are exact.
fn ln_2<'m>(math: &'m Math, k: Num<'m>) -> Pair<'m> {
    let short = math.either(f64::from(f32::from_bits(core::f32::consts::LN_2.to_bits() & !0xfff)), f64::from_bits(LN_2[0].to_bits() & !0x1f_ffff));
    Pair { hi: k * short, lo: k * ((LN_2[0] - short) + LN_2[1]) }
}

/// log x.
pub fn log<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let Split { f, k } = split(x);
    finish(x, (ln_2(math, k) + log_of_one_plus(f, math.float(0.0))).rounded())
}

/// log x in base 2.
pub fn log2<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let Split { f, k } = split(x);
    let scaled = log_of_one_plus(f, math.float(0.0)) * math.pair(LOG2_E, 2.035_527_374_093_103_3e-17);
    finish(x, (k.widened() + scaled).rounded())
}

/// log x in base 10.
pub fn log10<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let Split { f, k } = split(x);
    let natural = ln_2(math, k) + log_of_one_plus(f, math.float(0.0));
    finish(x, (natural * math.pair(LOG10_E, 1.098_319_650_216_765_3e-17)).rounded())
}

/// log(1 + x) of a pair with hi > -1, without the special values.
fn log1p_of_pair<'m>(x: Pair<'m>) -> Num<'m> {
    let math = x.hi.math();
    let sum = x.hi.plus(math.float(1.0));
    let Split { f, k } = split(sum.hi);
    // Small arguments are their own f; else what 1 + x lost is scaled as f is.
    let small = x.hi.abs().under(0.29);
    let tiny_scale = math.power_of_two((-k).at_least(math.either(-126.0, -1022.0)).to_int());
    let c = small.select(x.lo, (sum.lo + x.lo) * tiny_scale);
    let f = small.select(x.hi, f);
    let k = small.select(math.float(0.0), k);
    (ln_2(math, k) + log_of_one_plus(f, c)).rounded()
}

/// log(1 + x).
pub fn log1p<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let value = log1p_of_pair(x.at_most(math.either(f64::from(f32::MAX), f64::MAX)).widened());
    let value = x.equal(math.infinity()).select(x, value);
    let value = x.under(-1.0).select(math.nan(), value);
    let value = x.equal(math.float(-1.0)).select(-math.infinity(), value);
    let tiny = x.abs().under(math.either(1e-9, 1e-18));
    tiny.any(x.is_nan()).select(x, value)
}

/// asinh x.
pub fn asinh<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    // x + x² / (1 + √(x² + 1)), whose log1p it is; where squares overflow, log 2x.
    let c = a.at_most(math.either(1e9, 1e18));
    let square = c * c;
    let w = square.quotient_estimate((square + 1.0).unary(Unary::Sqrt) + 1.0);
    let value = log1p_of_pair(c.plus(w));
    let large = (ln_2(math, math.float(1.0)) + log_pair(a)).rounded();
    let value = a.over(math.either(1e9, 1e18)).select(large, value);
    let value = a.equal(math.infinity()).select(a, value);
    let tiny = a.under(math.either(1e-5, 1e-10));
    tiny.any(x.is_nan()).select(x, value.with_sign_of(x))
}

/// log x of a positive finite x as a pair.
fn log_pair<'m>(x: Num<'m>) -> Pair<'m> {
    let math = x.math();
    let Split { f, k } = split(x);
    ln_2(math, k) + log_of_one_plus(f, math.float(0.0))
}

/// acosh x.
pub fn acosh<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let c = x.at_most(math.either(1e9, 1e18)).at_least(1.0);
    let t = c - 1.0;
    let product = t.times(t) + (t + t).widened();
    let root = t.equal(math.float(0.0)).select(t, square_root(product.hi));
    let fixed = t.under(math.either(1e-30, 1e-280)).select(math.float(0.0), product.lo.quotient_estimate(root + root));
    let value = log1p_of_pair(t.plus(root) + fixed.widened());
    let large = (ln_2(math, math.float(1.0)) + log_pair(x)).rounded();
    let value = x.over(math.either(1e9, 1e18)).select(large, value);
    let value = x.equal(math.infinity()).select(x, value);
    x.under(1.0).any(x.is_nan()).select(math.nan(), value)
}

/// atanh x.
pub fn atanh<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let c = a.at_most(1.0 - math.either(2f64.powi(-24), 2f64.powi(-53)));
    // 2x + 2x² / (1 - x), whose half log1p it is.
    let double = c + c;
    let difference = math.float(1.0).plus_smaller(-c);
    let ratio = double.times(c).over(difference);
    let value = log1p_of_pair(double.widened() + ratio) * 0.5;
    let value = a.equal(math.float(1.0)).select(math.infinity(), value);
    let value = a.over(1.0).select(math.nan(), value);
    let tiny = a.under(math.either(1e-5, 1e-10));
    tiny.any(x.is_nan()).select(x, value.with_sign_of(x))
}

/// log x of a positive finite x with nearly twice the precision, for pow.
fn precise_log<'m>(x: Num<'m>) -> Pair<'m> {
    let math = x.math();
    let Split { f, k } = split(x);
    let s = f.widened().over(f.plus(math.float(2.0)));
    let z = s * s;
    let mut coefficients = series(math);
    // 2/3 as a pair, the terms after it as one float.
    coefficients.remove(0);
    coefficients.push(2.0 / f64::from(2 * math.either(5, 11) + 1));
    let third = math.pair(2.0 / 3.0, 3.700_743_415_417_188e-17);
    let tail = (z.hi * math.polynomial(z.hi, &coefficients)).widened();
    let one = math.float(2.0);
    ln_2_times(math, k) + s.scaled(one) + s * (z * (third + tail))
}

/// k·ln 2 as a pair of full precision.
fn ln_2_times<'m>(math: &'m Math, k: Num<'m>) -> Pair<'m> {
    k.widened() * math.pair(LN_2[0], LN_2[1])
}

/// x^y with C's special cases.
pub fn pow<'m>(x: Num<'m>, y: Num<'m>) -> Num<'m> {
    let math = x.math();
    let (zero, one, infinity) = (math.float(0.0), math.float(1.0), math.infinity());
    let a = x.abs();
    let finite = a.equal(zero).any(a.equal(infinity)).any(x.is_nan()).select(one, a);
    let log = precise_log(finite);
    let limit = math.either(f64::from(1u32 << 31), 2f64.powi(70));
    let c = y.at_most(limit).at_least(-limit);
    let product = c.times(log.hi);
    let exponent = product.hi.plus_smaller(product.lo + c * log.lo);
    let (low, high) = math.either((-104.0, 89.0), (-746.0, 710.0));
    let (under, over) = (exponent.hi.under(low), exponent.hi.over(high));
    let outside = under.any(over).any(exponent.hi.is_nan());
    let inside = Pair { hi: outside.select(zero, exponent.hi), lo: outside.select(zero, exponent.lo) };
    let value = power_of_e(inside).value();
    let value = over.select(infinity, under.select(zero, value));
    // Zero and infinite bases.
    let grows = zero.less(y);
    let value = a.equal(zero).select(grows.select(zero, infinity), value);
    let value = a.equal(infinity).select(grows.select(infinity, zero), value);
    // Negative bases: odd powers keep the sign, broken ones are invalid.
    let whole = y.unary(Unary::Trunc).equal(y);
    let half = y * 0.5;
    let odd = whole.both(half.unary(Unary::Trunc).equal(half).not()).both(y.abs().equal(infinity).not());
    let negative = x.bits().less(math.int(0));
    let value = negative.both(odd).select(-value, value);
    let invalid = x.less(zero).both(whole.not()).both(a.equal(infinity).not());
    let value = invalid.select(math.nan(), value);
    // Infinite exponents.
    let endless = y.abs().equal(infinity);
    let toward = one.less(a).both(grows).any(a.less(one).both(grows.not()));
    let value = endless.select(a.equal(one).select(one, toward.select(infinity, zero)), value);
    let value = x.is_nan().any(y.is_nan()).select(math.nan(), value);
    y.equal(zero).any(x.equal(one)).select(one, value)
}

/// The cube root: an estimate by the exponent, Newton's steps on the significand, the last one exact.
pub fn cbrt<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let special = a.equal(math.infinity()).any(a.equal(math.float(0.0))).any(x.is_nan());
    let Split { f, k } = split(special.select(math.float(1.0), a));
    // k = 3·third + rest with rest in -1, 0, 1.
    let third = (k * (1.0 / 3.0)).round();
    let rest = k - third * 3.0;
    let m = (f + 1.0) * rest.over(0.5).select(math.float(2.0), rest.under(-0.5).select(math.float(0.5), math.float(1.0)));
    // m lies in 0.35 … 2.83; a quadratic guess, then Newton.
    let mut r = math.polynomial(m, &[0.5164, 0.5692, -0.08]);
    for _ in 0..math.either(2, 4) {
        r = r - (r - m.quotient_estimate(r * r)) * (1.0 / 3.0);
    }
    let cube = r.times(r) * r.widened();
    let error = (cube.hi - m) + cube.lo;
    let root = r - error.quotient_estimate(r * r * 3.0);
    let value = root * math.power_of_two(third.to_int());
    special.select(x, value.with_sign_of(x))
}

/// 1 / √x.
pub fn rsqrt<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let special = x.bits().less(math.int(1)).any(x.equal(math.infinity())).any(x.is_nan());
    let Split { f, k } = split(special.select(math.float(1.0), x));
    let half = (k * 0.5).unary(Unary::Floor);
    let odd = half + half;
    let m = (f + 1.0) * k.equal(odd).select(math.float(1.0), math.float(2.0));
    let r = m.unary(Unary::Rsqrt);
    let square = r.times(r) * m.widened();
    let error = (square.hi - 1.0) + square.lo;
    let root = r - r * error * 0.5;
    let value = root * math.power_of_two((-half).to_int());
    // Zeros give infinities of their sign, infinity gives zero, the rest is invalid.
    let edge = divide(math.float(1.0), x);
    let zero = x.bits().shl(1).is(0);
    special.select(zero.any(x.equal(math.infinity())).select(edge, math.nan()), value)
}
