//! Every target with a fixed amount of work. A failure prints the seed of its round.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use flagos_fuzz::border::{End, Rig};
use flagos_fuzz::manifest;
use flagos_fuzz::random::Random;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Runs rounds, each from a seed of its own; returns how many were taken.
fn rounds(target: &str, count: u64, mut round: impl FnMut(&mut Random) -> End) -> u64 {
    let (count, first) = (count * setting("FLAGOS_FUZZ_ROUNDS", 1), setting("FLAGOS_FUZZ_SEED", 1));
    let mut taken = 0;
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| round(&mut Random::new(seed)))) {
            Ok(ended) => taken += u64::from(ended == End::Done),
            Err(panic) => {
                eprintln!("{target}: round with FLAGOS_FUZZ_SEED={seed} failed");
                resume_unwind(panic);
            }
        }
    }
    println!("{target}: {count} rounds from seed {first}, {taken} taken, the rest refused in words");
    taken
}

#[test]
fn manifests() {
    rounds("manifest", 200_000, |random| {
        manifest::round(random);
        End::Refused
    });
}

#[test]
fn operator_calls() {
    let rig = Rig::new();
    // A target that refuses everything looks at nothing.
    assert!(rounds("operators", 40_000, |random| rig.operator(random)) > 1000);
}

#[test]
fn blas_calls() {
    let rig = Rig::new();
    assert!(rounds("blas", 40_000, |random| rig.blas(random)) > 200);
}

#[test]
fn transforms() {
    let rig = Rig::new();
    assert!(rounds("fft", 40_000, |random| rig.fft(random)) > 200);
}
