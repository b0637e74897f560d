//! Control flow, and a first look at what a kernel uses.

use spirv::{LoopControl, Op, SelectionControl};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::error::Result;
use crate::thread::{Effect, Inst, Kernel, Place, Shared, Stmt, Ty, Val};
use crate::Elem;

/// How a shared array is used.
#[derive(Clone, Copy, Default)]
pub struct SharedUse {
    /// By atomics.
    pub atomic: bool,
}

/// What a kernel uses, found before anything is written.
#[derive(Default)]
pub struct Facts {
    pub block_ids: bool,
    pub block_counts: bool,
    pub thread_ids: bool,
    /// Anything that depends on subgroups.
    pub subgroups: bool,
    pub shuffles: bool,
    /// Half precision.
    pub half: bool,
    /// Double precision.
    pub double: bool,
    /// Products and sums rounded once.
    pub fused: bool,
    pub shared: Vec<SharedUse>,
}

/// Looks through a kernel.
pub fn facts(kernel: &Kernel) -> Facts {
    let mut f = Facts { shared: vec![SharedUse::default(); kernel.shared.len()], ..Facts::default() };
    let has = |elem| kernel.types.contains(&Ty::Elem(elem)) || kernel.vars.iter().any(|v| v.ty == Ty::Elem(elem));
    (f.half, f.double) = (has(Elem::F16), has(Elem::F64));
    look(&kernel.body, &mut f);
    f
}

fn look(list: &[Stmt], f: &mut Facts) {
    for stmt in list {
        match stmt {
            Stmt::Let { inst, .. } => match inst {
                Inst::BlockId(_) => f.block_ids = true,
                Inst::NumBlocks(_) => f.block_counts = true,
                Inst::ThreadId => f.thread_ids = true,
                Inst::Fma(..) => f.fused = true,
                Inst::Shuffle(..) => (f.subgroups, f.shuffles, f.thread_ids) = (true, true, true),
                Inst::FragmentZero | Inst::FragmentLoad { .. } | Inst::FragmentMulAdd(..) => f.subgroups = true,
                Inst::Atomic { place: Place::Shared { array: Shared(i), .. }, .. } | Inst::AtomicCas { place: Place::Shared { array: Shared(i), .. }, .. } => {
                    f.shared[*i as usize].atomic = true;
                }
                _ => {}
            },
            Stmt::Do(Effect::SubgroupBarrier | Effect::FragmentStore { .. }) => f.subgroups = true,
            Stmt::Do(_) | Stmt::BreakUnless(_) => {}
            Stmt::If { then, other, .. } => {
                look(then, f);
                look(other, f);
            }
            Stmt::For { body, .. } | Stmt::Loop { body, .. } => look(body, f),
        }
    }
}

impl Emitter<'_> {
    /// A statement that branches.
    pub(super) fn flow(&mut self, stmt: &Stmt) -> Result<()> {
        match stmt {
            Stmt::Let { .. } | Stmt::Do(_) => Ok(()),
            Stmt::If { condition, then, other, .. } => {
                let (yes, merge) = (self.m.id(), self.m.id());
                let no = if other.is_empty() { merge } else { self.m.id() };
                self.m.effect(Op::SelectionMerge, &[merge, SelectionControl::NONE.bits()]);
                self.m.choose(self.id(*condition), yes, no);
                self.m.label(yes);
                self.list(then)?;
                self.m.jump(merge);
                if !other.is_empty() {
                    self.m.label(no);
                    self.list(other)?;
                    self.m.jump(merge);
                }
                self.m.label(merge);
                Ok(())
            }
            Stmt::For { index, low, high, step, unsigned, unroll, body, .. } => self.count([*index, *low, *high, *step], *unsigned, *unroll, body),
            Stmt::Loop { body, .. } => {
                let [header, first, next, merge] = [0; 4].map(|_| self.m.id());
                self.m.jump(header);
                self.m.label(header);
                self.m.effect(Op::LoopMerge, &[merge, next, LoopControl::NONE.bits()]);
                self.m.jump(first);
                self.m.label(first);
                self.loops.push(merge);
                let done = self.list(body);
                self.loops.pop();
                done?;
                self.m.jump(next);
                self.m.label(next);
                self.m.jump(header);
                self.m.label(merge);
                Ok(())
            }
            Stmt::BreakUnless(condition) => {
                let Some(&merge) = self.loops.last() else { return unsupported("", format!("kernel '{}' leaves a loop where none is open", self.kernel.name)) };
                let on = self.m.id();
                self.m.choose(self.id(*condition), on, merge);
                self.m.label(on);
                Ok(())
            }
        }
    }

    /// A counted loop.
    fn count(&mut self, [index, low, high, step]: [Val; 4], unsigned: bool, unroll: u32, body: &[Stmt]) -> Result<()> {
        let elem = self.elem_of(index)?;
        if !matches!(elem, Elem::I32 | Elem::I64) {
            return unsupported("scf.for", format!("kernel '{}' counts in {elem}; i32 and i64 are possible", self.kernel.name));
        }
        let ty = self.elem(elem);
        let less = if unsigned { Op::ULessThan } else { Op::SLessThan };
        let [header, test, first, next, merge, i, following, more, again] = [0; 9].map(|_| self.m.id());
        let (at_start, simple) = (self.m.op(less, self.m.bool, &[self.id(low), self.id(high)]), self.stays_in_range(elem, high, step, unsigned));
        let before = self.m.block;
        self.m.jump(header);
        self.m.label(header);
        self.m.effect_with(Op::Phi, ty, i, &[self.id(low), before, following, next]);
        if !simple {
            self.m.effect_with(Op::Phi, self.m.bool, more, &[at_start, before, again, next]);
        }
        let control = if unroll > 0 { LoopControl::UNROLL } else { LoopControl::NONE };
        self.m.effect(Op::LoopMerge, &[merge, next, control.bits()]);
        self.m.jump(test);
        self.m.label(test);
        if simple {
            self.m.effect_with(less, self.m.bool, more, &[i, self.id(high)]);
        }
        self.m.choose(more, first, merge);
        self.m.label(first);
        self.values[index.0 as usize] = i;
        self.list(body)?;
        self.m.jump(next);
        self.m.label(next);
        self.m.effect_with(Op::IAdd, ty, following, &[i, self.id(step)]);
        if !simple {
            // The index may wrap around past the bound; what is left before it does not.
            let left = self.m.op(Op::ISub, ty, &[self.id(high), i]);
            self.m.effect_with(Op::UGreaterThan, self.m.bool, again, &[left, self.id(step)]);
        }
        self.m.jump(header);
        self.m.label(merge);
        Ok(())
    }

    /// Whether a loop's index is known not to wrap around.
    fn stays_in_range(&self, elem: Elem, high: Val, step: Val, unsigned: bool) -> bool {
        let (Some(high), Some(step)) = (self.constants.get(&high), self.constants.get(&step)) else { return false };
        let most = if elem == Elem::I64 { u64::MAX } else { u64::from(u32::MAX) };
        let most = if unsigned { most } else { most >> 1 };
        // A negative bound is far from the greatest number.
        let far = !unsigned && *high > most;
        far || high.checked_add(*step).is_some_and(|end| end <= most)
    }

    /// Runs `body` only where the mask is true; its results, or `other`.
    pub(super) fn guarded(&mut self, mask: Option<Id>, types: &[Id], other: &[Id], body: impl FnOnce(&mut Self) -> Result<Vec<Id>>) -> Result<Vec<Id>> {
        let Some(mask) = mask else { return body(self) };
        let (before, yes, merge) = (self.m.block, self.m.id(), self.m.id());
        self.m.effect(Op::SelectionMerge, &[merge, SelectionControl::NONE.bits()]);
        self.m.choose(mask, yes, merge);
        self.m.label(yes);
        let made = body(self)?;
        let after = self.m.block;
        self.m.jump(merge);
        self.m.label(merge);
        Ok(made.iter().zip(types).zip(other).map(|((value, ty), other)| self.m.op(Op::Phi, *ty, &[*value, after, *other, before])).collect())
    }
}
