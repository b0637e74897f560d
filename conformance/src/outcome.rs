//! What a case came to.

use flagos_backend_api::{Code, Error};
use serde::{Deserialize, Serialize};

use crate::check::Check;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The check that caught it.
    pub check: Check,
    /// What is wrong, with the values.
    pub message: String,
}

impl Failure {
    /// A failure of a check.
    pub fn new(check: Check, message: impl Into<String>) -> Failure {
        Failure { check, message: message.into() }
    }
}

impl From<Error> for Failure {
    /// A valid call that was refused; panics and lost devices have checks of their own.
    fn from(e: Error) -> Failure {
        let check = match e.code {
            Code::PLUGIN_PANIC => Check::Panic,
            Code::DEVICE_LOST => Check::DeviceLost,
            _ => Check::Error,
        };
        Failure::new(check, e.to_string())
    }
}

/// How a case ended, before exceptions are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every check passed.
    Pass,
    /// A check failed.
    Fail,
    /// The backend does not offer the call.
    Unsupported,
    /// The case does not apply to this device (an optional slot that is empty).
    Skipped,
}

/// Who ran the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The backend's own table.
    Native,
    /// The catalogue's kernel, compiled for the device.
    Portable,
    /// Another device, with copies. Never counts for the chip.
    Fallback,
}

/// The worst error of a case, in the unit of its numerics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Worst {
    /// Units in the last place.
    Ulp(f64),
    /// Fraction of the bound.
    Bound(f64),
}

impl Worst {
    /// The greater of two; ULPs tell more than fractions.
    pub fn max(a: Option<Worst>, b: Option<Worst>) -> Option<Worst> {
        match (a, b) {
            (Some(Worst::Ulp(x)), Some(Worst::Ulp(y))) => Some(Worst::Ulp(x.max(y))),
            (Some(Worst::Bound(x)), Some(Worst::Bound(y))) => Some(Worst::Bound(x.max(y))),
            (Some(ulp @ Worst::Ulp(_)), _) | (_, Some(ulp @ Worst::Ulp(_))) => Some(ulp),
            (a, b) => a.or(b),
        }
    }
}

impl core::fmt::Display for Worst {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(&match self {
            Worst::Ulp(x) if *x >= 1e4 => format!("{x:.0e} ulp"),
            Worst::Ulp(x) => format!("{x:.2} ulp"),
            Worst::Bound(x) if *x >= 100.0 => format!("{x:.0e} bounds"),
            Worst::Bound(x) => format!("{:.0}%", x * 100.0),
        })
    }
}

/// Result of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Case id.
    pub id: String,
    /// How it ended.
    pub status: Status,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The implementation by its own name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub implementation: String,
    /// Worst error, when finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<Worst>,
    /// What is wrong, the most telling first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Why it is unsupported or was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the process wrote before it died, backtrace included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Time in ns.
    pub time_ns: u64,
}

impl CaseResult {
    /// A result with nothing but its status.
    pub fn new(id: &str, status: Status) -> CaseResult {
        CaseResult {
            id: id.to_owned(),
            status,
            source: None,
            implementation: String::new(),
            worst: None,
            failures: Vec::new(),
            reason: String::new(),
            output: String::new(),
            time_ns: 0,
        }
    }
    /// A failed case.
    pub fn fail(id: &str, failure: Failure) -> CaseResult {
        CaseResult { failures: vec![failure], ..CaseResult::new(id, Status::Fail) }
    }
    /// Adds failures; the most telling one comes first.
    pub fn add(&mut self, failures: impl IntoIterator<Item = Failure>) {
        self.failures.extend(failures);
        self.failures.sort_by_key(|f| f.check);
        if !self.failures.is_empty() {
            self.status = Status::Fail;
        }
    }
}

/// Why a case stopped early.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// Something is wrong.
    Fail(Failure),
    /// It does not apply to this device; with the reason.
    Skip(String),
}

/// Result of a step of a case.
pub type Step<T = ()> = Result<T, Stop>;

impl From<Failure> for Stop {
    fn from(f: Failure) -> Stop {
        Stop::Fail(f)
    }
}
impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Fail(e.into())
    }
}

/// Stops a case with a failure.
pub fn fail<T>(check: Check, message: impl Into<String>) -> Step<T> {
    Err(Failure::new(check, message).into())
}

/// Stops a case with a failure unless a condition holds.
pub fn ensure(holds: bool, check: Check, message: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { fail(check, message()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_failure_comes_first() {
        let mut result = CaseResult::new("x", Status::Pass);
        result.add([Failure::new(Check::Value, "v"), Failure::new(Check::Guard, "g")]);
        assert_eq!((result.status, result.failures[0].check), (Status::Fail, Check::Guard));
    }

    #[test]
    fn results_survive_json() {
        let mut result = CaseResult::fail("add/f32/odd", Error::new(Code::PLUGIN_PANIC, "boom").into());
        result.worst = Some(Worst::Ulp(0.5));
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<CaseResult>(&text).unwrap(), result);
        assert_eq!(result.failures[0].check, Check::Panic);
    }
}
