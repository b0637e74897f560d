//! The report of discovery: what became of each backend that was found, with reasons and times.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flagos_backend_api::{BackendV1, Code};
use serde::{Serialize, Serializer};

use super::beside;
use super::manifest::Manifest;
use super::negotiate::{BackendPtr, Tables};
use super::search::Origin;
use crate::claims::Claim;

/// The step at which a candidate was refused, in the order they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Looking for files.
    Search,
    /// Who owns and who may write the files.
    Trust,
    /// Reading the manifest.
    Read,
    /// Left out by `FLAGOS_BACKENDS_SELECT` or `FLAGOS_BACKENDS_DISABLE`.
    Filter,
    /// Another backend of the same name came first.
    Name,
    /// What the manifest says of ABI, processor, system, files and libraries.
    Needs,
    /// The chip is not there.
    Chip,
    /// Opening the library.
    Open,
    /// Its ELF header.
    Elf,
    /// Its digest.
    Hash,
    /// Mapping it; the first step that runs vendor code.
    Dlopen,
    /// Calling its entry.
    Query,
    /// Checking its tables.
    Negotiate,
}

/// Why a candidate is not used: one line that names the file, what is wrong and the way out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// The step.
    pub phase: Phase,
    /// A code to sort by.
    #[serde(serialize_with = "code_name")]
    pub code: Code,
    /// The line.
    pub message: String,
}

impl Refusal {
    /// A refusal of `file`; control characters are made harmless, so that it stays one line.
    pub(super) fn new(phase: Phase, code: Code, file: &Path, what: impl AsRef<str>) -> Refusal {
        let text = format!("{}: {}", file.display(), what.as_ref());
        Refusal {
            phase,
            code,
            message: text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        }
    }

    /// Whether nothing is wrong: the chip is absent, or the user left it out.
    pub fn is_expected(&self) -> bool {
        matches!(self.phase, Phase::Filter | Phase::Chip)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

fn inner<S: Serializer>(backend: &Arc<LoadedBackend>, serializer: S) -> Result<S::Ok, S::Error> {
    backend.as_ref().serialize(serializer)
}

fn code_name<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(code)
}

/// Nanoseconds spent on a candidate; 0 where it did not get that far. `dlopen_ns` and `query_ns` are vendor code, the rest is the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// Ownership checks.
    pub trust_ns: u64,
    /// Reading and checking the manifest.
    pub read_ns: u64,
    /// Platform, chip, files, libraries.
    pub needs_ns: u64,
    /// Opening the library and checking its header.
    pub open_ns: u64,
    /// Its digest, where one is needed.
    pub hash_ns: u64,
    /// The dynamic linker and the library's constructors.
    pub dlopen_ns: u64,
    /// The entry.
    pub query_ns: u64,
    /// Checking and copying tables.
    pub negotiate_ns: u64,
}

impl Timings {
    /// Time in the host's own code.
    pub fn host_ns(&self) -> u64 {
        self.trust_ns
            + self.read_ns
            + self.needs_ns
            + self.open_ns
            + self.hash_ns
            + self.negotiate_ns
    }
    /// Time in the dynamic linker and in vendor code.
    pub fn vendor_ns(&self) -> u64 {
        self.dlopen_ns + self.query_ns
    }
}

/// A backend that was loaded and whose ABI fits. Its library stays mapped for the life of the process.
#[derive(Clone, Serialize)]
pub struct LoadedBackend {
    /// Unique short name.
    pub name: String,
    /// The backend's own version.
    pub version: String,
    /// Who makes it.
    pub vendor: String,
    /// Identifies the build; claims are bound to it.
    pub build_id: String,
    /// Compiler and version.
    pub compiler: String,
    /// ABI minor it was built against.
    pub abi_minor_built: u32,
    /// The library; `None` for an in-process table.
    pub library: Option<PathBuf>,
    /// The library's SHA-256 in hexadecimal, where it was computed: the manifest gives one, or [`Options::hash_all`] is set.
    pub library_sha256: Option<String>,
    /// Path of the manifest; `None` for bare libraries and in-process tables.
    pub manifest_path: Option<PathBuf>,
    /// The manifest, or what stands in for it.
    pub manifest: Manifest,
    /// Claims of the conformance suite that came with it.
    #[serde(skip)]
    pub claims: Vec<Claim>,
    /// Address of the backend's own entry table, to which its handles point.
    #[serde(skip)]
    pub address: BackendPtr,
    /// The checked copy of the entry table.
    #[serde(skip)]
    pub table: &'static BackendV1,
    /// Checked copies of all tables, at this host's size.
    #[serde(skip)]
    pub tables: &'static Tables,
}

impl LoadedBackend {
    /// Whether it is a table linked into this process and not a library of its own.
    pub fn is_embedded(&self) -> bool {
        self.library.is_none()
    }

    /// Absolute path of the claims file the manifest names.
    pub fn claims_path(&self) -> Option<PathBuf> {
        Some(beside(
            self.manifest_path.as_deref()?,
            self.manifest.claims.as_deref()?,
        ))
    }
}

impl std::fmt::Debug for LoadedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedBackend")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("library", &self.library)
            .finish_non_exhaustive()
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is used.
    Taken(#[serde(serialize_with = "inner")] Arc<LoadedBackend>),
    /// It is not.
    Refused(Refusal),
}

/// One backend that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Name, as far as it is known.
    pub name: Option<String>,
    /// How it was found.
    pub origin: Origin,
    /// The manifest, the bare library, or the name of an in-process table.
    pub path: PathBuf,
    /// The library, once it is known.
    pub library: Option<PathBuf>,
    /// Taken or refused.
    pub outcome: Outcome,
    /// Where the time went.
    pub timings: Timings,
    /// What is odd but no fault (unknown fields, a signature that was not checked).
    pub notes: Vec<String>,
}

/// Everything that was found, in search order, and what became of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// All candidates.
    pub candidates: Vec<Candidate>,
    /// What is wrong with the options themselves: a backend that was asked for by name and is nowhere, a bad word in a variable.
    pub notes: Vec<String>,
    /// Time of the whole discovery in ns.
    pub total_ns: u64,
}

impl Report {
    /// The backends to use, in search order.
    pub fn taken(&self) -> impl Iterator<Item = &Arc<LoadedBackend>> {
        self.candidates.iter().filter_map(|c| {
            if let Outcome::Taken(backend) = &c.outcome {
                Some(backend)
            } else {
                None
            }
        })
    }
    /// Why the backend `name` is not used; `None` when it is, or was never found.
    pub fn refusal_of(&self, name: &str) -> Option<&Refusal> {
        if self.taken().any(|b| b.name == name) {
            return None;
        }
        self.candidates
            .iter()
            .filter(|c| c.name.as_deref() == Some(name))
            .find_map(|c| match &c.outcome {
                Outcome::Refused(refusal) => Some(refusal),
                Outcome::Taken(_) => None,
            })
    }
    /// The refusals, in search order.
    pub fn refused(&self) -> impl Iterator<Item = &Refusal> {
        self.candidates.iter().filter_map(|c| {
            if let Outcome::Refused(refusal) = &c.outcome {
                Some(refusal)
            } else {
                None
            }
        })
    }
}
