//! What holds of every thread program the emitters see: definitions before uses, types, barriers only where every thread gets.

use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Kernel, Place, Role, Shared, Stmt, Ty, Val, Var, print};
use crate::tile::{Binary, Cast, Unary};
use crate::{CompileError, Elem};

/// Checks a kernel. Errors name the statement at fault; they are faults of whoever made the kernel, not of a user's program.
pub fn verify(kernel: &Kernel) -> Result<()> {
    let mut check = Check { kernel, visible: vec![false; kernel.types.len()], defined: vec![false; kernel.types.len()] };
    if kernel.threads == 0 {
        return Err(fault("kernel", "a block of 0 threads".into()));
    }
    for p in &kernel.params {
        check.define(p.value).map_err(|m| fault("parameters", m))?;
        if kernel.ty(p.value) != p.ty {
            return Err(fault("parameters", format!("{} is {}, the parameter {}", p.value, kernel.ty(p.value), p.ty)));
        }
    }
    for v in &kernel.vars {
        check.known(v.ty).map_err(|m| fault("variables", m))?;
    }
    check.list(&kernel.body, true, false)
}

fn fault(what: &str, message: String) -> CompileError {
    CompileError::invalid("", Default::default(), format!("thread program, '{what}': {message}"))
}

type Found<T> = core::result::Result<T, String>;

struct Check<'a> {
    kernel: &'a Kernel,
    visible: Vec<bool>,
    defined: Vec<bool>,
}

const I1: Ty = Ty::Elem(Elem::I1);
const I32: Ty = Ty::Elem(Elem::I32);

impl Check<'_> {
    fn define(&mut self, value: Val) -> Found<()> {
        let i = value.0 as usize;
        match self.defined.get(i) {
            None => Err(format!("{value} has no type")),
            Some(true) => Err(format!("{value} is defined twice")),
            Some(false) => {
                self.known(self.kernel.types[i])?;
                self.defined[i] = true;
                self.visible[i] = true;
                Ok(())
            }
        }
    }

    fn known(&self, ty: Ty) -> Found<()> {
        match ty {
            Ty::Fragment(i) if i as usize >= self.kernel.fragments.len() => Err(format!("there is no fragment kind {i}")),
            _ => Ok(()),
        }
    }

    fn ty(&self, value: Val) -> Found<Ty> {
        if self.visible.get(value.0 as usize) != Some(&true) {
            return Err(format!("{value} is not visible here"));
        }
        Ok(self.kernel.ty(value))
    }

    fn elem(&self, value: Val) -> Found<Elem> {
        match self.ty(value)? {
            Ty::Elem(e) => Ok(e),
            other => Err(format!("{value} is {other}, a number is needed")),
        }
    }

    fn is(&self, value: Val, want: Ty) -> Found<()> {
        let ty = self.ty(value)?;
        if ty == want { Ok(()) } else { Err(format!("{value} is {ty}, {want} is needed")) }
    }

    fn int(&self, value: Val) -> Found<Elem> {
        let e = self.elem(value)?;
        if e.is_int() { Ok(e) } else { Err(format!("{value} is {e}, an integer is needed")) }
    }

    /// f32 or f64: what arithmetic is done in.
    fn float(&self, value: Val) -> Found<Elem> {
        let e = self.elem(value)?;
        if matches!(e, Elem::F32 | Elem::F64) { Ok(e) } else { Err(format!("{value} is {e}, f32 or f64 is needed")) }
    }

    fn mask(&self, mask: &Option<Val>) -> Found<()> {
        mask.map_or(Ok(()), |m| self.is(m, I1))
    }

    /// The element type at a place.
    fn place(&self, place: &Place) -> Found<Elem> {
        match place {
            Place::Global { pointer, align } => {
                let Ty::Ptr(e) = self.ty(*pointer)? else { return Err(format!("{pointer} is no pointer")) };
                if !align.is_power_of_two() || *align < e.bytes() {
                    return Err(format!("an alignment of {align} bytes for {e}"));
                }
                Ok(e)
            }
            Place::Shared { array, index } => {
                self.is(*index, I32)?;
                self.array(*array)
            }
        }
    }

    fn array(&self, array: Shared) -> Found<Elem> {
        self.kernel.shared.get(array.0 as usize).map(|s| s.elem).ok_or_else(|| format!("there is no shared array {array}"))
    }

    fn var(&self, var: Var, index: u32) -> Found<Ty> {
        let info = self.kernel.vars.get(var.0 as usize).ok_or_else(|| format!("there is no variable {var}"))?;
        if index >= info.len {
            return Err(format!("element {index} of {var}, which has {}", info.len));
        }
        Ok(info.ty)
    }

    fn fragment(&self, value: Val, role: Role) -> Found<crate::MatrixShape> {
        match self.ty(value)? {
            Ty::Fragment(i) if self.kernel.fragments[i as usize].role == role => Ok(self.kernel.fragments[i as usize].shape),
            other => Err(format!("{value} is {other}, a fragment in the role {role:?} is needed")),
        }
    }

    fn count(n: usize) -> Found<()> {
        if matches!(n, 1 | 2 | 4 | 8 | 16) { Ok(()) } else { Err(format!("{n} consecutive elements; 1, 2, 4, 8 and 16 can be accessed")) }
    }

    fn same(a: Ty, b: Ty) -> Found<()> {
        if a == b { Ok(()) } else { Err(format!("{a} and {b} should be one type")) }
    }

    fn list(&mut self, body: &[Stmt], uniform: bool, in_loop: bool) -> Result<()> {
        let outer = self.visible.clone();
        for stmt in body {
            self.statement(stmt, uniform, in_loop)?;
        }
        self.visible = outer;
        Ok(())
    }

    fn statement(&mut self, stmt: &Stmt, uniform: bool, in_loop: bool) -> Result<()> {
        match stmt {
            Stmt::Let { results, inst } => {
                let ty = results.first().and_then(|r| self.kernel.types.get(r.0 as usize)).copied().unwrap_or(I1);
                let name = || results.iter().map(Val::to_string).collect::<Vec<_>>().join(", ") + " = " + &print::inst(inst, ty);
                self.inst(results, inst, uniform).map_err(|m| fault(&name(), m))?;
                results.iter().try_for_each(|r| self.define(*r)).map_err(|m| fault(&name(), m))
            }
            Stmt::Do(effect) => self.effect(effect, uniform).map_err(|m| fault(&effect.to_string(), m)),
            Stmt::If { condition, uniform: same, then, other } => {
                self.is(*condition, I1).map_err(|m| fault("if", m))?;
                self.list(then, uniform && *same, false)?;
                self.list(other, uniform && *same, false)
            }
            Stmt::For { index, low, high, step, uniform: same, body, .. } => {
                let bounds = |check: &Self| {
                    let ty = check.kernel.types.get(index.0 as usize).copied().ok_or("the index has no type")?;
                    [low, high, step].into_iter().try_for_each(|v| check.int(*v).and_then(|e| Self::same(Ty::Elem(e), ty)))
                };
                bounds(self).map_err(|m| fault(&format!("for {index}"), m))?;
                let outer = self.visible.clone();
                self.define(*index).map_err(|m| fault(&format!("for {index}"), m))?;
                self.list(body, uniform && *same, false)?;
                self.visible = outer;
                Ok(())
            }
            Stmt::Loop { uniform: same, body } => {
                if !body.iter().any(|s| matches!(s, Stmt::BreakUnless(_))) {
                    return Err(fault("loop", "it never ends: there is no 'break unless' directly in it".into()));
                }
                self.list(body, uniform && *same, true)
            }
            Stmt::BreakUnless(c) => {
                if !in_loop {
                    return Err(fault("break unless", "it does not stand directly in a loop".into()));
                }
                self.is(*c, I1).map_err(|m| fault("break unless", m))
            }
        }
    }

    fn inst(&self, results: &[Val], inst: &Inst, uniform: bool) -> Found<()> {
        let types: Vec<Ty> = results.iter().filter_map(|r| self.kernel.types.get(r.0 as usize).copied()).collect();
        let Some(ty) = types.first().copied() else { return Err("it has no result".into()) };
        if let Inst::Load { place, mask, other, .. } = inst {
            let e = self.place(place)?;
            Self::count(results.len())?;
            types.iter().try_for_each(|t| Self::same(*t, Ty::Elem(e)))?;
            self.mask(mask)?;
            if other.as_ref().is_some_and(|o| o.len() != results.len()) {
                return Err("it has not one 'else' value per result".into());
            }
            return other.iter().flatten().try_for_each(|v| self.is(*v, ty));
        }
        if results.len() != 1 {
            return Err(format!("it has {} results", results.len()));
        }
        let together = || if uniform { Ok(()) } else { Err("it stands where not every thread gets".to_string()) };
        match inst {
            Inst::Const(_) if !matches!(ty, Ty::Elem(_)) => Err(format!("a constant of type {ty}")),
            Inst::Const(_) | Inst::Undef | Inst::Load { .. } => Ok(()),
            Inst::BlockId(axis) | Inst::NumBlocks(axis) if *axis > 2 => Err(format!("axis {axis}; there are 0, 1 and 2")),
            Inst::BlockId(_) | Inst::NumBlocks(_) | Inst::ThreadId => Self::same(ty, I32),
            Inst::Unary(op, a) => self.unary(*op, *a, ty),
            Inst::Binary(op, a, b) => {
                let e = if float_binary(*op) { self.float(*a)? } else { self.int(*a)? };
                Self::same(self.ty(*b)?, Ty::Elem(e))?;
                Self::same(ty, Ty::Elem(e))
            }
            Inst::Fma(a, b, c) => {
                let e = Ty::Elem(self.float(*a)?);
                [self.ty(*b)?, self.ty(*c)?, ty].into_iter().try_for_each(|t| Self::same(t, e))
            }
            Inst::CmpI(_, a, b) => {
                let left = self.ty(*a)?;
                if !matches!(left, Ty::Ptr(_)) {
                    self.int(*a)?;
                }
                Self::same(left, self.ty(*b)?)?;
                Self::same(ty, I1)
            }
            Inst::CmpF(_, a, b) => {
                Self::same(Ty::Elem(self.float(*a)?), self.ty(*b)?)?;
                Self::same(ty, I1)
            }
            Inst::Select(c, a, b) => {
                self.is(*c, I1)?;
                Self::same(self.ty(*a)?, ty)?;
                Self::same(self.ty(*b)?, ty)
            }
            Inst::Cast(op, a) => cast(*op, self.ty(*a)?, ty),
            Inst::PtrAdd(p, i) => {
                if !matches!(self.int(*i)?, Elem::I32 | Elem::I64) || !matches!(ty, Ty::Ptr(_)) {
                    return Err("an offset is i32 or i64, the result a pointer".into());
                }
                Self::same(self.ty(*p)?, ty)
            }
            Inst::Get(v, i) => Self::same(self.var(*v, *i)?, ty),
            Inst::GetAt(v, i) => {
                self.is(*i, I32)?;
                Self::same(self.var(*v, 0)?, ty)
            }
            Inst::Shuffle(how, a, lane) => {
                together()?;
                if self.kernel.subgroup == 0 {
                    return Err("the kernel has no subgroups".into());
                }
                match (how, lane) {
                    (crate::thread::Shuffle::Lane, Some(l)) => self.is(*l, I32)?,
                    (crate::thread::Shuffle::Lane, None) => return Err("it names no lane".into()),
                    _ => {}
                }
                Self::same(Ty::Elem(self.elem(*a)?), ty)
            }
            Inst::Atomic { place, value, mask, .. } => {
                self.mask(mask)?;
                let e = Ty::Elem(self.place(place)?);
                self.is(*value, e)?;
                Self::same(ty, e)
            }
            Inst::AtomicCas { place, expected, desired, mask, .. } => {
                self.mask(mask)?;
                let e = Ty::Elem(self.place(place)?);
                self.is(*expected, e)?;
                self.is(*desired, e)?;
                Self::same(ty, e)
            }
            Inst::FragmentZero => together(),
            Inst::FragmentLoad { array, index, .. } => {
                together()?;
                self.is(*index, I32)?;
                let Ty::Fragment(kind) = ty else { return Err(format!("a fragment of type {ty}")) };
                let info = self.kernel.fragments.get(kind as usize).ok_or("an unknown kind of fragment")?;
                let want = if info.role == Role::Sum { info.shape.sum } else { info.shape.factor };
                Self::same(Ty::Elem(self.array(*array)?), Ty::Elem(want))
            }
            Inst::FragmentMulAdd(a, b, c) => {
                together()?;
                let shape = self.fragment(*c, Role::Sum)?;
                if self.fragment(*a, Role::A)? != shape || self.fragment(*b, Role::B)? != shape {
                    return Err("fragments of different shapes".into());
                }
                Self::same(self.ty(*c)?, ty)
            }
            Inst::FragmentGet(f, i) => {
                together()?;
                let shape = self.fragment(*f, Role::Sum)?;
                let held = FragmentInfo { shape, role: Role::Sum }.elements_per_lane();
                if *i >= held {
                    return Err(format!("element {i} of a fragment of which a lane holds {held}"));
                }
                Self::same(Ty::Elem(shape.sum), ty)
            }
            Inst::FragmentOf(values) => {
                together()?;
                let Ty::Fragment(kind) = ty else { return Err(format!("a fragment of type {ty}")) };
                let info = self.kernel.fragments.get(kind as usize).ok_or("an unknown kind of fragment")?;
                if values.is_empty() || values.len() != info.elements_per_lane() as usize {
                    return Err(format!("{} elements for a fragment of which a lane holds {}", values.len(), info.elements_per_lane()));
                }
                let want = Ty::Elem(if info.role == Role::Sum { info.shape.sum } else { info.shape.factor });
                values.iter().try_for_each(|v| self.is(*v, want))
            }
        }
    }

    fn unary(&self, op: Unary, a: Val, ty: Ty) -> Found<()> {
        match op {
            Unary::IsNan | Unary::IsInf | Unary::IsFinite => self.float(a).and_then(|_| Self::same(ty, I1)),
            Unary::AbsI | Unary::Ctlz | Unary::Cttz | Unary::Ctpop => self.int(a).and_then(|e| Self::same(ty, Ty::Elem(e))),
            _ => self.float(a).and_then(|e| Self::same(ty, Ty::Elem(e))),
        }
    }

    fn effect(&self, effect: &Effect, uniform: bool) -> Found<()> {
        let together = || if uniform { Ok(()) } else { Err("it stands where not every thread gets".to_string()) };
        match effect {
            Effect::Set(v, i, x) => self.is(*x, self.var(*v, *i)?),
            Effect::SetAt(v, i, x) => {
                self.is(*i, I32)?;
                self.is(*x, self.var(*v, 0)?)
            }
            Effect::Store { place, values, mask } => {
                self.mask(mask)?;
                Self::count(values.len())?;
                let e = Ty::Elem(self.place(place)?);
                values.iter().try_for_each(|v| self.is(*v, e))
            }
            Effect::Barrier { .. } | Effect::SubgroupBarrier => together(),
            Effect::FragmentStore { fragment, array, index, .. } => {
                together()?;
                self.is(*index, I32)?;
                let shape = self.fragment(*fragment, Role::Sum)?;
                Self::same(Ty::Elem(self.array(*array)?), Ty::Elem(shape.sum))
            }
            Effect::Copy { array, index, pointer, count, mask } => {
                self.mask(mask)?;
                self.is(*index, I32)?;
                let e = self.array(*array)?;
                if !matches!(e.bytes() * count, 4 | 8 | 16) {
                    return Err(format!("{count} elements of {e} are copied; 4, 8 or 16 bytes are"));
                }
                self.is(*pointer, Ty::Ptr(e))
            }
            Effect::CopyGroup | Effect::CopyWait(_) => together(),
            Effect::Assert(c, _) => self.is(*c, I1),
        }
    }
}

/// Whether a function of two operands works on floats.
fn float_binary(op: Binary) -> bool {
    use Binary::{AddF, Atan2, CopySign, DivF, MaxNumF, MaximumF, MinNumF, MinimumF, MulF, Pow, RemF, SubF};
    matches!(op, AddF | SubF | MulF | DivF | RemF | MaximumF | MinimumF | MaxNumF | MinNumF | Pow | Atan2 | CopySign)
}

fn cast(op: Cast, from: Ty, to: Ty) -> Found<()> {
    let wrong = || Err(format!("from {from} to {to}"));
    let (a, b) = match (from, to) {
        (Ty::Ptr(_), Ty::Elem(Elem::I64)) if op == Cast::PtrToInt => return Ok(()),
        (Ty::Elem(Elem::I64), Ty::Ptr(_)) if op == Cast::IntToPtr => return Ok(()),
        (Ty::Ptr(_), Ty::Ptr(_)) if op == Cast::Bitcast => return Ok(()),
        (Ty::Elem(a), Ty::Elem(b)) => (a, b),
        _ => return wrong(),
    };
    let fits = match op {
        Cast::TruncI => a.is_int() && b.is_int() && a.bits() > b.bits(),
        Cast::ExtS | Cast::ExtU => a.is_int() && b.is_int() && a.bits() < b.bits(),
        Cast::TruncF => a.is_float() && b.is_float() && a.bits() > b.bits(),
        Cast::ExtF => a.is_float() && b.is_float() && a.bits() < b.bits(),
        Cast::FpToFp | Cast::FpToFpRtz => a.is_float() && b.is_float(),
        Cast::SiToFp | Cast::UiToFp => a.is_int() && b.is_float(),
        Cast::FpToSi | Cast::FpToUi => a.is_float() && b.is_int(),
        Cast::Bitcast => a.bits() == b.bits(),
        Cast::PtrToInt | Cast::IntToPtr => false,
    };
    if fits { Ok(()) } else { wrong() }
}
