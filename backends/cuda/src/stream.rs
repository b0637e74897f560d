//! Streams: created ones, and those of frameworks.

use std::sync::Arc;

use cudarc::driver::sys;
use flagos_backend_api::vendor::{StreamRequest, Streams};
use flagos_backend_api::{Code, Error, Result};

use crate::device::{Chip, CudaDevice};
use crate::driver::{Shared, check};
use crate::timeline::Timeline;

/// An in-order queue: a `CUstream`, which is a `cudaStream_t`.
pub struct CudaStream {
    raw: Shared<sys::CUstream>,
    /// Whether it goes with this object.
    owned: bool,
    chip: Arc<Chip>,
}

impl CudaStream {
    /// The driver's stream.
    #[inline]
    pub(crate) fn raw(&self) -> sys::CUstream {
        self.raw.0
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
        if self.owned
            && let Ok(_aside) = self.chip.enter_aside()
        {
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
            let raw = Shared(request.native as usize as sys::CUstream);
            return Ok(CudaStream { raw, owned: false, chip: self.chip.clone() });
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
        Ok(CudaStream { raw: Shared(raw), owned: true, chip: self.chip.clone() })
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
