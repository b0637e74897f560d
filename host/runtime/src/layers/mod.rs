//! Layers: optional instruments around every launch of a device, composed when it is opened and absent otherwise.

mod fault;
mod trace;
mod validate;

use std::time::Instant;

use flagos_backend_api::{Error, Result};

use crate::plan::{Operand, Plan};
use crate::stream::Stream;

/// An instrument.
pub trait Layer: Send + Sync {
    /// Before a launch; an error stops it.
    fn before_launch(&self, _plan: &Plan, _operands: &[Operand]) -> Result<()> {
        Ok(())
    }
    /// After a launch returned.
    fn after_launch(&self, _plan: &Plan, _stream: &Stream, _started: Instant, _result: &Result<()>) {}
    /// Before an allocation; an error stops it.
    fn on_alloc(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// The layers of a device, outermost first.
pub(crate) struct Layers(Vec<Box<dyn Layer>>);

type Constructor = fn(&str) -> Result<Box<dyn Layer>>;

/// Every layer by name, with what its argument means.
pub const LAYERS: &[(&str, &str)] = &[
    ("validate", "checks overlap, in-place rules and alignment of every launch"),
    ("trace", "trace or trace=FILE: writes a Chrome/Perfetto trace (default flagos-trace.json)"),
    ("fault", "fault=KIND@N: KIND is launch-error, device-lost, delay or out-of-memory, on every Nth occasion"),
];

const CONSTRUCTORS: &[(&str, Constructor)] =
    &[("validate", validate::Validate::compose), ("trace", trace::Trace::compose), ("fault", fault::Fault::compose)];

impl Layers {
    /// Composes layers from `name` or `name=argument`.
    pub(crate) fn compose(specs: &[String]) -> Result<Layers> {
        let build = |spec: &String| {
            let (name, argument) = spec.split_once('=').unwrap_or((spec, ""));
            let known = CONSTRUCTORS.iter().find(|(n, _)| *n == name);
            let (_, constructor) = known.ok_or_else(|| {
                let names: Vec<&str> = LAYERS.iter().map(|l| l.0).collect();
                Error::invalid(format!("there is no layer '{name}'; known are {}", names.join(", ")))
            })?;
            constructor(argument)
        };
        Ok(Layers(specs.iter().map(build).collect::<Result<_>>()?))
    }
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(crate) fn before_launch(&self, plan: &Plan, operands: &[Operand]) -> Result<()> {
        self.0.iter().try_for_each(|l| l.before_launch(plan, operands))
    }
    pub(crate) fn after_launch(&self, plan: &Plan, stream: &Stream, started: Instant, result: &Result<()>) {
        self.0.iter().rev().for_each(|l| l.after_launch(plan, stream, started, result));
    }
    pub(crate) fn on_alloc(&self, bytes: u64) -> Result<()> {
        self.0.iter().try_for_each(|l| l.on_alloc(bytes))
    }
}
