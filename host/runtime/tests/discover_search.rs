//! Search order, filters, needs, in-process tables, environment, and the time of start-up.

mod discover_support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use discover_support::{World, check, mode, only_refusal, outcome_of, taken};
use flagos_backend_api as abi;
use flagos_backend_api::layout::Struct;
use flagos_runtime::discover::{
    Code, DirectBackend, Options, Origin, Outcome, Phase, Trust, discover,
};

#[test]
fn what_a_taken_backend_tells() {
    let world = World::new();
    let mut options = world.options();
    options.hash_all = true;
    let report = discover(&options, &[]);
    let b = report.taken().next().unwrap();
    assert_eq!(
        (
            b.name.as_str(),
            b.version.as_str(),
            b.vendor.as_str(),
            b.build_id.as_str()
        ),
        ("good", "1.2.3", "tests", "build-1")
    );
    assert_eq!(b.library.as_deref(), Some(world.path("good.so").as_path()));
    assert_eq!(
        b.manifest_path.as_deref(),
        Some(world.path("50-good.json").as_path())
    );
    assert_eq!(b.library_sha256.as_ref().map(String::len), Some(64));
    assert!(
        b.tables.op.is_some_and(|op| op.plan.is_some())
            && b.tables.op_plans.is_some_and(|p| p.launch.is_some())
    );
    assert!(!b.is_embedded() && b.address.as_ptr() != core::ptr::from_ref(b.table));
    assert!(
        b.tables.memory.trim.is_none() && b.tables.memory.copy.is_some() && b.tables.fft.is_none()
    );
    let t = report.candidates[0].timings;
    assert!(t.read_ns > 0 && t.dlopen_ns > 0 && t.host_ns() < report.total_ns);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["candidates"][0]["outcome"]["taken"]["build_id"],
        "build-1"
    );
}

#[test]
fn earlier_folders_and_added_files_come_first() {
    let (a, b) = (World::new(), World::new());
    let mut options = a.options();
    options.folders.push((Origin::Folder, b.folder.clone()));
    let report = discover(&options, &[]);
    check(
        &only_refusal(&report),
        Phase::Name,
        &b.path("50-good.json"),
        &[&a.path("50-good.json").display().to_string()],
    );
    options.add_files = vec![b.path("50-good.json")];
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Name,
        &a.path("50-good.json"),
        &[],
    );
    options.files = Some(vec![a.path("50-good.json")]);
    options.add_files.clear();
    let report = discover(&options, &[]);
    assert_eq!(
        (taken(&report), report.candidates.len()),
        (vec!["good"], 1),
        "named files are exclusive"
    );
}

#[test]
fn a_bare_library_is_named_by_its_table() {
    let world = World::new();
    let file = world.plugin("libflagos_backend_bare.so", &["NAME=\"bare-chip\""]);
    let mut options = world.options();
    options.add_files = vec![file.clone()];
    let report = discover(&options, &[]);
    assert_eq!(taken(&report), ["bare-chip", "good"]);
    options.disable = vec!["bare-*".into()];
    let report = discover(&options, &[]);
    assert!(
        matches!(outcome_of(&report, &file), Outcome::Refused(r) if r.is_expected()),
        "{report:#?}"
    );
}

#[test]
fn configured_files_that_are_missing_are_named() {
    let world = World::new();
    let mut options = world.options();
    let gone = world.path("70-gone.json");
    options.add_files = vec![gone.clone()];
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Search,
        &gone,
        &[
            "FLAGOS_ADD_BACKEND_FILES",
            "no such file",
            "correct the variable",
        ],
    );
    options.add_files = vec![PathBuf::from("bare.so")];
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Search,
        &PathBuf::from("bare.so"),
        &["bare name", "./bare.so"],
    );
}

#[test]
fn filters() {
    let world = World::new();
    world.bad(&[]);
    let mut options = world.options();
    options.select = vec!["g*".into()];
    let refusal = only_refusal(&discover(&options, &[]));
    check(
        &refusal,
        Phase::Filter,
        &world.path("60-bad.json"),
        &["FLAGOS_BACKENDS_SELECT=g*"],
    );
    assert!(refusal.is_expected());
    options.select = vec!["good".into(), "nowhere".into()];
    options.disable = vec!["b?d".into()];
    let report = discover(&options, &[]);
    assert_eq!(taken(&report), ["good"]);
    assert!(
        report.notes[0].contains("asks for 'nowhere'")
            && report.notes[0].contains(&world.folder.display().to_string())
    );
    options.select.clear();
    check(
        &only_refusal(&discover(&options, &[])),
        Phase::Filter,
        &world.path("60-bad.json"),
        &["'b?d'", "FLAGOS_BACKENDS_DISABLE"],
    );
}

#[test]
fn needs_and_platform() {
    let absent = "no-such-file-of-a-driver";
    for (more, words) in [
        (
            format!(r#", "needs": {{"files": ["{absent}"]}}"#),
            &[absent, "install"][..],
        ),
        (
            r#", "needs": {"libraries": ["libnosuch.so.3"]}"#.into(),
            &["libnosuch.so.3", "install", "LD_LIBRARY_PATH"],
        ),
        (
            r#", "arch": "mips""#.into(),
            &["'arch' is \"mips\"", std::env::consts::ARCH],
        ),
        (r#", "os": "plan9""#.into(), &["'os' is \"plan9\""]),
    ] {
        let world = World::new();
        world.bad(&[]);
        let file = world.manifest_with("60-bad.json", "bad", "bad.so", &more);
        let refusal = world.refusal();
        check(&refusal, Phase::Needs, &file, words);
        assert_eq!(refusal.code, Code::UNAVAILABLE);
    }
    let world = World::new();
    world.bad(&[]);
    world.manifest_with(
        "60-bad.json",
        "bad",
        "bad.so",
        r#", "needs": {"files": ["50-good.json"], "libraries": ["libc.so.6"]}"#,
    );
    assert_eq!(taken(&world.report()), ["good", "bad"]);
}

#[test]
fn a_chip_is_looked_for_without_vendor_code() {
    let world = World::new();
    let pci = world.path("pci");
    for (device, vendor, class) in [("a", "0x10de", "0x030200"), ("b", "0x8086", "0x060000")] {
        let at = pci.join(device);
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(at.join("device"), "0x2330\n").unwrap();
        fs::write(at.join("class"), format!("{class}\n")).unwrap();
    }
    let mut options = world.options();
    options.pci_devices = pci;
    // The library would hang: it must not even be opened where the chip is absent.
    let file = world.path("60-bad.json");
    world.bad(&["HANG"]);
    world.manifest_with("60-bad.json", "bad", "bad.so", r#", "devices": [{"pci_vendor": "8086", "pci_class": "03"}, {"file": "/dev/no-such-chip"}]"#);
    let refusal = only_refusal(&discover(&options, &[]));
    check(
        &refusal,
        Phase::Chip,
        &file,
        &[
            "PCI vendor 8086 with PCI class 03 or /dev/no-such-chip",
            "kernel driver",
        ],
    );
    assert!(refusal.is_expected());
    world.bad(&[]);
    world.manifest_with("60-bad.json", "bad", "bad.so", r#", "devices": [{"file": "/dev/no-such-chip"}, {"pci_vendor": "0x10DE", "pci_class": "3"}]"#);
    assert_eq!(taken(&discover(&options, &[])), ["good", "bad"]);
}

/// A table of the contract with every slot set.
fn full<T>(layout: Struct) -> &'static mut T {
    unsafe extern "C" fn stub() -> *mut abi::Status {
        core::ptr::null_mut()
    }
    assert_eq!(layout.size, size_of::<T>());
    let table = Box::leak(Box::new(core::mem::MaybeUninit::<T>::zeroed()));
    let base = table.as_mut_ptr().cast::<u8>();
    // SAFETY: every written field lies inside the table; all-zero bytes and set slots are valid for the contract's tables. The slots are
    // never called.
    unsafe {
        base.cast::<u32>().write(layout.size as u32);
        base.cast::<u32>().add(1).write(layout.kind);
        for f in layout.fields.iter().filter(|f| f.slot.is_some()) {
            base.add(f.offset)
                .cast::<usize>()
                .write(stub as *const () as usize);
        }
        table.assume_init_mut()
    }
}

unsafe extern "C" fn in_process(
    _: *const abi::HostV1,
    _: *mut *mut abi::Status,
) -> *const abi::BackendV1 {
    let b: &mut abi::BackendV1 = full(abi::BackendV1::LAYOUT);
    b.name = abi::Str::new("good");
    b.version = abi::Str::new("embedded");
    b.layout_hash = abi::LAYOUT_HASHES[0];
    b.device = full::<abi::DeviceTable>(abi::DeviceTable::LAYOUT);
    b.memory = full::<abi::MemoryTable>(abi::MemoryTable::LAYOUT);
    b.stream = full::<abi::StreamTable>(abi::StreamTable::LAYOUT);
    b
}

#[test]
fn an_in_process_table_steps_in_for_a_refused_library() {
    let world = World::new();
    let direct = [DirectBackend::new("good", in_process)];
    let report = discover(&world.options(), &direct);
    let refusal = only_refusal(&report);
    assert_eq!(
        (
            refusal.phase,
            report.taken().next().unwrap().version.as_str()
        ),
        (Phase::Name, "1.2.3")
    );
    mode(&world.path("good.so"), 0o777);
    let report = discover(&world.options(), &direct);
    assert_eq!(report.taken().next().unwrap().version, "embedded");
    assert_eq!(only_refusal(&report).phase, Phase::Trust);
    let misnamed = discover(
        &Options::with_folders(Vec::new()),
        &[DirectBackend::new("else", in_process)],
    );
    assert!(
        misnamed
            .refused()
            .next()
            .unwrap()
            .message
            .contains("calls itself 'good'")
    );
}

#[test]
#[ignore = "run by the_environment_is_read in a process of its own"]
fn child_prints_options() {
    println!("{:?}", Options::from_environment());
}

#[test]
fn the_environment_is_read() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_prints_options",
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .envs([
            ("FLAGOS_BACKEND_FILES", "/a/x.json:/b/y.so"),
            ("FLAGOS_ADD_BACKEND_FILES", ""),
            ("FLAGOS_BACKENDS_SELECT", "cu*, cpu,"),
        ])
        .envs([
            ("FLAGOS_TRUST", "everybody"),
            ("FLAGOS_QUERY_TIMEOUT_MS", "70"),
            ("XDG_CONFIG_HOME", "/x/cfg"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        r#"files: Some(["/a/x.json", "/b/y.so"])"#,
        "add_files: []",
        r#"select: ["cu*", "cpu"]"#,
        "trust: System",
        "query_timeout: 70ms",
        r#"(UserConfig, "/x/cfg/flagos/backends.d"), (System, "/etc/flagos/backends.d"), (Beside, "#,
        r#"(Share, "/usr/share/flagos/backends.d")"#,
        "use system, user or any",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(Options::with_folders(Vec::new()).trust, Trust::User);
}

#[test]
fn five_manifests_are_judged_within_twenty_milliseconds() {
    let world = World::new();
    for i in 0..4 {
        fs::copy(world.path("good.so"), world.path(&format!("good{i}.so"))).unwrap();
        world.plugin(&format!("p{i}.so"), &[&format!("NAME=\"p{i}\"")]);
        world.manifest(
            &format!("6{i}-p.json"),
            &format!("p{i}"),
            &format!("p{i}.so"),
        );
    }
    // The best of several, because other programs run on the machine too.
    let host_ns = (0..7)
        .map(|_| {
            let report = discover(&world.options(), &[]);
            assert_eq!(report.taken().count(), 5);
            report.total_ns
                - report
                    .candidates
                    .iter()
                    .map(|c| c.timings.vendor_ns())
                    .sum::<u64>()
        })
        .min()
        .unwrap();
    assert!(host_ns < 20_000_000, "{host_ns} ns");
    println!(
        "host part of start-up with 5 manifests: {} us",
        host_ns / 1000
    );
}
