//! What a call becomes: kernels to compile, launches to make.

use std::sync::Arc;

use flagos_backend_api::Result;
use flagos_catalog::Call;
use flagos_compiler::{Options, Target, tile};

/// A kernel to compile: equal keys on one target are the same code.
#[derive(Clone)]
pub struct Kernel {
    /// Entry point and specialisation ("softmax f16 rows 1024"): names the code in caches, traces and `flagos explain`.
    pub key: String,
    /// Function to compile in the program.
    pub entry: &'static str,
    /// How.
    pub options: Options,
    /// Writes the program; called only when no cache holds the code.
    pub build: Arc<dyn Fn() -> tile::Program + Send + Sync>,
}

/// One argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Element (0, …, 0) of an operand of the call (inputs in order, then outputs) plus bytes; NULL when the operand is absent.
    Operand {
        /// Which.
        index: u32,
        /// Added to its offset.
        byte_offset: i64,
    },
    /// A place in the workspace.
    Workspace {
        /// From its start, a multiple of 16.
        byte_offset: u64,
    },
    /// A number by value: its low `bytes` bytes.
    Scalar {
        /// Little-endian bits.
        bits: u64,
        /// 1, 2, 4 or 8.
        bytes: u32,
    },
}

/// One launch.
#[derive(Clone)]
pub struct Step {
    /// What runs.
    pub kernel: Kernel,
    /// What runs instead, with the same grid and arguments, when every buffer argument is a multiple of 16 bytes.
    pub aligned: Option<Kernel>,
    /// Blocks per axis; a zero extent: nothing to do.
    pub grid: [u32; 3],
    /// Arguments in the order of the function's.
    pub args: Vec<Arg>,
}

/// How a call is carried out.
#[derive(Clone, Default)]
pub struct Recipe {
    /// Launches in order on one stream.
    pub steps: Vec<Step>,
    /// Workspace they share, in bytes.
    pub workspace_bytes: u64,
    /// Equal inputs give equal bits on every run.
    pub deterministic: bool,
}

/// Writes the recipe of one operator. `UNIMPLEMENTED` with the reason for what it does not take.
pub type Cook = fn(&Call, &Target) -> Result<Recipe>;
