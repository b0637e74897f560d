//! Operands of BLAS and FFT calls as strided views, so that they share decoding, spans and judging with operators.

use flagos_backend_api::{Error, Result, Tensor};

use crate::call::{countable, overlaps_itself};
use crate::{Array, Memory, OperandSpan};

/// One operand of a BLAS or FFT call.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Name in texts ("a", "x", "input").
    pub name: &'static str,
    /// Shape (first the batch), strides in elements, type; without memory.
    pub tensor: Tensor,
    /// Elements from the binding to element (0, …, 0); not 0 only for negative increments.
    pub origin: i64,
    /// The call reads it.
    pub reads: bool,
    /// The call writes it.
    pub writes: bool,
}

impl View {
    /// Bytes touched, relative to the binding.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the span does not fit into 63 bits, or elements written overlap.
    pub fn span(&self) -> Result<OperandSpan> {
        let t = &self.tensor;
        let bytes = || {
            let (low, high) = t.extent()?;
            let scale = |n: i64| n.checked_add(if low == high { 0 } else { self.origin })?.checked_mul(t.dtype.bytes() as i64);
            Some((scale(low)?, scale(high)?))
        };
        let too_far = || format!("operand {} of shape {:?} and strides {:?} spans more than 2^63 bytes", self.name, t.shape(), t.stride());
        let (low_bytes, high_bytes) = bytes().ok_or_else(|| Error::invalid(too_far()))?;
        if !countable(t) {
            return Err(Error::invalid(format!("operand {} has shape {:?}, whose extents multiply to more than 2^59", self.name, t.shape())));
        }
        if self.writes && overlaps_itself(&self.forward()) {
            let text = format!("operand {} is written with strides {:?} for shape {:?}: its elements overlap", self.name, t.stride(), t.shape());
            return Err(Error::invalid(text));
        }
        Ok(OperandSpan { low_bytes, high_bytes, reads: self.reads, writes: self.writes })
    }

    /// Memory from the binding on, with all bits set between the elements (NaN to floats), holding `contents` where given.
    pub fn memory(&self, contents: Option<&Array>) -> Result<Memory> {
        let span = self.span()?;
        let width = self.tensor.dtype.bytes();
        let origin = self.origin as usize * width;
        let mut memory = Memory { tensor: self.tensor, origin, bytes: vec![0xff; (span.high_bytes as usize).max(width)] };
        memory.tensor.byte_offset = origin as u64;
        if let Some(contents) = contents {
            contents.encode(&self.tensor, &mut memory.bytes, origin)?;
        }
        Ok(memory)
    }

    /// The same elements with every stride turned positive.
    fn forward(&self) -> Tensor {
        let mut t = self.tensor;
        t.stride.iter_mut().for_each(|s| *s = s.saturating_abs());
        t
    }
}
