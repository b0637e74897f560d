//! The stream table over a safe trait.

use crate::{Error, Result, Status, StreamDesc, StreamTable};

use crate::checked;
use super::export::{Backend, table};
use super::handle::{Handle, put};

/// A request for a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamRequest {
    /// Lower runs earlier; 0 is the default.
    pub priority: i32,
    /// A queue of the vendor's to wrap, or 0. It outlives the stream.
    pub native: u64,
}

/// Streams and timelines of a device. A synchronous backend signals before it returns.
pub trait Streams: Send + Sync + Sized + 'static {
    /// An in-order queue. One thread at a time uses it.
    type Stream: Send + Sync + 'static;
    /// A 64-bit timeline that starts at 0.
    type Event: Send + Sync + 'static;

    /// Creates or imports a stream.
    fn create_stream(&self, request: &StreamRequest) -> Result<Self::Stream>;
    /// Waits until the stream is idle; the first late error.
    fn sync_stream(&self, stream: &Self::Stream) -> Result<()>;
    /// Whether it is idle.
    fn is_idle(&self, stream: &Self::Stream) -> Result<bool>;
    /// The vendor's queue.
    fn native_stream(&self, _stream: &Self::Stream) -> Result<u64> {
        Err(Error::unimplemented("streams have no native queue here"))
    }
    /// Creates a timeline at 0.
    fn create_event(&self) -> Result<Self::Event>;
    /// Enqueues: raise the timeline to `value`, which is above every value signalled before.
    fn signal(&self, stream: &Self::Stream, event: &Self::Event, value: u64) -> Result<()>;
    /// Enqueues: later work waits until the timeline reaches `value`.
    fn wait(&self, stream: &Self::Stream, event: &Self::Event, value: u64) -> Result<()>;
    /// The value reached; a late error of the work before it.
    fn event_value(&self, event: &Self::Event) -> Result<u64>;
    /// Waits on the host until `value` is reached; DEADLINE_EXCEEDED after `timeout_ns` (all ones: for ever).
    fn sync_event(&self, event: &Self::Event, value: u64, timeout_ns: u64) -> Result<()>;
    /// Device time between two signalled values in ns.
    fn elapsed_ns(&self, _event: &Self::Event, _from: u64, _to: u64) -> Result<u64> {
        Err(Error::unimplemented("there is no device clock"))
    }
}

type StreamOf<B> = <<B as Backend>::Device as Streams>::Stream;
type EventOf<B> = <<B as Backend>::Device as Streams>::Event;

/// The stream table of a backend.
pub(super) const fn stream_table<B: Backend>() -> StreamTable {
    StreamTable {
        size: StreamTable::SIZE,
        kind: StreamTable::KIND,
        create: Some(create::<B>),
        destroy: Some(destroy::<B>),
        sync: Some(sync::<B>),
        query: Some(query::<B>),
        native: Some(native::<B>),
        event_create: Some(event_create::<B>),
        event_destroy: Some(event_destroy::<B>),
        signal: Some(signal::<B>),
        wait: Some(wait::<B>),
        event_query: Some(event_query::<B>),
        event_sync: Some(event_sync::<B>),
        elapsed: Some(elapsed::<B>),
    }
}

/// # Safety
/// `raw` is NULL or a live stream of backend `B`; its device outlives it by contract.
unsafe fn stream<'a, B: Backend>(raw: *mut crate::Stream) -> Result<(&'a B::Device, &'a StreamOf<B>)> {
    // SAFETY: stated by the caller.
    unsafe {
        let handle = Handle::<StreamOf<B>>::of(raw, "stream")?;
        Ok((handle.device::<B::Device>(), &handle.value))
    }
}

/// # Safety
/// `raw` is NULL or a live event of backend `B`; its device outlives it by contract.
unsafe fn event<'a, B: Backend>(raw: *mut crate::Event) -> Result<(&'a B::Device, &'a EventOf<B>)> {
    // SAFETY: stated by the caller.
    unsafe {
        let handle = Handle::<EventOf<B>>::of(raw, "event")?;
        Ok((handle.device::<B::Device>(), &handle.value))
    }
}

unsafe extern "C" fn create<B: Backend>(device: *mut crate::Device, desc: *const StreamDesc, out_stream: *mut *mut crate::Stream) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, a struct of the size it states and a writable place.
        unsafe {
            let (open, desc) = (Handle::<B::Device>::of(device, "device")?, checked::read(desc)?);
            if desc.flags != 0 {
                return Err(Error::invalid(format!("flagos_stream_desc_t.flags is {:#x}; it is reserved, 0", desc.flags)));
            }
            let stream = open.value.create_stream(&StreamRequest { priority: desc.priority, native: desc.native })?;
            put(out_stream, "out_stream", Handle::give(table::<B>(), device.cast_const().cast(), stream))
        }
    })
}

unsafe extern "C" fn destroy<B: Backend>(raw: *mut crate::Stream) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back a stream of this backend, once.
        drop(unsafe { Handle::<StreamOf<B>>::take(raw, "stream") }?);
        Ok(())
    })
}

unsafe extern "C" fn sync<B: Backend>(raw: *mut crate::Stream) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live stream of this backend.
        let (device, stream) = unsafe { stream::<B>(raw) }?;
        device.sync_stream(stream)
    })
}

unsafe extern "C" fn query<B: Backend>(raw: *mut crate::Stream, out_idle: *mut u32) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live stream of this backend and a writable place.
        unsafe {
            let (device, stream) = stream::<B>(raw)?;
            put(out_idle, "out_idle", device.is_idle(stream)?.into())
        }
    })
}

unsafe extern "C" fn native<B: Backend>(raw: *mut crate::Stream, out_native: *mut u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live stream of this backend and a writable place.
        unsafe {
            let (device, stream) = stream::<B>(raw)?;
            put(out_native, "out_native", device.native_stream(stream)?)
        }
    })
}

unsafe extern "C" fn event_create<B: Backend>(device: *mut crate::Device, out_event: *mut *mut crate::Event) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and a writable place.
        unsafe {
            let event = Handle::<B::Device>::of(device, "device")?.value.create_event()?;
            put(out_event, "out_event", Handle::give(table::<B>(), device.cast_const().cast(), event))
        }
    })
}

unsafe extern "C" fn event_destroy<B: Backend>(raw: *mut crate::Event) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back an event of this backend, once.
        drop(unsafe { Handle::<EventOf<B>>::take(raw, "event") }?);
        Ok(())
    })
}

unsafe extern "C" fn signal<B: Backend>(s: *mut crate::Stream, e: *mut crate::Event, value: u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes live objects of this backend.
        let ((device, stream), (_, event)) = unsafe { (stream::<B>(s)?, event::<B>(e)?) };
        device.signal(stream, event, value)
    })
}

unsafe extern "C" fn wait<B: Backend>(s: *mut crate::Stream, e: *mut crate::Event, value: u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes live objects of this backend.
        let ((device, stream), (_, event)) = unsafe { (stream::<B>(s)?, event::<B>(e)?) };
        device.wait(stream, event, value)
    })
}

unsafe extern "C" fn event_query<B: Backend>(raw: *mut crate::Event, out_value: *mut u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live event of this backend and a writable place.
        unsafe {
            let (device, event) = event::<B>(raw)?;
            put(out_value, "out_value", device.event_value(event)?)
        }
    })
}

unsafe extern "C" fn event_sync<B: Backend>(raw: *mut crate::Event, value: u64, timeout_ns: u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live event of this backend.
        let (device, event) = unsafe { event::<B>(raw) }?;
        device.sync_event(event, value, timeout_ns)
    })
}

unsafe extern "C" fn elapsed<B: Backend>(raw: *mut crate::Event, from: u64, to: u64, out_ns: *mut u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live event of this backend and a writable place.
        unsafe {
            let (device, event) = event::<B>(raw)?;
            put(out_ns, "out_ns", device.elapsed_ns(event, from, to)?)
        }
    })
}
