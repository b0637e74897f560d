//! Fallback: a call runs on another device, with explicit copies that are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use flagos_backend_api::{Error, Result};

use crate::memory::Buffer;
use crate::plan::{Operand, Plan, PlanInner, Scalars};
use crate::stream::Stream;

/// What fallbacks cost a runtime so far.
#[derive(Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    bytes: AtomicU64,
    ns: AtomicU64,
}

/// A reading of the fallback counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FallbackStatistics {
    /// Launches that ran on another device.
    pub calls: u64,
    /// Bytes copied for them, both ways.
    pub bytes: u64,
    /// Host time spent in them, in nanoseconds.
    pub ns: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> FallbackStatistics {
        FallbackStatistics {
            calls: self.calls.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ns: self.ns.load(Ordering::Relaxed),
        }
    }
}

/// The other device's plan and its memory. One launch at a time; others wait.
pub(crate) struct FallbackPlan {
    pub(crate) plan: Plan,
    stage: Mutex<Stage>,
}

struct Stage {
    stream: Stream,
    buffers: Vec<Option<Buffer>>,
    host: Vec<u8>,
}

impl FallbackPlan {
    /// Prepares memory on the other device for every operand of `plan`.
    pub(crate) fn new(plan: Plan) -> Result<FallbackPlan> {
        let device = plan.device();
        let buffers = plan.spans().iter().map(|s| if s.is_empty() { Ok(None) } else { device.alloc((s.high - s.low) as u64).map(Some) });
        let buffers = buffers.collect::<Result<Vec<_>>>()?;
        let longest = plan.spans().iter().map(|s| (s.high - s.low) as usize).max().unwrap_or(0);
        let stage = Stage { stream: device.stream()?, buffers, host: vec![0; longest] };
        Ok(FallbackPlan { plan, stage: Mutex::new(stage) })
    }

    /// Copies operands over, runs, copies results back, waits.
    ///
    /// # Safety
    /// As [`Plan::launch_scaled`].
    pub(crate) unsafe fn launch(&self, outer: &PlanInner, stream: &Stream, operands: &[Operand], scalars: Scalars) -> Result<()> {
        let started = Instant::now();
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let Stage { stream: inner, buffers, host } = &mut *stage;
        let spans = self.plan.spans();
        let mut moved = 0u64;
        for ((span, operand), buffer) in spans.iter().zip(operands).zip(&*buffers) {
            let (Some((source, offset)), Some(buffer)) = (operand, buffer) else { continue };
            let host = &mut host[..(span.high - span.low) as usize];
            // Outputs travel too: bytes between strided elements must survive.
            stream.read(source, offset.wrapping_add_signed(span.low), host)?;
            inner.write(buffer, 0, host)?;
            moved += host.len() as u64;
        }
        let staged: Vec<Operand> = spans.iter().zip(&*buffers).map(|(s, b)| b.as_ref().map(|b| (b, (-s.low) as u64))).collect();
        // SAFETY: passed on to the caller.
        unsafe { self.plan.launch_scaled(inner, &staged, scalars) }?;
        for ((span, operand), buffer) in spans.iter().zip(operands).zip(&*buffers) {
            let (Some((target, offset)), Some(buffer), true) = (operand, buffer, span.writes) else { continue };
            let host = &mut host[..(span.high - span.low) as usize];
            inner.read(buffer, 0, host)?;
            stream.write(target, offset.wrapping_add_signed(span.low), host)?;
            moved += host.len() as u64;
        }
        let counters = &outer.device.0.runtime.fallbacks;
        counters.calls.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(moved, Ordering::Relaxed);
        counters.ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The error when nothing may run a call.
pub(crate) fn nothing_left(name: &str, dtype: &str, device: &str, reasons: &[String]) -> Error {
    Error::unimplemented(format!(
        "{name} of {dtype} on {device}: no implementation ({}); allow a fallback with FLAGOS_FALLBACK=warn, or see `flagos explain {name}`",
        if reasons.is_empty() { "none offered".to_owned() } else { reasons.join("; ") }
    ))
}
