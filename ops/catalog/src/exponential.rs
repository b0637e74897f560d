//! Exponentials, logarithms, roots, trigonometry and rounding.

use crate::dtypes::{FLOATING, NUMBER};
use crate::numerics::{ULP_16, ULP_3, ULP_4};
use crate::{Numerics, pointwise};

pointwise! { family "exponential";
    /// eˣ.
    50 Exp "exp"(x) float NUMBER, ULP_3, aten &["exp", "exp_", "exp.out"], onnx "Exp" => |([x], _)| x.exp();
    /// eˣ - 1, without cancellation near 0.
    51 Expm1 "expm1"(x) float NUMBER, ULP_3, aten &["expm1", "expm1_", "expm1.out"] => |([x], _)| x.expm1();
    /// Natural logarithm.
    52 Log "log"(x) float NUMBER, ULP_3, aten &["log", "log_", "log.out"], onnx "Log", special "0 gives -inf, negatives NaN" => |([x], _)| x.log();
    /// ln(1 + x), without cancellation near 0.
    53 Log1p "log1p"(x) float NUMBER, ULP_3, aten &["log1p", "log1p_", "log1p.out"], special "-1 gives -inf" => |([x], _)| x.log1p();
    /// Base-2 logarithm.
    54 Log2 "log2"(x) float NUMBER, ULP_3, aten &["log2", "log2_", "log2.out"], special "0 gives -inf, negatives NaN" => |([x], _)| x.log2();
    /// Square root.
    55 Sqrt "sqrt"(x) float NUMBER, ULP_3, aten &["sqrt", "sqrt_", "sqrt.out"], onnx "Sqrt", special "negatives give NaN, -0 gives -0" => |([x], _)| x.sqrt();
    /// 1/√x.
    56 Rsqrt "rsqrt"(x) float NUMBER, ULP_4, aten &["rsqrt", "rsqrt_", "rsqrt.out"], special "0 gives inf, negatives NaN" => |([x], _)| x.rsqrt();
    /// Sine of radians.
    57 Sin "sin"(x) float NUMBER, ULP_4, aten &["sin", "sin_", "sin.out"], onnx "Sin", special "infinities give NaN" => |([x], _)| x.sin();
    /// Cosine of radians.
    58 Cos "cos"(x) float NUMBER, ULP_4, aten &["cos", "cos_", "cos.out"], onnx "Cos", special "infinities give NaN" => |([x], _)| x.cos();
    /// Error function 2/√π ∫₀ˣ exp(-t²) dt.
    59 Erf "erf"(x) float NUMBER, ULP_16, aten &["erf", "erf_", "erf.out"], onnx "Erf" => |([x], _)| x.erf();
    /// Rounded down.
    60 Floor "floor"(x) float FLOATING, Numerics::Exact, aten &["floor", "floor_", "floor.out"], onnx "Floor" => |([x], _)| x.floor();
    /// Rounded up.
    61 Ceil "ceil"(x) float FLOATING, Numerics::Exact, aten &["ceil", "ceil_", "ceil.out"], onnx "Ceil" => |([x], _)| x.ceil();
    /// Rounded toward zero.
    62 Trunc "trunc"(x) float FLOATING, Numerics::Exact, aten &["trunc", "trunc_", "trunc.out"] => |([x], _)| x.trunc();
    /// Rounded to nearest, ties to even.
    63 Round "round"(x) float FLOATING, Numerics::Exact, aten &["round", "round_", "round.out"], onnx "Round" => |([x], _)| x.round_even();
}
