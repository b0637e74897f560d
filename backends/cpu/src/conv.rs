//! conv2d: tiles of output rows, each a matrix product of the weights with the tile's patches (im2col).

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, conv};

use crate::gemm::{Gemm, Operands, Shape};
use crate::gemm_pack::Factor;
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::{Bases, Slots, padded};
use crate::target::Target;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(conv::CONV2D, plan);
}

/// Output elements of a tile aimed at, and bytes of its patches at most.
const TILE: usize = 512;
const PATCH_BYTES: usize = 768 << 10;

struct Conv {
    threads: usize,
    width: usize,
    x: [usize; 4],
    w: [usize; 4],
    out: [usize; 4],
    /// Element strides of x, w and y; of the bias.
    sx: [isize; 4],
    sw: [isize; 4],
    sy: [isize; 4],
    bias: Option<isize>,
    stride: [isize; 2],
    padding: [isize; 2],
    dilation: [isize; 2],
    groups: usize,
    /// Output rows of a tile.
    rows: usize,
    /// y's rows follow each other: a tile is one product.
    merged: bool,
    /// x is its own patches.
    direct: bool,
    /// Products of a whole tile and of the last one; of one row where rows are not merged.
    products: [Gemm; 2],
    space: usize,
}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let [x, w, bias] = call.inputs.as_slice() else { return Err(Error::invalid("conv2d takes three inputs")) };
    let y = &call.outputs[0];
    let four = |v: &[i64; 8]| -> [usize; 4] { core::array::from_fn(|d| v[d] as usize) };
    let strides = |v: &[i64; 8]| -> [isize; 4] { core::array::from_fn(|d| v[d] as isize) };
    let pair = |name: &str| -> [isize; 2] { core::array::from_fn(|d| call.attrs.ints(name)[d] as isize) };
    let (xs, ws, out) = (four(&x.shape), four(&w.shape), four(&y.shape));
    let (sx, sw, sy) = (strides(&x.stride), strides(&w.stride), strides(&y.stride));
    let (stride, padding, dilation, groups) = (pair("stride"), pair("padding"), pair("dilation"), call.attrs.int("groups") as usize);
    let depth = ws[1] * ws[2] * ws[3];
    // Weights are a matrix where channels, kernel rows and columns follow each other.
    let even = |s: &[isize; 4]| s[2] == s[3] * ws[3] as isize && s[1] == s[2] * ws[2] as isize;
    let dense_w = even(&sw);
    let follow = |s: &[isize; 4], n: &[usize; 4]| n[2] == 1 || s[2] == s[3] * n[3] as isize;
    let direct = ws[2] == 1 && ws[3] == 1 && stride == [1, 1] && padding == [0, 0] && follow(&sx, &xs);
    let merged = follow(&sy, &out);
    let most = (PATCH_BYTES / (depth * x.dtype.bytes()).max(1)).clamp(64, TILE);
    let rows = (most / out[3].max(1)).clamp(1, out[2].max(1));
    let bias_stride = (!bias.is_none()).then(|| bias.stride[0] as isize);
    let product = |pixels: usize| {
        let shape = Shape {
            input: x.dtype,
            output: y.dtype,
            m: out[1] / groups,
            n: pixels,
            k: depth,
            a: if dense_w { (sw[0], sw[3]) } else { (depth as isize, 1) },
            b: if direct { (sx[1], sx[3]) } else { (pixels as isize, 1) },
            d: (bias_stride.unwrap_or(0), 0),
            c: (sy[1], sy[3]),
            conj_a: false,
            conj_b: false,
        };
        Gemm::new(&shape, target)
    };
    let remainder = out[2] % rows;
    let products = if merged { [product(rows * out[3])?, product(remainder * out[3])?] } else { [product(out[3])?, product(out[3])?] };
    let space = products[0].workspace_bytes().max(products[1].workspace_bytes());
    let mut conv = Conv {
        threads: target.threads,
        width: x.dtype.bytes(),
        x: xs,
        w: ws,
        out,
        sx,
        sw,
        sy,
        bias: bias_stride,
        stride,
        padding,
        dilation,
        groups,
        rows,
        merged,
        direct,
        products,
        space: padded(space),
    };
    conv.threads = conv.threads.min(conv.tasks()).max(1);
    // Weights that are no matrix are copied first.
    if !dense_w {
        return Ok(Box::new(Copied { conv, elements: out[1] * depth }));
    }
    Ok(Box::new(conv))
}

impl Conv {
    fn tiles(&self) -> usize {
        self.out[2].div_ceil(self.rows)
    }
    fn tasks(&self) -> usize {
        self.out[0] * self.groups * self.tiles()
    }
    fn patch_bytes(&self) -> usize {
        if self.direct { 0 } else { padded(self.w[1..].iter().product::<usize>() * self.rows * self.out[3] * self.width) }
    }
    fn slot(&self) -> usize {
        self.patch_bytes() + self.space
    }

    /// # Safety
    /// As [`Kernel::run`]; `w` addresses weights, dense over their last three axes at `step` between outputs.
    unsafe fn compute(&self, operands: &[*mut u8], w: *mut u8, step: isize, workspace: *mut u8, pool: &Pool) {
        let all = [operands[0], w, operands[2], operands[3]];
        let (bases, slots) = (Bases(&all), Slots::new(workspace, self.threads, self.slot()));
        if self.out.contains(&0) {
            return;
        }
        let per = self.out[1] / self.groups;
        let width = self.width as isize;
        pool.for_each(self.tasks(), &|task| {
            let (tile, group, n) = (task % self.tiles(), task / self.tiles() % self.groups, task / self.tiles() / self.groups);
            let first = tile * self.rows;
            let rows = self.rows.min(self.out[2] - first);
            slots.with(|space| {
                let channels = n as isize * self.sx[0] + (group * self.w[1]) as isize * self.sx[1];
                let x = bases.get(0).wrapping_offset(channels * width);
                let o = (group * per) as isize;
                let y = bases.get(3).wrapping_offset((n as isize * self.sy[0] + o * self.sy[1] + first as isize * self.sy[2]) * width);
                let mut operands = Operands {
                    a: bases.get(1).wrapping_offset(o * step * width),
                    b: space,
                    d: self.bias.map_or(core::ptr::null(), |s| bases.get(2).wrapping_offset(o * s * width)),
                    c: y,
                    alpha: Factor::ONE,
                    beta: Factor::ONE,
                };
                let rest = space.wrapping_add(self.patch_bytes());
                // SAFETY: the tile's patches fit into the slot, which is this task's; the tile lies within y.
                unsafe {
                    if self.merged {
                        if self.direct {
                            operands.b = x.wrapping_offset(first as isize * self.sx[2] * width);
                        } else {
                            self.patches(x, first, rows, space);
                        }
                        self.products[usize::from(rows < self.rows)].run(&operands, rest, None);
                        return;
                    }
                    for r in 0..rows {
                        if self.direct {
                            operands.b = x.wrapping_offset((first + r) as isize * self.sx[2] * width);
                        } else {
                            self.patches(x, first + r, 1, space);
                        }
                        operands.c = y.wrapping_offset(r as isize * self.sy[2] * width);
                        self.products[0].run(&operands, rest, None);
                    }
                }
            });
        });
    }

    /// Patches of output rows from `first` on, as a matrix [channel, kernel row, kernel column] × [row, column].
    ///
    /// # Safety
    /// `x` addresses the group's channels of one image; the patches fit into `to`.
    unsafe fn patches(&self, x: *const u8, first: usize, rows: usize, to: *mut u8) {
        // SAFETY: passed on.
        unsafe {
            match self.width {
                2 => self.patches_of(x.cast::<u16>(), first, rows, to.cast(), 0),
                4 => self.patches_of(x.cast::<u32>(), first, rows, to.cast(), 0),
                _ => self.patches_of(x.cast::<u64>(), first, rows, to.cast(), 0),
            }
        }
    }

    /// # Safety
    /// As [`Conv::patches`].
    unsafe fn patches_of<W: Copy>(&self, x: *const W, first: usize, rows: usize, mut to: *mut W, zero: W) {
        let (height, columns, wide) = (self.x[2] as isize, self.x[3] as isize, self.out[3]);
        for c in 0..self.w[1] {
            for p in 0..self.w[2] as isize {
                for q in 0..self.w[3] as isize {
                    let shift = q * self.dilation[1] - self.padding[1];
                    // Columns whose source lies within x.
                    let low = ((-shift).max(0) + self.stride[1] - 1) / self.stride[1];
                    let high = ((columns - shift).max(0) + self.stride[1] - 1) / self.stride[1];
                    let (low, high) = ((low as usize).min(wide), (high as usize).min(wide));
                    for i in first..first + rows {
                        let row = i as isize * self.stride[0] + p * self.dilation[0] - self.padding[0];
                        // SAFETY: rows and columns are checked against x's extents; a row of patches is `wide` long.
                        unsafe {
                            let line = core::slice::from_raw_parts_mut(to, wide);
                            if row < 0 || row >= height || low >= high {
                                line.fill(zero);
                            } else {
                                line[..low].fill(zero);
                                line[high..].fill(zero);
                                let from = x.offset(c as isize * self.sx[1] + row * self.sx[2] + shift * self.sx[3] + low as isize * self.stride[1] * self.sx[3]);
                                let step = self.stride[1] * self.sx[3];
                                if step == 1 {
                                    core::ptr::copy_nonoverlapping(from, line.as_mut_ptr().add(low), high - low);
                                } else {
                                    line[low..high].iter_mut().enumerate().for_each(|(j, v)| *v = *from.offset(j as isize * step));
                                }
                            }
                            to = to.add(wide);
                        }
                    }
                }
            }
        }
    }
}

impl Kernel for Conv {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        // SAFETY: stated by the trait.
        unsafe { self.compute(operands, operands[1], self.sw[0], workspace, pool) };
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        Slots::workspace(self.threads, self.slot())
    }
    fn name(&self) -> String {
        let how = if self.direct { "as it is" } else { "im2col" };
        format!("{how}, {}", self.products[0].name())
    }
}

/// A convolution whose weights are copied to a dense matrix first.
struct Copied {
    conv: Conv,
    elements: usize,
}

impl Kernel for Copied {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (conv, mut to) = (&self.conv, workspace);
        let [o, c, h, w] = conv.w;
        let width = conv.width;
        for index in 0..o * c * h * w {
            let place = [index / (c * h * w), index / (h * w) % c, index / w % h, index % w];
            let offset: isize = (0..4).map(|d| place[d] as isize * conv.sw[d]).sum();
            // SAFETY: an element of w, and its place in the workspace.
            unsafe {
                core::ptr::copy_nonoverlapping(operands[1].offset(offset * width as isize), to, width);
                to = to.add(width);
            }
        }
        let rest = workspace.wrapping_add(padded(self.elements * width));
        // SAFETY: stated by the trait; the copied weights are dense.
        unsafe { conv.compute(operands, workspace, (c * h * w) as isize, rest, pool) };
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        padded(self.elements * self.conv.width) + self.conv.workspace_bytes()
    }
    fn name(&self) -> String {
        format!("copied weights, {}", self.conv.name())
    }
}
