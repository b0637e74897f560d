//! The validation layer watches a whole life of a device and has nothing to say; when it has, it becomes an error.
//! One test: the environment is set before anything else of the process runs.

mod support;

use ash::vk;
use flagos_backend_vulkan::instance::{Instance, objections};
use support::life::whole_life;
use support::{Backend, call};

#[test]
fn the_layer_has_nothing_to_say_and_is_heard_when_it_has() {
    // SAFETY: the only test of this process; no other thread reads the environment yet.
    unsafe { std::env::set_var("FLAGOS_VULKAN_VALIDATION", "1") };
    let Some(b) = Backend::open() else { return };
    whole_life(&b);
    call!(b.device_table(), close, b.device).unwrap();
    objections().expect("a device that was opened, used and closed");
    provoke();
    let heard = objections().expect_err("a queue priority of 2 is against the specification");
    assert!(heard.message.contains("riorit"), "{heard}");
    objections().expect("told once, forgotten");
}

/// A call that is wrong and does no harm.
fn provoke() {
    let instance = Instance::shared().unwrap();
    let priorities = [2.0];
    let families = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&families);
    // SAFETY: the instance and its devices are alive; the structs live for the calls.
    unsafe {
        let physical = instance.raw.enumerate_physical_devices().unwrap()[0];
        if let Ok(device) = instance.raw.create_device(physical, &info, None) {
            device.destroy_device(None);
        }
    }
}
