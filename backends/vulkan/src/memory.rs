//! Memory: buffers, mappings, and the copies and fills a stream carries out.

use std::sync::Arc;

use ash::vk;
use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Error, MemoryExport, MemoryHandle, MemoryKind, Result};

use crate::alloc::{Allocation, Place};
use crate::device::{Chip, VulkanDevice};
use crate::instance;
use crate::stream::VulkanStream;
use crate::task::{HostAddress, Pattern, Task};

/// A range of device memory: what the host's handle holds.
pub struct VulkanBuffer {
    /// Where it lies.
    pub(crate) place: Place,
    bytes: u64,
    kind: MemoryKind,
    /// What is freed with it; `None` for imported memory, which has another owner.
    allocation: Option<Allocation>,
    chip: Arc<Chip>,
}

impl Drop for VulkanBuffer {
    fn drop(&mut self) {
        if let Some(allocation) = &self.allocation {
            self.chip.memory.free(&self.chip.calls, allocation);
        }
    }
}

impl Memory for VulkanDevice {
    type Buffer = VulkanBuffer;

    fn alloc(&self, request: &AllocRequest) -> Result<VulkanBuffer> {
        let chip = &self.chip;
        chip.alive()?;
        let again = |_| {
            chip.staging.trim(chip);
            chip.memory.trim(&chip.calls);
            chip.memory.alloc(&chip.calls, request.kind, request.bytes, request.alignment_bytes)
        };
        let first = chip.memory.alloc(&chip.calls, request.kind, request.bytes, request.alignment_bytes);
        let allocation = match first {
            Err(e) if e.code == flagos_backend_api::Code::RESOURCE_EXHAUSTED => again(e)?,
            other => other?,
        };
        let buffer = VulkanBuffer { place: allocation.place, bytes: request.bytes, kind: request.kind, allocation: Some(allocation), chip: chip.clone() };
        instance::objections()?;
        Ok(buffer)
    }

    fn bytes(&self, buffer: &VulkanBuffer) -> u64 {
        buffer.bytes
    }

    unsafe fn read(&self, stream: &VulkanStream, src: &VulkanBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        stream.push(bytes, Task::Read { src: src.place.at(offset), dst: HostAddress(dst), bytes })
    }

    unsafe fn write(&self, stream: &VulkanStream, dst: &VulkanBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        stream.push(bytes, Task::Write { dst: dst.place.at(offset), src: HostAddress(src.cast_mut()), bytes })
    }

    fn copy(&self, stream: &VulkanStream, dst: &VulkanBuffer, dst_offset: u64, src: &VulkanBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        if !Arc::ptr_eq(&dst.chip, &src.chip) {
            return Err(Error::unimplemented("the buffers lie on two Vulkan devices, which cannot reach each other; go through host memory"));
        }
        stream.push(bytes, Task::Copy { dst: dst.place.at(dst_offset), src: src.place.at(src_offset), bytes })
    }

    fn fill(&self, stream: &VulkanStream, dst: &VulkanBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        stream.push(bytes, Task::Fill { dst: dst.place.at(offset), pattern: Pattern::new(pattern), bytes })
    }

    fn device_ptr(&self, buffer: &VulkanBuffer) -> Result<u64> {
        Ok(buffer.place.address)
    }

    fn map(&self, buffer: &VulkanBuffer) -> Result<*mut u8> {
        if buffer.place.mapped.is_null() {
            return Err(Error::unimplemented(format!("{} memory of this device cannot be mapped; ask for HOST_PINNED or DEVICE_HOST_VISIBLE", buffer.kind)));
        }
        Ok(buffer.place.mapped)
    }

    /// Wraps memory of this device that has another owner, by address or by VkBuffer: what [`Memory::export`] hands out, whole or in part.
    fn import(&self, foreign: &MemoryExport) -> Result<VulkanBuffer> {
        let memory = &self.chip.memory;
        let found = match MemoryHandle(foreign.handle_kind) {
            MemoryHandle::POINTER => foreign.handle.checked_add(foreign.byte_offset).and_then(|a| memory.at_address(a, foreign.bytes)),
            MemoryHandle::NATIVE => memory.in_buffer(foreign.handle, foreign.byte_offset, foreign.bytes),
            other => return Err(Error::unimplemented(format!("memory is imported by address or VkBuffer, not by {other}"))),
        };
        let Some((place, kind)) = found else {
            let text = format!("{:#x} + {} names no {} bytes of this device's memory: Vulkan addresses and buffers belong to one VkDevice", foreign.handle, foreign.byte_offset, foreign.bytes);
            return Err(Error::invalid(text));
        };
        Ok(VulkanBuffer { place, bytes: foreign.bytes, kind, allocation: None, chip: self.chip.clone() })
    }

    fn export(&self, buffer: &VulkanBuffer, export: &mut MemoryExport) -> Result<()> {
        (export.handle, export.byte_offset) = match MemoryHandle(export.handle_kind) {
            MemoryHandle::POINTER => (buffer.place.address, 0),
            MemoryHandle::NATIVE => (vk::Handle::as_raw(buffer.place.buffer), buffer.place.offset),
            other => return Err(Error::unimplemented(format!("memory is exported as address or VkBuffer, not as {other}"))),
        };
        (export.memory_kind, export.bytes) = (buffer.kind.0, buffer.bytes);
        Ok(())
    }

    fn memory_info(&self) -> Result<(u64, u64)> {
        let memory = &self.chip.memory;
        Ok((memory.total(), memory.free_bytes(self.chip.budget())))
    }

    fn trim(&self) -> Result<()> {
        self.chip.staging.trim(&self.chip);
        self.chip.memory.trim(&self.chip.calls);
        Ok(())
    }

    fn can_copy_from(&self, src: &VulkanDevice) -> bool {
        Arc::ptr_eq(&self.chip, &src.chip)
    }
    // No `address_space`: an address of Vulkan belongs to one VkDevice, so a pointer of anybody else's could not be served, which is what
    // the capability promises.
}
