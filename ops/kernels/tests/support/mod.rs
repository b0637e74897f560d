//! Targets recipes are tried for.

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::Target;

/// A target of a format with everything the recipes may ask for, or with the least.
pub fn target(format: KernelFormat, rich: bool) -> Target {
    let all = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    let (subgroup, arch) = match format {
        KernelFormat::C | KernelFormat::OPENCL_C => (0, ""),
        KernelFormat::SPIRV_VULKAN => (32, ""),
        _ => (32, "sm_90"),
    };
    Target {
        format,
        arch: arch.to_owned(),
        caps: if rich { all } else { caps::FP64 | caps::INT64 },
        max_block_threads: if format == KernelFormat::C { 1 } else { 1024 },
        // What the smallest devices have; on processors it bounds the arrays of a block.
        shared_bytes: if format == KernelFormat::C { 1 << 20 } else { 32 << 10 },
        subgroup,
        matrix: Vec::new(),
    }
}

/// A large device whose matrix units hold known elements in each lane.
#[allow(dead_code)] // not every test has one
pub fn matrix_units() -> Target {
    let matrix = flagos_compiler::emit::cuda::MATRIX_SHAPES.iter().map(|s| s.1).filter(|s| s.factor != flagos_compiler::Elem::F32);
    Target { matrix: matrix.collect(), shared_bytes: 227 << 10, ..target(KernelFormat::CUDA_CPP, true) }
}
