//! Thread programs as SPIR-V: checked by spirv-val, run on the best Vulkan device, compared with the thread interpreter.

mod cases;
#[path = "../corpus/mod.rs"]
mod corpus;
mod corpus_runs;
mod device;
mod elementwise;
mod first;
mod flow;
mod half;
mod matrix;
mod memory;
mod random;
#[path = "../support/mod.rs"]
mod shared;
#[path = "../../../../backends/vulkan/tests/support/mod.rs"]
mod support;
