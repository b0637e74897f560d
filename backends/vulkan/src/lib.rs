//! The Vulkan backend: compute on any device of Vulkan 1.1 or newer that has buffer device addresses and timeline semaphores.
//!
//! Device, memory, stream and module tables; operators come from the host's portable kernels, handed over as `spirv-vulkan`. Layers,
//! outermost first: `flagos_backend_api::vendor` owns handles, checks arguments and stops panics; [`device`], [`memory`], [`stream`] and
//! [`module`] implement its safe traits; [`recorder`] turns a stream's tasks into submissions; [`alloc`], [`staging`], [`timeline`] and
//! [`cache`] are what these share; [`features`] and [`instance`] know the driver, [`spirv`] and [`capabilities`] judge code before it does.

pub mod alloc;
pub mod cache;
pub mod capabilities;
pub mod device;
pub mod env;
pub mod features;
pub mod instance;
pub mod matrix;
pub mod memory;
pub mod module;
pub mod ranges;
pub mod recorder;
pub mod spirv;
pub mod staging;
pub mod stream;
pub mod task;
pub mod timeline;

use flagos_backend_api::vendor::{Backend, Domains, Host, ProbeFacts, State, module_table};
use flagos_backend_api::{Result, build_id, export_backend};

pub use device::VulkanDevice;

/// The backend.
pub struct Vulkan;

static STATE: State = State::new();

/// The host's services.
fn host() -> Host {
    STATE.host()
}

impl Backend for Vulkan {
    const NAME: &'static str = "vulkan";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "libflagos";
    const BUILD_ID: &'static str = build_id!();
    const DOMAINS: Domains = Domains { module: Some(module_table::<Vulkan>()), ..Domains::NONE };
    type Device = VulkanDevice;

    fn state() -> &'static State {
        &STATE
    }

    fn probe() -> Result<Vec<ProbeFacts>> {
        device::probe()
    }

    fn open(ordinal: u32) -> Result<VulkanDevice> {
        VulkanDevice::open(ordinal)
    }

    fn shutdown() -> Result<()> {
        instance::Instance::release();
        Ok(())
    }
}

export_backend!(Vulkan);
