//! Tensors made from numbers alone.

use std::sync::Arc;

use flagos_backend_api::Result;
use flagos_catalog::Call;
use flagos_compiler::build::{Expr, float_constant, int_constant};
use flagos_compiler::{Elem, Target};

use crate::elementwise::Elementwise;
use crate::launch::{Code, block, ceil_div};
use crate::number::{compute, memory, narrow, supported};
use crate::pointwise::entry;
use crate::space::{Space, Walk, index, integer};
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("arange", arange), ("fill", fill)]
}

fn fill(call: &Call, target: &Target) -> Result<Recipe> {
    let (t, (float, int)) = (call.outputs[0].dtype, call.attrs.number_at(0));
    let elem = memory(t);
    let body = move |_: &[Expr]| match elem.is_float() {
        true => float_constant(elem, float),
        false if t.is_bool() => int_constant(elem, i64::from(float != 0.0)),
        false => int_constant(elem, wrap(elem, int)),
    };
    let key = format!("{t} {:x} {int}", float.to_bits());
    Elementwise { entry: entry(call.operator.name), key, inputs: vec![], output: View::output(call, 0), body: Arc::new(body), indirect: None }.recipe(target)
}

/// An integer wrapped to a width.
fn wrap(elem: Elem, value: i64) -> i64 {
    let unused = 64 - elem.bits();
    value << unused >> unused
}

struct Args {
    y: Expr,
    walk: Walk,
    n: Expr,
    start: Expr,
    step: Expr,
}

fn arange(call: &Call, target: &Target) -> Result<Recipe> {
    let y = View::output(call, 0);
    supported([y.dtype], target)?;
    let (t, space, n) = (y.dtype, Space::of(&y.shape, &[&y]), y.elems());
    if n == 0 {
        return Ok(Recipe { deterministic: true, ..Recipe::default() });
    }
    let (wide, size) = (space.wide(), block(target, memory(t).bytes()));
    let form = space.form(wide);
    // Integers are computed as the catalogue does, in 64 bits, and wrapped.
    let elem = if t.is_float() { compute(t) } else { Elem::I64 };
    let number = |(float, int): (f64, i64)| match elem {
        Elem::F32 => Arg::Scalar { bits: (float as f32).to_bits().into(), bytes: 4 },
        Elem::F64 => Arg::Scalar { bits: float.to_bits(), bytes: 8 },
        _ => Arg::Scalar { bits: int as u64, bytes: 8 },
    };
    let mut args = vec![y.arg];
    space.args(wide, &mut args);
    args.extend([integer(n, wide), number(call.attrs.number_at(0)), number(call.attrs.number_at(2))]);
    let key = format!("{t} {form} {size}");
    let step = Code { entry: entry(call.operator.name), key, blocks: ceil_div(n, size.into()), args, aligned: true }.step(
        target,
        move |c| Args { y: c.pointer(memory(t)), walk: form.declare(c.k), n: c.k.scalar(index(wide)), start: c.k.scalar(elem), step: c.k.scalar(elem) },
        move |k, a, at| {
            let i = at.to(index(wide)) * i64::from(size) + k.arange(size);
            let value = a.start + i.to(elem) * a.step;
            (a.y + a.walk.offsets(i)[0]).store_masked(narrow(value, t), i.lt(a.n));
        },
    );
    Ok(Recipe { steps: vec![step], workspace_bytes: 0, deterministic: true })
}
