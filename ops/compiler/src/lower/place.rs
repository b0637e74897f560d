//! Storing tiles: loops over the elements of a layout, making sure that what they read is where they read it, moves between layouts.

use std::collections::HashSet;
use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::layout::{Bit, Home, Layout, axis_bits, const_bits, renumber, shape_bits};
use crate::lower::node::{Kind, Node, Pos, Slot, Src, Storage, Version, cheap, item_ty};
use crate::lower::{Lower, UNROLL_MANY, UNROLL_ONE};
use crate::thread::{Effect, Inst, Place, Shared, SharedInfo, Stmt, Ty, Val, Var};
use crate::tile::{Cast, Item};

/// What a bit of an element number will be when an element is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Want {
    /// A bit of the thread number.
    Thread(u8),
    /// A constant.
    Const,
    /// A bit of a loop index.
    Dynamic,
}

/// Computes a register from its position and its number.
pub(super) type Fill<'f, L> = &'f mut dyn FnMut(&mut L, &[Bit], &[Bit]) -> Result<Val>;

/// Values that a rolled loop stores on the way.
#[derive(Default)]
pub(super) struct Tee {
    pos: Pos,
    regs: Vec<Bit>,
    len: u32,
    made: Vec<(Rc<Node>, Rc<Slot>)>,
}

/// An array of elements anyone of the block can read by number: shared memory, or an array variable where a block is one thread.
#[derive(Clone)]
pub(super) enum Scratch {
    /// Shared memory; elements are raw integers.
    Shared(Shared),
    /// A variable.
    Array(Rc<Slot>),
}

impl Lower<'_> {
    /// Whether the registers of a layout are looped over at run time instead of being separate values.
    pub fn rolled(&self, layout: &Layout) -> bool {
        layout.regs() > if self.thread_bits == 0 { UNROLL_ONE } else { UNROLL_MANY }
    }

    /// What positions of a layout will look like.
    pub fn wants(&self, layout: &Layout, group: usize) -> Vec<Want> {
        let rolled = self.rolled(layout);
        let want = |h: &Home| match h {
            Home::Thread(t) => Want::Thread(*t),
            Home::Reg(r) if rolled && usize::from(*r) >= group => Want::Dynamic,
            Home::Reg(_) => Want::Const,
        };
        layout.homes.iter().map(want).collect()
    }

    /// Runs code for every register of a layout; the low `group` bits of the number are left zero for the closure to fill in.
    pub fn each(&mut self, shape: &[u32], layout: &Layout, group: usize, f: &mut dyn FnMut(&mut Self, &[Bit]) -> Result<()>) -> Result<()> {
        let bits = layout.reg_bits();
        if !self.rolled(layout) {
            for n in 0..1u32 << (bits - group) {
                f(self, &const_bits(n << group, bits))?;
            }
            return Ok(());
        }
        if self.thread_bits == 0 {
            let ranges: Vec<(usize, usize)> = (0..shape.len()).map(|a| axis_bits(shape, a)).filter(|(l, h)| h > l).collect();
            return self.nest(&ranges, &mut vec![Bit::Zero; bits], f);
        }
        self.counted(bits - group, true, |l, index| {
            let mut regs = vec![Bit::Zero; group];
            regs.extend_from_slice(index);
            f(l, &regs)
        })
    }

    /// Nested loops over ranges of bits, the first outermost.
    pub fn nest(&mut self, ranges: &[(usize, usize)], bits: &mut Vec<Bit>, f: &mut dyn FnMut(&mut Self, &[Bit]) -> Result<()>) -> Result<()> {
        let Some(((low, high), rest)) = ranges.split_first() else { return f(self, bits) };
        self.counted(high - low, true, |l, index| {
            bits[*low..*high].copy_from_slice(index);
            l.nest(rest, bits, f)
        })
    }

    /// As `each`, for loops that pass every register once: values wanted again are stored on the way.
    pub fn each_once(&mut self, shape: &[u32], layout: &Layout, group: usize, masks: &[Rc<Node>], f: &mut dyn FnMut(&mut Self, &[Bit]) -> Result<()>) -> Result<()> {
        if !self.rolled(layout) || group > 0 {
            return self.each(shape, layout, group, f);
        }
        let outer = self.tee_start(layout);
        self.versioned(masks, &mut |l| {
            l.each(shape, layout, group, &mut |l, regs| {
                l.tee_here(layout, regs);
                f(l, regs)
            })
        })?;
        self.tee_end(layout, outer);
        Ok(())
    }

    /// Starts a series of loops that together pass every register of a layout once.
    pub fn tee_start(&mut self, layout: &Layout) -> Option<Tee> {
        self.tee.replace(Tee { len: layout.regs(), ..Tee::default() })
    }

    /// The register the code that follows computes.
    pub fn tee_here(&mut self, layout: &Layout, regs: &[Bit]) {
        if let Some(t) = &mut self.tee {
            t.pos = layout.pos(regs);
            t.regs = regs.to_vec();
        }
    }

    /// What was stored on the way becomes storage of its tiles.
    pub fn tee_end(&mut self, layout: &Layout, outer: Option<Tee>) {
        let made = std::mem::replace(&mut self.tee, outer);
        for (node, slot) in made.map(|t| t.made).unwrap_or_default() {
            self.keep(&node, layout.clone(), Storage::Array(slot));
        }
    }

    /// Stores a value just computed if the loop it is in passes every element and the tile is wanted again.
    pub fn tee(&mut self, node: &Rc<Node>, pos: &[Bit], value: Val) {
        let Some(t) = &self.tee else { return };
        if !node.many || cheap(node) || t.pos != pos || !node.versions.borrow().is_empty() {
            return;
        }
        let (regs, len) = (t.regs.clone(), t.len);
        let made = t.made.iter().find(|(n, _)| n.id == node.id).map(|(_, s)| Rc::clone(s));
        let slot = made.unwrap_or_else(|| {
            let slot = self.slot(item_ty(node.item), len);
            if let Some(t) = &mut self.tee {
                t.made.push((Rc::clone(node), Rc::clone(&slot)));
            }
            slot
        });
        self.set_at(slot.var, &regs, value);
    }

    /// Reads an array variable at the number with the given bits.
    pub fn get_at(&mut self, var: Var, regs: &[Bit], ty: Ty) -> Val {
        let index = self.compose(regs);
        match self.constant(index) {
            Some(n) => self.inst(ty, Inst::Get(var, n as u32)),
            None => self.inst(ty, Inst::GetAt(var, index)),
        }
    }

    /// Writes an array variable.
    pub fn set_at(&mut self, var: Var, regs: &[Bit], value: Val) {
        let index = self.compose(regs);
        match self.constant(index) {
            Some(n) => self.effect(Effect::Set(var, n as u32, value)),
            None => self.effect(Effect::SetAt(var, index, value)),
        }
    }

    /// Makes sure that elements can be evaluated at such positions: moves and stores what is elsewhere.
    pub fn prepare(&mut self, node: &Rc<Node>, wants: &[Want]) -> Result<()> {
        self.prepare_in(node, wants, &mut HashSet::new())
    }

    fn prepare_in(&mut self, node: &Rc<Node>, wants: &[Want], seen: &mut HashSet<(u32, Vec<Want>)>) -> Result<()> {
        if !seen.insert((node.id, wants.to_vec())) || node.versions.borrow().iter().any(|v| fits(v, wants)) {
            return Ok(());
        }
        let version = node.versions.borrow().last().cloned();
        if let Some(version) = version.filter(|_| !cheap(node)) {
            return self.convert(node, &version, wants);
        }
        match &*node.kind() {
            Kind::Splat(_) | Kind::Range(_) => Ok(()),
            Kind::View(srcs, a) => {
                let inner: Vec<Want> = srcs.iter().map(|s| if let Src::From(b) = s { wants[*b] } else { Want::Const }).collect();
                let used: HashSet<usize> = srcs.iter().filter_map(|s| if let Src::From(b) = s { Some(*b) } else { None }).collect();
                let repeats = (0..wants.len()).any(|b| wants[b] == Want::Dynamic && !used.contains(&b));
                if repeats && !cheap(a) && a.versions.borrow().is_empty() {
                    let layout = layout_of(&inner);
                    self.materialise(a, &layout)?;
                }
                self.prepare_in(a, &inner, seen)
            }
            Kind::Pick(bit, a, b) => {
                let mut inner = wants.to_vec();
                inner.remove(*bit);
                self.prepare_in(a, &inner, seen)?;
                self.prepare_in(b, &inner, seen)
            }
            Kind::Map(_, operands) => operands.iter().try_for_each(|o| self.prepare_in(o, wants, seen)),
            Kind::Load { pointer, mask, other } => {
                [Some(pointer), mask.as_ref(), other.as_ref()].into_iter().flatten().try_for_each(|o| self.prepare_in(o, wants, seen))
            }
            Kind::Region(_, operands, pack, _) => {
                let mut inner = wants.to_vec();
                inner[..*pack].fill(Want::Const);
                operands.iter().try_for_each(|o| self.prepare_in(o, &inner, seen))
            }
            Kind::Stored => match self.fragments.get(&node.id).cloned() {
                Some(fragments) => {
                    self.out_of_fragments(node, &fragments)?;
                    seen.remove(&(node.id, wants.to_vec()));
                    self.prepare_in(node, wants, seen)
                }
                None => Err(self.internal(format!("tile {} of shape {:?} was never stored", node.id, node.shape))),
            },
        }
    }

    /// Stores a tile in a layout, unless it is there already.
    pub fn materialise(&mut self, node: &Rc<Node>, layout: &Layout) -> Result<Version> {
        if let Some(v) = node.versions.borrow().iter().find(|v| v.layout == *layout) {
            return Ok(v.clone());
        }
        self.prepare(node, &self.wants(layout, 0))?;
        if let Some(v) = node.versions.borrow().iter().find(|v| v.layout == *layout) {
            return Ok(v.clone());
        }
        if self.rolled(layout) {
            let slot = self.slot(item_ty(node.item), layout.regs());
            let mut masks = Vec::new();
            self.masks_of(node, &mut masks, &mut HashSet::new());
            self.each_once(&node.shape, layout, 0, &masks, &mut |l, regs| {
                let v = l.eval(node, &layout.pos(regs))?;
                l.set_at(slot.var, regs, v);
                Ok(())
            })?;
            self.keep(node, layout.clone(), Storage::Array(slot));
        } else {
            let mut vals = Vec::new();
            self.each(&node.shape, layout, 0, &mut |l, regs| {
                vals.push(l.eval(node, &layout.pos(regs))?);
                Ok(())
            })?;
            self.keep(node, layout.clone(), Storage::Vals(vals));
        }
        let found = node.versions.borrow().iter().rev().find(|v| v.layout == *layout).cloned();
        found.ok_or_else(|| self.internal("storage just made is not found".into()))
    }

    /// Stores a tile in the layout it likes best.
    pub fn settle(&mut self, node: &Rc<Node>) -> Result<Version> {
        let existing = node.versions.borrow().last().cloned();
        match existing {
            Some(v) => Ok(v),
            None => {
                let layout = self.layout_for(node);
                self.materialise(node, &layout)
            }
        }
    }

    /// Adds a version of stored registers that fits.
    fn convert(&mut self, node: &Rc<Node>, version: &Version, wants: &[Want]) -> Result<()> {
        let layout = layout_of(wants);
        let same_threads = version.layout.homes.iter().zip(&layout.homes).all(|(a, b)| match (a, b) {
            (Home::Thread(x), Home::Thread(y)) => x == y,
            (Home::Reg(_), Home::Reg(_)) => true,
            _ => false,
        });
        let array = self.rolled(&layout) || wants.contains(&Want::Dynamic);
        if same_threads {
            // Only the order of registers differs, or values become an array.
            let layout = if array && matches!(version.storage, Storage::Vals(_)) { version.layout.clone() } else { layout };
            return self.refill(node, &layout, array, &mut |l, pos, _| {
                let mut regs = vec![Bit::Zero; version.layout.reg_bits()];
                for (home, bit) in version.layout.homes.iter().zip(pos) {
                    if let Home::Reg(r) = home {
                        regs[usize::from(*r)] = *bit;
                    }
                }
                Ok(match &version.storage {
                    Storage::Vals(v) => v[number(&regs)],
                    Storage::Array(slot) => l.get_at(slot.var, &regs, item_ty(node.item)),
                })
            });
        }
        // Rows are set apart by a vector more than their length, so that threads down a column meet in few banks.
        let row = shape_bits(&node.shape[node.shape.len() - 1..]);
        let pad = (node.shape.len() > 1 && (5..node.bits()).contains(&row)).then_some(row);
        let (scratch, step) = self.spill_padded(node, pad)?;
        self.refill(node, &layout, array, &mut |l, pos, _| {
            let index = l.padded(pos, pad, step);
            Ok(l.peek(&scratch, node.item, index))
        })
    }

    /// Adds a version whose registers come from a function of their positions.
    pub fn refill(&mut self, node: &Rc<Node>, layout: &Layout, array: bool, f: Fill<Self>) -> Result<()> {
        if array {
            let slot = self.slot(item_ty(node.item), layout.regs());
            self.each(&node.shape, layout, 0, &mut |l, regs| {
                let v = f(l, &layout.pos(regs), regs)?;
                l.set_at(slot.var, regs, v);
                Ok(())
            })?;
            self.keep(node, layout.clone(), Storage::Array(slot));
        } else {
            let mut vals = Vec::new();
            self.each(&node.shape, layout, 0, &mut |l, regs| {
                vals.push(f(l, &layout.pos(regs), regs)?);
                Ok(())
            })?;
            self.keep(node, layout.clone(), Storage::Vals(vals));
        }
        Ok(())
    }

    /// A tile made of registers computed one by one.
    pub fn filled(&mut self, shape: &[u32], item: Item, layout: &Layout, f: Fill<Self>) -> Result<Rc<Node>> {
        let node = self.node(shape, item, Kind::Stored, vec![crate::lower::facts::Axis::NONE; shape.len()]);
        let array = self.rolled(layout);
        self.refill(&node, layout, array, f)?;
        Ok(node)
    }

    /// Puts a whole tile where every thread can read any element by its number; ends with a barrier.
    pub fn spill(&mut self, node: &Rc<Node>) -> Result<Scratch> {
        Ok(self.spill_padded(node, None)?.0)
    }

    /// An element number with 2^`step` more for each row of 2^`pad` elements.
    fn padded(&mut self, pos: &[Bit], pad: Option<usize>, step: usize) -> Val {
        let index = self.compose(pos);
        let Some(row) = pad else { return index };
        let (row, step) = (self.compose(&pos[row..]), self.i32(step as i64));
        let extra = self.int(crate::tile::Binary::Shl, Elem::I32, row, step);
        self.add(index, extra)
    }

    /// As `spill`, with rows of 2^`pad` elements set apart; also log2 of the distance.
    fn spill_padded(&mut self, node: &Rc<Node>, pad: Option<usize>) -> Result<(Scratch, usize)> {
        let version = self.settle(node)?;
        if self.thread_bits == 0 {
            if let Storage::Array(slot) = &version.storage {
                return Ok((Scratch::Array(Rc::clone(slot)), 0));
            }
            let slot = self.slot(item_ty(node.item), 1 << node.bits());
            self.each(&node.shape, &version.layout, 0, &mut |l, regs| {
                let v = l.eval(node, &version.layout.pos(regs))?;
                l.set_at(slot.var, regs, v);
                Ok(())
            })?;
            return Ok((Scratch::Array(slot), 0));
        }
        let (elem, bits) = (raw(node.item), shape_bits(&node.shape));
        let group = version.layout.vector_bits(0, pad.unwrap_or(bits)).min(crate::lower::layout::log2(16 / elem.bytes()) as usize);
        let extra = pad.map_or(0, |row| (1u32 << (bits - row)) << group);
        let scratch = self.scratch(elem, (1 << bits) + extra)?;
        // Replicas are equal but for the bits of NaN, which may depend on the order of operands; one of them is what all read.
        let mask = self.writer(&version.layout);
        self.each(&node.shape, &version.layout, group, &mut |l, regs| {
            let mut values = Vec::new();
            for n in 0..1u32 << group {
                let mut regs = regs.to_vec();
                regs[..group].copy_from_slice(&const_bits(n, group));
                let v = l.eval_version(node, &version, &regs)?;
                values.push(l.as_bits(node.item, v));
            }
            let index = l.padded(&version.layout.pos(regs), pad, group);
            l.effect(Effect::Store { place: Place::Shared { array: scratch, index }, values, mask });
            Ok(())
        })?;
        self.barrier(false);
        Ok((Scratch::Shared(scratch), group))
    }

    /// The register of a version with the given bits.
    pub fn eval_version(&mut self, node: &Rc<Node>, version: &Version, regs: &[Bit]) -> Result<Val> {
        Ok(match &version.storage {
            Storage::Vals(v) => v[number(regs)],
            Storage::Array(slot) => self.get_at(slot.var, regs, item_ty(node.item)),
        })
    }

    /// Reads an element of a scratch array.
    pub fn peek(&mut self, scratch: &Scratch, item: Item, index: Val) -> Val {
        match scratch {
            Scratch::Array(slot) => match self.constant(index) {
                Some(n) => self.inst(item_ty(item), Inst::Get(slot.var, n as u32)),
                None => self.inst(item_ty(item), Inst::GetAt(slot.var, index)),
            },
            Scratch::Shared(array) => {
                let load = Inst::Load { place: Place::Shared { array: *array, index }, mask: None, other: None, volatile: false };
                let v = self.inst(Ty::Elem(raw(item)), load);
                self.bits_as(item, v)
            }
        }
    }

    /// Reads consecutive elements of shared memory, from a multiple of their number on.
    pub fn peek_many(&mut self, array: Shared, item: Item, index: Val, count: usize) -> Vec<Val> {
        let results: Vec<Val> = (0..count).map(|_| self.fresh(Ty::Elem(raw(item)))).collect();
        let inst = Inst::Load { place: Place::Shared { array, index }, mask: None, other: None, volatile: false };
        self.push(Stmt::Let { results: results.clone(), inst });
        results.into_iter().map(|v| self.bits_as(item, v)).collect()
    }

    /// A shared array of at least `len` elements, ready to be written: whoever read it before is through.
    pub fn scratch(&mut self, elem: Elem, len: u32) -> Result<Shared> {
        let elem = elem.as_int();
        let found = (0..self.kernel.shared.len()).find(|i| self.kernel.shared[*i].elem == elem && !self.held.contains(&(*i as u32)));
        let array = match found {
            Some(i) => {
                self.kernel.shared[i].len = self.kernel.shared[i].len.max(len);
                self.barrier(false);
                Shared(i as u32)
            }
            None => {
                self.kernel.shared.push(SharedInfo { elem, len });
                // A loop comes back here after others have read.
                if self.loop_depth > 0 {
                    self.barrier(false);
                }
                Shared(self.kernel.shared.len() as u32 - 1)
            }
        };
        let need = self.kernel.shared_bytes();
        if need > self.target.shared_bytes {
            let have = self.target.shared_bytes;
            return Err(self.limit(format!("{need} bytes of shared memory are needed, the target has {have}; use smaller tiles or more threads")));
        }
        Ok(array)
    }

    /// All threads of the block meet.
    pub fn barrier(&mut self, global: bool) {
        if self.thread_bits > 0 {
            self.push(Stmt::Do(Effect::Barrier { global }));
        }
    }

    /// A value as the integer it is kept as in shared memory.
    pub fn as_bits(&mut self, item: Item, v: Val) -> Val {
        match item {
            Item::Ptr(_) => self.inst(Ty::Elem(Elem::I64), Inst::Cast(Cast::PtrToInt, v)),
            Item::Elem(Elem::I1) => self.inst(Ty::Elem(Elem::I8), Inst::Cast(Cast::ExtU, v)),
            Item::Elem(e) if e.is_float() => self.inst(Ty::Elem(e.as_int()), Inst::Cast(Cast::Bitcast, v)),
            Item::Elem(_) => v,
        }
    }

    /// Back from `as_bits`.
    pub fn bits_as(&mut self, item: Item, v: Val) -> Val {
        match item {
            Item::Ptr(_) => self.inst(item_ty(item), Inst::Cast(Cast::IntToPtr, v)),
            Item::Elem(Elem::I1) => self.inst(Ty::Elem(Elem::I1), Inst::Cast(Cast::TruncI, v)),
            Item::Elem(e) if e.is_float() => self.inst(Ty::Elem(e), Inst::Cast(Cast::Bitcast, v)),
            Item::Elem(_) => v,
        }
    }
}

/// The element type an item is kept as in shared memory.
pub(super) fn raw(item: Item) -> Elem {
    item.elem().map_or(Elem::I64, |e| e.as_int())
}

/// The number with constant bits.
pub(super) fn number(bits: &[Bit]) -> usize {
    bits.iter().enumerate().map(|(i, b)| usize::from(*b == Bit::One) << i).sum()
}

/// The layout with these threads and everything else in registers.
fn layout_of(wants: &[Want]) -> Layout {
    let mut homes: Vec<Home> =
        wants.iter().enumerate().map(|(i, w)| if let Want::Thread(t) = w { Home::Thread(*t) } else { Home::Reg(i as u8) }).collect();
    renumber(&mut homes);
    Layout { homes }
}

fn fits(version: &Version, wants: &[Want]) -> bool {
    let constant = matches!(version.storage, Storage::Vals(_));
    version.layout.homes.iter().zip(wants).all(|(home, want)| match home {
        Home::Thread(t) => *want == Want::Thread(*t),
        Home::Reg(_) => matches!(want, Want::Const) || (*want == Want::Dynamic && !constant),
    })
}
