//! Tile values while they are lowered: expressions over elements that are computed where and when somebody wants them, and their storage.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

pub(super) use crate::lower::layout::Pos;

use crate::error::Result;
use crate::lower::facts::{self, Axis, Facts};
use crate::lower::layout::{Bit, Home, Layout, axis_bits, log2, shape_bits};
use crate::lower::prim::Prim;
use crate::lower::{CHEAP, Lower};
use crate::thread::{Ty, Val, Var};
use crate::tile::{Block, Item};

/// An array variable that goes back to the pool when nobody holds it.
pub(super) struct Slot {
    /// The variable.
    pub var: Var,
    ty: Ty,
    len: u32,
    pool: Rc<RefCell<Vec<(Ty, u32, Var)>>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.borrow_mut().push((self.ty, self.len, self.var));
    }
}

/// Where the registers of a stored tile are.
#[derive(Clone)]
pub(super) enum Storage {
    /// One value per register.
    Vals(Vec<Val>),
    /// An array variable indexed by the register's number.
    Array(Rc<Slot>),
}

/// One stored form of a tile.
#[derive(Clone)]
pub(super) struct Version {
    /// Distribution.
    pub layout: Layout,
    /// Registers.
    pub storage: Storage,
    /// Number of open statement lists when it was made.
    pub scope: usize,
}

/// Where an operand's bit comes from in a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Src {
    /// Bit of the result's element number.
    From(usize),
    /// 0.
    Zero,
    /// 1.
    One,
}

/// How elements are computed.
pub(super) enum Kind {
    /// Equal elements.
    Splat(Val),
    /// start + element number.
    Range(i32),
    /// Elements of another tile; one source per bit of that tile's element number.
    View(Vec<Src>, Rc<Node>),
    /// Elements of the first tile where the bit is 0, of the second where it is 1; their element numbers lack the bit.
    Pick(usize, Rc<Node>, Rc<Node>),
    /// Elementwise.
    Map(Prim, Vec<Rc<Node>>),
    /// From memory.
    Load {
        /// Addresses.
        pointer: Rc<Node>,
        /// Mask.
        mask: Option<Rc<Node>>,
        /// Values where masked off.
        other: Option<Rc<Node>>,
    },
    /// A region over scalars (`tt.map_elementwise`): operands, neighbours taken together (log2), result.
    Region(Rc<Block>, Vec<Rc<Node>>, usize, usize),
    /// Only storage.
    Stored,
}

/// A tile value.
pub(super) struct Node {
    /// Unique number.
    pub id: u32,
    /// Extents.
    pub shape: Vec<u32>,
    /// Element or pointer.
    pub item: Item,
    /// How to compute it; only storage once that lasts as long as the tile.
    kind: RefCell<Rc<Kind>>,
    /// Number of open statement lists when it was made.
    scope: usize,
    /// Rough cost of computing an element.
    pub cost: u32,
    /// Height of the expression.
    pub depth: u32,
    /// More than one place wants it.
    pub many: bool,
    /// What is known of its elements.
    pub facts: Facts,
    /// Stored forms.
    pub versions: RefCell<Vec<Version>>,
}

impl Node {
    /// Bits of element numbers.
    pub fn bits(&self) -> usize {
        shape_bits(&self.shape)
    }
    /// How to compute it.
    pub fn kind(&self) -> Rc<Kind> {
        Rc::clone(&self.kind.borrow())
    }
    /// The constant all elements equal.
    fn equal(&self, lower: &Lower) -> Option<u64> {
        match &*self.kind() {
            Kind::Splat(v) => lower.constant(*v),
            Kind::View(_, a) => a.equal(lower),
            _ => None,
        }
    }
}

impl Lower<'_> {
    /// A new node; cost and depth follow from the kind.
    pub fn node(&mut self, shape: &[u32], item: Item, kind: Kind, facts: Facts) -> Rc<Node> {
        let (own, operands): (u32, Vec<&Rc<Node>>) = match &kind {
            Kind::Splat(_) | Kind::Range(_) | Kind::Stored => (0, vec![]),
            Kind::View(_, a) => (0, vec![a]),
            Kind::Pick(_, a, b) => (1, vec![a, b]),
            Kind::Map(p, a) => (p.cost(), a.iter().collect()),
            Kind::Load { pointer, mask, other } => (1000, [Some(pointer), mask.as_ref(), other.as_ref()].into_iter().flatten().collect()),
            Kind::Region(_, a, ..) => (1000, a.iter().collect()),
        };
        let cost = operands.iter().fold(own, |c, o| c.saturating_add(o.cost));
        let depth = 1 + operands.iter().map(|o| if o.versions.borrow().is_empty() { o.depth } else { 0 }).max().unwrap_or(0);
        self.nodes += 1;
        let (kind, scope) = (RefCell::new(Rc::new(kind)), self.scopes.len());
        Rc::new(Node { id: self.nodes, shape: shape.to_vec(), item, kind, scope, cost, depth, many: self.many_next, facts, versions: RefCell::default() })
    }

    /// Equal elements.
    pub fn splat(&mut self, shape: &[u32], item: Item, value: Val) -> Rc<Node> {
        let div = self.div(value);
        self.node(shape, item, Kind::Splat(value), facts::splat(shape, div))
    }

    /// Elementwise operation.
    pub fn map(&mut self, shape: &[u32], item: Item, prim: Prim, operands: Vec<Rc<Node>>) -> Rc<Node> {
        let f: Vec<&Facts> = operands.iter().map(|o| &o.facts).collect();
        let facts = match prim {
            Prim::Binary(op) if item.elem().is_some_and(|e| e.is_int()) => {
                facts::binary(op, f[0], f[1], [operands[0].equal(self), operands[1].equal(self)])
            }
            Prim::CmpI(op) => facts::compare(op, f[0], f[1]),
            Prim::AddPtr => facts::pointer(item, f[0], f[1]),
            Prim::Cast(op) => facts::cast(op, f[0]),
            _ => facts::other(shape, &f),
        };
        self.node(shape, item, Kind::Map(prim, operands), facts)
    }

    /// A tile that has storage only.
    pub fn stored(&mut self, shape: &[u32], item: Item, layout: Layout, storage: Storage) -> Rc<Node> {
        let n = self.node(shape, item, Kind::Stored, vec![Axis::NONE; shape.len()]);
        self.keep(&n, layout, storage);
        n
    }

    /// Adds a stored form, valid until the innermost statement list closes.
    pub fn keep(&mut self, node: &Rc<Node>, layout: Layout, storage: Storage) {
        let scope = self.scopes.len();
        if scope <= node.scope && !cheap(node) {
            // What it was made of is not needed any more, nor are its arrays.
            *node.kind.borrow_mut() = Rc::new(Kind::Stored);
        }
        node.versions.borrow_mut().push(Version { layout, storage, scope });
        if let Some(s) = self.scopes.last_mut() {
            s.stored.push(Rc::downgrade(node));
        }
    }

    /// An array variable, reused if one is free.
    pub fn slot(&mut self, ty: Ty, len: u32) -> Rc<Slot> {
        let mut pool = self.pool.borrow_mut();
        let found = pool.iter().position(|(t, n, _)| *t == ty && *n == len).map(|i| pool.swap_remove(i).2);
        drop(pool);
        let var = found.unwrap_or_else(|| self.var(ty, len));
        Rc::new(Slot { var, ty, len, pool: Rc::clone(&self.pool) })
    }

    /// `tt.expand_dims`, `tt.broadcast`, `tt.reshape`, `tt.trans` and such: a view with given facts.
    pub fn view(&mut self, shape: &[u32], srcs: Vec<Src>, operand: &Rc<Node>, facts: Facts) -> Rc<Node> {
        if let Kind::Splat(v) = *operand.kind() {
            return self.splat(shape, operand.item, v);
        }
        self.node(shape, operand.item, Kind::View(srcs, Rc::clone(operand)), facts)
    }

    /// The same element numbers under another shape.
    pub fn reshape(&mut self, shape: &[u32], operand: &Rc<Node>) -> Rc<Node> {
        let squeezed = |s: &[u32]| s.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        let facts = if squeezed(shape) == squeezed(&operand.shape) {
            let mut rest = operand.shape.iter().zip(&operand.facts).filter(|(n, _)| **n != 1).map(|(_, f)| *f);
            // Along an axis of extent 1 the fact holds for every element, not only for those that begin runs along the others.
            let unit = if let Item::Ptr(e) = operand.item { u64::from(e.bytes()) } else { 1 };
            let div = operand.facts.iter().map(|f| f.div_at(1, unit)).min().unwrap_or(1);
            shape.iter().map(|n| if *n == 1 { Axis { run: 1, same: 1, div } } else { rest.next().unwrap_or(Axis::NONE) }).collect()
        } else if shape.last() == operand.shape.last() {
            let mut f = vec![Axis::NONE; shape.len()];
            if let (Some(l), Some(o)) = (f.last_mut(), operand.facts.last()) {
                *l = *o;
            }
            f
        } else {
            vec![Axis::NONE; shape.len()]
        };
        let srcs = (0..operand.bits()).map(Src::From).collect();
        self.view(shape, srcs, operand, facts)
    }

    /// Axes of extent 1 repeat.
    pub fn broadcast(&mut self, shape: &[u32], operand: &Rc<Node>) -> Rc<Node> {
        let mut srcs = Vec::new();
        let mut facts = operand.facts.clone();
        for axis in (0..shape.len()).rev() {
            let (low, high) = axis_bits(shape, axis);
            if operand.shape[axis] == shape[axis] {
                srcs.extend((low..high).map(Src::From));
            } else {
                facts[axis] = Axis { run: 1, same: u64::from(shape[axis]), div: facts[axis].div };
            }
        }
        self.view(shape, srcs, operand, facts)
    }

    /// Result axis i is operand axis order\[i\].
    pub fn transpose(&mut self, shape: &[u32], order: &[u32], operand: &Rc<Node>) -> Rc<Node> {
        let mut srcs = vec![Src::Zero; operand.bits()];
        for (i, from) in order.iter().enumerate() {
            let (low, _) = axis_bits(shape, i);
            let (olow, ohigh) = axis_bits(&operand.shape, *from as usize);
            for (n, src) in srcs[olow..ohigh].iter_mut().enumerate() {
                *src = Src::From(low + n);
            }
        }
        let facts = order.iter().map(|o| operand.facts[*o as usize]).collect();
        self.view(shape, srcs, operand, facts)
    }

    /// A layout some stored part of a tile has and that covers all of it.
    pub fn prefer(&self, node: &Rc<Node>) -> Option<Layout> {
        if self.thread_bits == 0 {
            return Some(Layout::registers(node.bits()));
        }
        self.prefer_in(node, &mut HashSet::new())
    }

    fn prefer_in(&self, node: &Rc<Node>, seen: &mut HashSet<u32>) -> Option<Layout> {
        if let Some(v) = node.versions.borrow().last() {
            return Some(v.layout.clone());
        }
        if let Some(f) = self.fragments.get(&node.id) {
            return Some(f.plan.layout.clone());
        }
        if !seen.insert(node.id) {
            return None;
        }
        match &*node.kind() {
            Kind::View(srcs, a) => {
                let inner = self.prefer_in(a, seen)?;
                let mut homes = vec![None; node.bits()];
                for (src, home) in srcs.iter().zip(&inner.homes) {
                    if let Src::From(b) = src {
                        homes[*b] = Some(*home);
                    }
                }
                let mut homes: Vec<Home> = homes.into_iter().collect::<Option<_>>()?;
                crate::lower::layout::renumber(&mut homes);
                Some(Layout { homes })
            }
            Kind::Pick(bit, a, b) => {
                let mut l = self.prefer_in(a, seen).or_else(|| self.prefer_in(b, seen))?;
                let reg = l.reg_bits() as u8;
                l.homes.insert(*bit, Home::Reg(reg));
                Some(l)
            }
            Kind::Map(_, operands) => operands.iter().find_map(|o| self.prefer_in(o, seen)),
            Kind::Load { pointer, .. } => Some(self.anchor(pointer)),
            _ => None,
        }
    }

    /// The layout for reading or writing memory at the given addresses.
    pub fn anchor(&self, pointer: &Rc<Node>) -> Layout {
        let bytes = if let Item::Ptr(e) = pointer.item { e.bytes() } else { 8 };
        // The axis with the longest run; the last one if there is none.
        let last = pointer.shape.len() - 1;
        let axis = (0..pointer.shape.len()).rev().max_by_key(|a| (pointer.facts[*a].run, *a == last)).unwrap_or(last);
        self.blocked(&pointer.shape, axis, bytes)
    }

    /// A layout for a shape when nothing else is wished.
    pub fn default_layout(&self, shape: &[u32], item: Item) -> Layout {
        self.blocked(shape, shape.len() - 1, item.elem().map_or(8, |e| e.bytes()))
    }

    fn blocked(&self, shape: &[u32], axis: usize, bytes: u32) -> Layout {
        if self.thread_bits == 0 {
            return Layout::registers(shape_bits(shape));
        }
        Layout::blocked(shape, axis, log2(16 / bytes) as usize, self.thread_bits)
    }

    /// The layout to compute a tile in.
    pub fn layout_for(&self, node: &Rc<Node>) -> Layout {
        self.prefer(node).unwrap_or_else(|| self.default_layout(&node.shape, node.item))
    }

    /// Value of the element at a position; storage must have been prepared.
    pub fn eval(&mut self, node: &Rc<Node>, pos: &[Bit]) -> Result<Val> {
        if let Kind::Splat(v) = *node.kind() {
            return Ok(v);
        }
        if self.assumed.contains(&node.id) {
            return Ok(self.truth(true));
        }
        let key = (node.id, pos.to_vec());
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.memo.get(&key)) {
            return Ok(*v);
        }
        let v = self.eval_new(node, pos)?;
        if let Some(s) = self.scopes.last_mut() {
            s.memo.insert(key, v);
        }
        self.tee(node, pos, v);
        Ok(v)
    }

    fn eval_new(&mut self, node: &Rc<Node>, pos: &[Bit]) -> Result<Val> {
        let found = node.versions.borrow().iter().find(|v| readable(v, pos)).cloned();
        if let Some(version) = found {
            return Ok(self.read(node, &version, pos));
        }
        match &*node.kind() {
            Kind::Splat(v) => Ok(*v),
            Kind::Range(start) => {
                let n = self.compose(pos);
                let start = self.i32(i64::from(*start));
                Ok(self.add(n, start))
            }
            Kind::View(srcs, a) => self.eval(a, &map_view(srcs, pos)),
            Kind::Pick(bit, a, b) => {
                let mut inner = pos.to_vec();
                match inner.remove(*bit) {
                    Bit::Zero => self.eval(a, &inner),
                    Bit::One => self.eval(b, &inner),
                    other => {
                        let condition = self.bit(other);
                        let (x, y) = (self.eval(a, &inner)?, self.eval(b, &inner)?);
                        Ok(self.select(condition, y, x))
                    }
                }
            }
            Kind::Map(prim, operands) => {
                let args = operands.iter().map(|o| self.eval(o, pos)).collect::<Result<Vec<_>>>()?;
                let from = operands[if *prim == Prim::Select { 1 } else { 0 }].item;
                self.prim(*prim, from, node.item, &args)
            }
            Kind::Load { pointer, mask, other } => {
                let (p, m) = (self.eval(pointer, pos)?, mask.as_ref().map(|m| self.eval(m, pos)).transpose()?);
                let o = other.as_ref().map(|o| self.eval(o, pos)).transpose()?;
                Ok(self.load_scalar(p, m, o, false))
            }
            Kind::Region(block, operands, pack, result) => {
                let mut all = Vec::new();
                for o in operands {
                    for n in 0..1u32 << pack {
                        let mut p = pos.to_vec();
                        p[..*pack].copy_from_slice(&crate::lower::layout::const_bits(n, *pack));
                        all.push(self.eval(o, &p)?);
                    }
                }
                let results = self.scalar_region(block, &all)?;
                let mut candidates: Vec<Val> = results[*result << *pack..(*result + 1) << *pack].to_vec();
                for bit in &pos[..*pack] {
                    let mut next = Vec::new();
                    for pair in candidates.chunks(2) {
                        next.push(match bit {
                            Bit::Zero => pair[0],
                            Bit::One => pair[1],
                            other => {
                                let condition = self.bit(*other);
                                self.select(condition, pair[1], pair[0])
                            }
                        });
                    }
                    candidates = next;
                }
                Ok(candidates[0])
            }
            Kind::Stored => Err(self.internal(format!("tile {} of shape {:?} has no storage for {pos:?}", node.id, node.shape))),
        }
    }

    fn read(&mut self, node: &Rc<Node>, version: &Version, pos: &[Bit]) -> Val {
        let mut regs = vec![Bit::Zero; version.layout.reg_bits()];
        for (home, bit) in version.layout.homes.iter().zip(pos) {
            if let Home::Reg(r) = home {
                regs[usize::from(*r)] = *bit;
            }
        }
        match &version.storage {
            Storage::Vals(v) => v[regs.iter().enumerate().map(|(i, b)| usize::from(*b == Bit::One) << i).sum::<usize>()],
            Storage::Array(slot) => self.get_at(slot.var, &regs, item_ty(node.item)),
        }
    }
}

/// Whether a version can be read at a position.
fn readable(version: &Version, pos: &[Bit]) -> bool {
    let constant = matches!(version.storage, Storage::Vals(_));
    version.layout.homes.iter().zip(pos).all(|(home, bit)| match home {
        Home::Thread(t) => *bit == Bit::Thread(*t),
        Home::Reg(_) => !constant || matches!(bit, Bit::Zero | Bit::One),
    })
}

/// The operand's position.
pub(super) fn map_view(srcs: &[Src], pos: &[Bit]) -> Pos {
    srcs.iter()
        .map(|s| match s {
            Src::From(b) => pos[*b],
            Src::Zero => Bit::Zero,
            Src::One => Bit::One,
        })
        .collect()
}

/// The thread type of an item.
pub(super) fn item_ty(item: Item) -> Ty {
    match item {
        Item::Elem(e) => Ty::Elem(e),
        Item::Ptr(e) => Ty::Ptr(e),
    }
}

/// Whether recomputing an element is cheaper than moving it.
pub(super) fn cheap(node: &Node) -> bool {
    node.cost <= CHEAP && !matches!(*node.kind(), Kind::Stored)
}
