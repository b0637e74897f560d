//! Headers compile in every promised language, and the files checked in are the generated ones.

use std::path::Path;
use std::process::Command;

const LANGUAGES: &[(&str, &str)] = &[("c", "c99"), ("c", "c11"), ("c++", "c++17")];

/// Compiles a translation unit with the warnings a strict project uses; gcc is required.
fn compile(name: &str, text: &str) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = dir.join(format!("{name}.txt"));
    std::fs::write(&source, text).unwrap();
    let include = |d: &str| format!("-I{}", flagos_codegen::root().join(d).display());
    for (language, standard) in LANGUAGES {
        let object = dir.join(format!("{name}-{standard}.o"));
        let out = Command::new("gcc")
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-c", "-x", language, &format!("-std={standard}")])
            .args([include("backend-api/include"), include("host/capi/include")])
            .arg("-o")
            .arg(&object)
            .arg(&source)
            .output()
            .expect("gcc is needed to check the headers; install it");
        assert!(out.status.success(), "{name} as {standard}:\n{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn files_checked_in_are_the_generated_ones() {
    for (path, text) in flagos_codegen::files() {
        let found = std::fs::read_to_string(flagos_codegen::root().join(path)).unwrap_or_default();
        assert!(found == text, "{path} is not what the sources give; run `cargo xtask codegen`");
    }
}

#[test]
fn every_header_compiles_alone() {
    for (path, _) in flagos_codegen::files() {
        let file = Path::new(path).file_name().unwrap().to_str().unwrap();
        compile(file, &format!("#include \"{file}\"\n#include \"{file}\"\nint main(void) {{ return 0; }}\n"));
    }
}

#[test]
fn a_backend_can_be_written_in_every_language() {
    compile("vendor", include_str!("vendor.txt"));
}

#[test]
fn helpers_do_what_they_say() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (dir.join("helpers.c"), dir.join("helpers"));
    std::fs::write(&source, include_str!("helpers.txt")).unwrap();
    let include = format!("-I{}", flagos_codegen::root().join("backend-api/include").display());
    let built = Command::new("gcc").args(["-std=c11", "-Wall", "-Wextra", "-Werror", &include, "-o"]).args([&program, &source]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(&program).output().unwrap();
    assert!(run.status.success(), "line {} of helpers.txt fails", String::from_utf8_lossy(&run.stdout));
}
