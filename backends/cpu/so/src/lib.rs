//! The CPU backend as a plugin: the entry symbol over the code of `flagos-backend-cpu`.

use flagos_backend_api::vendor::State;
use flagos_backend_cpu::{Cpu, Identity};

/// The identity of the plugin.
pub struct Plugin;

impl Identity for Plugin {
    const NAME: &'static str = "cpu";
    fn state() -> &'static State {
        static STATE: State = State::new();
        &STATE
    }
}

flagos_backend_api::export_backend!(Cpu<Plugin>);
