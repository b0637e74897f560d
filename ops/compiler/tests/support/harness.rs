//! Test programs whose tests need a device: without it they are counted as ignored, with the reason.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test: name, and what it does with the device.
pub type Test<D> = (&'static str, fn(&D));

/// Counts of a test program.
#[derive(Default)]
pub struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    left_out: usize,
}

impl Counts {
    /// Runs the tests whose names contain the program's first argument that is no option.
    pub fn run<D>(&mut self, what: &str, device: Result<(String, D), String>, tests: &[Test<D>]) {
        let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
        if let Ok((name, _)) = &device {
            println!("{what}: {name}");
        }
        for (name, test) in tests {
            if !name.contains(&wanted) {
                self.left_out += 1;
                continue;
            }
            match &device {
                Err(why) => {
                    self.ignored += 1;
                    println!("test {name} ... ignored: {why}");
                }
                Ok((_, device)) if catch_unwind(AssertUnwindSafe(|| test(device))).is_ok() => {
                    self.passed += 1;
                    println!("test {name} ... ok");
                }
                Ok(_) => {
                    self.failed += 1;
                    println!("test {name} ... FAILED");
                }
            }
        }
    }

    /// Ends the process with the verdict.
    pub fn finish(self) -> ! {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        let Counts { passed, failed, ignored, left_out } = self;
        println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {left_out} filtered out");
        std::process::exit(i32::from(failed > 0))
    }
}
