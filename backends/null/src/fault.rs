//! Deliberate defects, one at a time, chosen by `FLAGOS_NULL_FAULT`: the conformance suite is tested with them. Not part of the template.
//!
//! The rest of the backend calls the functions re-exported here at the places where a defect can sit; without a fault each passes its
//! argument through. `mutations.toml` says which cases of the suite must catch each fault.

mod queues;
mod slots;
mod values;

use std::sync::OnceLock;

use flagos_backend_api::vendor::Backend;
use flagos_backend_api::{Error, Result};

pub use queues::*;
pub use slots::amend;
pub use values::*;

/// One row of [`TABLE`].
pub struct Row {
    /// The defect.
    pub fault: Fault,
    /// Its name in `FLAGOS_NULL_FAULT`.
    pub name: &'static str,
    /// Id of the check of the suite that must catch it.
    pub check: &'static str,
    /// What goes wrong.
    pub doc: &'static str,
}

macro_rules! faults {
    ($( $Fault:ident $name:literal $check:literal $doc:literal )*) => {
        /// The defects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $( #[doc = $doc] $Fault, )* }

        /// Every defect, with the check that must catch it.
        pub const TABLE: &[Row] = &[$( Row { fault: Fault::$Fault, name: $name, check: $check, doc: $doc } ),*];
    };
}

faults! {
    // What a result holds.
    WrongLastElement "wrong-last-element" "value" "The last element of every output is off by one."
    MissedStride "missed-stride" "value" "Strided inputs are read as if they were contiguous."
    NegativeStride "negative-stride" "value" "The sign of negative strides is dropped."
    OffsetWrong "offset-off-by-one" "stale" "The first input is read one element before its binding."
    BroadcastIgnored "broadcast-ignored" "value" "Inputs that broadcast are read element after element, over and over."
    UlpOff "ulp-off-by-one" "value" "Floating results are one unit in the last place too large."
    SwappedTranspose "swapped-transpose" "value" "The first matrix of a product or a permutation is taken for its transpose."
    NanDropped "nan-dropped" "value" "NaN results become 0."
    InfSaturated "inf-saturated" "value" "Infinite results become the greatest finite value."
    SignedZero "signed-zero" "value" "-0 becomes +0."
    DenormalFlush "denormal-flush" "value" "Subnormal results become 0."
    Fp64InFp32 "fp64-in-fp32" "value" "f64 results are rounded to f32."
    IntSaturates "int-saturates" "value" "Integer results saturate where they wrap."
    BoolNotNormalised "bool-not-normalised" "value" "True is stored as 255."
    SoftmaxOverflow "softmax-no-max-subtraction" "value" "softmax computes exp(x) in the element's type without subtracting the maximum."
    WrongAxis "reduction-wrong-axis" "value" "Reductions of matrices run along the other axis."
    LastTie "argmax-last-tie" "value" "argmax and argmin give the last of equals."
    LdaIgnored "gemm-lda-ignored" "value" "Matrices of BLAS calls are read as if they had no gaps between rows or columns."
    BetaReadsC "beta-zero-reads-c" "value" "With beta = 0, NaN in C or y reaches the result."
    AlphaIgnored "blas-alpha-ignored" "value" "alpha is taken for 1."
    ConjIgnored "blas-conjugate-ignored" "value" "Conjugate transposes are taken for transposes."
    FftDirection "fft-wrong-direction" "value" "The exponent has the other sign."
    FftScale "fft-scale-ignored" "value" "The scale is taken for 1."
    // What a launch touches.
    UnwrittenTail "unwritten-tail" "unwritten" "The last element of every output is not written."
    StaleOutput "stale-output" "stale" "The first element of the result depends on what the output held."
    StalePlan "stale-plan" "stale" "A plan answers every launch with its first result."
    GuardBefore "writes-guard-before" "guard" "The byte before the output is written."
    GuardAfter "writes-guard-after" "guard" "The byte behind the output is written."
    WritesGap "writes-gap" "guard" "Gaps of strided outputs are written."
    ModifiesInput "modifies-input" "input-modified" "The first byte of the first input is changed."
    InPlaceWrong "in-place-wrong" "in-place" "With the output in the memory of input 0, elements are read after they were overwritten."
    WorkspaceOverrun "workspace-overrun" "workspace" "The byte behind the workspace is written."
    WorkspaceDirty "workspace-assumed-zero" "workspace" "The workspace is taken to hold zeros."
    Nondeterministic "nondeterministic" "determinism" "Every other launch is one unit in the last place off, in a plan that promises equal bits."
    RankZeroFails "rank0-fails" "error" "Launches on tensors without dimensions fail."
    EmptyFails "empty-fails" "error" "Launches on tensors without elements fail."
    // What is offered.
    SupportLiesYes "support-lies-yes" "support-lies" "query offers calls that plan refuses."
    SupportLiesNo "support-lies-no" "support-lies" "query refuses calls that plan makes."
    RefusalCode "refusal-wrong-code" "refusal-code" "Calls that are not offered are refused with INTERNAL."
    TouchesRefused "refusal-touches-memory" "untouched" "Asking for a call that is not offered writes to the device's buffers."
    UnknownOperator "accepts-unknown-operator" "unknown-operator" "query offers operators it does not know."
    UnknownAttribute "accepts-unknown-attribute" "unknown-attribute" "Attributes nobody knows are skipped."
    UnknownDtype "accepts-unknown-dtype" "unknown-dtype" "query offers element types it does not know."
    // How a launch behaves.
    PanicsInLaunch "panics-in-launch" "panic" "launch panics."
    PanicsInPlan "panics-in-plan" "panic" "plan panics."
    Crash "crash" "crash" "launch raises SIGSEGV."
    Hang "hang" "timeout" "launch never returns."
    LosesDevice "loses-device" "device-lost" "launch answers DEVICE_LOST."
    LaunchAllocates "launch-allocates" "launch-allocates" "launch takes memory from the host."
    LaunchSynchronises "launch-synchronises" "launch-synchronises" "launch waits for its stream."
    // Streams and timelines.
    DroppedEvent "dropped-event" "timeline" "Signals of odd values are lost."
    EventEarly "event-early" "cross-wait" "Timelines rise when the signal is enqueued, before the work is done."
    EventGoesBack "event-goes-back" "timeline" "Timelines read one less now and then."
    WaitIgnored "wait-ignored" "cross-wait" "Streams do not wait for timelines."
    TimeoutAsSuccess "timeout-as-success" "deadline" "A wait that runs out answers success."
    TimeoutIgnored "timeout-ignored" "timeout" "Waits with a timeout never run out."
    StreamReorders "stream-reorders" "order" "Now and then the second of two waiting tasks runs first."
    SharedState "threads-share-state" "threads" "Fills of all threads go through one pattern."
    LeaksThread "leaks-thread" "leak" "The thread of a destroyed stream lives on."
    // Memory.
    LeaksBuffer "leaks-buffer" "leak" "Freed memory is not given back."
    LeaksHostMemory "leaks-host-memory" "leak" "Each allocation keeps 64 bytes of host memory for ever."
    MisalignedAlloc "misaligned-alloc" "alignment" "Buffers begin 64 bytes behind their alignment."
    OverlappingAlloc "overlapping-alloc" "handles" "Live buffers share memory."
    FillPattern "fill-pattern-wrong" "fill" "Fills repeat the first byte of their pattern."
    FillOverrun "fill-overruns" "fill" "Fills write one byte too many."
    CopyOffset "copy-offset-ignored" "copy" "Copies read from the beginning of their source."
    CopyShort "copy-short" "copy" "Copies leave out their last byte."
    WriteShort "write-short" "transfer" "Writes leave out their last byte."
    OomWrongCode "oom-wrong-code" "exhaustion" "Out of memory is answered INTERNAL."
    OomAborts "oom-aborts" "crash" "Out of memory aborts the process."
    MapsElsewhere "maps-elsewhere" "mapping" "map gives memory that is not the buffer's."
    AnyMemoryKind "accepts-any-memory-kind" "accepted" "Memory kinds the device does not state are allocated as device memory."
    ForkBreaks "fork-breaks" "fork" "After the process forked, writes and fills do nothing."
    // The ABI.
    ShortStruct "accepts-short-struct" "short-struct" "Structs shorter than minor 0's are taken for whole ones."
    LongStruct "refuses-long-struct" "long-struct" "Structs of a later minor are refused."
    NonzeroTail "accepts-nonzero-tail" "nonzero-tail" "Bytes beyond the known fields are not looked at."
    WrongKind "accepts-wrong-kind" "kind" "The kind of a struct is not looked at."
    NullSucceeds "null-succeeds" "null-argument" "info without a place to write to succeeds."
    HandleWord "handle-word-wrong" "handle-word" "The first word of a buffer's handle is NULL."
    StatusWithoutText "status-without-text" "status" "Errors of alloc carry no text."
    ProbeOverruns "probe-overruns" "capacity" "probe writes its entry whatever the capacity."
    ProbeLies "probe-lies" "tables" "probe states capabilities that the open device lacks."
    EntryStartsThread "entry-starts-thread" "purity" "The entry starts a thread."
    QueryFlips "query-flips" "purity" "Every other query of one call is answered NO."
    CloseBreaksOthers "close-breaks-others" "handles" "After a handle of the device was closed, writes and fills do nothing."
    OpensAnything "opens-any-ordinal" "accepted" "Every ordinal opens the one device."
    ShutdownTwiceFails "shutdown-twice-fails" "error" "A second shutdown fails."
    ShutdownIgnored "calls-after-shutdown-work" "shutdown" "shutdown does nothing."
    SecondCopyFails "second-copy-fails" "moved" "A second copy of the library in one process does not open its device."
    LayoutHash "layout-hash-wrong" "load" "The layout hash is that of no header."
    PanicsInEntry "panics-in-entry" "load" "The entry panics."
}

/// Whether a fault is planted.
pub fn is(fault: Fault) -> bool {
    matches!(planted(), Ok(Some(f)) if *f == fault)
}

/// A fault that nobody knows must not pass for none.
pub fn probe() -> Result<()> {
    planted().as_ref().map(drop).map_err(|unknown| {
        let names: Vec<&str> = TABLE.iter().map(|r| r.name).collect();
        Error::invalid(format!("FLAGOS_NULL_FAULT={unknown}: there is no such fault; faults are {}", names.join(", ")))
    })
}

/// Read once per process.
fn planted() -> &'static Result<Option<Fault>, String> {
    static PLANTED: OnceLock<Result<Option<Fault>, String>> = OnceLock::new();
    PLANTED.get_or_init(|| match std::env::var("FLAGOS_NULL_FAULT") {
        Ok(name) if !name.is_empty() => TABLE.iter().find(|r| r.name == name).map(|r| Some(r.fault)).ok_or(name),
        _ => Ok(None),
    })
}

fn host() -> flagos_backend_api::vendor::Host {
    crate::Null::state().host()
}
