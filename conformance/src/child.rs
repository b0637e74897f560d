//! The worker process: loads one backend, runs the cases it is told, and leaves a backtrace when it dies.

use std::io::BufReader;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

use flagos_runtime::claims::Implementation;
use flagos_runtime::discover::DirectBackend;

use crate::bench::{self, Bench};
use crate::check::Check;
use crate::outcome::{CaseResult, Failure, Status, Stop};
use crate::plan::{Plan, Run, tier_of};
use crate::protocol::{Reply, Request, Target, receive, send};

/// Name of the hidden subcommand that programs with a suite answer with [`worker_main`].
pub const WORKER_COMMAND: &str = "conformance-worker";

/// Serves a runner over standard input, which is a socket, until that is closed. `embedded` are the tables linked into this program.
///
/// Call it first thing in `main`: it installs handlers that print a backtrace on faults.
pub fn worker_main(embedded: &[DirectBackend]) -> ExitCode {
    die_with_parent();
    install_handlers();
    match serve(embedded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{WORKER_COMMAND}: {e}; this command is for `flagos conformance` only");
            ExitCode::from(2)
        }
    }
}

fn serve(embedded: &[DirectBackend]) -> std::io::Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open; a backend that reads standard input must not take the runner's messages.
    unsafe { libc::dup2(nothing.as_raw_fd(), 0) };
    let mut from = BufReader::new(socket.try_clone()?);
    let mut to = socket;
    let mut open: Option<(Bench, Plan)> = None;
    while let Some(request) = receive::<Request>(&mut from)? {
        match request {
            Request::List => send(&mut to, &Reply::Found(bench::list(embedded)))?,
            Request::Open { target, ordinal, tier, seed, implementation } => {
                let (reply, opened) = start(&target, ordinal, &tier, seed, implementation, embedded);
                open = opened;
                send(&mut to, &reply)?;
            }
            Request::Run { ids } => {
                for id in &ids {
                    send(&mut to, &Reply::Begin { id: id.clone() })?;
                    crate::process::mark();
                    let result = match &open {
                        Some((bench, plan)) => run(bench, plan, id),
                        None => CaseResult::fail(id, Failure::new(Check::Load, "no backend is open")),
                    };
                    send(&mut to, &Reply::Done(Box::new(result)))?;
                }
            }
        }
    }
    Ok(())
}

fn start(target: &Target, ordinal: u32, tier: &str, seed: u64, implementation: Implementation, embedded: &[DirectBackend]) -> (Reply, Option<(Bench, Plan)>) {
    let tier = match tier_of(tier) {
        Ok(tier) => tier,
        Err(e) => return (Reply::Refused { reason: e.message, expected: false }, None),
    };
    match Bench::open(target, ordinal, embedded, tier, seed, implementation) {
        Ok(bench) => (Reply::Opened(Box::new(bench.identity())), Some((bench, Plan::new(tier)))),
        Err(refused) => (Reply::Refused { reason: refused.reason, expected: refused.expected }, None),
    }
}

fn run(bench: &Bench, plan: &Plan, id: &str) -> CaseResult {
    let started = Instant::now();
    let Some(entry) = plan.find(id) else {
        return CaseResult::fail(id, Failure::new(Check::Load, format!("there is no case '{id}' in this tier")));
    };
    let mut result = match &entry.run {
        Run::Operator(operator, types, case) => crate::execute::operator(bench, operator, types, case),
        Run::Property(operator, types) => crate::property::operator(bench, operator, types, id),
        Run::Blas(case) => crate::execute::blas(bench, case),
        Run::Fft(case) => crate::execute::fft(bench, case),
        Run::Raw(run) => match run(bench) {
            Ok(()) => CaseResult::new(id, Status::Pass),
            Err(Stop::Fail(failure)) => CaseResult::fail(id, failure),
            Err(Stop::Skip(reason)) => CaseResult { reason, ..CaseResult::new(id, Status::Skipped) },
        },
    };
    if result.failures.first().is_some_and(|f| f.check == Check::Panic)
        && bench.memory(64).is_ok()
    {
        result.add([Failure::new(Check::Panic, "the backend works on after a panic; it is to be out of use")]);
    }
    result.id = id.to_owned();
    result.time_ns = started.elapsed().as_nanos() as u64;
    result
}

/// A runner that is killed must not leave workers behind.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: sets an attribute of this process; no memory is involved.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// Prints where a fault happened, then dies of the same signal. The runner sends SIGABRT to a worker that hangs, for its backtrace.
fn install_handlers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
        // SAFETY: all-zero bytes are a valid sigaction, which is then filled in; the handler has the type that the flags promise.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_fault as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
            libc::sigaction(signal, &action, core::ptr::null_mut());
        }
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: loads the unwinder now, so that the handler need not; the array outlives the call.
    unsafe {
        let mut frames = [core::ptr::null_mut(); 1];
        libc::backtrace(frames.as_mut_ptr(), 1);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn on_fault(signal: libc::c_int) {
    let mut frames = [core::ptr::null_mut(); 64];
    // SAFETY: `frames` holds as many entries as stated; the text goes straight to the descriptor; raising the signal again ends the process,
    // as its handler was reset.
    unsafe {
        let depth = libc::backtrace(frames.as_mut_ptr(), frames.len() as libc::c_int);
        libc::backtrace_symbols_fd(frames.as_ptr(), depth, 2);
        libc::raise(signal);
    }
}
