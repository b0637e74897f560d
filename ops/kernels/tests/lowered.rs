//! Every smoke case of the catalogue lowered to threads and run by their interpreter, judged by the catalogue.

mod support;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::{DType, KernelFormat};
use flagos_catalog::{Assignment, Case, Cases, Tier, assignments, operators};
use flagos_compiler::run::Arg;
use flagos_compiler::{Target, lower, thread, tile};
use flagos_kernels::Kernel;

/// Runs the cases of operators of one family for a target.
fn family(name: &str, target: &Target, aligned: bool) {
    cases(name, target, aligned, &|_, case| case.tier == Tier::Smoke);
}

fn cases(name: &str, target: &Target, aligned: bool, wanted: &dyn Fn(&Assignment, &Case) -> bool) {
    let run = |program: &tile::Program, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]| {
        let lowered = lower::lower(program, kernel.entry, target, &kernel.options).map_err(|e| format!("lowering: {e}"))?;
        thread::interpret::run(&lowered, grid, args).map_err(|e| e.to_string())
    };
    let mut failures = Vec::new();
    for o in operators().iter().filter(|o| o.family == name) {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| wanted(&types, c)) {
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

/// Matrix units whose fragments are taken apart and made of registers.
mod open_fragments {
    use super::*;

    #[test]
    fn matmul() {
        family("matmul", &support::matrix_units(), true);
    }

    #[test]
    fn attention() {
        family("attention", &support::matrix_units(), true);
    }

    #[test]
    fn attention_over_several_tiles() {
        let wanted = |types: &Assignment, case: &Case| case.tier == Tier::Quick && types.inputs[0] == DType::F16;
        cases("attention", &support::matrix_units(), true, &wanted);
    }
}
