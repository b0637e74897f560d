//! Emitters: one file per kernel format.

mod spirv;

use flagos_backend_api::KernelFormat;

use crate::error::Result;
use crate::{CompileError, Compiled, Target, thread};

/// Writes a kernel in the target's format.
pub fn emit(kernel: &thread::Kernel, target: &Target) -> Result<Compiled> {
    match target.format {
        KernelFormat::SPIRV_VULKAN => spirv::emit(kernel, target),
        other => Err(CompileError::unsupported("", Default::default(), format!("no emitter for format {}", other.0))),
    }
}
