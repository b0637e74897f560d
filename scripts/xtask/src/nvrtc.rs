//! Portable kernels through NVIDIA's run-time compiler, which needs no GPU: all of them for three architectures, or a part for the daily checks.

use crate::tool::{Outcome, capture, cargo};

/// Exit code of a program that found no compiler.
const LEFT_OUT: i32 = 77;

/// Compiles; the text is the counts, or why it was left out. No words: everything for sm_80, sm_90 and sm_120.
pub fn run(words: &[&str]) -> Outcome<String> {
    let mut program = cargo();
    program.args(["run", "--quiet", "--release", "-p", "flagos-backend-cuda", "--example", "portable_kernels", "--"]).args(words);
    let (code, text) = capture(&mut program)?;
    println!("{}", text.trim_end());
    let last = text.trim_end().lines().last().unwrap_or("").to_owned();
    match code {
        0 | LEFT_OUT => Ok(last),
        _ => Err(if last.is_empty() { format!("portable_kernels ended with {code}") } else { last }),
    }
}
