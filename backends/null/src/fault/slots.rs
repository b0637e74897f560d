//! Defects of the ABI: slots around those of the glue, which does not have them.

use core::ffi::c_void;
use std::sync::OnceLock;

use flagos_backend_api::{
    AllocDesc, Answer, BackendV1, Buffer, Device, DeviceInfo, DeviceProbe, DeviceTable, Error, MemoryTable, Op, OpTable, Plan, PlanLimits, Status,
    Str, Support, Tensor,
};
use flagos_catalog::{KEYS, by_id};

use super::{Fault, is, shutdown_again};

/// The table as the glue made it.
static ORIGINAL: OnceLock<BackendV1> = OnceLock::new();

/// Puts slots with defects into the table, if a fault wants some.
pub fn amend(table: &mut BackendV1) {
    let _ = ORIGINAL.set(*table);
    let ours = [
        Fault::ShortStruct, Fault::LongStruct, Fault::NonzeroTail, Fault::WrongKind, Fault::NullSucceeds, Fault::HandleWord, Fault::StatusWithoutText,
        Fault::UnknownOperator, Fault::UnknownAttribute, Fault::UnknownDtype, Fault::MapsElsewhere,
    ];
    if is(Fault::LayoutHash) {
        table.layout_hash.lo ^= 1;
    }
    assert!(!is(Fault::PanicsInEntry), "planted in the entry");
    if is(Fault::EntryStartsThread) {
        std::thread::spawn(std::thread::park);
    }
    if is(Fault::ProbeOverruns) {
        table.probe = Some(probe);
    }
    if is(Fault::ShutdownIgnored) || is(Fault::ShutdownTwiceFails) {
        table.shutdown = Some(shutdown);
    }
    if ours.into_iter().any(is) {
        table.device = leak(DeviceTable { info: Some(info), ..*original_device() });
        let map = if is(Fault::MapsElsewhere) { Some(map as _) } else { original_memory().map };
        table.memory = leak(MemoryTable { alloc: Some(alloc), map, ..*original_memory() });
        table.op = leak(OpTable { query: Some(query), plan: Some(plan), ..*original_op() });
    }
}

fn leak<T>(table: T) -> *const T {
    Box::leak(Box::new(table))
}

fn original() -> &'static BackendV1 {
    ORIGINAL.get().expect("the table was amended before any of its slots can be called")
}
fn original_device() -> &'static DeviceTable {
    // SAFETY: the glue's tables are static and always there.
    unsafe { &*original().device }
}
fn original_memory() -> &'static MemoryTable {
    // SAFETY: as above.
    unsafe { &*original().memory }
}
fn original_op() -> &'static OpTable {
    // SAFETY: as above; this backend offers operators.
    unsafe { &*original().op }
}

/// Calls a slot of the glue; all of them are filled.
macro_rules! inner {
    ($table:expr, $slot:ident, $($arg:expr),* $(,)?) => {
        match $table.$slot {
            // SAFETY: the caller's arguments, or copies that live for the call.
            Some(slot) => unsafe { slot($($arg),*) },
            None => core::ptr::null_mut(),
        }
    };
}

unsafe extern "C" fn probe(out: *mut DeviceProbe, capacity: u32, out_count: *mut u32) -> *mut Status {
    inner!(original(), probe, out, if out.is_null() { capacity } else { capacity.max(1) }, out_count)
}

unsafe extern "C" fn shutdown() -> *mut Status {
    if is(Fault::ShutdownIgnored) {
        return core::ptr::null_mut();
    }
    match shutdown_again() {
        Ok(()) => inner!(original(), shutdown,),
        Err(e) => e.into_status(),
    }
}

unsafe extern "C" fn info(device: *mut Device, out: *mut DeviceInfo) -> *mut Status {
    if is(Fault::NullSucceeds) && out.is_null() {
        return core::ptr::null_mut();
    }
    if !is(Fault::ShortStruct) || out.is_null() {
        return inner!(original_device(), info, device, out);
    }
    // SAFETY: all-zero bytes are a DeviceInfo.
    let mut whole: DeviceInfo = unsafe { core::mem::zeroed() };
    (whole.size, whole.kind) = (DeviceInfo::SIZE, DeviceInfo::KIND);
    let status = inner!(original_device(), info, device, &mut whole);
    // SAFETY: the caller's struct has at least 8 bytes; that it may have no more is the defect.
    unsafe { (&raw const whole).cast::<u8>().add(8).copy_to(out.cast::<u8>().add(8), size_of::<DeviceInfo>() - 8) };
    status
}

unsafe extern "C" fn alloc(device: *mut Device, desc: *const AllocDesc, out: *mut *mut Buffer) -> *mut Status {
    // SAFETY: the caller passes NULL or a struct of at least 8 bytes.
    let Some((size, kind)) = (unsafe { desc.cast::<[u32; 2]>().as_ref() }).map(|w| (w[0], w[1])) else {
        return inner!(original_memory(), alloc, device, desc, out);
    };
    if is(Fault::LongStruct) && size > AllocDesc::SIZE {
        return Error::invalid(format!("flagos_alloc_desc_t has size {size}, as the planted fault does not want it")).into_status();
    }
    let mut copy = desc;
    let mut whole;
    let short = is(Fault::ShortStruct) && size < AllocDesc::SIZE;
    if short || is(Fault::NonzeroTail) && size > AllocDesc::SIZE || is(Fault::WrongKind) && kind != AllocDesc::KIND {
        // SAFETY: the struct has the bytes it states, or the cases that try this fault have memory behind it.
        whole = unsafe { desc.read() };
        (whole.size, whole.kind) = (AllocDesc::SIZE, AllocDesc::KIND);
        copy = &raw const whole;
    }
    let status = inner!(original_memory(), alloc, device, copy, out);
    // SAFETY: a status belongs to who receives it until it is handed on; a handle that was made has a first word.
    unsafe {
        if is(Fault::StatusWithoutText) && !status.is_null() {
            (*status).message = Str::EMPTY;
        }
        if is(Fault::HandleWord) && status.is_null() {
            (*out).cast::<usize>().write(0);
        }
    }
    status
}

unsafe extern "C" fn map(_: *mut Buffer, out: *mut *mut c_void) -> *mut Status {
    // SAFETY: the caller passes a writable place.
    unsafe { out.write(Box::leak(vec![0u8; 1 << 20].into_boxed_slice()).as_mut_ptr().cast()) };
    core::ptr::null_mut()
}

unsafe extern "C" fn query(device: *mut Device, op: *const Op, level: u32, out: *mut Support) -> *mut Status {
    // SAFETY: the caller passes NULL or a descriptor.
    let unknown = unsafe { op.as_ref() }.is_some_and(|op| {
        let operator = by_id(op.id);
        // SAFETY: the descriptor's arrays hold as many entries as it states.
        let mut inputs = (0..usize::from(op.n_in)).map(|i| unsafe { &*op.inputs.add(i) });
        is(Fault::UnknownOperator) && operator.is_none() || is(Fault::UnknownDtype) && inputs.any(|t: &Tensor| !t.dtype.is_known())
    });
    let status = known(op, |op| inner!(original_op(), query, device, op, level, out));
    if unknown && !out.is_null() {
        // SAFETY: the caller passes a struct that reaches at least to its answer.
        unsafe { (*out).answer = Answer::YES.0 };
    }
    status
}

unsafe extern "C" fn plan(device: *mut Device, op: *const Op, limits: *const PlanLimits, out: *mut *mut Plan) -> *mut Status {
    known(op, |op| inner!(original_op(), plan, device, op, limits, out))
}

/// Passes a descriptor on, without the attributes that its operator does not have where the fault wants it.
fn known(op: *const Op, call: impl FnOnce(*const Op) -> *mut Status) -> *mut Status {
    // SAFETY: the caller passes NULL or a descriptor whose arrays hold as many entries as it states.
    let Some(given) = (unsafe { op.as_ref() }).filter(|_| is(Fault::UnknownAttribute)) else { return call(op) };
    // SAFETY: as above.
    let mut attrs: Vec<_> = (0..given.n_attr as usize).map(|i| unsafe { *given.attrs.add(i) }).collect();
    attrs.retain(|a| KEYS.get(a.key as usize).is_some());
    call(&Op { n_attr: attrs.len() as u32, attrs: attrs.as_ptr(), ..*given })
}
