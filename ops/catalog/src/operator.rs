//! What a definition holds.

use flagos_backend_api::{DType, Result};

use crate::shape::Inferred;
use crate::{Array, Attribute, Call, Cases};

/// A set of element types, as bits over the index in [`DType::ALL`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DTypes(pub u32);

/// Rule for an operand's element type.
#[derive(Clone, Copy)]
pub enum TypeRule {
    /// All operands with this letter have one type, of the set.
    Same(char, DTypes),
    /// As `Same`, or bool whatever the others have.
    SameOrBool(char, DTypes),
    /// Any type of the set, on its own.
    Any(DTypes),
    /// Inputs of different types of the set are promoted together (PyTorch's lattice; all operands are tensors).
    Promote(DTypes),
    /// Output: the promoted type of the `Promote` inputs.
    Promoted,
    /// Output: as `Promoted`, but integers and bool become f32.
    PromotedFloat,
}

/// One tensor operand.
pub struct Operand {
    /// Name in C, Python and error messages.
    pub name: &'static str,
    /// Element type rule.
    pub types: TypeRule,
    /// May be absent.
    pub optional: bool,
    /// Takes one or more tensors (only as the last input).
    pub many: bool,
    /// What it is, with its shape in letters.
    pub doc: &'static str,
}

/// How near an implementation must come to the reference.
#[derive(Clone, Copy, Debug)]
pub enum Numerics {
    /// Equal bits (any NaN equals any NaN).
    Exact,
    /// Units in the last place of the output type, by type.
    Ulp(&'static [(DType, f64)]),
    /// |y - r| ≤ γ_k · scale + u·|r| with the scale and term count the reference states for each element (Higham, ch. 3).
    ForwardError,
    /// ‖y - r‖₂ ≤ c · u · log2(n) · ‖r‖₂.
    Norm(f64),
}

/// What the reference says of one output.
pub struct Reference {
    /// The value, in the widest type of its class, not rounded to the output type.
    pub value: Array,
    /// `ForwardError`: per element Σ|aᵢ·bᵢ| (or its like), in output order.
    pub scale: Vec<f64>,
    /// `ForwardError`: number of accumulated terms.
    pub terms: usize,
    /// Overrides the operator's numerics for this output (indices of a sort are exact although the values' rule is another).
    pub numerics: Option<Numerics>,
}

impl Reference {
    /// A value judged by the operator's numerics.
    pub fn new(value: Array) -> Reference {
        Reference { value, scale: Vec::new(), terms: 0, numerics: None }
    }
    /// A value with its forward-error scale.
    pub fn scaled(value: Array, scale: Vec<f64>, terms: usize) -> Reference {
        Reference { value, scale, terms, numerics: None }
    }
    /// A value that must be met exactly.
    pub fn exact(value: Array) -> Reference {
        Reference { numerics: Some(Numerics::Exact), ..Reference::new(value) }
    }
}

impl Operand {
    /// A required operand.
    pub const fn new(name: &'static str, types: TypeRule, doc: &'static str) -> Operand {
        Operand { name, types, optional: false, many: false, doc }
    }
    /// An operand that may be absent.
    pub const fn optional(name: &'static str, types: TypeRule, doc: &'static str) -> Operand {
        Operand { optional: true, ..Operand::new(name, types, doc) }
    }
    /// One or more tensors, last in the list.
    pub const fn many(name: &'static str, types: TypeRule, doc: &'static str) -> Operand {
        Operand { many: true, ..Operand::new(name, types, doc) }
    }
}

impl core::fmt::Debug for Operator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Operator({} {} r{})", self.id, self.name, self.revision)
    }
}

/// The definition of an operator: the single source from which everything else follows.
pub struct Operator {
    /// ATen name where one exists.
    pub name: &'static str,
    /// Registry id, never reused.
    pub id: u32,
    /// Raised when the meaning changes.
    pub revision: u32,
    /// File stem of the family ("activation", "reduction", …).
    pub family: &'static str,
    /// ATen overloads it covers.
    pub aten: &'static [&'static str],
    /// ONNX operator; empty for none.
    pub onnx: &'static str,
    /// Inputs in order.
    pub inputs: &'static [Operand],
    /// Outputs in order.
    pub outputs: &'static [Operand],
    /// Attributes in the order of the typed C function.
    pub attributes: &'static [Attribute],
    /// Output types and shapes from inputs and attributes, before anything is allocated. `None` for a dtype the caller chooses.
    pub infer: fn(&Call) -> Result<Inferred>,
    /// Checks beyond types and shapes (ranges of axes, …).
    pub check: fn(&Call) -> Result<()>,
    /// Whether output 0 may be input 0 with the same layout.
    pub in_place: bool,
    /// Tolerance.
    pub numerics: Numerics,
    /// Behaviour at NaN, infinities, signed zeros, overflow, empty tensors.
    pub special: &'static str,
    /// Generates the cases of the suite.
    pub cases: fn(&mut Cases),
    /// Computes in f64, i128 or complex f64; inputs are exact.
    pub reference: fn(&Call, &[Array]) -> Result<Vec<Reference>>,
    /// Arithmetic operations of a call, for the roofline.
    pub flops: fn(&Call) -> f64,
    /// One paragraph with the formula.
    pub doc: &'static str,
}
