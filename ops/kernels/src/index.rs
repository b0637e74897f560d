//! Gathering and scattering by index tensors.

use std::sync::Arc;

use flagos_backend_api::{DType, Result, caps};
use flagos_catalog::Call;
use flagos_catalog::shape::axis;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::tile::Rmw;
use flagos_compiler::{Elem, Target};

use crate::copy::copy_step;
use crate::elementwise::{Elementwise, Indirect};
use crate::launch::{Code, block, ceil_div, threads};
use crate::lines::{Cut, LineWalk, Lines};
use crate::number::{accumulator, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{Space, Walk, index, integer};
use crate::{Cook, Recipe, Step, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("gather", gather), ("index_select", index_select), ("embedding", embedding), ("scatter_add", scatter_add)]
}

/// y's element at a place is the element of x (stride 0 along the axis the index stands for) that the index at that place names.
fn through(call: &Call, target: &Target, x: View, index: View, indirect: Indirect) -> Result<Recipe> {
    let (y, t) = (View::output(call, 0), index.dtype);
    supported([y.dtype], target)?;
    // Bits are moved: integers of the same width do.
    let bits = |v: View| View { dtype: [DType::I8, DType::I16, DType::I32, DType::I64][v.dtype.bytes().ilog2() as usize], ..v };
    let (entry, key, body) = (entry(call.operator.name), format!("{t}"), Arc::new(|x: &[Expr]| x[0]));
    Elementwise { entry, key, inputs: vec![index, bits(x)], output: bits(y), body, indirect: Some(indirect) }.recipe(target)
}

fn dim(call: &Call) -> Result<usize> {
    axis(call, call.attrs.int("dim"), call.inputs[0].rank as usize)
}

/// Extent and stride of an axis; a scalar has one element.
fn along(x: &View, dim: usize) -> Indirect {
    Indirect { extent: x.shape.get(dim).copied().unwrap_or(1), stride: x.stride.get(dim).copied().unwrap_or(0) }
}

/// A view of another shape with x's strides, but none along `dim`.
fn without(x: &View, shape: &[i64], dim: usize) -> View {
    let axes: Vec<(i64, i64)> = shape.iter().enumerate().map(|(d, n)| (*n, if d == dim { 0 } else { x.stride[d] })).collect();
    x.with_axes(&axes)
}

fn gather(call: &Call, target: &Target) -> Result<Recipe> {
    let (x, index, dim) = (View::input(call, 0), View::input(call, 1), dim(call)?);
    through(call, target, without(&x, &index.shape, dim), index, along(&x, dim))
}

fn index_select(call: &Call, target: &Target) -> Result<Recipe> {
    let (x, index, dim) = (View::input(call, 0), View::input(call, 1), dim(call)?);
    let shape = call.outputs[0].shape();
    let axes: Vec<(i64, i64)> = shape.iter().enumerate().map(|(d, n)| (*n, if d == dim { index.stride[0] } else { 0 })).collect();
    through(call, target, without(&x, shape, dim), index.with_axes(&axes), along(&x, dim))
}

fn embedding(call: &Call, target: &Target) -> Result<Recipe> {
    let (weight, index) = (View::input(call, 0), View::input(call, 1));
    let words: Vec<(i64, i64)> = index.shape.iter().copied().zip(index.stride.iter().copied()).collect();
    let width = weight.shape[1];
    let rows: Vec<(i64, i64)> = words.iter().map(|(n, _)| (*n, 0)).chain([(width, weight.stride[1])]).collect();
    let indices: Vec<(i64, i64)> = words.into_iter().chain([(width, 0)]).collect();
    through(call, target, weight.with_axes(&rows), index.with_axes(&indices), along(&weight, 0))
}

struct Scatter {
    y: Expr,
    index: Expr,
    src: Expr,
    walk: Walk,
    n: Expr,
    extent: Expr,
    stride: Expr,
}

/// What narrower types are added up in; wider ones in place.
fn sums(t: DType) -> DType {
    match memory(t) {
        Elem::F16 | Elem::BF16 => DType::F32,
        Elem::I8 | Elem::I16 => DType::I32,
        _ => t,
    }
}

fn scatter_add(call: &Call, target: &Target) -> Result<Recipe> {
    let (x, index, src, y) = (View::input(call, 0), View::input(call, 1), View::input(call, 2), View::output(call, 0));
    supported([y.dtype], target)?;
    let (name, dim, t) = (call.operator.name, dim(call)?, y.dtype);
    let mut recipe = Recipe::default();
    let atomic = memory(t).bytes() < 8 || target.has(caps::ATOMIC64);
    recipe.deterministic = !t.is_float() || !atomic;
    if y.elems() == 0 {
        return Ok(recipe);
    }
    let of = if atomic { sums(t) } else { t };
    let total = if of == t { y.clone() } else { View::workspace(0, of, &y.shape) };
    if of != t {
        recipe.workspace_bytes = (y.elems() as u64 * of.bytes() as u64).next_multiple_of(16);
    }
    recipe.steps.extend(copy_step("copy", x, total.clone(), target));
    if index.elems() > 0 {
        let src = View { shape: index.shape.clone(), ..src };
        let step = if atomic { add_atomically(name, &total, &index, &src, dim, target) } else { add_in_order(name, &total, &index, &src, dim, target) };
        recipe.steps.push(step);
    }
    if of != t {
        recipe.steps.extend(copy_step("copy", total, y, target));
    }
    Ok(recipe)
}

fn add_atomically(name: &'static str, y: &View, at: &View, src: &View, dim: usize, target: &Target) -> Step {
    let axis = along(y, dim);
    let to = without(y, &at.shape, dim);
    let space = Space::sorted(&at.shape, &[at, src, &to], 0);
    let wide = space.wide() || axis.extent.saturating_mul(axis.stride.abs()).saturating_add(space.reach()) >= 1 << 30;
    let (n, form, size) = (space.count(), space.form(wide), block(target, 4));
    let (t, from, indices) = (y.dtype, src.dtype, at.dtype);
    let mut args = vec![y.arg, at.arg, src.arg];
    space.args(wide, &mut args);
    args.extend([n, axis.extent, axis.stride].map(|v| integer(v, wide)));
    let key = format!("{t} {from} {indices} {form} {size}");
    Code { entry: entry(name), key, blocks: ceil_div(n, size.into()), args, aligned: true }.step(
        target,
        move |c| {
            let (y, at, src) = (c.pointer(memory(t)), c.pointer(memory(indices)), c.pointer(memory(from)));
            let scalar = || c.k.scalar(index(wide));
            Scatter { y, index: at, src, walk: form.declare(c.k), n: scalar(), extent: scalar(), stride: scalar() }
        },
        move |k, a, block| {
            let i = block.to(index(wide)) * i64::from(size) + k.arange(size);
            let (exist, offsets) = (i.lt(a.n), a.walk.offsets(i));
            let at = (a.index + offsets[0]).load_masked(exist, 0i64);
            let value = widen((a.src + offsets[1]).load_masked(exist, 0i64), from, memory(t));
            let inside = exist & at.ge(0i64) & at.lt(a.extent);
            let rmw = if t.is_float() { Rmw::FAdd } else { Rmw::Add };
            (a.y + (offsets[2] + at.to(index(wide)) * a.stride)).atomic(rmw, value, inside);
        },
    )
}

struct Ordered {
    y: Expr,
    index: Expr,
    src: Expr,
    walk: LineWalk,
    extent: Expr,
    stride: Expr,
}

/// Without atomics of the type's width: a thread per line, which adds the line's elements one after the other.
fn add_in_order(name: &'static str, y: &View, at: &View, src: &View, dim: usize, target: &Target) -> Step {
    let axis = along(y, dim);
    let to = without(y, &at.shape, dim);
    let over: Vec<usize> = if at.shape.is_empty() { vec![] } else { vec![dim] };
    let mut lines = Lines::new(&at.shape, &over, &[at, src, &to], false);
    lines.wide |= axis.extent.saturating_mul(axis.stride.abs()).saturating_add(to.elems()) >= 1 << 30;
    let cut = Cut { lines: threads(target), points: 1, inner: false };
    let (form, wide) = (lines.form(), lines.wide);
    let (t, from, indices) = (y.dtype, src.dtype, at.dtype);
    let mut args = vec![y.arg, at.arg, src.arg];
    lines.args(&mut args);
    args.extend([axis.extent, axis.stride].map(|v| integer(v, wide)));
    let key = format!("{t} {from} {indices} {form} {cut} in order");
    Code { entry: entry(name), key, blocks: ceil_div(lines.kept.count(), cut.lines.into()), args, aligned: false }.step(
        target,
        move |c| {
            let (y, at, src) = (c.pointer(memory(t)), c.pointer(memory(indices)), c.pointer(memory(from)));
            let walk = form.declare(c);
            Ordered { y, index: at, src, walk, extent: c.k.scalar(index(wide)), stride: c.k.scalar(index(wide)) }
        },
        move |k: &Kernel, a, block| {
            let rows = a.walk.rows(k, cut, block);
            k.each(a.walk.int(k, 0), a.walk.length(k), a.walk.int(k, 1), |j| {
                let offsets = a.walk.offsets(a.walk.points(k, cut, j));
                let at = (a.index + (rows.offsets[0] + offsets[0])).load_masked(rows.exist, -1i64);
                let value = (a.src + (rows.offsets[1] + offsets[1])).load_masked(rows.exist, 0i64);
                let inside = at.ge(0i64) & at.lt(a.extent);
                let p = a.y + (rows.offsets[2] + at.to(index(wide)) * a.stride);
                let (old, of) = (widen(p.load_masked(inside, 0i64), t, accumulator(t)), accumulator(t));
                p.store_masked(narrow(old + widen(value, from, of), t), inside);
                k.barrier();
            });
        },
    )
}
