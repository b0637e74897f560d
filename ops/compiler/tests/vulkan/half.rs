//! Conversions of half precision: instructions for a device that promises subnormals, special values and rounding to nearest even, integers for
//! others. Drivers in software do not promise all of it, so the code is read back; what integers give is compared elsewhere.

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Kernel, Place, Ty};
use flagos_compiler::tile::Cast;
use flagos_compiler::{Elem, Target};
use rspirv::spirv::Op;

use crate::device::compile;
use crate::first::global_id;

/// y = x, as f32 and back.
fn there_and_back(back: Cast) -> Kernel {
    let mut k = Kernel::new("half", 32, 0);
    let (x, y) = (k.param(Ty::Ptr(Elem::F16)), k.param(Ty::Ptr(Elem::F16)));
    let mut b = Build::new(&mut k);
    let i = global_id(&mut b);
    let from = Place::Global { pointer: b.ptr_add(x, i), align: 2 };
    let half = b.load(from, 1)[0];
    let single = b.cast(Cast::FpToFp, Elem::F32, half);
    let half = b.cast(back, Elem::F16, single);
    let to = Place::Global { pointer: b.ptr_add(y, i), align: 2 };
    b.store(to, &[half]);
    k.body = b.finish();
    k
}

#[test]
fn conversions_of_halves_are_instructions_where_they_are_exact() {
    let modes = ["nan16", "rte16", "denorm16"];
    for (left_out, caps16, back, conversions) in [
        (None, caps::FP16, Cast::TruncF, 2),
        // Cut toward zero by integers.
        (None, caps::FP16, Cast::FpToFpRtz, 1),
        (Some("denorm16"), caps::FP16, Cast::TruncF, 0),
        (Some("rte16"), caps::FP16, Cast::TruncF, 0),
        (None, 0, Cast::TruncF, 0),
    ] {
        let words: String = modes.iter().filter(|m| Some(**m) != left_out).flat_map(|m| ["+", *m]).collect();
        let target = Target {
            format: KernelFormat::SPIRV_VULKAN,
            arch: format!("vulkan-test+int8+int16+storage8+storage16{words}"),
            caps: caps16 | caps::INT64,
            max_block_threads: 1024,
            shared_bytes: 32 << 10,
            subgroup: 0,
            matrix: Vec::new(),
        };
        let module = rspirv::dr::load_bytes(&compile(&there_and_back(back), &target).code).unwrap_or_else(|e| panic!("{e}"));
        let count = module.all_inst_iter().filter(|i| i.class.opcode == Op::FConvert).count();
        let declared = module.execution_modes.iter().filter(|m| m.operands.last() == Some(&rspirv::dr::Operand::LiteralBit32(16))).count();
        assert_eq!((count, declared), (conversions, if conversions > 0 { 3 } else { 0 }), "{words} {back:?}");
    }
}
