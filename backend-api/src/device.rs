//! Device table: what a chip is and can do.

use crate::{Device, Status, Str, abi_enum, abi_struct};

abi_enum! {
    /// What kind of chip a device is.
    DeviceKind = "flagos_device_kind_t", "FLAGOS_DEVICE_" {
        /// A processor running host code.
        CPU = 1,
        /// A graphics processor.
        GPU = 2,
        /// Any other accelerator.
        ACCELERATOR = 3,
    }

    /// Kernel formats a module table accepts.
    KernelFormat = "flagos_kernel_format_t", "FLAGOS_FORMAT_" {
        /// Triton dialect text.
        TTIR = 1,
        /// CUDA C++ for a run-time compiler.
        CUDA_CPP = 2,
        /// PTX text.
        PTX = 3,
        /// HIP C++ for a run-time compiler.
        HIP_CPP = 4,
        /// OpenCL C.
        OPENCL_C = 5,
        /// SPIR-V for Vulkan.
        SPIRV_VULKAN = 6,
        /// C11 compiled by a system compiler.
        C = 7,
    }
}

/// Bits of [`DeviceInfo::caps`].
pub mod caps {
    /// Memory is plainly addressable: the device offers an address-space buffer.
    pub const ADDRESS_SPACE: u64 = 1 << 0;
    /// Device memory is host memory: the host may read and write it directly once the stream is idle.
    pub const HOST_VISIBLE: u64 = 1 << 1;
    /// Launches finish before they return.
    pub const SYNCHRONOUS: u64 = 1 << 2;
    /// Kernels may use half precision.
    pub const FP16: u64 = 1 << 3;
    /// Kernels may use bfloat16.
    pub const BF16: u64 = 1 << 4;
    /// Kernels may use double precision.
    pub const FP64: u64 = 1 << 5;
    /// Kernels may use 64-bit integers.
    pub const INT64: u64 = 1 << 6;
    /// Kernels may use 64-bit atomics.
    pub const ATOMIC64: u64 = 1 << 7;
    /// Launches can be recorded by the vendor's graph capture.
    pub const CAPTURE: u64 = 1 << 8;
    /// Kernels may take subnormal single-precision numbers for zeros, as arguments and as results.
    pub const FLUSHES_SUBNORMALS: u64 = 1 << 9;
}

abi_struct! {
    /// One device as seen by `probe`, before it is opened. Zero-initialised by the caller but for `size` and `kind`.
    DeviceProbe = "flagos_device_probe_t", kind 0x10 {
        /// `sizeof(flagos_device_probe_t)`.
        size: u32,
        /// 0x10.
        kind: u32,
        /// Usability, higher is better; 0: unusable, with the reason in `reason`.
        score: u32,
        /// A `flagos_device_kind_t` value.
        device_kind: u32,
        /// Product name.
        name: Str,
        /// Target fingerprint: the architecture ("sm_90", "gfx942", "x86-64-v4"), not the board.
        arch: Str,
        /// Driver name and version.
        driver: Str,
        /// Why `score` is 0.
        reason: Str,
        /// Unique id; zeros when there is none.
        uuid: [u8; 16],
        /// PCI address as domain << 16 | bus << 8 | device << 3 | function; all ones when there is none.
        pci: u64,
        /// Capability bits (`FLAGOS_CAP_*`).
        caps: u64,
    }

    /// Properties of an open device. Text lives until the device is closed.
    DeviceInfo = "flagos_device_info_t", kind 0x11 {
        /// `sizeof(flagos_device_info_t)`.
        size: u32,
        /// 0x11.
        kind: u32,
        /// Product name.
        name: Str,
        /// Target fingerprint, as in the probe.
        arch: Str,
        /// Driver name and version.
        driver: Str,
        /// Memory in bytes.
        memory_bytes: u64,
        /// Capability bits.
        caps: u64,
        /// A `flagos_device_kind_t` value.
        device_kind: u32,
        /// Compute units (cores, multiprocessors).
        compute_units: u32,
        /// Least alignment of buffers in bytes, a power of two.
        alignment_bytes: u32,
        /// Number of entries of `formats`.
        n_formats: u32,
        /// Accepted kernel formats (`flagos_kernel_format_t`), best first.
        formats: *const u32,
        /// Greatest number of threads in a block.
        max_block_threads: u32,
        /// Shared (local) memory of a block in bytes.
        shared_bytes: u32,
        /// Smallest subgroup size; 0 when there are no subgroups.
        subgroup_min: u32,
        /// Greatest subgroup size.
        subgroup_max: u32,
        /// Greatest grid extents.
        max_grid: [u32; 3],
        /// Number of entries of `matrix_shapes`.
        n_matrix_shapes: u32,
        /// Matrix-unit shapes as (m, n, k, dtype) quadruples of u32; dtype is the 4 bytes of `flagos_dtype_t`.
        matrix_shapes: *const u32,
        /// Bit set of `1 << flagos_memory_kind_t` that `alloc` accepts.
        memory_kinds: u64,
    }

    /// Device functions. Required.
    DeviceTable = "flagos_device_table_t", kind 0x12 {
        /// `sizeof(flagos_device_table_t)`.
        size: u32,
        /// 0x12.
        kind: u32,
        /// Opens the device of a probe's ordinal. Opening twice gives two handles on one device.
        [Init] fn open(ordinal: u32, out_device: *mut *mut Device) -> *mut Status,
        /// Closes a device. Everything made from it has been destroyed before.
        [Init] fn close(device: *mut Device) -> *mut Status,
        /// Fills `out_info`, at most `out_info->size` bytes of it.
        [Free] fn info(device: *mut Device, out_info: *mut DeviceInfo) -> *mut Status,
        /// Waits until all work of the device is done, and returns the first late error.
        [Free] fn sync(device: *mut Device) -> *mut Status,
        /// Stands for what a minor appends.
        #[cfg(feature = "next-minor")]
        @ 1 [Free] fn appended(device: *mut Device) -> *mut Status,
    }
}
