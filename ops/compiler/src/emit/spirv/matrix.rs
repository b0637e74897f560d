//! Fragments of the matrix unit, through SPV_KHR_cooperative_matrix.

use spirv::{Capability, CooperativeMatrixLayout, CooperativeMatrixOperands, CooperativeMatrixUse, MemoryAccess, Op, Scope};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::thread::{Role, Shared, Ty, Val};

impl Emitter<'_> {
    /// Component type of a fragment.
    fn component(&mut self, elem: Elem) -> Result<Id> {
        Ok(match elem {
            Elem::F16 if self.device.half => self.m.float(16),
            Elem::BF16 => {
                self.m.capability(Capability::BFloat16TypeKHR);
                self.m.capability(Capability::BFloat16CooperativeMatrixKHR);
                self.m.extension("SPV_KHR_bfloat16");
                self.m.global(Op::TypeFloat, None, &[16, 0])
            }
            Elem::F32 => self.m.f32,
            Elem::F64 if self.device.double => self.m.float(64),
            Elem::I32 => self.m.u32,
            Elem::I8 if self.device.int8 => {
                self.m.capability(Capability::Int8);
                self.m.integer(8)
            }
            other => return unsupported("tt.dot", format!("kernel '{}' has fragments of {other}, which the device's kernels cannot hold", self.kernel.name)),
        })
    }

    /// Type of a kind of fragment.
    pub(super) fn fragment(&mut self, kind: u32) -> Result<Id> {
        let info = self.kernel.fragments[kind as usize];
        if !self.device.memory_model {
            return unsupported("tt.dot", format!("kernel '{}' uses the matrix unit, which needs the Vulkan memory model", self.kernel.name));
        }
        // Extended alignment rules of cooperative matrices rely on the Vulkan memory model.
        for (capability, extension) in [(Capability::CooperativeMatrixKHR, "SPV_KHR_cooperative_matrix"), (Capability::VulkanMemoryModel, "SPV_KHR_vulkan_memory_model")] {
            self.m.capability(capability);
            self.m.extension(extension);
        }
        self.m.capability(Capability::VulkanMemoryModelDeviceScope);
        let shape = info.shape;
        let (elem, rows, columns, role) = match info.role {
            Role::A => (shape.factor, shape.m, shape.k, CooperativeMatrixUse::MatrixAKHR),
            Role::B => (shape.factor, shape.k, shape.n, CooperativeMatrixUse::MatrixBKHR),
            Role::Sum => (shape.sum, shape.m, shape.n, CooperativeMatrixUse::MatrixAccumulatorKHR),
        };
        let part = self.component(elem)?;
        let all = [Scope::Subgroup as u32, rows, columns, role as u32].map(|n| self.m.c32(n));
        Ok(self.m.global(Op::TypeCooperativeMatrixKHR, None, &[part, all[0], all[1], all[2], all[3]]))
    }

    fn fragment_place(&mut self, array: Shared, index: Val, stride: u32) -> (Id, Id) {
        let index = self.id(index);
        (self.shared_place(array, index, 0), self.m.c32(stride))
    }

    /// A fragment out of shared memory.
    pub(super) fn fragment_load(&mut self, ty: Ty, array: Shared, index: Val, stride: u32, transposed: bool) -> Result<Id> {
        let ty = self.ty(ty)?;
        let (place, stride) = self.fragment_place(array, index, stride);
        let layout = if transposed { CooperativeMatrixLayout::ColumnMajorKHR } else { CooperativeMatrixLayout::RowMajorKHR };
        let layout = self.m.c32(layout as u32);
        Ok(self.m.op(Op::CooperativeMatrixLoadKHR, ty, &[place, layout, stride, MemoryAccess::NONE.bits()]))
    }

    /// a·b + c.
    pub(super) fn fragment_mul_add(&mut self, ty: Ty, parts: [Id; 3]) -> Result<Id> {
        let signed = matches!(ty, Ty::Fragment(i) if self.kernel.fragments[i as usize].shape.sum.is_int());
        let ty = self.ty(ty)?;
        let mut operands = parts.to_vec();
        if signed {
            use CooperativeMatrixOperands as O;
            let all = O::MATRIX_A_SIGNED_COMPONENTS_KHR | O::MATRIX_B_SIGNED_COMPONENTS_KHR | O::MATRIX_C_SIGNED_COMPONENTS_KHR | O::MATRIX_RESULT_SIGNED_COMPONENTS_KHR;
            operands.push(all.bits());
        }
        Ok(self.m.op(Op::CooperativeMatrixMulAddKHR, ty, &operands))
    }

    /// A fragment into shared memory.
    pub(super) fn fragment_store(&mut self, fragment: Val, array: Shared, index: Val, stride: u32) -> Result<()> {
        let (place, stride) = self.fragment_place(array, index, stride);
        let layout = self.m.c32(CooperativeMatrixLayout::RowMajorKHR as u32);
        self.m.effect(Op::CooperativeMatrixStoreKHR, &[place, self.id(fragment), layout, stride, MemoryAccess::NONE.bits()]);
        Ok(())
    }
}
