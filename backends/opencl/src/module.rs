//! Kernels: OpenCL C compiled by the driver, entry points, launches.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use flagos_backend_api::vendor::{Argument, Backend, CompileRequest, Grid, Modules};
use flagos_backend_api::{Code, Error, KernelFormat, Result};

use crate::device::OpenClDevice;
use crate::driver::{self, Mem, Program, cl};
use crate::memory::OpenClBuffer;
use crate::stream::OpenClStream;
use crate::{OpenCl, binary};

/// Kernel objects per entry point: setting arguments and launching are calls of their own, so a launch has a kernel object to itself. One for all
/// would be as fast (measured with PoCL: 2.6 µs per launch by two threads, either way), but a stream on which the driver makes a launch wait
/// would then keep all others from this kernel.
const COPIES: usize = 4;

/// A compiled program.
pub struct OpenClModule {
    program: Program,
    name: String,
}

/// An entry point.
pub struct OpenClKernel {
    copies: [Mutex<driver::Kernel>; COPIES],
    /// The copy to try first.
    turn: AtomicUsize,
    name: String,
    parameters: u32,
    /// The block size its code demands, if it does.
    required: Option<[u64; 3]>,
    max_block_threads: u64,
    shared_bytes: u64,
    spill_bytes: u64,
}

impl OpenClKernel {
    /// A copy for this launch alone: a free one where there is one.
    fn take(&self) -> MutexGuard<'_, driver::Kernel> {
        let first = self.turn.load(Ordering::Relaxed);
        for i in 0..COPIES {
            match self.copies[(first + i) % COPIES].try_lock() {
                Ok(copy) => return copy,
                Err(TryLockError::Poisoned(copy)) => return copy.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let next = self.turn.fetch_add(1, Ordering::Relaxed) % COPIES;
        self.copies[next].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks extents the driver would refuse with less of an explanation; the total and the block as the driver wants them.
    fn extents(&self, grid: &Grid) -> Result<([usize; 3], [usize; 3])> {
        let block = grid.block.map(u64::from);
        let threads = block.iter().try_fold(1u64, |n, b| n.checked_mul(*b)).unwrap_or(u64::MAX);
        if grid.shared_bytes != 0 {
            return Err(Error::invalid(format!("kernel '{}': {} bytes of dynamic shared memory; OpenCL C declares its shared memory in the kernel", self.name, grid.shared_bytes)));
        }
        if threads == 0 || threads > self.max_block_threads {
            return Err(Error::invalid(format!("kernel '{}': a block of {block:?} threads; it runs with 1 to {} here", self.name, self.max_block_threads)));
        }
        if let Some(required) = self.required.filter(|r| *r != block) {
            return Err(Error::invalid(format!("kernel '{}': a block of {block:?} threads; its code demands {required:?}", self.name)));
        }
        let total = [0, 1, 2].map(|i| grid.grid[i] as usize * grid.block[i] as usize);
        Ok((total, block.map(|b| b as usize)))
    }

    fn set<'a>(&self, copy: &mut driver::Kernel, args: impl ExactSizeIterator<Item = Argument<'a, OpenClBuffer>>) -> Result<()> {
        let mut next = 0;
        for (i, argument) in args.enumerate() {
            let at = |e: Error| Error { message: format!("kernel '{}', argument {i}: {}", self.name, e.message), ..e }.at(i as u32);
            let width = if matches!(argument, Argument::Buffer(_)) { 2 } else { 1 };
            if next + width > self.parameters {
                return Err(self.miscounted());
            }
            match argument {
                Argument::Buffer(None) => set_buffer(copy, next, None, 0),
                Argument::Buffer(Some((b, offset))) if offset <= b.bytes() => set_buffer(copy, next, Some(&b.mem), b.base + offset),
                Argument::Buffer(Some((b, offset))) => Err(Error::invalid(format!("byte offset {offset} lies outside of a buffer of {} bytes", b.bytes()))),
                Argument::Scalar { bits, bytes } => copy.set_value(next, &bits.to_le_bytes()[..bytes as usize]),
            }
            .map_err(at)?;
            next += width;
        }
        if next == self.parameters { Ok(()) } else { Err(self.miscounted()) }
    }

    fn miscounted(&self) -> Error {
        let rule = "a buffer fills two, its memory and a ulong offset; a scalar fills one";
        Error::invalid(format!("kernel '{}' has {} parameters, which the arguments do not fill: {rule}", self.name, self.parameters))
    }
}

fn set_buffer(copy: &mut driver::Kernel, index: u32, memory: Option<&Mem>, offset: u64) -> Result<()> {
    copy.set_buffer(index, memory)?;
    copy.set_value(index + 1, &offset.to_le_bytes())
}

impl OpenClDevice {
    /// The options of a build: the caller's words, and what the format promises whatever they say.
    fn options(&self, words: &str) -> Result<String> {
        let mut options: Vec<&str> = Vec::new();
        for word in words.split_whitespace() {
            let belongs = options.last().is_some_and(|last| matches!(*last, "-D" | "-I"));
            if !word.starts_with('-') && !belongs {
                return Err(Error::invalid(format!("the compiler option '{word}': options of OpenCL C begin with '-'")));
            }
            options.push(word);
        }
        if !options.iter().any(|o| o.starts_with("-cl-std=")) {
            options.push("-cl-std=CL1.2");
        }
        // Without it f32 division may be off by 2.5 ULP and the square root by 3.
        if self.chip.facts.rounds_divide {
            options.push("-cl-fp32-correctly-rounded-divide-sqrt");
        }
        Ok(options.join(" "))
    }
}

impl Modules for OpenClDevice {
    type Module = OpenClModule;
    type Kernel = OpenClKernel;

    fn compile(&self, request: &CompileRequest<'_>) -> Result<OpenClModule> {
        if request.format != KernelFormat::OPENCL_C {
            return Err(Error::unimplemented(format!("kernel format {} is not taken here; OpenCL C ({}) is", request.format, KernelFormat::OPENCL_C.0)));
        }
        self.chip.alive()?;
        let (chip, name) = (&self.chip, if request.name.is_empty() { "kernel" } else { &request.name });
        let options = self.options(&request.options)?;
        let program = if request.is_binary {
            let binary = binary::unwrap(&chip.facts.arch, &chip.facts.driver, OpenCl::BUILD_ID, request.code)?;
            chip.context.program_of_binary(chip.device, binary).map_err(|e| Error { code: Code::DATA_LOSS, ..e })?
        } else {
            if request.code.is_empty() {
                return Err(Error::invalid(format!("the source of module '{name}' is empty")));
            }
            // Contraction is on by default in OpenCL C and off by the format's rules; `#line` keeps the numbers of messages right.
            let safe: String = name.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
            let head = format!("#pragma OPENCL FP_CONTRACT OFF\n#line 1 \"{safe}\"\n");
            chip.context.program(&[head.as_bytes(), request.code])?
        };
        program.build(chip.device, &options).map_err(|(e, log)| {
            let code = match e.code {
                _ if request.is_binary => Code::DATA_LOSS,
                Code::RESOURCE_EXHAUSTED | Code::UNAVAILABLE | Code::DEVICE_LOST => e.code,
                _ => Code::INVALID_ARGUMENT,
            };
            let log = if log.is_empty() { "the compiler left no log" } else { &log };
            Error { code, message: format!("module '{name}', options '{options}': {}\n{log}", e.message), ..e }
        })?;
        Ok(OpenClModule { program, name: name.to_owned() })
    }

    fn kernel(&self, module: &OpenClModule, name: &str) -> Result<OpenClKernel> {
        let make = || module.program.kernel(name).map_err(|e| Error { message: format!("module '{}', entry point '{name}': {}", module.name, e.message), ..e });
        let first = make()?;
        let property = |what| first.on_device(self.chip.device, what);
        let number = |what| property(what).first().copied().unwrap_or(0);
        let required = <[u64; 3]>::try_from(property(cl::CL_KERNEL_COMPILE_WORK_GROUP_SIZE)).ok().filter(|r| *r != [0; 3]);
        Ok(OpenClKernel {
            parameters: first.parameters()?,
            required,
            max_block_threads: number(cl::CL_KERNEL_WORK_GROUP_SIZE),
            shared_bytes: number(cl::CL_KERNEL_LOCAL_MEM_SIZE),
            spill_bytes: number(cl::CL_KERNEL_PRIVATE_MEM_SIZE),
            copies: [Mutex::new(first), Mutex::new(make()?), Mutex::new(make()?), Mutex::new(make()?)],
            turn: AtomicUsize::new(0),
            name: name.to_owned(),
        })
    }

    fn kernel_facts(&self, kernel: &OpenClKernel) -> Result<[u32; 4]> {
        // OpenCL does not tell registers.
        Ok([0, kernel.shared_bytes as u32, kernel.spill_bytes as u32, kernel.max_block_threads as u32])
    }

    fn launch_kernel<'a>(&self, stream: &OpenClStream, kernel: &OpenClKernel, grid: &Grid, args: impl ExactSizeIterator<Item = Argument<'a, OpenClBuffer>>) -> Result<()> {
        let (total, block) = kernel.extents(grid)?;
        let mut copy = kernel.take();
        kernel.set(&mut copy, args)?;
        // A grid without blocks is no work, and no mistake.
        stream.enqueue(!total.contains(&0), |queue| {
            copy.enqueue(queue, &total, &block).map_err(|e| Error { message: format!("kernel '{}', grid {:?}, block {:?}: {}", kernel.name, grid.grid, grid.block, e.message), ..e })
        })
    }

    fn binary(&self, module: &OpenClModule) -> Result<Vec<u8>> {
        let binary = module.program.binary()?;
        if binary.is_empty() {
            return Err(Error::unimplemented(format!("the driver of {} hands out no binaries", self.chip.facts.name)));
        }
        Ok(binary::wrap(&self.chip.facts.arch, &self.chip.facts.driver, OpenCl::BUILD_ID, &binary))
    }
}
