//! Loads, stores, atomics.

use super::expr::unify;
use super::{Expr, IntoExpr, one, push};
use crate::tile::{Item, OpKind, Order, Padding, Rmw, Type};

fn load(operands: &[Expr], other: bool) -> Expr {
    let pointer = operands[0];
    let kind =
        OpKind::Load { mask: operands.len() > 1, other, boundary: Vec::new(), padding: Padding::None, volatile: false, hints: Vec::new() };
    one(kind, operands, pointee(pointer))
}

/// Type of what pointers point to.
fn pointee(pointer: Expr) -> Type {
    pointer.ty().with_item(Item::Elem(pointer.pointee()))
}

impl Expr {
    /// What these pointers point to.
    pub fn load(self) -> Expr {
        load(&[self], false)
    }
    /// As [`Expr::load`] where `mask` holds, elsewhere `other`; nothing is read there.
    pub fn load_masked(self, mask: Expr, other: impl IntoExpr) -> Expr {
        let (pointer, mask) = unify(self, mask);
        let ty = pointee(pointer);
        let other = match other.known() {
            Some(other) => other,
            None => {
                let like = super::constant(&[], self.pointee(), super::integer(self.pointee(), 0));
                other.expr(like)
            }
        };
        load(&[pointer, mask, other.broadcast(ty.shape())], true)
    }
    /// Writes values to where these pointers point.
    pub fn store(self, value: Expr) {
        let (pointer, value) = unify(self, value);
        check(pointer, value);
        push(OpKind::Store { mask: false, boundary: Vec::new() }, &[pointer.0, value.0], Vec::new(), &[]);
    }
    /// As [`Expr::store`] where `mask` holds.
    pub fn store_masked(self, value: Expr, mask: Expr) {
        let (pointer, value) = unify(self, value);
        let (pointer, mask) = unify(pointer, mask);
        let value = value.broadcast(&pointer.shape());
        check(pointer, value);
        push(OpKind::Store { mask: true, boundary: Vec::new() }, &[pointer.0, value.0, mask.0], Vec::new(), &[]);
    }
    /// Atomic read-modify-write in relaxed order where `mask` holds; the old value.
    pub fn atomic(self, rmw: Rmw, value: Expr, mask: Expr) -> Expr {
        let (pointer, value) = unify(self, value);
        let (pointer, mask) = unify(pointer, mask);
        let value = value.broadcast(&pointer.shape());
        check(pointer, value);
        one(OpKind::AtomicRmw { rmw, order: Order::Relaxed, mask: true }, &[pointer, value, mask], value.ty())
    }
    /// Atomic compare and swap in relaxed order; the old value.
    pub fn atomic_cas(self, expected: Expr, desired: Expr) -> Expr {
        check(self, expected);
        one(OpKind::AtomicCas(Order::Relaxed), &[self, expected, desired], expected.ty())
    }
}

fn check(pointer: Expr, value: Expr) {
    assert_eq!(pointee(pointer), value.ty(), "pointers and the values written to them");
}
