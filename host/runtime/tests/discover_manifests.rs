//! Bad manifests: each is one clear line, the good backend beside it is taken, and nothing panics.

mod discover_support;

use std::os::unix::fs::symlink;
use std::path::Path;

use discover_support::{World, check, only_refusal};
use flagos_runtime::discover::{Phase, discover, manifest};

fn refused_text(text: &str, words: &[&str]) {
    let world = World::new();
    let file = world.write("60-bad.json", text);
    check(&world.refusal(), Phase::Read, &file, words);
}

#[test]
fn not_json() {
    refused_text(
        "name = good",
        &["not a JSON manifest", "line 1", "reinstall"],
    );
    refused_text("", &["not a JSON manifest"]);
    refused_text("{\"format\": 1", &["not a JSON manifest"]);
    refused_text("{\"format\": 1} trailing", &["trailing"]);
    refused_text("[1]", &["a list, not a JSON object"]);
    refused_text(&"[".repeat(100_000), &["recursion limit"]);
    refused_text("{\"name\": \"\\ud800\"}", &["not a JSON manifest"]);
}

#[test]
fn wrong_types_and_values() {
    let whole = [
        ("format", "1"),
        ("name", "\"bad\""),
        ("library", "\"good.so\""),
        ("abi", "\"1.0\""),
    ];
    let spoiled = |field: &str, value: &str| {
        let mut pairs: Vec<(&str, &str)> =
            whole.iter().copied().filter(|(f, _)| *f != field).collect();
        if !value.is_empty() {
            pairs.push((field, value));
        }
        let inner: Vec<String> = pairs.iter().map(|(f, v)| format!("\"{f}\": {v}")).collect();
        format!("{{ {} }}", inner.join(", "))
    };
    for (field, value, words) in [
        (
            "format",
            "\"1\"",
            &["'format' is a text", "whole number"][..],
        ),
        ("format", "2", &["'format' is 2", "update libflagos"]),
        ("format", "1.5", &["'format' is 1.5"]),
        ("format", "", &["'format' is missing", "add \"format\": 1"]),
        (
            "name",
            "7",
            &["'name' is a number", "text in double quotes"],
        ),
        (
            "name",
            "\"Bad Name\"",
            &["'name' is \"Bad Name\"", "lower-case"],
        ),
        ("name", "\"\"", &["'name' is \"\""]),
        ("library", "[\"x.so\"]", &["'library' is a list"]),
        ("library", "\"\"", &["'library' is empty"]),
        ("library", "\"a\\u0000b\"", &["control characters"]),
        ("abi", "1.0", &["'abi' is a number"]),
        ("abi", "\"one\"", &["'abi' is \"one\"", "major.minor"]),
        (
            "domains",
            "\"op\"",
            &["'domains' is a text", "list of texts"],
        ),
        ("domains", "[1]", &["'domains[0]' is a number"]),
        (
            "devices",
            "{}",
            &["'devices' is an object", "list of objects"],
        ),
        ("devices", "[{}]", &["'devices[0]' states no condition"]),
        (
            "devices",
            "[{\"pci_vendor\": \"10dez\"}]",
            &["'devices[0].pci_vendor' is \"10dez\"", "hexadecimal"],
        ),
        ("devices", "[{\"pci_class\": \"100\"}]", &["up to ff"]),
        ("needs", "[]", &["'needs' is a list"]),
        (
            "needs",
            "{\"libraries\": [\"/lib/x.so\"]}",
            &["without a folder"],
        ),
        ("sha256", "\"abc\"", &["64 hexadecimal digits", "sha256sum"]),
        ("priority", "\"high\"", &["'priority' is a text"]),
        ("priority", "1e300", &["whole number of 64 bits"]),
        ("claims", "true", &["'claims' is a boolean"]),
    ] {
        refused_text(&spoiled(field, value), words);
    }
}

#[test]
fn duplicate_keys() {
    refused_text(
        r#"{"format": 1, "name": "a", "name": "b"}"#,
        &["\"name\" is given twice", "keep one"],
    );
    refused_text(
        r#"{"format": 1, "needs": {"files": [], "files": []}}"#,
        &["\"files\" is given twice"],
    );
}

#[test]
fn huge() {
    let world = World::new();
    let file = world.write(
        "60-bad.json",
        vec![b' '; (manifest::MAX_BYTES + 1) as usize],
    );
    check(
        &world.refusal(),
        Phase::Read,
        &file,
        &["larger than 1048576 bytes", "remove"],
    );
}

#[test]
fn cyclic_links() {
    let world = World::new();
    let file = world.path("60-bad.json");
    symlink(world.path("other.link"), &file).unwrap();
    symlink(&file, world.path("other.link")).unwrap();
    check(
        &world.refusal(),
        Phase::Trust,
        &file,
        &["circle", "point them at a file"],
    );

    let mut options = world.options();
    options.folders.remove(0);
    options.add_files = vec![world.path("50-good.json"), file.clone()];
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Trust,
        &file,
        &["circle"],
    );
}

#[test]
fn a_folder_that_cannot_be_listed_is_named() {
    let world = World::new();
    let cyclic = world.path("cyclic.d");
    symlink(&cyclic, &cyclic).unwrap();
    let mut options = world.options();
    options
        .folders
        .push((flagos_runtime::discover::Origin::Folder, cyclic.clone()));
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Search,
        &cyclic,
        &["cannot be listed", "circle"],
    );
}

#[test]
fn a_folder_or_pipe_in_place_of_a_manifest() {
    let world = World::new();
    let file = world.path("60-bad.json");
    std::fs::create_dir(&file).unwrap();
    discover_support::mode(&file, 0o755);
    check(
        &world.refusal(),
        Phase::Read,
        &file,
        &["not a regular file"],
    );
    std::fs::remove_dir(&file).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg("-m")
            .arg("644")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    check(
        &world.refusal(),
        Phase::Read,
        &file,
        &["not a regular file"],
    );
}

#[test]
fn unknown_fields_are_noted_and_tolerated() {
    let world = World::new();
    let more = r#", "colour": "red", "needs": {"gpu": 1}, "signature": "ed25519:abc""#;
    world.manifest_with("50-good.json", "good", "good.so", more);
    let report = world.report();
    assert_eq!(discover_support::taken(&report), ["good"]);
    let notes = report.candidates[0].notes.join("; ");
    assert!(
        notes.contains("needs.gpu, colour") && notes.contains("signature"),
        "{notes}"
    );
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text = r#"{ "format": 1, "name": "cuda", "vendor": "NVIDIA", "library": "libflagos_backend_cuda.so", "abi": "1.0",
        "arch": "x86_64", "os": "linux", "domains": ["op", "blas", "fft"],
        "devices": [{ "pci_vendor": "10de", "pci_class": "03" }, { "file": "/dev/nvidiactl" }],
        "needs": { "files": [], "libraries": ["libcuda.so.1"] }, "claims": "cuda.claims.json", "priority": 60 }"#;
    let m = manifest::parse(text.as_bytes(), Path::new("50-cuda.json")).unwrap();
    assert_eq!(
        (
            m.devices[0].pci_vendor,
            m.devices[0].pci_class,
            m.priority,
            m.abi
        ),
        (Some(0x10de), Some(3), 60, (1, 0))
    );
    assert!(m.unknown_fields.is_empty());
}

/// Random edits of valid and nearly valid manifests with a fixed seed. The fuzz target `manifest` does the same with coverage.
#[test]
fn twenty_thousand_mutated_manifests_never_panic_and_refuse_in_one_line() {
    let seeds = [
        r#"{"format":1,"name":"cuda","vendor":"N","library":"l.so","abi":"1.0","arch":"x86_64","os":"linux","domains":["op","blas"],"priority":50}"#,
        r#"{"format":1,"name":"a","library":"l.so","abi":"1.0","devices":[{"pci_vendor":"10de","pci_class":"03"},{"file":"/dev/x"}],"needs":{"files":["a"],"libraries":["b.so.1"]}}"#,
        r#"{"format":1,"name":"a","library":"l.so","abi":"1.0","sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","claims":"c.json","signature":"s"}"#,
    ];
    let tokens = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "true",
        "-1",
        "1e999",
        "\\u0000",
        "\\ud83d",
        "\"name\":",
        "\u{fffd}",
        "\n",
        "99999999999999999999",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = seeds[random(seeds.len())].as_bytes().to_vec();
        for _ in 0..=random(4) {
            let at = random(text.len() + 1);
            match random(5) {
                0 => text.truncate(at),
                1 if at < text.len() => text[at] = random(256) as u8,
                2 if at < text.len() => drop(text.remove(at)),
                3 => drop(text.splice(at..at, tokens[random(tokens.len())].bytes())),
                _ => {
                    let end = (at + random(12)).min(text.len());
                    let piece = text[at..end].to_vec();
                    drop(text.splice(at..at, piece));
                }
            }
        }
        match manifest::parse(&text, Path::new("/m/50-x.json")) {
            Ok(m) => {
                taken += 1;
                assert!(
                    !m.name.is_empty()
                        && m.name
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                );
                assert!(!m.library.as_os_str().is_empty());
            }
            Err(r) => {
                refused += 1;
                assert!(
                    r.message.starts_with("/m/50-x.json: ")
                        && !r.message.chars().any(char::is_control),
                    "{:?}",
                    r.message
                );
                assert!(r.message.len() < 1000, "{}", r.message);
            }
        }
    }
    assert!(
        taken > 500 && refused > 5_000,
        "the mutations are neither all good nor all bad: {taken} taken, {refused} refused"
    );
}
