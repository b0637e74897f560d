//! Stream table: ordered queues and 64-bit timelines.

use crate::{Device, Event, Status, Stream, abi_struct};

abi_struct! {
    /// A request for a stream.
    StreamDesc = "flagos_stream_desc_t", kind 0x30 {
        /// `sizeof(flagos_stream_desc_t)`.
        size: u32,
        /// 0x30.
        kind: u32,
        /// Lower runs earlier; 0 is the default.
        priority: i32,
        /// Reserved, 0.
        flags: u32,
        /// A queue of the vendor's (`cudaStream_t`, `cl_command_queue`, …) to wrap, or 0. It outlives the stream.
        native: u64,
        /// Stands for what a minor appends.
        #[cfg(feature = "next-minor")]
        @ 1 appended: u64,
    }

    /// Stream and event functions. Required: all but `native` and `elapsed`.
    ///
    /// An event is a 64-bit timeline that starts at 0 and never goes back. A synchronous backend signals before it returns.
    StreamTable = "flagos_stream_table_t", kind 0x31 {
        /// `sizeof(flagos_stream_table_t)`.
        size: u32,
        /// 0x31.
        kind: u32,
        /// Creates or imports a stream.
        [Free] fn create(device: *mut Device, desc: *const StreamDesc, out_stream: *mut *mut Stream) -> *mut Status,
        /// Destroys a stream after its work is done. An imported queue is left to its owner.
        [Free] fn destroy(stream: *mut Stream) -> *mut Status,
        /// Waits until the stream is idle; returns the first late error.
        [Stream] fn sync(stream: *mut Stream) -> *mut Status,
        /// Whether the stream is idle (0 or 1), without waiting.
        [Stream] fn query(stream: *mut Stream, out_idle: *mut u32) -> *mut Status,
        /// The vendor's queue. NULL slot: there is none.
        [Free] fn native(stream: *mut Stream, out_native: *mut u64) -> *mut Status,
        /// Creates a timeline at value 0.
        [Free] fn event_create(device: *mut Device, out_event: *mut *mut Event) -> *mut Status,
        /// Destroys a timeline that no stream waits for.
        [Free] fn event_destroy(event: *mut Event) -> *mut Status,
        /// Enqueues: when the stream gets here, raise the timeline to `value`, which is above every value signalled before.
        [Stream] fn signal(stream: *mut Stream, event: *mut Event, value: u64) -> *mut Status,
        /// Enqueues: later work of the stream waits until the timeline reaches `value`, which has been signalled or will be.
        [Stream] fn wait(stream: *mut Stream, event: *mut Event, value: u64) -> *mut Status,
        /// The value reached, without waiting; a late error of the work before it is returned here.
        [Free] fn event_query(event: *mut Event, out_value: *mut u64) -> *mut Status,
        /// Waits on the host until the timeline reaches `value`; DEADLINE_EXCEEDED after `timeout_ns` (all ones: for ever).
        [Free] fn event_sync(event: *mut Event, value: u64, timeout_ns: u64) -> *mut Status,
        /// Device time between two signalled values in nanoseconds. NULL slot: no device clock.
        [Free] fn elapsed(event: *mut Event, from_value: u64, to_value: u64, out_ns: *mut u64) -> *mut Status,
    }
}
