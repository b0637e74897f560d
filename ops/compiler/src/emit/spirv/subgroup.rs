//! Shuffles and barriers of subgroups; through shared memory where the device has no shuffles.

use spirv::{Capability, MemorySemantics, Op, Scope};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;
use crate::thread::Shuffle;

impl Emitter<'_> {
    /// Threads of a subgroup meet.
    pub(super) fn subgroup_barrier(&mut self) {
        let (scope, order) = (self.m.c32(Scope::Subgroup as u32), self.m.c32((MemorySemantics::ACQUIRE_RELEASE | MemorySemantics::WORKGROUP_MEMORY).bits()));
        self.m.effect(Op::ControlBarrier, &[scope, scope, order]);
    }

    /// The value of another lane.
    pub(super) fn shuffle(&mut self, how: Shuffle, elem: Elem, value: Id, lane: Option<Id>) -> Result<Id> {
        if self.kernel.subgroup == 0 {
            return unsupported("tt.reduce", format!("kernel '{}' shuffles without a subgroup size", self.kernel.name));
        }
        let Some(from) = self.source(how, lane) else {
            return unsupported("tt.gather", format!("kernel '{}': a shuffle by lane without a lane", self.kernel.name));
        };
        // Everything travels as one or two words.
        let bits = self.bits(elem, value);
        let bits = self.widen(elem, bits);
        let moved = if elem.bits() == 64 {
            let (low, high) = self.halves(bits);
            let parts = self.exchange(&[low, high], from);
            let pair = self.m.vector(self.m.u32, 2);
            let pair = self.m.op(Op::CompositeConstruct, pair, &parts);
            self.m.op(Op::Bitcast, self.m.u64, &[pair])
        } else {
            self.exchange(&[bits], from)[0]
        };
        Ok(if elem == Elem::I1 { self.is_set(moved) } else { self.reinterpret(elem, moved) })
    }

    /// The lane a shuffle reads, kept within the subgroup where it would leave it.
    fn source(&mut self, how: Shuffle, lane: Option<Id>) -> Option<Id> {
        let (u32, most) = (self.m.u32, self.m.c32(self.kernel.subgroup - 1));
        let own = self.m.op(Op::BitwiseAnd, u32, &[self.ids.thread, most]);
        let (op, by) = match how {
            Shuffle::Xor(n) => (Op::BitwiseXor, n),
            Shuffle::Up(n) => (Op::ISub, n),
            Shuffle::Down(n) => (Op::IAdd, n),
            Shuffle::Lane => return Some(self.m.op(Op::BitwiseAnd, u32, &[lane?, most])),
        };
        let by = self.m.c32(by);
        let lane = self.m.op(op, u32, &[own, by]);
        Some(self.m.op(Op::BitwiseAnd, u32, &[lane, most]))
    }

    /// Words of another lane.
    fn exchange(&mut self, words: &[Id], from: Id) -> Vec<Id> {
        let u32 = self.m.u32;
        let Some((memory, pointer)) = self.exchange else {
            self.m.capability(Capability::GroupNonUniformShuffle);
            let scope = self.m.c32(Scope::Subgroup as u32);
            return words.iter().map(|w| self.m.op(Op::GroupNonUniformShuffle, u32, &[scope, *w, from])).collect();
        };
        let (threads, subgroup) = (self.m.c32(self.kernel.threads), self.m.c32(!(self.kernel.subgroup - 1)));
        let first = self.m.op(Op::BitwiseAnd, u32, &[self.ids.thread, subgroup]);
        let other = self.m.op(Op::BitwiseOr, u32, &[first, from]);
        let place = |e: &mut Self, thread: Id, half: usize| {
            let index = if half == 0 { thread } else { e.m.op(Op::IAdd, u32, &[thread, threads]) };
            e.m.op(Op::AccessChain, pointer, &[memory, index])
        };
        for (half, word) in words.iter().enumerate() {
            let own = place(self, self.ids.thread, half);
            self.m.effect(Op::Store, &[own, *word]);
        }
        self.subgroup_barrier();
        let all = (0..words.len())
            .map(|half| {
                let there = place(self, other, half);
                self.m.op(Op::Load, u32, &[there])
            })
            .collect();
        self.subgroup_barrier();
        all
    }
}
