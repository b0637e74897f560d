//! Kernels in C: compiled by the system's compiler, loaded, and called once for each block by the threads of the pool.

use core::cell::RefCell;
use core::ffi::{CStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flagos_backend_api::vendor::{Argument, CompileRequest, Grid, Modules};
use flagos_backend_api::{Code, Error, KernelFormat, Result, build_id};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use sha2::{Digest, Sha256};

use crate::device::{CpuDevice, SHARED_BYTES};
use crate::memory::CpuBuffer;
use crate::stream::CpuStream;
use crate::target::Target;
use crate::toolchain::{self, Private};

/// The entry point of the format: block, grid, arguments, shared memory.
type Entry = unsafe extern "C" fn(*const u32, *const u32, *const *mut c_void, *mut c_void);

/// Arguments kept on the stack during a launch; kernels with more go through a list the thread keeps.
const ON_STACK: usize = 32;
/// Alignment of shared memory in bytes.
const SHARED_ALIGN: usize = 64;
/// Runs of blocks handed to the pool for each of its threads, so that uneven blocks even out.
const RUNS_PER_THREAD: usize = 8;

/// First bytes of an exported binary; the last one counts its versions.
const MAGIC: &[u8; 8] = b"FLAGOSC\x01";
const DIGEST: usize = 32;

/// Loaded code.
pub struct CpuModule {
    library: Arc<Library>,
    /// Bytes of the library, for export.
    code: Vec<u8>,
    /// Where it was loaded from; the file is gone.
    path: PathBuf,
    name: String,
}

/// An entry point.
pub struct CpuKernel {
    entry: Entry,
    _library: Arc<Library>,
    name: String,
}

/// What a library of this machine and compiler is wrapped with.
fn target() -> Result<[u8; DIGEST]> {
    Ok(Sha256::digest(format!("{}\0{}\0{}", Target::host().isa.name(), toolchain::fingerprint(toolchain::system()?), build_id!())).into())
}

fn wrap(made_for: [u8; DIGEST], code: &[u8]) -> Vec<u8> {
    let content: [u8; DIGEST] = Sha256::digest(code).into();
    [&MAGIC[..], &made_for, &content, code].concat()
}

/// The library in a binary. Loading runs its code, so nothing is loaded that was not written just so.
fn unwrap(made_for: [u8; DIGEST], bytes: &[u8]) -> Result<&[u8]> {
    let bad = |why: &str| Error::new(Code::DATA_LOSS, format!("the binary does not fit: {why}; compile the source again"));
    let rest = bytes.strip_prefix(&MAGIC[..]).ok_or_else(|| bad("it was not exported by this backend, or by another version of it"))?;
    let (made, rest) = rest.split_at_checked(DIGEST).ok_or_else(|| bad("it was cut off"))?;
    let (content, code) = rest.split_at_checked(DIGEST).ok_or_else(|| bad("it was cut off"))?;
    if made != made_for {
        return Err(bad("it was made for another processor, compiler or build"));
    }
    if content != &Sha256::digest(code)[..] {
        return Err(bad("its bytes were changed or cut off"));
    }
    Ok(code)
}

/// Opens a library; its file may be removed afterwards.
fn load(path: &Path, name: &str) -> Result<Arc<Library>> {
    // SAFETY: loading runs initialisers, which C source of the format has none of; a binary is what this backend compiled from such source.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(Arc::new).map_err(|e| Error::invalid(format!("module '{name}' cannot be loaded: {e}; TMPDIR must name a place where programs may run")))
}

impl Modules for CpuDevice {
    type Module = CpuModule;
    type Kernel = CpuKernel;

    fn compile(&self, request: &CompileRequest<'_>) -> Result<CpuModule> {
        if request.format != KernelFormat::C {
            return Err(Error::unimplemented(format!("kernel format {} is not taken here; C ({}) is", request.format, KernelFormat::C.0)));
        }
        let compiler = toolchain::system()?;
        let name = if request.name.is_empty() { "kernel" } else { &request.name };
        let folder = Private::new()?;
        let path = if request.is_binary {
            let path = folder.file("kernel.so");
            std::fs::write(&path, unwrap(target()?, request.code)?).map_err(|e| toolchain::failed("writing the library", &e))?;
            path
        } else {
            if request.code.is_empty() {
                return Err(Error::invalid(format!("the source of module '{name}' is empty")));
            }
            compiler.compile(request.code, name, &request.options, &folder)?
        };
        let code = std::fs::read(&path).map_err(|e| toolchain::failed("reading the library", &e))?;
        Ok(CpuModule { library: load(&path, name)?, code, path, name: name.to_owned() })
    }

    fn kernel(&self, module: &CpuModule, name: &str) -> Result<CpuKernel> {
        let missing = || Error::new(Code::NOT_FOUND, format!("module '{}' has no entry point '{name}'", module.name));
        // SAFETY: an entry point of the format has this type; the address is used only while the library is loaded.
        let entry = unsafe { module.library.get::<Entry>(name.as_bytes()) }.map(|s| *s).map_err(|_| missing())?;
        if !lies_in(&module.path, entry) {
            return Err(missing());
        }
        Ok(CpuKernel { entry, _library: module.library.clone(), name: name.to_owned() })
    }

    fn kernel_facts(&self, _: &CpuKernel) -> Result<[u32; 4]> {
        Ok([0; 4])
    }

    fn launch_kernel<'a>(&self, _: &CpuStream, kernel: &CpuKernel, grid: &Grid, args: impl ExactSizeIterator<Item = Argument<'a, CpuBuffer>>) -> Result<()> {
        if grid.shared_bytes > SHARED_BYTES {
            return Err(Error::invalid(format!("kernel '{}': {} bytes of shared memory; there are {SHARED_BYTES}", kernel.name, grid.shared_bytes)));
        }
        let blocks = grid.grid.iter().try_fold(1usize, |n, g| n.checked_mul(*g as usize));
        let blocks = blocks.ok_or_else(|| Error::invalid(format!("kernel '{}': a grid of {:?} blocks cannot be counted", kernel.name, grid.grid)))?;
        let count = args.len();
        if count <= ON_STACK {
            let (mut words, mut places) = ([0u64; ON_STACK], [core::ptr::null_mut(); ON_STACK]);
            gather(args, &mut words[..count], &mut places[..count]);
            self.blocks(kernel, grid, blocks, &places[..count]);
            return Ok(());
        }
        thread_local! {
            static LONG: RefCell<(Vec<u64>, Vec<*mut c_void>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        LONG.with_borrow_mut(|(words, places)| {
            words.resize(count, 0);
            places.resize(count, core::ptr::null_mut());
            gather(args, words, places);
            self.blocks(kernel, grid, blocks, places);
        });
        Ok(())
    }

    fn binary(&self, module: &CpuModule) -> Result<Vec<u8>> {
        Ok(wrap(target()?, &module.code))
    }
}

/// Whether an address lies in the library loaded from `path`, not in one that it is linked with.
fn lies_in(path: &Path, entry: Entry) -> bool {
    // SAFETY: all-zero bytes are a valid Dl_info, which the call fills; any address may be asked for. The loader's text lives as long as
    // the library, which the caller holds.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        libc::dladdr(entry as *const c_void, &mut info) != 0 && !info.dli_fname.is_null() && CStr::from_ptr(info.dli_fname).to_bytes() == path.as_os_str().as_bytes()
    }
}

/// Turns arguments into the format's list: addresses of buffers, and addresses of scalars' bytes in `words`.
fn gather<'a>(args: impl ExactSizeIterator<Item = Argument<'a, CpuBuffer>>, words: &mut [u64], places: &mut [*mut c_void]) {
    for ((argument, word), place) in args.zip(words).zip(places) {
        *place = match argument {
            Argument::Buffer(None) => core::ptr::null_mut(),
            Argument::Buffer(Some((buffer, offset))) => buffer.at(offset).cast(),
            Argument::Scalar { bits, .. } => {
                *word = bits.to_le();
                core::ptr::from_mut(word).cast()
            }
        };
    }
}

/// Arguments shared with the threads of the pool.
struct Shared<'a>(&'a [*mut c_void]);

// SAFETY: addresses only; what blocks do with them is theirs to justify, as the format says.
unsafe impl Sync for Shared<'_> {}

impl CpuDevice {
    /// Runs every block, runs of them by each thread of the pool.
    fn blocks(&self, kernel: &CpuKernel, grid: &Grid, blocks: usize, places: &[*mut c_void]) {
        let (entry, extents, shared, places) = (kernel.entry, grid.grid, grid.shared_bytes, Shared(places));
        let run = |range: core::ops::Range<usize>| {
            let places = &places;
            with_shared(shared, |memory| {
                for i in range.clone() {
                    let (x, y) = (extents[0] as usize, extents[1] as usize);
                    let block = [(i % x) as u32, (i / x % y) as u32, (i / x / y) as u32];
                    // SAFETY: the host vouches for the code and for its arguments; the lists live until all blocks are over.
                    unsafe { entry(block.as_ptr(), extents.as_ptr(), places.0.as_ptr(), memory.cast()) };
                }
            });
        };
        self.pool.for_ranges(blocks, blocks.div_ceil(self.pool.threads() * RUNS_PER_THREAD), &run);
    }
}

/// Lends this thread's shared memory. A thread's first use takes as much as a block may ever want; later uses take nothing.
fn with_shared(bytes: u32, f: impl FnOnce(*mut u8)) {
    if bytes == 0 {
        return f(core::ptr::null_mut());
    }
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.take();
    if scratch.is_empty() {
        // Zeroed pages are the system's until they are touched.
        scratch = vec![0; SHARED_BYTES as usize + SHARED_ALIGN];
    }
    let start = scratch.as_mut_ptr();
    f(start.wrapping_add(start.align_offset(SHARED_ALIGN)));
    SCRATCH.set(scratch);
}
