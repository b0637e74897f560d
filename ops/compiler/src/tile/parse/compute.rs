//! Operations on tiles: shapes, reductions, products.

use crate::Elem;
use crate::error::Result;
use crate::tile::names::{PRECISION, find};
use crate::tile::{OpKind, Type, Value};

use super::scan::Attrs;
use super::{Parsed, Parser};

impl Parser<'_> {
    pub(super) fn compute(&mut self, name: &str) -> Result<Option<Parsed>> {
        Ok(Some(match name {
            "tt.get_program_id" | "tt.get_num_programs" => {
                let axis = match self.s.word()? {
                    "x" => 0,
                    "y" => 1,
                    "z" => 2,
                    other => return Err(self.s.error(format!("axis {other}: x, y or z"))),
                };
                self.skip_attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                let kind = if name == "tt.get_program_id" { OpKind::ProgramId(axis) } else { OpKind::NumPrograms(axis) };
                Parsed::new(kind, vec![], vec![ty])
            }
            "tt.make_range" => {
                let attrs = self.s.attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                let (Some(start), Some(end)) = (attrs.int("start"), attrs.int("end")) else {
                    return Err(self.s.error("it needs start and end"));
                };
                let Ok(first) = i32::try_from(start) else {
                    return Err(self.s.error(format!("start {start} does not fit 32 bits")));
                };
                if end.checked_sub(start) != Some(ty.elems() as i64) || !ty.is_tile() {
                    return Err(self.s.error(format!("{start} to {end} is not the number of elements of its type")));
                }
                Parsed::new(OpKind::MakeRange(first), vec![], vec![ty])
            }
            "tt.splat" => self.reshaping(|_| OpKind::Splat)?,
            "tt.broadcast" => self.reshaping(|_| OpKind::Broadcast)?,
            "tt.expand_dims" => self.reshaping(|a| OpKind::ExpandDims(axis(a)))?,
            "tt.trans" => self.reshaping(|a| OpKind::Trans(a.axes("order")))?,
            "tt.reshape" => {
                let operand = self.value()?;
                let mut reorder = false;
                loop {
                    if self.s.eat_word("allow_reorder") {
                        reorder = true;
                    } else if !self.s.eat_word("efficient_layout") {
                        break;
                    }
                }
                let attrs = self.s.attrs()?;
                reorder |= attrs.int("allow_reorder") == Some(1);
                let ty = self.converted(&[operand])?;
                Parsed::new(OpKind::Reshape { reorder }, vec![operand], vec![ty])
            }
            "tt.unsplat" => {
                let operand = self.value()?;
                self.skip_attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ty()?;
                self.check(operand, &ty)?;
                let Some(item) = ty.item() else {
                    return Err(self.s.error("its operand must be a tile"));
                };
                Parsed::new(OpKind::Unsplat, vec![operand], vec![Type::Scalar(item)])
            }
            "tt.cat" | "tt.join" => {
                let operands = self.some_values(2)?;
                self.skip_attrs()?;
                let first = [operands[0]];
                let ty = self.converted(&first)?;
                let same = self.ty_of(operands[0]);
                self.check(operands[1], &same)?;
                Parsed::new(if name == "tt.cat" { OpKind::Cat } else { OpKind::Join }, operands, vec![ty])
            }
            "tt.split" => {
                let operand = self.value()?;
                self.skip_attrs()?;
                let ty = self.converted(&[operand])?;
                Parsed::new(OpKind::Split, vec![operand], vec![ty.clone(), ty])
            }
            "tt.gather" => {
                let source = self.value()?;
                let indices = self.bracketed("[", "]")?;
                let attrs = self.gather_attrs()?;
                let operands: Vec<_> = core::iter::once(source).chain(indices).collect();
                let results = self.signature(&operands)?;
                Parsed::new(OpKind::Gather(axis(&attrs)), operands, results)
            }
            "tt.histogram" => {
                let operands = self.values()?;
                self.skip_attrs()?;
                let first = [operands[0]];
                let ty = self.converted(&first)?;
                Parsed::new(OpKind::Histogram { mask: operands.len() > 1 }, operands, vec![ty])
            }
            "tt.reduce" | "tt.scan" | "tt.map_elementwise" => self.with_region(name)?,
            "tt.dot" => self.dot()?,
            "tt.dot_scaled" => self.dot_scaled()?,
            _ => return Ok(None),
        }))
    }

    fn gather_attrs(&mut self) -> Result<Attrs> {
        let mut attrs = self.s.attrs()?;
        if self.s.eat_word("efficient_layout") {
            attrs.extend(self.s.attrs()?);
        }
        Ok(attrs)
    }

    /// `%x {…} : from -> to`.
    fn reshaping(&mut self, kind: impl FnOnce(&Attrs) -> OpKind) -> Result<Parsed> {
        let operand = self.value()?;
        let attrs = self.s.attrs()?;
        let ty = self.converted(&[operand])?;
        Ok(Parsed::new(kind(&attrs), vec![operand], vec![ty]))
    }

    /// `: type, … -> type` for the given values.
    pub(super) fn converted(&mut self, values: &[Value]) -> Result<Type> {
        self.colon_types(values)?;
        self.s.expect("->")?;
        self.s.ty()
    }

    /// `: (types) -> types` for the given operands.
    pub(super) fn signature(&mut self, operands: &[Value]) -> Result<Vec<Type>> {
        self.s.expect(":")?;
        let types = self.s.ty_list()?;
        self.check_all(operands, &types)?;
        self.s.expect("->")?;
        self.s.ty_list()
    }

    /// `"tt.reduce"(%a, %b) <{axis = 0 : i32}> ({ region }) : (types) -> types`.
    fn with_region(&mut self, name: &str) -> Result<Parsed> {
        let operands = self.bracketed("(", ")")?;
        let mut attrs = self.s.attrs()?;
        self.s.expect("(")?;
        self.s.expect("{")?;
        let body = self.labelled_region()?;
        self.s.expect(")")?;
        attrs.extend(self.s.attrs()?);
        let results = self.signature(&operands)?;
        let kind = match name {
            "tt.reduce" => OpKind::Reduce(axis(&attrs)),
            "tt.scan" => OpKind::Scan { axis: axis(&attrs), reverse: attrs.int("reverse") == Some(1) },
            _ => OpKind::MapElementwise(attrs.int("pack").and_then(|p| u32::try_from(p).ok()).unwrap_or(1)),
        };
        Ok(Parsed { kind, operands, results, regions: vec![body] })
    }

    fn dot(&mut self) -> Result<Parsed> {
        let operands = self.some_values(3)?;
        let mut precision = crate::tile::DotPrecision::Ieee;
        if self.s.eat(",") {
            self.s.expect("inputPrecision")?;
            self.s.expect("=")?;
            let word = self.s.word()?;
            precision = match find(PRECISION, word) {
                Some(p) => p,
                None => return Err(self.s.unsupported(format!("inputPrecision = {word}"))),
            };
        }
        self.skip_attrs()?;
        self.s.expect(":")?;
        let a = self.s.ty()?;
        self.s.expect("*")?;
        let b = self.s.ty()?;
        self.s.expect("->")?;
        let c = self.s.ty()?;
        self.check_all(&operands, &[a, b, c.clone()])?;
        Ok(Parsed::new(OpKind::Dot { precision }, operands, vec![c]))
    }

    fn dot_scaled(&mut self) -> Result<Parsed> {
        let mut operands = Vec::new();
        let mut scale_values = [None, None];
        for scale in &mut scale_values {
            operands.push(self.value()?);
            if self.s.eat_word("scale") {
                *scale = Some(self.value()?);
            }
            self.s.expect(",")?;
        }
        operands.push(self.value()?);
        let mut formats = [String::new(), String::new()];
        for (word, format) in ["lhs", "rhs"].into_iter().zip(&mut formats) {
            self.s.expect(word)?;
            self.s.expect("=")?;
            *format = self.s.word()?.to_owned();
        }
        let attrs = self.s.attrs()?;
        let pack_k = ["lhs_k_pack", "rhs_k_pack"].map(|n| attrs.int(n) != Some(0));
        self.s.expect(":")?;
        for i in 0..2 {
            let ty = self.s.ty()?;
            self.check(operands[i], &ty)?;
            if let Some(scale) = scale_values[i] {
                self.s.expect(",")?;
                let ty = self.s.ty()?;
                self.check(scale, &ty)?;
            }
            self.s.expect(if i == 0 { "*" } else { "->" })?;
        }
        let ty = self.s.ty()?;
        self.check(operands[2], &ty)?;
        operands.extend(scale_values.iter().flatten());
        let scales = scale_values.map(|s| s.is_some());
        Ok(Parsed::new(OpKind::DotScaled { formats, scales, pack_k }, operands, vec![ty]))
    }
}

/// The attribute `axis`; an axis beyond any rank when it is absent or none.
fn axis(attrs: &Attrs) -> u32 {
    attrs.int("axis").and_then(|a| u32::try_from(a).ok()).unwrap_or(u32::MAX)
}

/// Whether a type is a truth value or a tile of them.
pub(super) fn is_truth(ty: &Type) -> bool {
    ty.elem() == Some(Elem::I1)
}
