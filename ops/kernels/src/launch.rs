//! From kernels and numbers to steps: keys, grids, variants, sizes that suit a target.

use std::sync::Arc;

use flagos_compiler::build::{Expr, Kernel as Builder, kernel};
use flagos_compiler::{Elem, Options, Target};

use crate::lines::Cut;
use crate::{Arg, Kernel, Step};

/// Most blocks along x; further ones go along y, as some devices take no more than 65535 along an axis.
const ROW_OF_BLOCKS: u64 = 1 << 15;

/// Fewest blocks for which a second variant is compiled that counts on aligned addresses: fewer leave a chip idle anyway, and the second
/// compilation costs more than it brings.
const WORTH_ALIGNING: i64 = 16;

/// Whether blocks are single threads of a processor.
pub fn is_cpu(target: &Target) -> bool {
    target.is_processor()
}

/// Whether few general kernels do better than many that fit their numbers: on processors, which gain little by a fit, and for drivers in software,
/// which compile slowly.
pub fn is_general(target: &Target) -> bool {
    is_cpu(target) || target.is_software()
}

/// Whether a chip runs subgroups of many threads in lockstep, thousands of threads at once, and hides the way to memory by their number.
pub fn is_wide(target: &Target) -> bool {
    target.subgroup >= 16
}

/// Threads of a block.
pub fn threads(target: &Target) -> u32 {
    if is_cpu(target) { 1 } else { 128.min(1 << target.max_block_threads.max(1).ilog2()) }
}

/// Elements of `bytes` a block works on at a time: on GPUs two wide accesses for each thread.
pub fn block(target: &Target, bytes: u32) -> u32 {
    if is_cpu(target) { 2048 } else { threads(target) * (32 / bytes.clamp(1, 8)).clamp(4, 16) }
}

/// A kernel before it meets numbers.
pub struct Code {
    /// Entry point, "k_…".
    pub entry: &'static str,
    /// What it depends on beside the entry point.
    pub key: String,
    /// Blocks; 0: nothing to do.
    pub blocks: i64,
    /// Arguments in the order in which `body` declares them.
    pub args: Vec<Arg>,
    /// Pointers may be taken for multiples of 16 bytes when they are.
    pub aligned: bool,
}

/// Code with a number of threads of its own.
pub struct Threaded {
    code: Code,
    options: Options,
}

/// What a body knows beside its arguments.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The kernel being built.
    pub k: &'a Builder,
    align: u32,
}

impl Context<'_> {
    /// A pointer to elements, aligned as the variant promises.
    pub fn pointer(&self, elem: Elem) -> Expr {
        self.k.aligned_pointer(elem, self.align.max(elem.bytes()))
    }
}

impl Code {
    /// For blocks of so many threads.
    pub fn threads(self, threads: u32) -> Threaded {
        Threaded { code: self, options: Options { threads, stages: 1 } }
    }
    /// For blocks that hold a tile of a cut in registers: the larger the tile, the more threads; fewer where each doubling of them costs all of
    /// them a barrier, for want of shuffles, and where drivers may not give many threads the registers.
    pub fn sized(self, target: &Target, cut: Cut) -> Threaded {
        let usual = threads(target);
        let most = if is_wide(target) { 512 } else { 256 }.min(1 << target.max_block_threads.max(1).ilog2()).max(usual);
        let threads = if is_cpu(target) { 1 } else { (cut.lines * cut.points / 16).clamp(usual, most) };
        self.threads(threads)
    }
    /// The step: `declare` states the arguments, `body` is run for each block with its index (i32).
    pub fn step<A>(
        self,
        target: &Target,
        declare: impl Fn(&Context) -> A + Send + Sync + 'static,
        body: impl Fn(&Builder, &A, Expr) + Send + Sync + 'static,
    ) -> Step {
        self.step_of(Options { threads: threads(target), stages: 1 }, declare, body)
    }
    fn step_of<A>(
        self,
        options: Options,
        declare: impl Fn(&Context) -> A + Send + Sync + 'static,
        body: impl Fn(&Builder, &A, Expr) + Send + Sync + 'static,
    ) -> Step {
        let folded = self.blocks as u64 > ROW_OF_BLOCKS;
        // Processors, whose blocks have one thread, read wide at any address.
        let aligned = self.aligned && options.threads > 1 && self.blocks >= WORTH_ALIGNING;
        let entry = self.entry;
        let source = Arc::new(move |align: u32| {
            kernel(entry, |k| {
                let a = declare(&Context { k, align });
                if !folded {
                    return body(k, &a, k.program_id(0));
                }
                let blocks = k.i32();
                let block = k.program_id(1) * k.num_programs(0) + k.program_id(0);
                k.when(block.lt(blocks), || body(k, &a, block));
            })
        });
        let kernel = |align: u32, note: &str| {
            let (source, fold) = (source.clone(), if folded { " folded" } else { "" });
            let stages = if options.stages > 1 { format!(" p{}", options.stages) } else { String::new() };
            let key = format!("{} {}{fold}{note} t{}{stages}", entry.trim_start_matches("k_"), self.key, options.threads);
            Kernel { key, entry, options, build: Arc::new(move || source(align)) }
        };
        let mut args = self.args;
        let mut grid = [self.blocks as u32, 1, 1];
        if folded {
            args.push(Arg::Scalar { bits: self.blocks as u64, bytes: 4 });
            grid = [ROW_OF_BLOCKS as u32, (self.blocks as u64).div_ceil(ROW_OF_BLOCKS) as u32, 1];
        }
        Step { kernel: kernel(1, ""), aligned: aligned.then(|| kernel(16, " aligned")), grid, args }
    }
}

impl Threaded {
    /// With loads for products under way for so many rounds of a loop at once.
    pub fn stages(mut self, stages: u32) -> Threaded {
        self.options.stages = stages;
        self
    }
    /// As [`Code::step`].
    pub fn step<A>(
        self,
        declare: impl Fn(&Context) -> A + Send + Sync + 'static,
        body: impl Fn(&Builder, &A, Expr) + Send + Sync + 'static,
    ) -> Step {
        self.code.step_of(self.options, declare, body)
    }
}

/// The least power of two that is not less, within bounds that are powers of two.
pub fn extent(n: i64, least: u32, most: u32) -> u32 {
    (n.clamp(1, i64::from(most)) as u32).next_power_of_two().clamp(least, most)
}

/// ⌈a/b⌉.
pub fn ceil_div(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b > 0)
}
