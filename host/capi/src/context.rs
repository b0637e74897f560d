//! The context: what was discovered, the policy, and opening devices.

use core::ffi::c_char;

use flagos_backend_api::{ABI_MAJOR, Code, Error, Result};
use flagos_runtime::Runtime;
use flagos_runtime::discover::DirectBackend;

use crate::border::{Context, Device, Handle, export, put, put_text, text};

/// A context's runtime; dropping it lets go of cached plans, which would keep devices open.
pub struct Shared(pub(crate) Runtime);

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.clear_plans();
        flagos_runtime::oneshot::forget();
    }
}

/// The backends linked into this library.
pub fn embedded() -> Vec<DirectBackend> {
    vec![DirectBackend::new(embedded::NAME, embedded::query_embedded)]
}

/// JSON of anything serialisable.
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::new(Code::INTERNAL, e.to_string()))
}

export! {
    /// Version of this interface: major << 16 | minor. The major is that of the soname.
    [Free] fn flagos_version(out_version: *mut u32) {
        // SAFETY: the header states that `out_version` is writable.
        unsafe { put(out_version, ABI_MAJOR << 16) }
    }

    /// Discovers, judges and loads backends as the environment says (`flagos env` lists the variables), once.
    /// A backend that is refused never fails the context: see flagos_context_report.
    [Free] fn flagos_context_create(out_context: *mut *mut Context) {
        let runtime = Runtime::new(&embedded())?;
        // SAFETY: the header states that `out_context` is writable.
        unsafe { put(out_context, Handle::give(Shared(runtime))) }
    }

    /// Releases a context; objects made from it live on until they are released themselves. NULL is allowed.
    [Free] fn flagos_context_release(context: *mut Context) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(context) }.map(drop)
    }

    /// Every candidate backend, taken or refused, with reasons and timings, as JSON. Free it with flagos_text_free.
    [Free] fn flagos_context_report(context: *const Context, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, json(Handle::get(context)?.0.report())?) }
    }

    /// Every device that was probed, as a JSON array; the first call probes. Free it with flagos_text_free.
    [Free] fn flagos_context_devices(context: *const Context, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, json(Handle::get(context)?.0.devices())?) }
    }

    /// Number of devices that were probed; the first call probes.
    [Free] fn flagos_device_count(context: *const Context, out_count: *mut u32) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_count, Handle::get(context)?.0.devices().len() as u32) }
    }

    /// Name (`backend:ordinal`) of device `index`. Free it with flagos_text_free.
    [Free] fn flagos_device_name_at(context: *const Context, index: u32, out_name: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let devices = Handle::get(context)?.0.devices();
            let device = devices.get(index as usize).ok_or_else(|| Error::invalid(format!("device {index} of {}", devices.len())))?;
            put_text(out_name, device.name.clone())
        }
    }

    /// Merges policy text (TOML, as in a policy file) into the context's policy. Choices made before are made anew.
    [Free] fn flagos_context_set_policy(context: *const Context, toml: *const c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let runtime = &Handle::get(context)?.0;
            runtime.set_policy((*runtime.policy()).clone().merge_text(text(toml)?, "given by the program")?)
        }
    }

    /// Takes implementations out of use at once, also while work runs: a glob of `backend/operator`.
    [Free] fn flagos_context_revoke(context: *const Context, pattern: *const c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { Handle::get(context)?.0.revoke(text(pattern)?) }
    }

    /// Counters of fallbacks, copies, launches and plans as JSON. Free it with flagos_text_free.
    [Free] fn flagos_context_statistics(context: *const Context, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, json(&Handle::get(context)?.0.statistics())?) }
    }

    /// Opens a device: `backend:ordinal`, `backend` for its best, "" or NULL for the best of all.
    [Free] fn flagos_device_open(context: *const Context, name: *const c_char, out_device: *mut *mut Device) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let device = Handle::get(context)?.0.open(text(name)?)?;
            put(out_device, Handle::give(device))
        }
    }

    /// Releases a device handle; the device closes when nothing made from it is left. NULL is allowed.
    [Free] fn flagos_device_release(device: *mut Device) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(device) }.map(drop)
    }

    /// Properties of a device as JSON. Free it with flagos_text_free.
    [Free] fn flagos_device_info(device: *const Device, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let device = Handle::get(device)?;
            let mut value = serde_json::to_value(device.info()).map_err(|e| Error::new(Code::INTERNAL, e.to_string()))?;
            value["device"] = device.name().into();
            value["build_id"] = device.build_id().into();
            put_text(out_json, value.to_string())
        }
    }

    /// Memory statistics of a device as JSON. Free it with flagos_text_free.
    [Free] fn flagos_device_memory(device: *const Device, out_json: *mut *mut c_char) {
        // SAFETY: the header states what the pointers are.
        unsafe { put_text(out_json, json(&Handle::get(device)?.memory_statistics())?) }
    }

    /// Waits for all work of a device; returns the first late error.
    [Free] fn flagos_device_sync(device: *const Device) {
        // SAFETY: the header states that the handle is live.
        unsafe { Handle::get(device) }?.sync()
    }

    /// Gives memory the pool keeps back to the backend.
    [Free] fn flagos_device_trim(device: *const Device) {
        // SAFETY: the header states that the handle is live.
        unsafe { Handle::get(device) }?.trim()
    }

    /// Latest launches of the process, from the always-on trace, as a JSON array of [operator, device, implementation].
    [Free] fn flagos_trace_recent(out_json: *mut *mut c_char) {
        let launches: Vec<_> = flagos_runtime::trace::recent().0.into_iter().filter_map(flagos_runtime::describe).collect();
        // SAFETY: the header states that `out_json` is writable.
        unsafe { put_text(out_json, json(&launches)?) }
    }
}
