//! Events: 64-bit timelines between streams.

use crate::border::{Device, Event, Handle, Stream, export, put};

export! {
    /// Creates a timeline at value 0.
    [Free] fn flagos_event_create(device: *const Device, out_event: *mut *mut Event) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_event, Handle::give(Handle::get(device)?.event()?)) }
    }

    /// Releases an event no stream waits for. NULL is allowed.
    [Free] fn flagos_event_release(event: *mut Event) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(event) }.map(drop)
    }

    /// Enqueues: when the stream gets here, the timeline rises to `value`, which is above every value signalled before.
    [Stream] fn flagos_stream_signal(stream: *const Stream, event: *const Event, value: u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { Handle::get(stream)?.signal(Handle::get(event)?, value) }
    }

    /// Enqueues: later work of the stream waits until the timeline reaches `value`. Between backends the host waits before this returns.
    [Stream] fn flagos_stream_wait(stream: *const Stream, event: *const Event, value: u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { Handle::get(stream)?.wait(Handle::get(event)?, value) }
    }

    /// The value reached, without waiting; late errors of the work before it come here.
    [Free] fn flagos_event_query(event: *const Event, out_value: *mut u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_value, Handle::get(event)?.query()?) }
    }

    /// Waits on the host until `value` is reached; FLAGOS_DEADLINE_EXCEEDED after `timeout_ns` (all ones: for ever).
    [Free] fn flagos_event_sync(event: *const Event, value: u64, timeout_ns: u64) {
        // SAFETY: the header states that the handle is live.
        unsafe { Handle::get(event) }?.sync(value, timeout_ns)
    }

    /// Device time between two signalled values in nanoseconds; FLAGOS_UNIMPLEMENTED without a device clock.
    [Free] fn flagos_event_elapsed(event: *const Event, from_value: u64, to_value: u64, out_ns: *mut u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_ns, Handle::get(event)?.elapsed_ns(from_value, to_value)?) }
    }
}
