//! Types of operations on tiles.

use crate::Elem;
use crate::tile::{Item, OpKind, Type};

use super::{Found, counts, float, int, is, memory, need, same, shaped, tile};

/// Checks operations that shape or combine tiles.
pub(super) fn check(kind: &OpKind, o: &[&Type], r: &[&Type]) -> Found<()> {
    match kind {
        OpKind::MakeRange(start) => {
            counts(o, r, 0, 1)?;
            let (shape, item) = tile(r[0], "the result")?;
            need(shape.len() == 1 && item == Item::Elem(Elem::I32), || "the result must be an i32 tile of rank 1".into())?;
            need(start.checked_add((shape[0] - 1) as i32).is_some(), || format!("start {start} with {} elements exceeds i32", shape[0]))
        }
        OpKind::Splat => {
            counts(o, r, 1, 1)?;
            let (_, item) = tile(r[0], "the result")?;
            is(o[0], &Type::Scalar(item), "the operand")
        }
        OpKind::Unsplat => {
            counts(o, r, 1, 1)?;
            let (_, item) = tile(o[0], "the operand")?;
            need(o[0].elems() == 1, || "the operand must have one element".into())?;
            is(r[0], &Type::Scalar(item), "the result")
        }
        OpKind::ExpandDims(axis) => {
            counts(o, r, 1, 1)?;
            let (shape, item) = tile(o[0], "the operand")?;
            let axis = *axis as usize;
            need(axis <= shape.len(), || format!("axis {axis} of a tile of rank {}", shape.len()))?;
            let mut wanted = shape.to_vec();
            wanted.insert(axis, 1);
            is(r[0], &Type::Tile(wanted, item), "the result")
        }
        OpKind::Broadcast => {
            counts(o, r, 1, 1)?;
            let ((from, a), (to, b)) = (tile(o[0], "the operand")?, tile(r[0], "the result")?);
            let fits = a == b && from.len() == to.len() && from.iter().zip(to).all(|(f, t)| f == t || *f == 1);
            need(fits, || "only extents of 1 repeat".into())
        }
        OpKind::Reshape { .. } => {
            counts(o, r, 1, 1)?;
            let ((_, a), (_, b)) = (tile(o[0], "the operand")?, tile(r[0], "the result")?);
            need(a == b && o[0].elems() == r[0].elems(), || "operand and result must have as many elements of one type".into())
        }
        OpKind::Trans(order) => {
            counts(o, r, 1, 1)?;
            let (shape, item) = tile(o[0], "the operand")?;
            let mut seen = vec![false; shape.len()];
            for axis in order {
                let slot = seen.get_mut(*axis as usize).filter(|s| !**s);
                *slot.ok_or_else(|| format!("order {order:?} is no permutation of {} axes", shape.len()))? = true;
            }
            need(order.len() == shape.len(), || format!("order {order:?} is no permutation of {} axes", shape.len()))?;
            is(r[0], &Type::Tile(order.iter().map(|a| shape[*a as usize]).collect(), item), "the result")
        }
        OpKind::Cat => {
            counts(o, r, 2, 1)?;
            same(o[0], o[1], "the operands")?;
            let (shape, item) = tile(o[0], "the operand")?;
            let mut wanted = shape.to_vec();
            wanted[0] = wanted[0].saturating_mul(2);
            is(r[0], &Type::Tile(wanted, item), "the result")
        }
        OpKind::Join => {
            counts(o, r, 2, 1)?;
            same(o[0], o[1], "the operands")?;
            let (shape, item) = tile(o[0], "the operand")?;
            is(r[0], &Type::Tile(shape.iter().copied().chain([2]).collect(), item), "the result")
        }
        OpKind::Split => {
            counts(o, r, 1, 2)?;
            same(r[0], r[1], "the results")?;
            let (shape, item) = tile(o[0], "the operand")?;
            let (last, rest) = shape.split_last().ok_or("a tile of rank 0")?;
            need(*last == 2 && !rest.is_empty(), || "the operand's last extent must be 2, and not its only one".into())?;
            is(r[0], &Type::Tile(rest.to_vec(), item), "the result")
        }
        OpKind::Dot { .. } => {
            counts(o, r, 3, 1)?;
            dot(o, r)?;
            let (a, b, c) = (number(o[0])?, number(o[1])?, number(o[2])?);
            let small = |e: Elem| matches!(e, Elem::F8E4M3 | Elem::F8E5M2);
            need(a == b || (small(a) && small(b)), || format!("factors of {a} and {b}"))?;
            let holds = if a.is_int() { a == Elem::I8 && c == Elem::I32 } else { c.is_float() && (c == a || matches!(c, Elem::F16 | Elem::F32)) };
            need(holds, || format!("factors of {a} with a sum of {c}"))
        }
        OpKind::DotScaled { scales, .. } => {
            counts(o, r, 3 + usize::from(scales[0]) + usize::from(scales[1]), 1)?;
            same(o[2], r[0], "sum and result")?;
            o[3..].iter().try_for_each(|t| int(t, "a scale").map(|_| ()))?;
            o.iter().try_for_each(|t| tile(t, "an operand").map(|_| ()))?;
            float(r[0], "the result").map(|_| ())
        }
        OpKind::Gather(axis) => {
            counts(o, r, 2, 1)?;
            let ((source, item), (indices, _)) = (tile(o[0], "the source")?, tile(o[1], "the indices")?);
            int(o[1], "the indices")?;
            let axis = *axis as usize;
            let fits = source.len() == indices.len() && axis < source.len() && (0..source.len()).all(|i| i == axis || source[i] == indices[i]);
            need(fits, || "source and indices must have the same extents except along the axis".into())?;
            is(r[0], &Type::Tile(indices.to_vec(), item), "the result")
        }
        OpKind::Histogram { mask } => {
            counts(o, r, 1 + usize::from(*mask), 1)?;
            let (shape, _) = tile(o[0], "the operand")?;
            int(o[0], "the operand")?;
            int(r[0], "the result")?;
            let (bins, _) = tile(r[0], "the result")?;
            need(shape.len() == 1 && bins.len() == 1, || "operand and result must have rank 1".into())?;
            if *mask { is(o[1], &shaped(o[0], Elem::I1), "the mask") } else { Ok(()) }
        }
        _ => memory::check(kind, o, r),
    }
}

fn number(ty: &Type) -> Found<Elem> {
    super::elem(ty, "an operand")
}

fn dot(o: &[&Type], r: &[&Type]) -> Found<()> {
    same(o[2], r[0], "sum and result")?;
    let ((a, _), (b, _), (c, _)) = (tile(o[0], "the left factor")?, tile(o[1], "the right factor")?, tile(o[2], "the sum")?);
    let n = a.len();
    let fits = (n == 2 || n == 3)
        && b.len() == n
        && c.len() == n
        && a[..n - 2] == b[..n - 2]
        && a[..n - 2] == c[..n - 2]
        && a[n - 1] == b[n - 2]
        && c[n - 2] == a[n - 2]
        && c[n - 1] == b[n - 1];
    need(fits, || format!("{a:?} times {b:?} is not {c:?}"))
}
