//! Elementwise operations on bits: each value is its element's bits, zero-extended.

use crate::Elem;
use crate::tile::{Binary, Cast, CmpF, CmpI, Rmw, Unary};

/// The lowest `bits` bits set.
pub fn mask(elem: Elem) -> u64 {
    if elem.bits() == 64 { u64::MAX } else { (1 << elem.bits()) - 1 }
}

/// What an undefined value is here: every bit set, so that floats are NaN and indices are out of bounds.
pub fn poison(elem: Elem) -> u64 {
    mask(elem)
}

/// The value of a signed integer.
pub fn signed(elem: Elem, bits: u64) -> i64 {
    let unused = 64 - elem.bits();
    ((bits << unused) as i64) >> unused
}

/// The value of a float; exact.
pub fn float(elem: Elem, bits: u64) -> f64 {
    match elem {
        Elem::F64 => f64::from_bits(bits),
        Elem::F32 => f64::from(f32::from_bits(bits as u32)),
        Elem::F16 => half::f16::from_bits(bits as u16).to_f64(),
        Elem::BF16 => half::bf16::from_bits(bits as u16).to_f64(),
        Elem::F8E4M3 | Elem::F8E5M2 => small_float(elem, bits),
        _ => bits as f64,
    }
}

fn small_float(elem: Elem, bits: u64) -> f64 {
    let (mantissa, bias) = if elem == Elem::F8E4M3 { (3, 7) } else { (2, 15) };
    let sign = if bits >> 7 & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (bits & 0x7f) >> mantissa;
    let fraction = bits & ((1 << mantissa) - 1);
    let top = 0x7f >> mantissa;
    let magnitude = match (elem, exponent, fraction) {
        (Elem::F8E4M3, e, 7) if e == top => f64::NAN,
        (Elem::F8E5M2, e, 0) if e == top => f64::INFINITY,
        (Elem::F8E5M2, e, _) if e == top => f64::NAN,
        (_, 0, f) => f as f64 * 2f64.powi(1 - bias - mantissa),
        (_, e, f) => (f + (1 << mantissa)) as f64 * 2f64.powi(e as i32 - bias - mantissa),
    };
    sign * magnitude
}

/// Rounds a number to a float type, to nearest even or toward zero. Exact in every step: `value` is rounded once.
pub fn from_float(elem: Elem, value: f64, toward_zero: bool) -> u64 {
    // Mantissa bits stored, exponent bits.
    let (stored, exponent_bits) = match elem {
        Elem::F64 => return value.to_bits(),
        Elem::F32 => (23, 8),
        Elem::F16 => (10, 5),
        Elem::BF16 => (7, 8),
        Elem::F8E5M2 => (2, 5),
        Elem::F8E4M3 => (3, 4),
        _ => return value as u64 & mask(elem),
    };
    let sign = u64::from(value.is_sign_negative()) << (stored + exponent_bits);
    let bias = (1i64 << (exponent_bits - 1)) - 1;
    let top = (1u64 << exponent_bits) - 1;
    let finite_only = elem == Elem::F8E4M3;
    let nan = if finite_only { 0x7f } else { top << stored | 1 << (stored - 1) };
    let infinity = if finite_only { 0x7f } else { top << stored };
    if value.is_nan() {
        return sign | nan;
    }
    if value.is_infinite() {
        return sign | infinity;
    }
    let bits = value.abs().to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    if bits >> 52 == 0 {
        return sign; // zeros and subnormals of f64 lie below every half unit
    }
    let full = (bits & ((1 << 52) - 1)) | 1 << 52;
    let lost = 52 - stored as i64 + (1 - bias - exponent).max(0);
    if lost > 60 {
        return sign;
    }
    let kept = full >> lost;
    let rest = full & ((1 << lost) - 1);
    let half = 1u64 << (lost - 1);
    let up = !toward_zero && (rest > half || (rest == half && kept & 1 == 1));
    let mut out = kept + u64::from(up);
    // Normal numbers carry the implicit bit in `out`; adding the exponent less one lets a carry run into it.
    if exponent >= 1 - bias {
        out += ((exponent + bias - 1) as u64) << stored;
    }
    let largest = if finite_only { 0x7e } else { infinity - 1 };
    if out > largest {
        return sign | if toward_zero { largest } else { infinity };
    }
    sign | out
}

fn bits_of(elem: Elem, value: f64) -> u64 {
    from_float(elem, value, false)
}

/// A function of one operand; the result has the operand's type, or i1 for tests.
pub fn unary(op: Unary, elem: Elem, a: u64) -> u64 {
    let x = float(elem, a);
    let sign = 1u64 << (elem.bits() - 1);
    let by = |wide: fn(f64) -> f64, narrow: fn(f32) -> f32| {
        if elem == Elem::F64 { wide(x).to_bits() } else { bits_of(elem, if elem == Elem::F32 { wide(x) } else { f64::from(narrow(x as f32)) }) }
    };
    match op {
        Unary::NegF => a ^ sign,
        Unary::AbsF => a & !sign,
        Unary::AbsI => signed(elem, a).wrapping_abs() as u64 & mask(elem),
        Unary::Exp => by(f64::exp, f32::exp),
        Unary::Exp2 => by(f64::exp2, f32::exp2),
        Unary::Expm1 => by(f64::exp_m1, f32::exp_m1),
        Unary::Log => by(f64::ln, f32::ln),
        Unary::Log2 => by(f64::log2, f32::log2),
        Unary::Log10 => by(f64::log10, f32::log10),
        Unary::Log1p => by(f64::ln_1p, f32::ln_1p),
        Unary::Sin => by(f64::sin, f32::sin),
        Unary::Cos => by(f64::cos, f32::cos),
        Unary::Tan => by(f64::tan, f32::tan),
        Unary::Asin => by(f64::asin, f32::asin),
        Unary::Acos => by(f64::acos, f32::acos),
        Unary::Atan => by(f64::atan, f32::atan),
        Unary::Sinh => by(f64::sinh, f32::sinh),
        Unary::Cosh => by(f64::cosh, f32::cosh),
        Unary::Tanh => by(f64::tanh, f32::tanh),
        Unary::Asinh => by(libm::asinh, libm::asinhf),
        Unary::Acosh if x < 1.0 => bits_of(elem, f64::NAN),
        Unary::Acosh => by(libm::acosh, libm::acoshf),
        Unary::Atanh => by(libm::atanh, libm::atanhf),
        Unary::Erf => by(libm::erf, libm::erff),
        Unary::Sqrt => by(f64::sqrt, f32::sqrt),
        Unary::Rsqrt => by(|x| 1.0 / x.sqrt(), |x| 1.0 / x.sqrt()),
        Unary::Cbrt => by(f64::cbrt, f32::cbrt),
        Unary::Floor => by(f64::floor, f32::floor),
        Unary::Ceil => by(f64::ceil, f32::ceil),
        Unary::Trunc => by(f64::trunc, f32::trunc),
        Unary::RoundEven => by(f64::round_ties_even, f32::round_ties_even),
        Unary::Round => by(f64::round, f32::round),
        Unary::IsNan => u64::from(x.is_nan()),
        Unary::IsInf => u64::from(x.is_infinite()),
        Unary::IsFinite => u64::from(x.is_finite()),
        Unary::Ctlz => u64::from(a.leading_zeros() - (64 - elem.bits())),
        Unary::Cttz => u64::from(a.trailing_zeros().min(elem.bits())),
        Unary::Ctpop => u64::from(a.count_ones()),
    }
}

/// A function of two operands of one type; the result has that type.
pub fn binary(op: Binary, elem: Elem, a: u64, b: u64) -> u64 {
    let all = mask(elem);
    if elem.is_float() && !matches!(op, Binary::And | Binary::Or | Binary::Xor) {
        return binary_float(op, elem, a, b);
    }
    let (x, y) = (signed(elem, a), signed(elem, b));
    let shift = |f: &dyn Fn(u32) -> u64| if b < u64::from(elem.bits()) { f(b as u32) } else { poison(elem) };
    let divide = |f: &dyn Fn() -> u64| if b == 0 { poison(elem) } else { f() };
    let remainder = || x.wrapping_rem(y) != 0 && (x < 0) != (y < 0);
    let out = match op {
        Binary::AddI => a.wrapping_add(b),
        Binary::SubI => a.wrapping_sub(b),
        Binary::MulI => a.wrapping_mul(b),
        Binary::MulHiU => ((u128::from(a) * u128::from(b)) >> elem.bits()) as u64,
        Binary::DivS => divide(&|| x.wrapping_div(y) as u64),
        Binary::DivU => divide(&|| a / b),
        Binary::RemS => divide(&|| x.wrapping_rem(y) as u64),
        Binary::RemU => divide(&|| a % b),
        Binary::CeilDivS => divide(&|| (x.wrapping_div(y) + i64::from(x.wrapping_rem(y) != 0 && !remainder())) as u64),
        Binary::FloorDivS => divide(&|| (x.wrapping_div(y) - i64::from(remainder())) as u64),
        Binary::MaxS => x.max(y) as u64,
        Binary::MaxU => a.max(b),
        Binary::MinS => x.min(y) as u64,
        Binary::MinU => a.min(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl => shift(&|n| a << n),
        Binary::ShrS => shift(&|n| (x >> n) as u64),
        Binary::ShrU => shift(&|n| a >> n),
        _ => poison(elem),
    };
    out & all
}

fn binary_float(op: Binary, elem: Elem, a: u64, b: u64) -> u64 {
    let (x, y) = (float(elem, a), float(elem, b));
    let sign = 1u64 << (elem.bits() - 1);
    // Sums, products and quotients of f32 and narrower floats round the same through f64.
    let less = x < y || (x == y && a & sign != 0);
    match op {
        Binary::AddF => bits_of(elem, x + y),
        Binary::SubF => bits_of(elem, x - y),
        Binary::MulF => bits_of(elem, x * y),
        Binary::DivF => bits_of(elem, x / y),
        Binary::RemF => bits_of(elem, x % y),
        Binary::MaximumF | Binary::MinimumF if x.is_nan() || y.is_nan() => bits_of(elem, f64::NAN),
        Binary::MaxNumF | Binary::MinNumF if x.is_nan() => b,
        Binary::MaxNumF | Binary::MinNumF if y.is_nan() => a,
        Binary::MaximumF | Binary::MaxNumF => if less { b } else { a },
        Binary::MinimumF | Binary::MinNumF => if less { a } else { b },
        Binary::Pow => bits_of(elem, x.powf(y)),
        Binary::Atan2 => bits_of(elem, x.atan2(y)),
        Binary::CopySign => (a & !sign) | (b & sign),
        _ => poison(elem),
    }
}

/// a·b + c rounded once.
pub fn fma(elem: Elem, a: u64, b: u64, c: u64) -> u64 {
    match elem {
        Elem::F64 => f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits(),
        Elem::F32 => u64::from(f32::from_bits(a as u32).mul_add(f32::from_bits(b as u32), f32::from_bits(c as u32)).to_bits()),
        _ => bits_of(elem, float(elem, a).mul_add(float(elem, b), float(elem, c))),
    }
}

/// An integer comparison.
pub fn compare_int(op: CmpI, elem: Elem, a: u64, b: u64) -> bool {
    let (x, y) = (signed(elem, a), signed(elem, b));
    match op {
        CmpI::Eq => a == b,
        CmpI::Ne => a != b,
        CmpI::Slt => x < y,
        CmpI::Sle => x <= y,
        CmpI::Sgt => x > y,
        CmpI::Sge => x >= y,
        CmpI::Ult => a < b,
        CmpI::Ule => a <= b,
        CmpI::Ugt => a > b,
        CmpI::Uge => a >= b,
    }
}

/// A float comparison.
pub fn compare_float(op: CmpF, elem: Elem, a: u64, b: u64) -> bool {
    let (x, y) = (float(elem, a), float(elem, b));
    let unordered = x.is_nan() || y.is_nan();
    match op {
        CmpF::False => false,
        CmpF::True => true,
        CmpF::Ord => !unordered,
        CmpF::Uno => unordered,
        CmpF::Oeq => x == y,
        CmpF::Ogt => x > y,
        CmpF::Oge => x >= y,
        CmpF::Olt => x < y,
        CmpF::Ole => x <= y,
        CmpF::One => !unordered && x != y,
        CmpF::Ueq => unordered || x == y,
        CmpF::Ugt => unordered || x > y,
        CmpF::Uge => unordered || x >= y,
        CmpF::Ult => unordered || x < y,
        CmpF::Ule => unordered || x <= y,
        CmpF::Une => x != y,
    }
}

/// A conversion. Float to integer beyond the integer's range is undefined: poison.
pub fn cast(op: Cast, from: Elem, to: Elem, a: u64) -> u64 {
    match op {
        Cast::TruncI | Cast::ExtU | Cast::Bitcast | Cast::PtrToInt | Cast::IntToPtr => a & mask(to),
        Cast::ExtS => signed(from, a) as u64 & mask(to),
        Cast::TruncF | Cast::ExtF | Cast::FpToFp => bits_of(to, float(from, a)),
        Cast::FpToFpRtz => from_float(to, float(from, a), true),
        Cast::SiToFp => from_int(to, signed(from, a).unsigned_abs(), signed(from, a) < 0),
        Cast::UiToFp => from_int(to, a, false),
        Cast::FpToSi => {
            let x = float(from, a).trunc();
            let limit = 2f64.powi(to.bits() as i32 - 1);
            if x >= -limit && x < limit { x as i64 as u64 & mask(to) } else { poison(to) }
        }
        Cast::FpToUi => {
            let x = float(from, a).trunc();
            if x >= 0.0 && x < 2f64.powi(to.bits() as i32) { x as u64 & mask(to) } else { poison(to) }
        }
    }
}

/// A 64-bit magnitude to a float, rounded once: what does not fit f64's 53 bits is folded into a sticky bit first.
fn from_int(to: Elem, magnitude: u64, negative: bool) -> u64 {
    let value = if to == Elem::F64 || magnitude < 1 << 53 {
        magnitude as f64
    } else {
        let shift = 11;
        let sticky = u64::from(magnitude & ((1 << shift) - 1) != 0);
        ((magnitude >> shift) | sticky) as f64 * 2f64.powi(shift)
    };
    bits_of(to, if negative { -value } else { value })
}

/// What an atomic leaves in memory.
pub fn rmw(op: Rmw, elem: Elem, old: u64, value: u64) -> u64 {
    match op {
        Rmw::And => old & value,
        Rmw::Or => old | value,
        Rmw::Xor => old ^ value,
        Rmw::Add => binary(Binary::AddI, elem.as_int(), old, value),
        Rmw::FAdd => binary(Binary::AddF, elem, old, value),
        Rmw::Max if elem.is_float() => binary(Binary::MaxNumF, elem, old, value),
        Rmw::Min if elem.is_float() => binary(Binary::MinNumF, elem, old, value),
        Rmw::Max => binary(Binary::MaxS, elem, old, value),
        Rmw::Min => binary(Binary::MinS, elem, old, value),
        Rmw::UMax => binary(Binary::MaxU, elem, old, value),
        Rmw::UMin => binary(Binary::MinU, elem, old, value),
        Rmw::Exch => value,
    }
}
