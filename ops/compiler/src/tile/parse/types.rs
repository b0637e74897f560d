//! Reading types and literals.

use crate::Elem;
use crate::error::Result;
use crate::tile::{Item, Literal, MAX_TILE_ELEMS, Type, number::round_to};

use super::scan::Scanner;

/// Rank of a tile beyond which nothing is taken.
const MAX_RANK: usize = 8;

impl Scanner<'_> {
    /// A type.
    pub(super) fn ty(&mut self) -> Result<Type> {
        if self.eat_word("tensor") {
            let (shape, item) = self.tile_body()?;
            Ok(Type::Tile(shape, item))
        } else if self.eat_word("!tt.ptr") {
            self.pointee()
        } else if self.eat_word("!tt.tensordesc") {
            self.described()
        } else {
            Ok(Type::scalar(self.elem()?))
        }
    }

    /// A pointer type whose `!tt.ptr` may be left out, as operations print a type that can be nothing else.
    pub(super) fn ptr_ty(&mut self) -> Result<Type> {
        if self.at("<") { self.pointee() } else { self.ty() }
    }

    /// A descriptor type whose `!tt.tensordesc` may be left out.
    pub(super) fn desc_ty(&mut self) -> Result<Type> {
        if self.at("<") { self.described() } else { self.ty() }
    }

    /// Types in brackets, or one type without them.
    pub(super) fn ty_list(&mut self) -> Result<Vec<Type>> {
        if !self.eat("(") {
            return Ok(vec![self.ty()?]);
        }
        let mut types = Vec::new();
        while !self.eat(")") {
            types.push(self.ty()?);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(types)
    }

    fn pointee(&mut self) -> Result<Type> {
        self.expect("<")?;
        let ty = if self.eat_word("tensor") {
            let (shape, item) = self.tile_body()?;
            match item {
                Item::Elem(elem) => Type::BlockPtr(shape, elem),
                Item::Ptr(_) => return Err(self.unsupported("a pointer to a tile of pointers")),
            }
        } else if self.at("!tt.ptr") {
            return Err(self.unsupported("a pointer to pointers: pass the addresses as i64 and use tt.int_to_ptr"));
        } else {
            Type::Scalar(Item::Ptr(self.elem()?))
        };
        if self.eat(",") && self.integer()? != 1 {
            return Err(self.unsupported("a pointer outside global memory"));
        }
        self.expect(">")?;
        Ok(ty)
    }

    fn described(&mut self) -> Result<Type> {
        let (shape, item) = if self.at("<tensor") {
            self.expect("<")?;
            self.eat_word("tensor");
            let body = self.tile_body_of(Self::signed_elem)?;
            self.expect(">")?;
            body
        } else {
            self.tile_body_of(Self::signed_elem)?
        };
        match item {
            Item::Elem(elem) => Ok(Type::Descriptor(shape, elem)),
            Item::Ptr(_) => Err(self.unsupported("a descriptor of pointers")),
        }
    }

    /// `<128x64xf32>`.
    fn tile_body(&mut self) -> Result<(Vec<u32>, Item)> {
        self.tile_body_of(Self::elem)
    }

    fn tile_body_of(&mut self, elem: fn(&mut Self) -> Result<Elem>) -> Result<(Vec<u32>, Item)> {
        self.expect("<")?;
        self.space();
        let mut shape = Vec::new();
        while self.byte().is_ascii_digit() {
            let digits = self.digits();
            let extent = digits.parse::<u32>().ok().filter(|n| n.is_power_of_two());
            let Some(extent) = extent else {
                return Err(self.error(format!("extent {digits} of a tile: it must be a power of two")));
            };
            if self.byte() != b'x' || shape.len() == MAX_RANK {
                return Err(self.error("a tile's type reads tensor<128x64xf32>, with at most 8 extents"));
            }
            self.step();
            shape.push(extent);
        }
        if shape.is_empty() {
            return Err(self.unsupported("a tile of rank 0 or of unknown extents"));
        }
        let elems = shape.iter().try_fold(1u64, |n, e| n.checked_mul(u64::from(*e)));
        if elems.is_none_or(|n| n > MAX_TILE_ELEMS) {
            return Err(self.error(format!("a tile of more than {MAX_TILE_ELEMS} elements")));
        }
        let item = if self.eat_word("!tt.ptr") {
            match self.pointee()? {
                Type::Scalar(item) => item,
                _ => return Err(self.unsupported("a tile of block pointers")),
            }
        } else {
            Item::Elem(elem(self)?)
        };
        if self.at(",") {
            return Err(self.unsupported("a layout in a tile's type: this is TritonGPU text; hand over the Triton dialect (asm[\"ttir\"])"));
        }
        self.expect(">")?;
        Ok((shape, item))
    }

    /// An element type of a descriptor, where integers may carry a sign (`si32`, `ui8`).
    fn signed_elem(&mut self) -> Result<Elem> {
        self.unsigned = self.at("ui");
        if self.unsigned || self.at("si") {
            self.step();
        }
        self.elem()
    }

    fn elem(&mut self) -> Result<Elem> {
        let found = self.excerpt();
        let word = self.word().map_err(|mut e| {
            e.message = format!("expected a type, found {found}");
            e
        })?;
        match Elem::from_name(word) {
            Some(elem) => Ok(elem),
            None => {
                let known: Vec<_> = Elem::ALL.iter().map(|e| e.name()).collect();
                Err(self.unsupported(format!("element type '{word}'; known are {}", known.join(", "))))
            }
        }
    }

    /// The value of a constant, still without its type: its text.
    pub(super) fn literal_text(&mut self) -> Result<&str> {
        self.space();
        let start = self.pos;
        if self.byte() == b'-' {
            self.step();
        }
        while self.byte().is_ascii_alphanumeric() || matches!(self.byte(), b'.' | b'+' | b'-') {
            // A sign goes on a number only after an exponent's letter.
            if matches!(self.byte(), b'+' | b'-') && !matches!(self.text.as_bytes()[self.pos - 1], b'e' | b'E') {
                break;
            }
            self.step();
        }
        if self.pos == start {
            let found = self.excerpt();
            return Err(self.error(format!("expected a number, found {found}")));
        }
        Ok(&self.text[start..self.pos])
    }

    /// A number of an element type from its text.
    pub(super) fn literal(&mut self, text: &str, elem: Elem) -> Result<Literal> {
        let bad = |s: &mut Self| Err(s.error(format!("'{text}' is no {elem}")));
        if elem.is_int() {
            let value = match text {
                "true" => 1,
                "false" => 0,
                _ => match text.parse::<i64>().ok().or_else(|| hex(text).map(|v| v as i64)) {
                    Some(v) => v,
                    None => return bad(self),
                },
            };
            if elem == Elem::I1 {
                // MLIR prints truth as true or -1.
                return if (-1..=1).contains(&value) { Ok(Literal::Int(value & 1)) } else { bad(self) };
            }
            let bits = elem.bits();
            let fits = bits == 64 || (value >= -(1i64 << (bits - 1)) && value < (1i64 << bits));
            let sign_extended = value << (64 - bits) >> (64 - bits);
            return if fits { Ok(Literal::Int(sign_extended)) } else { bad(self) };
        }
        if let Some(bits) = hex(text) {
            let fits = elem.bits() == 64 || bits < 1u64 << elem.bits();
            return if fits { Ok(Literal::Bits(bits)) } else { bad(self) };
        }
        match text.parse::<f64>() {
            Ok(value) if text.contains('.') => Ok(Literal::Bits(round_to(elem, value))),
            _ => bad(self),
        }
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?, 16).ok()
}
