//! Reading and releasing status objects, and freeing text.

use core::ffi::c_char;

use flagos_backend_api::{Code, Error, Result, Status};

use crate::border::{export, put, put_text};

/// # Safety
/// `status` is NULL or a live status.
unsafe fn get<'a>(status: *const Status) -> Result<&'a Status> {
    // SAFETY: stated by the caller.
    unsafe { status.as_ref() }.ok_or_else(|| Error::invalid("flagos_status_t is NULL, which is success"))
}

export! {
    /// The status's code, a `flagos_code_t`. NULL is FLAGOS_OK.
    [Free] fn flagos_status_code(status: *const Status, out_code: *mut u32) {
        // SAFETY: the header states that `status` is NULL or live.
        let code = unsafe { status.as_ref() }.map_or(Code::OK.0, |s| s.code);
        // SAFETY: the header states that `out_code` is writable.
        unsafe { put(out_code, code) }
    }

    /// The status as one line of text: code, message, native code, operand. Free it with flagos_text_free.
    [Free] fn flagos_status_text(status: *const Status, out_text: *mut *mut c_char) {
        // SAFETY: the header states that `status` is live; its text is copied here.
        let line = unsafe {
            let s = get(status)?;
            let argument = if s.argument >= 0 { format!(" (operand {})", s.argument) } else { String::new() };
            let native = if s.native_domain.len > 0 { format!(" [{} {}]", s.native_domain.to_owned_text(), s.native_code) } else { String::new() };
            format!("{}: {}{native}{argument}", Code(s.code), s.message.to_owned_text())
        };
        // SAFETY: the header states that `out_text` is writable.
        unsafe { put_text(out_text, line) }
    }

    /// Releases a status; NULL is allowed.
    [Free] fn flagos_status_release(status: *mut Status) {
        // SAFETY: the header states that `status` is NULL or live and released once.
        unsafe {
            if let Some(release) = status.as_ref().and_then(|s| s.release) {
                release(status);
            }
        }
        Ok(())
    }

    /// Frees text this library gave out; NULL is allowed.
    [Free] fn flagos_text_free(text: *mut c_char) {
        if !text.is_null() {
            // SAFETY: the header states that the text came from this library and is freed once.
            drop(unsafe { std::ffi::CString::from_raw(text) });
        }
        Ok(())
    }
}
