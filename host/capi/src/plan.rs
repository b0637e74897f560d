//! Plans: a call prepared once and launched many times.

use core::ffi::{c_char, c_void};

use flagos_backend_api::checked;
use flagos_backend_api::{Binding, BlasDesc, FftDesc, Op};
use flagos_runtime::{Device as RuntimeDevice, Plan as RuntimePlan, Result, Scalars, Work};
use serde_json::json;

use crate::border::{Device, Handle, Plan, Stream, export, put, put_text};
use crate::call::{entries, of_binding, operand, work};

/// Bit of `flags`: only implementations that give equal bits on every run.
const DETERMINISTIC: u32 = 1;

fn make(device: &RuntimeDevice, work: &Work, flags: u32) -> Result<RuntimePlan> {
    match flags {
        0 => device.plan(work),
        DETERMINISTIC => device.plan_deterministic(work),
        _ => Err(flagos_runtime::Error::invalid(format!("plan flags are {flags:#x}; 0 and FLAGOS_PLAN_DETERMINISTIC (1) are possible"))),
    }
}

export! {
    /// Prepares an operator call; may compile and allocate. `flags`: 0, or FLAGOS_PLAN_DETERMINISTIC (1).
    [Free] fn flagos_op_plan(device: *const Device, op: *const Op, flags: u32, out_plan: *mut *mut Plan) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_plan, Handle::give(make(Handle::get(device)?, &work(op)?, flags)?)) }
    }

    /// Prepares a BLAS call.
    [Free] fn flagos_blas_plan(device: *const Device, desc: *const BlasDesc, flags: u32, out_plan: *mut *mut Plan) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_plan, Handle::give(make(Handle::get(device)?, &Work::Blas(checked::read(desc)?), flags)?)) }
    }

    /// Prepares a transform.
    [Free] fn flagos_fft_plan(device: *const Device, desc: *const FftDesc, flags: u32, out_plan: *mut *mut Plan) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_plan, Handle::give(make(Handle::get(device)?, &Work::Fft(checked::read(desc)?), flags)?)) }
    }

    /// Releases a plan; its launches in flight finish. NULL is allowed.
    [Free] fn flagos_plan_release(plan: *mut Plan) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(plan) }.map(drop)
    }

    /// Operator, implementation, workspace, properties and the choice's candidates as JSON. Free it with flagos_text_free.
    [Free] fn flagos_plan_explain(plan: *const Plan, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let plan = Handle::get(plan)?;
            let value = json!({
                "operator": plan.operator(), "device": plan.device().name(), "implementation": plan.implementation(),
                "workspace_bytes": plan.workspace_bytes(), "properties": plan.properties(), "fallback": plan.is_fallback(), "choice": plan.choice(),
            });
            put_text(out_json, value.to_string())
        }
    }

    /// Enqueues a plan: `bindings` are the inputs in order, then the outputs, `buffer` being a flagos_buffer_t. `alpha` and `beta` as for
    /// flagos_blas_execute; NULL for operators and transforms. Several threads may launch one plan on several streams.
    [Stream] fn flagos_plan_launch(plan: *const Plan, stream: *const Stream, bindings: *const Binding, n_bindings: u32, alpha: *const c_void, beta: *const c_void) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let (plan, stream) = (Handle::get(plan)?, Handle::get(stream)?);
            let list = entries(bindings, n_bindings, "bindings")?;
            plan.launch_with(stream, list.len(), |i| operand(of_binding(&list[i])), Scalars { alpha: alpha.cast(), beta: beta.cast() })
        }
    }
}
