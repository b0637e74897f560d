//! Judges a recipe by the catalogue.

use flagos_catalog::{Array, Instance, Operator, numerics};
use flagos_compiler::Target;
use flagos_kernels::cook;

use crate::machine;

/// The failure of a case, if it fails.
pub fn check(o: &'static Operator, instance: &Instance, target: &Target, aligned: bool, runner: machine::Runner) -> Result<(), String> {
    let cook = cook(o.name).ok_or("no recipe")?;
    let recipe = cook(&instance.call, target).map_err(|e| e.to_string())?;
    let outputs = machine::run(&recipe, instance, aligned, runner)?;
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
