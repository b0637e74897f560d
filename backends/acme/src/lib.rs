//! Acme: a backend of four tables, device, memory, streams and kernels, from which the host makes every operator of the catalogue.
//!
//! The chip is played by the processor: [`chip`] is what a vendor's driver would be, memory, a C compiler and a pool of threads. The other files are
//! those that `cargo xtask new backend NAME` writes, filled in: safe traits of `flagos_backend_api::vendor`, which owns handles, checks arguments
//! and stops panics.

pub mod chip;
pub mod device;
pub mod memory;
pub mod module;
pub mod stream;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, module_table};
use flagos_backend_api::{Code, DeviceKind, Error, Result, build_id, export_backend};

pub use device::AcmeDevice;

/// The backend.
pub struct Acme;

impl Backend for Acme {
    const NAME: &'static str = "acme";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "Acme";
    const BUILD_ID: &'static str = build_id!();
    const DOMAINS: Domains = Domains { module: Some(module_table::<Acme>()), ..Domains::NONE };
    type Device = AcmeDevice;

    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }

    fn probe() -> Result<Vec<ProbeFacts>> {
        let (driver, reason) = match chip::driver() {
            Ok(driver) => (driver, ""),
            Err(reason) => ("", reason),
        };
        Ok(vec![ProbeFacts {
            // A chip that cannot be used is listed with score 0 and the reason.
            score: u32::from(reason.is_empty()),
            kind: DeviceKind::ACCELERATOR,
            name: device::NAME.to_owned(),
            arch: device::ARCH.to_owned(),
            driver: driver.to_owned(),
            reason: reason.to_owned(),
            uuid: [0; 16],
            pci: u64::MAX,
            caps: device::CAPS,
        }])
    }

    fn open(ordinal: u32) -> Result<AcmeDevice> {
        if ordinal != 0 {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; {} is device 0", device::NAME)));
        }
        let driver = chip::driver().map_err(|reason| Error::new(Code::UNAVAILABLE, reason))?;
        Ok(AcmeDevice { driver })
    }
}

export_backend!(Acme);
