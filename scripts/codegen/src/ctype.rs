//! Rust type text to C declarations.

use std::collections::BTreeMap;

use flagos_backend_api::{OPAQUES, STRUCTS};
use syn::{Expr, Lit, Type};

/// DLPack's tensor, by the name it has in Rust and in `dlpack.h`, which is the caller's to include.
pub const DLPACK: (&str, &str) = ("DlManaged", "struct DLManagedTensorVersioned");

/// C names of Rust types.
pub struct Names {
    map: BTreeMap<String, String>,
    /// Rust names of handles: they are never `const` in C, for nobody but their maker sees inside.
    handles: Vec<String>,
}

impl Names {
    /// The contract's types.
    pub fn contract() -> Names {
        let mut names = Names { map: BTreeMap::new(), handles: Vec::new() };
        for (rust, c) in [
            ("u8", "uint8_t"), ("u16", "uint16_t"), ("u32", "uint32_t"), ("u64", "uint64_t"), ("i8", "int8_t"), ("i16", "int16_t"),
            ("i32", "int32_t"), ("i64", "int64_t"), ("f32", "float"), ("f64", "double"), ("c_void", "void"), ("c_char", "char"),
            ("LayoutHash", "flagos_layout_hash_t"), DLPACK,
        ] {
            names.map.insert(rust.into(), c.into());
        }
        names.map.extend(STRUCTS.iter().map(|s| (s.name.to_owned(), s.c_name.to_owned())));
        for o in OPAQUES {
            names.handle(o.name, o.c_name);
        }
        names
    }

    /// Adds or replaces a handle type.
    pub fn handle(&mut self, rust: &str, c: &str) {
        self.map.insert(rust.into(), c.into());
        self.handles.push(rust.into());
    }

    /// The C type of a Rust name.
    fn of(&self, rust: &str) -> Option<&str> {
        self.map.get(rust).map(String::as_str)
    }

    /// A C declaration of `declarator`, a name or a function pointer's `(*name)(…)`, with a Rust type text.
    ///
    /// # Panics
    /// When the type has no C form; the message names it and `place`.
    pub fn declare(&self, ty: &str, declarator: &str, place: &str) -> String {
        let parsed: Type = syn::parse_str(ty).unwrap_or_else(|e| panic!("{place}: type '{ty}' cannot be parsed: {e}"));
        self.declare_type(&parsed, declarator).unwrap_or_else(|why| panic!("{place}: type '{ty}' has no C form: {why}"))
    }

    fn declare_type(&self, ty: &Type, declarator: &str) -> Result<String, String> {
        match ty {
            Type::Path(p) => {
                let rust = last(p)?;
                let c = self.of(&rust).ok_or_else(|| format!("'{rust}' is unknown: describe it with abi_struct!, or name it in objects!"))?;
                Ok(join(c, declarator))
            }
            Type::Array(a) => {
                let Expr::Lit(l) = &a.len else { return Err("an array's length must be a number".into()) };
                let Lit::Int(n) = &l.lit else { return Err("an array's length must be a number".into()) };
                self.declare_type(&a.elem, &format!("{declarator}[{}]", n.base10_digits()))
            }
            Type::Ptr(p) => {
                let pointer = format!("*{declarator}");
                match &*p.elem {
                    Type::Ptr(inner) if p.const_token.is_some() => self.declare_type(&Type::Ptr(inner.clone()), &format!("const {pointer}")),
                    Type::Path(target) if p.const_token.is_some() => {
                        let rust = last(target)?;
                        // Text is `char` in C.
                        let c = if rust == "u8" { "char".to_owned() } else { self.declare_type(&p.elem, "")? };
                        let constness = if self.handles.contains(&rust) { "" } else { "const " };
                        Ok(format!("{constness}{}", join(&c, &pointer)))
                    }
                    _ => self.declare_type(&p.elem, &pointer),
                }
            }
            _ => Err("use numbers, structs, arrays and raw pointers".into()),
        }
    }
}

fn last(path: &syn::TypePath) -> Result<String, String> {
    path.path.segments.last().map(|s| s.ident.to_string()).ok_or_else(|| "an empty path".into())
}

fn join(base: &str, declarator: &str) -> String {
    if declarator.is_empty() { base.to_owned() } else { format!("{base} {declarator}") }
}

/// A name C++ accepts too: `export` becomes `export_`.
pub fn identifier(name: &str) -> String {
    const KEYWORDS: &[&str] =
        &["and", "class", "default", "delete", "export", "new", "not", "operator", "or", "private", "template", "this", "union", "xor"];
    if KEYWORDS.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

/// `FLAGOS_` constant stem of a C type: `flagos_device_table_t` gives `DEVICE_TABLE`.
pub fn stem(c_name: &str) -> String {
    tag(c_name).trim_start_matches("flagos_").to_uppercase()
}

/// Struct tag of a C type: its name without `_t`.
pub fn tag(c_name: &str) -> &str {
    c_name.strip_suffix("_t").unwrap_or(c_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations() {
        let names = Names::contract();
        for (rust, c) in [
            ("u32", "uint32_t x"),
            ("[i64; 8]", "int64_t x[8]"),
            ("*mut *mut Buffer", "flagos_buffer_t **x"),
            ("*const Buffer", "flagos_buffer_t *x"),
            ("*const Tensor", "const flagos_tensor_t *x"),
            ("*const *const Tensor", "const flagos_tensor_t *const *x"),
            ("*const *mut Buffer", "flagos_buffer_t *const *x"),
            ("*const core::ffi::c_void", "const void *x"),
            ("*const u8", "const char *x"),
            ("*mut DlManaged", "struct DLManagedTensorVersioned *x"),
        ] {
            assert_eq!(names.declare(rust, "x", "test"), c, "{rust}");
        }
    }

    #[test]
    #[should_panic(expected = "'Mystery' is unknown")]
    fn unknown_types_are_named() {
        Names::contract().declare("*mut Mystery", "x", "test");
    }
}
