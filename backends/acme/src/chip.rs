//! The chip, played by the processor: what a vendor's driver would be. Memory, the system's C compiler, and a pool of threads that run kernels.

use core::cell::RefCell;
use core::ffi::c_void;
use std::alloc::Layout;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use flagos_backend_api::{Code, Error, Result};
use libloading::Library;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Memory in bytes, taken from the system's only as far as it is used.
pub const MEMORY_BYTES: u64 = 4 << 30;
/// Least alignment of memory in bytes.
pub const ALIGNMENT: usize = 64;
/// Most shared memory of a block in bytes.
pub const SHARED_BYTES: u32 = 16 << 20;

/// What the format promises to kernels: IEEE arithmetic without contraction, integers that wrap, memory seen through any type.
const OPTIONS: &[&str] = &["-std=c11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fwrapv", "-fno-strict-aliasing", "-fPIC", "-shared", "-w"];

/// An entry point of a kernel in C; see `backend-api/KERNELS.md`.
pub type Entry = unsafe extern "C" fn(block: *const u32, grid: *const u32, args: *const *mut c_void, shared: *mut c_void);

static USED_BYTES: AtomicU64 = AtomicU64::new(0);

/// The compiler's name and version, or why there is none. The first call starts it.
pub fn driver() -> core::result::Result<&'static str, &'static str> {
    static DRIVER: LazyLock<core::result::Result<String, String>> = LazyLock::new(|| {
        let output = Command::new("cc").arg("--version").output().map_err(|e| format!("the C compiler cc cannot be started: {e}; install one"))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("cc").to_owned())
    });
    DRIVER.as_deref().map_err(String::as_str)
}

/// Threads that run kernels.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// Memory that is left.
pub fn free_bytes() -> u64 {
    MEMORY_BYTES - USED_BYTES.load(Ordering::Acquire)
}

/// A range of memory.
pub struct Range {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: addresses only; streams order who reads and writes what lies there, as the contract demands.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    /// At least one byte, at a multiple of `alignment` (0: as usual); `None` when there is no more.
    pub fn new(bytes: u64, alignment: u64) -> Option<Range> {
        let layout = Layout::from_size_align(usize::try_from(bytes).ok()?, (alignment as usize).max(ALIGNMENT)).ok()?;
        let take = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= MEMORY_BYTES);
        USED_BYTES.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        // SAFETY: the layout has at least one byte.
        let base = unsafe { std::alloc::alloc(layout) };
        if base.is_null() {
            USED_BYTES.fetch_sub(bytes, Ordering::AcqRel);
            return None;
        }
        Some(Range { base, layout })
    }
    /// Length.
    pub fn bytes(&self) -> u64 {
        self.layout.size() as u64
    }
    /// Address of a byte.
    pub fn at(&self, offset: u64) -> *mut u8 {
        self.base.wrapping_add(offset as usize)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
        USED_BYTES.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

/// Loaded code.
pub struct Program {
    library: Library,
    code: Vec<u8>,
}

impl Program {
    /// Compiles C source; the error carries the compiler's log.
    pub fn compile(source: &[u8], options: &str) -> Result<Program> {
        if let Some(word) = options.split_whitespace().find(|w| !w.starts_with('-')) {
            return Err(Error::invalid(format!("compiler option '{word}': options begin with '-'")));
        }
        let folder = Folder::new()?;
        let (from, to) = (folder.0.join("kernel.c"), folder.0.join("kernel.so"));
        std::fs::write(&from, source).map_err(failed)?;
        let output = Command::new("cc").args(options.split_whitespace()).args(OPTIONS).arg("-o").arg(&to).arg(&from).arg("-lm").output().map_err(failed)?;
        if !output.status.success() {
            return Err(Error::invalid(format!("cc refuses the source\n{}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        Program::load(&std::fs::read(&to).map_err(failed)?)
    }

    /// Loads what was compiled before.
    pub fn load(code: &[u8]) -> Result<Program> {
        let folder = Folder::new()?;
        let path = folder.0.join("kernel.so");
        std::fs::write(&path, code).map_err(failed)?;
        // SAFETY: loading runs initialisers, which C source of the format has none of.
        let library = unsafe { Library::new(&path) }.map_err(|e| Error::invalid(format!("the compiled code cannot be loaded: {e}")))?;
        Ok(Program { library, code: code.to_vec() })
    }

    /// The entry point of a name. It may be called as long as the program lives.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        // SAFETY: entry points of the format have this type.
        unsafe { self.library.get::<Entry>(name.as_bytes()) }.ok().map(|symbol| *symbol)
    }

    /// What [`Program::load`] takes.
    pub fn code(&self) -> &[u8] {
        &self.code
    }
}

/// A folder of this process alone, removed when dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!("flagos-acme-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left for the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::new(Code::UNAVAILABLE, format!("compiling: {e}; TMPDIR names the place for temporary files"))
}

/// Runs every block of a launch on the threads of the pool; returns when all are over.
///
/// # Safety
/// `args` are what the kernel takes: addresses of buffers, and of the bytes of scalars. Whatever the kernel does with them is right.
pub unsafe fn run(entry: Entry, grid: [u32; 3], shared_bytes: u32, args: &[usize]) -> Result<()> {
    thread_local! {
        static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let [x, y, z] = grid.map(u64::from);
    let blocks = x.checked_mul(y).and_then(|n| n.checked_mul(z)).ok_or_else(|| Error::invalid(format!("a grid of {grid:?} blocks cannot be counted")))?;
    (0..blocks).into_par_iter().for_each(|i| {
        let block = [i % x, i / x % y, i / x / y].map(|n| n as u32);
        SHARED.with_borrow_mut(|shared| {
            // A thread's first block of such a kernel takes the memory; later ones find it there.
            if shared.len() < shared_bytes as usize + ALIGNMENT {
                shared.resize(shared_bytes as usize + ALIGNMENT, 0);
            }
            let start = shared.as_mut_ptr();
            let start = start.wrapping_add(start.align_offset(ALIGNMENT));
            // SAFETY: stated by the caller; shared memory is this thread's alone during the block.
            unsafe { entry(block.as_ptr(), grid.as_ptr(), args.as_ptr().cast(), start.cast()) };
        });
    });
    Ok(())
}
