//! The one kernel behind everything that computes an element from elements at the same place: flat where memory allows, else in tiles.

use std::sync::Arc;

use flagos_backend_api::Result;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, extent, is_cpu, is_general};
use crate::number::{memory, supported};
use crate::space::{Form, Space, Step as Move, Walk, index, integer};
use crate::{Recipe, Step, View};

/// Computes raw output elements from raw input elements, as they lie in memory.
pub type Body = Arc<dyn Fn(&[Expr]) -> Expr + Send + Sync>;

/// y = body(inputs), element by element, inputs broadcast to y's shape.
pub struct Elementwise {
    /// Entry point, "k_…".
    pub entry: &'static str,
    /// What the body depends on.
    pub key: String,
    /// Inputs.
    pub inputs: Vec<View>,
    /// Output.
    pub output: View,
    /// The expression.
    pub body: Body,
    /// The last input is found through the first.
    pub indirect: Option<Indirect>,
}

/// The last input's place along one axis is what the first input says; its stride there is 0 in its view.
#[derive(Clone, Copy)]
pub struct Indirect {
    /// Number of elements along the axis; nothing is read for indices outside.
    pub extent: i64,
    /// The last input's stride along the axis.
    pub stride: i64,
}

/// What both kernels need.
#[derive(Clone)]
struct Plan {
    /// Output, then inputs.
    elems: Vec<Elem>,
    body: Body,
    wide: bool,
    indirect: bool,
}

impl Elementwise {
    /// A recipe of this step alone.
    ///
    /// # Errors
    /// UNIMPLEMENTED for types the device lacks.
    pub fn recipe(self, target: &Target) -> Result<Recipe> {
        supported(self.inputs.iter().map(|v| v.dtype).chain([self.output.dtype]), target)?;
        Ok(Recipe { steps: self.step(target).into_iter().collect(), workspace_bytes: 0, deterministic: true })
    }

    /// The step; none where there are no elements.
    pub fn step(self, target: &Target) -> Option<Step> {
        if self.output.elems() == 0 {
            return None;
        }
        let operands: Vec<&View> = core::iter::once(&self.output).chain(&self.inputs).collect();
        let space = Space::sorted(&self.output.shape, &operands, 0);
        let far = self.indirect.is_some_and(|i| i.extent.saturating_mul(i.stride.abs()).saturating_add(space.reach()) >= 1 << 30);
        let indirect = self.indirect.is_some();
        let plan = Plan { elems: operands.iter().map(|v| memory(v.dtype)).collect(), body: self.body.clone(), wide: far || space.wide(), indirect };
        let key = format!("{} {}", self.key, plan.elems.iter().map(|e| e.name()).collect::<Vec<_>>().join(" "));
        let mut pointers: Vec<crate::Arg> = operands.iter().map(|v| v.arg).collect();
        let widest = plan.elems.iter().map(|e| e.bytes()).max().unwrap_or(4);
        let size = block(target, widest);
        if let Some(i) = self.indirect {
            pointers.extend([integer(i.extent, plan.wide), integer(i.stride, plan.wide)]);
        }
        let flat = !indirect && space.rank() <= 1 && (0..operands.len()).all(|i| space.step(i) != Move::Any);
        Some(if flat { flat_step(self.entry, key, space, plan, pointers, size, target) } else { tiled_step(self.entry, key, space, plan, pointers, size, target) })
    }
}

struct Flat {
    pointers: Vec<Expr>,
    n: Expr,
}

fn flat_step(entry: &'static str, key: String, space: Space, plan: Plan, mut args: Vec<crate::Arg>, size: u32, target: &Target) -> Step {
    let (n, wide) = (space.count(), plan.wide);
    // An output of one element has no axis: whatever the step, nothing lies beyond the first.
    let steps: Vec<Move> = (0..plan.elems.len()).map(|i| if i == 0 || n == 1 { Move::One } else { space.step(i) }).collect();
    let tiles = Edge::of(target, n % i64::from(size) == 0);
    let steps_key: String = steps.iter().map(|s| if *s == Move::One { '1' } else { '0' }).collect();
    let key = format!("{key} flat {steps_key} {size}{tiles}{}", if wide { " w" } else { "" });
    args.push(integer(n, wide));
    let elems = plan.elems.clone();
    let code = Code { entry, key, blocks: ceil_div(n, size.into()), args, aligned: true };
    code.step(
        target,
        move |c| Flat { pointers: elems.iter().map(|e| c.pointer(*e)).collect(), n: c.k.scalar(index(wide)) },
        move |k, a, at| {
            let start = at.to(index(wide)) * i64::from(size);
            let i = start + k.arange(size);
            // What is repeated is read once.
            let repeated: Vec<Option<Expr>> = (0..steps.len()).map(|x| (steps[x] == Move::Zero).then(|| a.pointers[x].load())).collect();
            let value = |x: usize, masked: bool| match repeated[x] {
                Some(value) => value.splat(&[size]),
                None if masked => (a.pointers[x] + i).load_masked(i.lt(a.n), 0i64),
                None => (a.pointers[x] + i).load(),
            };
            let run = |masked: bool| {
                let x: Vec<Expr> = (1..steps.len()).map(|x| value(x, masked)).collect();
                let y = (plan.body)(&x).broadcast(&[size]);
                if masked { (a.pointers[0] + i).store_masked(y, i.lt(a.n)) } else { (a.pointers[0] + i).store(y) }
            };
            tiles.run(k, || (start + i64::from(size)).le(a.n), run);
        },
    )
}

/// Which tiles reach beyond the operands.
#[derive(Clone, Copy, PartialEq)]
enum Edge {
    /// None.
    Never,
    /// Some, and full ones are better off without masks.
    Some,
    /// Some, and one kernel serves all extents: a processor's loops are told apart by the compiler, and drivers in software are spared the code.
    Any,
}

impl Edge {
    fn of(target: &Target, whole: bool) -> Edge {
        match whole {
            _ if is_general(target) => Edge::Any,
            true => Edge::Never,
            false => Edge::Some,
        }
    }
    /// Runs `f(masked)`: without masks where there is no need.
    fn run(self, k: &Kernel, full: impl Fn() -> Expr, f: impl Fn(bool)) {
        let part = |masked: bool| {
            f(masked);
            []
        };
        match self {
            Edge::Never => f(false),
            Edge::Any => f(true),
            Edge::Some => {
                k.choose(full(), || part(false), || part(true));
            }
        }
    }
}

impl core::fmt::Display for Edge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if *self == Edge::Never { " whole" } else { "" })
    }
}

struct Tiled {
    pointers: Vec<Expr>,
    /// Extent and stride of the axis an index stands for.
    axis: Option<(Expr, Expr)>,
    rest: Walk,
    rows: Walk,
    cols: Walk,
}

fn tiled_step(entry: &'static str, key: String, mut space: Space, plan: Plan, mut args: Vec<crate::Arg>, size: u32, target: &Target) -> Step {
    let (operands, wide) = (plan.elems.len(), plan.wide);
    let cols = match space.rank().checked_sub(1) {
        Some(last) => space.take(last),
        None => (1, vec![0; operands]),
    };
    // An input that runs through memory along another axis makes that one the rows: such a tile is read and written in whole lines.
    let through = |s: &Space, d: usize| (1..operands).any(|i| s.axis(d).1[i].abs() == 1 && cols.1[i] != 1 && cols.1[i] != 0);
    let turned = (0..space.rank()).find(|d| through(&space, *d));
    let rows = match turned.or_else(|| space.rank().checked_sub(1)) {
        Some(d) => space.take(d),
        None => (1, vec![0; operands]),
    };
    let rest = space.merge();
    let general = is_general(target);
    let rest = if general { rest.padded(3) } else { rest };
    let most = if turned.is_some() && !general { 32.min(size) } else { size };
    // A processor's block walks through its rows one by one, so that their number is none of the kernel's business.
    let one_by_one = is_cpu(target);
    let c = match general {
        true if cols.0 <= 16 => 16,
        true if turned.is_some() || cols.0 <= 64 => 64,
        _ => extent(cols.0, 1, most),
    };
    let r = if general { size / c } else { extent(rows.0, 1, size / c) };
    let tiles = Edge::of(target, cols.0 % i64::from(c) == 0 && rows.0 % i64::from(r) == 0);
    let blocks = rest.count() * ceil_div(rows.0, r.into()) * ceil_div(cols.0, c.into());
    let (rows, cols) = (Space::line(operands, rows), Space::line(operands, cols));
    let [of_rest, of_rows, of_cols] = [&rest, &rows, &cols].map(|s| s.form(wide));
    let forms: [Form; 3] = if general { [of_rest.general(), of_rows.general(), of_cols.uneven()] } else { [of_rest, of_rows, of_cols] };
    let key = format!("{key} tiles {r}x{c} {} {} {}{tiles}", forms[0], forms[1], forms[2]);
    [&rest, &rows, &cols].iter().zip(&forms).for_each(|(s, f)| f.args(s, &mut args));
    let steps: Vec<(Move, Move)> = (0..operands).map(|i| (if general { Move::Any } else { rows.step(i) }, cols.step(i))).collect();
    let (elems, indirect) = (plan.elems.clone(), plan.indirect);
    Code { entry, key, blocks, args, aligned: true }.step(
        target,
        move |x| Tiled {
            pointers: elems.iter().map(|e| x.pointer(*e)).collect(),
            axis: indirect.then(|| (x.k.scalar(index(wide)), x.k.scalar(index(wide)))),
            rest: forms[0].declare(x.k),
            rows: forms[1].declare(x.k),
            cols: forms[2].declare(x.k),
        },
        move |k, a, at| {
            let elem = index(wide);
            let (n_rows, n_cols) = (a.rows.count(k), a.cols.count(k));
            let across = (n_cols + (i64::from(c) - 1)).div_unsigned(i64::from(c));
            let down = (n_rows + (i64::from(r) - 1)).div_unsigned(i64::from(r));
            let at = at.to(elem);
            let (slice, within) = (at.div_unsigned(across * down), at.rem_unsigned(across * down));
            let (row, col) = (within.div_unsigned(across) * i64::from(r), within.rem_unsigned(across) * i64::from(c));
            let base: Vec<Expr> = a.rest.offsets(slice).into_iter().zip(&a.pointers).map(|(o, p)| *p + o).collect();
            let ci = col + k.arange(c);
            let (shape, ci) = if one_by_one { (vec![c], ci) } else { (vec![r, c], ci.expand(0)) };
            let by_col = a.cols.offsets(ci);
            let run = |masked: bool, ri: Expr| {
                let by_row = a.rows.offsets(ri);
                // Rows that are walked through exist.
                let in_rows = (masked && !one_by_one).then(|| ri.lt(n_rows));
                let in_cols = masked.then(|| ci.lt(n_cols));
                let both = match (in_rows, in_cols) {
                    (Some(rows), Some(cols)) => Some(rows & cols),
                    (one, other) => one.or(other),
                };
                let place = |x: usize| match steps[x] {
                    (Move::Zero, Move::Zero) if x > 0 => (base[x], None),
                    (_, Move::Zero) if x > 0 => (base[x] + by_row[x], in_rows),
                    (Move::Zero, _) if x > 0 => (base[x] + by_col[x], in_cols),
                    _ => (base[x] + by_row[x] + by_col[x], both),
                };
                // As small as the operand's steps allow: what is repeated is read once.
                let fetch = |x: usize| match place(x) {
                    (p, Some(mask)) => p.load_masked(mask, 0i64),
                    (p, None) => p.load(),
                };
                let read = |x: usize| fetch(x).broadcast(&shape);
                let follow = |at: Expr, (extent, stride): (Expr, Expr)| {
                    let last = a.pointers.len() - 1;
                    let inside = at.ge(0i64) & at.lt(extent);
                    let (p, mask) = place(last);
                    let mask = mask.map_or(inside, |m| inside & m);
                    (p + at.to(elem) * stride).load_masked(mask, 0i64).broadcast(&shape)
                };
                let x: Vec<Expr> = match a.axis {
                    Some(axis) => vec![follow(fetch(1), axis)],
                    None => (1..a.pointers.len()).map(read).collect(),
                };
                let y = (plan.body)(&x).broadcast(&shape);
                match place(0) {
                    (p, Some(mask)) => p.store_masked(y, mask),
                    (p, None) => p.store(y),
                }
            };
            if one_by_one {
                let end = row + i64::from(r);
                return k.each(row, end.lt(n_rows).select(end, n_rows), k.int(elem, 1), |ri| run(true, ri));
            }
            let ri = (row + k.arange(r)).expand(1);
            tiles.run(k, || (row + i64::from(r)).le(n_rows) & (col + i64::from(c)).le(n_cols), |masked| run(masked, ri));
        },
    )
}
