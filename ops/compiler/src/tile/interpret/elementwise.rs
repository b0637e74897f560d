//! Elementwise operations; operands of one element repeat, so that regions over scalars run for many elements at once.

use crate::Elem;
use crate::thread::interpret::scalar;
use crate::tile::{Binary, Block, Function, Item, Literal, Op, OpKind, Type, Value, libdevice};

use super::{Datum, Found, Wrong};

/// Element type of a value; pointers count as i64.
fn elem(f: &Function, value: Value) -> Elem {
    match f.ty(value).item() {
        Some(Item::Elem(e)) => e,
        _ => Elem::I64,
    }
}

/// Computes an elementwise operation; `None` for others.
pub(super) fn evaluate(f: &Function, op: &Op, operands: &[Datum]) -> Found<Option<Datum>> {
    let kind = match &op.kind {
        OpKind::Extern(symbol) => match libdevice::operation(symbol) {
            Some(kind) if libdevice::bits(symbol) == f.ty(op.results[0]).elem().map(Elem::bits) => kind,
            _ => return Ok(None),
        },
        kind => kind.clone(),
    };
    let takes = match kind {
        OpKind::Unary(_) | OpKind::Cast(_) => 1,
        OpKind::Binary(_) | OpKind::CmpI(_) | OpKind::CmpF(_) | OpKind::AddPtr => 2,
        OpKind::Fma | OpKind::Select | OpKind::Clamp { .. } => 3,
        _ => return Ok(None),
    };
    if operands.len() != takes {
        return Err(Wrong(format!("{} operands instead of {takes}", operands.len())));
    }
    let e = elem(f, op.operands[0]);
    let out = elem(f, op.results[0]);
    Ok(Some(match kind {
        OpKind::Unary(unary) => map1(operands, |a| scalar::unary(unary, e, a))?,
        OpKind::Cast(cast) => map1(operands, |a| scalar::cast(cast, e, out, a))?,
        OpKind::Binary(binary) => map2(operands, |a, b| scalar::binary(binary, e, a, b))?,
        OpKind::CmpI(compare) => map2(operands, |a, b| u64::from(scalar::compare_int(compare, e, a, b)))?,
        OpKind::CmpF(compare) => map2(operands, |a, b| u64::from(scalar::compare_float(compare, e, a, b)))?,
        OpKind::AddPtr => {
            let (bytes, offset) = (pointee_bytes(f.ty(op.operands[0])), elem(f, op.operands[1]));
            map2(operands, |a, b| a.wrapping_add((scalar::signed(offset, b) as u64).wrapping_mul(bytes)))?
        }
        OpKind::Fma => map3(operands, |a, b, c| scalar::fma(e, a, b, c))?,
        OpKind::Select => map3(operands, |c, a, b| if c != 0 { a } else { b })?,
        OpKind::Clamp { propagate_nan } => {
            let (max, min) = if propagate_nan { (Binary::MaximumF, Binary::MinimumF) } else { (Binary::MaxNumF, Binary::MinNumF) };
            map3(operands, |x, low, high| scalar::binary(min, e, scalar::binary(max, e, x, low), high))?
        }
        _ => return Ok(None),
    }))
}

/// Bytes between neighbours of a pointer.
pub(super) fn pointee_bytes(ty: &Type) -> u64 {
    match ty.item() {
        Some(Item::Ptr(e)) => u64::from(e.bytes()),
        _ => 1,
    }
}

/// Whether a region is of elementwise operations and constants only, so that it can run for many elements at once.
pub(super) fn is_flat(block: &Block) -> bool {
    block.ops.iter().all(|op| {
        matches!(
            op.kind,
            OpKind::Unary(_)
                | OpKind::Cast(_)
                | OpKind::Binary(_)
                | OpKind::CmpI(_)
                | OpKind::CmpF(_)
                | OpKind::Fma
                | OpKind::Select
                | OpKind::Clamp { .. }
                | OpKind::Constant(Literal::Int(_) | Literal::Bits(_))
                | OpKind::Yield
        )
    })
}

fn count(operands: &[Datum]) -> Found<usize> {
    operands.iter().try_fold(1, |n, d| Ok(n.max(d.bits()?.len())))
}

fn at(bits: &[u64], i: usize) -> u64 {
    if bits.len() == 1 { bits[0] } else { bits[i] }
}

fn map1(operands: &[Datum], f: impl Fn(u64) -> u64) -> Found<Datum> {
    Ok(Datum::many(operands[0].bits()?.iter().map(|a| f(*a)).collect()))
}

fn map2(operands: &[Datum], f: impl Fn(u64, u64) -> u64) -> Found<Datum> {
    let (a, b) = (operands[0].bits()?, operands[1].bits()?);
    Ok(Datum::many((0..count(operands)?).map(|i| f(at(a, i), at(b, i))).collect()))
}

fn map3(operands: &[Datum], f: impl Fn(u64, u64, u64) -> u64) -> Found<Datum> {
    let (a, b, c) = (operands[0].bits()?, operands[1].bits()?, operands[2].bits()?);
    Ok(Datum::many((0..count(operands)?).map(|i| f(at(a, i), at(b, i), at(c, i))).collect()))
}
