//! The allocator: few large pieces of VkDeviceMemory, each under one VkBuffer with an address, cut into ranges.

use std::sync::Mutex;

use ash::vk;
use flagos_backend_api::{Code, Error, MemoryKind, Result};

use crate::device::Calls;
use crate::features::Physical;
use crate::instance::{failed, lock};
use crate::ranges::{GRAIN, Ranges};

/// Size of a block that is cut up; less on devices with little memory.
const BLOCK_BYTES: u64 = 64 << 20;

/// Where a buffer lies.
#[derive(Clone, Copy)]
pub struct Place {
    /// The block's buffer, for copies.
    pub buffer: vk::Buffer,
    /// First byte within it.
    pub offset: u64,
    /// The first byte's address as kernels see it.
    pub address: u64,
    /// The first byte as the host sees it; NULL where it cannot.
    pub mapped: *mut u8,
}

// SAFETY: handles and addresses are numbers; streams order who touches what they name.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

/// Memory handed out; goes back by [`Allocator::free`].
pub struct Allocation {
    /// Where it lies.
    pub place: Place,
    /// Bytes taken, at least as many as were asked for.
    pub bytes: u64,
    pool: usize,
    block: u64,
}

struct Block {
    id: u64,
    memory: vk::DeviceMemory,
    bytes: u64,
    start: Place,
    /// Free ranges; `None` for a block that is one buffer.
    ranges: Option<Ranges>,
}

/// Blocks of one memory type.
struct Pool {
    kind: MemoryKind,
    type_index: u32,
    heap: usize,
    visible: bool,
    block_bytes: u64,
    blocks: Vec<Block>,
}

struct State {
    pools: Vec<Pool>,
    next: u64,
    /// VkDeviceMemory objects alive.
    objects: u32,
    /// Bytes of them by heap.
    used: [u64; vk::MAX_MEMORY_HEAPS],
}

/// The allocator of one device.
pub struct Allocator {
    state: Mutex<State>,
    heaps: [u64; vk::MAX_MEMORY_HEAPS],
    max_objects: u32,
    max_bytes: u64,
}

impl Allocator {
    /// No memory yet, but the types of it chosen.
    pub fn new(physical: &Physical) -> Result<Allocator> {
        let m = &physical.memory;
        let mut heaps = [0; vk::MAX_MEMORY_HEAPS];
        for (size, heap) in heaps.iter_mut().zip(m.memory_heaps_as_slice()) {
            *size = heap.size;
        }
        let max_bytes = physical.properties.max_allocation_bytes.min(physical.properties.max_buffer_bytes);
        let pools = [MemoryKind::DEVICE, MemoryKind::HOST_PINNED, MemoryKind::DEVICE_HOST_VISIBLE].into_iter().filter_map(|kind| {
            let type_index = memory_type(physical, kind)?;
            let t = m.memory_types[type_index as usize];
            let heap = t.heap_index as usize;
            let block_bytes = BLOCK_BYTES.min(heaps[heap] / 16).min(max_bytes) / GRAIN * GRAIN;
            Some(Pool { kind, type_index, heap, visible: t.property_flags.contains(MAPPED), block_bytes, blocks: Vec::new() })
        });
        let pools: Vec<Pool> = pools.collect();
        if !(pools.iter().any(|p| p.kind == MemoryKind::DEVICE) && pools.iter().any(|p| p.kind == MemoryKind::HOST_PINNED)) {
            return Err(Error::new(Code::UNAVAILABLE, "the device has no memory of its own, or none the host can map coherently"));
        }
        let state = Mutex::new(State { pools, next: 0, objects: 0, used: [0; vk::MAX_MEMORY_HEAPS] });
        Ok(Allocator { state, heaps, max_objects: physical.properties.core.limits.max_memory_allocation_count, max_bytes })
    }

    /// Memory kinds there are.
    pub fn kinds(&self) -> Vec<MemoryKind> {
        lock(&self.state).pools.iter().map(|p| p.kind).collect()
    }

    /// Whether the host can map memory of a kind.
    pub fn is_visible(&self, kind: MemoryKind) -> bool {
        lock(&self.state).pools.iter().any(|p| p.kind == kind && p.visible)
    }

    /// Memory of a kind; `alignment` is a power of two.
    pub fn alloc(&self, calls: &Calls, kind: MemoryKind, bytes: u64, alignment: u64) -> Result<Allocation> {
        let mut state = lock(&self.state);
        let Some(pool) = state.pools.iter().position(|p| p.kind == kind) else {
            let have: Vec<String> = state.pools.iter().map(|p| p.kind.to_string()).collect();
            return Err(Error::unimplemented(format!("memory kind {kind} does not exist on this device; it has {}", have.join(", "))));
        };
        let alignment = alignment.max(GRAIN);
        let whole = bytes.checked_next_multiple_of(GRAIN).and_then(|b| b.checked_add(if alignment > GRAIN { alignment } else { 0 }));
        let heap = state.pools[pool].heap;
        let Some(whole) = whole.filter(|b| *b <= self.max_bytes && *b <= self.heaps[heap]) else {
            let text = format!("{bytes} bytes of {kind} memory: this device has {} and gives at most {} at once", self.heaps[heap], self.max_bytes);
            return Err(Error::new(Code::RESOURCE_EXHAUSTED, text));
        };
        let rounded = bytes.next_multiple_of(GRAIN);
        if whole > state.pools[pool].block_bytes / 2 {
            let block = self.block(&mut state, calls, pool, whole)?;
            let start = block.start.address;
            let allocation = allocation(pool, &block, start.next_multiple_of(alignment) - start, rounded);
            state.pools[pool].blocks.push(block);
            return Ok(allocation);
        }
        let fit = |b: &mut Block| Some(b.ranges.as_mut()?.take(rounded, alignment, b.start.address)?).map(|at| allocation(pool, b, at, rounded));
        if let Some(found) = state.pools[pool].blocks.iter_mut().find_map(fit) {
            return Ok(found);
        }
        let size = state.pools[pool].block_bytes;
        // Where a whole block is not to be had any more, a part of one may be.
        let sizes = [size, size / 4, whole.next_multiple_of(GRAIN)];
        let mut last = None;
        for size in sizes.into_iter().filter(|s| *s >= whole) {
            match self.block(&mut state, calls, pool, size) {
                Ok(mut block) => {
                    block.ranges = Some(Ranges::new(size));
                    let found = fit(&mut block);
                    state.pools[pool].blocks.push(block);
                    return found.ok_or_else(|| Error::new(Code::INTERNAL, format!("a new block of {size} bytes has no room for {bytes}")));
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Code::RESOURCE_EXHAUSTED, format!("{bytes} bytes of {kind} memory are not to be had"))))
    }

    /// Takes memory back. One empty block of a pool is kept, others go to the driver.
    pub fn free(&self, calls: &Calls, allocation: &Allocation) {
        let mut state = lock(&self.state);
        let pool = &mut state.pools[allocation.pool];
        let Some(at) = pool.blocks.iter().position(|b| b.id == allocation.block) else { return };
        let block = &mut pool.blocks[at];
        if let Some(ranges) = &mut block.ranges {
            ranges.give(allocation.place.offset, allocation.bytes);
            let spare = |b: &Block| b.id != allocation.block && b.ranges.as_ref().is_some_and(Ranges::is_empty);
            if !ranges.is_empty() || !pool.blocks.iter().any(spare) {
                return;
            }
        }
        let block = pool.blocks.swap_remove(at);
        state.drop_block(calls, allocation.pool, &block);
    }

    /// Returns empty blocks to the driver.
    pub fn trim(&self, calls: &Calls) {
        lock(&self.state).trim(calls);
    }

    /// Returns everything to the driver: the device ends.
    pub fn clear(&self, calls: &Calls) {
        let mut state = lock(&self.state);
        for pool in 0..state.pools.len() {
            for block in core::mem::take(&mut state.pools[pool].blocks) {
                state.drop_block(calls, pool, &block);
            }
        }
    }

    /// Size of the device's own memory.
    pub fn total(&self) -> u64 {
        self.heaps[lock(&self.state).pools[0].heap]
    }

    /// Free bytes of the device's own memory; `driver` says by heap what is free for the driver to give.
    pub fn free_bytes(&self, driver: Option<[u64; vk::MAX_MEMORY_HEAPS]>) -> u64 {
        let state = lock(&self.state);
        let pool = &state.pools[0];
        let unused: u64 = pool.blocks.iter().filter_map(|b| b.ranges.as_ref()).map(Ranges::free).sum();
        driver.map_or(self.heaps[pool.heap] - state.used[pool.heap], |d| d[pool.heap]) + unused
    }

    /// The live memory that holds `bytes` from a device address on.
    pub fn at_address(&self, address: u64, bytes: u64) -> Option<(Place, MemoryKind)> {
        let state = lock(&self.state);
        let found = |p: &Pool| p.blocks.iter().find(|b| covers(b.start.address, b.bytes, address, bytes)).map(|b| (b.start.at(address - b.start.address), p.kind));
        state.pools.iter().find_map(found)
    }

    /// The live memory that holds `bytes` from an offset in a VkBuffer of this device on.
    pub fn in_buffer(&self, raw: u64, offset: u64, bytes: u64) -> Option<(Place, MemoryKind)> {
        let state = lock(&self.state);
        let this = |b: &&Block| vk::Handle::as_raw(b.start.buffer) == raw && covers(0, b.bytes, offset, bytes);
        state.pools.iter().find_map(|p| p.blocks.iter().find(this).map(|b| (b.start.at(offset), p.kind)))
    }

    fn block(&self, state: &mut State, calls: &Calls, pool: usize, bytes: u64) -> Result<Block> {
        let heap = state.pools[pool].heap;
        let exhausted = |why: String| Error::new(Code::RESOURCE_EXHAUSTED, format!("{bytes} bytes of device memory are not to be had: {why}"));
        if state.objects >= self.max_objects || state.used[heap] + bytes > self.heaps[heap] {
            state.trim(calls);
        }
        if state.objects >= self.max_objects {
            return Err(exhausted(format!("all {} allocations of the driver are in use", self.max_objects)));
        }
        if state.used[heap] + bytes > self.heaps[heap] {
            return Err(exhausted(format!("{} of {} bytes are in use", state.used[heap], self.heaps[heap])));
        }
        let (type_index, visible) = (state.pools[pool].type_index, state.pools[pool].visible);
        let made = raw_block(calls, type_index, visible, bytes).or_else(|_| {
            state.trim(calls);
            raw_block(calls, type_index, visible, bytes)
        });
        let (memory, start) = made?;
        (state.objects, state.used[heap], state.next) = (state.objects + 1, state.used[heap] + bytes, state.next + 1);
        Ok(Block { id: state.next, memory, bytes, start, ranges: None })
    }
}

impl State {
    fn trim(&mut self, calls: &Calls) {
        for pool in 0..self.pools.len() {
            let blocks = core::mem::take(&mut self.pools[pool].blocks);
            let (empty, used): (Vec<Block>, Vec<Block>) = blocks.into_iter().partition(|b| b.ranges.as_ref().is_some_and(Ranges::is_empty));
            self.pools[pool].blocks = used;
            empty.iter().for_each(|b| self.drop_block(calls, pool, b));
        }
    }

    fn drop_block(&mut self, calls: &Calls, pool: usize, block: &Block) {
        self.objects -= 1;
        self.used[self.pools[pool].heap] -= block.bytes;
        // SAFETY: the block left its pool, and the contract has the host free buffers only when no work uses them.
        unsafe {
            calls.raw.destroy_buffer(block.start.buffer, None);
            calls.raw.free_memory(block.memory, None);
        }
    }
}

impl Place {
    /// A byte further on.
    pub fn at(self, offset: u64) -> Place {
        let mapped = if self.mapped.is_null() { self.mapped } else { self.mapped.wrapping_add(offset as usize) };
        Place { buffer: self.buffer, offset: self.offset + offset, address: self.address + offset, mapped }
    }
}

fn covers(start: u64, length: u64, from: u64, bytes: u64) -> bool {
    from >= start && from.checked_add(bytes).is_some_and(|end| end <= start + length)
}

fn allocation(pool: usize, block: &Block, at: u64, bytes: u64) -> Allocation {
    Allocation { place: block.start.at(at), bytes, pool, block: block.id }
}

/// Host memory as this backend maps it: without flushes.
const MAPPED: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw() | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw());

/// The best memory type of a kind: it has what must be, as much as possible of what is wished, as little as possible of what is not.
fn memory_type(physical: &Physical, kind: MemoryKind) -> Option<u32> {
    use vk::MemoryPropertyFlags as P;
    let unified = matches!(physical.properties.core.device_type, vk::PhysicalDeviceType::CPU | vk::PhysicalDeviceType::INTEGRATED_GPU);
    let (must, wish, not) = match kind {
        MemoryKind::DEVICE if unified => (P::DEVICE_LOCAL, MAPPED | P::HOST_CACHED, P::empty()),
        MemoryKind::DEVICE => (P::DEVICE_LOCAL, P::empty(), P::HOST_VISIBLE),
        MemoryKind::HOST_PINNED => (MAPPED, P::HOST_CACHED, P::DEVICE_LOCAL),
        _ => (MAPPED | P::DEVICE_LOCAL, P::HOST_CACHED, P::empty()),
    };
    let never = P::LAZILY_ALLOCATED | P::PROTECTED | P::DEVICE_COHERENT_AMD | P::DEVICE_UNCACHED_AMD;
    let types = physical.memory.memory_types_as_slice().iter().enumerate();
    let fitting = types.filter(|(_, t)| t.property_flags.contains(must) && !t.property_flags.intersects(never));
    // Ties go to the larger heap, then to the driver's order.
    let rank = |t: &vk::MemoryType| {
        let f = t.property_flags;
        ((f & wish).as_raw().count_ones(), !f.intersects(not), physical.memory.memory_heaps[t.heap_index as usize].size)
    };
    fitting.max_by_key(|(i, t)| (rank(t), core::cmp::Reverse(*i))).map(|(i, _)| i as u32)
}

/// Memory, a buffer over all of it, its address and its mapping.
fn raw_block(calls: &Calls, type_index: u32, visible: bool, bytes: u64) -> Result<(vk::DeviceMemory, Place)> {
    use vk::BufferUsageFlags as U;
    let usage = U::STORAGE_BUFFER | U::TRANSFER_SRC | U::TRANSFER_DST | U::SHADER_DEVICE_ADDRESS;
    let info = vk::BufferCreateInfo::default().size(bytes).usage(usage);
    // SAFETY: the device is alive, the structs live for the calls, and what was made is destroyed once when a later step fails.
    unsafe {
        let buffer = calls.raw.create_buffer(&info, None).map_err(|e| failed("creating a buffer", e))?;
        let needs = calls.raw.get_buffer_memory_requirements(buffer);
        let undo = |what: &str, e: vk::Result, memory: vk::DeviceMemory| {
            calls.raw.destroy_buffer(buffer, None);
            calls.raw.free_memory(memory, None);
            failed(&format!("{what} of {bytes} bytes"), e)
        };
        if needs.memory_type_bits & 1 << type_index == 0 {
            return Err(undo("this memory type cannot hold a buffer", vk::Result::ERROR_FEATURE_NOT_PRESENT, vk::DeviceMemory::null()));
        }
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer);
        let wish = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(type_index).push_next(&mut flags).push_next(&mut dedicated);
        let memory = calls.raw.allocate_memory(&wish, None).map_err(|e| undo("device memory", e, vk::DeviceMemory::null()))?;
        calls.raw.bind_buffer_memory(buffer, memory, 0).map_err(|e| undo("binding device memory", e, memory))?;
        let mapped = if visible {
            calls.raw.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()).map_err(|e| undo("mapping device memory", e, memory))?.cast()
        } else {
            core::ptr::null_mut()
        };
        let address = calls.address(buffer);
        Ok((memory, Place { buffer, offset: 0, address, mapped }))
    }
}
