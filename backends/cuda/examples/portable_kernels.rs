//! Compiles the portable kernels of the catalogue for architectures of NVIDIA's, by the backend's own way to NVRTC; needs no device and no driver.
//!
//! `portable_kernels [--first] [ARCH…]`: every kernel the smoke cases of every operator and type are made of, or with `--first` those of the first
//! case of each alone; for sm_80, sm_90 and sm_120 where none is named. Exit code 1 if one failed, 77 without NVRTC.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use flagos_backend_api::{Error, KernelFormat, Result};
use flagos_backend_cuda::compile::{self, version};
use flagos_backend_cuda::device::{caps_of, matrix_shapes};
use flagos_backend_cuda::library::Culib;
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::emit::cuda::MATRIX_SHAPES;
use flagos_compiler::{Elem, MatrixShape, Target};
use flagos_kernels::{Kernel, cook};

/// Name, compute capability, and shared memory a block may ask for in bytes.
type Architecture = (&'static str, (u32, u32), u32);

const ARCHITECTURES: &[Architecture] = &[("sm_80", (8, 0), 163 << 10), ("sm_90", (9, 0), 227 << 10), ("sm_120", (12, 0), 99 << 10)];
/// Failures shown.
const SHOWN: usize = 20;

/// What became of a kernel. Times are of the thread, so that what else a machine does counts for nothing.
struct Done {
    arch: String,
    key: String,
    /// In this project's compiler.
    ours: Duration,
    /// In NVRTC.
    nvrtc: Duration,
    /// Empty when all is well.
    error: String,
}

/// The target of a device with this capability, as the host sees it.
fn target_of(arch: &str, capability: (u32, u32), shared_bytes: u32) -> Target {
    let shapes = matrix_shapes(capability);
    let announced = |s: &MatrixShape| {
        shapes.chunks_exact(4).any(|c| {
            let [code, bits, ..] = c[3].to_le_bytes();
            let factor = [((2, 16), Elem::F16), ((4, 16), Elem::BF16), ((0, 8), Elem::I8), ((2, 64), Elem::F64)].into_iter().find(|k| k.0 == (code, bits));
            c[..3] == [s.m, s.n, s.k] && factor.is_some_and(|f| f.1 == s.factor) && (s.factor != Elem::F16 || s.sum == Elem::F32)
        })
    };
    Target {
        format: KernelFormat::CUDA_CPP,
        arch: arch.into(),
        caps: caps_of(capability),
        max_block_threads: 1024,
        shared_bytes,
        subgroup: 32,
        matrix: MATRIX_SHAPES.iter().map(|s| s.1).filter(announced).collect(),
    }
}

/// Kernels of a target, each once.
fn kernels(target: &Target, first: bool) -> Result<Vec<Kernel>> {
    let mut found = BTreeMap::new();
    for o in operators() {
        let cook = cook(o.name).ok_or_else(|| Error::unimplemented(format!("'{}' has no portable kernel", o.name)))?;
        for types in assignments(o) {
            let cases = Cases::of(o);
            for case in cases.iter().filter(|c| c.tier == Tier::Smoke).take(if first { 1 } else { usize::MAX }) {
                let recipe = cook(&case.instance(o, &types, 1)?.call, target)?;
                for kernel in recipe.steps.into_iter().flat_map(|s| core::iter::once(s.kernel).chain(s.aligned)) {
                    found.insert(kernel.key.clone(), kernel);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Time this thread has run.
fn thread_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

fn build(kernel: &Kernel, target: &Target, capability: (u32, u32)) -> Done {
    let started = thread_time();
    let compiled = flagos_compiler::compile(&(kernel.build)(), kernel.entry, target, &kernel.options);
    let between = thread_time();
    let machine = compiled.map_err(|e| Error::invalid(e.to_string())).and_then(|c| compile::compile(&c.code, &kernel.key, &compile::target(capability)?, &c.options));
    let error = machine.err().map_or(String::new(), |e| e.message);
    Done { arch: target.arch.clone(), key: kernel.key.clone(), ours: between - started, nvrtc: thread_time() - between, error }
}

/// Compiles every `of`-th kernel from the `share`-th on, and tells the parent of each in a line.
fn work(share: usize, of: usize, first: bool, wanted: &[&Architecture]) -> Result<()> {
    for &&(arch, capability, shared_bytes) in wanted {
        let target = target_of(arch, capability, shared_bytes);
        for kernel in kernels(&target, first)?.iter().skip(share).step_by(of) {
            let d = build(kernel, &target, capability);
            println!("{arch}\t{}\t{}\t{}\t{}", d.key, d.ours.as_nanos(), d.nvrtc.as_nanos(), d.error.replace(['\n', '\t'], " | "));
        }
    }
    Ok(())
}

fn read(line: &str) -> Option<Done> {
    let mut parts = line.split('\t').map(str::to_owned);
    let mut next = || parts.next();
    let nanos = |text: String| text.parse().ok().map(Duration::from_nanos);
    Some(Done { arch: next()?, key: next()?, ours: nanos(next()?)?, nvrtc: nanos(next()?)?, error: next()? })
}

/// As many processes as there are processors: NVRTC lets one thread of a process compile at a time.
fn share(first: bool, wanted: &[&Architecture]) -> std::io::Result<Vec<Done>> {
    let (program, of) = (std::env::current_exe()?, std::thread::available_parallelism().map_or(1, usize::from));
    let mut children = Vec::new();
    for share in 0..of {
        let mut child = Command::new(&program);
        child.arg(format!("--share={share}/{of}")).args(first.then_some("--first")).args(wanted.iter().map(|a| a.0));
        children.push(child.stdout(Stdio::piped()).spawn()?);
    }
    let mut done = Vec::new();
    // Each is read by a thread of its own: a full pipe would hold its writer up.
    let outputs: Vec<_> = std::thread::scope(|s| {
        let readers: Vec<_> = children.into_iter().map(|c| s.spawn(|| c.wait_with_output())).collect();
        readers.into_iter().map(|r| r.join().unwrap_or_else(|_| Err(std::io::Error::other("a reading thread panicked")))).collect()
    });
    for output in outputs {
        let output = output?;
        done.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(read));
        if !output.status.success() {
            return Err(std::io::Error::other(format!("a compiling process ended with {}", output.status)));
        }
    }
    Ok(done)
}

/// Median and greatest in milliseconds.
fn milliseconds(mut list: Vec<Duration>) -> (f64, f64) {
    list.sort_unstable();
    let at = |i: usize| list.get(i).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    (at(list.len() / 2), at(list.len().saturating_sub(1)))
}

fn report(mut done: Vec<Done>, wanted: &[&Architecture], started: Instant) -> bool {
    done.sort_by(|a, b| (&a.arch, &a.key).cmp(&(&b.arch, &b.key)));
    let failed = done.iter().filter(|d| !d.error.is_empty()).count();
    for d in done.iter().filter(|d| !d.error.is_empty()).take(SHOWN) {
        println!("FAILED '{}' for {}: {}", d.key, d.arch, d.error);
    }
    let slowest = done.iter().max_by_key(|d| d.ours).map_or("", |d| d.key.as_str());
    let (ours, nvrtc) = (milliseconds(done.iter().map(|d| d.ours).collect()), milliseconds(done.iter().map(|d| d.nvrtc).collect()));
    let (major, minor) = version().unwrap_or_default();
    let ours = format!("our part: median {:.1} ms, longest {:.1} ms ('{slowest}')", ours.0, ours.1);
    println!("{ours}; NVRTC {major}.{minor}: median {:.0} ms, longest {:.0} ms", nvrtc.0, nvrtc.1);
    let each: Vec<String> = wanted.iter().map(|a| format!("{} for {}", done.iter().filter(|d| d.arch == a.0).count(), a.0)).collect();
    let seconds = started.elapsed().as_secs_f64();
    println!("portable kernels ({}): {} compiled, {failed} failed, in {seconds:.0} s", each.join(", "), done.len() - failed);
    failed == 0 && !done.is_empty()
}

fn main() -> ExitCode {
    let (mut first, mut part, mut wanted) = (false, None, Vec::new());
    for word in std::env::args().skip(1) {
        let number = |text: &str| text.parse::<usize>().ok();
        if word == "--first" {
            first = true;
        } else if let Some((k, n)) = word.strip_prefix("--share=").and_then(|w| w.split_once('/')) {
            part = number(k).zip(number(n));
        } else if let Some(known) = ARCHITECTURES.iter().find(|a| a.0 == word) {
            wanted.push(known);
        } else {
            eprintln!("portable_kernels: '{word}'; architectures are sm_80, sm_90 and sm_120");
            return ExitCode::from(2);
        }
    }
    if wanted.is_empty() {
        wanted = ARCHITECTURES.iter().collect();
    }
    if let Err(e) = Culib::Nvrtc.need() {
        println!("left out: {}; `export FLAGOS_NVRTC_PATH=$(scripts/nvrtc)` installs one", e.message);
        return ExitCode::from(77);
    }
    let started = Instant::now();
    let well = match part {
        Some((k, n)) => work(k, n.max(1), first, &wanted).map(|()| true).map_err(|e| e.to_string()),
        None => share(first, &wanted).map(|done| report(done, &wanted, started)).map_err(|e| e.to_string()),
    };
    match well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("portable_kernels: {e}");
            ExitCode::FAILURE
        }
    }
}
