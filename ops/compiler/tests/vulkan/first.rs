//! The smallest kernels: arguments, ids, a masked load and store.

use flagos_compiler::Elem;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Stmt, Ty, Val};
use flagos_compiler::tile::{Binary, CmpI};

use crate::device::{agree, buffer, device, zeros};

/// The number of this thread in the grid.
pub fn global_id(b: &mut Build<'_>) -> Val {
    let (block, thread) = (b.number(Elem::I32, Inst::BlockId(0)), b.number(Elem::I32, Inst::ThreadId));
    let threads = b.kernel.threads as i32;
    let threads = b.i32(threads);
    let base = b.binary(Binary::MulI, block, threads);
    b.binary(Binary::AddI, base, thread)
}

#[test]
fn vectors_are_added() {
    let Some(device) = device() else { return };
    let mut k = Kernel::new("add", 64, 0);
    let [x, y, out] = [0; 3].map(|_| k.param(Ty::Ptr(Elem::F32)));
    let n = k.param(Ty::Elem(Elem::I32));
    let mut b = Build::new(&mut k);
    let i = global_id(&mut b);
    let mask = b.cmp_i(CmpI::Slt, i, n);
    let mut masked = |pointer| {
        let pointer = b.ptr_add(pointer, i);
        let value = b.kernel.value(Ty::Elem(Elem::F32));
        b.push(Stmt::Let { results: vec![value], inst: Inst::Load { place: Place::Global { pointer, align: 4 }, mask: Some(mask), other: None, volatile: false } });
        value
    };
    let (a, c) = (masked(x), masked(y));
    let sum = b.binary(Binary::AddF, a, c);
    let pointer = b.ptr_add(out, i);
    b.effect(Effect::Store { place: Place::Global { pointer, align: 4 }, values: vec![sum], mask: Some(mask) });
    k.body = b.finish();
    let numbers = |by: f32| buffer(Elem::F32, (0..1000).map(|i| u64::from((i as f32 * by).to_bits())));
    let args = [numbers(0.5), numbers(0.25), zeros(Elem::F32, 1010), Arg::Scalar(1000)];
    agree(device, &k, [16, 1, 1], &args, &[Elem::F32; 4]);
}
