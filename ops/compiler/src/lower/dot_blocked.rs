//! Products in a block of one thread: a few rows by a vector or two of columns at a time, summed over the depth in small arrays that the
//! compiler keeps in registers.

use crate::Elem;
use crate::error::Result;
use crate::lower::Lower;
use crate::lower::layout::{Bit, axis_bits, const_bits, log2, shape_bits};
use crate::lower::node::Slot;
use crate::lower::place::Scratch;
use crate::thread::{Inst, Ty, Val, Var};
use crate::tile::{Binary, Item};

/// Rows taken together (log2).
const ROWS: usize = 3;
/// Bytes of a row's columns taken together.
const BYTES: u32 = 64;

/// The arrays of a product, all of the sum's type.
pub(super) struct Arrays<'a> {
    /// Left factor.
    pub a: &'a Scratch,
    /// Right factor.
    pub b: &'a Scratch,
    /// Sums, to be added to.
    pub sum: Option<&'a Slot>,
    /// Element type.
    pub elem: Elem,
}

impl Lower<'_> {
    /// Adds a·b to the sums; shapes are the product's, `depth` is the log2 of the depth.
    pub fn blocked_product(&mut self, shape: &[u32], depth: usize, arrays: &Arrays<'_>) -> Result<()> {
        let Some(sum) = arrays.sum else { return Err(self.internal("a product of one thread without an array of sums".into())) };
        let rank = shape.len();
        let (n, m) = (axis_bits(shape, rank - 1), axis_bits(shape, rank - 2));
        let rows = ROWS.min(m.1 - m.0);
        let columns = (log2(BYTES / arrays.elem.bytes()) as usize).min(n.1);
        let ty = Ty::Elem(arrays.elem);
        let item = Item::Elem(arrays.elem);
        let parts: Vec<Var> = (0..1 << rows).map(|_| self.var(ty, 1 << columns)).collect();
        self.counted(shape_bits(shape) - m.0 - rows, true, |l, outer| {
            l.counted(n.1 - columns, true, |l, right| {
                // Bits of an element's number above its column within the block, by row.
                let above = |r: usize| right.iter().copied().chain(const_bits(r as u32, rows)).chain(outer.iter().copied()).collect::<Vec<Bit>>();
                let at = |r: usize, j: &[Bit]| j.iter().copied().chain(above(r)).collect::<Vec<Bit>>();
                l.counted(columns, true, |l, j| {
                    for (r, part) in parts.iter().enumerate() {
                        let old = l.get_at(sum.var, &at(r, j), ty);
                        l.set_at(*part, j, old);
                    }
                });
                l.counted(depth, true, |l, k| {
                    let factors: Vec<Val> = (0..parts.len())
                        .map(|r| {
                            let row = above(r);
                            let place: Vec<Bit> = k.iter().chain(&row[right.len()..]).copied().collect();
                            let index = l.compose(&place);
                            l.peek(arrays.a, item, index)
                        })
                        .collect();
                    l.counted(columns, true, |l, j| {
                        let place: Vec<Bit> = j.iter().chain(right).chain(k).chain(&outer[m.1 - m.0 - rows..]).copied().collect();
                        let index = l.compose(&place);
                        let y = l.peek(arrays.b, item, index);
                        for (x, part) in factors.iter().zip(&parts) {
                            let old = l.get_at(*part, j, ty);
                            let new = l.multiply_add(arrays.elem, *x, y, old);
                            l.set_at(*part, j, new);
                        }
                    });
                });
                l.counted(columns, true, |l, j| {
                    for (r, part) in parts.iter().enumerate() {
                        let new = l.get_at(*part, j, ty);
                        l.set_at(sum.var, &at(r, j), new);
                    }
                });
            });
        });
        Ok(())
    }

    /// x·y + old, rounded once where that is one instruction.
    pub fn multiply_add(&mut self, elem: Elem, x: Val, y: Val, old: Val) -> Val {
        if elem.is_float() && !self.target.fuses(elem) {
            let product = self.inst(Ty::Elem(elem), Inst::Binary(Binary::MulF, x, y));
            return self.inst(Ty::Elem(elem), Inst::Binary(Binary::AddF, old, product));
        }
        if elem.is_float() {
            return self.inst(Ty::Elem(elem), Inst::Fma(x, y, old));
        }
        let product = self.int(Binary::MulI, elem, x, y);
        self.int(Binary::AddI, elem, old, product)
    }
}
