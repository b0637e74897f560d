//! Every case of the catalogue has a recipe, and every kernel of it can be written down.

mod support;

use std::collections::HashMap;

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::tile::verify::verify;
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
                    if case.tier > Tier::Quick {
                        continue;
                    }
                    let instance = case.instance(o, &types, 1).unwrap();
                    let recipe = cook(&instance.call, &target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                    for step in &recipe.steps {
                        for kernel in core::iter::once(&step.kernel).chain(&step.aligned) {
                            let program = (kernel.build)();
                            let function = program.function(kernel.entry).expect("the entry point");
                            verify(&program).unwrap_or_else(|e| panic!("{}: {e}", kernel.key));
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

#[test]
fn tensors_beyond_32_bits_are_walked_in_64() {
    for o in operators() {
        let cook = cook(o.name).expect("a recipe");
        for format in [KernelFormat::C, KernelFormat::SPIRV_VULKAN] {
            let target = support::target(format, true);
            for case in Cases::of(o).into_iter().filter(|c| c.tier == Tier::Smoke) {
                let mut call = case.instance(o, &assignments(o)[0], 1).unwrap().call;
                // The same elements, 4 Gi apart.
                call.inputs.iter_mut().chain(&mut call.outputs).for_each(|t| t.stride.iter_mut().for_each(|s| *s <<= 32));
                let recipe = cook(&call, &target).unwrap_or_else(|e| panic!("{}/{}: {e}", o.name, case.name));
                for step in &recipe.steps {
                    let program = (step.kernel.build)();
                    verify(&program).unwrap_or_else(|e| panic!("{}: {e}", step.kernel.key));
                }
            }
        }
    }
}
