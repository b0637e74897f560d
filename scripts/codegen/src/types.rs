//! `flagos_types.h`: the value types both ABIs share.

use flagos_backend_api::layout::{Enum, Opaque, Struct};
use flagos_backend_api::{DType, ENUMS, MAX_RANK, OPAQUES, STRUCTS};

use crate::ctype::Names;
use crate::emit;

/// Structs that frameworks see too, besides the vendor.
const STRUCT_NAMES: &[&str] =
    &["Str", "DType", "Tensor", "Attr", "Op", "Binding", "KernelArg", "MemoryExport", "Support", "PlanLimits", "PlanInfo", "BlasDesc", "FftDesc"];
/// Handles both sides have, each its own.
const OPAQUE_NAMES: &[&str] = &["Device", "Buffer", "Stream", "Event", "Plan", "Kernel"];
/// Enumerations used by them.
const ENUM_NAMES: &[&str] = &[
    "Code", "DTypeCode", "AttrTag", "DeviceKind", "MemoryKind", "MemoryHandle", "ArgKind", "Answer", "BlasRoutine", "BlasOrder", "BlasTrans", "BlasUplo",
    "BlasDiag", "BlasSide", "FftKind", "FftDirection",
];

/// Whether a struct stands in `flagos_types.h`.
pub fn shares_struct(s: &Struct) -> bool {
    STRUCT_NAMES.contains(&s.name)
}

/// Whether an enumeration stands in `flagos_types.h`.
pub fn shares_enum(e: &Enum) -> bool {
    ENUM_NAMES.contains(&e.name)
}

/// Whether a handle stands in `flagos_types.h`.
pub fn shares_opaque(name: &str) -> bool {
    OPAQUE_NAMES.contains(&name)
}

/// The header's text.
pub fn header() -> String {
    let names = Names::contract();
    let mut out = emit::open(
        "flagos_types.h",
        &[
            "Types shared by flagos.h (for frameworks) and flagos_backend.h (for chip vendors).",
            "",
            "Handles named here are opaque and belong to the side whose header is included: a backend's own objects in flagos_backend.h,",
            "the host's in flagos.h.",
        ],
        &["<stddef.h>", "<stdint.h>", "<string.h>"],
    );
    out.push_str(include_str!("text/asserts.h"));
    out.push_str(emit::EXTERN_OPEN);
    out.push_str(&emit::heading("Handles"));
    for o in OPAQUES.iter().filter(|o| shares_opaque(o.name)) {
        out.push_str(&emit::opaque(o));
    }
    let status = STRUCTS.iter().find(|s| s.name == "Status").expect("the contract has a status");
    out.push_str(&emit::opaque(&Opaque { name: status.name, c_name: status.c_name, doc: &["An error; NULL is success."] }));
    out.push_str(&emit::heading("Enumerations"));
    out.push_str("/* Values from 0x8000 on belong to vendors. Tolerate values you do not know. */\n");
    ENUMS.iter().filter(|e| shares_enum(e)).for_each(|e| out.push_str(&emit::enumeration(e)));
    out.push_str(&emit::heading("Structs"));
    out.push_str(&format!("/* Greatest tensor rank. */\n#define FLAGOS_MAX_RANK {MAX_RANK}\n"));
    out.push_str(&format!(
        "/* Flag in `key` of an attribute: a hint, which who does not know it ignores. */\n#define FLAGOS_ATTR_HINT UINT32_C({:#x})\n",
        flagos_backend_api::ATTR_HINT
    ));
    STRUCTS.iter().filter(|s| shares_struct(s)).for_each(|s| out.push_str(&emit::structure(s, &names, false)));
    out.push_str(&emit::heading("Helpers"));
    out.push_str(include_str!("text/helpers.h"));
    out.push_str(&dtypes());
    out.push_str(emit::EXTERN_CLOSE);
    out.push_str("\n#endif\n");
    out
}

/// Constants of the element types.
fn dtypes() -> String {
    let mut rows: Vec<(String, DType)> = DType::ALL.iter().map(|t| (t.name().to_uppercase(), *t)).collect();
    rows.push(("NONE".into(), DType::NONE));
    let mut out = String::from("\n/* Element types as initialisers of static data, and as values. */\n");
    for (name, t) in &rows {
        out.push_str(&format!("#define FLAGOS_{name}_INIT {{{}, {}, {}}}\n", t.code, t.bits, t.lanes));
    }
    for (name, t) in &rows {
        out.push_str(&format!("#define FLAGOS_{name} flagos_dtype({}, {}, {})\n", t.code, t.bits, t.lanes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shared_name_exists() {
        for name in STRUCT_NAMES {
            assert!(STRUCTS.iter().any(|s| s.name == *name), "{name}");
        }
        for name in ENUM_NAMES {
            assert!(ENUMS.iter().any(|e| e.name == *name), "{name}");
        }
        for name in OPAQUE_NAMES {
            assert!(OPAQUES.iter().any(|o| o.name == *name), "{name}");
        }
    }
}
