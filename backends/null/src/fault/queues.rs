//! Defects of the device, of memory and of streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use flagos_backend_api::vendor::{AllocRequest, Backend};
use flagos_backend_api::{Code, Error, MemoryKind, Result, caps};

use super::{Fault, host, is};
use crate::memory::Block;
use crate::plan::Program;
use crate::stream::{NullStream, Timeline};
use crate::worker::Task;

/// Writes and fills do nothing from now on.
static BROKEN: AtomicBool = AtomicBool::new(false);
/// Counts what every other call does wrong.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Buffers that may be live.
static BLOCKS: Mutex<Vec<Weak<Block>>> = Mutex::new(Vec::new());

/// True at every other call.
pub(super) fn odd_call() -> bool {
    CALLS.fetch_add(1, Ordering::Relaxed) % 2 == 1
}

pub(super) fn live_blocks() -> Vec<Arc<Block>> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

/// The ordinal asked for.
pub fn ordinal(ordinal: u32) -> u32 {
    if is(Fault::OpensAnything) { 0 } else { ordinal }
}

/// Capabilities the probe states.
pub fn probed_caps(caps: u64) -> u64 {
    if is(Fault::ProbeLies) { caps | caps::FP16 } else { caps }
}

/// A device is opened.
pub fn open() -> Result<()> {
    if is(Fault::ForkBreaks) {
        unsafe extern "C" fn forked() {
            BROKEN.store(true, Ordering::Release);
        }
        // SAFETY: the handler stores to a static, which a fork may do.
        unsafe { libc::pthread_atfork(None, Some(forked), None) };
    }
    if is(Fault::SecondCopyFails) {
        const MARK: &str = "FLAGOS_NULL_LOADED_AT";
        let own = format!("{:p}", &raw const BROKEN);
        match std::env::var(MARK) {
            Ok(other) if other != own => return Err(Error::new(Code::UNAVAILABLE, "another copy of the null backend is loaded")),
            // SAFETY: the worker that opens a device with this fault has no other thread that reads the environment at that time.
            _ => unsafe { std::env::set_var(MARK, own) },
        }
    }
    Ok(())
}

/// A device is closed.
pub fn close() {
    if is(Fault::CloseBreaksOthers) {
        BROKEN.store(true, Ordering::Release);
    }
}

/// The memory kind that is allocated.
pub fn memory_kind(kind: MemoryKind) -> MemoryKind {
    if is(Fault::AnyMemoryKind) { MemoryKind::DEVICE } else { kind }
}

/// A buffer to hand out instead of a new one.
pub fn alloc(request: &AllocRequest) -> Option<Arc<Block>> {
    if is(Fault::LeaksHostMemory) {
        host().alloc(64, 8);
    }
    let shared = || live_blocks().into_iter().rev().find(|b| b.bytes() >= request.bytes);
    if is(Fault::OverlappingAlloc) { shared() } else { None }
}

/// Bytes to allocate for a request.
pub fn alloc_bytes(bytes: u64) -> u64 {
    if is(Fault::OverlappingAlloc) { bytes.max(4096) } else { bytes }
}

/// A buffer was allocated.
pub fn allocated(block: &Arc<Block>) {
    if is(Fault::OverlappingAlloc) || is(Fault::TouchesRefused) {
        let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|b| b.strong_count() > 0);
        blocks.push(Arc::downgrade(block));
    }
}

/// Bytes given back to the account by a free.
pub fn freed_bytes(bytes: u64) -> u64 {
    if is(Fault::LeaksBuffer) { 0 } else { bytes }
}

/// The error of a request that is too large.
pub fn exhausted(error: Error) -> Error {
    if is(Fault::OomAborts) {
        std::process::abort();
    }
    if is(Fault::OomWrongCode) { Error { code: Code::INTERNAL, ..error } } else { error }
}

/// Bytes a write moves.
pub fn write_bytes(bytes: u64) -> u64 {
    if BROKEN.load(Ordering::Relaxed) {
        return 0;
    }
    if is(Fault::WriteShort) { bytes.saturating_sub(1) } else { bytes }
}

/// Source offset and bytes of a copy.
pub fn copy(src_offset: u64, bytes: u64) -> (u64, u64) {
    (if is(Fault::CopyOffset) { 0 } else { src_offset }, if is(Fault::CopyShort) { bytes.saturating_sub(1) } else { bytes })
}

/// Pattern of a fill.
pub fn pattern(pattern: &mut [u8; 16]) {
    static SHARED: Mutex<[u8; 16]> = Mutex::new([0; 16]);
    if is(Fault::FillPattern) {
        *pattern = [pattern[0]; 16];
    }
    if is(Fault::SharedState) {
        let shared = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        *shared() = *pattern;
        std::thread::sleep(Duration::from_micros(200));
        *pattern = *shared();
    }
}

/// Bytes of a fill, of which `room` are left in the buffer.
pub fn fill_bytes(bytes: u64, room: u64) -> u64 {
    if BROKEN.load(Ordering::Relaxed) {
        return 0;
    }
    if is(Fault::FillOverrun) && bytes > 0 { (bytes + 1).min(room) } else { bytes }
}

/// Address of a buffer.
pub fn address(address: u64) -> u64 {
    if is(Fault::MisalignedAlloc) { address + 64 } else { address }
}

/// Whether the thread of a destroyed stream is left alone.
pub fn keeps_thread() -> bool {
    is(Fault::LeaksThread)
}

/// Called with the waiting tasks before the first is taken.
pub fn next(tasks: &mut VecDeque<Task>) {
    let moves = |t: &Task| !matches!(t, Task::Signal(..) | Task::Wait(..));
    if is(Fault::StreamReorders) && tasks.len() > 1 && moves(&tasks[0]) && moves(&tasks[1]) && odd_call() {
        tasks.swap(0, 1);
    }
    // Slow fills, so that whoever does not wait for them is sure to come too early.
    if (is(Fault::WaitIgnored) || is(Fault::EventEarly)) && matches!(tasks.front(), Some(Task::Fill { .. })) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a signal is not to be enqueued.
pub fn signal(event: &Timeline, value: u64) -> bool {
    if is(Fault::EventEarly) {
        event.raise(value, None);
        return true;
    }
    is(Fault::DroppedEvent) && value % 2 == 1
}

/// Whether a wait is not to be enqueued.
pub fn wait() -> bool {
    is(Fault::WaitIgnored)
}

/// The value of a timeline that is told.
pub fn told(value: u64) -> u64 {
    if is(Fault::EventGoesBack) && odd_call() { value.saturating_sub(1) } else { value }
}

/// Timeout of a wait; all ones: for ever.
pub fn timeout_ns(timeout_ns: u64) -> u64 {
    if is(Fault::TimeoutIgnored) { u64::MAX } else { timeout_ns }
}

/// Outcome of a wait on the host.
pub fn waited(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(e) if is(Fault::TimeoutAsSuccess) && e.code == Code::DEADLINE_EXCEEDED => Ok(()),
        other => other,
    }
}

/// A launch begins, on the caller's thread.
pub fn launch(stream: &NullStream, program: &Program) -> Result<()> {
    if is(Fault::PanicsInLaunch) {
        panic!("launch panics, as the planted fault wants it");
    }
    if is(Fault::Crash) {
        // SAFETY: raises a signal; no memory is involved.
        unsafe { libc::raise(libc::SIGSEGV) };
    }
    while is(Fault::Hang) {
        std::thread::sleep(Duration::from_secs(1));
    }
    if is(Fault::LaunchAllocates) {
        let address = host().alloc(64, 8);
        // SAFETY: allocated just now with these sizes.
        unsafe { host().free(address, 64, 8) };
    }
    if is(Fault::LaunchSynchronises) {
        stream.queue().drain()?;
    }
    if is(Fault::LosesDevice) {
        return Err(Error::new(Code::DEVICE_LOST, "the device is lost, as the planted fault wants it"));
    }
    let any = |wanted: &dyn Fn(&flagos_backend_api::Tensor) -> bool| program.operands.iter().any(|o| wanted(&o.tensor));
    if is(Fault::RankZeroFails) && any(&|t| t.rank == 0 && !t.is_none()) || is(Fault::EmptyFails) && any(&|t| !t.is_none() && t.elems() == 0) {
        return Err(Error::new(Code::INTERNAL, "this shape fails, as the planted fault wants it"));
    }
    Ok(())
}

/// A shutdown that is not idempotent.
pub fn shutdown_again() -> Result<()> {
    static DOWN: AtomicBool = AtomicBool::new(false);
    if DOWN.swap(true, Ordering::AcqRel) {
        return Err(Error::new(Code::FAILED_PRECONDITION, format!("{} was shut down before", crate::Null::NAME)));
    }
    Ok(())
}

/// Writes to every buffer.
pub(super) fn touch_buffers() {
    const FIRST_BYTE_BEHIND_GUARD: u64 = 256;
    for block in live_blocks().iter().filter(|b| b.bytes() > FIRST_BYTE_BEHIND_GUARD) {
        // SAFETY: the byte lies within the block; a defect is what this is.
        unsafe { block.write(FIRST_BYTE_BEHIND_GUARD, 1)[0] ^= 0xff };
    }
}
