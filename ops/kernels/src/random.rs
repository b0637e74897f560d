//! Random numbers: Philox blocks spread over the output as the catalogue's module says.

use flagos_backend_api::{DType, Result};
use flagos_catalog::Call;
use flagos_compiler::build::{Expr, Kernel};
use flagos_compiler::{Elem, Target};

use crate::launch::{Code, block, ceil_div, is_cpu};
use crate::number::{compute, memory, narrow, supported};
use crate::pointwise::entry;
use crate::space::{Space, Walk, index, integer};
use crate::{Arg, Cook, Recipe, View};

/// The family's recipes.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    vec![("uniform", uniform), ("normal", normal)]
}

/// Words of the block at a counter of two words, by a key of two (all i32).
fn philox(k: &Kernel, counter: [Expr; 2], key: [Expr; 2]) -> [Expr; 4] {
    let word = |w: u32| i64::from(w as i32);
    let zero = k.int(Elem::I32, 0).splat(&counter[0].shape());
    let ([mut a, mut b], [mut c, mut d], [mut k0, mut k1]) = (counter, [zero, zero], key);
    for _ in 0..10 {
        let (p, q) = (k.int(Elem::I32, word(0xd251_1f53)), k.int(Elem::I32, word(0xcd9e_8d57)));
        let (high_p, low_p, high_q, low_q) = (a.mul_high_unsigned(p), a * p, c.mul_high_unsigned(q), c * q);
        (a, b, c, d) = (high_q ^ b ^ k0, low_q, high_p ^ d ^ k1, low_p);
        (k0, k1) = (k0 + word(0x9e37_79b9), k1 + word(0xbb67_ae85));
    }
    [a, b, c, d]
}

/// Uniform in [0, 1) from a word, or (0, 1] one step on.
fn unit24(word: Expr, open: bool) -> Expr {
    let bits = word.shr_unsigned(8i64);
    (if open { bits + 1i64 } else { bits }).to(Elem::F32) * 2f64.powi(-24)
}

/// Uniform in [0, 1) from two words, or (0, 1] one step on.
fn unit53(high: Expr, low: Expr, open: bool) -> Expr {
    let bits = high.shr_unsigned(5i64).to(Elem::I64) << 26i64 | low.shr_unsigned(6i64).to(Elem::I64);
    (if open { bits + 1i64 } else { bits }).to(Elem::F64) * 2f64.powi(-53)
}

/// The numbers of one block, in order.
type Draw = fn(&Kernel, [Expr; 4], Expr, Expr) -> Vec<Expr>;

fn uniform(call: &Call, target: &Target) -> Result<Recipe> {
    let (low, high) = (call.attrs.float("low"), call.attrs.float("high"));
    let wide: Draw = |_, w, low, span| (0..2).map(|i| low + unit53(w[2 * i], w[2 * i + 1], false) * span).collect();
    let narrow: Draw = |_, w, low, span| w.iter().map(|w| low + unit24(*w, false) * span).collect();
    fill(call, target, if call.outputs[0].dtype == DType::F64 { wide } else { narrow }, low, high - low)
}

/// mean + std·√(-2 ln u1)·(cos, sin) 2πu2.
fn pair(u1: Expr, u2: Expr, mean: Expr, std: Expr) -> [Expr; 2] {
    let (r, angle) = ((u1.log() * -2.0).sqrt(), u2 * core::f64::consts::TAU);
    [mean + r * angle.cos() * std, mean + r * angle.sin() * std]
}

fn normal(call: &Call, target: &Target) -> Result<Recipe> {
    let (mean, std) = (call.attrs.float("mean"), call.attrs.float("std"));
    let wide: Draw = |_, w, mean, std| pair(unit53(w[0], w[1], true), unit53(w[2], w[3], false), mean, std).to_vec();
    let narrow: Draw = |_, w, mean, std| (0..2).flat_map(|i| pair(unit24(w[2 * i], true), unit24(w[2 * i + 1], false), mean, std)).collect();
    fill(call, target, if call.outputs[0].dtype == DType::F64 { wide } else { narrow }, mean, std)
}

/// Tiles of n as one of n×2 or n×2×2 whose last axes, row-major, run through them.
fn interleave(values: &[Expr]) -> Expr {
    match values {
        [a, b] => a.join(*b),
        [a, b, c, d] => a.join(*c).join(b.join(*d)),
        _ => unreachable!("blocks have two or four numbers"),
    }
}

struct Args {
    seed: Expr,
    stride: Expr,
    y: Expr,
    walk: Walk,
    n: Expr,
    base: Expr,
    factor: Expr,
}

fn fill(call: &Call, target: &Target, draw: Draw, base: f64, factor: f64) -> Result<Recipe> {
    let (seed, y) = (View::input(call, 0), View::output(call, 0));
    supported([y.dtype, DType::U64], target)?;
    let (t, n) = (y.dtype, y.elems());
    if n == 0 {
        return Ok(Recipe { deterministic: true, ..Recipe::default() });
    }
    let space = Space::of(&y.shape, &[&y]);
    let (wide, elem) = (space.wide(), compute(t));
    let each: i64 = if elem == Elem::F64 { 2 } else { 4 };
    // A processor keeps the words of as many blocks in memory of its own.
    let size = if is_cpu(target) { 64 } else { (block(target, memory(t).bytes()) / each as u32).max(32) };
    let form = space.form(wide);
    // Loops over elements would compute a block for each of its numbers.
    let apart = is_cpu(target);
    let number = |v: f64| match elem {
        Elem::F64 => Arg::Scalar { bits: v.to_bits(), bytes: 8 },
        _ => Arg::Scalar { bits: (v as f32).to_bits().into(), bytes: 4 },
    };
    let mut args = vec![seed.arg, y.arg, Arg::Scalar { bits: seed.stride[0] as u64, bytes: 8 }];
    space.args(wide, &mut args);
    args.extend([integer(n, wide), number(base), number(factor)]);
    let key = format!("{t} {form} {size}");
    let step = Code { entry: entry(call.operator.name), key, blocks: ceil_div(n, each * i64::from(size)), args, aligned: true }.step(
        target,
        move |c| {
            let (seed, y, stride) = (c.k.pointer(Elem::I64), c.pointer(memory(t)), c.k.i64());
            Args { seed, stride, y, walk: form.declare(c.k), n: c.k.scalar(index(wide)), base: c.k.scalar(elem), factor: c.k.scalar(elem) }
        },
        move |k, a, at| {
            let (seed, offset) = (a.seed.load(), (a.seed + a.stride).load());
            let number = at.to(index(wide)) * i64::from(size) + k.arange(size);
            let words = |v: Expr| [v.to(Elem::I32), v.shr_unsigned(32i64).to(Elem::I32)];
            let w = philox(k, words(offset + number.to(Elem::I64)), words(seed));
            let values: Vec<Expr> = draw(k, w, a.base, a.factor).into_iter().map(|v| narrow(v, t)).collect();
            let store = |i: Expr, value: Expr| (a.y + a.walk.offsets(i)[0]).store_masked(value, i.lt(a.n));
            if apart {
                values.into_iter().enumerate().for_each(|(j, value)| store(number * each + j as i64, value));
            } else {
                // A thread's numbers are neighbours: written together.
                let all = size * each as u32;
                let first = at.to(index(wide)) * i64::from(all);
                store(first + k.arange(all), interleave(&values).reshape(&[all]));
            }
        },
    );
    Ok(Recipe { steps: vec![step], workspace_bytes: 0, deterministic: true })
}
