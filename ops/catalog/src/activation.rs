//! Activations and their derivatives.

use crate::dtypes::{FLOATING, NUMBER};
use crate::numerics::{EQUAL, ULP_1, ULP_5, ULP_8};
use crate::{Arith, Attribute, Float, Numerics, pointwise};

const APPROXIMATE: Attribute = Attribute::choice("approximate", &["none", "tanh"], "none: by erf; tanh: by the tanh formula");

/// 2/√π · √½, the factor of the tanh formula.
const TANH_FACTOR: f64 = 0.797_884_560_802_865_4;
const TANH_CUBIC: f64 = 0.044_715;
/// 1/√(2π).
const DENSITY: f64 = 0.398_942_280_401_432_7;

/// Φ(x) by erf.
#[inline(always)]
fn normal_cdf<S: Float>(x: S) -> S {
    S::lit(0.5) * (S::lit(1.0) + (x * S::lit(core::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// The tanh formula's inner tanh.
#[inline(always)]
fn tanh_part<S: Float>(x: S) -> S {
    (S::lit(TANH_FACTOR) * (x + S::lit(TANH_CUBIC) * x * x * x)).tanh()
}

/// Zero where Φ's factor vanishes for good, so that -∞·0 does not become NaN.
#[inline(always)]
fn settle_left<S: Float>(x: S, y: S) -> S {
    S::select(x.eq(S::lit(f64::NEG_INFINITY)), S::lit(0.0), y)
}

pointwise! { family "activation";
    /// max(x, 0).
    1 Relu "relu"(x) arith NUMBER, EQUAL, aten &["relu", "relu_", "relu.out"], onnx "Relu", special "NaN stays NaN; -0 gives +0"
        => |([x], _)| x.maximum(Arith::int(0));
    /// 1 / (1 + exp(-x)).
    2 Sigmoid "sigmoid"(x) float NUMBER, ULP_5, aten &["sigmoid", "sigmoid_", "sigmoid.out"], onnx "Sigmoid"
        => |([x], _)| x.sigmoid();
    /// Hyperbolic tangent.
    3 Tanh "tanh"(x) float NUMBER, ULP_5, aten &["tanh", "tanh_", "tanh.out"], onnx "Tanh"
        => |([x], _)| x.tanh();
    /// x·sigmoid(x).
    4 Silu "silu"(x) float FLOATING, ULP_8, aten &["silu", "silu_", "silu.out"], special "-inf gives NaN, as -inf · 0"
        => |([x], _)| x.silu();
    /// x·Φ(x), Φ the normal distribution function; or 0.5·x·(1 + tanh(√(2/π)(x + 0.044715 x³))).
    5 Gelu "gelu"(x) float FLOATING, Numerics::ForwardError, attrs &[APPROXIMATE], aten &["gelu", "gelu_", "gelu.out"], onnx "Gelu",
        special "-inf gives 0"
        => |([x], a)| settle_left(x, if a.choice_at(0) == 0 { x * normal_cdf(x) } else { S::lit(0.5) * x * (S::lit(1.0) + tanh_part(x)) })
        ; scale |([x], _)| 2.0 * x.abs().min(1e30);
    /// dy·s·(1 + x·(1 - s)) with s = sigmoid(x).
    6 SiluBackward "silu_backward"(dy, x) float FLOATING, Numerics::ForwardError, aten &["silu_backward", "silu_backward.grad_input"]
        => |([dy, x], _)| x.silu_backward(dy)
        ; scale |([dy, x], _)| { let s = x.sigmoid(); (3.0 * (dy * s).abs() * (1.0 + x.abs())).min(f64::MAX) };
    /// dy·(Φ(x) + x·φ(x)), or the derivative of the tanh formula.
    7 GeluBackward "gelu_backward"(dy, x) float FLOATING, Numerics::ForwardError, attrs &[APPROXIMATE], aten &["gelu_backward", "gelu_backward.grad_input"],
        special "infinite x gives NaN where inf · 0 arises"
        => |([dy, x], a)| if a.choice_at(0) == 0 {
            dy * (normal_cdf(x) + x * S::lit(DENSITY) * (S::lit(-0.5) * x * x).exp())
        } else {
            let t = tanh_part(x);
            let slope = S::lit(TANH_FACTOR) * (S::lit(1.0) + S::lit(3.0 * TANH_CUBIC) * x * x);
            dy * S::lit(0.5) * (S::lit(1.0) + t + x * (S::lit(1.0) - t * t) * slope)
        }
        ; scale |([dy, x], _)| (4.0 * dy.abs() * (1.0 + x.abs()).min(1e30) * (1.0 + x * x * (-0.5 * x * x).exp())).min(f64::MAX);
    /// x where x > 0, else value·x.
    8 LeakyRelu "leaky_relu"(x) float FLOATING, ULP_1, attrs &[Attribute::number("value", Some(0.01), "slope for negative x")],
        aten &["leaky_relu", "leaky_relu_", "leaky_relu.out"], onnx "LeakyRelu"
        => |([x], a)| S::select(x.gt(S::lit(0.0)), x, x * S::number(a.number_at(0).0, a.number_at(0).1));
}
