//! Portable kernels: every operator of the catalogue as launches of compiled tile programs, on any chip with a module table.
//!
//! [`cook`] finds an operator's recipe, which turns a call into steps; the host compiles each step's program once per specialisation and
//! launches them in order. Shapes are arguments of kernels, not part of them: what is part of a kernel (types, ranks after merging axes,
//! innermost strides, size class, attributes) is in its key.
#![forbid(unsafe_code)]

mod attention;
mod conv;
mod copy;
mod create;
mod elementwise;
mod index;
mod lane;
mod lines;
mod launch;
mod matmul;
mod norm;
mod number;
mod pointwise;
mod random;
mod recipe;
mod reduction;
mod scan;
mod softmax;
mod sort;
mod space;
mod view;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use recipe::*;
pub use view::View;

/// A family: its operators with their recipes.
type Family = fn() -> Vec<(&'static str, Cook)>;

const FAMILIES: &[Family] = &[pointwise::recipes, copy::recipes, create::recipes, random::recipes, reduction::recipes, softmax::recipes, norm::recipes, scan::recipes, index::recipes, sort::recipes, matmul::recipes, conv::recipes, attention::recipes];

static COOKS: LazyLock<HashMap<&'static str, Cook>> = LazyLock::new(|| FAMILIES.iter().flat_map(|f| f()).collect());

/// The recipe of an operator by its catalogue name.
pub fn cook(operator: &str) -> Option<Cook> {
    COOKS.get(operator).copied()
}
