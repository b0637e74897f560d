//! `flagos`: the command line of libflagos.

mod bench;
mod compile;
mod conformance;
mod doctor;
mod explain;
mod files;
mod golden;
mod kernel;
mod kernel_check;
mod mutations;
mod ops;
mod output;
mod overhead;
mod policy;
mod rows;
mod run;
mod spec;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flagos_runtime::{Device, Result, Runtime};

use output::Output;

/// One library for any chip: backends, operators, and the suite that says which may be trusted.
#[derive(Parser)]
#[command(name = "flagos", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every backend found, taken or refused, with the reason, what is missing and how long each step took.
    Doctor,
    /// Backends in use.
    Backends,
    /// Devices of the backends in use.
    Devices,
    /// Operators of the catalogue.
    Ops(ops::Arguments),
    /// Who would run a call on a device, and why.
    Explain(explain::Arguments),
    /// Runs an operator on .npy or .safetensors files, or the cases of a golden file.
    Run(run::Arguments),
    /// Compiles Triton dialect to the code of any target, or fills the kernel cache of a device.
    Compile(compile::Arguments),
    /// Runs a kernel in Triton dialect on files and numbers, or kernels with known results.
    Kernel(kernel::Arguments),
    /// Measures operators, BLAS, FFT and the library's own overhead.
    Bench(bench::Arguments),
    /// Tests backends against the shared suite.
    Conformance(conformance::Arguments),
    /// Environment variables libflagos reads, and their values.
    Env,
    /// The policy in force, or a check of a policy file.
    Policy(policy::Arguments),
    /// Completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // The suite's child processes are this program again.
    if std::env::args_os().nth(1).is_some_and(|a| a == flagos_conformance::WORKER_COMMAND) {
        return flagos_conformance::worker_main(&flagos::embedded());
    }
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match dispatch(arguments.command, &output) {
        Ok(code) => code,
        Err(e) => {
            output.error(&e);
            ExitCode::from(if e.code == flagos_runtime::Code::INVALID_ARGUMENT { 2 } else { 1 })
        }
    }
}

fn dispatch(command: Command, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Doctor => doctor::doctor(&runtime()?, output),
        Command::Backends => doctor::backends(&runtime()?, output),
        Command::Devices => doctor::devices(&runtime()?, output),
        Command::Ops(arguments) => ops::run(&arguments, output),
        Command::Explain(arguments) => explain::run(&arguments, output),
        Command::Run(arguments) => run::run(&arguments, output),
        Command::Compile(arguments) => compile::run(&arguments, output),
        Command::Kernel(arguments) => kernel::run(&arguments, output),
        Command::Bench(arguments) => bench::run(&arguments, output),
        Command::Conformance(arguments) => conformance::run_suite(&arguments, output),
        Command::Env => doctor::env(output),
        Command::Policy(arguments) => policy::run(&arguments, output),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "flagos", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The runtime every command works with: installed backends and those linked in.
fn runtime() -> Result<Runtime> {
    Runtime::new(&flagos::embedded())
}

/// Opens a device by name; empty text is the best one.
fn open(name: &str) -> Result<Device> {
    runtime()?.open(name)
}
