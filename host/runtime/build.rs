//! States which compiler this build carries: a digest of the compiler's and the portable kernels' sources, part of every cached kernel's key.

use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops");
    let mut files = Vec::new();
    for folder in ["compiler/src", "kernels/src"] {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    // FNV-1a over names and contents.
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| digest = bytes.iter().fold(digest, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    for file in &files {
        eat(file.strip_prefix(&root).unwrap_or(file).to_string_lossy().as_bytes());
        eat(&std::fs::read(file).unwrap_or_default());
    }
    println!("cargo:rustc-env=FLAGOS_COMPILER_ID={}-{digest:016x}", env!("CARGO_PKG_VERSION"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
