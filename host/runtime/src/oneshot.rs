//! One-shot execution: a call runs through a plan this thread used before, found by its canonical key without locks.

use std::cell::RefCell;

use flagos_backend_api::{BlasDesc, FftDesc, Op, Result};
use flagos_catalog::Call;

use crate::key::Key;
use crate::plan::{Operand, Plan, Scalars};
use crate::registry::epoch;
use crate::stream::Stream;
use crate::work::Work;

/// Slots of a thread's direct-mapped cache; a miss costs a look into the shared cache.
const SLOTS: usize = 512;

struct Slot {
    hash: u64,
    epoch: u64,
    device: u32,
    key: Box<[u64]>,
    plan: Plan,
}

thread_local! {
    static CACHE: RefCell<Vec<Option<Slot>>> = const { RefCell::new(Vec::new()) };
}

/// Plans (once) and launches an operator call with `n` operands, asked for by index.
///
/// # Safety
/// The arrays of `op` hold as many valid entries as it states, spans included.
#[inline]
pub unsafe fn execute<'a>(stream: &Stream, op: &Op, n: usize, operand: impl Fn(usize) -> Result<Operand<'a>>) -> Result<()> {
    let mut key = Key::new();
    // SAFETY: stated by the caller.
    unsafe { key.op(op) };
    // SAFETY: stated by the caller; no scalars are passed.
    unsafe { run(stream, key.words(), n, operand, Scalars::NONE, || Call::from_abi(op).map(Work::Op)) }
}

/// Plans (once) and launches a BLAS call.
///
/// # Safety
/// As [`Plan::launch_scaled`].
#[inline]
pub unsafe fn execute_blas<'a>(stream: &Stream, desc: &BlasDesc, n: usize, operand: impl Fn(usize) -> Result<Operand<'a>>, scalars: Scalars) -> Result<()> {
    let mut key = Key::new();
    key.blas(desc);
    // SAFETY: passed on to the caller.
    unsafe { run(stream, key.words(), n, operand, scalars, || Ok(Work::Blas(*desc))) }
}

/// Plans (once) and launches a Fourier transform.
#[inline]
pub fn execute_fft<'a>(stream: &Stream, desc: &FftDesc, n: usize, operand: impl Fn(usize) -> Result<Operand<'a>>) -> Result<()> {
    let mut key = Key::new();
    key.fft(desc);
    // SAFETY: no scalars are passed.
    unsafe { run(stream, key.words(), n, operand, Scalars::NONE, || Ok(Work::Fft(*desc))) }
}

/// # Safety
/// As [`Plan::launch_scaled`].
#[inline]
unsafe fn run<'a>(
    stream: &Stream,
    key: &[u64],
    n: usize,
    operand: impl Fn(usize) -> Result<Operand<'a>>,
    scalars: Scalars,
    work: impl FnOnce() -> Result<Work>,
) -> Result<()> {
    let hash = Key::hash(key);
    let device = stream.0.device.0.serial;
    let launched = CACHE.try_with(|cache| {
        let cache = cache.try_borrow().ok()?;
        let slot = cache.get(index(hash, device))?.as_ref()?;
        let hit = slot.hash == hash && slot.device == device && slot.epoch == epoch() && *slot.key == *key;
        // SAFETY: passed on to the caller.
        hit.then(|| unsafe { slot.plan.launch_with(stream, n, &operand, scalars) })
    });
    if let Ok(Some(result)) = launched {
        return result;
    }
    let plan = remember(stream, key, hash, work)?;
    // SAFETY: passed on to the caller.
    unsafe { plan.launch_with(stream, n, operand, scalars) }
}

#[inline]
fn index(hash: u64, device: u32) -> usize {
    (hash as usize ^ (device as usize).wrapping_mul(0x9e37)) % SLOTS
}

/// Finds or makes the plan and leaves it in this thread's cache.
#[cold]
fn remember(stream: &Stream, key: &[u64], hash: u64, work: impl FnOnce() -> Result<Work>) -> Result<Plan> {
    let now = epoch();
    let plan = stream.device().plan_keyed(key, false, work)?;
    let device = stream.0.device.0.serial;
    let slot = Slot { hash, epoch: now, device, key: key.into(), plan: plan.clone() };
    // The replaced plan is dropped after the cache is released: dropping may call into a backend.
    let old = CACHE.try_with(|cache| {
        let mut cache = cache.try_borrow_mut().ok()?;
        if cache.is_empty() {
            cache.resize_with(SLOTS, || None);
        }
        cache[index(hash, device)].replace(slot)
    });
    drop(old);
    Ok(plan)
}

/// Forgets this thread's plans. Other threads drop stale ones when they next use their slot.
pub fn forget() {
    let old = CACHE.try_with(|cache| cache.try_borrow_mut().map(|mut c| std::mem::take(&mut *c)));
    drop(old);
}
