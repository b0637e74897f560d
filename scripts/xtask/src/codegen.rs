//! Generated files that people read are checked in; this writes them, or says which are stale.

use crate::tool::{Outcome, root, write_new};

/// Writes, or with `check` compares.
pub fn run(check: bool) -> Outcome {
    let mut stale = Vec::new();
    for (path, text) in flagos_codegen::files() {
        let file = root().join(path);
        if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            stale.push(path);
        } else {
            write_new(&file, text.as_bytes())?;
            println!("wrote {path}");
        }
    }
    if stale.is_empty() { Ok(()) } else { Err(format!("generated files are stale: {}; run `cargo xtask codegen`", stale.join(", "))) }
}
