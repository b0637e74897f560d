//! Free ranges of one block of memory: best fit, merged when given back.
#![deny(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

/// Ranges are multiples of this many bytes, which is also what buffers are aligned to.
pub const GRAIN: u64 = 256;

/// The free ranges of a block.
pub struct Ranges {
    by_offset: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    bytes: u64,
    free: u64,
}

impl Ranges {
    /// One free range of `bytes`, a multiple of the grain.
    pub fn new(bytes: u64) -> Ranges {
        Ranges { by_offset: BTreeMap::from([(0, bytes)]), by_size: BTreeSet::from([(bytes, 0)]), bytes, free: bytes }
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.free == self.bytes
    }

    /// Takes `bytes`, a multiple of the grain, where `base` + offset is a multiple of `alignment`; the offset.
    pub fn take(&mut self, bytes: u64, alignment: u64, base: u64) -> Option<u64> {
        let place = |start: u64| (base + start).checked_next_multiple_of(alignment).map(|a| a - base);
        let fits = |&(size, start): &(u64, u64)| place(start).and_then(|at| at.checked_add(bytes)).is_some_and(|end| end <= start + size);
        let (size, start) = self.by_size.range((bytes, 0)..).copied().find(fits)?;
        let at = place(start)?;
        self.remove(start, size);
        self.insert(start, at - start);
        self.insert(at + bytes, start + size - at - bytes);
        Some(at)
    }

    /// Gives a range back.
    pub fn give(&mut self, offset: u64, bytes: u64) {
        let (mut start, mut size) = (offset, bytes);
        if let Some((&before, &length)) = self.by_offset.range(..offset).next_back()
            && before + length == offset
        {
            self.remove(before, length);
            (start, size) = (before, size + length);
        }
        if let Some(&length) = self.by_offset.get(&(offset + bytes)) {
            self.remove(offset + bytes, length);
            size += length;
        }
        self.insert(start, size);
    }

    fn insert(&mut self, offset: u64, bytes: u64) {
        if bytes > 0 {
            self.by_offset.insert(offset, bytes);
            self.by_size.insert((bytes, offset));
            self.free += bytes;
        }
    }

    fn remove(&mut self, offset: u64, bytes: u64) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(bytes, offset));
        self.free -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand steps of taking and giving back, from a generator with a fixed seed.
    #[test]
    fn ranges_never_overlap_and_all_come_back() {
        const BYTES: u64 = 1 << 20;
        let (base, mut ranges, mut live) = (3 * GRAIN, Ranges::new(BYTES), Vec::<(u64, u64)>::new());
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut refused = 0;
        for _ in 0..1000 {
            if next(3) > 0 || live.is_empty() {
                let (bytes, alignment) = (GRAIN * (1 + next(200)), GRAIN << next(6));
                match ranges.take(bytes, alignment, base) {
                    Some(at) => {
                        assert_eq!((base + at) % alignment, 0);
                        assert!(at + bytes <= BYTES);
                        assert!(live.iter().all(|&(o, n)| at + bytes <= o || o + n <= at), "{at}+{bytes} overlaps");
                        live.push((at, bytes));
                    }
                    None => refused += 1,
                }
            } else {
                let (at, bytes) = live.swap_remove(next(live.len() as u64) as usize);
                ranges.give(at, bytes);
            }
            assert_eq!(ranges.free() + live.iter().map(|l| l.1).sum::<u64>(), BYTES);
        }
        assert!(refused > 0, "the block was never full");
        for (at, bytes) in live {
            ranges.give(at, bytes);
        }
        assert!(ranges.is_empty());
        assert_eq!(ranges.take(BYTES, GRAIN, base), Some(0), "all ranges are merged");
        assert_eq!(ranges.take(GRAIN, GRAIN, base), None);
    }

    #[test]
    fn nothing_overflows() {
        let mut ranges = Ranges::new(GRAIN);
        assert_eq!(ranges.take(!(GRAIN - 1), GRAIN, 0), None);
        assert_eq!(ranges.take(GRAIN, 1 << 63, (1 << 63) + GRAIN), None);
    }
}
