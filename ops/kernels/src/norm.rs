//! Normalisation over trailing axes: short lines in registers, long ones in a pass per statistic.

use flagos_backend_api::Result;
use flagos_catalog::Call;
use flagos_catalog::norm::lead;
use flagos_compiler::build::Expr;
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, ceil_div};
use crate::lines::{LineWalk, Lines};
use crate::number::{accumulator, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::softmax::cut_of;
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("layer_norm", |c, t| cook(c, t, true)), ("rms_norm", |c, t| cook(c, t, false))]
}

struct Args {
    x: Expr,
    weight: Option<Expr>,
    bias: Option<Expr>,
    y: Expr,
    statistics: Vec<Expr>,
    walk: LineWalk,
    eps: Expr,
}

/// Operands in the order of offsets: x, weight, bias, y, mean, rstd.
const WEIGHT: usize = 1;
const BIAS: usize = 2;
const Y: usize = 3;
const MEAN: usize = 4;

fn cook(call: &Call, target: &Target, centred: bool) -> Result<Recipe> {
    let (x, y) = (View::input(call, 0), View::output(call, 0));
    supported([x.dtype], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    let lead = lead(call)?;
    let over: Vec<usize> = (lead..x.shape.len()).collect();
    // Absent ones take no part: they borrow x's memory and no stride.
    let still = |v: &View| v.with_axes(&x.shape.iter().map(|n| (*n, 0)).collect::<Vec<_>>());
    let has = |i: usize| call.inputs.get(i).is_some_and(|t| !t.is_none());
    let affine = |i: usize| if has(i) { View::input(call, i) } else { still(&x) };
    let mut views = vec![x.clone(), affine(WEIGHT), if centred { affine(BIAS) } else { still(&x) }, y.clone()];
    let statistics: Vec<View> = if centred { (1..3).map(|i| View::output(call, i)).collect() } else { Vec::new() };
    for s in &statistics {
        let axes: Vec<(i64, i64)> = (0..x.shape.len()).map(|d| (x.shape[d], if d < lead { s.stride[d] } else { 0 })).collect();
        views.push(s.with_axes(&axes));
    }
    let lines = Lines::new(&x.shape, &over, &views.iter().collect::<Vec<_>>(), true);
    if lines.kept.count() == 0 || (lines.line.count() == 0 && !centred) {
        return Ok(recipe);
    }
    let (t, elem) = (x.dtype, accumulator(x.dtype));
    let (weighted, biased) = (has(WEIGHT), centred && has(BIAS));
    let (cut, fits) = cut_of(&lines, target, elem);
    let form = lines.form();
    let whole = lines.line.count() % i64::from(cut.points) == 0 && lines.kept.count() % i64::from(cut.lines) == 0 && lines.line.count() > 0;
    let flags = [(fits, " kept"), (whole, " whole"), (weighted, " weight"), (biased, " bias")];
    let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
    let key = format!("{t} {form} {cut}{flags}");
    let blocks = ceil_div(lines.kept.count(), cut.lines.into());
    let mut args = vec![x.arg];
    args.extend(weighted.then(|| views[WEIGHT].arg));
    args.extend(biased.then(|| views[BIAS].arg));
    args.push(y.arg);
    args.extend(statistics.iter().map(|s| s.arg));
    lines.args(&mut args);
    let eps = call.attrs.float("eps");
    args.push(match elem {
        Elem::F64 => Arg::Scalar { bits: eps.to_bits(), bytes: 8 },
        _ => Arg::Scalar { bits: (eps as f32).to_bits().into(), bytes: 4 },
    });
    let code = Code { entry: entry(call.operator.name), key, blocks, args, aligned: true };
    recipe.steps.push(code.sized(target, cut).step(
        move |c| {
            let pointer = || c.pointer(memory(t));
            Args {
                x: pointer(),
                weight: weighted.then(pointer),
                bias: biased.then(pointer),
                y: pointer(),
                statistics: (0..if centred { 2 } else { 0 }).map(|_| c.pointer(elem)).collect(),
                walk: form.declare(c),
                eps: c.k.scalar(elem),
            }
        },
        move |k, a, at| {
            let rows = a.walk.rows(k, cut, at);
            let length = a.walk.length(k);
            let n = length.to(elem);
            let (zero, step) = (a.walk.int(k, 0), a.walk.int(k, cut.points.into()));
            let mask = |points: Expr| rows.exist & points.lt(length);
            let read = |start: Expr| {
                let points = a.walk.points(k, cut, start);
                let p = a.x + (rows.offsets[0] + a.walk.offsets(points)[0]);
                let raw = if whole { p.load() } else { p.load_masked(mask(points), 0.0) };
                (widen(raw, t, elem).broadcast(&cut.shape()), points)
            };
            let beside = |v: Expr, points: Expr| if whole { v } else { mask(points).select(v, 0.0) };
            let kept = fits.then(|| read(zero));
            // A sum over the lines of what `f` makes of each element.
            let total = |f: &dyn Fn(Expr) -> Expr| {
                let sums = match kept {
                    Some((v, points)) => beside(f(v), points),
                    None => {
                        let [sums] = k.fold(zero, length, step, [k.zeros(&cut.shape(), elem)], |at, [s]| {
                            let (v, points) = read(at);
                            [s + beside(f(v), points)]
                        });
                        sums
                    }
                };
                cut.per_line(sums.sum(cut.axis()))
            };
            let mean = centred.then(|| total(&|v| v) / n);
            let square = total(&|v| {
                let d = mean.map_or(v, |m| v - m);
                d * d
            });
            let one = k.float(elem, 1.0);
            let rstd = one.splat(&rows.index.shape()) / (square / n + a.eps).sqrt();
            for (i, (s, value)) in a.statistics.iter().zip(mean.into_iter().chain([rstd])).enumerate() {
                (*s + rows.offsets[MEAN + i]).store_masked(value, rows.exist);
            }
            let write = |v: Expr, points: Expr| {
                let offsets = a.walk.offsets(points);
                let affine = |p: Expr, i: usize| {
                    let p = p + offsets[i];
                    widen(if whole { p.load() } else { p.load_masked(points.lt(length), 0.0) }, t, elem)
                };
                let mut y = mean.map_or(v, |m| v - m) * rstd;
                if let Some(w) = a.weight {
                    y = y * affine(w, WEIGHT);
                }
                if let Some(b) = a.bias {
                    y = y + affine(b, BIAS);
                }
                let p = a.y + (rows.offsets[Y] + offsets[Y]);
                if whole { p.store(narrow(y, t)) } else { p.store_masked(narrow(y, t), mask(points)) }
            };
            match kept {
                Some((v, points)) => write(v, points),
                None => k.each(zero, length, step, |at| {
                    let (v, points) = read(at);
                    write(v, points);
                }),
            }
        },
    ));
    Ok(recipe)
}
