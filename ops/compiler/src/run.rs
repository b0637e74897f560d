//! Arguments of interpreted kernels.

/// What a parameter of an entry point gets when an interpreter runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A buffer, passed as a pointer to its first byte; holds what the kernel wrote afterwards.
    Buffer(Vec<u8>),
    /// The null pointer.
    Null,
    /// The bits of a scalar, zero-extended.
    Scalar(u64),
}
