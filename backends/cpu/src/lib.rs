//! The processor as a libflagos device.

mod block;
mod convert;
pub mod kernel;
mod kind;
mod lanes;
mod lanes_int;
mod math_f32;
mod math_f64;
pub mod ops;
mod pointwise;
pub mod pool;
mod rows;
mod select;
pub mod target;
mod tensor;
mod transfer;
