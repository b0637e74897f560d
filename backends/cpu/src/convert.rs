//! Conversions between element types, as block functions.

use core::marker::PhantomData;

use flagos_backend_api::DType;
use flagos_catalog::Attrs;

use crate::block::{BlockFn, Step, block_fn};
use crate::kind::Kind;
use crate::lanes::Lane;
use crate::target::Isa;

/// The block function that converts dense elements: to narrower floats rounded to nearest even once; floats to integers toward zero,
/// saturating; integers modulo 2ⁿ; to bool by `!= 0`. `None` for types outside of the catalogue's spine.
pub fn converter(from: DType, to: DType, isa: Isa) -> Option<BlockFn> {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        match (Kind::of(from)?, Kind::of(to)?) {
            (Kind::F16, Kind::F32) => return Some(x86::widen_f16),
            (Kind::F32, Kind::F16) => return Some(x86::narrow_f16),
            _ => {}
        }
    }
    Some(match Kind::of(from)? {
        Kind::Bool => to_type::<Bool>(to, isa)?,
        Kind::I8 => to_type::<i8>(to, isa)?,
        Kind::I16 => to_type::<i16>(to, isa)?,
        Kind::I32 => to_type::<i32>(to, isa)?,
        Kind::I64 => to_type::<i64>(to, isa)?,
        Kind::U8 => to_type::<u8>(to, isa)?,
        Kind::F16 => to_type::<Half>(to, isa)?,
        Kind::BF16 => to_type::<Brain>(to, isa)?,
        Kind::F32 => to_type::<f32>(to, isa)?,
        Kind::F64 => to_type::<f64>(to, isa)?,
    })
}

fn to_type<A: Element>(to: DType, isa: Isa) -> Option<BlockFn> {
    fn pair<A: Element, B: Element>(isa: Isa) -> BlockFn {
        block_fn::<1, Convert<A, B>, Convert<A, B>>(isa)
    }
    Some(match Kind::of(to)? {
        Kind::Bool => pair::<A, Bool>(isa),
        Kind::I8 => pair::<A, i8>(isa),
        Kind::I16 => pair::<A, i16>(isa),
        Kind::I32 => pair::<A, i32>(isa),
        Kind::I64 => pair::<A, i64>(isa),
        Kind::U8 => pair::<A, u8>(isa),
        Kind::F16 => pair::<A, Half>(isa),
        Kind::BF16 => pair::<A, Brain>(isa),
        Kind::F32 => pair::<A, f32>(isa),
        Kind::F64 => pair::<A, f64>(isa),
    })
}

/// A lane without arithmetic.
#[derive(Clone, Copy)]
pub struct Raw<T>(pub T);
impl<T: Copy + Default> Lane for Raw<T> {
    type Item = T;
    #[inline(always)]
    fn load(item: T) -> Raw<T> {
        Raw(item)
    }
    #[inline(always)]
    fn item(self) -> T {
        self.0
    }
    #[inline(always)]
    fn hard(self) -> bool {
        false
    }
}

struct Convert<A, B>(PhantomData<(A, B)>);
impl<A: Element, B: Element> Step<1> for Convert<A, B> {
    type Lane = Raw<A>;
    type Out = B;
    #[inline(always)]
    fn eval([x]: [Raw<A>; 1], _: &Attrs) -> (B, bool) {
        (x.0.send(), false)
    }
    fn exact([x]: [A; 1], _: &Attrs) -> B {
        x.send()
    }
}

/// An f16's bits.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Half(pub u16);
/// A bf16's bits.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Brain(pub u16);
/// A truth value's byte.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bool(pub u8);

/// An element type: goes to another by way of the narrowest type that holds it.
pub trait Element: Copy + Default + 'static {
    /// From an integer.
    fn from_i64(v: i64) -> Self;
    /// From an f32.
    fn from_f32(v: f32) -> Self;
    /// From an f64.
    fn from_f64(v: f64) -> Self;
    /// To another type.
    fn send<B: Element>(self) -> B;
}

macro_rules! integers {
    ($($t:ident),*) => {$(
        impl Element for $t {
            #[inline(always)]
            fn from_i64(v: i64) -> $t {
                v as $t
            }
            #[inline(always)]
            fn from_f32(v: f32) -> $t {
                v as $t
            }
            #[inline(always)]
            fn from_f64(v: f64) -> $t {
                v as $t
            }
            #[inline(always)]
            fn send<B: Element>(self) -> B {
                B::from_i64(self.into())
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8);

impl Element for Bool {
    #[inline(always)]
    fn from_i64(v: i64) -> Bool {
        Bool((v != 0).into())
    }
    #[inline(always)]
    fn from_f32(v: f32) -> Bool {
        Bool((v != 0.0).into())
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Bool {
        Bool((v != 0.0).into())
    }
    #[inline(always)]
    fn send<B: Element>(self) -> B {
        B::from_i64((self.0 != 0).into())
    }
}

impl Element for f32 {
    #[inline(always)]
    fn from_i64(v: i64) -> f32 {
        v as f32
    }
    #[inline(always)]
    fn from_f32(v: f32) -> f32 {
        v
    }
    #[inline(always)]
    fn from_f64(v: f64) -> f32 {
        v as f32
    }
    #[inline(always)]
    fn send<B: Element>(self) -> B {
        B::from_f32(self)
    }
}

impl Element for f64 {
    #[inline(always)]
    fn from_i64(v: i64) -> f64 {
        v as f64
    }
    #[inline(always)]
    fn from_f32(v: f32) -> f64 {
        v.into()
    }
    #[inline(always)]
    fn from_f64(v: f64) -> f64 {
        v
    }
    #[inline(always)]
    fn send<B: Element>(self) -> B {
        B::from_f64(self)
    }
}

/// The f32 toward zero from `v`, its last bit set if that lost something: rounding it once more gives what rounding `v` would.
#[inline(always)]
fn to_odd(v: f64) -> f32 {
    let near = v as f32;
    let back = f64::from(near);
    let bits = near.to_bits().wrapping_sub(u32::from(back.abs() > v.abs()));
    if back == v || v.is_nan() { near } else { f32::from_bits(bits | 1) }
}

impl Element for Half {
    #[inline(always)]
    fn from_i64(v: i64) -> Half {
        Half::from_f64(v as f64)
    }
    #[inline(always)]
    fn from_f32(v: f32) -> Half {
        let bits = v.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let a = bits & 0x7fff_ffff;
        // Normal results: the exponent's bias moves from 127 to 15, and 13 bits are rounded off.
        let normal = a.wrapping_sub(112 << 23).wrapping_add(0xfff + ((a >> 13) & 1)) >> 13;
        // Subnormal ones: adding ½ leaves multiples of 2⁻²⁴ in the low bits, rounded by the addition.
        let small = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if a < 0x3880_0000 { small } else { normal };
        let beyond = if a > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        Half((sign | if a >= 0x4780_0000 { beyond } else { finite }) as u16)
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Half {
        Half::from_f32(to_odd(v))
    }
    #[inline(always)]
    fn send<B: Element>(self) -> B {
        let a = u32::from(self.0 & 0x7fff);
        // The bits as an f32 stand for 2⁻¹¹² times the value, subnormals included.
        let finite = f32::from_bits(a << 13) * f32::from_bits(239 << 23);
        let bits = if a >= 0x7c00 { 0x7f80_0000 | (a << 13) } else { finite.to_bits() };
        B::from_f32(f32::from_bits(bits | (u32::from(self.0 & 0x8000) << 16)))
    }
}

impl Element for Brain {
    #[inline(always)]
    fn from_i64(v: i64) -> Brain {
        Brain::from_f64(v as f64)
    }
    #[inline(always)]
    fn from_f32(v: f32) -> Brain {
        let bits = v.to_bits();
        let near = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Brain(if v.is_nan() { (bits >> 16) | 0x40 } else { near } as u16)
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Brain {
        Brain::from_f32(to_odd(v))
    }
    #[inline(always)]
    fn send<B: Element>(self) -> B {
        B::from_f32(f32::from_bits(u32::from(self.0) << 16))
    }
}

/// What the processor has instructions for but the compiler's vectoriser no pattern.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;
    use core::mem::MaybeUninit;

    use flagos_catalog::Attrs;

    use super::{Element, Half};

    /// # Safety
    /// As [`crate::block::BlockFn`], on a processor with F16C.
    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn widen_f16(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, _: &Attrs) {
        let (x, y) = (x[0].cast::<Half>(), y.as_mut_ptr().cast::<f32>());
        let whole = n / 8 * 8;
        // SAFETY: both arrays have `n` elements.
        unsafe {
            for i in (0..whole).step_by(8) {
                _mm256_storeu_ps(y.add(i), _mm256_cvtph_ps(_mm_loadu_si128(x.add(i).cast())));
            }
            (whole..n).for_each(|i| y.add(i).write_unaligned(x.add(i).read_unaligned().send()));
        }
    }

    /// # Safety
    /// As [`crate::block::BlockFn`], on a processor with F16C.
    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn narrow_f16(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, _: &Attrs) {
        let (x, y) = (x[0].cast::<f32>(), y.as_mut_ptr().cast::<Half>());
        let whole = n / 8 * 8;
        // SAFETY: both arrays have `n` elements.
        unsafe {
            for i in (0..whole).step_by(8) {
                _mm_storeu_si128(y.add(i).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.add(i))));
            }
            (whole..n).for_each(|i| y.add(i).write_unaligned(Half::from_f32(x.add(i).read_unaligned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_half_widens_as_the_reference_does() {
        for bits in 0..=u16::MAX {
            let (a, b): (f32, f32) = (Half(bits).send(), f16::from_bits(bits).to_f32());
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{bits:#x}: {a} {b}");
        }
    }

    /// The 16-bit float nearest to `v`, ties to even, found among the neighbours of a guess.
    fn nearest(v: f64, guess: u16, value: impl Fn(u16) -> f64) -> u16 {
        let distance = |bits: &u16| {
            let x = value(*bits);
            // Infinity stands where the next number would.
            let x = if x.is_infinite() { value(bits - 1) * 2.0 - value(bits - 2) } else { x };
            (x - v).abs()
        };
        let neighbours = (guess.wrapping_sub(1)..=guess.wrapping_add(1)).filter(|b| (b ^ guess) & 0x8000 == 0 && !value(*b).is_nan());
        neighbours.min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))).unwrap_or(guess)
    }

    #[test]
    fn narrowing_rounds_once() {
        let mut state = 1u64;
        let check = |v: f64| {
            let (h, b) = (Half::from_f64(v).0, Brain::from_f64(v).0);
            let (half, brain) = (|bits| f16::from_bits(bits).to_f64(), |bits| bf16::from_bits(bits).to_f64());
            if v.is_nan() {
                return assert!(half(h).is_nan() && brain(b).is_nan());
            }
            assert!(half(h).is_sign_negative() == v.is_sign_negative() && brain(b).is_sign_negative() == v.is_sign_negative());
            if v.abs() < 65536.0 {
                assert_eq!(h, nearest(v, h, half), "f16 of {v:e}");
            } else {
                assert!(half(h).is_infinite(), "f16 of {v:e}");
            }
            if v.abs() < 3.39e38 {
                assert_eq!(b, nearest(v, b, brain), "bf16 of {v:e}");
            } else if v.abs() > 3.4e38 {
                assert!(brain(b).is_infinite(), "bf16 of {v:e}");
            }
        };
        for bits in 0..=u16::MAX {
            // Each f16, the middle to its neighbour, and that middle a little off.
            let v = f16::from_bits(bits).to_f64();
            let middle = (v + f16::from_bits(bits ^ 1).to_f64()) / 2.0;
            [v, middle, middle * (1.0 + 1e-15), middle * (1.0 - 1e-15), v + 2f64.powi(-25)].into_iter().for_each(check);
            let w = bf16::from_bits(bits).to_f64();
            let middle = (w + bf16::from_bits(bits ^ 1).to_f64()) / 2.0;
            [w, middle, middle * (1.0 + 1e-15), middle * (1.0 - 1e-15)].into_iter().for_each(check);
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            check(f64::from_bits(state));
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn instructions_agree_with_the_portable_way() {
        if !std::is_x86_feature_detected!("f16c") {
            return;
        }
        let attrs = flagos_catalog::Call::new(flagos_catalog::copy::CAST, &[], &[], &[]).unwrap().attrs;
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let (mut wide, mut back) = (vec![0f32; 1 << 16], vec![0u16; 1 << 16]);
        // SAFETY: the arrays have 2¹⁶ elements.
        unsafe {
            let bytes = |p: *mut u8, n| core::slice::from_raw_parts_mut(p.cast(), n);
            x86::widen_f16(&[halves.as_ptr().cast(), core::ptr::null(), core::ptr::null()], bytes(wide.as_mut_ptr().cast(), 1 << 18), 1 << 16, &attrs);
            wide.iter_mut().for_each(|v| *v *= 1.0 + 2f32.powi(-11));
            x86::narrow_f16(&[wide.as_ptr().cast(), core::ptr::null(), core::ptr::null()], bytes(back.as_mut_ptr().cast(), 1 << 17), 1 << 16, &attrs);
        }
        for (bits, (w, b)) in wide.iter().zip(&back).enumerate() {
            let x: f32 = Half(bits as u16).send();
            assert!(w.is_nan() && x.is_nan() || *w == x * (1.0 + 2f32.powi(-11)), "{bits:#x}");
            assert!(w.is_nan() || Half::from_f32(*w).0 == *b, "{bits:#x}");
        }
    }
}
