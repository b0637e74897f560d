//! gather, index_select, embedding: copies from places an index names; scatter_add: sums along lines.

use std::sync::atomic::{AtomicI64, Ordering};

use flagos_backend_api::{DType, Error, Result, Tensor};
use flagos_catalog::{Call, index, shape};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(index::GATHER, plan_gather);
    registry.add(index::INDEX_SELECT, plan_select);
    registry.add(index::EMBEDDING, plan_select);
    registry.add(index::SCATTER_ADD, plan_scatter);
}

/// Bytes of one task.
const TASK_BYTES: usize = 64 << 10;
/// No index was out of range.
const NONE: i64 = i64::MIN;

/// An index tensor's element.
#[inline(always)]
unsafe fn index_at(base: *const u8, wide: bool, offset: isize) -> i64 {
    // SAFETY: the offset lies within the index tensor.
    unsafe { if wide { *base.cast::<i64>().offset(offset) } else { i64::from(*base.cast::<i32>().offset(offset)) } }
}

fn outside(name: &str, seen: &AtomicI64, extent: usize) -> Result<()> {
    match seen.load(Ordering::Relaxed) {
        NONE => Ok(()),
        i => Err(Error::invalid(format!("{name}: index {i} is outside of 0..{extent}; nothing was read or written there")).at(1)),
    }
}

/// y[position, inner] = x[position + index·step, inner]; zeros where the index is out of range.
struct Select {
    name: &'static str,
    wide: bool,
    width: usize,
    extent: usize,
    step: isize,
    /// x (without the indexed axis), y, index.
    positions: Axes<3>,
    /// x, y.
    inner: Axes<2>,
}

fn plan_gather(call: &Call, _: &Target) -> Result<Box<dyn Kernel>> {
    let (x, ids, y) = (&call.inputs[0], &call.inputs[1], &call.outputs[0]);
    let rank = x.rank as usize;
    let dim = shape::axis(call, call.attrs.int("dim"), rank)?;
    let mut others = x.stride;
    others[dim] = 0;
    Ok(Box::new(Select {
        name: call.operator.name,
        wide: ids.dtype == DType::I64,
        width: x.dtype.bytes(),
        extent: if rank == 0 { 1 } else { x.shape[dim] as usize },
        step: if rank == 0 { 0 } else { x.stride[dim] as isize },
        positions: Axes::new(ids.shape(), [&others, &y.stride, &ids.stride]),
        inner: Axes::new(&[], [&[], &[]]),
    }))
}

fn plan_select(call: &Call, _: &Target) -> Result<Box<dyn Kernel>> {
    let (x, ids, y) = (&call.inputs[0], &call.inputs[1], &call.outputs[0]);
    let dim = if call.operator.id == index::EMBEDDING.id { 0 } else { shape::axis(call, call.attrs.int("dim"), x.rank as usize)? };
    let (zeros, named) = ([0i64; 8], ids.rank as usize);
    let before = Axes::new(&x.shape()[..dim], [&x.stride, &y.stride, &zeros]);
    let along = Axes::new(ids.shape(), [&zeros, &y.stride[dim..], &ids.stride]);
    Ok(Box::new(Select {
        name: call.operator.name,
        wide: ids.dtype == DType::I64,
        width: x.dtype.bytes(),
        extent: x.shape[dim] as usize,
        step: x.stride[dim] as isize,
        positions: before.around(&along),
        inner: Axes::new(&x.shape()[dim + 1..], [&x.stride[dim + 1..], &y.stride[dim + named..]]),
    }))
}

impl Select {
    /// # Safety
    /// As [`Kernel::run`], for a range of positions.
    unsafe fn copy<W: Copy>(&self, bases: &Bases, range: core::ops::Range<usize>, zero: W, seen: &AtomicI64) {
        let (x, ids, y) = (bases.get(0).cast::<W>(), bases.get(1), bases.get(2).cast::<W>());
        let (run, steps) = self.inner.last();
        let runs = self.inner.outer();
        let single = self.inner.count() == 1;
        self.positions.walk(range, |_, at| {
            // SAFETY: positions lie within index and y; x is read only where the index is in range.
            unsafe {
                let i = index_at(ids, self.wide, at[2]);
                let to = y.offset(at[1]);
                let from = usize::try_from(i).ok().filter(|i| *i < self.extent).map(|i| x.cast_const().offset(at[0] + i as isize * self.step));
                if from.is_none() {
                    seen.store(i, Ordering::Relaxed);
                }
                match from {
                    Some(from) if single => *to = *from,
                    Some(from) if steps == [1, 1] => runs.walk(0..runs.count(), |_, o| core::ptr::copy_nonoverlapping(from.offset(o[0]), to.offset(o[1]), run)),
                    Some(from) => self.inner.walk(0..self.inner.count(), |_, o| *to.offset(o[1]) = *from.offset(o[0])),
                    None => self.inner.walk(0..self.inner.count(), |_, o| *to.offset(o[1]) = zero),
                }
            }
        });
    }
}

impl Kernel for Select {
    unsafe fn run(&self, operands: &[*mut u8], _: *mut u8, pool: &Pool) -> Result<()> {
        let (bases, seen) = (Bases(operands), AtomicI64::new(NONE));
        let inner = self.inner.count();
        if inner == 0 {
            return Ok(());
        }
        let grain = (TASK_BYTES / self.width).div_ceil(inner).max(1);
        pool.for_ranges(self.positions.count(), grain, &|range| {
            // SAFETY: stated by the trait; ranges are disjoint.
            unsafe {
                match self.width {
                    1 => self.copy(&bases, range, 0u8, &seen),
                    2 => self.copy(&bases, range, 0u16, &seen),
                    4 => self.copy(&bases, range, 0u32, &seen),
                    _ => self.copy(&bases, range, 0u64, &seen),
                }
            }
        });
        outside(self.name, &seen, self.extent)
    }
    fn name(&self) -> String {
        "bounds-checked copies".into()
    }
}

/// Lines of x go through a buffer of accumulators, to which src is added in order.
struct Scatter<T> {
    threads: usize,
    wide: bool,
    /// Extent and strides along dim: of x and y, and of index and src.
    line: (usize, [isize; 2]),
    added: (usize, [isize; 2]),
    /// Lines of x: x, y.
    lines: Axes<2>,
    /// Other axes: extents of x's, of index's, and index's and src's strides.
    others: Vec<(usize, usize, [isize; 2])>,
    element: core::marker::PhantomData<T>,
}

// SAFETY: holds no addresses.
unsafe impl<T> Send for Scatter<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Scatter<T> {}

fn plan_scatter(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let dtype = call.inputs[0].dtype;
    with_element!(number dtype, T => scatter_of::<T>(call, target), else Err(Error::unimplemented(format!("scatter_add has no kernel for {dtype}"))))
}

fn scatter_of<T: Element>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let [x, ids, src] = call.inputs.as_slice() else { return Err(Error::invalid("scatter_add takes three inputs")) };
    let (y, rank) = (&call.outputs[0], x.rank as usize);
    let dim = shape::axis(call, call.attrs.int("dim"), rank)?;
    let along = |t: &Tensor, u: &Tensor| if rank == 0 { (1, [0, 0]) } else { (t.shape[dim] as usize, [t.stride[dim] as isize, u.stride[dim] as isize]) };
    let kept: Vec<usize> = (0..rank).filter(|d| *d != dim).collect();
    let of = |v: &[i64; 8]| kept.iter().map(|d| v[*d]).collect::<Vec<_>>();
    // Axes are not merged: coordinates tell whether a line has indices.
    let others = kept.iter().map(|d| (x.shape[*d] as usize, ids.shape[*d] as usize, [ids.stride[*d] as isize, src.stride[*d] as isize])).collect();
    let threads = target.threads.min(kept.iter().map(|d| x.shape[*d] as usize).product());
    Ok(Box::new(Scatter::<T> {
        threads,
        wide: ids.dtype == DType::I64,
        line: along(x, y),
        added: along(ids, src),
        lines: Axes::new(&of(&x.shape), [&of(&x.stride), &of(&y.stride)]),
        others,
        element: core::marker::PhantomData,
    }))
}

impl<T: Element> Scatter<T> {
    fn buffer(&self) -> usize {
        self.line.0 * size_of::<T::Acc>()
    }
    /// Offsets of a line's first index and source; none where index does not reach.
    fn sources(&self, line: usize) -> Option<[isize; 2]> {
        let (mut rest, mut at) = (line, [0, 0]);
        for (extent, reach, strides) in self.others.iter().rev() {
            let i = rest % extent;
            rest /= extent;
            if i >= *reach {
                return None;
            }
            (0..2).for_each(|t| at[t] += i as isize * strides[t]);
        }
        Some(at)
    }
}

impl<T: Element> Kernel for Scatter<T> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (bases, seen) = (Bases(operands), AtomicI64::new(NONE));
        let slots = Slots::new(workspace, self.threads, self.buffer());
        let grain = (TASK_BYTES / 8).div_ceil((self.line.0 + self.added.0).max(1)).max(1);
        pool.for_ranges(self.lines.count(), grain, &|range| {
            slots.with(|space| {
                let sums = space.cast::<T::Acc>();
                self.lines.walk(range, |line, at| {
                    let (n, [dx, dy]) = self.line;
                    let (x, y) = (bases.get(0).cast::<T>().wrapping_offset(at[0]), bases.get(3).cast::<T>().wrapping_offset(at[1]));
                    // SAFETY: the line lies within x and y; indices out of range are passed over.
                    unsafe {
                        (0..n).for_each(|i| *sums.add(i) = (*x.offset(i as isize * dx)).widen());
                        if let Some([ids, src]) = self.sources(line) {
                            let (many, [di, ds]) = self.added;
                            let (ids_base, src) = (bases.get(1).cast_const(), bases.get(2).cast::<T>().wrapping_offset(src));
                            for j in 0..many as isize {
                                let i = index_at(ids_base, self.wide, ids + j * di);
                                if (0..n as i64).contains(&i) {
                                    let sum = sums.add(i as usize);
                                    *sum = (*sum).add((*src.offset(j * ds)).widen());
                                } else {
                                    seen.store(i, Ordering::Relaxed);
                                }
                            }
                        }
                        (0..n).for_each(|i| *y.offset(i as isize * dy) = T::narrow(*sums.add(i)));
                    }
                });
            })
        });
        outside("scatter_add", &seen, self.line.0)
    }
    fn workspace_bytes(&self) -> usize {
        Slots::workspace(self.threads, padded(self.buffer()))
    }
    fn name(&self) -> String {
        "bounds-checked sums by line".into()
    }
}
