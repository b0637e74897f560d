//! The BLAS oracle: compensated f64 and complex f64 sums, exact integers.

use flagos_backend_api::{BlasDesc, BlasDiag, BlasRoutine, BlasSide, BlasTrans, BlasUplo, Error, Result};
use num_complex::Complex;

use super::views;
use crate::sum::Sum;
use crate::{Array, Data, Reference, View};

type C = Complex<f64>;

/// alpha and beta as `flagos_launch_t` passes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scalars {
    /// `None`: NULL, which means 1.
    pub alpha: Option<C>,
    /// `None`: NULL, which means 0.
    pub beta: Option<C>,
}

/// What each written operand holds afterwards: pairs of (binding, reference in the shape of its view). `inputs` has an array per binding, decoded
/// by [`views`]; those of operands only written are not looked at. `check` has passed.
///
/// Magnitudes are Σ|aᵢ||bᵢ| in the 1-norm of complex numbers. trsm: M(T)⁻¹·(|T||x| + |alpha·b|) with the comparison matrix M(T), which bounds
/// |T⁻¹||T||x| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., thm. 8.5 and section 8.3).
///
/// # Errors
/// INVALID_ARGUMENT for an unknown routine or arrays that do not fit the views.
pub fn reference(d: &BlasDesc, scalars: Scalars, inputs: &[Array]) -> Result<Vec<(usize, Reference)>> {
    let views = views(d);
    let fits = |(v, a): (&View, &Array)| !v.reads || a.shape.iter().map(|n| *n as i64).eq(v.tensor.shape().iter().copied());
    let Some(out) = views.iter().position(|v| v.writes).filter(|_| inputs.len() == views.len() && views.iter().zip(inputs).all(fits)) else {
        return Err(Error::invalid(format!("{}: the reference takes one array per binding, shaped like its view", super::symbol(d))));
    };
    let shape: Vec<usize> = views[out].tensor.shape().iter().map(|n| *n as usize).collect();
    if d.dtype.is_int() {
        return Ok(vec![(out, Reference::exact(Array::int(&shape, integer_gemm(d, scalars, inputs))))]);
    }
    let job = Job {
        d,
        data: inputs.iter().map(complexes).collect(),
        shapes: inputs.iter().map(|a| a.shape.clone()).collect(),
        alpha: scalars.alpha.unwrap_or(C::ONE),
        beta: scalars.beta.unwrap_or(C::ZERO),
        complex: d.dtype.is_complex(),
    };
    let count: usize = shape.iter().product();
    // Elements of one problem.
    let per: usize = shape[1..].iter().product();
    let n = d.n as usize;
    let (values, terms) = match BlasRoutine(d.routine) {
        BlasRoutine::AXPY => (job.each(count, |i| job.finish(job.product(C::ONE, job.data[0][i]), C::ONE, job.data[1][i])), 1),
        BlasRoutine::SCAL => (job.each(count, |i| job.product(job.alpha, job.data[0][i]).result()), 1),
        BlasRoutine::DOT | BlasRoutine::DOTC => {
            let conjugate = d.routine == BlasRoutine::DOTC.0;
            let dot = |b: usize| {
                let mut y = job.sum();
                for k in 0..n {
                    let x = job.data[0][b * n + k];
                    y.add(if conjugate { x.conj() } else { x }, job.data[1][b * n + k]);
                }
                y.result()
            };
            (job.each(count, dot), n)
        }
        BlasRoutine::NRM2 => (job.each(count, |b| norm(&job.data[0][b * n..(b + 1) * n])), n),
        BlasRoutine::ASUM => {
            let sum = |b: usize| {
                let total = job.data[0][b * n..(b + 1) * n].iter().flat_map(|z| [z.re.abs(), z.im.abs()]).collect::<Sum>().value();
                (C::new(total, 0.0), total)
            };
            (job.each(count, sum), n)
        }
        BlasRoutine::GEMV if d.m == 0 || d.n == 0 => return Ok(vec![(out, Reference::exact(inputs[out].clone()))]),
        BlasRoutine::GEMV => {
            let k = job.shapes[1][1];
            let row = |flat: usize| {
                let (b, i) = (flat / per, flat % per);
                let mut sum = job.sum();
                (0..k).for_each(|l| sum.add(job.op(0, d.trans_a, b, i, l), job.data[1][b * k + l]));
                job.finish(sum, job.beta, job.data[2][flat])
            };
            (job.each(count, row), k)
        }
        BlasRoutine::GEMM => {
            let element = |flat: usize| {
                let (b, i, j) = (flat / per, flat % per / n, flat % n);
                let mut sum = job.sum();
                (0..d.k as usize).for_each(|l| sum.add(job.op(0, d.trans_a, b, i, l), job.op(1, d.trans_b, b, l, j)));
                job.finish(sum, job.beta, job.data[2][flat])
            };
            (job.each(count, element), d.k as usize)
        }
        BlasRoutine::TRSM => (job.solve(count), if d.side == BlasSide::LEFT.0 { d.m as usize } else { n }),
        other => return Err(Error::unimplemented(format!("BLAS routine {other} has no reference"))),
    };
    let (values, scale): (Vec<C>, Vec<f64>) = values.into_iter().unzip();
    let data = if views[out].tensor.dtype.is_complex() { Data::Complex(values) } else { Data::Float(values.iter().map(|z| z.re).collect()) };
    // Beyond the products: rounding alpha and beta, their products, the sum, a division or root.
    Ok(vec![(out, Reference::scaled(Array { shape, data }, scale, if job.complex { 2 * terms + 6 } else { terms + 3 }))])
}

struct Job<'a> {
    d: &'a BlasDesc,
    data: Vec<Vec<C>>,
    shapes: Vec<Vec<usize>>,
    alpha: C,
    beta: C,
    complex: bool,
}

/// A sum of products with its magnitude. Real sums leave imaginary parts alone, where infinities would make NaN.
#[derive(Clone, Copy)]
struct Products {
    re: Sum,
    im: Sum,
    scale: f64,
    complex: bool,
}

fn size(z: C) -> f64 {
    z.re.abs() + z.im.abs()
}

impl Products {
    fn add(&mut self, a: C, b: C) {
        self.re.add_product(a.re, b.re);
        if self.complex {
            self.re.add_product(-a.im, b.im);
            self.im.add_product(a.re, b.im);
            self.im.add_product(a.im, b.re);
        }
        self.scale += size(a) * size(b);
    }
    fn value(&self) -> C {
        C::new(self.re.value(), self.im.value())
    }
    fn result(self) -> (C, f64) {
        (self.value(), self.scale)
    }
}

impl Job<'_> {
    fn sum(&self) -> Products {
        Products { re: Sum::default(), im: Sum::default(), scale: 0.0, complex: self.complex }
    }

    fn each(&self, count: usize, f: impl Fn(usize) -> (C, f64)) -> Vec<(C, f64)> {
        (0..count).map(f).collect()
    }

    fn product(&self, a: C, b: C) -> Products {
        let mut sum = self.sum();
        sum.add(a, b);
        sum
    }

    /// Element (i, j) of op(matrix) in problem b.
    fn op(&self, operand: usize, trans: u32, b: usize, i: usize, j: usize) -> C {
        let (rows, columns) = (self.shapes[operand][1], self.shapes[operand][2]);
        let (r, c) = if trans == BlasTrans::NO_TRANS.0 { (i, j) } else { (j, i) };
        let z = self.data[operand][(b * rows + r) * columns + c];
        if trans == BlasTrans::CONJ_TRANS.0 { z.conj() } else { z }
    }

    /// alpha·sum + factor·old; factors of 0 hide what they multiply.
    fn finish(&self, sum: Products, factor: C, old: C) -> (C, f64) {
        let mut y = self.sum();
        if self.alpha != C::ZERO {
            y.add(self.alpha, sum.value());
            y.scale = size(self.alpha) * sum.scale;
        }
        if factor != C::ZERO {
            y.add(factor, old);
        }
        y.result()
    }

    /// Substitution; the right side is solved as op(A)ᵀ·Xᵀ = alpha·Bᵀ.
    fn solve(&self, count: usize) -> Vec<(C, f64)> {
        let d = self.d;
        let left = d.side == BlasSide::LEFT.0;
        let (m, n) = (d.m as usize, d.n as usize);
        let (order, columns) = if left { (m, n) } else { (n, m) };
        let turned = (d.trans_a != BlasTrans::NO_TRANS.0) == left;
        let upper = (d.uplo == BlasUplo::UPPER.0) != turned;
        let unit = d.diag == BlasDiag::UNIT.0;
        let mut out = vec![(C::ZERO, 0.0); count];
        if self.alpha == C::ZERO {
            return out;
        }
        for b in 0..d.batch as usize {
            let t = |i: usize, j: usize| match (unit && i == j, left) {
                (true, _) => C::ONE,
                (_, true) => self.op(0, d.trans_a, b, i, j),
                (_, false) => self.op(0, d.trans_a, b, j, i),
            };
            let place = |i: usize, c: usize| if left { (b * m + i) * n + c } else { (b * m + c) * n + i };
            for c in 0..columns {
                for step in 0..order {
                    let i = if upper { order - 1 - step } else { step };
                    let done = if upper { i + 1..order } else { 0..i };
                    let mut sum = self.sum();
                    sum.add(self.alpha, self.data[1][place(i, c)]);
                    let mut carried = 0.0;
                    for j in done {
                        let (x, z) = out[place(j, c)];
                        sum.add(-t(i, j), x);
                        carried += size(t(i, j)) * z;
                    }
                    let pivot = t(i, i);
                    let x = if self.complex { sum.value() / pivot } else { C::new(sum.value().re / pivot.re, 0.0) };
                    let scale = (sum.scale + size(pivot) * size(x) + carried) / pivot.norm();
                    out[place(i, c)] = (x, scale);
                }
            }
        }
        out
    }
}

/// Euclidean norm through a power of two near the greatest part, so that squares neither overflow nor vanish.
fn norm(x: &[C]) -> (C, f64) {
    let parts = || x.iter().flat_map(|z| [z.re, z.im]);
    let greatest = parts().fold(0.0, |a: f64, b| if b.is_nan() || a.is_nan() { f64::NAN } else { a.max(b.abs()) });
    let value = if greatest == 0.0 || !greatest.is_finite() {
        greatest
    } else {
        let e = libm::ilogb(greatest);
        let mut sum = Sum::default();
        parts().map(|p| libm::scalbn(p, -e)).for_each(|p| sum.add_product(p, p));
        libm::scalbn(sum.value().sqrt(), e)
    };
    (C::new(value, 0.0), value)
}

fn complexes(a: &Array) -> Vec<C> {
    match &a.data {
        Data::Complex(v) => v.clone(),
        _ => a.floats().into_iter().map(|re| C::new(re, 0.0)).collect(),
    }
}

/// gemm over integers, wrapping; alpha and beta by their integer parts.
fn integer_gemm(d: &BlasDesc, scalars: Scalars, inputs: &[Array]) -> Vec<i128> {
    let (a, b, c) = (inputs[0].ints(), inputs[1].ints(), inputs[2].ints());
    let (alpha, beta) = (scalars.alpha.map_or(1, |z| z.re as i128), scalars.beta.map_or(0, |z| z.re as i128));
    let (m, n, k) = (d.m as usize, d.n as usize, d.k as usize);
    let plain = |trans: u32| trans == BlasTrans::NO_TRANS.0;
    let element = |flat: usize| {
        let (p, i, j) = (flat / (m * n), flat / n % m, flat % n);
        let left = |l: usize| a[p * m * k + if plain(d.trans_a) { i * k + l } else { l * m + i }];
        let right = |l: usize| b[p * k * n + if plain(d.trans_b) { l * n + j } else { j * k + l }];
        let old = if beta == 0 { 0 } else { beta * c[flat] };
        alpha * (0..k).map(|l| left(l) * right(l)).sum::<i128>() + old
    };
    (0..d.batch as usize * m * n).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blas::{descriptor, routine};
    use flagos_backend_api::BlasOrder;

    fn desc(r: BlasRoutine, types: usize) -> BlasDesc {
        let r = routine(r.0).unwrap();
        descriptor(r, &r.types[types])
    }
    fn reals(shape: &[usize], v: &[f64]) -> Array {
        Array::float(shape, v.to_vec())
    }
    fn value(d: &BlasDesc, scalars: Scalars, inputs: &[Array]) -> Array {
        super::super::check(d).unwrap();
        reference(d, scalars, inputs).unwrap().remove(0).1.value
    }

    #[test]
    fn norms_survive_the_ends_of_the_range() {
        let d = BlasDesc { n: 2, ..desc(BlasRoutine::NRM2, 1) };
        let norm = |x: [f64; 2]| value(&d, Scalars::default(), &[reals(&[1, 2], &x), Array::absent()]).floats()[0];
        assert_eq!(norm([3e300, -4e300]), 5e300);
        assert_eq!(norm([3.0 * 2f64.powi(-1070), 4.0 * 2f64.powi(-1070)]), 5.0 * 2f64.powi(-1070));
        assert!(norm([f64::INFINITY, f64::NAN]).is_nan());
        assert_eq!(norm([f64::NEG_INFINITY, 1.0]), f64::INFINITY);
    }

    #[test]
    fn conjugated_dot_and_complex_magnitudes() {
        let z = |re, im| C::new(re, im);
        let x = Array { shape: vec![1, 2], data: Data::Complex(vec![z(1.0, 2.0), z(0.0, 1.0)]) };
        let dot = |r| {
            let d = BlasDesc { n: 2, ..desc(r, if r == BlasRoutine::DOT { 3 } else { 1 }) };
            match value(&d, Scalars::default(), &[x.clone(), x.clone(), Array::absent()]).data {
                Data::Complex(v) => v[0],
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(dot(BlasRoutine::DOTC), z(6.0, 0.0));
        assert_eq!(dot(BlasRoutine::DOT), z(-4.0, 4.0));
        let d = BlasDesc { n: 2, ..desc(BlasRoutine::ASUM, 3) };
        assert_eq!(value(&d, Scalars::default(), &[x.clone(), Array::absent()]).floats(), [4.0]);
    }

    #[test]
    fn zero_factors_hide_nan_and_missing_ones_default() {
        let one = BlasDesc { m: 1, n: 1, k: 1, lda: 1, ldb: 1, ldc: 1, ..desc(BlasRoutine::GEMM, 1) };
        let d = BlasDesc { order: BlasOrder::COL_MAJOR.0, trans_a: 111, trans_b: 111, ..one };
        let (nan, two) = (reals(&[1, 1, 1], &[f64::NAN]), reals(&[1, 1, 1], &[2.0]));
        assert_eq!(value(&d, Scalars::default(), &[two.clone(), two.clone(), nan.clone()]).floats(), [4.0]);
        let zero_alpha = Scalars { alpha: Some(C::ZERO), beta: Some(C::new(3.0, 0.0)) };
        assert_eq!(value(&d, zero_alpha, &[nan.clone(), two.clone(), two.clone()]).floats(), [6.0]);
        assert!(value(&d, Scalars { alpha: None, beta: Some(C::ONE) }, &[two.clone(), two, nan]).floats()[0].is_nan());
    }

    #[test]
    fn triangular_solutions_satisfy_their_equation_on_every_side() {
        for (side, uplo, trans, unit) in (0..16u32).map(|i| (141 + i / 8, 121 + i / 4 % 2, 111 + i / 2 % 2, i % 2 == 1)) {
            let order = if side == 141 { 2 } else { 3 };
            let d = BlasDesc {
                order: 101,
                side,
                uplo,
                trans_a: trans,
                diag: if unit { 132 } else { 131 },
                m: 2,
                n: 3,
                lda: order as i64,
                ldb: 3,
                ..desc(BlasRoutine::TRSM, 1)
            };
            let kept = |i: usize, j: usize| if uplo == 121 { i <= j } else { i >= j };
            let entry = |i: usize, j: usize| if kept(i, j) { (2 + i + 3 * j) as f64 } else { f64::NAN };
            let t = |i: usize, j: usize| match () {
                () if unit && i == j => 1.0,
                () if kept(i, j) => entry(i, j),
                () => 0.0,
            };
            let stored: Vec<f64> = (0..order * order).map(|f| entry(f / order, f % order)).collect();
            let b = [1.0, -2.0, 3.0, 0.5, 4.0, -1.0];
            let twice = Scalars { alpha: Some(C::new(2.0, 0.0)), beta: None };
            let x = value(&d, twice, &[reals(&[1, order, order], &stored), reals(&[1, 2, 3], &b)]).floats();
            let op = |i: usize, j: usize| if trans == 111 { t(i, j) } else { t(j, i) };
            for (flat, want) in b.iter().enumerate() {
                let (i, j) = (flat / 3, flat % 3);
                let got: f64 = (0..order).map(|k| if side == 141 { op(i, k) * x[k * 3 + j] } else { x[i * 3 + k] * op(k, j) }).sum();
                assert!((got - 2.0 * want).abs() < 1e-12, "side {side} uplo {uplo} trans {trans} unit {unit}: {got} for {}", 2.0 * want);
            }
        }
    }
}
