//! Loops over several tensors of one shape, with axes merged where all of them allow it.

/// Axes of N tensors, outermost first.
#[derive(Clone, Debug)]
pub struct Axes<const N: usize> {
    axes: Vec<(usize, [isize; N])>,
}

/// Most axes.
const MOST: usize = 16;

impl<const N: usize> Axes<N> {
    /// Axes of a shape; `strides` in elements, per tensor. Extents of 1 vanish, neighbours dense in all tensors become one.
    pub fn new(shape: &[i64], strides: [&[i64]; N]) -> Axes<N> {
        let mut axes: Vec<(usize, [isize; N])> = Vec::new();
        for (d, &n) in shape.iter().enumerate().filter(|(_, n)| **n != 1) {
            let own: [isize; N] = core::array::from_fn(|t| strides[t][d] as isize);
            match axes.last_mut() {
                Some((extent, outer)) if (0..N).all(|t| outer[t] == own[t] * n as isize) => (*extent, *outer) = (*extent * n as usize, own),
                _ => axes.push((n as usize, own)),
            }
        }
        Axes { axes }
    }
    /// Number of positions; 1 without axes.
    pub fn count(&self) -> usize {
        self.axes.iter().map(|a| a.0).product()
    }
    /// The innermost axis: extent and strides; (1, 0…) without axes.
    pub fn last(&self) -> (usize, [isize; N]) {
        self.axes.last().copied().unwrap_or((1, [0; N]))
    }
    /// All but the innermost axis.
    pub fn outer(&self) -> Axes<N> {
        Axes { axes: self.axes[..self.axes.len().saturating_sub(1)].to_vec() }
    }
    /// Axes outside of others.
    pub fn around(&self, inner: &Axes<N>) -> Axes<N> {
        Axes { axes: [self.axes.as_slice(), &inner.axes].concat() }
    }
    /// Element offsets of a position.
    pub fn offsets(&self, flat: usize) -> [isize; N] {
        let (mut rest, mut at) = (flat, [0; N]);
        for (extent, strides) in self.axes.iter().rev() {
            let i = (rest % extent) as isize;
            rest /= extent;
            (0..N).for_each(|t| at[t] += i * strides[t]);
        }
        at
    }
    /// Visits positions of a range in order, with their element offsets.
    #[inline(always)]
    pub fn walk(&self, range: core::ops::Range<usize>, mut visit: impl FnMut(usize, [isize; N])) {
        if range.is_empty() {
            return;
        }
        let rank = self.axes.len();
        let (mut index, mut rest, mut at) = ([0usize; MOST], range.start, self.offsets(range.start));
        for d in (0..rank).rev() {
            index[d] = rest % self.axes[d].0;
            rest /= self.axes[d].0;
        }
        for flat in range {
            visit(flat, at);
            for d in (0..rank).rev() {
                let (extent, strides) = &self.axes[d];
                index[d] += 1;
                (0..N).for_each(|t| at[t] += strides[t]);
                if index[d] < *extent {
                    break;
                }
                index[d] = 0;
                (0..N).for_each(|t| at[t] -= strides[t] * *extent as isize);
            }
        }
    }
}
