//! Elementary functions of f32, branch-free so that a loop over them becomes SIMD code.
//!
//! Polynomials are minimax fits (Remez) of the remainders named beside them. `FMA` says whether a fused multiply-add is one instruction;
//! the argument reductions are exact without it. Errors are below 2 ULP but for `pow`, which rounds an f64 result.

/// `a * b + c`, fused if that is one instruction.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// As [`fma`], in f64.
#[inline(always)]
pub fn fma64<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Σ c[i]·xⁱ by Horner's rule.
#[inline(always)]
fn poly<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = fma::<FMA>(sum, x, c[i]);
    }
    sum
}

/// As `poly`, in f64.
#[inline(always)]
pub fn poly64<const FMA: bool, const N: usize>(x: f64, c: [f64; N]) -> f64 {
    let mut sum = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = fma64::<FMA>(sum, x, c[i]);
    }
    sum
}

/// 1.5·2²³: adding it leaves a small number's nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// 1.5·2⁵².
pub const ROUND64: f64 = 6_755_399_441_055_744.0;
/// ln 2 = HI + LO; n·HI is exact for |n| < 2¹⁵.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
/// (eʳ - 1 - r)/r² on |r| ≤ ln √2, error 2⁻³⁴.
const EXP: [f32; 6] = [0.5, 0.166_666_67, 0.041_666_254, 0.008_333_262, 0.001_394_721_2, 1.991_989_3e-4];

/// 2ⁿ for -126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32).wrapping_shl(23))
}

/// x = n·ln 2 + r: gives n and eʳ - 1.
#[inline(always)]
fn exp_parts<const FMA: bool>(x: f32) -> (i32, f32) {
    let t = fma::<FMA>(x, core::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = fma::<FMA>(n, -LN2_LO, fma::<FMA>(n, -LN2_HI, x));
    ((t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), fma::<FMA>(r * r, poly::<FMA, 6>(r, EXP), r))
}

/// x limited to low..=high; NaN stays.
#[inline(always)]
fn limit(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}

/// eˣ.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    let (n, p) = exp_parts::<FMA>(limit(x, -104.0, 89.0));
    // In two steps, of which only the second rounds: results may be subnormal, and 2¹²⁸ is no f32.
    let half = n >> 1;
    (p + 1.0) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// eˣ - 1.
#[inline(always)]
pub fn expm1<const FMA: bool>(x: f32) -> f32 {
    let (n, p) = exp_parts::<FMA>(limit(x, -30.0, 89.0));
    let s = power_of_two(n.wrapping_sub(1));
    let y = fma::<FMA>(s, p, s - 0.5) * 2.0;
    if x.abs() < 3e-8 { x } else { y }
}

/// (ln(1 + f) - f + f²/2)/f³ on √½ - 1 ≤ f ≤ √2 - 1, error 2⁻³⁰.
const LOG: [f32; 9] =
    [0.333_333_13, -0.250_000_1, 0.200_021_18, -0.166_679_95, 0.142_195_55, -0.124_056_004, 0.118_881_576, -0.116_755_92, 0.067_465_88];
const SQRT_HALF: u32 = 0x3f35_04f3;

/// x = (1 + f)·2ᵉ with √½ ≤ 1 + f < √2, for x > 0: gives e, f and ln(1 + f) - f.
#[inline(always)]
fn log_parts<const FMA: bool>(x: f32) -> (f32, f32, f32) {
    let tiny = x < f32::MIN_POSITIVE;
    let bits = if tiny { x * 33_554_432.0 } else { x }.to_bits().wrapping_sub(SQRT_HALF);
    let e = ((bits as i32) >> 23).wrapping_sub(if tiny { 25 } else { 0 }) as f32;
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let z = f * f;
    (e, f, fma::<FMA>(-0.5, z, f * z * poly::<FMA, 9>(f, LOG)))
}

/// A logarithm's value at 0, negative numbers, infinity and NaN; `y` elsewhere.
#[inline(always)]
fn log_edges(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// Natural logarithm.
#[inline(always)]
pub fn log<const FMA: bool>(x: f32) -> f32 {
    let (e, f, y) = log_parts::<FMA>(x);
    log_edges(x, fma::<FMA>(e, LN2_HI, f + fma::<FMA>(e, LN2_LO, y)))
}

/// ln(1 + x).
#[inline(always)]
pub fn log1p<const FMA: bool>(x: f32) -> f32 {
    let u = 1.0 + x;
    // What the sum lost (Kahan).
    let lost = if x >= 1.0 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let (e, f, y) = log_parts::<FMA>(u);
    let y = log_edges(u, fma::<FMA>(e, LN2_HI, f + (fma::<FMA>(e, LN2_LO, y) + if u > 0.0 && u < f32::INFINITY { lost / u } else { 0.0 })));
    if x.abs() < 3e-8 { x } else { y }
}

/// Base-2 logarithm.
#[inline(always)]
pub fn log2<const FMA: bool>(x: f32) -> f32 {
    // log2(e) - 1: the whole part of the factor is added exactly.
    const LOG2_E_1: f32 = 0.442_695_05;
    let (e, f, y) = log_parts::<FMA>(x);
    log_edges(x, fma::<FMA>(f, LOG2_E_1, y * LOG2_E_1) + y + f + e)
}

/// (tanh √z / √z - 1)/z on z ≤ 0.626², error 2⁻³².
const TANH: [f32; 6] = [-0.333_333_3, 0.133_332_07, -0.053_946_97, 0.021_701_608, -0.008_179_174, 0.002_144_215];

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f32) -> f32 {
    let (a, z) = (x.abs(), x * x);
    let near = fma::<FMA>(x * z, poly::<FMA, 6>(z, TANH), x);
    let far = (1.0 - 2.0 / (exp::<FMA>(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { near } else { far }
}

/// 1/(1 + e⁻ˣ); subnormal where the result is.
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// erf √z / √z - 1 on z ≤ 0.93², error 2⁻³¹.
const ERF: [f32; 7] = [0.128_379_17, -0.376_126_35, 0.112_836_94, -0.026_859_27, 0.005_200_634, -8.137_439e-4, 8.345_234e-5];
/// ln(1 - erf t)/t on 0.92 ≤ t ≤ 4, error 2⁻³⁰ of erfc.
const ERFC: [f32; 7] = [-1.128_652_2, -0.635_135_8, -0.106_263_24, 0.023_785_437, -0.003_653_807_6, 3.256_637_7e-4, -1.152_343_5e-5];

/// Error function.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let (a, z) = (x.abs(), x * x);
    let near = fma::<FMA>(x, poly::<FMA, 7>(z, ERF), x);
    let t = if a > 4.0 { 4.0 } else { a };
    let far = (1.0 - exp::<FMA>(t * poly::<FMA, 7>(t, ERFC))).copysign(x);
    if a < 0.92 { near } else { far }
}

/// (sin √z / √z - 1)/z and (cos √z - 1 + z/2)/z² on z ≤ (π/4)², errors 2⁻³⁷ and 2⁻⁴³.
const SIN: [f32; 4] = [-0.166_666_67, 0.008_333_329, -1.983_929_7e-4, 2.717_940_3e-6];
const COS: [f32; 4] = [0.041_666_668, -0.001_388_888_3, 2.479_948e-5, -2.720_679e-7];
/// π/2 = HI + LO; n·HI is exact for |n| < 2²⁰.
pub const PI_2_HI: f64 = 1.570_796_326_734_125_6;
/// See [`PI_2_HI`].
pub const PI_2_LO: f64 = 6.077_100_506_506_192e-11;
/// Greatest argument of [`sin_quadrant`].
pub const SIN_LIMIT: f32 = 1e6;

/// sin(x + q·π/2) for |x| ≤ [`SIN_LIMIT`].
#[inline(always)]
pub fn sin_quadrant<const FMA: bool>(x: f32, q: i32) -> f32 {
    let wide = f64::from(x);
    let t = fma64::<FMA>(wide, core::f64::consts::FRAC_2_PI, ROUND64);
    let n = t - ROUND64;
    let r = fma64::<FMA>(n, -PI_2_LO, fma64::<FMA>(n, -PI_2_HI, wide)) as f32;
    let q = (t.to_bits() as i32).wrapping_add(q);
    let z = r * r;
    let sin = fma::<FMA>(r * z, poly::<FMA, 4>(z, SIN), r);
    let cos = fma::<FMA>(z * z, poly::<FMA, 4>(z, COS), fma::<FMA>(-0.5, z, 1.0));
    let y = if q & 1 == 0 { sin } else { cos };
    // A zero keeps its sign.
    let y = if x == 0.0 && q & 1 == 0 { x } else { y };
    f32::from_bits(y.to_bits() ^ ((q as u32 & 2) << 30))
}

/// (2·artanh √z / √z - 2)/z on z ≤ ((√2 - 1)/(√2 + 1))², error 2⁻⁵¹.
const ARTANH: [f64; 6] =
    [0.666_666_666_665_867_3, 0.400_000_000_525_412_24, 0.285_714_170_827_743_6, 0.222_233_752_430_642_44, 0.181_235_214_447_125, 0.168_213_425_279_085_03];
/// As `EXP`, for f64.
const EXP64: [f64; 6] =
    [0.500_000_008_264_194_3, 0.166_666_668_722_630_25, 0.041_666_254_001_236_65, 0.008_333_261_636_725_68, 0.001_394_721_182_323_205_4, 1.991_989_287_574_805_6e-4];

/// xʸ for finite x and |y| < 2³¹.
#[inline(always)]
pub fn pow<const FMA: bool>(x: f32, y: f32) -> f32 {
    let a = f64::from(x.abs());
    let bits = a.to_bits().wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let e = f64::from(((bits as i64) >> 52) as i32);
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let ln = fma64::<FMA>(s * z, poly64::<FMA, 6>(z, ARTANH), 2.0 * s);
    let log2 = if a == 0.0 { f64::NEG_INFINITY } else { fma64::<FMA>(ln, core::f64::consts::LOG2_E, e) };
    let w = f64::from(y) * log2;
    let w = if w > 160.0 { 160.0 } else { w };
    let w = if w < -160.0 { -160.0 } else { w };
    let t = w + ROUND64;
    let r = (w - (t - ROUND64)) * core::f64::consts::LN_2;
    let p = 1.0 + fma64::<FMA>(r * r, poly64::<FMA, 6>(r, EXP64), r);
    let size = (p * f64::from_bits((t.to_bits() << 52).wrapping_add(1023 << 52))) as f32;
    let whole = y as i32;
    let sign = if whole & 1 != 0 { x.to_bits() & 0x8000_0000 } else { 0 };
    let integral = whole as f32 == y;
    let value = if x < 0.0 && !integral { f32::NAN } else { f32::from_bits(size.to_bits() ^ if integral { sign } else { 0 }) };
    if y == 0.0 { 1.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst error in ULPs over f32 bit patterns `step` apart, with its argument; NaN must meet NaN.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, step: u32, within: impl Fn(f32) -> bool) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for x in (0..=u32::MAX / step).map(|i| f32::from_bits(i * step)).filter(|x| within(*x)) {
            let (got, want) = (f64::from(f(x)), exact(x.into()));
            let near = want as f32;
            let ulp = if near.is_finite() { f64::from(near.abs().next_up()) - f64::from(near.abs()) } else { 2f64.powi(104) };
            let error = match (got.is_nan(), want.is_nan()) {
                (true, true) => 0.0,
                (false, false) if got == f64::from(near) => ((want - got) / ulp).abs().min(0.5),
                (false, false) => ((got - want) / ulp).abs(),
                _ => f64::INFINITY,
            };
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    fn functions<const FMA: bool>() {
        const STEP: u32 = 4099;
        let check = |name: &str, bound: f64, (error, at): (f64, f32)| assert!(error <= bound, "{name} is off by {error} ULP at {at:e}");
        let all = |_: f32| true;
        check("exp", 1.5, worst(exp::<FMA>, f64::exp, STEP, all));
        check("expm1", 2.0, worst(expm1::<FMA>, f64::exp_m1, STEP, all));
        check("log", 1.5, worst(log::<FMA>, f64::ln, STEP, all));
        check("log1p", 2.0, worst(log1p::<FMA>, f64::ln_1p, STEP, all));
        check("log2", 2.0, worst(log2::<FMA>, f64::log2, STEP, all));
        check("tanh", 2.0, worst(tanh::<FMA>, f64::tanh, STEP, all));
        check("sigmoid", 2.5, worst(sigmoid::<FMA>, |x| 1.0 / (1.0 + (-x).exp()), STEP, all));
        check("erf", 2.0, worst(erf::<FMA>, flagos_catalog::Float::erf, STEP * 4, all));
        check("sin", 1.5, worst(|x| sin_quadrant::<FMA>(x, 0), f64::sin, STEP, |x| x.abs() <= SIN_LIMIT));
        check("cos", 1.5, worst(|x| sin_quadrant::<FMA>(x, 1), f64::cos, STEP, |x| x.abs() <= SIN_LIMIT));
        for y in [0.0f32, 0.5, -0.5, 1.0, 2.0, 3.0, -1.0, -3.0, 7.7, -13.25, 1e-3, 100.0, 1001.0, 1e9] {
            check("pow", 1.0, worst(|x| pow::<FMA>(x, y), |x| x.powf(y.into()), STEP * 8, |x| x.is_finite()));
        }
    }

    #[test]
    fn functions_are_within_their_bounds() {
        functions::<true>();
        functions::<false>();
    }
}
