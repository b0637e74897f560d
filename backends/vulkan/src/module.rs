//! Modules: SPIR-V that was read and judged, and compute pipelines made of it.

use std::ffi::CString;
use std::sync::Arc;

use ash::vk;
use flagos_backend_api::vendor::{Argument, CompileRequest, Grid, Modules};
use flagos_backend_api::{Code, Error, KernelFormat, Result};

use crate::capabilities;
use crate::device::{Chip, VulkanDevice};
use crate::instance::{self, failed};
use crate::memory::VulkanBuffer;
use crate::spirv::{self, Entry, Program};
use crate::staging::PIECE_BYTES;
use crate::stream::VulkanStream;
use crate::task::{Args, INLINE_ARGS, Task};

/// A module.
pub struct VulkanModule {
    chip: Arc<Chip>,
    shader: vk::ShaderModule,
    program: Program,
    name: String,
    /// Subgroup size asked for.
    subgroup: Option<u32>,
}

/// A compiled entry point; launches in flight share it.
pub struct Pipeline {
    chip: Arc<Chip>,
    /// The pipeline.
    pub raw: vk::Pipeline,
    entry: Entry,
}

impl Drop for VulkanModule {
    fn drop(&mut self) {
        // SAFETY: pipelines do not need their module once they are made.
        unsafe { self.chip.calls.raw.destroy_shader_module(self.shader, None) };
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // SAFETY: launches in flight hold a share, so the last one is over.
        unsafe { self.chip.calls.raw.destroy_pipeline(self.raw, None) };
    }
}

/// The subgroup size that the options ask for. Other words are for compilers that this backend does not have.
fn subgroup(options: &str, chip: &Chip) -> Result<Option<u32>> {
    let mut wish = None;
    for word in options.split_whitespace() {
        match word.strip_prefix("-subgroup-size=") {
            Some(n) => wish = Some(n.parse::<u32>().map_err(|_| Error::invalid(format!("option '{word}': a number is expected")))?),
            None if word.starts_with('-') => {}
            None => return Err(Error::invalid(format!("option '{word}': options begin with '-'"))),
        }
    }
    let p = &chip.physical.properties;
    let (usual, least, most) = p.subgroup;
    match wish {
        Some(n) if p.max_subgroups == 0 && n != usual => Err(Error::unimplemented(format!("subgroups of {n}: the device has {usual} and no choice"))),
        Some(n) if !n.is_power_of_two() || n < least || n > most => Err(Error::unimplemented(format!("subgroups of {n}: the device offers powers of two from {least} to {most}"))),
        // Where there is one size, asking for it changes nothing.
        Some(_) if p.max_subgroups == 0 => Ok(None),
        other => Ok(other),
    }
}

fn pipeline(module: &VulkanModule, entry: &Entry) -> Result<vk::Pipeline> {
    let chip = &module.chip;
    let name = CString::new(entry.name.as_str()).map_err(|_| Error::invalid("an entry point's name holds a 0"))?;
    let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
    let mut stage = vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE).module(module.shader).name(&name);
    if let Some(n) = module.subgroup {
        let (threads, most) = (entry.local.iter().product::<u32>(), chip.physical.properties.max_subgroups);
        if threads.div_ceil(n) > most {
            return Err(Error::unimplemented(format!("'{}' has {threads} threads in subgroups of {n}; the device takes {most} subgroups of a size asked for", entry.name)));
        }
        size.required_subgroup_size = n;
        stage = stage.push_next(&mut size);
        if chip.physical.features.subgroup_size.compute_full_subgroups != 0 && entry.local[0].is_multiple_of(n) {
            stage = stage.flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS);
        }
    }
    let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(chip.layout)];
    // SAFETY: module, layout and cache are alive; structs and name live for the call.
    let made = unsafe { chip.calls.raw.create_compute_pipelines(chip.pipelines.raw(), &info, None) };
    made.map(|list| list[0]).map_err(|(_, e)| {
        let error = chip.failed(&format!("compiling '{}' of module '{}'", entry.name, module.name), e);
        // Drivers say 'unknown' when their compiler gives up.
        if e == vk::Result::ERROR_UNKNOWN { Error { code: Code::UNIMPLEMENTED, ..error } } else { error }
    })
}

impl Modules for VulkanDevice {
    type Module = VulkanModule;
    type Kernel = Arc<Pipeline>;

    fn compile(&self, request: &CompileRequest<'_>) -> Result<VulkanModule> {
        self.chip.alive()?;
        if request.format != KernelFormat::SPIRV_VULKAN {
            return Err(Error::unimplemented(format!("kernels are taken as spirv-vulkan, not as {}", request.format)));
        }
        if request.is_binary {
            return Err(Error::new(Code::DATA_LOSS, "this backend exports no binaries, so it takes none; compiled pipelines are kept in a cache of its own"));
        }
        let named = |e: Error| Error { message: format!("module '{}': {}", request.name, e.message), ..e };
        let subgroup = subgroup(&request.options, &self.chip).map_err(named)?;
        let words = spirv::words(request.code).map_err(named)?;
        let program = spirv::read(&words).map_err(named)?;
        capabilities::check(&self.chip.physical, &program).map_err(named)?;
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: the device is alive; the code was read and judged, and lives for the call.
        let shader = unsafe { self.chip.calls.raw.create_shader_module(&info, None) }.map_err(|e| named(failed("the driver refuses the code", e)))?;
        let module = VulkanModule { chip: self.chip.clone(), shader, program, name: request.name.clone(), subgroup };
        instance::objections().map_err(named)?;
        Ok(module)
    }

    /// Makes the pipeline: this is where the driver compiles.
    fn kernel(&self, module: &VulkanModule, name: &str) -> Result<Arc<Pipeline>> {
        let Some(entry) = module.program.entries.iter().find(|e| e.name == name) else {
            let have: Vec<&str> = module.program.entries.iter().map(|e| e.name.as_str()).collect();
            return Err(Error::new(Code::NOT_FOUND, format!("module '{}' has no entry point '{name}'; it has {}", module.name, have.join(", "))));
        };
        let made = Pipeline { chip: self.chip.clone(), raw: pipeline(module, entry)?, entry: entry.clone() };
        self.chip.pipelines.grown(&self.chip.calls);
        instance::objections()?;
        Ok(Arc::new(made))
    }

    fn kernel_facts(&self, kernel: &Arc<Pipeline>) -> Result<[u32; 4]> {
        Ok([0, kernel.entry.shared_bytes, 0, kernel.entry.local.iter().product()])
    }

    fn launch_kernel<'a>(&self, stream: &VulkanStream, kernel: &Arc<Pipeline>, grid: &Grid, args: impl ExactSizeIterator<Item = Argument<'a, VulkanBuffer>>) -> Result<()> {
        if grid.block != kernel.entry.local {
            return Err(Error::invalid(format!("'{}' is launched with blocks of {:?}; its LocalSize is {:?}", kernel.entry.name, grid.block, kernel.entry.local)));
        }
        let most = self.chip.physical.properties.core.limits.max_compute_work_group_count;
        if grid.grid.iter().zip(most).any(|(n, most)| *n > most) {
            return Err(Error::invalid(format!("'{}' is launched with a grid of {:?}; the device takes {most:?}", kernel.entry.name, grid.grid)));
        }
        if args.len() as u64 > PIECE_BYTES / 8 {
            return Err(Error::invalid(format!("'{}' is launched with {} arguments; at most {} are possible", kernel.entry.name, args.len(), PIECE_BYTES / 8)));
        }
        let word = |a: Argument<'_, VulkanBuffer>| match a {
            Argument::Buffer(None) => 0,
            Argument::Buffer(Some((buffer, offset))) => buffer.place.address.wrapping_add(offset),
            Argument::Scalar { bits, bytes } => bits & u64::MAX.checked_shr(64 - 8 * bytes.min(8)).unwrap_or(0),
        };
        let args = if args.len() <= INLINE_ARGS {
            let mut inline = [0; INLINE_ARGS];
            inline.iter_mut().zip(args).for_each(|(slot, a)| *slot = word(a));
            Args::Inline(inline)
        } else {
            Args::Block(args.map(word).collect())
        };
        let blocks = grid.grid.iter().map(|n| u64::from(*n)).product();
        stream.push(blocks, Task::Launch { pipeline: kernel.clone(), grid: grid.grid, args })
    }
}
