//! The FFT oracle: mixed-radix decimation in time (Cooley and Tukey 1965) in double-double arithmetic.
//!
//! Prime lengths are summed directly. Results are within one rounding to f64, about 2⁻⁵³ relative to the transform's norm: a bound on an f64
//! transform, K·u·log2 n, is not blurred by the oracle. Time grows with n times the sum of n's prime factors.

use flagos_backend_api::{Error, FftDesc, FftDirection, FftKind, Result};
use num_complex::Complex;

use super::views;
use crate::double::{ComplexDouble, Double};
use crate::shape::split;
use crate::{Array, Data, Reference};

/// The output of a call on an input decoded by the input's view. `check` has passed.
///
/// # Errors
/// INVALID_ARGUMENT for an input that does not fit its view.
pub fn reference(d: &FftDesc, input: &Array) -> Result<Reference> {
    let views = views(d);
    let shape = |i: usize| views[i].tensor.shape().iter().map(|n| *n as usize).collect::<Vec<_>>();
    if input.shape != shape(0) || matches!(input.data, Data::Complex(_)) != views[0].tensor.dtype.is_complex() {
        return Err(Error::invalid(format!("fft.{}: the input has shape {:?}, its view {:?}", super::name(d.transform), input.shape, shape(0))));
    }
    let mut data: Vec<ComplexDouble> = match &input.data {
        Data::Complex(v) => v.iter().map(|z| ComplexDouble { re: z.re.into(), im: z.im.into() }).collect(),
        _ => input.floats().into_iter().map(|x| ComplexDouble { re: x.into(), im: Double::default() }).collect(),
    };
    let sign = if d.direction == FftDirection::INVERSE.0 { 1 } else { -1 };
    let (mut own, last) = (input.shape.clone(), d.rank as usize);
    if d.transform == FftKind::R2C.0 {
        data = along(&data, &mut own, last, sign, |_| {});
        data = narrowed(&data, &mut own, last, d.n[last - 1] as usize / 2 + 1);
    }
    for axis in 1..last {
        data = along(&data, &mut own, axis, sign, |_| {});
    }
    match FftKind(d.transform) {
        FftKind::C2C => data = along(&data, &mut own, last, sign, |_| {}),
        FftKind::C2R => {
            let n = d.n[last - 1] as usize;
            data = along(&data, &mut own, last, sign, |row| hermitian(row, n));
        }
        _ => {}
    }
    let scale = Double::from(d.scale);
    let parts = data.iter().map(|z| Complex::new((z.re * scale).hi, (z.im * scale).hi));
    let data = if views[1].tensor.dtype.is_complex() { Data::Complex(parts.collect()) } else { Data::Float(parts.map(|z| z.re).collect()) };
    Ok(Reference { numerics: Some(super::NUMERICS), ..Reference::new(Array { shape: shape(1), data }) })
}

/// Transforms one axis; `prepare` may lengthen each row first.
fn along(data: &[ComplexDouble], shape: &mut [usize], axis: usize, sign: i64, prepare: impl Fn(&mut Vec<ComplexDouble>)) -> Vec<ComplexDouble> {
    let (outer, n, inner) = split(shape, axis);
    let row = |o: usize, i: usize| {
        let mut row: Vec<ComplexDouble> = (0..n).map(|j| data[(o * n + j) * inner + i]).collect();
        prepare(&mut row);
        row
    };
    let mut probe = vec![ComplexDouble::default(); n];
    prepare(&mut probe);
    let length = probe.len();
    shape[axis] = length;
    let roots: Vec<ComplexDouble> = (0..length as i64).map(|k| ComplexDouble::root(sign * k, length as i64)).collect();
    let mut out = vec![ComplexDouble::default(); outer * length * inner];
    for o in 0..outer {
        for i in 0..inner {
            for (j, z) in transform(&row(o, i), 1, 0, length, &roots).into_iter().enumerate() {
                out[(o * length + j) * inner + i] = z;
            }
        }
    }
    out
}

/// Transform of the `n` elements `x[first + j·step]`; `roots` holds exp(±2πi k/N) for the whole length N = n·step.
fn transform(x: &[ComplexDouble], step: usize, first: usize, n: usize, roots: &[ComplexDouble]) -> Vec<ComplexDouble> {
    if n == 1 {
        return vec![x[first]];
    }
    let p = (2..).find(|p| n.is_multiple_of(*p) || p * p > n).filter(|p| n.is_multiple_of(*p)).unwrap_or(n);
    let m = n / p;
    let parts: Vec<Vec<ComplexDouble>> = (0..p).map(|r| transform(x, step * p, first + r * step, m, roots)).collect();
    let element = |k: usize| (1..p).fold(parts[0][k % m], |sum, r| sum + parts[r][k % m] * roots[r * k % n * step]);
    (0..n).map(element).collect()
}

/// Keeps the first `count` elements along an axis.
fn narrowed(data: &[ComplexDouble], shape: &mut [usize], axis: usize, count: usize) -> Vec<ComplexDouble> {
    let (_, n, inner) = split(shape, axis);
    shape[axis] = count;
    data.iter().enumerate().filter(|(flat, _)| flat / inner % n < count).map(|(_, z)| *z).collect()
}

/// The whole spectrum of a real sequence of length `n` from its half.
fn hermitian(row: &mut Vec<ComplexDouble>, n: usize) {
    row[0].im = Double::default();
    if n.is_multiple_of(2) {
        row[n / 2].im = Double::default();
    }
    for k in n / 2 + 1..n {
        row.push(row[n - k].conj());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fft::descriptor;
    use crate::{Fill, Rng, contents};
    use flagos_backend_api::DType;

    type C = Complex<f64>;

    fn complex(shape: &[usize], v: &[(f64, f64)]) -> Array {
        Array { shape: shape.to_vec(), data: Data::Complex(v.iter().map(|(re, im)| C::new(*re, *im)).collect()) }
    }
    fn run(d: &FftDesc, x: &Array) -> Array {
        reference(d, x).unwrap().value
    }
    fn close(a: &Array, b: &Array, within: f64) {
        let parts = |a: &Array| match &a.data {
            Data::Complex(v) => v.clone(),
            _ => a.floats().into_iter().map(|x| C::new(x, 0.0)).collect(),
        };
        assert_eq!(a.shape, b.shape);
        assert!(parts(a).iter().zip(parts(b)).all(|(x, y)| (x - y).norm() < within), "{a:?}\n{b:?}");
    }
    fn random(dtype: DType, shape: &[i64]) -> Array {
        contents(Fill::Normal, dtype, shape, &mut Rng(5))
    }

    #[test]
    fn four_points_by_hand() {
        let d = descriptor(FftKind::C2C, DType::F64, &[4]);
        let x = complex(&[1, 4], &[(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 1.0)]);
        assert_eq!(run(&d, &x), complex(&[1, 4], &[(10.0, 1.0), (-3.0, 2.0), (-2.0, -1.0), (-1.0, -2.0)]));
        let back = FftDesc { direction: 2, scale: 0.25, ..d };
        assert_eq!(run(&back, &run(&d, &x)), x);
    }

    #[test]
    fn energy_is_kept_and_the_inverse_returns() {
        for n in [1i64, 2, 6, 17, 30, 64, 97] {
            let d = descriptor(FftKind::C2C, DType::F64, &[n]);
            let x = random(DType::C128, &[1, n]);
            let y = run(&d, &x);
            let energy = |a: &Array| match &a.data {
                Data::Complex(v) => v.iter().map(|z| z.norm_sqr()).sum::<f64>(),
                _ => 0.0,
            };
            assert!((energy(&y) / energy(&x) / n as f64 - 1.0).abs() < 1e-14, "Parseval at {n}");
            close(&run(&FftDesc { direction: 2, scale: 1.0 / n as f64, ..d }, &y), &x, 1e-14);
        }
    }

    #[test]
    fn axes_factor_into_one_dimensional_sums() {
        let d = descriptor(FftKind::C2C, DType::F64, &[2, 3]);
        let x = random(DType::C128, &[1, 2, 3]);
        let Data::Complex(v) = &x.data else { panic!() };
        let bin = |k: usize, l: usize| {
            let term = |(flat, z): (usize, &C)| z * C::cis(-core::f64::consts::TAU * ((flat / 3 * k) as f64 / 2.0 + (flat % 3 * l) as f64 / 3.0));
            v.iter().enumerate().map(term).sum::<C>()
        };
        let want = Array { shape: vec![1, 2, 3], data: Data::Complex((0..6).map(|f| bin(f / 3, f % 3)).collect()) };
        close(&run(&d, &x), &want, 1e-13);
    }

    #[test]
    fn real_transforms_are_half_of_the_complex_ones_and_return() {
        for n in [&[1i64][..], &[2], &[7], &[8], &[3, 4], &[4, 5], &[2, 3, 6]] {
            let d = descriptor(FftKind::R2C, DType::F64, n);
            let shape = [&[1], n].concat();
            let x = random(DType::F64, &shape);
            let half = run(&d, &x);
            let points = n.iter().product::<i64>() as f64;
            close(&run(&FftDesc { scale: 1.0 / points, ..descriptor(FftKind::C2R, DType::F64, n) }, &half), &x, 1e-14);
            let wide = Array { shape: x.shape.clone(), data: Data::Complex(x.floats().into_iter().map(|v| C::new(v, 0.0)).collect()) };
            let Data::Complex(full) = run(&descriptor(FftKind::C2C, DType::F64, n), &wide).data else { panic!() };
            let (last, cut) = (n[n.len() - 1] as usize, n[n.len() - 1] as usize / 2 + 1);
            let kept: Vec<C> = full.into_iter().enumerate().filter(|(i, _)| i % last < cut).map(|(_, z)| z).collect();
            close(&half, &Array { shape: half.shape.clone(), data: Data::Complex(kept) }, 1e-13);
        }
    }

    #[test]
    fn c2r_ignores_the_imaginary_ends() {
        let d = descriptor(FftKind::C2R, DType::F64, &[4]);
        let clean = complex(&[1, 3], &[(1.0, 0.0), (2.0, 3.0), (4.0, 0.0)]);
        let dirty = complex(&[1, 3], &[(1.0, 9.0), (2.0, 3.0), (4.0, -7.0)]);
        assert_eq!(run(&d, &clean).floats(), [9.0, -9.0, 1.0, 3.0]);
        assert_eq!(run(&d, &dirty), run(&d, &clean));
    }
}
