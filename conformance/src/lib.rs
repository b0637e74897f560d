//! The conformance suite: runs any backend through the production path, in child processes, and says what it may be trusted with.
//!
//! ```text
//! run ── plan: the case list ──▶ runner ══ socket ══▶ worker_main (child process): bench ── execute, abi, memory, stream, property
//!  └── judged, cells, profiles ◀── results ──┘
//!  └── reports: terminal, JSON, JUnit, HTML; claims
//! ```
//! Nothing here knows a backend. A program that offers the suite answers the hidden subcommand [`WORKER_COMMAND`] with [`worker_main`].

mod abi;
mod bench;
pub mod cell;
pub mod check;
mod child;
pub mod claim;
pub mod exceptions;
mod execute;
mod flush;
mod guard;
pub mod judged;
mod memory;
mod native;
pub mod outcome;
pub mod plan;
mod process;
pub mod profile;
mod property;
pub mod protocol;
mod raw;
pub mod report;
mod runner;
mod stream;
mod task;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flagos_backend_api::{Error, Result};

pub use child::{WORKER_COMMAND, worker_main};
pub use flagos_catalog::Tier;
pub use flagos_runtime::claims::Implementation;
pub use plan::{Shard, tier_name, tier_of};
pub use protocol::Target;

use check::Check;
use exceptions::{Day, Exceptions};
use judged::{Judged, judge};
use outcome::{CaseResult, Failure};
use plan::{Entry, Plan};
use profile::Profile;
use protocol::Identity;
use report::{Report, Totals};
use runner::{Settings, Unavailable};

/// Version of the suite, as reports and claims state it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to run, and where to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the backends linked into this program; [`worker_main`] is given the tables.
    pub embedded: Vec<String>,
    /// Backends to test; empty: every one that is found.
    pub targets: Vec<Target>,
    /// Ordinal of the device.
    pub ordinal: u32,
    /// Tier.
    pub tier: Tier,
    /// Globs on case ids; empty: all.
    pub cases: Vec<String>,
    /// Part of the list.
    pub shard: Option<Shard>,
    /// Seed of contents.
    pub seed: u64,
    /// Which implementations may run.
    pub implementation: Implementation,
    /// Workers at once; 0: one per two processors.
    pub jobs: usize,
    /// Longest a case may take.
    pub timeout: Duration,
    /// Profiles to judge by; empty: those the backend's `conformance.toml` promises.
    pub profiles: Vec<String>,
    /// Only cases of cells that these profiles require.
    pub required_only: bool,
    /// Exceptions to use in place of the file beside the manifest.
    pub exceptions: Option<PathBuf>,
    /// Where to write the JSON report.
    pub json: Option<PathBuf>,
    /// Where to write the JUnit report.
    pub junit: Option<PathBuf>,
    /// Where to write the HTML report.
    pub html: Option<PathBuf>,
    /// Folder to write claims to.
    pub claims: Option<PathBuf>,
    /// Show progress where standard error is a terminal.
    pub progress: bool,
    /// Use colours in the text.
    pub colour: bool,
    /// Command line of a worker; empty: this program with [`WORKER_COMMAND`].
    pub worker: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            embedded: Vec::new(),
            targets: Vec::new(),
            ordinal: 0,
            tier: Tier::Smoke,
            cases: Vec::new(),
            shard: None,
            seed: 1,
            implementation: Implementation::Any,
            jobs: 0,
            timeout: Duration::from_secs(30),
            profiles: Vec::new(),
            required_only: false,
            exceptions: None,
            json: None,
            junit: None,
            html: None,
            claims: None,
            progress: true,
            colour: false,
            worker: Vec::new(),
        }
    }
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// One report per backend tested.
    pub reports: Vec<Report>,
    /// Backends left out, with the reason: the chip is absent, or the user excluded them.
    pub left_out: Vec<(Target, String)>,
}

impl Summary {
    /// Whether something was tested and all of it passed.
    pub fn passed(&self) -> bool {
        !self.reports.is_empty() && self.reports.iter().all(|r| r.passed)
    }
    /// 0: passed, 1: failed, 77: nothing to test. Wrong usage, which [`run`] answers with an error, is 2.
    pub fn exit_code(&self) -> u8 {
        if self.reports.is_empty() { 77 } else { u8::from(!self.passed()) }
    }
}

/// Ids of the cases that options select, one per line, with the tier each belongs to.
pub fn list(options: &Options, out: &mut dyn Write) -> Result<()> {
    let plan = Plan::new(options.tier);
    let profiles = options.profiles.iter().map(|n| Profile::find(n)).collect::<Result<Vec<_>>>()?;
    for e in select(options, &plan, &profiles)? {
        writeln!(out, "{:<6} {}", tier_name(e.tier), e.id).map_err(|e| write_error(Path::new("the list"), &e))?;
    }
    Ok(())
}

/// The cases that options ask for.
fn select<'a>(options: &Options, plan: &'a Plan, profiles: &[Profile]) -> Result<Vec<&'a Entry>> {
    let mut entries = plan.select(&options.cases, options.shard)?;
    if !options.required_only {
        return Ok(entries);
    }
    if profiles.is_empty() {
        return Err(Error::invalid("only required cells are asked for, and no profile that requires some; name one with --profile"));
    }
    let required = profiles.iter().map(|p| p.cells(plan.cells())).collect::<Result<Vec<_>>>()?;
    entries.retain(|e| e.cell.as_ref().is_some_and(|c| required.iter().any(|r| r.contains(c))));
    if entries.is_empty() {
        return Err(Error::invalid(format!("none of these cases is of a cell that {} requires", options.profiles.join(", "))));
    }
    Ok(entries)
}

/// Runs the suite: text goes to `out`, progress to standard error, reports and claims to the files of the options.
///
/// # Errors
/// Wrong usage only (unknown profile, no case fits, a file that cannot be written). What is wrong with a backend is in the summary.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Summary> {
    let plan = Plan::new(options.tier);
    let profiles = options.profiles.iter().map(|n| Profile::find(n)).collect::<Result<Vec<_>>>()?;
    profiles.iter().try_for_each(|p| p.cells(plan.cells()).map(drop))?;
    let mut entries = select(options, &plan, &profiles)?;
    if options.tier == Tier::Spot && options.claims.is_some() {
        return Err(Error::invalid("the tier spot tries too little for a claim; use smoke, quick or full"));
    }
    if options.implementation == Implementation::Portable {
        // Portable kernels are of operators; tables, memory and streams are not theirs.
        entries.retain(|e| matches!(e.run, plan::Run::Operator(..) | plan::Run::Property(..)));
        if entries.is_empty() {
            return Err(Error::invalid("none of these cases is of an operator, and portable kernels are of nothing else"));
        }
    }
    let mut summary = Summary { reports: Vec::new(), left_out: Vec::new() };
    let terminal = |e: std::io::Error| write_error(Path::new("the report"), &e);
    for (target, refused) in targets(options)? {
        let report = match refused {
            Some(refused) => Err(refused),
            None => test(options, &plan, &entries, &profiles, &target)?,
        };
        let report = match report {
            Ok(report) => report,
            Err(Unavailable { reason, expected: true }) => {
                writeln!(out, "{target} is left out: {reason}").map_err(terminal)?;
                summary.left_out.push((target, reason));
                continue;
            }
            Err(Unavailable { reason, .. }) => unloadable(options, &plan, &target, &reason),
        };
        report::terminal::write(&report, options.colour, out).map_err(terminal)?;
        writeln!(out).map_err(terminal)?;
        if let Some(folder) = &options.claims
            && !report.cells.is_empty()
        {
            let path = claim::write(&report, folder)?;
            writeln!(out, "claim: {}\n", path.display()).map_err(terminal)?;
        }
        summary.reports.push(report);
    }
    if summary.reports.is_empty() {
        writeln!(out, "nothing to test; see `flagos doctor`").map_err(terminal)?;
    }
    write_files(options, &summary)?;
    Ok(summary)
}

fn command(options: &Options) -> Result<Vec<OsString>> {
    if !options.worker.is_empty() {
        return Ok(options.worker.clone());
    }
    let own = std::env::current_exe().map_err(|e| Error::invalid(format!("the path of this program is unknown ({e}); mount /proc")))?;
    Ok(vec![own.into(), WORKER_COMMAND.into()])
}

fn targets(options: &Options) -> Result<Vec<(Target, Option<Unavailable>)>> {
    if !options.targets.is_empty() {
        let embedded = |name: &String| options.embedded.contains(name);
        if let Some(Target::Embedded(name)) = options.targets.iter().find(|t| matches!(t, Target::Embedded(n) if !embedded(n))) {
            return Err(Error::invalid(format!("'{name}' is not linked into this program; embedded are: {}", options.embedded.join(", "))));
        }
        return Ok(options.targets.iter().map(|t| (t.clone(), None)).collect());
    }
    let found = runner::list(&command(options)?)?;
    Ok(found.into_iter().map(|f| (f.target, f.refused.map(|(reason, expected)| Unavailable { reason, expected }))).collect())
}

fn settings(options: &Options, target: &Target) -> Result<Settings> {
    let processors = std::thread::available_parallelism().map_or(2, |n| n.get());
    Ok(Settings {
        command: command(options)?,
        target: target.clone(),
        ordinal: options.ordinal,
        tier: tier_name(options.tier).to_owned(),
        seed: options.seed,
        implementation: options.implementation,
        jobs: if options.jobs == 0 { (processors / 2).max(1) } else { options.jobs },
        timeout: options.timeout,
    })
}

/// Tests one backend. The inner error says why it cannot be.
fn test(options: &Options, plan: &Plan, entries: &[&Entry], profiles: &[Profile], target: &Target) -> Result<Result<Report, Unavailable>> {
    let started = Instant::now();
    let started_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut progress = report::terminal::Progress::new(&target.to_string(), entries.len(), options.progress);
    let ran = runner::run(&settings(options, target)?, entries, &mut |result| progress.step(result));
    progress.finish();
    let (identity, results) = match ran {
        Ok(ran) => ran,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut notes = Vec::new();
    let file = exceptions_of(options, &identity)?;
    let promised;
    let profiles = match &file {
        Some(file) if profiles.is_empty() => {
            promised = file.profiles.iter().map(|n| Profile::find(n)).collect::<Result<Vec<_>>>()?;
            &promised[..]
        }
        // What is linked in has no file beside it: it stands in for any chip, so it promises what every chip must.
        None if profiles.is_empty() && matches!(target, Target::Embedded(_)) => {
            promised = vec![Profile::find("core")?];
            &promised[..]
        }
        _ => profiles,
    };
    if profiles.is_empty() {
        notes.push("no profile was judged: the backend's conformance.toml promises none, and none was asked for with --profile".into());
    }
    if identity.flushes_subnormals {
        notes.push("the device takes f32 subnormals for zeros and says so (FLUSHES_SUBNORMALS): operands hold none, and such a result may be zero".into());
    }
    let mut cases = judge_all(plan, results, file.as_ref(), &identity, &mut notes);
    let cells = cell::rows(plan.entries(), &cases);
    let profiles = match options.profiles.is_empty() && options.implementation == Implementation::Native && cells.iter().all(|c| c.native == 0) {
        true if !profiles.is_empty() => {
            notes.push("the backend's profiles are not judged: native implementations alone were asked for, and it has none".into());
            &[]
        }
        _ => profiles,
    };
    let coverage = profiles.iter().map(|p| p.coverage(plan.cells(), &cells)).collect::<Result<Vec<_>>>()?;
    for c in &coverage {
        cases.extend(c.unsupported.iter().map(|cell| {
            let text = format!("profile '{}' requires {cell}, and no case of it is offered", c.profile);
            failed(&format!("profile/{}/{cell}", c.profile), "profile", Check::Required, text)
        }));
    }
    Ok(Ok(Report {
        suite: VERSION,
        tier: tier_name(options.tier),
        seed: options.seed,
        implementation: options.implementation,
        cases_sha256: plan.digest(),
        started_s,
        time_ns: started.elapsed().as_nanos() as u64,
        backend: identity,
        passed: !cases.iter().any(|j| j.verdict.is_bad()),
        totals: Totals::of(&cases),
        profiles: coverage,
        cells,
        cases,
        notes,
    }))
}

fn exceptions_of(options: &Options, identity: &Identity) -> Result<Option<Exceptions>> {
    match (&options.exceptions, identity.manifest.as_str()) {
        (Some(path), _) => Exceptions::read(path).map(Some),
        (None, "") => Ok(None),
        (None, manifest) => Exceptions::beside(Path::new(manifest), &identity.backend),
    }
}

/// Applies the exceptions and puts the cases in the plan's order; expired entries become failed cases.
fn judge_all(plan: &Plan, results: Vec<CaseResult>, file: Option<&Exceptions>, identity: &Identity, notes: &mut Vec<String>) -> Vec<Judged> {
    let (live, expired) = file.map_or_else(Default::default, |f| f.in_force(&identity.product, &identity.driver, Day::today()));
    for (_, e) in live.iter().filter(|(_, e)| !plan.entries().iter().any(|c| flagos_runtime::discover::glob(&e.case, &c.id))) {
        notes.push(format!("conformance.toml lists '{}', which fits no case of this tier", e.case));
    }
    let mut by_id: std::collections::HashMap<String, CaseResult> = results.into_iter().map(|r| (r.id.clone(), r)).collect();
    let mut cases: Vec<Judged> =
        plan.entries().iter().filter_map(|e| by_id.remove(&e.id).map(|r| judge(r, e.family, &live))).collect();
    cases.extend(expired.iter().map(|(_, e)| {
        let text = format!("the exception for '{}' expired on {}; {} is to repair it or to renew the entry", e.case, e.expires, e.owner);
        failed(&format!("exceptions/{}", e.case), "exceptions", Check::ExpiredException, text)
    }));
    cases
}

fn failed(id: &str, family: &'static str, check: Check, message: String) -> Judged {
    judge(CaseResult::fail(id, Failure::new(check, message)), family, &[])
}

/// The report of a backend that could not be loaded: one failed case.
fn unloadable(options: &Options, plan: &Plan, target: &Target, reason: &str) -> Report {
    let cases = vec![failed("load", "load", Check::Load, reason.to_owned())];
    Report {
        suite: VERSION,
        tier: tier_name(options.tier),
        seed: options.seed,
        implementation: options.implementation,
        cases_sha256: plan.digest(),
        started_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        time_ns: 0,
        backend: Identity { backend: target.to_string(), device: target.to_string(), ..Identity::default() },
        passed: false,
        totals: Totals::of(&cases),
        profiles: Vec::new(),
        cells: Vec::new(),
        cases,
        notes: Vec::new(),
    }
}

fn write_files(options: &Options, summary: &Summary) -> Result<()> {
    let put = |path: &Option<PathBuf>, text: &dyn Fn() -> Result<String>| match path {
        None => Ok(()),
        Some(path) => std::fs::write(path, text()?).map_err(|e| write_error(path, &e)),
    };
    put(&options.json, &|| report::json::text(&summary.reports))?;
    put(&options.junit, &|| Ok(report::junit::text(&summary.reports)))?;
    put(&options.html, &|| Ok(report::html::text(&summary.reports)))
}

fn write_error(path: &Path, e: &std::io::Error) -> Error {
    Error::invalid(format!("{} cannot be written: {e}; choose another place", path.display()))
}
