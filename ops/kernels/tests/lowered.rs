//! Every smoke case of the catalogue lowered to threads and run by their interpreter, judged by the catalogue.

mod support;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::run::Arg;
use flagos_compiler::{Target, lower, thread, tile};
use flagos_kernels::Kernel;

/// Runs the cases of operators of one family for a target.
fn family(name: &str, target: &Target, aligned: bool) {
    let run = |program: &tile::Program, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]| {
        let lowered = lower::lower(program, kernel.entry, target, &kernel.options).map_err(|e| format!("lowering: {e}"))?;
        thread::interpret::run(&lowered, grid, args).map_err(|e| e.to_string())
    };
    let mut failures = Vec::new();
    for o in operators().iter().filter(|o| o.family == name) {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Smoke) {
                let instance = case.instance(o, &types, 1).expect("a case");
                if let Err(e) = judge::check(o, &instance, target, aligned, &run) {
                    failures.push(format!("{}: {e}", instance.id));
                }
            }
        }
    }
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

macro_rules! families {
    ($($family:ident),*) => {
        mod processor {
            $(#[test] fn $family() { super::family(stringify!($family), &super::support::target(super::KernelFormat::C, true), false); })*
        }
        mod subgroups {
            $(#[test] fn $family() { super::family(stringify!($family), &super::support::target(super::KernelFormat::SPIRV_VULKAN, false), true); })*
        }
        mod shared_memory {
            $(#[test] fn $family() { super::family(stringify!($family), &super::support::target(super::KernelFormat::OPENCL_C, true), true); })*
        }
    };
}
families!(activation, arithmetic, exponential, comparison, bitwise, select, copy, reduction, softmax, norm, scan, index, create, random, sort, matmul, conv, attention);
