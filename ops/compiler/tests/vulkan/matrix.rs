//! Fragments of the matrix unit: code that a device with one is given. No driver in software has one, so it is read back and looked at.

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::emit::emit;
use flagos_compiler::error::Kind;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, FragmentInfo, Inst, Kernel, Place, Role, Ty, verify};
use flagos_compiler::{Elem, MatrixShape, Target};
use rspirv::binary::Disassemble;
use rspirv::spirv::Op;

fn target(arch: &str, shape: MatrixShape) -> Target {
    let caps = caps::FP16 | caps::BF16 | caps::INT64 | caps::FP64;
    Target { format: KernelFormat::SPIRV_VULKAN, arch: arch.into(), caps, max_block_threads: 1024, shared_bytes: 48 << 10, subgroup: 32, matrix: vec![shape] }
}

/// A product of one tile by each of two subgroups, summed up over four steps in a variable.
fn product(shape: MatrixShape) -> Kernel {
    let mut k = Kernel::new("product", 64, 32);
    let out = k.param(Ty::Ptr(shape.sum));
    let (a, b_, c) = (k.shared_array(shape.factor, 4 * shape.m * shape.k), k.shared_array(shape.factor, 4 * shape.k * shape.n), k.shared_array(shape.sum, 2 * shape.m * shape.n));
    k.fragments = [Role::A, Role::B, Role::Sum].map(|role| FragmentInfo { shape, role }).into();
    let sum = k.var(Ty::Fragment(2), 1);
    let mut b = Build::new(&mut k);
    let zero = b.inst(Ty::Fragment(2), Inst::FragmentZero);
    b.set(sum, 0, zero);
    let (low, high, step) = (b.i32(0), b.i32(4), b.i32(1));
    b.count(low, high, step, 0, |b, i| {
        let (at_a, at_b) = (b.binary_int(flagos_compiler::tile::Binary::MulI, i, i64::from(shape.m * shape.k)), b.binary_int(flagos_compiler::tile::Binary::MulI, i, i64::from(shape.k * shape.n)));
        let left = b.inst(Ty::Fragment(0), Inst::FragmentLoad { array: a, index: at_a, stride: shape.k, transposed: false, aligned: false });
        let right = b.inst(Ty::Fragment(1), Inst::FragmentLoad { array: b_, index: at_b, stride: shape.k, transposed: true, aligned: false });
        let old = b.get(sum, 0);
        let new = b.inst(Ty::Fragment(2), Inst::FragmentMulAdd(left, right, old));
        b.set(sum, 0, new);
    });
    let total = b.get(sum, 0);
    let at = b.i32(0);
    b.effect(Effect::FragmentStore { fragment: total, array: c, index: at, stride: shape.n });
    b.effect(Effect::Barrier { global: false });
    let first = b.load(Place::Shared { array: c, index: at }, 1);
    b.store(Place::Global { pointer: out, align: shape.sum.bytes() }, &first);
    k.body = b.finish();
    k
}

const ALL: &str = "vulkan-test+int8+int16+storage8+storage16+memorymodel";

#[test]
fn products_are_cooperative_matrices() {
    for (factor, sum) in [(Elem::F16, Elem::F32), (Elem::BF16, Elem::F32), (Elem::F32, Elem::F32), (Elem::F64, Elem::F64), (Elem::I8, Elem::I32)] {
        let shape = MatrixShape { m: 16, n: 8, k: 16, factor, sum };
        let kernel = product(shape);
        verify::verify(&kernel).expect("well-formed");
        let compiled = emit(&kernel, &target(ALL, shape)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(compiled.options, "-subgroup-size=32");
        let module = rspirv::dr::load_bytes(&compiled.code).unwrap_or_else(|e| panic!("{factor}: {e}"));
        let count = |op: Op| module.all_inst_iter().filter(|i| i.class.opcode == op).count();
        assert_eq!([Op::CooperativeMatrixLoadKHR, Op::CooperativeMatrixMulAddKHR, Op::CooperativeMatrixStoreKHR, Op::TypeCooperativeMatrixKHR].map(count), [2, 1, 1, 3], "{}", module.disassemble());
    }
}

#[test]
fn a_device_without_a_matrix_unit_is_told_so() {
    let shape = MatrixShape { m: 16, n: 16, k: 16, factor: Elem::F16, sum: Elem::F32 };
    let error = emit(&product(shape), &target("vulkan-test", shape)).unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.message.contains("memory model"), "{error}");
}

#[test]
fn what_a_device_cannot_do_is_named() {
    let shape = MatrixShape { m: 16, n: 16, k: 16, factor: Elem::F16, sum: Elem::F32 };
    let plain = target("vulkan-test", shape);
    let mut k = Kernel::new("doubles", 32, 0);
    k.var(Ty::Elem(Elem::F64), 1);
    let error = emit(&k, &Target { caps: caps::INT64, ..plain.clone() }).unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.message.contains("shaderFloat64"), "{error}");
    let error = emit(&k, &Target { caps: 0, ..plain.clone() }).unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.message.contains("shaderInt64"), "{error}");
    let error = emit(&Kernel::new("k", 2048, 0), &plain).unwrap_err();
    assert!(error.kind == Kind::Limit && error.message.contains("2048 threads"), "{error}");
    let mut k = Kernel::new("k", 32, 0);
    k.shared_array(Elem::F32, 20_000);
    let error = emit(&k, &plain).unwrap_err();
    assert!(error.kind == Kind::Limit && error.message.contains("80000 bytes"), "{error}");
}
