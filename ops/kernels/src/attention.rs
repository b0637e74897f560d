//! Attention in one pass over the keys: running maximum, running sum, and the output rescaled as they change.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, Context, ceil_div, extent, is_cpu, threads};
use crate::number::{accumulator, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{Space, Walk, index};
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("scaled_dot_product_attention", cook)]
}

/// Tiles that keep a large chip at work.
const ENOUGH_BLOCKS: i64 = 96;

/// Bytes of shared memory for two rounds of 128 keys and values of 128 columns of two bytes, and for as many queries.
const DEEP: u32 = 176 << 10;

/// A block's tiles: queries, keys, columns of q and k at a time, columns of v; its threads, and the rounds that are under way at once.
#[derive(Clone, Copy)]
struct Tiles {
    l: u32,
    s: u32,
    e: u32,
    ev: u32,
    threads: u32,
    stages: u32,
}

impl Tiles {
    /// What suits a target for l queries and s keys of width e and values of width ev.
    fn of(target: &Target, factor: Elem, sum: Elem, [l, s, e, ev]: [i64; 4], batch: i64) -> Tiles {
        let threads = threads(target);
        if is_cpu(target) {
            return Tiles { l: extent(l, 1, 16), s: extent(s, 1, 64), e: extent(e, 1, 128), ev: extent(ev, 1, 128), threads, stages: 1 };
        }
        let unit = target.matrix.iter().any(|m| m.factor == factor && m.sum == sum);
        if unit && factor.bytes() == 2 && target.opens_fragments() && l > 16 && e <= 128 {
            // A subgroup takes 16 queries: their logits, weights and sums never leave its registers. Measured on an H100 (4×32×2048×128, causal):
            // 128 queries by 128 keys 640 µs, 64 by 64 650 µs, 128 by 64 680 µs, 64 by 128 810 µs; a third round under way costs 5 to 25 %.
            let many = ceil_div(l, 128) * batch * ceil_div(ev, 128) >= ENOUGH_BLOCKS;
            let l = extent(l, 32, if many { 128 } else { 64 });
            let most = if l == 128 && target.shared_bytes >= DEEP { 128 } else { 64 };
            return Tiles { l, s: extent(s, 16, most), e: extent(e, 16, 128), ev: extent(ev, 16, 128), threads: l * 2, stages: 2 };
        }
        // What of q, k and v is in shared memory at a time stays within 32 KiB.
        let most = if sum == Elem::F64 { 32 } else { 64 };
        Tiles { l: extent(l, 16, most / 2), s: extent(s, 16, 32), e: extent(e, 16, most), ev: extent(ev, 16, most), threads, stages: 1 }
    }
}

/// Operands in the order of offsets.
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const MASK: usize = 3;
const Y: usize = 4;

#[derive(Clone, Copy, PartialEq)]
enum Hide {
    Nothing,
    Causal,
    Bool,
    Add,
}

/// Where logits are scaled.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// At once.
    Early,
    /// In the exponent of 2, together with what they are relative to: what two-byte weights can tell apart, for half of the instructions.
    Late,
}

struct Args {
    q: Expr,
    k: Expr,
    v: Expr,
    mask: Option<Expr>,
    y: Expr,
    batch: Walk,
    l: Walk,
    s: Walk,
    e: Walk,
    ev: Walk,
    scale: Expr,
}

fn cook(call: &Call, target: &Target) -> Result<Recipe> {
    let [q, k, v] = [0, 1, 2].map(|i| View::input(call, i));
    let y = View::output(call, 0);
    let t = y.dtype;
    supported([t], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if y.elems() == 0 {
        return Ok(recipe);
    }
    let r = q.shape.len() - 2;
    let (l, e, s, ev) = (q.shape[r], q.shape[r + 1], k.shape[r], v.shape[r + 1]);
    let lead = q.shape[..r].to_vec();
    let mask = (!call.inputs[3].is_none()).then(|| View::input(call, 3));
    let full = [&lead[..], &[l, s]].concat();
    let m = mask.as_ref().map_or_else(|| vec![0; r + 2], |m| m.strides_in(&full));
    let hide = match &mask {
        Some(m) if m.dtype.is_bool() => Hide::Bool,
        Some(_) => Hide::Add,
        None if call.attrs.boolean("is_causal") => Hide::Causal,
        None => Hide::Nothing,
    };
    let batch = Space::new(5, (0..r).map(|d| (lead[d], vec![q.stride[d], k.stride[d], v.stride[d], m[d], y.stride[d]])));
    let of_l = Space::line(5, (l, vec![q.stride[r], 0, 0, m[r], y.stride[r]]));
    let of_s = Space::line(5, (s, vec![0, k.stride[r], v.stride[r], m[r + 1], 0]));
    let of_e = Space::line(5, (e, vec![q.stride[r + 1], k.stride[r + 1], 0, 0, 0]));
    let of_ev = Space::line(5, (ev, vec![0, 0, v.stride[r + 1], 0, y.stride[r + 1]]));
    let spaces = [&batch, &of_l, &of_s, &of_e, &of_ev];
    let wide = spaces.iter().map(|s| s.reach()).fold(0i64, i64::saturating_add) >= 1 << 30;
    let (elem, sum) = (memory(t), accumulator(t));
    let tiles = Tiles::of(target, elem, sum, [l, s, e, ev], batch.count());
    let parts = ceil_div(ev, tiles.ev.into());
    let blocks = batch.count() * ceil_div(l, tiles.l.into()) * parts;
    let forms = spaces.map(|s| s.form(wide));
    let note = ["", " causal", " bool", " add"][hide as usize];
    let single = e <= i64::from(tiles.e);
    let given = match call.attrs.float("scale") {
        0.0 => 1.0 / (e as f64).sqrt(),
        given => given,
    };
    let scale = if elem.bytes() == 2 && hide != Hide::Add { Scale::Late } else { Scale::Early };
    let (turned, factor) = if scale == Scale::Late { (given < 0.0, given.abs() * std::f64::consts::LOG2_E) } else { (false, given) };
    let fused = target.fuses(sum);
    let key = format!(
        "{t} {}x{}x{}x{}{note}{} {}",
        tiles.l,
        tiles.s,
        tiles.e,
        tiles.ev,
        [(single, " single"), (turned, " turned")].map(|(on, text)| if on { text } else { "" }).concat(),
        forms.iter().map(|f| f.to_string()).collect::<Vec<_>>().join(" ")
    );
    let mask_elem = mask.as_ref().map(|m| memory(m.dtype));
    let mut args: Vec<Arg> = vec![q.arg, k.arg, v.arg];
    args.extend(mask.map(|m| m.arg));
    args.push(y.arg);
    spaces.iter().for_each(|s| s.args(wide, &mut args));
    args.push(match sum {
        Elem::F64 => Arg::Scalar { bits: factor.to_bits(), bytes: 8 },
        _ => Arg::Scalar { bits: (factor as f32).to_bits().into(), bytes: 4 },
    });
    let code = Code { entry: entry(call.operator.name), key, blocks, args, aligned: true };
    recipe.steps.push(code.threads(tiles.threads).stages(tiles.stages).step(
        move |c: &Context| {
            let p = || c.pointer(elem);
            let (q, k, v, mask, y) = (p(), p(), p(), mask_elem.map(|e| c.pointer(e)), p());
            let [batch, l, s, e, ev] = [0, 1, 2, 3, 4].map(|i| forms[i].declare(c.k));
            Args { q, k, v, mask, y, batch, l, s, e, ev, scale: c.k.scalar(sum) }
        },
        move |k, a, at| Block { k, a, tiles, t, sum, hide, scale, turned, fused, single, elem: index(wide) }.run(at.to(index(wide))),
    ));
    Ok(recipe)
}

struct Block<'a> {
    k: &'a Kernel,
    a: &'a Args,
    tiles: Tiles,
    t: DType,
    sum: Elem,
    hide: Hide,
    scale: Scale,
    /// The scale is below 0: logits change their sign.
    turned: bool,
    /// A product and a sum are one instruction.
    fused: bool,
    single: bool,
    elem: Elem,
}

impl Block<'_> {
    fn run(&self, at: Expr) {
        let Block { k, a, tiles, t, sum, elem, .. } = *self;
        let (l, s, ev) = (a.l.count(k), a.s.count(k), a.ev.count(k));
        let tiles_of = |n: Expr, size: u32| (n + (i64::from(size) - 1)).div_unsigned(i64::from(size));
        let (parts, down) = (tiles_of(ev, tiles.ev), tiles_of(l, tiles.l));
        let (part, rest) = (at.rem_unsigned(parts), at.div_unsigned(parts));
        let (at, batch) = (rest.rem_unsigned(down), rest.div_unsigned(down));
        // The last queries see the most keys: what takes longest begins first.
        let at = if self.hide == Hide::Causal { down - 1i64 - at } else { at };
        let first = at * i64::from(tiles.l);
        let base = a.batch.offsets(batch);
        let query = (first + k.arange(tiles.l)).expand(1);
        let queries = a.l.offsets(query);
        let column = (part * i64::from(tiles.ev) + k.arange(tiles.ev)).expand(0);
        let columns = a.ev.offsets(column);
        let rows = query.lt(l);
        // The first key that a query does not see.
        let limit = if self.hide == Hide::Causal { s.minimum(query + 1i64) } else { s };
        // Later keys are hidden from every query of the block.
        let end = if self.hide == Hide::Causal { s.minimum(first + i64::from(tiles.l)) } else { s };
        let loaded = self.single.then(|| self.query(&base, &queries, rows, k.int(elem, 0)));
        let initial = [
            k.full(&[tiles.l, 1], sum, f64::NEG_INFINITY),
            k.zeros(&[tiles.l, 1], sum),
            k.zeros(&[tiles.l, tiles.ev], sum),
        ];
        // Keys below are seen by every query of the block.
        let clear = match self.hide {
            Hide::Nothing => Some(s),
            Hide::Causal => Some(s.minimum(first + 1i64)),
            Hide::Bool | Hide::Add => None,
        };
        let [_, total, y] = k.fold(k.int(elem, 0), end, k.int(elem, tiles.s.into()), initial, |start, [most, total, y]| {
            let key = (start + k.arange(tiles.s)).expand(0);
            let keys = a.s.offsets(key);
            let logits = self.logits(&base, &queries, rows, start, loaded);
            let logits = if self.scale == Scale::Late { logits } else { logits * a.scale };
            let hidden = || self.hidden(logits, key, limit, &base, &queries, &keys, rows);
            let logits = match clear {
                Some(clear) => k.choose((start + i64::from(tiles.s)).le(clear), || [logits], || [hidden()])[0],
                None => hidden(),
            };
            let now = most.maximum(logits.max(1).expand(1));
            let (weights, before) = self.weights(logits, now, most);
            let down = (start + k.arange(tiles.s)).expand(1);
            let values = (a.v + (base[V] + a.s.offsets(down)[V] + columns[V])).load_masked(down.lt(s) & column.lt(ev), 0i64);
            [now, total * before + weights.sum(1).expand(1), narrow(weights, t).dot(values, y * before)]
        });
        // Nothing seen gives 0.
        let y = y * (k.float(sum, 1.0).splat(&total.shape()) / total.equals(0.0).select(1.0, total));
        (a.y + (base[Y] + queries[Y] + columns[Y])).store_masked(narrow(y, t), rows & column.lt(ev));
    }

    /// What logits weigh relative to the greatest, and what weights relative to the one before are multiplied by.
    fn weights(&self, logits: Expr, now: Expr, before: Expr) -> (Expr, Expr) {
        // All hidden so far: whatever they are relative to, their weights are 0.
        let zero = |from: Expr| now.equals(f64::NEG_INFINITY).select(0.0, from);
        match self.scale {
            Scale::Early => {
                let from = zero(now);
                ((logits - from).exp(), (before - from).exp())
            }
            Scale::Late => {
                let (scale, from) = (self.a.scale, zero(now * self.a.scale));
                let power = |x: Expr| if self.fused { x.fma(scale, -from).exp2() } else { (x * scale - from).exp2() };
                (power(logits), power(before))
            }
        }
    }

    /// A part of the queries' columns.
    fn query(&self, base: &[Expr], queries: &[Expr], rows: Expr, from: Expr) -> Expr {
        let (k, a) = (self.k, self.a);
        let e = (from + k.arange(self.tiles.e)).expand(0);
        (a.q + (base[Q] + queries[Q] + a.e.offsets(e)[Q])).load_masked(rows & e.lt(a.e.count(k)), 0i64)
    }

    /// q·kᵀ for keys from `start` on.
    fn logits(&self, base: &[Expr], queries: &[Expr], rows: Expr, start: Expr, loaded: Option<Expr>) -> Expr {
        let Block { k, a, tiles, sum, elem, .. } = *self;
        let key = (start + k.arange(tiles.s)).expand(0);
        let (keys, s, width) = (a.s.offsets(key), a.s.count(k), a.e.count(k));
        let part = |from: Expr, q: Expr, sum: Expr| {
            let e = (from + k.arange(tiles.e)).expand(1);
            let rows = (a.k + (base[K] + keys[K] + a.e.offsets(e)[K])).load_masked(key.lt(s) & e.lt(width), 0i64);
            q.dot(rows, sum)
        };
        let zero = k.zeros(&[tiles.l, tiles.s], sum);
        let logits = match loaded {
            Some(q) => part(k.int(elem, 0), q, zero),
            None => {
                let step = k.int(elem, tiles.e.into());
                let [logits] = k.fold(k.int(elem, 0), width, step, [zero], |from, [sum]| [part(from, self.query(base, queries, rows, from), sum)]);
                logits
            }
        };
        if self.turned { -logits } else { logits }
    }

    /// Logits with -∞ where a key is hidden or past the end, and the mask added.
    #[allow(clippy::too_many_arguments)] // a tile's rows and columns, with their offsets
    fn hidden(&self, logits: Expr, key: Expr, limit: Expr, base: &[Expr], queries: &[Expr], keys: &[Expr], rows: Expr) -> Expr {
        let mut seen = key.lt(limit);
        let mut logits = logits;
        let mask = |m: Expr| (m + (base[MASK] + queries[MASK] + keys[MASK])).load_masked(rows & key.lt(limit), 0i64);
        match (self.hide, self.a.mask) {
            (Hide::Bool, Some(m)) => seen = seen & mask(m).differs(0i64),
            (Hide::Add, Some(m)) => logits = logits + widen(mask(m), self.t, self.sum),
            _ => {}
        }
        seen.select(logits, f64::NEG_INFINITY)
    }
}
