//! Kernels in C through the system's compiler, run in this process.

use std::ffi::c_void;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use flagos_compiler::Compiled;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::Kernel;

use super::Runner;

type Entry = unsafe extern "C" fn(*const u32, *const u32, *const *mut c_void, *mut c_void);

/// The system's C compiler.
pub struct Processor {
    /// Options beyond the format's.
    pub options: &'static [&'static str],
}

/// A folder of this process that goes with it.
fn folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let path = std::env::temp_dir().join(format!("flagos-emit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&path).unwrap();
    path
}

impl Runner for Processor {
    fn run(&self, compiled: &Compiled, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<(), String> {
        let folder = folder();
        let (source, library) = (folder.join("kernel.c"), folder.join("kernel.so"));
        std::fs::write(&source, &compiled.code).map_err(|e| e.to_string())?;
        let mut command = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
        command.args(["-std=c11", "-O2", "-ftree-vectorize", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-Werror=implicit-function-declaration"]);
        let out = command.args(self.options).arg("-o").arg(&library).arg(&source).arg("-lm").output().map_err(|e| format!("no C compiler: {e}"))?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        // SAFETY: the library was just made; it has no constructors.
        let loaded = unsafe { libloading::Library::new(&library) }.map_err(|e| e.to_string())?;
        // SAFETY: the entry point has this type by the format's rules.
        let entry = unsafe { loaded.get::<Entry>(compiled.entry.as_bytes()) }.map_err(|e| e.to_string())?;
        // 16 bytes of alignment, and no more: kernels may not rely on it.
        let mut memory: Vec<Vec<u128>> = args.iter().map(|a| if let Arg::Buffer(b) = a { vec![0; b.len().div_ceil(16)] } else { Vec::new() }).collect();
        let mut scalars = vec![0u64; args.len()];
        let mut places = Vec::new();
        for (i, arg) in args.iter().enumerate() {
            places.push(match arg {
                Arg::Buffer(bytes) => {
                    for (word, chunk) in memory[i].iter_mut().zip(bytes.chunks(16)) {
                        let mut filled = [0; 16];
                        filled[..chunk.len()].copy_from_slice(chunk);
                        *word = u128::from_le_bytes(filled);
                    }
                    memory[i].as_mut_ptr().cast()
                }
                Arg::Null => std::ptr::null_mut(),
                Arg::Scalar(bits) => {
                    scalars[i] = *bits;
                    (&raw mut scalars[i]).cast::<c_void>()
                }
            });
        }
        let mut shared = vec![[0xffu8; 64]; compiled.shared_bytes.div_ceil(64) as usize + 1];
        let start = shared.as_mut_ptr().cast::<u8>();
        let aligned = start.wrapping_add(start.align_offset(64));
        assert_eq!(kernel.threads, 1);
        for block in (0..grid[2]).flat_map(|z| (0..grid[1]).flat_map(move |y| (0..grid[0]).map(move |x| [x, y, z]))) {
            // SAFETY: arguments as the format wants them; the kernel keeps within its buffers, as the interpreter has checked.
            unsafe { entry(block.as_ptr(), grid.as_ptr(), places.as_ptr(), aligned.cast()) };
        }
        for (arg, words) in args.iter_mut().zip(&memory) {
            if let Arg::Buffer(bytes) = arg {
                let length = bytes.len();
                *bytes = words.iter().flat_map(|w| w.to_le_bytes()).take(length).collect();
            }
        }
        drop(loaded);
        std::fs::remove_dir_all(&folder).map_err(|e| e.to_string())
    }
}
