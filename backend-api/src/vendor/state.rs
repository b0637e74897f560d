//! What a backend keeps for the life of the process: its table, its host, and whether it is still usable.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{BackendV1, Code, Error, HostV1, LogLevel, Result, Status, Str};

/// A backend's static state; one `static` per backend, handed out by [`Backend::state`](super::Backend::state).
pub struct State {
    pub(super) table: OnceLock<BackendV1>,
    host: AtomicPtr<HostV1>,
    down: AtomicBool,
    poisoned: OnceLock<String>,
    texts: Mutex<Option<HashSet<&'static str>>>,
}

impl State {
    /// Fresh state.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> State {
        State {
            table: OnceLock::new(),
            host: AtomicPtr::new(core::ptr::null_mut()),
            down: AtomicBool::new(false),
            poisoned: OnceLock::new(),
            texts: Mutex::new(None),
        }
    }

    /// The host's services.
    pub fn host(&self) -> Host {
        Host(self.host.load(Ordering::Acquire))
    }

    pub(super) fn set_host(&self, host: *const HostV1) {
        self.host.store(host.cast_mut(), Ordering::Release);
    }

    /// Text that lives as long as the process; equal texts are kept once, so that repeated probes do not leak.
    pub(super) fn text(&self, text: &str) -> Str {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = texts.get_or_insert_with(HashSet::new);
        let kept = texts.get(text).copied().unwrap_or_else(|| {
            let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
            texts.insert(kept);
            kept
        });
        Str::new(kept)
    }

    /// Ends the backend; true the first time.
    pub(super) fn shut_down(&self) -> bool {
        !self.down.swap(true, Ordering::AcqRel)
    }

    /// Runs a slot's body: refused after shutdown or a panic; a panic poisons.
    #[inline]
    pub(super) fn guard(&self, body: impl FnOnce() -> Result<()>) -> *mut Status {
        if self.down.load(Ordering::Relaxed) || self.poisoned.get().is_some() {
            return self.refuse();
        }
        self.guard_always(body)
    }

    /// As `guard`, also after shutdown: for releasing things.
    #[inline]
    pub(super) fn guard_always(&self, body: impl FnOnce() -> Result<()>) -> *mut Status {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => core::ptr::null_mut(),
            Ok(Err(e)) => e.into_status(),
            Err(panic) => self.poison(&*panic),
        }
    }

    #[cold]
    fn refuse(&self) -> *mut Status {
        let text = match self.poisoned.get() {
            Some(panic) => format!("this backend panicked before ({panic}) and is out of use"),
            None => "this backend was shut down".to_owned(),
        };
        Error::new(Code::FAILED_PRECONDITION, text).into_status()
    }

    #[cold]
    pub(super) fn poison(&self, panic: &(dyn core::any::Any + Send)) -> *mut Status {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "a panic without text".to_owned());
        let status = Error::new(Code::PLUGIN_PANIC, format!("the backend panicked: {text}")).into_status();
        let _ = self.poisoned.set(text);
        status
    }
}

/// The host's services to a backend. Without a host (direct use in tests) allocation fails and log lines vanish.
#[derive(Clone, Copy)]
pub struct Host(*const HostV1);

// SAFETY: the host table is immutable, lives as long as the process, and its functions may be called from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// Writes a log line.
    pub fn log(&self, level: LogLevel, text: &str) {
        // SAFETY: the table lives as long as the process; the text is borrowed for the call.
        unsafe {
            if let Some(host) = self.0.as_ref()
                && let Some(log) = host.log
            {
                log(host.context, level.0, Str::borrowed(text));
            }
        }
    }
    /// Host memory counted for this backend; NULL when there is none.
    pub fn alloc(&self, bytes: u64, alignment_bytes: u64) -> *mut u8 {
        // SAFETY: the table lives as long as the process.
        unsafe {
            match self.0.as_ref().and_then(|h| h.alloc.map(|f| (f, h.context))) {
                Some((alloc, context)) => alloc(context, bytes, alignment_bytes).cast(),
                None => core::ptr::null_mut(),
            }
        }
    }
    /// Frees memory from [`Host::alloc`].
    ///
    /// # Safety
    /// `address` came from `alloc` with the same sizes and is not used again.
    pub unsafe fn free(&self, address: *mut u8, bytes: u64, alignment_bytes: u64) {
        // SAFETY: stated by the caller; the table lives as long as the process.
        unsafe {
            if let Some(host) = self.0.as_ref()
                && let Some(free) = host.free
            {
                free(host.context, address.cast(), bytes, alignment_bytes);
            }
        }
    }
}
