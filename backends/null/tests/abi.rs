//! The tables called raw: struct sizes, tails and kinds, NULL, streams that wait for each other, operators, late errors.

mod support;

use core::ffi::c_void;
use std::time::Duration;

use flagos_backend_api as abi;
use flagos_backend_api::{Answer, Code, DType, MemoryKind, Tensor};
use flagos_catalog::{AttrValue, Call, blas as catalogue_blas, fft as catalogue_fft, find};
use support::{Backend, call, code, sized};

/// A struct with room behind it.
#[repr(C)]
struct Padded<T> {
    value: T,
    tail: [u64; 8],
}

type Reader<'a> = Box<dyn Fn(*const c_void) -> Code + 'a>;

#[test]
fn received_structs_are_checked_for_size_kind_and_tail() {
    let b = Backend::open();
    let alloc = |p: *const c_void| {
        let mut out = core::ptr::null_mut();
        let answer = call!(b.memory(), alloc, b.device, p.cast(), &mut out);
        if answer.is_ok() {
            call!(b.memory(), free, out).unwrap();
        }
        code(answer)
    };
    let create = |p: *const c_void| {
        let mut out = core::ptr::null_mut();
        let answer = call!(b.streams(), create, b.device, p.cast(), &mut out);
        if answer.is_ok() {
            call!(b.streams(), destroy, out).unwrap();
        }
        code(answer)
    };
    fn words<T>(value: T) -> Vec<u64> {
        let padded = Padded { value, tail: [0; 8] };
        // SAFETY: the structs used here are multiples of 8 bytes without padding.
        unsafe { core::slice::from_raw_parts((&raw const padded).cast::<u64>(), size_of::<Padded<T>>() / 8) }.to_vec()
    }
    let desc = abi::AllocDesc { bytes: 64, memory_kind: MemoryKind::DEVICE.0, ..sized!(abi::AllocDesc) };
    let readers: [(u32, Vec<u64>, Reader); 2] =
        [(abi::AllocDesc::SIZE, words(desc), Box::new(alloc)), (abi::StreamDesc::SIZE, words(sized!(abi::StreamDesc)), Box::new(create))];
    for (size, words, read) in readers {
        let with = |size: u32, kind_flip: u32, tail_at: Option<usize>| {
            let mut w = words.clone();
            w[0] = (w[0] & !0xffff_ffff | u64::from(size)) ^ u64::from(kind_flip) << 32;
            if let Some(at) = tail_at {
                w[at / 8] |= 1 << (8 * (at % 8));
            }
            read(w.as_ptr().cast())
        };
        let n = size as usize;
        for (what, size, flip, tail, want) in [
            ("its own size", size, 0, None, Code::OK),
            ("a longer one, zeros behind", size + 64, 0, None, Code::OK),
            ("a byte right behind", size + 64, 0, Some(n), Code::UNSUPPORTED_FIELD),
            ("a byte at the end", size + 64, 0, Some(n + 63), Code::UNSUPPORTED_FIELD),
            ("no size", 0, 0, None, Code::INVALID_ARGUMENT),
            ("a header alone", 8, 0, None, Code::INVALID_ARGUMENT),
            ("one byte short", size - 1, 0, None, Code::INVALID_ARGUMENT),
            ("another kind", size, 0x40, None, Code::INVALID_ARGUMENT),
        ] {
            assert_eq!(with(size, flip, tail), want, "{what}");
        }
    }
}

#[test]
fn null_is_refused_everywhere() {
    let b = Backend::open();
    let (stream, buffer) = (b.stream(), b.buffer(64));
    let null = core::ptr::null_mut::<c_void>();
    let answers = [
        call!(b.device_table(), open, 0, null.cast()),
        call!(b.device_table(), info, b.device, null.cast()),
        call!(b.device_table(), close, null.cast()),
        call!(b.memory(), alloc, b.device, core::ptr::null(), null.cast()),
        call!(b.memory(), free, null.cast()),
        call!(b.memory(), read, stream, buffer, 0, null, 8),
        call!(b.memory(), write, null.cast(), buffer, 0, (&raw const null).cast(), 8),
        call!(b.streams(), sync, null.cast()),
        call!(b.streams(), signal, stream, null.cast(), 1),
        call!(b.ops(), query, b.device, core::ptr::null(), 0, null.cast()),
        call!(b.plans(), launch, null.cast(), stream, core::ptr::null()),
    ];
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(code(answer), Code::INVALID_ARGUMENT, "call {i}");
    }
}

#[test]
fn ranges_patterns_and_sizes_are_checked() {
    let b = Backend::open();
    let (stream, buffer) = (b.stream(), b.buffer(64));
    let mut byte = [0u8; 128];
    let out = byte.as_mut_ptr().cast::<c_void>();
    assert_eq!(code(call!(b.memory(), read, stream, buffer, 60, out, 8)), Code::INVALID_ARGUMENT);
    assert_eq!(code(call!(b.memory(), read, stream, buffer, u64::MAX, out, 8)), Code::INVALID_ARGUMENT);
    assert_eq!(code(call!(b.memory(), fill, stream, buffer, 0, out, 3, 9)), Code::INVALID_ARGUMENT);
    assert_eq!(code(call!(b.memory(), fill, stream, buffer, 0, out, 4, 10)), Code::INVALID_ARGUMENT);
    let mut handle = core::ptr::null_mut();
    for (bytes, alignment_bytes, kind, want) in [
        (0, 0, MemoryKind::DEVICE, Code::INVALID_ARGUMENT),
        (64, 48, MemoryKind::DEVICE, Code::INVALID_ARGUMENT),
        (64, 0, MemoryKind::HOST_PINNED, Code::UNIMPLEMENTED),
        (1 << 60, 0, MemoryKind::DEVICE, Code::RESOURCE_EXHAUSTED),
        (u64::MAX, 0, MemoryKind::DEVICE, Code::RESOURCE_EXHAUSTED),
    ] {
        let desc = abi::AllocDesc { bytes, alignment_bytes, memory_kind: kind.0, ..sized!(abi::AllocDesc) };
        assert_eq!(code(call!(b.memory(), alloc, b.device, &desc, &mut handle)), want, "{bytes} bytes");
        assert!(handle.is_null());
    }
}

#[test]
fn freed_memory_returns_to_the_account_and_addresses_are_aligned() {
    let b = Backend::open();
    let free_bytes = || {
        let mut info = sized!(abi::MemoryInfo);
        call!(b.memory(), info, b.device, &mut info).unwrap();
        info.free_bytes
    };
    // Other tests allocate at the same time, but not as much.
    const BIG: u64 = 1 << 30;
    let before = free_bytes();
    let big = b.buffer(BIG);
    assert!(free_bytes() <= before - BIG / 2);
    let mut address = 0;
    call!(b.memory(), device_ptr, big, &mut address).unwrap();
    assert!(address.is_multiple_of(256) && address >> 63 == 1, "{address:#x} could be taken for a host address");
    call!(b.memory(), free, big).unwrap();
    assert!(free_bytes() > before - BIG / 2);
}

#[test]
fn streams_run_on_their_own_and_wait_for_each_other() {
    let b = Backend::open();
    let (first, second, gate, done) = (b.stream(), b.stream(), b.event(), b.event());
    let (from, to) = (b.buffer(4096), b.buffer(4096));
    call!(b.streams(), wait, first, gate, 7).unwrap();
    call!(b.memory(), fill, first, from, 0, [0x5au8].as_ptr().cast(), 1, 4096).unwrap();
    call!(b.streams(), signal, first, done, 1).unwrap();
    call!(b.streams(), wait, second, done, 1).unwrap();
    call!(b.memory(), copy, second, to, 0, from, 0, 4096).unwrap();
    let mut idle = 9;
    call!(b.streams(), query, first, &mut idle).unwrap();
    assert_eq!(idle, 0, "the gate is closed");
    let late = call!(b.streams(), event_sync, done, 1, Duration::from_millis(5).as_nanos() as u64);
    assert_eq!(code(late), Code::DEADLINE_EXCEEDED);
    let opener = b.stream();
    call!(b.streams(), signal, opener, gate, 7).unwrap();
    assert_eq!(b.read::<u8>(second, to, 4096), vec![0x5a; 4096]);
    call!(b.device_table(), sync, b.device).unwrap();
    call!(b.streams(), query, first, &mut idle).unwrap();
    assert_eq!(idle, 1);
    // A signal below the last one leaves the timeline where it is.
    call!(b.streams(), signal, opener, gate, 3).unwrap();
    call!(b.streams(), sync, opener).unwrap();
    let mut value = 0;
    call!(b.streams(), event_query, gate, &mut value).unwrap();
    assert_eq!(value, 7);
    for s in [first, second, opener] {
        call!(b.streams(), destroy, s).unwrap();
    }
}

#[test]
fn a_full_queue_waits_and_loses_nothing() {
    let b = Backend::open();
    let (stream, buffer, event) = (b.stream(), b.buffer(8), b.event());
    for value in 1..=1000u64 {
        call!(b.memory(), fill, stream, buffer, 0, (&raw const value).cast(), 8, 8).unwrap();
        call!(b.streams(), signal, stream, event, value).unwrap();
    }
    // Destroying a stream finishes its work.
    call!(b.streams(), destroy, stream).unwrap();
    let mut reached = 0;
    call!(b.streams(), event_query, event, &mut reached).unwrap();
    assert_eq!((reached, b.read::<u64>(b.stream(), buffer, 1)[0]), (1000, 1000));
}

#[test]
fn threads_with_a_stream_each_share_a_plan() {
    let b = Backend::open();
    let x = Tensor::contiguous(DType::F32, &[100]);
    let plan = b.plan(&Call::inferred(find("add").unwrap(), &[x, x], DType::F32, &[]).unwrap()).unwrap() as usize;
    std::thread::scope(|scope| {
        for id in 0..4u8 {
            let b = &b;
            scope.spawn(move || {
                let (stream, a, y) = (b.stream(), b.buffer(400), b.buffer(400));
                for round in 0..20u8 {
                    let value = f32::from(id) * 100.0 + f32::from(round);
                    b.write(stream, a, &[value; 100]);
                    b.launch(plan as *mut abi::Plan, stream, &[a, a, y]).unwrap();
                    assert_eq!(b.read::<f32>(stream, y, 100), vec![2.0 * value; 100]);
                }
                call!(b.streams(), destroy, stream).unwrap();
            });
        }
    });
}

#[test]
fn strided_operands_leave_their_gaps_alone() {
    let b = Backend::open();
    let x = Tensor::strided(DType::F32, &[2, 3], &[1, 2]);
    let y = Tensor::strided(DType::F32, &[2, 3], &[8, 2]);
    let plan = b.plan(&Call::new(find("neg").unwrap(), &[x], &[y], &[]).unwrap()).unwrap();
    let (stream, from, to) = (b.stream(), b.buffer(24), b.buffer(64));
    b.write(stream, from, &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    b.write(stream, to, &[9f32; 16]);
    b.launch(plan, stream, &[from, to]).unwrap();
    let want = [-1.0, 9.0, -3.0, 9.0, -5.0, 9.0, 9.0, 9.0, -2.0, 9.0, -4.0, 9.0, -6.0, 9.0, 9.0, 9.0];
    assert_eq!(b.read::<f32>(stream, to, 16), want);
    let short = b.launch(plan, stream, &[from, from]).unwrap_err();
    assert_eq!((short.code, short.argument), (Code::INVALID_ARGUMENT, Some(1)), "{short}");
    assert_eq!(b.launch(plan, stream, &[from]).unwrap_err().code, Code::INVALID_ARGUMENT);
}

#[test]
fn blas_and_fft_run_on_the_same_streams() {
    let b = Backend::open();
    // SAFETY: the tables are static and offered.
    let (blas, fft) = unsafe { (&*b.table.blas, &*b.table.fft) };
    let stream = b.stream();
    let routine = catalogue_blas::routine(abi::BlasRoutine::AXPY.0).unwrap();
    let desc = abi::BlasDesc { n: 3, incx: -1, ..catalogue_blas::descriptor(routine, &routine.types[0]) };
    let (mut plan, x, y) = (core::ptr::null_mut(), b.buffer(12), b.buffer(12));
    call!(blas, plan, b.device, &desc, core::ptr::null(), &mut plan).unwrap();
    b.write(stream, x, &[1f32, 2.0, 3.0]);
    b.write(stream, y, &[10f32, 20.0, 30.0]);
    // alpha is read before launch returns: it is gone when the work begins.
    let alpha = Box::new(2f32);
    let bindings = [abi::Binding { buffer: x, byte_offset: 0 }, abi::Binding { buffer: y, byte_offset: 0 }];
    let gate = b.event();
    call!(b.streams(), wait, stream, gate, 1).unwrap();
    let launch = abi::Launch { bindings: bindings.as_ptr(), n_bindings: 2, alpha: (&raw const *alpha).cast(), ..sized!(abi::Launch) };
    call!(plans_of(blas.plans), launch, plan, stream, &launch).unwrap();
    drop(alpha);
    call!(b.streams(), signal, b.stream(), gate, 1).unwrap();
    assert_eq!(b.read::<f32>(stream, y, 3), [16.0, 24.0, 32.0], "x runs backwards");
    let desc = abi::BlasDesc { incx: 0, incy: 0, ..desc };
    assert_eq!(code(call!(blas, plan, b.device, &desc, core::ptr::null(), &mut plan)), Code::INVALID_ARGUMENT);

    let plain = catalogue_fft::descriptor(abi::FftKind::C2C, DType::F64, &[4]);
    let desc = abi::FftDesc { direction: abi::FftDirection::INVERSE.0, scale: 0.25, batch: 1, ..plain };
    call!(fft, plan, b.device, &desc, core::ptr::null(), &mut plan).unwrap();
    let data = b.buffer(64);
    b.write(stream, data, &[0f64, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    b.launch(plan, stream, &[data, data]).unwrap();
    assert_eq!(b.read::<f64>(stream, data, 8), [1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0], "in place: powers of i");
}

fn plans_of(table: *const abi::PlanTable) -> &'static abi::PlanTable {
    // SAFETY: tables live as long as the process.
    unsafe { &*table }
}

#[test]
fn queries_and_plans_agree_on_what_is_unknown() {
    let b = Backend::open();
    let x = Tensor::contiguous(DType::F32, &[4]);
    let call = Call::inferred(find("neg").unwrap(), &[x], DType::F32, &[]).unwrap();
    call.with_abi(|op| {
        let unknown_attr = [abi::Attr::i64(0x7fff_fff0, 1)];
        let hint = [abi::Attr::i64(0x7fff_fff0 | abi::ATTR_HINT, 1)];
        let tensor = |change: &dyn Fn(&mut Tensor)| {
            let mut t = x;
            change(&mut t);
            [t]
        };
        let lanes = tensor(&|t| t.dtype.lanes = 4);
        let future = tensor(&|t| t.dtype.code = 200);
        let rank = tensor(&|t| t.rank = 9);
        let negative = tensor(&|t| t.shape[0] = -4);
        let attrs = |list: &[abi::Attr]| abi::Op { attrs: list.as_ptr(), n_attr: list.len() as u32, ..*op };
        let input = |list: &[Tensor; 1]| abi::Op { inputs: list.as_ptr(), ..*op };
        for (what, op, offered) in [
            ("the call", *op, true),
            ("an unknown hint", attrs(&hint), true),
            ("an unknown attribute", attrs(&unknown_attr), false),
            ("an unknown operator", abi::Op { id: u32::MAX, ..*op }, false),
            ("a later revision", abi::Op { revision: 99, ..*op }, false),
            ("four lanes", input(&lanes), false),
            ("an unknown type", input(&future), false),
            ("rank 9", input(&rank), false),
            ("a negative extent", input(&negative), false),
        ] {
            let mut support = sized!(abi::Support);
            call!(b.ops(), query, b.device, &op, 0, &mut support).unwrap();
            assert_eq!(support.answer != Answer::NO.0, offered, "{what}");
            let mut plan = core::ptr::null_mut();
            let planned = call!(b.ops(), plan, b.device, &op, core::ptr::null(), &mut plan);
            assert_eq!(planned.is_ok(), offered, "{what}: {planned:?}");
        }
    });
}

#[test]
fn a_late_error_rides_on_signals_and_poisons_those_who_wait() {
    let b = Backend::open();
    let select = find("index_select").unwrap();
    let (x, index) = (Tensor::contiguous(DType::F32, &[4, 2]), Tensor::contiguous(DType::I64, &[1]));
    let call = Call::inferred(select, &[x, index], DType::F32, &[("dim", AttrValue::Int(0))]).unwrap();
    let plan = b.plan(&call).unwrap();
    let (stream, other, event) = (b.stream(), b.stream(), b.event());
    let (data, at, out) = (b.buffer(32), b.buffer(8), b.buffer(8));
    b.write(stream, data, &[1f32; 8]);
    b.write(stream, at, &[99i64]);
    b.launch(plan, stream, &[data, at, out]).unwrap();
    call!(b.streams(), signal, stream, event, 1).unwrap();
    call!(b.streams(), wait, other, event, 1).unwrap();
    assert_ne!(code(call!(b.streams(), event_sync, event, 1, u64::MAX)), Code::OK);
    assert_ne!(code(call!(b.streams(), sync, other)), Code::OK);
    assert_ne!(code(call!(b.streams(), sync, stream)), Code::OK);
    // Told once, forgotten: the stream works again.
    b.write(stream, at, &[3i64]);
    b.launch(plan, stream, &[data, at, out]).unwrap();
    assert_eq!(b.read::<f32>(stream, out, 2), [1.0, 1.0]);
    call!(b.streams(), signal, stream, event, 2).unwrap();
    call!(b.streams(), event_sync, event, 2, u64::MAX).unwrap();
}

#[test]
fn two_handles_name_one_device() {
    let (a, b) = (Backend::open(), Backend::open());
    assert_ne!(a.device, b.device);
    let mut answer = 0;
    call!(a.memory(), can_copy, a.device, b.device, &mut answer).unwrap();
    assert_eq!(answer, 1);
    call!(a.device_table(), close, a.device).unwrap();
    let (stream, buffer) = (b.stream(), b.buffer(4));
    b.write(stream, buffer, &[1u32]);
    assert_eq!(b.read::<u32>(stream, buffer, 1), [1]);
    let mut out = core::ptr::null_mut();
    assert_eq!(code(call!(b.device_table(), open, 1, &mut out)), Code::NOT_FOUND);
}
