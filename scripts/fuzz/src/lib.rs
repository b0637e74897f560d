//! Fuzz targets of libflagos: each takes numbers from a seeded generator, so that a failing seed replays alone.
//!
//! `cargo test -p flagos-fuzz` does a fixed amount of work; `FLAGOS_FUZZ_ROUNDS=N` multiplies it, `FLAGOS_FUZZ_SEED=S` starts elsewhere.

pub mod border;
pub mod manifest;
pub mod random;
