//! The system's C compiler: found once, run in a private folder with a time limit.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flagos_backend_api::{Code, Error, Result};

/// Words before the caller's, which he may replace.
const DEFAULTS: &[&str] = &["-O2", "-ftree-vectorize", "-march=native"];
/// Words after the caller's: what the format promises whatever he says. Integers wrap, memory may be seen through any type.
const PROMISES: &[&str] = &["-std=c11", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fno-strict-aliasing", "-fPIC", "-shared", "-w"];
/// Longest a compilation may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest compiler log an error carries, in bytes.
const LOG_BYTES: usize = 16 << 10;

/// A C compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The program.
    pub path: PathBuf,
    /// Tells one installation of it from another.
    pub identity: String,
}

/// The compiler of this machine, or why there is none. Looks at files only; nothing is started.
pub fn system() -> Result<&'static Toolchain> {
    static FOUND: LazyLock<Result<Toolchain, String>> = LazyLock::new(|| find(variable("FLAGOS_CC").as_deref(), variable("PATH").as_deref()));
    FOUND.as_ref().map_err(|why| Error::unimplemented(why.clone()))
}

/// A variable of the environment, unless the process has more rights than the user who started it.
fn variable(name: &str) -> Option<OsString> {
    // SAFETY: takes no pointers and cannot fail.
    let elevated = unsafe { libc::getauxval(libc::AT_SECURE) != 0 || libc::geteuid() != libc::getuid() || libc::getegid() != libc::getgid() };
    if elevated { None } else { std::env::var_os(name).filter(|v| !v.is_empty()) }
}

/// The wish alone where there is one, else the usual names along the path.
fn find(wish: Option<&OsStr>, path: Option<&OsStr>) -> Result<Toolchain, String> {
    let folders: Vec<PathBuf> = std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"))).filter(|f| f.is_absolute()).collect();
    let along = |name: &OsStr| {
        let given = Path::new(name);
        let places = if given.components().count() > 1 { vec![given.to_owned()] } else { folders.iter().map(|f| f.join(given)).collect() };
        places.into_iter().find_map(|p| toolchain(&p))
    };
    if let Some(wish) = wish {
        return along(wish).ok_or_else(|| format!("FLAGOS_CC names '{}', which is no program that can be run here", wish.to_string_lossy()));
    }
    ["cc", "gcc", "clang"].iter().find_map(|n| along(OsStr::new(n))).ok_or_else(|| "no C compiler (cc, gcc, clang) was found; install one or name it in FLAGOS_CC".to_owned())
}

fn toolchain(path: &Path) -> Option<Toolchain> {
    let real = fs::canonicalize(path).ok()?;
    let meta = fs::metadata(&real).ok().filter(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)?;
    Some(Toolchain { identity: format!("{} {} {}", real.display(), meta.len(), meta.mtime()), path: path.to_owned() })
}

/// A folder of this process alone, removed when dropped.
pub struct Private(PathBuf);

impl Private {
    /// Makes one under the system's folder for temporary files.
    pub fn new() -> Result<Private> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let root = variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let mut tries = 0;
        loop {
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
            let folder = root.join(format!("flagos-cc-{}-{}-{nanos:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Private(folder)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
                Err(e) => return Err(failed(&format!("making the folder {}", folder.display()), &e)),
            }
        }
    }
    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What cannot be removed is left for the system's own cleaning.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An error of the file system, with the way out.
pub fn failed(what: &str, e: &std::io::Error) -> Error {
    let code = if e.kind() == std::io::ErrorKind::StorageFull { Code::RESOURCE_EXHAUSTED } else { Code::UNAVAILABLE };
    Error::new(code, format!("{what}: {e}; TMPDIR names the place for temporary files"))
}

impl Toolchain {
    /// Compiles C source to a shared library in `folder`; its bytes are in the file returned.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the compiler's log for source it refuses, DEADLINE_EXCEEDED when it takes too long.
    pub fn compile(&self, source: &[u8], name: &str, options: &str, folder: &Private) -> Result<PathBuf> {
        if let Some(word) = options.split_whitespace().find(|w| !w.starts_with('-')) {
            return Err(Error::invalid(format!("compiler option '{word}': options begin with '-'")));
        }
        let (code, library, log) = (folder.file("kernel.c"), folder.file("kernel.so"), folder.file("log"));
        fs::write(&code, source).map_err(|e| failed("writing the source", &e))?;
        let report = File::create(&log).map_err(|e| failed("writing the compiler's log", &e))?;
        let second = report.try_clone().map_err(|e| failed("writing the compiler's log", &e))?;
        let mut command = Command::new(&self.path);
        command.args(DEFAULTS).args(options.split_whitespace()).args(PROMISES).arg("-o").arg(&library).arg(&code).arg("-lm");
        command.env("LC_ALL", "C").current_dir(&folder.0).stdin(Stdio::null()).stdout(report).stderr(second).process_group(0);
        let child = command.spawn().map_err(|e| Error::new(Code::UNAVAILABLE, format!("starting {}: {e}", self.path.display())))?;
        let ended = wait(child, TIMEOUT)?;
        if ended && library.exists() {
            return Ok(library);
        }
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(LOG_BYTES)]).trim().replace(&format!("{}", code.display()), "kernel.c");
        let text = if text.is_empty() { "the compiler left no log".to_owned() } else { text };
        Err(Error::invalid(format!("module '{name}', options '{options}': {} refuses the source\n{text}", self.path.display())))
    }
}

/// Waits for a compiler; whether it was content. At the end of its time its whole group of processes is ended.
fn wait(mut child: Child, most: Duration) -> Result<bool> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if started.elapsed() < most => std::thread::sleep(pause),
            Ok(None) => {
                // SAFETY: the child leads a group of its own and was not waited for, so the number is still its own.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                // It is gone or going; there is nothing to learn from it.
                let _ = child.wait();
                return Err(Error::new(Code::DEADLINE_EXCEEDED, format!("the C compiler was ended after {} s", most.as_secs())));
            }
            // A process that ignores SIGCHLD has its children reaped by the system: the library tells how it went.
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(true),
            Err(e) => return Err(Error::new(Code::UNAVAILABLE, format!("waiting for the C compiler: {e}"))),
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// What the words above and the machine make of a source: part of what a binary was made for.
pub fn fingerprint(toolchain: &Toolchain) -> String {
    format!("{}\0{}\0{}\0{}", toolchain.identity, processor(), DEFAULTS.join(" "), PROMISES.join(" "))
}

/// The processor's abilities, which `-march=native` compiles for.
fn processor() -> &'static str {
    static FLAGS: LazyLock<String> = LazyLock::new(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let first = text.split("\n\n").next().unwrap_or("");
        let says = |l: &&str| ["cpu family", "model", "flags", "Features", "CPU part", "CPU implementer"].iter().any(|k| l.starts_with(k));
        first.lines().filter(says).collect::<Vec<_>>().join("\n")
    });
    &FLAGS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_honoured_or_named() {
        let path = Some(OsStr::new("/usr/bin:/bin"));
        assert!(find(Some(OsStr::new("/no/such/cc")), path).unwrap_err().contains("/no/such/cc"));
        assert_eq!(find(Some(OsStr::new("sh")), path).unwrap().path.file_name().unwrap(), "sh");
        assert!(find(None, Some(OsStr::new("/nonexistent"))).unwrap_err().contains("FLAGOS_CC"));
    }

    #[test]
    fn a_compiler_that_hangs_is_ended() {
        let child = Command::new("/bin/sh").args(["-c", "sleep 60 & sleep 60"]).process_group(0).spawn().unwrap();
        assert_eq!(wait(child, Duration::from_millis(50)).unwrap_err().code, Code::DEADLINE_EXCEEDED);
    }
}
