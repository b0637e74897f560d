//! Runs cases in worker processes: batches, timeouts, restarts, several workers at once.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flagos_backend_api::{Code, Error, Result};
use flagos_runtime::claims::Implementation;

use crate::check::Check;
use crate::outcome::{CaseResult, Failure};
use crate::plan::{Entry, Run};
use crate::process::{Process, Silence, describe};
use crate::protocol::{Found, Identity, Reply, Request, Target};

/// Time for discovery, loading and opening a device.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// Most cases told to a worker at once.
const MOST_BATCH: usize = 64;

/// How workers are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Command line of a worker.
    pub command: Vec<OsString>,
    /// Backend and device.
    pub target: Target,
    /// Ordinal of the device.
    pub ordinal: u32,
    /// Tier by name.
    pub tier: String,
    /// Seed of contents.
    pub seed: u64,
    /// Which implementations may run.
    pub implementation: Implementation,
    /// Workers at once.
    pub jobs: usize,
    /// Longest a case may take.
    pub timeout: Duration,
}

/// Why nothing can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Unavailable {
    /// The reason.
    pub reason: String,
    /// Nothing is wrong: the chip is absent, or the user left the backend out.
    pub expected: bool,
}

/// What discovery finds, asked of a worker so that no vendor code runs here.
pub fn list(command: &[OsString]) -> Result<Vec<Found>> {
    let mut process = Process::start(command)?;
    process.ask(&Request::List);
    match process.reply(OPEN_TIMEOUT) {
        Ok(Reply::Found(found)) => Ok(found),
        other => {
            let what = silence(other, OPEN_TIMEOUT);
            let text = format!("looking for backends: the worker {what}; name the backends one by one with --backend\n{}", process.output());
            Err(Error::new(Code::INTERNAL, text.trim_end()))
        }
    }
}

fn silence(reply: Result<Reply, Silence>, timeout: Duration) -> String {
    match reply {
        Ok(other) => format!("answered {other:?}"),
        Err(Silence::Timeout) => format!("did not answer within {} s", timeout.as_secs_f64()),
        Err(Silence::Died(status)) => describe(status),
    }
}

/// Starts a worker and has it open the backend.
fn open(settings: &Settings) -> Result<(Process, Identity), Unavailable> {
    let unavailable = |reason: String| Unavailable { reason, expected: false };
    let mut process = Process::start(&settings.command).map_err(|e| unavailable(e.message))?;
    process.ask(&Request::Open { target: settings.target.clone(), ordinal: settings.ordinal, tier: settings.tier.clone(), seed: settings.seed, implementation: settings.implementation });
    match process.reply(OPEN_TIMEOUT) {
        Ok(Reply::Opened(identity)) => Ok((process, *identity)),
        Ok(Reply::Refused { reason, expected }) => Err(Unavailable { reason, expected }),
        other => {
            let what = silence(other, OPEN_TIMEOUT);
            Err(unavailable(format!("loading {}: the worker {what}\n{}", settings.target, process.output()).trim_end().to_owned()))
        }
    }
}

/// Runs cases; `each` sees every result as it comes. Results are in no particular order.
pub fn run(settings: &Settings, entries: &[&Entry], each: &mut dyn FnMut(&CaseResult)) -> Result<(Identity, Vec<CaseResult>), Unavailable> {
    let (first, identity) = open(settings)?;
    let jobs = settings.jobs.clamp(1, entries.len().max(1));
    let queue = Mutex::new(batches(entries, jobs));
    let (sender, receiver) = mpsc::channel();
    let mut results = Vec::with_capacity(entries.len());
    std::thread::scope(|scope| {
        let mut first = Some(first);
        for _ in 0..jobs {
            let (sender, queue, process) = (sender.clone(), &queue, first.take());
            scope.spawn(move || work(settings, queue, process, &sender));
        }
        drop(sender);
        for result in receiver {
            each(&result);
            results.push(result);
        }
    });
    Ok((identity, results))
}

/// Cases in the order of the plan, in batches small enough for all workers to end at about the same time; isolated ones alone.
fn batches<'a>(entries: &[&'a Entry], jobs: usize) -> VecDeque<Vec<&'a Entry>> {
    let most = (entries.len() / (jobs * 4)).clamp(1, MOST_BATCH);
    let mut queue: VecDeque<Vec<&Entry>> = VecDeque::new();
    for entry in entries {
        match queue.back_mut() {
            Some(last) if last.len() < most && !entry.isolated && !last[0].isolated => last.push(entry),
            _ => queue.push_back(vec![entry]),
        }
    }
    queue
}

fn work(settings: &Settings, queue: &Mutex<VecDeque<Vec<&Entry>>>, mut process: Option<Process>, sender: &mpsc::Sender<CaseResult>) {
    let put = |result| {
        // The receiver lives as long as the scope.
        let _ = sender.send(result);
    };
    loop {
        let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(batch) = batch else { return };
        let mut at = 0;
        while at < batch.len() {
            let mut worker = match process.take().map_or_else(|| open(settings).map(|(p, _)| p), Ok) {
                Ok(worker) => worker,
                Err(e) => {
                    batch[at..].iter().for_each(|c| put(CaseResult::fail(&c.id, Failure::new(Check::Load, e.reason.clone()))));
                    break;
                }
            };
            worker.ask(&Request::Run { ids: batch[at..].iter().map(|c| c.id.clone()).collect() });
            match serve(&mut worker, settings.timeout, &batch, &mut at, &put) {
                // Isolated cases leave the process unfit.
                Ended::Over if !batch[0].isolated => process = Some(worker),
                Ended::Over | Ended::Spent => {}
                Ended::Lost(result) => {
                    put(*result);
                    at += 1;
                }
            }
        }
    }
}

/// Takes the replies of a batch from `at` on.
fn serve(worker: &mut Process, timeout: Duration, batch: &[&Entry], at: &mut usize, put: &dyn Fn(CaseResult)) -> Ended {
    while *at < batch.len() {
        let Entry { id, run, .. } = &batch[*at];
        // A property is some dozens of calls, each with code to be compiled.
        let timeout = if matches!(run, Run::Property(..)) { timeout * 4 } else { timeout };
        let failure = match worker.reply(timeout) {
            Ok(Reply::Begin { .. }) => continue,
            Ok(Reply::Done(result)) => {
                // A backend that panicked or lost its device is out of use in that process.
                let spent = result.failures.iter().any(|f| matches!(f.check, Check::Panic | Check::DeviceLost));
                put(*result);
                *at += 1;
                if spent {
                    return Ended::Spent;
                }
                continue;
            }
            Ok(other) => Failure::new(Check::Crash, format!("the worker answered {other:?} in the middle of a case")),
            Err(Silence::Timeout) => Failure::new(Check::Timeout, format!("not over within {} s; raise the limit with --timeout-s if it is only slow", timeout.as_secs_f64())),
            Err(Silence::Died(status)) => Failure::new(Check::Crash, format!("the process was {}", describe(status))),
        };
        return Ended::Lost(Box::new(CaseResult { output: worker.output(), ..CaseResult::fail(id, failure) }));
    }
    Ended::Over
}

/// How a worker came out of a batch.
enum Ended {
    /// The batch is over.
    Over,
    /// The worker lives, and its backend is of no more use.
    Spent,
    /// The worker is gone; this is what became of the case it was at.
    Lost(Box<CaseResult>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn settings(script: &str, timeout_ms: u64) -> Settings {
        Settings {
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            target: Target::Name("x".into()),
            ordinal: 0,
            tier: "smoke".into(),
            seed: 1,
            implementation: Implementation::Any,
            jobs: 1,
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    const OPENED: &str = r#"read r; echo '{"opened":{"backend":"x","version":"","vendor":"","build_id":"","compiler":"","abi_minor":0,"library":"","library_sha256":"","manifest":"","device":"","product":"","arch":"","driver":""}}' >&0; read r;"#;

    fn run_two(script: &str) -> Vec<CaseResult> {
        let plan = Plan::new(flagos_catalog::Tier::Smoke);
        let entries: Vec<&Entry> = plan.entries().iter().filter(|e| e.cell.is_some()).take(2).collect();
        run(&settings(&format!("{OPENED}{script}"), 2000), &entries, &mut |_| {}).unwrap().1
    }

    #[test]
    fn a_crash_is_one_failed_case_and_the_next_runs_in_a_new_worker() {
        let results = run_two("echo trace >&2; kill -SEGV $$");
        assert_eq!(results.len(), 2);
        for r in &results {
            assert_eq!(r.failures[0].check, Check::Crash);
            assert!(r.failures[0].message.contains("SIGSEGV") && r.output.contains("trace"), "{r:?}");
        }
    }

    #[test]
    fn a_backend_that_is_refused_runs_nothing() {
        let plan = Plan::new(flagos_catalog::Tier::Smoke);
        let refused = settings("read r; echo '{\"refused\":{\"reason\":\"no chip\",\"expected\":true}}' >&0", 1000);
        let out = run(&refused, &[&plan.entries()[0]], &mut |_| {});
        assert_eq!(out.unwrap_err(), Unavailable { reason: "no chip".into(), expected: true });
    }

    #[test]
    fn isolated_cases_have_batches_of_their_own_and_no_case_is_lost() {
        let plan = Plan::new(flagos_catalog::Tier::Smoke);
        let entries: Vec<&Entry> = plan.entries().iter().collect();
        let queue = batches(&entries, 3);
        assert_eq!(queue.iter().map(Vec::len).sum::<usize>(), entries.len());
        assert!(queue.iter().all(|b| b.len() == 1 || b.iter().all(|e| !e.isolated)));
    }
}
