//! The device that kernels run on, spirv-val, and comparison with the interpreter.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use flagos_backend_api::KernelFormat;
use flagos_compiler::emit::emit;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::{Kernel, interpret, verify};
use flagos_compiler::{Compiled, Elem, Target};

use crate::support::{self, Backend, call};

/// The best device with its target; `None` where the environment allows that there is none.
pub fn device() -> Option<&'static (Backend, Target)> {
    static DEVICE: OnceLock<Option<(Backend, Target)>> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            // SAFETY: before anything else in this process reads the environment through the loader; Mesa's cache does not tell vector widths apart.
            unsafe { std::env::set_var("MESA_SHADER_CACHE_DISABLE", "true") };
            let backend = Backend::open()?;
            let info = backend.info();
            // SAFETY: text of an open device.
            let arch = unsafe { info.arch.to_owned_text() };
            let target = Target {
                format: KernelFormat::SPIRV_VULKAN,
                arch,
                caps: info.caps,
                max_block_threads: info.max_block_threads,
                shared_bytes: info.shared_bytes,
                subgroup: info.subgroup_min,
                matrix: Vec::new(),
            };
            Some((backend, target))
        })
        .as_ref()
}

/// Has spirv-val look at code; says so where it is not installed.
pub fn validate(code: &[u8]) {
    let tool = Command::new("spirv-val").args(["--target-env", "vulkan1.1", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else {
        eprintln!("spirv-val is not installed (scripts/setup does): code is not validated");
        return;
    };
    tool.stdin.take().expect("stdin").write_all(code).expect("spirv-val reads");
    let out = tool.wait_with_output().expect("spirv-val ends");
    assert!(out.status.success(), "spirv-val: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Emits and validates.
pub fn compile(kernel: &Kernel, target: &Target) -> Compiled {
    verify::verify(kernel).expect("the kernel is well-formed");
    let compiled = emit(kernel, target).expect("emit");
    validate(&compiled.code);
    compiled
}

/// Launches compiled code; buffers hold the results.
pub fn launch(backend: &Backend, compiled: &Compiled, grid: [u32; 3], args: &mut [Arg]) {
    let options: &'static str = compiled.options.clone().leak();
    let module = backend.compile(&compiled.code, options).unwrap_or_else(|e| panic!("{}", e.message));
    let kernel = backend.kernel_of(module, compiled.entry.clone().leak()).unwrap_or_else(|e| panic!("{}", e.message));
    let stream = backend.stream();
    let list: Vec<support::Arg> = args
        .iter()
        .map(|a| match a {
            Arg::Buffer(bytes) => {
                let buffer = backend.buffer((bytes.len() as u64).max(16));
                backend.write(stream, buffer, bytes);
                support::Arg::Buffer(buffer, 0)
            }
            Arg::Null => support::Arg::Buffer(core::ptr::null_mut(), 0),
            Arg::Scalar(bits) => support::Arg::Scalar(*bits, 8),
        })
        .collect();
    backend.launch(stream, kernel, grid, [compiled.threads, 1, 1], &list).unwrap_or_else(|e| panic!("{}", e.message));
    backend.sync(stream);
    for (arg, place) in args.iter_mut().zip(&list) {
        if let (Arg::Buffer(bytes), support::Arg::Buffer(buffer, _)) = (arg, place) {
            *bytes = backend.read::<u8>(stream, *buffer, bytes.len());
            call!(backend.memory(), free, *buffer).expect("free");
        }
    }
    call!(backend.modules(), destroy, module).expect("destroy");
    call!(backend.streams(), destroy, stream).expect("destroy");
}

/// Runs a kernel on the device.
pub fn run((backend, target): &(Backend, Target), kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) {
    launch(backend, &compile(kernel, target), grid, args);
}

/// Runs a kernel on the device and through the interpreter, and compares buffers as elements of the types given by argument.
pub fn agree(device: &(Backend, Target), kernel: &Kernel, grid: [u32; 3], args: &[Arg], elems: &[Elem]) {
    let (mut got, mut want) = (args.to_vec(), args.to_vec());
    interpret::run(kernel, grid, &mut want).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    run(device, kernel, grid, &mut got);
    for (i, ((got, want), elem)) in got.iter().zip(&want).zip(elems).enumerate() {
        if let (Arg::Buffer(got), Arg::Buffer(want)) = (got, want) {
            let bad = differences(*elem, got, want);
            assert!(bad.is_empty(), "argument {i} ({elem}) differs in {} places: {}\n{kernel}", bad.len(), bad[..bad.len().min(8)].join("; "));
        }
    }
}

/// Places where two buffers differ, NaNs being alike.
pub fn differences(elem: Elem, got: &[u8], want: &[u8]) -> Vec<String> {
    use interpret::scalar::float;
    let number = |b: &[u8]| b.iter().rev().fold(0u64, |all, b| all << 8 | u64::from(*b));
    let size = elem.bytes() as usize;
    let pairs = got.chunks(size).zip(want.chunks(size)).map(|(g, w)| (number(g), number(w))).enumerate();
    let same = |g, w| g == w || elem.is_float() && float(elem, g).is_nan() && float(elem, w).is_nan();
    pairs.filter(|(_, (g, w))| !same(*g, *w)).map(|(i, (g, w))| format!("[{i}] is {g:#x} ({}), not {w:#x} ({})", float(elem, g), float(elem, w))).collect()
}

/// Bytes of elements given by their bits.
pub fn buffer(elem: Elem, bits: impl IntoIterator<Item = u64>) -> Arg {
    Arg::Buffer(bits.into_iter().flat_map(|b| b.to_le_bytes()[..elem.bytes() as usize].to_vec()).collect())
}

/// A buffer of zeros.
pub fn zeros(elem: Elem, count: usize) -> Arg {
    Arg::Buffer(vec![0; count * elem.bytes() as usize])
}

