//! Numbers as bits: decoding every element type, and encoding with one correct rounding.

use crate::Elem;
use crate::tile::Literal;

/// The layout of a float below f32: exponent bits, fraction bits.
const fn layout(elem: Elem) -> (u32, u32) {
    match elem {
        Elem::F8E4M3 => (4, 3),
        Elem::F8E5M2 => (5, 2),
        Elem::F16 => (5, 10),
        Elem::BF16 => (8, 7),
        Elem::F32 => (8, 23),
        _ => (11, 52),
    }
}

/// Bits with everything above the element's width cleared.
pub fn truncate(elem: Elem, bits: u64) -> u64 {
    if elem.bits() == 64 { bits } else { bits & ((1 << elem.bits()) - 1) }
}

/// An integer element's value, sign-extended; a truth value is 0 or 1.
pub fn signed(elem: Elem, bits: u64) -> i64 {
    if elem == Elem::I1 {
        return (bits & 1) as i64;
    }
    let shift = 64 - elem.bits();
    (bits << shift) as i64 >> shift
}

/// A float element's value, exactly.
pub fn to_f64(elem: Elem, bits: u64) -> f64 {
    match elem {
        Elem::F64 => return f64::from_bits(bits),
        Elem::F32 => return f64::from(f32::from_bits(bits as u32)),
        _ => {}
    }
    let (exponent_bits, fraction_bits) = layout(elem);
    let bits = truncate(elem, bits);
    let sign = if bits >> (elem.bits() - 1) == 1 { -1.0 } else { 1.0 };
    let fraction = bits & ((1 << fraction_bits) - 1);
    let exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let top = (1u64 << exponent_bits) - 1;
    let magnitude = if elem == Elem::F8E4M3 && exponent == top && fraction == 7 {
        f64::NAN
    } else if elem != Elem::F8E4M3 && exponent == top {
        if fraction == 0 { f64::INFINITY } else { f64::NAN }
    } else if exponent == 0 {
        fraction as f64 * power(1 - bias - fraction_bits as i32)
    } else {
        (fraction | 1 << fraction_bits) as f64 * power(exponent as i32 - bias - fraction_bits as i32)
    };
    magnitude * sign
}

/// 2 to a power in the normal range of f64.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Bits of a float element nearest to a value, ties to even; overflow gives infinity (E4M3: NaN).
pub fn round_to(elem: Elem, value: f64) -> u64 {
    encode(elem, value, true)
}

/// Bits of the float element next to a value toward zero; overflow gives the greatest finite number.
pub fn truncate_to(elem: Elem, value: f64) -> u64 {
    encode(elem, value, false)
}

fn encode(elem: Elem, value: f64, nearest: bool) -> u64 {
    if elem == Elem::F64 {
        return value.to_bits();
    }
    let (exponent_bits, fraction_bits) = layout(elem);
    let sign = (value.to_bits() >> 63) << (elem.bits() - 1);
    let top = (1u64 << exponent_bits) - 1;
    let e4m3 = elem == Elem::F8E4M3;
    let nan = if e4m3 { 0x7f } else { top << fraction_bits | 1 << (fraction_bits - 1) };
    let infinity = if e4m3 { nan } else { top << fraction_bits };
    let greatest = if e4m3 { 0x7e } else { infinity - 1 };
    if value.is_nan() {
        return sign | nan;
    }
    if value.is_infinite() {
        return sign | infinity;
    }
    let bits = value.to_bits() & (u64::MAX >> 1);
    if bits == 0 {
        return sign;
    }
    // value = significand · 2^exponent with the significand's leading bit at 52 unless the value is subnormal in f64, which is far
    // below every narrower type.
    let raw = (bits >> 52) as i32;
    let significand = if raw == 0 { bits } else { bits & ((1 << 52) - 1) | 1 << 52 };
    let exponent = raw.max(1) - 1023;
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let lowest = 1 - bias;
    let drop = 52 - fraction_bits as i32 + (lowest - exponent).max(0);
    let kept = if drop > 63 { 0 } else { significand >> drop };
    let rest = if drop > 63 { significand } else { significand & ((1u64 << drop) - 1) };
    let half = if drop > 63 { u64::MAX } else { 1u64 << (drop - 1) };
    let up = nearest && (rest > half || rest == half && kept & 1 == 1);
    // The leading bit of `kept` adds one to the exponent field below; a carry out of the fraction goes on there.
    let base = if exponent < lowest { 0 } else { ((exponent - lowest) as u64) << fraction_bits };
    let magnitude = base + kept + u64::from(up);
    if magnitude > greatest { sign | if nearest { infinity } else { greatest } } else { sign | magnitude }
}

/// A literal as text that reads back to the same bits: decimal where that is exact, else hexadecimal bits.
pub fn text(elem: Elem, literal: Literal) -> String {
    match literal {
        Literal::Int(v) if elem == Elem::I1 => if v == 0 { "false" } else { "true" }.into(),
        Literal::Int(v) => v.to_string(),
        Literal::Bits(bits) => {
            let value = to_f64(elem, bits);
            if value.is_finite() && round_to(elem, value) == bits {
                let short = format!("{value:?}");
                match short.split_once('e') {
                    Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
                    _ => short,
                }
            } else {
                format!("0x{bits:X}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_float_survives_a_round_trip() {
        for elem in [Elem::F8E4M3, Elem::F8E5M2, Elem::F16, Elem::BF16] {
            for bits in 0..1u64 << elem.bits() {
                let value = to_f64(elem, bits);
                let again = round_to(elem, value);
                assert!(again == bits || value.is_nan() && to_f64(elem, again).is_nan(), "{elem} {bits:#x} became {again:#x}");
                assert!(value.is_nan() || value.is_infinite() || truncate_to(elem, value) == bits, "{elem} {bits:#x}");
                let library = match elem {
                    Elem::F16 => half::f16::from_bits(bits as u16).to_f64(),
                    Elem::BF16 => half::bf16::from_bits(bits as u16).to_f64(),
                    _ => continue,
                };
                assert!(library == value || library.is_nan() && value.is_nan(), "{elem} {bits:#x}: {value} but {library}");
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_once() {
        assert_eq!(round_to(Elem::F8E4M3, 448.0), 0x7e);
        assert_eq!(round_to(Elem::F8E4M3, 464.0), 0x7e, "a tie goes to the even 448");
        assert_eq!(round_to(Elem::F8E4M3, 465.0), 0x7f);
        assert_eq!(truncate_to(Elem::F8E4M3, 1e9), 0x7e);
        assert_eq!(round_to(Elem::F8E5M2, -61440.0), 0xfc);
        assert_eq!(round_to(Elem::F16, 65519.99), 0x7bff);
        assert_eq!(round_to(Elem::F16, 65520.0), 0x7c00);
        // A hair above a tie: an intermediate rounding to f32 would lose it.
        let tie = 1.0 + f64::powi(2.0, -11);
        assert_eq!(round_to(Elem::F16, tie), 0x3c00);
        assert_eq!(round_to(Elem::F16, tie + f64::powi(2.0, -52)), 0x3c01);
        assert_eq!(round_to(Elem::F16, f64::powi(2.0, -25)), 0);
        assert_eq!(round_to(Elem::F16, 1.5 * f64::powi(2.0, -25)), 1);
        assert_eq!(round_to(Elem::BF16, 5e-324), 0);
        for value in [0.1f64, 1e-40, 1e39, -3.3e38, 7.006492321624085e-46] {
            assert_eq!(round_to(Elem::F32, value), u64::from((value as f32).to_bits()), "{value}");
        }
    }
}
