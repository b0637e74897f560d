//! Kernels, statements, instructions.

use crate::tile::{Binary, Cast, CmpF, CmpI, Order, Rmw, Unary};
use crate::{Elem, MatrixShape};

/// Type of a scalar value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// A number.
    Elem(Elem),
    /// A pointer into global memory.
    Ptr(Elem),
    /// A matrix fragment spread over a subgroup; index into [`Kernel::fragments`].
    Fragment(u32),
}

/// An SSA value; index into [`Kernel::types`]. Visible in the statement list that defines it, after its definition, and in nested lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub u32);

/// A variable of each thread; index into [`Kernel::vars`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u32);

/// An array in shared memory; index into [`Kernel::shared`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shared(pub u32);

/// A kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its value in the body.
    pub value: Val,
    /// `Ptr` for buffers, `Elem` for scalars.
    pub ty: Ty,
}

/// A variable: one element, or an array indexed at run time or by constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarInfo {
    /// Element type.
    pub ty: Ty,
    /// Number of elements; 1 for plain variables. Undefined until set.
    pub len: u32,
}

/// An array in shared memory, undefined at the start of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedInfo {
    /// Element type.
    pub elem: Elem,
    /// Number of elements.
    pub len: u32,
}

/// Which operand of a matrix product a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Left factor, m×k.
    A,
    /// Right factor, k×n.
    B,
    /// Sum, m×n.
    Sum,
}

/// A kind of fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentInfo {
    /// The matrix unit's shape.
    pub shape: MatrixShape,
    /// Operand.
    pub role: Role,
}

impl FragmentInfo {
    /// Elements each of 32 lanes holds of an open fragment; 0 where nobody knows which.
    pub fn elements_per_lane(&self) -> u32 {
        let MatrixShape { m, n, k, factor, .. } = self.shape;
        match self.role {
            Role::A if (m, k, factor.bytes()) == (16, 16, 2) => m * k / 32,
            Role::Sum if matches!((m, n), (8 | 16, 8)) => m * n / 32,
            _ => 0,
        }
    }

    /// Row and column of element `i` that a lane holds of an open fragment: rows of eight lanes' quads, pairs of neighbours in a lane, as PTX
    /// describes the operands of `mma.sync`. Of two-byte factors and of sums alike, so that sums become left factors where they are.
    pub fn held(&self, lane: u32, i: u32) -> (u32, u32) {
        let (quad, within) = (lane / 4, lane % 4);
        (quad + 8 * (i / 2 % 2), 2 * within + i % 2 + 8 * (i / 4))
    }
}

/// The scalar program of one thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Entry point.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Threads of a block, along one axis.
    pub threads: u32,
    /// Subgroup size shuffles rely on; 0: there are none.
    pub subgroup: u32,
    /// Types of values.
    pub types: Vec<Ty>,
    /// Variables.
    pub vars: Vec<VarInfo>,
    /// Shared arrays.
    pub shared: Vec<SharedInfo>,
    /// Kinds of fragments.
    pub fragments: Vec<FragmentInfo>,
    /// Statements.
    pub body: Vec<Stmt>,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Defines `results` (most instructions have one).
    Let {
        /// New values.
        results: Vec<Val>,
        /// What they are.
        inst: Inst,
    },
    /// Effects without results.
    Do(Effect),
    /// Either branch.
    If {
        /// i1.
        condition: Val,
        /// All threads of the block take the same branch.
        uniform: bool,
        /// When true.
        then: Vec<Stmt>,
        /// When false.
        other: Vec<Stmt>,
    },
    /// for (index = low; index < high; index += step), signed unless stated; bounds are evaluated once; step > 0.
    For {
        /// Integer value, new in each iteration.
        index: Val,
        /// First value.
        low: Val,
        /// Bound, exclusive.
        high: Val,
        /// Increment.
        step: Val,
        /// Compares unsigned.
        unsigned: bool,
        /// All threads of the block run the same number of iterations.
        uniform: bool,
        /// Unroll fully or by this factor; 0: as the vendor's compiler likes.
        unroll: u32,
        /// Statements.
        body: Vec<Stmt>,
    },
    /// Repeats `body` until a `BreakUnless` directly in it (not nested) fails.
    Loop {
        /// All threads of the block run the same number of iterations.
        uniform: bool,
        /// Statements.
        body: Vec<Stmt>,
    },
    /// Leaves the innermost `Loop` when the condition is false.
    BreakUnless(Val),
}

/// How a shuffle finds its source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shuffle {
    /// lane ^ constant.
    Xor(u32),
    /// lane - constant; lanes below get an undefined value.
    Up(u32),
    /// lane + constant; lanes above get an undefined value.
    Down(u32),
    /// The lane given as the second operand (i32).
    Lane,
}

/// Where an element of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A global pointer, aligned to its element; `align` bytes are known.
    Global {
        /// The address.
        pointer: Val,
        /// Known alignment in bytes, at least the element's.
        align: u32,
    },
    /// An element of a shared array.
    Shared {
        /// The array.
        array: Shared,
        /// i32 index; of several consecutive elements a multiple of their number.
        index: Val,
    },
}

/// An instruction with results. Operations on f16/bf16/fp8 arithmetic do not occur: the lowering computes in f32 and casts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inst {
    /// Bits of a constant of the result's type, zero-extended.
    Const(u64),
    /// The null pointer or another pointer constant does not exist; this is any value.
    Undef,
    /// i32.
    BlockId(u8),
    /// i32.
    NumBlocks(u8),
    /// i32, 0 to threads - 1. Subgroups are runs of `subgroup` threads.
    ThreadId,
    /// Elementwise.
    Unary(Unary, Val),
    /// Elementwise.
    Binary(Binary, Val, Val),
    /// a·b + c rounded once.
    Fma(Val, Val, Val),
    /// i1.
    CmpI(CmpI, Val, Val),
    /// i1.
    CmpF(CmpF, Val, Val),
    /// condition ? a : b, both evaluated.
    Select(Val, Val, Val),
    /// Conversion to the result's type.
    Cast(Cast, Val),
    /// Pointer plus an i32 or i64 number of elements.
    PtrAdd(Val, Val),
    /// Value of a variable, or of its element at a constant index.
    Get(Var, u32),
    /// Element of an array variable at an i32 index.
    GetAt(Var, Val),
    /// Consecutive elements, as many as there are results (1, 2, 4, 8 or 16; wide reads need `align` ≥ their size, else they are split).
    /// With a mask (i1) that is false nothing is read and the results are `other` (undefined without).
    Load {
        /// Where.
        place: Place,
        /// Read only if true.
        mask: Option<Val>,
        /// One value per result.
        other: Option<Vec<Val>>,
        /// Not to be merged or moved.
        volatile: bool,
    },
    /// The value of another lane of the subgroup.
    Shuffle(Shuffle, Val, Option<Val>),
    /// The old value. With a false mask: undefined, nothing is done.
    Atomic {
        /// Where.
        place: Place,
        /// The operation.
        rmw: Rmw,
        /// Right operand.
        value: Val,
        /// Done only if true.
        mask: Option<Val>,
        /// Memory order.
        order: Order,
    },
    /// Compare and swap; the old value.
    AtomicCas {
        /// Where.
        place: Place,
        /// Expected.
        expected: Val,
        /// Desired.
        desired: Val,
        /// Done only if true.
        mask: Option<Val>,
        /// Memory order.
        order: Order,
    },
    /// A fragment of zeros (sum) of the result's kind.
    FragmentZero,
    /// A fragment from shared memory: element (row, column) at index + row·stride + column, or + column·stride + row when transposed.
    FragmentLoad {
        /// The array.
        array: Shared,
        /// i32 index of element (0, 0).
        index: Val,
        /// Elements between rows (columns).
        stride: u32,
        /// Column-major.
        transposed: bool,
        /// Index and stride are multiples of 16 bytes.
        aligned: bool,
    },
    /// a·b + c.
    FragmentMulAdd(Val, Val, Val),
    /// Element of a sum fragment that this lane holds, by its number there ([`FragmentInfo::held`]); for targets whose fragments are open.
    FragmentGet(Val, u32),
    /// A sum or a left factor from the elements each lane holds, in the order of [`FragmentInfo::held`].
    FragmentOf(Vec<Val>),
}

/// A statement with an effect and no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Sets a variable, or its element at a constant index.
    Set(Var, u32, Val),
    /// Sets an array variable's element at an i32 index.
    SetAt(Var, Val, Val),
    /// Writes consecutive elements (1, 2, 4, 8 or 16).
    Store {
        /// Where.
        place: Place,
        /// Values.
        values: Vec<Val>,
        /// Written only if true.
        mask: Option<Val>,
    },
    /// All threads of the block meet; shared memory written before is seen after. `global`: global memory too.
    Barrier {
        /// Global memory is ordered as well.
        global: bool,
    },
    /// Threads of a subgroup meet; shared memory written before is seen after by the subgroup.
    SubgroupBarrier,
    /// A sum fragment into shared memory, addressed as in `FragmentLoad`, row-major.
    FragmentStore {
        /// The fragment.
        fragment: Val,
        /// The array.
        array: Shared,
        /// i32 index of element (0, 0).
        index: Val,
        /// Elements between rows.
        stride: u32,
    },
    /// Starts copying consecutive elements (4, 8 or 16 bytes, both ends multiples of as many) from global to shared memory, where they arrive at
    /// any time until the thread waits for them. Only for targets that [copy so](crate::Target::copies_aside).
    Copy {
        /// The array.
        array: Shared,
        /// i32 index, a multiple of the number of elements.
        index: Val,
        /// The address.
        pointer: Val,
        /// Number of elements.
        count: u32,
        /// Zeros arrive if false.
        mask: Option<Val>,
    },
    /// Ends a group of the thread's copies.
    CopyGroup,
    /// Waits until at most so many of the thread's groups, the latest, are on their way. Others see what came after a barrier.
    CopyWait(u32),
    /// Ends the kernel's blame on a false condition: formats without a way to report do nothing.
    Assert(Val, String),
}

impl Kernel {
    /// Type of a value.
    pub fn ty(&self, value: Val) -> Ty {
        self.types[value.0 as usize]
    }
    /// Bytes of shared memory of all arrays, each aligned to 16.
    pub fn shared_bytes(&self) -> u32 {
        self.shared.iter().map(|s| (s.elem.bytes() * s.len).next_multiple_of(16)).sum()
    }
}
