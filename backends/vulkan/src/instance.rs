//! The Vulkan loader and instance, opened at the first probe, and what the validation layer says.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ash::vk;
use flagos_backend_api::{Code, Error, LogLevel, Result};

use crate::env;

/// The error of a Vulkan call, with the code that routes it.
pub fn failed(what: &str, result: vk::Result) -> Error {
    let code = match result {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_TOO_MANY_OBJECTS => Code::RESOURCE_EXHAUSTED,
        vk::Result::ERROR_DEVICE_LOST => Code::DEVICE_LOST,
        vk::Result::ERROR_INCOMPATIBLE_DRIVER | vk::Result::ERROR_INITIALIZATION_FAILED => Code::UNAVAILABLE,
        _ => Code::INTERNAL,
    };
    Error::new(code, format!("{what}: {result:?}")).with_native("vulkan", i64::from(result.as_raw()))
}

/// Locks, whatever happened to the holder before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The instance all devices of this process share.
pub struct Instance {
    /// Instance functions.
    pub raw: ash::Instance,
    /// Version asked for: the loader's, at most 1.3.
    pub version: u32,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    process: u32,
}

static SHARED: Mutex<Option<Arc<Instance>>> = Mutex::new(None);
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

const LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// The loader. It is never closed: drivers keep threads and handlers of their own.
fn entry() -> Result<&'static ash::Entry> {
    static ENTRY: OnceLock<std::result::Result<ash::Entry, String>> = OnceLock::new();
    // SAFETY: opens libvulkan.so.1, the system's own loader, whose initialisers are as trustworthy as the system.
    let entry = ENTRY.get_or_init(|| unsafe { ash::Entry::load() }.map_err(|e| e.to_string()));
    entry.as_ref().map_err(|e| Error::new(Code::UNAVAILABLE, format!("there is no Vulkan loader (package libvulkan1 or vulkan-loader): {e}")))
}

/// The loader of a process that has an instance.
pub fn loader() -> &'static ash::Entry {
    entry().expect("an instance exists, so the loader was opened")
}

impl Instance {
    /// The instance of this process; made at the first call, and anew in a forked child.
    pub fn shared() -> Result<Arc<Instance>> {
        let mut shared = lock(&SHARED);
        if let Some(instance) = shared.as_ref().filter(|i| i.process == std::process::id()) {
            return Ok(instance.clone());
        }
        let made = Arc::new(Instance::new()?);
        // An instance from before a fork is the parent's: its driver threads do not exist here, so it is left alone.
        core::mem::forget(shared.replace(made.clone()));
        Ok(made)
    }

    /// Lets go of the instance; it ends with the last device.
    pub fn release() {
        *lock(&SHARED) = None;
    }

    fn new() -> Result<Instance> {
        let entry = entry()?;
        // SAFETY: no arguments; asks the loader.
        let loader = unsafe { entry.try_enumerate_instance_version() }.map_err(|e| failed("asking the Vulkan loader for its version", e))?;
        let wish = env::version().map_or(vk::API_VERSION_1_3, |(major, minor)| vk::make_api_version(0, major, minor, 0));
        let version = loader.unwrap_or(vk::API_VERSION_1_0).min(vk::API_VERSION_1_3).min(wish);
        if version < vk::API_VERSION_1_1 {
            return Err(Error::new(Code::UNAVAILABLE, format!("Vulkan 1.1 is needed; the loader, or {}, allows only 1.0", env::VERSION)));
        }
        let validation = env::flag(env::VALIDATION, false);
        let (layers, extensions) = if validation { watched(entry)? } else { (Vec::new(), Vec::new()) };
        let application = vk::ApplicationInfo::default().application_name(c"libflagos").engine_name(c"libflagos").api_version(version);
        let mut debug = messenger_info();
        let checks = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&checks);
        let mut info = vk::InstanceCreateInfo::default().application_info(&application).enabled_layer_names(&layers).enabled_extension_names(&extensions);
        if validation {
            info = info.push_next(&mut debug);
        }
        if extensions.len() > 1 {
            info = info.push_next(&mut features);
        }
        // SAFETY: the structs and names live until the call returns.
        let raw = unsafe { entry.create_instance(&info, None) }.map_err(|e| match e {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => failed("the Vulkan loader found no driver; install the chip's, or mesa-vulkan-drivers", e),
            e => failed("creating a Vulkan instance", e),
        })?;
        let mut instance = Instance { raw, version, messenger: None, process: std::process::id() };
        if validation {
            let calls = ash::ext::debug_utils::Instance::new(entry, &instance.raw);
            // SAFETY: the extension was enabled above; the callback touches statics only.
            let handle = unsafe { calls.create_debug_utils_messenger(&messenger_info(), None) }.map_err(|e| failed("listening to the validation layer", e))?;
            instance.messenger = Some((calls, handle));
        }
        Ok(instance)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the last owner; every device made from it held a share and is gone.
        unsafe {
            if let Some((calls, handle)) = self.messenger.take() {
                calls.destroy_debug_utils_messenger(handle, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}

/// Layers and extensions of a watched instance; an error when the layer is not installed.
fn watched(entry: &ash::Entry) -> Result<(Vec<*const c_char>, Vec<*const c_char>)> {
    // SAFETY: both ask the loader, with a layer name that ends in 0.
    let layers = unsafe { entry.enumerate_instance_layer_properties() }.unwrap_or_default();
    if !layers.iter().any(|l| l.layer_name_as_c_str() == Ok(LAYER)) {
        let text = format!("{} is 1, and {} is not installed (package vulkan-validationlayers)", env::VALIDATION, LAYER.to_string_lossy());
        return Err(Error::new(Code::UNAVAILABLE, text));
    }
    // SAFETY: as above.
    let offered = unsafe { entry.enumerate_instance_extension_properties(Some(LAYER)) }.unwrap_or_default();
    let mut extensions = vec![ash::ext::debug_utils::NAME.as_ptr()];
    if offered.iter().any(|e| e.extension_name_as_c_str() == Ok(ash::ext::validation_features::NAME)) {
        extensions.push(ash::ext::validation_features::NAME.as_ptr());
    }
    Ok((vec![LAYER.as_ptr()], extensions))
}

fn messenger_info() -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(vk::DebugUtilsMessageSeverityFlagsEXT::WARNING | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR)
        .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION | vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE)
        .pfn_user_callback(Some(heard))
}

unsafe extern "system" fn heard(
    _: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    _: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: the layer passes a struct whose text lives for the call.
    let text = unsafe { data.as_ref().and_then(|d| d.message_as_c_str()) }.unwrap_or(c"a message without text").to_string_lossy().into_owned();
    crate::host().log(LogLevel::ERROR, &format!("Vulkan validation: {text}"));
    lock(&MESSAGES).push(text);
    vk::FALSE
}

/// The validation layer's messages since the last call, as an error.
pub fn objections() -> Result<()> {
    let mut messages = lock(&MESSAGES);
    if messages.is_empty() {
        return Ok(());
    }
    let text = format!("{} messages of the validation layer; the first: {}", messages.len(), messages[0]);
    messages.clear();
    Err(Error::new(Code::INTERNAL, text))
}
