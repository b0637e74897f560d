//! Kernels: code compiled, entry points found, blocks launched.

use flagos_backend_api::Result;
use flagos_backend_api::vendor::{Argument, CompileRequest, Grid, Modules};

use crate::device::AcmeDevice;
use crate::left;
use crate::memory::AcmeBuffer;
use crate::stream::AcmeStream;

/// Compiled code. Fill in: the driver's module.
pub struct AcmeModule;

/// An entry point. Fill in: the driver's function; it shares what it needs with its module.
pub struct AcmeKernel;

/// Fill in once memory and streams pass, and list the formats in src/device.rs: the host then compiles every operator for this chip.
impl Modules for AcmeDevice {
    type Module = AcmeModule;
    type Kernel = AcmeKernel;

    /// Slow, at plan time. INVALID_ARGUMENT with the compiler's log for source it refuses; DATA_LOSS for a binary that does not fit.
    fn compile(&self, request: &CompileRequest<'_>) -> Result<AcmeModule> {
        left("module.rs: compile")
    }

    fn kernel(&self, module: &AcmeModule, name: &str) -> Result<AcmeKernel> {
        left("module.rs: kernel")
    }

    /// Only enqueues: no compilation, allocation or waiting.
    fn launch_kernel<'a>(&self, stream: &AcmeStream, kernel: &AcmeKernel, grid: &Grid, args: impl ExactSizeIterator<Item = Argument<'a, AcmeBuffer>>) -> Result<()> {
        left("module.rs: launch_kernel")
    }
    // Optional: `binary`, by which the host keeps compiled kernels on disk; `kernel_facts`.
}
