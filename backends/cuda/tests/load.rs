//! The plugin as the host meets it: it loads where nothing of CUDA is, and says what is missing. One process, because shutdown is for ever.

use std::path::PathBuf;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Error};

fn take(status: *mut abi::Status) -> Result<(), Error> {
    // SAFETY: a slot returned it just now.
    unsafe { Error::from_status(status) }
}

fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libflagos_backend_cuda.so")
}

fn mapped(stem: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().any(|l| l.rsplit('/').next().is_some_and(|file| file.starts_with(stem)))
}

/// A host table with nothing in it but its version.
fn host() -> &'static abi::HostV1 {
    // SAFETY: all-zero bytes are a value of the struct: no function is offered.
    let mut host: abi::HostV1 = unsafe { core::mem::zeroed() };
    (host.size, host.kind, host.abi_minor, host.abi_minor_oldest) = (abi::HostV1::SIZE, abi::HostV1::KIND, abi::ABI_MINOR, abi::ABI_MINOR_OLDEST);
    Box::leak(Box::new(host))
}

#[test]
fn it_loads_says_what_is_missing_and_shuts_down() {
    // SAFETY: the library was built with this test; its constructors are Rust's.
    let plugin = unsafe { libloading::Library::new(library()) }.expect("the plugin loads without CUDA");
    let mut why = core::ptr::null_mut();
    // SAFETY: the symbol has this type; the host table is static.
    let table = unsafe {
        let entry = plugin.get::<abi::BackendQuery>(b"flagos_backend_query_v1").expect("the entry symbol");
        entry(host(), &mut why).as_ref().expect("a table")
    };
    assert_eq!((table.size, table.layout_hash == *abi::LAYOUT_HASHES.last().unwrap()), (abi::BackendV1::SIZE, true));
    for stem in ["libcuda.so", "libnvrtc.so", "libcublas", "libcudnn", "libcufft"] {
        assert!(!mapped(stem), "loading the plugin or asking it mapped {stem}");
    }
    let mut count = 7;
    // SAFETY: no entry is written at capacity 0; the count is writable.
    let probed = take(unsafe { table.probe.unwrap()(core::ptr::null_mut(), 0, &mut count) });
    // SAFETY: tables live as long as the process; the places are writable.
    let (mut device, open) = (core::ptr::null_mut(), unsafe { (*table.device).open.unwrap() });
    match probed {
        Err(e) => {
            println!("probe says: {e}");
            assert_eq!(e.code, Code::UNAVAILABLE);
            assert!(e.message.starts_with("no driver"), "{e}");
            // SAFETY: the place is writable.
            assert_eq!(take(unsafe { open(0, &mut device) }).unwrap_err().code, Code::UNAVAILABLE);
        }
        Ok(()) => {
            println!("probe finds {count} devices");
            // SAFETY: as above.
            assert_eq!(take(unsafe { open(count, &mut device) }).unwrap_err().code, Code::NOT_FOUND);
        }
    }
    for _ in 0..2 {
        // SAFETY: the slot takes nothing.
        take(unsafe { table.shutdown.unwrap()() }).expect("shutdown");
    }
    // SAFETY: as above.
    assert_eq!(take(unsafe { table.probe.unwrap()(core::ptr::null_mut(), 0, &mut count) }).unwrap_err().code, Code::FAILED_PRECONDITION);
    core::mem::forget(plugin);
}
