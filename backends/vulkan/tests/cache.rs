//! The pipeline cache on disk: written, read, shared by processes, and ignored when damaged.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Arg, Backend, call, code};

/// What each process does: compile two kernels and run one. Also a test of its own, with whatever cache the environment names.
#[test]
fn one_process() {
    let Some(b) = Backend::open() else { return };
    let (stream, x) = (b.stream(), b.buffer(256));
    let modules = [code::increase(), code::reverse()].map(|c| b.compile(&c, "").unwrap());
    let kernels = modules.map(|m| b.kernel_of(m, code::NAME).unwrap());
    b.write(stream, x, &[1u32; 64]);
    b.launch(stream, kernels[0], [1, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(64, 8), Arg::Scalar(1, 4)]).unwrap();
    assert_eq!(b.read::<u32>(stream, x, 64), [2; 64]);
    for module in modules {
        call!(b.modules(), destroy, module).unwrap();
    }
    call!(b.memory(), free, x).unwrap();
    call!(b.streams(), destroy, stream).unwrap();
    call!(b.device_table(), close, b.device).unwrap();
}

fn process(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["one_process", "--exact", "--nocapture"]).env("FLAGOS_CACHE_DIR", folder).stdout(std::process::Stdio::null());
    command
}

/// The cache's files; drafts are none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(folder.join("vulkan")).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>()).unwrap_or_default();
    assert!(list.iter().all(|p| p.extension().is_some_and(|e| e == "pipelines")), "{list:?}");
    list
}

#[test]
fn processes_share_it_and_damage_is_ignored() {
    if Backend::open().is_none() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("flagos-vulkan-cache-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    assert!(process(&folder).env("FLAGOS_VULKAN_PIPELINE_CACHE", "0").status().unwrap().success());
    assert!(files(&folder).is_empty(), "the cache was turned off");
    // Several at once, on a cache that is not there yet.
    let mut all: Vec<_> = (0..4).map(|_| process(&folder).spawn().unwrap()).collect();
    assert!(all.iter_mut().all(|p| p.wait().unwrap().success()));
    let [file] = &files(&folder)[..] else { panic!("one device and driver have one file: {:?}", files(&folder)) };
    let good = std::fs::read(file).unwrap();
    // Ours and the driver's header; drivers in software keep no more.
    assert!(good.len() >= 48);
    for (what, damaged) in [("emptied", vec![]), ("cut", good[..good.len() / 2].to_vec()), ("overwritten", vec![0x5a; good.len()]), ("flipped", flipped(&good))] {
        std::fs::write(file, &damaged).unwrap();
        assert!(process(&folder).status().unwrap().success(), "{what}");
        let healed = std::fs::read(file).unwrap();
        assert!(healed != damaged && healed[..8] == good[..8], "a cache that was {what} is not written anew");
    }
    // A folder that cannot be made costs the cache, nothing else.
    assert!(process(Path::new("/proc/self/none")).status().unwrap().success());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// One bit of the driver's data changed.
fn flipped(good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[good.len() - 1] ^= 1;
    bytes
}
