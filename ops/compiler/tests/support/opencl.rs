//! Kernels in OpenCL C on the first device of the first platform, through libOpenCL found at run time.

use std::ffi::{CString, c_void};

use flagos_backend_api::caps;
use flagos_compiler::Compiled;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::{Kernel, Ty};
use libloading::Library;

use super::Runner;

type Handle = *mut c_void;
type Status = i32;

/// A device, its context and a queue, kept for the life of the process.
pub struct OpenCl {
    library: Library,
    device: Handle,
    context: Handle,
    queue: Handle,
    /// Capabilities (`FLAGOS_CAP_*`).
    pub caps: u64,
    /// What it is.
    pub name: String,
}

const DEVICE_TYPE_ALL: u64 = 0xffff_ffff;
const DEVICE_NAME: u32 = 0x102b;
const DEVICE_EXTENSIONS: u32 = 0x1030;
const PROGRAM_BUILD_LOG: u32 = 0x1183;
const MEM_COPY_HOST_PTR: u64 = 1 << 5;

/// Calls a function of the library by name with arguments of the types given.
macro_rules! call {
    ($self:expr, $name:literal, fn($($ty:ty),*) -> $out:ty, $($arg:expr),* $(,)?) => {{
        // SAFETY: OpenCL's function of this name has this type; arguments are handles it gave and pointers to places that live through the call.
        let f = unsafe { $self.library.get::<unsafe extern "C" fn($($ty),*) -> $out>($name) }.map_err(|e| e.to_string())?;
        // SAFETY: as above.
        unsafe { f($($arg),*) }
    }};
}

fn check(status: Status, what: &str) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{what}: OpenCL error {status}")) }
}

impl OpenCl {
    /// The first device there is.
    pub fn open() -> Result<OpenCl, String> {
        // SAFETY: the loader's constructors ask nothing of the caller.
        let library = unsafe { Library::new("libOpenCL.so.1") }.map_err(|e| format!("no OpenCL: {e}"))?;
        let null = std::ptr::null_mut::<c_void>;
        let mut this = OpenCl { library, device: null(), context: null(), queue: null(), caps: 0, name: String::new() };
        let (mut platform, mut count, mut status) = (null(), 0u32, 0);
        check(call!(this, b"clGetPlatformIDs", fn(u32, *mut Handle, *mut u32) -> Status, 1, &mut platform, &mut count), "clGetPlatformIDs")?;
        check(call!(this, b"clGetDeviceIDs", fn(Handle, u64, u32, *mut Handle, *mut u32) -> Status, platform, DEVICE_TYPE_ALL, 1, &mut this.device, &mut count), "clGetDeviceIDs")?;
        let extensions = this.text(DEVICE_EXTENSIONS)?;
        this.name = this.text(DEVICE_NAME)?;
        for (name, cap) in [("cl_khr_fp16", caps::FP16), ("cl_khr_fp64", caps::FP64), ("cl_khr_int64_extended_atomics", caps::ATOMIC64)] {
            this.caps |= if extensions.contains(name) { cap } else { 0 };
        }
        this.caps |= caps::INT64;
        this.context = call!(
            this,
            b"clCreateContext",
            fn(*const isize, u32, *const Handle, Handle, Handle, *mut Status) -> Handle,
            std::ptr::null(),
            1,
            &this.device,
            null(),
            null(),
            &mut status
        );
        check(status, "clCreateContext")?;
        this.queue = call!(this, b"clCreateCommandQueue", fn(Handle, Handle, u64, *mut Status) -> Handle, this.context, this.device, 0, &mut status);
        check(status, "clCreateCommandQueue")?;
        Ok(this)
    }

    fn text(&self, what: u32) -> Result<String, String> {
        let (mut bytes, mut size) = (vec![0u8; 1 << 16], 0usize);
        let get = call!(self, b"clGetDeviceInfo", fn(Handle, u32, usize, *mut u8, *mut usize) -> Status, self.device, what, bytes.len(), bytes.as_mut_ptr(), &mut size);
        check(get, "clGetDeviceInfo")?;
        Ok(String::from_utf8_lossy(&bytes[..size]).trim_end_matches('\0').to_owned())
    }

    fn build(&self, code: &[u8], options: &str) -> Result<Handle, String> {
        let (pointer, length, mut status) = (code.as_ptr(), code.len(), 0);
        let program =
            call!(self, b"clCreateProgramWithSource", fn(Handle, u32, *const *const u8, *const usize, *mut Status) -> Handle, self.context, 1, &pointer, &length, &mut status);
        check(status, "clCreateProgramWithSource")?;
        let options = CString::new(format!("-cl-std=CL1.2 {options}")).map_err(|e| e.to_string())?;
        let none = std::ptr::null_mut::<c_void>();
        let built = call!(
            self,
            b"clBuildProgram",
            fn(Handle, u32, *const Handle, *const i8, Handle, Handle) -> Status,
            program,
            1,
            &self.device,
            options.as_ptr().cast(),
            none,
            none
        );
        if built == 0 {
            return Ok(program);
        }
        let (mut log, mut size) = (vec![0u8; 1 << 16], 0usize);
        let get = call!(
            self,
            b"clGetProgramBuildInfo",
            fn(Handle, Handle, u32, usize, *mut u8, *mut usize) -> Status,
            program,
            self.device,
            PROGRAM_BUILD_LOG,
            log.len(),
            log.as_mut_ptr(),
            &mut size
        );
        check(get, "clGetProgramBuildInfo")?;
        Err(format!("clBuildProgram: OpenCL error {built}\n{}", String::from_utf8_lossy(&log[..size])))
    }

    fn set(&self, kernel: Handle, index: u32, bytes: &[u8]) -> Result<(), String> {
        let set = call!(self, b"clSetKernelArg", fn(Handle, u32, usize, *const u8) -> Status, kernel, index, bytes.len(), bytes.as_ptr());
        check(set, &format!("clSetKernelArg {index}"))
    }
}

impl Runner for OpenCl {
    fn run(&self, compiled: &Compiled, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<(), String> {
        const SKIP: u64 = 16;
        let program = self.build(&compiled.code, &compiled.options)?;
        let name = CString::new(compiled.entry.as_str()).map_err(|e| e.to_string())?;
        let mut status = 0;
        let entry = call!(self, b"clCreateKernel", fn(Handle, *const i8, *mut Status) -> Handle, program, name.as_ptr().cast(), &mut status);
        check(status, "clCreateKernel")?;
        let (mut index, mut memory) = (0, Vec::new());
        for (arg, param) in args.iter().zip(&kernel.params) {
            match arg {
                Arg::Buffer(bytes) => {
                    // The kernel's part begins after a few bytes, so that the offset counts.
                    let mut content = vec![0xee; SKIP as usize];
                    content.extend(bytes);
                    let buffer =
                        call!(self, b"clCreateBuffer", fn(Handle, u64, usize, *mut u8, *mut Status) -> Handle, self.context, 1 | MEM_COPY_HOST_PTR, content.len(), content.as_mut_ptr(), &mut status);
                    check(status, "clCreateBuffer")?;
                    memory.push(Some(buffer));
                    self.set(entry, index, &(buffer as usize).to_le_bytes())?;
                    self.set(entry, index + 1, &SKIP.to_le_bytes())?;
                    index += 2;
                }
                Arg::Null => {
                    memory.push(None);
                    self.set(entry, index, &0usize.to_le_bytes())?;
                    self.set(entry, index + 1, &0u64.to_le_bytes())?;
                    index += 2;
                }
                Arg::Scalar(bits) => {
                    let Ty::Elem(elem) = param.ty else { return Err("a scalar for a buffer".into()) };
                    memory.push(None);
                    self.set(entry, index, &bits.to_le_bytes()[..elem.bytes() as usize])?;
                    index += 1;
                }
            }
        }
        let local = [kernel.threads as usize, 1, 1];
        let global = [0, 1, 2].map(|i| grid[i] as usize * local[i]);
        let none = std::ptr::null::<c_void>();
        let launched = call!(
            self,
            b"clEnqueueNDRangeKernel",
            fn(Handle, Handle, u32, *const usize, *const usize, *const usize, u32, *const c_void, *const c_void) -> Status,
            self.queue,
            entry,
            3,
            std::ptr::null(),
            global.as_ptr(),
            local.as_ptr(),
            0,
            none,
            none
        );
        check(launched, "clEnqueueNDRangeKernel")?;
        for (arg, buffer) in args.iter_mut().zip(&memory) {
            let (Arg::Buffer(bytes), Some(buffer)) = (arg, buffer) else { continue };
            let read = call!(
                self,
                b"clEnqueueReadBuffer",
                fn(Handle, Handle, u32, usize, usize, *mut u8, u32, *const c_void, *const c_void) -> Status,
                self.queue,
                *buffer,
                1,
                SKIP as usize,
                bytes.len(),
                bytes.as_mut_ptr(),
                0,
                none,
                none
            );
            check(read, "clEnqueueReadBuffer")?;
            check(call!(self, b"clReleaseMemObject", fn(Handle) -> Status, *buffer), "clReleaseMemObject")?;
        }
        check(call!(self, b"clReleaseKernel", fn(Handle) -> Status, entry), "clReleaseKernel")?;
        check(call!(self, b"clReleaseProgram", fn(Handle) -> Status, program), "clReleaseProgram")
    }
}
