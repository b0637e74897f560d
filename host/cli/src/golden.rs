//! Golden files: cases with inputs and outputs from an independent source, run on a device and judged.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flagos_catalog::{Array, AttrKind, AttrValue, Call, Operator, Reference, find, numerics};
use flagos_runtime::{Code, Device, Error, Result, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::files::{self, Data};
use crate::output::{Output, Tone, plain};
use crate::run::execute;

/// One case's description in the file's metadata.
#[derive(Deserialize)]
struct Description {
    name: String,
    #[serde(default)]
    attrs: Map<String, Value>,
    #[serde(default)]
    source: String,
}

/// One case's outcome.
#[derive(Serialize)]
struct Outcome {
    operator: &'static str,
    case: String,
    source: String,
    implementation: String,
    ok: bool,
    worst: f64,
    detail: String,
}

/// Runs every case of every file.
pub fn run(paths: &[PathBuf], device: &Device, output: &Output) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    for path in paths {
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let Some(operator) = find(stem) else {
            return Err(Error::new(Code::NOT_FOUND, format!("{}: the file's name is no operator's; BLAS and FFT files are judged by the catalogue's tests", path.display())));
        };
        let bytes = files::read_bytes(path)?;
        let file = files::parse(path, &bytes)?;
        for case in cases(path, &bytes)? {
            outcomes.push(one(path, &file, operator, &case, device)?);
        }
    }
    let failed = outcomes.iter().filter(|o| !o.ok).count();
    if output.is_json() {
        output.json(&json!({ "device": device.name(), "cases": outcomes, "failed": failed }))?;
    } else {
        let rows: Vec<_> = outcomes
            .iter()
            .map(|o| {
                let mark = if o.ok { (Tone::Good, "pass".to_owned()) } else { (Tone::Bad, "FAIL".to_owned()) };
                vec![mark, plain(o.operator), plain(&o.case), plain(format!("{:.3}", o.worst)), plain(&o.implementation), plain(if o.ok { &o.source } else { &o.detail })]
            })
            .collect();
        output.table(&["", "OPERATOR", "CASE", "WORST", "IMPLEMENTATION", "SOURCE"], &rows);
        output.text(&format!("\n{} cases on {}, {failed} failed", outcomes.len(), device.name()));
    }
    Ok(if failed == 0 && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cases(path: &Path, bytes: &[u8]) -> Result<Vec<Description>> {
    let bad = |what: String| Error::new(Code::DATA_LOSS, format!("{}: {what}", path.display()));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| bad(e.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get("cases")).ok_or_else(|| bad("no 'cases' in its metadata; it is no golden file".into()))?;
    serde_json::from_str(text).map_err(|e| bad(format!("its list of cases: {e}")))
}

/// A JSON value as the attribute wants it.
fn attribute(operator: &Operator, name: &str, value: &Value) -> Result<(&'static str, AttrValue)> {
    let bad = || Error::new(Code::DATA_LOSS, format!("{}: attribute '{name}' cannot be {value}", operator.name));
    let attribute = operator.attributes.iter().find(|a| a.name == name).ok_or_else(bad)?;
    let special = |s: &str| match s {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        _ => None,
    };
    let number = match (&attribute.kind, value) {
        (_, Value::Bool(b)) => AttrValue::Int((*b).into()),
        (AttrKind::Choice { names, .. }, Value::String(s)) => AttrValue::Int(names.iter().position(|n| n == s).ok_or_else(bad)? as i64),
        (_, Value::String(s)) => AttrValue::Float(special(s).ok_or_else(bad)?),
        (_, Value::Array(list)) => AttrValue::Ints(list.iter().map(|v| v.as_i64().ok_or_else(bad)).collect::<Result<_>>()?),
        (AttrKind::Float { .. }, Value::Number(n)) => AttrValue::Float(n.as_f64().ok_or_else(bad)?),
        (_, Value::Number(n)) => n.as_i64().map(AttrValue::Int).or_else(|| n.as_f64().map(AttrValue::Float)).ok_or_else(bad)?,
        _ => return Err(bad()),
    };
    Ok((attribute.name, number))
}

fn one(path: &Path, file: &SafeTensors, operator: &'static Operator, case: &Description, device: &Device) -> Result<Outcome> {
    let mut inputs: Vec<Option<Data>> = Vec::new();
    let most = file.names().iter().filter_map(|n| n.strip_prefix(&format!("{}/in", case.name))?.parse::<usize>().ok()).max();
    for i in 0..most.map_or(0, |m| m + 1) {
        let name = format!("{}/in{i}", case.name);
        inputs.push(if file.tensor(&name).is_ok() { Some(files::view(path, file, &name)?) } else { None });
    }
    let mut expected = Vec::new();
    while file.tensor(&format!("{}/out{}", case.name, expected.len())).is_ok() {
        expected.push(files::view(path, file, &format!("{}/out{}", case.name, expected.len()))?);
    }
    let attributes = case.attrs.iter().map(|(n, v)| attribute(operator, n, v)).collect::<Result<Vec<_>>>()?;
    let describe = |d: &Option<Data>| d.as_ref().map_or(Tensor::NONE, Data::tensor);
    let tensors: Vec<Tensor> = inputs.iter().map(describe).collect();
    let outputs: Vec<Tensor> = expected.iter().map(Data::tensor).collect();
    let mut outcome = Outcome {
        operator: operator.name,
        case: case.name.clone(),
        source: case.source.clone(),
        implementation: String::new(),
        ok: false,
        worst: f64::INFINITY,
        detail: String::new(),
    };
    let judged = (|| {
        // Golden outputs may be wider than the operator's own (a mean in f64): the call keeps what the operator infers.
        let mut call = Call::new(operator, &tensors, &outputs, &attributes)?;
        let inferred = call.infer()?;
        call.outputs = inferred.iter().zip(&outputs).map(|((t, shape), o)| Tensor::contiguous(t.unwrap_or(o.dtype), shape)).collect();
        call.check()?;
        let (results, implementation) = execute(device, &call, &inputs)?;
        outcome.implementation = implementation;
        let decode = |d: &Data| Array::decode(&d.tensor(), &d.bytes, 0);
        let arrays = inputs.iter().map(|d| d.as_ref().map_or(Ok(Array::absent()), decode)).collect::<Result<Vec<_>>>()?;
        let mut padded = arrays;
        padded.resize(call.inputs.len(), Array::absent());
        // The reference lends the error scale; the golden value is what is compared with.
        let references = (operator.reference)(&call, &padded)?;
        let mut worst = (true, 0.0, String::new());
        for ((result, want), reference) in results.iter().zip(&expected).zip(references) {
            let golden = Reference { value: decode(want)?, ..reference };
            let verdict = numerics::judge(operator.numerics, result.dtype, &golden, &decode(result)?);
            if !verdict.ok || verdict.worst > worst.1 {
                worst = (worst.0 && verdict.ok, verdict.worst, format!("element {}: {} expected, {} found", verdict.index, verdict.expected, verdict.got));
            }
        }
        Ok(worst)
    })();
    match judged {
        Ok((ok, worst, detail)) => (outcome.ok, outcome.worst, outcome.detail) = (ok, worst, detail),
        Err(e) => outcome.detail = Error::to_string(&e),
    }
    Ok(outcome)
}
