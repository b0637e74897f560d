//! Prefix sums: a block per lines, tile by tile; few long lines are cut into parts whose sums are summed first.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_catalog::shape::axis;
use flagos_compiler::build::{Expr, Kernel, scan};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, is_cpu, is_wide};
use crate::lines::{Cut, LineWalk, Lines};
use crate::number::{accumulator, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{Space, index, integer};
use crate::{Cook, Recipe, Step, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("cumsum", cook)]
}

/// A line that a block of a wide chip scans at once has at most this many points.
const MOST_AT_ONCE: i64 = 8192;

struct Args {
    x: Expr,
    y: Expr,
    before: Option<Expr>,
    walk: LineWalk,
    per: Expr,
    parts: Expr,
}

/// What a pass over the lines leaves.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// Sums up to each element, or without it.
    Scan { exclusive: bool },
    /// The sum of each part, at (part, line).
    Sums,
}

#[derive(Clone)]
struct Stage {
    name: &'static str,
    lines: Lines,
    cut: Cut,
    x: View,
    y: View,
    reverse: bool,
    pass: Pass,
    /// Number of parts and points of each.
    parts: (i64, i64),
    /// Sums before each part, at (part, line).
    before: Option<View>,
}

fn cook(call: &Call, target: &Target) -> Result<Recipe> {
    let (x, y) = (View::input(call, 0), View::output(call, 0));
    supported([x.dtype, y.dtype], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if x.elems() == 0 {
        return Ok(recipe);
    }
    let dim = axis(call, call.attrs.int("dim"), x.shape.len())?;
    let over: Vec<usize> = if x.shape.is_empty() { vec![] } else { vec![dim] };
    let lines = Lines::new(&x.shape, &over, &[&x, &y], false);
    let elem = accumulator(x.dtype);
    let size = block(target, elem.bytes());
    let cut = match (is_cpu(target), is_wide(target)) {
        (true, _) => lines.cut(target, size, 256),
        (_, true) if lines.line.count() <= MOST_AT_ONCE => lines.cut(target, size * 2, MOST_AT_ONCE as u32),
        (_, true) => lines.cut(target, size * 2, 2048),
        _ => lines.cut(target, size, 1024),
    };
    let (reverse, exclusive) = (call.attrs.boolean("reverse"), call.attrs.boolean("exclusive"));
    let name = call.operator.name;
    let kept = lines.kept.count();
    let tiles = ceil_div(lines.line.count(), cut.points.into());
    let (wanted, least) = if is_cpu(target) { (32, 64) } else { (512, 4) };
    let parts = (wanted / ceil_div(kept, cut.lines.into())).min(tiles / least).max(1);
    let per = ceil_div(tiles, parts);
    let parts = (ceil_div(tiles, per), per * i64::from(cut.points));
    let all = Stage { name, lines, cut, x: x.clone(), y, reverse, pass: Pass::Scan { exclusive }, parts, before: None };
    if parts.0 == 1 {
        recipe.steps.push(all.step(target, elem));
        return Ok(recipe);
    }
    let held = if elem == Elem::F32 { DType::F32 } else if elem == Elem::F64 { DType::F64 } else { DType::I64 };
    let sums = View::workspace(0, held, &[parts.0, kept]);
    recipe.workspace_bytes = (sums.elems() as u64 * u64::from(elem.bytes())).next_multiple_of(16);
    recipe.steps.push(Stage { pass: Pass::Sums, y: sums.clone(), ..all.clone() }.step(target, elem));
    let across = Lines { kept: Space::line(2, (kept, vec![1, 1])), line: Space::line(2, (parts.0, vec![kept, kept])), wide: all.lines.wide };
    let cut = across.cut(target, block(target, elem.bytes()), 1024);
    let per = ceil_div(parts.0, cut.points.into()) * i64::from(cut.points);
    let pass = Pass::Scan { exclusive: true };
    let middle = Stage { lines: across, cut, x: sums.clone(), y: sums.clone(), reverse: false, pass, parts: (1, per), ..all.clone() };
    recipe.steps.push(middle.step(target, elem));
    recipe.steps.push(Stage { before: Some(sums), ..all }.step(target, elem));
    Ok(recipe)
}

impl Stage {
    fn step(self, target: &Target, elem: Elem) -> Step {
        let Stage { name, lines, cut, x, y, reverse, pass, parts, before } = self;
        let (wide, form, resumed) = (lines.wide, lines.form(), before.is_some());
        let (from, to) = (x.dtype, y.dtype);
        let what = match pass {
            Pass::Sums => "sums",
            Pass::Scan { exclusive: true } => "exclusive",
            Pass::Scan { exclusive: false } => "scan",
        };
        // Parts are whole tiles.
        let whole = lines.line.count() % i64::from(cut.points) == 0 && lines.kept.count() % i64::from(cut.lines) == 0;
        let single = parts.0 == 1 && lines.line.count() <= i64::from(cut.points);
        let flags = [(reverse, " reverse"), (resumed, " resumed"), (whole, " whole"), (single, " single")];
        let flags: String = flags.into_iter().filter(|f| f.0).map(|f| f.1).collect();
        let key = format!("{from} {to} {form} {cut} {what}{flags}");
        let blocks = ceil_div(lines.kept.count(), cut.lines.into()) * parts.0;
        let mut args = vec![x.arg, y.arg];
        args.extend(before.map(|b| b.arg));
        lines.args(&mut args);
        args.extend([integer(parts.1, wide), integer(parts.0, wide)]);
        Code { entry: entry(name), key, blocks, args, aligned: true }.sized(target, cut).step(
            move |c| Args {
                x: c.pointer(memory(from)),
                y: c.pointer(memory(to)),
                before: resumed.then(|| c.pointer(elem)),
                walk: form.declare(c),
                per: c.k.multiple(index(wide), cut.points.min(16)),
                parts: c.k.scalar(index(wide)),
            },
            move |k, a, at| {
                let at = at.to(index(wide));
                let (part, at) = (at.rem_unsigned(a.parts), at.div_unsigned(a.parts));
                let rows = a.walk.rows(k, cut, at);
                let length = a.walk.length(k);
                let low = part * a.per;
                let high = (low + a.per).minimum(length);
                let step = a.walk.int(k, cut.points.into());
                let of_part = part * a.walk.kept_count(k) + rows.index;
                let zero = k.zeros(&rows.index.shape(), elem);
                let carry = a.before.map_or(zero, |b| (b + of_part).load_masked(rows.exist, 0i64));
                let read = |start: Expr| {
                    let points = a.walk.points(k, cut, start);
                    let place = if reverse { length - 1i64 - points } else { points };
                    let offsets = a.walk.offsets(place);
                    let exist = rows.exist & points.lt(high);
                    let p = a.x + (rows.offsets[0] + offsets[0]);
                    let v = if whole { p.load() } else { p.load_masked(exist, 0i64) };
                    (widen(v, from, elem).broadcast(&cut.shape()), offsets[1], exist)
                };
                let sum = |v: Expr| cut.per_line(v.sum(cut.axis()));
                let write = |v: Expr, carry: Option<Expr>, offset: Expr, exist: Expr| {
                    if let Pass::Scan { exclusive } = pass {
                        let sums = prefix(k, v, cut.axis(), exclusive);
                        let (p, sums) = (a.y + (rows.offsets[1] + offset), narrow(carry.map_or(sums, |c| sums + c), to));
                        if whole { p.store(sums) } else { p.store_masked(sums, exist) }
                    }
                };
                if single {
                    let (v, offset, exist) = read(low);
                    return write(v, a.before.map(|_| carry), offset, exist);
                }
                let [end] = k.fold(low, high, step, [carry], |start, [carry]| {
                    let (v, offset, exist) = read(start);
                    write(v, Some(carry), offset, exist);
                    [carry + sum(v)]
                });
                if pass == Pass::Sums {
                    (a.y + of_part).store_masked(end, rows.exist);
                }
            },
        )
    }
}

/// Sums up to each element, or without it: then of pairs (sum, sum without the last), so that nothing is subtracted.
fn prefix(k: &Kernel, v: Expr, axis: u32, exclusive: bool) -> Expr {
    if !exclusive {
        return v.cumsum(axis, false);
    }
    let zero = k.zeros(&v.shape(), v.elem());
    scan([v, zero], axis, false, |[total, _], [x, without]| [total + x, total + without])[1]
}
