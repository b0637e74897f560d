//! The entry: a backend's statement of itself, assembled from its traits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::layout::Struct;
use crate::{
    ABI_MINOR, ABI_MINOR_OLDEST, BackendV1, BlasTable, CclTable, Code, DeviceTable, Error, FftTable, HostV1, LAYOUT_HASHES, MemoryTable, ModuleTable, OpTable, ProfileTable,
    Result, Sanitizer, Status, Str, StreamTable, domains,
};

use super::device::{device_table, probe};
use super::memory::memory_table;
use super::stream::stream_table;
use super::{Device, ProbeFacts, State};

/// Optional tables of a backend, from [`op_table`](super::op_table) and its like.
#[derive(Clone, Copy)]
pub struct Domains {
    /// Kernels.
    pub module: Option<&'static ModuleTable>,
    /// Native operators.
    pub op: Option<&'static OpTable>,
    /// BLAS.
    pub blas: Option<&'static BlasTable>,
    /// FFT.
    pub fft: Option<&'static FftTable>,
    /// Collectives.
    pub ccl: Option<&'static CclTable>,
    /// Profiling.
    pub profile: Option<&'static ProfileTable>,
}

impl Domains {
    /// No optional table.
    pub const NONE: Domains = Domains { module: None, op: None, blas: None, fft: None, ccl: None, profile: None };
}

/// A backend.
pub trait Backend: Sized + 'static {
    /// Unique short name: lower case, digits, hyphens.
    const NAME: &'static str;
    /// The backend's own version.
    const VERSION: &'static str;
    /// Who makes it.
    const VENDOR: &'static str;
    /// Identifies this build; see [`build_id!`](crate::build_id).
    const BUILD_ID: &'static str;
    /// Optional tables.
    const DOMAINS: Domains;
    /// Its devices.
    type Device: Device;

    /// The backend's state: `static STATE: State = State::new(); &STATE`.
    fn state() -> &'static State;
    /// Looks for devices; may touch the driver. No device is an empty list; an unusable one has score 0 and a reason.
    fn probe() -> Result<Vec<ProbeFacts>>;
    /// Opens a device by its place in the probe.
    fn open(ordinal: u32) -> Result<Self::Device>;
    /// Ends the backend; called once.
    fn shutdown() -> Result<()> {
        Ok(())
    }
    /// Has the last word on the table before the host sees it: for slots and tables the traits do not cover. Called once; pure, like the entry.
    fn amend(_table: &mut BackendV1) {}
}

/// The backend's table, one per process.
pub(super) fn table<B: Backend>() -> *const BackendV1 {
    B::state().table.get_or_init(describe::<B>)
}

fn describe<B: Backend>() -> BackendV1 {
    let d = B::DOMAINS;
    let bit = |present: bool, bit: u64| if present { bit } else { 0 };
    let mut table = BackendV1 {
        size: BackendV1::SIZE,
        kind: BackendV1::KIND,
        abi_minor_built: ABI_MINOR,
        abi_minor_needed: ABI_MINOR_OLDEST,
        layout_hash: LAYOUT_HASHES[ABI_MINOR as usize],
        name: Str::new(B::NAME),
        version: Str::new(B::VERSION),
        vendor: Str::new(B::VENDOR),
        build_id: Str::new(B::BUILD_ID),
        compiler: Str::new(env!("FLAGOS_RUSTC")),
        sanitizer: Sanitizer::NONE.0,
        flags: 0,
        features: 0,
        domains: bit(d.op.is_some(), domains::OP)
            | bit(d.blas.is_some(), domains::BLAS)
            | bit(d.fft.is_some(), domains::FFT)
            | bit(d.ccl.is_some(), domains::CCL)
            | bit(d.module.is_some(), domains::MODULE)
            | bit(d.profile.is_some(), domains::PROFILE),
        probe: Some(probe::<B>),
        shutdown: Some(shutdown::<B>),
        device: const { &device_table::<B>() } as *const DeviceTable,
        memory: const { &memory_table::<B>() } as *const MemoryTable,
        stream: const { &stream_table::<B>() } as *const StreamTable,
        module: pointer(d.module),
        op: pointer(d.op),
        blas: pointer(d.blas),
        fft: pointer(d.fft),
        ccl: pointer(d.ccl),
        profile: pointer(d.profile),
        rust_layout: core::ptr::null(),
    };
    B::amend(&mut table);
    table
}

fn pointer<T>(table: Option<&'static T>) -> *const T {
    table.map_or(core::ptr::null(), |t| t)
}

unsafe extern "C" fn shutdown<B: Backend>() -> *mut Status {
    B::state().guard_always(|| if B::state().shut_down() { B::shutdown() } else { Ok(()) })
}

/// The entry symbol's body.
///
/// # Safety
/// `host` is NULL or a host table that lives as long as the process; `why_not` is NULL or writable.
pub unsafe fn query<B: Backend>(host: *const HostV1, why_not: *mut *mut Status) -> *const BackendV1 {
    let made = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: stated by the caller.
        unsafe { check_host(host) }?;
        B::state().set_host(host);
        Ok(table::<B>())
    }));
    let refusal = match made {
        Ok(Ok(table)) => return table,
        Ok(Err(e)) => Error::into_status(e),
        Err(panic) => B::state().poison(&*panic),
    };
    if !why_not.is_null() {
        // SAFETY: stated by the caller.
        unsafe { why_not.write(refusal) };
    }
    core::ptr::null()
}

/// # Safety
/// `host` is NULL or addresses as many readable bytes as its `size` states.
unsafe fn check_host(host: *const HostV1) -> Result<()> {
    const DESCRIPTION: Struct = HostV1::LAYOUT;
    // SAFETY: stated by the caller; the first three fields have been there since minor 0.
    let Some(host) = (unsafe { host.as_ref() }) else { return Err(Error::invalid("the host table is NULL")) };
    if host.kind != HostV1::KIND || (host.size as usize) < DESCRIPTION.size_at(0) {
        return Err(Error::new(Code::ABI_MISMATCH, format!("the host table has kind {:#x} and size {}", host.kind, host.size)));
    }
    if host.abi_minor_oldest > ABI_MINOR {
        let text = format!("this backend was built for ABI minor {ABI_MINOR}, the host serves {} and newer; rebuild it", host.abi_minor_oldest);
        return Err(Error::new(Code::ABI_MISMATCH, text));
    }
    Ok(())
}
