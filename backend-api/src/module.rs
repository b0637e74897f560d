//! Module table: how a chip takes portable kernels.

use crate::{Binding, Device, Kernel, Module, Status, Str, Stream, abi_enum, abi_struct};

abi_enum! {
    /// Kind of a kernel argument.
    ArgKind = "flagos_arg_kind_t", "FLAGOS_ARG_" {
        /// A buffer and offset.
        BUFFER = 1,
        /// Up to 8 bytes by value, little-endian, in `scalar`; `bytes` says how many.
        SCALAR = 2,
    }
}

abi_struct! {
    /// Code to compile.
    CompileDesc = "flagos_compile_desc_t", kind 0x40 {
        /// `sizeof(flagos_compile_desc_t)`.
        size: u32,
        /// 0x40.
        kind: u32,
        /// A `flagos_kernel_format_t` value from the device's list.
        format: u32,
        /// 1: `code` is a binary exported earlier from the same target fingerprint and build id; DATA_LOSS when it does not fit.
        is_binary: u32,
        /// Source text or binary; borrowed for the call.
        code: Str,
        /// Compiler options, separated by spaces; borrowed for the call.
        options: Str,
        /// A name for error messages and profilers.
        name: Str,
    }

    /// One kernel argument.
    KernelArg = "flagos_kernel_arg_t", kind 0 {
        /// A `flagos_arg_kind_t` value.
        arg_kind: u32,
        /// Size of a scalar in bytes.
        bytes: u32,
        /// The scalar's bits.
        scalar: u64,
        /// The buffer.
        binding: Binding,
    }

    /// A kernel launch.
    KernelLaunch = "flagos_kernel_launch_t", kind 0x41 {
        /// `sizeof(flagos_kernel_launch_t)`.
        size: u32,
        /// 0x41.
        kind: u32,
        /// Blocks per axis.
        grid: [u32; 3],
        /// Threads per block and axis.
        block: [u32; 3],
        /// Dynamic shared memory in bytes.
        shared_bytes: u32,
        /// Number of arguments.
        n_args: u32,
        /// Arguments; read before return.
        args: *const KernelArg,
    }

    /// What is known of a compiled kernel.
    KernelInfo = "flagos_kernel_info_t", kind 0x42 {
        /// `sizeof(flagos_kernel_info_t)`.
        size: u32,
        /// 0x42.
        kind: u32,
        /// Registers per thread; 0: unknown.
        registers: u32,
        /// Static shared memory in bytes.
        shared_bytes: u32,
        /// Spilled bytes per thread.
        spill_bytes: u32,
        /// Greatest block size it can be launched with; 0: the device's.
        max_block_threads: u32,
    }

    /// Module functions. With `device memory stream` they give a chip the whole catalogue.
    ModuleTable = "flagos_module_table_t", kind 0x43 {
        /// `sizeof(flagos_module_table_t)`.
        size: u32,
        /// 0x43.
        kind: u32,
        /// Compiles; slow. The error carries the compiler's log.
        [Free] fn compile(device: *mut Device, desc: *const CompileDesc, out_module: *mut *mut Module) -> *mut Status,
        /// Destroys a module and its kernels.
        [Free] fn destroy(module: *mut Module) -> *mut Status,
        /// Finds an entry point; it lives as long as the module.
        [Free] fn kernel(module: *mut Module, name: Str, out_kernel: *mut *mut Kernel) -> *mut Status,
        /// Describes a kernel. NULL slot: nothing is known.
        [Free] fn kernel_info(kernel: *mut Kernel, out_info: *mut KernelInfo) -> *mut Status,
        /// Enqueues a launch. No compilation, allocation or synchronisation.
        [Stream] fn launch(stream: *mut Stream, kernel: *mut Kernel, launch: *const KernelLaunch) -> *mut Status,
        /// Binary of a module: with `out_bytes` NULL, only its length. NULL slot: no binaries, the host caches sources.
        [Free] fn export_binary(module: *mut Module, out_bytes: *mut core::ffi::c_void, capacity_bytes: u64, out_length_bytes: *mut u64) -> *mut Status,
    }
}
