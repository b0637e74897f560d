//! Kernels of the caller's own, in Triton dialect.

use core::ffi::c_char;

use flagos_backend_api::{ArgKind, Error, KernelArg};
use flagos_runtime::KernelArgument;
use serde_json::json;

use crate::border::{Device, Handle, Kernel, Stream, export, put, put_text, text};
use crate::call::{entries, of_binding};

export! {
    /// Compiles a kernel of Triton dialect text for a device; slow where the kernel cache does not hold it. `name` is the function's, NULL where
    /// there is only one; `threads` of a block, 0: as usual. FLAGOS_INVALID_ARGUMENT names the line of text that is wrong.
    [Free] fn flagos_kernel_compile(device: *const Device, ttir: *const c_char, name: *const c_char, threads: u32, out_kernel: *mut *mut Kernel) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_kernel, Handle::give(Handle::get(device)?.compile(text(ttir)?, text(name)?, threads)?)) }
    }

    /// Name, device, parameters and threads of a block as JSON. Free it with flagos_text_free.
    [Free] fn flagos_kernel_describe(kernel: *const Kernel, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let kernel = Handle::get(kernel)?;
            let parameters: Vec<String> = kernel.parameters().iter().map(ToString::to_string).collect();
            put_text(out_json, json!({ "name": kernel.name(), "device": kernel.device().name(), "parameters": parameters, "threads": kernel.threads() }).to_string())
        }
    }

    /// Enqueues `grid` (three extents) blocks of a kernel; an extent of 0 does nothing. Buffers in `args` are flagos_buffer_t, NULL where the kernel
    /// never follows them; scalars have the parameter's type. What the kernel reads and writes is the caller's to answer for.
    [Stream] fn flagos_kernel_launch(kernel: *const Kernel, stream: *const Stream, grid: *const u32, args: *const KernelArg, n_args: u32) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let (kernel, stream) = (Handle::get(kernel)?, Handle::get(stream)?);
            let grid = entries(grid, 3, "grid")?;
            let mut list = Vec::with_capacity(n_args as usize);
            for (i, a) in entries(args, n_args, "args")?.iter().enumerate() {
                list.push(match ArgKind(a.arg_kind) {
                    ArgKind::SCALAR => KernelArgument::Scalar(a.scalar),
                    ArgKind::BUFFER => match of_binding(&a.binding) {
                        (buffer, _) if buffer.is_null() => KernelArgument::Null,
                        (buffer, offset) => KernelArgument::Buffer(Handle::get(buffer)?, offset),
                    },
                    other => return Err(Error::invalid(format!("argument {i} is of kind {}; FLAGOS_ARG_BUFFER and FLAGOS_ARG_SCALAR are possible", other.0)).at(i as u32)),
                });
            }
            kernel.launch(stream, [grid[0], grid[1], grid[2]], &list)
        }
    }

    /// Releases a kernel; its launches in flight finish. NULL is allowed.
    [Free] fn flagos_kernel_release(kernel: *mut Kernel) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(kernel) }.map(drop)
    }
}
