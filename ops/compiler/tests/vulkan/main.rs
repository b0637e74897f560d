//! Thread programs as SPIR-V: checked by spirv-val, run on the best Vulkan device, compared with the thread interpreter.

mod device;
mod elementwise;
mod first;
mod flow;
mod memory;
#[path = "../../../../backends/vulkan/tests/support/mod.rs"]
mod support;
