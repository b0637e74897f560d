//! The bench in a worker: one backend, loaded as the host loads it, with its device open twice: through the runtime and through its tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagos_backend_api as abi;
use flagos_backend_api::{Error, Result};
use flagos_catalog::Tier;
use flagos_runtime::claims::Implementation;
use flagos_runtime::discover::{self, DirectBackend, LoadedBackend, Tables};
use flagos_runtime::policy::Fallback;
use flagos_runtime::{Device, Policy, Runtime, Stream};

use crate::protocol::{Found, Identity, Target};
use crate::raw::Handle;

/// What loading changed in the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Threads.
    pub threads: usize,
    /// Names of environment variables.
    pub variables: BTreeSet<String>,
    /// Paths of open device files.
    pub devices: BTreeSet<String>,
}

impl Footprint {
    /// The process as it is now; empty where `/proc` is not mounted.
    pub fn now() -> Footprint {
        let links = |e: std::fs::DirEntry| std::fs::read_link(e.path()).ok().map(|p| p.display().to_string());
        let open = std::fs::read_dir("/proc/self/fd").map_or_else(|_| BTreeSet::new(), |d| d.flatten().filter_map(links).collect());
        Footprint {
            threads: std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
            variables: std::env::vars_os().map(|(k, _)| k.to_string_lossy().into_owned()).collect(),
            devices: open.into_iter().filter(|p| p.starts_with("/dev/") && !["/dev/null", "/dev/zero", "/dev/urandom", "/dev/tty"].contains(&p.as_str()) && !p.starts_with("/dev/pts")).collect(),
        }
    }
}

impl Footprint {
    /// The process once the loader's own thread is gone, or after a while.
    fn settled(threads: usize) -> Footprint {
        let started = Instant::now();
        loop {
            let now = Footprint::now();
            if now.threads <= threads || started.elapsed() > Duration::from_millis(500) {
                return now;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One backend under test.
pub struct Bench {
    /// The runtime, with nothing but this backend in it.
    pub runtime: Runtime,
    /// The device, opened by the runtime.
    pub device: Device,
    /// A stream of it.
    pub stream: Stream,
    /// The backend.
    pub backend: Arc<LoadedBackend>,
    /// The device's ordinal.
    pub ordinal: u32,
    /// The same device, opened through the tables.
    pub raw: Handle<abi::Device>,
    /// Seed of contents.
    pub seed: u64,
    /// Tier of the run.
    pub tier: Tier,
    /// Which implementations may run.
    pub implementation: Implementation,
    /// The process before and after the backend was loaded and asked.
    pub footprint: (Footprint, Footprint),
    /// How it was opened.
    pub target: Target,
}

/// Why there is no bench.
pub struct Refused {
    /// The reason.
    pub reason: String,
    /// Nothing is wrong: the chip is absent, or the user left the backend out.
    pub expected: bool,
}

impl From<Error> for Refused {
    fn from(e: Error) -> Refused {
        Refused { expected: e.code == abi::Code::UNAVAILABLE, reason: e.to_string() }
    }
}

/// Fallback forbidden, claims out of the way, no layers: what runs is what is tested.
fn policy(implementation: Implementation) -> Policy {
    let order: &[&str] = match implementation {
        Implementation::Any => &["native", "portable"],
        Implementation::Native => &["native"],
        Implementation::Portable => &["portable"],
    };
    Policy { fallback: Fallback::Forbid, order: order.iter().map(|s| (*s).to_owned()).collect(), ..Policy::default() }
}

fn options_of(target: &Target) -> discover::Options {
    let mut options = match target {
        Target::Embedded(_) => discover::Options::with_folders(Vec::new()),
        Target::Name(name) => discover::Options { select: vec![name.clone()], ..discover::Options::from_environment() },
        Target::File(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let host = discover::Options::from_environment();
            discover::Options { files: Some(vec![path]), trust: host.trust, query_timeout: host.query_timeout, ..discover::Options::with_folders(Vec::new()) }
        }
    };
    options.hash_all = true;
    options.read_claims = false;
    options
}

/// Every backend there is: the embedded ones, then what discovery finds.
pub fn list(embedded: &[DirectBackend]) -> Vec<Found> {
    let mut found: Vec<Found> = embedded.iter().map(|d| Found { target: Target::Embedded(d.name.clone()), refused: None }).collect();
    let options = discover::Options { read_claims: false, ..discover::Options::from_environment() };
    for candidate in discover::discover(&options, &[]).candidates {
        let refused = match &candidate.outcome {
            discover::Outcome::Taken(_) => None,
            discover::Outcome::Refused(r) => Some((r.message.clone(), r.is_expected() || r.phase == discover::Phase::Name)),
        };
        let target = match (&candidate.name, &refused) {
            (Some(name), None) => Target::Name(name.clone()),
            _ => Target::File(candidate.path.clone()),
        };
        found.push(Found { target, refused });
    }
    found
}

impl Bench {
    /// Loads a backend and opens its device.
    pub fn open(target: &Target, ordinal: u32, embedded: &[DirectBackend], tier: Tier, seed: u64, implementation: Implementation) -> Result<Bench, Refused> {
        let direct: Vec<DirectBackend> = match target {
            Target::Embedded(name) => embedded.iter().filter(|d| d.name == *name).cloned().collect(),
            _ => Vec::new(),
        };
        let before = Footprint::now();
        let runtime = Runtime::with_options(&options_of(target), &direct, policy(implementation))?;
        let after = Footprint::settled(before.threads);
        let report = runtime.report();
        let wanted = |b: &&Arc<LoadedBackend>| match target {
            Target::Embedded(name) | Target::Name(name) => b.name == *name,
            Target::File(_) => true,
        };
        let Some(backend) = report.taken().find(wanted).cloned() else {
            let refusal = match target {
                Target::Embedded(name) | Target::Name(name) => report.refusal_of(name),
                Target::File(_) => report.refused().next(),
            };
            return Err(match refusal {
                Some(r) => Refused { reason: r.message.clone(), expected: r.is_expected() },
                None => Refused { reason: format!("there is no backend '{target}'; see `flagos backends`"), expected: false },
            });
        };
        let name = format!("{}:{ordinal}", backend.name);
        let entry = runtime.devices().iter().find(|d| d.name == name);
        match entry {
            Some(e) if e.score == 0 => return Err(Refused { reason: format!("{name} is unusable: {}", e.reason), expected: true }),
            Some(_) => {}
            None => {
                let count = runtime.devices().len();
                return Err(Refused { reason: format!("there is no device {name}: the backend sees {count}"), expected: ordinal == 0 });
            }
        }
        let device = runtime.open(&name)?;
        let stream = device.stream()?;
        let raw = crate::raw::open(&backend.tables.device, ordinal)?;
        Ok(Bench { device, stream, ordinal, raw, seed, tier, implementation, footprint: (before, after), target: target.clone(), backend, runtime })
    }

    /// What is tested.
    pub fn identity(&self) -> Identity {
        let b = &self.backend;
        let path = |p: &Option<std::path::PathBuf>| p.as_ref().map_or_else(String::new, |p| p.display().to_string());
        Identity {
            backend: b.name.clone(),
            version: b.version.clone(),
            vendor: b.vendor.clone(),
            build_id: b.build_id.clone(),
            compiler: b.compiler.clone(),
            abi_minor: b.abi_minor_built,
            library: path(&b.library),
            library_sha256: b.library_sha256.clone().unwrap_or_default(),
            manifest: path(&b.manifest_path),
            device: self.device.name().to_owned(),
            product: self.device.info().name.clone(),
            arch: self.device.info().arch.clone(),
            driver: self.device.info().driver.clone(),
            flushes_subnormals: self.flushes(),
        }
    }

    /// The backend's tables.
    pub fn tables(&self) -> &'static Tables {
        self.backend.tables
    }
    /// Whether a capability bit is set.
    pub fn has(&self, cap: u64) -> bool {
        self.device.info().caps & cap != 0
    }
    /// Whether single-precision subnormals count as zeros.
    pub fn flushes(&self) -> bool {
        self.has(abi::caps::FLUSHES_SUBNORMALS)
    }
    /// Host memory the backend holds, and how often it took some.
    pub fn host_use(&self) -> discover::HostUse {
        discover::host_use(&self.backend.name)
    }
}
