//! `softmax` and `log_softmax`.

use flagos_backend_api::{DType, Error, Result};
use flagos_catalog::shape::axis;
use flagos_catalog::softmax::{LOG_SOFTMAX, SOFTMAX};
use flagos_catalog::{Attrs, Call};

use crate::block::BlockFn;
use crate::convert::converter;
use crate::kernel::Kernel;
use crate::kind::Kind;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::target::{Isa, Target};
use crate::tensor::{Address, Space, Tiles};
use crate::transfer::{Place, transfer};
use crate::{math_f32, math_f64};

/// Offers both.
pub fn add(registry: &mut Registry) {
    registry.add(SOFTMAX, plan);
    registry.add(LOG_SOFTMAX, plan);
}

/// Rows of a strided axis that are gathered together: a cache line's worth, so that each line is read once.
const GROUP: usize = 16;
/// Elements that make a task of their own.
const GRAIN: usize = 1 << 14;

/// Computes a dense row of `n` elements; `x` and `y` may be the same.
type RowFn = unsafe fn(x: *const u8, y: *mut u8, n: usize);

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let (x, y) = (call.inputs[0], call.outputs[0]);
    let dim = axis(call, call.attrs.int("dim"), x.rank as usize)?;
    let item = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let log = call.operator.id == LOG_SOFTMAX.id;
    let row = match (Kind::of(item), log) {
        (Some(Kind::F32), false) => row_fn::<f32, false>(target.isa),
        (Some(Kind::F32), true) => row_fn::<f32, true>(target.isa),
        (_, false) => row_fn::<f64, false>(target.isa),
        (_, true) => row_fn::<f64, true>(target.isa),
    };
    let convert = |a: DType, b: DType| -> Result<Option<BlockFn>> {
        let none = || Error::unimplemented(format!("{}: no conversion from {a} to {b}", call.operator.name));
        if a == b { Ok(None) } else { converter(a, b, target.isa).map(Some).ok_or_else(none) }
    };
    let width = x.dtype.bytes();
    // The axis is taken out of the space of rows: it has extent 1 there.
    let (mut rows, mut n, mut x_step, mut y_step) = (y, 1, width as isize, width as isize);
    let mut source = x;
    if x.rank > 0 {
        (n, x_step, y_step) = (x.shape[dim] as usize, x.stride[dim] as isize * width as isize, y.stride[dim] as isize * width as isize);
        (rows.shape[dim], source.shape[dim]) = (1, 1);
    }
    let space = Space::new(rows.shape(), &[rows, source]);
    let dense = n == 1 || (x_step == width as isize && y_step == x_step);
    let tiles = space.tiles(1, if dense { 1 } else { GROUP });
    let direct = dense && item == x.dtype;
    let slots = target.threads.max(1);
    Ok(Box::new(Softmax {
        space,
        tiles,
        n,
        width,
        wide: item.bytes(),
        steps: (x_step, y_step),
        load: convert(x.dtype, item)?,
        store: convert(item, x.dtype)?,
        direct,
        row,
        slots,
        attrs: call.attrs.clone(),
        isa: target.isa,
    }))
}

struct Softmax {
    /// Rows; operand 0 is the output.
    space: Space,
    tiles: Tiles,
    /// Elements of a row.
    n: usize,
    width: usize,
    /// Bytes of an element in computation.
    wide: usize,
    /// Bytes between a row's elements in input and output.
    steps: (isize, isize),
    load: Option<BlockFn>,
    store: Option<BlockFn>,
    /// Rows are used where they lie.
    direct: bool,
    row: RowFn,
    /// Parts of the workspace, one a task.
    slots: usize,
    attrs: Attrs,
    isa: Isa,
}

impl Softmax {
    fn slot_bytes(&self) -> usize {
        if self.direct { 0 } else { (self.tiles.cols * self.n * (self.width + self.wide)).next_multiple_of(64) }
    }

    /// # Safety
    /// As [`Kernel::run`]; `slot` is this task's.
    unsafe fn group(&self, index: usize, x: &Address, y: &Address, slot: *mut u8) {
        let tile = self.space.tile(&self.tiles, index);
        let (x, y, n) = (x.at(tile.offset[1]), y.at(tile.offset[0]), self.n);
        let all = tile.cols * n;
        let (y_col, x_col) = (self.space.inner_strides(0).1, self.space.inner_strides(1).1);
        let (items, raw) = (slot, slot.wrapping_add(self.tiles.cols * n * self.wide));
        let call = |f: BlockFn, x: *const u8, y: *mut u8| {
            // SAFETY: both arrays have `all` elements.
            unsafe { f(&[x, core::ptr::null(), core::ptr::null()], core::slice::from_raw_parts_mut(y.cast(), all), all, &self.attrs) }
        };
        // SAFETY: the group lies in the operands and, dense, in the slot.
        unsafe {
            if self.direct {
                return (self.row)(x, y, n);
            }
            let gathered = if self.load.is_some() { raw } else { items };
            transfer(self.width, Place { at: x, row: x_col, col: self.steps.0 }, Place::dense(gathered, n, self.width), tile.cols, n);
            if let Some(load) = self.load {
                call(load, raw, items);
            }
            for r in 0..tile.cols {
                let row = items.add(r * n * self.wide);
                (self.row)(row, row, n);
            }
            if let Some(store) = self.store {
                call(store, items, raw);
            }
            transfer(self.width, Place::dense(gathered, n, self.width), Place { at: y, row: y_col, col: self.steps.1 }, tile.cols, n);
        }
    }
}

impl Kernel for Softmax {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (x, y, workspace) = (&Address(operands[0]), &Address(operands[1]), &Address(workspace));
        if self.n == 0 {
            return Ok(());
        }
        let groups = self.tiles.count;
        let per_task = (GRAIN / (self.tiles.cols * self.n)).max(1);
        // Without buffers any number of tasks will do; with them each task has a slot.
        let per_task = if self.direct { per_task } else { per_task.max(groups.div_ceil(self.slots)) };
        pool.for_ranges(groups, per_task, &|range| {
            let slot = workspace.at((range.start / per_task * self.slot_bytes()) as isize);
            // SAFETY: stated by the caller; groups are disjoint.
            range.for_each(|i| unsafe { self.group(i, x, y, slot) });
        });
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        self.slots * self.slot_bytes()
    }
    fn name(&self) -> String {
        format!("{:?} {}", self.isa, if self.direct { "dense" } else { "gathered" }).to_lowercase()
    }
}

fn row_fn<T: Real, const LOG: bool>(isa: Isa) -> RowFn {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::<T, LOG>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::<T, LOG>,
        _ => baseline::<T, LOG>,
    }
}

/// # Safety
/// As [`RowFn`].
unsafe fn baseline<T: Real, const LOG: bool>(x: *const u8, y: *mut u8, n: usize) {
    // SAFETY: passed on.
    unsafe { row::<T, false, LOG>(x, y, n) }
}

/// # Safety
/// As [`RowFn`], on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2")]
unsafe fn avx2<T: Real, const LOG: bool>(x: *const u8, y: *mut u8, n: usize) {
    // SAFETY: passed on.
    unsafe { row::<T, true, LOG>(x, y, n) }
}

/// # Safety
/// As [`RowFn`], on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
unsafe fn avx512<T: Real, const LOG: bool>(x: *const u8, y: *mut u8, n: usize) {
    // SAFETY: passed on.
    unsafe { row::<T, true, LOG>(x, y, n) }
}

/// Elements computed together.
const LANES: usize = 32;

/// Loops instead of iterators: what a closure does is compiled without the instruction set of the function around it wherever it is not inlined,
/// and a fused multiply-add is a call there.
///
/// # Safety
/// As [`RowFn`].
#[inline(always)]
unsafe fn row<T: Real, const FMA: bool, const LOG: bool>(x: *const u8, y: *mut u8, n: usize) {
    let (x, y) = (x.cast::<T>(), y.cast::<T>());
    // SAFETY: stated by the caller; each element is read before it is written, so `x` may be `y`.
    unsafe {
        let mut greatest = [T::LOWEST; LANES];
        for i in (0..n).step_by(LANES) {
            let chunk = take(x.add(i), T::LOWEST, LANES.min(n - i));
            for k in 0..LANES {
                greatest[k] = chunk[k].greater(greatest[k]);
            }
        }
        let max = greatest.into_iter().fold(T::LOWEST, |a, b| b.greater(a));
        let mut sums = [0.0f64; LANES];
        for i in (0..n).step_by(LANES) {
            let count = LANES.min(n - i);
            let mut e = take(x.add(i), T::LOWEST, count);
            for v in &mut e {
                *v = v.minus(max).exp::<FMA>();
            }
            if !LOG {
                put(y.add(i), e, count);
            }
            // A padded element counts 0, also where the greatest is -∞ itself.
            for k in 0..LANES {
                sums[k] += if k < count { e[k].wide() } else { 0.0 };
            }
        }
        let total: f64 = sums.into_iter().sum();
        let (log, scale) = (T::narrow(if LOG { total.ln() } else { 0.0 }), T::narrow(1.0 / total));
        for i in (0..n).step_by(LANES) {
            let count = LANES.min(n - i);
            let mut chunk = take(if LOG { x.add(i) } else { y.add(i) }, T::LOWEST, count);
            for v in &mut chunk {
                *v = if LOG { v.minus(max).minus(log) } else { v.times(scale) };
            }
            put(y.add(i), chunk, count);
        }
    }
}

/// The next `count` ≤ LANES elements, padded.
///
/// # Safety
/// `x` has so many.
#[inline(always)]
unsafe fn take<T: Real>(x: *const T, pad: T, count: usize) -> [T; LANES] {
    // SAFETY: stated by the caller.
    unsafe {
        if count == LANES {
            return x.cast::<[T; LANES]>().read_unaligned();
        }
        let mut chunk = [pad; LANES];
        for (k, to) in chunk.iter_mut().enumerate().take(count) {
            *to = x.add(k).read_unaligned();
        }
        chunk
    }
}

/// # Safety
/// `y` has room for `count` ≤ LANES elements.
#[inline(always)]
unsafe fn put<T: Copy>(y: *mut T, chunk: [T; LANES], count: usize) {
    // SAFETY: stated by the caller.
    unsafe {
        if count == LANES {
            y.cast::<[T; LANES]>().write_unaligned(chunk);
        } else {
            for (k, v) in chunk.iter().enumerate().take(count) {
                y.add(k).write_unaligned(*v);
            }
        }
    }
}

/// What a row is computed in.
trait Real: Copy + Default + 'static {
    const LOWEST: Self;
    /// NaN wins.
    fn greater(self, b: Self) -> Self;
    fn minus(self, b: Self) -> Self;
    fn times(self, b: Self) -> Self;
    fn exp<const FMA: bool>(self) -> Self;
    fn wide(self) -> f64;
    fn narrow(v: f64) -> Self;
}

macro_rules! real {
    ($t:ident, $math:ident) => {
        impl Real for $t {
            const LOWEST: $t = $t::NEG_INFINITY;
            #[inline(always)]
            fn greater(self, b: $t) -> $t {
                if self > b || self.is_nan() { self } else { b }
            }
            #[inline(always)]
            fn minus(self, b: $t) -> $t {
                self - b
            }
            #[inline(always)]
            fn times(self, b: $t) -> $t {
                self * b
            }
            #[inline(always)]
            fn exp<const FMA: bool>(self) -> $t {
                $math::exp::<FMA>(self)
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn narrow(v: f64) -> $t {
                v as $t
            }
        }
    };
}
real!(f32, math_f32);
real!(f64, math_f64);
