//! The memory table over a safe trait.

use core::ffi::c_void;

use crate::{AllocDesc, Error, MemoryExport, MemoryInfo, MemoryKind, MemoryTable, Result, Status};

use super::export::{Backend, table};
use super::Streams;
use super::handle::{Handle, put};
use crate::checked::{self, null};

/// A request for memory, checked: at least one byte, alignment a power of two or 0.
#[derive(Clone, Copy, Debug)]
pub struct AllocRequest {
    /// Bytes.
    pub bytes: u64,
    /// Least alignment in bytes, a power of two; 0 for the device's default.
    pub alignment_bytes: u64,
    /// Kind of memory.
    pub kind: MemoryKind,
}

/// Memory of a device. `Ok(None)`-like absence is told by UNIMPLEMENTED, which is what the provided methods answer.
///
/// Host addresses given to `read` and `write` stay valid until the stream passed the copy; the host keeps that promise.
pub trait Memory: Streams {
    /// A range of memory.
    type Buffer: Send + Sync + 'static;

    /// Allocates; RESOURCE_EXHAUSTED when there is no more.
    fn alloc(&self, request: &AllocRequest) -> Result<Self::Buffer>;
    /// Bytes of a buffer, against which every range is checked; all ones for the address space.
    fn bytes(&self, buffer: &Self::Buffer) -> u64;
    /// Enqueues a copy to host memory.
    ///
    /// # Safety
    /// `dst` is writable for `bytes` until the stream passed the copy.
    unsafe fn read(&self, stream: &Self::Stream, src: &Self::Buffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()>;
    /// Enqueues a copy from host memory.
    ///
    /// # Safety
    /// `src` is readable and unchanged for `bytes` until the stream passed the copy.
    unsafe fn write(&self, stream: &Self::Stream, dst: &Self::Buffer, offset: u64, src: *const u8, bytes: u64) -> Result<()>;
    /// Enqueues a copy within this backend; ranges do not overlap.
    fn copy(&self, stream: &Self::Stream, dst: &Self::Buffer, dst_offset: u64, src: &Self::Buffer, src_offset: u64, bytes: u64) -> Result<()>;
    /// Enqueues a fill with a pattern of 1, 2, 4, 8 or 16 bytes that divides `bytes`.
    fn fill(&self, stream: &Self::Stream, dst: &Self::Buffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()>;
    /// Address as the device sees it.
    fn device_ptr(&self, _buffer: &Self::Buffer) -> Result<u64> {
        Err(Error::unimplemented("this memory has no address"))
    }
    /// Makes host-visible memory readable and writable by the host.
    fn map(&self, _buffer: &Self::Buffer) -> Result<*mut u8> {
        Err(Error::unimplemented("this memory cannot be mapped"))
    }
    /// Ends a mapping.
    fn unmap(&self, _buffer: &Self::Buffer) -> Result<()> {
        Ok(())
    }
    /// A buffer that names any address of the device; called once per device.
    fn address_space(&self) -> Result<Self::Buffer> {
        Err(Error::unimplemented("this device has no address-space buffer"))
    }
    /// Wraps foreign memory, which outlives the buffer.
    fn import(&self, _foreign: &MemoryExport) -> Result<Self::Buffer> {
        Err(Error::unimplemented("memory cannot be imported"))
    }
    /// Hands out a native handle of the kind `export.handle_kind` wishes.
    fn export(&self, _buffer: &Self::Buffer, _export: &mut MemoryExport) -> Result<()> {
        Err(Error::unimplemented("memory cannot be exported"))
    }
    /// (total, free) bytes.
    fn memory_info(&self) -> Result<(u64, u64)> {
        Err(Error::unimplemented("the memory state is unknown"))
    }
    /// Returns cached memory to the driver.
    fn trim(&self) -> Result<()> {
        Ok(())
    }
    /// Whether `copy` can move directly from `src`'s memory to this device's.
    fn can_copy_from(&self, src: &Self) -> bool {
        core::ptr::eq(self, src)
    }
}

type Buffer<B> = <<B as Backend>::Device as Memory>::Buffer;
type Stream<B> = <<B as Backend>::Device as Streams>::Stream;

/// The memory table of a backend.
pub(super) const fn memory_table<B: Backend>() -> MemoryTable {
    MemoryTable {
        size: MemoryTable::SIZE,
        kind: MemoryTable::KIND,
        alloc: Some(alloc::<B>),
        free: Some(free::<B>),
        read: Some(read::<B>),
        write: Some(write::<B>),
        copy: Some(copy::<B>),
        fill: Some(fill::<B>),
        device_ptr: Some(device_ptr::<B>),
        map: Some(map::<B>),
        unmap: Some(unmap::<B>),
        address_space: Some(address_space::<B>),
        import: Some(import::<B>),
        export: Some(export::<B>),
        info: Some(info::<B>),
        trim: Some(trim::<B>),
        can_copy: Some(can_copy::<B>),
    }
}

/// A buffer with the device it belongs to.
///
/// # Safety
/// `raw` is NULL or a live buffer of backend `B`.
unsafe fn buffer<'a, B: Backend>(raw: *mut crate::Buffer, what: &str) -> Result<(&'a B::Device, &'a Buffer<B>)> {
    // SAFETY: stated by the caller; a buffer's device outlives it by contract.
    unsafe {
        let handle = Handle::<Buffer<B>>::of(raw, what)?;
        Ok((handle.device::<B::Device>(), &handle.value))
    }
}

/// # Safety
/// `raw` is NULL or a live stream of backend `B`.
unsafe fn stream<'a, B: Backend>(raw: *mut crate::Stream) -> Result<&'a Stream<B>> {
    // SAFETY: stated by the caller.
    Ok(&unsafe { Handle::<Stream<B>>::of(raw, "stream") }?.value)
}

/// # Safety
/// `raw` is NULL or an open device of backend `B`.
unsafe fn device<'a, B: Backend>(raw: *mut crate::Device) -> Result<&'a B::Device> {
    // SAFETY: stated by the caller.
    Ok(&unsafe { Handle::<B::Device>::of(raw, "device") }?.value)
}

fn range<M: Memory>(device: &M, buffer: &M::Buffer, offset: u64, bytes: u64) -> Result<()> {
    let have = device.bytes(buffer);
    if have != u64::MAX && offset.checked_add(bytes).is_none_or(|end| end > have) {
        return Err(Error::invalid(format!("bytes {offset} to {offset} + {bytes} lie outside of a buffer of {have} bytes")));
    }
    Ok(())
}

unsafe extern "C" fn alloc<B: Backend>(raw: *mut crate::Device, desc: *const AllocDesc, out_buffer: *mut *mut crate::Buffer) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and a struct of the size it states.
        let (device, desc) = unsafe { (device::<B>(raw)?, checked::read(desc)?) };
        if desc.bytes == 0 || (desc.alignment_bytes != 0 && !desc.alignment_bytes.is_power_of_two()) || desc.flags != 0 {
            return Err(Error::invalid(format!(
                "an allocation of {} bytes, alignment {}, flags {:#x}: at least 1 byte, a power of two or 0, and 0 are possible",
                desc.bytes, desc.alignment_bytes, desc.flags
            )));
        }
        let request = AllocRequest { bytes: desc.bytes, alignment_bytes: desc.alignment_bytes, kind: MemoryKind(desc.memory_kind) };
        let handle = Handle::give(table::<B>(), raw.cast_const().cast(), device.alloc(&request)?);
        // SAFETY: the host passes a writable place.
        unsafe { put(out_buffer, "out_buffer", handle) }
    })
}

unsafe extern "C" fn free<B: Backend>(raw: *mut crate::Buffer) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back a buffer of this backend, once.
        drop(unsafe { Handle::<Buffer<B>>::take(raw, "buffer") }?);
        Ok(())
    })
}

unsafe extern "C" fn read<B: Backend>(s: *mut crate::Stream, src: *mut crate::Buffer, offset: u64, dst: *mut c_void, bytes: u64) -> *mut Status {
    B::state().guard(|| {
        if dst.is_null() {
            return Err(null("dst"));
        }
        // SAFETY: the host passes live objects of this backend and keeps `dst` valid until the stream passed the copy.
        unsafe {
            let (device, src) = buffer::<B>(src, "src")?;
            range(device, src, offset, bytes)?;
            device.read(stream::<B>(s)?, src, offset, dst.cast(), bytes)
        }
    })
}

unsafe extern "C" fn write<B: Backend>(s: *mut crate::Stream, dst: *mut crate::Buffer, offset: u64, src: *const c_void, bytes: u64) -> *mut Status {
    B::state().guard(|| {
        if src.is_null() {
            return Err(null("src"));
        }
        // SAFETY: the host passes live objects of this backend and keeps `src` valid until the stream passed the copy.
        unsafe {
            let (device, dst) = buffer::<B>(dst, "dst")?;
            range(device, dst, offset, bytes)?;
            device.write(stream::<B>(s)?, dst, offset, src.cast(), bytes)
        }
    })
}

unsafe extern "C" fn copy<B: Backend>(
    s: *mut crate::Stream,
    dst: *mut crate::Buffer,
    dst_offset: u64,
    src: *mut crate::Buffer,
    src_offset: u64,
    bytes: u64,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes live objects of this backend.
        unsafe {
            let ((device, dst), (from, src)) = (buffer::<B>(dst, "dst")?, buffer::<B>(src, "src")?);
            range(device, dst, dst_offset, bytes)?;
            range(from, src, src_offset, bytes)?;
            device.copy(stream::<B>(s)?, dst, dst_offset, src, src_offset, bytes)
        }
    })
}

unsafe extern "C" fn fill<B: Backend>(
    s: *mut crate::Stream,
    dst: *mut crate::Buffer,
    offset: u64,
    pattern: *const c_void,
    pattern_bytes: u32,
    bytes: u64,
) -> *mut Status {
    B::state().guard(|| {
        if pattern.is_null() {
            return Err(null("pattern"));
        }
        if ![1, 2, 4, 8, 16].contains(&pattern_bytes) || !bytes.is_multiple_of(u64::from(pattern_bytes)) {
            return Err(Error::invalid(format!(
                "a fill of {bytes} bytes with a pattern of {pattern_bytes}: patterns have 1, 2, 4, 8 or 16 bytes and divide the length"
            )));
        }
        // SAFETY: the host passes live objects of this backend and a pattern of the stated length.
        unsafe {
            let (device, dst) = buffer::<B>(dst, "dst")?;
            range(device, dst, offset, bytes)?;
            device.fill(stream::<B>(s)?, dst, offset, core::slice::from_raw_parts(pattern.cast(), pattern_bytes as usize), bytes)
        }
    })
}

unsafe extern "C" fn device_ptr<B: Backend>(raw: *mut crate::Buffer, out_address: *mut u64) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live buffer of this backend and a writable place.
        unsafe {
            let (device, buffer) = buffer::<B>(raw, "buffer")?;
            put(out_address, "out_address", device.device_ptr(buffer)?)
        }
    })
}

unsafe extern "C" fn map<B: Backend>(raw: *mut crate::Buffer, out_address: *mut *mut c_void) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live buffer of this backend and a writable place.
        unsafe {
            let (device, buffer) = buffer::<B>(raw, "buffer")?;
            put(out_address, "out_address", device.map(buffer)?.cast())
        }
    })
}

unsafe extern "C" fn unmap<B: Backend>(raw: *mut crate::Buffer) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live buffer of this backend.
        let (device, buffer) = unsafe { buffer::<B>(raw, "buffer") }?;
        device.unmap(buffer)
    })
}

unsafe extern "C" fn address_space<B: Backend>(raw: *mut crate::Device, out_buffer: *mut *mut crate::Buffer) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and a writable place.
        unsafe {
            let buffer = device::<B>(raw)?.address_space()?;
            put(out_buffer, "out_buffer", Handle::give(table::<B>(), raw.cast_const().cast(), buffer))
        }
    })
}

unsafe extern "C" fn import<B: Backend>(raw: *mut crate::Device, desc: *const MemoryExport, out_buffer: *mut *mut crate::Buffer) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, a struct of the size it states and a writable place.
        unsafe {
            let buffer = device::<B>(raw)?.import(&checked::read(desc)?)?;
            put(out_buffer, "out_buffer", Handle::give(table::<B>(), raw.cast_const().cast(), buffer))
        }
    })
}

unsafe extern "C" fn export<B: Backend>(raw: *mut crate::Buffer, out_export: *mut MemoryExport) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live buffer of this backend and a struct of the size it states.
        unsafe {
            let (device, buffer) = buffer::<B>(raw, "buffer")?;
            let mut wish = checked::read(out_export)?;
            device.export(buffer, &mut wish)?;
            checked::write(out_export, &wish)
        }
    })
}

unsafe extern "C" fn info<B: Backend>(raw: *mut crate::Device, out_info: *mut MemoryInfo) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and a struct of the size it states.
        unsafe {
            let (total_bytes, free_bytes) = device::<B>(raw)?.memory_info()?;
            checked::write(out_info, &MemoryInfo { size: MemoryInfo::SIZE, kind: MemoryInfo::KIND, total_bytes, free_bytes })
        }
    })
}

unsafe extern "C" fn trim<B: Backend>(raw: *mut crate::Device) -> *mut Status {
    // SAFETY: the host passes an open device.
    B::state().guard(|| unsafe { device::<B>(raw) }?.trim())
}

unsafe extern "C" fn can_copy<B: Backend>(dst: *mut crate::Device, src: *mut crate::Device, out_answer: *mut u32) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes open devices of this backend and a writable place.
        unsafe {
            let answer = device::<B>(dst)?.can_copy_from(device::<B>(src)?);
            put(out_answer, "out_answer", answer.into())
        }
    })
}
