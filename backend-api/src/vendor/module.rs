//! The module table over a safe trait.

use core::ffi::c_void;

use crate::{ArgKind, CompileDesc, Error, KernelArg, KernelFormat, KernelInfo, KernelLaunch, ModuleTable, Result, Status, Str};

use super::export::{Backend, table};
use super::handle::{Handle, put};
use super::{Device, Memory, Streams};
use crate::checked::{self, null};

/// Code to compile.
pub struct CompileRequest<'a> {
    /// Its format, one of the device's list.
    pub format: KernelFormat,
    /// Whether `code` is a binary exported earlier; DATA_LOSS when it does not fit.
    pub is_binary: bool,
    /// Source text or binary.
    pub code: &'a [u8],
    /// Compiler options separated by spaces.
    pub options: String,
    /// A name for error messages.
    pub name: String,
}

/// One kernel argument.
pub enum Argument<'a, B> {
    /// A buffer and byte offset; `None` for NULL.
    Buffer(Option<(&'a B, u64)>),
    /// Up to 8 little-endian bytes by value.
    Scalar {
        /// The bits.
        bits: u64,
        /// How many bytes count.
        bytes: u32,
    },
}

/// Extents of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks per axis.
    pub grid: [u32; 3],
    /// Threads per block and axis.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
}

/// Devices that take kernels.
pub trait Modules: Device {
    /// Compiled code.
    type Module: Send + Sync + 'static;
    /// One entry point; it shares what it needs with its module.
    type Kernel: Send + Sync + 'static;
    /// Compiles; the error carries the compiler's log.
    fn compile(&self, request: &CompileRequest<'_>) -> Result<Self::Module>;
    /// Finds an entry point; NOT_FOUND when there is none.
    fn kernel(&self, module: &Self::Module, name: &str) -> Result<Self::Kernel>;
    /// Registers, static shared bytes, spilled bytes, greatest block size; zeros where unknown.
    fn kernel_facts(&self, _kernel: &Self::Kernel) -> Result<[u32; 4]> {
        Err(Error::unimplemented("nothing is known of kernels here"))
    }
    /// Enqueues a launch.
    fn launch_kernel<'a>(
        &self,
        stream: &<Self as Streams>::Stream,
        kernel: &Self::Kernel,
        grid: &Grid,
        args: impl ExactSizeIterator<Item = Argument<'a, <Self as Memory>::Buffer>>,
    ) -> Result<()>;
    /// Binary of a module.
    fn binary(&self, _module: &Self::Module) -> Result<Vec<u8>> {
        Err(Error::unimplemented("modules have no binary here"))
    }
}

/// A module with the kernels found in it, which live as long as it does.
struct Loaded<M, K> {
    module: M,
    kernels: std::sync::Mutex<Vec<(String, Box<Handle<K>>)>>,
}

type LoadedOf<B> = Loaded<<<B as Backend>::Device as Modules>::Module, <<B as Backend>::Device as Modules>::Kernel>;
type KernelOf<B> = <<B as Backend>::Device as Modules>::Kernel;

/// The module table of a backend whose device implements [`Modules`].
pub const fn module_table<B: Backend<Device: Modules>>() -> &'static ModuleTable {
    const {
        &ModuleTable {
            size: ModuleTable::SIZE,
            kind: ModuleTable::KIND,
            compile: Some(compile::<B>),
            destroy: Some(destroy::<B>),
            kernel: Some(kernel::<B>),
            kernel_info: Some(kernel_info::<B>),
            launch: Some(launch::<B>),
            export_binary: Some(export_binary::<B>),
        }
    }
}

/// Bytes of a borrowed text.
///
/// # Safety
/// The text is readable for its length.
unsafe fn bytes<'a>(text: Str) -> &'a [u8] {
    if text.ptr.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: stated by the caller.
    unsafe { core::slice::from_raw_parts(text.ptr, text.len as usize) }
}

unsafe extern "C" fn compile<B: Backend<Device: Modules>>(
    device: *mut crate::Device,
    desc: *const CompileDesc,
    out_module: *mut *mut crate::Module,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, a struct of the size it states with readable texts, and a writable place.
        unsafe {
            let (open, desc) = (Handle::<B::Device>::of(device, "device")?, checked::read(desc)?);
            let request = CompileRequest {
                format: KernelFormat(desc.format),
                is_binary: desc.is_binary != 0,
                code: bytes(desc.code),
                options: desc.options.to_owned_text(),
                name: desc.name.to_owned_text(),
            };
            let module = open.value.compile(&request)?;
            let loaded: LoadedOf<B> = Loaded { module, kernels: Default::default() };
            put(out_module, "out_module", Handle::give(table::<B>(), device.cast_const().cast(), loaded))
        }
    })
}

unsafe extern "C" fn destroy<B: Backend<Device: Modules>>(module: *mut crate::Module) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back a module of this backend, once.
        drop(unsafe { Handle::<LoadedOf<B>>::take(module, "module") }?);
        Ok(())
    })
}

unsafe extern "C" fn kernel<B: Backend<Device: Modules>>(module: *mut crate::Module, name: Str, out_kernel: *mut *mut crate::Kernel) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live module of this backend, readable text and a writable place.
        unsafe {
            let handle = Handle::<LoadedOf<B>>::of(module, "module")?;
            let name = name.to_owned_text();
            let mut kernels = handle.value.kernels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let place = kernels.iter().position(|k| k.0 == name);
            let place = match place {
                Some(place) => place,
                None => {
                    let found = handle.device::<B::Device>().kernel(&handle.value.module, &name)?;
                    let raw: *mut Handle<KernelOf<B>> = Handle::give(table::<B>(), handle.owner, found);
                    kernels.push((name, Box::from_raw(raw)));
                    kernels.len() - 1
                }
            };
            let raw = (&raw const *kernels[place].1).cast_mut();
            put(out_kernel, "out_kernel", raw.cast())
        }
    })
}

unsafe extern "C" fn kernel_info<B: Backend<Device: Modules>>(kernel: *mut crate::Kernel, out_info: *mut KernelInfo) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live kernel of this backend and a struct of the size it states.
        unsafe {
            let handle = Handle::<KernelOf<B>>::of(kernel, "kernel")?;
            let [registers, shared_bytes, spill_bytes, max_block_threads] = handle.device::<B::Device>().kernel_facts(&handle.value)?;
            let info = KernelInfo { size: KernelInfo::SIZE, kind: KernelInfo::KIND, registers, shared_bytes, spill_bytes, max_block_threads };
            checked::write(out_info, &info)
        }
    })
}

unsafe extern "C" fn launch<B: Backend<Device: Modules>>(stream: *mut crate::Stream, kernel: *mut crate::Kernel, desc: *const KernelLaunch) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes live objects of this backend and a struct of the size it states with as many arguments.
        unsafe {
            let (stream, kernel) = (Handle::<<B::Device as Streams>::Stream>::of(stream, "stream")?, Handle::<KernelOf<B>>::of(kernel, "kernel")?);
            checked::lend(desc, |desc| {
                if desc.n_args > 0 && desc.args.is_null() {
                    return Err(null("args"));
                }
                let list: &[KernelArg] = if desc.n_args == 0 { &[] } else { core::slice::from_raw_parts(desc.args, desc.n_args as usize) };
                if let Some(bad) = list.iter().find(|a| !matches!(ArgKind(a.arg_kind), ArgKind::BUFFER | ArgKind::SCALAR) || a.bytes > 8) {
                    return Err(Error::invalid(format!("a kernel argument of kind {} with {} bytes", bad.arg_kind, bad.bytes)));
                }
                let args = list.iter().map(|a| match ArgKind(a.arg_kind) {
                    ArgKind::SCALAR => Argument::Scalar { bits: a.scalar, bytes: a.bytes },
                    _ => Argument::Buffer(a.binding.buffer.cast::<Handle<<B::Device as Memory>::Buffer>>().as_ref().map(|h| (&h.value, a.binding.byte_offset))),
                });
                let grid = Grid { grid: desc.grid, block: desc.block, shared_bytes: desc.shared_bytes };
                stream.device::<B::Device>().launch_kernel(&stream.value, &kernel.value, &grid, args)
            })
        }
    })
}

unsafe extern "C" fn export_binary<B: Backend<Device: Modules>>(
    module: *mut crate::Module,
    out_bytes: *mut c_void,
    capacity_bytes: u64,
    out_length_bytes: *mut u64,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live module of this backend, `capacity_bytes` writable bytes or NULL, and a writable place.
        unsafe {
            let handle = Handle::<LoadedOf<B>>::of(module, "module")?;
            let binary = handle.device::<B::Device>().binary(&handle.value.module)?;
            put(out_length_bytes, "out_length_bytes", binary.len() as u64)?;
            if !out_bytes.is_null() {
                if (binary.len() as u64) > capacity_bytes {
                    return Err(Error::invalid(format!("the binary has {} bytes, there is room for {capacity_bytes}", binary.len())));
                }
                core::ptr::copy_nonoverlapping(binary.as_ptr(), out_bytes.cast(), binary.len());
            }
            Ok(())
        }
    })
}
