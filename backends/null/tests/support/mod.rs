//! A host as small as it can be: the entry is asked, one device is opened, slots are called raw.
// Each test uses a part.
#![allow(dead_code, unused_imports)]

use core::ffi::c_void;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error, HostV1, MemoryKind, Status};

unsafe extern "C" fn alloc(_: *mut c_void, _: u64, _: u64) -> *mut c_void {
    core::ptr::null_mut()
}
unsafe extern "C" fn free(_: *mut c_void, _: *mut c_void, _: u64, _: u64) {}
unsafe extern "C" fn log(_: *mut c_void, _: u32, _: abi::Str) {}

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
pub fn code(answer: Result<(), Error>) -> Code {
    answer.map_or_else(|e| e.code, |()| Code::OK)
}

/// The backend with its device open.
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

impl Backend {
    pub fn open() -> Backend {
        let mut why = core::ptr::null_mut();
        // SAFETY: the host table is static, `why` is writable; what the entry returns lives as long as the process.
        let table = unsafe { flagos_backend_null::flagos_backend_query_v1(&raw const HOST.0, &mut why).as_ref() };
        take(why).expect("the entry refuses");
        let table = table.expect("a table");
        let mut device = core::ptr::null_mut();
        let opened = Backend { table, device };
        call!(opened.device_table(), open, 0, &mut device).expect("open");
        Backend { device, ..opened }
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
    pub fn ops(&self) -> &'static abi::OpTable {
        // SAFETY: as above.
        unsafe { &*self.table.op }
    }
    pub fn plans(&self) -> &'static abi::PlanTable {
        // SAFETY: as above.
        unsafe { &*self.ops().plans }
    }

    pub fn buffer(&self, bytes: u64) -> *mut abi::Buffer {
        let desc = abi::AllocDesc { bytes, memory_kind: MemoryKind::DEVICE.0, ..sized!(abi::AllocDesc) };
        let mut out = core::ptr::null_mut();
        call!(self.memory(), alloc, self.device, &desc, &mut out).expect("alloc");
        out
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
    pub fn plan(&self, call: &flagos_catalog::Call) -> Result<*mut abi::Plan, Error> {
        let mut out = core::ptr::null_mut();
        call.with_abi(|op| call!(self.ops(), plan, self.device, op, core::ptr::null(), &mut out)).map(|()| out)
    }
    pub fn launch(&self, plan: *mut abi::Plan, stream: *mut abi::Stream, buffers: &[*mut abi::Buffer]) -> Result<(), Error> {
        let bindings: Vec<abi::Binding> = buffers.iter().map(|b| abi::Binding { buffer: *b, byte_offset: 0 }).collect();
        let launch = abi::Launch { bindings: bindings.as_ptr(), n_bindings: bindings.len() as u32, ..sized!(abi::Launch) };
        call!(self.plans(), launch, plan, stream, &launch)
    }
}
