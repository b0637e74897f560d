//! Every atomic on every type, in global and shared memory, with results that do not depend on the order of threads.

use flagos_compiler::Elem;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::interpret::scalar;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Ty};
use flagos_compiler::tile::{Binary, CmpI, Order, Rmw};

use super::{Case, Check, Numbers, at, buffer, load, thread_index, zeros};

const I32: Ty = Ty::Elem(Elem::I32);
/// Threads of all blocks.
const COUNT: usize = 64;
const ORDERS: [Order; 4] = [Order::Relaxed, Order::Acquire, Order::Release, Order::AcqRel];

fn operations(elem: Elem) -> &'static [Rmw] {
    if elem == Elem::I1 {
        &[Rmw::And, Rmw::Or, Rmw::Xor]
    } else if elem.is_float() {
        &[Rmw::FAdd, Rmw::Max, Rmw::Min]
    } else {
        &[Rmw::And, Rmw::Or, Rmw::Xor, Rmw::Add, Rmw::Max, Rmw::Min, Rmw::UMax, Rmw::UMin]
    }
}

/// Small numbers, so that sums of floats are exact.
fn value(elem: Elem, random: u64) -> u64 {
    if elem.is_float() { scalar::from_float(elem, (random % 3) as f64 - 1.0, false) } else { random & scalar::mask(elem) }
}

/// A value per thread goes into one of 7 neighbouring elements, three of four threads taking part. The first operation's old values are kept where
/// a block has a single thread.
pub fn update(threads: u32, elem: Elem, shared: bool) -> Case {
    let ops = operations(elem);
    let mut kernel = Kernel::new("update", threads, 0);
    let (input, out, old) = (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let array = shared.then(|| kernel.shared_array(elem, 7));
    let mut b = Build::new(&mut kernel);
    let (i, t) = (thread_index(&mut b), b.inst(I32, Inst::ThreadId));
    let x = load(&mut b, input, i);
    let seven = b.i32(7);
    let cell = b.binary(Binary::RemU, i, seven);
    let three = b.i32(3);
    let part = b.binary_int(Binary::And, i, 3);
    let mask = b.cmp_i(CmpI::Ne, part, three);
    for (n, rmw) in ops.iter().enumerate() {
        let order = ORDERS[n % 4];
        let element = b.binary_int(Binary::AddI, cell, n as i64 * 7);
        let Some(array) = array else {
            let address = b.ptr_add(out, element);
            let place = at(&b, address);
            let before = b.inst(Ty::Elem(elem), Inst::Atomic { place, rmw: *rmw, value: x, mask: Some(mask), order });
            if threads == 1 {
                let address = b.ptr_add(old, i);
                let place = at(&b, address);
                b.effect(Effect::Store { place, values: vec![before], mask: Some(mask) });
            }
            continue;
        };
        // Each block begins with zeros and adds what it has to the result by its first thread.
        let first = b.cmp_i(CmpI::Slt, t, seven);
        b.effect(Effect::Barrier { global: false });
        let zero = b.bits(elem, 0);
        if threads < 7 {
            for n in 0..7 {
                let index = b.i32(n);
                b.store(Place::Shared { array, index }, &[zero]);
            }
        } else {
            b.effect(Effect::Store { place: Place::Shared { array, index: t }, values: vec![zero], mask: Some(first) });
        }
        b.effect(Effect::Barrier { global: false });
        b.inst(Ty::Elem(elem), Inst::Atomic { place: Place::Shared { array, index: cell }, rmw: *rmw, value: x, mask: None, order });
        b.effect(Effect::Barrier { global: false });
        let result = b.load(Place::Shared { array, index: cell }, 1)[0];
        let result_at = b.binary_int(Binary::AddI, i, (n * COUNT) as i64);
        let address = b.ptr_add(out, result_at);
        let place = at(&b, address);
        b.store(place, &[result]);
    }
    kernel.body = b.finish();
    let outputs = if shared { ops.len() * COUNT } else { ops.len() * 7 };
    let start: Vec<u64> = Numbers(8).take(outputs).map(|r| if shared { 0 } else { value(elem, r) }).collect();
    let truth = |v: u64| if elem == Elem::I1 { v & 1 } else { v };
    let args = vec![buffer(elem, Numbers(4).take(COUNT).map(|r| truth(value(elem, r)))), buffer(elem, start), zeros(elem, COUNT)];
    let name = format!("atomics {elem}{}", if shared { " shared" } else { "" });
    Case { name, kernel, grid: [COUNT as u32 / threads, 1, 1], args, checks: vec![None, Some(Check::exact(elem)), Some(Check::exact(elem))] }
}

/// Exchange and compare-and-swap: each element is taken once, by whoever finds what it expects.
pub fn swap(threads: u32, elem: Elem) -> Case {
    let mut kernel = Kernel::new("swap", threads, 0);
    let (expected, desired, cas, exchanged, old) =
        (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    let (want, new) = (load(&mut b, expected, i), load(&mut b, desired, i));
    for (n, order) in ORDERS.into_iter().enumerate() {
        let element = b.binary_int(Binary::AddI, i, (n * COUNT) as i64);
        let address = b.ptr_add(cas, element);
        let place = at(&b, address);
        let before = b.inst(Ty::Elem(elem), Inst::AtomicCas { place, expected: want, desired: new, mask: None, order });
        let address = b.ptr_add(exchanged, element);
        let place = at(&b, address);
        let last = b.inst(Ty::Elem(elem), Inst::Atomic { place, rmw: Rmw::Exch, value: before, mask: None, order });
        let address = b.ptr_add(old, element);
        let place = at(&b, address);
        b.store(place, &[last]);
    }
    kernel.body = b.finish();
    let truth = move |v: u64| if elem == Elem::I1 { v & 1 } else { v & scalar::mask(elem) };
    let list = |seed, count| Numbers(seed).take(count).map(move |v| truth(v % 2));
    // NaNs and zeros are compared by their bits.
    let large = move |seed| Numbers(seed).take(COUNT * 4).map(truth);
    let args = vec![buffer(elem, list(1, COUNT)), buffer(elem, Numbers(2).take(COUNT).map(truth)), buffer(elem, list(3, COUNT * 4)), buffer(elem, large(5)), zeros(elem, COUNT * 4)];
    let check = || Some(Check::exact(elem));
    Case { name: format!("compare and swap {elem}"), kernel, grid: [COUNT as u32 / threads, 1, 1], args, checks: vec![None, None, check(), check(), check()] }
}
