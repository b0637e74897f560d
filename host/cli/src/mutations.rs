//! The suite tested: each planted defect must be caught by the check made for it, and the same cases must pass without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use flagos_conformance::{Options, Target, run};
use flagos_runtime::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::output::{Output, Tone, plain};

/// The variable that plants a defect in the template backend.
const VARIABLE: &str = "FLAGOS_NULL_FAULT";
/// The template backend.
const BACKEND: &str = "null";

#[derive(Deserialize)]
struct File {
    mutation: Vec<Mutation>,
}

/// One planted defect.
#[derive(Deserialize)]
struct Mutation {
    /// Value of the variable.
    fault: String,
    /// Check that must catch it.
    check: String,
    /// Glob of the cases to run.
    cases: String,
}

/// What became of one.
#[derive(Serialize)]
struct Verdict {
    fault: String,
    check: String,
    caught: bool,
    detail: String,
}

/// Runs every mutation in a process of its own, as the defect is chosen by the environment.
pub fn run_all(path: &Path, options: &Options, output: &Output) -> Result<ExitCode> {
    let bad = |e: String| Error::new(Code::DATA_LOSS, format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let clean = clean(&file, options)?;
    let mut verdicts = Vec::new();
    for (i, mutation) in file.mutation.iter().enumerate() {
        if options.progress {
            eprint!("\r\x1b[K[{}/{}] {}", i + 1, file.mutation.len(), mutation.fault);
        }
        verdicts.push(one(mutation, options, &clean)?);
    }
    if options.progress {
        eprint!("\r\x1b[K");
    }
    let missed = verdicts.iter().filter(|v| !v.caught).count();
    if output.is_json() {
        output.json(&verdicts)?;
    } else {
        let rows: Vec<_> = verdicts
            .iter()
            .map(|v| {
                let mark = if v.caught { (Tone::Good, "caught".to_owned()) } else { (Tone::Bad, "MISSED".to_owned()) };
                vec![mark, plain(&v.fault), plain(&v.check), plain(&v.detail)]
            })
            .collect();
        output.table(&["", "DEFECT", "CHECK", "WHAT THE CHECK SAID"], &rows);
        output.text(&format!("\n{} planted defects, {} caught by their own check, {missed} missed", verdicts.len(), verdicts.len() - missed));
    }
    Ok(if missed == 0 && !verdicts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ids of cases that fail without any defect: what fails anyway proves nothing.
fn clean(file: &File, options: &Options) -> Result<BTreeMap<String, String>> {
    let mut cases: Vec<String> = file.mutation.iter().map(|m| m.cases.clone()).collect();
    cases.sort();
    cases.dedup();
    let options = Options { cases, targets: vec![Target::Name(BACKEND.into())], json: None, junit: None, html: None, claims: None, ..options.clone() };
    let summary = run(&options, &mut std::io::sink())?;
    let mut failing = BTreeMap::new();
    for case in summary.reports.iter().flat_map(|r| &r.cases) {
        for failure in &case.result.failures {
            failing.insert(format!("{} {}", case.result.id, failure.check.id()), failure.message.clone());
        }
    }
    Ok(failing)
}

fn one(mutation: &Mutation, options: &Options, clean: &BTreeMap<String, String>) -> Result<Verdict> {
    let own = std::env::current_exe().map_err(|e| Error::new(Code::INTERNAL, format!("the path of this program is unknown: {e}")))?;
    let seed = options.seed.to_string();
    let mut command = Command::new(own);
    command.args(["conformance", "--json", "--backend", BACKEND, "--case", &mutation.cases, "--seed", &seed, "--timeout-s", "5", "--jobs", "1"]);
    let ran = command.env(VARIABLE, &mutation.fault).stderr(Stdio::null()).output();
    let ran = ran.map_err(|e| Error::new(Code::INTERNAL, format!("cannot run a child: {e}")))?;
    let reports: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    let mut others = Vec::new();
    let mut verdict = Verdict { fault: mutation.fault.clone(), check: mutation.check.clone(), caught: false, detail: String::new() };
    let list = |v: &serde_json::Value, name: &str| v[name].as_array().cloned().unwrap_or_default();
    for case in reports.as_array().into_iter().flatten().flat_map(|r| list(r, "cases")) {
        for failure in list(&case, "failures") {
            let (check, message) = (failure["check"].as_str().unwrap_or(""), failure["message"].as_str().unwrap_or(""));
            let id = case["id"].as_str().unwrap_or("");
            if check != mutation.check {
                others.push(format!("{id}: {check}"));
            } else if !clean.contains_key(&format!("{id} {check}")) {
                verdict.caught = true;
                verdict.detail = format!("{id}: {message}");
            }
        }
    }
    if !verdict.caught {
        let exit = ran.status.code().map_or_else(|| ran.status.to_string(), |c| format!("exit {c}"));
        verdict.detail = if others.is_empty() { format!("no check failed ({exit})") } else { format!("other checks only: {}", others.join(", ")) };
    }
    verdict.detail = verdict.detail.chars().take(160).collect();
    Ok(verdict)
}
