//! A host as small as it can be: it loads the plugin as built, opens every usable device, and calls slots raw.
// Each test uses a part.
#![allow(dead_code, unused_imports)]

use core::ffi::c_void;
use std::sync::LazyLock;

use flagos_backend_api as abi;
use flagos_backend_api::{ArgKind, Binding, Code, CompileDesc, Error, HostV1, KernelArg, KernelFormat, KernelLaunch, MemoryKind, Status, Str};

unsafe extern "C" fn alloc(_: *mut c_void, _: u64, _: u64) -> *mut c_void {
    core::ptr::null_mut()
}
unsafe extern "C" fn free(_: *mut c_void, _: *mut c_void, _: u64, _: u64) {}
unsafe extern "C" fn log(_: *mut c_void, _: u32, _: Str) {}

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
pub fn code<T>(answer: Result<T, Error>) -> Code {
    answer.map_or_else(|e| e.code, |_| Code::OK)
}

/// The plugin's table; the text says why there is none.
fn table() -> Result<&'static abi::BackendV1, String> {
    type Entry = unsafe extern "C" fn(*const HostV1, *mut *mut Status) -> *const abi::BackendV1;
    let test = std::env::current_exe().map_err(|e| e.to_string())?;
    let path = test.with_file_name("libflagos_backend_opencl.so");
    // SAFETY: the plugin of this package; it stays loaded.
    let library = Box::leak(Box::new(unsafe { libloading::Library::new(&path) }.map_err(|e| format!("{}: {e}", path.display()))?));
    // SAFETY: the contract fixes the symbol's type.
    let entry = unsafe { library.get::<Entry>(b"flagos_backend_query_v1\0") }.map_err(|e| e.to_string())?;
    let mut why = core::ptr::null_mut();
    // SAFETY: the host table is static, `why` is writable; what the entry returns lives as long as the process.
    let table = unsafe { entry(&raw const HOST.0, &mut why).as_ref() };
    take(why).map_err(|e| e.to_string())?;
    table.ok_or_else(|| "the entry returns NULL without a reason".to_owned())
}

/// An open device.
pub struct Opened {
    pub table: &'static abi::BackendV1,
    pub device: *mut abi::Device,
    pub name: String,
    pub caps: u64,
}

// SAFETY: the contract lets handles be used from any thread.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

fn open_all() -> Result<Vec<Opened>, String> {
    let table = table()?;
    let mut probes: Vec<abi::DeviceProbe> = (0..32).map(|_| sized!(abi::DeviceProbe)).collect();
    let mut count = 0;
    call!(table, probe, probes.as_mut_ptr(), 32, &mut count).map_err(|e| e.to_string())?;
    let usable = probes.iter().take(count as usize).enumerate().filter(|(_, p)| p.score > 0);
    let opened = usable.map(|(i, p)| {
        let mut device = core::ptr::null_mut();
        // SAFETY: tables and texts live as long as the process.
        let (devices, name) = unsafe { (&*table.device, p.name.to_owned_text()) };
        call!(devices, open, i as u32, &mut device).map_err(|e| format!("{name}: {e}"))?;
        println!("device {i}: {name}");
        Ok(Opened { table, device, name, caps: p.caps })
    });
    opened.collect()
}

/// Runs a test on every usable device.
pub fn each(test: impl Fn(&Opened)) {
    all().iter().for_each(test);
}

/// Every usable device. None is a failure, unless FLAGOS_ALLOW_NO_OPENCL=1 says that there need not be one.
pub fn all() -> &'static [Opened] {
    static DEVICES: LazyLock<Result<Vec<Opened>, String>> = LazyLock::new(open_all);
    let none = match &*DEVICES {
        Ok(devices) if !devices.is_empty() => return devices,
        Ok(_) => "no OpenCL platform offers a usable device".to_owned(),
        Err(e) => e.clone(),
    };
    let allowed = std::env::var("FLAGOS_ALLOW_NO_OPENCL").is_ok_and(|v| v == "1");
    assert!(allowed, "NOT TESTED: {none}; install one (scripts/setup installs PoCL), or set FLAGOS_ALLOW_NO_OPENCL=1 to do without");
    eprintln!("NOT TESTED: {none}; FLAGOS_ALLOW_NO_OPENCL=1 allows that");
    &[]
}

/// A kernel argument.
pub fn buffer(buffer: *mut abi::Buffer, byte_offset: u64) -> KernelArg {
    KernelArg { arg_kind: ArgKind::BUFFER.0, bytes: 0, scalar: 0, binding: Binding { buffer, byte_offset } }
}

/// A kernel argument by value.
pub fn scalar(scalar: u64, bytes: u32) -> KernelArg {
    KernelArg { arg_kind: ArgKind::SCALAR.0, bytes, scalar, binding: Binding { buffer: core::ptr::null_mut(), byte_offset: 0 } }
}

impl Opened {
    pub fn has(&self, cap: u64) -> bool {
        self.caps & cap != 0
    }
    pub fn devices(&self) -> &'static abi::DeviceTable {
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
        call!(self.devices(), info, self.device, &mut info).expect("info");
        info
    }

    pub fn try_alloc(&self, bytes: u64, kind: MemoryKind) -> Result<*mut abi::Buffer, Error> {
        let desc = abi::AllocDesc { bytes, memory_kind: kind.0, ..sized!(abi::AllocDesc) };
        let mut out = core::ptr::null_mut();
        call!(self.memory(), alloc, self.device, &desc, &mut out).map(|()| out)
    }
    pub fn alloc(&self, bytes: u64) -> *mut abi::Buffer {
        self.try_alloc(bytes, MemoryKind::DEVICE).expect("alloc")
    }
    pub fn free(&self, buffer: *mut abi::Buffer) {
        call!(self.memory(), free, buffer).expect("free");
    }
    pub fn stream(&self) -> *mut abi::Stream {
        self.import(0).expect("create")
    }
    pub fn import(&self, native: u64) -> Result<*mut abi::Stream, Error> {
        let mut out = core::ptr::null_mut();
        let desc = abi::StreamDesc { native, ..sized!(abi::StreamDesc) };
        call!(self.streams(), create, self.device, &desc, &mut out).map(|()| out)
    }
    pub fn event(&self) -> *mut abi::Event {
        let mut out = core::ptr::null_mut();
        call!(self.streams(), event_create, self.device, &mut out).expect("event_create");
        out
    }
    pub fn sync(&self, stream: *mut abi::Stream) -> Result<(), Error> {
        call!(self.streams(), sync, stream)
    }
    pub fn destroy(&self, stream: *mut abi::Stream) {
        call!(self.streams(), destroy, stream).expect("destroy");
    }
    pub fn value(&self, event: *mut abi::Event) -> Result<u64, Error> {
        let mut value = 0;
        call!(self.streams(), event_query, event, &mut value).map(|()| value)
    }
    pub fn write<T: Copy>(&self, stream: *mut abi::Stream, buffer: *mut abi::Buffer, data: &[T]) {
        call!(self.memory(), write, stream, buffer, 0, data.as_ptr().cast(), size_of_val(data) as u64).expect("write");
        self.sync(stream).expect("sync");
    }
    /// A buffer with these contents.
    pub fn with<T: Copy>(&self, stream: *mut abi::Stream, data: &[T]) -> *mut abi::Buffer {
        let out = self.alloc(size_of_val(data) as u64);
        self.write(stream, out, data);
        out
    }
    pub fn read<T: Copy + Default>(&self, stream: *mut abi::Stream, buffer: *mut abi::Buffer, n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        call!(self.memory(), read, stream, buffer, 0, out.as_mut_ptr().cast(), size_of_val(&out[..]) as u64).expect("read");
        self.sync(stream).expect("sync");
        out
    }

    pub fn compile_as(&self, code: &[u8], is_binary: bool, options: &str, name: &str) -> Result<*mut abi::Module, Error> {
        let code = Str { ptr: code.as_ptr(), len: code.len() as u64 };
        let desc = CompileDesc {
            format: KernelFormat::OPENCL_C.0,
            is_binary: is_binary.into(),
            code,
            options: Str::borrowed(options),
            name: Str::borrowed(name),
            ..sized!(CompileDesc)
        };
        let mut out = core::ptr::null_mut();
        call!(self.modules(), compile, self.device, &desc, &mut out).map(|()| out)
    }
    pub fn compile(&self, source: &str) -> *mut abi::Module {
        self.compile_as(source.as_bytes(), false, "", "test").unwrap_or_else(|e| panic!("{e}"))
    }
    pub fn kernel(&self, module: *mut abi::Module, name: &str) -> Result<*mut abi::Kernel, Error> {
        let mut out = core::ptr::null_mut();
        call!(self.modules(), kernel, module, Str::borrowed(name), &mut out).map(|()| out)
    }
    pub fn unload(&self, module: *mut abi::Module) {
        call!(self.modules(), destroy, module).expect("destroy");
    }
    pub fn binary(&self, module: *mut abi::Module) -> Result<Vec<u8>, Error> {
        let mut length = 0;
        call!(self.modules(), export_binary, module, core::ptr::null_mut(), 0, &mut length)?;
        let mut bytes = vec![0u8; length as usize];
        call!(self.modules(), export_binary, module, bytes.as_mut_ptr().cast(), length, &mut length).map(|()| bytes)
    }
    pub fn launch(&self, stream: *mut abi::Stream, kernel: *mut abi::Kernel, grid: [u32; 3], block: [u32; 3], args: &[KernelArg]) -> Result<(), Error> {
        let launch = KernelLaunch { grid, block, n_args: args.len() as u32, args: args.as_ptr(), ..sized!(KernelLaunch) };
        call!(self.modules(), launch, stream, kernel, &launch)
    }
}
