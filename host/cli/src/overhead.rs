//! Overhead: host time of calls that do nothing, through the C functions of the installed libflagos.so, as any program would call them; and of
//! starting up.

use core::ffi::{c_char, c_void};
use core::ptr::{null, null_mut};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;

use flagos_backend_api::{Answer, Binding, Code, DType, Error, Op, Result, Status, Support, Tensor};
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

/// An object of the library's.
type Handle = *mut c_void;

/// Declares the functions taken from the library, by their names in `flagos.h`.
macro_rules! functions {
    ($($name:ident: fn($($arg:ty),*);)*) => {
        /// The library's functions.
        #[allow(clippy::struct_field_names)] // Their names in C.
        struct Library {
            $($name: unsafe extern "C" fn($($arg),*) -> *mut Status,)*
            path: PathBuf,
            _library: libloading::Library,
        }

        impl Library {
            /// Loads the library of this installation.
            fn load() -> Result<Library> {
                let path = path()?;
                let failed = |e: libloading::Error| Error::new(Code::NOT_FOUND, format!("{}: {e}", path.display()));
                // SAFETY: the library is this installation's own; its constructors are those of the C and Rust runtimes.
                let library = unsafe { libloading::Library::new(&path) }.map_err(failed)?;
                // SAFETY: the signatures are those `flagos.h` is generated from.
                unsafe {
                    Ok(Library {
                        $($name: *library.get::<unsafe extern "C" fn($($arg),*) -> *mut Status>(concat!(stringify!($name), "\0").as_bytes()).map_err(failed)?,)*
                        path: path.clone(),
                        _library: library,
                    })
                }
            }
        }
    };
}

functions! {
    flagos_context_create: fn(*mut Handle);
    flagos_context_release: fn(Handle);
    flagos_device_open: fn(Handle, *const c_char, *mut Handle);
    flagos_device_release: fn(Handle);
    flagos_stream_create: fn(Handle, i32, u64, *mut Handle);
    flagos_stream_release: fn(Handle);
    flagos_buffer_alloc: fn(Handle, u64, u32, *mut Handle);
    flagos_buffer_release: fn(Handle);
    flagos_op_plan: fn(Handle, *const Op, u32, *mut Handle);
    flagos_plan_release: fn(Handle);
    flagos_op_execute: fn(Handle, *const Op);
    flagos_op_query: fn(Handle, *const Op, u32, *mut Support);
    flagos_plan_launch: fn(Handle, Handle, *const Binding, u32, *const c_void, *const c_void);
}

/// `lib/libflagos.so.1` of the installation this program belongs to.
fn path() -> Result<PathBuf> {
    let here = std::env::current_exe().map_err(|e| Error::new(Code::NOT_FOUND, format!("where this program lies: {e}")))?;
    let path = here.parent().and_then(|bin| bin.parent()).map(|prefix| prefix.join("lib/libflagos.so.1")).filter(|path| path.exists());
    path.ok_or_else(|| {
        Error::new(Code::NOT_FOUND, format!("{} is not in the bin folder of an installation, beside lib/libflagos.so.1; run it from one (cargo flagos bench)", here.display()))
    })
}

/// Times one kind of call: nanoseconds each.
type Timed = fn(&Rig) -> Result<f64>;

/// What one thread calls with: its stream, and a copy of no elements.
struct Rig<'a> {
    library: &'a Library,
    device: Handle,
    stream: Handle,
    buffer: Handle,
    plan: Handle,
    inputs: Box<Tensor>,
    outputs: Box<Tensor>,
}

impl Rig<'_> {
    fn new(library: &Library, context: Handle) -> Result<Rig<'_>> {
        let (mut device, mut stream, mut buffer, mut plan) = (null_mut(), null_mut(), null_mut(), null_mut());
        // SAFETY: out pointers are locals; the name is NUL-terminated.
        unsafe {
            ok((library.flagos_device_open)(context, embedded().as_ptr(), &mut device))?;
            ok((library.flagos_stream_create)(device, 0, 0, &mut stream))?;
            ok((library.flagos_buffer_alloc)(device, 64, 0, &mut buffer))?;
        }
        let mut x = Tensor::contiguous(DType::F32, &[0]);
        x.buffer = buffer.cast();
        let mut rig = Rig { library, device, stream, buffer, plan, inputs: Box::new(x), outputs: Box::new(x) };
        // SAFETY: the descriptor borrows from the rig's boxes.
        ok(unsafe { (library.flagos_op_plan)(rig.device, &rig.op()?, 0, &mut plan) })?;
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
        each(|| unsafe { (self.library.flagos_op_execute)(self.stream, &op) })
    }

    /// Nanoseconds per launch of a plan.
    fn prepared(&self) -> Result<f64> {
        let bindings = [Binding { buffer: self.buffer.cast(), byte_offset: 0 }; 2];
        // SAFETY: handles are live.
        each(|| unsafe { (self.library.flagos_plan_launch)(self.plan, self.stream, bindings.as_ptr(), 2, null(), null()) })
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
        let ns = each(|| unsafe { (self.library.flagos_op_query)(self.device, &op, 0, &mut support) })?;
        if support.answer != Answer::YES.0 {
            return Err(Error::unimplemented("the copy of no elements is not offered"));
        }
        Ok(ns)
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        // SAFETY: the handles are the rig's own and are released once.
        let released = unsafe {
            let l = self.library;
            [(l.flagos_plan_release)(self.plan), (l.flagos_buffer_release)(self.buffer), (l.flagos_stream_release)(self.stream), (l.flagos_device_release)(self.device)]
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
    let library = Library::load()?;
    let mut context = null_mut();
    // SAFETY: the out pointer is a local.
    ok(unsafe { (library.flagos_context_create)(&mut context) })?;
    let what = format!("copy of no elements, through {}", library.path.file_name().unwrap_or_default().display());
    let kinds: [(&str, Timed); 3] = [("oneshot", |rig| rig.oneshot()), ("prepared", |rig| rig.prepared()), ("query", |rig| rig.query())];
    for (name, kind) in kinds {
        let rig = Rig::new(&library, context)?;
        kind(&rig)?;
        let alone = (0..samples).map(|_| kind(&rig)).collect::<Result<Vec<f64>>>()?;
        emit(measurement(&format!("overhead.{name}"), "1 thread", alone, &what))?;
        let shared = context as usize;
        let barrier = Barrier::new(2);
        let thread = || -> Result<Vec<f64>> {
            let rig = Rig::new(&library, shared as Handle)?;
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
        emit(measurement(&format!("overhead.{name}"), "2 threads", all, &format!("{what}, each thread on its own stream")))?;
    }
    // SAFETY: the context is released once; objects made from it are gone.
    ok(unsafe { (library.flagos_context_release)(context) })
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
