//! `flagos ops`: the catalogue, and one operator's page.

use std::process::ExitCode;

use clap::Subcommand;
use flagos_catalog::{AttrKind, Numerics, Operator, operators, types_of};
use flagos_runtime::{DType, Result};

use crate::output::{Output, plain};
use crate::spec;

/// What to show.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One operator: signature, types, attributes, numerics, formula.
    Show {
        /// Its name, or an ATen overload.
        name: String,
    },
}

/// Lists operators, or shows one.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    match &arguments.command {
        Some(Command::Show { name }) => show(spec::operator(name)?, output)?,
        None => list(output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(output: &Output) -> Result<()> {
    if output.is_json() {
        let all: Vec<_> = operators().iter().map(|o| flagos::describe(o)).collect();
        return output.json(&all);
    }
    let rows: Vec<_> = operators()
        .iter()
        .map(|o| {
            let first = o.inputs.first().or(o.outputs.first()).map(|p| types_of(p.types).to_string()).unwrap_or_default();
            vec![plain(o.id.to_string()), plain(o.name), plain(o.family), plain(signature(o)), plain(first)]
        })
        .collect();
    output.table(&["ID", "OPERATOR", "FAMILY", "SIGNATURE", "TYPES"], &rows);
    output.text(&format!("\n{} operators; `flagos ops show NAME` for one", rows.len()));
    Ok(())
}

fn signature(o: &Operator) -> String {
    let inputs = o.inputs.iter().map(|p| format!("{}{}{}", p.name, if p.many { "…" } else { "" }, if p.optional { "?" } else { "" }));
    let attributes = o.attributes.iter().map(|a| format!("{}=", a.name));
    let outputs: Vec<&str> = o.outputs.iter().map(|p| p.name).collect();
    format!("({}) → {}", inputs.chain(attributes).collect::<Vec<_>>().join(", "), outputs.join(", "))
}

fn show(o: &'static Operator, output: &Output) -> Result<()> {
    if output.is_json() {
        return output.json(&flagos::describe(o));
    }
    let mut text = format!("{}{}  [id {}, revision {}, family {}]\n\n{}\n\nSpecial values: {}\n", o.name, signature(o), o.id, o.revision, o.family, o.doc.trim(), o.special);
    for (title, list) in [("Inputs", o.inputs), ("Outputs", o.outputs)] {
        text += &format!("\n{title}\n");
        for p in list {
            text += &format!("  {:<14} {} — {}\n", p.name, types_of(p.types), p.doc);
        }
    }
    if !o.attributes.is_empty() {
        text += "\nAttributes\n";
        for a in o.attributes {
            text += &format!("  {:<14} {} — {}\n", a.name, values(&a.kind), a.doc);
        }
    }
    text += &format!("\nTolerance: {}\n", tolerance(o.numerics));
    text += &format!("In place: {}\n", if o.in_place { "output 0 may be input 0" } else { "no" });
    text += &format!("Covers ATen: {}\n", o.aten.join(" "));
    if !o.onnx.is_empty() {
        text += &format!("ONNX: {}\n", o.onnx);
    }
    output.text(&text);
    Ok(())
}

/// What an attribute may hold, and what it is when left out.
fn values(kind: &AttrKind) -> String {
    let default = |d: Option<String>| d.map_or_else(|| "required".to_owned(), |d| format!("{d} by default"));
    match kind {
        AttrKind::Int { default: d, min, max } => {
            let range = match (*min, *max) {
                (i64::MIN, i64::MAX) => "integer".to_owned(),
                (min, i64::MAX) => format!("integer from {min}"),
                (min, max) => format!("integer from {min} to {max}"),
            };
            format!("{range}, {}", default(d.map(|d| d.to_string())))
        }
        AttrKind::Float { default: d } | AttrKind::Number { default: d } => format!("number, {}", default(d.map(|d| d.to_string()))),
        AttrKind::Bool { default: d } => format!("true or false, {d} by default"),
        AttrKind::Choice { names, default: d } => format!("{}, {} by default", names.join(" or "), names.get(*d as usize).unwrap_or(&"none")),
        AttrKind::Ints { default: d } => format!("list of integers, {}", default(d.map(|d| format!("{d:?}")))),
    }
}

fn tolerance(n: Numerics) -> String {
    match n {
        Numerics::Exact => "exact".into(),
        Numerics::Ulp(table) => table.iter().map(|(t, u): &(DType, f64)| format!("{t} {u} ULP")).collect::<Vec<_>>().join(", "),
        Numerics::ForwardError => "componentwise forward error γ_k·Σ|terms|, with the terms the reference states".into(),
        Numerics::Norm(c) => format!("‖error‖₂ ≤ {c}·u·log₂n·‖result‖₂"),
    }
}
