//! cumsum: lines side by side in lanes; long lines in chunks whose totals are taken first.

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, scan, shape};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, padded};
use crate::target::{Isa, Target};
use crate::vectorize::vectorize;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(scan::CUMSUM, plan);
}

/// Length from which few lines are cut, and of their pieces. Fixed, so that sums do not depend on the number of threads.
const LONG: usize = 128 << 10;
const PIECE: usize = 32 << 10;
const FEW: usize = 16;
/// Lines taken side by side: dense ones and others.
const WIDE: usize = 64;
const NARROW: usize = 8;

struct Cumsum<T, O> {
    isa: Isa,
    n: usize,
    /// Strides along the line: x, y.
    step: [isize; 2],
    /// Element 0 of a line, from element (0, …, 0).
    start: [isize; 2],
    /// Lines, but for those side by side.
    groups: Axes<2>,
    /// Lines side by side: number and strides.
    beside: (usize, [isize; 2]),
    exclusive: bool,
    pieces: usize,
    types: core::marker::PhantomData<(T, O)>,
}

// SAFETY: holds no addresses.
unsafe impl<T, O> Send for Cumsum<T, O> {}
// SAFETY: as above.
unsafe impl<T, O> Sync for Cumsum<T, O> {}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let dtype = call.inputs[0].dtype;
    with_element!(floating dtype, T => return plan_of::<T, T>(call, target), else ());
    // Integers and bool sum to i64.
    with_element!(whole dtype, T => plan_of::<T, i64>(call, target), else Err(Error::unimplemented(format!("cumsum has no kernel for {dtype}"))))
}

fn plan_of<T: Element, O: Element<Acc = T::Acc>>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let (x, y) = (&call.inputs[0], &call.outputs[0]);
    let rank = x.rank as usize;
    let dim = shape::axis(call, call.attrs.int("dim"), rank)?;
    let (n, mut step) = if rank == 0 { (1, [0, 0]) } else { (x.shape[dim] as usize, [x.stride[dim] as isize, y.stride[dim] as isize]) };
    let others = |v: &[i64]| v.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, n)| *n).collect::<Vec<_>>();
    let lines = Axes::new(&others(x.shape()), [&others(x.stride()), &others(y.stride())]);
    let mut start = [0, 0];
    if call.attrs.boolean("reverse") {
        start = step.map(|s| s * n.saturating_sub(1) as isize);
        step = step.map(|s| -s);
    }
    let pieces = if lines.count() < FEW && n >= LONG { n.div_ceil(PIECE) } else { 1 };
    let (groups, beside) = if pieces > 1 { (lines, (1, [0, 0])) } else { (lines.outer(), lines.last()) };
    let exclusive = call.attrs.boolean("exclusive");
    Ok(Box::new(Cumsum::<T, O> { isa: target.isa, n, step, start, groups, beside, exclusive, pieces, types: core::marker::PhantomData }))
}

/// Piece of a group of lines.
struct Piece<T, O> {
    x: *const T,
    y: *mut O,
    n: usize,
    step: [isize; 2],
    lines: usize,
    beside: [isize; 2],
    exclusive: bool,
}

impl<T: Element, O: Element<Acc = T::Acc>> Kernel for Cumsum<T, O> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let all = [operands[0], operands[1], workspace];
        let bases = Bases(&all);
        let dense = self.beside.1 == [1, 1];
        let wide = if dense { WIDE } else { NARROW };
        let sets = self.beside.0.div_ceil(wide);
        // A task: piece, group, set of lines within the group.
        let piece = |group: usize, set: usize, piece: usize| {
            let at = self.groups.offsets(group);
            let size = if self.pieces > 1 { PIECE } else { self.n };
            let first = (piece * size) as isize;
            let from = |t: usize| at[t] + self.start[t] + first * self.step[t] + (set * wide) as isize * self.beside.1[t];
            Piece {
                x: bases.get(0).cast::<T>().wrapping_offset(from(0)).cast_const(),
                y: bases.get(1).cast::<O>().wrapping_offset(from(1)),
                n: size.min(self.n - piece * size),
                step: self.step,
                lines: wide.min(self.beside.0 - set * wide),
                beside: self.beside.1,
                exclusive: self.exclusive,
            }
        };
        let groups = self.groups.count();
        if self.n == 0 || groups * sets == 0 {
            return Ok(());
        }
        if self.pieces == 1 {
            let grain = (32usize << 10).div_ceil(self.n * wide).max(1);
            pool.for_ranges(groups * sets, grain, &|range| {
                for task in range {
                    // SAFETY: the lines lie within x and y, and are this task's.
                    unsafe { scan_lines(self.isa, &piece(task / sets, task % sets, 0), T::Acc::ZERO, dense) }
                }
            });
            return Ok(());
        }
        let total = |line: usize, piece: usize| bases.get(2).cast::<T::Acc>().wrapping_add(line * self.pieces + piece);
        pool.for_each(groups * self.pieces, &|task| {
            let (line, at) = (task / self.pieces, task % self.pieces);
            // SAFETY: the piece lies within x; its total has a place of its own.
            unsafe { *total(line, at) = line_total(self.isa, &piece(line, 0, at)) };
        });
        for line in 0..groups {
            let mut sum = T::Acc::ZERO;
            for at in 0..self.pieces {
                // SAFETY: all totals are there.
                unsafe { sum = core::mem::replace(&mut *total(line, at), sum).add(sum) };
            }
        }
        pool.for_each(groups * self.pieces, &|task| {
            let (line, at) = (task / self.pieces, task % self.pieces);
            // SAFETY: the piece is this task's; what comes before it is summed.
            unsafe { scan_lines(self.isa, &piece(line, 0, at), *total(line, at), false) };
        });
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        if self.pieces > 1 { padded(self.groups.count() * self.pieces * size_of::<T::Acc>()) } else { 0 }
    }
    fn name(&self) -> String {
        let how = if self.pieces > 1 { "pieces of lines" } else { "lines" };
        format!("{:?} {how}", self.isa).to_lowercase()
    }
}

vectorize! {
    unsafe fn scan_lines[T: Element, O: Sum<T>][](piece: &Piece<T, O>, first: T::Acc, dense: bool) {
        // SAFETY: stated by the caller.
        unsafe {
            if !dense {
                scan_runs::<T, O>(piece, first);
            } else if piece.lines == WIDE {
                scan_beside::<T, O>(piece, first, WIDE);
            } else {
                scan_beside::<T, O>(piece, first, piece.lines);
            }
        }
    }

    unsafe fn line_total[T: Element, O: Sum<T>][](piece: &Piece<T, O>) -> T::Acc {
        let mut lanes = [T::Acc::ZERO; 16];
        for i in 0..piece.n {
            // SAFETY: i < n.
            lanes[i % 16] = lanes[i % 16].add(unsafe { *piece.x.offset(i as isize * piece.step[0]) }.widen());
        }
        lanes.into_iter().fold(T::Acc::ZERO, T::Acc::add)
    }
}

/// An output whose accumulator is the input's.
trait Sum<T: Element>: Element<Acc = T::Acc> {}
impl<T: Element, O: Element<Acc = T::Acc>> Sum<T> for O {}

/// Dense lines side by side: a vector of sums.
#[inline(always)]
unsafe fn scan_beside<T: Element, O: Sum<T>>(piece: &Piece<T, O>, first: T::Acc, lines: usize) {
    let mut sums = [first; WIDE];
    for i in 0..piece.n as isize {
        let (x, y) = (piece.x.wrapping_offset(i * piece.step[0]), piece.y.wrapping_offset(i * piece.step[1]));
        for (l, sum) in sums[..lines].iter_mut().enumerate() {
            // SAFETY: i < n and l < lines.
            unsafe {
                let next = sum.add((*x.add(l)).widen());
                *y.add(l) = O::narrow(if piece.exclusive { *sum } else { next });
                *sum = next;
            }
        }
    }
}

/// Elements taken from a line before its neighbour's turn: what a cache line holds, and conversions of as many are SIMD.
const RUN: usize = 16;

/// Other lines: runs of each in turn, whose chains of additions overlap.
#[inline(always)]
unsafe fn scan_runs<T: Element, O: Sum<T>>(piece: &Piece<T, O>, first: T::Acc) {
    let mut sums = [first; NARROW];
    for i in (0..piece.n).step_by(RUN) {
        let many = RUN.min(piece.n - i);
        for (l, sum) in sums[..piece.lines].iter_mut().enumerate() {
            let at = |t: usize| i as isize * piece.step[t] + l as isize * piece.beside[t];
            let (x, y) = (piece.x.wrapping_offset(at(0)), piece.y.wrapping_offset(at(1)));
            let mut run = [T::Acc::ZERO; RUN];
            // SAFETY: i + j < n for j < many.
            unsafe {
                if many == RUN && piece.step == [1, 1] {
                    (0..RUN).for_each(|j| run[j] = (*x.add(j)).widen());
                    accumulate(&mut run, sum, piece.exclusive);
                    (0..RUN).for_each(|j| *y.add(j) = O::narrow(run[j]));
                } else {
                    (0..many).for_each(|j| run[j] = (*x.offset(j as isize * piece.step[0])).widen());
                    accumulate(&mut run[..many], sum, piece.exclusive);
                    (0..many).for_each(|j| *y.offset(j as isize * piece.step[1]) = O::narrow(run[j]));
                }
            }
        }
    }
}

#[inline(always)]
fn accumulate<A: Accumulator>(run: &mut [A], sum: &mut A, exclusive: bool) {
    for v in run {
        let next = sum.add(*v);
        *v = if exclusive { *sum } else { next };
        *sum = next;
    }
}
