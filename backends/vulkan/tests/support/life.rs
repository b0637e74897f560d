//! One life of a device: every kind of work, on two streams, and everything given back.

use super::{Arg, Backend, call, code};

/// Uses and empties a device; what is wrong is for the validation layer to say.
pub fn whole_life(b: &Backend) {
    let (first, second, event) = (b.stream(), b.stream(), b.event());
    let (x, y) = (b.buffer(1 << 16), b.buffer(70 << 20));
    let modules: Vec<_> = [code::increase(), code::reverse(), code::echo(40)].iter().map(|c| b.compile(c, "").unwrap()).collect();
    let [increase, reverse, echo] = [0, 1, 2].map(|i| b.kernel_of(modules[i], code::NAME).unwrap());
    let echoed: Vec<Arg> = std::iter::once(Arg::Buffer(x, 4096)).chain((0..40).map(|i| Arg::Scalar(i, 4))).collect();
    for round in 1..=30u64 {
        let pattern = [round; 2];
        for width in [1u32, 2, 4, 8, 16] {
            call!(b.memory(), fill, first, x, u64::from(width), pattern.as_ptr().cast(), width, 3200).unwrap();
        }
        b.launch(first, increase, [4, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Scalar(200, 8), Arg::Scalar(1, 4)]).unwrap();
        b.launch(first, reverse, [4, 1, 1], [64, 1, 1], &[Arg::Buffer(x, 0), Arg::Buffer(x, 8192)]).unwrap();
        b.launch(first, echo, [1, 1, 1], [1, 1, 1], &echoed).unwrap();
        call!(b.memory(), copy, first, y, 5, x, 3, 30_000).unwrap();
        call!(b.streams(), signal, first, event, round).unwrap();
        call!(b.streams(), wait, second, event, round).unwrap();
        call!(b.memory(), copy, second, x, 20_000, y, 9, 1001).unwrap();
        let mut back = vec![0u8; 5 << 20];
        call!(b.memory(), read, second, y, 1, back.as_mut_ptr().cast(), 5 << 20).unwrap();
        call!(b.memory(), write, second, y, 3, back.as_ptr().cast(), 5 << 20).unwrap();
        call!(b.streams(), sync, second).unwrap();
    }
    call!(b.device_table(), sync, b.device).unwrap();
    for buffer in [x, y] {
        call!(b.memory(), free, buffer).unwrap();
    }
    for module in modules {
        call!(b.modules(), destroy, module).unwrap();
    }
    for stream in [first, second] {
        call!(b.streams(), destroy, stream).unwrap();
    }
    call!(b.streams(), event_destroy, event).unwrap();
}
