//! The always-on trace: a bounded ring per thread of which implementation ran, written without locks and readable at any time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Launches a thread's ring remembers.
pub const CAPACITY: usize = 1024;

/// One thread's ring. Only its thread writes; anyone reads.
struct Ring {
    head: AtomicU64,
    slots: [AtomicU64; CAPACITY],
}

static RINGS: Mutex<Vec<Arc<Ring>>> = Mutex::new(Vec::new());
static RETIRED_LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// Keeps the rings of live threads listed and hands their count on when a thread ends.
struct Registration(Arc<Ring>);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut rings = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
        RETIRED_LAUNCHES.fetch_add(self.0.head.load(Ordering::Relaxed), Ordering::Relaxed);
        rings.retain(|r| !Arc::ptr_eq(r, &self.0));
        LOCAL.with(|local| local.set(core::ptr::null()));
    }
}

thread_local! {
    // A bare pointer in a const-initialised, drop-free cell costs one TLS access; the registration owns what it points to.
    static LOCAL: Cell<*const Ring> = const { Cell::new(core::ptr::null()) };
    static OWNER: Cell<Option<Registration>> = const { Cell::new(None) };
}

/// Records that this thread launched the plan of this serial number.
#[inline]
pub(crate) fn record(serial: u64) {
    LOCAL.with(|local| {
        let mut ring = local.get();
        if ring.is_null() {
            ring = register();
            local.set(ring);
        }
        // SAFETY: the ring is owned by this thread's registration, which clears LOCAL before it lets go.
        let Some(ring) = (unsafe { ring.as_ref() }) else { return };
        let head = ring.head.load(Ordering::Relaxed);
        ring.slots[head as usize % CAPACITY].store(serial, Ordering::Relaxed);
        ring.head.store(head + 1, Ordering::Release);
    });
}

#[cold]
fn register() -> *const Ring {
    let ring = Arc::new(Ring { head: AtomicU64::new(0), slots: [const { AtomicU64::new(0) }; CAPACITY] });
    let pointer = Arc::as_ptr(&ring);
    let kept = OWNER.try_with(|owner| owner.set(Some(Registration(ring.clone()))));
    if kept.is_err() {
        return core::ptr::null();
    }
    RINGS.lock().unwrap_or_else(PoisonError::into_inner).push(ring);
    pointer
}

/// Plan serial numbers of the latest launches, oldest first within a thread, thread after thread; and the number of all launches so far.
pub fn recent() -> (Vec<u64>, u64) {
    let rings = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut total = RETIRED_LAUNCHES.load(Ordering::Relaxed);
    let mut serials = Vec::new();
    for ring in rings.iter() {
        let head = ring.head.load(Ordering::Acquire);
        total += head;
        let first = head.saturating_sub(CAPACITY as u64);
        serials.extend((first..head).map(|i| ring.slots[i as usize % CAPACITY].load(Ordering::Relaxed)));
    }
    (serials, total)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ring_keeps_the_latest_and_counts_all() {
        let before = super::recent().1;
        std::thread::spawn(|| {
            for i in 0..super::CAPACITY as u64 + 7 {
                super::record(1_000_000 + i);
            }
            let (serials, _) = super::recent();
            let own: Vec<u64> = serials.into_iter().filter(|s| *s >= 1_000_000).collect();
            assert_eq!(own.len(), super::CAPACITY);
            assert_eq!(own[0], 1_000_007);
        })
        .join()
        .unwrap();
        assert!(super::recent().1 >= before + super::CAPACITY as u64 + 7);
    }
}
