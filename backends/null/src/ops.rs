//! Operators: what is offered, plans, and launches that only enqueue.
//!
//! Here every operator of the catalogue is computed by its reference. A chip's backend offers the few it is good at and says NO to the rest:
//! the host then takes portable kernels or another device.

use std::sync::Arc;

use flagos_backend_api::vendor::{Answered, LaunchArgs, OpRef, Operators, PlanFacts, Planned};
use flagos_backend_api::{Answer, Error, PlanLimits, Result, Tensor, properties};
use flagos_catalog::{Array, Call, takes};

use crate::device::NullDevice;
use crate::fault;
use crate::memory::NullBuffer;
use crate::stream::NullStream;
use crate::worker::{Place, Task};

/// Operands of a call at most: launches carry them in place, so that they need no memory.
pub const MOST_OPERANDS: usize = 32;

/// One operand of a program.
pub struct Operand {
    /// Type, shape and strides.
    pub tensor: Tensor,
    /// The call reads it.
    pub reads: bool,
    /// The call writes it.
    pub writes: bool,
}

/// A prepared call, shared by its launches. Replace: a compiled kernel, or the vendor library's plan.
pub struct Program {
    /// What to compute.
    pub call: Call,
    /// Inputs in order, then outputs.
    pub operands: Vec<Operand>,
}

// SAFETY: the only pointers in it are those of tensor descriptors; `next` is NULL in every checked call, and `buffer` is set to NULL.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

/// A plan: what the host's handle holds.
pub struct NullPlan {
    program: Arc<Program>,
}

impl Operators for NullDevice {
    type OpPlan = NullPlan;

    /// Level 0 decides by id and types alone: it is asked at every call whose plan is not cached, and must stay below 50 ns.
    fn query_op(&self, op: OpRef<'_>, level: u32) -> Result<Answered> {
        if let Err(reason) = takes(op) {
            return Ok(Answered::no(reason));
        }
        if op.inputs().len() + op.outputs().len() > MOST_OPERANDS {
            return Ok(Answered::no("more than 32 operands"));
        }
        // Replace by `Answered::YES` where the chip beats a portable kernel.
        let slow = Answered { answer: Answer::YES_SLOW, reason: "computed by the reference", ..Answered::YES };
        if level == 0 {
            return Ok(fault::answered(slow));
        }
        let plan = self.plan_op(op, &PlanLimits { size: PlanLimits::SIZE, kind: PlanLimits::KIND, workspace_bytes: u64::MAX, deterministic: 0, flags: 0 })?;
        let facts = plan.facts();
        // Fixed cost of a launch in ns, ns per byte, ns per operation: orders of magnitude do.
        let cost = if level >= 2 { [20_000.0, 10.0, 100.0] } else { [0.0; 3] };
        Ok(fault::answered(Answered { properties: facts.properties, workspace_bytes: facts.workspace_bytes, cost, ..slow }))
    }

    /// May be slow: compile, ask the vendor library for its heuristics, allocate. Everything a launch needs is settled here.
    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<NullPlan> {
        // SAFETY: an OpRef's descriptor is valid by construction.
        let mut call = unsafe { Call::from_abi(op.raw()) }?;
        // Plans describe; launches bring the memory.
        call.inputs.iter_mut().chain(&mut call.outputs).for_each(|t| t.buffer = core::ptr::null_mut());
        call.check()?;
        fault::planned(self)?;
        let operand = |writes: bool| move |t: &Tensor| Operand { tensor: *t, reads: !writes, writes };
        let operands: Vec<Operand> = call.inputs.iter().map(operand(false)).chain(call.outputs.iter().map(operand(true))).collect();
        if operands.len() > MOST_OPERANDS {
            return Err(Error::unimplemented(format!("{} with {} operands; at most {MOST_OPERANDS} are possible", call.operator.name, operands.len())));
        }
        Ok(NullPlan { program: Arc::new(Program { call, operands }) })
    }
}

impl Planned<NullDevice> for NullPlan {
    fn facts(&self) -> PlanFacts<'_> {
        let in_place = if self.program.call.operator.in_place { properties::IN_PLACE } else { 0 };
        PlanFacts { workspace_bytes: fault::workspace_bytes(), properties: properties::DETERMINISTIC | in_place, implementation: "catalogue reference" }
    }

    /// Replace: bind and submit. No compilation, no allocation, no waiting for the device.
    fn launch(&self, _: &NullDevice, stream: &NullStream, args: &LaunchArgs<'_, NullDevice>) -> Result<()> {
        let program = &self.program;
        fault::launch(stream, program)?;
        if args.len() != program.operands.len() {
            let name = program.call.operator.name;
            return Err(Error::invalid(format!("{name} has {} operands, {} are bound", program.operands.len(), args.len())));
        }
        let mut places = [const { None }; MOST_OPERANDS];
        for (i, operand) in program.operands.iter().enumerate() {
            places[i] = place(operand, args.binding(i)).map_err(|e| e.at(i as u32))?;
        }
        fault::bound(program, &mut places);
        let workspace = args.workspace().map(|(buffer, offset)| buffer.place(offset));
        stream.push(Task::Launch(Launch { program: program.clone(), places, workspace }))
    }
}

/// Where an operand lies; `None` for absent ones and those without elements.
fn place(operand: &Operand, binding: Option<(&NullBuffer, u64)>) -> Result<Option<Place>> {
    let t = &operand.tensor;
    if t.is_none() || t.elems() == 0 {
        return Ok(None);
    }
    let Some((buffer, offset)) = binding else { return Err(Error::invalid("an operand with elements has no buffer")) };
    let (low, high) = span(t);
    let fits = offset.checked_add_signed(low).is_some() && offset.checked_add_signed(high).is_some_and(|end| end <= buffer.0.bytes());
    if !fits {
        let have = buffer.0.bytes();
        return Err(Error::invalid(format!("{t:?} at byte {offset} lies outside of a buffer of {have} bytes")));
    }
    Ok(Some(buffer.place(offset)))
}

/// Bytes a tensor touches, relative to element (0, …, 0). `Call::check` has made sure that they can be counted.
pub fn span(t: &Tensor) -> (i64, i64) {
    let (low, high) = t.extent().unwrap_or((0, 0));
    (low * t.dtype.bytes() as i64, high * t.dtype.bytes() as i64)
}

/// A launch on its way: the call with its memory.
pub struct Launch {
    /// What to run.
    pub program: Arc<Program>,
    /// Where the operands lie.
    pub places: [Option<Place>; MOST_OPERANDS],
    /// Scratch memory of the size the plan stated.
    pub workspace: Option<Place>,
}

impl Launch {
    /// Runs on the stream's worker: decode, compute, encode. Inputs are read before outputs are written, so any of them may be one.
    pub fn run(&self) -> Result<()> {
        let program = &*self.program;
        let mut inputs = Vec::with_capacity(program.operands.len());
        for (operand, place) in program.operands.iter().zip(&self.places).filter(|(o, _)| o.reads) {
            inputs.push(load(&fault::layout(&operand.tensor), place.as_ref())?);
        }
        fault::inputs(program, &mut inputs);
        let mut results: Vec<Array> = (program.call.operator.reference)(&program.call, &inputs)?.into_iter().map(|r| r.value).collect();
        fault::results(self, &inputs, &mut results);
        let outputs = program.operands.iter().zip(&self.places).filter(|(o, _)| o.writes);
        for ((operand, place), result) in outputs.zip(&results) {
            store(&operand.tensor, place.as_ref(), result)?;
        }
        fault::ran(self);
        Ok(())
    }
}

fn load(t: &Tensor, place: Option<&Place>) -> Result<Array> {
    let Some(place) = place else { return Array::decode(t, &[], 0) };
    let (low, high) = span(t);
    // SAFETY: `place` checked the range; streams order this task after what wrote it and before what overwrites it.
    let bytes = unsafe { place.block.read(place.offset.wrapping_add_signed(low), (high - low) as u64) };
    Array::decode(t, bytes, -low as usize)
}

fn store(t: &Tensor, place: Option<&Place>, value: &Array) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let (low, high) = span(t);
    // SAFETY: `place` checked the range; streams order this task alone on it.
    let bytes = unsafe { place.block.write(place.offset.wrapping_add_signed(low), (high - low) as u64) };
    fault::store(t, value, bytes, -low as usize).unwrap_or_else(|| value.encode(t, bytes, -low as usize))
}
