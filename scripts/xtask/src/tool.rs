//! Running other programs, and paths of the repository.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A chore's result; the text says what failed and what to do.
pub type Outcome<T = ()> = Result<T, String>;

/// Root of the repository.
pub fn root() -> PathBuf {
    flagos_codegen::root().canonicalize().unwrap_or_else(|_| flagos_codegen::root())
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo, in the root of the repository.
pub fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// A program, in the root of the repository.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs to success, output passed on.
pub fn run(command: &mut Command) -> Outcome {
    let text = line(command);
    let status = command.status().map_err(|e| format!("cannot start `{text}`: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{text}` failed: {status}")) }
}

/// Runs and hands back (exit code, standard output and error).
pub fn capture(command: &mut Command) -> Outcome<(i32, String)> {
    let text = line(command);
    let output = command.output().map_err(|e| format!("cannot start `{text}`: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Whether a program is to be found.
pub fn has(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status().is_ok_and(|s| s.success())
}

/// Becomes another program.
pub fn replace(program: &Path, words: &[String]) -> Outcome<ExitCode> {
    let error = Command::new(program).args(words).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}

/// Copies a file where it differs, so that a running program's file is replaced and not overwritten.
pub fn place(from: &Path, to: &Path) -> Outcome {
    let new = std::fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    let executable = std::fs::metadata(from).map_err(|e| format!("{}: {e}", from.display()))?.permissions();
    write_new(to, &new)?;
    std::fs::set_permissions(to, executable).map_err(|e| format!("{}: {e}", to.display()))
}

/// Writes a file where it differs, through a temporary name.
pub fn write_new(to: &Path, bytes: &[u8]) -> Outcome {
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let io = |e: std::io::Error| format!("{}: {e}", to.display());
    std::fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let draft = to.with_extension(format!("new{}", std::process::id()));
    std::fs::write(&draft, bytes).map_err(io)?;
    std::fs::rename(&draft, to).map_err(io)
}

/// Every file under a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
