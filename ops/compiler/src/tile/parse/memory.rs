//! Operations on memory: pointers, loads, stores, descriptors, atomics.

use crate::error::Result;
use crate::tile::names::{ORDER, PADDING, RMW, find};
use crate::tile::{OpKind, Order, Padding, Rmw, Type, Value};

use super::compute::is_truth;
use super::{Parsed, Parser};

impl Parser<'_> {
    pub(super) fn memory(&mut self, name: &str) -> Result<Option<Parsed>> {
        Ok(Some(match name {
            "tt.addptr" => {
                let operands = self.some_values(2)?;
                self.skip_attrs()?;
                self.colon_types(&operands)?;
                let ty = self.ty_of(operands[0]);
                Parsed::new(OpKind::AddPtr, operands, vec![ty])
            }
            "tt.load" => self.load()?,
            "tt.store" => self.store()?,
            "tt.make_tensor_ptr" => {
                let operands = self.base_and_lists(3)?;
                let attrs = self.s.attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ptr_ty()?;
                Parsed::new(OpKind::MakeTensorPtr(attrs.axes("order")), operands, vec![ty])
            }
            "tt.advance" => {
                let mut operands = vec![self.value()?];
                self.s.expect(",")?;
                operands.extend(self.bracketed("[", "]")?);
                self.skip_attrs()?;
                self.s.expect(":")?;
                let ty = self.s.ptr_ty()?;
                self.check(operands[0], &ty)?;
                Parsed::new(OpKind::Advance, operands, vec![ty])
            }
            "tt.make_tensor_descriptor" => {
                let operands = self.base_and_lists(2)?;
                let attrs = self.s.attrs()?;
                self.s.expect(":")?;
                let base = self.s.ptr_ty()?;
                self.check(operands[0], &base)?;
                self.s.expect(",")?;
                let ty = self.s.desc_ty()?;
                let padding = attrs.int("padding").and_then(padding).unwrap_or(Padding::Zero);
                Parsed::new(OpKind::MakeDescriptor(padding), operands, vec![ty])
            }
            "tt.descriptor_load" => {
                let operands = self.descriptor_and_indices()?;
                self.hints()?;
                self.skip_attrs()?;
                let first = [operands[0]];
                let ty = self.converted(&first)?;
                Parsed::new(OpKind::DescriptorLoad, operands, vec![ty])
            }
            "tt.descriptor_store" => self.descriptor_store(OpKind::DescriptorStore)?,
            "tt.descriptor_reduce" => {
                let rmw = self.rmw()?;
                self.s.expect(",")?;
                let mut parsed = self.descriptor_store(OpKind::DescriptorReduce(rmw))?;
                // Elsewhere the operation says whether it is of unsigned numbers, here the descriptor's type.
                parsed.kind = OpKind::DescriptorReduce(match rmw {
                    Rmw::Max if self.s.unsigned => Rmw::UMax,
                    Rmw::Min if self.s.unsigned => Rmw::UMin,
                    other => other,
                });
                parsed
            }
            "tt.descriptor_gather" => {
                let operands = self.descriptor_and_indices()?;
                self.skip_attrs()?;
                let results = self.signature(&operands)?;
                Parsed::new(OpKind::DescriptorGather, operands, results)
            }
            "tt.descriptor_scatter" => {
                let mut operands = self.descriptor_and_indices()?;
                self.s.expect(",")?;
                operands.push(self.value()?);
                self.skip_attrs()?;
                self.colon_types(&operands)?;
                Parsed::new(OpKind::DescriptorScatter, operands, vec![])
            }
            "tt.atomic_rmw" => {
                let rmw = self.rmw()?;
                self.s.expect(",")?;
                let (order, operands, ty) = self.atomic()?;
                Parsed::new(OpKind::AtomicRmw { rmw, order, mask: operands.len() > 2 }, operands, vec![ty])
            }
            "tt.atomic_cas" => {
                let (order, operands, ty) = self.atomic()?;
                Parsed::new(OpKind::AtomicCas(order), operands, vec![ty])
            }
            _ => return Ok(None),
        }))
    }

    /// `cacheModifier = cg evictionPolicy = evict_last`, as hints (".cg", "evict_last").
    fn hints(&mut self) -> Result<Vec<String>> {
        let mut hints = Vec::new();
        loop {
            let cache = self.s.eat_word("cacheModifier");
            if !cache && !self.s.eat_word("evictionPolicy") {
                return Ok(hints);
            }
            self.s.expect("=")?;
            let word = self.s.word()?;
            hints.push(if cache { format!(".{word}") } else { word.to_owned() });
        }
    }

    fn load(&mut self) -> Result<Parsed> {
        let operands = self.values()?;
        let hints = self.hints()?;
        let attrs = self.s.attrs()?;
        self.s.expect(":")?;
        let pointer = self.s.ty()?;
        self.check(operands[0], &pointer)?;
        let Some(result) = pointee(&pointer) else {
            return Err(self.s.error("it loads from a pointer, a tile of pointers or a block pointer"));
        };
        let (mask, other) = (operands.len() > 1, operands.len() > 2);
        if mask && !is_truth(self.function.ty(operands[1])) {
            return Err(self.s.error("its mask must be of i1"));
        }
        let kind = OpKind::Load {
            mask,
            other,
            boundary: attrs.axes("boundaryCheck"),
            padding: attrs.int("padding").and_then(padding).unwrap_or(Padding::None),
            volatile: attrs.int("isVolatile") == Some(1),
            hints,
        };
        Ok(Parsed::new(kind, operands, vec![result]))
    }

    fn store(&mut self) -> Result<Parsed> {
        let operands = self.values()?;
        self.hints()?;
        let attrs = self.s.attrs()?;
        self.s.expect(":")?;
        let pointer = self.s.ty()?;
        self.check(operands[0], &pointer)?;
        let mask = operands.len() > 2;
        Ok(Parsed::new(OpKind::Store { mask, boundary: attrs.axes("boundaryCheck") }, operands, vec![]))
    }

    /// `%base, [%a, %b], [%c, %d], …` with `count` lists.
    fn base_and_lists(&mut self, count: usize) -> Result<Vec<Value>> {
        let mut operands = vec![self.value()?];
        for _ in 0..count {
            self.s.expect(",")?;
            operands.extend(self.bracketed("[", "]")?);
        }
        Ok(operands)
    }

    fn descriptor_and_indices(&mut self) -> Result<Vec<Value>> {
        let mut operands = vec![self.value()?];
        operands.extend(self.bracketed("[", "]")?);
        Ok(operands)
    }

    fn descriptor_store(&mut self, kind: OpKind) -> Result<Parsed> {
        let mut operands = self.descriptor_and_indices()?;
        self.s.expect(",")?;
        operands.insert(1, self.value()?);
        self.skip_attrs()?;
        self.s.unsigned = false;
        let typed = [operands[0], operands[1]];
        self.colon_types(&typed)?;
        Ok(Parsed::new(kind, operands, vec![]))
    }

    fn rmw(&mut self) -> Result<Rmw> {
        let word = self.s.word()?;
        match find(RMW, word) {
            Some(rmw) => Ok(rmw),
            None => Err(self.s.error(format!("'{word}' is no atomic operation"))),
        }
    }

    /// `acq_rel, gpu, operands : (types) -> type`; the scope says nothing here: a launch runs on one device.
    fn atomic(&mut self) -> Result<(Order, Vec<Value>, Type)> {
        let word = self.s.word()?;
        let Some(order) = find(ORDER, word) else {
            return Err(self.s.error(format!("'{word}' is no memory order")));
        };
        self.s.expect(",")?;
        self.s.word()?;
        self.s.expect(",")?;
        let operands = self.values()?;
        self.skip_attrs()?;
        let mut results = self.signature(&operands)?;
        match results.pop() {
            Some(ty) if results.is_empty() => Ok((order, operands, ty)),
            _ => Err(self.s.error("an atomic has one result")),
        }
    }
}

/// What a load through a pointer gives.
fn pointee(ty: &Type) -> Option<Type> {
    use crate::tile::Item;
    match ty {
        Type::Scalar(Item::Ptr(elem)) => Some(Type::scalar(*elem)),
        Type::Tile(shape, Item::Ptr(elem)) | Type::BlockPtr(shape, elem) => Some(Type::tile(shape, *elem)),
        _ => None,
    }
}

fn padding(number: i64) -> Option<Padding> {
    PADDING.iter().find(|(n, _)| *n == number).map(|(_, p)| *p)
}
