//! Kernels that Triton printed, compiled for the device and run: they give what NumPy expects.

use flagos_compiler::{Options, Target, compile};

use crate::corpus;
use crate::device::{device, launch, validate};
use crate::support::Backend;

/// Runs every case; those that differ, and those that are refused as unsupported.
fn run(backend: &Backend, target: &Target, options: &Options) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    let only = std::env::var("FLAGOS_CORPUS").unwrap_or_default();
    for case in corpus::cases().into_iter().filter(|c| c.name.contains(&only)) {
        let compiled = match compile(&case.program().unwrap(), &case.entry, target, options) {
            Ok(compiled) => compiled,
            Err(e) => {
                refused.push(format!("{}: {e}", case.name));
                continue;
            }
        };
        validate(&compiled.code);
        let mut args = case.args.clone();
        launch(backend, &compiled, case.grid, &mut args);
        if let Err(e) = case.check(&args) {
            wrong.push(e);
        }
    }
    (wrong, refused)
}

#[test]
fn kernels_printed_by_triton_give_what_numpy_expects() {
    let Some((backend, target)) = device() else { return };
    let (wrong, refused) = run(backend, target, &Options { threads: 64, stages: 1 });
    assert!(refused.is_empty(), "{} cases are refused:\n{}", refused.len(), refused.join("\n"));
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}
