//! House rules that no compiler checks.

use std::path::Path;

use crate::tool::{Outcome, capture, command, root};

/// Greatest length of a file in lines.
const LONGEST: usize = 1000;

/// Words that mark unfinished work.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX"];

/// Checks every tracked source file.
pub fn run() -> Outcome {
    let (_, list) = capture(command("git").args(["ls-files", "*.rs", "*.c", "*.h"]))?;
    let mut faults = Vec::new();
    let mut lengths = Vec::new();
    for name in list.lines() {
        let text = std::fs::read_to_string(root().join(name)).map_err(|e| format!("{name}: {e}"))?;
        let generated = text.lines().take(3).any(|l| l.contains("Generated"));
        let lines = text.lines().count();
        if name.ends_with(".rs") {
            lengths.push(lines);
            if !text.starts_with("//!") {
                faults.push(format!("{name}: the first line is no `//!` sentence"));
            }
        }
        if lines > LONGEST && !generated {
            faults.push(format!("{name}: {lines} lines; at most {LONGEST}"));
        }
        if name != "scripts/xtask/src/tidy.rs" {
            faults.extend(unfinished(name, &text));
        }
        faults.extend(backends_named(name, &text));
    }
    lengths.sort_unstable();
    if let Some(median) = lengths.get(lengths.len() / 2) {
        println!("tidy: {} Rust files, median {median} lines", lengths.len());
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("house rules:\n  {}", faults.join("\n  "))) }
}

fn unfinished(name: &str, text: &str) -> Vec<String> {
    let marks = |line: &str| UNFINISHED.iter().any(|w| line.contains(w));
    text.lines().enumerate().filter(|(_, l)| marks(l)).map(|(i, l)| format!("{name}:{}: {}", i + 1, l.trim())).collect()
}

/// Backends are not named in host code.
fn backends_named(name: &str, text: &str) -> Vec<String> {
    let host = Path::new(name).starts_with("host/runtime/src") || Path::new(name).starts_with("host/capi/src");
    if !host {
        return Vec::new();
    }
    let before_tests = text.split("#[cfg(test)]").next().unwrap_or(text);
    let names = ["\"cpu\"", "\"cuda\"", "\"rocm\"", "\"opencl\"", "\"vulkan\""];
    let found = |l: &str| names.iter().any(|n| l.contains(n)) && !l.trim_start().starts_with("//");
    before_tests.lines().enumerate().filter(|(_, l)| found(l)).map(|(i, l)| format!("{name}:{}: names a backend: {}", i + 1, l.trim())).collect()
}
