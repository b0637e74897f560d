//! Matrix products of tensors: mm, bmm, matmul, addmm.

use flagos_backend_api::{Result, Tensor};
use flagos_catalog::{Call, matmul, shape};

use crate::gemm::{Batch, Operands, Shape, Strides};
use crate::gemm_pack::Factor;
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pool::Pool;
use crate::scratch::Bases;
use crate::target::Target;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    matmul::OPERATORS.iter().for_each(|o| registry.add(o, plan));
}

/// A leading axis: extent, then element strides in a, b, the addend and y.
#[derive(Clone, Copy)]
struct Axis {
    extent: i64,
    strides: [i64; 4],
}

struct Product {
    batch: Batch,
    axes: Vec<Axis>,
    width: usize,
    /// Places of the addend, a, b and y among the operands.
    places: (Option<usize>, usize, usize, usize),
    alpha: Factor,
    beta: Factor,
}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let fused = call.operator.id == matmul::ADDMM.id;
    let first = usize::from(fused);
    let (a, b, y) = (&call.inputs[first], &call.inputs[first + 1], &call.outputs[0]);
    let number = |i: usize| {
        let (re, int) = call.attrs.number_at(i);
        Factor { re, im: 0.0, int }
    };
    let (alpha, beta) = if fused { (number(0), number(1)) } else { (Factor::ONE, Factor::ZERO) };
    let addend = (fused && beta.re != 0.0).then_some(0);
    let (a_lead, m, k, sa) = matrix(a, true);
    let (b_lead, _, n, sb) = matrix(b, false);
    let lead = y.rank as usize - usize::from(a.rank > 1) - usize::from(b.rank > 1);
    let last = |d: usize| y.stride().get(d).copied().unwrap_or(1) as isize;
    let sc = match (a.rank > 1, b.rank > 1) {
        (true, true) => (last(lead), last(lead + 1)),
        (true, false) => (last(lead), 1),
        (false, true) => (1, last(lead)),
        (false, false) => (1, 1),
    };
    let sd = match addend {
        Some(i) => {
            let s = shape::broadcast_strides(&call.inputs[i], y.shape());
            (s[0] as isize, s[1] as isize)
        }
        None => (0, 0),
    };
    let (sa_lead, sb_lead) = (shape::broadcast_strides(&a_lead, &y.shape()[..lead]), shape::broadcast_strides(&b_lead, &y.shape()[..lead]));
    let mut axes: Vec<Axis> =
        (0..lead).map(|d| Axis { extent: y.shape[d], strides: [sa_lead[d], sb_lead[d], 0, y.stride[d]] }).filter(|x| x.extent != 1).collect();
    let (mut m, mut sa, mut sc) = (m, sa, sc);
    // An axis b does not have makes more rows of the same product, where it is dense in a and y or there is one row only.
    while let Some(x) = axes.last().filter(|x| x.strides[1] == 0) {
        let (along_a, along_y) = (x.strides[0] as isize, x.strides[3] as isize);
        if m == 1 {
            (sa.0, sc.0) = (along_a, along_y);
        } else if m == 0 || (along_a, along_y) != (m as isize * sa.0, m as isize * sc.0) {
            break;
        }
        m *= x.extent;
        axes.pop();
    }
    let shape =
        Shape { input: a.dtype, output: y.dtype, m: m as usize, n: n as usize, k: k as usize, a: sa, b: sb, d: sd, c: sc, conj_a: false, conj_b: false };
    let count: i64 = axes.iter().map(|x| x.extent).product();
    Ok(Box::new(Product {
        batch: Batch::new(&shape, count as usize, target)?,
        axes,
        width: y.dtype.bytes(),
        places: (addend, first, first + 1, first + 2),
        alpha,
        beta,
    }))
}

/// A tensor as a stack of matrices: what leads, rows, columns, strides. A vector is a row on the left, a column on the right.
fn matrix(t: &Tensor, left: bool) -> (Tensor, i64, i64, Strides) {
    let rank = t.rank as usize;
    if rank == 1 {
        let (n, s) = (t.shape[0], t.stride[0] as isize);
        return (Tensor::contiguous(t.dtype, &[]), if left { 1 } else { n }, if left { n } else { 1 }, (s, s));
    }
    let lead = Tensor::strided(t.dtype, &t.shape()[..rank - 2], &t.stride()[..rank - 2]);
    (lead, t.shape[rank - 2], t.shape[rank - 1], (t.stride[rank - 2] as isize, t.stride[rank - 1] as isize))
}

impl Kernel for Product {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let (addend, a, b, y) = self.places;
        let operands = Bases(operands);
        let one = |index: usize| {
            let (mut rest, mut offset) = (index as i64, [0i64; 4]);
            for axis in self.axes.iter().rev() {
                let i = rest % axis.extent;
                rest /= axis.extent;
                (0..4).for_each(|o| offset[o] += i * axis.strides[o]);
            }
            let at = |base: *mut u8, o: usize| base.wrapping_offset(offset[o] as isize * self.width as isize);
            Operands {
                a: at(operands.get(a), 0),
                b: at(operands.get(b), 1),
                d: addend.map_or(core::ptr::null(), |i| operands.get(i).cast_const()),
                c: at(operands.get(y), 3),
                alpha: self.alpha,
                beta: self.beta,
            }
        };
        // SAFETY: stated by the trait; batches write different matrices.
        unsafe { self.batch.run(&one, workspace, pool) };
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        self.batch.workspace_bytes()
    }
    fn name(&self) -> String {
        self.batch.name()
    }
}
