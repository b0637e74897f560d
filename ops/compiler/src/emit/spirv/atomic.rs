//! Atomics: integers as they are, all else by compare and swap on the word that holds it.

use spirv::{Capability, LoopControl, MemorySemantics, Op, Scope};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::thread::{Place, Val};
use crate::tile::{Binary, Order, Rmw};

/// Where an atomic works: a pointer to a word, the type of the word, scope and semantics.
#[derive(Clone, Copy)]
struct Spot {
    pointer: Id,
    ty: Id,
    scope: u32,
    order: u32,
    /// A word no driver knows beforehand: where the element lies.
    salt: Id,
}

impl Emitter<'_> {
    /// A fence, if the semantics ask for one of this kind.
    fn fence(&mut self, spot: Spot, kind: MemorySemantics) {
        let (ordered, asked) = (spot.order & !ORDERS.bits(), spot.order & (kind | MemorySemantics::ACQUIRE_RELEASE).bits());
        if asked != 0 {
            let (scope, order) = (self.m.c32(spot.scope), self.m.c32(ordered | kind.bits()));
            self.m.effect(Op::MemoryBarrier, &[scope, order]);
        }
    }

    /// Repeats compare and swap with what `f` makes of the old word; the old word. Fences stand before and after the loop: ordered compare
    /// and swap within a loop loses updates on a driver in software (lavapipe 22.3).
    fn swap(&mut self, spot: Spot, f: impl FnOnce(&mut Self, Id) -> Result<Id>) -> Result<Id> {
        self.fence(spot, MemorySemantics::RELEASE);
        let (scope, relaxed) = (self.m.c32(spot.scope), self.m.c32(0));
        let guess = self.m.op(Op::AtomicLoad, spot.ty, &[spot.pointer, scope, relaxed]);
        let [header, first, next, merge, old] = [0; 5].map(|_| self.m.id());
        let (before, seen) = (self.m.block, self.m.id());
        self.m.jump(header);
        self.m.label(header);
        self.m.effect_with(Op::Phi, spot.ty, old, &[guess, before, seen, next]);
        self.m.effect(Op::LoopMerge, &[merge, next, LoopControl::NONE.bits()]);
        self.m.jump(first);
        self.m.label(first);
        let new = f(self, old)?;
        self.m.effect_with(Op::AtomicCompareExchange, spot.ty, seen, &[spot.pointer, scope, relaxed, relaxed, new, old]);
        let done = self.m.op(Op::IEqual, self.m.bool, &[seen, old]);
        self.m.choose(done, merge, next);
        self.m.label(next);
        self.m.jump(header);
        self.m.label(merge);
        self.fence(spot, MemorySemantics::ACQUIRE);
        Ok(old)
    }

    /// The same for an element of 1 or 2 bytes at an address of global memory.
    pub(super) fn swap_narrow(&mut self, address: Id, bytes: u32, order: u32, f: impl FnOnce(&mut Self, Id) -> Result<Id>) -> Result<Id> {
        let (word, shift) = self.around(address);
        let (u32, mask) = (self.m.u32, self.m.c32((1 << (8 * bytes)) - 1));
        let pointer = self.global_place(u32, word);
        let hole = self.m.op(Op::ShiftLeftLogical, u32, &[mask, shift]);
        let rest = self.m.op(Op::Not, u32, &[hole]);
        let part = |e: &mut Self, all: Id| {
            let moved = e.m.op(Op::ShiftRightLogical, u32, &[all, shift]);
            e.m.op(Op::BitwiseAnd, u32, &[moved, mask])
        };
        let old = self.swap(Spot { pointer, ty: u32, scope: Scope::Device as u32, order, salt: shift }, |e, all| {
            let old = part(e, all);
            let new = f(e, old)?;
            let moved = e.m.op(Op::ShiftLeftLogical, u32, &[new, shift]);
            let kept = e.m.op(Op::BitwiseAnd, u32, &[all, rest]);
            Ok(e.m.op(Op::BitwiseOr, u32, &[kept, moved]))
        })?;
        Ok(part(self, old))
    }

    /// The word of an element of 4 or 8 bytes, or of any width in shared memory.
    fn spot(&mut self, place: &Place, elem: Elem, order: Order) -> Result<Spot> {
        let ty = if elem.bytes() == 8 { self.m.u64 } else { self.m.u32 };
        let wide = elem.bytes() == 8;
        let allowed = if matches!(place, Place::Shared { .. }) { self.device.shared_atomic64 } else { self.device.atomic64 };
        if wide && !allowed {
            let where_ = if matches!(place, Place::Shared { .. }) { "shared" } else { "global" };
            return unsupported("tt.atomic_rmw", format!("kernel '{}' has 64-bit atomics on {where_} memory, which the device lacks", self.kernel.name));
        }
        if wide {
            self.m.capability(Capability::Int64Atomics);
        }
        let order = semantics(order, matches!(place, Place::Shared { .. }));
        Ok(match *place {
            Place::Shared { array, index } => {
                let index = self.id(index);
                Spot { pointer: self.shared_place(array, index, 0), ty, scope: Scope::Workgroup as u32, order, salt: if wide { self.m.op(Op::UConvert, ty, &[index]) } else { index } }
            }
            Place::Global { pointer, .. } => {
                let address = self.id(pointer);
                let salt = if wide { address } else { self.m.op(Op::UConvert, ty, &[address]) };
                Spot { pointer: self.global_place(ty, address), ty, scope: Scope::Device as u32, order, salt }
            }
        })
    }

    /// Read, modify, write; the old value.
    pub(super) fn atomic(&mut self, place: &Place, rmw: Rmw, value: Val, mask: Option<Val>, order: Order) -> Result<Id> {
        let (elem, operand, place) = (self.elem_of(value)?, self.id(value), *place);
        let (held, zero) = (self.elem(elem), self.constant(self.kernel.ty(value), 0)?);
        let done = self.guarded(mask.map(|m| self.id(m)), &[held], &[zero], |e| Ok(vec![e.modify(&place, elem, rmw, operand, order)?]))?;
        Ok(done[0])
    }

    fn modify(&mut self, place: &Place, elem: Elem, rmw: Rmw, operand: Id, order: Order) -> Result<Id> {
        if let (Place::Global { pointer, .. }, 1 | 2) = (place, elem.bytes()) {
            let address = self.id(*pointer);
            let old = self.swap_narrow(address, elem.bytes(), semantics(order, false), |e, old| e.changed(elem, rmw, old, operand))?;
            return Ok(self.value_of(elem, old));
        }
        let spot = self.spot(place, elem, order)?;
        let native = elem.is_int() && elem.bytes() >= 4 || rmw == Rmw::Exch;
        if native {
            return Ok(self.native(elem, rmw, spot, operand));
        }
        if rmw == Rmw::FAdd && matches!(place, Place::Global { .. }) && (elem == Elem::F32 && self.device.add32 || elem == Elem::F64 && self.device.add64) {
            return Ok(self.native_add(place, elem, spot, operand));
        }
        let old = self.swap(spot, |e, old| e.changed(elem, rmw, old, operand))?;
        Ok(self.value_of(elem, old))
    }

    /// The word that replaces an old one.
    fn changed(&mut self, elem: Elem, rmw: Rmw, old: Id, operand: Id) -> Result<Id> {
        let op = match rmw {
            Rmw::Exch => return Ok(self.word_of(elem, operand)),
            Rmw::And => Binary::And,
            Rmw::Or => Binary::Or,
            Rmw::Xor => Binary::Xor,
            Rmw::Add | Rmw::FAdd if elem.is_float() => Binary::AddF,
            Rmw::Add => Binary::AddI,
            Rmw::Max if elem.is_float() => Binary::MaxNumF,
            Rmw::Min if elem.is_float() => Binary::MinNumF,
            Rmw::Max => Binary::MaxS,
            Rmw::Min => Binary::MinS,
            Rmw::UMax => Binary::MaxU,
            Rmw::UMin => Binary::MinU,
            Rmw::FAdd => return unsupported("tt.atomic_rmw", format!("fadd of {elem}, which is no float")),
        };
        if elem.is_float() && !matches!(op, Binary::AddF | Binary::MaxNumF | Binary::MinNumF) {
            return unsupported("tt.atomic_rmw", format!("{rmw:?} of {elem}"));
        }
        let old = self.value_of(elem, old);
        let new = self.binary(op, elem, old, operand)?;
        Ok(self.word_of(elem, new))
    }

    /// A register's value out of a word, and back.
    fn value_of(&mut self, elem: Elem, word: Id) -> Id {
        match elem {
            Elem::F32 | Elem::F64 => self.reinterpret(elem, word),
            Elem::I1 => self.is_set(word),
            _ => word,
        }
    }
    fn word_of(&mut self, elem: Elem, value: Id) -> Id {
        match elem {
            Elem::F32 | Elem::F64 => self.bits(elem, value),
            _ => self.widen(elem, value),
        }
    }

    fn native(&mut self, elem: Elem, rmw: Rmw, spot: Spot, operand: Id) -> Id {
        let op = match rmw {
            Rmw::And => Op::AtomicAnd,
            Rmw::Or => Op::AtomicOr,
            Rmw::Xor => Op::AtomicXor,
            Rmw::Add | Rmw::FAdd => Op::AtomicIAdd,
            Rmw::Max => Op::AtomicSMax,
            Rmw::Min => Op::AtomicSMin,
            Rmw::UMax => Op::AtomicUMax,
            Rmw::UMin => Op::AtomicUMin,
            Rmw::Exch => Op::AtomicExchange,
        };
        let (scope, order, mut word) = (self.m.c32(spot.scope), self.m.c32(spot.order), self.word_of(elem, operand));
        if rmw != Rmw::Exch {
            word = self.integer_for_certain(spot, word);
        }
        let old = self.m.op(op, spot.ty, &[spot.pointer, scope, order, word]);
        self.value_of(elem, old)
    }

    /// The same word, put together of two parts. Lavapipe 22.3 compares the operand of an integer atomic as a float, or fails to compile,
    /// where the word was made by float arithmetic.
    fn integer_for_certain(&mut self, spot: Spot, word: Id) -> Id {
        let rest = self.m.op(Op::Not, spot.ty, &[spot.salt]);
        let (first, second) = (self.m.op(Op::BitwiseAnd, spot.ty, &[word, spot.salt]), self.m.op(Op::BitwiseAnd, spot.ty, &[word, rest]));
        self.m.op(Op::IAdd, spot.ty, &[first, second])
    }

    /// Addition of floats where the device has it.
    fn native_add(&mut self, place: &Place, elem: Elem, spot: Spot, operand: Id) -> Id {
        let Place::Global { pointer, .. } = *place else { return operand };
        self.m.extension("SPV_EXT_shader_atomic_float_add");
        self.m.capability(if elem == Elem::F32 { Capability::AtomicFloat32AddEXT } else { Capability::AtomicFloat64AddEXT });
        let (ty, address) = (self.elem(elem), self.id(pointer));
        let place = self.global_place(ty, address);
        let (scope, order) = (self.m.c32(spot.scope), self.m.c32(spot.order));
        self.m.op(Op::AtomicFAddEXT, ty, &[place, scope, order, operand])
    }

    /// Compare and swap; the old value. Floats are compared by their bits.
    pub(super) fn compare_and_swap(&mut self, place: &Place, expected: Val, desired: Val, mask: Option<Val>, order: Order) -> Result<Id> {
        let (elem, place) = (self.elem_of(expected)?, *place);
        let (held, zero) = (self.elem(elem), self.constant(self.kernel.ty(expected), 0)?);
        let (expected, desired) = (self.id(expected), self.id(desired));
        let done = self.guarded(mask.map(|m| self.id(m)), &[held], &[zero], |e| {
            let (expected, desired) = (e.word_of(elem, expected), e.word_of(elem, desired));
            if let (Place::Global { pointer, .. }, 1 | 2) = (place, elem.bytes()) {
                let address = e.id(pointer);
                let old = e.swap_narrow(address, elem.bytes(), semantics(order, false), |e, old| {
                    let same = e.m.op(Op::IEqual, e.m.bool, &[old, expected]);
                    Ok(e.m.select(e.m.u32, same, desired, old))
                })?;
                return Ok(vec![e.value_of(elem, old)]);
            }
            let spot = e.spot(&place, elem, order)?;
            let (scope, hit, missed) = (e.m.c32(spot.scope), e.m.c32(spot.order), e.m.c32(failed(spot.order)));
            let old = e.m.op(Op::AtomicCompareExchange, spot.ty, &[spot.pointer, scope, hit, missed, desired, expected]);
            Ok(vec![e.value_of(elem, old)])
        })?;
        Ok(done[0])
    }
}

/// The bits of semantics that order.
const ORDERS: MemorySemantics = MemorySemantics::ACQUIRE.union(MemorySemantics::RELEASE).union(MemorySemantics::ACQUIRE_RELEASE);

/// Memory semantics of an order.
fn semantics(order: Order, shared: bool) -> u32 {
    let class = if shared { MemorySemantics::WORKGROUP_MEMORY } else { MemorySemantics::UNIFORM_MEMORY };
    match order {
        Order::Relaxed => 0,
        Order::Acquire => (MemorySemantics::ACQUIRE | class).bits(),
        Order::Release => (MemorySemantics::RELEASE | class).bits(),
        Order::AcqRel => (MemorySemantics::ACQUIRE_RELEASE | class).bits(),
    }
}

/// Semantics of a compare and swap that found something else: nothing is released.
fn failed(order: u32) -> u32 {
    let released = (MemorySemantics::RELEASE | MemorySemantics::ACQUIRE_RELEASE).bits();
    match order & released {
        0 => order,
        _ => order & !released | MemorySemantics::ACQUIRE.bits(),
    }
}
