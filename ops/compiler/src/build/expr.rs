//! Values and their operators.

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Rem, Shl, Shr, Sub};

use super::{constant, integer, literal, one, with};
use crate::Elem;
use crate::tile::{Binary, Cast, CmpF, CmpI, Item, OpKind, Type, Unary, Value};

/// A value of the kernel being built: a scalar, a tile, or pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expr(pub(super) Value);

/// What can stand beside an [`Expr`]: another one, or a number that becomes a constant of the other side's type.
pub trait IntoExpr: Copy {
    /// The value, for use beside `beside`.
    fn expr(self, beside: Expr) -> Expr;
    /// The value if it needs no other side.
    fn known(self) -> Option<Expr> {
        None
    }
}

impl IntoExpr for Expr {
    fn expr(self, _: Expr) -> Expr {
        self
    }
    fn known(self) -> Option<Expr> {
        Some(self)
    }
}
impl IntoExpr for i64 {
    fn expr(self, beside: Expr) -> Expr {
        let elem = if beside.is_pointer() { Elem::I32 } else { beside.elem() };
        constant(&[], elem, integer(elem, self))
    }
}
impl IntoExpr for f64 {
    fn expr(self, beside: Expr) -> Expr {
        constant(&[], beside.elem(), literal(beside.elem(), self))
    }
}

/// Both values with one shape.
pub(super) fn unify(a: Expr, b: Expr) -> (Expr, Expr) {
    let (x, y) = (a.shape(), b.shape());
    if x == y {
        return (a, b);
    }
    if x.is_empty() {
        return (a.splat(&y), b);
    }
    if y.is_empty() {
        return (a, b.splat(&x));
    }
    assert_eq!(x.len(), y.len(), "tiles of shapes {x:?} and {y:?} meet: use expand to give them one rank");
    let shape: Vec<u32> = x.iter().zip(&y).map(|(m, n)| *m.max(n)).collect();
    (a.broadcast(&shape), b.broadcast(&shape))
}

/// Both values with one shape and, for integers, one width.
fn arithmetic(a: Expr, b: Expr) -> (Expr, Expr) {
    let (a, b) = match (a.elem(), b.elem()) {
        (Elem::I32, Elem::I64) => (a.to(Elem::I64), b),
        (Elem::I64, Elem::I32) => (a, b.to(Elem::I64)),
        (x, y) => {
            assert_eq!(x, y, "values of types {:?} and {:?} meet: convert one", a.ty(), b.ty());
            (a, b)
        }
    };
    unify(a, b)
}

impl Expr {
    /// Its type.
    pub fn ty(self) -> Type {
        with(|s| s.function.ty(self.0).clone())
    }
    /// Extents; empty for scalars.
    pub fn shape(self) -> Vec<u32> {
        self.ty().shape().to_vec()
    }
    /// The element type of numbers.
    pub fn elem(self) -> Elem {
        let ty = self.ty();
        ty.elem().unwrap_or_else(|| panic!("{ty:?} holds no numbers"))
    }
    /// Whether it holds pointers.
    pub fn is_pointer(self) -> bool {
        matches!(self.ty().item(), Some(Item::Ptr(_)))
    }
    /// Element type of what its pointers point to.
    pub fn pointee(self) -> Elem {
        match self.ty().item() {
            Some(Item::Ptr(elem)) => elem,
            other => panic!("{other:?} is no pointer"),
        }
    }

    fn unary(self, op: Unary) -> Expr {
        one(OpKind::Unary(op), &[self], self.ty())
    }
    fn test(self, op: Unary) -> Expr {
        one(OpKind::Unary(op), &[self], self.ty().with_item(Item::Elem(Elem::I1)))
    }
    fn binary(self, b: impl IntoExpr, float: Binary, int: Binary) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        let op = if a.elem().is_float() { float } else { int };
        one(OpKind::Binary(op), &[a, b], a.ty())
    }
    fn integer(self, b: impl IntoExpr, op: Binary) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        assert!(a.elem().is_int(), "{op:?} of {:?}: it takes integers", a.ty());
        one(OpKind::Binary(op), &[a, b], a.ty())
    }
    fn floating(self, b: impl IntoExpr, op: Binary) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        assert!(a.elem().is_float(), "{op:?} of {:?}: it takes floats", a.ty());
        one(OpKind::Binary(op), &[a, b], a.ty())
    }
    fn compare(self, b: impl IntoExpr, float: CmpF, int: CmpI) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        let kind = if a.elem().is_float() { OpKind::CmpF(float) } else { OpKind::CmpI(int) };
        one(kind, &[a, b], a.ty().with_item(Item::Elem(Elem::I1)))
    }

    /// a < b, signed; false with NaN.
    pub fn lt(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Olt, CmpI::Slt)
    }
    /// a ≤ b, signed; false with NaN.
    pub fn le(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Ole, CmpI::Sle)
    }
    /// a > b, signed; false with NaN.
    pub fn gt(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Ogt, CmpI::Sgt)
    }
    /// a ≥ b, signed; false with NaN.
    pub fn ge(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Oge, CmpI::Sge)
    }
    /// a = b; false with NaN.
    pub fn equals(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Oeq, CmpI::Eq)
    }
    /// a ≠ b; true with NaN.
    pub fn differs(self, b: impl IntoExpr) -> Expr {
        self.compare(b, CmpF::Une, CmpI::Ne)
    }
    /// a < b as unsigned integers.
    pub fn lt_unsigned(self, b: impl IntoExpr) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        one(OpKind::CmpI(CmpI::Ult), &[a, b], a.ty().with_item(Item::Elem(Elem::I1)))
    }
    /// The greater; of floats NaN if either is NaN.
    pub fn maximum(self, b: impl IntoExpr) -> Expr {
        self.binary(b, Binary::MaximumF, Binary::MaxS)
    }
    /// The lesser; of floats NaN if either is NaN.
    pub fn minimum(self, b: impl IntoExpr) -> Expr {
        self.binary(b, Binary::MinimumF, Binary::MinS)
    }
    /// Quotient of unsigned integers.
    pub fn div_unsigned(self, b: impl IntoExpr) -> Expr {
        self.integer(b, Binary::DivU)
    }
    /// Remainder of unsigned integers.
    pub fn rem_unsigned(self, b: impl IntoExpr) -> Expr {
        self.integer(b, Binary::RemU)
    }
    /// High half of the product of unsigned integers.
    pub fn mul_high_unsigned(self, b: impl IntoExpr) -> Expr {
        self.integer(b, Binary::MulHiU)
    }
    /// Shift right that fills with zeros.
    pub fn shr_unsigned(self, b: impl IntoExpr) -> Expr {
        self.integer(b, Binary::ShrU)
    }
    /// aᵇ as in C's pow.
    pub fn pow(self, b: impl IntoExpr) -> Expr {
        self.floating(b, Binary::Pow)
    }
    /// Magnitude of a, sign of b.
    pub fn copysign(self, b: impl IntoExpr) -> Expr {
        self.floating(b, Binary::CopySign)
    }
    /// a·b + c rounded once.
    pub fn fma(self, b: impl IntoExpr, c: impl IntoExpr) -> Expr {
        let (a, b) = arithmetic(self, b.expr(self));
        let (a, c) = arithmetic(a, c.expr(a));
        let (b, c) = arithmetic(b, c);
        one(OpKind::Fma, &[a, b, c], a.ty())
    }
    /// Where `self` (i1) holds a, else b.
    pub fn select(self, a: impl IntoExpr, b: impl IntoExpr) -> Expr {
        assert_eq!(self.elem(), Elem::I1, "the condition of select is i1");
        let (a, b) = pair(a, b);
        let (a, b) = if a.is_pointer() { unify(a, b) } else { arithmetic(a, b) };
        let (condition, a) = if self.shape().is_empty() { (self, a) } else { unify(self, a) };
        let (_, b) = unify(a, b);
        one(OpKind::Select, &[condition, a, b], a.ty())
    }

    /// Same bits as another type of the same width.
    pub fn bitcast(self, elem: Elem) -> Expr {
        if elem == self.elem() { self } else { self.cast(Cast::Bitcast, elem) }
    }
    fn cast(self, cast: Cast, elem: Elem) -> Expr {
        one(OpKind::Cast(cast), &[self], self.ty().with_item(Item::Elem(elem)))
    }
    /// Converted to another type: integers are signed (truth values 0 and 1), floats become integers toward zero; to i1: differs from 0.
    pub fn to(self, elem: Elem) -> Expr {
        let from = self.elem();
        if from == elem {
            return self;
        }
        match (from.is_float(), elem.is_float()) {
            _ if elem == Elem::I1 => self.differs(0i64),
            (false, false) if elem.bits() < from.bits() => self.cast(Cast::TruncI, elem),
            (false, false) if from == Elem::I1 => self.cast(Cast::ExtU, elem),
            (false, false) => self.cast(Cast::ExtS, elem),
            (false, true) if from == Elem::I1 => self.cast(Cast::UiToFp, elem),
            (false, true) => self.cast(Cast::SiToFp, elem),
            (true, false) => self.cast(Cast::FpToSi, elem),
            (true, true) if matches!(elem, Elem::F8E4M3 | Elem::F8E5M2) || matches!(from, Elem::F8E4M3 | Elem::F8E5M2) => self.cast(Cast::FpToFp, elem),
            (true, true) if elem.bits() < from.bits() => self.cast(Cast::TruncF, elem),
            (true, true) if elem.bits() == from.bits() => self.cast(Cast::ExtF, Elem::F32).cast(Cast::TruncF, elem),
            (true, true) => self.cast(Cast::ExtF, elem),
        }
    }
    /// An unsigned integer converted to a wider integer or a float.
    pub fn to_from_unsigned(self, elem: Elem) -> Expr {
        let from = self.elem();
        match elem.is_float() {
            true => self.cast(Cast::UiToFp, elem),
            false if elem.bits() > from.bits() => self.cast(Cast::ExtU, elem),
            false => self.to(elem),
        }
    }
}

/// Two operands of which one may be a number.
fn pair(a: impl IntoExpr, b: impl IntoExpr) -> (Expr, Expr) {
    match (a.known(), b.known()) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => (a, b.expr(a)),
        (None, Some(b)) => (a.expr(b), b),
        (None, None) => panic!("select of two numbers: make one a constant of a type"),
    }
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Expr {
            $($(#[$doc])* pub fn $name(self) -> Expr { self.unary(Unary::$op) })*
        }
    };
}
unary! {
    /// eˣ.
    exp Exp;
    /// 2ˣ.
    exp2 Exp2;
    /// eˣ - 1.
    expm1 Expm1;
    /// Natural logarithm.
    log Log;
    /// Base-2 logarithm.
    log2 Log2;
    /// ln(1 + x).
    log1p Log1p;
    /// Sine of radians.
    sin Sin;
    /// Cosine of radians.
    cos Cos;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// Error function.
    erf Erf;
    /// Square root, correctly rounded.
    sqrt Sqrt;
    /// 1/√x.
    rsqrt Rsqrt;
    /// Rounded down.
    floor Floor;
    /// Rounded up.
    ceil Ceil;
    /// Rounded toward zero.
    trunc Trunc;
    /// Rounded to nearest, ties to even.
    round_even RoundEven;
    /// Number of leading zero bits.
    leading_zeros Ctlz;
    /// Number of set bits.
    count_ones Ctpop;
}

impl Expr {
    /// Absolute value.
    pub fn abs(self) -> Expr {
        self.unary(if self.elem().is_float() { Unary::AbsF } else { Unary::AbsI })
    }
    /// Whether it is not a number; false for integers.
    pub fn is_nan(self) -> Expr {
        if self.elem().is_float() { self.test(Unary::IsNan) } else { self.differs(self) }
    }
}

macro_rules! operators {
    ($($Trait:ident $f:ident $float:ident $int:ident;)*) => {$(
        impl<B: IntoExpr> $Trait<B> for Expr {
            type Output = Expr;
            fn $f(self, b: B) -> Expr {
                self.binary(b, Binary::$float, Binary::$int)
            }
        }
    )*};
}
operators! {
    Sub sub SubF SubI;
    Mul mul MulF MulI;
    Div div DivF DivS;
    Rem rem RemF RemS;
}
impl<B: IntoExpr> Add<B> for Expr {
    type Output = Expr;
    fn add(self, b: B) -> Expr {
        if !self.is_pointer() {
            return self.binary(b, Binary::AddF, Binary::AddI);
        }
        let (pointer, offset) = unify(self, b.expr(self));
        one(OpKind::AddPtr, &[pointer, offset], pointer.ty())
    }
}
macro_rules! bits {
    ($($Trait:ident $f:ident $op:ident;)*) => {$(
        impl<B: IntoExpr> $Trait<B> for Expr {
            type Output = Expr;
            fn $f(self, b: B) -> Expr {
                self.integer(b, Binary::$op)
            }
        }
    )*};
}
bits! {
    BitAnd bitand And;
    BitOr bitor Or;
    BitXor bitxor Xor;
    Shl shl Shl;
    Shr shr ShrS;
}
impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        if self.elem().is_float() { self.unary(Unary::NegF) } else { 0i64.expr(self) - self }
    }
}
impl Not for Expr {
    type Output = Expr;
    fn not(self) -> Expr {
        // Truth values have one bit, all ones is true.
        self ^ if self.elem() == Elem::I1 { 1i64 } else { -1 }
    }
}
