//! Inclusive scans: each thread over its own runs of the axis, then the sums of the runs before them: of threads before it by shuffles, of
//! subgroups before its own through shared memory at once, and, where a thread has several runs far apart, of the runs before each.

use std::rc::Rc;

use crate::error::Result;
use crate::lower::layout::{Bit, Home, Layout, axis_bits, const_bits};
use crate::lower::node::{Node, Slot, Storage, item_ty};
use crate::lower::{Lower, Rep};
use crate::thread::{Shuffle, Val};
use crate::tile::{Binary, Block, CmpI, Item, Op};
use crate::Elem;

/// log2 of the sums of subgroups that a thread reads at once.
const MOST_GATHERED: usize = 5;

/// Sums of groups of threads that have met: one for each run of a thread.
struct Before {
    /// Of the threads of the group that come before; whatever where there are none.
    before: Option<Vec<Vec<Val>>>,
    /// Whether there are any.
    any: Val,
    /// Of the whole group.
    totals: Vec<Vec<Val>>,
}

impl Lower<'_> {
    /// `tt.scan`.
    pub fn scan(&mut self, op: &Op, axis: usize, reverse: bool) -> Result<()> {
        let operands = op.operands.iter().map(|o| self.tile(*o)).collect::<Result<Vec<_>>>()?;
        let region = &op.regions[0];
        let shape = operands[0].shape.clone();
        let (low, high) = axis_bits(&shape, axis);
        let layout = self.scan_in_place(&operands, low, high).unwrap_or_else(|| self.scan_layout(operands[0].bits(), low, high));
        for o in &operands {
            self.prepare(o, &self.wants(&layout, 0))?;
        }
        let slots: Vec<Rc<Slot>> = operands.iter().map(|o| self.slot(item_ty(o.item), layout.regs())).collect();
        let is_thread = |b: &usize| matches!(layout.homes[*b], Home::Thread(_));
        let registers = |bits: &mut dyn Iterator<Item = usize>| bits.filter_map(|b| if let Home::Reg(r) = layout.homes[b] { Some(usize::from(r)) } else { None }).collect::<Vec<_>>();
        let first = (low..high).find(is_thread).unwrap_or(high);
        let (along, apart) = (registers(&mut (low..first)), registers(&mut (first..high)));
        let kept: Vec<usize> = (0..layout.reg_bits()).filter(|r| !along.contains(r)).collect();
        let threads: Vec<u8> = layout.homes[low..high].iter().filter_map(|h| if let Home::Thread(t) = h { Some(*t) } else { None }).collect();
        self.scan_runs(&operands, region, &layout, &slots, (&kept, &along), reverse)?;
        if !threads.is_empty() {
            let kept: Vec<usize> = kept.into_iter().filter(|r| !apart.contains(r)).collect();
            self.scan_across(&operands, region, &layout, &slots, [&kept, &apart, &along], &threads, reverse)?;
        }
        for ((r, o), s) in op.results.iter().zip(&operands).zip(slots) {
            let node = self.stored(&shape, o.item, layout.clone(), Storage::Array(s));
            self.env.insert(*r, Rep::Tile(node));
        }
        Ok(())
    }

    /// Where the operands are, if along the last axis that is: runs of neighbours, then threads in order, then registers.
    fn scan_in_place(&self, operands: &[Rc<Node>], low: usize, high: usize) -> Option<Layout> {
        if self.thread_bits == 0 || low > 0 {
            return None;
        }
        let layout = operands.iter().find_map(|o| self.prefer(o))?;
        let kinds: Vec<bool> = layout.homes[..high].iter().map(|h| matches!(h, Home::Thread(_))).collect();
        let changes = kinds.windows(2).filter(|w| w[0] != w[1]).count();
        let threads: Vec<u8> = layout.homes[..high].iter().filter_map(|h| if let Home::Thread(t) = h { Some(*t) } else { None }).collect();
        let in_order = changes <= if kinds.first() == Some(&false) { 2 } else { 1 } && threads.is_sorted();
        (in_order && !self.rolled(&layout)).then_some(layout)
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

    /// Adds to every run the sum of the runs before it. Registers are those of `kept` lines, of runs `apart`, and `along` a run.
    #[allow(clippy::too_many_arguments)] // one call, all of it the shape of the scan
    fn scan_across(
        &mut self, operands: &[Rc<Node>], region: &Block, layout: &Layout, slots: &[Rc<Slot>], [kept, apart, along]: [&[usize]; 3], threads: &[u8], reverse: bool,
    ) -> Result<()> {
        let items: Vec<Item> = operands.iter().map(|o| o.item).collect();
        let zero = vec![Bit::Zero; layout.reg_bits()];
        let end = const_bits(if reverse { 0 } else { (1u32 << along.len()) - 1 }, along.len());
        let each: Vec<usize> = apart.iter().chain(kept).copied().collect();
        let rows: Vec<Vec<Bit>> = (0..1u32 << each.len()).map(|k| set(&zero, &each, &const_bits(k, each.len()))).collect();
        let mut totals: Vec<Vec<Val>> = Vec::new();
        for row in &rows {
            let at = set(row, along, &end);
            totals.push(slots.iter().zip(&items).map(|(s, i)| self.get_at(s.var, &at, item_ty(*i))).collect());
        }
        let mut sums = Before { before: None, any: self.truth(false), totals };
        let lanes = if self.kernel.subgroup > 1 { self.kernel.subgroup.trailing_zeros() as u8 } else { 0 };
        let (near, far): (Vec<u8>, Vec<u8>) = threads.iter().copied().partition(|t| *t < lanes);
        let at_once = lanes > 0 && far.len() <= MOST_GATHERED && !far.is_empty();
        for t in if at_once { near.as_slice() } else { threads } {
            self.scan_step(&items, region, &mut sums, *t, lanes, reverse)?;
        }
        if at_once {
            self.scan_far(&items, region, layout, [&near, &far], &mut sums, reverse)?;
        }
        let before = sums.before.unwrap_or_default();
        let runs = 1usize << apart.len();
        for line in 0..1usize << kept.len() {
            let mut through: Option<Vec<Val>> = None;
            for run in 0..runs {
                let row = line * runs + if reverse { runs - 1 - run } else { run };
                // What comes before the first run of the first thread is nothing.
                let (sum, always) = match &through {
                    None => (before[row].clone(), false),
                    Some(carry) => {
                        let with = self.combine(region, carry, &before[row])?;
                        (with.iter().zip(carry).map(|(w, c)| self.select(sums.any, *w, *c)).collect(), true)
                    }
                };
                self.scan_add(&items, region, layout, slots, (&rows[row], along), &sum, (!always).then_some(sums.any))?;
                through = Some(match through {
                    None => sums.totals[row].clone(),
                    Some(carry) => self.combine(region, &carry, &sums.totals[row])?,
                });
            }
        }
        Ok(())
    }

    /// Adds a sum to a run, where a condition holds.
    #[allow(clippy::too_many_arguments)] // one call, all of it the shape of the scan
    fn scan_add(
        &mut self, items: &[Item], region: &Block, layout: &Layout, slots: &[Rc<Slot>], (row, along): (&[Bit], &[usize]), sum: &[Val], condition: Option<Val>,
    ) -> Result<()> {
        let apply = |l: &mut Self, index: &[Bit]| -> Result<()> {
            let at = set(row, along, index);
            let own: Vec<Val> = slots.iter().zip(items).map(|(s, i)| l.get_at(s.var, &at, item_ty(*i))).collect();
            let with = l.combine(region, sum, &own)?;
            for ((s, own), with) in slots.iter().zip(&own).zip(&with) {
                let v = condition.map_or(*with, |c| l.select(c, *with, *own));
                l.set_at(s.var, &at, v);
            }
            Ok(())
        };
        if self.rolled(layout) {
            return self.counted(along.len(), true, |l, index| apply(l, index));
        }
        (0..1u32 << along.len()).try_for_each(|n| apply(self, &const_bits(n, along.len())))
    }

    /// Sums of two groups of threads that differ in a bit of the thread number become one of both.
    fn scan_step(&mut self, items: &[Item], region: &Block, sums: &mut Before, thread: u8, lanes: u8, reverse: bool) -> Result<()> {
        let flat: Vec<(Item, Val)> = sums.totals.iter().flat_map(|v| items.iter().copied().zip(v.iter().copied())).collect();
        let others: Vec<Val> = if thread < lanes {
            flat.iter().map(|(i, v)| self.shuffle(*i, *v, Shuffle::Xor(1 << thread), None)).collect()
        } else {
            self.exchange(&flat, 1 << thread)?
        };
        let mut later = self.bit(Bit::Thread(thread));
        if reverse {
            let one = self.truth(true);
            later = self.int(Binary::Xor, Elem::I1, later, one);
        }
        let mut next = Vec::new();
        for (k, other) in others.chunks(items.len()).enumerate() {
            let own = sums.totals[k].clone();
            next.push(match &sums.before {
                None => other.to_vec(),
                Some(b) => {
                    let with = self.combine(region, other, &b[k])?;
                    let grown: Vec<Val> = with.iter().zip(other).map(|(w, o)| self.select(sums.any, *w, *o)).collect();
                    grown.iter().zip(&b[k]).map(|(g, b)| self.select(later, *g, *b)).collect()
                }
            });
            let left: Vec<Val> = own.iter().zip(other).map(|(a, b)| self.select(later, *b, *a)).collect();
            let right: Vec<Val> = own.iter().zip(other).map(|(a, b)| self.select(later, *a, *b)).collect();
            sums.totals[k] = self.combine(region, &left, &right)?;
        }
        sums.before = Some(next);
        sums.any = self.int(Binary::Or, Elem::I1, sums.any, later);
        Ok(())
    }

    /// Sums of subgroups become those of all: each thread reads all of its line, and takes what comes before its own.
    fn scan_far(&mut self, items: &[Item], region: &Block, layout: &Layout, [near, far]: [&[u8]; 2], sums: &mut Before, reverse: bool) -> Result<()> {
        let gathered = self.gather_far(items, layout, (near, far), &sums.totals)?;
        let own: Vec<Bit> = far.iter().map(|t| Bit::Thread(*t)).collect();
        let own = self.compose(&own);
        let order: Vec<usize> = if reverse { (0..1 << far.len()).rev().collect() } else { (0..1 << far.len()).collect() };
        let places: Vec<Val> = order
            .iter()
            .map(|n| {
                let n = self.i32(*n as i64);
                self.cmp(CmpI::Eq, own, n)
            })
            .collect();
        let mut next = Vec::new();
        for (k, all) in gathered.into_iter().enumerate() {
            let mut sum = all[order[0]].clone();
            let mut before = sum.clone();
            for (place, n) in places.iter().zip(&order).skip(1) {
                before = sum.iter().zip(&before).map(|(s, b)| self.select(*place, *s, *b)).collect();
                sum = self.combine(region, &sum, &all[*n])?;
            }
            next.push(match &sums.before {
                None => before,
                Some(nearer) => {
                    let with = self.combine(region, &before, &nearer[k])?;
                    let grown: Vec<Val> = with.iter().zip(&before).map(|(w, b)| self.select(sums.any, *w, *b)).collect();
                    grown.iter().zip(&nearer[k]).map(|(g, n)| self.select(places[0], *n, *g)).collect()
                }
            });
            sums.totals[k] = sum;
        }
        sums.before = Some(next);
        let one = self.truth(true);
        let later = self.int(Binary::Xor, Elem::I1, places[0], one);
        sums.any = self.int(Binary::Or, Elem::I1, sums.any, later);
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
