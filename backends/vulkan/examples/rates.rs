//! Rates of the backend on the best Vulkan device here: cost of enqueueing, launches per second, latency, copies.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use flagos_backend_api as abi;
use flagos_backend_api::MemoryKind;
use support::{Arg, Backend, call, code};

/// Median seconds of a step.
fn median(rounds: usize, mut step: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            step();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn main() {
    let Some(b) = Backend::open() else { return };
    // SAFETY: text of an open device.
    println!("device {}", unsafe { b.info().name.to_owned_text() });
    let started = Instant::now();
    let kernel = b.kernel(&code::increase());
    println!("compile                    {:9.3} ms", started.elapsed().as_secs_f64() * 1e3);
    launches(&b, kernel);
    transfers(&b);
}

fn launches(b: &Backend, kernel: *mut abi::Kernel) {
    const MANY: usize = 2000;
    let (stream, event, x) = (b.stream(), b.event(), b.buffer(4 * 1024));
    let launch = || b.launch(stream, kernel, [16, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(1024, 8), Arg::Scalar(1, 4)]).unwrap();
    let mut value = 0;
    let mut signal = || {
        value += 1;
        call!(b.streams(), signal, stream, event, value).unwrap();
    };
    (0..100).for_each(|_| launch());
    b.sync(stream);
    let mut enqueue = Vec::new();
    let all = median(9, || {
        let started = Instant::now();
        (0..MANY).for_each(|_| launch());
        enqueue.push(started.elapsed().as_secs_f64());
        b.sync(stream);
    });
    enqueue.sort_by(f64::total_cmp);
    println!("enqueue a launch           {:9.3} µs", enqueue[4] / MANY as f64 * 1e6);
    println!("launches, {MANY} in a row    {:9.3} µs each", all / MANY as f64 * 1e6);
    let all = median(9, || {
        for _ in 0..MANY {
            launch();
            signal();
        }
        b.sync(stream);
    });
    println!("launch and signal, {MANY}    {:9.3} µs each", all / MANY as f64 * 1e6);
    let one = median(300, || {
        launch();
        b.sync(stream);
    });
    println!("launch and sync            {:9.3} µs", one * 1e6);
    let mut word = 0u32;
    let one = median(300, || {
        launch();
        call!(b.memory(), read, stream, x, 0, (&raw mut word).cast(), 4).unwrap();
        b.sync(stream);
    });
    println!("launch, read 4 bytes, sync {:9.3} µs", one * 1e6);
    let one = median(300, || {
        call!(b.memory(), write, stream, x, 0, (&raw const word).cast(), 4).unwrap();
        b.sync(stream);
    });
    println!("write 4 bytes, sync        {:9.3} µs", one * 1e6);
}

fn transfers(b: &Backend) {
    let bytes = (b.info().memory_bytes / 16).min(256 << 20);
    let (stream, x, y) = (b.stream(), b.buffer(bytes), b.buffer(bytes));
    let pinned = b.try_buffer(bytes, MemoryKind::HOST_PINNED, 0).unwrap();
    let mut host = vec![1u8; bytes as usize];
    let rate = |what: &str, factor: f64, step: &mut dyn FnMut()| {
        step();
        b.sync(stream);
        let seconds = median(5, || {
            step();
            b.sync(stream);
        });
        println!("{what:26} {:9.2} GB/s", factor * bytes as f64 / seconds / 1e9);
    };
    let base = host.as_mut_ptr();
    rate("write", 1.0, &mut || call!(b.memory(), write, stream, x, 0, base.cast_const().cast(), bytes).unwrap());
    rate("read", 1.0, &mut || call!(b.memory(), read, stream, x, 0, base.cast(), bytes).unwrap());
    rate("copy (read + write)", 2.0, &mut || call!(b.memory(), copy, stream, y, 0, x, 0, bytes).unwrap());
    rate("copy from pinned", 1.0, &mut || call!(b.memory(), copy, stream, x, 0, pinned, 0, bytes).unwrap());
    rate("copy to pinned", 1.0, &mut || call!(b.memory(), copy, stream, pinned, 0, x, 0, bytes).unwrap());
    for (what, pattern) in [("fill, 4 bytes", &[1u32; 1][..]), ("fill, 16 bytes", &[1, 2, 3, 4][..])] {
        let width = size_of_val(pattern) as u32;
        rate(what, 1.0, &mut || call!(b.memory(), fill, stream, x, 0, pattern.as_ptr().cast(), width, bytes).unwrap());
    }
}
