//! The device: the primary context, shared with every framework of the process, and the chip's properties.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use cudarc::driver::sys;
use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{Code, DType, DeviceKind, Error, KernelFormat, MemoryKind, Result, caps};

use crate::arena::GRAIN;
use crate::driver::{Attribute, Entered, Ordinal, Relaxed, Shared, check, version};
use crate::engine::Engines;
use crate::library::Culib;
use crate::memory::Pool;
use crate::timeline::Words;

/// Memory kinds `alloc` takes.
const MEMORY_KINDS: &[MemoryKind] = &[MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::UNIFIED];

/// What all handles of one device share.
pub struct Chip {
    /// Place in the driver's list.
    pub ordinal: u32,
    /// The driver's device.
    pub device: Ordinal,
    /// The primary context, retained.
    pub context: Shared<sys::CUcontext>,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Shared memory a block may have when it asks, in bytes.
    pub shared_bytes: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Stream priorities: the lowest (0 or more) and the highest (0 or less) number.
    pub priorities: (i32, i32),
    /// Streams can wait for and write words of memory.
    pub waits_for_memory: bool,
    /// Device memory.
    pub pool: Mutex<Pool>,
    /// Words of timelines.
    pub words: Mutex<Words>,
    /// Handles of CUDA's libraries.
    pub engines: Engines,
    name: String,
    arch: String,
    driver: String,
    formats: Vec<KernelFormat>,
    matrix_shapes: Vec<u32>,
    lost: AtomicBool,
}

impl Chip {
    fn open(ordinal: u32) -> Result<Chip> {
        let device = Ordinal::new(ordinal)?;
        let mut context = core::ptr::null_mut();
        // SAFETY: the device exists; the place is writable. Retaining makes the context that the runtime API and frameworks use.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device.0) }, "cuDevicePrimaryCtxRetain")?;
        let context = Shared(context);
        let number = |a| device.attribute(a).unsigned_abs();
        let capability = device.capability();
        let mut formats = vec![KernelFormat::PTX];
        if Culib::Nvrtc.is_there() {
            formats.insert(0, KernelFormat::CUDA_CPP);
        }
        let mut chip = Chip {
            ordinal,
            device,
            context,
            capability,
            memory_bytes: device.memory_bytes(),
            shared_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
            priorities: (0, 0),
            waits_for_memory: number(Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS) != 0,
            pool: Mutex::new(Pool::new(device)),
            words: Mutex::default(),
            engines: Engines::default(),
            name: device.name(),
            arch: arch_of(capability),
            driver: version()?,
            formats,
            matrix_shapes: matrix_shapes(capability),
            lost: AtomicBool::new(false),
        };
        let mut range = (0, 0);
        let entered = chip.enter()?;
        // SAFETY: the context is current; the places are writable.
        check(unsafe { sys::cuCtxGetStreamPriorityRange(&mut range.0, &mut range.1) }, "cuCtxGetStreamPriorityRange")?;
        drop(entered);
        chip.priorities = range;
        Ok(chip)
    }

    /// Makes the context current on this thread until the guard goes.
    #[inline]
    pub fn enter(&self) -> Result<Entered> {
        Entered::new(self.context)
    }

    /// As [`enter`](Chip::enter), for calls that are not part of a stream's work and must not disturb a capture.
    pub fn enter_aside(&self) -> Result<(Entered, Relaxed)> {
        Ok((self.enter()?, Relaxed::new()?))
    }

    /// Remembers that the device is lost when an answer says so.
    #[inline]
    pub fn told<T>(&self, answer: Result<T>) -> Result<T> {
        if let Err(e) = &answer
            && e.code == Code::DEVICE_LOST
        {
            self.lost.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Refuses once the device is lost.
    #[inline]
    pub fn alive(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) { Err(self.gone()) } else { Ok(()) }
    }

    #[cold]
    fn gone(&self) -> Error {
        Error::new(Code::DEVICE_LOST, format!("{} is lost since an earlier error of its context; the process must start again to use it", self.name))
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        // Nobody is left to tell of errors; a driver that shut down before, at the end of the process, gives errors only.
        if let Ok(guards) = self.enter_aside() {
            self.engines.clear();
            self.pool.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            self.words.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            drop(guards);
        }
        // SAFETY: gives back what `open` retained; frameworks that retained the context too keep it.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device.0) };
    }
}

/// Architecture of a compute capability: "sm_90".
pub fn arch_of(capability: (u32, u32)) -> String {
    format!("sm_{}{}", capability.0, capability.1)
}

/// Capability bits of a compute capability.
pub fn caps_of(capability: (u32, u32)) -> u64 {
    let all = caps::ADDRESS_SPACE | caps::FP16 | caps::FP64 | caps::INT64 | caps::ATOMIC64 | caps::CAPTURE;
    if capability >= (8, 0) { all | caps::BF16 } else { all }
}

/// Shapes of `mma` instructions by type, as (m, n, k, dtype) one after the other.
pub fn matrix_shapes(capability: (u32, u32)) -> Vec<u32> {
    let dtype = |d: DType| u32::from(d.code) | u32::from(d.bits) << 8 | u32::from(d.lanes) << 16;
    let half = [[16, 8, 16, dtype(DType::F16)]];
    let ampere = [[16, 8, 16, dtype(DType::BF16)], [16, 8, 32, dtype(DType::I8)], [8, 8, 4, dtype(DType::F64)]];
    let (first, second) = (if capability >= (7, 5) { &half[..] } else { &[] }, if capability >= (8, 0) { &ampere[..] } else { &[] });
    [first, second].concat().concat()
}

/// A handle on the device.
pub struct CudaDevice {
    pub(crate) chip: Arc<Chip>,
    /// Kernels of sorts. Not the chip's: they keep it open.
    pub(crate) sorts: Mutex<crate::sort::Compiled>,
}

impl CudaDevice {
    /// Opens a device, or joins who has it open.
    ///
    /// # Errors
    /// NOT_FOUND for an ordinal the driver does not have, UNAVAILABLE without driver, and those of the driver.
    pub fn open(ordinal: u32) -> Result<CudaDevice> {
        static CHIPS: Mutex<Vec<(u32, Weak<Chip>)>> = Mutex::new(Vec::new());
        let mut chips = lock(&CHIPS);
        chips.retain(|(_, chip)| chip.strong_count() > 0);
        if let Some(chip) = chips.iter().find(|c| c.0 == ordinal).and_then(|c| c.1.upgrade()) {
            return Ok(CudaDevice::of(chip));
        }
        let chip = Arc::new(Chip::open(ordinal)?);
        chips.push((ordinal, Arc::downgrade(&chip)));
        Ok(CudaDevice::of(chip))
    }

    fn of(chip: Arc<Chip>) -> CudaDevice {
        CudaDevice { chip, sorts: Mutex::default() }
    }

    /// What its handles share.
    pub fn chip(&self) -> &Chip {
        &self.chip
    }
}

impl Device for CudaDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        let chip = &*self.chip;
        let number = |a| chip.device.attribute(a).unsigned_abs();
        let grid = [Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z];
        let warp = number(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE);
        DeviceFacts {
            name: &chip.name,
            arch: &chip.arch,
            driver: &chip.driver,
            kind: DeviceKind::GPU,
            memory_bytes: chip.memory_bytes,
            caps: caps_of(chip.capability),
            compute_units: chip.multiprocessors,
            alignment_bytes: GRAIN as u32,
            memory_kinds: MEMORY_KINDS,
            formats: &chip.formats,
            max_block_threads: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
            shared_bytes: chip.shared_bytes,
            subgroup: (warp, warp),
            max_grid: grid.map(number),
            matrix_shapes: &chip.matrix_shapes,
        }
    }

    fn sync(&self) -> Result<()> {
        self.chip.alive()?;
        let _aside = self.chip.enter_aside()?;
        // SAFETY: the context is current.
        self.chip.told(check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize"))
    }
}

/// Locks; what a panicking thread left behind is whole, since nothing here unwinds between two writes.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
