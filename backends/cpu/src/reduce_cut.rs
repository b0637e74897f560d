//! How a reduction's dimensions are cut into tasks, and how its elements become dense.
//!
//! The cut depends on the call alone, so results do not depend on the number of threads.

use core::mem::MaybeUninit;
use core::ops::Range;

use flagos_backend_api::{DType, Error, Result};
use flagos_catalog::reduction::reduced_axes;
use flagos_catalog::{Attrs, Call};

use crate::block::BlockFn;
use crate::convert::converter;
use crate::pool::Pool;
use crate::target::Isa;
use crate::transfer::{Place, transfer};

/// Elements of a chunk: a task's unit, and the greatest part of an output that one task reduces.
const CHUNK: usize = 1 << 16;
/// Elements a buffer holds.
pub const BUFFER: usize = 1024;
/// Greatest bytes of an element or accumulator.
const WIDEST: usize = 8;

/// A dimension: extent, and byte strides of input and output.
#[derive(Clone, Copy, Debug)]
pub struct Dim {
    /// Extent.
    pub n: usize,
    /// Bytes of the input.
    pub x: isize,
    /// Bytes of the output; 0 for reduced dimensions.
    pub y: isize,
}

/// A reduction's dimensions, merged where possible, and its tasks. A task is one chunk of the reduced positions of one output or, with
/// `columns`, of a block of outputs that lie side by side.
pub struct Cut {
    /// Dimensions of the output but for `columns`; outermost first.
    kept: Vec<Dim>,
    /// Dimensions reduced; outermost first.
    pub reduced: Vec<Dim>,
    /// The kept dimension whose elements are reduced side by side.
    pub columns: Option<Dim>,
    /// Elements reduced into one.
    pub count: usize,
    /// Columns side by side, and how many such blocks there are.
    pub block: usize,
    /// See `block`.
    pub blocks: usize,
    chunk: usize,
    /// Chunks of an output.
    pub chunks: usize,
    outputs: usize,
}

/// One task's work.
pub struct Task {
    /// Number among all tasks; the chunks of a part follow each other.
    pub index: usize,
    /// Byte offsets of the part's first element in input and output.
    pub x: isize,
    /// See `x`.
    pub y: isize,
    /// Columns of the part.
    pub n: usize,
    /// Reduced positions.
    pub positions: Range<usize>,
}

impl Cut {
    /// Splits a call's dimensions at its reduced axes. `ordered` keeps the reduced ones in their order, else memory's is taken.
    pub fn new(call: &Call, ordered: bool) -> Result<Cut> {
        let (x, y) = (call.inputs[0], call.outputs[0]);
        let axes = reduced_axes(call)?;
        let keep = call.attrs.boolean("keepdim");
        let (mut kept, mut reduced, mut out) = (Vec::new(), Vec::new(), 0);
        for d in 0..x.rank as usize {
            let is_reduced = axes.contains(&d);
            let y_stride = if is_reduced { 0 } else { y.stride[out] as isize * y.dtype.bytes() as isize };
            out += usize::from(!is_reduced || keep);
            if x.shape[d] != 1 {
                let dim = Dim { n: x.shape[d] as usize, x: x.stride[d] as isize * x.dtype.bytes() as isize, y: y_stride };
                if is_reduced { reduced.push(dim) } else { kept.push(dim) }
            }
        }
        kept.sort_by_key(|d| core::cmp::Reverse(d.x.unsigned_abs()));
        if !ordered {
            reduced.sort_by_key(|d| core::cmp::Reverse(d.x.unsigned_abs()));
        }
        let (mut kept, reduced) = (merged(kept), merged(reduced));
        // Columns are reduced side by side if that runs through memory better than along the reduced dimensions.
        let step = |dims: &[Dim]| dims.last().map_or(isize::MAX as usize, |d| d.x.unsigned_abs());
        let columns = (step(&kept) < step(&reduced) && !reduced.is_empty()).then(|| kept.pop()).flatten();
        let count: usize = reduced.iter().map(|d| d.n).product();
        let block = columns.map_or(1, |d| d.n.clamp(1, BUFFER));
        let chunk = if columns.is_some() { 4 * CHUNK / block } else { CHUNK };
        let outputs = kept.iter().map(|d| d.n).product();
        let blocks = columns.map_or(1, |d| d.n.div_ceil(block));
        Ok(Cut { kept, reduced, columns, count, block, blocks, chunk, chunks: count.div_ceil(chunk).max(1), outputs })
    }
    /// Outputs, or blocks of them.
    pub fn parts(&self) -> usize {
        self.outputs * self.blocks
    }
    /// Whether columns follow each other without gaps from row to row, `n` to a row.
    pub fn is_dense_rows(&self, n: usize) -> bool {
        self.blocks == 1 && matches!((self.columns, self.reduced.as_slice()), (Some(c), [only]) if only.x == n as isize * c.x)
    }
    /// Bytes between the columns of a part, in input and output.
    pub fn steps(&self) -> (isize, isize) {
        self.columns.map_or((0, 0), |d| (d.x, d.y))
    }
    fn task(&self, part: usize, chunk: usize) -> Task {
        let (output, block) = (part / self.blocks, part % self.blocks);
        let ((x, y), first) = (offsets(&self.kept, output), block * self.block);
        let steps = self.steps();
        Task {
            index: part * self.chunks + chunk,
            x: x + first as isize * steps.0,
            y: y + first as isize * steps.1,
            n: self.columns.map_or(1, |d| self.block.min(d.n - first)),
            positions: chunk * self.chunk..self.count.min((chunk + 1) * self.chunk),
        }
    }
    /// Runs `task` for every chunk of every part; `make` makes what the tasks of one thread's share use in turn.
    pub fn each_chunk<S>(&self, pool: &Pool, make: impl Fn() -> S + Sync, task: impl Fn(Task, &mut S) + Sync) {
        let per_task = CHUNK / (self.count.min(self.chunk) * self.block).max(1);
        pool.for_ranges(self.parts() * self.chunks, per_task, &|range| {
            let mut state = make();
            range.for_each(|i| task(self.task(i / self.chunks, i % self.chunks), &mut state));
        });
    }
    /// Runs `task` for every part, described by its first chunk.
    pub fn each_part(&self, pool: &Pool, task: impl Fn(Task) + Sync) {
        pool.for_ranges(self.parts(), CHUNK / (self.chunks * self.block), &|range| range.for_each(|part| task(self.task(part, 0))));
    }
    /// Calls `visit` with address, stride and length of runs that cover reduced positions.
    #[inline]
    pub fn runs(&self, x: *mut u8, positions: Range<usize>, longest: usize, mut visit: impl FnMut(*mut u8, isize, usize)) {
        let Some((inner, outer)) = self.reduced.split_last() else { return visit(x, 0, 1) };
        let mut at = positions.start;
        while at < positions.end {
            let (row, col) = (at / inner.n, at % inner.n);
            let n = (inner.n - col).min(positions.end - at).min(longest);
            visit(x.wrapping_offset(offsets(outer, row).0 + col as isize * inner.x), inner.x, n);
            at += n;
        }
    }
}

fn merged(dims: Vec<Dim>) -> Vec<Dim> {
    let mut out: Vec<Dim> = Vec::new();
    for d in dims {
        match out.last_mut() {
            Some(o) if o.x == d.x * d.n as isize && o.y == d.y * d.n as isize => *o = Dim { n: o.n * d.n, ..d },
            _ => out.push(d),
        }
    }
    out
}

/// Byte offsets of position `index` in dimensions: (input, output).
fn offsets(dims: &[Dim], mut index: usize) -> (isize, isize) {
    let (mut x, mut y) = (0, 0);
    for d in dims.iter().rev() {
        let k = (index % d.n) as isize;
        index /= d.n;
        x += k * d.x;
        y += k * d.y;
    }
    (x, y)
}

/// Turns runs of an input into dense elements of the computation's type.
pub struct Source {
    width: usize,
    convert: Option<BlockFn>,
    attrs: Attrs,
}

impl Source {
    /// For a call's first input, computed in type `item`.
    pub fn new(call: &Call, item: DType, isa: Isa) -> Result<Source> {
        let x = call.inputs[0].dtype;
        let none = || Error::unimplemented(format!("{}: no conversion from {x} to {item}", call.operator.name));
        let convert = if item == x { None } else { Some(converter(x, item, isa).ok_or_else(none)?) };
        Ok(Source { width: x.bytes(), convert, attrs: call.attrs.clone() })
    }
    /// Whether runs of this stride are used where they lie.
    pub fn is_direct(&self, stride: isize) -> bool {
        self.convert.is_none() && stride == self.width as isize
    }
    /// `n` elements `stride` bytes apart as dense ones; at most [`BUFFER`] unless that is direct.
    ///
    /// # Safety
    /// The elements are readable.
    #[inline]
    pub unsafe fn dense(&self, x: *mut u8, stride: isize, n: usize, buffers: &mut Buffers) -> *const u8 {
        let mut from = x.cast_const();
        // SAFETY: buffers have room for BUFFER elements.
        unsafe {
            if stride != self.width as isize && n > 1 {
                transfer(self.width, Place { at: x, row: 0, col: stride }, Place::dense(buffers.raw.at(), n, self.width), 1, n);
                from = buffers.raw.at();
            }
            if let Some(convert) = self.convert {
                convert(&[from, core::ptr::null(), core::ptr::null()], core::slice::from_raw_parts_mut(buffers.items.at().cast(), n), n, &self.attrs);
                from = buffers.items.at();
            }
        }
        from
    }
}

/// Room for [`BUFFER`] elements or accumulators.
#[repr(align(64))]
pub struct Buffer([MaybeUninit<u8>; BUFFER * WIDEST]);

impl Buffer {
    /// Room with undefined contents.
    pub fn new() -> Buffer {
        Buffer([MaybeUninit::uninit(); BUFFER * WIDEST])
    }
    /// Its address.
    pub fn at(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// What [`Source::dense`] gathers and converts into.
pub struct Buffers {
    raw: Buffer,
    items: Buffer,
}

impl Buffers {
    /// Buffers of a task.
    pub fn new() -> Buffers {
        Buffers { raw: Buffer::new(), items: Buffer::new() }
    }
}
