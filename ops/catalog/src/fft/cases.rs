//! Cases of Fourier transforms.

use flagos_backend_api::{DType, FftDesc, FftDirection, FftKind, Result};

use super::{check, descriptor, name, reference, views};
use crate::{Array, Fill, Memory, Reference, Rng, Tier, contents};

/// A case: descriptor and whether input and output are one.
#[derive(Clone)]
pub struct FftCase {
    /// Name within kind and precision.
    pub name: String,
    /// When it runs.
    pub tier: Tier,
    /// The call.
    pub desc: FftDesc,
    /// Both bindings are the same.
    pub in_place: bool,
}

/// A case with memory.
#[derive(Clone)]
pub struct FftInstance {
    /// `fft.kind/precision/name`.
    pub id: String,
    /// The call.
    pub desc: FftDesc,
    /// Both bindings are the first operand's memory.
    pub in_place: bool,
    /// Input and output; `bytes` begins at the binding's address. In place both have one length, and the output is decoded from the input's memory.
    pub operands: Vec<Memory>,
}

impl FftCase {
    /// `fft.kind/precision/name`.
    pub fn id(&self) -> String {
        format!("fft.{}/{}/{}", name(self.desc.transform), self.desc.precision, self.name)
    }

    /// Makes the memory; `seed` decides the contents. Spectra of real sequences of several axes are Hermitian up to rounding.
    ///
    /// # Errors
    /// Those of [`check`].
    pub fn instance(&self, seed: u64) -> Result<FftInstance> {
        let d = &self.desc;
        check(d)?;
        let id = self.id();
        let mut rng = Rng::named(seed, &id);
        let views = views(d);
        let shape = views[0].tensor.shape();
        let data = if d.transform == FftKind::C2R.0 && d.rank > 1 {
            let forward = FftDesc { batch: d.batch, ..descriptor(FftKind::R2C, d.precision, &d.n[..d.rank as usize]) };
            reference(&forward, &contents(Fill::Normal, d.precision, views[1].tensor.shape(), &mut rng))?.value
        } else {
            contents(Fill::Normal, views[0].tensor.dtype, shape, &mut rng)
        };
        let mut operands = vec![views[0].memory(Some(&data))?, views[1].memory(None)?];
        if self.in_place {
            let most = operands[0].bytes.len().max(operands[1].bytes.len());
            operands.iter_mut().for_each(|m| m.bytes.resize(most, 0xff));
        }
        Ok(FftInstance { id, desc: *d, in_place: self.in_place, operands })
    }
}

impl FftInstance {
    /// What the output holds afterwards, to be judged against memory decoded by `operands[1].tensor`.
    pub fn reference(&self) -> Result<Reference> {
        let input = &self.operands[0];
        reference(&self.desc, &Array::decode(&input.tensor, &input.bytes, input.origin)?)
    }
}

const SMALL: &[i64] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 19, 25, 27, 30, 31, 32, 49, 60, 64, 97, 100, 121, 127, 128, 243, 256, 289, 360, 1009,
];
const LARGE: &[i64] = &[1000, 1024, 2003, 2018, 4001, 4096, 15_625, 30_030, 46_656, 65_536];

/// Every case.
pub fn cases() -> Vec<FftCase> {
    let mut list = List(Vec::new());
    for precision in [DType::F32, DType::F64] {
        for kind in [FftKind::C2C, FftKind::R2C, FftKind::C2R] {
            list.lengths(kind, precision);
            list.layouts(kind, precision);
            list.axes(kind, precision);
            list.bench(kind, precision);
        }
    }
    list.0
}

struct List(Vec<FftCase>);

fn inverse(d: FftDesc) -> FftDesc {
    FftDesc { direction: FftDirection::INVERSE.0, ..d }
}

fn join(lengths: &[i64]) -> String {
    lengths.iter().map(i64::to_string).collect::<Vec<_>>().join("x")
}

impl List {
    fn add(&mut self, tier: Tier, name: impl Into<String>, desc: FftDesc) {
        self.0.push(FftCase { name: name.into(), tier, desc, in_place: false });
    }
    fn smoke(&mut self, name: impl Into<String>, desc: FftDesc) {
        self.add(Tier::Smoke, name, desc);
    }
    fn in_place(&mut self, name: &str, desc: FftDesc) {
        self.0.push(FftCase { name: format!("{name}-in-place"), tier: Tier::Smoke, desc, in_place: true });
    }

    fn lengths(&mut self, kind: FftKind, precision: DType) {
        let make = |n: i64| descriptor(kind, precision, &[n]);
        for n in SMALL {
            self.smoke(format!("n{n}"), make(*n));
        }
        for n in LARGE {
            self.add(Tier::Quick, format!("n{n}"), make(*n));
        }
        for n in [10_007, 1 << 18, 360_360] {
            self.add(Tier::Full, format!("n{n}"), make(n));
        }
        if kind == FftKind::C2C {
            for n in [1, 2, 5, 8, 12, 17, 64, 97, 100] {
                self.smoke(format!("n{n}-inverse"), inverse(make(n)));
            }
            self.add(Tier::Quick, "n4096-inverse", inverse(make(4096)));
        }
    }

    fn layouts(&mut self, kind: FftKind, precision: DType) {
        let make = |n: i64, batch: i64| FftDesc { batch, ..descriptor(kind, precision, &[n]) };
        let half = |n: i64| n / 2 + 1;
        // Room one transform of 12 points takes on either side.
        let (input, output) = match kind {
            FftKind::C2C => (12, 12),
            FftKind::R2C => (12, half(12)),
            _ => (half(12), 12),
        };
        self.smoke("batch", make(12, 5));
        self.smoke("batch0", make(12, 0));
        self.smoke("batch-prime", make(31, 3));
        self.smoke("stride", FftDesc { in_stride: 3, out_stride: 2, ..make(12, 2) });
        self.smoke("dist", FftDesc { in_dist: input + 5, out_dist: output + 3, ..make(12, 4) });
        self.smoke("interleaved", FftDesc { in_stride: 7, in_dist: 1, out_stride: 7, out_dist: 1, ..make(12, 7) });
        self.smoke("overlapping-frames", FftDesc { in_dist: 3, ..make(12, 6) });
        self.smoke("scaled", FftDesc { scale: 1.0 / 12.0, ..make(12, 2) });
        self.smoke("scaled-negative", FftDesc { scale: -0.75, ..make(17, 1) });
        self.add(Tier::Quick, "many", make(100, 333));
        self.add(Tier::Quick, "many-interleaved", FftDesc { in_stride: 65, in_dist: 1, out_stride: 65, out_dist: 1, ..make(128, 65) });
        match kind {
            FftKind::C2C => {
                for n in [1, 8, 13, 60] {
                    self.in_place(&format!("n{n}"), make(n, 3));
                }
                self.in_place("stride", FftDesc { in_stride: 2, out_stride: 2, ..make(12, 2) });
            }
            FftKind::R2C => {
                for n in [1, 8, 13] {
                    self.in_place(&format!("n{n}"), FftDesc { in_dist: 2 * half(n), ..make(n, 3) });
                }
            }
            _ => {
                for n in [1, 8, 13] {
                    self.in_place(&format!("n{n}"), FftDesc { out_dist: 2 * half(n), ..make(n, 3) });
                }
            }
        }
    }

    fn axes(&mut self, kind: FftKind, precision: DType) {
        let make = |n: &[i64], batch: i64| FftDesc { batch, ..descriptor(kind, precision, n) };
        let shapes: [&[i64]; 9] = [&[1, 1], &[8, 12], &[7, 5], &[1, 9], &[9, 1], &[16, 31], &[2, 3, 4], &[5, 1, 7], &[4, 9, 8]];
        for n in shapes {
            self.smoke(join(n), make(n, 1));
        }
        self.smoke("6x10-batch", make(&[6, 10], 3));
        self.smoke("3x4x5-batch", make(&[3, 4, 5], 2));
        let plane = FftDesc { in_embed: [0, 13, 0], in_stride: 2, in_dist: 200, ..make(&[6, 10], 2) };
        let embedded = FftDesc { out_embed: [0, 11, 0], out_stride: 3, out_dist: 250, ..plane };
        self.smoke("6x10-embedded", embedded);
        self.smoke("3x4x5-embedded", FftDesc { in_embed: [0, 6, 7], out_embed: [0, 5, 8], ..make(&[3, 4, 5], 1) });
        match kind {
            FftKind::C2C => {
                self.smoke("6x10-inverse", inverse(make(&[6, 10], 2)));
                self.smoke("3x4x5-inverse", inverse(make(&[3, 4, 5], 1)));
                self.in_place("6x10", make(&[6, 10], 2));
            }
            FftKind::R2C => {
                self.in_place("6x10", FftDesc { in_embed: [0, 12, 0], in_dist: 72, ..make(&[6, 10], 2) });
                self.in_place("3x4x5", FftDesc { in_embed: [0, 4, 6], ..make(&[3, 4, 5], 1) });
            }
            _ => {
                self.in_place("6x10", FftDesc { out_embed: [0, 12, 0], out_dist: 72, ..make(&[6, 10], 2) });
                self.in_place("3x4x5", FftDesc { out_embed: [0, 4, 6], ..make(&[3, 4, 5], 1) });
            }
        }
        for n in [&[64, 100][..], &[97, 128], &[16, 27, 25], &[32, 32, 32]] {
            self.add(Tier::Quick, join(n), make(n, 1));
        }
    }

    fn bench(&mut self, kind: FftKind, precision: DType) {
        let make = |n: &[i64], batch: i64| FftDesc { batch, ..descriptor(kind, precision, n) };
        for (n, batch) in [(&[1024][..], 1024), (&[1 << 20], 1), (&[10_007], 16), (&[1024, 1024], 1), (&[128, 128, 128], 1)] {
            self.add(Tier::Bench, format!("{}-batch{batch}", join(n)), make(n, batch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fft::{NUMERICS, flops, may_be_in_place};
    use crate::numerics::judge;

    #[test]
    fn every_case_is_legal_named_once_and_passes_its_own_reference() {
        let mut seen = std::collections::HashSet::new();
        for case in cases() {
            let id = case.id();
            assert!(seen.insert(id.clone()), "{id} is there twice");
            check(&case.desc).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert!(flops(&case.desc) >= 0.0 && (!case.in_place || may_be_in_place(&case.desc)), "{id}");
            if case.tier != Tier::Smoke {
                continue;
            }
            let instance = case.instance(1).unwrap_or_else(|e| panic!("{id}: {e}"));
            let r = instance.reference().unwrap_or_else(|e| panic!("{id}: {e}"));
            let m = &instance.operands[1];
            let mut bytes = if case.in_place { instance.operands[0].bytes.clone() } else { m.bytes.clone() };
            r.value.encode(&m.tensor, &mut bytes, m.origin).unwrap_or_else(|e| panic!("{id}: {e}"));
            let verdict = judge(NUMERICS, m.tensor.dtype, &r, &Array::decode(&m.tensor, &bytes, m.origin).unwrap());
            assert!(verdict.ok, "{id}: {verdict:?}");
        }
    }
}
