//! Reading calls from the command line: tensors like `f32[2,3]`, attributes like `dim=1`.

use flagos_catalog::{AttrKind, AttrValue, Operator, find, operators};
use flagos_runtime::{Code, DType, Error, Result, Tensor};

/// An operator by name or ATen overload.
pub fn operator(name: &str) -> Result<&'static Operator> {
    find(name).ok_or_else(|| {
        let near: Vec<&str> = operators().iter().map(|o| o.name).filter(|n| n.contains(name) || name.contains(*n)).collect();
        let hint = if near.is_empty() { "`flagos ops` lists them".to_owned() } else { format!("near it: {}", near.join(", ")) };
        Error::new(Code::NOT_FOUND, format!("there is no operator '{name}'; {hint}"))
    })
}

/// An element type by name.
pub fn dtype(name: &str) -> Result<DType> {
    DType::from_name(name).ok_or_else(|| {
        let all: Vec<&str> = DType::ALL.iter().map(|t| t.name()).collect();
        Error::invalid(format!("there is no element type '{name}'; there are {}", all.join(" ")))
    })
}

fn integers(text: &str) -> Option<Vec<i64>> {
    if text.trim().is_empty() { Some(Vec::new()) } else { text.split(',').map(|n| n.trim().parse().ok()).collect() }
}

/// `f32[2,3]`, with strides `f32[2,3]{1,2}`; `-` stands for an absent optional input.
pub fn tensor(text: &str) -> Result<Tensor> {
    let bad = || Error::invalid(format!("'{text}' is no tensor; write TYPE[SHAPE] or TYPE[SHAPE]{{STRIDES}}, like f32[128,64], or - for an absent one"));
    if text == "-" {
        return Ok(Tensor::NONE);
    }
    let (name, rest) = text.split_once('[').ok_or_else(bad)?;
    let (shape, rest) = rest.split_once(']').ok_or_else(bad)?;
    let (dtype, shape) = (dtype(name)?, integers(shape).ok_or_else(bad)?);
    if shape.len() > 8 || shape.iter().any(|n| *n < 0) {
        return Err(Error::invalid(format!("'{text}': shapes have at most 8 extents, none negative")));
    }
    if rest.is_empty() {
        return Ok(Tensor::contiguous(dtype, &shape));
    }
    let strides = rest.strip_prefix('{').and_then(|r| r.strip_suffix('}')).and_then(integers).ok_or_else(bad)?;
    if strides.len() != shape.len() {
        return Err(Error::invalid(format!("'{text}' has {} strides for {} extents", strides.len(), shape.len())));
    }
    Ok(Tensor::strided(dtype, &shape, &strides))
}

/// Whether a word is an attribute of the operator (`dim=1`).
pub fn is_attribute(operator: &Operator, word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| operator.attributes.iter().any(|a| a.name == name))
}

/// `NAME=VALUE` by the attribute's kind: numbers, true/false, a choice's name, comma-separated lists.
pub fn attribute(operator: &'static Operator, text: &str) -> Result<(&'static str, AttrValue)> {
    let known = || operator.attributes.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
    let (name, value) = text.split_once('=').ok_or_else(|| Error::invalid(format!("'{text}' is no attribute; write NAME=VALUE")))?;
    let attribute = operator.attributes.iter().find(|a| a.name == name);
    let attribute = attribute.ok_or_else(|| Error::invalid(format!("{} has no attribute '{name}'; it has: {}", operator.name, known())))?;
    let bad = |wants: &str| Error::invalid(format!("attribute '{name}' is '{value}'; it takes {wants}"));
    let parsed = match attribute.kind {
        AttrKind::Int { .. } => AttrValue::Int(value.parse().map_err(|_| bad("an integer"))?),
        AttrKind::Float { .. } => AttrValue::Float(value.parse().map_err(|_| bad("a number"))?),
        AttrKind::Number { .. } => match value.parse::<i64>() {
            Ok(i) => AttrValue::Int(i),
            Err(_) => AttrValue::Float(value.parse().map_err(|_| bad("a number"))?),
        },
        AttrKind::Bool { .. } => AttrValue::Int(match value {
            "true" | "1" => 1,
            "false" | "0" => 0,
            _ => return Err(bad("true or false")),
        }),
        AttrKind::Choice { names, .. } => {
            let place = names.iter().position(|n| *n == value).or_else(|| value.parse().ok());
            AttrValue::Int(place.ok_or_else(|| bad(&format!("one of {}", names.join(", "))))? as i64)
        }
        AttrKind::Ints { .. } => AttrValue::Ints(integers(value).ok_or_else(|| bad("integers separated by commas"))?),
    };
    Ok((attribute.name, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_attributes_are_read_or_named_as_wrong() {
        let t = tensor("f16[2,3]{1,2}").unwrap();
        assert_eq!((t.dtype, t.shape(), t.stride()), (DType::F16, &[2i64, 3][..], &[1i64, 2][..]));
        assert_eq!(tensor("i64[]").unwrap().rank, 0);
        for bad in ["f32", "f33[2]", "f32[2", "f32[a]", "f32[2]{1,2}", "f32[-1]"] {
            assert!(tensor(bad).is_err(), "{bad}");
        }
        let gelu = operator("gelu").unwrap();
        assert_eq!(attribute(gelu, "approximate=tanh").unwrap().1, AttrValue::Int(1));
        assert!(attribute(gelu, "approximate=x").unwrap_err().message.contains("none, tanh"));
        assert!(operator("gelu_").is_ok() && operator("geluu").unwrap_err().message.contains("gelu"));
    }
}
