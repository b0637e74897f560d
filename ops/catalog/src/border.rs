//! The border where a raw operator descriptor becomes a [`Call`]: the only unsafe code of the catalogue.

use flagos_backend_api::vendor::OpRef;
use flagos_backend_api::{ATTR_HINT, Attr, AttrTag, Code, Error, MAX_RANK, Op, Result, Tensor};

use crate::{AttrValue, Call, KEYS, Operand, Operator, by_id, types_of};

/// Attributes, inputs and list items a descriptor may have at most: beyond, it is taken for garbage.
const MOST_ITEMS: usize = 4096;

impl Call {
    /// Reads a descriptor. Absent attributes take their defaults; hints nobody knows are skipped. Shapes and types are left to [`Call::check`].
    ///
    /// # Errors
    /// INVALID_ARGUMENT for malformed descriptors, UNSUPPORTED_FIELD for extensions, UNIMPLEMENTED for operators, revisions or
    /// attributes this build does not know.
    ///
    /// # Safety
    /// `op` is NULL or points to a descriptor whose arrays hold as many entries as it states, list attributes included.
    pub unsafe fn from_abi(op: *const Op) -> Result<Call> {
        // SAFETY: stated by the caller.
        let op = unsafe { op.as_ref() }.ok_or_else(|| Error::invalid("the operator descriptor is NULL"))?;
        if op.size != Op::SIZE {
            return Err(Error::invalid(format!("flagos_op_t has size {}, this build's is {}; set it to sizeof(flagos_op_t)", op.size, Op::SIZE)));
        }
        if op.flags != 0 || !op.next.is_null() {
            return Err(Error::new(Code::UNSUPPORTED_FIELD, "flagos_op_t has flags or an extension this build does not know"));
        }
        let operator = by_id(op.id).ok_or_else(|| Error::unimplemented(format!("operator id {} is not in this build's catalogue", op.id)))?;
        if op.revision != operator.revision {
            return Err(Error::unimplemented(format!(
                "{} has revision {} here, the call wants {}",
                operator.name, operator.revision, op.revision
            )));
        }
        if op.n_attr as usize > MOST_ITEMS {
            return Err(Error::invalid(format!("{}: {} attributes", operator.name, op.n_attr)));
        }
        // SAFETY: stated by the caller.
        let (inputs, outputs, attrs) =
            unsafe { (slice(op.inputs, op.n_in.into())?, slice(op.outputs, op.n_out.into())?, slice(op.attrs, op.n_attr as usize)?) };
        for t in inputs.iter().chain(outputs) {
            check_header(operator.name, t)?;
        }
        if !attrs.is_sorted_by(|a, b| a.key & !ATTR_HINT < b.key & !ATTR_HINT) {
            return Err(Error::invalid(format!("{}: attributes are not sorted by key, or one is given twice", operator.name)));
        }
        let mut values: Vec<(&str, AttrValue)> = Vec::new();
        for attr in attrs {
            let name = KEYS.get((attr.key & !ATTR_HINT) as usize).copied().unwrap_or("");
            if !operator.attributes.iter().any(|s| s.name == name) {
                if attr.key & ATTR_HINT != 0 {
                    continue;
                }
                return Err(Error::unimplemented(format!("{} has no attribute of key {}", operator.name, attr.key)));
            }
            // SAFETY: stated by the caller.
            values.push((name, unsafe { value(operator.name, attr) }?));
        }
        Call::new(operator, inputs, outputs, &values)
    }
}

/// Whether an operator call may be taken by its id, revision, attributes' keys and tensors' types and form: what level 0 of `query` can tell
/// without looking at how shapes fit together. The reason if not.
pub fn takes(op: OpRef<'_>) -> core::result::Result<&'static Operator, &'static str> {
    let operator = by_id(op.id()).ok_or("this operator is not in the catalogue")?;
    if op.revision() != operator.revision {
        return Err("another revision of the operator");
    }
    let named = |a: &Attr| a.key & ATTR_HINT != 0 || KEYS.get(a.key as usize).is_some_and(|k| operator.attributes.iter().any(|s| s.name == *k));
    if !op.attrs().iter().all(named) {
        return Err("an attribute this operator does not have");
    }
    if !op.inputs().iter().chain(op.outputs()).all(is_sound) {
        return Err("a tensor of a form this build does not know");
    }
    let typed = |(i, t): (usize, &Tensor), rules: &[Operand]| {
        rules.get(i).or(rules.last()).is_some_and(|r| (t.is_none() && r.optional) || types_of(r.types).has(t.dtype))
    };
    if !op.inputs().iter().enumerate().all(|t| typed(t, operator.inputs)) || !op.outputs().iter().enumerate().all(|t| typed(t, operator.outputs)) {
        return Err("an element type this operator does not take");
    }
    Ok(operator)
}

fn is_sound(t: &Tensor) -> bool {
    t.rank as usize <= MAX_RANK
        && t.layout == 0
        && t.flags == 0
        && t.next.is_null()
        && (t.is_none() || t.dtype.lanes == 1)
        && t.shape().iter().all(|n| *n >= 0)
        && t.extent().and_then(|(l, h)| h.checked_sub(l)?.checked_mul(16)).is_some()
}

fn check_header(name: &str, t: &Tensor) -> Result<()> {
    if t.size != Tensor::SIZE {
        return Err(Error::invalid(format!("{name}: a flagos_tensor_t has size {}, this build's is {}", t.size, Tensor::SIZE)));
    }
    if t.rank as usize > MAX_RANK {
        return Err(Error::invalid(format!("{name}: rank {}; at most {MAX_RANK} are possible", t.rank)));
    }
    Ok(())
}

/// # Safety
/// A list attribute's address and length are valid.
unsafe fn value(name: &str, attr: &Attr) -> Result<AttrValue> {
    match AttrTag(attr.tag & 0xff) {
        AttrTag::I64 | AttrTag::U64 => Ok(AttrValue::Int(attr.value as i64)),
        AttrTag::F64 => Ok(AttrValue::Float(f64::from_bits(attr.value))),
        AttrTag::SPAN => {
            let len = (attr.tag >> 8) as usize;
            if len > MOST_ITEMS {
                return Err(Error::invalid(format!("{name}: a list attribute has {len} items")));
            }
            // SAFETY: stated by the caller.
            Ok(AttrValue::Ints(unsafe { slice(attr.value as usize as *const i64, len) }?.to_vec()))
        }
        tag => Err(Error::invalid(format!("{name}: attribute key {} has the unknown tag {}", attr.key, tag.0))),
    }
}

/// # Safety
/// `ptr` addresses `len` valid items, or is NULL.
unsafe fn slice<'a, T>(ptr: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(Error::invalid(format!("an array of {len} items is NULL or misaligned")));
    }
    // SAFETY: stated by the caller.
    Ok(unsafe { core::slice::from_raw_parts(ptr, len) })
}
