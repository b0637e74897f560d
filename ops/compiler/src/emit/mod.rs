//! Emitters: one file per kernel format.

use crate::error::Result;
use crate::{CompileError, Compiled, Target, thread};

/// Writes a kernel in the target's format.
pub fn emit(_kernel: &thread::Kernel, target: &Target) -> Result<Compiled> {
    match target.format {
        other => Err(CompileError::unsupported("", Default::default(), format!("no emitter for format {}", other.0))),
    }
}
