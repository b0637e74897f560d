//! Every kernel of the smoke cases compiles for every format.

mod support;

use std::collections::{BTreeMap, HashSet};

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::compile;
use flagos_kernels::cook;

fn compiles(format: KernelFormat) {
    let target = support::target(format, true);
    let mut seen = HashSet::new();
    let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for o in operators() {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Smoke) {
                let call = case.instance(o, &types, 1).expect("a case").call;
                let recipe = cook(o.name).expect("a recipe")(&call, &target).unwrap_or_else(|e| panic!("{}/{}: {e}", o.name, case.name));
                for kernel in recipe.steps.iter().flat_map(|s| core::iter::once(&s.kernel).chain(&s.aligned)) {
                    if seen.insert(kernel.key.clone())
                        && let Err(e) = compile(&(kernel.build)(), kernel.entry, &target, &kernel.options)
                    {
                        failures.entry(e.to_string()).or_default().push(kernel.key.clone());
                    }
                }
            }
        }
    }
    let shown: Vec<String> = failures.iter().map(|(e, keys)| format!("{e}: {} kernels, as '{}'", keys.len(), keys[0])).collect();
    assert!(failures.is_empty(), "of {} kernels for {}:\n{}", seen.len(), format.0, shown.join("\n"));
}

#[test]
fn for_c() {
    compiles(KernelFormat::C);
}

#[test]
fn for_opencl() {
    compiles(KernelFormat::OPENCL_C);
}

#[test]
fn for_vulkan() {
    compiles(KernelFormat::SPIRV_VULKAN);
}

#[test]
fn for_cuda() {
    compiles(KernelFormat::CUDA_CPP);
}
