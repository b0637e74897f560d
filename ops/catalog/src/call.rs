//! A call of an operator: definition, descriptors and attributes together, as a safe view.

use flagos_backend_api::{DType, Op, Result, Tensor};

use crate::Operator;

/// Value of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// Integer, truth value or choice.
    Int(i64),
    /// Real number.
    Float(f64),
    /// List of integers.
    Ints(Vec<i64>),
}

/// Attribute values of a call, complete with defaults, in the definition's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Attrs {
    pub(crate) values: Vec<AttrValue>,
    pub(crate) names: &'static [crate::Attribute],
}

/// A call: what to compute, on tensors of which types, shapes and strides. Holds no memory.
#[derive(Clone)]
pub struct Call {
    /// The definition.
    pub operator: &'static Operator,
    /// Input descriptors; absent optional ones are [`Tensor::NONE`].
    pub inputs: Vec<Tensor>,
    /// Output descriptors.
    pub outputs: Vec<Tensor>,
    /// Attributes with defaults filled in.
    pub attrs: Attrs,
}
