//! What every planned call of this backend is: a kernel over operand addresses.

use flagos_backend_api::Result;
use flagos_catalog::Call;

use crate::pool::Pool;
use crate::target::Target;

/// A planned call. Planning may be slow; running allocates nothing.
pub trait Kernel: Send + Sync {
    /// Computes. `operands` are the addresses of element (0, …, 0) of the inputs in order, then of the outputs; NULL for absent
    /// inputs and operands without elements.
    ///
    /// # Safety
    /// Every operand's extent is readable (inputs) or writable (outputs) and no output overlaps an input, but for in-place calls the
    /// operator allows. `workspace` addresses [`Kernel::workspace_bytes`] bytes, 64-byte aligned, private to this run.
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()>;
    /// Workspace in bytes.
    fn workspace_bytes(&self) -> usize {
        0
    }
    /// Which implementation this is, for people ("avx512 contiguous").
    fn name(&self) -> String;
    /// Equal inputs give equal bits, whatever the number of threads.
    fn deterministic(&self) -> bool {
        true
    }
}

/// Plans a checked call: every type, shape and attribute has passed [`Call::check`]. UNIMPLEMENTED for what is not offered.
pub type Factory = fn(&Call, &Target) -> Result<Box<dyn Kernel>>;
