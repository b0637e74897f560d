//! `flagos kernel check`: kernels with inputs and expected outputs, compiled for a device and run by the same path as any other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flagos_compiler::{Arg, Case};
use flagos_runtime::discover::glob;
use flagos_runtime::{Buffer, Code, Device, Error, KernelArgument, Result, Stream};
use serde_json::json;

use crate::compile::threads;
use crate::output::Output;

/// Exit code when every case was left out.
const NOTHING_RAN: u8 = 77;

/// What to check.
#[derive(clap::Args)]
pub struct Check {
    /// Files `NAME.case`, each beside its `NAME.ttir`, and folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Backend or device (`backend:ordinal`); the best by default.
    #[arg(long, default_value = "")]
    backend: String,
    /// Only cases whose name fits a glob (`cast_*`); may be repeated.
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Threads of a block; 0: as usual.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Warps of 32 threads of a block, in place of --threads.
    #[arg(long, default_value_t = 0)]
    num_warps: u32,
    /// Also names the cases that pass, and each before it runs, on standard error.
    #[arg(long)]
    verbose: bool,
}

/// How a case went.
enum Outcome {
    Passed,
    Failed(String),
    /// The device or the compiler cannot do it, and says so.
    LeftOut(String),
}

/// Runs the command.
pub fn run(check: &Check, output: &Output) -> Result<ExitCode> {
    let cases = cases(check)?;
    let device = crate::open(&check.backend)?;
    let stream = device.stream()?;
    let (mut passed, mut failed, mut left_out) = (0, Vec::new(), BTreeMap::<String, Vec<&str>>::new());
    for case in &cases {
        if check.verbose {
            eprintln!("{} …", case.name);
        }
        match one(check, &device, &stream, case) {
            Outcome::Passed => {
                passed += 1;
                if check.verbose && !output.is_json() {
                    output.text(&format!("pass {}", case.name));
                }
            }
            Outcome::Failed(why) => {
                if !output.is_json() {
                    output.text(&format!("FAIL {why}"));
                }
                failed.push(why);
            }
            Outcome::LeftOut(why) => left_out.entry(why).or_default().push(&case.name),
        }
    }
    let count: usize = left_out.values().map(Vec::len).sum();
    if output.is_json() {
        output.json(&json!({ "device": device.name(), "cases": cases.len(), "passed": passed, "failed": failed, "left_out": left_out }))?;
    } else {
        for (why, names) in &left_out {
            output.text(&format!("left out, {why}: {}", names.join(" ")));
        }
        output.text(&format!("{}: {passed} passed, {} failed, {count} left out of {} kernels", device.name(), failed.len(), cases.len()));
    }
    Ok(match (failed.is_empty(), passed) {
        (false, _) => ExitCode::FAILURE,
        (true, 0) => ExitCode::from(NOTHING_RAN),
        (true, _) => ExitCode::SUCCESS,
    })
}

/// The cases of files and folders, by name.
fn cases(check: &Check) -> Result<Vec<Case>> {
    let mut files = Vec::new();
    for path in &check.paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| Error::new(Code::NOT_FOUND, format!("{}: {e}", path.display())))?;
            files.extend(entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "case")));
        } else {
            files.push(path.clone());
        }
    }
    let stem = |path: &Path| path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    files.retain(|path| check.cases.is_empty() || check.cases.iter().any(|c| glob(c, &stem(path))));
    files.sort();
    if files.is_empty() {
        return Err(Error::new(Code::NOT_FOUND, "no NAME.case fits; give files or folders of them, and names that are there to --case"));
    }
    files.iter().map(|path| Case::read(path).map_err(|e| Error::new(Code::DATA_LOSS, e))).collect()
}

fn one(check: &Check, device: &Device, stream: &Stream, case: &Case) -> Outcome {
    let kernel = match device.compile(&case.text, &case.entry, threads(check.threads, check.num_warps)) {
        Ok(kernel) => kernel,
        Err(e) if e.code == Code::UNIMPLEMENTED => return Outcome::LeftOut(reason(&e.message)),
        Err(e) => return Outcome::Failed(format!("{}: {e}", case.name)),
    };
    let ran = (|| -> Result<Vec<Arg>> {
        let buffers = case.args.iter().map(|a| upload(device, stream, a)).collect::<Result<Vec<_>>>()?;
        let given = |(arg, buffer)| match (arg, buffer) {
            (&Arg::Scalar(bits), _) => KernelArgument::Scalar(bits),
            (_, Some(buffer)) => KernelArgument::Buffer(buffer, 0),
            (_, None) => KernelArgument::Null,
        };
        let args: Vec<KernelArgument<'_>> = case.args.iter().zip(buffers.iter().map(Option::as_ref)).map(given).collect();
        kernel.launch(stream, case.grid, &args)?;
        case.args.iter().zip(&buffers).map(|(arg, buffer)| download(stream, arg, buffer.as_ref())).collect()
    })();
    match ran.map_err(|e| format!("{}: {e}", case.name)).and_then(|after| case.check(&after)) {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

/// A refusal without the kernel's name and place, so that equal reasons are told once.
fn reason(message: &str) -> String {
    let text = message.strip_prefix("kernel '").and_then(|m| m.split_once("': ")).map_or(message, |(_, rest)| rest);
    text.strip_prefix("line ").and_then(|t| t.split_once(": ")).map_or(text, |(_, rest)| rest).to_owned()
}

fn upload(device: &Device, stream: &Stream, arg: &Arg) -> Result<Option<Buffer>> {
    match arg {
        Arg::Buffer(bytes) if !bytes.is_empty() => {
            let buffer = device.alloc(bytes.len() as u64)?;
            stream.write(&buffer, 0, bytes)?;
            Ok(Some(buffer))
        }
        _ => Ok(None),
    }
}

fn download(stream: &Stream, arg: &Arg, buffer: Option<&Buffer>) -> Result<Arg> {
    let (Arg::Buffer(before), Some(buffer)) = (arg, buffer) else { return Ok(arg.clone()) };
    let mut bytes = vec![0; before.len()];
    stream.read(buffer, 0, &mut bytes)?;
    Ok(Arg::Buffer(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_lose_the_name_and_the_line() {
        assert_eq!(reason("kernel 'f': line 3, column 5: tt.dot: no f64 here"), "tt.dot: no f64 here");
        assert_eq!(reason("kernel 'f': the device has no fp64"), "the device has no fp64");
        assert_eq!(reason("takes no kernels"), "takes no kernels");
    }
}
