//! What commands print: aligned tables for people, JSON for programs, colours only on terminals.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use flagos_runtime::{Code, Error, Result};
use serde::Serialize;

/// Where and how a command prints.
pub struct Output {
    json: bool,
    colour: bool,
}

/// How a cell is shown on a terminal.
#[derive(Clone, Copy, PartialEq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Something is off.
    Warn,
    /// Something failed.
    Bad,
    /// Of little weight.
    Dim,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Good => "\x1b[32m",
            Tone::Warn => "\x1b[33m",
            Tone::Bad => "\x1b[31m",
            Tone::Dim => "\x1b[2m",
        }
    }
}

impl Output {
    /// Colours follow the terminal and NO_COLOR.
    pub fn new(json: bool) -> Output {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Output { json, colour }
    }
    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }
    /// Whether colours are used.
    pub fn has_colour(&self) -> bool {
        self.colour
    }
    /// Text in a tone.
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        if self.colour && tone != Tone::Plain { format!("{}{text}\x1b[0m", tone.code()) } else { text.to_owned() }
    }
    /// Prints a value as JSON.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(Code::INTERNAL, e.to_string()))?;
        self.text(&text);
        Ok(())
    }
    /// Prints a value as one line of JSON.
    pub fn json_line<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| Error::new(Code::INTERNAL, e.to_string()))?;
        self.text(&text);
        Ok(())
    }
    /// Prints lines. A closed pipe ends the program quietly, as other tools do.
    pub fn text(&self, text: &str) {
        if writeln!(std::io::stdout(), "{}", text.trim_end()).is_err() {
            std::process::exit(0);
        }
    }
    /// Prints a table with a head.
    pub fn table(&self, head: &[&str], rows: &[Vec<(Tone, String)>]) {
        let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|(_, t)| t.chars().count()).chain([head[c].len()]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::new();
        for (c, name) in head.iter().enumerate() {
            let cell = format!("{name:<0$}", widths[c]);
            let _ = write!(text, "{}  ", self.tone(Tone::Dim, &cell));
        }
        text = text.trim_end().to_owned();
        for row in rows {
            text.push('\n');
            let mut line = String::new();
            for (c, (tone, cell)) in row.iter().enumerate() {
                let last = c + 1 == row.len();
                let padded = if last { cell.clone() } else { format!("{cell:<0$}", widths[c]) };
                let _ = write!(line, "{}{}", self.tone(*tone, &padded), if last { "" } else { "  " });
            }
            text.push_str(line.trim_end());
        }
        self.text(&text);
    }
    /// Prints an error.
    pub fn error(&self, error: &Error) {
        if self.json {
            let value = serde_json::json!({ "error": { "code": error.code.to_string(), "message": error.message, "argument": error.argument } });
            self.text(&value.to_string());
        } else {
            eprintln!("flagos: {error}");
        }
    }
}

/// A plain cell.
pub fn plain(text: impl Into<String>) -> (Tone, String) {
    (Tone::Plain, text.into())
}

/// Nanoseconds for people.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}
