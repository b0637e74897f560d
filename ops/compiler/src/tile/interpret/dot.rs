//! Matrix products.

use crate::Elem;
use crate::thread::interpret::scalar;
use crate::tile::{Function, Op, OpKind, number};

use super::{Datum, Found, Wrong};

/// Elements that share a scale in `tt.dot_scaled`.
const SCALED: usize = 32;

/// Computes `tt.dot` and `tt.dot_scaled`.
pub(super) fn evaluate(f: &Function, op: &Op, operands: &[Datum]) -> Found<Datum> {
    let c_shape = f.ty(op.operands[2]).shape();
    let rank = c_shape.len();
    let (m, n) = (c_shape[rank - 2] as usize, c_shape[rank - 1] as usize);
    let sum = f.ty(op.operands[2]).elem().unwrap_or(Elem::F32);
    let c = operands[2].bits()?;
    if let OpKind::DotScaled { formats, scales, pack_k } = &op.kind {
        if rank != 2 {
            return Err(Wrong::new("a scaled product of rank 3"));
        }
        let mut next = 3;
        let mut factors = Vec::new();
        for i in 0..2 {
            let scale = if scales[i] { Some(operands[next].bits()?) } else { None };
            next += usize::from(scales[i]);
            factors.push(scaled(f, op, operands, i, &formats[i], scale, pack_k[i])?);
        }
        let (a, b) = (&factors[0], &factors[1]);
        if a.rows != m || b.rows != n || a.depth != b.depth {
            return Err(Wrong(format!("{}×{} times {}×{} is not {m}×{n}", a.rows, a.depth, b.depth, b.rows)));
        }
        let mut out = Vec::with_capacity(m * n);
        for i in 0..m {
            for j in 0..n {
                let products: f64 = (0..a.depth).map(|k| a.values[i * a.depth + k] * b.values[j * a.depth + k]).sum();
                out.push(number::round_to(sum, products + scalar::float(sum, c[i * n + j])));
            }
        }
        return Ok(Datum::many(out));
    }
    let factor = |i: usize| f.ty(op.operands[i]).elem().unwrap_or(Elem::F32);
    let depth = f.ty(op.operands[0]).shape()[rank - 1] as usize;
    let (a, b) = (operands[0].bits()?, operands[1].bits()?);
    let mut out = Vec::with_capacity(c.len());
    if factor(0).is_int() {
        let value = |e: Elem, bits: &[u64]| bits.iter().map(|b| scalar::signed(e, *b)).collect::<Vec<_>>();
        let (a, b) = (value(factor(0), a), value(factor(1), b));
        products(m, n, depth, c.len(), |i, j, ks, base| {
            let total = ks.fold(0i64, |t, k| t.wrapping_add(a[i + k].wrapping_mul(b[j + k * n])));
            out.push(c[base].wrapping_add(total as u64) & scalar::mask(sum));
        });
    } else {
        let value = |e: Elem, bits: &[u64]| bits.iter().map(|b| scalar::float(e, *b)).collect::<Vec<_>>();
        let (a, b) = (value(factor(0), a), value(factor(1), b));
        products(m, n, depth, c.len(), |i, j, ks, base| {
            let total: f64 = ks.fold(0.0, |t, k| t + a[i + k] * b[j + k * n]);
            out.push(number::round_to(sum, total + scalar::float(sum, c[base])));
        });
    }
    Ok(Datum::many(out))
}

/// Calls `f` for each element of the result with where its row and column start, the depth, and its own place.
fn products(m: usize, n: usize, depth: usize, total: usize, mut f: impl FnMut(usize, usize, core::ops::Range<usize>, usize)) {
    for place in 0..total {
        let (batch, within) = (place / (m * n), place % (m * n));
        f((batch * m + within / n) * depth, batch * depth * n + within % n, 0..depth, place);
    }
}

/// A factor of a scaled product: row by row (for the right one: column by column), values times scales.
struct Factor {
    rows: usize,
    depth: usize,
    values: Vec<f64>,
}

fn scaled(f: &Function, op: &Op, operands: &[Datum], side: usize, format: &str, scales: Option<&[u64]>, pack_k: bool) -> Found<Factor> {
    let ty = f.ty(op.operands[side]);
    let (shape, elem) = (ty.shape(), ty.elem().unwrap_or(Elem::I8));
    let bits = operands[side].bits()?;
    let packed = format == "e2m1";
    // Along the depth last, along rows first, for both sides.
    let (mut rows, mut depth) = if side == 0 { (shape[0] as usize, shape[1] as usize) } else { (shape[1] as usize, shape[0] as usize) };
    let stored = |row: usize, k: usize| bits[if side == 0 { row * shape[1] as usize + k } else { k * shape[1] as usize + row }];
    if packed {
        if pack_k { depth *= 2 } else { rows *= 2 }
    }
    let read = match format {
        "e4m3" => Elem::F8E4M3,
        "e5m2" => Elem::F8E5M2,
        "bf16" => Elem::BF16,
        "fp16" => Elem::F16,
        "e2m1" => elem,
        other => return Err(Wrong(format!("factors of format {other}"))),
    };
    let per_row = scales.map(|s| s.len() / rows.max(1));
    let mut values = Vec::with_capacity(rows * depth);
    for row in 0..rows {
        for k in 0..depth {
            let value = match (packed, pack_k) {
                (false, _) => scalar::float(read, stored(row, k)),
                (true, true) => nibble(stored(row, k / 2) >> (4 * (k % 2))),
                (true, false) => nibble(stored(row / 2, k) >> (4 * (row % 2))),
            };
            let scale = match (scales, per_row) {
                (Some(scales), Some(per_row)) => {
                    let Some(e) = scales.get(row * per_row + k / SCALED).filter(|_| k / SCALED < per_row) else {
                        return Err(Wrong(format!("{} scales for {rows}×{depth} elements", scales.len())));
                    };
                    if *e == 255 { f64::NAN } else { f64::powi(2.0, *e as i32 - 127) }
                }
                _ => 1.0,
            };
            values.push(value * scale);
        }
    }
    Ok(Factor { rows, depth, values })
}

/// A 4-bit float: sign, two exponent bits, one mantissa bit.
fn nibble(bits: u64) -> f64 {
    const MAGNITUDE: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let magnitude = MAGNITUDE[(bits & 7) as usize];
    if bits & 8 == 0 { magnitude } else { -magnitude }
}
