//! Sums, products, means, extremes and truth along axes.

use flagos_backend_api::{DType, Error, Result};
use flagos_catalog::reduction::{ALL, AMAX, AMIN, ANY_OP, MEAN, PROD, SUM};
use flagos_catalog::{Call, Operator};

use crate::reduce_cut::{BUFFER, Buffer, Buffers, Cut, Source, Task};
use crate::fold::{Extreme, Item, LANES, Passes, Product, Sum, Truth};
use crate::kernel::Kernel;
use crate::kind::Kind;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::target::{Isa, Target};
use crate::tensor::Address;

/// Offers the family but for arguments of extremes.
pub fn add(registry: &mut Registry) {
    let operators: [&Operator; 7] = [SUM, PROD, MEAN, AMAX, AMIN, ANY_OP, ALL];
    operators.into_iter().for_each(|operator| registry.add(operator, plan));
}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let x = call.inputs[0].dtype;
    let refusal = || Error::unimplemented(format!("{} has no kernel for {x} here", call.operator.name));
    let (item, passes) = match Kind::of(x).ok_or_else(refusal)? {
        Kind::F16 | Kind::BF16 | Kind::F32 => (DType::F32, passes::<f32>(call, target.isa)),
        Kind::F64 => (x, passes::<f64>(call, target.isa)),
        Kind::I8 => (x, passes::<i8>(call, target.isa)),
        Kind::I16 => (x, passes::<i16>(call, target.isa)),
        Kind::I32 => (x, passes::<i32>(call, target.isa)),
        Kind::I64 => (x, passes::<i64>(call, target.isa)),
        Kind::U8 | Kind::Bool => (x, passes::<u8>(call, target.isa)),
    };
    let out = Kind::of(call.outputs[0].dtype).ok_or_else(refusal)?;
    Ok(Box::new(Reduce { source: Source::new(call, item, target.isa)?, passes, out, cut: Cut::new(call, false)?, isa: target.isa }))
}

fn passes<T: Item>(call: &Call, isa: Isa) -> Passes {
    match call.operator.id {
        id if id == SUM.id => Passes::of::<Sum<T, false>>(isa),
        id if id == MEAN.id => Passes::of::<Sum<T, true>>(isa),
        id if id == PROD.id => Passes::of::<Product<T>>(isa),
        id if id == AMAX.id => Passes::of::<Extreme<T, true>>(isa),
        id if id == AMIN.id => Passes::of::<Extreme<T, false>>(isa),
        id if id == ANY_OP.id => Passes::of::<Truth<T, false>>(isa),
        _ => Passes::of::<Truth<T, true>>(isa),
    }
}

struct Reduce {
    source: Source,
    passes: Passes,
    out: Kind,
    cut: Cut,
    isa: Isa,
}

impl Reduce {
    /// Reduces a task's chunk into accumulators at the start of `acc`, one a column.
    ///
    /// # Safety
    /// `x` addresses the part's first element of the input.
    unsafe fn chunk(&self, x: *mut u8, task: &Task, buffers: &mut Buffers, acc: *mut u8) {
        let (cut, passes, positions) = (&self.cut, &self.passes, task.positions.clone());
        let Some(columns) = cut.columns else {
            // Long dense runs need no buffer.
            let longest = if cut.reduced.last().is_some_and(|d| self.source.is_direct(d.x)) { usize::MAX } else { BUFFER };
            // SAFETY: runs lie in the input.
            unsafe {
                (passes.clear)(acc, LANES);
                cut.runs(x, positions, longest, |x, stride, n| (passes.run)(self.source.dense(x, stride, n, buffers), n, acc));
                (passes.gather)(acc, LANES);
            }
            return;
        };
        let n = task.n;
        // Narrow columns that follow each other without gaps are taken as one wide row.
        let wide = if cut.is_dense_rows(n) { BUFFER / n } else { 1 };
        // SAFETY: rows lie in the input.
        unsafe {
            (passes.clear)(acc, n * wide);
            if wide > 1 {
                for at in positions.clone().step_by(wide) {
                    let len = wide.min(positions.end - at) * n;
                    let row = self.source.dense(x.wrapping_offset((at * n) as isize * columns.x), columns.x, len, buffers);
                    (passes.columns)(row, len, acc);
                }
                (1..wide).for_each(|k| (passes.join)(acc, acc.add(k * n * passes.acc), n));
            } else {
                cut.runs(x, positions, usize::MAX, |x, stride, rows| {
                    for r in 0..rows as isize {
                        let row = self.source.dense(x.wrapping_offset(r * stride), columns.x, n, buffers);
                        (passes.columns)(row, n, acc);
                    }
                });
            }
        }
    }
}

impl Kernel for Reduce {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (x, y, partial) = (&Address(operands[0]), &Address(operands[1]), &Address(workspace));
        let (cut, passes) = (&self.cut, &self.passes);
        let width = cut.block * passes.acc;
        // SAFETY: tasks read the input and write their own outputs or partial results.
        let finish = |acc: *const u8, task: &Task| unsafe { (passes.store)(acc, task.n, cut.count, self.out, y.at(task.y), cut.steps().1) };
        cut.each_chunk(pool, || (Buffers::new(), Buffer::new()), |task, (buffers, acc)| {
            let acc = acc.at();
            // SAFETY: as above.
            unsafe {
                self.chunk(x.at(task.x), &task, buffers, acc);
                if cut.chunks > 1 {
                    core::ptr::copy_nonoverlapping(acc, partial.at((task.index * width) as isize), task.n * passes.acc);
                } else {
                    finish(acc, &task);
                }
            }
        });
        if cut.chunks > 1 {
            cut.each_part(pool, |task| {
                let first = partial.at((task.index * width) as isize);
                // SAFETY: the partial results of this part are complete, and nobody else's.
                (1..cut.chunks).for_each(|c| unsafe { (passes.join)(first, first.add(c * width), task.n) });
                finish(first, &task);
            });
        }
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        let cut = &self.cut;
        if cut.chunks == 1 { 0 } else { cut.parts() * cut.chunks * cut.block * self.passes.acc }
    }
    fn name(&self) -> String {
        format!("{:?} {}", self.isa, if self.cut.columns.is_some() { "columns" } else { "rows" }).to_lowercase()
    }
}
