//! Cases of the memory table: allocation, copies, fills, round trips, mapping, leaks, fork.

use flagos_backend_api as abi;
use flagos_backend_api::{Code, MemoryKind};
use flagos_catalog::Rng;

use crate::bench::Bench;
use crate::check::Check;
use crate::guard::{Poison, first_difference, poisoned};
use crate::outcome::{Step, Stop, ensure, fail};
use crate::plan::RawCase;
use crate::raw::{Memory, Queue, optional, refused_with, sized, slot};

/// The cases.
pub const CASES: &[RawCase] = &[
    RawCase { name: "alignment", isolated: false, run: alignment },
    RawCase { name: "zero-bytes", isolated: false, run: zero_bytes },
    RawCase { name: "kinds", isolated: false, run: kinds },
    RawCase { name: "huge", isolated: false, run: huge },
    RawCase { name: "round-trip", isolated: false, run: round_trip },
    RawCase { name: "offsets", isolated: false, run: offsets },
    RawCase { name: "copy", isolated: false, run: copy },
    RawCase { name: "fill", isolated: false, run: fill },
    RawCase { name: "distinct", isolated: false, run: distinct },
    RawCase { name: "map", isolated: false, run: map },
    RawCase { name: "address-space", isolated: false, run: address_space },
    RawCase { name: "export-import", isolated: false, run: export_import },
    RawCase { name: "can-copy", isolated: false, run: can_copy },
    RawCase { name: "info", isolated: false, run: info },
    RawCase { name: "leak", isolated: false, run: leak },
    RawCase { name: "fork", isolated: true, run: fork },
];

fn desc(bytes: u64, alignment_bytes: u64, kind: MemoryKind) -> abi::AllocDesc {
    abi::AllocDesc { bytes, alignment_bytes, memory_kind: kind.0, ..sized!(abi::AllocDesc) }
}

/// Compares bytes read back with what is expected.
pub fn expect(check: Check, what: &str, want: &[u8], got: &[u8]) -> Step {
    match first_difference(want, got, |_| true) {
        None => Ok(()),
        Some(i) => fail(check, format!("{what}: byte {i} of {} is {:#04x}, expected {:#04x}", want.len(), got[i], want[i])),
    }
}

fn alignment(bench: &Bench) -> Step {
    let least = u64::from(bench.device.info().alignment_bytes);
    ensure(least.is_power_of_two(), Check::Alignment, || format!("the device states an alignment of {least} bytes; it is a power of two"))?;
    for wish in [0, 1, 64, 4096] {
        for bytes in [1, 3, 64, 1000, 65_537] {
            let memory = bench.try_alloc(&desc(bytes, wish, MemoryKind::DEVICE))??;
            let address = memory.address()?;
            let want = least.max(wish);
            ensure(address % want == 0, Check::Alignment, || format!("{bytes} bytes with alignment {wish} lie at {address:#x}, which {want} does not divide"))?;
        }
    }
    refused_with(bench.try_alloc(&desc(64, 48, MemoryKind::DEVICE))?, &[Code::INVALID_ARGUMENT], Check::Accepted, "an alignment of 48 bytes")
}

fn zero_bytes(bench: &Bench) -> Step {
    refused_with(bench.try_alloc(&desc(0, 0, MemoryKind::DEVICE))?, &[Code::INVALID_ARGUMENT], Check::Accepted, "an allocation of 0 bytes")?;
    // Empty copies are no work, wherever they point.
    let (queue, memory) = (bench.queue()?, bench.memory(16)?);
    queue.write(&memory, 0, &[7; 16])?;
    queue.write(&memory, 16, &[])?;
    queue.copy(&memory, 16, &memory, 16, 0)?;
    queue.fill(&memory, 3, &[0; 4], 0)?;
    expect(Check::Transfer, "after copies of 0 bytes", &[7; 16], &queue.read(&memory, 0, 16)?)
}

fn kinds(bench: &Bench) -> Step {
    let stated = bench.device.info().memory_kinds;
    ensure(stated & 1 << MemoryKind::DEVICE.0 != 0, Check::Tables, || format!("memory_kinds {stated:#x} lacks DEVICE"))?;
    let queue = bench.queue()?;
    for kind in [MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::UNIFIED, MemoryKind::DEVICE_HOST_VISIBLE, MemoryKind::HOST] {
        let answer = bench.try_alloc(&desc(256, 0, kind))?;
        if stated & 1 << kind.0 != 0 {
            let memory = answer?;
            let data = poisoned(Poison::A, 256);
            queue.write(&memory, 0, &data)?;
            expect(Check::Transfer, &format!("{kind} memory"), &data, &queue.read(&memory, 0, 256)?)?;
        } else {
            refused_with(answer, &[Code::UNIMPLEMENTED, Code::INVALID_ARGUMENT], Check::Accepted, &format!("{kind}, which memory_kinds does not state,"))?;
        }
    }
    refused_with(bench.try_alloc(&desc(256, 0, MemoryKind(0x4242)))?, &[Code::UNIMPLEMENTED, Code::INVALID_ARGUMENT], Check::Accepted, "an unknown memory kind")
}

fn huge(bench: &Bench) -> Step {
    for bytes in [1 << 60, u64::MAX - 4096, u64::MAX] {
        refused_with(bench.try_alloc(&desc(bytes, 0, MemoryKind::DEVICE))?, &[Code::RESOURCE_EXHAUSTED], Check::Exhaustion, &format!("an allocation of {bytes} bytes"))?;
    }
    let (queue, memory) = (bench.queue()?, bench.memory(4096)?);
    let data = poisoned(Poison::B, 4096);
    queue.write(&memory, 0, &data)?;
    expect(Check::Exhaustion, "memory allocated after a refused request", &data, &queue.read(&memory, 0, 4096)?)
}

fn round_trip(bench: &Bench) -> Step {
    let queue = bench.queue()?;
    for bytes in [1, 3, 7, 255, 257, 4097, (1 << 20) + 3] {
        let memory = bench.memory(bytes)?;
        for poison in [Poison::A, Poison::B] {
            let data = poisoned(poison, bytes as usize);
            queue.write(&memory, 0, &data)?;
            expect(Check::Transfer, &format!("{bytes} bytes written and read"), &data, &queue.read(&memory, 0, bytes)?)?;
        }
    }
    Ok(())
}

fn offsets(bench: &Bench) -> Step {
    const BYTES: usize = 5000;
    let (queue, memory) = (bench.queue()?, bench.memory(BYTES as u64)?);
    let mut rng = Rng::named(bench.seed, "memory/offsets");
    let mut image = poisoned(Poison::A, BYTES);
    queue.write(&memory, 0, &image)?;
    for step in 0..64 {
        let at = rng.below(BYTES);
        let n = rng.below(BYTES - at + 1);
        let data: Vec<u8> = (0..n).map(|_| rng.bits() as u8).collect();
        queue.write(&memory, at as u64, &data)?;
        image[at..at + n].copy_from_slice(&data);
        let from = rng.below(BYTES);
        let m = rng.below(BYTES - from + 1);
        expect(Check::Transfer, &format!("step {step}: {m} bytes at offset {from}"), &image[from..from + m], &queue.read(&memory, from as u64, m as u64)?)?;
    }
    expect(Check::Transfer, "all bytes after writes at offsets", &image, &queue.read(&memory, 0, BYTES as u64)?)
}

fn copy(bench: &Bench) -> Step {
    const BYTES: usize = 3000;
    let queue = bench.queue()?;
    let (source, target) = (bench.memory(BYTES as u64)?, bench.memory(BYTES as u64)?);
    let from = poisoned(Poison::A, BYTES);
    queue.write(&source, 0, &from)?;
    for (to_offset, from_offset, n) in [(0, 0, BYTES), (1, 0, 1), (3, 5, 17), (255, 257, 1024), (7, 0, BYTES - 7), (0, 9, BYTES - 9), (BYTES - 1, 0, 1)] {
        let mut image = poisoned(Poison::B, BYTES);
        queue.write(&target, 0, &image)?;
        queue.copy(&target, to_offset as u64, &source, from_offset as u64, n as u64)?;
        image[to_offset..to_offset + n].copy_from_slice(&from[from_offset..from_offset + n]);
        expect(Check::Copy, &format!("{n} bytes from offset {from_offset} to {to_offset}"), &image, &queue.read(&target, 0, BYTES as u64)?)?;
    }
    // Within one buffer, without overlap.
    let mut image = from.clone();
    image.copy_within(1500..2900, 50);
    queue.copy(&source, 50, &source, 1500, 1400)?;
    expect(Check::Copy, "1400 bytes within one buffer", &image, &queue.read(&source, 0, BYTES as u64)?)
}

fn fill(bench: &Bench) -> Step {
    const BYTES: usize = 2048;
    let (queue, memory) = (bench.queue()?, bench.memory(BYTES as u64)?);
    for width in [1usize, 2, 4, 8, 16] {
        let pattern = &poisoned(Poison::A, 64)[32..32 + width];
        for (units, offset) in [(1, 0), (3, width), (33, 5 * width), ((BYTES - 4 * width) / width, 2 * width)] {
            let mut image = poisoned(Poison::B, BYTES);
            queue.write(&memory, 0, &image)?;
            queue.fill(&memory, offset as u64, pattern, (units * width) as u64)?;
            image[offset..offset + units * width].chunks_mut(width).for_each(|c| c.copy_from_slice(pattern));
            expect(Check::Fill, &format!("{units} patterns of {width} bytes at offset {offset}"), &image, &queue.read(&memory, 0, BYTES as u64)?)?;
        }
    }
    // Zeros are the usual shortcut.
    queue.fill(&memory, 8, &[0; 8], BYTES as u64 - 16)?;
    ensure(queue.read(&memory, 8, BYTES as u64 - 16)?.iter().all(|b| *b == 0), Check::Fill, || "a fill with zeros left other bytes".into())?;
    for width in [0usize, 3, 32] {
        let pattern = vec![1u8; width.max(1)];
        let answer = slot!(bench.tables().memory, fill, queue.handle.0, memory.handle.0, 0, pattern.as_ptr().cast(), width as u32, 96)?;
        refused_with(answer, &[Code::INVALID_ARGUMENT], Check::Accepted, &format!("a fill with a pattern of {width} bytes"))?;
    }
    Ok(())
}

/// Live buffers do not share memory.
fn distinct(bench: &Bench) -> Step {
    let queue = bench.queue()?;
    let memories = (0..32).map(|i| bench.memory(1 + i * 37)).collect::<Step<Vec<Memory>>>()?;
    for (i, memory) in memories.iter().enumerate() {
        queue.fill(memory, 0, &[i as u8 + 1], memory.bytes)?;
    }
    for (i, memory) in memories.iter().enumerate() {
        expect(Check::Handles, &format!("buffer {i} of 32"), &vec![i as u8 + 1; memory.bytes as usize], &queue.read(memory, 0, memory.bytes)?)?;
    }
    Ok(())
}

fn map(bench: &Bench) -> Step {
    let (queue, memory) = (bench.queue()?, bench.memory(1000)?);
    let mut out = core::ptr::null_mut();
    optional(slot!(bench.tables().memory, map, memory.handle.0, &mut out)?, "device memory cannot be mapped")?;
    ensure(!out.is_null(), Check::Mapping, || "'map' succeeded with a NULL address".into())?;
    let data = poisoned(Poison::A, 1000);
    queue.write(&memory, 0, &data)?;
    // SAFETY: the buffer is mapped, has 1000 bytes, and no stream works on it.
    let mapped = unsafe { core::slice::from_raw_parts_mut(out.cast::<u8>(), 1000) };
    expect(Check::Mapping, "mapped memory after a write", &data, mapped)?;
    mapped.copy_from_slice(&poisoned(Poison::B, 1000));
    slot!(bench.tables().memory, unmap, memory.handle.0)??;
    expect(Check::Mapping, "a read after the host wrote mapped memory", &poisoned(Poison::B, 1000), &queue.read(&memory, 0, 1000)?)
}

fn address_space(bench: &Bench) -> Step {
    let stated = bench.has(abi::caps::ADDRESS_SPACE);
    let mut out = core::ptr::null_mut();
    let answer = match bench.tables().memory.address_space {
        None => Err(abi::Error::unimplemented("the slot is empty")),
        Some(_) => slot!(bench.tables().memory, address_space, bench.raw.0, &mut out)?,
    };
    match answer {
        Err(e) if !stated && e.code == Code::UNIMPLEMENTED => return Err(Stop::Skip("the device has no address space".into())),
        Err(e) => return fail(Check::Tables, format!("the device states the capability ADDRESS_SPACE, and the slot answers: {e}")),
        Ok(()) => ensure(stated && !out.is_null(), Check::Tables, || "there is an address space, and the capability ADDRESS_SPACE is not stated, or it is NULL".into())?,
    }
    let (queue, memory) = (bench.queue()?, bench.memory(600)?);
    let data = poisoned(Poison::A, 600);
    queue.write(&memory, 0, &data)?;
    let address = memory.address()?;
    let mut back = vec![0u8; 500];
    slot!(bench.tables().memory, read, queue.handle.0, out, address + 100, back.as_mut_ptr().cast(), 500)??;
    queue.sync()?;
    expect(Check::Mapping, "a buffer seen through the address space", &data[100..], &back)
}

fn export_import(bench: &Bench) -> Step {
    let (queue, memory) = (bench.queue()?, bench.memory(4096)?);
    let data = poisoned(Poison::A, 4096);
    queue.write(&memory, 0, &data)?;
    let mut seen = 0;
    for kind in [abi::MemoryHandle::POINTER, abi::MemoryHandle::NATIVE] {
        let mut export = sized!(abi::MemoryExport);
        export.handle_kind = kind.0;
        match slot!(bench.tables().memory, export, memory.handle.0, &mut export)? {
            Err(e) if e.code == Code::UNIMPLEMENTED => continue,
            other => other?,
        }
        let mut out = core::ptr::null_mut();
        match slot!(bench.tables().memory, import, bench.raw.0, &export, &mut out)? {
            Err(e) if e.code == Code::UNIMPLEMENTED => continue,
            other => other?,
        }
        seen += 1;
        let mut back = vec![0u8; 4096];
        slot!(bench.tables().memory, read, queue.handle.0, out, 0, back.as_mut_ptr().cast(), 4096)??;
        queue.sync()?;
        slot!(bench.tables().memory, free, out)??;
        expect(Check::Mapping, &format!("memory exported as {kind} and imported"), &data, &back)?;
        expect(Check::Mapping, "memory after its import was released", &data, &queue.read(&memory, 0, 4096)?)?;
    }
    if seen == 0 { Err(Stop::Skip("neither pointers nor native handles are exported and imported".into())) } else { Ok(()) }
}

fn can_copy(bench: &Bench) -> Step {
    let mut answer = u32::MAX;
    optional(slot!(bench.tables().memory, can_copy, bench.raw.0, bench.raw.0, &mut answer)?, "copies between devices")?;
    ensure(answer == 1, Check::Copy, || format!("can_copy within one device answers {answer}; it is 1"))
}

fn info(bench: &Bench) -> Step {
    let mut info = sized!(abi::MemoryInfo);
    optional(slot!(bench.tables().memory, info, bench.raw.0, &mut info)?, "memory state")?;
    let (free, total) = (info.free_bytes, info.total_bytes);
    ensure(total > 0 && free <= total, Check::Tables, || format!("{free} bytes of {total} are free"))
}

/// Creating and destroying leaves nothing: device memory, host memory, descriptors, threads.
fn leak(bench: &Bench) -> Step {
    const BYTES: u64 = 1 << 20;
    const ROUNDS: u64 = 256;
    let round = || -> Step {
        let (queue, event, memory) = (bench.queue()?, bench.timeline()?, bench.memory(BYTES)?);
        queue.fill(&memory, 0, &[1], BYTES)?;
        queue.signal(&event, 1)?;
        queue.sync()
    };
    let free = || {
        let mut info = sized!(abi::MemoryInfo);
        slot!(bench.tables().memory, info, bench.raw.0, &mut info).ok().and_then(Result::ok).map(|()| info.free_bytes)
    };
    let open = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
    let state = || (bench.host_use().bytes, open("/proc/self/fd"), open("/proc/self/task"));
    for _ in 0..8 {
        round()?;
    }
    let (before, free_before) = (state(), free());
    for _ in 0..ROUNDS {
        round()?;
    }
    let (after, free_after) = (state(), free());
    ensure(after.0 <= before.0, Check::Leak, || format!("{ROUNDS} rounds left {} bytes of host memory behind", after.0 - before.0))?;
    ensure(after.1 < before.1 + 8, Check::Leak, || format!("{ROUNDS} rounds left {} descriptors open", after.1 - before.1))?;
    ensure(after.2 < before.2 + 8, Check::Leak, || format!("{ROUNDS} rounds left {} threads running", after.2 - before.2))?;
    if let (Some(was), Some(is)) = (free_before, free_after) {
        // Others use the memory too, so only a loss of about what the rounds took is told.
        let lost = was.saturating_sub(is);
        let all = ROUNDS * BYTES;
        let own = lost > all - all / 8 && lost < all + all / 8;
        ensure(!own, Check::Leak, || format!("{ROUNDS} rounds of {BYTES} bytes left {lost} bytes less device memory"))?;
    }
    Ok(())
}

/// A forked process that ends at once disturbs nobody.
fn fork(bench: &Bench) -> Step {
    let (queue, memory) = (bench.queue()?, bench.memory(512)?);
    let data = poisoned(Poison::A, 512);
    queue.write(&memory, 0, &data)?;
    // SAFETY: the child calls nothing but _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends the child without running handlers.
        unsafe { libc::_exit(0) };
    }
    ensure(pid > 0, Check::Fork, || format!("fork failed: {}", std::io::Error::last_os_error()))?;
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    ensure(status == 0, Check::Fork, || format!("a forked process that ends at once ended with status {status:#x}"))?;
    expect(Check::Fork, "memory after a fork", &data, &queue.read(&memory, 0, 512)?)?;
    round_trip_on(&queue, bench)
}

fn round_trip_on(queue: &Queue, bench: &Bench) -> Step {
    let memory = bench.memory(512)?;
    queue.fill(&memory, 0, &[9], 512)?;
    expect(Check::Fork, "memory allocated after a fork", &[9; 512], &queue.read(&memory, 0, 512)?)
}
