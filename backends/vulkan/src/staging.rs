//! Staging: pieces of host memory the device reaches, by which copies with the host's own memory and long argument lists go.

use std::sync::Mutex;

use flagos_backend_api::{MemoryKind, Result};

use crate::alloc::Allocation;
use crate::device::Chip;
use crate::instance::lock;
use crate::ranges::GRAIN;

/// Bytes of a piece: large enough that copying it takes longer than submitting the copy.
pub const PIECE_BYTES: u64 = 2 << 20;
/// Pieces kept for the next stream; more go back.
const KEPT: usize = 16;

/// Pieces not in use, of all streams of a device.
#[derive(Default)]
pub struct Staging(Mutex<Vec<Allocation>>);

impl Staging {
    /// A piece.
    pub fn take(&self, chip: &Chip) -> Result<Allocation> {
        if let Some(piece) = lock(&self.0).pop() {
            return Ok(piece);
        }
        chip.memory.alloc(&chip.calls, MemoryKind::HOST_PINNED, PIECE_BYTES, GRAIN)
    }

    /// Gives a piece back that no work uses any more.
    pub fn give(&self, chip: &Chip, piece: Allocation) {
        let mut pieces = lock(&self.0);
        if pieces.len() < KEPT {
            pieces.push(piece);
        } else {
            drop(pieces);
            chip.memory.free(&chip.calls, &piece);
        }
    }

    /// Frees what is kept.
    pub fn trim(&self, chip: &Chip) {
        let pieces = core::mem::take(&mut *lock(&self.0));
        pieces.iter().for_each(|p| chip.memory.free(&chip.calls, p));
    }
}
