//! Products on matrix units: every operand order, aligned for wide loads and not, chained sums.

use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::interpret::scalar;
use flagos_compiler::thread::{Effect, FragmentInfo, Inst, Kernel, Place, Role, Ty};
use flagos_compiler::tile::Binary;
use flagos_compiler::{Elem, MatrixShape};

use super::{Case, Check, Numbers, at, buffer, zeros};

const I32: Ty = Ty::Elem(Elem::I32);

/// c = a·b + (a·b + c) by one subgroup on small whole numbers, which every type and unit sums exactly. `turned`: a is column-major, b too;
/// `padding`: elements between rows beyond what the matrix needs, and before its first.
pub fn product(shape: MatrixShape, turned: [bool; 2], padding: u32) -> Case {
    let MatrixShape { m, n, k, factor, sum } = shape;
    let mut kernel = Kernel::new("product", 32, 32);
    let (a, b, c, out) = (kernel.param(Ty::Ptr(factor)), kernel.param(Ty::Ptr(factor)), kernel.param(Ty::Ptr(sum)), kernel.param(Ty::Ptr(sum)));
    let kinds: Vec<Ty> = [Role::A, Role::B, Role::Sum]
        .into_iter()
        .map(|role| {
            kernel.fragments.push(FragmentInfo { shape, role });
            Ty::Fragment(kernel.fragments.len() as u32 - 1)
        })
        .collect();
    // (rows, columns) as stored.
    let order = |rows: u32, columns: u32, turned: bool| if turned { (columns, rows) } else { (rows, columns) };
    let (sa, sb, sc) = (order(m, k, turned[0]), order(k, n, turned[1]), (m, n));
    let stride = |s: (u32, u32)| s.1 + padding;
    let size = |s: (u32, u32)| padding + s.0 * stride(s);
    let (ta, tb, tc) = (kernel.shared_array(factor, size(sa)), kernel.shared_array(factor, size(sb)), kernel.shared_array(sum, size(sc)));
    let var = kernel.var(kinds[2], 2);
    let mut build = Build::new(&mut kernel);
    let t = build.inst(I32, Inst::ThreadId);
    let first = build.i32(padding as i32);
    // Each thread copies every 32nd element.
    let mut copy = |from, array, s: (u32, u32)| {
        let (low, high, step) = (build.i32(0), build.i32((s.0 * s.1).div_ceil(32) as i32), build.i32(1));
        build.count(low, high, step, 0, |b, i| {
            let i = b.binary_int(Binary::MulI, i, 32);
            let i = b.binary(Binary::AddI, i, t);
            let (row, column) = (b.binary_int(Binary::DivU, i, i64::from(s.1)), b.binary_int(Binary::RemU, i, i64::from(s.1)));
            let index = b.binary_int(Binary::MulI, row, i64::from(stride(s)));
            let index = b.binary(Binary::AddI, index, column);
            let index = b.binary_int(Binary::AddI, index, i64::from(padding));
            let address = b.ptr_add(from, i);
            let place = at(b, address);
            let value = b.load(place, 1);
            b.store(Place::Shared { array, index }, &value);
        });
    };
    copy(a, ta, sa);
    copy(b, tb, sb);
    copy(c, tc, sc);
    build.effect(Effect::Barrier { global: false });
    let aligned = |stride: u32, elem: Elem| [stride, padding].iter().all(|n| (n * elem.bytes()).is_multiple_of(16));
    let fa = build.inst(kinds[0], Inst::FragmentLoad { array: ta, index: first, stride: stride(sa), transposed: turned[0], aligned: aligned(stride(sa), factor) });
    let fb = build.inst(kinds[1], Inst::FragmentLoad { array: tb, index: first, stride: stride(sb), transposed: turned[1], aligned: aligned(stride(sb), factor) });
    let fc = build.inst(kinds[2], Inst::FragmentLoad { array: tc, index: first, stride: stride(sc), transposed: false, aligned: aligned(stride(sc), sum) });
    let zero = build.inst(kinds[2], Inst::FragmentZero);
    build.set(var, 0, fc);
    build.set(var, 1, zero);
    let start = build.get(var, 0);
    let once = build.inst(kinds[2], Inst::FragmentMulAdd(fa, fb, start));
    build.set(var, 1, once);
    let again = build.get(var, 1);
    let twice = build.inst(kinds[2], Inst::FragmentMulAdd(fa, fb, again));
    build.effect(Effect::Barrier { global: false });
    build.effect(Effect::FragmentStore { fragment: twice, array: tc, index: first, stride: stride(sc) });
    build.effect(Effect::Barrier { global: false });
    let (low, high, step) = (build.i32(0), build.i32((m * n / 32) as i32), build.i32(1));
    build.count(low, high, step, 0, |b, i| {
        let i = b.binary_int(Binary::MulI, i, 32);
        let i = b.binary(Binary::AddI, i, t);
        let (row, column) = (b.binary_int(Binary::DivU, i, i64::from(n)), b.binary_int(Binary::RemU, i, i64::from(n)));
        let index = b.binary_int(Binary::MulI, row, i64::from(stride(sc)));
        let index = b.binary(Binary::AddI, index, column);
        let index = b.binary_int(Binary::AddI, index, i64::from(padding));
        let value = b.load(Place::Shared { array: tc, index }, 1);
        let address = b.ptr_add(out, i);
        let place = at(b, address);
        b.store(place, &value);
    });
    kernel.body = build.finish();
    let whole = |elem: Elem, random: u64| {
        let value = (random % 7) as i64 - 3;
        if elem.is_float() { scalar::from_float(elem, value as f64, false) } else { value as u64 & scalar::mask(elem) }
    };
    // What a copy reads beyond the matrix's end is not compared.
    let list = |elem: Elem, seed: u64, s: (u32, u32)| buffer(elem, Numbers(seed).take((s.0 * s.1) as usize).map(move |r| whole(elem, r)));
    let args = vec![list(factor, 1, sa), list(factor, 2, sb), list(sum, 3, sc), zeros(sum, (m * n) as usize)];
    let name = format!("product {shape:?} turned {turned:?} padding {padding}");
    Case { name, kernel, grid: [1, 1, 1], args, checks: vec![None, None, None, Some(Check::exact(sum))] }
}

/// Every order and alignment of a shape.
pub fn products(shape: MatrixShape) -> Vec<Case> {
    let orders = [[false, false], [false, true], [true, false], [true, true]];
    orders.iter().flat_map(|turned| [0, 16, 1].map(|padding| product(shape, *turned, padding))).collect()
}
