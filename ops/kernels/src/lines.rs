//! Lines: tensors walked along some axes (summed, sorted, normalised) for each point of the others.

use flagos_compiler::Target;
use flagos_compiler::build::{Expr, Kernel};

use crate::launch::{Context, extent, is_cpu, is_wide};
use crate::space::{Form, Space, Step, Walk, index};
use crate::{Arg, View};

/// A split iteration space: each point of `kept` has a line of points.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Points that have lines.
    pub kept: Space,
    /// Points of a line.
    pub line: Space,
    /// 64-bit offsets.
    pub wide: bool,
}

/// A tile of lines: how many at a time, how many points of each, and which runs along the tile's second axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Lines of a tile.
    pub lines: u32,
    /// Points of each.
    pub points: u32,
    /// Points run along the second axis (lines along the first), or the reverse where that is how memory runs.
    pub inner: bool,
}

impl Cut {
    /// Axis of points.
    pub fn axis(self) -> u32 {
        u32::from(self.inner)
    }
    /// Shape of a tile.
    pub fn shape(self) -> [u32; 2] {
        if self.inner { [self.lines, self.points] } else { [self.points, self.lines] }
    }
    /// A value per line, as a tile that meets tiles of this cut.
    pub fn per_line(self, value: Expr) -> Expr {
        value.expand(self.axis())
    }
}

impl core::fmt::Display for Cut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}{}x{}", if self.inner { "i" } else { "o" }, self.lines, self.points)
    }
}

impl Lines {
    /// Views of `shape` (broadcast to it) with lines along `over`. Kept axes are in the order in which the first view lies in memory; the
    /// points of a line are row-major unless their order is free.
    pub fn new(shape: &[i64], over: &[usize], views: &[&View], free: bool) -> Lines {
        let strides: Vec<Vec<i64>> = views.iter().map(|v| v.strides_in(shape)).collect();
        let axis = |d: usize| (shape[d], strides.iter().map(|s| s[d]).collect::<Vec<i64>>());
        let by_stride = |list: &mut Vec<(i64, Vec<i64>)>| list.sort_by_key(|(_, s)| core::cmp::Reverse(s[0].unsigned_abs()));
        let mut kept: Vec<_> = (0..shape.len()).filter(|d| !over.contains(d)).map(axis).collect();
        let mut line: Vec<_> = over.iter().map(|d| axis(*d)).collect();
        by_stride(&mut kept);
        if free {
            by_stride(&mut line);
        }
        let (kept, line) = (Space::new(views.len(), kept), Space::new(views.len(), line));
        let wide = kept.reach().saturating_add(line.reach()).saturating_add(kept.count().saturating_mul(line.count())) >= 1 << 30;
        Lines { kept, line, wide }
    }
    /// Whether points of a line are neighbours in memory rather than lines are.
    pub fn runs_inside(&self) -> bool {
        self.line.step(0) == Step::One || self.kept.step(0) != Step::One
    }
    /// A cut of about `size` elements, with lines of at most `most` points at a time.
    pub fn cut(&self, target: &Target, size: u32, most: u32) -> Cut {
        let (kept, points) = (self.kept.count(), self.line.count());
        if self.runs_inside() {
            let points = extent(points, 1, most);
            Cut { lines: extent(kept, 1, (size / points).max(1)), points, inner: true }
        } else {
            let most_lines = match (is_cpu(target), is_wide(target)) {
                (true, _) => 256,
                (_, true) => 128,
                _ => 64,
            };
            let lines = extent(kept, 1, most_lines);
            Cut { lines, points: extent(points, 1, (size / lines).clamp(1, most)), inner: false }
        }
    }
    /// Arguments in the order of [`LinesForm::declare`].
    pub fn args(&self, out: &mut Vec<Arg>) {
        self.kept.args(self.wide, out);
        self.line.args(self.wide, out);
    }
    /// What kernels depend on.
    pub fn form(&self) -> LinesForm {
        LinesForm { kept: self.kept.form(self.wide), line: self.line.form(self.wide), wide: self.wide }
    }
}

/// What of [`Lines`] is part of a kernel.
#[derive(Clone, Debug)]
pub struct LinesForm {
    kept: Form,
    line: Form,
    wide: bool,
}

impl core::fmt::Display for LinesForm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}|{}", self.kept, self.line)
    }
}

impl LinesForm {
    /// Declares the arguments.
    pub fn declare(&self, c: &Context) -> LineWalk {
        LineWalk { kept: self.kept.declare(c.k), line: self.line.declare(c.k), wide: self.wide }
    }
}

/// Lines inside of a kernel.
#[derive(Clone, Debug)]
pub struct LineWalk {
    kept: Walk,
    line: Walk,
    wide: bool,
}

/// The lines of a block: where each operand's lines begin, and which exist.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Index of each line, shaped to meet tiles.
    pub index: Expr,
    /// Offsets of their first points, by operand.
    pub offsets: Vec<Expr>,
    /// Which exist.
    pub exist: Expr,
}

impl LineWalk {
    /// Lines `block`·lines and on.
    pub fn rows(&self, k: &Kernel, cut: Cut, block: Expr) -> Rows {
        let first = block.to(index(self.wide)) * i64::from(cut.lines);
        let index = (first + k.arange(cut.lines)).expand(cut.axis());
        Rows { index, offsets: self.kept.offsets(index), exist: index.lt(self.kept.count(k)) }
    }
    /// Number of lines.
    pub fn kept_count(&self, k: &Kernel) -> Expr {
        self.kept.count(k)
    }
    /// Number of points of a line.
    pub fn length(&self, k: &Kernel) -> Expr {
        self.line.count(k)
    }
    /// Points `start` and on, shaped to meet tiles.
    pub fn points(&self, k: &Kernel, cut: Cut, start: Expr) -> Expr {
        (start + k.arange(cut.points)).expand(1 - cut.axis())
    }
    /// Offsets of points within their line, by operand.
    pub fn offsets(&self, points: Expr) -> Vec<Expr> {
        self.line.offsets(points)
    }
    /// An index constant.
    pub fn int(&self, k: &Kernel, value: i64) -> Expr {
        k.int(index(self.wide), value)
    }
}
