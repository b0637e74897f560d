//! Loops and branches: what they carry lives in variables.

use std::collections::HashSet;
use std::rc::Rc;

use crate::error::Result;
use crate::lower::facts::power;
use crate::lower::layout::{Layout, axis_bits};
use crate::lower::matrix::{Fragments, Plan};
use crate::lower::node::{Kind, Node, Slot, Src, Storage, cheap, item_ty};
use crate::lower::ops::{item, uses};
use crate::lower::rows::elementwise;
use crate::lower::{Lower, Rep};
use crate::thread::{Effect, Inst, Role, Stmt, Ty, Val, Var};
use crate::tile::{Binary, Block, Item, Op, OpKind, Type, Value};

/// Where a carried value lives.
enum Carry {
    /// A scalar.
    Scalar(Var, Ty),
    /// Registers of a tile.
    Vars(Layout, Vec<Var>, Vec<u32>, Item),
    /// Sums of products on a matrix unit.
    Fragments(Plan, Vec<Var>, Vec<u32>),
    /// A large tile.
    Array(Layout, Rc<Slot>, Vec<u32>, Item),
}

impl Lower<'_> {
    /// `scf.for`, `scf.if`, `scf.while`.
    pub fn control(&mut self, op: &Op) -> Result<()> {
        self.enter(op)?;
        let outer = self.tee.take();
        match &op.kind {
            OpKind::For { unsigned } => self.for_loop(op, *unsigned),
            OpKind::If => self.branch(op),
            _ => self.while_loop(op),
        }?;
        self.tee = outer;
        for region in &op.regions {
            self.forget(region);
        }
        Ok(())
    }

    fn forget(&mut self, block: &Block) {
        for v in block.args.iter().chain(block.ops.iter().flat_map(|o| &o.results)) {
            self.env.remove(v);
        }
    }

    /// Stores what the regions take from outside, so that it is computed once.
    fn enter(&mut self, op: &Op) -> Result<()> {
        self.flush()?;
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        for region in &op.regions {
            for o in &region.ops {
                uses(o, &mut |v| {
                    if seen.insert(v) {
                        wanted.push(v);
                    }
                });
            }
        }
        for v in wanted {
            if let Some(Rep::Tile(n)) = self.env.get(&v).cloned()
                && !cheap(&n)
                && n.versions.borrow().is_empty()
            {
                self.settle(&n)?;
            }
        }
        Ok(())
    }

    fn carry(&mut self, ty: &Type, layout: Option<Layout>) -> Result<Carry> {
        let it = item(ty)?;
        if !ty.is_tile() {
            return Ok(Carry::Scalar(self.var(item_ty(it), 1), item_ty(it)));
        }
        let shape = ty.shape().to_vec();
        let layout = layout.unwrap_or_else(|| self.default_layout(&shape, it));
        if self.rolled(&layout) {
            let slot = self.slot(item_ty(it), layout.regs());
            return Ok(Carry::Array(layout, slot, shape, it));
        }
        let vars = (0..layout.regs()).map(|_| self.var(item_ty(it), 1)).collect();
        Ok(Carry::Vars(layout, vars, shape, it))
    }

    /// What a carried value is at this place.
    fn carried(&mut self, carry: &Carry) -> Rep {
        match carry {
            Carry::Scalar(var, ty) => Rep::Scalar(self.inst(*ty, Inst::Get(*var, 0))),
            Carry::Vars(layout, vars, shape, it) => {
                let vals = vars.iter().map(|v| self.inst(item_ty(*it), Inst::Get(*v, 0))).collect();
                Rep::Tile(self.stored(shape, *it, layout.clone(), Storage::Vals(vals)))
            }
            Carry::Fragments(plan, vars, shape) => {
                let ty = self.fragment_ty(plan.shape, Role::Sum);
                let values = vars.iter().map(|v| self.inst(ty, Inst::Get(*v, 0))).collect();
                Rep::Tile(self.in_fragments(shape, Fragments { plan: plan.clone(), values }))
            }
            Carry::Array(layout, slot, shape, it) => Rep::Tile(self.stored(shape, *it, layout.clone(), Storage::Array(Rc::clone(slot)))),
        }
    }

    /// Sets carried values; all are computed before any changes.
    fn assign(&mut self, carries: &[Carry], values: &[Rep]) -> Result<()> {
        let arrays: Vec<Var> = carries.iter().filter_map(|c| if let Carry::Array(_, s, ..) = c { Some(s.var) } else { None }).collect();
        let mut sets: Vec<(Var, Val)> = Vec::new();
        for (carry, value) in carries.iter().zip(values) {
            match (carry, value) {
                (Carry::Scalar(var, _), Rep::Scalar(v)) => sets.push((*var, *v)),
                (Carry::Vars(layout, vars, shape, _), Rep::Tile(n)) => {
                    self.prepare(n, &self.wants(layout, 0))?;
                    let mut at = vars.iter();
                    self.each(shape, layout, 0, &mut |l, regs| {
                        let v = l.eval(n, &layout.pos(regs))?;
                        sets.extend(at.next().map(|var| (*var, v)));
                        Ok(())
                    })?;
                }
                (Carry::Fragments(plan, vars, _), Rep::Tile(n)) => sets.extend(vars.iter().copied().zip(self.sum_fragments(plan, n)?)),
                (Carry::Array(layout, slot, ..), Rep::Tile(n)) => {
                    self.prepare(n, &self.wants(layout, 0))?;
                    if reads(n, &arrays, slot.var, true) {
                        self.copy(n, layout)?;
                    }
                }
                _ => return Err(self.internal("a carried value changes between scalar and tile".into())),
            }
        }
        for (carry, value) in carries.iter().zip(values) {
            let (Carry::Array(layout, slot, shape, _), Rep::Tile(n)) = (carry, value) else { continue };
            let same = n.versions.borrow().iter().any(|v| matches!(&v.storage, Storage::Array(s) if s.var == slot.var && v.layout == *layout));
            if same {
                continue;
            }
            self.each(shape, layout, 0, &mut |l, regs| {
                let v = l.eval(n, &layout.pos(regs))?;
                l.set_at(slot.var, regs, v);
                Ok(())
            })?;
        }
        for (var, v) in sets {
            self.effect(Effect::Set(var, 0, v));
        }
        Ok(())
    }

    /// Gives a tile storage of its own, in front of any it shares.
    fn copy(&mut self, node: &Rc<Node>, layout: &Layout) -> Result<()> {
        let slot = self.slot(item_ty(node.item), layout.regs());
        self.each(&node.shape, layout, 0, &mut |l, regs| {
            let v = l.eval(node, &layout.pos(regs))?;
            l.set_at(slot.var, regs, v);
            Ok(())
        })?;
        node.versions.borrow_mut().clear();
        self.keep(node, layout.clone(), Storage::Array(slot));
        Ok(())
    }

    fn reps(&self, values: &[Value]) -> Result<Vec<Rep>> {
        values.iter().map(|v| self.rep(*v)).collect()
    }

    fn finish(&mut self, op: &Op, carries: &[Carry]) {
        for (r, c) in op.results.iter().zip(carries) {
            let rep = self.carried(c);
            self.env.insert(*r, rep);
        }
    }

    fn for_loop(&mut self, op: &Op, unsigned: bool) -> Result<()> {
        let (low, high, step) = (self.scalar(op.operands[0])?, self.scalar(op.operands[1])?, self.scalar(op.operands[2])?);
        let region = &op.regions[0];
        let inits = self.reps(&op.operands[3..])?;
        let mut carries = Vec::new();
        for (i, (init, v)) in inits.iter().zip(&op.operands[3..]).enumerate() {
            let ty = self.function.ty(*v).clone();
            if let Some(plan) = self.carried_plan(region, i) {
                let fragment = self.fragment_ty(plan.shape, Role::Sum);
                let vars = (0..plan.each[0] * plan.each[1]).map(|_| self.var(fragment, 1)).collect();
                carries.push(Carry::Fragments(plan, vars, ty.shape().to_vec()));
                continue;
            }
            let layout = match init {
                Rep::Tile(n) => self.prefer(n).or_else(|| self.carry_layout(region, i)),
                Rep::Scalar(_) => None,
            };
            carries.push(self.carry(&ty, layout)?);
        }
        let lefts = self.lefts.clone();
        self.left_factors(region)?;
        let pipeline = self.pipeline(region, &inits, [low, high, step], unsigned)?;
        self.assign(&carries, &inits)?;
        let uniform = self.uniform;
        let ty = self.kernel.ty(low);
        let index = self.fresh(ty);
        self.divisible.insert(index, self.div(low).min(self.div(step)));
        self.open();
        self.loop_depth += 1;
        self.env.insert(region.args[0], Rep::Scalar(index));
        for (i, c) in carries.iter().enumerate() {
            let rep = self.carried(c);
            if let (Rep::Scalar(v), Rep::Scalar(init)) = (&rep, &inits[i]) {
                self.carried_facts(region, i, *v, *init);
            }
            self.env.insert(region.args[i + 1], rep);
        }
        if let Some(p) = &pipeline {
            self.turn(p, region, index)?;
        }
        let yielded = self.block(region)?;
        let values = self.reps(&yielded)?;
        self.assign(&carries, &values)?;
        self.loop_depth -= 1;
        let body = self.close();
        self.push(Stmt::For { index, low, high, step, unsigned, uniform, unroll: u32::from(pipeline.is_some()), body });
        if let Some(p) = &pipeline {
            self.drain(p);
        }
        self.lefts = lefts;
        self.finish(op, &carries);
        Ok(())
    }

    /// The layout of what a loop carries when its start has none: that of what it yields.
    fn carry_layout(&self, region: &Block, i: usize) -> Option<Layout> {
        self.expected(region, *region.ops.last()?.operands.get(i)?, &mut HashSet::new())
    }

    /// The layout that a value of a region will have, where it follows from a product.
    fn expected(&self, region: &Block, value: Value, seen: &mut HashSet<Value>) -> Option<Layout> {
        let def = region.ops.iter().find(|o| o.results.contains(&value)).filter(|_| seen.insert(value))?;
        let mut of = |v: &Value| self.expected(region, *v, seen);
        match &def.kind {
            OpKind::Dot { .. } | OpKind::DotScaled { .. } => {
                Some(self.plan_of(def).map_or_else(|| self.dot_layout(self.function.ty(value).shape()), |p| p.layout))
            }
            OpKind::Reduce(axis) => {
                let operand = def.operands.first()?;
                let (low, high) = axis_bits(self.function.ty(*operand).shape(), *axis as usize);
                let layout = of(operand)?;
                let bits = layout.homes.len();
                Some(layout.keep((0..bits).filter(|b| *b < low || *b >= high)))
            }
            OpKind::ExpandDims(_) => of(def.operands.first()?),
            OpKind::If => {
                let i = def.results.iter().position(|r| *r == value)?;
                let mut yields = def.regions.iter().filter_map(|r| Some((r, *r.ops.last()?.operands.get(i)?)));
                yields.find_map(|(inner, v)| self.expected(inner, v, seen).or_else(|| self.expected(region, v, seen)))
            }
            kind if elementwise(kind) => def.operands.iter().find_map(of),
            _ => None,
        }
    }

    /// Left factors from outside a loop, which its products want in fragments: made once.
    fn left_factors(&mut self, region: &Block) -> Result<()> {
        for op in region.ops.iter().filter(|o| matches!(o.kind, OpKind::Dot { .. })) {
            if let (Some(Rep::Tile(node)), Some(plan)) = (self.env.get(&op.operands[0]).cloned(), self.plan_of(op))
                && let Some(made) = self.left_fragments(&plan, &node)?
            {
                self.lefts.insert(node.id, made);
            }
        }
        Ok(())
    }

    /// Divisibility and origin of a carried scalar that grows by a fixed step.
    fn carried_facts(&mut self, region: &Block, i: usize, v: Val, init: Val) {
        let arg = region.args[i + 1];
        let Some(last) = region.ops.last().and_then(|o| o.operands.get(i)) else { return };
        let Some(def) = region.ops.iter().find(|o| o.results.contains(last)) else { return };
        if !matches!(def.kind, OpKind::AddPtr | OpKind::Binary(Binary::AddI)) || def.operands[0] != arg {
            return;
        }
        let step = match (self.env.get(&def.operands[1]), self.constant_in(region, def.operands[1])) {
            (Some(Rep::Scalar(s)), _) => self.div(*s),
            (_, Some(n)) => power(n),
            _ => 1,
        };
        let unit = if let Ty::Ptr(e) = self.kernel.ty(v) { u64::from(e.bytes()) } else { 1 };
        self.divisible.insert(v, self.div(init).min(step * unit));
        if let Some(root) = self.arguments.get(&init).copied() {
            self.arguments.insert(v, root);
        }
    }

    /// The integer a value is in a region, where it is a constant there.
    pub fn constant_in(&self, region: &Block, v: Value) -> Option<u64> {
        region.ops.iter().find(|o| o.results.contains(&v)).and_then(|o| match o.kind {
            OpKind::Constant(crate::tile::Literal::Int(n)) => Some(n as u64),
            _ => None,
        })
    }

    fn branch(&mut self, op: &Op) -> Result<()> {
        let condition = self.scalar(op.operands[0])?;
        let uniform = self.uniform;
        let mut carries: Option<Vec<Carry>> = None;
        let mut lists = Vec::new();
        for region in &op.regions {
            self.open();
            let yielded = self.block(region)?;
            let values = self.reps(&yielded)?;
            if !op.results.is_empty() {
                let made = match carries.take() {
                    Some(c) => c,
                    None => self.carries_like(&yielded, &values)?,
                };
                self.assign(&made, &values)?;
                carries = Some(made);
            }
            lists.push(self.close());
        }
        let mut lists = lists.into_iter();
        let (then, other) = (lists.next().unwrap_or_default(), lists.next().unwrap_or_default());
        self.push(Stmt::If { condition, uniform, then, other });
        self.finish(op, &carries.unwrap_or_default());
        Ok(())
    }

    /// Homes for values as they are laid out.
    fn carries_like(&mut self, values: &[Value], reps: &[Rep]) -> Result<Vec<Carry>> {
        let mut carries = Vec::new();
        for (v, rep) in values.iter().zip(reps) {
            let ty = self.function.ty(*v).clone();
            let layout = if let Rep::Tile(n) = rep { self.prefer(n) } else { None };
            carries.push(self.carry(&ty, layout)?);
        }
        Ok(carries)
    }

    fn while_loop(&mut self, op: &Op) -> Result<()> {
        let [before, after] = op.regions.as_slice() else { return Err(self.internal("two regions are wanted".into())) };
        let inits = self.reps(&op.operands)?;
        let carries = self.carries_like(&op.operands, &inits)?;
        self.assign(&carries, &inits)?;
        let uniform = self.uniform;
        self.open();
        self.loop_depth += 1;
        for (arg, c) in before.args.iter().zip(&carries) {
            let rep = self.carried(c);
            self.env.insert(*arg, rep);
        }
        let ended = self.block(before)?;
        let condition = self.scalar(ended[0])?;
        let forwarded = self.reps(&ended[1..])?;
        let out = self.carries_like(&ended[1..], &forwarded)?;
        self.assign(&out, &forwarded)?;
        self.push(Stmt::BreakUnless(condition));
        for (arg, c) in after.args.iter().zip(&out) {
            let rep = self.carried(c);
            self.env.insert(*arg, rep);
        }
        let yielded = self.block(after)?;
        let values = self.reps(&yielded)?;
        self.assign(&carries, &values)?;
        self.loop_depth -= 1;
        let body = self.close();
        self.push(Stmt::Loop { uniform, body });
        self.finish(op, &out);
        Ok(())
    }
}

/// Whether computing a tile element by element reads one of the arrays other than the element of `own` that is being set.
fn reads(node: &Rc<Node>, arrays: &[Var], own: Var, straight: bool) -> bool {
    let versions = node.versions.borrow();
    if !versions.is_empty() {
        return versions.iter().any(|v| matches!(&v.storage, Storage::Array(s) if arrays.contains(&s.var) && !(s.var == own && straight)));
    }
    match &*node.kind() {
        Kind::View(srcs, a) => {
            let same = a.bits() == node.bits() && srcs.iter().enumerate().all(|(i, s)| *s == Src::From(i));
            reads(a, arrays, own, straight && same)
        }
        Kind::Pick(_, a, b) => reads(a, arrays, own, false) || reads(b, arrays, own, false),
        Kind::Map(_, operands) => operands.iter().any(|o| reads(o, arrays, own, straight)),
        Kind::Region(_, operands, ..) => operands.iter().any(|o| reads(o, arrays, own, false)),
        Kind::Load { pointer, mask, other } => [Some(pointer), mask.as_ref(), other.as_ref()].into_iter().flatten().any(|o| reads(o, arrays, own, straight)),
        _ => false,
    }
}
