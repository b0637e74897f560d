//! What a Vulkan device can do, out of a target: capability bits, and the words that its fingerprint carries.

use flagos_backend_api::caps;
use spirv::{Capability, ExecutionMode};

use crate::Target;

/// Facts that code depends on. What a target does not state is not relied on.
pub struct Device {
    /// 64-bit integers.
    pub int64: bool,
    /// Double precision.
    pub double: bool,
    /// Half precision, for fragments.
    pub half: bool,
    /// 64-bit atomics on global memory.
    pub atomic64: bool,
    /// 64-bit atomics on shared memory.
    pub shared_atomic64: bool,
    /// 8-bit integers, so that shared memory may hold bytes.
    pub int8: bool,
    /// 16-bit integers.
    pub int16: bool,
    /// Bytes in global memory can be addressed.
    pub storage8: bool,
    /// 16-bit words in global memory can be addressed.
    pub storage16: bool,
    /// Shuffles of any lane.
    pub shuffle: bool,
    /// Atomic addition of f32 in global memory.
    pub add32: bool,
    /// Atomic addition of f64 in global memory.
    pub add64: bool,
    /// The memory model of Vulkan.
    pub memory_model: bool,
    modes: Vec<(u32, ExecutionMode, Capability)>,
    /// Widths whose `Fma` rounds once.
    fused: Vec<u32>,
}

impl Device {
    /// Reads a target. `arch` is "vulkan-…" followed by words that begin with '+' (`backends/vulkan/src/device.rs` writes them).
    pub fn new(target: &Target) -> Device {
        let words: Vec<&str> = target.arch.split('+').skip(1).collect();
        let has = |word: &str| words.contains(&word);
        let mut modes = Vec::new();
        for bits in [16, 32, 64] {
            for (word, mode, capability) in [
                ("nan", ExecutionMode::SignedZeroInfNanPreserve, Capability::SignedZeroInfNanPreserve),
                ("rte", ExecutionMode::RoundingModeRTE, Capability::RoundingModeRTE),
                ("denorm", ExecutionMode::DenormPreserve, Capability::DenormPreserve),
            ] {
                if has(&format!("{word}{bits}")) {
                    modes.push((bits, mode, capability));
                }
            }
        }
        Device {
            int64: target.has(caps::INT64),
            double: target.has(caps::FP64),
            half: target.has(caps::FP16),
            atomic64: target.has(caps::ATOMIC64),
            shared_atomic64: has("sharedatomic64"),
            int8: has("int8"),
            int16: has("int16"),
            storage8: has("storage8"),
            storage16: has("storage16") || target.has(caps::FP16),
            shuffle: has("shuffle"),
            add32: has("add32"),
            add64: has("add64"),
            memory_model: has("memorymodel"),
            modes,
            fused: [32, 64].into_iter().filter(|bits| has(&format!("fma{bits}"))).collect(),
        }
    }

    /// Whether `Fma` of GLSL.std.450 rounds once for floats of a width.
    pub fn fused(&self, bits: u32) -> bool {
        self.fused.contains(&bits)
    }

    /// Whether conversions between f16 and f32 are exact but for one rounding to nearest even, with the modes for 16 bits declared.
    pub fn half_conversions(&self) -> bool {
        self.half && self.float_modes(16).len() == 3
    }

    /// Modes to declare for floats of a width.
    pub fn float_modes(&self, bits: u32) -> Vec<(ExecutionMode, Capability)> {
        self.modes.iter().filter(|m| m.0 == bits).map(|m| (m.1, m.2)).collect()
    }
}
