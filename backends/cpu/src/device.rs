//! The device: properties of the processor.

use std::sync::LazyLock;

use flagos_backend_api::vendor::{Device, DeviceFacts};
use flagos_backend_api::{DeviceKind, KernelFormat, MemoryKind, Result, caps};

use crate::pool::Pool;
use crate::target::Target;
use crate::toolchain;

/// Capability bits.
pub const CAPS: u64 = caps::ADDRESS_SPACE | caps::HOST_VISIBLE | caps::SYNCHRONOUS | caps::FP64 | caps::INT64 | caps::ATOMIC64;

/// Least alignment of buffers in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Most memory of a block in bytes. Of what a kernel does not use no page is ever touched.
pub const SHARED_BYTES: u32 = 16 << 20;

/// The processor.
pub struct CpuDevice {
    pub(crate) pool: &'static Pool,
    memory_bytes: u64,
}

impl CpuDevice {
    pub(crate) fn new() -> CpuDevice {
        static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(Target::host().threads));
        CpuDevice { pool: &POOL, memory_bytes: memory_bytes().0 }
    }
}

impl Device for CpuDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: product(),
            arch: Target::host().isa.name(),
            driver: "",
            kind: DeviceKind::CPU,
            memory_bytes: self.memory_bytes,
            caps: CAPS,
            compute_units: Target::host().threads as u32,
            alignment_bytes: ALIGNMENT as u32,
            memory_kinds: &[MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::UNIFIED, MemoryKind::DEVICE_HOST_VISIBLE, MemoryKind::HOST],
            formats: if toolchain::system().is_ok() { &[KernelFormat::C] } else { &[] },
            max_block_threads: 1,
            shared_bytes: SHARED_BYTES,
            subgroup: (0, 0),
            max_grid: [u32::MAX; 3],
            matrix_shapes: &[],
        }
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Product name of the processor.
pub fn product() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with("model name"));
        line.and_then(|l| l.split_once(':')).map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
    });
    &NAME
}

/// Total and available memory in bytes.
pub fn memory_bytes() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().split(' ').next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    (field("MemTotal:").unwrap_or(0), field("MemAvailable:").unwrap_or(0))
}
