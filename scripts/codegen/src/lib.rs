//! Generates the C headers from the Rust descriptions, so that neither can drift from the other.
#![forbid(unsafe_code)]

mod backend;
mod comment;
mod ctype;
mod emit;
mod framework;
mod operators;
mod registry;
mod source;
mod types;

use std::path::{Path, PathBuf};

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every generated file: (path from the repository's root, text).
///
/// # Panics
/// When a source that headers follow from cannot be read or is outside of what C can express; the message names it.
pub fn files() -> Vec<(&'static str, String)> {
    let library = source::Library::read(&root());
    let mut files = vec![
        ("backend-api/include/flagos_types.h", types::header()),
        ("backend-api/include/flagos_registry.h", registry::header()),
        ("backend-api/include/flagos_backend.h", backend::header(&root())),
        ("host/capi/include/flagos.h", framework::header(&library)),
    ];
    if let Some(execute) = library.functions().find(|f| f.name == "flagos_op_execute") {
        let taken = library.functions().map(|f| f.name.as_str()).collect();
        files.push(("host/capi/include/flagos_ops.h", operators::header(execute, &taken)));
    }
    files
}
