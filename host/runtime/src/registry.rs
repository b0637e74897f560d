//! The runtime: what was discovered, the open devices, the policy in force and the plan cache.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use dashmap::DashMap;
use flagos_backend_api as abi;
use flagos_backend_api::{Code, DeviceKind, Error, Result};
use serde::Serialize;

use crate::device::{Device, DeviceInner};
use crate::discover::{self, DirectBackend, Options, Outcome, Report};
use crate::driver::Driver;
use crate::fallback::FallbackStatistics;
use crate::key::Key;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::select::{self, Choice};
use crate::transfer::TransferStatistics;
use crate::work::Work;

/// Plans the cache holds before it drops the older half.
const CACHE_CAPACITY: usize = 8192;

static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Makes every cached plan stale: the policy changed, a backend was quarantined or an operator revoked.
pub(crate) fn advance_epoch() {
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

/// Rises whenever cached choices may have become wrong. Per-thread caches compare it.
#[inline]
pub fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// All backends of a process, judged and loaded once. Cloning shares it.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    report: Report,
    drivers: Vec<Arc<Driver>>,
    devices: OnceLock<Vec<DeviceEntry>>,
    policy: RwLock<Arc<Policy>>,
    open: Mutex<HashMap<(usize, u32), Weak<DeviceInner>>>,
    plans: DashMap<PlanKey, (Plan, u64, u64)>,
    clock: AtomicU64,
    pub(crate) fallbacks: crate::fallback::Counters,
    pub(crate) transfers: crate::transfer::Counters,
}

/// (device serial, deterministic, canonical key).
#[derive(PartialEq, Eq, Hash)]
struct PlanKey(u32, bool, Box<[u64]>);

/// A device as `probe` saw it.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceEntry {
    /// `backend:ordinal`.
    pub name: String,
    /// Its backend.
    pub backend: String,
    /// Ordinal within the backend.
    pub ordinal: u32,
    /// Usability; 0: unusable, see `reason`.
    pub score: u32,
    /// `CPU`, `GPU` or `ACCELERATOR`.
    pub kind: String,
    /// Product name.
    pub product: String,
    /// Target fingerprint.
    pub arch: String,
    /// Driver.
    pub driver: String,
    /// Why it is unusable.
    pub reason: String,
    /// Capability bits.
    pub caps: u64,
    /// Time the probe took, shared by the backend's devices, in nanoseconds.
    pub probe_ns: u64,
}

/// What a runtime did so far.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Statistics {
    /// Fallbacks.
    pub fallback: FallbackStatistics,
    /// Copies between devices.
    pub transfer: TransferStatistics,
    /// Launches of all plans, all runtimes of the process.
    pub launches: u64,
    /// Plans held by the cache.
    pub cached_plans: u64,
    /// Kernels compiled and found, all runtimes of the process.
    pub kernels: crate::module::KernelStatistics,
}

impl Runtime {
    /// Discovers backends as the environment says; `embedded` are tables linked into this binary.
    pub fn new(embedded: &[DirectBackend]) -> Result<Runtime> {
        Runtime::with_options(&Options::from_environment(), embedded, Policy::from_environment()?)
    }

    /// Discovers backends by explicit options.
    pub fn with_options(options: &Options, embedded: &[DirectBackend], policy: Policy) -> Result<Runtime> {
        policy.check()?;
        let report = discover::discover(options, embedded);
        let taken = report.candidates.iter().filter_map(|c| match &c.outcome {
            Outcome::Taken(backend) => Some(Arc::new(Driver::new(backend.clone()))),
            Outcome::Refused(_) => None,
        });
        let drivers = taken.collect();
        Ok(Runtime(Arc::new(Inner {
            report,
            drivers,
            devices: OnceLock::new(),
            policy: RwLock::new(Arc::new(policy)),
            open: Mutex::new(HashMap::new()),
            plans: DashMap::new(),
            clock: AtomicU64::new(0),
            fallbacks: Default::default(),
            transfers: Default::default(),
        })))
    }

    /// Every candidate, taken or refused.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// Every device of every backend; probes on first use.
    pub fn devices(&self) -> &[DeviceEntry] {
        self.0.devices.get_or_init(|| self.0.drivers.iter().flat_map(|d| probe(d)).collect())
    }

    /// Opens a device by `backend:ordinal`, `backend` (its best) or empty text (the best of all: the policy's priority, then
    /// the score its probe gave, then accelerators before processors, then the order of discovery). A device open already is shared.
    pub fn open(&self, name: &str) -> Result<Device> {
        let entry = self.find(name)?;
        if entry.score == 0 {
            let why = if entry.reason.is_empty() { "its backend gives no reason" } else { &entry.reason };
            return Err(Error::new(Code::UNAVAILABLE, format!("device {} is unusable: {why}", entry.name)));
        }
        let index = self.0.drivers.iter().position(|d| d.backend.name == entry.backend);
        let index = index.ok_or_else(|| Error::new(Code::NOT_FOUND, format!("backend '{}' is not loaded", entry.backend)))?;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = open.get(&(index, entry.ordinal)).and_then(Weak::upgrade) {
            return Ok(Device(inner));
        }
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let device = Device::open(&self.0, &self.0.drivers[index], entry.ordinal, SERIAL.fetch_add(1, Ordering::Relaxed))?;
        open.insert((index, entry.ordinal), Arc::downgrade(&device.0));
        Ok(device)
    }

    fn find(&self, name: &str) -> Result<&DeviceEntry> {
        let devices = self.devices();
        let policy = self.0.policy();
        let rank = |d: &DeviceEntry| {
            let accelerator = d.kind != DeviceKind::CPU.to_string();
            (policy.priority.get(&d.backend).copied().unwrap_or(0), d.score, accelerator)
        };
        let best = |of: &dyn Fn(&&DeviceEntry) -> bool| devices.iter().filter(of).rev().max_by_key(|d| rank(d));
        let found = if name.is_empty() { best(&|d| d.score > 0) } else { best(&|d| d.name == name || d.backend == name) };
        found.ok_or_else(|| {
            let refused = self.0.report.refusal_of(name.split(':').next().unwrap_or(name));
            let known: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
            let text = match refused {
                Some(reason) => format!("backend '{name}' was refused: {reason}"),
                None if name.is_empty() => "no usable device; see `flagos doctor`".to_owned(),
                None => format!("there is no device '{name}'; known are {}; see `flagos doctor`", known.join(", ")),
            };
            Error::new(Code::NOT_FOUND, text)
        })
    }

    /// Names of the backends taken, in order.
    pub fn backends(&self) -> Vec<&str> {
        self.0.drivers.iter().map(|d| d.backend.name.as_str()).collect()
    }

    /// Why a backend is out of use, if it is.
    pub fn quarantine_reason(&self, backend: &str) -> Option<String> {
        let driver = self.0.drivers.iter().find(|d| d.backend.name == backend)?;
        driver.quarantine_reason().map(String::from)
    }

    /// The backend fallbacks run on: the first one linked into this binary.
    pub fn fallback_backend(&self) -> Option<String> {
        self.0.drivers.iter().find(|d| d.backend.is_embedded()).map(|d| d.backend.name.clone())
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.0.policy()
    }

    /// Replaces the policy; cached choices are made anew. Layers apply to devices opened afterwards.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        policy.check()?;
        *self.0.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        advance_epoch();
        Ok(())
    }

    /// Takes implementations (`backend/operator` globs) out of use at once.
    pub fn revoke(&self, pattern: &str) -> Result<()> {
        let mut policy = (*self.policy()).clone();
        policy.revoked.push(pattern.to_owned());
        self.set_policy(policy)
    }

    /// What has been counted.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            fallback: self.0.fallbacks.read(),
            transfer: self.0.transfers.read(),
            launches: crate::trace::recent().1,
            cached_plans: self.0.plans.len() as u64,
            kernels: crate::module::KernelStatistics::read(),
        }
    }

    /// Forgets every cached plan. Cached plans keep their devices open, so call this before the last handle goes.
    pub fn clear_plans(&self) {
        self.0.plans.clear();
        advance_epoch();
    }

    /// Whether two handles are one runtime.
    pub fn same(&self, other: &Runtime) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Device {
    /// Plans a call, from the cache where it was planned before.
    pub fn plan(&self, work: &Work) -> Result<Plan> {
        self.plan_keyed(work.key().words(), false, || Ok(work.clone()))
    }

    /// Plans a call with implementations that give equal bits on every run.
    pub fn plan_deterministic(&self, work: &Work) -> Result<Plan> {
        self.plan_keyed(work.key().words(), true, || Ok(work.clone()))
    }

    /// Plans by a canonical key; `work` is built only when the cache has no such plan.
    pub fn plan_keyed(&self, key: &[u64], deterministic: bool, work: impl FnOnce() -> Result<Work>) -> Result<Plan> {
        let inner = &self.0.runtime;
        let now = epoch();
        let key = PlanKey(self.0.serial, deterministic, key.into());
        if let Some(hit) = inner.plans.get(&key).filter(|hit| hit.1 == now) {
            return Ok(hit.0.clone());
        }
        let plan = select::plan(&work()?, self, deterministic)?;
        let tick = inner.clock.fetch_add(1, Ordering::Relaxed);
        if inner.plans.len() >= CACHE_CAPACITY {
            inner.plans.retain(|_, (_, epoch, at)| *epoch == now && *at + CACHE_CAPACITY as u64 / 2 > tick);
        }
        inner.plans.insert(key, (plan.clone(), now, tick));
        Ok(plan)
    }

    /// What the device's own backend answers to a call, without consulting policy, claims or other devices.
    pub fn query(&self, work: &Work, level: u32) -> Result<abi::Support> {
        let none = || Error::unimplemented(format!("backend '{}' has no table for {}", self.backend(), work.name()));
        work.query(self.driver(), self.0.raw, level).unwrap_or_else(|| Err(none()))
    }

    /// As [`query`](Device::query), straight from a descriptor: what a framework asks thousands of times.
    ///
    /// # Safety
    /// The arrays of `op` hold as many valid entries as it states, spans included.
    pub unsafe fn query_op(&self, op: &abi::Op, level: u32) -> Result<abi::Support> {
        let driver = self.driver();
        let none = || Error::unimplemented(format!("backend '{}' has no operator table", self.backend()));
        let table = driver.backend.tables.op.as_ref().ok_or_else(none)?;
        let mut support = crate::driver::empty_support();
        crate::driver::slot!(driver, table, query, self.0.raw.as_ptr(), op, level, &mut support)?;
        Ok(support)
    }

    /// Who would run a call, and why.
    pub fn explain(&self, work: &Work) -> Result<Choice> {
        work.check()?;
        select::choose(work, self)
    }

    /// The canonical key of a call together with its hash, for per-thread caches.
    pub fn key_of(work: &Work) -> Key {
        work.key()
    }
}

impl Inner {
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Probes one backend; a failure becomes one unusable entry with the reason.
fn probe(driver: &Driver) -> Vec<DeviceEntry> {
    let started = std::time::Instant::now();
    let found = driver.probe();
    let probe_ns = started.elapsed().as_nanos() as u64;
    let backend = driver.backend.name.clone();
    let entry = |ordinal: u32| DeviceEntry {
        name: format!("{backend}:{ordinal}"),
        backend: backend.clone(),
        ordinal,
        score: 0,
        kind: String::new(),
        product: String::new(),
        arch: String::new(),
        driver: String::new(),
        reason: String::new(),
        caps: 0,
        probe_ns,
    };
    match found {
        Err(e) => vec![DeviceEntry { reason: e.to_string(), ..entry(0) }],
        Ok(probes) => probes
            .iter()
            .enumerate()
            .map(|(i, p)| DeviceEntry {
                score: p.score,
                kind: DeviceKind(p.device_kind).to_string(),
                product: crate::driver::text(p.name),
                arch: crate::driver::text(p.arch),
                driver: crate::driver::text(p.driver),
                reason: crate::driver::text(p.reason),
                caps: p.caps,
                ..entry(i as u32)
            })
            .collect(),
    }
}
