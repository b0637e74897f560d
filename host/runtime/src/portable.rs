//! Portable plans: the steps of a recipe compiled for a device, launched with the operands' addresses put in.

use core::mem::MaybeUninit;

use flagos_backend_api as abi;
use flagos_backend_api::{ArgKind, Binding, Code, Error, KernelArg, KernelLaunch, Result};
use flagos_compiler::{Compiled, Target};
use flagos_kernels::{Arg, Kernel, Recipe};

use crate::device::Device;
use crate::driver::Raw;
use crate::module::refusal;
use crate::stream::Stream;
use crate::work::Work;

/// Arguments kept on the stack during a launch; kernels with more go through the heap.
const STACK_ARGS: usize = 48;

/// Launches in order.
pub(crate) struct PortablePlan {
    table: &'static abi::ModuleTable,
    steps: Vec<Step>,
}

/// One launch, complete but for the addresses of operands and workspace.
struct Step {
    kernel: Raw<abi::Kernel>,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    args: Vec<KernelArg>,
    patches: Vec<Patch>,
}

/// Where an address goes; its argument's `byte_offset` holds what is added.
struct Patch {
    arg: u32,
    from: From,
}

enum From {
    Operand(u32),
    Workspace,
}

// SAFETY: the arguments hold no pointers but NULL until they are copied for a launch.
unsafe impl Send for Step {}
// SAFETY: as above.
unsafe impl Sync for Step {}

/// The recipe of a call on a device; UNIMPLEMENTED, with the reason, where there is none. Nothing is compiled.
pub(crate) fn recipe(device: &Device, work: &Work) -> Result<Recipe> {
    let Work::Op(call) = work else { return Err(Error::unimplemented("BLAS and FFT have no portable kernels")) };
    let target = device.target().ok_or_else(|| {
        Error::unimplemented(match device.info().formats.as_slice() {
            [] => "the device takes no kernels".to_owned(),
            formats => format!("the device takes {}, which this build does not write", formats.join(", ")),
        })
    })?;
    let cook = flagos_kernels::cook(call.operator.name).ok_or_else(|| Error::unimplemented("the operator has no portable kernel"))?;
    cook(call, target)
}

/// Keys of a recipe's kernels, each once, for people.
pub(crate) fn keys(recipe: &Recipe) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for step in &recipe.steps {
        if !keys.contains(&step.kernel.key.as_str()) {
            keys.push(&step.kernel.key);
        }
    }
    if keys.is_empty() { "nothing to do".to_owned() } else { keys.join(" + ") }
}

/// Compiles a kernel of a recipe.
fn compile(kernel: &Kernel, target: &Target) -> Result<Compiled> {
    flagos_compiler::compile(&(kernel.build)(), kernel.entry, target, &kernel.options).map_err(|e| {
        let e = refusal(&kernel.key, &e);
        // A portable kernel that is not valid is this build's own fault, not the caller's.
        if e.code == Code::INVALID_ARGUMENT { Error { code: Code::INTERNAL, ..e } } else { e }
    })
}

impl PortablePlan {
    /// Compiles what no cache holds.
    pub(crate) fn new(device: &Device, recipe: &Recipe) -> Result<PortablePlan> {
        PortablePlan::with(device, recipe, &compile)
    }

    /// As `new`, with a compiler of the caller's.
    pub(crate) fn with(device: &Device, recipe: &Recipe, compile: &dyn Fn(&Kernel, &Target) -> Result<Compiled>) -> Result<PortablePlan> {
        let table = device.driver().modules()?;
        let mut steps = Vec::with_capacity(recipe.steps.len());
        for step in recipe.steps.iter().filter(|s| !s.grid.contains(&0)) {
            let limit = device.info().max_grid;
            if step.grid.iter().zip(limit).any(|(n, most)| *n > most && most > 0) {
                return Err(Error::unimplemented(format!("'{}' wants a grid of {:?}; the device takes {limit:?}", step.kernel.key, step.grid)));
            }
            let options = &step.kernel.options;
            let key = format!("{} ({}, {} threads, {} stages)", step.kernel.key, step.kernel.entry, options.threads, options.stages);
            let loaded = device.load_kernel(&key, &|target| compile(&step.kernel, target)).map_err(|e| unfit(device, &step.kernel.key, e))?;
            let (args, patches) = template(&step.args);
            steps.push(Step { kernel: loaded.kernel, grid: step.grid, threads: loaded.threads, shared_bytes: loaded.shared_bytes, args, patches });
        }
        Ok(PortablePlan { table, steps })
    }

    /// Enqueues every step. `bindings` are the operands of the plan, checked.
    #[inline]
    pub(crate) fn launch(&self, stream: &Stream, bindings: &[Binding], workspace: *mut abi::Buffer) -> Result<()> {
        for step in &self.steps {
            if step.args.len() <= STACK_ARGS {
                let mut args = [const { MaybeUninit::<KernelArg>::uninit() }; STACK_ARGS];
                let args = args[..step.args.len()].write_copy_of_slice(&step.args);
                self.start(step, args, stream, bindings, workspace)?;
            } else {
                self.start(step, &mut step.args.clone(), stream, bindings, workspace)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn start(&self, step: &Step, args: &mut [KernelArg], stream: &Stream, bindings: &[Binding], workspace: *mut abi::Buffer) -> Result<()> {
        for patch in &step.patches {
            let place = &mut args[patch.arg as usize].binding;
            match patch.from {
                From::Operand(index) => {
                    let bound = &bindings[index as usize];
                    place.buffer = bound.buffer;
                    // An absent operand is NULL, wherever the kernel would begin in it.
                    place.byte_offset = if bound.buffer.is_null() { 0 } else { place.byte_offset.wrapping_add(bound.byte_offset) };
                }
                From::Workspace => place.buffer = workspace,
            }
        }
        let launch = KernelLaunch {
            size: KernelLaunch::SIZE,
            kind: KernelLaunch::KIND,
            grid: step.grid,
            block: [step.threads, 1, 1],
            shared_bytes: step.shared_bytes,
            n_args: args.len() as u32,
            args: args.as_ptr(),
        };
        stream.driver().kernel_launch(self.table, stream.0.raw, step.kernel, &launch)
    }
}

/// Arguments with everything known at plan time, and what is not.
fn template(list: &[Arg]) -> (Vec<KernelArg>, Vec<Patch>) {
    let mut patches = Vec::new();
    let buffer = |byte_offset| KernelArg { arg_kind: ArgKind::BUFFER.0, bytes: 0, scalar: 0, binding: Binding { buffer: core::ptr::null_mut(), byte_offset } };
    let args = list.iter().enumerate().map(|(i, arg)| match *arg {
        Arg::Operand { index, byte_offset } => {
            patches.push(Patch { arg: i as u32, from: From::Operand(index) });
            buffer(byte_offset as u64)
        }
        Arg::Workspace { byte_offset } => {
            patches.push(Patch { arg: i as u32, from: From::Workspace });
            buffer(byte_offset)
        }
        Arg::Scalar { bits, bytes } => KernelArg { arg_kind: ArgKind::SCALAR.0, bytes, scalar: bits, ..buffer(0) },
    });
    (args.collect(), patches)
}

/// A kernel that the chip's own compiler refuses is no offer: the call goes on to the next candidate, and somebody is told.
fn unfit(device: &Device, key: &str, e: Error) -> Error {
    if e.code != Code::INVALID_ARGUMENT {
        return e;
    }
    crate::log::warn(&format!("portable kernel '{key}' is refused by {}: {}", device.name(), e.message.lines().next().unwrap_or("")));
    Error { code: Code::UNIMPLEMENTED, ..e }
}
