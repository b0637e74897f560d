//! A backend whose kernels are the definitions' references, and which has one defect at a time when asked: the suite's own test piece.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use flagos_backend_api::vendor::{
    AllocRequest, Answered, Backend, Blas, Device, DeviceFacts, Domains, Fft, LaunchArgs, Memory, OpRef, Operators, PlanFacts, Planned, ProbeFacts, State,
    StreamRequest, Streams, blas_table, fft_table, op_table, query,
};
use flagos_backend_api::{BackendV1, BlasDesc, Code, DeviceKind, Error, FftDesc, HostV1, MemoryKind, PlanLimits, Result, Status, Tensor, caps, properties};
use flagos_catalog::{Array, Call, blas, fft};

/// Name of the variable that names the defect.
pub const DEFECT: &str = "FLAGOS_TEST_DEFECT";

static CHOSEN: LazyLock<String> = LazyLock::new(|| std::env::var(DEFECT).unwrap_or_default());

fn defect(name: &str) -> bool {
    *CHOSEN == name
}

static STATE: State = State::new();

pub struct Piece;

impl Backend for Piece {
    const NAME: &'static str = "reference";
    const VERSION: &'static str = "1";
    const VENDOR: &'static str = "test";
    const BUILD_ID: &'static str = "test";
    const DOMAINS: Domains =
        Domains { op: Some(op_table::<Self>()), blas: Some(blas_table::<Self>()), fft: Some(fft_table::<Self>()), ..Domains::NONE };
    type Device = Chip;

    fn state() -> &'static State {
        &STATE
    }
    fn probe() -> Result<Vec<ProbeFacts>> {
        if defect("absent") {
            return Ok(vec![]);
        }
        Ok(vec![ProbeFacts {
            score: 1,
            kind: DeviceKind::ACCELERATOR,
            name: "Reference".into(),
            arch: "definition".into(),
            driver: "1.0".into(),
            reason: String::new(),
            uuid: [0; 16],
            pci: u64::MAX,
            caps: caps::SYNCHRONOUS,
        }])
    }
    fn open(ordinal: u32) -> Result<Chip> {
        if ordinal > 0 {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no device {ordinal}")));
        }
        Ok(Chip)
    }
}

/// # Safety
/// As the contract states for the entry.
pub unsafe extern "C" fn entry(host: *const HostV1, why_not: *mut *mut Status) -> *const BackendV1 {
    // SAFETY: passed on to the caller.
    unsafe { query::<Piece>(host, why_not) }
}

pub struct Chip;

/// Words, for their alignment.
pub struct Block(Mutex<Box<[u128]>>, u64);

impl Block {
    fn with<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = words.len() * 16;
        // SAFETY: the words are plain bytes and locked.
        f(unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), bytes) })
    }
}

impl Device for Chip {
    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: "Reference",
            arch: "definition",
            driver: "1.0",
            kind: DeviceKind::ACCELERATOR,
            memory_bytes: 1 << 30,
            caps: caps::SYNCHRONOUS,
            compute_units: 1,
            alignment_bytes: 16,
            memory_kinds: &[MemoryKind::DEVICE],
            formats: &[],
            max_block_threads: 1,
            shared_bytes: 0,
            subgroup: (0, 0),
            max_grid: [1; 3],
            matrix_shapes: &[],
        }
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

impl Memory for Chip {
    type Buffer = Block;

    fn alloc(&self, request: &AllocRequest) -> Result<Block> {
        if request.kind != MemoryKind::DEVICE {
            return Err(Error::unimplemented("there is only device memory"));
        }
        if defect("leak") {
            STATE.host().alloc(64, 16);
        }
        let code = if defect("exhaustion") { Code::INTERNAL } else { Code::RESOURCE_EXHAUSTED };
        if request.bytes > 1 << 30 {
            return Err(Error::new(code, format!("{} bytes are not to be had", request.bytes)));
        }
        Ok(Block(Mutex::new(vec![0u128; request.bytes.div_ceil(16) as usize].into()), request.bytes))
    }
    fn bytes(&self, buffer: &Block) -> u64 {
        buffer.1
    }
    unsafe fn read(&self, _: &(), src: &Block, offset: u64, dst: *mut u8, bytes: u64) -> Result<()> {
        // SAFETY: the glue checked the range, the caller vouches for `dst`.
        src.with(|b| unsafe { core::ptr::copy(b.as_ptr().add(offset as usize), dst, bytes as usize) });
        Ok(())
    }
    unsafe fn write(&self, _: &(), dst: &Block, offset: u64, src: *const u8, bytes: u64) -> Result<()> {
        let bytes = if defect("short-write") && bytes > 4096 { bytes - 1 } else { bytes };
        // SAFETY: the glue checked the range, the caller vouches for `src`.
        dst.with(|b| unsafe { core::ptr::copy(src, b.as_mut_ptr().add(offset as usize), bytes as usize) });
        Ok(())
    }
    fn copy(&self, _: &(), dst: &Block, dst_offset: u64, src: &Block, src_offset: u64, bytes: u64) -> Result<()> {
        let from = if defect("copy-offset") { src_offset & !15 } else { src_offset } as usize;
        let taken = src.with(|b| b[from..from + bytes as usize].to_vec());
        dst.with(|b| b[dst_offset as usize..][..taken.len()].copy_from_slice(&taken));
        Ok(())
    }
    fn fill(&self, _: &(), dst: &Block, offset: u64, pattern: &[u8], bytes: u64) -> Result<()> {
        let pattern = if defect("fill-byte") { &pattern[..1] } else { pattern };
        dst.with(|b| b[offset as usize..(offset + bytes) as usize].chunks_mut(pattern.len()).for_each(|c| c.copy_from_slice(&pattern[..c.len()])));
        Ok(())
    }
}

pub struct Timeline(Mutex<u64>, Condvar);

impl Streams for Chip {
    type Stream = ();
    type Event = Timeline;

    fn create_stream(&self, _: &StreamRequest) -> Result<()> {
        Ok(())
    }
    fn sync_stream(&self, (): &()) -> Result<()> {
        Ok(())
    }
    fn is_idle(&self, (): &()) -> Result<bool> {
        Ok(!defect("never-idle"))
    }
    fn create_event(&self) -> Result<Timeline> {
        Ok(Timeline(Mutex::new(0), Condvar::new()))
    }
    fn signal(&self, (): &(), event: &Timeline, value: u64) -> Result<()> {
        let mut at = event.0.lock().unwrap_or_else(PoisonError::into_inner);
        if value <= *at && !defect("timeline-falls") {
            return Err(Error::invalid(format!("{value} is not above {at}")));
        }
        *at = value;
        event.1.notify_all();
        Ok(())
    }
    fn wait(&self, (): &(), event: &Timeline, value: u64) -> Result<()> {
        if defect("dropped-wait") { Ok(()) } else { self.sync_event(event, value, u64::MAX) }
    }
    fn event_value(&self, event: &Timeline) -> Result<u64> {
        Ok(*event.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn sync_event(&self, event: &Timeline, value: u64, timeout_ns: u64) -> Result<()> {
        let at = event.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = Duration::from_nanos(timeout_ns.min(1 << 60));
        let (at, _) = event.1.wait_timeout_while(at, timeout, |at| *at < value).unwrap_or_else(PoisonError::into_inner);
        if *at >= value {
            return Ok(());
        }
        let code = if defect("deadline") { Code::ABORTED } else { Code::DEADLINE_EXCEEDED };
        Err(Error::new(code, format!("the timeline stands at {at}, not at {value}")))
    }
}

enum Work {
    Op(Box<Call>),
    Blas(BlasDesc),
    Fft(FftDesc),
}

pub struct Kernel {
    work: Work,
    first: Mutex<Option<Vec<Array>>>,
}

// SAFETY: a call's descriptors hold NULL pointers only.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Operators for Chip {
    type OpPlan = Kernel;

    fn query_op(&self, op: OpRef<'_>, _: u32) -> Result<Answered> {
        // SAFETY: an OpRef's descriptor is valid by construction.
        let call = unsafe { Call::from_abi(op.raw()) }.and_then(|c| c.check().map(|()| c));
        let Ok(call) = call else { return Ok(Answered::no("no valid call")) };
        let hidden = ["unoffered", "plans-unoffered", "refusal-code"].into_iter().any(defect) && call.operator.name == "add";
        Ok(if hidden { Answered::no("left out") } else { Answered::YES })
    }
    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<Kernel> {
        // SAFETY: an OpRef's descriptor is valid by construction.
        let call = unsafe { Call::from_abi(op.raw()) }?;
        call.check()?;
        let add = call.operator.name == "add";
        if (defect("unoffered") || defect("plan-refuses")) && add {
            return Err(Error::unimplemented("left out"));
        }
        if defect("refusal-code") && add {
            return Err(Error::new(Code::INTERNAL, "left out"));
        }
        Ok(Kernel { work: Work::Op(Box::new(call)), first: Mutex::new(None) })
    }
}

impl Blas for Chip {
    type BlasPlan = Kernel;

    fn query_blas(&self, desc: &BlasDesc, _: u32) -> Result<Answered> {
        Ok(if blas::check(desc).is_ok() { Answered::YES } else { Answered::no("no valid call") })
    }
    fn plan_blas(&self, desc: &BlasDesc, _: &PlanLimits) -> Result<Kernel> {
        blas::check(desc)?;
        Ok(Kernel { work: Work::Blas(*desc), first: Mutex::new(None) })
    }
}

impl Fft for Chip {
    type FftPlan = Kernel;

    fn query_fft(&self, desc: &FftDesc, _: u32) -> Result<Answered> {
        Ok(if fft::check(desc).is_ok() { Answered::YES } else { Answered::no("no valid call") })
    }
    fn plan_fft(&self, desc: &FftDesc, _: &PlanLimits) -> Result<Kernel> {
        fft::check(desc)?;
        Ok(Kernel { work: Work::Fft(*desc), first: Mutex::new(None) })
    }
}

impl Kernel {
    /// Operands as (descriptor, elements from the binding to element (0, …, 0), written), in binding order.
    fn operands(&self) -> Vec<(Tensor, i64, bool)> {
        match &self.work {
            Work::Op(call) => call.inputs.iter().map(|t| (*t, 0, false)).chain(call.outputs.iter().map(|t| (*t, 0, true))).collect(),
            Work::Blas(desc) => blas::views(desc).iter().map(|v| (v.tensor, v.origin, v.writes)).collect(),
            Work::Fft(desc) => fft::views(desc).iter().map(|v| (v.tensor, v.origin, v.writes)).collect(),
        }
    }
    fn results(&self, arrays: &[Array], scalars: blas::Scalars) -> Result<Vec<(usize, Array)>> {
        match &self.work {
            Work::Op(call) => {
                let n = call.inputs.len();
                Ok((call.operator.reference)(call, &arrays[..n])?.into_iter().enumerate().map(|(i, r)| (n + i, r.value)).collect())
            }
            Work::Fft(desc) => Ok(vec![(1, fft::reference(desc, &arrays[0])?.value)]),
            Work::Blas(desc) => Ok(blas::reference(desc, scalars, arrays)?.into_iter().map(|(i, r)| (i, r.value)).collect()),
        }
    }
    fn scalars(&self, args: &LaunchArgs<'_, Chip>) -> Result<blas::Scalars> {
        let Work::Blas(desc) = &self.work else { return Ok(blas::Scalars { alpha: None, beta: None }) };
        let read = |at: *const core::ffi::c_void| -> Result<Option<num_complex::Complex<f64>>> {
            if at.is_null() {
                return Ok(None);
            }
            // SAFETY: the host passes a value of the compute type.
            let bytes = unsafe { core::slice::from_raw_parts(at.cast::<u8>(), desc.compute_dtype.bytes()) };
            let array = Array::decode(&Tensor::contiguous(desc.compute_dtype, &[]), bytes, 0)?;
            Ok(Some(match array.data {
                flagos_catalog::Data::Complex(v) => v[0],
                _ => num_complex::Complex::new(array.floats()[0], 0.0),
            }))
        };
        Ok(blas::Scalars { alpha: read(args.alpha())?, beta: read(args.beta())? })
    }
}

impl Planned<Chip> for Kernel {
    fn facts(&self) -> PlanFacts<'_> {
        let in_place = match &self.work {
            Work::Op(call) => call.operator.in_place,
            Work::Blas(_) => false,
            Work::Fft(desc) => fft::may_be_in_place(desc),
        };
        let in_place = if in_place { properties::IN_PLACE } else { 0 };
        PlanFacts {
            workspace_bytes: if ["workspace-overrun", "workspace-zero"].into_iter().any(defect) { 40 } else { 0 },
            properties: properties::DETERMINISTIC | in_place,
            implementation: "definition",
        }
    }

    fn launch(&self, chip: &Chip, stream: &(), args: &LaunchArgs<'_, Chip>) -> Result<()> {
        sabotage(args)?;
        let operands = self.operands();
        let at = |k: usize| operands[k].1 * operands[k].0.dtype.bytes() as i64 + args.binding(k).map_or(0, |b| b.1 as i64);
        if defect("in-place") {
            clear(&operands, args, &at);
        }
        let decode = |k: usize| match args.binding(k) {
            Some((block, _)) => block.with(|b| Array::decode(&operands[k].0, b, at(k) as usize)),
            None => Ok(Array::absent()),
        };
        let arrays = (0..operands.len()).map(decode).collect::<Result<Vec<_>>>()?;
        let mut results = self.results(&arrays, self.scalars(args)?)?;
        if defect("stale-result") {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = first.get_or_insert_with(|| results.iter().map(|(_, a)| a.clone()).collect());
            results.iter_mut().zip(kept.iter()).for_each(|(r, k)| r.1 = k.clone());
        }
        if defect("workspace-zero")
            && let Some((block, offset)) = args.workspace()
            && block.with(|b| b[offset as usize] & 1 != 0)
        {
            results.iter_mut().for_each(|(_, a)| spoil(a, 0, 3.0));
        }
        for (k, mut array) in results {
            let Some((block, _)) = args.binding(k) else { continue };
            let mut tensor = operands[k].0;
            twist(&mut array, &mut tensor, &arrays[k], matches!(self.work, Work::Op(_)));
            block.with(|b| array.encode(&tensor, b, at(k) as usize))?;
            let end = at(k) as usize + tensor.extent().map_or(0, |e| e.1 as usize) * tensor.dtype.bytes();
            if defect("overrun") {
                block.with(|b| b[end] ^= 0x55);
            }
            if defect("bool") && tensor.dtype.is_bool() {
                block.with(|b| b[at(k) as usize] = 2);
            }
        }
        if defect("modifies-input")
            && let Some((block, offset)) = args.binding(0).filter(|_| !operands[0].2)
        {
            chip.fill(stream, block, offset, &[0x77], 1)?;
        }
        Ok(())
    }
}

/// Writes zeros to outputs before inputs are read.
fn clear(operands: &[(Tensor, i64, bool)], args: &LaunchArgs<'_, Chip>, at: &dyn Fn(usize) -> i64) {
    for (k, (tensor, _, _)) in operands.iter().enumerate().filter(|(_, o)| o.2) {
        if let Some((block, _)) = args.binding(k) {
            let shape: Vec<usize> = tensor.shape().iter().map(|n| *n as usize).collect();
            let zeros = Array::int(&shape, vec![0; tensor.elems() as usize]);
            let _ = block.with(|b| zeros.encode(tensor, b, at(k) as usize));
        }
    }
}

/// Defects that have nothing to do with values.
fn sabotage(args: &LaunchArgs<'_, Chip>) -> Result<()> {
    match CHOSEN.as_str() {
        "panic" => panic!("planted"),
        "crash" => {
            // SAFETY: none; the fault is the point.
            unsafe { core::ptr::null_mut::<u8>().wrapping_add(16).write_volatile(1) }
        }
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "exit" => std::process::exit(0),
        "launch-allocates" => drop(STATE.host().alloc(8, 8)),
        "launch-fails" => return Err(Error::new(Code::INTERNAL, "planted")),
        "workspace-overrun" => {
            if let Some((block, offset)) = args.workspace() {
                // Beyond the 40 bytes, and within any allocation.
                block.with(|b| b[(offset as usize + 40).min(b.len() - 1)] ^= 0xff);
            }
        }
        _ => {}
    }
    Ok(())
}

fn spoil(array: &mut Array, index: usize, by: f64) {
    match &mut array.data {
        flagos_catalog::Data::Float(v) if index < v.len() => v[index] = v[index] * (1.0 + by) + by,
        flagos_catalog::Data::Int(v) if index < v.len() => v[index] ^= 1,
        flagos_catalog::Data::Complex(v) if index < v.len() => v[index] += by,
        _ => {}
    }
}

/// Defects of values and places.
fn twist(array: &mut Array, tensor: &mut Tensor, before: &Array, op: bool) {
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);
    let last = array.len().wrapping_sub(1);
    match CHOSEN.as_str() {
        "last-element" => spoil(array, last, 1.0),
        "noise" => spoil(array, 0, (LAUNCHES.fetch_add(1, Ordering::Relaxed) + 1) as f64),
        "accumulates" => {
            if let (flagos_catalog::Data::Int(v), flagos_catalog::Data::Int(old)) = (&mut array.data, &before.data) {
                v.iter_mut().zip(old).for_each(|(v, old)| *v += old);
            }
            if let (flagos_catalog::Data::Float(v), flagos_catalog::Data::Float(old)) = (&mut array.data, &before.data) {
                v.iter_mut().zip(old).for_each(|(v, old)| *v += if old.is_finite() { *old } else { 1e30 });
            }
        }
        "skips-last" if op && last < usize::MAX && tensor.rank > 0 && tensor.shape[0] > 1 => {
            let per = array.len() / tensor.shape[0] as usize;
            tensor.shape[0] -= 1;
            let keep = array.len() - per;
            match &mut array.data {
                flagos_catalog::Data::Int(v) => v.truncate(keep),
                flagos_catalog::Data::Float(v) => v.truncate(keep),
                flagos_catalog::Data::Complex(v) => v.truncate(keep),
            }
            array.shape[0] -= 1;
        }
        "ignores-strides" => *tensor = Tensor::contiguous(tensor.dtype, tensor.shape()),
        _ => {}
    }
}
