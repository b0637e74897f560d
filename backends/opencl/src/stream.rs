//! Streams: in-order command queues, and what is remembered of them to answer without waiting.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Error, Result};

use crate::device::{Chip, OpenClDevice};
use crate::driver::{self, Event, cl, failure};
use crate::timeline::Timeline;

/// Commands after which the driver is told to begin. Drivers gather commands until then; the device would lie idle while the host enqueues on.
const GATHERED: u32 = 16;

/// A command queue.
pub struct Queue {
    raw: driver::Queue,
    /// The device it belongs to.
    pub chip: Arc<Chip>,
    imported: bool,
    /// Whether commands may overtake each other unless they are kept from it.
    out_of_order: bool,
    state: Mutex<State>,
}

/// What a queue waits for.
#[derive(Clone)]
pub struct Awaited {
    /// Its completion.
    pub event: Event,
    /// How it went where the event is a user's: 0, or a code below 0, there before the event completes.
    pub outcome: Option<Arc<AtomicI32>>,
}

impl Awaited {
    /// As the status of an event.
    fn status(&self) -> i32 {
        match (self.event.status(), &self.outcome) {
            (0, Some(outcome)) => outcome.load(Ordering::Acquire),
            (status, _) => status,
        }
    }
}

#[derive(Default)]
struct State {
    /// Commands since the last flush.
    gathered: u32,
    /// Whether there were commands since `tail`.
    dirty: bool,
    /// A marker behind the last command, made when somebody asks whether the queue is idle.
    tail: Option<Event>,
    /// Counts waits and signals, to tell what comes after what.
    position: u64,
    /// What is waited for and not known to be over, by position. Drivers differ in what becomes of a barrier behind a failure, so the cause is looked at.
    waits: Vec<(u64, Awaited)>,
    /// The first failed wait since the last `finish`. Work after it is void; signals behind it carry the error.
    late: Option<(u64, Error)>,
}

impl State {
    /// Looks at the waits that ended.
    fn settle(&mut self) {
        let mut failed = None;
        self.waits.retain(|(position, awaited)| match awaited.status() {
            0 => false,
            status if status < 0 => {
                failed.get_or_insert((*position, status));
                false
            }
            _ => true,
        });
        if let (None, Some((position, status))) = (&self.late, failed) {
            let e = failure("the work that this stream waits for failed", status);
            self.late = Some((position, Error { code: flagos_backend_api::Code::ABORTED, ..e }));
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells queues apart.
    pub fn id(&self) -> u64 {
        self.raw.raw()
    }

    /// Enqueues commands.
    pub fn enqueue(&self, commands: impl FnOnce(&driver::Queue) -> Result<()>) -> Result<()> {
        self.chip.alive()?;
        commands(&self.raw)?;
        if self.out_of_order {
            self.raw.fence()?;
        }
        let mut state = self.lock();
        state.dirty = true;
        state.gathered += 1;
        if state.gathered >= GATHERED {
            state.gathered = 0;
            self.raw.flush()?;
        }
        Ok(())
    }

    /// An event behind everything enqueued so far, on its way to the device, and its position.
    pub fn mark(&self) -> Result<(Event, u64)> {
        self.chip.alive()?;
        let event = self.raw.marker()?;
        if self.out_of_order {
            self.raw.fence()?;
        }
        self.raw.flush()?;
        let mut state = self.lock();
        state.gathered = 0;
        state.position += 1;
        Ok((event, state.position))
    }

    /// Later commands wait for an event of the same context.
    pub fn hold(&self, awaited: Awaited) -> Result<()> {
        self.chip.alive()?;
        self.raw.barrier(&awaited.event)?;
        let mut state = self.lock();
        state.settle();
        state.position += 1;
        let position = state.position;
        state.waits.push((position, awaited));
        state.dirty = true;
        Ok(())
    }

    /// Later work is void: what it would wait for has failed already.
    pub fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.position += 1;
        let position = state.position;
        state.late.get_or_insert((position, error));
    }

    /// The failed wait before a position, if there was one.
    pub fn error_before(&self, position: u64) -> Option<Error> {
        let mut state = self.lock();
        state.settle();
        state.late.as_ref().filter(|(at, _)| *at < position).map(|(_, e)| e.clone())
    }

    /// Waits until the queue is idle; the first late error since the last call, which is forgotten by it.
    pub fn finish(&self) -> Result<()> {
        let finished = self.raw.finish();
        let mut state = self.lock();
        (state.dirty, state.gathered, state.tail) = (false, 0, None);
        state.settle();
        let late = state.late.take();
        drop(state);
        match (late, finished) {
            (Some((_, e)), _) => Err(e),
            (None, finished) => finished.map_err(|e| self.chip.late(e)),
        }
    }

    fn is_idle(&self) -> Result<bool> {
        self.chip.alive()?;
        let mut state = self.lock();
        if state.dirty {
            let tail = self.raw.marker()?;
            self.raw.flush()?;
            (state.dirty, state.gathered, state.tail) = (false, 0, Some(tail));
        }
        // A failed command is over, too; `sync` tells.
        let idle = state.tail.as_ref().is_none_or(|tail| tail.status() <= 0);
        if idle {
            state.tail = None;
        }
        Ok(idle)
    }
}

/// A stream: what the host's handle holds.
pub struct OpenClStream(pub(crate) Arc<Queue>);

impl OpenClStream {
    /// Enqueues commands, if there is work.
    #[inline]
    pub(crate) fn enqueue(&self, work: bool, commands: impl FnOnce(&driver::Queue) -> Result<()>) -> Result<()> {
        if work { self.0.enqueue(commands) } else { Ok(()) }
    }
}

impl Drop for OpenClStream {
    fn drop(&mut self) {
        // Errors of a stream nobody looks at any more are told by the timelines it signalled.
        let _ = if self.0.imported { self.0.raw.flush() } else { self.0.raw.finish() };
    }
}

/// Nothing here waits, but `sync_stream` and `sync_event`.
impl Streams for OpenClDevice {
    type Stream = OpenClStream;
    type Event = Arc<Timeline>;

    fn create_stream(&self, request: &StreamRequest) -> Result<OpenClStream> {
        self.chip.alive()?;
        // Priorities are a wish that OpenCL 1.2 does not know.
        let (raw, properties) = match request.native {
            0 => (self.chip.context.queue(self.chip.device)?, 0),
            // SAFETY: the contract has the host pass a live queue, which outlives the stream.
            native => unsafe { self.chip.context.adopt_queue(self.chip.device, native) }?,
        };
        let out_of_order = properties & cl::CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE != 0;
        if out_of_order {
            // Its owner's commands come first.
            raw.fence()?;
        }
        // What the owner enqueued counts as work.
        let state = State { dirty: request.native != 0, ..State::default() };
        let queue = Arc::new(Queue { raw, chip: self.chip.clone(), imported: request.native != 0, out_of_order, state: Mutex::new(state) });
        self.chip.register(&queue);
        Ok(OpenClStream(queue))
    }

    fn sync_stream(&self, stream: &OpenClStream) -> Result<()> {
        stream.0.finish()
    }

    fn is_idle(&self, stream: &OpenClStream) -> Result<bool> {
        stream.0.is_idle()
    }

    fn native_stream(&self, stream: &OpenClStream) -> Result<u64> {
        Ok(stream.0.id())
    }

    fn create_event(&self) -> Result<Arc<Timeline>> {
        Ok(Arc::default())
    }

    fn signal(&self, stream: &OpenClStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        event.signal(&stream.0, value)
    }

    fn wait(&self, stream: &OpenClStream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        event.hold(&stream.0, value)
    }

    fn event_value(&self, event: &Arc<Timeline>) -> Result<u64> {
        event.value()
    }

    fn sync_event(&self, event: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        event.reach(value, timeout_ns)
    }

    fn elapsed_ns(&self, event: &Arc<Timeline>, from: u64, to: u64) -> Result<u64> {
        event.elapsed_ns(from, to)
    }
}
