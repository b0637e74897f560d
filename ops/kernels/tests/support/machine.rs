//! Runs recipes with operands in guarded memory, by the tile interpreter or another runner of programs.

use std::collections::BTreeMap;

use flagos_catalog::{Instance, Memory};
use flagos_compiler::Elem;
use flagos_compiler::tile::{ArgFacts, Block, Item, Op, OpKind, Program, Type, Value, interpret};
use flagos_kernels::{Arg, Kernel, Recipe};

/// What lies before, between and behind an operand's elements.
const GUARD: u8 = 0xa5;

/// Runs a kernel's program on a grid.
pub type Runner<'a> = &'a dyn Fn(&Program, &Kernel, [u32; 3], &mut [interpret::Arg]) -> Result<(), String>;

/// Runs a program on the tile interpreter.
#[allow(dead_code)] // one of the tests that share this file has a runner of its own
pub fn interpreted(program: &Program, kernel: &Kernel, grid: [u32; 3], args: &mut [interpret::Arg]) -> Result<(), String> {
    interpret::run(program, kernel.entry, grid, args).map_err(|e| e.to_string())
}

/// Runs a recipe; the outputs' memory, each with its guards intact.
pub fn run(recipe: &Recipe, instance: &Instance, aligned: bool, runner: Runner) -> Result<Vec<Memory>, String> {
    let mut operands: Vec<Memory> = instance.inputs.iter().chain(&instance.outputs).cloned().collect();
    for m in operands.iter_mut().skip(instance.inputs.len()) {
        m.bytes.fill(GUARD);
    }
    // Regions of the workspace start where some step says.
    let mut regions: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let starts: Vec<u64> = recipe.steps.iter().flat_map(|s| &s.args).filter_map(|a| if let Arg::Workspace { byte_offset } = a { Some(*byte_offset) } else { None }).collect();
    for start in &starts {
        let end = starts.iter().filter(|s| *s > start).min().copied().unwrap_or(recipe.workspace_bytes);
        assert!(start % 16 == 0 && end > *start, "workspace from {start} to {end}");
        regions.insert(*start, vec![GUARD; (end - start) as usize]);
    }
    for step in &recipe.steps {
        let kernel = step.aligned.as_ref().filter(|_| aligned).unwrap_or(&step.kernel);
        launch(kernel, step.grid, &step.args, &mut operands, &mut regions, runner).map_err(|e| format!("{}: {e}", kernel.key))?;
    }
    Ok(operands.split_off(instance.inputs.len()))
}

fn launch(kernel: &Kernel, grid: [u32; 3], args: &[Arg], operands: &mut [Memory], regions: &mut BTreeMap<u64, Vec<u8>>, runner: Runner) -> Result<(), String> {
    let program = with_offsets((kernel.build)(), kernel.entry);
    let function = program.function(kernel.entry).expect("the entry point");
    let mut values = Vec::new();
    let mut offsets = Vec::new();
    let absent = |m: &Memory| m.tensor.is_none();
    for (arg, value) in args.iter().zip(&function.body.args) {
        let elem = match function.ty(*value) {
            Type::Scalar(Item::Ptr(e)) => Some(*e),
            _ => None,
        };
        values.push(match arg {
            Arg::Operand { index, .. } if absent(&operands[*index as usize]) => interpret::Arg::Null,
            Arg::Operand { index, .. } => interpret::Arg::Buffer(operands[*index as usize].bytes.clone()),
            Arg::Workspace { byte_offset } => interpret::Arg::Buffer(regions[byte_offset].clone()),
            Arg::Scalar { bits, .. } => interpret::Arg::Scalar(*bits),
        });
        if let Some(elem) = elem {
            let bytes = match arg {
                Arg::Operand { index, byte_offset } => operands[*index as usize].origin as i64 + byte_offset,
                _ => 0,
            };
            assert_eq!(bytes % i64::from(elem.bytes()), 0, "offset {bytes} of {elem}");
            offsets.push(interpret::Arg::Scalar((bytes / i64::from(elem.bytes())) as u64));
        }
    }
    values.extend(offsets);
    let before = values.clone();
    runner(&program, kernel, grid, &mut values)?;
    // Arguments may name one memory twice: what was written counts.
    for ((arg, before), after) in args.iter().zip(before).zip(values) {
        if let (interpret::Arg::Buffer(before), interpret::Arg::Buffer(after)) = (before, after) {
            let memory = match arg {
                Arg::Operand { index, .. } => &mut operands[*index as usize].bytes,
                Arg::Workspace { byte_offset } => regions.get_mut(byte_offset).expect("a region"),
                Arg::Scalar { .. } => unreachable!("a scalar is no buffer"),
            };
            before.iter().zip(after).enumerate().filter(|(_, (b, a))| *b != a).for_each(|(i, (_, a))| memory[i] = a);
        }
    }
    Ok(())
}

/// The program with an offset in elements for each pointer, as further arguments: interpreters' pointers start where buffers do.
fn with_offsets(mut program: Program, entry: &str) -> Program {
    let function = program.functions.iter_mut().find(|f| f.name == entry).expect("the entry point");
    let pointers: Vec<Value> = function.body.args.iter().copied().filter(|v| matches!(function.types[v.0 as usize], Type::Scalar(Item::Ptr(_)))).collect();
    let mut ops = Vec::new();
    for pointer in pointers {
        let offset = function.value(Type::scalar(Elem::I64));
        let moved = function.value(function.ty(pointer).clone());
        replace(&mut function.body, pointer, moved);
        function.body.args.push(offset);
        function.facts.push(ArgFacts::default());
        ops.push(Op { kind: OpKind::AddPtr, operands: vec![pointer, offset], results: vec![moved], regions: vec![], loc: Default::default() });
    }
    function.body.ops.splice(0..0, ops);
    program
}

fn replace(block: &mut Block, from: Value, to: Value) {
    for op in &mut block.ops {
        op.operands.iter_mut().filter(|v| **v == from).for_each(|v| *v = to);
        op.regions.iter_mut().for_each(|r| replace(r, from, to));
    }
}
