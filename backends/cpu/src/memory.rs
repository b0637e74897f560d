//! Memory: ordinary host memory, in huge pages where it is large.

use std::alloc::Layout;

use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Code, Error, MemoryExport, MemoryHandle, MemoryKind, Result};

use crate::device::{ALIGNMENT, CpuDevice, memory_bytes};
use crate::stream::CpuStream;

/// Allocations from this size on are aligned to, and asked for in, huge pages: fewer page faults and TLB misses.
const HUGE: usize = 2 << 20;

/// A range of memory; the address-space buffer has address 0 and no end.
pub struct CpuBuffer {
    address: *mut u8,
    bytes: u64,
    owned: Option<Layout>,
}

// SAFETY: a buffer is an address range; who reads and writes it when is ordered by streams, as the contract demands.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above.
unsafe impl Sync for CpuBuffer {}

impl CpuBuffer {
    /// Address of a byte; the caller checked the range.
    #[inline]
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        self.address.wrapping_add(offset as usize)
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        if let Some(layout) = self.owned {
            // SAFETY: the memory was allocated with this layout and is freed once.
            unsafe { std::alloc::dealloc(self.address, layout) };
        }
    }
}

impl Memory for CpuDevice {
    type Buffer = CpuBuffer;

    fn alloc(&self, request: &AllocRequest) -> Result<CpuBuffer> {
        if request.kind.0 == 0 || request.kind.0 > MemoryKind::HOST.0 {
            return Err(Error::unimplemented(format!("memory kind {} does not exist here", request.kind.0)));
        }
        let exhausted = || Error::new(Code::RESOURCE_EXHAUSTED, format!("{} bytes are not to be had; {} are free", request.bytes, memory_bytes().1));
        // Overcommitting systems grant anything and kill later: what exceeds the machine is refused here.
        let bytes = usize::try_from(request.bytes).ok().filter(|b| (*b as u64) <= memory_bytes().0).ok_or_else(exhausted)?;
        let least = if bytes >= HUGE { HUGE } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes, (request.alignment_bytes as usize).max(least)).map_err(|_| exhausted())?;
        // SAFETY: the glue refuses requests of zero bytes.
        let address = unsafe { std::alloc::alloc(layout) };
        if address.is_null() {
            return Err(exhausted());
        }
        if bytes >= HUGE {
            // SAFETY: the range was just allocated; the advice changes no contents, and its failure costs speed only.
            unsafe { libc::madvise(address.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(CpuBuffer { address, bytes: request.bytes, owned: Some(layout) })
    }
    fn bytes(&self, buffer: &CpuBuffer) -> u64 {
        buffer.bytes
    }
    unsafe fn read(&self, _: &CpuStream, src: &CpuBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        // SAFETY: the glue checked the buffer's range, the caller vouches for `dst`; `copy` allows overlap.
        unsafe { core::ptr::copy(src.at(offset), dst, bytes as usize) };
        Ok(())
    }
    unsafe fn write(&self, _: &CpuStream, dst: &CpuBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: as above.
        unsafe { core::ptr::copy(src, dst.at(offset), bytes as usize) };
        Ok(())
    }
    fn copy(&self, _: &CpuStream, dst: &CpuBuffer, dst_offset: u64, src: &CpuBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        // SAFETY: the glue checked both ranges.
        unsafe { core::ptr::copy(src.at(src_offset), dst.at(dst_offset), bytes as usize) };
        Ok(())
    }
    fn fill(&self, _: &CpuStream, dst: &CpuBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        // SAFETY: the glue checked the range; nobody else uses it while this stream's work runs.
        let range = unsafe { core::slice::from_raw_parts_mut(dst.at(offset), bytes as usize) };
        match pattern {
            [byte] => range.fill(*byte),
            _ => range.chunks_exact_mut(pattern.len()).for_each(|c| c.copy_from_slice(pattern)),
        }
        Ok(())
    }
    fn device_ptr(&self, buffer: &CpuBuffer) -> Result<u64> {
        Ok(buffer.address as u64)
    }
    fn map(&self, buffer: &CpuBuffer) -> Result<*mut u8> {
        Ok(buffer.address)
    }
    fn address_space(&self) -> Result<CpuBuffer> {
        Ok(CpuBuffer { address: core::ptr::null_mut(), bytes: u64::MAX, owned: None })
    }
    fn import(&self, foreign: &MemoryExport) -> Result<CpuBuffer> {
        if MemoryHandle(foreign.handle_kind) != MemoryHandle::POINTER || foreign.handle == 0 {
            return Err(Error::unimplemented(format!("handles of kind {} cannot be imported; only non-zero addresses", MemoryHandle(foreign.handle_kind))));
        }
        let address = (foreign.handle as usize as *mut u8).wrapping_add(foreign.byte_offset as usize);
        Ok(CpuBuffer { address, bytes: foreign.bytes, owned: None })
    }
    fn export(&self, buffer: &CpuBuffer, export: &mut MemoryExport) -> Result<()> {
        if MemoryHandle(export.handle_kind) != MemoryHandle::POINTER {
            return Err(Error::unimplemented(format!("handles of kind {} do not exist here; only addresses", MemoryHandle(export.handle_kind))));
        }
        (export.handle, export.byte_offset, export.bytes) = (buffer.address as u64, 0, buffer.bytes);
        export.memory_kind = MemoryKind::HOST.0;
        Ok(())
    }
    fn memory_info(&self) -> Result<(u64, u64)> {
        Ok(memory_bytes())
    }
    fn can_copy_from(&self, _: &CpuDevice) -> bool {
        true
    }
}
