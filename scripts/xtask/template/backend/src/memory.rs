//! Memory: ranges of the chip's own, and the copies in and out of them.

use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::Result;

use crate::device::AcmeDevice;
use crate::left;
use crate::stream::AcmeStream;

/// A buffer. Fill in: the driver's allocation (an address, `cl_mem`, `VkBuffer`), freed when it is dropped.
pub struct AcmeBuffer {
    bytes: u64,
}

/// Fill in: the driver's asynchronous calls. The glue has checked ranges, sizes, patterns and NULL before.
impl Memory for AcmeDevice {
    type Buffer = AcmeBuffer;

    /// RESOURCE_EXHAUSTED makes the host trim its pools and ask again; any other code ends the call.
    fn alloc(&self, request: &AllocRequest) -> Result<AcmeBuffer> {
        left("memory.rs: alloc")
    }

    fn bytes(&self, buffer: &AcmeBuffer) -> u64 {
        buffer.bytes
    }

    unsafe fn read(&self, stream: &AcmeStream, src: &AcmeBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        left("memory.rs: read")
    }

    unsafe fn write(&self, stream: &AcmeStream, dst: &AcmeBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        left("memory.rs: write")
    }

    fn copy(&self, stream: &AcmeStream, dst: &AcmeBuffer, dst_offset: u64, src: &AcmeBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        left("memory.rs: copy")
    }

    /// The pattern is the caller's: what is still to run needs a copy of it.
    fn fill(&self, stream: &AcmeStream, dst: &AcmeBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        left("memory.rs: fill")
    }
    // Optional, where the chip has such a thing: `device_ptr`, `map`, `address_space`, `import`, `export`, `memory_info`, `trim`, `can_copy_from`.
}
