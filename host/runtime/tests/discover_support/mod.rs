//! Support of the discovery tests: temporary folders, plugins compiled from C, and the checks every refusal must pass.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use flagos_backend_api::layout::Field;
use flagos_backend_api::{LAYOUT_HASHES, STRUCTS};
use flagos_runtime::discover::{Options, Outcome, Phase, Refusal, Report, discover};

/// A folder of manifests and libraries, with one good backend in it that must survive whatever else is there.
pub struct World {
    pub folder: PathBuf,
}

impl World {
    pub fn new() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "flagos-discover-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        mode(&folder, 0o755);
        let world = World { folder };
        fs::copy(good_plugin(), world.path("good.so")).unwrap();
        world.manifest("50-good.json", "good", "good.so");
        world
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Writes a file that only its owner may write.
    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, bytes).unwrap();
        mode(&path, 0o644);
        path
    }

    pub fn manifest(&self, file: &str, name: &str, library: &str) -> PathBuf {
        self.manifest_with(file, name, library, "")
    }

    /// As [`World::manifest`], with more fields (`, "priority": 3`).
    pub fn manifest_with(&self, file: &str, name: &str, library: &str, more: &str) -> PathBuf {
        self.write(
            file,
            format!(
                r#"{{ "format": 1, "name": "{name}", "library": "{library}", "abi": "1.0"{more} }}"#
            ),
        )
    }

    /// Compiles the C plugin with macros (`NAME="x"`) or compiler options (starting with `-`).
    pub fn plugin(&self, file: &str, macros: &[&str]) -> PathBuf {
        let path = self.path(file);
        compile(&self.folder, &path, macros);
        path
    }

    /// A plugin called "bad", spoiled by macros, with its manifest; returns the library's path.
    pub fn bad(&self, macros: &[&str]) -> PathBuf {
        let mut all = vec![r#"NAME="bad""#];
        all.extend(macros);
        self.manifest("60-bad.json", "bad", "bad.so");
        self.plugin("bad.so", &all)
    }

    pub fn options(&self) -> Options {
        Options::with_folders(vec![self.folder.clone()])
    }

    pub fn report(&self) -> Report {
        discover(&self.options(), &[])
    }

    /// Discovers; the good backend must be taken and exactly one other refused.
    pub fn refusal(&self) -> Refusal {
        only_refusal(&self.report())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
}

pub fn taken(report: &Report) -> Vec<&str> {
    report.taken().map(|b| b.name.as_str()).collect()
}

pub fn only_refusal(report: &Report) -> Refusal {
    assert_eq!(
        taken(report),
        ["good"],
        "the good backend is unaffected: {report:#?}"
    );
    let refused: Vec<_> = report.refused().collect();
    assert_eq!(refused.len(), 1, "{report:#?}");
    refused[0].clone()
}

/// One line that names the file and says all of `words`.
pub fn check(refusal: &Refusal, phase: Phase, file: &Path, words: &[&str]) {
    let text = &refusal.message;
    assert_eq!(refusal.phase, phase, "{text}");
    assert!(!text.contains('\n'), "{text}");
    assert!(
        text.contains(&file.display().to_string()),
        "names {}: {text}",
        file.display()
    );
    for word in words {
        assert!(text.contains(word), "says {word:?}: {text}");
    }
    assert!(text.contains(';') || text.contains(": "), "{text}");
}

pub fn outcome_of<'a>(report: &'a Report, path: &Path) -> &'a Outcome {
    &report
        .candidates
        .iter()
        .find(|c| c.path == path)
        .unwrap_or_else(|| panic!("{} is no candidate: {report:#?}", path.display()))
        .outcome
}

fn good_plugin() -> &'static Path {
    static GOOD: OnceLock<PathBuf> = OnceLock::new();
    GOOD.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("good-{}.so", std::process::id()));
        compile(folder, &path, &["OP", "DOMAINS=1"]);
        path
    })
}

fn compile(folder: &Path, path: &Path, macros: &[&str]) {
    let source = folder.join(format!("{}.c", path.file_name().unwrap().to_string_lossy()));
    fs::write(
        &source,
        format!("{}\n{}", declarations(), include_str!("plugin.c")),
    )
    .unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-w", "-o"])
        .arg(path)
        .arg(&source);
    let hash = LAYOUT_HASHES[0];
    if !macros.iter().any(|m| m.starts_with("HASH_LO")) {
        cc.arg(format!("-DHASH_LO={}ull", hash.lo));
    }
    cc.arg(format!("-DHASH_HI={}ull", hash.hi));
    for m in macros {
        if m.starts_with('-') {
            cc.arg(m)
        } else {
            cc.arg(format!("-D{m}"))
        };
    }
    let output = cc
        .output()
        .expect("the discovery tests need a C compiler called cc");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    mode(path, 0o755);
}

/// C structs with the contract's fields: functions and pointers are `void *`.
fn declarations() -> String {
    let mut text = String::from("#include <stdint.h>\nstruct LayoutHash { uint64_t lo, hi; };\n");
    for name in [
        "Str",
        "Status",
        "DeviceTable",
        "MemoryTable",
        "StreamTable",
        "PlanTable",
        "OpTable",
        "HostV1",
        "BackendV1",
    ] {
        let s = STRUCTS.iter().find(|s| s.name == name).unwrap();
        text.push_str(&format!(
            "struct {name} {{ {} }};\n",
            s.fields.iter().map(declaration).collect::<String>()
        ));
    }
    text
}

fn declaration(f: &Field) -> String {
    let ty = match f.ty {
        _ if f.slot.is_some() => "void *",
        "u32" => "uint32_t",
        "i32" => "int32_t",
        "u64" => "uint64_t",
        "i64" => "int64_t",
        "Str" => "struct Str",
        "LayoutHash" => "struct LayoutHash",
        pointer if f.size == 8 && pointer.starts_with('*') => "void *",
        other => panic!("no C type for {other}"),
    };
    format!("{ty} {}; ", f.name)
}
