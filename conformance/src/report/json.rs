//! The JSON report. Its form is kept; see the crate's README.

use flagos_backend_api::{Error, Result};
use serde::Serialize;

use super::Report;

#[derive(Serialize)]
struct File<'a> {
    /// Form of the file.
    format: u32,
    /// Whether every backend passed.
    passed: bool,
    /// One report per backend.
    backends: &'a [Report],
}

/// The file's text.
pub fn text(reports: &[Report]) -> Result<String> {
    let file = File { format: 1, passed: reports.iter().all(|r| r.passed), backends: reports };
    serde_json::to_string_pretty(&file).map(|t| t + "\n").map_err(|e| Error::invalid(format!("the JSON report: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_form_is_the_documented_one() {
        let text = super::text(&[crate::report::sample::report()]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let backend = &value["backends"][0];
        assert_eq!((value["format"].as_u64(), value["passed"].as_bool()), (Some(1), Some(false)));
        assert_eq!(backend["cells"][0]["cell"], "add/f32");
        assert_eq!(backend["cells"][0]["worst"]["ulp"], 0.5);
        assert_eq!(backend["cases"][2]["verdict"], "fail");
        assert_eq!(backend["cases"][2]["failures"][0]["check"], "value");
        assert_eq!(backend["profiles"][0]["unsupported"][0], "add/f64");
        for key in ["suite", "tier", "seed", "cases_sha256", "started_s", "time_ns", "totals", "notes"] {
            assert!(!backend[key].is_null(), "{key}");
        }
    }
}
