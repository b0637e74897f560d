//! Kernels through the module table: arguments, offsets, shared memory, long lists, order.

mod support;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, MemoryKind};
use support::{Arg, Backend, call, code, code_of, sized};

const NONE: Arg = Arg::Buffer(core::ptr::null_mut(), 0);

#[test]
fn vectors_are_added_through_addresses() {
    let Some(b) = Backend::open() else { return };
    const N: usize = 1000;
    let (stream, kernel) = (b.stream(), b.kernel(&code::add()));
    let (x, y, out) = (b.buffer(4 * N as u64), b.buffer(4 * N as u64), b.buffer(4 * N as u64 + 64));
    let data: Vec<f32> = (0..N).map(|i| i as f32 * 0.5).collect();
    b.write(stream, x, &data);
    b.write(stream, y, &data);
    b.write(stream, out, &[-1f32; N + 16]);
    b.launch(stream, kernel, [16, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Buffer(y, 0), Arg::Buffer(out, 0), Arg::Scalar(N as u64, 4)]).unwrap();
    let want: Vec<f32> = (0..N).map(|i| i as f32).chain([-1.0; 16]).collect();
    assert_eq!(b.read::<f32>(stream, out, N + 16), want);
    // The same with offsets: out[8 + i] = x[4 + i] + y[i].
    b.write(stream, out, &[-1f32; N + 16]);
    b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 16), Arg::Buffer(y, 0), Arg::Buffer(out, 32), Arg::Scalar(10, 4)]).unwrap();
    let got = b.read::<f32>(stream, out, 20);
    assert_eq!(got[..8], [-1.0; 8]);
    assert_eq!(got[8..18], (0..10).map(|i| i as f32 + 2.0).collect::<Vec<f32>>()[..]);
    assert_eq!(got[18..], [-1.0; 2]);
}

#[test]
fn scalars_arrive_zero_extended_and_null_as_0() {
    let Some(b) = Backend::open() else { return };
    let (stream, out) = (b.stream(), b.buffer(64));
    let kernel = b.kernel(&code::echo(6));
    let f = f64::to_bits(-1.5);
    let args = [Arg::Buffer(out, 0), Arg::Scalar(0xffff_ff80, 1), Arg::Scalar(u64::MAX, 2), Arg::Scalar(u64::MAX, 4), Arg::Scalar(f, 8), NONE, Arg::Buffer(out, 24)];
    b.launch(stream, kernel, [1, 1, 1], [1, 1, 1], &args).unwrap();
    let mut address = 0;
    call!(b.memory(), device_ptr, out, &mut address).unwrap();
    assert_eq!(b.read::<u64>(stream, out, 6), [0x80, 0xffff, 0xffff_ffff, f, 0, address + 24]);
}

#[test]
fn more_than_sixteen_arguments_come_in_a_buffer() {
    let Some(b) = Backend::open() else { return };
    let stream = b.stream();
    for count in [15, 16, 40] {
        let kernel = b.kernel(&code::echo(count));
        // Many in flight: their argument blocks must not be reused too early.
        let outs: Vec<*mut abi::Buffer> = (0..200).map(|_| b.buffer(8 * u64::from(count))).collect();
        for (round, out) in outs.iter().enumerate() {
            let args: Vec<Arg> = std::iter::once(Arg::Buffer(*out, 0)).chain((0..count).map(|i| Arg::Scalar(u64::from(i) << 32 | round as u64, 8))).collect();
            b.launch(stream, kernel, [1, 1, 1], [1, 1, 1], &args).unwrap();
        }
        for (round, out) in outs.iter().enumerate() {
            let want: Vec<u64> = (0..count).map(|i| u64::from(i) << 32 | round as u64).collect();
            assert_eq!(b.read::<u64>(stream, *out, count as usize), want, "{count} arguments, round {round}");
        }
    }
}

#[test]
fn blocks_share_memory() {
    let Some(b) = Backend::open() else { return };
    let (stream, x, y) = (b.stream(), b.buffer(4 * 256), b.buffer(4 * 256));
    let module = b.compile(&code::reverse(), "").unwrap();
    let kernel = b.kernel_of(module, code::NAME).unwrap();
    let mut info = sized!(abi::KernelInfo);
    call!(b.modules(), kernel_info, kernel, &mut info).unwrap();
    assert_eq!((info.shared_bytes, info.max_block_threads), (256, 64));
    b.write(stream, x, &(0..256).collect::<Vec<u32>>());
    b.launch(stream, kernel, [4, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Buffer(y, 0)]).unwrap();
    let want: Vec<u32> = (0..256).map(|i| i / 64 * 64 + 63 - i % 64).collect();
    assert_eq!(b.read::<u32>(stream, y, 256), want);
}

#[test]
fn work_of_a_stream_sees_what_came_before() {
    let Some(b) = Backend::open() else { return };
    const N: u64 = 4096;
    let (stream, x, y) = (b.stream(), b.buffer(4 * N), b.buffer(4 * N));
    let kernel = b.kernel(&code::increase());
    let zero = 0u32;
    call!(b.memory(), fill, stream, x, 0, (&raw const zero).cast(), 4, 4 * N).unwrap();
    // Launches, copies and launches again, more than one submission holds, without a word from the host in between.
    for _ in 0..150 {
        b.launch(stream, kernel, [64, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(N, 8), Arg::Scalar(1, 4)]).unwrap();
        call!(b.memory(), copy, stream, y, 0, x, 0, 4 * N).unwrap();
        b.launch(stream, kernel, [64, 1, 1], [64, 1, 1], &[Arg::Buffer(y, 0), Arg::Scalar(N, 8), Arg::Scalar(1, 4)]).unwrap();
        call!(b.memory(), copy, stream, x, 0, y, 0, 4 * N).unwrap();
    }
    assert_eq!(b.read::<u32>(stream, x, N as usize), vec![300; N as usize]);
    // A grid with a zero extent is no work and no error.
    b.launch(stream, kernel, [1, 0, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(N, 8), Arg::Scalar(1, 4)]).unwrap();
    assert_eq!(b.read::<u32>(stream, x, 1), [300]);
}

#[test]
fn kernels_reach_every_kind_of_memory() {
    let Some(b) = Backend::open() else { return };
    let (stream, kernel, kinds) = (b.stream(), b.kernel(&code::increase()), b.info().memory_kinds);
    for kind in [MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::DEVICE_HOST_VISIBLE].into_iter().filter(|k| kinds >> k.0 & 1 != 0) {
        let x = b.try_buffer(4 * 64, kind, 0).unwrap();
        b.write(stream, x, &[5u32; 64]);
        b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(2, 4)]).unwrap();
        assert_eq!(b.read::<u32>(stream, x, 64), [7; 64], "{kind}");
        let mut mapped = core::ptr::null_mut();
        if kind != MemoryKind::DEVICE {
            call!(b.memory(), map, x, &mut mapped).unwrap();
            // SAFETY: mapped, 256 bytes, and the stream is idle.
            let seen = unsafe { core::slice::from_raw_parts_mut(mapped.cast::<u32>(), 64) };
            assert_eq!(seen, [7; 64]);
            seen.fill(9);
            b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(2, 4)]).unwrap();
            b.sync(stream);
            assert_eq!(seen, [11; 64]);
        }
    }
}

#[test]
fn two_streams_and_two_threads_wait_for_each_other() {
    let Some(b) = Backend::open() else { return };
    const ROUNDS: u64 = 100;
    let (x, event) = (b.buffer(4 * 64) as usize, b.event() as usize);
    let kernel = b.kernel(&code::increase()) as usize;
    b.write(b.stream(), x as *mut abi::Buffer, &[0u32; 64]);
    // Thread `id` doubles nothing and adds 1 at its turn: odd values of the timeline are the first's, even ones the second's.
    std::thread::scope(|scope| {
        for id in 0..2u64 {
            let b = &b;
            scope.spawn(move || {
                let (x, event, kernel) = (x as *mut abi::Buffer, event as *mut abi::Event, kernel as *mut abi::Kernel);
                let stream = b.stream();
                for round in 0..ROUNDS {
                    let turn = 2 * round + id;
                    call!(b.streams(), wait, stream, event, turn).unwrap();
                    b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1 + id, 4)]).unwrap();
                    call!(b.streams(), signal, stream, event, turn + 1).unwrap();
                }
                b.sync(stream);
                call!(b.streams(), destroy, stream).unwrap();
            });
        }
    });
    let mut value = 0;
    call!(b.streams(), event_query, event as *mut abi::Event, &mut value).unwrap();
    assert_eq!(value, 2 * ROUNDS);
    assert_eq!(b.read::<u32>(b.stream(), x as *mut abi::Buffer, 64), [3 * ROUNDS as u32; 64]);
}

#[test]
fn a_kernel_outlives_its_module_while_it_runs() {
    let Some(b) = Backend::open() else { return };
    let (stream, x, gate) = (b.stream(), b.buffer(4 * 64), b.event());
    b.write(stream, x, &[1u32; 64]);
    let module = b.compile(&code::increase(), "").unwrap();
    let kernel = b.kernel_of(module, code::NAME).unwrap();
    call!(b.streams(), wait, stream, gate, 1).unwrap();
    b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)]).unwrap();
    call!(b.modules(), destroy, module).unwrap();
    call!(b.streams(), signal, b.stream(), gate, 1).unwrap();
    assert_eq!(b.read::<u32>(stream, x, 64), [2; 64]);
}

#[test]
fn a_launch_must_have_the_block_of_its_code_and_a_grid_the_device_takes() {
    let Some(b) = Backend::open() else { return };
    let (stream, kernel, x) = (b.stream(), b.kernel(&code::increase()), b.buffer(256));
    let args = [Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)];
    for block in [[32, 1, 1], [64, 2, 1], [1, 64, 1]] {
        let refused = b.launch(stream, kernel, [1, 1, 1], block, &args);
        assert_eq!(code_of(&refused), Code::INVALID_ARGUMENT);
        assert!(refused.unwrap_err().message.contains("[64, 1, 1]"));
    }
    let most = b.info().max_grid;
    if most[1] < u32::MAX {
        assert_eq!(code_of(&b.launch(stream, kernel, [1, most[1] + 1, 1], [64, 1, 1], &args)), Code::INVALID_ARGUMENT);
    }
    b.sync(stream);
}

#[test]
fn a_subgroup_size_is_asked_for_by_option() {
    let Some(b) = Backend::open() else { return };
    let (stream, info, x) = (b.stream(), b.info(), b.buffer(256));
    for (options, expected) in [("-subgroup-size=3", Code::UNIMPLEMENTED), ("-subgroup-size=4096", Code::UNIMPLEMENTED), ("-subgroup-size=x", Code::INVALID_ARGUMENT), ("fast", Code::INVALID_ARGUMENT)] {
        assert_eq!(code_of(&b.compile(&code::increase(), options)), expected, "{options}");
    }
    assert!(info.subgroup_min > 0 && info.subgroup_min <= info.subgroup_max);
    let own = format!("-O3 -subgroup-size={}", info.subgroup_max).leak();
    let kernel = b.kernel_of(b.compile(&code::increase(), own).unwrap(), code::NAME).unwrap();
    b.write(stream, x, &[1u32; 64]);
    b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)]).unwrap();
    assert_eq!(b.read::<u32>(stream, x, 64), [2; 64]);
}

#[test]
fn arguments_have_a_greatest_number() {
    let Some(b) = Backend::open() else { return };
    let (stream, kernel) = (b.stream(), b.kernel(&code::echo(1)));
    assert_eq!(code_of(&b.launch(stream, kernel, [1, 1, 1], [1, 1, 1], &vec![Arg::Scalar(0, 8); 300_000])), Code::INVALID_ARGUMENT);
    b.sync(stream);
}
