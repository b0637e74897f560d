//! A panic becomes PLUGIN_PANIC, and the backend is out of use afterwards. A process of its own: a poisoned backend stays so.

mod support;

use flagos_backend_api::{Code, DType, DeviceInfo, Tensor};
use flagos_catalog::{Call, find};
use support::{Backend, call, code, sized};

#[test]
fn a_panic_is_told_once_and_poisons() {
    // SAFETY: the only test of this process; nobody reads the environment at the same time.
    unsafe { std::env::set_var("FLAGOS_NULL_FAULT", "panics-in-plan") };
    let b = Backend::open();
    let buffer = b.buffer(64);
    let call = Call::inferred(find("neg").unwrap(), &[Tensor::contiguous(DType::F32, &[4])], DType::F32, &[]).unwrap();
    let panicked = b.plan(&call).unwrap_err();
    assert_eq!(panicked.code, Code::PLUGIN_PANIC);
    assert!(panicked.message.contains("plan panics"), "{panicked}");
    let after = call!(b.device_table(), info, b.device, &mut sized!(DeviceInfo)).unwrap_err();
    assert_eq!(after.code, Code::FAILED_PRECONDITION);
    assert!(after.message.contains("plan panics"), "{after}");
    assert_eq!(code(call!(b.memory(), free, buffer)), Code::OK, "what was made can still be given back");
}
