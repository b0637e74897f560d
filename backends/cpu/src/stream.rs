//! Streams and timelines: work is over when a call returns, so a stream has no state of its own.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::CpuDevice;

/// Signals a timeline remembers for `elapsed_ns`.
const REMEMBERED: usize = 64;

/// A queue that is always idle.
pub struct CpuStream(());

/// A timeline.
pub struct CpuEvent {
    state: Mutex<Timeline>,
    raised: Condvar,
}

struct Timeline {
    value: u64,
    signals: Vec<(u64, Instant)>,
}

impl CpuEvent {
    fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the timeline reaches `value`; false when `timeout` ran out.
    fn reach(&self, value: u64, timeout: Option<Duration>) -> bool {
        let waiting = |t: &mut Timeline| t.value < value;
        match timeout {
            None => {
                drop(self.raised.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner));
                true
            }
            Some(timeout) => !self.raised.wait_timeout_while(self.lock(), timeout, waiting).unwrap_or_else(PoisonError::into_inner).1.timed_out(),
        }
    }
}

impl Streams for CpuDevice {
    type Stream = CpuStream;
    type Event = CpuEvent;

    fn create_stream(&self, request: &StreamRequest) -> Result<CpuStream> {
        if request.native != 0 {
            return Err(Error::unimplemented("a processor has no native queues to wrap"));
        }
        Ok(CpuStream(()))
    }
    fn sync_stream(&self, _: &CpuStream) -> Result<()> {
        Ok(())
    }
    fn is_idle(&self, _: &CpuStream) -> Result<bool> {
        Ok(true)
    }
    fn create_event(&self) -> Result<CpuEvent> {
        Ok(CpuEvent { state: Mutex::new(Timeline { value: 0, signals: Vec::with_capacity(REMEMBERED) }), raised: Condvar::new() })
    }
    fn signal(&self, _: &CpuStream, event: &CpuEvent, value: u64) -> Result<()> {
        let mut timeline = event.lock();
        if value <= timeline.value {
            return Err(Error::invalid(format!("value {value} was signalled on a timeline that stands at {}; values only rise", timeline.value)));
        }
        timeline.value = value;
        if timeline.signals.len() == REMEMBERED {
            timeline.signals.remove(0);
        }
        timeline.signals.push((value, Instant::now()));
        event.raised.notify_all();
        Ok(())
    }
    fn wait(&self, _: &CpuStream, event: &CpuEvent, value: u64) -> Result<()> {
        event.reach(value, None);
        Ok(())
    }
    fn event_value(&self, event: &CpuEvent) -> Result<u64> {
        Ok(event.lock().value)
    }
    fn sync_event(&self, event: &CpuEvent, value: u64, timeout_ns: u64) -> Result<()> {
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        if event.reach(value, timeout) {
            return Ok(());
        }
        let text = format!("the timeline stands at {} after {timeout_ns} ns, not at {value}", event.lock().value);
        Err(Error::new(Code::DEADLINE_EXCEEDED, text))
    }
    fn elapsed_ns(&self, event: &CpuEvent, from: u64, to: u64) -> Result<u64> {
        let timeline = event.lock();
        let at = |value: u64| {
            let found = timeline.signals.iter().find(|(v, _)| *v == value).map(|(_, at)| *at);
            found.ok_or_else(|| Error::invalid(format!("value {value} is not among the last {REMEMBERED} signals of the timeline")))
        };
        Ok(at(to)?.saturating_duration_since(at(from)?).as_nanos() as u64)
    }
}
