//! The processor as a libflagos device.

pub mod blas;
mod blas_trsm;
mod blas_vector;
mod element;
pub mod gemm;
pub mod gemm_pack;
pub mod gemm_tile;
mod gemm_vector;
pub mod kernel;
mod matmul;
pub mod ops;
pub mod pool;
pub mod scratch;
pub mod target;
mod vectorize;
