//! Kernels: compiled or linked into machine code when a module is made, looked up when a kernel is, and only enqueued when launched.

use core::ffi::{CStr, c_void};
use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::sys;
use flagos_backend_api::vendor::{Argument, Backend, CompileRequest, Grid, Modules};
use flagos_backend_api::{Code, Error, KernelFormat, Result};

use crate::binary;
use crate::compile::{Image, compile, target};
use crate::device::{Chip, CudaDevice, arch_of};
use crate::driver::{Shared, check};
use crate::memory::CudaBuffer;
use crate::stream::CudaStream;

/// Bytes of parameters kept on the stack during a launch; the driver takes 4 kB, and 32 kB from Volta on.
const ON_STACK: usize = 512;
/// Room behind the last parameter: each is written as a word, whatever its size.
const SLACK: usize = 8;
/// Dynamic shared memory a kernel may have without asking, in bytes.
const SHARED_UNASKED: u32 = 48 << 10;
/// Longest log of the driver's compiler in bytes.
const LOG_BYTES: usize = 8 << 10;

/// Marks in the list of a launch whose parameters are given as one piece of memory.
const BUFFER_POINTER: *mut c_void = core::ptr::without_provenance_mut(1);
const BUFFER_SIZE: *mut c_void = core::ptr::without_provenance_mut(2);
const END: *mut c_void = core::ptr::null_mut();

/// Loaded machine code.
struct Loaded {
    raw: Shared<sys::CUlibrary>,
    chip: Arc<Chip>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Ok(_aside) = self.chip.enter_aside() {
            // SAFETY: the library was loaded and goes once; the host destroys it only when no launch is in flight.
            unsafe { sys::cuLibraryUnload(self.raw.0) };
        }
    }
}

/// A module.
pub struct CudaModule {
    loaded: Arc<Loaded>,
    cubin: Vec<u8>,
}

/// Where a kernel reads a parameter, in bytes.
struct Parameter {
    offset: usize,
    bytes: u32,
}

/// An entry point. Its handle belongs to no context: a launch takes the stream's, so the thread's current one is neither asked for nor changed.
pub struct CudaKernel {
    raw: Shared<sys::CUkernel>,
    parameters: Vec<Parameter>,
    /// Bytes of all parameters.
    parameter_bytes: usize,
    /// Greatest dynamic shared memory in bytes.
    dynamic_bytes: u32,
    facts: [u32; 4],
    _module: Arc<Loaded>,
}

/// Parameters of a launch as one piece of memory.
#[repr(align(16))]
struct Packed([u8; ON_STACK + SLACK]);

impl CudaDevice {
    /// PTX to machine code by the driver's compiler; the log is the error's text. The context is current.
    fn link(&self, ptx: &[u8], name: &str) -> Result<Vec<u8>> {
        let text = CString::new(ptx.strip_suffix(b"\0").unwrap_or(ptx)).map_err(|_| Error::invalid("the PTX text holds a NUL byte"))?;
        let title = CString::new(name).unwrap_or_default();
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
        let mut state = core::ptr::null_mut();
        // SAFETY: the context is current; options and values fit each other and, like the log, outlive the link state.
        check(unsafe { sys::cuLinkCreate_v2(2, options.as_mut_ptr(), values.as_mut_ptr(), &mut state) }, "cuLinkCreate")?;
        let (mut image, mut bytes) = (core::ptr::null_mut(), 0);
        let kind = sys::CUjitInputType::CU_JIT_INPUT_PTX;
        let (data, length, none) = (text.as_ptr().cast_mut().cast(), text.as_bytes_with_nul().len(), core::ptr::null_mut());
        // SAFETY: the text is NUL-terminated and as long as stated; the image belongs to the state and is copied before that goes.
        let (linked, cubin) = unsafe {
            let added = check(sys::cuLinkAddData_v2(state, kind, data, length, title.as_ptr(), 0, none, core::ptr::null_mut()), "cuLinkAddData");
            let linked = added.and_then(|()| check(sys::cuLinkComplete(state, &mut image, &mut bytes), "cuLinkComplete"));
            let cubin = if linked.is_ok() { core::slice::from_raw_parts(image.cast::<u8>().cast_const(), bytes).to_vec() } else { Vec::new() };
            sys::cuLinkDestroy(state);
            (linked, cubin)
        };
        linked.map_err(|e| {
            let log = CStr::from_bytes_until_nul(&log).map(|l| l.to_string_lossy().trim().to_owned()).unwrap_or_default();
            let code = if e.code == Code::INTERNAL { Code::INVALID_ARGUMENT } else { e.code };
            Error { code, message: format!("compiling '{name}' from PTX: {}\n{log}", e.message), ..e }
        })?;
        Ok(cubin)
    }

    fn load(&self, cubin: Vec<u8>) -> Result<CudaModule> {
        let (mut raw, none, nothing) = (core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: the place is writable; the image is a whole ELF file, as its maker or the check sum says; no options are given.
        let loaded = unsafe { sys::cuLibraryLoadData(&mut raw, cubin.as_ptr().cast(), core::ptr::null_mut(), none, 0, core::ptr::null_mut(), nothing, 0) };
        check(loaded, "cuLibraryLoadData")?;
        Ok(CudaModule { loaded: Arc::new(Loaded { raw: Shared(raw), chip: self.chip.clone() }), cubin })
    }

    fn attribute(kernel: sys::CUfunction, attribute: sys::CUfunction_attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the kernel is alive; the place is writable.
        check(unsafe { sys::cuFuncGetAttribute(&mut value, attribute, kernel) }, "cuFuncGetAttribute")?;
        Ok(value.unsigned_abs())
    }
}

/// A kernel's parameters in order.
fn parameters(kernel: sys::CUkernel) -> Vec<Parameter> {
    let mut list = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the kernel is alive; the places are writable; an index beyond the last is an error the loop ends on.
        if unsafe { sys::cuKernelGetParamInfo(kernel, list.len(), &mut offset, &mut size) } != sys::CUresult::CUDA_SUCCESS {
            return list;
        }
        list.push(Parameter { offset, bytes: size as u32 });
    }
}

impl Modules for CudaDevice {
    type Module = CudaModule;
    type Kernel = CudaKernel;

    fn compile(&self, request: &CompileRequest<'_>) -> Result<CudaModule> {
        let (arch, build) = (arch_of(self.chip.capability), crate::Cuda::BUILD_ID);
        self.chip.alive()?;
        if request.is_binary {
            let cubin = binary::unwrap(&arch, build, request.code)?.to_vec();
            let _aside = self.chip.enter_aside()?;
            return self.chip.told(self.load(cubin)).map_err(|e| if e.code == Code::DEVICE_LOST { e } else { Error { code: Code::DATA_LOSS, ..e } });
        }
        let image = match request.format {
            KernelFormat::CUDA_CPP => compile(request.code, &request.name, &target(self.chip.capability)?, &request.options)?,
            KernelFormat::PTX => Image::Ptx(request.code.to_vec()),
            other => return Err(Error::unimplemented(format!("kernels in {other} are not taken; cuda-c++ and ptx are"))),
        };
        let _aside = self.chip.enter_aside()?;
        let cubin = match image {
            Image::Cubin(cubin) => cubin,
            Image::Ptx(ptx) => self.chip.told(self.link(&ptx, &request.name))?,
        };
        self.chip.told(self.load(cubin))
    }

    fn kernel(&self, module: &CudaModule, name: &str) -> Result<CudaKernel> {
        use sys::CUfunction_attribute as F;
        let title = CString::new(name).map_err(|_| Error::invalid("the kernel's name holds a NUL byte"))?;
        let _aside = self.chip.enter_aside()?;
        let (mut raw, mut function) = (core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: the library is alive, the name NUL-terminated, the place writable.
        match unsafe { sys::cuLibraryGetKernel(&mut raw, module.loaded.raw.0, title.as_ptr()) } {
            sys::CUresult::CUDA_ERROR_NOT_FOUND => return Err(Error::new(Code::NOT_FOUND, format!("the module has no entry point '{name}'"))),
            answer => check(answer, "cuLibraryGetKernel")?,
        }
        // Code is loaded lazily; the first launch must not have to.
        // SAFETY: the kernel is alive, the context current, the place writable.
        unsafe {
            check(sys::cuKernelGetFunction(&mut function, raw), "cuKernelGetFunction")?;
            check(sys::cuFuncLoad(function), "cuFuncLoad")?;
        }
        let static_bytes = Self::attribute(function, F::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic_bytes = self.chip.shared_bytes.saturating_sub(static_bytes);
        if dynamic_bytes > SHARED_UNASKED.saturating_sub(static_bytes) {
            // SAFETY: as above.
            let asked = unsafe { sys::cuFuncSetAttribute(function, F::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_bytes as i32) };
            check(asked, "cuFuncSetAttribute")?;
        }
        let facts = [F::CU_FUNC_ATTRIBUTE_NUM_REGS, F::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, F::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK];
        let [registers, spilled, most_threads] = facts.map(|a| Self::attribute(function, a));
        let parameters = parameters(raw);
        Ok(CudaKernel {
            raw: Shared(raw),
            parameter_bytes: parameters.last().map_or(0, |p| p.offset + p.bytes as usize),
            parameters,
            dynamic_bytes,
            facts: [registers?, static_bytes, spilled?, most_threads?],
            _module: module.loaded.clone(),
        })
    }

    fn kernel_facts(&self, kernel: &CudaKernel) -> Result<[u32; 4]> {
        Ok(kernel.facts)
    }

    fn launch_kernel<'a>(
        &self,
        stream: &CudaStream,
        kernel: &CudaKernel,
        grid: &Grid,
        args: impl ExactSizeIterator<Item = Argument<'a, CudaBuffer>>,
    ) -> Result<()> {
        if grid.grid.contains(&0) {
            return Ok(());
        }
        let count = args.len();
        if count != kernel.parameters.len() {
            return Err(Error::invalid(format!("the launch has {count} arguments, the kernel takes {}", kernel.parameters.len())));
        }
        if grid.shared_bytes > kernel.dynamic_bytes {
            let (want, most) = (grid.shared_bytes, kernel.dynamic_bytes);
            return Err(Error::invalid(format!("{want} bytes of dynamic shared memory are asked for, this kernel may have {most} on this device")));
        }
        if kernel.parameter_bytes <= ON_STACK {
            return self.launch_packed(stream, kernel, grid, args, &mut Packed([0; ON_STACK + SLACK]).0);
        }
        thread_local! {
            static LONG: core::cell::Cell<Vec<u8>> = const { core::cell::Cell::new(Vec::new()) };
        }
        let mut packed = LONG.take();
        packed.resize(kernel.parameter_bytes + SLACK, 0);
        let result = self.launch_packed(stream, kernel, grid, args, &mut packed);
        LONG.set(packed);
        result
    }

    fn binary(&self, module: &CudaModule) -> Result<Vec<u8>> {
        Ok(binary::wrap(&arch_of(self.chip.capability), crate::Cuda::BUILD_ID, &module.cubin))
    }
}

impl CudaDevice {
    #[inline]
    fn launch_packed<'a>(
        &self,
        stream: &CudaStream,
        kernel: &CudaKernel,
        grid: &Grid,
        args: impl Iterator<Item = Argument<'a, CudaBuffer>>,
        packed: &mut [u8],
    ) -> Result<()> {
        for (i, (argument, parameter)) in args.zip(&kernel.parameters).enumerate() {
            let (value, bytes) = match argument {
                Argument::Buffer(buffer) => (buffer.map_or(0, |(b, offset)| b.at(offset)), 8),
                Argument::Scalar { bits, bytes } => (bits, bytes),
            };
            if bytes != parameter.bytes {
                return Err(Error::invalid(format!("argument {i} has {bytes} bytes, the kernel's parameter {}", parameter.bytes)).at(i as u32));
            }
            // What a shorter parameter leaves over the next one writes over.
            packed[parameter.offset..parameter.offset + SLACK].copy_from_slice(&value.to_le_bytes());
        }
        let _entered = if stream.has_context() { None } else { Some(self.chip.enter()?) };
        self.chip.told(kernel.enqueue(stream, grid, packed))
    }
}

impl CudaKernel {
    /// Enqueues a launch. `packed` holds the parameters where the kernel reads them. The context is current where the stream has none.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn enqueue(&self, stream: &CudaStream, grid: &Grid, packed: &mut [u8]) -> Result<()> {
        let mut bytes = self.parameter_bytes;
        if packed.len() < bytes {
            return Err(Error::new(Code::INTERNAL, format!("a kernel of {bytes} bytes of parameters is given {}", packed.len())));
        }
        let mut list = [BUFFER_POINTER, packed.as_mut_ptr().cast(), BUFFER_SIZE, (&raw mut bytes).cast(), END];
        let list = if bytes > 0 { list.as_mut_ptr() } else { core::ptr::null_mut() };
        let (g, b) = (grid.grid, grid.block);
        // SAFETY: the memory holds the kernel's parameters; the driver copies it before it returns. What they address is the host's to keep alive.
        // A handle of a kernel stands where a function may.
        let answer = unsafe {
            sys::cuLaunchKernel(self.raw.0.cast(), g[0], g[1], g[2], b[0], b[1], b[2], grid.shared_bytes, stream.raw(), core::ptr::null_mut(), list)
        };
        check(answer, "cuLaunchKernel")
    }
}
