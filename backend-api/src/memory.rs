//! Memory table: allocation, copies, import and export.

use crate::{Buffer, Device, Status, Stream, abi_enum, abi_struct};

abi_enum! {
    /// Where memory lies and who can reach it.
    MemoryKind = "flagos_memory_kind_t", "FLAGOS_MEMORY_" {
        /// The device's own memory.
        DEVICE = 1,
        /// Host memory the device reaches fast; host and device may touch it.
        HOST_PINNED = 2,
        /// Migrates between host and device on demand.
        UNIFIED = 3,
        /// Device memory the host can map.
        DEVICE_HOST_VISIBLE = 4,
        /// Ordinary host memory.
        HOST = 5,
    }

    /// Kinds of native memory handles for import and export.
    MemoryHandle = "flagos_memory_handle_t", "FLAGOS_HANDLE_" {
        /// An address valid in this process for the device.
        POINTER = 1,
        /// A POSIX file descriptor; import takes it over.
        FD = 2,
        /// The vendor's own object (`cl_mem`, `VkBuffer`, …).
        NATIVE = 3,
    }
}

abi_struct! {
    /// A request for memory.
    AllocDesc = "flagos_alloc_desc_t", kind 0x20 {
        /// `sizeof(flagos_alloc_desc_t)`.
        size: u32,
        /// 0x20.
        kind: u32,
        /// Bytes; at least 1.
        bytes: u64,
        /// Least alignment, a power of two; 0 for the device's default.
        alignment_bytes: u64,
        /// A `flagos_memory_kind_t` value.
        memory_kind: u32,
        /// Reserved, 0.
        flags: u32,
    }

    /// Foreign memory to wrap, or to hand out.
    MemoryExport = "flagos_memory_export_t", kind 0x21 {
        /// `sizeof(flagos_memory_export_t)`.
        size: u32,
        /// 0x21.
        kind: u32,
        /// A `flagos_memory_handle_t` value.
        handle_kind: u32,
        /// A `flagos_memory_kind_t` value.
        memory_kind: u32,
        /// The handle's bits.
        handle: u64,
        /// Offset of the first byte within the handle's memory.
        byte_offset: u64,
        /// Length in bytes.
        bytes: u64,
    }

    /// Memory state of a device.
    MemoryInfo = "flagos_memory_info_t", kind 0x22 {
        /// `sizeof(flagos_memory_info_t)`.
        size: u32,
        /// 0x22.
        kind: u32,
        /// Bytes the device has.
        total_bytes: u64,
        /// Bytes free now, as far as the driver says.
        free_bytes: u64,
    }

    /// Memory functions. `alloc free read write copy fill` are required.
    MemoryTable = "flagos_memory_table_t", kind 0x23 {
        /// `sizeof(flagos_memory_table_t)`.
        size: u32,
        /// 0x23.
        kind: u32,
        /// Allocates. Contents are undefined.
        [Free] fn alloc(device: *mut Device, desc: *const AllocDesc, out_buffer: *mut *mut Buffer) -> *mut Status,
        /// Frees a buffer, or releases an imported one. The host calls it only when no enqueued work uses the buffer.
        [Free] fn free(buffer: *mut Buffer) -> *mut Status,
        /// Enqueues a copy from the device to host memory; `dst` stays valid until the stream passed it.
        [Stream] fn read(stream: *mut Stream, src: *mut Buffer, src_offset_bytes: u64, dst: *mut core::ffi::c_void, bytes: u64) -> *mut Status,
        /// Enqueues a copy from host memory to the device; `src` stays valid and unchanged until the stream passed it.
        [Stream] fn write(stream: *mut Stream, dst: *mut Buffer, dst_offset_bytes: u64, src: *const core::ffi::c_void, bytes: u64) -> *mut Status,
        /// Enqueues a copy within this backend; ranges do not overlap.
        [Stream] fn copy(stream: *mut Stream, dst: *mut Buffer, dst_offset_bytes: u64, src: *mut Buffer, src_offset_bytes: u64, bytes: u64) -> *mut Status,
        /// Enqueues a fill with a repeated pattern of 1, 2, 4, 8 or 16 bytes; `bytes` is a multiple of it. The pattern is read before return.
        [Stream] fn fill(stream: *mut Stream, dst: *mut Buffer, dst_offset_bytes: u64, pattern: *const core::ffi::c_void, pattern_bytes: u32, bytes: u64) -> *mut Status,
        /// Address of the buffer's first byte as the device sees it. NULL slot or UNIMPLEMENTED: the memory has no address.
        [Free] fn device_ptr(buffer: *mut Buffer, out_address: *mut u64) -> *mut Status,
        /// Makes host-visible memory readable and writable by the host. NULL slot: the host stages through `read` and `write`.
        [Free] fn map(buffer: *mut Buffer, out_address: *mut *mut core::ffi::c_void) -> *mut Status,
        /// Ends a mapping.
        [Free] fn unmap(buffer: *mut Buffer) -> *mut Status,
        /// The buffer that names any address of the device: (this, offset = address). Lives as long as the device. NULL slot: none, import instead.
        [Free] fn address_space(device: *mut Device, out_buffer: *mut *mut Buffer) -> *mut Status,
        /// Wraps foreign memory. The memory outlives the buffer. NULL slot: not offered.
        [Free] fn import(device: *mut Device, desc: *const MemoryExport, out_buffer: *mut *mut Buffer) -> *mut Status,
        /// Hands out a native handle; `out_export->handle_kind` states the wish. NULL slot: not offered.
        [Free] fn export(buffer: *mut Buffer, out_export: *mut MemoryExport) -> *mut Status,
        /// Memory state. NULL slot: unknown.
        [Free] fn info(device: *mut Device, out_info: *mut MemoryInfo) -> *mut Status,
        /// Returns cached memory to the driver. NULL slot: nothing is cached.
        [Free] fn trim(device: *mut Device) -> *mut Status,
        /// Whether `copy` can move directly from memory of `src` to memory of `dst` (0 or 1). NULL slot: only within one device.
        [Free] fn can_copy(dst: *mut Device, src: *mut Device, out_answer: *mut u32) -> *mut Status,
    }
}
