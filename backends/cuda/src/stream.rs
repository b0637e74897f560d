//! Streams: created ones, and those of frameworks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cudarc::driver::sys;
use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::{Chip, CudaDevice, lock};
use crate::driver::{Shared, check};
use crate::timeline::Timeline;

/// Between two looks at a wait on the host.
const PAUSE: Duration = Duration::from_micros(50);

/// Handles up to this are the driver's names of default streams: `CU_STREAM_LEGACY` (1) and `CU_STREAM_PER_THREAD` (2).
const LAST_DEFAULT: usize = 2;

/// An in-order queue: a `CUstream`, which is a `cudaStream_t`.
pub struct CudaStream {
    raw: Shared<sys::CUstream>,
    /// Whether it goes with this object.
    owned: bool,
    /// Recorded behind the last wait for a value nobody had signalled; `waits_ahead` says whether it may still lie ahead.
    ahead: Mutex<Option<Shared<sys::CUevent>>>,
    waits_ahead: AtomicBool,
    chip: Arc<Chip>,
}

impl CudaStream {
    fn new(raw: sys::CUstream, owned: bool, chip: &Arc<Chip>) -> CudaStream {
        CudaStream { raw: Shared(raw), owned, ahead: Mutex::default(), waits_ahead: AtomicBool::new(false), chip: chip.clone() }
    }

    /// Remembers that the work enqueued last waits for a value nobody has signalled. The context is current.
    pub(crate) fn mark_wait_ahead(&self) -> Result<()> {
        let mut ahead = lock(&self.ahead);
        let event = match *ahead {
            Some(event) => event,
            None => {
                let mut raw = core::ptr::null_mut();
                // SAFETY: the context is current; the place is writable.
                check(unsafe { sys::cuEventCreate(&mut raw, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32) }, "cuEventCreate")?;
                *ahead.insert(Shared(raw))
            }
        };
        // SAFETY: both objects are alive.
        check(unsafe { sys::cuEventRecord(event.0, self.raw()) }, "cuEventRecord")?;
        self.waits_ahead.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits on this thread until the stream has passed every wait that was enqueued before its signal. The driver copies from and to memory it does
    /// not know while it holds locks that the signalling thread needs: such a copy must not begin before.
    pub(crate) fn pass_waits(&self) -> Result<()> {
        if !self.waits_ahead.load(Ordering::Acquire) {
            return Ok(());
        }
        loop {
            let ahead = lock(&self.ahead);
            let Some(event) = *ahead else { return Ok(()) };
            let entered = self.chip.enter()?;
            // SAFETY: the event is alive.
            let answer = unsafe { sys::cuEventQuery(event.0) };
            drop(entered);
            if answer != sys::CUresult::CUDA_ERROR_NOT_READY {
                self.waits_ahead.store(false, Ordering::Release);
                return self.chip.told(check(answer, "cuEventQuery"));
            }
            drop(ahead);
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether copies with memory at this address would begin ahead of a wait, and the driver does not know the memory.
    pub(crate) fn must_pass_waits(&self, host: u64) -> bool {
        if !self.waits_ahead.load(Ordering::Acquire) {
            return false;
        }
        let mut memory_type = 0u32;
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        // SAFETY: the driver looks the address up in its own tables; the place is writable.
        let answer = unsafe { sys::cuPointerGetAttribute((&raw mut memory_type).cast(), attribute, host) };
        answer != sys::CUresult::CUDA_SUCCESS || memory_type == 0
    }

    /// The driver's stream.
    #[inline]
    pub(crate) fn raw(&self) -> sys::CUstream {
        self.raw.0
    }

    /// Whether the handle names a context: of the two default streams each context has its own.
    #[inline]
    pub(crate) fn has_context(&self) -> bool {
        self.raw().addr() > LAST_DEFAULT
    }

    /// Whether work enqueued now is recorded into a graph instead of being run.
    ///
    /// # Errors
    /// FAILED_PRECONDITION when the capture was broken, and those of the driver.
    pub fn is_capturing(&self) -> Result<bool> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is alive; the place is writable.
        check(unsafe { sys::cuStreamIsCapturing(self.raw(), &mut status) }, "cuStreamIsCapturing")?;
        match status {
            sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(false),
            sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => Ok(true),
            _ => Err(Error::new(Code::FAILED_PRECONDITION, "the capture of this stream was invalidated; end it with cuStreamEndCapture and begin anew")),
        }
    }

    /// Refuses what a capture cannot record.
    fn not_capturing(&self, what: &str) -> Result<()> {
        if self.is_capturing()? {
            return Err(Error::new(Code::FAILED_PRECONDITION, format!("{what} is not possible while the stream is being captured; end the capture first")));
        }
        Ok(())
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        let ahead = lock(&self.ahead).take();
        if !self.owned && ahead.is_none() {
            return;
        }
        let Ok(_aside) = self.chip.enter_aside() else { return };
        if let Some(event) = ahead {
            // SAFETY: the event was made here and goes once.
            unsafe { sys::cuEventDestroy_v2(event.0) };
        }
        if self.owned {
            // SAFETY: the stream was created here and goes once; the driver finishes its work first.
            unsafe { sys::cuStreamDestroy_v2(self.raw()) };
        }
    }
}

impl Streams for CudaDevice {
    type Stream = CudaStream;
    type Event = Timeline;

    fn create_stream(&self, request: &StreamRequest) -> Result<CudaStream> {
        if request.native != 0 {
            let raw = request.native as usize as sys::CUstream;
            return Ok(CudaStream::new(raw, false, &self.chip));
        }
        self.chip.alive()?;
        let (least, greatest) = self.chip.priorities;
        let priority = request.priority.clamp(greatest.min(least), least.max(greatest));
        let mut raw = core::ptr::null_mut();
        let _aside = self.chip.enter_aside()?;
        // Streams here never wait for the legacy default stream: order is what the caller says it is.
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the place is writable.
        self.chip.told(check(unsafe { sys::cuStreamCreateWithPriority(&mut raw, flags, priority) }, "cuStreamCreateWithPriority"))?;
        Ok(CudaStream::new(raw, true, &self.chip))
    }

    fn sync_stream(&self, stream: &CudaStream) -> Result<()> {
        self.chip.alive()?;
        let _aside = self.chip.enter_aside()?;
        stream.not_capturing("waiting for the stream")?;
        // SAFETY: the stream is alive.
        self.chip.told(check(unsafe { sys::cuStreamSynchronize(stream.raw()) }, "cuStreamSynchronize"))
    }

    fn is_idle(&self, stream: &CudaStream) -> Result<bool> {
        self.chip.alive()?;
        let _aside = self.chip.enter_aside()?;
        stream.not_capturing("asking whether the stream is idle")?;
        // SAFETY: the stream is alive.
        match unsafe { sys::cuStreamQuery(stream.raw()) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            answer => self.chip.told(check(answer, "cuStreamQuery")).map(|()| true),
        }
    }

    fn native_stream(&self, stream: &CudaStream) -> Result<u64> {
        Ok(stream.raw() as usize as u64)
    }

    fn create_event(&self) -> Result<Timeline> {
        Timeline::new(&self.chip)
    }
    fn signal(&self, stream: &CudaStream, event: &Timeline, value: u64) -> Result<()> {
        self.chip.told(event.signal(&self.chip, stream, value))
    }
    fn wait(&self, stream: &CudaStream, event: &Timeline, value: u64) -> Result<()> {
        self.chip.told(event.wait(&self.chip, stream, value))
    }
    fn event_value(&self, event: &Timeline) -> Result<u64> {
        event.value()
    }
    fn sync_event(&self, event: &Timeline, value: u64, timeout_ns: u64) -> Result<()> {
        event.sync(value, timeout_ns)
    }
    fn elapsed_ns(&self, event: &Timeline, from: u64, to: u64) -> Result<u64> {
        event.elapsed_ns(from, to)
    }
}
