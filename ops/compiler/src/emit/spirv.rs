//! SPIR-V for Vulkan 1.1 (`spirv-vulkan`): addresses in push constants, blocks of literal size, structured control flow.
//!
//! How values live in registers: truth values as OpTypeBool; integers and floats below 32 bits as the low bits of a 32-bit integer, the rest
//! zero, so that nothing but memory needs narrow types; pointers as 64-bit integers; all others as themselves.

mod arith;
mod atomic;
mod cast;
mod device;
mod flow;
mod fma;
mod integer;
mod matrix;
mod memory;
mod module;
mod subgroup;

use std::collections::HashMap;

use spirv::{BuiltIn, Decoration, ExecutionMode, Op, StorageClass};

use crate::error::Result;
use crate::thread::{Effect, Inst, Kernel, Stmt, Ty, Val};
use crate::{CompileError, Compiled, Elem, Target};
use device::Device;
use module::{Id, Module};

/// An array in shared memory.
#[derive(Clone, Copy)]
struct Array {
    variable: Id,
    /// Type of its elements in memory, and a pointer to one.
    part: Id,
    pointer: Id,
    elem: Elem,
    /// Elements are held as integers of their width.
    raw: bool,
}

struct Emitter<'a> {
    kernel: &'a Kernel,
    device: Device,
    m: Module,
    values: Vec<Id>,
    /// Bits of the values that are constants.
    constants: HashMap<Val, u64>,
    /// Variables, with the pointer type of an element for arrays.
    vars: Vec<(Id, Option<Id>)>,
    shared: Vec<Array>,
    /// Where shuffles pass values through, on devices without them: two words a thread.
    exchange: Option<(Id, Id)>,
    ids: Ids,
    /// Merge blocks of the open `Loop`s.
    loops: Vec<Id>,
}

/// Coordinates, read once at the start.
#[derive(Default)]
struct Ids {
    block: [Id; 3],
    blocks: [Id; 3],
    thread: Id,
}

fn unsupported<T>(what: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(CompileError::unsupported(what, Default::default(), message))
}

/// Writes a kernel as SPIR-V.
pub fn emit(kernel: &Kernel, target: &Target) -> Result<Compiled> {
    let device = Device::new(target);
    if kernel.threads == 0 || kernel.threads > target.max_block_threads {
        let text = format!("kernel '{}' has blocks of {} threads; the device takes 1 to {}", kernel.name, kernel.threads, target.max_block_threads);
        return Err(CompileError::limit("", Default::default(), text));
    }
    if !device.int64 {
        return unsupported("", format!("kernel '{}': addresses are computed in 64-bit integers, which the device lacks (shaderInt64)", kernel.name));
    }
    let facts = flow::facts(kernel);
    let mut e = Emitter {
        kernel,
        device,
        m: Module::new(),
        values: vec![0; kernel.types.len()],
        constants: HashMap::new(),
        vars: Vec::new(),
        shared: Vec::new(),
        exchange: None,
        ids: Ids::default(),
        loops: Vec::new(),
    };
    let first = e.m.block;
    e.m.mode(ExecutionMode::LocalSize, &[kernel.threads, 1, 1]);
    e.float_modes(&facts);
    e.declare(&facts)?;
    e.fits(target)?;
    e.coordinates(&facts);
    e.arguments()?;
    e.list(&kernel.body)?;
    let words = e.m.finish(&kernel.name, first);
    Ok(Compiled {
        code: words.iter().flat_map(|w| w.to_le_bytes()).collect(),
        entry: kernel.name.clone(),
        options: if facts.subgroups { format!("-subgroup-size={}", kernel.subgroup) } else { String::new() },
        threads: kernel.threads,
        shared_bytes: 0,
    })
}

impl Emitter<'_> {
    /// Promises about floats, as far as the device makes them.
    fn float_modes(&mut self, facts: &flow::Facts) {
        let through_double = facts.fused && self.device.double && !self.device.fused(32);
        let widths = [(16, facts.half && self.device.half_conversions()), (32, true), (64, facts.double || through_double)];
        let asked = widths.into_iter().filter(|w| w.1).flat_map(|(bits, _)| self.device.float_modes(bits).into_iter().map(move |m| (m, bits)));
        for ((mode, capability), bits) in asked.collect::<Vec<_>>() {
            self.m.capability(capability);
            self.m.extension("SPV_KHR_float_controls");
            self.m.mode(mode, &[bits]);
        }
    }

    /// Variables and shared arrays.
    fn declare(&mut self, facts: &flow::Facts) -> Result<()> {
        for info in &self.kernel.vars {
            let part = self.ty(info.ty)?;
            let entry = if info.len == 1 {
                (self.m.local(part), None)
            } else {
                let array = self.m.array(part, info.len);
                (self.m.local(array), Some(self.m.pointer(StorageClass::Function, part)))
            };
            self.vars.push(entry);
        }
        for (info, uses) in self.kernel.shared.iter().zip(&facts.shared) {
            let array = self.shared_array(info.elem, info.len, uses);
            self.shared.push(array);
        }
        if facts.shuffles && !self.device.shuffle {
            let words = self.m.array(self.m.u32, 2 * self.kernel.threads);
            self.exchange = Some((self.m.variable(StorageClass::Workgroup, words), self.m.pointer(StorageClass::Workgroup, self.m.u32)));
        }
        Ok(())
    }

    /// Refuses what does not fit the device's shared memory.
    fn fits(&self, target: &Target) -> Result<()> {
        let arrays: u64 = self.kernel.shared.iter().zip(&self.shared).map(|(s, a)| u64::from(s.len) * u64::from(self.shared_bytes_of(a))).sum();
        let bytes = arrays + self.exchange.map_or(0, |_| 8 * u64::from(self.kernel.threads));
        if bytes > u64::from(target.shared_bytes) {
            let text = format!("kernel '{}' takes {bytes} bytes of shared memory; the device has {}: smaller tiles or fewer stages need less", self.kernel.name, target.shared_bytes);
            return Err(CompileError::limit("", Default::default(), text));
        }
        Ok(())
    }

    fn input(&mut self, what: BuiltIn, ty: Id) -> Id {
        let variable = self.m.variable(StorageClass::Input, ty);
        self.m.decorate(variable, Decoration::BuiltIn, &[what as u32]);
        self.m.op(Op::Load, ty, &[variable])
    }

    /// Reads the coordinates that the kernel asks for. Threads are numbered through their subgroups where it matters, so that a subgroup is
    /// a run of threads whatever the device makes of local ids.
    fn coordinates(&mut self, facts: &flow::Facts) {
        let (u32, vec3) = (self.m.u32, self.m.vector(self.m.u32, 3));
        if facts.block_ids {
            let all = self.input(BuiltIn::WorkgroupId, vec3);
            self.ids.block = [0, 1, 2].map(|i| self.m.op(Op::CompositeExtract, u32, &[all, i]));
        }
        if facts.block_counts {
            let all = self.input(BuiltIn::NumWorkgroups, vec3);
            self.ids.blocks = [0, 1, 2].map(|i| self.m.op(Op::CompositeExtract, u32, &[all, i]));
        }
        if facts.subgroups {
            self.m.capability(spirv::Capability::GroupNonUniform);
            let (group, lane) = (self.input(BuiltIn::SubgroupId, u32), self.input(BuiltIn::SubgroupLocalInvocationId, u32));
            let size = self.m.c32(self.kernel.subgroup);
            let base = self.m.op(Op::IMul, u32, &[group, size]);
            self.ids.thread = self.m.op(Op::IAdd, u32, &[base, lane]);
        } else if facts.thread_ids {
            self.ids.thread = self.input(BuiltIn::LocalInvocationIndex, u32);
        }
    }

    /// Parameters out of the argument block.
    fn arguments(&mut self) -> Result<()> {
        let count = self.kernel.params.len() as u32;
        if count == 0 {
            return Ok(());
        }
        let (u64, near) = (self.m.u64, if count > 16 { 1 } else { count });
        let block = self.m.block_of_words(near);
        let variable = self.m.variable(StorageClass::PushConstant, block);
        let member = self.m.pointer(StorageClass::PushConstant, u64);
        let mut words = Vec::new();
        for i in 0..near {
            let i = self.m.c32(i);
            let at = self.m.op(Op::AccessChain, member, &[variable, i]);
            words.push(self.m.op(Op::Load, u64, &[at]));
        }
        if count > 16 {
            let base = words[0];
            words = (0..count).map(|i| self.load_word(base, 8 * u64::from(i))).collect();
        }
        for (param, word) in self.kernel.params.iter().zip(words) {
            let value = self.argument(param.ty, word)?;
            self.values[param.value.0 as usize] = value;
        }
        Ok(())
    }

    /// An argument's value out of its 8 bytes.
    fn argument(&mut self, ty: Ty, word: Id) -> Result<Id> {
        let low = |m: &mut Module| m.op(Op::UConvert, m.u32, &[word]);
        Ok(match ty {
            Ty::Ptr(_) | Ty::Elem(Elem::I64) => word,
            Ty::Elem(Elem::F64) => self.reinterpret(Elem::F64, word),
            Ty::Elem(elem) => {
                let low = low(&mut self.m);
                self.low_bits(elem, low)
            }
            Ty::Fragment(_) => return unsupported("", format!("kernel '{}': a fragment cannot be a parameter", self.kernel.name)),
        })
    }

    /// SPIR-V type of a value in a register.
    fn ty(&mut self, ty: Ty) -> Result<Id> {
        Ok(match ty {
            Ty::Ptr(_) => self.m.u64,
            Ty::Elem(elem) => {
                if elem == Elem::F64 && !self.device.double {
                    return unsupported("f64", format!("kernel '{}' computes in double precision, which the device lacks (shaderFloat64)", self.kernel.name));
                }
                self.elem(elem)
            }
            Ty::Fragment(i) => self.fragment(i)?,
        })
    }

    /// SPIR-V type of an element in a register.
    fn elem(&mut self, elem: Elem) -> Id {
        match elem {
            Elem::I1 => self.m.bool,
            Elem::I64 => self.m.u64,
            Elem::F32 => self.m.f32,
            Elem::F64 => self.m.float(64),
            _ => self.m.u32,
        }
    }

    /// A value's id.
    fn id(&self, value: Val) -> Id {
        self.values[value.0 as usize]
    }

    /// Element type of a value that must be a number.
    fn elem_of(&self, value: Val) -> Result<Elem> {
        match self.kernel.ty(value) {
            Ty::Elem(e) => Ok(e),
            Ty::Ptr(_) => Ok(Elem::I64),
            Ty::Fragment(_) => unsupported("", format!("value {} of kernel '{}' is a fragment, where a number is expected", value.0, self.kernel.name)),
        }
    }

    /// A constant from its bits.
    fn constant(&mut self, ty: Ty, bits: u64) -> Result<Id> {
        let id = self.ty(ty)?;
        Ok(match ty {
            Ty::Elem(Elem::I1) => self.m.truth(bits & 1 != 0),
            Ty::Elem(Elem::F64) => self.m.global(Op::Constant, Some(id), &[bits as u32, (bits >> 32) as u32]),
            Ty::Elem(Elem::F32) => self.m.global(Op::Constant, Some(id), &[bits as u32]),
            Ty::Elem(Elem::I64) | Ty::Ptr(_) => self.m.c64(bits),
            Ty::Elem(e) => self.m.c32(bits as u32 & (u32::MAX >> (32 - e.bits()))),
            Ty::Fragment(_) => self.m.global(Op::ConstantNull, Some(id), &[]),
        })
    }

    /// One instruction: the ids of its results.
    fn inst(&mut self, results: &[Val], inst: &Inst) -> Result<Vec<Id>> {
        if let Inst::Load { place, mask, other, volatile } = inst {
            return self.load(results, place, *mask, other.as_deref(), *volatile);
        }
        let [result] = results else {
            return unsupported("", format!("kernel '{}': an instruction with {} results, where one is expected", self.kernel.name, results.len()));
        };
        let ty = self.kernel.ty(*result);
        let elem = |e: &Self| e.elem_of(*result);
        let one = match inst {
            Inst::Load { .. } => return Ok(Vec::new()),
            Inst::Const(bits) => {
                self.constants.insert(*result, *bits);
                self.constant(ty, *bits)?
            }
            Inst::Undef => self.constant(ty, 0)?,
            Inst::BlockId(axis) => self.ids.block[usize::from(*axis)],
            Inst::NumBlocks(axis) => self.ids.blocks[usize::from(*axis)],
            Inst::ThreadId => self.ids.thread,
            Inst::Unary(op, a) => self.unary(*op, self.elem_of(*a)?, self.id(*a))?,
            Inst::Binary(op, a, b) => self.binary(*op, elem(self)?, self.id(*a), self.id(*b))?,
            Inst::Fma(a, b, c) => {
                let (elem, parts) = (elem(self)?, [*a, *b, *c].map(|v| self.id(v)));
                self.in_float(elem, &parts, |e, elem, parts| Ok(e.fused(elem, [parts[0], parts[1], parts[2]])))?
            }
            Inst::CmpI(op, a, b) => self.compare_integers(*op, self.elem_of(*a)?, self.id(*a), self.id(*b)),
            Inst::CmpF(op, a, b) => self.compare_floats(*op, self.elem_of(*a)?, self.id(*a), self.id(*b))?,
            Inst::Select(c, a, b) => {
                let ty = self.ty(ty)?;
                self.m.select(ty, self.id(*c), self.id(*a), self.id(*b))
            }
            Inst::Cast(cast, a) => self.cast(*cast, self.elem_of(*a)?, elem(self)?, self.id(*a))?,
            Inst::PtrAdd(base, offset) => {
                let Ty::Ptr(to) = ty else { return unsupported("", "a pointer's sum is no pointer") };
                self.advance(self.id(*base), to.bytes(), self.elem_of(*offset)?, self.id(*offset))
            }
            Inst::Get(var, at) => {
                let (ty, place) = (self.ty(ty)?, self.var_place(*var, None, *at));
                self.m.op(Op::Load, ty, &[place])
            }
            Inst::GetAt(var, at) => {
                let (ty, place) = (self.ty(ty)?, self.var_place(*var, Some(self.id(*at)), 0));
                self.m.op(Op::Load, ty, &[place])
            }
            Inst::Shuffle(how, value, lane) => self.shuffle(*how, self.elem_of(*value)?, self.id(*value), lane.map(|l| self.id(l)))?,
            Inst::Atomic { place, rmw, value, mask, order } => self.atomic(place, *rmw, *value, *mask, *order)?,
            Inst::AtomicCas { place, expected, desired, mask, order } => self.compare_and_swap(place, *expected, *desired, *mask, *order)?,
            Inst::FragmentZero => self.constant(ty, 0)?,
            Inst::FragmentLoad { array, index, stride, transposed, .. } => self.fragment_load(ty, *array, *index, *stride, *transposed)?,
            Inst::FragmentMulAdd(a, b, c) => self.fragment_mul_add(ty, [*a, *b, *c].map(|v| self.id(v)))?,
            // Cooperative matrices do not tell which lane holds what.
            Inst::FragmentGet(..) | Inst::FragmentOf(..) => return unsupported("tt.dot", format!("kernel '{}' takes a fragment apart", self.kernel.name)),
        };
        Ok(vec![one])
    }

    fn effect(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Set(var, at, value) => {
                let place = self.var_place(*var, None, *at);
                self.m.effect(Op::Store, &[place, self.id(*value)]);
            }
            Effect::SetAt(var, at, value) => {
                let place = self.var_place(*var, Some(self.id(*at)), 0);
                self.m.effect(Op::Store, &[place, self.id(*value)]);
            }
            Effect::Store { place, values, mask } => self.store(place, values, *mask)?,
            Effect::Barrier { global } => self.barrier(*global),
            Effect::SubgroupBarrier => self.subgroup_barrier(),
            Effect::FragmentStore { fragment, array, index, stride } => self.fragment_store(*fragment, *array, *index, *stride)?,
            Effect::Copy { .. } | Effect::CopyGroup | Effect::CopyWait(_) => return unsupported("", format!("kernel '{}': {effect} in a format without asynchronous copies", self.kernel.name)),
            Effect::Assert(..) => {}
        }
        Ok(())
    }

    /// Statements in order.
    fn list(&mut self, list: &[Stmt]) -> Result<()> {
        for stmt in list {
            match stmt {
                Stmt::Let { results, inst } => {
                    let ids = self.inst(results, inst)?;
                    for (value, id) in results.iter().zip(ids) {
                        self.values[value.0 as usize] = id;
                    }
                }
                Stmt::Do(effect) => self.effect(effect)?,
                _ => self.flow(stmt)?,
            }
        }
        Ok(())
    }
}
