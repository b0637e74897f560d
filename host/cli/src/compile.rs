//! `flagos compile`: Triton dialect to the code of any target, or the kernel cache filled ahead of time.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use flagos_backend_api::{KernelFormat, caps};
use flagos_catalog::{Cases, Tier, assignments, operators};
use flagos_compiler::{CompileError, Compiled, Elem, MatrixShape, Target, lower, thread};
use flagos_runtime::policy::Fallback;
use flagos_runtime::{Code, Device, Error, FORMATS, Policy, Result, Work, format_name, format_of, kernel};
use serde_json::json;

use crate::output::{Output, duration};
use crate::{files, spec};

/// What to compile.
#[derive(clap::Args)]
pub struct Arguments {
    /// Triton dialect text; without it the kernel cache of --device is filled.
    file: Option<PathBuf>,
    /// opencl-c, spirv-vulkan, cuda-c++, hip-c++ or c; by default what --device takes.
    #[arg(long)]
    target: Option<String>,
    /// The kernel, where the text holds several.
    #[arg(long, default_value = "")]
    kernel: String,
    /// Architecture (sm_90, gfx942); a usual one by default.
    #[arg(long, default_value = "")]
    arch: String,
    /// What to write: tile (the program as read), thread (the program of one thread), source (code of the target) or binary (the backend's own).
    #[arg(long, default_value = "source", value_parser = ["tile", "thread", "source", "binary"])]
    emit: String,
    /// Threads of a block; 0: as usual.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Warps of 32 threads of a block, in place of --threads.
    #[arg(long, default_value_t = 0)]
    num_warps: u32,
    /// Where to write; standard output by default.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Compile for this device (`backend:ordinal` or `backend`).
    #[arg(long)]
    device: Option<String>,
    /// Operators whose kernels to keep ready (names or globs); all by default.
    #[arg(long = "op")]
    operators: Vec<String>,
}

/// Compiles.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    match &arguments.file {
        Some(file) => one(arguments, &String::from_utf8_lossy(&files::read_bytes(file)?), output),
        None => warm(arguments, output),
    }
}

/// Threads of a block by either option.
pub fn threads(threads: u32, warps: u32) -> u32 {
    if warps > 0 { warps.saturating_mul(32) } else { threads }
}

fn one(arguments: &Arguments, text: &str, output: &Output) -> Result<ExitCode> {
    let (program, name) = kernel::read(text, &arguments.kernel)?;
    if arguments.emit == "tile" {
        return put(arguments, program.to_string().as_bytes(), output);
    }
    let target = target(arguments)?;
    let options = kernel::options(&target, threads(arguments.threads, arguments.num_warps))?;
    let at = |e: CompileError| kernel::refusal(&name, &e);
    if arguments.emit == "thread" {
        let mut lowered = lower::lower(&program, &name, &target, &options).map_err(at)?;
        thread::math::expand(&mut lowered, &target);
        return put(arguments, lowered.to_string().as_bytes(), output);
    }
    let compiled = flagos_compiler::compile(&program, &name, &target, &options).map_err(at)?;
    let code = if arguments.emit == "binary" { binary(arguments, &target, &compiled)? } else { compiled.code };
    put(arguments, &code, output)
}

fn put(arguments: &Arguments, bytes: &[u8], output: &Output) -> Result<ExitCode> {
    match &arguments.out {
        Some(path) => {
            std::fs::write(path, bytes).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
            output.text(&format!("{}: {} bytes", path.display(), bytes.len()));
        }
        // A closed pipe is the reader's choice.
        None => drop(std::io::stdout().write_all(bytes)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The target asked for: a device's own, or a usual chip of the format.
fn target(arguments: &Arguments) -> Result<Target> {
    let known = || FORMATS.iter().map(|f| f.1).collect::<Vec<_>>().join(", ");
    if let Some(device) = &arguments.device {
        let device = crate::open(device)?;
        let own = device.target().cloned().ok_or_else(|| Error::unimplemented(format!("{} takes no kernels in a format this build writes", device.name())))?;
        return match &arguments.target {
            Some(wish) if wish != format_name(own.format) => Err(Error::invalid(format!("{} takes {}, not {wish}", device.name(), format_name(own.format)))),
            _ => Ok(own),
        };
    }
    let wish = arguments.target.as_deref().ok_or_else(|| Error::invalid(format!("name a --target ({}) or a --device", known())))?;
    let format = format_of(wish).ok_or_else(|| Error::invalid(format!("there is no target '{wish}'; there are {}", known())))?;
    Ok(usual(format, &arguments.arch))
}

/// A usual chip of a format.
fn usual(format: KernelFormat, arch: &str) -> Target {
    let all = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    let (own, max_block_threads, shared_bytes, subgroup) = match format {
        KernelFormat::CUDA_CPP => ("sm_80", 1024, 48 << 10, 32),
        KernelFormat::HIP_CPP => ("gfx90a", 1024, 64 << 10, if arch.starts_with("gfx1") { 32 } else { 64 }),
        KernelFormat::C => (std::env::consts::ARCH, 1, 1 << 20, 0),
        _ => ("", 256, 32 << 10, 0),
    };
    let half = |factor| MatrixShape { m: 16, n: 8, k: 16, factor, sum: Elem::F32 };
    let matrix = if format == KernelFormat::CUDA_CPP { vec![half(Elem::F16), half(Elem::BF16)] } else { Vec::new() };
    let arch = if arch.is_empty() { own } else { arch };
    Target { format, arch: arch.to_owned(), caps: all, max_block_threads, shared_bytes, subgroup, matrix }
}

/// The backend's own binary: of the device named, else of any that takes the format.
fn binary(arguments: &Arguments, target: &Target, compiled: &Compiled) -> Result<Vec<u8>> {
    let runtime = crate::runtime()?;
    let names: Vec<&str> = arguments.device.iter().map(String::as_str).chain(runtime.devices().iter().filter(|d| d.score > 0).map(|d| d.name.as_str())).collect();
    let device = names.iter().filter_map(|n| runtime.open(n).ok()).find(|d| d.info().kernel_formats.contains(&target.format));
    let device = device.ok_or_else(|| Error::new(Code::UNAVAILABLE, format!("no device here takes {}; --emit source needs none", format_name(target.format))))?;
    device.kernel_binary(compiled, target.format)
}

/// Compiles the kernels of the catalogue's usual calls for a device.
fn warm(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let device = crate::open(arguments.device.as_deref().unwrap_or(""))?;
    let started = Instant::now();
    device.runtime().set_policy(Policy { order: vec!["portable".into()], fallback: Fallback::Forbid, ..Policy::default() })?;
    let wanted = |name: &str| arguments.operators.is_empty() || arguments.operators.iter().any(|g| flagos_runtime::discover::glob(g, name));
    if let Some(unknown) = arguments.operators.iter().find(|g| !g.contains(['*', '?']) && spec::operator(g).is_err()) {
        spec::operator(unknown)?;
    }
    let (mut calls, mut refused, mut failed) = (0, 0, Vec::new());
    for operator in operators().iter().filter(|o| wanted(o.name)) {
        for (types, case) in assignments(operator).iter().flat_map(|t| Cases::of(operator).into_iter().map(move |c| (t.clone(), c))) {
            if case.tier > Tier::Smoke {
                continue;
            }
            let Ok(instance) = case.instance(operator, &types, 1) else { continue };
            match plan(&device, instance.call) {
                Ok(()) => calls += 1,
                Err(e) if e.code == Code::UNIMPLEMENTED => refused += 1,
                Err(e) => failed.push(format!("{}: {e}", operator.name)),
            }
        }
    }
    let kernels = device.runtime().statistics().kernels;
    let ns = started.elapsed().as_nanos() as u64;
    if output.is_json() {
        output.json(&json!({ "device": device.name(), "calls": calls, "refused": refused, "failed": failed, "kernels": kernels, "ns": ns }))?;
    } else {
        output.text(&format!("{}: {} kernels compiled, {} found in the cache, for {calls} calls ({refused} not offered) in {}", device.name(), kernels.compiled, kernels.from_disk, duration(ns)));
        failed.iter().for_each(|f| output.text(f));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(device: &Device, call: flagos_catalog::Call) -> Result<()> {
    device.plan(&Work::Op(call)).map(drop)
}
