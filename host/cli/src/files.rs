//! Tensors in files: NumPy's .npy and .safetensors.

use std::path::Path;

use flagos_runtime::{Code, DType, Error, Result, Tensor};
use safetensors::{Dtype, SafeTensors};

/// A tensor with its row-major bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<i64>,
    /// Elements, row-major, little-endian.
    pub bytes: Vec<u8>,
}

impl Data {
    /// Its contiguous descriptor.
    pub fn tensor(&self) -> Tensor {
        Tensor::contiguous(self.dtype, &self.shape)
    }
}

/// .npy type words and safetensors types by element type. bf16 and fp8 have no .npy word.
const TYPES: &[(DType, &str, Option<Dtype>)] = &[
    (DType::BOOL, "|b1", Some(Dtype::BOOL)),
    (DType::I8, "|i1", Some(Dtype::I8)),
    (DType::I16, "<i2", Some(Dtype::I16)),
    (DType::I32, "<i4", Some(Dtype::I32)),
    (DType::I64, "<i8", Some(Dtype::I64)),
    (DType::U8, "|u1", Some(Dtype::U8)),
    (DType::U16, "<u2", Some(Dtype::U16)),
    (DType::U32, "<u4", Some(Dtype::U32)),
    (DType::U64, "<u8", Some(Dtype::U64)),
    (DType::F16, "<f2", Some(Dtype::F16)),
    (DType::BF16, "", Some(Dtype::BF16)),
    (DType::F32, "<f4", Some(Dtype::F32)),
    (DType::F64, "<f8", Some(Dtype::F64)),
    (DType::C64, "<c8", None),
    (DType::C128, "<c16", None),
    (DType::F8E4M3, "", Some(Dtype::F8_E4M3)),
    (DType::F8E5M2, "", Some(Dtype::F8_E5M2)),
];

fn fault(path: &Path, what: impl core::fmt::Display) -> Error {
    Error::new(Code::DATA_LOSS, format!("{}: {what}", path.display()))
}

/// Bytes of a file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::new(Code::NOT_FOUND, format!("{}: {e}; give the path of a file that can be read", path.display())))
}

/// Reads `x.npy`, `x.safetensors#name` (a file of one tensor needs no name), or `bf16@x.npy` (the elements' bits as another type of the same width).
pub fn read(spec: &str) -> Result<Data> {
    let (cast, rest) = match spec.split_once('@') {
        Some((name, rest)) => (Some(crate::spec::dtype(name)?), rest),
        None => (None, spec),
    };
    let (file, name) = rest.split_once('#').map_or((rest, None), |(f, n)| (f, Some(n)));
    let path = Path::new(file);
    let bytes = read_bytes(path)?;
    let mut data = match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => parse_npy(path, &bytes)?,
        Some("safetensors") => {
            let file = parse(path, &bytes)?;
            let name = match (name, file.names().as_slice()) {
                (Some(name), _) => name.to_owned(),
                (None, [only]) => (*only).to_owned(),
                (None, names) => return Err(fault(path, format!("name one of its {} tensors: FILE.safetensors#NAME", names.len()))),
            };
            view(path, &file, &name)?
        }
        _ => return Err(Error::invalid(format!("'{file}': .npy and .safetensors files are read"))),
    };
    if let Some(cast) = cast {
        if cast.bytes() != data.dtype.bytes() {
            return Err(Error::invalid(format!("'{spec}': {cast} is not as wide as the file's {}", data.dtype)));
        }
        data.dtype = cast;
    }
    Ok(data)
}

/// Parses a safetensors file.
pub fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| fault(path, e))
}

/// A tensor of a safetensors file.
pub fn view(path: &Path, file: &SafeTensors, name: &str) -> Result<Data> {
    let view = file.tensor(name).map_err(|_| fault(path, format!("there is no tensor '{name}'; there are {}", file.names().join(", "))))?;
    let dtype = TYPES.iter().find(|t| t.2 == Some(view.dtype())).map(|t| t.0);
    let dtype = dtype.ok_or_else(|| fault(path, format!("tensor '{name}' has type {:?}, which is not known here", view.dtype())))?;
    Ok(Data { dtype, shape: view.shape().iter().map(|n| *n as i64).collect(), bytes: view.data().to_vec() })
}

fn parse_npy(path: &Path, bytes: &[u8]) -> Result<Data> {
    let bad = |what: &str| fault(path, format!("no .npy file: {what}"));
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(bad("the magic is missing"));
    }
    if bytes.len() < 12 {
        return Err(bad("the header is cut off"));
    }
    let (start, length) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        2 | 3 => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
        v => return Err(bad(&format!("version {v}"))),
    };
    let header = bytes.get(start..start + length).and_then(|h| core::str::from_utf8(h).ok()).ok_or_else(|| bad("the header is cut off"))?;
    let field = |name: &str| header.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
    let descr = field("descr").and_then(|d| d.strip_prefix('\'')).and_then(|d| d.split_once('\'')).ok_or_else(|| bad("'descr' is missing or a list of fields; save each field by itself"))?.0;
    let dtype = TYPES.iter().find(|t| t.1 == descr && !descr.is_empty()).map(|t| t.0).ok_or_else(|| {
        let known: Vec<&str> = TYPES.iter().map(|t| t.1).filter(|w| !w.is_empty()).collect();
        fault(path, format!("elements of type '{descr}' are not read; save them as one of {} (astype)", known.join(" ")))
    })?;
    let fortran = field("fortran_order").is_some_and(|f| f.starts_with("True"));
    let list = field("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')')).ok_or_else(|| bad("'shape' is missing"))?.0;
    let extents: Option<Vec<i64>> = list.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect();
    let shape = extents.filter(|s| s.len() <= 8).ok_or_else(|| bad(&format!("shape ({list})")))?;
    let total = shape.iter().try_fold(dtype.bytes(), |n, d| n.checked_mul(usize::try_from(*d).ok()?)).ok_or_else(|| bad("the shape overflows"))?;
    let data = bytes.get(start + length..).and_then(|d| d.get(..total)).ok_or_else(|| bad("the data are cut off"))?.to_vec();
    let bytes = if fortran && shape.len() > 1 { from_columns(&shape, dtype.bytes(), &data) } else { data };
    Ok(Data { dtype, shape, bytes })
}

/// Column-major elements in row-major order.
fn from_columns(shape: &[i64], width: usize, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0i64; shape.len()];
    for _ in 0..data.len() / width {
        let (mut at, mut step) = (0, 1);
        for (i, n) in index.iter().zip(shape) {
            at += i * step;
            step *= n;
        }
        out.extend_from_slice(&data[at as usize * width..][..width]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    out
}

/// Writes a tensor to `x.npy`, or `x.safetensors` as tensor "out".
pub fn write(path: &Path, data: &Data) -> Result<()> {
    let io = |e: std::io::Error| Error::new(Code::INTERNAL, format!("{}: {e}", path.display()));
    let row = TYPES.iter().find(|t| t.0 == data.dtype).ok_or_else(|| Error::invalid(format!("{} cannot be written", data.dtype)))?;
    if path.extension().is_some_and(|e| e == "safetensors") {
        let dtype = row.2.ok_or_else(|| Error::invalid(format!("{} has no safetensors type; write .npy", data.dtype)))?;
        let shape = data.shape.iter().map(|n| *n as usize).collect();
        let view = safetensors::tensor::TensorView::new(dtype, shape, &data.bytes).map_err(|e| fault(path, e))?;
        let bytes = safetensors::serialize([("out", view)], None).map_err(|e| fault(path, e))?;
        return std::fs::write(path, bytes).map_err(io);
    }
    if row.1.is_empty() {
        return Err(Error::invalid(format!("{} has no .npy type; write .safetensors", data.dtype)));
    }
    let shape: String = data.shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", row.1);
    // The format asks for a header that ends in a newline at a multiple of 64 bytes.
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data.bytes);
    std::fs::write(path, file).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_round_trips_and_column_order_is_turned() {
        let folder = std::env::temp_dir().join(format!("flagos-npy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.npy");
        let data = Data { dtype: DType::I16, shape: vec![2, 3], bytes: (0..12).collect() };
        write(&path, &data).unwrap();
        assert_eq!(read(path.to_str().unwrap()).unwrap(), data);
        assert_eq!(read(&format!("f16@{}", path.display())).unwrap().dtype, DType::F16);
        assert_eq!(from_columns(&[2, 3], 1, &[1, 2, 3, 4, 5, 6]), [1, 3, 5, 2, 4, 6]);
        std::fs::write(&path, b"\x93NUMPY\x01\x00\xff\xff{").unwrap();
        assert!(read(path.to_str().unwrap()).unwrap_err().message.contains("cut off"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
