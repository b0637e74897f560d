//! Every kernel of the corpus lowered to threads, for blocks of one and of many threads, with and without shuffles, against NumPy.

mod corpus;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::{Options, Target, lower, thread};

fn run(threads: u32, subgroup: u32) {
    let all = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    let target =
        Target { format: KernelFormat::C, arch: String::new(), caps: all, max_block_threads: 1024, shared_bytes: 96 << 10, subgroup, matrix: Vec::new() };
    let mut failures = Vec::new();
    for case in corpus::cases() {
        let result = lower::lower(&case.program().unwrap(), &case.entry, &target, &Options { threads, stages: 1 }).and_then(|kernel| {
            let mut args = case.args.clone();
            thread::interpret::run(&kernel, case.grid, &mut args).map(|()| args)
        });
        match result {
            Err(e) => failures.push(format!("{}: {e}", case.name)),
            Ok(args) => failures.extend(case.check(&args).err()),
        }
    }
    assert!(failures.is_empty(), "{} failures with {threads} threads, subgroups of {subgroup}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn one_thread() {
    run(1, 0);
}

#[test]
fn a_subgroup() {
    run(32, 32);
}

#[test]
fn many_threads_without_shuffles() {
    run(128, 0);
}

#[test]
fn many_threads_in_subgroups() {
    run(256, 32);
}
