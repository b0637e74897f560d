//! Guarded memory: an operand between two zones whose bytes nobody may touch.

use flagos_backend_api::{Result, Tensor};
use flagos_catalog::for_each_offset;
use flagos_runtime::{Buffer, Device, Operand, Stream};

use crate::check::Check;
use crate::outcome::Failure;

/// Bytes before and after an operand; a multiple of every device's alignment that is worth keeping aligned cases aligned.
pub const ZONE: usize = 256;

/// What memory is filled with before a launch. The two differ in every byte, so that an element nobody writes shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// One pattern.
    A,
    /// Its complement.
    B,
}

/// Byte `i` of a pattern that no shift of itself resembles.
pub fn pattern(poison: Poison, i: usize) -> u8 {
    let mut h = (i as u32).wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995;
    h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b);
    let byte = (h >> 13) as u8;
    if poison == Poison::A { byte } else { !byte }
}

/// Fills bytes with a pattern.
pub fn poisoned(poison: Poison, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| pattern(poison, i)).collect()
}

/// One operand on the device.
pub struct Guarded {
    buffer: Buffer,
    tensor: Tensor,
    name: String,
    /// Byte of element (0, …, 0) within the buffer.
    origin: usize,
    /// Byte that the binding names.
    binding: usize,
    /// What the buffer was given.
    image: Vec<u8>,
}

impl Guarded {
    /// Memory for an operand; `None` for an absent one.
    pub fn new(device: &Device, operand: &crate::task::Operand) -> Result<Option<Guarded>> {
        let memory = &operand.memory;
        if memory.tensor.is_none() {
            return Ok(None);
        }
        let bytes = ZONE + memory.bytes.len() + ZONE;
        Ok(Some(Guarded {
            buffer: device.alloc(bytes as u64)?,
            tensor: memory.tensor,
            name: operand.name.clone(),
            origin: ZONE + memory.origin,
            binding: ZONE + operand.binding,
            image: vec![0; bytes],
        }))
    }

    /// Where a launch finds it.
    pub fn operand(&self) -> Operand<'_> {
        Some((&self.buffer, self.binding as u64))
    }
    /// Its descriptor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Byte of element (0, …, 0) within what [`read`](Guarded::read) gives.
    pub fn origin(&self) -> usize {
        self.origin
    }

    /// Gives it contents, between zones of a pattern.
    pub fn fill(&mut self, stream: &Stream, contents: &[u8], poison: Poison) -> Result<()> {
        self.image = image(contents, poison);
        stream.write(&self.buffer, 0, &self.image)
    }
    /// Gives it a pattern throughout.
    pub fn poison(&mut self, stream: &Stream, poison: Poison) -> Result<()> {
        self.image = poisoned(poison, self.image.len());
        stream.write(&self.buffer, 0, &self.image)
    }
    /// What it holds now, zones included.
    pub fn read(&self, stream: &Stream) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.image.len()];
        stream.read(&self.buffer, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// As an input, or as an output of a refused call: nothing may have changed.
    pub fn check_unchanged(&self, now: &[u8], check: Check) -> Option<Failure> {
        let at = first_difference(&self.image, now, |_| true)?;
        let inside = at >= ZONE && at < self.image.len() - ZONE;
        let check = if inside { check } else { Check::Guard };
        Some(Failure::new(check, format!("{}: {}", self.name, self.difference(at, now))))
    }

    /// As an output: nothing outside its elements may have changed.
    pub fn check_outside(&self, now: &[u8]) -> Option<Failure> {
        self.check_outside_of(now, &[&self.tensor])
    }

    /// Nothing outside the elements of some tensors, all of which begin where this one does, may have changed.
    pub fn check_outside_of(&self, now: &[u8], tensors: &[&Tensor]) -> Option<Failure> {
        let mut own = vec![false; self.image.len()];
        for tensor in tensors {
            let width = tensor.dtype.bytes();
            for at in self.places(tensor) {
                own[at..at + width].fill(true);
            }
        }
        let at = first_difference(&self.image, now, |i| !own[i])?;
        let place = if at >= ZONE && at < self.image.len() - ZONE { "in a gap" } else { "in a guard zone" };
        Some(Failure::new(Check::Guard, format!("{} was written {place}: {}", self.name, self.difference(at, now))))
    }

    /// Byte places of each element, row-major.
    pub fn elements(&self) -> Vec<usize> {
        self.places(&self.tensor)
    }

    fn places(&self, tensor: &Tensor) -> Vec<usize> {
        let width = tensor.dtype.bytes() as i64;
        let mut places = Vec::new();
        for_each_offset(tensor, |offset| places.push((self.origin as i64 + offset * width) as usize));
        places
    }

    fn difference(&self, at: usize, now: &[u8]) -> String {
        let count = self.image.iter().zip(now).filter(|(a, b)| a != b).count();
        let place = at as i64 - self.origin as i64;
        format!("byte {place} from element 0 was {:#04x} and is {:#04x} ({count} bytes differ)", self.image[at], now[at])
    }
}

/// Contents between zones.
pub fn image(contents: &[u8], poison: Poison) -> Vec<u8> {
    let mut image = poisoned(poison, ZONE + contents.len() + ZONE);
    image[ZONE..ZONE + contents.len()].copy_from_slice(contents);
    image
}

/// The first byte that differs among those asked for.
pub fn first_difference(a: &[u8], b: &[u8], wanted: impl Fn(usize) -> bool) -> Option<usize> {
    if a == b {
        return None;
    }
    (0..a.len()).find(|&i| a[i] != b[i] && wanted(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_in_every_byte_and_under_every_shift() {
        let (a, b) = (poisoned(Poison::A, 4096), poisoned(Poison::B, 4096));
        assert!(a.iter().zip(&b).all(|(x, y)| x != y));
        for shift in 1..64 {
            let same = a.iter().zip(&a[shift..]).filter(|(x, y)| x == y).count();
            assert!(same < 64, "shift {shift}: {same} bytes agree");
        }
    }
}
