//! The vtable border: every call into a backend goes through here, so that the rest of the host holds no raw tables.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error, Result, Status};

use crate::discover::LoadedBackend;

/// A backend's handle. Copyable and thread-safe as the contract demands of handles; who may use it when is the holder's business.
pub(crate) struct Raw<T>(NonNull<T>);

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Raw<T> {}
// SAFETY: the contract lets handles be used from any thread, with the per-slot thread rules kept by the owners in this crate.
unsafe impl<T> Send for Raw<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Raw<T> {}

impl<T> Raw<T> {
    /// A handle a backend returned; `None` for NULL.
    pub(crate) fn received(pointer: *mut T) -> Option<Raw<T>> {
        NonNull::new(pointer).map(Raw)
    }
    pub(crate) fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

/// A loaded backend and its health.
pub(crate) struct Driver {
    pub(crate) backend: Arc<LoadedBackend>,
    quarantined: AtomicBool,
    reason: std::sync::OnceLock<String>,
}

/// Calls a slot that may be NULL and turns its status into a result.
macro_rules! slot {
    ($driver:expr, $table:expr, $slot:ident, $($arg:expr),* $(,)?) => {
        match $table.$slot {
            // SAFETY: negotiation checked the table; handles come from the same backend and live, by ownership in this crate.
            Some(function) => $driver.settle(unsafe { function($($arg),*) }),
            None => Err($crate::driver::abi::Error::unimplemented(format!(
                "backend '{}' leaves the slot '{}' of its table empty", $driver.backend.name, stringify!($slot)))),
        }
    };
}

/// Calls a constructor slot and wraps the handle it returns.
macro_rules! make {
    ($driver:expr, $table:expr, $slot:ident, $($arg:expr),* $(,)?) => {{
        let mut out = core::ptr::null_mut();
        $crate::driver::slot!($driver, $table, $slot, $($arg,)* &mut out).and_then(|()| {
            $crate::driver::Raw::received(out).ok_or_else(|| $crate::driver::no_handle(&$driver.backend.name, stringify!($slot)))
        })
    }};
}

impl Driver {
    pub(crate) fn new(backend: Arc<LoadedBackend>) -> Driver {
        Driver { backend, quarantined: AtomicBool::new(false), reason: std::sync::OnceLock::new() }
    }

    /// Why the backend is no longer used, if so.
    pub(crate) fn quarantine_reason(&self) -> Option<&str> {
        if self.quarantined.load(Ordering::Acquire) { Some(self.reason.get().map_or("unknown", String::as_str)) } else { None }
    }

    /// Refuses calls into a quarantined backend.
    #[inline]
    pub(crate) fn check_health(&self) -> Result<()> {
        if self.quarantined.load(Ordering::Relaxed) { self.quarantine_error() } else { Ok(()) }
    }

    #[cold]
    fn quarantine_error(&self) -> Result<()> {
        Err(Error::new(
            Code::FAILED_PRECONDITION,
            format!(
                "backend '{}' is quarantined after: {}; restart the process, or exclude it with FLAGOS_BACKENDS_DISABLE={}",
                self.backend.name,
                self.quarantine_reason().unwrap_or("unknown"),
                self.backend.name
            ),
        ))
    }

    /// Turns a status into a result; a lost device or a panic quarantines the backend.
    #[inline]
    pub(crate) fn settle(&self, status: *mut Status) -> Result<()> {
        if status.is_null() { Ok(()) } else { self.settle_error(status) }
    }

    #[cold]
    fn settle_error(&self, status: *mut Status) -> Result<()> {
        // SAFETY: a slot returned this status just now; it is released exactly here.
        let result = unsafe { Error::from_status(status) };
        let Err(mut error) = result else { return Ok(()) };
        if error.message.is_empty() {
            error.message = format!("backend '{}' gave no message", self.backend.name);
        }
        if matches!(error.code, Code::DEVICE_LOST | Code::PLUGIN_PANIC) {
            self.quarantine(&error);
        }
        Err(error)
    }

    /// Takes the backend out of use for the rest of the process, once and audibly.
    pub(crate) fn quarantine(&self, error: &Error) {
        if self.reason.set(error.to_string()).is_ok() {
            self.quarantined.store(true, Ordering::Release);
            crate::registry::advance_epoch();
            crate::log::warn(&format!("backend '{}' is quarantined: {error}", self.backend.name));
        }
    }

    // Device.

    /// The devices the backend sees; text in the probes is static.
    pub(crate) fn probe(&self) -> Result<Vec<abi::DeviceProbe>> {
        const MOST: usize = 64;
        self.check_health()?;
        // SAFETY: all-zero bytes are a valid DeviceProbe: integers, NULL pointers and empty text.
        let mut empty: abi::DeviceProbe = unsafe { core::mem::zeroed() };
        (empty.size, empty.kind) = (abi::DeviceProbe::SIZE, abi::DeviceProbe::KIND);
        let mut probes = vec![empty; MOST];
        let mut count = 0;
        slot!(self, self.backend.table, probe, probes.as_mut_ptr(), MOST as u32, &mut count)?;
        if count as usize > MOST {
            crate::log::warn(&format!("backend '{}' has {count} devices; the first {MOST} are used", self.backend.name));
        }
        probes.truncate(count as usize);
        Ok(probes)
    }
    pub(crate) fn open(&self, ordinal: u32) -> Result<Raw<abi::Device>> {
        make!(self, self.backend.tables.device, open, ordinal)
    }
    pub(crate) fn close(&self, device: Raw<abi::Device>) -> Result<()> {
        slot!(self, self.backend.tables.device, close, device.as_ptr())
    }
    pub(crate) fn info(&self, device: Raw<abi::Device>) -> Result<abi::DeviceInfo> {
        // SAFETY: all-zero bytes are a valid DeviceInfo: integers, NULL pointers and empty text.
        let mut info: abi::DeviceInfo = unsafe { core::mem::zeroed() };
        (info.size, info.kind) = (abi::DeviceInfo::SIZE, abi::DeviceInfo::KIND);
        slot!(self, self.backend.tables.device, info, device.as_ptr(), &mut info)?;
        Ok(info)
    }
    pub(crate) fn device_sync(&self, device: Raw<abi::Device>) -> Result<()> {
        slot!(self, self.backend.tables.device, sync, device.as_ptr())
    }

    // Memory.

    pub(crate) fn alloc(&self, device: Raw<abi::Device>, bytes: u64, kind: abi::MemoryKind) -> Result<Raw<abi::Buffer>> {
        let desc = abi::AllocDesc {
            size: abi::AllocDesc::SIZE,
            kind: abi::AllocDesc::KIND,
            bytes,
            alignment_bytes: 0,
            memory_kind: kind.0,
            flags: 0,
        };
        make!(self, self.backend.tables.memory, alloc, device.as_ptr(), &desc)
    }
    pub(crate) fn free(&self, buffer: Raw<abi::Buffer>) -> Result<()> {
        slot!(self, self.backend.tables.memory, free, buffer.as_ptr())
    }
    /// # Safety
    /// `dst` stays valid for `bytes` until the stream passed the copy.
    pub(crate) unsafe fn read(&self, stream: Raw<abi::Stream>, src: Raw<abi::Buffer>, offset: u64, dst: *mut c_void, bytes: u64) -> Result<()> {
        slot!(self, self.backend.tables.memory, read, stream.as_ptr(), src.as_ptr(), offset, dst, bytes)
    }
    /// # Safety
    /// `src` stays valid and unchanged for `bytes` until the stream passed the copy.
    pub(crate) unsafe fn write(&self, stream: Raw<abi::Stream>, dst: Raw<abi::Buffer>, offset: u64, src: *const c_void, bytes: u64) -> Result<()> {
        slot!(self, self.backend.tables.memory, write, stream.as_ptr(), dst.as_ptr(), offset, src, bytes)
    }
    pub(crate) fn copy(
        &self,
        stream: Raw<abi::Stream>,
        dst: Raw<abi::Buffer>,
        dst_offset: u64,
        src: Raw<abi::Buffer>,
        src_offset: u64,
        bytes: u64,
    ) -> Result<()> {
        slot!(self, self.backend.tables.memory, copy, stream.as_ptr(), dst.as_ptr(), dst_offset, src.as_ptr(), src_offset, bytes)
    }
    pub(crate) fn fill(&self, stream: Raw<abi::Stream>, dst: Raw<abi::Buffer>, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        slot!(self, self.backend.tables.memory, fill, stream.as_ptr(), dst.as_ptr(), offset, pattern.as_ptr().cast(), pattern.len() as u32, bytes)
    }
    pub(crate) fn device_ptr(&self, buffer: Raw<abi::Buffer>) -> Result<u64> {
        let mut address = 0;
        slot!(self, self.backend.tables.memory, device_ptr, buffer.as_ptr(), &mut address)?;
        Ok(address)
    }
    pub(crate) fn map(&self, buffer: Raw<abi::Buffer>) -> Result<NonNull<u8>> {
        make!(self, self.backend.tables.memory, map, buffer.as_ptr()).map(|raw: Raw<c_void>| raw.0.cast())
    }
    pub(crate) fn unmap(&self, buffer: Raw<abi::Buffer>) -> Result<()> {
        slot!(self, self.backend.tables.memory, unmap, buffer.as_ptr())
    }
    pub(crate) fn address_space(&self, device: Raw<abi::Device>) -> Result<Raw<abi::Buffer>> {
        make!(self, self.backend.tables.memory, address_space, device.as_ptr())
    }
    /// # Safety
    /// The memory named by `desc` outlives the buffer.
    pub(crate) unsafe fn import(&self, device: Raw<abi::Device>, desc: &abi::MemoryExport) -> Result<Raw<abi::Buffer>> {
        make!(self, self.backend.tables.memory, import, device.as_ptr(), desc)
    }
    pub(crate) fn export(&self, buffer: Raw<abi::Buffer>, desc: &mut abi::MemoryExport) -> Result<()> {
        slot!(self, self.backend.tables.memory, export, buffer.as_ptr(), desc)
    }
    pub(crate) fn memory_info(&self, device: Raw<abi::Device>) -> Result<(u64, u64)> {
        let mut info = abi::MemoryInfo { size: abi::MemoryInfo::SIZE, kind: abi::MemoryInfo::KIND, total_bytes: 0, free_bytes: 0 };
        slot!(self, self.backend.tables.memory, info, device.as_ptr(), &mut info)?;
        Ok((info.total_bytes, info.free_bytes))
    }
    pub(crate) fn trim(&self, device: Raw<abi::Device>) -> Result<()> {
        slot!(self, self.backend.tables.memory, trim, device.as_ptr())
    }
    pub(crate) fn can_copy(&self, dst: Raw<abi::Device>, src: Raw<abi::Device>) -> bool {
        let mut answer = 0;
        slot!(self, self.backend.tables.memory, can_copy, dst.as_ptr(), src.as_ptr(), &mut answer).is_ok() && answer != 0
    }

    // Streams and events.

    pub(crate) fn stream_create(&self, device: Raw<abi::Device>, priority: i32, native: u64) -> Result<Raw<abi::Stream>> {
        // SAFETY: all-zero bytes are a valid StreamDesc.
        let empty: abi::StreamDesc = unsafe { core::mem::zeroed() };
        let desc = abi::StreamDesc { size: abi::StreamDesc::SIZE, kind: abi::StreamDesc::KIND, priority, native, ..empty };
        make!(self, self.backend.tables.stream, create, device.as_ptr(), &desc)
    }
    pub(crate) fn stream_destroy(&self, stream: Raw<abi::Stream>) -> Result<()> {
        slot!(self, self.backend.tables.stream, destroy, stream.as_ptr())
    }
    pub(crate) fn stream_sync(&self, stream: Raw<abi::Stream>) -> Result<()> {
        slot!(self, self.backend.tables.stream, sync, stream.as_ptr())
    }
    pub(crate) fn stream_idle(&self, stream: Raw<abi::Stream>) -> Result<bool> {
        let mut idle = 0;
        slot!(self, self.backend.tables.stream, query, stream.as_ptr(), &mut idle)?;
        Ok(idle != 0)
    }
    pub(crate) fn stream_native(&self, stream: Raw<abi::Stream>) -> Result<u64> {
        let mut native = 0;
        slot!(self, self.backend.tables.stream, native, stream.as_ptr(), &mut native)?;
        Ok(native)
    }
    pub(crate) fn event_create(&self, device: Raw<abi::Device>) -> Result<Raw<abi::Event>> {
        make!(self, self.backend.tables.stream, event_create, device.as_ptr())
    }
    pub(crate) fn event_destroy(&self, event: Raw<abi::Event>) -> Result<()> {
        slot!(self, self.backend.tables.stream, event_destroy, event.as_ptr())
    }
    pub(crate) fn signal(&self, stream: Raw<abi::Stream>, event: Raw<abi::Event>, value: u64) -> Result<()> {
        slot!(self, self.backend.tables.stream, signal, stream.as_ptr(), event.as_ptr(), value)
    }
    pub(crate) fn wait(&self, stream: Raw<abi::Stream>, event: Raw<abi::Event>, value: u64) -> Result<()> {
        slot!(self, self.backend.tables.stream, wait, stream.as_ptr(), event.as_ptr(), value)
    }
    pub(crate) fn event_query(&self, event: Raw<abi::Event>) -> Result<u64> {
        let mut value = 0;
        slot!(self, self.backend.tables.stream, event_query, event.as_ptr(), &mut value)?;
        Ok(value)
    }
    pub(crate) fn event_sync(&self, event: Raw<abi::Event>, value: u64, timeout_ns: u64) -> Result<()> {
        slot!(self, self.backend.tables.stream, event_sync, event.as_ptr(), value, timeout_ns)
    }
    pub(crate) fn elapsed(&self, event: Raw<abi::Event>, from: u64, to: u64) -> Result<u64> {
        let mut ns = 0;
        slot!(self, self.backend.tables.stream, elapsed, event.as_ptr(), from, to, &mut ns)?;
        Ok(ns)
    }

    // Modules.

    /// The module table; UNIMPLEMENTED for backends that take no kernels.
    pub(crate) fn modules(&self) -> Result<&'static abi::ModuleTable> {
        let missing = || Error::unimplemented(format!("backend '{}' takes no kernels", self.backend.name));
        self.backend.tables.module.as_ref().ok_or_else(missing)
    }
    pub(crate) fn compile(&self, device: Raw<abi::Device>, format: abi::KernelFormat, is_binary: bool, code: &[u8], options: &str, name: &str) -> Result<Raw<abi::Module>> {
        let bytes = abi::Str { ptr: code.as_ptr().cast(), len: code.len() as u64 };
        let desc = abi::CompileDesc {
            size: abi::CompileDesc::SIZE,
            kind: abi::CompileDesc::KIND,
            format: format.0,
            is_binary: is_binary.into(),
            code: bytes,
            options: abi::Str::borrowed(options),
            name: abi::Str::borrowed(name),
        };
        make!(self, self.modules()?, compile, device.as_ptr(), &desc)
    }
    pub(crate) fn module_destroy(&self, module: Raw<abi::Module>) -> Result<()> {
        slot!(self, self.modules()?, destroy, module.as_ptr())
    }
    pub(crate) fn kernel(&self, module: Raw<abi::Module>, name: &str) -> Result<Raw<abi::Kernel>> {
        make!(self, self.modules()?, kernel, module.as_ptr(), abi::Str::borrowed(name))
    }
    pub(crate) fn module_binary(&self, module: Raw<abi::Module>) -> Result<Vec<u8>> {
        let table = self.modules()?;
        let mut length = 0;
        slot!(self, table, export_binary, module.as_ptr(), core::ptr::null_mut(), 0, &mut length)?;
        let mut bytes = vec![0u8; length as usize];
        slot!(self, table, export_binary, module.as_ptr(), bytes.as_mut_ptr().cast(), length, &mut length)?;
        bytes.truncate(length as usize);
        Ok(bytes)
    }
    #[inline]
    pub(crate) fn kernel_launch(&self, table: &abi::ModuleTable, stream: Raw<abi::Stream>, kernel: Raw<abi::Kernel>, launch: &abi::KernelLaunch) -> Result<()> {
        slot!(self, table, launch, stream.as_ptr(), kernel.as_ptr(), launch)
    }

    // Plans, shared by the domains.

    pub(crate) fn plan_info(&self, table: &abi::PlanTable, plan: Raw<abi::Plan>) -> Result<abi::PlanInfo> {
        // SAFETY: all-zero bytes are a valid PlanInfo.
        let mut info: abi::PlanInfo = unsafe { core::mem::zeroed() };
        (info.size, info.kind) = (abi::PlanInfo::SIZE, abi::PlanInfo::KIND);
        slot!(self, table, info, plan.as_ptr(), &mut info)?;
        Ok(info)
    }
    pub(crate) fn plan_destroy(&self, table: &abi::PlanTable, plan: Raw<abi::Plan>) -> Result<()> {
        slot!(self, table, destroy, plan.as_ptr())
    }
    #[inline]
    pub(crate) fn plan_launch(&self, table: &abi::PlanTable, plan: Raw<abi::Plan>, stream: Raw<abi::Stream>, launch: &abi::Launch) -> Result<()> {
        slot!(self, table, launch, plan.as_ptr(), stream.as_ptr(), launch)
    }
}

/// A constructor that broke its promise.
#[cold]
pub(crate) fn no_handle(backend: &str, slot: &str) -> Error {
    Error::new(Code::INTERNAL, format!("backend '{backend}' reported success from '{slot}' but returned no handle"))
}

/// Copies text a backend lent for the life of one of its objects.
pub(crate) fn text(borrowed: abi::Str) -> String {
    // SAFETY: the contract makes text readable as long as its parent; callers pass text of live objects.
    unsafe { borrowed.to_owned_text() }
}

/// Empty support answer to be filled by a query.
pub(crate) fn empty_support() -> abi::Support {
    // SAFETY: all-zero bytes are a valid Support.
    let mut support: abi::Support = unsafe { core::mem::zeroed() };
    (support.size, support.kind) = (abi::Support::SIZE, abi::Support::KIND);
    support
}

pub(crate) use {make, slot};
