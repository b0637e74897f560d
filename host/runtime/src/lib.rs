//! The libflagos host: discovers backends, judges and loads them, and plans and launches work on their devices.
//!
//! ```text
//! Runtime ── open ──> Device ── alloc ──> Buffer
//!    │                  ├── stream ──> Stream, Event
//!    └── report         └── plan(Work) ──> Plan ── launch(stream, operands)
//! ```

mod cache;
pub mod claims;
mod device;
pub mod discover;
mod driver;
pub mod env;
mod fallback;
pub mod kernel;
mod key;
pub mod layers;
pub mod log;
mod memory;
mod module;
pub mod oneshot;
mod plan;
pub mod policy;
mod portable;
mod registry;
mod select;
mod stream;
pub mod trace;
pub mod transfer;
mod work;

pub use device::{Device, DeviceInfo};
pub use fallback::FallbackStatistics;
pub use flagos_backend_api::{Code, DType, Error, Result, Tensor};
pub use flagos_catalog::Call;
pub use kernel::{Kernel, KernelArgument, Parameter};
pub use key::Key;
pub use module::{COMPILER_ID, FORMATS, KernelStatistics, format_name, format_of, target_of};
pub use memory::{Buffer, MemoryStatistics, Release};
pub use plan::{Operand, Plan, Scalars, describe};
pub use policy::Policy;
pub use registry::{DeviceEntry, Runtime, Statistics, epoch};
pub use select::{Candidate, Choice};
pub use stream::{Event, Stream};
pub use transfer::TransferStatistics;
pub use work::{Span, Work};
