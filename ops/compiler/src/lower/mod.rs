//! Lowering: a kernel over tiles becomes the program of one thread.

use crate::error::Result;
use crate::{CompileError, Options, Target, thread, tile};

/// Lowers function `entry` of a verified program for a target.
pub fn lower(program: &tile::Program, entry: &str, _target: &Target, _options: &Options) -> Result<thread::Kernel> {
    match program.function(entry) {
        None => Err(CompileError::invalid("", Default::default(), format!("the program has no function '{entry}'"))),
        Some(_) => Err(CompileError::unsupported("tt.func", Default::default(), "lowering is not part of this build")),
    }
}
