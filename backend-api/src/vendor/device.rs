//! The device table over a safe trait.

use crate::{DeviceInfo, DeviceKind, DeviceProbe, DeviceTable, KernelFormat, MemoryKind, Result, Status};

use super::export::{Backend, table};
use super::handle::{Handle, put};
use super::{Memory, Streams};
use crate::checked;

/// What `probe` says of one device.
#[derive(Clone, Debug)]
pub struct ProbeFacts {
    /// Usability, higher is better; 0: unusable.
    pub score: u32,
    /// What kind of chip it is.
    pub kind: DeviceKind,
    /// Product name.
    pub name: String,
    /// Target fingerprint: the architecture, not the board.
    pub arch: String,
    /// Driver name and version.
    pub driver: String,
    /// Why `score` is 0.
    pub reason: String,
    /// Unique id; zeros when there is none.
    pub uuid: [u8; 16],
    /// PCI address as domain << 16 | bus << 8 | device << 3 | function; all ones when there is none.
    pub pci: u64,
    /// [`caps`](crate::caps) bits.
    pub caps: u64,
}

/// Properties of an open device; text is borrowed from it.
#[derive(Clone, Debug)]
pub struct DeviceFacts<'a> {
    /// Product name.
    pub name: &'a str,
    /// Target fingerprint, as in the probe.
    pub arch: &'a str,
    /// Driver name and version.
    pub driver: &'a str,
    /// What kind of chip it is.
    pub kind: DeviceKind,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// [`caps`](crate::caps) bits.
    pub caps: u64,
    /// Cores or multiprocessors.
    pub compute_units: u32,
    /// Least alignment of buffers in bytes.
    pub alignment_bytes: u32,
    /// Memory kinds `alloc` accepts.
    pub memory_kinds: &'a [MemoryKind],
    /// Accepted kernel formats, best first.
    pub formats: &'a [KernelFormat],
    /// Greatest number of threads in a block.
    pub max_block_threads: u32,
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Smallest and greatest subgroup size; zeros when there are none.
    pub subgroup: (u32, u32),
    /// Greatest grid extents.
    pub max_grid: [u32; 3],
    /// Matrix-unit shapes as (m, n, k, dtype) quadruples.
    pub matrix_shapes: &'a [u32],
}

/// An open device. Methods are called from any thread, but for [`Streams`] methods that take a stream: one thread at a time per stream.
pub trait Device: Memory + Streams {
    /// Properties.
    fn facts(&self) -> DeviceFacts<'_>;
    /// Waits until all work is done; the first late error.
    fn sync(&self) -> Result<()>;
}

/// The device table of a backend.
pub(super) const fn device_table<B: Backend>() -> DeviceTable {
    DeviceTable {
        size: DeviceTable::SIZE,
        kind: DeviceTable::KIND,
        open: Some(open::<B>),
        close: Some(close::<B>),
        info: Some(info::<B>),
        sync: Some(sync::<B>),
        #[cfg(feature = "next-minor")]
        appended: None,
    }
}

/// The probe slot: at most `capacity` entries are written, `out_count` is how many there are.
///
/// # Safety
/// As the contract states for `probe`.
pub(super) unsafe extern "C" fn probe<B: Backend>(out: *mut DeviceProbe, capacity: u32, out_count: *mut u32) -> *mut Status {
    let state = B::state();
    state.guard(|| {
        let found = B::probe()?;
        // SAFETY: the host passes a writable count.
        unsafe { put(out_count, "out_count", found.len() as u32) }?;
        for (i, f) in found.iter().take(capacity as usize).enumerate() {
            let entry = DeviceProbe {
                size: DeviceProbe::SIZE,
                kind: DeviceProbe::KIND,
                score: f.score,
                device_kind: f.kind.0,
                name: state.text(&f.name),
                arch: state.text(&f.arch),
                driver: state.text(&f.driver),
                reason: state.text(&f.reason),
                uuid: f.uuid,
                pci: f.pci,
                caps: f.caps,
            };
            // SAFETY: the host's array has `capacity` entries of the size its first entry states; `write` keeps to each entry's own size.
            unsafe { checked::write(out.add(i), &entry) }?;
        }
        Ok(())
    })
}

unsafe extern "C" fn open<B: Backend>(ordinal: u32, out_device: *mut *mut crate::Device) -> *mut Status {
    B::state().guard(|| {
        let device = B::open(ordinal)?;
        let raw = Handle::give(table::<B>(), core::ptr::null(), device);
        // SAFETY: the host passes a writable place.
        unsafe { put(out_device, "out_device", raw) }
    })
}

unsafe extern "C" fn close<B: Backend>(device: *mut crate::Device) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back a device `open` made, once.
        drop(unsafe { Handle::<B::Device>::take(device, "device") }?);
        Ok(())
    })
}

unsafe extern "C" fn info<B: Backend>(device: *mut crate::Device, out_info: *mut DeviceInfo) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device of this backend.
        let f = unsafe { Handle::<B::Device>::of(device, "device") }?.value.facts();
        let memory_kinds = f.memory_kinds.iter().fold(0, |bits, k| bits | 1u64 << k.0);
        let info = DeviceInfo {
            size: DeviceInfo::SIZE,
            kind: DeviceInfo::KIND,
            name: crate::Str::borrowed(f.name),
            arch: crate::Str::borrowed(f.arch),
            driver: crate::Str::borrowed(f.driver),
            memory_bytes: f.memory_bytes,
            caps: f.caps,
            device_kind: f.kind.0,
            compute_units: f.compute_units,
            alignment_bytes: f.alignment_bytes,
            n_formats: f.formats.len() as u32,
            // KernelFormat is transparent over u32.
            formats: f.formats.as_ptr().cast(),
            max_block_threads: f.max_block_threads,
            shared_bytes: f.shared_bytes,
            subgroup_min: f.subgroup.0,
            subgroup_max: f.subgroup.1,
            max_grid: f.max_grid,
            n_matrix_shapes: f.matrix_shapes.len() as u32 / 4,
            matrix_shapes: f.matrix_shapes.as_ptr(),
            memory_kinds,
        };
        // SAFETY: the host passes a writable struct of the size it states.
        unsafe { checked::write(out_info, &info) }
    })
}

unsafe extern "C" fn sync<B: Backend>(device: *mut crate::Device) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device of this backend.
        unsafe { Handle::<B::Device>::of(device, "device") }?.value.sync()
    })
}
