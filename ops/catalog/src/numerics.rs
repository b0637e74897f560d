//! Judging a result against the reference: exactly, in units of the last place, by forward error, or by norm.

use flagos_backend_api::DType;

use crate::array::int_for;
use crate::dtypes::{accumulator, unit_roundoff};
use crate::{Array, Data, Numerics, Reference};

/// Outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether every element is within the bound.
    pub ok: bool,
    /// The worst error: ULPs for `Ulp`, else as a fraction of the bound (0 for exact matches, infinite for wrong NaN or infinity).
    pub worst: f64,
    /// Flat index of the worst element.
    pub index: usize,
    /// What the reference says there.
    pub expected: String,
    /// What was found there.
    pub got: String,
}

/// OpenCL 3.0's table of relative errors (full profile), by function; narrow types are computed in f32 and rounded once.
macro_rules! ulp {
    ($f32:expr, $f64:expr) => {
        Numerics::Ulp(&[(DType::F16, 1.0), (DType::BF16, 1.0), (DType::F32, $f32), (DType::F64, $f64)])
    };
}
/// Equal values: nothing is rounded, but the sign of a zero is free.
pub const EQUAL: Numerics = Numerics::Ulp(&[(DType::F16, 0.5), (DType::BF16, 0.5), (DType::F32, 0.5), (DType::F64, 0.5)]);
/// Correctly rounded operations.
pub const ULP_HALF: Numerics = ulp!(0.5, 0.5);
/// 1 ULP.
pub const ULP_1: Numerics = ulp!(1.0, 1.0);
/// 2.5 ULP: division.
pub const ULP_DIV: Numerics = ulp!(2.5, 0.5);
/// 3 ULP: exp, log, sqrt on chips without a correctly rounded one.
pub const ULP_3: Numerics = ulp!(3.0, 3.0);
/// 4 ULP: sin, cos, rsqrt.
pub const ULP_4: Numerics = ulp!(4.0, 4.0);
/// 5 ULP: tanh.
pub const ULP_5: Numerics = ulp!(5.0, 5.0);
/// 8 ULP: compositions of two such functions.
pub const ULP_8: Numerics = ulp!(8.0, 8.0);
/// 16 ULP: erf, pow.
pub const ULP_16: Numerics = ulp!(16.0, 16.0);

/// Spacing of `t`'s values at magnitude `|x|`; the least subnormal near zero.
pub fn ulp_of(t: DType, x: f64) -> f64 {
    let (p, emin) = match (t.code, t.bits) {
        (2, 16) => (11, -14),
        (4, 16) => (8, -126),
        (2, 32) => (24, -126),
        (10, 8) => (4, -6),
        (12, 8) => (3, -14),
        _ => (53, -1022),
    };
    let e = if x == 0.0 || !x.is_finite() { emin } else { libm::ilogb(x).max(emin) };
    libm::scalbn(1.0, e - p + 1)
}

/// Greatest finite value of `t`.
pub fn max_of(t: DType) -> f64 {
    match (t.code, t.bits) {
        (2, 16) => 65504.0,
        (4, 16) => half::bf16::MAX.to_f64(),
        (2, 32) => f32::MAX.into(),
        (10, 8) => 448.0,
        (12, 8) => 57344.0,
        _ => f64::MAX,
    }
}

/// Compares an output, decoded from type `t`, with the reference.
pub fn judge(numerics: Numerics, t: DType, reference: &Reference, actual: &Array) -> Verdict {
    let numerics = reference.numerics.unwrap_or(numerics);
    match (&reference.value.data, &actual.data) {
        (Data::Int(want), Data::Int(got)) => judge_ints(t, want, got),
        (Data::Complex(want), Data::Complex(got)) => {
            let part = if t.bits == 64 { DType::F32 } else { DType::F64 };
            let flat = |v: &[num_complex::Complex<f64>]| v.iter().flat_map(|z| [z.re, z.im]).collect::<Vec<f64>>();
            let scale: Vec<f64> = reference.scale.iter().flat_map(|s| [*s, *s]).collect();
            judge_floats(numerics, part, &flat(want), &flat(got), &scale, reference.terms)
        }
        (Data::Float(want), Data::Float(got)) => judge_floats(numerics, t, want, got, &reference.scale, reference.terms),
        (Data::Float(want), Data::Int(got)) => judge_ints(t, &want.iter().map(|x| *x as i128).collect::<Vec<_>>(), got),
        (Data::Int(want), Data::Float(got)) => {
            judge_floats(numerics, t, &want.iter().map(|x| int_for(t, *x)).collect::<Vec<_>>(), got, &reference.scale, reference.terms)
        }
        _ => Verdict { ok: false, worst: f64::INFINITY, expected: "a complex array".into(), got: "a real array, or the reverse".into(), index: 0 },
    }
}

fn length(want: usize, got: usize) -> Option<Verdict> {
    (want != got).then(|| Verdict { ok: false, worst: f64::INFINITY, index: 0, expected: format!("{want} elements"), got: format!("{got} elements") })
}

fn judge_ints(t: DType, want: &[i128], got: &[i128]) -> Verdict {
    if let Some(v) = length(want.len(), got.len()) {
        return v;
    }
    let wrap = |v: i128| match (t.code, t.bits) {
        (6, _) => i128::from(v != 0),
        (0, 8) => (v as i8).into(),
        (0, 16) => (v as i16).into(),
        (0, 32) => (v as i32).into(),
        (0, _) => (v as i64).into(),
        (_, 8) => (v as u8).into(),
        (_, 16) => (v as u16).into(),
        (_, 32) => (v as u32).into(),
        _ => (v as u64).into(),
    };
    match want.iter().zip(got).position(|(w, g)| wrap(*w) != *g) {
        None => Verdict { ok: true, ..Verdict::default() },
        Some(i) => Verdict { ok: false, worst: f64::INFINITY, index: i, expected: wrap(want[i]).to_string(), got: got[i].to_string() },
    }
}

fn judge_floats(numerics: Numerics, t: DType, want: &[f64], got: &[f64], scale: &[f64], terms: usize) -> Verdict {
    if let Some(v) = length(want.len(), got.len()) {
        return v;
    }
    if let Numerics::Norm(c) = numerics {
        return judge_norm(c, t, want, got);
    }
    let mut worst = Verdict { ok: true, ..Verdict::default() };
    for (i, (&w, &g)) in want.iter().zip(got).enumerate() {
        let (error, ok) = match numerics {
            Numerics::Exact => exact(t, w, g),
            Numerics::Ulp(table) => {
                let bound = table.iter().find(|(d, _)| *d == t).map_or(0.0, |(_, u)| *u);
                let error = ulp_error(t, w, g);
                (error, error <= bound.max(0.5) + 1e-9)
            }
            _ => {
                let bound = bound(t, w, scale.get(i).copied().unwrap_or(w.abs()), terms);
                let error = distance(t, w, g, bound) / bound;
                (error, error <= 1.0)
            }
        };
        if error > worst.worst || (!ok && worst.ok) {
            worst = Verdict { ok: worst.ok && ok, worst: error, index: i, expected: format!("{w:e}"), got: format!("{g:e}") };
        }
    }
    worst
}

/// Equal values; zeros by sign, any NaN for NaN.
fn exact(t: DType, w: f64, g: f64) -> (f64, bool) {
    let rounded = round_to(t, w);
    let ok = (rounded.is_nan() && g.is_nan()) || rounded.to_bits() == g.to_bits();
    (if ok { 0.0 } else { f64::INFINITY }, ok)
}

/// A value rounded to a type, as f64.
pub fn round_to(t: DType, x: f64) -> f64 {
    let mut bytes = [0u8; 8];
    let width = t.bytes();
    Array::float(&[1], vec![x]).put(0, t, &mut bytes[..width]);
    let tensor = flagos_backend_api::Tensor::contiguous(t, &[1]);
    Array::decode(&tensor, &bytes[..width], 0).map_or(f64::NAN, |a| a.floats()[0])
}

/// Distance in units of the last place of the unrounded reference; infinities and NaN must agree.
fn ulp_error(t: DType, w: f64, g: f64) -> f64 {
    if w.is_nan() || g.is_nan() {
        return if w.is_nan() && g.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if w == g {
        return 0.0;
    }
    let max = max_of(t);
    let ulp = ulp_of(t, w.clamp(-max, max));
    // Near overflow infinity stands one ULP beyond the greatest value, and a reference beyond it stands there too.
    let pin = |x: f64| if x.abs() > max { (max + ulp_of(t, max)).copysign(x) } else { x };
    (pin(w) - pin(g)).abs() / ulp
}

/// γ_k(u)·scale + u·|r| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 3), u of the accumulator, and of the output type.
fn bound(t: DType, w: f64, scale: f64, terms: usize) -> f64 {
    let acc = unit_roundoff(accumulator(t));
    // One more term than there are for the rounding of each product, and one for the library functions inside.
    let k = (terms + 2) as f64;
    let gamma = k * acc / (1.0 - (k * acc).min(0.5));
    let size = if w.is_finite() { w.abs() } else { 0.0 };
    // Special values make scales that are no numbers; there the class of the value decides.
    let scale = if scale.is_finite() { scale.abs() } else { size };
    gamma * scale + 2.0 * unit_roundoff(t) * size + ulp_of(t, 0.0)
}

/// |w - g|, infinite where NaN or infinity disagree. A finite reference within its bound of overflow may be infinite.
fn distance(t: DType, w: f64, g: f64, bound: f64) -> f64 {
    if w.is_nan() || g.is_nan() {
        return if w.is_nan() && g.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if w == g {
        return 0.0;
    }
    let max = max_of(t);
    if g.is_infinite() {
        let reaches = w.abs() + bound > max && w.is_sign_negative() == g.is_sign_negative();
        return if reaches { 0.0 } else { f64::INFINITY };
    }
    if w.is_infinite() { f64::INFINITY } else { (w.clamp(-max, max) - g).abs() }
}

fn judge_norm(c: f64, t: DType, want: &[f64], got: &[f64]) -> Verdict {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut want.iter().zip(got).map(|(w, g)| w - g));
    let size = norm(&mut want.iter().copied());
    let work = (want.len().max(2) as f64).log2();
    let bound = c * unit_roundoff(t) * work * size + ulp_of(t, 0.0);
    let at = (0..want.len()).max_by(|a, b| (want[*a] - got[*a]).abs().total_cmp(&(want[*b] - got[*b]).abs())).unwrap_or(0);
    let fraction = if error.is_nan() { f64::INFINITY } else { error / bound };
    Verdict {
        ok: fraction <= 1.0,
        worst: fraction,
        index: at,
        expected: want.get(at).map_or_else(String::new, |w| format!("{w:e}")),
        got: got.get(at).map_or_else(String::new, |g| format!("{g:e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(numerics: Numerics, t: DType, want: f64, got: f64) -> Verdict {
        judge(numerics, t, &Reference::new(Array::float(&[1], vec![want])), &Array::float(&[1], vec![got]))
    }

    #[test]
    fn ulps_are_of_the_output_type() {
        let next = f64::from(1.0f32) + f64::from(f32::EPSILON);
        assert_eq!(one(ULP_1, DType::F32, 1.0, next).worst, 1.0);
        assert!(!one(ULP_1, DType::F32, 1.0, next + f64::from(f32::EPSILON)).ok);
        assert!(!one(ULP_1, DType::F64, 1.0, next).ok);
    }

    #[test]
    fn nan_infinity_and_signed_zero() {
        assert!(one(ULP_1, DType::F32, f64::NAN, f64::NAN).ok);
        assert!(!one(ULP_1, DType::F32, f64::NAN, 0.0).ok);
        assert!(!one(ULP_1, DType::F32, 1.0, f64::INFINITY).ok);
        assert!(one(ULP_1, DType::F16, 70000.0, f64::INFINITY).ok);
        assert!(!one(Numerics::Exact, DType::F32, 0.0, -0.0).ok);
    }

    #[test]
    fn a_long_product_off_by_a_little_fails_forward_error() {
        let reference = Reference::scaled(Array::float(&[1], vec![3.0]), vec![2600.0], 4096);
        let judge = |got: f64| judge(Numerics::ForwardError, DType::F32, &reference, &Array::float(&[1], vec![got])).ok;
        assert!(judge(3.0 + 2600.0 * 2000.0 * 2f64.powi(-24)));
        assert!(!judge(3.41 + 0.6));
    }
}
