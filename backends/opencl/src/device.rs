//! The device: its context, which all handles on it share, and waiting for all of it.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{Code, Error, KernelFormat, MemoryKind, Result};

use crate::driver::{self, Context};
use crate::facts::Facts;
use crate::stream::Queue;

/// What all handles of one device share.
pub struct Chip {
    /// The device.
    pub device: driver::Device,
    /// Its context.
    pub context: Context,
    /// A queue of the backend's own, for what is not the work of a stream.
    pub own: driver::Queue,
    /// What the device says of itself.
    pub facts: Facts,
    /// Bytes allocated.
    pub used_bytes: AtomicU64,
    lost: AtomicBool,
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Chip {
    fn new(device: driver::Device) -> Result<Chip> {
        let facts = Facts::of(device);
        if let Some(reason) = &facts.unusable {
            return Err(Error::new(Code::UNAVAILABLE, format!("{}: {reason}", facts.name)));
        }
        let context = device.context()?;
        let own = context.queue(device)?;
        Ok(Chip { device, context, own, facts, used_bytes: AtomicU64::new(0), lost: AtomicBool::new(false), queues: Mutex::default() })
    }

    /// Adds a queue to those that [`Device::sync`] waits for.
    pub fn register(&self, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|q| q.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }

    /// Refuses work for a lost device.
    #[inline]
    pub fn alive(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) { Err(self.gone("it was lost before".into())) } else { Ok(()) }
    }

    #[cold]
    fn gone(&self, why: String) -> Error {
        Error::new(Code::DEVICE_LOST, format!("{} is lost: {why}; end the process, and look at the system's log", self.facts.name))
    }

    /// What an error that comes with finished work means: drivers answer all sorts of codes once a device is gone, so it is asked for a sign of life.
    #[cold]
    pub fn late(&self, error: Error) -> Error {
        let works = || self.context.queue(self.device).and_then(|q| q.marker().and_then(|m| q.finish().map(|()| m.status() == 0)));
        if error.code != Code::DEVICE_LOST && works().unwrap_or(false) {
            // Nothing was lost but this work; what failed it is no matter of a caller's argument.
            let code = if error.code == Code::RESOURCE_EXHAUSTED { error.code } else { Code::INTERNAL };
            return Error { code, ..error };
        }
        self.lost.store(true, Ordering::Relaxed);
        Error { native: error.native, ..self.gone(error.message) }
    }
}

/// A handle on a device.
pub struct OpenClDevice {
    pub(crate) chip: Arc<Chip>,
}

impl OpenClDevice {
    /// Opens a device; opened twice, both handles name one context.
    pub(crate) fn open(device: driver::Device) -> Result<OpenClDevice> {
        static OPEN: Mutex<Vec<(u64, Weak<Chip>)>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, chip)| chip.strong_count() > 0);
        if let Some(chip) = open.iter().filter(|(id, _)| *id == device.id()).find_map(|(_, chip)| chip.upgrade()) {
            return Ok(OpenClDevice { chip });
        }
        let chip = Arc::new(Chip::new(device)?);
        open.push((device.id(), Arc::downgrade(&chip)));
        Ok(OpenClDevice { chip })
    }
}

impl Device for OpenClDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        let f = &self.chip.facts;
        DeviceFacts {
            name: &f.name,
            arch: &f.arch,
            driver: &f.driver,
            kind: f.kind,
            memory_bytes: f.memory_bytes,
            caps: f.caps,
            compute_units: f.compute_units,
            alignment_bytes: f.alignment_bytes,
            memory_kinds: &[MemoryKind::DEVICE, MemoryKind::HOST_PINNED],
            formats: &[KernelFormat::OPENCL_C],
            max_block_threads: f.max_block_threads,
            shared_bytes: f.shared_bytes,
            subgroup: f.subgroup,
            // OpenCL bounds the number of threads alone, by the width of an address.
            max_grid: [u32::MAX; 3],
            matrix_shapes: &[],
        }
    }

    fn sync(&self) -> Result<()> {
        let queues: Vec<Arc<Queue>> = self.chip.queues.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        // Every queue is waited for, whatever the others say.
        let results: Vec<Result<()>> = queues.iter().map(|q| q.finish()).collect();
        results.into_iter().collect()
    }
}
