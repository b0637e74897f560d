//! `cargo xtask`: the repository's own chores. `cargo flagos …` stages an installation and runs the `flagos` tool from it.
#![forbid(unsafe_code)]

mod abi;
mod ci;
mod codegen;
mod corpus;
mod new;
mod nvrtc;
mod stage;
mod tidy;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use tool::Outcome;

/// Chores of the libflagos repository.
#[derive(Parser)]
#[command(name = "xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds everything into an installation tree under target/stage.
    Stage,
    /// Stages, then runs `flagos` with the given words.
    #[command(disable_help_flag = true)]
    Flagos {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Stages, then copies the installation to a prefix.
    Install {
        /// Where (`/usr/local`, `$HOME/.local`, …).
        #[arg(long)]
        prefix: PathBuf,
        /// Also the example backends (acme, null, example-c).
        #[arg(long)]
        with_examples: bool,
    },
    /// Writes the generated files, or compares them with what is checked in.
    Codegen {
        /// Only compare; fail where they differ.
        #[arg(long)]
        check: bool,
    },
    /// House rules: heads of files, lengths, unsafe, words that do not belong.
    Tidy,
    /// ABI gates: exported symbols, layout prefix, abidiff with a seeded change, an old plugin in this host.
    Abi,
    /// Compiles every portable kernel by NVRTC for sm_80, sm_90 and sm_120; FLAGOS_NVRTC_PATH names its folder, as scripts/nvrtc prints it.
    Nvrtc,
    /// Everything that must hold before a change lands.
    Ci {
        /// Also the steps that take long.
        #[arg(long)]
        full: bool,
    },
    /// Makes a new operator family or backend from the templates.
    #[command(subcommand)]
    New(new::What),
}

fn main() -> ExitCode {
    let result: Outcome<ExitCode> = match Arguments::parse().command {
        Command::Stage => stage::stage().map(|tree| {
            println!("staged {}", tree.display());
            ExitCode::SUCCESS
        }),
        Command::Flagos { words } => stage::stage().and_then(|tree| tool::replace(&tree.join("bin/flagos"), &words)),
        Command::Install { prefix, with_examples } => stage::install(&prefix, with_examples).map(|()| ExitCode::SUCCESS),
        Command::Codegen { check } => codegen::run(check).map(|()| ExitCode::SUCCESS),
        Command::Tidy => tidy::run().map(|()| ExitCode::SUCCESS),
        Command::Abi => abi::run_gates().map(|()| ExitCode::SUCCESS),
        Command::Nvrtc => nvrtc::run(&[]).map(|_| ExitCode::SUCCESS),
        Command::Ci { full } => Ok(ci::run_all(full)),
        Command::New(what) => new::run(&what).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|e| {
        eprintln!("xtask: {e}");
        ExitCode::FAILURE
    })
}
