//! Folds: what a reduction does to an element, compiled into passes over dense elements for each instruction set.

use core::marker::PhantomData;

use crate::convert::{Brain, Element, Half};
use crate::kind::Kind;
use crate::target::Isa;

/// Accumulators a run of elements is spread over.
pub const LANES: usize = 32;

/// A reduction of elements to an accumulator.
pub trait Fold: 'static {
    /// An element as it lies in a dense block.
    type Item: Copy;
    /// The accumulator.
    type Acc: Copy;
    /// The fold of nothing.
    const EMPTY: Self::Acc;
    /// Takes an element in.
    fn take(acc: Self::Acc, x: Self::Item) -> Self::Acc;
    /// Folds of two parts to the fold of both.
    fn join(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    /// The result for `count` elements.
    fn finish(acc: Self::Acc, count: usize) -> Value;
}

/// A result on its way to the output's type.
#[derive(Clone, Copy)]
pub enum Value {
    /// Of floats.
    Float(f64),
    /// Of integers and truth values.
    Int(i64),
}

impl Value {
    /// Writes the value as an element.
    ///
    /// # Safety
    /// `at` addresses an element of the kind.
    #[inline(always)]
    pub unsafe fn store(self, kind: Kind, at: *mut u8) {
        /// # Safety
        /// `at` addresses a `T`.
        #[inline(always)]
        unsafe fn put<T: Element>(value: Value, at: *mut u8) {
            let element = match value {
                Value::Float(v) => T::from_f64(v),
                Value::Int(v) => T::from_i64(v),
            };
            // SAFETY: stated by the caller.
            unsafe { at.cast::<T>().write_unaligned(element) }
        }
        // SAFETY: stated by the caller.
        unsafe {
            match kind {
                Kind::Bool | Kind::U8 => put::<u8>(self, at),
                Kind::I8 => put::<i8>(self, at),
                Kind::I16 => put::<i16>(self, at),
                Kind::I32 => put::<i32>(self, at),
                Kind::I64 => put::<i64>(self, at),
                Kind::F16 => put::<Half>(self, at),
                Kind::BF16 => put::<Brain>(self, at),
                Kind::F32 => put::<f32>(self, at),
                Kind::F64 => put::<f64>(self, at),
            }
        }
    }
}

/// Takes `n` dense elements into accumulators.
type PassFn = unsafe fn(x: *const u8, n: usize, acc: *mut u8);

/// A fold with its types erased. Accumulators are passed by address, 8-byte aligned.
#[derive(Clone, Copy)]
pub struct Passes {
    /// Bytes of an accumulator.
    pub acc: usize,
    /// Empties `n` accumulators.
    pub clear: unsafe fn(acc: *mut u8, n: usize),
    /// Takes element i of `n` into accumulator i.
    pub columns: PassFn,
    /// Takes `n` elements into [`LANES`] accumulators.
    pub run: PassFn,
    /// Joins `n` accumulators of `from`, each into the one of `acc` in its place.
    pub join: unsafe fn(acc: *mut u8, from: *const u8, n: usize),
    /// Joins `n` accumulators into the first, in a fixed order.
    pub gather: unsafe fn(acc: *mut u8, n: usize),
    /// Writes the results of `n` accumulators of `count` elements each, `stride` bytes apart.
    pub store: unsafe fn(acc: *const u8, n: usize, count: usize, kind: Kind, y: *mut u8, stride: isize),
}

impl Passes {
    /// The passes of a fold.
    pub fn of<F: Fold>(isa: Isa) -> Passes {
        let (columns, run): (PassFn, PassFn) = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (avx512::<F, false>, avx512::<F, true>),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (avx2::<F, false>, avx2::<F, true>),
            _ => (baseline::<F, false>, baseline::<F, true>),
        };
        Passes { acc: size_of::<F::Acc>(), clear: clear::<F>, columns, run, join: join::<F>, gather: gather::<F>, store: store::<F> }
    }
}

/// # Safety
/// As [`Passes::columns`], or with `RUN` as [`Passes::run`].
unsafe fn baseline<F: Fold, const RUN: bool>(x: *const u8, n: usize, acc: *mut u8) {
    // SAFETY: passed on.
    unsafe { pass::<F, RUN>(x, n, acc) }
}

/// # Safety
/// As `baseline`, on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<F: Fold, const RUN: bool>(x: *const u8, n: usize, acc: *mut u8) {
    // SAFETY: passed on.
    unsafe { pass::<F, RUN>(x, n, acc) }
}

/// # Safety
/// As `baseline`, on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512<F: Fold, const RUN: bool>(x: *const u8, n: usize, acc: *mut u8) {
    // SAFETY: passed on.
    unsafe { pass::<F, RUN>(x, n, acc) }
}

/// # Safety
/// As `baseline`.
#[inline(always)]
unsafe fn pass<F: Fold, const RUN: bool>(x: *const u8, n: usize, acc: *mut u8) {
    let (x, acc) = (x.cast::<F::Item>(), acc.cast::<F::Acc>());
    let whole = n / LANES * LANES;
    // SAFETY: stated by the caller.
    unsafe {
        if RUN {
            let mut lanes = acc.cast::<[F::Acc; LANES]>().read();
            for i in (0..whole).step_by(LANES) {
                for (k, lane) in lanes.iter_mut().enumerate() {
                    *lane = F::take(*lane, x.add(i + k).read_unaligned());
                }
            }
            for i in whole..n {
                lanes[i - whole] = F::take(lanes[i - whole], x.add(i).read_unaligned());
            }
            acc.cast::<[F::Acc; LANES]>().write(lanes);
        } else {
            for i in (0..whole).step_by(LANES) {
                let mut lanes = acc.add(i).cast::<[F::Acc; LANES]>().read();
                for (k, lane) in lanes.iter_mut().enumerate() {
                    *lane = F::take(*lane, x.add(i + k).read_unaligned());
                }
                acc.add(i).cast::<[F::Acc; LANES]>().write(lanes);
            }
            for i in whole..n {
                *acc.add(i) = F::take(*acc.add(i), x.add(i).read_unaligned());
            }
        }
    }
}

/// # Safety
/// As [`Passes::clear`].
unsafe fn clear<F: Fold>(acc: *mut u8, n: usize) {
    // SAFETY: stated by the caller.
    (0..n).for_each(|i| unsafe { acc.cast::<F::Acc>().add(i).write(F::EMPTY) });
}

/// # Safety
/// As [`Passes::join`].
unsafe fn join<F: Fold>(acc: *mut u8, from: *const u8, n: usize) {
    let (acc, from) = (acc.cast::<F::Acc>(), from.cast::<F::Acc>());
    // SAFETY: stated by the caller.
    (0..n).for_each(|i| unsafe { *acc.add(i) = F::join(*acc.add(i), *from.add(i)) });
}

/// # Safety
/// As [`Passes::gather`].
unsafe fn gather<F: Fold>(acc: *mut u8, n: usize) {
    let acc = acc.cast::<F::Acc>();
    let mut n = n;
    // SAFETY: stated by the caller.
    unsafe {
        while n > 1 {
            let half = n.div_ceil(2);
            (half..n).for_each(|i| *acc.add(i - half) = F::join(*acc.add(i - half), *acc.add(i)));
            n = half;
        }
    }
}

/// # Safety
/// As [`Passes::store`].
unsafe fn store<F: Fold>(acc: *const u8, n: usize, count: usize, kind: Kind, y: *mut u8, stride: isize) {
    for i in 0..n {
        // SAFETY: stated by the caller.
        unsafe { F::finish(*acc.cast::<F::Acc>().add(i), count).store(kind, y.wrapping_offset(i as isize * stride)) };
    }
}

/// An element of a fold and what it counts as.
pub trait Item: Copy + PartialOrd + Send + Sync + 'static {
    /// Sums and products are formed in this: f64, or i64 for integers.
    type Wide: Wide;
    /// The least value, and with `GREATEST` the greatest: what extremes start from.
    const EXTREMES: (Self, Self);
    /// In the wide type.
    fn wide(self) -> Self::Wide;
    /// Not a number.
    fn is_nan(self) -> bool;
    /// Not 0.
    fn truth(self) -> bool;
}

/// An accumulator of sums and products.
pub trait Wide: Copy + 'static {
    /// 0 and 1.
    const UNITS: (Self, Self);
    /// Sum; integers wrap.
    fn plus(self, b: Self) -> Self;
    /// Product; integers wrap.
    fn times(self, b: Self) -> Self;
    /// As a result.
    fn value(self) -> Value;
}

impl Wide for f64 {
    const UNITS: (f64, f64) = (0.0, 1.0);
    #[inline(always)]
    fn plus(self, b: f64) -> f64 {
        self + b
    }
    #[inline(always)]
    fn times(self, b: f64) -> f64 {
        self * b
    }
    #[inline(always)]
    fn value(self) -> Value {
        Value::Float(self)
    }
}

impl Wide for i64 {
    const UNITS: (i64, i64) = (0, 1);
    #[inline(always)]
    fn plus(self, b: i64) -> i64 {
        self.wrapping_add(b)
    }
    #[inline(always)]
    fn times(self, b: i64) -> i64 {
        self.wrapping_mul(b)
    }
    #[inline(always)]
    fn value(self) -> Value {
        Value::Int(self)
    }
}

macro_rules! items {
    ($($t:ident $wide:ident $low:expr, $high:expr, $nan:expr);*) => {$(
        impl Item for $t {
            type Wide = $wide;
            const EXTREMES: ($t, $t) = ($low, $high);
            #[inline(always)]
            fn wide(self) -> $wide {
                self.into()
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                let nan: fn($t) -> bool = $nan;
                nan(self)
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self != $t::default()
            }
        }
    )*};
}
items!(
    f32 f64 f32::NEG_INFINITY, f32::INFINITY, f32::is_nan;
    f64 f64 f64::NEG_INFINITY, f64::INFINITY, f64::is_nan;
    i8 i64 i8::MIN, i8::MAX, |_| false;
    i16 i64 i16::MIN, i16::MAX, |_| false;
    i32 i64 i32::MIN, i32::MAX, |_| false;
    i64 i64 i64::MIN, i64::MAX, |_| false;
    u8 i64 u8::MIN, u8::MAX, |_| false
);

/// Sum, or with `MEAN` the sum divided by the count.
pub struct Sum<T, const MEAN: bool>(PhantomData<T>);
impl<T: Item, const MEAN: bool> Fold for Sum<T, MEAN> {
    type Item = T;
    type Acc = T::Wide;
    const EMPTY: T::Wide = T::Wide::UNITS.0;
    #[inline(always)]
    fn take(acc: T::Wide, x: T) -> T::Wide {
        acc.plus(x.wide())
    }
    #[inline(always)]
    fn join(a: T::Wide, b: T::Wide) -> T::Wide {
        a.plus(b)
    }
    fn finish(acc: T::Wide, count: usize) -> Value {
        match acc.value() {
            Value::Float(v) if MEAN => Value::Float(v / count as f64),
            value => value,
        }
    }
}

/// Product.
pub struct Product<T>(PhantomData<T>);
impl<T: Item> Fold for Product<T> {
    type Item = T;
    type Acc = T::Wide;
    const EMPTY: T::Wide = T::Wide::UNITS.1;
    #[inline(always)]
    fn take(acc: T::Wide, x: T) -> T::Wide {
        acc.times(x.wide())
    }
    #[inline(always)]
    fn join(a: T::Wide, b: T::Wide) -> T::Wide {
        a.times(b)
    }
    fn finish(acc: T::Wide, _: usize) -> Value {
        acc.value()
    }
}

/// The greatest or least element; NaN wins.
pub struct Extreme<T, const GREATEST: bool>(PhantomData<T>);
impl<T: Item, const GREATEST: bool> Fold for Extreme<T, GREATEST> {
    type Item = T;
    type Acc = T;
    const EMPTY: T = if GREATEST { T::EXTREMES.0 } else { T::EXTREMES.1 };
    #[inline(always)]
    fn take(acc: T, x: T) -> T {
        // Written for one instruction: acc > x ? acc : x gives x where acc is NaN, so a NaN has to be put back.
        let best = if GREATEST { if acc > x { acc } else { x } } else if acc < x { acc } else { x };
        if acc.is_nan() { acc } else { best }
    }
    #[inline(always)]
    fn join(a: T, b: T) -> T {
        Self::take(a, b)
    }
    fn finish(acc: T, _: usize) -> Value {
        acc.wide().value()
    }
}

/// Whether an element, or with `ALL` every element, is not 0.
pub struct Truth<T, const ALL: bool>(PhantomData<T>);
impl<T: Item, const ALL: bool> Fold for Truth<T, ALL> {
    type Item = T;
    type Acc = u8;
    const EMPTY: u8 = ALL as u8;
    #[inline(always)]
    fn take(acc: u8, x: T) -> u8 {
        Self::join(acc, x.truth().into())
    }
    #[inline(always)]
    fn join(a: u8, b: u8) -> u8 {
        if ALL { a & b } else { a | b }
    }
    fn finish(acc: u8, _: usize) -> Value {
        Value::Int(acc.into())
    }
}
