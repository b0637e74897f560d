//! The corpus: kernels that Triton printed, each with a call and what NumPy expects of it. Made by `generate.py`.
//!
//! Whoever runs kernels can run these: `#[path = "…/ops/compiler/tests/corpus/mod.rs"] mod corpus;`, then for every case of
//! [`cases`] build the program, launch it with the arguments, and give what the buffers hold afterwards to [`Case::check`].

use std::path::PathBuf;

use flagos_compiler::tile::Program;
use flagos_compiler::{Arg, Elem};

/// A kernel with a call.
pub struct Case {
    /// Name of its files.
    pub name: String,
    /// The text Triton printed.
    pub text: String,
    /// Entry point.
    pub entry: String,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Arguments in order.
    pub args: Vec<Arg>,
    /// What each argument holds afterwards; `None` for scalars.
    wants: Vec<Option<Want>>,
}

/// What a buffer holds afterwards.
struct Want {
    elem: Elem,
    bytes: Vec<u8>,
    relative: f64,
    absolute: f64,
}

/// Every case, by name. Panics if the files are not there or not well-formed.
pub fn cases() -> Vec<Case> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder()).expect("the corpus").map(|f| f.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "case"));
    names.sort();
    names.iter().map(|path| read(path)).collect()
}

/// The folder of the files, seen from any crate of the repository.
fn folder() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|a| a.join("ops/compiler/tests/corpus/data")).find(|p| p.is_dir());
    found.expect("ops/compiler/tests/corpus/data above the crate")
}

fn read(path: &std::path::Path) -> Case {
    let bytes = std::fs::read(path).unwrap();
    let end = bytes.windows(2).position(|w| w == b"\n\n").expect("an empty line after the header");
    let header = core::str::from_utf8(&bytes[..end]).unwrap();
    let mut data = &bytes[end + 2..];
    let mut case = Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        text: std::fs::read_to_string(path.with_extension("ttir")).unwrap(),
        entry: String::new(),
        grid: [1; 3],
        args: Vec::new(),
        wants: Vec::new(),
    };
    for line in header.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "entry" => case.entry = words[1].to_owned(),
            "grid" => case.grid = [1, 2, 3].map(|i| words[i].parse().unwrap()),
            "scalar" => {
                case.args.push(Arg::Scalar(u64::from_str_radix(words[2], 16).unwrap()));
                case.wants.push(None);
            }
            "buffer" => {
                let elem = Elem::from_name(words[1]).unwrap();
                let size = words[2].parse::<usize>().unwrap() * elem.bytes() as usize;
                let mut take = || data.split_off(..size).expect("bytes of a buffer").to_vec();
                let (before, after) = match words[3] {
                    "in" => {
                        let before = take();
                        (before.clone(), before)
                    }
                    "out" => (vec![0; size], take()),
                    _ => (take(), take()),
                };
                case.args.push(Arg::Buffer(before));
                case.wants.push(Some(Want { elem, bytes: after, relative: words[4].parse().unwrap(), absolute: words[5].parse().unwrap() }));
            }
            other => panic!("{}: '{other}' in the header", case.name),
        }
    }
    assert!(data.is_empty(), "{}: bytes left over", case.name);
    case
}

impl Case {
    /// The program.
    pub fn program(&self) -> Program {
        flagos_compiler::tile::parse::parse(&self.text).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Compares what the arguments hold after the launch with what is expected; the error names the worst element.
    pub fn check(&self, after: &[Arg]) -> Result<(), String> {
        for (i, (arg, want)) in after.iter().zip(&self.wants).enumerate() {
            let (Arg::Buffer(bytes), Some(want)) = (arg, want) else { continue };
            want.check(bytes).map_err(|m| format!("{}: argument {i}: {m}", self.name))?;
        }
        Ok(())
    }
}

impl Want {
    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() != self.bytes.len() {
            return Err(format!("{} bytes instead of {}", bytes.len(), self.bytes.len()));
        }
        let size = self.elem.bytes() as usize;
        let mut worst: Option<(f64, String)> = None;
        for (index, (have, want)) in bytes.chunks(size).zip(self.bytes.chunks(size)).enumerate() {
            if have == want {
                continue;
            }
            let [have, want] = [have, want].map(|b| b.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)));
            let (mut excess, mut text) = (f64::INFINITY, format!("element {index} is {have:#x}, expected {want:#x}"));
            if self.elem.is_float() {
                let [x, y] = [have, want].map(|b| flagos_compiler::tile::number::to_f64(self.elem, b));
                if x.is_nan() && y.is_nan() || x == y && self.absolute > 0.0 {
                    continue;
                }
                let error = (x - y).abs();
                let allowed = self.absolute + self.relative * y.abs();
                if error <= allowed {
                    continue;
                }
                text = format!("element {index} is {x:?}, expected {y:?} within {allowed:?}");
                excess = if error.is_nan() { f64::INFINITY } else { error / allowed };
            }
            if worst.as_ref().is_none_or(|(e, _)| excess > *e) {
                worst = Some((excess, text));
            }
        }
        worst.map_or(Ok(()), |(_, text)| Err(text))
    }
}
