//! Buffers, and the operations that read and write them.

use crate::Elem;
use crate::run::Arg;
use crate::thread::interpret::scalar;
use crate::tile::{Function, Item, Op, OpKind, Padding, Rmw, Type, Value};

use super::elementwise::pointee_bytes;
use super::tiles::each;
use super::{Datum, Found, View, Wrong};

/// Bits of an address that hold the offset in a buffer; the buffer's number plus one stands above.
const OFFSET_BITS: u32 = 40;

/// The buffers of a launch. A pointer is a buffer's number and an offset; one that strays from its buffer names none.
pub(super) struct Memory {
    buffers: Vec<Vec<u8>>,
}

impl Memory {
    /// Takes the buffers out of the arguments.
    pub(super) fn take(args: &mut [Arg]) -> Memory {
        let take = |a: &mut Arg| if let Arg::Buffer(bytes) = a { core::mem::take(bytes) } else { Vec::new() };
        Memory { buffers: args.iter_mut().map(take).collect() }
    }

    /// Puts them back.
    pub(super) fn give(self, args: &mut [Arg]) {
        for (arg, bytes) in args.iter_mut().zip(self.buffers) {
            if let Arg::Buffer(place) = arg {
                *place = bytes;
            }
        }
    }

    /// The address of the first byte of argument `index`.
    pub(super) fn address(index: usize) -> u64 {
        (index as u64 + 1) << OFFSET_BITS
    }

    fn place(&mut self, address: u64, elem: Elem) -> Found<&mut [u8]> {
        let size = elem.bytes() as usize;
        let (number, offset) = (address >> OFFSET_BITS, (address & ((1 << OFFSET_BITS) - 1)) as usize);
        if offset % size != 0 {
            return Err(Wrong(format!("address {address:#x} is not a multiple of the {size} bytes of {elem}")));
        }
        let Some(buffer) = number.checked_sub(1).and_then(|n| self.buffers.get_mut(n as usize)) else {
            return Err(Wrong(format!("address {address:#x} lies in no buffer (argument {}, before its start or a null pointer)", number)));
        };
        let length = buffer.len();
        match buffer.get_mut(offset..offset + size) {
            Some(bytes) => Ok(bytes),
            None => Err(Wrong(format!("bytes {offset} to {} of argument {}, which has {length}", offset + size, number - 1))),
        }
    }

    fn load(&mut self, address: u64, elem: Elem) -> Found<u64> {
        let bytes = self.place(address, elem)?;
        let bits = bytes.iter().rev().fold(0, |bits, b| bits << 8 | u64::from(*b));
        Ok(if elem == Elem::I1 { u64::from(bits != 0) } else { bits })
    }

    fn store(&mut self, address: u64, elem: Elem, bits: u64) -> Found<()> {
        let bytes = self.place(address, elem)?;
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (bits >> (8 * i)) as u8;
        }
        Ok(())
    }

    fn update(&mut self, address: u64, elem: Elem, new: impl Fn(u64) -> u64) -> Found<u64> {
        let old = self.load(address, elem)?;
        self.store(address, elem, new(old))?;
        Ok(old)
    }

    /// Computes an operation on memory.
    pub(super) fn evaluate(&mut self, f: &Function, op: &Op, operands: &[Datum]) -> Found<Vec<Datum>> {
        let elem_of = |v: Value| f.ty(v).elem().unwrap_or(Elem::I64);
        match &op.kind {
            OpKind::Load { mask, other, boundary, padding, .. } => {
                let elem = elem_of(op.results[0]);
                if let Type::BlockPtr(shape, _) = f.ty(op.operands[0]) {
                    let view = operands[0].view()?;
                    return Ok(vec![self.read(view, shape, elem, boundary, *padding)?]);
                }
                let addresses = operands[0].bits()?;
                let masked = if *mask { Some(operands[1].bits()?) } else { None };
                let others = if *other { Some(operands[2].bits()?) } else { None };
                let mut out = Vec::with_capacity(addresses.len());
                for (i, address) in addresses.iter().enumerate() {
                    let on = masked.is_none_or(|m| m[i] != 0);
                    out.push(if on { self.load(*address, elem)? } else { others.map_or(0, |o| o[i]) });
                }
                Ok(vec![Datum::many(out)])
            }
            OpKind::Store { mask, boundary } => {
                let elem = elem_of(op.operands[1]);
                if let Type::BlockPtr(shape, _) = f.ty(op.operands[0]) {
                    let view = operands[0].view()?;
                    self.write(view, shape, elem, boundary, operands[1].bits()?, |_, new| new)?;
                    return Ok(vec![]);
                }
                let values = operands[1].bits()?;
                let masked = if *mask { Some(operands[2].bits()?) } else { None };
                for (i, address) in operands[0].bits()?.iter().enumerate() {
                    if masked.is_none_or(|m| m[i] != 0) {
                        self.store(*address, elem, values[i])?;
                    }
                }
                Ok(vec![])
            }
            OpKind::AtomicRmw { rmw, mask, .. } => {
                let elem = elem_of(op.operands[1]);
                let values = operands[1].bits()?;
                let masked = if *mask { Some(operands[2].bits()?) } else { None };
                let mut out = Vec::with_capacity(values.len());
                for (i, address) in operands[0].bits()?.iter().enumerate() {
                    let on = masked.is_none_or(|m| m[i] != 0);
                    out.push(if on { self.update(*address, elem, |old| scalar::rmw(*rmw, elem, old, values[i]))? } else { 0 });
                }
                Ok(vec![Datum::many(out)])
            }
            OpKind::AtomicCas(_) => {
                let elem = elem_of(op.operands[1]);
                let (expected, desired) = (operands[1].bits()?, operands[2].bits()?);
                let mut out = Vec::with_capacity(expected.len());
                for (i, address) in operands[0].bits()?.iter().enumerate() {
                    out.push(self.update(*address, elem, |old| if old == expected[i] { desired[i] } else { old })?);
                }
                Ok(vec![Datum::many(out)])
            }
            OpKind::MakeTensorPtr(_) => {
                let rank = f.ty(op.results[0]).shape().len();
                let n = ints(f, op, operands, 1)?;
                let (shape, strides, offsets) = (n[..rank].to_vec(), n[rank..2 * rank].to_vec(), n[2 * rank..].to_vec());
                Ok(vec![view(View { base: operands[0].scalar()?, shape, strides, offsets, padding: Padding::None })])
            }
            OpKind::Advance => {
                let mut moved = operands[0].view()?.clone();
                for (offset, by) in moved.offsets.iter_mut().zip(ints(f, op, operands, 1)?) {
                    *offset = offset.wrapping_add(by);
                }
                Ok(vec![view(moved)])
            }
            OpKind::MakeDescriptor(padding) => {
                let rank = f.ty(op.results[0]).shape().len();
                let n = ints(f, op, operands, 1)?;
                let (shape, strides) = (n[..rank].to_vec(), n[rank..].to_vec());
                Ok(vec![view(View { base: operands[0].scalar()?, shape, strides, offsets: vec![0; rank], padding: *padding })])
            }
            _ => self.described(f, op, operands),
        }
    }

    /// Operations through descriptors.
    fn described(&mut self, f: &Function, op: &Op, operands: &[Datum]) -> Found<Vec<Datum>> {
        let Some(Type::Descriptor(shape, elem)) = op.operands.first().map(|v| f.ty(*v)) else {
            return Err(Wrong::new("the interpreter does not know it"));
        };
        let (elem, all) = (*elem, (0..shape.len() as u32).collect::<Vec<_>>());
        let mut at = operands[0].view()?.clone();
        match &op.kind {
            OpKind::DescriptorLoad => {
                at.offsets = ints(f, op, operands, 1)?;
                let padding = at.padding;
                Ok(vec![self.read(&at, shape, elem, &all, padding)?])
            }
            OpKind::DescriptorStore => {
                at.offsets = ints(f, op, operands, 2)?;
                self.write(&at, shape, elem, &all, operands[1].bits()?, |_, new| new)?;
                Ok(vec![])
            }
            OpKind::DescriptorReduce(rmw) => {
                at.offsets = ints(f, op, operands, 2)?;
                let rmw = if *rmw == Rmw::Add && elem.is_float() { Rmw::FAdd } else { *rmw };
                self.write(&at, shape, elem, &all, operands[1].bits()?, |old, new| scalar::rmw(rmw, elem, old, new))?;
                Ok(vec![])
            }
            OpKind::DescriptorGather | OpKind::DescriptorScatter => {
                let column = scalar::signed(Elem::I32, operands[2].scalar()?);
                let padding = at.padding;
                let mut out = Vec::new();
                for (i, row) in operands[1].bits()?.iter().enumerate() {
                    at.offsets = vec![scalar::signed(Elem::I32, *row), column];
                    if op.kind == OpKind::DescriptorGather {
                        out.extend_from_slice(self.read(&at, shape, elem, &all, padding)?.bits()?);
                    } else {
                        let width = shape[1] as usize;
                        self.write(&at, shape, elem, &all, &operands[3].bits()?[i * width..(i + 1) * width], |_, new| new)?;
                    }
                }
                Ok(if op.results.is_empty() { vec![] } else { vec![Datum::many(out)] })
            }
            _ => Err(Wrong::new("the interpreter does not know it")),
        }
    }

    /// Reads a block of a tensor; outside of the tensor along the checked axes it is padding.
    fn read(&mut self, view: &View, shape: &[u32], elem: Elem, checked: &[u32], padding: Padding) -> Found<Datum> {
        let outside = if padding == Padding::Nan && elem.is_float() { scalar::from_float(elem, f64::NAN, false) } else { 0 };
        let mut out = Vec::new();
        for address in addresses(view, shape, elem, checked) {
            out.push(match address {
                Some(address) => self.load(address, elem)?,
                None => outside,
            });
        }
        Ok(Datum::many(out))
    }

    fn write(&mut self, view: &View, shape: &[u32], elem: Elem, checked: &[u32], values: &[u64], new: impl Fn(u64, u64) -> u64) -> Found<()> {
        for (address, value) in addresses(view, shape, elem, checked).into_iter().zip(values) {
            if let Some(address) = address {
                self.update(address, elem, |old| new(old, *value))?;
            }
        }
        Ok(())
    }
}

/// Scalar operands from one on, as signed numbers.
fn ints(f: &Function, op: &Op, operands: &[Datum], first: usize) -> Found<Vec<i64>> {
    let number = |(v, d): (&Value, &Datum)| Ok(scalar::signed(f.ty(*v).elem().unwrap_or(Elem::I64), d.scalar()?));
    op.operands.iter().zip(operands).skip(first).map(number).collect()
}

fn view(view: View) -> Datum {
    Datum::View(std::rc::Rc::new(view))
}

/// The address of every element of a block; `None` outside of the tensor along a checked axis.
fn addresses(view: &View, shape: &[u32], elem: Elem, checked: &[u32]) -> Vec<Option<u64>> {
    let bytes = pointee_bytes(&Type::Scalar(Item::Ptr(elem)));
    let mut out = Vec::new();
    each(shape, |index| {
        let mut address = Some(view.base);
        for (axis, i) in index.iter().enumerate() {
            let at = view.offsets[axis].wrapping_add(*i as i64);
            if checked.contains(&(axis as u32)) && !(0..view.shape[axis]).contains(&at) {
                address = None;
            }
            address = address.map(|a| a.wrapping_add((at.wrapping_mul(view.strides[axis]) as u64).wrapping_mul(bytes)));
        }
        out.push(address);
    });
    out
}
