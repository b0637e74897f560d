//! A call of an operator: definition, descriptors and attributes together, as a safe view.

use flagos_backend_api::{Attr, DType, Error, MAX_RANK, Op, Result, Tensor};

use crate::{AttrKind, Attribute, KEYS, Operand, Operator, TypeRule, dtypes};

/// Value of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// Integer, truth value or choice.
    Int(i64),
    /// Real number.
    Float(f64),
    /// List of integers.
    Ints(Vec<i64>),
}

/// Attribute values of a call, complete with defaults, in the definition's order.
#[derive(Clone, Debug)]
pub struct Attrs {
    pub(crate) values: Vec<AttrValue>,
    pub(crate) specs: &'static [Attribute],
    /// The first values as (float, integer), where loops over elements find them without following a pointer.
    numbers: [(f64, i64); MOST_NUMBERS],
}

/// Attributes that can be read by position.
const MOST_NUMBERS: usize = 4;

/// Registry key of an attribute name.
pub fn key_of(name: &str) -> Option<u32> {
    KEYS.iter().position(|k| *k == name && !k.is_empty()).map(|k| k as u32)
}

impl Attrs {
    fn new(values: Vec<AttrValue>, specs: &'static [Attribute]) -> Attrs {
        let mut numbers = [(f64::NAN, 0); MOST_NUMBERS];
        for (number, value) in numbers.iter_mut().zip(&values) {
            *number = match value {
                AttrValue::Float(v) => (*v, *v as i64),
                AttrValue::Int(v) => (*v as f64, *v),
                AttrValue::Ints(_) => continue,
            };
        }
        Attrs { values, specs, numbers }
    }
    fn at(&self, name: &str) -> Option<&AttrValue> {
        self.specs.iter().position(|s| s.name == name).map(|i| &self.values[i])
    }
    /// An integer, truth value or choice; 0 for a name the operator does not have.
    pub fn int(&self, name: &str) -> i64 {
        match self.at(name) {
            Some(AttrValue::Int(v)) => *v,
            Some(AttrValue::Float(v)) => *v as i64,
            _ => 0,
        }
    }
    /// A real number; NaN for a name the operator does not have.
    pub fn float(&self, name: &str) -> f64 {
        match self.at(name) {
            Some(AttrValue::Float(v)) => *v,
            Some(AttrValue::Int(v)) => *v as f64,
            _ => f64::NAN,
        }
    }
    /// A list; empty for a name the operator does not have.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.at(name) {
            Some(AttrValue::Ints(v)) => v,
            _ => &[],
        }
    }
    /// A truth value.
    pub fn boolean(&self, name: &str) -> bool {
        self.int(name) != 0
    }
    /// A number among the first four by position: (as float, as integer).
    #[inline]
    pub fn number_at(&self, index: usize) -> (f64, i64) {
        self.numbers[index]
    }
    /// A choice by position.
    #[inline]
    pub fn choice_at(&self, index: usize) -> i64 {
        self.number_at(index).1
    }
    /// Values with their specifications, in the definition's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Attribute, &AttrValue)> {
        self.specs.iter().zip(&self.values)
    }
}

/// A call: what to compute, on tensors of which types, shapes and strides. Holds no memory.
#[derive(Clone, Debug)]
pub struct Call {
    /// The definition.
    pub operator: &'static Operator,
    /// Input descriptors; absent optional ones are [`Tensor::NONE`].
    pub inputs: Vec<Tensor>,
    /// Output descriptors.
    pub outputs: Vec<Tensor>,
    /// Attributes with defaults filled in.
    pub attrs: Attrs,
}

fn fault(operator: &Operator, text: impl core::fmt::Display) -> Error {
    Error { operator: operator.id, ..Error::invalid(format!("{}: {text}", operator.name)) }
}

fn default_of(kind: &AttrKind) -> Option<AttrValue> {
    match kind {
        AttrKind::Int { default, .. } => default.map(AttrValue::Int),
        AttrKind::Float { default } | AttrKind::Number { default } => default.map(AttrValue::Float),
        AttrKind::Bool { default } => Some(AttrValue::Int((*default).into())),
        AttrKind::Choice { default, .. } => Some(AttrValue::Int(*default)),
        AttrKind::Ints { default } => default.map(|d| AttrValue::Ints(d.to_vec())),
    }
}

impl Call {
    /// Puts a call together: missing attributes take their defaults, missing trailing optional inputs are absent. Not yet checked.
    pub fn new(operator: &'static Operator, inputs: &[Tensor], outputs: &[Tensor], attrs: &[(&str, AttrValue)]) -> Result<Call> {
        for (name, _) in attrs {
            if !operator.attributes.iter().any(|a| a.name == *name) {
                let known: Vec<&str> = operator.attributes.iter().map(|a| a.name).collect();
                return Err(fault(operator, format!("has no attribute '{name}'; it has: {}", known.join(", "))));
            }
        }
        let value = |spec: &Attribute| {
            let given = attrs.iter().find(|(n, _)| *n == spec.name).map(|(_, v)| v.clone());
            given.or_else(|| default_of(&spec.kind)).ok_or_else(|| fault(operator, format!("attribute '{}' is required", spec.name)))
        };
        let values = operator.attributes.iter().map(value).collect::<Result<_>>()?;
        let mut inputs = inputs.to_vec();
        while inputs.len() < operator.inputs.len() && operator.inputs[inputs.len()].optional {
            inputs.push(Tensor::NONE);
        }
        Ok(Call { operator, inputs, outputs: outputs.to_vec(), attrs: Attrs::new(values, operator.attributes) })
    }

    /// A call whose outputs are inferred: contiguous, with `free` as the type of outputs whose type the caller chooses.
    pub fn inferred(operator: &'static Operator, inputs: &[Tensor], free: DType, attrs: &[(&str, AttrValue)]) -> Result<Call> {
        let mut call = Call::new(operator, inputs, &[], attrs)?;
        call.outputs = call.infer()?.into_iter().map(|(t, shape)| Tensor::contiguous(t.unwrap_or(free), &shape)).collect();
        Ok(call)
    }

    /// Output types (`None`: the caller chooses) and shapes, after the inputs were checked: the operators' own rules rely on that.
    pub fn infer(&self) -> Result<crate::shape::Inferred> {
        self.check_inputs()?;
        (self.operator.infer)(self)
    }

    /// The operand rule of input `index`; a `many` operand covers all from its place on.
    pub fn rule(&self, index: usize) -> &'static Operand {
        let rules = self.operator.inputs;
        &rules[index.min(rules.len() - 1)]
    }

    /// The type by which results are kept in claims: that of the first floating or first present input, else of the first output.
    pub fn cell_dtype(&self) -> DType {
        let present = || self.inputs.iter().filter(|t| !t.is_none()).map(|t| t.dtype);
        let data = present().zip(0..).find(|(_, i)| !matches!(self.rule(*i as usize).types, TypeRule::Any(s) if s == dtypes::BOOL || s == dtypes::U64));
        data.map(|(t, _)| t).or_else(|| self.outputs.first().map(|t| t.dtype)).unwrap_or(DType::NONE)
    }

    /// The promoted type of the `Promote` inputs.
    pub fn promoted(&self) -> DType {
        let of = self.inputs.iter().enumerate().filter(|(i, t)| matches!(self.rule(*i).types, TypeRule::Promote(_)) && !t.is_none());
        of.map(|(_, t)| t.dtype).reduce(dtypes::promote).unwrap_or(DType::F32)
    }

    /// Checks everything: counts, types, attributes, shapes, layouts.
    pub fn check(&self) -> Result<()> {
        let op = self.operator;
        let inferred = self.infer()?;
        if self.outputs.len() != inferred.len() {
            return Err(fault(op, format!("has {} outputs, {} were given", inferred.len(), self.outputs.len())));
        }
        for (i, ((tensor, (dtype, shape)), rule)) in self.outputs.iter().zip(&inferred).zip(op.outputs).enumerate() {
            let place = self.inputs.len() as u32 + i as u32;
            let bad = |text: String| Err(fault(op, format!("output '{}' {text}", rule.name)).at(place));
            self.check_tensor(tensor, rule, place)?;
            if let Some(dtype) = dtype
                && *dtype != tensor.dtype
            {
                return bad(format!("has type {}, the operator gives {dtype}", tensor.dtype));
            }
            if tensor.shape() != shape.as_slice() {
                return bad(format!("has shape {:?}, the operator gives {shape:?}", tensor.shape()));
            }
            if overlaps_itself(tensor) {
                return bad(format!("has strides {:?} for shape {:?}: its elements overlap", tensor.stride(), tensor.shape()));
            }
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<()> {
        let op = self.operator;
        let (given, rules) = (self.inputs.len(), op.inputs);
        let many = rules.last().is_some_and(|r| r.many);
        if given != rules.len() && !(many && given >= rules.len()) {
            let more = if many { " or more" } else { "" };
            return Err(fault(op, format!("takes {}{more} inputs, {given} were given", rules.len())));
        }
        let mut letters: [DType; 26] = [DType::NONE; 26];
        for (i, tensor) in self.inputs.iter().enumerate() {
            let rule = self.rule(i);
            if tensor.is_none() {
                if rule.optional {
                    continue;
                }
                return Err(fault(op, format!("input '{}' is required", rule.name)).at(i as u32));
            }
            self.check_tensor(tensor, rule, i as u32)?;
            let free = matches!(rule.types, TypeRule::SameOrBool(..)) && tensor.dtype.is_bool();
            if let TypeRule::Same(letter, _) | TypeRule::SameOrBool(letter, _) = rule.types
                && !free
            {
                let seen = &mut letters[(letter as u8 - b'A') as usize % 26];
                if *seen == DType::NONE {
                    *seen = tensor.dtype;
                } else if *seen != tensor.dtype {
                    return Err(fault(op, format!("input '{}' has type {}, but another operand of one type has {seen}; cast one", rule.name, tensor.dtype)).at(i as u32));
                }
            }
        }
        for (spec, value) in self.attrs.iter() {
            check_attribute(op, spec, value)?;
        }
        (op.check)(self)
    }

    fn check_tensor(&self, t: &Tensor, rule: &Operand, place: u32) -> Result<()> {
        let bad = |text: String| Err(fault(self.operator, format!("operand '{}' {text}", rule.name)).at(place));
        if t.rank as usize > MAX_RANK {
            return bad(format!("has rank {}; at most {MAX_RANK} are possible", t.rank));
        }
        if t.layout != 0 || t.flags != 0 || !t.next.is_null() || t.dtype.lanes != 1 {
            return bad("has a reserved field that is not 0".into());
        }
        if let Some(n) = t.shape().iter().find(|n| **n < 0) {
            return bad(format!("has an extent of {n}"));
        }
        if t.extent().and_then(|(l, h)| h.checked_sub(l)?.checked_mul(16)).is_none() {
            return bad(format!("with shape {:?} and strides {:?} spans more than 2^63 bytes", t.shape(), t.stride()));
        }
        if !countable(t) {
            return bad(format!("has shape {:?}, whose extents multiply to more than 2^59", t.shape()));
        }
        let set = match rule.types {
            TypeRule::Same(_, set) | TypeRule::Any(set) | TypeRule::Promote(set) => set,
            TypeRule::SameOrBool(_, set) => set.or(dtypes::BOOL),
            TypeRule::Promoted | TypeRule::PromotedFloat => return Ok(()),
        };
        if !set.has(t.dtype) {
            let mut e = fault(self.operator, format!("operand '{}' has type {}; it takes {set}", rule.name, t.dtype)).at(place);
            e.code = flagos_backend_api::Code::UNIMPLEMENTED;
            return Err(e);
        }
        Ok(())
    }

    /// Lends the call as an ABI descriptor: attributes sorted by key, tensors without memory unless their descriptors carry some.
    pub fn with_abi<R>(&self, f: impl FnOnce(&Op) -> R) -> R {
        let mut attrs: Vec<Attr> = self
            .attrs
            .iter()
            .filter_map(|(spec, value)| {
                let key = key_of(spec.name)?;
                Some(match value {
                    AttrValue::Int(v) => Attr::i64(key, *v),
                    AttrValue::Float(v) => Attr::f64(key, *v),
                    AttrValue::Ints(v) => Attr::span(key, v),
                })
            })
            .collect();
        attrs.sort_by_key(|a| a.key);
        f(&Op {
            size: Op::SIZE,
            id: self.operator.id,
            revision: self.operator.revision,
            n_in: self.inputs.len() as u16,
            n_out: self.outputs.len() as u16,
            n_attr: attrs.len() as u32,
            flags: 0,
            inputs: self.inputs.as_ptr(),
            outputs: self.outputs.as_ptr(),
            attrs: attrs.as_ptr(),
            next: core::ptr::null(),
        })
    }
}

fn check_attribute(op: &Operator, spec: &Attribute, value: &AttrValue) -> Result<()> {
    let bad = |text: String| Err(fault(op, format!("attribute '{}' is {value:?}; {text}", spec.name)));
    match (&spec.kind, value) {
        (AttrKind::Int { min, max, .. }, AttrValue::Int(v)) => {
            if v < min || v > max {
                return bad(format!("it lies between {min} and {max}"));
            }
        }
        (AttrKind::Bool { .. }, AttrValue::Int(0 | 1)) | (AttrKind::Float { .. }, AttrValue::Float(_)) => {}
        (AttrKind::Number { .. }, AttrValue::Float(_) | AttrValue::Int(_)) => {}
        (AttrKind::Choice { names, .. }, AttrValue::Int(v)) => {
            if *v < 0 || *v as usize >= names.len() {
                return bad(format!("choices are 0 to {} ({})", names.len() - 1, names.join(", ")));
            }
        }
        (AttrKind::Ints { .. }, AttrValue::Ints(_)) => {}
        (AttrKind::Bool { .. }, AttrValue::Int(_)) => return bad("it is 0 or 1".into()),
        (kind, _) => return bad(format!("it takes {kind:?}")),
    }
    Ok(())
}

/// Whether index arithmetic over the shape stays within 63 bits of bytes, also where an extent is 0 or strides are.
pub(crate) fn countable(t: &Tensor) -> bool {
    t.shape().iter().try_fold(1i64, |n, d| n.checked_mul((*d).max(1))).is_some_and(|n| n <= 1 << 59)
}

/// Whether two index tuples may name one element: exact for layouts whose strides nest, else refused.
pub(crate) fn overlaps_itself(t: &Tensor) -> bool {
    let mut dims: Vec<(i64, i64)> = t.shape().iter().zip(t.stride()).filter(|(n, _)| **n > 1).map(|(n, s)| (s.unsigned_abs() as i64, *n)).collect();
    if t.shape().contains(&0) {
        return false;
    }
    if t.stride().iter().zip(t.shape()).any(|(s, n)| *s < 0 && *n > 1) {
        return true;
    }
    dims.sort_unstable();
    let mut reach = 0i64;
    for (stride, n) in dims {
        if stride <= reach {
            return true;
        }
        reach = reach.saturating_add(stride.saturating_mul(n - 1));
    }
    false
}
