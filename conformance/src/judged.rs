//! Verdicts: a case's result seen through the backend's exceptions.

use flagos_runtime::discover::glob;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::exceptions::{Kind, Listed};
use crate::outcome::{CaseResult, Failure, Status};

/// What a case counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Passed.
    Pass,
    /// Failed.
    Fail,
    /// Not offered.
    Unsupported,
    /// Does not apply to this device.
    Skipped,
    /// Failed, as listed.
    Xfail,
    /// Listed as failing or unsupported, and passed: the list is wrong, and the run fails.
    UnexpectedPass,
    /// Failed, waived on this device.
    Waived,
}

impl Verdict {
    /// Whether the run fails by it.
    pub fn is_bad(self) -> bool {
        matches!(self, Verdict::Fail | Verdict::UnexpectedPass)
    }
}

/// A result with its verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What it counts as.
    pub verdict: Verdict,
    /// Family, for tables.
    pub family: &'static str,
    /// The result.
    #[serde(flatten)]
    pub result: CaseResult,
    /// Owner and reason of the exception that was applied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exception: String,
}

/// Applies the exceptions in force; the first that fits counts.
pub fn judge(mut result: CaseResult, family: &'static str, exceptions: &[Listed<'_>]) -> Judged {
    let found = exceptions.iter().find(|(_, e)| glob(&e.case, &result.id));
    let exception = found.map_or_else(String::new, |(_, e)| format!("{} ({}, until {})", e.reason, e.owner, e.expires));
    let verdict = match (found.map(|(kind, _)| *kind), result.status) {
        (Some(Kind::Xfail | Kind::Unsupported), Status::Pass) => {
            let text = "the case passed, although conformance.toml lists it; remove the entry".to_owned();
            result.failures.push(Failure::new(Check::UnexpectedPass, text));
            Verdict::UnexpectedPass
        }
        (Some(Kind::Xfail), Status::Fail) => Verdict::Xfail,
        (Some(Kind::Waived), Status::Fail) => Verdict::Waived,
        (_, Status::Pass) => Verdict::Pass,
        (_, Status::Fail) => Verdict::Fail,
        (_, Status::Unsupported) => Verdict::Unsupported,
        (_, Status::Skipped) => Verdict::Skipped,
    };
    Judged { verdict, family, result, exception }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::exceptions::{Day, Exceptions};

    #[test]
    fn exceptions_excuse_what_they_list_and_nothing_else() {
        let entry = |kind: &str, case: &str| {
            format!("[[{kind}]]\ncase='{case}'\nowner='o'\nexpires=2099-01-01\nreason='r'\n{}", if kind == "waived" { "device='*'" } else { "" })
        };
        let text = format!("format=1\n{}\n{}\n{}", entry("xfail", "a/*"), entry("waived", "b/*"), entry("unsupported", "c/*"));
        let file = Exceptions::parse(&text, Path::new("t")).unwrap();
        let (live, _) = file.in_force("d", "v", Day::new(2026, 1, 1));
        let verdict = |id: &str, status| judge(CaseResult::new(id, status), "f", &live).verdict;
        assert_eq!(verdict("a/1", Status::Fail), Verdict::Xfail);
        assert_eq!(verdict("a/1", Status::Pass), Verdict::UnexpectedPass);
        assert_eq!(verdict("b/1", Status::Fail), Verdict::Waived);
        assert_eq!(verdict("b/1", Status::Pass), Verdict::Pass);
        assert_eq!(verdict("c/1", Status::Fail), Verdict::Fail);
        assert_eq!(verdict("c/1", Status::Unsupported), Verdict::Unsupported);
        assert_eq!(verdict("c/1", Status::Pass), Verdict::UnexpectedPass);
        assert_eq!(verdict("d/1", Status::Fail), Verdict::Fail);
    }
}
