//! Register tiles of the matrix product: MR × NR results from packed panels, by vector width.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use crate::target::Isa;

/// A vector of accumulators.
trait Lane: Copy {
    /// Element.
    type S: Copy;
    /// Elements.
    const N: usize;
    /// # Safety
    /// `N` elements are readable at `p`; the processor has the vector's instruction set (so for all methods).
    unsafe fn load(p: *const Self::S) -> Self;
    /// # Safety
    /// `N` elements are writable at `p`.
    unsafe fn store(self, p: *mut Self::S);
    /// # Safety
    /// See [`Lane::load`].
    unsafe fn splat(x: *const Self::S) -> Self;
    /// self·b + c.
    /// # Safety
    /// See [`Lane::load`].
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// c - self·b.
    /// # Safety
    /// See [`Lane::load`].
    unsafe fn mul_sub(self, b: Self, c: Self) -> Self;
    /// # Safety
    /// See [`Lane::load`].
    unsafe fn sum(self, b: Self) -> Self;
    /// # Safety
    /// See [`Lane::load`].
    unsafe fn zero() -> Self;
}

macro_rules! x86_lanes {
    ($($v:ident $s:ident $n:literal, $load:ident $store:ident $splat:ident $fma:ident $fnma:ident $add:ident $zero:ident;)*) => { $(
        #[cfg(target_arch = "x86_64")]
        impl Lane for $v {
            type S = $s;
            const N: usize = $n;
            #[inline(always)]
            unsafe fn load(p: *const $s) -> $v {
                // SAFETY: stated by the trait.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $s) {
                // SAFETY: stated by the trait.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn splat(x: *const $s) -> $v {
                // SAFETY: stated by the trait.
                unsafe { $splat(*x) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: $v, c: $v) -> $v {
                // SAFETY: stated by the trait.
                unsafe { $fma(self, b, c) }
            }
            #[inline(always)]
            unsafe fn mul_sub(self, b: $v, c: $v) -> $v {
                // SAFETY: stated by the trait.
                unsafe { $fnma(self, b, c) }
            }
            #[inline(always)]
            unsafe fn sum(self, b: $v) -> $v {
                // SAFETY: stated by the trait.
                unsafe { $add(self, b) }
            }
            #[inline(always)]
            unsafe fn zero() -> $v {
                // SAFETY: stated by the trait.
                unsafe { $zero() }
            }
        }
    )* };
}
x86_lanes! {
    __m512 f32 16, _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_fnmadd_ps _mm512_add_ps _mm512_setzero_ps;
    __m512d f64 8, _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd _mm512_fmadd_pd _mm512_fnmadd_pd _mm512_add_pd _mm512_setzero_pd;
    __m256 f32 8, _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_fnmadd_ps _mm256_add_ps _mm256_setzero_ps;
    __m256d f64 4, _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd _mm256_fmadd_pd _mm256_fnmadd_pd _mm256_add_pd _mm256_setzero_pd;
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_int_lanes {
    ($($v:ident($raw:ident) $s:ident $n:literal, $load:ident $store:ident $splat:ident $mul:ident $add:ident $sub:ident $zero:ident;)*) => { $(
        #[derive(Clone, Copy)]
        struct $v($raw);
        impl Lane for $v {
            type S = $s;
            const N: usize = $n;
            #[inline(always)]
            unsafe fn load(p: *const $s) -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $load(p.cast()) })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $s) {
                // SAFETY: stated by the trait.
                unsafe { $store(p.cast(), self.0) }
            }
            #[inline(always)]
            unsafe fn splat(x: *const $s) -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $splat(*x) })
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: $v, c: $v) -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $add($mul(self.0, b.0), c.0) })
            }
            #[inline(always)]
            unsafe fn mul_sub(self, b: $v, c: $v) -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $sub(c.0, $mul(self.0, b.0)) })
            }
            #[inline(always)]
            unsafe fn sum(self, b: $v) -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $add(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn zero() -> $v {
                // SAFETY: stated by the trait.
                $v(unsafe { $zero() })
            }
        }
    )* };
}
#[cfg(target_arch = "x86_64")]
x86_int_lanes! {
    Int32x16(__m512i) i32 16, _mm512_loadu_si512 _mm512_storeu_si512 _mm512_set1_epi32 _mm512_mullo_epi32 _mm512_add_epi32 _mm512_sub_epi32 _mm512_setzero_si512;
    Int64x8(__m512i) i64 8, _mm512_loadu_si512 _mm512_storeu_si512 _mm512_set1_epi64 _mm512_mullo_epi64 _mm512_add_epi64 _mm512_sub_epi64 _mm512_setzero_si512;
    Int32x8(__m256i) i32 8, _mm256_loadu_si256 _mm256_storeu_si256 _mm256_set1_epi32 _mm256_mullo_epi32 _mm256_add_epi32 _mm256_sub_epi32 _mm256_setzero_si256;
}

/// A vector the compiler maps to what the instruction set has.
#[derive(Clone, Copy)]
struct Plain<T, const N: usize>([T; N]);

macro_rules! plain_lanes {
    ($($t:ident $add:expr, $sub:expr, $mul:expr;)*) => { $(
        impl<const N: usize> Lane for Plain<$t, N> {
            type S = $t;
            const N: usize = N;
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self {
                // SAFETY: stated by the trait.
                Plain(unsafe { p.cast::<[$t; N]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t) {
                // SAFETY: stated by the trait.
                unsafe { p.cast::<[$t; N]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn splat(x: *const $t) -> Self {
                // SAFETY: stated by the trait.
                Plain([unsafe { *x }; N])
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                Plain(core::array::from_fn(|i| $add(c.0[i], $mul(self.0[i], b.0[i]))))
            }
            #[inline(always)]
            unsafe fn mul_sub(self, b: Self, c: Self) -> Self {
                Plain(core::array::from_fn(|i| $sub(c.0[i], $mul(self.0[i], b.0[i]))))
            }
            #[inline(always)]
            unsafe fn sum(self, b: Self) -> Self {
                Plain(core::array::from_fn(|i| $add(self.0[i], b.0[i])))
            }
            #[inline(always)]
            unsafe fn zero() -> Self {
                Plain([0 as $t; N])
            }
        }
    )* };
}
plain_lanes! {
    f32 |a, b| a + b, |a, b| a - b, |a, b| a * b;
    f64 |a, b| a + b, |a, b| a - b, |a, b| a * b;
    i32 i32::wrapping_add, i32::wrapping_sub, i32::wrapping_mul;
    i64 i64::wrapping_add, i64::wrapping_sub, i64::wrapping_mul;
}

/// Computes (or adds to) one tile: `acc[j][i] = Σ_p a[p][i]·b[p][j]`, stored column by column.
///
/// Complex numbers are split in panels and tile: per depth (or column) all real parts, then all imaginary ones.
///
/// # Safety
/// `a` and `b` address `depth` steps of packed panels, `acc` a whole tile; the processor has the tile's instruction set.
pub type TileFn = unsafe fn(depth: usize, a: *const u8, b: *const u8, acc: *mut u8, add: bool);

/// A tile kernel.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Rows.
    pub mr: usize,
    /// Columns.
    pub nr: usize,
    /// The kernel.
    pub run: TileFn,
}

/// What products are accumulated in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// f32.
    Single,
    /// f64.
    Double,
    /// Complex of f32.
    ComplexSingle,
    /// Complex of f64.
    ComplexDouble,
    /// Wrapping i32.
    Int32,
    /// Wrapping i64.
    Int64,
}

impl Domain {
    /// Bytes of one real part.
    pub fn part_bytes(self) -> usize {
        if matches!(self, Domain::Single | Domain::ComplexSingle | Domain::Int32) { 4 } else { 8 }
    }
    /// Real parts per element.
    pub fn parts(self) -> usize {
        if matches!(self, Domain::ComplexSingle | Domain::ComplexDouble) { 2 } else { 1 }
    }
    /// The kernel for an instruction set.
    pub fn tile(self, isa: Isa) -> Tile {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => v4::tile(self),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => v3::tile(self),
            _ => base::tile(self),
        }
    }
}

#[inline(always)]
unsafe fn real<V: Lane, const MV: usize, const NR: usize>(depth: usize, a: *const u8, b: *const u8, acc: *mut u8, add: bool) {
    let (mut a, mut b, acc) = (a.cast::<V::S>(), b.cast::<V::S>(), acc.cast::<V::S>());
    let place = |j: usize, i: usize| acc.wrapping_add((j * MV + i) * V::N);
    // SAFETY: panels hold `depth` steps of MV·N and NR elements, the tile MV·N·NR; stated by `TileFn`.
    unsafe {
        let mut sum = [[V::zero(); MV]; NR];
        for _ in 0..depth {
            let left: [V; MV] = core::array::from_fn(|i| V::load(a.add(i * V::N)));
            for (j, column) in sum.iter_mut().enumerate() {
                let right = V::splat(b.add(j));
                for (s, l) in column.iter_mut().zip(left) {
                    *s = l.mul_add(right, *s);
                }
            }
            a = a.add(MV * V::N);
            b = b.add(NR);
        }
        if add {
            for (j, column) in sum.iter_mut().enumerate() {
                for (i, s) in column.iter_mut().enumerate() {
                    *s = V::load(place(j, i)).sum(*s);
                }
            }
        }
        for (j, column) in sum.iter().enumerate() {
            for (i, s) in column.iter().enumerate() {
                s.store(place(j, i));
            }
        }
    }
}

#[inline(always)]
unsafe fn complex<V: Lane, const MV: usize, const NR: usize>(depth: usize, a: *const u8, b: *const u8, acc: *mut u8, add: bool) {
    let (mut a, mut b, acc) = (a.cast::<V::S>(), b.cast::<V::S>(), acc.cast::<V::S>());
    let place = |j: usize, part: usize, i: usize| acc.wrapping_add(((j * 2 + part) * MV + i) * V::N);
    // SAFETY: panels hold `depth` steps of 2·MV·N and 2·NR elements, the tile 2·MV·N·NR; stated by `TileFn`.
    unsafe {
        let mut re = [[V::zero(); MV]; NR];
        let mut im = [[V::zero(); MV]; NR];
        for _ in 0..depth {
            let left_re: [V; MV] = core::array::from_fn(|i| V::load(a.add(i * V::N)));
            let left_im: [V; MV] = core::array::from_fn(|i| V::load(a.add((MV + i) * V::N)));
            for j in 0..NR {
                let (right_re, right_im) = (V::splat(b.add(j)), V::splat(b.add(NR + j)));
                for i in 0..MV {
                    re[j][i] = left_im[i].mul_sub(right_im, left_re[i].mul_add(right_re, re[j][i]));
                    im[j][i] = left_im[i].mul_add(right_re, left_re[i].mul_add(right_im, im[j][i]));
                }
            }
            a = a.add(2 * MV * V::N);
            b = b.add(2 * NR);
        }
        for j in 0..NR {
            for i in 0..MV {
                if add {
                    re[j][i] = V::load(place(j, 0, i)).sum(re[j][i]);
                    im[j][i] = V::load(place(j, 1, i)).sum(im[j][i]);
                }
                re[j][i].store(place(j, 0, i));
                im[j][i].store(place(j, 1, i));
            }
        }
    }
}

macro_rules! tiles {
    ($(#[$meta:meta])* $isa:ident $features:literal, $($domain:ident $body:ident $v:ty, $mv:literal $nr:literal;)*) => {
        $(#[$meta])*
        mod $isa {
            use super::*;

            pub fn tile(domain: Domain) -> Tile {
                match domain {
                    $( Domain::$domain => {
                        #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
                        unsafe fn run(depth: usize, a: *const u8, b: *const u8, acc: *mut u8, add: bool) {
                            // SAFETY: stated by the caller.
                            unsafe { $body::<$v, $mv, $nr>(depth, a, b, acc, add) }
                        }
                        Tile { mr: $mv * <$v as Lane>::N, nr: $nr, run }
                    } )*
                }
            }
        }
    };
}
tiles! {
    #[cfg(target_arch = "x86_64")]
    v4 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    Single real __m512, 2 12;
    Double real __m512d, 2 12;
    ComplexSingle complex __m512, 2 6;
    ComplexDouble complex __m512d, 2 6;
    Int32 real Int32x16, 2 12;
    Int64 real Int64x8, 2 12;
}
tiles! {
    #[cfg(target_arch = "x86_64")]
    v3 "avx2,fma",
    Single real __m256, 2 6;
    Double real __m256d, 2 6;
    ComplexSingle complex __m256, 1 6;
    ComplexDouble complex __m256d, 1 6;
    Int32 real Int32x8, 2 6;
    Int64 real Plain<i64, 4>, 2 4;
}
tiles! {
    base "sse2",
    Single real Plain<f32, 4>, 2 4;
    Double real Plain<f64, 2>, 2 4;
    ComplexSingle complex Plain<f32, 4>, 1 4;
    ComplexDouble complex Plain<f64, 2>, 1 4;
    Int32 real Plain<i32, 4>, 2 4;
    Int64 real Plain<i64, 2>, 2 4;
}
