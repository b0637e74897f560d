//! The FFT reference against SciPy's transforms in extended precision.

use flagos_backend_api::{DType, FftDesc, FftKind};
use flagos_catalog::{Numerics, fft, numerics};
use serde_json::Value;

use crate::file::{self, GoldenCase};

/// Tighter than what backends are held to: reference and golden value each are rounded once.
const BOUND: Numerics = Numerics::Norm(0.5);

#[test]
fn the_fft_reference_meets_golden_vectors() {
    let cases = file::read("fft");
    let faults: Vec<String> = cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.name))).collect();
    assert!(faults.is_empty(), "{} of {} cases differ:\n{}", faults.len(), cases.len(), faults.join("\n"));
    for kind in [FftKind::C2C, FftKind::R2C, FftKind::C2R] {
        let number = Value::from(kind.0);
        assert!(cases.iter().any(|c| c.entry["desc"]["transform"] == number), "no golden case of {}", fft::name(kind.0));
    }
}

fn check(case: &GoldenCase) -> Result<(), String> {
    let desc = descriptor(&case.entry["desc"]);
    fft::check(&desc).map_err(|e| e.to_string())?;
    let views = fft::views(&desc);
    let reference = fft::reference(&desc, &file::seen(&views[0], &case.inputs[0].array)).map_err(|e| e.to_string())?;
    let golden = file::seen(&views[1], &case.outputs[0].array);
    let v = numerics::judge(BOUND, views[1].tensor.dtype, &reference, &golden);
    if v.ok { Ok(()) } else { Err(format!("element {}: golden {}, reference {}, error {:.3} of the bound", v.index, v.got, v.expected, v.worst)) }
}

fn descriptor(v: &Value) -> FftDesc {
    let int = |name: &str| v[name].as_i64().expect("a number");
    let lengths: Vec<i64> = (0..3).map(|i| v["n"][i].as_i64().expect("a number")).collect();
    FftDesc {
        size: FftDesc::SIZE,
        kind: FftDesc::KIND,
        transform: int("transform") as u32,
        direction: int("direction") as u32,
        precision: v["precision"].as_str().and_then(DType::from_name).expect("a type's name"),
        rank: int("rank") as u32,
        n: [lengths[0], lengths[1], lengths[2]],
        batch: int("batch"),
        in_embed: [0; 3],
        in_stride: int("in_stride"),
        in_dist: int("in_dist"),
        out_embed: [0; 3],
        out_stride: int("out_stride"),
        out_dist: int("out_dist"),
        scale: v["scale"].as_f64().expect("a number"),
    }
}
