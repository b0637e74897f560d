//! The processor as a libflagos device.

mod axes;
mod block;
mod convert;
mod copy;
mod fold;
pub mod kernel;
mod kind;
mod lanes;
mod lanes_int;
mod math_f32;
mod math_f64;
pub mod ops;
mod pointwise;
pub mod pool;
mod reduce;
mod reduce_arg;
mod rows;
mod select;
mod softmax;
pub mod target;
mod tensor;
mod transfer;
