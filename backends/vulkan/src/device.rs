//! The device: its queues, memory and pipelines, shared by all handles on it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use ash::vk;
use flagos_backend_api::vendor::{Device, DeviceFacts, ProbeFacts};
use flagos_backend_api::{Code, DeviceKind, Error, KernelFormat, MemoryKind, Result, caps};

use crate::alloc::Allocator;
use crate::cache::PipelineCache;
use crate::features::Physical;
use crate::instance::{self, Instance, failed, lock};
use crate::ranges::GRAIN;
use crate::staging::Staging;
use crate::stream::Core;

/// Most queues taken of a family: streams beyond share them.
const QUEUES: u32 = 8;

/// The device's functions, those of Vulkan 1.2 by whichever name the device has them.
pub struct Calls {
    /// Functions of the core version.
    pub raw: ash::Device,
    address: vk::PFN_vkGetBufferDeviceAddress,
    counter: vk::PFN_vkGetSemaphoreCounterValue,
    wait: vk::PFN_vkWaitSemaphores,
}

impl Calls {
    fn new(instance: &Instance, physical: &Physical, raw: ash::Device) -> Calls {
        if physical.offers.version >= vk::API_VERSION_1_2 {
            let f = raw.fp_v1_2();
            let (address, counter, wait) = (f.get_buffer_device_address, f.get_semaphore_counter_value, f.wait_semaphores);
            return Calls { address, counter, wait, raw };
        }
        let (a, t) = (ash::khr::buffer_device_address::Device::new(&instance.raw, &raw), ash::khr::timeline_semaphore::Device::new(&instance.raw, &raw));
        let (address, counter, wait) = (a.fp().get_buffer_device_address_khr, t.fp().get_semaphore_counter_value_khr, t.fp().wait_semaphores_khr);
        Calls { address, counter, wait, raw }
    }

    /// A buffer's address.
    pub fn address(&self, buffer: vk::Buffer) -> u64 {
        let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
        // SAFETY: the buffer is alive and was made for it; the struct lives for the call.
        unsafe { (self.address)(self.raw.handle(), &info) }
    }

    /// The value a timeline semaphore has reached.
    pub fn counter(&self, semaphore: vk::Semaphore) -> Result<u64, vk::Result> {
        let mut value = 0;
        // SAFETY: the semaphore is alive, the place writable.
        match unsafe { (self.counter)(self.raw.handle(), semaphore, &mut value) } {
            vk::Result::SUCCESS => Ok(value),
            e => Err(e),
        }
    }

    /// Waits for a timeline semaphore; false when the time ran out.
    pub fn wait(&self, semaphore: vk::Semaphore, value: u64, timeout_ns: u64) -> Result<bool, vk::Result> {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is alive; the lists live for the call.
        match unsafe { (self.wait)(self.raw.handle(), &info, timeout_ns) } {
            vk::Result::SUCCESS => Ok(true),
            vk::Result::TIMEOUT => Ok(false),
            e => Err(e),
        }
    }
}

/// A queue; streams that share it take turns.
pub struct Queue {
    /// The queue, locked for submissions.
    pub raw: Mutex<vk::Queue>,
    /// Streams on it.
    pub streams: AtomicUsize,
}

/// What all handles of one device share.
pub struct Chip {
    /// Functions.
    pub calls: Calls,
    /// What the device is.
    pub physical: Physical,
    /// Family of the queues.
    pub family: u32,
    /// Valid bits of a timestamp on it; 0: no clock.
    pub clock_bits: u32,
    /// Queues.
    pub queues: Vec<Queue>,
    /// Memory.
    pub memory: Allocator,
    /// Host-visible pieces for copies and long argument lists.
    pub staging: Staging,
    /// Compiled pipelines.
    pub pipelines: PipelineCache,
    /// The one layout: push constants, no descriptors.
    pub layout: vk::PipelineLayout,
    lost: AtomicBool,
    streams: Mutex<Vec<Weak<Core>>>,
    arch: String,
    compute_units: u32,
    kinds: Vec<MemoryKind>,
    instance: Arc<Instance>,
}

/// An instance's address, a device's place in the probe, and the device while it is open.
type Open = ((usize, u32), Weak<Chip>);

/// Bytes of push constants: 16 arguments, which every Vulkan device has room for.
pub const PUSH_BYTES: u32 = 128;

impl Chip {
    /// The device at a place of the probe; one per process, as long as it is open.
    fn shared(ordinal: u32) -> Result<Arc<Chip>> {
        static OPEN: Mutex<Vec<Open>> = Mutex::new(Vec::new());
        let instance = Instance::shared()?;
        let mut open = lock(&OPEN);
        // The instance tells processes apart: a forked child has its own.
        let key = (Arc::as_ptr(&instance) as usize, ordinal);
        if let Some(chip) = open.iter().filter(|o| o.0 == key).find_map(|o| o.1.upgrade()) {
            return Ok(chip);
        }
        let mut all = Physical::all(&instance)?;
        if ordinal as usize >= all.len() {
            return Err(Error::new(Code::NOT_FOUND, format!("there is no Vulkan device {ordinal}; {} were found", all.len())));
        }
        let chip = Arc::new(Chip::new(instance, all.swap_remove(ordinal as usize))?);
        open.retain(|o| o.1.strong_count() > 0);
        open.push((key, Arc::downgrade(&chip)));
        Ok(chip)
    }

    fn new(instance: Arc<Instance>, physical: Physical) -> Result<Chip> {
        if let Some(why) = physical.shortfall() {
            return Err(Error::new(Code::UNAVAILABLE, format!("{}: {why}", physical.properties.name)));
        }
        let (family, queues, clock_bits) = family(&instance, &physical)?;
        let calls = Calls::new(&instance, &physical, physical.create(&instance, family, queues)?);
        let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(PUSH_BYTES)];
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&range);
        let made = Allocator::new(&physical).and_then(|memory| {
            // SAFETY: the device was just made; the struct lives for the call.
            let layout = unsafe { calls.raw.create_pipeline_layout(&info, None) }.map_err(|e| failed("creating the pipeline layout", e))?;
            Ok((memory, layout))
        });
        let (memory, layout) = made.inspect_err(|_| {
            // SAFETY: nothing was made from the device.
            unsafe { calls.raw.destroy_device(None) }
        })?;
        let arch = arch(&physical);
        // SAFETY: the family has as many queues, as `family` found.
        let queue = |i| Queue { raw: Mutex::new(unsafe { calls.raw.get_device_queue(family, i) }), streams: AtomicUsize::new(0) };
        let host = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let on_host = physical.properties.core.device_type == vk::PhysicalDeviceType::CPU;
        let kinds = memory.kinds();
        Ok(Chip {
            queues: (0..queues).map(queue).collect(),
            pipelines: PipelineCache::open(&calls, &physical, &arch),
            family,
            clock_bits,
            memory,
            staging: Staging::default(),
            layout,
            lost: AtomicBool::new(false),
            streams: Mutex::default(),
            arch,
            // Core Vulkan does not tell; at least one is there.
            compute_units: if on_host { host } else { physical.properties.compute_units.max(1) },
            kinds,
            instance,
            calls,
            physical,
        })
    }

    /// The error of a Vulkan call; a lost device stays lost.
    pub fn failed(&self, what: &str, result: vk::Result) -> Error {
        if result == vk::Result::ERROR_DEVICE_LOST {
            self.lost.store(true, Ordering::Release);
        }
        failed(what, result)
    }

    /// DEVICE_LOST once the device was lost.
    pub fn alive(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Error::new(Code::DEVICE_LOST, format!("{} was lost; close it and open it again", self.physical.properties.name)));
        }
        Ok(())
    }

    /// Free bytes by heap, as the driver says (VK_EXT_memory_budget).
    pub fn budget(&self) -> Option<[u64; vk::MAX_MEMORY_HEAPS]> {
        if !self.physical.offers.knows(u32::MAX, ash::ext::memory_budget::NAME) {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut chain = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the device offers the struct, which lives for the call.
        unsafe { self.instance.raw.get_physical_device_memory_properties2(self.physical.raw, &mut chain) };
        Some(std::array::from_fn(|i| budget.heap_budget[i].saturating_sub(budget.heap_usage[i])))
    }

    /// The queue with the fewest streams, one more of which is counted.
    pub fn take_queue(&self) -> usize {
        let least = (0..self.queues.len()).min_by_key(|i| self.queues[*i].streams.load(Ordering::Relaxed)).unwrap_or(0);
        self.queues[least].streams.fetch_add(1, Ordering::Relaxed);
        least
    }

    /// Adds a stream to those that [`Device::sync`] waits for.
    pub fn register(&self, stream: &Arc<Core>) {
        let mut streams = lock(&self.streams);
        streams.retain(|s| s.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        self.pipelines.close(&self.calls);
        self.memory.clear(&self.calls);
        // SAFETY: the last owner: buffers, streams and kernels each held a share and are gone, and with them all work.
        unsafe {
            let _ = self.calls.raw.device_wait_idle();
            self.calls.raw.destroy_pipeline_layout(self.layout, None);
            self.calls.raw.destroy_device(None);
        }
        // The instance goes after the device.
        let _ = &self.instance;
    }
}

/// The family for compute, its number of queues and timestamp bits: one without graphics if there is one, with the most queues.
fn family(instance: &Instance, physical: &Physical) -> Result<(u32, u32, u32)> {
    // SAFETY: the handle is of this live instance.
    let families = unsafe { instance.raw.get_physical_device_queue_family_properties(physical.raw) };
    let able = families.iter().enumerate().filter(|(_, f)| f.queue_flags.contains(vk::QueueFlags::COMPUTE) && f.queue_count > 0);
    let best = able.max_by_key(|(i, f)| (!f.queue_flags.contains(vk::QueueFlags::GRAPHICS), f.queue_count, core::cmp::Reverse(*i)));
    let found = best.map(|(i, f)| (i as u32, f.queue_count.min(QUEUES), f.timestamp_valid_bits));
    found.ok_or_else(|| Error::new(Code::UNAVAILABLE, format!("{} has no queue for compute", physical.properties.name)))
}

/// Target fingerprint: vendor, device, driver version, subgroup size (which drivers in software let the environment change), and what
/// kernels may use or should know beyond the capability bits, each after a '+': code for a device without a word does without.
fn arch(physical: &Physical) -> String {
    let (p, f) = (&physical.properties, &physical.features);
    let fl = &p.floats;
    let on = |bit: vk::Bool32| bit != 0;
    // Modes for 16 bits are declared beside others for 32 and 64: only where each width has its own.
    let each = [fl.denorm_behavior_independence, fl.rounding_mode_independence].iter().all(|i| *i == vk::ShaderFloatControlsIndependence::ALL);
    let words = [
        ("int8", on(f.small.shader_int8)),
        ("int16", on(f.core.shader_int16)),
        ("storage8", on(f.storage8.storage_buffer8_bit_access)),
        ("storage16", on(f.storage16.storage_buffer16_bit_access)),
        ("shuffle", p.subgroup_operations.contains(vk::SubgroupFeatureFlags::SHUFFLE)),
        ("sharedatomic64", on(f.atomic64.shader_shared_int64_atomics)),
        ("add32", on(f.atomic_float.shader_buffer_float32_atomic_add)),
        ("add64", on(f.atomic_float.shader_buffer_float64_atomic_add)),
        ("nan16", each && on(fl.shader_signed_zero_inf_nan_preserve_float16)),
        ("nan32", on(fl.shader_signed_zero_inf_nan_preserve_float32)),
        ("nan64", on(fl.shader_signed_zero_inf_nan_preserve_float64)),
        ("rte16", each && on(fl.shader_rounding_mode_rte_float16)),
        ("rte32", on(fl.shader_rounding_mode_rte_float32)),
        ("rte64", on(fl.shader_rounding_mode_rte_float64)),
        ("denorm16", each && on(fl.shader_denorm_preserve_float16)),
        ("denorm32", on(fl.shader_denorm_preserve_float32)),
        ("denorm64", on(fl.shader_denorm_preserve_float64)),
        ("software", p.core.device_type == vk::PhysicalDeviceType::CPU),
        ("memorymodel", on(f.memory_model.vulkan_memory_model & f.memory_model.vulkan_memory_model_device_scope)),
    ];
    let more: String = words.iter().filter(|w| w.1).flat_map(|w| ["+", w.0]).collect();
    format!("vulkan-{:04x}:{:04x}-{:x}-sg{}{more}", p.core.vendor_id, p.core.device_id, p.core.driver_version, p.subgroup.0)
}

fn caps_of(physical: &Physical, visible: bool) -> u64 {
    let (f, bit) = (&physical.features, |there: vk::Bool32, bit: u64| if there != 0 { bit } else { 0 });
    bit(f.small.shader_float16 & f.storage16.storage_buffer16_bit_access, caps::FP16)
        | bit(f.bfloat16.shader_bfloat16_type & f.storage16.storage_buffer16_bit_access, caps::BF16)
        | bit(f.core.shader_float64, caps::FP64)
        | bit(f.core.shader_int64, caps::INT64)
        | bit(f.atomic64.shader_buffer_int64_atomics, caps::ATOMIC64)
        | bit(visible.into(), caps::HOST_VISIBLE)
        // Drivers in software compute as the processor does, whatever they promise.
        | bit((physical.properties.floats.shader_denorm_preserve_float32 == 0 && kind_of(physical) != DeviceKind::CPU).into(), caps::FLUSHES_SUBNORMALS)
}

fn kind_of(physical: &Physical) -> DeviceKind {
    match physical.properties.core.device_type {
        vk::PhysicalDeviceType::CPU => DeviceKind::CPU,
        vk::PhysicalDeviceType::OTHER => DeviceKind::ACCELERATOR,
        _ => DeviceKind::GPU,
    }
}

/// What the probe says of every device; a device that cannot be used has score 0 and says why.
pub fn probe() -> Result<Vec<ProbeFacts>> {
    let instance = Instance::shared()?;
    Ok(Physical::all(&instance)?.iter().map(|p| probed(&instance, p)).collect())
}

fn probed(instance: &Instance, physical: &Physical) -> ProbeFacts {
    let memory = Allocator::new(physical);
    let reason = physical.shortfall().or_else(|| family(instance, physical).err().map(|e| e.message)).or_else(|| memory.as_ref().err().map(|e| e.message.clone()));
    // Below the backends that are made for one vendor's chips, above the processor; a driver in software comes last.
    let score = match physical.properties.core.device_type {
        _ if reason.is_some() => 0,
        vk::PhysicalDeviceType::DISCRETE_GPU => 50,
        vk::PhysicalDeviceType::INTEGRATED_GPU | vk::PhysicalDeviceType::VIRTUAL_GPU => 40,
        vk::PhysicalDeviceType::CPU => 2,
        _ => 20,
    };
    let p = &physical.properties;
    ProbeFacts {
        score,
        kind: kind_of(physical),
        name: p.name.clone(),
        arch: arch(physical),
        driver: p.driver.clone(),
        reason: reason.unwrap_or_default(),
        uuid: p.uuid,
        pci: p.pci,
        caps: caps_of(physical, memory.is_ok_and(|m| m.is_visible(MemoryKind::DEVICE))),
    }
}

/// A handle on a device.
pub struct VulkanDevice {
    pub(crate) chip: Arc<Chip>,
}

impl VulkanDevice {
    /// Opens a device by its place in the probe.
    pub(crate) fn open(ordinal: u32) -> Result<VulkanDevice> {
        let device = VulkanDevice { chip: Chip::shared(ordinal)? };
        instance::objections()?;
        Ok(device)
    }
}

impl Device for VulkanDevice {
    fn facts(&self) -> DeviceFacts<'_> {
        let physical = &self.chip.physical;
        let (p, limits) = (&physical.properties, &physical.properties.core.limits);
        DeviceFacts {
            name: &p.name,
            arch: &self.chip.arch,
            driver: &p.driver,
            kind: kind_of(physical),
            memory_bytes: self.chip.memory.total(),
            caps: caps_of(physical, self.chip.memory.is_visible(MemoryKind::DEVICE)),
            compute_units: self.chip.compute_units,
            alignment_bytes: GRAIN as u32,
            memory_kinds: &self.chip.kinds,
            formats: &[KernelFormat::SPIRV_VULKAN],
            max_block_threads: limits.max_compute_work_group_invocations,
            shared_bytes: limits.max_compute_shared_memory_size,
            subgroup: (p.subgroup.1, p.subgroup.2),
            max_grid: limits.max_compute_work_group_count,
            matrix_shapes: &physical.matrix_shapes,
        }
    }

    fn sync(&self) -> Result<()> {
        let streams: Vec<Arc<Core>> = lock(&self.chip.streams).iter().filter_map(Weak::upgrade).collect();
        // Every stream is waited for, whatever the others say.
        let results: Vec<Result<()>> = streams.iter().map(|s| s.drain()).collect();
        results.into_iter().collect::<Result<()>>()?;
        self.chip.alive()?;
        instance::objections()
    }
}
