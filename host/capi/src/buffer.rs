//! Buffers: allocation, import, addresses.

use flagos_backend_api::{MemoryExport, MemoryKind};

use crate::border::{Buffer, Device, Handle, export, put};

export! {
    /// Allocates device memory of `bytes` (at least 1); contents are undefined. `memory_kind` is a `flagos_memory_kind_t`, 0 for FLAGOS_MEMORY_DEVICE.
    [Free] fn flagos_buffer_alloc(device: *const Device, bytes: u64, memory_kind: u32, out_buffer: *mut *mut Buffer) {
        let kind = if memory_kind == 0 { MemoryKind::DEVICE } else { MemoryKind(memory_kind) };
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_buffer, Handle::give(Handle::get(device)?.alloc_kind(bytes, kind)?)) }
    }

    /// Releases a buffer. The memory is reused only after enqueued work that uses it is over. NULL is allowed.
    [Free] fn flagos_buffer_release(buffer: *mut Buffer) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(buffer) }.map(drop)
    }

    /// Another handle of the same memory.
    [Free] fn flagos_buffer_retain(buffer: *const Buffer, out_buffer: *mut *mut Buffer) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_buffer, Handle::give(Handle::get(buffer)?.clone())) }
    }

    /// Length in bytes.
    [Free] fn flagos_buffer_bytes(buffer: *const Buffer, out_bytes: *mut u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_bytes, Handle::get(buffer)?.bytes()) }
    }

    /// Address of the first byte as the device sees it; FLAGOS_UNIMPLEMENTED where memory has none.
    [Free] fn flagos_buffer_device_ptr(buffer: *const Buffer, out_address: *mut u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_address, Handle::get(buffer)?.device_ptr()?) }
    }

    /// Host address of host-visible memory, valid while the buffer lives; touch it only while no stream works on the buffer.
    [Free] fn flagos_buffer_map(buffer: *const Buffer, out_address: *mut *mut core::ffi::c_void) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_address, Handle::get(buffer)?.map()?.cast()) }
    }

    /// Ends flagos_buffer_map.
    [Free] fn flagos_buffer_unmap(buffer: *const Buffer) {
        // SAFETY: the header states that the handle is live.
        unsafe { Handle::get(buffer) }?.unmap()
    }

    /// Wraps foreign memory (a pointer, a file descriptor, the vendor's object), which outlives the buffer and all its uses.
    [Free] fn flagos_buffer_import(device: *const Device, memory: *const MemoryExport, out_buffer: *mut *mut Buffer) {
        // SAFETY: the header states what the pointers are, and that the memory outlives the buffer.
        unsafe {
            let desc = memory.as_ref().ok_or_else(|| flagos_backend_api::Error::invalid("memory is NULL"))?;
            put(out_buffer, Handle::give(Handle::get(device)?.import(desc)?))
        }
    }

    /// The buffer in which a byte offset is an address: names any pointer of the device without an import.
    [Free] fn flagos_buffer_address_space(device: *const Device, out_buffer: *mut *mut Buffer) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_buffer, Handle::give(Handle::get(device)?.address_space()?)) }
    }
}
