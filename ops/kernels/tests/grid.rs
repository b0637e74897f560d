//! Launches with more blocks than a row of the grid holds.

mod support;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/machine.rs"]
mod machine;

use flagos_backend_api::{DType, KernelFormat, Tensor};
use flagos_catalog::{Array, Call, Instance, Memory, conv, place, Layout};

#[test]
fn blocks_beyond_a_row_of_the_grid_go_along_its_second_axis() {
    // A block for each of 40 001 outputs; the last row of the grid is not full.
    let outputs = 40_001;
    let shapes: [&[i64]; 2] = [&[1, 1, 1, 1], &[outputs, 1, 1, 1]];
    let fill = |shape: &[i64], f: &dyn Fn(usize) -> f64| -> Memory {
        let mut m = place(DType::F32, shape, Layout::Contiguous);
        let size: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        let values = (0..size.iter().product()).map(f).collect();
        Array::float(&size, values).encode(&m.tensor, &mut m.bytes, m.origin).unwrap();
        m
    };
    let inputs = vec![fill(shapes[0], &|_| 3.0), fill(shapes[1], &|i| i as f64)];
    let tensors: Vec<Tensor> = inputs.iter().map(|m| m.tensor).collect();
    let call = Call::inferred(conv::CONV2D, &tensors, DType::NONE, &[]).unwrap();
    let outputs = vec![place(DType::F32, call.outputs[0].shape(), Layout::Contiguous)];
    let inputs = [inputs, vec![Memory { tensor: Tensor::NONE, origin: 0, bytes: vec![] }]].concat();
    let instance = Instance { id: "conv2d/f32/grid".into(), call, inputs, outputs };
    judge::check(conv::CONV2D, &instance, &support::target(KernelFormat::SPIRV_VULKAN, true), false, &machine::interpreted).unwrap();
}
