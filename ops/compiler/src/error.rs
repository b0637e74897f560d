//! Errors: what is wrong, with which operation, on which line.

use core::fmt;

/// Place in a source text; line 0: none (made by the builder).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Loc {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1; 0: unknown.
    pub column: u32,
}

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text or program is not valid: no compiler would take it.
    Invalid,
    /// Valid, but outside the subset or beyond what the target can do.
    Unsupported,
    /// Too much: shared memory, registers, recursion, size.
    Limit,
}

/// A refusal. Never a panic, never wrong code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Kind.
    pub kind: Kind,
    /// Operation at fault ("tt.dot"); empty when it is the whole program.
    pub operation: String,
    /// Where.
    pub loc: Loc,
    /// What is wrong, with the values, and the way out where there is one.
    pub message: String,
}

/// Result of a step of the compiler.
pub type Result<T, E = CompileError> = core::result::Result<T, E>;

impl CompileError {
    /// Not a valid program.
    pub fn invalid(operation: impl Into<String>, loc: Loc, message: impl Into<String>) -> CompileError {
        CompileError { kind: Kind::Invalid, operation: operation.into(), loc, message: message.into() }
    }
    /// Outside the subset or the target.
    pub fn unsupported(operation: impl Into<String>, loc: Loc, message: impl Into<String>) -> CompileError {
        CompileError { kind: Kind::Unsupported, operation: operation.into(), loc, message: message.into() }
    }
    /// Beyond a limit.
    pub fn limit(operation: impl Into<String>, loc: Loc, message: impl Into<String>) -> CompileError {
        CompileError { kind: Kind::Limit, operation: operation.into(), loc, message: message.into() }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.loc.line > 0 {
            write!(f, "line {}", self.loc.line)?;
            if self.loc.column > 0 {
                write!(f, ", column {}", self.loc.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.operation.is_empty() {
            write!(f, "{}: ", self.operation)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompileError {}
