//! Arithmetic.

use crate::dtypes::{FLOATING, NUMBER};
use crate::numerics::{ULP_16, ULP_DIV, ULP_HALF};
use crate::{Attribute, Numerics, pointwise};

const ALPHA: Attribute = Attribute::number("alpha", Some(1.0), "factor of b");
const VALUE: Attribute = Attribute::number("value", Some(1.0), "factor of the product");

pointwise! { family "arithmetic";
    /// a + alpha·b.
    20 Add "add"(a, b) arith NUMBER, Numerics::ForwardError, attrs &[ALPHA], aten &["add.Tensor", "add_.Tensor", "add.out", "add.Scalar"], onnx "Add"
        => |([a, b], k)| a + S::number(k.number_at(0).0, k.number_at(0).1) * b
        ; scale |([a, b], k)| a.abs() + (k.number_at(0).0 * b).abs();
    /// a - alpha·b.
    21 Sub "sub"(a, b) arith NUMBER, Numerics::ForwardError, attrs &[ALPHA], aten &["sub.Tensor", "sub_.Tensor", "sub.out", "sub.Scalar"], onnx "Sub"
        => |([a, b], k)| a - S::number(k.number_at(0).0, k.number_at(0).1) * b
        ; scale |([a, b], k)| a.abs() + (k.number_at(0).0 * b).abs();
    /// a·b.
    22 Mul "mul"(a, b) arith NUMBER, ULP_HALF, aten &["mul.Tensor", "mul_.Tensor", "mul.out", "mul.Scalar"], onnx "Mul"
        => |([a, b], _)| a * b;
    /// a / b; or the quotient rounded toward zero (trunc) or down (floor). Integers become f32.
    23 Div "div"(a, b) float NUMBER, ULP_DIV,
        attrs &[Attribute::choice("rounding_mode", &["none", "trunc", "floor"], "rounding of the quotient")],
        aten &["div.Tensor", "div_.Tensor", "div.out", "div.Tensor_mode", "div.Scalar"], onnx "Div", special "IEEE 754 division; x/0 is ±inf or NaN; trunc and floor round the exact quotient of finite operands, so floor(1/0.1) is 9"
        => |([a, b], k)| match k.choice_at(0) { 0 => a / b, 1 => a.div_trunc(b), _ => a.div_floor(b) };
    /// aᵇ as C's pow.
    24 Pow "pow"(a, b) float NUMBER, ULP_16, aten &["pow.Tensor_Tensor", "pow_.Tensor", "pow.Tensor_Scalar", "pow.Scalar"], onnx "Pow", special "as C's pow"
        => |([a, b], _)| a.pow(b);
    /// a - b·floor(a/b): the remainder with b's sign.
    25 Remainder "remainder"(a, b) arith NUMBER, ULP_HALF, aten &["remainder.Tensor", "remainder_.Tensor", "remainder.Scalar"],
        special "b = 0: NaN; integers 0"
        => |([a, b], _)| a.remainder(b);
    /// The remainder with a's sign (C's fmod).
    26 Fmod "fmod"(a, b) arith NUMBER, ULP_HALF, aten &["fmod.Tensor", "fmod_.Tensor", "fmod.Scalar"], onnx "Mod", special "b = 0: NaN; integers 0"
        => |([a, b], _)| a.fmod(b);
    /// The greater of a and b.
    27 Maximum "maximum"(a, b) arith NUMBER, ULP_HALF, aten &["maximum", "maximum.out"], onnx "Max", special "NaN if either is NaN; zeros compare equal"
        => |([a, b], _)| a.maximum(b);
    /// The lesser of a and b.
    28 Minimum "minimum"(a, b) arith NUMBER, ULP_HALF, aten &["minimum", "minimum.out"], onnx "Min", special "NaN if either is NaN; zeros compare equal"
        => |([a, b], _)| a.minimum(b);
    /// -x.
    29 Neg "neg"(x) arith NUMBER, Numerics::Exact, aten &["neg", "neg_", "neg.out"], onnx "Neg"
        => |([x], _)| -x;
    /// |x|.
    30 Abs "abs"(x) arith NUMBER, Numerics::Exact, aten &["abs", "abs_", "abs.out"], onnx "Abs", special "of the least integer, itself"
        => |([x], _)| x.abs();
    /// -1, 0 or 1 by sign.
    31 Sign "sign"(x) arith NUMBER, ULP_HALF, aten &["sign", "sign_", "sgn", "sgn_"], onnx "Sign", special "NaN gives 0"
        => |([x], _)| S::select(x.gt(S::int(0)), S::int(1), S::select(x.lt(S::int(0)), S::int(-1), S::int(0)));
    /// 1/x.
    32 Reciprocal "reciprocal"(x) float NUMBER, ULP_DIV, aten &["reciprocal", "reciprocal_", "reciprocal.out"], onnx "Reciprocal"
        => |([x], _)| S::lit(1.0) / x;
    /// a + value·b·c.
    33 Addcmul "addcmul"(a, b, c) arith NUMBER, Numerics::ForwardError, attrs &[VALUE], aten &["addcmul", "addcmul_", "addcmul.out"]
        => |([a, b, c], k)| a.add_product(S::number(k.number_at(0).0, k.number_at(0).1), b, c)
        ; scale |([a, b, c], k)| a.abs() + (k.number_at(0).0 * b * c).abs();
    /// a + w·(b - a).
    34 Lerp "lerp"(a, b, w) float FLOATING, Numerics::ForwardError, aten &["lerp.Tensor", "lerp_.Tensor", "lerp.Tensor_out"]
        => |([a, b, w], _)| a.lerp(b, w)
        ; scale |([a, b, w], _)| a.abs() + (w * b).abs() + (w * a).abs();
    /// x limited to min ≤ x ≤ max.
    35 Clamp "clamp"(x) arith NUMBER, ULP_HALF,
        attrs &[Attribute::number("min", Some(f64::NEG_INFINITY), "lower bound"), Attribute::number("max", Some(f64::INFINITY), "upper bound")],
        aten &["clamp", "clamp_", "clamp.out", "clamp_min", "clamp_max", "clamp_min_", "clamp_max_"], onnx "Clip",
        special "NaN stays NaN; min > max gives max"
        => |([x], k)| {
            let (low, high) = (k.number_at(0), k.number_at(1));
            let x = S::select(x.lt(S::number(low.0, low.1)), S::number(low.0, low.1), x);
            S::select(x.gt(S::number(high.0, high.1)), S::number(high.0, high.1), x)
        };
}
