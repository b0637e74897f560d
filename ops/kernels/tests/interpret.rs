//! Every case of the catalogue on the tile interpreter, judged by the catalogue.

mod support;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::Target;

/// Runs the smoke cases of operators of one family for a target.
fn family(name: &str, target: &Target, aligned: bool) {
    let mut failures = Vec::new();
    for o in operators().iter().filter(|o| o.family == name) {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Smoke) {
                let instance = case.instance(o, &types, 1).expect("a case");
                if let Err(e) = judge::check(o, &instance, target, aligned, &machine::interpreted) {
                    failures.push(format!("{}: {e}", instance.id));
                }
            }
        }
    }
    let shown = failures.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

macro_rules! families {
    ($($family:ident),*) => {
        mod processor {
            $(#[test] fn $family() { super::family(stringify!($family), &super::support::target(super::KernelFormat::C, true), false); })*
        }
        mod graphics {
            $(#[test] fn $family() { super::family(stringify!($family), &super::support::target(super::KernelFormat::SPIRV_VULKAN, false), true); })*
        }
    };
}
families!(activation, arithmetic, exponential, comparison, bitwise, select, copy, reduction, softmax, norm, scan, index, create, random, sort, matmul, conv, attention);
