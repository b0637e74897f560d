//! Claims: what the conformance suite found about a backend, and how the host acts on it.

use std::collections::BTreeMap;
use std::path::Path;

use flagos_backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

/// Verdict of one cell (operator, dtype).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// Every case passed.
    Pass,
    /// A case failed: never used.
    Fail,
    /// Not offered.
    Unsupported,
    /// Failed, waived by the backend's owner for this device and driver: used.
    Waived,
}

/// Which implementations a claim speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Implementation {
    /// Whatever the host chose on the device: the backend's own where it has one, else portable kernels.
    #[default]
    Any,
    /// The backend's own.
    Native,
    /// Portable kernels compiled by the host.
    Portable,
}

/// A claim file, written by `flagos conformance`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Format of the file: 1.
    pub format: u32,
    /// Version of the suite.
    pub suite: String,
    /// SHA-256 of the case list.
    pub cases_sha256: String,
    /// Tier that ran.
    pub tier: String,
    /// Backend name.
    pub backend: String,
    /// Backend version.
    pub version: String,
    /// Build id the claim holds for.
    pub build_id: String,
    /// SHA-256 of the library; empty for backends linked in.
    #[serde(default)]
    pub library_sha256: String,
    /// Target fingerprint the claim holds for.
    pub arch: String,
    /// Device it ran on.
    pub device: String,
    /// Driver it ran with.
    pub driver: String,
    /// When it ran, seconds since 1970.
    pub time_s: u64,
    /// Which implementations ran.
    #[serde(default)]
    pub implementation: Implementation,
    /// Compiler of the portable kernels; for these the claim holds for this compiler only.
    #[serde(default)]
    pub compiler: String,
    /// Verdicts by `operator/dtype`.
    pub cells: BTreeMap<String, Cell>,
    /// Waivers that were in force.
    #[serde(default)]
    pub waivers: Vec<String>,
    /// Ed25519 signature over the claim without this field, and the key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What claims say of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// A claim for this build and target passes it.
    Passed,
    /// A claim for this build and target fails it.
    Failed,
    /// No claim covers it.
    Uncovered,
}

impl Claim {
    /// Reads a claim file.
    pub fn read(path: &Path) -> Result<Claim> {
        let at = |e: &dyn core::fmt::Display| Error::invalid(format!("claim {}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| at(&e))?;
        let claim: Claim = serde_json::from_str(&text).map_err(|e| at(&e))?;
        if claim.format != 1 {
            return Err(at(&format!("format {} is not known to this build (1); update libflagos", claim.format)));
        }
        Ok(claim)
    }

    /// Reads every `*.json` of a folder, or one file; unreadable ones are warned of and left out.
    pub fn read_all(path: &Path) -> Vec<Claim> {
        let files: Vec<_> = match std::fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "json")).collect(),
            Err(_) => vec![path.to_owned()],
        };
        let read = |file: &std::path::PathBuf| Claim::read(file).inspect_err(|e| crate::log::warn(&e.message)).ok();
        files.iter().filter_map(read).collect()
    }

    /// Whether the claim speaks of this build on this target.
    pub fn covers(&self, build_id: &str, arch: &str) -> bool {
        self.build_id == build_id && self.arch == arch
    }

    /// Whether it speaks of the backend's own implementations, or of portable kernels by this build's compiler.
    fn is_about(&self, implementation: Implementation) -> bool {
        match implementation {
            Implementation::Portable => self.implementation != Implementation::Native && self.compiler == crate::module::COMPILER_ID,
            _ => self.implementation != Implementation::Portable,
        }
    }
}

/// What a set of claims says of a cell of an implementation on a build and target. A failure in any of them counts.
pub fn standing(claims: &[Claim], implementation: Implementation, build_id: &str, arch: &str, operator: &str, dtype: &str) -> Standing {
    let cell = format!("{operator}/{dtype}");
    let about = |c: &&Claim| c.covers(build_id, arch) && c.is_about(implementation);
    let verdicts: Vec<Cell> = claims.iter().filter(about).filter_map(|c| c.cells.get(&cell).copied()).collect();
    if verdicts.contains(&Cell::Fail) {
        Standing::Failed
    } else if verdicts.iter().any(|v| matches!(v, Cell::Pass | Cell::Waived)) {
        Standing::Passed
    } else {
        Standing::Uncovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(cells: &[(&str, Cell)]) -> Claim {
        Claim {
            format: 1,
            suite: "0".into(),
            cases_sha256: String::new(),
            tier: "smoke".into(),
            backend: "b".into(),
            version: "1".into(),
            build_id: "id".into(),
            library_sha256: String::new(),
            arch: "a".into(),
            device: "d".into(),
            driver: "v".into(),
            time_s: 0,
            implementation: Implementation::Any,
            compiler: crate::module::COMPILER_ID.into(),
            cells: cells.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            waivers: vec![],
            signature: None,
        }
    }

    #[test]
    fn a_failure_outweighs_a_pass_and_other_builds_do_not_count() {
        let claims = [claim(&[("add/f32", Cell::Pass), ("mul/f32", Cell::Pass)]), claim(&[("mul/f32", Cell::Fail)])];
        assert_eq!(standing(&claims, Implementation::Native, "id", "a", "add", "f32"), Standing::Passed);
        assert_eq!(standing(&claims, Implementation::Native, "id", "a", "mul", "f32"), Standing::Failed);
        assert_eq!(standing(&claims, Implementation::Native, "id", "a", "exp", "f32"), Standing::Uncovered);
        assert_eq!(standing(&claims, Implementation::Native, "id", "other", "mul", "f32"), Standing::Uncovered);
    }
    #[test]
    fn portable_kernels_have_claims_of_their_own() {
        let mut claims = [claim(&[("add/f32", Cell::Fail)])];
        let both = |claims: &[Claim]| [Implementation::Native, Implementation::Portable].map(|i| standing(claims, i, "id", "a", "add", "f32"));
        assert_eq!(both(&claims), [Standing::Failed, Standing::Failed]);
        claims[0].implementation = Implementation::Portable;
        assert_eq!(both(&claims), [Standing::Uncovered, Standing::Failed]);
        claims[0].compiler = "another".into();
        assert_eq!(both(&claims), [Standing::Uncovered, Standing::Uncovered]);
        claims[0].implementation = Implementation::Native;
        assert_eq!(both(&claims), [Standing::Failed, Standing::Uncovered]);
    }
}
