//! Kernels in C: arguments, blocks, shared memory, many arguments, refusals, binaries.

use flagos_backend_api::vendor::{AllocRequest, Argument, Backend, CompileRequest, Grid, Memory, Modules, StreamRequest, Streams};
use flagos_backend_api::{Code, KernelFormat, MemoryKind, Result};
use flagos_backend_cpu::{Cpu, CpuDevice, Embedded, toolchain};

type Module = <CpuDevice as Modules>::Module;
type Buffer = <CpuDevice as Memory>::Buffer;

/// The device, unless this machine has no C compiler.
fn device() -> Option<CpuDevice> {
    toolchain::system().ok().map(|_| Cpu::<Embedded>::open(0).unwrap())
}

fn compile(d: &CpuDevice, code: &[u8], options: &str, is_binary: bool) -> Result<Module> {
    d.compile(&CompileRequest { format: KernelFormat::C, is_binary, code, options: options.into(), name: "test".into() })
}

fn buffer(d: &CpuDevice, values: &[u64]) -> Buffer {
    let buffer = d.alloc(&AllocRequest { bytes: (values.len() * 8) as u64, alignment_bytes: 0, kind: MemoryKind::DEVICE }).unwrap();
    // SAFETY: the buffer has as many bytes.
    unsafe { d.write(&stream(d), &buffer, 0, values.as_ptr().cast(), (values.len() * 8) as u64) }.unwrap();
    buffer
}

fn read(d: &CpuDevice, buffer: &Buffer) -> Vec<u64> {
    let mut out = vec![0u64; d.bytes(buffer) as usize / 8];
    // SAFETY: the list has as many bytes.
    unsafe { d.read(&stream(d), buffer, 0, out.as_mut_ptr().cast(), d.bytes(buffer)) }.unwrap();
    out
}

fn stream(d: &CpuDevice) -> <CpuDevice as Streams>::Stream {
    d.create_stream(&StreamRequest { priority: 0, native: 0 }).unwrap()
}

fn launch(d: &CpuDevice, module: &Module, name: &str, grid: [u32; 3], shared_bytes: u32, args: Vec<Argument<'_, Buffer>>) -> Result<()> {
    let kernel = d.kernel(module, name)?;
    d.launch_kernel(&stream(d), &kernel, &Grid { grid, block: [1; 3], shared_bytes }, &mut args.into_iter())
}

const HEAD: &str = "#include <stdint.h>\n#include <stddef.h>\n#include <math.h>\n#include <string.h>\n";

fn source(body: &str) -> Vec<u8> {
    format!("{HEAD}void f(const uint32_t b[3], const uint32_t g[3], void *const *args, void *shared) {{ {body} }}").into_bytes()
}

#[test]
fn every_block_runs_once_and_knows_its_place() {
    let Some(d) = device() else { return };
    let module = compile(&d, &source("((uint64_t *)args[0])[b[0] + g[0] * (b[1] + g[1] * b[2])] += 1 + b[0] + 100 * b[1] + 10000 * b[2];"), "", false).unwrap();
    for grid in [[1, 1, 1], [5, 3, 2], [1, 70, 9], [300, 1, 1]] {
        let out = buffer(&d, &vec![0; (grid[0] * grid[1] * grid[2]) as usize]);
        launch(&d, &module, "f", grid, 0, vec![Argument::Buffer(Some((&out, 0)))]).unwrap();
        for (i, got) in read(&d, &out).into_iter().enumerate() {
            let (x, y) = (grid[0] as usize, grid[1] as usize);
            assert_eq!(got as usize, 1 + i % x + 100 * (i / x % y) + 10000 * (i / x / y), "{grid:?}, block {i}");
        }
    }
    launch(&d, &module, "f", [4, 0, 1], 0, vec![Argument::Buffer(None)]).unwrap();
}

#[test]
fn offsets_null_and_scalars_of_each_size_arrive() {
    let Some(d) = device() else { return };
    let body = "uint64_t *o = args[0]; o[0] = *(uint8_t *)args[1]; o[1] = *(uint16_t *)args[2]; o[2] = *(uint32_t *)args[3]; o[3] = *(uint64_t *)args[4]; \
                o[4] = args[5] == NULL; o[5] = ((uintptr_t)args[1] | (uintptr_t)args[4]) % 8;";
    let module = compile(&d, &source(body), "", false).unwrap();
    let out = buffer(&d, &[7; 8]);
    let scalar = |bits, bytes| Argument::Scalar { bits, bytes };
    let args = vec![Argument::Buffer(Some((&out, 8))), scalar(0xfe, 1), scalar(0xfedc, 2), scalar(0xfedc_ba98, 4), scalar(0xfedc_ba98_7654_3210, 8), Argument::Buffer(None)];
    launch(&d, &module, "f", [1; 3], 0, args).unwrap();
    assert_eq!(read(&d, &out), [7, 0xfe, 0xfedc, 0xfedc_ba98, 0xfedc_ba98_7654_3210, 1, 0, 7]);
}

#[test]
fn more_arguments_than_fit_the_stack() {
    let Some(d) = device() else { return };
    let module = compile(&d, &source("uint64_t s = 0; for (int i = 1; i < 101; i++) s += *(uint64_t *)args[i]; *(uint64_t *)args[0] = s;"), "", false).unwrap();
    let out = buffer(&d, &[0]);
    let args = core::iter::once(Argument::Buffer(Some((&out, 0)))).chain((1..101).map(|i| Argument::Scalar { bits: i, bytes: 8 })).collect();
    launch(&d, &module, "f", [1; 3], 0, args).unwrap();
    assert_eq!(read(&d, &out), [5050]);
}

#[test]
fn shared_memory_is_a_blocks_own_and_aligned() {
    let Some(d) = device() else { return };
    let body = "uint64_t *s = shared; for (int i = 0; i < 4096; i++) s[i] = i * b[0]; uint64_t t = 0; for (int i = 0; i < 4096; i++) t += s[i]; \
                ((uint64_t *)args[0])[b[0]] = (uintptr_t)shared % 64 ? 0 : t + 1;";
    let module = compile(&d, &source(body), "", false).unwrap();
    let out = buffer(&d, &[0; 64]);
    launch(&d, &module, "f", [64, 1, 1], 4096 * 8, vec![Argument::Buffer(Some((&out, 0)))]).unwrap();
    assert_eq!(read(&d, &out), (0..64).map(|b| 4095 * 4096 / 2 * b + 1).collect::<Vec<u64>>());
    assert_eq!(launch(&d, &module, "f", [1; 3], u32::MAX, vec![]).unwrap_err().code, Code::INVALID_ARGUMENT);
}

#[test]
fn arithmetic_is_ieee_whatever_the_options_say() {
    let Some(d) = device() else { return };
    // a·b + c rounded twice is 0 here, fused it is not; and a NaN differs from itself.
    let body = "double a = *(double *)args[1]; double *o = args[0]; o[0] = a * a + -(a * a); o[1] = NAN != NAN;";
    let out = buffer(&d, &[9; 2]);
    for options in ["", "-ffast-math -O3", "-ffp-contract=fast"] {
        let module = compile(&d, &source(body), options, false).unwrap();
        launch(&d, &module, "f", [1; 3], 0, vec![Argument::Buffer(Some((&out, 0))), Argument::Scalar { bits: (1.0 + f64::EPSILON).to_bits(), bytes: 8 }]).unwrap();
        assert_eq!(read(&d, &out), [0f64.to_bits(), 1f64.to_bits()], "{options}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let Some(d) = device() else { return };
    let refused = |r: Result<Module>| r.map(|_| ()).unwrap_err();
    let wrong = refused(compile(&d, b"void f(void) { undeclared_thing(; }", "", false));
    assert!(wrong.code == Code::INVALID_ARGUMENT && wrong.message.contains("error") && wrong.message.contains("kernel.c:1"), "{wrong}");
    assert_eq!(refused(compile(&d, b"", "", false)).code, Code::INVALID_ARGUMENT);
    assert!(refused(compile(&d, &source(""), "word", false)).message.contains("word"));
    let other = CompileRequest { format: KernelFormat::PTX, is_binary: false, code: b"x", options: String::new(), name: String::new() };
    assert_eq!(refused(d.compile(&other)).code, Code::UNIMPLEMENTED);
    let module = compile(&d, &source(""), "", false).unwrap();
    // `sin` lies in a library that kernels are linked with.
    for name in ["absent", "sin", ""] {
        assert_eq!(d.kernel(&module, name).map(|_| ()).unwrap_err().code, Code::NOT_FOUND, "{name}");
    }
}

#[test]
fn binaries_come_back_and_foreign_ones_do_not() {
    let Some(d) = device() else { return };
    let module = compile(&d, &source("*(uint64_t *)args[0] = 42;"), "", false).unwrap();
    let binary = d.binary(&module).unwrap();
    drop(module);
    let again = compile(&d, &binary, "", true).unwrap();
    let out = buffer(&d, &[0]);
    launch(&d, &again, "f", [1; 3], 0, vec![Argument::Buffer(Some((&out, 0)))]).unwrap();
    assert_eq!(read(&d, &out), [42]);
    let lost = |bytes: &[u8]| compile(&d, bytes, "", true).map(|_| ()).unwrap_err().code;
    for at in [0, 7, 8, 39, 40, 71, 72, binary.len() - 1] {
        let mut changed = binary.clone();
        changed[at] ^= 1;
        assert_eq!(lost(&changed), Code::DATA_LOSS, "byte {at} changed");
        assert_eq!(lost(&binary[..at]), Code::DATA_LOSS, "cut at {at}");
    }
    assert_eq!(lost(b"\x7fELF"), Code::DATA_LOSS);
}
