//! Softmax and its logarithm: short lines in registers in one pass, long ones in two.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_catalog::shape::axis;
use flagos_compiler::build::{Expr, Kernel, reduce};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, is_cpu};
use crate::lines::{Cut, LineWalk, Lines};
use crate::number::{compute, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::{Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("softmax", |c, t| cook(c, t, false)), ("log_softmax", |c, t| cook(c, t, true))]
}

struct Args {
    x: Expr,
    y: Expr,
    walk: LineWalk,
}

/// A line that a block keeps in registers has at most this many points.
pub fn most_kept(target: &Target) -> i64 {
    if is_cpu(target) { 4096 } else { 16_384 }
}

/// A cut whose lines fit one tile where that is possible; whether they do.
pub fn cut_of(lines: &Lines, target: &Target, elem: Elem) -> (Cut, bool) {
    let size = block(target, elem.bytes());
    let length = lines.line.count();
    if lines.runs_inside() {
        let fits = length <= most_kept(target);
        let most = if fits { most_kept(target) as u32 } else if is_cpu(target) { 256 } else { 2048 };
        return (lines.cut(target, size, most), fits);
    }
    let cut = lines.cut(target, size * 4, (size * 4 / 32).max(1));
    (cut, length <= cut.points.into())
}

fn cook(call: &Call, target: &Target, log: bool) -> Result<Recipe> {
    let (x, y) = (View::input(call, 0), View::output(call, 0));
    supported([x.dtype], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if x.elems() == 0 {
        return Ok(recipe);
    }
    let dim = axis(call, call.attrs.int("dim"), x.shape.len())?;
    let over: Vec<usize> = if x.shape.is_empty() { vec![] } else { vec![dim] };
    let lines = Lines::new(&x.shape, &over, &[&x, &y], true);
    let (t, elem) = (x.dtype, compute(x.dtype));
    let (cut, fits) = cut_of(&lines, target, elem);
    let whole = lines.line.count() % i64::from(cut.points) == 0 && lines.kept.count() % i64::from(cut.lines) == 0;
    let form = lines.form();
    let key = format!("{t} {form} {cut}{}{}", if fits { " kept" } else { "" }, if whole { " whole" } else { "" });
    let blocks = ceil_div(lines.kept.count(), cut.lines.into());
    let mut args = vec![x.arg, y.arg];
    lines.args(&mut args);
    let code = Code { entry: entry(call.operator.name), key, blocks, args, aligned: true };
    recipe.steps.push(code.sized(target, cut).step(
        move |c| Args { x: c.pointer(memory(t)), y: c.pointer(memory(t)), walk: form.declare(c) },
        move |k, a, at| {
            let rows = a.walk.rows(k, cut, at);
            let length = a.walk.length(k);
            let tile = Tile { k, a, cut, whole, t, elem };
            if fits {
                let (v, points) = tile.read(&rows, length, a.walk.int(k, 0));
                let most = cut.per_line(v.max(cut.axis()));
                let (shifted, total) = (v - most, cut.per_line((v - most).exp().sum(cut.axis())));
                return tile.write(&rows, length, points, finish(shifted, share(k, total, log), log));
            }
            let step = a.walk.int(k, cut.points.into());
            let start = [k.full(&cut.shape(), elem, f64::NEG_INFINITY), k.zeros(&cut.shape(), elem)];
            // Each place of the tile keeps its own greatest and its own sum relative to it.
            let kept = k.fold(a.walk.int(k, 0), length, step, start, |at, sums| {
                let (v, _) = tile.read(&rows, length, at);
                join(sums, [v, k.full(&cut.shape(), elem, 1.0)])
            });
            let [most, total] = reduce(kept, cut.axis(), join).map(|s| cut.per_line(s));
            let share = share(k, total, log);
            k.each(a.walk.int(k, 0), length, step, |at| {
                let (v, points) = tile.read(&rows, length, at);
                tile.write(&rows, length, points, finish(v - most, share, log));
            });
        },
    ));
    Ok(recipe)
}

/// Two (greatest, sum of exponentials relative to it) as one.
fn join([m, s]: [Expr; 2], [n, t]: [Expr; 2]) -> [Expr; 2] {
    let most = m.maximum(n);
    // Nothing but -∞ so far: its terms are 0 whatever they are relative to.
    let base = most.equals(f64::NEG_INFINITY).select(0.0, most);
    [most, s * (m - base).exp() + t * (n - base).exp()]
}

/// What an exponential is multiplied by (divisions cost as much as exponentials), or a logarithm taken less: once per line.
fn share(k: &Kernel, total: Expr, log: bool) -> Expr {
    if log { total.log() } else { k.float(total.elem(), 1.0).splat(&total.shape()) / total }
}

fn finish(shifted: Expr, share: Expr, log: bool) -> Expr {
    if log { shifted - share } else { shifted.exp() * share }
}

struct Tile<'a> {
    k: &'a Kernel,
    a: &'a Args,
    cut: Cut,
    whole: bool,
    t: DType,
    elem: Elem,
}

impl Tile<'_> {
    fn read(&self, rows: &crate::lines::Rows, length: Expr, start: Expr) -> (Expr, Expr) {
        let points = self.a.walk.points(self.k, self.cut, start);
        let p = self.a.x + (rows.offsets[0] + self.a.walk.offsets(points)[0]);
        let raw = if self.whole { p.load() } else { p.load_masked(rows.exist & points.lt(length), f64::NEG_INFINITY) };
        (widen(raw, self.t, self.elem).broadcast(&self.cut.shape()), points)
    }
    fn write(&self, rows: &crate::lines::Rows, length: Expr, points: Expr, value: Expr) {
        let p = self.a.y + (rows.offsets[1] + self.a.walk.offsets(points)[1]);
        let value = narrow(value, self.t);
        if self.whole { p.store(value) } else { p.store_masked(value, rows.exist & points.lt(length)) }
    }
}
