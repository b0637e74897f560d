//! Negotiation: checks a backend's tables against the ABI and copies them into host-owned ones. An unsafe border.
#![allow(unsafe_code)]

use flagos_backend_api as abi;
use flagos_backend_api::layout::{LayoutHash, Struct};
use flagos_backend_api::{BackendV1, Code, PlanTable, Sanitizer, Str};
use serde::Serialize;

use super::load::{Entered, process_has};

/// The ABI minors a host serves.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Newest minor it knows.
    pub minor: u32,
    /// Oldest minor it serves.
    pub oldest: u32,
    /// Layout hash of each minor from 0 to `minor`.
    pub hashes: &'static [LayoutHash],
}

impl Served {
    /// What this build serves.
    pub const CURRENT: Served = Served {
        minor: abi::ABI_MINOR,
        oldest: abi::ABI_MINOR_OLDEST,
        hashes: abi::LAYOUT_HASHES,
    };
}

/// Address of a backend's own entry table, to compare with the first word of its handles. Never a reference: the table of an older backend is
/// shorter than this host's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendPtr(*const BackendV1);

// SAFETY: an address of immutable static data of a library that is never unloaded.
unsafe impl Sync for BackendPtr {}
// SAFETY: as above.
unsafe impl Send for BackendPtr {}

impl BackendPtr {
    pub(super) fn new(raw: *const BackendV1) -> BackendPtr {
        BackendPtr(raw)
    }
    /// The address.
    pub fn as_ptr(self) -> *const BackendV1 {
        self.0
    }
}

/// Host-owned copies of a backend's tables at this host's size: slots that the backend's minor did not have are NULL, slots that this host
/// does not know are gone. Required tables and slots are present.
#[derive(Clone, Copy)]
pub struct Tables {
    /// The entry table. Its pointers to other tables address the backend's own; use the copies here.
    pub backend: BackendV1,
    /// Device functions.
    pub device: abi::DeviceTable,
    /// Memory functions.
    pub memory: abi::MemoryTable,
    /// Stream and event functions.
    pub stream: abi::StreamTable,
    /// Compilation and launch of portable kernels.
    pub module: Option<abi::ModuleTable>,
    /// Native operators.
    pub op: Option<abi::OpTable>,
    /// Plan functions of the operator table; present when that is.
    pub op_plans: Option<PlanTable>,
    /// BLAS.
    pub blas: Option<abi::BlasTable>,
    /// Plan functions of the BLAS table; present when that is.
    pub blas_plans: Option<PlanTable>,
    /// FFT.
    pub fft: Option<abi::FftTable>,
    /// Plan functions of the FFT table; present when that is.
    pub fft_plans: Option<PlanTable>,
    /// Collectives.
    pub ccl: Option<abi::CclTable>,
    /// Plan functions of the collective table; present when that is.
    pub ccl_plans: Option<PlanTable>,
    /// Profiling.
    pub profile: Option<abi::ProfileTable>,
}

// SAFETY: tables are immutable for the life of the process, and every pointer in them addresses code or static data.
unsafe impl Sync for Tables {}
// SAFETY: as above.
unsafe impl Send for Tables {}

/// What a backend states of itself, as owned text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Identity {
    /// Short name.
    pub name: String,
    /// The backend's own version.
    pub version: String,
    /// Who makes it.
    pub vendor: String,
    /// Identifies the build.
    pub build_id: String,
    /// Compiler and version.
    pub compiler: String,
    /// ABI minor it was built against.
    pub abi_minor_built: u32,
    /// Oldest host minor it works with.
    pub abi_minor_needed: u32,
    /// `FLAGOS_DOMAIN_*` bits.
    pub domains: u64,
}

/// Slots that must not be NULL, by struct. Whatever is not listed may be left empty, for ever.
const REQUIRED: &[(&str, &[&str])] = &[
    (
        "BackendV1",
        &["probe", "shutdown", "device", "memory", "stream"],
    ),
    ("DeviceTable", &["open", "close", "info", "sync"]),
    (
        "MemoryTable",
        &["alloc", "free", "read", "write", "copy", "fill"],
    ),
    (
        "StreamTable",
        &[
            "create",
            "destroy",
            "sync",
            "query",
            "event_create",
            "event_destroy",
            "signal",
            "wait",
            "event_query",
            "event_sync",
        ],
    ),
    ("ModuleTable", &["compile", "destroy", "kernel", "launch"]),
    ("OpTable", &["query", "plan", "plans"]),
    ("BlasTable", &["query", "plan", "plans"]),
    ("FftTable", &["query", "plan", "plans"]),
    (
        "CclTable",
        &[
            "unique_id",
            "join",
            "leave",
            "abort",
            "query",
            "plan",
            "plans",
        ],
    ),
    ("PlanTable", &["info", "launch", "destroy"]),
];

/// Slots that come together: one without the other is of no use.
const PAIRS: &[(&str, &str, &str)] = &[
    ("MemoryTable", "map", "unmap"),
    ("CclTable", "group_start", "group_end"),
    ("ProfileTable", "range_push", "range_pop"),
];

/// Greatest believable size of a table in bytes.
const MAX_TABLE_BYTES: u32 = 1 << 16;

/// A struct of the ABI that is valid when all its bytes are zero and that begins with `size` and `kind`.
///
/// # Safety
/// Implement only for `#[repr(C)]` structs of the contract without padding, made of integers, raw pointers, optional functions and [`Str`].
unsafe trait Table: Copy {
    const LAYOUT: Struct;
}

macro_rules! tables {
    ($($name:ident),*) => { $(
        // SAFETY: a struct of the contract: `repr(C)`, two leading u32, then 8-byte fields or pairs of u32.
        unsafe impl Table for abi::$name { const LAYOUT: Struct = abi::$name::LAYOUT; }
    )* };
}
tables!(
    BackendV1,
    DeviceTable,
    MemoryTable,
    StreamTable,
    ModuleTable,
    OpTable,
    BlasTable,
    FftTable,
    CclTable,
    ProfileTable,
    PlanTable
);

type Check<T> = Result<T, (Code, String)>;

fn mismatch<T>(what: impl Into<String>) -> Check<T> {
    Err((Code::ABI_MISMATCH, what.into()))
}

/// Checks what an entry returned, and gives the copies and what the backend states of itself.
pub(super) fn negotiate(
    entered: &Entered,
    served: Served,
    wanted_name: Option<&str>,
) -> Check<(&'static Tables, Identity)> {
    // SAFETY: an `Entered` comes only from an entry of the right type, which the contract has return static data.
    unsafe { check(entered.table.as_ptr(), served, wanted_name) }
}

/// Checks the backend at `raw` and copies its tables.
///
/// # Safety
/// `raw` must be what an entry of the right type returned: a pointer to static data that follows the contract, as far as it can be trusted.
/// Sizes, kinds, alignment and NULLs are checked here; a wild pointer cannot be.
unsafe fn check(
    raw: *const BackendV1,
    served: Served,
    wanted_name: Option<&str>,
) -> Check<(&'static Tables, Identity)> {
    // SAFETY: readable as the caller states; only `size`, `kind` and the versions are read before the size is known.
    let backend: BackendV1 = unsafe { widen_entry(raw, served)? };
    let missing = missing_slots(&backend);
    if !missing.is_empty() {
        return mismatch(format!(
            "its entry table lacks {}; these are required: rebuild the backend with them",
            missing.join(", ")
        ));
    }
    let identity = identity(&backend)?;
    if let Some(wanted) = wanted_name
        && wanted != identity.name
    {
        return mismatch(format!(
            "it calls itself '{}', its manifest says '{wanted}'; make the two names equal",
            identity.name
        ));
    }
    sanitizer(backend.sanitizer)?;
    let minor = backend.abi_minor_built.min(served.minor);
    // SAFETY: for all calls: the pointers come from a table that was checked; each is NULL or addresses a static table.
    let tables = unsafe {
        let (op, op_plans) = planned("op", backend.op, abi::domains::OP, &backend, minor, |t| {
            t.plans
        })?;
        let (blas, blas_plans) = planned(
            "blas",
            backend.blas,
            abi::domains::BLAS,
            &backend,
            minor,
            |t| t.plans,
        )?;
        let (fft, fft_plans) = planned(
            "fft",
            backend.fft,
            abi::domains::FFT,
            &backend,
            minor,
            |t| t.plans,
        )?;
        let (ccl, ccl_plans) = planned(
            "ccl",
            backend.ccl,
            abi::domains::CCL,
            &backend,
            minor,
            |t| t.plans,
        )?;
        Tables {
            device: required("device", backend.device, minor)?,
            memory: required("memory", backend.memory, minor)?,
            stream: required("stream", backend.stream, minor)?,
            module: optional(
                "module",
                backend.module,
                abi::domains::MODULE,
                &backend,
                minor,
            )?,
            op,
            op_plans,
            blas,
            blas_plans,
            fft,
            fft_plans,
            ccl,
            ccl_plans,
            profile: optional(
                "profile",
                backend.profile,
                abi::domains::PROFILE,
                &backend,
                minor,
            )?,
            backend,
        }
    };
    Ok((Box::leak(Box::new(tables)), identity))
}

/// Checks versions and layout of the entry table, and copies it.
///
/// # Safety
/// As for [`negotiate`].
unsafe fn widen_entry(raw: *const BackendV1, served: Served) -> Check<BackendV1> {
    // The four leading words are the same in every minor of this major.
    // SAFETY: readable as the caller states; `widen` checks alignment and reads `size` first.
    let head: BackendV1 = unsafe { widen("entry", raw, 0)? };
    let (built, needed) = (head.abi_minor_built, head.abi_minor_needed);
    let Served {
        minor,
        oldest,
        hashes,
    } = served;
    if needed > built {
        return mismatch(format!(
            "it needs ABI 1.{needed} and was built for 1.{built}; rebuild the backend: needed is at most built"
        ));
    }
    if needed > minor {
        return mismatch(format!(
            "its ABI is too new: it needs 1.{needed}, this libflagos serves up to 1.{minor}; update libflagos"
        ));
    }
    if built < oldest {
        return mismatch(format!(
            "its ABI is too old: it was built for 1.{built}, this libflagos serves 1.{oldest} to 1.{minor}; update the backend"
        ));
    }
    // A newer minor's hash cannot be known here; it appends only, and states that it works with this minor.
    if let Some(expected) = hashes.get(built as usize)
        && *expected != head.layout_hash
    {
        return mismatch(format!(
            "its layout hash {:016x}{:016x} is not that of ABI 1.{built} ({:016x}{:016x}); rebuild it against an unchanged flagos_backend.h",
            head.layout_hash.hi, head.layout_hash.lo, expected.hi, expected.lo
        ));
    }
    // SAFETY: as above.
    unsafe { widen("entry", raw, built.min(minor)) }
}

/// Copies a table into one of this host's size: absent fields are zero, fields the host does not know are left out. The rule that unknown
/// bytes be zero is for descriptors: here they are slots of a newer minor, which `abi_minor_needed` says may be ignored.
///
/// # Safety
/// `raw` must be NULL or address a static table that is readable for the bytes its `size` states, at least 8.
unsafe fn widen<T: Table>(name: &str, raw: *const T, minor: u32) -> Check<T> {
    let layout = T::LAYOUT;
    if raw.is_null() || !(raw as usize).is_multiple_of(8) {
        return mismatch(format!(
            "its {name} table is at {raw:?}, which is not an address of a table; rebuild the backend"
        ));
    }
    // SAFETY: not NULL, aligned, and readable for 8 bytes as the caller states.
    let (size, kind) = unsafe { (raw.cast::<u32>().read(), raw.cast::<u32>().add(1).read()) };
    let least = layout.size_at(minor);
    if kind != layout.kind {
        return mismatch(format!(
            "its {name} table has kind {kind:#x}, not {:#x}; set 'kind' as the header says",
            layout.kind
        ));
    }
    if (size as usize) < least || size > MAX_TABLE_BYTES {
        return mismatch(format!(
            "its {name} table has size {size}, ABI 1.{minor} needs {least}; set 'size' to sizeof({})",
            layout.c_name
        ));
    }
    // SAFETY: all-zero bytes are a valid `T` by the trait; both sides have at least the copied number of bytes.
    unsafe {
        let mut copy: T = core::mem::zeroed();
        let bytes = (size as usize).min(size_of::<T>());
        core::ptr::copy_nonoverlapping(raw.cast::<u8>(), (&raw mut copy).cast::<u8>(), bytes);
        Ok(copy)
    }
}

/// # Safety
/// As for [`widen`].
unsafe fn required<T: Table>(name: &str, raw: *const T, minor: u32) -> Check<T> {
    // SAFETY: as the caller states.
    let table = unsafe { widen(name, raw, minor)? };
    let missing = missing_slots(&table);
    if missing.is_empty() {
        return Ok(table);
    }
    mismatch(format!(
        "its {name} table lacks {}; these slots are required: rebuild the backend with them",
        missing.join(", ")
    ))
}

/// A table that may be absent; the domain bit must say the same.
///
/// # Safety
/// As for [`widen`].
unsafe fn optional<T: Table>(
    name: &str,
    raw: *const T,
    bit: u64,
    backend: &BackendV1,
    minor: u32,
) -> Check<Option<T>> {
    match (raw.is_null(), backend.domains & bit == 0) {
        (true, true) => Ok(None),
        // SAFETY: as the caller states.
        (false, false) => unsafe { required(name, raw, minor).map(Some) },
        (true, false) => mismatch(format!(
            "'domains' states {name}, but its {name} table is NULL; make the two agree"
        )),
        (false, true) => mismatch(format!(
            "it has a {name} table that 'domains' does not state; make the two agree"
        )),
    }
}

/// # Safety
/// As for [`widen`], also for the plan table.
unsafe fn planned<T: Table>(
    name: &str,
    raw: *const T,
    bit: u64,
    backend: &BackendV1,
    minor: u32,
    plans: impl Fn(&T) -> *const PlanTable,
) -> Check<(Option<T>, Option<PlanTable>)> {
    // SAFETY: as the caller states.
    let Some(table) = (unsafe { optional(name, raw, bit, backend, minor)? }) else {
        return Ok((None, None));
    };
    // SAFETY: as the caller states.
    let plans = unsafe { required(&format!("{name} plan"), plans(&table), minor)? };
    Ok((Some(table), Some(plans)))
}

/// Names of required slots and of halves of pairs that are NULL.
fn missing_slots<T: Table>(table: &T) -> Vec<&'static str> {
    let layout = T::LAYOUT;
    let is_null = |slot: &str| {
        let Some(field) = layout.fields.iter().find(|f| f.name == slot) else {
            return false;
        };
        // SAFETY: the field is a pointer or optional function of 8 bytes inside `table`; zero is NULL in both.
        unsafe {
            (&raw const *table)
                .cast::<u8>()
                .add(field.offset)
                .cast::<u64>()
                .read()
                == 0
        }
    };
    let of = |name: &str| name == layout.name;
    let needed = REQUIRED
        .iter()
        .filter(|(name, _)| of(name))
        .flat_map(|(_, slots)| slots.iter().copied())
        .filter(|slot| is_null(slot));
    let halves = PAIRS
        .iter()
        .filter(|(name, ..)| of(name))
        .filter_map(|(_, a, b)| match (is_null(a), is_null(b)) {
            (true, false) => Some(*a),
            (false, true) => Some(*b),
            _ => None,
        });
    needed.chain(halves).collect()
}

fn identity(backend: &BackendV1) -> Check<Identity> {
    let name = text("name", backend.name, 63)?;
    super::manifest::check_name(&name).or_else(mismatch)?;
    Ok(Identity {
        name,
        version: text("version", backend.version, 4096)?,
        vendor: text("vendor", backend.vendor, 4096)?,
        build_id: text("build_id", backend.build_id, 4096)?,
        compiler: text("compiler", backend.compiler, 4096)?,
        abi_minor_built: backend.abi_minor_built,
        abi_minor_needed: backend.abi_minor_needed,
        domains: backend.domains,
    })
}

/// A text of the entry table.
fn text(field: &str, text: Str, most: u64) -> Check<String> {
    if text.len > most {
        return mismatch(format!(
            "'{field}' has {} bytes, at most {most} are allowed; pass (pointer, length) of UTF-8 text",
            text.len
        ));
    }
    if text.len == 0 {
        return Ok(String::new());
    }
    if text.ptr.is_null() {
        return mismatch(format!(
            "'{field}' is NULL with length {}; pass (pointer, length) of UTF-8 text",
            text.len
        ));
    }
    // SAFETY: the contract has the text readable for the life of the process; the length is believable.
    let bytes = unsafe { core::slice::from_raw_parts(text.ptr, text.len as usize) };
    match core::str::from_utf8(bytes) {
        Ok(text) => Ok(text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()),
        Err(e) => mismatch(format!(
            "'{field}' is not UTF-8 (byte {}); pass UTF-8 text",
            e.valid_up_to()
        )),
    }
}

fn sanitizer(built_with: u32) -> Check<()> {
    let (symbol, name) = match Sanitizer(built_with) {
        Sanitizer::ADDRESS => ("__asan_init", "AddressSanitizer"),
        Sanitizer::THREAD => ("__tsan_init", "ThreadSanitizer"),
        Sanitizer::MEMORY => ("__msan_init", "MemorySanitizer"),
        _ => return Ok(()),
    };
    if process_has(symbol) {
        return Ok(());
    }
    mismatch(format!(
        "it is built with {name} and this process is not; load the backend's plain build"
    ))
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
