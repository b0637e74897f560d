//! Loads and stores of global and shared memory, variables, barriers.

use spirv::{Capability, MemoryAccess, MemorySemantics, Op, Scope, StorageClass};

use super::flow::SharedUse;
use super::module::Id;
use super::{Array, Emitter};
use crate::Elem;
use crate::error::Result;
use crate::thread::{Place, Shared, Val, Var};

/// Widest single access in bytes.
const WIDEST: u32 = 16;

impl Emitter<'_> {
    /// The place of a variable's element.
    pub(super) fn var_place(&mut self, var: Var, index: Option<Id>, at: u32) -> Id {
        let (variable, part) = self.vars[var.0 as usize];
        let Some(part) = part else { return variable };
        let index = index.unwrap_or_else(|| self.m.c32(at));
        self.m.op(Op::AccessChain, part, &[variable, index])
    }

    /// Makes a shared array. Narrow elements take as many bits as they have where the device can address them, else 32.
    pub(super) fn shared_array(&mut self, elem: Elem, len: u32, uses: &SharedUse) -> Array {
        let raw = uses.atomic || !matches!(elem, Elem::F32 | Elem::F64);
        let part = match elem.bytes() {
            1 if self.device.int8 && !uses.atomic => {
                self.m.capability(Capability::Int8);
                self.m.integer(8)
            }
            2 if self.device.int16 && !uses.atomic => {
                self.m.capability(Capability::Int16);
                self.m.integer(16)
            }
            8 if raw => self.m.u64,
            _ if raw => self.m.u32,
            _ => self.elem(elem),
        };
        let all = self.m.array(part, len.max(1));
        Array { variable: self.m.variable(StorageClass::Workgroup, all), part, pointer: self.m.pointer(StorageClass::Workgroup, part), elem, raw }
    }

    /// Bytes an element of a shared array takes.
    pub(super) fn shared_bytes_of(&self, array: &Array) -> u32 {
        if array.elem.bytes() < 4 && array.part == self.m.u32 { 4 } else { array.elem.bytes() }
    }

    /// The place of a shared array's element, some elements after an index.
    pub(super) fn shared_place(&mut self, array: Shared, index: Id, after: u32) -> Id {
        let found = self.shared[array.0 as usize];
        let index = if after == 0 {
            index
        } else {
            let after = self.m.c32(after);
            self.m.op(Op::IAdd, self.m.u32, &[index, after])
        };
        self.m.op(Op::AccessChain, found.pointer, &[found.variable, index])
    }

    /// An address some elements away.
    pub(super) fn advance(&mut self, base: Id, bytes: u32, elem: Elem, offset: Id) -> Id {
        let wide = if elem == Elem::I64 {
            offset
        } else {
            let signed = self.widen_signed(elem, offset);
            self.m.op(Op::SConvert, self.m.u64, &[signed])
        };
        let scaled = if bytes == 1 {
            wide
        } else {
            let bytes = self.m.c64(bytes.into());
            self.m.op(Op::IMul, self.m.u64, &[wide, bytes])
        };
        self.m.op(Op::IAdd, self.m.u64, &[base, scaled])
    }

    fn after(&mut self, base: Id, bytes: u64) -> Id {
        if bytes == 0 {
            return base;
        }
        let bytes = self.m.c64(bytes);
        self.m.op(Op::IAdd, self.m.u64, &[base, bytes])
    }

    /// A pointer to a type in global memory.
    pub(super) fn global_place(&mut self, ty: Id, address: Id) -> Id {
        let pointer = self.m.pointer(StorageClass::PhysicalStorageBuffer, ty);
        self.m.op(Op::ConvertUToPtr, pointer, &[address])
    }

    /// A 64-bit word of global memory.
    pub(super) fn load_word(&mut self, base: Id, offset: u64) -> Id {
        let address = self.after(base, offset);
        self.read(self.m.u64, address, 8, false)
    }

    fn read(&mut self, ty: Id, address: Id, align: u32, volatile: bool) -> Id {
        let place = self.global_place(ty, address);
        let access = if volatile { MemoryAccess::ALIGNED | MemoryAccess::VOLATILE } else { MemoryAccess::ALIGNED };
        self.m.op(Op::Load, ty, &[place, access.bits(), align])
    }
    fn write(&mut self, ty: Id, address: Id, align: u32, value: Id) {
        let place = self.global_place(ty, address);
        self.m.effect(Op::Store, &[place, value, MemoryAccess::ALIGNED.bits(), align]);
    }

    /// The type by which a narrow element can be accessed in global memory, if there is one.
    fn narrow_type(&mut self, bytes: u32) -> Option<Id> {
        match bytes {
            1 if self.device.storage8 => {
                self.m.capability(Capability::StorageBuffer8BitAccess);
                self.m.extension("SPV_KHR_8bit_storage");
                Some(self.m.integer(8))
            }
            2 if self.device.storage16 => {
                self.m.capability(Capability::StorageBuffer16BitAccess);
                self.m.extension("SPV_KHR_16bit_storage");
                Some(self.m.integer(16))
            }
            _ => None,
        }
    }

    /// The 32-bit word around a narrow element's address, and the element's first bit in it.
    pub(super) fn around(&mut self, address: Id) -> (Id, Id) {
        let (mask, three) = (self.m.c64(!3), self.m.c32(3));
        let word = self.m.op(Op::BitwiseAnd, self.m.u64, &[address, mask]);
        let low = self.m.op(Op::UConvert, self.m.u32, &[address]);
        let byte = self.m.op(Op::BitwiseAnd, self.m.u32, &[low, three]);
        (word, self.m.op(Op::ShiftLeftLogical, self.m.u32, &[byte, three]))
    }

    /// A register's value as it stands in memory: truth values and narrow elements in 32 bits.
    fn stored(&mut self, elem: Elem, value: Id) -> Id {
        self.widen(elem, value)
    }
    /// The register's value of what stood in memory. Any byte but 0 is true.
    fn loaded(&mut self, elem: Elem, word: Id) -> Id {
        if elem == Elem::I1 { self.is_set(word) } else { word }
    }

    /// How many elements one access takes: as many as alignment allows, up to a vector of four.
    fn pack(elem: Elem, count: u32, align: u32) -> u32 {
        let known = 1 << align.max(elem.bytes()).trailing_zeros();
        let most = known.min(WIDEST) / elem.bytes();
        let mut pack = count.min(most.max(1));
        while !count.is_multiple_of(pack) {
            pack /= 2;
        }
        pack
    }

    /// Reads consecutive elements.
    pub(super) fn load(&mut self, results: &[Val], place: &Place, mask: Option<Val>, other: Option<&[Val]>, volatile: bool) -> Result<Vec<Id>> {
        let Some(first) = results.first() else { return Ok(Vec::new()) };
        let (ty, as_pointer) = (self.kernel.ty(*first), self.elem_of(*first)?);
        let elem = as_pointer;
        let held = self.ty(ty)?;
        let types = vec![held; results.len()];
        let rest = match other {
            Some(other) => other.iter().map(|v| self.id(*v)).collect(),
            None => {
                let zero = self.constant(ty, 0)?;
                vec![zero; results.len()]
            }
        };
        let (place, count) = (*place, results.len() as u32);
        self.guarded(mask.map(|m| self.id(m)), &types, &rest, |e| match place {
            Place::Shared { array, index } => {
                let index = e.id(index);
                Ok((0..count).map(|i| e.load_shared(array, index, i, volatile)).collect())
            }
            Place::Global { pointer, align } => {
                let (base, pack) = (e.id(pointer), Self::pack(elem, count, align));
                let step = pack * elem.bytes();
                Ok((0..count / pack).flat_map(|i| e.load_global(elem, base, u64::from(i * step), pack, volatile)).collect())
            }
        })
    }

    fn load_shared(&mut self, array: Shared, index: Id, after: u32, volatile: bool) -> Id {
        let (place, found) = (self.shared_place(array, index, after), self.shared[array.0 as usize]);
        let all: &[u32] = if volatile { &[place, MemoryAccess::VOLATILE.bits()] } else { &[place] };
        let value = self.m.op(Op::Load, found.part, all);
        if !found.raw {
            return value;
        }
        match found.elem {
            Elem::I64 => value,
            Elem::F64 | Elem::F32 => self.reinterpret(found.elem, value),
            elem => {
                let word = if found.part == self.m.u32 { value } else { self.m.op(Op::UConvert, self.m.u32, &[value]) };
                self.loaded(elem, word)
            }
        }
    }

    fn load_global(&mut self, elem: Elem, base: Id, offset: u64, pack: u32, volatile: bool) -> Vec<Id> {
        let address = self.after(base, offset);
        let bytes = elem.bytes();
        if bytes >= 4 {
            let (part, align) = (self.elem(elem), pack * bytes);
            return self.read_words(part, address, pack, align, volatile);
        }
        if pack * bytes >= 4 {
            let words = self.read_words(self.m.u32, address, pack * bytes / 4, pack * bytes, volatile);
            let bits = 8 * bytes;
            return (0..pack).map(|i| self.part_of(elem, words[(i * bits / 32) as usize], i * bits % 32)).collect();
        }
        (0..pack)
            .map(|i| {
                let address = self.after(address, u64::from(i * bytes));
                let word = match self.narrow_type(bytes) {
                    Some(ty) => {
                        let narrow = self.read(ty, address, bytes, volatile);
                        self.m.op(Op::UConvert, self.m.u32, &[narrow])
                    }
                    None => {
                        let (word, shift) = self.around(address);
                        let all = self.read(self.m.u32, word, 4, volatile);
                        let moved = self.m.op(Op::ShiftRightLogical, self.m.u32, &[all, shift]);
                        let mask = self.m.c32((1 << (8 * bytes)) - 1);
                        self.m.op(Op::BitwiseAnd, self.m.u32, &[moved, mask])
                    }
                };
                self.loaded(elem, word)
            })
            .collect()
    }

    /// A narrow element out of a word, from a bit on.
    fn part_of(&mut self, elem: Elem, word: Id, bit: u32) -> Id {
        let (from, count) = (self.m.c32(bit), self.m.c32(8 * elem.bytes()));
        let part = self.m.op(Op::BitFieldUExtract, self.m.u32, &[word, from, count]);
        self.loaded(elem, part)
    }

    fn read_words(&mut self, part: Id, address: Id, count: u32, align: u32, volatile: bool) -> Vec<Id> {
        if count == 1 {
            return vec![self.read(part, address, align, volatile)];
        }
        let vector = self.m.vector(part, count);
        let all = self.read(vector, address, align, volatile);
        (0..count).map(|i| self.m.op(Op::CompositeExtract, part, &[all, i])).collect()
    }

    fn write_words(&mut self, part: Id, address: Id, values: &[Id], align: u32) {
        if let [one] = values {
            return self.write(part, address, align, *one);
        }
        let vector = self.m.vector(part, values.len() as u32);
        let all = self.m.op(Op::CompositeConstruct, vector, values);
        self.write(vector, address, align, all);
    }

    /// Writes consecutive elements.
    pub(super) fn store(&mut self, place: &Place, values: &[Val], mask: Option<Val>) -> Result<()> {
        let Some(first) = values.first() else { return Ok(()) };
        let elem = self.elem_of(*first)?;
        let (ids, place): (Vec<Id>, Place) = (values.iter().map(|v| self.id(*v)).collect(), *place);
        self.guarded(mask.map(|m| self.id(m)), &[], &[], |e| {
            match place {
                Place::Shared { array, index } => {
                    let index = e.id(index);
                    ids.iter().zip(0..).for_each(|(value, i)| e.store_shared(array, index, i, *value));
                }
                Place::Global { pointer, align } => {
                    let (base, pack) = (e.id(pointer), Self::pack(elem, ids.len() as u32, align));
                    for (chunk, i) in ids.chunks(pack as usize).zip(0..) {
                        e.store_global(elem, base, u64::from(i * pack * elem.bytes()), chunk)?;
                    }
                }
            }
            Ok(Vec::new())
        })?;
        Ok(())
    }

    fn store_shared(&mut self, array: Shared, index: Id, after: u32, value: Id) {
        let (place, found) = (self.shared_place(array, index, after), self.shared[array.0 as usize]);
        let value = match found.elem {
            _ if !found.raw => value,
            Elem::I64 => value,
            Elem::F64 | Elem::F32 => self.bits(found.elem, value),
            elem => {
                let word = self.stored(elem, value);
                if found.part == self.m.u32 { word } else { self.m.op(Op::UConvert, found.part, &[word]) }
            }
        };
        self.m.effect(Op::Store, &[place, value]);
    }

    fn store_global(&mut self, elem: Elem, base: Id, offset: u64, values: &[Id]) -> Result<()> {
        let (address, bytes) = (self.after(base, offset), elem.bytes());
        if bytes >= 4 {
            let part = self.elem(elem);
            self.write_words(part, address, values, values.len() as u32 * bytes);
            return Ok(());
        }
        let parts: Vec<Id> = values.iter().map(|v| self.stored(elem, *v)).collect();
        if parts.len() as u32 * bytes >= 4 {
            let words: Vec<Id> = parts.chunks((4 / bytes) as usize).map(|chunk| self.join(chunk, 8 * bytes)).collect();
            self.write_words(self.m.u32, address, &words, parts.len() as u32 * bytes);
            return Ok(());
        }
        for (part, i) in parts.iter().zip(0..) {
            let address = self.after(address, i * u64::from(bytes));
            match self.narrow_type(bytes) {
                Some(ty) => {
                    let narrow = self.m.op(Op::UConvert, ty, &[*part]);
                    self.write(ty, address, bytes, narrow);
                }
                // Neighbours in the same word may be written at the same time by other threads.
                None => {
                    self.swap_narrow(address, bytes, 0, |_, _| Ok(*part))?;
                }
            }
        }
        Ok(())
    }

    /// Narrow elements side by side in a word, the first lowest.
    fn join(&mut self, parts: &[Id], bits: u32) -> Id {
        let mut word = parts[0];
        for (part, i) in parts.iter().zip(0..).skip(1) {
            let by = self.m.c32(i * bits);
            let moved = self.m.op(Op::ShiftLeftLogical, self.m.u32, &[*part, by]);
            word = self.m.op(Op::BitwiseOr, self.m.u32, &[word, moved]);
        }
        word
    }

    /// Threads of the block meet.
    pub(super) fn barrier(&mut self, global: bool) {
        let mut order = MemorySemantics::ACQUIRE_RELEASE | MemorySemantics::WORKGROUP_MEMORY;
        let mut reach = Scope::Workgroup;
        if global {
            (order, reach) = (order | MemorySemantics::UNIFORM_MEMORY, Scope::Device);
        }
        let (group, reach, order) = (self.m.c32(Scope::Workgroup as u32), self.m.c32(reach as u32), self.m.c32(order.bits()));
        self.m.effect(Op::ControlBarrier, &[group, reach, order]);
    }
}
