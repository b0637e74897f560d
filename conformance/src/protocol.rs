//! What the runner and a worker process say to each other: one JSON value per line over a socket that backends cannot print into.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use flagos_runtime::claims::Implementation;

use crate::outcome::CaseResult;

/// A backend to test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Linked into the program, by name.
    Embedded(String),
    /// Found as the host finds it, by name.
    Name(String),
    /// A manifest or a library, by path.
    File(PathBuf),
}

impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Target::Embedded(name) => write!(f, "{name} (embedded)"),
            Target::Name(name) => f.write_str(name),
            Target::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// From the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Which backends are there?
    List,
    /// Load this one and open its device.
    Open {
        /// The backend.
        target: Target,
        /// Ordinal of the device.
        ordinal: u32,
        /// Tier, which makes the list that ids are looked up in.
        tier: String,
        /// Seed of contents.
        seed: u64,
        /// Which implementations may run.
        implementation: Implementation,
    },
    /// Run these cases, in order.
    Run {
        /// Case ids.
        ids: Vec<String>,
    },
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// What discovery found.
    Found(Vec<Found>),
    /// The device is open.
    Opened(Box<Identity>),
    /// It is not.
    Refused {
        /// Why.
        reason: String,
        /// Nothing is wrong: the chip is absent, or the user left the backend out.
        expected: bool,
    },
    /// A case begins: its time runs from here.
    Begin {
        /// Case id.
        id: String,
    },
    /// A case is over.
    Done(Box<CaseResult>),
}

/// A backend that discovery found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// How to open it.
    pub target: Target,
    /// Why not, and whether nothing is wrong with that.
    pub refused: Option<(String, bool)>,
}

/// What was tested: everything a claim is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Backend name.
    pub backend: String,
    /// Its version.
    pub version: String,
    /// Its maker.
    pub vendor: String,
    /// Its build.
    pub build_id: String,
    /// What it was compiled with.
    pub compiler: String,
    /// ABI minor it was built against.
    pub abi_minor: u32,
    /// Path of the library; empty for embedded backends.
    pub library: String,
    /// SHA-256 of the library; empty for embedded backends.
    pub library_sha256: String,
    /// Path of the manifest; empty where there is none.
    pub manifest: String,
    /// `backend:ordinal`.
    pub device: String,
    /// Product name of the device.
    pub product: String,
    /// Target fingerprint.
    pub arch: String,
    /// Driver.
    pub driver: String,
    /// The device takes single-precision subnormals for zeros.
    #[serde(default)]
    pub flushes_subnormals: bool,
}

/// Writes a message as one line.
pub fn send<T: Serialize>(to: &mut dyn Write, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a message; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(from: &mut dyn BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;

    #[test]
    fn messages_are_lines() {
        let replies = [
            Reply::Begin { id: "a\nb".into() },
            Reply::Done(Box::new(CaseResult::new("a", Status::Pass))),
            Reply::Refused { reason: "no".into(), expected: true },
        ];
        let mut wire = Vec::new();
        replies.iter().for_each(|r| send(&mut wire, r).unwrap());
        assert_eq!(wire.iter().filter(|b| **b == b'\n').count(), replies.len());
        let mut from = std::io::BufReader::new(&wire[..]);
        for r in &replies {
            assert_eq!(receive::<Reply>(&mut from).unwrap().as_ref(), Some(r));
        }
        assert_eq!(receive::<Reply>(&mut from).unwrap(), None);
    }
}
