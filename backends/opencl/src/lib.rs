//! OpenCL as a backend: every device of every installed platform that speaks OpenCL 1.2 or later.
//!
//! The backend has no operators of its own. It takes kernels in OpenCL C, which the host compiles from its portable ones, and gives them memory,
//! streams and timelines. Layers, outermost first: `flagos_backend_api::vendor` owns handles, checks arguments and stops panics; [`device`],
//! [`memory`], [`stream`] and [`module`] implement its safe traits; [`timeline`] keeps the 64-bit counters OpenCL lacks, [`binary`] what is cached
//! of compiled programs, [`facts`] what a device says of itself; [`driver`] is all that calls libOpenCL.

pub mod binary;
pub mod device;
pub mod driver;
pub mod facts;
pub mod memory;
pub mod module;
pub mod stream;
pub mod timeline;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, module_table};
use flagos_backend_api::{Code, Error, Result, build_id, export_backend};

use device::OpenClDevice;
use facts::Facts;

/// The backend.
pub struct OpenCl;

impl Backend for OpenCl {
    const NAME: &'static str = "opencl";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "libflagos";
    const BUILD_ID: &'static str = build_id!();
    const DOMAINS: Domains = Domains { module: Some(module_table::<OpenCl>()), ..Domains::NONE };
    type Device = OpenClDevice;

    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }

    fn probe() -> Result<Vec<ProbeFacts>> {
        let facts = driver::devices()?.into_iter().map(Facts::of);
        Ok(facts.map(probed).collect())
    }

    fn open(ordinal: u32) -> Result<OpenClDevice> {
        let devices = driver::devices()?;
        let Some(device) = devices.get(ordinal as usize) else {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; the installed OpenCL platforms have {}", devices.len())));
        };
        OpenClDevice::open(*device)
    }
}

fn probed(f: Facts) -> ProbeFacts {
    ProbeFacts {
        score: f.score(),
        kind: f.kind,
        name: f.name,
        arch: f.arch,
        driver: f.driver,
        reason: f.unusable.unwrap_or_default(),
        uuid: f.uuid,
        pci: f.pci,
        caps: f.caps,
    }
}

export_backend!(OpenCl);
