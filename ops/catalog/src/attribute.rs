//! Attributes: their specification, their registry keys, and reading them from a call.

/// Kind and default of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum AttrKind {
    /// Integer, in a range.
    Int {
        /// Default; `None`: required.
        default: Option<i64>,
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Real number.
    Float {
        /// Default; `None`: required.
        default: Option<f64>,
    },
    /// A number that is applied to integer tensors as an integer and to floating tensors as a float (ATen's Scalar).
    Number {
        /// Default; `None`: required.
        default: Option<f64>,
    },
    /// Truth value.
    Bool {
        /// Default.
        default: bool,
    },
    /// One of named choices, crossing as its index.
    Choice {
        /// The names.
        names: &'static [&'static str],
        /// Default index.
        default: i64,
    },
    /// List of integers.
    Ints {
        /// Default; `None`: required.
        default: Option<&'static [i64]>,
    },
}

/// One attribute of an operator.
#[derive(Debug)]
pub struct Attribute {
    /// Name; its registry key is found in [`KEYS`].
    pub name: &'static str,
    /// Kind and default.
    pub kind: AttrKind,
    /// Meaning, units, range.
    pub doc: &'static str,
}

impl Attribute {
    /// An integer in a range.
    pub const fn int(name: &'static str, default: Option<i64>, min: i64, max: i64, doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Int { default, min, max }, doc }
    }
    /// A real number.
    pub const fn float(name: &'static str, default: Option<f64>, doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Float { default }, doc }
    }
    /// A number in the tensors' own type.
    pub const fn number(name: &'static str, default: Option<f64>, doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Number { default }, doc }
    }
    /// A truth value.
    pub const fn boolean(name: &'static str, default: bool, doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Bool { default }, doc }
    }
    /// A choice, by default the first.
    pub const fn choice(name: &'static str, names: &'static [&'static str], doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Choice { names, default: 0 }, doc }
    }
    /// A list of integers.
    pub const fn ints(name: &'static str, default: Option<&'static [i64]>, doc: &'static str) -> Attribute {
        Attribute { name, kind: AttrKind::Ints { default }, doc }
    }
}

/// Registry of attribute names: the key is the index. Append only, never reorder.
pub const KEYS: &[&str] = &[
    "", "dim", "dims", "keepdim", "alpha", "beta", "value", "min", "max", "approximate", "rounding_mode", "eps", "normalized_shape", "largest",
    "sorted", "descending", "stable", "k", "start", "end", "step", "low", "high", "mean", "std", "stride", "padding", "dilation", "groups",
    "is_causal", "scale", "padding_idx", "correction", "exclusive", "reverse",
];
