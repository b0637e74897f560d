//! Operator table, and what every planned call shares: support, limits, plan information, launch.

use crate::{Binding, Device, Op, Plan, Status, Str, Stream, abi_enum, abi_struct};

abi_enum! {
    /// Answer of a query.
    Answer = "flagos_answer_t", "FLAGOS_ANSWER_" {
        /// Not offered; `reason` says why.
        NO = 0,
        /// Offered.
        YES = 1,
        /// Offered, but slower than a portable kernel would be.
        YES_SLOW = 2,
    }
}

/// Bits of [`Support::properties`] and [`PlanInfo::properties`].
pub mod properties {
    /// Equal inputs give equal bits on every run.
    pub const DETERMINISTIC: u32 = 1 << 0;
    /// Output 0 may be input 0 (same buffer, offset and layout).
    pub const IN_PLACE: u32 = 1 << 1;
    /// May be recorded by graph capture.
    pub const CAPTURABLE: u32 = 1 << 2;
}

abi_struct! {
    /// Answer of `query`. The caller sets `size` and `kind`; the rest is written according to the level asked.
    Support = "flagos_support_t", kind 0x50 {
        /// `sizeof(flagos_support_t)`.
        size: u32,
        /// 0x50.
        kind: u32,
        /// A `flagos_answer_t` value.
        answer: u32,
        /// Level 1: `FLAGOS_PROPERTY_*` bits.
        properties: u32,
        /// Why not, or why slow; static text.
        reason: Str,
        /// Level 1: workspace in bytes.
        workspace_bytes: u64,
        /// Level 2: fixed cost in ns.
        fixed_ns: f64,
        /// Level 2: cost per byte moved in ns.
        ns_per_byte: f64,
        /// Level 2: cost per operation in ns.
        ns_per_flop: f64,
    }

    /// Limits of a plan.
    PlanLimits = "flagos_plan_limits_t", kind 0x51 {
        /// `sizeof(flagos_plan_limits_t)`.
        size: u32,
        /// 0x51.
        kind: u32,
        /// Greatest workspace in bytes; all ones: any.
        workspace_bytes: u64,
        /// 1: only implementations that are deterministic.
        deterministic: u32,
        /// Reserved, 0.
        flags: u32,
    }

    /// What a finished plan needs and promises.
    PlanInfo = "flagos_plan_info_t", kind 0x52 {
        /// `sizeof(flagos_plan_info_t)`.
        size: u32,
        /// 0x52.
        kind: u32,
        /// Workspace in bytes; 0 for none.
        workspace_bytes: u64,
        /// `FLAGOS_PROPERTY_*` bits.
        properties: u32,
        /// Reserved, 0.
        flags: u32,
        /// Which implementation was chosen ("avx512 contiguous", "cublasLt"); lives as long as the plan.
        implementation: Str,
    }

    /// Arguments of a launch.
    Launch = "flagos_launch_t", kind 0x53 {
        /// `sizeof(flagos_launch_t)`.
        size: u32,
        /// 0x53.
        kind: u32,
        /// Inputs in order, then outputs; as many as the descriptor had.
        bindings: *const Binding,
        /// Number of bindings.
        n_bindings: u32,
        /// Reserved, 0.
        flags: u32,
        /// Workspace of at least the plan's size; NULL buffer when it needs none. Private to this launch until the stream passed it.
        workspace: Binding,
        /// BLAS: host address of alpha in the compute type, read before return; NULL: 1.
        alpha: *const core::ffi::c_void,
        /// BLAS: host address of beta, likewise; NULL: 0, and the output is not read.
        beta: *const core::ffi::c_void,
    }

    /// Plan functions of a finished call; the same for operators, BLAS, FFT and collectives.
    PlanTable = "flagos_plan_table_t", kind 0x54 {
        /// `sizeof(flagos_plan_table_t)`.
        size: u32,
        /// 0x54.
        kind: u32,
        /// Describes a plan.
        [Free] fn info(plan: *mut Plan, out_info: *mut PlanInfo) -> *mut Status,
        /// Enqueues. No compilation, allocation or synchronisation; a plan may be launched from several threads on several streams at once.
        [Stream] fn launch(plan: *mut Plan, stream: *mut Stream, launch: *const Launch) -> *mut Status,
        /// Destroys a plan none of whose launches is in flight.
        [Free] fn destroy(plan: *mut Plan) -> *mut Status,
    }

    /// Native operators. Optional.
    OpTable = "flagos_op_table_t", kind 0x55 {
        /// `sizeof(flagos_op_table_t)`.
        size: u32,
        /// 0x55.
        kind: u32,
        /// Whether a call is offered. Level 0 is pure, touches no device and takes at most 50 ns; an unknown id is answered NO.
        [Free] fn query(device: *mut Device, op: *const Op, level: u32, out_support: *mut Support) -> *mut Status,
        /// Prepares a call; may compile and allocate. The descriptor is read before return.
        [Free] fn plan(device: *mut Device, op: *const Op, limits: *const PlanLimits, out_plan: *mut *mut Plan) -> *mut Status,
        /// Plan functions.
        plans: *const PlanTable,
    }
}
