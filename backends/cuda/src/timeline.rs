//! Timelines: a word of pinned memory that streams raise, and a driver event per signal.
//!
//! The word makes asking and waiting on the host cheap, and lets a stream wait for a value nobody has signalled yet. The events order streams for
//! values that were signalled already, are what graph capture understands, and measure time. Each signal writes both, the event first.
//!
//! A stream that is being captured raises nothing: its signals become edges of the graph, for waits within the same capture.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cudarc::driver::sys;
use flagos_backend_api::{Code, Error, Result};

use crate::device::{Chip, lock};
use crate::driver::{Shared, check};
use crate::stream::CudaStream;

/// Signals a timeline remembers for `elapsed_ns`.
const REMEMBERED: usize = 64;
/// Bytes of a word: a cache line, so that timelines do not disturb each other.
const WORD_BYTES: usize = 64;
/// Words taken from the driver at once.
const PAGE_BYTES: usize = 64 << 10;
/// A host wait looks at the word without a pause for so long, then gives the processor away, then sleeps.
const SPIN: Duration = Duration::from_micros(30);
const YIELD: Duration = Duration::from_micros(200);
const SLEEP: Duration = Duration::from_micros(50);
/// Sleeps between two looks for late errors.
const PATIENCE: u32 = 20;

/// Words of pinned memory for timelines.
#[derive(Default)]
pub struct Words {
    pages: Vec<Shared<*mut u8>>,
    free: Vec<Shared<*mut u8>>,
    /// Given back while a signal was on its way: free once the word has the value.
    busy: Vec<(Shared<*mut u8>, u64)>,
}

/// The word at an address from [`Words`].
fn word(address: Shared<*mut u8>) -> &'static AtomicU64 {
    // SAFETY: pages of words live as long as their chip, which every timeline keeps alive; words are 64 bytes apart and aligned to that.
    unsafe { &*address.0.cast::<AtomicU64>() }
}

impl Words {
    /// A word at 0. The context is current.
    fn take(&mut self) -> Result<Shared<*mut u8>> {
        let free = &mut self.free;
        self.busy.retain(|(address, value)| {
            let reached = word(*address).load(Ordering::Acquire) >= *value;
            if reached {
                free.push(*address);
            }
            !reached
        });
        if self.free.is_empty() {
            let mut page = core::ptr::null_mut();
            let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
            // SAFETY: the context is current; the place is writable.
            check(unsafe { sys::cuMemHostAlloc(&mut page, PAGE_BYTES, flags) }, "cuMemHostAlloc")?;
            let page: *mut u8 = page.cast();
            self.pages.push(Shared(page));
            self.free.extend((0..PAGE_BYTES).step_by(WORD_BYTES).map(|at| Shared(page.wrapping_add(at))));
        }
        let address = self.free.pop().ok_or_else(|| Error::new(Code::INTERNAL, "a page of words has no word"))?;
        word(address).store(0, Ordering::Release);
        Ok(address)
    }

    /// Gives the pages back. The context is current, and no timeline is left.
    pub fn clear(&mut self) {
        for page in std::mem::take(self).pages {
            // SAFETY: the page came from `cuMemHostAlloc`; nothing points into it any more.
            unsafe { sys::cuMemFreeHost(page.0.cast()) };
        }
    }
}

/// A timeline.
pub struct Timeline {
    word: Shared<*mut u8>,
    state: Mutex<State>,
    chip: Arc<Chip>,
}

struct Signal {
    value: u64,
    event: Shared<sys::CUevent>,
}

#[derive(Default)]
struct State {
    /// The last value signalled, reached or not.
    last: u64,
    /// The stream that signalled it.
    stream: usize,
    /// Signals, oldest first; those not reached are never dropped.
    signals: VecDeque<Signal>,
    /// Signals within captures.
    captured: VecDeque<Signal>,
}

fn destroy(event: Shared<sys::CUevent>) {
    // SAFETY: the event was made by its timeline and is not used again; the driver keeps it until what waits for it has passed.
    unsafe { sys::cuEventDestroy_v2(event.0) };
}

fn order(stream: &CudaStream, event: Shared<sys::CUevent>) -> Result<()> {
    // SAFETY: both objects are alive.
    check(unsafe { sys::cuStreamWaitEvent(stream.raw(), event.0, 0) }, "cuStreamWaitEvent")
}

impl Timeline {
    pub(crate) fn new(chip: &Arc<Chip>) -> Result<Timeline> {
        chip.alive()?;
        let _aside = chip.enter_aside()?;
        let word = lock(&chip.words).take()?;
        Ok(Timeline { word, state: Mutex::default(), chip: chip.clone() })
    }

    fn reached(&self) -> u64 {
        word(self.word).load(Ordering::Acquire)
    }

    /// An event for a signal of `stream`'s device, recorded on it: the oldest one nobody can ask for any more, or a new one.
    fn record(&self, list: &mut VecDeque<Signal>, reusable: impl Fn(&Signal) -> bool, stream: &CudaStream, value: u64) -> Result<()> {
        let reuse = list.len() >= REMEMBERED && list.front().is_some_and(reusable);
        let event = match reuse.then(|| list.pop_front()).flatten() {
            Some(old) => old.event,
            None => {
                let mut raw = core::ptr::null_mut();
                // SAFETY: the context is current; the place is writable.
                check(unsafe { sys::cuEventCreate(&mut raw, sys::CUevent_flags::CU_EVENT_DEFAULT as u32) }, "cuEventCreate")?;
                Shared(raw)
            }
        };
        // SAFETY: both objects are alive.
        let recorded = check(unsafe { sys::cuEventRecord(event.0, stream.raw()) }, "cuEventRecord");
        match recorded {
            Ok(()) => list.push_back(Signal { value, event }),
            Err(_) => destroy(event),
        }
        recorded
    }

    pub(crate) fn signal(&self, chip: &Chip, stream: &CudaStream, value: u64) -> Result<()> {
        let mut state = lock(&self.state);
        if value <= state.last {
            return Err(Error::invalid(format!("value {value} was signalled on a timeline that was told {} before; values only rise", state.last)));
        }
        if chip.ordinal != self.chip.ordinal {
            let (own, other) = (self.chip.ordinal, chip.ordinal);
            return Err(Error::invalid(format!("a timeline of device {own} cannot be signalled from a stream of device {other}; create one there")));
        }
        let _aside = chip.enter_aside()?;
        if stream.is_capturing()? {
            return self.record(&mut state.captured, |_| true, stream, value);
        }
        let key = stream.raw() as usize;
        // A later value stands for every earlier one, so signals of different streams are ordered.
        if state.stream != key
            && self.reached() < state.last
            && let Some(last) = state.signals.back()
        {
            order(stream, last.event)?;
        }
        self.record(&mut state.signals, |old| old.value <= self.reached(), stream, value)?;
        if chip.waits_for_memory {
            // SAFETY: the word is pinned memory, visible to the device at the host's address; the write comes after all work before it.
            check(unsafe { sys::cuStreamWriteValue64_v2(stream.raw(), self.word.0 as u64, value, 0) }, "cuStreamWriteValue64")?;
        } else {
            self.raise_by_host(stream, value)?;
        }
        (state.last, state.stream) = (value, key);
        Ok(())
    }

    /// Raises the word from a thread of the driver's, on devices whose streams cannot write memory.
    fn raise_by_host(&self, stream: &CudaStream, value: u64) -> Result<()> {
        unsafe extern "C" fn raise(task: *mut core::ffi::c_void) {
            // SAFETY: the box made below, used once.
            let task = unsafe { Box::from_raw(task.cast::<(Shared<*mut u8>, u64)>()) };
            word(task.0).fetch_max(task.1, Ordering::AcqRel);
        }
        let task = Box::into_raw(Box::new((self.word, value)));
        // SAFETY: the driver calls back once, with the box; the word outlives it, as words in flight are not given to others.
        let enqueued = check(unsafe { sys::cuLaunchHostFunc(stream.raw(), Some(raise), task.cast()) }, "cuLaunchHostFunc");
        if enqueued.is_err() {
            // SAFETY: the driver did not take it.
            drop(unsafe { Box::from_raw(task) });
        }
        enqueued
    }

    pub(crate) fn wait(&self, chip: &Chip, stream: &CudaStream, value: u64) -> Result<()> {
        self.chip.alive()?;
        if self.reached() >= value {
            return Ok(());
        }
        let state = lock(&self.state);
        let _aside = chip.enter_aside()?;
        if stream.is_capturing()? {
            let edge = state.captured.iter().rev().find(|s| s.value == value).map(|s| s.event);
            let text = || format!("a captured stream cannot wait for value {value}, which was not signalled in the same capture; wait for it before the capture begins");
            return order(stream, edge.ok_or_else(|| Error::new(Code::FAILED_PRECONDITION, text()))?);
        }
        if let Some(signal) = state.signals.iter().find(|s| s.value >= value) {
            return order(stream, signal.event);
        }
        drop(state);
        if !chip.waits_for_memory {
            return Err(Error::unimplemented(format!("streams of this device cannot wait for value {value} before it is signalled; signal first")));
        }
        // The driver compares in a circle of 2^64.
        if value - self.reached() > i64::MAX as u64 {
            return Err(Error::invalid(format!("a stream cannot wait for value {value} from {}: at most 2^63 - 1 lie between", self.reached())));
        }
        let flags = sys::CUstreamWaitValue_flags_enum::CU_STREAM_WAIT_VALUE_GEQ as u32;
        // SAFETY: the word is pinned memory, visible to every device at the host's address.
        check(unsafe { sys::cuStreamWaitValue64_v2(stream.raw(), self.word.0 as u64, value, flags) }, "cuStreamWaitValue64")?;
        stream.mark_wait_ahead()
    }

    pub(crate) fn value(&self) -> Result<u64> {
        self.chip.alive()?;
        let (value, state) = (self.reached(), lock(&self.state));
        if value < state.last {
            self.late_error(&state)?;
        }
        Ok(value)
    }

    /// Asks the driver whether the work before the oldest signal not reached ended in an error.
    fn late_error(&self, state: &State) -> Result<()> {
        let reached = self.reached();
        let Some(next) = state.signals.iter().find(|s| s.value > reached) else { return Ok(()) };
        let _aside = self.chip.enter_aside()?;
        // SAFETY: the event is alive.
        match unsafe { sys::cuEventQuery(next.event.0) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(()),
            answer => self.chip.told(check(answer, "cuEventQuery")),
        }
    }

    pub(crate) fn sync(&self, value: u64, timeout_ns: u64) -> Result<()> {
        let (started, mut sleeps) = (Instant::now(), 0u32);
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        loop {
            if self.reached() >= value {
                return Ok(());
            }
            let waited = started.elapsed();
            if timeout.is_some_and(|t| waited >= t) {
                self.chip.alive()?;
                let text = format!("the timeline stands at {} after {timeout_ns} ns, not at {value}", self.reached());
                return Err(Error::new(Code::DEADLINE_EXCEEDED, text));
            }
            if waited < SPIN {
                core::hint::spin_loop();
            } else if waited < YIELD {
                std::thread::yield_now();
            } else {
                if sleeps.is_multiple_of(PATIENCE) {
                    self.chip.alive()?;
                    self.late_error(&lock(&self.state))?;
                }
                sleeps += 1;
                std::thread::sleep(timeout.map_or(SLEEP, |t| SLEEP.min(t.saturating_sub(waited))));
            }
        }
    }

    pub(crate) fn elapsed_ns(&self, from: u64, to: u64) -> Result<u64> {
        let state = lock(&self.state);
        let at = |value: u64| {
            let found = state.signals.iter().find(|s| s.value == value).map(|s| s.event.0);
            found.ok_or_else(|| Error::invalid(format!("value {value} is not among the last {REMEMBERED} signals of the timeline")))
        };
        let (from, to) = (at(from)?, at(to)?);
        let _aside = self.chip.enter_aside()?;
        let mut ms = 0f32;
        // SAFETY: both events are alive and were recorded; the place is writable.
        match unsafe { sys::cuEventElapsedTime_v2(&mut ms, from, to) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => {
                Err(Error::new(Code::FAILED_PRECONDITION, "the later signal is not reached yet; wait for it before asking for the time"))
            }
            answer => self.chip.told(check(answer, "cuEventElapsedTime")).map(|()| (f64::from(ms) * 1e6) as u64),
        }
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Ok(_aside) = self.chip.enter_aside() {
            state.signals.drain(..).chain(state.captured.drain(..)).for_each(|s| destroy(s.event));
        }
        let last = state.last;
        let reached = self.reached() >= last;
        let mut words = lock(&self.chip.words);
        if reached { words.free.push(self.word) } else { words.busy.push((self.word, last)) }
    }
}
