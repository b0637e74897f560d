//! Constants as text of C-like languages.

use crate::Elem;

/// An unsigned integer of at most 64 bits; `long` is the suffix of 64-bit constants ("ull").
pub(super) fn unsigned(elem: Elem, bits: u64, long: &str) -> String {
    match elem {
        Elem::I1 => if bits & 1 == 1 { "1" } else { "0" }.to_owned(),
        Elem::I64 if bits >> 63 == 1 => format!("{bits:#x}{long}"),
        Elem::I64 => format!("{bits}{long}"),
        _ if bits >> (elem.bits() - 1) == 1 || (elem.is_float() && bits > 0) => format!("{bits:#x}u"),
        _ => format!("{bits}u"),
    }
}

/// A signed integer of 32 or 64 bits.
pub(super) fn signed(bits: u32, value: i64, long: &str) -> String {
    let suffix = if bits == 64 { long.trim_start_matches('u') } else { "" };
    let least = if bits == 64 { i64::MIN } else { i64::from(i32::MIN) };
    if value == least {
        format!("(-{}{suffix} - 1)", (least + 1).unsigned_abs())
    } else if value < 0 {
        format!("(-{}{suffix})", value.unsigned_abs())
    } else {
        format!("{value}{suffix}")
    }
}

/// The value of an integer constant read as signed.
pub(super) fn value(elem: Elem, bits: u64) -> i64 {
    let unused = 64 - elem.bits();
    ((bits << unused) as i64) >> unused
}

/// A float of 32 or 64 bits: decimal where that is exact and short, else by its bits.
pub(super) fn float(elem: Elem, bits: u64, long: &str) -> String {
    let (normal, negative, digits) = if elem == Elem::F32 {
        let x = f32::from_bits(bits as u32);
        (x.is_normal() || x == 0.0, x.is_sign_negative(), format!("{:?}f", x.abs()))
    } else {
        let x = f64::from_bits(bits);
        (x.is_normal() || x == 0.0, x.is_sign_negative(), format!("{:?}", x.abs()))
    };
    match (normal, negative) {
        (true, false) => digits,
        (true, true) => format!("(-{digits})"),
        _ if elem == Elem::F32 => format!("fl_as_f32({bits:#x}u)"),
        _ => format!("fl_as_f64({bits:#x}{long})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_read_back_as_they_were() {
        assert_eq!(unsigned(Elem::I32, 7, "ull"), "7u");
        assert_eq!(unsigned(Elem::I32, u64::from(u32::MAX), "ull"), "0xffffffffu");
        assert_eq!(unsigned(Elem::I64, 1 << 40, "ul"), "1099511627776ul");
        assert_eq!(signed(32, i64::from(i32::MIN), "ull"), "(-2147483647 - 1)");
        assert_eq!(signed(64, i64::MIN, "ull"), "(-9223372036854775807ll - 1)");
        assert_eq!(signed(32, value(Elem::I8, 0xfe), "ull"), "(-2)");
        assert_eq!(float(Elem::F32, 0x3f80_0000, "ull"), "1.0f");
        assert_eq!(float(Elem::F32, 0x8000_0000, "ull"), "(-0.0f)");
        assert_eq!(float(Elem::F32, 1, "ull"), "fl_as_f32(0x1u)");
        assert_eq!(float(Elem::F64, f64::INFINITY.to_bits(), "ul"), "fl_as_f64(0x7ff0000000000000ul)");
        assert_eq!(float(Elem::F64, 1e300f64.to_bits(), "ul"), "1e300");
    }
}
