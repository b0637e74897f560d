//! The mechanism of the C border: handles with a tag, panic barrier, and function descriptions from which `flagos.h` is made.

use core::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flagos_backend_api::layout::Slot;
use flagos_backend_api::{Code, Error, Result, Status};

/// An exported function's description.
pub struct Function {
    /// C name.
    pub name: &'static str,
    /// Documentation lines.
    pub doc: &'static [&'static str],
    /// Thread rule, arguments and result.
    pub signature: Slot,
}

/// What a C handle points to. The tag tells live handles of the right kind from anything else a caller may pass.
#[repr(C)]
pub struct Handle<T> {
    tag: u64,
    pub(crate) value: T,
}

/// Kinds of objects a C handle may stand for.
pub trait Object: Sized {
    /// Marks live handles of this kind.
    const TAG: u64;
    /// C type name, for messages.
    const NAME: &'static str;
}

/// Written into handles that were released.
const DEAD: u64 = 0x6465_6164;

impl<T: Object> Handle<T> {
    /// Gives a value to the caller as a handle.
    pub(crate) fn give(value: T) -> *mut Handle<T> {
        Box::into_raw(Box::new(Handle { tag: T::TAG, value }))
    }

    /// The value behind a handle.
    ///
    /// # Safety
    /// `handle` is NULL or points to memory that is or was a handle; it stays live for `'a`.
    #[inline]
    pub(crate) unsafe fn get<'a>(handle: *const Handle<T>) -> Result<&'a T> {
        // SAFETY: stated by the caller; only the tag is read before it is known to be right.
        if !handle.is_null() && unsafe { (*handle).tag } == T::TAG {
            // SAFETY: the tag says it is a live handle of this kind.
            Ok(unsafe { &(*handle).value })
        } else {
            Err(bad_handle(T::NAME, handle.is_null()))
        }
    }

    /// Takes a handle back; NULL is allowed.
    ///
    /// # Safety
    /// `handle` is NULL or a live handle no other thread uses.
    pub(crate) unsafe fn take(handle: *mut Handle<T>) -> Result<Option<T>> {
        if handle.is_null() {
            return Ok(None);
        }
        // SAFETY: stated by the caller.
        unsafe { Self::get(handle) }?;
        // SAFETY: the tag says that the handle was made by `give` and not taken yet; marking it first catches a second release
        // for as long as the allocator leaves the memory alone.
        let object = unsafe {
            (*handle).tag = DEAD;
            Box::from_raw(handle)
        };
        Ok(Some(object.value))
    }
}

#[cold]
fn bad_handle(name: &str, null: bool) -> Error {
    Error::invalid(if null { format!("{name} is NULL") } else { format!("the {name} handle is of another kind or was released") })
}

/// Runs the body of an exported function: errors become status objects, panics PLUGIN_PANIC-free INTERNAL errors.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> *mut Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => core::ptr::null_mut(),
        Ok(Err(e)) => e.into_status(),
        Err(panic) => panicked(panic).into_status(),
    }
}

#[cold]
fn panicked(panic: Box<dyn core::any::Any + Send>) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::new(Code::INTERNAL, format!("libflagos panicked: {}; please report it", text.unwrap_or_default()))
}

/// Writes a result through an out pointer.
///
/// # Safety
/// `out` is NULL or writable.
#[inline]
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        return Err(Error::invalid("an out pointer is NULL"));
    }
    // SAFETY: stated by the caller.
    unsafe { out.write(value) };
    Ok(())
}

/// Reads NUL-terminated text; NULL is empty.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: stated by the caller.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Error::invalid("a text argument is not UTF-8"))
}

/// Gives NUL-terminated text to the caller, to be freed with `flagos_text_free`.
///
/// # Safety
/// `out` is NULL or writable.
pub(crate) unsafe fn put_text(out: *mut *mut c_char, text: String) -> Result<()> {
    let text = std::ffi::CString::new(text.replace('\0', "\u{fffd}")).map_err(|e| Error::new(Code::INTERNAL, e.to_string()))?;
    // SAFETY: passed on to the caller.
    unsafe { put(out, text.into_raw()) }
}

/// Declares exported functions: emits each with the panic barrier, and their descriptions.
macro_rules! export {
    ($( $(#[doc = $doc:literal])* [$thread:ident] fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $body:block )*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            /// Pointers are NULL or valid as the C header states.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> *mut flagos_backend_api::Status {
                $crate::border::guard(|| $body)
            }
        )*
        /// Descriptions of this section's functions.
        pub const FUNCTIONS: &[$crate::border::Function] = &[ $( $crate::border::Function {
            name: stringify!($name),
            doc: &[$($doc),*],
            signature: flagos_backend_api::layout::Slot {
                thread: flagos_backend_api::layout::Thread::$thread,
                args: &[$((stringify!($arg), stringify!($ty))),*],
                ret: "*mut Status",
            },
        } ),* ];
    };
}
pub(crate) use export;

/// Declares the kinds of objects behind handles.
macro_rules! objects {
    ($( $Alias:ident = $T:ty, $tag:literal, $name:literal; )*) => { $(
        impl Object for $T {
            const TAG: u64 = $tag;
            const NAME: &'static str = $name;
        }
        #[doc = concat!("`", $name, "`.")]
        pub type $Alias = Handle<$T>;
    )* };
}

objects! {
    Context = crate::context::Shared, 0x666c_6167_6374_7801, "flagos_context_t";
    Device = flagos_runtime::Device, 0x666c_6167_6465_7601, "flagos_device_t";
    Buffer = flagos_runtime::Buffer, 0x666c_6167_6275_6601, "flagos_buffer_t";
    Stream = flagos_runtime::Stream, 0x666c_6167_7374_7201, "flagos_stream_t";
    Event = flagos_runtime::Event, 0x666c_6167_6576_7401, "flagos_event_t";
    Plan = flagos_runtime::Plan, 0x666c_6167_706c_6e01, "flagos_plan_t";
    Kernel = flagos_runtime::Kernel, 0x666c_6167_6b65_7201, "flagos_kernel_t";
}
