//! Types that each operation takes and gives.

use crate::Elem;
use crate::tile::print::TypeText;
use crate::tile::{Binary, Cast, Item, Literal, OpKind, Rmw, Type, Unary, libdevice};

use super::Found;

/// Whether an operation has regions.
pub(super) fn has_regions(kind: &OpKind) -> bool {
    matches!(kind, OpKind::For { .. } | OpKind::If | OpKind::While | OpKind::Reduce(_) | OpKind::Scan { .. } | OpKind::MapElementwise(_))
}

fn need(holds: bool, message: impl FnOnce() -> String) -> Found<()> {
    if holds { Ok(()) } else { Err(message()) }
}

fn counts(operands: &[&Type], results: &[&Type], takes: usize, gives: usize) -> Found<()> {
    need(operands.len() == takes && results.len() == gives, || {
        format!("{} operands and {} results; it has {takes} and {gives}", operands.len(), results.len())
    })
}

fn same(a: &Type, b: &Type, what: &str) -> Found<()> {
    need(a == b, || format!("{what}: {} and {} must be equal", TypeText(a), TypeText(b)))
}

fn is(ty: &Type, wanted: &Type, what: &str) -> Found<()> {
    need(ty == wanted, || format!("{what} is {}, it must be {}", TypeText(ty), TypeText(wanted)))
}

fn tile<'a>(ty: &'a Type, what: &str) -> Found<(&'a [u32], Item)> {
    match ty {
        Type::Tile(shape, item) => Ok((shape, *item)),
        other => Err(format!("{what} is {}, it must be a tile", TypeText(other))),
    }
}

fn elem(ty: &Type, what: &str) -> Found<Elem> {
    ty.elem().ok_or_else(|| format!("{what} is {}, it must be a number or a tile of numbers", TypeText(ty)))
}

fn int(ty: &Type, what: &str) -> Found<Elem> {
    elem(ty, what)?.is_int().then_some(ty.elem()).flatten().ok_or_else(|| format!("{what} is {}, it must be of integers", TypeText(ty)))
}

fn float(ty: &Type, what: &str) -> Found<Elem> {
    elem(ty, what)?.is_float().then_some(ty.elem()).flatten().ok_or_else(|| format!("{what} is {}, it must be of floats", TypeText(ty)))
}

fn scalar_int(ty: &Type, what: &str) -> Found<()> {
    need(matches!(ty, Type::Scalar(Item::Elem(Elem::I32 | Elem::I64))), || format!("{what} is {}, it must be i32 or i64", TypeText(ty)))
}

/// A type of the same shape with numbers of another type.
fn shaped(ty: &Type, elem: Elem) -> Type {
    match ty {
        Type::Scalar(_) => Type::scalar(elem),
        other => Type::tile(other.shape(), elem),
    }
}

/// The operand of `if`.
pub(super) fn condition(operands: &[&Type]) -> Found<()> {
    need(operands.len() == 1, || format!("{} operands instead of a condition", operands.len()))?;
    is(operands[0], &Type::scalar(Elem::I1), "the condition")
}

/// The arguments of a loop's region, and what it carries.
pub(super) fn for_loop<'a>(operands: &[&'a Type], results: &[&Type]) -> Found<(Vec<Type>, Vec<&'a Type>)> {
    need(operands.len() == results.len() + 3, || format!("{} operands for {} results; bounds and step are three more", operands.len(), results.len()))?;
    let index = operands[0];
    need(matches!(index, Type::Scalar(Item::Elem(e)) if e.is_int() && *e != Elem::I1), || format!("the bounds are {}", TypeText(index)))?;
    same(operands[1], index, "bounds")?;
    same(operands[2], index, "bound and step")?;
    let carried = operands[3..].to_vec();
    for (i, (a, b)) in carried.iter().zip(results).enumerate() {
        same(a, b, &format!("initial value {i} and its result"))?;
    }
    let args = core::iter::once(index).chain(carried.iter().copied()).cloned().collect();
    Ok((args, carried))
}

/// The arguments and yielded types of the region of a reduction, scan or map.
pub(super) fn combining(kind: &OpKind, operands: &[&Type], results: &[&Type]) -> Found<(Vec<Type>, Vec<Type>)> {
    let first = operands.first().ok_or("it has no operands")?;
    let (shape, _) = tile(first, "operand 0")?;
    let mut items = Vec::new();
    for (i, ty) in operands.iter().enumerate() {
        let (other, item) = tile(ty, &format!("operand {i}"))?;
        need(other == shape, || format!("operand {i} has other extents than operand 0"))?;
        items.push(Type::Scalar(item));
    }
    if let OpKind::MapElementwise(pack) = kind {
        need(*pack > 0 && first.elems() % u64::from(*pack) == 0, || format!("pack = {pack} does not divide the tile"))?;
        need(*pack <= 64, || format!("pack = {pack} is more than 64"))?;
        let repeated = |types: &[Type]| types.iter().flat_map(|t| core::iter::repeat_n(t.clone(), *pack as usize)).collect::<Vec<_>>();
        let mut yields = Vec::new();
        for (i, ty) in results.iter().enumerate() {
            let (other, item) = tile(ty, &format!("result {i}"))?;
            need(other == shape, || format!("result {i} has other extents than the operands"))?;
            yields.push(Type::Scalar(item));
        }
        return Ok((repeated(&items), repeated(&yields)));
    }
    need(operands.len() == results.len(), || format!("{} operands but {} results", operands.len(), results.len()))?;
    let (axis, reduces) = match kind {
        OpKind::Reduce(axis) => (*axis, true),
        OpKind::Scan { axis, .. } => (*axis, false),
        _ => return Err("it has no region".into()),
    };
    need((axis as usize) < shape.len(), || format!("axis {axis} of a tile of rank {}", shape.len()))?;
    for (i, (operand, result)) in operands.iter().zip(results).enumerate() {
        if reduces {
            is(result, &without(operand, axis), &format!("result {i}"))?;
        } else {
            same(operand, result, &format!("operand and result {i}"))?;
        }
    }
    let args = items.iter().chain(&items).cloned().collect();
    Ok((args, items))
}

/// A tile's type without an axis; a scalar when none is left.
fn without(ty: &Type, axis: u32) -> Type {
    let Type::Tile(shape, item) = ty else { return ty.clone() };
    let rest: Vec<u32> = shape.iter().enumerate().filter(|(i, _)| *i != axis as usize).map(|(_, n)| *n).collect();
    if rest.is_empty() { Type::Scalar(*item) } else { Type::Tile(rest, *item) }
}

/// Checks an operation without regions that is no call.
pub(super) fn check(kind: &OpKind, o: &[&Type], r: &[&Type]) -> Found<()> {
    match kind {
        OpKind::Constant(literal) => {
            counts(o, r, 0, 1)?;
            let elem = elem(r[0], "the result")?;
            match literal {
                Literal::Int(v) => need(elem.is_int() && fits(*v, elem), || format!("{v} is no {elem}")),
                Literal::Bits(b) => need(elem.is_float() && (elem.bits() == 64 || *b >> elem.bits() == 0), || format!("bits {b:#x} are no {elem}")),
            }
        }
        OpKind::Poison => {
            counts(o, r, 0, 1)?;
            need(r[0].item().is_some(), || "a poison block pointer or descriptor".into())
        }
        OpKind::ProgramId(axis) | OpKind::NumPrograms(axis) => {
            counts(o, r, 0, 1)?;
            need(*axis < 3, || format!("axis {axis}: 0 to 2"))?;
            is(r[0], &Type::scalar(Elem::I32), "the result")
        }
        OpKind::Unary(unary) => {
            counts(o, r, 1, 1)?;
            match unary {
                Unary::AbsI | Unary::Ctlz | Unary::Cttz | Unary::Ctpop => int(o[0], "the operand")?,
                _ => float(o[0], "the operand")?,
            };
            let tests = matches!(unary, Unary::IsNan | Unary::IsInf | Unary::IsFinite);
            let wanted = if tests { shaped(o[0], Elem::I1) } else { o[0].clone() };
            is(r[0], &wanted, "the result")
        }
        OpKind::Binary(binary) => {
            counts(o, r, 2, 1)?;
            if is_float(*binary) { float(o[0], "the operand")? } else { int(o[0], "the operand")? };
            same(o[0], o[1], "the operands")?;
            same(o[0], r[0], "operands and result")
        }
        OpKind::Fma => {
            counts(o, r, 3, 1)?;
            float(o[0], "the operand")?;
            [o[1], o[2], r[0]].iter().try_for_each(|t| same(o[0], t, "operands and result"))
        }
        OpKind::Clamp { .. } => {
            counts(o, r, 3, 1)?;
            float(o[0], "the operand")?;
            [o[1], o[2], r[0]].iter().try_for_each(|t| same(o[0], t, "operands and result"))
        }
        OpKind::CmpI(_) => {
            counts(o, r, 2, 1)?;
            int(o[0], "the operand")?;
            same(o[0], o[1], "the operands")?;
            is(r[0], &shaped(o[0], Elem::I1), "the result")
        }
        OpKind::CmpF(_) => {
            counts(o, r, 2, 1)?;
            float(o[0], "the operand")?;
            same(o[0], o[1], "the operands")?;
            is(r[0], &shaped(o[0], Elem::I1), "the result")
        }
        OpKind::Select => {
            counts(o, r, 3, 1)?;
            same(o[1], o[2], "the choices")?;
            same(o[1], r[0], "choices and result")?;
            need(r[0].item().is_some(), || "a choice of block pointers or descriptors".into())?;
            if o[0].is_tile() { is(o[0], &shaped(r[0], Elem::I1), "the condition") } else { is(o[0], &Type::scalar(Elem::I1), "the condition") }
        }
        OpKind::Cast(cast) => {
            counts(o, r, 1, 1)?;
            check_cast(*cast, o[0], r[0])
        }
        OpKind::Print(_) => need(r.is_empty() && o.iter().all(|t| t.item().is_some()), || "it prints numbers and pointers, and gives nothing".into()),
        OpKind::Assert(_) => {
            counts(o, r, 1, 0)?;
            is(o[0], &shaped(o[0], Elem::I1), "the condition")
        }
        OpKind::Assume => {
            counts(o, r, 1, 0)?;
            is(o[0], &Type::scalar(Elem::I1), "the condition")
        }
        OpKind::Barrier => counts(o, r, 0, 0),
        OpKind::Extern(symbol) => {
            need(r.len() == 1 && !o.is_empty(), || "it has operands and one result".into())?;
            let gives = elem(r[0], "the result")?;
            if libdevice::operation(symbol).is_some() {
                need(libdevice::fits(symbol, o.len(), gives), || format!("{symbol} of {} operands of {gives}", o.len()))?;
                return o.iter().try_for_each(|t| same(t, r[0], "operands and result"));
            }
            o.iter().try_for_each(|t| {
                elem(t, "an operand")?;
                need(t.shape() == r[0].shape(), || "operands and result must have the same extents".into())
            })
        }
        OpKind::InlineAsm(_) | OpKind::Yield | OpKind::Condition | OpKind::Return => Ok(()),
        _ => tiles::check(kind, o, r),
    }
}

/// Whether a literal, sign-extended or not, fits an integer type.
fn fits(value: i64, elem: Elem) -> bool {
    elem.bits() == 64 || (value >= -(1i64 << (elem.bits() - 1)) && value < 1i64 << elem.bits())
}

fn is_float(binary: Binary) -> bool {
    use Binary as B;
    matches!(
        binary,
        B::AddF | B::SubF | B::MulF | B::DivF | B::RemF | B::MaximumF | B::MinimumF | B::MaxNumF | B::MinNumF | B::Pow | B::Atan2 | B::CopySign
    )
}

fn check_cast(cast: Cast, from: &Type, to: &Type) -> Found<()> {
    let wrong = || format!("from {} to {}", TypeText(from), TypeText(to));
    need(from.shape() == to.shape() && from.is_tile() == to.is_tile(), wrong)?;
    let (Some(a), Some(b)) = (from.item(), to.item()) else { return Err(wrong()) };
    let holds = match (a, b) {
        (Item::Elem(a), Item::Elem(b)) => match cast {
            Cast::TruncI => a.is_int() && b.is_int() && b.bits() < a.bits(),
            Cast::ExtS | Cast::ExtU => a.is_int() && b.is_int() && b.bits() > a.bits(),
            Cast::TruncF => a.is_float() && b.is_float() && b.bits() < a.bits(),
            Cast::ExtF => a.is_float() && b.is_float() && b.bits() > a.bits(),
            Cast::FpToFp | Cast::FpToFpRtz => a.is_float() && b.is_float(),
            Cast::SiToFp | Cast::UiToFp => a.is_int() && b.is_float(),
            Cast::FpToSi | Cast::FpToUi => a.is_float() && b.is_int(),
            Cast::Bitcast => a.bits() == b.bits(),
            Cast::PtrToInt | Cast::IntToPtr => false,
        },
        (Item::Ptr(_), Item::Ptr(_)) => cast == Cast::Bitcast,
        (Item::Ptr(_), Item::Elem(b)) => cast == Cast::PtrToInt && b == Elem::I64,
        (Item::Elem(a), Item::Ptr(_)) => cast == Cast::IntToPtr && a == Elem::I64,
    };
    need(holds, wrong)
}

mod memory;
mod tiles;

/// Whether an atomic takes an element type.
fn atomic_takes(rmw: Rmw, elem: Elem) -> bool {
    match rmw {
        Rmw::FAdd => elem.is_float() && elem.bits() >= 16,
        Rmw::Exch => elem != Elem::I1 && elem.bits() >= 16,
        _ => elem.is_int() && elem.bits() >= 32,
    }
}
