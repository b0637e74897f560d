//! The device: what the chip is, and waiting for all of it.
#![forbid(unsafe_code)]

use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{DeviceKind, MemoryKind, Result, caps};

/// Product name.
pub const NAME: &str = "Acme (template)";
/// Target fingerprint: claims and cached kernels are bound to it, so it names the architecture, never one board.
pub const ARCH: &str = "acme-template";
/// Capability bits. HOST_VISIBLE where the host may touch device memory, ADDRESS_SPACE where any address is one, SYNCHRONOUS where work is over
/// when its call returns, FP16, BF16, FP64, INT64 and ATOMIC64 for what kernels may use.
pub const CAPS: u64 = caps::SYNCHRONOUS | caps::INT64;

/// A handle on the device. Fill in: the driver's context.
pub struct AcmeDevice;

impl Device for AcmeDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: NAME,
            arch: ARCH,
            driver: "",
            kind: DeviceKind::ACCELERATOR,
            memory_bytes: 1 << 30,
            caps: CAPS,
            compute_units: 1,
            alignment_bytes: 256,
            memory_kinds: &[MemoryKind::DEVICE],
            // Fill in with src/module.rs: formats the driver compiles, best first (backend-api/KERNELS.md). The numbers below describe the chip to the
            // kernel compiler.
            formats: &[],
            max_block_threads: 1,
            shared_bytes: 0,
            subgroup: (0, 0),
            max_grid: [u32::MAX; 3],
            matrix_shapes: &[],
        }
    }

    /// Fill in: the driver's "wait for the device". The first late error of any stream is returned.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
