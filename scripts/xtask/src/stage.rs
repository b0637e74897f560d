//! Builds everything and lays it out as an installation: what `cargo flagos` runs from and `scripts/install` copies.

use std::path::{Path, PathBuf};

use crate::tool::{Outcome, cargo, command, files, place, root, run, target, write_new};

/// Version of the C library's interface: the soname's number.
const SOVERSION: &str = "1";

/// A backend of this repository: its library file as built, its manifest, the rank in the manifest's name, and what else comes along.
struct Backend {
    package: Option<&'static str>,
    folder: &'static str,
    library: &'static str,
    manifest: &'static str,
    rank: u32,
    example: bool,
}

/// Backends staged. Each folder under backends/ that yields a library has a line.
const BACKENDS: &[Backend] = &[
    Backend { package: Some("flagos-backend-cpu-so"), folder: "cpu", library: "libflagos_backend_cpu.so", manifest: "cpu.json", rank: 40, example: false },
    Backend { package: Some("flagos-backend-opencl"), folder: "opencl", library: "libflagos_backend_opencl.so", manifest: "opencl.json", rank: 60, example: false },
    Backend { package: Some("flagos-backend-vulkan"), folder: "vulkan", library: "libflagos_backend_vulkan.so", manifest: "vulkan.json", rank: 30, example: false },
    Backend { package: Some("flagos-backend-cuda"), folder: "cuda", library: "libflagos_backend_cuda.so", manifest: "cuda.json", rank: 50, example: false },
    Backend { package: Some("flagos-backend-acme"), folder: "acme", library: "libflagos_backend_acme.so", manifest: "acme.json", rank: 85, example: true },
    Backend { package: Some("flagos-backend-null"), folder: "null", library: "libflagos_backend_null.so", manifest: "null.json", rank: 90, example: true },
    Backend { package: None, folder: "example-c", library: "libflagos_example_c.so", manifest: "example_c.json", rank: 80, example: true },
];

/// Where the installation is staged.
pub fn tree() -> PathBuf {
    target().join("stage")
}

/// Builds and stages; returns the tree.
pub fn stage() -> Outcome<PathBuf> {
    let tree = tree();
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "-p", "flagos-cli", "-p", "flagos-capi"]);
    for backend in BACKENDS {
        if let Some(package) = backend.package {
            build.args(["-p", package]);
        }
    }
    run(&mut build)?;
    let built = target().join("release");
    place(&built.join("flagos"), &tree.join("bin/flagos"))?;
    link_library(&built, &tree)?;
    for header in ["backend-api/include/flagos_types.h", "backend-api/include/flagos_registry.h", "backend-api/include/flagos_backend.h", "host/capi/include/flagos.h", "host/capi/include/flagos_ops.h"] {
        let path = root().join(header);
        place(&path, &tree.join("include").join(path.file_name().unwrap_or_default()))?;
    }
    // What an older staging left would be discovered too.
    let _ = std::fs::remove_dir_all(tree.join("lib/flagos/backends.d"));
    for backend in BACKENDS {
        stage_backend(backend, &built, &tree)?;
    }
    descriptions(&tree, "${pcfiledir}/../..")?;
    Ok(tree)
}

/// Links libflagos.so from the static library: only the linker itself takes a version script with named versions.
fn link_library(built: &Path, tree: &Path) -> Outcome {
    let archive = built.join("libflagos.a");
    let script = root().join("host/capi/flagos.map");
    let library = tree.join("lib").join(format!("libflagos.so.{SOVERSION}"));
    let newer = |input: &Path| {
        let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
        time(input) > time(&library)
    };
    if library.exists() && !newer(&archive) && !newer(&script) {
        return Ok(());
    }
    std::fs::create_dir_all(tree.join("lib")).map_err(|e| e.to_string())?;
    let draft = tree.join("lib/libflagos.so.draft");
    let mut link = command(&compiler());
    link.args(["-shared", "-o"]).arg(&draft);
    link.arg(format!("-Wl,-soname,libflagos.so.{SOVERSION},--gc-sections,-z,relro,-z,now,-z,defs,--version-script={}", script.display()));
    link.arg("-Wl,--whole-archive").arg(&archive).arg("-Wl,--no-whole-archive");
    link.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]);
    run(&mut link)?;
    std::fs::rename(&draft, &library).map_err(|e| e.to_string())?;
    let plain = tree.join("lib/libflagos.so");
    let _ = std::fs::remove_file(&plain);
    std::os::unix::fs::symlink(format!("libflagos.so.{SOVERSION}"), plain).map_err(|e| e.to_string())
}

/// The system's C compiler.
pub fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".into())
}

fn stage_backend(backend: &Backend, built: &Path, tree: &Path) -> Outcome {
    let folder = root().join("backends").join(backend.folder);
    let library = match backend.package {
        Some(_) => built.join(backend.library),
        None => {
            let out = target().join("example").join(backend.folder);
            let mut make = command("make");
            make.args(["--silent", "-C"]).arg(&folder).arg(format!("OUT={}", out.display())).arg(format!("CC={}", compiler()));
            run(&mut make)?;
            out.join(backend.library)
        }
    };
    let manifests = tree.join("lib/flagos/backends.d");
    place(&library, &tree.join("lib/flagos").join(backend.library))?;
    let text = std::fs::read_to_string(folder.join(backend.manifest)).map_err(|e| format!("{}: {e}", backend.manifest))?;
    // Manifests in the repository name the library beside them; installed ones lie in a folder of their own.
    let text = text.replace(&format!("\"{}\"", backend.library), &format!("\"../{}\"", backend.library));
    write_new(&manifests.join(format!("{}-{}.json", backend.rank, backend.folder)), text.as_bytes())?;
    let exceptions = folder.join("conformance.toml");
    if exceptions.exists() {
        place(&exceptions, &manifests.join(format!("{}.conformance.toml", backend.folder)))?;
    }
    Ok(())
}

/// What build systems read: pkg-config and CMake.
fn descriptions(tree: &Path, prefix: &str) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let pc = format!(
        "prefix={prefix}\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\nName: flagos\nDescription: One library for any chip: operators, BLAS and FFT on \
         backends found at run time\nVersion: {version}\nLibs: -L${{libdir}} -lflagos\nCflags: -I${{includedir}}\n"
    );
    write_new(&tree.join("lib/pkgconfig/flagos.pc"), pc.as_bytes())?;
    let config = format!(
        "# flagos::flagos, the C library.\nget_filename_component(_flagos_prefix \"${{CMAKE_CURRENT_LIST_DIR}}/../../..\" ABSOLUTE)\nif(NOT TARGET flagos::flagos)\n  \
         add_library(flagos::flagos SHARED IMPORTED)\n  set_target_properties(flagos::flagos PROPERTIES\n    IMPORTED_LOCATION \"${{_flagos_prefix}}/lib/libflagos.so.{SOVERSION}\"\n    \
         IMPORTED_SONAME \"libflagos.so.{SOVERSION}\"\n    INTERFACE_INCLUDE_DIRECTORIES \"${{_flagos_prefix}}/include\")\nendif()\n"
    );
    write_new(&tree.join("lib/cmake/flagos/flagosConfig.cmake"), config.as_bytes())?;
    let compatible = format!(
        "set(PACKAGE_VERSION \"{version}\")\nif(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)\n  set(PACKAGE_VERSION_COMPATIBLE FALSE)\nelse()\n  \
         set(PACKAGE_VERSION_COMPATIBLE TRUE)\nendif()\n"
    );
    write_new(&tree.join("lib/cmake/flagos/flagosConfigVersion.cmake"), compatible.as_bytes())
}

/// Stages and copies to a prefix.
pub fn install(prefix: &Path, with_examples: bool) -> Outcome {
    let tree = stage()?;
    let skipped = |path: &Path| {
        let name = path.to_string_lossy().into_owned();
        !with_examples && BACKENDS.iter().any(|b| b.example && (name.ends_with(b.library) || name.contains(&format!("{}.", b.folder))))
    };
    let mut count = 0;
    for path in files(&tree) {
        let relative = path.strip_prefix(&tree).unwrap_or(&path);
        let to = prefix.join(relative);
        if skipped(relative) {
            continue;
        }
        if path.is_symlink() {
            let link = std::fs::read_link(&path).map_err(|e| e.to_string())?;
            let _ = std::fs::remove_file(&to);
            std::os::unix::fs::symlink(link, &to).map_err(|e| format!("{}: {e}", to.display()))?;
        } else {
            place(&path, &to)?;
        }
        count += 1;
    }
    println!("installed {count} files under {}", prefix.display());
    Ok(())
}
