//! Safe traits for backends written in Rust, and the glue that turns them into ABI tables.
//!
//! A backend implements [`Backend`], [`Device`], [`Memory`] and [`Streams`] (about 20 functions), optionally [`Operators`], [`Blas`],
//! [`Fft`] and [`Modules`], and names itself to [`export_backend!`](crate::export_backend). The glue checks every argument (NULL, size,
//! kind, unknown tails), stops panics at the border (PLUGIN_PANIC, and the backend is poisoned), answers FAILED_PRECONDITION after
//! shutdown, and owns the handles.
//!
//! Objects passed to a trait are alive: the contract obliges the host to destroy everything made from a device before it closes it, and
//! the host to name only handles it got from this backend. The glue cannot check the latter and relies on it.

mod device;
mod export;
mod handle;
mod memory;
mod module;
mod plan;
mod state;
mod stream;

pub use crate::checked::OpRef;
pub use device::{Device, DeviceFacts, ProbeFacts};
pub use export::{Backend, Domains, query};
pub use memory::{AllocRequest, Memory};
pub use module::{Argument, CompileRequest, Grid, Modules, module_table};
pub use plan::{Answered, Blas, Fft, LaunchArgs, Operators, PlanFacts, Planned, blas_table, fft_table, op_table};
pub use state::{Host, State};
pub use stream::{StreamRequest, Streams};

/// The build id to give a backend: `FLAGOS_BUILD_ID` of the build's environment, else the package version marked as a development build.
#[macro_export]
macro_rules! build_id {
    () => {
        match ::core::option_env!("FLAGOS_BUILD_ID") {
            Some(id) => id,
            None => ::core::concat!(::core::env!("CARGO_PKG_NAME"), "-", ::core::env!("CARGO_PKG_VERSION"), "-dev"),
        }
    };
}

/// Exports the entry symbol of a backend. Use it once, in a `cdylib`.
#[macro_export]
macro_rules! export_backend {
    ($backend:ty) => {
        /// The entry of this backend; see `flagos_backend.h`.
        ///
        /// # Safety
        /// `host` is NULL or a host table that lives as long as the process; `why_not` is NULL or writable.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn flagos_backend_query_v1(
            host: *const $crate::HostV1,
            why_not: *mut *mut $crate::Status,
        ) -> *const $crate::BackendV1 {
            // SAFETY: passed on to the caller.
            unsafe { $crate::vendor::query::<$backend>(host, why_not) }
        }
    };
}

