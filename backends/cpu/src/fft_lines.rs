//! Transforms along one axis: dense lines where they lie, others in blocks through a buffer.

use std::sync::Arc;

use num_complex::Complex;
use realfft::{ComplexToReal, RealToComplex};
use rustfft::Fft;

use crate::axes::Axes;
use crate::fft::Real;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;

/// What happens to a line.
pub enum Transform<R: Real> {
    /// n complex to n complex.
    Complex(Arc<dyn Fft<R>>),
    /// n real to n/2 + 1 complex.
    Forward(Arc<dyn RealToComplex<R>>),
    /// n/2 + 1 complex to n real.
    Inverse(Arc<dyn ComplexToReal<R>>),
}

/// A pass over all lines.
pub struct Lines<R: Real> {
    threads: usize,
    transform: Transform<R>,
    scale: f64,
    /// Lines, but for those of a block.
    groups: Axes<2>,
    /// Lines a block may take: number and strides.
    beside: (usize, [isize; 2]),
    strides: [isize; 2],
    /// Lines in a block.
    block: usize,
    /// Elements of a line: input, output.
    lengths: [usize; 2],
    scratch: usize,
}

/// Most lines of a block, and elements of one.
const BLOCK: usize = 16;
const BLOCK_ELEMENTS: usize = 1 << 16;
/// Elements between the lines of a block beyond their length: lines a power of 2 apart would evict each other from the cache.
pub const GAP: usize = 8;
/// Elements of one task.
const TASK: usize = 1 << 13;

impl<R: Real> Lines<R> {
    /// A pass over `lines`, with strides along them in elements of input and output.
    pub fn new(lines: Axes<2>, strides: [isize; 2], transform: Transform<R>, scale: f64, target: &Target) -> Lines<R> {
        let (lengths, scratch) = match &transform {
            Transform::Complex(f) => ([f.len(); 2], f.get_inplace_scratch_len().max(f.get_immutable_scratch_len())),
            Transform::Forward(f) => ([f.len(), f.complex_len()], f.get_scratch_len()),
            Transform::Inverse(f) => ([f.complex_len(), f.len()], f.get_scratch_len()),
        };
        let (groups, beside) = (lines.outer(), lines.last());
        let dense = strides == [1, 1];
        let block = if dense { 1 } else { (BLOCK_ELEMENTS / lengths[0].max(lengths[1])).clamp(1, BLOCK).min(beside.0.max(1)) };
        Lines { threads: target.threads.min(lines.count().max(1)), transform, scale, groups, beside, strides, block, lengths, scratch }
    }

    /// Bytes of a slot: input lines, output lines, scratch.
    fn parts(&self) -> [usize; 3] {
        let complex = size_of::<Complex<R>>();
        let [m, n] = self.lengths.map(|n| n + GAP);
        let buffers = match self.transform {
            Transform::Complex(_) => [if self.strides == [1, 1] { 0 } else { self.block * m * complex }, 0],
            Transform::Forward(_) => [self.block * m * complex / 2, self.block * n * complex],
            Transform::Inverse(_) => [self.block * m * complex, self.block * n * complex / 2],
        };
        [padded(buffers[0]), padded(buffers[1]), padded(self.scratch * complex)]
    }

    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> usize {
        Slots::workspace(self.threads, self.parts().iter().sum())
    }

    /// Transforms all lines.
    ///
    /// # Safety
    /// `from` and `to` address element (0, …, 0) of tensors that hold all lines; a line of one shares memory only with the same line of the
    /// other. The workspace is as long as stated and nobody else's.
    pub unsafe fn run(&self, from: *mut u8, to: *mut u8, workspace: *mut u8, pool: &Pool) {
        let addresses = [from, to];
        let bases = Bases(&addresses);
        let parts = self.parts();
        let slots = Slots::new(workspace, self.threads, parts.iter().sum());
        let blocks = self.beside.0.div_ceil(self.block);
        let longest = self.lengths[0].max(self.lengths[1]);
        let grain = (TASK / (longest * self.block)).max(1);
        pool.for_ranges(self.groups.count() * blocks, grain, &|range| {
            slots.with(|space| {
                for task in range {
                    let (group, block) = (task / blocks, task % blocks);
                    let at = self.groups.offsets(group);
                    let first = (block * self.block) as isize;
                    let many = self.block.min(self.beside.0 - block * self.block);
                    let start = [at[0] + first * self.beside.1[0], at[1] + first * self.beside.1[1]];
                    let buffers = [space, space.wrapping_add(parts[0]), space.wrapping_add(parts[0] + parts[1])];
                    // SAFETY: the lines lie within the tensors and are this task's, as is the slot.
                    unsafe { self.lines(bases.get(0), bases.get(1), start, many, buffers) };
                }
            })
        });
    }

    /// # Safety
    /// As [`Lines::run`]; `start` is the first of `many` lines.
    unsafe fn lines(&self, from: *mut u8, to: *mut u8, start: [isize; 2], many: usize, buffers: [*mut u8; 3]) {
        let [m, n] = self.lengths;
        let half = self.scale_of();
        // SAFETY: stated by the caller; buffers hold a block of lines and the scratch.
        unsafe {
            let scratch = core::slice::from_raw_parts_mut(buffers[2].cast::<Complex<R>>(), self.scratch);
            match &self.transform {
                Transform::Complex(f) => {
                    let (from, to) = (from.cast::<Complex<R>>().offset(start[0]), to.cast::<Complex<R>>().offset(start[1]));
                    if self.strides == [1, 1] {
                        let line = core::slice::from_raw_parts_mut(to, n);
                        if core::ptr::eq(from, to) {
                            f.process_with_scratch(line, scratch);
                        } else {
                            f.process_immutable_with_scratch(core::slice::from_raw_parts(from, n), line, scratch);
                        }
                        if self.scale != 1.0 {
                            line.iter_mut().for_each(|z| *z = *z * half);
                        }
                        return;
                    }
                    let lines = core::slice::from_raw_parts_mut(buffers[0].cast::<Complex<R>>(), many * (n + GAP));
                    self.gather(from, lines, m, many);
                    lines.chunks_exact_mut(n + GAP).for_each(|line| f.process_with_scratch(&mut line[..n], scratch));
                    self.scatter(lines, to, n, many, |z| if self.scale == 1.0 { z } else { z * half });
                }
                Transform::Forward(f) => {
                    let (from, to) = (from.cast::<R>().offset(start[0]), to.cast::<Complex<R>>().offset(start[1]));
                    let lines = core::slice::from_raw_parts_mut(buffers[0].cast::<R>(), many * (m + GAP));
                    let out = core::slice::from_raw_parts_mut(buffers[1].cast::<Complex<R>>(), many * (n + GAP));
                    self.gather(from, lines, m, many);
                    for (line, out) in lines.chunks_exact_mut(m + GAP).zip(out.chunks_exact_mut(n + GAP)) {
                        // Lengths are the plan's, so this cannot fail.
                        let _ = f.process_with_scratch(&mut line[..m], &mut out[..n], scratch);
                    }
                    self.scatter(out, to, n, many, |z| if self.scale == 1.0 { z } else { z * half });
                }
                Transform::Inverse(f) => {
                    let (from, to) = (from.cast::<Complex<R>>().offset(start[0]), to.cast::<R>().offset(start[1]));
                    let lines = core::slice::from_raw_parts_mut(buffers[0].cast::<Complex<R>>(), many * (m + GAP));
                    let out = core::slice::from_raw_parts_mut(buffers[1].cast::<R>(), many * (n + GAP));
                    self.gather(from, lines, m, many);
                    for (line, out) in lines.chunks_exact_mut(m + GAP).zip(out.chunks_exact_mut(n + GAP)) {
                        line[0].im = R::zero();
                        if n % 2 == 0 {
                            line[m - 1].im = R::zero();
                        }
                        // Lengths are the plan's and the ignored parts are 0, so this cannot fail.
                        let _ = f.process_with_scratch(&mut line[..m], &mut out[..n], scratch);
                    }
                    self.scatter(out, to, n, many, |x| if self.scale == 1.0 { x } else { x * half });
                }
            }
        }
    }

    fn scale_of(&self) -> R {
        R::of(self.scale)
    }

    /// # Safety
    /// `many` lines of n elements at the input's strides; `lines` holds them with gaps.
    unsafe fn gather<T: Copy>(&self, from: *const T, lines: &mut [T], n: usize, many: usize) {
        let (step, aside) = (self.strides[0], self.beside.1[0]);
        // Along the lines where they are dense, across them where their neighbours are.
        // SAFETY: stated by the caller.
        unsafe {
            if step == 1 {
                for l in 0..many {
                    core::ptr::copy_nonoverlapping(from.offset(l as isize * aside), lines.as_mut_ptr().add(l * (n + GAP)), n);
                }
            } else {
                for i in 0..n {
                    for l in 0..many {
                        *lines.get_unchecked_mut(l * (n + GAP) + i) = *from.offset(i as isize * step + l as isize * aside);
                    }
                }
            }
        }
    }

    /// # Safety
    /// `many` lines of n elements at the output's strides; `lines` holds them with gaps.
    unsafe fn scatter<T: Copy>(&self, lines: &[T], to: *mut T, n: usize, many: usize, f: impl Fn(T) -> T) {
        let (step, aside) = (self.strides[1], self.beside.1[1]);
        // SAFETY: stated by the caller.
        unsafe {
            if step == 1 {
                for l in 0..many {
                    for i in 0..n {
                        *to.offset(l as isize * aside).add(i) = f(*lines.get_unchecked(l * (n + GAP) + i));
                    }
                }
            } else {
                for i in 0..n {
                    for l in 0..many {
                        *to.offset(i as isize * step + l as isize * aside) = f(*lines.get_unchecked(l * (n + GAP) + i));
                    }
                }
            }
        }
    }
}
