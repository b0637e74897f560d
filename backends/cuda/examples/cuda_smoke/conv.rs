//! Convolutions through the operator table, against sums in double precision; and how fast a large one is.

use std::time::Instant;

use flagos_backend_api as abi;
use flagos_backend_api::{DType, Result, Tensor};
use flagos_backend_cuda::CudaDevice;
use flagos_catalog::conv::CONV2D;
use flagos_catalog::{AttrValue, Call};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::{Table, ensure, median, numbers, op_plans, sized, slot};

/// Numbers of a type as its bits, and what they are.
fn typed(t: DType, n: usize, seed: u32) -> (Vec<u8>, Vec<f64>) {
    let bits = |v: f32| match (t.code, t.bits) {
        (2, 32) => v.to_bits().to_le_bytes(),
        (2, _) => u32::from(f16::from_f32(v).to_bits()).to_le_bytes(),
        _ => u32::from(bf16::from_f32(v).to_bits()).to_le_bytes(),
    };
    let bytes: Vec<u8> = numbers(n, seed).into_iter().flat_map(|v| bits(v).into_iter().take(t.bytes())).collect();
    let values = bytes.chunks(t.bytes()).map(|b| value(t, b)).collect();
    (bytes, values)
}

fn value(t: DType, bytes: &[u8]) -> f64 {
    let low = || u16::from_le_bytes([bytes[0], bytes[1]]);
    match (t.code, t.bits) {
        (2, 32) => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        (2, _) => f16::from_bits(low()).to_f64(),
        _ => bf16::from_bits(low()).to_f64(),
    }
}

/// A planned convolution with its operands: x, w, bias or NULL, y.
struct Convolution {
    plan: *mut abi::Plan,
    buffers: [*mut abi::Buffer; 4],
    values: [Vec<f64>; 3],
    y: [usize; 4],
}

fn planned(t: &Table, dtype: DType, x: [i64; 4], w: [i64; 4], bias: bool, steps: [[i64; 2]; 3]) -> Result<Convolution> {
    let tensor = |shape: &[i64]| Tensor::contiguous(dtype, shape);
    let attributes = ["stride", "padding", "dilation"].into_iter().zip(steps).map(|(n, v)| (n, AttrValue::Ints(v.to_vec()))).collect::<Vec<_>>();
    let mut inputs = vec![tensor(&x), tensor(&w)];
    inputs.extend(bias.then(|| tensor(&w[..1])));
    let mut call = Call::new(CONV2D, &inputs, &[], &attributes)?;
    let [(_, shape)] = &(CONV2D.infer)(&call)?[..] else { return Err(crate::wrong("conv2d has one output")) };
    let y = core::array::from_fn(|i| shape[i] as usize);
    call.outputs = vec![tensor(shape)];
    let mut plan = core::ptr::null_mut();
    call.with_abi(|op| slot!(t.0.op, plan, t.1, op, core::ptr::null(), &mut plan))?;
    let (mut buffers, mut values) = ([core::ptr::null_mut(); 4], [const { Vec::new() }; 3]);
    for (i, operand) in inputs.iter().enumerate() {
        let (bytes, own) = typed(dtype, operand.elems() as usize, i as u32 + 1);
        buffers[i] = t.buffer(bytes.len() as u64, &[])?;
        slot!(t.0.memory, write, t.2, buffers[i], 0, bytes.as_ptr().cast(), bytes.len() as u64)?;
        slot!(t.0.stream, sync, t.2)?;
        values[i] = own;
    }
    buffers[3] = t.buffer(y.iter().product::<usize>() as u64 * dtype.bytes() as u64, &[])?;
    Ok(Convolution { plan, buffers, values, y })
}

/// The worst error as a share of what rounding allows.
fn check(t: &Table, dtype: DType, x: [i64; 4], w: [i64; 4], bias: bool, steps: [[i64; 2]; 3]) -> Result<f64> {
    let c = planned(t, dtype, x, w, bias, steps)?;
    t.run(op_plans(t), c.plan, &c.buffers)?;
    let ([_, o, h, v], width) = (c.y, dtype.bytes());
    let mut got = vec![0u8; c.y.iter().product::<usize>() * width];
    slot!(t.0.memory, read, t.2, c.buffers[3], 0, got.as_mut_ptr().cast(), got.len() as u64)?;
    slot!(t.0.stream, sync, t.2)?;
    let ([stride, padding, dilation], mut worst) = (steps, 0f64);
    // A unit of the type for the result, units of f32 for the sum.
    let (own, sum) = (if width == 4 { 0.0 } else if dtype == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) }, 2f64.powi(-24));
    let terms = (w[1] * w[2] * w[3] + 2) as f64;
    for (at, bytes) in got.chunks(width).enumerate() {
        let place = [at / v / h / o, at / v / h % o, at / v % h, at % v].map(|i| i as i64);
        let start = c.values[2].get(place[1] as usize).copied().unwrap_or(0.0);
        let (mut exact, mut size) = (start, start.abs());
        for k in 0..w[1] * w[2] * w[3] {
            let (channel, i, j) = (k / w[3] / w[2], k / w[3] % w[2], k % w[3]);
            let (row, column) = (place[2] * stride[0] + i * dilation[0] - padding[0], place[3] * stride[1] + j * dilation[1] - padding[1]);
            if (0..x[2]).contains(&row) && (0..x[3]).contains(&column) {
                let product = c.values[0][(((place[0] * x[1] + channel) * x[2] + row) * x[3] + column) as usize] * c.values[1][(place[1] * w[1] * w[2] * w[3] + k) as usize];
                (exact, size) = (exact + product, size + product.abs());
            }
        }
        let allowed = own * exact.abs() + terms * sum * size;
        let share = (value(dtype, bytes) - exact).abs() / allowed.max(f64::MIN_POSITIVE);
        // A NaN must not pass.
        ensure(share <= 1.0, || format!("{} {x:?} * {w:?}, bias {bias}: element {at} is {}, not {exact}", dtype.name(), value(dtype, bytes)))?;
        worst = worst.max(share);
    }
    slot!(op_plans(t), destroy, c.plan)?;
    c.buffers.into_iter().filter(|b| !b.is_null()).try_for_each(|b| slot!(t.0.memory, free, b))?;
    Ok(worst)
}

/// TFLOP/s of the benchmark's convolution.
fn large(t: &Table, dtype: DType) -> Result<f64> {
    let c = planned(t, dtype, [32, 64, 128, 128], [64, 64, 3, 3], false, [[1, 1], [1, 1], [1, 1]])?;
    let mut info = sized!(abi::PlanInfo);
    slot!(op_plans(t), info, c.plan, &mut info)?;
    let workspace = abi::Binding { buffer: if info.workspace_bytes > 0 { t.buffer(info.workspace_bytes, &[])? } else { core::ptr::null_mut() }, byte_offset: 0 };
    let bindings = c.buffers.map(|buffer| abi::Binding { buffer, byte_offset: 0 });
    let launch = abi::Launch { bindings: bindings.as_ptr(), n_bindings: 4, workspace, ..sized!(abi::Launch) };
    let mut times = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        for _ in 0..20 {
            slot!(op_plans(t), launch, c.plan, t.2, &launch)?;
        }
        slot!(t.0.stream, sync, t.2)?;
        times.push(started.elapsed().as_nanos() / 20);
    }
    Ok(2.0 * 64.0 * 9.0 * c.y.iter().product::<usize>() as f64 / median(times) as f64 / 1e3)
}

/// Each type, with and without what a convolution may have.
pub fn conv(_: &CudaDevice) -> Result<Value> {
    let t = Table::open()?;
    let mut worst = 0f64;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (x, w, bias, steps) in [
            ([2, 3, 17, 19], [5, 3, 3, 3], true, [[1, 1], [1, 1], [1, 1]]),
            ([1, 64, 20, 12], [32, 64, 3, 2], false, [[2, 1], [2, 1], [1, 3]]),
            ([3, 16, 8, 8], [8, 16, 1, 1], true, [[1, 1], [0, 0], [1, 1]]),
        ] {
            // A bias of a narrow type is the portable kernel's.
            worst = worst.max(check(&t, dtype, x, w, bias && dtype == DType::F32, steps)?);
        }
    }
    Ok(json!({ "worst_share": worst, "tflops_f16": large(&t, DType::F16)?, "tflops_bf16": large(&t, DType::BF16)?, "tflops_f32": large(&t, DType::F32)? }))
}
