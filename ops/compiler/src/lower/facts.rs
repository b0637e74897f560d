//! What is known of the values of a tile along its axes: runs of consecutive and of equal elements, and divisibility.

use crate::tile::{Binary, Cast, CmpI, Item};

/// Greatest divisibility that is tracked.
pub(super) const MAX_DIV: u64 = 1 << 20;

/// Facts along one axis; all numbers are powers of two. Runs start at multiples of their length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Axis {
    /// Elements of a run grow by one.
    pub run: u64,
    /// Elements of a run are equal.
    pub same: u64,
    /// First elements of runs (of either kind) are multiples of this; addresses are counted in bytes.
    pub div: u64,
}

/// Facts by axis.
pub(super) type Facts = Vec<Axis>;

/// The greatest power of two that divides `n`, limited.
pub(super) fn power(n: u64) -> u64 {
    if n == 0 { MAX_DIV } else { (n & n.wrapping_neg()).min(MAX_DIV) }
}

impl Axis {
    /// Nothing is known.
    pub const NONE: Axis = Axis { run: 1, same: 1, div: 1 };

    /// Divisibility of elements whose index is a multiple of `step`; `unit` is the distance of neighbours in a run.
    pub fn div_at(&self, step: u64, unit: u64) -> u64 {
        if self.run > step { self.div.min(power(step * unit)) } else { self.div }
    }
}

/// Facts of `range(start, …)` of `n` elements.
pub(super) fn range(start: i32, n: u32) -> Facts {
    vec![Axis { run: u64::from(n), same: 1, div: power(start as u32 as u64) }]
}

/// Facts of equal elements.
pub(super) fn splat(shape: &[u32], div: u64) -> Facts {
    shape.iter().map(|n| Axis { run: 1, same: u64::from(*n), div }).collect()
}

/// Facts of an integer operation; `equal[i]` is the value of operand i where all its elements are one constant.
pub(super) fn binary(op: Binary, a: &Facts, b: &Facts, equal: [Option<u64>; 2]) -> Facts {
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let same = a.same.min(b.same);
            match op {
                Binary::AddI | Binary::SubI => {
                    let mut run = a.run.min(b.same);
                    if op == Binary::AddI {
                        run = run.max(a.same.min(b.run));
                    }
                    let step = run.max(same);
                    Axis { run, same, div: a.div_at(step, 1).min(b.div_at(step, 1)) }
                }
                Binary::MulI => {
                    let run = if equal[1] == Some(1) { a.run } else if equal[0] == Some(1) { b.run } else { 1 };
                    let step = run.max(same);
                    Axis { run, same, div: (a.div_at(step, 1) * b.div_at(step, 1)).min(MAX_DIV) }
                }
                Binary::Shl => match equal[1] {
                    Some(n) if n < 20 => Axis { run: if n == 0 { a.run } else { 1 }, same, div: (a.div_at(same, 1) << n).min(MAX_DIV) },
                    _ => Axis { run: 1, same, div: 1 },
                },
                Binary::RemS | Binary::RemU => Axis { run: a.run.min(b.same).min(b.div).min(a.div), same, div: a.div.min(b.div) },
                Binary::DivS | Binary::DivU => {
                    let same = if b.same >= a.run { same.max(a.run.min(b.div).min(a.div)) } else { same };
                    Axis { run: 1, same, div: 1 }
                }
                Binary::And | Binary::Or | Binary::Xor => Axis { run: 1, same, div: if op == Binary::And { 1 } else { a.div_at(same, 1).min(b.div_at(same, 1)) } },
                _ => Axis { run: 1, same, div: 1 },
            }
        })
        .collect()
}

/// Facts of a comparison.
pub(super) fn compare(op: CmpI, a: &Facts, b: &Facts) -> Facts {
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let mut same = a.same.min(b.same);
            // i < n is constant over a run that starts at a multiple of its length when n is such a multiple too.
            if matches!(op, CmpI::Slt | CmpI::Ult | CmpI::Sge | CmpI::Uge) {
                same = same.max(a.run.min(b.same).min(a.div).min(b.div));
            }
            Axis { run: 1, same, div: 1 }
        })
        .collect()
}

/// Facts of pointer + offset.
pub(super) fn pointer(item: Item, p: &Facts, offset: &Facts) -> Facts {
    let bytes = u64::from(if let Item::Ptr(e) = item { e.bytes() } else { 1 });
    p.iter()
        .zip(offset)
        .map(|(p, o)| {
            let run = p.run.min(o.same).max(p.same.min(o.run));
            let same = p.same.min(o.same);
            let step = run.max(same);
            Axis { run, same, div: p.div_at(step, bytes).min((o.div_at(step, 1) * bytes).min(MAX_DIV)) }
        })
        .collect()
}

/// Facts of a conversion.
pub(super) fn cast(op: Cast, a: &Facts) -> Facts {
    match op {
        // Indices do not wrap within a tile: a run of an i32 stays a run as i64.
        Cast::ExtS | Cast::ExtU => a.clone(),
        _ => a.iter().map(|a| Axis { run: 1, same: a.same, div: 1 }).collect(),
    }
}

/// Facts of an elementwise operation nothing else is known of.
pub(super) fn other(shape: &[u32], operands: &[&Facts]) -> Facts {
    (0..shape.len()).map(|i| Axis { run: 1, same: operands.iter().map(|f| f[i].same).min().unwrap_or(1), div: 1 }).collect()
}
