//! Names of operations and of enumerated attributes in text, shared by the parser and the printer.

use crate::tile::{Binary, Cast, CmpF, CmpI, DotPrecision, Order, Padding, Rmw, Unary};

/// Elementwise operations of one operand. Where two names mean one operation, the first is printed.
pub(crate) const UNARY: &[(&str, Unary)] = &[
    ("arith.negf", Unary::NegF),
    ("math.absf", Unary::AbsF),
    ("math.absi", Unary::AbsI),
    ("math.exp", Unary::Exp),
    ("math.exp2", Unary::Exp2),
    ("math.expm1", Unary::Expm1),
    ("math.log", Unary::Log),
    ("math.log2", Unary::Log2),
    ("math.log10", Unary::Log10),
    ("math.log1p", Unary::Log1p),
    ("math.sin", Unary::Sin),
    ("math.cos", Unary::Cos),
    ("math.tan", Unary::Tan),
    ("math.asin", Unary::Asin),
    ("math.acos", Unary::Acos),
    ("math.atan", Unary::Atan),
    ("math.sinh", Unary::Sinh),
    ("math.cosh", Unary::Cosh),
    ("math.tanh", Unary::Tanh),
    ("math.asinh", Unary::Asinh),
    ("math.acosh", Unary::Acosh),
    ("math.atanh", Unary::Atanh),
    ("math.erf", Unary::Erf),
    ("math.sqrt", Unary::Sqrt),
    ("tt.precise_sqrt", Unary::Sqrt),
    ("math.rsqrt", Unary::Rsqrt),
    ("math.cbrt", Unary::Cbrt),
    ("math.floor", Unary::Floor),
    ("math.ceil", Unary::Ceil),
    ("math.trunc", Unary::Trunc),
    ("math.roundeven", Unary::RoundEven),
    ("math.round", Unary::Round),
    ("math.isnan", Unary::IsNan),
    ("math.isinf", Unary::IsInf),
    ("math.isfinite", Unary::IsFinite),
    ("math.ctlz", Unary::Ctlz),
    ("math.cttz", Unary::Cttz),
    ("math.ctpop", Unary::Ctpop),
];

/// Elementwise operations of two operands; the first name is printed.
pub(crate) const BINARY: &[(&str, Binary)] = &[
    ("arith.addf", Binary::AddF),
    ("arith.subf", Binary::SubF),
    ("arith.mulf", Binary::MulF),
    ("arith.divf", Binary::DivF),
    ("tt.precise_divf", Binary::DivF),
    ("arith.remf", Binary::RemF),
    ("arith.maximumf", Binary::MaximumF),
    ("arith.minimumf", Binary::MinimumF),
    ("arith.maxnumf", Binary::MaxNumF),
    ("arith.minnumf", Binary::MinNumF),
    ("math.powf", Binary::Pow),
    ("math.atan2", Binary::Atan2),
    ("math.copysign", Binary::CopySign),
    ("arith.addi", Binary::AddI),
    ("arith.subi", Binary::SubI),
    ("arith.muli", Binary::MulI),
    ("tt.mulhiui", Binary::MulHiU),
    ("arith.divsi", Binary::DivS),
    ("arith.divui", Binary::DivU),
    ("arith.remsi", Binary::RemS),
    ("arith.remui", Binary::RemU),
    ("arith.ceildivsi", Binary::CeilDivS),
    ("arith.floordivsi", Binary::FloorDivS),
    ("arith.maxsi", Binary::MaxS),
    ("arith.maxui", Binary::MaxU),
    ("arith.minsi", Binary::MinS),
    ("arith.minui", Binary::MinU),
    ("arith.andi", Binary::And),
    ("arith.ori", Binary::Or),
    ("arith.xori", Binary::Xor),
    ("arith.shli", Binary::Shl),
    ("arith.shrsi", Binary::ShrS),
    ("arith.shrui", Binary::ShrU),
];

/// Conversions written `NAME %x : T to U` (`arith`) or `NAME %x : T -> U` (`tt`). The two rounding modes of `tt.fp_to_fp` are told
/// apart by its attribute.
pub(crate) const CAST: &[(&str, Cast)] = &[
    ("arith.trunci", Cast::TruncI),
    ("arith.extsi", Cast::ExtS),
    ("arith.extui", Cast::ExtU),
    ("arith.truncf", Cast::TruncF),
    ("arith.extf", Cast::ExtF),
    ("tt.fp_to_fp", Cast::FpToFp),
    ("tt.fp_to_fp", Cast::FpToFpRtz),
    ("arith.sitofp", Cast::SiToFp),
    ("arith.uitofp", Cast::UiToFp),
    ("arith.fptosi", Cast::FpToSi),
    ("arith.fptoui", Cast::FpToUi),
    ("tt.bitcast", Cast::Bitcast),
    ("arith.bitcast", Cast::Bitcast),
    ("tt.ptr_to_int", Cast::PtrToInt),
    ("tt.int_to_ptr", Cast::IntToPtr),
];

/// Predicates of `arith.cmpi`.
pub(crate) const CMPI: &[(&str, CmpI)] = &[
    ("eq", CmpI::Eq),
    ("ne", CmpI::Ne),
    ("slt", CmpI::Slt),
    ("sle", CmpI::Sle),
    ("sgt", CmpI::Sgt),
    ("sge", CmpI::Sge),
    ("ult", CmpI::Ult),
    ("ule", CmpI::Ule),
    ("ugt", CmpI::Ugt),
    ("uge", CmpI::Uge),
];

/// Predicates of `arith.cmpf`.
pub(crate) const CMPF: &[(&str, CmpF)] = &[
    ("false", CmpF::False),
    ("oeq", CmpF::Oeq),
    ("ogt", CmpF::Ogt),
    ("oge", CmpF::Oge),
    ("olt", CmpF::Olt),
    ("ole", CmpF::Ole),
    ("one", CmpF::One),
    ("ord", CmpF::Ord),
    ("ueq", CmpF::Ueq),
    ("ugt", CmpF::Ugt),
    ("uge", CmpF::Uge),
    ("ult", CmpF::Ult),
    ("ule", CmpF::Ule),
    ("une", CmpF::Une),
    ("uno", CmpF::Uno),
    ("true", CmpF::True),
];

/// Operations of `tt.atomic_rmw` and `tt.descriptor_reduce`.
pub(crate) const RMW: &[(&str, Rmw)] = &[
    ("and", Rmw::And),
    ("or", Rmw::Or),
    ("xor", Rmw::Xor),
    ("add", Rmw::Add),
    ("fadd", Rmw::FAdd),
    ("max", Rmw::Max),
    ("min", Rmw::Min),
    ("umax", Rmw::UMax),
    ("umin", Rmw::UMin),
    ("exch", Rmw::Exch),
];

/// Memory orders.
pub(crate) const ORDER: &[(&str, Order)] =
    &[("relaxed", Order::Relaxed), ("acquire", Order::Acquire), ("release", Order::Release), ("acq_rel", Order::AcqRel)];

/// Paddings by their number in an attribute, as `tt.load` prints them; nothing is printed for `None`.
pub(crate) const PADDING: &[(i64, Padding)] = &[(1, Padding::Zero), (2, Padding::Nan)];

/// `inputPrecision` of `tt.dot`; the first name is printed.
pub(crate) const PRECISION: &[(&str, DotPrecision)] = &[
    ("ieee", DotPrecision::Ieee),
    ("tf32", DotPrecision::Tf32),
    ("tf32x3", DotPrecision::Tf32x3),
];

/// The entry of a name.
pub(crate) fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

/// The printed name of an entry; every variant is in its table.
pub(crate) fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, v)| v == value).map_or("?", |(n, _)| n)
}
