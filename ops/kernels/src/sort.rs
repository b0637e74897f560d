//! Sorting and selection of the greatest: bitonic within a tile, longer lines by merging sorted runs or by narrowing chunks to k.
//!
//! Elements become (key, place) pairs: keys are signed integers in the order asked for, and of equal keys the lower place comes first,
//! which makes every method stable. Places past the end of a line come last.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_catalog::shape::axis;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, extent, is_cpu};
use crate::lines::{Cut, LineWalk, Lines};
use crate::number::{compute, memory, supported, widen};
use crate::pointwise::entry;
use crate::reduction::most;
use crate::space::{index, integer};
use crate::{Cook, Recipe, Step, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("sort", sort), ("topk", topk)]
}

fn sort(call: &Call, target: &Target) -> Result<Recipe> {
    cook(call, target, call.attrs.boolean("descending"), None)
}

fn topk(call: &Call, target: &Target) -> Result<Recipe> {
    cook(call, target, call.attrs.boolean("largest"), Some(call.attrs.int("k")))
}

/// The integer key of an element: NaN greatest, zeros equal; reversed for descending order.
fn key_of(raw: Expr, t: DType, descending: bool) -> Expr {
    let elem = compute(t);
    let value = widen(raw, t, elem);
    let key = if elem.is_float() {
        let int = elem.as_int();
        let (sign, rest) = (i64::from(int.bits()) - 1, i64::MAX >> (64 - int.bits()));
        let bits = value.equals(0.0).select(0.0, value).bitcast(int);
        // Negative numbers count backwards.
        let ordered = bits ^ ((bits >> sign) & rest);
        value.is_nan().select(rest, ordered)
    } else {
        value
    };
    if descending { !key } else { key }
}

/// Each pair or its partner's: the lower of the two places takes the lesser where the run ascends, the greater elsewhere. `ascends` is
/// absent where all do.
fn exchange(axis: u32, [key, place]: [Expr; 2], partner: Expr, low: Expr, ascends: Option<Expr>) -> [Expr; 2] {
    let (other_key, other_place) = (key.gather(partner, axis), place.gather(partner, axis));
    let lesser = other_key.lt(key) | (other_key.equals(key) & other_place.lt(place));
    let wants_lesser = ascends.map_or(low, |a| !(low ^ a));
    let take = !(lesser ^ wants_lesser);
    [take.select(other_key, key), take.select(other_place, place)]
}

/// Pairs of a tile brought into order along an axis.
fn bitonic(k: &Kernel, cut: Cut, rolled: bool, mut pairs: [Expr; 2]) -> [Expr; 2] {
    let (axis, n) = (cut.axis(), cut.points);
    let i = k.arange(n).expand(1 - axis).broadcast(&cut.shape());
    let int = |v: u32| k.int(Elem::I32, v.into());
    if rolled {
        // Runs of 2, 4, …, n; the last one ascends throughout, as no place has bit n.
        return k.fold(int(1), int(n.ilog2() + 1), int(1), pairs, |log, pairs| {
            let ascends = (i & (int(1) << log)).equals(0i64);
            k.fold(int(1), log + 1i64, int(1), pairs, |back, pairs| {
                let distance = int(1) << (log - back);
                exchange(axis, pairs, i ^ distance, (i & distance).equals(0i64), Some(ascends))
            })
        });
    }
    let mut run = 2;
    while run <= n {
        let ascends = if run == n { None } else { Some((i & i64::from(run)).equals(0i64)) };
        let mut distance = run / 2;
        while distance > 0 {
            let low = (i & i64::from(distance)).equals(0i64);
            pairs = exchange(axis, pairs, i ^ i64::from(distance), low, ascends);
            distance /= 2;
        }
        run *= 2;
    }
    pairs
}

/// Each key's rank in its line, of equal keys the first before the others: what suits a processor, whose vectors compare one key with
/// many, while exchanges along a line would go through memory.
fn ranks(k: &Kernel, keys: Expr, n: u32) -> Expr {
    let (other, at, own) = (keys.reshape(&[n, 1]), k.arange(n).expand(1), k.arange(n).expand(0));
    let before = other.lt(keys) | (other.equals(keys) & at.lt(own));
    before.to(Elem::I32).sum(0).expand(0)
}

/// Where a chunk's pairs come from.
#[derive(Clone)]
enum Source {
    /// Elements of the call's input.
    Elements,
    /// Pairs in the workspace, of lines of this length.
    Pairs { keys: View, places: View },
}

/// Where a chunk's first pairs go.
#[derive(Clone)]
enum Sink {
    /// The call's outputs.
    Outputs,
    /// The workspace, chunk after chunk.
    Pairs { keys: View, places: View },
}

struct Sorter<'a> {
    name: &'static str,
    target: &'a Target,
    x: View,
    values: View,
    indices: View,
    /// Operand 0 is x, 1 the values, 2 the indices; the line has x's length.
    lines: Lines,
    t: DType,
    descending: bool,
    keep: i64,
    tile: u32,
}

struct Args {
    x: Expr,
    pairs: Vec<Expr>,
    out: Vec<Expr>,
    walk: LineWalk,
    length: Expr,
    chunks: Expr,
    keep: Expr,
}

fn cook(call: &Call, target: &Target, descending: bool, k: Option<i64>) -> Result<Recipe> {
    let (x, values, indices) = (View::input(call, 0), View::output(call, 0), View::output(call, 1));
    supported([x.dtype, DType::I64], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if values.elems() == 0 {
        return Ok(recipe);
    }
    let dim = axis(call, call.attrs.int("dim"), x.shape.len())?;
    let over: Vec<usize> = if x.shape.is_empty() { vec![] } else { vec![dim] };
    // Outputs may be shorter along the line: only their strides matter.
    let like = |v: &View| v.with_axes(&x.shape.iter().copied().zip(v.stride.iter().copied()).collect::<Vec<_>>());
    let lines = Lines::new(&x.shape, &over, &[&x, &like(&values), &like(&indices)], false);
    let length = lines.line.count();
    let (t, keep) = (x.dtype, k.unwrap_or(length));
    // Ranks cost a comparison with each of the tile; what narrows chunks to k wants them longer than that.
    let tile = match is_cpu(target) {
        true => extent(length, 2, if keep <= 64 { 256 } else { 64 }),
        false => extent(length, 2, 1024),
    };
    let sorter = Sorter { name: call.operator.name, target, x, values, indices, lines, t, descending, keep, tile };
    if length <= i64::from(tile) {
        recipe.steps.push(sorter.chunks(&Source::Elements, &Sink::Outputs, length, keep));
    } else if keep <= i64::from(tile) / 2 {
        sorter.narrow(&mut recipe, length);
    } else {
        sorter.merge(&mut recipe, length);
    }
    Ok(recipe)
}

impl Sorter<'_> {
    /// Room for the pairs of lines of `length`, twice.
    fn rooms(&self, recipe: &mut Recipe, length: i64) -> [(View, View); 2] {
        let kept = self.lines.kept.count();
        let key = if compute(self.t).bytes() == 8 { DType::I64 } else { DType::I32 };
        let place = if self.lines.wide { DType::I64 } else { DType::I32 };
        let mut room = |t: DType| {
            let view = View::workspace(recipe.workspace_bytes, t, &[kept, length]);
            recipe.workspace_bytes += (view.elems() as u64 * t.bytes() as u64).next_multiple_of(16);
            view
        };
        [(room(key), room(place)), (room(key), room(place))]
    }

    /// Chunks of a tile keep their first k, until one chunk is left.
    fn narrow(&self, recipe: &mut Recipe, length: i64) {
        let chunks = ceil_div(length, self.tile.into());
        let rooms = self.rooms(recipe, chunks * self.keep);
        let (mut source, mut length, mut turn) = (Source::Elements, length, 0);
        while length > i64::from(self.tile) {
            let (keys, places) = rooms[turn].clone();
            recipe.steps.push(self.chunks(&source, &Sink::Pairs { keys: keys.clone(), places: places.clone() }, length, self.keep));
            length = ceil_div(length, self.tile.into()) * self.keep;
            source = Source::Pairs { keys, places };
            turn = 1 - turn;
        }
        recipe.steps.push(self.chunks(&source, &Sink::Outputs, length, self.keep));
    }

    /// Sorts each chunk of a tile; its first `keep` pairs go to the sink. A last chunk that is shorter leaves places past the end.
    fn chunks(&self, source: &Source, sink: &Sink, length: i64, keep: i64) -> Step {
        let (t, descending, tile, wide) = (self.t, self.descending, self.tile, self.lines.wide);
        let chunks = ceil_div(length, tile.into());
        let kept = self.lines.kept.count();
        let size = block(self.target, 4).max(tile);
        let ranked = is_cpu(self.target);
        // A driver in software compiles the network's steps for minutes, and its exchanges go through memory either way.
        let rolled = self.target.is_software();
        let cut = Cut { lines: if ranked { 1 } else { extent(kept, 1, size / tile) }, points: tile, inner: true };
        let key_elem = compute(t).as_int();
        let (from_pairs, to_pairs) = (matches!(source, Source::Pairs { .. }), matches!(sink, Sink::Pairs { .. }));
        let form = self.lines.form();
        let key = format!("{t} {form} {cut}{}{}{}", flag(descending, " down"), flag(from_pairs, " pairs"), flag(to_pairs, " to pairs"));
        let mut args = vec![self.x.arg];
        if let Source::Pairs { keys, places } = source {
            args.extend([keys.arg, places.arg]);
        }
        args.extend(match sink {
            Sink::Pairs { keys, places } => [keys.arg, places.arg],
            Sink::Outputs => [self.values.arg, self.indices.arg],
        });
        self.lines.args(&mut args);
        args.extend([length, chunks, keep].map(|v| integer(v, wide)));
        let place = index(wide);
        let code = Code { entry: entry(self.name), key, blocks: ceil_div(kept, cut.lines.into()) * chunks, args, aligned: false };
        code.sized(self.target, cut).step(
            move |c| {
                let x = c.pointer(memory(t));
                let pairs = if from_pairs { vec![c.pointer(key_elem), c.pointer(place)] } else { vec![] };
                let out = if to_pairs { [key_elem, place] } else { [memory(t), Elem::I64] };
                let out = out.iter().map(|e| c.pointer(*e)).collect();
                let (walk, scalar) = (form.declare(c), || c.k.scalar(place));
                Args { x, pairs, out, walk, length: scalar(), chunks: scalar(), keep: scalar() }
            },
            move |k, a, at| {
                let at = at.to(place);
                let (chunk, at) = (at.rem_unsigned(a.chunks), at.div_unsigned(a.chunks));
                let rows = a.walk.rows(k, cut, at);
                let points = a.walk.points(k, cut, chunk * i64::from(tile));
                let exist = rows.exist & points.lt(a.length);
                let last = most(k, key_elem);
                let (keys, places) = if from_pairs {
                    let at = rows.index * a.length + points;
                    ((a.pairs[0] + at).load_masked(exist, last), (a.pairs[1] + at).load_masked(exist, most(k, place)))
                } else {
                    let raw = (a.x + (rows.offsets[0] + a.walk.offsets(points)[0])).load_masked(exist, 0i64);
                    let places = exist.select(points.broadcast(&cut.shape()), most(k, place));
                    (exist.select(key_of(raw, t, descending), last), places)
                };
                let in_order = a.walk.points(k, cut, a.walk.int(k, 0));
                let (keys, places, rank) = match ranked {
                    true => (keys, places, ranks(k, keys, tile).to(place)),
                    false => {
                        let [keys, places] = bitonic(k, cut, rolled, [keys, places]);
                        (keys, places, in_order)
                    }
                };
                let chosen = rows.exist & rank.lt(a.keep);
                if to_pairs {
                    let at = (rows.index * a.chunks + chunk) * a.keep + rank;
                    (a.out[0] + at).store_masked(keys, chosen);
                    (a.out[1] + at).store_masked(places, chosen);
                } else {
                    leave(a.x, [a.out[0], a.out[1]], &a.walk, &rows, rank, places, chosen);
                }
            },
        )
    }

    /// Sorted chunks, then pairs of runs merged until one is left.
    fn merge(&self, recipe: &mut Recipe, length: i64) {
        let rooms = self.rooms(recipe, ceil_div(length, self.tile.into()) * i64::from(self.tile));
        let (keys, places) = rooms[0].clone();
        recipe.steps.push(self.chunks(&Source::Elements, &Sink::Pairs { keys, places }, length, self.tile.into()));
        // Runs are padded to whole tiles: pairs past the end stay past the end.
        let padded = ceil_div(length, self.tile.into()) * i64::from(self.tile);
        let (mut run, mut turn) = (i64::from(self.tile), 0);
        while run < padded {
            let last = run * 2 >= padded;
            recipe.steps.push(self.merge_step(&rooms[turn], &rooms[1 - turn], last, padded, run));
            run *= 2;
            turn = 1 - turn;
        }
    }

    /// Each pair finds its place in the merged run: its own plus the number of pairs of the other run before it.
    fn merge_step(&self, from: &(View, View), to: &(View, View), last: bool, padded: i64, run: i64) -> Step {
        let (t, wide, size) = (self.t, self.lines.wide, block(self.target, 8));
        let kept = self.lines.kept.count();
        let (key_elem, place) = (compute(t).as_int(), index(wide));
        let cut = Cut { lines: 1, points: extent(padded, 1, size), inner: true };
        let form = self.lines.form();
        let key = format!("merge {t} {form} {cut}{}", flag(last, " last"));
        let chunks = ceil_div(padded, cut.points.into());
        let mut args = vec![self.x.arg, from.0.arg, from.1.arg];
        args.extend(if last { [self.values.arg, self.indices.arg] } else { [to.0.arg, to.1.arg] });
        self.lines.args(&mut args);
        args.extend([padded, chunks, if last { self.keep } else { padded }, run].map(|v| integer(v, wide)));
        Code { entry: entry(self.name), key, blocks: kept * chunks, args, aligned: false }.step(
            self.target,
            move |c| {
                let (x, pairs) = (c.pointer(memory(t)), vec![c.pointer(key_elem), c.pointer(place)]);
                let out = if last { [memory(t), Elem::I64] } else { [key_elem, place] };
                let out = out.iter().map(|e| c.pointer(*e)).collect();
                let (walk, scalar) = (form.declare(c), || c.k.scalar(place));
                (Args { x, pairs, out, walk, length: scalar(), chunks: scalar(), keep: scalar() }, scalar())
            },
            move |k, (a, run), at| {
                let at = at.to(place);
                let (chunk, line) = (at.rem_unsigned(a.chunks), at.div_unsigned(a.chunks));
                let rows = a.walk.rows(k, cut, line);
                let points = a.walk.points(k, cut, chunk * i64::from(cut.points));
                let exist = rows.exist & points.lt(a.length);
                let base = rows.index * a.length;
                let read = |at: Expr, mask: Expr| ((a.pairs[0] + (base + at)).load_masked(mask, 0i64), (a.pairs[1] + (base + at)).load_masked(mask, 0i64));
                let (key, mine) = read(points, exist);
                let number = points.div_unsigned(*run);
                let (own, pair) = (points - number * *run, number & !1i64);
                let first = (number ^ 1i64) * *run;
                let there = (a.length - first).minimum(*run).maximum(0i64);
                // Pairs are all different: places are. The number before this one by bisection.
                let zero = k.zeros(&cut.shape(), place);
                let steps = k.int(place, i64::from(place.bits())) - leading_zeros(*run);
                let [low, _] = k.fold(a.walk.int(k, 0), steps, a.walk.int(k, 1), [zero, there], |_, [low, high]| {
                    let middle = (low + high).shr_unsigned(1i64);
                    let open = low.lt(high);
                    let (other, at) = read(first + middle, exist & open);
                    let before = open & (other.lt(key) | (other.equals(key) & at.lt(mine)));
                    [before.select(middle + 1i64, low), before.select(high, open.select(middle, high))]
                });
                let rank = pair * *run + own + low;
                if last {
                    leave(a.x, [a.out[0], a.out[1]], &a.walk, &rows, rank, mine, exist & rank.lt(a.keep));
                } else {
                    (a.out[0] + (base + rank)).store_masked(key, exist);
                    (a.out[1] + (base + rank)).store_masked(mine, exist);
                }
            },
        )
    }
}

fn flag(on: bool, text: &'static str) -> &'static str {
    if on { text } else { "" }
}

/// Zero bits above the highest set one.
fn leading_zeros(v: Expr) -> Expr {
    v.leading_zeros()
}

/// Writes the elements at `places` of their lines, and the places, to `rank`.
fn leave(x: Expr, out: [Expr; 2], walk: &LineWalk, rows: &crate::lines::Rows, rank: Expr, places: Expr, chosen: Expr) {
    let offsets = walk.offsets(rank);
    let value = (x + (rows.offsets[0] + walk.offsets(places)[0])).load_masked(chosen, 0i64);
    (out[0] + (rows.offsets[1] + offsets[1])).store_masked(value, chosen);
    (out[1] + (rows.offsets[2] + offsets[2])).store_masked(places.to(Elem::I64), chosen);
}
