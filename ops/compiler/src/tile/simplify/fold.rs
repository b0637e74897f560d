//! Operations on constants, and identities.

use crate::Elem;
use crate::thread::interpret::scalar;
use crate::tile::{Binary, Cast, CmpI, Function, Literal, Op, OpKind, Unary, Value, number};

use super::{Now, Pass};

impl Pass {
    /// Folds an operation: it becomes a constant, or one of its operands, or stays.
    pub(super) fn fold(&self, function: &Function, op: &mut Op) -> Now {
        let [result] = op.results.as_slice() else { return Now::Kept };
        let Some(out) = function.ty(*result).elem() else { return Now::Kept };
        if let Some(value) = self.identity(function, op) {
            return Now::Is(value);
        }
        if let Some(bits) = self.value(function, op, out) {
            let literal = if out.is_float() {
                if number::to_f64(out, bits).is_nan() && !moves_bits(&op.kind) {
                    return Now::Kept;
                }
                Literal::Bits(bits)
            } else if out == Elem::I1 {
                Literal::Int((bits & 1) as i64)
            } else {
                Literal::Int(scalar::signed(out, bits))
            };
            op.kind = OpKind::Constant(literal);
            op.operands.clear();
        }
        Now::Kept
    }

    fn bits(&self, value: Value) -> Option<u64> {
        self.constant.get(&value).copied()
    }

    /// The bits of every element of the result, if the operands are constants and the result is defined.
    fn value(&self, function: &Function, op: &Op, out: Elem) -> Option<u64> {
        let first = *op.operands.first()?;
        let elem = function.ty(first).elem()?;
        let a = self.bits(first);
        let b = || self.bits(*op.operands.get(1)?);
        let c = || self.bits(*op.operands.get(2)?);
        match &op.kind {
            OpKind::Splat | OpKind::Unsplat | OpKind::Broadcast | OpKind::ExpandDims(_) | OpKind::Reshape { .. } | OpKind::Trans(_) => a,
            OpKind::Unary(unary) => is_exact(*unary).then_some(scalar::unary(*unary, elem, a?)),
            OpKind::Binary(binary) => {
                let (a, b) = (a?, b()?);
                is_defined(*binary, elem, a, b).then(|| scalar::binary(*binary, elem, a, b))
            }
            OpKind::Fma => Some(scalar::fma(elem, a?, b()?, c()?)),
            OpKind::CmpI(compare) => Some(u64::from(scalar::compare_int(*compare, elem, a?, b()?))),
            OpKind::CmpF(compare) => Some(u64::from(scalar::compare_float(*compare, elem, a?, b()?))),
            OpKind::Select => if a? != 0 { b() } else { c() },
            OpKind::Cast(Cast::PtrToInt | Cast::IntToPtr) => None,
            OpKind::Cast(cast) => {
                let bits = scalar::cast(*cast, elem, out, a?);
                let undefined = matches!(cast, Cast::FpToSi | Cast::FpToUi) && bits == scalar::poison(out);
                (!undefined).then_some(bits)
            }
            _ => None,
        }
    }

    /// The operand or earlier value that an operation's result always equals.
    fn identity(&self, function: &Function, op: &Op) -> Option<Value> {
        let a = *op.operands.first()?;
        let result = *op.results.first()?;
        let same_type = |v: Value| (function.ty(v) == function.ty(result)).then_some(v);
        match &op.kind {
            OpKind::Binary(binary) => {
                let b = *op.operands.get(1)?;
                let elem = function.ty(a).elem()?;
                let one = if elem.is_float() { number::round_to(elem, 1.0) } else { 1 };
                let negative_zero = if elem.is_float() { number::round_to(elem, -0.0) } else { 0 };
                let (is_a, is_b) = (|n: u64| self.bits(a) == Some(n), |n: u64| self.bits(b) == Some(n));
                match binary {
                    Binary::AddI | Binary::Or | Binary::Xor if is_b(0) => Some(a),
                    Binary::AddI | Binary::Or | Binary::Xor if is_a(0) => Some(b),
                    Binary::SubI | Binary::Shl | Binary::ShrS | Binary::ShrU if is_b(0) => Some(a),
                    Binary::MulI | Binary::DivS | Binary::DivU if is_b(1) => Some(a),
                    Binary::MulI if is_a(1) => Some(b),
                    Binary::MulI | Binary::And if is_b(0) => Some(b),
                    Binary::MulI | Binary::And if is_a(0) => Some(a),
                    Binary::And if is_b(scalar::mask(elem)) => Some(a),
                    Binary::And if is_a(scalar::mask(elem)) => Some(b),
                    Binary::And | Binary::Or | Binary::MaxS | Binary::MaxU | Binary::MinS | Binary::MinU if a == b => Some(a),
                    // x + (-0) and x - 0 are x even for x = ±0; x + 0 is not.
                    Binary::AddF if is_b(negative_zero) => Some(a),
                    Binary::AddF if is_a(negative_zero) => Some(b),
                    Binary::SubF if is_b(0) => Some(a),
                    Binary::MulF | Binary::DivF if is_b(one) => Some(a),
                    Binary::MulF if is_a(one) => Some(b),
                    _ => None,
                }
            }
            OpKind::Select => {
                let (b, c) = (*op.operands.get(1)?, *op.operands.get(2)?);
                match self.bits(a) {
                    Some(0) => Some(c),
                    Some(_) => Some(b),
                    None => (b == c).then_some(b),
                }
            }
            OpKind::Broadcast | OpKind::Reshape { .. } | OpKind::Splat => same_type(a),
            OpKind::Trans(order) => order.iter().enumerate().all(|(i, axis)| i == *axis as usize).then_some(a),
            OpKind::Cast(Cast::Bitcast) if function.ty(a) == function.ty(result) => Some(a),
            OpKind::Cast(cast) => {
                // There and back: narrowing what was widened.
                let (before, origin) = self.made.get(&a)?;
                let back = matches!((before, cast), (OpKind::Cast(Cast::ExtS | Cast::ExtU), Cast::TruncI) | (OpKind::Cast(Cast::Bitcast), Cast::Bitcast));
                if back { same_type(*origin) } else { None }
            }
            OpKind::AddPtr => {
                let offset = *op.operands.get(1)?;
                (self.bits(offset) == Some(0)).then_some(a)
            }
            OpKind::CmpI(CmpI::Eq) if function.ty(a).elem() == Some(Elem::I1) && self.bits(*op.operands.get(1)?) == Some(1) => same_type(a),
            _ => None,
        }
    }
}

/// Whether the result's bits are the operand's, NaNs included.
fn moves_bits(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Splat
            | OpKind::Unsplat
            | OpKind::Broadcast
            | OpKind::ExpandDims(_)
            | OpKind::Reshape { .. }
            | OpKind::Trans(_)
            | OpKind::Select
            | OpKind::Cast(Cast::Bitcast)
            | OpKind::Unary(Unary::NegF | Unary::AbsF)
    )
}

/// Functions whose result is the same on every chip.
fn is_exact(unary: Unary) -> bool {
    use Unary as U;
    matches!(
        unary,
        U::NegF | U::AbsF | U::AbsI | U::Sqrt | U::Floor | U::Ceil | U::Trunc | U::RoundEven | U::Round | U::IsNan | U::IsInf | U::IsFinite | U::Ctlz | U::Cttz | U::Ctpop
    )
}

/// Whether an operation has one result for its operands, the same on every chip.
fn is_defined(binary: Binary, elem: Elem, a: u64, b: u64) -> bool {
    use Binary as B;
    match binary {
        B::Pow | B::Atan2 => false,
        B::DivS | B::RemS | B::CeilDivS | B::FloorDivS => b != 0 && !(b == scalar::mask(elem) && a == 1 << (elem.bits() - 1)),
        B::DivU | B::RemU => b != 0,
        B::Shl | B::ShrS | B::ShrU => b < u64::from(elem.bits()),
        _ => true,
    }
}
