//! Shapes, reductions, scans, gathers, histograms.

use crate::error::{CompileError, Result};
use crate::thread::interpret::scalar;
use crate::tile::print::op_name;
use crate::tile::{Block, Function, Op, OpKind};

use super::{Datum, Found, Frame, Machine, Wrong, elementwise};

/// Distances between neighbours along each axis, row-major.
pub(super) fn strides(shape: &[u32]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as usize;
    }
    strides
}

/// Calls `f` with the index along each axis of every element, row-major.
pub(super) fn each(shape: &[u32], mut f: impl FnMut(&[usize])) {
    let count: usize = shape.iter().map(|n| *n as usize).product();
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        f(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] as usize {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Computes an operation that moves elements of tiles; `None` for others.
pub(super) fn evaluate(f: &Function, op: &Op, operands: &[Datum]) -> Found<Option<Vec<Datum>>> {
    let shape_of = |i: usize| f.ty(op.operands[i]).shape();
    let one = |bits: Vec<u64>| Ok(Some(vec![Datum::many(bits)]));
    match &op.kind {
        OpKind::MakeRange(start) => one((0..f.ty(op.results[0]).elems()).map(|i| (*start as u64).wrapping_add(i) & 0xffff_ffff).collect()),
        OpKind::Splat => one(vec![operands[0].scalar()?; f.ty(op.results[0]).elems() as usize]),
        OpKind::Unsplat | OpKind::ExpandDims(_) | OpKind::Reshape { .. } => Ok(Some(vec![operands[0].clone()])),
        OpKind::Broadcast => {
            let (from, source) = (shape_of(0), operands[0].bits()?);
            let steps = strides(from);
            let mut out = Vec::with_capacity(f.ty(op.results[0]).elems() as usize);
            each(f.ty(op.results[0]).shape(), |index| {
                out.push(source[index.iter().enumerate().map(|(a, i)| if from[a] == 1 { 0 } else { i * steps[a] }).sum::<usize>()]);
            });
            one(out)
        }
        OpKind::Trans(order) => {
            let (steps, source) = (strides(shape_of(0)), operands[0].bits()?);
            let mut out = Vec::with_capacity(source.len());
            each(f.ty(op.results[0]).shape(), |index| {
                out.push(source[index.iter().zip(order).map(|(i, a)| i * steps[*a as usize]).sum::<usize>()]);
            });
            one(out)
        }
        OpKind::Cat => one([operands[0].bits()?, operands[1].bits()?].concat()),
        OpKind::Join => {
            let (a, b) = (operands[0].bits()?, operands[1].bits()?);
            one(a.iter().zip(b).flat_map(|(a, b)| [*a, *b]).collect())
        }
        OpKind::Split => {
            let half = |first: usize| Ok(Datum::many(operands[0].bits()?.iter().copied().skip(first).step_by(2).collect()));
            Ok(Some(vec![half(0)?, half(1)?]))
        }
        OpKind::Gather(axis) => {
            let (shape, source) = (shape_of(0), operands[0].bits()?);
            let (steps, axis) = (strides(shape), *axis as usize);
            let elem = f.ty(op.operands[1]).elem().unwrap_or(crate::Elem::I32);
            let mut picks = operands[1].bits()?.iter();
            let (mut out, mut outside) = (Vec::with_capacity(picks.len()), None);
            each(shape_of(1), |index| {
                let pick = scalar::signed(elem, picks.next().copied().unwrap_or(0));
                let inside = u32::try_from(pick).is_ok_and(|p| p < shape[axis]);
                if !inside {
                    outside = Some(pick);
                }
                let place: usize = (0..index.len()).map(|a| if a == axis { pick.max(0) as usize * usize::from(inside) } else { index[a] } * steps[a]).sum();
                out.push(source[place]);
            });
            match outside {
                Some(pick) => Err(Wrong(format!("index {pick} along an axis of {}", shape[axis]))),
                None => one(out),
            }
        }
        OpKind::Histogram { mask } => {
            let elem = f.ty(op.operands[0]).elem().unwrap_or(crate::Elem::I32);
            let mut bins = vec![0u64; f.ty(op.results[0]).elems() as usize];
            for (i, value) in operands[0].bits()?.iter().enumerate() {
                if *mask && operands[1].bits()?[i] == 0 {
                    continue;
                }
                let value = scalar::signed(elem, *value);
                if let Some(bin) = usize::try_from(value).ok().and_then(|v| bins.get_mut(v)) {
                    *bin += 1;
                }
            }
            one(bins)
        }
        _ => Ok(None),
    }
}

/// One list of elements per operand.
type Columns = Vec<Vec<u64>>;

impl<'a> Machine<'a> {
    /// Runs a region over scalars for `count` elements of each argument.
    fn elements(&mut self, frame: &mut Frame<'a>, block: &'a Block, args: Columns, count: usize) -> Result<Columns> {
        let stretch = |data: Vec<Datum>| -> Columns {
            let bits = data.iter().map(|d| d.bits().map(<[u64]>::to_vec).unwrap_or_default());
            bits.map(|b| if b.len() == count { b } else { vec![b.first().copied().unwrap_or(0); count] }).collect()
        };
        if elementwise::is_flat(block) {
            self.left = self.left.saturating_sub(count as u64);
            return Ok(stretch(self.block(frame, block, args.into_iter().map(Datum::many).collect())?));
        }
        let mut out = Columns::new();
        for i in 0..count {
            let results = self.block(frame, block, args.iter().map(|a| Datum::one(a[i])).collect())?;
            out.resize(results.len(), Vec::new());
            for (column, datum) in out.iter_mut().zip(results) {
                column.push(datum.bits().map_or(0, |b| b[0]));
            }
        }
        Ok(out)
    }

    /// The operands as lists along an axis: list k holds element k of every line.
    fn lines(&self, frame: &Frame<'a>, op: &Op, operands: &[Datum], axis: u32) -> Result<(Vec<Columns>, Vec<u32>)> {
        let shape = frame.function.ty(op.operands[0]).shape().to_vec();
        let mut lists = vec![vec![Vec::new(); operands.len()]; shape[axis as usize] as usize];
        for (i, operand) in operands.iter().enumerate() {
            let bits = operand.bits().map_err(|w| CompileError::invalid(op_name(&op.kind), op.loc, w.0))?;
            let mut next = bits.iter();
            each(&shape, |index| lists[index[axis as usize]][i].push(next.next().copied().unwrap_or(0)));
        }
        Ok((lists, shape))
    }

    pub(super) fn reduce(&mut self, frame: &mut Frame<'a>, op: &'a Op, operands: &[Datum], axis: u32) -> Result<Vec<Datum>> {
        let (mut lists, _) = self.lines(frame, op, operands, axis)?;
        // Neighbours combine, then neighbours of those: the order stays, and rounding errors grow with the logarithm.
        while lists.len() > 1 {
            let mut next = Vec::with_capacity(lists.len() / 2);
            let mut pairs = lists.into_iter();
            while let (Some(left), Some(right)) = (pairs.next(), pairs.next()) {
                let count = left[0].len();
                next.push(self.elements(frame, &op.regions[0], left.into_iter().chain(right).collect(), count)?);
            }
            lists = next;
        }
        Ok(lists.remove(0).into_iter().map(Datum::many).collect())
    }

    pub(super) fn scan(&mut self, frame: &mut Frame<'a>, op: &'a Op, operands: &[Datum], axis: u32, reverse: bool) -> Result<Vec<Datum>> {
        let (mut lists, shape) = self.lines(frame, op, operands, axis)?;
        if reverse {
            lists.reverse();
        }
        for k in 1..lists.len() {
            let count = lists[k][0].len();
            let args = lists[k - 1].iter().chain(&lists[k]).cloned().collect();
            lists[k] = self.elements(frame, &op.regions[0], args, count)?;
        }
        if reverse {
            lists.reverse();
        }
        let mut out = Vec::new();
        for i in 0..operands.len() {
            let mut taken = vec![0; lists.len()];
            let mut bits = Vec::new();
            each(&shape, |index| {
                let k = index[axis as usize];
                bits.push(lists[k][i][taken[k]]);
                taken[k] += 1;
            });
            out.push(Datum::many(bits));
        }
        Ok(out)
    }

    pub(super) fn map(&mut self, frame: &mut Frame<'a>, op: &'a Op, operands: &[Datum], pack: usize) -> Result<Vec<Datum>> {
        let mut args = Vec::new();
        let mut count = 0;
        for operand in operands {
            let bits = operand.bits().map_err(|w| CompileError::invalid(op_name(&op.kind), op.loc, w.0))?;
            count = bits.len() / pack;
            args.extend((0..pack).map(|j| bits.iter().copied().skip(j).step_by(pack).collect::<Vec<u64>>()));
        }
        let columns = self.elements(frame, &op.regions[0], args, count)?;
        Ok(columns.chunks(pack).map(|c| Datum::many((0..count * pack).map(|i| c[i % pack][i / pack]).collect())).collect())
    }
}
