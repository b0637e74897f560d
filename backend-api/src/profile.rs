//! Profile table: device clocks and ranges in the vendor's tools.

use crate::{Device, Status, Str, Stream, abi_struct};

abi_struct! {
    /// Profiling functions. Optional.
    ProfileTable = "flagos_profile_table_t", kind 0x90 {
        /// `sizeof(flagos_profile_table_t)`.
        size: u32,
        /// 0x90.
        kind: u32,
        /// The device clock now in ns, and the host's monotonic clock at the same moment.
        [Free] fn clock(device: *mut Device, out_device_ns: *mut u64, out_host_ns: *mut u64) -> *mut Status,
        /// Opens a named range in the vendor's profiler.
        [Stream] fn range_push(stream: *mut Stream, name: Str) -> *mut Status,
        /// Closes the innermost range.
        [Stream] fn range_pop(stream: *mut Stream) -> *mut Status,
    }
}
