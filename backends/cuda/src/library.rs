//! CUDA's libraries: found at run time, and asked for before anything of theirs is called.
//!
//! The bindings open a library by name on its first use and panic when there is none, so every border asks [`Culib::is_there`] first. A library in
//! a folder the dynamic linker does not search is opened here by path: the bindings' lookup by name then finds what is open already.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flagos_backend_api::{Code, Error, Result};

/// A library of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culib {
    /// `libcuda.so.1`, the driver.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// BLAS.
    Cublas,
    /// Matrix products with epilogues.
    CublasLt,
    /// Fourier transforms.
    Cufft,
    /// Convolutions.
    Cudnn,
}

/// What is known of a library: its place in [`Culib`], file name, numbers of the versions that fit, and who brings it.
struct Entry {
    stem: &'static str,
    majors: &'static [u32],
    package: &'static str,
}

const ENTRIES: [Entry; 6] = [
    Entry { stem: "libcuda.so", majors: &[1], package: "the NVIDIA driver" },
    Entry { stem: "libnvrtc.so", majors: &[13, 12], package: "the CUDA toolkit or the wheel nvidia-cuda-nvrtc" },
    Entry { stem: "libcublas.so", majors: &[13, 12], package: "the CUDA toolkit or the wheel nvidia-cublas" },
    Entry { stem: "libcublasLt.so", majors: &[13, 12], package: "the CUDA toolkit or the wheel nvidia-cublas" },
    Entry { stem: "libcufft.so", majors: &[12, 11], package: "the CUDA toolkit or the wheel nvidia-cufft" },
    Entry { stem: "libcudnn.so", majors: &[9], package: "cuDNN 9 or the wheel nvidia-cudnn-cu13" },
];

impl Culib {
    fn entry(self) -> &'static Entry {
        &ENTRIES[self as usize]
    }

    /// Whether the library can be used. The first answer stands for the life of the process.
    pub fn is_there(self) -> bool {
        static FOUND: [OnceLock<bool>; 6] = [const { OnceLock::new() }; 6];
        *FOUND[self as usize].get_or_init(|| {
            self.open_by_path();
            // SAFETY: opens a library of CUDA by its name; their constructors ask nothing of the caller.
            unsafe {
                match self {
                    Culib::Driver => cudarc::driver::sys::is_culib_present(),
                    Culib::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
                    Culib::Cublas => cudarc::cublas::sys::is_culib_present(),
                    Culib::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
                    Culib::Cufft => cudarc::cufft::sys::is_culib_present(),
                    // Other versions lie under the same name; their enumerations differ.
                    Culib::Cudnn => cudarc::cudnn::sys::is_culib_present() && cudarc::cudnn::sys::cudnnGetVersion() / 10_000 == 9,
                }
            }
        })
    }

    /// As [`is_there`](Culib::is_there), with the error that says what is missing.
    ///
    /// # Errors
    /// UNAVAILABLE for the driver, UNIMPLEMENTED for what is optional.
    pub fn need(self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let (entry, driver) = (self.entry(), self == Culib::Driver);
        let text = format!(
            "{}: {}.{} is not found; install {}, or add its folder to LD_LIBRARY_PATH",
            if driver { "no driver" } else { "a library is missing" },
            entry.stem,
            entry.majors[0],
            entry.package
        );
        Err(Error::new(if driver { Code::UNAVAILABLE } else { Code::UNIMPLEMENTED }, text))
    }

    /// Opens the library from the folders that are named in the environment or are usual for the toolkit. The driver is the linker's business alone.
    fn open_by_path(self) {
        let mut folders = Vec::new();
        if self == Culib::Nvrtc {
            folders.extend(environment("FLAGOS_NVRTC_PATH").map(PathBuf::from));
        }
        if self != Culib::Driver {
            folders.extend(toolkits().into_iter().flat_map(|root| [root.join("lib64"), root.join("lib")]));
        }
        let names = || self.entry().majors.iter().map(|m| format!("{}.{m}", self.entry().stem));
        let files = folders.iter().flat_map(|f| if f.is_file() { vec![f.clone()] } else { names().map(|n| f.join(n)).collect() });
        for file in files.filter(|f| f.is_absolute() && f.exists()) {
            if keep_open(&file) {
                // NVRTC looks for its built-in declarations by name only.
                let beside = file.parent().and_then(|f| std::fs::read_dir(f).ok()).into_iter().flatten().flatten();
                let builtins = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.starts_with("libnvrtc-builtins.so"));
                for entry in beside.filter(|e| self == Culib::Nvrtc && builtins(&e.file_name())) {
                    keep_open(&entry.path());
                }
                return;
            }
        }
    }
}

/// Opens a library for the life of the process, as everything found through it needs.
fn keep_open(file: &Path) -> bool {
    // SAFETY: a library of CUDA at a path the user or the system names; its constructors ask nothing of the caller.
    unsafe { libloading::Library::new(file) }.map(core::mem::forget).is_ok()
}

/// Folders a toolkit may be installed in: the environment's, then the usual one.
pub fn toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(environment).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")]).filter(|p| p.is_absolute()).collect()
}

/// The folder of an open library, from what the process has mapped.
pub fn folder_of(stem: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut own = paths.filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(stem)));
    own.next()?.parent().map(Path::to_path_buf)
}

/// A variable of the environment; nothing in processes that run with more rights than their caller.
pub fn environment(name: &str) -> Option<OsString> {
    // SAFETY: asks the kernel's vector of this process for one number.
    let elevated = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    std::env::var_os(name).filter(|value| !elevated && !value.is_empty())
}
