//! Matrix product C ← alpha·A·B + beta·D of any strides and types: packed panels, register tiles, work split over the pool.
//!
//! The blocking is that of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008). The depth is never split
//! over threads, so equal inputs give equal bits whatever their number.

use flagos_backend_api::{DType, Error, Result};

use crate::gemm_pack::{Factor, PackFn, Store, StoreFn, input, output};
use crate::gemm_tile::{Domain, Tile};
use crate::gemm_vector::{ROWS, VectorFn, vector};
use crate::pool::Pool;
use crate::scratch::{Slots, padded};
use crate::target::{Isa, Target};

/// Strides of a matrix in elements: of rows and of columns.
pub type Strides = (isize, isize);

/// A planned product.
#[derive(Clone)]
pub struct Gemm {
    isa: Isa,
    threads: usize,
    domain: Domain,
    tile: Tile,
    pack: PackFn,
    store: StoreFn,
    vector: VectorFn,
    in_bytes: usize,
    out_bytes: usize,
    /// Partial sums wait in the workspace, not in C: the output is narrower than they are, or they are worth it.
    partial: bool,
    // All below as the tiles see it: C's rows run along the tile's vectors.
    swapped: bool,
    m: usize,
    n: usize,
    k: usize,
    a: Strides,
    b: Strides,
    d: Strides,
    c: Strides,
    conj_a: bool,
    conj_b: bool,
    kc: usize,
    /// Rows of A and columns of B packed at a time.
    mb: usize,
    nb: usize,
}

/// What a product is of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Type of A and B.
    pub input: DType,
    /// Type of C and D.
    pub output: DType,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A.
    pub k: usize,
    /// Strides of A.
    pub a: Strides,
    /// Strides of B.
    pub b: Strides,
    /// Strides of D, which may be 0.
    pub d: Strides,
    /// Strides of C.
    pub c: Strides,
    /// Conjugates A.
    pub conj_a: bool,
    /// Conjugates B.
    pub conj_b: bool,
}

/// Addresses of element (0, 0), and factors. Without an addend, beta does not count.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// A.
    pub a: *const u8,
    /// B.
    pub b: *const u8,
    /// D; NULL for none. May be C.
    pub d: *const u8,
    /// C.
    pub c: *mut u8,
    /// Factor of A·B; at 0 neither is read.
    pub alpha: Factor,
    /// Factor of D.
    pub beta: Factor,
}

// SAFETY: the addresses are used only within a run, whose caller vouches for them.
unsafe impl Sync for Operands {}
// SAFETY: as above.
unsafe impl Send for Operands {}

/// Rows (in bytes of packed A) that stay in the second-level cache, and bytes packed at a time.
const ROW_BLOCK_BYTES: usize = 384 << 10;
const PACKED_BYTES: usize = 4 << 20;
/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 18;

impl Gemm {
    /// Plans a product. UNIMPLEMENTED for pairs of types without a common accumulator.
    pub fn new(shape: &Shape, target: &Target) -> Result<Gemm> {
        let pair = input(shape.input).zip(output(shape.output)).filter(|(i, o)| i.0 == o.0).zip(vector(shape.input));
        let Some((((domain, pack), (_, store)), vector)) = pair else {
            return Err(Error::unimplemented(format!("no matrix product of {} to {}", shape.input, shape.output)));
        };
        let tile = domain.tile(target.isa);
        debug_assert!(tile.mr * tile.nr * domain.part_bytes() * domain.parts() <= TILE_BYTES);
        let Shape { m, n, k, a, b, c, d, conj_a, conj_b, .. } = *shape;
        // A vector is always B.
        let swapped = n > 1 && (m == 1 || c.0.unsigned_abs() > c.1.unsigned_abs());
        let turn = |s: Strides| (s.1, s.0);
        let (m, n, a, b, c, d, conj_a, conj_b) =
            if swapped { (n, m, turn(b), turn(a), turn(c), turn(d), conj_b, conj_a) } else { (m, n, a, b, c, d, conj_a, conj_b) };
        let step = domain.part_bytes() * domain.parts();
        // A panel of B (NR × KC) fills most of the first-level cache.
        let longest = ((24 << 10) / (tile.nr * step)).next_multiple_of(8);
        let kc = k.div_ceil(k.div_ceil(longest).max(1)).max(1);
        // With 8-byte parts depth is cut so short that reading C back each time would cost more than the workspace does.
        let partial = k > kc && (shape.output.bytes() < step || domain.part_bytes() == 8);
        let most = if partial { 1024 } else { usize::MAX };
        let block = |extent: usize, unit: usize| (PACKED_BYTES / (kc * step)).min(most).next_multiple_of(unit).min(extent.next_multiple_of(unit)).max(unit);
        Ok(Gemm {
            isa: target.isa,
            threads: target.threads,
            domain,
            tile,
            pack,
            store,
            vector,
            in_bytes: shape.input.bytes(),
            out_bytes: shape.output.bytes(),
            partial,
            swapped,
            m,
            n,
            k,
            a,
            b,
            c,
            d,
            conj_a,
            conj_b,
            kc,
            mb: block(m, tile.mr),
            nb: block(n, tile.nr),
        })
    }

    /// Workspace in bytes, 64-byte aligned.
    pub fn workspace_bytes(&self) -> usize {
        let (a, b, partial) = self.parts();
        a + b + partial
    }

    /// Multiply-adds.
    pub fn work(&self) -> usize {
        self.m.saturating_mul(self.n).saturating_mul(self.k.max(1))
    }

    /// Which kernel runs, for people.
    pub fn name(&self) -> String {
        format!("{:?} {:?} tiles of {} by {}", self.isa, self.domain, self.tile.mr, self.tile.nr).to_lowercase()
    }

    /// Computes; serially without a pool.
    ///
    /// # Safety
    /// Addresses are valid for the plan's extents and strides, C overlaps neither A nor B, and D only where it is the same element;
    /// `workspace` is [`Gemm::workspace_bytes`] long, 64-byte aligned, and used by nobody else.
    pub unsafe fn run(&self, x: &Operands, workspace: *mut u8, pool: Option<&Pool>) {
        let x = if self.swapped { &Operands { a: x.b, b: x.a, ..*x } } else { x };
        let k = if x.alpha == Factor::ZERO { 0 } else { self.k };
        let pool = pool.filter(|p| p.threads() > 1 && self.work() >= SERIAL);
        if self.n == 1 {
            // SAFETY: stated by the caller.
            return unsafe { self.run_vector(x, k, pool) };
        }
        let (a_bytes, b_bytes, _) = self.parts();
        for column in (0..self.n).step_by(self.nb) {
            for row in (0..self.m).step_by(self.mb) {
                let mut depth = 0;
                loop {
                    let steps = self.kc.min(k - depth);
                    let block = Block {
                        gemm: self,
                        x,
                        row,
                        column,
                        depth,
                        steps,
                        rows: self.mb.min(self.m - row),
                        columns: self.nb.min(self.n - column),
                        last: depth + steps == k,
                        packed_a: workspace,
                        packed_b: workspace.wrapping_add(a_bytes),
                        partial: workspace.wrapping_add(a_bytes + b_bytes),
                    };
                    // SAFETY: stated by the caller.
                    unsafe { block.run(pool) };
                    depth += steps;
                    if depth == k {
                        break;
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Gemm::run`].
    unsafe fn run_vector(&self, x: &Operands, k: usize, pool: Option<&Pool>) {
        // Columns are read in long runs; rows are long themselves.
        let share = if self.a.0 == 1 { ROWS } else { ROWS / 8 };
        let rows = |task: usize| {
            let mut space = Space::<{ ROWS * 16 }>::new();
            let first = task * share;
            let offset = |s: isize, bytes: usize| first as isize * s * bytes as isize;
            let rows = share.min(self.m - first);
            let a = x.a.wrapping_offset(offset(self.a.0, self.in_bytes));
            let d = if x.d.is_null() { x.d } else { x.d.wrapping_offset(offset(self.d.0, self.out_bytes)) };
            let store = Store {
                acc: space.address(),
                mr: rows,
                rows,
                cols: 1,
                addend: d,
                addend_strides: self.d,
                out: x.c.wrapping_offset(offset(self.c.0, self.out_bytes)),
                strides: self.c,
                alpha: x.alpha,
                beta: x.beta,
            };
            // SAFETY: the rows lie within A, C and D; the space holds their sums.
            unsafe {
                (self.vector)(self.isa, a, self.a, rows, x.b, self.b.0, k, (self.conj_a, self.conj_b), space.address());
                (self.store)(self.isa, &store);
            }
        };
        let tasks = self.m.div_ceil(share);
        match pool {
            Some(pool) if tasks > 1 => pool.for_each(tasks, &rows),
            _ => (0..tasks).for_each(rows),
        }
    }

    fn step_bytes(&self) -> usize {
        self.domain.part_bytes() * self.domain.parts()
    }
    /// Bytes of packed A, packed B and partial sums.
    fn parts(&self) -> (usize, usize, usize) {
        if self.n == 1 {
            return (0, 0, 0);
        }
        let (step, kc) = (self.step_bytes(), self.kc.min(self.k));
        (padded(self.mb * kc * step), padded(self.nb * kc * step), if self.partial { self.mb * self.nb * step } else { 0 })
    }
}

/// One block of C at one range of depth.
struct Block<'a> {
    gemm: &'a Gemm,
    x: &'a Operands,
    row: usize,
    column: usize,
    depth: usize,
    steps: usize,
    rows: usize,
    columns: usize,
    last: bool,
    packed_a: *mut u8,
    packed_b: *mut u8,
    partial: *mut u8,
}

// SAFETY: tasks write disjoint panels and tiles.
unsafe impl Sync for Block<'_> {}

/// Bytes of the largest tile: 32 × 12 of f32.
const TILE_BYTES: usize = 32 * 12 * 4;

/// Room for sums.
#[repr(align(64))]
struct Space<const N: usize>([core::mem::MaybeUninit<u8>; N]);

impl<const N: usize> Space<N> {
    fn new() -> Self {
        Space([core::mem::MaybeUninit::uninit(); N])
    }
    fn address(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

impl Block<'_> {
    /// # Safety
    /// As [`Gemm::run`].
    unsafe fn run(&self, pool: Option<&Pool>) {
        let Tile { mr, nr, .. } = self.gemm.tile;
        let (a_panels, b_panels) = (self.rows.div_ceil(mr), self.columns.div_ceil(nr));
        let row_panels = (ROW_BLOCK_BYTES / (self.steps * mr * self.gemm.step_bytes()).max(1)).clamp(1, a_panels);
        let row_blocks = a_panels.div_ceil(row_panels);
        let Some(pool) = pool else {
            // SAFETY: stated by the caller.
            unsafe {
                (0..a_panels).for_each(|p| self.pack_a(p));
                (0..b_panels).for_each(|p| self.pack_b(p));
                (0..row_blocks).for_each(|r| self.tiles(r * row_panels..((r + 1) * row_panels).min(a_panels), 0..b_panels));
            }
            return;
        };
        let threads = pool.threads();
        if self.steps > 0 {
            let share = (a_panels + b_panels).div_ceil(threads * 4);
            pool.for_each((a_panels + b_panels).div_ceil(share), &|task| {
                for p in task * share..((task + 1) * share).min(a_panels + b_panels) {
                    // SAFETY: each panel is packed by one task; the rest is stated by the caller.
                    unsafe { if p < a_panels { self.pack_a(p) } else { self.pack_b(p - a_panels) } }
                }
            });
        }
        // Several tasks per thread even out what threads get done.
        let column_blocks = (threads * 4).div_ceil(row_blocks).clamp(1, b_panels);
        let share = b_panels.div_ceil(column_blocks);
        let column_blocks = b_panels.div_ceil(share);
        pool.for_each(row_blocks * column_blocks, &|task| {
            let (r, c) = (task / column_blocks, task % column_blocks);
            // SAFETY: each tile is written by one task, after all panels are packed.
            unsafe { self.tiles(r * row_panels..((r + 1) * row_panels).min(a_panels), c * share..((c + 1) * share).min(b_panels)) }
        });
    }

    /// # Safety
    /// As [`Gemm::run`]; nobody else touches the panel.
    unsafe fn pack_a(&self, panel: usize) {
        let g = self.gemm;
        // SAFETY: the panel lies within A and the packed block.
        unsafe { self.pack(self.x.a, g.a, self.row, self.rows, panel, g.tile.mr, g.conj_a, self.packed_a) }
    }

    /// # Safety
    /// As [`Gemm::run`]; nobody else touches the panel.
    unsafe fn pack_b(&self, panel: usize) {
        let g = self.gemm;
        // SAFETY: the panel lies within B and the packed block.
        unsafe { self.pack(self.x.b, (g.b.1, g.b.0), self.column, self.columns, panel, g.tile.nr, g.conj_b, self.packed_b) }
    }

    /// # Safety
    /// As [`Gemm::run`]; nobody else touches the panel.
    #[allow(clippy::too_many_arguments)]
    unsafe fn pack(&self, x: *const u8, strides: Strides, first: usize, extent: usize, panel: usize, width: usize, conj: bool, to: *mut u8) {
        let g = self.gemm;
        let at = (first + panel * width) as isize * strides.0 + self.depth as isize * strides.1;
        let rows = width.min(extent - panel * width);
        let src = x.wrapping_offset(at * g.in_bytes as isize);
        let dst = to.wrapping_add(panel * width * self.steps * g.step_bytes());
        // SAFETY: rows and steps lie within the operand, the panel within the packed block.
        unsafe { (g.pack)(g.isa, src, strides.0, strides.1, rows, self.steps, conj, width, dst) }
    }

    /// # Safety
    /// As [`Gemm::run`]; panels are packed and nobody else touches the tiles.
    unsafe fn tiles(&self, rows: core::ops::Range<usize>, columns: core::ops::Range<usize>) {
        let g = self.gemm;
        let (Tile { mr, nr, run }, step) = (g.tile, g.step_bytes());
        let mut space = Space::<TILE_BYTES>::new();
        let (first, whole) = (self.depth == 0, self.columns.div_ceil(nr));
        for j in columns {
            let b = self.packed_b.wrapping_add(j * nr * self.steps * step);
            for i in rows.clone() {
                let a = self.packed_a.wrapping_add(i * mr * self.steps * step);
                let acc: *mut u8 = if g.partial { self.partial.wrapping_add((i * whole + j) * mr * nr * step) } else { space.address() };
                if !g.partial || self.last {
                    let (r, c) = (self.row + i * mr, self.column + j * nr);
                    let width = mr.min(self.rows - i * mr) * g.out_bytes;
                    let first = self.x.c.wrapping_offset((r as isize * g.c.0 + c as isize * g.c.1) * g.out_bytes as isize);
                    if g.c.0 == 1 {
                        for column in 0..nr.min(self.columns - j * nr) {
                            prefetch(first.wrapping_offset(column as isize * g.c.1 * g.out_bytes as isize), width);
                        }
                    }
                }
                // SAFETY: the panels are packed, the tile is this task's.
                unsafe { run(self.steps, a, b, acc, g.partial && !first) };
                if g.partial && !self.last {
                    continue;
                }
                let (r, c) = (self.row + i * mr, self.column + j * nr);
                let place = |s: Strides| (r as isize * s.0 + c as isize * s.1) * g.out_bytes as isize;
                let out = self.x.c.wrapping_offset(place(g.c));
                // Later ranges of depth add to what the earlier ones stored.
                let (addend, addend_strides, beta) = match (first || g.partial, self.x.d.is_null()) {
                    (false, _) => (out.cast_const(), g.c, Factor::ONE),
                    (true, true) => (core::ptr::null(), g.c, Factor::ZERO),
                    (true, false) => (self.x.d.wrapping_offset(place(g.d)), g.d, self.x.beta),
                };
                let store = Store {
                    acc,
                    mr,
                    rows: mr.min(self.rows - i * mr),
                    cols: nr.min(self.columns - j * nr),
                    addend,
                    addend_strides,
                    out,
                    strides: g.c,
                    alpha: self.x.alpha,
                    beta,
                };
                // SAFETY: the tile lies within C, and the addend within D.
                unsafe { (g.store)(g.isa, &store) };
            }
        }
    }
}

/// Asks for the cache lines of a range that will be written, so that they arrive while a tile is computed.
#[inline(always)]
fn prefetch(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        // SAFETY: prefetching cannot fault.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}

/// Equal products over a batch: many small ones run side by side, few large ones one after the other on all threads.
#[derive(Clone)]
pub struct Batch {
    gemm: Gemm,
    count: usize,
    side_by_side: bool,
}

impl Batch {
    /// Plans `count` products.
    pub fn new(shape: &Shape, count: usize, target: &Target) -> Result<Batch> {
        let gemm = Gemm::new(shape, target)?;
        let side_by_side = count > 1 && (gemm.work() < 16 * SERIAL || count >= 4 * target.threads && gemm.work() < 512 * SERIAL);
        Ok(Batch { gemm, count, side_by_side })
    }
    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> usize {
        let one = self.gemm.workspace_bytes();
        if self.side_by_side { Slots::workspace(self.gemm.threads, one) } else { one }
    }
    /// Which kernel runs, for people.
    pub fn name(&self) -> String {
        self.gemm.name()
    }
    /// Computes all; `operands` gives those of a product.
    ///
    /// # Safety
    /// As [`Gemm::run`] for every product; different products write different elements.
    pub unsafe fn run(&self, operands: &(dyn Fn(usize) -> Operands + Sync), workspace: *mut u8, pool: &Pool) {
        if !self.side_by_side {
            // SAFETY: stated by the caller.
            (0..self.count).for_each(|i| unsafe { self.gemm.run(&operands(i), workspace, Some(pool)) });
            return;
        }
        let slots = Slots::new(workspace, self.gemm.threads, self.gemm.workspace_bytes());
        let share = (SERIAL / 4).div_ceil(self.gemm.work().max(1)).clamp(1, self.count.div_ceil(pool.threads()));
        pool.for_each(self.count.div_ceil(share), &|task| {
            slots.with(|space| {
                for i in task * share..((task + 1) * share).min(self.count) {
                    // SAFETY: the slot is this task's; the rest is stated by the caller.
                    unsafe { self.gemm.run(&operands(i), space, None) };
                }
            })
        });
    }
}
