//! Writes a claim: the verdicts of a run, bound to build, library, target and driver, in the form the host enforces.

use std::path::{Path, PathBuf};

use flagos_backend_api::{Error, Result};
use flagos_runtime::COMPILER_ID;
use flagos_runtime::claims::{Claim, Implementation};

use crate::judged::Verdict;
use crate::report::Report;

/// The claim of a report: cells whose cases all ran, and failed ones.
pub fn of(report: &Report) -> Claim {
    let id = &report.backend;
    let waived = report.cases.iter().filter(|j| j.verdict == Verdict::Waived);
    Claim {
        format: 1,
        suite: report.suite.to_owned(),
        cases_sha256: report.cases_sha256.clone(),
        tier: report.tier.to_owned(),
        backend: id.backend.clone(),
        version: id.version.clone(),
        build_id: id.build_id.clone(),
        library_sha256: id.library_sha256.clone(),
        arch: id.arch.clone(),
        device: id.product.clone(),
        driver: id.driver.clone(),
        time_s: report.started_s,
        implementation: report.implementation,
        compiler: COMPILER_ID.to_owned(),
        cells: report.cells.iter().filter_map(|row| Some((row.cell.to_string(), row.claim()?))).collect(),
        waivers: waived.map(|j| format!("{}: {}", j.result.id, j.exception)).collect(),
        signature: None,
    }
}

/// Writes the claim of a report into a folder, as `BACKEND-ARCH.json` (`-native`, `-portable` where only these ran), and returns the path.
pub fn write(report: &Report, folder: &Path) -> Result<PathBuf> {
    let claim = of(report);
    let safe = |text: &str| text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect::<String>();
    let about = match claim.implementation {
        Implementation::Any => "",
        Implementation::Native => "-native",
        Implementation::Portable => "-portable",
    };
    let path = folder.join(format!("{}-{}{about}.json", safe(&claim.backend), safe(&claim.arch)));
    let fault = |e: std::io::Error| Error::invalid(format!("claim {}: {e}", path.display()));
    std::fs::create_dir_all(folder).map_err(fault)?;
    let text = serde_json::to_string_pretty(&claim).map_err(|e| fault(e.into()))?;
    std::fs::write(&path, text + "\n").map_err(fault)?;
    Ok(path)
}
