//! `argmax` and `argmin`.

use core::marker::PhantomData;

use flagos_backend_api::{DType, Error, Result};
use flagos_catalog::Call;
use flagos_catalog::reduction::{ARGMAX, ARGMIN};

use crate::reduce_cut::{BUFFER, Buffer, Buffers, Cut, Source, Task};
use crate::fold::{Extreme, Fold, Item, LANES, Passes};
use crate::kernel::Kernel;
use crate::kind::Kind;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::target::{Isa, Target};
use crate::tensor::Address;

/// Offers both.
pub fn add(registry: &mut Registry) {
    registry.add(ARGMAX, plan::<true>);
    registry.add(ARGMIN, plan::<false>);
}

fn plan<const GREATEST: bool>(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let x = call.inputs[0].dtype;
    match Kind::of(x) {
        Some(Kind::F16 | Kind::BF16 | Kind::F32) => kernel::<f32, GREATEST>(call, DType::F32, target.isa),
        Some(Kind::F64) => kernel::<f64, GREATEST>(call, x, target.isa),
        Some(Kind::I8) => kernel::<i8, GREATEST>(call, x, target.isa),
        Some(Kind::I16) => kernel::<i16, GREATEST>(call, x, target.isa),
        Some(Kind::I32) => kernel::<i32, GREATEST>(call, x, target.isa),
        Some(Kind::I64) => kernel::<i64, GREATEST>(call, x, target.isa),
        Some(Kind::U8) => kernel::<u8, GREATEST>(call, x, target.isa),
        _ => Err(Error::unimplemented(format!("{} has no kernel for {x} here", call.operator.name))),
    }
}

fn kernel<T: Item, const GREATEST: bool>(call: &Call, item: DType, isa: Isa) -> Result<Box<dyn Kernel>> {
    let columns: unsafe fn(*const T, usize, i64, *mut T, *mut i64) = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::<T, GREATEST>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::<T, GREATEST>,
        _ => columns::<T, GREATEST>,
    };
    let passes = Passes::of::<Extreme<T, GREATEST>>(isa);
    Ok(Box::new(Arg::<T, GREATEST> { source: Source::new(call, item, isa)?, passes, columns, cut: Cut::new(call, true)?, isa, item: PhantomData }))
}

struct Arg<T, const GREATEST: bool> {
    source: Source,
    passes: Passes,
    /// Takes row number `row` of `n` columns into their best values and places.
    columns: unsafe fn(x: *const T, n: usize, row: i64, best: *mut T, place: *mut i64),
    cut: Cut,
    isa: Isa,
    item: PhantomData<T>,
}

/// Whether `b` replaces an earlier `a`: strictly better, or the first NaN.
#[inline(always)]
fn replaces<T: Item, const GREATEST: bool>(b: T, a: T) -> bool {
    let better = if GREATEST { b > a } else { b < a };
    !a.is_nan() && (better || b.is_nan())
}

/// # Safety
/// See [`Arg::columns`].
#[inline(always)]
unsafe fn columns<T: Item, const GREATEST: bool>(x: *const T, n: usize, row: i64, best: *mut T, place: *mut i64) {
    for i in 0..n {
        // SAFETY: all arrays have `n` elements.
        unsafe {
            let (new, old) = (x.add(i).read_unaligned(), *best.add(i));
            let replaces = replaces::<T, GREATEST>(new, old);
            *best.add(i) = if replaces { new } else { old };
            *place.add(i) = if replaces { row } else { *place.add(i) };
        }
    }
}

/// # Safety
/// As `columns`, on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2")]
unsafe fn avx2<T: Item, const GREATEST: bool>(x: *const T, n: usize, row: i64, best: *mut T, place: *mut i64) {
    // SAFETY: passed on.
    unsafe { columns::<T, GREATEST>(x, n, row, best, place) }
}

/// # Safety
/// As `columns`, on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
unsafe fn avx512<T: Item, const GREATEST: bool>(x: *const T, n: usize, row: i64, best: *mut T, place: *mut i64) {
    // SAFETY: passed on.
    unsafe { columns::<T, GREATEST>(x, n, row, best, place) }
}

impl<T: Item, const GREATEST: bool> Arg<T, GREATEST> {
    /// Best values and places of a task's chunk, one a column.
    ///
    /// # Safety
    /// `x` addresses the part's first element of the input; `best` and `place` have room for its columns, `best` for LANES.
    unsafe fn chunk(&self, x: *mut u8, task: &Task, buffers: &mut Buffers, best: *mut T, place: *mut i64) {
        let cut = &self.cut;
        let mut at = task.positions.start;
        // SAFETY: runs lie in the input, and buffers hold a block.
        unsafe {
            if let Some(columns) = cut.columns {
                (0..task.n).for_each(|i| (*best.add(i), *place.add(i)) = (<Extreme<T, GREATEST> as Fold>::EMPTY, at as i64));
                cut.runs(x, task.positions.clone(), usize::MAX, |x, stride, rows| {
                    for r in 0..rows as isize {
                        let row = self.source.dense(x.wrapping_offset(r * stride), columns.x, task.n, buffers);
                        (self.columns)(row.cast(), task.n, at as i64, best, place);
                        at += 1;
                    }
                });
                return;
            }
            let mut found: Option<(T, usize)> = None;
            cut.runs(x, task.positions.clone(), BUFFER, |x, stride, n| {
                let items = self.source.dense(x, stride, n, buffers);
                (self.passes.clear)(best.cast(), LANES);
                (self.passes.run)(items, n, best.cast());
                (self.passes.gather)(best.cast(), LANES);
                let value = *best;
                if found.is_none_or(|(old, _)| replaces::<T, GREATEST>(value, old)) {
                    let item = |i: &usize| items.cast::<T>().add(*i).read_unaligned();
                    let first = (0..n).find(|i| item(i) == value || (value.is_nan() && item(i).is_nan())).unwrap_or(0);
                    found = Some((value, at + first));
                }
                at += n;
            });
            if let Some((value, index)) = found {
                (*best, *place) = (value, index as i64);
            }
        }
    }
}

impl<T: Item, const GREATEST: bool> Kernel for Arg<T, GREATEST> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (x, y) = (&Address(operands[0]), &Address(operands[1]));
        let cut = &self.cut;
        // Partial places, then values.
        let columns = cut.parts() * cut.chunks * cut.block;
        let (places, bests) = (&Address(workspace), &Address(workspace.wrapping_add(8 * columns)));
        let finish = |place: *const i64, task: &Task| {
            // SAFETY: the part's outputs are this task's.
            (0..task.n).for_each(|i| unsafe { y.at(task.y + i as isize * cut.steps().1).cast::<i64>().write_unaligned(*place.add(i)) });
        };
        let at = |index: usize| (bests.0.cast::<T>().wrapping_add(index * cut.block), places.0.cast::<i64>().wrapping_add(index * cut.block));
        cut.each_chunk(pool, || (Buffers::new(), Buffer::new(), Buffer::new()), |task, (buffers, best, place)| {
            let (best, place) = (best.at().cast::<T>(), place.at().cast::<i64>());
            // SAFETY: tasks read the input and write their own outputs or partial results.
            unsafe {
                self.chunk(x.at(task.x), &task, buffers, best, place);
                if cut.chunks > 1 {
                    let to = at(task.index);
                    core::ptr::copy_nonoverlapping(best, to.0, task.n);
                    core::ptr::copy_nonoverlapping(place, to.1, task.n);
                } else {
                    finish(place, &task);
                }
            }
        });
        if cut.chunks > 1 {
            cut.each_part(pool, |task| {
                let (best, place) = at(task.index);
                for (c, i) in (1..cut.chunks).flat_map(|c| (0..task.n).map(move |i| (c, i))) {
                    let (other, index) = at(task.index + c);
                    // SAFETY: the partial results of this part are complete, and nobody else's.
                    unsafe {
                        if replaces::<T, GREATEST>(*other.add(i), *best.add(i)) {
                            (*best.add(i), *place.add(i)) = (*other.add(i), *index.add(i));
                        }
                    }
                }
                finish(place, &task);
            });
        }
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        let cut = &self.cut;
        if cut.chunks == 1 { 0 } else { cut.parts() * cut.chunks * cut.block * (8 + size_of::<T>()) }
    }
    fn name(&self) -> String {
        format!("{:?} {}", self.isa, if self.cut.columns.is_some() { "columns" } else { "rows" }).to_lowercase()
    }
}
