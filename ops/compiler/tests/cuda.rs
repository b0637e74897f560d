//! Kernels in CUDA C++: compiled for several architectures where NVRTC is, and run on a GPU against the thread interpreter where one is.
//! What is missing is counted as ignored, with the reason; `export FLAGOS_NVRTC_PATH=$(scripts/nvrtc)` installs NVRTC.

mod support;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::emit::cuda::MATRIX_SHAPES;
use flagos_compiler::emit::emit;
use flagos_compiler::error::Kind;
use flagos_compiler::{Compiled, Elem, Target};
use support::cuda::{Gpu, Nvrtc, name};
use support::harness::{Counts, Test};
use support::{Case, atomics, control, elementwise, judge, matrix, memory, random};

fn target(arch: &str) -> Target {
    let caps = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    Target { format: KernelFormat::CUDA_CPP, arch: arch.into(), caps, max_block_threads: 1024, shared_bytes: 99 << 10, subgroup: 32, matrix: Vec::new() }
}

fn emitted(case: &Case, arch: &str) -> Compiled {
    emit(&case.kernel, &target(arch)).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

/// Least architecture of a case's matrix units.
fn least(case: &Case) -> u32 {
    case.kernel.fragments.iter().flat_map(|f| MATRIX_SHAPES.iter().filter(|s| s.1 == f.shape)).map(|s| s.0).max().unwrap_or(0)
}

fn compile(nvrtc: &Nvrtc, cases: Vec<Case>) {
    for case in cases {
        for arch in ["sm_80", "sm_90a", "sm_120a"].into_iter().filter(|a| target(a).sm() >= least(&case)) {
            let compiled = emitted(&case, arch);
            let code = nvrtc.compile(&compiled, arch).unwrap_or_else(|e| panic!("{}: {e}\n{}", case.name, String::from_utf8_lossy(&compiled.code)));
            assert!(code.windows(compiled.entry.len()).any(|w| w == compiled.entry.as_bytes()), "{}: no entry point", case.name);
        }
    }
}

fn run(gpu: &Gpu, cases: Vec<Case>) {
    for case in cases.into_iter().filter(|c| gpu.arch[3..].parse().unwrap_or(0) >= least(c)) {
        judge(&case, &emitted(&case, &gpu.arch), gpu).unwrap_or_else(|e| panic!("{e}"));
    }
}

fn all(f: impl Fn(Elem) -> Vec<Case>) -> Vec<Case> {
    Elem::ALL.iter().flat_map(|e| f(*e)).collect()
}

fn arithmetic() -> Vec<Case> {
    all(|e| elementwise::arithmetic(64, e))
}

/// Units of the last place that CUDA's guide states as the greatest for these functions in f32 and f64 (tan, pow, …), with one to spare.
fn functions() -> Vec<Case> {
    [Elem::F32, Elem::F64].map(|e| elementwise::functions(64, e, |_| 5)).into()
}

fn casts() -> Vec<Case> {
    all(|from| Elem::ALL.iter().filter_map(|to| elementwise::casts(64, from, *to)).collect())
}

fn accesses() -> Vec<Case> {
    let mut cases = all(|e| [1, 2, 4, 8, 16].map(|w| memory::wide(32, e, w)).into());
    cases.extend([memory::parameters(32), memory::pointers(32), memory::blocks(8)]);
    cases.extend(control::cases(32));
    cases
}

fn sharing() -> Vec<Case> {
    let mut cases = all(|e| [65, 60 << 10].map(|bytes| memory::exchange(64, e, (bytes / e.bytes()).max(64))).into());
    cases.extend(all(|e| [16, 32].map(|s| memory::shuffles(32, s, e)).into()));
    cases.extend(all(|e| [4, 8, 16].into_iter().filter(|b| *b >= e.bytes()).map(|b| memory::copies(64, e, b / e.bytes())).collect()));
    cases
}

fn atomic() -> Vec<Case> {
    all(|e| vec![atomics::update(32, e, false), atomics::update(32, e, true), atomics::swap(32, e)])
}

fn products() -> Vec<Case> {
    MATRIX_SHAPES.iter().flat_map(|s| matrix::products(s.1)).collect()
}

const COMPILED: &[Test<Nvrtc>] = &[
    ("arithmetic compiles", |n| compile(n, arithmetic())),
    ("functions compile", |n| compile(n, functions())),
    // One of each kind: the others differ in types alone.
    ("conversions compile", |n| compile(n, casts().into_iter().step_by(5).collect())),
    ("accesses and control flow compile", |n| compile(n, accesses().into_iter().step_by(3).collect())),
    ("sharing compiles", |n| compile(n, sharing().into_iter().step_by(3).collect())),
    ("atomics compile", |n| compile(n, atomic())),
    ("matrix units compile", |n| compile(n, products().into_iter().step_by(5).collect())),
];

const RUN: &[Test<Gpu>] = &[
    ("arithmetic runs", |g| run(g, arithmetic())),
    ("functions run", |g| run(g, functions())),
    ("conversions run", |g| run(g, casts())),
    ("constants run", |g| run(g, elementwise::literals(64))),
    ("accesses and control flow run", |g| run(g, accesses())),
    ("sharing runs", |g| run(g, sharing())),
    ("atomics run", |g| run(g, atomic())),
    ("programs at random run", |g| run(g, (200..232).map(|seed| random::program(seed, 32)).collect())),
    ("matrix units run", |g| run(g, products())),
];

const EMITTED: &[Test<()>] = &[("what an architecture lacks is refused", |()| refusals())];

fn refusals() {
    let fp8 = MATRIX_SHAPES.iter().find(|s| s.0 == 89).unwrap().1;
    let case = matrix::product(fp8, [false, true], 0);
    let refused = emit(&case.kernel, &target("sm_80")).unwrap_err();
    assert!(refused.kind == Kind::Unsupported && refused.message.contains("sm_80"), "{refused}");
    let case = memory::exchange(64, Elem::F32, 30_000);
    assert_eq!(emit(&case.kernel, &target("sm_90")).unwrap_err().kind, Kind::Limit);
    let case = memory::exchange(64, Elem::F32, 20_000);
    assert_eq!(emit(&case.kernel, &target("sm_90")).unwrap().shared_bytes, case.kernel.shared_bytes());
}

fn main() {
    let mut counts = Counts::default();
    counts.run("emitter", Ok((String::new(), ())), EMITTED);
    counts.run("NVRTC", Nvrtc::open().map(|n| (format!("{}.{}", n.version.0, n.version.1), n)), COMPILED);
    counts.run("GPU", Gpu::open().and_then(|g| Ok((name(&g)?, g))), RUN);
    counts.finish();
}
