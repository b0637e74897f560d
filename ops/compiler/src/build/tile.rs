//! Shapes, reductions, scans, products.

use super::{Expr, one, push, region};
use crate::tile::{Binary, DotPrecision, OpKind, Type, Value};

fn reshaped(value: Expr, shape: &[u32]) -> Type {
    Type::Tile(shape.to_vec(), value.ty().item().expect("scalars and tiles have items"))
}

impl Expr {
    /// A scalar repeated to a tile.
    pub fn splat(self, shape: &[u32]) -> Expr {
        if shape.is_empty() { self } else { one(OpKind::Splat, &[self], reshaped(self, shape)) }
    }
    /// Axes of extent 1 repeated to a shape of the same rank; scalars to any.
    pub fn broadcast(self, shape: &[u32]) -> Expr {
        let own = self.shape();
        if own == shape {
            return self;
        }
        if own.is_empty() {
            return self.splat(shape);
        }
        let fits = own.len() == shape.len() && own.iter().zip(shape).all(|(m, n)| m == n || *m == 1);
        assert!(fits, "a tile of shape {own:?} is no {shape:?} with axes of extent 1");
        one(OpKind::Broadcast, &[self], reshaped(self, shape))
    }
    /// A new axis of extent 1; a scalar becomes a tile of one element.
    pub fn expand(self, axis: u32) -> Expr {
        let mut shape = self.shape();
        if shape.is_empty() {
            return self.splat(&[1]);
        }
        shape.insert(axis as usize, 1);
        one(OpKind::ExpandDims(axis), &[self], reshaped(self, &shape))
    }
    /// Row-major order kept under another shape.
    pub fn reshape(self, shape: &[u32]) -> Expr {
        if self.shape() == shape {
            return self;
        }
        one(OpKind::Reshape { reorder: false }, &[self], reshaped(self, shape))
    }
    /// Axes in another order: axis i is the operand's axis `order[i]`.
    pub fn trans(self, order: &[u32]) -> Expr {
        let own = self.shape();
        let shape: Vec<u32> = order.iter().map(|d| own[*d as usize]).collect();
        one(OpKind::Trans(order.to_vec()), &[self], reshaped(self, &shape))
    }
    /// Two tiles as a new last axis of extent 2.
    pub fn join(self, b: Expr) -> Expr {
        let mut shape = self.shape();
        shape.push(2);
        one(OpKind::Join, &[self, b], reshaped(self, &shape))
    }
    /// The two halves of a last axis of extent 2.
    pub fn split(self) -> (Expr, Expr) {
        let mut shape = self.shape();
        assert_eq!(shape.pop(), Some(2), "split takes a last axis of extent 2");
        let half = reshaped(self, &shape);
        let r = push(OpKind::Split, &[self.0], Vec::new(), &[half.clone(), half]);
        (Expr(r[0]), Expr(r[1]))
    }
    /// Elements of this tile at the places `index` (i32) along an axis.
    pub fn gather(self, index: Expr, axis: u32) -> Expr {
        one(OpKind::Gather(axis), &[self, index], reshaped(self, &index.shape()))
    }

    /// Elements along an axis combined by a function of two scalars.
    pub fn reduce(self, axis: u32, combine: impl FnOnce(Expr, Expr) -> Expr) -> Expr {
        reduce([self], axis, |[a], [b]| [combine(a, b)])[0]
    }
    fn reduce_by(self, axis: u32, float: Binary, int: Binary) -> Expr {
        let op = if self.elem().is_float() { float } else { int };
        self.reduce(axis, |a, b| one(OpKind::Binary(op), &[a, b], a.ty()))
    }
    /// Sum along an axis.
    pub fn sum(self, axis: u32) -> Expr {
        self.reduce_by(axis, Binary::AddF, Binary::AddI)
    }
    /// The greatest along an axis; NaN if there is one.
    pub fn max(self, axis: u32) -> Expr {
        self.reduce_by(axis, Binary::MaximumF, Binary::MaxS)
    }
    /// The least along an axis; NaN if there is one.
    pub fn min(self, axis: u32) -> Expr {
        self.reduce_by(axis, Binary::MinimumF, Binary::MinS)
    }
    /// Inclusive sums along an axis.
    pub fn cumsum(self, axis: u32, reverse: bool) -> Expr {
        scan([self], axis, reverse, |[a], [b]| [a + b])[0]
    }

    /// Matrix product with `b` plus `sum`: (…×m×k)·(…×k×n) + (…×m×n), in IEEE arithmetic of the sum's type.
    pub fn dot(self, b: Expr, sum: Expr) -> Expr {
        one(OpKind::Dot { precision: DotPrecision::Ieee }, &[self, b, sum], sum.ty())
    }
}

/// Types of scalars, or of tiles without `axis`.
fn without(values: &[Expr], axis: u32) -> Vec<Type> {
    let drop = |e: &Expr| {
        let ty = e.ty();
        let mut shape = ty.shape().to_vec();
        assert!((axis as usize) < shape.len(), "{ty:?} has no axis {axis}");
        shape.remove(axis as usize);
        let item = ty.item().expect("tiles have items");
        if shape.is_empty() { Type::Scalar(item) } else { Type::Tile(shape, item) }
    };
    values.iter().map(drop).collect()
}

fn scalars(values: &[Expr]) -> Vec<Type> {
    let of = |e: &Expr| Type::Scalar(e.ty().item().expect("tiles have items"));
    values.iter().chain(values).map(of).collect()
}

fn halves<const N: usize>(args: &[Expr]) -> ([Expr; N], [Expr; N]) {
    (core::array::from_fn(|i| args[i]), core::array::from_fn(|i| args[N + i]))
}

/// Tiles of one shape reduced together along an axis by a function of two scalars each (left, right).
pub fn reduce<const N: usize>(values: [Expr; N], axis: u32, combine: impl FnOnce([Expr; N], [Expr; N]) -> [Expr; N]) -> [Expr; N] {
    let body = region(&scalars(&values), OpKind::Yield, |args| {
        let (left, right) = halves(args);
        combine(left, right).to_vec()
    });
    let operands: Vec<Value> = values.iter().map(|e| e.0).collect();
    let results = push(OpKind::Reduce(axis), &operands, vec![body], &without(&values, axis));
    core::array::from_fn(|i| Expr(results[i]))
}

/// Tiles of one shape scanned together along an axis, inclusively, by a function of two scalars each (what came before, the element).
pub fn scan<const N: usize>(
    values: [Expr; N],
    axis: u32,
    reverse: bool,
    combine: impl FnOnce([Expr; N], [Expr; N]) -> [Expr; N],
) -> [Expr; N] {
    let body = region(&scalars(&values), OpKind::Yield, |args| {
        let (left, right) = halves(args);
        combine(left, right).to_vec()
    });
    let operands: Vec<Value> = values.iter().map(|e| e.0).collect();
    let types: Vec<Type> = values.iter().map(|e| e.ty()).collect();
    let results = push(OpKind::Scan { axis, reverse }, &operands, vec![body], &types);
    core::array::from_fn(|i| Expr(results[i]))
}
