//! A host as small as it can be: the entry is asked, one device is opened, slots are called raw. Kernels are built in `code`.
// Each test uses a part.
#![allow(dead_code, unused_imports)]

pub mod code;
pub mod life;

use core::ffi::c_void;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error, HostV1, KernelFormat, MemoryKind, Status, Str};

unsafe extern "C" fn alloc(_: *mut c_void, _: u64, _: u64) -> *mut c_void {
    core::ptr::null_mut()
}
unsafe extern "C" fn free(_: *mut c_void, _: *mut c_void, _: u64, _: u64) {}
unsafe extern "C" fn log(_: *mut c_void, _: u32, text: abi::Str) {
    // SAFETY: the backend lends the text for the call.
    eprintln!("{}", unsafe { text.to_owned_text() });
}

struct Shared(HostV1);
// SAFETY: the table is never written to, and its functions touch nothing.
unsafe impl Sync for Shared {}

static HOST: Shared = Shared(HostV1 {
    size: HostV1::SIZE,
    kind: HostV1::KIND,
    abi_minor: abi::ABI_MINOR,
    abi_minor_oldest: abi::ABI_MINOR_OLDEST,
    context: core::ptr::null_mut(),
    alloc: Some(alloc),
    free: Some(free),
    log: Some(log),
    status: None,
    get_proc: None,
});

/// A zeroed struct of the ABI with its size and kind set.
macro_rules! sized {
    ($T:ty) => {{
        // The macro stands inside of `call!` at times, which is unsafe code itself.
        #[allow(unused_unsafe)]
        // SAFETY: all-zero bytes are a value of the ABI's structs.
        let mut value: $T = unsafe { core::mem::zeroed() };
        (value.size, value.kind) = (<$T>::SIZE, <$T>::KIND);
        value
    }};
}

/// Calls a slot.
macro_rules! call {
    ($table:expr, $slot:ident $(, $arg:expr)* $(,)?) => {
        // SAFETY: live handles of this backend, or what the slot must refuse.
        $crate::support::take(unsafe { $table.$slot.expect(stringify!($slot))($($arg),*) })
    };
}

pub(crate) use {call, sized};

/// A status as a result; it is released.
pub fn take(status: *mut Status) -> Result<(), Error> {
    // SAFETY: a slot returned it just now.
    unsafe { Error::from_status(status) }
}

/// The code of an answer.
pub fn code_of<T>(answer: &Result<T, Error>) -> Code {
    answer.as_ref().map_or_else(|e| e.code, |_| Code::OK)
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Arg {
    /// A buffer and byte offset.
    Buffer(*mut abi::Buffer, u64),
    /// Bits and bytes.
    Scalar(u64, u32),
}

/// The backend with a device open.
pub struct Backend {
    /// The entry's answer.
    pub table: &'static abi::BackendV1,
    /// The device.
    pub device: *mut abi::Device,
}

// SAFETY: the contract lets handles be used from any thread.
unsafe impl Send for Backend {}
// SAFETY: as above.
unsafe impl Sync for Backend {}

/// The backend's table.
pub fn query() -> &'static abi::BackendV1 {
    let mut why = core::ptr::null_mut();
    // SAFETY: the host table is static, `why` is writable; what the entry returns lives as long as the process.
    let table = unsafe { flagos_backend_vulkan::flagos_backend_query_v1(&raw const HOST.0, &mut why).as_ref() };
    take(why).expect("the entry refuses");
    table.expect("a table")
}

/// What the probe says of every device.
pub fn probe() -> Result<Vec<abi::DeviceProbe>, Error> {
    let mut found = vec![sized!(abi::DeviceProbe); 16];
    let mut count = 0;
    call!(query(), probe, found.as_mut_ptr(), 16, &mut count)?;
    found.truncate(count as usize);
    Ok(found)
}

impl Backend {
    /// The best device. `None` without one, which the environment has to allow: a test that silently does nothing proves nothing.
    pub fn open() -> Option<Backend> {
        let found = probe();
        let best = found.as_ref().ok().and_then(|list| list.iter().enumerate().filter(|(_, p)| p.score > 0).max_by_key(|(_, p)| p.score));
        let Some((ordinal, _)) = best else {
            let allowed = std::env::var("FLAGOS_ALLOW_NO_VULKAN").is_ok_and(|v| v == "1");
            assert!(allowed, "no usable Vulkan device (scripts/setup installs one in software; FLAGOS_ALLOW_NO_VULKAN=1 lets tests pass without): {:?}", found.err());
            return None;
        };
        let mut device = core::ptr::null_mut();
        let opened = Backend { table: query(), device };
        call!(opened.device_table(), open, ordinal as u32, &mut device).expect("open");
        Some(Backend { device, ..opened })
    }
    pub fn device_table(&self) -> &'static abi::DeviceTable {
        // SAFETY: tables live as long as the process.
        unsafe { &*self.table.device }
    }
    pub fn memory(&self) -> &'static abi::MemoryTable {
        // SAFETY: as above.
        unsafe { &*self.table.memory }
    }
    pub fn streams(&self) -> &'static abi::StreamTable {
        // SAFETY: as above.
        unsafe { &*self.table.stream }
    }
    pub fn modules(&self) -> &'static abi::ModuleTable {
        // SAFETY: as above.
        unsafe { &*self.table.module }
    }
    pub fn info(&self) -> abi::DeviceInfo {
        let mut info = sized!(abi::DeviceInfo);
        call!(self.device_table(), info, self.device, &mut info).expect("info");
        info
    }

    pub fn try_buffer(&self, bytes: u64, kind: MemoryKind, alignment_bytes: u64) -> Result<*mut abi::Buffer, Error> {
        let desc = abi::AllocDesc { bytes, alignment_bytes, memory_kind: kind.0, ..sized!(abi::AllocDesc) };
        let mut out = core::ptr::null_mut();
        call!(self.memory(), alloc, self.device, &desc, &mut out).map(|()| out)
    }
    pub fn buffer(&self, bytes: u64) -> *mut abi::Buffer {
        self.try_buffer(bytes, MemoryKind::DEVICE, 0).expect("alloc")
    }
    pub fn stream(&self) -> *mut abi::Stream {
        let mut out = core::ptr::null_mut();
        call!(self.streams(), create, self.device, &sized!(abi::StreamDesc), &mut out).expect("create");
        out
    }
    pub fn event(&self) -> *mut abi::Event {
        let mut out = core::ptr::null_mut();
        call!(self.streams(), event_create, self.device, &mut out).expect("event_create");
        out
    }
    pub fn write<T: Copy>(&self, stream: *mut abi::Stream, buffer: *mut abi::Buffer, data: &[T]) {
        call!(self.memory(), write, stream, buffer, 0, data.as_ptr().cast(), size_of_val(data) as u64).expect("write");
        call!(self.streams(), sync, stream).expect("sync");
    }
    pub fn read<T: Copy + Default>(&self, stream: *mut abi::Stream, buffer: *mut abi::Buffer, n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        call!(self.memory(), read, stream, buffer, 0, out.as_mut_ptr().cast(), size_of_val(&out[..]) as u64).expect("read");
        call!(self.streams(), sync, stream).expect("sync");
        out
    }

    pub fn compile(&self, code: &[u8], options: &'static str) -> Result<*mut abi::Module, Error> {
        let code = Str { ptr: code.as_ptr(), len: code.len() as u64 };
        let desc = abi::CompileDesc { format: KernelFormat::SPIRV_VULKAN.0, code, options: Str::new(options), name: Str::new("test"), ..sized!(abi::CompileDesc) };
        let mut out = core::ptr::null_mut();
        call!(self.modules(), compile, self.device, &desc, &mut out).map(|()| out)
    }
    pub fn kernel_of(&self, module: *mut abi::Module, name: &'static str) -> Result<*mut abi::Kernel, Error> {
        let mut out = core::ptr::null_mut();
        call!(self.modules(), kernel, module, Str::new(name), &mut out).map(|()| out)
    }
    /// A kernel of a module that lives as long as the test.
    pub fn kernel(&self, code: &[u8]) -> *mut abi::Kernel {
        let module = self.compile(code, "").expect("compile");
        self.kernel_of(module, code::NAME).expect("kernel")
    }
    pub fn launch(&self, stream: *mut abi::Stream, kernel: *mut abi::Kernel, grid: [u32; 3], block: [u32; 3], args: &[Arg]) -> Result<(), Error> {
        let list: Vec<abi::KernelArg> = args
            .iter()
            .map(|a| match *a {
                Arg::Buffer(buffer, byte_offset) => {
                    abi::KernelArg { arg_kind: abi::ArgKind::BUFFER.0, bytes: 8, scalar: 0, binding: abi::Binding { buffer, byte_offset } }
                }
                Arg::Scalar(scalar, bytes) => {
                    abi::KernelArg { arg_kind: abi::ArgKind::SCALAR.0, bytes, scalar, binding: abi::Binding { buffer: core::ptr::null_mut(), byte_offset: 0 } }
                }
            })
            .collect();
        let desc = abi::KernelLaunch { grid, block, n_args: list.len() as u32, args: list.as_ptr(), ..sized!(abi::KernelLaunch) };
        call!(self.modules(), launch, stream, kernel, &desc)
    }
    pub fn sync(&self, stream: *mut abi::Stream) {
        call!(self.streams(), sync, stream).expect("sync");
    }
}
