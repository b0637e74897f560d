//! Cells: (operator, element type), the unit of claims and profiles.

use std::collections::BTreeMap;

use flagos_runtime::claims;
use serde::Serialize;

use crate::judged::{Judged, Verdict};
use crate::outcome::{Source, Worst};
use crate::plan::Entry;

/// An operator in an element type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Operator, or `blas.ROUTINE`, `fft.KIND`.
    pub operator: String,
    /// Short name of the type.
    pub dtype: String,
}

impl Cell {
    /// A cell.
    pub fn new(operator: impl Into<String>, dtype: impl Into<String>) -> Cell {
        Cell { operator: operator.into(), dtype: dtype.into() }
    }
    /// Reads `operator/dtype`.
    pub fn parse(text: &str) -> Option<Cell> {
        text.split_once('/').map(|(o, d)| Cell::new(o, d))
    }
}

impl core::fmt::Display for Cell {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.operator, self.dtype)
    }
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What became of a cell's cases.
#[derive(Clone, Debug, Serialize)]
pub struct CellRow {
    /// The cell.
    pub cell: Cell,
    /// Family of its operator.
    pub family: &'static str,
    /// Passed by the backend's own implementation.
    pub native: usize,
    /// Passed by portable kernels on the chip.
    pub portable: usize,
    /// Passed on another device; counts for nothing.
    pub fallback: usize,
    /// Failed, known failures included.
    pub fail: usize,
    /// Of the failed, waived on this device.
    pub waived: usize,
    /// Not offered.
    pub unsupported: usize,
    /// Cases of the cell in the tier that did not run here.
    pub missing: usize,
    /// Worst error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Worst>,
}

impl CellRow {
    /// A row without cases.
    pub fn new(cell: Cell, family: &'static str) -> CellRow {
        CellRow { cell, family, native: 0, portable: 0, fallback: 0, fail: 0, waived: 0, unsupported: 0, missing: 0, worst: None }
    }
    /// Cases the chip itself passed.
    pub fn passed_by_chip(&self) -> usize {
        self.native + self.portable
    }
    /// The claim's verdict; `None` while cases are missing.
    pub fn claim(&self) -> Option<claims::Cell> {
        if self.fail > 0 {
            return Some(claims::Cell::Fail);
        }
        if self.missing > 0 {
            return None;
        }
        Some(match (self.waived, self.passed_by_chip()) {
            (1.., _) => claims::Cell::Waived,
            (0, 0) => claims::Cell::Unsupported,
            _ => claims::Cell::Pass,
        })
    }
}

/// Rows of a run, in the plan's order. `planned` are all entries of the tier, `judged` what ran.
pub fn rows(planned: &[Entry], judged: &[Judged]) -> Vec<CellRow> {
    let by_id: BTreeMap<&str, &Judged> = judged.iter().map(|j| (j.result.id.as_str(), j)).collect();
    let mut places: BTreeMap<&Cell, usize> = BTreeMap::new();
    let mut rows: Vec<CellRow> = Vec::new();
    for entry in planned {
        let Some(cell) = &entry.cell else { continue };
        let place = *places.entry(cell).or_insert_with(|| {
            rows.push(CellRow::new(cell.clone(), entry.family));
            rows.len() - 1
        });
        let row = &mut rows[place];
        let Some(j) = by_id.get(entry.id.as_str()) else {
            row.missing += 1;
            continue;
        };
        row.worst = Worst::max(row.worst, j.result.worst);
        match (j.verdict, j.result.source) {
            (Verdict::Pass, Some(Source::Portable)) => row.portable += 1,
            (Verdict::Pass, Some(Source::Fallback)) => row.fallback += 1,
            (Verdict::Pass, _) => row.native += 1,
            (Verdict::Waived, _) => row.waived += 1,
            (Verdict::Unsupported | Verdict::Skipped, _) => row.unsupported += 1,
            (Verdict::Fail | Verdict::Xfail | Verdict::UnexpectedPass, _) => row.fail += 1,
        }
    }
    rows.retain(|r| r.native + r.portable + r.fallback + r.fail + r.waived + r.unsupported > 0);
    rows
}
