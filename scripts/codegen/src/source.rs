//! Reads what headers need from Rust sources that are not linked here: exported functions, handles, bit constants, crate rules.

use std::path::Path;

use flagos_backend_api::layout::Thread;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Block, Expr, Ident, Item, Lit, LitInt, LitStr, Meta, Path as RustPath, Token, Type, bracketed, parenthesized};

/// One exported function.
pub struct Function {
    pub name: String,
    pub doc: Vec<String>,
    pub thread: Thread,
    /// (name, Rust type text).
    pub args: Vec<(String, String)>,
}

/// The framework library's border.
pub struct Library {
    /// (title, functions) in header order.
    pub sections: Vec<(String, Vec<Function>)>,
    /// (Rust name, C name).
    pub handles: Vec<(String, String)>,
    /// Flags functions take: `DETERMINISTIC` of `plan.rs` is `PLAN_DETERMINISTIC`.
    pub bits: Vec<Bit>,
}

/// A documented constant.
pub struct Bit {
    pub name: String,
    pub value: u64,
    pub doc: Vec<String>,
}

impl Library {
    /// Reads `host/capi/src`: sections in the order of `FUNCTIONS`, handles from `objects!`.
    pub fn read(root: &Path) -> Library {
        let dir = root.join("host/capi/src");
        let (mut sections, mut flags) = (Vec::new(), Vec::new());
        for (title, module) in section_list(&parse(&dir.join("lib.rs"))) {
            let path = dir.join(format!("{module}.rs"));
            // A module without a file is the Rust compiler's to report, when it builds the library.
            if path.exists() {
                let file = parse(&path);
                sections.push((title, exported(&file, &path)));
                let own = constants(&file.items).into_iter().filter(|b| b.doc.first().is_some_and(|d| d.trim().starts_with("Bit of")));
                flags.extend(own.map(|b| Bit { name: format!("{}_{}", module.to_uppercase(), b.name), ..b }));
            }
        }
        let border = dir.join("border.rs");
        let handles = macro_bodies(&parse(&border), "objects", &border, Objects::parse).into_iter().flat_map(|o| o.0).collect();
        Library { sections, handles, bits: flags }
    }

    /// Every function.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.sections.iter().flat_map(|(_, f)| f)
    }
}

/// Constants of the module `name` of a source file.
pub fn bits(path: &Path, name: &str) -> Vec<Bit> {
    let file = parse(path);
    let module = file.items.iter().find_map(|i| match i {
        Item::Mod(m) if m.ident == name => m.content.as_ref().map(|c| &c.1),
        _ => None,
    });
    let items = module.unwrap_or_else(|| panic!("{}: module '{name}' is missing", path.display()));
    let found = constants(items);
    assert!(!found.is_empty(), "{}: module '{name}' has no documented constants", path.display());
    found
}

/// Documented integer constants among items.
fn constants(items: &[Item]) -> Vec<Bit> {
    let bit = |c: &syn::ItemConst| {
        let doc = docs(&c.attrs);
        let value = value(&c.expr).filter(|_| !doc.is_empty())?;
        Some(Bit { name: c.ident.to_string(), value, doc })
    };
    items
        .iter()
        .filter_map(|i| match i {
            Item::Const(c) => bit(c),
            _ => None,
        })
        .collect()
}

/// Lines of a file's own documentation from the heading `heading` to the next one.
pub fn chapter(path: &Path, heading: &str) -> Vec<String> {
    let lines = docs(&parse(path).attrs);
    let body = lines.iter().skip_while(|l| l.trim() != format!("# {heading}")).skip(1).take_while(|l| !l.trim().starts_with("# "));
    let body: Vec<String> = body.cloned().collect();
    assert!(!body.is_empty(), "{}: the chapter '# {heading}' is missing", path.display());
    body
}

fn parse(path: &Path) -> syn::File {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}:{}: {e}", path.display(), e.span().start().line))
}

/// Documentation lines among attributes.
fn docs(attrs: &[Attribute]) -> Vec<String> {
    attrs
        .iter()
        .filter_map(|a| match &a.meta {
            Meta::NameValue(nv) if nv.path.is_ident("doc") => match &nv.value {
                Expr::Lit(l) => match &l.lit {
                    Lit::Str(s) => Some(s.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn value(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Lit(l) => match &l.lit {
            Lit::Int(n) => n.base10_parse().ok(),
            _ => None,
        },
        Expr::Binary(b) if matches!(b.op, syn::BinOp::Shl(_)) => 1u64.checked_shl(value(&b.right)? as u32).filter(|_| value(&b.left) == Some(1)),
        _ => None,
    }
}

/// The (title, module) pairs of `FUNCTIONS`.
fn section_list(lib: &syn::File) -> Vec<(String, String)> {
    let list = lib.items.iter().find_map(|i| match i {
        Item::Const(c) if c.ident == "FUNCTIONS" => match &*c.expr {
            Expr::Reference(r) => match &*r.expr {
                Expr::Array(a) => Some(a),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let list = list.unwrap_or_else(|| panic!("host/capi/src/lib.rs: FUNCTIONS must be a reference to a list of (title, module::FUNCTIONS)"));
    list.elems
        .iter()
        .map(|e| {
            let pair = match e {
                Expr::Tuple(t) if t.elems.len() == 2 => match (&t.elems[0], &t.elems[1]) {
                    (Expr::Lit(l), Expr::Path(p)) => match &l.lit {
                        Lit::Str(s) => Some((s.value(), p.path.segments[0].ident.to_string())),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            };
            pair.unwrap_or_else(|| panic!("host/capi/src/lib.rs: an entry of FUNCTIONS is not (title, module::FUNCTIONS)"))
        })
        .collect()
}

/// Parsed bodies of every invocation of macro `name` in a file.
fn macro_bodies<T>(file: &syn::File, name: &str, path: &Path, parser: fn(ParseStream) -> syn::Result<T>) -> Vec<T> {
    let body = |m: &syn::Macro| {
        m.parse_body_with(parser).unwrap_or_else(|e| panic!("{}:{}: in {name}!: {e}", path.display(), e.span().start().line))
    };
    let mut found = Vec::new();
    for item in &file.items {
        if let Item::Macro(m) = item
            && m.ident.is_none()
            && m.mac.path.is_ident(name)
        {
            found.push(body(&m.mac));
        }
    }
    found
}

fn exported(file: &syn::File, path: &Path) -> Vec<Function> {
    macro_bodies(file, "export", path, Functions::parse).into_iter().flat_map(|f| f.0).collect()
}

struct Functions(Vec<Function>);

impl Parse for Functions {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut list = Vec::new();
        while !input.is_empty() {
            let doc = docs(&input.call(Attribute::parse_outer)?);
            let tag;
            bracketed!(tag in input);
            let thread: Ident = tag.parse()?;
            let thread = match thread.to_string().as_str() {
                "Free" => Thread::Free,
                "Stream" => Thread::Stream,
                "Init" => Thread::Init,
                "Callback" => Thread::Callback,
                other => return Err(syn::Error::new(thread.span(), format!("'{other}' is no thread tag"))),
            };
            input.parse::<Token![fn]>()?;
            let name: Ident = input.parse()?;
            let inner;
            parenthesized!(inner in input);
            let args = inner.parse_terminated(Argument::parse, Token![,])?;
            input.parse::<Block>()?;
            list.push(Function { name: name.to_string(), doc, thread, args: args.into_iter().map(|a| (a.name, a.ty)).collect() });
        }
        Ok(Functions(list))
    }
}

struct Argument {
    name: String,
    ty: String,
}

impl Parse for Argument {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        input.parse::<Token![:]>()?;
        let ty = text(&input.parse()?).map_err(|why| syn::Error::new(name.span(), why))?;
        Ok(Argument { name: name.to_string(), ty })
    }
}

/// Canonical text of a type made of paths, pointers and arrays.
fn text(ty: &Type) -> Result<String, String> {
    match ty {
        Type::Path(p) => Ok(p.path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>().join("::")),
        Type::Ptr(p) => Ok(format!("*{} {}", if p.const_token.is_some() { "const" } else { "mut" }, text(&p.elem)?)),
        _ => Err("exported functions take numbers and raw pointers".into()),
    }
}

struct Objects(Vec<(String, String)>);

impl Parse for Objects {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut list = Vec::new();
        while !input.is_empty() {
            let alias: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            input.parse::<RustPath>()?;
            input.parse::<Token![,]>()?;
            input.parse::<LitInt>()?;
            input.parse::<Token![,]>()?;
            let name: LitStr = input.parse()?;
            input.parse::<Token![;]>()?;
            list.push((alias.to_string(), name.value()));
        }
        Ok(Objects(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_functions_keep_order_text_and_types() {
        let source = "export! {
            /// First line.
            /// Second.
            [Stream] fn flagos_a(x: *const Stream, y: *mut *mut core::ffi::c_char) { if x { return Ok(()) } Ok(()) }
            /// B.
            [Free] fn flagos_b() { Ok(()) }
        }";
        let list = exported(&syn::parse_file(source).unwrap(), Path::new("test.rs"));
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].name.as_str(), list[0].thread), ("flagos_a", Thread::Stream));
        assert_eq!(list[0].doc, [" First line.", " Second."]);
        assert_eq!(list[0].args, [("x".into(), "*const Stream".into()), ("y".into(), "*mut *mut core::ffi::c_char".into())]);
    }

    #[test]
    #[should_panic(expected = "test.rs:2: in export!")]
    fn a_malformed_declaration_is_named_with_its_line() {
        exported(&syn::parse_file("\nexport! { [Free] flagos_a() {} }").unwrap(), Path::new("test.rs"));
    }
}
