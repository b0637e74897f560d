//! Several threads at once, and streams that wait for what comes later or never. (`scripts/oclgrind` leaves this file out.)

mod support;

use std::time::{Duration, Instant};

use flagos_backend_api::Code;
use support::{all, buffer, call, code, each, scalar};

const TURN: &str = "__kernel void turn(__global uchar *out, ulong at, uint k) {
    __global uint *o = (__global uint *)(out + at) + get_global_id(0);
    *o = *o * 3 + k;
}";

#[test]
fn two_threads_work_on_two_streams_each_in_its_order() {
    each(|d| {
        let module = d.compile(TURN);
        let shared = module as usize;
        std::thread::scope(|scope| {
            for id in 0..2u32 {
                scope.spawn(move || {
                    let (s, step, event) = (d.stream(), d.kernel(shared as *mut _, "turn").unwrap(), d.event());
                    let out = d.with(s, &[id; 64]);
                    for k in 1..=50u32 {
                        d.launch(s, step, [8, 1, 1], [8, 1, 1], &[buffer(out, 0), scalar(k.into(), 4)]).unwrap();
                        call!(d.streams(), signal, s, event, k.into()).unwrap();
                    }
                    call!(d.streams(), event_sync, event, 50, u64::MAX).unwrap();
                    let want = (1..=50u32).fold(id, |x, k| x.wrapping_mul(3).wrapping_add(k));
                    assert_eq!(d.read::<u32>(s, out, 64), [want; 64], "thread {id}");
                    call!(d.streams(), event_destroy, event).unwrap();
                    d.free(out);
                    d.destroy(s);
                });
            }
        });
        d.unload(module);
    });
}

/// A wait with a limit ends as soon as the value is there, also when it is signalled while somebody waits.
#[test]
fn a_limited_wait_sees_a_signal_that_comes_later() {
    each(|d| {
        let (s, event) = (d.stream(), d.event());
        let (s_address, event_address) = (s as usize, event as usize);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for limit in [u64::MAX, 30_000_000_000] {
                scope.spawn(move || call!(d.streams(), event_sync, event_address as *mut _, 3, limit).unwrap());
            }
            std::thread::sleep(Duration::from_millis(30));
            call!(d.streams(), signal, s_address as *mut _, event_address as *mut _, 3).unwrap();
        });
        assert!(started.elapsed() < Duration::from_secs(10));
        call!(d.streams(), event_destroy, event).unwrap();
        d.destroy(s);
    });
}

#[test]
fn a_kernel_is_launched_by_many_threads_at_once() {
    each(|d| {
        let module = d.compile(
            "__kernel void mark(__global uchar *out, ulong at, uint value) { ((__global uint *)(out + at))[get_global_id(0)] = value; }",
        );
        let shared = module as usize;
        std::thread::scope(|scope| {
            for id in 0..6u32 {
                scope.spawn(move || {
                    let (s, kernel) = (d.stream(), d.kernel(shared as *mut _, "mark").unwrap());
                    let out = d.with(s, &[0u32; 200]);
                    for i in 0..100u32 {
                        d.launch(s, kernel, [2, 1, 1], [1; 3], &[buffer(out, 8 * u64::from(i)), scalar((id << 16 | i).into(), 4)]).unwrap();
                    }
                    let want: Vec<u32> = (0..200).map(|i| (id << 16) | (i / 2)).collect();
                    assert_eq!(d.read::<u32>(s, out, 200), want, "thread {id}");
                    d.free(out);
                    d.destroy(s);
                });
            }
        });
        d.unload(module);
    });
}

/// Enqueueing on a stream that waits for what nobody signalled yet returns at once, and the work waits.
#[test]
fn enqueueing_behind_a_wait_returns() {
    each(|d| {
        let module = d.compile(TURN);
        let step = d.kernel(module, "turn").unwrap();
        let (s, free, event) = (d.stream(), d.stream(), d.event());
        let out = d.with(s, &[1u32; 64]);
        // The first launch may compile for its block size in some drivers.
        d.launch(s, step, [8, 1, 1], [8, 1, 1], &[buffer(out, 0), scalar(0, 4)]).unwrap();
        d.sync(s).unwrap();
        call!(d.streams(), wait, s, event, 7).unwrap();
        let (mut back, data) = (vec![0u32; 64], vec![9u32; 64]);
        let started = Instant::now();
        d.launch(s, step, [8, 1, 1], [8, 1, 1], &[buffer(out, 0), scalar(5, 4)]).unwrap();
        call!(d.memory(), read, s, out, 0, back.as_mut_ptr().cast(), 256).unwrap();
        call!(d.memory(), write, s, out, 0, data.as_ptr().cast(), 256).unwrap();
        call!(d.memory(), fill, s, out, 4, [2u8, 0, 0, 0].as_ptr().cast(), 4, 8).unwrap();
        call!(d.memory(), copy, s, out, 128, out, 0, 64).unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "enqueueing took {:?}", started.elapsed());
        let mut idle = 7;
        call!(d.streams(), query, s, &mut idle).unwrap();
        assert_eq!((idle, back[0], d.value(event).unwrap()), (0, 0, 0), "work ran before what it waits for");
        assert_eq!(code(call!(d.streams(), event_sync, event, 7, 20_000_000)), Code::DEADLINE_EXCEEDED);
        call!(d.streams(), signal, free, event, 9).unwrap();
        d.sync(s).unwrap();
        assert_eq!((back, d.value(event).unwrap()), (vec![14; 64], 9));
        let now = d.read::<u32>(s, out, 64);
        assert_eq!((now[0], now[1], now[2], now[3], now[33], now[34], now[48]), (9, 2, 2, 9, 2, 2, 9));
        call!(d.streams(), event_destroy, event).unwrap();
        d.free(out);
        [s, free].into_iter().for_each(|s| d.destroy(s));
        d.unload(module);
    });
}

/// What a stream waited for cannot come: its work is void, and its timelines and `sync` tell.
#[test]
fn a_wait_that_fails_is_told_late() {
    each(|d| {
        let (s, never, after) = (d.stream(), d.event(), d.event());
        let b = d.with(s, &[1u32; 16]);
        call!(d.streams(), signal, s, after, 1).unwrap();
        call!(d.streams(), wait, s, never, 1).unwrap();
        // Work nobody can trust, but which harms nobody either.
        call!(d.memory(), fill, s, b, 0, [2u8].as_ptr().cast(), 1, 64).unwrap();
        call!(d.memory(), fill, s, b, 0, [3u8].as_ptr().cast(), 1, 64).unwrap();
        call!(d.streams(), signal, s, after, 2).unwrap();
        call!(d.streams(), event_sync, after, 1, 10_000_000_000).unwrap();
        call!(d.streams(), event_destroy, never).unwrap();
        let e = call!(d.streams(), event_sync, after, 2, 10_000_000_000).expect_err("a signal behind a failed wait");
        assert!(matches!(e.code, Code::ABORTED | Code::INTERNAL), "{e}");
        assert_eq!(d.value(after).expect_err("query tells too").code, e.code);
        let e = d.sync(s).expect_err("sync tells");
        assert!(matches!(e.code, Code::ABORTED | Code::INTERNAL), "{e}");
        // Told once; the stream and the timeline go on.
        d.sync(s).unwrap();
        d.write(s, b, &[4u32; 16]);
        call!(d.streams(), signal, s, after, 3).unwrap();
        d.sync(s).unwrap();
        assert_eq!((d.read::<u32>(s, b, 16), d.value(after).unwrap()), (vec![4; 16], 3));
        call!(d.streams(), event_destroy, after).unwrap();
        d.free(b);
        d.destroy(s);
    });
}

/// Streams of any two devices, of one platform or of two, take turns by one timeline; one device takes turns with itself.
#[test]
fn a_timeline_joins_any_two_devices() {
    for (a, b) in all().iter().flat_map(|a| all().iter().map(move |b| (a, b))) {
        let (modules, event) = ([a.compile(TURN), b.compile(TURN)], a.event());
        let (streams, kernels) = ([a.stream(), b.stream()], [a.kernel(modules[0], "turn").unwrap(), b.kernel(modules[1], "turn").unwrap()]);
        let memory = [a.with(streams[0], &[0u32; 64]), b.with(streams[1], &[0u32; 64])];
        for k in 1..=30u32 {
            let i = (k % 2) as usize;
            let d = [a, b][i];
            call!(d.streams(), wait, streams[i], event, u64::from(k) - 1).unwrap();
            d.launch(streams[i], kernels[i], [8, 1, 1], [8, 1, 1], &[buffer(memory[i], 0), scalar(k.into(), 4)]).unwrap();
            call!(d.streams(), signal, streams[i], event, k.into()).unwrap();
        }
        call!(a.streams(), event_sync, event, 30, 20_000_000_000).unwrap();
        for (i, d) in [a, b].into_iter().enumerate() {
            let want = (1..=30u32).filter(|k| (k % 2) as usize == i).fold(0, |x: u32, k| x.wrapping_mul(3).wrapping_add(k));
            assert_eq!(d.read::<u32>(streams[i], memory[i], 64), [want; 64], "{} with {}", a.name, b.name);
            d.free(memory[i]);
            d.destroy(streams[i]);
            d.unload(modules[i]);
        }
        call!(a.streams(), event_destroy, event).unwrap();
    }
}
