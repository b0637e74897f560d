//! What a launch costs the host: the driver's own calls with nothing around them, and the same kernel through the backend.

use core::ffi::{CStr, c_void};
use std::time::Instant;

use cudarc::driver::sys;
use flagos_backend_api as abi;
use flagos_backend_api::{ArgKind, Binding, KernelArg, KernelFormat, Result};
use flagos_backend_cuda::CudaDevice;
use flagos_backend_cuda::compile::{Image, compile, target};
use flagos_backend_cuda::driver::check;
use serde_json::{Value, json};

use crate::{ADD, N, Table, median, sized, slot, wrong};

/// Launches of a batch: fewer than the driver's queue holds, so that the host never waits for the device.
const LAUNCHES: usize = 400;
const BATCHES: usize = 25;

/// Nanoseconds of a call, the device idle before each batch: the median of the batches' means.
fn timed(idle: &dyn Fn() -> Result<()>, mut call: impl FnMut() -> Result<()>) -> Result<u128> {
    let mut means = Vec::new();
    for _ in 0..BATCHES {
        idle()?;
        let started = Instant::now();
        for _ in 0..LAUNCHES {
            call()?;
        }
        means.push(started.elapsed().as_nanos() / LAUNCHES as u128);
    }
    idle()?;
    Ok(median(means))
}

fn row(what: &str, ns: u128) {
    println!("{}", json!({ "check": "floor", "what": what, "launches": LAUNCHES, "ns": ns }));
}

/// The kernel `add` of 3 pointers and a length, as the driver loads it: as a function of a context and as a kernel of none.
struct Bare {
    function: sys::CUfunction,
    kernel: sys::CUkernel,
    stream: sys::CUstream,
    addresses: [u64; 3],
}

impl Bare {
    fn load(d: &CudaDevice, stream: sys::CUstream, addresses: [u64; 3]) -> Result<Bare> {
        let Image::Cubin(code) = compile(ADD.as_bytes(), "floor.cu", &target(d.chip().capability)?, "")? else { return Err(wrong("no machine code")) };
        let (mut module, mut function, mut library, mut kernel) = (core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut());
        const NAME: &CStr = c"add";
        let _entered = d.chip().enter()?;
        // SAFETY: the context is current, the image whole, the name NUL-terminated, the places writable. Both stay loaded until the program ends.
        unsafe {
            let (none, nothing) = (core::ptr::null_mut(), core::ptr::null_mut());
            check(sys::cuModuleLoadData(&mut module, code.as_ptr().cast()), "cuModuleLoadData")?;
            check(sys::cuModuleGetFunction(&mut function, module, NAME.as_ptr()), "cuModuleGetFunction")?;
            let loaded = sys::cuLibraryLoadData(&mut library, code.as_ptr().cast(), core::ptr::null_mut(), none, 0, core::ptr::null_mut(), nothing, 0);
            check(loaded, "cuLibraryLoadData")?;
            check(sys::cuLibraryGetKernel(&mut kernel, library, NAME.as_ptr()), "cuLibraryGetKernel")?;
        }
        Ok(Bare { function, kernel, stream, addresses })
    }

    /// One launch of a function or kernel: parameters by their addresses, or as one piece of memory.
    fn launch(&self, code: sys::CUfunction, packed: bool) -> Result<()> {
        let [a, b, y] = self.addresses;
        let mut memory = [a, b, y, N as u64];
        let mut bytes = 28usize;
        let at = memory.as_mut_ptr();
        let mut places: [*mut c_void; 4] = [at.cast(), at.wrapping_add(1).cast(), at.wrapping_add(2).cast(), at.wrapping_add(3).cast()];
        let mark = core::ptr::without_provenance_mut::<c_void>;
        let mut list = [mark(1), at.cast(), mark(2), (&raw mut bytes).cast(), mark(0)];
        let (params, extra) = if packed { (core::ptr::null_mut(), list.as_mut_ptr()) } else { (places.as_mut_ptr(), core::ptr::null_mut()) };
        // SAFETY: the kernel's parameters are 3 addresses of live memory and a length, which both forms give; the driver copies them.
        check(unsafe { sys::cuLaunchKernel(code, N as u32 / 256, 1, 1, 256, 1, 1, 0, self.stream, params, extra) }, "cuLaunchKernel")
    }
}

/// Prints one line per way to launch; the difference between ours and the driver's fastest.
pub fn floor(d: &CudaDevice) -> Result<Value> {
    let t = Table::open()?;
    let buffers = [t.buffer(4096, &[1.0; N])?, t.buffer(4096, &[2.0; N])?, t.buffer(4096, &[])?];
    let mut addresses = [0; 3];
    for (buffer, address) in buffers.iter().zip(&mut addresses) {
        slot!(t.0.memory, device_ptr, *buffer, address)?;
    }
    let mut native = 0;
    slot!(t.0.stream, native, t.2, &mut native)?;
    let bare = Bare::load(d, native as usize as sys::CUstream, addresses)?;
    let idle = || slot!(t.0.stream, sync, t.2);
    let (function, kernel) = (bare.function, bare.kernel.cast());
    bare.launch(kernel, true)?;
    let got = t.read(buffers[2], N)?;
    crate::ensure(got.iter().all(|y| *y == 3.0), || "a launch with packed parameters is wrong".into())?;

    let entered = d.chip().enter()?;
    let mut least = u128::MAX;
    for (what, code, packed) in [
        ("cuLaunchKernel of a function, its context current, parameters by address", function, false),
        ("cuLaunchKernel of a function, its context current, parameters packed", function, true),
        ("cuLaunchKernel of a kernel, a context current, parameters by address", kernel, false),
        ("cuLaunchKernel of a kernel, a context current, parameters packed", kernel, true),
    ] {
        let ns = timed(&idle, || bare.launch(code, packed))?;
        row(what, ns);
        least = least.min(ns);
    }
    drop(entered);
    row("cuLaunchKernel of a function, the context pushed and popped around it, parameters by address", timed(&idle, || {
        let _entered = d.chip().enter()?;
        bare.launch(function, false)
    })?);
    row("cuLaunchKernel of a kernel, no context current, parameters packed", timed(&idle, || bare.launch(kernel, true))?);

    let code = abi::CompileDesc { format: KernelFormat::CUDA_CPP.0, code: abi::Str::borrowed(ADD), ..sized!(abi::CompileDesc) };
    let (mut module, mut own) = (core::ptr::null_mut(), core::ptr::null_mut());
    slot!(t.0.module, compile, t.1, &code, &mut module)?;
    slot!(t.0.module, kernel, module, abi::Str::borrowed("add"), &mut own)?;
    let args = core::array::from_fn::<KernelArg, 4, _>(|i| match buffers.get(i) {
        Some(buffer) => KernelArg { arg_kind: ArgKind::BUFFER.0, bytes: 0, scalar: 0, binding: Binding { buffer: *buffer, byte_offset: 0 } },
        None => KernelArg { arg_kind: ArgKind::SCALAR.0, bytes: 4, scalar: N as u64, binding: Binding { buffer: core::ptr::null_mut(), byte_offset: 0 } },
    });
    let grid = ([N as u32 / 256, 1, 1], [256, 1, 1]);
    let launch = abi::KernelLaunch { grid: grid.0, block: grid.1, n_args: args.len() as u32, args: args.as_ptr(), ..sized!(abi::KernelLaunch) };
    let ours = timed(&idle, || slot!(t.0.module, launch, t.2, own, &launch))?;
    row("the backend's module table, no context current", ours);
    let entered = d.chip().enter()?;
    let current = timed(&idle, || slot!(t.0.module, launch, t.2, own, &launch))?;
    row("the backend's module table, its context current", current);
    drop(entered);
    Ok(json!({ "least_driver_ns": least, "module_table_ns": ours, "difference_ns": ours as i128 - least as i128 }))
}
