//! Kernels of the caller's own: Triton dialect compiled for a device, launched with buffers and numbers.

use std::sync::Arc;

use flagos_backend_api as abi;
use flagos_backend_api::{ArgKind, Binding, Code, Error, KernelArg, KernelLaunch, Result};
use flagos_compiler::tile::{Function, Item, Program, Type, parse};
use flagos_compiler::{Elem, Options, Target};

use crate::device::Device;
use crate::memory::Buffer;
use crate::module::Loaded;
pub use crate::module::refusal;
use crate::plan::{Dead, bury};
use crate::stream::Stream;

/// Threads of a block where the caller has no wish: four warps, as in Triton.
const USUAL_THREADS: u32 = 128;

/// What a kernel takes at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A buffer of elements.
    Pointer(Elem),
    /// A number.
    Scalar(Elem),
}

impl core::fmt::Display for Parameter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Parameter::Pointer(elem) => write!(f, "pointer to {elem}"),
            Parameter::Scalar(elem) => write!(f, "{elem}"),
        }
    }
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug)]
pub enum KernelArgument<'a> {
    /// A buffer, from a byte offset on, which is a multiple of the element size.
    Buffer(&'a Buffer, u64),
    /// No buffer; the kernel must not follow it.
    Null,
    /// A number's bits, zero-extended.
    Scalar(u64),
}

/// A compiled kernel. Cloning shares it; it may be launched from several threads on several streams.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

struct Inner {
    device: Device,
    table: &'static abi::ModuleTable,
    loaded: Loaded,
    name: String,
    parameters: Vec<Parameter>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        bury(&self.device, Dead::Kernel(self.loaded));
    }
}

/// Reads Triton dialect text and finds the function to compile: the one named, or the only public one for an empty name.
pub fn read(text: &str, name: &str) -> Result<(Program, String)> {
    let program = parse::parse(text).map_err(|e| Error::invalid(e.to_string()))?;
    let kernels: Vec<&str> = program.functions.iter().filter(|f| f.public).map(|f| f.name.as_str()).collect();
    let chosen = match (name, kernels.as_slice()) {
        ("", [only]) => (*only).to_owned(),
        ("", []) => return Err(Error::invalid("the text holds no public function")),
        ("", many) => return Err(Error::invalid(format!("the text holds several kernels ({}); name one", many.join(", ")))),
        (name, many) if many.contains(&name) => name.to_owned(),
        (name, many) => return Err(Error::new(Code::NOT_FOUND, format!("there is no kernel '{name}'; there are: {}", many.join(", ")))),
    };
    Ok((program, chosen))
}

/// What a function takes.
pub fn parameters(function: &Function) -> Result<Vec<Parameter>> {
    let one = |(i, value): (usize, &flagos_compiler::tile::Value)| match function.ty(*value) {
        Type::Scalar(Item::Ptr(elem)) => Ok(Parameter::Pointer(*elem)),
        Type::Scalar(Item::Elem(elem)) => Ok(Parameter::Scalar(*elem)),
        other => Err(Error::unimplemented(format!("kernel '{}': parameter {i} is {other:?}; pointers and numbers can be passed", function.name))),
    };
    function.body.args.iter().enumerate().map(one).collect()
}

/// The options for a target: `threads` of a block where the caller has a wish, as many as usual for 0.
pub fn options(target: &Target, threads: u32) -> Result<Options> {
    // Where a block is one thread its program does the work of all, however many were asked for.
    let usual = USUAL_THREADS.min(target.max_block_threads);
    let threads = if threads == 0 || usual == 1 { usual } else { threads };
    if !threads.is_power_of_two() || threads > target.max_block_threads {
        return Err(Error::invalid(format!("{threads} threads in a block; powers of two up to {} are possible", target.max_block_threads)));
    }
    Ok(Options { threads, ..Options::default() })
}

/// `(pointer to f32, i32)`.
pub fn signature(parameters: &[Parameter]) -> String {
    let list: Vec<String> = parameters.iter().map(Parameter::to_string).collect();
    format!("({})", list.join(", "))
}

impl Device {
    /// Compiles a kernel of Triton dialect text for this device; slow where no cache holds it. `name` is empty where there is only one;
    /// `threads` of a block, 0: as usual.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for text that is wrong, with the line; UNIMPLEMENTED for what the compiler or the device cannot do.
    pub fn compile(&self, text: &str, name: &str, threads: u32) -> Result<Kernel> {
        let target = self.target().ok_or_else(|| Error::unimplemented(format!("{} takes no kernels in a format this build writes", self.name())))?;
        let (program, name) = read(text, name)?;
        let options = options(target, threads)?;
        let function = program.function(&name).ok_or_else(|| Error::new(Code::NOT_FOUND, format!("there is no kernel '{name}'")))?;
        let parameters = parameters(function)?;
        let digest: String = crate::cache::name(&[text]).iter().map(|b| format!("{b:02x}")).collect();
        let key = format!("{name} of {digest} ({} threads, {} stages)", options.threads, options.stages);
        let make = |target: &Target| flagos_compiler::compile(&program, &name, target, &options).map_err(|e| refusal(&name, &e));
        let loaded = self.make_kernel(&key, &make)?;
        Ok(Kernel(Arc::new(Inner { device: self.clone(), table: self.driver().modules()?, loaded, name, parameters })))
    }
}

impl Kernel {
    /// Name of its function.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// The device it was compiled for.
    pub fn device(&self) -> &Device {
        &self.0.device
    }
    /// What it takes.
    pub fn parameters(&self) -> &[Parameter] {
        &self.0.parameters
    }
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.0.loaded.threads
    }

    /// Enqueues a launch of `grid` blocks; one with a zero extent does nothing. What the kernel does with its pointers is the caller's to answer for.
    pub fn launch(&self, stream: &Stream, grid: [u32; 3], args: &[KernelArgument<'_>]) -> Result<()> {
        let kernel = &*self.0;
        if args.len() != kernel.parameters.len() {
            let takes = signature(&kernel.parameters);
            return Err(Error::invalid(format!("kernel '{}' takes {} arguments {takes}, {} were given", kernel.name, kernel.parameters.len(), args.len())));
        }
        if !Arc::ptr_eq(&stream.0.device.0, &kernel.device.0) {
            let (own, other) = (kernel.device.name(), stream.device().name());
            return Err(Error::invalid(format!("kernel '{}' was compiled for {own} and launched on a stream of {other}", kernel.name)));
        }
        let list = args.iter().zip(&kernel.parameters).enumerate().map(|(i, (a, p))| kernel.argument(i, a, *p)).collect::<Result<Vec<_>>>()?;
        kernel.device.driver().check_health()?;
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = KernelLaunch {
            size: KernelLaunch::SIZE,
            kind: KernelLaunch::KIND,
            grid,
            block: [kernel.loaded.threads, 1, 1],
            shared_bytes: kernel.loaded.shared_bytes,
            n_args: list.len() as u32,
            args: list.as_ptr(),
        };
        stream.driver().kernel_launch(kernel.table, stream.0.raw, kernel.loaded.kernel, &launch)?;
        stream.advance()
    }
}

impl Inner {
    fn argument(&self, index: usize, argument: &KernelArgument<'_>, parameter: Parameter) -> Result<KernelArg> {
        let wrong = |what: String| Error::invalid(format!("kernel '{}', argument {index}: {what}; it takes {}", self.name, signature(&self.parameters))).at(index as u32);
        let none = Binding { buffer: core::ptr::null_mut(), byte_offset: 0 };
        let buffer = |binding| KernelArg { arg_kind: ArgKind::BUFFER.0, bytes: 0, scalar: 0, binding };
        match (*argument, parameter) {
            (KernelArgument::Null, Parameter::Pointer(_)) => Ok(buffer(none)),
            (KernelArgument::Buffer(b, byte_offset), Parameter::Pointer(elem)) => {
                if !Arc::ptr_eq(&b.0.device.0, &self.device.0) {
                    return Err(wrong(format!("a buffer of {} for a kernel of {}", b.device().name(), self.device.name())));
                }
                if byte_offset > b.bytes() || !byte_offset.is_multiple_of(u64::from(elem.bytes())) {
                    return Err(wrong(format!("byte offset {byte_offset} in a buffer of {} bytes and elements of {}", b.bytes(), elem.bytes())));
                }
                Ok(buffer(Binding { buffer: b.0.raw.as_ptr(), byte_offset }))
            }
            (KernelArgument::Scalar(bits), Parameter::Scalar(elem)) => Ok(KernelArg { arg_kind: ArgKind::SCALAR.0, bytes: elem.bytes(), scalar: bits, binding: none }),
            (KernelArgument::Scalar(_), Parameter::Pointer(_)) => Err(wrong("a number where a buffer is taken".into())),
            (_, Parameter::Scalar(_)) => Err(wrong("a buffer where a number is taken".into())),
        }
    }
}

impl core::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Kernel({}{} on {})", self.0.name, signature(&self.0.parameters), self.0.device.name())
    }
}
