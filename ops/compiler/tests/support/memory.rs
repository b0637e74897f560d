//! Loads and stores of every width and type, pointers as values, scalars as parameters, shared memory and shuffles.

use flagos_compiler::Elem;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Shuffle, Ty, Val};
use flagos_compiler::tile::{Binary, Cast, CmpI};

use super::{Case, Check, Numbers, at, buffer, load, samples, store, thread_index, zeros};

const I32: Ty = Ty::Elem(Elem::I32);

/// Each thread copies `width` neighbours, every third masked off, with values instead of what is not read; twice: with full and with least alignment.
pub fn wide(threads: u32, elem: Elem, width: u32) -> Case {
    let name = format!("wide {elem} x {width}");
    let mut kernel = Kernel::new("wide", threads, 0);
    let (input, out, masked) = (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    let start = b.binary_int(Binary::MulI, i, i64::from(width));
    let (three, one) = (b.i32(3), b.i32(1));
    let rest = b.binary(Binary::RemU, i, three);
    let mask = b.cmp_i(CmpI::Ne, rest, one);
    let bytes = elem.bytes() * width;
    let place = |b: &mut Build<'_>, p: Val, align: u32| Place::Global { pointer: b.ptr_add(p, start), align };
    let full = place(&mut b, input, bytes.min(16));
    let values = b.load(full, width as usize);
    let small = place(&mut b, input, elem.bytes());
    let other: Vec<Val> = (0..width).map(|n| b.bits(elem, u64::from(n & 1))).collect();
    let results: Vec<Val> = (0..width).map(|_| b.kernel.value(Ty::Elem(elem))).collect();
    let inst = Inst::Load { place: small, mask: Some(mask), other: Some(other), volatile: false };
    b.push(flagos_compiler::thread::Stmt::Let { results: results.clone(), inst });
    let full = place(&mut b, out, bytes.min(16));
    b.store(full, &values);
    let small = place(&mut b, masked, elem.bytes());
    b.store(small, &results);
    // Written again where the mask holds, in reverse.
    let full = place(&mut b, masked, bytes.min(16));
    let reversed: Vec<Val> = results.iter().rev().copied().collect();
    b.effect(Effect::Store { place: full, values: reversed, mask: Some(mask) });
    kernel.body = b.finish();
    let count = (64 * width) as usize;
    let values = samples(elem, count, 3).into_iter().map(|v| if elem == Elem::I1 { v & 1 } else { v });
    let args = vec![buffer(elem, values), zeros(elem, count), zeros(elem, count)];
    let check = || Some(Check::exact(elem));
    Case { name, kernel, grid: [64 / threads, 1, 1], args, checks: vec![None, check(), check()] }
}

/// A scalar parameter of every type, each stored.
pub fn parameters(threads: u32) -> Case {
    let mut kernel = Kernel::new("parameters", threads, 0);
    let scalars: Vec<Val> = Elem::ALL.iter().map(|e| kernel.param(Ty::Elem(*e))).collect();
    let outs: Vec<Val> = Elem::ALL.iter().map(|e| kernel.param(Ty::Ptr(*e))).collect();
    let never = kernel.param(Ty::Ptr(Elem::F32));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    for (scalar, out) in scalars.iter().zip(&outs) {
        store(&mut b, *out, i, 0, *scalar);
    }
    // A null pointer that is added to and masked, but never followed.
    let address = b.ptr_add(never, i);
    let no = b.int(Elem::I1, 0);
    let place = at(&b, address);
    let value = b.float(Elem::F32, 1.0);
    b.effect(Effect::Store { place, values: vec![value], mask: Some(no) });
    kernel.body = b.finish();
    let values = [1, 0x85, 0x8123, 0x8000_0001, 0x8000_0000_0000_0001, 0xb5, 0x7b, 0xc001, 0xbfc1, 0xc049_0fdb, 0xc009_21fb_5444_2d18];
    let mut args: Vec<Arg> = values.iter().map(|v| Arg::Scalar(*v)).collect();
    args.extend(Elem::ALL.iter().map(|e| zeros(*e, 32)));
    args.push(Arg::Null);
    let mut checks: Vec<Option<Check>> = vec![None; Elem::ALL.len()];
    checks.extend(Elem::ALL.iter().map(|e| Some(Check::exact(*e))));
    checks.push(None);
    Case { name: "parameters".into(), kernel, grid: [32 / threads, 1, 1], args, checks }
}

/// Pointers chosen, kept in variables, compared, turned into integers and back, moved by negative and by 64-bit amounts.
pub fn pointers(threads: u32) -> Case {
    let mut kernel = Kernel::new("pointers", threads, 0);
    let (x, y, out) = (kernel.param(Ty::Ptr(Elem::I32)), kernel.param(Ty::Ptr(Elem::I32)), kernel.param(Ty::Ptr(Elem::I32)));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    let (zero, end) = (b.i32(0), b.i32(63));
    let odd = b.cast(Cast::TruncI, Elem::I1, i);
    let chosen = b.select(odd, x, y);
    let var = b.kernel.var(Ty::Ptr(Elem::I32), 1);
    let list = b.kernel.var(Ty::Ptr(Elem::I32), 4);
    let last = b.ptr_add(chosen, end);
    b.set(var, 0, last);
    b.set(list, 2, chosen);
    let back = b.binary(Binary::SubI, zero, i);
    let (from_var, from_list) = (b.get(var, 0), b.get(list, 2));
    let reversed = load(&mut b, from_var, back);
    let long = b.cast(Cast::ExtS, Elem::I64, i);
    let forward = load(&mut b, from_list, long);
    let number = b.cast(Cast::PtrToInt, Elem::I64, chosen);
    let number = b.binary_int(Binary::AddI, number, 8);
    let again = b.inst(Ty::Ptr(Elem::I32), Inst::Cast(Cast::IntToPtr, number));
    let place = at(&b, again);
    let third = b.load(place, 1)[0];
    let two = b.i32(2);
    let same = b.ptr_add(chosen, two);
    let (a, c) = (b.cast(Cast::PtrToInt, Elem::I64, same), b.cast(Cast::PtrToInt, Elem::I64, again));
    let equal = b.cmp_i(CmpI::Eq, a, c);
    let equal = b.cast(Cast::ExtU, Elem::I32, equal);
    for (n, v) in [reversed, forward, third, equal].into_iter().enumerate() {
        store(&mut b, out, i, n * 64, v);
    }
    kernel.body = b.finish();
    let args = vec![buffer(Elem::I32, Numbers(1).take(64)), buffer(Elem::I32, Numbers(2).take(64)), zeros(Elem::I32, 256)];
    Case { name: "pointers".into(), kernel, grid: [64 / threads, 1, 1], args, checks: vec![None, None, Some(Check::exact(Elem::I32))] }
}

/// Block ids and extents of a grid of three axes, a volatile load, and a kernel named as a function of the language.
pub fn blocks(threads: u32) -> Case {
    let mut kernel = Kernel::new("exp", threads, 0);
    let out = kernel.param(Ty::Ptr(Elem::I32));
    let mut b = Build::new(&mut kernel);
    let ids = [0, 1, 2].map(|a| b.inst(I32, Inst::BlockId(a)));
    let extents = [0, 1, 2].map(|a| b.inst(I32, Inst::NumBlocks(a)));
    let thread = b.inst(I32, Inst::ThreadId);
    let plane = b.binary(Binary::MulI, ids[2], extents[1]);
    let row = b.binary(Binary::AddI, plane, ids[1]);
    let row = b.binary(Binary::MulI, row, extents[0]);
    let block = b.binary(Binary::AddI, row, ids[0]);
    let start = b.binary_int(Binary::MulI, block, i64::from(threads));
    let i = b.binary(Binary::AddI, start, thread);
    let place = Place::Global { pointer: b.ptr_add(out, i), align: 4 };
    let old = b.inst(I32, Inst::Load { place, mask: None, other: None, volatile: true });
    let depth = b.binary(Binary::MulI, extents[2], i);
    let new = b.binary(Binary::AddI, old, depth);
    b.store(place, &[new]);
    kernel.body = b.finish();
    let count = 30 * threads as usize;
    Case { name: "blocks".into(), kernel, grid: [5, 3, 2], args: vec![buffer(Elem::I32, Numbers(3).take(count))], checks: vec![Some(Check::exact(Elem::I32))] }
}

/// Threads hand values to their mirror images through shared arrays, the second time through one written twice.
pub fn exchange(threads: u32, elem: Elem, len: u32) -> Case {
    let mut kernel = Kernel::new("exchange", threads, 0);
    let (input, out) = (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let (array, large) = (kernel.shared_array(elem, threads * 2), kernel.shared_array(elem, len));
    let mut b = Build::new(&mut kernel);
    let (i, t) = (thread_index(&mut b), b.inst(I32, Inst::ThreadId));
    let x = load(&mut b, input, i);
    let twice = b.binary_int(Binary::MulI, t, 2);
    b.store(Place::Shared { array, index: twice }, &[x, x]);
    b.effect(Effect::Barrier { global: false });
    let last = b.i32(threads as i32 - 1);
    let mirror = b.binary(Binary::SubI, last, t);
    let index = b.binary_int(Binary::MulI, mirror, 2);
    let pair = b.load(Place::Shared { array, index }, 2);
    let high = b.binary_int(Binary::AddI, t, i64::from(len - threads));
    b.store(Place::Shared { array: large, index: high }, &[pair[1]]);
    b.effect(Effect::Barrier { global: true });
    let index = b.binary_int(Binary::AddI, mirror, i64::from(len - threads));
    let back = b.inst(Ty::Elem(elem), Inst::Load { place: Place::Shared { array: large, index }, mask: None, other: None, volatile: true });
    store(&mut b, out, i, 0, pair[0]);
    store(&mut b, out, i, 64, back);
    kernel.body = b.finish();
    let values = samples(elem, 64, 9).into_iter().map(|v| if elem == Elem::I1 { v & 1 } else { v });
    let args = vec![buffer(elem, values), zeros(elem, 128)];
    Case { name: format!("exchange {elem} {len}"), kernel, grid: [64 / threads, 1, 1], args, checks: vec![None, Some(Check::exact(elem))] }
}

/// Threads hand vectors to their mirror images, two groups of copies to shared memory under way at once, every third vector of the second masked
/// off. Only for targets that copy aside.
#[allow(dead_code)] // not every test that shares this file has such a target
pub fn copies(threads: u32, elem: Elem, width: u32) -> Case {
    let mut kernel = Kernel::new("copies", threads, 0);
    let (input, out) = (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let arrays = [0, 1].map(|_| kernel.shared_array(elem, threads * width));
    let mut b = Build::new(&mut kernel);
    let t = b.inst(I32, Inst::ThreadId);
    let index = b.binary_int(Binary::MulI, t, i64::from(width));
    let (three, one, last) = (b.i32(3), b.i32(1), b.i32(threads as i32 - 1));
    let rest = b.binary(Binary::RemU, t, three);
    let some = b.cmp_i(CmpI::Ne, rest, one);
    for (array, mask) in arrays.into_iter().zip([None, Some(some)]) {
        let pointer = b.ptr_add(input, index);
        b.effect(Effect::Copy { array, index, pointer, count: width, mask });
        b.effect(Effect::CopyGroup);
    }
    let mirror = b.binary(Binary::SubI, last, t);
    let from = b.binary_int(Binary::MulI, mirror, i64::from(width));
    for (n, array) in (0..).zip(arrays) {
        b.effect(Effect::CopyWait(1 - n));
        b.effect(Effect::Barrier { global: false });
        let values = b.load(Place::Shared { array, index: from }, width as usize);
        let to = b.binary_int(Binary::AddI, index, i64::from(n * threads * width));
        let pointer = b.ptr_add(out, to);
        b.store(Place::Global { pointer, align: elem.bytes() }, &values);
    }
    kernel.body = b.finish();
    let count = (threads * width) as usize;
    let values = samples(elem, count, 9).into_iter().map(|v| if elem == Elem::I1 { v & 1 } else { v });
    let args = vec![buffer(elem, values), zeros(elem, 2 * count)];
    Case { name: format!("copies {elem} x {width}"), kernel, grid: [1, 1, 1], args, checks: vec![None, Some(Check::exact(elem))] }
}

/// Every kind of shuffle; lanes beyond the subgroup's ends are left out.
pub fn shuffles(threads: u32, subgroup: u32, elem: Elem) -> Case {
    let mut kernel = Kernel::new("shuffles", threads, subgroup);
    let (input, out) = (kernel.param(Ty::Ptr(elem)), kernel.param(Ty::Ptr(elem)));
    let mut b = Build::new(&mut kernel);
    let (i, t) = (thread_index(&mut b), b.inst(I32, Inst::ThreadId));
    let x = load(&mut b, input, i);
    let lane = b.binary_int(Binary::MulI, t, 5);
    let lane = b.binary_int(Binary::And, lane, i64::from(subgroup - 1));
    let all = [(Shuffle::Xor(1), None), (Shuffle::Xor(subgroup / 2), None), (Shuffle::Up(1), None), (Shuffle::Down(2), None), (Shuffle::Lane, Some(lane))];
    for (n, (how, lane)) in all.into_iter().enumerate() {
        let value = b.inst(Ty::Elem(elem), Inst::Shuffle(how, x, lane));
        store(&mut b, out, i, n * 64, value);
    }
    b.effect(Effect::SubgroupBarrier);
    kernel.body = b.finish();
    let inside = |n: usize| {
        let lane = n as u32 % 64 % subgroup;
        !(n / 64 == 2 && lane == 0 || n / 64 == 3 && lane + 2 >= subgroup)
    };
    let check = Check { undefined: (0..320).map(|n| !inside(n)).collect(), ..Check::exact(elem) };
    let values = samples(elem, 64, 9).into_iter().map(|v| if elem == Elem::I1 { v & 1 } else { v });
    let args = vec![buffer(elem, values), zeros(elem, 320)];
    Case { name: format!("shuffles {elem}"), kernel, grid: [64 / threads, 1, 1], args, checks: vec![None, Some(check)] }
}
