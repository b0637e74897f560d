//! Streams, timelines and memory, where the suite does not look: imported queues, pinned memory, fills at odd places.

mod support;

use flagos_backend_api::{Code, MemoryExport, MemoryHandle, MemoryKind};
use support::{Opened, buffer, call, code, each, scalar, sized};

/// out[i] = out[i] · 3 + k: a result that depends on the order of launches.
const TURN: &str = "__kernel void turn(__global uchar *out, ulong at, uint k) {
    __global uint *o = (__global uint *)(out + at) + get_global_id(0);
    *o = *o * 3 + k;
}";

/// Streams hand work to each other, back and forth, without the host in between.
#[test]
fn two_streams_take_turns() {
    each(|d| {
        let module = d.compile(TURN);
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
        let module = d.compile(TURN);
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
