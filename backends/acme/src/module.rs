//! Kernels: C source compiled, entry points found, blocks run.

use std::sync::Arc;

use flagos_backend_api::vendor::{Argument, Backend, CompileRequest, Grid, Modules};
use flagos_backend_api::{Code, Error, KernelFormat, Result};

use crate::chip::{self, Program};
use crate::device::AcmeDevice;
use crate::memory::AcmeBuffer;
use crate::stream::AcmeStream;

/// Most arguments of a kernel: a launch allocates nothing, so their list lies on the stack.
const ARGUMENTS: usize = 128;

/// Compiled code.
pub struct AcmeModule {
    program: Arc<Program>,
    name: String,
}

/// An entry point, with the program it lies in.
pub struct AcmeKernel {
    entry: chip::Entry,
    _program: Arc<Program>,
}

/// First line of a binary: what it was compiled by and for, and a digest of what follows.
fn stamp(driver: &str, code: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut digest = DefaultHasher::new();
    code.hash(&mut digest);
    format!("{} {driver} {:016x}\n", crate::Acme::BUILD_ID, digest.finish())
}

impl Modules for AcmeDevice {
    type Module = AcmeModule;
    type Kernel = AcmeKernel;

    fn compile(&self, request: &CompileRequest<'_>) -> Result<AcmeModule> {
        if request.format != KernelFormat::C {
            return Err(Error::unimplemented(format!("kernel format {} is not taken here; C ({}) is", request.format, KernelFormat::C.0)));
        }
        let named = |e: Error| Error { message: format!("module '{}': {}", request.name, e.message), ..e };
        let program = if request.is_binary {
            let end = request.code.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1);
            let (head, code) = request.code.split_at(end);
            if head != stamp(self.driver, code).as_bytes() {
                return Err(named(Error::new(Code::DATA_LOSS, "the binary is of another build or compiler, or damaged; compile the source again")));
            }
            Program::load(code)
        } else {
            Program::compile(request.code, &request.options)
        };
        Ok(AcmeModule { program: Arc::new(program.map_err(named)?), name: request.name.clone() })
    }

    fn kernel(&self, module: &AcmeModule, name: &str) -> Result<AcmeKernel> {
        let missing = || Error::new(Code::NOT_FOUND, format!("module '{}' has no entry point '{name}'", module.name));
        Ok(AcmeKernel { entry: module.program.entry(name).ok_or_else(missing)?, _program: module.program.clone() })
    }

    fn launch_kernel<'a>(&self, _stream: &AcmeStream, kernel: &AcmeKernel, grid: &Grid, args: impl ExactSizeIterator<Item = Argument<'a, AcmeBuffer>>) -> Result<()> {
        if args.len() > ARGUMENTS || grid.shared_bytes > chip::SHARED_BYTES {
            let (n, shared) = (args.len(), grid.shared_bytes);
            return Err(Error::invalid(format!("{n} arguments and {shared} bytes of shared memory; at most {ARGUMENTS} and {} are possible", chip::SHARED_BYTES)));
        }
        let (mut scalars, mut places) = ([0u64; ARGUMENTS], [0usize; ARGUMENTS]);
        let count = args.len();
        for ((argument, scalar), place) in args.zip(&mut scalars).zip(&mut places) {
            *place = match argument {
                Argument::Buffer(None) => 0,
                Argument::Buffer(Some((buffer, offset))) => buffer.range.at(offset) as usize,
                Argument::Scalar { bits, .. } => {
                    *scalar = bits.to_le();
                    core::ptr::from_ref(scalar) as usize
                }
            };
        }
        // SAFETY: the host vouches for the code and for its arguments; buffers, scalars and the program live until the call is over.
        unsafe { chip::run(kernel.entry, grid.grid, grid.shared_bytes, &places[..count]) }
    }

    fn binary(&self, module: &AcmeModule) -> Result<Vec<u8>> {
        let code = module.program.code();
        Ok([stamp(self.driver, code).as_bytes(), code].concat())
    }
}
