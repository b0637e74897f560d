//! Software pipelines: loops whose loads feed products on a matrix unit copy the factors of later rounds into shared memory while they multiply.
//!
//! A buffer holds one factor for as many rounds as there are stages. Ahead of the loop the copies of all rounds but the last of them start. A
//! round waits for its own, meets the other threads (who are through with the round before), starts the copies of the round that takes that
//! round's place, and multiplies. What a load's addresses depend on is computed again for the round to come, so it must follow from the loop's
//! index and from scalars that grow by the same amount in every round.

use std::collections::HashMap;
use std::rc::Rc;

use crate::error::Result;
use crate::lower::layout::{Layout, const_bits, log2};
use crate::lower::matrix::{Factor, stride};
use crate::lower::node::Node;
use crate::lower::ops::uses;
use crate::lower::{Lower, Rep};
use crate::thread::{Effect, Inst, Shared, Stmt, Ty, Val, Var};
use crate::tile::{Binary, Block, CmpI, Item, Op, OpKind, Value};
use crate::{Elem, lower::facts};

/// A loop's pipeline.
pub(super) struct Pipeline {
    /// Operations that compute addresses and masks, in order.
    slice: Vec<usize>,
    /// Loads that became copies.
    loads: Vec<Staged>,
    /// Carried scalars that addresses depend on, by number, and what they grow by in a round.
    grow: Vec<(usize, Val)>,
    /// Rounds in flight and at work.
    stages: u32,
    /// Stage of the round at work.
    slot: Var,
    /// Index, bound and step of the loop.
    bounds: [Val; 3],
    unsigned: bool,
}

/// A load that became copies.
struct Staged {
    op: usize,
    result: Value,
    elem: Elem,
    array: Shared,
    /// Elements between lines in shared memory; lines run along the last axis, or the first.
    stride: u32,
    turned: bool,
    /// Elements of a stage.
    size: u32,
}

/// How a tile is read for copies.
struct Source {
    pointer: Rc<Node>,
    mask: Option<Rc<Node>>,
    layout: Layout,
    /// log2 of the elements copied at once.
    vector: usize,
    turned: bool,
}

fn recomputed(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Constant(_) | OpKind::MakeRange(_) | OpKind::Splat | OpKind::ExpandDims(_) | OpKind::Broadcast | OpKind::Reshape { .. } | OpKind::Trans(_)
            | OpKind::Unary(_) | OpKind::Binary(_) | OpKind::CmpI(_) | OpKind::Select | OpKind::Cast(_) | OpKind::AddPtr
    )
}

impl Lower<'_> {
    /// The pipeline of a loop, with its first copies started; none where nothing can be copied aside.
    pub fn pipeline(&mut self, region: &Block, inits: &[Rep], [low, high, step]: [Val; 3], unsigned: bool) -> Result<Option<Pipeline>> {
        if self.stages < 2 || self.thread_bits == 0 {
            return Ok(None);
        }
        let mut grow = Vec::new();
        for i in 0..inits.len() {
            grow.extend(self.growth(region, i).map(|by| (i, by)));
        }
        let (mut found, mut slice) = (Vec::new(), Vec::new());
        for (op, elem) in self.feeding(region) {
            let mut needed = vec![false; region.ops.len()];
            if region.ops[op].operands.iter().all(|v| self.reaches(region, *v, &grow, &mut needed)) {
                found.push((op, elem));
                slice.extend((0..needed.len()).filter(|i| needed[*i]));
            }
        }
        slice.sort_unstable();
        slice.dedup();
        if found.is_empty() {
            return Ok(None);
        }
        let slot = self.var(Ty::Elem(Elem::I32), 1);
        let mut p = Pipeline { slice, loads: Vec::new(), grow, stages: 0, slot, bounds: [low, high, step], unsigned };
        // What copies look like is found out by lowering them once for nothing.
        self.open();
        self.look_ahead(&p, region, low, inits)?;
        let mut planned = Vec::new();
        for (op, elem) in found {
            let Some(source) = self.source(&region.ops[op])? else { continue };
            let [lines, length] = if source.turned { [source.pointer.shape[1], source.pointer.shape[0]] } else { [source.pointer.shape[0], source.pointer.shape[1]] };
            let stride = stride(length, elem);
            planned.push(Staged { op, result: region.ops[op].results[0], elem, array: Shared(0), stride, turned: source.turned, size: lines * stride });
        }
        self.close();
        self.look_back(&p, region);
        let stage: u32 = planned.iter().map(|s| s.size * s.elem.bytes()).sum();
        let room = self.target.shared_bytes.saturating_sub(self.unit_bytes(region, &planned));
        p.stages = self.stages.min(room / stage.max(1));
        if p.stages < 2 || planned.is_empty() {
            return Ok(None);
        }
        let mut used = false;
        for staged in planned {
            let (array, before) = self.typed(staged.elem, staged.size * p.stages)?;
            self.held.push(array.0);
            used |= before;
            p.loads.push(Staged { array, ..staged });
        }
        if used {
            self.barrier(false);
        }
        let zero = self.i32(0);
        self.effect(Effect::Set(slot, 0, zero));
        for round in 0..p.stages - 1 {
            let ahead = self.rounds(&p, round);
            let there = self.more(&p, low, ahead, true);
            self.open();
            let index = self.int(Binary::AddI, self.index_elem(low), low, ahead);
            let carried = self.grown(&p, inits, round);
            let to = self.i32(i64::from(round));
            self.start(&p, region, index, &carried, to)?;
            let then = self.close();
            self.push(Stmt::If { condition: there, uniform: self.uniform, then, other: Vec::new() });
            self.effect(Effect::CopyGroup);
        }
        Ok(Some(p))
    }

    /// The beginning of a round: its factors are there; copies for a later one start while its first products are under way.
    pub fn turn(&mut self, p: &Pipeline, region: &Block, index: Val) -> Result<()> {
        let carried = region.args[1..].iter().map(|v| self.rep(*v)).collect::<Result<Vec<_>>>()?;
        self.effect(Effect::CopyWait(p.stages - 2));
        self.barrier(false);
        let slot = self.inst(Ty::Elem(Elem::I32), Inst::Get(p.slot, 0));
        let (zero, one, last) = (self.i32(0), self.i32(1), self.i32(i64::from(p.stages) - 1));
        let ahead = self.rounds(p, p.stages - 1);
        let there = self.more(p, index, ahead, false);
        self.open();
        let first = self.cmp(CmpI::Eq, slot, zero);
        let before = self.int(Binary::SubI, Elem::I32, slot, one);
        let to = self.select(first, last, before);
        let index = self.int(Binary::AddI, self.index_elem(index), index, ahead);
        let carried = self.grown(p, &carried, p.stages - 1);
        self.start(p, region, index, &carried, to)?;
        let then = self.close();
        self.later = vec![Stmt::If { condition: there, uniform: self.uniform, then, other: Vec::new() }, Stmt::Do(Effect::CopyGroup)];
        for s in &p.loads {
            let size = self.i32(i64::from(s.size));
            let base = self.int(Binary::MulI, Elem::I32, slot, size);
            self.staged.insert(s.result, Factor { array: s.array, base: Some(base), stride: s.stride, turned: s.turned });
        }
        let next = self.add(slot, one);
        let ends = self.cmp(CmpI::Eq, slot, last);
        let next = self.select(ends, zero, next);
        self.effect(Effect::Set(p.slot, 0, next));
        Ok(())
    }

    /// Starts the copies that were put off until a unit is at work.
    pub fn start_later(&mut self) {
        for stmt in std::mem::take(&mut self.later) {
            self.push(stmt);
        }
    }

    /// The end of the loop.
    pub fn drain(&mut self, p: &Pipeline) {
        for s in &p.loads {
            self.staged.remove(&s.result);
            self.held.retain(|n| *n != s.array.0);
        }
    }

    /// `tt.dot` of which a factor is staged.
    pub fn staged_dot(&mut self, op: &Op) -> Result<Option<Rc<Node>>> {
        let staged = [op.operands[0], op.operands[1]].map(|v| self.staged.get(&v).copied());
        if staged == [None, None] {
            return Ok(None);
        }
        let Some(plan) = self.plan_of(op) else { return Err(self.internal("a staged factor of a product without a matrix unit".into())) };
        let mut tiles = [None, None];
        for i in 0..2 {
            if staged[i].is_none() {
                tiles[i] = Some(self.tile(op.operands[i])?);
            }
        }
        let c = self.tile(op.operands[2])?;
        let result = c.item.elem().unwrap_or(plan.shape.sum);
        let start = self.converted(&c, plan.shape.sum);
        let depth = self.function.ty(op.operands[0]).shape()[1];
        let sums = self.sum_fragments(&plan, &start)?;
        let left = if let [Some(a), _] = &tiles { self.left_fragments(&plan, a)? } else { None };
        let factors = self.factors([tiles[0].as_ref().filter(|_| left.is_none()), tiles[1].as_ref()], staged, plan.shape.factor)?;
        let product = self.multiply_in_unit(plan, factors, left.as_deref(), depth, sums, &c.shape)?;
        Ok(Some(self.converted(&product, result)))
    }

    /// Loads of the loop that do nothing but feed a product on a matrix unit, by number, with the factors' type.
    fn feeding(&self, region: &Block) -> Vec<(usize, Elem)> {
        let mut used: HashMap<Value, u32> = HashMap::new();
        region.ops.iter().for_each(|o| uses(o, &mut |v| *used.entry(v).or_default() += 1));
        let mut out = Vec::new();
        for dot in region.ops.iter().filter(|o| matches!(o.kind, OpKind::Dot { .. })) {
            let Some(plan) = self.plan_of(dot) else { continue };
            for value in &dot.operands[..2] {
                let at = region.ops.iter().position(|o| o.results.contains(value) && matches!(o.kind, OpKind::Load { volatile: false, .. }));
                if let Some(at) = at.filter(|_| used[value] == 1) {
                    out.push((at, plan.shape.factor));
                }
            }
        }
        out
    }

    /// What carried scalar `i` grows by in a round.
    fn growth(&mut self, region: &Block, i: usize) -> Option<Val> {
        let arg = region.args[i + 1];
        let last = *region.ops.last()?.operands.get(i)?;
        let def = region.ops.iter().find(|o| o.results.contains(&last))?;
        if self.function.ty(arg).is_tile() || !matches!(def.kind, OpKind::Binary(Binary::AddI) | OpKind::AddPtr) || def.operands[0] != arg {
            return None;
        }
        let by = def.operands[1];
        match (self.constant_in(region, by), self.env.get(&by)) {
            (Some(n), _) => {
                let elem = self.function.ty(by).elem()?;
                Some(self.bits(elem, n))
            }
            (None, Some(Rep::Scalar(v))) => Some(*v),
            _ => None,
        }
    }

    /// Whether a value can be computed for a round to come; marks the operations that do.
    fn reaches(&self, region: &Block, value: Value, grow: &[(usize, Val)], needed: &mut [bool]) -> bool {
        if let Some(arg) = region.args.iter().position(|a| *a == value) {
            return arg == 0 || grow.iter().any(|g| g.0 + 1 == arg);
        }
        let Some(at) = region.ops.iter().position(|o| o.results.contains(&value)) else { return true };
        if needed[at] {
            return true;
        }
        needed[at] = true;
        recomputed(&region.ops[at].kind) && region.ops[at].operands.iter().all(|v| self.reaches(region, *v, grow, needed))
    }

    /// Bytes of shared memory that the loop's products take besides staged factors: patches and other factors, at most.
    fn unit_bytes(&self, region: &Block, planned: &[Staged]) -> u32 {
        let of = |op: &Op| {
            let plan = self.plan_of(op)?;
            let (a, c) = (self.function.ty(op.operands[0]).shape(), self.function.ty(op.operands[2]).shape());
            let (elem, shape) = (plan.shape.factor, [c[0], c[1]]);
            let own = [shape[0] * stride(a[1], elem), a[1] * stride(shape[1], elem)];
            let elsewhere = |i: usize| planned.iter().any(|s| s.result == op.operands[i]) || i == 0 && plan.left_in_registers();
            let staged = (0..2).filter(|i| elsewhere(*i)).map(|i| own[i] * elem.bytes());
            Some(self.unit_room(&plan.shape, shape, a[1]) - staged.sum::<u32>())
        };
        region.ops.iter().filter(|o| matches!(o.kind, OpKind::Dot { .. })).filter_map(of).max().unwrap_or(0) + self.kernel.shared_bytes()
    }

    fn index_elem(&self, index: Val) -> Elem {
        if let Ty::Elem(e) = self.kernel.ty(index) { e } else { Elem::I32 }
    }

    /// What the index grows by in so many rounds.
    fn rounds(&mut self, p: &Pipeline, rounds: u32) -> Val {
        let elem = self.index_elem(p.bounds[2]);
        let rounds = self.bits(elem, u64::from(rounds));
        self.int(Binary::MulI, elem, p.bounds[2], rounds)
    }

    /// Whether the loop has a round `ahead` of an index; the index itself is below the bound unless `open`.
    fn more(&mut self, p: &Pipeline, index: Val, ahead: Val, open: bool) -> Val {
        let rest = self.int(Binary::SubI, self.index_elem(index), p.bounds[1], index);
        let far = self.cmp(CmpI::Ugt, rest, ahead);
        if !open {
            return far;
        }
        let any = self.cmp(if p.unsigned { CmpI::Ult } else { CmpI::Slt }, index, p.bounds[1]);
        self.and(any, far)
    }

    /// Carried scalars some rounds later; what addresses do not depend on stays.
    fn grown(&mut self, p: &Pipeline, carried: &[Rep], rounds: u32) -> Vec<Rep> {
        let mut out = carried.to_vec();
        for (i, by) in &p.grow {
            let (Rep::Scalar(v), Ty::Elem(elem)) = (&carried[*i], self.kernel.ty(*by)) else { continue };
            let (v, ty) = (*v, self.kernel.ty(*v));
            let times = self.bits(elem, u64::from(rounds));
            let by = self.int(Binary::MulI, elem, *by, times);
            let later = if let Ty::Elem(e) = ty { self.int(Binary::AddI, e, v, by) } else { self.inst(ty, Inst::PtrAdd(v, by)) };
            let unit = if let Ty::Ptr(e) = ty { u64::from(e.bytes()) } else { 1 };
            self.divisible.insert(later, self.div(v).min(self.div(by).saturating_mul(unit)).min(facts::MAX_DIV));
            if let Some(root) = self.arguments.get(&v).copied() {
                self.arguments.insert(later, root);
            }
            out[*i] = Rep::Scalar(later);
        }
        out
    }

    /// Lowers what the loads need for an index.
    fn look_ahead(&mut self, p: &Pipeline, region: &Block, index: Val, carried: &[Rep]) -> Result<()> {
        let [low, _, step] = p.bounds;
        self.divisible.insert(index, self.div(low).min(self.div(step)).max(self.div(index)));
        self.env.insert(region.args[0], Rep::Scalar(index));
        for (arg, rep) in region.args[1..].iter().zip(carried) {
            self.env.insert(*arg, rep.clone());
        }
        for i in &p.slice {
            self.op(&region.ops[*i])?;
        }
        Ok(())
    }

    fn look_back(&mut self, p: &Pipeline, region: &Block) {
        let made = p.slice.iter().flat_map(|i| &region.ops[*i].results);
        for v in region.args.iter().chain(made) {
            self.env.remove(v);
        }
    }

    /// How a load's tile is copied: in vectors that one mask covers, with zeros where masked off.
    fn source(&mut self, load: &Op) -> Result<Option<Source>> {
        let OpKind::Load { mask, other, .. } = load.kind else { return Ok(None) };
        let pointer = self.tile(load.operands[0])?;
        let Item::Ptr(elem) = pointer.item else { return Ok(None) };
        let mask = if mask { Some(self.spread(load.operands[1], &pointer.shape)?) } else { None };
        let zero = match other {
            false => true,
            true => {
                let other = self.spread(load.operands[2], &pointer.shape)?;
                matches!(*other.kind(), crate::lower::node::Kind::Splat(v) if self.constant(v) == Some(0))
            }
        };
        let layout = self.anchor(&pointer);
        let (vector, _, axis) = self.vector(&pointer, &layout);
        let fits = zero && elem.bytes() << vector >= 4 && pointer.shape.len() == 2 && mask.as_ref().is_none_or(|m| self.mask_runs(m, &layout) >= vector);
        Ok(fits.then_some(Source { pointer, mask, layout, vector, turned: axis == 0 }))
    }

    /// Starts the copies of a round into a stage.
    fn start(&mut self, p: &Pipeline, region: &Block, index: Val, carried: &[Rep], stage: Val) -> Result<()> {
        let saved: Vec<Option<Rep>> = region.args.iter().map(|a| self.env.get(a).cloned()).collect();
        self.look_ahead(p, region, index, carried)?;
        for s in &p.loads {
            let Some(source) = self.source(&region.ops[s.op])? else { return Err(self.internal("a load that was to be copied cannot be".into())) };
            let Source { pointer, mask, layout, vector, turned } = source;
            for n in [Some(&pointer), mask.as_ref()].into_iter().flatten() {
                self.prepare(n, &self.wants(&layout, vector))?;
            }
            let (size, by) = (self.i32(i64::from(s.size)), self.i32(i64::from(s.stride)));
            let base = self.int(Binary::MulI, Elem::I32, stage, size);
            let columns = log2(pointer.shape[1]) as usize;
            let writer = self.writer(&layout);
            self.open();
            self.each(&pointer.shape.clone(), &layout, vector, &mut |l, regs| {
                let mut regs = regs.to_vec();
                regs[..vector].copy_from_slice(&const_bits(0, vector));
                let pos = layout.pos(&regs);
                let from = l.eval(&pointer, &pos)?;
                let mask = mask.as_ref().map(|m| l.eval(m, &pos)).transpose()?.filter(|m| l.constant(*m) != Some(1));
                let (row, column) = (l.compose(&pos[columns..]), l.compose(&pos[..columns]));
                let (line, along) = if turned { (column, row) } else { (row, column) };
                let within = l.int(Binary::MulI, Elem::I32, line, by);
                let within = l.add(within, along);
                let index = l.add(base, within);
                l.effect(Effect::Copy { array: s.array, index, pointer: from, count: 1 << vector, mask });
                Ok(())
            })?;
            let copies = self.close();
            match writer {
                Some(condition) => self.push(Stmt::If { condition, uniform: false, then: copies, other: Vec::new() }),
                None => copies.into_iter().for_each(|c| self.push(c)),
            }
        }
        self.look_back(p, region);
        for (arg, rep) in region.args.iter().zip(saved) {
            self.env.extend(rep.map(|r| (*arg, r)));
        }
        Ok(())
    }
}
