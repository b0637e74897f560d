//! The radix sort through the operator table, against a sort on the processor; and how long a long one takes.

use core::cmp::Ordering;
use std::time::Instant;

use flagos_backend_api as abi;
use flagos_backend_api::{DType, Result, Tensor};
use flagos_backend_cuda::CudaDevice;
use flagos_catalog::sort::{SORT, compare};
use flagos_catalog::{AttrValue, Call};
use half::f16;
use serde_json::{Value, json};

use crate::{Table, ensure, median, sized, slot};

/// Bits of elements: few different ones in places, all kinds in others, and what is special.
fn contents(t: DType, n: usize) -> Vec<u64> {
    let (mut state, bits) = (1u64, u32::from(t.bits));
    let infinity = [0x7c00, 0x7f80_0000, 0x7ff0_0000_0000_0000][bits.ilog2() as usize - 4];
    let sign = 1u64 << (bits - 1);
    let special = [0, sign, infinity, infinity | sign, infinity + 1, infinity | sign | 1, sign - 1, 1];
    let any = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 11;
        match word % 5 {
            0 => special[(word >> 3) as usize % special.len()],
            1 => word >> 3 & 3,
            _ => word.rotate_left(19) & u64::MAX >> (64 - bits),
        }
    };
    (0..n).map(any).collect()
}

fn order(t: DType, a: u64, b: u64) -> Ordering {
    let number = |bits: u64| match t.bits {
        16 => f16::from_bits(bits as u16).to_f64(),
        32 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    };
    if t == DType::I32 { (a as i32).cmp(&(b as i32)) } else { compare(number(a), number(b)) }
}

struct Sorting {
    plan: *mut abi::Plan,
    buffers: [*mut abi::Buffer; 3],
}

fn planned(t: &Table, dtype: DType, descending: bool, shape: &[i64], bits: &[u64]) -> Result<Sorting> {
    let (x, indices) = (Tensor::contiguous(dtype, shape), Tensor::contiguous(DType::I64, shape));
    let attributes = [("dim", AttrValue::Int(-1)), ("descending", AttrValue::Int(descending.into()))];
    let call = Call::new(SORT, &[x], &[x, indices], &attributes)?;
    let mut plan = core::ptr::null_mut();
    call.with_abi(|op| slot!(t.0.op, plan, t.1, op, core::ptr::null(), &mut plan))?;
    let (n, width) = (bits.len() as u64, dtype.bytes());
    let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes().into_iter().take(width)).collect();
    let buffers = [t.buffer(n * width as u64, &[])?, t.buffer(n * width as u64, &[])?, t.buffer(8 * n, &[])?];
    slot!(t.0.memory, write, t.2, buffers[0], 0, bytes.as_ptr().cast(), bytes.len() as u64)?;
    slot!(t.0.stream, sync, t.2)?;
    Ok(Sorting { plan, buffers })
}

fn check(t: &Table, dtype: DType, descending: bool, lines: usize, length: usize) -> Result<()> {
    let x = contents(dtype, lines * length);
    let sorting = planned(t, dtype, descending, &[lines as i64, length as i64], &x)?;
    // Several times over: what one leaves behind must not disturb the next.
    t.run(plans(t), sorting.plan, &sorting.buffers)?;
    let width = dtype.bytes();
    let (mut values, mut indices) = (vec![0u8; x.len() * width], vec![0i64; x.len()]);
    slot!(t.0.memory, read, t.2, sorting.buffers[1], 0, values.as_mut_ptr().cast(), values.len() as u64)?;
    slot!(t.0.memory, read, t.2, sorting.buffers[2], 0, indices.as_mut_ptr().cast(), 8 * indices.len() as u64)?;
    slot!(t.0.stream, sync, t.2)?;
    for (line, own) in x.chunks(length).enumerate() {
        let mut want: Vec<usize> = (0..length).collect();
        want.sort_by(|a, b| if descending { order(dtype, own[*b], own[*a]) } else { order(dtype, own[*a], own[*b]) });
        for (place, source) in want.into_iter().enumerate() {
            let at = line * length + place;
            let value = values[at * width..][..width].iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
            let holds = indices[at] == source as i64 && value == own[source];
            ensure(holds, || format!("{} of {lines} x {length}, descending {descending}: line {line}, place {place}: {} instead of {source}", dtype.name(), indices[at]))?;
        }
    }
    slot!(plans(t), destroy, sorting.plan)?;
    sorting.buffers.into_iter().try_for_each(|b| slot!(t.0.memory, free, b))
}

fn plans(t: &Table) -> *const abi::PlanTable {
    // SAFETY: tables live as long as the process.
    unsafe { (*t.0.op).plans }
}

/// Milliseconds of a sort of 64 Mi floats.
fn long(t: &Table) -> Result<f64> {
    let n = 64 << 20;
    let sorting = planned(t, DType::F32, false, &[n as i64], &contents(DType::F32, n))?;
    let mut info = sized!(abi::PlanInfo);
    slot!(plans(t), info, sorting.plan, &mut info)?;
    let workspace = abi::Binding { buffer: t.buffer(info.workspace_bytes, &[])?, byte_offset: 0 };
    let bindings = sorting.buffers.map(|buffer| abi::Binding { buffer, byte_offset: 0 });
    let launch = abi::Launch { bindings: bindings.as_ptr(), n_bindings: 3, workspace, ..sized!(abi::Launch) };
    let mut times = Vec::new();
    for _ in 0..15 {
        let started = Instant::now();
        slot!(plans(t), launch, sorting.plan, t.2, &launch)?;
        slot!(t.0.stream, sync, t.2)?;
        times.push(started.elapsed().as_nanos());
    }
    Ok(median(times) as f64 / 1e6)
}

/// Both directions, types of each width, lines that fill their tiles and lines that do not.
pub fn sort(_: &CudaDevice) -> Result<Value> {
    let t = Table::open()?;
    let started = Instant::now();
    for (dtype, lines, length) in [(DType::F32, 3, 100_003), (DType::F32, 1, 1 << 21), (DType::F16, 2, 16 << 10), (DType::I32, 5, 53_760), (DType::F64, 2, 300_001)] {
        for descending in [false, true] {
            check(&t, dtype, descending, lines, length)?;
        }
    }
    let checked = started.elapsed().as_secs_f64();
    let refused = planned(&t, DType::F32, false, &[4, 100], &[0; 400]).err().map(|e| e.code);
    ensure(refused == Some(abi::Code::UNIMPLEMENTED), || format!("short lines answer {refused:?}"))?;
    Ok(json!({ "checked_seconds": checked, "ms_of_64_mi_f32": long(&t)? }))
}
