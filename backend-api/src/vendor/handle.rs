//! Handles: boxes whose first word points to the backend's table, as the contract demands.

use crate::checked::null;
use crate::{BackendV1, Result};

/// A handle's memory. `owner` is the device (or module) it was made from.
#[repr(C)]
pub(super) struct Handle<T> {
    backend: *const BackendV1,
    pub(super) owner: *const core::ffi::c_void,
    pub(super) value: T,
}

impl<T> Handle<T> {
    /// Moves a value behind an opaque pointer.
    pub(super) fn give<O>(backend: *const BackendV1, owner: *const core::ffi::c_void, value: T) -> *mut O {
        Box::into_raw(Box::new(Handle { backend, owner, value })).cast()
    }

    /// The handle behind an opaque pointer.
    ///
    /// # Safety
    /// `raw` is NULL or a live handle made by `give` with the same `T`.
    #[inline]
    pub(super) unsafe fn of<'a, O>(raw: *const O, what: &str) -> Result<&'a Handle<T>> {
        // SAFETY: stated by the caller.
        unsafe { raw.cast::<Handle<T>>().as_ref() }.ok_or_else(|| null(what))
    }

    /// Takes a handle back.
    ///
    /// # Safety
    /// As `of`, and the handle is not used again.
    pub(super) unsafe fn take<O>(raw: *mut O, what: &str) -> Result<Box<Handle<T>>> {
        if raw.is_null() {
            return Err(null(what));
        }
        // SAFETY: stated by the caller.
        Ok(unsafe { Box::from_raw(raw.cast()) })
    }

    /// The device it was made from.
    ///
    /// # Safety
    /// `owner` is the handle of a live device of type `D`.
    #[inline]
    pub(super) unsafe fn device<'a, D>(&self) -> &'a D {
        // SAFETY: stated by the caller.
        unsafe { &(*self.owner.cast::<Handle<D>>()).value }
    }
}

/// Writes a result through an out parameter.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn put<T>(out: *mut T, what: &str, value: T) -> Result<()> {
    if out.is_null() {
        return Err(null(what));
    }
    // SAFETY: stated by the caller.
    unsafe { out.write(value) };
    Ok(())
}
