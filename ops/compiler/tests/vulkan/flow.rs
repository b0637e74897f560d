//! Control flow of every shape, coordinates, shuffles, atomics.

use flagos_compiler::run::Arg;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Shuffle, Stmt, Ty, Val};
use flagos_compiler::tile::{Binary, CmpI, Order, Rmw};
use flagos_compiler::{Elem, Target};

use crate::device::{agree, buffer, device, run, zeros};
use crate::elementwise::random;
use crate::first::global_id;
use crate::support::Backend;

/// A kernel whose threads compute an i32 from their own and store it.
fn of_each(name: &str, threads: u32, f: impl FnOnce(&mut Build<'_>, Val) -> Val) -> Kernel {
    let mut k = Kernel::new(name, threads, 0);
    let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(Elem::I32)));
    let mut b = Build::new(&mut k);
    let i = global_id(&mut b);
    let (from, to) = (b.ptr_add(x, i), b.ptr_add(y, i));
    let own = b.load(Place::Global { pointer: from, align: 4 }, 1)[0];
    let out = f(&mut b, own);
    b.store(Place::Global { pointer: to, align: 4 }, &[out]);
    k.body = b.finish();
    k
}

fn check(k: &Kernel) {
    let Some(device) = device() else { return };
    let n = 4 * k.threads as usize;
    let x = buffer(Elem::I32, random(21).take(n).map(|v| v % 23));
    agree(device, k, [4, 1, 1], &[x, zeros(Elem::I32, n)], &[Elem::I32; 2]);
}

#[test]
fn branches_within_branches() {
    check(&of_each("branches", 64, |b, x| {
        let v = b.kernel.var(Ty::Elem(Elem::I32), 1);
        b.set(v, 0, x);
        let bit = |b: &mut Build<'_>, n: i64| {
            let bit = b.binary_int(Binary::And, x, n);
            let zero = b.i32(0);
            b.cmp_i(CmpI::Ne, bit, zero)
        };
        let first = bit(b, 1);
        let then = b.nested(|b| {
            let second = bit(b, 2);
            let then = b.nested(|b| {
                let old = b.get(v, 0);
                let new = b.binary_int(Binary::MulI, old, 3);
                b.set(v, 0, new);
            });
            b.push(Stmt::If { condition: second, uniform: false, then, other: Vec::new() });
        });
        let other = b.nested(|b| {
            let third = bit(b, 4);
            let minus = b.i32(-1);
            let other = b.nested(|b| b.set(v, 0, minus));
            // An empty branch before a full one.
            b.push(Stmt::If { condition: third, uniform: false, then: Vec::new(), other });
        });
        b.push(Stmt::If { condition: first, uniform: false, then, other });
        b.push(Stmt::If { condition: first, uniform: false, then: Vec::new(), other: Vec::new() });
        b.get(v, 0)
    }));
}

#[test]
fn counted_loops_signed_unsigned_empty_and_nested() {
    for (unsigned, unroll, step) in [(false, 0, 1), (true, 4, 2), (false, 1, 3)] {
        check(&of_each("counted", 64, |b, x| {
            let v = b.kernel.var(Ty::Elem(Elem::I32), 1);
            let (low, step) = (b.i32(if unsigned { 2 } else { -2 }), b.i32(step));
            b.set(v, 0, low);
            let [i, j] = [0; 2].map(|_| b.kernel.value(Ty::Elem(Elem::I32)));
            let body = b.nested(|b| {
                let inner = b.nested(|b| {
                    let old = b.get(v, 0);
                    let product = b.binary(Binary::MulI, i, j);
                    let new = b.binary(Binary::AddI, old, product);
                    b.set(v, 0, new);
                });
                b.push(Stmt::For { index: j, low, high: i, step, unsigned, uniform: false, unroll, body: inner });
            });
            b.push(Stmt::For { index: i, low, high: x, step, unsigned, uniform: false, unroll, body });
            b.get(v, 0)
        }));
    }
}

#[test]
fn loops_in_64_bits() {
    check(&of_each("long", 32, |b, x| {
        let v = b.kernel.var(Ty::Elem(Elem::I32), 1);
        b.set(v, 0, x);
        let (low, high, step) = (b.int(Elem::I64, 1 << 40), b.int(Elem::I64, (1 << 40) + 7), b.int(Elem::I64, 2));
        b.count(low, high, step, 0, |b, i| {
            let (old, part) = (b.get(v, 0), b.cast(flagos_compiler::tile::Cast::TruncI, Elem::I32, i));
            let scaled = b.binary_int(Binary::MulI, old, 5);
            let new = b.binary(Binary::AddI, scaled, part);
            b.set(v, 0, new);
        });
        b.get(v, 0)
    }));
}

#[test]
fn loops_left_in_the_middle() {
    // Collatz: each thread runs until it meets 1, with a second test further down, within a counted loop.
    check(&of_each("collatz", 64, |b, x| {
        let (v, steps) = (b.kernel.var(Ty::Elem(Elem::I32), 1), b.kernel.var(Ty::Elem(Elem::I32), 1));
        let zero = b.i32(0);
        b.set(steps, 0, zero);
        let (low, high, one) = (b.i32(0), b.i32(3), b.i32(1));
        let body_of = |b: &mut Build<'_>, i: Val| {
            let start = b.binary(Binary::AddI, x, i);
            b.set(v, 0, start);
            let body = b.nested(|b| {
                let now = b.get(v, 0);
                let more = b.cmp_i(CmpI::Sgt, now, one);
                b.push(Stmt::BreakUnless(more));
                let count = b.get(steps, 0);
                let next = b.binary_int(Binary::AddI, count, 1);
                b.set(steps, 0, next);
                let limit = b.i32(100);
                let few = b.cmp_i(CmpI::Slt, next, limit);
                b.push(Stmt::BreakUnless(few));
                let odd = b.binary_int(Binary::And, now, 1);
                let odd = b.cmp_i(CmpI::Eq, odd, one);
                let tripled = b.binary_int(Binary::MulI, now, 3);
                let tripled = b.binary_int(Binary::AddI, tripled, 1);
                let halved = b.binary_int(Binary::ShrU, now, 1);
                let then = b.nested(|b| b.set(v, 0, tripled));
                let other = b.nested(|b| b.set(v, 0, halved));
                b.push(Stmt::If { condition: odd, uniform: false, then, other });
            });
            b.push(Stmt::Loop { uniform: false, body });
        };
        b.count(low, high, one, 0, body_of);
        b.get(steps, 0)
    }));
}

#[test]
fn coordinates_on_three_axes() {
    let Some(device) = device() else { return };
    let mut k = Kernel::new("coordinates", 8, 0);
    let y = k.param(Ty::Ptr(Elem::I32));
    let mut b = Build::new(&mut k);
    let [bx, by, bz] = [0, 1, 2].map(|a| b.number(Elem::I32, Inst::BlockId(a)));
    let [nx, ny, nz] = [0, 1, 2].map(|a| b.number(Elem::I32, Inst::NumBlocks(a)));
    let t = b.number(Elem::I32, Inst::ThreadId);
    let block = b.binary(Binary::MulI, bz, ny);
    let block = b.binary(Binary::AddI, block, by);
    let block = b.binary(Binary::MulI, block, nx);
    let block = b.binary(Binary::AddI, block, bx);
    let i = b.binary_int(Binary::MulI, block, 8);
    let i = b.binary(Binary::AddI, i, t);
    let word = [(bx, 100), (by, 10), (bz, 1), (nx, 1000), (ny, 10000), (nz, 100_000)].iter().fold(t, |sum, (v, by)| {
        let part = b.binary_int(Binary::MulI, *v, *by);
        b.binary(Binary::AddI, sum, part)
    });
    let pointer = b.ptr_add(y, i);
    b.store(Place::Global { pointer, align: 4 }, &[word]);
    k.body = b.finish();
    agree(device, &k, [3, 4, 2], &[zeros(Elem::I32, 24 * 8)], &[Elem::I32]);
}

/// The device as it is, and pretending to have no shuffles.
fn with_and_without(word: &str) -> Vec<(Backend, Target)> {
    let Some((backend, target)) = device() else { return Vec::new() };
    let fewer = target.arch.split('+').filter(|w| *w != word).collect::<Vec<_>>().join("+");
    [target.arch.clone(), fewer].map(|arch| (Backend { table: backend.table, device: backend.device }, Target { arch, ..target.clone() })).into()
}

#[test]
fn shuffles_of_every_type() {
    for device in with_and_without("shuffle") {
        let width = device.1.subgroup;
        for &elem in Elem::ALL {
            let mut k = Kernel::new(&format!("shuffle_{elem}"), 4 * width, width);
            let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(elem)));
            let mut b = Build::new(&mut k);
            let (i, t) = (global_id(&mut b), b.number(Elem::I32, Inst::ThreadId));
            let from = b.ptr_add(x, i);
            let own = b.load(Place::Global { pointer: from, align: elem.bytes() }, 1)[0];
            let lane = b.binary_int(Binary::And, t, i64::from(width - 1));
            let (tripled, up) = (b.binary_int(Binary::MulI, lane, 3), b.i32(1));
            let turned = b.binary_int(Binary::And, tripled, i64::from(width - 1));
            let ways = [(Shuffle::Xor(1), None), (Shuffle::Xor(width / 2), None), (Shuffle::Up(1), None), (Shuffle::Down(2), None), (Shuffle::Lane, Some(turned))];
            // Lanes beyond the subgroup are undefined: the own value is kept there.
            let above = b.i32(width as i32 - 2);
            let (not_first, not_last) = (b.cmp_i(CmpI::Sge, lane, up), b.cmp_i(CmpI::Slt, lane, above));
            for (j, (how, source)) in ways.into_iter().enumerate() {
                let moved = b.inst(Ty::Elem(elem), Inst::Shuffle(how, own, source));
                let kept = match how {
                    Shuffle::Up(_) => b.select(not_first, moved, own),
                    Shuffle::Down(_) => b.select(not_last, moved, own),
                    _ => moved,
                };
                let at = b.binary_int(Binary::MulI, i, 5);
                let at = b.binary_int(Binary::AddI, at, j as i64);
                let to = b.ptr_add(y, at);
                b.store(Place::Global { pointer: to, align: elem.bytes() }, &[kept]);
            }
            k.body = b.finish();
            let n = 8 * width as usize;
            let bits = random(17).map(|v| if elem == Elem::I1 { v & 1 } else { v });
            agree(&device, &k, [2, 1, 1], &[buffer(elem, bits.take(n)), zeros(elem, 5 * n)], &[elem; 2]);
        }
    }
}

#[test]
fn subgroups_meet() {
    let Some(device) = device() else { return };
    let width = device.1.subgroup;
    let mut k = Kernel::new("meet", 4 * width, width);
    let y = k.param(Ty::Ptr(Elem::I32));
    let array = k.shared_array(Elem::I32, 4 * width);
    let mut b = Build::new(&mut k);
    let (i, t) = (global_id(&mut b), b.number(Elem::I32, Inst::ThreadId));
    b.store(Place::Shared { array, index: t }, &[i]);
    b.effect(Effect::SubgroupBarrier);
    let other = b.binary_int(Binary::Xor, t, 1);
    let seen = b.load(Place::Shared { array, index: other }, 1);
    let to = b.ptr_add(y, i);
    b.store(Place::Global { pointer: to, align: 4 }, &seen);
    k.body = b.finish();
    agree(device, &k, [2, 1, 1], &[zeros(Elem::I32, 8 * width as usize)], &[Elem::I32]);
}

/// All threads on one element: sums and the like do not depend on the order.
#[test]
fn atomics_of_every_type_and_operation() {
    for device in with_and_without("add32") {
        for shared in [false, true] {
            for elem in [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F16, Elem::BF16, Elem::F32, Elem::F64] {
                let all: &[Rmw] = if elem.is_int() { &[Rmw::And, Rmw::Or, Rmw::Xor, Rmw::Add, Rmw::Max, Rmw::Min, Rmw::UMax, Rmw::UMin] } else { &[Rmw::FAdd, Rmw::Max, Rmw::Min] };
                for (n, &rmw) in all.iter().enumerate() {
                    let k = contended(elem, rmw, shared, [Order::Relaxed, Order::Acquire, Order::Release, Order::AcqRel][n % 4]);
                    // Whole numbers, whose sums are exact in every order.
                    let small = |v: u64| flagos_compiler::thread::interpret::scalar::from_float(elem, (v % 5) as f64 - 1.0, false);
                    let bits = random(19).map(|v| if elem.is_float() { small(v) } else { v });
                    let start: Vec<u64> = random(23).take(4).map(|v| if elem.is_float() { small(v) } else { v }).collect();
                    agree(&device, &k, [2, 1, 1], &[buffer(elem, bits.take(128)), buffer(elem, start)], &[elem; 2]);
                }
            }
        }
    }
}

/// Threads apply their elements to y[1], every third not; through shared memory, thread 0 brings the result back (each block its own to y[block]).
fn contended(elem: Elem, rmw: Rmw, shared: bool, order: Order) -> Kernel {
    let mut k = Kernel::new(&format!("atomic_{rmw:?}_{elem}"), 64, 0);
    let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(elem)));
    let array = k.shared_array(elem, 2);
    let mut b = Build::new(&mut k);
    let (i, t, block) = (global_id(&mut b), b.number(Elem::I32, Inst::ThreadId), b.number(Elem::I32, Inst::BlockId(0)));
    let from = b.ptr_add(x, i);
    let value = b.load(Place::Global { pointer: from, align: elem.bytes() }, 1)[0];
    let (zero, one) = (b.i32(0), b.i32(1));
    let third = b.binary_int(Binary::RemU, t, 3);
    let mask = b.cmp_i(CmpI::Ne, third, zero);
    let first = b.cmp_i(CmpI::Eq, t, zero);
    let target = b.ptr_add(y, if shared { block } else { one });
    if shared {
        b.when(first, false, |b| {
            let start = b.load(Place::Global { pointer: target, align: elem.bytes() }, 1);
            b.store(Place::Shared { array, index: one }, &start);
        });
        b.effect(Effect::Barrier { global: false });
    }
    let place = if shared { Place::Shared { array, index: one } } else { Place::Global { pointer: target, align: elem.bytes() } };
    b.inst(Ty::Elem(elem), Inst::Atomic { place, rmw, value, mask: Some(mask), order });
    if shared {
        b.effect(Effect::Barrier { global: false });
        b.when(first, false, |b| {
            let end = b.load(Place::Shared { array, index: one }, 1);
            b.store(Place::Global { pointer: target, align: elem.bytes() }, &end);
        });
    }
    k.body = b.finish();
    k
}

/// Integer atomics whose operand float arithmetic made.
#[test]
fn atomics_on_the_bits_of_floats() {
    let Some(device) = device() else { return };
    for shared in [false, true] {
        for rmw in [Rmw::UMin, Rmw::UMax, Rmw::Min, Rmw::Max, Rmw::Add, Rmw::Xor, Rmw::Or, Rmw::And] {
            let mut k = Kernel::new("bits", 32, 0);
            let y = k.param(Ty::Ptr(Elem::I32));
            let array = k.shared_array(Elem::I32, 1);
            let mut b = Build::new(&mut k);
            let (t, zero, start) = (b.number(Elem::I32, Inst::ThreadId), b.i32(0), b.i32(1000));
            let (number, by) = (b.cast(flagos_compiler::tile::Cast::SiToFp, Elem::F32, t), b.float(Elem::F32, 2.5));
            let number = b.binary(Binary::SubF, number, by);
            let value = b.cast(flagos_compiler::tile::Cast::Bitcast, Elem::I32, number);
            let first = b.cmp_i(CmpI::Eq, t, zero);
            let global = Place::Global { pointer: y, align: 4 };
            let place = if shared { Place::Shared { array, index: zero } } else { global };
            b.effect(Effect::Store { place, values: vec![start], mask: Some(first) });
            b.effect(Effect::Barrier { global: true });
            b.inst(Ty::Elem(Elem::I32), Inst::Atomic { place, rmw, value, mask: None, order: Order::Relaxed });
            b.effect(Effect::Barrier { global: true });
            b.when(first, false, |b| {
                let end = b.load(place, 1);
                b.store(global, &end);
            });
            k.body = b.finish();
            agree(device, &k, [1, 1, 1], &[zeros(Elem::I32, 1)], &[Elem::I32]);
        }
    }
}

/// Each thread alone on its element: old values come back.
#[test]
fn atomics_give_the_old_value() {
    let Some(device) = device() else { return };
    for elem in [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F16, Elem::F32, Elem::F64] {
        let mut k = Kernel::new(&format!("old_{elem}"), 64, 0);
        let [x, y, z] = [0; 3].map(|_| k.param(Ty::Ptr(elem)));
        let mut b = Build::new(&mut k);
        let i = global_id(&mut b);
        let [px, py, pz] = [x, y, z].map(|p| b.ptr_add(p, i));
        let value = b.load(Place::Global { pointer: px, align: elem.bytes() }, 1)[0];
        let place = Place::Global { pointer: py, align: elem.bytes() };
        let old = b.inst(Ty::Elem(elem), Inst::Atomic { place, rmw: Rmw::Exch, value, mask: None, order: Order::AcqRel });
        // Half of the elements hold what is expected.
        let seen = b.inst(Ty::Elem(elem), Inst::AtomicCas { place, expected: old, desired: old, mask: None, order: Order::AcqRel });
        let back = b.inst(Ty::Elem(elem), Inst::AtomicCas { place, expected: value, desired: old, mask: None, order: Order::Release });
        let odd = b.binary_int(Binary::And, i, 1);
        let zero = b.i32(0);
        let even = b.cmp_i(CmpI::Eq, odd, zero);
        let kept = b.select(even, seen, back);
        b.store(Place::Global { pointer: pz, align: elem.bytes() }, &[kept]);
        k.body = b.finish();
        let args = [buffer(elem, random(29).take(128)), buffer(elem, random(31).take(128)), zeros(elem, 128)];
        agree(device, &k, [2, 1, 1], &args, &[elem; 3]);
    }
}

/// Blocks wait for one another's results through a counter: the last one sums up what all have written.
#[test]
fn writes_before_a_release_are_seen_after_an_acquire() {
    let Some(device) = device() else { return };
    let mut k = Kernel::new("last", 64, 0);
    let [parts, counter, sum] = [0; 3].map(|_| k.param(Ty::Ptr(Elem::I32)));
    let (flag, total) = (k.shared_array(Elem::I32, 1), k.var(Ty::Elem(Elem::I32), 1));
    let mut b = Build::new(&mut k);
    let (i, t) = (global_id(&mut b), b.number(Elem::I32, Inst::ThreadId));
    let (zero, one, blocks) = (b.i32(0), b.i32(1), b.number(Elem::I32, Inst::NumBlocks(0)));
    let own = b.ptr_add(parts, i);
    b.store(Place::Global { pointer: own, align: 4 }, &[i]);
    b.effect(Effect::Barrier { global: true });
    let first = b.cmp_i(CmpI::Eq, t, zero);
    b.when(first, false, |b| {
        let place = Place::Global { pointer: counter, align: 4 };
        let before = b.number(Elem::I32, Inst::Atomic { place, rmw: Rmw::Add, value: one, mask: None, order: Order::AcqRel });
        b.store(Place::Shared { array: flag, index: zero }, &[before]);
    });
    b.effect(Effect::Barrier { global: true });
    let before = b.load(Place::Shared { array: flag, index: zero }, 1)[0];
    let after = b.binary(Binary::AddI, before, one);
    let last = b.cmp_i(CmpI::Eq, after, blocks);
    b.when(last, true, |b| {
        b.set(total, 0, zero);
        b.count(zero, blocks, one, 0, |b, block| {
            let at = b.binary_int(Binary::MulI, block, 64);
            let at = b.binary(Binary::AddI, at, t);
            let place = b.ptr_add(parts, at);
            let part = b.load(Place::Global { pointer: place, align: 4 }, 1)[0];
            let old = b.get(total, 0);
            let new = b.binary(Binary::AddI, old, part);
            b.set(total, 0, new);
        });
        let out = b.get(total, 0);
        let to = b.ptr_add(sum, t);
        b.store(Place::Global { pointer: to, align: 4 }, &[out]);
    });
    k.body = b.finish();
    const BLOCKS: u32 = 50;
    let mut args = [zeros(Elem::I32, 64 * BLOCKS as usize), zeros(Elem::I32, 1), zeros(Elem::I32, 64)];
    run(device, &k, [BLOCKS, 1, 1], &mut args);
    let want = (0..64).map(|t| u64::from((0..BLOCKS).map(|block| block * 64 + t).sum::<u32>()));
    assert_eq!(args[2], buffer(Elem::I32, want));
    let Arg::Buffer(count) = &args[1] else { return };
    assert_eq!(count[..], BLOCKS.to_le_bytes());
}
