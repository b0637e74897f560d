//! Operations one by one: scalars become instructions at once, tiles become nodes.

use std::collections::HashMap;
use std::rc::Rc;

use crate::Elem;
use crate::error::Result;
use crate::lower::dot_scaled::ScaledFactor;
use crate::lower::facts::{self, MAX_DIV};
use crate::lower::layout::{Layout, shape_bits};
use crate::lower::node::{Kind, Node, Src, item_ty};
use crate::lower::prim::Prim;
use crate::lower::{DEEP, Lower, Rep};
use crate::thread::{Effect, Inst, Ty, Val};
use crate::tile::print::op_name;
use crate::tile::{libdevice, Binary, Block, Cast, Item, Literal, Op, OpKind, Type, Value};

impl Lower<'_> {
    /// Lowers the operations of a block up to its terminator; returns the terminator's operands.
    pub fn block(&mut self, block: &Block) -> Result<Vec<Value>> {
        let mut last: HashMap<Value, usize> = HashMap::new();
        for (i, op) in block.ops.iter().enumerate() {
            uses(op, &mut |v| {
                last.insert(v, i);
            });
        }
        let mut ends: Vec<Vec<Value>> = vec![Vec::new(); block.ops.len()];
        let own: std::collections::HashSet<Value> = block.ops.iter().flat_map(|o| &o.results).chain(&block.args).copied().collect();
        for (v, i) in last {
            if own.contains(&v) {
                ends[i].push(v);
            }
        }
        for (i, op) in block.ops.iter().enumerate() {
            if matches!(op.kind, OpKind::Yield | OpKind::Return | OpKind::Condition) {
                return Ok(op.operands.clone());
            }
            self.at = (op_name(&op.kind).to_owned(), op.loc);
            self.op(op)?;
            for v in &ends[i] {
                self.env.remove(v);
            }
        }
        Ok(Vec::new())
    }

    fn define(&mut self, value: Value, rep: Rep) -> Result<()> {
        if let Rep::Tile(n) = &rep
            && n.depth > DEEP
        {
            self.settle(n)?;
        }
        self.env.insert(value, rep);
        Ok(())
    }

    /// Lowers an operation.
    pub fn op(&mut self, op: &Op) -> Result<()> {
        let Some(result) = op.results.first().copied() else { return self.effects(op) };
        let ty = self.function.ty(result).clone();
        let args = &op.operands;
        self.many_next = op.results.iter().any(|r| self.many.contains(r));
        let rep = match &op.kind {
            OpKind::Constant(literal) => self.literal(&ty, *literal)?,
            OpKind::Poison => self.poison(&ty)?,
            OpKind::ProgramId(axis) => Rep::Scalar(self.inst(Ty::Elem(Elem::I32), Inst::BlockId(*axis))),
            OpKind::NumPrograms(axis) => Rep::Scalar(self.inst(Ty::Elem(Elem::I32), Inst::NumBlocks(*axis))),
            OpKind::MakeRange(start) => {
                let f = facts::range(*start, ty.shape()[0]);
                Rep::Tile(self.node(ty.shape(), Item::Elem(Elem::I32), Kind::Range(*start), f))
            }
            OpKind::Splat => {
                let v = self.scalar(args[0])?;
                Rep::Tile(self.splat(ty.shape(), item(&ty)?, v))
            }
            OpKind::Unsplat => {
                let t = self.tile(args[0])?;
                Rep::Scalar(self.only(&t)?)
            }
            OpKind::ExpandDims(_) | OpKind::Reshape { .. } => {
                let t = self.tile(args[0])?;
                Rep::Tile(self.reshape(ty.shape(), &t))
            }
            OpKind::Broadcast => {
                let t = self.tile(args[0])?;
                Rep::Tile(self.broadcast(ty.shape(), &t))
            }
            OpKind::Trans(order) => {
                let t = self.tile(args[0])?;
                Rep::Tile(self.transpose(ty.shape(), order, &t))
            }
            OpKind::Cat | OpKind::Join => {
                let (a, b) = (self.tile(args[0])?, self.tile(args[1])?);
                let bit = if matches!(op.kind, OpKind::Join) { 0 } else { shape_bits(ty.shape()) - 1 };
                let f = vec![facts::Axis::NONE; ty.shape().len()];
                Rep::Tile(self.node(ty.shape(), item(&ty)?, Kind::Pick(bit, a, b), f))
            }
            OpKind::Split => {
                let t = self.tile(args[0])?;
                for (i, r) in op.results.iter().enumerate() {
                    let srcs: Vec<Src> =
                        std::iter::once(if i == 0 { Src::Zero } else { Src::One }).chain((0..t.bits() - 1).map(Src::From)).collect();
                    let shape = self.function.ty(*r).shape().to_vec();
                    let f = vec![facts::Axis::NONE; shape.len()];
                    let n = self.view(&shape, srcs, &t, f);
                    self.define(*r, Rep::Tile(n))?;
                }
                return Ok(());
            }
            OpKind::Unary(u) => self.elementwise(Prim::Unary(*u), &ty, args)?,
            OpKind::Binary(b) => self.elementwise(Prim::Binary(*b), &ty, args)?,
            OpKind::Fma => self.elementwise(Prim::Fma, &ty, args)?,
            OpKind::CmpI(c) => self.elementwise(Prim::CmpI(*c), &ty, args)?,
            OpKind::CmpF(c) => self.elementwise(Prim::CmpF(*c), &ty, args)?,
            OpKind::Select => self.elementwise(Prim::Select, &ty, args)?,
            OpKind::Clamp { propagate_nan } => self.elementwise(Prim::Clamp(*propagate_nan), &ty, args)?,
            OpKind::Cast(c) => self.elementwise(Prim::Cast(*c), &ty, args)?,
            OpKind::AddPtr => self.elementwise(Prim::AddPtr, &ty, args)?,
            OpKind::Extern(symbol) => {
                let prim = match libdevice::operation(symbol) {
                    Some(OpKind::Fma) => Prim::Fma,
                    Some(OpKind::Unary(u)) => Prim::Unary(u),
                    Some(OpKind::Binary(b)) => Prim::Binary(b),
                    _ => return Err(self.unsupported(format!("no known function '{symbol}'"))),
                };
                self.elementwise(prim, &ty, args)?
            }
            OpKind::Load { .. } if self.staged.contains_key(&result) => return Ok(()),
            OpKind::Load { mask, other, volatile, .. } => {
                let mask = if *mask { Some(args[1]) } else { None };
                let other = if *other { Some(args[2]) } else { None };
                if ty.is_tile() {
                    let p = self.tile(args[0])?;
                    let m = mask.map(|m| self.spread(m, ty.shape())).transpose()?;
                    let o = other.map(|o| self.spread(o, ty.shape())).transpose()?;
                    Rep::Tile(self.load(p, m, o, *volatile)?)
                } else {
                    let p = self.scalar(args[0])?;
                    let m = mask.map(|m| self.scalar(m)).transpose()?;
                    let o = other.map(|o| self.scalar(o)).transpose()?;
                    Rep::Scalar(self.load_scalar(p, m, o, *volatile))
                }
            }
            OpKind::AtomicRmw { rmw, order, mask } => self.atomic_op(args, if *mask { Some(args[2]) } else { None }, 1, Some(*rmw), *order, result)?,
            OpKind::AtomicCas(order) => self.atomic_op(args, None, 2, None, *order, result)?,
            OpKind::Reduce(axis) => return self.reduce(op, *axis as usize),
            OpKind::Scan { axis, reverse } => return self.scan(op, *axis as usize, *reverse),
            OpKind::MapElementwise(pack) => {
                if !pack.is_power_of_two() {
                    return Err(self.unsupported(format!("pack of {pack} elements")));
                }
                let operands = args.iter().map(|a| self.tile(*a)).collect::<Result<Vec<_>>>()?;
                let block = Rc::new(op.regions[0].clone());
                self.flush()?;
                for (i, r) in op.results.iter().enumerate() {
                    let ty = self.function.ty(*r).clone();
                    let f = vec![facts::Axis::NONE; ty.shape().len()];
                    let kind = Kind::Region(Rc::clone(&block), operands.clone(), pack.trailing_zeros() as usize, i);
                    let n = self.node(ty.shape(), item(&ty)?, kind, f);
                    self.settle(&n)?;
                    self.define(*r, Rep::Tile(n))?;
                }
                return Ok(());
            }
            OpKind::Dot { precision } => {
                if let Some(product) = self.staged_dot(op)? {
                    return self.define(result, Rep::Tile(product));
                }
                let (a, b, c) = (self.tile(args[0])?, self.tile(args[1])?, self.tile(args[2])?);
                Rep::Tile(self.dot(&a, &b, &c, *precision, self.rows.contains(&result))?)
            }
            OpKind::DotScaled { formats, scales, pack_k } => {
                let c = self.tile(args[2])?;
                let mut rest = args[3..].iter();
                let mut factor = |l: &Self, i: usize| -> Result<ScaledFactor<'_>> {
                    let scale = if scales[i] { rest.next().map(|s| l.tile(*s)).transpose()? } else { None };
                    Ok(ScaledFactor { elements: l.tile(args[i])?, scale, format: &formats[i], pack_k: pack_k[i], right: i == 1 })
                };
                let factors = [factor(self, 0)?, factor(self, 1)?];
                Rep::Tile(self.dot_scaled(factors, &c)?)
            }
            OpKind::Gather(axis) => {
                let (source, indices) = (self.tile(args[0])?, self.tile(args[1])?);
                Rep::Tile(self.gather(&source, &indices, *axis as usize)?)
            }
            OpKind::Histogram { mask } => {
                let source = self.tile(args[0])?;
                let mask = if *mask { Some(self.tile(args[1])?) } else { None };
                Rep::Tile(self.histogram(&source, mask.as_ref(), &ty)?)
            }
            OpKind::For { .. } | OpKind::If | OpKind::While => return self.control(op),
            other => return Err(self.unsupported(format!("{} is not lowered", op_name(other)))),
        };
        self.define(result, rep)
    }

    fn effects(&mut self, op: &Op) -> Result<()> {
        let args = &op.operands;
        match &op.kind {
            OpKind::Store { mask, .. } => {
                let mask = if *mask { Some(args[2]) } else { None };
                if let Rep::Tile(p) = self.rep(args[0])? {
                    let v = self.spread(args[1], &p.shape)?;
                    let m = mask.map(|m| self.spread(m, &p.shape)).transpose()?;
                    return self.store(&p, &v, m.as_ref());
                }
                let (p, v) = (self.scalar(args[0])?, self.scalar(args[1])?);
                let m = mask.map(|m| self.scalar(m)).transpose()?;
                self.store_scalar(p, v, m)
            }
            OpKind::Assert(message) => match self.rep(args[0])? {
                Rep::Scalar(c) => {
                    self.effect(Effect::Assert(c, message.clone()));
                    Ok(())
                }
                Rep::Tile(t) => {
                    let layout = self.layout_for(&t);
                    self.prepare(&t, &self.wants(&layout, 0))?;
                    self.each(&t.shape.clone(), &layout, 0, &mut |l, regs| {
                        let c = l.eval(&t, &layout.pos(regs))?;
                        l.effect(Effect::Assert(c, message.clone()));
                        Ok(())
                    })
                }
            },
            OpKind::Barrier => {
                self.flush()?;
                self.barrier(true);
                Ok(())
            }
            // Printing has no way out of a kernel on any format; a fact is no code.
            OpKind::Print(_) | OpKind::Assume => Ok(()),
            OpKind::For { .. } | OpKind::If | OpKind::While => self.control(op),
            _ if !op.kind.has_effect() => Ok(()),
            other => Err(self.unsupported(format!("{} is not lowered", op_name(other)))),
        }
    }

    fn atomic_op(&mut self, args: &[Value], mask: Option<Value>, count: usize, rmw: Option<crate::tile::Rmw>, order: crate::tile::Order, result: Value) -> Result<Rep> {
        let used = self.used(result);
        if let Rep::Tile(p) = self.rep(args[0])? {
            let values = args[1..=count].iter().map(|v| self.spread(*v, &p.shape)).collect::<Result<Vec<_>>>()?;
            let m = mask.map(|m| self.spread(m, &p.shape)).transpose()?;
            return Ok(Rep::Tile(self.atomic_tile(&p, &values, m.as_ref(), rmw, order, used)?));
        }
        let p = self.scalar(args[0])?;
        let values = args[1..=count].iter().map(|v| self.scalar(*v)).collect::<Result<Vec<_>>>()?;
        let m = mask.map(|m| self.scalar(m)).transpose()?;
        Ok(Rep::Scalar(self.atomic_scalar(p, &values, m, rmw, order, used)?))
    }

    /// Whether anything reads a value.
    fn used(&self, value: Value) -> bool {
        fn any(b: &Block, value: Value) -> bool {
            b.ops.iter().any(|o| o.operands.contains(&value) || o.regions.iter().any(|r| any(r, value)))
        }
        any(&self.function.body, value)
    }

    /// A tile, or a scalar repeated.
    pub fn spread(&mut self, v: Value, shape: &[u32]) -> Result<Rc<Node>> {
        match self.rep(v)? {
            Rep::Tile(t) => Ok(t),
            Rep::Scalar(s) => {
                let item = item(self.function.ty(v))?;
                Ok(self.splat(shape, item, s))
            }
        }
    }

    /// The element of a tile of one, known to all threads.
    pub fn only(&mut self, t: &Rc<Node>) -> Result<Val> {
        let layout = Layout::registers(0);
        self.prepare(t, &[])?;
        self.eval(t, &layout.pos(&[]))
    }

    fn literal(&mut self, ty: &Type, literal: Literal) -> Result<Rep> {
        let Some(elem) = ty.elem() else { return Err(self.unsupported("a constant that is no number")) };
        let bits = match literal {
            Literal::Int(n) => n as u64,
            Literal::Bits(b) => b,
        };
        let v = self.bits(elem, bits);
        Ok(if ty.is_tile() { Rep::Tile(self.splat(ty.shape(), Item::Elem(elem), v)) } else { Rep::Scalar(v) })
    }

    fn elementwise(&mut self, prim: Prim, ty: &Type, args: &[Value]) -> Result<Rep> {
        let from = item(self.function.ty(args[usize::from(prim == Prim::Select)]))?;
        let to = item(ty)?;
        if ty.is_tile() {
            let operands = args.iter().map(|a| self.spread(*a, ty.shape())).collect::<Result<Vec<_>>>()?;
            let splats: Option<Vec<Val>> = operands.iter().map(|o| if let Kind::Splat(v) = *o.kind() { Some(v) } else { None }).collect();
            if let Some(values) = splats {
                let v = self.scalar_prim(prim, from, to, &values)?;
                return Ok(Rep::Tile(self.splat(ty.shape(), to, v)));
            }
            if let (Prim::AddPtr, Kind::Splat(base)) = (prim, &*operands[0].kind()) {
                return Ok(Rep::Tile(self.address(ty.shape(), from, *base, &operands[1])?));
            }
            return Ok(Rep::Tile(self.map(ty.shape(), to, prim, operands)));
        }
        let values = args.iter().map(|a| self.scalar(*a)).collect::<Result<Vec<_>>>()?;
        Ok(Rep::Scalar(self.scalar_prim(prim, from, to, &values)?))
    }

    /// Base + offsets with what is equal in all offsets added to the base once; offsets of 32 bits do not wrap within a tile.
    fn address(&mut self, shape: &[u32], item: Item, base: Val, offsets: &Rc<Node>) -> Result<Rc<Node>> {
        let (mut base, mut offsets) = (base, Rc::clone(offsets));
        while let Some((part, elem, rest)) = self.peel(&offsets, 0)? {
            base = self.scalar_prim(Prim::AddPtr, item, item, &[base, part])?;
            debug_assert!(elem.is_int(), "offsets are integers");
            offsets = rest;
        }
        let base = self.splat(shape, item, base);
        Ok(self.map(shape, item, Prim::AddPtr, vec![base, offsets]))
    }

    /// Splits equal elements off a sum: their value, its type, and the rest.
    fn peel(&mut self, node: &Rc<Node>, depth: u32) -> Result<Option<(Val, Elem, Rc<Node>)>> {
        let Some(elem) = node.item.elem().filter(|_| depth < 8 && node.versions.borrow().is_empty()) else { return Ok(None) };
        match &*node.kind() {
            Kind::Map(Prim::Binary(Binary::AddI), a) => {
                for (this, other) in [(0, 1), (1, 0)] {
                    if let Kind::Splat(v) = *a[this].kind() {
                        return Ok((self.constant(v) != Some(0)).then(|| (v, elem, Rc::clone(&a[other]))));
                    }
                }
                for (this, other) in [(0, 1), (1, 0)] {
                    if let Some((v, e, rest)) = self.peel(&a[this], depth + 1)? {
                        let sum = self.map(&node.shape, node.item, Prim::Binary(Binary::AddI), vec![rest, Rc::clone(&a[other])]);
                        return Ok(Some((v, e, sum)));
                    }
                }
                Ok(None)
            }
            Kind::View(srcs, a) => {
                let Some((v, e, rest)) = self.peel(a, depth + 1)? else { return Ok(None) };
                Ok(Some((v, e, self.view(&node.shape, srcs.clone(), &rest, node.facts.clone()))))
            }
            Kind::Map(Prim::Cast(Cast::ExtS), a) => {
                let Some((v, e, rest)) = self.peel(&a[0], depth + 1)? else { return Ok(None) };
                let wide = self.scalar_prim(Prim::Cast(Cast::ExtS), Item::Elem(e), node.item, &[v])?;
                Ok(Some((wide, elem, self.map(&node.shape, node.item, Prim::Cast(Cast::ExtS), vec![rest]))))
            }
            _ => Ok(None),
        }
    }

    /// An operation on scalars, with what follows for divisibility.
    fn scalar_prim(&mut self, prim: Prim, from: Item, to: Item, args: &[Val]) -> Result<Val> {
        let v = self.prim(prim, from, to, args)?;
        let d: Vec<u64> = args.iter().map(|a| self.div(*a)).collect();
        let div = match (prim, to) {
            (Prim::Binary(Binary::AddI | Binary::SubI | Binary::MinS | Binary::MaxS | Binary::MinU | Binary::MaxU | Binary::RemS | Binary::RemU), _) => d[0].min(d[1]),
            (Prim::Binary(Binary::MulI), _) => (d[0] * d[1]).min(MAX_DIV),
            (Prim::Binary(Binary::Shl), _) => match self.constant(args[1]) {
                Some(n) if n < 20 => (d[0] << n).min(MAX_DIV),
                _ => 1,
            },
            (Prim::Select, _) => d[1].min(d[2]),
            (Prim::Cast(Cast::ExtS | Cast::ExtU | Cast::TruncI), _) => d[0],
            (Prim::AddPtr, Item::Ptr(e)) => {
                if let Some(root) = self.arguments.get(&args[0]).copied() {
                    self.arguments.insert(v, root);
                }
                d[0].min((d[1] * u64::from(e.bytes())).min(MAX_DIV))
            }
            _ => 1,
        };
        if div > 1 {
            let known = self.divisible.get(&v).copied().unwrap_or(1);
            self.divisible.insert(v, div.max(known));
        }
        Ok(v)
    }

    /// Runs a region of scalars at the current place; returns what it yields.
    pub fn scalar_region(&mut self, region: &Block, args: &[Val]) -> Result<Vec<Val>> {
        if region.args.len() != args.len() {
            return Err(self.internal(format!("a region of {} arguments gets {}", region.args.len(), args.len())));
        }
        for (value, arg) in region.args.iter().zip(args) {
            self.env.insert(*value, Rep::Scalar(*arg));
        }
        let (uniform, at) = (std::mem::replace(&mut self.uniform, false), self.at.clone());
        let yielded = self.block(region)?;
        self.uniform = uniform;
        self.at = at;
        yielded.iter().map(|v| self.scalar(*v)).collect()
    }

    /// A zero of an item.
    pub fn zero(&mut self, item: Item) -> Val {
        match item {
            Item::Elem(e) => self.bits(e, 0),
            Item::Ptr(_) => self.inst(item_ty(item), Inst::Undef),
        }
    }
}

/// The item of a scalar or tile type.
pub(super) fn item(ty: &Type) -> Result<Item> {
    ty.item().ok_or_else(|| crate::CompileError::unsupported("", Default::default(), "a block pointer where a number or pointer is wanted"))
}

/// Every value an operation reads, with those its regions read.
pub(super) fn uses(op: &Op, f: &mut dyn FnMut(Value)) {
    op.operands.iter().for_each(|v| f(*v));
    for region in &op.regions {
        region.ops.iter().for_each(|o| uses(o, f));
    }
}
