//! Thread programs as source text of a C-like language: one printer, one [`Dialect`] per language.
//!
//! In the text `u8`…`u64`, `i8`…`i64`, `f32`, `f64` and `i1` are types the dialect defines. Integers are unsigned there, so that they wrap, and
//! read as signed where an operation says so; f16, bf16 and fp8 are held as their bits. `vN` are values, `xN` variables, `sN` shared arrays,
//! `fl_*` helpers: no other name is made up, so none collides with the language's own.

use super::helpers;
use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Kernel, Shuffle, Ty, Val};
use crate::tile::{Order, Rmw};
use crate::{CompileError, Compiled, Elem, Target};

/// Writes a formatted line of code.
macro_rules! line {
    ($printer:expr, $($text:tt)*) => { $printer.line(format_args!($($text)*)) };
}
pub(super) use line;

/// An atomic operation to be written.
pub(super) struct Atomic<'a> {
    /// Whether it is in shared memory; else in global.
    pub shared: bool,
    /// The element's type.
    pub elem: Elem,
    /// Address: of the dialect's pointer type in global memory, of the elements' type in shared memory.
    pub address: &'a str,
    /// Memory order.
    pub order: Order,
}

/// A language: how it spells what C-like languages do not share.
pub(super) trait Dialect {
    /// Suffix of 64-bit unsigned constants.
    fn long(&self) -> &'static str {
        "ull"
    }
    /// Type of a global pointer: to bytes.
    fn pointer(&self) -> &'static str {
        "u8 *"
    }
    /// Qualifier of pointers into shared memory.
    fn local(&self) -> &'static str {
        ""
    }
    /// What stands before the helpers: extensions, types, `FN`.
    fn prelude(&self, p: &Printer<'_>) -> String;
    /// Text of a helper in place of the common one; `name` without "fl_".
    fn helper(&self, name: &str) -> Option<String>;
    /// The entry point's head up to and with the opening brace, its parameters as `vN`, shared arrays and variables.
    fn open(&self, p: &mut Printer<'_>) -> Result<()>;
    /// Options for `module.compile`.
    fn options(&self, _p: &Printer<'_>) -> String {
        String::new()
    }
    /// `shared_bytes` of a launch.
    fn shared_bytes(&self, _p: &Printer<'_>) -> u32 {
        0
    }
    /// A float function of C's library for 32 or 64 bits.
    fn math(&self, base: &str, bits: u32) -> String;
    /// Index of the block along an axis: an integer expression.
    fn block_id(&self, axis: u8) -> String;
    /// Extent of the grid along an axis.
    fn num_blocks(&self, axis: u8) -> String;
    /// Index of the thread in the block.
    fn thread_id(&self) -> &'static str;
    /// Whether every sum in an offset is added to the address term by term; else constants alone are.
    fn splits_addresses(&self) -> bool {
        false
    }
    /// A line before a loop that is to be unrolled fully or by a factor.
    fn unroll(&self, factor: u32) -> Option<String>;
    /// An element at a global address, as its type in memory.
    fn read(&self, elem: Elem, address: &str, volatile: bool) -> String;
    /// Statement that writes an element of its type in memory at a global address.
    fn write(&self, elem: Elem, address: &str, value: &str) -> String;
    /// Most bytes of one access to global memory; 0: element by element.
    fn widest(&self) -> u32 {
        0
    }
    /// Whether wide accesses reach shared memory as well.
    fn reads_local_wide(&self) -> bool {
        false
    }
    /// Reads `count` elements at once into a variable `name`: a declaration, then an expression for each element.
    fn read_wide(&self, _elem: Elem, _count: usize, _address: &str, _name: &str) -> (String, Vec<String>) {
        (String::new(), Vec::new())
    }
    /// Statement that writes elements at once.
    fn write_wide(&self, _elem: Elem, _address: &str, _values: &[String]) -> String {
        String::new()
    }
    /// Whether plain statements around atomics order memory: (before, after).
    fn fences(&self, _order: Order) -> (Option<&'static str>, Option<&'static str>) {
        (None, None)
    }
    /// Read-modify-write over the bits of an element: an expression for the old ones.
    fn atomic(&self, p: &Printer<'_>, at: &Atomic<'_>, rmw: Rmw, value: &str) -> Result<String>;
    /// Compare and swap over the bits of an element: an expression for the old ones.
    fn atomic_cas(&self, p: &Printer<'_>, at: &Atomic<'_>, expected: &str, desired: &str) -> Result<String>;
    /// Value of another lane, of a type with these bits, as an expression.
    fn shuffle(&self, p: &Printer<'_>, how: Shuffle, value: &str, lane: Option<&str>, ty: Ty) -> Result<String>;
    /// Threads of the block meet.
    fn barrier(&self, global: bool) -> Option<&'static str>;
    /// Threads of the subgroup meet.
    fn subgroup_barrier(&self, p: &Printer<'_>) -> Option<&'static str>;
    /// An asynchronous copy, the end of a group of them, or waiting for some.
    fn copy(&self, _p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        Err(invalid(format!("{effect} in a format without asynchronous copies")))
    }
    /// Type of a fragment.
    fn fragment(&self, info: &FragmentInfo) -> Result<String> {
        Err(CompileError::unsupported("tt.dot", Default::default(), format!("no matrix unit of shape {:?} in this format; list none in the target", info.shape)))
    }
    /// Defines a fragment; only for formats whose [`fragment`](Dialect::fragment) gives types.
    fn matrix(&self, _p: &mut Printer<'_>, _result: Val, inst: &Inst) -> Result<()> {
        Err(invalid(format!("{inst:?} in a format without matrix units")))
    }
    /// Stores a fragment.
    fn matrix_store(&self, _p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        Err(invalid(format!("{effect:?} in a format without matrix units")))
    }
}

/// An error for programs that are not valid thread IR.
pub(super) fn invalid(message: String) -> CompileError {
    CompileError::invalid("", Default::default(), message)
}

/// How a value that may be an offset came about.
#[derive(Clone, Copy)]
pub(super) enum Sum {
    /// Of two values.
    Of(Val, Val),
    /// Sign-extended.
    Extended(Val),
}

/// Text under construction.
pub(super) struct Printer<'a> {
    /// What is printed.
    pub kernel: &'a Kernel,
    /// For whom.
    pub target: &'a Target,
    /// In which language.
    pub dialect: &'a dyn Dialect,
    /// Bits of values that are constants: they stand where they are used.
    pub constants: Vec<Option<u64>>,
    /// Values that are sums of two i32 or i64, or one extended from i32: the terms of addresses.
    pub sums: Vec<Option<Sum>>,
    /// The text so far.
    pub out: String,
    /// Depth of the next line.
    pub depth: usize,
}

/// Writes a kernel in a dialect.
pub(super) fn emit(kernel: &Kernel, target: &Target, dialect: &dyn Dialect) -> Result<Compiled> {
    let (constants, sums) = (vec![None; kernel.types.len()], vec![None; kernel.types.len()]);
    let mut p = Printer { kernel, target, dialect, constants, sums, out: String::with_capacity(1 << 14), depth: 0 };
    dialect.open(&mut p)?;
    p.depth = 1;
    p.statements(&kernel.body)?;
    p.out.push_str("}\n");
    let head = dialect.prelude(&p);
    let helpers = helpers::used_by(&p.out, dialect);
    Ok(Compiled {
        code: [head.as_str(), "\n", &helpers, &p.out].concat().into_bytes(),
        entry: p.entry(),
        options: dialect.options(&p),
        threads: kernel.threads,
        shared_bytes: dialect.shared_bytes(&p),
    })
}

/// Name of an element's type in memory.
pub(super) fn memory_type(elem: Elem) -> &'static str {
    match elem {
        Elem::I1 | Elem::I8 | Elem::F8E4M3 | Elem::F8E5M2 => "u8",
        Elem::I16 | Elem::F16 | Elem::BF16 => "u16",
        Elem::I32 => "u32",
        Elem::I64 => "u64",
        Elem::F32 => "f32",
        Elem::F64 => "f64",
    }
}

/// A value of an element's type as its bits in memory.
pub(super) fn to_bits(elem: Elem, text: &str) -> String {
    match elem {
        Elem::F32 => format!("fl_as_u32({text})"),
        Elem::F64 => format!("fl_as_u64({text})"),
        _ => text.to_owned(),
    }
}

/// Bits in memory as a value of an element's type.
pub(super) fn from_bits(elem: Elem, text: String) -> String {
    match elem {
        Elem::F32 => format!("fl_as_f32({text})"),
        Elem::F64 => format!("fl_as_f64({text})"),
        Elem::I1 => format!("{text} != 0u"),
        _ => text,
    }
}

