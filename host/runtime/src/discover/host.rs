//! The host table each backend is given: counted memory, log, status objects. An unsafe border: backends call it.
#![allow(unsafe_code)]

use core::ffi::c_void;
use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use flagos_backend_api::{ABI_MINOR, ABI_MINOR_OLDEST, Code, Error, HostV1, LogLevel, Status, Str};
use serde::Serialize;

/// Host memory a backend took through its host table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostUse {
    /// Bytes it holds now.
    pub bytes: u64,
    /// Most bytes it held at once.
    pub peak_bytes: u64,
    /// Allocations it made.
    pub allocations: u64,
    /// Allocations it freed.
    pub frees: u64,
}

/// The context of one backend's table. Lives as long as the process, because the backend does.
struct Context {
    name: &'static str,
    table: HostV1,
    bytes: AtomicU64,
    peak_bytes: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
}

// SAFETY: the table is written before the context is shared and only read afterwards; its one pointer addresses the context itself,
// whose other fields are atomics.
unsafe impl Sync for Context {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Context {}

static CONTEXTS: Mutex<BTreeMap<String, &'static Context>> = Mutex::new(BTreeMap::new());

/// The table of the backend `name`: made at the first call, the same ever after.
pub fn host_table(name: &str) -> &'static HostV1 {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(context) = contexts.get(name) {
        return &context.table;
    }
    let context = Box::leak(Box::new(Context {
        name: Box::leak(name.to_owned().into_boxed_str()),
        table: HostV1 {
            size: HostV1::SIZE,
            kind: HostV1::KIND,
            abi_minor: ABI_MINOR,
            abi_minor_oldest: ABI_MINOR_OLDEST,
            context: core::ptr::null_mut(),
            alloc: Some(alloc),
            free: Some(free),
            log: Some(log),
            status: Some(status),
            get_proc: Some(get_proc),
        },
        bytes: AtomicU64::new(0),
        peak_bytes: AtomicU64::new(0),
        allocations: AtomicU64::new(0),
        frees: AtomicU64::new(0),
    }));
    context.table.context = core::ptr::from_mut(context).cast();
    let context: &'static Context = context;
    contexts.insert(name.to_owned(), context);
    &context.table
}

/// What the backend `name` holds; zeros for one that was never given a table.
pub fn host_use(name: &str) -> HostUse {
    let contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts
        .get(name)
        .map_or_else(HostUse::default, |c| HostUse {
            bytes: c.bytes.load(Ordering::Relaxed),
            peak_bytes: c.peak_bytes.load(Ordering::Relaxed),
            allocations: c.allocations.load(Ordering::Relaxed),
            frees: c.frees.load(Ordering::Relaxed),
        })
}

/// Bytes of host memory the backend `name` holds now.
pub fn host_bytes(name: &str) -> u64 {
    host_use(name).bytes
}

/// # Safety
/// `context` must be the context of a table made by [`host_table`].
unsafe fn context_of<'a>(context: *mut c_void) -> Option<&'a Context> {
    // SAFETY: the caller passes on what the backend got in its table; contexts are never freed, and NULL gives `None`.
    unsafe { context.cast::<Context>().as_ref() }
}

fn layout(bytes: u64, alignment_bytes: u64) -> Option<Layout> {
    let alignment = if alignment_bytes == 0 {
        16
    } else {
        usize::try_from(alignment_bytes).ok()?
    };
    Layout::from_size_align(usize::try_from(bytes).ok()?.max(1), alignment).ok()
}

unsafe extern "C" fn alloc(context: *mut c_void, bytes: u64, alignment_bytes: u64) -> *mut c_void {
    // SAFETY: the contract has the backend pass its table's context.
    let (Some(context), Some(layout)) = (
        unsafe { context_of(context) },
        layout(bytes, alignment_bytes),
    ) else {
        return core::ptr::null_mut();
    };
    // SAFETY: `layout` has at least one byte.
    let address = unsafe { std::alloc::alloc(layout) };
    if !address.is_null() {
        let held = context.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        context.peak_bytes.fetch_max(held, Ordering::Relaxed);
        context.allocations.fetch_add(1, Ordering::Relaxed);
    }
    address.cast()
}

unsafe extern "C" fn free(
    context: *mut c_void,
    address: *mut c_void,
    bytes: u64,
    alignment_bytes: u64,
) {
    // SAFETY: the contract has the backend pass its table's context.
    let (Some(context), Some(layout)) = (
        unsafe { context_of(context) },
        layout(bytes, alignment_bytes),
    ) else {
        return;
    };
    if address.is_null() {
        return;
    }
    // SAFETY: the contract has the backend pass an address of `alloc` with the same sizes, once.
    unsafe { std::alloc::dealloc(address.cast(), layout) };
    context.bytes.fetch_sub(bytes, Ordering::Relaxed);
    context.frees.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, text: Str) {
    // SAFETY: the contract has the backend pass its table's context.
    let Some(context) = (unsafe { context_of(context) }) else {
        return;
    };
    // Writing to a closed standard error panics, and a panic must not cross into the backend.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the contract has the text readable for the call.
        let text = unsafe { text.to_owned_text() };
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        crate::log::line(LogLevel(level), &format!("{}: {text}", context.name));
    }));
}

unsafe extern "C" fn status(
    _context: *mut c_void,
    code: u32,
    native_domain: Str,
    native_code: i64,
    message: Str,
) -> *mut Status {
    // SAFETY: the contract has both texts readable for the call.
    let (domain, message) = unsafe { (native_domain.to_owned_text(), message.to_owned_text()) };
    // A status that says OK would be read as success by some and as failure by others.
    let code = if code == Code::OK.0 {
        Code::INTERNAL
    } else {
        Code(code)
    };
    match intern(&domain) {
        Some(domain) => Error::new(code, message)
            .with_native(domain, native_code)
            .into_status(),
        None if domain.is_empty() => Error::new(code, message).into_status(),
        None => Error::new(code, format!("{message} [{domain} {native_code}]")).into_status(),
    }
}

unsafe extern "C" fn get_proc(_context: *mut c_void, _name: Str) -> *mut c_void {
    core::ptr::null_mut()
}

/// The same text with static life. Drivers have few names; after 64 of at most 32 bytes no more are kept.
fn intern(text: &str) -> Option<&'static str> {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = kept.get(text) {
        return Some(found);
    }
    if kept.len() >= 64 {
        return None;
    }
    let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
    kept.insert(leaked);
    Some(leaked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_for_the_backend_that_took_it() {
        let table = host_table("counted");
        let (alloc, free) = (table.alloc.unwrap(), table.free.unwrap());
        // SAFETY: used as the contract says: own context, equal sizes, freed once.
        unsafe {
            let a = alloc(table.context, 100, 64);
            assert_eq!(a as usize % 64, 0);
            let b = alloc(table.context, 28, 0);
            assert_eq!(host_bytes("counted"), 128);
            free(table.context, a, 100, 64);
            assert_eq!(host_bytes("counted"), 28);
            free(table.context, b, 28, 0);
            free(table.context, core::ptr::null_mut(), 28, 0);
            assert!(alloc(table.context, u64::MAX, 16).is_null());
            assert!(alloc(table.context, 8, 3).is_null(), "3 is no alignment");
        }
        assert_eq!(
            host_use("counted"),
            HostUse {
                bytes: 0,
                peak_bytes: 128,
                allocations: 2,
                frees: 2
            }
        );
        assert_eq!(host_use("never seen"), HostUse::default());
        assert!(core::ptr::eq(table, host_table("counted")));
    }

    #[test]
    fn status_objects_carry_the_drivers_code_and_are_never_ok() {
        let table = host_table("status");
        // SAFETY: texts are static; each status is taken once.
        unsafe {
            let made = table.status.unwrap()(
                table.context,
                Code::UNAVAILABLE.0,
                Str::new("cuda"),
                719,
                Str::new("gone"),
            );
            let error = Error::from_status(made).unwrap_err();
            assert_eq!(
                (error.code, error.message.as_str()),
                (Code::UNAVAILABLE, "gone [cuda 719]")
            );
            let made = table.status.unwrap()(table.context, 0, Str::EMPTY, 0, Str::new("odd"));
            assert_eq!(Error::from_status(made).unwrap_err().code, Code::INTERNAL);
            assert!(
                table.get_proc.unwrap()(table.context, Str::new("flagos_x_since_1_7")).is_null()
            );
        }
    }
}
