//! Reports: one model, and the forms it is written in.

pub mod html;
pub mod json;
pub mod junit;
pub mod terminal;

use std::collections::BTreeMap;

use flagos_runtime::claims::Implementation;
use serde::Serialize;

use crate::cell::CellRow;
use crate::check::Check;
use crate::judged::{Judged, Verdict};
use crate::profile::Coverage;
use crate::protocol::Identity;

/// Counts of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Cases that ran.
    pub run: usize,
    /// Passed by the backend's own implementation, or by its tables.
    pub native: usize,
    /// Passed by portable kernels on the chip.
    pub portable: usize,
    /// Passed on another device; counts for nothing.
    pub fallback: usize,
    /// Failed.
    pub fail: usize,
    /// Listed as failing or unsupported, and passed.
    pub unexpected_pass: usize,
    /// Failed as listed.
    pub xfail: usize,
    /// Failed, waived on this device.
    pub waived: usize,
    /// Not offered.
    pub unsupported: usize,
    /// Do not apply to this device.
    pub skipped: usize,
}

/// Everything a run found about one backend.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the suite.
    pub suite: &'static str,
    /// Tier.
    pub tier: &'static str,
    /// Seed of contents.
    pub seed: u64,
    /// Which implementations ran.
    pub implementation: Implementation,
    /// SHA-256 of the tier's case list.
    pub cases_sha256: String,
    /// Start, seconds since 1970.
    pub started_s: u64,
    /// Time of the run in ns.
    pub time_ns: u64,
    /// What was tested.
    pub backend: Identity,
    /// Whether the run passes: no bad verdict, and no required cell fails or is not offered.
    pub passed: bool,
    /// Counts.
    pub totals: Totals,
    /// Profiles judged.
    pub profiles: Vec<Coverage>,
    /// Cells.
    pub cells: Vec<CellRow>,
    /// Cases, in the plan's order.
    pub cases: Vec<Judged>,
    /// What is odd but no failure.
    pub notes: Vec<String>,
}

impl Totals {
    /// Counts a list.
    pub fn of(cases: &[Judged]) -> Totals {
        let mut t = Totals { run: cases.len(), ..Totals::default() };
        for j in cases {
            *match (j.verdict, j.result.source) {
                (Verdict::Pass, Some(crate::outcome::Source::Fallback)) => &mut t.fallback,
                (Verdict::Pass, Some(crate::outcome::Source::Portable)) => &mut t.portable,
                (Verdict::Pass, _) => &mut t.native,
                (Verdict::Fail, _) => &mut t.fail,
                (Verdict::UnexpectedPass, _) => &mut t.unexpected_pass,
                (Verdict::Xfail, _) => &mut t.xfail,
                (Verdict::Waived, _) => &mut t.waived,
                (Verdict::Unsupported, _) => &mut t.unsupported,
                (Verdict::Skipped, _) => &mut t.skipped,
            } += 1;
        }
        t
    }
}

impl Report {
    /// Cases the run fails by.
    pub fn bad(&self) -> impl Iterator<Item = &Judged> {
        self.cases.iter().filter(|j| j.verdict.is_bad())
    }
    /// How often each check caught something.
    pub fn caught(&self) -> BTreeMap<Check, usize> {
        let mut caught = BTreeMap::new();
        for j in self.bad() {
            let mut checks: Vec<Check> = j.result.failures.iter().map(|f| f.check).collect();
            checks.dedup();
            checks.iter().for_each(|c| *caught.entry(*c).or_default() += 1);
        }
        caught
    }
    /// Cells by family and type, for tables: families in the plan's order, types in the catalogue's.
    fn table(&self) -> Table {
        let mut families: Vec<&'static str> = Vec::new();
        let mut squares: BTreeMap<(&'static str, &'static str), Square> = BTreeMap::new();
        let dtypes = flagos_backend_api::DType::ALL;
        for row in &self.cells {
            let Some(dtype) = dtypes.iter().map(|t| t.name()).find(|n| *n == row.cell.dtype) else { continue };
            if !families.contains(&row.family) {
                families.push(row.family);
            }
            let square = squares.entry((row.family, dtype)).or_default();
            square.pass += row.passed_by_chip();
            square.fail += row.fail;
            square.waived += row.waived;
            square.unsupported += row.unsupported + row.fallback;
            square.worst = crate::outcome::Worst::max(square.worst, row.worst);
        }
        let dtypes = dtypes.iter().map(|t| t.name()).filter(|n| squares.keys().any(|(_, d)| d == n)).collect();
        Table { families, dtypes, squares }
    }
    /// Suites without element types: (name, passed, failed, skipped).
    fn suites(&self) -> Vec<(&'static str, usize, usize, usize)> {
        let mut out: Vec<(&'static str, usize, usize, usize)> = Vec::new();
        for j in self.cases.iter().filter(|j| ["abi", "memory", "stream"].contains(&j.family)) {
            if out.last().is_none_or(|l| l.0 != j.family) {
                out.push((j.family, 0, 0, 0));
            }
            if let Some(last) = out.last_mut() {
                match j.verdict {
                    Verdict::Pass => last.1 += 1,
                    Verdict::Skipped | Verdict::Unsupported => last.3 += 1,
                    _ => last.2 += 1,
                }
            }
        }
        out
    }
}

/// Squares by family and type.
struct Table {
    families: Vec<&'static str>,
    dtypes: Vec<&'static str>,
    squares: BTreeMap<(&'static str, &'static str), Square>,
}

/// One square of the table.
#[derive(Clone, Copy, Debug, Default)]
struct Square {
    pass: usize,
    fail: usize,
    waived: usize,
    unsupported: usize,
    worst: Option<crate::outcome::Worst>,
}

#[cfg(test)]
pub(crate) mod sample {
    //! A small report for the tests of the writers.
    use super::*;
    use crate::cell::{Cell, CellRow};
    use crate::outcome::{CaseResult, Failure, Source, Status, Worst};

    pub fn report() -> Report {
        let mut pass = CaseResult::new("add/f32/odd", Status::Pass);
        (pass.source, pass.worst) = (Some(Source::Native), Some(Worst::Ulp(0.5)));
        let mut fail = CaseResult::fail("exp/f16/<odd>&\"x\"", Failure::new(Check::Value, "element 3: expected 1 < 2, got \u{1b}[31mNaN"));
        fail.output = "frame 0\n]]>".into();
        let judged = |verdict, result: CaseResult| Judged { verdict, family: "arithmetic", result, exception: String::new() };
        let mut cases = vec![judged(Verdict::Pass, pass), judged(Verdict::Fail, fail)];
        cases.push(judged(Verdict::Unsupported, CaseResult { reason: "no f64".into(), ..CaseResult::new("add/f64/odd", Status::Unsupported) }));
        cases.insert(0, Judged { family: "abi", ..judged(Verdict::Skipped, CaseResult::new("abi/x", Status::Skipped)) });
        let cell = |text: &str| CellRow::new(Cell::parse(text).unwrap(), "arithmetic");
        Report {
            suite: "0.1.0",
            tier: "smoke",
            seed: 1,
            implementation: Implementation::Any,
            cases_sha256: "ab".into(),
            started_s: 5,
            time_ns: 1_500_000_000,
            backend: Identity { backend: "toy".into(), device: "toy:0".into(), arch: "a1".into(), build_id: "b".into(), ..Identity::default() },
            passed: false,
            totals: Totals::of(&cases),
            profiles: vec![Coverage {
                profile: "core".into(),
                required: 2,
                passed: 1,
                native: 1,
                portable: 0,
                unsupported: vec!["add/f64".into()],
                failed: vec![],
                waived: vec![],
                not_run: vec![],
            }],
            cells: vec![
                CellRow { native: 1, worst: Some(Worst::Ulp(0.5)), ..cell("add/f32") },
                CellRow { fail: 1, ..cell("exp/f16") },
                CellRow { unsupported: 1, ..cell("add/f64") },
            ],
            cases,
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn totals_add_up() {
        let t = report().totals;
        assert_eq!(t.run, t.native + t.portable + t.fallback + t.fail + t.unexpected_pass + t.xfail + t.waived + t.unsupported + t.skipped);
        assert_eq!((t.native, t.fail, t.unsupported, t.skipped), (1, 1, 1, 1));
    }

    #[test]
    fn claims_follow_the_cells() {
        use flagos_runtime::claims::Cell as Verdict;
        let claim = crate::claim::of(&report());
        assert_eq!(claim.cells["add/f32"], Verdict::Pass);
        assert_eq!(claim.cells["exp/f16"], Verdict::Fail);
        assert_eq!(claim.cells["add/f64"], Verdict::Unsupported);
        assert!(claim.covers("b", "a1"));
        let mut part = report();
        part.cells[0].missing = 1;
        assert!(!crate::claim::of(&part).cells.contains_key("add/f32"), "a cell that did not run in full is not claimed");
    }
}
