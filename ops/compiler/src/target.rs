//! What the compiler knows of a chip, and how a kernel is to be built.

use flagos_backend_api::KernelFormat;

use crate::Elem;

/// A shape of the matrix unit: one instruction multiplies m×k by k×n and adds to m×n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Depth.
    pub k: u32,
    /// Type of the factors.
    pub factor: Elem,
    /// Type of the sum.
    pub sum: Elem,
}

/// Facts of a device that code depends on. Two devices with equal targets take the same code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Format to emit.
    pub format: KernelFormat,
    /// Architecture ("sm_90", "x86-64-v4"); part of the cache key, and read by emitters that choose instructions by it.
    pub arch: String,
    /// `FLAGOS_CAP_*` bits.
    pub caps: u64,
    /// Greatest number of threads in a block.
    pub max_block_threads: u32,
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Subgroup size that shuffles may rely on; 0: no shuffles.
    pub subgroup: u32,
    /// Matrix unit shapes; empty: none.
    pub matrix: Vec<MatrixShape>,
}

impl Target {
    /// Whether a `FLAGOS_CAP_*` bit is set.
    pub fn has(&self, cap: u64) -> bool {
        self.caps & cap == cap
    }

    /// Whether a block is one thread of a processor.
    pub fn is_processor(&self) -> bool {
        self.max_block_threads <= 1
    }

    /// Whether the device is a driver in software (word "software" of `arch`): threads of a block take turns on a processor, and code is compiled
    /// slowly, so that loops do better than long unrolled code.
    pub fn is_software(&self) -> bool {
        self.arch.split('+').skip(1).any(|w| w == "software")
    }

    /// Number of an architecture of CUDA: 90 for "sm_90"; 0 without one.
    pub fn sm(&self) -> u32 {
        let digits: String = self.arch.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// Whether a block copies from global to shared memory while it computes.
    pub fn copies_aside(&self) -> bool {
        self.format == KernelFormat::CUDA_CPP && self.sm() >= 80
    }

    /// Whether it is known which lane holds what of a matrix unit's fragments, so that they are taken apart and made from registers.
    pub fn opens_fragments(&self) -> bool {
        self.format == KernelFormat::CUDA_CPP && self.subgroup == 32
    }

    /// Whether `Fma` of a float type is one instruction. Where it is not (Vulkan lets drivers round the product too; words "fma32" and "fma64" of
    /// `arch` say that one does not), code that needs no fused rounding does better with a product and a sum.
    pub fn fuses(&self, elem: Elem) -> bool {
        let word = if elem == Elem::F64 { "fma64" } else { "fma32" };
        self.format != KernelFormat::SPIRV_VULKAN || self.arch.split('+').skip(1).any(|w| w == word)
    }
}

/// How a kernel is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Threads of a block, a power of two.
    pub threads: u32,
    /// Depth of the software pipeline of loads feeding `dot` in loops; 1: none.
    pub stages: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { threads: 128, stages: 1 }
    }
}
