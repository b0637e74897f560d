//! A stream's thread: records tasks into command buffers, submits them, and carries data between staging and host memory.
//!
//! Whatever is enqueued while the thread is at work goes into one submission; when nothing more is there, what is recorded is submitted at
//! once. A submission that waits for another stream is made only after that one's, so streams that share a queue cannot block each other.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ash::vk;
use flagos_backend_api::{Code, Error, Result};

use crate::alloc::{Allocation, Place};
use crate::device::PUSH_BYTES;
use crate::instance::{failed, lock};
use crate::module::Pipeline;
use crate::staging::PIECE_BYTES;
use crate::stream::Core;
use crate::task::{Args, Pattern, Task};
use crate::timeline::{Ahead, Line, Point, Timeline};

/// Operations of a submission while the device is at work on others, and while it is not.
const FULL: u32 = 64;
const FIRST: u32 = 8;
/// Signals that are submitted at once while the device is at work.
const SIGNALS: usize = 8;
/// Submissions in flight before the thread waits for the oldest.
const FLYING: usize = 64;
/// Staging pieces in flight before the thread waits for the oldest.
const PIECES: usize = 4;
/// Bytes of a long pattern that are copied on and on.
const SEED: u64 = 64 << 10;

/// A submission.
struct Batch {
    commands: vk::CommandBuffer,
    ticket: u64,
    operations: u32,
    /// Other streams' submissions that come before.
    waits: Vec<Point>,
    /// Timelines raised by it.
    marks: Vec<(Arc<Timeline>, u64)>,
    /// What must live until it is over.
    pipelines: Vec<Arc<Pipeline>>,
    pieces: Vec<Allocation>,
    bound: vk::Pipeline,
}

/// A copy from staging to the host's memory, once its submission is over.
struct Fetch {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    ticket: u64,
}

/// The state of a stream's thread.
pub struct Recorder {
    core: Arc<Core>,
    pool: vk::CommandPool,
    idle: Vec<Batch>,
    open: Option<Batch>,
    ready: Vec<Batch>,
    flying: VecDeque<Batch>,
    /// What the next batch waits for.
    waits: Vec<Point>,
    piece: Option<Allocation>,
    used: u64,
    fetches: VecDeque<Fetch>,
    /// Last ticket given to a batch, and last one submitted.
    given: u64,
    submitted: u64,
}

// SAFETY: the pointers in `fetches` are the host's, who leaves the ranges alone until the stream passed the copies.
unsafe impl Send for Recorder {}

impl Recorder {
    /// A thread's state, before the thread.
    pub fn new(core: Arc<Core>) -> Result<Recorder> {
        let flags = vk::CommandPoolCreateFlags::TRANSIENT | vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let info = vk::CommandPoolCreateInfo::default().flags(flags).queue_family_index(core.chip.family);
        // SAFETY: the device is alive, the struct lives for the call.
        let pool = unsafe { core.chip.calls.raw.create_command_pool(&info, None) }.map_err(|e| failed("creating a command pool", e))?;
        Ok(Recorder {
            core,
            pool,
            idle: Vec::new(),
            open: None,
            ready: Vec::new(),
            flying: VecDeque::new(),
            waits: Vec::new(),
            piece: None,
            used: 0,
            fetches: VecDeque::new(),
            given: 0,
            submitted: 0,
        })
    }

    /// The thread: until the stream ends and its work is done.
    pub fn work(mut self) {
        let (core, mut tasks) = (self.core.clone(), VecDeque::with_capacity(256));
        while core.take(&mut tasks) {
            while let Some(task) = tasks.pop_front() {
                self.guarded(|r| r.run(task));
            }
            if !core.has_more() {
                self.guarded(Recorder::flush);
                self.guarded(Recorder::fetch_all);
            }
        }
    }

    /// Runs a step; its error, or panic, becomes the stream's.
    fn guarded(&mut self, step: impl FnOnce(&mut Recorder) -> Result<()>) {
        let panicked = |_| Err(Error::new(Code::PLUGIN_PANIC, "a stream's thread panicked"));
        if let Err(e) = catch_unwind(AssertUnwindSafe(|| step(self))).unwrap_or_else(panicked) {
            self.core.fail(e);
        }
    }

    fn run(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Signal(timeline, value) => return self.signal(timeline, value),
            Task::Wait(timeline, value) => return self.wait(&timeline, value),
            _ => {}
        }
        // After an error only timelines move.
        if self.core.error().is_some() {
            return Ok(());
        }
        self.core.chip.alive()?;
        match task {
            Task::Launch { pipeline, grid, args } => self.launch(pipeline, grid, &args)?,
            Task::Copy { dst, src, bytes } => self.copy(dst, src, bytes)?,
            Task::Fill { dst, pattern, bytes } => self.fill(dst, pattern, bytes)?,
            Task::Write { dst, src, bytes } => self.write(dst, src.0, bytes)?,
            Task::Read { src, dst, bytes } => self.read(src, dst.0, bytes)?,
            Task::Signal(..) | Task::Wait(..) => {}
        }
        let full = if self.flying.is_empty() { FIRST } else { FULL };
        if self.open.as_ref().is_some_and(|b| b.operations >= full) { self.flush() } else { Ok(()) }
    }

    fn signal(&mut self, timeline: Arc<Timeline>, value: u64) -> Result<()> {
        if !self.fetches.is_empty() {
            // Host memory is part of the work before the signal.
            let fetched = self.flush().and_then(|()| self.fetch_all());
            fetched.unwrap_or_else(|e| self.core.fail(e));
        }
        if self.core.error().is_some() || self.core.chip.alive().is_err() {
            // What was recorded before the error still runs.
            self.flush().unwrap_or_else(|e| self.core.fail(e));
            let error = self.core.chip.alive().err().or_else(|| self.core.error());
            timeline.publish(value, self.core.point(if self.core.chip.alive().is_ok() { self.submitted } else { 0 }), error);
            return Ok(());
        }
        if self.open.is_none() && self.waits.is_empty() && self.ready.is_empty() && self.submitted > 0 && !self.core.line.reached(self.submitted)? {
            // The work before is under way: its end is the signal.
            timeline.publish(value, self.core.point(self.submitted), None);
            return Ok(());
        }
        let recorded = self.batch().map(|b| b.marks.push((timeline.clone(), value)));
        if let Err(e) = recorded {
            timeline.publish(value, self.core.point(self.submitted), Some(e.clone()));
            return Err(e);
        }
        self.close()?;
        // Whoever waits for it should not wait for what comes after.
        let most = if self.flying.is_empty() { 1 } else { SIGNALS };
        if self.ready.len() >= most { self.flush() } else { Ok(()) }
    }

    fn wait(&mut self, timeline: &Timeline, value: u64) -> Result<()> {
        let mut ahead = timeline.ahead(value);
        if matches!(ahead, Ahead::Unknown) {
            self.flush().and_then(|()| self.fetch_all()).unwrap_or_else(|e| self.core.fail(e));
            self.core.blocked(true);
            ahead = timeline.ahead_when_known(value);
            self.core.blocked(false);
        }
        let error = match ahead {
            Ahead::Submitted(point, error) => {
                if !Arc::ptr_eq(&point.line, &self.core.line) && !point.line.reached(point.ticket)? {
                    self.close()?;
                    self.waits.push(point);
                }
                error
            }
            Ahead::Reached(error) => error,
            Ahead::Unknown => None,
        };
        // Work after it depends on what failed there.
        error.map_or(Ok(()), Err)
    }

    /// The batch being recorded.
    fn batch(&mut self) -> Result<&mut Batch> {
        if self.open.is_none() {
            let mut batch = match self.recycled()? {
                Some(batch) => batch,
                None => self.fresh()?,
            };
            self.given += 1;
            batch.ticket = self.given;
            batch.waits.append(&mut self.waits);
            let (raw, line) = (&self.core.chip.calls.raw, &self.core.line);
            let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
            // SAFETY: the command buffer is this thread's, and its last submission is over.
            unsafe {
                raw.begin_command_buffer(batch.commands, &info).map_err(|e| failed("recording commands", e))?;
                if line.stamps != vk::QueryPool::null() {
                    raw.cmd_reset_query_pool(batch.commands, line.stamps, Line::slot(batch.ticket), 1);
                }
            }
            self.open = Some(batch);
        }
        self.open.as_mut().ok_or_else(|| Error::new(Code::INTERNAL, "no batch is open"))
    }

    /// A batch whose submission is over.
    fn recycled(&mut self) -> Result<Option<Batch>> {
        if self.flying.len() >= FLYING {
            self.await_oldest()?;
        } else if let Some(oldest) = self.flying.front()
            && self.core.line.reached(oldest.ticket)?
        {
            self.retire()?;
        }
        Ok(self.idle.pop())
    }

    fn fresh(&self) -> Result<Batch> {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: the pool is this thread's.
        let commands = unsafe { self.core.chip.calls.raw.allocate_command_buffers(&info) }.map_err(|e| failed("allocating a command buffer", e))?[0];
        Ok(Batch { commands, ticket: 0, operations: 0, waits: Vec::new(), marks: Vec::new(), pipelines: Vec::new(), pieces: Vec::new(), bound: vk::Pipeline::null() })
    }

    fn await_oldest(&mut self) -> Result<()> {
        if let Some(ticket) = self.flying.front().map(|b| b.ticket) {
            self.core.line.wait(ticket, u64::MAX)?;
            self.retire()?;
        }
        Ok(())
    }

    /// Takes back what batches that are over held.
    fn retire(&mut self) -> Result<()> {
        while let Some(ticket) = self.flying.front().map(|b| b.ticket) {
            if !self.core.line.reached(ticket)? {
                break;
            }
            // Staging may be used anew only after the host has its bytes.
            self.fetch_until(ticket)?;
            if let Some(batch) = self.flying.pop_front() {
                self.reuse(batch);
            }
        }
        Ok(())
    }

    fn reuse(&mut self, mut batch: Batch) {
        for piece in batch.pieces.drain(..) {
            self.core.chip.staging.give(&self.core.chip, piece);
        }
        batch.pipelines.clear();
        batch.waits.clear();
        batch.marks.clear();
        (batch.operations, batch.bound) = (0, vk::Pipeline::null());
        self.idle.push(batch);
    }

    /// Ends the open batch; it is submitted with the next flush.
    fn close(&mut self) -> Result<()> {
        if self.open.is_none() && self.waits.is_empty() {
            return Ok(());
        }
        self.batch()?;
        let Some(batch) = self.open.take() else { return Ok(()) };
        let (raw, line) = (&self.core.chip.calls.raw, &self.core.line);
        let host = vk::MemoryBarrier::default().src_access_mask(vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE).dst_access_mask(vk::AccessFlags::HOST_READ);
        // SAFETY: the command buffer is being recorded by this thread.
        let ended = unsafe {
            raw.cmd_pipeline_barrier(batch.commands, WORK, vk::PipelineStageFlags::HOST, vk::DependencyFlags::empty(), &[host], &[], &[]);
            if line.stamps != vk::QueryPool::null() {
                raw.cmd_write_timestamp(batch.commands, vk::PipelineStageFlags::BOTTOM_OF_PIPE, line.stamps, Line::slot(batch.ticket));
            }
            raw.end_command_buffer(batch.commands)
        };
        match ended {
            Ok(()) => self.ready.push(batch),
            Err(e) => {
                let error = self.core.chip.failed("recording commands", e);
                self.abandon(vec![batch], &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Submits what is recorded.
    fn flush(&mut self) -> Result<()> {
        self.close()?;
        if self.ready.is_empty() {
            return Ok(());
        }
        let batches = core::mem::take(&mut self.ready);
        let core = self.core.clone();
        let submitted = core.chip.alive().and_then(|()| submit(&core, &batches));
        if let Err(e) = submitted {
            self.abandon(batches, &e);
            return Err(e);
        }
        for mut batch in batches {
            self.submitted = batch.ticket;
            core.line.submitted(batch.ticket);
            core.submitted(batch.ticket);
            for (timeline, value) in batch.marks.drain(..) {
                timeline.publish(value, core.point(batch.ticket), None);
            }
            self.flying.push_back(batch);
        }
        Ok(())
    }

    /// Batches that will not run: their signals carry the error, and the host's reads stay undone.
    fn abandon(&mut self, batches: Vec<Batch>, error: &Error) {
        for mut batch in batches {
            self.fetches.retain(|f| f.ticket != batch.ticket);
            for (timeline, value) in batch.marks.drain(..) {
                timeline.publish(value, self.core.point(if error.code == Code::DEVICE_LOST { 0 } else { self.submitted }), Some(error.clone()));
            }
            self.reuse(batch);
        }
    }

    /// Commands after which memory is as all commands before left it.
    fn operation(&mut self) -> Result<vk::CommandBuffer> {
        let batch = self.batch()?;
        batch.operations += 1;
        let commands = batch.commands;
        let all = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE;
        let barrier = vk::MemoryBarrier::default().src_access_mask(vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE).dst_access_mask(all);
        // SAFETY: the command buffer is being recorded by this thread.
        unsafe { self.core.chip.calls.raw.cmd_pipeline_barrier(commands, WORK, WORK, vk::DependencyFlags::empty(), &[barrier], &[], &[]) };
        Ok(commands)
    }

    fn launch(&mut self, pipeline: Arc<Pipeline>, grid: [u32; 3], args: &Args) -> Result<()> {
        let mut push = [0u64; PUSH_BYTES as usize / 8];
        match args {
            Args::Inline(values) => push = *values,
            Args::Block(values) => {
                let bytes = 8 * values.len() as u64;
                let block = self.stage(bytes)?;
                // SAFETY: staging is mapped, and the piece has as many bytes that nobody else uses.
                unsafe { block.mapped.copy_from_nonoverlapping(values.as_ptr().cast(), bytes as usize) };
                push[0] = block.address;
            }
        }
        let (chip, commands) = (self.core.chip.clone(), self.operation()?);
        let raw = pipeline.raw;
        let batch = self.batch()?;
        let rebind = batch.bound != raw;
        if rebind {
            batch.bound = raw;
            batch.pipelines.push(pipeline);
        }
        let bytes: [[u8; 8]; PUSH_BYTES as usize / 8] = push.map(u64::to_le_bytes);
        // SAFETY: the command buffer is being recorded by this thread; the pipeline lives in the batch; its code was checked against the layout.
        unsafe {
            if rebind {
                chip.calls.raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, raw);
            }
            // All of it, so that no byte the code declares is undefined.
            chip.calls.raw.cmd_push_constants(commands, chip.layout, vk::ShaderStageFlags::COMPUTE, 0, bytes.as_flattened());
            chip.calls.raw.cmd_dispatch(commands, grid[0], grid[1], grid[2]);
        }
        Ok(())
    }

    fn copy_region(&self, commands: vk::CommandBuffer, dst: Place, src: Place, bytes: u64) {
        let region = vk::BufferCopy { src_offset: src.offset, dst_offset: dst.offset, size: bytes };
        // SAFETY: the command buffer is being recorded by this thread; the glue checked the ranges, the host keeps the buffers.
        unsafe { self.core.chip.calls.raw.cmd_copy_buffer(commands, src.buffer, dst.buffer, &[region]) };
    }

    fn copy(&mut self, dst: Place, src: Place, bytes: u64) -> Result<()> {
        let commands = self.operation()?;
        self.copy_region(commands, dst, src, bytes);
        Ok(())
    }

    fn fill(&mut self, dst: Place, pattern: Pattern, bytes: u64) -> Result<()> {
        let head = (dst.offset.next_multiple_of(4) - dst.offset).min(bytes);
        let (Some(word), true) = (pattern.word(head), bytes >= 64) else { return self.fill_by_copies(dst, pattern, bytes) };
        let body = (bytes - head) / 4 * 4;
        let commands = self.operation()?;
        let start = dst.at(head);
        // SAFETY: as for copies; the offset and length are multiples of 4.
        unsafe { self.core.chip.calls.raw.cmd_fill_buffer(commands, start.buffer, start.offset, body, word) };
        for (at, length) in [(0, head), (head + body, bytes - head - body)] {
            self.seed(dst.at(at), pattern, at, length)?;
        }
        Ok(())
    }

    /// A short stretch of a pattern, from byte `at` of it on.
    fn seed(&mut self, dst: Place, pattern: Pattern, at: u64, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let staged = self.stage(bytes)?;
        // SAFETY: staging is mapped, and the piece has as many bytes that nobody else uses.
        pattern.write(at, unsafe { core::slice::from_raw_parts_mut(staged.mapped, bytes as usize) });
        self.copy(dst, staged, bytes)
    }

    /// Patterns no fill command knows: a seed from the host, then copies of what is there, twice as long each time.
    fn fill_by_copies(&mut self, dst: Place, pattern: Pattern, bytes: u64) -> Result<()> {
        let mut done = bytes.min(SEED);
        self.seed(dst, pattern, 0, done)?;
        while done < bytes {
            let more = done.min(bytes - done);
            self.copy(dst.at(done), dst, more)?;
            done += more;
        }
        Ok(())
    }

    fn write(&mut self, dst: Place, src: *const u8, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let staged = self.room(bytes - done)?;
            // SAFETY: the host keeps `src` readable until the stream passed the copy; staging is mapped and nobody else's.
            unsafe { staged.0.mapped.copy_from_nonoverlapping(src.add(done as usize), staged.1 as usize) };
            self.copy(dst.at(done), staged.0, staged.1)?;
            done += staged.1;
            if done < bytes {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn read(&mut self, src: Place, dst: *mut u8, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let (staged, part) = self.room(bytes - done)?;
            self.copy(staged, src.at(done), part)?;
            let ticket = self.batch()?.ticket;
            // The host keeps `dst` writable for all bytes until the stream passed the copy.
            self.fetches.push_back(Fetch { from: staged.mapped, to: dst.wrapping_add(done as usize), bytes: part as usize, ticket });
            done += part;
            if done < bytes {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Staging for as much of `bytes` as a piece holds.
    fn room(&mut self, bytes: u64) -> Result<(Place, u64)> {
        let left = if self.piece.is_some() { PIECE_BYTES - self.used } else { 0 };
        // A large copy begins a piece; what is left of the last one would only make a short step.
        let part = if bytes <= left || left >= PIECE_BYTES / 2 { bytes.min(left) } else { bytes.min(PIECE_BYTES) };
        Ok((self.stage(part)?, part))
    }

    /// Staging of at most a piece, on a 16-byte boundary; its former piece goes with the open batch.
    fn stage(&mut self, bytes: u64) -> Result<Place> {
        if bytes > PIECE_BYTES {
            return Err(Error::new(Code::INTERNAL, format!("{bytes} bytes of staging at once; a piece has {PIECE_BYTES}")));
        }
        if self.piece.is_some() && self.flying.is_empty() && self.open.is_none() && self.ready.is_empty() && self.fetches.is_empty() {
            self.used = 0;
        }
        let full = self.used + bytes > PIECE_BYTES;
        if let Some(old) = self.piece.take_if(|_| full) {
            self.batch()?.pieces.push(old);
            while self.pieces_out() >= PIECES {
                self.flush()?;
                self.await_oldest()?;
            }
        }
        if self.piece.is_none() {
            self.piece = Some(self.core.chip.staging.take(&self.core.chip)?);
            self.used = 0;
        }
        let Some(piece) = &self.piece else { return Err(Error::new(Code::INTERNAL, "no staging piece")) };
        let place = piece.place.at(self.used);
        self.used += bytes.next_multiple_of(16);
        Ok(place)
    }

    fn pieces_out(&self) -> usize {
        self.flying.iter().chain(&self.ready).chain(&self.open).map(|b| b.pieces.len()).sum()
    }

    /// Hands all bytes read so far to the host.
    fn fetch_all(&mut self) -> Result<()> {
        let Some(last) = self.fetches.back().map(|f| f.ticket) else { return Ok(()) };
        self.fetch_until(last).inspect_err(|_| self.fetches.clear())
    }

    fn fetch_until(&mut self, ticket: u64) -> Result<()> {
        while let Some(fetch) = self.fetches.front().filter(|f| f.ticket <= ticket) {
            self.core.line.wait(fetch.ticket, u64::MAX)?;
            // SAFETY: the copy to staging is over, which is mapped and not used anew before; the host keeps `to` writable.
            unsafe { fetch.to.copy_from_nonoverlapping(fetch.from, fetch.bytes) };
            self.fetches.pop_front();
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A stream that ends has submitted everything; when the device was lost there is nothing to wait for.
        let _ = self.core.line.wait(self.submitted, u64::MAX);
        for batch in self.flying.drain(..).chain(self.ready.drain(..)).chain(self.open.take()).chain(self.idle.drain(..)) {
            batch.pieces.into_iter().for_each(|p| self.core.chip.staging.give(&self.core.chip, p));
        }
        if let Some(piece) = self.piece.take() {
            self.core.chip.staging.give(&self.core.chip, piece);
        }
        // SAFETY: the pool is this thread's, and its command buffers are over.
        unsafe { self.core.chip.calls.raw.destroy_command_pool(self.pool, None) };
    }
}

/// The stages work runs in.
const WORK: vk::PipelineStageFlags =
    vk::PipelineStageFlags::from_raw(vk::PipelineStageFlags::COMPUTE_SHADER.as_raw() | vk::PipelineStageFlags::TRANSFER.as_raw());

/// Submits batches in order; each waits for its points and raises the stream's semaphore to its ticket.
fn submit(core: &Core, batches: &[Batch]) -> Result<()> {
    let own = [core.line.raw];
    let waits: Vec<(Vec<vk::Semaphore>, Vec<u64>, Vec<vk::PipelineStageFlags>)> = batches
        .iter()
        .map(|b| (b.waits.iter().map(|p| p.line.raw).collect(), b.waits.iter().map(|p| p.ticket).collect(), vec![vk::PipelineStageFlags::ALL_COMMANDS; b.waits.len()]))
        .collect();
    let tickets: Vec<u64> = batches.iter().map(|b| b.ticket).collect();
    let commands: Vec<vk::CommandBuffer> = batches.iter().map(|b| b.commands).collect();
    let mut timelines: Vec<vk::TimelineSemaphoreSubmitInfo<'_>> = waits
        .iter()
        .zip(&tickets)
        .map(|(w, t)| vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&w.1).signal_semaphore_values(core::slice::from_ref(t)))
        .collect();
    let infos: Vec<vk::SubmitInfo<'_>> = waits
        .iter()
        .zip(&commands)
        .zip(&mut timelines)
        .map(|((w, c), t)| {
            vk::SubmitInfo::default().wait_semaphores(&w.0).wait_dst_stage_mask(&w.2).command_buffers(core::slice::from_ref(c)).signal_semaphores(&own).push_next(t)
        })
        .collect();
    let queue = lock(&core.chip.queues[core.queue].raw);
    // SAFETY: the queue is locked; command buffers are ended, semaphores alive, lists live for the call.
    let submitted = unsafe { core.chip.calls.raw.queue_submit(*queue, &infos, vk::Fence::null()) };
    submitted.map_err(|e| core.chip.failed("submitting work", e))
}
