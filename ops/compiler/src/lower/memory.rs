//! Loads, stores and atomics: vectors where addresses allow them, one replica writes.

use std::collections::HashSet;
use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::layout::{Bit, Home, Layout, axis_bits, const_bits, log2};
use crate::lower::node::{Kind, Node, item_ty};
use crate::lower::{Lower, Rep};
use crate::thread::{Effect, Inst, Place, Stmt, Ty, Val};
use crate::tile::{CmpI, Item, Order, Rmw, Type};

impl Lower<'_> {
    /// One element.
    pub fn load_scalar(&mut self, pointer: Val, mask: Option<Val>, other: Option<Val>, volatile: bool) -> Val {
        let Ty::Ptr(e) = self.kernel.ty(pointer) else { return self.inst(Ty::Elem(Elem::I32), Inst::Undef) };
        let mask = mask.filter(|m| self.constant(*m) != Some(1));
        // Masked off elements are zero where nothing else is asked for.
        let other = mask.map(|_| other.unwrap_or_else(|| self.bits(e, 0)));
        let inst = Inst::Load { place: Place::Global { pointer, align: e.bytes() }, mask, other: other.map(|o| vec![o]), volatile };
        self.inst(Ty::Elem(e), inst)
    }

    /// `tt.load` of a tile.
    pub fn load(&mut self, pointer: Rc<Node>, mask: Option<Rc<Node>>, other: Option<Rc<Node>>, volatile: bool) -> Result<Rc<Node>> {
        let Item::Ptr(e) = pointer.item else { return Err(self.internal("load from numbers".into())) };
        let shape = pointer.shape.clone();
        let layout = self.anchor(&pointer);
        let kind = Kind::Load { pointer: Rc::clone(&pointer), mask: mask.clone(), other: other.clone() };
        let node = self.node(&shape, Item::Elem(e), kind, vec![crate::lower::facts::Axis::NONE; shape.len()]);
        if self.rolled(&layout) {
            if volatile {
                self.settle(&node)?;
            } else {
                self.pending.push(Rc::downgrade(&node));
            }
            return Ok(node);
        }
        let (vector, align, axis) = self.vector(&pointer, &layout);
        let mut inputs: Vec<Rc<Node>> = vec![Rc::clone(&pointer)];
        inputs.extend(mask.iter().chain(&other).cloned());
        for n in &inputs {
            self.prepare(n, &self.wants(&layout, vector))?;
        }
        let tile = Vector { pointer, mask, other, vector, align, axis, volatile, layout: layout.clone() };
        let border = tile.mask.as_ref().is_some_and(|m| self.mask_runs(m, &layout) < vector);
        let vals = if border { self.load_bordered(&tile)? } else { self.load_vectors(&tile, false)? };
        self.keep(&node, layout, crate::lower::node::Storage::Vals(vals));
        Ok(node)
    }

    /// The element of a tile's type.
    fn pointee(&self, pointer: &Rc<Node>) -> Result<Elem> {
        if let Item::Ptr(e) = pointer.item { Ok(e) } else { Err(self.internal("load from numbers".into())) }
    }

    /// Reads whole vectors, masked by their first element's mask unless all are known to be inside.
    fn load_vectors(&mut self, t: &Vector, inside: bool) -> Result<Vec<Val>> {
        let e = self.pointee(&t.pointer)?;
        let mut vals: Vec<Val> = Vec::new();
        self.each(&t.pointer.shape.clone(), &t.layout, t.vector, &mut |l, regs| {
            let all = t.positions(regs);
            let pointer = l.eval(&t.pointer, &all[0])?;
            let mask = match &t.mask {
                Some(m) if !inside => Some(l.eval(m, &all[0])?).filter(|m| l.constant(*m) != Some(1)),
                _ => None,
            };
            let other = match (&mask, &t.other) {
                (None, _) => None,
                (Some(_), Some(o)) => Some(all.iter().map(|p| l.eval(o, p)).collect::<Result<Vec<_>>>()?),
                (Some(_), None) => Some(vec![l.bits(e, 0); all.len()]),
            };
            let results: Vec<Val> = all.iter().map(|_| l.fresh(Ty::Elem(e))).collect();
            let inst = Inst::Load { place: Place::Global { pointer, align: t.align }, mask, other, volatile: t.volatile };
            l.push(Stmt::Let { results: results.clone(), inst });
            vals.extend(results);
            Ok(())
        })?;
        Ok(vals)
    }

    /// Reads a tile whose mask may end within a vector: without masks where all of the tile is inside, else vector by vector, those at the
    /// border element by element.
    fn load_bordered(&mut self, t: &Vector) -> Result<Vec<Val>> {
        let e = self.pointee(&t.pointer)?;
        let Some(m) = t.mask.clone() else { return self.load_vectors(t, true) };
        let vars: Vec<_> = (0..t.layout.regs()).map(|_| self.var(Ty::Elem(e), 1)).collect();
        let whole = self.all_of(std::slice::from_ref(&m))?;
        let inside = match whole {
            None => None,
            Some(condition) => {
                self.open();
                for (var, v) in vars.iter().zip(self.load_vectors(t, true)?) {
                    self.effect(Effect::Set(*var, 0, v));
                }
                let then = self.close();
                self.open();
                Some((condition, then))
            }
        };
        let falling = self.falling(&m, t.axis, t.vector);
        let mut at = vars.chunks(1 << t.vector);
        self.each(&t.pointer.shape.clone(), &t.layout, t.vector, &mut |l, regs| {
            let vars = at.next().unwrap_or_default();
            let all = t.positions(regs);
            let condition = l.every(&m, &all, falling)?;
            l.open();
            let pointer = l.eval(&t.pointer, &all[0])?;
            let results: Vec<Val> = all.iter().map(|_| l.fresh(Ty::Elem(e))).collect();
            let inst = Inst::Load { place: Place::Global { pointer, align: t.align }, mask: None, other: None, volatile: t.volatile };
            l.push(Stmt::Let { results: results.clone(), inst });
            for (var, v) in vars.iter().zip(results) {
                l.effect(Effect::Set(*var, 0, v));
            }
            let then = l.close();
            l.open();
            for (p, var) in all.iter().zip(vars) {
                let (pointer, mask) = (l.eval(&t.pointer, p)?, l.eval(&m, p)?);
                let other = t.other.as_ref().map(|o| l.eval(o, p)).transpose()?;
                let v = l.load_scalar(pointer, Some(mask), other, t.volatile);
                l.effect(Effect::Set(*var, 0, v));
            }
            let other = l.close();
            l.push(Stmt::If { condition, uniform: false, then, other });
            Ok(())
        })?;
        if let Some((condition, then)) = inside {
            let other = self.close();
            self.push(Stmt::If { condition, uniform: self.uniform, then, other });
        }
        Ok(vars.iter().map(|v| self.inst(Ty::Elem(e), Inst::Get(*v, 0))).collect())
    }

    /// Whether a mask is true at all positions of a vector.
    fn every(&mut self, mask: &Rc<Node>, all: &[Vec<Bit>], falling: bool) -> Result<Val> {
        if let (true, Some(last)) = (falling, all.last()) {
            return self.eval(mask, last);
        }
        let mut every = self.truth(true);
        for p in all {
            let m = self.eval(mask, p)?;
            every = self.and(every, m);
        }
        Ok(every)
    }

    /// log2 of the elements that may be read at once, the alignment in bytes of their first, the axis they lie along.
    pub fn vector(&self, pointer: &Rc<Node>, layout: &Layout) -> (usize, u32, usize) {
        let Item::Ptr(e) = pointer.item else { return (0, 1, 0) };
        let mut best = (0, e.bytes(), pointer.shape.len() - 1);
        for (a, f) in pointer.facts.iter().enumerate() {
            let (low, high) = axis_bits(&pointer.shape, a);
            let regs = layout.vector_bits(low, high);
            let run = f.run.min(f.div / u64::from(e.bytes())).min(u64::from(16 / e.bytes())).max(1);
            let n = regs.min(run.trailing_zeros() as usize);
            if n > best.0 {
                best = (n, e.bytes() << n, a);
            }
        }
        best
    }

    /// log2 of the neighbouring registers for which a mask is surely equal.
    pub fn mask_runs(&self, mask: &Rc<Node>, layout: &Layout) -> usize {
        let mut best = 0;
        for (a, f) in mask.facts.iter().enumerate() {
            let (low, high) = axis_bits(&mask.shape, a);
            best = best.max(layout.vector_bits(low, high).min(f.same.trailing_zeros() as usize));
        }
        best
    }

    /// True in the one thread of each group of replicas that writes.
    pub fn writer(&mut self, layout: &Layout) -> Option<Val> {
        self.first_of(layout.replica_mask(self.thread_bits))
    }

    /// True in the first of the threads that differ in some bits of their number alone.
    pub fn first_of(&mut self, mask: u32) -> Option<Val> {
        if mask == 0 {
            return None;
        }
        let (tid, mask, zero) = (self.tid(), self.i32(i64::from(mask)), self.i32(0));
        let masked = self.int(crate::tile::Binary::And, Elem::I32, tid, mask);
        Some(self.cmp(CmpI::Eq, masked, zero))
    }

    /// Layout to write a tile in: where its values are if that writes runs of bytes, else as addresses like it.
    fn store_layout(&self, pointer: &Rc<Node>, value: &Rc<Node>) -> Layout {
        let anchor = self.anchor(pointer);
        let Some(have) = self.prefer(value) else { return anchor };
        if self.thread_bits == 0 {
            return anchor;
        }
        let axis = (0..pointer.shape.len()).max_by_key(|a| pointer.facts[*a].run).unwrap_or(0);
        let (low, high) = axis_bits(&pointer.shape, axis);
        let run = |l: &Layout| (low..high).take_while(|b| matches!(l.homes[*b], Home::Thread(_)) || l.homes[*b] == Home::Reg((*b - low) as u8)).count();
        // Sums of a matrix unit stay where they are: to move a tile of them may take more shared memory than there is.
        let unit = self.fragments.values().any(|f| f.plan.layout == have);
        let bytes = if let Item::Ptr(e) = pointer.item { e.bytes() } else { 8 };
        let enough = run(&anchor).min(if unit { 3 } else { log2(64 / bytes) as usize });
        if pointer.facts[axis].run == 1 || run(&have) >= enough { have } else { anchor }
    }

    /// `tt.store` of a tile.
    pub fn store(&mut self, pointer: &Rc<Node>, value: &Rc<Node>, mask: Option<&Rc<Node>>) -> Result<()> {
        let layout = self.store_layout(pointer, value);
        self.flush_for(pointer, value, mask, &layout)?;
        let (vector, align, axis) = if self.thread_bits == 0 { (0, value.item.elem().map_or(8, |e| e.bytes()), 0) } else { self.vector(pointer, &layout) };
        for n in [Some(pointer), Some(value), mask].into_iter().flatten() {
            self.prepare(n, &self.wants(&layout, vector))?;
        }
        let constant = mask.is_none_or(|m| self.mask_runs(m, &layout) >= vector);
        let falling = mask.is_some_and(|m| self.falling(m, axis, vector));
        let writer = self.writer(&layout);
        let bytes = align >> vector;
        let shape = pointer.shape.clone();
        let mut masks: Vec<Rc<Node>> = mask.into_iter().cloned().collect();
        self.masks_of(value, &mut masks, &mut HashSet::new());
        self.each_once(&shape, &layout, vector, &masks, &mut |l, regs| {
            let all: Vec<Vec<Bit>> = (0..1u32 << vector).map(|n| fill(&layout, regs, n, vector)).collect();
            let first = l.eval(pointer, &all[0])?;
            let values = all.iter().map(|p| l.eval(value, p)).collect::<Result<Vec<_>>>()?;
            let Some(m) = mask else {
                l.effect(Effect::Store { place: Place::Global { pointer: first, align }, values, mask: writer });
                return Ok(());
            };
            if constant {
                let m = l.eval(m, &all[0])?;
                let mask = l.both(Some(m), writer).filter(|m| l.constant(*m) != Some(1));
                l.effect(Effect::Store { place: Place::Global { pointer: first, align }, values, mask });
                return Ok(());
            }
            let every = l.every(m, &all, falling)?;
            l.open();
            l.effect(Effect::Store { place: Place::Global { pointer: first, align }, values: values.clone(), mask: writer });
            let then = l.close();
            l.open();
            for (p, v) in all.iter().zip(&values) {
                let (pointer, m) = (l.eval(pointer, p)?, l.eval(m, p)?);
                let mask = l.both(Some(m), writer);
                l.effect(Effect::Store { place: Place::Global { pointer, align: bytes }, values: vec![*v], mask });
            }
            let other = l.close();
            l.push(Stmt::If { condition: every, uniform: false, then, other });
            Ok(())
        })
    }

    /// Reads what was to be read before memory changes.
    pub fn flush(&mut self) -> Result<()> {
        for node in std::mem::take(&mut self.pending) {
            if let Some(node) = node.upgrade().filter(|n| n.versions.borrow().is_empty()) {
                self.settle(&node)?;
            }
        }
        Ok(())
    }

    /// As `flush`, but loads that only the store at hand wants and that cannot meet another element of it stay in its loop.
    fn flush_for(&mut self, pointer: &Rc<Node>, value: &Rc<Node>, mask: Option<&Rc<Node>>, layout: &Layout) -> Result<()> {
        if self.rolled(layout) {
            let mut fused = Vec::new();
            self.fusible(value, pointer, &mut fused);
            if let Some(m) = mask {
                self.fusible(m, pointer, &mut fused);
            }
            self.pending.retain(|p| p.upgrade().is_some_and(|n| !fused.contains(&n.id)));
        }
        self.flush()
    }

    fn fusible(&self, node: &Rc<Node>, target: &Rc<Node>, out: &mut Vec<u32>) {
        if !node.versions.borrow().is_empty() {
            return;
        }
        match &*node.kind() {
            Kind::Map(_, operands) => operands.iter().for_each(|o| self.fusible(o, target, out)),
            Kind::View(_, a) if a.bits() == node.bits() => self.fusible(a, target, out),
            Kind::Pick(_, a, b) => [a, b].into_iter().for_each(|o| self.fusible(o, target, out)),
            Kind::Load { pointer, .. } if !node.many && !out.contains(&node.id) && self.apart(pointer, target) => out.push(node.id),
            _ => {}
        }
    }

    /// Whether no two different elements of the two address tiles can be one place: they come from different arguments (which are the
    /// same memory or none of it), or are base + offsets with the same offsets.
    fn apart(&self, a: &Rc<Node>, b: &Rc<Node>) -> bool {
        match (root(a), root(b)) {
            (Some(x), Some(y)) => match (self.arguments.get(&x.0), self.arguments.get(&y.0)) {
                (Some(p), Some(q)) if p != q => true,
                _ => x == y && x.1.is_some(),
            },
            _ => false,
        }
    }

    /// `tt.atomic_rmw` and `tt.atomic_cas` on tiles: operands are value, or expected and desired.
    pub fn atomic_tile(&mut self, pointer: &Rc<Node>, operands: &[Rc<Node>], mask: Option<&Rc<Node>>, rmw: Option<Rmw>, order: Order, used: bool) -> Result<Rc<Node>> {
        self.flush()?;
        let layout = self.prefer(&operands[0]).unwrap_or_else(|| self.anchor(pointer));
        let wants = self.wants(&layout, 0);
        for n in operands.iter().chain(mask).chain([pointer]) {
            self.prepare(n, &wants)?;
        }
        let writer = self.writer(&layout);
        let (shape, item) = (pointer.shape.clone(), operands[0].item);
        if matches!(order, Order::Release | Order::AcqRel) {
            self.barrier(true);
        }
        let node = self.filled(&shape, item, &layout, &mut |l, pos, _| {
            let p = l.eval(pointer, pos)?;
            let args = operands.iter().map(|o| l.eval(o, pos)).collect::<Result<Vec<_>>>()?;
            let m = mask.map(|m| l.eval(m, pos)).transpose()?;
            let mask = l.both(m, writer);
            Ok(l.atomic(p, &args, mask, rmw, order))
        })?;
        if matches!(order, Order::Acquire | Order::AcqRel) {
            self.barrier(true);
        }
        if !used || writer.is_none() {
            return Ok(node);
        }
        self.share_written(&node, &layout, writer)
    }

    fn atomic(&mut self, pointer: Val, args: &[Val], mask: Option<Val>, rmw: Option<Rmw>, order: Order) -> Val {
        let ty = self.kernel.ty(args[0]);
        let align = if let Ty::Elem(e) = ty { e.bytes() } else { 8 };
        let place = Place::Global { pointer, align };
        let mask = mask.filter(|m| self.constant(*m) != Some(1));
        match rmw {
            Some(rmw) => self.inst(ty, Inst::Atomic { place, rmw, value: args[0], mask, order }),
            None => self.inst(ty, Inst::AtomicCas { place, expected: args[0], desired: args[1], mask, order }),
        }
    }

    /// Registers that only writers hold, given to their replicas.
    fn share_written(&mut self, node: &Rc<Node>, layout: &Layout, writer: Option<Val>) -> Result<Rc<Node>> {
        let elem = super::place::raw(node.item);
        let scratch = self.scratch(elem, 1 << node.bits())?;
        self.each(&node.shape, layout, 0, &mut |l, regs| {
            let pos = layout.pos(regs);
            let v = l.eval(node, &pos)?;
            let v = l.as_bits(node.item, v);
            let index = l.compose(&pos);
            l.effect(Effect::Store { place: Place::Shared { array: scratch, index }, values: vec![v], mask: writer });
            Ok(())
        })?;
        self.barrier(false);
        self.filled(&node.shape, node.item, layout, &mut |l, pos, _| {
            let index = l.compose(pos);
            Ok(l.peek(&super::place::Scratch::Shared(scratch), node.item, index))
        })
    }

    /// Atomics on one scalar address: thread 0 does it.
    pub fn atomic_scalar(&mut self, pointer: Val, args: &[Val], mask: Option<Val>, rmw: Option<Rmw>, order: Order, used: bool) -> Result<Val> {
        self.flush()?;
        let scalar = Layout { homes: Vec::new() };
        let writer = self.writer(&scalar);
        if matches!(order, Order::Release | Order::AcqRel) {
            self.barrier(true);
        }
        let mask = self.both(mask, writer);
        let v = self.atomic(pointer, args, mask, rmw, order);
        let v = match (used, writer, self.kernel.ty(v)) {
            (true, Some(_), Ty::Elem(e)) => {
                let scratch = self.scratch(e, 1)?;
                let (raw, index) = (self.as_bits(Item::Elem(e), v), self.i32(0));
                self.effect(Effect::Store { place: Place::Shared { array: scratch, index }, values: vec![raw], mask: writer });
                self.barrier(true);
                self.peek(&super::place::Scratch::Shared(scratch), Item::Elem(e), index)
            }
            _ => v,
        };
        if matches!(order, Order::Acquire | Order::AcqRel) {
            self.barrier(true);
        }
        Ok(v)
    }

    /// Store to one scalar address: thread 0 does it.
    pub fn store_scalar(&mut self, pointer: Val, value: Val, mask: Option<Val>) -> Result<()> {
        self.flush()?;
        let writer = if self.uniform { self.writer(&Layout { homes: Vec::new() }) } else { None };
        let mask = self.both(mask, writer).filter(|m| self.constant(*m) != Some(1));
        let align = if let Ty::Elem(e) = self.kernel.ty(value) { e.bytes() } else { 8 };
        self.effect(Effect::Store { place: Place::Global { pointer, align }, values: vec![value], mask });
        Ok(())
    }

    /// Value of a poison of a type.
    pub fn poison(&mut self, ty: &Type) -> Result<Rep> {
        let item = ty.item().ok_or_else(|| self.internal("poison of a block pointer".into()))?;
        let v = match item {
            Item::Elem(e) => self.bits(e, 0),
            Item::Ptr(_) => self.inst(item_ty(item), Inst::Undef),
        };
        Ok(if ty.is_tile() { Rep::Tile(self.splat(ty.shape(), item, v)) } else { Rep::Scalar(v) })
    }
}

/// A tile to be read in vectors.
struct Vector {
    pointer: Rc<Node>,
    mask: Option<Rc<Node>>,
    other: Option<Rc<Node>>,
    /// log2 of the elements read at once.
    vector: usize,
    align: u32,
    axis: usize,
    volatile: bool,
    layout: Layout,
}

impl Vector {
    /// Positions of the elements of one vector.
    fn positions(&self, regs: &[Bit]) -> Vec<Vec<Bit>> {
        (0..1u32 << self.vector).map(|n| fill(&self.layout, regs, n, self.vector)).collect()
    }
}

/// Position `n` of a vector.
fn fill(layout: &Layout, regs: &[Bit], n: u32, vector: usize) -> Vec<Bit> {
    let mut regs = regs.to_vec();
    regs[..vector].copy_from_slice(&const_bits(n, vector));
    layout.pos(&regs)
}

/// The scalar base of an address tile and the node of its offsets where there is one addition.
fn root(pointer: &Rc<Node>) -> Option<(Val, Option<u32>)> {
    match &*pointer.kind() {
        Kind::Splat(v) => Some((*v, None)),
        Kind::Map(super::prim::Prim::AddPtr, a) => match root(&a[0])? {
            (v, None) if matches!(*a[0].kind(), Kind::Splat(_)) => Some((v, Some(a[1].id))),
            (v, _) => Some((v, None)),
        },
        Kind::View(_, a) => root(a).map(|r| (r.0, None)),
        _ => None,
    }
}
