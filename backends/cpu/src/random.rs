//! uniform and normal from the catalogue's Philox streams.

use flagos_backend_api::{Error, Result};
use flagos_catalog::philox::{block, open24, open53, unit24, unit53};
use flagos_catalog::{Call, random};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::Bases;
use crate::target::{Isa, Target};
use crate::vectorize::vectorize;
use crate::{math_f32, math_f64};

/// Offers the family.
pub fn add(registry: &mut Registry) {
    random::OPERATORS.iter().for_each(|o| registry.add(o, plan));
}

/// Elements made at a time, and of one task.
const STEP: usize = 256;
const TASK: usize = 32 * STEP;

/// y = offset + factor·number.
struct Random<T> {
    isa: Isa,
    axes: Axes<1>,
    normal: bool,
    offset: f64,
    factor: f64,
    /// Stride of the seed.
    seed: isize,
    element: core::marker::PhantomData<T>,
}

// SAFETY: holds no addresses.
unsafe impl<T> Send for Random<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Random<T> {}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let y = &call.outputs[0];
    let normal = call.operator.id == random::NORMAL.id;
    let (offset, factor) = match normal {
        true => (call.attrs.float("mean"), call.attrs.float("std")),
        false => (call.attrs.float("low"), call.attrs.float("high") - call.attrs.float("low")),
    };
    let (axes, seed) = (Axes::new(y.shape(), [y.stride()]), call.inputs[0].stride[0] as isize);
    with_element!(floating y.dtype, T => {
        Ok(Box::new(Random::<T> { isa: target.isa, axes, normal, offset, factor, seed, element: core::marker::PhantomData }))
    }, else Err(Error::unimplemented(format!("{} has no kernel for {}", call.operator.name, y.dtype))))
}

impl<T: Drawn> Kernel for Random<T> {
    unsafe fn run(&self, operands: &[*mut u8], _: *mut u8, pool: &Pool) -> Result<()> {
        let bases = Bases(operands);
        let words = operands[0].cast::<u64>();
        // SAFETY: the seed has two elements.
        let (seed, offset) = unsafe { (*words, *words.offset(self.seed)) };
        pool.for_ranges(self.axes.count(), TASK, &|range| {
            let mut numbers = [T::Acc::ZERO; STEP];
            for from in range.clone().step_by(STEP) {
                let to = (from + STEP).min(range.end);
                // SAFETY: ranges are disjoint parts of the output.
                unsafe {
                    draw::<T>(self.isa, self.normal, seed, offset, from, &mut numbers);
                    store(self.isa, self, &numbers, bases.get(1).cast::<T>(), from, to);
                }
            }
        });
        Ok(())
    }
    fn name(&self) -> String {
        format!("{:?} philox", self.isa).to_lowercase()
    }
}

/// A type whose accumulator can be drawn.
trait Drawn: Element<Acc: Source> {}
impl<T: Element<Acc: Source>> Drawn for T {}

/// Numbers from a stream, `from` on; a multiple of 4.
trait Source: Accumulator {
    fn uniform(seed: u64, offset: u64, from: usize, numbers: &mut [Self; STEP]);
    fn normal<const FUSED: bool>(seed: u64, offset: u64, from: usize, numbers: &mut [Self; STEP]);
}

impl Source for f32 {
    #[inline(always)]
    fn uniform(seed: u64, offset: u64, from: usize, numbers: &mut [f32; STEP]) {
        for (b, four) in numbers.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = block(seed, offset, (from / 4 + b) as u64).map(unit24);
        }
    }
    #[inline(always)]
    fn normal<const FUSED: bool>(seed: u64, offset: u64, from: usize, numbers: &mut [f32; STEP]) {
        let (mut radius, mut angle) = ([0f32; STEP / 2], [0f32; STEP / 2]);
        for b in 0..STEP / 4 {
            let w = block(seed, offset, (from / 4 + b) as u64);
            (radius[2 * b], radius[2 * b + 1]) = (open24(w[0]), open24(w[2]));
            (angle[2 * b], angle[2 * b + 1]) = (unit24(w[1]), unit24(w[3]));
        }
        radius.iter_mut().for_each(|u| *u = (-2.0 * math_f32::log::<FUSED>(*u)).sqrt());
        angle.iter_mut().for_each(|u| *u *= core::f32::consts::TAU);
        let (mut even, mut odd) = ([0f32; STEP / 2], [0f32; STEP / 2]);
        // The cosine is the sine a quarter turn later.
        (0..STEP / 2).for_each(|i| even[i] = radius[i] * math_f32::sin_quadrant::<FUSED>(angle[i], 1));
        (0..STEP / 2).for_each(|i| odd[i] = radius[i] * math_f32::sin_quadrant::<FUSED>(angle[i], 0));
        (0..STEP / 2).for_each(|i| (numbers[2 * i], numbers[2 * i + 1]) = (even[i], odd[i]));
    }
}

impl Source for f64 {
    #[inline(always)]
    fn uniform(seed: u64, offset: u64, from: usize, numbers: &mut [f64; STEP]) {
        for (b, two) in numbers.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let w = block(seed, offset, (from / 2 + b) as u64);
            *two = [unit53(w[0], w[1]), unit53(w[2], w[3])];
        }
    }
    #[inline(always)]
    fn normal<const FUSED: bool>(seed: u64, offset: u64, from: usize, numbers: &mut [f64; STEP]) {
        let (mut radius, mut angle) = ([0f64; STEP / 2], [0f64; STEP / 2]);
        for b in 0..STEP / 2 {
            let w = block(seed, offset, (from / 2 + b) as u64);
            (radius[b], angle[b]) = (open53(w[0], w[1]), unit53(w[2], w[3]));
        }
        radius.iter_mut().for_each(|u| *u = (-2.0 * math_f64::log::<FUSED>(*u)).sqrt());
        angle.iter_mut().for_each(|u| *u *= core::f64::consts::TAU);
        (0..STEP / 2).for_each(|i| numbers[2 * i] = radius[i] * math_f64::sin_quadrant::<FUSED>(angle[i], 1));
        (0..STEP / 2).for_each(|i| numbers[2 * i + 1] = radius[i] * math_f64::sin_quadrant::<FUSED>(angle[i], 0));
    }
}

vectorize! {
    unsafe fn draw[T: Drawn][](normal: bool, seed: u64, offset: u64, from: usize, numbers: &mut [T::Acc; STEP]) {
        if normal { T::Acc::normal::<FUSED>(seed, offset, from, numbers) } else { T::Acc::uniform(seed, offset, from, numbers) }
    }

    unsafe fn store[T: Drawn][](random: &Random<T>, numbers: &[T::Acc; STEP], y: *mut T, from: usize, to: usize) {
        let (offset, factor) = (T::Acc::of(random.offset), T::Acc::of(random.factor));
        let value = |i: usize| T::narrow(offset.add(factor.mul(numbers[i - from])));
        let (extent, [step]) = random.axes.last();
        if extent == random.axes.count() {
            for i in from..to {
                // SAFETY: i is a position of the output.
                unsafe { *y.offset(i as isize * step) = value(i) };
            }
        } else {
            // SAFETY: as above.
            random.axes.walk(from..to, |i, at| unsafe { *y.offset(at[0]) = value(i) });
        }
    }
}
