//! The processor as a libflagos device.

mod axes;
pub mod blas;
mod blas_trsm;
mod blas_vector;
mod create;
mod element;
pub mod gemm;
pub mod gemm_pack;
pub mod gemm_tile;
mod gemm_vector;
mod index;
pub mod kernel;
mod matmul;
mod norm;
pub mod ops;
pub mod pool;
mod random;
mod scan;
pub mod scratch;
mod sort;
pub mod target;
mod vectorize;
