//! A queue and the thread that works it off: what a driver and its chip do. Replace: nothing, delete it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use flagos_backend_api::{Code, Error, Result};

use crate::fault;
use crate::memory::Block;
use crate::plan::Launch;
use crate::stream::Timeline;

/// Tasks a queue holds. A full one makes the caller wait, as drivers do.
const SLOTS: usize = 256;

/// A byte of device memory.
#[derive(Clone)]
pub struct Place {
    /// Memory, kept alive by the task.
    pub block: Arc<Block>,
    /// Byte within it.
    pub offset: u64,
}

/// A host address in a task; the host keeps the range valid until the task is over.
pub struct HostAddress(pub *mut u8);

// SAFETY: an address may be sent; the contract has the host leave the range alone until the stream passed the task.
unsafe impl Send for HostAddress {}

/// One piece of work. It owns what it needs, so that nothing has to be allocated to enqueue it: that is also why launches are not boxed.
#[allow(clippy::large_enum_variant)]
pub enum Task {
    /// A planned call.
    Launch(Launch),
    /// Device to host.
    Read {
        /// From.
        src: Place,
        /// To.
        dst: HostAddress,
        /// How many.
        bytes: u64,
    },
    /// Host to device.
    Write {
        /// To.
        dst: Place,
        /// From.
        src: HostAddress,
        /// How many.
        bytes: u64,
    },
    /// Device to device.
    Copy {
        /// To.
        dst: Place,
        /// From.
        src: Place,
        /// How many.
        bytes: u64,
    },
    /// Fill with the first `length` bytes of `pattern`, again and again.
    Fill {
        /// To.
        dst: Place,
        /// Pattern.
        pattern: [u8; 16],
        /// Its length.
        length: usize,
        /// How many.
        bytes: u64,
    },
    /// Raise a timeline.
    Signal(Arc<Timeline>, u64),
    /// Wait for a timeline.
    Wait(Arc<Timeline>, u64),
}

/// An in-order queue.
pub struct Queue {
    state: Mutex<State>,
    /// There is work, or the queue closes.
    filled: Condvar,
    /// A slot or the whole queue became free.
    freed: Condvar,
}

struct State {
    tasks: VecDeque<Task>,
    running: bool,
    closing: bool,
    /// First error since the last [`Queue::drain`]. Work after it is skipped; signals carry it.
    error: Option<Error>,
}

impl Queue {
    /// A queue and its thread.
    pub fn start() -> Result<(Arc<Queue>, JoinHandle<()>)> {
        let state = State { tasks: VecDeque::with_capacity(SLOTS), running: false, closing: false, error: None };
        let queue = Arc::new(Queue { state: Mutex::new(state), filled: Condvar::new(), freed: Condvar::new() });
        let own = queue.clone();
        let worker = std::thread::Builder::new().name("flagos-null".into()).spawn(move || own.work());
        let worker = worker.map_err(|e| Error::new(Code::RESOURCE_EXHAUSTED, format!("a stream needs a thread: {e}")))?;
        Ok((queue, worker))
    }

    /// Appends a task.
    pub fn push(&self, task: Task) {
        let mut state = self.freed.wait_while(self.lock(), |s| s.tasks.len() == SLOTS).unwrap_or_else(PoisonError::into_inner);
        state.tasks.push_back(task);
        self.filled.notify_one();
    }

    /// Waits until nothing is left to do; the first error since the last call, which is forgotten by it.
    pub fn drain(&self) -> Result<()> {
        let mut state = self.freed.wait_while(self.lock(), |s| s.running || !s.tasks.is_empty()).unwrap_or_else(PoisonError::into_inner);
        state.error.take().map_or(Ok(()), Err)
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        !state.running && state.tasks.is_empty()
    }

    /// Lets the thread end once all work is done.
    pub fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.filled.wait_while(self.lock(), |s| s.tasks.is_empty() && !s.closing).unwrap_or_else(PoisonError::into_inner);
            fault::next(&mut state.tasks);
            let Some(task) = state.tasks.pop_front() else { return };
            state.running = true;
            let before = state.error.clone();
            drop(state);
            let failed = catch_unwind(AssertUnwindSafe(|| task.run(before.as_ref())));
            let failed = failed.unwrap_or_else(|_| Err(Error::new(Code::PLUGIN_PANIC, "a task of the null device panicked")));
            // What the task held is released before the queue can look idle.
            drop(task);
            let mut state = self.lock();
            state.running = false;
            if let Err(e) = failed {
                state.error.get_or_insert(e);
            }
            self.freed.notify_all();
        }
    }
}

impl Task {
    /// `before`: the error of the work before, after which only timelines move.
    fn run(&self, before: Option<&Error>) -> Result<()> {
        match self {
            Task::Signal(timeline, value) => timeline.raise(*value, before.cloned()),
            Task::Wait(timeline, value) => timeline.reach(*value)?,
            _ if before.is_some() => {}
            Task::Launch(launch) => launch.run()?,
            // SAFETY (of the four): the glue checked the ranges of buffers, the host vouches for its own and for the order of streams.
            Task::Read { src, dst, bytes } => {
                // SAFETY: as above.
                unsafe { src.block.read(src.offset, *bytes).as_ptr().copy_to(dst.0, *bytes as usize) };
            }
            Task::Write { dst, src, bytes } => {
                // SAFETY: as above.
                unsafe { dst.block.write(dst.offset, *bytes).as_mut_ptr().copy_from(src.0, *bytes as usize) };
            }
            Task::Copy { dst, src, bytes } => {
                // SAFETY: as above.
                unsafe { dst.block.write(dst.offset, *bytes).as_mut_ptr().copy_from(src.block.read(src.offset, *bytes).as_ptr(), *bytes as usize) };
            }
            Task::Fill { dst, pattern, length, bytes } => {
                // SAFETY: as above.
                let range = unsafe { dst.block.write(dst.offset, *bytes) };
                range.chunks_mut(*length).for_each(|c| c.copy_from_slice(&pattern[..c.len()]));
            }
        }
        Ok(())
    }
}
