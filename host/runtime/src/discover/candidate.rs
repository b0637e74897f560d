//! Candidates: takes each backend that was found through all steps, each on its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use flagos_backend_api::{BackendQuery, Code};

use super::manifest::{self, Manifest};
use super::negotiate::negotiate;
use super::report::{Candidate, LoadedBackend, Outcome, Phase, Refusal, Report, Timings};
use super::search::{self, Found, Origin, glob};
use super::{Options, beside, load, needs, trust};
use crate::claims::Claim;

/// An in-process table: the embedded default, a static build, a test.
#[derive(Clone, Debug)]
pub struct DirectBackend {
    /// The name its table carries.
    pub name: String,
    /// Its entry.
    pub query: BackendQuery,
}

impl DirectBackend {
    /// A backend by name and entry.
    pub fn new(name: impl Into<String>, query: BackendQuery) -> DirectBackend {
        DirectBackend {
            name: name.into(),
            query,
        }
    }
}

/// Finds, judges and loads every backend. `direct` come last: an installed library replaces an embedded backend of the same name, and where it
/// is refused the embedded one is used.
///
/// Each candidate is judged on its own; none of them can make this fail. Writes one log line per backend.
pub fn discover(options: &Options, direct: &[DirectBackend]) -> Report {
    let start = Instant::now();
    let mut names = BTreeMap::new();
    let mut report = Report {
        notes: options.notes.clone(),
        ..Report::default()
    };
    for found in search::find(options) {
        let candidate = match found {
            Ok(found) => judge_file(options, &found, &names),
            Err((origin, refusal)) => {
                let path = PathBuf::from(refusal.message.split(": ").next().unwrap_or_default());
                Candidate {
                    name: None,
                    origin,
                    path,
                    library: None,
                    outcome: Outcome::Refused(refusal),
                    timings: Timings::default(),
                    notes: Vec::new(),
                }
            }
        };
        add(&mut report, &mut names, candidate);
    }
    for backend in direct {
        let candidate = judge_direct(options, backend, &names);
        add(&mut report, &mut names, candidate);
    }
    note_absent(options, &mut report);
    report.total_ns = start.elapsed().as_nanos() as u64;
    log(&report);
    report
}

fn add(report: &mut Report, names: &mut BTreeMap<String, PathBuf>, candidate: Candidate) {
    if let Outcome::Taken(backend) = &candidate.outcome {
        names.insert(backend.name.clone(), candidate.path.clone());
    }
    report.candidates.push(candidate);
}

/// Runs `work` and adds its time to `into`.
fn timed<T>(into: &mut u64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *into += start.elapsed().as_nanos() as u64;
    result
}

fn judge_file(options: &Options, found: &Found, names: &BTreeMap<String, PathBuf>) -> Candidate {
    let mut candidate = Candidate {
        name: None,
        origin: found.origin,
        path: found.path.clone(),
        library: None,
        outcome: Outcome::Refused(Refusal::new(
            Phase::Search,
            Code::INTERNAL,
            &found.path,
            "not judged",
        )),
        timings: Timings::default(),
        notes: Vec::new(),
    };
    candidate.outcome = match take_file(options, found, names, &mut candidate) {
        Ok(backend) => Outcome::Taken(Arc::new(backend)),
        Err(refusal) => Outcome::Refused(refusal),
    };
    candidate
}

fn take_file(
    options: &Options,
    found: &Found,
    names: &BTreeMap<String, PathBuf>,
    candidate: &mut Candidate,
) -> Result<LoadedBackend, Refusal> {
    let path = &found.path;
    let user = crate::env::effective_uid();
    let times = &mut candidate.timings;
    timed(&mut times.trust_ns, || {
        trust::check(path, options.trust, user)
    })?;
    let manifest = if found.is_library {
        Manifest::synthetic(&name_of_library(path), path)
    } else {
        timed(&mut times.read_ns, || manifest::read(path))?
    };
    let library = beside(path, &manifest.library);
    candidate.name = Some(manifest.name.clone());
    candidate.library = Some(library.clone());
    if !manifest.unknown_fields.is_empty() {
        candidate.notes.push(format!(
            "unknown fields in the manifest: {}",
            manifest.unknown_fields.join(", ")
        ));
    }
    if manifest.signature.is_some() {
        candidate
            .notes
            .push("the manifest has a signature, which this version does not check".into());
    }
    filter(options, &manifest.name, path)?;
    first_of_name(names, &manifest.name, path)?;
    abi(&manifest, path)?;
    timed(&mut times.needs_ns, || {
        needs::check(&manifest, path, &library, &options.pci_devices)
    })?;
    timed(&mut times.trust_ns, || {
        trust::check(&library, options.trust, user)
    })
    .map_err(|r| library_missing(r, path))?;
    let mut hash_ns = 0;
    let opened = timed(&mut times.open_ns, || {
        load::open(
            &library,
            manifest.sha256.as_deref(),
            options.hash_all,
            &mut hash_ns,
        )
    });
    times.hash_ns = hash_ns;
    times.open_ns -= hash_ns.min(times.open_ns);
    let opened = opened.map_err(|r| library_missing(r, path))?;
    let sha256 = opened.sha256.clone();
    let entered = load::enter(opened, &manifest.name, options.query_timeout)?;
    (times.dlopen_ns, times.query_ns) = (entered.dlopen_ns, entered.query_ns);
    let mut backend = settle(
        options,
        &entered,
        manifest,
        &library,
        &mut times.negotiate_ns,
    )?;
    if found.is_library {
        // Only now is the true name known.
        candidate.name = Some(backend.name.clone());
        filter(options, &backend.name, path)?;
        first_of_name(names, &backend.name, path)?;
    } else {
        backend.manifest_path = Some(path.clone());
    }
    if let Some(claims) = backend.claims_path().filter(|_| options.read_claims) {
        // A forged claim would make the host trust cells that failed, so claims are held to the rules for code.
        let times = &mut candidate.timings;
        match timed(&mut times.trust_ns, || {
            trust::check(&claims, options.trust, user)
        }) {
            Ok(()) => backend.claims = timed(&mut times.read_ns, || Claim::read_all(&claims)),
            Err(refusal) => candidate
                .notes
                .push(format!("its claims are not used: {refusal}")),
        }
    }
    backend.library = Some(library);
    backend.library_sha256 = sha256;
    Ok(backend)
}

fn judge_direct(
    options: &Options,
    direct: &DirectBackend,
    names: &BTreeMap<String, PathBuf>,
) -> Candidate {
    let place = PathBuf::from(format!("in-process backend '{}'", direct.name));
    let mut timings = Timings::default();
    let mut take = || {
        filter(options, &direct.name, &place)?;
        first_of_name(names, &direct.name, &place)?;
        let text = place.to_string_lossy();
        let entered = load::enter_direct(direct.query, &direct.name, options.query_timeout, &text)?;
        timings.query_ns = entered.query_ns;
        // The name is held to what the caller said, as it is to a manifest's.
        let manifest = Manifest {
            synthetic: false,
            ..Manifest::synthetic(&direct.name, Path::new(""))
        };
        let mut backend = settle(
            options,
            &entered,
            manifest,
            &place,
            &mut timings.negotiate_ns,
        )?;
        backend.manifest.synthetic = true;
        Ok(backend)
    };
    let outcome = match take() {
        Ok(backend) => Outcome::Taken(Arc::new(backend)),
        Err(refusal) => Outcome::Refused(refusal),
    };
    Candidate {
        name: Some(direct.name.clone()),
        origin: Origin::Direct,
        path: place,
        library: None,
        outcome,
        timings,
        notes: Vec::new(),
    }
}

/// Negotiates and puts together what is known.
fn settle(
    options: &Options,
    entered: &load::Entered,
    manifest: Manifest,
    file: &Path,
    ns: &mut u64,
) -> Result<LoadedBackend, Refusal> {
    let wanted = if manifest.synthetic {
        None
    } else {
        Some(manifest.name.as_str())
    };
    let checked = timed(ns, || negotiate(entered, options.served, wanted));
    let (tables, identity) =
        checked.map_err(|(code, what)| Refusal::new(Phase::Negotiate, code, file, what))?;
    Ok(LoadedBackend {
        name: identity.name,
        version: identity.version,
        vendor: identity.vendor,
        build_id: identity.build_id,
        compiler: identity.compiler,
        abi_minor_built: identity.abi_minor_built,
        library: None,
        library_sha256: None,
        manifest_path: None,
        manifest,
        claims: Vec::new(),
        address: entered.table,
        table: &tables.backend,
        tables,
    })
}

fn filter(options: &Options, name: &str, path: &Path) -> Result<(), Refusal> {
    let refuse = |what: String| {
        Err(Refusal::new(
            Phase::Filter,
            Code::PERMISSION_DENIED,
            path,
            what,
        ))
    };
    if !options.select.is_empty() && !options.select.iter().any(|p| glob(p, name)) {
        return refuse(format!(
            "'{name}' is not among FLAGOS_BACKENDS_SELECT={}; add it there to use it",
            options.select.join(",")
        ));
    }
    if let Some(pattern) = options.disable.iter().find(|p| glob(p, name)) {
        return refuse(format!(
            "'{name}' is left out by '{pattern}' in FLAGOS_BACKENDS_DISABLE; remove it there to use it"
        ));
    }
    Ok(())
}

fn first_of_name(
    names: &BTreeMap<String, PathBuf>,
    name: &str,
    path: &Path,
) -> Result<(), Refusal> {
    let Some(first) = names.get(name) else {
        return Ok(());
    };
    let what = format!(
        "a backend named '{name}' was already taken from {}; remove one of the two, or choose with FLAGOS_BACKEND_FILES",
        first.display()
    );
    Err(Refusal::new(
        Phase::Name,
        Code::FAILED_PRECONDITION,
        path,
        what,
    ))
}

/// The manifest's word on the ABI; the tables are checked later, but a library of another major need not run at all.
fn abi(manifest: &Manifest, path: &Path) -> Result<(), Refusal> {
    let (major, minor) = manifest.abi;
    let ours = flagos_backend_api::ABI_MAJOR;
    if major == ours {
        return Ok(());
    }
    let (way, fix) = if major > ours {
        ("too new", "update libflagos")
    } else {
        ("too old", "update the backend")
    };
    let what = format!(
        "its ABI is {way}: the manifest says {major}.{minor}, this libflagos serves {ours}; {fix}"
    );
    Err(Refusal::new(Phase::Needs, Code::ABI_MISMATCH, path, what))
}

/// A refusal of the library of a manifest, which names the manifest too: that is the file to correct.
fn library_missing(refusal: Refusal, manifest: &Path) -> Refusal {
    if refusal.code != Code::NOT_FOUND || refusal.message.starts_with(&*manifest.to_string_lossy())
    {
        return refusal;
    }
    Refusal {
        message: format!("{} (named by {})", refusal.message, manifest.display()),
        ..refusal
    }
}

/// "libflagos_backend_my_chip.so.1" is "my-chip".
fn name_of_library(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split(".so").next().unwrap_or_default();
    let stem = stem.strip_prefix("lib").unwrap_or(stem);
    let stem = stem.strip_prefix("flagos_backend_").unwrap_or(stem);
    stem.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(63)
        .collect()
}

/// A backend asked for by its full name that was found nowhere is a mistake worth a line.
fn note_absent(options: &Options, report: &mut Report) {
    for wanted in options.select.iter().filter(|p| !p.contains(['*', '?'])) {
        if report
            .candidates
            .iter()
            .any(|c| c.name.as_deref() == Some(wanted))
        {
            continue;
        }
        let folders: Vec<String> = match &options.files {
            Some(files) => files.iter().map(|f| f.display().to_string()).collect(),
            None => options
                .folders
                .iter()
                .map(|(_, f)| f.display().to_string())
                .collect(),
        };
        report.notes.push(format!(
            "FLAGOS_BACKENDS_SELECT asks for '{wanted}', but there is no such backend in {}; install it, or name its file in FLAGOS_ADD_BACKEND_FILES",
            folders.join(", ")
        ));
    }
}

fn log(report: &Report) {
    for note in &report.notes {
        crate::log::warn(note);
    }
    for candidate in &report.candidates {
        for note in &candidate.notes {
            crate::log::info(&format!("{}: {note}", candidate.path.display()));
        }
        match &candidate.outcome {
            Outcome::Taken(b) => crate::log::info(&format!(
                "backend '{}' {} from {} (host {} us, vendor {} us)",
                b.name,
                b.version,
                candidate.path.display(),
                candidate.timings.host_ns() / 1000,
                candidate.timings.vendor_ns() / 1000
            )),
            Outcome::Refused(r) if r.is_expected() => crate::log::info(&format!("not used: {r}")),
            Outcome::Refused(r) => crate::log::warn(&format!("backend refused: {r}")),
        }
    }
}
