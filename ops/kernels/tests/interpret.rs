//! Every case of the catalogue on the tile interpreter, judged by the catalogue.

mod support;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::KernelFormat;
use flagos_catalog::{Array, Cases, Instance, Operator, Tier, assignments, numerics, operators};
use flagos_compiler::Target;
use flagos_kernels::cook;

/// The failure of a case, if it fails.
fn check(o: &'static Operator, instance: &Instance, target: &Target, aligned: bool) -> Result<(), String> {
    let cook = cook(o.name).ok_or("no recipe")?;
    let recipe = cook(&instance.call, target).map_err(|e| e.to_string())?;
    let outputs = machine::run(&recipe, instance, aligned)?;
    let arrays: Vec<Array> = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin).expect("an input")).collect();
    let references = (o.reference)(&instance.call, &arrays).map_err(|e| e.to_string())?;
    for (i, (reference, memory)) in references.iter().zip(&outputs).enumerate() {
        let got = Array::decode(&memory.tensor, &memory.bytes, memory.origin).map_err(|e| e.to_string())?;
        let verdict = numerics::judge(o.numerics, memory.tensor.dtype, reference, &got);
        if !verdict.ok {
            return Err(format!("output {i}: {verdict:?}"));
        }
        // What lies between the elements is untouched: the value encoded again into a guarded memory is the same.
        let mut again = memory.clone();
        again.bytes.fill(0xa5);
        got.encode(&memory.tensor, &mut again.bytes, memory.origin).map_err(|e| e.to_string())?;
        if !memory.tensor.dtype.is_float() && again.bytes != memory.bytes {
            return Err(format!("output {i}: bytes beside its elements were written"));
        }
    }
    Ok(())
}

/// Runs the smoke cases of operators of one family for a target.
fn family(name: &str, target: &Target, aligned: bool) {
    let mut failures = Vec::new();
    for o in operators().iter().filter(|o| o.family == name) {
        for types in assignments(o) {
            for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Smoke) {
                let instance = case.instance(o, &types, 1).expect("a case");
                if let Err(e) = check(o, &instance, target, aligned) {
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
