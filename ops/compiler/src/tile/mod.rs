//! Tile IR: programs over tiles, the Triton dialect as data.
//!
//! A [`Program`] holds functions; a function holds a block of operations in SSA form with structured control flow (each region is one
//! block). Text with branches (`cf.br`, `cf.cond_br`, which Triton prints for early returns) is structured by the parser.

pub mod interpret;
mod ir;
pub mod libdevice;
mod names;
pub mod number;
mod op;
pub mod parse;
pub mod print;
mod renumber;
pub mod simplify;
pub mod verify;

pub use ir::*;
pub use op::*;
pub use renumber::renumber;
