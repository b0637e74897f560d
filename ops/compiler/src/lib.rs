//! The tile compiler of libflagos: Triton dialect in, kernels for any chip out.
//!
//! ```text
//! TTIR text ──parse──┐                                                       ┌─ c
//!                    ├─ tile IR ─verify, simplify─────── lower ─ thread IR ──┼─ opencl, cuda, hip
//! Rust builder ──────┘                                                       └─ spirv
//! ```
//!
//! [`tile`] holds programs over tiles, [`thread`] scalar programs of one thread; [`lower`] goes from one to the other; [`emit`] has one
//! file per format. Nothing above the emitters knows a format: they differ by the [`Target`]'s facts.
#![forbid(unsafe_code)]

pub mod build;
pub mod elem;
pub mod case;
pub mod emit;
pub mod error;
pub mod lower;
pub mod run;
pub mod target;
pub mod thread;
pub mod tile;

pub use case::Case;
pub use elem::Elem;
pub use error::{CompileError, Result};
pub use run::Arg;
pub use target::{MatrixShape, Options, Target};

/// Code for a target, ready for `module.compile`, with what a launch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Source text or SPIR-V bytes.
    pub code: Vec<u8>,
    /// Entry point.
    pub entry: String,
    /// Options for `module.compile`.
    pub options: String,
    /// Threads of a block.
    pub threads: u32,
    /// `shared_bytes` of a launch (0 where the code declares its own).
    pub shared_bytes: u32,
}

/// Compiles function `entry` of a program for a target: verify, simplify, lower, write out what the format lacks, emit.
pub fn compile(program: &tile::Program, entry: &str, target: &Target, options: &Options) -> Result<Compiled> {
    tile::verify::verify(program)?;
    let mut program = program.clone();
    tile::simplify::simplify(&mut program);
    let mut kernel = lower::lower(&program, entry, target, options)?;
    thread::math::expand(&mut kernel, target);
    if cfg!(debug_assertions) {
        thread::verify::verify(&kernel)?;
    }
    emit::emit(&kernel, target)
}
