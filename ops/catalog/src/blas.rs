//! BLAS routines: names and argument rules.

use flagos_backend_api::{BlasDesc, Error, Result};

use crate::OperandSpan;

/// Name of a call ("gemm").
pub fn name(_: &BlasDesc) -> &'static str {
    "blas"
}
/// Checks arguments.
pub fn check(desc: &BlasDesc) -> Result<()> {
    operands(desc).map(drop)
}
/// What each binding touches.
pub fn operands(_: &BlasDesc) -> Result<Vec<OperandSpan>> {
    Err(Error::unimplemented("BLAS is not defined yet"))
}
/// Arithmetic operations.
pub fn flops(_: &BlasDesc) -> f64 {
    0.0
}
