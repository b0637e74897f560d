//! The device: what the chip is, and waiting for all of it.
#![forbid(unsafe_code)]

use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{DeviceKind, KernelFormat, MemoryKind, Result, caps};

use crate::chip;

/// Product name.
pub const NAME: &str = "Acme One";
/// Target fingerprint: claims and cached kernels are bound to it, so it names the architecture, never one board.
pub const ARCH: &str = "acme-1";
/// Capability bits. Neither HOST_VISIBLE nor ADDRESS_SPACE: the host copies through `read` and `write` alone, as with most chips.
pub const CAPS: u64 = caps::SYNCHRONOUS | caps::FP64 | caps::INT64 | caps::ATOMIC64;

/// A handle on the device. A device may be opened twice: both handles then name one chip.
pub struct AcmeDevice {
    pub(crate) driver: &'static str,
}

impl Device for AcmeDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: NAME,
            arch: ARCH,
            driver: self.driver,
            kind: DeviceKind::ACCELERATOR,
            memory_bytes: chip::MEMORY_BYTES,
            caps: CAPS,
            compute_units: chip::cores(),
            alignment_bytes: chip::ALIGNMENT as u32,
            memory_kinds: &[MemoryKind::DEVICE],
            formats: &[KernelFormat::C],
            // In C a block is one call, which runs all its threads.
            max_block_threads: 1,
            shared_bytes: chip::SHARED_BYTES,
            subgroup: (0, 0),
            max_grid: [u32::MAX; 3],
            matrix_shapes: &[],
        }
    }

    fn sync(&self) -> Result<()> {
        // Work is over when its call returns.
        Ok(())
    }
}
