//! sort and topk: keys that order as the catalogue says, tied to their places, so that any order of them is stable.

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, shape, sort};
use half::{bf16, f16};

use crate::axes::Axes;
use crate::element::{Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    sort::OPERATORS.iter().for_each(|o| registry.add(o, plan));
}

/// Length from which digits beat comparisons.
const LONG: usize = 1024;

struct Sort<T> {
    threads: usize,
    n: usize,
    keep: usize,
    descending: bool,
    /// Strides along the line: x, values, indices.
    step: [isize; 3],
    lines: Axes<3>,
    element: core::marker::PhantomData<T>,
}

// SAFETY: holds no addresses.
unsafe impl<T> Send for Sort<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Sort<T> {}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let dtype = call.inputs[0].dtype;
    with_element!(number dtype, T => plan_of::<T>(call, target), else Err(Error::unimplemented(format!("{} has no kernel for {dtype}", call.operator.name))))
}

fn plan_of<T: Keyed>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let (x, values, indices) = (&call.inputs[0], &call.outputs[0], &call.outputs[1]);
    let rank = x.rank as usize;
    let dim = shape::axis(call, call.attrs.int("dim"), rank)?;
    let select = call.operator.id == sort::TOPK.id;
    let (n, step) =
        if rank == 0 { (1, [0; 3]) } else { (x.shape[dim] as usize, [x, values, indices].map(|t| t.stride[dim] as isize)) };
    let others = |v: &[i64]| v.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, n)| *n).collect::<Vec<_>>();
    let lines = Axes::new(&others(x.shape()), [&others(x.stride()), &others(values.stride()), &others(indices.stride())]);
    if n as u64 > u64::from(u32::MAX) {
        return Err(Error::unimplemented(format!("{}: {n} elements along dim; at most {} are sorted here", call.operator.name, u32::MAX)));
    }
    Ok(Box::new(Sort::<T> {
        threads: target.threads.min(lines.count()).max(1),
        n,
        keep: if select { call.attrs.int("k") as usize } else { n },
        descending: call.attrs.boolean(if select { "largest" } else { "descending" }),
        step,
        lines,
        element: core::marker::PhantomData,
    }))
}

/// An element with an unsigned key of the same order: NaN greatest, zeros equal.
trait Keyed: Element {
    /// Key and place as one number.
    type Tied: Tied;
    fn key(self) -> u64;
    const BITS: u32 = 8 * size_of::<Self>() as u32;
}

/// A key above a 32-bit place.
trait Tied: Copy + Ord + Send + Sync {
    fn tie(key: u64, place: u32) -> Self;
    fn place(self) -> u32;
    /// Byte `i` of the key.
    fn digit(self, i: u32) -> usize;
}

macro_rules! ties {
    ($($t:ident)*) => { $(
        impl Tied for $t {
            #[inline(always)]
            fn tie(key: u64, place: u32) -> $t {
                $t::from(key) << 32 | $t::from(place)
            }
            #[inline(always)]
            fn place(self) -> u32 {
                self as u32
            }
            #[inline(always)]
            fn digit(self, i: u32) -> usize {
                (self >> (32 + 8 * i)) as usize & 0xff
            }
        }
    )* };
}
ties! { u64 u128 }

macro_rules! keyed {
    ($($t:ident $tied:ident, $key:expr;)*) => { $(
        impl Keyed for $t {
            type Tied = $tied;
            #[inline(always)]
            fn key(self) -> u64 {
                $key(self)
            }
        }
    )* };
}

/// Orders floats' bits as unsigned numbers.
macro_rules! float_key {
    ($x:ident, $bits:ident) => {{
        let (x, sign): (_, $bits) = ($x, 1 << ($bits::BITS - 1));
        let bits = if x.to_bits() == sign { 0 } else { x.to_bits() };
        let ordered = if bits & sign == 0 { bits | sign } else { !bits };
        u64::from(if x.is_nan() { $bits::MAX } else { ordered })
    }};
}
keyed! {
    f32 u64, |x: f32| float_key!(x, u32);
    f64 u128, |x: f64| float_key!(x, u64);
    f16 u64, |x: f16| float_key!(x, u16);
    bf16 u64, |x: bf16| float_key!(x, u16);
    i8 u64, |x| u64::from((x as u8) ^ 1 << 7);
    i16 u64, |x| u64::from((x as u16) ^ 1 << 15);
    i32 u64, |x| u64::from((x as u32) ^ 1 << 31);
    i64 u128, |x| (x as u64) ^ 1 << 63;
    u8 u64, u64::from;
}

impl<T: Keyed> Sort<T> {
    fn buffer(&self) -> usize {
        padded(self.n * size_of::<T::Tied>())
    }
    fn digits(&self) -> bool {
        self.keep == self.n && self.n >= LONG
    }
    fn slot(&self) -> usize {
        self.buffer() * if self.digits() { 2 } else { 1 }
    }
}

impl<T: Keyed> Kernel for Sort<T> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        if self.keep == 0 {
            return Ok(());
        }
        let bases = Bases(operands);
        let slots = Slots::new(workspace, self.threads, self.slot());
        let grain = (4usize << 10).div_ceil(self.n).max(1);
        let flip = if self.descending { u64::MAX >> (64 - T::BITS) } else { 0 };
        pool.for_ranges(self.lines.count(), grain, &|range| {
            slots.with(|space| {
                // SAFETY: the slot holds two lines of keys, or one where no digits are sorted.
                let (keys, spare) = unsafe {
                    let spare = space.wrapping_add(self.buffer()).cast::<T::Tied>();
                    (core::slice::from_raw_parts_mut(space.cast::<T::Tied>(), self.n), core::slice::from_raw_parts_mut(spare, if self.digits() { self.n } else { 0 }))
                };
                self.lines.walk(range, |_, at| {
                    let x = bases.get(0).cast::<T>().wrapping_offset(at[0]);
                    for (i, key) in keys.iter_mut().enumerate() {
                        // SAFETY: i < n.
                        *key = T::Tied::tie(unsafe { *x.offset(i as isize * self.step[0]) }.key() ^ flip, i as u32);
                    }
                    let sorted = if self.digits() {
                        by_digits(&mut *keys, &mut *spare, T::BITS / 8)
                    } else {
                        if self.keep < self.n {
                            keys.select_nth_unstable(self.keep - 1);
                        }
                        keys[..self.keep].sort_unstable();
                        &*keys
                    };
                    for (j, key) in sorted[..self.keep].iter().enumerate() {
                        let (i, j) = (key.place() as isize, j as isize);
                        // SAFETY: i < n and j < keep.
                        unsafe {
                            *bases.get(1).cast::<T>().offset(at[1] + j * self.step[1]) = *x.offset(i * self.step[0]);
                            *bases.get(2).cast::<i64>().offset(at[2] + j * self.step[2]) = i as i64;
                        }
                    }
                });
            })
        });
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        Slots::workspace(self.threads, self.slot())
    }
    fn name(&self) -> String {
        if self.digits() { "radix".into() } else { "comparison of keys".into() }
    }
}

/// Sorts by the lowest `digits` bytes of the keys, least significant first; digits that are all equal cost nothing but their count.
fn by_digits<'a, K: Tied>(keys: &'a mut [K], spare: &'a mut [K], digits: u32) -> &'a [K] {
    let mut counts = [[0u32; 256]; 8];
    for key in keys.iter() {
        for d in 0..digits {
            counts[d as usize][key.digit(d)] += 1;
        }
    }
    let (mut from, mut to) = (keys, spare);
    for d in 0..digits {
        let counts = &mut counts[d as usize];
        if counts.iter().any(|c| *c as usize == from.len()) {
            continue;
        }
        let mut start = 0;
        for c in counts.iter_mut() {
            start += core::mem::replace(c, start);
        }
        for key in from.iter() {
            let place = &mut counts[key.digit(d)];
            to[*place as usize] = *key;
            *place += 1;
        }
        core::mem::swap(&mut from, &mut to);
    }
    from
}
