//! A worker process as the runner sees it: started, asked, timed, and looked at when it dies.

use std::ffi::OsString;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flagos_backend_api::{Code, Error, Result};

use crate::protocol::{Reply, Request, receive, send};

/// Bytes kept of what a worker prints; the end tells most.
const KEPT_OUTPUT: usize = 16 << 10;
/// Time for a worker to print its backtrace after it was told to abort.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a worker prints where a case begins. Messages and prints travel apart, so only the prints themselves can say which case they belong to.
const MARK: &str = "\u{1e}\n";

/// Called by a worker when a case begins.
pub fn mark() {
    // Standard error may be closed by a backend; the case runs all the same.
    let _ = std::io::stderr().write_all(MARK.as_bytes());
}

/// A running worker.
pub struct Process {
    child: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
    output: Arc<Mutex<Vec<u8>>>,
    drain: Option<JoinHandle<()>>,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Silence {
    /// The time ran out; the worker was killed.
    Timeout,
    /// The worker is gone.
    Died(ExitStatus),
}

impl Process {
    /// Starts a worker by its command line.
    pub fn start(command: &[OsString]) -> Result<Process> {
        let fault = |e: std::io::Error| Error::new(Code::UNAVAILABLE, format!("starting a worker ({}): {e}", command[0].display()));
        let (ours, theirs) = UnixStream::pair().map_err(fault)?;
        let (mut printed, printing) = std::io::pipe().map_err(fault)?;
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = process.stdout(printing.try_clone().map_err(fault)?).stderr(printing).spawn().map_err(fault)?;
        // The command still holds the writing ends; the drain ends when the worker's are the last to close.
        drop(process);
        let output = Arc::new(Mutex::new(Vec::new()));
        let kept = output.clone();
        let drain = std::thread::spawn(move || {
            let mut block = [0u8; 4096];
            while let Ok(n @ 1..) = printed.read(&mut block) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&block[..n]);
                let over = kept.len().saturating_sub(KEPT_OUTPUT);
                kept.drain(..over);
            }
        });
        let to = ours.try_clone().map_err(fault)?;
        Ok(Process { child, to, from: BufReader::new(ours), output, drain: Some(drain) })
    }

    /// Sends a request. A worker that is gone is noticed at the next reply.
    pub fn ask(&mut self, request: &Request) {
        let _ = send(&mut self.to, request);
    }

    /// Waits for a reply.
    pub fn reply(&mut self, timeout: Duration) -> Result<Reply, Silence> {
        let _ = self.from.get_ref().set_read_timeout(Some(timeout.max(Duration::from_millis(1))));
        match receive(&mut self.from) {
            Ok(Some(reply)) => Ok(reply),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.abort();
                Err(Silence::Timeout)
            }
            Ok(None) | Err(_) => Err(Silence::Died(self.end())),
        }
    }

    /// What was printed since the last [`mark`], once the worker is gone.
    pub fn output(&mut self) -> String {
        if let Some(drain) = self.drain.take() {
            // A process the worker left behind may hold the pipe; what there is has to do then.
            let started = Instant::now();
            while !drain.is_finished() && started.elapsed() < LAST_WORDS {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let kept = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        text.rsplit(MARK).next().unwrap_or_default().to_owned()
    }

    /// Tells a hanging worker to print its backtrace and die; kills it when it does not.
    fn abort(&mut self) {
        // SAFETY: the child was not waited for yet, so its id is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGABRT) };
        let started = Instant::now();
        while started.elapsed() < LAST_WORDS {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end();
    }

    /// Waits a little for the worker's own end, else kills it.
    fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status,
                Ok(None) if started.elapsed() < LAST_WORDS => std::thread::sleep(Duration::from_millis(2)),
                _ => {
                    let _ = self.child.kill();
                    return self.child.wait().unwrap_or_default();
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing the socket ends an idle worker; a busy one is killed.
        let _ = self.to.shutdown(std::net::Shutdown::Both);
        self.end();
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by {}", signal_name(signal)),
        (None, Some(code)) => format!("ended with exit code {code}"),
        _ => "ended".into(),
    }
}

fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGSEGV, "SIGSEGV (bad memory access)"),
        (libc::SIGABRT, "SIGABRT (abort)"),
        (libc::SIGBUS, "SIGBUS (bad memory access)"),
        (libc::SIGILL, "SIGILL (illegal instruction)"),
        (libc::SIGFPE, "SIGFPE (arithmetic)"),
        (libc::SIGKILL, "SIGKILL (killed, perhaps for lack of memory)"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGSYS, "SIGSYS (forbidden system call)"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGTERM, "SIGTERM"),
    ];
    known.iter().find(|(s, _)| *s == signal).map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(&["/bin/sh", "-c", script].map(OsString::from)).unwrap()
    }

    #[test]
    fn replies_come_over_the_socket_and_prints_do_not_disturb_them() {
        let mut p = shell("echo noise; echo '{\"begin\":{\"id\":\"x\"}}' >&0; read line");
        assert_eq!(p.reply(Duration::from_secs(10)).unwrap(), Reply::Begin { id: "x".into() });
    }

    #[test]
    fn a_death_tells_its_signal_and_last_words() {
        let mut p = shell("echo before; printf '\\036\\n'; echo last words; kill -SEGV $$");
        let Err(Silence::Died(status)) = p.reply(Duration::from_secs(10)) else { panic!("it is dead") };
        assert!(describe(status).contains("SIGSEGV"));
        assert_eq!(p.output(), "last words\n");
    }

    #[test]
    fn a_hang_ends_at_the_timeout() {
        let mut p = shell("exec sleep 1000");
        assert!(matches!(p.reply(Duration::from_millis(50)), Err(Silence::Timeout)));
        assert!(p.child.try_wait().unwrap().is_some());
    }
}
