//! The `fault` layer: makes every Nth launch or allocation fail, so that a framework's error paths can be tried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flagos_backend_api::{Code, Error, Result};

use super::Layer;
use crate::plan::{Operand, Plan};

pub(super) struct Fault {
    kind: Kind,
    every: u64,
    count: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    LaunchError,
    DeviceLost,
    Delay,
    OutOfMemory,
}

impl Fault {
    pub(super) fn compose(argument: &str) -> Result<Box<dyn Layer>> {
        let bad = || Error::invalid(format!("layer fault={argument}: use KIND@N with KIND launch-error, device-lost, delay or out-of-memory and N >= 1"));
        let (kind, every) = argument.split_once('@').unwrap_or((argument, "1"));
        let kinds = [("launch-error", Kind::LaunchError), ("device-lost", Kind::DeviceLost), ("delay", Kind::Delay), ("out-of-memory", Kind::OutOfMemory)];
        let kind = kinds.iter().find(|(name, _)| *name == kind).ok_or_else(bad)?.1;
        let every = every.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Box::new(Fault { kind, every, count: AtomicU64::new(0) }))
    }

    fn due(&self) -> bool {
        (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.every)
    }
}

impl Layer for Fault {
    fn before_launch(&self, plan: &Plan, _: &[Operand]) -> Result<()> {
        if self.kind == Kind::OutOfMemory || !self.due() {
            return Ok(());
        }
        let made = |code, what: &str| Err(Error::new(code, format!("{}: {what} made by the fault layer", plan.operator())));
        match self.kind {
            Kind::LaunchError => made(Code::INTERNAL, "launch error"),
            Kind::DeviceLost => made(Code::DEVICE_LOST, "device loss"),
            _ => {
                std::thread::sleep(Duration::from_millis(10));
                Ok(())
            }
        }
    }

    fn on_alloc(&self, bytes: u64) -> Result<()> {
        if self.kind == Kind::OutOfMemory && self.due() {
            return Err(Error::new(Code::RESOURCE_EXHAUSTED, format!("allocation of {bytes} bytes refused by the fault layer")));
        }
        Ok(())
    }
}
