//! Loading: opens a library, checks what was opened, maps it and calls its entry under a watchdog. An unsafe border.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use flagos_backend_api::{BackendQuery, Code, ENTRY_SYMBOL, Error, HostV1};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use sha2::{Digest, Sha256};

use super::host::host_table;
use super::{BackendPtr, Phase, Refusal, elf, maps};

/// A library opened and judged, not yet mapped.
pub(super) struct Opened {
    file: File,
    path: PathBuf,
    /// Digest of what was opened, where it was asked for.
    pub(super) sha256: Option<String>,
}

/// What an entry returned, and how long it took.
pub(super) struct Entered {
    /// Not yet checked in any way but for NULL.
    pub(super) table: BackendPtr,
    pub(super) dlopen_ns: u64,
    pub(super) query_ns: u64,
}

/// Name of a library whose loading never returned: the dynamic linker's lock is then held for ever.
static STUCK: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Opens a library: ELF header, and the digest of the opened descriptor if one is expected or asked for.
pub(super) fn open(
    path: &Path,
    expected: Option<&str>,
    hash: bool,
    hash_ns: &mut u64,
) -> Result<Opened, Refusal> {
    let unreadable = |e: std::io::Error| {
        let (code, what) = match e.kind() {
            std::io::ErrorKind::NotFound => {
                (Code::NOT_FOUND, "the library does not exist; correct 'library' in the manifest, or reinstall the backend".to_owned())
            }
            std::io::ErrorKind::PermissionDenied => (Code::PERMISSION_DENIED, format!("the library cannot be read: {e}; run chmod a+r on it")),
            _ => (Code::DATA_LOSS, format!("the library cannot be read: {e}; reinstall the backend")),
        };
        Refusal::new(Phase::Open, code, path, what)
    };
    // A FIFO would block at opening.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        let what = "not a regular file; give the path of the backend's .so file";
        return Err(Refusal::new(
            Phase::Open,
            Code::INVALID_ARGUMENT,
            path,
            what,
        ));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let needed =
        elf::check(&file).map_err(|what| Refusal::new(Phase::Elf, Code::DATA_LOSS, path, what))?;
    sanitizer_runtime(&needed)
        .map_err(|what| Refusal::new(Phase::Elf, Code::ABI_MISMATCH, path, what))?;
    let start = Instant::now();
    let sha256 = if hash || expected.is_some() {
        Some(digest(&mut file).map_err(unreadable)?)
    } else {
        None
    };
    *hash_ns = start.elapsed().as_nanos() as u64;
    if let (Some(expected), Some(found)) = (expected, &sha256)
        && expected != found
    {
        let what = format!(
            "the file's SHA-256 is {found}, the manifest says {expected}; the file was changed or replaced: reinstall the backend"
        );
        return Err(Refusal::new(
            Phase::Hash,
            Code::PERMISSION_DENIED,
            path,
            what,
        ));
    }
    Ok(Opened {
        file,
        path: path.to_owned(),
        sha256,
    })
}

/// Maps the library and calls its entry, both in a thread of their own. A thread that does not come back in `timeout` is left running.
pub(super) fn enter(opened: Opened, name: &str, timeout: Duration) -> Result<Entered, Refusal> {
    if let Some(stuck) = &*STUCK.lock().unwrap_or_else(PoisonError::into_inner) {
        let what = format!(
            "cannot be loaded while {} never finishes loading; remove that backend and start again",
            stuck.display()
        );
        return Err(Refusal::new(
            Phase::Dlopen,
            Code::FAILED_PRECONDITION,
            &opened.path,
            what,
        ));
    }
    let (path, name) = (opened.path.clone(), name.to_owned());
    watched(&path, timeout, Phase::Dlopen, move |progress| {
        let start = Instant::now();
        let entry = map(&opened)?;
        let dlopen_ns = start.elapsed().as_nanos() as u64;
        progress.store(dlopen_ns.max(1), Ordering::Release);
        let (table, query_ns) = query(entry, host_table(&name), &opened.path)?;
        Ok(Entered {
            table,
            dlopen_ns,
            query_ns,
        })
    })
}

/// Calls the entry of an in-process table under the same watchdog.
pub(super) fn enter_direct(
    entry: BackendQuery,
    name: &str,
    timeout: Duration,
    place: &str,
) -> Result<Entered, Refusal> {
    let path = PathBuf::from(place);
    let (place, name) = (path.clone(), name.to_owned());
    watched(&path, timeout, Phase::Query, move |_| {
        let (table, query_ns) = query(entry, host_table(&name), &place)?;
        Ok(Entered {
            table,
            dlopen_ns: 0,
            query_ns,
        })
    })
}

/// Runs `work` in a thread; `work` stores a value in its argument when loading is done and the entry begins.
fn watched(
    path: &Path,
    timeout: Duration,
    first: Phase,
    work: impl FnOnce(&AtomicU64) -> Result<Entered, Refusal> + Send + 'static,
) -> Result<Entered, Refusal> {
    let progress = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::sync_channel(1);
    let inner = Arc::clone(&progress);
    let thread = std::thread::Builder::new()
        .name("flagos-load".into())
        .spawn(move || {
            let _ = sender.send(work(&inner));
        });
    if let Err(e) = thread {
        return Err(Refusal::new(
            first,
            Code::RESOURCE_EXHAUSTED,
            path,
            format!("no thread to load it with: {e}; raise the limit with ulimit -u"),
        ));
    }
    match receiver.recv_timeout(timeout) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let loading = first == Phase::Dlopen && progress.load(Ordering::Acquire) == 0;
            let seconds = timeout.as_secs_f64();
            let (phase, what) = if loading {
                if STUCK
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(path.to_owned())
                    .is_none()
                {
                    leave_at_exit();
                }
                (
                    Phase::Dlopen,
                    format!("its constructors did not return within {seconds} s"),
                )
            } else {
                (
                    Phase::Query,
                    format!("its entry did not return within {seconds} s"),
                )
            };
            let what = format!(
                "{what}; left running, backend refused: report it to its maker, or raise FLAGOS_QUERY_TIMEOUT_MS if it is only slow"
            );
            Err(Refusal::new(phase, Code::DEADLINE_EXCEEDED, path, what))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let what =
                "loading it panicked in the host; report this to libflagos with the text above";
            Err(Refusal::new(first, Code::INTERNAL, path, what))
        }
    }
}

/// At exit glibc waits for the linker's lock, which a stuck constructor holds for ever: end the process there instead.
#[cfg(target_env = "gnu")]
fn leave_at_exit() {
    unsafe extern "C" {
        fn on_exit(
            function: extern "C" fn(libc::c_int, *mut libc::c_void),
            argument: *mut libc::c_void,
        ) -> libc::c_int;
    }
    extern "C" fn leave(status: libc::c_int, _: *mut libc::c_void) {
        // SAFETY: flushes C streams as exit would, then ends the process with the status it was to end with.
        unsafe {
            libc::fflush(core::ptr::null_mut());
            libc::_exit(status)
        }
    }
    // SAFETY: registers a function that lives as long as the process; the argument is not read. Handlers registered before this one are
    // skipped, which is better than a process that never ends.
    unsafe { on_exit(leave, core::ptr::null_mut()) };
}

/// Other C libraries do not wait.
#[cfg(not(target_env = "gnu"))]
fn leave_at_exit() {}

/// Maps the library for the life of the process and finds its entry.
fn map(opened: &Opened) -> Result<BackendQuery, Refusal> {
    let path = &opened.path;
    let refuse = |phase, code, what: String| Err(Refusal::new(phase, code, path, what));
    // SAFETY: running the library's constructors is the point; the file has passed trust, digest and header checks. The path is absolute,
    // so no search path is used.
    let library =
        match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) } {
            Ok(library) => library,
            Err(e) => {
                let text =
                    std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| s.to_string());
                return refuse(
                    Phase::Dlopen,
                    Code::UNAVAILABLE,
                    format!(
                        "the dynamic linker refuses it: {text}; {}",
                        linker_way_out(&text)
                    ),
                );
            }
        };
    // SAFETY: the symbol's name carries the ABI major, and so its type.
    let entry = unsafe {
        library
            .get::<BackendQuery>(ENTRY_SYMBOL)
            .map(|symbol| *symbol)
    };
    let Ok(entry) = entry else {
        let what = other_major(&library).map_or_else(
            || format!("it exports no {ENTRY_SYMBOL}, so it is no backend; correct 'library' in the manifest, or export the entry"),
            |other| format!("it exports {other} and not {ENTRY_SYMBOL}: it is for another ABI major; install a backend built for this libflagos"),
        );
        std::mem::forget(library);
        return refuse(Phase::Dlopen, Code::ABI_MISMATCH, what);
    };
    // Never closed: its tables are static for the life of the process.
    std::mem::forget(library);
    belongs(opened, entry as usize)?;
    Ok(entry)
}

/// Checks that the entry lies in the very file that was judged: neither in another library, nor in one put in its place meanwhile.
fn belongs(opened: &Opened, entry: usize) -> Result<(), Refusal> {
    let refuse = |what: String| {
        Err(Refusal::new(
            Phase::Dlopen,
            Code::PERMISSION_DENIED,
            &opened.path,
            what,
        ))
    };
    // The descriptor is mapped as well, so that both identities come from the same source.
    // SAFETY: a new read-only mapping of one page of an open file, at an address of the kernel's choice; it is never read.
    let page = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            1,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            opened.file.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return refuse(format!(
            "the file cannot be mapped for comparison: {}; free some memory",
            std::io::Error::last_os_error()
        ));
    }
    let judged = maps::file_at(page as usize);
    // SAFETY: unmaps exactly the mapping made above.
    unsafe { libc::munmap(page, 1) };
    match (judged, maps::file_at(entry)) {
        (Some(judged), Some(mapped)) if judged.identity == mapped.identity => Ok(()),
        (Some(_), Some(mapped)) if mapped.path == opened.path => {
            refuse("the file was replaced while it was being loaded; finish its installation and start again".into())
        }
        (Some(_), Some(mapped)) => {
            refuse(format!("{ENTRY_SYMBOL} lies in {} and not in this file; link the backend so that it exports its own entry", mapped.path.display()))
        }
        // Without /proc the linker's word has to do.
        _ if file_of(entry).is_some_and(|f| f.canonicalize().ok() == opened.path.canonicalize().ok()) => Ok(()),
        _ => refuse("it cannot be told which file its entry lies in; mount /proc".into()),
    }
}

/// The file the dynamic linker says an address lies in.
fn file_of(address: usize) -> Option<PathBuf> {
    // SAFETY: all-zero bytes are a valid Dl_info; dladdr only reads the linker's lists and writes into `info`.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        if libc::dladdr(address as *const _, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(
            CStr::from_ptr(info.dli_fname)
                .to_string_lossy()
                .into_owned(),
        ))
    }
}

/// Calls the entry.
fn query(
    entry: BackendQuery,
    host: &'static HostV1,
    path: &Path,
) -> Result<(BackendPtr, u64), Refusal> {
    let mut why_not = core::ptr::null_mut();
    let start = Instant::now();
    // SAFETY: the entry has the type its symbol promises; the host table lives for ever, `why_not` for the call.
    let table = unsafe { entry(host, &mut why_not) };
    let query_ns = start.elapsed().as_nanos() as u64;
    // SAFETY: NULL, or a status the entry just made; it is taken exactly here.
    let reason = unsafe { Error::from_status(why_not) };
    if !table.is_null() {
        return Ok((BackendPtr::new(table), query_ns));
    }
    Err(match reason {
        Err(error) => {
            let what = format!(
                "the backend declines: {error}; {}",
                declined_way_out(error.code)
            );
            Refusal::new(Phase::Query, error.code, path, what)
        }
        Ok(()) => {
            let what = "its entry returned NULL without a reason; report it to its maker: the contract asks for a status";
            Refusal::new(Phase::Query, Code::INTERNAL, path, what)
        }
    })
}

fn declined_way_out(code: Code) -> &'static str {
    match code {
        Code::UNAVAILABLE => "install its driver, or remove the backend",
        Code::ABI_MISMATCH => "update libflagos or the backend, so that their ABI minors meet",
        Code::PLUGIN_PANIC => {
            "report the panic to its maker, and leave the backend out with FLAGOS_BACKENDS_DISABLE"
        }
        _ => "follow its reason, or leave it out with FLAGOS_BACKENDS_DISABLE",
    }
}

fn linker_way_out(text: &str) -> &'static str {
    if text.contains("cannot open shared object file") {
        "install the package of the missing library, or add its folder to LD_LIBRARY_PATH"
    } else if text.contains("undefined symbol") || text.contains("version `") {
        "it was linked against another version of a library: install the version it needs, or rebuild it"
    } else if text.contains("static TLS") {
        "build it with -mtls-dialect=gnu2, or load it earlier with LD_PRELOAD"
    } else {
        "reinstall the backend"
    }
}

/// An entry of another ABI major that the library has instead.
fn other_major(library: &Library) -> Option<String> {
    let stem = ENTRY_SYMBOL.trim_end_matches(|c: char| c.is_ascii_digit());
    // SAFETY: the symbols are only looked up, never called.
    (0..10)
        .map(|major| format!("{stem}{major}"))
        .find(|name| unsafe { library.get::<*const ()>(name.as_str()).is_ok() })
}

/// A sanitizer's runtime that comes with a plugin ends the process unless it was there first, so it is told before loading.
fn sanitizer_runtime(needed: &[String]) -> Result<(), String> {
    for (library, symbol, name) in [
        ("libasan.so", "__asan_init", "AddressSanitizer"),
        ("libtsan.so", "__tsan_init", "ThreadSanitizer"),
        ("libhwasan.so", "__hwasan_init", "HWAddressSanitizer"),
    ] {
        if needed.iter().any(|n| n.starts_with(library)) && !process_has(symbol) {
            return Err(format!(
                "the library is built with {name} and this process is not; load the backend's plain build, or preload the sanitizer"
            ));
        }
    }
    Ok(())
}

/// Whether the process itself has a symbol, as sanitizers leave.
pub(super) fn process_has(symbol: &str) -> bool {
    // SAFETY: the symbol is only looked up.
    unsafe { Library::this().get::<*const ()>(symbol).is_ok() }
}

fn digest(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut block = vec![0u8; 1 << 16];
    loop {
        let n = file.read(&mut block)?;
        if n == 0 {
            return Ok(hasher
                .finalize()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect());
        }
        hasher.update(&block[..n]);
    }
}
