//! Quotients, square roots and remainders rounded correctly, whatever the format's division and root are worth.
//!
//! An estimate by the format is made an integer, its residue is computed exactly modulo 2^width, and integers correct and round it. Subnormal
//! operands and results are handled in integers as well, so that a device that flushes them to zero gives the right bits all the same.

use crate::thread::math::number::{Math, Num};
use crate::thread::{Effect, Stmt};
use crate::tile::{Binary, Unary};

/// A magnitude taken apart: significand with the hidden bit in place (2^(p-1) ≤ significand < 2^p unless zero), biased exponent.
struct Parts<'m> {
    magnitude: Num<'m>,
    significand: Num<'m>,
    exponent: Num<'m>,
}

fn parts<'m>(x: Num<'m>) -> Parts<'m> {
    let math = x.math();
    let stored = math.precision() - 1;
    let magnitude = x.bits().and(!(1i64 << (math.width() - 1)));
    let exponent = magnitude.shr(stored);
    let low = magnitude.and((1 << stored) - 1);
    let subnormal = exponent.is(0);
    let shift = low.leading_zeros() - (math.width() - math.precision());
    Parts {
        magnitude,
        significand: subnormal.select(low.shl_by(shift), low.or(math.int(1 << stored))),
        exponent: subnormal.select(math.int(1) - shift, exponent),
    }
}

fn infinity_bits<'m>(math: &'m Math) -> Num<'m> {
    math.infinity().bits()
}

/// a / b.
pub fn divide<'m>(a: Num<'m>, b: Num<'m>) -> Num<'m> {
    let math = a.math();
    let (p, top) = (math.precision(), 1i64 << (math.width() - 1));
    let (x, y) = (parts(a), parts(b));
    let smaller = x.significand.less(y.significand);
    let dividend = smaller.select(x.significand.shl(1), x.significand);
    let divisor = y.significand;
    let exponent = x.exponent - y.exponent + math.bias() - smaller.as_int();
    // The quotient of the significands with two bits more than the result has: dividend·2^(p+1) / divisor.
    let d = divisor.to_float();
    let estimate = (dividend.to_float().quotient_estimate(d) * 2f64.powi(p as i32 + 1)).to_int();
    let residue = dividend.shl(p + 1) - estimate * divisor;
    let step = residue.to_float().quotient_estimate(d).to_int() - residue.less(math.int(0)).as_int();
    let (q, r) = (estimate + step, residue - step * divisor);
    let low = r.less(math.int(0)).as_int();
    let (q, r) = (q - low, r + low * divisor);
    let high = r.less(divisor).not().as_int();
    let (q, r) = (q + high, r - high * divisor);
    let exact = q.shl(1).or(r.is(0).not().as_int());
    // Rounded to nearest even at three bits from the end, further up for subnormal results.
    let normal = math.int(0).less(exponent);
    let deeper = math.int(4) - exponent;
    let deeper = math.int(math.width() - 1).less(deeper).select(math.int(math.width() - 1), deeper);
    let drop = normal.select(math.int(3), deeper);
    let kept = exact.shr_by(drop);
    let half = math.int(1).shl_by(drop - 1);
    let rest = exact - kept.shl_by(drop);
    let up = half.less(rest).any(rest.equal(half).both(kept.and(1).is(1))).as_int();
    let finite = kept + up + normal.select((exponent - 1).shl(p - 1), math.int(0));
    let infinity = infinity_bits(math);
    let bits = math.int(2 * math.bias()).less(exponent).select(infinity, finite);
    let (zero_a, zero_b) = (x.magnitude.is(0), y.magnitude.is(0));
    let (infinite_a, infinite_b) = (x.magnitude.equal(infinity), y.magnitude.equal(infinity));
    let bits = zero_a.any(infinite_b).select(math.int(0), bits);
    let bits = zero_b.any(infinite_a).select(infinity, bits);
    let signed = bits.or((a.bits().binary(Binary::Xor, b.bits())).and(top));
    let invalid = zero_a.both(zero_b).any(infinite_a.both(infinite_b));
    let invalid = invalid.any(infinity.less(x.magnitude)).any(infinity.less(y.magnitude));
    invalid.select(math.nan(), signed.as_float())
}

/// a / b in single precision by way of double, whose quotients are exact. Rounding twice does no harm: unless it is a tie, a quotient of numbers of
/// 24 bits lies further from one than a double's 53 bits can miss.
pub fn divide_in_double<'m>(a: Num<'m>, b: Num<'m>) -> Num<'m> {
    a.to_double().quotient_estimate(b.to_double()).to_single()
}

/// √x in single precision, likewise.
pub fn square_root_in_double(x: Num<'_>) -> Num<'_> {
    x.to_double().unary(Unary::Sqrt).to_single()
}

/// √x.
pub fn square_root<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let p = math.precision();
    let parts = parts(x);
    let exponent = parts.exponent - math.bias();
    let radicand = parts.significand.shl_by(exponent.and(1));
    let estimate = (radicand.to_float() * 2f64.powi(1 - p as i32)).unary(Unary::Sqrt) * 2f64.powi(p as i32);
    let root = estimate.to_int();
    // The root with one bit more than the result has: √(radicand·2^(p+1)).
    let wide = radicand.shl(p + 1);
    let residue = wide - root * root;
    let step = residue.to_float().quotient_estimate(estimate + estimate).to_int() - residue.less(math.int(0)).as_int();
    let root = root + step;
    let residue = wide - root * root;
    let low = residue.less(math.int(0)).as_int();
    let (root, residue) = (root - low, residue + low * (root.shl(1) - 1));
    let root = root + root.shl(1).less(residue).as_int();
    // A root never lies halfway between two floats.
    let bits = (root + 1).shr(1) + (exponent.sar(1) + (math.bias() - 1)).shl(p - 1);
    let infinity = infinity_bits(math);
    let keeps = parts.magnitude.is(0).any(x.bits().equal(infinity));
    let invalid = x.bits().less(math.int(0)).any(infinity.less(parts.magnitude));
    keeps.select(x, invalid.select(math.nan(), bits.as_float()))
}

/// C's fmod: exact, by long division of the significands, a few bits a step.
pub fn remainder<'m>(a: Num<'m>, b: Num<'m>) -> Num<'m> {
    let math = a.math();
    let p = math.precision();
    let chunk = math.width() - p;
    let (x, y) = (parts(a), parts(b));
    let divisor = y.significand;
    let (rest, left) = (math.variable(x.significand.binary(Binary::RemU, divisor)), math.variable(x.exponent - y.exponent));
    let body = math.nested(|| {
        let n = math.get(left);
        math.push(Stmt::BreakUnless(math.int(0).less(n).val));
        let k = n.less(math.int(chunk)).select(n, math.int(chunk));
        let r = math.get(rest).shl_by(k).binary(Binary::RemU, divisor);
        math.push(Stmt::Do(Effect::Set(rest, 0, r.val)));
        math.push(Stmt::Do(Effect::Set(left, 0, (n - k).val)));
    });
    math.push(Stmt::Loop { uniform: false, body });
    let r = math.get(rest);
    let shift = r.leading_zeros() - chunk;
    let e = y.exponent - shift;
    let normal = r.shl_by(shift.and(math.width() - 1)) + (e - 1).shl(p - 1);
    let up = y.exponent - 1;
    let subnormal = up.less(math.int(0)).select(r.shr_by((-up).and(math.width() - 1)), r.shl_by(up.and(math.width() - 1)));
    let bits = math.int(0).less(e).select(normal, subnormal);
    let bits = r.is(0).select(math.int(0), bits);
    let infinity = infinity_bits(math);
    let bits = x.magnitude.less(y.magnitude).select(x.magnitude, bits);
    let invalid = y.magnitude.is(0).any(x.magnitude.less(infinity).not()).any(infinity.less(y.magnitude));
    invalid.select(math.nan(), bits.as_float().with_sign_of(a))
}
