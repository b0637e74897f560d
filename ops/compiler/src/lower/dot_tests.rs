//! Products lowered for every kind of block, with and without matrix units, against the tile interpreter.

use flagos_backend_api::KernelFormat;

use crate::run::Arg;
use crate::{Elem, MatrixShape, Options, Target, thread, tile};

/// A tile that is loaded: extents and type as text.
#[derive(Clone, Copy)]
struct Factor {
    rows: u32,
    columns: u32,
    elem: &'static str,
}

/// Statements loading (or addressing) a row-major tile `%{name}` from argument `%{name}_p`.
fn address(name: &str, f: Factor) -> String {
    let Factor { rows: m, columns: n, elem } = f;
    let t = |r: u32, c: u32, e: &str| format!("tensor<{r}x{c}x{e}>");
    let (i, pointers) = (t(m, n, "i32"), t(m, n, &format!("!tt.ptr<{elem}>")));
    format!(
        "%{name}_r = tt.make_range {{end = {m} : i32, start = 0 : i32}} : tensor<{m}xi32>
         %{name}_s = tt.expand_dims %{name}_r {{axis = 1 : i32}} : tensor<{m}xi32> -> tensor<{m}x1xi32>
         %{name}_n = arith.constant dense<{n}> : tensor<{m}x1xi32>
         %{name}_o = arith.muli %{name}_s, %{name}_n : tensor<{m}x1xi32>
         %{name}_b = tt.broadcast %{name}_o : tensor<{m}x1xi32> -> {i}
         %{name}_c = tt.make_range {{end = {n} : i32, start = 0 : i32}} : tensor<{n}xi32>
         %{name}_d = tt.expand_dims %{name}_c {{axis = 0 : i32}} : tensor<{n}xi32> -> tensor<1x{n}xi32>
         %{name}_e = tt.broadcast %{name}_d : tensor<1x{n}xi32> -> {i}
         %{name}_i = arith.addi %{name}_b, %{name}_e : {i}
         %{name}_q = tt.splat %{name}_p : !tt.ptr<{elem}> -> {pointers}
         %{name}_a = tt.addptr %{name}_q, %{name}_i : {pointers}, {i}\n"
    )
}

fn load(name: &str, f: Factor) -> String {
    let pointers = format!("tensor<{}x{}x!tt.ptr<{}>>", f.rows, f.columns, f.elem);
    format!("{}%{name} = tt.load %{name}_a : {pointers}\n", address(name, f))
}

/// A kernel with parameters for the named tiles; the last one, `out`, is stored.
fn kernel(tiles: &[(&str, Factor)], body: &str) -> tile::Program {
    let (out, inputs) = tiles.split_last().unwrap();
    let params: Vec<String> = tiles.iter().map(|(n, f)| format!("%{n}_p: !tt.ptr<{}> {{tt.divisibility = 16 : i32}}", f.elem)).collect();
    let loads: String = inputs.iter().map(|(n, f)| load(n, *f)).collect();
    let store = format!("{}tt.store %out_a, %out : tensor<{}x{}x!tt.ptr<{}>>\n", address("out", out.1), out.1.rows, out.1.columns, out.1.elem);
    let text = format!("module {{\ntt.func public @k({}) {{\n{loads}{body}{store}tt.return\n}}\n}}\n", params.join(", "));
    tile::parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn unit(m: u32, n: u32, k: u32, factor: Elem, sum: Elem) -> MatrixShape {
    MatrixShape { m, n, k, factor, sum }
}

/// Runs a program in every kind of block and compares all buffers with the tile interpreter's.
fn check(program: &tile::Program, args: &[Arg]) {
    let mut want = args.to_vec();
    tile::interpret::run(program, "k", [1, 1, 1], &mut want).unwrap();
    let units = vec![
        unit(16, 16, 16, Elem::F16, Elem::F32),
        unit(16, 16, 16, Elem::BF16, Elem::F32),
        unit(16, 8, 16, Elem::F16, Elem::F32),
        unit(16, 16, 32, Elem::I8, Elem::I32),
    ];
    let narrow = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
    for (threads, subgroup, matrix, stages) in [
        (64, 32, narrow, 1),
        (1, 0, vec![], 1),
        (32, 0, vec![], 1),
        (128, 32, vec![], 1),
        (32, 32, units.clone(), 1),
        (128, 32, units.clone(), 3),
        (256, 64, units, 1),
    ] {
        // One of them where a fused product and sum is not one instruction, one where copies are made aside.
        let format = match (subgroup == 0 && threads > 1, stages > 1) {
            (true, _) => KernelFormat::SPIRV_VULKAN,
            (_, true) => KernelFormat::CUDA_CPP,
            _ => KernelFormat(0),
        };
        let arch = if stages > 1 { "sm_80".to_owned() } else { String::new() };
        let target = Target { format, arch, caps: 0, max_block_threads: 1024, shared_bytes: 96 << 10, subgroup, matrix };
        let kernel = crate::lower::lower(program, "k", &target, &Options { threads, stages }).unwrap_or_else(|e| panic!("{threads} threads: {e}"));
        thread::verify::verify(&kernel).unwrap_or_else(|e| panic!("{threads} threads: {e}\n{kernel}"));
        assert!(format != KernelFormat::SPIRV_VULKAN || !kernel.to_string().contains(" fma "), "{kernel}");
        let mut got = args.to_vec();
        thread::interpret::run(&kernel, [1, 1, 1], &mut got).unwrap_or_else(|e| panic!("{threads} threads: {e}\n{kernel}"));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!(got == want, "{threads} threads, subgroups of {subgroup}, {} shapes: argument {i} differs", target.matrix.len());
        }
    }
}

/// The kernel for warps of 32 with a matrix unit for f16, as text.
fn warps(program: &tile::Program) -> String {
    let matrix = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
    let target = Target { format: KernelFormat(0), arch: String::new(), caps: 0, max_block_threads: 1024, shared_bytes: 48 << 10, subgroup: 32, matrix };
    crate::lower::lower(program, "k", &target, &Options::default()).unwrap().to_string()
}

/// Small whole numbers of a type, so that every order of summing gives the same.
fn numbers(elem: &str, count: u32, seed: u32) -> Arg {
    let value = |i: u32| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % 9) as i32 - 4;
    let bytes = |i: u32| match elem {
        "f32" => (value(i) as f32).to_le_bytes().to_vec(),
        "f64" => f64::from(value(i)).to_le_bytes().to_vec(),
        "f16" => half::f16::from_f32(value(i) as f32).to_le_bytes().to_vec(),
        "bf16" => half::bf16::from_f32(value(i) as f32).to_le_bytes().to_vec(),
        "i32" => value(i).to_le_bytes().to_vec(),
        "i8" => vec![value(i) as u8],
        _ => vec![thread::interpret::scalar::from_float(Elem::from_name(elem).unwrap(), f64::from(value(i)), false) as u8],
    };
    Arg::Buffer((0..count).flat_map(bytes).collect())
}

fn tile_of(rows: u32, columns: u32, elem: &'static str) -> Factor {
    Factor { rows, columns, elem }
}

fn product(m: u32, n: u32, k: u32, factor: &'static str, sum: &'static str) {
    let (a, b, c) = (tile_of(m, k, factor), tile_of(k, n, factor), tile_of(m, n, sum));
    let types = format!("tensor<{m}x{k}x{factor}> * tensor<{k}x{n}x{factor}> -> tensor<{m}x{n}x{sum}>");
    let p = kernel(&[("a", a), ("b", b), ("c", c), ("out", c)], &format!("%out = tt.dot %a, %b, %c, inputPrecision = ieee : {types}\n"));
    check(&p, &[numbers(factor, m * k, 1), numbers(factor, k * n, 2), numbers(sum, m * n, 3), numbers(sum, m * n, 4)]);
}

#[test]
fn products_of_every_type() {
    for (factor, sum) in [("f32", "f32"), ("f16", "f32"), ("bf16", "f32"), ("f16", "f16"), ("i8", "i32"), ("f64", "f64"), ("f8E4M3FN", "f32"), ("f8E5M2", "f32")] {
        product(16, 32, 32, factor, sum);
    }
}

#[test]
fn products_of_many_shapes() {
    for (m, n, k) in [(1, 16, 16), (16, 1, 16), (16, 16, 16), (64, 32, 16), (32, 64, 64), (128, 16, 16), (2, 2, 2), (4, 64, 8)] {
        product(m, n, k, "f32", "f32");
        product(m, n, k, "f16", "f32");
    }
}

/// One step of a loop over the depth after another, the sum carried.
#[test]
fn sums_carried_by_loops() {
    for factor in ["f32", "f16"] {
        let (a, b, c) = (tile_of(32, 16, factor), tile_of(16, 64, factor), tile_of(32, 64, "f32"));
        let step = |t: Factor, name: &str, by: u32| {
            let ty = format!("tensor<{}x{}xi32>", t.rows, t.columns);
            let pointers = format!("tensor<{}x{}x!tt.ptr<{factor}>>", t.rows, t.columns);
            format!("%{name}_step = arith.constant dense<{by}> : {ty}\n%{name}_next = tt.addptr %{name}_at, %{name}_step : {pointers}, {ty}\n")
        };
        let (pa, pb) = (format!("tensor<32x16x!tt.ptr<{factor}>>"), format!("tensor<16x64x!tt.ptr<{factor}>>"));
        let body = format!(
            "%low = arith.constant 0 : i32\n%high = arith.constant 3 : i32\n%one = arith.constant 1 : i32
             {}{}%out:3 = scf.for %i = %low to %high step %one iter_args(%sum = %c, %a_at = %a_a, %b_at = %b_a) -> (tensor<32x64xf32>, {pa}, {pb}) : i32 {{
             %x = tt.load %a_at : {pa}\n%y = tt.load %b_at : {pb}
             %new = tt.dot %x, %y, %sum, inputPrecision = ieee : tensor<32x16x{factor}> * tensor<16x64x{factor}> -> tensor<32x64xf32>
             {}{}scf.yield %new, %a_next, %b_next : tensor<32x64xf32>, {pa}, {pb}\n}}\n",
            address("a", a),
            address("b", b),
            step(a, "a", 512),
            step(b, "b", 1024),
        );
        let text = format!(
            "module {{\ntt.func public @k(%a_p: !tt.ptr<{factor}>, %b_p: !tt.ptr<{factor}>, %c_p: !tt.ptr<f32>, %out_p: !tt.ptr<f32>) {{\n{}{body}{}tt.store %out_a, %out#0 : tensor<32x64x!tt.ptr<f32>>\ntt.return\n}}\n}}\n",
            load("c", c),
            address("out", c),
        );
        let p = tile::parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        if factor == "f16" {
            // The sum stays in the unit: within the loop nothing of it goes through memory.
            let text = warps(&p);
            let (start, end) = (text.find("  for ").unwrap(), text.rfind("  }").unwrap());
            let (inside, after) = (&text[start..end], &text[end..]);
            assert!(inside.contains("fragment_mul_add") && !inside.contains("fragment_store") && after.contains("fragment_store"), "{text}");
        }
        check(&p, &[numbers(factor, 3 * 512, 1), numbers(factor, 3 * 1024, 2), numbers("f32", 2048, 3), numbers("f32", 2048, 4)]);
    }
}

/// x·zᵀ or x·z of a loop over a depth that its last round may end within: 32 rows of x, 64 columns of z, `turned` as columns in memory.
fn rounds(turned: bool) -> tile::Program {
    crate::build::kernel("k", |k| {
        let (a, b, out) = (k.aligned_pointer(Elem::F16, 16), k.aligned_pointer(Elem::F16, 16), k.aligned_pointer(Elem::F32, 16));
        let depth = k.multiple(Elem::I32, 8);
        let (row, column) = (k.arange(32).expand(1), k.arange(64).expand(0));
        let [sum] = k.fold(k.int(Elem::I32, 0), depth, k.int(Elem::I32, 16), [k.zeros(&[32, 64], Elem::F32)], |at, [sum]| {
            let (along, down) = ((at + k.arange(16)).expand(0), (at + k.arange(16)).expand(1));
            let x = (a + row * depth + along).load_masked(along.lt(depth), 0i64);
            let place = if turned { column * depth + down } else { down * 64i64 + column };
            let z = (b + place).load_masked(down.lt(depth), 0i64);
            [x.dot(z, sum)]
        });
        (out + row * 64i64 + column).store(sum);
    })
}

#[test]
fn factors_of_later_rounds_are_copied_aside() {
    for (turned, stages, depth) in [false, true].into_iter().flat_map(|t| [2, 3, 4].into_iter().flat_map(move |s| [0, 8, 16, 40, 200].map(|d| (t, s, d)))) {
        let program = rounds(turned);
        let matrix = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
        let target = Target { format: KernelFormat::CUDA_CPP, arch: "sm_80".into(), caps: 0, max_block_threads: 1024, shared_bytes: 48 << 10, subgroup: 32, matrix };
        let kernel = crate::lower::lower(&program, "k", &target, &Options { threads: 128, stages }).unwrap();
        thread::verify::verify(&kernel).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        let text = kernel.to_string();
        assert!(text.contains("copy s0[") && text.contains("copy s1[") && text.contains(&format!("copy_wait {}", stages - 2)), "{text}");
        // Both factors come through copies, the right one lying as it does in memory; a round meets once.
        let round = &text[text.find("  for ").unwrap()..text.rfind("  }").unwrap()];
        assert!(!round.contains(" = load") && round.matches("barrier").count() == 1 && round.contains("transposed") == turned, "{text}");
        let args = [numbers("f16", 32 * depth.max(1), 1), numbers("f16", 64 * depth.max(1), 2), numbers("f32", 2048, 3), Arg::Scalar(depth.into())];
        let (mut got, mut want) = (args.to_vec(), args.to_vec());
        tile::interpret::run(&program, "k", [1, 1, 1], &mut want).unwrap();
        thread::interpret::run(&kernel, [1, 1, 1], &mut got).unwrap_or_else(|e| panic!("{stages} stages, depth {depth}: {e}\n{kernel}"));
        assert!(got == want, "turned {turned}, {stages} stages, depth {depth}");
    }
}

/// Where shared memory does not take two rounds, or there are no copies aside, the loop loads as before.
#[test]
fn without_room_nothing_is_copied_aside() {
    // Two rounds are 7.5 KiB.
    for (shared_bytes, arch) in [(7 << 10, "sm_80"), (48 << 10, "sm_75")] {
        let matrix = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
        let target = Target { format: KernelFormat::CUDA_CPP, arch: arch.into(), caps: 0, max_block_threads: 1024, shared_bytes, subgroup: 32, matrix };
        let text = crate::lower::lower(&rounds(false), "k", &target, &Options { threads: 128, stages: 4 }).unwrap().to_string();
        assert!(!text.contains("copy") && text.contains("fragment_mul_add"), "{text}");
    }
}

/// What comes after a loop may need the shared memory of some of its rounds: there are fewer then.
#[test]
fn rounds_give_way_to_what_comes_after() {
    let after = |turned: bool| {
        crate::build::kernel("k", |k| {
            let (a, b, out) = (k.aligned_pointer(Elem::F16, 16), k.aligned_pointer(Elem::F16, 16), k.aligned_pointer(Elem::F32, 16));
            let (row, column) = (k.arange(32).expand(1), k.arange(64).expand(0));
            let [sum] = k.fold(k.int(Elem::I32, 0), k.int(Elem::I32, 64), k.int(Elem::I32, 16), [k.zeros(&[32, 64], Elem::F32)], |at, [sum]| {
                let x = (a + row * 64i64 + (at + k.arange(16)).expand(0)).load();
                let z = (b + (at + k.arange(16)).expand(1) * 64i64 + column).load();
                [x.dot(z, sum)]
            });
            if turned {
                let sums = sum.cumsum(1, false);
                (out + row * 64i64 + column).store(sums + sum.cumsum(0, false));
            } else {
                (out + row * 64i64 + column).store(sum);
            }
        })
    };
    let lowered = |turned: bool, shared_bytes: u32| {
        let matrix = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
        let target = Target { format: KernelFormat::CUDA_CPP, arch: "sm_80".into(), caps: 0, max_block_threads: 1024, shared_bytes, subgroup: 32, matrix };
        crate::lower::lower(&after(turned), "k", &target, &Options { threads: 128, stages: 4 }).unwrap()
    };
    let waits = |turned, bytes| lowered(turned, bytes).to_string().lines().find_map(|l| Some(l.trim().strip_prefix("copy_wait ")?.to_owned()));
    let need = lowered(false, 48 << 10).shared_bytes();
    assert_eq!(waits(false, need + 64).as_deref(), Some("2"));
    // The scans pass 8 KiB through shared memory.
    let kernel = lowered(true, need + 64);
    assert!(kernel.shared_bytes() <= need + 64 && waits(true, need + 64).as_deref() != Some("2"), "{} of {need} bytes\n{kernel}", kernel.shared_bytes());
    assert_eq!(waits(true, 96 << 10).as_deref(), Some("2"));
}

/// A sum of 64 KiB leaves its fragments through patches that fit beside the factors in 48 KiB, also when it is rounded on the way.
#[test]
fn large_sums_need_little_shared_memory() {
    for (elem, rounded) in [("f32", "%sum = arith.addf %d, %zero : tensor<128x128xf32>\n%out = arith.mulf %sum, %sum : tensor<128x128xf32>\n"), ("f16", "%out = arith.truncf %d : tensor<128x128xf32> to tensor<128x128xf16>\n")] {
        let (a, b, out) = (tile_of(128, 32, "f16"), tile_of(32, 128, "f16"), tile_of(128, 128, elem));
        let body = format!(
            "%zero = arith.constant dense<0.0> : tensor<128x128xf32>
             %d = tt.dot %a, %b, %zero, inputPrecision = tf32 : tensor<128x32xf16> * tensor<32x128xf16> -> tensor<128x128xf32>\n{rounded}"
        );
        let p = kernel(&[("a", a), ("b", b), ("out", out)], &body);
        let matrix = vec![unit(16, 8, 16, Elem::F16, Elem::F32)];
        let target = Target { format: KernelFormat(0), arch: String::new(), caps: 0, max_block_threads: 1024, shared_bytes: 48 << 10, subgroup: 32, matrix };
        let kernel = crate::lower::lower(&p, "k", &target, &Options { threads: 256, stages: 1 }).unwrap();
        assert!(kernel.to_string().contains("fragment_mul_add") && kernel.shared_bytes() <= 24 << 10, "{}", kernel.shared_bytes());
    }
}

/// Scales near one, so that sums stay exact.
fn scales(count: u32) -> Arg {
    Arg::Buffer((0..count).map(|i| 125 + (i * 7 % 5) as u8).collect())
}

fn random_bytes(count: u32) -> Arg {
    Arg::Buffer((0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect())
}

#[test]
fn scaled_products() {
    let types = |f: Factor| format!("tensor<{}x{}x{}>", f.rows, f.columns, f.elem);
    let (m, n, k) = (16, 32, 64);
    let (sa, sb, c) = (tile_of(m, k / 32, "i8"), tile_of(n, k / 32, "i8"), tile_of(m, n, "f32"));
    for (left, right) in [("e4m3", "e5m2"), ("e2m1", "e2m1"), ("bf16", "e2m1"), ("fp16", "e4m3")] {
        let elem = |format: &str| match format {
            "e4m3" => "f8E4M3FN",
            "e5m2" => "f8E5M2",
            "bf16" => "bf16",
            "fp16" => "f16",
            _ => "i8",
        };
        let half = |format: &str| if format == "e2m1" { 2 } else { 1 };
        let (a, b) = (tile_of(m, k / half(left), elem(left)), tile_of(k / half(right), n, elem(right)));
        let data = |format: &str, f: Factor, seed| if format == "e2m1" { random_bytes(f.rows * f.columns) } else { numbers(f.elem, f.rows * f.columns, seed) };
        let both = format!(
            "%out = tt.dot_scaled %a scale %sa, %b scale %sb, %c lhs = {left} rhs = {right} {{fastMath = false}} : {}, {} * {}, {} -> {}\n",
            types(a),
            types(sa),
            types(b),
            types(sb),
            types(c)
        );
        let p = kernel(&[("a", a), ("b", b), ("c", c), ("sa", sa), ("sb", sb), ("out", c)], &both);
        let args = [data(left, a, 1), data(right, b, 2), numbers("f32", m * n, 3), scales(m * k / 32), scales(n * k / 32), numbers("f32", m * n, 4)];
        check(&p, &args);
    }
}
