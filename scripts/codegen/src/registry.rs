//! `flagos_registry.h`: operator ids, attribute keys and choices.

use std::collections::BTreeMap;

use flagos_catalog::{AttrKind, KEYS, operators};

use crate::emit;

/// The header's text.
///
/// # Panics
/// When two operators give one choice of an attribute different values.
pub fn header() -> String {
    let mut out = emit::open(
        "flagos_registry.h",
        &[
            "Registry: ids of operators, keys of attributes, values of choices.",
            "",
            "Append only. An id is never reused; an operator's revision rises when its meaning changes.",
        ],
        &["<stdint.h>"],
    );
    out.push_str(&emit::heading("Operators, by family"));
    let mut family = "";
    for o in operators() {
        if o.family != family {
            family = o.family;
            out.push_str(&format!("\n/* {family} */\n"));
        }
        let name = o.name.to_uppercase();
        let rows = [
            (format!("FLAGOS_OP_{name}"), format!("UINT32_C({})", o.id), [o.doc]),
            (format!("FLAGOS_OP_{name}_REVISION"), format!("UINT32_C({})", o.revision), [""]),
        ];
        for (n, v, d) in &rows {
            out.push_str(&emit::constants([(n.as_str(), v.as_str(), d.as_slice())].into_iter()));
        }
    }
    out.push_str(&emit::heading("Attribute keys"));
    for (key, name) in KEYS.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
        out.push_str(&format!("#define FLAGOS_ATTR_KEY_{} UINT32_C({key})\n", name.to_uppercase()));
    }
    out.push_str(&emit::heading("Choices of attributes"));
    for (name, value) in choices() {
        out.push_str(&format!("#define {name} {value}\n"));
    }
    out.push_str("\n#endif\n");
    out
}

fn choices() -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for o in operators() {
        for a in o.attributes {
            let AttrKind::Choice { names, .. } = &a.kind else { continue };
            for (value, choice) in names.iter().enumerate() {
                let name = format!("FLAGOS_{}_{}", a.name.to_uppercase(), choice.to_uppercase());
                let before = out.insert(name, value);
                let agrees = before.is_none_or(|b| b == value);
                assert!(agrees, "choice '{choice}' of '{}' has two values: give {}'s attribute another name", a.name, o.name);
            }
        }
    }
    out
}
