//! Comparisons and logic, with bool results.

use crate::dtypes::{ANY, FLOATING};
use crate::{Numerics, pointwise};

pointwise! { family "comparison";
    /// a == b.
    70 Eq "eq"(a, b) test ANY, Numerics::Exact, aten &["eq.Tensor", "eq.Scalar"], onnx "Equal" => |([a, b], _)| a.eq(b);
    /// a != b; true where either is NaN.
    71 Ne "ne"(a, b) test ANY, Numerics::Exact, aten &["ne.Tensor", "ne.Scalar"] => |([a, b], _)| a.ne(b);
    /// a < b.
    72 Lt "lt"(a, b) test ANY, Numerics::Exact, aten &["lt.Tensor", "lt.Scalar"], onnx "Less" => |([a, b], _)| a.lt(b);
    /// a <= b.
    73 Le "le"(a, b) test ANY, Numerics::Exact, aten &["le.Tensor", "le.Scalar"], onnx "LessOrEqual" => |([a, b], _)| a.le(b);
    /// a > b.
    74 Gt "gt"(a, b) test ANY, Numerics::Exact, aten &["gt.Tensor", "gt.Scalar"], onnx "Greater" => |([a, b], _)| a.gt(b);
    /// a >= b.
    75 Ge "ge"(a, b) test ANY, Numerics::Exact, aten &["ge.Tensor", "ge.Scalar"], onnx "GreaterOrEqual" => |([a, b], _)| a.ge(b);
    /// Whether x is NaN.
    76 Isnan "isnan"(x) test FLOATING, Numerics::Exact, aten &["isnan"], onnx "IsNaN" => |([x], _)| x.is_nan();
    /// Whether x is infinite.
    77 Isinf "isinf"(x) test FLOATING, Numerics::Exact, aten &["isinf"], onnx "IsInf"
        => |([x], _)| x.abs().eq(S::number(f64::INFINITY, i64::MAX));
    /// a and b, each true where not 0 (NaN is true).
    78 LogicalAnd "logical_and"(a, b) test ANY, Numerics::Exact, aten &["logical_and", "logical_and_"], onnx "And"
        => |([a, b], _)| a.ne(S::int(0)) & b.ne(S::int(0));
    /// a or b.
    79 LogicalOr "logical_or"(a, b) test ANY, Numerics::Exact, aten &["logical_or", "logical_or_"], onnx "Or"
        => |([a, b], _)| a.ne(S::int(0)) | b.ne(S::int(0));
    /// a exclusive or b.
    80 LogicalXor "logical_xor"(a, b) test ANY, Numerics::Exact, aten &["logical_xor", "logical_xor_"], onnx "Xor"
        => |([a, b], _)| a.ne(S::int(0)) ^ b.ne(S::int(0));
    /// Whether x is 0.
    81 LogicalNot "logical_not"(x) test ANY, Numerics::Exact, aten &["logical_not", "logical_not_"], onnx "Not" => |([x], _)| x.eq(S::int(0));
}
