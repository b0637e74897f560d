//! The environment variables of libflagos: one table, and the only way to read them.

use std::ffi::OsString;

use serde::Serialize;

/// How the text of a variable is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// Paths separated by colons.
    Paths,
    /// Names or globs (`*`, `?`) separated by commas.
    Globs,
    /// One of the words given in the documentation.
    Choice,
    /// A non-negative number.
    Number,
    /// `1` or `0`.
    Flag,
}

/// One environment variable.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Variable {
    /// Name, starting with `FLAGOS_`.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// What holds when it is not set; empty: nothing.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Variable {
    Variable {
        name,
        kind,
        default,
        doc,
    }
}

/// Every variable that libflagos and its own backends read, in the order `flagos env` prints them.
pub const VARIABLES: &[Variable] = &[
    row(
        "FLAGOS_BACKEND_FILES",
        Kind::Paths,
        "",
        "Manifests or libraries to use instead of everything that would be searched.",
    ),
    row(
        "FLAGOS_ADD_BACKEND_FILES",
        Kind::Paths,
        "",
        "Manifests or libraries to use before everything that is searched.",
    ),
    row(
        "FLAGOS_BACKENDS_SELECT",
        Kind::Globs,
        "*",
        "Only backends whose name matches one of these are considered.",
    ),
    row(
        "FLAGOS_BACKENDS_DISABLE",
        Kind::Globs,
        "",
        "Backends whose name matches one of these are left out.",
    ),
    row(
        "FLAGOS_TRUST",
        Kind::Choice,
        "user",
        "Whose files may be loaded: 'system' (root's), 'user' (root's and yours), 'any' (no check).",
    ),
    row(
        "FLAGOS_QUERY_TIMEOUT_MS",
        Kind::Number,
        "5000",
        "Milliseconds a backend may take to load and to answer its entry before it is refused.",
    ),
    row(
        "FLAGOS_POLICY",
        Kind::Text,
        "",
        "Policy as TOML text, merged over the policy file.",
    ),
    row("FLAGOS_POLICY_FILE", Kind::Path, "", "Policy file (TOML)."),
    row(
        "FLAGOS_STRICT",
        Kind::Flag,
        "0",
        "1: refuse what no claim of the conformance suite covers.",
    ),
    row(
        "FLAGOS_FALLBACK",
        Kind::Choice,
        "warn",
        "Running on the CPU what a device does not offer: 'forbid', 'warn' or 'allow'.",
    ),
    row(
        "FLAGOS_LAYERS",
        Kind::Text,
        "",
        "Layers put over devices when they are opened, separated by commas: 'validate', 'trace', 'fault'.",
    ),
    row(
        "FLAGOS_LOG",
        Kind::Choice,
        "warn",
        "Least severe log line written to standard error: 'error', 'warn', 'info' or 'debug'.",
    ),
    row(
        "FLAGOS_CACHE_DIR",
        Kind::Path,
        "~/.cache/flagos",
        "Where compiled kernels are kept.",
    ),
    row(
        "FLAGOS_CC",
        Kind::Path,
        "cc, gcc or clang",
        "C compiler of the CPU backend's portable kernels; a name is looked for along PATH.",
    ),
    row(
        "FLAGOS_CPU_THREADS",
        Kind::Number,
        "all cores",
        "Threads of the CPU backend.",
    ),
    row(
        "FLAGOS_CPU_ISA",
        Kind::Choice,
        "best available",
        "Instruction set the CPU backend may use at most: 'scalar', 'avx2' or 'avx512'.",
    ),
    row(
        "FLAGOS_NULL_FAULT",
        Kind::Text,
        "",
        "Faults the null backend injects, for tests of the host and of the suite.",
    ),
    row(
        "FLAGOS_ALLOW_NO_OPENCL",
        Kind::Flag,
        "",
        "1 lets the OpenCL backend's tests pass on a machine without OpenCL.",
    ),
];

/// The value of a variable of [`VARIABLES`]; `None` when it is not set, not UTF-8, or the process is [elevated].
pub fn var(name: &str) -> Option<String> {
    var_os(name)?.into_string().ok()
}

/// As [`var`], for paths.
pub fn var_os(name: &str) -> Option<OsString> {
    debug_assert!(
        !name.starts_with("FLAGOS_") || VARIABLES.iter().any(|v| v.name == name),
        "{name} is not in the table of environment variables"
    );
    if elevated() {
        None
    } else {
        std::env::var_os(name)
    }
}

/// Whether the process runs with more rights than the user who started it (set-user-id, file capabilities): its environment is then
/// not to be believed, as with `secure_getenv`.
pub fn elevated() -> bool {
    // SAFETY: these functions take no pointers and cannot fail.
    #[allow(unsafe_code)]
    unsafe {
        libc::getauxval(libc::AT_SECURE) != 0
            || libc::geteuid() != libc::getuid()
            || libc::getegid() != libc::getgid()
    }
}

/// The effective user id, whose files `FLAGOS_TRUST=user` believes.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: takes no pointers and cannot fail.
    #[allow(unsafe_code)]
    unsafe {
        libc::geteuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_listed_once_with_a_sentence() {
        for (i, v) in VARIABLES.iter().enumerate() {
            assert!(v.name.starts_with("FLAGOS_"), "{}", v.name);
            assert!(v.doc.ends_with('.'), "{}", v.name);
            assert!(
                VARIABLES[..i].iter().all(|other| other.name != v.name),
                "{} is listed twice",
                v.name
            );
        }
    }
}
