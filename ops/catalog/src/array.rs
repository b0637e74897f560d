//! Host arrays in wide types, and their exact conversion from and to tensors in memory.

use flagos_backend_api::{DType, Error, Result, Tensor};
use half::{bf16, f16};
use num_complex::Complex;

/// Elements in row-major order, in the widest type of their class.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Real floating point.
    Float(Vec<f64>),
    /// Integers and bool.
    Int(Vec<i128>),
    /// Complex.
    Complex(Vec<Complex<f64>>),
}

/// A host array. An absent optional operand has shape `[0]` and no elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: Data,
}

impl Array {
    /// Real elements.
    pub fn float(shape: &[usize], data: Vec<f64>) -> Array {
        Array { shape: shape.to_vec(), data: Data::Float(data) }
    }
    /// Integer elements.
    pub fn int(shape: &[usize], data: Vec<i128>) -> Array {
        Array { shape: shape.to_vec(), data: Data::Int(data) }
    }
    /// Stands for an absent operand.
    pub fn absent() -> Array {
        Array::float(&[0], Vec::new())
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Complex(v) => v.len(),
        }
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Elements as reals: integers converted, complex ones' real parts.
    pub fn floats(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|x| *x as f64).collect(),
            Data::Complex(v) => v.iter().map(|x| x.re).collect(),
        }
    }
    /// Elements as reals of type `to`: those that it does not hold are rounded once.
    pub fn converted(&self, to: DType) -> Vec<f64> {
        let rounded = |x: f64| crate::numerics::round_to(to, x);
        match &self.data {
            Data::Int(v) => v.iter().map(|x| if x.unsigned_abs() < 128 { *x as f64 } else { rounded(int_for(to, *x)) }).collect(),
            _ if to == DType::F64 => self.floats(),
            _ => self.floats().into_iter().map(rounded).collect(),
        }
    }
    /// Elements as integers: reals truncated toward zero.
    pub fn ints(&self) -> Vec<i128> {
        match &self.data {
            Data::Float(v) => v.iter().map(|x| *x as i128).collect(),
            Data::Int(v) => v.clone(),
            Data::Complex(v) => v.iter().map(|x| x.re as i128).collect(),
        }
    }

    /// Reads a tensor. `bytes[origin]` is the first byte of element (0, …, 0).
    pub fn decode(t: &Tensor, bytes: &[u8], origin: usize) -> Result<Array> {
        if t.is_none() {
            return Ok(Array::absent());
        }
        let width = t.dtype.bytes();
        let mut places = Vec::with_capacity(t.elems() as usize);
        for_each_offset(t, |offset| places.push(origin as i64 + offset * width as i64));
        let at = |p: &i64| -> Result<&[u8]> {
            let range = usize::try_from(*p).ok().and_then(|p| bytes.get(p..p + width));
            range.ok_or_else(|| Error::invalid(format!("element at byte {p} lies outside of {} bytes", bytes.len())))
        };
        let data = match class(t.dtype) {
            Class::Float => Data::Float(places.iter().map(|p| Ok(float_of(t.dtype, at(p)?))).collect::<Result<_>>()?),
            Class::Int => Data::Int(places.iter().map(|p| Ok(int_of(t.dtype, at(p)?))).collect::<Result<_>>()?),
            Class::Complex => {
                let part = if t.dtype.bits == 64 { DType::F32 } else { DType::F64 };
                let read = |p: &i64| {
                    let b = at(p)?;
                    Ok(Complex::new(float_of(part, &b[..width / 2]), float_of(part, &b[width / 2..])))
                };
                Data::Complex(places.iter().map(read).collect::<Result<_>>()?)
            }
        };
        Ok(Array { shape: t.shape().iter().map(|n| *n as usize).collect(), data })
    }

    /// Writes the elements into a tensor's memory, rounded once to its type; integers wrap, bool is `!= 0`.
    pub fn encode(&self, t: &Tensor, bytes: &mut [u8], origin: usize) -> Result<()> {
        let width = t.dtype.bytes();
        let mut index = 0;
        let mut fault = None;
        for_each_offset(t, |offset| {
            let at = origin as i64 + offset * width as i64;
            let place = usize::try_from(at).ok().and_then(|p| bytes.get_mut(p..p + width));
            match place {
                Some(place) if index < self.len() => self.put(index, t.dtype, place),
                _ => fault = Some(at),
            }
            index += 1;
        });
        match fault {
            None if index == self.len() => Ok(()),
            None => Err(Error::invalid(format!("{} elements do not fill a tensor of {index}", self.len()))),
            Some(at) => Err(Error::invalid(format!("element {index} at byte {at} lies outside of {} bytes or of the array", bytes.len()))),
        }
    }

    /// One element as bytes of `dtype`.
    pub fn put(&self, index: usize, dtype: DType, place: &mut [u8]) {
        match (&self.data, class(dtype)) {
            (Data::Complex(v), Class::Complex) => {
                let (part, half) = (if dtype.bits == 64 { DType::F32 } else { DType::F64 }, place.len() / 2);
                put_float(part, v[index].re, &mut place[..half]);
                put_float(part, v[index].im, &mut place[half..]);
            }
            (Data::Float(v), Class::Float) => put_float(dtype, v[index], place),
            (Data::Int(v), Class::Float) => put_float(dtype, int_for(dtype, v[index]), place),
            (Data::Int(v), Class::Int) => put_int(dtype, v[index], place),
            (Data::Float(v), Class::Int) if dtype.is_bool() => place[0] = u8::from(v[index] != 0.0),
            (Data::Float(v), Class::Int) => put_int(dtype, v[index] as i128, place),
            (Data::Complex(v), _) => Array::float(&[1], vec![v[index].re]).put(0, dtype, place),
            (_, Class::Complex) => {
                let re = match &self.data {
                    Data::Float(v) => v[index],
                    Data::Int(v) => v[index] as f64,
                    Data::Complex(v) => v[index].re,
                };
                Array { shape: vec![1], data: Data::Complex(vec![Complex::new(re, 0.0)]) }.put(0, dtype, place);
            }
        }
    }
}

#[derive(PartialEq)]
enum Class {
    Float,
    Int,
    Complex,
}

fn class(t: DType) -> Class {
    if t.is_complex() {
        Class::Complex
    } else if t.is_float() {
        Class::Float
    } else {
        Class::Int
    }
}

/// Visits element offsets (in elements, relative to element (0, …, 0)) in row-major order.
pub fn for_each_offset(t: &Tensor, mut visit: impl FnMut(i64)) {
    let (shape, stride) = (t.shape(), t.stride());
    if shape.contains(&0) {
        return;
    }
    let mut index = [0i64; 8];
    let mut offset = 0i64;
    loop {
        visit(offset);
        let mut d = shape.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            offset += stride[d];
            if index[d] < shape[d] {
                break;
            }
            offset -= stride[d] * shape[d];
            index[d] = 0;
        }
    }
}

/// Value of a float of up to 64 bits, exactly.
fn float_of(t: DType, b: &[u8]) -> f64 {
    match (t.code, t.bits) {
        (2, 64) => f64::from_le_bytes(array(b)),
        (2, 32) => f32::from_le_bytes(array(b)).into(),
        (2, 16) => f16::from_le_bytes(array(b)).into(),
        (4, 16) => bf16::from_le_bytes(array(b)).into(),
        (10, _) => small_float(b[0], 3, 7, false),
        _ => small_float(b[0], 2, 15, true),
    }
}

/// An 8-bit float with `m` mantissa bits.
fn small_float(byte: u8, m: u32, bias: i32, has_inf: bool) -> f64 {
    let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
    let (exp, frac) = (i32::from((byte & 0x7f) >> m), f64::from(byte & ((1 << m) - 1)) / f64::from(1u32 << m));
    let top = 0x7f >> m;
    if has_inf && exp == top {
        return if frac == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    if !has_inf && byte & 0x7f == 0x7f {
        return f64::NAN;
    }
    sign * if exp == 0 { frac * 2f64.powi(1 - bias) } else { (1.0 + frac) * 2f64.powi(exp - bias) }
}

fn int_of(t: DType, b: &[u8]) -> i128 {
    match (t.code, t.bits) {
        (0, 8) => i8::from_le_bytes(array(b)).into(),
        (0, 16) => i16::from_le_bytes(array(b)).into(),
        (0, 32) => i32::from_le_bytes(array(b)).into(),
        (0, _) => i64::from_le_bytes(array(b)).into(),
        (6, _) => (b[0] != 0).into(),
        (_, 8) => b[0].into(),
        (_, 16) => u16::from_le_bytes(array(b)).into(),
        (_, 32) => u32::from_le_bytes(array(b)).into(),
        _ => u64::from_le_bytes(array(b)).into(),
    }
}

/// The bytes as an array; `b` has `N` bytes by construction.
fn array<const N: usize>(b: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[..N]);
    out
}

fn put_float(t: DType, v: f64, place: &mut [u8]) {
    match (t.code, t.bits) {
        (2, 64) => place.copy_from_slice(&v.to_le_bytes()),
        (2, 32) => place.copy_from_slice(&(v as f32).to_le_bytes()),
        (2, 16) => place.copy_from_slice(&f16::from_f32(rounded_to_odd(v)).to_le_bytes()),
        (4, 16) => place.copy_from_slice(&bf16::from_f32(rounded_to_odd(v)).to_le_bytes()),
        (10, _) => place[0] = nearest_small(v, 3, 7, false),
        _ => place[0] = nearest_small(v, 2, 15, true),
    }
}

/// The f32 at or next to `v` whose last bit tells that something was cut off: rounding it again rounds `v` itself once
/// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008). `half`'s own conversions from f64 round twice or drop bits.
fn rounded_to_odd(v: f64) -> f32 {
    let near = v as f32;
    let wide = f64::from(near);
    if wide == v || v.is_nan() {
        return near;
    }
    let toward_zero = if wide.abs() > v.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(toward_zero | 1)
}

/// An integer as f64, such that rounding it further to `to` is rounding the integer once.
pub(crate) fn int_for(to: DType, v: i128) -> f64 {
    let near = v as f64;
    if to == DType::F64 || near as i128 == v {
        return near;
    }
    let toward_zero = if (near as i128).unsigned_abs() > v.unsigned_abs() { near.to_bits() - 1 } else { near.to_bits() };
    f64::from_bits(toward_zero | 1)
}

/// The nearest 8-bit float, ties to even; overflow gives infinity or, without one, NaN.
fn nearest_small(v: f64, m: u32, bias: i32, has_inf: bool) -> u8 {
    let sign = if v.is_sign_negative() { 0x80 } else { 0 };
    let beyond = if has_inf { (0x7f >> m) << m } else { 0x7f };
    if v.is_nan() {
        return sign | 0x7f;
    }
    let a = v.abs();
    if a.is_infinite() {
        return sign | beyond as u8;
    }
    let top = (beyond - 1) as u8;
    let greatest = small_float(top, m, bias, has_inf);
    let exponent = if a == 0.0 { 1 - bias } else { (libm::ilogb(a)).max(1 - bias) };
    let step = 2f64.powi(exponent - m as i32);
    let rounded = (a / step).round_ties_even() * step;
    if rounded > greatest {
        return sign | beyond as u8;
    }
    let exponent = if rounded == 0.0 { 1 - bias } else { libm::ilogb(rounded).max(1 - bias) };
    let units = (rounded / 2f64.powi(exponent - m as i32)) as u32;
    let bits = if units < 1 << m { units } else { (((exponent + bias) as u32) << m) | (units & ((1 << m) - 1)) };
    sign | bits as u8
}

fn put_int(t: DType, v: i128, place: &mut [u8]) {
    if t.is_bool() {
        place[0] = u8::from(v != 0);
    } else {
        let width = place.len();
        place.copy_from_slice(&v.to_le_bytes()[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_round_trip_keeps_gaps() {
        let t = Tensor::strided(DType::F16, &[2, 3], &[8, 2]);
        let a = Array::float(&[2, 3], vec![1.0, -2.5, 65504.0, 1e-7, f64::INFINITY, -0.0]);
        let mut bytes = vec![0xaa; 64];
        a.encode(&t, &mut bytes, 6).unwrap();
        let back = Array::decode(&t, &bytes, 6).unwrap();
        assert_eq!(back.floats()[..3], [1.0, -2.5, 65504.0]);
        assert_eq!(back.floats()[3], 1.1920928955078125e-7);
        assert!(back.floats()[5].is_sign_negative());
        assert_eq!((bytes[8], bytes[5]), (0xaa, 0xaa));
    }

    #[test]
    fn eight_bit_floats_round_trip() {
        for t in [DType::F8E4M3, DType::F8E5M2] {
            for byte in 0..=255u8 {
                let v = float_of(t, &[byte]);
                let mut out = [0];
                put_float(t, v, &mut out);
                assert!(v.is_nan() || out[0] == byte, "{t} {byte:#x} → {v} → {:#x}", out[0]);
            }
        }
    }

    #[test]
    fn narrow_floats_are_rounded_once() {
        // Just above the midpoint of two neighbours, by less than f32 or a truncated f64 can tell.
        for (t, low, step) in [(DType::BF16, 0.640625, 2f64.powi(-8)), (DType::F16, 0.5, 2f64.powi(-11))] {
            for (nudge, up) in [(2f64.powi(-30), 1.0), (-2f64.powi(-30), 0.0)] {
                assert_eq!(crate::numerics::round_to(t, low + step / 2.0 + nudge), low + step * up, "{t}");
                assert_eq!(crate::numerics::round_to(t, -(low + step / 2.0 + nudge)), -(low + step * up), "{t}");
            }
        }
        assert!(crate::numerics::round_to(DType::F16, 1e300).is_infinite() && crate::numerics::round_to(DType::BF16, -1e-300) == 0.0);
    }

    #[test]
    fn integers_wrap_and_out_of_range_is_an_error() {
        let t = Tensor::contiguous(DType::I8, &[1]);
        let mut b = [0];
        Array::int(&[1], vec![200]).encode(&t, &mut b, 0).unwrap();
        assert_eq!(Array::decode(&t, &b, 0).unwrap().ints(), [-56]);
        assert!(Array::decode(&t, &b, 1).is_err());
    }
}
