//! On Vulkan 1.1, where addresses and timelines are extensions. One test: the environment is set before anything else of the process runs.

mod support;

use flagos_backend_vulkan::instance::{Instance, objections};
use support::life::whole_life;
use support::{Backend, call, code};

#[test]
fn the_extensions_of_1_1_do_what_later_versions_took_in() {
    // SAFETY: the only test of this process; no other thread reads the environment yet.
    unsafe {
        std::env::set_var("FLAGOS_VULKAN_VERSION", "1.1");
        std::env::set_var("FLAGOS_VULKAN_VALIDATION", "1");
    }
    let Some(b) = Backend::open() else { return };
    assert_eq!(ash::vk::api_version_minor(Instance::shared().unwrap().version), 1);
    whole_life(&b);
    let newer: Vec<u8> = code::add().iter().enumerate().map(|(i, byte)| if i == 5 { 6 } else { *byte }).collect();
    let refused = b.compile(&newer, "").unwrap_err();
    assert!(refused.message.contains("SPIR-V 1.6"), "{refused}");
    call!(b.device_table(), close, b.device).unwrap();
    objections().expect("a device of 1.1 that was opened, used and closed");
}
