//! The `trace` layer: a Chrome/Perfetto trace of launches, with host time and, where the launch is synchronous, device time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use flagos_backend_api::{Error, Result};

use super::Layer;
use crate::plan::Plan;
use crate::stream::Stream;

pub(super) struct Trace {
    file: Mutex<BufWriter<File>>,
}

/// Start of this process's trace clock.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

impl Trace {
    pub(super) fn compose(argument: &str) -> Result<Box<dyn Layer>> {
        origin();
        let path = if argument.is_empty() { "flagos-trace.json" } else { argument };
        let open = || {
            let mut file = BufWriter::new(File::create(path)?);
            // The JSON array format needs no closing bracket, so a crash loses only the unflushed tail.
            file.write_all(b"[\n")?;
            Ok(file)
        };
        let file = open().map_err(|e: std::io::Error| Error::invalid(format!("layer trace: cannot write {path}: {e}")))?;
        Ok(Box::new(Trace { file: Mutex::new(file) }))
    }
}

impl Layer for Trace {
    fn after_launch(&self, plan: &Plan, stream: &Stream, started: Instant, result: &Result<()>) {
        let us = |t: std::time::Duration| t.as_nanos() as f64 / 1000.0;
        let event = serde_json::json!({
            "name": plan.operator(), "cat": "launch", "ph": "X", "pid": std::process::id(), "tid": format!("{:?}", std::thread::current().id()),
            "ts": us(started.duration_since(origin())), "dur": us(started.elapsed()),
            "args": {
                "device": plan.device().name(), "implementation": plan.implementation(), "stream": format!("{:p}", stream.0.raw.as_ptr()),
                "synchronous": plan.device().0.synchronous, "error": result.as_ref().err().map(ToString::to_string),
            },
        });
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not fail the traced program.
        let _ = writeln!(file, "{event},");
    }
}
