//! The operations, named as in MLIR's `arith`, `math`, `scf` and Triton's `tt`.

use crate::Elem;

/// Integer comparison (`arith.cmpi`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CmpI {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Signed less.
    Slt,
    /// Signed less or equal.
    Sle,
    /// Signed greater.
    Sgt,
    /// Signed greater or equal.
    Sge,
    /// Unsigned less.
    Ult,
    /// Unsigned less or equal.
    Ule,
    /// Unsigned greater.
    Ugt,
    /// Unsigned greater or equal.
    Uge,
}

/// Float comparison (`arith.cmpf`); O: false, U: true when either side is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are IEEE 754's and MLIR's
pub enum CmpF {
    False,
    Oeq,
    Ogt,
    Oge,
    Olt,
    Ole,
    One,
    Ord,
    Ueq,
    Ugt,
    Uge,
    Ult,
    Ule,
    Une,
    Uno,
    True,
}

/// Elementwise functions of one operand; result of the operand's type unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named as in C and MLIR's `math`
pub enum Unary {
    NegF,
    AbsF,
    AbsI,
    Exp,
    Exp2,
    Expm1,
    Log,
    Log2,
    Log10,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// Square root, correctly rounded (`math.sqrt`, `tt.precise_sqrt`).
    Sqrt,
    Rsqrt,
    Cbrt,
    Floor,
    Ceil,
    Trunc,
    /// To nearest, ties to even (`math.roundeven`).
    RoundEven,
    /// To nearest, ties away from zero (`math.round`).
    Round,
    /// Result i1.
    IsNan,
    /// Result i1.
    IsInf,
    /// Result i1.
    IsFinite,
    /// Count of leading zero bits.
    Ctlz,
    /// Count of trailing zero bits.
    Cttz,
    /// Count of set bits.
    Ctpop,
}

/// Elementwise functions of two operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named as in MLIR's `arith`
pub enum Binary {
    AddF,
    SubF,
    MulF,
    /// Quotient, correctly rounded (`arith.divf`, `tt.precise_divf`).
    DivF,
    /// C's fmod.
    RemF,
    /// NaN if either is NaN.
    MaximumF,
    /// NaN if either is NaN.
    MinimumF,
    /// The number if one is NaN.
    MaxNumF,
    /// The number if one is NaN.
    MinNumF,
    Pow,
    Atan2,
    CopySign,
    AddI,
    SubI,
    MulI,
    /// High half of the unsigned product (`tt.mulhiui`).
    MulHiU,
    /// Rounds toward zero; by zero, and least by -1: undefined but not a trap.
    DivS,
    DivU,
    RemS,
    RemU,
    CeilDivS,
    FloorDivS,
    MaxS,
    MaxU,
    MinS,
    MinU,
    And,
    Or,
    Xor,
    /// Shift by the width or more: undefined but not a trap.
    Shl,
    ShrS,
    ShrU,
}

/// Conversions between element types; the target type is the result's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cast {
    /// Integer to a narrower one.
    TruncI,
    /// Sign-extended.
    ExtS,
    /// Zero-extended.
    ExtU,
    /// Float to a narrower float, to nearest even, overflow to infinity (fp8 E4M3: NaN), as hardware's non-saturating conversions.
    TruncF,
    /// Float to a wider float.
    ExtF,
    /// Between floats where one is fp8 (`tt.fp_to_fp`), to nearest even.
    FpToFp,
    /// As `FpToFp`, rounded toward zero.
    FpToFpRtz,
    /// Signed integer to float.
    SiToFp,
    /// Unsigned integer to float.
    UiToFp,
    /// Float to signed integer, toward zero; out of range: undefined but not a trap.
    FpToSi,
    /// Float to unsigned integer.
    FpToUi,
    /// Same bits.
    Bitcast,
    /// Pointer to i64.
    PtrToInt,
    /// i64 to pointer.
    IntToPtr,
}

/// Atomic read-modify-write (`tt.atomic_rmw`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named as in Triton
pub enum Rmw {
    And,
    Or,
    Xor,
    Add,
    FAdd,
    Max,
    Min,
    UMax,
    UMin,
    Exch,
}

/// Memory order of an atomic (`relaxed`, `acquire`, `release`, `acq_rel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the C11 names
pub enum Order {
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// What a masked load gives outside an unchecked boundary of a block pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Undefined in Triton; zero here.
    None,
    /// Zero.
    Zero,
    /// NaN.
    Nan,
}

/// How precisely `dot` multiplies f32 factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DotPrecision {
    /// IEEE single precision.
    Ieee,
    /// Factors rounded to TF32.
    Tf32,
    /// Three TF32 products, near single precision.
    Tf32x3,
}

/// A literal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Literal {
    /// An integer or truth value, sign-extended.
    Int(i64),
    /// The bits of a float of the element type, zero-extended.
    Bits(u64),
}

/// What an operation does. Operands are listed in order; `…?` is optional.
#[derive(Clone, Debug, PartialEq)]
pub enum OpKind {
    /// `arith.constant`: the result's type says scalar or tile (every element equal).
    Constant(Literal),
    /// `ub.poison`: any value.
    Poison,
    /// `tt.get_program_id` along an axis: i32.
    ProgramId(u8),
    /// `tt.get_num_programs`: i32.
    NumPrograms(u8),
    /// `tt.make_range`: i32 tile start, start+1, ….
    MakeRange(i32),
    /// `tt.splat` scalar: a tile of equal elements.
    Splat,
    /// `tt.unsplat` tile of one element: its scalar.
    Unsplat,
    /// `tt.expand_dims` tile, a new axis of extent 1.
    ExpandDims(u32),
    /// `tt.broadcast` tile: axes of extent 1 repeat.
    Broadcast,
    /// `tt.reshape` tile: row-major order kept, or any order when allowed.
    Reshape {
        /// `allow_reorder`.
        reorder: bool,
    },
    /// `tt.trans` tile: result axis i is operand axis order\[i\].
    Trans(Vec<u32>),
    /// `tt.cat` a, b along axis 0.
    Cat,
    /// `tt.join` a, b: a new last axis of extent 2.
    Join,
    /// `tt.split` tile whose last axis has extent 2: two results.
    Split,
    /// Elementwise.
    Unary(Unary),
    /// Elementwise.
    Binary(Binary),
    /// `math.fma` a, b, c: a·b + c rounded once.
    Fma,
    /// `arith.cmpi` a, b: i1.
    CmpI(CmpI),
    /// `arith.cmpf` a, b: i1.
    CmpF(CmpF),
    /// `arith.select` condition, a, b; the condition is an i1 scalar or tile.
    Select,
    /// `tt.clampf` x, low, high.
    Clamp {
        /// NaN in x stays NaN.
        propagate_nan: bool,
    },
    /// Conversion to the result's element type.
    Cast(Cast),
    /// `tt.addptr` pointer(s), offset(s) in elements.
    AddPtr,
    /// `tt.load` pointer(s), mask?, other?. Also block pointers.
    Load {
        /// Operand 1 is a mask.
        mask: bool,
        /// Operand 2 is what masked elements get; without it they are zero.
        other: bool,
        /// Axes of a block pointer to check (`boundaryCheck`).
        boundary: Vec<u32>,
        /// Value outside.
        padding: Padding,
        /// `isVolatile`.
        volatile: bool,
        /// Cache modifier and eviction policy as printed (".cg", "evict_last"); hints.
        hints: Vec<String>,
    },
    /// `tt.store` pointer(s), value(s), mask?.
    Store {
        /// Operand 2 is a mask.
        mask: bool,
        /// Axes of a block pointer to check.
        boundary: Vec<u32>,
    },
    /// `tt.make_tensor_ptr` base, shape…, strides…, offsets…; order, as in Triton.
    MakeTensorPtr(Vec<u32>),
    /// `tt.advance` block pointer, offsets….
    Advance,
    /// `tt.make_tensor_descriptor` base, shape… (i32), strides… (i64).
    MakeDescriptor(Padding),
    /// `tt.descriptor_load` descriptor, indices… (i32).
    DescriptorLoad,
    /// `tt.descriptor_store` descriptor, value, indices….
    DescriptorStore,
    /// `tt.descriptor_reduce` descriptor, value, indices….
    DescriptorReduce(Rmw),
    /// `tt.descriptor_gather` descriptor, row indices (i32 tile), column offset.
    DescriptorGather,
    /// `tt.descriptor_scatter` descriptor, row indices, column offset, value.
    DescriptorScatter,
    /// `tt.atomic_rmw` pointer(s), value(s), mask?: the old value.
    AtomicRmw {
        /// The operation.
        rmw: Rmw,
        /// Memory order.
        order: Order,
        /// Operand 2 is a mask.
        mask: bool,
    },
    /// `tt.atomic_cas` pointer(s), expected, desired: the old value.
    AtomicCas(Order),
    /// `tt.reduce` tiles… along an axis; region: (left…, right…) to combined…. One result per operand; rank 1 gives scalars.
    Reduce(u32),
    /// `tt.scan` tiles… along an axis; region as for `Reduce`. Inclusive.
    Scan {
        /// Axis.
        axis: u32,
        /// From the end.
        reverse: bool,
    },
    /// `tt.map_elementwise` tiles…; region over scalars, `pack` neighbours at a time.
    MapElementwise(u32),
    /// `tt.dot` a (…×m×k), b (…×k×n), c (…×m×n): a·b + c.
    Dot {
        /// Precision of f32 factors.
        precision: DotPrecision,
    },
    /// `tt.dot_scaled` a, b, c, a's scales?, b's scales?: element formats as printed ("e4m3", "e2m1", …).
    DotScaled {
        /// Formats of a and b.
        formats: [String; 2],
        /// Operands 3 and 4 are present.
        scales: [bool; 2],
        /// fp4 packed along k.
        pack_k: [bool; 2],
    },
    /// `tt.gather` source, indices along an axis.
    Gather(u32),
    /// `tt.histogram` integers, mask?: counts by value; values outside are undefined in Triton, dropped here.
    Histogram {
        /// Operand 1 is a mask.
        mask: bool,
    },
    /// `scf.for` low, high, step, initial…; region: (index, carried…) yields carried….
    For {
        /// The induction variable compares unsigned.
        unsigned: bool,
    },
    /// `scf.if` condition; regions: then, else (empty when there are no results).
    If,
    /// `scf.while` initial…; regions: before (ends in `Condition`), after.
    While,
    /// `scf.condition` condition, forwarded….
    Condition,
    /// `scf.yield`, `tt.reduce.return`, `tt.scan.return`, `tt.map_elementwise.return`: values….
    Yield,
    /// `tt.return` values….
    Return,
    /// `tt.call` arguments….
    Call(String),
    /// `tt.extern_elementwise` (libdevice) operands…: symbol ("__nv_expf").
    Extern(String),
    /// `tt.elementwise_inline_asm`: kept so that it can be refused by name.
    InlineAsm(String),
    /// `tt.print`: prefix; operands….
    Print(String),
    /// `tt.assert` condition.
    Assert(String),
    /// `llvm.intr.assume` condition: a fact.
    Assume,
    /// `gpu.barrier`, `ttg.barrier`: threads of the block meet.
    Barrier,
}

impl OpKind {
    /// Whether it writes memory or has another effect, so that it is never removed.
    pub fn has_effect(&self) -> bool {
        matches!(
            self,
            OpKind::Store { .. }
                | OpKind::DescriptorStore
                | OpKind::DescriptorReduce(_)
                | OpKind::DescriptorScatter
                | OpKind::AtomicRmw { .. }
                | OpKind::AtomicCas(_)
                | OpKind::Load { volatile: true, .. }
                | OpKind::For { .. }
                | OpKind::If
                | OpKind::While
                | OpKind::Condition
                | OpKind::Yield
                | OpKind::Return
                | OpKind::Call(_)
                | OpKind::InlineAsm(_)
                | OpKind::Print(_)
                | OpKind::Assert(_)
                | OpKind::Assume
                | OpKind::Barrier
        )
    }
}

/// Bits of a float literal of `elem` as [`Literal::Bits`] holds them, rounded to nearest even; `None` for integer types.
pub fn float_bits(elem: Elem, value: f64) -> Option<u64> {
    elem.is_float().then(|| super::number::round_to(elem, value))
}
