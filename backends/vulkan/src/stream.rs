//! Streams: a list of tasks and a thread that turns them into submissions, so that enqueueing costs neither driver calls nor waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::{Chip, VulkanDevice};
use crate::instance::{self, lock};
use crate::recorder::Recorder;
use crate::task::Task;
use crate::timeline::{Line, Point, Timeline};

/// Tasks a stream holds before whoever enqueues is made to wait. A stream that waits for a timeline takes more: the signal may come from the same thread.
const SLOTS: usize = 4096;

/// What a stream's thread and its users share.
pub struct Core {
    /// The device.
    pub chip: Arc<Chip>,
    /// Progress.
    pub line: Arc<Line>,
    /// Place of the queue among the device's.
    pub queue: usize,
    state: Mutex<State>,
    /// There is work, or the stream ends.
    filled: Condvar,
    /// Work was taken, or all is submitted.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// The thread is at work on tasks it took.
    running: bool,
    /// The thread waits for a timeline.
    blocked: bool,
    /// The thread sleeps until it is woken.
    asleep: bool,
    closing: bool,
    /// Ticket of the last submission.
    ticket: u64,
    /// First error since the last [`Core::drain`]. Work after it is skipped; signals carry it.
    error: Option<Error>,
}

impl Core {
    fn push(&self, task: Task) -> Result<()> {
        let full = |s: &mut State| s.tasks.len() >= SLOTS && !s.blocked;
        let mut state = self.freed.wait_while(lock(&self.state), full).unwrap_or_else(PoisonError::into_inner);
        state.tasks.push_back(task);
        if state.asleep {
            state.asleep = false;
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until nothing is left to do; the first error since the last call, which is forgotten by it.
    pub fn drain(&self) -> Result<()> {
        let mut state = self.freed.wait_while(lock(&self.state), |s| s.running || !s.tasks.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let (ticket, error) = (state.ticket, state.error.take());
        drop(state);
        let waited = self.line.wait(ticket, u64::MAX);
        self.chip.alive()?;
        waited?;
        error.map_or(Ok(()), Err)
    }

    fn is_idle(&self) -> Result<bool> {
        let state = lock(&self.state);
        Ok(!state.running && state.tasks.is_empty() && self.line.reached(state.ticket)?)
    }

    /// The next tasks into `taken`; false when the stream ends.
    pub fn take(&self, taken: &mut VecDeque<Task>) -> bool {
        let mut state = lock(&self.state);
        state.running = false;
        if state.tasks.is_empty() {
            self.freed.notify_all();
        }
        while state.tasks.is_empty() {
            if state.closing {
                return false;
            }
            state.asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
        let was_full = state.tasks.len() >= SLOTS;
        core::mem::swap(&mut state.tasks, taken);
        state.running = true;
        if was_full {
            self.freed.notify_all();
        }
        true
    }

    /// Whether more tasks came meanwhile.
    pub fn has_more(&self) -> bool {
        !lock(&self.state).tasks.is_empty()
    }

    /// Notes the last submission.
    pub fn submitted(&self, ticket: u64) {
        lock(&self.state).ticket = ticket;
    }

    /// Notes that the thread begins or ends to wait for a timeline.
    pub fn blocked(&self, blocked: bool) {
        lock(&self.state).blocked = blocked;
        self.freed.notify_all();
    }

    /// Notes an error; the first one stays.
    pub fn fail(&self, error: Error) {
        lock(&self.state).error.get_or_insert(error);
    }

    /// The error so far.
    pub fn error(&self) -> Option<Error> {
        lock(&self.state).error.clone()
    }

    /// The point all submitted work is done at.
    pub fn point(&self, ticket: u64) -> Point {
        Point { line: self.line.clone(), ticket }
    }
}

/// A stream.
pub struct VulkanStream {
    core: Arc<Core>,
    worker: Option<JoinHandle<()>>,
}

impl VulkanStream {
    /// Enqueues work of `extent` bytes or blocks; none is no work.
    pub(crate) fn push(&self, extent: u64, task: Task) -> Result<()> {
        if extent == 0 { Ok(()) } else { self.core.push(task) }
    }
}

impl Drop for VulkanStream {
    fn drop(&mut self) {
        lock(&self.core.state).closing = true;
        self.core.filled.notify_all();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        self.core.chip.queues[self.core.queue].streams.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Nothing here waits, but `sync_stream` and `sync_event`.
impl Streams for VulkanDevice {
    type Stream = VulkanStream;
    type Event = Arc<Timeline>;

    fn create_stream(&self, request: &StreamRequest) -> Result<VulkanStream> {
        if request.native != 0 {
            return Err(Error::unimplemented("a VkQueue belongs to one VkDevice and is used by one thread at a time, so none is wrapped; pass native = 0"));
        }
        self.chip.alive()?;
        // Priorities are a wish; Vulkan fixes those of its queues when the device is opened.
        let line = Arc::new(Line::new(self.chip.clone())?);
        let queue = self.chip.take_queue();
        let core = Arc::new(Core { chip: self.chip.clone(), line, queue, state: Mutex::default(), filled: Condvar::new(), freed: Condvar::new() });
        let own = core.clone();
        // What is a stream already when a step fails ends like one.
        let mut stream = VulkanStream { core, worker: None };
        let recorder = Recorder::new(own)?;
        let worker = std::thread::Builder::new().name("flagos-vulkan".into()).spawn(move || recorder.work());
        stream.worker = Some(worker.map_err(|e| Error::new(Code::RESOURCE_EXHAUSTED, format!("a stream needs a thread: {e}")))?);
        self.chip.register(&stream.core);
        Ok(stream)
    }

    fn sync_stream(&self, stream: &VulkanStream) -> Result<()> {
        stream.core.drain()?;
        instance::objections()
    }

    fn is_idle(&self, stream: &VulkanStream) -> Result<bool> {
        stream.core.is_idle()
    }

    fn create_event(&self) -> Result<Arc<Timeline>> {
        Ok(Arc::default())
    }

    fn signal(&self, stream: &VulkanStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.core.push(Task::Signal(event.clone(), value))
    }

    fn wait(&self, stream: &VulkanStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.core.push(Task::Wait(event.clone(), value))
    }

    fn event_value(&self, event: &Arc<Timeline>) -> Result<u64> {
        event.value()
    }

    fn sync_event(&self, event: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        event.sync(value, timeout_ns)?;
        instance::objections()
    }

    fn elapsed_ns(&self, event: &Arc<Timeline>, from: u64, to: u64) -> Result<u64> {
        event.elapsed_ns(&self.chip, from, to)
    }
}
