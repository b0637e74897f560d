//! Element types of values.

use core::fmt;

/// An element type; integers carry no sign, operations do (as in MLIR's `arith`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// Truth value; one byte in memory, 0 or 1.
    I1,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (OCP FP8 E4M3FN).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits (OCP FP8 E5M2).
    F8E5M2,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Elem {
    /// Every type.
    pub const ALL: &'static [Elem] =
        &[Elem::I1, Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F8E4M3, Elem::F8E5M2, Elem::F16, Elem::BF16, Elem::F32, Elem::F64];

    /// Size in memory in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Elem::I1 | Elem::I8 | Elem::F8E4M3 | Elem::F8E5M2 => 1,
            Elem::I16 | Elem::F16 | Elem::BF16 => 2,
            Elem::I32 | Elem::F32 => 4,
            Elem::I64 | Elem::F64 => 8,
        }
    }

    /// Width in bits; 1 for truth values.
    pub const fn bits(self) -> u32 {
        if matches!(self, Elem::I1) { 1 } else { self.bytes() * 8 }
    }

    /// Whether it is a float of any width.
    pub const fn is_float(self) -> bool {
        matches!(self, Elem::F8E4M3 | Elem::F8E5M2 | Elem::F16 | Elem::BF16 | Elem::F32 | Elem::F64)
    }

    /// Whether it is an integer or truth value.
    pub const fn is_int(self) -> bool {
        !self.is_float()
    }

    /// The integer type of the same width in memory.
    pub const fn as_int(self) -> Elem {
        match self.bytes() {
            1 => Elem::I8,
            2 => Elem::I16,
            4 => Elem::I32,
            _ => Elem::I64,
        }
    }

    /// Its name in MLIR text.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F8E4M3 => "f8E4M3FN",
            Elem::F8E5M2 => "f8E5M2",
            Elem::F16 => "f16",
            Elem::BF16 => "bf16",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        }
    }

    /// The type of a name in MLIR text.
    pub fn from_name(name: &str) -> Option<Elem> {
        Elem::ALL.iter().copied().find(|e| e.name() == name)
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
