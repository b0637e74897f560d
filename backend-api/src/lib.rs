//! The libflagos backend contract: what crosses between the host and a chip vendor's shared object.
//!
//! The `#[repr(C)]` types here are the source of `include/flagos_backend.h`. A backend exports one symbol,
//! [`flagos_backend_query_v1`](ENTRY_SYMBOL), which returns a [`BackendV1`]. Rust backends implement the traits of
//! [`vendor`] and call [`export_backend!`]; C backends fill the tables by hand.
//!
//! # Evolution rules
//! 1. Within a major: append only. Never insert, reorder, retype, reuse. A new signature is a new slot.
//! 2. Structs that begin with `size` and `kind` may be shorter or longer than the reader's: absent fields take their default (0),
//!    bytes the reader does not know must be zero, else `UNSUPPORTED_FIELD`.
//! 3. A NULL slot is not implemented. Optional never becomes required within a major.
//! 4. Integers have fixed widths; enumerations are `uint32_t`, vendors' own values start at 0x8000, unknown values are tolerated.
//! 5. Experimental functions are fetched by name, never slots.
//! 6. Operators are registry ids with revisions, append-only.

pub mod backend;
pub mod blas;
pub mod ccl;
pub mod checked;
pub mod device;
pub mod fft;
pub mod layout;
pub mod memory;
pub mod module;
pub mod op;
pub mod profile;
pub mod status;
pub mod stream;
pub mod types;
pub mod vendor;

pub use backend::*;
pub use blas::*;
pub use ccl::*;
pub use device::*;
pub use fft::*;
pub use memory::*;
pub use module::*;
pub use op::*;
pub use profile::*;
pub use status::*;
pub use stream::*;
pub use types::*;

use layout::{Enum, LayoutHash, Opaque, Struct, layout_hashes};

/// Every struct that crosses, in header order.
pub const STRUCTS: &[Struct] = &[
    Str::LAYOUT, DType::LAYOUT, Status::LAYOUT, Tensor::LAYOUT, Attr::LAYOUT, Op::LAYOUT, Binding::LAYOUT, DeviceProbe::LAYOUT,
    DeviceInfo::LAYOUT, DeviceTable::LAYOUT, AllocDesc::LAYOUT, MemoryExport::LAYOUT, MemoryInfo::LAYOUT, MemoryTable::LAYOUT, StreamDesc::LAYOUT,
    StreamTable::LAYOUT, CompileDesc::LAYOUT, KernelArg::LAYOUT, KernelLaunch::LAYOUT, KernelInfo::LAYOUT, ModuleTable::LAYOUT, Support::LAYOUT,
    PlanLimits::LAYOUT, PlanInfo::LAYOUT, Launch::LAYOUT, PlanTable::LAYOUT, OpTable::LAYOUT, BlasDesc::LAYOUT, BlasTable::LAYOUT, FftDesc::LAYOUT,
    FftTable::LAYOUT, UniqueId::LAYOUT, CclDesc::LAYOUT, CclTable::LAYOUT, ProfileTable::LAYOUT, HostV1::LAYOUT, BackendV1::LAYOUT,
];

/// Every enumeration.
pub const ENUMS: &[Enum] = &[
    DTypeCode::ENUM, AttrTag::ENUM, Code::ENUM, DeviceKind::ENUM, KernelFormat::ENUM, MemoryKind::ENUM, MemoryHandle::ENUM, ArgKind::ENUM,
    Answer::ENUM, BlasRoutine::ENUM, BlasOrder::ENUM, BlasTrans::ENUM, BlasUplo::ENUM, BlasDiag::ENUM, BlasSide::ENUM, FftKind::ENUM,
    FftDirection::ENUM, CclOp::ENUM, CclReduction::ENUM, Sanitizer::ENUM, LogLevel::ENUM,
];

/// Every opaque handle.
pub const OPAQUES: &[Opaque] = &[
    Device::OPAQUE, Buffer::OPAQUE, Stream::OPAQUE, Event::OPAQUE, Module::OPAQUE, Kernel::OPAQUE, Plan::OPAQUE, Comm::OPAQUE,
];

/// Layout hashes by ABI minor: entry `m` is the hash of minor `m`.
pub const LAYOUT_HASHES: &[LayoutHash] = &layout_hashes::<{ ABI_MINOR as usize + 1 }>(STRUCTS);

const _: () = {
    assert!(Tensor::SIZE == 168 && Attr::SIZE == 16 && Op::SIZE == 56 && Binding::SIZE == 16);
    assert!(LAYOUT_HASHES.len() == ABI_MINOR as usize + 1);
    assert!(size_of::<usize>() == 8);
};
