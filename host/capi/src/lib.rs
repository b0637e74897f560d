//! libflagos: the C border over `flagos-runtime`, and nothing else.
//!
//! Every function takes opaque handles, checks them, calls the host and returns NULL or a status the caller releases.
//! Panics stop here. `include/flagos.h` is generated from [`FUNCTIONS`].

pub mod border;
mod buffer;
mod call;
mod context;
mod dlpack;
mod event;
mod kernel;
mod plan;
mod status;
mod stream;

pub use border::{Function, Handle};
pub use call::describe;
pub use context::embedded;

/// The exported functions, for Rust programs that want to call what C programs call.
#[allow(ambiguous_glob_reexports)] // Each section has a FUNCTIONS of its own; nobody asks for it here.
pub mod calls {
    pub use crate::{buffer::*, call::*, context::*, dlpack::*, event::*, kernel::*, plan::*, status::*, stream::*};
}

/// Every exported function in header order, by section.
pub const FUNCTIONS: &[(&str, &[Function])] = &[
    ("Status", status::FUNCTIONS),
    ("Context, discovery, devices", context::FUNCTIONS),
    ("Buffers", buffer::FUNCTIONS),
    ("Streams and copies", stream::FUNCTIONS),
    ("Events", event::FUNCTIONS),
    ("Calls: query, infer, execute, explain", call::FUNCTIONS),
    ("Plans", plan::FUNCTIONS),
    ("Kernels in Triton dialect", kernel::FUNCTIONS),
    ("DLPack", dlpack::FUNCTIONS),
];
