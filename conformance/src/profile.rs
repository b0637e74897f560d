//! Profiles: the cells a backend must offer and pass to be called fit for a use. Data in `profiles/*.toml`.

use std::collections::BTreeSet;

use flagos_backend_api::{Error, Result};
use flagos_runtime::discover::glob;
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, CellRow};

const BUILT_IN: &[(&str, &str)] = &[
    ("core", include_str!("../profiles/core.toml")),
    ("nn-infer", include_str!("../profiles/nn-infer.toml")),
    ("blas-1", include_str!("../profiles/blas-1.toml")),
    ("blas-2", include_str!("../profiles/blas-2.toml")),
    ("blas-3", include_str!("../profiles/blas-3.toml")),
    ("fft", include_str!("../profiles/fft.toml")),
];

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name.
    pub name: String,
    /// What a backend that passes may be used for.
    pub doc: String,
    require: Vec<Requirement>,
}

/// Cells that must pass: every operator that fits, in every listed type its definition has cases for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    /// Globs on operator names (`softmax`, `blas.gemm`, `*`).
    operators: Vec<String>,
    /// Globs on operator names to leave out.
    #[serde(default)]
    except: Vec<String>,
    /// Element types of the cells.
    dtypes: Vec<String>,
}

/// How much of a profile a backend covers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Profile.
    pub profile: String,
    /// Cells required.
    pub required: usize,
    /// Of these, passed by the chip itself.
    pub passed: usize,
    /// Of the passed, by a native implementation in every case.
    pub native: usize,
    /// Of the passed, by portable kernels in some case.
    pub portable: usize,
    /// Required cells that are not offered.
    pub unsupported: Vec<String>,
    /// Required cells that failed.
    pub failed: Vec<String>,
    /// Required cells waived on this device.
    pub waived: Vec<String>,
    /// Required cells with cases that are not in this run (filtered, or in another shard).
    pub not_run: Vec<String>,
}

impl Coverage {
    /// Passed / required in percent.
    pub fn percent(&self) -> f64 {
        if self.required == 0 { 100.0 } else { 100.0 * self.passed as f64 / self.required as f64 }
    }
}

/// Names of the profiles that come with the suite.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Profile {
    /// A profile by name.
    pub fn find(name: &str) -> Result<Profile> {
        let text = BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text);
        let text = text.ok_or_else(|| Error::invalid(format!("there is no profile '{name}'; profiles are {}", names().join(", "))))?;
        toml::from_str(text).map_err(|e| Error::invalid(format!("profile '{name}': {e}")))
    }

    /// The cells it requires among those of the catalogue. A pattern that fits none is an error: it would require nothing in silence.
    pub fn cells<'a>(&self, catalogue: &'a BTreeSet<Cell>) -> Result<BTreeSet<&'a Cell>> {
        let mut cells = BTreeSet::new();
        for r in &self.require {
            for pattern in &r.operators {
                let wanted = |c: &&Cell| {
                    glob(pattern, &c.operator) && r.dtypes.contains(&c.dtype) && !r.except.iter().any(|x| glob(x, &c.operator))
                };
                let found: Vec<&Cell> = catalogue.iter().filter(wanted).collect();
                if found.is_empty() {
                    return Err(Error::invalid(format!(
                        "profile '{}' requires '{pattern}' in {}, and the suite has no such cases; leave the profile out, or update flagos",
                        self.name,
                        r.dtypes.join(", ")
                    )));
                }
                cells.extend(found);
            }
        }
        Ok(cells)
    }

    /// What a run covers of it.
    pub fn coverage(&self, catalogue: &BTreeSet<Cell>, rows: &[CellRow]) -> Result<Coverage> {
        let required = self.cells(catalogue)?;
        let mut out = Coverage {
            profile: self.name.clone(),
            required: required.len(),
            passed: 0,
            native: 0,
            portable: 0,
            unsupported: Vec::new(),
            failed: Vec::new(),
            waived: Vec::new(),
            not_run: Vec::new(),
        };
        for cell in required {
            let Some(row) = rows.iter().find(|r| r.cell == *cell) else {
                out.not_run.push(cell.to_string());
                continue;
            };
            if row.fail > 0 {
                out.failed.push(cell.to_string());
            } else if row.missing > 0 {
                out.not_run.push(cell.to_string());
            } else if row.waived > 0 {
                out.waived.push(cell.to_string());
            } else if row.passed_by_chip() == 0 {
                out.unsupported.push(cell.to_string());
            } else {
                out.passed += 1;
                if row.portable == 0 { out.native += 1 } else { out.portable += 1 }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(list: &[&str]) -> BTreeSet<Cell> {
        list.iter().map(|t| Cell::parse(t).unwrap()).collect()
    }

    #[test]
    fn built_in_profiles_are_well_formed_and_named_as_filed() {
        for name in names() {
            assert_eq!(Profile::find(name).unwrap().name, name);
        }
        assert!(Profile::find("cor").unwrap_err().message.contains("core"));
    }

    #[test]
    fn the_spine_has_every_cell_that_core_and_nn_infer_require() {
        let plan = crate::plan::Plan::new(flagos_catalog::Tier::Smoke);
        for name in ["core", "nn-infer"] {
            let required = Profile::find(name).unwrap().cells(plan.cells()).unwrap_or_else(|e| panic!("{e}")).len();
            assert!(required > 50, "{name}: {required}");
        }
    }

    #[test]
    fn a_required_cell_that_is_not_offered_counts_against_coverage() {
        let profile: Profile = toml::from_str("name='p'\ndoc='d'\n[[require]]\noperators=['a*']\nexcept=['ab']\ndtypes=['f32','f16']").unwrap();
        let catalogue = cells(&["a/f32", "a/f16", "ab/f32", "ac/f32", "ad/f32", "b/f32"]);
        let row = |cell: &str, native: usize, fail: usize, unsupported: usize| CellRow {
            native,
            fail,
            unsupported,
            ..CellRow::new(Cell::parse(cell).unwrap(), "x")
        };
        let rows = [row("a/f32", 3, 0, 1), row("a/f16", 0, 0, 4), row("ac/f32", 3, 1, 0)];
        let c = profile.coverage(&catalogue, &rows).unwrap();
        assert_eq!((c.required, c.passed, c.native), (4, 1, 1));
        assert_eq!((c.unsupported, c.failed, c.not_run), (vec!["a/f16".to_owned()], vec!["ac/f32".to_owned()], vec!["ad/f32".to_owned()]));
    }

    #[test]
    fn a_requirement_without_cases_is_an_error() {
        let profile: Profile = toml::from_str("name='p'\ndoc='d'\n[[require]]\noperators=['zz']\ndtypes=['f32']").unwrap();
        assert!(profile.cells(&cells(&["a/f32"])).unwrap_err().message.contains("'zz'"));
    }
}
