//! Every case of the catalogue has a recipe, and every kernel of it can be written down.

mod support;

use std::collections::HashMap;

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Cases, assignments, operators};
use flagos_kernels::cook;

#[test]
fn every_case_is_cooked_and_equal_keys_are_equal_programs() {
    let mut missing = Vec::new();
    for (format, rich) in [(KernelFormat::C, true), (KernelFormat::SPIRV_VULKAN, false)] {
        let target = support::target(format, rich);
        let mut programs = HashMap::new();
        for o in operators() {
            let Some(cook) = cook(o.name) else {
                missing.push(o.name);
                continue;
            };
            for types in assignments(o) {
                for case in Cases::of(o) {
                    if case.tier > flagos_catalog::Tier::Quick {
                        continue;
                    }
                    let instance = case.instance(o, &types, 1).unwrap();
                    let recipe = cook(&instance.call, &target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                    for step in &recipe.steps {
                        for kernel in core::iter::once(&step.kernel).chain(&step.aligned) {
                            let program = (kernel.build)();
                            let function = program.function(kernel.entry).expect("the entry point");
                            assert_eq!(function.body.args.len(), step.args.len(), "{}: arguments of {}", instance.id, kernel.key);
                            assert!(kernel.entry.starts_with("k_"), "{}", kernel.entry);
                            let (first, of) = programs.entry(kernel.key.clone()).or_insert_with(|| (program.clone(), instance.id.clone()));
                            assert!(*first == program, "{} and {of} have different kernels of key '{}'", instance.id, kernel.key);
                        }
                    }
                }
            }
        }
    }
    missing.dedup();
    assert!(missing.is_empty(), "{} operators have no recipe: {missing:?}", missing.len());
}
