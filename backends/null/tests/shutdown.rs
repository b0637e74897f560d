//! After shutdown slots are refused, and what was made before can be destroyed. A process of its own: shutdown is for ever.

mod support;

use flagos_backend_api::{Code, DeviceInfo, StreamDesc};
use support::{Backend, call, code, sized};

#[test]
fn shutdown_is_idempotent_and_final() {
    let b = Backend::open();
    let (stream, buffer, event) = (b.stream(), b.buffer(64), b.event());
    let mut out = core::ptr::null_mut();
    let kept = call!(b.device_table(), open, 9, &mut out).unwrap_err();
    call!(b.table, shutdown).unwrap();
    call!(b.table, shutdown).unwrap();
    let mut made = core::ptr::null_mut();
    assert_eq!(code(call!(b.device_table(), info, b.device, &mut sized!(DeviceInfo))), Code::FAILED_PRECONDITION);
    assert_eq!(code(call!(b.streams(), create, b.device, &sized!(StreamDesc), &mut made)), Code::FAILED_PRECONDITION);
    assert_eq!(code(call!(b.memory(), fill, stream, buffer, 0, [1u8].as_ptr().cast(), 1, 64)), Code::FAILED_PRECONDITION);
    assert_eq!(kept.code, Code::NOT_FOUND);
    call!(b.memory(), free, buffer).unwrap();
    call!(b.streams(), event_destroy, event).unwrap();
    call!(b.streams(), destroy, stream).unwrap();
    call!(b.device_table(), close, b.device).unwrap();
}
