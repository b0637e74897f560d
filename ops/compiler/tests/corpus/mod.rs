//! The corpus: kernels that Triton printed, each with a call and what NumPy expects of it. Made by `generate.py`.
//!
//! Whoever runs kernels can run these: `#[path = "…/ops/compiler/tests/corpus/mod.rs"] mod corpus;`, then for every case of [`cases`] build the
//! program, launch it with the arguments, and give what the buffers hold afterwards to [`Case::check`]. `flagos kernel check` does so on any device.

use std::path::PathBuf;

use flagos_compiler::Case;

/// Every case, by name. Panics if the files are not there or not well-formed.
pub fn cases() -> Vec<Case> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder()).expect("the corpus").map(|f| f.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "case"));
    names.sort();
    names.iter().map(|path| Case::read(path).unwrap()).collect()
}

/// The folder of the files, seen from any crate of the repository.
fn folder() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|a| a.join("ops/compiler/tests/corpus/data")).find(|p| p.is_dir());
    found.expect("ops/compiler/tests/corpus/data above the crate")
}
