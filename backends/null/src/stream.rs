//! Streams and timelines: queues that run on their own, and 64-bit counters by which they wait for each other.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::NullDevice;
use crate::fault;
use crate::worker::{Queue, Task};

/// Signals a timeline remembers for `elapsed_ns`.
const REMEMBERED: usize = 64;

/// A stream. Replace: the driver's queue (`CUstream`, `cl_command_queue`).
pub struct NullStream {
    queue: Arc<Queue>,
    worker: Option<JoinHandle<()>>,
}

impl NullStream {
    /// Enqueues and returns.
    pub(crate) fn push(&self, task: Task) -> Result<()> {
        self.queue.push(task);
        Ok(())
    }
    /// The queue.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for NullStream {
    fn drop(&mut self) {
        if fault::keeps_thread() {
            return;
        }
        self.queue.close();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// A timeline. Replace: the driver's timeline semaphore, or one driver event per signalled value in a small ring.
pub struct Timeline {
    state: Mutex<State>,
    raised: Condvar,
}

struct State {
    value: u64,
    /// Late error of the work before the last signal.
    error: Option<Error>,
    signals: VecDeque<(u64, Instant)>,
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the timeline; `error` is that of the work before.
    pub fn raise(&self, value: u64, error: Option<Error>) {
        let mut state = self.lock();
        // A value that is not above the last one is the caller's mistake; the timeline does not fall for it.
        state.value = state.value.max(value);
        state.error = error;
        if state.signals.len() == REMEMBERED {
            state.signals.pop_front();
        }
        state.signals.push_back((value, Instant::now()));
        self.raised.notify_all();
    }

    /// Waits until `value` is reached; the late error of the work before.
    pub fn reach(&self, value: u64) -> Result<()> {
        let state = self.raised.wait_while(self.lock(), |s| s.value < value).unwrap_or_else(PoisonError::into_inner);
        state.error.clone().map_or(Ok(()), Err)
    }

    fn reach_in(&self, value: u64, timeout: Duration) -> Result<()> {
        let (state, late) = self.raised.wait_timeout_while(self.lock(), timeout, |s| s.value < value).unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            let text = format!("the timeline stands at {} after {timeout:?}, not at {value}", state.value);
            return Err(Error::new(Code::DEADLINE_EXCEEDED, text));
        }
        state.error.clone().map_or(Ok(()), Err)
    }
}

/// Nothing here waits, but `sync_stream` and `sync_event`.
impl Streams for NullDevice {
    type Stream = NullStream;
    type Event = Arc<Timeline>;

    fn create_stream(&self, request: &StreamRequest) -> Result<NullStream> {
        // Replace: wrap the framework's queue in `request.native`. Priorities are a wish.
        if request.native != 0 {
            return Err(Error::unimplemented("the null device has no native queues to wrap; pass native = 0"));
        }
        let (queue, worker) = Queue::start()?;
        self.chip.register(&queue);
        Ok(NullStream { queue, worker: Some(worker) })
    }

    fn sync_stream(&self, stream: &NullStream) -> Result<()> {
        stream.queue.drain()
    }

    fn is_idle(&self, stream: &NullStream) -> Result<bool> {
        Ok(stream.queue.is_idle())
    }

    fn create_event(&self) -> Result<Arc<Timeline>> {
        let state = State { value: 0, error: None, signals: VecDeque::with_capacity(REMEMBERED) };
        Ok(Arc::new(Timeline { state: Mutex::new(state), raised: Condvar::new() }))
    }

    fn signal(&self, stream: &NullStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        if fault::signal(event, value) {
            return Ok(());
        }
        stream.push(Task::Signal(event.clone(), value))
    }

    fn wait(&self, stream: &NullStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        if fault::wait() {
            return Ok(());
        }
        stream.push(Task::Wait(event.clone(), value))
    }

    fn event_value(&self, event: &Arc<Timeline>) -> Result<u64> {
        let state = event.lock();
        state.error.clone().map_or(Ok(fault::told(state.value)), Err)
    }

    fn sync_event(&self, event: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        fault::waited(match fault::timeout_ns(timeout_ns) {
            u64::MAX => event.reach(value),
            ns => event.reach_in(value, Duration::from_nanos(ns)),
        })
    }

    fn elapsed_ns(&self, event: &Arc<Timeline>, from: u64, to: u64) -> Result<u64> {
        let state = event.lock();
        let at = |value: u64| {
            let found = state.signals.iter().find(|(v, _)| *v == value).map(|(_, at)| *at);
            found.ok_or_else(|| Error::invalid(format!("value {value} is not among the last {REMEMBERED} signals of the timeline")))
        };
        Ok(at(to)?.saturating_duration_since(at(from)?).as_nanos() as u64)
    }
}
