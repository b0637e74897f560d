//! `flagos doctor`, `backends`, `devices`, `env`: what is there and why the rest is not.

use std::process::ExitCode;

use flagos_runtime::discover::{Candidate, Outcome};
use flagos_runtime::{Result, Runtime, env as variables};
use serde_json::json;

use crate::output::{Output, Tone, bytes, duration, plain};

/// Every candidate, its devices, and notes.
pub fn doctor(runtime: &Runtime, output: &Output) -> Result<ExitCode> {
    let report = runtime.report();
    let devices = runtime.devices();
    if output.is_json() {
        output.json(&json!({ "discovery": report, "devices": devices, "policy": policy_summary(runtime) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = report.candidates.iter().map(candidate).collect();
    output.table(&["", "BACKEND", "HOST", "VENDOR", "WHERE AND WHY"], &rows);
    for note in report.candidates.iter().flat_map(|c| c.notes.iter().map(move |n| format!("{}: {n}", c.path.display()))).chain(report.notes.iter().cloned()) {
        output.text(&output.tone(Tone::Warn, &format!("note: {note}")));
    }
    let host: u64 = report.candidates.iter().map(|c| c.timings.host_ns()).sum();
    let vendor: u64 = report.candidates.iter().map(|c| c.timings.vendor_ns()).sum();
    output.text(&format!("discovery took {}: {} in libflagos, {} in vendor code\n", duration(report.total_ns), duration(host), duration(vendor)));
    device_table(runtime, output);
    output.text(&format!("\n{}", policy_line(runtime)));
    Ok(ExitCode::SUCCESS)
}

fn candidate(c: &Candidate) -> Vec<(Tone, String)> {
    let name = c.name.clone().unwrap_or_else(|| "?".into());
    let (mark, why) = match &c.outcome {
        Outcome::Taken(b) => {
            let whence = b.library.as_ref().map_or_else(|| "linked into this binary".to_owned(), |l| l.display().to_string());
            ((Tone::Good, "taken"), format!("{whence} ({} {}, build {}, {} claims)", b.vendor, b.version, b.build_id, b.claims.len()))
        }
        Outcome::Refused(r) if r.is_expected() => ((Tone::Dim, "left out"), r.message.clone()),
        Outcome::Refused(r) => ((Tone::Bad, "refused"), format!("{} [{}]", r.message, r.code)),
    };
    vec![(mark.0, mark.1.to_owned()), plain(name), plain(duration(c.timings.host_ns())), plain(duration(c.timings.vendor_ns())), plain(why)]
}

/// Backends in use.
pub fn backends(runtime: &Runtime, output: &Output) -> Result<ExitCode> {
    let taken: Vec<_> = runtime.report().taken().collect();
    if output.is_json() {
        let list: Vec<_> = taken.iter().map(|b| b.as_ref()).collect();
        output.json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = taken
        .iter()
        .map(|b| {
            let t = b.tables;
            let offers = [("op", t.op.is_some()), ("blas", t.blas.is_some()), ("fft", t.fft.is_some()), ("ccl", t.ccl.is_some()), ("module", t.module.is_some()), ("profile", t.profile.is_some())];
            let domains: Vec<&str> = offers.iter().filter(|(_, on)| *on).map(|(n, _)| *n).collect();
            let library = b.library.as_ref().map_or_else(|| "(embedded)".to_owned(), |l| l.display().to_string());
            vec![plain(&b.name), plain(&b.version), plain(&b.vendor), plain(format!("1.{}", b.abi_minor_built)), plain(domains.join(" ")), plain(library)]
        })
        .collect();
    output.table(&["BACKEND", "VERSION", "VENDOR", "ABI", "OFFERS", "LIBRARY"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Devices of the backends in use.
pub fn devices(runtime: &Runtime, output: &Output) -> Result<ExitCode> {
    if output.is_json() {
        output.json(runtime.devices())?;
    } else {
        device_table(runtime, output);
    }
    Ok(ExitCode::SUCCESS)
}

fn device_table(runtime: &Runtime, output: &Output) {
    let rows: Vec<_> = runtime
        .devices()
        .iter()
        .map(|d| {
            let tone = if d.score == 0 { Tone::Bad } else { Tone::Good };
            let open = runtime.open(&d.name);
            let memory = open.as_ref().map(|o| bytes(o.info().memory_bytes)).unwrap_or_default();
            let kernels = open.as_ref().map(|o| o.info().formats.join(" ")).unwrap_or_default();
            // A usable device may have something to say too.
            let product = match (d.score, d.reason.as_str()) {
                (0, reason) => reason.to_owned(),
                (_, "") => d.product.clone(),
                (_, reason) => format!("{}; {reason}", d.product),
            };
            let kernels = if kernels.is_empty() { "none".to_owned() } else { kernels };
            vec![(tone, d.name.clone()), plain(&d.kind), plain(&d.arch), plain(memory), plain(duration(d.probe_ns)), plain(kernels), plain(product)]
        })
        .collect();
    output.table(&["DEVICE", "KIND", "ARCH", "MEMORY", "PROBE", "KERNELS", "PRODUCT"], &rows);
}

fn policy_summary(runtime: &Runtime) -> serde_json::Value {
    let policy = runtime.policy();
    json!({ "strict": policy.strict, "fallback": policy.fallback, "order": policy.order, "rules": policy.rules.len(), "digest": format!("{:016x}", policy.digest()) })
}

fn policy_line(runtime: &Runtime) -> String {
    let policy = runtime.policy();
    format!(
        "policy: strict {}, fallback {:?}, order {}, {} rules; best device: {}",
        policy.strict,
        policy.fallback,
        policy.order.join(" "),
        policy.rules.len(),
        runtime.open("").map_or_else(|e| e.to_string(), |d| d.name().to_owned())
    )
}

/// Environment variables and their values.
pub fn env(output: &Output) -> Result<ExitCode> {
    let value = |name: &str| std::env::var(name).ok();
    if output.is_json() {
        let list: Vec<_> = variables::VARIABLES.iter().map(|v| json!({ "variable": v, "value": value(v.name) })).collect();
        output.json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = variables::VARIABLES
        .iter()
        .map(|v| {
            let set = value(v.name).map_or((Tone::Dim, format!("({})", if v.default.is_empty() { "unset" } else { v.default })), |v| (Tone::Good, v));
            vec![plain(v.name), set, plain(v.doc)]
        })
        .collect();
    output.table(&["VARIABLE", "VALUE", "MEANING"], &rows);
    Ok(ExitCode::SUCCESS)
}
