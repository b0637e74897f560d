//! `flagos conformance`: the suite's verdict on backends, and the suite's own proof by planted defects.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use flagos_conformance::{Implementation, Options, Shard, Target, run, tier_of};
use flagos_runtime::{Code, Error, Result};

use crate::mutations;
use crate::output::Output;

/// What to test and where to write.
#[derive(clap::Args)]
pub struct Arguments {
    /// Backends by name, or manifests and libraries by path; every one that is found by default.
    #[arg(long)]
    backend: Vec<String>,
    /// Ordinal of the device.
    #[arg(long, default_value_t = 0)]
    device: u32,
    /// spot (three cases of each operator and type), smoke (at most 2 minutes), quick (20) or full.
    #[arg(long, default_value = "smoke")]
    tier: String,
    /// Only cases whose id fits a glob (`softmax/f32/*`); may be repeated.
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Part i of n of the case list.
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Seed of tensor contents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which implementations may run: native (the backend's own), portable (compiled kernels) or any (native where there is one).
    #[arg(long, default_value = "any", value_parser = ["native", "portable", "any"])]
    implementation: String,
    /// Child processes at once; 0: one per two processors.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Longest a case may take, in seconds.
    #[arg(long, default_value_t = 30)]
    timeout_s: u64,
    /// Profiles to judge by, in place of those the backend promises.
    #[arg(long)]
    profile: Vec<String>,
    /// Only cases of cells that these profiles require.
    #[arg(long, requires = "profile")]
    required_only: bool,
    /// Exceptions to use in place of the file beside the manifest.
    #[arg(long)]
    exceptions: Option<PathBuf>,
    /// Where to write the report as JSON.
    #[arg(long)]
    report_json: Option<PathBuf>,
    /// Where to write the report as JUnit XML.
    #[arg(long)]
    report_junit: Option<PathBuf>,
    /// Where to write the report as one HTML page.
    #[arg(long)]
    report_html: Option<PathBuf>,
    /// Folder to write claims to.
    #[arg(long)]
    claims: Option<PathBuf>,
    /// Only list the cases.
    #[arg(long)]
    list: bool,
    /// Plants each defect of this file into the backend `null` and demands that its own check catches it.
    #[arg(long, value_name = "FILE")]
    mutations: Option<PathBuf>,
}

/// Runs the suite.
pub fn run_suite(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let embedded: Vec<String> = flagos::embedded().into_iter().map(|b| b.name).collect();
    let target = |text: &String| match text {
        t if embedded.contains(t) => Target::Embedded(t.clone()),
        t if t.contains('/') || t.ends_with(".so") || t.ends_with(".json") => Target::File(t.into()),
        t => Target::Name(t.clone()),
    };
    let options = Options {
        targets: arguments.backend.iter().map(target).collect(),
        embedded,
        ordinal: arguments.device,
        tier: tier_of(&arguments.tier)?,
        cases: arguments.cases.clone(),
        shard: arguments.shard.as_deref().map(Shard::parse).transpose()?,
        seed: arguments.seed,
        implementation: match arguments.implementation.as_str() {
            "native" => Implementation::Native,
            "portable" => Implementation::Portable,
            _ => Implementation::Any,
        },
        jobs: arguments.jobs,
        timeout: Duration::from_secs(arguments.timeout_s.max(1)),
        profiles: arguments.profile.clone(),
        required_only: arguments.required_only,
        exceptions: arguments.exceptions.clone(),
        json: arguments.report_json.clone(),
        junit: arguments.report_junit.clone(),
        html: arguments.report_html.clone(),
        claims: arguments.claims.clone(),
        progress: !output.is_json(),
        colour: output.has_colour(),
        worker: Vec::new(),
    };
    let mut text = std::io::stdout();
    if let Some(file) = &arguments.mutations {
        return mutations::run_all(file, &options, output);
    }
    if arguments.list {
        flagos_conformance::list(&options, &mut text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if output.is_json() {
        let summary = run(&options, &mut std::io::sink())?;
        output.json(&summary.reports)?;
        return Ok(ExitCode::from(summary.exit_code()));
    }
    run(&options, &mut text).map(|summary| ExitCode::from(summary.exit_code())).map_err(|e| Error { code: Code::INVALID_ARGUMENT, ..e })
}
