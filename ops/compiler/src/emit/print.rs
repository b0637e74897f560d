//! Statements of thread programs as text of C-like languages.

use core::fmt::Write;

use super::atomic::check_rmw;
use super::literal;
use super::source::{Atomic, Printer, Sum, from_bits, invalid, line, memory_type, to_bits};
use crate::Elem;
use crate::error::Result;
use crate::thread::{Effect, Inst, Place, Shared, Stmt, Ty, Val, Var};
use crate::tile::{Binary, Cast};

impl Printer<'_> {
    /// Name of the entry point.
    pub(super) fn entry(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
        format!("k_{}", self.kernel.name.chars().map(plain).collect::<String>())
    }

    /// Writes a line at the current depth.
    pub(super) fn line(&mut self, text: core::fmt::Arguments<'_>) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        self.out.write_fmt(text).expect("a String takes everything");
        self.out.push('\n');
    }

    /// Type of values.
    pub(super) fn value_type(&self, ty: Ty) -> Result<String> {
        Ok(match ty {
            Ty::Elem(Elem::I1) => "i1".to_owned(),
            Ty::Elem(elem) => memory_type(elem).to_owned(),
            Ty::Ptr(_) => self.dialect.pointer().to_owned(),
            Ty::Fragment(kind) => self.dialect.fragment(&self.kernel.fragments[kind as usize])?,
        })
    }

    /// Declares variable `index`.
    pub(super) fn declare(&mut self, index: usize) -> Result<()> {
        let info = self.kernel.vars[index];
        let ty = self.value_type(info.ty)?;
        match (info.len, info.ty) {
            (1, Ty::Fragment(_)) => line!(self, "    {ty} x{index};"),
            (1, _) => line!(self, "    {ty} x{index} = 0;"),
            (len, _) => line!(self, "    {ty} x{index}[{len}];"),
        }
        Ok(())
    }

    fn variable(&self, var: Var, index: u32) -> String {
        if self.kernel.vars[var.0 as usize].len == 1 { format!("x{}", var.0) } else { format!("x{}[{index}]", var.0) }
    }

    pub(super) fn statements(&mut self, list: &[Stmt]) -> Result<()> {
        list.iter().try_for_each(|s| self.statement(s))
    }

    fn nested(&mut self, list: &[Stmt]) -> Result<()> {
        self.depth += 1;
        let done = self.statements(list);
        self.depth -= 1;
        done
    }

    fn statement(&mut self, statement: &Stmt) -> Result<()> {
        match statement {
            Stmt::Let { results, inst } => self.instruction(results, inst)?,
            Stmt::Do(effect) => self.effect(effect)?,
            Stmt::If { condition, then, other, .. } => {
                line!(self, "if ({}) {{", self.u(*condition));
                self.nested(then)?;
                if !other.is_empty() {
                    line!(self, "}} else {{");
                    self.nested(other)?;
                }
                line!(self, "}}");
            }
            Stmt::For { index, low, high, step, unsigned, unroll, body, .. } => {
                self.counted(*index, [*low, *high, *step], *unsigned, *unroll)?;
                self.nested(body)?;
                line!(self, "}}");
            }
            Stmt::Loop { body, .. } => {
                line!(self, "for (;;) {{");
                self.nested(body)?;
                line!(self, "}}");
            }
            Stmt::BreakUnless(condition) => line!(self, "if (!({})) break;", self.u(*condition)),
        }
        Ok(())
    }

    /// The head of a counted loop. Where the index could overflow at the end, the loop counts its rounds.
    fn counted(&mut self, index: Val, [low, high, step]: [Val; 3], unsigned: bool, unroll: u32) -> Result<()> {
        let elem = self.elem(index)?;
        if !matches!(elem, Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64) {
            return Err(invalid(format!("a loop index of type {elem}; i32 and i64 are taken")));
        }
        let n = index.0;
        let (w, sign) = (if elem == Elem::I64 { 64 } else { 32 }, if unsigned { 'u' } else { 'i' });
        let read = |v: Val| if unsigned { Ok(self.u(v)) } else { self.s(v) };
        let (first, end, by) = (read(low)?, read(high)?, read(step)?);
        let constant = |v: Val| self.constants[v.0 as usize].map(|c| literal::value(elem, c));
        let small = |c: i64| (0..1 << 30).contains(&c);
        let safe = constant(step) == Some(1) || constant(step).is_some_and(small) && constant(high).is_some_and(small);
        if !safe {
            line!(self, "const u{w} t{n} = {first} < {end} ? ((u{w})({end}) - (u{w})({first}) - 1u) / (u{w})({by}) + 1u : 0u;");
        }
        if unroll > 0 && let Some(text) = self.dialect.unroll(unroll) {
            line!(self, "{text}");
        }
        if safe {
            line!(self, "for ({sign}{w} n{n} = {first}; n{n} < {end}; n{n} += {by}) {{");
            line!(self, "    const {} v{n} = ({})n{n};", memory_type(elem), memory_type(elem));
        } else {
            line!(self, "for (u{w} n{n} = 0u; n{n} < t{n}; ++n{n}) {{");
            line!(self, "    const {} v{n} = ({})((u{w})({first}) + n{n} * (u{w})({by}));", memory_type(elem), memory_type(elem));
        }
        Ok(())
    }

    fn instruction(&mut self, results: &[Val], inst: &Inst) -> Result<()> {
        if let Inst::Load { place, mask, other, volatile } = inst {
            return self.load(results, place, *mask, other.as_deref(), *volatile);
        }
        let &[result] = results else { return Err(invalid(format!("{inst:?} with {} results; it has one", results.len()))) };
        let ty = self.kernel.ty(result);
        match inst {
            Inst::Binary(Binary::AddI, a, b) => self.sums[result.0 as usize] = Some(Sum::Of(*a, *b)),
            Inst::Cast(Cast::ExtS, v) => self.sums[result.0 as usize] = Some(Sum::Extended(*v)),
            _ => {}
        }
        let text = match inst {
            Inst::Const(bits) => {
                if let Ty::Elem(elem) = ty {
                    self.constants[result.0 as usize] = Some(if elem.bits() == 64 { *bits } else { bits & ((1 << elem.bits()) - 1) });
                    return Ok(());
                }
                return Err(invalid(format!("a constant of type {ty:?}")));
            }
            Inst::FragmentZero | Inst::FragmentLoad { .. } | Inst::FragmentMulAdd(..) | Inst::FragmentGet(..) | Inst::FragmentOf(..) => {
                return self.dialect.matrix(self, result, inst);
            }
            Inst::Undef if matches!(ty, Ty::Fragment(_)) => return self.dialect.matrix(self, result, &Inst::FragmentZero),
            Inst::Atomic { mask, .. } | Inst::AtomicCas { mask, .. } => return self.atomic(result, inst, *mask),
            Inst::Undef => "0".to_owned(),
            Inst::BlockId(axis) => format!("(u32){}", self.dialect.block_id(*axis)),
            Inst::NumBlocks(axis) => format!("(u32){}", self.dialect.num_blocks(*axis)),
            Inst::ThreadId => format!("(u32){}", self.dialect.thread_id()),
            Inst::Unary(op, v) => self.unary(*op, *v)?,
            Inst::Binary(op, a, b) => self.binary(*op, *a, *b)?,
            Inst::Fma(a, b, c) => self.fma(*a, *b, *c)?,
            Inst::CmpI(op, a, b) => self.compare_int(*op, *a, *b)?,
            Inst::CmpF(op, a, b) => self.compare_float(*op, *a, *b)?,
            Inst::Select(c, a, b) => format!("{} ? {} : {}", self.u(*c), self.u(*a), self.u(*b)),
            Inst::Cast(op, v) => self.cast(*op, *v, ty)?,
            Inst::PtrAdd(pointer, offset) => {
                let Ty::Ptr(elem) = self.kernel.ty(*pointer) else { return Err(invalid(format!("%{} is no pointer to add to", pointer.0))) };
                self.moved(*pointer, *offset, elem.bytes())?
            }
            Inst::Get(var, index) => self.variable(*var, *index),
            Inst::GetAt(var, index) => format!("x{}[{}]", var.0, self.s(*index)?),
            Inst::Shuffle(how, v, lane) => {
                let lane = lane.map(|l| self.s(l)).transpose()?;
                self.dialect.shuffle(self, *how, &self.u(*v), lane.as_deref(), ty)?
            }
            Inst::Load { .. } => return Err(invalid("a load".to_owned())),
        };
        line!(self, "{} v{} = {text};", self.const_type(ty)?, result.0);
        Ok(())
    }

    /// A pointer moved by an offset, whose terms are added one by one: where the sum of an i32 offset would overflow the address lies outside of
    /// any buffer the sum could have meant, and otherwise it is the same.
    fn moved(&self, pointer: Val, offset: Val, bytes: u32) -> Result<String> {
        let mut terms = Vec::new();
        self.terms(offset, 0, &mut terms);
        terms.sort_unstable();
        let (mut text, mut constant) = (self.u(pointer), 0i64);
        for term in terms {
            match self.constants[term.0 as usize] {
                Some(bits) => constant = constant.wrapping_add(literal::value(self.elem(term)?, bits)),
                None if bytes == 1 => write!(text, " + (i64)({})", self.s(term)?).expect("a String takes everything"),
                None => write!(text, " + (i64)({}) * {bytes}", self.s(term)?).expect("a String takes everything"),
            }
        }
        if constant != 0 {
            write!(text, " + {}", literal::signed(64, constant.wrapping_mul(bytes.into()), self.dialect.long())).expect("a String takes everything");
        }
        Ok(text)
    }

    /// Appends the terms of an i32 or i64 offset.
    fn terms(&self, value: Val, depth: u32, out: &mut Vec<Val>) {
        let narrow = |v: Val| matches!(self.kernel.ty(v), Ty::Elem(Elem::I32 | Elem::I64));
        match self.sums[value.0 as usize] {
            Some(Sum::Of(a, b)) if narrow(value) && depth < 8 => {
                let is_constant = |v: Val| self.constants[v.0 as usize].is_some();
                if self.dialect.splits_addresses() || is_constant(a) || is_constant(b) {
                    self.terms(a, depth + 1, out);
                    self.terms(b, depth + 1, out);
                } else {
                    out.push(value);
                }
            }
            Some(Sum::Extended(v)) if matches!(self.kernel.ty(v), Ty::Elem(Elem::I32)) && matches!(self.sums[v.0 as usize], Some(Sum::Of(..))) => self.terms(v, depth, out),
            _ => out.push(value),
        }
    }

    /// Type of a constant value.
    fn const_type(&self, ty: Ty) -> Result<String> {
        let text = self.value_type(ty)?;
        Ok(if matches!(ty, Ty::Ptr(_)) { format!("{text}const") } else { format!("const {text}") })
    }

    /// Address of an element in global memory `by` elements on, or the element of shared memory.
    fn address(&self, place: &Place, by: usize, bytes: u32) -> Result<String> {
        Ok(match place {
            Place::Global { pointer, .. } if by == 0 => self.u(*pointer),
            Place::Global { pointer, .. } => format!("{} + {}", self.u(*pointer), by as u32 * bytes),
            Place::Shared { array, index } if by == 0 => format!("s{}[{}]", array.0, self.s(*index)?),
            Place::Shared { array, index } => format!("s{}[{} + {by}]", array.0, self.s(*index)?),
        })
    }

    fn place_elem(&self, place: &Place) -> Result<Elem> {
        match place {
            Place::Shared { array: Shared(n), .. } => Ok(self.kernel.shared[*n as usize].elem),
            Place::Global { pointer, .. } => match self.kernel.ty(*pointer) {
                Ty::Ptr(elem) => Ok(elem),
                ty => Err(invalid(format!("%{} of type {ty:?} is no address", pointer.0))),
            },
        }
    }

    /// How many elements one access takes.
    fn chunk(&self, place: &Place, elem: Elem, count: usize, volatile: bool) -> usize {
        let align = match place {
            Place::Global { align, .. } => *align,
            Place::Shared { .. } if self.dialect.reads_local_wide() => count as u32 * elem.bytes(),
            Place::Shared { .. } => return 1,
        };
        let widest = self.dialect.widest().min(align).min(count as u32 * elem.bytes());
        if volatile || !count.is_power_of_two() || widest == 0 { 1 } else { (widest.next_power_of_two() / elem.bytes()).max(1) as usize }
    }

    fn load(&mut self, results: &[Val], place: &Place, mask: Option<Val>, other: Option<&[Val]>, volatile: bool) -> Result<()> {
        let elem = self.place_elem(place)?;
        let truth = if elem == Elem::I1 { " != 0" } else { "" };
        let chunk = self.chunk(place, elem, results.len(), volatile);
        let ty = self.value_type(Ty::Elem(elem))?;
        let mut declare = format!("const {ty} ");
        if let Some(mask) = mask {
            for (i, r) in results.iter().enumerate() {
                let or = other.and_then(|o| o.get(i)).map_or_else(|| "0".to_owned(), |o| self.u(*o));
                line!(self, "{ty} v{} = {or};", r.0);
            }
            line!(self, "if ({}) {{", self.u(mask));
            self.depth += 1;
            declare = String::new();
        }
        for (i, part) in results.chunks(chunk).enumerate() {
            let address = self.address(place, i * chunk, elem.bytes())?;
            if part.len() > 1 {
                let address = if matches!(place, Place::Shared { .. }) { format!("(u8 *)&{address}") } else { address };
                let (read, elements) = self.dialect.read_wide(elem, part.len(), &address, &format!("w{}", part[0].0));
                line!(self, "{read}");
                for (r, element) in part.iter().zip(elements) {
                    line!(self, "{declare}v{} = {element}{truth};", r.0);
                }
            } else {
                let element = match place {
                    Place::Global { .. } => self.dialect.read(elem, &address, volatile),
                    Place::Shared { .. } if volatile => format!("*(volatile {}{} *)&{address}", self.dialect.local(), memory_type(elem)),
                    Place::Shared { .. } => address,
                };
                line!(self, "{declare}v{} = {element}{truth};", part[0].0);
            }
        }
        if mask.is_some() {
            self.depth -= 1;
            line!(self, "}}");
        }
        Ok(())
    }

    fn store(&mut self, place: &Place, values: &[Val], mask: Option<Val>) -> Result<()> {
        let elem = self.place_elem(place)?;
        let chunk = self.chunk(place, elem, values.len(), false);
        if let Some(mask) = mask {
            line!(self, "if ({}) {{", self.u(mask));
            self.depth += 1;
        }
        for (i, part) in values.chunks(chunk).enumerate() {
            let address = self.address(place, i * chunk, elem.bytes())?;
            let value = self.u(part[0]);
            match place {
                _ if part.len() > 1 => {
                    let address = if matches!(place, Place::Shared { .. }) { format!("(u8 *)&{address}") } else { address };
                    let texts: Vec<String> = part.iter().map(|v| self.u(*v)).collect();
                    line!(self, "{}", self.dialect.write_wide(elem, &address, &texts));
                }
                Place::Global { .. } => line!(self, "{}", self.dialect.write(elem, &address, &value)),
                Place::Shared { .. } => line!(self, "{address} = {value};"),
            }
        }
        if mask.is_some() {
            self.depth -= 1;
            line!(self, "}}");
        }
        Ok(())
    }

    fn atomic(&mut self, result: Val, inst: &Inst, mask: Option<Val>) -> Result<()> {
        let (Inst::Atomic { place, order, .. } | Inst::AtomicCas { place, order, .. }) = inst else { return Err(invalid(format!("{inst:?} is no atomic"))) };
        let elem = self.place_elem(place)?;
        let address = match place {
            Place::Global { .. } => self.address(place, 0, 0)?,
            Place::Shared { .. } => format!("&{}", self.address(place, 0, 0)?),
        };
        let at = Atomic { shared: matches!(place, Place::Shared { .. }), elem, address: &address, order: *order };
        let text = match inst {
            Inst::Atomic { rmw, value, .. } => {
                check_rmw(*rmw, elem)?;
                self.dialect.atomic(self, &at, *rmw, &to_bits(elem, &self.u(*value)))?
            }
            Inst::AtomicCas { expected, desired, .. } => self.dialect.atomic_cas(self, &at, &to_bits(elem, &self.u(*expected)), &to_bits(elem, &self.u(*desired)))?,
            _ => String::new(),
        };
        let text = from_bits(elem, text);
        line!(self, "{} v{} = 0;", self.value_type(Ty::Elem(elem))?, result.0);
        let (before, after) = self.dialect.fences(*order);
        match mask {
            Some(mask) => line!(self, "if ({}) {{", self.u(mask)),
            None => line!(self, "{{"),
        }
        for text in [before.map(str::to_owned), Some(format!("v{} = {text};", result.0)), after.map(str::to_owned)].into_iter().flatten() {
            line!(self, "    {text}");
        }
        line!(self, "}}");
        Ok(())
    }

    fn effect(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Set(var, index, value) => line!(self, "{} = {};", self.variable(*var, *index), self.u(*value)),
            Effect::SetAt(var, index, value) => line!(self, "x{}[{}] = {};", var.0, self.s(*index)?, self.u(*value)),
            Effect::Store { place, values, mask } => self.store(place, values, *mask)?,
            Effect::Barrier { global } => {
                if let Some(text) = self.dialect.barrier(*global) {
                    line!(self, "{text}");
                }
            }
            Effect::SubgroupBarrier => {
                if let Some(text) = self.dialect.subgroup_barrier(self) {
                    line!(self, "{text}");
                }
            }
            Effect::FragmentStore { .. } => self.dialect.matrix_store(self, effect)?,
            Effect::Copy { .. } | Effect::CopyGroup | Effect::CopyWait(_) => self.dialect.copy(self, effect)?,
            // No format reports.
            Effect::Assert(..) => {}
        }
        Ok(())
    }
}

