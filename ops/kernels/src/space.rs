//! Iteration spaces: several operands walked together along merged axes, on the host as numbers and in kernels as values.

use flagos_compiler::Elem;
use flagos_compiler::build::{Expr, Kernel};

use crate::{Arg, View};

/// Axes walked together, outermost first: extent, then each operand's stride in elements.
#[derive(Clone, Debug)]
pub struct Space {
    operands: usize,
    axes: Vec<(i64, Vec<i64>)>,
}

/// How an operand moves along the innermost axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not at all: the axis is broadcast.
    Zero,
    /// To the next element.
    One,
    /// By a stride that is an argument.
    Any,
}

impl Space {
    /// The given axes of operands, merged where all of them allow it; axes of extent 1 vanish.
    pub fn new(operands: usize, axes: impl IntoIterator<Item = (i64, Vec<i64>)>) -> Space {
        let mut merged: Vec<(i64, Vec<i64>)> = Vec::new();
        for (n, step) in axes {
            if n == 1 {
                continue;
            }
            match merged.last_mut() {
                Some((outer, at)) if at.iter().zip(&step).all(|(o, s)| Some(*o) == s.checked_mul(n)) => (*outer, *at) = (*outer * n, step),
                _ => merged.push((n, step)),
            }
        }
        Space { operands, axes: merged }
    }
    /// Operands broadcast to a shape, row-major.
    pub fn of(shape: &[i64], operands: &[&View]) -> Space {
        Space::new(operands.len(), axes(shape, operands))
    }
    /// As [`Space::of`], but in the order in which `lead` lies in memory, its smallest stride innermost.
    pub fn sorted(shape: &[i64], operands: &[&View], lead: usize) -> Space {
        let mut list = axes(shape, operands);
        list.sort_by_key(|(_, strides)| core::cmp::Reverse(strides[lead].unsigned_abs()));
        Space::new(operands.len(), list)
    }
    /// A single axis, whatever its extent.
    pub fn line(operands: usize, axis: (i64, Vec<i64>)) -> Space {
        Space { operands, axes: vec![axis] }
    }
    /// The same points with operand `i` lying row-major without gaps, as partial results do.
    pub fn numbered(&self, i: usize) -> Space {
        let (mut space, mut step) = (self.clone(), 1);
        for (n, strides) in space.axes.iter_mut().rev() {
            strides[i] = step;
            step *= *n;
        }
        space
    }
    /// Number of axes left.
    pub fn rank(&self) -> usize {
        self.axes.len()
    }
    /// Number of points.
    pub fn count(&self) -> i64 {
        self.axes.iter().map(|a| a.0).product()
    }
    /// An axis: extent and strides.
    pub fn axis(&self, index: usize) -> &(i64, Vec<i64>) {
        &self.axes[index]
    }
    /// Takes an axis out.
    pub fn take(&mut self, index: usize) -> (i64, Vec<i64>) {
        self.axes.remove(index)
    }
    /// Merges what became neighbours.
    pub fn merge(self) -> Space {
        Space::new(self.operands, self.axes)
    }
    /// How an operand moves along the innermost axis; a single point: `Zero`.
    pub fn step(&self, operand: usize) -> Step {
        match self.axes.last().map(|(_, s)| s[operand]) {
            None | Some(0) => Step::Zero,
            Some(1) => Step::One,
            Some(_) => Step::Any,
        }
    }
    /// Greatest distance of an operand's elements, in elements.
    pub fn reach(&self) -> i64 {
        let of = |i: usize| self.axes.iter().fold(0i64, |r, (n, s)| r.saturating_add((n - 1).max(0).saturating_mul(s[i].saturating_abs())));
        (0..self.operands).map(of).max().unwrap_or(0).max(self.count())
    }
    /// Whether offsets need 64 bits; tiles may overshoot by less than 2^30 before masks stop them.
    pub fn wide(&self) -> bool {
        self.reach() >= 1 << 30
    }
    /// What a kernel that walks this space depends on.
    pub fn form(&self, wide: bool) -> Form {
        let even = self.axes.iter().map(|(n, s)| n % 16 == 0 && s.iter().all(|s| s.abs() <= 1 || s % 16 == 0)).collect();
        Form { operands: self.operands, steps: (0..self.operands).map(|i| self.step(i)).collect(), even, wide }
    }
    /// Arguments in the order of [`Form::declare`].
    pub fn args(&self, wide: bool, out: &mut Vec<Arg>) {
        self.form(wide).args(self, out);
    }
    /// The same points with axes of extent 1 put before the others, so that there are at least `rank`.
    pub fn padded(mut self, rank: usize) -> Space {
        let missing = rank.saturating_sub(self.axes.len());
        self.axes.splice(0..0, (0..missing).map(|_| (1, vec![0; self.operands])));
        self
    }
}

fn axes(shape: &[i64], operands: &[&View]) -> Vec<(i64, Vec<i64>)> {
    let strides: Vec<Vec<i64>> = operands.iter().map(|v| v.strides_in(shape)).collect();
    shape.iter().enumerate().map(|(d, n)| (*n, strides.iter().map(|s| s[d]).collect())).collect()
}

/// An integer argument of the index type.
pub fn integer(value: i64, wide: bool) -> Arg {
    Arg::Scalar { bits: if wide { value as u64 } else { u64::from(value as u32) }, bytes: if wide { 8 } else { 4 } }
}

/// Index type.
pub fn index(wide: bool) -> Elem {
    if wide { Elem::I64 } else { Elem::I32 }
}

/// What of a [`Space`] is part of a kernel: ranks and innermost steps; extents and strides are arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    operands: usize,
    steps: Vec<Step>,
    /// Per axis: extent and strides beyond 1 are multiples of 16.
    even: Vec<bool>,
    wide: bool,
}

impl core::fmt::Display for Form {
    /// "2x10s" for two axes whose operands move by 1, 0 and any stride inside; "w" for 64-bit offsets; "e…" for axes of multiples of 16.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}x", self.even.len())?;
        for s in &self.steps {
            f.write_str(match s {
                Step::Zero => "0",
                Step::One => "1",
                Step::Any => "s",
            })?;
        }
        if self.wide {
            f.write_str("w")?;
        }
        if self.even.contains(&true) {
            f.write_str("e")?;
            self.even.iter().try_for_each(|e| f.write_str(if *e { "1" } else { "0" }))?;
        }
        Ok(())
    }
}

impl Form {
    /// Without what numbers happen to be: for code that serves all spaces of its rank.
    pub fn general(mut self) -> Form {
        self.steps.fill(Step::Any);
        self.uneven()
    }
    /// Without what multiples of 16 would be good for.
    pub fn uneven(mut self) -> Form {
        self.even.fill(false);
        self
    }
    /// A space's arguments in the order of [`Form::declare`].
    pub fn args(&self, space: &Space, out: &mut Vec<Arg>) {
        let last = space.rank().wrapping_sub(1);
        for (d, (n, strides)) in space.axes.iter().enumerate() {
            out.push(integer(*n, self.wide));
            for (i, s) in strides.iter().enumerate() {
                if d != last || self.steps[i] == Step::Any {
                    out.push(integer(*s, self.wide));
                }
            }
        }
    }
    /// Declares the space's arguments.
    pub fn declare(&self, k: &Kernel) -> Walk {
        let (elem, rank) = (index(self.wide), self.even.len());
        let mut axes = Vec::new();
        for d in 0..rank {
            let facts = if self.even[d] { 16 } else { 1 };
            let n = k.multiple(elem, facts);
            let strides = (0..self.operands)
                .map(|i| match self.steps[i] {
                    _ if d + 1 != rank => Stride::Value(k.multiple(elem, facts)),
                    Step::Any => Stride::Value(k.multiple(elem, facts)),
                    Step::One => Stride::One,
                    Step::Zero => Stride::Zero,
                })
                .collect();
            axes.push((n, strides));
        }
        Walk { operands: self.operands, elem, axes }
    }
}

/// A stride in a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Stride {
    /// The operand stays.
    Zero,
    /// The next element.
    One,
    /// An argument.
    Value(Expr),
}

impl Stride {
    /// Offset of an index; `None`: none.
    pub fn times(self, index: Expr) -> Option<Expr> {
        match self {
            Stride::Zero => None,
            Stride::One => Some(index),
            Stride::Value(s) => Some(index * s),
        }
    }
}

/// A space inside of a kernel.
#[derive(Clone, Debug)]
pub struct Walk {
    operands: usize,
    elem: Elem,
    axes: Vec<(Expr, Vec<Stride>)>,
}

impl Walk {
    /// Each operand's offset of the point at a row-major index, a scalar or tile of the index type; zero without axes.
    pub fn offsets(&self, flat: Expr) -> Vec<Expr> {
        let mut sums: Vec<Option<Expr>> = vec![None; self.operands];
        let mut rest = flat;
        for (d, (n, strides)) in self.axes.iter().enumerate().rev() {
            let here = if d == 0 { rest } else { rest.rem_unsigned(*n) };
            if d > 0 {
                rest = rest.div_unsigned(*n);
            }
            for (sum, stride) in sums.iter_mut().zip(strides) {
                if let Some(term) = stride.times(here) {
                    *sum = Some(sum.map_or(term, |s| s + term));
                }
            }
        }
        let zero = || flat.elem_zero(self.elem);
        sums.into_iter().map(|s| s.unwrap_or_else(zero)).collect()
    }
    /// Number of points, 1 without axes.
    pub fn count(&self, k: &Kernel) -> Expr {
        self.axes.iter().map(|a| a.0).reduce(|a, b| a * b).unwrap_or_else(|| k.int(self.elem, 1))
    }
}

trait Zero {
    fn elem_zero(self, elem: Elem) -> Expr;
}
impl Zero for Expr {
    /// Zeros of this value's shape.
    fn elem_zero(self, elem: Elem) -> Expr {
        flagos_compiler::build::int_constant(elem, 0).splat(&self.shape())
    }
}
