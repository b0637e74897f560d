//! Sets of element types, and PyTorch's promotion between tensors.

use flagos_backend_api::DType;

use crate::DTypes;

const fn bit(t: DType) -> u32 {
    let mut i = 0;
    while i < DType::ALL.len() {
        let o = DType::ALL[i];
        if o.code == t.code && o.bits == t.bits {
            return 1 << i;
        }
        i += 1;
    }
    0
}

/// f16, bf16, f32, f64.
pub const FLOATING: DTypes = DTypes(bit(DType::F16) | bit(DType::BF16) | bit(DType::F32) | bit(DType::F64));
/// Signed integers and u8.
pub const INTEGRAL: DTypes = DTypes(bit(DType::I8) | bit(DType::I16) | bit(DType::I32) | bit(DType::I64) | bit(DType::U8));
/// bool.
pub const BOOL: DTypes = DTypes(bit(DType::BOOL));
/// u64, for seeds.
pub const U64: DTypes = DTypes(bit(DType::U64));
/// i64.
pub const I64: DTypes = DTypes(bit(DType::I64));
/// i32, i64: index tensors.
pub const INDEX: DTypes = DTypes(bit(DType::I32) | bit(DType::I64));
/// f32, f64: statistics.
pub const WIDE: DTypes = DTypes(bit(DType::F32) | bit(DType::F64));
/// Floating and integral.
pub const NUMBER: DTypes = FLOATING.or(INTEGRAL);
/// Integral and bool.
pub const BITS: DTypes = INTEGRAL.or(BOOL);
/// Everything the spine's operators take.
pub const ANY: DTypes = NUMBER.or(BOOL);

impl DTypes {
    /// Union.
    pub const fn or(self, other: DTypes) -> DTypes {
        DTypes(self.0 | other.0)
    }
    /// Whether a type is in the set.
    pub const fn has(self, t: DType) -> bool {
        t.lanes == 1 && self.0 & bit(t) != 0
    }
    /// The types, in catalogue order.
    pub fn iter(self) -> impl Iterator<Item = DType> {
        DType::ALL.iter().copied().filter(move |t| self.has(*t))
    }
}

impl core::fmt::Display for DTypes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names: Vec<&str> = self.iter().map(DType::name).collect();
        f.write_str(&names.join(" "))
    }
}

/// The type two tensors are computed in, by PyTorch's lattice for tensors of dimension.
pub fn promote(a: DType, b: DType) -> DType {
    let rank = |t: DType| if t.is_bool() { 0 } else if t.is_int() { 1 } else if t.is_float() { 2 } else { 3 };
    if a == b {
        return a;
    }
    if rank(a) != rank(b) {
        return if rank(a) > rank(b) { a } else { b };
    }
    if a.is_float() {
        // f16 with bf16 gives f32; otherwise the wider.
        return if a.bits == b.bits { DType::F32 } else if a.bits > b.bits { a } else { b };
    }
    // u8 with a signed integer gives a signed one that holds both.
    let signed = |t: DType| if t.code == 0 { t.bits } else { t.bits * 2 };
    match (a.code, b.code) {
        (x, y) if x == y => if a.bits > b.bits { a } else { b },
        _ => DType { code: 0, bits: signed(a).max(signed(b)).min(64), lanes: 1 },
    }
}

/// [`promote`], with integers and bool becoming f32.
pub fn to_float(t: DType) -> DType {
    if t.is_float() { t } else { DType::F32 }
}

/// The type products and sums of `t` are accumulated in: f32 for narrower floats, i64 for integers and bool.
pub fn accumulator(t: DType) -> DType {
    if t == DType::F64 || t.is_complex() { t } else if t.is_float() { DType::F32 } else { DType::I64 }
}

/// Unit roundoff u = 2^-p of a floating type.
pub fn unit_roundoff(t: DType) -> f64 {
    let p = match (t.code, t.bits) {
        (2, 16) => 11,
        (4, 16) => 8,
        (2, 32) | (5, 64) => 24,
        (10, 8) => 4,
        (12, 8) => 3,
        _ => 53,
    };
    2f64.powi(-p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_follows_pytorch() {
        for (a, b, c) in [
            (DType::BOOL, DType::U8, DType::U8),
            (DType::U8, DType::I8, DType::I16),
            (DType::U8, DType::I32, DType::I32),
            (DType::I64, DType::F16, DType::F16),
            (DType::F16, DType::BF16, DType::F32),
            (DType::BF16, DType::F64, DType::F64),
            (DType::I8, DType::I64, DType::I64),
        ] {
            assert_eq!(promote(a, b), c);
            assert_eq!(promote(b, a), c);
        }
    }
}
