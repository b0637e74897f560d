//! Element types as the dense kernels see them: conversion to the accumulator and back.

use flagos_backend_api::DType;
use half::{bf16, f16};

/// A type of the catalogue in memory.
pub trait Element: Copy + Send + Sync + PartialOrd + 'static {
    /// What sums are kept in: f32 for narrower floats, f64 for f64, i64 for integers and bool.
    type Acc: Accumulator;
    /// Its descriptor.
    const DTYPE: DType;
    /// Exact (integers wrap).
    fn widen(self) -> Self::Acc;
    /// Rounded to nearest even; integers wrap.
    fn narrow(acc: Self::Acc) -> Self;
}

/// What sums are kept in.
pub trait Accumulator: Element<Acc = Self> + Copy + Send + Sync + PartialOrd + core::ops::Sub<Output = Self> + core::ops::Div<Output = Self> + 'static {
    /// 0.
    const ZERO: Self;
    /// From a number; integers truncate.
    fn of(x: f64) -> Self;
    /// Sum; integers wrap.
    fn add(self, other: Self) -> Self;
    /// Product; integers wrap.
    fn mul(self, other: Self) -> Self;
}

macro_rules! accumulators {
    ($($t:ident $add:expr, $mul:expr;)*) => { $(
        impl Accumulator for $t {
            const ZERO: $t = 0 as $t;
            #[inline(always)]
            fn of(x: f64) -> $t {
                x as $t
            }
            #[inline(always)]
            fn add(self, other: $t) -> $t {
                $add(self, other)
            }
            #[inline(always)]
            fn mul(self, other: $t) -> $t {
                $mul(self, other)
            }
        }
    )* };
}
accumulators! {
    f32 |a, b| a + b, |a, b| a * b;
    f64 |a, b| a + b, |a, b| a * b;
    i64 i64::wrapping_add, i64::wrapping_mul;
}

macro_rules! elements {
    ($($t:ident $dtype:ident $acc:ident, $widen:expr, $narrow:expr;)*) => { $(
        impl Element for $t {
            type Acc = $acc;
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn widen(self) -> $acc {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(acc: $acc) -> $t {
                $narrow(acc)
            }
        }
    )* };
}
elements! {
    f32 F32 f32, |x| x, |x| x;
    f64 F64 f64, |x| x, |x| x;
    f16 F16 f32, f16_to_f32, f32_to_f16;
    bf16 BF16 f32, |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16), f32_to_bf16;
    i8 I8 i64, i64::from, |x| x as i8;
    i16 I16 i64, i64::from, |x| x as i16;
    i32 I32 i64, i64::from, |x| x as i32;
    i64 I64 i64, |x| x, |x| x;
    u8 U8 i64, i64::from, |x| x as u8;
    bool BOOL i64, i64::from, |x| x != 0;
}

/// Branch-free, so that loops over it vectorise on every instruction set.
#[inline(always)]
pub fn f16_to_f32(x: f16) -> f32 {
    let h = u32::from(x.to_bits());
    // Scaling by 2^112 moves the exponent's bias from 15 to 127, and makes subnormals normal.
    let finite = (f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(239 << 23)).to_bits();
    let odd = ((h & 0x7fff) << 13) | 0x7f80_0000;
    let magnitude = if h & 0x7c00 == 0x7c00 { odd } else { finite };
    f32::from_bits(magnitude | (h & 0x8000) << 16)
}

/// Round to nearest even; branch-free.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> f16 {
    let sign = x.to_bits() & 0x8000_0000;
    let u = x.to_bits() ^ sign;
    let odd = if u > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    // The sum aligns the significand so that the addition itself rounds at the subnormals' last place.
    let magic = 126u32 << 23;
    let subnormal = (f32::from_bits(u) + f32::from_bits(magic)).to_bits().wrapping_sub(magic);
    let normal = u.wrapping_add((15u32.wrapping_sub(127) << 23).wrapping_add(0xfff)).wrapping_add((u >> 13) & 1) >> 13;
    let magnitude = if u >= 143 << 23 { odd } else if u < 113 << 23 { subnormal } else { normal };
    f16::from_bits((magnitude | sign >> 16) as u16)
}

/// Round to nearest even; branch-free.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> bf16 {
    let u = x.to_bits();
    let rounded = u.wrapping_add(0x7fff + ((u >> 16) & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { (u >> 16 | 0x40) as u16 } else { rounded as u16 })
}

/// Evaluates an expression with `$T` naming the element type of a descriptor; the list says which types are offered.
macro_rules! with_element {
    (@arm $dtype:expr, $T:ident, $e:expr, $other:expr, [$($t:ty),*]) => {{
        let dtype = $dtype;
        $( if dtype == <$t as $crate::element::Element>::DTYPE { type $T = $t; $e } else )* { $other }
    }};
    (floating $dtype:expr, $T:ident => $e:expr, else $other:expr) => {
        $crate::element::with_element!(@arm $dtype, $T, $e, $other, [f32, f64, half::f16, half::bf16])
    };
    (whole $dtype:expr, $T:ident => $e:expr, else $other:expr) => {
        $crate::element::with_element!(@arm $dtype, $T, $e, $other, [i8, i16, i32, i64, u8, bool])
    };
    (number $dtype:expr, $T:ident => $e:expr, else $other:expr) => {
        $crate::element::with_element!(@arm $dtype, $T, $e, $other, [f32, f64, half::f16, half::bf16, i8, i16, i32, i64, u8])
    };
    (any $dtype:expr, $T:ident => $e:expr, else $other:expr) => {
        $crate::element::with_element!(@arm $dtype, $T, $e, $other, [f32, f64, half::f16, half::bf16, i8, i16, i32, i64, u8, bool])
    };
}
pub(crate) use with_element;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_exactly_and_comes_back() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            let wide = f16_to_f32(x);
            assert!(wide.to_bits() == x.to_f32().to_bits() || x.is_nan() && wide.is_nan(), "{bits:#x}");
            assert!(f32_to_f16(wide).to_bits() == bits || x.is_nan() && f32_to_f16(wide).is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            if !x.is_nan() {
                assert_eq!(f32_to_f16(x).to_bits(), f16::from_f32(x).to_bits(), "{x:e}");
                assert_eq!(f32_to_bf16(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            } else {
                assert!(f32_to_f16(x).is_nan() && f32_to_bf16(x).is_nan());
            }
            let Some(next) = bits.checked_add(0x1_1fff) else { break };
            bits = next;
        }
    }
}
