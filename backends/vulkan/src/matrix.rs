//! Shapes of the matrix units (VK_KHR_cooperative_matrix) as the device table lists them.

use ash::vk;
use flagos_backend_api::DType;

use crate::features::{COMPONENT_BFLOAT16, Physical};
use crate::instance::Instance;

/// (m, n, k, dtype) of every shape of subgroup scope whose two factors have one type, with sums in f32 (f64 for f64, i32 for integers).
pub fn shapes(instance: &Instance, physical: &Physical) -> Vec<u32> {
    if physical.features.matrix.cooperative_matrix == 0 {
        return Vec::new();
    }
    let calls = ash::khr::cooperative_matrix::Instance::new(crate::instance::loader(), &instance.raw);
    // SAFETY: the device is of this live instance and offers the extension.
    let listed = unsafe { calls.get_physical_device_cooperative_matrix_properties(physical.raw) }.unwrap_or_default();
    let bf16 = physical.features.bfloat16.shader_bfloat16_cooperative_matrix != 0;
    let mut shapes: Vec<[u32; 4]> = Vec::new();
    for p in listed.iter().filter(|p| p.scope == vk::ScopeKHR::SUBGROUP && p.a_type == p.b_type && p.c_type == p.result_type && p.saturating_accumulation == 0) {
        let Some((dtype, sum)) = types(p.a_type).filter(|(t, _)| *t != DType::BF16 || bf16) else { continue };
        let shape = [p.m_size, p.n_size, p.k_size, word(dtype)];
        if p.c_type == sum && !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes.concat()
}

/// The element type of a factor, and the type its sums have.
fn types(component: vk::ComponentTypeKHR) -> Option<(DType, vk::ComponentTypeKHR)> {
    use vk::ComponentTypeKHR as C;
    Some(match component {
        C::FLOAT16 => (DType::F16, C::FLOAT32),
        C::FLOAT32 => (DType::F32, C::FLOAT32),
        C::FLOAT64 => (DType::F64, C::FLOAT64),
        C::SINT8 => (DType::I8, C::SINT32),
        C::UINT8 => (DType::U8, C::UINT32),
        COMPONENT_BFLOAT16 => (DType::BF16, C::FLOAT32),
        _ => return None,
    })
}

/// The four bytes of a type, in memory order.
fn word(t: DType) -> u32 {
    u32::from(t.code) | u32::from(t.bits) << 8 | u32::from(t.lanes) << 16
}
