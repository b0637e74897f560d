//! Reading characters: white space, words, numbers, strings, balanced brackets, attributes.

use crate::error::{CompileError, Loc, Result};

/// An attribute's value, as far as operations read it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attr {
    /// `3 : i32`, `true`.
    Int(i64),
    /// `"text"`.
    Text(String),
    /// `array<i32: 1, 0>`.
    Ints(Vec<i64>),
    /// Anything else, skipped.
    Other,
}

/// A list of named attributes.
#[derive(Debug, Default)]
pub(super) struct Attrs(Vec<(String, Attr)>);

impl Attrs {
    /// An attribute by name.
    pub(super) fn get(&self, name: &str) -> Option<&Attr> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }
    /// An integer or truth value by name.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Attr::Int(v)) => Some(*v),
            _ => None,
        }
    }
    /// A list of numbers that fit 32 bits, by name; empty when absent.
    pub(super) fn axes(&self, name: &str) -> Vec<u32> {
        match self.get(name) {
            Some(Attr::Ints(v)) => v.iter().map(|n| u32::try_from(*n).unwrap_or(u32::MAX)).collect(),
            _ => Vec::new(),
        }
    }
    /// A text by name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Attr::Text(t)) => Some(t),
            _ => None,
        }
    }
    /// Adds the attributes of another list.
    pub(super) fn extend(&mut self, other: Attrs) {
        self.0.extend(other.0);
    }
}

/// A position in a text.
pub(super) struct Scanner<'a> {
    /// The text.
    pub(super) text: &'a str,
    /// Offset in bytes, always at the start of a character.
    pub(super) pos: usize,
    lines: Vec<usize>,
    /// Operation being read, for errors.
    pub(super) operation: String,
    /// Where it begins; line 0: none is being read.
    pub(super) begin: Loc,
    /// The descriptor type read last is of unsigned integers.
    pub(super) unsigned: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        let lines = core::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1)).collect();
        Scanner { text, pos: 0, lines, operation: String::new(), begin: Loc::default(), unsigned: false }
    }

    /// Line and column of the next character that is not white space.
    pub(super) fn loc(&mut self) -> Loc {
        self.space();
        let line = self.lines.partition_point(|start| *start <= self.pos);
        Loc { line: line as u32, column: (self.pos - self.lines[line - 1] + 1) as u32 }
    }

    /// Where the operation being read begins, else this place.
    fn blamed(&mut self) -> Loc {
        if self.begin.line > 0 { self.begin } else { self.loc() }
    }

    /// An error at this place that blames the operation being read.
    pub(super) fn error(&mut self, message: impl Into<String>) -> CompileError {
        let loc = self.blamed();
        CompileError::invalid(self.operation.clone(), loc, message)
    }

    /// A refusal at this place.
    pub(super) fn unsupported(&mut self, message: impl Into<String>) -> CompileError {
        let loc = self.blamed();
        CompileError::unsupported(self.operation.clone(), loc, message)
    }

    /// Skips white space and comments.
    pub(super) fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b) = bytes.get(self.pos) {
            if b.is_ascii_whitespace() {
                self.pos += 1;
            } else if *b == b'/' && bytes.get(self.pos + 1) == Some(&b'/') {
                self.pos = bytes[self.pos..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| self.pos + n);
            } else {
                break;
            }
        }
    }

    /// Whether the text is used up.
    pub(super) fn at_end(&mut self) -> bool {
        self.space();
        self.pos >= self.text.len()
    }

    /// The next character that is not white space; 0 at the end.
    pub(super) fn peek(&mut self) -> u8 {
        self.space();
        self.byte()
    }

    /// The next character as it is; 0 at the end.
    pub(super) fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.pos).copied().unwrap_or(0)
    }

    /// Whether the rest starts with a text.
    pub(super) fn at(&mut self, token: &str) -> bool {
        self.space();
        self.text.as_bytes()[self.pos..].starts_with(token.as_bytes())
    }

    /// Takes a punctuation mark if it is next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.at(token);
        if found {
            self.pos += token.len();
        }
        found
    }

    /// Takes a whole word if it is next.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at(word) && !self.text.as_bytes().get(self.pos + word.len()).is_some_and(|b| is_word(*b));
        if found {
            self.pos += word.len();
        }
        found
    }

    /// Takes a punctuation mark that must be next.
    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            return Ok(());
        }
        let found = self.excerpt();
        Err(self.error(format!("expected '{token}', found {found}")))
    }

    /// What is next, for an error.
    pub(super) fn excerpt(&mut self) -> String {
        self.space();
        let rest = self.text[self.pos..].lines().next().unwrap_or("");
        let short: String = rest.chars().take(24).collect();
        if short.is_empty() { "the end of the text".into() } else { format!("'{short}'") }
    }

    fn run(&mut self, keep: impl Fn(u8) -> bool) -> &'a str {
        let start = self.pos;
        while self.text.as_bytes().get(self.pos).is_some_and(|b| keep(*b)) {
            self.pos += 1;
        }
        &self.text[start..self.pos]
    }

    /// A word: letters, digits, '_', '.', '$'.
    pub(super) fn word(&mut self) -> Result<&'a str> {
        self.space();
        let word = self.run(is_word);
        if word.is_empty() {
            let found = self.excerpt();
            return Err(self.error(format!("expected a word, found {found}")));
        }
        Ok(word)
    }

    /// The name after `%`, `@`, `^` or `#`: a word, or digits, or a quoted name.
    pub(super) fn suffix(&mut self, sigil: &str) -> Result<&'a str> {
        self.expect(sigil)?;
        if self.byte() == b'"' {
            let start = self.pos + 1;
            self.string()?;
            return Ok(&self.text[start..self.pos - 1]);
        }
        let word = self.run(|b| is_word(b) || b == b'-');
        if word.is_empty() {
            return Err(self.error(format!("expected a name after '{sigil}'")));
        }
        Ok(word)
    }

    /// Digits directly at this place.
    pub(super) fn digits(&mut self) -> &'a str {
        self.run(|b| b.is_ascii_digit())
    }

    /// A quoted text with its escapes resolved.
    pub(super) fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let bytes = self.text.as_bytes();
        let mut out = Vec::new();
        loop {
            match bytes.get(self.pos) {
                None | Some(b'\n') => return Err(self.error("a quoted text has no end")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let pair = bytes.get(self.pos + 1..self.pos + 3).and_then(|p| core::str::from_utf8(p).ok());
                    match (bytes.get(self.pos + 1), pair.and_then(|p| u8::from_str_radix(p, 16).ok())) {
                        (_, Some(code)) if bytes[self.pos + 1].is_ascii_hexdigit() => {
                            out.push(code);
                            self.pos += 3;
                        }
                        (Some(b'n'), _) => {
                            out.push(b'\n');
                            self.pos += 2;
                        }
                        (Some(b't'), _) => {
                            out.push(b'\t');
                            self.pos += 2;
                        }
                        (Some(c @ (b'"' | b'\\')), _) => {
                            out.push(*c);
                            self.pos += 2;
                        }
                        _ => return Err(self.error("a quoted text has an escape that is none")),
                    }
                }
                Some(b) => {
                    out.push(*b);
                    self.pos += 1;
                }
            }
        }
        self.pos += 1;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Skips from an opening bracket to its partner; texts in quotes count as one character.
    pub(super) fn skip_balanced(&mut self) -> Result<()> {
        let mut open = Vec::new();
        loop {
            match self.peek() {
                0 => return Err(self.error("a bracket has no partner")),
                b'"' => {
                    self.string()?;
                    continue;
                }
                b @ (b'(' | b'[' | b'{' | b'<') => open.push(b),
                b'-' if self.at("->") => self.pos += 1,
                b @ (b')' | b']' | b'}' | b'>') => {
                    let partner = match b {
                        b')' => b'(',
                        b']' => b'[',
                        b'}' => b'{',
                        _ => b'<',
                    };
                    if open.pop() != Some(partner) {
                        return Err(self.error("brackets do not match"));
                    }
                }
                _ => {}
            }
            self.step();
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// Goes on by one character.
    pub(super) fn step(&mut self) {
        self.pos += self.text[self.pos..].chars().next().map_or(0, char::len_utf8);
    }

    /// Skips a trailing `loc(…)`.
    pub(super) fn skip_loc(&mut self) -> Result<()> {
        if self.at("loc(") {
            self.pos += 3;
            self.skip_balanced()?;
        }
        Ok(())
    }

    /// An integer in decimal or hexadecimal, with its sign, as 64 bits.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let negative = self.eat("-");
        self.space();
        let word = self.run(|b| b.is_ascii_alphanumeric());
        let value = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => word.parse::<u64>(),
        };
        match value {
            Ok(v) if negative => Ok((v as i64).wrapping_neg()),
            Ok(v) => Ok(v as i64),
            Err(_) => Err(self.error(format!("'{word}' is no integer of 64 bits"))),
        }
    }

    /// `{name = value, …}` if it is next, with `<{…}>` around it too.
    pub(super) fn attrs(&mut self) -> Result<Attrs> {
        let mut attrs = Attrs::default();
        let angle = self.at("<{");
        if angle {
            self.pos += 1;
        }
        if !self.eat("{") {
            return Ok(attrs);
        }
        while !self.eat("}") {
            let name = if self.peek() == b'"' { self.string()? } else { self.word()?.to_owned() };
            let value = if self.eat("=") { self.attr()? } else { Attr::Int(1) };
            attrs.0.push((name, value));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        if angle {
            self.expect(">")?;
        }
        Ok(attrs)
    }

    fn attr(&mut self) -> Result<Attr> {
        let next = self.peek();
        let value = if next == b'"' {
            Attr::Text(self.string()?)
        } else if self.eat_word("true") {
            Attr::Int(1)
        } else if self.eat_word("false") {
            Attr::Int(0)
        } else if self.at("array<") {
            self.pos += "array<".len();
            self.word()?;
            let mut list = Vec::new();
            if self.eat(":") {
                loop {
                    list.push(if self.eat_word("true") {
                        1
                    } else if self.eat_word("false") {
                        0
                    } else {
                        self.integer()?
                    });
                    if !self.eat(",") {
                        break;
                    }
                }
            }
            self.expect(">")?;
            Attr::Ints(list)
        } else if next == b'-' || next.is_ascii_digit() {
            let start = self.pos;
            match self.integer() {
                Ok(value) if self.byte() != b'.' => Attr::Int(value),
                _ => {
                    self.pos = start;
                    self.skip_value()?;
                    Attr::Other
                }
            }
        } else {
            self.skip_value()?;
            Attr::Other
        };
        if self.eat(":") {
            self.skip_value()?;
        }
        Ok(value)
    }

    /// Skips to the next ',' or closing bracket of this level.
    fn skip_value(&mut self) -> Result<()> {
        loop {
            match self.peek() {
                0 => return Err(self.error("an attribute has no end")),
                b',' | b'}' | b')' | b']' | b'>' => return Ok(()),
                b'(' | b'[' | b'{' | b'<' => self.skip_balanced()?,
                b'"' => {
                    self.string()?;
                }
                _ => self.step(),
            }
        }
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$')
}
