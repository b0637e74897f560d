//! Products with a vector: each element of the matrix is read once, in the order it lies in memory.

use flagos_backend_api::DType;
use half::{bf16, f16};
use num_complex::Complex;

use crate::gemm_pack::{Factor, Operand, by_type};
use crate::target::Isa;
use crate::vectorize::vectorize;

/// Most rows of one call.
pub const ROWS: usize = 512;

/// Computes `acc[i] = Σ_p a[i, p]·x[p]` for up to [`ROWS`] rows; complex sums as all real parts, then all imaginary ones.
///
/// # Safety
/// Element (i, p) lies at `a + i·rs + p·cs` elements, element p of the vector at `x + p·incx`; `acc` takes parts·rows parts.
pub type VectorFn = unsafe fn(isa: Isa, a: *const u8, strides: (isize, isize), rows: usize, x: *const u8, incx: isize, depth: usize, conj: (bool, bool), acc: *mut u8);

vectorize! {
    unsafe fn product[S: Operand][](
        a: *const u8, strides: (isize, isize), rows: usize, x: *const u8, incx: isize, depth: usize, conj: (bool, bool), acc: *mut u8,
    ) {
        let (a, x, acc) = (a.cast::<S>(), x.cast::<S>(), acc.cast::<S::Part>());
        let (rs, cs) = strides;
        let zero = S::factor(Factor::ZERO);
        let read = |p: *const S, conj: bool| {
            // SAFETY: callers below stay within the operands.
            let v = unsafe { *p };
            S::join(v.part(0, conj), v.part(S::PARTS - 1, conj))
        };
        let mut sums = [zero; ROWS];
        if rs == 1 && cs != 1 {
            // Four columns at a time: the sums are read and written once for four products.
            let mut p = 0;
            while p < depth {
                let many = (depth - p).min(4);
                // SAFETY: p + c < depth.
                let column = |c: usize| unsafe { a.offset((p + c) as isize * cs) };
                // SAFETY: as above.
                let factor: [S::Sum; 4] = core::array::from_fn(|c| if c < many { read(unsafe { x.offset((p + c) as isize * incx) }, conj.1) } else { zero });
                if many == 4 {
                    let columns: [*const S; 4] = core::array::from_fn(column);
                    for (i, sum) in sums[..rows].iter_mut().enumerate() {
                        for c in 0..4 {
                            // SAFETY: i < rows.
                            *sum = S::plus(*sum, S::times(read(unsafe { columns[c].add(i) }, conj.0), factor[c]));
                        }
                    }
                } else {
                    for (c, f) in factor[..many].iter().enumerate() {
                        for (i, sum) in sums[..rows].iter_mut().enumerate() {
                            // SAFETY: i < rows.
                            *sum = S::plus(*sum, S::times(read(unsafe { column(c).add(i) }, conj.0), *f));
                        }
                    }
                }
                p += many;
            }
        } else {
            for (i, sum) in sums[..rows].iter_mut().enumerate() {
                // SAFETY: i < rows.
                let row = unsafe { a.offset(i as isize * rs) };
                let mut p = 0;
                if cs == 1 && incx == 1 {
                    let mut lanes = [zero; 32];
                    while p + 32 <= depth {
                        for (l, lane) in lanes.iter_mut().enumerate() {
                            // SAFETY: p + l < depth.
                            let (a, x) = unsafe { (row.add(p + l), x.add(p + l)) };
                            *lane = S::plus(*lane, S::times(read(a, conj.0), read(x, conj.1)));
                        }
                        p += 32;
                    }
                    let mut half = 16;
                    while half > 0 {
                        for l in 0..half {
                            lanes[l] = S::plus(lanes[l], lanes[l + half]);
                        }
                        half /= 2;
                    }
                    *sum = lanes[0];
                }
                while p < depth {
                    // SAFETY: p < depth.
                    let (a, x) = unsafe { (row.offset(p as isize * cs), x.offset(p as isize * incx)) };
                    *sum = S::plus(*sum, S::times(read(a, conj.0), read(x, conj.1)));
                    p += 1;
                }
            }
        }
        for (i, sum) in sums[..rows].iter().enumerate() {
            let (re, im) = S::split(*sum);
            // SAFETY: `acc` takes the parts of all rows.
            unsafe {
                *acc.add(i) = re;
                if S::PARTS == 2 {
                    *acc.add(rows + i) = im;
                }
            }
        }
    }
}

/// The kernel of a type.
pub fn vector(dtype: DType) -> Option<VectorFn> {
    fn of<S: Operand>() -> VectorFn {
        product::<S>
    }
    by_type!(dtype, of)
}
