//! References against golden vectors: values from sources that share no code with the catalogue.

mod blas;
mod fft;
mod file;
mod operators;

use std::path::{Path, PathBuf};

/// Where golden files lie.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/golden")
}
