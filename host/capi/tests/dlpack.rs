//! DLPack both ways through the C functions: memory is shared, strides and offsets survive, and each owner is told exactly once.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use flagos::calls as c;
use flagos_backend_api::{Code, DType, Error, Op, Result, Status, Tensor};
use flagos_catalog::find;

/// `DLManagedTensorVersioned` as DLPack 1.0 lays it out, written down a second time.
#[repr(C)]
struct Managed {
    major: u32,
    minor: u32,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
    flags: u64,
    data: *mut f32,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

fn ok(status: *mut Status) -> Result<()> {
    // SAFETY: the status was returned just now and is consumed here.
    unsafe { Error::from_status(status) }
}

/// Counts what it is told: the address is in `manager`.
unsafe extern "C" fn count(managed: *mut Managed) {
    // SAFETY: the producer below put a counter's address there.
    unsafe { &*(*managed).manager.cast::<AtomicUsize>() }.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn tensors_come_in_and_go_out_without_a_copy() {
    let (mut context, mut device, mut stream) = (null_mut(), null_mut(), null_mut());
    let told = AtomicUsize::new(0);
    let (mut values, mut shape, mut strides) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [2i64, 3], [1i64, 2]);
    // A 2×3 tensor stored by columns, one element into the memory.
    let mut producer = Managed {
        major: 1,
        minor: 0,
        manager: (&raw const told).cast_mut().cast(),
        deleter: Some(count),
        flags: 0,
        data: values.as_mut_ptr(),
        device_type: 1,
        device_id: 0,
        ndim: 2,
        code: 2,
        bits: 32,
        lanes: 1,
        shape: shape.as_mut_ptr(),
        strides: strides.as_mut_ptr(),
        byte_offset: 4,
    };
    // SAFETY: handles are live between creation and release; out pointers are locals; the producer's memory outlives its buffer.
    unsafe {
        ok(c::flagos_context_create(&mut context)).unwrap();
        ok(c::flagos_device_open(context, c"embedded".as_ptr(), &mut device)).unwrap();
        ok(c::flagos_stream_create(device, 0, 0, &mut stream)).unwrap();

        producer.major = 2;
        let (mut buffer, mut tensor) = (null_mut(), Tensor::NONE);
        let refused = ok(c::flagos_dlpack_import(device, (&raw mut producer).cast(), &mut buffer, &mut tensor)).unwrap_err();
        assert_eq!((refused.code, told.load(Ordering::SeqCst)), (Code::UNIMPLEMENTED, 0), "a refused tensor stays its producer's");
        producer.major = 1;
        ok(c::flagos_dlpack_import(device, (&raw mut producer).cast(), &mut buffer, &mut tensor)).unwrap();
        assert_eq!((tensor.dtype, tensor.shape(), tensor.stride()), (DType::F32, &shape[..], &strides[..]));

        // In place: 2 × each element, in the producer's own memory.
        let add = find("add").unwrap();
        let inputs = [tensor, tensor];
        let op = Op { size: Op::SIZE, id: add.id, revision: add.revision, n_in: 2, n_out: 1, n_attr: 0, flags: 0, inputs: inputs.as_ptr(), outputs: &tensor, attrs: core::ptr::null(), next: core::ptr::null() };
        ok(c::flagos_op_execute(stream, &op)).unwrap();
        ok(c::flagos_stream_sync(stream)).unwrap();

        // Out again: another view of the same memory, alive after the buffer's own handle is gone.
        let mut exported: *mut Managed = null_mut();
        ok(c::flagos_dlpack_export(&tensor, 0, 0, (&raw mut exported).cast())).unwrap();
        ok(c::flagos_buffer_release(buffer)).unwrap();
        assert_eq!(told.load(Ordering::SeqCst), 0, "an export keeps the memory");
        let e = &*exported;
        assert_eq!((e.major, e.device_type, e.ndim, e.code, e.bits, e.lanes), (1, 1, 2, 2, 32, 1));
        assert_eq!((*e.shape.add(1), *e.strides, *e.strides.add(1)), (3, 1, 2));
        let first = e.data.byte_add(e.byte_offset as usize);
        assert_eq!(first, producer.data.byte_add(4));
        assert_eq!((*first, *first.add(5)), (4.0, 14.0));
        (e.deleter.unwrap())(exported);
        assert_eq!(told.load(Ordering::SeqCst), 1, "the last use is over");

        ok(c::flagos_stream_release(stream)).unwrap();
        ok(c::flagos_device_release(device)).unwrap();
        ok(c::flagos_context_release(context)).unwrap();
    }
    assert_eq!(values, [1.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0], "the element before the tensor is untouched");
}
