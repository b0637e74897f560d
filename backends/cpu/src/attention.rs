//! scaled_dot_product_attention: blocks of queries against blocks of keys with a running maximum.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., "FlashAttention" (2022).

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, attention, shape};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::gemm::{Gemm, Operands, Shape, Strides};
use crate::gemm_pack::Factor;
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::{Isa, Target};
use crate::vectorize::vectorize;
use crate::{math_f32, math_f64};

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(attention::SCALED_DOT_PRODUCT_ATTENTION, plan);
}

/// Queries and keys of a block.
const QUERIES: usize = 128;
const KEYS: usize = 256;

struct Attention<T> {
    isa: Isa,
    threads: usize,
    /// Leading axes: q, k, v, y, mask.
    lead: Axes<5>,
    l: usize,
    s: usize,
    ev: usize,
    queries: usize,
    keys: usize,
    /// Element strides of rows and columns.
    q: Strides,
    k: Strides,
    v: Strides,
    y: Strides,
    mask: Option<(bool, Strides)>,
    causal: bool,
    scale: f64,
    /// Products by [last block of queries][last block of keys].
    logits: [[Gemm; 2]; 2],
    sums: [[Gemm; 2]; 2],
    element: core::marker::PhantomData<T>,
}

// SAFETY: holds no addresses.
unsafe impl<T> Send for Attention<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Attention<T> {}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let dtype = call.inputs[0].dtype;
    with_element!(floating dtype, T => plan_of::<T>(call, target), else Err(Error::unimplemented(format!("attention has no kernel for {dtype}"))))
}

fn plan_of<T: Logit>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let [q, k, v, mask] = call.inputs.as_slice() else { return Err(Error::invalid("attention takes q, k, v and a mask")) };
    let (y, lead) = (&call.outputs[0], q.rank as usize - 2);
    let extents = |t: &flagos_backend_api::Tensor| (t.shape[lead] as usize, t.shape[lead + 1] as usize);
    let ((l, e), (s, ev)) = (extents(q), extents(v));
    let strides = |t: &flagos_backend_api::Tensor| (t.stride[lead] as isize, t.stride[lead + 1] as isize);
    let mut full = q.shape()[..lead].to_vec();
    full.extend([l as i64, s as i64]);
    let mask_strides = if mask.is_none() { vec![0; lead + 2] } else { shape::broadcast_strides(mask, &full) };
    let (queries, keys) = (QUERIES.min(l.max(1)), KEYS.min(s.max(1)));
    let wide = <T::Acc as Element>::DTYPE;
    let turn = |s: Strides| (s.1, s.0);
    let gemm = |input, output, m, n, k, a, b, c| Gemm::new(&Shape { input, output, m, n, k, a, b, d: c, c, conj_a: false, conj_b: false }, target);
    let rest = |n: usize, block: usize| [block, n % block];
    let mut logits = Vec::new();
    let mut sums = Vec::new();
    for m in rest(l, queries) {
        for n in rest(s, keys) {
            logits.push(gemm(q.dtype, wide, m, n, e, strides(q), turn(strides(k)), (keys as isize, 1))?);
            sums.push(gemm(q.dtype, wide, m, ev, n, (keys as isize, 1), strides(v), (ev as isize, 1))?);
        }
    }
    let square = |v: Vec<Gemm>| -> Result<[[Gemm; 2]; 2]> {
        let [a, b, c, d]: [Gemm; 4] = v.try_into().map_err(|_| Error::invalid("attention has four shapes of blocks"))?;
        Ok([[a, b], [c, d]])
    };
    let scale = match call.attrs.float("scale") {
        0.0 => 1.0 / (e as f64).sqrt(),
        given => given,
    };
    let lead_axes = Axes::new(&full[..lead], [&q.stride[..lead], &k.stride[..lead], &v.stride[..lead], &y.stride[..lead], &mask_strides[..lead]]);
    let tasks = lead_axes.count() * l.div_ceil(queries);
    Ok(Box::new(Attention::<T> {
        isa: target.isa,
        threads: target.threads.min(tasks).max(1),
        lead: lead_axes,
        l,
        s,
        ev,
        queries,
        keys,
        q: strides(q),
        k: strides(k),
        v: strides(v),
        y: strides(y),
        mask: (!mask.is_none()).then(|| (mask.dtype.is_bool(), (mask_strides[lead] as isize, mask_strides[lead + 1] as isize))),
        causal: call.attrs.boolean("is_causal"),
        scale,
        logits: square(logits)?,
        sums: square(sums)?,
        element: core::marker::PhantomData,
    }))
}

/// Buffers of a slot.
struct Space<T: Element> {
    /// Logits, then weights: queries × keys.
    logits: *mut T::Acc,
    /// Weights as the product takes them; the same memory for f32 and f64.
    weights: *mut T,
    /// Sums of weighted values: queries × Ev.
    sums: *mut T::Acc,
    /// Greatest logit and total weight by query.
    most: *mut T::Acc,
    total: *mut T::Acc,
    product: *mut u8,
}

impl<T: Logit> Attention<T> {
    fn same() -> bool {
        T::DTYPE == <T::Acc as Element>::DTYPE
    }
    /// Bytes of each buffer.
    fn parts(&self) -> [usize; 6] {
        let wide = size_of::<T::Acc>();
        let block = self.queries * self.keys;
        let product = self.logits.iter().chain(&self.sums).flatten().map(Gemm::workspace_bytes).max().unwrap_or(0);
        let weights = if Self::same() { 0 } else { block * size_of::<T>() };
        [block * wide, weights, self.queries * self.ev * wide, self.queries * wide, self.queries * wide, product].map(padded)
    }
    fn space(&self, at: *mut u8) -> Space<T> {
        let parts = self.parts();
        let place = |i: usize| at.wrapping_add(parts[..i].iter().sum());
        let weights = if Self::same() { at } else { place(1) };
        Space { logits: at.cast(), weights: weights.cast(), sums: place(2).cast(), most: place(3).cast(), total: place(4).cast(), product: place(5) }
    }

    /// # Safety
    /// As [`Kernel::run`]; the buffers are this task's.
    unsafe fn block(&self, bases: &Bases, at: [isize; 5], first: usize, space: &Space<T>) {
        let rows = self.queries.min(self.l - first);
        let address = |operand: usize, offset: isize, row: usize, s: Strides| bases.get(operand).cast::<T>().wrapping_offset(offset + row as isize * s.0);
        let y = if self.mask.is_some() { 4 } else { bases.0.len() - 1 };
        // SAFETY: blocks lie within the operands and buffers.
        unsafe {
            start::<T>(self.isa, space, rows, self.ev);
            let reach = if self.causal { self.s.min(first + rows) } else { self.s };
            for key in (0..reach).step_by(self.keys) {
                // The plan's block extents, even where causality needs fewer keys.
                let n = self.keys.min(self.s - key);
                let (m_rest, n_rest) = (usize::from(rows < self.queries), usize::from(n < self.keys));
                let logits = Operands {
                    a: address(0, at[0], first, self.q).cast(),
                    b: address(1, at[1], key, self.k).cast(),
                    d: core::ptr::null(),
                    c: space.logits.cast(),
                    alpha: Factor::real(self.scale),
                    beta: Factor::ZERO,
                };
                self.logits[m_rest][n_rest].run(&logits, space.product, None);
                let mask = self.mask.map(|(truth, s)| {
                    let offset = at[4] + first as isize * s.0 + key as isize * s.1;
                    let width = if truth { 1 } else { size_of::<T>() as isize };
                    (truth, bases.get(3).wrapping_offset(offset * width).cast_const(), s)
                });
                let view = Block { rows, n, keys: self.keys, ev: self.ev, hidden_from: self.causal.then(|| first as isize - key as isize), mask };
                weigh::<T>(self.isa, space, &view);
                let sums = Operands {
                    a: space.weights.cast(),
                    b: address(2, at[2], key, self.v).cast(),
                    d: space.sums.cast(),
                    c: space.sums.cast(),
                    alpha: Factor::ONE,
                    beta: Factor::ONE,
                };
                self.sums[m_rest][n_rest].run(&sums, space.product, None);
            }
            finish::<T>(self.isa, space, rows, self.ev, address(y, at[3], first, self.y), self.y);
        }
    }
}

impl<T: Logit> Kernel for Attention<T> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        if self.l == 0 || self.ev == 0 {
            return Ok(());
        }
        let bases = Bases(operands);
        let slots = Slots::new(workspace, self.threads, self.parts().iter().sum());
        let blocks = self.l.div_ceil(self.queries);
        pool.for_each(self.lead.count() * blocks, &|task| {
            // Later queries see more keys when causal: they go first.
            let (problem, block) = (task / blocks, blocks - 1 - task % blocks);
            slots.with(|space| {
                // SAFETY: the slot is this task's; the queries lie within the operands.
                unsafe { self.block(&bases, self.lead.offsets(problem), block * self.queries, &self.space(space)) }
            });
        });
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        Slots::workspace(self.threads, self.parts().iter().sum())
    }
    fn name(&self) -> String {
        format!("blocks of {} by {}, {}", self.queries, self.keys, self.logits[0][0].name())
    }
}

/// A block of logits.
struct Block {
    rows: usize,
    n: usize,
    /// Elements between rows.
    keys: usize,
    ev: usize,
    /// Query i sees keys up to i + this.
    hidden_from: Option<isize>,
    /// Whether bool, address, strides.
    mask: Option<(bool, *const u8, Strides)>,
}

/// A type attention is computed in: accumulator with an exponential.
trait Logit: Element<Acc: Power> {}
impl<T: Element<Acc: Power>> Logit for T {}

trait Power: Accumulator {
    const LOWEST: Self;
    const NAN: Self;
    fn exp<const FUSED: bool>(self) -> Self;
}
impl Power for f32 {
    const LOWEST: f32 = f32::NEG_INFINITY;
    const NAN: f32 = f32::NAN;
    #[inline(always)]
    fn exp<const FUSED: bool>(self) -> f32 {
        math_f32::exp::<FUSED>(self)
    }
}
impl Power for f64 {
    const LOWEST: f64 = f64::NEG_INFINITY;
    const NAN: f64 = f64::NAN;
    #[inline(always)]
    fn exp<const FUSED: bool>(self) -> f64 {
        math_f64::exp::<FUSED>(self)
    }
}

vectorize! {
    unsafe fn start[T: Logit][](space: &Space<T>, rows: usize, ev: usize) {
        // SAFETY: the buffers hold `rows` queries.
        unsafe {
            core::slice::from_raw_parts_mut(space.most, rows).fill(T::Acc::LOWEST);
            core::slice::from_raw_parts_mut(space.total, rows).fill(T::Acc::ZERO);
            core::slice::from_raw_parts_mut(space.sums, rows * ev).fill(T::Acc::ZERO);
        }
    }

    unsafe fn weigh[T: Logit][](space: &Space<T>, block: &Block) {
        let (low, zero) = (T::Acc::LOWEST, T::Acc::ZERO);
        for row in 0..block.rows {
            // SAFETY: the buffers hold `rows` rows; the mask covers the block.
            unsafe {
                let z = core::slice::from_raw_parts_mut(space.logits.add(row * block.keys), block.n);
                let weights = space.weights.add(row * block.keys);
                if let Some((truth, mask, s)) = block.mask {
                    for (j, z) in z.iter_mut().enumerate() {
                        let offset = row as isize * s.0 + j as isize * s.1;
                        if truth {
                            *z = if *mask.offset(offset) != 0 { *z } else { low };
                        } else {
                            *z = z.add((*mask.cast::<T>().offset(offset)).widen());
                        }
                    }
                }
                if let Some(from) = block.hidden_from {
                    let seen = (from + row as isize + 1).clamp(0, block.n as isize) as usize;
                    z[seen..].fill(low);
                }
                let mut lanes = [low; 16];
                for (i, z) in z.iter().enumerate() {
                    let lane = &mut lanes[i % 16];
                    *lane = if *z > *lane { *z } else { *lane };
                }
                let before = *space.most.add(row);
                let most = lanes.into_iter().fold(before, |a, b| if b > a { b } else { a });
                let mut sums = [zero; 16];
                if most == low {
                    // Nothing is seen so far, but NaN is no hidden key.
                    for (i, z) in z.iter().enumerate() {
                        let w = if *z == low { zero } else { T::Acc::NAN };
                        sums[i % 16] = sums[i % 16].add(w);
                        *weights.add(i) = T::narrow(w);
                    }
                } else {
                    let (whole, rest) = z.as_chunks_mut::<16>();
                    for (c, z) in whole.iter().enumerate() {
                        for (i, (z, sum)) in z.iter().zip(&mut sums).enumerate() {
                            let w = (*z - most).exp::<FUSED>();
                            *sum = sum.add(w);
                            *weights.add(c * 16 + i) = T::narrow(w);
                        }
                    }
                    let done = whole.len() * 16;
                    for (i, z) in rest.iter().enumerate() {
                        let w = (*z - most).exp::<FUSED>();
                        sums[i] = sums[i].add(w);
                        *weights.add(done + i) = T::narrow(w);
                    }
                    let factor = if before == low { zero } else { (before - most).exp::<FUSED>() };
                    let total = space.total.add(row);
                    if before != low {
                        *total = (*total).mul(factor);
                        let values = core::slice::from_raw_parts_mut(space.sums.add(row * block.ev), block.ev);
                        values.iter_mut().for_each(|v| *v = v.mul(factor));
                    }
                }
                let total = space.total.add(row);
                *total = sums.into_iter().fold(*total, T::Acc::add);
                *space.most.add(row) = most;
            }
        }
    }

    unsafe fn finish[T: Logit][](space: &Space<T>, rows: usize, ev: usize, y: *mut T, strides: Strides) {
        for row in 0..rows {
            // SAFETY: the buffers and y hold `rows` rows.
            unsafe {
                let total = *space.total.add(row);
                let values = core::slice::from_raw_parts(space.sums.add(row * ev), ev);
                for (i, v) in values.iter().enumerate() {
                    let value = if total == T::Acc::ZERO { T::Acc::ZERO } else { *v / total };
                    *y.offset(row as isize * strides.0 + i as isize * strides.1) = T::narrow(value);
                }
            }
        }
    }
}
