//! A library whose constructor never returns. Alone in its process, because the dynamic linker's lock is gone afterwards.

mod discover_support;

use std::time::Duration;

use discover_support::{World, check, taken};
use flagos_runtime::discover::{Phase, discover};

#[test]
fn constructor_that_hangs() {
    let world = World::new();
    let file = world.bad(&["HANG_CONSTRUCTOR"]);
    let later = world.plugin("later.so", &["NAME=\"later\""]);
    world.manifest("70-later.json", "later", "later.so");
    let mut options = world.options();
    options.query_timeout = Duration::from_millis(300);
    let report = discover(&options, &[]);
    assert_eq!(
        taken(&report),
        ["good"],
        "what was loaded before keeps working"
    );
    let refused: Vec<_> = report.refused().collect();
    check(
        refused[0],
        Phase::Dlopen,
        &file,
        &[
            "constructors did not return within 0.3 s",
            "backend refused",
        ],
    );
    check(
        refused[1],
        Phase::Dlopen,
        &later,
        &["cannot be loaded while", "bad.so", "remove that backend"],
    );
}
