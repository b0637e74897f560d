//! Streams, timelines and memory, where the suite does not look: threads, late errors, imported queues, pinned memory, fills at odd places.

mod support;

use std::time::{Duration, Instant};

use flagos_backend_api::{Code, MemoryExport, MemoryHandle, MemoryKind};
use support::{Opened, buffer, call, code, each, scalar, sized};

/// out[i] = out[i] · 3 + k, in one block, so that order shows.
const STEP: &str = "__kernel void turn(__global uchar *out, ulong at, uint k) {
    __global uint *o = (__global uint *)(out + at) + get_global_id(0);
    *o = *o * 3 + k;
}";

#[test]
fn two_threads_work_on_two_streams_each_in_its_order() {
    each(|d| {
        let module = d.compile(STEP);
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

/// Streams hand work to each other, back and forth, without the host in between.
#[test]
fn two_streams_take_turns() {
    each(|d| {
        let module = d.compile(STEP);
        let (a, b, event) = (d.stream(), d.stream(), d.event());
        let step = d.kernel(module, "turn").unwrap();
        let out = d.with(a, &[0u32; 64]);
        for k in 1..=40u32 {
            let s = if k % 2 == 0 { a } else { b };
            call!(d.streams(), wait, s, event, u64::from(k) - 1).unwrap();
            d.launch(s, step, [8, 1, 1], [8, 1, 1], &[buffer(out, 0), scalar(k.into(), 4)]).unwrap();
            call!(d.streams(), signal, s, event, k.into()).unwrap();
        }
        call!(d.streams(), event_sync, event, 40, 20_000_000_000).unwrap();
        let want = (1..=40u32).fold(0, |x: u32, k| x.wrapping_mul(3).wrapping_add(k));
        assert_eq!(d.read::<u32>(a, out, 64), [want; 64]);
        assert_eq!(code(call!(d.streams(), signal, a, event, 40)), Code::INVALID_ARGUMENT, "a timeline does not stand still");
        call!(d.streams(), event_destroy, event).unwrap();
        d.free(out);
        [a, b].into_iter().for_each(|s| d.destroy(s));
        d.unload(module);
    });
}

/// Enqueueing on a stream that waits for what nobody signalled yet returns at once, and the work waits.
#[test]
fn enqueueing_behind_a_wait_returns() {
    each(|d| {
        let module = d.compile(STEP);
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

/// What a stream waited for cannot come: its work is void, and its timelines and `sync` tell.
#[test]
fn a_wait_that_fails_is_told_late() {
    each(|d| {
        let (s, never, after) = (d.stream(), d.event(), d.event());
        let b = d.with(s, &[1u32; 16]);
        call!(d.streams(), signal, s, after, 1).unwrap();
        call!(d.streams(), wait, s, never, 1).unwrap();
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

#[test]
fn a_queue_of_this_context_is_wrapped_and_left_to_its_owner() {
    each(|d| {
        let s = d.stream();
        let mut native = 0;
        call!(d.streams(), native, s, &mut native).unwrap();
        let wrapped = d.import(native).unwrap();
        let b = d.with(s, &[0u32; 16]);
        call!(d.memory(), fill, wrapped, b, 0, [3u8, 0, 0, 0].as_ptr().cast(), 4, 64).unwrap();
        d.sync(wrapped).unwrap();
        d.destroy(wrapped);
        assert_eq!(d.read::<u32>(s, b, 16), [3; 16]);
        d.free(b);
        d.destroy(s);
    });
}

#[test]
fn parts_of_a_buffer_are_imported_by_offset() {
    each(|d| {
        let s = d.stream();
        let whole = d.with(s, &(0..64u32).collect::<Vec<_>>());
        let mut export = MemoryExport { handle_kind: MemoryHandle::NATIVE.0, ..sized!(MemoryExport) };
        call!(d.memory(), export, whole, &mut export).unwrap();
        assert!(export.handle != 0 && export.bytes == 256 && export.byte_offset == 0);
        let import = |byte_offset, bytes| {
            let mut out = core::ptr::null_mut();
            let part = MemoryExport { byte_offset, bytes, ..export };
            call!(d.memory(), import, d.device, &part, &mut out).map(|()| out)
        };
        let part = import(64, 128).unwrap();
        assert_eq!(d.read::<u32>(s, part, 32), (16..48).collect::<Vec<_>>());
        let module = d.compile(STEP);
        d.launch(s, d.kernel(module, "turn").unwrap(), [1; 3], [4, 1, 1], &[buffer(part, 8), scalar(1, 4)]).unwrap();
        let want: Vec<u32> = (0..64).map(|i| if (18..22).contains(&i) { 3 * i + 1 } else { i }).collect();
        assert_eq!(d.read::<u32>(s, whole, 64), want);
        assert_eq!(code(import(200, 64)), Code::INVALID_ARGUMENT);
        assert_eq!(code(import(0, 0)), Code::INVALID_ARGUMENT);
        let pointer = MemoryExport { handle_kind: MemoryHandle::POINTER.0, ..export };
        let mut out = core::ptr::null_mut();
        assert_eq!(code(call!(d.memory(), import, d.device, &pointer, &mut out)), Code::UNIMPLEMENTED);
        [part, whole].into_iter().for_each(|b| d.free(b));
        d.unload(module);
        d.destroy(s);
    });
}

#[test]
fn pinned_memory_is_mapped_and_copied() {
    each(|d| {
        let s = d.stream();
        let (pinned, device) = (d.try_alloc(4096, MemoryKind::HOST_PINNED).unwrap(), d.alloc(4096));
        let map = |b| {
            let mut out = core::ptr::null_mut();
            call!(d.memory(), map, b, &mut out).map(|()| out)
        };
        let (address, second) = (map(pinned).unwrap(), map(pinned).unwrap());
        assert_eq!(address, second, "mapped twice, at one place");
        // SAFETY: 4096 mapped bytes on which no stream works.
        unsafe { core::slice::from_raw_parts_mut(address.cast::<u8>(), 4096) }.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
        call!(d.memory(), unmap, pinned).unwrap();
        call!(d.memory(), unmap, pinned).unwrap();
        assert_eq!(code(call!(d.memory(), unmap, pinned)), Code::FAILED_PRECONDITION);
        call!(d.memory(), copy, s, device, 0, pinned, 0, 4096).unwrap();
        assert_eq!(d.read::<u8>(s, device, 4096), (0..4096).map(|i| i as u8).collect::<Vec<_>>());
        assert_eq!(code(map(device)), Code::UNIMPLEMENTED);
        [pinned, device].into_iter().for_each(|b| d.free(b));
        d.destroy(s);
    });
}

#[test]
fn fills_begin_anywhere() {
    each(|d| {
        let s = d.stream();
        let b = d.alloc(256);
        let pattern: Vec<u8> = (1..=16).collect();
        for (length, offset, count) in [(2usize, 3usize, 5usize), (4, 1, 9), (8, 13, 3), (16, 7, 4), (16, 1, 1), (1, 5, 11)] {
            d.write(s, b, &[0u8; 256]);
            call!(d.memory(), fill, s, b, offset as u64, pattern.as_ptr().cast(), length as u32, (length * count) as u64).unwrap();
            let mut want = vec![0u8; 256];
            want[offset..offset + length * count].chunks_mut(length).for_each(|c| c.copy_from_slice(&pattern[..length]));
            assert_eq!(d.read::<u8>(s, b, 256), want, "{count} patterns of {length} bytes at {offset}");
        }
        d.free(b);
        d.destroy(s);
    });
}

/// More than there is, then as much as fits, again and again: nothing is lost on the way.
#[test]
fn memory_that_is_out_is_told_and_the_device_goes_on() {
    each(|d| {
        let total = d.info().memory_bytes;
        for _ in 0..3 {
            assert_eq!(code(d.try_alloc(total + 1, MemoryKind::DEVICE)), Code::RESOURCE_EXHAUSTED);
        }
        // Room as accounted, not as used: nothing is written to it. Devices differ in their largest buffer, so pieces of an eighth are taken.
        let mut held = Vec::new();
        let last = loop {
            match d.try_alloc(total / 8, MemoryKind::HOST_PINNED) {
                Ok(b) => held.push(b),
                Err(e) => break e,
            }
            assert!(held.len() <= 8, "more memory was given out than the device has");
        };
        assert_eq!(last.code, Code::RESOURCE_EXHAUSTED, "{last}");
        held.into_iter().for_each(|b| d.free(b));
        working(d);
    });
}

fn working(d: &Opened) {
    let s = d.stream();
    let b = d.with(s, &[5u32; 1000]);
    assert_eq!(d.read::<u32>(s, b, 1000), [5; 1000]);
    d.free(b);
    d.destroy(s);
}
