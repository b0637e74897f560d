//! Casts, copies, permutations and concatenation.

use flagos_backend_api::{Error, Result, Tensor};
use flagos_catalog::copy::{CAST, CAT, COPY, PERMUTE, permutation};
use flagos_catalog::shape::axis;
use flagos_catalog::{Call, Operator};

use crate::convert::converter;
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pointwise::Pointwise;
use crate::pool::Pool;
use crate::target::Target;
use crate::tensor::{Address, Space, Tiles};
use crate::transfer::{Place, transfer};

/// Offers the family.
pub fn add(registry: &mut Registry) {
    let operators: [(&Operator, crate::kernel::Factory); 4] = [(CAST, cast), (COPY, copy), (PERMUTE, permute), (CAT, cat)];
    operators.into_iter().for_each(|(operator, factory)| registry.add(operator, factory));
}

/// Bytes that make a task of their own.
const GRAIN: usize = 1 << 16;
/// Side of the blocks a transpose goes through, in bytes: one operand's lines are used up before they leave the cache.
const TURN: usize = 256;

fn cast(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let (from, to) = (call.inputs[0].dtype, call.outputs[0].dtype);
    if from == to {
        return copy(call, target);
    }
    let block = converter(from, to, target.isa).ok_or_else(|| Error::unimplemented(format!("cast from {from} to {to} has no kernel here")))?;
    Ok(Box::new(Pointwise::new(call, target, &[from], to, block)?))
}

fn copy(call: &Call, _: &Target) -> Result<Box<dyn Kernel>> {
    let y = call.outputs[0];
    Ok(Box::new(Copies { width: y.dtype.bytes(), parts: vec![Part::new(0, 0, y, call.inputs[0])] }))
}

fn permute(call: &Call, _: &Target) -> Result<Box<dyn Kernel>> {
    let (mut x, y) = (call.inputs[0], call.outputs[0]);
    for (i, d) in permutation(call)?.into_iter().enumerate() {
        (x.shape[i], x.stride[i]) = (call.inputs[0].shape[d], call.inputs[0].stride[d]);
    }
    Ok(Box::new(Copies { width: y.dtype.bytes(), parts: vec![Part::new(0, 0, y, x)] }))
}

fn cat(call: &Call, _: &Target) -> Result<Box<dyn Kernel>> {
    let y = call.outputs[0];
    let dim = axis(call, call.attrs.int("dim"), y.rank as usize)?;
    let width = y.dtype.bytes();
    let mut at = 0;
    let parts = call.inputs.iter().enumerate().map(|(i, x)| {
        let mut part = y;
        part.shape[dim] = x.shape[dim];
        let offset = (at * y.stride[dim]) as isize * width as isize;
        at += x.shape[dim];
        Part::new(i, offset, part, *x)
    });
    Ok(Box::new(Copies { width, parts: parts.collect() }))
}

/// Copies of inputs into parts of the output.
struct Copies {
    width: usize,
    parts: Vec<Part>,
}

struct Part {
    input: usize,
    /// Of the part's first element, in bytes of the output.
    offset: isize,
    /// Operand 0 is the output.
    space: Space,
    tiles: Tiles,
}

impl Part {
    fn new(input: usize, offset: isize, y: Tensor, x: Tensor) -> Part {
        let (space, width) = (Space::new(y.shape(), &[y, x]), y.dtype.bytes());
        let (row, col) = space.inner_strides(1);
        let turned = row == width as isize && col != row;
        let tiles = if turned {
            space.tiles(TURN / width, TURN / width)
        } else {
            let cols = space.inner().1.clamp(1, GRAIN / width);
            space.tiles(GRAIN / width / cols, cols)
        };
        Part { input, offset, space, tiles }
    }
}

impl Kernel for Copies {
    unsafe fn run(&self, operands: &[*mut u8], _: *mut u8, pool: &Pool) -> Result<()> {
        for part in &self.parts {
            let (x, y) = (Address(operands[part.input]), Address(operands[operands.len() - 1].wrapping_offset(part.offset)));
            let (space, tiles) = (&part.space, &part.tiles);
            if tiles.count == 0 {
                continue;
            }
            pool.for_ranges(tiles.count, GRAIN / (tiles.rows * tiles.cols * self.width).max(1), &|range| {
                // Captured whole: the fields alone are not shareable.
                let (x, y) = (&x, &y);
                for i in range {
                    let tile = space.tile(tiles, i);
                    let place = |operand: usize, base: &Address| {
                        let (row, col) = space.inner_strides(operand);
                        Place { at: base.at(tile.offset[operand]), row, col }
                    };
                    // SAFETY: the tile lies in both operands, which do not overlap; tiles are disjoint.
                    unsafe { transfer(self.width, place(1, x), place(0, y), tile.rows, tile.cols) };
                }
            });
        }
        Ok(())
    }
    fn name(&self) -> String {
        if self.parts.iter().all(|p| p.space.is_dense(0, self.width) && p.space.is_dense(1, self.width)) { "dense".into() } else { "strided".into() }
    }
}
