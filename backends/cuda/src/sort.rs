//! `sort` along the last axis of long contiguous lines: a radix sort, whose kernels are in `sort.cu`.
//!
//! Passes go back and forth between the outputs and the workspace, so that the last one writes the outputs; indices have 32 bits on the way.

use std::sync::Arc;

use cudarc::driver::sys;
use flagos_backend_api::vendor::{CompileRequest, Grid, Modules};
use flagos_backend_api::{DType, Error, KernelFormat, Result};
use flagos_catalog::Call;

use crate::device::{CudaDevice, lock};
use crate::driver::check;
use crate::library::Culib;
use crate::module::CudaKernel;
use crate::stream::CudaStream;

/// The kernels.
pub const SOURCE: &str = include_str!("sort.cu");
/// Shortest line: below it the passes cost more than the portable kernels' merging.
const SHORTEST: u64 = 16 << 10;
/// Longest line: 30 bits count a digit's elements.
const LONGEST: u64 = (1 << 30) - 1;
/// Threads of the kernels, and digits, as the source has them.
const COUNTERS: u32 = 512;
const THREADS: u64 = 384;
const DIGITS: u64 = 256;
/// Boundary of a part of the workspace in bytes.
const BOUNDARY: u64 = 256;
/// Elements a counting block takes at least, and such blocks for each multiprocessor.
const LEAST_CHUNK: u64 = 8 << 10;
const BLOCKS: u64 = 4;

/// What is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Type of the elements.
    pub dtype: DType,
    /// Greatest first.
    pub descending: bool,
    /// Lines, one behind the other.
    pub lines: u64,
    /// Elements of a line.
    pub length: u64,
}

/// Where the parts of the workspace begin, in bytes. Counts come first, then what each pass wants cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ticket: u64,
    states: u64,
    keys: u64,
    places: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// Addresses of a launch.
#[derive(Clone, Copy)]
pub struct Addresses {
    /// The elements.
    pub x: u64,
    /// Output: the elements in order.
    pub values: u64,
    /// Output: where they were.
    pub indices: u64,
    /// As much as [`Layout::bytes`].
    pub workspace: u64,
}

/// What a sort enqueues, one after the other.
pub enum Step<'a> {
    /// Clears memory; bytes are a multiple of 4.
    Clear {
        /// From here.
        address: u64,
        /// So many.
        bytes: u64,
    },
    /// Launches a kernel of [`SOURCE`].
    Launch {
        /// Which.
        kernel: Entry,
        /// Blocks of it.
        blocks: u32,
        /// Its argument as it reads it.
        args: &'a mut [u8],
    },
}

/// Kernels by their place in the sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Counts all digits.
    Count,
    /// Makes beginnings of counts.
    Sum,
    /// Sorts by one digit.
    Pass,
}

impl Entry {
    const ALL: [Entry; 3] = [Entry::Count, Entry::Sum, Entry::Pass];

    /// Its name in the source.
    pub fn name(self) -> &'static str {
        ["count_digits", "sum_digits", "sort_digit"][self as usize]
    }
    fn threads(self) -> u32 {
        [COUNTERS, DIGITS as u32, THREADS as u32][self as usize]
    }
}

#[repr(C)]
struct Count {
    x: u64,
    counts: u64,
    n: u32,
    chunk: u32,
    chunks: u32,
    unused: u32,
}

#[repr(C)]
struct Pass {
    x: u64,
    from: u64,
    y: u64,
    to: u64,
    begins: u64,
    states: u64,
    ticket: u64,
    n: u32,
    tiles: u32,
    place: u32,
    first: u32,
    last: u32,
    unused: u32,
}

/// The bytes of an argument.
fn bytes<T>(args: &mut T) -> &mut [u8] {
    // SAFETY: both types are integers without gaps between them; any bytes are values of theirs.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut(args).cast(), size_of::<T>()) }
}

fn no(what: &str) -> Error {
    Error::unimplemented(format!("{what}; the portable kernels take it"))
}

/// The sort of a checked call.
///
/// # Errors
/// UNIMPLEMENTED for types, layouts and lengths that are left to others.
pub fn plan(call: &Call) -> Result<Shape> {
    let (x, dim) = (&call.inputs[0], call.attrs.int("dim"));
    let last = i64::from(x.rank) - 1;
    if x.rank == 0 || (dim != -1 && dim != last) {
        return Err(no("an axis that is not the last"));
    }
    if ![x, &call.outputs[0], &call.outputs[1]].iter().all(|t| t.is_contiguous()) {
        return Err(no("a layout with gaps"));
    }
    let length = x.shape[last as usize] as u64;
    let shape = Shape { dtype: x.dtype, descending: call.attrs.boolean("descending"), lines: (x.elems() as u64).checked_div(length).unwrap_or(0), length };
    shape.options()?;
    if !(SHORTEST..=LONGEST).contains(&length) || shape.lines * shape.tiles() > i32::MAX as u64 {
        return Err(no("lines this short or long"));
    }
    Ok(shape)
}

impl Shape {
    fn bits(&self) -> u64 {
        u64::from(self.dtype.bits)
    }
    fn passes(&self) -> u64 {
        self.bits() / 8
    }
    fn items(&self) -> u64 {
        if self.bits() == 64 { 8 } else { 14 }
    }
    /// Tiles of a line.
    fn tiles(&self) -> u64 {
        self.length.div_ceil(THREADS * self.items())
    }

    /// What the compiler is told.
    ///
    /// # Errors
    /// UNIMPLEMENTED for types that are left to others.
    pub fn options(&self) -> Result<String> {
        let t = self.dtype;
        let infinity: u64 = match (t.code, t.bits) {
            (0 | 1, 8 | 16 | 32 | 64) => 0,
            (2, 16) => 0x7c00,
            (4, 16) => 0x7f80,
            (2, 32) => 0x7f80_0000,
            (2, 64) => 0x7ff0_0000_0000_0000,
            _ => return Err(no("a type without an order of bits")),
        };
        let kind = if infinity > 0 { 2 } else { u32::from(t.code == 0) };
        let (bits, items, descending) = (t.bits, self.items(), u32::from(self.descending));
        Ok(format!("-DKEY=u{bits} -DBITS={bits} -DKIND={kind} -DINFINITY_BITS={infinity}ull -DDESCENDING={descending} -DITEMS={items}"))
    }

    /// The parts of the workspace.
    pub fn layout(&self) -> Layout {
        let mut bytes = 0;
        let mut part = |more: u64| {
            let at = bytes;
            bytes = (bytes + more).next_multiple_of(BOUNDARY);
            at
        };
        // One pass needs nothing to go back and forth between.
        let elements = if self.passes() > 1 { self.lines * self.length } else { 0 };
        part(self.lines * self.passes() * DIGITS * 4);
        let (ticket, states) = (part(4), part(self.lines * self.tiles() * DIGITS * 4));
        let (keys, places) = (part(elements * self.bits() / 8), part(elements * 4));
        Layout { ticket, states, keys, places, bytes }
    }

    /// Everything the sort enqueues, in order.
    ///
    /// # Errors
    /// Those of `enqueue`.
    pub fn steps(&self, at: &Addresses, multiprocessors: u32, enqueue: &mut dyn FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        let (layout, w) = (self.layout(), at.workspace);
        let (n, tiles, passes) = (self.length as u32, self.tiles() as u32, self.passes());
        enqueue(Step::Clear { address: w, bytes: layout.keys })?;
        let most = self.length.div_ceil(LEAST_CHUNK);
        let chunk = self.length.div_ceil((BLOCKS * u64::from(multiprocessors)).div_ceil(self.lines).clamp(1, most));
        let chunks = self.length.div_ceil(chunk);
        let mut count = Count { x: at.x, counts: w, n, chunk: chunk as u32, chunks: chunks as u32, unused: 0 };
        enqueue(Step::Launch { kernel: Entry::Count, blocks: (self.lines * chunks) as u32, args: bytes(&mut count) })?;
        let mut counts = w;
        enqueue(Step::Launch { kernel: Entry::Sum, blocks: (self.lines * passes) as u32, args: bytes(&mut counts) })?;
        let (outputs, own) = ((at.values, at.indices), (w + layout.keys, w + layout.places));
        let mut from = (at.x, 0);
        for place in 0..passes {
            if place > 0 {
                enqueue(Step::Clear { address: w + layout.ticket, bytes: layout.keys - layout.ticket })?;
            }
            let to = if (passes - 1 - place).is_multiple_of(2) { outputs } else { own };
            let mut pass = Pass {
                x: from.0,
                from: from.1,
                y: to.0,
                to: to.1,
                begins: w,
                states: w + layout.states,
                ticket: w + layout.ticket,
                n,
                tiles,
                place: place as u32,
                first: u32::from(place == 0),
                last: u32::from(place + 1 == passes),
                unused: 0,
            };
            enqueue(Step::Launch { kernel: Entry::Pass, blocks: (self.lines * u64::from(tiles)) as u32, args: bytes(&mut pass) })?;
            from = to;
        }
        Ok(())
    }
}

/// The kernels of one type and direction.
pub struct Kernels([CudaKernel; 3]);

/// Kernels compiled so far.
pub type Compiled = Vec<((DType, bool), Arc<Kernels>)>;

/// A planned sort.
pub struct SortCall {
    shape: Shape,
    kernels: Arc<Kernels>,
}

impl SortCall {
    /// Finds or compiles the kernels.
    ///
    /// # Errors
    /// UNIMPLEMENTED without NVRTC, and those of the driver.
    pub fn new(device: &CudaDevice, shape: Shape) -> Result<SortCall> {
        Culib::Nvrtc.need()?;
        let mut compiled = lock(&device.sorts);
        let key = (shape.dtype, shape.descending);
        if let Some((_, kernels)) = compiled.iter().find(|c| c.0 == key) {
            return Ok(SortCall { shape, kernels: kernels.clone() });
        }
        let options = shape.options()?;
        let module = device.compile(&CompileRequest { format: KernelFormat::CUDA_CPP, is_binary: false, code: SOURCE.as_bytes(), options, name: "sort.cu".into() })?;
        let [count, sum, pass] = Entry::ALL.map(|e| device.kernel(&module, e.name()));
        let kernels = Arc::new(Kernels([count?, sum?, pass?]));
        compiled.push((key, kernels.clone()));
        Ok(SortCall { shape, kernels })
    }

    /// Bytes of its workspace.
    pub fn workspace_bytes(&self) -> u64 {
        self.shape.layout().bytes
    }

    /// Enqueues. The context is current.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn run(&self, device: &CudaDevice, stream: &CudaStream, at: &Addresses) -> Result<()> {
        self.shape.steps(at, device.chip.multiprocessors, &mut |step| match step {
            Step::Clear { address, bytes } => {
                // SAFETY: a part of the workspace, which is private to this launch until the stream passed it.
                check(unsafe { sys::cuMemsetD32Async(address, 0, bytes as usize / 4, stream.raw()) }, "cuMemsetD32Async")
            }
            Step::Launch { kernel, blocks, args } => {
                let grid = Grid { grid: [blocks, 1, 1], block: [kernel.threads(), 1, 1], shared_bytes: 0 };
                self.kernels.0[kernel as usize].enqueue(stream, &grid, args)
            }
        })
    }
}
