//! Every offered operator on every case of the smoke and quick tiers, at every instruction set of the machine, judged by the catalogue.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flagos_backend_cpu::kernel::Kernel;
use flagos_backend_cpu::ops;
use flagos_backend_cpu::pool::Pool;
use flagos_backend_cpu::target::{Isa, Target};
use flagos_catalog::{Array, Cases, Instance, Memory, Operator, Reference, Tier, assignments, for_each_offset, numerics, operators};

/// What gaps of outputs hold before a run.
const GAP: u8 = 0x5a;

fn targets() -> Vec<Target> {
    let best = Target::host().isa;
    [Isa::Avx512, Isa::Avx2, Isa::Baseline].into_iter().filter(|isa| *isa <= best).map(|isa| Target { isa, threads: 4 }).collect()
}

fn pools() -> [Pool; 2] {
    [Pool::new(1), Pool::new(4)]
}

fn run(kernel: &dyn Kernel, addresses: &[*mut u8], pool: &Pool) {
    let mut workspace = vec![0u8; kernel.workspace_bytes() + 64];
    let aligned = workspace.as_mut_ptr().wrapping_add(workspace.as_ptr().align_offset(64));
    // SAFETY: the addresses are of memory laid out as the planned call says.
    unsafe { kernel.run(addresses, aligned, pool) }.unwrap();
}

fn address(m: &mut Memory) -> *mut u8 {
    if m.tensor.is_none() { core::ptr::null_mut() } else { m.bytes.as_mut_ptr().wrapping_add(m.origin) }
}

/// Outputs' memory after a run.
fn outputs(instance: &Instance, kernel: &dyn Kernel, pool: &Pool) -> Vec<Memory> {
    let mut inputs = instance.inputs.clone();
    let mut outputs = instance.outputs.clone();
    outputs.iter_mut().for_each(|m| m.bytes.fill(GAP));
    let addresses: Vec<*mut u8> = inputs.iter_mut().chain(&mut outputs).map(address).collect();
    run(kernel, &addresses, pool);
    outputs
}

/// Says where a gap was written to.
fn broken_gap(m: &Memory) -> Option<usize> {
    let mut free = vec![true; m.bytes.len()];
    let width = m.tensor.dtype.bytes();
    for_each_offset(&m.tensor, |offset| {
        let at = (m.origin as i64 + offset * width as i64) as usize;
        free[at..at + width].fill(false);
    });
    (0..free.len()).find(|i| free[*i] && m.bytes[*i] != GAP)
}

fn judge(operator: &Operator, references: &[Reference], outputs: &[Memory]) -> Result<(), String> {
    for (r, m) in references.iter().zip(outputs) {
        let got = Array::decode(&m.tensor, &m.bytes, m.origin).map_err(|e| e.to_string())?;
        let verdict = numerics::judge(operator.numerics, m.tensor.dtype, r, &got);
        if !verdict.ok {
            return Err(format!("{verdict:?}"));
        }
        if let Some(at) = broken_gap(m) {
            return Err(format!("byte {at} between the elements was written"));
        }
    }
    Ok(())
}

/// The output computed in input 0's memory equals the one computed beside it.
fn in_place(instance: &Instance, kernel: &dyn Kernel, pool: &Pool, beside: &Memory) -> Result<(), String> {
    let (Some(x), y) = (instance.inputs.first(), &instance.outputs[0]) else { return Ok(()) };
    let same = x.tensor.dtype == y.tensor.dtype && x.tensor.shape() == y.tensor.shape() && x.tensor.stride() == y.tensor.stride() && x.origin == y.origin;
    if !instance.call.operator.in_place || !same {
        return Ok(());
    }
    let (mut inputs, mut others) = (instance.inputs.clone(), instance.outputs[1..].to_vec());
    let mut addresses: Vec<*mut u8> = inputs.iter_mut().map(address).collect();
    addresses.push(addresses[0]);
    addresses.extend(others.iter_mut().map(address));
    run(kernel, &addresses, pool);
    let values = |m: &Memory| Array::decode(&m.tensor, &m.bytes, m.origin).map(|a| a.floats().iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    let (got, want) = (values(&Memory { tensor: y.tensor, ..inputs.swap_remove(0) }).unwrap(), values(beside).unwrap());
    match got.iter().zip(&want).position(|(g, w)| g != w) {
        Some(at) => Err(format!("in place, element {at} differs: {:e} is {:e}", f64::from_bits(want[at]), f64::from_bits(got[at]))),
        None => Ok(()),
    }
}

fn check(operator: &'static Operator, targets: &[Target], pools: &[Pool]) -> Vec<String> {
    let mut faults = Vec::new();
    for types in assignments(operator) {
        for case in Cases::of(operator).iter().filter(|c| c.tier <= Tier::Quick) {
            let instance = case.instance(operator, &types, 1).unwrap_or_else(|e| panic!("{}/{}: {e}", operator.name, case.name));
            let arrays: Vec<Array> = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin).unwrap()).collect();
            let references = (operator.reference)(&instance.call, &arrays).unwrap();
            for target in targets {
                let kernel = ops::plan(&instance.call, target).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                let results: Vec<Vec<Memory>> = pools.iter().map(|pool| outputs(&instance, kernel.as_ref(), pool)).collect();
                let mut verdict = judge(operator, &references, &results[0]);
                if kernel.deterministic() && results.iter().any(|r| r.iter().zip(&results[0]).any(|(a, b)| a.bytes != b.bytes)) {
                    verdict = verdict.and(Err("depends on the number of threads".into()));
                }
                verdict = verdict.and_then(|()| in_place(&instance, kernel.as_ref(), &pools[1], &results[0][0]));
                if let Err(fault) = verdict {
                    faults.push(format!("{} [{}]: {fault}", instance.id, kernel.name()));
                }
            }
        }
    }
    faults
}

#[test]
fn every_operator_passes_smoke_and_quick_cases() {
    let offered: Vec<_> = operators().iter().copied().filter(|o| ops::offers(o.id)).collect();
    let only = std::env::var("OPERATOR").ok();
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                let (targets, pools) = (targets(), pools());
                while let Some(operator) = offered.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if only.as_deref().is_none_or(|name| name == operator.name) {
                        faults.lock().unwrap().extend(check(operator, &targets, &pools));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
