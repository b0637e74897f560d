//! `flagos kernel run`: a right call gives the right tensors, and each wrong one a single line that names what is wrong and the way out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// z = x + y for n elements, 128 to a block.
const ADD: &str = r#"module {
  tt.func public @add(%x: !tt.ptr<f32>, %y: !tt.ptr<f32>, %z: !tt.ptr<f32>, %n: i32) {
    %size = arith.constant 128 : i32
    %block = tt.get_program_id x : i32
    %first = arith.muli %block, %size : i32
    %range = tt.make_range {end = 128 : i32, start = 0 : i32} : tensor<128xi32>
    %start = tt.splat %first : i32 -> tensor<128xi32>
    %at = arith.addi %start, %range : tensor<128xi32>
    %end = tt.splat %n : i32 -> tensor<128xi32>
    %mask = arith.cmpi slt, %at, %end : tensor<128xi32>
    %xs = tt.splat %x : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
    %xp = tt.addptr %xs, %at : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
    %a = tt.load %xp, %mask : tensor<128x!tt.ptr<f32>>
    %ys = tt.splat %y : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
    %yp = tt.addptr %ys, %at : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
    %b = tt.load %yp, %mask : tensor<128x!tt.ptr<f32>>
    %c = arith.addf %a, %b : tensor<128xf32>
    %zs = tt.splat %z : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
    %zp = tt.addptr %zs, %at : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
    tt.store %zp, %c, %mask : tensor<128x!tt.ptr<f32>>
    tt.return
  }
}
"#;

/// A .npy file of little-endian words.
fn npy(path: &Path, descr: &str, fortran: bool, shape: &str, data: &[u8]) {
    let order = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}");
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    std::fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()).unwrap();
}

fn floats(list: &[f32]) -> Vec<u8> {
    list.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A folder with the kernel and tensors of all sorts, removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let folder = std::env::temp_dir().join(format!("flagos-kernel-run-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    std::fs::write(at("add.ttir"), ADD).unwrap();
    std::fs::write(at("bad.ttir"), ADD.replace("arith.addf", "arith.frob")).unwrap();
    std::fs::write(at("binary.ttir"), [0xffu8, 0xfe, 0]).unwrap();
    npy(&at("x.npy"), "<f4", false, "2, 3", &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    // The same matrix, column by column.
    npy(&at("columns.npy"), "<f4", true, "2, 3", &floats(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    npy(&at("z.npy"), "<f4", false, "6,", &floats(&[0.0; 6]));
    npy(&at("doubles.npy"), "<f8", false, "6,", &[0; 48]);
    npy(&at("big.npy"), ">f4", false, "6,", &[0; 24]);
    npy(&at("short.npy"), "<f4", false, "6,", &[0; 20]);
    Folder(folder)
}

fn run(folder: &Folder, words: &[&str]) -> Output {
    let mut flagos = Command::new(env!("CARGO_BIN_EXE_flagos"));
    flagos.current_dir(&folder.0).env("FLAGOS_CACHE_DIR", folder.0.join("cache")).args(["kernel", "run"]).args(words).args(["--backend", "embedded"]);
    flagos.output().unwrap()
}

#[test]
fn a_column_major_tensor_is_read_row_by_row() {
    let folder = folder("right");
    let out = run(&folder, &["add.ttir", "--grid", "1", "--out", "out", "x.npy", "columns.npy", "z.npy", "i32:6"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = std::fs::read(folder.0.join("out/arg2.npy")).unwrap();
    assert!(bytes.ends_with(&floats(&[2.0, 4.0, 6.0, 8.0, 10.0, 12.0])));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("add on embedded:0, grid 1"));
}

#[test]
fn wrong_calls_are_told_in_one_line_with_the_way_out() {
    let folder = folder("wrong");
    let tensors = ["x.npy", "columns.npy", "z.npy"];
    let call = |file: &'static str, grid: &'static str, rest: &[&'static str]| -> Vec<&'static str> { [&[file, "--grid", grid], rest].concat() };
    let with = |last: &'static str| [&tensors[..], &[last]].concat();
    let wrong: Vec<(Vec<&str>, &[&str])> = vec![
        (call("add.ttir", "1", &tensors), &["takes 4 arguments, 3 were given", "add(pointer to f32, pointer to f32, pointer to f32, i32)"]),
        (call("add.ttir", "1", &with("i64:6")), &["argument 3 is a number of type i64", "takes a i32 there"]),
        (call("add.ttir", "1", &["x.npy", "doubles.npy", "z.npy", "i32:6"]), &["argument 1 is a tensor of f64", "takes a pointer to f32"]),
        (call("add.ttir", "1", &["i32:6", "x.npy", "z.npy", "i32:6"]), &["argument 0 is a number of type i32", "takes a pointer to f32"]),
        (call("add.ttir", "1", &with("z.npy")), &["argument 3 is a tensor of f32", "takes a i32 there"]),
        (call("none.ttir", "1", &with("i32:6")), &["none.ttir", "No such file", "give the path"]),
        (call("add.ttir", "1", &["x.npy", "none.npy", "z.npy", "i32:6"]), &["none.npy", "No such file", "give the path"]),
        (call("add.ttir", "1,", &with("i32:6")), &["--grid '1,'", "X,Y,Z"]),
        (call("add.ttir", "4294967296", &with("i32:6")), &["--grid '4294967296'", "below 2^32"]),
        (call("add.ttir", "1", &with("i32:1e3")), &["'1e3' is no number of type i32", "whole numbers from -2147483648"]),
        (call("add.ttir", "1", &with("int32:6")), &["'int32:6' is neither a tensor's file", "i32:5"]),
        (call("add.ttir", "1", &["x.npy", "big.npy", "z.npy", "i32:6"]), &["big.npy", "'>f4'", "<f4", "astype"]),
        (call("add.ttir", "1", &["x.npy", "short.npy", "z.npy", "i32:6"]), &["short.npy", "the data are cut off"]),
        (call("bad.ttir", "1", &with("i32:6")), &["bad.ttir: line 17", "arith.frob"]),
        (call("binary.ttir", "1", &with("i32:6")), &["binary.ttir", "no text"]),
        ([&["add.ttir", "--kernel", "sub", "--grid", "1"], &with("i32:6")[..]].concat(), &["there is no kernel 'sub'", "there are: add"]),
    ];
    for (words, says) in wrong {
        let out = run(&folder, &words);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(matches!(out.status.code(), Some(1 | 2)) && out.stdout.is_empty(), "{words:?}: {} {text}", out.status);
        assert!(text.starts_with("flagos: ") && text.trim_end().lines().count() == 1, "{words:?}: {text}");
        for part in says {
            assert!(text.contains(part), "{words:?}: '{part}' is not in: {text}");
        }
    }
}

#[test]
fn a_known_result_is_checked_and_a_wrong_one_told() {
    let folder = folder("check");
    let write = |name: &str, last: f32| {
        let header = "entry add\ngrid 1 1 1\nbuffer f32 2 in 0.0 0.0\nbuffer f32 2 in 0.0 0.0\nbuffer f32 2 out 0.0 0.0\nscalar i32 2\n\n";
        std::fs::write(folder.0.join(format!("{name}.case")), [header.as_bytes(), &floats(&[1.0, 2.0, 3.0, 4.0, 4.0, last])].concat()).unwrap();
        std::fs::write(folder.0.join(format!("{name}.ttir")), ADD).unwrap();
    };
    let check = |words: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_flagos")).current_dir(&folder.0).args(["kernel", "check", ".", "--backend", "embedded"]).args(words).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    write("good", 6.0);
    assert_eq!(check(&[]), (Some(0), "embedded:0: 1 passed, 0 failed, 0 left out of 1 kernels\n".to_owned()));
    write("wrong", 7.0);
    let (code, text) = check(&[]);
    assert!(code == Some(1) && text.contains("FAIL wrong: argument 2: element 1 is 6.0, expected 7.0") && text.contains("1 passed, 1 failed"), "{text}");
    assert_eq!(check(&["--case", "g*"]).0, Some(0));
    let (code, text) = check(&["--case", "nothing"]);
    assert!(code == Some(1) && text.contains("no NAME.case fits"), "{text}");
}
