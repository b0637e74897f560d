//! Casts, copies, permutations, concatenation, selection by a condition.

use std::sync::Arc;

use flagos_backend_api::Result;
use flagos_catalog::copy::permutation;
use flagos_catalog::shape::axis;
use flagos_catalog::Call;
use flagos_compiler::Target;
use flagos_compiler::build::Expr;

use crate::elementwise::Elementwise;
use crate::number::{convert, memory, supported};
use crate::pointwise::entry;
use crate::{Cook, Recipe, Step, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("cast", cast), ("copy", cast), ("permute_copy", permute), ("cat", cat), ("where", choose)]
}

/// y = x converted to y's type.
fn move_to(name: &'static str, x: View, y: View) -> Elementwise {
    let (from, to) = (x.dtype, y.dtype);
    // Bits that are only moved need no type but their width: kernels of f32, i32 and u32 are one.
    let key = if from == to { format!("move {}", memory(from).as_int()) } else { format!("{from} {to}") };
    let (x, y) = if from == to { (bits(x), bits(y)) } else { (x, y) };
    Elementwise { entry: entry(name), key, inputs: vec![x], output: y, body: Arc::new(move |x: &[Expr]| convert(x[0], from, to)), indirect: None }
}

/// The view with integers of the same width.
fn bits(v: View) -> View {
    use flagos_backend_api::DType;
    let dtype = match v.dtype.bytes() {
        1 => DType::I8,
        2 => DType::I16,
        4 => DType::I32,
        _ => DType::I64,
    };
    View { dtype, ..v }
}

/// The step that copies a view into another of its shape or one it broadcasts to, converting between their types; none without elements.
pub fn copy_step(name: &'static str, x: View, y: View, target: &Target) -> Option<Step> {
    move_to(name, x, y).step(target)
}

fn cast(call: &Call, target: &Target) -> Result<Recipe> {
    move_to(call.operator.name, View::input(call, 0), View::output(call, 0)).recipe(target)
}

fn permute(call: &Call, target: &Target) -> Result<Recipe> {
    let x = View::input(call, 0);
    let axes: Vec<(i64, i64)> = permutation(call)?.into_iter().map(|d| (x.shape[d], x.stride[d])).collect();
    move_to(call.operator.name, x.with_axes(&axes), View::output(call, 0)).recipe(target)
}

fn cat(call: &Call, target: &Target) -> Result<Recipe> {
    let y = View::output(call, 0);
    supported([y.dtype], target)?;
    let dim = axis(call, call.attrs.int("dim"), y.shape.len())?;
    let (mut steps, mut at) = (Vec::new(), 0);
    for i in 0..call.inputs.len() {
        let x = View::input(call, i);
        let mut part = y.offset(at * y.stride[dim]);
        part.shape[dim] = x.shape[dim];
        at += x.shape[dim];
        steps.extend(copy_step(call.operator.name, x, part, target));
    }
    Ok(Recipe { steps, workspace_bytes: 0, deterministic: true })
}

fn choose(call: &Call, target: &Target) -> Result<Recipe> {
    let (a, b, y) = (call.inputs[1].dtype, call.inputs[2].dtype, call.outputs[0].dtype);
    let body = move |x: &[Expr]| x[0].differs(0i64).select(convert(x[1], a, y), convert(x[2], b, y));
    let inputs = (0..3).map(|i| View::input(call, i)).collect();
    let key = format!("{a} {b} {y}");
    Elementwise { entry: entry(call.operator.name), key, inputs, output: View::output(call, 0), body: Arc::new(body), indirect: None }.recipe(target)
}
