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

/// Arguments of a launch kept on the stack; the driver takes 4 kB of parameters, and 32 kB from Volta on.
const ON_STACK: usize = 48;
/// Dynamic shared memory a kernel may have without asking, in bytes.
const SHARED_UNASKED: u32 = 48 << 10;
/// Longest log of the driver's compiler in bytes.
const LOG_BYTES: usize = 8 << 10;

/// Loaded machine code.
struct Loaded {
    raw: Shared<sys::CUmodule>,
    chip: Arc<Chip>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Ok(_aside) = self.chip.enter_aside() {
            // SAFETY: the module was loaded and goes once; the host destroys it only when no launch is in flight.
            unsafe { sys::cuModuleUnload(self.raw.0) };
        }
    }
}

/// A module.
pub struct CudaModule {
    loaded: Arc<Loaded>,
    cubin: Vec<u8>,
}

/// An entry point.
pub struct CudaKernel {
    raw: Shared<sys::CUfunction>,
    /// Sizes of its parameters in bytes.
    parameters: Vec<u32>,
    /// Greatest dynamic shared memory in bytes.
    dynamic_bytes: u32,
    facts: [u32; 4],
    _module: Arc<Loaded>,
}

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
        let mut raw = core::ptr::null_mut();
        // SAFETY: the context is current; the image is a whole ELF file, as its maker or the check sum says.
        check(unsafe { sys::cuModuleLoadData(&mut raw, cubin.as_ptr().cast()) }, "cuModuleLoadData")?;
        Ok(CudaModule { loaded: Arc::new(Loaded { raw: Shared(raw), chip: self.chip.clone() }), cubin })
    }

    fn attribute(kernel: sys::CUfunction, attribute: sys::CUfunction_attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the kernel is alive; the place is writable.
        check(unsafe { sys::cuFuncGetAttribute(&mut value, attribute, kernel) }, "cuFuncGetAttribute")?;
        Ok(value.unsigned_abs())
    }
}

/// Sizes of a kernel's parameters in bytes, in order.
fn parameters(kernel: sys::CUfunction) -> Vec<u32> {
    let mut list = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the kernel is alive; the places are writable; an index beyond the last is an error the loop ends on.
        if unsafe { sys::cuFuncGetParamInfo(kernel, list.len(), &mut offset, &mut size) } != sys::CUresult::CUDA_SUCCESS {
            return list;
        }
        list.push(size as u32);
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
        let mut raw = core::ptr::null_mut();
        // SAFETY: the module is alive, the name NUL-terminated, the place writable.
        match unsafe { sys::cuModuleGetFunction(&mut raw, module.loaded.raw.0, title.as_ptr()) } {
            sys::CUresult::CUDA_ERROR_NOT_FOUND => return Err(Error::new(Code::NOT_FOUND, format!("the module has no entry point '{name}'"))),
            answer => check(answer, "cuModuleGetFunction")?,
        }
        // Modules load lazily; the first launch must not have to.
        // SAFETY: the kernel is alive.
        check(unsafe { sys::cuFuncLoad(raw) }, "cuFuncLoad")?;
        let static_bytes = Self::attribute(raw, F::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic_bytes = self.chip.shared_bytes.saturating_sub(static_bytes);
        if dynamic_bytes > SHARED_UNASKED.saturating_sub(static_bytes) {
            // SAFETY: as above.
            let asked = unsafe { sys::cuFuncSetAttribute(raw, F::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_bytes as i32) };
            check(asked, "cuFuncSetAttribute")?;
        }
        let facts = [F::CU_FUNC_ATTRIBUTE_NUM_REGS, F::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, F::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK];
        let [registers, spilled, most_threads] = facts.map(|a| Self::attribute(raw, a));
        Ok(CudaKernel {
            raw: Shared(raw),
            parameters: parameters(raw),
            dynamic_bytes,
            facts: [registers?, static_bytes, spilled?, most_threads?],
            _module: module.loaded.clone(),
        })
    }

    fn kernel_facts(&self, kernel: &CudaKernel) -> Result<[u32; 4]> {
        Ok(kernel.facts)
    }

    fn launch_kernel(
        &self,
        stream: &CudaStream,
        kernel: &CudaKernel,
        grid: &Grid,
        args: &mut dyn ExactSizeIterator<Item = Argument<'_, CudaBuffer>>,
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
        if count <= ON_STACK {
            let (mut values, mut places) = ([0u64; ON_STACK], [core::ptr::null_mut(); ON_STACK]);
            return self.launch_values(stream, kernel, grid, args, &mut values[..count], &mut places[..count]);
        }
        thread_local! {
            static LONG: core::cell::Cell<(Vec<u64>, Vec<*mut c_void>)> = const { core::cell::Cell::new((Vec::new(), Vec::new())) };
        }
        let (mut values, mut places) = LONG.take();
        values.resize(count, 0);
        places.resize(count, core::ptr::null_mut());
        let result = self.launch_values(stream, kernel, grid, args, &mut values, &mut places);
        LONG.set((values, places));
        result
    }

    fn binary(&self, module: &CudaModule) -> Result<Vec<u8>> {
        Ok(binary::wrap(&arch_of(self.chip.capability), crate::Cuda::BUILD_ID, &module.cubin))
    }
}

impl CudaDevice {
    #[inline]
    fn launch_values(
        &self,
        stream: &CudaStream,
        kernel: &CudaKernel,
        grid: &Grid,
        args: &mut dyn ExactSizeIterator<Item = Argument<'_, CudaBuffer>>,
        values: &mut [u64],
        places: &mut [*mut c_void],
    ) -> Result<()> {
        for (i, (argument, size)) in args.zip(&kernel.parameters).enumerate() {
            let (value, bytes) = match argument {
                Argument::Buffer(buffer) => (buffer.map_or(0, |(b, offset)| b.at(offset)), 8),
                Argument::Scalar { bits, bytes } => (bits, bytes),
            };
            if bytes != *size {
                return Err(Error::invalid(format!("argument {i} has {bytes} bytes, the kernel's parameter {size}")).at(i as u32));
            }
            values[i] = value;
            places[i] = (&raw mut values[i]).cast();
        }
        let (g, b) = (grid.grid, grid.block);
        let _entered = self.chip.enter()?;
        // SAFETY: there are as many values as parameters, each of its parameter's size; the driver copies them before it returns. What the buffers
        // address is the host's to keep alive.
        let answer = unsafe {
            let list = places.as_mut_ptr();
            sys::cuLaunchKernel(kernel.raw.0, g[0], g[1], g[2], b[0], b[1], b[2], grid.shared_bytes, stream.raw(), list, core::ptr::null_mut())
        };
        self.chip.told(check(answer, "cuLaunchKernel"))
    }
}
