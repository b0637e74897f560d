//! Kernels in C, compiled by the system's compiler and run, against the thread interpreter.

mod support;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::emit::emit;
use flagos_compiler::error::Kind;
use flagos_compiler::thread::{Kernel, Ty};
use flagos_compiler::{Elem, Target};
use support::processor::Processor;
use support::{Case, atomics, control, elementwise, judge, memory, random};

fn target() -> Target {
    let caps = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    Target { format: KernelFormat::C, arch: "native".into(), caps, max_block_threads: 1, shared_bytes: 1 << 20, subgroup: 0, matrix: Vec::new() }
}

const PLAIN: Processor = Processor { options: &[] };
/// Undefined behaviour traps.
const CHECKED: Processor = Processor { options: &["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"] };

fn check(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let compiled = emit(&case.kernel, &target()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for runner in [&PLAIN, &CHECKED] {
            judge(&case, &compiled, runner).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn arithmetic_on_every_type() {
    check(Elem::ALL.iter().flat_map(|e| elementwise::arithmetic(1, *e)));
}

#[test]
fn functions_are_the_libraries() {
    check([Elem::F32, Elem::F64].map(|e| elementwise::functions(1, e, |_| 2)));
}

#[test]
fn conversions_between_all_types() {
    check(Elem::ALL.iter().flat_map(|from| Elem::ALL.iter().filter_map(|to| elementwise::casts(1, *from, *to))));
}

#[test]
fn constants_of_every_type() {
    check(elementwise::literals(1));
}

#[test]
fn control_flow() {
    check(control::cases(1));
}

#[test]
fn accesses_of_every_width() {
    check(Elem::ALL.iter().flat_map(|e| [1, 4, 16].map(|w| memory::wide(1, *e, w))));
}

#[test]
fn parameters_pointers_and_blocks() {
    check([memory::parameters(1), memory::pointers(1), memory::blocks(1)]);
}

#[test]
fn shared_memory_small_and_large() {
    check(Elem::ALL.iter().flat_map(|e| [16, 60_000].map(|len| memory::exchange(1, *e, len))));
}

#[test]
fn atomics_on_every_type() {
    check(Elem::ALL.iter().flat_map(|e| [atomics::update(1, *e, false), atomics::update(1, *e, true), atomics::swap(1, *e)]));
}

#[test]
fn programs_at_random() {
    check((0..24).map(|seed| random::program(seed, 1)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let threads = emit(&Kernel::new("k", 32, 0), &target()).unwrap_err();
    assert!(threads.kind == Kind::Unsupported && threads.message.contains("32 threads"), "{threads}");
    let mut kernel = Kernel::new("k", 1, 0);
    kernel.var(Ty::Elem(Elem::F64), 1 << 20);
    let large = emit(&kernel, &target()).unwrap_err();
    assert!(large.kind == Kind::Limit && large.message.contains("8388608 bytes"), "{large}");
}
