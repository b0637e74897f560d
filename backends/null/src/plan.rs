//! Plans: prepared calls of operators, BLAS and FFT, and launches that only enqueue.

use std::sync::Arc;

use flagos_backend_api::vendor::{Answered, LaunchArgs, PlanFacts, Planned};
use flagos_backend_api::{Answer, BlasDesc, DType, Error, FftDesc, Result, Tensor, properties};
use flagos_catalog::blas::{self, Scalars};
use flagos_catalog::{Array, Call, Data, View, fft};

use crate::device::NullDevice;
use crate::fault;
use crate::memory::NullBuffer;
use crate::stream::NullStream;
use crate::worker::{Place, Task};

/// Operands of a call at most: launches carry them in place, so that they need no memory.
pub const MOST_OPERANDS: usize = 32;

/// What to compute.
pub enum Work {
    /// An operator.
    Operator(Call),
    /// A BLAS routine.
    Blas(BlasDesc),
    /// A Fourier transform.
    Fft(FftDesc),
}

/// A prepared call, shared by its launches. Replace: a compiled kernel, or the vendor library's plan.
pub struct Program {
    /// What to compute.
    pub work: Work,
    /// Operands in binding order.
    pub operands: Vec<View>,
}

// SAFETY: the only pointers in it are those of tensor descriptors, and `NullPlan::new` sets them to NULL.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// The results by operand. `inputs` has an array per operand; those of operands only written are not looked at.
    pub fn compute(&self, scalars: Scalars, inputs: &[Array]) -> Result<Vec<(usize, Array)>> {
        match &self.work {
            Work::Operator(call) => {
                let n = call.inputs.len();
                let results = (call.operator.reference)(call, &inputs[..n])?;
                Ok(results.into_iter().enumerate().map(|(i, r)| (n + i, r.value)).collect())
            }
            Work::Blas(desc) => Ok(blas::reference(desc, scalars, inputs)?.into_iter().map(|(i, r)| (i, r.value)).collect()),
            Work::Fft(desc) => Ok(vec![(1, fft::reference(desc, &inputs[0])?.value)]),
        }
    }
}

/// A plan: what the host's handle holds.
pub struct NullPlan {
    program: Arc<Program>,
    properties: u32,
    /// Type of alpha and beta.
    scalar: DType,
}

/// What a query answers for calls that are offered. Replace by `Answered::YES` where the chip beats a portable kernel, with your costs: a
/// launch in ns, ns per byte, ns per operation; orders of magnitude do.
pub fn offered(plan: Option<&NullPlan>, level: u32) -> Answered {
    let slow = Answered { answer: Answer::YES_SLOW, reason: "computed by the reference", ..Answered::YES };
    let cost = if level >= 2 { [20_000.0, 10.0, 100.0] } else { [0.0; 3] };
    fault::answered(match plan.map(Planned::facts) {
        None => slow,
        Some(facts) => Answered { properties: facts.properties, workspace_bytes: facts.workspace_bytes, cost, ..slow },
    })
}

impl NullPlan {
    /// Prepares checked work.
    pub fn new(mut work: Work) -> Result<NullPlan> {
        let view = |name, tensor: &Tensor, writes: bool| View { name, tensor: *tensor, origin: 0, reads: !writes, writes };
        let (operands, in_place, scalar) = match &mut work {
            Work::Operator(call) => {
                // Plans describe; launches bring the memory.
                call.inputs.iter_mut().chain(&mut call.outputs).for_each(|t| t.buffer = core::ptr::null_mut());
                let inputs = call.inputs.iter().map(|t| view("input", t, false));
                (inputs.chain(call.outputs.iter().map(|t| view("output", t, true))).collect(), call.operator.in_place, DType::NONE)
            }
            Work::Blas(desc) => (blas::views(desc), false, desc.compute_dtype),
            Work::Fft(desc) => (fft::views(desc), fft::may_be_in_place(desc), DType::NONE),
        };
        let operands: Vec<View> = operands;
        if operands.len() > MOST_OPERANDS {
            return Err(Error::unimplemented(format!("a call with {} operands; at most {MOST_OPERANDS} are possible", operands.len())));
        }
        let properties = properties::DETERMINISTIC | if in_place { properties::IN_PLACE } else { 0 };
        Ok(NullPlan { program: Arc::new(Program { work, operands }), properties, scalar })
    }

    /// The bits of a BLAS scalar: the address is the caller's, so they are copied before the launch returns.
    fn scalar(&self, address: *const core::ffi::c_void) -> Option<[u8; 16]> {
        let mut bits = [0; 16];
        if address.is_null() || self.scalar == DType::NONE {
            return None;
        }
        // SAFETY: the host passes NULL or the address of a scalar of the compute type.
        unsafe { address.cast::<u8>().copy_to(bits.as_mut_ptr(), self.scalar.bytes().min(16)) };
        Some(bits)
    }
}

impl Planned<NullDevice> for NullPlan {
    fn facts(&self) -> PlanFacts<'_> {
        PlanFacts { workspace_bytes: fault::workspace_bytes(), properties: self.properties, implementation: "catalogue reference" }
    }

    /// Replace: bind and submit. No compilation, no allocation, no waiting for the device.
    fn launch(&self, _: &NullDevice, stream: &NullStream, args: &LaunchArgs<'_, NullDevice>) -> Result<()> {
        let program = &self.program;
        fault::launch(stream, program)?;
        if args.len() != program.operands.len() {
            return Err(Error::invalid(format!("the call has {} operands, {} are bound", program.operands.len(), args.len())));
        }
        let mut places = [const { None }; MOST_OPERANDS];
        for (i, view) in program.operands.iter().enumerate() {
            places[i] = place(view, args.binding(i)).map_err(|e| e.at(i as u32))?;
        }
        fault::bound(program, &mut places);
        let workspace = args.workspace().map(|(buffer, offset)| buffer.place(offset));
        let scalars = [self.scalar(args.alpha()), self.scalar(args.beta())];
        stream.push(Task::Launch(Launch { program: program.clone(), places, workspace, scalars, scalar: self.scalar }))
    }
}

/// Where an operand lies; `None` for absent ones and those without elements.
fn place(view: &View, binding: Option<(&NullBuffer, u64)>) -> Result<Option<Place>> {
    let t = &view.tensor;
    if t.is_none() || t.elems() == 0 {
        return Ok(None);
    }
    let Some((buffer, offset)) = binding else { return Err(Error::invalid(format!("operand '{}' has elements and no buffer", view.name))) };
    let (low, high) = span(view, t);
    let have = buffer.0.bytes();
    let fits = offset.checked_add_signed(low).is_some() && offset.checked_add_signed(high).is_some_and(|end| end <= have);
    if !fits {
        return Err(Error::invalid(format!("operand '{}', {t:?} at byte {offset}, lies outside of a buffer of {have} bytes", view.name)));
    }
    Ok(Some(buffer.place(offset)))
}

/// Bytes an operand touches, relative to its binding, when it is read as `t`. Planning has made sure that they can be counted.
pub fn span(view: &View, t: &Tensor) -> (i64, i64) {
    let (low, high) = t.extent().unwrap_or((0, 0));
    let width = t.dtype.bytes() as i64;
    ((low + view.origin) * width, (high + view.origin) * width)
}

/// A launch on its way: the call with its memory.
pub struct Launch {
    /// What to run.
    pub program: Arc<Program>,
    /// Where the operands lie.
    pub places: [Option<Place>; MOST_OPERANDS],
    /// Scratch memory of the size the plan stated.
    pub workspace: Option<Place>,
    /// Bits of alpha and beta.
    scalars: [Option<[u8; 16]>; 2],
    scalar: DType,
}

impl Launch {
    /// Runs on the stream's worker: decode, compute, encode. Inputs are read before outputs are written, so any of them may be one.
    pub fn run(&self) -> Result<()> {
        let program = &*self.program;
        let operands = || program.operands.iter().zip(&self.places);
        let load = |(view, place): (&View, &Option<Place>)| {
            if view.reads { load(view, &fault::layout(program, view), place.as_ref()) } else { Ok(Array::absent()) }
        };
        let mut inputs = operands().map(load).collect::<Result<Vec<Array>>>()?;
        fault::inputs(program, &mut inputs);
        let mut results = program.compute(self.scalars()?, &inputs)?;
        fault::results(self, &inputs, &mut results);
        for (i, result) in &results {
            store(&program.operands[*i], self.places[*i].as_ref(), result)?;
        }
        fault::ran(self);
        Ok(())
    }

    /// alpha and beta.
    pub fn scalars(&self) -> Result<Scalars> {
        let value = |bits: &Option<[u8; 16]>| -> Result<_> {
            let Some(bits) = bits else { return Ok(None) };
            let array = Array::decode(&Tensor::contiguous(self.scalar, &[1]), bits, 0)?;
            Ok(Some(match &array.data {
                Data::Complex(v) => v[0],
                _ => array.floats()[0].into(),
            }))
        };
        Ok(fault::scalars(Scalars { alpha: value(&self.scalars[0])?, beta: value(&self.scalars[1])? }))
    }
}

fn load(view: &View, t: &Tensor, place: Option<&Place>) -> Result<Array> {
    let Some(place) = place else { return Array::decode(t, &[], 0) };
    let (low, high) = span(view, t);
    // SAFETY: `place` checked the range; streams order this task after what wrote it and before what overwrites it.
    let bytes = unsafe { place.block.read(place.offset.wrapping_add_signed(low), (high - low) as u64) };
    Array::decode(t, bytes, first(view, t))
}

fn store(view: &View, place: Option<&Place>, value: &Array) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let (t, (low, high)) = (&view.tensor, span(view, &view.tensor));
    // SAFETY: `place` checked the range; streams order this task alone on it.
    let bytes = unsafe { place.block.write(place.offset.wrapping_add_signed(low), (high - low) as u64) };
    fault::store(t, value, bytes, first(view, t)).unwrap_or_else(|| value.encode(t, bytes, first(view, t)))
}

/// Byte of element (0, …, 0) within the operand's span.
fn first(view: &View, t: &Tensor) -> usize {
    (view.origin * t.dtype.bytes() as i64 - span(view, t).0) as usize
}
