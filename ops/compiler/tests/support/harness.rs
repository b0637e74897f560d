//! A test program whose tests need a device: without it they are counted as ignored, with the reason.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test: name, and what it does with the device.
pub type Test<D> = (&'static str, fn(&D));

/// Runs the tests whose names contain the first argument that is no option; ends the process with their verdict.
pub fn main_of<D>(what: &str, device: Result<(String, D), String>, tests: &[Test<D>]) {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    if let Ok((name, _)) = &device {
        println!("{what}: {name}");
    }
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in tests.iter().filter(|t| t.0.contains(&wanted)) {
        match &device {
            Err(why) => {
                ignored += 1;
                println!("test {name} ... ignored: {why}");
            }
            Ok((_, device)) if catch_unwind(AssertUnwindSafe(|| test(device))).is_ok() => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {} filtered out", tests.len() - passed - failed - ignored);
    std::process::exit(i32::from(failed > 0));
}
