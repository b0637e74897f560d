//! The references of operators against golden vectors.

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::{Array, Call, Numerics, Operator, Reference, numerics};

use crate::file::{self, Golden, GoldenCase};

/// Golden values of f16, bf16 and f32 are rounded once; so is the reference, whose f64 may stand that much beside a tie.
const NARROW: f64 = 0.5 + 1e-6;
const HALF: Numerics = Numerics::Ulp(&[(DType::F64, 0.5), (DType::F32, NARROW), (DType::F16, NARROW), (DType::BF16, NARROW)]);
const ONE: Numerics = Numerics::Ulp(&[(DType::F64, 1.0), (DType::F32, NARROW), (DType::F16, NARROW), (DType::BF16, NARROW)]);
const TWO: Numerics = Numerics::Ulp(&[(DType::F64, 2.0), (DType::F32, NARROW), (DType::F16, NARROW), (DType::BF16, NARROW)]);

/// Golden files of tables that are no operators.
const TABLES: &[&str] = &["blas", "fft"];

#[test]
fn references_meet_golden_vectors() {
    let mut faults = Vec::new();
    let names = file::names();
    for operator in flagos_catalog::operators().iter().filter(|o| names.contains(o.name)) {
        for case in file::read(operator.name) {
            if let Err(text) = check(operator, &case) {
                faults.push(format!("{}/{}: {text} [{}]", operator.name, case.name, case.entry["source"]));
            }
        }
    }
    assert!(faults.is_empty(), "{} cases differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_operator_has_golden_vectors() {
    let names = file::names();
    let missing: Vec<&str> = flagos_catalog::operators().iter().map(|o| o.name).filter(|n| !names.contains(*n)).collect();
    assert!(missing.is_empty(), "no golden file for {}; add cases to conformance/golden/sources and run scripts/golden", missing.join(", "));
    let idle: Vec<&String> = names.iter().filter(|n| !TABLES.contains(&n.as_str()) && flagos_catalog::find(n).is_none()).collect();
    assert!(idle.is_empty(), "golden files of unknown operators: {idle:?}");
}

#[test]
fn every_attribute_is_given_in_a_case() {
    let names = file::names();
    for operator in flagos_catalog::operators().iter().filter(|o| names.contains(o.name)) {
        let cases = file::read(operator.name);
        let given = |name: &str| cases.iter().any(|c| c.entry["attrs"].get(name).is_some());
        let idle: Vec<&str> = operator.attributes.iter().map(|a| a.name).filter(|n| !given(n)).collect();
        assert!(idle.is_empty(), "{}: no golden case gives {}", operator.name, idle.join(", "));
    }
}

#[test]
fn wrong_values_are_found() {
    let operator = flagos_catalog::find("exp").expect("the catalogue has exp");
    let mut case = file::read("exp").remove(0);
    check(operator, &case).expect("unchanged, the case passes");
    let out = &mut case.outputs[0];
    let mut values = out.array.floats();
    let at = values.iter().position(|v| *v == core::f64::consts::E).expect("exp(1) is a point");
    values[at] *= 1.0 + 4.0 * f64::EPSILON;
    let shape = out.array.shape.clone();
    out.array = Array::float(&shape, values);
    check(operator, &case).expect_err("an error of 4 ULP");
}

fn check(operator: &'static Operator, case: &GoldenCase) -> Result<(), String> {
    let tensors = |list: &[Golden]| list.iter().map(|g| g.tensor).collect::<Vec<Tensor>>();
    let attrs = file::attributes(operator, case);
    let call = Call::new(operator, &tensors(&case.inputs), &tensors(&case.outputs), &attrs).map_err(|e| e.to_string())?;
    call.check().map_err(|e| e.to_string())?;
    let mut inputs: Vec<Array> = case.inputs.iter().map(|g| g.array.clone()).collect();
    inputs.resize(call.inputs.len(), Array::absent());
    let references = (operator.reference)(&call, &inputs).map_err(|e| e.to_string())?;
    if references.len() != case.outputs.len() {
        return Err(format!("{} outputs, the reference gives {}", case.outputs.len(), references.len()));
    }
    for (i, (reference, golden)) in references.iter().zip(&case.outputs).enumerate() {
        judge(operator, reference, golden).map_err(|e| format!("output {i}: {e}"))?;
    }
    Ok(())
}

/// Exact where the operator is; 2 ULP of f64 or the operator's tighter bound; forward error of f64 for sums.
fn judge(operator: &Operator, reference: &Reference, golden: &Golden) -> Result<(), String> {
    let dtype = golden.tensor.dtype;
    if reference.value.shape != golden.array.shape {
        return Err(format!("shape {:?}, the reference has {:?}", golden.array.shape, reference.value.shape));
    }
    let rule = reference.numerics.unwrap_or(operator.numerics);
    let rules: &[Numerics] = match rule {
        Numerics::Ulp(table) => match table.iter().find(|(t, _)| *t == DType::F64).map_or(0.0, |(_, bound)| *bound) {
            bound if bound < 1.0 => &[HALF],
            bound if bound < 2.0 => &[ONE],
            _ => &[TWO],
        },
        Numerics::ForwardError if dtype == DType::F64 => &[TWO, Numerics::ForwardError],
        Numerics::ForwardError => &[TWO],
        _ => &[Numerics::Exact],
    };
    let mut verdict = None;
    for rule in rules {
        let held = Reference { numerics: None, value: reference.value.clone(), scale: reference.scale.clone(), terms: reference.terms };
        let found = numerics::judge(*rule, dtype, &held, &golden.array);
        if found.ok {
            return Ok(());
        }
        verdict = Some(found);
    }
    let v = verdict.unwrap_or_default();
    Err(format!("element {}: golden {}, reference {}, error {:.3}", v.index, v.got, v.expected, v.worst))
}
