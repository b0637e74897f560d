//! Thread IR: the scalar program of one thread of a block, with shared memory, barriers and shuffles.
//!
//! Straight code is in SSA form over scalars; what changes in loops or differs by branch lives in [`Var`]s. Control flow is structured.
//! Every thread of a block reaches every barrier and shuffle: they stand only under `uniform` control flow.

pub mod build;
pub mod interpret;
mod ir;
pub mod math;
pub mod print;
pub mod verify;

pub use ir::*;
