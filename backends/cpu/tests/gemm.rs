//! Products of all types and layouts against plain loops in f64.

use flagos_backend_api::DType;
use flagos_backend_cpu::gemm::{Gemm, Operands, Shape};
use flagos_backend_cpu::gemm_pack::Factor;
use flagos_backend_cpu::pool::Pool;
use flagos_backend_cpu::target::{Isa, Target};
use flagos_catalog::{Array, Data, Rng};

fn targets() -> Vec<Target> {
    let host = Target::host();
    [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= host.isa).map(|isa| Target { isa, threads: 4 }).collect()
}

/// Small integers: every product and sum is exact in every type, so results must be equal.
fn filled(dtype: DType, n: usize, rng: &mut Rng) -> (Vec<u8>, Vec<f64>) {
    let limit = if dtype.bits == 8 { 2 } else { 3 };
    let values: Vec<f64> = (0..n).map(|_| rng.below(2 * limit + 1) as f64 - if dtype == DType::U8 { 0.0 } else { limit as f64 }).collect();
    let mut bytes = vec![0; n * dtype.bytes()];
    for (i, place) in bytes.chunks_mut(dtype.bytes()).enumerate() {
        Array::float(&[n], values.clone()).put(i, dtype, place);
    }
    (bytes, values)
}

#[test]
fn products_of_small_integers_are_exact_in_every_type_and_layout() {
    let pool = Pool::new(4);
    let mut rng = Rng(7);
    for target in targets() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::C64, DType::C128, DType::I8, DType::I16, DType::I32, DType::I64, DType::U8] {
            for (m, n, k) in [(1, 1, 1), (5, 7, 3), (33, 25, 20), (1, 40, 9), (40, 1, 9), (70, 90, 1), (13, 17, 0)] {
                for layout in 0..8 {
                    // Row- or column-major, one element of space after each row.
                    let strides = |r: usize, c: usize, row: bool| if row { (c as isize + 1, 1) } else { (1, r as isize + 1) };
                    let (sa, sb, sc) = (strides(m, k, layout & 1 == 0), strides(k, n, layout & 2 == 0), strides(m, n, layout & 4 == 0));
                    let (a, av) = filled(dtype, (m + 1) * (k + 1), &mut rng);
                    let (b, bv) = filled(dtype, (k + 1) * (n + 1), &mut rng);
                    let (mut c, cv) = filled(dtype, (m + 1) * (n + 1), &mut rng);
                    let shape = Shape { input: dtype, output: dtype, m, n, k, a: sa, b: sb, d: sc, c: sc, conj_a: false, conj_b: false };
                    let gemm = Gemm::new(&shape, &target).unwrap();
                    let mut space = vec![0u64; gemm.workspace_bytes() / 8 + 16];
                    let aligned = space.as_mut_ptr().cast::<u8>();
                    let aligned = aligned.wrapping_add(aligned.align_offset(64));
                    let x = Operands { a: a.as_ptr(), b: b.as_ptr(), d: c.as_ptr(), c: c.as_mut_ptr(), alpha: Factor::real(2.0), beta: Factor::real(3.0) };
                    // SAFETY: the buffers hold what the strides reach.
                    unsafe { gemm.run(&x, aligned, Some(&pool)) };
                    let at = |s: (isize, isize), i: usize, j: usize| (i as isize * s.0 + j as isize * s.1) as usize;
                    let tensor = flagos_backend_api::Tensor::contiguous(dtype, &[((m + 1) * (n + 1)) as i64]);
                    let got = Array::decode(&tensor, &c, 0).unwrap();
                    for i in 0..m {
                        for j in 0..n {
                            let product: f64 = (0..k).map(|p| av[at(sa, i, p)] * bv[at(sb, p, j)]).sum();
                            let want = 2.0 * product + 3.0 * cv[at(sc, i, j)];
                            let want = match &got.data {
                                Data::Int(_) => wrap(dtype, want as i128) as f64,
                                _ => want,
                            };
                            assert_eq!(got.floats()[at(sc, i, j)], want, "{dtype} {m}x{n}x{k} layout {layout} at ({i}, {j}) {:?}", target.isa);
                        }
                    }
                }
            }
        }
    }
}

fn wrap(dtype: DType, v: i128) -> i128 {
    match (dtype.code, dtype.bits) {
        (0, 8) => (v as i8).into(),
        (1, 8) => (v as u8).into(),
        _ => v,
    }
}

#[test]
fn large_products_are_the_same_on_one_thread_and_four() {
    let mut rng = Rng(3);
    let (m, n, k) = (517, 389, 1500);
    for (input, output) in [(DType::F32, DType::F32), (DType::F64, DType::F64), (DType::F16, DType::F16), (DType::BF16, DType::F32), (DType::C64, DType::C64)] {
        let a = Array::float(&[m * k], (0..m * k).map(|_| rng.unit() - 0.5).collect());
        let b = Array::float(&[k * n], (0..k * n).map(|_| rng.unit() - 0.5).collect());
        let bytes = |x: &Array| {
            let mut out = vec![0; x.len() * input.bytes()];
            out.chunks_mut(input.bytes()).enumerate().for_each(|(i, p)| x.put(i, input, p));
            out
        };
        let (a, b) = (bytes(&a), bytes(&b));
        let exact = |raw: &[u8]| Array::decode(&flagos_backend_api::Tensor::contiguous(input, &[(raw.len() / input.bytes()) as i64]), raw, 0).unwrap().floats();
        let (av, bv) = (exact(&a), exact(&b));
        let mut results = Vec::new();
        for target in targets() {
            for threads in [1, 4] {
                let s = (k as isize, 1);
                let c = (n as isize, 1);
                let shape = Shape { input, output, m, n, k, a: s, b: (n as isize, 1), d: c, c, conj_a: false, conj_b: false };
                let gemm = Gemm::new(&shape, &target).unwrap();
                let mut space = vec![0u64; gemm.workspace_bytes() / 8 + 16];
                let aligned = space.as_mut_ptr().cast::<u8>();
                let aligned = aligned.wrapping_add(aligned.align_offset(64));
                let mut out = vec![0xffu8; m * n * output.bytes()];
                let x = Operands { a: a.as_ptr(), b: b.as_ptr(), d: core::ptr::null(), c: out.as_mut_ptr(), alpha: Factor::ONE, beta: Factor::ZERO };
                // SAFETY: the buffers hold what the strides reach.
                unsafe { gemm.run(&x, aligned, Some(&Pool::new(threads))) };
                results.push((target.isa, out));
            }
        }
        assert!(results.chunks(2).all(|pair| pair[0].1 == pair[1].1), "{input}: one thread and four differ");
        for (isa, raw) in results {
            let got = Array::decode(&flagos_backend_api::Tensor::contiguous(output, &[m as i64, n as i64]), &raw, 0).unwrap().floats();
            for (i, j) in [(0, 0), (3, 388), (516, 0), (516, 388), (100, 200), (259, 77)] {
                let (mut sum, mut scale) = (0.0, 0.0);
                for p in 0..k {
                    let term = av[i * k + p] * bv[p * n + j];
                    sum += term;
                    scale += f64::abs(term);
                }
                let u = if input == DType::F64 { 2f64.powi(-53) } else { 2f64.powi(-24) };
                let out_u = flagos_catalog::dtypes::unit_roundoff(output);
                let bound = (k + 2) as f64 * u * scale + 2.0 * out_u * f64::abs(sum) + 1e-12;
                assert!((got[i * n + j] - sum).abs() <= bound, "{input} {isa:?} ({i}, {j}): {} for {sum}", got[i * n + j]);
            }
        }
    }
}
