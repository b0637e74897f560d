//! Worker threads shared by all kernels of the process.

/// Runs tasks on the caller and, when they are free, on workers.
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads`, the caller included.
    pub fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1) }
    }
    /// Threads that may take part, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }
    /// Calls `task(i)` once for each `i` below `tasks`, in any order, and returns when all are done.
    pub fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
