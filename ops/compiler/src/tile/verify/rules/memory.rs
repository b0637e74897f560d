//! Types of operations on memory.

use crate::Elem;
use crate::tile::{Item, OpKind, Type};

use super::{Found, atomic_takes, counts, int, is, need, same, scalar_int, shaped};

/// What a pointer, tile of pointers or block pointer points to.
fn pointee(ty: &Type) -> Found<Type> {
    match ty {
        Type::Scalar(Item::Ptr(elem)) => Ok(Type::scalar(*elem)),
        Type::Tile(shape, Item::Ptr(elem)) | Type::BlockPtr(shape, elem) => Ok(Type::tile(shape, *elem)),
        other => Err(format!("{} is no pointer", super::TypeText(other))),
    }
}

fn boundary(axes: &[u32], pointer: &Type) -> Found<()> {
    let rank = if matches!(pointer, Type::BlockPtr(..)) { pointer.shape().len() } else { 0 };
    need(axes.iter().all(|a| (*a as usize) < rank), || format!("boundaryCheck {axes:?} of a pointer of rank {rank}"))
}

fn descriptor(ty: &Type) -> Found<(&[u32], Elem)> {
    match ty {
        Type::Descriptor(shape, elem) => Ok((shape, *elem)),
        other => Err(format!("{} is no descriptor", super::TypeText(other))),
    }
}

/// A tile stored through or loaded from a descriptor: leading extents of 1 may be missing.
fn tile_of(shape: &[u32], elem: Elem, ty: &Type) -> Found<()> {
    let fits = ty.elem() == Some(elem) && ty.is_tile() && shape.ends_with(ty.shape()) && shape[..shape.len() - ty.shape().len()].iter().all(|n| *n == 1);
    need(fits, || format!("the tile is {}, the descriptor has {shape:?} of {elem}", super::TypeText(ty)))
}

/// Checks operations on memory.
pub(super) fn check(kind: &OpKind, o: &[&Type], r: &[&Type]) -> Found<()> {
    match kind {
        OpKind::AddPtr => {
            counts(o, r, 2, 1)?;
            same(o[0], r[0], "pointer and result")?;
            need(matches!(o[0].item(), Some(Item::Ptr(_))), || format!("{} is no pointer", super::TypeText(o[0])))?;
            need(matches!(int(o[1], "the offset")?, Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64), || "an offset of i1".into())?;
            need(o[0].shape() == o[1].shape() && o[0].is_tile() == o[1].is_tile(), || "pointers and offsets must have the same extents".into())
        }
        OpKind::Load { mask, other, boundary: axes, .. } => {
            counts(o, r, 1 + usize::from(*mask) + usize::from(*other), 1)?;
            need(*mask || !*other, || "other values need a mask".into())?;
            let wanted = pointee(o[0])?;
            is(r[0], &wanted, "the result")?;
            boundary(axes, o[0])?;
            if *mask {
                need(!matches!(o[0], Type::BlockPtr(..)), || "a block pointer takes no mask".into())?;
                is(o[1], &shaped(&wanted, Elem::I1), "the mask")?;
            }
            if *other { is(o[2], &wanted, "the other values") } else { Ok(()) }
        }
        OpKind::Store { mask, boundary: axes } => {
            counts(o, r, 2 + usize::from(*mask), 0)?;
            let wanted = pointee(o[0])?;
            is(o[1], &wanted, "the value")?;
            boundary(axes, o[0])?;
            if *mask {
                need(!matches!(o[0], Type::BlockPtr(..)), || "a block pointer takes no mask".into())?;
                is(o[2], &shaped(&wanted, Elem::I1), "the mask")?;
            }
            Ok(())
        }
        OpKind::MakeTensorPtr(order) => {
            need(r.len() == 1 && !o.is_empty(), || "it has a base and one result".into())?;
            let Type::BlockPtr(shape, elem) = r[0] else { return Err(format!("the result is {}", super::TypeText(r[0]))) };
            need(o.len() == 1 + 3 * shape.len(), || format!("{} operands for a block of rank {}", o.len(), shape.len()))?;
            is(o[0], &Type::Scalar(Item::Ptr(*elem)), "the base")?;
            need(order.is_empty() || order.len() == shape.len(), || format!("order {order:?} of {} axes", shape.len()))?;
            o[1..].iter().try_for_each(|t| scalar_int(t, "an extent, stride or offset"))
        }
        OpKind::Advance => {
            need(r.len() == 1 && !o.is_empty(), || "it has a block pointer and one result".into())?;
            need(matches!(o[0], Type::BlockPtr(..)), || format!("{} is no block pointer", super::TypeText(o[0])))?;
            same(o[0], r[0], "pointer and result")?;
            need(o.len() == 1 + o[0].shape().len(), || format!("{} offsets for a block of rank {}", o.len() - 1, o[0].shape().len()))?;
            o[1..].iter().try_for_each(|t| scalar_int(t, "an offset"))
        }
        OpKind::MakeDescriptor(_) => {
            need(r.len() == 1 && !o.is_empty(), || "it has a base and one result".into())?;
            let (shape, elem) = descriptor(r[0])?;
            need(o.len() == 1 + 2 * shape.len(), || format!("{} operands for a descriptor of rank {}", o.len(), shape.len()))?;
            is(o[0], &Type::Scalar(Item::Ptr(elem)), "the base")?;
            o[1..].iter().try_for_each(|t| scalar_int(t, "an extent or stride"))
        }
        OpKind::DescriptorLoad => {
            need(r.len() == 1 && !o.is_empty(), || "it has a descriptor and one result".into())?;
            let (shape, elem) = descriptor(o[0])?;
            tile_of(shape, elem, r[0])?;
            indices(shape, &o[1..])
        }
        OpKind::DescriptorStore | OpKind::DescriptorReduce(_) => {
            need(r.is_empty() && o.len() >= 2, || "it has a descriptor and a value, and no result".into())?;
            let (shape, elem) = descriptor(o[0])?;
            if let OpKind::DescriptorReduce(rmw) = kind {
                let takes = atomic_takes(*rmw, elem) || (*rmw == crate::tile::Rmw::Add && elem.is_float() && elem.bits() >= 16);
                let takes = takes || (matches!(rmw, crate::tile::Rmw::Max | crate::tile::Rmw::Min) && elem.is_float() && elem.bits() >= 16);
                need(takes, || format!("{rmw:?} of {elem}"))?;
            }
            tile_of(shape, elem, o[1])?;
            indices(shape, &o[2..])
        }
        OpKind::DescriptorGather => {
            counts(o, r, 3, 1)?;
            rows(o[0], o[1], o[2], r[0])
        }
        OpKind::DescriptorScatter => {
            counts(o, r, 4, 0)?;
            rows(o[0], o[1], o[2], o[3])
        }
        OpKind::AtomicRmw { rmw, mask, .. } => {
            counts(o, r, 2 + usize::from(*mask), 1)?;
            let value = atomic(o, r)?;
            need(value.elem().is_some_and(|e| atomic_takes(*rmw, e)), || format!("{rmw:?} of {}", super::TypeText(&value)))?;
            if *mask { is(o[2], &shaped(&value, Elem::I1), "the mask") } else { Ok(()) }
        }
        OpKind::AtomicCas(_) => {
            counts(o, r, 3, 1)?;
            let value = atomic(o, r)?;
            is(o[2], &value, "the desired value")?;
            need(value.elem().is_some_and(|e| e.bits() >= 16), || format!("compare and swap of {}", super::TypeText(&value)))
        }
        _ => Err("it may not stand here".into()),
    }
}

/// The value's type of an atomic.
fn atomic(o: &[&Type], r: &[&Type]) -> Found<Type> {
    need(!matches!(o[0], Type::BlockPtr(..)), || "a block pointer takes no atomics".into())?;
    let value = pointee(o[0])?;
    is(o[1], &value, "the value")?;
    is(r[0], &value, "the result")?;
    Ok(value)
}

fn indices(shape: &[u32], found: &[&Type]) -> Found<()> {
    need(found.len() == shape.len(), || format!("{} indices for a descriptor of rank {}", found.len(), shape.len()))?;
    found.iter().try_for_each(|t| is(t, &Type::scalar(Elem::I32), "an index"))
}

/// Rows gathered or scattered: a descriptor of 1×n, row numbers, a column, a tile of rows×n.
fn rows(desc: &Type, numbers: &Type, column: &Type, value: &Type) -> Found<()> {
    let (shape, elem) = descriptor(desc)?;
    need(shape.len() == 2 && shape[0] == 1, || "the descriptor must be of one row".into())?;
    need(numbers.shape().len() == 1 && numbers.is_tile() && numbers.elem() == Some(Elem::I32), || "row numbers must be an i32 tile of rank 1".into())?;
    is(column, &Type::scalar(Elem::I32), "the column")?;
    is(value, &Type::tile(&[numbers.shape()[0], shape[1]], elem), "the tile")
}
