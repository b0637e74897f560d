//! The driver: owning handles over OpenCL's functions; every call into libOpenCL is in this file.
//!
//! `ocl-core` brings the bindings. Its own wrappers are not used where they would end the process or stall it: they panic on error codes they do
//! not know (NVIDIA reports a kernel's bad address as -9999), panic when releasing fails (as it does once a device is lost), and wait ten seconds
//! when no platform is installed.

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flagos_backend_api::{Code, Error, Result};
use num_traits::FromPrimitive;
pub use ocl_core::ffi as cl;

/// The domain of native codes.
pub const DOMAIN: &str = "opencl";
/// An event whose command waited for one that failed.
pub const WAITED_FOR_FAILURE: i32 = cl::CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
/// NVIDIA: a kernel read or wrote where it may not.
const NV_ILLEGAL_ACCESS: i32 = -9999;

/// What a code of OpenCL means to the host.
fn code(native: i32) -> Code {
    match native {
        cl::CL_MEM_OBJECT_ALLOCATION_FAILURE | cl::CL_OUT_OF_RESOURCES | cl::CL_OUT_OF_HOST_MEMORY => Code::RESOURCE_EXHAUSTED,
        cl::CL_DEVICE_NOT_AVAILABLE | NV_ILLEGAL_ACCESS => Code::DEVICE_LOST,
        cl::CL_DEVICE_NOT_FOUND | cl::CL_PLATFORM_NOT_FOUND_KHR | cl::CL_COMPILER_NOT_AVAILABLE => Code::UNAVAILABLE,
        cl::CL_INVALID_KERNEL_NAME => Code::NOT_FOUND,
        cl::CL_INVALID_BINARY => Code::DATA_LOSS,
        // Queues and contexts are this backend's own, so these are no caller's mistake: they are what drivers answer once a device is gone.
        cl::CL_INVALID_CONTEXT | cl::CL_INVALID_COMMAND_QUEUE => Code::INTERNAL,
        -72..=-30 => Code::INVALID_ARGUMENT,
        _ => Code::INTERNAL,
    }
}

/// An error from a call and the code it gave.
pub fn failure(call: &str, native: i32) -> Error {
    let name = ocl_core::Status::from_i32(native).map_or_else(|| "a code of the vendor's".to_owned(), |s| format!("{s:?}"));
    Error::new(code(native), format!("{call}: {name}")).with_native(DOMAIN, native.into())
}

fn check(call: &str, native: i32) -> Result<()> {
    if native == cl::CL_SUCCESS { Ok(()) } else { Err(failure(call, native)) }
}

/// The bytes of a property; `get` is an information function, called with (room, place, place of the length).
fn property(call: &str, get: impl Fn(usize, *mut c_void, *mut usize) -> i32) -> Result<Vec<u8>> {
    let mut length = 0;
    check(call, get(0, core::ptr::null_mut(), &mut length))?;
    let mut bytes = vec![0u8; length];
    if length > 0 {
        check(call, get(length, bytes.as_mut_ptr().cast(), core::ptr::null_mut()))?;
    }
    Ok(bytes)
}

/// Text without its terminator.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').trim().to_owned()
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $release:ident) => {
        $(#[$doc])*
        pub struct $name(*mut c_void);

        // SAFETY: OpenCL objects may be used from any thread at any time; the one exception, setting arguments of a kernel, takes `&mut`.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // A failure has nobody to be told to: once a device is lost, every release fails.
                // SAFETY: this handle owns one reference, given back here.
                unsafe { cl::$release(self.0) };
            }
        }

        impl $name {
            /// Takes over a new object's reference.
            fn own(call: &str, raw: *mut c_void, native: i32) -> Result<$name> {
                check(call, native)?;
                Ok($name(raw))
            }
            /// The native object, which also tells it from others.
            pub fn raw(&self) -> u64 {
                self.0 as u64
            }
        }
    };
}

macro_rules! shared {
    ($name:ident, $retain:ident) => {
        impl Clone for $name {
            fn clone(&self) -> $name {
                // SAFETY: the object is alive, as this handle has a reference.
                unsafe { cl::$retain(self.0) };
                $name(self.0)
            }
        }
    };
}

handle! { /// A context of one device.
Context, clReleaseContext }
handle! { /// A command queue.
Queue, clReleaseCommandQueue }
handle! { /// A buffer object.
Mem, clReleaseMemObject }
handle! { /// A program.
Program, clReleaseProgram }
handle! { /// A kernel with its arguments.
Kernel, clReleaseKernel }
handle! { /// The completion of a command, or of nothing but the caller's will.
Event, clReleaseEvent }
shared!(Event, clRetainEvent);

/// A device, named by its driver; alive as long as the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Device {
    platform: *mut c_void,
    device: *mut c_void,
}

// SAFETY: ids of platforms and root devices are constants of the driver.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Every device of every platform, in the loader's order. No driver installed is an empty list; so is a platform that fails.
pub fn devices() -> Result<Vec<Device>> {
    let mut count = 0;
    // SAFETY: asks for the count alone.
    match unsafe { cl::clGetPlatformIDs(0, core::ptr::null_mut(), &mut count) } {
        cl::CL_PLATFORM_NOT_FOUND_KHR => return Ok(Vec::new()),
        native => check("clGetPlatformIDs", native)?,
    }
    let mut platforms = vec![core::ptr::null_mut(); count as usize];
    if count > 0 {
        // SAFETY: there is room for `count` ids.
        check("clGetPlatformIDs", unsafe { cl::clGetPlatformIDs(count, platforms.as_mut_ptr(), core::ptr::null_mut()) })?;
    }
    Ok(platforms.into_iter().flat_map(|p| platform_devices(p).into_iter().map(move |device| Device { platform: p, device })).collect())
}

fn platform_devices(platform: *mut c_void) -> Vec<*mut c_void> {
    let mut count = 0;
    // SAFETY: `platform` comes from the driver; asks for the count alone.
    let native = unsafe { cl::clGetDeviceIDs(platform, cl::CL_DEVICE_TYPE_ALL, 0, core::ptr::null_mut(), &mut count) };
    if native != cl::CL_SUCCESS || count == 0 {
        return Vec::new();
    }
    let mut devices = vec![core::ptr::null_mut(); count as usize];
    // SAFETY: there is room for `count` ids.
    let native = unsafe { cl::clGetDeviceIDs(platform, cl::CL_DEVICE_TYPE_ALL, count, devices.as_mut_ptr(), core::ptr::null_mut()) };
    if native == cl::CL_SUCCESS { devices } else { Vec::new() }
}

impl Device {
    /// Bytes of a property of the device; empty where it has none.
    pub fn bytes(self, what: u32) -> Vec<u8> {
        // SAFETY: the id is the driver's; `property` passes room it has.
        property("clGetDeviceInfo", |room, place, length| unsafe { cl::clGetDeviceInfo(self.device, what, room, place, length) }).unwrap_or_default()
    }
    /// Text of a property of the device.
    pub fn text(self, what: u32) -> String {
        text(&self.bytes(what))
    }
    /// A number among the properties; 0 where the device has none.
    pub fn number(self, what: u32) -> u64 {
        number(&self.bytes(what))
    }
    /// Text of a property of the platform.
    pub fn platform_text(self, what: u32) -> String {
        // SAFETY: the id is the driver's; `property` passes room it has.
        let bytes = property("clGetPlatformInfo", |room, place, length| unsafe { cl::clGetPlatformInfo(self.platform, what, room, place, length) });
        text(&bytes.unwrap_or_default())
    }
    /// Tells devices apart within the process.
    pub fn id(self) -> u64 {
        self.device as u64
    }
    /// A context for this device alone.
    pub fn context(self) -> Result<Context> {
        let properties = [cl::CL_CONTEXT_PLATFORM as isize, self.platform as isize, 0];
        let mut native = 0;
        // SAFETY: the list of properties ends with 0, the list of devices has one entry; there is no callback.
        let raw = unsafe { cl::clCreateContext(properties.as_ptr(), 1, &self.device, None, core::ptr::null_mut(), &mut native) };
        Context::own("clCreateContext", raw, native)
    }
}

impl Context {
    /// An in-order queue whose commands are timed.
    pub fn queue(&self, device: Device) -> Result<Queue> {
        let mut native = 0;
        // SAFETY: context and device belong together.
        let raw = unsafe { cl::clCreateCommandQueue(self.0, device.device, cl::CL_QUEUE_PROFILING_ENABLE, &mut native) };
        Queue::own("clCreateCommandQueue", raw, native)
    }
    /// A buffer; `host` asks for memory the host reaches fast.
    pub fn buffer(&self, bytes: u64, host: bool) -> Result<Mem> {
        let flags = cl::CL_MEM_READ_WRITE | if host { cl::CL_MEM_ALLOC_HOST_PTR } else { 0 };
        let mut native = 0;
        // SAFETY: the flags want no host pointer.
        let raw = unsafe { cl::clCreateBuffer(self.0, flags, bytes as usize, core::ptr::null_mut(), &mut native) };
        Mem::own("clCreateBuffer", raw, native)
    }
    /// A program from source parts.
    pub fn program(&self, parts: &[&[u8]]) -> Result<Program> {
        let (texts, lengths): (Vec<*const cl::c_char>, Vec<usize>) = parts.iter().map(|p| (p.as_ptr().cast(), p.len())).unzip();
        let mut native = 0;
        // SAFETY: as many texts as stated, each with its length, copied by the call.
        let raw = unsafe { cl::clCreateProgramWithSource(self.0, parts.len() as u32, texts.as_ptr(), lengths.as_ptr(), &mut native) };
        Program::own("clCreateProgramWithSource", raw, native)
    }
    /// A program from a binary of this driver's.
    pub fn program_of_binary(&self, device: Device, binary: &[u8]) -> Result<Program> {
        let (length, address) = (binary.len(), binary.as_ptr());
        let (mut status, mut native) = (0, 0);
        // SAFETY: one device, one binary with its length, copied by the call.
        let raw = unsafe { cl::clCreateProgramWithBinary(self.0, 1, &device.device, &length, &address, &mut status, &mut native) };
        let program = Program::own("clCreateProgramWithBinary", raw, native)?;
        check("clCreateProgramWithBinary", status)?;
        Ok(program)
    }
    /// An event that [`Event::settle`] completes.
    pub fn user_event(&self) -> Result<Event> {
        let mut native = 0;
        // SAFETY: the context is alive.
        let raw = unsafe { cl::clCreateUserEvent(self.0, &mut native) };
        Event::own("clCreateUserEvent", raw, native)
    }
    /// Takes a reference to a queue of somebody else's, which must be one of this context and device. Its properties come along.
    ///
    /// # Safety
    /// `raw` is a live command queue.
    pub unsafe fn adopt_queue(&self, device: Device, raw: u64) -> Result<(Queue, u64)> {
        let raw = raw as *mut c_void;
        let ask = |what: u32| {
            // SAFETY: stated by the caller; `property` passes room it has.
            property("clGetCommandQueueInfo", |room, place, length| unsafe { cl::clGetCommandQueueInfo(raw, what, room, place, length) }).map(|b| number(&b))
        };
        if ask(cl::CL_QUEUE_CONTEXT)? != self.raw() || ask(cl::CL_QUEUE_DEVICE)? != device.id() {
            let text = "the command queue belongs to another context or device; create it in the context of the queue that 'native' of a stream of this device returns";
            return Err(Error::invalid(text));
        }
        let properties = ask(cl::CL_QUEUE_PROPERTIES)?;
        // SAFETY: stated by the caller.
        unsafe { cl::clRetainCommandQueue(raw) };
        Ok((Queue(raw), properties))
    }
    /// Takes a reference to a buffer of somebody else's, which must be one of this context. Its size comes along.
    ///
    /// # Safety
    /// `raw` is a live buffer object.
    pub unsafe fn adopt_buffer(&self, raw: u64) -> Result<(Mem, u64)> {
        let raw = raw as *mut c_void;
        let ask = |what: u32| {
            // SAFETY: stated by the caller; `property` passes room it has.
            property("clGetMemObjectInfo", |room, place, length| unsafe { cl::clGetMemObjectInfo(raw, what, room, place, length) }).map(|b| number(&b))
        };
        if ask(cl::CL_MEM_CONTEXT)? != self.raw() {
            return Err(Error::invalid("the buffer belongs to another context; create it in the context of the queue that 'native' of a stream of this device returns"));
        }
        let bytes = ask(cl::CL_MEM_SIZE)?;
        // SAFETY: stated by the caller.
        unsafe { cl::clRetainMemObject(raw) };
        Ok((Mem(raw), bytes))
    }
}

/// No events to wait for.
const NONE: *const cl::cl_event = core::ptr::null();
/// No event wanted.
const UNWANTED: *mut cl::cl_event = core::ptr::null_mut();

impl Queue {
    /// Enqueues a copy to the host.
    ///
    /// # Safety
    /// `dst` is writable for `bytes` until the queue passed the command.
    pub unsafe fn read(&self, src: &Mem, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        // SAFETY: stated by the caller; the driver checks the buffer's range.
        check("clEnqueueReadBuffer", unsafe { cl::clEnqueueReadBuffer(self.0, src.0, cl::CL_FALSE, offset as usize, bytes as usize, dst.cast(), 0, NONE, UNWANTED) })
    }
    /// Enqueues a copy from the host.
    ///
    /// # Safety
    /// `src` is readable and unchanged for `bytes` until the queue passed the command.
    pub unsafe fn write(&self, dst: &Mem, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: stated by the caller; the driver checks the buffer's range.
        check("clEnqueueWriteBuffer", unsafe { cl::clEnqueueWriteBuffer(self.0, dst.0, cl::CL_FALSE, offset as usize, bytes as usize, src.cast(), 0, NONE, UNWANTED) })
    }
    /// Enqueues a copy between buffers.
    pub fn copy(&self, dst: &Mem, dst_offset: u64, src: &Mem, src_offset: u64, bytes: u64) -> Result<()> {
        // SAFETY: live objects; the driver checks ranges and overlap.
        check("clEnqueueCopyBuffer", unsafe { cl::clEnqueueCopyBuffer(self.0, src.0, dst.0, src_offset as usize, dst_offset as usize, bytes as usize, 0, NONE, UNWANTED) })
    }
    /// Enqueues a fill; `pattern` has a length OpenCL knows, which divides `offset` and `bytes`. It is read before return.
    pub fn fill(&self, dst: &Mem, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        // SAFETY: live objects, a pattern of the stated length; the driver checks the rest.
        check("clEnqueueFillBuffer", unsafe {
            cl::clEnqueueFillBuffer(self.0, dst.0, pattern.as_ptr().cast(), pattern.len(), offset as usize, bytes as usize, 0, NONE, UNWANTED)
        })
    }
    /// Enqueues the move of a buffer's memory, not of its contents, to the device: it has to be there afterwards.
    pub fn settle_on_device(&self, buffer: &Mem) -> Result<()> {
        // SAFETY: one live buffer.
        check("clEnqueueMigrateMemObjects", unsafe { cl::clEnqueueMigrateMemObjects(self.0, 1, &buffer.0, cl::CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0, NONE, UNWANTED) })
    }
    /// Makes a buffer readable and writable by the host; waits.
    pub fn map(&self, buffer: &Mem, bytes: u64) -> Result<u64> {
        let mut native = 0;
        // SAFETY: a live buffer of at least `bytes`; the driver checks.
        let address = unsafe { cl::clEnqueueMapBuffer(self.0, buffer.0, cl::CL_TRUE, cl::CL_MAP_READ | cl::CL_MAP_WRITE, 0, bytes as usize, 0, NONE, UNWANTED, &mut native) };
        check("clEnqueueMapBuffer", native)?;
        Ok(address as u64)
    }
    /// Enqueues the end of a mapping.
    pub fn unmap(&self, buffer: &Mem, address: u64) -> Result<()> {
        // SAFETY: the address came from `map` of this buffer.
        check("clEnqueueUnmapMemObject", unsafe { cl::clEnqueueUnmapMemObject(self.0, buffer.0, address as *mut c_void, 0, NONE, UNWANTED) })
    }
    /// An event that completes when all commands before it did.
    pub fn marker(&self) -> Result<Event> {
        let mut event = core::ptr::null_mut();
        // SAFETY: without a list, the marker waits for all commands before it.
        let native = unsafe { cl::clEnqueueMarkerWithWaitList(self.0, 0, NONE, &mut event) };
        Event::own("clEnqueueMarkerWithWaitList", event, native)
    }
    /// Later commands wait for those before them.
    pub fn fence(&self) -> Result<()> {
        // SAFETY: without a list, the barrier waits for all commands before it.
        check("clEnqueueBarrierWithWaitList", unsafe { cl::clEnqueueBarrierWithWaitList(self.0, 0, NONE, UNWANTED) })
    }
    /// Later commands wait for an event of this context.
    pub fn barrier(&self, awaited: &Event) -> Result<()> {
        // SAFETY: a list of one live event.
        check("clEnqueueBarrierWithWaitList", unsafe { cl::clEnqueueBarrierWithWaitList(self.0, 1, &awaited.0, UNWANTED) })
    }
    /// Hands commands to the device.
    pub fn flush(&self) -> Result<()> {
        // SAFETY: the queue is alive.
        check("clFlush", unsafe { cl::clFlush(self.0) })
    }
    /// Waits until all commands are done.
    pub fn finish(&self) -> Result<()> {
        // SAFETY: the queue is alive.
        check("clFinish", unsafe { cl::clFinish(self.0) })
    }
}

impl Event {
    /// 0: complete; above 0: not yet; below 0: failed with this code. A driver that cannot tell has lost the command.
    pub fn status(&self) -> i32 {
        let mut status: cl::cl_int = 0;
        // SAFETY: room for one `cl_int`, which the property is.
        let native = unsafe { cl::clGetEventInfo(self.0, cl::CL_EVENT_COMMAND_EXECUTION_STATUS, size_of::<cl::cl_int>(), (&raw mut status).cast(), core::ptr::null_mut()) };
        if native == cl::CL_SUCCESS { status } else { native }
    }
    /// When the command ended, by the device's clock in nanoseconds; `None` where it was not timed.
    pub fn end_ns(&self) -> Option<u64> {
        let mut ns = 0u64;
        // SAFETY: room for one `cl_ulong`, which the property is.
        let native = unsafe { cl::clGetEventProfilingInfo(self.0, cl::CL_PROFILING_COMMAND_END, size_of::<u64>(), (&raw mut ns).cast(), core::ptr::null_mut()) };
        (native == cl::CL_SUCCESS).then_some(ns)
    }
    /// Waits; a failed command is told by [`Event::status`].
    pub fn wait(&self) {
        // SAFETY: a list of one live event.
        unsafe { cl::clWaitForEvents(1, &self.0) };
    }
    /// Completes a user event. It is never given a failure: PoCL ends the process when commands wait for one and nobody holds their events.
    pub fn complete(&self) {
        // Fails only when it is complete already, which changes nothing.
        // SAFETY: the event is alive; the driver refuses events that are not the user's.
        unsafe { cl::clSetUserEventStatus(self.0, cl::CL_COMPLETE) };
    }
    /// Calls `run` with the status once the command ended, on a thread of the driver's or on this one; it must not wait.
    pub fn on_end(&self, run: impl FnOnce(i32) + Send + 'static) -> Result<()> {
        type Run = Box<dyn FnOnce(i32) + Send>;
        extern "C" fn called(_: cl::cl_event, status: cl::cl_int, data: *mut c_void) {
            // SAFETY: the box given away below; the driver calls once.
            let run = unsafe { Box::from_raw(data.cast::<Run>()) };
            // A panic must not unwind into the driver; there is nobody else to tell.
            let _ = catch_unwind(AssertUnwindSafe(|| run(status)));
        }
        let data: *mut Run = Box::into_raw(Box::new(Box::new(run)));
        // SAFETY: the callback takes the box over.
        let native = unsafe { cl::clSetEventCallback(self.0, cl::CL_COMPLETE, Some(called), data.cast()) };
        if native != cl::CL_SUCCESS {
            // SAFETY: a refused callback is never called, so the box is still this function's.
            drop(unsafe { Box::from_raw(data) });
        }
        check("clSetEventCallback", native)
    }
}

impl Program {
    /// Compiles and links for a device. The log comes along with a failure.
    pub fn build(&self, device: Device, options: &str) -> Result<(), (Error, String)> {
        let options = CString::new(options).map_err(|_| (Error::invalid("the compiler options hold a NUL character"), String::new()))?;
        // SAFETY: one device of the program's context, options that end with NUL, no callback: the call returns when the build is over.
        let native = unsafe { cl::clBuildProgram(self.0, 1, &device.device, options.as_ptr(), None, core::ptr::null_mut()) };
        check("clBuildProgram", native).map_err(|e| (e, self.log(device)))
    }
    fn log(&self, device: Device) -> String {
        // SAFETY: the program is alive; `property` passes room it has.
        let bytes = property("clGetProgramBuildInfo", |room, place, length| unsafe {
            cl::clGetProgramBuildInfo(self.0, device.device, cl::CL_PROGRAM_BUILD_LOG, room, place, length)
        });
        text(&bytes.unwrap_or_default())
    }
    /// The binary for the program's one device; empty when the driver has none.
    pub fn binary(&self) -> Result<Vec<u8>> {
        // SAFETY: the program is alive; `property` passes room it has.
        let sizes = property("clGetProgramInfo", |room, place, length| unsafe { cl::clGetProgramInfo(self.0, cl::CL_PROGRAM_BINARY_SIZES, room, place, length) })?;
        let mut binary = vec![0u8; number(&sizes) as usize];
        let address = binary.as_mut_ptr();
        // SAFETY: the program has one device, so the property is one address, at which there is room for the size the driver stated.
        let native = unsafe { cl::clGetProgramInfo(self.0, cl::CL_PROGRAM_BINARIES, size_of::<*mut u8>(), (&raw const address).cast_mut().cast(), core::ptr::null_mut()) };
        check("clGetProgramInfo", native)?;
        Ok(binary)
    }
    /// An entry point.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        let name = CString::new(name).map_err(|_| Error::invalid("the kernel's name holds a NUL character"))?;
        let mut native = 0;
        // SAFETY: a live program and a name that ends with NUL.
        let raw = unsafe { cl::clCreateKernel(self.0, name.as_ptr(), &mut native) };
        Kernel::own("clCreateKernel", raw, native)
    }
}

impl Kernel {
    /// Number of parameters.
    pub fn parameters(&self) -> Result<u32> {
        // SAFETY: the kernel is alive; `property` passes room it has.
        let bytes = property("clGetKernelInfo", |room, place, length| unsafe { cl::clGetKernelInfo(self.0, cl::CL_KERNEL_NUM_ARGS, room, place, length) })?;
        Ok(number(&bytes) as u32)
    }
    /// A property of the kernel on a device, as numbers.
    pub fn on_device(&self, device: Device, what: u32) -> Vec<u64> {
        // SAFETY: the kernel is alive; `property` passes room it has.
        let bytes = property("clGetKernelWorkGroupInfo", |room, place, length| unsafe {
            cl::clGetKernelWorkGroupInfo(self.0, device.device, what, room, place, length)
        });
        bytes.unwrap_or_default().chunks(8).map(number).collect()
    }
    /// Sets a parameter to a buffer, or to NULL.
    pub fn set_buffer(&mut self, index: u32, buffer: Option<&Mem>) -> Result<()> {
        let value = buffer.map_or(core::ptr::null(), |m| (&raw const m.0).cast());
        // SAFETY: the address of a `cl_mem`, or NULL, is what a parameter that points to memory takes; `&mut` keeps other threads off.
        check("clSetKernelArg", unsafe { cl::clSetKernelArg(self.0, index, size_of::<cl::cl_mem>(), value) })
    }
    /// Sets a parameter to a value; its length must be that of the parameter's type.
    pub fn set_value(&mut self, index: u32, value: &[u8]) -> Result<()> {
        // SAFETY: a readable value of the stated length; `&mut` keeps other threads off.
        check("clSetKernelArg", unsafe { cl::clSetKernelArg(self.0, index, value.len(), value.as_ptr().cast()) })
    }
    /// Enqueues with the arguments set last. What the kernel does to memory is its author's responsibility, as with any device code.
    pub fn enqueue(&mut self, queue: &Queue, global: &[usize; 3], local: &[usize; 3]) -> Result<()> {
        // SAFETY: three extents each, read before return; `&mut` keeps other threads from the arguments meanwhile.
        check("clEnqueueNDRangeKernel", unsafe {
            cl::clEnqueueNDRangeKernel(queue.0, self.0, 3, core::ptr::null(), global.as_ptr(), local.as_ptr(), 0, NONE, UNWANTED)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_no_one_knows_are_errors_with_their_number() {
        let e = failure("clFinish", -31999);
        assert_eq!((e.code, e.native), (Code::INTERNAL, Some((DOMAIN, -31999))));
        assert_eq!(failure("clFinish", NV_ILLEGAL_ACCESS).code, Code::DEVICE_LOST);
        assert_eq!(failure("clCreateBuffer", cl::CL_MEM_OBJECT_ALLOCATION_FAILURE).code, Code::RESOURCE_EXHAUSTED);
        assert!(failure("clCreateKernel", cl::CL_INVALID_KERNEL_NAME).message.contains("CL_INVALID_KERNEL_NAME"));
    }

    #[test]
    fn numbers_are_little_endian_and_may_be_missing() {
        assert_eq!(number(&[]), 0);
        assert_eq!(number(&[1, 2]), 0x201);
        assert_eq!(number(&u64::MAX.to_le_bytes()), u64::MAX);
        assert_eq!(text(b"  a name \0"), "a name");
    }
}
