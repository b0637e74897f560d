//! Elementwise operations: `arith`, `math` and their relatives in `tt`.

use crate::Elem;
use crate::error::Result;
use crate::tile::names::{BINARY, CAST, CMPF, CMPI, UNARY, find};
use crate::tile::{Cast, Item, OpKind, Type, Unary};

use super::{Parsed, Parser};

impl Parser<'_> {
    pub(super) fn elementwise(&mut self, name: &str) -> Result<Option<Parsed>> {
        if let Some(unary) = find(UNARY, name) {
            let (operands, ty) = self.same_type(1)?;
            let result = if matches!(unary, Unary::IsNan | Unary::IsInf | Unary::IsFinite) { truth(&ty) } else { ty };
            return Ok(Some(Parsed::new(OpKind::Unary(unary), operands, vec![result])));
        }
        if let Some(binary) = find(BINARY, name) {
            let (operands, ty) = self.same_type(2)?;
            return Ok(Some(Parsed::new(OpKind::Binary(binary), operands, vec![ty])));
        }
        if let Some(cast) = find(CAST, name) {
            return self.cast(cast).map(Some);
        }
        Ok(Some(match name {
            "arith.constant" => self.constant()?,
            "ub.poison" => {
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                Parsed::new(OpKind::Poison, vec![], vec![ty])
            }
            "math.fma" => {
                let (operands, ty) = self.same_type(3)?;
                Parsed::new(OpKind::Fma, operands, vec![ty])
            }
            "arith.cmpi" | "arith.cmpf" => {
                let word = self.s.word()?;
                let kind = if name == "arith.cmpi" { find(CMPI, word).map(OpKind::CmpI) } else { find(CMPF, word).map(OpKind::CmpF) };
                let Some(kind) = kind else {
                    return Err(self.s.error(format!("'{word}' is no comparison")));
                };
                self.s.expect(",")?;
                let (operands, ty) = self.same_type(2)?;
                Parsed::new(kind, operands, vec![truth(&ty)])
            }
            "arith.select" => {
                let operands = self.some_values(3)?;
                self.skip_attrs()?;
                self.s.expect(":")?;
                let mut ty = self.s.ty()?;
                if self.s.eat(",") {
                    self.check(operands[0], &ty)?;
                    ty = self.s.ty()?;
                } else {
                    self.check(operands[0], &Type::scalar(Elem::I1))?;
                }
                self.check(operands[1], &ty)?;
                self.check(operands[2], &ty)?;
                Parsed::new(OpKind::Select, operands, vec![ty])
            }
            "tt.clampf" => {
                let operands = self.some_values(3)?;
                self.s.expect(",")?;
                self.s.expect("propagateNan")?;
                self.s.expect("=")?;
                let propagate_nan = match self.s.word()? {
                    "all" => true,
                    "none" => false,
                    other => return Err(self.s.error(format!("propagateNan = {other}: all or none"))),
                };
                self.skip_attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                self.check_all(&operands, &[ty.clone(), ty.clone(), ty.clone()])?;
                Parsed::new(OpKind::Clamp { propagate_nan }, operands, vec![ty])
            }
            "tt.extern_elementwise" => {
                let operands = self.values()?;
                let attrs = self.s.attrs()?;
                let Some(symbol) = attrs.text("symbol").map(str::to_owned) else {
                    return Err(self.s.error("it has no symbol"));
                };
                self.s.expect(":")?;
                let types = self.s.ty_list()?;
                self.check_all(&operands, &types)?;
                self.s.expect("->")?;
                let ty = self.s.ty()?;
                Parsed::new(OpKind::Extern(symbol), operands, vec![ty])
            }
            "tt.elementwise_inline_asm" => {
                let text = self.s.string()?;
                self.skip_attrs()?;
                let operands = self.values()?;
                self.colon_types(&operands)?;
                self.s.expect("->")?;
                let mut results = vec![self.s.ty()?];
                while self.s.eat(",") {
                    results.push(self.s.ty()?);
                }
                Parsed::new(OpKind::InlineAsm(text), operands, results)
            }
            _ => return Ok(None),
        }))
    }

    /// `%a, %b flags {…} : type`, all of one type.
    fn same_type(&mut self, count: usize) -> Result<(Vec<crate::tile::Value>, Type)> {
        let operands = self.some_values(count)?;
        self.skip_flags()?;
        self.s.expect(":")?;
        let ty = self.s.ty()?;
        for operand in &operands {
            self.check(*operand, &ty)?;
        }
        Ok((operands, ty))
    }

    /// Flags that allow, but do not ask for, other results.
    fn skip_flags(&mut self) -> Result<()> {
        loop {
            if self.s.eat_word("overflow") || self.s.eat_word("fastmath") {
                self.s.skip_balanced()?;
            } else if !(self.s.eat_word("exact") || self.s.eat_word("nneg") || self.s.eat_word("isExact") || self.s.eat_word("to_nearest_even")) {
                return self.skip_attrs();
            }
        }
    }

    fn cast(&mut self, mut cast: Cast) -> Result<Parsed> {
        let operand = self.value()?;
        if self.s.eat(",") {
            self.s.expect("rounding")?;
            self.s.expect("=")?;
            cast = match self.s.word()? {
                "rtne" => Cast::FpToFp,
                "rtz" => Cast::FpToFpRtz,
                other => return Err(self.s.unsupported(format!("rounding = {other}"))),
            };
        }
        self.skip_flags()?;
        self.s.expect(":")?;
        let from = self.s.ty()?;
        self.check(operand, &from)?;
        if !self.s.eat("->") {
            self.s.expect("to")?;
        }
        let to = self.s.ty()?;
        Ok(Parsed::new(OpKind::Cast(cast), vec![operand], vec![to]))
    }

    fn constant(&mut self) -> Result<Parsed> {
        self.skip_attrs()?;
        let dense = self.s.eat_word("dense");
        if dense {
            self.s.expect("<")?;
            if self.s.at("[") || self.s.at("\"") {
                return Err(self.s.unsupported("a constant tile whose elements differ"));
            }
        }
        let text = self.s.literal_text()?.to_owned();
        if dense {
            self.s.expect(">")?;
        }
        let ty = if self.s.eat(":") {
            self.s.ty()?
        } else if matches!(text.as_str(), "true" | "false") && !dense {
            Type::scalar(Elem::I1)
        } else {
            return Err(self.s.error("a constant without a type"));
        };
        let Some(elem) = ty.elem() else {
            return Err(self.s.error("a constant is a number or a tile of numbers"));
        };
        if ty.is_tile() != dense {
            return Err(self.s.error("a constant tile is written dense<…>, a number is not"));
        }
        let literal = self.s.literal(&text, elem)?;
        Ok(Parsed::new(OpKind::Constant(literal), vec![], vec![ty]))
    }
}

/// The type of truth values in the shape of another.
pub(super) fn truth(ty: &Type) -> Type {
    match ty {
        Type::Tile(shape, _) => Type::tile(shape, Elem::I1),
        _ => Type::Scalar(Item::Elem(Elem::I1)),
    }
}
