//! Reductions along axes, in one stage or, where lines are few and long, in two.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_catalog::reduction::reduced_axes;
use flagos_compiler::build::{Expr, Kernel, reduce};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, is_cpu, is_wide};
use crate::lines::{Cut, LineWalk, Lines};
use crate::number::{accumulator, compute, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{index, integer};
use crate::{Cook, Recipe, Step, View};

/// How elements become one.
#[derive(Clone, Copy)]
struct Fold {
    /// Accumulator of an input type.
    elem: fn(DType) -> Elem,
    /// Neutral element.
    neutral: fn(&Kernel, Elem) -> Expr,
    /// An element widened to the accumulator, as it enters.
    enter: fn(Expr) -> Expr,
    /// Two accumulators.
    combine: fn(Expr, Expr) -> Expr,
    /// Divides by the number of elements.
    mean: bool,
}

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![
        ("sum", |c, t| cook(c, t, SUM)),
        ("mean", |c, t| cook(c, t, Fold { mean: true, ..SUM })),
        ("prod", |c, t| cook(c, t, Fold { neutral: |k, e| k.float(e, 1.0), combine: |a, b| a * b, ..SUM })),
        ("amax", |c, t| cook(c, t, Fold { elem: compute, neutral: least, combine: |a, b| a.maximum(b), ..SUM })),
        ("amin", |c, t| cook(c, t, Fold { elem: compute, neutral: most, combine: |a, b| a.minimum(b), ..SUM })),
        ("any", |c, t| cook(c, t, Fold { elem: truth, enter: is_true, combine: |a, b| a | b, ..SUM })),
        ("all", |c, t| cook(c, t, Fold { elem: truth, neutral: |k, e| k.int(e, 1), enter: is_true, combine: |a, b| a & b, ..SUM })),
        ("argmax", |c, t| cook_arg(c, t, true)),
        ("argmin", |c, t| cook_arg(c, t, false)),
    ]
}

const SUM: Fold = Fold { elem: accumulator, neutral: |k, e| k.int(e, 0), enter: |x| x, combine: |a, b| a + b, mean: false };

fn truth(_: DType) -> Elem {
    Elem::I32
}
fn is_true(x: Expr) -> Expr {
    x.differs(0i64).to(Elem::I32)
}
/// -∞, or the least integer.
pub fn least(k: &Kernel, elem: Elem) -> Expr {
    if elem.is_float() { k.float(elem, f64::NEG_INFINITY) } else { k.int(elem, i64::MIN >> (64 - elem.bits())) }
}
/// ∞, or the greatest integer.
pub fn most(k: &Kernel, elem: Elem) -> Expr {
    if elem.is_float() { k.float(elem, f64::INFINITY) } else { k.int(elem, i64::MAX >> (64 - elem.bits())) }
}

/// The type whose memory holds accumulators.
fn held(elem: Elem) -> DType {
    match elem {
        Elem::F32 => DType::F32,
        Elem::F64 => DType::F64,
        Elem::I32 => DType::I32,
        _ => DType::I64,
    }
}

/// Lines of x along the reduced axes, with the output (broadcast along them).
fn lines_of(call: &Call, free: bool) -> Result<(Lines, View, View)> {
    let (x, over) = (View::input(call, 0), reduced_axes(call)?);
    let mut y = View::output(call, 0);
    let mut kept = y.stride.iter().zip(&y.shape);
    let keepdim = call.attrs.boolean("keepdim");
    let stride: Vec<i64> = (0..x.shape.len())
        .map(|d| match over.contains(&d) {
            false => kept.next().map_or(0, |s| *s.0),
            true => {
                if keepdim {
                    kept.next();
                }
                0
            }
        })
        .collect();
    let axes: Vec<(i64, i64)> = x.shape.iter().copied().zip(stride).collect();
    y = y.with_axes(&axes);
    Ok((Lines::new(&x.shape, &over, &[&x, &y], free), x, y))
}

/// Number of parts lines are cut into so that enough blocks work, and points of each part: whole tiles.
fn parts(lines: &Lines, target: &Target, cut: Cut) -> (i64, i64) {
    let blocks = ceil_div(lines.kept.count(), cut.lines.into());
    let tiles = ceil_div(lines.line.count(), cut.points.into());
    let (wanted, least) = match (is_cpu(target), is_wide(target)) {
        (true, _) => (32, 16),
        (_, true) => (2048, 4),
        _ => (512, 8),
    };
    let parts = (wanted / blocks.max(1)).min(tiles / least).max(1);
    let per = ceil_div(tiles, parts).max(1);
    (ceil_div(tiles, per).max(1), per * i64::from(cut.points))
}

/// Tiles of about `size` elements; on wide chips twice as many, so that each thread has several accesses on their way. At most so many points
/// of a line at a time: on processors what fits the registers.
fn cut_of(lines: &Lines, target: &Target, size: u32) -> Cut {
    match (is_cpu(target), is_wide(target)) {
        (true, _) => lines.cut(target, size, 256),
        (_, true) => lines.cut(target, size * 2, 2048),
        _ => lines.cut(target, size, 1024),
    }
}

struct Args {
    x: Vec<Expr>,
    y: Vec<Expr>,
    walk: LineWalk,
    per: Expr,
    parts: Expr,
    count: Expr,
}

/// Where a stage writes: the call's output, or partial results in the workspace, a row for each part.
#[derive(Clone)]
struct Stage {
    entry: &'static str,
    key: String,
    lines: Lines,
    /// Inputs of one stage, all at the same offsets.
    x: Vec<View>,
    y: Vec<View>,
    parts: (i64, i64),
    cut: Cut,
    /// Number of elements reduced, for means.
    count: i64,
}

impl Stage {
    /// The step of a stage: `tile` makes accumulators of loaded elements and their places in the line, `combine` joins two, `leave` makes
    /// what is stored of them.
    fn step<const N: usize>(
        self,
        target: &Target,
        neutral: impl Fn(&Kernel) -> [Expr; N] + Send + Sync + 'static,
        tile: impl Fn(&[Expr], Expr) -> [Expr; N] + Send + Sync + 'static,
        combine: impl Fn([Expr; N], [Expr; N]) -> [Expr; N] + Send + Sync + 'static,
        leave: impl Fn([Expr; N], Expr) -> Vec<Expr> + Send + Sync + 'static,
    ) -> Step {
        let (wide, lines, cut) = (self.lines.wide, self.lines, self.cut);
        let blocks = ceil_div(lines.kept.count(), cut.lines.into()) * self.parts.0;
        let form = lines.form();
        let (from, to): (Vec<DType>, Vec<DType>) = (self.x.iter().map(|v| v.dtype).collect(), self.y.iter().map(|v| v.dtype).collect());
        // Parts are whole tiles.
        let whole = lines.line.count() > 0 && lines.line.count() % i64::from(cut.points) == 0 && lines.kept.count() % i64::from(cut.lines) == 0;
        let single = lines.line.count() <= i64::from(cut.points) && self.parts.0 == 1;
        let key = format!("{} {from:?} {to:?} {form} {cut}{}{}", self.key, if whole { " whole" } else { "" }, if single { " single" } else { "" });
        let mut args: Vec<crate::Arg> = self.x.iter().chain(&self.y).map(|v| v.arg).collect();
        lines.args(&mut args);
        args.extend([integer(self.parts.1, wide), integer(self.parts.0, wide), crate::Arg::Scalar { bits: self.count as u64, bytes: 8 }]);
        Code { entry: self.entry, key, blocks, args, aligned: true }.step(
            target,
            move |c| {
                let x = from.iter().map(|t| c.pointer(memory(*t))).collect();
                let y = to.iter().map(|t| c.pointer(memory(*t))).collect();
                let (walk, elem) = (form.declare(c), index(wide));
                Args { x, y, walk, per: c.k.scalar(elem), parts: c.k.scalar(elem), count: c.k.i64() }
            },
            move |k, a, at| {
                let at = at.to(index(wide));
                let (part, at) = (at.rem_unsigned(a.parts), at.div_unsigned(a.parts));
                let rows = a.walk.rows(k, cut, at);
                let length = a.walk.length(k);
                let low = part * a.per;
                let high = if single { length } else { (low + a.per).minimum(length) };
                let neutral: [Expr; N] = neutral(k).map(|e| e.splat(&cut.shape()));
                let read = |start: Expr| {
                    let points = a.walk.points(k, cut, start);
                    let offset = rows.offsets[0] + a.walk.offsets(points)[0];
                    let exist = rows.exist & points.lt(high);
                    let load = |x: Expr| if whole { (x + offset).load() } else { (x + offset).load_masked(exist, 0i64) };
                    let x: Vec<Expr> = a.x.iter().map(|x| load(*x)).collect();
                    let new = tile(&x, points.broadcast(&cut.shape()));
                    if whole { new } else { core::array::from_fn(|i| exist.select(new[i], neutral[i])) }
                };
                let sums = if single {
                    read(low)
                } else {
                    k.fold(low, high, a.walk.int(k, cut.points.into()), neutral, |start, sums| combine(sums, read(start)))
                };
                let sums = reduce(sums, cut.axis(), &combine);
                let sums = sums.map(|s| cut.per_line(s));
                // A part's results follow the former part's.
                let offset = rows.offsets[1] + part * a.walk.kept_count(k);
                let values = leave(sums, a.count);
                for (y, value) in a.y.iter().zip(values) {
                    (*y + offset).store_masked(value, rows.exist);
                }
            },
        )
    }
}

fn cook(call: &Call, target: &Target, fold: Fold) -> Result<Recipe> {
    let (lines, x, y) = lines_of(call, true)?;
    supported([x.dtype, y.dtype], target)?;
    if y.dtype == DType::I64 {
        supported([DType::I64], target)?;
    }
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if lines.kept.count() == 0 {
        return Ok(recipe);
    }
    let (name, from, to, elem) = (call.operator.name, x.dtype, y.dtype, (fold.elem)(x.dtype));
    let size = block(target, elem.bytes().min(4));
    let cut = cut_of(&lines, target, size);
    let split = parts(&lines, target, cut);
    let (count, kept) = (lines.line.count(), lines.kept.count());
    let neutral = move |k: &Kernel| [(fold.neutral)(k, elem)];
    let combine = move |[a]: [Expr; 1], [b]: [Expr; 1]| [(fold.combine)(a, b)];
    let enter = move |x: &[Expr], _: Expr| [(fold.enter)(widen(x[0], from, widened(from, elem)))];
    let finish = move |[s]: [Expr; 1], count: Expr| {
        let s = if fold.mean { s / count.to(elem).splat(&s.shape()) } else { s };
        vec![narrow(s, to)]
    };
    let stage = Stage { entry: entry(name), key: String::new(), lines, x: vec![x], y: vec![y.clone()], parts: split, cut, count };
    if split.0 == 1 {
        recipe.steps.push(stage.step(target, neutral, enter, combine, finish));
        return Ok(recipe);
    }
    let partial = View::workspace(0, held(elem), &[split.0, kept]);
    recipe.workspace_bytes = (partial.elems() as u64 * u64::from(elem.bytes())).next_multiple_of(16);
    let first = Stage { key: "parts".into(), lines: with_rows(&stage.lines), y: vec![partial.clone()], ..stage.clone() };
    recipe.steps.push(first.step(target, neutral, enter, combine, |[s], _| vec![s]));
    let last = second(stage, vec![partial], vec![y], target, size);
    recipe.steps.push(last.step(target, neutral, |x, _| [x[0]], combine, finish));
    Ok(recipe)
}

/// What an element is widened to before it enters: its own computing type where the accumulator is a truth value.
fn widened(t: DType, elem: Elem) -> Elem {
    if elem == Elem::I64 { elem } else { compute(t) }
}

/// The lines with the second operand's offsets counting the lines: partial results lie in that order.
fn with_rows(lines: &Lines) -> Lines {
    Lines { kept: lines.kept.numbered(1), ..lines.clone() }
}

/// The stage that joins the parts.
fn second(stage: Stage, x: Vec<View>, y: Vec<View>, target: &Target, size: u32) -> Stage {
    let kept = stage.lines.kept.count();
    let parts = stage.parts.0;
    let lines = Lines { kept: stage.lines.kept.numbered(0), line: crate::space::Space::line(2, (parts, vec![kept, 0])), wide: stage.lines.wide };
    let cut = cut_of(&lines, target, size);
    Stage { key: "join".into(), lines, x, y, parts: (1, i64::MAX >> if stage.lines.wide { 0 } else { 33 }), cut, ..stage }
}

fn cook_arg(call: &Call, target: &Target, greatest: bool) -> Result<Recipe> {
    let (lines, x, y) = lines_of(call, false)?;
    supported([x.dtype, DType::I64], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if lines.kept.count() == 0 {
        return Ok(recipe);
    }
    let (name, from, elem, place) = (call.operator.name, x.dtype, compute(x.dtype), index(lines.wide));
    let size = block(target, elem.bytes().max(4)) / 2;
    let cut = cut_of(&lines, target, size);
    let split = parts(&lines, target, cut);
    let (count, kept) = (lines.line.count(), lines.kept.count());
    let neutral = move |k: &Kernel| [if greatest { least(k, elem) } else { most(k, elem) }, most(k, place)];
    // NaN wins; of equals the lower place.
    let combine = move |[a, i]: [Expr; 2], [b, j]: [Expr; 2]| {
        let better = if greatest { b.gt(a) } else { b.lt(a) };
        let take = if elem.is_float() {
            let (nan_a, nan_b) = (a.is_nan(), b.is_nan());
            let same = (nan_a & nan_b) | a.equals(b);
            (better & !nan_a) | (nan_b & !nan_a) | (same & j.lt(i))
        } else {
            better | (a.equals(b) & j.lt(i))
        };
        [take.select(b, a), take.select(j, i)]
    };
    let enter = move |x: &[Expr], at: Expr| [widen(x[0], from, elem), at];
    let finish = |[_, at]: [Expr; 2], _: Expr| vec![at.to(Elem::I64)];
    let stage = Stage { entry: entry(name), key: String::new(), lines, x: vec![x], y: vec![y.clone()], parts: split, cut, count };
    if split.0 == 1 {
        recipe.steps.push(stage.step(target, neutral, enter, combine, finish));
        return Ok(recipe);
    }
    let values = View::workspace(0, held(elem), &[split.0, kept]);
    let after = (values.elems() as u64 * u64::from(elem.bytes())).next_multiple_of(16);
    let places = View::workspace(after, held(place), &[split.0, kept]);
    recipe.workspace_bytes = after + (places.elems() as u64 * u64::from(place.bytes())).next_multiple_of(16);
    let both = vec![values, places];
    let first = Stage { key: "parts".into(), lines: with_rows(&stage.lines), y: both.clone(), ..stage.clone() };
    recipe.steps.push(first.step(target, neutral, enter, combine, |[v, at], _| vec![v, at]));
    let last = second(stage, both, vec![y], target, size);
    recipe.steps.push(last.step(target, neutral, |x, _| [x[0], x[1]], combine, finish));
    Ok(recipe)
}
