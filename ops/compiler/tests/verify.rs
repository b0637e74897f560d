//! The verifier: what it refuses, and that its errors say where.

use flagos_compiler::tile::{OpKind, Value, parse::parse, verify::verify};

const FORMS: &str = include_str!("text/forms.ttir");

#[test]
fn every_form_is_valid() {
    verify(&parse(FORMS).unwrap()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn wrong_types_shapes_and_attributes_are_refused() {
    for (ops, part) in [
        ("%a = arith.addi %x, %x : f32", "must be of integers"),
        ("%a = arith.mulf %n, %n : i32", "must be of floats"),
        ("%a = arith.extsi %n : i32 to i16", "from i32 to i16"),
        ("%a = arith.truncf %x : f32 to f64", "from f32 to f64"),
        ("%a = tt.bitcast %x : f32 -> i64", "from f32 to i64"),
        ("%a = tt.splat %n : i32 -> tensor<8xf32>", "the operand is i32"),
        ("%a = tt.expand_dims %t {axis = 2 : i32} : tensor<8xf32> -> tensor<8x1xf32>", "axis 2"),
        ("%a = tt.broadcast %t : tensor<8xf32> -> tensor<16xf32>", "only extents of 1"),
        ("%a = tt.reshape %t : tensor<8xf32> -> tensor<2x2xf32>", "as many elements"),
        ("%a = tt.trans %t {order = array<i32: 1>} : tensor<8xf32> -> tensor<8xf32>", "no permutation"),
        ("%a = tt.addptr %p, %x : !tt.ptr<f32>, f32", "must be of integers"),
        ("tt.store %p, %n : !tt.ptr<f32>", "the value is i32"),
        ("%a = tt.atomic_rmw fadd, relaxed, gpu, %p, %x, %x : (!tt.ptr<f32>, f32, f32) -> f32", "the mask is f32"),
        ("%a = tt.atomic_rmw add, relaxed, gpu, %p, %x : (!tt.ptr<f32>, f32) -> f32", "Add of f32"),
        ("%a = tt.call @other(%n) : (i32) -> i32", "no function @other"),
        ("tt.call @k(%p, %n, %x, %t) : (!tt.ptr<f32>, i32, f32, tensor<8xf32>) -> ()", "calls itself"),
        ("%a = \"tt.reduce\"(%t) <{axis = 1 : i32}> ({\n^bb0(%l: f32, %r: f32):\n tt.reduce.return %l : f32\n}) : (tensor<8xf32>) -> f32", "axis 1"),
        ("%a = \"tt.reduce\"(%t) <{axis = 0 : i32}> ({\n^bb0(%l: f32):\n tt.reduce.return %l : f32\n}) : (tensor<8xf32>) -> f32", "arguments of region 0"),
        ("%a = \"tt.reduce\"(%t) <{axis = 0 : i32}> ({\n^bb0(%l: f32, %r: f32):\n tt.reduce.return\n}) : (tensor<8xf32>) -> f32", "yields other types"),
        ("scf.for %i = %x to %x step %x : f32 {\n}", "the bounds are f32"),
        ("%a = scf.if %c -> (i32) {\n scf.yield %n : i32\n} else {\n}", "region 1 yields other types"),
        ("%a = tt.dot %t, %t, %t : tensor<8xf32> * tensor<8xf32> -> tensor<8xf32>", "times"),
    ] {
        let text = format!("tt.func @k(%p: !tt.ptr<f32>, %n: i32, %x: f32, %t: tensor<8xf32>) {{\n%c = arith.constant true\n{ops}\n tt.return\n}}");
        let error = verify(&parse(&text).unwrap_or_else(|e| panic!("{ops}: {e}"))).expect_err(ops);
        assert!(error.message.contains(part), "{ops}: {error}");
        assert!(!error.operation.is_empty() && (error.loc.line >= 3 || error.operation == "tt.call"), "{ops}: {error}");
    }
}

#[test]
fn programs_no_text_can_state_are_refused() {
    let good = parse("tt.func @k(%n: i32, %c: i1) {\n%a = arith.addi %n, %n : i32\nscf.if %c {\n%b = arith.addi %a, %a : i32\n}\n tt.return\n}").unwrap();
    verify(&good).unwrap();
    let mut early = good.clone();
    early.functions[0].body.ops.swap(0, 1);
    assert!(verify(&early).unwrap_err().message.contains("not defined here"));
    let mut twice = good.clone();
    twice.functions[0].body.ops[0].results = vec![Value(0)];
    assert!(verify(&twice).unwrap_err().message.contains("defined twice"));
    let mut outside = good.clone();
    outside.functions[0].body.ops[0].operands[0] = Value(99);
    assert!(verify(&outside).is_err());
    let mut nameless = good.clone();
    nameless.functions[0].body.ops[0].results = vec![Value(99)];
    assert!(verify(&nameless).is_err());
    let mut endless = good.clone();
    endless.functions[0].body.ops.pop();
    assert!(verify(&endless).unwrap_err().message.contains("tt.return"));
    let mut inner = good.clone();
    let kind = OpKind::Return;
    inner.functions[0].body.ops[1].regions[0].ops.last_mut().unwrap().kind = kind;
    assert!(verify(&inner).unwrap_err().message.contains("scf.yield"));
}
