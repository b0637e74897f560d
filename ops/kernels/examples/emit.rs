//! scratch
use std::fmt::Write as _;
use flagos_backend_api::{caps, DType, KernelFormat, Tensor};
use flagos_catalog::{find, AttrKind, AttrValue, Call};
use flagos_compiler::emit::cuda::MATRIX_SHAPES;
use flagos_compiler::{compile, Elem, Target};
use flagos_kernels::{cook, Arg};

fn ints(t: &str) -> Vec<i64> {
    if t.trim().is_empty() { vec![] } else { t.split(',').map(|n| n.trim().parse().unwrap()).collect() }
}

fn main() {
    let dir = std::env::args().nth(1).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let shapes = [Elem::F16, Elem::BF16, Elem::I8, Elem::F64];
    let matrix = MATRIX_SHAPES.iter().map(|s| s.1).filter(|s| shapes.contains(&s.factor) && s.sum != Elem::F16).collect();
    let all = caps::FP16 | caps::BF16 | caps::FP64 | caps::INT64 | caps::ATOMIC64;
    let target = Target { format: KernelFormat::CUDA_CPP, arch: "sm_90".into(), caps: all, max_block_threads: 1024, shared_bytes: 227 << 10, subgroup: 32, matrix };
    let mut calls = String::new();
    for (n, line) in std::io::stdin().lines().enumerate() {
        let line = line.unwrap();
        let Some((name, text)) = line.split_once('|') else { continue };
        let mut words = text.split_whitespace();
        let op = find(words.next().unwrap()).unwrap();
        let (mut inputs, mut attrs) = (vec![], vec![]);
        for w in words {
            if let Some((t, rest)) = w.split_once('[') {
                inputs.push(Tensor::contiguous(DType::from_name(t).unwrap(), &ints(rest.trim_end_matches(']'))));
            } else {
                let (k, v) = w.split_once('=').unwrap();
                let a = op.attributes.iter().find(|a| a.name == k).unwrap();
                attrs.push((a.name, match a.kind {
                    AttrKind::Ints { .. } => AttrValue::Ints(ints(v)),
                    AttrKind::Bool { .. } => AttrValue::Int((v == "true").into()),
                    AttrKind::Float { .. } => AttrValue::Float(v.parse().unwrap()),
                    _ => AttrValue::Int(v.parse().unwrap()),
                }));
            }
        }
        let call = Call::inferred(op, &inputs, DType::F32, &attrs).unwrap();
        let recipe = match cook(op.name).unwrap()(&call, &target) { Ok(r) => r, Err(e) => { eprintln!("{name}: {e}"); continue } };
        let tensors = |l: &[Tensor]| l.iter().map(|t| format!("[\"{}\", {:?}]", t.dtype, t.shape())).collect::<Vec<_>>().join(", ");
        writeln!(calls, "{}{{\"name\": \"{}\", \"inputs\": [{}], \"outputs\": [{}], \"workspace\": {}, \"steps\": [", if calls.is_empty() { "" } else { ",\n" }, name.trim(), tensors(&call.inputs), tensors(&call.outputs), recipe.workspace_bytes).unwrap();
        for (i, s) in recipe.steps.iter().enumerate() {
            let k = s.aligned.as_ref().unwrap_or(&s.kernel);
            let c = match compile(&(k.build)(), k.entry, &target, &k.options) { Ok(c) => c, Err(e) => { eprintln!("{name}: {}: {e}", k.key); std::process::exit(1) } };
            let file = format!("{n}_{i}.cu");
            std::fs::write(format!("{dir}/{file}"), &c.code).unwrap();
            let args = s.args.iter().map(|a| match a {
                Arg::Operand { index, byte_offset } => format!("[\"op\", {index}, {byte_offset}]"),
                Arg::Workspace { byte_offset } => format!("[\"ws\", {byte_offset}]"),
                Arg::Scalar { bits, bytes } => format!("[\"s\", {bits}, {bytes}]"),
            }).collect::<Vec<_>>().join(", ");
            writeln!(calls, "  {}{{\"file\": \"{file}\", \"entry\": \"{}\", \"key\": \"{}\", \"threads\": {}, \"shared\": {}, \"grid\": {:?}, \"args\": [{args}]}}", if i > 0 { "," } else { "" }, c.entry, k.key, c.threads, c.shared_bytes, s.grid).unwrap();
        }
        write!(calls, "]}}").unwrap();
    }
    std::fs::write(format!("{dir}/calls.json"), format!("[{calls}]")).unwrap();
}
