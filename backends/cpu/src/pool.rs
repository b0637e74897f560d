//! Worker threads shared by all kernels of the process.
//!
//! Threading rule: a pool of `n` has `n - 1` workers, and the thread that calls in is the n-th. One caller's tasks run on the workers at a
//! time; a caller that finds the pool busy (another thread's call, or a call from inside a task) runs its tasks itself, so any number of
//! threads may call, to any depth, without deadlock or oversubscription. Workers start at the first call that needs them, spin for about
//! 30 µs after their last task and then sleep; they block all signals. After `fork` the child starts workers of its own at its first call.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks for work, or for the end of it, before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// Runs tasks on the caller and, when they are free, on workers.
pub struct Pool {
    threads: usize,
    /// Boxed; NULL until the first call, replaced after a fork.
    shared: AtomicPtr<Arc<Shared>>,
}

impl Pool {
    /// A pool of `threads`, the caller included.
    pub fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1), shared: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Threads that may take part, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(i)` once for each `i` below `tasks`, in any order, and returns when all are done. A panic in a task is passed on.
    pub fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks < 2 || self.threads == 1 {
            return (0..tasks).for_each(task);
        }
        let shared = self.shared();
        if shared.busy.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            return (0..tasks).for_each(task);
        }
        shared.start(self.threads - 1, shared);
        let panic = shared.lead(tasks, task);
        shared.busy.store(false, Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Splits `0..len` into ranges of `grain` (the last may be shorter) and calls `task` once for each.
    pub fn for_ranges(&self, len: usize, grain: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        self.for_each(len.div_ceil(grain), &|i| task(i * grain..len.min((i + 1) * grain)));
    }

    fn shared(&self) -> &Arc<Shared> {
        let pid = std::process::id();
        let mut seen = self.shared.load(Acquire);
        loop {
            // SAFETY: the pointer was made by `Box::into_raw` below and is freed only when the pool is dropped.
            if let Some(shared) = unsafe { seen.as_ref() }
                && shared.pid == pid
            {
                return shared;
            }
            // A fork leaves a state whose workers are gone and whose locks may be held for ever: it is left alone.
            let fresh = Box::into_raw(Box::new(Arc::new(Shared::new(pid))));
            match self.shared.compare_exchange(seen, fresh, AcqRel, Acquire) {
                Ok(_) => seen = fresh,
                Err(other) => {
                    // SAFETY: made above and never shared.
                    drop(unsafe { Box::from_raw(fresh) });
                    seen = other;
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let at = self.shared.load(Acquire);
        // SAFETY: made by `shared`, and nobody calls in any more.
        let Some(shared) = (unsafe { at.as_ref() }) else { return };
        if shared.pid != std::process::id() {
            return;
        }
        shared.state.fetch_or(STOP, SeqCst);
        drop(shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
        shared.wake.notify_all();
        let workers = core::mem::take(&mut *shared.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            // A worker catches its tasks' panics, so joining fails only if the thread was killed from outside.
            let _ = worker.join();
        }
        // SAFETY: as above; the workers' own references are gone.
        drop(unsafe { Box::from_raw(at) });
    }
}

/// Workers inside the current job, in the low bits of the state.
const INSIDE: u64 = (1 << 24) - 1;
/// Workers may enter the current job.
const OPEN: u64 = 1 << 24;
/// Workers shall end.
const STOP: u64 = 1 << 25;
/// One job, in the high bits of the state.
const JOB: u64 = 1 << 26;

/// What the caller lends for the time of a job.
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    caller: Thread,
}

struct Shared {
    pid: u32,
    busy: AtomicBool,
    /// Job number, `STOP`, `OPEN`, and the number of workers inside.
    state: AtomicU64,
    tasks: AtomicUsize,
    next: AtomicUsize,
    /// Written by the busy caller while the state is closed and empty; read by workers inside.
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Mutex<()>,
    asleep: AtomicUsize,
    wake: Condvar,
    workers: Mutex<Vec<JoinHandle<()>>>,
    started: AtomicBool,
}

// SAFETY: `job` is handed over by `state` as its field says; the task it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(pid: u32) -> Shared {
        Shared {
            pid,
            busy: AtomicBool::new(false),
            state: AtomicU64::new(0),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleepers: Mutex::new(()),
            asleep: AtomicUsize::new(0),
            wake: Condvar::new(),
            workers: Mutex::new(Vec::new()),
            started: AtomicBool::new(false),
        }
    }

    /// Starts workers at the first call. Fewer come if the system refuses threads: tasks then take longer, nothing else.
    fn start(&self, count: usize, me: &Arc<Shared>) {
        if self.started.swap(true, Relaxed) {
            return;
        }
        let spawn = |i: usize| {
            let me = Arc::clone(me);
            thread::Builder::new().name(format!("flagos-cpu-{i}")).spawn(move || me.work()).ok()
        };
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.extend((1..=count).map_while(spawn));
    }

    /// The caller's side of a job; the pool is marked busy. Gives back a task's panic.
    fn lead(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Option<Box<dyn Any + Send>> {
        // SAFETY: only the lifetime is changed; no worker is inside once this function returns.
        let task = unsafe { core::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(task) };
        // SAFETY: the pool is busy with this call, closed and empty, so nobody else looks at the job.
        unsafe { *self.job.get() = Some(Job { task, caller: thread::current() }) };
        self.tasks.store(tasks, Relaxed);
        self.next.store(0, Relaxed);
        self.state.fetch_add(JOB + OPEN, SeqCst);
        if self.asleep.load(SeqCst) > 0 {
            drop(self.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
        self.take_part(task);
        self.state.fetch_sub(OPEN, SeqCst);
        spin_until(|| self.state.load(Acquire) & INSIDE == 0);
        while self.state.load(Acquire) & INSIDE != 0 {
            thread::park();
        }
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs tasks until none is left. A panic ends the job early and is kept.
    fn take_part(&self, task: *const (dyn Fn(usize) + Sync)) {
        // SAFETY: the caller of the job waits for all who take part.
        let task = unsafe { &*task };
        let tasks = self.tasks.load(Relaxed);
        let run = || {
            loop {
                let i = self.next.fetch_add(1, Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            self.next.store(tasks, Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// A worker's life.
    fn work(&self) {
        block_signals();
        let mut last = 0;
        loop {
            let state = self.await_job(last);
            if state & STOP != 0 {
                return;
            }
            if self.state.compare_exchange(state, state + 1, Acquire, Relaxed).is_err() {
                continue;
            }
            last = state / JOB;
            // SAFETY: this worker is inside, so the job stays until it leaves.
            let (task, caller) = unsafe { (*self.job.get()).as_ref().map(|j| (j.task, j.caller.clone())) }.expect("an open job has a task");
            self.take_part(task);
            if self.state.fetch_sub(1, Release) & (INSIDE | OPEN) == 1 {
                caller.unpark();
            }
        }
    }

    /// Waits for an open job other than number `last`, or for the end.
    fn await_job(&self, last: u64) -> u64 {
        let ready = |state: u64| state & STOP != 0 || (state & OPEN != 0 && state / JOB != last);
        let mut state = 0;
        let mut look = || {
            state = self.state.load(SeqCst);
            ready(state)
        };
        if spin_until(&mut look) {
            return state;
        }
        let mut guard = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, SeqCst);
        while !look() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, SeqCst);
        state
    }
}

/// Looks until `done` or for [`SPIN`]; says whether it is done.
fn spin_until(mut done: impl FnMut() -> bool) -> bool {
    let mut since = None;
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            core::hint::spin_loop();
        }
        if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}

/// Signals of the process are for the threads of its owner.
fn block_signals() {
    #[cfg(unix)]
    // SAFETY: a zeroed set is filled before use, and a thread may always change its own mask.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_runs_once() {
        let pool = Pool::new(4);
        for tasks in [0, 1, 2, 3, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                pool.for_each(tasks, &|i| {
                    counts[i].fetch_add(1, Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Relaxed) == 50), "{tasks}");
        }
    }

    #[test]
    fn nested_and_concurrent_callers_finish() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..200 {
                        pool.for_each(5, &|_| {
                            pool.for_ranges(10, 3, &|r| {
                                total.fetch_add(r.len(), Relaxed);
                            })
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 5 * 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        let broken = catch_unwind(AssertUnwindSafe(|| pool.for_each(64, &|i| assert!(i != 40, "task 40"))));
        assert!(broken.is_err());
        let sum = AtomicUsize::new(0);
        pool.for_each(64, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.into_inner(), 2016);
    }

    #[test]
    fn sleeping_workers_are_woken() {
        let pool = Pool::new(2);
        let here = thread::current().id();
        for _ in 0..3 {
            let other = AtomicBool::new(false);
            thread::sleep(Duration::from_millis(5));
            // Task 0 or 1 waits until a second thread has shown up, so a worker that sleeps on would hang the test.
            pool.for_each(2, &|_| {
                if thread::current().id() != here {
                    other.store(true, Release);
                }
                while !other.load(Acquire) {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_forked_child_has_workers_again() {
        let pool = Pool::new(3);
        let ran = AtomicUsize::new(0);
        let count = |_: usize| {
            ran.fetch_add(1, Relaxed);
        };
        pool.for_each(16, &count);
        // SAFETY: the child only uses the pool and leaves by `_exit`.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                pool.for_each(16, &count);
                libc::_exit(if ran.load(Relaxed) == 32 { 0 } else { 1 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status}");
        }
    }
}
