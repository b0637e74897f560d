//! What SPIR-V may ask for, and whether a device was opened with it.
#![deny(unsafe_code)]

use ash::vk;
use flagos_backend_api::{Error, Result};

use crate::features::Physical;
use crate::spirv::{Entry, Program};

/// Whether the device offers a capability, with its name; `None` for one no kernel uses.
fn capability(physical: &Physical, number: u32) -> Option<(&'static str, bool)> {
    use vk::SubgroupFeatureFlags as S;
    let (f, subgroup) = (&physical.features, |s: S| physical.properties.subgroup_operations.contains(s));
    let (a, b) = (&f.atomic_float, &f.atomic_float2);
    let floats = &physical.properties.floats;
    let any = |bits: [vk::Bool32; 3]| bits.iter().any(|b| *b != 0);
    let on = |bit: vk::Bool32| bit != 0;
    Some(match number {
        0 => ("Matrix", true),
        1 => ("Shader", true),
        9 => ("Float16", on(f.small.shader_float16)),
        10 => ("Float64", on(f.core.shader_float64)),
        11 => ("Int64", on(f.core.shader_int64)),
        12 => ("Int64Atomics", on(f.atomic64.shader_buffer_int64_atomics)),
        22 => ("Int16", on(f.core.shader_int16)),
        39 => ("Int8", on(f.small.shader_int8)),
        61 => ("GroupNonUniform", subgroup(S::BASIC)),
        62 => ("GroupNonUniformVote", subgroup(S::VOTE)),
        63 => ("GroupNonUniformArithmetic", subgroup(S::ARITHMETIC)),
        64 => ("GroupNonUniformBallot", subgroup(S::BALLOT)),
        65 => ("GroupNonUniformShuffle", subgroup(S::SHUFFLE)),
        66 => ("GroupNonUniformShuffleRelative", subgroup(S::SHUFFLE_RELATIVE)),
        67 => ("GroupNonUniformClustered", subgroup(S::CLUSTERED)),
        68 => ("GroupNonUniformQuad", subgroup(S::QUAD)),
        4428 => ("WorkgroupMemoryExplicitLayoutKHR", on(f.shared_layout.workgroup_memory_explicit_layout)),
        4429 => ("WorkgroupMemoryExplicitLayout8BitAccessKHR", on(f.shared_layout.workgroup_memory_explicit_layout8_bit_access)),
        4430 => ("WorkgroupMemoryExplicitLayout16BitAccessKHR", on(f.shared_layout.workgroup_memory_explicit_layout16_bit_access)),
        4433 => ("StorageBuffer16BitAccess", on(f.storage16.storage_buffer16_bit_access)),
        4434 => ("UniformAndStorageBuffer16BitAccess", on(f.storage16.uniform_and_storage_buffer16_bit_access)),
        4435 => ("StoragePushConstant16", on(f.storage16.storage_push_constant16)),
        4441 => ("VariablePointersStorageBuffer", on(f.variable_pointers.variable_pointers_storage_buffer)),
        4442 => ("VariablePointers", on(f.variable_pointers.variable_pointers)),
        4448 => ("StorageBuffer8BitAccess", on(f.storage8.storage_buffer8_bit_access)),
        4449 => ("UniformAndStorageBuffer8BitAccess", on(f.storage8.uniform_and_storage_buffer8_bit_access)),
        4450 => ("StoragePushConstant8", on(f.storage8.storage_push_constant8)),
        4464 => ("DenormPreserve", any([floats.shader_denorm_preserve_float16, floats.shader_denorm_preserve_float32, floats.shader_denorm_preserve_float64])),
        4465 => ("DenormFlushToZero", any([floats.shader_denorm_flush_to_zero_float16, floats.shader_denorm_flush_to_zero_float32, floats.shader_denorm_flush_to_zero_float64])),
        4466 => (
            "SignedZeroInfNanPreserve",
            any([floats.shader_signed_zero_inf_nan_preserve_float16, floats.shader_signed_zero_inf_nan_preserve_float32, floats.shader_signed_zero_inf_nan_preserve_float64]),
        ),
        4467 => ("RoundingModeRTE", any([floats.shader_rounding_mode_rte_float16, floats.shader_rounding_mode_rte_float32, floats.shader_rounding_mode_rte_float64])),
        4468 => ("RoundingModeRTZ", any([floats.shader_rounding_mode_rtz_float16, floats.shader_rounding_mode_rtz_float32, floats.shader_rounding_mode_rtz_float64])),
        5116 => ("BFloat16TypeKHR", on(f.bfloat16.shader_bfloat16_type)),
        5117 => ("BFloat16DotProductKHR", on(f.bfloat16.shader_bfloat16_dot_product)),
        5118 => ("BFloat16CooperativeMatrixKHR", on(f.bfloat16.shader_bfloat16_cooperative_matrix)),
        5345 => ("VulkanMemoryModel", on(f.memory_model.vulkan_memory_model)),
        5346 => ("VulkanMemoryModelDeviceScope", on(f.memory_model.vulkan_memory_model_device_scope)),
        5347 => ("PhysicalStorageBufferAddresses", on(f.address.buffer_device_address)),
        5612 => ("AtomicFloat32MinMaxEXT", on(b.shader_buffer_float32_atomic_min_max)),
        5613 => ("AtomicFloat64MinMaxEXT", on(b.shader_buffer_float64_atomic_min_max)),
        5616 => ("AtomicFloat16MinMaxEXT", on(b.shader_buffer_float16_atomic_min_max)),
        6016 => ("DotProductInputAll", on(f.dot.shader_integer_dot_product)),
        6017 => ("DotProductInput4x8Bit", on(f.dot.shader_integer_dot_product)),
        6018 => ("DotProductInput4x8BitPacked", on(f.dot.shader_integer_dot_product)),
        6019 => ("DotProduct", on(f.dot.shader_integer_dot_product)),
        6022 => ("CooperativeMatrixKHR", on(f.matrix.cooperative_matrix)),
        6033 => ("AtomicFloat32AddEXT", on(a.shader_buffer_float32_atomic_add)),
        6034 => ("AtomicFloat64AddEXT", on(a.shader_buffer_float64_atomic_add)),
        6095 => ("AtomicFloat16AddEXT", on(b.shader_buffer_float16_atomic_add)),
        _ => return None,
    })
}

/// Extensions of SPIR-V that add only what a capability above stands for, or nothing drivers look at.
const EXTENSIONS: &[&str] = &[
    "SPV_KHR_physical_storage_buffer",
    "SPV_EXT_physical_storage_buffer",
    "SPV_KHR_storage_buffer_storage_class",
    "SPV_KHR_16bit_storage",
    "SPV_KHR_8bit_storage",
    "SPV_KHR_variable_pointers",
    "SPV_KHR_vulkan_memory_model",
    "SPV_KHR_float_controls",
    "SPV_KHR_no_integer_wrap_decoration",
    "SPV_KHR_integer_dot_product",
    "SPV_KHR_workgroup_memory_explicit_layout",
    "SPV_KHR_cooperative_matrix",
    "SPV_KHR_bfloat16",
    "SPV_EXT_shader_atomic_float_add",
    "SPV_EXT_shader_atomic_float16_add",
    "SPV_EXT_shader_atomic_float_min_max",
];

/// Whether a device may be given a module; UNIMPLEMENTED names what it lacks, so that the host tries another kernel.
pub fn check(physical: &Physical, program: &Program) -> Result<()> {
    let device = &physical.properties.name;
    let newest = newest(physical);
    if program.version > newest {
        let (v, n) = (program.version >> 8 & 0xff, newest >> 8 & 0xff);
        return Err(Error::unimplemented(format!("the module is SPIR-V 1.{v}; {device} takes 1.{n} at most")));
    }
    for number in &program.capabilities {
        match capability(physical, *number) {
            Some((_, true)) => {}
            Some((name, false)) => return Err(Error::unimplemented(format!("the module needs the capability {name}, which {device} does not have"))),
            None => return Err(Error::unimplemented(format!("the module needs capability {number}, which this backend does not enable"))),
        }
    }
    for name in &program.extensions {
        let notes = name == "SPV_KHR_non_semantic_info" && physical.offers.knows(vk::API_VERSION_1_3, ash::khr::shader_non_semantic_info::NAME);
        if !notes && !EXTENSIONS.contains(&name.as_str()) {
            return Err(Error::unimplemented(format!("the module needs the extension {name}, which this backend does not enable")));
        }
    }
    program.entries.iter().try_for_each(|e| fits(physical, e))
}

/// Newest SPIR-V the device takes, as major << 16 | minor << 8.
fn newest(physical: &Physical) -> u32 {
    match physical.offers.version {
        v if v >= vk::API_VERSION_1_3 => 0x1_0600,
        v if v >= vk::API_VERSION_1_2 => 0x1_0500,
        _ if physical.offers.knows(u32::MAX, ash::khr::spirv_1_4::NAME) => 0x1_0400,
        _ => 0x1_0300,
    }
}

/// Whether blocks of an entry point fit the device, and its promises about floats can be kept.
fn fits(physical: &Physical, entry: &Entry) -> Result<()> {
    let limits = &physical.properties.core.limits;
    let [x, y, z] = entry.local;
    let threads = u64::from(x) * u64::from(y) * u64::from(z);
    let most = limits.max_compute_work_group_size;
    if threads > u64::from(limits.max_compute_work_group_invocations) || x > most[0] || y > most[1] || z > most[2] {
        let text = format!("'{}' has blocks of {x}×{y}×{z} threads; the device takes {} in all, {most:?} by axis", entry.name, limits.max_compute_work_group_invocations);
        return Err(Error::unimplemented(text));
    }
    if entry.shared_bytes > limits.max_compute_shared_memory_size {
        let text = format!("'{}' takes {} bytes of shared memory; the device has {}", entry.name, entry.shared_bytes, limits.max_compute_shared_memory_size);
        return Err(Error::unimplemented(text));
    }
    for (mode, bits) in &entry.float_modes {
        let f = &physical.properties.floats;
        let (name, by_width) = match mode {
            4459 => ("DenormPreserve", [f.shader_denorm_preserve_float16, f.shader_denorm_preserve_float32, f.shader_denorm_preserve_float64]),
            4460 => ("DenormFlushToZero", [f.shader_denorm_flush_to_zero_float16, f.shader_denorm_flush_to_zero_float32, f.shader_denorm_flush_to_zero_float64]),
            4461 => (
                "SignedZeroInfNanPreserve",
                [f.shader_signed_zero_inf_nan_preserve_float16, f.shader_signed_zero_inf_nan_preserve_float32, f.shader_signed_zero_inf_nan_preserve_float64],
            ),
            4462 => ("RoundingModeRTE", [f.shader_rounding_mode_rte_float16, f.shader_rounding_mode_rte_float32, f.shader_rounding_mode_rte_float64]),
            _ => ("RoundingModeRTZ", [f.shader_rounding_mode_rtz_float16, f.shader_rounding_mode_rtz_float32, f.shader_rounding_mode_rtz_float64]),
        };
        let place = [16, 32, 64].iter().position(|w| w == bits);
        if place.is_none_or(|i| by_width[i] == 0) {
            return Err(Error::unimplemented(format!("'{}' asks for {name} of {bits}-bit floats, which the device does not promise", entry.name)));
        }
    }
    Ok(())
}
