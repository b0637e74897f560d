//! `tt.gather` and `tt.histogram`: elements by number.

use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::Lower;
use crate::lower::layout::{Bit, axis_bits, log2};
use crate::lower::node::{Node, Storage, item_ty};
use crate::lower::place::Scratch;
use crate::thread::{Effect, Inst, Place, Ty, Val};
use crate::tile::{Binary, Cast, CmpI, Item, Order, Rmw, Type};

impl Lower<'_> {
    /// Element of the source whose index along the axis is given; indices out of range wrap (undefined in Triton).
    pub fn gather(&mut self, source: &Rc<Node>, indices: &Rc<Node>, axis: usize) -> Result<Rc<Node>> {
        let layout = self.layout_for(indices);
        self.flush()?;
        self.settle(indices)?;
        self.prepare(indices, &self.wants(&layout, 0))?;
        let scratch = self.spill(source)?;
        let (shape, item) = (indices.shape.clone(), source.item);
        let width = log2(source.shape[axis]) as usize;
        let ielem = indices.item.elem().unwrap_or(Elem::I32);
        self.filled(&shape, item, &layout, &mut |l, pos, _| {
            let index = l.eval(indices, pos)?;
            let index = l.index32(ielem, index, source.shape[axis]);
            let bits = l.dynamic(index, width);
            let mut at: Vec<Bit> = Vec::new();
            for a in (0..shape.len()).rev() {
                let (low, high) = axis_bits(&shape, a);
                if a == axis {
                    at.extend_from_slice(&bits);
                } else {
                    at.extend_from_slice(&pos[low..high]);
                }
            }
            let flat = l.compose(&at);
            Ok(l.peek(&scratch, item, flat))
        })
    }

    fn index32(&mut self, elem: Elem, index: Val, extent: u32) -> Val {
        let index = self.cast(if elem.bits() > 32 { Cast::TruncI } else { Cast::ExtS }, elem, Elem::I32, index);
        let mask = self.i32(i64::from(extent) - 1);
        self.int(Binary::And, Elem::I32, index, mask)
    }

    /// Counts by value.
    pub fn histogram(&mut self, source: &Rc<Node>, mask: Option<&Rc<Node>>, ty: &Type) -> Result<Rc<Node>> {
        let bins = ty.shape()[0];
        let elem = source.item.elem().unwrap_or(Elem::I32);
        let out = Item::Elem(ty.elem().unwrap_or(Elem::I32));
        let layout = self.layout_for(source);
        for n in [Some(source), mask].into_iter().flatten() {
            self.prepare(n, &self.wants(&layout, 0))?;
        }
        let result = self.default_layout(ty.shape(), out);
        let shape = source.shape.clone();
        let limit = self.bits(elem, u64::from(bins));
        let small = elem.bits() < 32 && u64::from(bins) > (1u64 << elem.bits()) - 1;
        let valid = |l: &mut Self, v: Val, m: Option<Val>| {
            let inside = if small { None } else { Some(l.cmp(CmpI::Ult, v, limit)) };
            l.both(inside, m)
        };
        let widen = |l: &mut Self, v: Val| l.cast(if elem.bits() > 32 { Cast::TruncI } else { Cast::ExtU }, elem, Elem::I32, v);
        if self.thread_bits == 0 {
            let slot = self.slot(item_ty(out), bins);
            let zero = self.zero(out);
            self.counted(log2(bins) as usize, true, |l, at| l.set_at(slot.var, at, zero));
            self.each(&shape, &layout, 0, &mut |l, regs| {
                let pos = layout.pos(regs);
                let v = l.eval(source, &pos)?;
                let m = mask.map(|m| l.eval(m, &pos)).transpose()?;
                let (condition, index) = (valid(l, v, m), widen(l, v));
                l.when(condition, false, |l| {
                    let old = l.inst(item_ty(out), Inst::GetAt(slot.var, index));
                    let one = l.bits(out.elem().unwrap_or(Elem::I32), 1);
                    let new = l.int(Binary::AddI, out.elem().unwrap_or(Elem::I32), old, one);
                    l.effect(Effect::SetAt(slot.var, index, new));
                });
                Ok(())
            })?;
            return Ok(self.stored(ty.shape(), out, result, Storage::Array(slot)));
        }
        let array = self.scratch(Elem::I32, bins)?;
        let zero = self.i32(0);
        self.each(ty.shape(), &result, 0, &mut |l, regs| {
            let index = l.compose(&result.pos(regs));
            l.effect(Effect::Store { place: Place::Shared { array, index }, values: vec![zero], mask: None });
            Ok(())
        })?;
        self.barrier(false);
        let writer = self.writer(&layout);
        self.each(&shape, &layout, 0, &mut |l, regs| {
            let pos = layout.pos(regs);
            let v = l.eval(source, &pos)?;
            let m = mask.map(|m| l.eval(m, &pos)).transpose()?;
            let (inside, index) = (valid(l, v, m), widen(l, v));
            let mask = l.both(inside, writer);
            let one = l.i32(1);
            l.inst(Ty::Elem(Elem::I32), Inst::Atomic { place: Place::Shared { array, index }, rmw: Rmw::Add, value: one, mask, order: Order::Relaxed });
            Ok(())
        })?;
        self.barrier(false);
        self.filled(ty.shape(), out, &result, &mut |l, pos, _| {
            let index = l.compose(pos);
            let v = l.peek(&Scratch::Shared(array), Item::Elem(Elem::I32), index);
            let to = out.elem().unwrap_or(Elem::I32);
            Ok(l.cast(if to.bits() > 32 { Cast::ExtU } else { Cast::TruncI }, Elem::I32, to, v))
        })
    }
}
