//! Layouts: which thread holds which element of a tile, bit by bit of the row-major element number.

use std::collections::HashSet;

/// What one bit of an element number comes from while code is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Bit {
    /// 0.
    Zero,
    /// 1.
    One,
    /// A bit of the thread number.
    Thread(u8),
    /// A bit of the index of a rolled loop (number of the loop, bit).
    Loop(u32, u8),
    /// A bit of a value (number among the lowering's dynamic values, bit).
    Value(u32, u8),
}

/// An element number, lowest bit first.
pub(super) type Pos = Vec<Bit>;

/// Where one bit of an element number lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Home {
    /// Bit of the number of the register within its thread.
    Reg(u8),
    /// Bit of the thread number.
    Thread(u8),
}

/// A distribution of a tile: one home per bit of the element number, lowest first. Each register bit and each thread bit occurs once at
/// most; thread bits that do not occur hold replicas.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Layout {
    /// Homes.
    pub homes: Vec<Home>,
}

/// log2 of a power of two.
pub(super) fn log2(n: u32) -> u32 {
    n.trailing_zeros()
}

/// Number of bits of the element numbers of a shape.
pub(super) fn shape_bits(shape: &[u32]) -> usize {
    shape.iter().map(|n| log2(*n) as usize).sum()
}

/// The range of bits an axis takes in the element number (low, high).
pub(super) fn axis_bits(shape: &[u32], axis: usize) -> (usize, usize) {
    let low: usize = shape[axis + 1..].iter().map(|n| log2(*n) as usize).sum();
    (low, low + log2(shape[axis]) as usize)
}

impl Layout {
    /// Everything in one thread, in row-major order.
    pub fn registers(bits: usize) -> Layout {
        Layout { homes: (0..bits).map(|i| Home::Reg(i as u8)).collect() }
    }

    /// The bits of `order` in turn: the first `vector` to registers, then to the threads, then to registers.
    pub fn spread(bits: usize, order: &[usize], vector: usize, thread_bits: usize) -> Layout {
        let mut homes = vec![Home::Reg(0); bits];
        let vector = vector.min(bits.saturating_sub(thread_bits));
        let (mut reg, mut thread) = (0u8, 0u8);
        for (n, bit) in order.iter().enumerate() {
            if n >= vector && usize::from(thread) < thread_bits {
                homes[*bit] = Home::Thread(thread);
                thread += 1;
            } else {
                homes[*bit] = Home::Reg(reg);
                reg += 1;
            }
        }
        Layout { homes }
    }

    /// Blocked along axes with `axis` fastest (then the others from the last to the first) in vectors of 2^`vector` elements.
    pub fn blocked(shape: &[u32], axis: usize, vector: usize, thread_bits: usize) -> Layout {
        let mut order: Vec<usize> = Vec::new();
        for a in std::iter::once(axis).chain((0..shape.len()).rev().filter(|a| *a != axis)) {
            let (low, high) = axis_bits(shape, a);
            order.extend(low..high);
        }
        let inner = log2(shape[axis]) as usize;
        Layout::spread(shape_bits(shape), &order, vector.min(inner), thread_bits)
    }

    /// Number of register bits.
    pub fn reg_bits(&self) -> usize {
        self.homes.iter().filter(|h| matches!(h, Home::Reg(_))).count()
    }

    /// Registers per thread.
    pub fn regs(&self) -> u32 {
        1 << self.reg_bits()
    }

    /// Thread bits that hold replicas, as a mask.
    pub fn replica_mask(&self, thread_bits: usize) -> u32 {
        let used: HashSet<u8> = self.homes.iter().filter_map(|h| if let Home::Thread(t) = h { Some(*t) } else { None }).collect();
        (0..thread_bits as u8).filter(|t| !used.contains(t)).map(|t| 1u32 << t).sum()
    }

    /// The element number of a register given the bits of its number.
    pub fn pos(&self, regs: &[Bit]) -> Pos {
        self.homes
            .iter()
            .map(|h| match h {
                Home::Reg(r) => regs[usize::from(*r)],
                Home::Thread(t) => Bit::Thread(*t),
            })
            .collect()
    }

    /// The layout of the remaining bits after dropping some, registers renumbered in order of the element number.
    pub fn keep(&self, bits: impl Iterator<Item = usize>) -> Layout {
        let mut homes: Vec<Home> = bits.map(|b| self.homes[b]).collect();
        renumber(&mut homes);
        Layout { homes }
    }

    /// Number of low bits of an axis that are the low register bits in order.
    pub fn vector_bits(&self, low: usize, high: usize) -> usize {
        (low..high).enumerate().take_while(|(n, b)| self.homes[*b] == Home::Reg(*n as u8)).count()
    }
}

/// Numbers registers 0, 1, … keeping their order among each other.
pub(super) fn renumber(homes: &mut [Home]) {
    let mut regs: Vec<u8> = homes.iter().filter_map(|h| if let Home::Reg(r) = h { Some(*r) } else { None }).collect();
    regs.sort_unstable();
    for h in homes.iter_mut() {
        if let Home::Reg(r) = h {
            *r = regs.iter().position(|x| x == r).unwrap_or(0) as u8;
        }
    }
}

/// The constant bits of a register number.
pub(super) fn const_bits(n: u32, bits: usize) -> Vec<Bit> {
    (0..bits).map(|i| if n >> i & 1 == 1 { Bit::One } else { Bit::Zero }).collect()
}
