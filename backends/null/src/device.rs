//! The device: what the chip is, and waiting for all of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{DeviceKind, MemoryKind, Result, caps};

use crate::fault;
use crate::worker::Queue;

/// Product name.
pub const NAME: &str = "null reference device";
/// Target fingerprint: claims of the suite are bound to it, so it names the architecture, never one board.
pub const ARCH: &str = "null-1";
/// Capability bits. Neither ADDRESS_SPACE nor HOST_VISIBLE: the host has to stage; not SYNCHRONOUS: it has to wait.
pub const CAPS: u64 = caps::FP64 | caps::INT64;
/// Least alignment of buffers in bytes.
pub const ALIGNMENT: usize = 256;
/// Memory in bytes; taken from the host's only as far as it is used.
pub const MEMORY_BYTES: u64 = 4 << 30;

/// What all handles of one device share. Replace: the driver's context.
#[derive(Default)]
pub struct Chip {
    /// Bytes allocated.
    pub used_bytes: AtomicU64,
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Chip {
    /// Adds a queue to those that [`Device::sync`] waits for.
    pub fn register(&self, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|q| q.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }
    /// Takes memory from the account; false when there is not as much.
    pub fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= MEMORY_BYTES);
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }
}

/// A handle on the device.
pub struct NullDevice {
    pub(crate) chip: Arc<Chip>,
}

impl NullDevice {
    pub(crate) fn open() -> NullDevice {
        static CHIP: Mutex<Weak<Chip>> = Mutex::new(Weak::new());
        let mut shared = CHIP.lock().unwrap_or_else(PoisonError::into_inner);
        let chip = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&chip);
        NullDevice { chip }
    }
}

impl Drop for NullDevice {
    fn drop(&mut self) {
        fault::close();
    }
}

impl Device for NullDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: NAME,
            arch: ARCH,
            driver: "",
            kind: DeviceKind::ACCELERATOR,
            memory_bytes: MEMORY_BYTES,
            caps: CAPS,
            compute_units: 1,
            alignment_bytes: ALIGNMENT as u32,
            memory_kinds: &[MemoryKind::DEVICE],
            // Replace: formats your driver compiles (`KernelFormat`), best first, with `Modules` implemented; the numbers below describe
            // the chip to the kernel compiler. Without formats they do not matter.
            formats: &[],
            max_block_threads: 1,
            shared_bytes: 0,
            subgroup: (0, 0),
            max_grid: [1; 3],
            matrix_shapes: &[],
        }
    }

    /// Replace: the driver's "wait for the device". The first late error of any queue is returned.
    fn sync(&self) -> Result<()> {
        let queues: Vec<Arc<Queue>> = self.chip.queues.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        // Every queue is waited for, whatever the others say.
        let results: Vec<Result<()>> = queues.iter().map(|q| q.drain()).collect();
        results.into_iter().collect()
    }
}
