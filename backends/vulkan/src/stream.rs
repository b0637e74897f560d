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

#[cfg(test)]
mod tests {
    use flagos_backend_api::vendor::{AllocRequest, Backend, Device, Memory};
    use flagos_backend_api::MemoryKind;

    use super::*;
    use crate::Vulkan;

    fn open() -> Option<VulkanDevice> {
        let found = Vulkan::probe().map(|list| list.iter().position(|p| p.score > 0));
        let Ok(Some(ordinal)) = found else {
            let allowed = std::env::var("FLAGOS_ALLOW_NO_VULKAN").is_ok_and(|v| v == "1");
            assert!(allowed, "no usable Vulkan device (FLAGOS_ALLOW_NO_VULKAN=1 lets tests pass without): {found:?}");
            return None;
        };
        Some(Vulkan::open(ordinal as u32).unwrap())
    }

    /// One test, since a lost device is lost to every test that has it open.
    #[test]
    fn late_errors_are_carried_and_told_once_and_a_lost_device_stays_lost() {
        let Some(device) = open() else { return };
        let plain = StreamRequest { priority: 0, native: 0 };
        let (first, second) = (device.create_stream(&plain).unwrap(), device.create_stream(&plain).unwrap());
        let buffer = device.alloc(&AllocRequest { bytes: 4096, alignment_bytes: 0, kind: MemoryKind::DEVICE }).unwrap();
        let (one, two) = (device.create_event().unwrap(), device.create_event().unwrap());
        let fill = |stream: &VulkanStream, value: u8| device.fill(stream, &buffer, 0, &[value], 4096).unwrap();
        let read = |stream: &VulkanStream| {
            let mut byte = [0u8; 1];
            // SAFETY: the byte lives until the stream was waited for.
            unsafe { device.read(stream, &buffer, 100, byte.as_mut_ptr(), 1) }.unwrap();
            device.sync_stream(stream).map(|()| byte[0])
        };
        fill(&first, 1);
        assert_eq!(read(&first), Ok(1));

        first.core.fail(Error::new(Code::INTERNAL, "planted"));
        fill(&first, 2);
        device.signal(&first, &one, 1).unwrap();
        assert_eq!(device.sync_event(&one, 1, u64::MAX).unwrap_err().message, "planted");
        assert_eq!(device.event_value(&one).unwrap_err().message, "planted");
        device.wait(&second, &one, 1).unwrap();
        fill(&second, 3);
        device.signal(&second, &two, 1).unwrap();
        assert_eq!(device.sync_event(&two, 1, u64::MAX).unwrap_err().message, "planted", "who waits is poisoned");
        assert_eq!(device.sync_stream(&second).unwrap_err().message, "planted");
        assert_eq!(device.sync().unwrap_err().message, "planted", "the first stream's, told by the device");
        assert_eq!(read(&first), Ok(1), "work after the error was skipped; then the stream works again");
        device.signal(&first, &one, 2).unwrap();
        device.sync_event(&one, 2, u64::MAX).unwrap();
        assert_eq!(device.event_value(&one), Ok(2));

        device.chip.failed("planted", ash::vk::Result::ERROR_DEVICE_LOST);
        fill(&first, 4);
        device.signal(&first, &one, 3).unwrap();
        for _ in 0..2 {
            assert_eq!(device.sync_event(&one, 3, u64::MAX).unwrap_err().code, Code::DEVICE_LOST);
            assert_eq!(device.sync_stream(&first).unwrap_err().code, Code::DEVICE_LOST);
            assert_eq!(device.sync().unwrap_err().code, Code::DEVICE_LOST);
        }
        let request = AllocRequest { bytes: 1, alignment_bytes: 0, kind: MemoryKind::DEVICE };
        assert_eq!(device.alloc(&request).err().unwrap().code, Code::DEVICE_LOST);
        assert_eq!(device.create_stream(&plain).err().unwrap().code, Code::DEVICE_LOST);
        drop((first, second, buffer, one, two, device));
        let again = open().unwrap();
        let stream = again.create_stream(&plain).unwrap();
        assert_eq!(again.sync_stream(&stream), Ok(()));
    }
}
