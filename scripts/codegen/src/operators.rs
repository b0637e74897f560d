//! `flagos_ops.h`: one typed C function per operator over `flagos_op_execute`.

use std::collections::BTreeSet;
use std::fmt::Write;

use flagos_catalog::{AttrKind, Attribute, Operand, Operator, key_of, operators};

use crate::comment::block;
use crate::ctype::Names;
use crate::emit;
use crate::framework::prototype;
use crate::source::Function;

const PREFACE: &[&str] = &[
    "One function per operator of the catalogue.",
    "",
    "Tensors are descriptors over the host's buffers. Outputs are the caller's: their type, shape and strides are filled in before",
    "(flagos_op_infer tells them). An optional input may be NULL. Returns NULL on success, else a status the caller releases.",
    "A function enqueues and returns; errors of the work itself come with the stream. Numbers go as double; where an integer beyond 2^53",
    "matters, give flagos_op_run an integer attribute.",
];

const INLINE: &str = "static inline flagos_status_t *";

/// The header's text. `execute` is the generic function, `taken` the names of all functions of flagos.h.
///
/// # Panics
/// When `execute` does not take exactly one `*const Op`.
pub fn header(execute: &Function, taken: &BTreeSet<&str>) -> String {
    let mut out = emit::open("flagos_ops.h", PREFACE, &["\"flagos.h\""]);
    out.push_str(emit::EXTERN_OPEN);
    out.push_str(&common(execute));
    operators().iter().for_each(|o| out.push_str(&function(o, execute, taken)));
    out.push_str(emit::EXTERN_CLOSE);
    out.push_str("\n#endif\n");
    out
}

fn is_op(ty: &str) -> bool {
    ty.replace(' ', "").trim_start_matches("*const").rsplit("::").next() == Some("Op")
}

/// Declarations of what `execute` takes besides the descriptor, and their names.
fn leading(execute: &Function) -> (Vec<String>, Vec<&str>) {
    assert!(
        execute.args.iter().filter(|(_, ty)| is_op(ty)).count() == 1,
        "flagos_op_execute must take one '*const Op'; the typed functions pass its other arguments on"
    );
    let names = Names::contract();
    let others = || execute.args.iter().filter(|(_, ty)| !is_op(ty));
    (others().map(|(n, ty)| names.declare(ty, n, "flagos_op_execute")).collect(), others().map(|(n, _)| n.as_str()).collect())
}

/// The function that fills a descriptor, used by all others.
fn common(execute: &Function) -> String {
    let (mut args, _) = leading(execute);
    args.extend(
        ["uint32_t id", "uint32_t revision", "const flagos_tensor_t *inputs", "uint32_t n_in", "const flagos_tensor_t *outputs", "uint32_t n_out",
            "const flagos_attr_t *attrs", "uint32_t n_attr"]
        .map(str::to_owned),
    );
    let passed: Vec<&str> = execute.args.iter().map(|(n, ty)| if is_op(ty) { "&op" } else { n.as_str() }).collect();
    format!(
        "\n/* Runs an operator given by its parts; attributes sorted by key. */\n{}\n{{\n    flagos_op_t op;\n    memset(&op, 0, sizeof op);\n    \
         op.size = (uint32_t)sizeof op;\n    op.id = id;\n    op.revision = revision;\n    op.n_in = (uint16_t)n_in;\n    \
         op.n_out = (uint16_t)n_out;\n    op.n_attr = n_attr;\n    op.inputs = inputs;\n    op.outputs = outputs;\n    op.attrs = attrs;\n    \
         return flagos_op_execute({});\n}}\n",
        prototype(INLINE, "flagos_op_run", &args),
        passed.join(", ")
    )
}

/// `flagos_softmax`; `flagos_tensor_copy` where flagos.h has a function of the plain name.
fn name_of(o: &Operator, taken: &BTreeSet<&str>) -> String {
    let plain = format!("flagos_{}", o.name);
    if taken.contains(plain.as_str()) { format!("flagos_tensor_{}", o.name) } else { plain }
}

fn function(o: &Operator, execute: &Function, taken: &BTreeSet<&str>) -> String {
    let (mut args, passed) = leading(execute);
    args.extend(o.inputs.iter().flat_map(operand_arguments));
    args.extend(o.attributes.iter().map(attribute_argument));
    args.extend(o.outputs.iter().flat_map(operand_arguments));

    let mut out = format!("\n{}{}\n{{\n", block(&doc(o), 0), prototype(INLINE, &name_of(o, taken), &args));
    let (inputs, n_inputs) = tensors(o, o.inputs, "in_", &mut out);
    let (outputs, n_outputs) = tensors(o, o.outputs, "out_", &mut out);
    let mut attributes: Vec<&Attribute> = o.attributes.iter().collect();
    attributes.sort_by_key(|a| key_of(a.name));
    let attrs = if attributes.is_empty() { "NULL" } else { "attrs_" };
    if !attributes.is_empty() {
        writeln!(out, "    const flagos_attr_t attrs_[{}] = {{", attributes.len()).unwrap();
        attributes.iter().for_each(|a| writeln!(out, "        {},", attribute_value(a)).unwrap());
        out.push_str("    };\n");
    }
    let (upper, lead) = (o.name.to_uppercase(), passed.join(", "));
    let ids = format!("FLAGOS_OP_{upper}, FLAGOS_OP_{upper}_REVISION");
    let operands = format!("{inputs}, {n_inputs}, {outputs}, {n_outputs}");
    writeln!(out, "    return flagos_op_run({lead}, {ids}, {operands}, {attrs}, {});\n}}", attributes.len()).unwrap();
    out
}

/// Declares the array of operands where one is needed; gives the expressions of the array and of its length.
fn tensors(o: &Operator, operands: &[Operand], array: &str, out: &mut String) -> (String, String) {
    match operands {
        [] => ("NULL".into(), "0".into()),
        [many] if many.many => (many.name.into(), format!("n_{}", many.name)),
        fixed => {
            assert!(!fixed.iter().any(|t| t.many), "{}: an operand that takes many tensors must be the only one of a typed function", o.name);
            let one = |t: &Operand| if t.optional { format!("{0} ? *{0} : flagos_tensor_none()", t.name) } else { format!("*{}", t.name) };
            writeln!(out, "    const flagos_tensor_t {array}[{}] = {{{}}};", fixed.len(), list(fixed.iter().map(one))).unwrap();
            (array.into(), fixed.len().to_string())
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn operand_arguments(t: &Operand) -> Vec<String> {
    let pointer = format!("const flagos_tensor_t *{}", t.name);
    if t.many { vec![pointer, format!("uint32_t n_{}", t.name)] } else { vec![pointer] }
}

fn attribute_argument(a: &Attribute) -> String {
    match a.kind {
        AttrKind::Int { .. } | AttrKind::Choice { .. } => format!("int64_t {}", a.name),
        AttrKind::Bool { .. } => format!("int {}", a.name),
        AttrKind::Float { .. } | AttrKind::Number { .. } => format!("double {}", a.name),
        AttrKind::Ints { .. } => format!("const int64_t *{0}, uint32_t n_{0}", a.name),
    }
}

fn attribute_value(a: &Attribute) -> String {
    let key = format!("FLAGOS_ATTR_KEY_{}", a.name.to_uppercase());
    match a.kind {
        AttrKind::Int { .. } | AttrKind::Choice { .. } => format!("flagos_attr_i64({key}, {})", a.name),
        AttrKind::Bool { .. } => format!("flagos_attr_i64({key}, {} != 0)", a.name),
        AttrKind::Float { .. } | AttrKind::Number { .. } => format!("flagos_attr_f64({key}, {})", a.name),
        AttrKind::Ints { .. } => format!("flagos_attr_span({key}, {0}, n_{0})", a.name),
    }
}

fn doc(o: &Operator) -> Vec<String> {
    let mut lines = vec![o.doc.to_owned()];
    if !o.special.is_empty() {
        lines.push(format!("Special values: {}.", o.special));
    }
    for t in o.inputs.iter().chain(o.outputs) {
        lines.push(format!("- {}{}: {}", t.name, if t.optional { " (may be NULL)" } else { "" }, t.doc));
    }
    for a in o.attributes {
        lines.push(format!("- {}: {}{}", a.name, a.doc, range_and_default(&a.kind)));
    }
    lines
}

fn range_and_default(kind: &AttrKind) -> String {
    match kind {
        AttrKind::Int { default, min, max } => {
            let range = match (*min, *max) {
                (i64::MIN, i64::MAX) => String::new(),
                (min, i64::MAX) => format!("; at least {min}"),
                (min, max) => format!("; {min} to {max}"),
            };
            format!("{range}{}", default.map_or(String::new(), |d| format!("; usually {d}")))
        }
        AttrKind::Float { default } | AttrKind::Number { default } => default.map_or(String::new(), |d| format!("; usually {d}")),
        AttrKind::Bool { default } => format!("; 0 or 1, usually {}", u8::from(*default)),
        AttrKind::Choice { names, default } => {
            let all: Vec<String> = names.iter().enumerate().map(|(i, n)| format!("{i} {n}")).collect();
            format!("; {}; usually {default}", all.join(", "))
        }
        AttrKind::Ints { default } => default.map_or(String::new(), |d| format!("; usually {d:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_backend_api::layout::Thread;

    fn execute() -> Function {
        let args = [("stream", "*const Stream"), ("op", "*const Op")];
        let args = args.map(|(n, t)| (n.to_owned(), t.to_owned())).to_vec();
        Function { name: "flagos_op_execute".into(), doc: vec![], thread: Thread::Stream, args }
    }

    #[test]
    fn a_typed_function_passes_everything_on() {
        let text = function(flagos_catalog::find("softmax").unwrap(), &execute(), &BTreeSet::new());
        let prototype: Vec<&str> = text.split("static inline ").nth(1).unwrap().split("\n{").next().unwrap().split_whitespace().collect();
        assert_eq!(
            prototype.join(" "),
            "flagos_status_t *flagos_softmax(flagos_stream_t *stream, const flagos_tensor_t *x, int64_t dim, \
             const flagos_tensor_t *y)"
        );
        assert!(text.contains("return flagos_op_run(stream, FLAGOS_OP_SOFTMAX, FLAGOS_OP_SOFTMAX_REVISION, in_, 1, out_, 1, attrs_, 1);"), "{text}");
    }

    #[test]
    fn a_taken_name_gives_way() {
        assert_eq!(name_of(flagos_catalog::find("copy").unwrap(), &BTreeSet::from(["flagos_copy"])), "flagos_tensor_copy");
    }

    #[test]
    fn attributes_are_passed_in_the_order_of_their_keys() {
        for o in operators() {
            let text = function(o, &execute(), &BTreeSet::new());
            let keys: Vec<u32> = text
                .match_indices("FLAGOS_ATTR_KEY_")
                .map(|(at, m)| text[at + m.len()..].split(',').next().unwrap().to_lowercase())
                .map(|n| key_of(&n).unwrap())
                .collect();
            assert!(keys.is_sorted() && keys.len() == o.attributes.len(), "{}: {keys:?}", o.name);
        }
    }
}
