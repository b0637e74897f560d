//! Records the compiler's version, which backends state in their tables.

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output();
    let version = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    println!("cargo:rustc-env=FLAGOS_RUSTC={version}");
    println!("cargo:rerun-if-changed=build.rs");
}
