//! Reductions: within a thread, then over lanes by shuffles, then over subgroups through shared memory; the order is fixed.

use std::collections::HashSet;
use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::layout::{Bit, Home, Layout, axis_bits, const_bits};
use crate::lower::node::{Node, Slot, Storage, item_ty};
use crate::lower::place::raw;
use crate::lower::{Lower, Rep};
use crate::thread::{Effect, Inst, Place, Shuffle, Val};
use crate::tile::{Binary, Block, Item, Op, OpKind};

/// log2 of the partial results a single thread keeps along a contiguous axis, so that a vector unit adds them.
const LANES: usize = 4;

impl Lower<'_> {
    /// `tt.reduce`.
    pub fn reduce(&mut self, op: &Op, axis: usize) -> Result<()> {
        let operands = op.operands.iter().map(|o| self.tile(*o)).collect::<Result<Vec<_>>>()?;
        let region = &op.regions[0];
        let shape = operands[0].shape.clone();
        let (low, high) = axis_bits(&shape, axis);
        let mut layout = operands.iter().find_map(|o| self.prefer(o)).unwrap_or_else(|| self.default_layout(&shape, operands[0].item));
        if self.rolled(&layout.keep((0..layout.homes.len()).filter(|b| *b < low || *b >= high))) {
            // Too many results per thread to combine them over threads: each thread takes whole lines.
            layout = self.scan_layout(layout.homes.len(), low, high);
        }
        let rest: Vec<u32> = shape.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, n)| *n).collect();
        let results = if self.rolled(&layout) {
            if self.thread_bits == 0 { self.reduce_rows(&operands, region, axis, &rest)? } else { self.reduce_rolled(&operands, region, &layout, (low, high), &rest)? }
        } else {
            for o in &operands {
                self.prepare(o, &self.wants(&layout, 0))?;
            }
            let mut tree = Vec::new();
            let kept = kept_registers(&layout, low, high);
            let along = along_registers(&layout, low, high);
            for k in 0..1u32 << kept.len() {
                let mut sum: Option<Vec<Val>> = None;
                for a in 0..1u32 << along.len() {
                    let mut regs = vec![Bit::Zero; layout.reg_bits()];
                    place(&mut regs, &kept, k);
                    place(&mut regs, &along, a);
                    let pos = layout.pos(&regs);
                    let v = operands.iter().map(|o| self.eval(o, &pos)).collect::<Result<Vec<_>>>()?;
                    sum = Some(match sum {
                        None => v,
                        Some(s) => self.combine(region, &s, &v)?,
                    });
                }
                tree.push(sum.unwrap_or_default());
            }
            self.across(&operands, region, &layout, (low, high), &mut tree)?;
            let inner = layout.keep((0..layout.homes.len()).filter(|b| *b < low || *b >= high));
            let mut out = Vec::new();
            for (i, o) in operands.iter().enumerate() {
                let vals = tree.iter().map(|t| t[i]).collect();
                out.push(self.stored(&rest, o.item, inner.clone(), Storage::Vals(vals)));
            }
            out
        };
        for (r, node) in op.results.iter().zip(results) {
            let rep = if rest.is_empty() { Rep::Scalar(self.only(&node)?) } else { Rep::Tile(node) };
            self.env.insert(*r, rep);
        }
        Ok(())
    }

    /// Combines two groups of values by a region.
    pub fn combine(&mut self, region: &Block, a: &[Val], b: &[Val]) -> Result<Vec<Val>> {
        let args: Vec<Val> = a.iter().chain(b).copied().collect();
        self.scalar_region(region, &args)
    }

    /// Whether both orders of the operands give the same bits.
    fn commutative(region: &Block) -> bool {
        let [op, _] = region.ops.as_slice() else { return false };
        let same = |o: &[crate::tile::Value]| o == region.args.as_slice() || o.iter().rev().eq(region.args.iter());
        let commutes = match op.kind {
            OpKind::Binary(b) => {
                use Binary::{AddF, AddI, And, MaxNumF, MaxS, MaxU, MaximumF, MinNumF, MinS, MinU, MinimumF, MulF, MulI, Or, Xor};
                matches!(b, AddF | AddI | MulF | MulI | And | Or | Xor | MaxS | MaxU | MinS | MinU | MaximumF | MinimumF | MaxNumF | MinNumF)
            }
            _ => false,
        };
        commutes && region.args.len() == 2 && same(&op.operands)
    }

    /// Combines over the thread bits of an axis; every thread gets the result.
    fn across(&mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, (low, high): (usize, usize), tree: &mut [Vec<Val>]) -> Result<()> {
        let mut threads: Vec<u8> =
            layout.homes[low..high].iter().filter_map(|h| if let Home::Thread(t) = h { Some(*t) } else { None }).collect();
        threads.sort_unstable();
        let symmetric = Self::commutative(region);
        let lanes = if self.kernel.subgroup > 1 { self.kernel.subgroup.trailing_zeros() as u8 } else { 0 };
        let items: Vec<Item> = operands.iter().map(|o| o.item).collect();
        let (near, far): (Vec<u8>, Vec<u8>) = threads.into_iter().partition(|t| *t < lanes);
        for t in &near {
            let t = *t;
            for values in tree.iter_mut() {
                let others: Vec<Val> = values.iter().zip(&items).map(|(v, i)| self.shuffle(*i, *v, Shuffle::Xor(1 << t), None)).collect();
                *values = self.ordered(region, symmetric, t, values, &others)?;
            }
        }
        if far.is_empty() {
            return Ok(());
        }
        if far.len() <= 3 || lanes > 0 {
            return self.across_far(&items, region, layout, (&near, &far), tree);
        }
        for t in far {
            let flat: Vec<(Item, Val)> = tree.iter().flat_map(|v| items.iter().copied().zip(v.iter().copied())).collect();
            let others = self.exchange(&flat, 1 << t)?;
            for (values, others) in tree.iter_mut().zip(others.chunks(items.len())) {
                *values = self.ordered(region, symmetric, t, values, others)?;
            }
        }
        Ok(())
    }

    /// Combines a pair of partners' values, the one with the lower thread number first.
    fn ordered(&mut self, region: &Block, symmetric: bool, thread: u8, own: &[Val], others: &[Val]) -> Result<Vec<Val>> {
        if symmetric {
            return self.combine(region, own, others);
        }
        let upper = self.bit(Bit::Thread(thread));
        let left: Vec<Val> = own.iter().zip(others).map(|(a, b)| self.select(upper, *b, *a)).collect();
        let right: Vec<Val> = own.iter().zip(others).map(|(a, b)| self.select(upper, *a, *b)).collect();
        self.combine(region, &left, &right)
    }

    /// All partial results to shared memory, then every thread combines those of its group.
    fn across_far(&mut self, items: &[Item], region: &Block, layout: &Layout, groups: (&[u8], &[u8]), tree: &mut [Vec<Val>]) -> Result<()> {
        let gathered = self.gather_far(items, layout, groups, tree)?;
        for (values, all) in tree.iter_mut().zip(gathered) {
            let mut all = all.into_iter();
            let mut sum = all.next().unwrap_or_default();
            for v in all {
                sum = self.combine(region, &sum, &v)?;
            }
            *values = sum;
        }
        Ok(())
    }

    /// Groups of values that threads alike in `near` bits share, of all threads that differ in `far` bits alone, through shared memory.
    pub fn gather_far(&mut self, items: &[Item], layout: &Layout, (near, far): (&[u8], &[u8]), tree: &[Vec<Val>]) -> Result<Vec<Vec<Vec<Val>>>> {
        // Threads that hold equal values share a place.
        let replicas = layout.replica_mask(self.thread_bits);
        let threads: Vec<u8> = (0..self.thread_bits as u8).filter(|t| !near.contains(t) && replicas >> t & 1 == 0).collect();
        let count = 1u32 << threads.len();
        // They may differ in the bits of NaN.
        let writer = self.first_of((0..self.thread_bits).filter(|t| !threads.contains(&(*t as u8))).map(|t| 1 << t).sum());
        let mut gathered: Vec<Vec<Vec<Val>>> = vec![vec![Vec::new(); 1 << far.len()]; tree.len()];
        for (i, item) in items.iter().enumerate() {
            let array = self.scratch(raw(*item), count * tree.len() as u32)?;
            let own: Vec<Bit> = threads.iter().map(|t| Bit::Thread(*t)).collect();
            let own = self.compose(&own);
            for (k, values) in tree.iter().enumerate() {
                let base = self.i32(i64::from(count) * k as i64);
                let index = self.add(own, base);
                let v = self.as_bits(*item, values[i]);
                self.effect(Effect::Store { place: Place::Shared { array, index }, values: vec![v], mask: writer });
            }
            self.barrier(false);
            for (k, all) in gathered.iter_mut().enumerate() {
                for (n, slot) in all.iter_mut().enumerate() {
                    let at = |t: &u8| match far.iter().position(|f| f == t) {
                        None => Bit::Thread(*t),
                        Some(j) if n >> j & 1 == 1 => Bit::One,
                        Some(_) => Bit::Zero,
                    };
                    let partner: Vec<Bit> = threads.iter().map(at).collect();
                    let partner = self.compose(&partner);
                    let base = self.i32(i64::from(count) * k as i64);
                    let index = self.add(partner, base);
                    slot.push(self.peek(&crate::lower::place::Scratch::Shared(array), *item, index));
                }
            }
        }
        Ok(gathered)
    }

    /// The values of the thread whose number differs in one bit, through shared memory.
    pub fn exchange(&mut self, values: &[(Item, Val)], mask: u32) -> Result<Vec<Val>> {
        let threads = 1u32 << self.thread_bits;
        let mut out = vec![None; values.len()];
        let mut kinds: Vec<Elem> = values.iter().map(|(i, _)| raw(*i)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let mine: Vec<usize> = (0..values.len()).filter(|n| raw(values[*n].0) == kind).collect();
            let array = self.scratch(kind, threads * mine.len() as u32)?;
            let (tid, m) = (self.tid(), self.i32(i64::from(mask)));
            for (k, n) in mine.iter().enumerate() {
                let base = self.i32(i64::from(threads) * k as i64);
                let index = self.add(tid, base);
                let v = self.as_bits(values[*n].0, values[*n].1);
                self.effect(Effect::Store { place: Place::Shared { array, index }, values: vec![v], mask: None });
            }
            self.barrier(false);
            let other = self.int(Binary::Xor, Elem::I32, tid, m);
            for (k, n) in mine.iter().enumerate() {
                let base = self.i32(i64::from(threads) * k as i64);
                let index = self.add(other, base);
                out[*n] = Some(self.peek(&crate::lower::place::Scratch::Shared(array), values[*n].0, index));
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// A value of another lane.
    pub fn shuffle(&mut self, item: Item, v: Val, how: Shuffle, lane: Option<Val>) -> Val {
        let v = self.as_bits(item, v);
        let r = self.inst(crate::thread::Ty::Elem(raw(item)), Inst::Shuffle(how, v, lane));
        self.bits_as(item, r)
    }

    /// Large tiles spread over threads: the registers along the axis are combined into an array of the others.
    fn reduce_rolled(&mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, (low, high): (usize, usize), rest: &[u32]) -> Result<Vec<Rc<Node>>> {
        for o in operands {
            self.prepare(o, &self.wants(layout, 0))?;
        }
        let (kept, along) = (kept_registers(layout, low, high), along_registers(layout, low, high));
        let slots: Vec<Rc<Slot>> = operands.iter().map(|o| self.slot(item_ty(o.item), 1 << kept.len())).collect();
        self.counted(kept.len(), true, |l, k| -> Result<()> {
            let mut regs = vec![Bit::Zero; layout.reg_bits()];
            spread(&mut regs, &kept, k);
            let pos = layout.pos(&regs);
            for (o, s) in operands.iter().zip(&slots) {
                let v = l.eval(o, &pos)?;
                l.set_at(s.var, k, v);
            }
            let (one, end) = (l.i32(1), l.i32(1 << along.len()));
            let k = k.to_vec();
            l.count_from(one, end, along.len(), |l, a| {
                spread(&mut regs, &along, a);
                let pos = layout.pos(&regs);
                l.accumulate(operands, region, &slots, &k, &pos)
            })
        })?;
        let inner = layout.keep((0..layout.homes.len()).filter(|b| *b < low || *b >= high));
        let mut tree = Vec::new();
        if self.rolled(&inner) {
            return Ok(operands.iter().zip(slots).map(|(o, s)| self.stored(rest, o.item, inner.clone(), Storage::Array(s))).collect());
        }
        for k in 0..1u32 << kept.len() {
            let bits = const_bits(k, kept.len());
            tree.push(operands.iter().zip(&slots).map(|(o, s)| self.get_at(s.var, &bits, item_ty(o.item))).collect());
        }
        self.across(operands, region, layout, (low, high), &mut tree)?;
        Ok((0..operands.len())
            .map(|i| {
                let vals = tree.iter().map(|t| t[i]).collect();
                self.stored(rest, operands[i].item, inner.clone(), Storage::Vals(vals))
            })
            .collect())
    }

    /// A loop over low..high, an index of so many bits.
    pub fn count_from<R>(&mut self, low: Val, high: Val, bits: usize, body: impl FnOnce(&mut Self, &[Bit]) -> R) -> R {
        let index = self.fresh(crate::thread::Ty::Elem(Elem::I32));
        let step = self.i32(1);
        let number = self.loops.len() as u32;
        self.loops.push((index, bits as u8));
        self.open();
        let all: Vec<Bit> = (0..bits).map(|b| Bit::Loop(number, b as u8)).collect();
        let result = body(self, &all);
        let body = self.close();
        self.push(crate::thread::Stmt::For { index, low, high, step, unsigned: false, uniform: true, unroll: 0, body });
        result
    }

    fn accumulate(&mut self, operands: &[Rc<Node>], region: &Block, slots: &[Rc<Slot>], at: &[Bit], pos: &[Bit]) -> Result<()> {
        let new = operands.iter().map(|o| self.eval(o, pos)).collect::<Result<Vec<_>>>()?;
        let old: Vec<Val> = operands.iter().zip(slots).map(|(o, s)| self.get_at(s.var, at, item_ty(o.item))).collect();
        let sum = self.combine(region, &old, &new)?;
        for (s, v) in slots.iter().zip(sum) {
            self.set_at(s.var, at, v);
        }
        Ok(())
    }

    /// One thread: rows are accumulated into an array of what is kept; along the last axis into lanes, which are combined at the end.
    fn reduce_rows(&mut self, operands: &[Rc<Node>], region: &Block, axis: usize, rest: &[u32]) -> Result<Vec<Rc<Node>>> {
        let shape = operands[0].shape.clone();
        let layout = Layout::registers(operands[0].bits());
        for o in operands {
            self.prepare(o, &self.wants(&layout, 0))?;
        }
        let (low, high) = axis_bits(&shape, axis);
        let split = if low == 0 { LANES.min(high) } else { low };
        let outer_bits = layout.homes.len() - high;
        let lead = split;
        let slots: Vec<Rc<Slot>> = operands.iter().map(|o| self.slot(item_ty(o.item), 1 << lead)).collect();
        let results: Vec<Rc<Slot>> = operands.iter().map(|o| self.slot(item_ty(o.item), 1 << (outer_bits + low))).collect();
        let saved = self.tee_start(&layout);
        let mut masks = Vec::new();
        for o in operands {
            self.masks_of(o, &mut masks, &mut HashSet::new());
        }
        self.versioned(&masks, &mut |l| l.reduce_lines(operands, region, (low, high, split, lead), &slots, &results))?;
        self.tee_end(&layout, saved);
        let inner = Layout::registers(layout.homes.len() - (high - low));
        Ok(operands.iter().zip(results).map(|(o, s)| self.stored(rest, o.item, inner.clone(), Storage::Array(s))).collect())
    }

    fn reduce_lines(
        &mut self, operands: &[Rc<Node>], region: &Block, (low, high, split, lead): (usize, usize, usize, usize), slots: &[Rc<Slot>], results: &[Rc<Slot>],
    ) -> Result<()> {
        let layout = Layout::registers(operands[0].bits());
        let outer_bits = layout.homes.len() - high;
        let lanes = lead;
        self.counted(outer_bits, true, |l, outer| -> Result<()> {
            let mut regs = vec![Bit::Zero; layout.homes.len()];
            regs[high..].copy_from_slice(outer);
            l.counted(lead, true, |l, inner| -> Result<()> {
                let mut regs = regs.clone();
                regs[..lead].copy_from_slice(inner);
                l.tee_here(&layout, &regs);
                for (o, s) in operands.iter().zip(slots) {
                    let v = l.eval(o, &layout.pos(&regs))?;
                    l.set_at(s.var, inner, v);
                }
                Ok(())
            })?;
            if high > split {
                let (one, end) = (l.i32(1), l.i32(1 << (high - split)));
                l.count_from(one, end, high - split, |l, along| {
                    regs[split..high].copy_from_slice(along);
                    l.counted(lead, true, |l, inner| {
                        regs[..lead].copy_from_slice(inner);
                        l.tee_here(&layout, &regs);
                        l.accumulate(operands, region, slots, inner, &layout.pos(&regs))
                    })
                })?;
            }
            if low > 0 {
                l.counted(low, true, |l, inner| {
                    let at: Vec<Bit> = inner.iter().chain(outer).copied().collect();
                    for ((o, s), r) in operands.iter().zip(slots).zip(results) {
                        let v = l.get_at(s.var, inner, item_ty(o.item));
                        l.set_at(r.var, &at, v);
                    }
                });
                return Ok(());
            }
            let mut level: Vec<Vec<Val>> = (0..1u32 << lanes)
                .map(|n| {
                    let bits = const_bits(n, lanes);
                    operands.iter().zip(slots).map(|(o, s)| l.get_at(s.var, &bits, item_ty(o.item))).collect()
                })
                .collect();
            while level.len() > 1 {
                let half = level.len() / 2;
                level = (0..half).map(|i| l.combine(region, &level[i], &level[i + half])).collect::<Result<_>>()?;
            }
            for (r, v) in results.iter().zip(&level[0]) {
                l.set_at(r.var, outer, *v);
            }
            Ok(())
        })
    }
}

/// Register bits of a layout inside a range of the element number.
fn along_registers(layout: &Layout, low: usize, high: usize) -> Vec<u8> {
    let mut r: Vec<u8> = layout.homes[low..high].iter().filter_map(|h| if let Home::Reg(r) = h { Some(*r) } else { None }).collect();
    r.sort_unstable();
    r
}

/// Register bits outside it.
fn kept_registers(layout: &Layout, low: usize, high: usize) -> Vec<u8> {
    let inside = along_registers(layout, low, high);
    (0..layout.reg_bits() as u8).filter(|r| !inside.contains(r)).collect()
}

fn place(regs: &mut [Bit], bits: &[u8], n: u32) {
    spread(regs, bits, &const_bits(n, bits.len()));
}

fn spread(regs: &mut [Bit], bits: &[u8], values: &[Bit]) {
    for (r, v) in bits.iter().zip(values) {
        regs[usize::from(*r)] = *v;
    }
}
