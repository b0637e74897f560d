//! A program with nothing but the host and the suite: `judge LIBRARY GLOB…` runs cases on one backend. The ABI gate builds it as the host of the
//! next minor, to see that today's backends run there.

use std::process::ExitCode;

use flagos_conformance::{Options, Target, WORKER_COMMAND, run, worker_main};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == WORKER_COMMAND) {
        return worker_main(&[]);
    }
    let [library, cases @ ..] = words.as_slice() else {
        eprintln!("usage: judge LIBRARY GLOB…");
        return ExitCode::from(2);
    };
    println!("a host of ABI 1.{}", flagos_backend_api::ABI_MINOR);
    let options = Options { targets: vec![Target::File(library.into())], cases: cases.to_vec(), progress: false, ..Options::default() };
    match run(&options, &mut std::io::stdout()) {
        Ok(summary) => ExitCode::from(summary.exit_code()),
        Err(e) => {
            eprintln!("judge: {e}");
            ExitCode::from(2)
        }
    }
}
