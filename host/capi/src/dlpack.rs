//! DLPack 1.0: tensors of other frameworks in and out, without a copy.

use core::ffi::c_void;

use flagos_backend_api::checked::null;
use flagos_backend_api::{Code, DType, Error, MAX_RANK, MemoryExport, MemoryHandle, MemoryKind, Result, Tensor};

use crate::border::{Buffer, Device, Handle, export, put};

/// `DLDevice`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DlDevice {
    kind: i32,
    id: i32,
}

/// `DLTensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
pub struct DlManaged {
    major: u32,
    minor: u32,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DlManaged)>,
    flags: u64,
    tensor: DlTensor,
}

/// The DLPack version this speaks.
const VERSION: (u32, u32) = (1, 0);
/// `kDLCPU`.
const CPU: i32 = 1;

/// An exported tensor's memory: what the `DlManaged` points into.
struct Exported {
    managed: DlManaged,
    shape: [i64; MAX_RANK],
    strides: [i64; MAX_RANK],
    _buffer: flagos_runtime::Buffer,
}

unsafe extern "C" fn delete_exported(managed: *mut DlManaged) {
    if managed.is_null() {
        return;
    }
    // SAFETY: `manager` is the box made in `flagos_dlpack_export`; DLPack calls the deleter once.
    drop(unsafe { Box::from_raw((*managed).manager.cast::<Exported>()) });
}

/// The owner of an imported tensor, told when its last use is over.
struct Owner(*mut DlManaged);
// SAFETY: DLPack allows the deleter on any thread.
unsafe impl Send for Owner {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for Owner {}

impl Owner {
    fn release(self) {
        // SAFETY: the producer handed the tensor over in `flagos_dlpack_import`; the deleter is called once, here.
        unsafe {
            if let Some(deleter) = (*self.0).deleter {
                deleter(self.0);
            }
        }
    }
}

/// Shape and strides of a DLPack tensor as a descriptor.
///
/// # Safety
/// `shape` and, unless NULL, `strides` hold `ndim` entries.
unsafe fn descriptor(t: &DlTensor) -> Result<Tensor> {
    let rank = usize::try_from(t.ndim).ok().filter(|r| *r <= MAX_RANK).ok_or_else(|| {
        Error::invalid(format!("a DLPack tensor of rank {}; 0 to {MAX_RANK} are possible", t.ndim))
    })?;
    if !t.dtype.is_known() {
        return Err(Error::unimplemented(format!("DLPack type {} is not known here", t.dtype)));
    }
    if rank > 0 && t.shape.is_null() {
        return Err(null("DLTensor.shape"));
    }
    // SAFETY: stated by the caller; rank 0 makes empty slices.
    let list = |p: *mut i64| unsafe { if rank == 0 { &[] } else { core::slice::from_raw_parts(p, rank) } };
    let shape = list(t.shape);
    Ok(if t.strides.is_null() { Tensor::contiguous(t.dtype, shape) } else { Tensor::strided(t.dtype, shape, list(t.strides)) })
}

export! {
    /// Takes over a DLPack tensor (`DLManagedTensorVersioned *`) whose memory the device reaches: for processor memory (kDLCPU) a device
    /// with host-visible memory, else the device the producer's memory lies on. On success `*out_tensor` describes it (its `buffer` is
    /// `*out_buffer`) and the producer's deleter is called when the buffer's last use is over; on an error the tensor stays the caller's.
    [Free] fn flagos_dlpack_import(device: *const Device, managed: *mut DlManaged, out_buffer: *mut *mut Buffer, out_tensor: *mut Tensor) {
        // SAFETY: the header states what the pointers are, and hands the tensor over.
        unsafe {
            let device = Handle::get(device)?;
            let m = managed.as_ref().ok_or_else(|| null("managed"))?;
            if m.major != VERSION.0 {
                return Err(Error::unimplemented(format!("DLPack {}.{} is spoken by the producer, {}.{} here", m.major, m.minor, VERSION.0, VERSION.1)));
            }
            if m.tensor.device.kind == CPU && device.info().caps & flagos_backend_api::caps::HOST_VISIBLE == 0 {
                return Err(Error::invalid(format!("the tensor lies in host memory, which {} does not reach; copy it with flagos_write", device.name())));
            }
            let mut tensor = descriptor(&m.tensor)?;
            let overflow = || Error::invalid("the DLPack tensor spans more than 2^63 bytes");
            let (low, high) = tensor.extent().ok_or_else(overflow)?;
            let width = tensor.dtype.bytes() as i64;
            let (low, high) = (low.checked_mul(width).ok_or_else(overflow)?, high.checked_mul(width).ok_or_else(overflow)?);
            let first = (m.tensor.data as u64).wrapping_add(m.tensor.byte_offset);
            let desc = MemoryExport {
                size: MemoryExport::SIZE,
                kind: MemoryExport::KIND,
                handle_kind: MemoryHandle::POINTER.0,
                memory_kind: if m.tensor.device.kind == CPU { MemoryKind::HOST.0 } else { MemoryKind::DEVICE.0 },
                handle: first.wrapping_add_signed(low),
                byte_offset: 0,
                bytes: (high - low).max(1) as u64,
            };
            if out_buffer.is_null() || out_tensor.is_null() {
                return Err(null("an out pointer"));
            }
            let owner = Owner(managed);
            let buffer = device.import_owned(&desc, Box::new(move || owner.release()))?;
            let handle = Handle::give(buffer);
            tensor.buffer = handle.cast();
            tensor.byte_offset = low.unsigned_abs();
            put(out_buffer, handle)?;
            put(out_tensor, tensor)
        }
    }

    /// Makes a DLPack tensor (`DLManagedTensorVersioned *`) of a tensor's memory, which lives until the consumer calls its deleter.
    /// `dl_device_type` and `dl_device_id` are DLPack's name of the device; 0: kDLCPU where the memory is the host's.
    [Free] fn flagos_dlpack_export(tensor: *const Tensor, dl_device_type: i32, dl_device_id: i32, out_managed: *mut *mut DlManaged) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            let t = tensor.as_ref().ok_or_else(|| null("tensor"))?;
            if t.size != Tensor::SIZE || t.rank as usize > MAX_RANK {
                return Err(Error::invalid(format!("flagos_tensor_t has size {} and rank {}; {} and 0 to {MAX_RANK} are possible", t.size, t.rank, Tensor::SIZE)));
            }
            let buffer = Handle::get(t.buffer.cast_const().cast::<Buffer>())?;
            let visible = buffer.device().info().caps & flagos_backend_api::caps::HOST_VISIBLE != 0;
            let kind = match dl_device_type {
                0 if visible => CPU,
                0 => return Err(Error::new(Code::INVALID_ARGUMENT, format!("memory of {} is not the host's; name its DLPack device type", buffer.device().name()))),
                kind => kind,
            };
            let data = if buffer.bytes() == u64::MAX { 0 } else { buffer.device_ptr()? };
            let mut exported = Box::new(Exported {
                shape: t.shape,
                strides: t.stride,
                _buffer: buffer.clone(),
                managed: DlManaged {
                    major: VERSION.0,
                    minor: VERSION.1,
                    manager: core::ptr::null_mut(),
                    deleter: Some(delete_exported),
                    flags: 0,
                    tensor: DlTensor {
                        data: data as usize as *mut c_void,
                        device: DlDevice { kind, id: dl_device_id },
                        ndim: t.rank as i32,
                        dtype: t.dtype,
                        shape: core::ptr::null_mut(),
                        strides: core::ptr::null_mut(),
                        byte_offset: t.byte_offset,
                    },
                },
            });
            exported.managed.tensor.shape = exported.shape.as_mut_ptr();
            exported.managed.tensor.strides = exported.strides.as_mut_ptr();
            let raw = Box::into_raw(exported);
            (*raw).managed.manager = raw.cast();
            put(out_managed, &raw mut (*raw).managed).inspect_err(|_| drop(Box::from_raw(raw)))
        }
    }
}
