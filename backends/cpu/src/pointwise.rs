//! The driver of pointwise kernels: broadcasting, strides, conversion of operands and threads around a block function.

use core::mem::MaybeUninit;
use core::ops::Range;

use flagos_backend_api::{DType, Error, Result, Tensor};
use flagos_catalog::{Attrs, Call};

use crate::block::BlockFn;
use crate::convert::converter;
use crate::kernel::Kernel;
use crate::pool::Pool;
use crate::target::{Isa, Target};
use crate::tensor::{Address, Space, Tile, Tiles};
use crate::transfer::{Place, transfer};

/// Bytes of one operand's buffer in a task.
const BUFFER: usize = 4096;
/// Bytes of the widest operand that make a task of their own.
const GRAIN: usize = 1 << 16;
const MOST_INPUTS: usize = 3;

/// A pointwise kernel. Blocks of a few KiB are gathered and converted into buffers where an operand is strided or of another type than
/// the computation; dense operands of that type are used where they lie.
pub struct Pointwise {
    /// Operand 0 is the output.
    space: Space,
    inputs: Vec<Input>,
    out_width: usize,
    /// From the computation's type to the output's.
    out_convert: Option<BlockFn>,
    block: BlockFn,
    attrs: Attrs,
    /// All operands are dense and of the computation's types.
    direct: bool,
    tiles: Tiles,
    /// For `direct`, when no operand is computed in place.
    long_tiles: Tiles,
    /// Elements of a task.
    grain: usize,
    isa: Isa,
}

struct Input {
    width: usize,
    wide: usize,
    convert: Option<BlockFn>,
}

impl Pointwise {
    /// Plans `block`, which computes from dense elements of types `from` elements of type `to`, for a call's operands.
    pub fn new(call: &Call, target: &Target, from: &[DType], to: DType, block: BlockFn) -> Result<Pointwise> {
        let y = call.outputs[0];
        let operands: Vec<Tensor> = core::iter::once(y).chain(call.inputs.iter().copied()).collect();
        let space = Space::new(y.shape(), &operands);
        let convert = |a: DType, b: DType| -> Result<Option<BlockFn>> {
            if a == b {
                return Ok(None);
            }
            converter(a, b, target.isa).map(Some).ok_or_else(|| Error::unimplemented(format!("{}: no conversion from {a} to {b}", call.operator.name)))
        };
        let inputs = call.inputs.iter().zip(from);
        let inputs = inputs.map(|(t, f)| Ok(Input { width: t.dtype.bytes(), wide: f.bytes(), convert: convert(t.dtype, *f)? })).collect::<Result<Vec<_>>>()?;
        let out_convert = convert(to, y.dtype)?;
        let direct = out_convert.is_none()
            && space.is_dense(0, y.dtype.bytes())
            && inputs.iter().enumerate().all(|(i, x)| x.convert.is_none() && space.is_dense(i + 1, x.width));
        let widest = operands.iter().map(|t| t.dtype.bytes()).chain(from.iter().map(|t| t.bytes())).chain([to.bytes()]).max().unwrap_or(8);
        let (room, grain) = (BUFFER / widest, GRAIN / widest);
        let turned = |i: usize| {
            let (row, col) = space.inner_strides(i);
            row.unsigned_abs() == operands[i].dtype.bytes() && col != row && space.inner().0 > 1
        };
        let cols = if (0..operands.len()).any(turned) { 32.min(room) } else { room };
        let cols = cols.min(space.inner().1.max(1));
        let (tiles, long_tiles) = (space.tiles(room / cols, cols), space.tiles(1, grain));
        let out_width = y.dtype.bytes();
        Ok(Pointwise { space, inputs, out_width, out_convert, block, attrs: call.attrs.clone(), direct, tiles, long_tiles, grain, isa: target.isa })
    }

    /// # Safety
    /// As [`Kernel::run`]; no two calls get the same blocks.
    unsafe fn blocks(&self, tiles: &Tiles, range: Range<usize>, x: &[Address; MOST_INPUTS], y: Address) {
        let mut buffers = Buffers::new();
        // What the buffers of an input hold, so that a broadcast operand is gathered once.
        let mut held = [(isize::MIN, 0, 0); MOST_INPUTS];
        for index in range {
            let tile = self.space.tile(tiles, index);
            let n = tile.rows * tile.cols;
            let place = Place { at: y.at(tile.offset[0]), row: self.space.inner_strides(0).0, col: self.space.inner_strides(0).1 };
            let out_dense = is_dense(place, &tile, self.out_width);
            let mut from = [core::ptr::null::<u8>(); 3];
            // SAFETY: the tile lies in the operands, and buffers hold the blocks that need them.
            unsafe {
                for (i, input) in self.inputs.iter().enumerate() {
                    from[i] = self.gather(i, input, &tile, x[i], &mut buffers, &mut held[i]);
                    if from[i] == place.at {
                        let copy = buffers.gathered(i);
                        core::ptr::copy_nonoverlapping(from[i], copy, n * input.wide);
                        from[i] = copy;
                    }
                }
                let last = if out_dense { place.at } else { buffers.gathered(MOST_INPUTS) };
                let first = if self.out_convert.is_some() { buffers.converted(MOST_INPUTS) } else { last };
                self.call(self.block, &from, first, n);
                if let Some(convert) = self.out_convert {
                    self.call(convert, &[first, core::ptr::null(), core::ptr::null()], last, n);
                }
                if !out_dense {
                    transfer(self.out_width, Place::dense(last, tile.cols, self.out_width), place, tile.rows, tile.cols);
                }
            }
        }
    }

    /// Calls a block function; the length of `y` in bytes is an upper bound, functions write `n` elements.
    ///
    /// # Safety
    /// As [`BlockFn`].
    unsafe fn call(&self, f: BlockFn, x: &[*const u8; 3], y: *mut u8, n: usize) {
        // SAFETY: `y` has room for `n` elements of at least a byte; only its address is used.
        unsafe { f(x, core::slice::from_raw_parts_mut(y.cast::<MaybeUninit<u8>>(), n), n, &self.attrs) }
    }

    /// A block of an input as dense elements of the computation's type.
    ///
    /// # Safety
    /// The tile lies in the operand.
    unsafe fn gather(&self, i: usize, input: &Input, tile: &Tile, base: Address, buffers: &mut Buffers, held: &mut (isize, usize, usize)) -> *const u8 {
        let strides = self.space.inner_strides(i + 1);
        let place = Place { at: base.at(tile.offset[i + 1]), row: strides.0, col: strides.1 };
        let dense = is_dense(place, tile, input.width);
        if dense && input.convert.is_none() {
            return place.at;
        }
        let (gathered, converted) = (buffers.gathered(i), buffers.converted(i));
        let result = if input.convert.is_some() { converted } else { gathered };
        let wanted = (tile.offset[i + 1], tile.rows, tile.cols);
        if *held == wanted {
            return result;
        }
        *held = wanted;
        // SAFETY: stated by the caller; buffers hold a tile.
        unsafe {
            if !dense {
                transfer(input.width, place, Place::dense(gathered, tile.cols, input.width), tile.rows, tile.cols);
            }
            if let Some(convert) = input.convert {
                let source = if dense { place.at } else { gathered };
                self.call(convert, &[source, core::ptr::null(), core::ptr::null()], converted, tile.rows * tile.cols);
            }
        }
        result
    }
}

fn is_dense(place: Place, tile: &Tile, width: usize) -> bool {
    (tile.cols == 1 || place.col == width as isize) && (tile.rows == 1 || place.row == (tile.cols * width) as isize)
}

/// A task's buffers: two for each input and the output.
#[repr(align(64))]
struct Buffers(MaybeUninit<[[u8; BUFFER]; 2 * (MOST_INPUTS + 1)]>);

impl Buffers {
    fn new() -> Buffers {
        Buffers(MaybeUninit::uninit())
    }
    fn gathered(&mut self, i: usize) -> *mut u8 {
        self.0.as_mut_ptr().cast::<u8>().wrapping_add(2 * i * BUFFER)
    }
    fn converted(&mut self, i: usize) -> *mut u8 {
        self.gathered(i).wrapping_add(BUFFER)
    }
}

impl Kernel for Pointwise {
    unsafe fn run(&self, operands: &[*mut u8], _: *mut u8, pool: &Pool) -> Result<()> {
        let (x, y) = operands.split_at(self.inputs.len());
        let y = Address(y[0]);
        let mut inputs = [Address(core::ptr::null_mut()); MOST_INPUTS];
        x.iter().zip(&mut inputs).for_each(|(p, a)| *a = Address(*p));
        let in_place = x.contains(&y.0);
        let tiles = if self.direct && !in_place { &self.long_tiles } else { &self.tiles };
        let inputs = &inputs;
        pool.for_ranges(tiles.count, (self.grain / (tiles.rows * tiles.cols)).max(1), &|range| {
            // SAFETY: stated by the caller; ranges are disjoint.
            unsafe { self.blocks(tiles, range, inputs, y) }
        });
        Ok(())
    }
    fn name(&self) -> String {
        format!("{:?} {}", self.isa, if self.direct { "dense" } else { "blocked" }).to_lowercase()
    }
}
