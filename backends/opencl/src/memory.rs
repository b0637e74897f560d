//! Memory: buffer objects, parts of them by offset, and the copies in and out of them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Code, Error, MemoryExport, MemoryHandle, MemoryKind, Result};

use crate::device::{Chip, OpenClDevice};
use crate::driver::Mem;
use crate::stream::OpenClStream;

/// From this size on a new buffer is moved to the device before it is handed out: drivers put that off until its first use, where being out of
/// memory could no longer be answered by `alloc`. Smaller ones are not worth the wait.
const SETTLED_BYTES: u64 = 1 << 20;

/// A buffer: a part of a buffer object.
pub struct OpenClBuffer {
    pub(crate) mem: Mem,
    /// Where the part begins; 0 but for imported ones.
    pub(crate) base: u64,
    bytes: u64,
    kind: MemoryKind,
    /// Bytes on the device's account; 0 for imported ones.
    counted: u64,
    chip: Arc<Chip>,
    mapping: Mutex<Mapping>,
}

/// The host's view of a buffer, as long as somebody wants it.
#[derive(Default)]
struct Mapping {
    address: u64,
    holders: u32,
}

impl OpenClBuffer {
    /// Length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
    fn mapping(&self) -> std::sync::MutexGuard<'_, Mapping> {
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenClBuffer {
    fn drop(&mut self) {
        self.chip.used_bytes.fetch_sub(self.counted, Ordering::AcqRel);
    }
}

impl OpenClDevice {
    fn exhausted(&self, bytes: u64, why: &str) -> Error {
        let (total, used) = (self.chip.facts.memory_bytes, self.chip.used_bytes.load(Ordering::Acquire));
        Error::new(Code::RESOURCE_EXHAUSTED, format!("{bytes} bytes are not to be had on {} ({why}): it has {total} bytes, of which this process holds {used}", self.chip.facts.name))
    }

    /// Puts bytes on the device's account.
    fn take(&self, bytes: u64) -> Result<()> {
        let total = self.chip.facts.memory_bytes;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= total);
        self.chip.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).map(drop).map_err(|_| self.exhausted(bytes, "more than is left"))
    }

    fn create(&self, bytes: u64, kind: MemoryKind) -> Result<Mem> {
        let host = kind == MemoryKind::HOST_PINNED;
        let created = self.chip.context.buffer(bytes, host).and_then(|mem| {
            if bytes >= SETTLED_BYTES && !host {
                self.chip.own.settle_on_device(&mem).and_then(|()| self.chip.own.finish())?;
            }
            Ok(mem)
        });
        // Too large for this device and too large for now are both answered so: the host frees what it can and asks again.
        let too_large = |e: &Error| matches!(e.code, Code::RESOURCE_EXHAUSTED | Code::INVALID_ARGUMENT);
        created.map_err(|e| if too_large(&e) { Error { native: e.native, ..self.exhausted(bytes, &e.message) } } else { self.chip.late(e) })
    }
}

impl Memory for OpenClDevice {
    type Buffer = OpenClBuffer;

    fn alloc(&self, request: &AllocRequest) -> Result<OpenClBuffer> {
        let kind = request.kind;
        if kind != MemoryKind::DEVICE && kind != MemoryKind::HOST_PINNED {
            return Err(Error::unimplemented(format!("memory kind {} does not exist here; device (1) and host-pinned memory (2) do", kind.0)));
        }
        let least = u64::from(self.chip.facts.alignment_bytes);
        if request.alignment_bytes > least {
            return Err(Error::unimplemented(format!("OpenCL has no way to ask for an alignment of {} bytes; buffers have {least} here", request.alignment_bytes)));
        }
        self.chip.alive()?;
        self.take(request.bytes)?;
        match self.create(request.bytes, kind) {
            Ok(mem) => Ok(OpenClBuffer { mem, base: 0, bytes: request.bytes, kind, counted: request.bytes, chip: self.chip.clone(), mapping: Mutex::default() }),
            Err(e) => {
                self.chip.used_bytes.fetch_sub(request.bytes, Ordering::AcqRel);
                Err(e)
            }
        }
    }

    fn bytes(&self, buffer: &OpenClBuffer) -> u64 {
        buffer.bytes
    }

    unsafe fn read(&self, stream: &OpenClStream, src: &OpenClBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        // SAFETY: the caller keeps `dst` writable until the stream passed the copy.
        stream.enqueue(bytes > 0, |queue| unsafe { queue.read(&src.mem, src.base + offset, dst, bytes) })
    }

    unsafe fn write(&self, stream: &OpenClStream, dst: &OpenClBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: the caller keeps `src` readable and unchanged until the stream passed the copy.
        stream.enqueue(bytes > 0, |queue| unsafe { queue.write(&dst.mem, dst.base + offset, src, bytes) })
    }

    fn copy(&self, stream: &OpenClStream, dst: &OpenClBuffer, dst_offset: u64, src: &OpenClBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        stream.enqueue(bytes > 0, |queue| queue.copy(&dst.mem, dst.base + dst_offset, &src.mem, src.base + src_offset, bytes))
    }

    fn fill(&self, stream: &OpenClStream, dst: &OpenClBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        stream.enqueue(bytes > 0, |queue| fills(pattern, dst.base + offset, bytes, |part, at, n| queue.fill(&dst.mem, at, part, n)))
    }

    fn map(&self, buffer: &OpenClBuffer) -> Result<*mut u8> {
        if buffer.kind != MemoryKind::HOST_PINNED {
            return Err(Error::unimplemented("only host-pinned memory can be mapped; stage through 'read' and 'write'"));
        }
        let mut mapping = buffer.mapping();
        if mapping.holders == 0 {
            mapping.address = self.chip.own.map(&buffer.mem, buffer.bytes)?;
        }
        mapping.holders += 1;
        Ok(mapping.address as *mut u8)
    }

    fn unmap(&self, buffer: &OpenClBuffer) -> Result<()> {
        let mut mapping = buffer.mapping();
        match mapping.holders {
            0 => return Err(Error::new(Code::FAILED_PRECONDITION, "the buffer is not mapped")),
            1 => self.chip.own.unmap(&buffer.mem, mapping.address).and_then(|()| self.chip.own.finish())?,
            _ => {}
        }
        mapping.holders -= 1;
        Ok(())
    }

    fn import(&self, foreign: &MemoryExport) -> Result<OpenClBuffer> {
        if foreign.handle_kind != MemoryHandle::NATIVE.0 {
            return Err(Error::unimplemented(format!("handles of kind {} cannot be imported; a cl_mem (native, 3) of this device's context can", foreign.handle_kind)));
        }
        if foreign.handle == 0 {
            return Err(Error::invalid("the cl_mem to import is NULL"));
        }
        // SAFETY: the contract has the host pass a live native handle.
        let (mem, size) = unsafe { self.chip.context.adopt_buffer(foreign.handle) }?;
        if foreign.bytes == 0 || foreign.byte_offset.checked_add(foreign.bytes).is_none_or(|end| end > size) {
            return Err(Error::invalid(format!("{} bytes at offset {} do not lie in a cl_mem of {size} bytes", foreign.bytes, foreign.byte_offset)));
        }
        let (base, bytes, chip) = (foreign.byte_offset, foreign.bytes, self.chip.clone());
        Ok(OpenClBuffer { mem, base, bytes, kind: MemoryKind::DEVICE, counted: 0, chip, mapping: Mutex::default() })
    }

    fn export(&self, buffer: &OpenClBuffer, export: &mut MemoryExport) -> Result<()> {
        if export.handle_kind != MemoryHandle::NATIVE.0 {
            return Err(Error::unimplemented(format!("handles of kind {} are not to be had; memory is a cl_mem (native, 3)", export.handle_kind)));
        }
        (export.memory_kind, export.handle, export.byte_offset, export.bytes) = (buffer.kind.0, buffer.mem.raw(), buffer.base, buffer.bytes);
        Ok(())
    }

    fn memory_info(&self) -> Result<(u64, u64)> {
        // OpenCL tells the total alone; what other processes hold shows when an allocation fails.
        let total = self.chip.facts.memory_bytes;
        Ok((total, total - self.chip.used_bytes.load(Ordering::Acquire).min(total)))
    }

    fn can_copy_from(&self, src: &OpenClDevice) -> bool {
        Arc::ptr_eq(&self.chip, &src.chip)
    }
}

/// Cuts a fill into ones OpenCL takes: their offset is a multiple of their pattern's length. `fill` gets (pattern, offset, bytes).
fn fills(pattern: &[u8], offset: u64, bytes: u64, mut fill: impl FnMut(&[u8], u64, u64) -> Result<()>) -> Result<()> {
    let uniform = pattern.iter().all(|b| *b == pattern[0]);
    let pattern = if uniform { &pattern[..1] } else { pattern };
    let (length, end) = (pattern.len() as u64, offset + bytes);
    let mut at = offset;
    while at < end {
        // The pattern as it is seen from here.
        let mut rotated = [0; 16];
        (0..length).for_each(|i| rotated[i as usize] = pattern[((at - offset + i) % length) as usize]);
        if at.is_multiple_of(length) && end - at >= length {
            let n = (end - at) / length * length;
            fill(&rotated[..pattern.len()], at, n)?;
            at += n;
        } else {
            // A piece before or behind the whole patterns: the largest power of two that offset and rest allow.
            let mut n = length / 2;
            while !at.is_multiple_of(n) || n > end - at {
                n /= 2;
            }
            fill(&rotated[..n as usize], at, n)?;
            at += n;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_fill_is_cut_into_aligned_ones() {
        let all: Vec<u8> = (1..=16).collect();
        for (length, offset, count) in [1usize, 2, 4, 8, 16].into_iter().flat_map(|l| (0..20usize).flat_map(move |o| (1..6usize).map(move |c| (l, o, c)))) {
            let (pattern, bytes) = (&all[..length], length * count);
            let mut image = vec![0u8; offset + bytes + 32];
            let mut calls = 0;
            fills(pattern, offset as u64, bytes as u64, |part, at, n| {
                let width = part.len() as u64;
                assert!(width.is_power_of_two() && at % width == 0 && n % width == 0 && n > 0);
                image[at as usize..(at + n) as usize].chunks_mut(part.len()).for_each(|c| c.copy_from_slice(part));
                calls += 1;
                Ok(())
            })
            .unwrap();
            let want: Vec<u8> = std::iter::repeat_n(pattern, count).flatten().copied().collect();
            assert_eq!(&image[offset..offset + bytes], &want[..], "pattern of {length} at {offset}");
            assert!(image[..offset].iter().chain(&image[offset + bytes..]).all(|b| *b == 0) && calls <= 9);
        }
    }

    #[test]
    fn a_pattern_of_equal_bytes_is_one_fill() {
        let mut calls = Vec::new();
        fills(&[0; 16], 3, 48, |part, at, n| {
            calls.push((part.len(), at, n));
            Ok(())
        })
        .unwrap();
        assert_eq!(calls, [(1, 3, 48)]);
    }
}
