//! Portable plans: the steps of a recipe compiled for a device, launched with the operands' addresses put in.

use core::mem::MaybeUninit;

use flagos_backend_api as abi;
use flagos_backend_api::{ArgKind, Binding, Code, Error, KernelArg, KernelLaunch, Result};
use flagos_compiler::{Compiled, Target};
use flagos_kernels::{Arg, Kernel, Recipe};

use crate::device::Device;
use crate::module::{Loaded, refusal};
use crate::plan::Operand;
use crate::stream::Stream;
use crate::work::Work;

/// Arguments kept on the stack during a launch; kernels with more go through the heap.
const STACK_ARGS: usize = 48;

/// Alignment that the faster variants of kernels count on, in bytes.
const WIDE: u64 = 16;

/// Launches in order.
pub(crate) struct PortablePlan {
    table: &'static abi::ModuleTable,
    steps: Vec<Step>,
}

/// One launch, complete but for the addresses of operands and workspace.
struct Step {
    kernel: Loaded,
    /// Runs instead when every buffer argument lies at a multiple of [`WIDE`] bytes.
    aligned: Option<Loaded>,
    grid: [u32; 3],
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

impl Device {
    /// The portable kernels of a call and their launches; nothing is compiled.
    ///
    /// # Errors
    /// UNIMPLEMENTED, with the reason, where there are none.
    pub fn recipe(&self, work: &Work) -> Result<Recipe> {
        work.check()?;
        recipe(self, work)
    }
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
            let load = |kernel: &Kernel| {
                let key = format!("{} ({}, {} threads, {} stages)", kernel.key, kernel.entry, kernel.options.threads, kernel.options.stages);
                device.load_kernel(&key, &|target| compile(kernel, target)).map_err(|e| unfit(device, &kernel.key, e))
            };
            let (args, patches) = template(&step.args);
            steps.push(Step { kernel: load(&step.kernel)?, aligned: step.aligned.as_ref().map(load).transpose()?, grid: step.grid, args, patches });
        }
        Ok(PortablePlan { table, steps })
    }

    /// Enqueues every step. The operands fit the plan.
    #[inline]
    pub(crate) fn launch(&self, stream: &Stream, operands: &[Operand], workspace: *mut abi::Buffer) -> Result<()> {
        for step in &self.steps {
            if step.args.len() <= STACK_ARGS {
                let mut args = [const { MaybeUninit::<KernelArg>::uninit() }; STACK_ARGS];
                let args = args[..step.args.len()].write_copy_of_slice(&step.args);
                self.start(step, args, stream, operands, workspace)?;
            } else {
                self.start(step, &mut step.args.clone(), stream, operands, workspace)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn start(&self, step: &Step, args: &mut [KernelArg], stream: &Stream, operands: &[Operand], workspace: *mut abi::Buffer) -> Result<()> {
        let mut wide = true;
        for patch in &step.patches {
            let place = &mut args[patch.arg as usize].binding;
            match patch.from {
                From::Operand(index) => match &operands[index as usize] {
                    Some((buffer, offset)) => {
                        place.buffer = buffer.0.raw.as_ptr();
                        place.byte_offset = place.byte_offset.wrapping_add(*offset);
                        wide &= buffer.0.aligned;
                    }
                    // An absent operand is NULL, wherever the kernel would begin in it.
                    None => place.byte_offset = 0,
                },
                From::Workspace => place.buffer = workspace,
            }
            wide &= place.byte_offset.is_multiple_of(WIDE);
        }
        let kernel = step.aligned.as_ref().filter(|_| wide).unwrap_or(&step.kernel);
        let launch = KernelLaunch {
            size: KernelLaunch::SIZE,
            kind: KernelLaunch::KIND,
            grid: step.grid,
            block: [kernel.threads, 1, 1],
            shared_bytes: kernel.shared_bytes,
            n_args: args.len() as u32,
            args: args.as_ptr(),
        };
        stream.driver().kernel_launch(self.table, stream.0.raw, kernel.kernel, &launch)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use flagos_compiler::{Options, tile};

    use super::*;
    use crate::discover::{DirectBackend, Options as Discovery};
    use crate::{Policy, Runtime};

    /// The processor, unless this machine has no C compiler.
    fn device() -> Option<Device> {
        let direct = DirectBackend { name: flagos_backend_cpu::NAME.into(), query: flagos_backend_cpu::query_embedded };
        let runtime = Runtime::with_options(&Discovery::with_folders(Vec::new()), &[direct], Policy::default()).unwrap();
        Some(runtime.open("embedded").unwrap()).filter(|d| d.target().is_some())
    }

    fn kernel(key: &str) -> Kernel {
        Kernel { key: format!("{key} {}", std::process::id()), entry: "f", options: Options { threads: 1, stages: 1 }, build: Arc::new(tile::Program::default) }
    }

    fn code(body: &str) -> Compiled {
        let code = format!("#include <stdint.h>\n#include <stddef.h>\nvoid f(const uint32_t b[3], const uint32_t g[3], void *const *args, void *s) {{ {body} }}");
        Compiled { code: code.into_bytes(), entry: "f".into(), options: String::new(), threads: 1, shared_bytes: 0 }
    }

    fn step(kernel: Kernel, aligned: Option<Kernel>, grid: u32, args: Vec<Arg>) -> flagos_kernels::Step {
        flagos_kernels::Step { kernel, aligned, grid: [grid, 1, 1], args }
    }

    /// y = (x + 3) · 2 through the workspace; the aligned variant of the second step adds 1000.
    fn compiled(kernel: &Kernel) -> Compiled {
        match kernel.key.split(' ').next().unwrap() {
            "add" => code("((uint32_t *)args[1])[b[0]] = ((uint32_t *)args[0])[b[0]] + *(uint32_t *)args[2];"),
            "double" => code("((uint32_t *)args[1])[b[0]] = 2 * ((uint32_t *)args[0])[b[0]]; if (args[2]) ((uint32_t *)args[1])[b[0]] = 7;"),
            _ => code("((uint32_t *)args[1])[b[0]] = 1000 + 2 * ((uint32_t *)args[0])[b[0]];"),
        }
    }

    #[test]
    fn steps_run_in_order_with_operands_workspace_and_numbers_put_in() {
        let Some(device) = device() else { return };
        let at = |index, byte_offset| Arg::Operand { index, byte_offset };
        let work = Arg::Workspace { byte_offset: 64 };
        let recipe = Recipe {
            steps: vec![
                step(kernel("add"), None, 4, vec![at(0, 4), work, Arg::Scalar { bits: 3, bytes: 4 }]),
                step(kernel("never"), None, 0, vec![]),
                step(kernel("double"), Some(kernel("wide")), 4, vec![work, at(2, 0), at(1, 8)]),
            ],
            workspace_bytes: 128,
            deterministic: true,
        };
        let plan = PortablePlan::with(&device, &recipe, &|k, _| Ok(compiled(k))).unwrap();
        assert_eq!(plan.steps.len(), 2);
        let stream = device.stream().unwrap();
        let (x, y, workspace) = (device.alloc(64).unwrap(), device.alloc(64).unwrap(), device.alloc(128).unwrap());
        let words = |list: &[u32]| list.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        stream.write(&x, 0, &words(&[9, 10, 20, 30, 40])).unwrap();
        for (offset, want) in [(16, [1026, 1046, 1066, 1086]), (4, [26, 46, 66, 86])] {
            plan.launch(&stream, &[Some((&x, 0)), None, Some((&y, offset))], workspace.0.raw.as_ptr()).unwrap();
            let mut got = vec![0; 16];
            stream.read(&y, offset, &mut got).unwrap();
            assert_eq!(got, words(&want), "at {offset}");
        }
    }

    #[test]
    fn equal_kernels_are_compiled_once_whoever_asks() {
        let Some(device) = device() else { return };
        let made = AtomicU32::new(0);
        let recipe = Recipe { steps: vec![step(kernel("double once"), None, 1, vec![]); 2], ..Recipe::default() };
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let plan = PortablePlan::with(&device, &recipe, &|k, _| {
                        made.fetch_add(1, Ordering::Relaxed);
                        Ok(compiled(k))
                    });
                    assert_eq!(plan.unwrap().steps.len(), 2);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn code_the_chip_refuses_is_no_offer() {
        let Some(device) = device() else { return };
        let recipe = Recipe { steps: vec![step(kernel("broken"), None, 1, vec![])], ..Recipe::default() };
        let refused = PortablePlan::with(&device, &recipe, &|_, _| Ok(code("not C at all"))).err().unwrap();
        assert!(refused.code == Code::UNIMPLEMENTED && refused.message.contains("error"), "{refused}");
    }
}
