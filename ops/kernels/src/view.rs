//! Operands as kernels see them: memory, type, shape, strides.

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::Call;
use flagos_catalog::shape::broadcast_strides;

use crate::Arg;

/// A tensor of a call, or one in the workspace.
#[derive(Clone, Debug)]
pub struct View {
    /// Where element (0, …, 0) is.
    pub arg: Arg,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<i64>,
    /// Strides in elements.
    pub stride: Vec<i64>,
}

impl View {
    fn operand(t: &Tensor, index: usize) -> View {
        let arg = Arg::Operand { index: index as u32, byte_offset: 0 };
        View { arg, dtype: t.dtype, shape: t.shape().to_vec(), stride: t.stride().to_vec() }
    }
    /// Input `index` of a call.
    pub fn input(call: &Call, index: usize) -> View {
        View::operand(&call.inputs[index], index)
    }
    /// Output `index` of a call.
    pub fn output(call: &Call, index: usize) -> View {
        View::operand(&call.outputs[index], call.inputs.len() + index)
    }
    /// A contiguous tensor in the workspace.
    pub fn workspace(byte_offset: u64, dtype: DType, shape: &[i64]) -> View {
        let t = Tensor::contiguous(dtype, shape);
        View { arg: Arg::Workspace { byte_offset }, dtype, shape: shape.to_vec(), stride: t.stride().to_vec() }
    }
    fn tensor(&self) -> Tensor {
        Tensor::strided(self.dtype, &self.shape, &self.stride)
    }
    /// Number of elements.
    pub fn elems(&self) -> i64 {
        self.shape.iter().product()
    }
    /// Strides seen with a shape it broadcasts to.
    pub fn strides_in(&self, shape: &[i64]) -> Vec<i64> {
        broadcast_strides(&self.tensor(), shape)
    }
    /// Row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.tensor().is_contiguous()
    }
    /// The same memory with other axes (extent, stride).
    pub fn with_axes(&self, axes: &[(i64, i64)]) -> View {
        View { shape: axes.iter().map(|a| a.0).collect(), stride: axes.iter().map(|a| a.1).collect(), ..self.clone() }
    }
    /// The view starting `elems` elements further on.
    pub fn offset(&self, elems: i64) -> View {
        let bytes = elems * self.dtype.bytes() as i64;
        let arg = match self.arg {
            Arg::Operand { index, byte_offset } => Arg::Operand { index, byte_offset: byte_offset + bytes },
            Arg::Workspace { byte_offset } => Arg::Workspace { byte_offset: byte_offset.wrapping_add_signed(bytes) },
            other => other,
        };
        View { arg, ..self.clone() }
    }
}
