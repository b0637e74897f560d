//! A SPIR-V module being written: its sections as words, types and constants made once, instructions appended to the open block.

use std::collections::{BTreeSet, HashMap};

use spirv::{AddressingModel, Capability, Decoration, ExecutionMode, ExecutionModel, GlslStd450Op, MemoryModel, Op, StorageClass};

/// A result id.
pub type Id = u32;

/// SPIR-V 1.3, the newest of the Vulkan 1.1 environment.
const VERSION: u32 = 0x0001_0300;

/// The module and the one function it holds.
pub struct Module {
    next: Id,
    capabilities: BTreeSet<u32>,
    extensions: BTreeSet<&'static str>,
    modes: Vec<(ExecutionMode, Vec<u32>)>,
    decorations: Vec<u32>,
    globals: Vec<u32>,
    known: HashMap<Vec<u32>, Id>,
    interface: Vec<Id>,
    locals: Vec<u32>,
    code: Vec<u32>,
    glsl: Id,
    function: Id,
    /// Label of the open block.
    pub block: Id,
    /// OpTypeVoid.
    pub void: Id,
    /// OpTypeBool.
    pub bool: Id,
    /// 32-bit integer.
    pub u32: Id,
    /// 64-bit integer.
    pub u64: Id,
    /// Single precision.
    pub f32: Id,
}

fn instruction(words: &mut Vec<u32>, op: Op, operands: &[u32]) {
    words.push((operands.len() as u32 + 1) << 16 | op as u32);
    words.extend_from_slice(operands);
}

/// A literal string: UTF-8, ended by a zero, filled up to words.
fn text(s: &str) -> Vec<u32> {
    let mut bytes = s.as_bytes().to_vec();
    bytes.resize((bytes.len() / 4 + 1) * 4, 0);
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

impl Module {
    /// A module of physical addressing whose function is open in its first block.
    pub fn new() -> Module {
        let mut m = Module {
            next: 1,
            capabilities: BTreeSet::new(),
            extensions: BTreeSet::new(),
            modes: Vec::new(),
            decorations: Vec::new(),
            globals: Vec::new(),
            known: HashMap::new(),
            interface: Vec::new(),
            locals: Vec::new(),
            code: Vec::new(),
            glsl: 0,
            function: 0,
            block: 0,
            void: 0,
            bool: 0,
            u32: 0,
            u64: 0,
            f32: 0,
        };
        for c in [Capability::Shader, Capability::Int64, Capability::PhysicalStorageBufferAddresses] {
            m.capability(c);
        }
        m.extension("SPV_KHR_physical_storage_buffer");
        (m.glsl, m.function) = (m.id(), m.id());
        m.void = m.global(Op::TypeVoid, None, &[]);
        m.bool = m.global(Op::TypeBool, None, &[]);
        m.u32 = m.integer(32);
        m.u64 = m.integer(64);
        m.f32 = m.float(32);
        m.block = m.id();
        m
    }

    /// A fresh id.
    pub fn id(&mut self) -> Id {
        self.next += 1;
        self.next - 1
    }
    /// Declares a capability.
    pub fn capability(&mut self, c: Capability) {
        self.capabilities.insert(c as u32);
    }
    /// Declares an extension.
    pub fn extension(&mut self, name: &'static str) {
        self.extensions.insert(name);
    }
    /// Adds an execution mode of the entry point.
    pub fn mode(&mut self, mode: ExecutionMode, operands: &[u32]) {
        self.modes.push((mode, operands.to_vec()));
    }
    /// Decorates an id.
    pub fn decorate(&mut self, id: Id, decoration: Decoration, operands: &[u32]) {
        let all: Vec<u32> = [id, decoration as u32].iter().chain(operands).copied().collect();
        instruction(&mut self.decorations, Op::Decorate, &all);
    }

    /// A type or constant: the one there is, or a new one.
    pub fn global(&mut self, op: Op, ty: Option<Id>, operands: &[u32]) -> Id {
        let key: Vec<u32> = [op as u32, ty.unwrap_or(0)].iter().chain(operands).copied().collect();
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = self.declare(op, ty, operands);
        self.known.insert(key, id);
        id
    }
    /// A type, constant or variable of its own.
    pub fn declare(&mut self, op: Op, ty: Option<Id>, operands: &[u32]) -> Id {
        let id = self.id();
        let all: Vec<u32> = ty.into_iter().chain([id]).chain(operands.iter().copied()).collect();
        instruction(&mut self.globals, op, &all);
        id
    }
    /// An integer type.
    pub fn integer(&mut self, bits: u32) -> Id {
        self.global(Op::TypeInt, None, &[bits, 0])
    }
    /// A float type.
    pub fn float(&mut self, bits: u32) -> Id {
        match bits {
            16 => self.capability(Capability::Float16),
            64 => self.capability(Capability::Float64),
            _ => {}
        }
        self.global(Op::TypeFloat, None, &[bits])
    }
    /// A vector type.
    pub fn vector(&mut self, part: Id, count: u32) -> Id {
        self.global(Op::TypeVector, None, &[part, count])
    }
    /// An array type without a layout.
    pub fn array(&mut self, part: Id, count: u32) -> Id {
        let count = self.c32(count);
        self.global(Op::TypeArray, None, &[part, count])
    }
    /// A pointer type.
    pub fn pointer(&mut self, class: StorageClass, to: Id) -> Id {
        self.global(Op::TypePointer, None, &[class as u32, to])
    }
    /// A struct of `count` u64, laid out without gaps.
    pub fn block_of_words(&mut self, count: u32) -> Id {
        let id = self.declare(Op::TypeStruct, None, &vec![self.u64; count as usize]);
        self.decorate(id, Decoration::Block, &[]);
        for i in 0..count {
            instruction(&mut self.decorations, Op::MemberDecorate, &[id, i, Decoration::Offset as u32, 8 * i]);
        }
        id
    }
    /// A constant of 32 bits.
    pub fn c32(&mut self, value: u32) -> Id {
        self.global(Op::Constant, Some(self.u32), &[value])
    }
    /// A constant of 64 bits.
    pub fn c64(&mut self, value: u64) -> Id {
        self.global(Op::Constant, Some(self.u64), &[value as u32, (value >> 32) as u32])
    }
    /// A single-precision constant.
    pub fn cf32(&mut self, value: f32) -> Id {
        self.global(Op::Constant, Some(self.f32), &[value.to_bits()])
    }
    /// A truth value.
    pub fn truth(&mut self, value: bool) -> Id {
        self.global(if value { Op::ConstantTrue } else { Op::ConstantFalse }, Some(self.bool), &[])
    }
    /// A variable of the module; before SPIR-V 1.4 only inputs belong to the interface.
    pub fn variable(&mut self, class: StorageClass, to: Id) -> Id {
        let pointer = self.pointer(class, to);
        let id = self.declare(Op::Variable, Some(pointer), &[class as u32]);
        if class == StorageClass::Input {
            self.interface.push(id);
        }
        id
    }
    /// A variable of the function.
    pub fn local(&mut self, to: Id) -> Id {
        let (pointer, id) = (self.pointer(StorageClass::Function, to), self.id());
        instruction(&mut self.locals, Op::Variable, &[pointer, id, StorageClass::Function as u32]);
        id
    }

    /// An instruction with a result.
    pub fn op(&mut self, op: Op, ty: Id, operands: &[u32]) -> Id {
        let id = self.id();
        self.code.push((operands.len() as u32 + 3) << 16 | op as u32);
        self.code.extend([ty, id]);
        self.code.extend_from_slice(operands);
        id
    }
    /// An instruction whose result's id was taken before.
    pub fn effect_with(&mut self, op: Op, ty: Id, id: Id, operands: &[u32]) {
        let all: Vec<u32> = [ty, id].iter().chain(operands).copied().collect();
        instruction(&mut self.code, op, &all);
    }
    /// Float arithmetic that is not to be contracted or reordered.
    pub fn exact(&mut self, op: Op, ty: Id, operands: &[Id]) -> Id {
        let id = self.op(op, ty, operands);
        self.decorate(id, Decoration::NoContraction, &[]);
        id
    }
    /// A function of GLSL.std.450.
    pub fn glsl(&mut self, function: GlslStd450Op, ty: Id, operands: &[Id]) -> Id {
        let all: Vec<u32> = [self.glsl, function as u32].iter().chain(operands).copied().collect();
        self.op(Op::ExtInst, ty, &all)
    }
    /// An instruction without a result.
    pub fn effect(&mut self, op: Op, operands: &[u32]) {
        instruction(&mut self.code, op, operands);
    }
    /// Opens a block; the one before was closed by a terminator.
    pub fn label(&mut self, id: Id) {
        self.block = id;
        instruction(&mut self.code, Op::Label, &[id]);
    }
    /// Closes the block with a jump.
    pub fn jump(&mut self, to: Id) {
        self.effect(Op::Branch, &[to]);
    }
    /// Closes the block with a choice.
    pub fn choose(&mut self, condition: Id, yes: Id, no: Id) {
        self.effect(Op::BranchConditional, &[condition, yes, no]);
    }
    /// condition ? a : b.
    pub fn select(&mut self, ty: Id, condition: Id, a: Id, b: Id) -> Id {
        self.op(Op::Select, ty, &[condition, a, b])
    }

    /// Ends the function and gives the words.
    pub fn finish(mut self, name: &str, first: Id) -> Vec<u32> {
        self.effect(Op::Return, &[]);
        let signature = self.global(Op::TypeFunction, None, &[self.void]);
        let mut words = vec![spirv::MAGIC_NUMBER, VERSION, 0, self.next, 0];
        for c in &self.capabilities {
            instruction(&mut words, Op::Capability, &[*c]);
        }
        for e in &self.extensions {
            instruction(&mut words, Op::Extension, &text(e));
        }
        let import: Vec<u32> = std::iter::once(self.glsl).chain(text("GLSL.std.450")).collect();
        instruction(&mut words, Op::ExtInstImport, &import);
        let model = if self.capabilities.contains(&(Capability::VulkanMemoryModel as u32)) { MemoryModel::Vulkan } else { MemoryModel::GLSL450 };
        instruction(&mut words, Op::MemoryModel, &[AddressingModel::PhysicalStorageBuffer64 as u32, model as u32]);
        let entry: Vec<u32> = [ExecutionModel::GLCompute as u32, self.function].into_iter().chain(text(name)).chain(self.interface.iter().copied()).collect();
        instruction(&mut words, Op::EntryPoint, &entry);
        for (mode, operands) in &self.modes {
            let all: Vec<u32> = [self.function, *mode as u32].iter().chain(operands).copied().collect();
            instruction(&mut words, Op::ExecutionMode, &all);
        }
        words.extend(&self.decorations);
        words.extend(&self.globals);
        instruction(&mut words, Op::Function, &[self.void, self.function, 0, signature]);
        instruction(&mut words, Op::Label, &[first]);
        words.extend(&self.locals);
        words.extend(&self.code);
        instruction(&mut words, Op::FunctionEnd, &[]);
        words
    }
}
