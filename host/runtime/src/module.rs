//! Kernels of a device: which code it takes, and every kernel compiled for it, once.
//!
//! A kernel is looked for in the device's own table, then in the disk cache, and compiled last. Threads that want the same kernel wait for the
//! one that compiles it; threads that want others do not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use flagos_backend_api as abi;
use flagos_backend_api::{Code, DType, DeviceKind, Error, KernelFormat, Result};
use flagos_compiler::error::Kind;
use flagos_compiler::{CompileError, Compiled, Elem, MatrixShape, Target};
use serde::Serialize;

use crate::cache::{Cache, Entry, name};
use crate::device::{Device, DeviceInfo};
use crate::driver::{Driver, Raw};

/// Which compiler this build carries: equal ids make equal code.
pub const COMPILER_ID: &str = env!("FLAGOS_COMPILER_ID");

/// Formats the host writes, the one to prefer first, with the names people use.
pub const FORMATS: &[(KernelFormat, &str)] = &[
    (KernelFormat::CUDA_CPP, "cuda-c++"),
    (KernelFormat::HIP_CPP, "hip-c++"),
    (KernelFormat::OPENCL_C, "opencl-c"),
    (KernelFormat::SPIRV_VULKAN, "spirv-vulkan"),
    (KernelFormat::C, "c"),
];

/// A format's name; formats the host does not write have one too.
pub fn format_name(format: KernelFormat) -> &'static str {
    match FORMATS.iter().find(|f| f.0 == format) {
        Some((_, name)) => name,
        None if format == KernelFormat::PTX => "ptx",
        None if format == KernelFormat::TTIR => "ttir",
        None => "unknown",
    }
}

/// The format of a name.
pub fn format_of(name: &str) -> Option<KernelFormat> {
    FORMATS.iter().find(|f| f.1 == name).map(|f| f.0)
}

/// The compiler's view of a device: the best format both know, and what code depends on. `None` when there is no such format.
pub fn target_of(info: &DeviceInfo) -> Option<Target> {
    let format = FORMATS.iter().map(|f| f.0).find(|f| info.kernel_formats.contains(f))?;
    let subgroup = match info.subgroup {
        (least, most) if least == most => most,
        // Where sizes vary, SPIR-V asks for the one it wants.
        (_, most) if format == KernelFormat::SPIRV_VULKAN => most,
        _ => 0,
    };
    // A core of a processor runs a block by itself. OpenCL's drivers make loops of its threads, cut at every barrier; the loops the compiler writes
    // for a block of one thread need no cuts, and no such driver takes long over them.
    let alone = format == KernelFormat::C || (format == KernelFormat::OPENCL_C && info.kind == DeviceKind::CPU.to_string());
    Some(Target {
        format,
        arch: info.arch.clone(),
        caps: info.caps,
        max_block_threads: if alone { 1 } else { info.max_block_threads.max(1) },
        shared_bytes: info.shared_bytes,
        subgroup,
        matrix: info.matrix_shapes.iter().filter_map(|s| matrix_shape(*s)).collect(),
    })
}

fn matrix_shape([m, n, k, dtype]: [u32; 4]) -> Option<MatrixShape> {
    let [code, bits, low, high] = dtype.to_le_bytes();
    let own = DType { code, bits, lanes: u16::from_le_bytes([low, high]) };
    let kinds = [(DType::F16, Elem::F16, Elem::F32), (DType::BF16, Elem::BF16, Elem::F32), (DType::F32, Elem::F32, Elem::F32), (DType::F64, Elem::F64, Elem::F64), (DType::I8, Elem::I8, Elem::I32)];
    let (_, factor, sum) = kinds.into_iter().find(|k| k.0 == own)?;
    Some(MatrixShape { m, n, k, factor, sum })
}

/// A refusal of the compiler as the host reports it: what it cannot do is no offer, what is wrong is an error.
pub fn refusal(name: &str, e: &CompileError) -> Error {
    let code = if e.kind == Kind::Invalid { Code::INVALID_ARGUMENT } else { Code::UNIMPLEMENTED };
    Error::new(code, format!("kernel '{name}': {e}"))
}

/// A compiled kernel on a device.
#[derive(Clone, Copy)]
pub(crate) struct Loaded {
    module: Raw<abi::Module>,
    pub(crate) kernel: Raw<abi::Kernel>,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Shared memory a launch asks for.
    pub(crate) shared_bytes: u32,
}

impl Loaded {
    /// Gives the module back; no launch of it is in flight.
    pub(crate) fn destroy(self, driver: &Driver) {
        if let Err(e) = driver.module_destroy(self.module)
            && driver.quarantine_reason().is_none()
        {
            crate::log::warn(&format!("destroying a module of '{}': {e}", driver.backend.name));
        }
    }
}

/// How kernels came to be, all devices of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelStatistics {
    /// Compiled from a program.
    pub compiled: u64,
    /// Taken from the disk cache.
    pub from_disk: u64,
    /// Time spent on both in nanoseconds.
    pub ns: u64,
}

static COMPILED: AtomicU64 = AtomicU64::new(0);
static FROM_DISK: AtomicU64 = AtomicU64::new(0);
static SPENT_NS: AtomicU64 = AtomicU64::new(0);

impl KernelStatistics {
    /// A reading.
    pub(crate) fn read() -> KernelStatistics {
        let at = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KernelStatistics { compiled: at(&COMPILED), from_disk: at(&FROM_DISK), ns: at(&SPENT_NS) }
    }
}

/// One kernel, or why there is none; taken by the thread that makes it.
type Slot = Arc<Mutex<Option<Result<Loaded>>>>;

/// The kernels of a device by key. They stay until it is closed.
#[derive(Default)]
pub(crate) struct Kernels {
    slots: Mutex<HashMap<String, Slot>>,
    target: OnceLock<Option<Target>>,
}

impl Kernels {
    /// Destroys every kernel; the device is about to be closed.
    pub(crate) fn clear(&self, driver: &Driver) {
        for (_, slot) in self.slots.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            if let Some(Ok(loaded)) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                loaded.destroy(driver);
            }
        }
    }
}

/// The disk cache of the process; `None` where there is no place for one.
pub(crate) fn disk() -> Option<&'static Cache> {
    static DISK: OnceLock<Option<Cache>> = OnceLock::new();
    DISK.get_or_init(Cache::of_user).as_ref()
}

impl Device {
    /// What portable kernels are compiled for here; `None` when the device takes none.
    pub fn target(&self) -> Option<&Target> {
        self.0.kernels.target.get_or_init(|| self.0.driver.backend.tables.module.as_ref().and_then(|_| target_of(self.info()))).as_ref()
    }

    /// The kernel of a key, made by `make` where nobody made it before.
    pub(crate) fn load_kernel(&self, key: &str, make: &dyn Fn(&Target) -> Result<Compiled>) -> Result<Loaded> {
        let slot = {
            let mut slots = self.0.kernels.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.get(key) {
                Some(slot) => slot.clone(),
                None => slots.entry(key.to_owned()).or_default().clone(),
            }
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*slot {
            return known.clone();
        }
        let made = self.make_kernel(key, make);
        // A refusal will be the same next time; want of memory or a lost device may not.
        if made.as_ref().err().is_none_or(|e| matches!(e.code, Code::UNIMPLEMENTED | Code::INVALID_ARGUMENT)) {
            *slot = Some(made.clone());
        }
        made
    }

    /// Makes a kernel that belongs to the caller, from the disk cache where it is there.
    pub(crate) fn make_kernel(&self, key: &str, make: &dyn Fn(&Target) -> Result<Compiled>) -> Result<Loaded> {
        let started = std::time::Instant::now();
        let made = self.make_or_find(key, make);
        SPENT_NS.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        made
    }

    fn make_or_find(&self, key: &str, make: &dyn Fn(&Target) -> Result<Compiled>) -> Result<Loaded> {
        let driver = self.driver();
        driver.check_health()?;
        let target = self.target().ok_or_else(|| Error::unimplemented(format!("{} takes no kernels in a format this build writes", self.name())))?;
        let name = name(&[key, &format!("{target:?}"), COMPILER_ID, self.backend(), self.build_id(), &self.info().driver]);
        let kept = disk().and_then(|d| d.find(&name));
        if let Some(Entry { compiled, binary }) = kept {
            let from_binary = binary.as_ref().map(|b| self.open_module(target, key, b, true, &compiled));
            match from_binary {
                Some(Ok(loaded)) => {
                    FROM_DISK.fetch_add(1, Ordering::Relaxed);
                    return Ok(loaded);
                }
                // The binary is for another driver or build; its source is as good as before.
                Some(Err(e)) if e.code != Code::DATA_LOSS => return Err(e),
                _ => {}
            }
            let loaded = self.open_module(target, key, &compiled.code, false, &compiled)?;
            FROM_DISK.fetch_add(1, Ordering::Relaxed);
            if binary.is_some() {
                self.keep(&name, compiled, loaded);
            }
            return Ok(loaded);
        }
        let compiled = make(target)?;
        let loaded = self.open_module(target, key, &compiled.code, false, &compiled)?;
        COMPILED.fetch_add(1, Ordering::Relaxed);
        self.keep(&name, compiled, loaded);
        Ok(loaded)
    }

    fn keep(&self, name: &crate::cache::Name, compiled: Compiled, loaded: Loaded) {
        let Some(disk) = disk() else { return };
        // Backends without binaries have their sources kept.
        let binary = self.driver().module_binary(loaded.module).ok().filter(|b| !b.is_empty());
        disk.keep(name, &Entry { compiled, binary });
    }

    /// The backend's own binary of compiled code.
    pub fn kernel_binary(&self, compiled: &Compiled, format: KernelFormat) -> Result<Vec<u8>> {
        let driver = self.driver();
        let module = driver.compile(self.0.raw, format, false, &compiled.code, &compiled.options, &compiled.entry)?;
        let binary = driver.module_binary(module);
        driver.module_destroy(module).and(binary)
    }

    fn open_module(&self, target: &Target, key: &str, code: &[u8], is_binary: bool, compiled: &Compiled) -> Result<Loaded> {
        let driver = self.driver();
        let module = driver.compile(self.0.raw, target.format, is_binary, code, &compiled.options, key)?;
        let found = driver.kernel(module, &compiled.entry);
        let loaded = |kernel| Loaded { module, kernel, threads: compiled.threads, shared_bytes: compiled.shared_bytes };
        found.map(loaded).inspect_err(|_| {
            // The first error counts.
            let _ = driver.module_destroy(module);
        })
    }
}
