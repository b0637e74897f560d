//! The processor as a libflagos device.

pub mod kernel;
pub mod ops;
pub mod pool;
pub mod target;
