//! The module table: compilation, arguments, launches, binaries, refusals.

mod support;

use flagos_backend_api::{Code, KernelInfo, KernelLaunch, caps};
use support::{buffer, call, code, each, scalar, sized};

const ADD: &str = "
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void add(__global uchar *x, ulong x_at, __global uchar *y, ulong y_at, __global uchar *z, ulong z_at, uint n) {
    size_t i = get_global_id(0);
    if (i < n) ((__global float *)(z + z_at))[i] = ((__global const float *)(x + x_at))[i] + ((__global const float *)(y + y_at))[i];
}";

#[test]
fn vectors_are_added_at_offsets() {
    each(|d| {
        let s = d.stream();
        let module = d.compile(ADD);
        let add = d.kernel(module, "add").unwrap();
        let n = 1000usize;
        let x: Vec<f32> = (0..n + 7).map(|i| i as f32 * 0.5).collect();
        let (bx, by, bz) = (d.with(s, &x), d.with(s, &x), d.with(s, &vec![-1f32; n + 9]));
        // Blocks of 64 reach beyond n: the kernel must see n.
        d.launch(s, add, [16, 1, 1], [64, 1, 1], &[buffer(bx, 28), buffer(by, 4), buffer(bz, 12), scalar(n as u64, 4)]).unwrap();
        let z: Vec<f32> = d.read(s, bz, n + 9);
        for (i, got) in z.iter().enumerate() {
            let want = if (3..n + 3).contains(&i) { x[i - 3 + 7] + x[i - 3 + 1] } else { -1.0 };
            assert_eq!(*got, want, "element {i}");
        }
        [bx, by, bz].into_iter().for_each(|b| d.free(b));
        d.unload(module);
        d.destroy(s);
    });
}

#[test]
fn scalars_of_each_size_arrive() {
    each(|d| {
        let s = d.stream();
        let module = d.compile(
            "__kernel void take(uchar a, ushort b, uint c, ulong e, float f, __global uchar *null, ulong null_at, __global uchar *out, ulong at, char g) {
                __global ulong *o = (__global ulong *)(out + at);
                o[0] = a; o[1] = b; o[2] = c; o[3] = e; o[4] = as_uint(f); o[5] = null == 0; o[6] = null_at; o[7] = (ulong)(long)g;
            }",
        );
        let all = d.kernel(module, "take").unwrap();
        let out = d.with(s, &[0u64; 8]);
        let args = [scalar(0xfe, 1), scalar(0xfedc, 2), scalar(0xfedc_ba98, 4), scalar(0xfedc_ba98_7654_3210, 8), scalar(1.5f32.to_bits().into(), 4)];
        let args = [&args[..], &[buffer(core::ptr::null_mut(), 0), buffer(out, 0), scalar(0xff, 1)]].concat();
        d.launch(s, all, [1; 3], [1; 3], &args).unwrap();
        assert_eq!(d.read::<u64>(s, out, 8), [0xfe, 0xfedc, 0xfedc_ba98, 0xfedc_ba98_7654_3210, 1.5f32.to_bits().into(), 1, 0, u64::MAX]);
        d.free(out);
        d.unload(module);
        d.destroy(s);
    });
}

#[test]
fn blocks_share_memory_behind_barriers_on_three_axes() {
    each(|d| {
        let s = d.stream();
        let module = d.compile(
            "__kernel __attribute__((reqd_work_group_size(8, 4, 2))) void sums(__global uchar *out, ulong at) {
                __local uint part[64];
                uint t = get_local_id(0) + 8 * (get_local_id(1) + 4 * get_local_id(2));
                uint b = get_group_id(0) + get_num_groups(0) * (get_group_id(1) + get_num_groups(1) * get_group_id(2));
                part[t] = t + b;
                for (uint w = 32; w > 0; w /= 2) {
                    barrier(CLK_LOCAL_MEM_FENCE);
                    if (t < w) part[t] += part[t + w];
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                if (t == 0) ((__global uint *)(out + at))[b] = part[0];
            }",
        );
        let sums = d.kernel(module, "sums").unwrap();
        let out = d.with(s, &[0u32; 30]);
        d.launch(s, sums, [5, 3, 2], [8, 4, 2], &[buffer(out, 0)]).unwrap();
        let want: Vec<u32> = (0..30).map(|b| 63 * 64 / 2 + 64 * b).collect();
        assert_eq!(d.read::<u32>(s, out, 30), want);
        let mut info = sized!(KernelInfo);
        call!(d.modules(), kernel_info, sums, &mut info).unwrap();
        // Some drivers tell of shared memory only after a launch or never.
        assert!(info.shared_bytes == 0 || info.shared_bytes >= 256, "{}", info.shared_bytes);
        assert!(info.max_block_threads >= 64);
        d.free(out);
        d.unload(module);
        d.destroy(s);
    });
}

#[test]
fn a_binary_does_what_its_source_did_and_nothing_else_is_taken_for_one() {
    each(|d| {
        let s = d.stream();
        let module = d.compile(ADD);
        let binary = match d.binary(module) {
            Ok(binary) => binary,
            // The slot may say so; then the host caches sources.
            Err(e) => return assert_eq!(e.code, Code::UNIMPLEMENTED, "{e}"),
        };
        d.unload(module);
        let again = d.compile_as(&binary, true, "", "cached").unwrap();
        let add = d.kernel(again, "add").unwrap();
        let (x, y, z) = (d.with(s, &[1f32; 64]), d.with(s, &[2f32; 64]), d.with(s, &[0f32; 64]));
        d.launch(s, add, [1; 3], [64, 1, 1], &[buffer(x, 0), buffer(y, 0), buffer(z, 0), scalar(64, 4)]).unwrap();
        assert_eq!(d.read::<f32>(s, z, 64), [3.0; 64]);
        for bad in [&binary[..binary.len() - 1], &binary[..20], b"", b"__kernel void f() {}", &[&binary[..], b"x"].concat()] {
            let e = d.compile_as(bad, true, "", "cached").unwrap_err();
            assert_eq!(e.code, Code::DATA_LOSS, "{e}");
        }
        let mut room = [0u8; 8];
        let mut length = 0;
        let answer = call!(d.modules(), export_binary, again, room.as_mut_ptr().cast(), 8, &mut length);
        assert_eq!((code(answer), length), (Code::INVALID_ARGUMENT, binary.len() as u64));
        [x, y, z].into_iter().for_each(|b| d.free(b));
        d.unload(again);
        d.destroy(s);
    });
}

#[test]
fn a_bad_source_gives_the_compilers_log_with_its_line() {
    each(|d| {
        let e = d.compile_as(b"__kernel void f(__global uchar *x, ulong at) {\n\n  x[at] = no_such_thing;\n}", false, "-DX=1", "broken").unwrap_err();
        assert_eq!(e.code, Code::INVALID_ARGUMENT, "{e}");
        assert!(e.message.contains("no_such_thing") && e.message.contains("broken"), "{e}");
        // Compilers that do not heed `#line` count the two lines this backend puts before the source.
        assert!(e.message.contains("broken:3") || e.message.contains("broken(3") || e.message.contains(":5:"), "{e}");
        assert_eq!(code(d.compile_as(b"", false, "", "empty")), Code::INVALID_ARGUMENT);
        assert_eq!(code(d.compile_as(ADD.as_bytes(), false, "fast please", "words")), Code::INVALID_ARGUMENT);
    });
}

#[test]
fn options_reach_the_compiler() {
    each(|d| {
        let s = d.stream();
        let source = "__kernel void f(__global uchar *out, ulong at) { *(__global uint *)(out + at) = A + B; }";
        let module = d.compile_as(source.as_bytes(), false, "-DA=40  -D B=2", "options").unwrap();
        let out = d.with(s, &[0u32]);
        d.launch(s, d.kernel(module, "f").unwrap(), [1; 3], [1; 3], &[buffer(out, 0)]).unwrap();
        assert_eq!(d.read::<u32>(s, out, 1), [42]);
        d.free(out);
        d.unload(module);
        d.destroy(s);
    });
}

/// a·b + c is two roundings unless the code says fma; division and square root are rounded as IEEE says where the device can.
#[test]
fn arithmetic_is_rounded_as_the_format_promises() {
    each(|d| {
        let s = d.stream();
        let source = "__kernel void f(__global uchar *x, ulong at, __global uchar *out, ulong out_at) {
            __global const float *a = (__global const float *)(x + at);
            __global float *o = (__global float *)(out + out_at) + 4 * get_global_id(0);
            a += 3 * get_global_id(0);
            o[0] = a[0] * a[1] + a[2]; o[1] = fma(a[0], a[1], a[2]); o[2] = a[0] / a[1]; o[3] = sqrt(a[0]);
        }";
        let module = d.compile(source);
        let near = |i: u32| f32::from_bits(0x3f80_0001 + i * 7919);
        let x: Vec<f32> = (0..64).flat_map(|i| [near(i), near(i + 1), -near(i) * near(i + 1)]).collect();
        let (a, out) = (d.with(s, &x), d.with(s, &[0f32; 256]));
        d.launch(s, d.kernel(module, "f").unwrap(), [64, 1, 1], [1; 3], &[buffer(a, 0), buffer(out, 0)]).unwrap();
        let got = d.read::<f32>(s, out, 256);
        let correct = d.name.contains("pthread") || d.name.contains("NVIDIA");
        for (v, g) in x.chunks(3).zip(got.chunks(4)) {
            assert_eq!(g[0], v[0] * v[1] + v[2], "not contracted: {v:?}");
            assert_eq!(g[1], v[0].mul_add(v[1], v[2]), "fma of {v:?}");
            let close = |got: f32, want: f32, ulp: f32| (got - want).abs() <= ulp * f32::EPSILON * want.abs();
            assert!(close(g[2], v[0] / v[1], if correct { 0.0 } else { 2.5 }), "{} / {} is {}", v[0], v[1], g[2]);
            assert!(close(g[3], v[0].sqrt(), if correct { 0.0 } else { 3.0 }), "the root of {} is {}", v[0], g[3]);
        }
        [a, out].into_iter().for_each(|b| d.free(b));
        d.unload(module);
        d.destroy(s);
    });
}

#[test]
fn capabilities_stated_are_there() {
    each(|d| {
        let s = d.stream();
        let out = d.with(s, &[0u64; 4]);
        let pragma = |name: &str| format!("#pragma OPENCL EXTENSION {name} : enable\n");
        if d.has(caps::FP64) {
            let source = pragma("cl_khr_fp64") + "__kernel void f(__global uchar *o, ulong at) { *(__global double *)(o + at) = 1.0 / (double)get_global_size(0); }";
            let module = d.compile(&source);
            d.launch(s, d.kernel(module, "f").unwrap(), [3, 1, 1], [1; 3], &[buffer(out, 0)]).unwrap();
            assert_eq!(f64::from_bits(d.read::<u64>(s, out, 1)[0]), 1.0 / 3.0);
            d.unload(module);
        }
        if d.has(caps::FP16) {
            let source = pragma("cl_khr_fp16") + "__kernel void f(__global uchar *o, ulong at) { half h = (half)1.5f; *(__global ushort *)(o + at) = as_ushort((half)(h * h)); }";
            let module = d.compile(&source);
            d.launch(s, d.kernel(module, "f").unwrap(), [1; 3], [1; 3], &[buffer(out, 0)]).unwrap();
            assert_eq!(d.read::<u64>(s, out, 1)[0] as u16, 0x4080, "2.25 in half precision");
            d.unload(module);
        }
        if d.has(caps::ATOMIC64) {
            let source = pragma("cl_khr_int64_base_atomics") + "__kernel void f(__global uchar *o, ulong at) { atom_add((__global ulong *)(o + at), (ulong)1 << 33); }";
            let module = d.compile(&source);
            d.write(s, out, &[0u64; 4]);
            d.launch(s, d.kernel(module, "f").unwrap(), [50, 1, 1], [8, 1, 1], &[buffer(out, 8)]).unwrap();
            assert_eq!(d.read::<u64>(s, out, 4), [0, 400 << 33, 0, 0]);
            d.unload(module);
        }
        d.free(out);
        d.destroy(s);
    });
}

#[test]
fn launches_that_cannot_be_are_refused_with_the_reason() {
    each(|d| {
        let s = d.stream();
        let module = d.compile(ADD);
        let add = d.kernel(module, "add").unwrap();
        assert_eq!(add, d.kernel(module, "add").unwrap(), "an entry point is one handle");
        let e = d.kernel(module, "sub").unwrap_err();
        assert!(e.code == Code::NOT_FOUND && e.message.contains("sub"), "{e}");
        let b = d.with(s, &[0f32; 64]);
        let good = [buffer(b, 0), buffer(b, 0), buffer(b, 0), scalar(1, 4)];
        let refused = |what: &str, grid, block, args: &[_], says: &str| {
            let e = d.launch(s, add, grid, block, args).expect_err(what);
            assert_eq!(e.code, Code::INVALID_ARGUMENT, "{what}: {e}");
            assert!(e.message.contains("add") && e.message.contains(says), "{what}: {e}");
        };
        refused("another block", [1; 3], [32, 1, 1], &good, "[64, 1, 1]");
        refused("an empty block", [1; 3], [0, 1, 1], &good, "block");
        refused("a block beyond everything", [1; 3], [u32::MAX; 3], &good, "block");
        refused("an argument too few", [1; 3], [64, 1, 1], &good[..3], "7 parameters");
        refused("an argument too many", [1; 3], [64, 1, 1], &[&good[..], &good[3..]].concat(), "7 parameters");
        refused("a scalar of another size", [1; 3], [64, 1, 1], &[good[0], good[1], good[2], scalar(1, 8)], "argument 3");
        refused("an offset beyond the buffer", [1; 3], [64, 1, 1], &[good[0], good[1], buffer(b, 257), good[3]], "257");
        let shared = KernelLaunch { grid: [1; 3], block: [64, 1, 1], shared_bytes: 16, n_args: 4, args: good.as_ptr(), ..sized!(KernelLaunch) };
        assert_eq!(code(call!(d.modules(), launch, s, add, &shared)), Code::INVALID_ARGUMENT);
        // No blocks are no work.
        for grid in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
            d.launch(s, add, grid, [64, 1, 1], &good).unwrap();
        }
        // Nothing of this harmed the stream or the kernel.
        d.launch(s, add, [1; 3], [64, 1, 1], &good).unwrap();
        d.sync(s).unwrap();
        d.free(b);
        d.unload(module);
        d.destroy(s);
    });
}
