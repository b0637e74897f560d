//! Functions of the vendors' device libraries by their symbols, as `tt.extern_elementwise` names them.

use crate::Elem;
use crate::tile::{Binary, OpKind, Unary};

const UNARY: &[(&str, Unary)] = &[
    ("exp", Unary::Exp),
    ("exp2", Unary::Exp2),
    ("expm1", Unary::Expm1),
    ("log", Unary::Log),
    ("log2", Unary::Log2),
    ("log10", Unary::Log10),
    ("log1p", Unary::Log1p),
    ("sin", Unary::Sin),
    ("cos", Unary::Cos),
    ("tan", Unary::Tan),
    ("asin", Unary::Asin),
    ("acos", Unary::Acos),
    ("atan", Unary::Atan),
    ("sinh", Unary::Sinh),
    ("cosh", Unary::Cosh),
    ("tanh", Unary::Tanh),
    ("asinh", Unary::Asinh),
    ("acosh", Unary::Acosh),
    ("atanh", Unary::Atanh),
    ("erf", Unary::Erf),
    ("sqrt", Unary::Sqrt),
    ("rsqrt", Unary::Rsqrt),
    ("cbrt", Unary::Cbrt),
    ("floor", Unary::Floor),
    ("ceil", Unary::Ceil),
    ("trunc", Unary::Trunc),
    ("rint", Unary::RoundEven),
    ("nearbyint", Unary::RoundEven),
    ("round", Unary::Round),
    ("fabs", Unary::AbsF),
];

const BINARY: &[(&str, Binary)] = &[
    ("pow", Binary::Pow),
    ("atan2", Binary::Atan2),
    ("copysign", Binary::CopySign),
    ("fmod", Binary::RemF),
    ("fmax", Binary::MaxNumF),
    ("fmin", Binary::MinNumF),
];

/// The operation that a symbol of CUDA's or ROCm's device library names ("__nv_expf", "__ocml_exp_f64"), for floats of the symbol's
/// width; `None` for others.
pub fn operation(symbol: &str) -> Option<OpKind> {
    let (name, _) = split(symbol)?;
    if name == "fma" {
        return Some(OpKind::Fma);
    }
    let unary = UNARY.iter().find(|(n, _)| *n == name).map(|(_, u)| OpKind::Unary(*u));
    unary.or_else(|| BINARY.iter().find(|(n, _)| *n == name).map(|(_, b)| OpKind::Binary(*b)))
}

/// Width in bits of the floats a symbol works on.
pub fn bits(symbol: &str) -> Option<u32> {
    split(symbol).map(|(_, bits)| bits)
}

/// Whether a function takes `operands` of a type and gives one of the type `elem`.
pub fn fits(symbol: &str, operands: usize, elem: Elem) -> bool {
    let takes = match operation(symbol) {
        Some(OpKind::Fma) => 3,
        Some(OpKind::Binary(_)) => 2,
        Some(_) => 1,
        None => return false,
    };
    operands == takes && elem.is_float() && bits(symbol) == Some(elem.bits())
}

/// The function's name and the width of its floats. CUDA marks single precision by a trailing 'f', which some names end in anyway.
fn split(symbol: &str) -> Option<(&str, u32)> {
    if let Some(rest) = symbol.strip_prefix("__ocml_") {
        return rest.strip_suffix("_f32").map(|n| (n, 32)).or_else(|| rest.strip_suffix("_f64").map(|n| (n, 64)));
    }
    let rest = symbol.strip_prefix("__nv_")?;
    let known = |n: &str| n == "fma" || UNARY.iter().any(|(u, _)| *u == n) || BINARY.iter().any(|(b, _)| *b == n);
    if known(rest) {
        return Some((rest, 64));
    }
    rest.strip_suffix('f').filter(|n| known(n)).map(|n| (n, 32))
}
