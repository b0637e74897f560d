//! Every smoke and quick case of the dense operators, judged by the catalogue, on one thread and on four, by each instruction set.

use flagos_backend_cpu::ops;
use flagos_backend_cpu::pool::Pool;
use flagos_backend_cpu::target::{Isa, Target};
use flagos_catalog::{Array, Cases, Instance, Operator, Reference, Tier, assignments, numerics, operators};

const FAMILIES: &[&str] = &["matmul", "conv", "attention", "norm", "scan", "index", "sort", "create", "random"];

fn targets() -> Vec<Target> {
    let host = Target::host();
    [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= host.isa).map(|isa| Target { isa, threads: 4 }).collect()
}

/// Runs an instance; returns the outputs' bytes, with canaries checked around workspace and between output elements.
fn run(instance: &Instance, target: &Target, pool: &Pool) -> Vec<Vec<u8>> {
    let kernel = ops::plan(&instance.call, target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
    let mut inputs: Vec<Vec<u8>> = instance.inputs.iter().map(|m| m.bytes.clone()).collect();
    let mut outputs: Vec<Vec<u8>> = instance.outputs.iter().map(|m| vec![0xa5; m.bytes.len()]).collect();
    let mut addresses = Vec::new();
    for (m, bytes) in instance.inputs.iter().zip(&mut inputs).chain(instance.outputs.iter().zip(&mut outputs)) {
        addresses.push(if m.tensor.is_none() { core::ptr::null_mut() } else { bytes.as_mut_ptr().wrapping_add(m.origin) });
    }
    let bytes = kernel.workspace_bytes();
    let mut space = vec![0x5au8; bytes + 192];
    let start = space.as_ptr().align_offset(64) + 64;
    // SAFETY: operands lie within their buffers, the workspace has the size asked for.
    unsafe { kernel.run(&addresses, space.as_mut_ptr().wrapping_add(start), pool) }.unwrap_or_else(|e| panic!("{}: {e}", instance.id));
    let outside = space[..start].iter().chain(&space[start + bytes..]);
    assert!(outside.copied().all(|b| b == 0x5a), "{} wrote outside of its workspace", instance.id);
    for (m, (input, before)) in instance.inputs.iter().zip(inputs.iter().zip(instance.inputs.iter().map(|m| &m.bytes))) {
        assert!(input == before, "{} wrote to an input ({:?})", instance.id, m.tensor);
    }
    for (m, output) in instance.outputs.iter().zip(&outputs) {
        let mut untouched = vec![true; output.len()];
        let width = m.tensor.dtype.bytes();
        each_offset(&m.tensor, |o| untouched[(m.origin as i64 + o * width as i64) as usize..][..width].fill(false));
        assert!(untouched.iter().zip(output).all(|(u, b)| !u || *b == 0xa5), "{} wrote between its output's elements", instance.id);
    }
    outputs
}

fn each_offset(t: &flagos_backend_api::Tensor, mut visit: impl FnMut(i64)) {
    for flat in 0..t.elems() {
        let (mut rest, mut offset) = (flat, 0);
        for d in (0..t.rank as usize).rev() {
            offset += rest % t.shape[d] * t.stride[d];
            rest /= t.shape[d];
        }
        visit(offset);
    }
}

fn judge(instance: &Instance, references: &[Reference], outputs: &[Vec<u8>], how: &str) {
    for (i, ((reference, m), bytes)) in references.iter().zip(&instance.outputs).zip(outputs).enumerate() {
        let got = Array::decode(&m.tensor, bytes, m.origin).unwrap();
        let verdict = numerics::judge(instance.call.operator.numerics, m.tensor.dtype, reference, &got);
        assert!(verdict.ok, "{} output {i} ({how}): {verdict:?}", instance.id);
    }
}

fn check(operator: &'static Operator, pools: &[Pool; 2]) -> usize {
    let mut count = 0;
    for types in assignments(operator) {
        for case in Cases::of(operator).iter().filter(|c| c.tier <= Tier::Quick) {
            let instance = case.instance(operator, &types, 1).unwrap_or_else(|e| panic!("{}/{}: {e}", operator.name, case.name));
            instance.call.check().unwrap_or_else(|e| panic!("{}: {e}", instance.id));
            let arrays: Vec<Array> = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin).unwrap()).collect();
            let references = (operator.reference)(&instance.call, &arrays).unwrap();
            for target in targets() {
                let one = run(&instance, &target, &pools[0]);
                judge(&instance, &references, &one, &format!("{:?}", target.isa));
                assert!(one == run(&instance, &target, &pools[1]), "{}: one thread and four differ ({:?})", instance.id, target.isa);
            }
            count += 1;
        }
    }
    count
}

#[test]
fn cases_of_the_dense_operators_pass() {
    let pools = [Pool::new(1), Pool::new(4)];
    let wanted = std::env::var("DENSE").unwrap_or_default();
    let mut seen = 0;
    for operator in operators().iter().filter(|o| FAMILIES.contains(&o.family) && o.name.contains(&wanted)) {
        assert!(ops::offers(operator.id), "{} is not offered", operator.name);
        seen += check(operator, &pools);
    }
    assert!(seen > 0);
}

/// Numbers for a launch, in the compute type.
fn scalar(desc: &flagos_backend_api::BlasDesc, value: Option<num_complex::Complex<f64>>) -> Option<Vec<u8>> {
    value.map(|v| flagos_catalog::blas::scalar_bytes(desc, v))
}

#[test]
fn cases_of_blas_pass() {
    use flagos_backend_cpu::blas;
    let pools = [Pool::new(1), Pool::new(4)];
    let wanted = std::env::var("DENSE").unwrap_or_default();
    for case in flagos_catalog::blas::cases().iter().filter(|c| c.tier <= Tier::Quick && c.id().contains(&wanted)) {
        let instance = case.instance(1).unwrap();
        let references = instance.reference().unwrap();
        let (alpha, beta) = (scalar(&case.desc, case.scalars.alpha), scalar(&case.desc, case.scalars.beta));
        for target in targets() {
            let kernel = blas::plan(&case.desc, &target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
            let run = |pool: &Pool| {
                let mut memory: Vec<Vec<u8>> = instance.operands.iter().map(|m| m.bytes.clone()).collect();
                let addresses: Vec<*mut u8> = memory.iter_mut().map(|b| b.as_mut_ptr()).collect();
                let bytes = kernel.workspace_bytes();
                let mut space = vec![0x5au8; bytes + 192];
                let start = space.as_ptr().align_offset(64) + 64;
                let (alpha, beta) = (alpha.as_ref().map(|v| v.as_ptr()), beta.as_ref().map(|v| v.as_ptr()));
                // SAFETY: operands lie within their memory, the workspace has the size asked for.
                unsafe { kernel.run(&addresses, alpha, beta, space.as_mut_ptr().wrapping_add(start), pool) }.unwrap();
                assert!(space[..start].iter().chain(&space[start + bytes..]).all(|b| *b == 0x5a), "{} wrote outside of its workspace", instance.id);
                memory
            };
            let one = run(&pools[0]);
            for (i, (m, bytes)) in instance.operands.iter().zip(&one).enumerate() {
                let Some((_, reference)) = references.iter().find(|(at, _)| *at == i) else {
                    assert!(bytes == &m.bytes, "{} wrote to input {i}", instance.id);
                    continue;
                };
                let got = Array::decode(&m.tensor, bytes, m.origin).unwrap();
                let verdict = numerics::judge(flagos_catalog::blas::NUMERICS, m.tensor.dtype, reference, &got);
                assert!(verdict.ok, "{} ({:?}): {verdict:?}", instance.id, target.isa);
                let mut untouched = vec![true; bytes.len()];
                let width = m.tensor.dtype.bytes();
                each_offset(&m.tensor, |o| untouched[(m.origin as i64 + o * width as i64) as usize..][..width].fill(false));
                assert!(untouched.iter().zip(bytes).all(|(u, b)| !u || *b == 0xff), "{} wrote between elements", instance.id);
            }
            assert!(one == run(&pools[1]), "{}: one thread and four differ ({:?})", instance.id, target.isa);
        }
    }
}

#[test]
fn cases_of_fft_pass() {
    use flagos_backend_cpu::fft;
    let pools = [Pool::new(1), Pool::new(4)];
    let wanted = std::env::var("DENSE").unwrap_or_default();
    let target = Target { threads: 4, ..Target::host().clone() };
    // The method for long transforms has two cases of its own among the full ones.
    let long = |name: &str| name == "n262144" || name == "n360360";
    for case in flagos_catalog::fft::cases().iter().filter(|c| (c.tier <= Tier::Quick || long(&c.name)) && c.id().contains(&wanted)) {
        let instance = case.instance(1).unwrap();
        let reference = instance.reference().unwrap();
        let kernel = fft::plan(&case.desc, &target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
        let run = |pool: &Pool| {
            let mut memory: Vec<Vec<u8>> = instance.operands.iter().map(|m| m.bytes.clone()).collect();
            let mut addresses: Vec<*mut u8> = memory.iter_mut().map(|b| b.as_mut_ptr()).collect();
            if case.in_place {
                addresses[1] = addresses[0];
            }
            let bytes = kernel.workspace_bytes();
            let mut space = vec![0x5au8; bytes + 192];
            let start = space.as_ptr().align_offset(64) + 64;
            // SAFETY: operands lie within their memory, the workspace has the size asked for.
            unsafe { kernel.run(&addresses, space.as_mut_ptr().wrapping_add(start), pool) }.unwrap();
            assert!(space[..start].iter().chain(&space[start + bytes..]).all(|b| *b == 0x5a), "{} wrote outside of its workspace", instance.id);
            assert!(case.in_place || memory[0] == instance.operands[0].bytes, "{} wrote to its input", instance.id);
            memory.swap_remove(if case.in_place { 0 } else { 1 })
        };
        let one = run(&pools[0]);
        let m = &instance.operands[1];
        let verdict = numerics::judge(flagos_catalog::fft::NUMERICS, m.tensor.dtype, &reference, &Array::decode(&m.tensor, &one, m.origin).unwrap());
        assert!(verdict.ok, "{}: {verdict:?}", instance.id);
        if !case.in_place {
            let mut untouched = vec![true; one.len()];
            let width = m.tensor.dtype.bytes();
            each_offset(&m.tensor, |o| untouched[(m.origin as i64 + o * width as i64) as usize..][..width].fill(false));
            assert!(untouched.iter().zip(&one).all(|(u, b)| !u || *b == 0xff), "{} wrote between elements", instance.id);
        }
        assert!(one == run(&pools[1]), "{}: one thread and four differ", instance.id);
    }
}
