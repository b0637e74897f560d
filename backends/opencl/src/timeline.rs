//! Timelines: 64-bit counters over OpenCL's events, which know only "not yet", "done" and "failed".
//!
//! A signal is a marker command whose event the timeline keeps; whoever asks for the value looks at the events, so that a value is there as soon
//! as its work is done. A stream waits for a value by a barrier on the event of its signal. Where there is no such event yet, or where it belongs
//! to another context, the barrier waits for a user event, which a callback completes; callbacks are set for that and for waits with a time limit
//! alone, as each costs a call into the driver. Behind a wait that
//! failed, work runs all the same; the signals that follow and `sync` carry the error.
//!
//! No function of OpenCL that may run a callback is called under a lock a callback takes.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagos_backend_api::{Code, Error, Result};

use crate::driver::{Event, WAITED_FOR_FAILURE, failure};
use crate::stream::{Awaited, Queue};

/// Signals whose times are remembered for `elapsed_ns`.
const REMEMBERED: usize = 64;

/// A timeline.
#[derive(Default)]
pub struct Timeline {
    state: Mutex<State>,
    /// A value was reached, or a signal was enqueued.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    value: u64,
    /// The greatest value signalled, reached or not.
    promised: u64,
    /// Late error of the work before the last signal reached.
    error: Option<Error>,
    /// Signals not known to be done, in the order they were enqueued.
    pending: VecDeque<Signal>,
    /// Streams that wait for what has no event they could wait for.
    waiters: Vec<Waiter>,
    /// (value, device, time in ns) of the last signals.
    times: VecDeque<(u64, u64, u64)>,
}

struct Signal {
    value: u64,
    event: Event,
    queue: Arc<Queue>,
    /// Its position in the queue.
    position: u64,
    /// Whether a callback is set.
    watched: bool,
}

struct Waiter {
    value: u64,
    /// A user event in the context of the stream that waits, and how it went.
    awaited: Awaited,
}

impl Waiter {
    fn release(&self, status: i32) {
        if let Some(outcome) = self.awaited.outcome.as_ref().filter(|_| status < 0) {
            outcome.store(WAITED_FOR_FAILURE, Ordering::Release);
        }
        self.awaited.event.complete();
    }
}

impl State {
    /// Looks at the events of what was pending.
    fn poll(&mut self) {
        // The first queue with an unfinished signal: it works in order, so nothing behind it is done.
        let mut busy = None;
        let mut i = 0;
        while i < self.pending.len() {
            let signal = &self.pending[i];
            let status = if busy == Some(signal.queue.id()) { 1 } else { signal.event.status() };
            if status > 0 {
                busy.get_or_insert(signal.queue.id());
                i += 1;
            } else if let Some(done) = self.pending.remove(i) {
                self.raise(&done, status);
            }
        }
    }

    fn raise(&mut self, signal: &Signal, status: i32) {
        let failed = |status| signal.queue.chip.late(failure("the work before a signal failed", status));
        self.error = if status < 0 { Some(failed(status)) } else { signal.queue.error_before(signal.position) };
        self.value = self.value.max(signal.value);
        if let Some(ns) = signal.event.end_ns() {
            if self.times.len() == REMEMBERED {
                self.times.pop_front();
            }
            self.times.push_back((signal.value, signal.queue.chip.device.id(), ns));
        }
    }

    /// The signal that will bring `value`.
    fn bringer(&mut self, value: u64) -> Option<&mut Signal> {
        self.pending.iter_mut().find(|s| s.value >= value)
    }
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues: raise to `value`.
    pub fn signal(self: &Arc<Timeline>, queue: &Arc<Queue>, value: u64) -> Result<()> {
        let promised = self.lock().promised;
        if value <= promised {
            return Err(Error::invalid(format!("a signal of {value}: {promised} was signalled already; signal a greater value")));
        }
        let (event, position) = queue.mark()?;
        let mut state = self.lock();
        // Keeps the list as long as what is in flight, also where nobody asks for the value.
        while let Some(status) = state.pending.front().map(|s| s.event.status()).filter(|status| *status <= 0) {
            if let Some(done) = state.pending.pop_front() {
                state.raise(&done, status);
            }
        }
        let watched = state.waiters.iter().any(|w| w.value <= value);
        state.promised = state.promised.max(value);
        state.pending.push_back(Signal { value, event: event.clone(), queue: queue.clone(), position, watched });
        drop(state);
        self.changed.notify_all();
        if watched { self.watch(&event, value) } else { Ok(()) }
    }

    /// Has a callback release those who wait for `value` once `event`, its signal's, has ended.
    fn watch(self: &Arc<Timeline>, event: &Event, value: u64) -> Result<()> {
        let timeline = self.clone();
        event.on_end(move |status| timeline.ended(value, status))
    }

    /// Called by the driver: the signal of `value` has ended.
    fn ended(&self, value: u64, status: i32) {
        let mut state = self.lock();
        let (released, rest) = std::mem::take(&mut state.waiters).into_iter().partition(|w| w.value <= value);
        state.waiters = rest;
        drop(state);
        self.changed.notify_all();
        let released: Vec<Waiter> = released;
        released.iter().for_each(|w| w.release(status));
    }

    /// Enqueues: later work of the stream waits for `value`.
    pub fn hold(self: &Arc<Timeline>, queue: &Arc<Queue>, value: u64) -> Result<()> {
        let mut state = self.lock();
        state.poll();
        if state.value >= value {
            state.error.clone().into_iter().for_each(|e| queue.fail(e));
            return Ok(());
        }
        let bringer = state.bringer(value);
        match bringer {
            // A queue works in order: it need not wait for itself.
            Some(signal) if signal.queue.id() == queue.id() => Ok(()),
            Some(signal) if Arc::ptr_eq(&signal.queue.chip, &queue.chip) => {
                let event = signal.event.clone();
                drop(state);
                queue.hold(Awaited { event, outcome: None })
            }
            bringer => {
                let unwatched = bringer.filter(|s| !s.watched).map(|s| {
                    s.watched = true;
                    (s.event.clone(), s.value)
                });
                let awaited = Awaited { event: queue.chip.context.user_event()?, outcome: Some(Arc::default()) };
                state.waiters.push(Waiter { value, awaited: awaited.clone() });
                drop(state);
                // Held before the callback can be called, so that no wait is forgotten when the watch fails.
                queue.hold(awaited)?;
                unwatched.map_or(Ok(()), |(event, value)| self.watch(&event, value))
            }
        }
    }

    /// The value reached; the late error of the work before.
    pub fn value(&self) -> Result<u64> {
        let mut state = self.lock();
        state.poll();
        state.error.clone().map_or(Ok(state.value), Err)
    }

    /// Waits on the host until `value` is reached.
    pub fn reach(self: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        let started = Instant::now();
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        let mut state = self.lock();
        loop {
            state.poll();
            if state.value >= value {
                return state.error.clone().map_or(Ok(()), Err);
            }
            let left = timeout.map(|t| t.saturating_sub(started.elapsed()));
            if left == Some(Duration::ZERO) {
                let text = format!("the timeline stands at {} after {timeout_ns} ns, not at {value}", state.value);
                return Err(Error::new(Code::DEADLINE_EXCEEDED, text));
            }
            let limited = left.is_some();
            let bringer = state.bringer(value).map(|s| {
                let unwatched = limited && !s.watched;
                s.watched |= limited;
                (s.event.clone(), s.value, unwatched)
            });
            state = match (bringer, left) {
                (Some((event, ..)), None) => {
                    drop(state);
                    event.wait();
                    self.lock()
                }
                // The callback may come while it is being set, so it is set without the lock and the state is looked at again.
                (Some((event, brought, true)), Some(_)) => {
                    drop(state);
                    self.watch(&event, brought)?;
                    self.lock()
                }
                (_, Some(left)) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                (None, None) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Device time between two signals.
    pub fn elapsed_ns(&self, from: u64, to: u64) -> Result<u64> {
        let mut state = self.lock();
        state.poll();
        let at = |value: u64| {
            let found = state.times.iter().find(|(v, ..)| *v == value);
            found.ok_or_else(|| Error::invalid(format!("value {value} is not among the last {REMEMBERED} timed signals of the timeline")))
        };
        let ((_, device, from), (_, other, to)) = (*at(from)?, *at(to)?);
        if device != other {
            return Err(Error::invalid("the two values were signalled on different devices, whose clocks cannot be compared"));
        }
        Ok(to.saturating_sub(from))
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        // Nobody can signal any more. The contract has no stream wait now; one that does all the same shall fail, not hang.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.waiters.drain(..).for_each(|w| w.release(WAITED_FOR_FAILURE));
    }
}
