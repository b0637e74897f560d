//! Bad libraries: each is refused in one clear line at the right step, and the good backend beside it is taken.

mod discover_support;

use std::os::unix::fs::symlink;
use std::time::Duration;

use discover_support::{World, check, mode, only_refusal, outcome_of, taken};
use flagos_runtime::discover::{Code, Outcome, Phase, discover, host_bytes};

#[test]
fn missing_library() {
    let world = World::new();
    let manifest = world.manifest("60-bad.json", "bad", "gone.so");
    let refusal = world.refusal();
    check(
        &refusal,
        Phase::Trust,
        &world.path("gone.so"),
        &["No such file", "reinstall", &manifest.display().to_string()],
    );
    assert_eq!(refusal.code, Code::NOT_FOUND);
}

#[test]
fn missing_library_without_trust_checks() {
    let world = World::new();
    let manifest = world.manifest("60-bad.json", "bad", "gone.so");
    let mut options = world.options();
    options.trust = flagos_runtime::discover::Trust::Any;
    let refusal = only_refusal(&discover(&options, &[]));
    check(
        &refusal,
        Phase::Open,
        &world.path("gone.so"),
        &[
            "does not exist",
            "'library'",
            &manifest.display().to_string(),
        ],
    );
}

#[test]
fn not_an_elf() {
    let world = World::new();
    world.manifest("60-bad.json", "bad", "bad.so");
    let file = world.write("bad.so", "#!/bin/sh\n");
    check(
        &world.refusal(),
        Phase::Elf,
        &file,
        &["no ELF header", "reinstall"],
    );
    world.write("bad.so", "");
    check(&world.refusal(), Phase::Elf, &file, &["no ELF header"]);
    world.write("bad.so", "\x7fELF\x02\x01");
    check(
        &world.refusal(),
        Phase::Elf,
        &file,
        &["cut short", "6 bytes"],
    );
}

#[test]
fn spoiled_elf_headers() {
    let world = World::new();
    let file = world.bad(&[]);
    let whole = std::fs::read(&file).unwrap();
    let other_machine = if cfg!(target_arch = "aarch64") {
        (62u8, "x86_64")
    } else {
        (183u8, "aarch64")
    };
    let spoiled = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, words) in [
        (
            spoiled(18, other_machine.0),
            &[
                "built for",
                other_machine.1,
                "install the backend's package",
            ][..],
        ),
        (spoiled(4, 1), &["32-bit"]),
        (spoiled(16, 1), &["ELF type 1", "-shared"]),
        (
            whole[..whole.len() / 2].to_vec(),
            &["cut short", "reinstall"],
        ),
        (spoiled(57, 0xff), &["program headers"]),
    ] {
        world.write("bad.so", bytes);
        check(&world.refusal(), Phase::Elf, &file, words);
    }
}

#[test]
fn library_that_needs_a_missing_library() {
    let world = World::new();
    world.plugin("libgone-7.so", &["-Wl,-soname,libgone-7.so", "NO_ENTRY"]);
    let link = format!("-L{}", world.folder.display());
    let file = world.bad(&["-Wl,--no-as-needed", &link, "-lgone-7"]);
    std::fs::remove_file(world.path("libgone-7.so")).unwrap();
    check(
        &world.refusal(),
        Phase::Dlopen,
        &file,
        &[
            "libgone-7.so",
            "cannot open shared object",
            "install the package",
        ],
    );
}

#[test]
fn undefined_symbol() {
    let world = World::new();
    let file = world.bad(&[
        "-Wl,-z,lazy",
        "stub(x)=stub(x){extern*nowhere_at_all(void);return*nowhere_at_all();}void*other(x)",
    ]);
    check(
        &world.refusal(),
        Phase::Dlopen,
        &file,
        &["nowhere_at_all", "another version"],
    );
}

#[test]
fn entry_missing_or_of_another_major() {
    let world = World::new();
    let file = world.bad(&["NO_ENTRY"]);
    check(
        &world.refusal(),
        Phase::Dlopen,
        &file,
        &["exports no flagos_backend_query_v1", "correct 'library'"],
    );
    let world = World::new();
    let file = world.bad(&["ENTRY=flagos_backend_query_v2"]);
    check(
        &world.refusal(),
        Phase::Dlopen,
        &file,
        &["flagos_backend_query_v2", "another ABI major", "install"],
    );
}

#[test]
fn entry_that_lies_in_another_library() {
    let world = World::new();
    world.plugin("libreal.so", &["NAME=\"bad\"", "-Wl,-soname,libreal.so"]);
    let (link, run) = (
        format!("-L{}", world.folder.display()),
        format!("-Wl,-rpath,{}", world.folder.display()),
    );
    let file = world.bad(&["NO_ENTRY", "-Wl,--no-as-needed", &link, &run, "-lreal"]);
    check(
        &world.refusal(),
        Phase::Dlopen,
        &file,
        &["libreal.so", "not in this file"],
    );
}

#[test]
fn entry_that_declines() {
    let world = World::new();
    let file = world.bad(&["DECLINE"]);
    let refusal = world.refusal();
    check(
        &refusal,
        Phase::Query,
        &file,
        &["UNAVAILABLE: the driver is asleep", "install its driver"],
    );
    assert_eq!(refusal.code, Code::UNAVAILABLE);
    let world = World::new();
    let file = world.bad(&["SILENT"]);
    check(
        &world.refusal(),
        Phase::Query,
        &file,
        &["NULL without a reason", "report"],
    );
}

#[test]
fn entry_that_hangs() {
    let world = World::new();
    let file = world.bad(&["HANG"]);
    let mut options = world.options();
    options.query_timeout = Duration::from_millis(300);
    let refusal = only_refusal(&discover(&options, &[]));
    check(
        &refusal,
        Phase::Query,
        &file,
        &[
            "entry did not return within 0.3 s",
            "left running",
            "FLAGOS_QUERY_TIMEOUT_MS",
        ],
    );
    assert_eq!(refusal.code, Code::DEADLINE_EXCEEDED);
}

#[test]
fn abi_that_does_not_fit() {
    for (macros, words) in [
        (
            &["BUILT=9", "NEEDED=9"][..],
            &["too new", "needs 1.9", "update libflagos"][..],
        ),
        (&["HASH_LO=1"], &["layout hash", "ABI 1.0", "rebuild"]),
        (&["NO_COPY"], &["memory table lacks copy", "rebuild"]),
        (&["MAP_ALONE"], &["memory table lacks unmap"]),
        (
            &["SHORT"],
            &["device table has size 16", "sizeof(flagos_device_table_t)"],
        ),
        (&["KIND=0x13"], &["kind 0x13, not 0x12"]),
        (&["DOMAINS=1"], &["'domains' states op", "NULL"]),
        (&["OP"], &["op table that 'domains' does not state"]),
        (&["MISALIGNED"], &["not an address of a table"]),
        (&["NOT_UTF8"], &["'vendor' is not UTF-8"]),
        (&["SANITIZER=1"], &["AddressSanitizer", "plain build"]),
        (
            &["-UNAME", "NAME=\"other\""],
            &["calls itself 'other'", "manifest says 'bad'"],
        ),
    ] {
        let world = World::new();
        let file = world.bad(macros);
        let refusal = world.refusal();
        check(&refusal, Phase::Negotiate, &file, words);
        assert_eq!(refusal.code, Code::ABI_MISMATCH);
    }
}

#[test]
fn abi_of_the_manifest() {
    for (abi, words) in [
        ("2.0", &["too new", "2.0", "update libflagos"]),
        ("0.9", &["too old", "0.9", "update the backend"]),
    ] {
        let world = World::new();
        let text =
            format!(r#"{{"format": 1, "name": "bad", "library": "good.so", "abi": "{abi}"}}"#);
        let file = world.write("60-bad.json", text);
        check(&world.refusal(), Phase::Needs, &file, words);
    }
}

/// A backend of a newer minor that says it works with ours is taken: its hash cannot be known.
#[test]
fn newer_backend_that_needs_only_our_minor() {
    let world = World::new();
    world.bad(&["BUILT=9", "NEEDED=0", "HASH_LO=1"]);
    assert_eq!(taken(&world.report()), ["good", "bad"]);
}

#[test]
fn hash_mismatch_and_match() {
    let world = World::new();
    let file = world.bad(&[]);
    let sum = std::process::Command::new("sha256sum")
        .arg(&file)
        .output()
        .unwrap()
        .stdout;
    let sum = String::from_utf8(sum[..64].to_vec()).unwrap();
    world.manifest_with(
        "60-bad.json",
        "bad",
        "bad.so",
        &format!(r#", "sha256": "{}""#, sum.to_uppercase()),
    );
    let report = world.report();
    assert_eq!(taken(&report), ["good", "bad"]);
    assert_eq!(
        report.taken().last().unwrap().library_sha256.as_deref(),
        Some(sum.as_str())
    );

    let wrong = "0".repeat(64);
    world.manifest_with(
        "60-bad.json",
        "bad",
        "bad.so",
        &format!(r#", "sha256": "{wrong}""#),
    );
    check(
        &world.refusal(),
        Phase::Hash,
        &file,
        &[&sum, &wrong, "reinstall"],
    );
}

#[test]
fn writable_by_others() {
    let world = World::new();
    let manifest = world.manifest("60-bad.json", "bad", "bad.so");
    let library = world.bad(&[]);
    mode(&library, 0o757);
    let refusal = world.refusal();
    check(
        &refusal,
        Phase::Trust,
        &library,
        &["writable by others", "mode 0757", "chmod o-w"],
    );
    assert_eq!(refusal.code, Code::PERMISSION_DENIED);
    mode(&library, 0o755);
    mode(&manifest, 0o666);
    check(
        &world.refusal(),
        Phase::Trust,
        &manifest,
        &["mode 0666", "chmod"],
    );
    mode(&manifest, 0o644);

    // A folder on the way, reached through a link.
    let open = world.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::copy(&library, open.join("bad.so")).unwrap();
    mode(&open, 0o777);
    symlink(&open, world.path("link")).unwrap();
    world.manifest("60-bad.json", "bad", "link/bad.so");
    check(
        &world.refusal(),
        Phase::Trust,
        &world.path("link/bad.so"),
        &[&open.display().to_string(), "mode 0777", "chmod"],
    );
    // The sticky bit keeps others from replacing what lies in the folder.
    mode(&open, 0o1777);
    assert_eq!(taken(&world.report()), ["good", "bad"]);
}

#[test]
fn files_of_another_user() {
    let world = World::new();
    let file = world.bad(&[]);
    if std::os::unix::fs::chown(&file, Some(54321), None).is_err() {
        // Only root can give files away; nothing to see otherwise.
        return;
    }
    check(
        &world.refusal(),
        Phase::Trust,
        &file,
        &["belongs to user 54321", "chown"],
    );
    let mut options = world.options();
    options.trust = flagos_runtime::discover::Trust::Any;
    assert_eq!(taken(&discover(&options, &[])), ["good", "bad"]);
}

#[test]
fn two_backends_of_one_name() {
    let world = World::new();
    let second = world.manifest("60-second.json", "good", "second.so");
    world.plugin("second.so", &[]);
    let first = world.path("50-good.json").display().to_string();
    check(
        &world.refusal(),
        Phase::Name,
        &second,
        &["'good' was already taken", &first, "remove one"],
    );

    // Where the first is refused, the second is used.
    mode(&world.path("50-good.json"), 0o666);
    let report = world.report();
    assert_eq!(taken(&report), ["good"]);
    assert!(matches!(outcome_of(&report, &second), Outcome::Taken(_)));
}

#[test]
fn memory_taken_in_the_entry_is_counted() {
    let world = World::new();
    world.manifest("60-counts.json", "counts-memory", "counts.so");
    world.plugin("counts.so", &["NAME=\"counts-memory\"", "ALLOC"]);
    assert_eq!(taken(&world.report()), ["good", "counts-memory"]);
    assert_eq!(host_bytes("counts-memory"), 40);
}
