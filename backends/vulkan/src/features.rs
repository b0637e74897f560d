//! What a physical device offers: extensions and features, read once, and enabled where kernels may use them.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_void};

use ash::vk;
use flagos_backend_api::Result;

use crate::instance::{Instance, failed};

/// VkPhysicalDeviceShaderBfloat16FeaturesKHR (VK_KHR_shader_bfloat16), which is younger than the bindings' headers.
#[repr(C)]
pub struct Bfloat16Features {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    /// Values and conversions.
    pub shader_bfloat16_type: vk::Bool32,
    /// Dot products.
    pub shader_bfloat16_dot_product: vk::Bool32,
    /// Cooperative matrices.
    pub shader_bfloat16_cooperative_matrix: vk::Bool32,
}

/// Name of VK_KHR_shader_bfloat16.
const BFLOAT16: &CStr = c"VK_KHR_shader_bfloat16";
/// VK_COMPONENT_TYPE_BFLOAT16_KHR.
pub const COMPONENT_BFLOAT16: vk::ComponentTypeKHR = vk::ComponentTypeKHR::from_raw(1_000_141_000);

impl Default for Bfloat16Features {
    fn default() -> Self {
        Bfloat16Features {
            s_type: vk::StructureType::from_raw(1_000_141_000),
            p_next: core::ptr::null_mut(),
            shader_bfloat16_type: 0,
            shader_bfloat16_dot_product: 0,
            shader_bfloat16_cooperative_matrix: 0,
        }
    }
}

/// Declares the feature structs with the version that took each in and the extension that offers it before.
macro_rules! features {
    ($( $field:ident: $T:ty, since $version:expr, or $extension:expr; )*) => {
        /// Feature structs; those the device does not know stay zero.
        #[derive(Default)]
        pub struct Features {
            /// The features of Vulkan 1.0.
            pub core: vk::PhysicalDeviceFeatures,
            $( #[allow(missing_docs)] pub $field: $T, )*
        }

        impl Features {
            /// Links the structs the device knows into a chain; they must not move while the chain is in use.
            fn link(&mut self, offers: &Offers) -> *mut c_void {
                let mut head: *mut c_void = core::ptr::null_mut();
                $(
                    self.$field.p_next = core::ptr::null_mut();
                    if offers.knows($version, $extension) {
                        self.$field.p_next = head;
                        head = (&raw mut self.$field).cast();
                    }
                )*
                head
            }
        }

        /// Extensions that are enabled where the core version does not include them.
        const EXTENSIONS: &[(u32, &CStr)] = &[$(($version, $extension)),*];
    };
}

const NEVER: u32 = u32::MAX;

features! {
    storage16: vk::PhysicalDevice16BitStorageFeatures<'static>, since vk::API_VERSION_1_1, or ash::khr::_16bit_storage::NAME;
    variable_pointers: vk::PhysicalDeviceVariablePointersFeatures<'static>, since vk::API_VERSION_1_1, or ash::khr::variable_pointers::NAME;
    storage8: vk::PhysicalDevice8BitStorageFeatures<'static>, since vk::API_VERSION_1_2, or ash::khr::_8bit_storage::NAME;
    small: vk::PhysicalDeviceShaderFloat16Int8Features<'static>, since vk::API_VERSION_1_2, or ash::khr::shader_float16_int8::NAME;
    atomic64: vk::PhysicalDeviceShaderAtomicInt64Features<'static>, since vk::API_VERSION_1_2, or ash::khr::shader_atomic_int64::NAME;
    address: vk::PhysicalDeviceBufferDeviceAddressFeatures<'static>, since vk::API_VERSION_1_2, or ash::khr::buffer_device_address::NAME;
    timeline: vk::PhysicalDeviceTimelineSemaphoreFeatures<'static>, since vk::API_VERSION_1_2, or ash::khr::timeline_semaphore::NAME;
    memory_model: vk::PhysicalDeviceVulkanMemoryModelFeatures<'static>, since vk::API_VERSION_1_2, or ash::khr::vulkan_memory_model::NAME;
    subgroup_types: vk::PhysicalDeviceShaderSubgroupExtendedTypesFeatures<'static>, since vk::API_VERSION_1_2, or ash::khr::shader_subgroup_extended_types::NAME;
    scalar_layout: vk::PhysicalDeviceScalarBlockLayoutFeatures<'static>, since vk::API_VERSION_1_2, or ash::ext::scalar_block_layout::NAME;
    subgroup_size: vk::PhysicalDeviceSubgroupSizeControlFeatures<'static>, since vk::API_VERSION_1_3, or ash::ext::subgroup_size_control::NAME;
    dot: vk::PhysicalDeviceShaderIntegerDotProductFeatures<'static>, since vk::API_VERSION_1_3, or ash::khr::shader_integer_dot_product::NAME;
    maintenance4: vk::PhysicalDeviceMaintenance4Features<'static>, since vk::API_VERSION_1_3, or ash::khr::maintenance4::NAME;
    zero_shared: vk::PhysicalDeviceZeroInitializeWorkgroupMemoryFeatures<'static>, since vk::API_VERSION_1_3, or ash::khr::zero_initialize_workgroup_memory::NAME;
    atomic_float: vk::PhysicalDeviceShaderAtomicFloatFeaturesEXT<'static>, since NEVER, or ash::ext::shader_atomic_float::NAME;
    atomic_float2: vk::PhysicalDeviceShaderAtomicFloat2FeaturesEXT<'static>, since NEVER, or ash::ext::shader_atomic_float2::NAME;
    shared_layout: vk::PhysicalDeviceWorkgroupMemoryExplicitLayoutFeaturesKHR<'static>, since NEVER, or ash::khr::workgroup_memory_explicit_layout::NAME;
    matrix: vk::PhysicalDeviceCooperativeMatrixFeaturesKHR<'static>, since NEVER, or ash::khr::cooperative_matrix::NAME;
    bfloat16: Bfloat16Features, since NEVER, or BFLOAT16;
}

/// Extensions without a feature struct of their own, enabled where the core version does not include them.
const PLAIN: &[(u32, &CStr)] = &[
    (vk::API_VERSION_1_2, ash::khr::shader_float_controls::NAME),
    (vk::API_VERSION_1_2, ash::khr::spirv_1_4::NAME),
    (vk::API_VERSION_1_2, ash::khr::driver_properties::NAME),
    (vk::API_VERSION_1_3, ash::khr::shader_non_semantic_info::NAME),
    (NEVER, ash::ext::memory_budget::NAME),
];

/// Version and extensions of a device.
pub struct Offers {
    /// Version usable here: the device's, at most the instance's.
    pub version: u32,
    extensions: HashSet<CString>,
}

impl Offers {
    fn has(&self, extension: &CStr) -> bool {
        self.extensions.contains(extension)
    }
    /// Whether something is there, in the core version or as an extension.
    pub fn knows(&self, since: u32, extension: &CStr) -> bool {
        self.version >= since || self.has(extension)
    }
}

/// Numbers of a device.
pub struct Properties {
    /// Product name.
    pub name: String,
    /// Driver name and version.
    pub driver: String,
    /// Limits and ids of Vulkan 1.0.
    pub core: vk::PhysicalDeviceProperties,
    /// Unique id.
    pub uuid: [u8; 16],
    /// PCI address as in the probe; all ones when unknown.
    pub pci: u64,
    /// Usual, smallest and greatest subgroup size.
    pub subgroup: (u32, u32, u32),
    /// Subgroup operations kernels may use.
    pub subgroup_operations: vk::SubgroupFeatureFlags,
    /// Most subgroups of a block when a size is asked for; 0: a size cannot be asked for.
    pub max_subgroups: u32,
    /// Rounding, subnormals, NaN: what can be promised.
    pub floats: vk::PhysicalDeviceFloatControlsProperties<'static>,
    /// Greatest single allocation in bytes.
    pub max_allocation_bytes: u64,
    /// Greatest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Multiprocessors, as far as the driver says; 0: unknown.
    pub compute_units: u32,
}

/// A physical device and all that is known of it.
pub struct Physical {
    /// Its handle.
    pub raw: vk::PhysicalDevice,
    /// Version and extensions.
    pub offers: Offers,
    /// What it can.
    pub features: Features,
    /// How much of it.
    pub properties: Properties,
    /// Memory heaps and types.
    pub memory: vk::PhysicalDeviceMemoryProperties,
    /// Matrix shapes as (m, n, k, dtype) quadruples.
    pub matrix_shapes: Vec<u32>,
}

// SAFETY: the `p_next` pointers in the feature structs are read only while `link`'s caller holds the struct.
unsafe impl Send for Physical {}
// SAFETY: as above; nothing is changed after `read`.
unsafe impl Sync for Physical {}

impl Physical {
    /// Every device the instance sees, in its order.
    pub fn all(instance: &Instance) -> Result<Vec<Physical>> {
        // SAFETY: the instance is alive.
        let list = unsafe { instance.raw.enumerate_physical_devices() }.map_err(|e| failed("looking for Vulkan devices", e))?;
        list.into_iter().map(|raw| Physical::read(instance, raw)).collect()
    }

    fn read(instance: &Instance, raw: vk::PhysicalDevice) -> Result<Physical> {
        // SAFETY: the handle is of this live instance.
        let core = unsafe { instance.raw.get_physical_device_properties(raw) };
        // SAFETY: as above.
        let listed = unsafe { instance.raw.enumerate_device_extension_properties(raw) }.map_err(|e| failed("listing device extensions", e))?;
        // SAFETY: as above.
        let memory = unsafe { instance.raw.get_physical_device_memory_properties(raw) };
        let extensions = listed.iter().filter_map(|e| Some(e.extension_name_as_c_str().ok()?.to_owned())).collect();
        let offers = Offers { version: core.api_version.min(instance.version), extensions };
        let mut features = Features::default();
        // Vulkan 1.0 devices have no way to say more; they are refused by `shortfall`.
        if offers.version >= vk::API_VERSION_1_1 {
            let mut chain = vk::PhysicalDeviceFeatures2 { p_next: features.link(&offers), ..Default::default() };
            // SAFETY: the chain holds structs this device knows, which live in `features`.
            unsafe { instance.raw.get_physical_device_features2(raw, &mut chain) };
            features.core = chain.features;
            features.trim();
        }
        let properties = if offers.version >= vk::API_VERSION_1_1 { Properties::read(instance, raw, &offers, &features, core) } else { Properties::bare(core) };
        let mut found = Physical { raw, offers, features, properties, memory, matrix_shapes: Vec::new() };
        found.matrix_shapes = crate::matrix::shapes(instance, &found);
        Ok(found)
    }

    /// Why the device cannot be used; `None` when it can.
    pub fn shortfall(&self) -> Option<String> {
        let v = self.offers.version;
        let lacks = if v < vk::API_VERSION_1_1 {
            "Vulkan 1.1"
        } else if self.features.address.buffer_device_address == 0 {
            "buffer device addresses (VK_KHR_buffer_device_address)"
        } else if self.features.timeline.timeline_semaphore == 0 {
            "timeline semaphores (VK_KHR_timeline_semaphore)"
        } else {
            return None;
        };
        Some(format!("the device offers Vulkan {}.{} without {lacks}", vk::api_version_major(v), vk::api_version_minor(v)))
    }

    /// Creates the logical device with `queues` queues of a family, and everything kernels may use enabled.
    pub fn create(&self, instance: &Instance, family: u32, queues: u32) -> Result<ash::Device> {
        let priorities = vec![1.0; queues as usize];
        let families = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities)];
        let names: Vec<*const c_char> = EXTENSIONS.iter().chain(PLAIN).filter(|(since, name)| self.offers.version < *since && self.offers.has(name)).map(|(_, n)| n.as_ptr()).collect();
        let mut features = self.features.clone_values();
        let next = features.link(&self.offers);
        let chain = vk::PhysicalDeviceFeatures2 { p_next: next, features: features.core, ..Default::default() };
        let info = vk::DeviceCreateInfo { p_next: (&raw const chain).cast(), ..vk::DeviceCreateInfo::default().queue_create_infos(&families).enabled_extension_names(&names) };
        // SAFETY: the handle is of this live instance; the chain and lists live until the call returns.
        unsafe { instance.raw.create_device(self.raw, &info, None) }.map_err(|e| failed("opening the Vulkan device", e))
    }
}

impl Features {
    /// Clears what kernels do not use: checks of every access, captures, images.
    fn trim(&mut self) {
        let c = self.core;
        self.core = vk::PhysicalDeviceFeatures { shader_float64: c.shader_float64, shader_int64: c.shader_int64, shader_int16: c.shader_int16, ..Default::default() };
        self.storage16.storage_input_output16 = 0;
        self.address.buffer_device_address_capture_replay = 0;
        self.address.buffer_device_address_multi_device = 0;
        self.matrix.cooperative_matrix_robust_buffer_access = 0;
        let f = &mut self.atomic_float;
        (f.shader_image_float32_atomics, f.shader_image_float32_atomic_add) = (0, 0);
        (f.sparse_image_float32_atomics, f.sparse_image_float32_atomic_add) = (0, 0);
        let f = &mut self.atomic_float2;
        (f.shader_image_float32_atomic_min_max, f.sparse_image_float32_atomic_min_max) = (0, 0);
    }

    fn clone_values(&self) -> Features {
        // SAFETY: the structs are plain numbers but for `p_next`, which `link` sets before anybody follows it.
        unsafe { core::ptr::read(self) }
    }
}

impl Properties {
    fn bare(core: vk::PhysicalDeviceProperties) -> Properties {
        Properties {
            name: text(&core.device_name),
            driver: format!("{:#x}", core.driver_version),
            core,
            uuid: [0; 16],
            pci: u64::MAX,
            subgroup: (0, 0, 0),
            subgroup_operations: vk::SubgroupFeatureFlags::empty(),
            max_subgroups: 0,
            floats: Default::default(),
            max_allocation_bytes: u64::from(u32::MAX),
            max_buffer_bytes: u64::from(u32::MAX),
            compute_units: 0,
        }
    }

    fn read(instance: &Instance, raw: vk::PhysicalDevice, offers: &Offers, features: &Features, core: vk::PhysicalDeviceProperties) -> Properties {
        let (mut id, mut subgroup, mut third) =
            (vk::PhysicalDeviceIDProperties::default(), vk::PhysicalDeviceSubgroupProperties::default(), vk::PhysicalDeviceMaintenance3Properties::default());
        let (mut driver, mut sizes, mut fourth) =
            (vk::PhysicalDeviceDriverProperties::default(), vk::PhysicalDeviceSubgroupSizeControlProperties::default(), vk::PhysicalDeviceMaintenance4Properties::default());
        let (mut pci, mut floats) = (vk::PhysicalDevicePCIBusInfoPropertiesEXT::default(), vk::PhysicalDeviceFloatControlsProperties::default());
        let (mut nv, mut amd) = (vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default(), vk::PhysicalDeviceShaderCorePropertiesAMD::default());
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut id).push_next(&mut subgroup).push_next(&mut third);
        macro_rules! ask {
            ($known:expr, $what:ident) => {
                if $known {
                    all = all.push_next(&mut $what);
                }
            };
        }
        ask!(offers.knows(vk::API_VERSION_1_2, ash::khr::driver_properties::NAME), driver);
        ask!(offers.knows(vk::API_VERSION_1_2, ash::khr::shader_float_controls::NAME), floats);
        ask!(offers.knows(vk::API_VERSION_1_3, ash::ext::subgroup_size_control::NAME), sizes);
        ask!(offers.knows(vk::API_VERSION_1_3, ash::khr::maintenance4::NAME), fourth);
        ask!(offers.has(ash::ext::pci_bus_info::NAME), pci);
        ask!(offers.has(ash::nv::shader_sm_builtins::NAME), nv);
        ask!(offers.has(ash::amd::shader_core_properties::NAME), amd);
        // SAFETY: the chain holds structs this device knows, all alive here.
        unsafe { instance.raw.get_physical_device_properties2(raw, &mut all) };
        floats.p_next = core::ptr::null_mut();
        let (version, named) = (core.driver_version, text(&driver.driver_name));
        let in_compute = subgroup.supported_stages.contains(vk::ShaderStageFlags::COMPUTE);
        let usual = if in_compute { subgroup.subgroup_size } else { 0 };
        let may_ask = features.subgroup_size.subgroup_size_control != 0 && sizes.required_subgroup_size_stages.contains(vk::ShaderStageFlags::COMPUTE);
        let address = |p: &vk::PhysicalDevicePCIBusInfoPropertiesEXT<'_>| {
            u64::from(p.pci_domain) << 16 | u64::from(p.pci_bus) << 8 | u64::from(p.pci_device) << 3 | u64::from(p.pci_function)
        };
        Properties {
            driver: if named.is_empty() { format!("{version:#x}") } else { format!("{named} {}", text(&driver.driver_info)).trim_end().to_owned() },
            uuid: id.device_uuid,
            pci: if offers.has(ash::ext::pci_bus_info::NAME) { address(&pci) } else { u64::MAX },
            subgroup: if may_ask { (usual, sizes.min_subgroup_size, sizes.max_subgroup_size) } else { (usual, usual, usual) },
            subgroup_operations: if in_compute { subgroup.supported_operations } else { vk::SubgroupFeatureFlags::empty() },
            max_subgroups: if may_ask { sizes.max_compute_workgroup_subgroups } else { 0 },
            floats,
            max_allocation_bytes: third.max_memory_allocation_size,
            max_buffer_bytes: if fourth.max_buffer_size > 0 { fourth.max_buffer_size } else { third.max_memory_allocation_size },
            compute_units: nv.shader_sm_count.max(amd.shader_engine_count * amd.shader_arrays_per_engine_count * amd.compute_units_per_shader_array),
            ..Properties::bare(core)
        }
    }
}

/// Text of a fixed-size field.
fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
