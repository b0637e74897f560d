//! Makes the library that stands for libOpenCL when linking, so that a machine without OpenCL can build this backend.
//!
//! It exports the functions `src/driver.rs` calls, does nothing, and bears the loader's soname: what is linked against it asks for
//! `libOpenCL.so.1` when it is loaded, and runs with any loader, as it wants no symbol versions of a particular one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src/driver.rs");
    println!("cargo:rerun-if-env-changed=CC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let driver = std::fs::read_to_string("src/driver.rs").expect("src/driver.rs is readable");
    let is_function = |word: &&str| word.strip_prefix("cl").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    let names: BTreeSet<&str> = driver.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_function).collect();
    let source: String = names.iter().map(|name| format!("void {name}(void) {{}}\n")).collect();
    std::fs::write(out.join("stub.c"), source).expect("OUT_DIR is writable");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut link = Command::new(&compiler);
    link.args(["-shared", "-fPIC", "-Wl,-soname,libOpenCL.so.1", "-o"]).arg(out.join("libOpenCL.so")).arg(out.join("stub.c"));
    let status = link.status().unwrap_or_else(|e| panic!("cannot start the C compiler {compiler}: {e}; install one or name it in CC"));
    assert!(status.success(), "{compiler} cannot make a shared library: {status}");
    println!("cargo:rustc-link-search=native={}", out.display());
}
