//! The processor as a libflagos device: multi-threaded kernels, with SIMD chosen at run time.
//!
//! The same code serves as the plugin (`so/`, backend name "cpu") and linked into libflagos ("embedded"): [`Cpu`] is generic over the
//! identity it is registered under. Launches finish before they return; see [`pool`] for how threads are shared.

mod attention;
mod axes;
pub mod blas;
mod blas_trsm;
mod blas_vector;
mod block;
mod conv;
mod convert;
mod copy;
mod create;
mod device;
mod element;
pub mod fft;
mod fft_large;
mod fft_lines;
mod fold;
pub mod gemm;
pub mod gemm_pack;
pub mod gemm_tile;
mod gemm_vector;
mod index;
pub mod kernel;
mod kind;
mod lanes;
mod lanes_int;
mod math_f32;
mod math_f64;
mod matmul;
mod memory;
mod module;
mod norm;
pub mod ops;
mod plan;
mod pointwise;
pub mod pool;
mod random;
mod reduce;
mod reduce_arg;
mod reduce_cut;
mod rows;
mod scan;
pub mod scratch;
mod select;
mod softmax;
mod sort;
mod stream;
pub mod target;
mod tensor;
pub mod toolchain;
mod transfer;
mod vectorize;

use std::marker::PhantomData;

use flagos_backend_api::vendor::{Backend, Domains, ProbeFacts, State, blas_table, fft_table, module_table, op_table, query};
use flagos_backend_api::{Code, DeviceKind, Error, HostV1, Result, Status, build_id};

pub use device::CpuDevice;

/// Under which name the backend is registered.
pub trait Identity: Send + Sync + 'static {
    /// Backend name.
    const NAME: &'static str;
    /// Its state.
    fn state() -> &'static State;
}

/// The backend.
pub struct Cpu<I>(PhantomData<I>);

impl<I: Identity> Backend for Cpu<I> {
    const NAME: &'static str = I::NAME;
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const VENDOR: &'static str = "libflagos";
    const BUILD_ID: &'static str = build_id!();
    const DOMAINS: Domains = Domains {
        module: Some(module_table::<Self>()),
        op: Some(op_table::<Self>()),
        blas: Some(blas_table::<Self>()),
        fft: Some(fft_table::<Self>()),
        ..Domains::NONE
    };
    type Device = CpuDevice;

    fn state() -> &'static State {
        I::state()
    }
    fn probe() -> Result<Vec<ProbeFacts>> {
        Ok(vec![ProbeFacts {
            score: 10,
            kind: DeviceKind::CPU,
            name: device::product().to_owned(),
            arch: target::Target::host().isa.name().to_owned(),
            driver: String::new(),
            // The device is usable without a compiler; what it then lacks is worth a word.
            reason: toolchain::system().err().map_or_else(String::new, |e| format!("takes no portable kernels: {}", e.message)),
            uuid: [0; 16],
            pci: u64::MAX,
            caps: device::CAPS,
        }])
    }
    fn open(ordinal: u32) -> Result<CpuDevice> {
        if ordinal != 0 {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; the processor is device 0")));
        }
        Ok(CpuDevice::new())
    }
}

/// The identity of the tables linked into libflagos.
pub struct Embedded;

impl Identity for Embedded {
    const NAME: &'static str = NAME;
    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }
}

/// Name of the tables linked into libflagos; the plugin is "cpu".
pub const NAME: &str = "embedded";

/// Entry of the tables linked into libflagos.
///
/// # Safety
/// `host` is NULL or a host table that lives as long as the process; `why_not` is NULL or writable.
pub unsafe extern "C" fn query_embedded(host: *const HostV1, why_not: *mut *mut Status) -> *const flagos_backend_api::BackendV1 {
    // SAFETY: passed on to the caller.
    unsafe { query::<Cpu<Embedded>>(host, why_not) }
}
