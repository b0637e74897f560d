//! The backend of Acme. README.md says what is left to fill in, and in which order.
//!
//! `flagos_backend_api::vendor` owns handles, checks arguments and stops panics; the files here implement its safe traits. What is not filled in
//! yet answers UNIMPLEMENTED and names itself; `conformance.toml` lists the cases that fail for it.
// Remove this line with the last slot that is left.
#![allow(unused_variables)]

pub mod device;
pub mod memory;
pub mod module;
pub mod stream;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, module_table};
use flagos_backend_api::{Code, DeviceKind, Error, Result, build_id, export_backend};

pub use device::AcmeDevice;

/// The backend.
pub struct Acme;

/// What a slot answers until it is filled in. Remove it with the last one.
pub(crate) fn left<T>(slot: &str) -> Result<T> {
    Err(Error::unimplemented(format!("backends/acme/src/{slot} is left to fill in")))
}

impl Backend for Acme {
    const NAME: &'static str = "acme";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "Acme";
    const BUILD_ID: &'static str = build_id!();
    // `op`, `blas` and `fft` are tables to add where the chip has a library that is faster than compiled kernels; backends/null has all of them.
    const DOMAINS: Domains = Domains { module: Some(module_table::<Acme>()), ..Domains::NONE };
    type Device = AcmeDevice;

    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }

    /// Fill in: ask the driver. A driver that is not installed is an empty list; a chip that cannot be used has score 0 and a reason. This is the
    /// first function that may touch the driver.
    fn probe() -> Result<Vec<ProbeFacts>> {
        Ok(vec![ProbeFacts {
            // The device with the highest score is the default; 1 is below the processor's.
            score: 1,
            kind: DeviceKind::ACCELERATOR,
            name: device::NAME.to_owned(),
            arch: device::ARCH.to_owned(),
            driver: String::new(),
            reason: String::new(),
            uuid: [0; 16],
            pci: u64::MAX,
            caps: device::CAPS,
        }])
    }

    /// Fill in: take the device's context. A device may be opened twice: both handles then name one chip.
    fn open(ordinal: u32) -> Result<AcmeDevice> {
        if ordinal != 0 {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; {} is device 0", device::NAME)));
        }
        Ok(AcmeDevice)
    }
}

export_backend!(Acme);
