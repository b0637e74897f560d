//! What a device says of itself: identity, limits, capabilities, and whether it can be used.
#![forbid(unsafe_code)]

use flagos_backend_api::{DeviceKind, caps};

use crate::driver::{Device, cl};

/// CL_DRIVER_VERSION.
const DRIVER_VERSION: u32 = 0x102d;
/// CL_PLATFORM_ICD_SUFFIX_KHR: a short name of the platform.
const PLATFORM_SUFFIX: u32 = 0x0920;
/// cl_khr_device_uuid: CL_DEVICE_UUID_KHR, 16 bytes.
const UUID: u32 = 0x106a;
/// cl_khr_pci_bus_info: CL_DEVICE_PCI_BUS_INFO_KHR, four u32: domain, bus, device, function.
const PCI: u32 = 0x410f;
/// cl_nv_device_attribute_query: compute capability (major, minor) and PCI (bus, slot, domain).
const NV_MAJOR: u32 = 0x4000;
const NV_MINOR: u32 = 0x4001;
const NV_BUS: u32 = 0x4008;
const NV_SLOT: u32 = 0x4009;
const NV_DOMAIN: u32 = 0x400a;
/// cl_amd_device_attribute_query: CL_DEVICE_TOPOLOGY_AMD, 24 bytes that end with bus, device, function.
const AMD_TOPOLOGY: u32 = 0x4037;
/// cl_intel_required_subgroup_size: CL_DEVICE_SUB_GROUP_SIZES_INTEL, a list of `size_t`.
const SUBGROUP_SIZES: u32 = 0x4108;

/// A device's properties.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Product name.
    pub name: String,
    /// Target fingerprint: platform, device or its architecture, driver version, in lower-case words.
    pub arch: String,
    /// Platform and driver, with versions.
    pub driver: String,
    /// Kind of chip.
    pub kind: DeviceKind,
    /// Capability bits.
    pub caps: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Compute units.
    pub compute_units: u32,
    /// Least alignment of buffers in bytes.
    pub alignment_bytes: u32,
    /// Greatest number of threads in a block.
    pub max_block_threads: u32,
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Smallest and greatest subgroup size; zeros when there are none or their sizes are not told.
    pub subgroup: (u32, u32),
    /// Whether f32 division and square root can be had correctly rounded.
    pub rounds_divide: bool,
    /// Unique id; zeros when there is none.
    pub uuid: [u8; 16],
    /// PCI address as in the probe.
    pub pci: u64,
    /// Why the device cannot be used, if so.
    pub unusable: Option<String>,
}

impl Facts {
    /// Asks a device.
    pub fn of(device: Device) -> Facts {
        let extensions = device.text(cl::CL_DEVICE_EXTENSIONS);
        let has = |name: &str| extensions.split_whitespace().any(|e| e == name);
        let name = device.text(cl::CL_DEVICE_NAME);
        let (platform, driver) = (device.platform_text(cl::CL_PLATFORM_NAME), device.text(DRIVER_VERSION));
        let suffix = device.platform_text(PLATFORM_SUFFIX);
        let short = if suffix.is_empty() { &platform } else { &suffix };
        let chip = if has("cl_nv_device_attribute_query") { format!("sm_{}{}", device.number(NV_MAJOR), device.number(NV_MINOR)) } else { name.clone() };
        let kind = device.number(cl::CL_DEVICE_TYPE);
        Facts {
            arch: words(&format!("{short}-{chip}-{driver}")),
            driver: format!("{platform} {driver}, {}", device.text(cl::CL_DEVICE_VERSION)),
            kind: match kind {
                k if k & cl::CL_DEVICE_TYPE_GPU != 0 => DeviceKind::GPU,
                k if k & cl::CL_DEVICE_TYPE_CPU != 0 => DeviceKind::CPU,
                _ => DeviceKind::ACCELERATOR,
            },
            caps: capabilities(device, &has),
            memory_bytes: device.number(cl::CL_DEVICE_GLOBAL_MEM_SIZE),
            compute_units: device.number(cl::CL_DEVICE_MAX_COMPUTE_UNITS) as u32,
            alignment_bytes: (device.number(cl::CL_DEVICE_MEM_BASE_ADDR_ALIGN) as u32 / 8).max(16).next_power_of_two(),
            max_block_threads: device.number(cl::CL_DEVICE_MAX_WORK_GROUP_SIZE) as u32,
            shared_bytes: device.number(cl::CL_DEVICE_LOCAL_MEM_SIZE).min(u32::MAX.into()) as u32,
            subgroup: if has("cl_khr_subgroups") { subgroup_sizes(device) } else { (0, 0) },
            rounds_divide: device.number(cl::CL_DEVICE_SINGLE_FP_CONFIG) & cl::CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT != 0,
            uuid: if has("cl_khr_device_uuid") { device.bytes(UUID).try_into().unwrap_or_default() } else { [0; 16] },
            pci: pci(device, &has),
            unusable: unusable(device),
            name,
        }
    }

    /// The probe's score: below a native backend of the same chip, and below the processor's own backend on processors.
    pub fn score(&self) -> u32 {
        match self.kind {
            _ if self.unusable.is_some() => 0,
            DeviceKind::CPU => 5,
            _ => 40,
        }
    }
}

fn capabilities(device: Device, has: &dyn Fn(&str) -> bool) -> u64 {
    let bit = |present: bool, bit: u64| if present { bit } else { 0 };
    let full = device.text(cl::CL_DEVICE_PROFILE) != "EMBEDDED_PROFILE";
    bit(has("cl_khr_fp16"), caps::FP16)
        | bit(has("cl_khr_fp64") || device.number(cl::CL_DEVICE_DOUBLE_FP_CONFIG) != 0, caps::FP64)
        | bit(full || has("cles_khr_int64"), caps::INT64)
        | bit(has("cl_khr_int64_base_atomics") && has("cl_khr_int64_extended_atomics"), caps::ATOMIC64)
        | bit(device.number(cl::CL_DEVICE_SINGLE_FP_CONFIG) & cl::CL_FP_DENORM == 0, caps::FLUSHES_SUBNORMALS)
}

fn subgroup_sizes(device: Device) -> (u32, u32) {
    let bytes = device.bytes(SUBGROUP_SIZES);
    let sizes = bytes.chunks_exact(8).map(|c| c.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)) as u32);
    sizes.clone().min().zip(sizes.max()).unwrap_or((0, 0))
}

fn pci(device: Device, has: &dyn Fn(&str) -> bool) -> u64 {
    let address = |domain: u64, bus: u64, slot: u64, function: u64| domain << 16 | bus << 8 | slot << 3 | function;
    if has("cl_khr_pci_bus_info") && let [domain, bus, slot, function] = device.bytes(PCI).chunks_exact(4).map(|c| u64::from(u32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect::<Vec<_>>()[..] {
        return address(domain, bus, slot, function);
    }
    if has("cl_nv_device_attribute_query") && !device.bytes(NV_BUS).is_empty() {
        let slot = device.number(NV_SLOT);
        return address(device.number(NV_DOMAIN), device.number(NV_BUS), slot >> 3, slot & 7);
    }
    if has("cl_amd_device_attribute_query") && let [.., bus, slot, function] = device.bytes(AMD_TOPOLOGY)[..] {
        return address(0, bus.into(), slot.into(), function.into());
    }
    u64::MAX
}

fn unusable(device: Device) -> Option<String> {
    let version = device.text(cl::CL_DEVICE_VERSION);
    // "OpenCL 3.0 and what the vendor wants to say"
    let stated = version.split_whitespace().nth(1).and_then(|v| v.split_once('.'));
    let stated = stated.and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    if stated.is_none_or(|v| v < (1, 2)) {
        return Some(format!("the device states version {version:?}; this backend needs OpenCL 1.2"));
    }
    if device.number(cl::CL_DEVICE_ADDRESS_BITS) != 64 || device.number(cl::CL_DEVICE_ENDIAN_LITTLE) == 0 {
        return Some("the device is not a 64-bit little-endian one, which kernels rely on".into());
    }
    if device.number(cl::CL_DEVICE_AVAILABLE) == 0 {
        return Some("its driver says that the device is not available".into());
    }
    if device.number(cl::CL_DEVICE_COMPILER_AVAILABLE) == 0 {
        return Some("its driver has no compiler for OpenCL C".into());
    }
    None
}

/// Lower-case words of letters, digits, '_' and '.', joined by '-'.
fn words(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    text.to_ascii_lowercase().split(|c| !keep(c)).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn fingerprints_are_plain_words() {
        assert_eq!(words("POCL-pthread-Intel(R) Xeon(R) CPU @ 2.0GHz-3.1"), "pocl-pthread-intel-r-xeon-r-cpu-2.0ghz-3.1");
        assert_eq!(words("NV-sm_90-580.95.05"), "nv-sm_90-580.95.05");
    }
}
