//! `flagos.h`: the functions of libflagos for frameworks.

use std::fmt::Write;

use flagos_backend_api::{ENUMS, OPAQUES, STRUCTS};

use crate::comment::block;
use crate::ctype::{DLPACK, Names, identifier, tag};
use crate::source::{Function, Library};
use crate::types::{shares_enum, shares_opaque, shares_struct};
use crate::emit;

const PREFACE: &[&str] = &[
    "libflagos: one interface to any AI chip.",
    "",
    "Every function returns NULL on success, else a status: read it with flagos_status_code and flagos_status_text, and give it back with",
    "flagos_status_release. Handles come from create, open, alloc and retain functions and go back through release functions; all",
    "may be used from any thread. Out parameters are written only on success. Text out parameters are freed with flagos_text_free.",
    "Pointers are borrowed for the call where a function does not say otherwise.",
    "",
    "Threads: [FREE]: any thread at any time. [STREAM]: one thread at a time per stream, or per object given first.",
];

/// Names of the library's functions in C types.
pub fn names(library: &Library) -> Names {
    let mut names = Names::contract();
    library.handles.iter().for_each(|(rust, c)| names.handle(rust, c));
    names
}

/// The header's text.
///
/// # Panics
/// When a function uses a type that neither `flagos_types.h` nor a handle of the library gives; the message names it.
pub fn header(library: &Library) -> String {
    let names = names(library);
    let mut out = emit::open("flagos.h", PREFACE, &["\"flagos_types.h\"", "\"flagos_registry.h\""]);
    out.push_str(emit::EXTERN_OPEN);
    out.push_str(&emit::heading("Handles"));
    for (rust, c_name) in library.handles.iter().filter(|(rust, _)| !shares_opaque(rust)) {
        assert!(!OPAQUES.iter().any(|o| o.c_name == c_name), "{rust}: '{c_name}' is a handle of backends only; share it in codegen's types.rs");
        writeln!(out, "typedef struct {} {c_name};", tag(c_name)).unwrap();
    }
    writeln!(out, "{}; /* of dlpack.h */", DLPACK.1).unwrap();
    if !library.bits.is_empty() {
        out.push_str(&emit::bit_constants("FLAGOS_", &["Flags."], &library.bits));
    }
    for (title, functions) in &library.sections {
        out.push_str(&emit::heading(title));
        functions.iter().for_each(|f| out.push_str(&function(f, &names)));
    }
    out.push_str(emit::EXTERN_CLOSE);
    out.push_str("\n#endif\n");
    out
}

fn function(f: &Function, names: &Names) -> String {
    f.args.iter().for_each(|(_, ty)| check_shared(f, ty));
    let mut doc = f.doc.clone();
    match doc.first_mut() {
        Some(first) => *first = format!("{} {}", emit::thread(f.thread), first.trim()),
        None => panic!("{} has no documentation", f.name),
    }
    format!("\n{}{};\n", block(&doc, 0), prototype("flagos_status_t *", &f.name, &arguments(f, names)))
}

/// C declarations of a function's arguments.
pub fn arguments(f: &Function, names: &Names) -> Vec<String> {
    f.args.iter().map(|(name, ty)| names.declare(ty, &identifier(name), &f.name)).collect()
}

/// A prototype, broken between arguments where it is long.
pub fn prototype(ret: &str, name: &str, args: &[String]) -> String {
    let head = format!("{ret}{name}(");
    let args = if args.is_empty() { vec!["void".to_owned()] } else { args.to_vec() };
    let indent = " ".repeat(head.chars().count());
    let mut lines = vec![head];
    for (i, arg) in args.iter().enumerate() {
        let text = format!("{arg}{}", if i + 1 == args.len() { ")" } else { "," });
        let line = lines.last_mut().expect("the head is there");
        if i == 0 {
            line.push_str(&text);
        } else if line.len() + text.len() < crate::comment::WIDTH {
            line.push(' ');
            line.push_str(&text);
        } else {
            lines.push(format!("{indent}{text}"));
        }
    }
    lines.join("\n")
}

/// A contract type in a framework function must be one `flagos_types.h` has.
fn check_shared(f: &Function, ty: &str) {
    let rust = ty.rsplit([' ', ':']).next().unwrap_or(ty);
    let is_struct = STRUCTS.iter().any(|s| s.name == rust && s.name != "Status" && !shares_struct(s));
    let is_enum = ENUMS.iter().any(|e| e.name == rust && !shares_enum(e));
    assert!(!is_struct && !is_enum, "{}: '{rust}' is a type of backends only; share it in codegen's types.rs", f.name);
}
