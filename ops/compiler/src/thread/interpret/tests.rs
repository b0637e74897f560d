//! Tests of the thread interpreter and of the checks beside it.

use crate::run::Arg;
use crate::thread::build::Build;
use crate::thread::interpret::{run, scalar};
use crate::thread::verify::verify;
use crate::thread::{Effect, FragmentInfo, Inst, Kernel, Place, Role, Shuffle, Stmt, Ty, Val};
use crate::tile::{Binary, Cast, CmpI, Order, Rmw};
use crate::{Elem, MatrixShape};

const I32: Ty = Ty::Elem(Elem::I32);

fn global(pointer: Val) -> Place {
    Place::Global { pointer, align: 4 }
}

fn floats(values: impl IntoIterator<Item = f32>) -> Arg {
    Arg::Buffer(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

fn ints(values: impl IntoIterator<Item = i32>) -> Arg {
    Arg::Buffer(values.into_iter().flat_map(i32::to_le_bytes).collect())
}

fn as_ints(arg: &Arg) -> Vec<i32> {
    let Arg::Buffer(bytes) = arg else { panic!("no buffer: {arg:?}") };
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// A kernel writing one i32 per thread to its only buffer.
fn per_thread(threads: u32, subgroup: u32, f: impl FnOnce(&mut Build<'_>, Val) -> Val) -> Kernel {
    let mut k = Kernel::new("k", threads, subgroup);
    let out = k.param(Ty::Ptr(Elem::I32));
    let mut b = Build::new(&mut k);
    let t = b.inst(I32, Inst::ThreadId);
    let value = f(&mut b, t);
    let at = b.ptr_add(out, t);
    b.store(global(at), &[value]);
    k.body = b.finish();
    k
}

fn result(k: &Kernel) -> Result<Vec<i32>, String> {
    verify(k).map_err(|e| e.to_string())?;
    let mut args = [ints(vec![0; k.threads as usize])];
    run(k, [1, 1, 1], &mut args).map_err(|e| e.to_string())?;
    Ok(as_ints(&args[0]))
}

#[test]
fn blocks_add_vectors_with_a_masked_tail() {
    let mut k = Kernel::new("add", 8, 0);
    let (x, y, n) = (k.param(Ty::Ptr(Elem::I32)), k.param(Ty::Ptr(Elem::I32)), k.param(I32));
    let mut b = Build::new(&mut k);
    let (block, t) = (b.inst(I32, Inst::BlockId(0)), b.inst(I32, Inst::ThreadId));
    let start = b.binary_int(Binary::MulI, block, 8);
    let i = b.binary(Binary::AddI, start, t);
    let inside = b.cmp_i(CmpI::Slt, i, n);
    let (px, py) = (b.ptr_add(x, i), b.ptr_add(y, i));
    let other = b.i32(7);
    let a = b.inst(I32, Inst::Load { place: global(px), mask: Some(inside), other: Some(vec![other]), volatile: false });
    let sum = b.binary_int(Binary::AddI, a, 100);
    b.effect(Effect::Store { place: global(py), values: vec![sum], mask: Some(inside) });
    k.body = b.finish();
    verify(&k).unwrap();
    let mut args = [ints(0..11), ints(vec![-1; 11]), Arg::Scalar(11)];
    run(&k, [2, 1, 1], &mut args).unwrap();
    assert_eq!(as_ints(&args[1]), (100..111).collect::<Vec<_>>());
    let text = k.to_string();
    assert!(text.contains("kernel @add(%0: ptr<i32>, %1: ptr<i32>, %2: i32) threads 8 {"), "{text}");
    assert!(text.contains(": i32 = load [%") && text.contains("cmp_i slt"), "{text}");
}

#[test]
fn divergent_loops_run_each_thread_its_own_number_of_times() {
    let k = per_thread(4, 0, |b, t| {
        let total = b.kernel.var(I32, 1);
        let (zero, one) = (b.i32(0), b.i32(1));
        b.set(total, 0, zero);
        let index = b.kernel.value(I32);
        let body = b.nested(|b| {
            let old = b.get(total, 0);
            let new = b.binary(Binary::AddI, old, index);
            b.set(total, 0, new);
        });
        b.push(Stmt::For { index, low: zero, high: t, step: one, unsigned: false, uniform: false, unroll: 0, body });
        b.get(total, 0)
    });
    assert_eq!(result(&k).unwrap(), [0, 0, 1, 3]);
    let mut wrong = k;
    for stmt in &mut wrong.body {
        if let Stmt::For { uniform, .. } = stmt {
            *uniform = true;
        }
    }
    assert!(result(&wrong).unwrap_err().contains("called uniform, but threads differ"));
}

#[test]
fn loops_end_thread_by_thread() {
    let k = per_thread(4, 0, |b, t| {
        let count = b.kernel.var(I32, 1);
        let zero = b.i32(0);
        b.set(count, 0, zero);
        let body = b.nested(|b| {
            let old = b.get(count, 0);
            let more = b.cmp_i(CmpI::Slt, old, t);
            b.push(Stmt::BreakUnless(more));
            let new = b.binary_int(Binary::AddI, old, 1);
            b.set(count, 0, new);
        });
        b.push(Stmt::Loop { uniform: false, body });
        b.get(count, 0)
    });
    assert_eq!(result(&k).unwrap(), [0, 1, 2, 3]);
}

/// Each thread reads what its neighbour wrote; with or without a barrier between.
fn neighbours(subgroup: u32, barrier: Option<Effect>) -> Kernel {
    per_thread(8, subgroup, |b, t| {
        let array = b.kernel.shared_array(Elem::I32, 8);
        let value = b.binary_int(Binary::MulI, t, 10);
        b.store(Place::Shared { array, index: t }, &[value]);
        if let Some(barrier) = barrier {
            b.effect(barrier);
        }
        let next = b.binary_int(Binary::Xor, t, 1);
        b.load(Place::Shared { array, index: next }, 1)[0]
    })
}

#[test]
fn races_in_shared_memory_are_found() {
    let want = [10, 0, 30, 20, 50, 40, 70, 60];
    assert_eq!(result(&neighbours(0, Some(Effect::Barrier { global: false }))).unwrap(), want);
    assert_eq!(result(&neighbours(4, Some(Effect::SubgroupBarrier))).unwrap(), want);
    let race = result(&neighbours(0, None)).unwrap_err();
    assert!(race.contains("shared array s0: thread 0 reads what thread 1 wrote with no barrier between"), "{race}");
    let race = result(&neighbours(1, Some(Effect::SubgroupBarrier))).unwrap_err();
    assert!(race.contains("no barrier between"), "{race}");
}

#[test]
fn writes_after_reads_are_races_and_atomics_are_not() {
    let k = per_thread(4, 0, |b, t| {
        let array = b.kernel.shared_array(Elem::I32, 1);
        let zero = b.i32(0);
        b.store(Place::Shared { array, index: zero }, &[zero]);
        b.effect(Effect::Barrier { global: false });
        let one = b.i32(1);
        b.inst(I32, Inst::Atomic { place: Place::Shared { array, index: zero }, rmw: Rmw::Add, value: one, mask: None, order: Order::Relaxed });
        b.effect(Effect::Barrier { global: false });
        let sum = b.load(Place::Shared { array, index: zero }, 1)[0];
        b.binary(Binary::AddI, sum, t)
    });
    assert_eq!(result(&k).unwrap(), [4, 5, 6, 7]);
    let k = per_thread(4, 0, |b, t| {
        let array = b.kernel.shared_array(Elem::I32, 1);
        let zero = b.i32(0);
        let old = b.load(Place::Shared { array, index: zero }, 1)[0];
        b.store(Place::Shared { array, index: zero }, &[t]);
        old
    });
    assert!(result(&k).unwrap_err().contains("writes what thread"), "reads before writes of others");
}

#[test]
fn barriers_and_shuffles_need_every_thread() {
    let k = per_thread(4, 4, |b, t| {
        let zero = b.i32(0);
        let first = b.cmp_i(CmpI::Eq, t, zero);
        b.when(first, false, |b| b.effect(Effect::Barrier { global: false }));
        t
    });
    assert!(result(&k).unwrap_err().contains("not every thread gets"));
    let shuffled = |how| {
        per_thread(8, 4, |b, t| {
            let value = b.binary_int(Binary::AddI, t, 100);
            b.inst(I32, Inst::Shuffle(how, value, None))
        })
    };
    assert_eq!(result(&shuffled(Shuffle::Xor(3))).unwrap(), [103, 102, 101, 100, 107, 106, 105, 104]);
    assert_eq!(result(&shuffled(Shuffle::Down(1))).unwrap(), [101, 102, 103, -1, 105, 106, 107, -1]);
    assert_eq!(result(&shuffled(Shuffle::Up(2))).unwrap(), [-1, -1, 100, 101, -1, -1, 104, 105]);
}

#[test]
fn accesses_out_of_bounds_are_named() {
    let k = per_thread(4, 0, t_minus);
    let mut args = [ints([0; 3])];
    let message = run(&k, [1, 1, 1], &mut args).unwrap_err().to_string();
    assert!(message.contains("store [%") && message.contains("thread 3") && message.contains("byte 12 of argument 0, which has 12 bytes"), "{message}");
    let message = run(&k, [1, 1, 1], &mut [Arg::Null]).unwrap_err().to_string();
    assert!(message.contains("no buffer lies"), "{message}");
    let message = run(&k, [1, 1, 1], &mut [Arg::Scalar(0)]).unwrap_err().to_string();
    assert!(message.contains("argument 0"), "{message}");
}

fn t_minus(b: &mut Build<'_>, t: Val) -> Val {
    let zero = b.i32(0);
    b.binary(Binary::SubI, zero, t)
}

#[test]
fn wide_loads_check_the_alignment_claimed() {
    let mut k = Kernel::new("k", 1, 0);
    let (p, i) = (k.param(Ty::Ptr(Elem::F32)), k.param(I32));
    let mut b = Build::new(&mut k);
    let at = b.ptr_add(p, i);
    let v = b.load(Place::Global { pointer: at, align: 16 }, 4);
    let sum = b.binary(Binary::AddF, v[0], v[3]);
    b.store(global(p), &[sum]);
    k.body = b.finish();
    verify(&k).unwrap();
    let mut args = [floats((0..8).map(|i| i as f32)), Arg::Scalar(4)];
    run(&k, [1, 1, 1], &mut args).unwrap();
    assert_eq!(args[0], floats([11.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
    args[1] = Arg::Scalar(2);
    assert!(run(&k, [1, 1, 1], &mut args).unwrap_err().to_string().contains("alignment of 16 is claimed"));
}

#[test]
fn fragments_multiply_matrices() {
    let mut k = Kernel::new("k", 8, 4);
    let (pa, pc) = (k.param(Ty::Ptr(Elem::F16)), k.param(Ty::Ptr(Elem::F32)));
    let (a, c) = (k.shared_array(Elem::F16, 64), k.shared_array(Elem::F32, 128));
    let shape = MatrixShape { m: 8, n: 8, k: 4, factor: Elem::F16, sum: Elem::F32 };
    k.fragments = [Role::A, Role::B, Role::Sum].into_iter().map(|role| FragmentInfo { shape, role }).collect();
    let mut b = Build::new(&mut k);
    let t = b.inst(I32, Inst::ThreadId);
    let start = b.binary_int(Binary::MulI, t, 8);
    let from = b.ptr_add(pa, start);
    let row = b.load(Place::Global { pointer: from, align: 2 }, 8);
    b.store(Place::Shared { array: a, index: start }, &row);
    b.effect(Effect::Barrier { global: false });
    let group = b.binary_int(Binary::DivS, t, 4);
    let zero = b.i32(0);
    let sum = b.inst(Ty::Fragment(2), Inst::FragmentZero);
    // Rows of eight: A is the first half of the columns, B the rows' second half transposed.
    let left = b.inst(Ty::Fragment(0), Inst::FragmentLoad { array: a, index: zero, stride: 8, transposed: false, aligned: false });
    let four = b.i32(4);
    let right = b.inst(Ty::Fragment(1), Inst::FragmentLoad { array: a, index: four, stride: 8, transposed: true, aligned: false });
    let once = b.inst(Ty::Fragment(2), Inst::FragmentMulAdd(left, right, sum));
    let twice = b.inst(Ty::Fragment(2), Inst::FragmentMulAdd(left, right, once));
    let to = b.binary_int(Binary::MulI, group, 64);
    b.effect(Effect::FragmentStore { fragment: twice, array: c, index: to, stride: 8 });
    b.effect(Effect::Barrier { global: false });
    let offset = b.binary_int(Binary::MulI, t, 16);
    let values = b.load(Place::Shared { array: c, index: offset }, 16);
    let to = b.ptr_add(pc, offset);
    b.store(global(to), &values);
    k.body = b.finish();
    verify(&k).unwrap();
    let value = |i: usize, j: usize| ((i * 8 + j) % 11) as f32 - 5.0;
    let halves = (0..64).flat_map(|i| half::f16::from_f32(value(i / 8, i % 8)).to_le_bytes()).collect();
    let mut args = [Arg::Buffer(halves), floats([0.0; 128])];
    run(&k, [1, 1, 1], &mut args).unwrap();
    let want = |i: usize, j: usize| 2.0 * (0..4).map(|d| value(i, d) * value(j, 4 + d)).sum::<f32>();
    assert_eq!(args[1], floats((0..128).map(|i| want(i % 64 / 8, i % 8))));
}

/// Threads read what their neighbours' copies brought, after waiting for all but so many groups and perhaps meeting.
fn copied(groups: u32, meet: bool, masked: bool) -> Result<Vec<i32>, String> {
    let mut k = per_thread(4, 0, |b, t| {
        let array = b.kernel.shared_array(Elem::I32, 4);
        let out = b.kernel.params[0].value;
        let from = b.ptr_add(out, t);
        let one = b.i32(1);
        let mask = masked.then(|| b.cmp_i(CmpI::Sgt, t, one));
        b.effect(Effect::Copy { array, index: t, pointer: from, count: 1, mask });
        b.effect(Effect::CopyGroup);
        b.effect(Effect::CopyWait(groups));
        if meet {
            b.effect(Effect::Barrier { global: false });
        }
        let three = b.i32(3);
        let index = b.binary(Binary::SubI, three, t);
        b.load(Place::Shared { array, index }, 1)[0]
    });
    k.name = "copied".into();
    verify(&k).map_err(|e| e.to_string())?;
    let mut args = [ints([5, 6, 7, 8])];
    run(&k, [1, 1, 1], &mut args).map_err(|e| e.to_string())?;
    Ok(as_ints(&args[0]))
}

#[test]
fn copies_are_there_after_waiting_and_meeting_only() {
    assert_eq!(copied(0, true, false).unwrap(), [8, 7, 6, 5]);
    assert_eq!(copied(0, true, true).unwrap(), [8, 7, 0, 0]);
    assert_eq!(copied(1, true, false).unwrap(), [-1; 4]);
    assert!(copied(0, false, false).unwrap_err().contains("with no barrier between"));
}

#[test]
fn faulty_programs_are_refused() {
    let mut k = Kernel::new("k", 1, 0);
    let p = k.param(I32);
    let (half, wide) = (k.value(Ty::Elem(Elem::F16)), k.value(Ty::Elem(Elem::I64)));
    let make = |results: Vec<Val>, inst| vec![Stmt::Let { results, inst }];
    for (body, want) in [
        (make(vec![half], Inst::Binary(Binary::AddF, half, half)), "not visible"),
        (make(vec![wide], Inst::Binary(Binary::AddI, p, p)), "should be one type"),
        (make(vec![p], Inst::Const(1)), "defined twice"),
        (make(vec![wide], Inst::Cast(Cast::TruncI, p)), "from i32 to i64"),
        (vec![Stmt::BreakUnless(p)], "does not stand directly in a loop"),
        (vec![Stmt::Loop { uniform: true, body: vec![] }], "never ends"),
    ] {
        k.body = body;
        let message = verify(&k).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn floats_round_as_the_half_crate_rounds() {
    for i in 0..200_000u32 {
        let bits = i.wrapping_mul(0x9e37_79b9) ^ (i << 7);
        let x = f32::from_bits(bits);
        if x.is_nan() {
            continue;
        }
        let f16 = half::f16::from_f32(x).to_bits();
        let bf16 = half::bf16::from_f32(x).to_bits();
        assert_eq!(scalar::from_float(Elem::F16, f64::from(x), false), u64::from(f16), "{x:e}");
        assert_eq!(scalar::from_float(Elem::BF16, f64::from(x), false), u64::from(bf16), "{x:e}");
        assert_eq!(scalar::from_float(Elem::F32, f64::from(x), false), u64::from(bits), "{x:e}");
    }
    // Every fp8 value is itself, and halfway cases go to even.
    for elem in [Elem::F8E4M3, Elem::F8E5M2] {
        for bits in 0..256 {
            let x = scalar::float(elem, bits);
            assert!(x.is_nan() || scalar::from_float(elem, x, false) == bits, "{elem} {bits:#x} {x}");
        }
    }
    let e4m3 = |x: f64| scalar::from_float(Elem::F8E4M3, x, false);
    assert_eq!([e4m3(448.0), e4m3(464.0), e4m3(465.0), e4m3(1.0625), e4m3(2f64.powi(-10))], [0x7e, 0x7e, 0x7f, 0x38, 0]);
    assert_eq!(scalar::from_float(Elem::F8E4M3, 1e9, true), 0x7e);
    assert_eq!(scalar::from_float(Elem::F8E5M2, -61440.0, false), 0xfc);
}
