//! Streams and timelines: queues of work, and 64-bit counters by which they wait for each other.
#![forbid(unsafe_code)]

use flagos_backend_api::Result;
use flagos_backend_api::vendor::{StreamRequest, Streams};

use crate::device::AcmeDevice;
use crate::left;

/// An in-order queue. Fill in: the driver's, destroyed when it is dropped, after its work is done.
pub struct AcmeStream;

/// A 64-bit timeline. Fill in: the driver's timeline semaphore, or one driver event per signalled value in a small ring.
pub struct AcmeEvent;

/// Nothing here waits on the host, but `sync_stream` and `sync_event`.
impl Streams for AcmeDevice {
    type Stream = AcmeStream;
    type Event = AcmeEvent;

    /// Wraps the framework's queue in `request.native` unless that is 0. Priorities are a wish.
    fn create_stream(&self, request: &StreamRequest) -> Result<AcmeStream> {
        left("stream.rs: create_stream")
    }

    fn sync_stream(&self, stream: &AcmeStream) -> Result<()> {
        left("stream.rs: sync_stream")
    }

    fn is_idle(&self, stream: &AcmeStream) -> Result<bool> {
        left("stream.rs: is_idle")
    }

    fn create_event(&self) -> Result<AcmeEvent> {
        left("stream.rs: create_event")
    }

    fn signal(&self, stream: &AcmeStream, event: &AcmeEvent, value: u64) -> Result<()> {
        left("stream.rs: signal")
    }

    fn wait(&self, stream: &AcmeStream, event: &AcmeEvent, value: u64) -> Result<()> {
        left("stream.rs: wait")
    }

    fn event_value(&self, event: &AcmeEvent) -> Result<u64> {
        left("stream.rs: event_value")
    }

    /// DEADLINE_EXCEEDED when `timeout_ns` ran out; all ones: for ever.
    fn sync_event(&self, event: &AcmeEvent, value: u64, timeout_ns: u64) -> Result<()> {
        left("stream.rs: sync_event")
    }
}
