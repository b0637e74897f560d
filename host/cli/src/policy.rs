//! `flagos policy`: what is in force, and whether a policy file is right.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use flagos_runtime::{Policy, Result};

use crate::output::Output;

/// What to do.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Reads policy files as they would be merged, and says what is wrong.
    Check {
        /// TOML files, later ones over earlier ones.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Shows or checks.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let policy = match &arguments.command {
        None => Policy::from_environment()?,
        Some(Command::Check { files }) => files.iter().try_fold(Policy::default(), |policy, file| policy.merge_file(file))?,
    };
    policy.check()?;
    if output.is_json() {
        output.json(&serde_json::json!({ "policy": &policy, "digest": format!("{:016x}", policy.digest()) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output.text(&format!("strict {}\nfallback {:?}\norder {}", policy.strict, policy.fallback, policy.order.join(" ")));
    for (backend, priority) in &policy.priority {
        output.text(&format!("priority {backend} {priority}"));
    }
    for rule in &policy.rules {
        output.text(&format!("rule {rule:?}"));
    }
    for pattern in &policy.revoked {
        output.text(&format!("revoked {pattern}"));
    }
    output.text(&format!("digest {:016x}", policy.digest()));
    Ok(ExitCode::SUCCESS)
}
