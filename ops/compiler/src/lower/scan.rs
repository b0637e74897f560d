//! Inclusive scans: each thread over its own run of the axis, then the sums of the runs before it.

use std::rc::Rc;

use crate::error::Result;
use crate::lower::layout::{Bit, Home, Layout, axis_bits, const_bits};
use crate::lower::node::{Node, Slot, Storage, item_ty};
use crate::lower::{Lower, Rep};
use crate::thread::{Shuffle, Val};
use crate::tile::{Binary, Block, Item, Op};
use crate::Elem;

impl Lower<'_> {
    /// `tt.scan`.
    pub fn scan(&mut self, op: &Op, axis: usize, reverse: bool) -> Result<()> {
        let operands = op.operands.iter().map(|o| self.tile(*o)).collect::<Result<Vec<_>>>()?;
        let region = &op.regions[0];
        let shape = operands[0].shape.clone();
        let (low, high) = axis_bits(&shape, axis);
        let layout = self.scan_layout(operands[0].bits(), low, high);
        for o in &operands {
            self.prepare(o, &self.wants(&layout, 0))?;
        }
        let slots: Vec<Rc<Slot>> = operands.iter().map(|o| self.slot(item_ty(o.item), layout.regs())).collect();
        let along: Vec<usize> = (low..high).filter_map(|b| if let Home::Reg(r) = layout.homes[b] { Some(usize::from(r)) } else { None }).collect();
        let kept: Vec<usize> = (0..layout.reg_bits()).filter(|r| !along.contains(r)).collect();
        let threads: Vec<u8> = layout.homes[low..high].iter().filter_map(|h| if let Home::Thread(t) = h { Some(*t) } else { None }).collect();
        self.scan_runs(&operands, region, &layout, &slots, (&kept, &along), reverse)?;
        if !threads.is_empty() {
            self.scan_across(&operands, region, &layout, &slots, (&kept, &along), &threads, reverse)?;
        }
        for ((r, o), s) in op.results.iter().zip(&operands).zip(slots) {
            let node = self.stored(&shape, o.item, layout.clone(), Storage::Array(s));
            self.env.insert(*r, Rep::Tile(node));
        }
        Ok(())
    }

    /// Threads along the other axes first, then along the high bits of the axis, so that a thread's elements are neighbours.
    pub fn scan_layout(&self, bits: usize, low: usize, high: usize) -> Layout {
        if self.thread_bits == 0 {
            return Layout::registers(bits);
        }
        let others: Vec<usize> = (0..bits).filter(|b| *b < low || *b >= high).collect();
        let across = others.len().min(self.thread_bits);
        let along = (high - low).min(self.thread_bits - across);
        let mut homes = vec![None; bits];
        let threaded = others[..across].iter().copied().chain(high - along..high);
        for (t, b) in threaded.enumerate() {
            homes[b] = Some(Home::Thread(t as u8));
        }
        let mut next = 0;
        let in_order: Vec<usize> = (low..high).chain(others.iter().copied()).collect();
        for b in in_order {
            if homes[b].is_none() {
                homes[b] = Some(Home::Reg(next));
                next += 1;
            }
        }
        Layout { homes: homes.into_iter().flatten().collect() }
    }

    /// Every thread scans its registers along the axis.
    fn scan_runs(&mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, slots: &[Rc<Slot>], (kept, along): (&[usize], &[usize]), reverse: bool) -> Result<()> {
        let regs = vec![Bit::Zero; layout.reg_bits()];
        if self.rolled(layout) {
            return self.counted(kept.len(), true, |l, k| l.scan_run(operands, region, layout, slots, (&set(&regs, kept, k), along), reverse));
        }
        for k in 0..1u32 << kept.len() {
            let regs = set(&regs, kept, &const_bits(k, kept.len()));
            let mut sum: Option<Vec<Val>> = None;
            for n in 0..1u32 << along.len() {
                let n = if reverse { (1 << along.len()) - 1 - n } else { n };
                let regs = set(&regs, along, &const_bits(n, along.len()));
                let new = operands.iter().map(|o| self.eval(o, &layout.pos(&regs))).collect::<Result<Vec<_>>>()?;
                let v = match sum {
                    None => new,
                    Some(s) => self.combine(region, &s, &new)?,
                };
                for (s, v) in slots.iter().zip(&v) {
                    self.set_at(s.var, &regs, *v);
                }
                sum = Some(v);
            }
        }
        Ok(())
    }

    fn scan_run(&mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, slots: &[Rc<Slot>], (regs, along): (&[Bit], &[usize]), reverse: bool) -> Result<()> {
        let sums: Vec<_> = operands.iter().map(|o| self.slot(item_ty(o.item), 1)).collect();
        let bits = along.len();
        let first = const_bits(if reverse { (1u32 << bits) - 1 } else { 0 }, bits);
        let at = set(regs, along, &first);
        for ((o, s), t) in operands.iter().zip(slots).zip(&sums) {
            let v = self.eval(o, &layout.pos(&at))?;
            self.set_at(s.var, &at, v);
            self.set_at(t.var, &[], v);
        }
        let (one, end) = (self.i32(1), self.i32(1 << bits));
        self.count_from(one, end, bits, |l, index| {
            let index = if reverse {
                let (n, last) = (l.compose(index), l.i32((1 << bits) - 1));
                let from_end = l.int(Binary::SubI, Elem::I32, last, n);
                l.dynamic(from_end, bits)
            } else {
                index.to_vec()
            };
            let at = set(regs, along, &index);
            let new = operands.iter().map(|o| l.eval(o, &layout.pos(&at))).collect::<Result<Vec<_>>>()?;
            let old: Vec<Val> = operands.iter().zip(&sums).map(|(o, t)| l.get_at(t.var, &[], item_ty(o.item))).collect();
            let v = l.combine(region, &old, &new)?;
            for ((s, t), v) in slots.iter().zip(&sums).zip(v) {
                l.set_at(s.var, &at, v);
                l.set_at(t.var, &[], v);
            }
            Ok(())
        })
    }

    /// Adds to every run the sum of the runs of the threads before it.
    #[allow(clippy::too_many_arguments)] // one call, all of it the shape of the scan
    fn scan_across(
        &mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, slots: &[Rc<Slot>], (kept, along): (&[usize], &[usize]), threads: &[u8], reverse: bool,
    ) -> Result<()> {
        let items: Vec<Item> = operands.iter().map(|o| o.item).collect();
        let zero = vec![Bit::Zero; layout.reg_bits()];
        let end = const_bits(if reverse { 0 } else { (1u32 << along.len()) - 1 }, along.len());
        let rows: Vec<Vec<Bit>> = (0..1u32 << kept.len()).map(|k| set(&zero, kept, &const_bits(k, kept.len()))).collect();
        let mut totals: Vec<Vec<Val>> = Vec::new();
        for row in &rows {
            let at = set(row, along, &end);
            totals.push(slots.iter().zip(&items).map(|(s, i)| self.get_at(s.var, &at, item_ty(*i))).collect());
        }
        let lanes = if self.kernel.subgroup > 1 { self.kernel.subgroup.trailing_zeros() as u8 } else { 0 };
        let mut before: Option<Vec<Vec<Val>>> = None;
        let mut any = self.truth(false);
        for t in threads {
            let flat: Vec<(Item, Val)> = totals.iter().flat_map(|v| items.iter().copied().zip(v.iter().copied())).collect();
            let others: Vec<Val> = if *t < lanes {
                flat.iter().map(|(i, v)| self.shuffle(*i, *v, Shuffle::Xor(1 << t), None)).collect()
            } else {
                self.exchange(&flat, 1 << t)?
            };
            let mut later = self.bit(Bit::Thread(*t));
            if reverse {
                let one = self.truth(true);
                later = self.int(Binary::Xor, Elem::I1, later, one);
            }
            let mut next = Vec::new();
            for (k, other) in others.chunks(items.len()).enumerate() {
                let own = totals[k].clone();
                next.push(match &before {
                    None => other.to_vec(),
                    Some(b) => {
                        let with = self.combine(region, other, &b[k])?;
                        let grown: Vec<Val> = with.iter().zip(other).map(|(w, o)| self.select(any, *w, *o)).collect();
                        grown.iter().zip(&b[k]).map(|(g, b)| self.select(later, *g, *b)).collect()
                    }
                });
                let left: Vec<Val> = own.iter().zip(other).map(|(a, b)| self.select(later, *b, *a)).collect();
                let right: Vec<Val> = own.iter().zip(other).map(|(a, b)| self.select(later, *a, *b)).collect();
                totals[k] = self.combine(region, &left, &right)?;
            }
            before = Some(next);
            any = self.int(Binary::Or, Elem::I1, any, later);
        }
        let before = before.unwrap_or_default();
        for (row, b) in rows.iter().zip(&before) {
            let apply = |l: &mut Self, index: &[Bit]| -> Result<()> {
                let at = set(row, along, index);
                let own: Vec<Val> = slots.iter().zip(&items).map(|(s, i)| l.get_at(s.var, &at, item_ty(*i))).collect();
                let sum = l.combine(region, b, &own)?;
                for ((s, own), sum) in slots.iter().zip(&own).zip(&sum) {
                    let v = l.select(any, *sum, *own);
                    l.set_at(s.var, &at, v);
                }
                Ok(())
            };
            if self.rolled(layout) {
                self.counted(along.len(), true, |l, index| apply(l, index))?;
            } else {
                for n in 0..1u32 << along.len() {
                    apply(self, &const_bits(n, along.len()))?;
                }
            }
        }
        Ok(())
    }
}

fn set(regs: &[Bit], at: &[usize], bits: &[Bit]) -> Vec<Bit> {
    let mut regs = regs.to_vec();
    for (r, b) in at.iter().zip(bits) {
        regs[*r] = *b;
    }
    regs
}
