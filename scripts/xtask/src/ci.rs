//! Everything that must hold before a change lands, step by step, with a summary of times, counts and skips.

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::stage::{compiler, stage};
use crate::tool::{Outcome, capture, cargo, command, root, run, target};
use crate::{abi, codegen, nvrtc, tidy};

/// A step: its name and what it does; the text is its count ("312 tests").
type Step = (&'static str, fn() -> Outcome<String>);

/// Exit code of the suite when there is nothing to test.
const LEFT_OUT: i32 = 77;

const STEPS: &[Step] = &[
    ("house rules", || tidy::run().map(|()| String::new())),
    ("generated files", || codegen::run(true).map(|()| String::new())),
    ("clippy", clippy),
    ("tests", tests),
    ("staged installation", || stage().map(|t| t.display().to_string())),
    ("example-c by itself", example_c),
    ("OpenCL kernels on a checking simulator", || run(&mut command("scripts/oclgrind")).map(|()| String::new())),
    ("C and C++ programs", programs),
    ("conformance smoke", conformance),
    ("profile core by portable kernels: C, OpenCL C, SPIR-V", portable_spots),
    ("kernels that Triton printed, through the host", corpus),
    // One case of each operator and type, whose kernels stand for the others; `cargo xtask nvrtc` does all cases and three architectures.
    ("portable kernels by NVRTC", || nvrtc::run(&["--first", "sm_90"])),
    ("mutations", mutations),
    ("golden files through flagos run", golden),
    ("ABI gates", || abi::run_gates().map(|()| String::new())),
];

/// Steps that take too long to be done for each change.
const LONG_STEPS: &[Step] = &[
    ("profile core by portable kernels, every case of tier smoke", portable_smoke),
    ("profile core on drivers as they are installed", installed_drivers),
];

/// Runs every step, also after a failure, and sums up; with the long ones where `full`.
pub fn run_all(full: bool) -> ExitCode {
    let mut lines = Vec::new();
    let mut failed = 0;
    let steps = || STEPS.iter().chain(LONG_STEPS.iter().filter(|_| full));
    for (name, step) in steps() {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = step();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(count) => lines.push(format!("ok    {seconds:7.1} s  {name}{}", if count.is_empty() { String::new() } else { format!(": {count}") })),
            Err(e) => {
                println!("{e}");
                failed += 1;
                lines.push(format!("FAIL  {seconds:7.1} s  {name}: {}", e.lines().next().unwrap_or("")));
            }
        }
    }
    println!("\n=== summary\n{}", lines.join("\n"));
    println!("{} steps, {failed} failed", steps().count());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn clippy() -> Outcome<String> {
    run(cargo().args(["clippy", "--quiet", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])).map(|()| String::new())
}

/// The workspace's tests; counts what ran and what was left out.
fn tests() -> Outcome<String> {
    let mut all = cargo();
    // Fuzzing is among them: with the assertions that scripts/test asks for, overflows and misaligned slices stop there.
    all.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    let (code, text) = capture(&mut all)?;
    let (mut passed, mut failures, mut ignored) = (0, 0, 0);
    for line in text.lines().filter(|l| l.starts_with("test result:")) {
        let count = |word: &str| -> u64 {
            let part = line.split(';').find(|p| p.trim_end().ends_with(word)).unwrap_or("");
            part.split_whitespace().rev().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        passed += count("passed");
        failures += count("failed");
        ignored += count("ignored");
    }
    let count = format!("{passed} passed, {failures} failed, {ignored} ignored");
    println!("{count}");
    if code == 0 && passed > 0 { Ok(count) } else { Err(format!("{count}\n{}\n{}", failures_in(&text), tail(&text, 40))) }
}

/// What failing tests printed, without their backtraces.
fn failures_in(text: &str) -> String {
    let mut inside = false;
    let mut out = Vec::new();
    for line in text.lines() {
        inside = if line.starts_with("---- ") || line == "failures:" { true } else { inside && !line.starts_with("test result:") && line != "stack backtrace:" };
        if inside {
            out.push(line.chars().take(2000).collect::<String>());
        }
    }
    out.join("\n")
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn example_c() -> Outcome<String> {
    let out = target().join("example/test");
    let make = |sanitize: &str| {
        let mut make = command("make");
        make.args(["--silent", "-C", "backends/example-c", "test"]).arg(format!("CC={}", compiler())).arg(format!("OUT={}-{sanitize}", out.display()));
        if sanitize != "plain" {
            make.arg(format!("SANITIZE={sanitize}"));
        }
        run(&mut make)
    };
    make("plain").and_then(|()| make("address")).map(|()| "plain and under AddressSanitizer".into())
}

/// The examples, built against the staged installation as a user would: pkg-config for C and C++, CMake for C.
fn programs() -> Outcome<String> {
    let tree = stage()?;
    let mut script = command("bash");
    script.arg("examples/run").env("FLAGOS_PREFIX", &tree).env("FLAGOS_EXAMPLES_OUT", target().join("examples")).env("CC", compiler());
    run(&mut script).map(|()| String::new())
}

fn flagos(words: &[&str]) -> Outcome<Command> {
    let mut flagos = Command::new(stage()?.join("bin/flagos"));
    flagos.current_dir(root()).args(words);
    Ok(flagos)
}

fn conformance() -> Outcome<String> {
    let out = target().join("conformance");
    std::fs::create_dir_all(&out).map_err(|e| e.to_string())?;
    let place = |name: &str| out.join(name).display().to_string();
    let (json, junit, html) = (place("report.json"), place("report.xml"), place("report.html"));
    // What a backend offers itself; portable kernels on every driver take far longer and have the next step.
    run(&mut flagos(&["conformance", "--implementation", "native", "--report-json", &json, "--report-junit", &junit, "--report-html", &html])?)?;
    Ok(json)
}

/// What each chip must run by portable kernels alone: these cases, or every cell of the profile core where none are named.
const PORTABLE: &[(&str, &[&str])] = &[("cpu", &[]), ("opencl", &[]), ("vulkan", &[]), ("acme", &["add/f32/*", "where/f32/*", "cat/f32/*", "sum/f32/*", "softmax/f32/*", "mm/f32/*"])];

/// The suite judges the profile core on a backend; what it says of it, or `None` where there is no device. Kernels compiled once are kept in `cache`
/// beside the build.
fn judge(backend: &str, cases: &[&str], more: &[&str], cache: &str, settings: &[(&str, String)]) -> Outcome<Option<String>> {
    let place = target().join(cache);
    let reports = target().join("conformance");
    let report = reports.join(format!("{cache}-{backend}.json")).display().to_string();
    let words = ["conformance", "--backend", backend, "--jobs", "2", "--report-json", &report].into_iter().chain(more.iter().copied());
    let core = ["--profile", "core", "--required-only"].into_iter().filter(|_| cases.is_empty());
    let mut suite = flagos(&words.chain(core).chain(cases.iter().flat_map(|c| ["--case", *c])).collect::<Vec<_>>())?;
    suite.env("FLAGOS_CACHE_DIR", &place).env("POCL_CACHE_DIR", place.join("pocl")).envs(settings.iter().cloned());
    [place.join("pocl"), reports].iter().try_for_each(std::fs::create_dir_all).map_err(|e| e.to_string())?;
    let (code, text) = capture(&mut suite)?;
    // The table by family and type, as it belongs into the log.
    println!("{text}");
    let line = text.lines().find(|l| l.starts_with("profile core")).or_else(|| text.lines().find(|l| l.starts_with("PASS"))).unwrap_or("");
    match code {
        0 => Ok(Some(line.split_whitespace().collect::<Vec<_>>().join(" "))),
        LEFT_OUT if matches!(backend, "opencl" | "vulkan") => Ok(None),
        _ => Err(format!("{backend}\n{}", tail(&text, 80))),
    }
}

/// What tells PoCL to hurry: fewer declarations to read, no second compilation for the block's size, no optimisation.
fn hurry() -> Outcome<Vec<(&'static str, String)>> {
    let (code, folder) = capture(command("scripts/pocl").arg(target().join("pocl")))?;
    if code != 0 {
        return Err(format!("scripts/pocl\n{folder}"));
    }
    let mut settings = vec![("POCL_WORK_GROUP_SPECIALIZATION", "0".to_owned()), ("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable".to_owned())];
    if !folder.trim().is_empty() && std::env::var_os("OCL_ICD_VENDORS").is_none() {
        settings.push(("OCL_ICD_VENDORS", folder.trim().to_owned()));
    }
    Ok(settings)
}

/// All operators and types of the profile core by portable kernels alone: on the processor, and on the OpenCL and Vulkan drivers that are there.
fn portable(tier: &str) -> Outcome<String> {
    let settings = hurry()?;
    let mut ran = Vec::new();
    for (backend, cases) in PORTABLE {
        let said = judge(backend, cases, &["--implementation", "portable", "--tier", tier], "kernels", &settings)?;
        ran.push(said.map_or_else(|| format!("{backend} left out"), |s| format!("{backend}: {s}")));
    }
    Ok(ran.join("; "))
}

/// Three cases of each operator and type: what the time of a check allows where a kernel takes a driver a tenth of a second and more.
fn portable_spots() -> Outcome<String> {
    portable("spot")
}

fn portable_smoke() -> Outcome<String> {
    portable("smoke")
}

/// Tier smoke as a user has it: drivers as installed, fallback allowed, exceptions and promises of each backend.
fn installed_drivers() -> Outcome<String> {
    let mut ran = Vec::new();
    for backend in ["opencl", "vulkan"] {
        let said = judge(backend, &[], &[], "kernels-installed", &[])?;
        ran.push(said.map_or_else(|| format!("{backend} left out"), |s| format!("{backend}: {s}")));
    }
    Ok(ran.join("; "))
}

/// The compiler's corpus on each driver: all of it, or what is enough where another backend compiles the same code. `flagos kernel check` runs it on a
/// chip's own machine with nothing but the installation and the data.
const CORPUS: &[(&str, &[&str])] = &[("cpu", &["*"]), ("acme", &["*matmul*", "reduce_*", "scans"]), ("opencl", &["*"]), ("vulkan", &["*"])];

/// These devices and drivers can do all of it, so nothing may be left out but a driver that is not there.
fn corpus() -> Outcome<String> {
    let settings = hurry()?;
    let mut ran = Vec::new();
    for (backend, kernels) in CORPUS {
        let words = ["kernel", "check", "ops/compiler/tests/corpus/data", "--backend", backend].into_iter().chain(kernels.iter().flat_map(|k| ["--case", *k]));
        let mut check = flagos(&words.collect::<Vec<_>>())?;
        check.env("FLAGOS_CACHE_DIR", target().join("kernels")).envs(settings.iter().cloned());
        let (code, text) = capture(&mut check)?;
        let line = text.lines().find(|l| l.contains(" passed, ")).unwrap_or("").to_owned();
        println!("{}", if line.is_empty() { &text } else { &line });
        match code {
            0 if line.contains(" 0 left out") => ran.push(line.split(',').next().unwrap_or("").to_owned()),
            // No such device: nothing was compiled.
            1 if line.is_empty() && matches!(*backend, "opencl" | "vulkan") && absent(backend)? => ran.push(format!("{backend} left out")),
            _ => return Err(format!("the corpus on {backend}\n{}", tail(&text, 40))),
        }
    }
    Ok(ran.join(", "))
}

/// Whether a backend has no device here.
fn absent(backend: &str) -> Outcome<bool> {
    let (_, text) = capture(&mut flagos(&["devices"])?)?;
    Ok(!text.lines().any(|l| l.starts_with(&format!("{backend}:"))))
}

fn mutations() -> Outcome<String> {
    run(&mut flagos(&["conformance", "--mutations", "backends/null/mutations.toml"])?).map(|()| String::new())
}

fn golden() -> Outcome<String> {
    let folder = root().join("conformance/golden");
    let mut words = vec!["run".to_owned(), "--device".into(), "cpu".into(), "--golden".into()];
    let skip = ["blas.safetensors", "fft.safetensors"];
    let mut files: Vec<_> = std::fs::read_dir(&folder).map_err(|e| e.to_string())?.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors") && !skip.iter().any(|s| p.ends_with(s)));
    files.sort();
    words.extend(files.iter().map(|p| p.display().to_string()));
    let (code, text) = capture(&mut flagos(&words.iter().map(String::as_str).collect::<Vec<_>>())?)?;
    if code == 0 { Ok(text.lines().last().unwrap_or("").to_owned()) } else { Err(tail(&text.lines().filter(|l| !l.starts_with("pass")).collect::<Vec<_>>().join("\n"), 40)) }
}
