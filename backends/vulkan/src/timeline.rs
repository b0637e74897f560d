//! Timelines: an event's values, each tied to a point of the stream that signals it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ash::vk;
use flagos_backend_api::{Code, Error, Result};

use crate::device::Chip;
use crate::instance::{failed, lock};

/// Signals a timeline remembers for `elapsed_ns`.
const REMEMBERED: usize = 64;
/// Submissions of a stream whose time is kept.
const STAMPS: u64 = 1024;
/// Waits are cut into parts, so that the loss of the device is noticed whatever the driver does.
const PART_NS: u64 = 5_000_000_000;

/// The progress of one stream: a timeline semaphore that each submission raises to its ticket, and the times they ended at.
pub struct Line {
    chip: Arc<Chip>,
    /// The semaphore.
    pub raw: vk::Semaphore,
    /// Times by ticket; null where the queue has no clock.
    pub stamps: vk::QueryPool,
    done: AtomicU64,
    submitted: AtomicU64,
}

/// A submission of a stream.
#[derive(Clone)]
pub struct Point {
    /// The stream's progress.
    pub line: Arc<Line>,
    /// The value it reaches.
    pub ticket: u64,
}

impl Line {
    /// A stream's progress, at ticket 0.
    pub fn new(chip: Arc<Chip>) -> Result<Line> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let queries = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(STAMPS as u32);
        // SAFETY: the device is alive, the structs live for the calls.
        unsafe {
            let raw = chip.calls.raw.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None).map_err(|e| failed("creating a timeline semaphore", e))?;
            let stamps = if chip.clock_bits > 0 { chip.calls.raw.create_query_pool(&queries, None) } else { Ok(vk::QueryPool::null()) };
            let stamps = stamps.map_err(|e| {
                chip.calls.raw.destroy_semaphore(raw, None);
                failed("creating timestamps", e)
            })?;
            Ok(Line { chip, raw, stamps, done: AtomicU64::new(0), submitted: AtomicU64::new(0) })
        }
    }

    /// The query that holds a ticket's time.
    pub fn slot(ticket: u64) -> u32 {
        (ticket % STAMPS) as u32
    }

    /// Notes that a ticket was submitted.
    pub fn submitted(&self, ticket: u64) {
        self.submitted.store(ticket, Ordering::Release);
    }

    /// Whether a ticket is reached.
    pub fn reached(&self, ticket: u64) -> Result<bool> {
        if self.done.load(Ordering::Acquire) >= ticket {
            return Ok(true);
        }
        let now = self.chip.calls.counter(self.raw).map_err(|e| self.chip.failed("asking a timeline semaphore", e))?;
        self.done.fetch_max(now, Ordering::AcqRel);
        Ok(now >= ticket)
    }

    /// Waits for a submitted ticket; false when the time ran out. All ones: for ever.
    pub fn wait(&self, ticket: u64, timeout_ns: u64) -> Result<bool> {
        let mut left = timeout_ns;
        while !self.reached(ticket)? {
            self.chip.alive()?;
            let part = left.min(PART_NS);
            if self.chip.calls.wait(self.raw, ticket, part).map_err(|e| self.chip.failed("waiting for the device", e))? {
                self.done.fetch_max(ticket, Ordering::AcqRel);
                return Ok(true);
            }
            left = if left == u64::MAX { left } else { left - part };
            if left == 0 {
                return self.reached(ticket);
            }
        }
        Ok(true)
    }

    /// When a reached ticket's work ended, in ticks of the device's clock.
    fn stamp(&self, ticket: u64) -> Result<u64> {
        if self.stamps == vk::QueryPool::null() {
            return Err(Error::unimplemented("the device has no clock"));
        }
        if ticket + STAMPS <= self.submitted.load(Ordering::Acquire) {
            return Err(Error::invalid(format!("the signal is older than the last {STAMPS} submissions of its stream, whose times are kept")));
        }
        self.wait(ticket, u64::MAX)?;
        let mut ticks = [0u64];
        // WAIT waits for what has happened already: the semaphore alone does not promise that the host sees the result.
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: the pool is alive and has the slot; the ticket's commands, which wrote it, are over.
        let got = unsafe { self.chip.calls.raw.get_query_pool_results(self.stamps, Line::slot(ticket), &mut ticks, flags) };
        got.map_err(|e| self.chip.failed("reading a timestamp", e))?;
        Ok(ticks[0])
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // SAFETY: the stream that signals has finished, and submissions that wait held a share until they were over.
        unsafe {
            self.chip.calls.raw.destroy_semaphore(self.raw, None);
            self.chip.calls.raw.destroy_query_pool(self.stamps, None);
        }
    }
}

/// A signalled value.
struct Mark {
    value: u64,
    point: Point,
    /// Late error of the work before it.
    error: Option<Error>,
}

#[derive(Default)]
struct State {
    /// Signals handed to the device and not yet seen to be reached, by value.
    marks: VecDeque<Mark>,
    /// Greatest value handed to the device.
    last: u64,
    /// Greatest value seen to be reached, and the late error of the work before it.
    reached: u64,
    error: Option<Error>,
    times: VecDeque<(u64, Point)>,
}

/// A 64-bit timeline. It has no semaphore of its own: values are points of streams.
#[derive(Default)]
pub struct Timeline {
    state: Mutex<State>,
    raised: Condvar,
}

/// What a waiter has to wait for.
pub enum Ahead {
    /// Nothing: the value is reached; the late error of the work before it.
    Reached(Option<Error>),
    /// A submission, and the late error of the work before it.
    Submitted(Point, Option<Error>),
    /// The value was not handed to the device yet.
    Unknown,
}

impl State {
    /// Forgets marks that are reached.
    fn advance(&mut self) -> Result<()> {
        let mut failed = None;
        while let Some(mark) = self.marks.front() {
            match mark.point.line.reached(mark.point.ticket) {
                Ok(true) => {
                    (self.reached, self.error) = (mark.value, mark.error.clone());
                    self.marks.pop_front();
                }
                Ok(false) => break,
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn ahead(&self, value: u64) -> Ahead {
        if self.reached >= value {
            return Ahead::Reached(self.error.clone());
        }
        let mark = self.marks.iter().find(|m| m.value >= value);
        mark.map_or(Ahead::Unknown, |m| Ahead::Submitted(m.point.clone(), m.error.clone()))
    }
}

impl Timeline {
    /// Ties a value to a submission. A value that is not above the last one is the caller's mistake; the timeline does not fall for it.
    pub fn publish(&self, value: u64, point: Point, error: Option<Error>) {
        let mut state = lock(&self.state);
        if value <= state.last {
            return;
        }
        state.last = value;
        if state.times.len() == REMEMBERED {
            state.times.pop_front();
        }
        state.times.push_back((value, point.clone()));
        state.marks.push_back(Mark { value, point, error });
        // Keeps the list short where nobody asks; a lost device is told to whoever does.
        let _ = state.advance();
        self.raised.notify_all();
    }

    /// What lies before a value, now.
    pub fn ahead(&self, value: u64) -> Ahead {
        lock(&self.state).ahead(value)
    }

    /// What lies before a value, once it was handed to the device.
    pub fn ahead_when_known(&self, value: u64) -> Ahead {
        let state = self.raised.wait_while(lock(&self.state), |s| s.last < value).unwrap_or_else(PoisonError::into_inner);
        state.ahead(value)
    }

    /// The value reached; a late error of the work before it.
    pub fn value(&self) -> Result<u64> {
        let mut state = lock(&self.state);
        state.advance()?;
        state.error.clone().map_or(Ok(state.reached), Err)
    }

    /// Waits on the host.
    pub fn sync(&self, value: u64, timeout_ns: u64) -> Result<()> {
        let started = Instant::now();
        let left = || if timeout_ns == u64::MAX { u64::MAX } else { timeout_ns.saturating_sub(started.elapsed().as_nanos() as u64) };
        let state = lock(&self.state);
        let state = if timeout_ns == u64::MAX {
            self.raised.wait_while(state, |s| s.last < value).unwrap_or_else(PoisonError::into_inner)
        } else {
            self.raised.wait_timeout_while(state, Duration::from_nanos(timeout_ns), |s| s.last < value).unwrap_or_else(PoisonError::into_inner).0
        };
        let ahead = state.ahead(value);
        drop(state);
        let error = match ahead {
            Ahead::Reached(error) => error,
            Ahead::Submitted(point, error) if point.line.wait(point.ticket, left())? => error,
            _ => {
                let text = format!("the timeline stands at {} after {timeout_ns} ns, not at {value}", self.value()?);
                return Err(Error::new(Code::DEADLINE_EXCEEDED, text));
            }
        };
        error.map_or(Ok(()), Err)
    }

    /// Device time between two signals in ns.
    pub fn elapsed_ns(&self, chip: &Chip, from: u64, to: u64) -> Result<u64> {
        let at = |value: u64| {
            let found = lock(&self.state).times.iter().find(|(v, _)| *v == value).map(|(_, p)| p.clone());
            let point = found.ok_or_else(|| Error::invalid(format!("value {value} is not among the last {REMEMBERED} signals of the timeline")))?;
            point.line.stamp(point.ticket)
        };
        let mask = if chip.clock_bits >= 64 { u64::MAX } else { (1 << chip.clock_bits) - 1 };
        let ticks = at(to)?.wrapping_sub(at(from)?) & mask;
        Ok((ticks as f64 * f64::from(chip.physical.properties.core.limits.timestamp_period)) as u64)
    }
}
