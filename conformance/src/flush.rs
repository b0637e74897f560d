//! Devices that take single-precision subnormals for zeros and say so: their cases hold none, and such a result may be zero.

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::{Array, Data, Instance, for_each_offset};

/// Whether a type's arithmetic is single precision and has its exponents. Halves widen to normal numbers.
fn is_single(t: DType) -> bool {
    t == DType::F32 || t == DType::BF16
}

/// The contents without subnormals: each is the zero of its sign.
pub fn contents(mut instance: Instance) -> Instance {
    for memory in instance.inputs.iter_mut().filter(|m| is_single(m.tensor.dtype)) {
        let (width, origin) = (memory.tensor.dtype.bytes(), memory.origin as i64);
        let bytes = &mut memory.bytes;
        for_each_offset(&memory.tensor, |offset| {
            let at = (origin + offset * width as i64) as usize;
            // The upper half of the last word: sign and exponent, as in both types.
            let high = u16::from_le_bytes([bytes[at + width - 2], bytes[at + width - 1]]);
            if high & 0x7f80 == 0 {
                bytes[at..at + width].fill(0);
                bytes[at + width - 1] = (high >> 8) as u8 & 0x80;
            }
        });
    }
    instance
}

/// Values as such a device may leave them.
pub fn values(mut array: Array, tensor: &Tensor) -> Array {
    if is_single(tensor.dtype)
        && let Data::Float(values) = &mut array.data
    {
        values.iter_mut().filter(|v| v.abs() < f64::from(f32::MIN_POSITIVE)).for_each(|v| *v = 0.0f64.copysign(*v));
    }
    array
}

#[cfg(test)]
mod tests {
    use flagos_catalog::{Cases, Fill, assignments, operators};

    use super::*;

    #[test]
    fn subnormals_alone_become_zeros_of_their_sign() {
        let o = operators().iter().find(|o| o.name == "neg").unwrap();
        let case = Cases::of(o).into_iter().find(|c| c.inputs[0].fill == Fill::Special).unwrap();
        for t in [DType::F32, DType::BF16, DType::F64] {
            let types = assignments(o).into_iter().find(|a| a.inputs[0] == t).unwrap();
            let before = case.instance(o, &types, 1).unwrap();
            let after = contents(before.clone());
            let read = |i: &Instance| Array::decode(&i.inputs[0].tensor, &i.inputs[0].bytes, i.inputs[0].origin).unwrap();
            let (Data::Float(a), Data::Float(b)) = (read(&before).data, read(&after).data) else { panic!("{t} is no float") };
            let mut changed = 0;
            for (a, b) in a.iter().zip(&b) {
                let subnormal = *a != 0.0 && a.abs() < f64::from(f32::MIN_POSITIVE) && t != DType::F64;
                assert!(if subnormal { *b == 0.0 && a.is_sign_negative() == b.is_sign_negative() } else { a.to_bits() == b.to_bits() || a.is_nan() }, "{a:e} became {b:e}");
                changed += usize::from(subnormal);
            }
            assert_eq!(changed > 0, t != DType::F64, "{t}");
        }
    }
}
