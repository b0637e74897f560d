//! Collective table: communicators and collectives among ranks.

use crate::{Comm, DType, Device, Plan, PlanLimits, PlanTable, Status, Support, abi_enum, abi_struct};

abi_enum! {
    /// Collectives, numbered for ever.
    CclOp = "flagos_ccl_op_t", "FLAGOS_CCL_" {
        /// Every rank gets the reduction of all.
        ALL_REDUCE = 1,
        /// The root gets the reduction.
        REDUCE = 2,
        /// Every rank gets the root's data.
        BROADCAST = 3,
        /// Every rank gets the concatenation of all.
        ALL_GATHER = 4,
        /// Each rank gets its part of the reduction.
        REDUCE_SCATTER = 5,
        /// Each rank sends part i to rank i.
        ALL_TO_ALL = 6,
        /// The root gets the concatenation.
        GATHER = 7,
        /// Each rank gets its part of the root's data.
        SCATTER = 8,
        /// Point-to-point send.
        SEND = 9,
        /// Point-to-point receive.
        RECV = 10,
        /// All ranks meet.
        BARRIER = 11,
    }
    /// Reductions.
    CclReduction = "flagos_ccl_reduction_t", "FLAGOS_CCL_" {
        /// Sum.
        SUM = 1,
        /// Product.
        PROD = 2,
        /// Minimum.
        MIN = 3,
        /// Maximum.
        MAX = 4,
        /// Mean over ranks.
        AVG = 5,
    }
}

abi_struct! {
    /// Opaque 128-byte name of a communicator; rank 0 makes it, every rank passes it.
    UniqueId = "flagos_unique_id_t", kind 0 {
        /// The bytes.
        bytes: [u8; 128],
    }

    /// A collective. Bindings: send, receive.
    CclDesc = "flagos_ccl_desc_t", kind 0x80 {
        /// `sizeof(flagos_ccl_desc_t)`.
        size: u32,
        /// 0x80.
        kind: u32,
        /// A `flagos_ccl_op_t` value.
        op: u32,
        /// A `flagos_ccl_reduction_t` value, for reductions.
        reduction: u32,
        /// Element type.
        dtype: DType,
        /// Root or peer rank.
        root: u32,
        /// Elements, counted as NCCL does for each collective.
        count: u64,
    }

    /// Collective functions. Optional.
    CclTable = "flagos_ccl_table_t", kind 0x81 {
        /// `sizeof(flagos_ccl_table_t)`.
        size: u32,
        /// 0x81.
        kind: u32,
        /// Makes a unique id.
        [Free] fn unique_id(out_id: *mut UniqueId) -> *mut Status,
        /// Joins a communicator; blocks until all ranks joined or `timeout_ns` ran out.
        [Free] fn join(device: *mut Device, id: *const UniqueId, rank: u32, n_ranks: u32, timeout_ns: u64, out_comm: *mut *mut Comm) -> *mut Status,
        /// Leaves it.
        [Free] fn leave(comm: *mut Comm) -> *mut Status,
        /// Ends every pending call with ABORTED; callable from any thread.
        [Free] fn abort(comm: *mut Comm) -> *mut Status,
        /// Whether a collective is offered; equal on all ranks.
        [Free] fn query(comm: *mut Comm, desc: *const CclDesc, level: u32, out_support: *mut Support) -> *mut Status,
        /// Prepares a collective.
        [Free] fn plan(comm: *mut Comm, desc: *const CclDesc, limits: *const PlanLimits, out_plan: *mut *mut Plan) -> *mut Status,
        /// Launches until `group_end` form one group. NULL slot: groups of one.
        [Stream] fn group_start(comm: *mut Comm) -> *mut Status,
        /// Ends a group.
        [Stream] fn group_end(comm: *mut Comm) -> *mut Status,
        /// Plan functions.
        plans: *const PlanTable,
    }
}
