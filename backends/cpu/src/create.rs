//! arange and fill.

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Array, Call, create};

use crate::axes::Axes;
use crate::element::{Accumulator, Element, with_element};
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::Bases;
use crate::target::{Isa, Target};
use crate::vectorize::vectorize;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(create::ARANGE, plan_arange);
    registry.add(create::FILL, plan_fill);
}

/// Elements of one task.
const TASK: usize = 32 << 10;

/// y[i] = first + i·step, in f64 or wrapping i64.
struct Ramp<T> {
    isa: Isa,
    axes: Axes<1>,
    float: (f64, f64),
    int: (i64, i64),
    /// The value of every element, rounded once.
    constant: Option<T>,
}

fn plan_arange(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let ((start, first), (step, by)) = (call.attrs.number_at(0), call.attrs.number_at(2));
    ramp(call, target, (start, step), (first, by), None)
}

fn plan_fill(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let (float, int) = call.attrs.number_at(0);
    let value = if call.outputs[0].dtype.is_float() { Array::float(&[1], vec![float]) } else { Array::int(&[1], vec![int.into()]) };
    let value = if call.outputs[0].dtype.is_bool() { Array::float(&[1], vec![float]) } else { value };
    ramp(call, target, (0.0, 0.0), (0, 0), Some(value))
}

fn ramp(call: &Call, target: &Target, float: (f64, f64), int: (i64, i64), value: Option<Array>) -> Result<Box<dyn Kernel>> {
    let y = &call.outputs[0];
    let axes = Axes::new(y.shape(), [y.stride()]);
    with_element!(any y.dtype, T => {
        let constant = value.map(|value| {
            let mut bytes = [0u8; 8];
            value.put(0, y.dtype, &mut bytes[..size_of::<T>()]);
            // SAFETY: the catalogue wrote an element of this type (bool as 0 or 1).
            unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
        });
        Ok(Box::new(Ramp::<T> { isa: target.isa, axes, float, int, constant }))
    }, else Err(Error::unimplemented(format!("{} has no kernel for {}", call.operator.name, y.dtype))))
}

impl<T: Made> Kernel for Ramp<T> {
    unsafe fn run(&self, operands: &[*mut u8], _: *mut u8, pool: &Pool) -> Result<()> {
        let bases = Bases(operands);
        pool.for_ranges(self.axes.count(), TASK, &|range| {
            // SAFETY: ranges are disjoint parts of the output.
            unsafe { write(self.isa, self, bases.get(0).cast::<T>(), range.start, range.end) }
        });
        Ok(())
    }
    fn name(&self) -> String {
        format!("{:?}", self.isa).to_lowercase()
    }
}

/// An element made from a position.
trait Made: Element {
    fn at(float: (f64, f64), int: (i64, i64), i: usize) -> Self;
}

impl<T: Element<Acc: Number>> Made for T {
    #[inline(always)]
    fn at(float: (f64, f64), int: (i64, i64), i: usize) -> T {
        T::narrow(<T::Acc as Number>::of_position(float, int, i))
    }
}

trait Number: Accumulator {
    fn of_position(float: (f64, f64), int: (i64, i64), i: usize) -> Self;
}

macro_rules! floats {
    ($($t:ident)*) => { $(
        impl Number for $t {
            #[inline(always)]
            fn of_position(float: (f64, f64), _: (i64, i64), i: usize) -> $t {
                (float.0 + i as f64 * float.1) as $t
            }
        }
    )* };
}
floats! { f32 f64 }

impl Number for i64 {
    #[inline(always)]
    fn of_position(_: (f64, f64), int: (i64, i64), i: usize) -> i64 {
        int.0.wrapping_add(int.1.wrapping_mul(i as i64))
    }
}

vectorize! {
    unsafe fn write[T: Made][](ramp: &Ramp<T>, y: *mut T, from: usize, to: usize) {
        let (extent, [step]) = ramp.axes.last();
        if let Some(value) = ramp.constant {
            if extent == ramp.axes.count() && step == 1 {
                // SAFETY: a range of the dense output.
                unsafe { core::slice::from_raw_parts_mut(y.add(from), to - from) }.fill(value);
            } else {
                // SAFETY: a position of the output.
                ramp.axes.walk(from..to, |_, at| unsafe { *y.offset(at[0]) = value });
            }
        } else if extent == ramp.axes.count() {
            for i in from..to {
                // SAFETY: i is a position of the output.
                unsafe { *y.offset(i as isize * step) = T::at(ramp.float, ramp.int, i) };
            }
        } else {
            // SAFETY: as above.
            ramp.axes.walk(from..to, |i, at| unsafe { *y.offset(at[0]) = T::at(ramp.float, ramp.int, i) });
        }
    }
}
