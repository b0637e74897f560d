//! `tt.dot_scaled`: factors in microscaling formats become plain floats, then a plain product.

use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::Lower;
use crate::lower::layout::log2;
use crate::lower::node::{Kind, Node, Src};
use crate::lower::prim::Prim;
use crate::tile::{Binary, Cast, CmpI, DotPrecision, Item};

/// Elements along the depth that share a scale.
const SHARED: u32 = 32;

/// One factor as the operation gives it.
pub(super) struct ScaledFactor<'a> {
    /// Elements, packed by two where they are 4-bit floats.
    pub elements: Rc<Node>,
    /// Exponents, rows by groups of the depth, for the right factor columns by groups.
    pub scale: Option<Rc<Node>>,
    /// Format as printed.
    pub format: &'a str,
    /// 4-bit floats are packed along the depth.
    pub pack_k: bool,
    /// The right factor: depth by columns.
    pub right: bool,
}

impl Lower<'_> {
    /// a·b + c for scaled factors.
    pub fn dot_scaled(&mut self, factors: [ScaledFactor<'_>; 2], c: &Rc<Node>) -> Result<Rc<Node>> {
        if c.shape.len() != 2 {
            return Err(self.unsupported(format!("a scaled product of rank {}", c.shape.len())));
        }
        let elem = self.scaled_elem([0, 1].map(|i| (factors[i].format, factors[i].scale.is_some())));
        let [a, b] = factors.map(|f| self.scaled(f, elem));
        let (a, b) = (a?, b?);
        if a.shape[1] != b.shape[0] || a.shape[0] != c.shape[0] || b.shape[1] != c.shape[1] {
            return Err(self.unsupported(format!("{:?} times {:?} plus {:?}", a.shape, b.shape, c.shape)));
        }
        self.dot(&a, &b, c, DotPrecision::Ieee, false)
    }

    /// The type factors of these formats (with scales or without) are multiplied in: scaled values of at most three significant bits are
    /// bfloat16 exactly, but for the smallest, and matrix units take them.
    pub fn scaled_elem(&self, factors: [(&str, bool); 2]) -> Elem {
        let unit = self.target.matrix.iter().any(|m| m.factor == Elem::BF16 && m.sum == Elem::F32);
        let short = |(format, scaled): &(&str, bool)| matches!(*format, "e4m3" | "e5m2" | "e2m1") || (*format == "bf16" && !scaled);
        if unit && factors.iter().all(short) { Elem::BF16 } else { Elem::F32 }
    }

    fn scaled(&mut self, f: ScaledFactor<'_>, elem: Elem) -> Result<Rc<Node>> {
        let values = match f.format {
            "e4m3" => self.reread(&f.elements, Elem::F8E4M3),
            "e5m2" => self.reread(&f.elements, Elem::F8E5M2),
            "bf16" => self.reread(&f.elements, Elem::BF16),
            "fp16" => self.reread(&f.elements, Elem::F16),
            "e2m1" => self.unpacked(&f),
            other => return Err(self.unsupported(format!("factors of format '{other}'; there are e4m3, e5m2, e2m1, bf16 and fp16"))),
        };
        let shape = values.shape.clone();
        let wide = if values.item == Item::Elem(Elem::F32) { values } else { self.convert_to(&values, Elem::F32) };
        let product = match &f.scale {
            None => wide,
            Some(scale) => {
                let scale = self.spread_scale(scale, &shape, f.right)?;
                let scale = self.power_of_two(&scale);
                self.map(&shape, Item::Elem(Elem::F32), Prim::Binary(Binary::MulF), vec![wide, scale])
            }
        };
        Ok(if elem == Elem::F32 { product } else { self.convert_to(&product, elem) })
    }

    /// Elements as a float type of their width.
    fn reread(&mut self, n: &Rc<Node>, elem: Elem) -> Rc<Node> {
        if n.item == Item::Elem(elem) { Rc::clone(n) } else { self.map(&n.shape.clone(), Item::Elem(elem), Prim::Cast(Cast::Bitcast), vec![Rc::clone(n)]) }
    }

    fn convert_to(&mut self, n: &Rc<Node>, elem: Elem) -> Rc<Node> {
        let from = n.item.elem().unwrap_or(elem);
        self.map(&n.shape.clone(), Item::Elem(elem), Prim::Cast(super::dot::conversion(from, elem)), vec![Rc::clone(n)])
    }

    /// An operation of 32-bit integers with a constant.
    fn with_constant(&mut self, op: Binary, n: &Rc<Node>, constant: i64) -> Rc<Node> {
        let value = self.i32(constant);
        let other = self.splat(&n.shape.clone(), Item::Elem(Elem::I32), value);
        self.map(&n.shape.clone(), Item::Elem(Elem::I32), Prim::Binary(op), vec![Rc::clone(n), other])
    }

    /// a where n equals a constant, else b.
    fn where_equal(&mut self, n: &Rc<Node>, constant: i64, a: i64, b: Rc<Node>) -> Rc<Node> {
        let shape = n.shape.clone();
        let (constant, a) = (self.i32(constant), self.i32(a));
        let constant = self.splat(&shape, Item::Elem(Elem::I32), constant);
        let a = self.splat(&shape, Item::Elem(Elem::I32), a);
        let is = self.map(&shape, Item::Elem(Elem::I1), Prim::CmpI(CmpI::Eq), vec![Rc::clone(n), constant]);
        self.map(&shape, Item::Elem(Elem::I32), Prim::Select, vec![is, a, b])
    }

    fn as_i32(&mut self, n: &Rc<Node>) -> Rc<Node> {
        self.map(&n.shape.clone(), Item::Elem(Elem::I32), Prim::Cast(Cast::ExtU), vec![Rc::clone(n)])
    }

    fn as_f32(&mut self, n: &Rc<Node>) -> Rc<Node> {
        self.map(&n.shape.clone(), Item::Elem(Elem::F32), Prim::Cast(Cast::Bitcast), vec![Rc::clone(n)])
    }

    /// 2^(e - 127) of bytes e; 255 is NaN, 0 the subnormal 2^-127.
    fn power_of_two(&mut self, n: &Rc<Node>) -> Rc<Node> {
        let e = self.as_i32(n);
        let bits = self.with_constant(Binary::Shl, &e, 23);
        let bits = self.where_equal(&e, 0, 0x0040_0000, bits);
        let bits = self.where_equal(&e, 255, 0x7fc0_0000, bits);
        self.as_f32(&bits)
    }

    /// Scales repeated over the elements they belong to.
    fn spread_scale(&mut self, scale: &Rc<Node>, shape: &[u32], right: bool) -> Result<Rc<Node>> {
        let (lines, depth) = if right { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        let groups = (depth / SHARED).max(1);
        if scale.shape != [lines, groups] {
            return Err(self.unsupported(format!("scales of shape {:?} where {:?} are wanted", scale.shape, [lines, groups])));
        }
        let (minor, line_bits) = (log2(shape[1]) as usize, log2(lines) as usize);
        let (depth_at, line_at) = if right { (minor, 0) } else { (0, minor) };
        let within = log2(depth.min(SHARED)) as usize;
        let group_bits = log2(groups) as usize;
        let srcs = (0..group_bits).map(|b| Src::From(depth_at + within + b)).chain((0..line_bits).map(|b| Src::From(line_at + b))).collect();
        let facts = vec![super::facts::Axis::NONE; 2];
        Ok(self.view(shape, srcs, scale, facts))
    }

    /// 4-bit floats (sign, two exponent bits, one mantissa bit), two in a byte, the first in its low half.
    fn unpacked(&mut self, f: &ScaledFactor<'_>) -> Rc<Node> {
        let bytes = self.as_i32(&f.elements);
        let high = self.with_constant(Binary::ShrU, &bytes, 4);
        let mut shape = bytes.shape.clone();
        // The axis that doubles: the depth is the last axis on the left, the first on the right.
        let axis = usize::from(f.pack_k != f.right);
        shape[axis] *= 2;
        let bit = if axis == 1 { 0 } else { log2(shape[1]) as usize };
        let none = vec![super::facts::Axis::NONE; 2];
        let codes = self.node(&shape, Item::Elem(Elem::I32), Kind::Pick(bit, bytes, high), none);
        let magnitude = self.with_constant(Binary::And, &codes, 7);
        let moved = self.with_constant(Binary::Shl, &magnitude, 22);
        let bits = self.with_constant(Binary::AddI, &moved, 126 << 23);
        let bits = self.where_equal(&magnitude, 1, 0x3f00_0000, bits);
        let bits = self.where_equal(&magnitude, 0, 0, bits);
        let sign = self.with_constant(Binary::And, &codes, 8);
        let sign = self.with_constant(Binary::Shl, &sign, 28);
        let bits = self.map(&shape, Item::Elem(Elem::I32), Prim::Binary(Binary::Or), vec![bits, sign]);
        self.as_f32(&bits)
    }
}
