//! The BLAS reference against SciPy's BLAS.

use flagos_backend_api::{BlasDesc, DType};
use flagos_catalog::blas::{self, Scalars};
use flagos_catalog::{Array, numerics};
use num_complex::Complex;
use serde_json::Value;

use crate::file::{self, GoldenCase};

#[test]
fn the_blas_reference_meets_golden_vectors() {
    let cases = file::read("blas");
    let faults: Vec<String> = cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.name))).collect();
    assert!(faults.is_empty(), "{} of {} cases differ:\n{}", faults.len(), cases.len(), faults.join("\n"));
    for routine in blas::ROUTINES {
        let number = Value::from(routine.routine.0);
        assert!(cases.iter().any(|c| c.entry["desc"]["routine"] == number), "no golden case of {}", routine.name);
    }
}

fn check(case: &GoldenCase) -> Result<(), String> {
    let desc = descriptor(&case.entry["desc"]);
    blas::check(&desc).map_err(|e| e.to_string())?;
    let views = blas::views(&desc);
    let inputs: Vec<Array> = views.iter().enumerate().map(|(i, v)| case.inputs.get(i).map_or_else(Array::absent, |g| file::seen(v, &g.array))).collect();
    let scalar = |name: &str| case.entry.get(name).map(|v| Complex::new(v[0].as_f64().unwrap_or(f64::NAN), v[1].as_f64().unwrap_or(f64::NAN)));
    let scalars = Scalars { alpha: scalar("alpha"), beta: scalar("beta") };
    for (binding, reference) in blas::reference(&desc, scalars, &inputs).map_err(|e| e.to_string())? {
        let golden = file::seen(&views[binding], &case.outputs[0].array);
        let v = numerics::judge(blas::NUMERICS, desc.out_dtype, &reference, &golden);
        if !v.ok {
            return Err(format!("element {}: golden {}, reference {}, error {:.3} of the bound", v.index, v.got, v.expected, v.worst));
        }
    }
    Ok(())
}

fn descriptor(v: &Value) -> BlasDesc {
    let int = |name: &str| v.get(name).map_or(0, |n| n.as_i64().expect("a number"));
    let enumeration = |name: &str| int(name) as u32;
    let dtype = |name: &str| v[name].as_str().and_then(DType::from_name).expect("a type's name");
    BlasDesc {
        size: BlasDesc::SIZE,
        kind: BlasDesc::KIND,
        routine: enumeration("routine"),
        order: enumeration("order"),
        trans_a: enumeration("trans_a"),
        trans_b: enumeration("trans_b"),
        uplo: enumeration("uplo"),
        diag: enumeration("diag"),
        side: enumeration("side"),
        dtype: dtype("dtype"),
        out_dtype: dtype("out_dtype"),
        compute_dtype: dtype("compute_dtype"),
        m: int("m"),
        n: int("n"),
        k: int("k"),
        lda: int("lda"),
        ldb: int("ldb"),
        ldc: int("ldc"),
        incx: int("incx"),
        incy: int("incy"),
        batch: int("batch"),
        stride_a: int("stride_a"),
        stride_b: int("stride_b"),
        stride_c: int("stride_c"),
    }
}
