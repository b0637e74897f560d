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
        static HOST: LazyLock<Target> = LazyLock::new(|| Target { isa: isa(), threads: std::thread::available_parallelism().map_or(1, usize::from) });
        &HOST
    }
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
