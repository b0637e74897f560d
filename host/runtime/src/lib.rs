//! The libflagos host: discovers backends, judges and loads them, and runs work on their devices.
#![deny(unsafe_code)]

pub mod discover;
pub mod env;
pub mod log;
