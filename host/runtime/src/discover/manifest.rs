//! Backend manifests: a small JSON file that says what a shared object is before any of its code runs.
//!
//! ```json
//! { "format": 1, "name": "cuda", "vendor": "NVIDIA", "library": "libflagos_backend_cuda.so", "abi": "1.0",
//!   "arch": "x86_64", "os": "linux", "domains": ["op", "blas", "fft"],
//!   "devices": [{ "pci_vendor": "10de", "pci_class": "03" }, { "file": "/dev/nvidiactl" }],
//!   "needs": { "files": [], "libraries": ["libcuda.so.1"] },
//!   "sha256": "…64 hex digits…", "signature": "…", "claims": "cuda.claims.json", "priority": 50 }
//! ```
//! Required: `format name library abi`. Paths are relative to the manifest. `devices`: the chip is taken to be present when one entry matches;
//! all conditions of an entry must hold. Fields this version does not know are listed, never an error.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::{Code, Phase, Refusal};

/// Greatest size of a manifest in bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// The manifest format this version reads.
pub const FORMAT: u64 = 1;
/// Domain words a manifest may list; others are tolerated.
pub const DOMAINS: &[&str] = &["op", "blas", "fft", "ccl", "module", "profile"];

/// A checked manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// Unique short name of the backend: 1 to 63 lower-case letters, digits and hyphens.
    pub name: String,
    /// Who makes it; may be empty.
    pub vendor: String,
    /// The shared object; relative to the manifest's folder when not absolute.
    pub library: PathBuf,
    /// ABI (major, minor) it was built for.
    pub abi: (u32, u32),
    /// Processor the library is for ("x86_64"); empty: not stated.
    pub arch: String,
    /// Operating system ("linux"); empty: not stated.
    pub os: String,
    /// Domains offered ("op", "blas", …). For display: the tables decide.
    pub domains: Vec<String>,
    /// How to tell that a chip is there; empty: no chip is needed.
    pub devices: Vec<DeviceMatch>,
    /// What must be installed.
    pub needs: Needs,
    /// Digest of the library, lower-case hexadecimal.
    pub sha256: Option<String>,
    /// Signature; kept, but not checked by this version.
    pub signature: Option<String>,
    /// Claims file written by the conformance suite.
    pub claims: Option<PathBuf>,
    /// The maker's priority among backends of equal score; higher is preferred. Default 50.
    pub priority: i64,
    /// Fields this version does not know, with their place ("needs.gpu").
    pub unknown_fields: Vec<String>,
    /// True for what stands in for the manifest of a bare library or an in-process table.
    pub synthetic: bool,
}

/// A condition that shows a chip is present: every given part must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceMatch {
    /// PCI vendor id.
    pub pci_vendor: Option<u16>,
    /// PCI device id.
    pub pci_device: Option<u16>,
    /// PCI base class (3: display, 0x12: accelerator).
    pub pci_class: Option<u8>,
    /// A file, usually a device node.
    pub file: Option<PathBuf>,
}

/// What must be installed for the library to work.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Needs {
    /// Files that exist; relative to the manifest's folder when not absolute.
    pub files: Vec<PathBuf>,
    /// Shared objects the dynamic linker can find, by soname.
    pub libraries: Vec<String>,
}

impl Manifest {
    /// What stands in for a manifest where there is none: everything but the name is left to the tables.
    pub fn synthetic(name: &str, library: &Path) -> Manifest {
        Manifest {
            name: name.to_owned(),
            vendor: String::new(),
            library: library.to_owned(),
            abi: (flagos_backend_api::ABI_MAJOR, flagos_backend_api::ABI_MINOR),
            arch: String::new(),
            os: String::new(),
            domains: Vec::new(),
            devices: Vec::new(),
            needs: Needs::default(),
            sha256: None,
            signature: None,
            claims: None,
            priority: 50,
            unknown_fields: Vec::new(),
            synthetic: true,
        }
    }
}

/// Reads and checks a manifest file.
pub fn read(path: &Path) -> Result<Manifest, Refusal> {
    let refuse = |code, what: String| Refusal::new(Phase::Read, code, path, what);
    let unreadable = |error: std::io::Error| {
        let (code, way_out) = match error.kind() {
            std::io::ErrorKind::NotFound => (
                Code::NOT_FOUND,
                "correct the path, or reinstall the backend",
            ),
            std::io::ErrorKind::PermissionDenied => {
                (Code::PERMISSION_DENIED, "make it readable with chmod a+r")
            }
            _ if error.raw_os_error() == Some(libc::ELOOP) => (
                Code::INVALID_ARGUMENT,
                "its symbolic links form a circle: point them at a file",
            ),
            _ => (Code::DATA_LOSS, "reinstall the backend"),
        };
        refuse(
            code,
            format!("the manifest cannot be read: {error}; {way_out}"),
        )
    };
    // A FIFO or device would block or never end: look before opening.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(refuse(
            Code::INVALID_ARGUMENT,
            "not a regular file; a manifest is a JSON file".into(),
        ));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    parse(&bytes, path)
}

/// Checks the text of a manifest; `path` is used in messages only.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Manifest, Refusal> {
    let refuse = |what: String| Refusal::new(Phase::Read, Code::INVALID_ARGUMENT, path, what);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!(
            "the manifest is larger than {MAX_BYTES} bytes; a manifest holds a few hundred: remove what does not belong"
        )));
    }
    let Strict(value) = serde_json::from_slice(bytes).map_err(|e| {
        refuse(format!(
            "not a JSON manifest: {e}; correct it there, or reinstall the backend"
        ))
    })?;
    let Value::Object(map) = value else {
        return Err(refuse(format!(
            "the manifest is {}, not a JSON object; write {{ \"format\": 1, … }}",
            type_name(&value)
        )));
    };
    fields(map).map_err(refuse)
}

fn fields(map: Map<String, Value>) -> Result<Manifest, String> {
    let mut unknown_fields = Vec::new();
    let mut top = Fields {
        at: String::new(),
        map,
    };
    let format = top
        .number("format")?
        .ok_or_else(|| missing("format", "\"format\": 1"))?;
    if format != FORMAT as i64 {
        return Err(format!(
            "'format' is {format}, this libflagos reads {FORMAT}; update libflagos, or install a backend for this version"
        ));
    }
    let name = top
        .text("name")?
        .ok_or_else(|| missing("name", "\"name\": \"mychip\""))?;
    check_name(&name)?;
    let library = top
        .path("library")?
        .ok_or_else(|| missing("library", "\"library\": \"libflagos_backend_mychip.so\""))?;
    let abi = top
        .text("abi")?
        .ok_or_else(|| missing("abi", "\"abi\": \"1.0\""))?;
    let abi = parse_abi(&abi).ok_or_else(|| {
        format!("'abi' is {abi:?}; write it as \"major.minor\", for instance \"1.0\"")
    })?;
    let mut devices = Vec::new();
    for (i, map) in top.objects("devices")?.into_iter().enumerate() {
        let mut entry = Fields {
            at: format!("devices[{i}]."),
            map,
        };
        let found = DeviceMatch {
            pci_vendor: entry.hexadecimal("pci_vendor", 0xffff)?.map(|v| v as u16),
            pci_device: entry.hexadecimal("pci_device", 0xffff)?.map(|v| v as u16),
            pci_class: entry.hexadecimal("pci_class", 0xff)?.map(|v| v as u8),
            file: entry.path("file")?,
        };
        if found == DeviceMatch::default() {
            return Err(format!(
                "'devices[{i}]' states no condition; give pci_vendor, pci_device, pci_class or file, or remove it"
            ));
        }
        devices.push(found);
        entry.leftovers(&mut unknown_fields);
    }
    let mut needs = Needs::default();
    if let Some(map) = top.object("needs")? {
        let mut entry = Fields {
            at: "needs.".into(),
            map,
        };
        needs.files = entry
            .texts("files")?
            .into_iter()
            .map(PathBuf::from)
            .collect();
        needs.libraries = entry.texts("libraries")?;
        if let Some(bad) = needs.libraries.iter().find(|l| l.contains('/')) {
            return Err(format!(
                "'needs.libraries' has {bad:?}; give a soname without a folder, or use needs.files"
            ));
        }
        entry.leftovers(&mut unknown_fields);
    }
    let sha256 = top.text("sha256")?.map(|s| s.to_ascii_lowercase());
    if let Some(digest) = sha256
        .as_deref()
        .filter(|d| d.len() != 64 || !d.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(format!(
            "'sha256' is {digest:?}; it must be 64 hexadecimal digits, as sha256sum prints"
        ));
    }
    let manifest = Manifest {
        vendor: top.text("vendor")?.unwrap_or_default(),
        arch: top.text("arch")?.unwrap_or_default(),
        os: top.text("os")?.unwrap_or_default(),
        domains: top.texts("domains")?,
        signature: top.text("signature")?,
        claims: top.path("claims")?,
        priority: top.number("priority")?.unwrap_or(50),
        synthetic: false,
        name,
        library,
        abi,
        devices,
        needs,
        sha256,
        unknown_fields: Vec::new(),
    };
    top.leftovers(&mut unknown_fields);
    Ok(Manifest {
        unknown_fields,
        ..manifest
    })
}

/// Whether a backend's name is well formed; the error says how.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let good = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(())
    } else {
        Err(format!(
            "'name' is {name:?}; use 1 to 63 lower-case letters, digits and hyphens"
        ))
    }
}

fn parse_abi(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    let number = |t: &str| {
        if t.bytes().all(|b| b.is_ascii_digit()) {
            t.parse().ok()
        } else {
            None
        }
    };
    Some((number(major)?, number(minor)?))
}

fn missing(field: &str, example: &str) -> String {
    format!("'{field}' is missing; add {example}")
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Typed access to one JSON object; each field is taken out once, so that what remains is unknown.
struct Fields {
    at: String,
    map: Map<String, Value>,
}

impl Fields {
    fn wrong<T>(&self, key: &str, value: &Value, wanted: &str) -> Result<T, String> {
        Err(format!(
            "'{}{key}' is {}; it must be {wanted}",
            self.at,
            type_name(value)
        ))
    }
    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => {
                if text.chars().any(char::is_control) {
                    return Err(format!(
                        "'{}{key}' is {text:?}; remove the control characters",
                        self.at
                    ));
                }
                Ok(Some(text))
            }
            Some(other) => self.wrong(key, &other, "a text in double quotes"),
        }
    }
    fn path(&mut self, key: &str) -> Result<Option<PathBuf>, String> {
        match self.text(key)? {
            Some(text) if text.is_empty() => Err(format!(
                "'{}{key}' is empty; give a path, or remove the field",
                self.at
            )),
            text => Ok(text.map(PathBuf::from)),
        }
    }
    fn number(&mut self, key: &str) -> Result<Option<i64>, String> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::Number(n)) if n.is_i64() => Ok(n.as_i64()),
            Some(Value::Number(n)) => Err(format!(
                "'{}{key}' is {n}; it must be a whole number of 64 bits",
                self.at
            )),
            Some(other) => self.wrong(key, &other, "a whole number"),
        }
    }
    fn hexadecimal(&mut self, key: &str, max: u32) -> Result<Option<u32>, String> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16)
            .ok()
            .filter(|&v| plain && v <= max)
        {
            Some(value) => Ok(Some(value)),
            None => Err(format!(
                "'{}{key}' is {text:?}; it must be a hexadecimal number up to {max:x}, in double quotes",
                self.at
            )),
        }
    }
    fn texts(&mut self, key: &str) -> Result<Vec<String>, String> {
        let items = match self.map.shift_remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return self.wrong(key, &other, "a list of texts"),
        };
        let mut texts = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::String(t) if !t.is_empty() && !t.chars().any(char::is_control) => {
                    texts.push(t)
                }
                Value::String(t) => {
                    return Err(format!(
                        "'{}{key}[{i}]' is {t:?}; give a plain text that is not empty",
                        self.at
                    ));
                }
                other => {
                    return self.wrong(&format!("{key}[{i}]"), &other, "a text in double quotes");
                }
            }
        }
        Ok(texts)
    }
    fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>, String> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => self.wrong(key, &other, "an object"),
        }
    }
    fn objects(&mut self, key: &str) -> Result<Vec<Map<String, Value>>, String> {
        let items = match self.map.shift_remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return self.wrong(key, &other, "a list of objects"),
        };
        let mut maps = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::Object(map) => maps.push(map),
                other => return self.wrong(&format!("{key}[{i}]"), &other, "an object"),
            }
        }
        Ok(maps)
    }
    fn leftovers(self, into: &mut Vec<String>) {
        into.extend(
            self.map
                .keys()
                .map(|k| format!("{}{}", self.at, k.escape_default())),
        );
    }
}

/// JSON in which no object has a key twice: parsers differ on which one counts, which a reviewer of the file cannot see.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!(
                    "the key {key:?} is given twice, keep one"
                )));
            }
            let Strict(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
