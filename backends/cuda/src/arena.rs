//! A growing range of offsets handed out in pieces: two-level segregated fit (Masmano et al. 2004), constant time, with holes whose memory was given back.
//!
//! Knows nothing of devices. Freed pieces join their neighbours at once. A hole may be *bare*: it has addresses but no memory behind it, until
//! [`Arena::revive`] says that there is some again.
#![forbid(unsafe_code)]

/// Unit and alignment of pieces in bytes: what `cudaMalloc` aligns to.
pub const GRAIN: u64 = 256;
/// Second-level bins per power of two; a piece is at most 1/32 longer than the bin says.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const LEVELS: usize = 48;
/// Entries of the request's own bin that are looked at before a larger bin is taken.
const LOOKS: usize = 16;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Used,
    Free,
    Bare,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    offset: u64,
    bytes: u64,
    /// Neighbours by address.
    before: u32,
    after: u32,
    /// Neighbours in the bin.
    previous: u32,
    next: u32,
    state: State,
}

/// A piece handed out; given back by value.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece(u32);

/// The allocator.
pub struct Arena {
    blocks: Vec<Block>,
    vacant: Vec<u32>,
    bins: Vec<u32>,
    levels: u64,
    steps: [u32; LEVELS],
    first: u32,
    last: u32,
    used: u64,
}

/// Whether so much memory lies idle in holes that giving back what chunks lie in them pays before more is taken.
pub fn worth_stripping(held_bytes: u64, used_bytes: u64) -> bool {
    held_bytes - used_bytes > held_bytes / 4
}

fn bin_of(grains: u64) -> (usize, usize) {
    if grains < STEPS as u64 {
        return (0, grains as usize);
    }
    let level = grains.ilog2() - STEP_BITS + 1;
    (level as usize, (grains >> (level - 1)) as usize & (STEPS - 1))
}

impl Default for Arena {
    fn default() -> Arena {
        Arena { blocks: Vec::new(), vacant: Vec::new(), bins: vec![NONE; LEVELS * STEPS], levels: 0, steps: [0; LEVELS], first: NONE, last: NONE, used: 0 }
    }
}

impl Arena {
    fn at(&mut self, index: u32) -> &mut Block {
        &mut self.blocks[index as usize]
    }

    /// End of the range: one past the highest offset that has or had memory.
    pub fn end(&self) -> u64 {
        self.blocks.get(self.last as usize).map_or(0, |b| b.offset + b.bytes)
    }
    /// Bytes handed out.
    pub fn used(&self) -> u64 {
        self.used
    }
    /// Free bytes at the very end of the range.
    pub fn tail(&self) -> u64 {
        self.blocks.get(self.last as usize).filter(|b| b.state == State::Free).map_or(0, |b| b.bytes)
    }
    /// Offset of a piece.
    pub fn offset(&self, piece: &Piece) -> u64 {
        self.blocks[piece.0 as usize].offset
    }

    /// Hands out a piece of at least `bytes`, aligned to `alignment` (a power of two); `None` when no hole is long enough.
    pub fn take(&mut self, bytes: u64, alignment: u64) -> Option<Piece> {
        let bytes = bytes.checked_next_multiple_of(GRAIN)?;
        let slack = alignment.saturating_sub(GRAIN);
        let index = self.find(bytes.checked_add(slack)? / GRAIN)?;
        self.unlink(index);
        let offset = self.at(index).offset;
        let gap = offset.next_multiple_of(alignment.max(GRAIN)) - offset;
        let index = if gap > 0 {
            let rest = self.split(index, gap);
            self.link(index);
            rest
        } else {
            index
        };
        if self.at(index).bytes > bytes {
            let rest = self.split(index, bytes);
            self.link(rest);
        }
        self.at(index).state = State::Used;
        self.used += bytes;
        Some(Piece(index))
    }

    /// Takes a piece back.
    pub fn give(&mut self, piece: Piece) {
        self.used -= self.at(piece.0).bytes;
        let joined = self.join(piece.0, State::Free);
        self.link(joined);
    }

    /// Adds `bytes` with memory at the end.
    pub fn extend(&mut self, bytes: u64) {
        let block = Block { offset: self.end(), bytes, before: self.last, after: NONE, previous: NONE, next: NONE, state: State::Used };
        let index = self.store(block);
        if self.last == NONE { self.first = index } else { let last = self.last; self.at(last).after = index }
        self.last = index;
        let joined = self.join(index, State::Free);
        self.link(joined);
    }

    /// The first bare hole of at least `bytes`: its offset.
    pub fn bare(&self, bytes: u64) -> Option<u64> {
        self.blocks.iter().filter(|b| b.state == State::Bare && b.bytes >= bytes).map(|b| b.offset).min()
    }

    /// The first `bytes` of the bare hole at `offset` have memory again.
    pub fn revive(&mut self, offset: u64, bytes: u64) {
        let Some(index) = self.blocks.iter().position(|b| b.state == State::Bare && b.offset == offset) else { return };
        let index = index as u32;
        if self.at(index).bytes > bytes {
            let rest = self.split(index, bytes);
            self.at(rest).state = State::Bare;
        }
        let joined = self.join(index, State::Free);
        self.link(joined);
    }

    /// Which of the given ranges (ascending, with memory) lie in holes as a whole: they become bare, and their memory may go.
    pub fn strip(&mut self, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        let (mut index, mut gone) = (self.first, Vec::new());
        for (offset, bytes) in ranges {
            while index != NONE && self.at(index).offset + self.at(index).bytes <= offset {
                index = self.at(index).after;
            }
            if index == NONE {
                break;
            }
            let block = *self.at(index);
            if block.state != State::Free || block.offset + block.bytes < offset + bytes {
                continue;
            }
            self.unlink(index);
            let middle = if block.offset < offset {
                let middle = self.split(index, offset - block.offset);
                self.link(index);
                middle
            } else {
                index
            };
            if self.at(middle).bytes > bytes {
                let rest = self.split(middle, bytes);
                self.link(rest);
            }
            index = self.join(middle, State::Bare);
            gone.push(offset);
        }
        self.drop_bare_end();
        gone
    }

    /// A bare hole at the end is no part of the range.
    fn drop_bare_end(&mut self) {
        let last = self.last;
        if last == NONE || self.at(last).state != State::Bare {
            return;
        }
        self.last = self.at(last).before;
        if self.last == NONE { self.first = NONE } else { let last = self.last; self.at(last).after = NONE }
        self.discard(last);
    }

    fn store(&mut self, block: Block) -> u32 {
        match self.vacant.pop() {
            Some(index) => {
                *self.at(index) = block;
                index
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        }
    }

    fn discard(&mut self, index: u32) {
        // Its state must not look like a hole to `bare` and `revive`.
        self.at(index).state = State::Used;
        self.vacant.push(index);
    }

    /// Cuts a block that is in no bin; the part behind `bytes` is new, in no bin and has the same state.
    fn split(&mut self, index: u32, bytes: u64) -> u32 {
        let block = *self.at(index);
        let rest = self.store(Block { offset: block.offset + bytes, bytes: block.bytes - bytes, before: index, ..block });
        if block.after == NONE { self.last = rest } else { self.at(block.after).before = rest }
        let front = self.at(index);
        (front.bytes, front.after) = (bytes, rest);
        rest
    }

    /// Gives a block that is in no bin a state, and joins it with neighbours of the same state; what comes out is in no bin.
    fn join(&mut self, index: u32, state: State) -> u32 {
        self.at(index).state = state;
        let (mut index, Block { before, after, .. }) = (index, *self.at(index));
        if after != NONE && self.at(after).state == state {
            self.absorb(index, after);
        }
        if before != NONE && self.at(before).state == state {
            if state == State::Free {
                self.unlink(before);
            }
            let own = index;
            index = before;
            // `own` is in no bin: it is not unlinked.
            self.swallow(index, own);
        }
        index
    }

    fn absorb(&mut self, index: u32, after: u32) {
        if self.at(after).state == State::Free {
            self.unlink(after);
        }
        self.swallow(index, after);
    }

    fn swallow(&mut self, index: u32, after: u32) {
        let behind = *self.at(after);
        let front = self.at(index);
        front.bytes += behind.bytes;
        front.after = behind.after;
        if behind.after == NONE { self.last = index } else { self.at(behind.after).before = index }
        self.discard(after);
    }

    fn link(&mut self, index: u32) {
        let (level, step) = bin_of(self.at(index).bytes / GRAIN);
        let head = self.bins[level * STEPS + step];
        let block = self.at(index);
        (block.state, block.previous, block.next) = (State::Free, NONE, head);
        if head != NONE {
            self.at(head).previous = index;
        }
        self.bins[level * STEPS + step] = index;
        self.levels |= 1 << level;
        self.steps[level] |= 1 << step;
    }

    fn unlink(&mut self, index: u32) {
        let block = *self.at(index);
        if block.next != NONE {
            self.at(block.next).previous = block.previous;
        }
        if block.previous != NONE {
            self.at(block.previous).next = block.next;
            return;
        }
        let (level, step) = bin_of(block.bytes / GRAIN);
        self.bins[level * STEPS + step] = block.next;
        if block.next == NONE {
            self.steps[level] &= !(1 << step);
            if self.steps[level] == 0 {
                self.levels &= !(1 << level);
            }
        }
    }

    /// The shortest of a few holes in the request's own bin that is long enough, else of the next bin; of equals the lowest.
    fn find(&self, grains: u64) -> Option<u32> {
        let (level, step) = bin_of(grains);
        if level >= LEVELS {
            return None;
        }
        if let Some(index) = self.best(level, step, grains) {
            return Some(index);
        }
        let above = self.steps[level] & u32::MAX.checked_shl(step as u32 + 1).unwrap_or(0);
        if above != 0 {
            return self.best(level, above.trailing_zeros() as usize, grains);
        }
        let levels = self.levels & u64::MAX.checked_shl(level as u32 + 1).unwrap_or(0);
        if levels == 0 {
            return None;
        }
        let level = levels.trailing_zeros() as usize;
        self.best(level, self.steps[level].trailing_zeros() as usize, grains)
    }

    fn best(&self, level: usize, step: usize, grains: u64) -> Option<u32> {
        let (mut best, mut index) = (None, self.bins[level * STEPS + step]);
        for _ in 0..LOOKS {
            let Some(block) = self.blocks.get(index as usize) else { break };
            let rank = (block.bytes, block.offset);
            if block.bytes >= grains * GRAIN && best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, index));
            }
            index = block.next;
        }
        best.map(|b| b.1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Random(u64);
    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % n
        }
    }

    /// Blocks cover the range without gaps, neighbours of one state are joined, bins hold the free ones.
    fn audit(arena: &Arena) {
        let (mut index, mut offset, mut before, mut free) = (arena.first, 0, None, 0);
        while index != NONE {
            let b = arena.blocks[index as usize];
            assert_eq!(b.offset, offset);
            assert!(b.bytes > 0 && (b.state == State::Used || before != Some(b.state)));
            free += usize::from(b.state == State::Free);
            (offset, before, index) = (b.offset + b.bytes, Some(b.state), b.after);
        }
        assert_eq!(offset, arena.end());
        let mut linked = 0;
        for (bin, head) in arena.bins.iter().enumerate() {
            let mut index = *head;
            while index != NONE {
                let b = arena.blocks[index as usize];
                assert_eq!((b.state, bin_of(b.bytes / GRAIN)), (State::Free, (bin / STEPS, bin % STEPS)));
                (linked, index) = (linked + 1, b.next);
            }
        }
        assert_eq!(linked, free);
    }

    #[test]
    fn pieces_are_apart_aligned_and_come_back() {
        let mut arena = Arena::default();
        let (mut random, mut live) = (Random(7), BTreeMap::<u64, (Piece, u64)>::new());
        let mut chunks: Vec<(u64, u64)> = Vec::new();
        for step in 0..20_000 {
            if random.below(100) < 55 {
                let (scale, alignment) = (random.below(18), 1 << random.below(14));
                let bytes = 1 + random.below(16 << scale);
                let piece = arena.take(bytes, alignment).unwrap_or_else(|| {
                    let more = (bytes + alignment).next_multiple_of(1 << 21);
                    if let Some(offset) = arena.bare(more) {
                        arena.revive(offset, more);
                        chunks.push((offset, more));
                    } else {
                        chunks.push((arena.end(), more));
                        arena.extend(more);
                    }
                    arena.take(bytes, alignment).unwrap()
                });
                let offset = arena.offset(&piece);
                assert_eq!(offset % alignment, 0);
                assert!(live.range(..=offset).next_back().is_none_or(|(at, (_, n))| at + n <= offset));
                assert!(live.range(offset..).next().is_none_or(|(at, _)| offset + bytes <= *at));
                live.insert(offset, (piece, bytes));
            } else if !live.is_empty() {
                let at = *live.keys().nth(random.below(live.len() as u64) as usize).unwrap();
                arena.give(live.remove(&at).unwrap().0);
            }
            if step % 1000 == 999 {
                chunks.sort_unstable();
                let gone = arena.strip(chunks.iter().copied());
                chunks.retain(|c| !gone.contains(&c.0));
                // What is in use still has memory.
                assert!(live.iter().all(|(at, (_, n))| (*at..at + n).step_by(4096).all(|x| chunks.iter().any(|c| c.0 <= x && x < c.0 + c.1))));
                audit(&arena);
            }
        }
        live.into_values().for_each(|(piece, _)| arena.give(piece));
        chunks.sort_unstable();
        let gone = arena.strip(chunks.iter().copied());
        assert_eq!((gone.len(), arena.used(), arena.end()), (chunks.len(), 0, 0));
    }

    /// Memory stays close to what is live: 10⁵ random requests, sizes spread evenly over powers of two, memory in chunks of 2 MiB.
    #[test]
    fn fragmentation_is_low() {
        // Up to 2 MiB, as many small tensors; up to 16 MiB, where a few hundred large pieces are most of what is live and leave holes of their own size.
        random_requests(14, 1.15);
        random_requests(17, 1.25);
    }

    fn random_requests(scales: u64, most_ratio: f64) {
        const CHUNK: u64 = 2 << 20;
        for seed in 1..=4 {
            let (mut arena, mut random, mut live) = (Arena::default(), Random(seed), Vec::new());
            let (mut now, mut peak, mut most, mut strips) = (0u64, 0u64, 0u64, 0);
            let mut chunks = std::collections::BTreeSet::new();
            for _ in 0..100_000 {
                let grow = if now < 2 << 30 { 60 } else { 40 };
                if random.below(100) < grow || live.is_empty() {
                    let scale = random.below(scales);
                    let bytes = 256 + random.below(256 << scale);
                    let piece = arena.take(bytes, GRAIN).unwrap_or_else(|| {
                        if worth_stripping(chunks.len() as u64 * CHUNK, arena.used()) {
                            strips += 1;
                            arena.strip(chunks.iter().map(|c| (*c, CHUNK))).iter().for_each(|c| assert!(chunks.remove(c)));
                        }
                        let more = bytes.next_multiple_of(GRAIN).saturating_sub(arena.tail()).next_multiple_of(CHUNK);
                        chunks.extend((arena.end()..arena.end() + more).step_by(CHUNK as usize));
                        arena.extend(more);
                        arena.take(bytes, GRAIN).unwrap()
                    });
                    live.push((piece, bytes));
                    now += bytes;
                } else {
                    let (piece, bytes) = live.swap_remove(random.below(live.len() as u64) as usize);
                    arena.give(piece);
                    now -= bytes;
                }
                (peak, most) = (peak.max(now), most.max(chunks.len() as u64 * CHUNK));
            }
            let ratio = most as f64 / peak as f64;
            println!("{scales} scales, seed {seed}: peak {peak}, memory {most}, ratio {ratio:.3}, {strips} strips");
            assert!(ratio <= most_ratio, "seed {seed}: {most} bytes of memory for at most {peak} live: {ratio:.3}");
        }
    }

    #[test]
    fn requests_beyond_reason_are_refused() {
        let mut arena = Arena::default();
        arena.extend(1 << 21);
        for bytes in [u64::MAX, u64::MAX - 4096, 1 << 60, (1 << 21) + 1] {
            assert_eq!(arena.take(bytes, 256), None);
        }
        assert!(arena.take(1 << 21, 256).is_some());
    }
}
