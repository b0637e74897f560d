//! Exercises the backend on a machine with a GPU, without a host: one JSON line per check, exit code 1 if one failed, 77 without a device.
//!
//! `cargo build --release -p flagos-backend-cuda --example cuda_smoke`, carry the program to the machine, run it: `cuda_smoke [CHECK…]`.

mod floor;
mod sort;

use std::time::Instant;

use cudarc::driver::sys;
use flagos_backend_api as abi;
use flagos_backend_api::vendor::{AllocRequest, Argument, CompileRequest, Device, Grid, Memory, Modules, StreamRequest, Streams};
use flagos_backend_api::{Code, DType, Error, KernelFormat, MemoryKind, Result};
use flagos_backend_cuda::CudaDevice;
use flagos_backend_cuda::memory::CudaBuffer;
use flagos_backend_cuda::stream::CudaStream;
use flagos_catalog::{blas, fft};
use serde_json::{Value, json};

const ADD: &str = r#"extern "C" __global__ void add(const float *a, const float *b, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] + b[i];
}
extern "C" __global__ void increment(float *y, int n) {
    extern __shared__ float tile[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) { tile[threadIdx.x] = y[i] + 1.0f; y[i] = tile[threadIdx.x]; }
}"#;
const N: usize = 1024;

type Check = (&'static str, fn(&CudaDevice) -> Result<Value>);

fn wrong(text: impl Into<String>) -> Error {
    Error::new(Code::INTERNAL, text)
}
fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(wrong(text())) }
}
fn alloc(d: &CudaDevice, bytes: u64, kind: MemoryKind) -> Result<CudaBuffer> {
    d.alloc(&AllocRequest { bytes, alignment_bytes: 0, kind })
}
fn stream(d: &CudaDevice) -> Result<CudaStream> {
    d.create_stream(&StreamRequest { priority: 0, native: 0 })
}
fn write(d: &CudaDevice, s: &CudaStream, b: &CudaBuffer, data: &[f32]) -> Result<()> {
    // SAFETY: the data outlives the synchronisation below.
    unsafe { d.write(s, b, 0, data.as_ptr().cast(), size_of_val(data) as u64) }?;
    d.sync_stream(s)
}
fn read(d: &CudaDevice, s: &CudaStream, b: &CudaBuffer, n: usize) -> Result<Vec<f32>> {
    let mut out = vec![0f32; n];
    // SAFETY: as above.
    unsafe { d.read(s, b, 0, out.as_mut_ptr().cast(), 4 * n as u64) }?;
    d.sync_stream(s)?;
    Ok(out)
}
fn current() -> usize {
    let mut now = core::ptr::null_mut();
    // SAFETY: the driver has started; the place is writable.
    unsafe { sys::cuCtxGetCurrent(&mut now) };
    now as usize
}
fn median(mut list: Vec<u128>) -> u128 {
    list.sort_unstable();
    list[list.len() / 2]
}
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed;
    (0..n).map(|_| { x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); (x >> 8) as f32 / 8_388_608.0 - 1.0 }).collect()
}

fn context(d: &CudaDevice) -> Result<Value> {
    ensure(current() == 0, || "a context is current on a thread that set none".into())?;
    let mut primary = core::ptr::null_mut();
    // SAFETY: the device is open; what is retained is released.
    unsafe {
        sys::cuDevicePrimaryCtxRetain(&mut primary, d.chip().device.0);
        sys::cuDevicePrimaryCtxRelease_v2(d.chip().device.0);
    }
    ensure(primary == d.chip().context.0, || "the backend has a context of its own".into())?;
    let s = stream(d)?;
    let b = alloc(d, 4096, MemoryKind::DEVICE)?;
    d.fill(&s, &b, 0, &[7], 4096)?;
    d.sync_stream(&s)?;
    ensure(current() == 0, || "a call left its context current".into())?;
    let enters: Vec<u128> = (0..1000).map(|_| { let t = Instant::now(); drop(d.chip().enter()); t.elapsed().as_nanos() }).collect();
    Ok(json!({ "enter_ns": median(enters) }))
}

fn memory(d: &CudaDevice) -> Result<Value> {
    let s = stream(d)?;
    drop(alloc(d, 1 << 20, MemoryKind::DEVICE)?);
    let mut taken = Vec::new();
    for _ in 0..2000 {
        let t = Instant::now();
        let b = alloc(d, 100_000, MemoryKind::DEVICE)?;
        taken.push(t.elapsed().as_nanos());
        drop(b);
    }
    for kind in [MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::UNIFIED] {
        for width in [1usize, 2, 4, 8, 16] {
            let b = alloc(d, 1 << 20, kind)?;
            let pattern: Vec<u8> = (1..=width as u8).collect();
            let bytes = (1 << 20) - 2 * width as u64;
            d.fill(&s, &b, width as u64, &pattern, bytes)?;
            let mut back = vec![0u8; bytes as usize];
            // SAFETY: the buffer outlives the synchronisation.
            unsafe { d.read(&s, &b, width as u64, back.as_mut_ptr(), bytes) }?;
            d.sync_stream(&s)?;
            ensure(back.chunks(width).all(|c| c == pattern), || format!("a fill of {kind} memory with {width} bytes"))?;
        }
    }
    let huge = alloc(d, 1 << 60, MemoryKind::DEVICE).err().map(|e| e.code);
    ensure(huge == Some(Code::RESOURCE_EXHAUSTED), || format!("an allocation of 2^60 bytes answers {huge:?}"))?;
    let most = alloc(d, d.memory_info()?.0, MemoryKind::DEVICE).err().map(|e| e.code);
    ensure(most == Some(Code::RESOURCE_EXHAUSTED), || format!("an allocation of all memory answers {most:?}"))?;
    drop(alloc(d, 256 << 20, MemoryKind::DEVICE)?);
    d.trim()?;
    Ok(json!({ "pool_hit_ns": median(taken), "free_and_total": d.memory_info()? }))
}

fn build(d: &CudaDevice, format: KernelFormat, is_binary: bool, code: &[u8]) -> Result<<CudaDevice as Modules>::Module> {
    d.compile(&CompileRequest { format, is_binary, code, options: String::new(), name: "smoke.cu".into() })
}

fn launch(d: &CudaDevice, s: &CudaStream, kernel: &<CudaDevice as Modules>::Kernel, buffers: &[&CudaBuffer], shared: u32) -> Result<()> {
    let grid = Grid { grid: [N as u32 / 256, 1, 1], block: [256, 1, 1], shared_bytes: shared };
    let list = buffers.iter().map(|b| Argument::Buffer(Some((*b, 0)))).chain([Argument::Scalar { bits: N as u64, bytes: 4 }]);
    d.launch_kernel(s, kernel, &grid, list.collect::<Vec<_>>().into_iter())
}

fn module(d: &CudaDevice) -> Result<Value> {
    let s = stream(d)?;
    let started = Instant::now();
    let module = build(d, KernelFormat::CUDA_CPP, false, ADD.as_bytes())?;
    let compile_ms = started.elapsed().as_secs_f64() * 1e3;
    let binary = d.binary(&module)?;
    let again = build(d, KernelFormat::CUDA_CPP, true, &binary)?;
    let damaged = build(d, KernelFormat::CUDA_CPP, true, &binary[..binary.len() - 1]).err().map(|e| e.code);
    ensure(damaged == Some(Code::DATA_LOSS), || format!("a damaged binary answers {damaged:?}"))?;
    let flagos_backend_cuda::compile::Image::Ptx(ptx) = flagos_backend_cuda::compile::compile(ADD.as_bytes(), "smoke.cu", "compute_80", "")? else {
        return Err(wrong("no PTX"));
    };
    let from_ptx = build(d, KernelFormat::PTX, false, &ptx)?;
    let bad = build(d, KernelFormat::PTX, false, b".version 8.0\nnonsense").err();
    ensure(bad.as_ref().is_some_and(|e| e.code == Code::INVALID_ARGUMENT), || format!("bad PTX answers {bad:?}"))?;
    let missing = d.kernel(&module, "nobody").err().map(|e| e.code);
    ensure(missing == Some(Code::NOT_FOUND), || format!("a missing entry point answers {missing:?}"))?;
    let (a, b, y) = (alloc(d, 4096, MemoryKind::DEVICE)?, alloc(d, 4096, MemoryKind::DEVICE)?, alloc(d, 4096, MemoryKind::DEVICE)?);
    let (x, z) = (numbers(N, 1), numbers(N, 2));
    write(d, &s, &a, &x)?;
    write(d, &s, &b, &z)?;
    let mut submit = Vec::new();
    for module in [&module, &again, &from_ptx] {
        let kernel = d.kernel(module, "add")?;
        d.fill(&s, &y, 0, &[0xff], 4096)?;
        launch(d, &s, &kernel, &[&a, &b, &y], 0)?;
        let got = read(d, &s, &y, N)?;
        ensure(got.iter().zip(&x).zip(&z).all(|((g, p), q)| *g == p + q), || "add is wrong".into())?;
        submit = (0..2000).map(|_| { let t = Instant::now(); launch(d, &s, &kernel, &[&a, &b, &y], 0).map(|()| t.elapsed().as_nanos()) }).collect::<Result<_>>()?;
        d.sync_stream(&s)?;
    }
    let kernel = d.kernel(&module, "increment")?;
    launch(d, &s, &kernel, &[&y], d.facts().shared_bytes - 1024)?;
    d.sync_stream(&s)?;
    let few = d.launch_kernel(&s, &kernel, &Grid { grid: [1; 3], block: [1; 3], shared_bytes: 0 }, Vec::new().into_iter()).err().map(|e| e.code);
    ensure(few == Some(Code::INVALID_ARGUMENT), || format!("a launch without arguments answers {few:?}"))?;
    Ok(json!({ "compile_ms": compile_ms, "binary_bytes": binary.len(), "launch_ns": median(submit), "facts": d.kernel_facts(&kernel)? }))
}

fn streams(d: &CudaDevice) -> Result<Value> {
    let (p, q, e) = (stream(d)?, stream(d)?, d.create_event()?);
    let (a, b) = (alloc(d, 64 << 20, MemoryKind::DEVICE)?, alloc(d, 64 << 20, MemoryKind::DEVICE)?);
    for round in 1..=8u8 {
        let value = 2 * u64::from(round);
        // Even rounds wait before the signal is enqueued.
        if round % 2 == 0 {
            d.wait(&q, &e, value - 1)?;
        }
        d.fill(&p, &a, 0, &[round], 64 << 20)?;
        d.signal(&p, &e, value - 1)?;
        if round % 2 == 1 {
            d.wait(&q, &e, value - 1)?;
        }
        d.copy(&q, &b, 0, &a, 0, 64 << 20)?;
        d.signal(&q, &e, value)?;
        d.sync_event(&e, value, 10_000_000_000)?;
        let got = read(d, &q, &b, N)?;
        ensure(got.iter().all(|x| x.to_bits() == u32::from_ne_bytes([round; 4])), || format!("round {round} was copied too early"))?;
        d.wait(&p, &e, value)?;
    }
    let late = d.sync_event(&e, 1000, 1_000_000).err().map(|e| e.code);
    ensure(late == Some(Code::DEADLINE_EXCEEDED), || format!("a wait for nobody's signal answers {late:?}"))?;
    let down = d.signal(&p, &e, 3).err().map(|e| e.code);
    ensure(down == Some(Code::INVALID_ARGUMENT), || format!("a lower signal answers {down:?}"))?;
    let mut signals = Vec::new();
    for i in 0..1000 {
        let t = Instant::now();
        d.signal(&p, &e, 2000 + i)?;
        signals.push(t.elapsed().as_nanos());
    }
    d.sync_stream(&p)?;
    Ok(json!({ "signal_ns": median(signals), "copy_64_mib_ns": d.elapsed_ns(&e, 2998, 2999)?, "value": d.event_value(&e)? }))
}

/// A stream of a framework's, captured by it: work through us becomes part of its graph.
fn capture(d: &CudaDevice) -> Result<Value> {
    let owner = stream(d)?;
    let native = d.native_stream(&owner)?;
    let s = d.create_stream(&StreamRequest { priority: 0, native })?;
    let y = alloc(d, 4096, MemoryKind::DEVICE)?;
    let module = build(d, KernelFormat::CUDA_CPP, false, ADD.as_bytes())?;
    let kernel = d.kernel(&module, "increment")?;
    write(d, &s, &y, &[0.0; N])?;
    let raw = native as usize as sys::CUstream;
    let _entered = d.chip().enter()?;
    let (mut graph, mut exec) = (core::ptr::null_mut(), core::ptr::null_mut());
    let call = flagos_backend_cuda::driver::check;
    // SAFETY: the stream is alive; places are writable; the graph is destroyed once.
    unsafe {
        call(sys::cuStreamBeginCapture_v2(raw, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL), "cuStreamBeginCapture")?;
        launch(d, &s, &kernel, &[&y], 1024)?;
        // Allocation beside a capture leaves it whole.
        drop(alloc(d, 300 << 20, MemoryKind::DEVICE)?);
        launch(d, &s, &kernel, &[&y], 1024)?;
        let refused = d.sync_stream(&s).err().map(|e| e.code);
        ensure(refused == Some(Code::FAILED_PRECONDITION), || format!("waiting for a captured stream answers {refused:?}"))?;
        call(sys::cuStreamEndCapture(raw, &mut graph), "cuStreamEndCapture")?;
        call(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0), "cuGraphInstantiate")?;
        for _ in 0..5 {
            call(sys::cuGraphLaunch(exec, raw), "cuGraphLaunch")?;
        }
    }
    let got = read(d, &s, &y, N)?;
    // SAFETY: both are alive and go once, with no launch in flight.
    unsafe { (sys::cuGraphExecDestroy(exec), sys::cuGraphDestroy(graph)) };
    ensure(got.iter().all(|x| *x == 10.0), || format!("5 replays of 2 increments give {}", got[0]))?;
    Ok(json!({ "replays": 5 }))
}

/// The tables as a host calls them.
struct Table(&'static abi::BackendV1, *mut abi::Device, *mut abi::Stream);

fn take(status: *mut abi::Status) -> Result<()> {
    // SAFETY: a slot returned it just now.
    unsafe { Error::from_status(status) }
}
macro_rules! sized {
    ($T:ty) => {{
        // The macro stands inside of `slot!` at times, which is unsafe code itself.
        #[allow(unused_unsafe)]
        // SAFETY: all-zero bytes are a value of the ABI's structs.
        let mut value: $T = unsafe { core::mem::zeroed() };
        (value.size, value.kind) = (<$T>::SIZE, <$T>::KIND);
        value
    }};
}
macro_rules! slot {
    ($table:expr, $slot:ident $(, $arg:expr)* $(,)?) => {
        // SAFETY: live handles of this backend; tables live as long as the process.
        $crate::take(unsafe { (*$table).$slot.ok_or_else(|| $crate::wrong(concat!("no slot ", stringify!($slot))))?($($arg),*) })
    };
}

pub(crate) use {sized, slot};

impl Table {
    fn open() -> Result<Table> {
        let mut host = sized!(abi::HostV1);
        (host.abi_minor, host.abi_minor_oldest) = (abi::ABI_MINOR, abi::ABI_MINOR_OLDEST);
        let (host, mut why) = (Box::leak(Box::new(host)), core::ptr::null_mut());
        // SAFETY: the host table is static, the place writable.
        let table = unsafe { flagos_backend_cuda::flagos_backend_query_v1(host, &mut why).as_ref() }.ok_or_else(|| wrong("no table"))?;
        let (mut device, mut stream) = (core::ptr::null_mut(), core::ptr::null_mut());
        slot!(table.device, open, 0, &mut device)?;
        slot!(table.stream, create, device, &sized!(abi::StreamDesc), &mut stream)?;
        Ok(Table(table, device, stream))
    }
    fn buffer(&self, bytes: u64, data: &[f32]) -> Result<*mut abi::Buffer> {
        let mut out = core::ptr::null_mut();
        let desc = abi::AllocDesc { bytes, memory_kind: MemoryKind::DEVICE.0, ..sized!(abi::AllocDesc) };
        slot!(self.0.memory, alloc, self.1, &desc, &mut out)?;
        if !data.is_empty() {
            slot!(self.0.memory, write, self.2, out, 0, data.as_ptr().cast(), 4 * data.len() as u64)?;
            slot!(self.0.stream, sync, self.2)?;
        }
        Ok(out)
    }
    fn read(&self, b: *mut abi::Buffer, n: usize) -> Result<Vec<f32>> {
        let mut out = vec![0f32; n];
        slot!(self.0.memory, read, self.2, b, 0, out.as_mut_ptr().cast(), 4 * n as u64)?;
        slot!(self.0.stream, sync, self.2)?;
        Ok(out)
    }
    /// Launches a plan on buffers, several times; the median host time of a launch.
    fn run(&self, plans: *const abi::PlanTable, plan: *mut abi::Plan, buffers: &[*mut abi::Buffer]) -> Result<u128> {
        let mut info = sized!(abi::PlanInfo);
        slot!(plans, info, plan, &mut info)?;
        let workspace = if info.workspace_bytes > 0 { self.buffer(info.workspace_bytes, &[])? } else { core::ptr::null_mut() };
        let bindings: Vec<abi::Binding> = buffers.iter().map(|b| abi::Binding { buffer: *b, byte_offset: 0 }).collect();
        let launch = abi::Launch {
            bindings: bindings.as_ptr(),
            n_bindings: bindings.len() as u32,
            workspace: abi::Binding { buffer: workspace, byte_offset: 0 },
            ..sized!(abi::Launch)
        };
        let mut times = Vec::new();
        for _ in 0..200 {
            let t = Instant::now();
            slot!(plans, launch, plan, self.2, &launch)?;
            times.push(t.elapsed().as_nanos());
        }
        slot!(self.0.stream, sync, self.2)?;
        Ok(median(times))
    }
}

fn gemm(_: &CudaDevice) -> Result<Value> {
    let t = Table::open()?;
    let n = 96usize;
    let r = blas::routine(abi::BlasRoutine::GEMM.0).ok_or_else(|| wrong("no gemm"))?;
    let none = abi::BlasTrans::NO_TRANS.0;
    let side = n as i64;
    let desc = abi::BlasDesc {
        order: abi::BlasOrder::ROW_MAJOR.0, trans_a: none, trans_b: none, m: side, n: side, k: side, lda: side, ldb: side, ldc: side,
        ..blas::descriptor(r, &r.types[0])
    };
    let (x, y) = (numbers(n * n, 3), numbers(n * n, 4));
    let buffers = [t.buffer(4 * x.len() as u64, &x)?, t.buffer(4 * y.len() as u64, &y)?, t.buffer(4 * x.len() as u64, &[])?];
    let mut plan = core::ptr::null_mut();
    slot!(t.0.blas, plan, t.1, &desc, core::ptr::null(), &mut plan)?;
    // SAFETY: tables live as long as the process.
    let launch_ns = t.run(unsafe { (*t.0.blas).plans }, plan, &buffers)?;
    let got = t.read(buffers[2], n * n)?;
    let mut worst = 0f64;
    for i in 0..n {
        for j in 0..n {
            let products = |f: fn(f64) -> f64| (0..n).map(|k| f(f64::from(x[i * n + k]) * f64::from(y[k * n + j]))).sum::<f64>();
            worst = worst.max((f64::from(got[i * n + j]) - products(|p| p)).abs() / products(f64::abs));
        }
    }
    // tf32 would be off by about 1e-4.
    ensure(worst < 96.0 * 6e-8, || format!("sgemm is off by {worst:e} of the sum of magnitudes"))?;
    Ok(json!({ "worst": worst, "launch_ns": launch_ns }))
}

fn transform(_: &CudaDevice) -> Result<Value> {
    let t = Table::open()?;
    let mut worst = 0f64;
    let mut launch_ns = 0;
    for n in [1usize, 60, 97, 1000] {
        let desc = fft::descriptor(abi::FftKind::C2C, DType::F32, &[n as i64]);
        let x = numbers(2 * n, 5);
        let buffers = [t.buffer(8 * n as u64, &x)?, t.buffer(8 * n as u64, &[])?];
        let mut plan = core::ptr::null_mut();
        slot!(t.0.fft, plan, t.1, &desc, core::ptr::null(), &mut plan)?;
        // SAFETY: tables live as long as the process.
        launch_ns = t.run(unsafe { (*t.0.fft).plans }, plan, &buffers)?;
        let got = t.read(buffers[1], 2 * n)?;
        let (mut off, mut size) = (0f64, 0f64);
        for k in 0..n {
            let (mut re, mut im) = (0f64, 0f64);
            for j in 0..n {
                let (s, c) = (-2.0 * std::f64::consts::PI * (j * k % n) as f64 / n as f64).sin_cos();
                let (a, b) = (f64::from(x[2 * j]), f64::from(x[2 * j + 1]));
                (re, im) = (re + a * c - b * s, im + a * s + b * c);
            }
            off += (f64::from(got[2 * k]) - re).powi(2) + (f64::from(got[2 * k + 1]) - im).powi(2);
            size += re * re + im * im;
        }
        worst = worst.max((off / size).sqrt());
    }
    ensure(worst < 1e-6, || format!("c2c is off by {worst:e}"))?;
    Ok(json!({ "worst": worst, "launch_ns": launch_ns }))
}

const CHECKS: &[Check] = &[
    ("context", context),
    ("memory", memory),
    ("module", module),
    ("streams", streams),
    ("capture", capture),
    ("floor", floor::floor),
    ("sort", sort::sort),
    ("gemm", gemm),
    ("transform", transform),
];

fn main() {
    let device = match CudaDevice::open(0) {
        Ok(device) => device,
        Err(e) => {
            println!("{}", json!({ "check": "open", "ok": false, "error": e.to_string() }));
            std::process::exit(77);
        }
    };
    let facts = device.facts();
    println!("{}", json!({ "check": "open", "ok": true, "name": facts.name, "arch": facts.arch, "driver": facts.driver, "formats": format!("{:?}", facts.formats), "shared_bytes": facts.shared_bytes }));
    let (mut failed, wanted) = (0, std::env::args().skip(1).collect::<Vec<_>>());
    for (name, check) in CHECKS.iter().filter(|c| wanted.is_empty() || wanted.iter().any(|w| w == c.0)) {
        let started = Instant::now();
        let line = match check(&device) {
            Ok(found) => json!({ "check": name, "ok": true, "seconds": started.elapsed().as_secs_f64(), "found": found }),
            Err(e) => {
                failed += 1;
                json!({ "check": name, "ok": false, "error": e.to_string() })
            }
        };
        println!("{line}");
    }
    std::process::exit(i32::from(failed > 0));
}
