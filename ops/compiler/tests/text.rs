//! Text in and out: every form that Triton prints, what is refused, and how.

use flagos_compiler::error::Kind;
use flagos_compiler::tile::{Program, parse::parse};

/// Every operation once, in the forms of Triton 3.4 to 3.9.
const FORMS: &str = include_str!("text/forms.ttir");

fn without_places(mut program: Program) -> Program {
    fn clear(block: &mut flagos_compiler::tile::Block) {
        for op in &mut block.ops {
            op.loc = Default::default();
            op.regions.iter_mut().for_each(clear);
        }
    }
    program.functions.iter_mut().for_each(|f| clear(&mut f.body));
    program
}

#[test]
fn every_form_prints_and_parses_back_equal() {
    let program = parse(FORMS).unwrap_or_else(|e| panic!("{e}"));
    let text = program.to_string();
    let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(without_places(program), without_places(again.clone()), "{text}");
    assert_eq!(again.to_string(), text);
}

fn body(ops: &str) -> String {
    format!("tt.func @k(%p: !tt.ptr<f32>, %n: i32, %x: f32, %t: tensor<8xf32>) {{\n{ops}\n tt.return\n}}")
}

#[test]
fn errors_name_the_operation_and_the_line() {
    for (ops, operation, line, part) in [
        ("%a = arith.addi %n, %m : i32", "arith.addi", 2, "%m is not defined"),
        ("\n%a = arith.addf %n, %n : f32", "arith.addf", 3, "an operand is i32, but the text says f32"),
        ("%a = tt.load %n : i32", "tt.load", 2, "loads from a pointer"),
        ("%a = tt.frobnicate %n : i32", "tt.frobnicate", 2, "outside the subset"),
        ("%a = arith.constant 300 : i8", "arith.constant", 2, "'300' is no i8"),
        ("%a = arith.constant dense<1> : tensor<3xi8>", "arith.constant", 2, "power of two"),
        ("%a = arith.constant dense<[1, 2]> : tensor<2xi8>", "arith.constant", 2, "elements differ"),
        ("%a, %b = arith.negf %x : f32", "arith.negf", 2, "2 names for 1 results"),
        ("%n = arith.negf %x : f32", "arith.negf", 2, "%n is defined twice"),
        ("%a = arith.constant 0.0 : f8E4M3FNUZ", "arith.constant", 2, "element type 'f8E4M3FNUZ'"),
        ("%a = arith.constant dense<0.0> : tensor<8xf32, #blocked>", "arith.constant", 2, "TritonGPU text"),
        ("cf.br ^bb7\n^bb1:", "cf.br", 2, "no block ^bb7"),
    ] {
        let error = parse(&body(ops)).expect_err(ops);
        assert!(error.message.contains(part), "{ops}: {error}");
        assert!(error.loc.line == line, "{ops}: {error}");
        assert!(error.operation == operation, "{ops}: {error}");
    }
}

#[test]
fn deep_wide_and_endless_texts_are_refused_in_time() {
    let deep = body(&"scf.if %c {\n".repeat(100_000)).replace("%x: f32", "%c: i1");
    assert_eq!(parse(&deep).unwrap_err().kind, Kind::Limit);
    for text in ["(", "<", "{", "\"", "tensor<", "loc(", "%", "#", "^", "@"] {
        assert!(parse(&format!("module attributes {{a = {}", text.repeat(50_000))).is_err());
        assert!(parse(&body(&text.repeat(50_000))).is_err());
        assert!(parse(&text.repeat(50_000)).is_err());
    }
    // 40 diamonds that never meet again would be 2^40 blocks.
    let mut blocks = String::from("cf.cond_br %c, ^a0, ^b0\n");
    for i in 0..40 {
        for (this, other) in [("a", "b"), ("b", "a")] {
            blocks += &format!("^{this}{i}:\n cf.cond_br %c, ^{this}{}, ^{other}{}\n", i + 1, i + 1);
        }
    }
    let text = format!("tt.func @k(%c: i1) {{\n{blocks}^a40:\n tt.return\n^b40:\n gpu.barrier\n tt.return\n}}");
    assert_eq!(parse(&text).unwrap_err().kind, Kind::Limit);
}

#[test]
fn branches_become_regions() {
    let text = "tt.func private @f(%c: i1, %d: i1, %x: i32) -> i32 {
        cf.cond_br %c, ^bb1, ^bb2(%x : i32)
      ^bb1:
        %one = arith.constant 1 : i32
        cf.cond_br %d, ^bb3, ^bb2(%one : i32)
      ^bb2(%y: i32):
        %z = arith.addi %y, %x : i32
        tt.return %z : i32
      ^bb3:
        tt.return %x : i32
      }";
    let program = parse(text).unwrap();
    let printed = program.to_string();
    assert_eq!(printed.matches("scf.if").count(), 2, "{printed}");
    assert_eq!(printed.matches("tt.return").count(), 1, "{printed}");
    let error = parse("tt.func @k() {\n cf.br ^a\n^a:\n cf.br ^a\n}").unwrap_err();
    assert_eq!((error.kind, error.loc.line), (Kind::Unsupported, 2), "{error}");
}
