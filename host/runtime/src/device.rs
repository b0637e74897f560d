//! Open devices.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use flagos_backend_api as abi;
use flagos_backend_api::{DeviceKind, KernelFormat, MemoryKind, Result};

use crate::driver::{Driver, Raw, text};
use crate::layers::Layers;
use crate::memory::{Buffer, MemoryStatistics, Pool};
use crate::module::Kernels;
use crate::registry::Inner;
use crate::stream::{Event, Mark, Progress, Stream};

/// An open device. Cloning shares it.
#[derive(Clone)]
pub struct Device(pub(crate) Arc<DeviceInner>);

pub(crate) struct DeviceInner {
    pub(crate) runtime: Arc<Inner>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) raw: Raw<abi::Device>,
    pub(crate) serial: u32,
    pub(crate) synchronous: bool,
    pub(crate) pool: Pool,
    pub(crate) layers: Layers,
    pub(crate) kernels: Kernels,
    name: String,
    info: DeviceInfo,
    streams: Mutex<Vec<Weak<Progress>>>,
}

/// Properties of an open device, owned.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeviceInfo {
    /// Product name.
    pub name: String,
    /// Target fingerprint (architecture).
    pub arch: String,
    /// Driver name and version.
    pub driver: String,
    /// `CPU`, `GPU` or `ACCELERATOR`.
    pub kind: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Capability bits ([`abi::caps`]).
    pub caps: u64,
    /// Cores or multiprocessors.
    pub compute_units: u32,
    /// Least alignment of buffers in bytes.
    pub alignment_bytes: u32,
    /// Kernel formats by name ("opencl-c"), best first; empty: takes no portable kernels.
    pub formats: Vec<String>,
    /// The same as values.
    #[serde(skip)]
    pub kernel_formats: Vec<KernelFormat>,
    /// Greatest number of threads in a block.
    pub max_block_threads: u32,
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Subgroup sizes, smallest and greatest.
    pub subgroup: (u32, u32),
    /// Greatest number of blocks per axis.
    pub max_grid: [u32; 3],
    /// Shapes of the matrix unit: m, n, k, and the factors' element type as its four bytes.
    pub matrix_shapes: Vec<[u32; 4]>,
    /// Bit set of memory kinds `alloc` accepts.
    pub memory_kinds: u64,
}

impl DeviceInfo {
    fn of(raw: &abi::DeviceInfo) -> DeviceInfo {
        let formats = if raw.formats.is_null() {
            Vec::new()
        } else {
            // SAFETY: the backend states that `formats` holds `n_formats` entries for the life of the device; the count is capped.
            unsafe { core::slice::from_raw_parts(raw.formats, raw.n_formats.min(64) as usize) }.to_vec()
        };
        let kernel_formats: Vec<KernelFormat> = formats.into_iter().map(KernelFormat).collect();
        let matrix_shapes = if raw.matrix_shapes.is_null() {
            Vec::new()
        } else {
            // SAFETY: the backend states that the list holds four words per shape for the life of the device; the count is capped.
            let words = unsafe { core::slice::from_raw_parts(raw.matrix_shapes, raw.n_matrix_shapes.min(64) as usize * 4) };
            words.chunks_exact(4).map(|w| [w[0], w[1], w[2], w[3]]).collect()
        };
        DeviceInfo {
            name: text(raw.name),
            arch: text(raw.arch),
            driver: text(raw.driver),
            kind: DeviceKind(raw.device_kind).to_string(),
            memory_bytes: raw.memory_bytes,
            caps: raw.caps,
            compute_units: raw.compute_units,
            alignment_bytes: raw.alignment_bytes,
            formats: kernel_formats.iter().map(|f| crate::module::format_name(*f).to_owned()).collect(),
            kernel_formats,
            max_block_threads: raw.max_block_threads,
            shared_bytes: raw.shared_bytes,
            subgroup: (raw.subgroup_min, raw.subgroup_max),
            max_grid: raw.max_grid,
            matrix_shapes,
            memory_kinds: raw.memory_kinds,
        }
    }
}

impl Device {
    pub(crate) fn open(runtime: &Arc<Inner>, driver: &Arc<Driver>, ordinal: u32, serial: u32) -> Result<Device> {
        driver.check_health()?;
        let raw = driver.open(ordinal)?;
        let info = match driver.info(raw) {
            Ok(info) => DeviceInfo::of(&info),
            Err(e) => {
                driver.close(raw)?;
                return Err(e);
            }
        };
        Ok(Device(Arc::new(DeviceInner {
            runtime: runtime.clone(),
            driver: driver.clone(),
            raw,
            serial,
            synchronous: info.caps & abi::caps::SYNCHRONOUS != 0,
            pool: Pool::default(),
            layers: Layers::compose(&runtime.policy().layers)?,
            kernels: Kernels::default(),
            name: format!("{}:{ordinal}", driver.backend.name),
            info,
            streams: Mutex::new(Vec::new()),
        })))
    }

    /// `backend:ordinal`.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Name of its backend.
    pub fn backend(&self) -> &str {
        &self.0.driver.backend.name
    }
    /// Build id of its backend.
    pub fn build_id(&self) -> &str {
        &self.0.driver.backend.build_id
    }
    /// Its properties.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }
    /// The runtime it was opened from.
    pub fn runtime(&self) -> crate::Runtime {
        crate::Runtime(self.0.runtime.clone())
    }
    /// Allocates device memory; contents are undefined.
    pub fn alloc(&self, bytes: u64) -> Result<Buffer> {
        self.alloc_kind(bytes, MemoryKind::DEVICE)
    }
    /// Allocates memory of a kind.
    pub fn alloc_kind(&self, bytes: u64, kind: MemoryKind) -> Result<Buffer> {
        self.0.pool.alloc(self, bytes, kind)
    }
    /// Wraps foreign memory.
    ///
    /// # Safety
    /// The memory named by `desc` outlives the buffer and every launch that uses it.
    pub unsafe fn import(&self, desc: &abi::MemoryExport) -> Result<Buffer> {
        // SAFETY: passed on to the caller.
        unsafe { crate::memory::import(self, desc, None) }
    }
    /// Wraps foreign memory whose owner is told when the last use is over.
    ///
    /// # Safety
    /// The memory named by `desc` stays valid until `release` is called. On an error `release` is dropped without a call.
    pub unsafe fn import_owned(&self, desc: &abi::MemoryExport, release: crate::memory::Release) -> Result<Buffer> {
        // SAFETY: passed on to the caller.
        unsafe { crate::memory::import(self, desc, Some(release)) }
    }
    /// The buffer in which an offset is an address; UNIMPLEMENTED on devices without plain addresses.
    pub fn address_space(&self) -> Result<Buffer> {
        crate::memory::address_space(self)
    }
    /// Creates a stream.
    pub fn stream(&self) -> Result<Stream> {
        Stream::create(self, 0, 0)
    }
    /// Creates a stream with a priority, or wraps the vendor's queue where `native` is not 0.
    pub fn stream_with(&self, priority: i32, native: u64) -> Result<Stream> {
        Stream::create(self, priority, native)
    }
    /// Creates a timeline.
    pub fn event(&self) -> Result<Event> {
        Event::create(self)
    }
    /// Waits for all work of the device.
    pub fn sync(&self) -> Result<()> {
        self.0.driver.device_sync(self.0.raw)
    }
    /// Memory as the host sees it.
    pub fn memory_statistics(&self) -> MemoryStatistics {
        self.0.pool.statistics()
    }
    /// Total and free bytes as the driver says.
    pub fn memory_info(&self) -> Result<(u64, u64)> {
        self.0.driver.memory_info(self.0.raw)
    }
    /// Gives cached memory back to the backend.
    pub fn trim(&self) -> Result<()> {
        self.0.pool.trim(&self.0)
    }
    /// Host memory the backend holds through the host's allocator, in bytes.
    pub fn host_bytes(&self) -> u64 {
        crate::discover::host_bytes(&self.0.driver.backend.name)
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.0.driver
    }
}

impl DeviceInner {
    pub(crate) fn watch(&self, progress: &Arc<Progress>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|s| s.strong_count() > 0);
        streams.push(Arc::downgrade(progress));
    }

    /// Where each stream of the device stands now; streams with nothing left to do are left out.
    pub(crate) fn stream_marks(&self) -> Vec<Mark> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().filter_map(Weak::upgrade).filter_map(|p| p.mark()).collect()
    }

    pub(crate) fn passed(&self, marks: &[Mark]) -> bool {
        marks.iter().all(Mark::passed)
    }
}

impl Drop for DeviceInner {
    fn drop(&mut self) {
        self.kernels.clear(&self.driver);
        let closed = self.pool.trim(self).and_then(|()| self.driver.close(self.raw));
        if let Err(e) = closed
            && self.driver.quarantine_reason().is_none()
        {
            crate::log::warn(&format!("closing {}: {e}", self.name));
        }
    }
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Device({}, {})", self.0.name, self.0.info.name)
    }
}
