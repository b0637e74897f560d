//! The environment variables of this backend, read as `secure_getenv` would.
#![deny(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

/// `1`: the Khronos validation layer watches every call, and whatever it says becomes an error.
pub const VALIDATION: &str = "FLAGOS_VULKAN_VALIDATION";
/// `0`: compiled pipelines are neither read from nor written to disk.
pub const PIPELINE_CACHE: &str = "FLAGOS_VULKAN_PIPELINE_CACHE";

/// Newest Vulkan version to use, such as `1.1`: for drivers whose newer parts fail, and for tests.
pub const VERSION: &str = "FLAGOS_VULKAN_VERSION";

/// Newest Vulkan version to use, as (major, minor).
pub fn version() -> Option<(u32, u32)> {
    let text = var(VERSION)?.into_string().ok()?;
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A variable; `None` when it is not set or the process has more rights than its user.
pub fn var(name: &str) -> Option<OsString> {
    if elevated() { None } else { std::env::var_os(name) }
}

/// Whether a flag is `1`; `default` when it is not set.
pub fn flag(name: &str, default: bool) -> bool {
    var(name).map_or(default, |v| v == "1")
}

/// Where compiled pipelines are kept: a folder of this backend's own under the host's cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    if !flag(PIPELINE_CACHE, true) {
        return None;
    }
    let base = var("FLAGOS_CACHE_DIR").map(PathBuf::from).or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache/flagos")))?;
    base.is_absolute().then(|| base.join("vulkan"))
}

fn elevated() -> bool {
    // SAFETY: takes no pointers and cannot fail.
    #[allow(unsafe_code)]
    unsafe {
        libc::getauxval(libc::AT_SECURE) != 0
    }
}
