//! Kernels for tests, built word by word: what `spirv-vulkan` looks like.

use rspirv::binary::Assemble;
use rspirv::dr::{Builder, Operand};
use rspirv::spirv::{
    AddressingModel, BuiltIn, Capability, Decoration, ExecutionMode, ExecutionModel, FunctionControl, MemoryAccess, MemoryModel, MemorySemantics, Scope, SelectionControl,
    StorageClass, Word,
};

/// The entry point of every kernel here.
pub const NAME: &str = "kernel";

/// A kernel being built, in its first block.
pub struct Body {
    pub b: Builder,
    pub u32: Word,
    pub u64: Word,
    pub f32: Word,
    args: Vec<Word>,
    gid: Word,
    lid: Word,
    function: Word,
    interface: Vec<Word>,
    local: [u32; 3],
}

impl Body {
    /// A kernel of `count` arguments whose grid and blocks have one axis.
    pub fn new(count: u32, local: u32) -> Body {
        Body::with(count, [local, 1, 1], &[])
    }

    /// As `new`, with more capabilities.
    pub fn with(count: u32, local: [u32; 3], more: &[Capability]) -> Body {
        let mut b = Builder::new();
        b.set_version(1, 3);
        for c in [Capability::Shader, Capability::Int64, Capability::PhysicalStorageBufferAddresses].iter().chain(more) {
            b.capability(*c);
        }
        b.extension("SPV_KHR_physical_storage_buffer");
        b.memory_model(AddressingModel::PhysicalStorageBuffer64, MemoryModel::GLSL450);
        let (void, u32, u64, f32) = (b.type_void(), b.type_int(32, 0), b.type_int(64, 0), b.type_float(32, None));
        let vec3 = b.type_vector(u32, 3);
        let input = b.type_pointer(None, StorageClass::Input, vec3);
        let (gid_in, lid_in) = (b.variable(input, None, StorageClass::Input, None), b.variable(input, None, StorageClass::Input, None));
        b.decorate(gid_in, Decoration::BuiltIn, [Operand::BuiltIn(BuiltIn::GlobalInvocationId)]);
        b.decorate(lid_in, Decoration::BuiltIn, [Operand::BuiltIn(BuiltIn::LocalInvocationId)]);
        let pushed = if count > 16 { 1 } else { count.max(1) };
        let block = words(&mut b, u64, pushed);
        let push = b.type_pointer(None, StorageClass::PushConstant, block);
        let member = b.type_pointer(None, StorageClass::PushConstant, u64);
        let constants = b.variable(push, None, StorageClass::PushConstant, None);
        // Long lists lie behind the one push constant.
        let far = (count > 16).then(|| {
            let all = words(&mut b, u64, count);
            (b.type_pointer(None, StorageClass::PhysicalStorageBuffer, all), b.type_pointer(None, StorageClass::PhysicalStorageBuffer, u64))
        });
        let signature = b.type_function(void, []);
        let function = b.begin_function(void, None, FunctionControl::NONE, signature).unwrap();
        b.begin_block(None).unwrap();
        let near: Vec<Word> = (0..pushed)
            .map(|i| {
                let index = b.constant_bit32(u32, i);
                let at = b.access_chain(member, None, constants, [index]).unwrap();
                b.load(u64, None, at, None, []).unwrap()
            })
            .collect();
        let args = match far {
            None => near,
            Some((list, member)) => {
                let base = b.convert_u_to_ptr(list, None, near[0]).unwrap();
                (0..count)
                    .map(|i| {
                        let index = b.constant_bit32(u32, i);
                        let at = b.access_chain(member, None, base, [index]).unwrap();
                        b.load(u64, None, at, Some(MemoryAccess::ALIGNED), [Operand::LiteralBit32(8)]).unwrap()
                    })
                    .collect()
            }
        };
        let mut first = |from: Word| {
            let all = b.load(vec3, None, from, None, []).unwrap();
            b.composite_extract(u32, None, all, [0]).unwrap()
        };
        let (gid, lid) = (first(gid_in), first(lid_in));
        Body { b, u32, u64, f32, args, gid, lid, function, interface: vec![gid_in, lid_in], local }
    }

    /// An argument's 8 bytes.
    pub fn arg(&self, i: usize) -> Word {
        self.args[i]
    }
    /// Number of the thread within the grid.
    pub fn gid(&self) -> Word {
        self.gid
    }
    /// Number of the thread within its block.
    pub fn lid(&self) -> Word {
        self.lid
    }
    pub fn number(&mut self, n: u32) -> Word {
        self.b.constant_bit32(self.u32, n)
    }

    /// The place of element `index` (u32) of `bytes` bytes behind an address.
    fn element(&mut self, t: Word, bytes: u32, base: Word, index: Word) -> Word {
        let (u64, b) = (self.u64, &mut self.b);
        let wide = b.u_convert(u64, None, index).unwrap();
        let size = b.constant_bit64(u64, bytes.into());
        let offset = b.i_mul(u64, None, wide, size).unwrap();
        let address = b.i_add(u64, None, base, offset).unwrap();
        let pointer = b.type_pointer(None, StorageClass::PhysicalStorageBuffer, t);
        b.convert_u_to_ptr(pointer, None, address).unwrap()
    }
    pub fn load(&mut self, t: Word, bytes: u32, base: Word, index: Word) -> Word {
        let at = self.element(t, bytes, base, index);
        self.b.load(t, None, at, Some(MemoryAccess::ALIGNED), [Operand::LiteralBit32(bytes)]).unwrap()
    }
    pub fn store(&mut self, t: Word, bytes: u32, base: Word, index: Word, value: Word) {
        let at = self.element(t, bytes, base, index);
        self.b.store(at, value, Some(MemoryAccess::ALIGNED), [Operand::LiteralBit32(bytes)]).unwrap();
    }

    /// Threads from `n` (u64) on end here.
    pub fn bound(&mut self, n: Word) {
        let (u64, gid, b) = (self.u64, self.gid, &mut self.b);
        let truth = b.type_bool();
        let wide = b.u_convert(u64, None, gid).unwrap();
        let inside = b.u_less_than(truth, None, wide, n).unwrap();
        let (on, off) = (b.id(), b.id());
        b.selection_merge(off, SelectionControl::NONE).unwrap();
        b.branch_conditional(inside, on, off, []).unwrap();
        b.begin_block(Some(off)).unwrap();
        b.ret().unwrap();
        b.begin_block(Some(on)).unwrap();
    }

    /// Shared memory of `n` u32, and a pointer type of its elements.
    pub fn shared(&mut self, n: u32) -> (Word, Word) {
        let (u32, b) = (self.u32, &mut self.b);
        let length = b.constant_bit32(u32, n);
        let array = b.type_array(u32, length);
        let pointer = b.type_pointer(None, StorageClass::Workgroup, array);
        let variable = {
            // Module scope, though a function is open.
            let id = b.id();
            let variable = rspirv::dr::Instruction::new(rspirv::spirv::Op::Variable, Some(pointer), Some(id), vec![Operand::StorageClass(StorageClass::Workgroup)]);
            b.module_mut().types_global_values.push(variable);
            id
        };
        (variable, self.b.type_pointer(None, StorageClass::Workgroup, u32))
    }

    /// Waits for the block.
    pub fn barrier(&mut self) {
        let group = self.number(Scope::Workgroup as u32);
        let order = self.number((MemorySemantics::ACQUIRE_RELEASE | MemorySemantics::WORKGROUP_MEMORY).bits());
        self.b.control_barrier(group, group, order).unwrap();
    }

    /// The words, as bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.b.ret().unwrap();
        self.b.end_function().unwrap();
        self.b.entry_point(ExecutionModel::GLCompute, self.function, NAME, self.interface);
        self.b.execution_mode(self.function, ExecutionMode::LocalSize, self.local);
        self.b.module().assemble().iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// A block of `count` u64.
fn words(b: &mut Builder, u64: Word, count: u32) -> Word {
    let id = b.id();
    let block = b.type_struct_id(Some(id), vec![u64; count as usize]);
    b.decorate(block, Decoration::Block, []);
    for i in 0..count {
        b.member_decorate(block, i, Decoration::Offset, [Operand::LiteralBit32(8 * i)]);
    }
    block
}

/// out[i] = a[i] + b[i] for i < n; arguments a, b, out, n; f32, blocks of 64.
pub fn add() -> Vec<u8> {
    let mut k = Body::new(4, 64);
    let (t, i) = (k.f32, k.gid());
    k.bound(k.arg(3));
    let (x, y) = (k.load(t, 4, k.arg(0), i), k.load(t, 4, k.arg(1), i));
    let sum = k.b.f_add(t, None, x, y).unwrap();
    k.store(t, 4, k.arg(2), i, sum);
    k.finish()
}

/// x[i] += by for i < n; arguments x, n, by; u32, blocks of 64.
pub fn increase() -> Vec<u8> {
    let mut k = Body::new(3, 64);
    let (t, i) = (k.u32, k.gid());
    k.bound(k.arg(1));
    let x = k.load(t, 4, k.arg(0), i);
    let by = k.b.u_convert(t, None, k.args[2]).unwrap();
    let sum = k.b.i_add(t, None, x, by).unwrap();
    k.store(t, 4, k.arg(0), i, sum);
    k.finish()
}

/// out[j] = argument j + 1; arguments out, then `count` of any kind; one thread.
pub fn echo(count: u32) -> Vec<u8> {
    let mut k = Body::new(count + 1, 1);
    let t = k.u64;
    for j in 0..count {
        let at = k.number(j);
        k.store(t, 8, k.arg(0), at, k.arg(1 + j as usize));
    }
    k.finish()
}

/// Each block of 64 turns its numbers around, through shared memory; arguments x, out.
pub fn reverse() -> Vec<u8> {
    let mut k = Body::new(2, 64);
    let (memory, element) = k.shared(64);
    let (t, i, l) = (k.u32, k.gid(), k.lid());
    let x = k.load(t, 4, k.arg(0), i);
    let here = k.b.access_chain(element, None, memory, [l]).unwrap();
    k.b.store(here, x, None, []).unwrap();
    k.barrier();
    let last = k.number(63);
    let other = k.b.i_sub(t, None, last, l).unwrap();
    let there = k.b.access_chain(element, None, memory, [other]).unwrap();
    let y = k.b.load(t, None, there, None, []).unwrap();
    k.store(t, 4, k.arg(1), i, y);
    k.finish()
}

/// A kernel with `count` push constants of 8 bytes, whatever the conventions say.
pub fn push_constants(count: u32) -> Vec<u8> {
    let mut k = Body::new(1, 1);
    let block = words(&mut k.b, k.u64, count);
    let pointer = k.b.type_pointer(None, StorageClass::PushConstant, block);
    let id = k.b.id();
    let variable = rspirv::dr::Instruction::new(rspirv::spirv::Op::Variable, Some(pointer), Some(id), vec![Operand::StorageClass(StorageClass::PushConstant)]);
    k.b.module_mut().types_global_values.push(variable);
    k.finish()
}
