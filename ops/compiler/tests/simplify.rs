//! The corpus after simplification, and then after lowering, on the interpreters: what Triton prints gives the same at every level.

mod corpus;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::tile::{self, simplify::simplify, verify::verify};
use flagos_compiler::{Elem, MatrixShape, Options, Target, error::Kind, lower, thread};

#[test]
fn simplified_kernels_give_the_same_bits() {
    for case in corpus::cases() {
        let mut program = case.program().unwrap();
        let before = program.to_string();
        simplify(&mut program);
        verify(&program).unwrap_or_else(|e| panic!("{}: {e}\n{program}", case.name));
        assert!(program.to_string().len() <= before.len(), "{}", case.name);
        let (mut plain, mut simple) = (case.args.clone(), case.args.clone());
        tile::interpret::run(&case.program().unwrap(), &case.entry, case.grid, &mut plain).unwrap();
        tile::interpret::run(&program, &case.entry, case.grid, &mut simple).unwrap_or_else(|e| panic!("{}: {e}\n{program}", case.name));
        assert_eq!(plain, simple, "{}:\n{program}", case.name);
    }
}

/// A target of the C format (one thread) or of a GPU, with matrix units for factors of 16 bits or without.
fn target(threads: u32, subgroup: u32, units: bool) -> (Target, Options) {
    let caps = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    let format = if threads == 1 { KernelFormat::C } else { KernelFormat::OPENCL_C };
    let unit = |factor| MatrixShape { m: 16, n: 8, k: 16, factor, sum: Elem::F32 };
    let matrix = if units { vec![unit(Elem::F16), unit(Elem::BF16)] } else { Vec::new() };
    let target = Target { format, arch: "any".into(), caps, max_block_threads: 1024, shared_bytes: 48 << 10, subgroup, matrix };
    (target, Options { threads, stages: 1 })
}

#[test]
fn lowered_kernels_give_what_numpy_expects() {
    let (mut failures, mut refused, mut in_units) = (Vec::new(), Vec::new(), 0);
    for case in corpus::cases() {
        for (threads, subgroup, units) in [(1, 0, false), (64, 0, false), (64, 32, false), (128, 32, true)] {
            let (target, options) = target(threads, subgroup, units);
            let mut program = case.program().unwrap();
            simplify(&mut program);
            let mut kernel = match lower::lower(&program, &case.entry, &target, &options) {
                Ok(kernel) => kernel,
                Err(e) if e.kind != Kind::Invalid => {
                    refused.push(format!("{}, {threads} threads: {e}", case.name));
                    continue;
                }
                Err(e) => {
                    failures.push(format!("{}, {threads} threads: {e}", case.name));
                    continue;
                }
            };
            thread::math::expand(&mut kernel, &target);
            in_units += u32::from(kernel.to_string().contains("fragment_mul_add"));
            let mut args = case.args.clone();
            thread::verify::verify(&kernel).unwrap_or_else(|e| panic!("{}: {e}\n{kernel}", case.name));
            let result = thread::interpret::run(&kernel, case.grid, &mut args).map_err(|e| format!("{}: {e}", case.name));
            if let Err(e) = result.and_then(|()| case.check(&args)) {
                failures.push(format!("{threads} threads, subgroup {subgroup}: {e}"));
            }
        }
    }
    println!("{}", refused.join("\n"));
    assert!(in_units > 0, "no kernel of the corpus used the matrix unit");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
