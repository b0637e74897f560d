//! Streams and events, within a backend and across backends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flagos_backend_api as abi;
use flagos_backend_api::{Error, Result};

use crate::device::Device;
use crate::driver::{Driver, Raw};
use crate::memory::Buffer;

/// An in-order queue of a device. One thread at a time may use it; cloning shares it.
#[derive(Clone)]
pub struct Stream(pub(crate) Arc<StreamInner>);

pub(crate) struct StreamInner {
    pub(crate) raw: Raw<abi::Stream>,
    pub(crate) device: Device,
    pub(crate) progress: Option<Arc<Progress>>,
    workspace: Mutex<Option<Buffer>>,
}

/// How far a stream has got, so that released memory knows when it is free. Only on devices whose launches return early.
pub(crate) struct Progress {
    /// Work items enqueued.
    enqueued: AtomicU64,
    /// Last item number the stream was told to signal.
    signalled: AtomicU64,
    /// Item number known to be over.
    done: AtomicU64,
    /// Somebody waits for progress: the next enqueue signals.
    wanted: AtomicBool,
    timeline: Raw<abi::Event>,
    driver: Arc<Driver>,
}

/// A point in a stream's work.
pub(crate) struct Mark {
    stream: Weak<Progress>,
    at: u64,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Err(e) = self.driver.event_destroy(self.timeline) {
            crate::log::warn(&format!("destroying a stream's timeline: {e}"));
        }
    }
}

impl Progress {
    /// The mark of all work so far; `None` when it is known to be over.
    pub(crate) fn mark(self: &Arc<Self>) -> Option<Mark> {
        let at = self.enqueued.load(Ordering::Acquire);
        if self.done.load(Ordering::Acquire) >= at {
            return None;
        }
        self.wanted.store(true, Ordering::Release);
        Some(Mark { stream: Arc::downgrade(self), at })
    }

    /// Called by the stream's thread after it enqueued something.
    #[inline]
    fn advance(&self, stream: Raw<abi::Stream>) -> Result<()> {
        let at = self.enqueued.load(Ordering::Relaxed) + 1;
        self.enqueued.store(at, Ordering::Release);
        if self.wanted.load(Ordering::Relaxed) { self.signal(stream, at) } else { Ok(()) }
    }

    #[cold]
    fn signal(&self, stream: Raw<abi::Stream>, at: u64) -> Result<()> {
        self.wanted.store(false, Ordering::Relaxed);
        self.driver.signal(stream, self.timeline, at)?;
        self.signalled.store(at, Ordering::Release);
        Ok(())
    }

    fn finished(&self, at: u64) -> bool {
        if self.done.load(Ordering::Acquire) >= at {
            return true;
        }
        if self.signalled.load(Ordering::Acquire) >= at
            && let Ok(value) = self.driver.event_query(self.timeline)
        {
            self.done.fetch_max(value, Ordering::AcqRel);
        }
        self.done.load(Ordering::Acquire) >= at
    }
}

impl Mark {
    /// Whether the stream has passed; a stream that is gone was drained first.
    pub(crate) fn passed(&self) -> bool {
        self.stream.upgrade().is_none_or(|progress| progress.finished(self.at))
    }
}

impl Drop for StreamInner {
    fn drop(&mut self) {
        let driver = self.device.driver();
        let drained = if self.progress.is_some() { driver.stream_sync(self.raw) } else { Ok(()) };
        if let Err(e) = drained.and_then(|()| driver.stream_destroy(self.raw)) {
            crate::log::warn(&format!("destroying a stream: {e}"));
        }
    }
}

impl Stream {
    pub(crate) fn create(device: &Device, priority: i32, native: u64) -> Result<Stream> {
        let driver = device.driver();
        driver.check_health()?;
        let raw = driver.stream_create(device.0.raw, priority, native)?;
        let progress = if device.0.synchronous {
            None
        } else {
            Some(Arc::new(Progress {
                enqueued: AtomicU64::new(0),
                signalled: AtomicU64::new(0),
                done: AtomicU64::new(0),
                wanted: AtomicBool::new(false),
                timeline: driver.event_create(device.0.raw)?,
                driver: device.0.driver.clone(),
            }))
        };
        if let Some(progress) = &progress {
            device.0.watch(progress);
        }
        Ok(Stream(Arc::new(StreamInner { raw, device: device.clone(), progress, workspace: Mutex::new(None) })))
    }

    /// The device it belongs to.
    pub fn device(&self) -> &Device {
        &self.0.device
    }
    /// The vendor's queue (`cudaStream_t`, …); UNIMPLEMENTED where there is none.
    pub fn native(&self) -> Result<u64> {
        self.driver().stream_native(self.0.raw)
    }
    /// Waits until the stream is idle; the first late error of its work is returned here.
    pub fn sync(&self) -> Result<()> {
        self.driver().stream_sync(self.0.raw)?;
        if let Some(progress) = &self.0.progress {
            progress.done.fetch_max(progress.enqueued.load(Ordering::Relaxed), Ordering::AcqRel);
        }
        Ok(())
    }
    /// Whether the stream is idle, without waiting.
    pub fn is_idle(&self) -> Result<bool> {
        self.driver().stream_idle(self.0.raw)
    }

    /// Copies host bytes to a buffer and waits.
    pub fn write(&self, dst: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: `bytes` is borrowed until after the synchronisation below.
        unsafe { self.write_async(dst, offset, bytes.as_ptr(), bytes.len() as u64) }?;
        self.sync()
    }
    /// Copies a buffer to host bytes and waits.
    pub fn read(&self, src: &Buffer, offset: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: `bytes` is borrowed until after the synchronisation below.
        unsafe { self.read_async(src, offset, bytes.as_mut_ptr(), bytes.len() as u64) }?;
        self.sync()
    }
    /// Enqueues a copy from host memory.
    ///
    /// # Safety
    /// `src` is readable and unchanged for `bytes` until the stream passed the copy.
    pub unsafe fn write_async(&self, dst: &Buffer, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        self.own(dst)?;
        dst.check_range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        unsafe { self.driver().write(self.0.raw, dst.0.raw, offset, src.cast(), bytes) }?;
        self.advance()
    }
    /// Enqueues a copy to host memory.
    ///
    /// # Safety
    /// `dst` is writable for `bytes`, and nobody touches it, until the stream passed the copy.
    pub unsafe fn read_async(&self, src: &Buffer, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        self.own(src)?;
        src.check_range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        unsafe { self.driver().read(self.0.raw, src.0.raw, offset, dst.cast(), bytes) }?;
        self.advance()
    }
    /// Enqueues a copy within the device; ranges do not overlap. For other devices see [`crate::transfer::copy`].
    pub fn copy(&self, dst: &Buffer, dst_offset: u64, src: &Buffer, src_offset: u64, bytes: u64) -> Result<()> {
        self.own(dst)?;
        self.own(src)?;
        dst.check_range(dst_offset, bytes)?;
        src.check_range(src_offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        if Arc::ptr_eq(&dst.0, &src.0) && dst_offset < src_offset + bytes && src_offset < dst_offset + bytes {
            return Err(Error::invalid(format!("a copy of {bytes} bytes from offset {src_offset} to {dst_offset} of one buffer overlaps itself")));
        }
        self.driver().copy(self.0.raw, dst.0.raw, dst_offset, src.0.raw, src_offset, bytes)?;
        self.advance()
    }
    /// Enqueues a fill with a pattern of 1, 2, 4, 8 or 16 bytes.
    pub fn fill(&self, dst: &Buffer, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        self.own(dst)?;
        dst.check_range(offset, bytes)?;
        let width = pattern.len() as u64;
        if ![1, 2, 4, 8, 16].contains(&width) || !bytes.is_multiple_of(width) {
            return Err(Error::invalid(format!("a fill of {bytes} bytes with a pattern of {width}: patterns have 1, 2, 4, 8 or 16 bytes and divide the length")));
        }
        if bytes == 0 {
            return Ok(());
        }
        self.driver().fill(self.0.raw, dst.0.raw, offset, pattern, bytes)?;
        self.advance()
    }
    /// Enqueues: raise the event to `value` when the stream gets here. Events of another backend are raised by the host after a wait.
    pub fn signal(&self, event: &Event, value: u64) -> Result<()> {
        if !Arc::ptr_eq(&self.0.device.0.driver, &event.0.device.0.driver) {
            return Err(Error::invalid(format!(
                "an event of {} cannot be signalled from a stream of {}; create the event on the stream's device",
                event.0.device.name(),
                self.0.device.name()
            )));
        }
        self.driver().signal(self.0.raw, event.0.raw, value)?;
        event.0.last.fetch_max(value, Ordering::AcqRel);
        self.advance()
    }
    /// Later work of this stream waits until the event reaches `value`. Between backends the host waits, before this returns.
    pub fn wait(&self, event: &Event, value: u64) -> Result<()> {
        if Arc::ptr_eq(&self.0.device.0.driver, &event.0.device.0.driver) {
            self.driver().wait(self.0.raw, event.0.raw, value)?;
            self.advance()
        } else {
            event.sync(value, u64::MAX)
        }
    }

    /// The stream's workspace of at least `bytes`; grown when a plan needs more than any before it.
    pub(crate) fn workspace(&self, bytes: u64) -> Result<Buffer> {
        let mut slot = self.0.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = slot.as_ref().filter(|b| b.bytes() >= bytes) {
            return Ok(buffer.clone());
        }
        *slot = None;
        let buffer = self.0.device.alloc(bytes.next_power_of_two().max(1 << 16))?;
        *slot = Some(buffer.clone());
        Ok(buffer)
    }

    pub(crate) fn driver(&self) -> &Driver {
        self.0.device.driver()
    }

    /// Notes that something was enqueued.
    #[inline]
    pub(crate) fn advance(&self) -> Result<()> {
        match &self.0.progress {
            None => Ok(()),
            Some(progress) => progress.advance(self.0.raw),
        }
    }

    fn own(&self, buffer: &Buffer) -> Result<()> {
        self.driver().check_health()?;
        if Arc::ptr_eq(&self.0.device.0, &buffer.0.device.0) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a buffer of {} was used on a stream of {}; copy it first",
            buffer.0.device.name(),
            self.0.device.name()
        )))
    }
}

/// A 64-bit timeline.
#[derive(Clone)]
pub struct Event(pub(crate) Arc<EventInner>);

pub(crate) struct EventInner {
    pub(crate) raw: Raw<abi::Event>,
    pub(crate) device: Device,
    last: AtomicU64,
}

impl Drop for EventInner {
    fn drop(&mut self) {
        if let Err(e) = self.device.driver().event_destroy(self.raw) {
            crate::log::warn(&format!("destroying an event: {e}"));
        }
    }
}

impl Event {
    pub(crate) fn create(device: &Device) -> Result<Event> {
        device.driver().check_health()?;
        let raw = device.driver().event_create(device.0.raw)?;
        Ok(Event(Arc::new(EventInner { raw, device: device.clone(), last: AtomicU64::new(0) })))
    }
    /// The device it belongs to.
    pub fn device(&self) -> &Device {
        &self.0.device
    }
    /// The greatest value a stream was told to signal.
    pub fn last_signalled(&self) -> u64 {
        self.0.last.load(Ordering::Acquire)
    }
    /// The value reached; a late error of the work before it is returned here.
    pub fn query(&self) -> Result<u64> {
        self.0.device.driver().event_query(self.0.raw)
    }
    /// Waits until `value` is reached, at most `timeout_ns` (all ones: for ever), then DEADLINE_EXCEEDED.
    pub fn sync(&self, value: u64, timeout_ns: u64) -> Result<()> {
        self.0.device.driver().event_sync(self.0.raw, value, timeout_ns)
    }
    /// Device time between two signalled values in nanoseconds.
    pub fn elapsed_ns(&self, from: u64, to: u64) -> Result<u64> {
        self.0.device.driver().elapsed(self.0.raw, from, to)
    }
}
