//! NVIDIA GPUs as libflagos devices: memory, streams, timelines, kernels from CUDA C++ or PTX, and NVIDIA's libraries where they are there.
//!
//! Nothing of CUDA is linked: the driver, NVRTC, cuBLAS and cuFFT are opened at run time, so the plugin loads on every machine and says what is
//! missing. A device is the process's primary context, which the CUDA runtime and frameworks on it use too: their pointers and streams are ours.
//! The calling thread's current context is left as it was found.
//!
//! Layers, outermost first: `flagos_backend_api::vendor` owns handles, checks arguments and stops panics; [`device`], [`memory`], [`stream`],
//! [`module`], [`matmul`], [`sort`], [`blas`] and [`fft`] (with [`plan`], which they share, [`product`] and [`engine`]) implement its safe traits;
//! [`driver`] and [`library`] are the border to CUDA; [`arena`], [`pages`], [`pool`] and [`timeline`] are what memory and streams are made of; [`compile`] and [`binary`] work without a device.

pub mod arena;
pub mod binary;
pub mod blas;
pub mod compile;
pub mod device;
pub mod driver;
pub mod engine;
pub mod fft;
pub mod library;
pub mod matmul;
pub mod memory;
pub mod module;
pub mod pages;
pub mod plan;
pub mod pool;
pub mod product;
pub mod sort;
pub mod stream;
pub mod timeline;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, blas_table, fft_table, module_table, op_table};
use flagos_backend_api::{DeviceKind, Result, build_id, export_backend};

pub use device::CudaDevice;

/// Score of a usable device: above processors, below what a user prefers.
const SCORE: u32 = 100;

/// The backend.
pub struct Cuda;

impl Backend for Cuda {
    const NAME: &'static str = "cuda";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "libflagos";
    const BUILD_ID: &'static str = build_id!();
    const DOMAINS: Domains = Domains {
        module: Some(module_table::<Cuda>()),
        op: Some(op_table::<Cuda>()),
        blas: Some(blas_table::<Cuda>()),
        fft: Some(fft_table::<Cuda>()),
        ..Domains::NONE
    };
    type Device = CudaDevice;

    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }

    /// Starts the driver, takes no context.
    fn probe() -> Result<Vec<ProbeFacts>> {
        let count = driver::start()?;
        let version = driver::version()?;
        (0..count.unsigned_abs())
            .map(|ordinal| {
                let device = driver::Ordinal::new(ordinal)?;
                let capability = device.capability();
                Ok(ProbeFacts {
                    score: SCORE,
                    kind: DeviceKind::GPU,
                    name: device.name(),
                    arch: device::arch_of(capability),
                    driver: version.clone(),
                    reason: String::new(),
                    uuid: device.uuid(),
                    pci: device.pci(),
                    caps: device::caps_of(capability),
                })
            })
            .collect()
    }

    fn open(ordinal: u32) -> Result<CudaDevice> {
        CudaDevice::open(ordinal)
    }
}

export_backend!(Cuda);
