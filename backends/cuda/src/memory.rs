//! Memory: device memory from the pool, pinned and managed memory, foreign memory, copies and fills.

use std::sync::Arc;

use cudarc::driver::sys;
use flagos_backend_api::vendor::{AllocRequest, Memory};
use flagos_backend_api::{Code, Error, MemoryExport, MemoryHandle, MemoryKind, Result};

use crate::device::{Chip, CudaDevice, lock};
use crate::driver::{Shared, check};
use crate::pool::Taken;
use crate::stream::CudaStream;

pub use crate::pool::Pool;

/// Alignment of the driver's host allocations in bytes.
const PAGE: u64 = 4096;
/// A fill with a pattern the driver does not have begins with so many bytes, and doubles them.
const SEED_BYTES: u64 = 64 << 10;
/// Bytes of pageable memory the driver copies into its own queue when a write is enqueued.
const TAKEN_ALONG: u64 = 64 << 10;

/// A range of memory; the address-space buffer has address 0 and no end.
pub struct CudaBuffer {
    address: u64,
    bytes: u64,
    kind: MemoryKind,
    /// Where the host sees it.
    host: Option<Shared<*mut u8>>,
    origin: Origin,
    chip: Arc<Chip>,
}

enum Origin {
    Pool(Option<Taken>),
    /// From `cuMemHostAlloc`: its address.
    Pinned(Shared<*mut u8>),
    /// From `cuMemAllocManaged`: its address.
    Managed(u64),
    /// Made known to the driver by this buffer.
    Registered(Shared<*mut u8>),
    /// Somebody else's, or every address.
    Foreign,
}

impl CudaBuffer {
    /// Address of a byte; the caller checked the range.
    #[inline]
    pub(crate) fn at(&self, offset: u64) -> u64 {
        self.address.wrapping_add(offset)
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if let Origin::Pool(taken) = &mut self.origin {
            let guards = matches!(taken, Some(Taken::Direct(_))).then(|| self.chip.enter_aside());
            if let Some(taken) = taken.take() {
                lock(&self.chip.pool).give(taken);
            }
            drop(guards);
            return;
        }
        if matches!(self.origin, Origin::Foreign) {
            return;
        }
        let Ok(_aside) = self.chip.enter_aside() else { return };
        // SAFETY: each origin names what the driver handed out for this buffer, given back once; the host frees only what no work uses.
        unsafe {
            match &self.origin {
                Origin::Pinned(base) => sys::cuMemFreeHost(base.0.cast()),
                Origin::Managed(base) => sys::cuMemFree_v2(*base),
                Origin::Registered(base) => sys::cuMemHostUnregister(base.0.cast()),
                Origin::Pool(_) | Origin::Foreign => return,
            }
        };
    }
}

impl CudaDevice {
    fn pooled(&self, request: &AllocRequest) -> Result<CudaBuffer> {
        let mut pool = lock(&self.chip.pool);
        let taken = match pool.take(request.bytes, request.alignment_bytes) {
            Some(taken) => taken,
            None => {
                self.chip.alive()?;
                let _aside = self.chip.enter_aside()?;
                self.chip.told(pool.take_more(request.bytes, request.alignment_bytes))?
            }
        };
        drop(pool);
        let (Taken::Piece(_, address) | Taken::Direct(address)) = taken;
        Ok(CudaBuffer { address, bytes: request.bytes, kind: request.kind, host: None, origin: Origin::Pool(Some(taken)), chip: self.chip.clone() })
    }

    fn reachable(&self, request: &AllocRequest) -> Result<CudaBuffer> {
        let exhausted = |why: &str| Error::new(Code::RESOURCE_EXHAUSTED, format!("{} bytes of {} memory are not to be had: {why}", request.bytes, request.kind));
        let slack = if request.alignment_bytes > PAGE { request.alignment_bytes } else { 0 };
        // No machine has so much; the driver's answers to absurd sizes differ.
        let bytes = request.bytes.checked_add(slack).filter(|b| *b < 1 << 46).ok_or_else(|| exhausted("that is more than there is"))? as usize;
        let _aside = self.chip.enter_aside()?;
        let (mut base, mut address) = (core::ptr::null_mut(), 0);
        let pinned = request.kind == MemoryKind::HOST_PINNED;
        // SAFETY: the context is current; the places are writable.
        let made = unsafe {
            if pinned {
                check(sys::cuMemHostAlloc(&mut base, bytes, sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP), "cuMemHostAlloc")
            } else {
                check(sys::cuMemAllocManaged(&mut address, bytes, sys::CUmemAttach_flags_enum::CU_MEM_ATTACH_GLOBAL as u32), "cuMemAllocManaged")
            }
        };
        self.chip.told(made).map_err(|e| if e.code == Code::DEVICE_LOST { e } else { exhausted(&e.message) })?;
        // Addresses are unified: the device sees pinned memory where the host does.
        let base_address = if pinned { base as u64 } else { address };
        let origin = if pinned { Origin::Pinned(Shared(base.cast())) } else { Origin::Managed(address) };
        let address = base_address.next_multiple_of(request.alignment_bytes.max(1));
        let host = Some(Shared(address as usize as *mut u8));
        Ok(CudaBuffer { address, bytes: request.bytes, kind: request.kind, host, origin, chip: self.chip.clone() })
    }

    /// Sets `bytes` from `address` to a pattern, by sets of the driver's widths.
    fn set(&self, stream: &CudaStream, address: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        let width = pattern.len() as u64;
        // The widest unit both the address and the pattern are made of.
        let unit = [4, 2, 1].into_iter().find(|u| address.is_multiple_of(*u) && width.is_multiple_of(*u)).unwrap_or(1);
        let (lanes, rows) = (pattern.chunks_exact(unit as usize), (bytes / width) as usize);
        let plain = width == unit;
        for (lane, value) in lanes.enumerate() {
            let (at, s) = (address + lane as u64 * unit, stream.raw());
            let word = value.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
            // SAFETY: the glue checked the range; the address is a multiple of the unit. A lane is a column of one unit with the pattern as its pitch.
            let answer = unsafe {
                match (unit, plain) {
                    (4, true) => sys::cuMemsetD32Async(at, word, rows, s),
                    (2, true) => sys::cuMemsetD16Async(at, word as u16, rows, s),
                    (_, true) => sys::cuMemsetD8Async(at, word as u8, rows, s),
                    (4, false) => sys::cuMemsetD2D32Async(at, width as usize, word, 1, rows, s),
                    (2, false) => sys::cuMemsetD2D16Async(at, width as usize, word as u16, 1, rows, s),
                    (_, false) => sys::cuMemsetD2D8Async(at, width as usize, word as u8, 1, rows, s),
                }
            };
            check(answer, "cuMemsetAsync")?;
        }
        Ok(())
    }

    /// A copy between any two addresses the driver knows, or host memory it does not.
    fn transfer(&self, stream: &CudaStream, dst: u64, src: u64, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _entered = self.chip.enter()?;
        // SAFETY: the glue checked the device's ranges, the host vouches for its own.
        self.chip.told(check(unsafe { sys::cuMemcpyAsync(dst, src, bytes as usize, stream.raw()) }, "cuMemcpyAsync"))
    }
}

impl CudaDevice {
    fn host_waits(&self, stream: &CudaStream, host: u64) -> Result<bool> {
        let _entered = self.chip.enter()?;
        Ok(stream.must_pass_waits(host))
    }
}

impl Memory for CudaDevice {
    type Buffer = CudaBuffer;

    fn alloc(&self, request: &AllocRequest) -> Result<CudaBuffer> {
        match request.kind {
            MemoryKind::DEVICE => self.pooled(request),
            MemoryKind::HOST_PINNED | MemoryKind::UNIFIED => self.reachable(request),
            other => Err(Error::unimplemented(format!("memory of kind {other} is not offered; DEVICE, HOST_PINNED and UNIFIED are"))),
        }
    }
    fn bytes(&self, buffer: &CudaBuffer) -> u64 {
        buffer.bytes
    }
    unsafe fn read(&self, stream: &CudaStream, src: &CudaBuffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        if bytes > 0 && self.host_waits(stream, dst as u64)? {
            stream.pass_waits()?;
        }
        self.transfer(stream, dst as u64, src.at(offset), bytes)
    }
    unsafe fn write(&self, stream: &CudaStream, dst: &CudaBuffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        // What is short the driver takes along at once.
        if bytes > TAKEN_ALONG && self.host_waits(stream, src as u64)? {
            stream.pass_waits()?;
        }
        self.transfer(stream, dst.at(offset), src as u64, bytes)
    }
    fn copy(&self, stream: &CudaStream, dst: &CudaBuffer, dst_offset: u64, src: &CudaBuffer, src_offset: u64, bytes: u64) -> Result<()> {
        self.transfer(stream, dst.at(dst_offset), src.at(src_offset), bytes)
    }
    fn fill(&self, stream: &CudaStream, dst: &CudaBuffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // A pattern that repeats within itself is the shorter one.
        let width = [1, 2, 4, 8, 16].into_iter().find(|w| pattern.chunks(*w).all(|c| c == &pattern[..*w])).unwrap_or(pattern.len());
        let (pattern, address) = (&pattern[..width], dst.at(offset));
        let _entered = self.chip.enter()?;
        let one_set = width <= 4 && address.is_multiple_of(width as u64);
        let mut done = if one_set { bytes } else { bytes.min(SEED_BYTES) };
        self.chip.told(self.set(stream, address, pattern, done))?;
        while done < bytes {
            let next = done.min(bytes - done);
            self.transfer(stream, address + done, address, next)?;
            done += next;
        }
        Ok(())
    }
    fn device_ptr(&self, buffer: &CudaBuffer) -> Result<u64> {
        Ok(buffer.address)
    }
    fn map(&self, buffer: &CudaBuffer) -> Result<*mut u8> {
        buffer.host.map(|h| h.0).ok_or_else(|| Error::unimplemented(format!("memory of kind {} cannot be mapped; HOST_PINNED and UNIFIED can", buffer.kind)))
    }
    fn address_space(&self) -> Result<CudaBuffer> {
        Ok(CudaBuffer { address: 0, bytes: u64::MAX, kind: MemoryKind::DEVICE, host: None, origin: Origin::Foreign, chip: self.chip.clone() })
    }
    fn import(&self, foreign: &MemoryExport) -> Result<CudaBuffer> {
        if MemoryHandle(foreign.handle_kind) != MemoryHandle::POINTER || foreign.handle == 0 {
            return Err(Error::unimplemented(format!("handles of kind {} cannot be imported; only addresses other than 0", MemoryHandle(foreign.handle_kind))));
        }
        let address = foreign.handle.wrapping_add(foreign.byte_offset);
        let kind = MemoryKind(foreign.memory_kind);
        let mut buffer = CudaBuffer { address, bytes: foreign.bytes, kind, host: None, origin: Origin::Foreign, chip: self.chip.clone() };
        let _aside = self.chip.enter_aside()?;
        let mut memory_type = 0u32;
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        // SAFETY: the driver looks the address up in its own tables; the place is writable.
        let known = unsafe { sys::cuPointerGetAttribute((&raw mut memory_type).cast(), attribute, address) } == sys::CUresult::CUDA_SUCCESS && memory_type != 0;
        let host = address as usize as *mut u8;
        if known {
            let on_device = memory_type == sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32;
            buffer.host = (!on_device).then_some(Shared(host));
            return Ok(buffer);
        }
        if !matches!(kind, MemoryKind::HOST | MemoryKind::HOST_PINNED) {
            return Err(Error::invalid(format!("address {address:#x} is not known to the driver as {kind} memory; host memory is imported with kind HOST")));
        }
        // SAFETY: the caller vouches that the memory outlives the buffer, which takes the registration back.
        let registered = unsafe { sys::cuMemHostRegister_v2(host.cast(), foreign.bytes as usize, sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP) };
        check(registered, "cuMemHostRegister")?;
        (buffer.host, buffer.origin) = (Some(Shared(host)), Origin::Registered(Shared(host)));
        // SAFETY: the memory was just registered for all contexts; the place is writable.
        check(unsafe { sys::cuMemHostGetDevicePointer_v2(&mut buffer.address, host.cast(), 0) }, "cuMemHostGetDevicePointer")?;
        Ok(buffer)
    }
    fn export(&self, buffer: &CudaBuffer, export: &mut MemoryExport) -> Result<()> {
        if MemoryHandle(export.handle_kind) != MemoryHandle::POINTER {
            return Err(Error::unimplemented(format!("handles of kind {} are not exported; only addresses", MemoryHandle(export.handle_kind))));
        }
        (export.handle, export.byte_offset, export.bytes, export.memory_kind) = (buffer.address, 0, buffer.bytes, buffer.kind.0);
        Ok(())
    }
    fn memory_info(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        let _aside = self.chip.enter_aside()?;
        // SAFETY: the context is current; the places are writable.
        self.chip.told(check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo"))?;
        Ok((total as u64, free as u64))
    }
    fn trim(&self) -> Result<()> {
        let _aside = self.chip.enter_aside()?;
        lock(&self.chip.pool).trim();
        Ok(())
    }
    fn can_copy_from(&self, src: &Self) -> bool {
        if Arc::ptr_eq(&self.chip, &src.chip) {
            return true;
        }
        let mut can = 0;
        // SAFETY: the driver has started; the place is writable.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&mut can, self.chip.device.0, src.chip.device.0) };
        asked == sys::CUresult::CUDA_SUCCESS && can != 0 && src.chip.enter_aside().is_ok_and(|_aside| lock(&src.chip.pool).allow(self.chip.device))
    }
}
