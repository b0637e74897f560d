//! The corpus of old backends: the template backend as it was at each released minor, built from its own source and run in today's host and in
//! the host of the next minor.

use std::path::{Path, PathBuf};

use crate::stage::stage;
use crate::tool::{Outcome, capture, cargo, command, root, run as succeed, target};

/// A released minor and where its source is: a tag where there is one, else the commit that wrote its layout down.
struct Release {
    minor: u32,
    tag: &'static str,
    commit: &'static str,
}

/// Every minor released. A new one gets a line when `backend-api/abi/1.N.layout` is written.
const RELEASES: &[Release] = &[Release { minor: 0, tag: "abi-1.0", commit: "03fe0ed05d65d98648d9bc4b1bc634353ebd19fe" }];

/// What old backends must pass: the cases of the tables themselves, and some work.
const CASES: &[&str] = &["abi/*", "memory/*", "stream/*", "add/f32/*", "softmax/f32/*"];

/// Builds each old backend and runs it in both hosts.
pub fn run() -> Outcome {
    for release in RELEASES {
        let Some(source) = source(release)? else { continue };
        let library = build(release, &source)?;
        let flagos = stage()?.join("bin/flagos");
        let mut now = command(&flagos.display().to_string());
        now.args(["conformance", "--backend"]).arg(&library);
        CASES.iter().for_each(|case| {
            now.args(["--case", case]);
        });
        judged(release, "this host", &mut now)?;
        let mut next = command(&next_host()?.display().to_string());
        next.arg(&library).args(CASES);
        judged(release, "the host of the next minor", &mut next)?;
    }
    Ok(())
}

/// The source of a release, unpacked; `None` where this clone does not reach back to it.
fn source(release: &Release) -> Outcome<Option<PathBuf>> {
    let known = |name: &str| capture(command("git").args(["rev-parse", "--quiet", "--verify", &format!("{name}^{{commit}}")]));
    let mut found = None;
    for name in [release.tag, release.commit] {
        let (code, text) = known(name)?;
        if code == 0 {
            found = Some(text.trim().to_owned());
            break;
        }
    }
    let Some(commit) = found else {
        let shallow = capture(command("git").args(["rev-parse", "--is-shallow-repository"]))?.1.trim() == "true";
        let why = if shallow { "this clone is shallow: `git fetch --unshallow` brings it" } else { "this repository does not hold it" };
        println!("old backends: ABI 1.{} SKIPPED, commit {} is not here; {why}", release.minor, release.commit);
        return Ok(None);
    };
    let folder = target().join(format!("abi/1.{}", release.minor));
    let source = folder.join(format!("source-{}", &commit[..12]));
    if !source.exists() {
        let draft = folder.join(format!("draft-{}", std::process::id()));
        std::fs::create_dir_all(&draft).map_err(|e| format!("{}: {e}", draft.display()))?;
        let archive = folder.join("source.tar");
        succeed(command("git").args(["archive", "--output"]).arg(&archive).arg(&commit))?;
        succeed(command("tar").arg("-xf").arg(&archive).arg("-C").arg(&draft))?;
        std::fs::rename(&draft, &source).map_err(|e| format!("{}: {e}", source.display()))?;
    }
    // A release is what its layout says: the tag must not have moved to another one.
    let name = format!("backend-api/abi/1.{}.layout", release.minor);
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    if read(&source.join(&name))? != read(&root().join(&name))? {
        return Err(format!("{name} at commit {commit} is not this repository's: the recipe names the wrong commit"));
    }
    Ok(Some(source))
}

fn build(release: &Release, source: &Path) -> Outcome<PathBuf> {
    let into = target().join(format!("abi/1.{}/target", release.minor));
    let mut build = cargo();
    build.current_dir(source).env("CARGO_TARGET_DIR", &into).args(["build", "--quiet", "--release", "--locked", "-p", "flagos-backend-null"]);
    succeed(&mut build)?;
    Ok(into.join("release/libflagos_backend_null.so"))
}

/// The suite over a host whose tables a minor has appended to.
fn next_host() -> Outcome<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "-p", "flagos-conformance", "--example", "judge", "--features", "flagos-backend-api/next-minor"]);
    succeed(&mut build)?;
    Ok(target().join("release/examples/judge"))
}

fn judged(release: &Release, host: &str, program: &mut std::process::Command) -> Outcome {
    let (code, text) = capture(program)?;
    if code != 0 {
        return Err(format!("the backend of ABI 1.{} fails in {host}:\n{text}", release.minor));
    }
    let verdict = text.lines().find(|l| l.starts_with("PASS")).unwrap_or("passed");
    println!("old backends: ABI 1.{} in {host}: {verdict}", release.minor);
    Ok(())
}
