//! Cases large enough for several stages, on the tile interpreter.

mod support;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::{DType, KernelFormat};
use flagos_catalog::{Cases, Tier, assignments, operators};

/// Operators whose recipes have more than one stage or pass, where lines are long.
const STAGED: &[&str] = &["sum", "argmax", "any", "cumsum", "sort", "topk", "softmax", "layer_norm", "scatter_add"];

#[test]
fn long_lines_pass() {
    let mut failures = Vec::new();
    for o in operators().iter().filter(|o| STAGED.contains(&o.name)) {
        for types in assignments(o).into_iter().filter(|a| a.inputs.first().is_none_or(|t| *t == DType::F32)) {
            for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Quick) {
                for (format, rich) in [(KernelFormat::C, true), (KernelFormat::SPIRV_VULKAN, false)] {
                    let instance = case.instance(o, &types, 1).expect("a case");
                    if let Err(e) = judge::check(o, &instance, &support::target(format, rich), rich, &machine::interpreted) {
                        failures.push(format!("{}: {e}", instance.id));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
