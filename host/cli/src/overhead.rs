//! Overhead: host time of calls that do nothing, through the C functions of libflagos; and of starting up.

use core::ptr::{null, null_mut};
use std::sync::Barrier;
use std::time::Instant;

use flagos::border::{Buffer, Context, Device, Handle, Stream};
use flagos::calls as c;
use flagos_backend_api::{Answer, Binding, DType, Error, Op, Result, Status, Support, Tensor};
use flagos_catalog::find;
use flagos_runtime::discover::{Options, discover};

use crate::bench::{Measurement, percentile};

/// Calls per sample.
const CALLS: u32 = 20_000;

/// Turns a status of the C interface into a result.
fn ok(status: *mut Status) -> Result<()> {
    // SAFETY: the status was returned just now and is released here.
    unsafe { Error::from_status(status) }
}

/// Times one kind of call: nanoseconds each.
type Timed = fn(&Rig) -> Result<f64>;

/// What one thread calls with: its stream, and a copy of no elements.
struct Rig {
    device: *mut Handle<flagos_runtime::Device>,
    stream: *mut Stream,
    buffer: *mut Buffer,
    plan: *mut flagos::border::Plan,
    inputs: Box<Tensor>,
    outputs: Box<Tensor>,
}

impl Rig {
    fn new(context: *const Context) -> Result<Rig> {
        let (mut device, mut stream, mut buffer, mut plan): (*mut Device, _, _, _) = (null_mut(), null_mut(), null_mut(), null_mut());
        // SAFETY: out pointers are locals; the name is NUL-terminated.
        unsafe {
            ok(c::flagos_device_open(context, embedded().as_ptr(), &mut device))?;
            ok(c::flagos_stream_create(device, 0, 0, &mut stream))?;
            ok(c::flagos_buffer_alloc(device, 64, 0, &mut buffer))?;
        }
        let mut x = Tensor::contiguous(DType::F32, &[0]);
        x.buffer = buffer.cast();
        let mut rig = Rig { device, stream, buffer, plan, inputs: Box::new(x), outputs: Box::new(x) };
        // SAFETY: the descriptor borrows from the rig's boxes.
        ok(unsafe { c::flagos_op_plan(rig.device, &rig.op()?, 0, &mut plan) })?;
        rig.plan = plan;
        Ok(rig)
    }

    /// A copy of no elements: the backend's work is nothing.
    fn op(&self) -> Result<Op> {
        let copy = find("copy").ok_or_else(|| Error::invalid("the catalogue has no operator 'copy'"))?;
        Ok(Op {
            size: Op::SIZE,
            id: copy.id,
            revision: copy.revision,
            n_in: 1,
            n_out: 1,
            n_attr: 0,
            flags: 0,
            inputs: &*self.inputs,
            outputs: &*self.outputs,
            attrs: null(),
            next: null(),
        })
    }

    /// Nanoseconds per one-shot call.
    fn oneshot(&self) -> Result<f64> {
        let op = self.op()?;
        // SAFETY: handles are live, the descriptor borrows from the rig.
        each(|| unsafe { c::flagos_op_execute(self.stream, &op) })
    }

    /// Nanoseconds per launch of a plan.
    fn prepared(&self) -> Result<f64> {
        let bindings = [Binding { buffer: self.buffer.cast(), byte_offset: 0 }; 2];
        // SAFETY: handles are live.
        each(|| unsafe { c::flagos_plan_launch(self.plan, self.stream, bindings.as_ptr(), 2, null(), null()) })
    }

    /// Nanoseconds per level-0 query.
    fn query(&self) -> Result<f64> {
        let op = self.op()?;
        let mut support = Support {
            size: Support::SIZE,
            kind: Support::KIND,
            answer: 0,
            properties: 0,
            reason: flagos_backend_api::Str::EMPTY,
            workspace_bytes: 0,
            fixed_ns: 0.0,
            ns_per_byte: 0.0,
            ns_per_flop: 0.0,
        };
        // SAFETY: handles are live, the descriptor borrows from the rig.
        let ns = each(|| unsafe { c::flagos_op_query(self.device, &op, 0, &mut support) })?;
        if support.answer != Answer::YES.0 {
            return Err(Error::unimplemented("the copy of no elements is not offered"));
        }
        Ok(ns)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // SAFETY: the handles are the rig's own and are released once.
        let released = unsafe {
            [c::flagos_plan_release(self.plan), c::flagos_buffer_release(self.buffer), c::flagos_stream_release(self.stream), c::flagos_device_release(self.device)]
        };
        for status in released {
            if let Err(e) = ok(status) {
                eprintln!("flagos: {e}");
            }
        }
    }
}

fn embedded() -> std::ffi::CString {
    let name = flagos::embedded().first().map(|b| b.name.clone()).unwrap_or_default();
    std::ffi::CString::new(name).unwrap_or_default()
}

fn each(mut call: impl FnMut() -> *mut Status) -> Result<f64> {
    ok(call())?;
    let started = Instant::now();
    for _ in 0..CALLS {
        let status = call();
        if !status.is_null() {
            ok(status)?;
        }
    }
    Ok(started.elapsed().as_nanos() as f64 / f64::from(CALLS))
}

fn measurement(bench: &str, size: &str, mut samples: Vec<f64>, implementation: &str) -> Measurement {
    samples.sort_by(f64::total_cmp);
    let median = percentile(&samples, 0.5);
    Measurement {
        bench: bench.to_owned(),
        size: size.to_owned(),
        dtype: "f32".to_owned(),
        peer: "flagos".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        median_ns: median,
        p10: percentile(&samples, 0.1),
        p90: percentile(&samples, 0.9),
        submit_ns: median,
        samples: samples.len(),
        gflops: None,
        gbs: None,
        implementation: implementation.to_owned(),
    }
}

/// One-shot, prepared and query, on one thread and on two.
pub fn run(samples: usize, emit: &mut dyn FnMut(Measurement) -> Result<()>) -> Result<()> {
    let mut context = null_mut();
    // SAFETY: the out pointer is a local.
    ok(unsafe { c::flagos_context_create(&mut context) })?;
    let kinds: [(&str, Timed); 3] = [("oneshot", Rig::oneshot), ("prepared", Rig::prepared), ("query", Rig::query)];
    for (name, kind) in kinds {
        let rig = Rig::new(context)?;
        kind(&rig)?;
        let alone = (0..samples).map(|_| kind(&rig)).collect::<Result<Vec<f64>>>()?;
        emit(measurement(&format!("overhead.{name}"), "1 thread", alone, "copy of no elements"))?;
        let shared = context as usize;
        let barrier = Barrier::new(2);
        let thread = || -> Result<Vec<f64>> {
            let rig = Rig::new(shared as *const Context)?;
            kind(&rig)?;
            (0..samples)
                .map(|_| {
                    barrier.wait();
                    kind(&rig)
                })
                .collect()
        };
        let both = std::thread::scope(|scope| [scope.spawn(thread), scope.spawn(thread)].map(|t| t.join()));
        let mut all = Vec::new();
        for result in both {
            all.extend(result.map_err(|_| Error::invalid("a measuring thread panicked"))??);
        }
        emit(measurement(&format!("overhead.{name}"), "2 threads", all, "copy of no elements, each thread on its own stream"))?;
    }
    // SAFETY: the context is released once; objects made from it are gone.
    ok(unsafe { c::flagos_context_release(context) })
}

/// Discovery of what is installed, in this process again and again: files read, judged and negotiated; libraries are mapped already after
/// the first time, so the first one is given apart.
pub fn startup(samples: usize, emit: &mut dyn FnMut(Measurement) -> Result<()>) -> Result<()> {
    let once = || {
        let report = discover(&Options::from_environment(), &flagos::embedded());
        let vendor: u64 = report.candidates.iter().map(|c| c.timings.vendor_ns()).sum();
        (report.total_ns as f64, vendor as f64, report.candidates.len())
    };
    let (total, vendor, n) = once();
    emit(measurement("startup.first", &format!("{n} candidates"), vec![total], "host and vendor code"))?;
    emit(measurement("startup.first.vendor", &format!("{n} candidates"), vec![vendor], "dlopen and query"))?;
    let again = (0..samples.max(3)).map(|_| once().0).collect();
    emit(measurement("startup.again", &format!("{n} candidates"), again, "libraries mapped already"))
}
