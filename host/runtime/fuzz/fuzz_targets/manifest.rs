//! Fuzz target: any bytes as a manifest are either a valid manifest or one line of refusal. Run with `cargo +nightly fuzz run manifest`.
#![no_main]

use std::path::Path;

use flagos_runtime::discover::manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match manifest::parse(bytes, Path::new("/m/50-x.json")) {
        Ok(m) => assert!(!m.name.is_empty() && !m.library.as_os_str().is_empty()),
        Err(r) => assert!(r.message.starts_with("/m/50-x.json: ") && !r.message.chars().any(char::is_control)),
    }
});
