//! Matrix fragments: a subgroup's matrices held whole, products summed in the sum's type term by term.

use crate::Elem;
use crate::error::Result;
use crate::thread::interpret::memory::{Touch, Who};
use crate::thread::interpret::{Machine, scalar};
use crate::thread::{Effect, FragmentInfo, Inst, Role, Ty, Val};
use crate::tile::{Binary, Cast};

impl Machine<'_> {
    fn info(&self, value: Val, what: &dyn Fn() -> String) -> Result<FragmentInfo> {
        match self.kernel.ty(value) {
            Ty::Fragment(kind) => Ok(self.kernel.fragments[kind as usize]),
            _ => Err(self.fault(&what(), 0, format!("{value} is no fragment"))),
        }
    }

    /// Rows, columns and element type of a fragment.
    fn kind(&self, value: Val, what: &dyn Fn() -> String) -> Result<(usize, usize, Elem)> {
        let info = self.info(value, what)?;
        let (m, n, k) = (info.shape.m as usize, info.shape.n as usize, info.shape.k as usize);
        Ok(match info.role {
            Role::A => (m, k, info.shape.factor),
            Role::B => (k, n, info.shape.factor),
            Role::Sum => (m, n, info.shape.sum),
        })
    }

    /// Number of subgroups; an error where there are none.
    fn subgroups(&self, what: &dyn Fn() -> String) -> Result<usize> {
        let width = self.kernel.subgroup as usize;
        if width == 0 || !self.threads.is_multiple_of(width) {
            return Err(self.fault(&what(), 0, format!("subgroups of {width} do not divide a block of {}", self.threads)));
        }
        Ok(self.threads / width)
    }

    /// A new fragment of a subgroup as the result of all its threads.
    fn give(&mut self, result: Val, subgroup: usize, elements: Vec<u64>) {
        self.fragments.push(elements);
        let handle = self.fragments.len() as u64 - 1;
        let width = self.kernel.subgroup as usize;
        for t in subgroup * width..(subgroup + 1) * width {
            self.put(result, t, handle);
        }
    }

    fn fragment_of(&self, value: Val, subgroup: usize, what: &dyn Fn() -> String) -> Result<&Vec<u64>> {
        let handle = self.agreed(value, subgroup, what)?;
        self.fragments.get(handle as usize).ok_or_else(|| self.fault(&what(), 0, format!("{value} is undefined")))
    }

    /// The accesses of a fragment are the whole subgroup's: no lane alone is known to make them.
    fn whole(&self, subgroup: usize) -> Who {
        let first = self.who(subgroup * self.kernel.subgroup as usize);
        Who { whole: true, ..first }
    }

    pub(super) fn fragment(&mut self, result: Val, inst: &Inst, what: &dyn Fn() -> String) -> Result<()> {
        if let Inst::FragmentGet(from, i) = inst {
            return self.fragment_get(result, *from, *i, what);
        }
        let (rows, columns, _) = self.kind(result, what)?;
        for s in 0..self.subgroups(what)? {
            let elements = match inst {
                Inst::FragmentLoad { array, index, stride, transposed, aligned } => {
                    let start = i64::from(self.agreed(*index, s, what)? as i32);
                    let vector = 16 / i64::from(self.kernel.shared[array.0 as usize].elem.bytes());
                    if *aligned && (start % vector != 0 || i64::from(*stride) % vector != 0) {
                        return Err(self.fault(&what(), s * self.kernel.subgroup as usize, format!("index {start} is called a multiple of 16 bytes")));
                    }
                    let mut elements = Vec::with_capacity(rows * columns);
                    for (r, c) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                        let (major, minor) = if *transposed { (c, r) } else { (r, c) };
                        let at = start + major as i64 * i64::from(*stride) + minor as i64;
                        let bits = self.shared.touch(self.whole(s), array.0, at, Touch::Read);
                        elements.push(bits.map_err(|m| self.fault(&what(), s * self.kernel.subgroup as usize, m))?);
                    }
                    elements
                }
                Inst::FragmentMulAdd(a, b, c) => {
                    let (_, depth, factor) = self.kind(*a, what)?;
                    let (_, _, sum) = self.kind(*c, what)?;
                    let (a, b, c) = (self.fragment_of(*a, s, what)?, self.fragment_of(*b, s, what)?, self.fragment_of(*c, s, what)?);
                    let term = |total: u64, x: u64, y: u64| {
                        let widen = |v| if factor.is_float() { scalar::cast(Cast::FpToFp, factor, sum, v) } else { scalar::cast(Cast::ExtS, factor, sum, v) };
                        let (mul, add) = if factor.is_float() { (Binary::MulF, Binary::AddF) } else { (Binary::MulI, Binary::AddI) };
                        scalar::binary(add, sum, total, scalar::binary(mul, sum, widen(x), widen(y)))
                    };
                    let at = |r: usize, col: usize| (0..depth).fold(c[r * columns + col], |total, k| term(total, a[r * depth + k], b[k * columns + col]));
                    (0..rows * columns).map(|i| at(i / columns, i % columns)).collect()
                }
                Inst::FragmentOf(values) => {
                    let (info, width) = (self.info(result, what)?, self.kernel.subgroup);
                    let mut elements = vec![0; rows * columns];
                    for (lane, (i, v)) in (0..width).flat_map(|lane| (0..).zip(values).map(move |e| (lane, e))) {
                        let (row, column) = info.held(lane, i);
                        elements[row as usize * columns + column as usize] = self.get(*v, s * width as usize + lane as usize);
                    }
                    elements
                }
                _ => vec![0; rows * columns],
            };
            self.give(result, s, elements);
        }
        Ok(())
    }

    /// The element of each lane.
    fn fragment_get(&mut self, result: Val, from: Val, i: u32, what: &dyn Fn() -> String) -> Result<()> {
        let (info, (_, columns, _), width) = (self.info(from, what)?, self.kind(from, what)?, self.kernel.subgroup);
        for s in 0..self.subgroups(what)? {
            for lane in 0..width {
                let (row, column) = info.held(lane, i);
                let bits = self.fragment_of(from, s, what)?[row as usize * columns + column as usize];
                self.put(result, s * width as usize + lane as usize, bits);
            }
        }
        Ok(())
    }

    pub(super) fn store_fragment(&mut self, effect: &Effect, what: &dyn Fn() -> String) -> Result<()> {
        let Effect::FragmentStore { fragment, array, index, stride } = effect else { return Ok(()) };
        let (_, columns, _) = self.kind(*fragment, what)?;
        for s in 0..self.subgroups(what)? {
            let start = i64::from(self.agreed(*index, s, what)? as i32);
            let elements = self.fragment_of(*fragment, s, what)?.clone();
            for (i, bits) in elements.into_iter().enumerate() {
                let at = start + (i / columns) as i64 * i64::from(*stride) + (i % columns) as i64;
                let done = self.shared.touch(self.whole(s), array.0, at, Touch::Write(bits));
                done.map_err(|m| self.fault(&what(), s * self.kernel.subgroup as usize, m))?;
            }
        }
        Ok(())
    }
}
