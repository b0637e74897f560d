//! Emitters: one file per kernel format.

mod atomic;
mod c;
pub mod cuda;
mod cuda_matrix;
mod cxx;
mod helpers;
mod hip;
mod literal;
mod narrow;
mod opencl;
mod print;
mod scalar;
mod source;
mod spirv;

use flagos_backend_api::KernelFormat;

use crate::error::Result;
use crate::{CompileError, Compiled, Target, thread};

/// Writes a kernel in the target's format. The entry point in the code is [`Compiled::entry`], which is not the kernel's name: names like `exp` are
/// taken in most languages.
pub fn emit(kernel: &thread::Kernel, target: &Target) -> Result<Compiled> {
    match target.format {
        KernelFormat::C => source::emit(kernel, target, &c::C),
        KernelFormat::OPENCL_C => source::emit(kernel, target, &opencl::OpenCl::new(target)),
        KernelFormat::CUDA_CPP => source::emit(kernel, target, &cxx::Cxx(cuda::Cuda::new(target))),
        KernelFormat::HIP_CPP => source::emit(kernel, target, &cxx::Cxx(hip::Hip)),
        KernelFormat::SPIRV_VULKAN => spirv::emit(kernel, target),
        other => Err(CompileError::unsupported("", Default::default(), format!("no emitter for format {}", other.0))),
    }
}
