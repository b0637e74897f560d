//! Convolution as a matrix product whose left factor is gathered from the images; few outputs per group are summed directly.

use flagos_backend_api::Result;
use flagos_catalog::Call;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::Target;

use crate::launch::{Code, Context, block, ceil_div};
use crate::matmul::{Tiles, types};
use crate::number::{accumulator, memory, narrow, supported, widen};
use crate::pointwise::entry;
use crate::space::{index, integer};
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("conv2d", cook)]
}

/// Names of the numbers a kernel takes, in order.
const NUMBERS: usize = 27;

struct Args {
    x: Expr,
    w: Expr,
    bias: Option<Expr>,
    y: Expr,
    n: [Expr; NUMBERS],
}

impl Args {
    fn declare(c: &Context, elem: flagos_compiler::Elem, at: flagos_compiler::Elem, biased: bool) -> Args {
        let p = || c.pointer(elem);
        Args { x: p(), w: p(), bias: biased.then(p), y: p(), n: core::array::from_fn(|_| c.k.scalar(at)) }
    }
    /// N, outputs per group, channels per group, groups.
    fn counts(&self) -> [Expr; 4] {
        [self.n[0], self.n[1], self.n[2], self.n[3]]
    }
    /// H, W of x; of y; of the kernel.
    fn image(&self) -> [Expr; 2] {
        [self.n[4], self.n[5]]
    }
    fn out(&self) -> [Expr; 2] {
        [self.n[6], self.n[7]]
    }
    fn kernel(&self) -> [Expr; 2] {
        [self.n[8], self.n[9]]
    }
    /// Strides in memory of x, w, y.
    fn strides(&self, operand: usize) -> [Expr; 4] {
        core::array::from_fn(|d| self.n[10 + operand * 4 + d])
    }
    fn bias_stride(&self) -> Expr {
        self.n[22]
    }
    /// Stride and padding along H and W; dilation is folded below.
    fn step(&self) -> [Expr; 2] {
        [self.n[23], self.n[24]]
    }
    fn padding(&self) -> [Expr; 2] {
        [self.n[25], self.n[26]]
    }
}

/// Dilation is a number of its own: it follows the others.
struct Whole {
    args: Args,
    dilation: [Expr; 2],
}

/// A point of y's images (n, i, j), where its window begins in x.
struct Pixel {
    /// Offset in x of channel 0 at (0, 0) of the image.
    image: Expr,
    /// Row and column of x the window begins at.
    from: [Expr; 2],
    /// Offset in y of output 0.
    y: Expr,
}

impl Whole {
    fn pixel(&self, flat: Expr) -> Pixel {
        let a = &self.args;
        let ([oh, ow], [xn, ..], [yn, _, yh, yw]) = (a.out(), a.strides(0), a.strides(2));
        let (j, rest) = (flat.rem_unsigned(ow), flat.div_unsigned(ow));
        let (i, n) = (rest.rem_unsigned(oh), rest.div_unsigned(oh));
        let from = [i * a.step()[0] - a.padding()[0], j * a.step()[1] - a.padding()[1]];
        Pixel { image: n * xn, from, y: n * yn + i * yh + j * yw }
    }
    /// Offset in x of a window's element (channel, p, q), and whether it is inside of the image.
    fn at(&self, pixel: &Pixel, channel: Expr, p: Expr, q: Expr) -> (Expr, Expr) {
        let a = &self.args;
        let ([height, width], [_, xc, xh, xw]) = (a.image(), a.strides(0));
        let (row, column) = (pixel.from[0] + p * self.dilation[0], pixel.from[1] + q * self.dilation[1]);
        let inside = row.ge(0i64) & row.lt(height) & column.ge(0i64) & column.lt(width);
        (pixel.image + (channel * xc + row * xh + column * xw), inside)
    }
    /// Channel, p, q of a flat place in a kernel.
    fn tap(&self, flat: Expr) -> [Expr; 3] {
        let [kh, kw] = self.args.kernel();
        let rest = flat.div_unsigned(kw);
        [rest.div_unsigned(kh), rest.rem_unsigned(kh), flat.rem_unsigned(kw)]
    }
    fn weight(&self, [c, p, q]: [Expr; 3]) -> Expr {
        let [_, wc, wh, ww] = self.args.strides(1);
        c * wc + p * wh + q * ww
    }
}

fn cook(call: &Call, target: &Target) -> Result<Recipe> {
    let (x, w, y) = (View::input(call, 0), View::input(call, 1), View::output(call, 0));
    let t = y.dtype;
    supported([t], target)?;
    let mut recipe = Recipe { deterministic: true, ..Recipe::default() };
    if y.elems() == 0 {
        return Ok(recipe);
    }
    let bias = (!call.inputs[2].is_none()).then(|| View::input(call, 2));
    let groups = call.attrs.int("groups");
    let (per_out, per_in) = (w.shape[0] / groups, w.shape[1]);
    let pixels = y.shape[0] * y.shape[2] * y.shape[3];
    let depth = per_in * w.shape[2] * w.shape[3];
    let pair = |name: &str| [call.attrs.ints(name)[0], call.attrs.ints(name)[1]];
    let (stride, padding, dilation) = (pair("stride"), pair("padding"), pair("dilation"));
    let mut numbers = vec![y.shape[0], per_out, per_in, groups, x.shape[2], x.shape[3], y.shape[2], y.shape[3], w.shape[2], w.shape[3]];
    [&x, &w, &y].iter().for_each(|v| numbers.extend(&v.stride));
    numbers.push(bias.as_ref().map_or(0, |b| b.stride[0]));
    numbers.extend([stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]]);
    let reach = |v: &View| v.shape.iter().zip(&v.stride).map(|(n, s)| n.saturating_mul(s.abs())).fold(0i64, i64::saturating_add);
    let window = |d: usize| (y.shape[2 + d] * stride[d]).saturating_add(w.shape[2 + d].saturating_mul(dilation[d])).saturating_add(padding[d]);
    let beyond = (0..2).map(|d| window(d).saturating_mul(x.stride[2 + d].abs())).fold(0i64, i64::saturating_add);
    let all = [&x, &w, &y].map(reach).into_iter().fold(beyond, i64::saturating_add).saturating_add(pixels).saturating_add(depth);
    let wide = all >= 1 << 30 || numbers.iter().any(|n| n.abs() >= 1 << 30);
    let mut args: Vec<Arg> = vec![x.arg, w.arg];
    let biased = bias.is_some();
    args.extend(bias.map(|b| b.arg));
    args.push(y.arg);
    args.extend(numbers.iter().map(|n| integer(*n, wide)));
    let at = index(wide);
    let elem = memory(t);
    let declare = move |c: &Context| {
        let args = Args::declare(c, elem, at, biased);
        Whole { args, dilation: [c.k.scalar(at), c.k.scalar(at)] }
    };
    let name = entry(call.operator.name);
    let flags = format!("{}{}", if biased { " bias" } else { "" }, if wide { " w" } else { "" });
    if per_out < 8 || depth < 8 {
        // A thread per element of y: neighbours share their window's weights and run along the image.
        let size = block(target, 4);
        let blocks = ceil_div(pixels, size.into()) * w.shape[0];
        let code = Code { entry: name, key: format!("direct {t} {size}{flags}"), blocks, args, aligned: true };
        recipe.steps.push(code.step(target, declare, move |k, a, b| direct(k, a, b, size, t, wide)));
        return Ok(recipe);
    }
    let (factor, _) = types(t);
    let tiles = Tiles::of(target, factor, [pixels, per_out, depth], 1, false);
    let blocks = ceil_div(pixels, tiles.m.into()) * ceil_div(per_out, tiles.n.into()) * groups;
    let code = Code { entry: name, key: format!("product {t} {tiles}{flags}"), blocks, args, aligned: true };
    recipe.steps.push(code.threads(tiles.threads).step(declare, move |k, a, b| product(k, a, b, tiles, t, wide)));
    Ok(recipe)
}

fn tiles_of(n: Expr, size: u32) -> Expr {
    (n + (i64::from(size) - 1)).div_unsigned(i64::from(size))
}

fn direct(k: &Kernel, a: &Whole, block: Expr, size: u32, t: flagos_backend_api::DType, wide: bool) {
    let (sum, at) = (accumulator(t), index(wide));
    let [n, per_out, per_in, _] = a.args.counts();
    let pixels = n * a.args.out()[0] * a.args.out()[1];
    let parts = tiles_of(pixels, size);
    let (o, part) = (block.to(at).div_unsigned(parts), block.to(at).rem_unsigned(parts));
    let flat = part * i64::from(size) + k.arange(size);
    let exist = flat.lt(pixels);
    let pixel = a.pixel(flat);
    let first = o.div_unsigned(per_out) * per_in;
    let [kh, kw] = a.args.kernel();
    let depth = per_in * kh * kw;
    let weights = a.args.w + o * a.args.strides(1)[0];
    let [total] = k.fold(k.int(at, 0), depth, k.int(at, 1), [k.zeros(&[size], sum)], |tap, [total]| {
        let [c, p, q] = a.tap(tap);
        let weight = widen((weights + a.weight([c, p, q])).load(), t, sum);
        let (offset, inside) = a.at(&pixel, first + c, p, q);
        let inside = inside & exist;
        let v = widen((a.args.x + offset).load_masked(inside, 0i64), t, sum);
        // Weights that are not finite meet no padding.
        [total + inside.select(v * weight, 0.0)]
    });
    let total = match a.args.bias {
        Some(b) => total + widen((b + o * a.args.bias_stride()).load(), t, sum),
        None => total,
    };
    (a.args.y + (pixel.y + o * a.args.strides(2)[1])).store_masked(narrow(total, t), exist);
}

fn product(k: &Kernel, a: &Whole, block: Expr, tiles: Tiles, t: flagos_backend_api::DType, wide: bool) {
    let (factor, sum) = types(t);
    let at = index(wide);
    let [n, per_out, per_in, _] = a.args.counts();
    let pixels = n * a.args.out()[0] * a.args.out()[1];
    let (down, across) = (tiles_of(pixels, tiles.m), tiles_of(per_out, tiles.n));
    let block = block.to(at);
    let (group, within) = (block.div_unsigned(down * across), block.rem_unsigned(down * across));
    let row = (within.div_unsigned(across) * i64::from(tiles.m) + k.arange(tiles.m)).expand(1);
    let column = (within.rem_unsigned(across) * i64::from(tiles.n) + k.arange(tiles.n)).expand(0);
    let pixel = a.pixel(row);
    let output = group * per_out + column;
    let (first, [kh, kw]) = (group * per_in, a.args.kernel());
    let depth = per_in * kh * kw;
    let (rows, columns) = (row.lt(pixels), column.lt(per_out));
    let start = [k.zeros(&[tiles.m, tiles.n], sum)];
    let [total] = k.fold(k.int(at, 0), depth, k.int(at, tiles.k.into()), start, |tap, [total]| {
        let (along, down) = ((tap + k.arange(tiles.k)).expand(0), (tap + k.arange(tiles.k)).expand(1));
        let [c, p, q] = a.tap(along);
        let (offset, inside) = a.at(&pixel, first + c, p, q);
        let v = (a.args.x + offset).load_masked(inside & rows & along.lt(depth), 0i64);
        let weight = (a.args.w + (a.weight(a.tap(down)) + output * a.args.strides(1)[0])).load_masked(columns & down.lt(depth), 0i64);
        [widen(v, t, factor).dot(widen(weight, t, factor), total)]
    });
    let total = match a.args.bias {
        Some(b) => total + widen((b + output * a.args.bias_stride()).load_masked(columns, 0i64), t, sum),
        None => total,
    };
    (a.args.y + (pixel.y + output * a.args.strides(2)[1])).store_masked(narrow(total, t), rows & columns);
}
