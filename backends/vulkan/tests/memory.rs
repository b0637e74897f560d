//! Memory and streams beyond what the conformance suite asks: large and odd transfers, fills, exhaustion, imports, order under load.

mod support;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, MemoryHandle, MemoryKind};
use support::{Arg, Backend, call, code, code_of, sized};

fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..n).map(next).collect()
}

/// More than all staging pieces a stream may have in flight, at odd offsets.
#[test]
fn large_transfers_arrive_whole() {
    let Some(b) = Backend::open() else { return };
    const N: usize = (25 << 20) + 77;
    let (stream, x, y) = (b.stream(), b.buffer(N as u64 + 16), b.buffer(N as u64 + 16));
    let data = noise(N);
    let mut back = vec![0u8; N];
    call!(b.memory(), write, stream, x, 3, data.as_ptr().cast(), N as u64).unwrap();
    call!(b.memory(), copy, stream, y, 7, x, 3, N as u64).unwrap();
    call!(b.memory(), read, stream, y, 7, back.as_mut_ptr().cast(), N as u64).unwrap();
    b.sync(stream);
    assert!(data == back);
    // Reads and writes side by side, each of its own size, before anybody waits.
    let sizes: Vec<usize> = (0..60).map(|i| 1 + i * i * 977 % 300_000).collect();
    let mut parts: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0; *n]).collect();
    for (i, (n, part)) in sizes.iter().zip(&mut parts).enumerate() {
        call!(b.memory(), write, stream, x, 1, data[i..].as_ptr().cast(), *n as u64).unwrap();
        call!(b.memory(), read, stream, x, 1, part.as_mut_ptr().cast(), *n as u64).unwrap();
    }
    b.sync(stream);
    for (i, part) in parts.iter().enumerate() {
        assert!(data[i..i + part.len()] == part[..], "part {i}");
    }
}

#[test]
fn an_event_after_a_read_comes_after_the_bytes() {
    let Some(b) = Backend::open() else { return };
    const N: usize = 3 << 20;
    let (stream, x, event) = (b.stream(), b.buffer(N as u64), b.event());
    for round in 1..=20u8 {
        let mut back = vec![0u8; N];
        call!(b.memory(), fill, stream, x, 0, (&raw const round).cast(), 1, N as u64).unwrap();
        call!(b.memory(), read, stream, x, 0, back.as_mut_ptr().cast(), N as u64).unwrap();
        call!(b.streams(), signal, stream, event, round.into()).unwrap();
        call!(b.streams(), event_sync, event, round.into(), u64::MAX).unwrap();
        assert!(back.iter().all(|v| *v == round), "round {round}");
    }
}

#[test]
fn fills_of_every_width_at_every_offset() {
    let Some(b) = Backend::open() else { return };
    const N: usize = 300_000;
    let (stream, x) = (b.stream(), b.buffer(N as u64));
    let data = noise(N);
    for width in [1usize, 2, 4, 8, 16] {
        for (offset, units) in [(0, 1), (1, 3), (2, 17), (3, 5000 / width), (5, 1000), ((7 * width) % 13, (N - 16) / width), (64, 4096)] {
            let pattern = &data[100..100 + width];
            b.write(stream, x, &data);
            call!(b.memory(), fill, stream, x, offset as u64, pattern.as_ptr().cast(), width as u32, (units * width) as u64).unwrap();
            let mut want = data.clone();
            want[offset..offset + units * width].chunks_mut(width).for_each(|c| c.copy_from_slice(pattern));
            assert!(b.read::<u8>(stream, x, N) == want, "{units} patterns of {width} bytes at {offset}");
        }
    }
}

#[test]
fn exhausted_memory_is_told_and_survived() {
    let Some(b) = Backend::open() else { return };
    let total = b.info().memory_bytes;
    // Drivers bound a single allocation, some by 4 GiB.
    let part = (total / 8).min(2 << 30);
    let mut held = Vec::new();
    let refused = loop {
        match b.try_buffer(part, MemoryKind::DEVICE, 0) {
            Ok(buffer) => held.push(buffer),
            Err(e) => break e,
        }
        assert!(held.len() as u64 <= total / part, "more than the memory was given");
    };
    assert_eq!(refused.code, Code::RESOURCE_EXHAUSTED, "{refused}");
    assert!(!held.is_empty());
    for buffer in held.drain(..) {
        call!(b.memory(), free, buffer).unwrap();
    }
    assert_eq!(code_of(&b.try_buffer(1 << 60, MemoryKind::DEVICE, 0)), Code::RESOURCE_EXHAUSTED);
    assert_eq!(code_of(&b.try_buffer(64, MemoryKind::DEVICE, 1 << 62)), Code::RESOURCE_EXHAUSTED);
    let (stream, again) = (b.stream(), b.buffer(part));
    let one = 1u8;
    call!(b.memory(), fill, stream, again, part - 4096, (&raw const one).cast(), 1, 4096).unwrap();
    b.sync(stream);
    call!(b.memory(), free, again).unwrap();
    call!(b.memory(), trim, b.device).unwrap();
}

#[test]
fn buffers_are_aligned_apart_and_found_by_address() {
    let Some(b) = Backend::open() else { return };
    let stream = b.stream();
    let mut live: Vec<(*mut abi::Buffer, u64, u64)> = Vec::new();
    for (i, alignment) in [0u64, 256, 4096, 1 << 16, 1 << 20, 1 << 24].into_iter().cycle().take(60).enumerate() {
        let bytes = 1 + 997 * i as u64;
        let buffer = b.try_buffer(bytes, MemoryKind::DEVICE, alignment).unwrap();
        let mut address = 0;
        call!(b.memory(), device_ptr, buffer, &mut address).unwrap();
        assert_eq!(address % alignment.max(u64::from(b.info().alignment_bytes)), 0, "{bytes} bytes, alignment {alignment}");
        assert!(live.iter().all(|(_, at, n)| address + bytes <= *at || at + n <= address));
        live.push((buffer, address, bytes));
        if i % 3 == 2 {
            call!(b.memory(), free, live.remove(i / 4).0).unwrap();
        }
    }
    // A part of a buffer, by address and by VkBuffer.
    let data = noise(live.last().unwrap().2 as usize);
    let &(buffer, address, bytes) = live.last().unwrap();
    b.write(stream, buffer, &data);
    for kind in [MemoryHandle::POINTER, MemoryHandle::NATIVE] {
        let mut export = abi::MemoryExport { handle_kind: kind.0, ..sized!(abi::MemoryExport) };
        call!(b.memory(), export, buffer, &mut export).unwrap();
        assert_eq!(export.bytes, bytes);
        (export.byte_offset, export.bytes) = (export.byte_offset + 100, 50);
        let mut part = core::ptr::null_mut();
        call!(b.memory(), import, b.device, &export, &mut part).unwrap();
        assert_eq!(b.read::<u8>(stream, part, 50), data[100..150]);
        call!(b.memory(), free, part).unwrap();
        export.handle = 1 << 60;
        assert_eq!(code_of(&call!(b.memory(), import, b.device, &export, &mut part)), Code::INVALID_ARGUMENT);
    }
    assert_ne!(address, 0);
}

/// Streams share queues on most devices; one that waits must not hold up those that have what it waits for.
#[test]
fn a_waiting_stream_blocks_nobody_on_its_queue() {
    let Some(b) = Backend::open() else { return };
    let (streams, x) = ((0..12).map(|_| b.stream()).collect::<Vec<_>>(), b.buffer(4 * 64));
    let events: Vec<_> = (0..12).map(|_| b.event()).collect();
    let kernel = b.kernel(&code::increase());
    b.write(streams[0], x, &[0u32; 64]);
    // Stream i waits for i + 1, enqueued in this order: the last one to be told has to run first.
    for i in 0..12 {
        if i < 11 {
            call!(b.streams(), wait, streams[i], events[i + 1], 1).unwrap();
        }
        for _ in 0..100 {
            b.launch(streams[i], kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)]).unwrap();
        }
        call!(b.streams(), signal, streams[i], events[i], 1).unwrap();
    }
    call!(b.streams(), event_sync, events[0], 1, 20_000_000_000).unwrap();
    assert_eq!(b.read::<u32>(streams[0], x, 64), [1200; 64]);
}

#[test]
fn more_work_than_a_stream_holds_can_wait_for_a_later_signal() {
    let Some(b) = Backend::open() else { return };
    let (stream, x, gate) = (b.stream(), b.buffer(4 * 64), b.event());
    let kernel = b.kernel(&code::increase());
    b.write(stream, x, &[0u32; 64]);
    call!(b.streams(), wait, stream, gate, 1).unwrap();
    for _ in 0..6000 {
        b.launch(stream, kernel, [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)]).unwrap();
    }
    let mut idle = 7;
    call!(b.streams(), query, stream, &mut idle).unwrap();
    assert_eq!(idle, 0);
    call!(b.streams(), signal, b.stream(), gate, 1).unwrap();
    assert_eq!(b.read::<u32>(stream, x, 64), [6000; 64]);
}

#[test]
fn device_time_grows_with_the_work() {
    let Some(b) = Backend::open() else { return };
    let (stream, x, event) = (b.stream(), b.buffer(32 << 20), b.event());
    let zero = 0u8;
    let fill = |bytes: u64| call!(b.memory(), fill, stream, x, 0, (&raw const zero).cast(), 1, bytes).unwrap();
    fill(32 << 20);
    b.sync(stream);
    for (value, rounds) in [(1, 0), (2, 1), (3, 40)] {
        (0..rounds).for_each(|_| fill(32 << 20));
        call!(b.streams(), signal, stream, event, value).unwrap();
    }
    b.sync(stream);
    let (mut short, mut long) = (0, 0);
    match call!(b.streams(), elapsed, event, 1, 2, &mut short) {
        Err(e) if e.code == Code::UNIMPLEMENTED => return,
        other => other.unwrap(),
    }
    call!(b.streams(), elapsed, event, 2, 3, &mut long).unwrap();
    assert!(short > 0 && long > 4 * short, "1 fill took {short} ns, 40 took {long} ns");
}
