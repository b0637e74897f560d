//! Fourier transforms: names and argument rules.

use flagos_backend_api::{FftDesc, Error, Result};

use crate::OperandSpan;

/// Name of a call ("c2c").
pub fn name(_: u32) -> &'static str {
    "fft"
}
/// Checks arguments.
pub fn check(desc: &FftDesc) -> Result<()> {
    operands(desc).map(drop)
}
/// What each binding touches.
pub fn operands(_: &FftDesc) -> Result<Vec<OperandSpan>> {
    Err(Error::unimplemented("FFT is not defined yet"))
}
/// Arithmetic operations.
pub fn flops(_: &FftDesc) -> f64 {
    0.0
}
