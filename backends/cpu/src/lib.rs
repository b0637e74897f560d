//! The processor as a libflagos device.

mod element;
pub mod gemm;
pub mod gemm_pack;
pub mod gemm_tile;
mod gemm_vector;
pub mod kernel;
pub mod ops;
pub mod pool;
pub mod scratch;
pub mod target;
mod vectorize;
