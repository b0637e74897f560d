//! Every kernel of the smoke cases compiles for every format.

mod support;

use std::collections::{BTreeMap, HashSet};

use flagos_backend_api::{DType, KernelFormat, Tensor};
use flagos_catalog::{AttrValue, Call, Cases, Tier, assignments, operators};
use flagos_compiler::lower::lower;
use flagos_compiler::{Elem, MatrixShape, Target, compile};
use flagos_kernels::cook;

fn compiles(format: KernelFormat) {
    cases_compile(&support::target(format, true), Tier::Smoke, |_| true);
}

/// Every kernel of the cases up to a tier of some families.
fn cases_compile(target: &Target, tier: Tier, family: impl Fn(&str) -> bool) {
    let mut seen = HashSet::new();
    let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for o in operators().iter().filter(|o| family(o.family)) {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| c.tier <= tier) {
                let call = case.instance(o, &types, 1).expect("a case").call;
                let recipe = cook(o.name).expect("a recipe")(&call, target).unwrap_or_else(|e| panic!("{}/{}: {e}", o.name, case.name));
                for kernel in recipe.steps.iter().flat_map(|s| core::iter::once(&s.kernel).chain(&s.aligned)) {
                    if seen.insert(kernel.key.clone())
                        && let Err(e) = compile(&(kernel.build)(), kernel.entry, target, &kernel.options)
                    {
                        failures.entry(e.to_string()).or_default().push(kernel.key.clone());
                    }
                }
            }
        }
    }
    let shown: Vec<String> = failures.iter().map(|(e, keys)| format!("{e}: {} kernels, as '{}'", keys.len(), keys[0])).collect();
    assert!(failures.is_empty(), "of {} kernels for {}:\n{}", seen.len(), target.format.0, shown.join("\n"));
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

#[test]
fn for_matrix_units_with_little_shared_memory() {
    let shape = |factor| MatrixShape { m: 16, n: 16, k: 16, factor, sum: Elem::F32 };
    let matrix = vec![shape(Elem::F16), shape(Elem::BF16)];
    // As NVIDIA's Vulkan driver says of an H100, whose shared memory is 227 KiB for CUDA.
    let arch = "vulkan-10de:2330-sg32+int8+int16+storage8+storage16+shuffle+nan32+denorm32+memorymodel".to_owned();
    // The least that Vulkan devices with such units have, too.
    for shared_bytes in [32 << 10, 48 << 10] {
        let target = Target { shared_bytes, matrix: matrix.clone(), arch: arch.clone(), ..support::target(KernelFormat::SPIRV_VULKAN, true) };
        cases_compile(&target, Tier::Quick, |family| ["matmul", "conv", "attention"].contains(&family));
    }
}

#[test]
fn attention_with_open_fragments_keeps_logits_weights_and_sums_in_registers() {
    let target = support::matrix_units();
    let operator = operators().iter().find(|o| o.name == "scaled_dot_product_attention").expect("the operator");
    let x = Tensor::contiguous(DType::F16, &[4, 32, 2048, 128]);
    let mut call = Call::new(operator, &[x, x, x, Tensor::NONE], &[], &[("is_causal", AttrValue::Int(1))]).expect("a call");
    call.outputs = vec![x];
    let recipe = cook(operator.name).expect("a recipe")(&call, &target).expect("steps");
    let [step] = recipe.steps.as_slice() else { panic!("{} steps", recipe.steps.len()) };
    let kernel = step.aligned.as_ref().expect("a kernel for aligned operands");
    let lowered = lower(&(kernel.build)(), kernel.entry, &target, &kernel.options).expect("lowered");
    let text = lowered.to_string();
    // q·kᵀ: 8 steps of the depth by 16 fragments; weights·v: 8 steps by 16.
    for (what, count) in [("fragment_mul_add", 128 + 128), ("fragment_store", 0), ("fragment_zero", 16)] {
        assert_eq!(text.matches(&format!("{what} ")).count() + text.matches(&format!("{what}\n")).count(), count, "{what} in\n{text}");
    }
    // Two rounds of keys and values under way.
    assert!(text.contains("copy_wait 0"), "no rounds under way in\n{text}");
}
