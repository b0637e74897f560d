//! Portable kernels: every operator of the catalogue as launches of compiled tile programs, on any chip with a module table.
//!
//! [`recipe`] turns a call into steps; the host compiles each step's program once per specialisation and launches them in order. Shapes
//! are arguments of kernels, not part of them: what is part of a kernel (types, ranks after collapsing, contiguity, size class) is in its key.
#![forbid(unsafe_code)]

mod recipe;

pub use recipe::*;

/// The recipe writer of an operator; `None` when it has no portable kernel.
pub fn cook(_operator: &str) -> Option<Cook> {
    None
}
