//! Reads golden files: safetensors with a list of cases in their metadata.

use std::collections::HashMap;
use std::path::Path;

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::{Array, AttrKind, AttrValue, Operator};
use serde_json::Value;

/// One tensor of a case.
pub struct Golden {
    /// Type and shape, contiguous.
    pub tensor: Tensor,
    /// Elements.
    pub array: Array,
}

/// One case: operands by position (absent ones are `None`) and its description.
pub struct GoldenCase {
    /// Name within the file.
    pub name: String,
    /// Where the outputs come from.
    pub source: String,
    /// Attributes as given: names with JSON values.
    pub attrs: serde_json::Map<String, Value>,
    /// Inputs; trailing absent ones are left out.
    pub inputs: Vec<Option<Golden>>,
    /// Outputs.
    pub outputs: Vec<Option<Golden>>,
}

/// Reads `path`; panics with the file's name where it is malformed.
pub fn read(path: &Path) -> Vec<GoldenCase> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&bytes).unwrap_or_else(|| panic!("{} is no golden file", path.display()))
}

fn parse(bytes: &[u8]) -> Option<Vec<GoldenCase>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, body) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let header: HashMap<String, Value> = serde_json::from_slice(header).ok()?;
    let cases: Vec<Value> = serde_json::from_str(header.get("__metadata__")?["cases"].as_str()?).ok()?;
    let operands = |case: &str, kind: &str| -> Option<Vec<Option<Golden>>> {
        let prefix = format!("{case}/{kind}");
        let place = |key: &str| key.strip_prefix(&prefix)?.parse::<usize>().ok();
        let count = header.keys().filter_map(|k| place(k)).max().map_or(0, |i| i + 1);
        (0..count).map(|i| header.get(&format!("{prefix}{i}")).map_or(Some(None), |t| tensor(t, body).map(Some))).collect()
    };
    let case = |c: &Value| {
        let name = c["name"].as_str()?.to_string();
        let (inputs, outputs) = (operands(&name, "in")?, operands(&name, "out")?);
        Some(GoldenCase { source: c["source"].as_str()?.into(), attrs: c["attrs"].as_object()?.clone(), inputs, outputs, name })
    };
    cases.iter().map(case).collect()
}

fn tensor(entry: &Value, body: &[u8]) -> Option<Golden> {
    let integers = |key: &str| entry[key].as_array()?.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
    let dtype = DType::from_name(&entry["dtype"].as_str()?.to_lowercase())?;
    let (shape, range) = (integers("shape")?, integers("data_offsets")?);
    let tensor = Tensor::contiguous(dtype, &shape);
    let data = body.get(range[0] as usize..range[1] as usize)?;
    (data.len() == tensor.elems() as usize * dtype.bytes()).then_some(())?;
    Some(Golden { tensor, array: Array::decode(&tensor, data, 0).ok()? })
}

/// The attributes of a case as `operator` takes them. Reals that JSON lacks are strings; choices are names.
pub fn attributes<'a>(operator: &Operator, attrs: &'a serde_json::Map<String, Value>) -> Vec<(&'a str, AttrValue)> {
    let value = |name: &str, v: &Value| -> Option<AttrValue> {
        let real = || v.as_f64().or_else(|| v.as_str()?.parse().ok());
        Some(match &operator.attributes.iter().find(|a| a.name == name)?.kind {
            AttrKind::Bool { .. } => AttrValue::Int(v.as_bool()?.into()),
            AttrKind::Int { .. } => AttrValue::Int(v.as_i64()?),
            AttrKind::Number { .. } if v.is_i64() => AttrValue::Int(v.as_i64()?),
            AttrKind::Float { .. } | AttrKind::Number { .. } => AttrValue::Float(real()?),
            AttrKind::Choice { names, .. } => AttrValue::Int(names.iter().position(|n| v.as_str() == Some(n))? as i64),
            AttrKind::Ints { .. } => AttrValue::Ints(v.as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?),
        })
    };
    let named = |(name, v): (&'a String, &Value)| {
        let value = value(name, v).unwrap_or_else(|| panic!("{}: attribute {name} = {v} does not fit its definition", operator.name));
        (name.as_str(), value)
    };
    attrs.iter().map(named).collect()
}
