//! Selection: which implementation a call gets, and the reasons, candidate by candidate.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use flagos_backend_api::{Answer, Code, Result};
use serde::Serialize;

use crate::claims::{Implementation, Standing, standing};
use crate::device::Device;
use crate::driver::{Driver, text};
use crate::fallback::{FallbackPlan, nothing_left};
use crate::plan::Plan;
use crate::policy::{Fallback, Policy, Source};
use crate::portable;
use crate::work::Work;

/// Scores of answers; a portable kernel scores between them.
const SCORE_YES: u32 = 100;
const SCORE_PORTABLE: u32 = 50;
const SCORE_SLOW: u32 = 10;

/// One candidate with its score and reason.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Token of the source (`native`, `portable`, `fallback`, `backend:NAME`).
    pub source: String,
    /// Backend that would run it.
    pub backend: String,
    /// 0: not usable.
    pub score: u32,
    /// What claims say.
    pub standing: Standing,
    /// Why it is usable or not.
    pub reason: String,
}

/// How a call was settled.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Operator.
    pub operator: String,
    /// Element type of its cell.
    pub dtype: String,
    /// Device asked for.
    pub device: String,
    /// Index of the winner among `candidates`; `None` when nothing may run it.
    pub chosen: Option<usize>,
    /// Candidates in the order tried.
    pub candidates: Vec<Candidate>,
}

/// Judges one backend's own implementation.
fn judge(work: &Work, device: &Device, policy: &Policy, source: String) -> Candidate {
    let driver = device.driver();
    let (operator, dtype) = (work.name(), work.dtype().to_string());
    let claims = &driver.backend.claims;
    let standing = standing(claims, Implementation::Native, &driver.backend.build_id, &device.info().arch, &operator, &dtype);
    let (score, reason) = match barred(policy, &operator, standing, driver) {
        Some(why) => (0, why),
        None => rate(work, device, driver),
    };
    Candidate { source, backend: driver.backend.name.clone(), score, standing, reason }
}

/// Judges the portable kernels of a call on its device. Nothing is compiled.
fn judge_portable(work: &Work, device: &Device, policy: &Policy) -> Candidate {
    let driver = device.driver();
    let (operator, dtype) = (work.name(), work.dtype().to_string());
    let standing = standing(&driver.backend.claims, Implementation::Portable, &driver.backend.build_id, &device.info().arch, &operator, &dtype);
    let (score, reason) = match (barred(policy, &operator, standing, driver), portable::recipe(device, work)) {
        (Some(why), _) => (0, why),
        (None, Ok(recipe)) => (SCORE_PORTABLE, format!("kernels: {}", portable::keys(&recipe))),
        (None, Err(e)) => (0, e.message),
    };
    Candidate { source: Source::Portable.to_string(), backend: driver.backend.name.clone(), score, standing, reason }
}

/// Why nothing of a backend may run an operator, if so.
fn barred(policy: &Policy, operator: &str, standing: Standing, driver: &Driver) -> Option<String> {
    if let Some(why) = driver.quarantine_reason() {
        return Some(format!("quarantined: {why}"));
    }
    if policy.is_revoked(&driver.backend.name, operator) {
        return Some(format!("revoked by the policy ({}/{operator})", driver.backend.name));
    }
    if standing == Standing::Failed {
        return Some("a conformance claim for this build and target fails this cell".into());
    }
    if standing == Standing::Uncovered && policy.strict && !driver.backend.is_embedded() {
        return Some("strict mode: no conformance claim covers this cell".into());
    }
    None
}

fn rate(work: &Work, device: &Device, driver: &Driver) -> (u32, String) {
    match work.query(driver, device.0.raw, 0) {
        None => (0, "the backend has no table for this domain".into()),
        Some(Err(e)) => (0, e.to_string()),
        Some(Ok(support)) => {
            let reason = text(support.reason);
            let or = |default: &str| if reason.is_empty() { default.to_owned() } else { reason.clone() };
            match Answer(support.answer) {
                Answer::YES => (SCORE_YES, or("offered by the backend")),
                Answer::YES_SLOW => (SCORE_SLOW, or("offered, but slow by its own word")),
                _ => (0, or("not offered")),
            }
        }
    }
}

/// Settles a call without planning it.
pub(crate) fn choose(work: &Work, device: &Device) -> Result<Choice> {
    let policy = device.0.runtime.policy();
    let (operator, dtype) = (work.name(), work.dtype().to_string());
    let decision = policy.decide(&operator, &dtype, device.backend());
    let mut choice = Choice { operator, dtype, device: device.name().to_owned(), chosen: None, candidates: Vec::new() };
    for source in &decision.order {
        let candidate = match source {
            Source::Native => judge(work, device, &policy, source.to_string()),
            Source::Portable => judge_portable(work, device, &policy),
            Source::Fallback | Source::Backend(_) => match other_device(source, device, &decision.fallback)? {
                Ok(other) => judge(work, &other, &policy, source.to_string()),
                Err(reason) => Candidate { source: source.to_string(), backend: String::new(), score: 0, standing: Standing::Uncovered, reason },
            },
        };
        choice.candidates.push(candidate);
    }
    choice.chosen = ranking(&choice.candidates).first().copied();
    Ok(choice)
}

/// Usable candidates in the order to try them: as the policy lists them, but a native implementation that is slow by its own word gives way to
/// portable kernels. Fallbacks never outrank what the device has.
fn ranking(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].score > 0).collect();
    let place = |order: &[usize], token: &str| order.iter().position(|i| candidates[*i].source == token);
    if let (Some(native), Some(portable)) = (place(&order, "native"), place(&order, "portable"))
        && native < portable
        && candidates[order[native]].score < candidates[order[portable]].score
    {
        let better = order.remove(portable);
        order.insert(native, better);
    }
    order
}

/// The device another source stands for, or why there is none.
fn other_device(source: &Source, device: &Device, fallback: &Fallback) -> Result<Result<Device, String>> {
    let runtime = device.runtime();
    let name = match source {
        Source::Backend(name) => name.clone(),
        _ if *fallback == Fallback::Forbid => return Ok(Err("fallback is forbidden by the policy".into())),
        _ => match runtime.fallback_backend() {
            Some(name) => name,
            None => return Ok(Err("no backend is linked into this build to fall back on".into())),
        },
    };
    if name == device.backend() {
        return Ok(Err(format!("'{name}' is the device's own backend")));
    }
    Ok(runtime.open(&name).map_err(|e| e.to_string()))
}

/// Settles and plans a call: the candidates in order, the next one where planning answers UNIMPLEMENTED or UNAVAILABLE.
pub(crate) fn plan(work: &Work, device: &Device, deterministic: bool) -> Result<Plan> {
    work.check()?;
    let mut choice = choose(work, device)?;
    let policy = device.0.runtime.policy();
    let fallback = policy.decide(&choice.operator, &choice.dtype, device.backend()).fallback;
    for index in ranking(&choice.candidates) {
        choice.chosen = Some(index);
        let source = Source::from_token(&choice.candidates[index].source);
        let made = match &source {
            Source::Native => Plan::make(device, work, choice.clone(), deterministic),
            Source::Portable => Plan::portable(device, work, choice.clone(), deterministic),
            _ => other_device(&source, device, &fallback)?
                .map_err(flagos_backend_api::Error::unimplemented)
                .and_then(|other| Plan::make(&other, work, choice.clone(), deterministic))
                .and_then(FallbackPlan::new)
                .and_then(|inner| Plan::fallback(device, work, inner, choice.clone())),
        };
        match made {
            Ok(plan) => {
                warn(device, &choice, index, fallback);
                return Ok(plan);
            }
            Err(e) if matches!(e.code, Code::UNIMPLEMENTED | Code::UNAVAILABLE) => {
                let candidate = &mut choice.candidates[index];
                (candidate.score, candidate.reason) = (0, format!("planning refused: {}", e.message));
            }
            Err(e) => return Err(e),
        }
    }
    let reasons: Vec<String> = choice.candidates.iter().map(|c| format!("{}: {}", c.source, c.reason)).collect();
    Err(nothing_left(&choice.operator, &choice.dtype, device.name(), &reasons))
}

/// Says once what a user must know: a fallback, or the first cell of a backend that no claim covers although it ships claims.
fn warn(device: &Device, choice: &Choice, index: usize, fallback: Fallback) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let once = |key: String| SAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(key);
    let candidate = &choice.candidates[index];
    let (operator, dtype) = (&choice.operator, &choice.dtype);
    if !matches!(candidate.source.as_str(), "native" | "portable") {
        if fallback == Fallback::Warn && once(format!("{}/{operator}", device.name())) {
            let why = choice.candidates.first().map_or("", |c| c.reason.as_str());
            crate::log::warn(&format!("{operator} of {dtype} on {} runs on '{}' with copies ({why}); counted, see `flagos explain {operator}`", device.name(), candidate.backend));
        }
        return;
    }
    let driver: &Arc<Driver> = &device.0.driver;
    if candidate.standing == Standing::Uncovered && !driver.backend.is_embedded() && once(driver.backend.name.clone()) {
        let claims = driver.backend.claims.len();
        let how = if claims == 0 { "it ships no claims".to_owned() } else { format!("its {claims} claims are for other builds, targets or cells") };
        crate::log::info(&format!("{operator} of {dtype} on '{}' is not covered by a conformance claim: {how}; run `flagos conformance --backend {}`", driver.backend.name, driver.backend.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(list: &[(&str, u32)]) -> Vec<Candidate> {
        let one = |(source, score): &(&str, u32)| Candidate { source: (*source).into(), backend: "b".into(), score: *score, standing: Standing::Uncovered, reason: String::new() };
        list.iter().map(one).collect()
    }

    #[test]
    fn slow_native_code_gives_way_to_portable_kernels_and_to_nothing_else() {
        let rank = |list: &[(&str, u32)]| ranking(&candidates(list));
        assert_eq!(rank(&[("native", SCORE_YES), ("portable", SCORE_PORTABLE), ("fallback", SCORE_YES)]), [0, 1, 2]);
        assert_eq!(rank(&[("native", SCORE_SLOW), ("portable", SCORE_PORTABLE), ("fallback", SCORE_YES)]), [1, 0, 2]);
        assert_eq!(rank(&[("native", SCORE_SLOW), ("portable", 0), ("fallback", SCORE_YES)]), [0, 2]);
        assert_eq!(rank(&[("portable", SCORE_PORTABLE), ("native", SCORE_YES)]), [0, 1]);
        assert_eq!(rank(&[("native", 0), ("portable", 0)]), [0usize; 0]);
    }
}
