//! What this processor can do, found out once.

use std::sync::LazyLock;

/// Instruction sets kernels are instantiated for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every x86-64 (or other) processor has.
    Baseline,
    /// AVX2, FMA, F16C, BMI (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL (x86-64-v4).
    Avx512,
}

impl Isa {
    /// The psABI's name of the level.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Baseline => std::env::consts::ARCH,
            Isa::Avx2 => "x86-64-v3",
            Isa::Avx512 => "x86-64-v4",
        }
    }
}

/// The processor.
#[derive(Clone, Debug)]
pub struct Target {
    /// Best usable instruction set.
    pub isa: Isa,
    /// Worker threads a kernel may count on, the caller included.
    pub threads: usize,
}

impl Target {
    /// This machine.
    pub fn host() -> &'static Target {
        static HOST: LazyLock<Target> = LazyLock::new(|| Target { isa: isa(), threads: threads() });
        &HOST
    }
}

/// FLAGOS_CPU_THREADS, else the processors this process may use.
fn threads() -> usize {
    let wish = std::env::var("FLAGOS_CPU_THREADS").ok().and_then(|t| t.parse().ok()).filter(|n| (1..=1024).contains(n));
    wish.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2") {
            if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                return Isa::Avx512;
            }
            return Isa::Avx2;
        }
    }
    Isa::Baseline
}
