//! Bitwise operations on integers; logical ones on bool.

use crate::dtypes::BITS;
use crate::{Numerics, pointwise};

pointwise! { family "bitwise";
    /// a & b.
    90 BitwiseAnd "bitwise_and"(a, b) bits BITS, Numerics::Exact, aten &["bitwise_and.Tensor", "bitwise_and_.Tensor", "__and__.Tensor"], onnx "BitwiseAnd" => |([a, b], _)| a & b;
    /// a | b.
    91 BitwiseOr "bitwise_or"(a, b) bits BITS, Numerics::Exact, aten &["bitwise_or.Tensor", "bitwise_or_.Tensor", "__or__.Tensor", "__ior__.Tensor"], onnx "BitwiseOr" => |([a, b], _)| a | b;
    /// a ^ b.
    92 BitwiseXor "bitwise_xor"(a, b) bits BITS, Numerics::Exact, aten &["bitwise_xor.Tensor", "bitwise_xor_.Tensor", "__xor__.Tensor", "__ixor__.Tensor"], onnx "BitwiseXor" => |([a, b], _)| a ^ b;
    /// ~x; on bool the logical not.
    93 BitwiseNot "bitwise_not"(x) bits BITS, Numerics::Exact, aten &["bitwise_not", "bitwise_not_"], onnx "BitwiseNot" => |([x], _)| !x;
}
