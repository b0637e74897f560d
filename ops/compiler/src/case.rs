//! A kernel with a call and what is expected of it: `NAME.ttir`, the text, beside `NAME.case`.
//!
//! A `.case` file is a header of lines, an empty line, then the bytes of the buffers in order, for `inout` first what goes in, then what comes out:
//!
//! ```text
//! entry NAME
//! grid X Y Z
//! scalar ELEM BITS                                             (hexadecimal)
//! buffer ELEM COUNT in|out|inout RELATIVE ABSOLUTE [any-order]  (tolerances; an `out` buffer goes in as zeros)
//! ```

use std::path::Path;

use crate::tile::Program;
use crate::{Arg, Elem, Result};

/// A kernel with a call.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of its files.
    pub name: String,
    /// Triton dialect text.
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
#[derive(Clone, Debug)]
struct Want {
    elem: Elem,
    bytes: Vec<u8>,
    relative: f64,
    absolute: f64,
    /// Whether blocks leave the elements in whatever order they come to run.
    any_order: bool,
}

impl Case {
    /// Reads `NAME.case` and the text beside it; the error names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Case, String> {
        let open = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
        let (bytes, text) = (open(path)?, open(&path.with_extension("ttir"))?);
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let text = String::from_utf8(text).map_err(|_| format!("{}: no UTF-8", path.with_extension("ttir").display()))?;
        Case::parse(&bytes, name, text).map_err(|what| format!("{}: {what}", path.display()))
    }

    fn parse(bytes: &[u8], name: String, text: String) -> Result<Case, String> {
        let end = bytes.windows(2).position(|w| w == b"\n\n").ok_or("no empty line after the header")?;
        let header = core::str::from_utf8(&bytes[..end]).map_err(|_| "the header is no text")?;
        let mut data = &bytes[end + 2..];
        let mut case = Case { name, text, entry: String::new(), grid: [1; 3], args: Vec::new(), wants: Vec::new() };
        for line in header.lines() {
            case.line(line, &mut data).ok_or_else(|| format!("'{line}' in the header, or the bytes it speaks of, cannot be read"))?;
        }
        if data.is_empty() { Ok(case) } else { Err(format!("{} bytes are left over", data.len())) }
    }

    fn line(&mut self, line: &str, data: &mut &[u8]) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["entry", name] => self.entry = (*name).to_owned(),
            ["grid", x, y, z] => self.grid = [x.parse().ok()?, y.parse().ok()?, z.parse().ok()?],
            ["scalar", elem, bits] => {
                Elem::from_name(elem)?;
                self.args.push(Arg::Scalar(u64::from_str_radix(bits, 16).ok()?));
                self.wants.push(None);
            }
            ["buffer", elem, count, kind, relative, absolute, rest @ ..] => {
                let elem = Elem::from_name(elem)?;
                let size = count.parse::<usize>().ok()?.checked_mul(elem.bytes() as usize)?;
                let mut take = || data.split_off(..size).map(<[u8]>::to_vec);
                let (before, after) = match *kind {
                    "in" => take().map(|b| (b.clone(), b))?,
                    "out" => (vec![0; size], take()?),
                    "inout" => (take()?, take()?),
                    _ => return None,
                };
                let any_order = match rest {
                    [] => false,
                    ["any-order"] => true,
                    _ => return None,
                };
                self.args.push(Arg::Buffer(before));
                self.wants.push(Some(Want { elem, bytes: after, relative: relative.parse().ok()?, absolute: absolute.parse().ok()?, any_order }));
            }
            _ => return None,
        }
        Some(())
    }

    /// The program.
    pub fn program(&self) -> Result<Program> {
        crate::tile::parse::parse(&self.text)
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
    /// Bits of the elements, sorted where their order is nobody's.
    fn elements(&self, bytes: &[u8]) -> Vec<u64> {
        let mut list: Vec<u64> = bytes.chunks(self.elem.bytes() as usize).map(|b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))).collect();
        if self.any_order {
            list.sort_unstable();
        }
        list
    }

    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() != self.bytes.len() {
            return Err(format!("{} bytes instead of {}", bytes.len(), self.bytes.len()));
        }
        let mut worst: Option<(f64, String)> = None;
        for (index, (have, want)) in self.elements(bytes).into_iter().zip(self.elements(&self.bytes)).enumerate() {
            if have == want {
                continue;
            }
            let (mut excess, mut text) = (f64::INFINITY, format!("element {index} is {have:#x}, expected {want:#x}"));
            if self.elem.is_float() {
                let [x, y] = [have, want].map(|b| crate::tile::number::to_f64(self.elem, b));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn case(header: &str, data: &[u8]) -> Result<Case, String> {
        Case::parse(&[header.as_bytes(), b"\n\n", data].concat(), "k".into(), String::new())
    }

    #[test]
    fn a_case_is_read_and_judges_by_its_tolerances() {
        let word = |x: f32| x.to_le_bytes();
        let data = [word(1.0), word(2.0), word(1.0), word(4.0)].concat();
        let ok = case("entry k\ngrid 2 1 1\nscalar i32 ff\nbuffer f32 2 in 0.0 0.0\nbuffer f32 2 out 0.1 0.0", &data).unwrap();
        assert_eq!((ok.grid, ok.args.len(), &ok.args[0]), ([2, 1, 1], 3, &Arg::Scalar(255)));
        let check = |a: f32, b: f32| ok.check(&[ok.args[0].clone(), ok.args[1].clone(), Arg::Buffer([word(a), word(b)].concat())]);
        assert!(check(1.05, 4.3).is_ok());
        assert!(check(1.0, 5.0).unwrap_err().contains("argument 2: element 1 is 5.0, expected 4.0"));
        assert!(check(1.0, f32::NAN).is_err());
        // An argument that is only read must be as it was.
        assert!(ok.check(&[Arg::Scalar(255), Arg::Buffer(vec![0; 8]), Arg::Buffer([word(1.0), word(4.0)].concat())]).is_err());
        let any = case("buffer i8 2 out 0.0 0.0 any-order", &[1, 2]).unwrap();
        assert!(any.check(&[Arg::Buffer(vec![2, 1])]).is_ok() && any.check(&[Arg::Buffer(vec![2, 2])]).is_err());
    }

    #[test]
    fn damaged_cases_are_refused() {
        for (header, data) in [("grid 1 1", 0), ("buffer f33 1 in 0 0", 4), ("buffer f32 2 in 0 0", 4), ("buffer f32 1 in 0 0", 5), ("buffer i8 1 in 0 0 x", 1), ("what", 0)] {
            assert!(case(header, &vec![0; data]).is_err(), "{header}");
        }
        assert!(Case::read(Path::new("/nonexistent/k.case")).unwrap_err().contains("/nonexistent/k.case"));
    }
}
