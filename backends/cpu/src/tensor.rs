//! Iteration spaces: several operands walked together, with dimensions merged and sorted so that the inner ones run through memory.

use flagos_backend_api::{MAX_RANK, Tensor};
use flagos_catalog::shape::broadcast_strides;
use flagos_catalog::View;

/// The tensor with strides that move nothing, along extents of at most 1 and without elements, made those of a contiguous one: callers may
/// leave anything there, up to numbers no address arithmetic takes.
pub fn settled(t: &Tensor) -> Tensor {
    let plain = Tensor::contiguous(t.dtype, t.shape());
    let mut settled = *t;
    let empty = t.shape().contains(&0);
    for d in (0..t.shape().len()).filter(|d| empty || t.shape[*d] == 1) {
        settled.stride[d] = plain.stride[d];
    }
    settled
}

/// A BLAS or FFT operand, settled; without elements it begins at its binding.
pub fn settled_view(view: &View) -> View {
    View { tensor: settled(&view.tensor), origin: if view.tensor.shape().contains(&0) { 0 } else { view.origin }, ..*view }
}

/// Operands a space can hold.
pub const MOST_OPERANDS: usize = 4;

/// Extents and byte strides of operands walked together, outermost dimension first. At least two dimensions; extents may be 0.
#[derive(Clone, Debug)]
pub struct Space {
    /// Dimensions.
    pub rank: usize,
    /// Extents.
    pub shape: [usize; MAX_RANK],
    /// Byte strides by operand.
    pub stride: [[isize; MAX_RANK]; MOST_OPERANDS],
}

impl Space {
    /// Operands broadcast to `shape`, dimensions merged where all operands allow it. Operand 0 decides the order: its smallest stride
    /// becomes the innermost dimension. If another operand runs through memory along a dimension that is not the innermost, that one
    /// becomes the second.
    pub fn new(shape: &[i64], operands: &[Tensor]) -> Space {
        let strides: Vec<Vec<i64>> = operands.iter().map(|t| broadcast_strides(t, shape)).collect();
        let bytes = |i: usize, d: usize| strides[i][d] as isize * operands[i].dtype.bytes() as isize;
        let mut dims: Vec<usize> = (0..shape.len()).filter(|d| shape[*d] != 1).collect();
        dims.sort_by_key(|d| core::cmp::Reverse(bytes(0, *d).unsigned_abs()));
        let mut merged: Vec<(usize, Vec<isize>)> = Vec::new();
        for d in dims {
            let (n, step): (usize, Vec<isize>) = (shape[d] as usize, (0..operands.len()).map(|i| bytes(i, d)).collect());
            match merged.last_mut() {
                Some((outer, at)) if at.iter().zip(&step).all(|(o, s)| *o == s * n as isize) => (*outer, *at) = (*outer * n, step),
                _ => merged.push((n, step)),
            }
        }
        while merged.len() < 2 {
            merged.insert(0, (1, vec![0; operands.len()]));
        }
        let last = merged.len() - 1;
        let through = |d: usize| (1..operands.len()).any(|i| merged[d].1[i].unsigned_abs() == operands[i].dtype.bytes() && merged[last].1[i] != merged[d].1[i]);
        if let Some(d) = (0..last).find(|d| through(*d)) {
            let dim = merged.remove(d);
            merged.insert(last - 1, dim);
        }
        let mut space = Space { rank: merged.len(), shape: [1; MAX_RANK], stride: [[0; MAX_RANK]; MOST_OPERANDS] };
        for (d, (n, step)) in merged.into_iter().enumerate() {
            space.shape[d] = n;
            step.into_iter().enumerate().for_each(|(i, s)| space.stride[i][d] = s);
        }
        space
    }

    /// Extents of the two inner dimensions.
    pub fn inner(&self) -> (usize, usize) {
        (self.shape[self.rank - 2], self.shape[self.rank - 1])
    }
    /// An operand's byte strides along the two inner dimensions.
    pub fn inner_strides(&self, operand: usize) -> (isize, isize) {
        (self.stride[operand][self.rank - 2], self.stride[operand][self.rank - 1])
    }
    /// Whether an operand lies without gaps in the order of the walk.
    pub fn is_dense(&self, operand: usize, width: usize) -> bool {
        let mut step = width as isize;
        (0..self.rank).rev().all(|d| {
            let fits = self.shape[d] == 1 || self.stride[operand][d] == step;
            step *= self.shape[d] as isize;
            fits
        })
    }

    /// The space cut into blocks of the two inner dimensions.
    pub fn tiles(&self, rows: usize, cols: usize) -> Tiles {
        let (all_rows, all_cols) = self.inner();
        let (rows, cols) = (rows.clamp(1, all_rows.max(1)), cols.clamp(1, all_cols.max(1)));
        let (down, across) = (all_rows.div_ceil(rows), all_cols.div_ceil(cols));
        Tiles { rows, cols, across, per_slice: down * across, count: self.shape[..self.rank - 2].iter().product::<usize>() * down * across }
    }

    /// Block number `index`: its size, and each operand's byte offset.
    #[inline]
    pub fn tile(&self, tiles: &Tiles, index: usize) -> Tile {
        let (mut outer, within) = (index / tiles.per_slice, index % tiles.per_slice);
        let (row, col) = (within / tiles.across * tiles.rows, within % tiles.across * tiles.cols);
        let (all_rows, all_cols) = self.inner();
        let mut offset = [0isize; MOST_OPERANDS];
        let last = self.rank - 1;
        for (i, o) in offset.iter_mut().enumerate() {
            *o = row as isize * self.stride[i][last - 1] + col as isize * self.stride[i][last];
        }
        for d in (0..last - 1).rev() {
            let k = (outer % self.shape[d]) as isize;
            outer /= self.shape[d];
            for (i, o) in offset.iter_mut().enumerate() {
                *o += k * self.stride[i][d];
            }
        }
        Tile { rows: tiles.rows.min(all_rows - row), cols: tiles.cols.min(all_cols - col), offset }
    }
}

/// A cut of a space.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// Greatest block extents.
    pub rows: usize,
    /// See `rows`.
    pub cols: usize,
    across: usize,
    per_slice: usize,
    /// Number of blocks.
    pub count: usize,
}

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Extents.
    pub rows: usize,
    /// See `rows`.
    pub cols: usize,
    /// Byte offset of the block's first element, by operand.
    pub offset: [isize; MOST_OPERANDS],
}

/// An address that tasks of one call share; the call's operands are distinct, and tasks write disjoint parts.
#[derive(Clone, Copy)]
pub struct Address(pub *mut u8);
// SAFETY: who dereferences it answers for disjointness, as the type says.
unsafe impl Sync for Address {}
// SAFETY: as above.
unsafe impl Send for Address {}

impl Address {
    /// The address `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: isize) -> *mut u8 {
        self.0.wrapping_offset(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_backend_api::DType;

    #[test]
    fn dense_operands_become_one_row() {
        let t = Tensor::contiguous(DType::F32, &[4, 1, 5, 6]);
        let space = Space::new(&[4, 1, 5, 6], &[t, t]);
        assert_eq!((space.rank, space.inner()), (2, (1, 120)));
        assert!(space.is_dense(0, 4) && space.is_dense(1, 4));
    }

    #[test]
    fn a_transposed_operand_gets_its_dimension_next_to_the_innermost() {
        let y = Tensor::contiguous(DType::F32, &[8, 3, 16]);
        let x = Tensor::strided(DType::F32, &[8, 3, 16], &[1, 1000, 8]);
        let space = Space::new(&[8, 3, 16], &[y, x]);
        assert_eq!(space.shape[..3], [3, 8, 16]);
        assert_eq!(space.inner_strides(1), (4, 32));
    }

    #[test]
    fn tiles_cover_each_element_once() {
        let t = Tensor::strided(DType::U8, &[3, 5, 7], &[100, 10, 1]);
        let space = Space::new(&[3, 5, 7], &[t]);
        let tiles = space.tiles(2, 3);
        let mut seen = vec![0; 300];
        for i in 0..tiles.count {
            let tile = space.tile(&tiles, i);
            for r in 0..tile.rows {
                for c in 0..tile.cols {
                    seen[tile.offset[0] as usize + r * 10 + c] += 1;
                }
            }
        }
        assert_eq!(seen.iter().filter(|n| **n == 1).count(), 105);
        assert!(seen.iter().all(|n| *n <= 1));
    }
}
