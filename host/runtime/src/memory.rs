//! Buffers, and the caching pool they come from.
//!
//! Freed memory is kept by size class and handed out again. On devices whose launches return early a freed block waits
//! until every stream has passed the point of its release, so that no work in flight touches a block's next owner.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error, MemoryKind, Result};

use crate::device::{Device, DeviceInner};
use crate::driver::Raw;

/// Memory of a device. Cloning shares it; the last clone gives it back to the pool.
#[derive(Clone)]
pub struct Buffer(pub(crate) Arc<BufferInner>);

pub(crate) struct BufferInner {
    pub(crate) raw: Raw<abi::Buffer>,
    pub(crate) device: Device,
    pub(crate) bytes: u64,
    kind: MemoryKind,
    origin: Origin,
    /// Its first byte lies at a multiple of 16, as it does unless foreign memory was wrapped.
    pub(crate) aligned: bool,
}

/// Called when foreign memory is no longer used.
pub type Release = Box<dyn FnOnce() + Send + Sync>;

enum Origin {
    /// From the pool; the class size it was allocated with.
    Pool(u64),
    /// Wraps foreign memory: freed at once, never pooled.
    Imported(Option<Release>),
    /// The device's address space: never freed.
    AddressSpace,
}

impl Buffer {
    /// Length in bytes; all ones for a device's address space.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
    /// The device it belongs to.
    pub fn device(&self) -> &Device {
        &self.0.device
    }
    /// Where it lies.
    pub fn kind(&self) -> MemoryKind {
        self.0.kind
    }
    /// Address of its first byte as the device sees it; UNIMPLEMENTED where memory has none.
    pub fn device_ptr(&self) -> Result<u64> {
        self.0.device.driver().device_ptr(self.0.raw)
    }
    /// Host address of host-visible memory, valid while the buffer lives; UNIMPLEMENTED where the host cannot reach it.
    /// Contents are defined only while no stream works on the buffer.
    pub fn map(&self) -> Result<*mut u8> {
        self.0.device.driver().map(self.0.raw).map(|p| p.as_ptr())
    }
    /// Ends [`map`](Buffer::map).
    pub fn unmap(&self) -> Result<()> {
        self.0.device.driver().unmap(self.0.raw)
    }
    /// A native handle of the memory.
    pub fn export(&self, handle: abi::MemoryHandle) -> Result<abi::MemoryExport> {
        let mut desc = abi::MemoryExport {
            size: abi::MemoryExport::SIZE,
            kind: abi::MemoryExport::KIND,
            handle_kind: handle.0,
            memory_kind: self.0.kind.0,
            handle: 0,
            byte_offset: 0,
            bytes: self.0.bytes,
        };
        self.0.device.driver().export(self.0.raw, &mut desc)?;
        Ok(desc)
    }
    /// Refuses a range outside of the buffer.
    pub(crate) fn check_range(&self, offset: u64, bytes: u64) -> Result<()> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.0.bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!("range of {bytes} bytes at offset {offset} does not fit a buffer of {} bytes", self.0.bytes)))
    }
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Buffer({} bytes, {:?}, {})", self.0.bytes, self.0.kind, self.0.device.name())
    }
}

impl Drop for BufferInner {
    fn drop(&mut self) {
        match &mut self.origin {
            Origin::AddressSpace => {}
            Origin::Imported(release) => {
                let device = &self.device.0;
                // Foreign memory may go away right after this, so work in flight must be over.
                let done = if device.synchronous { Ok(()) } else { device.driver.device_sync(device.raw) };
                if let Err(e) = done.and_then(|()| device.driver.free(self.raw)) {
                    crate::log::warn(&format!("releasing imported memory: {e}"));
                }
                if let Some(release) = release.take() {
                    release();
                }
            }
            Origin::Pool(class) => self.device.0.pool.release(&self.device.0, self.raw, *class, self.kind, self.bytes),
        }
    }
}

/// What a device's memory looks like from the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryStatistics {
    /// Bytes of live buffers, as asked for.
    pub live_bytes: u64,
    /// Greatest `live_bytes` so far.
    pub peak_live_bytes: u64,
    /// Bytes taken from the backend, live and cached.
    pub reserved_bytes: u64,
    /// Greatest `reserved_bytes` so far.
    pub peak_reserved_bytes: u64,
    /// Allocations served.
    pub allocations: u64,
    /// Of these, served without a call into the backend.
    pub pool_hits: u64,
}

type Block = Raw<abi::Buffer>;

/// A block whose streams may not have passed its release yet.
struct Pending {
    block: Block,
    class: u64,
    kind: MemoryKind,
    marks: Vec<crate::stream::Mark>,
}

#[derive(Default)]
struct State {
    free: BTreeMap<(u32, u64), Vec<Block>>,
    pending: Vec<Pending>,
}

/// The pool of one device.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    live: AtomicU64,
    peak_live: AtomicU64,
    reserved: AtomicU64,
    peak_reserved: AtomicU64,
    allocations: AtomicU64,
    hits: AtomicU64,
}

/// Size class: eight steps per power of two (at most 12.5 % over), in units of at least 256 bytes.
fn class_of(bytes: u64) -> Option<u64> {
    let bytes = bytes.max(256);
    let step = (bytes.checked_next_power_of_two()? / 16).max(256);
    bytes.checked_next_multiple_of(step)
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alloc(&self, device: &Device, bytes: u64, kind: MemoryKind) -> Result<Buffer> {
        if bytes == 0 {
            return Err(Error::invalid("a buffer has at least 1 byte"));
        }
        let class = class_of(bytes).ok_or_else(|| Error::new(Code::RESOURCE_EXHAUSTED, format!("{bytes} bytes cannot be addressed")))?;
        device.0.layers.on_alloc(bytes)?;
        let raw = match self.take(&device.0, class, kind) {
            Some(raw) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                raw
            }
            None => self.fresh(&device.0, class, kind).map_err(|mut e| {
                let held = self.reserved.load(Ordering::Relaxed);
                e.message = format!("{} (asked for {bytes} bytes on {}; {held} bytes held by this process)", e.message, device.name());
                e
            })?,
        };
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_live.fetch_max(live, Ordering::Relaxed);
        Ok(Buffer(Arc::new(BufferInner { raw, device: device.clone(), bytes, kind, origin: Origin::Pool(class), aligned: true })))
    }

    fn take(&self, device: &DeviceInner, class: u64, kind: MemoryKind) -> Option<Block> {
        let mut state = self.state();
        if let Some(block) = state.free.get_mut(&(kind.0, class)).and_then(Vec::pop) {
            return Some(block);
        }
        if !state.pending.is_empty() {
            reclaim(&mut state, device, false);
            return state.free.get_mut(&(kind.0, class)).and_then(Vec::pop);
        }
        None
    }

    fn fresh(&self, device: &DeviceInner, class: u64, kind: MemoryKind) -> Result<Block> {
        device.driver.check_health()?;
        let block = match device.driver.alloc(device.raw, class, kind) {
            Err(e) if e.code == Code::RESOURCE_EXHAUSTED => {
                self.trim(device)?;
                device.driver.alloc(device.raw, class, kind)?
            }
            other => other?,
        };
        let reserved = self.reserved.fetch_add(class, Ordering::Relaxed) + class;
        self.peak_reserved.fetch_max(reserved, Ordering::Relaxed);
        Ok(block)
    }

    fn release(&self, device: &DeviceInner, block: Block, class: u64, kind: MemoryKind, bytes: u64) {
        self.live.fetch_sub(bytes, Ordering::Relaxed);
        let mut state = self.state();
        let marks = if device.synchronous { Vec::new() } else { device.stream_marks() };
        if marks.is_empty() {
            state.free.entry((kind.0, class)).or_default().push(block);
        } else {
            state.pending.push(Pending { block, class, kind, marks });
        }
    }

    /// Waits for the device and gives every cached block back to the backend.
    pub(crate) fn trim(&self, device: &DeviceInner) -> Result<()> {
        let mut state = self.state();
        if !state.pending.is_empty() {
            device.driver.device_sync(device.raw)?;
            reclaim(&mut state, device, true);
        }
        for ((_, class), blocks) in std::mem::take(&mut state.free) {
            for block in blocks {
                self.reserved.fetch_sub(class, Ordering::Relaxed);
                device.driver.free(block)?;
            }
        }
        drop(state);
        match device.driver.trim(device.raw) {
            Err(e) if e.code != Code::UNIMPLEMENTED => Err(e),
            _ => Ok(()),
        }
    }

    pub(crate) fn statistics(&self) -> MemoryStatistics {
        MemoryStatistics {
            live_bytes: self.live.load(Ordering::Relaxed),
            peak_live_bytes: self.peak_live.load(Ordering::Relaxed),
            reserved_bytes: self.reserved.load(Ordering::Relaxed),
            peak_reserved_bytes: self.peak_reserved.load(Ordering::Relaxed),
            allocations: self.allocations.load(Ordering::Relaxed),
            pool_hits: self.hits.load(Ordering::Relaxed),
        }
    }
}

/// Moves blocks whose streams have passed to the free lists; all of them when the device is known to be idle.
fn reclaim(state: &mut State, device: &DeviceInner, idle: bool) {
    for pending in std::mem::take(&mut state.pending) {
        if idle || device.passed(&pending.marks) {
            state.free.entry((pending.kind.0, pending.class)).or_default().push(pending.block);
        } else {
            state.pending.push(pending);
        }
    }
}

/// Wraps foreign memory of a device.
///
/// # Safety
/// The memory outlives the buffer and every launch that uses it; `release` says when that is over.
pub(crate) unsafe fn import(device: &Device, desc: &abi::MemoryExport, release: Option<Release>) -> Result<Buffer> {
    device.driver().check_health()?;
    // SAFETY: passed on to the caller.
    let raw = unsafe { device.driver().import(device.0.raw, desc) }?;
    let kind = MemoryKind(desc.memory_kind);
    // Other handles than addresses name whole allocations.
    let base = if abi::MemoryHandle(desc.handle_kind) == abi::MemoryHandle::POINTER { desc.handle } else { 0 };
    let aligned = base.wrapping_add(desc.byte_offset).is_multiple_of(16);
    Ok(Buffer(Arc::new(BufferInner { raw, device: device.clone(), bytes: desc.bytes, kind, origin: Origin::Imported(release), aligned })))
}

/// The device's address-space buffer: (this, offset = address) names any pointer.
pub(crate) fn address_space(device: &Device) -> Result<Buffer> {
    let raw = device.driver().address_space(device.0.raw)?;
    Ok(Buffer(Arc::new(BufferInner { raw, device: device.clone(), bytes: u64::MAX, kind: MemoryKind::DEVICE, origin: Origin::AddressSpace, aligned: true })))
}

#[cfg(test)]
mod tests {
    use super::class_of;

    #[test]
    fn classes_waste_little_and_never_shrink() {
        for bytes in (1..200_000u64).chain([1 << 30, (1 << 30) + 1, 3 << 33]) {
            let class = class_of(bytes).unwrap();
            assert!(class >= bytes);
            assert!(bytes < 4096 || (class - bytes) as f64 <= 0.125 * bytes as f64, "{bytes} → {class}");
        }
        assert_eq!(class_of(u64::MAX), None);
    }
}
