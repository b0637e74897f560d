//! Trigonometry: sin, cos, tan with full reduction of the argument, and the inverse functions.

use core::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use crate::thread::math::exact::{divide, square_root};
use crate::thread::math::exponential::inverse_factorials;
use crate::thread::math::number::{Num, Pair};

/// Low parts of π/2, π/4 and π as doubles.
const PI_2_LOW: f64 = 6.123_233_995_736_766e-17;

/// The bits of 2/π after the binary point, 64 at a time, most significant first.
const TWO_OVER_PI: [u64; 20] = [
    0xa2f9_836e_4e44_1529, 0xfc27_57d1_f534_ddc0, 0xdb62_9599_3c43_9041, 0xfe51_63ab_debb_c561,
    0xb724_6e3a_424d_d2e0, 0x0649_2eea_09d1_921c, 0xfe1d_eb1c_b129_a73e, 0xe882_35f5_2ebb_4484,
    0xe99c_7026_b45f_7e41, 0x3991_d639_8353_39f4, 0x9c84_5f8b_bdf9_283b, 0x1ff8_97ff_de05_980f,
    0xef2f_118b_5a0a_6d1f, 0x6d36_7ecf_27cb_09b7, 0x4f46_3f66_9e5f_ea2d, 0x7527_bac7_ebe5_f17b,
    0x3d07_39f7_8a52_92ea, 0x6bfb_5fb1_1f8d_5d08, 0x5603_3046_fc7b_6bab, 0xf0cf_bc20_9af4_361d,
];

/// x as quadrant·π/2 + rest with |rest| ≤ π/4; the quadrant modulo 4 as an integer.
struct Reduced<'m> {
    quadrant: Num<'m>,
    rest: Pair<'m>,
}

/// Payne and Hanek's reduction for every finite x: three words of 2/π, chosen by the exponent, times the significand, modulo 4.
fn reduce<'m>(x: Num<'m>) -> Reduced<'m> {
    let math = x.math();
    let (p, w, bias) = (math.precision(), math.width(), math.bias());
    let bits = x.bits().and(!(1i64 << (w - 1)));
    let significand = bits.and((1 << (p - 1)) - 1).or(math.int(1 << (p - 1)));
    // x = significand·2^e. Bits of 2/π whose product with it is a multiple of 4 are skipped: those before position e - 2.
    let e = bits.shr(p - 1) - (bias + p - 1);
    let start = e - 2 + w;
    let start = start.less(math.int(0)).select(math.int(0), start);
    let (word, shift) = (start.shr(if w == 64 { 6 } else { 5 }), start.and(w - 1));
    // A word of zeros first, since the position may be negative.
    let words: Vec<i64> = if w == 64 {
        core::iter::once(0).chain(TWO_OVER_PI.map(|t| t as i64)).collect()
    } else {
        core::iter::once(0).chain(TWO_OVER_PI[..5].iter().flat_map(|t| [(t >> 32) as i64, (t & 0xffff_ffff) as i64])).collect()
    };
    let last = words.len() - 4;
    let mut chosen: Vec<Num<'m>> = (0..4).map(|i| math.int(words[i])).collect();
    for at in 1..=last {
        let here = word.is(at as i64);
        for (i, c) in chosen.iter_mut().enumerate() {
            *c = here.select(math.int(words[at + i]), *c);
        }
    }
    let aligned = shift.is(0);
    let back = (math.int(w) - shift).and(w - 1);
    let window: Vec<Num<'m>> = (0..3).map(|i| aligned.select(chosen[i], chosen[i].shl_by(shift).or(chosen[i + 1].shr_by(back)))).collect();
    // Three words of the product, from the last; what overflows is a multiple of 4. A carry is a sum below its summand.
    let low = significand * window[2];
    let middle_high = significand.mul_high(window[2]);
    let middle = significand * window[1];
    let sum = middle + middle_high;
    let carry = sum.below(middle).as_int();
    let top = significand * window[0] + significand.mul_high(window[1]) + carry;
    // Two bits of quadrant, the rest a fraction; rounded to the nearest quadrant, so that the fraction is signed.
    let quadrant = (top.shr(w - 2) + top.shr(w - 3).and(1)).and(3);
    let f = [top.shl(2).or(sum.shr(w - 2)), sum.shl(2).or(low.shr(w - 2)), low.shl(2)];
    let negative = f[0].less(math.int(0));
    let flip = |v: Num<'m>| negative.select(v.binary(crate::tile::Binary::Xor, math.int(-1)), v);
    let f = f.map(flip);
    // Normalised by whole leading zeros: a word, then bits.
    let empty = f[0].is(0);
    let (high, next, below) = (empty.select(f[1], f[0]), empty.select(f[2], f[1]), empty.select(math.int(0), f[2]));
    let zeros = high.leading_zeros();
    let n = zeros.and(w - 1);
    let m = (math.int(w) - n).and(w - 1);
    let even = n.is(0);
    let high = even.select(high, high.shl_by(n).or(next.shr_by(m)));
    let next = even.select(next, next.shl_by(n).or(below.shr_by(m)));
    // The leading bits as two floats: p bits, then p more.
    let spare = w - p;
    let first = high.shr(spare).to_float();
    let second = high.shl(p).or(next.shr(spare)).shr(spare);
    let second = second.to_float();
    let exponent = math.int(-p) - zeros - empty.select(math.int(w), math.int(0));
    let scale = math.power_of_two(exponent);
    let fraction = Pair { hi: first * scale, lo: second * scale * 2f64.powi(-(p as i32)) };
    let positive = fraction * math.pair(FRAC_PI_2, PI_2_LOW);
    let rest = Pair { hi: negative.select(-positive.hi, positive.hi), lo: negative.select(-positive.lo, positive.lo) };
    // Negative arguments mirror; small ones are their own rest.
    let minus = x.bits().less(math.int(0));
    let small = x.abs().under(FRAC_PI_4);
    let pick = |own: Num<'m>, v: Num<'m>| small.select(own, minus.select(-v, v));
    let quadrant = small.select(math.int(0), minus.select((-quadrant).and(3), quadrant));
    Reduced { quadrant, rest: Pair { hi: pick(x, rest.hi), lo: pick(math.float(0.0), rest.lo) } }
}

/// 1/first!, -1/(first+2)!, … with alternating signs.
fn alternating(first: u32, last: u32, sign: f64) -> Vec<f64> {
    inverse_factorials(first, last).iter().enumerate().map(|(i, c)| if i % 2 == 0 { sign * c } else { -sign * c }).collect()
}

/// sin and cos of a rest.
fn both<'m>(r: Pair<'m>) -> (Pair<'m>, Pair<'m>) {
    let math = r.hi.math();
    let (x, z) = (r.hi, r.hi * r.hi);
    let sine = x * z * math.polynomial(z, &alternating(3, math.either(11, 19), -1.0)) + (r.lo - r.lo * z * 0.5);
    let square = x.times(x);
    let half = Pair { hi: square.hi * -0.5, lo: square.lo * -0.5 };
    let cosine = math.float(1.0).plus_smaller(half.hi);
    let rest = z * z * math.polynomial(z, &alternating(4, math.either(12, 20), 1.0)) + (half.lo - x * r.lo);
    (x.plus_smaller(sine), cosine.hi.plus_smaller(cosine.lo + rest))
}

fn choose<'m>(c: Num<'m>, a: Pair<'m>, b: Pair<'m>) -> Pair<'m> {
    Pair { hi: c.select(a.hi, b.hi), lo: c.select(a.lo, b.lo) }
}

/// NaN for infinities and NaN.
fn finite_only<'m>(x: Num<'m>, value: Num<'m>) -> Num<'m> {
    x.abs().less(x.math().infinity()).select(value, x.math().nan())
}

/// sin x.
pub fn sin<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let Reduced { quadrant, rest } = reduce(x);
    let (s, c) = both(rest);
    let value = choose(quadrant.and(1).is(1), c, s).rounded();
    let value = quadrant.and(2).is(2).select(-value, value);
    let tiny = x.abs().under(math.either(1e-5, 1e-10));
    tiny.select(x, finite_only(x, value))
}

/// cos x.
pub fn cos<'m>(x: Num<'m>) -> Num<'m> {
    let Reduced { quadrant, rest } = reduce(x);
    let (s, c) = both(rest);
    let value = choose(quadrant.and(1).is(1), s, c).rounded();
    let value = (quadrant + 1).and(2).is(2).select(-value, value);
    finite_only(x, value)
}

/// tan x.
pub fn tan<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let tiny = x.abs().under(math.either(1e-5, 1e-10));
    let Reduced { quadrant, rest } = reduce(tiny.select(math.float(1.0), x));
    let (s, c) = both(rest);
    let odd = quadrant.and(1).is(1);
    let value = choose(odd, -c, s).over(choose(odd, s, c)).rounded();
    tiny.select(x, finite_only(x, value))
}

/// (asin √z / √z - 1) / z for z ≤ ¼.
fn asin_series<'m>(z: Num<'m>) -> Num<'m> {
    let math = z.math();
    let single = [0.166_666_663_374_308_34, 0.075_000_945_434_974_24, 0.044_599_401_528_512_18, 0.031_100_662_735_494_57, 0.017_149_238_357_677_253, 0.033_690_847_202_830_12];
    let double = [
        0.166_666_666_666_666_69,
        0.074_999_999_999_984_33,
        0.044_642_857_146_355_43,
        0.030_381_944_138_531_247,
        0.022_372_172_942_149_89,
        0.017_352_392_720_869_973,
        0.013_971_212_973_552_933,
        0.011_479_177_415_184_906,
        0.010_322_814_350_185_78,
        0.005_457_506_718_640_358,
        0.017_400_879_442_694_02,
        -0.014_851_887_071_247_204,
        0.028_757_851_367_421_566,
    ];
    math.polynomial(z, math.either(&single[..], &double[..]))
}

/// For |x| > ½: asin of s = √((1 - |x|) / 2), whose double π/2 lacks, as a pair.
fn asin_of_rest<'m>(a: Num<'m>) -> Pair<'m> {
    let math = a.math();
    let z = (math.float(1.0) - a.at_most(1.0)) * 0.5;
    let s = square_root(z);
    let p = s.times(s);
    let lost = ((z - p.hi) - p.lo).quotient_estimate(s + s);
    let lost = z.equal(math.float(0.0)).select(z, lost);
    s.plus_smaller(s * z * asin_series(z) + lost)
}

/// asin x.
pub fn asin<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let z = a * a;
    let small = a + a * (z * asin_series(z.at_most(0.25)));
    let rest = asin_of_rest(a);
    let large = (math.pair(FRAC_PI_2, PI_2_LOW) + rest.scaled(math.float(-2.0))).rounded();
    let value = a.under(0.5).select(small, large);
    let value = a.over(1.0).select(math.nan(), value);
    let tiny = a.under(math.either(1e-5, 1e-10));
    tiny.any(x.is_nan()).select(x, value.with_sign_of(x))
}

/// acos x.
pub fn acos<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let c = a.at_most(0.5).with_sign_of(x);
    let z = c * c;
    let part = c.plus_smaller(c * (z * asin_series(z)));
    let small = (math.pair(FRAC_PI_2, PI_2_LOW) + -part).rounded();
    let rest = asin_of_rest(a);
    let right = rest.scaled(math.float(2.0));
    let left = (math.pair(PI, 2.0 * PI_2_LOW) + -right).rounded();
    let large = x.over(0.0).select(right.rounded(), left);
    let value = a.under(0.5).select(small, large);
    a.over(1.0).any(x.is_nan()).select(math.nan(), value)
}

/// atan t for 0 ≤ t ≤ 1 as a pair, from t = small / large.
fn atan_of_ratio<'m>(small: Num<'m>, large: Num<'m>) -> Pair<'m> {
    let math = small.math();
    let ratio = divide(small, large);
    // Beyond tan π/8, π/4 + atan((t - 1) / (t + 1)).
    let far = ratio.over(0.414_213_562_373_095_03);
    let one = math.float(1.0);
    let turned = ratio.plus(-one).over(ratio.plus(one)).rounded();
    let t = far.select(turned, ratio);
    let z = t * t;
    let single = [-0.333_333_332_792_069_56, 0.199_999_772_421_581_35, -0.142_841_503_020_707_78, 0.110_713_484_991_961_15, -0.086_245_529_402_505_81, 0.050_478_206_200_358_53];
    let double = [
        -0.333_333_333_333_333_3,
        0.199_999_999_999_999_93,
        -0.142_857_142_857_115_12,
        0.111_111_111_107_542_18,
        -0.090_909_090_669_794_25,
        0.076_923_067_349_270_01,
        -0.066_666_419_962_448_54,
        0.058_819_249_064_274_21,
        -0.052_580_381_939_940_39,
        0.047_193_735_719_891_58,
        -0.041_043_495_516_645_22,
        0.030_633_694_931_617_585,
        -0.013_916_196_139_610_17,
    ];
    let series = t.plus_smaller(t * z * math.polynomial(z, math.either(&single[..], &double[..])));
    let quarter = math.pair(FRAC_PI_4, PI_2_LOW / 2.0);
    let base = Pair { hi: far.select(quarter.hi, math.float(0.0)), lo: far.select(quarter.lo, math.float(0.0)) };
    base + series
}

/// atan x.
pub fn atan<'m>(x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let a = x.abs();
    let one = math.float(1.0);
    let inverse = a.over(1.0);
    let angle = atan_of_ratio(inverse.select(one, a), inverse.select(a, one));
    let value = inverse.select((math.pair(FRAC_PI_2, PI_2_LOW) + -angle).rounded(), angle.rounded());
    let tiny = a.under(math.either(1e-5, 1e-10));
    tiny.any(x.is_nan()).select(x, value.with_sign_of(x))
}

/// The angle of the point (x, y).
pub fn atan2<'m>(y: Num<'m>, x: Num<'m>) -> Num<'m> {
    let math = x.math();
    let (a, b) = (y.abs(), x.abs());
    let (zero, one, infinity) = (math.float(0.0), math.float(1.0), math.infinity());
    // Two infinities count as equal, two zeros as angle zero.
    let diagonal = a.equal(infinity).both(b.equal(infinity));
    let origin = a.equal(zero).both(b.equal(zero));
    let (a, b) = (diagonal.select(one, a), diagonal.any(origin).select(one, b));
    let steep = b.less(a);
    let angle = atan_of_ratio(steep.select(b, a), steep.select(a, b));
    let half = math.pair(FRAC_PI_2, PI_2_LOW) + -angle;
    let angle = choose(steep, half, angle);
    let behind = x.bits().less(math.int(0));
    let value = behind.select((math.pair(PI, 2.0 * PI_2_LOW) + -angle).rounded(), angle.rounded());
    x.is_nan().any(y.is_nan()).select(math.nan(), value.with_sign_of(y))
}
