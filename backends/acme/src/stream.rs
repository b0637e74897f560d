//! Streams and timelines: work is over when its call returns, so a stream has no state of its own. `backends/null` shows queues that run by themselves.
#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::AcmeDevice;

/// An in-order queue.
pub struct AcmeStream;

/// A 64-bit timeline.
#[derive(Default)]
pub struct AcmeEvent {
    value: Mutex<u64>,
    raised: Condvar,
}

impl Streams for AcmeDevice {
    type Stream = AcmeStream;
    type Event = AcmeEvent;

    fn create_stream(&self, request: &StreamRequest) -> Result<AcmeStream> {
        if request.native != 0 {
            return Err(Error::unimplemented(format!("{} has no native queues to wrap; pass native = 0", crate::device::NAME)));
        }
        Ok(AcmeStream)
    }

    fn sync_stream(&self, _stream: &AcmeStream) -> Result<()> {
        Ok(())
    }

    fn is_idle(&self, _stream: &AcmeStream) -> Result<bool> {
        Ok(true)
    }

    fn create_event(&self) -> Result<AcmeEvent> {
        Ok(AcmeEvent::default())
    }

    fn signal(&self, _stream: &AcmeStream, event: &AcmeEvent, value: u64) -> Result<()> {
        let mut now = event.value.lock().unwrap_or_else(PoisonError::into_inner);
        if value <= *now {
            return Err(Error::invalid(format!("value {value} was signalled on a timeline that stands at {now}; values only rise")));
        }
        *now = value;
        event.raised.notify_all();
        Ok(())
    }

    fn wait(&self, _stream: &AcmeStream, event: &AcmeEvent, value: u64) -> Result<()> {
        // Later work of this stream comes from this thread, so the thread waits.
        self.sync_event(event, value, u64::MAX)
    }

    fn event_value(&self, event: &AcmeEvent) -> Result<u64> {
        Ok(*event.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sync_event(&self, event: &AcmeEvent, value: u64, timeout_ns: u64) -> Result<()> {
        let now = event.value.lock().unwrap_or_else(PoisonError::into_inner);
        // All ones, which is for ever, is more than 500 years.
        let (now, _) = event.raised.wait_timeout_while(now, Duration::from_nanos(timeout_ns), |now| *now < value).unwrap_or_else(PoisonError::into_inner);
        if *now < value {
            return Err(Error::new(Code::DEADLINE_EXCEEDED, format!("the timeline stands at {now} after {timeout_ns} ns, not at {value}")));
        }
        Ok(())
    }
}
