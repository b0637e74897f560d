//! Global buffers by address, and shared arrays that notice races.

use crate::Elem;
use crate::run::Arg;
use crate::thread::interpret::scalar::mask;
use crate::thread::{Kernel, SharedInfo};

/// Distance of the buffers' addresses: far enough that a wild index meets no other buffer.
const SPACING: u64 = 1 << 40;

/// Address of argument `index`.
pub fn address(index: usize) -> u64 {
    (index as u64 + 1) * SPACING
}

/// Where an address lies: argument, offset in bytes from its start.
fn locate(address: u64) -> (usize, i64) {
    let nearest = (address.wrapping_add(SPACING / 2)) / SPACING;
    (nearest.wrapping_sub(1) as usize, address.wrapping_sub(nearest.wrapping_mul(SPACING)) as i64)
}

/// The bytes of one element, or what is wrong with the address.
pub fn global(args: &mut [Arg], address: u64, elem: Elem) -> Result<&mut [u8], String> {
    let size = elem.bytes() as usize;
    let (index, offset) = locate(address);
    match args.get_mut(index) {
        Some(Arg::Buffer(bytes)) => {
            let len = bytes.len();
            let start = usize::try_from(offset).ok().filter(|s| s + size <= len);
            let start = start.ok_or_else(|| format!("byte {offset} of argument {index}, which has {len} bytes"))?;
            if !offset.unsigned_abs().is_multiple_of(u64::from(elem.bytes())) {
                return Err(format!("byte {offset} of argument {index}, no multiple of the element's {size} bytes"));
            }
            Ok(&mut bytes[start..start + size])
        }
        _ => Err(format!("address {address:#x}, where no buffer lies")),
    }
}

/// Bits of an element in memory.
pub fn read(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b))
}

/// Writes an element's bits.
pub fn write(bytes: &mut [u8], bits: u64) {
    for (i, b) in bytes.iter_mut().enumerate() {
        *b = (bits >> (8 * i)) as u8;
    }
}

/// Who touches shared memory: a thread, its subgroup and how many barriers of the subgroup it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Thread of the block.
    pub thread: u32,
    /// Its subgroup.
    pub subgroup: u32,
    /// Subgroup barriers passed.
    pub step: u32,
    /// Not this thread alone but its subgroup's lanes in some unknown division, which have an order only through barriers.
    pub whole: bool,
}

impl core::fmt::Display for Who {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.whole { write!(f, "subgroup {}", self.subgroup) } else { write!(f, "thread {}", self.thread) }
    }
}

impl Who {
    /// Whether what `self` did comes before what `later` does, with no block barrier between.
    fn before(self, later: Who) -> bool {
        (self.thread == later.thread && !self.whole && !later.whole) || (self.subgroup == later.subgroup && self.step < later.step)
    }
}

/// Who has read an element since the last barrier, as far as it matters to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    One(Who),
    /// Several threads of a subgroup, in one step.
    Subgroup(Who),
    Many(Who),
}

/// How an element is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Read.
    Read,
    /// Written with these bits.
    Write(u64),
    /// Read and written in one.
    Atomic(u64),
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    bits: u64,
    epoch: u32,
    readers: Readers,
    writer: Option<(Who, bool)>,
}

/// The shared arrays of a block. Elements touched by two threads between barriers, one of them writing, are an error; writes of the bits that
/// are there already are let pass, as every device gives the same then.
pub struct SharedMemory {
    arrays: Vec<(SharedInfo, Vec<Cell>)>,
    epoch: u32,
}

impl SharedMemory {
    /// Arrays of poison.
    pub fn new(kernel: &Kernel) -> SharedMemory {
        let fill = |s: &SharedInfo| vec![Cell { bits: mask(s.elem), epoch: 0, readers: Readers::None, writer: None }; s.len as usize];
        SharedMemory { arrays: kernel.shared.iter().map(|s| (*s, fill(s))).collect(), epoch: 0 }
    }

    /// The block has met: what was done before is ordered before what follows.
    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    /// Bits of an element without touching it.
    pub fn peek(&self, array: u32, index: i64) -> Result<u64, String> {
        let (info, cells) = &self.arrays[array as usize];
        let cell = usize::try_from(index).ok().and_then(|i| cells.get(i));
        cell.map(|c| c.bits).ok_or_else(|| format!("element {index} of shared array s{array}, which has {}", info.len))
    }

    /// Touches an element; the bits it held.
    pub fn touch(&mut self, who: Who, array: u32, index: i64, touch: Touch) -> Result<u64, String> {
        let old = self.peek(array, index)?;
        let epoch = self.epoch;
        let cell = &mut self.arrays[array as usize].1[index as usize];
        if cell.epoch != epoch {
            *cell = Cell { bits: old, epoch, readers: Readers::None, writer: None };
        }
        let race = |other: Who, did: &str| {
            let does = if touch == Touch::Read { "reads" } else { "writes" };
            format!("element {index} of shared array s{array}: {who} {does} what {other} {did} with no barrier between")
        };
        let atomic = matches!(touch, Touch::Atomic(_));
        let same = matches!(touch, Touch::Write(bits) if bits == old);
        if let Some((writer, was_atomic)) = cell.writer
            && !writer.before(who)
            && !(atomic && was_atomic)
            && !same
        {
            return Err(race(writer, "wrote"));
        }
        match touch {
            Touch::Read => cell.readers = read_by(cell.readers, who),
            Touch::Write(bits) | Touch::Atomic(bits) => {
                let reader = match cell.readers {
                    Readers::None => None,
                    Readers::One(r) => (!r.before(who)).then_some(r),
                    Readers::Subgroup(r) => (!(r.subgroup == who.subgroup && r.step < who.step)).then_some(r),
                    Readers::Many(r) => Some(r),
                };
                if let Some(r) = reader
                    && !same
                {
                    return Err(race(r, "read"));
                }
                if !same || cell.writer.is_none_or(|(w, _)| w.before(who)) {
                    cell.writer = Some((who, atomic));
                }
                cell.bits = bits;
            }
        }
        Ok(old)
    }
}

fn read_by(before: Readers, who: Who) -> Readers {
    match before {
        Readers::None => Readers::One(who),
        Readers::One(r) if r.thread == who.thread && r.whole == who.whole => Readers::One(who),
        Readers::One(r) | Readers::Subgroup(r) if r.subgroup == who.subgroup => {
            if r.step < who.step { Readers::One(who) } else { Readers::Subgroup(who) }
        }
        Readers::One(r) | Readers::Subgroup(r) | Readers::Many(r) => Readers::Many(r),
    }
}
