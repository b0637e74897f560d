//! The pool of device memory: pieces of one growing range, so that a request that finds a hole costs no call of the driver.

use std::fmt::Display;

use cudarc::driver::sys;
use flagos_backend_api::{Code, Error, Result};

use crate::arena::{Arena, GRAIN, Piece, worth_stripping};
use crate::driver::{Ordinal, check};
use crate::pages::Pages;

/// Memory is taken in steps of a sixteenth of what is held, at most so much, or as a request needs.
const STEP_BYTES: u64 = 64 << 20;

/// The pool of one device.
pub struct Pool {
    device: Ordinal,
    arena: Arena,
    pages: Option<Pages>,
    maps: bool,
}

/// Memory from the pool.
pub enum Taken {
    /// A piece of the range; its address.
    Piece(Piece, u64),
    /// A driver's allocation, on devices that cannot map memory.
    Direct(u64),
}

impl Pool {
    /// An empty pool.
    pub fn new(device: Ordinal) -> Pool {
        Pool { device, arena: Arena::default(), pages: None, maps: Pages::possible(device) }
    }

    /// A piece from a hole, without a call of the driver.
    #[inline]
    pub fn take(&mut self, bytes: u64, alignment: u64) -> Option<Taken> {
        let base = self.pages.as_ref()?.base();
        let piece = self.arena.take(bytes, alignment)?;
        let address = base + self.arena.offset(&piece);
        Some(Taken::Piece(piece, address))
    }

    /// As [`take`](Pool::take) with more memory from the driver. The context is current.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, with what is held; the pool stays as usable as before.
    pub fn take_more(&mut self, bytes: u64, alignment: u64) -> Result<Taken> {
        let held = |pages: &Option<Pages>| pages.as_ref().map_or(0, Pages::held);
        let total = self.device.memory_bytes();
        let exhausted = |why: &dyn Display, held: u64| {
            Error::new(Code::RESOURCE_EXHAUSTED, format!("{bytes} bytes of device memory are not to be had: {why}; the pool holds {held} of the device's {total}"))
        };
        if bytes > total || alignment > 1 << 30 {
            return Err(exhausted(&"that is more than there is", held(&self.pages)));
        }
        if !self.maps {
            let mut address = 0;
            // SAFETY: the context is current; the place is writable.
            check(unsafe { sys::cuMemAlloc_v2(&mut address, bytes as usize) }, "cuMemAlloc").map_err(|e| exhausted(&e.message, 0))?;
            return Ok(Taken::Direct(address));
        }
        if self.pages.is_none() {
            self.pages = Some(Pages::reserve(self.device)?);
        }
        match self.grow(bytes + alignment.saturating_sub(GRAIN)) {
            Err(e) if e.code == Code::RESOURCE_EXHAUSTED => return Err(exhausted(&e.message, held(&self.pages))),
            other => other?,
        }
        self.take(bytes, alignment).ok_or_else(|| exhausted(&"the range of addresses is used up", held(&self.pages)))
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        let Some(pages) = &mut self.pages else { return Ok(()) };
        if worth_stripping(pages.held(), self.arena.used()) {
            strip(&mut self.arena, pages);
        }
        let unit = pages.granularity();
        let round = |n: u64| n.next_multiple_of(unit);
        let needed = round(bytes);
        let step = round((pages.held() / 16).min(STEP_BYTES));
        let attempts = [needed.max(step), needed];
        let mut last = None;
        for want in attempts.into_iter().chain([needed]) {
            match back(&mut self.arena, pages, want) {
                Ok(()) => return Ok(()),
                Err(e) if e.code == Code::RESOURCE_EXHAUSTED => last = Some(e),
                Err(e) => return Err(e),
            }
            if want == needed {
                strip(&mut self.arena, pages);
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Gives a piece or an allocation back; no work uses it. The context is current when it is an allocation.
    pub fn give(&mut self, taken: Taken) {
        match taken {
            Taken::Piece(piece, _) => self.arena.give(piece),
            // SAFETY: an address from `cuMemAlloc`, freed once.
            Taken::Direct(address) => drop(unsafe { sys::cuMemFree_v2(address) }),
        }
    }

    /// Gives memory in holes back to the driver. The context is current.
    pub fn trim(&mut self) {
        if let Some(pages) = &mut self.pages {
            strip(&mut self.arena, pages);
        }
    }

    /// Lets another device reach the pool's memory; whether it can. The context is current.
    pub fn allow(&mut self, device: Ordinal) -> bool {
        if self.maps && self.pages.is_none() {
            self.pages = Pages::reserve(self.device).ok();
        }
        self.pages.as_mut().is_some_and(|p| p.allow(device).is_ok())
    }

    /// Drops everything. The context is current.
    pub fn clear(&mut self) {
        self.pages = None;
        self.arena = Arena::default();
    }
}

/// Puts memory behind a bare hole, or behind the end of the range.
fn back(arena: &mut Arena, pages: &mut Pages, bytes: u64) -> Result<()> {
    if let Some(offset) = arena.bare(bytes) {
        pages.back(offset, bytes)?;
        arena.revive(offset, bytes);
        return Ok(());
    }
    // A hole at the end is made longer instead of being left behind. Chunks begin at multiples of the granularity because all have such lengths.
    let more = bytes.saturating_sub(arena.tail()).next_multiple_of(pages.granularity()).max(pages.granularity());
    let end = arena.end();
    if end + more > pages.reserved() {
        return Err(Error::new(Code::RESOURCE_EXHAUSTED, "the range of addresses is used up"));
    }
    pages.back(end, more)?;
    arena.extend(more);
    Ok(())
}

fn strip(arena: &mut Arena, pages: &mut Pages) {
    let chunks: Vec<(u64, u64)> = pages.chunks().collect();
    for offset in arena.strip(chunks.into_iter()) {
        pages.strip(offset);
    }
}
