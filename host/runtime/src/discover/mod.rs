//! Discovery: finds backends, judges them without running their code, loads what is trusted and negotiates with it.
//!
//! ```text
//! search ─ manifest ─ filter ─ trust ─ platform, chip, needs ─ hash, ELF ─ dlopen ─ query ─ negotiate ─▶ LoadedBackend
//! └────────── nothing of the vendor's runs ──────────────────────────────┘ └─ watched ─┘
//! ```
//! Every candidate is judged on its own: whatever happens to one is a [`Refusal`] of that one. Two things cannot be caught inside a process:
//! a library that ends it (`abort`, `exit`, a fault) while it is loaded or queried, and an entry that returns a wild pointer.

mod candidate;
mod elf;
mod host;
mod load;
pub mod manifest;
mod maps;
mod needs;
mod negotiate;
mod report;
mod search;
mod trust;

use std::path::{Path, PathBuf};

pub use candidate::{DirectBackend, discover};
pub use flagos_backend_api::Code;
pub use host::{HostUse, host_bytes, host_table, host_use};
pub use manifest::Manifest;
pub use negotiate::{BackendPtr, Served, Tables};
pub use report::{Candidate, LoadedBackend, Outcome, Phase, Refusal, Report, Timings};
pub use search::{Origin, glob};
pub use trust::Trust;

/// What discovery goes by. [`Options::from_environment`] is what the host uses; tests build their own.
#[derive(Clone, Debug)]
pub struct Options {
    /// `FLAGOS_BACKEND_FILES`: when set, nothing else is searched.
    pub files: Option<Vec<PathBuf>>,
    /// `FLAGOS_ADD_BACKEND_FILES`: come first.
    pub add_files: Vec<PathBuf>,
    /// `FLAGOS_BACKENDS_SELECT`; empty: all.
    pub select: Vec<String>,
    /// `FLAGOS_BACKENDS_DISABLE`.
    pub disable: Vec<String>,
    /// `FLAGOS_TRUST`.
    pub trust: Trust,
    /// Folders to search, in order, with what each is.
    pub folders: Vec<(Origin, PathBuf)>,
    /// Longest a library may take to load and to answer its entry.
    pub query_timeout: std::time::Duration,
    /// Whether to hash libraries whose manifest gives no digest; `doctor` does, start-up does not.
    pub hash_all: bool,
    /// Whether to read the claims a backend ships; the conformance suite does not, for it tests what they forbid.
    pub read_claims: bool,
    /// Where PCI devices are listed.
    pub pci_devices: PathBuf,
    /// ABI minors served; anything but [`Served::CURRENT`] only in tests.
    pub served: Served,
    /// Notes on the options themselves, passed on to the report ("FLAGOS_TRUST is 'nobody'; …").
    pub notes: Vec<String>,
}

impl Options {
    /// No environment, the given folders, trust in root and the user.
    pub fn with_folders(folders: Vec<PathBuf>) -> Options {
        Options {
            files: None,
            add_files: Vec::new(),
            select: Vec::new(),
            disable: Vec::new(),
            trust: Trust::User,
            folders: folders.into_iter().map(|f| (Origin::Folder, f)).collect(),
            query_timeout: std::time::Duration::from_secs(5),
            hash_all: false,
            read_claims: true,
            pci_devices: PathBuf::from("/sys/bus/pci/devices"),
            served: Served::CURRENT,
            notes: Vec::new(),
        }
    }

    /// The options of this process: environment (ignored when [elevated](crate::env::elevated)) and the standard folders.
    pub fn from_environment() -> Options {
        let mut options = Options::with_folders(Vec::new());
        let elevated = crate::env::elevated();
        options.folders = search::standard_folders(elevated);
        if elevated {
            options.trust = Trust::System;
            return options;
        }
        let paths = |name| {
            crate::env::var_os(name).map(|v| {
                std::env::split_paths(&v)
                    .filter(|p| !p.as_os_str().is_empty())
                    .collect::<Vec<_>>()
            })
        };
        let globs = |name| {
            let text = crate::env::var(name).unwrap_or_default();
            text.split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(String::from)
                .collect::<Vec<_>>()
        };
        // Set but empty is the usual way of saying "not set" in shells.
        options.files = paths("FLAGOS_BACKEND_FILES").filter(|p| !p.is_empty());
        options.add_files = paths("FLAGOS_ADD_BACKEND_FILES").unwrap_or_default();
        options.select = globs("FLAGOS_BACKENDS_SELECT");
        options.disable = globs("FLAGOS_BACKENDS_DISABLE");
        match crate::env::var("FLAGOS_TRUST").as_deref() {
            None | Some("") => {}
            Some(word) => match Trust::from_name(word) {
                Some(trust) => options.trust = trust,
                None => {
                    // The cautious reading of an unclear word is the strict one.
                    options.trust = Trust::System;
                    options.notes.push(format!(
                        "FLAGOS_TRUST is {word:?}; use system, user or any. Taken as system"
                    ));
                }
            },
        }
        match crate::env::var("FLAGOS_QUERY_TIMEOUT_MS").as_deref() {
            None | Some("") => {}
            Some(text) => match text.parse::<u64>() {
                Ok(ms) if ms > 0 => options.query_timeout = std::time::Duration::from_millis(ms),
                _ => options.notes.push(format!(
                    "FLAGOS_QUERY_TIMEOUT_MS is {text:?}; give milliseconds above 0. Taken as 5000"
                )),
            },
        }
        options
    }
}

/// `path` resolved against the folder of `manifest`.
fn beside(manifest: &Path, path: &Path) -> PathBuf {
    manifest.parent().unwrap_or(Path::new("/")).join(path)
}
