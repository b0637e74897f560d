//! Kernels in CUDA C++ through NVRTC, for several architectures; and on the first GPU, where there is one.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;

use flagos_compiler::Compiled;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::Kernel;
use libloading::Library;

use super::Runner;

/// The run-time compiler.
pub struct Nvrtc {
    library: Library,
    /// Version.
    pub version: (i32, i32),
}

/// A GPU with the compiler.
pub struct Gpu {
    nvrtc: Nvrtc,
    driver: Library,
    /// "sm_90".
    pub arch: String,
    /// Architecture to compile for, with everything only it has ("sm_90a").
    own: String,
}

/// Calls a function of a library by name with arguments of the types given; all return a status that is 0 when well.
macro_rules! call {
    ($library:expr, $name:literal, ($($ty:ty),*), $($arg:expr),* $(,)?) => {{
        // SAFETY: the function of this name has this type; arguments are handles the library gave and pointers to places that live through the call.
        let f = unsafe { $library.get::<unsafe extern "C" fn($($ty),*) -> i32>($name.as_bytes()) }.map_err(|e| e.to_string())?;
        // SAFETY: as above.
        match unsafe { f($($arg),*) } {
            0 => Ok(()),
            status => Err(format!("{}: error {status}", $name)),
        }
    }};
}

fn open(names: &[PathBuf]) -> Result<Library, String> {
    let mut why = String::new();
    for name in names {
        // SAFETY: a library of CUDA; its constructors ask nothing of the caller.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

impl Nvrtc {
    /// NVRTC from the folder FLAGOS_NVRTC_PATH, or where the linker finds it.
    pub fn open() -> Result<Nvrtc, String> {
        let stems = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
        let folder = std::env::var_os("FLAGOS_NVRTC_PATH").map(PathBuf::from);
        let beside = folder.iter().flat_map(|f| stems.map(|s| f.join(s)));
        let names: Vec<PathBuf> = beside.chain(stems.map(PathBuf::from)).collect();
        let library = open(&names).map_err(|e| format!("no NVRTC ({e}); `export FLAGOS_NVRTC_PATH=$(scripts/nvrtc)` installs one"))?;
        // NVRTC looks for its built-in declarations by name only.
        for entry in folder.iter().filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins") {
                std::mem::forget(open(&[entry.path()]));
            }
        }
        let mut version = (0, 0);
        call!(library, "nvrtcVersion", (*mut i32, *mut i32), &mut version.0, &mut version.1)?;
        Ok(Nvrtc { library, version })
    }

    /// Machine code for an architecture.
    pub fn compile(&self, compiled: &Compiled, arch: &str) -> Result<Vec<u8>, String> {
        let source = CString::new(compiled.code.clone()).map_err(|e| e.to_string())?;
        let (mut program, null) = (std::ptr::null_mut::<c_void>(), std::ptr::null::<c_void>());
        call!(
            self.library,
            "nvrtcCreateProgram",
            (*mut *mut c_void, *const c_char, *const c_char, i32, *const c_void, *const c_void),
            &mut program,
            source.as_ptr(),
            c"kernel.cu".as_ptr(),
            0,
            null,
            null
        )?;
        let words: Vec<CString> = ["--std=c++17", "--fmad=false", &format!("--gpu-architecture={arch}")].into_iter().chain(compiled.options.split_whitespace()).filter_map(|w| CString::new(w).ok()).collect();
        let words: Vec<*const c_char> = words.iter().map(|w| w.as_ptr()).collect();
        let built = call!(self.library, "nvrtcCompileProgram", (*mut c_void, i32, *const *const c_char), program, words.len() as i32, words.as_ptr());
        let mut size = 0usize;
        if let Err(e) = built {
            call!(self.library, "nvrtcGetProgramLogSize", (*mut c_void, *mut usize), program, &mut size)?;
            let mut log = vec![0u8; size.max(1)];
            call!(self.library, "nvrtcGetProgramLog", (*mut c_void, *mut u8), program, log.as_mut_ptr())?;
            return Err(format!("{arch}: {e}\n{}", String::from_utf8_lossy(&log)));
        }
        call!(self.library, "nvrtcGetCUBINSize", (*mut c_void, *mut usize), program, &mut size)?;
        let mut code = vec![0u8; size];
        call!(self.library, "nvrtcGetCUBIN", (*mut c_void, *mut u8), program, code.as_mut_ptr())?;
        call!(self.library, "nvrtcDestroyProgram", (*mut *mut c_void), &mut program)?;
        Ok(code)
    }
}

impl Gpu {
    /// The first GPU.
    pub fn open() -> Result<Gpu, String> {
        let nvrtc = Nvrtc::open()?;
        let driver = open(&[PathBuf::from("libcuda.so.1")]).map_err(|e| format!("no driver: {e}"))?;
        let (mut device, mut context, mut capability) = (0i32, std::ptr::null_mut::<c_void>(), [0i32; 2]);
        call!(driver, "cuInit", (u32), 0)?;
        call!(driver, "cuDeviceGet", (*mut i32, i32), &mut device, 0)?;
        // Compute capability, major and minor.
        for (value, attribute) in capability.iter_mut().zip([75, 76]) {
            call!(driver, "cuDeviceGetAttribute", (*mut i32, i32, i32), value, attribute, device)?;
        }
        call!(driver, "cuDevicePrimaryCtxRetain", (*mut *mut c_void, i32), &mut context, device)?;
        call!(driver, "cuCtxSetCurrent", (*mut c_void), context)?;
        let arch = format!("sm_{}{}", capability[0], capability[1]);
        let own = format!("{arch}{}", if capability[0] >= 9 { "a" } else { "" });
        Ok(Gpu { nvrtc, driver, arch, own })
    }
}

impl Runner for Gpu {
    fn run(&self, compiled: &Compiled, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<(), String> {
        let code = self.nvrtc.compile(compiled, &self.own)?;
        let (mut module, mut function) = (std::ptr::null_mut::<c_void>(), std::ptr::null_mut::<c_void>());
        call!(self.driver, "cuModuleLoadData", (*mut *mut c_void, *const u8), &mut module, code.as_ptr())?;
        let name = CString::new(compiled.entry.as_str()).map_err(|e| e.to_string())?;
        call!(self.driver, "cuModuleGetFunction", (*mut *mut c_void, *mut c_void, *const c_char), &mut function, module, name.as_ptr())?;
        // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        call!(self.driver, "cuFuncSetAttribute", (*mut c_void, i32, i32), function, 8, compiled.shared_bytes as i32)?;
        let mut values = vec![0u64; args.len()];
        for (value, arg) in values.iter_mut().zip(args.iter()) {
            match arg {
                Arg::Buffer(bytes) => {
                    call!(self.driver, "cuMemAlloc_v2", (*mut u64, usize), value, bytes.len().max(1))?;
                    call!(self.driver, "cuMemcpyHtoD_v2", (u64, *const u8, usize), *value, bytes.as_ptr(), bytes.len())?;
                }
                Arg::Null => {}
                Arg::Scalar(bits) => *value = *bits,
            }
        }
        let mut places: Vec<*mut c_void> = values.iter_mut().map(|v| (&raw mut *v).cast()).collect();
        let null = std::ptr::null_mut::<c_void>();
        call!(
            self.driver,
            "cuLaunchKernel",
            (*mut c_void, u32, u32, u32, u32, u32, u32, u32, *mut c_void, *mut *mut c_void, *mut c_void),
            function,
            grid[0],
            grid[1],
            grid[2],
            kernel.threads,
            1,
            1,
            compiled.shared_bytes,
            null,
            places.as_mut_ptr(),
            null
        )?;
        call!(self.driver, "cuCtxSynchronize", (), )?;
        for (value, arg) in values.iter().zip(args.iter_mut()) {
            if let Arg::Buffer(bytes) = arg {
                call!(self.driver, "cuMemcpyDtoH_v2", (*mut u8, u64, usize), bytes.as_mut_ptr(), *value, bytes.len())?;
                call!(self.driver, "cuMemFree_v2", (u64), *value)?;
            }
        }
        call!(self.driver, "cuModuleUnload", (*mut c_void), module)
    }
}

/// Name of the device for people.
pub fn name(gpu: &Gpu) -> Result<String, String> {
    let mut text = [0u8; 256];
    call!(gpu.driver, "cuDeviceGetName", (*mut u8, i32, i32), text.as_mut_ptr(), 256, 0)?;
    Ok(CStr::from_bytes_until_nul(&text).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default())
}
