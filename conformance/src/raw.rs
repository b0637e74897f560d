//! The backend's tables without the host's care: each status is checked for its form before it is read.

use core::ffi::c_void;
use std::time::Duration;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error, Status};

use crate::bench::Bench;
use crate::check::Check;
use crate::outcome::{Step, Stop, ensure, fail};

/// A backend's handle; the contract lets any thread use it.
pub struct Handle<T>(pub *mut T);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
// SAFETY: the contract lets handles be used from any thread; streams are given to one thread at a time by the cases.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// What the backend answered; the outer result is a malformed answer.
pub type Answer<T = ()> = Step<Result<T, Error>>;

/// Takes a status: checks its form, copies it, releases it.
pub fn take(status: *mut Status) -> Answer {
    if status.is_null() {
        return Ok(Ok(()));
    }
    // SAFETY: a slot returned it just now; a status has at least the size of minor 0.
    let s = unsafe { &*status };
    let (size, kind, code, release) = (s.size, s.kind, s.code, s.release);
    ensure(size >= Status::SIZE, Check::Status, || format!("a status has size {size}; flagos_status_t has {}", Status::SIZE))?;
    ensure(kind == Status::KIND, Check::Status, || format!("a status has kind {kind:#x}; it is {:#x}", Status::KIND))?;
    ensure(code != Code::OK.0, Check::Status, || "a status carries the code OK; success is NULL".into())?;
    ensure(release.is_some(), Check::Status, || "a status has no release function".into())?;
    ensure(s.message.len > 0 && !s.message.ptr.is_null(), Check::Status, || format!("a status of code {} has no text", Code(code)))?;
    // SAFETY: as above; released exactly here.
    let result = unsafe { Error::from_status(status) };
    match result {
        Err(e) if matches!(e.code, Code::PLUGIN_PANIC | Code::DEVICE_LOST) => Err(e.into()),
        other => Ok(other),
    }
}

/// Calls a slot; an empty one skips the case.
macro_rules! slot {
    ($table:expr, $slot:ident, $($arg:expr),* $(,)?) => {
        match $table.$slot {
            // SAFETY: the arguments are what the case means to pass: live handles of this backend, or what the slot must refuse.
            Some(function) => $crate::raw::take(unsafe { function($($arg),*) }),
            None => Err($crate::outcome::Stop::Skip(format!("the slot '{}' is empty", stringify!($slot)))),
        }
    };
}
pub(crate) use slot;

/// The answer's error, which a case expects; success is a failure of `check`.
pub fn refused<T>(answer: Result<T, Error>, check: Check, what: &str) -> Step<Error> {
    match answer {
        Err(e) => Ok(e),
        Ok(_) => fail(check, format!("{what} succeeded; it is to be refused")),
    }
}

/// The answer of an optional slot: UNIMPLEMENTED skips the case, as an empty slot does.
pub fn optional<T>(answer: Result<T, Error>, what: &str) -> Step<T> {
    match answer {
        Err(e) if e.code == Code::UNIMPLEMENTED => Err(Stop::Skip(format!("{what}: {}", e.message))),
        other => Ok(other?),
    }
}

/// Expects one of some codes.
pub fn refused_with<T>(answer: Result<T, Error>, codes: &[Code], check: Check, what: &str) -> Step {
    let e = refused(answer, check, what)?;
    ensure(codes.contains(&e.code), check, || format!("{what} is answered {e}; expected {codes:?}"))
}

/// Opens a device through its table.
pub fn open(table: &abi::DeviceTable, ordinal: u32) -> Result<Handle<abi::Device>, Error> {
    let mut out = core::ptr::null_mut();
    let open = table.open.ok_or_else(|| Error::unimplemented("the slot 'open' is empty"))?;
    // SAFETY: negotiation found the table sound; `out` is written before return.
    unsafe { Error::from_status(open(ordinal, &mut out)) }?;
    if out.is_null() { Err(Error::new(Code::INTERNAL, "'open' succeeded without a handle")) } else { Ok(Handle(out)) }
}

/// Memory, freed when dropped.
pub struct Memory<'a> {
    bench: &'a Bench,
    /// The handle.
    pub handle: Handle<abi::Buffer>,
    /// Its length.
    pub bytes: u64,
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let Some(free) = self.bench.tables().memory.free {
            // SAFETY: the handle is live and its work is over: cases wait before they drop.
            let _ = take(unsafe { free(self.handle.0) });
        }
    }
}

/// A stream, destroyed when dropped.
pub struct Queue<'a> {
    bench: &'a Bench,
    /// The handle.
    pub handle: Handle<abi::Stream>,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let table = &self.bench.tables().stream;
        if let (Some(sync), Some(destroy)) = (table.sync, table.destroy) {
            // SAFETY: the handle is live; nobody else uses it now.
            let _ = take(unsafe { sync(self.handle.0) });
            // SAFETY: as above.
            let _ = take(unsafe { destroy(self.handle.0) });
        }
    }
}

/// A timeline, destroyed when dropped.
pub struct Timeline<'a> {
    bench: &'a Bench,
    /// The handle.
    pub handle: Handle<abi::Event>,
}

impl Drop for Timeline<'_> {
    fn drop(&mut self) {
        if let Some(destroy) = self.bench.tables().stream.event_destroy {
            // SAFETY: the handle is live; no stream waits for it.
            let _ = take(unsafe { destroy(self.handle.0) });
        }
    }
}

/// A zeroed struct of the ABI with its size and kind set.
macro_rules! sized {
    ($T:ty) => {{
        // SAFETY: all-zero bytes are a valid value of the ABI's structs: integers, NULL pointers and empty text.
        let mut value: $T = unsafe { core::mem::zeroed() };
        (value.size, value.kind) = (<$T>::SIZE, <$T>::KIND);
        value
    }};
}
pub(crate) use sized;

fn made<T>(answer: Result<(), Error>, out: *mut T, what: &str) -> Step<Result<Handle<T>, Error>> {
    match answer {
        Ok(()) if out.is_null() => fail(Check::Error, format!("'{what}' succeeded without a handle")),
        Ok(()) => Ok(Ok(Handle(out))),
        Err(e) => {
            ensure(out.is_null(), Check::Error, || format!("'{what}' failed ({e}) and left a handle behind"))?;
            Ok(Err(e))
        }
    }
}

impl Bench {
    /// Allocates by a descriptor; the answer as it is.
    pub fn try_alloc(&self, desc: &abi::AllocDesc) -> Answer<Memory<'_>> {
        let mut out = core::ptr::null_mut();
        let answer = slot!(self.tables().memory, alloc, self.raw.0, desc, &mut out)?;
        Ok(made(answer, out, "alloc")?.map(|handle| Memory { bench: self, handle, bytes: desc.bytes }))
    }
    /// Allocates device memory.
    pub fn memory(&self, bytes: u64) -> Step<Memory<'_>> {
        let mut desc = sized!(abi::AllocDesc);
        (desc.bytes, desc.memory_kind) = (bytes, abi::MemoryKind::DEVICE.0);
        Ok(self.try_alloc(&desc)??)
    }
    /// Creates a stream.
    pub fn queue(&self) -> Step<Queue<'_>> {
        let desc = sized!(abi::StreamDesc);
        let mut out = core::ptr::null_mut();
        let answer = slot!(self.tables().stream, create, self.raw.0, &desc, &mut out)?;
        Ok(Queue { bench: self, handle: made(answer, out, "create")?? })
    }
    /// Creates a timeline.
    pub fn timeline(&self) -> Step<Timeline<'_>> {
        let mut out = core::ptr::null_mut();
        let answer = slot!(self.tables().stream, event_create, self.raw.0, &mut out)?;
        Ok(Timeline { bench: self, handle: made(answer, out, "event_create")?? })
    }
}

impl Memory<'_> {
    /// Address of the first byte, where memory has one.
    pub fn address(&self) -> Step<u64> {
        let mut out = 0;
        optional(slot!(self.bench.tables().memory, device_ptr, self.handle.0, &mut out)?, "memory has no address")?;
        Ok(out)
    }
}

impl Queue<'_> {
    /// Waits.
    pub fn sync(&self) -> Step {
        Ok(slot!(self.bench.tables().stream, sync, self.handle.0)??)
    }
    /// Whether nothing is left to do.
    pub fn idle(&self) -> Step<u32> {
        let mut idle = u32::MAX;
        slot!(self.bench.tables().stream, query, self.handle.0, &mut idle)??;
        Ok(idle)
    }
    /// Writes host bytes and waits.
    pub fn write(&self, to: &Memory, offset: u64, bytes: &[u8]) -> Step {
        slot!(self.bench.tables().memory, write, self.handle.0, to.handle.0, offset, bytes.as_ptr().cast(), bytes.len() as u64)??;
        self.sync()
    }
    /// Reads host bytes and waits.
    pub fn read(&self, from: &Memory, offset: u64, bytes: u64) -> Step<Vec<u8>> {
        let mut out = vec![0u8; bytes as usize];
        let to: *mut c_void = out.as_mut_ptr().cast();
        slot!(self.bench.tables().memory, read, self.handle.0, from.handle.0, offset, to, bytes)??;
        self.sync()?;
        Ok(out)
    }
    /// Enqueues a copy.
    pub fn copy(&self, to: &Memory, to_offset: u64, from: &Memory, from_offset: u64, bytes: u64) -> Step {
        Ok(slot!(self.bench.tables().memory, copy, self.handle.0, to.handle.0, to_offset, from.handle.0, from_offset, bytes)??)
    }
    /// Enqueues a fill.
    pub fn fill(&self, to: &Memory, offset: u64, pattern: &[u8], bytes: u64) -> Step {
        Ok(slot!(self.bench.tables().memory, fill, self.handle.0, to.handle.0, offset, pattern.as_ptr().cast(), pattern.len() as u32, bytes)??)
    }
    /// Enqueues a signal; the answer as it is.
    pub fn try_signal(&self, event: &Timeline, value: u64) -> Answer {
        slot!(self.bench.tables().stream, signal, self.handle.0, event.handle.0, value)
    }
    /// Enqueues a signal.
    pub fn signal(&self, event: &Timeline, value: u64) -> Step {
        Ok(self.try_signal(event, value)??)
    }
    /// Enqueues a wait.
    pub fn wait(&self, event: &Timeline, value: u64) -> Step {
        Ok(slot!(self.bench.tables().stream, wait, self.handle.0, event.handle.0, value)??)
    }
}

impl Timeline<'_> {
    /// The value reached.
    pub fn value(&self) -> Step<u64> {
        let mut value = u64::MAX;
        slot!(self.bench.tables().stream, event_query, self.handle.0, &mut value)??;
        Ok(value)
    }
    /// Waits on the host; the answer as it is.
    pub fn sync(&self, value: u64, timeout: Duration) -> Answer {
        slot!(self.bench.tables().stream, event_sync, self.handle.0, value, timeout.as_nanos() as u64)
    }
}
