//! ABI gates: what is exported, what minor 0 looked like, and whether a change of layout would be seen.

use std::fmt::Write as _;
use std::path::Path;

use flagos_backend_api::layout::Struct;
use flagos_backend_api::{ABI_MINOR, STRUCTS};

use crate::stage::{compiler, stage};
use crate::tool::{Outcome, capture, command, files, has, root, run, target};

/// Runs every gate.
pub fn run_gates() -> Outcome {
    prefix()?;
    symbols()?;
    seeded_change()?;
    crate::corpus::run()
}

/// One line per field that existed at `minor`.
fn layout(structs: &[Struct], minor: u32) -> String {
    let mut text = String::new();
    for s in structs {
        let _ = writeln!(text, "{} kind {:#x} size {}", s.c_name, s.kind, s.size_at(minor));
        for f in s.fields.iter().filter(|f| f.since <= minor) {
            let ty = match &f.slot {
                None => f.ty.replace(' ', ""),
                Some(slot) => {
                    let args: Vec<String> = slot.args.iter().map(|a| a.1.replace(' ', "")).collect();
                    format!("fn({})->{}", args.join(","), slot.ret.replace(' ', ""))
                }
            };
            let _ = writeln!(text, "  {} @{} +{} {ty}", f.name, f.offset, f.size);
        }
    }
    text
}

/// Each minor ever released keeps its layout, as written down when it was made.
fn prefix() -> Outcome {
    for minor in 0..=ABI_MINOR {
        let path = root().join(format!("backend-api/abi/1.{minor}.layout"));
        let now = layout(STRUCTS, minor);
        match std::fs::read_to_string(&path) {
            Ok(kept) if kept == now => {}
            Ok(kept) => {
                let (old, new) = kept.lines().zip(now.lines()).find(|(a, b)| a != b).unwrap_or(("(fewer lines)", "(more lines)"));
                return Err(format!("ABI 1.{minor} has changed, which breaks every backend built against it:\n  was  {old}\n  now  {new}\nappend instead, with `@ {}`", minor + 1));
            }
            Err(_) if minor == ABI_MINOR => {
                std::fs::create_dir_all(root().join("backend-api/abi")).map_err(|e| e.to_string())?;
                std::fs::write(&path, &now).map_err(|e| format!("{}: {e}", path.display()))?;
                return Err(format!("wrote {}, the layout of the new minor; commit it", path.display()));
            }
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    println!("layout of {} structs, ABI 1.0 to 1.{ABI_MINOR}: unchanged", STRUCTS.len());
    Ok(())
}

fn exported(library: &Path) -> Outcome<Vec<String>> {
    let (code, text) = capture(command("nm").args(["-D", "--defined-only"]).arg(library))?;
    if code != 0 {
        return Err(text);
    }
    let mut names: Vec<String> = text.lines().filter_map(|l| l.split_whitespace().nth(2)).map(|n| n.split('@').next().unwrap_or(n).to_owned()).collect();
    names.retain(|n| n != "FLAGOS_1.0");
    names.sort();
    Ok(names)
}

/// libflagos exports the listed functions; a backend exports its entry and needs nothing of the host's.
fn symbols() -> Outcome {
    let tree = stage()?;
    let list = root().join("host/capi/symbols.txt");
    let now = exported(&tree.join("lib/libflagos.so.1"))?.join("\n") + "\n";
    let kept = std::fs::read_to_string(&list).unwrap_or_default();
    if let Some(gone) = kept.lines().find(|l| !now.lines().any(|n| n == *l)) {
        return Err(format!("libflagos no longer exports {gone}: programs linked against it would not start"));
    }
    if kept != now {
        std::fs::write(&list, &now).map_err(|e| e.to_string())?;
        return Err(format!("libflagos exports new functions; {} was brought up to date, commit it", list.display()));
    }
    let mut backends = 0;
    for library in files(&tree.join("lib/flagos")).iter().filter(|p| p.extension().is_some_and(|e| e == "so")) {
        let names = exported(library)?;
        if names != ["flagos_backend_query_v1"] {
            return Err(format!("{} exports {names:?}; a backend exports flagos_backend_query_v1 alone", library.display()));
        }
        let (_, undefined) = capture(command("nm").args(["-D", "--undefined-only"]).arg(library))?;
        if let Some(line) = undefined.lines().find(|l| l.contains("flagos_")) {
            return Err(format!("{} wants {} from the host; everything comes through the host table", library.display(), line.trim()));
        }
        backends += 1;
    }
    println!("symbols: {} of libflagos, 1 of each of {backends} backends", now.lines().count());
    Ok(())
}

/// abidiff compares a backend with itself, and with one built against a header in which one field was narrowed: only the latter may differ.
fn seeded_change() -> Outcome {
    if !has("abidiff") {
        return Err("abidiff is missing; scripts/setup installs it (Debian package abigail-tools)".into());
    }
    let out = target().join("abi");
    let include = root().join("backend-api/include");
    let mutated = out.join("mutated");
    for header in files(&include) {
        let text = std::fs::read_to_string(&header).map_err(|e| e.to_string())?;
        let changed = text.replace("uint64_t workspace_bytes;", "uint32_t workspace_bytes;");
        // The asserts that would stop the compiler are what abidiff stands in for here: they go.
        let changed: String = changed.lines().filter(|l| !l.starts_with("FLAGOS_ASSERT_")).flat_map(|l| [l, "\n"]).collect();
        crate::tool::write_new(&mutated.join(header.file_name().unwrap_or_default()), changed.as_bytes())?;
    }
    let probe = out.join("probe.c");
    let text = "#include \"flagos_backend.h\"\nconst flagos_backend_v1_t *flagos_backend_query_v1(const flagos_host_v1_t *host, flagos_status_t **why_not)\n{ (void)host; (void)why_not; return 0; }\n";
    crate::tool::write_new(&probe, text.as_bytes())?;
    let build = |name: &str, include: &Path| {
        let library = out.join(name);
        let mut cc = command(&compiler());
        cc.args(["-std=c11", "-g", "-shared", "-fPIC", "-o"]).arg(&library).arg(format!("-I{}", include.display())).arg(&probe);
        run(&mut cc).map(|()| library)
    };
    let (old, same, new) = (build("old.so", &include)?, build("same.so", &include)?, build("new.so", &mutated)?);
    let diff = |a: &Path, b: &Path| capture(command("abidiff").arg(a).arg(b));
    let (equal, text) = diff(&old, &same)?;
    if equal != 0 {
        return Err(format!("abidiff sees a change where there is none:\n{text}"));
    }
    let (changed, text) = diff(&old, &new)?;
    if changed & 4 == 0 || !text.contains("workspace_bytes") {
        return Err(format!("abidiff does not see workspace_bytes narrowed to 32 bits (exit {changed}):\n{text}"));
    }
    println!("abidiff: equal builds equal; a field narrowed to 32 bits is seen (exit {changed})");
    Ok(())
}
