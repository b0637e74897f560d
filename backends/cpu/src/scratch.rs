//! Workspace shared out to the tasks of one run: each running task holds one slot.

use std::sync::atomic::{AtomicU64, Ordering};

/// Alignment of everything in a workspace, in bytes.
pub const ALIGN: usize = 64;

/// `bytes`, rounded up so that what follows stays aligned.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Operand addresses, shared with the tasks of a run.
pub struct Bases<'a>(pub &'a [*mut u8]);

// SAFETY: addresses only; what tasks do with them is theirs to justify.
unsafe impl Sync for Bases<'_> {}

impl Bases<'_> {
    /// Address of operand `i`.
    pub fn get(&self, i: usize) -> *mut u8 {
        self.0[i]
    }
}

/// Slots of equal size, at most 256.
pub struct Slots {
    base: *mut u8,
    bytes: usize,
    count: usize,
    taken: [AtomicU64; 4],
}

// SAFETY: a slot belongs to one task at a time, which the bits of `taken` decide.
unsafe impl Sync for Slots {}

impl Slots {
    /// Slots a plan should count with for `threads`.
    pub fn count(threads: usize) -> usize {
        threads.clamp(1, 256)
    }
    /// Workspace in bytes for `threads` slots of `bytes`.
    pub fn workspace(threads: usize, bytes: usize) -> usize {
        Slots::count(threads) * padded(bytes)
    }
    /// Slots over a workspace of [`Slots::workspace`] bytes.
    pub fn new(base: *mut u8, threads: usize, bytes: usize) -> Slots {
        Slots { base, bytes: padded(bytes), count: Slots::count(threads), taken: Default::default() }
    }
    /// Lends a slot to `f`. Waits while all are lent, which only happens when more threads run than were planned for.
    pub fn with<R>(&self, f: impl FnOnce(*mut u8) -> R) -> R {
        loop {
            for i in 0..self.count {
                let (word, bit) = (&self.taken[i / 64], 1u64 << (i % 64));
                if word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Acquire) & bit == 0 {
                    let result = f(self.base.wrapping_add(i * self.bytes));
                    word.fetch_and(!bit, Ordering::Release);
                    return result;
                }
            }
            std::thread::yield_now();
        }
    }
}
