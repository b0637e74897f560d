//! Reading SPIR-V as far as it must be trusted before a driver sees it: structure, capabilities, entry points, block size, shared memory.
//!
//! Drivers do not check their input, and crash on bad code. This reader makes sure that every instruction lies within the module, that
//! ids are in bounds and defined once, that functions and their blocks are closed, and that the conventions of `spirv-vulkan` are kept.
//! Types of operands are not checked; `spirv-val` does that.
#![deny(unsafe_code)]

use std::collections::HashMap;

use flagos_backend_api::{Error, Result};

/// A module, as far as it was read.
pub struct Program {
    /// Version as major << 16 | minor << 8.
    pub version: u32,
    /// Capabilities declared.
    pub capabilities: Vec<u32>,
    /// Extensions declared.
    pub extensions: Vec<String>,
    /// Entry points.
    pub entries: Vec<Entry>,
}

/// An entry point for compute.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Threads of a block.
    pub local: [u32; 3],
    /// Shared memory the code declares, in bytes.
    pub shared_bytes: u32,
    /// Execution modes with a float width: (mode, bits).
    pub float_modes: Vec<(u32, u32)>,
}

const MAGIC: u32 = 0x0723_0203;
/// More ids than any real module has.
const MOST_IDS: u32 = 1 << 22;

// Opcodes, storage classes, modes and decorations by their names in the specification.
const OP_EXTENSION: u32 = 10;
const OP_EXT_INST_IMPORT: u32 = 11;
const OP_MEMORY_MODEL: u32 = 14;
const OP_ENTRY_POINT: u32 = 15;
const OP_EXECUTION_MODE: u32 = 16;
const OP_CAPABILITY: u32 = 17;
const OP_FUNCTION: u32 = 54;
const OP_FUNCTION_END: u32 = 56;
const OP_VARIABLE: u32 = 59;
const OP_DECORATE: u32 = 71;
const OP_MEMBER_DECORATE: u32 = 72;
const OP_LABEL: u32 = 248;
const OP_EXECUTION_MODE_ID: u32 = 331;
/// Branch, conditional branch, switch, kill, return, return of a value, unreachable, terminate.
const TERMINATORS: &[u32] = &[249, 250, 251, 252, 253, 254, 255, 4416];
const ADDRESSING_PHYSICAL_STORAGE: u32 = 5348;
const MODEL_GL_COMPUTE: u32 = 5;
const MODE_LOCAL_SIZE: u32 = 17;
const MODE_LOCAL_SIZE_ID: u32 = 38;
/// DenormPreserve, DenormFlushToZero, SignedZeroInfNanPreserve, RoundingModeRTE, RoundingModeRTZ.
const FLOAT_MODES: core::ops::RangeInclusive<u32> = 4459..=4463;
const DECORATION_BUILTIN: u32 = 11;
const DECORATION_OFFSET: u32 = 35;
const BUILTIN_WORKGROUP_SIZE: u32 = 25;
const CLASS_WORKGROUP: u32 = 4;
const CLASS_PUSH_CONSTANT: u32 = 9;
/// Classes that need descriptors: UniformConstant, Uniform, StorageBuffer, Image.
const DESCRIPTOR_CLASSES: &[u32] = &[0, 2, 12, 11];

/// A type, as far as sizes need it.
enum Type {
    Bytes(u32),
    Vector(u32, u32),
    Array(u32, u32),
    Struct(Vec<u32>),
    Pointer(u32),
}

#[derive(Default)]
struct Reader {
    bound: u32,
    defined: Vec<u64>,
    types: HashMap<u32, Type>,
    constants: HashMap<u32, u32>,
    composites: HashMap<u32, Vec<u32>>,
    variables: Vec<(u32, u32, u32)>,
    functions: Vec<u32>,
    points: Vec<(u32, u32, String, Vec<u32>)>,
    modes: Vec<(u32, u32, Vec<u32>, bool)>,
    offsets: HashMap<(u32, u32), u32>,
    workgroup_size: Option<u32>,
    model: Option<u32>,
    capabilities: Vec<u32>,
    extensions: Vec<String>,
    in_function: bool,
    in_block: bool,
}

fn bad(text: impl AsRef<str>) -> Error {
    Error::invalid(format!("this is no SPIR-V module that can be used: {}", text.as_ref()))
}

/// Words of a module given as bytes.
pub fn words(code: &[u8]) -> Result<Vec<u32>> {
    if !code.len().is_multiple_of(4) || code.len() < 20 {
        return Err(bad(format!("{} bytes; a module has a header of 20 and is made of words of 4", code.len())));
    }
    Ok(code.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect())
}

/// Reads a module.
pub fn read(words: &[u32]) -> Result<Program> {
    let [magic, version, _, bound, schema, ..] = *words else { return Err(bad("it is shorter than a header")) };
    if magic == MAGIC.swap_bytes() {
        return Err(bad("its words are big-endian; little-endian ones are expected"));
    }
    if magic != MAGIC {
        return Err(bad(format!("it begins with {magic:#010x}, not with {MAGIC:#010x}")));
    }
    if version & 0xff00_00ff != 0 || !(0x1_0000..=0x1_ff00).contains(&version) {
        return Err(bad(format!("version {version:#x} is none")));
    }
    if bound == 0 || bound > MOST_IDS || schema != 0 {
        return Err(bad(format!("its header states {bound} ids and schema {schema}")));
    }
    let mut reader = Reader { bound, defined: vec![0; bound as usize / 64 + 1], ..Reader::default() };
    let mut at = 5;
    while at < words.len() {
        let (count, opcode) = ((words[at] >> 16) as usize, words[at] & 0xffff);
        let Some(instruction) = words.get(at..at + count).filter(|_| count > 0) else {
            return Err(bad(format!("the instruction at word {at} (opcode {opcode}) has {count} words, and {} are left", words.len() - at)));
        };
        reader.instruction(opcode, &instruction[1..]).map_err(|e| Error::invalid(format!("{} (instruction at word {at})", e.message)))?;
        at += count;
    }
    reader.finish(version)
}

impl Reader {
    fn id(&self, id: u32) -> Result<u32> {
        if id == 0 || id >= self.bound { Err(bad(format!("id {id} is not below the bound {}", self.bound))) } else { Ok(id) }
    }

    fn define(&mut self, id: u32) -> Result<u32> {
        let (word, bit) = (self.id(id)? as usize / 64, 1u64 << (id % 64));
        if self.defined[word] & bit != 0 {
            return Err(bad(format!("id {id} is defined twice")));
        }
        self.defined[word] |= bit;
        Ok(id)
    }

    fn instruction(&mut self, opcode: u32, o: &[u32]) -> Result<()> {
        let need = |n: usize| if o.len() < n { Err(bad(format!("opcode {opcode} has {} operands; it needs {n}", o.len()))) } else { Ok(()) };
        match opcode {
            OP_CAPABILITY => {
                need(1)?;
                self.capabilities.push(o[0]);
            }
            OP_EXTENSION => {
                let name = text(o)?.0;
                self.extensions.push(name);
            }
            OP_EXT_INST_IMPORT => {
                need(2)?;
                self.define(o[0])?;
                let name = text(&o[1..])?.0;
                if name != "GLSL.std.450" && !name.starts_with("NonSemantic.") {
                    return Err(bad(format!("instruction set '{name}' does not exist in Vulkan")));
                }
            }
            OP_MEMORY_MODEL => {
                need(2)?;
                self.model = Some(o[0]);
            }
            OP_ENTRY_POINT => {
                need(3)?;
                let (name, length) = text(&o[2..])?;
                self.points.push((o[0], self.id(o[1])?, name, o[2 + length..].to_vec()));
            }
            OP_EXECUTION_MODE | OP_EXECUTION_MODE_ID => {
                need(2)?;
                self.modes.push((o[0], o[1], o[2..].to_vec(), opcode == OP_EXECUTION_MODE_ID));
            }
            OP_DECORATE => {
                need(2)?;
                if o[1] == DECORATION_BUILTIN && o.get(2) == Some(&BUILTIN_WORKGROUP_SIZE) {
                    self.workgroup_size = Some(o[0]);
                }
            }
            OP_MEMBER_DECORATE => {
                need(3)?;
                if o[2] == DECORATION_OFFSET && o.len() > 3 {
                    self.offsets.insert((o[0], o[1]), o[3]);
                }
            }
            19..=39 => self.type_(opcode, o)?,
            41..=52 => self.constant(opcode, o)?,
            OP_VARIABLE => {
                need(3)?;
                let id = self.define(o[1])?;
                self.variables.push((id, self.id(o[0])?, o[2]));
            }
            OP_FUNCTION => {
                need(4)?;
                if self.in_function {
                    return Err(bad("a function begins within another"));
                }
                let id = self.define(o[1])?;
                self.functions.push(id);
                self.in_function = true;
            }
            OP_FUNCTION_END => {
                if !self.in_function || self.in_block {
                    return Err(bad("a function ends where none is open, or within a block"));
                }
                self.in_function = false;
            }
            OP_LABEL => {
                need(1)?;
                if !self.in_function || self.in_block {
                    return Err(bad("a block begins outside of a function, or within another block"));
                }
                self.define(o[0])?;
                self.in_block = true;
            }
            _ if TERMINATORS.contains(&opcode) => {
                if !self.in_block {
                    return Err(bad("a block ends where none is open"));
                }
                self.in_block = false;
            }
            _ => {}
        }
        Ok(())
    }

    fn type_(&mut self, opcode: u32, o: &[u32]) -> Result<()> {
        // OpTypeForwardPointer defines nothing.
        if opcode == 39 {
            return Ok(());
        }
        let Some(&id) = o.first() else { return Err(bad("a type without an id")) };
        let id = self.define(id)?;
        let found = match (opcode, o) {
            (20, _) => Type::Bytes(4),
            (21 | 22, [_, bits, ..]) => Type::Bytes(bits / 8),
            (23 | 24, [_, part, count]) => Type::Vector(*part, *count),
            (28, [_, part, length]) => Type::Array(*part, *length),
            (30, [_, members @ ..]) => Type::Struct(members.to_vec()),
            (32, [_, _, pointee]) => Type::Pointer(*pointee),
            _ => return Ok(()),
        };
        self.types.insert(id, found);
        Ok(())
    }

    fn constant(&mut self, opcode: u32, o: &[u32]) -> Result<()> {
        let [_, id, rest @ ..] = o else { return Err(bad("a constant without type or id")) };
        let id = self.define(*id)?;
        match (opcode, rest) {
            (43 | 50, [low, ..]) => {
                self.constants.insert(id, *low);
            }
            (44 | 51, parts) => {
                self.composites.insert(id, parts.to_vec());
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, version: u32) -> Result<Program> {
        if self.in_function {
            return Err(bad("its last function does not end"));
        }
        match self.model {
            None => return Err(bad("it states no memory model")),
            Some(ADDRESSING_PHYSICAL_STORAGE) => {}
            Some(other) => return Err(bad(format!("addressing model {other}; kernels use PhysicalStorageBuffer64 ({ADDRESSING_PHYSICAL_STORAGE})"))),
        }
        if let Some((id, _, class)) = self.variables.iter().find(|v| DESCRIPTOR_CLASSES.contains(&v.2)) {
            return Err(bad(format!("variable {id} of storage class {class} needs a descriptor; kernels take addresses")));
        }
        let pushed = self.variables.iter().filter(|v| v.2 == CLASS_PUSH_CONSTANT).map(|v| self.push_bytes(v.1)).collect::<Result<Vec<u64>>>()?;
        if let Some(bytes) = pushed.iter().find(|b| **b > u64::from(crate::device::PUSH_BYTES)) {
            return Err(bad(format!("its push constants take {bytes} bytes; more than 16 arguments come in a buffer whose address is the one push constant")));
        }
        if self.points.is_empty() {
            return Err(bad("it has no entry point"));
        }
        let entries = self.points.iter().map(|p| self.entry(p)).collect::<Result<Vec<Entry>>>()?;
        Ok(Program { version, capabilities: self.capabilities, extensions: self.extensions, entries })
    }

    fn entry(&self, (model, function, name, interface): &(u32, u32, String, Vec<u32>)) -> Result<Entry> {
        if *model != MODEL_GL_COMPUTE {
            return Err(bad(format!("entry point '{name}' has execution model {model}; kernels are GLCompute ({MODEL_GL_COMPUTE})")));
        }
        if !self.functions.contains(function) {
            return Err(bad(format!("entry point '{name}' names function {function}, which does not exist")));
        }
        if let Some(stray) = interface.iter().find(|i| self.id(**i).is_err()) {
            return Err(bad(format!("the interface of '{name}' names id {stray}")));
        }
        let modes = || self.modes.iter().filter(|m| m.0 == *function);
        let sized = modes().find_map(|(_, mode, values, ids)| match (mode, values.as_slice(), ids) {
            (&MODE_LOCAL_SIZE, &[x, y, z], false) => Some(Some([x, y, z])),
            (&MODE_LOCAL_SIZE_ID, parts, true) => Some(self.extents(parts)),
            _ => None,
        });
        // The built-in constant has the last word, as the specification says.
        let sized = self.workgroup_size.map(|id| self.composites.get(&id).and_then(|parts| self.extents(parts))).or(sized);
        let local = match sized {
            Some(Some(local)) if local.iter().all(|n| *n > 0) => local,
            Some(_) => return Err(bad(format!("the LocalSize of '{name}' has an extent of 0 or one that is no constant"))),
            None => return Err(bad(format!("entry point '{name}' states no LocalSize"))),
        };
        // Before SPIR-V 1.4 the interface does not list shared memory, so all of the module's counts.
        let listed = |id: &u32| interface.contains(id);
        let shared: Vec<&(u32, u32, u32)> = self.variables.iter().filter(|v| v.2 == CLASS_WORKGROUP).collect();
        let own = shared.iter().filter(|v| !shared.iter().any(|s| listed(&s.0)) || listed(&v.0));
        let mut shared_bytes = 0u64;
        for variable in own {
            let Some(Type::Pointer(pointee)) = self.types.get(&variable.1) else { return Err(bad(format!("variable {} has no pointer type", variable.0))) };
            shared_bytes += self.size(*pointee, 0)?;
        }
        let float_modes = modes().filter(|m| FLOAT_MODES.contains(&m.1)).filter_map(|m| Some((m.1, *m.2.first()?))).collect();
        Ok(Entry { name: name.clone(), local, shared_bytes: u32::try_from(shared_bytes).unwrap_or(u32::MAX), float_modes })
    }

    fn extents(&self, parts: &[u32]) -> Option<[u32; 3]> {
        let [x, y, z] = *parts else { return None };
        Some([*self.constants.get(&x)?, *self.constants.get(&y)?, *self.constants.get(&z)?])
    }

    /// Bytes of a push constant block.
    fn push_bytes(&self, pointer: u32) -> Result<u64> {
        let Some(Type::Pointer(block)) = self.types.get(&pointer) else { return Err(bad("push constants without a pointer type")) };
        let Some(Type::Struct(members)) = self.types.get(block) else { return Err(bad("push constants are no struct")) };
        let ends = members.iter().enumerate().map(|(i, member)| {
            let offset = self.offsets.get(&(*block, i as u32)).ok_or_else(|| bad(format!("member {i} of the push constants has no offset")))?;
            Ok(u64::from(*offset) + self.size(*member, 0)?)
        });
        ends.collect::<Result<Vec<u64>>>().map(|ends| ends.into_iter().max().unwrap_or(0))
    }

    /// Bytes of a type without padding; 64-bit addresses.
    fn size(&self, id: u32, depth: u32) -> Result<u64> {
        if depth > 16 {
            return Err(bad(format!("type {id} is nested too deeply")));
        }
        Ok(match self.types.get(&id) {
            Some(Type::Bytes(n)) => u64::from(*n),
            Some(Type::Pointer(_)) => 8,
            Some(Type::Vector(part, count)) => self.size(*part, depth + 1)?.saturating_mul(u64::from(*count)),
            Some(Type::Array(part, length)) => {
                let length = self.constants.get(length).ok_or_else(|| bad(format!("array type {id} has a length that is no constant")))?;
                self.size(*part, depth + 1)?.saturating_mul(u64::from(*length))
            }
            Some(Type::Struct(members)) => members.iter().try_fold(0u64, |sum, m| Ok::<u64, Error>(sum.saturating_add(self.size(*m, depth + 1)?)))?,
            None => return Err(bad(format!("type {id} has no size"))),
        })
    }
}

/// A literal string and the words it takes.
fn text(words: &[u32]) -> Result<(String, usize)> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let end = bytes.iter().position(|b| *b == 0).ok_or_else(|| bad("a text does not end"))?;
    let text = String::from_utf8(bytes[..end].to_vec()).map_err(|_| bad("a text is not UTF-8"))?;
    Ok((text, end / 4 + 1))
}
