//! Pointwise operators as rows: one generic scalar expression each, visited by whoever instantiates it.

use crate::{Arith, Attrs, Bits, Float, Operator};

/// A row whose expression needs real floating point; integer and bool inputs are promoted to f32.
pub trait FloatRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the inputs in order.
    fn eval<S: Float>(x: [S; N], attrs: &Attrs) -> S;
}

/// A row over any number type, result of the promoted input type.
pub trait ArithRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Arith>(x: [S; N], attrs: &Attrs) -> S;
}

/// A row over any number type with a truth value as its result.
pub trait TestRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Arith>(x: [S; N], attrs: &Attrs) -> S::Mask;
}

/// A row over bit patterns: integers and bool.
pub trait BitsRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Bits>(x: [S; N], attrs: &Attrs) -> S;
}

/// Receives every row once, typed, so that a backend can instantiate it for its lanes and register the result by operator id.
pub trait RowVisitor {
    /// A floating-point row.
    fn float<const N: usize, R: FloatRow<N>>(&mut self);
    /// An arithmetic row.
    fn arith<const N: usize, R: ArithRow<N>>(&mut self);
    /// A row with a truth value as its result.
    fn test<const N: usize, R: TestRow<N>>(&mut self);
    /// A bitwise row.
    fn bits<const N: usize, R: BitsRow<N>>(&mut self);
}
