//! Lowered kernels run by the thread interpreter, for blocks of one and of many threads, with and without shuffles.

use flagos_backend_api::KernelFormat;

use crate::build::{Expr, Kernel, kernel, reduce, scan};
use crate::run::Arg;
use crate::tile::{Program, Rmw};
use crate::{Elem, Options, Target, thread};

fn target(subgroup: u32) -> Target {
    Target { format: KernelFormat(0), arch: String::new(), caps: 0, max_block_threads: 1024, shared_bytes: 96 << 10, subgroup, matrix: Vec::new() }
}

/// Runs a kernel on every kind of target and compares the buffer `out` with what is expected.
fn check(program: &Program, grid: [u32; 3], args: &[Arg], out: usize, expected: &[u8]) {
    for (threads, subgroup) in [(1, 0), (2, 0), (32, 0), (32, 32), (128, 0), (128, 32), (256, 16)] {
        let name = &program.functions[0].name;
        let kernel = crate::lower::lower(program, name, &target(subgroup), &Options { threads, stages: 1 })
            .unwrap_or_else(|e| panic!("{name}, {threads} threads: {e}"));
        thread::verify::verify(&kernel).unwrap_or_else(|e| panic!("{name}, {threads} threads: {e}\n{kernel}"));
        let mut args = args.to_vec();
        thread::interpret::run(&kernel, grid, &mut args).unwrap_or_else(|e| panic!("{name}, {threads} threads, subgroup {subgroup}: {e}\n{kernel}"));
        let Arg::Buffer(got) = &args[out] else { panic!("argument {out} is no buffer") };
        if got.as_slice() != expected {
            let at = got.iter().zip(expected).position(|(a, b)| a != b);
            panic!("{name}, {threads} threads, subgroup {subgroup}: byte {at:?} differs: {:?} for {:?}\n{kernel}", &got[..got.len().min(64)], &expected[..expected.len().min(64)]);
        }
    }
}

fn ints(v: impl IntoIterator<Item = i32>) -> Vec<u8> {
    v.into_iter().flat_map(i32::to_le_bytes).collect()
}

fn floats(v: impl IntoIterator<Item = f32>) -> Vec<u8> {
    v.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn zeros(n: usize) -> Arg {
    Arg::Buffer(vec![0; n])
}

fn data(n: i32) -> Vec<i32> {
    (0..n).map(|i| (i.wrapping_mul(7919) ^ 0x55) % 1000).collect()
}

fn square(k: &Kernel, rows: u32, columns: u32) -> Expr {
    k.arange(rows).expand(1) * i64::from(columns) + k.arange(columns).expand(0)
}

#[test]
fn masked_elementwise() {
    for (n, block) in [(5, 4u32), (1000, 256), (3000, 1024), (70000, 32768)] {
        let p = kernel("k_axpy", |k| {
            let (x, y, n) = (k.aligned_pointer(Elem::I32, 16), k.aligned_pointer(Elem::I32, 16), k.i32());
            let i = k.program_id(0) * i64::from(block) + k.arange(block);
            let v = (x + i).load_masked(i.lt(n), 0);
            (y + i).store_masked(v * v + v - 3i64, i.lt(n));
        });
        let x = data(n);
        let args = [Arg::Buffer(ints(x.iter().copied())), zeros(4 * n as usize), Arg::Scalar(n as u64)];
        check(&p, [(n as u32).div_ceil(block), 1, 1], &args, 1, &ints(x.iter().map(|v| v * v + v - 3)));
    }
}

#[test]
fn in_place_and_loads_before_stores() {
    let p = kernel("k_swap", |k| {
        let (x, i) = (k.pointer(Elem::I32), k.arange(512));
        let (a, b) = ((x + i).load(), (x + i + 512i64).load());
        (x + i).store(b);
        (x + i + 512i64).store(a);
    });
    let x = data(1024);
    let swapped = x[512..].iter().chain(&x[..512]).copied();
    check(&p, [1, 1, 1], &[Arg::Buffer(ints(x.iter().copied()))], 0, &ints(swapped));
}

#[test]
fn transposes_and_broadcasts() {
    for (rows, columns) in [(4u32, 2u32), (32, 16), (64, 128)] {
        let p = kernel("k_transpose", |k| {
            let (x, y) = (k.aligned_pointer(Elem::I32, 16), k.aligned_pointer(Elem::I32, 16));
            let v = (x + square(k, rows, columns)).load();
            let w = (x + k.arange(columns)).load().expand(1);
            (y + square(k, columns, rows)).store(v.trans(&[1, 0]) + w * 2i64);
        });
        let x = data((rows * columns) as i32);
        let (r, c) = (rows as usize, columns as usize);
        let expected = (0..c).flat_map(|j| (0..r).map(move |i| (i, j))).map(|(i, j)| x[i * c + j] + 2 * x[j]);
        check(&p, [1, 1, 1], &[Arg::Buffer(ints(x.iter().copied())), zeros(4 * r * c)], 1, &ints(expected));
    }
}

#[test]
fn reductions_along_each_axis() {
    for (a, b, c) in [(2u32, 4u32, 2u32), (8, 16, 32), (4, 256, 8), (16, 8, 256), (64, 1, 2)] {
        for axis in 0..3 {
            let p = kernel("k_reduce", |k| {
                let (x, y, z) = (k.aligned_pointer(Elem::I32, 16), k.pointer(Elem::I32), k.pointer(Elem::I32));
                let flat = square(k, a * b, c).reshape(&[a, b, c]);
                let v = (x + flat).load();
                let index = k.arange([a, b, c][axis]);
                let index = (0..3).filter(|n| *n != axis).fold(index, |i, n| i.expand(n as u32));
                let [best, at] = reduce([v, index.broadcast(&[a, b, c])], axis as u32, |[a, i], [b, j]| {
                    let better = a.gt(b) | (a.equals(b) & i.lt(j));
                    [better.select(a, b), better.select(i, j)]
                });
                let s = v.sum(axis as u32);
                let n = s.shape().iter().product();
                (y + k.arange(n)).store(s.reshape(&[n]) + best.reshape(&[n]) * 1000i64);
                (z + k.arange(n)).store(at.reshape(&[n]));
            });
            let x = data((a * b * c) as i32);
            let dims = [a as usize, b as usize, c as usize];
            let (mut sums, mut at) = (Vec::new(), Vec::new());
            let (o1, o2) = match axis { 0 => (1, 2), 1 => (0, 2), _ => (0, 1) };
            for i in 0..dims[o1] {
                for j in 0..dims[o2] {
                    let row: Vec<i32> = (0..dims[axis]).map(|n| {
                        let mut p = [0; 3];
                        (p[o1], p[o2], p[axis]) = (i, j, n);
                        x[(p[0] * dims[1] + p[1]) * dims[2] + p[2]]
                    }).collect();
                    let most = row.iter().max().copied().unwrap_or(0);
                    sums.push(row.iter().sum::<i32>() + most * 1000);
                    at.push(row.iter().position(|v| *v == most).unwrap_or(0) as i32);
                }
            }
            let args = [Arg::Buffer(ints(x.iter().copied())), zeros(4 * sums.len()), zeros(4 * sums.len())];
            check(&p, [1, 1, 1], &args, 1, &ints(sums));
            check(&p, [1, 1, 1], &args, 2, &ints(at));
        }
    }
}

#[test]
fn softmax_rows() {
    let p = kernel("k_softmax", |k| {
        let (x, y, n) = (k.aligned_pointer(Elem::F32, 16), k.pointer(Elem::F32), k.i32());
        let (row, i) = (k.program_id(0), k.arange(1024));
        let v = (x + row * n + i).load_masked(i.lt(n), f64::NEG_INFINITY);
        let e = (v - v.max(0)).abs();
        let e = i.lt(n).select(e, 0.0);
        (y + row * n + i).store_masked(e * e.sum(0), i.lt(n));
    });
    let x: Vec<f32> = data(3 * 1000).iter().map(|v| *v as f32).collect();
    let expected = x.chunks(1000).flat_map(|r| {
        let most = r.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = r.iter().map(|v| most - v).sum();
        r.iter().map(move |v| (most - v) * sum).collect::<Vec<_>>()
    });
    // Whole numbers below 2^24 in sums: the order does not matter.
    check(&p, [3, 1, 1], &[Arg::Buffer(floats(x.iter().copied())), zeros(12000), Arg::Scalar(1000)], 1, &floats(expected.collect::<Vec<_>>()));
}

#[test]
fn scans_along_each_axis() {
    for (rows, columns) in [(1u32, 8u32), (4, 512), (64, 4), (128, 64), (1, 4096), (2, 1024)] {
        for (axis, reverse) in [(0u32, false), (1, false), (0, true), (1, true)] {
            let p = kernel("k_scan", |k| {
                let (x, y) = (k.pointer(Elem::I32), k.pointer(Elem::I32));
                let v = (x + square(k, rows, columns)).load();
                // Affine maps: associative, not commutative.
                let [a, b] = scan([v | 1i64, v], axis, reverse, |[a, b], [c, d]| [a * c, c * b + d]);
                (y + square(k, rows, columns)).store(a + b * 3i64);
            });
            let x = data((rows * columns) as i32);
            let (r, c) = (rows as usize, columns as usize);
            let mut out = vec![0; r * c];
            let (lines, len) = if axis == 0 { (c, r) } else { (r, c) };
            for l in 0..lines {
                let mut state: Option<(i32, i32)> = None;
                for n in 0..len {
                    let n = if reverse { len - 1 - n } else { n };
                    let at = if axis == 0 { n * c + l } else { l * c + n };
                    let new = (x[at] | 1, x[at]);
                    let s = state.map_or(new, |(a, b): (i32, i32)| (a.wrapping_mul(new.0), new.0.wrapping_mul(b).wrapping_add(new.1)));
                    out[at] = s.0.wrapping_add(s.1.wrapping_mul(3));
                    state = Some(s);
                }
            }
            check(&p, [1, 1, 1], &[Arg::Buffer(ints(x)), zeros(4 * r * c)], 1, &ints(out));
        }
    }
}

#[test]
fn products_in_a_loop() {
    for (m, n, k_tile, factor) in [(16u32, 16u32, 16u32, Elem::F32), (32, 64, 16, Elem::F16), (128, 128, 32, Elem::I8)] {
        let sum = if factor.is_float() { Elem::F32 } else { Elem::I32 };
        let depth = i64::from(k_tile) * 3;
        let p = kernel("k_matmul", |k| {
            let (a, b, c) = (k.aligned_pointer(factor, 16), k.aligned_pointer(factor, 16), k.aligned_pointer(sum, 16));
            let (i, j, l) = (k.arange(m).expand(1), k.arange(n).expand(0), k.arange(k_tile));
            let (pa, pb) = (a + i * depth + l.expand(0), b + l.expand(1) * i64::from(n) + j);
            let zero = k.int(Elem::I32, 0);
            let step = k.int(Elem::I32, i64::from(k_tile));
            let [total, _, _] = k.fold(zero, k.int(Elem::I32, 3), k.int(Elem::I32, 1), [k.zeros(&[m, n], sum), pa, pb], |_, [s, pa, pb]| {
                [pa.load().dot(pb.load(), s), pa + step, pb + step * i64::from(n)]
            });
            (c + i * i64::from(n) + j).store(total);
        });
        let (m, n, d) = (m as usize, n as usize, depth as usize);
        let raw = |v: &[i32]| -> Vec<u8> {
            v.iter()
                .flat_map(|x| match factor {
                    Elem::F32 => (*x as f32).to_le_bytes().to_vec(),
                    Elem::F16 => half::f16::from_f32(*x as f32).to_le_bytes().to_vec(),
                    _ => vec![*x as u8],
                })
                .collect()
        };
        let (x, y): (Vec<i32>, Vec<i32>) = ((0..m * d).map(|i| (i * 7 % 13) as i32 - 6).collect(), (0..d * n).map(|i| (i * 5 % 11) as i32 - 5).collect());
        let out: Vec<i32> = (0..m * n).map(|i| (0..d).map(|l| x[i / n * d + l] * y[l * n + i % n]).sum()).collect();
        let expected = if sum == Elem::F32 { floats(out.iter().map(|v| *v as f32)) } else { ints(out) };
        check(&p, [1, 1, 1], &[Arg::Buffer(raw(&x)), Arg::Buffer(raw(&y)), zeros(4 * m * n)], 2, &expected);
    }
}

#[test]
fn carried_tiles_and_branches() {
    for n in [4u32, 512, 16384] {
        let p = kernel("k_loop", |k| {
            let (x, y, count) = (k.pointer(Elem::I32), k.pointer(Elem::I32), k.i32());
            let i = k.arange(n);
            let (zero, one) = (k.int(Elem::I32, 0), k.int(Elem::I32, 1));
            // Fibonacci: both values change from both.
            let [a, b] = k.fold(zero, count, one, [(x + i).load(), i], |_, [a, b]| [b, a + b]);
            let [c] = k.choose(count.gt(5), || [a - b], || [a + b]);
            let [d, _] = k.repeat([c, count], |[_, n]| n.gt(0), |[d, n]| [d * 3i64 + 1i64, n - 1i64]);
            (y + i).store(d);
        });
        let x = data(n as i32);
        for count in [0, 5, 7] {
            let expected = x.iter().enumerate().map(|(i, v)| {
                let (mut a, mut b) = (*v, i as i32);
                for _ in 0..count {
                    (a, b) = (b, a.wrapping_add(b));
                }
                let c = if count > 5 { a.wrapping_sub(b) } else { a.wrapping_add(b) };
                (0..count).fold(c, |d, _| d.wrapping_mul(3).wrapping_add(1))
            });
            check(&p, [1, 1, 1], &[Arg::Buffer(ints(x.iter().copied())), zeros(4 * n as usize), Arg::Scalar(count as u64)], 1, &ints(expected));
        }
    }
}

#[test]
fn gathers_joins_and_atomics() {
    for n in [8u32, 256, 4096] {
        let p = kernel("k_gather", |k| {
            let (x, y, count) = (k.pointer(Elem::I32), k.pointer(Elem::I32), k.pointer(Elem::I32));
            let i = k.arange(n);
            let v = (x + i).load();
            let back = v.gather((i * -1i64) + (i64::from(n) - 1), 0);
            let (even, odd) = v.join(back).reshape(&[2, n]).trans(&[1, 0]).split();
            (y + i).store(even * 1000i64 + odd);
            let old = (count + (i & 3i64)).atomic(Rmw::Add, v, i.lt(i64::from(n)));
            let _ = old;
            let ticket = (count + 4i64).atomic(Rmw::Add, k.int(Elem::I32, 1), k.int(Elem::I32, 1).equals(1));
            (count + 5i64 + ticket).store(ticket + 7i64);
        });
        let x = data(n as i32);
        let m = n as usize;
        let joined: Vec<i32> = (0..m).flat_map(|i| [x[i], x[m - 1 - i]]).collect();
        let expected = (0..m).map(|i| joined[i] * 1000 + joined[m + i]);
        let args = [Arg::Buffer(ints(x.iter().copied())), zeros(4 * m), zeros(32)];
        check(&p, [1, 1, 1], &args, 1, &ints(expected));
        let mut counts: Vec<i32> = (0..4).map(|c| (0..m).filter(|i| i % 4 == c).map(|i| x[i]).sum()).collect();
        counts.extend([1, 7, 0, 0]);
        check(&p, [1, 1, 1], &args, 2, &ints(counts));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let p = kernel("k_large", |k| {
        let x = k.pointer(Elem::I32);
        let v = (x + square(k, 256, 256)).load();
        (x + square(k, 256, 256)).store(v.trans(&[1, 0]));
    });
    let e = crate::lower::lower(&p, "k_large", &target(0), &Options { threads: 128, stages: 1 }).unwrap_err();
    assert!(e.kind == crate::error::Kind::Limit && e.message.contains("bytes of shared memory"), "{e}");
    let e = crate::lower::lower(&p, "k_none", &target(0), &Options::default()).unwrap_err();
    assert!(e.message.contains("k_none"), "{e}");
}
