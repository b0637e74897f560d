//! Block pointers and tensor descriptors written out as pointers, offsets and bounds.

use crate::Elem;
use crate::error::Result;
use crate::lower::expand::{Expander, New};
use crate::tile::{Binary, Cast, CmpI, Item, Literal, OpKind, Order, Padding, Type, Value};

/// A block pointer (with offsets) or a descriptor (without): scalars.
#[derive(Clone)]
pub(super) struct Pointer {
    base: Value,
    /// i64.
    shape: Vec<Value>,
    /// i64.
    strides: Vec<Value>,
    /// i32; empty for descriptors.
    offsets: Vec<Value>,
    tile: Vec<u32>,
    elem: Elem,
    padding: Padding,
}

impl Pointer {
    /// Its scalars.
    pub fn parts(&self) -> Vec<Value> {
        [self.base].iter().chain(&self.shape).chain(&self.strides).chain(&self.offsets).copied().collect()
    }
    /// The same with other scalars.
    pub fn with(&self, parts: &[Value]) -> Pointer {
        let (n, s) = (self.shape.len(), self.strides.len());
        Pointer {
            base: parts[0],
            shape: parts[1..1 + n].to_vec(),
            strides: parts[1 + n..1 + n + s].to_vec(),
            offsets: parts[1 + n + s..].to_vec(),
            ..self.clone()
        }
    }
}

/// Addresses and mask of a tile.
struct Access {
    pointers: Value,
    mask: Option<Value>,
}

impl Expander<'_> {
    /// An operation on block pointers or descriptors.
    pub fn pointer_op(&mut self, kind: &OpKind, operands: &[New], types: &[Type]) -> Result<Option<New>> {
        let value = |e: &Self, n: usize| match operands.get(n) {
            Some(New::Value(v)) => Ok(*v),
            _ => Err(e.unsupported(kind, format!("operand {n} is a block pointer or missing"))),
        };
        let values = |e: &Self, from: usize, to: usize| (from..to).map(|n| value(e, n)).collect::<Result<Vec<_>>>();
        if let (OpKind::MakeTensorPtr(_) | OpKind::MakeDescriptor(_), Some(Type::BlockPtr(tile, elem) | Type::Descriptor(tile, elem))) = (kind, types.first()) {
            let padding = if let OpKind::MakeDescriptor(p) = kind { *p } else { Padding::Zero };
            let parts = if matches!(kind, OpKind::MakeTensorPtr(_)) { 3 } else { 2 };
            let rank = (operands.len() - 1) / parts;
            let wide = |e: &mut Self, v: Vec<Value>| v.into_iter().map(|x| e.wide(x)).collect::<Vec<_>>();
            let (shape, strides) = (values(self, 1, 1 + rank)?, values(self, 1 + rank, 1 + 2 * rank)?);
            let (shape, strides) = (wide(self, shape), wide(self, strides));
            let offsets = values(self, 1 + 2 * rank, operands.len())?;
            let p = Pointer { base: value(self, 0)?, shape, strides, offsets, tile: tile.clone(), elem: *elem, padding };
            return Ok(Some(New::Pointer(p)));
        }
        let Some(New::Pointer(p)) = operands.first().cloned() else { return Err(self.unsupported(kind, "its pointer is not known here")) };
        let n = operands.len();
        match kind {
            OpKind::Advance => {
                let mut offsets = Vec::new();
                for (i, old) in p.offsets.iter().enumerate() {
                    let by = value(self, 1 + i)?;
                    let ty = self.out.ty(*old).clone();
                    offsets.push(self.one(OpKind::Binary(Binary::AddI), vec![*old, by], ty));
                }
                Ok(Some(New::Pointer(Pointer { offsets, ..p })))
            }
            OpKind::Load { boundary, padding, volatile, hints, .. } => {
                let access = self.access(&p, &p.offsets.clone(), &p.tile.clone(), boundary);
                let ty = Type::tile(&p.tile, p.elem);
                Ok(Some(New::Value(self.load(&access, &ty, *padding, *volatile, hints.clone()))))
            }
            OpKind::Store { boundary, .. } => {
                let access = self.access(&p, &p.offsets.clone(), &p.tile.clone(), boundary);
                let v = value(self, 1)?;
                self.store(&access, v);
                Ok(None)
            }
            OpKind::DescriptorLoad => {
                let offsets = values(self, 1, n)?;
                // A result of fewer axes drops leading ones of extent 1.
                let access = self.access(&p, &offsets, &p.tile.clone(), &every(offsets.len()));
                let full = Type::tile(&p.tile, p.elem);
                let v = self.load(&access, &full, p.padding, false, Vec::new());
                let v = self.shaped(v, types.first().unwrap_or(&full));
                Ok(Some(New::Value(v)))
            }
            OpKind::DescriptorStore | OpKind::DescriptorReduce(_) => {
                let offsets = values(self, 2, n)?;
                let access = self.access(&p, &offsets, &p.tile.clone(), &every(offsets.len()));
                let v = value(self, 1)?;
                let full = Type::tile(&p.tile, p.elem);
                let v = self.shaped(v, &full);
                match kind {
                    OpKind::DescriptorReduce(rmw) => {
                        let operands = [access.pointers, v].into_iter().chain(access.mask).collect();
                        self.one(OpKind::AtomicRmw { rmw: *rmw, order: Order::Relaxed, mask: access.mask.is_some() }, operands, full);
                    }
                    _ => self.store(&access, v),
                }
                Ok(None)
            }
            OpKind::DescriptorGather => {
                let (rows, column) = (value(self, 1)?, value(self, 2)?);
                let ty = types.first().cloned().ok_or_else(|| self.unsupported(kind, "it has no result"))?;
                let access = self.rows(&p, rows, column, ty.shape());
                Ok(Some(New::Value(self.load(&access, &ty, p.padding, false, Vec::new()))))
            }
            OpKind::DescriptorScatter => {
                let (rows, column, v) = (value(self, 1)?, value(self, 2)?, value(self, 3)?);
                let shape = self.out.ty(v).shape().to_vec();
                let access = self.rows(&p, rows, column, &shape);
                self.store(&access, v);
                Ok(None)
            }
            other => Err(self.unsupported(other, "does not take a block pointer or descriptor")),
        }
    }

    fn wide(&mut self, v: Value) -> Value {
        if self.out.ty(v).elem() == Some(Elem::I64) {
            return v;
        }
        let ty = self.out.ty(v).with_item(Item::Elem(Elem::I64));
        self.one(OpKind::Cast(Cast::ExtS), vec![v], ty)
    }

    fn shaped(&mut self, v: Value, ty: &Type) -> Value {
        if self.out.ty(v) == ty { v } else { self.one(OpKind::Reshape { reorder: false }, vec![v], ty.clone()) }
    }

    /// A 1-D tile along axis `d` of `shape`, repeated to all of it.
    fn stretch(&mut self, v: Value, d: usize, shape: &[u32], item: Item) -> Value {
        let mut v = v;
        let mut have = vec![shape[d]];
        for axis in 0..shape.len() {
            if axis != d {
                have.insert(axis, 1);
                v = self.one(OpKind::ExpandDims(axis as u32), vec![v], Type::Tile(have.clone(), item));
            }
        }
        if have == shape { v } else { self.one(OpKind::Broadcast, vec![v], Type::Tile(shape.to_vec(), item)) }
    }

    fn splat(&mut self, v: Value, shape: &[u32]) -> Value {
        let ty = Type::Tile(shape.to_vec(), self.out.ty(v).item().unwrap_or(Item::Elem(Elem::I64)));
        self.one(OpKind::Splat, vec![v], ty)
    }

    /// i64 indices along an axis from an offset.
    fn indices(&mut self, offset: Value, n: u32) -> Value {
        let range = self.one(OpKind::MakeRange(0), vec![], Type::tile(&[n], Elem::I32));
        let (range, offset) = (self.wide(range), self.wide(offset));
        let offset = self.splat(offset, &[n]);
        self.one(OpKind::Binary(Binary::AddI), vec![offset, range], Type::tile(&[n], Elem::I64))
    }

    fn add_axis(&mut self, p: &Pointer, d: usize, indices: Value, shape: &[u32], check: bool, access: &mut Access) {
        let n = shape[d];
        let wide = Type::tile(&[n], Elem::I64);
        let stride = self.splat(p.strides[d], &[n]);
        let offset = self.one(OpKind::Binary(Binary::MulI), vec![indices, stride], wide.clone());
        let offset = self.stretch(offset, d, shape, Item::Elem(Elem::I64));
        access.pointers = self.one(OpKind::AddPtr, vec![access.pointers, offset], Type::Tile(shape.to_vec(), Item::Ptr(p.elem)));
        if check {
            let truth = Type::tile(&[n], Elem::I1);
            let zero = self.one(OpKind::Constant(Literal::Int(0)), vec![], wide);
            let end = self.splat(p.shape[d], &[n]);
            let above = self.one(OpKind::CmpI(CmpI::Sge), vec![indices, zero], truth.clone());
            let below = self.one(OpKind::CmpI(CmpI::Slt), vec![indices, end], truth.clone());
            let inside = self.one(OpKind::Binary(Binary::And), vec![above, below], truth);
            let inside = self.stretch(inside, d, shape, Item::Elem(Elem::I1));
            access.mask = Some(match access.mask {
                None => inside,
                Some(m) => self.one(OpKind::Binary(Binary::And), vec![m, inside], Type::tile(shape, Elem::I1)),
            });
        }
    }

    fn access(&mut self, p: &Pointer, offsets: &[Value], tile: &[u32], checked: &[u32]) -> Access {
        let base = self.splat(p.base, tile);
        let mut access = Access { pointers: base, mask: None };
        for d in 0..tile.len() {
            let indices = self.indices(offsets[d], tile[d]);
            self.add_axis(p, d, indices, tile, checked.contains(&(d as u32)), &mut access);
        }
        access
    }

    /// Rows by number, columns from an offset.
    fn rows(&mut self, p: &Pointer, rows: Value, column: Value, shape: &[u32]) -> Access {
        let base = self.splat(p.base, shape);
        let mut access = Access { pointers: base, mask: None };
        let rows = self.wide(rows);
        self.add_axis(p, 0, rows, shape, true, &mut access);
        let columns = self.indices(column, shape[1]);
        self.add_axis(p, 1, columns, shape, true, &mut access);
        access
    }

    fn load(&mut self, access: &Access, ty: &Type, padding: Padding, volatile: bool, hints: Vec<String>) -> Value {
        let mut operands = vec![access.pointers];
        let mut other = false;
        if let Some(m) = access.mask {
            operands.push(m);
            let nan = match ty.elem() {
                Some(Elem::F8E4M3) => Some(0x7f),
                Some(Elem::F8E5M2) => Some(0x7e),
                Some(e) => crate::tile::float_bits(e, f64::NAN),
                None => None,
            };
            if let (Padding::Nan, Some(bits)) = (padding, nan) {
                operands.push(self.one(OpKind::Constant(Literal::Bits(bits)), vec![], ty.clone()));
                other = true;
            }
        }
        let kind = OpKind::Load { mask: access.mask.is_some(), other, boundary: Vec::new(), padding: Padding::None, volatile, hints };
        self.one(kind, operands, ty.clone())
    }

    fn store(&mut self, access: &Access, v: Value) {
        let operands = [access.pointers, v].into_iter().chain(access.mask).collect();
        self.emit(OpKind::Store { mask: access.mask.is_some(), boundary: Vec::new() }, operands, &[]);
    }
}

fn every(rank: usize) -> Vec<u32> {
    (0..rank as u32).collect()
}
