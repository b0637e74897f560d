//! Kernels in OpenCL C on the first OpenCL device, against the thread interpreter; without one the tests are counted as ignored, with the reason.

mod support;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::emit::emit;
use flagos_compiler::error::Kind;
use flagos_compiler::thread::{Kernel, Ty};
use flagos_compiler::{Elem, Target};
use support::harness::{Counts, Test};
use support::opencl::OpenCl;
use support::{Case, atomics, control, elementwise, judge, memory, random};

fn target(caps: u64) -> Target {
    Target { format: KernelFormat::OPENCL_C, arch: "any".into(), caps, max_block_threads: 256, shared_bytes: 32 << 10, subgroup: 0, matrix: Vec::new() }
}

fn check(device: &OpenCl, cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let compiled = emit(&case.kernel, &target(device.caps)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        judge(&case, &compiled, device).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Types the device has.
fn types(device: &OpenCl) -> impl Iterator<Item = Elem> {
    let double = device.caps & caps::FP64 != 0;
    Elem::ALL.iter().copied().filter(move |e| double || *e != Elem::F64)
}

/// OpenCL's limits for functions of the full profile, in units of the last place: the greatest (pow), and what the language leaves to f64's.
fn ulp(_: usize) -> u64 {
    16
}

const TESTS: &[Test<OpenCl>] = &[
    ("arithmetic on every type", |d| check(d, types(d).flat_map(|e| elementwise::arithmetic(32, e)))),
    ("functions", |d| check(d, types(d).filter(|e| e.is_float() && e.bits() >= 32).map(|e| elementwise::functions(32, e, ulp)))),
    ("conversions between all types", |d| check(d, types(d).flat_map(|from| types(d).filter_map(move |to| elementwise::casts(32, from, to))))),
    ("constants of every type", |d| check(d, elementwise::literals(32).into_iter().filter(|c| types(d).any(|e| c.name.ends_with(e.name()))))),
    ("control flow", |d| check(d, control::cases(16))),
    ("accesses of every width", |d| check(d, types(d).flat_map(|e| [1, 2, 4, 8, 16].map(|w| memory::wide(16, e, w))))),
    ("parameters, pointers and blocks", |d| check(d, [memory::parameters(32), memory::pointers(16), memory::blocks(8)])),
    ("shared memory", |d| check(d, types(d).flat_map(|e| [(32, 64), (64, 65)].map(|(t, len)| memory::exchange(t, e, len))))),
    ("atomics on every type", |d| check(d, types(d).flat_map(|e| [atomics::update(16, e, false), atomics::update(16, e, true), atomics::swap(32, e)]))),
    ("programs at random", |d| check(d, (100..108).filter(|_| d.caps & caps::FP64 != 0).map(|seed| random::program(seed, 16)))),
    ("what a device lacks is refused", |_| refusals()),
];

fn refusals() {
    let mut kernel = Kernel::new("k", 32, 0);
    kernel.param(Ty::Elem(Elem::F64));
    let double = emit(&kernel, &target(caps::INT64)).unwrap_err();
    assert!(double.kind == Kind::Unsupported && double.message.contains("f64"), "{double}");
    let mut kernel = Kernel::new("k", 32, 0);
    kernel.shared_array(Elem::F32, 10_000);
    let large = emit(&kernel, &target(0)).unwrap_err();
    assert!(large.kind == Kind::Limit && large.message.contains("40000 bytes"), "{large}");
    let case = atomics::swap(32, Elem::I64);
    let atomic = emit(&case.kernel, &target(caps::INT64)).unwrap_err();
    assert!(atomic.kind == Kind::Unsupported && atomic.message.contains("i64"), "{atomic}");
    let case = memory::shuffles(32, 16, Elem::F32);
    assert_eq!(emit(&case.kernel, &target(0)).unwrap_err().kind, Kind::Unsupported);
}

fn main() {
    let mut counts = Counts::default();
    counts.run("OpenCL", OpenCl::open().map(|d| (format!("{}, capabilities {:#x}", d.name, d.caps), d)), TESTS);
    counts.finish();
}
