//! Loads and stores of every type and width, masks, variables, shared memory, long argument lists.

use flagos_compiler::run::Arg;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Stmt, Ty, Val};
use flagos_compiler::tile::{Binary, Cast, CmpI};
use flagos_compiler::{Elem, Target};

use crate::device::{agree, buffer, device, zeros};
use crate::elementwise::{random, values};
use crate::first::global_id;
use crate::support::Backend;

/// Devices to pretend: as it is, and without narrow types in memory.
fn devices() -> Vec<(&'static Backend, Target)> {
    let Some((backend, target)) = device() else { return Vec::new() };
    let words = target.arch.split('+').filter(|w| !w.starts_with("int") && !w.starts_with("storage"));
    let plain = Target { arch: words.collect::<Vec<_>>().join("+"), caps: target.caps & !flagos_backend_api::caps::FP16, ..target.clone() };
    vec![(backend, target.clone()), (backend, plain)]
}

/// Copies `width` elements a thread from one buffer to another, a step further on the way.
fn copy(elem: Elem, width: usize, align: u32, masked: bool) -> Kernel {
    let mut k = Kernel::new(&format!("copy_{elem}_{width}_{align}"), 32, 0);
    let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(elem)));
    let mut b = Build::new(&mut k);
    let i = global_id(&mut b);
    let first = b.binary_int(Binary::MulI, i, width as i64);
    let (from, to) = (b.ptr_add(x, first), b.ptr_add(y, first));
    let third = b.binary_int(Binary::RemU, i, 3);
    let zero = b.i32(0);
    let mask = b.cmp_i(CmpI::Ne, third, zero);
    let mask = masked.then_some(mask);
    let other = masked.then(|| (0..width).map(|j| b.number(elem, Inst::Const(values(elem)[j % 2]))).collect::<Vec<Val>>());
    let results: Vec<Val> = (0..width).map(|_| b.kernel.value(Ty::Elem(elem))).collect();
    b.push(Stmt::Let { results: results.clone(), inst: Inst::Load { place: Place::Global { pointer: from, align }, mask, other: other.clone(), volatile: width == 2 } });
    // What was not read is written only where it is defined.
    b.effect(Effect::Store { place: Place::Global { pointer: to, align }, values: results.clone(), mask: None });
    let turned: Vec<Val> = results.iter().rev().copied().collect();
    b.effect(Effect::Store { place: Place::Global { pointer: to, align }, values: turned, mask });
    k.body = b.finish();
    k
}

#[test]
fn every_type_and_width_is_read_and_written() {
    for (backend, target) in devices() {
        let device = (Backend { table: backend.table, device: backend.device }, target);
        for &elem in Elem::ALL {
            let bits = random(5).map(|v| if elem == Elem::I1 { v & 1 } else { v });
            let x = buffer(elem, bits.take(64 * 16));
            for width in [1, 2, 4, 8, 16] {
                let full = (width as u32 * elem.bytes()).min(16);
                for align in [elem.bytes(), full] {
                    for masked in [false, true] {
                        agree(&device, &copy(elem, width, align, masked), [2, 1, 1], &[x.clone(), zeros(elem, 64 * 16)], &[elem; 2]);
                    }
                }
            }
        }
    }
}

#[test]
fn neighbours_written_by_other_threads_stay() {
    for (backend, target) in devices() {
        let device = (Backend { table: backend.table, device: backend.device }, target);
        for elem in [Elem::I1, Elem::I8, Elem::F8E5M2, Elem::I16, Elem::BF16] {
            // Even threads write only: odd bytes keep what they held.
            let mut k = Kernel::new("neighbours", 64, 0);
            let y = k.param(Ty::Ptr(elem));
            let mut b = Build::new(&mut k);
            let i = global_id(&mut b);
            let odd = b.binary_int(Binary::And, i, 1);
            let zero = b.i32(0);
            let even = b.cmp_i(CmpI::Eq, odd, zero);
            let pointer = b.ptr_add(y, i);
            let value = b.number(elem, Inst::Const(1));
            b.effect(Effect::Store { place: Place::Global { pointer, align: elem.bytes() }, values: vec![value], mask: Some(even) });
            k.body = b.finish();
            let seven = buffer(elem, core::iter::repeat_n(if elem == Elem::I1 { 0 } else { 0x37 }, 256));
            agree(&device, &k, [4, 1, 1], &[seven], &[elem]);
        }
    }
}

#[test]
fn shared_arrays_of_every_type() {
    for (backend, target) in devices() {
        let device = (Backend { table: backend.table, device: backend.device }, target);
        for &elem in Elem::ALL {
            // Four elements a thread into shared memory, and those of the thread opposite out of it, several times.
            let mut k = Kernel::new(&format!("shared_{elem}"), 64, 0);
            let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(elem)));
            let array = k.shared_array(elem, 256);
            let mut b = Build::new(&mut k);
            let (i, t) = (global_id(&mut b), b.number(Elem::I32, Inst::ThreadId));
            let first = b.binary_int(Binary::MulI, i, 4);
            let (from, to) = (b.ptr_add(x, first), b.ptr_add(y, first));
            let loaded = b.load(Place::Global { pointer: from, align: elem.bytes() }, 4);
            let own = b.binary_int(Binary::MulI, t, 4);
            let last = b.i32(252);
            let other = b.binary(Binary::SubI, last, own);
            b.store(Place::Shared { array, index: own }, &loaded);
            b.effect(Effect::Barrier { global: false });
            let seen = b.load(Place::Shared { array, index: other }, 4);
            b.effect(Effect::Barrier { global: true });
            b.store(Place::Shared { array, index: own }, &seen[..2]);
            b.effect(Effect::Barrier { global: false });
            let again = b.load(Place::Shared { array, index: other }, 4);
            b.store(Place::Global { pointer: to, align: elem.bytes() }, &again);
            k.body = b.finish();
            let bits = random(11).map(|v| if elem == Elem::I1 { v & 1 } else { v });
            agree(&device, &k, [3, 1, 1], &[buffer(elem, bits.take(768)), zeros(elem, 768)], &[elem; 2]);
        }
    }
}

#[test]
fn variables_are_indexed_at_run_time() {
    let Some(device) = device() else { return };
    for &elem in Elem::ALL {
        let mut k = Kernel::new(&format!("variable_{elem}"), 32, 0);
        let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(elem)));
        let (array, one, pointers) = (k.var(Ty::Elem(elem), 5), k.var(Ty::Elem(elem), 1), k.var(Ty::Ptr(elem), 2));
        let mut b = Build::new(&mut k);
        let i = global_id(&mut b);
        let first = b.binary_int(Binary::MulI, i, 4);
        let (from, to) = (b.ptr_add(x, first), b.ptr_add(y, first));
        b.set(pointers, 0, from);
        b.set(pointers, 1, to);
        let (from, to) = (b.get(pointers, 0), b.get(pointers, 1));
        let loaded = b.load(Place::Global { pointer: from, align: elem.bytes() }, 4);
        for (j, v) in loaded.iter().enumerate() {
            b.set(array, j as u32, *v);
        }
        let at = b.binary_int(Binary::RemU, i, 4);
        let picked = b.inst(Ty::Elem(elem), Inst::GetAt(array, at));
        b.set(one, 0, picked);
        let picked = b.get(one, 0);
        let next = b.binary_int(Binary::AddI, at, 1);
        b.effect(Effect::SetAt(array, next, picked));
        let out: Vec<Val> = (0..4).map(|j| b.get(array, j)).collect();
        b.store(Place::Global { pointer: to, align: elem.bytes() }, &out);
        k.body = b.finish();
        let bits = random(13).map(|v| if elem == Elem::I1 { v & 1 } else { v });
        agree(device, &k, [2, 1, 1], &[buffer(elem, bits.take(256)), zeros(elem, 256)], &[elem; 2]);
    }
}

#[test]
fn scalars_of_every_type_in_short_and_long_lists() {
    let Some(device) = device() else { return };
    for repeat in [1, 3] {
        let mut k = Kernel::new("scalars", 1, 0);
        let outs: Vec<Val> = Elem::ALL.iter().map(|e| k.param(Ty::Ptr(*e))).collect();
        let ins: Vec<(Elem, Val)> = (0..repeat).flat_map(|_| &Elem::ALL[..5.min(16 * repeat)]).map(|e| (*e, k.param(Ty::Elem(*e)))).collect();
        let mut b = Build::new(&mut k);
        for (n, (elem, value)) in ins.iter().enumerate() {
            let at = b.i32(n as i32 / 5);
            let out = outs[Elem::ALL.iter().position(|e| e == elem).unwrap()];
            let pointer = b.ptr_add(out, at);
            b.store(Place::Global { pointer, align: elem.bytes() }, &[*value]);
        }
        k.body = b.finish();
        let bits = |e: Elem, n: u64| (0xfedc_ba98_7654_3210u64.rotate_left(n as u32 * 4) | 1) & if e.bits() == 64 { u64::MAX } else { (1 << e.bits()) - 1 };
        let mut args: Vec<Arg> = Elem::ALL.iter().map(|e| zeros(*e, 16)).collect();
        args.extend(ins.iter().zip(0..).map(|((e, _), n)| Arg::Scalar(bits(*e, n))));
        let elems: Vec<Elem> = k.params.iter().map(|p| match p.ty { Ty::Elem(e) | Ty::Ptr(e) => e, Ty::Fragment(_) => Elem::I8 }).collect();
        agree(device, &k, [1, 1, 1], &args, &elems);
    }
}

#[test]
fn floats_arrive_as_scalars_and_null_as_zero() {
    let Some(device) = device() else { return };
    let mut k = Kernel::new("floats", 1, 0);
    let kinds = [Elem::F8E4M3, Elem::F8E5M2, Elem::F16, Elem::BF16, Elem::F32, Elem::F64];
    let outs: Vec<Val> = kinds.iter().map(|e| k.param(Ty::Ptr(*e))).collect();
    let ins: Vec<Val> = kinds.iter().map(|e| k.param(Ty::Elem(*e))).collect();
    let (null, address) = (k.param(Ty::Ptr(Elem::F32)), k.param(Ty::Ptr(Elem::I64)));
    let mut b = Build::new(&mut k);
    for ((out, value), e) in outs.iter().zip(&ins).zip(kinds) {
        b.store(Place::Global { pointer: *out, align: e.bytes() }, &[*value]);
    }
    let bits = b.cast(Cast::PtrToInt, Elem::I64, null);
    b.store(Place::Global { pointer: address, align: 8 }, &[bits]);
    k.body = b.finish();
    let mut args: Vec<Arg> = kinds.iter().map(|e| zeros(*e, 1)).collect();
    args.extend([0x77, 0x7b, 0x3555, 0xbf9d, 0x4049_0fdb, 0x4009_21fb_5444_2d18].map(Arg::Scalar));
    args.extend([Arg::Null, buffer(Elem::I64, [u64::MAX])]);
    let elems: Vec<Elem> = k.params.iter().map(|p| match p.ty { Ty::Elem(e) | Ty::Ptr(e) => e, Ty::Fragment(_) => Elem::I8 }).collect();
    agree(device, &k, [1, 1, 1], &args, &elems);
}

#[test]
fn offsets_of_pointers_are_signed() {
    let Some(device) = device() else { return };
    for offset in [Elem::I32, Elem::I64] {
        let mut k = Kernel::new("offsets", 32, 0);
        let [x, y] = [0; 2].map(|_| k.param(Ty::Ptr(Elem::I16)));
        let mut b = Build::new(&mut k);
        let i = global_id(&mut b);
        let (zero, end) = (b.i32(0), b.int(offset, 31));
        let back = b.binary(Binary::SubI, zero, i);
        let back = if offset == Elem::I64 { b.cast(Cast::ExtS, offset, back) } else { back };
        let from = b.ptr_add(x, end);
        let from = b.ptr_add(from, back);
        let to = b.ptr_add(y, i);
        let loaded = b.load(Place::Global { pointer: from, align: 2 }, 1);
        b.store(Place::Global { pointer: to, align: 2 }, &loaded);
        k.body = b.finish();
        agree(device, &k, [1, 1, 1], &[buffer(Elem::I16, 100..132), zeros(Elem::I16, 32)], &[Elem::I16; 2]);
    }
}
