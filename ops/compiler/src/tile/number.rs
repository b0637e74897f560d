//! Float literals: their values, their one rounding, their text.

use crate::Elem;
use crate::thread::interpret::scalar;
use crate::tile::Literal;

/// A float element's value, exactly.
pub fn to_f64(elem: Elem, bits: u64) -> f64 {
    scalar::float(elem, bits)
}

/// Bits of a float element nearest to a value, ties to even; overflow gives infinity (E4M3: NaN).
pub fn round_to(elem: Elem, value: f64) -> u64 {
    scalar::from_float(elem, value, false)
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
                assert!(value.is_nan() || value.is_infinite() || scalar::from_float(elem, value, true) == bits, "{elem} {bits:#x}");
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
        assert_eq!(scalar::from_float(Elem::F8E4M3, 1e9, true), 0x7e);
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
