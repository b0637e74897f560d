//! Elementary functions of f64: branch-free where SIMD code pays, else the system's mathematical library.

use crate::math_f32::{PI_2_HI, ROUND64, fma64, poly64};

/// ln 2 = HI + LO; n·HI is exact for |n| < 2²⁰.
const LN2_HI: f64 = 0.693_147_180_369_123_8;
const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
/// (eʳ - 1 - r)/r² on |r| ≤ ln √2, error 2⁻⁶³.
const EXP: [f64; 11] = [
    0.5,
    0.166_666_666_666_666_85,
    0.041_666_666_666_666_73,
    0.008_333_333_333_315_377,
    0.001_388_888_888_885_615_3,
    1.984_126_990_045_745_7e-4,
    2.480_158_737_783_401e-5,
    2.755_723_081_874_902_4e-6,
    2.755_723_011_399_736_3e-7,
    2.511_343_757_840_631_3e-8,
    2.092_788_829_843_105_5e-9,
];

/// 2ⁿ for -1022 ≤ n ≤ 1023, n as an integer in the low bits.
#[inline(always)]
fn power_of_two(n: u64) -> f64 {
    f64::from_bits(n.wrapping_add(1023) << 52)
}

/// x = n·ln 2 + r: gives n's bits and eʳ - 1.
#[inline(always)]
fn exp_parts<const FMA: bool>(x: f64) -> (u64, f64) {
    let t = fma64::<FMA>(x, core::f64::consts::LOG2_E, ROUND64);
    let n = t - ROUND64;
    let r = fma64::<FMA>(n, -LN2_LO, fma64::<FMA>(n, -LN2_HI, x));
    (t.to_bits().wrapping_sub(ROUND64.to_bits()), fma64::<FMA>(r * r, poly64::<FMA, 11>(r, EXP), r))
}

/// x limited to low..=high; NaN stays.
#[inline(always)]
fn limit(x: f64, low: f64, high: f64) -> f64 {
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}

/// eˣ.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f64) -> f64 {
    let (n, p) = exp_parts::<FMA>(limit(x, -746.0, 710.0));
    // In two steps, of which only the second rounds; n/2 rounded down without a 64-bit arithmetic shift, which AVX2 lacks.
    let half = (n.wrapping_add(2048) >> 1).wrapping_sub(1024);
    (p + 1.0) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// eˣ - 1.
#[inline(always)]
pub fn expm1<const FMA: bool>(x: f64) -> f64 {
    let (n, p) = exp_parts::<FMA>(limit(x, -60.0, 710.0));
    let s = power_of_two(n.wrapping_sub(1));
    let y = fma64::<FMA>(s, p, s - 0.5) * 2.0;
    if x.abs() < 1e-17 { x } else { y }
}

/// (2·artanh √z / √z - 2)/z on z ≤ ((√2 - 1)/(√2 + 1))², error 2⁻⁶⁵.
const ARTANH: [f64; 8] = [
    0.666_666_666_666_666_6,
    0.400_000_000_000_062_86,
    0.285_714_285_690_730_9,
    0.222_222_226_487_347_07,
    0.181_817_755_096_351_76,
    0.153_870_976_070_110_3,
    0.132_499_629_375_579_66,
    0.132_527_470_804_673_17,
];
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;

/// x = (1 + f)·2ᵉ with √½ ≤ 1 + f < √2, for x > 0: gives e, f, f²/2 and the rest ln(1 + f) - f + f²/2.
#[inline(always)]
fn log_parts<const FMA: bool>(x: f64) -> (f64, f64, f64, f64) {
    let tiny = x < f64::MIN_POSITIVE;
    let bits = if tiny { x * 18_014_398_509_481_984.0 } else { x }.to_bits().wrapping_sub(SQRT_HALF);
    let e = f64::from(((bits as i64) >> 52) as i32) - if tiny { 54.0 } else { 0.0 };
    let f = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    // ln(1 + f) = 2 artanh s = 2s + s·z·P(z), and 2s = f - s·f, s·f = f²/2 - s·f²/2: the leading terms are taken from f itself.
    (e, f, half, s * (half + z * poly64::<FMA, 8>(z, ARTANH)))
}

/// A logarithm's value at 0, negative numbers, infinity and NaN; `y` elsewhere.
#[inline(always)]
fn log_edges(x: f64, y: f64) -> f64 {
    let y = if x == f64::INFINITY { x } else { y };
    let y = if x == 0.0 { f64::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f64::NAN }
}

/// Natural logarithm.
#[inline(always)]
pub fn log<const FMA: bool>(x: f64) -> f64 {
    let (e, f, half, rest) = log_parts::<FMA>(x);
    log_edges(x, fma64::<FMA>(e, LN2_HI, f - (half - fma64::<FMA>(e, LN2_LO, rest))))
}

/// ln(1 + x).
#[inline(always)]
pub fn log1p<const FMA: bool>(x: f64) -> f64 {
    let u = 1.0 + x;
    // What the sum lost (Kahan).
    let lost = if x >= 1.0 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let (e, f, half, rest) = log_parts::<FMA>(u);
    let lost = if u > 0.0 && u < f64::INFINITY { lost / u } else { 0.0 };
    let y = log_edges(u, fma64::<FMA>(e, LN2_HI, f - (half - (fma64::<FMA>(e, LN2_LO, rest) + lost))));
    if x.abs() < 1e-17 { x } else { y }
}

/// Base-2 logarithm.
#[inline(always)]
pub fn log2<const FMA: bool>(x: f64) -> f64 {
    // log2(e) - 1: the whole part of the factor is added exactly.
    const LOG2_E_1: f64 = 0.442_695_040_888_963_4;
    let (e, f, half, rest) = log_parts::<FMA>(x);
    let y = rest - half;
    log_edges(x, fma64::<FMA>(f, LOG2_E_1, y * LOG2_E_1) + y + f + e)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f64) -> f64 {
    // tanh a = m/(m + 2) with m = e²ᵃ - 1, exact in the small.
    let a = x.abs();
    let m = expm1::<FMA>(2.0 * if a > 20.0 { 20.0 } else { a });
    (m / (m + 2.0)).copysign(x)
}

/// 1/(1 + e⁻ˣ); subnormal where the result is.
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f64) -> f64 {
    let e = exp::<FMA>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// (sin √z / √z - 1)/z and (cos √z - 1 + z/2)/z² on z ≤ (π/4)², errors 2⁻⁶⁸ and 2⁻⁷⁵.
const SIN: [f64; 7] = [
    -0.166_666_666_666_666_66,
    0.008_333_333_333_333_323,
    -1.984_126_984_125_439e-4,
    2.755_731_921_383_154e-6,
    -2.505_210_481_659_649_4e-8,
    1.605_835_434_605_584e-10,
    -7.578_080_702_955_473e-13,
];
const COS: [f64; 7] = [
    0.041_666_666_666_666_664,
    -0.001_388_888_888_888_887_4,
    2.480_158_730_157_073_7e-5,
    -2.755_731_921_504_607_5e-7,
    2.087_675_429_118_626e-9,
    -1.147_028_468_398_076e-11,
    4.737_718_751_335_513e-14,
];
/// π/2 - HI = MID + LOW; n·MID is exact for |n| < 2²⁰.
const PI_2_MID: f64 = 6.077_100_506_303_966e-11;
const PI_2_LOW: f64 = 2.022_266_248_795_950_6e-21;
/// Greatest argument of [`sin_quadrant`].
pub const SIN_LIMIT: f64 = 1e6;

/// sin(x + q·π/2) for |x| ≤ [`SIN_LIMIT`].
#[inline(always)]
pub fn sin_quadrant<const FMA: bool>(x: f64, q: u64) -> f64 {
    let t = fma64::<FMA>(x, core::f64::consts::FRAC_2_PI, ROUND64);
    let n = t - ROUND64;
    // Cody and Waite: the first two products are exact, the rounding of the second difference and the third product are the tail.
    let (a, b) = (x - n * PI_2_HI, n * PI_2_MID);
    let c = a - b;
    let tail = ((a - c) - b) - n * PI_2_LOW;
    let r = c + tail;
    let low = (c - r) + tail;
    let q = t.to_bits().wrapping_add(q);
    let z = r * r;
    let sin = r + fma64::<FMA>(r * z, poly64::<FMA, 7>(z, SIN), fma64::<FMA>(-0.5 * z, low, low));
    let half = 0.5 * z;
    let one = 1.0 - half;
    let cos = one + (((1.0 - one) - half) + fma64::<FMA>(z * z, poly64::<FMA, 7>(z, COS), -r * low));
    let y = if q & 1 == 0 { sin } else { cos };
    // A zero keeps its sign.
    let y = if x == 0.0 && q & 1 == 0 { x } else { y };
    f64::from_bits(y.to_bits() ^ ((q & 2) << 62))
}
