//! Memory: buffers that only the device can touch, and the copies in and out of them.

use std::alloc::Layout;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Code, Error, MemoryKind, Result};

use crate::device::{ALIGNMENT, Chip, MEMORY_BYTES, NullDevice};
use crate::fault;
use crate::stream::NullStream;
use crate::worker::{HostAddress, Place, Task};

/// Bit that device addresses have on top of the host's: whoever mistakes one for a pointer is stopped by the processor.
const DEVICE_SPACE: u64 = 1 << 63;

/// A range of device memory. Replace: the driver's allocation (`CUdeviceptr`, `cl_mem`, `VkBuffer`), freed in `drop`.
///
/// Tasks in flight share it: memory that is freed too early does harm to nobody but its user.
pub struct Block {
    base: *mut u8,
    bytes: u64,
    layout: Layout,
    chip: Arc<Chip>,
}

// SAFETY: a block is a range of memory; streams order who reads and writes it when, as the contract demands.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Part of the contents, for a task that runs now.
    ///
    /// # Safety
    /// The range lies within the block, and no task that runs at the same time writes to it.
    pub unsafe fn read(&self, offset: u64, bytes: u64) -> &[u8] {
        // SAFETY: stated by the caller.
        unsafe { core::slice::from_raw_parts(self.base.add(offset as usize), bytes as usize) }
    }

    /// Part of the contents, to be written by a task that runs now.
    ///
    /// # Safety
    /// The range lies within the block, and no task that runs at the same time touches it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn write(&self, offset: u64, bytes: u64) -> &mut [u8] {
        // SAFETY: stated by the caller.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(offset as usize), bytes as usize) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.chip.used_bytes.fetch_sub(fault::freed_bytes(self.bytes), Ordering::AcqRel);
        // SAFETY: the memory was allocated with this layout and is freed once.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
    }
}

/// A buffer: what the host's handle holds.
pub struct NullBuffer(pub(crate) Arc<Block>);

impl NullBuffer {
    /// A byte of the buffer.
    pub(crate) fn place(&self, offset: u64) -> Place {
        Place { block: self.0.clone(), offset }
    }
}

/// Replace the bodies by the driver's asynchronous calls. The glue has checked ranges, sizes, patterns and NULL before.
impl Memory for NullDevice {
    type Buffer = NullBuffer;

    /// RESOURCE_EXHAUSTED makes the host trim its pools and ask again; any other code ends the call.
    fn alloc(&self, request: &AllocRequest) -> Result<NullBuffer> {
        if fault::memory_kind(request.kind) != MemoryKind::DEVICE {
            return Err(Error::unimplemented(format!("memory kind {} does not exist here; only device memory (1)", request.kind.0)));
        }
        if let Some(block) = fault::alloc(request) {
            return Ok(NullBuffer(block));
        }
        let exhausted = || {
            let free = MEMORY_BYTES - self.chip.used_bytes.load(Ordering::Acquire);
            let text = format!("{} bytes are not to be had; {free} of {MEMORY_BYTES} are free", request.bytes);
            fault::exhausted(Error::new(Code::RESOURCE_EXHAUSTED, text))
        };
        let alignment = (request.alignment_bytes as usize).max(ALIGNMENT);
        let bytes = fault::alloc_bytes(request.bytes);
        let layout = Layout::from_size_align(bytes as usize, alignment).map_err(|_| exhausted())?;
        if !self.chip.take(bytes) {
            return Err(exhausted());
        }
        // SAFETY: the glue refuses requests of zero bytes.
        let base = unsafe { std::alloc::alloc(layout) };
        if base.is_null() {
            self.chip.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(exhausted());
        }
        let block = Arc::new(Block { base, bytes, layout, chip: self.chip.clone() });
        fault::allocated(&block);
        Ok(NullBuffer(block))
    }

    fn bytes(&self, buffer: &NullBuffer) -> u64 {
        buffer.0.bytes
    }

    unsafe fn read(&self, stream: &NullStream, src: &NullBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        stream.push(Task::Read { src: src.place(offset), dst: HostAddress(dst), bytes })
    }

    unsafe fn write(&self, stream: &NullStream, dst: &NullBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        stream.push(Task::Write { dst: dst.place(offset), src: HostAddress(src.cast_mut()), bytes: fault::write_bytes(bytes) })
    }

    fn copy(&self, stream: &NullStream, dst: &NullBuffer, dst_offset: u64, src: &NullBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        let (src_offset, bytes) = fault::copy(src_offset, bytes);
        stream.push(Task::Copy { dst: dst.place(dst_offset), src: src.place(src_offset), bytes })
    }

    fn fill(&self, stream: &NullStream, dst: &NullBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        // The pattern is the caller's: it is copied before the call returns.
        let mut kept = [0; 16];
        kept[..pattern.len()].copy_from_slice(pattern);
        fault::pattern(&mut kept);
        let bytes = fault::fill_bytes(bytes, dst.0.bytes - offset);
        stream.push(Task::Fill { dst: dst.place(offset), pattern: kept, length: pattern.len(), bytes })
    }

    /// An address that kernels may use and the host may not. Delete it where memory has no addresses (OpenCL 1.2).
    fn device_ptr(&self, buffer: &NullBuffer) -> Result<u64> {
        Ok(fault::address(buffer.0.base as u64 | DEVICE_SPACE))
    }

    fn memory_info(&self) -> Result<(u64, u64)> {
        Ok((MEMORY_BYTES, MEMORY_BYTES - self.chip.used_bytes.load(Ordering::Acquire)))
    }

    /// Whether `copy` reaches memory of another device of this backend (peer access).
    fn can_copy_from(&self, src: &NullDevice) -> bool {
        Arc::ptr_eq(&self.chip, &src.chip)
    }
    // Not here, because the device has no such thing: `map` (host-visible memory), `address_space` (plainly addressable memory, on which
    // frameworks' pointers work without import), `import` and `export` (native handles), `trim` (a caching allocator of the driver's).
}
