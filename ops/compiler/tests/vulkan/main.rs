//! Thread programs as SPIR-V: checked by spirv-val, run on the best Vulkan device, compared with the thread interpreter.

mod device;
mod first;
#[path = "../../../../backends/vulkan/tests/support/mod.rs"]
mod support;
