//! Streams, and copies between host and devices.

use core::ffi::c_void;

use flagos_backend_api::Error;

use crate::border::{Buffer, Device, Handle, Stream, export, put};

export! {
    /// Creates a stream. `native` wraps a queue of the vendor's (`cudaStream_t`, …) that outlives the stream; 0 makes a new one.
    [Free] fn flagos_stream_create(device: *const Device, priority: i32, native: u64, out_stream: *mut *mut Stream) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_stream, Handle::give(Handle::get(device)?.stream_with(priority, native)?)) }
    }

    /// Releases a stream after its work is done. NULL is allowed.
    [Free] fn flagos_stream_release(stream: *mut Stream) {
        // SAFETY: the header states that the handle is NULL or live and unused by others.
        unsafe { Handle::take(stream) }.map(drop)
    }

    /// Waits until the stream is idle; returns the first late error of its work.
    [Stream] fn flagos_stream_sync(stream: *const Stream) {
        // SAFETY: the header states that the handle is live.
        unsafe { Handle::get(stream) }?.sync()
    }

    /// Whether the stream is idle (0 or 1).
    [Stream] fn flagos_stream_query(stream: *const Stream, out_idle: *mut u32) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_idle, Handle::get(stream)?.is_idle()?.into()) }
    }

    /// The vendor's queue; FLAGOS_UNIMPLEMENTED where there is none.
    [Free] fn flagos_stream_native(stream: *const Stream, out_native: *mut u64) {
        // SAFETY: the header states what the pointers are.
        unsafe { put(out_native, Handle::get(stream)?.native()?) }
    }

    /// Enqueues a copy from host memory, which stays unchanged until the stream passed it.
    [Stream] fn flagos_write(stream: *const Stream, dst: *const Buffer, dst_offset_bytes: u64, src: *const c_void, bytes: u64) {
        if src.is_null() && bytes > 0 {
            return Err(Error::invalid("src is NULL"));
        }
        // SAFETY: the header states what the pointers are.
        unsafe { Handle::get(stream)?.write_async(Handle::get(dst)?, dst_offset_bytes, src.cast(), bytes) }
    }

    /// Enqueues a copy to host memory, which nobody touches until the stream passed it.
    [Stream] fn flagos_read(stream: *const Stream, src: *const Buffer, src_offset_bytes: u64, dst: *mut c_void, bytes: u64) {
        if dst.is_null() && bytes > 0 {
            return Err(Error::invalid("dst is NULL"));
        }
        // SAFETY: the header states what the pointers are.
        unsafe { Handle::get(stream)?.read_async(Handle::get(src)?, src_offset_bytes, dst.cast(), bytes) }
    }

    /// Copies between any two buffers, ordered after the work of both streams: enqueued on `to` within a device or between devices
    /// that reach each other, otherwise done through host memory when this returns, and counted.
    [Stream] fn flagos_copy(to: *const Stream, dst: *const Buffer, dst_offset_bytes: u64, from: *const Stream, src: *const Buffer, src_offset_bytes: u64, bytes: u64) {
        // SAFETY: the header states what the pointers are.
        unsafe {
            flagos_runtime::transfer::copy(Handle::get(to)?, Handle::get(dst)?, dst_offset_bytes, Handle::get(from)?, Handle::get(src)?, src_offset_bytes, bytes)
        }
    }

    /// Enqueues a fill with a repeated pattern of 1, 2, 4, 8 or 16 bytes, read before return; `bytes` is a multiple of it.
    [Stream] fn flagos_fill(stream: *const Stream, dst: *const Buffer, dst_offset_bytes: u64, pattern: *const c_void, pattern_bytes: u32, bytes: u64) {
        if pattern.is_null() || pattern_bytes > 16 {
            return Err(Error::invalid(format!("pattern of {pattern_bytes} bytes at {pattern:p}: give 1, 2, 4, 8 or 16 bytes")));
        }
        // SAFETY: the header states what the pointers are.
        unsafe {
            let pattern = core::slice::from_raw_parts(pattern.cast(), pattern_bytes as usize);
            Handle::get(stream)?.fill(Handle::get(dst)?, dst_offset_bytes, pattern, bytes)
        }
    }
}
