//! The entry: what a backend states of itself, what the host offers it.

use crate::layout::LayoutHash;
use crate::{
    BlasTable, CclTable, DeviceProbe, DeviceTable, FftTable, MemoryTable, ModuleTable, OpTable, ProfileTable, Status, Str, StreamTable, abi_enum,
    abi_struct,
};

/// The ABI's major version; another major is another entry symbol.
pub const ABI_MAJOR: u32 = 1;
/// The minor version of this description: appended fields raise it.
pub const ABI_MINOR: u32 = if cfg!(feature = "next-minor") { 1 } else { 0 };
/// The oldest minor this host serves.
pub const ABI_MINOR_OLDEST: u32 = 0;
/// Name of the one symbol a backend exports.
pub const ENTRY_SYMBOL: &str = "flagos_backend_query_v1";

abi_enum! {
    /// Which sanitizer a backend was built with: mixing them breaks processes.
    Sanitizer = "flagos_sanitizer_t", "FLAGOS_SANITIZER_" {
        /// None.
        NONE = 0,
        /// AddressSanitizer.
        ADDRESS = 1,
        /// ThreadSanitizer.
        THREAD = 2,
        /// MemorySanitizer.
        MEMORY = 3,
    }
    /// Severity of a log line.
    LogLevel = "flagos_log_level_t", "FLAGOS_LOG_" {
        /// Something failed.
        ERROR = 1,
        /// Something is off.
        WARN = 2,
        /// Worth knowing.
        INFO = 3,
        /// For debugging.
        DEBUG = 4,
    }
}

/// Bits of [`BackendV1::domains`].
pub mod domains {
    /// Operator table.
    pub const OP: u64 = 1 << 0;
    /// BLAS table.
    pub const BLAS: u64 = 1 << 1;
    /// FFT table.
    pub const FFT: u64 = 1 << 2;
    /// Collective table.
    pub const CCL: u64 = 1 << 3;
    /// Module table.
    pub const MODULE: u64 = 1 << 4;
    /// Profile table.
    pub const PROFILE: u64 = 1 << 5;
}

abi_struct! {
    /// What the host offers a backend. Lives as long as the process. Every function takes `context` first.
    HostV1 = "flagos_host_v1_t", kind 0xA0 {
        /// `sizeof(flagos_host_v1_t)`.
        size: u32,
        /// 0xA0.
        kind: u32,
        /// Newest ABI minor the host knows.
        abi_minor: u32,
        /// Oldest ABI minor the host serves.
        abi_minor_oldest: u32,
        /// The host's own; first argument of each function.
        context: *mut core::ffi::c_void,
        /// Allocates host memory counted for this backend; NULL when there is none.
        [Callback] fn alloc(context: *mut core::ffi::c_void, bytes: u64, alignment_bytes: u64) -> *mut core::ffi::c_void,
        /// Frees memory from `alloc`, with the same sizes.
        [Callback] fn free(context: *mut core::ffi::c_void, address: *mut core::ffi::c_void, bytes: u64, alignment_bytes: u64),
        /// Writes a log line; not for hot paths.
        [Callback] fn log(context: *mut core::ffi::c_void, level: u32, text: Str),
        /// Makes a status object, for backends that do not want to manage their own. Text is copied. Never NULL.
        [Callback] fn status(context: *mut core::ffi::c_void, code: u32, native_domain: Str, native_code: i64, message: Str) -> *mut Status,
        /// Experimental functions by name ("flagos_x_since_1_7"); NULL when unknown.
        [Callback] fn get_proc(context: *mut core::ffi::c_void, name: Str) -> *mut core::ffi::c_void,
    }

    /// A backend. Static: it and all it points to live as long as the process.
    BackendV1 = "flagos_backend_v1_t", kind 0xA1 {
        /// `sizeof(flagos_backend_v1_t)`.
        size: u32,
        /// 0xA1.
        kind: u32,
        /// ABI minor the backend was built against.
        abi_minor_built: u32,
        /// Oldest host minor it works with.
        abi_minor_needed: u32,
        /// `FLAGOS_LAYOUT_HASH` of the header it was built against.
        layout_hash: LayoutHash,
        /// Unique short name: lower case, digits, hyphens ("cuda").
        name: Str,
        /// The backend's own version.
        version: Str,
        /// Who makes it.
        vendor: Str,
        /// Identifies this build: equal builds have equal ids, and claims are bound to it.
        build_id: Str,
        /// Compiler and version.
        compiler: Str,
        /// A `flagos_sanitizer_t` value.
        sanitizer: u32,
        /// Reserved, 0.
        flags: u32,
        /// Feature bits; none are defined yet.
        features: u64,
        /// `FLAGOS_DOMAIN_*` bits of the tables below that are present.
        domains: u64,
        /// Looks for devices. May touch the driver. Writes at most `capacity` entries; `*out_count` is how many there are. Text is static.
        [Init] fn probe(out_devices: *mut DeviceProbe, capacity: u32, out_count: *mut u32) -> *mut Status,
        /// Ends the backend; idempotent. Afterwards every slot answers FAILED_PRECONDITION. A process may also exit without it.
        [Init] fn shutdown() -> *mut Status,
        /// Required.
        device: *const DeviceTable,
        /// Required.
        memory: *const MemoryTable,
        /// Required.
        stream: *const StreamTable,
        /// NULL: takes no portable kernels.
        module: *const ModuleTable,
        /// NULL: no native operators.
        op: *const OpTable,
        /// NULL: no BLAS.
        blas: *const BlasTable,
        /// NULL: no FFT.
        fft: *const FftTable,
        /// NULL: no collectives.
        ccl: *const CclTable,
        /// NULL: no profiling.
        profile: *const ProfileTable,
        /// Rust backends: the `abi_stable` layout of this struct, compared only at equal minor; else NULL.
        rust_layout: *const core::ffi::c_void,
    }
}

// SAFETY: a backend's tables are immutable for the life of the process; the contract requires it.
unsafe impl Sync for BackendV1 {}
// SAFETY: as above.
unsafe impl Send for BackendV1 {}

/// The entry symbol's type: pure, callable many times, no device touched. On refusal NULL, with the reason in `*why_not`.
pub type BackendQuery = unsafe extern "C" fn(host: *const HostV1, why_not: *mut *mut Status) -> *const BackendV1;
