//! Calls: find an operator, ask, infer, execute, explain. BLAS and FFT by their own descriptors.

use core::ffi::{c_char, c_void};

use flagos_backend_api::checked::{self, OpRef, null};
use flagos_backend_api::{Binding, BlasDesc, Code, Error, FftDesc, Op, Result, Support, Tensor};
use flagos_catalog::{AttrKind, Call, Operator, by_id, find, key_of, operators};
use flagos_runtime::{Operand, Scalars, Work, oneshot};
use serde_json::{Value, json};

use crate::border::{Buffer, Device, Handle, Stream, export, put, put_text, text};

/// A buffer handle and byte offset as an operand.
///
/// # Safety
/// The handle is NULL or a buffer handle that lives through the call.
#[inline]
pub(crate) unsafe fn operand<'a>((handle, offset): (*const Buffer, u64)) -> Result<Operand<'a>> {
    // SAFETY: stated by the caller.
    if handle.is_null() { Ok(None) } else { Ok(Some((unsafe { Handle::get(handle) }?, offset))) }
}

/// Buffers in the ABI's structs are the host's own handles on this side of the border.
#[inline]
pub(crate) fn of_tensor(t: &Tensor) -> (*const Buffer, u64) {
    (t.buffer.cast_const().cast(), t.byte_offset)
}
#[inline]
pub(crate) fn of_binding(b: &Binding) -> (*const Buffer, u64) {
    (b.buffer.cast_const().cast(), b.byte_offset)
}

/// A caller's array.
///
/// # Safety
/// `list` is NULL or addresses `n` entries.
pub(crate) unsafe fn entries<'a, T>(list: *const T, n: u32, what: &str) -> Result<&'a [T]> {
    match n {
        0 => Ok(&[]),
        _ if list.is_null() => Err(null(what)),
        // SAFETY: stated by the caller.
        _ => Ok(unsafe { core::slice::from_raw_parts(list, n as usize) }),
    }
}

/// A checked call from a descriptor.
///
/// # Safety
/// `op` is NULL or a descriptor whose arrays hold as many entries as it states.
pub(crate) unsafe fn work(op: *const Op) -> Result<Work> {
    // SAFETY: stated by the caller.
    Ok(Work::Op(unsafe { Call::from_abi(op) }?))
}

/// An operator's definition as people and generators want it.
pub fn describe(o: &Operator) -> Value {
    let operand = |p: &flagos_catalog::Operand| {
        let types: Vec<&str> = flagos_catalog::types_of(p.types).iter().map(flagos_backend_api::DType::name).collect();
        json!({ "name": p.name, "optional": p.optional, "many": p.many, "types": types, "doc": p.doc })
    };
    let attribute = |a: &flagos_catalog::Attribute| {
        let mut value = match a.kind {
            AttrKind::Int { default, min, max } => json!({ "kind": "int", "default": default, "min": min, "max": max }),
            AttrKind::Float { default } => json!({ "kind": "float", "default": default.map(|d| d.to_string()) }),
            AttrKind::Number { default } => json!({ "kind": "number", "default": default.map(|d| d.to_string()) }),
            AttrKind::Bool { default } => json!({ "kind": "bool", "default": default }),
            AttrKind::Choice { names, default } => json!({ "kind": "choice", "choices": names, "default": names.get(default as usize) }),
            AttrKind::Ints { default } => json!({ "kind": "ints", "default": default }),
        };
        value["name"] = a.name.into();
        value["key"] = key_of(a.name).into();
        value["doc"] = a.doc.into();
        value
    };
    json!({
        "name": o.name, "id": o.id, "revision": o.revision, "family": o.family, "aten": o.aten, "onnx": o.onnx,
        "inputs": o.inputs.iter().map(operand).collect::<Vec<_>>(), "outputs": o.outputs.iter().map(operand).collect::<Vec<_>>(),
        "attributes": o.attributes.iter().map(attribute).collect::<Vec<_>>(), "in_place": o.in_place,
        "numerics": format!("{:?}", o.numerics), "special": o.special, "doc": o.doc.trim(),
    })
}

export! {
    /// Registry id of an operator by its name or an ATen overload's; FLAGOS_NOT_FOUND with near names otherwise.
    [Free] fn flagos_op_find(name: *const c_char, out_id: *mut u32) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let name = text(name)?;
            let operator = find(name).ok_or_else(|| {
                let near: Vec<&str> = operators().iter().map(|o| o.name).filter(|n| n.contains(name) || name.contains(n)).collect();
                let hint = if near.is_empty() { "`flagos ops` lists them".to_owned() } else { format!("near it: {}", near.join(", ")) };
                Error::new(Code::NOT_FOUND, format!("there is no operator '{name}'; {hint}"))
            })?;
            put(out_id, operator.id)
        }
    }

    /// Definition of an operator (signature, types, attributes, numerics) as JSON. Free it with flagos_text_free.
    [Free] fn flagos_op_describe(id: u32, out_json: *mut *mut c_char) {
        let operator = by_id(id).ok_or_else(|| Error::new(Code::NOT_FOUND, format!("operator id {id} is not in this build's catalogue")))?;
        // SAFETY: the header states that `out_json` is writable.
        unsafe { put_text(out_json, describe(operator).to_string()) }
    }

    /// Types and shapes of the outputs, before anything is allocated: fills at most `capacity` tensors, contiguous and without memory;
    /// `*out_count` is how many there are. The outputs of `op` may be absent (n_out 0); where the caller chooses a type (cast, arange)
    /// it is taken from them, else it is FLAGOS_DTYPE_NONE.
    [Free] fn flagos_op_infer(op: *const Op, outputs: *mut Tensor, capacity: u32, out_count: *mut u32) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let call = Call::from_abi(op)?;
            let inferred = call.infer()?;
            if capacity > 0 && outputs.is_null() {
                return Err(null("outputs"));
            }
            for (i, (dtype, shape)) in inferred.iter().enumerate().take(capacity as usize) {
                let chosen = call.outputs.get(i).map(|t| t.dtype);
                let dtype = dtype.or(chosen).unwrap_or(flagos_backend_api::DType::NONE);
                outputs.add(i).write(Tensor::contiguous(dtype, shape));
            }
            put(out_count, inferred.len() as u32)
        }
    }

    /// Whether the device's own backend offers a call; `level` 0: whether, 1: also workspace and properties, 2: also cost.
    [Free] fn flagos_op_query(device: *const Device, op: *const Op, level: u32, out_support: *mut Support) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let op = OpRef::new(op)?;
            checked::write(out_support, &Handle::get(device)?.query_op(op.raw(), level)?)
        }
    }

    /// Runs a call: planned once for its types, shapes, strides and attributes, then found again by its key. Inputs and outputs name
    /// their memory in `buffer` (a flagos_buffer_t) and `byte_offset`. Returns when enqueued.
    [Stream] fn flagos_op_execute(stream: *const Stream, op: *const Op) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let op = OpRef::new(op)?;
            let stream = Handle::get(stream)?;
            let (inputs, outputs) = (op.inputs(), op.outputs());
            let n = inputs.len();
            oneshot::execute(stream, op.raw(), n + outputs.len(), |i| operand(of_tensor(if i < n { &inputs[i] } else { &outputs[i - n] })))
        }
    }

    /// Who would run a call on a device and why: every candidate with score and reason, as JSON. Free it with flagos_text_free.
    [Free] fn flagos_op_explain(device: *const Device, op: *const Op, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, crate::context::json(&Handle::get(device)?.explain(&work(op)?)?)?) }
    }

    /// Whether the device's own backend offers a BLAS call; levels as for operators.
    [Free] fn flagos_blas_query(device: *const Device, desc: *const BlasDesc, level: u32, out_support: *mut Support) {
        // SAFETY: the header states what the pointers are.
        unsafe { checked::write(out_support, &Handle::get(device)?.query(&Work::Blas(checked::read(desc)?), level)?) }
    }

    /// Runs a BLAS call. `bindings`: one per operand of the routine, `buffer` being a flagos_buffer_t; `alpha` and `beta` are host
    /// addresses of values in the compute type, read before return; NULL: 1 and 0 (beta 0 leaves the output unread).
    [Stream] fn flagos_blas_execute(stream: *const Stream, desc: *const BlasDesc, bindings: *const Binding, n_bindings: u32, alpha: *const c_void, beta: *const c_void) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let (stream, desc) = (Handle::get(stream)?, checked::read(desc)?);
            let list = entries(bindings, n_bindings, "bindings")?;
            let scalars = Scalars { alpha: alpha.cast(), beta: beta.cast() };
            oneshot::execute_blas(stream, &desc, list.len(), |i| operand(of_binding(&list[i])), scalars)
        }
    }

    /// Who would run a BLAS call and why, as JSON. Free it with flagos_text_free.
    [Free] fn flagos_blas_explain(device: *const Device, desc: *const BlasDesc, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, crate::context::json(&Handle::get(device)?.explain(&Work::Blas(checked::read(desc)?))?)?) }
    }

    /// Whether the device's own backend offers a transform; levels as for operators.
    [Free] fn flagos_fft_query(device: *const Device, desc: *const FftDesc, level: u32, out_support: *mut Support) {
        // SAFETY: the header states what the pointers are.
        unsafe { checked::write(out_support, &Handle::get(device)?.query(&Work::Fft(checked::read(desc)?), level)?) }
    }

    /// Runs a transform from `input` to `output`; equal bindings mean in place.
    [Stream] fn flagos_fft_execute(stream: *const Stream, desc: *const FftDesc, input: *const Binding, output: *const Binding) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let (stream, desc) = (Handle::get(stream)?, checked::read(desc)?);
            let (input, output) = (input.as_ref().ok_or_else(|| null("input"))?, output.as_ref().ok_or_else(|| null("output"))?);
            oneshot::execute_fft(stream, &desc, 2, |i| operand(of_binding([input, output][i])))
        }
    }

    /// Who would run a transform and why, as JSON. Free it with flagos_text_free.
    [Free] fn flagos_fft_explain(device: *const Device, desc: *const FftDesc, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, crate::context::json(&Handle::get(device)?.explain(&Work::Fft(checked::read(desc)?))?)?) }
    }
}
