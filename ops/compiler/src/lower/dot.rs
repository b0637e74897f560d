//! `tt.dot`: factors where every thread can read them, each thread sums its own elements of the product.

use std::collections::HashMap;
use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::Lower;
use crate::lower::dot_blocked::Arrays;
use crate::lower::layout::{Bit, Layout, axis_bits, const_bits, log2};
use crate::lower::node::{Node, item_ty};
use crate::lower::place::Scratch;
use crate::lower::prim::Prim;
use crate::thread::{Inst, Ty, Val};
use crate::tile::{Cast, DotPrecision, Item};

/// What products of factors are summed in.
pub(super) fn sum_elem(factor: Elem, result: Elem) -> Elem {
    match factor {
        Elem::F64 => Elem::F64,
        f if f.is_float() => Elem::F32,
        _ => result,
    }
}

impl Lower<'_> {
    /// The layout of a product: registers shared out between rows and columns.
    pub fn dot_layout(&self, shape: &[u32]) -> Layout {
        let bits: usize = shape.iter().map(|n| log2(*n) as usize).sum();
        if self.thread_bits == 0 {
            return Layout::registers(bits);
        }
        let rank = shape.len();
        let (n, m) = (log2(shape[rank - 1]) as usize, log2(shape[rank - 2]) as usize);
        let regs = bits.saturating_sub(self.thread_bits);
        let columns = regs.div_ceil(2).min(n).min(2);
        let rows = (regs - columns).min(m);
        let mut order: Vec<usize> = (0..columns).chain(n..n + rows).collect();
        order.extend((0..bits).filter(|b| !(*b < columns || (n..n + rows).contains(b))));
        Layout::spread(bits, &order, columns + rows, self.thread_bits)
    }

    /// a·b + c, of two or (batched) three axes; `rows`: its rows had better stay in one subgroup.
    pub fn dot(&mut self, a: &Rc<Node>, b: &Rc<Node>, c: &Rc<Node>, precision: DotPrecision, rows: bool) -> Result<Rc<Node>> {
        let shape = c.shape.clone();
        let (Some(factor), Some(result)) = (a.item.elem(), c.item.elem()) else { return Err(self.unsupported("factors that are no numbers")) };
        let other = b.item.elem().unwrap_or(factor);
        if factor.is_float() != other.is_float() {
            return Err(self.unsupported(format!("a product of {factor} and {other}")));
        }
        let sum = sum_elem(factor, result);
        let rank = shape.len();
        if let Some(plan) = self.unit_plan(&shape, a.shape[rank - 1], [factor, other], sum, precision, rows) {
            let start = self.converted(c, sum);
            let product = self.dot_in_unit(plan, a, b, &start)?;
            return Ok(self.converted(&product, result));
        }
        let depth = log2(a.shape[rank - 1]) as usize;
        let layout = self.prefer(c).unwrap_or_else(|| self.dot_layout(&shape));
        // One thread reads each factor often: it is converted once.
        let (a, b) = if self.thread_bits == 0 { (self.converted(a, sum), self.converted(b, sum)) } else { (Rc::clone(a), Rc::clone(b)) };
        self.prepare(c, &self.wants(&layout, 0))?;
        let start = self.converted(c, sum);
        let held = self.held.len();
        let left = self.spill_held(&a)?;
        let right = self.spill_held(&b)?;
        let slots = (layout.regs() > 1 && self.rolled(&layout)).then(|| self.slot(Ty::Elem(sum), layout.regs()));
        let vars: Vec<_> = if slots.is_some() { Vec::new() } else { (0..layout.regs()).map(|_| self.var(Ty::Elem(sum), 1)).collect() };
        let set = |l: &mut Self, regs: &[Bit], v: Val| match &slots {
            Some(s) => l.set_at(s.var, regs, v),
            None => l.set_at(vars[super::place::number(regs)], &[], v),
        };
        let get = |l: &mut Self, regs: &[Bit]| match &slots {
            Some(s) => l.get_at(s.var, regs, Ty::Elem(sum)),
            None => l.get_at(vars[super::place::number(regs)], &[], Ty::Elem(sum)),
        };
        self.each(&shape, &layout, 0, &mut |l, regs| {
            let v = l.eval(&start, &layout.pos(regs))?;
            set(l, regs, v);
            Ok(())
        })?;
        let body = |l: &mut Self, pos: &[Bit], regs: &[Bit], k: &[Bit], loaded: &mut HashMap<(bool, Val), Val>| -> Result<()> {
            let (n, m) = (axis_bits(&shape, rank - 1), axis_bits(&shape, rank - 2));
            let at_a: Vec<Bit> = k.iter().chain(&pos[m.0..]).copied().collect();
            let at_b: Vec<Bit> = pos[n.0..n.1].iter().chain(k).chain(&pos[m.1..]).copied().collect();
            let x = l.factor(&left, (&a, false), sum, &at_a, loaded);
            let y = l.factor(&right, (&b, true), sum, &at_b, loaded);
            let old = get(l, regs);
            let new = l.multiply_add(sum, x, y, old);
            set(l, regs, new);
            Ok(())
        };
        if self.thread_bits == 0 && self.rolled(&layout) {
            let arrays = Arrays { a: &left, b: &right, sum: slots.as_deref(), elem: sum };
            self.blocked_product(&shape, depth, &arrays)?;
        } else {
            // A few steps of the depth at a time, so that factors are read in vectors.
            let near = if self.rolled(&layout) { 0 } else { depth.min(2) };
            self.counted(depth - near, true, |l, far| {
                let mut loaded = HashMap::new();
                for step in 0..1u32 << near {
                    let k: Vec<Bit> = const_bits(step, near).into_iter().chain(far.iter().copied()).collect();
                    l.each(&shape, &layout, 0, &mut |l, regs| {
                        if l.rolled(&layout) {
                            loaded.clear();
                        }
                        body(l, &layout.pos(regs), regs, &k, &mut loaded)
                    })?;
                }
                Ok::<(), crate::CompileError>(())
            })?;
        }
        self.held.truncate(held);
        let item = Item::Elem(sum);
        let node = match &slots {
            Some(s) => self.stored(&shape, item, layout, super::node::Storage::Array(Rc::clone(s))),
            None => {
                let vals = vars.iter().map(|v| self.inst(Ty::Elem(sum), Inst::Get(*v, 0))).collect();
                self.stored(&shape, item, layout, super::node::Storage::Vals(vals))
            }
        };
        Ok(self.converted(&node, result))
    }

    /// A tile of another number type.
    pub fn converted(&mut self, n: &Rc<Node>, to: Elem) -> Rc<Node> {
        let Some(from) = n.item.elem().filter(|e| *e != to) else { return Rc::clone(n) };
        self.map(&n.shape.clone(), Item::Elem(to), Prim::Cast(conversion(from, to)), vec![Rc::clone(n)])
    }

    fn spill_held(&mut self, n: &Rc<Node>) -> Result<Scratch> {
        let scratch = self.spill(n)?;
        if let Scratch::Shared(s) = &scratch {
            self.held.push(s.0);
        }
        Ok(scratch)
    }

    fn factor(&mut self, scratch: &Scratch, (node, right): (&Rc<Node>, bool), sum: Elem, at: &[Bit], loaded: &mut HashMap<(bool, Val), Val>) -> Val {
        let index = self.compose(at);
        if let Some(v) = loaded.get(&(right, index)) {
            return *v;
        }
        let from = node.item.elem().unwrap_or(sum);
        // Neighbours come along.
        let constant = at.iter().take_while(|b| matches!(b, Bit::Zero | Bit::One)).count();
        let group = constant.min(log2(16 / from.bytes()) as usize).min(if matches!(scratch, Scratch::Shared(_)) { 2 } else { 0 });
        let element = |n: u32| const_bits(n, group).into_iter().chain(at[group..].iter().copied()).collect::<Vec<Bit>>();
        let first = self.compose(&element(0));
        let values = match scratch {
            Scratch::Shared(array) if group > 0 => self.peek_many(*array, node.item, first, 1 << group),
            _ => vec![self.peek(scratch, node.item, index)],
        };
        for (n, v) in (0..).zip(values) {
            let v = if from == sum { v } else { self.inst(item_ty(Item::Elem(sum)), Inst::Cast(conversion(from, sum), v)) };
            let place = self.compose(&element(n));
            loaded.insert((right, place), v);
        }
        loaded[&(right, index)]
    }
}

/// The conversion between two number types; integers are signed.
pub(super) fn conversion(from: Elem, to: Elem) -> Cast {
    match (from.is_float(), to.is_float()) {
        (true, true) if from.bytes() == 1 || to.bytes() == 1 => Cast::FpToFp,
        (true, true) if from.bits() < to.bits() => Cast::ExtF,
        (true, true) => Cast::TruncF,
        (false, false) if from.bits() < to.bits() => Cast::ExtS,
        (false, false) => Cast::TruncI,
        (false, true) => Cast::SiToFp,
        (true, false) => Cast::FpToSi,
    }
}
