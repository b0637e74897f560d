//! layer_norm and rms_norm: rows are read once into the cache, means and squares taken in two passes there.

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, norm};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;
use crate::vectorize::vectorize;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    norm::OPERATORS.iter().for_each(|o| registry.add(o, plan));
}

/// A floating type whose accumulator is real.
trait Floating: Element<Acc: Accumulator + Into<f64>> {}
impl<T: Element<Acc: Accumulator + Into<f64>>> Floating for T {}

struct Norm<T> {
    target: Target,
    layer: bool,
    eps: f64,
    n: usize,
    /// Leading axes: x, y, and for layer_norm mean and rstd.
    rows: Axes<4>,
    /// Normalised axes: x, y, weight, bias.
    row: Axes<4>,
    weight: bool,
    bias: bool,
    element: core::marker::PhantomData<T>,
}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    with_element!(floating call.inputs[0].dtype, T => plan_of::<T>(call, target), else Err(Error::unimplemented("norms are of floating types")))
}

fn plan_of<T: Floating>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let layer = call.operator.id == norm::LAYER_NORM.id;
    let (x, y, lead) = (&call.inputs[0], &call.outputs[0], norm::lead(call)?);
    let none = [0i64; 8];
    let weight = call.inputs.get(1).filter(|t| !t.is_none());
    let bias = call.inputs.get(2).filter(|t| !t.is_none());
    let strides = |t: Option<&flagos_backend_api::Tensor>| t.map_or(none, |t| t.stride);
    let (w, b) = (strides(weight), strides(bias));
    let (mean, rstd) = (strides(call.outputs.get(1)), strides(call.outputs.get(2)));
    Ok(Box::new(Norm::<T> {
        target: target.clone(),
        layer,
        eps: call.attrs.float("eps"),
        n: x.shape()[lead..].iter().product::<i64>() as usize,
        rows: Axes::new(&x.shape()[..lead], [&x.stride[..lead], &y.stride[..lead], &mean[..lead], &rstd[..lead]]),
        row: Axes::new(&x.shape()[lead..], [&x.stride[lead..], &y.stride[lead..], &w, &b]),
        weight: weight.is_some(),
        bias: bias.is_some(),
        element: core::marker::PhantomData,
    }))
}

impl<T: Floating> Norm<T> {
    fn buffer(&self) -> usize {
        padded(self.n * size_of::<T::Acc>())
    }
}

// SAFETY: holds no addresses.
unsafe impl<T> Send for Norm<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Norm<T> {}

impl<T: Floating> Kernel for Norm<T> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let rows = self.rows.count();
        let affine = workspace.cast::<T::Acc>();
        let shift = workspace.wrapping_add(self.buffer()).cast::<T::Acc>();
        if rows == 0 {
            return Ok(());
        }
        self.row.walk(0..self.n, |i, at| {
            // SAFETY: weight and bias have the row's shape; the workspace holds both.
            unsafe {
                if self.weight {
                    *affine.add(i) = (*operands[1].cast::<T>().offset(at[2])).widen();
                }
                if self.bias {
                    *shift.add(i) = (*operands[2].cast::<T>().offset(at[3])).widen();
                }
            }
        });
        let slots = Slots::new(workspace.wrapping_add(2 * self.buffer()), self.target.threads, self.buffer());
        let outputs = operands.len() - if self.layer { 3 } else { 1 };
        let bases = [operands[0], operands[outputs], workspace];
        let bases = Bases(&bases);
        let statistics = if self.layer { [operands[outputs + 1], operands[outputs + 2]] } else { [core::ptr::null_mut(); 2] };
        let statistics = Bases(&statistics);
        let grain = (32usize << 10).div_ceil(self.n.max(1)).max(1);
        pool.for_each(rows.div_ceil(grain), &|task| {
            slots.with(|space| {
                self.rows.walk(task * grain..((task + 1) * grain).min(rows), |_, at| {
                    let affine = bases.get(2).cast::<T::Acc>();
                    let shift = bases.get(2).wrapping_add(self.buffer()).cast::<T::Acc>();
                    let row = Row {
                        x: bases.get(0).cast::<T>().wrapping_offset(at[0]).cast_const(),
                        y: bases.get(1).cast::<T>().wrapping_offset(at[1]),
                        axes: &self.row,
                        n: self.n,
                        eps: self.eps,
                        layer: self.layer,
                        weight: if self.weight { affine } else { core::ptr::null() },
                        bias: if self.bias { shift } else { core::ptr::null() },
                        space: space.cast(),
                    };
                    // SAFETY: the row lies within x and y; the slot is this task's.
                    let [mean, rstd] = unsafe { normalise::<T>(self.target.isa, &row) };
                    if self.layer {
                        // SAFETY: one element per row.
                        unsafe {
                            *statistics.get(0).cast::<T::Acc>().offset(at[2]) = T::Acc::of(mean);
                            *statistics.get(1).cast::<T::Acc>().offset(at[3]) = T::Acc::of(rstd);
                        }
                    }
                });
            })
        });
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        2 * self.buffer() + Slots::workspace(self.target.threads, self.buffer())
    }
    fn name(&self) -> String {
        format!("{:?} rows", self.target.isa).to_lowercase()
    }
}

struct Row<'a, T: Element> {
    x: *const T,
    y: *mut T,
    axes: &'a Axes<4>,
    n: usize,
    eps: f64,
    layer: bool,
    weight: *const T::Acc,
    bias: *const T::Acc,
    space: *mut T::Acc,
}

vectorize! {
    unsafe fn normalise[T: Floating][](row: &Row<T>) -> [f64; 2] {
        let (extent, strides) = row.axes.last();
        let whole = extent == row.n;
        let n = row.n;
        // A dense row of the accumulator's type is its own buffer.
        let v = if whole && strides[0] == 1 && T::DTYPE == <T::Acc as Element>::DTYPE {
            row.x.cast::<T::Acc>()
        } else {
            if whole && strides[0] == 1 {
                for i in 0..n {
                    // SAFETY: i < n; the buffer holds a row.
                    unsafe { *row.space.add(i) = (*row.x.add(i)).widen() };
                }
            } else {
                // SAFETY: as above.
                row.axes.walk(0..n, |i, at| unsafe { *row.space.add(i) = (*row.x.offset(at[0])).widen() });
            }
            row.space.cast_const()
        };
        // An empty row may have no memory at all.
        // SAFETY: n values, none written while the slice is in use (y may be x, but is written value by value below).
        let values = if n == 0 { &[] } else { unsafe { core::slice::from_raw_parts(v, n) } };
        let zero = T::Acc::ZERO;
        let mean = if row.layer { sum(values, |x| x) / n as f64 } else { 0.0 };
        let m = T::Acc::of(mean);
        let square = if row.layer {
            sum(values, |x| {
                let d = x - m;
                d.mul(d)
            })
        } else {
            sum(values, |x| x.mul(x))
        };
        let rstd = 1.0 / (square / n as f64 + row.eps).sqrt();
        let r = T::Acc::of(rstd);
        let value = |i: usize| {
            // SAFETY: i < n; weight and bias have n values.
            unsafe {
                let scaled = (*v.add(i) - m).mul(r);
                let scaled = if row.weight.is_null() { scaled } else { scaled.mul(*row.weight.add(i)) };
                if row.bias.is_null() { scaled.add(zero) } else { scaled.add(*row.bias.add(i)) }
            }
        };
        if whole && strides[1] == 1 {
            match (row.weight.is_null(), row.bias.is_null()) {
                // SAFETY: i < n in all loops; weight and bias have n values.
                (false, false) => (0..n).for_each(|i| unsafe {
                    *row.y.add(i) = T::narrow((*v.add(i) - m).mul(r).mul(*row.weight.add(i)).add(*row.bias.add(i)));
                }),
                // SAFETY: as above.
                (false, true) => (0..n).for_each(|i| unsafe { *row.y.add(i) = T::narrow((*v.add(i) - m).mul(r).mul(*row.weight.add(i))) }),
                // SAFETY: as above.
                (true, true) => (0..n).for_each(|i| unsafe { *row.y.add(i) = T::narrow((*v.add(i) - m).mul(r)) }),
                // SAFETY: as above.
                (true, false) => (0..n).for_each(|i| unsafe { *row.y.add(i) = T::narrow(value(i)) }),
            }
        } else {
            // SAFETY: offsets lie within y.
            row.axes.walk(0..n, |i, at| unsafe { *row.y.offset(at[1]) = T::narrow(value(i)) });
        }
        [mean, rstd]
    }
}

/// Σ f(x): 32 lanes in blocks of 1,024, blocks in f64.
#[inline(always)]
fn sum<A: Accumulator + Into<f64>>(values: &[A], f: impl Fn(A) -> A) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(1024) {
        let mut lanes = [A::ZERO; 32];
        let (whole, rest) = block.as_chunks::<32>();
        for x in whole {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane = lane.add(f(*x));
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = lane.add(f(*x));
        }
        let mut half = 16;
        while half > 0 {
            for l in 0..half {
                lanes[l] = lanes[l].add(lanes[l + half]);
            }
            half /= 2;
        }
        total += lanes[0].into();
    }
    total
}
