//! Matrix products: tiles of y accumulated over tiles of the common axis.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, Context, ceil_div, extent, is_cpu, is_wide};
use crate::number::{accumulator, compute, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{Form, Space, Walk, index};
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("mm", plain), ("bmm", plain), ("matmul", plain), ("addmm", addmm)]
}

/// Tiles that keep a large chip at work.
const ENOUGH_BLOCKS: i64 = 96;

/// Bytes of shared memory for three rounds of 128×64 and 64×256 two-byte factors, and for sums on their way out.
const DEEP_ROUNDS: u32 = 208 << 10;

/// Bytes of shared memory for one round of 128×32 and 32×128 two-byte factors, sums on their way out, and an addend of 128×128.
const LARGE_ADDEND: u32 = 64 << 10;

/// Rows, columns and depth of a block's tiles, and its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Rows of y.
    pub m: u32,
    /// Columns of y.
    pub n: u32,
    /// Depth of a step.
    pub k: u32,
    /// Threads of the block.
    pub threads: u32,
    /// Rounds along the depth that are under way at once.
    pub stages: u32,
    /// Rows of tiles that are walked together, column by column, so that what they read is still in a large chip's cache; 1: row by row.
    pub group: u32,
}

impl Tiles {
    /// What suits a target for a product of m×k by k×n, with a matrix added or not.
    pub fn of(target: &Target, factor: Elem, [m, n, k]: [i64; 3], batch: i64, added: bool) -> Tiles {
        if is_cpu(target) {
            return Tiles { m: extent(m, 1, 8), n: extent(n, 1, 64), k: extent(k, 1, 64), threads: 1, stages: 1, group: 1 };
        }
        let unit = target.matrix.iter().any(|s| s.factor == factor);
        // The larger the tile, the less often factors are read; but there must be enough of them.
        let blocks = |m_side: i64, n_side: i64| ceil_div(m, m_side) * ceil_div(n, n_side);
        if unit && target.copies_aside() && factor.bytes() == 2 && m > 64 && n > 128 && blocks(128, 256) * batch >= ENOUGH_BLOCKS {
            // Deep rounds meet less often, where three of them fit.
            let depth = if target.shared_bytes >= DEEP_ROUNDS { 64 } else { 32 };
            return Tiles { m: 128, n: 256, k: extent(k, 16, depth), threads: 256, stages: 4, group: 8 };
        }
        let (side, depth, threads) = match factor.bytes() {
            _ if unit && m > 64 && n > 64 && (!added || target.shared_bytes >= LARGE_ADDEND) => (128, 32, 256),
            _ if !factor.is_float() => (32, 16, 128),
            1 | 2 => (64, 32, 128),
            4 => (64, 16, 128),
            _ => (32, 16, 128),
        };
        Tiles { m: extent(m, 16, side), n: extent(n, 16, side), k: extent(k, 16, depth), threads: threads.min(target.max_block_threads.max(1)), stages: 4, group: if is_wide(target) { 8 } else { 1 } }
    }
}

impl core::fmt::Display for Tiles {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)?;
        if self.group > 1 { write!(f, " g{}", self.group) } else { Ok(()) }
    }
}

/// What factors of a type are multiplied in and what their products are added up in.
pub fn types(t: DType) -> (Elem, Elem) {
    let sum = if t.is_float() { accumulator(t) } else { compute(t) };
    (if t.is_float() { memory(t) } else { sum }, sum)
}

/// A matrix with leading axes: strides of batch, rows, columns.
struct Matrix {
    view: View,
    batch: Vec<i64>,
    row: i64,
    column: i64,
}

fn matrix(view: View, batch: &[i64], row: Option<usize>, column: Option<usize>) -> Matrix {
    let taken = usize::from(row.is_some()) + usize::from(column.is_some());
    let lead = view.shape.len() - taken;
    let axes: Vec<(i64, i64)> = (0..lead).map(|d| (view.shape[d], view.stride[d])).collect();
    let stride = |d: Option<usize>| d.map_or(0, |d| view.stride[d]);
    Matrix { batch: view.with_axes(&axes).strides_in(batch), row: stride(row), column: stride(column), view }
}

fn plain(call: &Call, target: &Target) -> Result<Recipe> {
    let (a, b, y) = (View::input(call, 0), View::input(call, 1), View::output(call, 0));
    let (ra, rb) = (a.shape.len(), b.shape.len());
    let (m, k) = (if ra > 1 { a.shape[ra - 2] } else { 1 }, a.shape[ra - 1]);
    let n = if rb > 1 { b.shape[rb - 1] } else { 1 };
    let ends = usize::from(ra > 1) + usize::from(rb > 1);
    let lead = y.shape.len() - ends;
    let batch = y.shape[..lead].to_vec();
    let a = matrix(a, &batch, (ra > 1).then(|| ra - 2), Some(ra - 1));
    let b = matrix(b, &batch, Some(rb.max(2) - 2), (rb > 1).then(|| rb - 1));
    let y = matrix(y, &batch, (ra > 1).then_some(lead), (rb > 1).then(|| lead + ends - 1));
    product(call, target, &batch, [m, n, k], [a, b, y], None)
}

fn addmm(call: &Call, target: &Target) -> Result<Recipe> {
    let (c, a, b, y) = (View::input(call, 0), View::input(call, 1), View::input(call, 2), View::output(call, 0));
    let size = [a.shape[0], b.shape[1], a.shape[1]];
    let c = c.with_axes(&y.shape.iter().copied().zip(c.strides_in(&y.shape)).collect::<Vec<_>>());
    let [a, b, y, c] = [a, b, y, c].map(|v| matrix(v, &[], Some(0), Some(1)));
    product(call, target, &[], size, [a, b, y], Some(c))
}

/// Operands in the order of offsets.
const A: usize = 0;
const B: usize = 1;
const Y: usize = 2;
const C: usize = 3;

struct Args {
    pointers: Vec<Expr>,
    batch: Walk,
    m: Walk,
    n: Walk,
    k: Walk,
    factors: Option<[Expr; 2]>,
}

fn product(call: &Call, target: &Target, batch: &[i64], [m, n, depth]: [i64; 3], [a, b, y]: [Matrix; 3], c: Option<Matrix>) -> Result<Recipe> {
    let t = y.view.dtype;
    supported([t], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if y.view.elems() == 0 {
        return Ok(recipe);
    }
    let (alpha, beta) = if c.is_some() { (call.attrs.number_at(0), call.attrs.number_at(1)) } else { ((1.0, 1), (0.0, 0)) };
    let zero = |v: (f64, i64)| if t.is_float() { v.0 == 0.0 } else { v.1 == 0 };
    let (skip_product, skip_c) = (zero(alpha), zero(beta));
    let added = c.is_some() && !skip_c;
    let none = Matrix { view: y.view.clone(), batch: vec![0; batch.len()], row: 0, column: 0 };
    let c = c.unwrap_or(none);
    let operands = [&a, &b, &y, &c];
    let axis = |d: usize| (batch[d], operands.iter().map(|o| o.batch[d]).collect::<Vec<i64>>());
    let rows = (m, vec![a.row, 0, y.row, c.row]);
    let mut outer = Space::new(4, (0..batch.len()).map(axis));
    let mut rows_space = Space::line(4, rows.clone());
    // Batches of rows that share b are rows.
    let joined = Space::new(4, (0..batch.len()).map(axis).chain([rows]));
    if joined.rank() == 1 && outer.rank() == 1 && joined.axis(0).1[B] == 0 {
        (outer, rows_space) = (Space::new(4, []), joined);
    }
    let m = rows_space.count();
    let columns = Space::line(4, (n, vec![0, b.column, y.column, c.column]));
    let inner = Space::line(4, (depth, vec![a.column, b.row, 0, 0]));
    let spaces = [&outer, &rows_space, &columns, &inner];
    let wide = spaces.iter().map(|s| s.reach()).fold(0i64, i64::saturating_add) >= 1 << 30;
    let (factor, sum) = types(t);
    let tiles = Tiles::of(target, factor, [m, n, depth], outer.count(), added);
    let forms: [Form; 4] = spaces.map(|s| s.form(wide));
    let scaled = operands.len() == 4 && call.operator.inputs.len() == 3;
    let flags = [(scaled, " scaled"), (added, " added"), (skip_product, " no product")];
    let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
    let key = format!("{t} {tiles} {}{flags}", forms.iter().map(|f| f.to_string()).collect::<Vec<_>>().join(" "));
    let mut args: Vec<Arg> = operands[..if added { 4 } else { 3 }].iter().map(|o| o.view.arg).collect();
    spaces.iter().for_each(|s| s.args(wide, &mut args));
    if scaled {
        args.extend([alpha, beta].map(|(float, int)| match sum {
            Elem::F32 => Arg::Scalar { bits: (float as f32).to_bits().into(), bytes: 4 },
            Elem::F64 => Arg::Scalar { bits: float.to_bits(), bytes: 8 },
            _ => Arg::Scalar { bits: int as u64 & (u64::MAX >> (64 - sum.bits())), bytes: sum.bytes() },
        }));
    }
    let blocks = outer.count() * ceil_div(m, tiles.m.into()) * ceil_div(n, tiles.n.into());
    let elem = memory(t);
    let code = Code { entry: entry(call.operator.name), key, blocks, args, aligned: true };
    recipe.steps.push(code.threads(tiles.threads).stages(tiles.stages).step(
        move |x: &Context| Args {
            pointers: (0..if added { 4 } else { 3 }).map(|_| x.pointer(elem)).collect(),
            batch: forms[0].declare(x.k),
            m: forms[1].declare(x.k),
            n: forms[2].declare(x.k),
            k: forms[3].declare(x.k),
            factors: scaled.then(|| [x.k.scalar(sum), x.k.scalar(sum)]),
        },
        move |k: &Kernel, a, at| {
            let place = Place::of(k, a, tiles, at.to(index(wide)), index(wide));
            let start = k.zeros(&[tiles.m, tiles.n], sum);
            let mut y = if skip_product { start } else { place.accumulate(k, a, tiles, start, factor, t) };
            if let Some([alpha, beta]) = a.factors {
                if !skip_product {
                    y = y * alpha;
                }
                if added {
                    let c = (a.pointers[C] + place.at(C)).load_masked(place.exist, 0i64);
                    y = y + widen(c, t, sum) * beta;
                }
            }
            (a.pointers[Y] + place.at(Y)).store_masked(narrow(y, t), place.exist);
        },
    ));
    Ok(recipe)
}

/// A block's part of y.
struct Place {
    base: Vec<Expr>,
    row: Expr,
    column: Expr,
    rows: Expr,
    columns: Expr,
    by_row: Vec<Expr>,
    by_column: Vec<Expr>,
    exist: Expr,
}

impl Place {
    fn of(k: &Kernel, a: &Args, tiles: Tiles, at: Expr, elem: Elem) -> Place {
        let (rows, columns) = (a.m.count(k), a.n.count(k));
        let tiles_of = |n: Expr, size: u32| (n + (i64::from(size) - 1)).div_unsigned(i64::from(size));
        let (down, across) = (tiles_of(rows, tiles.m), tiles_of(columns, tiles.n));
        let (batch, within) = (at.div_unsigned(down * across), at.rem_unsigned(down * across));
        let (i, j) = if tiles.group == 1 {
            (within.div_unsigned(across), within.rem_unsigned(across))
        } else {
            // The last group may have fewer rows.
            let size = i64::from(tiles.group);
            let (first, place) = (within.div_unsigned(across * size) * size, within.rem_unsigned(across * size));
            let tall = (down - first).minimum(size);
            (first + place.rem_unsigned(tall), place.div_unsigned(tall))
        };
        let (i, j) = (i * i64::from(tiles.m), j * i64::from(tiles.n));
        let row = (i + k.arange(tiles.m).to(elem)).expand(1);
        let column = (j + k.arange(tiles.n).to(elem)).expand(0);
        let exist = row.lt(rows) & column.lt(columns);
        Place { base: a.batch.offsets(batch), by_row: a.m.offsets(row), by_column: a.n.offsets(column), row, column, rows, columns, exist }
    }
    /// Offsets of the part in an operand of y's shape.
    fn at(&self, operand: usize) -> Expr {
        self.by_row[operand] + self.by_column[operand] + self.base[operand]
    }
    /// Products added up along the depth.
    fn accumulate(&self, k: &Kernel, a: &Args, tiles: Tiles, start: Expr, factor: Elem, t: DType) -> Expr {
        let depth = a.k.count(k);
        let (left, right) = (a.pointers[A] + self.base[A] + self.by_row[A], a.pointers[B] + self.base[B] + self.by_column[B]);
        let zero = k.int(depth.elem(), 0);
        if !factor.is_float() {
            // Matrix units know no such product: columns times rows.
            let [sum] = k.fold(zero, depth, k.int(depth.elem(), 1), [start], |at, [sum]| {
                let at = a.k.offsets(at);
                let x = (left + at[A]).load_masked(self.row.lt(self.rows), 0i64);
                let z = (right + at[B]).load_masked(self.column.lt(self.columns), 0i64);
                [sum + widen(x, t, factor) * widen(z, t, factor)]
            });
            return sum;
        }
        let [sum] = k.fold(zero, depth, k.int(depth.elem(), tiles.k.into()), [start], |at, [sum]| {
            let (down, across) = ((at + k.arange(tiles.k)).expand(0), (at + k.arange(tiles.k)).expand(1));
            let x = (left + a.k.offsets(down)[A]).load_masked(self.row.lt(self.rows) & down.lt(depth), 0i64);
            let z = (right + a.k.offsets(across)[B]).load_masked(self.column.lt(self.columns) & across.lt(depth), 0i64);
            [widen(x, t, factor).dot(widen(z, t, factor), sum)]
        });
        sum
    }
}
