//! Status objects: NULL is success; anything else carries a code that decides routing and a text for people.

use crate::{Str, abi_enum, abi_struct};

abi_enum! {
    /// Status codes. The host routes by them, so a backend must choose the right one.
    Code = "flagos_code_t", "FLAGOS_" {
        /// Success; never inside a status object.
        OK = 0,
        /// A caller's mistake. Never retried elsewhere.
        INVALID_ARGUMENT = 1,
        /// Not offered for this operator, dtype or layout; the host tries the next candidate. Only from query and plan.
        UNIMPLEMENTED = 2,
        /// A non-zero byte beyond the fields this side knows.
        UNSUPPORTED_FIELD = 3,
        /// Out of memory or of handles. The host trims its pools and retries once.
        RESOURCE_EXHAUSTED = 4,
        /// The device or its driver is absent. The host skips it.
        UNAVAILABLE = 5,
        /// The device is lost. Sticky; the host quarantines the device.
        DEVICE_LOST = 6,
        /// A call in the wrong state: after shutdown, on a poisoned backend, on a stream being captured.
        FAILED_PRECONDITION = 7,
        /// A timeout ran out; nothing is wrong yet.
        DEADLINE_EXCEEDED = 8,
        /// A name that does not exist.
        NOT_FOUND = 9,
        /// The backend panicked or raised; the host poisons that backend.
        PLUGIN_PANIC = 10,
        /// The ABI of the two sides does not fit.
        ABI_MISMATCH = 11,
        /// Refused by policy or by the trust rules.
        PERMISSION_DENIED = 12,
        /// The driver or library failed in a way no other code names; see the native code.
        INTERNAL = 13,
        /// Cancelled, for instance by a communicator's abort.
        ABORTED = 14,
        /// Bad data: a file or binary that cannot be read.
        DATA_LOSS = 15,
    }
}

abi_struct! {
    /// An error. Who receives it calls `release(status)` exactly once, from any thread, even after the backend was shut down.
    Status = "flagos_status_t", kind 0x01 {
        /// `sizeof(flagos_status_t)`.
        size: u32,
        /// 0x01.
        kind: u32,
        /// A `flagos_code_t` value.
        code: u32,
        /// Index of the argument or operand at fault; -1 for none.
        argument: i32,
        /// The driver's own code (719, -5, …); 0 for none.
        native_code: i64,
        /// The driver's name ("cuda", "opencl"); empty for none.
        native_domain: Str,
        /// Registry id of the operator concerned; 0 for none.
        operator: u32,
        /// Reserved, 0.
        flags: u32,
        /// What is wrong, with the value and the way out.
        message: Str,
        /// Frees the status.
        [Free] fn release(status: *mut Status),
        /// The maker's own; not to be read by others.
        opaque: *mut core::ffi::c_void,
    }
}

/// An error inside Rust code; crosses the border as a [`Status`].
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Routing code.
    pub code: Code,
    /// What is wrong, with the value and the way out.
    pub message: String,
    /// The driver's name and its code.
    pub native: Option<(&'static str, i64)>,
    /// Operand at fault.
    pub argument: Option<u32>,
    /// Operator concerned; 0 for none.
    pub operator: u32,
}

/// Result with an [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// An error with a code and a text.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), native: None, argument: None, operator: 0 }
    }
    /// A caller's mistake.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Code::INVALID_ARGUMENT, message)
    }
    /// Not offered here.
    pub fn unimplemented(message: impl Into<String>) -> Error {
        Error::new(Code::UNIMPLEMENTED, message)
    }
    /// Names the operand at fault.
    pub fn at(mut self, argument: u32) -> Error {
        self.argument = Some(argument);
        self
    }
    /// Adds the driver's name and code.
    pub fn with_native(mut self, domain: &'static str, code: i64) -> Error {
        self.native = Some((domain, code));
        self
    }

    /// Makes a status object owned by whoever receives it.
    pub fn into_status(self) -> *mut Status {
        struct Owned {
            status: Status,
            message: String,
        }
        unsafe extern "C" fn release(status: *mut Status) {
            if status.is_null() {
                return;
            }
            // SAFETY: `opaque` is the box made below; the contract says release is called once.
            drop(unsafe { Box::from_raw((*status).opaque.cast::<Owned>()) });
        }
        let mut owned = Box::new(Owned {
            message: self.message,
            status: Status {
                size: Status::SIZE,
                kind: Status::KIND,
                code: self.code.0,
                argument: self.argument.map_or(-1, |a| a as i32),
                native_code: self.native.map_or(0, |n| n.1),
                native_domain: self.native.map_or(Str::EMPTY, |n| Str::new(n.0)),
                operator: self.operator,
                flags: 0,
                message: Str::EMPTY,
                release: Some(release),
                opaque: core::ptr::null_mut(),
            },
        });
        owned.status.message = Str::borrowed(&owned.message);
        let raw = Box::into_raw(owned);
        // SAFETY: `raw` was just made from a box and is not yet shared.
        unsafe {
            (*raw).status.opaque = raw.cast();
            &raw mut (*raw).status
        }
    }

    /// Takes a status received across the border: copies its text and releases it. NULL is success.
    ///
    /// # Safety
    /// `status` must be NULL or an unreleased status object.
    pub unsafe fn from_status(status: *mut Status) -> Result<()> {
        if status.is_null() {
            return Ok(());
        }
        // SAFETY: the caller hands over an unreleased status; text is copied before release.
        unsafe {
            let s = &*status;
            let native_domain = s.native_domain.to_owned_text();
            let mut message = s.message.to_owned_text();
            if !native_domain.is_empty() {
                message.push_str(&format!(" [{native_domain} {}]", s.native_code));
            }
            let error = Error {
                code: Code(s.code),
                message,
                native: None,
                argument: (s.argument >= 0).then_some(s.argument as u32),
                operator: s.operator,
            };
            if let Some(release) = s.release {
                release(status);
            }
            Err(error)
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some((domain, code)) = self.native {
            write!(f, " [{domain} {code}]")?;
        }
        if let Some(argument) = self.argument {
            write!(f, " (argument {argument})")?;
        }
        Ok(())
    }
}
impl std::error::Error for Error {}
