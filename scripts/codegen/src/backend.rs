//! `flagos_backend.h`: the vendor's side of the contract.

use std::path::Path;

use flagos_backend_api::{ABI_MAJOR, ABI_MINOR, ENTRY_SYMBOL, ENUMS, LAYOUT_HASHES, OPAQUES, STRUCTS};

use crate::comment::block;
use crate::ctype::Names;
use crate::source::{bits, chapter};
use crate::types::{shares_enum, shares_opaque, shares_struct};
use crate::emit;

const PREFACE: &[&str] = &[
    "The libflagos backend contract: what crosses between the host and a chip vendor's shared object.",
    "",
    "A backend exports one symbol, flagos_backend_query_v1, and needs none of libflagos: what the host offers comes through",
    "flagos_host_v1_t. See backends/example-c for a complete backend.",
    "",
    "Phases: the entry is pure (no device, thread or environment is touched, it may be called many times); `probe` may touch the driver;",
    "`open` opens a device. The first word of every handle a backend gives out points to its flagos_backend_v1_t.",
];
const TAGS: &[&str] = &[
    "Tags beside each slot.",
    "",
    "Threads:",
    "- [FREE]: any thread at any time.",
    "- [STREAM]: one thread at a time per stream, or per object given first.",
    "- [INIT]: the host serialises these calls per backend.",
    "- [CALLBACK]: called by the backend into the host, from any thread.",
    "",
    "Ownership; what is not named here (descriptors, text, arrays) is borrowed for the call:",
    "- takes x: ends the life of x.",
    "- gives x: the caller owns it and hands it to the slot that takes it.",
    "- lends x: stays the callee's, valid as long as the text says.",
    "- writes x: the callee fills the caller's memory.",
    "- gives status: NULL is success; otherwise the caller reads the status and calls its `release` once.",
];

/// The header's text.
pub fn header(root: &Path) -> String {
    let names = Names::contract();
    let api = root.join("backend-api/src");
    let mut out = emit::open("flagos_backend.h", PREFACE, &["\"flagos_types.h\"", "\"flagos_registry.h\""]);
    let mut rules = vec!["Evolution rules.".to_owned(), String::new()];
    rules.extend(chapter(&api.join("lib.rs"), "Evolution rules"));
    out.push_str(&format!("\n{}\n{}", block(&rules, 0), block(TAGS, 0)));
    out.push_str(emit::EXTERN_OPEN);
    out.push_str(&emit::heading("Version"));
    let hash = LAYOUT_HASHES[ABI_MINOR as usize];
    out.push_str(&format!(
        "#define FLAGOS_ABI_MAJOR {ABI_MAJOR}\n#define FLAGOS_ABI_MINOR {ABI_MINOR}\n\
         /* Digest of every struct of this header, stated in `layout_hash`: a host refuses a backend built against another layout. */\n\
         #define FLAGOS_LAYOUT_HASH_LO UINT64_C({:#018x})\n#define FLAGOS_LAYOUT_HASH_HI UINT64_C({:#018x})\n\
         #define FLAGOS_LAYOUT_HASH_INIT {{FLAGOS_LAYOUT_HASH_LO, FLAGOS_LAYOUT_HASH_HI}}\n\
         \n/* 128-bit layout digest. */\ntypedef struct flagos_layout_hash {{\n    uint64_t lo;\n    uint64_t hi;\n}} flagos_layout_hash_t;\n\
         FLAGOS_ASSERT_SIZE(flagos_layout_hash_t, 16);\n",
        hash.lo, hash.hi
    ));
    out.push_str(&emit::heading("Handles"));
    OPAQUES.iter().filter(|o| !shares_opaque(o.name)).for_each(|o| out.push_str(&emit::opaque(o)));
    out.push_str(&emit::heading("Enumerations"));
    ENUMS.iter().filter(|e| !shares_enum(e)).for_each(|e| out.push_str(&emit::enumeration(e)));
    for (file, module, prefix, doc) in [
        ("backend.rs", "domains", "FLAGOS_DOMAIN_", "Bits of `domains` of a backend: tables that are present."),
        ("device.rs", "caps", "FLAGOS_CAP_", "Bits of `caps` of a device."),
        ("op.rs", "properties", "FLAGOS_PROPERTY_", "Bits of `properties` of an answer or a plan."),
    ] {
        out.push_str(&emit::bit_constants(prefix, &[doc], &bits(&api.join(file), module)));
    }
    out.push_str(&emit::heading("Structs and tables"));
    out.push_str(
        "/* FLAGOS_x_HEAD initialises `size` and `kind`: `flagos_device_table_t t = {FLAGOS_DEVICE_TABLE_HEAD, .open = my_open, ...};` */\n",
    );
    STRUCTS.iter().filter(|s| !shares_struct(s)).for_each(|s| out.push_str(&emit::structure(s, &names, s.name == "Status")));
    out.push_str(&emit::heading("Entry"));
    let entry = include_str!("text/entry.h").replace("ENTRY_SYMBOL", ENTRY_SYMBOL);
    out.push_str(&entry);
    out.push_str(emit::EXTERN_CLOSE);
    out.push_str("\n#endif\n");
    out
}
