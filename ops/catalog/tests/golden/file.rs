//! Reads golden files: safetensors with a list of cases in their metadata.

use std::collections::{BTreeSet, HashMap};

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::blas::View;
use flagos_catalog::{Array, AttrKind, AttrValue, Operator};
use serde_json::Value;

/// One tensor of a case.
pub struct Golden {
    /// Type and shape, contiguous.
    pub tensor: Tensor,
    /// Elements.
    pub array: Array,
}

/// One case: operands by position and its description.
pub struct GoldenCase {
    /// Name within the file.
    pub name: String,
    /// Its entry in the list: source, attributes or descriptor.
    pub entry: Value,
    /// Inputs; absent ones are [`Tensor::NONE`], trailing absent ones left out.
    pub inputs: Vec<Golden>,
    /// Outputs.
    pub outputs: Vec<Golden>,
}

/// Names of all golden files.
pub fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(crate::folder()).expect("conformance/golden is part of the repository");
    entries.filter_map(|e| Some(e.ok()?.file_name().to_str()?.strip_suffix(".safetensors")?.to_string())).collect()
}

/// The cases of an operator or table; panics where the file is absent or malformed.
pub fn read(name: &str) -> Vec<GoldenCase> {
    let path = crate::folder().join(format!("{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&bytes).unwrap_or_else(|| panic!("{} is no golden file", path.display()))
}

fn parse(bytes: &[u8]) -> Option<Vec<GoldenCase>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, body) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let header: HashMap<String, Value> = serde_json::from_slice(header).ok()?;
    let cases: Vec<Value> = serde_json::from_str(header.get("__metadata__")?["cases"].as_str()?).ok()?;
    let operands = |case: &str, kind: &str| -> Option<Vec<Golden>> {
        let prefix = format!("{case}/{kind}");
        let place = |key: &str| key.strip_prefix(&prefix)?.parse::<usize>().ok();
        let count = header.keys().filter_map(|k| place(k)).max().map_or(0, |i| i + 1);
        let absent = || Some(Golden { tensor: Tensor::NONE, array: Array::absent() });
        (0..count).map(|i| header.get(&format!("{prefix}{i}")).map_or_else(absent, |t| tensor(t, body))).collect()
    };
    let case = |c: &Value| {
        let name = c["name"].as_str()?.to_string();
        let (inputs, outputs) = (operands(&name, "in")?, operands(&name, "out")?);
        Some(GoldenCase { entry: c.clone(), inputs, outputs, name })
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
pub fn attributes(operator: &Operator, case: &GoldenCase) -> Vec<(&'static str, AttrValue)> {
    let value = |kind: &AttrKind, v: &Value| {
        let real = || v.as_f64().or_else(|| v.as_str()?.parse().ok());
        Some(match kind {
            AttrKind::Bool { .. } => AttrValue::Int(v.as_bool()?.into()),
            AttrKind::Int { .. } => AttrValue::Int(v.as_i64()?),
            AttrKind::Number { .. } if v.is_i64() => AttrValue::Int(v.as_i64()?),
            AttrKind::Float { .. } | AttrKind::Number { .. } => AttrValue::Float(real()?),
            AttrKind::Choice { names, .. } => AttrValue::Int(names.iter().position(|n| v.as_str() == Some(n))? as i64),
            AttrKind::Ints { .. } => AttrValue::Ints(v.as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?),
        })
    };
    let named = |(name, v): (&String, &Value)| {
        let spec = operator.attributes.iter().find(|a| a.name == name);
        let known = spec.and_then(|spec| Some((spec.name, value(&spec.kind, v)?)));
        known.unwrap_or_else(|| panic!("{}/{}: attribute {name} = {v} does not fit the definition", operator.name, case.name))
    };
    case.entry["attrs"].as_object().into_iter().flatten().map(named).collect()
}

/// The elements a view names in golden memory: f64, complex numbers as pairs.
pub fn seen(view: &View, memory: &Array) -> Array {
    let bytes: Vec<u8> = memory.floats().iter().flat_map(|x| x.to_le_bytes()).collect();
    let origin = view.origin as usize * view.tensor.dtype.bytes();
    Array::decode(&view.tensor, &bytes, origin).unwrap_or_else(|e| panic!("operand {}: {e}", view.name))
}
