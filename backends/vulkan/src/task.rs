//! What a stream can be told to do.
#![deny(unsafe_code)]

use std::sync::Arc;

use crate::alloc::Place;
use crate::module::Pipeline;
use crate::timeline::Timeline;

/// A host address in a task; the host keeps the range valid until the stream passed the task.
pub struct HostAddress(pub *mut u8);

// SAFETY: an address may be sent; the contract has the host leave the range alone until the stream passed the task.
#[allow(unsafe_code)]
unsafe impl Send for HostAddress {}

/// Arguments that fit into push constants.
pub const INLINE_ARGS: usize = 16;

/// Arguments of a launch, 8 bytes each.
pub enum Args {
    /// As many as push constants hold; unused ones are 0.
    Inline([u64; INLINE_ARGS]),
    /// More.
    Block(Box<[u64]>),
}

/// A pattern, cut to its shortest period.
#[derive(Clone, Copy)]
pub struct Pattern {
    bytes: [u8; 16],
    length: usize,
}

impl Pattern {
    /// A pattern of 1, 2, 4, 8 or 16 bytes.
    pub fn new(pattern: &[u8]) -> Pattern {
        let mut length = pattern.len();
        while length > 1 && pattern[..length / 2] == pattern[length / 2..length] {
            length /= 2;
        }
        let mut bytes = [0; 16];
        bytes[..length].copy_from_slice(&pattern[..length]);
        Pattern { bytes, length }
    }

    /// Writes what stands from byte `at` of the filled range on.
    pub fn write(&self, at: u64, out: &mut [u8]) {
        let start = (at % self.length as u64) as usize;
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.bytes[(start + i) % self.length];
        }
    }

    /// The word that repeats from byte `at` on, when the period is 4 bytes or less.
    pub fn word(&self, at: u64) -> Option<u32> {
        let mut word = [0; 4];
        self.write(at, &mut word);
        (self.length <= 4).then(|| u32::from_le_bytes(word))
    }
}

/// One piece of work. It owns what it needs, so that nothing has to be allocated to enqueue it: launches are not boxed either.
#[allow(clippy::large_enum_variant)]
pub enum Task {
    /// A kernel over a grid of blocks.
    Launch {
        /// The kernel, alive until the launch is over.
        pipeline: Arc<Pipeline>,
        /// Blocks per axis.
        grid: [u32; 3],
        /// Arguments.
        args: Args,
    },
    /// Device to host.
    Read {
        /// From.
        src: Place,
        /// To.
        dst: HostAddress,
        /// How many.
        bytes: u64,
    },
    /// Host to device.
    Write {
        /// To.
        dst: Place,
        /// From.
        src: HostAddress,
        /// How many.
        bytes: u64,
    },
    /// Within the device.
    Copy {
        /// To.
        dst: Place,
        /// From.
        src: Place,
        /// How many.
        bytes: u64,
    },
    /// A repeated pattern.
    Fill {
        /// To.
        dst: Place,
        /// Pattern.
        pattern: Pattern,
        /// How many.
        bytes: u64,
    },
    /// Raise a timeline.
    Signal(Arc<Timeline>, u64),
    /// Wait for a timeline.
    Wait(Arc<Timeline>, u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_their_shortest_period() {
        assert_eq!(Pattern::new(&[7; 16]).word(5), Some(0x0707_0707));
        assert_eq!(Pattern::new(&[1, 2, 3, 4, 1, 2, 3, 4]).word(1), Some(0x0104_0302));
        let long = Pattern::new(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(long.word(0), None);
        let mut out = [0; 4];
        long.write(6, &mut out);
        assert_eq!(out, [7, 8, 1, 2]);
    }
}
