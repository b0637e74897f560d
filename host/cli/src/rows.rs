//! Rows of a file as benchmarks: whole calls with their shapes, timed by the device's own clock.

use std::path::Path;
use std::time::{Duration, Instant};

use flagos_backend_api::Op;
use flagos_catalog::{Call, Rng};
use flagos_runtime::{Buffer, Code, DType, Device, Error, Event, Operand, Plan, Result, Stream, Tensor, Work};
use serde::Deserialize;

use crate::bench::{Measurement, percentile};
use crate::explain;

/// Bytes of an operand that are made on the host; they repeat over the rest.
const BLOCK_BYTES: usize = 16 << 20;
/// Calls of one sample where the host's time is measured.
const HOST_CALLS: u32 = 500;
/// Longest a row is measured.
const BUDGET: Duration = Duration::from_millis(600);

/// A file of rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    row: Vec<Row>,
}

/// One row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What it is called in reports.
    name: String,
    /// Operator, tensors, attributes, as `flagos explain` takes them.
    call: String,
    /// Integers of inputs lie in 0..below.
    #[serde(default = "two")]
    below: u64,
    /// Measures the host's time per call, one-shot and prepared, without waiting for the device.
    #[serde(default)]
    host: bool,
}

fn two() -> u64 {
    2
}
/// Measures each row of a file; a row the device cannot run is said and skipped, and the answer is false.
///
/// # Errors
/// Files that cannot be read or hold no rows.
pub fn run(path: &Path, wants: &dyn Fn(&str) -> bool, device: &Device, samples: usize, emit: &mut dyn FnMut(Measurement) -> Result<()>) -> Result<bool> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Error::new(Code::NOT_FOUND, format!("{name}: {e}")))?;
    let file: File = toml::from_str(&text).map_err(|e| Error::invalid(format!("{name}: {e}")))?;
    let mut whole = true;
    for row in file.row.iter().filter(|r| wants(&r.name)) {
        match measure(row, device, samples) {
            Ok(list) => list.into_iter().try_for_each(&mut *emit)?,
            Err(e) => {
                whole = false;
                eprintln!("  {}: {e}", row.name);
            }
        }
    }
    Ok(whole)
}

/// What a row runs on.
struct Rig {
    plan: Plan,
    stream: Stream,
    event: Event,
    buffers: Vec<Option<Buffer>>,
}

fn measure(row: &Row, device: &Device, samples: usize) -> Result<Vec<Measurement>> {
    let words: Vec<String> = row.call.split_whitespace().map(str::to_owned).collect();
    let (operator, words) = words.split_first().ok_or_else(|| Error::invalid("the row's call is empty"))?;
    let call = explain::call(operator, words, DType::F32)?;
    let work = Work::Op(call.clone());
    let (plan, stream, event) = (device.plan(&work)?, device.stream()?, device.event()?);
    let tensors: Vec<&Tensor> = call.inputs.iter().chain(&call.outputs).collect();
    let buffers = tensors.iter().map(|t| fill(t, row.below, device, &stream)).collect::<Result<Vec<_>>>()?;
    let moved: u64 = tensors.iter().map(|t| bytes_of(t)).sum();
    let rig = Rig { plan, stream, event, buffers };
    if row.host { host(row, &call, &rig, device) } else { Ok(vec![device_time(row, &rig, device, samples, moved, work.flops())?]) }
}

fn bytes_of(t: &Tensor) -> u64 {
    if t.elems() < 1 { 0 } else { t.elems() as u64 * t.dtype.bytes() as u64 }
}

/// An operand's memory with contents: floats of both signs below 1, integers in 0..below.
fn fill(t: &Tensor, below: u64, device: &Device, stream: &Stream) -> Result<Option<Buffer>> {
    let bytes = bytes_of(t);
    if bytes == 0 {
        return Ok(None);
    }
    let (buffer, width) = (device.alloc(bytes)?, t.dtype.bytes());
    let count = (bytes as usize).min(BLOCK_BYTES) / width;
    let mut rng = Rng::named(1, "rows");
    let mut block = vec![0u8; count * width];
    if t.dtype.is_float() {
        let values = (0..count).map(|_| rng.unit() * 2.0 - 1.0).collect();
        flagos_catalog::Array::float(&[count], values).encode(&Tensor::contiguous(t.dtype, &[count as i64]), &mut block, 0)?;
    } else {
        for element in block.chunks_exact_mut(width) {
            element.copy_from_slice(&(rng.bits() % below.max(1)).to_le_bytes()[..width]);
        }
    }
    stream.write(&buffer, 0, &block)?;
    let mut done = block.len() as u64;
    while done < bytes {
        let next = done.min(bytes - done);
        stream.copy(&buffer, done, &buffer, 0, next)?;
        done += next;
    }
    stream.sync()?;
    Ok(Some(buffer))
}

impl Rig {
    fn operands(&self) -> Vec<Operand<'_>> {
        self.buffers.iter().map(|b| b.as_ref().map(|b| (b, 0))).collect()
    }
}

fn report(row: &Row, rig: &Rig, device: &Device, size: &str, mut samples: Vec<f64>) -> Measurement {
    samples.sort_by(f64::total_cmp);
    let at = |fraction| percentile(&samples, fraction);
    Measurement {
        bench: row.name.clone(),
        size: size.to_owned(),
        dtype: String::new(),
        peer: format!("flagos-{}", device.backend()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        median_ns: at(0.5),
        p10: at(0.1),
        p90: at(0.9),
        submit_ns: 0.0,
        samples: samples.len(),
        gflops: None,
        gbs: None,
        implementation: rig.plan.implementation().to_owned(),
    }
}

/// Device time per call: between two signals around it.
fn device_time(row: &Row, rig: &Rig, device: &Device, samples: usize, moved: u64, flops: f64) -> Result<Measurement> {
    let operands = rig.operands();
    let (mut times, mut submits, mut value) = (Vec::new(), Vec::new(), 0);
    let started = Instant::now();
    while times.len() < samples + 3 || (started.elapsed() < BUDGET && times.len() < 500) {
        rig.stream.signal(&rig.event, value + 1)?;
        let before = Instant::now();
        rig.plan.launch(&rig.stream, &operands)?;
        submits.push(before.elapsed().as_nanos() as f64);
        rig.stream.signal(&rig.event, value + 2)?;
        rig.stream.sync()?;
        let wall = before.elapsed().as_nanos() as f64;
        times.push(match rig.event.elapsed_ns(value + 1, value + 2) {
            Ok(ns) => ns as f64,
            // A device without a clock is timed by the host's.
            Err(e) if e.code == Code::UNIMPLEMENTED => wall,
            Err(e) => return Err(e),
        });
        value += 2;
    }
    // The first ones warm up.
    times.drain(..3);
    submits.drain(..3);
    submits.sort_by(f64::total_cmp);
    let mut found = report(row, rig, device, &row.call, times);
    found.submit_ns = percentile(&submits, 0.5);
    found.gbs = Some(moved as f64 / found.median_ns);
    found.gflops = (flops > 0.0 && flops > 8.0 * moved as f64).then_some(flops / found.median_ns);
    Ok(found)
}

/// Host time per call, enqueue included, the device not waited for.
fn host(row: &Row, call: &Call, rig: &Rig, device: &Device) -> Result<Vec<Measurement>> {
    let operands = rig.operands();
    let prepared = each(rig, || rig.plan.launch(&rig.stream, &operands))?;
    // SAFETY: the descriptor borrows from the call.
    let oneshot = call.with_abi(|op: &Op| each(rig, || unsafe { flagos_runtime::oneshot::execute(&rig.stream, op, operands.len(), |i| Ok(operands[i])) }))?;
    let mut list = [prepared, oneshot].into_iter();
    Ok(["prepared", "one-shot"].into_iter().filter_map(|size| Some(report(row, rig, device, size, list.next()?))).collect())
}

fn each(rig: &Rig, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..20)
        .map(|_| {
            rig.stream.sync()?;
            let started = Instant::now();
            for _ in 0..HOST_CALLS {
                call()?;
            }
            Ok(started.elapsed().as_nanos() as f64 / f64::from(HOST_CALLS))
        })
        .collect()
}
