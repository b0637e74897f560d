//! A backend in software with every part that a chip's backend may have, in the same files.
//!
//! The "chip" has memory that the host cannot touch, queues that run on their own, timelines with late errors, and operators computed by
//! the catalogue's references: slow and right. What the comments marked `Replace:` name is what a chip's backend has in its place.
//! [`fault`] is no part of a backend: the conformance suite is tested with it.
//!
//! Layers, outermost first: `flagos_backend_api::vendor` owns handles, checks arguments and stops panics; [`device`], [`memory`],
//! [`stream`], [`ops`], [`blas`] and [`fft`] implement its safe traits; [`plan`] is what the last three share; [`worker`] stands for the driver.

pub mod blas;
pub mod device;
pub mod fault;
pub mod fft;
pub mod memory;
pub mod ops;
pub mod plan;
pub mod stream;
pub mod worker;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, blas_table, fft_table, op_table};
use flagos_backend_api::{BackendV1, Code, DeviceKind, Error, Result, build_id, export_backend};

pub use device::NullDevice;

/// The backend. Replace: the name of the type, and everything below.
pub struct Null;

impl Backend for Null {
    const NAME: &'static str = "null";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "libflagos";
    const BUILD_ID: &'static str = build_id!();
    // Replace: offer what you have. `Domains::NONE` is a legal start: the host then finds device, memory and streams only.
    const DOMAINS: Domains =
        Domains { op: Some(op_table::<Null>()), blas: Some(blas_table::<Null>()), fft: Some(fft_table::<Null>()), ..Domains::NONE };
    type Device = NullDevice;

    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }

    /// Replace: ask the driver. A driver that is not installed is an empty list; a chip that cannot be used has score 0 and a reason.
    /// This is the first function that may touch the driver: `query`, which the glue answers, must not.
    fn probe() -> Result<Vec<ProbeFacts>> {
        fault::probe()?;
        Ok(vec![ProbeFacts {
            // Backends are compared by it; a reference device wants to be chosen last.
            score: 1,
            kind: DeviceKind::ACCELERATOR,
            name: device::NAME.to_owned(),
            arch: device::ARCH.to_owned(),
            driver: String::new(),
            reason: String::new(),
            uuid: [0; 16],
            pci: u64::MAX,
            caps: fault::probed_caps(device::CAPS),
        }])
    }

    /// Replace: take the device's context. The host may open a device twice: both handles then name one device.
    fn open(ordinal: u32) -> Result<NullDevice> {
        if fault::ordinal(ordinal) != 0 {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; the null device is device 0")));
        }
        fault::open()?;
        Ok(NullDevice::open())
    }

    fn amend(table: &mut BackendV1) {
        fault::amend(table);
    }
}

export_backend!(Null);
