//! Memory: ranges of the chip's own, and the copies in and out of them.

use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Code, Error, MemoryKind, Result};

use crate::chip::{self, Range};
use crate::device::{AcmeDevice, NAME};
use crate::stream::AcmeStream;

/// A buffer; its memory is freed when it is dropped.
pub struct AcmeBuffer {
    pub(crate) range: Range,
}

impl Memory for AcmeDevice {
    type Buffer = AcmeBuffer;

    fn alloc(&self, request: &AllocRequest) -> Result<AcmeBuffer> {
        if request.kind != MemoryKind::DEVICE {
            return Err(Error::unimplemented(format!("memory kind {} does not exist here; only device memory (1)", request.kind.0)));
        }
        // RESOURCE_EXHAUSTED makes the host trim its pools and ask again; any other code ends the call.
        let exhausted = || Error::new(Code::RESOURCE_EXHAUSTED, format!("{} bytes are not to be had on {NAME}; {} are free", request.bytes, chip::free_bytes()));
        Ok(AcmeBuffer { range: Range::new(request.bytes, request.alignment_bytes).ok_or_else(exhausted)? })
    }

    fn bytes(&self, buffer: &AcmeBuffer) -> u64 {
        buffer.range.bytes()
    }

    unsafe fn read(&self, _stream: &AcmeStream, src: &AcmeBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        // SAFETY: as for the next three, the glue checked the ranges of buffers, the host vouches for its own and for the order of streams.
        unsafe { src.range.at(offset).copy_to(dst, bytes as usize) };
        Ok(())
    }

    unsafe fn write(&self, _stream: &AcmeStream, dst: &AcmeBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: as above.
        unsafe { dst.range.at(offset).copy_from(src, bytes as usize) };
        Ok(())
    }

    fn copy(&self, _stream: &AcmeStream, dst: &AcmeBuffer, dst_offset: u64, src: &AcmeBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        // SAFETY: as above.
        unsafe { dst.range.at(dst_offset).copy_from(src.range.at(src_offset), bytes as usize) };
        Ok(())
    }

    fn fill(&self, _stream: &AcmeStream, dst: &AcmeBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        // SAFETY: as above.
        let range = unsafe { core::slice::from_raw_parts_mut(dst.range.at(offset), bytes as usize) };
        range.chunks_mut(pattern.len()).for_each(|c| c.copy_from_slice(pattern));
        Ok(())
    }

    fn memory_info(&self) -> Result<(u64, u64)> {
        Ok((chip::MEMORY_BYTES, chip::free_bytes()))
    }
    // Not here, because the chip has no such thing: `device_ptr`, `map`, `address_space`, `import`, `export`, `trim`; the host does without.
}
