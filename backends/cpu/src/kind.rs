//! Element types as an enumeration, for `match`.

use flagos_backend_api::DType;

/// The element types of the catalogue's spine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    F16,
    BF16,
    F32,
    F64,
}

impl Kind {
    /// The kind of a type; `None` for others.
    pub fn of(t: DType) -> Option<Kind> {
        use Kind::*;
        let kinds = [
            (DType::BOOL, Bool),
            (DType::I8, I8),
            (DType::I16, I16),
            (DType::I32, I32),
            (DType::I64, I64),
            (DType::U8, U8),
            (DType::F16, F16),
            (DType::BF16, BF16),
            (DType::F32, F32),
            (DType::F64, F64),
        ];
        kinds.into_iter().find(|(d, _)| *d == t).map(|(_, kind)| kind)
    }
}
