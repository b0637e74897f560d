//! Integer and bool lanes: wrapping arithmetic that compiles to SIMD code.

use core::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Not, Shl, Shr, Sub};

use flagos_catalog::{Arith, Bits};

use crate::lanes::{Lane, Truth};

/// Integer elements.
pub trait Whole: Copy + Default + Ord + 'static {
    /// The value, modulo 2ⁿ.
    fn wrap(value: i64) -> Self;
    /// -1, 0 or 1 as `value` lies below, within or above the type.
    fn side(value: i64) -> i8;
    /// Wrapping operations.
    fn add(self, b: Self) -> Self;
    /// See `add`.
    fn sub(self, b: Self) -> Self;
    /// See `add`.
    fn mul(self, b: Self) -> Self;
    /// See `add`.
    fn shl(self, b: Self) -> Self;
    /// See `add`; sign-extending for signed types.
    fn shr(self, b: Self) -> Self;
    /// Quotient rounded toward zero for b ≠ 0; least / -1 gives least.
    fn quotient(self, b: Self) -> Self;
}

macro_rules! whole {
    ($($t:ident $quotient:expr),*) => {$(
        impl Whole for $t {
            #[inline(always)]
            fn wrap(value: i64) -> $t {
                value as $t
            }
            #[inline(always)]
            fn side(value: i64) -> i8 {
                i8::from(i128::from(value) > i128::from($t::MAX)) - i8::from(i128::from(value) < i128::from($t::MIN))
            }
            #[inline(always)]
            fn add(self, b: $t) -> $t {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn sub(self, b: $t) -> $t {
                self.wrapping_sub(b)
            }
            #[inline(always)]
            fn mul(self, b: $t) -> $t {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn shl(self, b: $t) -> $t {
                self.wrapping_shl(b as u32)
            }
            #[inline(always)]
            fn shr(self, b: $t) -> $t {
                self.wrapping_shr(b as u32)
            }
            #[inline(always)]
            fn quotient(self, b: $t) -> $t {
                let divide: fn($t, $t) -> $t = $quotient;
                divide(self, b)
            }
        }
    )*};
}
// A float twice as wide divides exactly: a/b differs from a whole number by at least 1/b.
whole!(
    i8 |a, b| (f32::from(a) / f32::from(b)) as i32 as i8,
    u8 |a, b| (f32::from(a) / f32::from(b)) as i32 as u8,
    i16 |a, b| (f32::from(a) / f32::from(b)) as i32 as i16,
    i32 |a, b| (f64::from(a) / f64::from(b)) as i64 as i32,
    i64 i64::wrapping_div
);

/// An integer lane. `over` is -1 or 1 for a constant below or above the type's range, so that comparisons with it are right.
#[derive(Clone, Copy)]
pub struct Int<T> {
    v: T,
    over: i8,
}

impl<T: Whole> Int<T> {
    #[inline(always)]
    fn of(v: T) -> Int<T> {
        Int { v, over: 0 }
    }
    #[inline(always)]
    fn truth(is: bool) -> Truth {
        Truth { is, hard: false }
    }
    /// (quotient toward zero, remainder); (0, 0) for b = 0.
    #[inline(always)]
    fn divide(self, b: Self) -> (T, T) {
        let zero = T::default();
        let by = if b.v == zero { T::wrap(1) } else { b.v };
        let q = self.v.quotient(by);
        let r = self.v.sub(q.mul(by));
        if b.v == zero { (zero, zero) } else { (q, r) }
    }
    /// Whether a remainder has another sign than its divisor.
    #[inline(always)]
    fn astray(r: T, b: T) -> bool {
        let zero = T::default();
        r != zero && (r < zero) != (b < zero)
    }
}

impl<T: Whole> Lane for Int<T> {
    type Item = T;
    #[inline(always)]
    fn load(v: T) -> Int<T> {
        Int::of(v)
    }
    #[inline(always)]
    fn item(self) -> T {
        self.v
    }
    #[inline(always)]
    fn hard(self) -> bool {
        false
    }
}

macro_rules! int_ops {
    ($($op:ident $f:ident),*) => {$(
        impl<T: Whole> $op for Int<T> {
            type Output = Int<T>;
            #[inline(always)]
            fn $f(self, b: Int<T>) -> Int<T> {
                Int::of(self.v.$f(b.v))
            }
        }
    )*};
}
int_ops!(Add add, Sub sub, Mul mul);
impl<T: Whole> Neg for Int<T> {
    type Output = Int<T>;
    #[inline(always)]
    fn neg(self) -> Int<T> {
        Int::of(T::default().sub(self.v))
    }
}

impl<T: Whole> Arith for Int<T> {
    type Mask = Truth;
    const FLOAT: bool = false;
    #[inline(always)]
    fn int(value: i64) -> Int<T> {
        Int { v: T::wrap(value), over: T::side(value) }
    }
    #[inline(always)]
    fn number(_: f64, value: i64) -> Int<T> {
        Arith::int(value)
    }
    #[inline(always)]
    fn lt(self, b: Int<T>) -> Truth {
        Int::<T>::truth(self.over < b.over || (self.over == b.over && self.v < b.v))
    }
    #[inline(always)]
    fn le(self, b: Int<T>) -> Truth {
        !b.lt(self)
    }
    #[inline(always)]
    fn gt(self, b: Int<T>) -> Truth {
        b.lt(self)
    }
    #[inline(always)]
    fn ge(self, b: Int<T>) -> Truth {
        !self.lt(b)
    }
    #[inline(always)]
    fn eq(self, b: Int<T>) -> Truth {
        Int::<T>::truth(self.over == b.over && self.v == b.v)
    }
    #[inline(always)]
    fn ne(self, b: Int<T>) -> Truth {
        !self.eq(b)
    }
    #[inline(always)]
    fn is_nan(self) -> Truth {
        Int::<T>::truth(false)
    }
    #[inline(always)]
    fn select(mask: Truth, a: Int<T>, b: Int<T>) -> Int<T> {
        Int { v: if mask.is { a.v } else { b.v }, over: if mask.is { a.over } else { b.over } }
    }
    #[inline(always)]
    fn abs(self) -> Int<T> {
        Int::of(if self.v < T::default() { T::default().sub(self.v) } else { self.v })
    }
    #[inline(always)]
    fn maximum(self, b: Int<T>) -> Int<T> {
        Int::select(self.gt(b), self, b)
    }
    #[inline(always)]
    fn minimum(self, b: Int<T>) -> Int<T> {
        Int::select(self.lt(b), self, b)
    }
    #[inline(always)]
    fn div_trunc(self, b: Int<T>) -> Int<T> {
        Int::of(self.divide(b).0)
    }
    #[inline(always)]
    fn div_floor(self, b: Int<T>) -> Int<T> {
        let (q, r) = self.divide(b);
        Int::of(if Int::astray(r, b.v) { q.sub(T::wrap(1)) } else { q })
    }
    #[inline(always)]
    fn remainder(self, b: Int<T>) -> Int<T> {
        let (_, r) = self.divide(b);
        Int::of(if Int::astray(r, b.v) { r.add(b.v) } else { r })
    }
    #[inline(always)]
    fn fmod(self, b: Int<T>) -> Int<T> {
        Int::of(self.divide(b).1)
    }
}

/// A lane of bit patterns: integers and, with `BOOL`, truth values of one byte, whose complement is the logical one.
#[derive(Clone, Copy)]
pub struct Pattern<T, const BOOL: bool>(T);

impl<T: Whole, const BOOL: bool> Lane for Pattern<T, BOOL> {
    type Item = T;
    #[inline(always)]
    fn load(v: T) -> Self {
        Pattern(v)
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

macro_rules! pattern_ops {
    ($($op:ident $f:ident $sign:tt),*) => {$(
        impl<T: Whole + $op<Output = T>, const BOOL: bool> $op for Pattern<T, BOOL> {
            type Output = Self;
            #[inline(always)]
            fn $f(self, b: Self) -> Self {
                Pattern(self.0 $sign b.0)
            }
        }
    )*};
}
pattern_ops!(BitAnd bitand &, BitOr bitor |, BitXor bitxor ^);
impl<T: Whole + BitXor<Output = T>, const BOOL: bool> Not for Pattern<T, BOOL> {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Pattern(self.0 ^ T::wrap(if BOOL { 1 } else { -1 }))
    }
}
impl<T: Whole, const BOOL: bool> Shl for Pattern<T, BOOL> {
    type Output = Self;
    #[inline(always)]
    fn shl(self, b: Self) -> Self {
        Pattern(self.0.shl(b.0))
    }
}
impl<T: Whole, const BOOL: bool> Shr for Pattern<T, BOOL> {
    type Output = Self;
    #[inline(always)]
    fn shr(self, b: Self) -> Self {
        Pattern(self.0.shr(b.0))
    }
}
impl<T: Whole + BitAnd<Output = T> + BitOr<Output = T> + BitXor<Output = T>, const BOOL: bool> Bits for Pattern<T, BOOL> {}
