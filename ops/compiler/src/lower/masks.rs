//! Masks that are seen to be true for a whole tile or vector by looking at one element: bounds of consecutive indices.

use std::collections::HashSet;
use std::rc::Rc;

use crate::error::Result;
use crate::lower::Lower;
use crate::lower::layout::Bit;
use crate::lower::node::{Kind, Node, Src};
use crate::lower::prim::Prim;
use crate::thread::Val;
use crate::tile::{Binary, CmpI};

/// Which end of consecutive indices decides a comparison.
fn deciding(op: CmpI) -> Option<Bit> {
    match op {
        CmpI::Slt | CmpI::Sle | CmpI::Ult | CmpI::Ule => Some(Bit::One),
        CmpI::Sgt | CmpI::Sge | CmpI::Ugt | CmpI::Uge => Some(Bit::Zero),
        CmpI::Eq | CmpI::Ne => None,
    }
}

impl Lower<'_> {
    /// Whether the last of each 2^`vector` neighbours along an axis decides for all of them: where it is true, all are.
    pub fn falling(&self, mask: &Rc<Node>, axis: usize, vector: usize) -> bool {
        let n = 1u64 << vector;
        if mask.facts[axis].same >= n {
            return true;
        }
        match &*mask.kind() {
            Kind::Map(Prim::CmpI(op), a) => deciding(*op) == Some(Bit::One) && a[0].facts[axis].run >= n && a[1].facts[axis].same >= n,
            Kind::Map(Prim::Binary(Binary::And), a) => a.iter().all(|m| self.falling(m, axis, vector)),
            // Axes of other numbers are the same where the shapes end alike.
            Kind::View(srcs, a) => {
                let straight = srcs.iter().take(vector).enumerate().all(|(i, s)| *s == Src::From(i));
                let last = axis == mask.shape.len() - 1 && a.shape.last() == mask.shape.last();
                straight && last && self.falling(a, a.shape.len() - 1, vector)
            }
            _ => false,
        }
    }

    /// A scalar that is true only if every element of the mask is; `None` where one element does not tell.
    fn all_true(&mut self, mask: &Rc<Node>) -> Result<Option<Val>> {
        match &*mask.kind() {
            Kind::Splat(v) => Ok(Some(*v)),
            Kind::View(_, a) => self.all_true(a),
            Kind::Map(Prim::Binary(Binary::And), a) => {
                let (Some(x), Some(y)) = (self.all_true(&a[0])?, self.all_true(&a[1])?) else { return Ok(None) };
                Ok(Some(self.and(x, y)))
            }
            Kind::Map(Prim::CmpI(op), a) => {
                let whole = |facts: &[crate::lower::facts::Axis], runs: bool| {
                    facts.iter().zip(&mask.shape).all(|(f, n)| f.same >= u64::from(*n) || (runs && f.run >= u64::from(*n)))
                };
                let Some(end) = deciding(*op).filter(|_| whole(&a[0].facts, true) && whole(&a[1].facts, false)) else { return Ok(None) };
                let pos = vec![end; mask.bits()];
                if !index_only(mask) {
                    return Ok(None);
                }
                Ok(Some(self.eval(mask, &pos)?))
            }
            _ => Ok(None),
        }
    }

    /// A scalar that is true only if every mask is everywhere, with the masks' numbers; `None` if that cannot be told or nothing is masked.
    pub fn all_of(&mut self, masks: &[Rc<Node>]) -> Result<Option<Val>> {
        let mut all: Option<Val> = None;
        for m in masks {
            let Some(v) = self.all_true(m)? else { return Ok(None) };
            all = self.both(all, Some(v));
        }
        Ok(all.filter(|v| self.constant(*v).is_none()))
    }

    /// Runs code twice: where the masks are known to be true everywhere, and where they are not; once if that cannot be told.
    pub fn versioned(&mut self, masks: &[Rc<Node>], f: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some(all) = self.all_of(masks)? else { return f(self) };
        let before = self.assumed.clone();
        self.open();
        self.assumed.extend(masks.iter().map(|m| m.id));
        f(self)?;
        self.assumed = before;
        let then = self.close();
        self.open();
        f(self)?;
        let other = self.close();
        self.push(crate::thread::Stmt::If { condition: all, uniform: self.uniform, then, other });
        Ok(())
    }

    /// Masks of the loads an expression makes.
    pub fn masks_of(&self, node: &Rc<Node>, out: &mut Vec<Rc<Node>>, seen: &mut HashSet<u32>) {
        if !node.versions.borrow().is_empty() || !seen.insert(node.id) {
            return;
        }
        match &*node.kind() {
            Kind::View(_, a) => self.masks_of(a, out, seen),
            Kind::Pick(_, a, b) => [a, b].into_iter().for_each(|n| self.masks_of(n, out, seen)),
            Kind::Map(_, operands) => operands.iter().for_each(|n| self.masks_of(n, out, seen)),
            Kind::Load { pointer, mask, other } => {
                if let Some(m) = mask
                    && !out.iter().any(|o| o.id == m.id)
                {
                    out.push(Rc::clone(m));
                }
                [Some(pointer), other.as_ref()].into_iter().flatten().for_each(|n| self.masks_of(n, out, seen));
            }
            _ => {}
        }
    }
}

/// Whether an expression can be evaluated anywhere: it reads neither memory nor storage.
fn index_only(node: &Rc<Node>) -> bool {
    match &*node.kind() {
        Kind::Splat(_) | Kind::Range(_) => true,
        Kind::View(_, a) => index_only(a),
        Kind::Map(_, operands) => node.cost <= 64 && operands.iter().all(index_only),
        _ => false,
    }
}
