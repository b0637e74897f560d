//! One long transform on all threads: the four-step method (Bailey, "FFTs in external or hierarchical memory", 1990).
//!
//! With n = n₁·n₂, x is a matrix of n₁ rows: its columns are transformed, multiplied by exp(∓2πi·i₂k₁/n), then the rows; the result is read by columns.

use std::sync::Arc;

use num_complex::Complex;
use rustfft::Fft;

use crate::axes::Axes;
use crate::fft::{Real, complex};
use crate::fft_lines::GAP;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;

/// Length and threads from which the method pays: it moves the data through memory twice as often as one long transform does.
const LARGE: usize = 1 << 18;
const THREADS: usize = 4;
/// Most lines for which it is used: more lines keep the threads busy by themselves.
const FEW: usize = 4;
/// Columns or rows of a task.
const BLOCK: usize = 16;

/// A pass over few long lines.
pub struct Large<R: Real> {
    threads: usize,
    lines: Axes<2>,
    strides: [isize; 2],
    n1: usize,
    n2: usize,
    columns: Arc<dyn Fft<R>>,
    rows: Arc<dyn Fft<R>>,
    /// exp(∓2πi·i₂k₁/n) at i₂·n₁ + k₁.
    twiddles: Vec<Complex<R>>,
    scale: f64,
}

impl<R: Real> Large<R> {
    /// The pass, where it pays and the length has fitting factors.
    pub fn new(lines: &Axes<2>, strides: [isize; 2], n: usize, forward: bool, scale: f64, target: &Target) -> Option<Large<R>> {
        if n < LARGE || target.threads < THREADS || lines.count() > FEW {
            return None;
        }
        let root = n.isqrt();
        let n1 = (root / 8..=root).rev().find(|d| *d > 0 && n.is_multiple_of(*d))?;
        let n2 = n / n1;
        let turn = if forward { -core::f64::consts::TAU } else { core::f64::consts::TAU };
        // Multiples of one step are looked up: sines of all n angles would take as long as many transforms.
        let small: Vec<Complex<f64>> = (0..1024).map(|i| Complex::from_polar(1.0, turn * i as f64 / n as f64)).collect();
        let large: Vec<Complex<f64>> = (0..n.div_ceil(1024)).map(|i| Complex::from_polar(1.0, turn * (i * 1024) as f64 / n as f64)).collect();
        let mut twiddles = Vec::with_capacity(n);
        for i in 0..n2 {
            twiddles.extend((0..n1).map(|k| {
                let w = small[i * k % 1024] * large[i * k / 1024];
                Complex::new(R::of(w.re), R::of(w.im))
            }));
        }
        let (columns, rows) = (complex(n1, forward), complex(n2, forward));
        Some(Large { threads: target.threads, lines: lines.clone(), strides, n1, n2, columns, rows, twiddles, scale })
    }

    /// Bytes of the matrix, of a block of columns, and of scratch.
    fn parts(&self) -> [usize; 3] {
        let size = size_of::<Complex<R>>();
        let scratch = self.columns.get_inplace_scratch_len().max(self.rows.get_inplace_scratch_len());
        [padded(self.n1 * (self.n2 + GAP) * size), padded(BLOCK * (self.n1 + GAP) * size), padded(scratch * size)]
    }

    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> usize {
        let [matrix, block, scratch] = self.parts();
        matrix + Slots::workspace(self.threads, block + scratch)
    }

    /// Transforms all lines.
    ///
    /// # Safety
    /// `from` and `to` address tensors that hold the lines, the same or disjoint; the workspace is as long as stated and nobody else's.
    pub unsafe fn run(&self, from: *mut Complex<R>, to: *mut Complex<R>, workspace: *mut u8, pool: &Pool) {
        let (n1, n2, size) = (self.n1, self.n2, size_of::<Complex<R>>());
        let [matrix, block, scratch] = self.parts();
        let slots = Slots::new(workspace.wrapping_add(matrix), self.threads, block + scratch);
        let factor = R::of(self.scale);
        for line in 0..self.lines.count() {
            let at = self.lines.offsets(line);
            let addresses = [from.wrapping_offset(at[0]).cast(), to.wrapping_offset(at[1]).cast(), workspace];
            let bases = Bases(&addresses);
            pool.for_ranges(n2, BLOCK, &|columns| {
                slots.with(|space| {
                    let (x, matrix) = (bases.get(0).cast::<Complex<R>>(), bases.get(2).cast::<Complex<R>>());
                    let many = columns.len();
                    // SAFETY: the columns are this task's, in x and in the matrix, as is the slot.
                    unsafe {
                        let lines = core::slice::from_raw_parts_mut(space.cast::<Complex<R>>(), many * (n1 + GAP));
                        let scratch = core::slice::from_raw_parts_mut(space.wrapping_add(block).cast::<Complex<R>>(), scratch / size);
                        for i in 0..n1 {
                            let row = x.offset((i * n2 + columns.start) as isize * self.strides[0]);
                            for c in 0..many {
                                *lines.get_unchecked_mut(c * (n1 + GAP) + i) = *row.offset(c as isize * self.strides[0]);
                            }
                        }
                        for (line, w) in lines.chunks_exact_mut(n1 + GAP).zip(self.twiddles[columns.start * n1..].chunks_exact(n1)) {
                            self.columns.process_with_scratch(&mut line[..n1], scratch);
                            line.iter_mut().zip(w).for_each(|(z, w)| *z = *z * *w);
                        }
                        for k in 0..n1 {
                            let row = matrix.add(k * (n2 + GAP) + columns.start);
                            for c in 0..many {
                                *row.add(c) = *lines.get_unchecked(c * (n1 + GAP) + k);
                            }
                        }
                    }
                })
            });
            pool.for_ranges(n1, BLOCK, &|rows| {
                slots.with(|space| {
                    let (y, matrix) = (bases.get(1).cast::<Complex<R>>(), bases.get(2).cast::<Complex<R>>());
                    // SAFETY: the rows are this task's, in the matrix and in y, as is the slot.
                    unsafe {
                        let scratch = core::slice::from_raw_parts_mut(space.wrapping_add(block).cast::<Complex<R>>(), scratch / size);
                        let many = rows.len();
                        let lines = core::slice::from_raw_parts_mut(matrix.add(rows.start * (n2 + GAP)), many * (n2 + GAP));
                        lines.chunks_exact_mut(n2 + GAP).for_each(|line| self.rows.process_with_scratch(&mut line[..n2], scratch));
                        for k in 0..n2 {
                            let to = y.offset((k * n1 + rows.start) as isize * self.strides[1]);
                            for r in 0..many {
                                let z = *lines.get_unchecked(r * (n2 + GAP) + k);
                                *to.offset(r as isize * self.strides[1]) = if self.scale == 1.0 { z } else { z * factor };
                            }
                        }
                    }
                })
            });
        }
    }
}
