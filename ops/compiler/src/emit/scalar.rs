//! Elementwise instructions as expressions of C-like languages.

use super::literal;
use super::narrow::tag;
use super::source::{Printer, invalid};
use crate::Elem;
use crate::error::Result;
use crate::thread::{Ty, Val};
use crate::tile::{Binary, Cast, CmpF, CmpI, Unary};

/// Width in which arithmetic on an integer type is done: C promotes narrower ones anyway.
fn wide(elem: Elem) -> u32 {
    if elem == Elem::I64 { 64 } else { 32 }
}

fn is_narrow(elem: Elem) -> bool {
    matches!(elem, Elem::F16 | Elem::BF16 | Elem::F8E4M3 | Elem::F8E5M2)
}

/// An f32 expression as a value of type `elem`, rounded once if that is narrower; `elem` is no f64.
fn rounded(elem: Elem, text: String) -> String {
    if is_narrow(elem) { format!("fl_{}_from_f32({text})", tag(elem)) } else { text }
}

impl Printer<'_> {
    /// A value's element type.
    pub(super) fn elem(&self, v: Val) -> Result<Elem> {
        match self.kernel.ty(v) {
            Ty::Elem(elem) => Ok(elem),
            ty => Err(invalid(format!("value %{} is of type {ty:?} where a number is wanted", v.0))),
        }
    }

    /// A number as its type's name in the code: integers unsigned, narrow floats as their bits.
    pub(super) fn u(&self, v: Val) -> String {
        match (self.constants[v.0 as usize], self.kernel.ty(v)) {
            (Some(bits), Ty::Elem(elem @ (Elem::F32 | Elem::F64))) => literal::float(elem, bits, self.dialect.long()),
            (Some(bits), Ty::Elem(elem)) => literal::unsigned(elem, bits, self.dialect.long()),
            _ => format!("v{}", v.0),
        }
    }

    /// An integer read as signed, at least 32 bits wide.
    pub(super) fn s(&self, v: Val) -> Result<String> {
        let elem = self.elem(v)?;
        if let Some(bits) = self.constants[v.0 as usize] {
            return Ok(literal::signed(wide(elem), literal::value(elem, bits), self.dialect.long()));
        }
        Ok(if elem == Elem::I1 { format!("-(i32)v{}", v.0) } else { format!("(i{})v{}", elem.bits(), v.0) })
    }

    /// A float as f32 or f64: narrow ones widened.
    fn f(&self, v: Val) -> Result<String> {
        let elem = self.elem(v)?;
        Ok(if is_narrow(elem) { format!("fl_f32_from_{}({})", tag(elem), self.u(v)) } else { self.u(v) })
    }

    fn float_elem(&self, v: Val, what: &dyn core::fmt::Debug) -> Result<Elem> {
        let elem = self.elem(v)?;
        if elem.is_float() { Ok(elem) } else { Err(invalid(format!("{what:?} of {elem}; it takes floats"))) }
    }

    /// Width of a float that arithmetic is done on.
    fn arithmetic(&self, v: Val, what: &dyn core::fmt::Debug) -> Result<u32> {
        match self.elem(v)? {
            Elem::F32 => Ok(32),
            Elem::F64 => Ok(64),
            elem => Err(invalid(format!("{what:?} of {elem}; it takes f32 and f64"))),
        }
    }

    fn int_elem(&self, v: Val, what: &dyn core::fmt::Debug) -> Result<Elem> {
        let elem = self.elem(v)?;
        if elem.is_int() { Ok(elem) } else { Err(invalid(format!("{what:?} of {elem}; it takes integers"))) }
    }

    pub(super) fn unary(&self, op: Unary, v: Val) -> Result<String> {
        if matches!(op, Unary::AbsI | Unary::Ctlz | Unary::Cttz | Unary::Ctpop) {
            return self.unary_int(op, self.int_elem(v, &op)?, v);
        }
        let bits = self.arithmetic(v, &op)?;
        let (sign, infinity, long) = if bits == 64 { (1u64 << 63, 0x7ffu64 << 52, self.dialect.long()) } else { (1 << 31, 0xff << 23, "") };
        let x = self.u(v);
        let magnitude = || format!("(fl_as_u{bits}({x}) & {:#x}{})", sign - 1, if bits == 64 { long } else { "u" });
        let limit = format!("{infinity:#x}{}", if bits == 64 { long } else { "u" });
        match op {
            Unary::NegF => return Ok(format!("-{x}")),
            Unary::IsNan => return Ok(format!("{x} != {x}")),
            Unary::IsInf => return Ok(format!("{} == {limit}", magnitude())),
            Unary::IsFinite => return Ok(format!("{} < {limit}", magnitude())),
            _ => {}
        }
        let base = match op {
            Unary::AbsF => "fabs",
            Unary::Exp => "exp",
            Unary::Exp2 => "exp2",
            Unary::Expm1 => "expm1",
            Unary::Log => "log",
            Unary::Log2 => "log2",
            Unary::Log10 => "log10",
            Unary::Log1p => "log1p",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Tan => "tan",
            Unary::Asin => "asin",
            Unary::Acos => "acos",
            Unary::Atan => "atan",
            Unary::Sinh => "sinh",
            Unary::Cosh => "cosh",
            Unary::Tanh => "tanh",
            Unary::Asinh => "asinh",
            Unary::Acosh => "acosh",
            Unary::Atanh => "atanh",
            Unary::Erf => "erf",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Cbrt => "cbrt",
            Unary::Floor => "floor",
            Unary::Ceil => "ceil",
            Unary::Trunc => "trunc",
            Unary::RoundEven => "rint",
            _ => "round",
        };
        Ok(format!("{}({x})", self.dialect.math(base, bits)))
    }

    fn unary_int(&self, op: Unary, elem: Elem, v: Val) -> Result<String> {
        let (x, w, bits) = (self.u(v), wide(elem), elem.bits());
        Ok(match op {
            Unary::AbsI if elem == Elem::I1 => x,
            Unary::AbsI => format!("{} < 0 ? 0u - {x} : {x}", self.s(v)?),
            // Zero has as many zero bits as the type is wide.
            Unary::Ctlz => format!("{x} == 0u ? {bits}u : fl_clz_u{w}({x}) - {}u", w - bits),
            Unary::Cttz => format!("{x} == 0u ? {bits}u : fl_ctz_u{w}({x})"),
            _ => format!("fl_popcount_u{w}({x})"),
        })
    }

    pub(super) fn binary(&self, op: Binary, a: Val, b: Val) -> Result<String> {
        use Binary as B;
        let elem = self.elem(a)?;
        if self.elem(b)? != elem {
            return Err(invalid(format!("{op:?} of {elem} and {}; both operands have one type", self.elem(b)?)));
        }
        match op {
            B::And | B::Or | B::Xor if elem.is_int() => {
                let sign = if op == B::And { '&' } else if op == B::Or { '|' } else { '^' };
                return Ok(format!("{} {sign} {}", self.u(a), self.u(b)));
            }
            B::AddF | B::SubF | B::MulF | B::DivF | B::RemF | B::MaximumF | B::MinimumF | B::MaxNumF | B::MinNumF | B::Pow | B::Atan2 | B::CopySign => {
                return self.binary_float(op, a, b);
            }
            _ if elem == Elem::I1 => return self.binary_truth(op, a, b),
            _ => {}
        }
        let elem = self.int_elem(a, &op)?;
        let (x, y, w, bits) = (self.u(a), self.u(b), wide(elem), elem.bits());
        // Narrow types are promoted to a signed type otherwise.
        let up = if bits < 32 { "(u32)" } else { "" };
        let amount = || match self.constants[b.0 as usize] {
            Some(n) => format!("{}", n & u64::from(bits - 1)),
            None => format!("({y} & {}u)", bits - 1),
        };
        let signed = || -> Result<(String, String)> { Ok((format!("(u{w})({})", self.s(a)?), format!("(u{w})({})", self.s(b)?))) };
        Ok(match op {
            B::AddI => format!("{up}{x} + {y}"),
            B::SubI => format!("{up}{x} - {y}"),
            B::MulI => format!("{up}{x} * {y}"),
            B::MulHiU if bits < 32 => format!("(u32){x} * {y} >> {bits}"),
            B::MulHiU => format!("fl_mulhi_u{bits}({x}, {y})"),
            B::DivU | B::RemU if self.constants[b.0 as usize].is_some_and(|n| n != 0) => format!("{up}{x} {} {y}", if op == B::DivU { '/' } else { '%' }),
            B::DivU => format!("fl_divu_u{w}({x}, {y})"),
            B::RemU => format!("fl_remu_u{w}({x}, {y})"),
            B::DivS | B::RemS if self.constants[b.0 as usize].is_some_and(|n| !matches!(literal::value(elem, n), 0 | -1)) => {
                format!("(u{w})({} {} {})", self.s(a)?, if op == B::DivS { '/' } else { '%' }, self.s(b)?)
            }
            B::DivS | B::RemS | B::CeilDivS | B::FloorDivS => {
                let base = match op {
                    B::DivS => "divs",
                    B::RemS => "rems",
                    B::CeilDivS => "ceildivs",
                    _ => "floordivs",
                };
                let (x, y) = signed()?;
                format!("fl_{base}_u{w}({x}, {y})")
            }
            B::MaxS => format!("{} > {} ? {x} : {y}", self.s(a)?, self.s(b)?),
            B::MinS => format!("{} < {} ? {x} : {y}", self.s(a)?, self.s(b)?),
            B::MaxU => format!("{x} > {y} ? {x} : {y}"),
            B::MinU => format!("{x} < {y} ? {x} : {y}"),
            B::Shl => format!("{up}{x} << {}", amount()),
            B::ShrU => format!("{up}{x} >> {}", amount()),
            // What is left is ShrS: the others are done above.
            _ => format!("(u{w})({} >> {})", self.s(a)?, amount()),
        })
    }

    /// Arithmetic modulo 2; as a signed number true is -1.
    fn binary_truth(&self, op: Binary, a: Val, b: Val) -> Result<String> {
        use Binary as B;
        let (x, y) = (self.u(a), self.u(b));
        Ok(match op {
            B::AddI | B::SubI => format!("{x} ^ {y}"),
            B::MulI | B::MinU | B::MaxS => format!("{x} & {y}"),
            B::MaxU | B::MinS => format!("{x} | {y}"),
            B::MulHiU | B::RemS | B::RemU => "0".to_owned(),
            // Divisors are true and shifts by 0, or the result is undefined.
            _ => x,
        })
    }

    fn binary_float(&self, op: Binary, a: Val, b: Val) -> Result<String> {
        let bits = self.arithmetic(a, &op)?;
        let (x, y) = (self.u(a), self.u(b));
        let call = |name: String| format!("{name}({x}, {y})");
        Ok(match op {
            Binary::AddF => format!("{x} + {y}"),
            Binary::SubF => format!("{x} - {y}"),
            Binary::MulF => format!("{x} * {y}"),
            Binary::DivF => format!("{x} / {y}"),
            Binary::RemF => call(self.dialect.math("fmod", bits)),
            Binary::MaximumF => call(format!("fl_maximum_f{bits}")),
            Binary::MinimumF => call(format!("fl_minimum_f{bits}")),
            Binary::MaxNumF => call(format!("fl_maxnum_f{bits}")),
            Binary::MinNumF => call(format!("fl_minnum_f{bits}")),
            Binary::Pow => call(self.dialect.math("pow", bits)),
            Binary::Atan2 => call(self.dialect.math("atan2", bits)),
            _ => call(self.dialect.math("copysign", bits)),
        })
    }

    pub(super) fn fma(&self, a: Val, b: Val, c: Val) -> Result<String> {
        let bits = self.arithmetic(a, &"fma")?;
        Ok(format!("{}({}, {}, {})", self.dialect.math("fma", bits), self.u(a), self.u(b), self.u(c)))
    }

    pub(super) fn compare_int(&self, op: CmpI, a: Val, b: Val) -> Result<String> {
        let pointers = matches!((self.kernel.ty(a), self.kernel.ty(b)), (Ty::Ptr(_), Ty::Ptr(_)));
        if !pointers {
            self.int_elem(a, &op)?;
        }
        let sign = match op {
            CmpI::Eq => "==",
            CmpI::Ne => "!=",
            CmpI::Slt | CmpI::Ult => "<",
            CmpI::Sle | CmpI::Ule => "<=",
            CmpI::Sgt | CmpI::Ugt => ">",
            CmpI::Sge | CmpI::Uge => ">=",
        };
        let signed = matches!(op, CmpI::Slt | CmpI::Sle | CmpI::Sgt | CmpI::Sge) && !pointers;
        Ok(if signed { format!("{} {sign} {}", self.s(a)?, self.s(b)?) } else { format!("{} {sign} {}", self.u(a), self.u(b)) })
    }

    pub(super) fn compare_float(&self, op: CmpF, a: Val, b: Val) -> Result<String> {
        self.arithmetic(a, &op)?;
        let (x, y) = (self.u(a), self.u(b));
        Ok(match op {
            CmpF::False => "0".to_owned(),
            CmpF::True => "1".to_owned(),
            CmpF::Oeq => format!("{x} == {y}"),
            CmpF::Ogt => format!("{x} > {y}"),
            CmpF::Oge => format!("{x} >= {y}"),
            CmpF::Olt => format!("{x} < {y}"),
            CmpF::Ole => format!("{x} <= {y}"),
            CmpF::Une => format!("{x} != {y}"),
            CmpF::One => format!("({x} < {y}) | ({x} > {y})"),
            CmpF::Ueq => format!("!(({x} < {y}) | ({x} > {y}))"),
            CmpF::Ord => format!("({x} == {x}) & ({y} == {y})"),
            CmpF::Uno => format!("({x} != {x}) | ({y} != {y})"),
            CmpF::Ugt => format!("!({x} <= {y})"),
            CmpF::Uge => format!("!({x} < {y})"),
            CmpF::Ult => format!("!({x} >= {y})"),
            CmpF::Ule => format!("!({x} > {y})"),
        })
    }

    pub(super) fn cast(&self, op: Cast, v: Val, to: Ty) -> Result<String> {
        match (op, self.kernel.ty(v), to) {
            (Cast::PtrToInt, Ty::Ptr(_), Ty::Elem(_)) => Ok(format!("(u64){}", self.u(v))),
            (Cast::IntToPtr, Ty::Elem(_), Ty::Ptr(_)) => Ok(format!("({})(u64){}", self.dialect.pointer(), self.u(v))),
            (Cast::Bitcast, Ty::Ptr(_), Ty::Ptr(_)) => Ok(self.u(v)),
            (_, Ty::Elem(from), Ty::Elem(to)) => self.cast_number(op, v, from, to),
            (_, from, to) => Err(invalid(format!("{op:?} from {from:?} to {to:?}"))),
        }
    }

    fn cast_number(&self, op: Cast, v: Val, from: Elem, to: Elem) -> Result<String> {
        let x = self.u(v);
        Ok(match op {
            Cast::TruncI if to == Elem::I1 => format!("{x} & 1u"),
            Cast::TruncI | Cast::ExtU => format!("(u{}){x}", to.bits().max(8)),
            Cast::ExtS if from == to => x,
            Cast::ExtS => format!("(u{}){}", to.bits().max(8), if to == Elem::I64 { format!("(i64)({})", self.s(v)?) } else { format!("({})", self.s(v)?) }),
            Cast::Bitcast if from == to => x,
            Cast::Bitcast if from.bytes() != to.bytes() => return Err(invalid(format!("bitcast from {from} to {to}; their sizes differ"))),
            Cast::Bitcast => match (from, to) {
                (Elem::F32, _) => format!("fl_as_u32({x})"),
                (Elem::F64, _) => format!("fl_as_u64({x})"),
                (_, Elem::F32) => format!("fl_as_f32({x})"),
                (_, Elem::F64) => format!("fl_as_f64({x})"),
                (_, Elem::I1) => format!("{x} & 1u"),
                _ => x,
            },
            Cast::TruncF | Cast::ExtF | Cast::FpToFp | Cast::FpToFpRtz => {
                self.float_elem(v, &op)?;
                let rtz = op == Cast::FpToFpRtz;
                match (from, to) {
                    _ if from == to => x,
                    (Elem::F64, Elem::F32) if rtz => format!("fl_rtz_f64({x})"),
                    (Elem::F64, Elem::F32) => format!("(f32){x}"),
                    (Elem::F64, _) if rtz => format!("fl_{}_rtz_from_f32(fl_rtz_f64({x}))", tag(to)),
                    (Elem::F64, _) => format!("fl_{}_from_f32(fl_odd_f64({x}))", tag(to)),
                    (_, Elem::F64) => format!("(f64){}", self.f(v)?),
                    (_, Elem::F32) => self.f(v)?,
                    _ => format!("fl_{}{}_from_f32({})", tag(to), if rtz { "_rtz" } else { "" }, self.f(v)?),
                }
            }
            Cast::SiToFp | Cast::UiToFp => {
                self.int_elem(v, &op)?;
                let signed = op == Cast::SiToFp;
                let number = if signed { self.s(v)? } else { x.clone() };
                match to {
                    Elem::F32 | Elem::F64 => format!("({})({number})", tag(to)),
                    // At most 24 bits: exact in f32.
                    _ if from.bits() <= 16 => rounded(to, format!("(f32)({number})")),
                    _ if !signed => rounded(to, format!("fl_odd_u64({x})")),
                    _ => {
                        let minus = format!("fl_odd_u64((u64)0 - (u64)(i64){number})");
                        rounded(to, format!("({number} < 0 ? -{minus} : fl_odd_u64({x}))"))
                    }
                }
            }
            Cast::FpToSi | Cast::FpToUi => {
                let elem = self.float_elem(v, &op)?;
                let sign = if op == Cast::FpToSi { 'i' } else { 'u' };
                let (w, source) = (wide(to), if elem == Elem::F64 { "f64" } else { "f32" });
                let whole = format!("fl_sat_{sign}{w}_{source}({})", self.f(v)?);
                if to == Elem::I1 { format!("{whole} & 1u") } else { whole }
            }
            Cast::PtrToInt | Cast::IntToPtr => return Err(invalid(format!("{op:?} from {from} to {to}; one of them is a pointer"))),
        })
    }
}
