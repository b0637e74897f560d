//! The driver's border: its errors as ours, devices before they are opened, and guards that leave the calling thread as it was found.

use core::ffi::CStr;

use cudarc::driver::sys;
use flagos_backend_api::{Code, Error, Result};

use crate::library::Culib;

/// Attributes of devices.
pub use sys::CUdevice_attribute as Attribute;

/// Oldest driver the backend works with, as the driver counts: CUDA 12.8, which has every function called here.
const OLDEST_DRIVER: i32 = 12080;

/// Domain of native codes in status objects.
pub const DOMAIN: &str = "cuda";

/// A driver handle that may go from thread to thread: the driver's objects have no thread of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shared<T>(pub T);

// SAFETY: handles of the CUDA driver may be used from any thread; who uses one when is the owner's business.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// Turns the driver's answer into ours. `call` names the function for people.
#[inline]
pub fn check(answer: sys::CUresult, call: &'static str) -> Result<()> {
    if answer == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(failure(answer, call)) }
}

/// What the code of a driver error means to the host.
fn code_of(answer: sys::CUresult) -> Code {
    match answer as u32 {
        1 => Code::INVALID_ARGUMENT,
        2 | 304 => Code::RESOURCE_EXHAUSTED,
        3 | 4 => Code::FAILED_PRECONDITION,
        34 | 46 | 100 | 101 | 802 | 803 | 804 => Code::UNAVAILABLE,
        // The kernel wants more registers or threads than a block may have: another size would do, more memory would not.
        701 => Code::INVALID_ARGUMENT,
        500 => Code::NOT_FOUND,
        801 => Code::UNIMPLEMENTED,
        // The context is broken until the process ends: memory faults, traps, time-outs, hardware errors.
        214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 999 => Code::DEVICE_LOST,
        900..=908 => Code::FAILED_PRECONDITION,
        _ => Code::INTERNAL,
    }
}

/// An error of the driver as ours.
#[cold]
pub fn failure(answer: sys::CUresult, call: &'static str) -> Error {
    let text = |get: unsafe fn(sys::CUresult, *mut *const core::ffi::c_char) -> sys::CUresult| {
        let mut out = core::ptr::null();
        // SAFETY: the driver writes a static, NUL-terminated text, or leaves NULL for a code it does not know.
        unsafe {
            let _ = get(answer, &mut out);
            if out.is_null() { String::new() } else { CStr::from_ptr(out).to_string_lossy().into_owned() }
        }
    };
    let message = format!("{call}: {} ({})", text(sys::cuGetErrorName), text(sys::cuGetErrorString));
    Error::new(code_of(answer), message).with_native(DOMAIN, i64::from(answer as u32))
}

/// Starts the driver; the number of devices.
///
/// # Errors
/// UNAVAILABLE with what is missing: the library, a driver new enough, a device.
pub fn start() -> Result<i32> {
    Culib::Driver.need()?;
    let (mut count, mut version) = (0, 0);
    let absent = |e: Error| Error { code: Code::UNAVAILABLE, message: format!("no driver: {}", e.message), ..e };
    // SAFETY: the library is there; the places are writable.
    unsafe {
        check(sys::cuInit(0), "cuInit").map_err(absent)?;
        check(sys::cuDriverGetVersion(&mut version), "cuDriverGetVersion").map_err(absent)?;
        check(sys::cuDeviceGetCount(&mut count), "cuDeviceGetCount").map_err(absent)?;
    }
    if version < OLDEST_DRIVER {
        let (have, want) = (dotted(version), dotted(OLDEST_DRIVER));
        return Err(Error::new(Code::UNAVAILABLE, format!("no driver that fits: the installed one serves CUDA {have}, {want} is needed; update it")));
    }
    Ok(count)
}

/// The driver's version for people: "CUDA 13.0".
///
/// # Errors
/// Those of the driver.
pub fn version() -> Result<String> {
    let mut version = 0;
    // SAFETY: called after `start`, with a writable place.
    check(unsafe { sys::cuDriverGetVersion(&mut version) }, "cuDriverGetVersion")?;
    Ok(format!("CUDA {}", dotted(version)))
}

fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A device by ordinal, before a context is taken.
#[derive(Clone, Copy)]
pub struct Ordinal(pub sys::CUdevice);

impl Ordinal {
    /// The device of an ordinal.
    ///
    /// # Errors
    /// NOT_FOUND beyond the last one.
    pub fn new(ordinal: u32) -> Result<Ordinal> {
        let count = start()?;
        if i64::from(ordinal) >= i64::from(count) {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}; the driver has {count}")));
        }
        let mut device = 0;
        // SAFETY: the driver has started; the place is writable.
        check(unsafe { sys::cuDeviceGet(&mut device, ordinal as i32) }, "cuDeviceGet")?;
        Ok(Ordinal(device))
    }

    /// An attribute; 0 where the driver does not know it.
    pub fn attribute(self, attribute: Attribute) -> i32 {
        let mut value = 0;
        // SAFETY: the driver has started, as there is a device; the place is writable.
        match unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.0) } {
            sys::CUresult::CUDA_SUCCESS => value,
            _ => 0,
        }
    }

    /// Product name.
    pub fn name(self) -> String {
        let mut text = [0u8; 256];
        // SAFETY: as above; the driver writes a NUL-terminated text of at most 256 bytes.
        unsafe { sys::cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32, self.0) };
        CStr::from_bytes_until_nul(&text).map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
    }

    /// Compute capability.
    pub fn capability(self) -> (u32, u32) {
        let part = |a| self.attribute(a).unsigned_abs();
        (part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR), part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
    }

    /// Unique id; zeros where there is none.
    pub fn uuid(self) -> [u8; 16] {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: as above.
        unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, self.0) };
        uuid.bytes.map(|b| b as u8)
    }

    /// PCI address as domain << 16 | bus << 8 | device << 3 | function.
    pub fn pci(self) -> u64 {
        let part = |a| u64::from(self.attribute(a).unsigned_abs());
        part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID) << 16
            | part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID) << 8
            | part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID) << 3
    }

    /// Memory in bytes.
    pub fn memory_bytes(self) -> u64 {
        let mut bytes = 0;
        // SAFETY: as above.
        unsafe { sys::cuDeviceTotalMem_v2(&mut bytes, self.0) };
        bytes as u64
    }
}

/// Makes a context current for a thread and puts back what was there. Frameworks that share the primary context have it current already; then it costs
/// one read of the thread's state.
pub struct Entered(bool);

impl Entered {
    /// Enters.
    ///
    /// # Errors
    /// Those of the driver.
    #[inline]
    pub fn new(context: Shared<sys::CUcontext>) -> Result<Entered> {
        let mut now = core::ptr::null_mut();
        // SAFETY: the driver has started, as there is a context; the place is writable.
        unsafe {
            check(sys::cuCtxGetCurrent(&mut now), "cuCtxGetCurrent")?;
            if now == context.0 {
                return Ok(Entered(false));
            }
            check(sys::cuCtxPushCurrent_v2(context.0), "cuCtxPushCurrent")?;
        }
        Ok(Entered(true))
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        if self.0 {
            let mut was = core::ptr::null_mut();
            // SAFETY: takes back what `new` pushed on this thread.
            unsafe { sys::cuCtxPopCurrent_v2(&mut was) };
        }
    }
}

/// Lets this thread allocate and ask while somebody's stream is being captured: otherwise such calls end the capture, whoever's it is.
pub struct Relaxed(sys::CUstreamCaptureMode);

impl Relaxed {
    /// Relaxes.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new() -> Result<Relaxed> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the driver has started; it exchanges the thread's mode with the value.
        check(unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }, "cuThreadExchangeStreamCaptureMode")?;
        Ok(Relaxed(mode))
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: puts back the mode `new` found on this thread.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_codes_route() {
        use sys::CUresult as R;
        for (answer, code) in [
            (R::CUDA_ERROR_OUT_OF_MEMORY, Code::RESOURCE_EXHAUSTED),
            (R::CUDA_ERROR_LAUNCH_FAILED, Code::DEVICE_LOST),
            (R::CUDA_ERROR_ILLEGAL_ADDRESS, Code::DEVICE_LOST),
            (R::CUDA_ERROR_NO_DEVICE, Code::UNAVAILABLE),
            (R::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Code::FAILED_PRECONDITION),
            (R::CUDA_ERROR_NOT_SUPPORTED, Code::UNIMPLEMENTED),
            (R::CUDA_ERROR_INVALID_CONTEXT, Code::INTERNAL),
        ] {
            assert_eq!(code_of(answer), code, "{answer:?}");
        }
    }
}
