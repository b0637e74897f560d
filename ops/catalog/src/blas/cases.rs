//! Cases of BLAS routines.

use flagos_backend_api::{BlasDesc, BlasDiag, BlasOrder, BlasRoutine, BlasSide, BlasTrans, BlasUplo, DType, Result};
use num_complex::Complex;

use super::{ROUTINES, Routine, Scalars, Types, check, descriptor, name, reference, symbol, views};
use crate::{Array, Data, Fill, Memory, Reference, Rng, Tier, View, contents};

const NAN: Fill = Fill::Uniform(f64::NAN, f64::NAN);

/// A case: descriptor, scalars and contents.
#[derive(Clone)]
pub struct BlasCase {
    /// Name within routine and types.
    pub name: String,
    /// When it runs.
    pub tier: Tier,
    /// The call.
    pub desc: BlasDesc,
    /// alpha and beta.
    pub scalars: Scalars,
    /// Contents by binding.
    pub fills: Vec<Fill>,
}

/// A case with memory.
#[derive(Clone)]
pub struct BlasInstance {
    /// `blas.routine/symbol/name`.
    pub id: String,
    /// The call.
    pub desc: BlasDesc,
    /// alpha and beta.
    pub scalars: Scalars,
    /// By binding; `bytes` begins at the binding's address. Elements are set where the call reads, every other bit is 1.
    pub operands: Vec<Memory>,
}

impl BlasCase {
    /// `blas.routine/symbol/name`.
    pub fn id(&self) -> String {
        format!("blas.{}/{}/{}", name(self.desc.routine), symbol(&self.desc), self.name)
    }

    /// Makes the memory; `seed` decides the contents.
    ///
    /// # Errors
    /// Those of [`check`].
    pub fn instance(&self, seed: u64) -> Result<BlasInstance> {
        check(&self.desc)?;
        let id = self.id();
        let mut rng = Rng::named(seed, &id);
        let operand = |(view, fill): (&View, &Fill)| {
            let mut data = contents(*fill, view.tensor.dtype, view.tensor.shape(), &mut rng);
            if self.desc.routine == BlasRoutine::TRSM.0 && view.name == "a" {
                condition(&self.desc, &mut data);
            }
            view.memory(view.reads.then_some(&data))
        };
        let operands = views(&self.desc).iter().zip(&self.fills).map(operand).collect::<Result<_>>()?;
        Ok(BlasInstance { id, desc: self.desc, scalars: self.scalars, operands })
    }
}

impl BlasInstance {
    /// What each written binding holds afterwards: (binding, reference), to be judged against its memory decoded by `operands[binding].tensor`.
    pub fn reference(&self) -> Result<Vec<(usize, Reference)>> {
        let inputs = self.operands.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin)).collect::<Result<Vec<_>>>()?;
        reference(&self.desc, self.scalars, &inputs)
    }
}

/// Makes a triangle that is well conditioned, and everything the routine must not read NaN.
fn condition(d: &BlasDesc, a: &mut Array) {
    let n = a.shape[1];
    let diagonal = |z: f64| if d.diag == BlasDiag::UNIT.0 { f64::NAN } else { z + 1.5f64.copysign(z) };
    let upper = d.uplo == BlasUplo::UPPER.0;
    let place = |flat: usize, z: f64| {
        let (i, j) = (flat / n % n, flat % n);
        if i == j { diagonal(z) } else if (i < j) == upper { z * 2.0 / n as f64 } else { f64::NAN }
    };
    match &mut a.data {
        Data::Complex(v) => v.iter_mut().enumerate().for_each(|(i, z)| *z = Complex::new(place(i, z.re), place(i, z.im))),
        Data::Float(v) => v.iter_mut().enumerate().for_each(|(i, z)| *z = place(i, *z)),
        Data::Int(_) => {}
    }
}

/// Every case of every routine in every type.
pub fn cases() -> Vec<BlasCase> {
    let mut list = List(Vec::new());
    for r in ROUTINES {
        for t in r.types {
            match r.routine {
                BlasRoutine::GEMV => list.gemv(r, t),
                BlasRoutine::GEMM => list.gemm(r, t),
                BlasRoutine::TRSM => list.trsm(r, t),
                _ => list.vectors(r, t),
            }
        }
    }
    list.0
}

struct List(Vec<BlasCase>);

/// Scalars that take part in every routine; integers for integer types.
fn usual(t: &Types) -> Scalars {
    let (alpha, beta) = match t.compute_dtype {
        t if t.is_complex() => (Complex::new(0.75, -0.5), Complex::new(-1.5, 0.25)),
        t if t.is_int() => (Complex::new(3.0, 0.0), Complex::new(-2.0, 0.0)),
        _ => (Complex::new(0.75, 0.0), Complex::new(-1.5, 0.0)),
    };
    Scalars { alpha: Some(alpha), beta: Some(beta) }
}

fn real(alpha: f64, beta: f64) -> Scalars {
    Scalars { alpha: Some(Complex::new(alpha, 0.0)), beta: Some(Complex::new(beta, 0.0)) }
}

/// op codes that differ for the type.
fn ops(t: &Types) -> &'static [(BlasTrans, &'static str)] {
    const ALL: &[(BlasTrans, &str)] = &[(BlasTrans::NO_TRANS, "n"), (BlasTrans::TRANS, "t"), (BlasTrans::CONJ_TRANS, "c")];
    if t.dtype.is_complex() { ALL } else { &ALL[..2] }
}

const ORDERS: [(BlasOrder, &str); 2] = [(BlasOrder::COL_MAJOR, "col"), (BlasOrder::ROW_MAJOR, "row")];

/// Sets leading dimensions to the least legal ones plus `pad`, and batch strides to the spans plus `pad`.
fn lay_out(mut d: BlasDesc, pad: i64) -> BlasDesc {
    let row = d.order == BlasOrder::ROW_MAJOR.0;
    for v in views(&d) {
        if v.tensor.rank == 3 {
            let ld = v.tensor.shape[if row { 2 } else { 1 }].max(1) + pad;
            match v.name {
                "a" => d.lda = ld,
                "b" => d.ldb = ld,
                _ => d.ldc = ld,
            }
        }
    }
    let reach = |v: &View| {
        let mut one = v.tensor;
        one.shape[0] = 1;
        one.extent().map_or(0, |(low, high)| high - low) + pad
    };
    let spans: Vec<i64> = views(&d).iter().map(reach).collect();
    let roles = super::routine(d.routine).map_or(&[][..], |r| r.operands);
    for (role, span) in roles.iter().zip(spans) {
        *[&mut d.stride_a, &mut d.stride_b, &mut d.stride_c][role.stride] = span;
    }
    d
}

impl List {
    fn add(&mut self, tier: Tier, name: impl Into<String>, desc: BlasDesc, scalars: Scalars, fills: &[Fill]) {
        let count = views(&desc).len();
        let fills = (0..count).map(|i| fills.get(i).or(fills.last()).copied().unwrap_or(Fill::Normal)).collect();
        self.0.push(BlasCase { name: name.into(), tier, desc, scalars, fills });
    }
    fn smoke(&mut self, name: impl Into<String>, desc: BlasDesc, scalars: Scalars, fills: &[Fill]) {
        self.add(Tier::Smoke, name, desc, scalars, fills);
    }

    fn vectors(&mut self, r: &Routine, t: &Types) {
        let two = r.parameters.contains(&"incy");
        let make = |n: i64, incx: i64, incy: i64| BlasDesc { n, incx, incy: if two { incy } else { 0 }, ..descriptor(r, t) };
        let scalars = Scalars { beta: None, ..usual(t) };
        for (n, incx, incy) in [(0, 1, 1), (1, 1, 1), (7, 1, 1), (33, 2, 3), (19, -1, 2), (20, -2, -3), (17, 3, -1), (1, -5, 7)] {
            self.smoke(format!("n{n}-incx{incx}-incy{incy}"), make(n, incx, incy), scalars, &[Fill::Normal]);
        }
        if two {
            self.smoke("incx0", make(9, 0, 1), scalars, &[Fill::Normal]);
        }
        let batch = |pad: i64| lay_out(BlasDesc { batch: 3, ..make(11, 2, -1) }, pad);
        self.smoke("batch", batch(4), scalars, &[Fill::Normal]);
        self.smoke("batch0", BlasDesc { batch: 0, ..batch(0) }, scalars, &[Fill::Normal]);
        if two {
            self.smoke("shared-x", BlasDesc { stride_a: 0, ..batch(1) }, scalars, &[Fill::Normal]);
        }
        self.smoke("wide-range", make(65, 1, 1), scalars, &[Fill::Spread]);
        let scaling = [BlasRoutine::AXPY, BlasRoutine::SCAL].contains(&r.routine);
        if scaling {
            for (label, alpha) in [("zero", 0.0), ("one", 1.0), ("minus-one", -1.0)] {
                self.smoke(format!("alpha-{label}"), make(13, 1, 1), real(alpha, 0.0), &[Fill::Normal]);
            }
            self.smoke("alpha-null", make(13, 1, 1), Scalars::default(), &[Fill::Normal]);
            if two {
                self.smoke("alpha-zero-nan", make(6, 1, 1), real(0.0, 0.0), &[NAN, Fill::Normal]);
            }
        }
        if !t.dtype.is_complex() && (scaling || r.routine == BlasRoutine::NRM2) {
            self.smoke("special", make(if scaling { 48 } else { 1 }, 1, 1), real(1.0, 0.0), &[Fill::Special, Fill::Ints(0, 0)]);
        }
        if r.routine == BlasRoutine::NRM2 {
            let top = if t.out_dtype == DType::F64 { 300 } else { 37 };
            for (label, e) in [("huge", top), ("tiny", -top)] {
                self.smoke(label, make(12, 1, 0), Scalars::default(), &[Fill::Uniform(2.0 * 10f64.powi(e), 3.0 * 10f64.powi(e))]);
            }
            self.smoke("infinite", make(5, 1, 0), Scalars::default(), &[Fill::Uniform(f64::INFINITY, f64::INFINITY)]);
        }
        self.add(Tier::Quick, "n100003", make(100_003, 1, 1), scalars, &[Fill::Normal]);
        self.add(Tier::Quick, "n10007-incx-3-incy2", make(10_007, -3, 2), scalars, &[Fill::Spread]);
        self.add(Tier::Bench, "16M", make(1 << 24, 1, 1), scalars, &[Fill::Normal]);
    }

    fn gemv(&mut self, r: &Routine, t: &Types) {
        let make = |order: BlasOrder, trans: BlasTrans, m: i64, n: i64, pad: i64| {
            lay_out(BlasDesc { order: order.0, trans_a: trans.0, m, n, ..descriptor(r, t) }, pad)
        };
        let (col, none) = (BlasOrder::COL_MAJOR, BlasTrans::NO_TRANS);
        for (order, layout) in ORDERS {
            for (trans, op) in ops(t) {
                self.smoke(format!("{op}-{layout}"), make(order, *trans, 9, 14, 0), usual(t), &[Fill::Normal]);
                let gaps = BlasDesc { incx: 2, incy: -3, ..make(order, *trans, 17, 6, 3) };
                self.smoke(format!("{op}-{layout}-gaps"), gaps, usual(t), &[Fill::Normal]);
            }
        }
        let plain = make(col, none, 11, 7, 0);
        self.smoke("negative-incx", BlasDesc { incx: -1, ..plain }, usual(t), &[Fill::Normal]);
        self.smoke("beta-zero-nan", plain, Scalars { beta: Some(Complex::ZERO), ..usual(t) }, &[Fill::Normal, Fill::Normal, NAN]);
        self.smoke("null-scalars", plain, Scalars::default(), &[Fill::Normal, Fill::Normal, NAN]);
        self.smoke("beta-one", plain, real(1.0, 1.0), &[Fill::Normal]);
        self.smoke("alpha-zero-nan", plain, real(0.0, 2.0), &[NAN, NAN, Fill::Normal]);
        for (m, n) in [(1, 1), (0, 5), (5, 0), (1, 33), (33, 1)] {
            self.smoke(format!("{m}x{n}"), make(col, none, m, n, 0), usual(t), &[Fill::Normal]);
            self.smoke(format!("{m}x{n}-t"), make(col, BlasTrans::TRANS, m, n, 0), usual(t), &[Fill::Normal]);
        }
        let batch = lay_out(BlasDesc { batch: 3, incx: -2, ..make(col, none, 6, 8, 1) }, 1);
        self.smoke("batch", batch, usual(t), &[Fill::Normal]);
        self.smoke("shared-a", BlasDesc { stride_a: 0, ..batch }, usual(t), &[Fill::Normal]);
        for (trans, op) in ops(t) {
            self.add(Tier::Quick, format!("{op}-1021x333"), make(col, *trans, 1021, 333, 5), usual(t), &[Fill::Normal]);
        }
        self.add(Tier::Bench, "n-4096", make(col, none, 4096, 4096, 0), usual(t), &[Fill::Normal]);
        self.add(Tier::Bench, "t-4096", make(col, BlasTrans::TRANS, 4096, 4096, 0), usual(t), &[Fill::Normal]);
    }

    fn gemm(&mut self, r: &Routine, t: &Types) {
        let make = |order: BlasOrder, a: BlasTrans, b: BlasTrans, [m, n, k]: [i64; 3], pad: i64| {
            lay_out(BlasDesc { order: order.0, trans_a: a.0, trans_b: b.0, m, n, k, ..descriptor(r, t) }, pad)
        };
        let (col, none) = (BlasOrder::COL_MAJOR, BlasTrans::NO_TRANS);
        let nn = |size: [i64; 3]| make(col, none, none, size, 0);
        for (order, layout) in ORDERS {
            for (a, first) in ops(t) {
                for (b, second) in ops(t) {
                    self.smoke(format!("{first}{second}-{layout}"), make(order, *a, *b, [7, 5, 9], 0), usual(t), &[Fill::Normal]);
                    self.smoke(format!("{first}{second}-{layout}-gaps"), make(order, *a, *b, [18, 35, 17], 3), usual(t), &[Fill::Normal]);
                }
            }
        }
        let small = nn([6, 8, 5]);
        self.smoke("beta-zero-nan", small, Scalars { beta: Some(Complex::ZERO), ..usual(t) }, &[Fill::Normal, Fill::Normal, NAN]);
        self.smoke("null-scalars", small, Scalars::default(), &[Fill::Normal, Fill::Normal, NAN]);
        self.smoke("ones", small, real(1.0, 1.0), &[Fill::Normal]);
        self.smoke("minus-ones", small, real(-1.0, -1.0), &[Fill::Normal]);
        self.smoke("alpha-zero-nan", small, real(0.0, 2.0), &[NAN, NAN, Fill::Normal]);
        self.smoke("wide-range", nn([9, 7, 12]), real(1.0, 0.0), &[Fill::Spread]);
        for size in [[1, 1, 1], [0, 4, 3], [4, 0, 3], [4, 3, 0], [1, 33, 65], [33, 1, 65], [3, 5, 1]] {
            let [m, n, k] = size;
            self.smoke(format!("{m}x{n}x{k}"), nn(size), usual(t), &[Fill::Normal]);
        }
        self.smoke("k0-beta-zero-nan", nn([4, 3, 0]), real(1.0, 0.0), &[Fill::Normal, Fill::Normal, NAN]);
        if !t.dtype.is_complex() {
            self.smoke("special", nn([16, 12, 1]), real(1.0, 0.0), &[Fill::Special, Fill::Special, NAN]);
        }
        let batch = lay_out(BlasDesc { batch: 3, ..make(col, none, BlasTrans::TRANS, [5, 6, 7], 2) }, 2);
        self.smoke("batch", batch, usual(t), &[Fill::Normal]);
        self.smoke("shared-a", BlasDesc { stride_a: 0, ..batch }, usual(t), &[Fill::Normal]);
        self.smoke("batch0", BlasDesc { batch: 0, ..batch }, usual(t), &[Fill::Normal]);
        let interleaved = BlasDesc { batch: 3, lda: 15, ldb: 21, ldc: 15, stride_a: 5, stride_b: 7, stride_c: 5, ..nn([5, 6, 7]) };
        self.smoke("interleaved", interleaved, usual(t), &[Fill::Normal]);
        for (a, first) in ops(t) {
            for (b, second) in ops(t) {
                self.add(Tier::Quick, format!("{first}{second}-129x257x65"), make(col, *a, *b, [129, 257, 65], 1), usual(t), &[Fill::Normal]);
            }
        }
        self.add(Tier::Quick, "long", nn([19, 23, 4099]), usual(t), &[Fill::Normal]);
        self.add(Tier::Full, "513", nn([513, 511, 512]), usual(t), &[Fill::Normal]);
        for n in [1024, 4096] {
            self.add(Tier::Bench, format!("nn-{n}"), nn([n, n, n]), real(1.0, 0.0), &[Fill::Normal]);
        }
        let many = BlasDesc { batch: 4096, stride_a: 256, stride_b: 256, stride_c: 256, ..nn([16, 16, 16]) };
        self.add(Tier::Bench, "4096x16", many, real(1.0, 0.0), &[Fill::Normal]);
    }

    fn trsm(&mut self, r: &Routine, t: &Types) {
        let make = |order: BlasOrder, side: BlasSide, uplo: BlasUplo, trans: BlasTrans, diag: BlasDiag, m: i64, n: i64, pad: i64| {
            lay_out(BlasDesc { order: order.0, side: side.0, uplo: uplo.0, trans_a: trans.0, diag: diag.0, m, n, ..descriptor(r, t) }, pad)
        };
        let triangle = Fill::Uniform(-1.0, 1.0);
        let fills = [triangle, Fill::Normal];
        let scalars = Scalars { beta: None, ..usual(t) };
        let (left, upper, none, stored, col) = (BlasSide::LEFT, BlasUplo::UPPER, BlasTrans::NO_TRANS, BlasDiag::NON_UNIT, BlasOrder::COL_MAJOR);
        for (side, s) in [(left, "left"), (BlasSide::RIGHT, "right")] {
            for (uplo, u) in [(upper, "upper"), (BlasUplo::LOWER, "lower")] {
                for (trans, op) in ops(t) {
                    for (diag, kind) in [(stored, "stored"), (BlasDiag::UNIT, "unit")] {
                        for (order, layout) in ORDERS {
                            let pad = if order == col { 0 } else { 2 };
                            self.smoke(format!("{s}-{u}-{op}-{kind}-{layout}"), make(order, side, uplo, *trans, diag, 9, 7, pad), scalars, &fills);
                        }
                        let large = make(col, side, uplo, *trans, diag, 131, 67, 3);
                        self.add(Tier::Quick, format!("{s}-{u}-{op}-{kind}-131x67"), large, scalars, &fills);
                    }
                }
            }
        }
        let plain = |m, n| make(col, left, upper, none, stored, m, n, 0);
        for (m, n) in [(1, 1), (0, 4), (4, 0), (33, 1), (1, 33)] {
            self.smoke(format!("{m}x{n}"), plain(m, n), scalars, &fills);
        }
        self.smoke("null-alpha", plain(5, 6), Scalars::default(), &fills);
        self.smoke("alpha-zero-nan", plain(5, 6), real(0.0, 0.0), &[NAN]);
        let batch = lay_out(BlasDesc { batch: 3, ..make(col, left, BlasUplo::LOWER, none, stored, 6, 5, 1) }, 1);
        self.smoke("batch", batch, scalars, &fills);
        self.smoke("shared-a", BlasDesc { stride_a: 0, ..batch }, scalars, &fills);
        self.add(Tier::Bench, "left-lower-1024", make(col, left, BlasUplo::LOWER, none, stored, 1024, 1024, 0), scalars, &fills);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blas::{NUMERICS, flops, operands, scalar_bytes};
    use crate::numerics::judge;

    #[test]
    fn substitution_in_f32_meets_the_bound_of_trsm_and_a_thousandth_off_does_not() {
        let case = cases().into_iter().find(|c| c.id() == "blas.trsm/strsm/left-lower-n-stored-131x67").unwrap();
        let instance = case.instance(1).unwrap();
        let decoded = |i: usize| {
            let m = &instance.operands[i];
            Array::decode(&m.tensor, &m.bytes, m.origin).unwrap().floats().iter().map(|x| *x as f32).collect::<Vec<f32>>()
        };
        let (a, mut x) = (decoded(0), decoded(1));
        for (i, j) in (0..131).flat_map(|i| (0..67).map(move |j| (i, j))) {
            let rest = (0..i).fold(0.75 * x[i * 67 + j], |sum, k| sum - a[i * 131 + k] * x[k * 67 + j]);
            x[i * 67 + j] = rest / a[i * 131 + i];
        }
        let want = instance.reference().unwrap().remove(0).1;
        let verdict = |x: &[f32]| judge(NUMERICS, DType::F32, &want, &Array::float(&[1, 131, 67], x.iter().map(|x| (*x).into()).collect()));
        assert!(verdict(&x).ok, "{:?}", verdict(&x));
        x[131 * 67 - 1] *= 1.001;
        assert!(!verdict(&x).ok, "{:?}", verdict(&x));
    }

    #[test]
    fn every_case_is_legal_named_once_and_passes_its_own_reference() {
        let mut seen = std::collections::HashSet::new();
        for case in cases() {
            let id = case.id();
            assert!(seen.insert(id.clone()), "{id} is there twice");
            check(&case.desc).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert!(flops(&case.desc) >= 0.0 && operands(&case.desc).unwrap().iter().any(|s| s.writes), "{id}");
            assert_eq!(scalar_bytes(&case.desc, Complex::ONE).len(), case.desc.compute_dtype.bytes(), "{id}");
            if case.tier != Tier::Smoke {
                continue;
            }
            let instance = case.instance(1).unwrap_or_else(|e| panic!("{id}: {e}"));
            for (binding, r) in instance.reference().unwrap_or_else(|e| panic!("{id}: {e}")) {
                let m = &instance.operands[binding];
                let mut bytes = m.bytes.clone();
                r.value.encode(&m.tensor, &mut bytes, m.origin).unwrap_or_else(|e| panic!("{id}: {e}"));
                let verdict = judge(NUMERICS, m.tensor.dtype, &r, &Array::decode(&m.tensor, &bytes, m.origin).unwrap());
                assert!(verdict.ok, "{id}: {verdict:?}");
                let finite = !case.name.contains("special") && !case.name.contains("infinite");
                assert!(!finite || r.scale.iter().all(|s| s.is_finite()), "{id} has NaN or infinity: {:?}", r.value);
            }
        }
    }
}
