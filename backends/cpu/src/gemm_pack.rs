//! Packing of matrix operands into panels, and storing of result tiles, by element type.

use flagos_backend_api::DType;
use half::{bf16, f16};
use num_complex::Complex;

use crate::element::Element;
use crate::gemm_tile::Domain;
use crate::target::Isa;
use crate::vectorize::vectorize;

/// A factor in the compute type of any domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
    /// The value of integer domains.
    pub int: i64,
}

impl Factor {
    /// 1.
    pub const ONE: Factor = Factor { re: 1.0, im: 0.0, int: 1 };
    /// 0.
    pub const ZERO: Factor = Factor { re: 0.0, im: 0.0, int: 0 };
    /// A real number; integer domains take it truncated.
    pub fn real(x: f64) -> Factor {
        Factor { re: x, im: 0.0, int: x as i64 }
    }
}

/// An operand's element: `parts` reals of the accumulating type.
pub trait Operand: Copy + Send + Sync + 'static {
    /// One part.
    type Part: Copy + Send + Sync + 'static;
    /// The sum of products.
    type Sum: Copy;
    /// 1, or 2 for complex.
    const PARTS: usize;
    /// 0.
    const ZERO: Self::Part;
    /// Where products of it are accumulated.
    const DOMAIN: Domain;
    /// Part `i`; the imaginary one negated when `conj`.
    fn part(self, i: usize, conj: bool) -> Self::Part;
    /// Puts the parts of a sum together.
    fn join(re: Self::Part, im: Self::Part) -> Self::Sum;
    /// The parts of a sum; the second counts for complex ones only.
    fn split(sum: Self::Sum) -> (Self::Part, Self::Part);
    /// The factor's value.
    fn factor(f: Factor) -> Self::Sum;
    /// a·b.
    fn times(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// a + b.
    fn plus(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// a / b; integers truncate, and give 0 for b = 0.
    fn over(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// As a sum.
    fn read(self) -> Self::Sum;
    /// Rounded once.
    fn write(sum: Self::Sum) -> Self;
}

macro_rules! operands {
    ($($t:ident $part:ident $domain:ident, $factor:expr, $read:expr, $write:expr, $add:expr, $mul:expr, $div:expr;)*) => { $(
        impl Operand for $t {
            type Part = $part;
            type Sum = $part;
            const PARTS: usize = 1;
            const ZERO: $part = 0 as $part;
            const DOMAIN: Domain = Domain::$domain;
            #[inline(always)]
            fn part(self, _: usize, _: bool) -> $part {
                $read(self)
            }
            #[inline(always)]
            fn join(re: $part, _: $part) -> $part {
                re
            }
            #[inline(always)]
            fn split(sum: $part) -> ($part, $part) {
                (sum, sum)
            }
            #[inline(always)]
            fn factor(f: Factor) -> $part {
                $factor(f)
            }
            #[inline(always)]
            fn times(a: $part, b: $part) -> $part {
                $mul(a, b)
            }
            #[inline(always)]
            fn plus(a: $part, b: $part) -> $part {
                $add(a, b)
            }
            #[inline(always)]
            fn over(a: $part, b: $part) -> $part {
                $div(a, b)
            }
            #[inline(always)]
            fn read(self) -> $part {
                $read(self)
            }
            #[inline(always)]
            fn write(sum: $part) -> $t {
                $write(sum)
            }
        }
    )* };
}
operands! {
    f32 f32 Single, |f: Factor| f.re as f32, |x| x, |x| x, |a, b| a + b, |a, b| a * b, |a, b| a / b;
    f16 f32 Single, |f: Factor| f.re as f32, Element::widen, Element::narrow, |a, b| a + b, |a, b| a * b, |a, b| a / b;
    bf16 f32 Single, |f: Factor| f.re as f32, Element::widen, Element::narrow, |a, b| a + b, |a, b| a * b, |a, b| a / b;
    f64 f64 Double, |f: Factor| f.re, |x| x, |x| x, |a, b| a + b, |a, b| a * b, |a, b| a / b;
    i8 i32 Int32, |f: Factor| f.int as i32, i32::from, |x| x as i8, i32::wrapping_add, i32::wrapping_mul, |a: i32, b| a.checked_div(b).unwrap_or(0);
    u8 i32 Int32, |f: Factor| f.int as i32, i32::from, |x| x as u8, i32::wrapping_add, i32::wrapping_mul, |a: i32, b| a.checked_div(b).unwrap_or(0);
    i16 i32 Int32, |f: Factor| f.int as i32, i32::from, |x| x as i16, i32::wrapping_add, i32::wrapping_mul, |a: i32, b| a.checked_div(b).unwrap_or(0);
    i32 i32 Int32, |f: Factor| f.int as i32, |x| x, |x| x, i32::wrapping_add, i32::wrapping_mul, |a: i32, b| a.checked_div(b).unwrap_or(0);
    i64 i64 Int64, |f: Factor| f.int, |x| x, |x| x, i64::wrapping_add, i64::wrapping_mul, |a: i64, b| a.checked_div(b).unwrap_or(0);
}

macro_rules! complex_operands {
    ($($part:ident $domain:ident;)*) => { $(
        impl Operand for Complex<$part> {
            type Part = $part;
            type Sum = Complex<$part>;
            const PARTS: usize = 2;
            const ZERO: $part = 0.0;
            const DOMAIN: Domain = Domain::$domain;
            #[inline(always)]
            fn part(self, i: usize, conj: bool) -> $part {
                if i == 0 { self.re } else if conj { -self.im } else { self.im }
            }
            #[inline(always)]
            fn join(re: $part, im: $part) -> Self {
                Complex { re, im }
            }
            #[inline(always)]
            fn split(sum: Self) -> ($part, $part) {
                (sum.re, sum.im)
            }
            #[inline(always)]
            fn factor(f: Factor) -> Self {
                Complex { re: f.re as $part, im: f.im as $part }
            }
            #[inline(always)]
            fn times(a: Self, b: Self) -> Self {
                Complex { re: a.re * b.re - a.im * b.im, im: a.re * b.im + a.im * b.re }
            }
            #[inline(always)]
            fn plus(a: Self, b: Self) -> Self {
                Complex { re: a.re + b.re, im: a.im + b.im }
            }
            #[inline(always)]
            fn over(a: Self, b: Self) -> Self {
                // Smith (1962): no overflow unless the result is near it.
                if b.re.abs() >= b.im.abs() {
                    let r = b.im / b.re;
                    let d = b.re + b.im * r;
                    Complex { re: (a.re + a.im * r) / d, im: (a.im - a.re * r) / d }
                } else {
                    let r = b.re / b.im;
                    let d = b.re * r + b.im;
                    Complex { re: (a.re * r + a.im) / d, im: (a.im * r - a.re) / d }
                }
            }
            #[inline(always)]
            fn read(self) -> Self {
                self
            }
            #[inline(always)]
            fn write(sum: Self) -> Self {
                sum
            }
        }
    )* };
}
complex_operands! {
    f32 ComplexSingle;
    f64 ComplexDouble;
}

/// Packs a panel: for each of `depth` steps the `width` parts of a row (or column), zero beyond `rows`.
///
/// # Safety
/// Element (i, p) lies at `src + i·rs + p·cs` elements for i < rows, p < depth; `dst` takes depth·parts·width parts.
pub type PackFn = unsafe fn(isa: Isa, src: *const u8, rs: isize, cs: isize, rows: usize, depth: usize, conj: bool, width: usize, dst: *mut u8);

/// A tile on its way to memory.
#[derive(Clone, Copy)]
pub struct Store {
    /// The tile, columns of `mr`.
    pub acc: *const u8,
    /// Rows of the tile.
    pub mr: usize,
    /// Rows to store.
    pub rows: usize,
    /// Columns to store.
    pub cols: usize,
    /// Addend; NULL for none.
    pub addend: *const u8,
    /// Its strides in elements.
    pub addend_strides: (isize, isize),
    /// Destination.
    pub out: *mut u8,
    /// Its strides in elements.
    pub strides: (isize, isize),
    /// Factor of the tile.
    pub alpha: Factor,
    /// Factor of the addend.
    pub beta: Factor,
}

/// Stores alpha·tile + beta·addend.
///
/// # Safety
/// Every address of the description is valid for its strides and extents.
pub type StoreFn = unsafe fn(isa: Isa, store: &Store);

vectorize! {
    unsafe fn pack_panel[S: Operand][](src: *const u8, rs: isize, cs: isize, rows: usize, depth: usize, conj: bool, width: usize, dst: *mut u8) {
        let (src, dst) = (src.cast::<S>(), dst.cast::<S::Part>());
        let step = S::PARTS * width;
        // SAFETY: stated by `PackFn`.
        unsafe {
            if rs == 1 && rows == width {
                for p in 0..depth {
                    let (from, to) = (src.offset(p as isize * cs), dst.add(p * step));
                    for part in 0..S::PARTS {
                        for i in 0..width {
                            *to.add(part * width + i) = (*from.add(i)).part(part, conj);
                        }
                    }
                }
                return;
            }
            if rows < width {
                for p in 0..depth {
                    for part in 0..S::PARTS {
                        for i in rows..width {
                            *dst.add(p * step + part * width + i) = S::ZERO;
                        }
                    }
                }
            }
            if rs == 1 {
                for p in 0..depth {
                    let (from, to) = (src.offset(p as isize * cs), dst.add(p * step));
                    for part in 0..S::PARTS {
                        for i in 0..rows {
                            *to.add(part * width + i) = (*from.add(i)).part(part, conj);
                        }
                    }
                }
                return;
            }
            let mut p = 0;
            // Blocks of 16 steps by 4 rows use up each cache line they read: rows a power of 2 apart evict each other.
            while cs == 1 && p + 16 <= depth {
                let mut i = 0;
                while i + 4 <= rows {
                    let mut block = [[S::ZERO; 16]; 4];
                    for part in 0..S::PARTS {
                        for (r, row) in block.iter_mut().enumerate() {
                            let from = src.offset((i + r) as isize * rs).add(p);
                            for (q, x) in row.iter_mut().enumerate() {
                                *x = (*from.add(q)).part(part, conj);
                            }
                        }
                        for q in 0..16 {
                            let to = dst.add((p + q) * step + part * width + i);
                            for (r, row) in block.iter().enumerate() {
                                *to.add(r) = row[q];
                            }
                        }
                    }
                    i += 4;
                }
                for r in i..rows {
                    for q in p..p + 16 {
                        let x = *src.offset(r as isize * rs).add(q);
                        for part in 0..S::PARTS {
                            *dst.add(q * step + part * width + r) = x.part(part, conj);
                        }
                    }
                }
                p += 16;
            }
            for p in p..depth {
                for i in 0..rows {
                    let x = *src.offset(i as isize * rs + p as isize * cs);
                    for part in 0..S::PARTS {
                        *dst.add(p * step + part * width + i) = x.part(part, conj);
                    }
                }
            }
        }
    }

    unsafe fn store_tile[O: Operand][](store: &Store) {
        let plain = store.alpha == Factor::ONE && store.addend.is_null();
        // Contiguous stores with nothing to combine, contiguous ones, any: each loop vectorises on its own.
        // SAFETY: stated by `StoreFn`.
        unsafe {
            match (store.strides.0, store.addend_strides.0) {
                (1, _) if plain => store_columns::<O>(store, |acc, _| acc, 1, 0),
                (1, _) if store.addend.is_null() => store_columns::<O>(store, |acc, _| O::times(O::factor(store.alpha), acc), 1, 0),
                (1, 1) => store_columns::<O>(store, combine::<O>(store), 1, 1),
                (rs, _) if store.addend.is_null() => store_columns::<O>(store, |acc, _| O::times(O::factor(store.alpha), acc), rs, 0),
                (rs, addend) => store_columns::<O>(store, combine::<O>(store), rs, addend),
            }
        }
    }
}

#[inline(always)]
fn combine<O: Operand>(store: &Store) -> impl Fn(O::Sum, O::Sum) -> O::Sum {
    let (alpha, beta) = (O::factor(store.alpha), O::factor(store.beta));
    move |acc, addend| O::plus(O::times(alpha, acc), O::times(beta, addend))
}

#[inline(always)]
unsafe fn store_columns<O: Operand>(store: &Store, f: impl Fn(O::Sum, O::Sum) -> O::Sum, rs: isize, addend_rs: isize) {
    let (acc, mr) = (store.acc.cast::<O::Part>(), store.mr);
    let (out, addend) = (store.out.cast::<O>(), store.addend.cast::<O>());
    // SAFETY: stated by `StoreFn`; an absent addend is not read.
    unsafe {
        for j in 0..store.cols {
            let tile = acc.add(j * O::PARTS * mr);
            let to = out.offset(j as isize * store.strides.1);
            let from = addend.wrapping_offset(j as isize * store.addend_strides.1);
            for i in 0..store.rows {
                let sum = O::join(*tile.add(i), *tile.add((O::PARTS - 1) * mr + i));
                let add = if addend.is_null() { sum } else { (*from.offset(i as isize * addend_rs)).read() };
                *to.offset(i as isize * rs) = O::write(f(sum, add));
            }
        }
    }
}

/// The entry of a list of types that has a descriptor.
macro_rules! by_type {
    ($dtype:expr, $of:ident: $($name:ident $t:ty),*) => {{
        let dtype = $dtype;
        $( if dtype == DType::$name { return Some($of::<$t>()); } )*
        None
    }};
    ($dtype:expr, $of:ident) => {
        $crate::gemm_pack::by_type!($dtype, $of: F32 f32, F64 f64, F16 f16, BF16 bf16, C64 Complex<f32>, C128 Complex<f64>, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8)
    };
}

pub(crate) use by_type;

/// How operands of a type are packed: its domain and packer.
pub fn input(dtype: DType) -> Option<(Domain, PackFn)> {
    fn of<S: Operand>() -> (Domain, PackFn) {
        (S::DOMAIN, pack_panel::<S>)
    }
    by_type!(dtype, of)
}

/// How results of a type are stored: the domain they come from and the storer.
pub fn output(dtype: DType) -> Option<(Domain, StoreFn)> {
    fn of<O: Operand>() -> (Domain, StoreFn) {
        (O::DOMAIN, store_tile::<O>)
    }
    by_type!(dtype, of)
}
