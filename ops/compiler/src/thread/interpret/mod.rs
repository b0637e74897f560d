//! Runs thread programs directly, all threads of a block in step: the judge of the emitters.
//!
//! What a real device would leave undefined is made visible: undefined values and fresh shared memory have every bit set (NaN, an index out of
//! bounds), and it is an error naming the instruction when memory is touched out of bounds or below the alignment claimed, when two threads
//! touch one element of shared memory without a barrier between, when a barrier or shuffle is not reached by every thread, when control flow
//! called uniform is not, and when an assertion fails.

mod fragment;
mod memory;
pub mod scalar;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::run::Arg;
use crate::thread::{Effect, Inst, Kernel, Place, Shared, Shuffle, Stmt, Ty, Val, print};
use crate::{CompileError, Elem};
use memory::{SharedMemory, Touch, Who};

/// Runs a kernel on a grid of blocks, one after another; buffers hold the results.
///
/// Errors: the number or kind of arguments does not fit the parameters, or the kernel does something undefined (see the module).
pub fn run(kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<()> {
    if args.len() != kernel.params.len() {
        let message = format!("kernel '{}' has {} parameters, {} arguments were given", kernel.name, kernel.params.len(), args.len());
        return Err(CompileError::invalid("", Default::default(), message));
    }
    let threads = kernel.threads as usize;
    let mut values = vec![0; kernel.types.len() * threads];
    for (i, (param, arg)) in kernel.params.iter().zip(args.iter()).enumerate() {
        let bits = match (param.ty, arg) {
            (Ty::Ptr(_), Arg::Buffer(_)) => memory::address(i),
            (Ty::Ptr(_), Arg::Null) => 0,
            (Ty::Elem(e), Arg::Scalar(bits)) => bits & scalar::mask(e),
            (ty, _) => return Err(CompileError::invalid("", Default::default(), format!("argument {i} of kernel '{}' does not fit {ty}", kernel.name))),
        };
        let first = param.value.0 as usize * threads;
        values[first..first + threads].fill(bits);
    }
    let full = vec![true; threads];
    for block in (0..grid[2]).flat_map(|z| (0..grid[1]).flat_map(move |y| (0..grid[0]).map(move |x| [x, y, z]))) {
        let mut machine = Machine {
            kernel,
            args,
            grid,
            block,
            threads,
            values: &mut values,
            vars: kernel.vars.iter().map(|v| vec![poison(v.ty); v.len as usize * threads]).collect(),
            shared: SharedMemory::new(kernel),
            fragments: Vec::new(),
            subgroup_steps: vec![0; threads],
            copies: vec![vec![Vec::new()]; threads],
        };
        machine.list(&kernel.body, &full)?;
    }
    Ok(())
}

/// Which threads take part.
type Active = [bool];

/// A block at work.
struct Machine<'a> {
    kernel: &'a Kernel,
    args: &'a mut [Arg],
    grid: [u32; 3],
    block: [u32; 3],
    threads: usize,
    /// Values by SSA value, then thread. Fragments are indices into `fragments`.
    values: &'a mut [u64],
    /// Variables by element, then thread.
    vars: Vec<Vec<u64>>,
    shared: SharedMemory,
    /// Elements of the fragments made so far in the block, row-major.
    fragments: Vec<Vec<u64>>,
    /// Subgroup barriers passed, by thread.
    subgroup_steps: Vec<u32>,
    /// Copies on their way, by thread and group, the last group open.
    copies: Vec<Vec<Vec<Arrival>>>,
}

/// An element that a copy brings: shared array, index, bits.
type Arrival = (u32, i64, u64);

/// The element a type is held as; pointers are 64-bit addresses.
fn elem(ty: Ty) -> Elem {
    match ty {
        Ty::Elem(e) => e,
        Ty::Ptr(_) | Ty::Fragment(_) => Elem::I64,
    }
}

fn poison(ty: Ty) -> u64 {
    scalar::poison(elem(ty))
}


impl Machine<'_> {
    fn get(&self, value: Val, thread: usize) -> u64 {
        self.values[value.0 as usize * self.threads + thread]
    }

    fn put(&mut self, value: Val, thread: usize, bits: u64) {
        self.values[value.0 as usize * self.threads + thread] = bits;
    }

    fn holds(&self, mask: Option<Val>, thread: usize) -> bool {
        mask.is_none_or(|m| self.get(m, thread) & 1 == 1)
    }

    fn fault(&self, what: &str, thread: usize, message: String) -> CompileError {
        let [x, y, z] = self.block;
        CompileError::invalid("", Default::default(), format!("'{what}' by thread {thread} of block ({x}, {y}, {z}): {message}"))
    }

    fn who(&self, thread: usize) -> Who {
        let subgroup = thread as u32 / self.kernel.subgroup.max(1);
        Who { thread: thread as u32, subgroup, step: self.subgroup_steps[thread], whole: false }
    }

    /// Runs statements for the active threads.
    fn list(&mut self, body: &[Stmt], active: &Active) -> Result<()> {
        for stmt in body {
            self.statement(stmt, active)?;
        }
        Ok(())
    }

    fn statement(&mut self, stmt: &Stmt, active: &Active) -> Result<()> {
        match stmt {
            Stmt::Let { results, inst } => self.instruction(results, inst, active),
            Stmt::Do(effect) => self.effect(effect, active),
            Stmt::If { condition, uniform, then, other } => {
                let yes: Vec<bool> = (0..self.threads).map(|t| active[t] && self.holds(Some(*condition), t)).collect();
                let no: Vec<bool> = (0..self.threads).map(|t| active[t] && !yes[t]).collect();
                if *uniform && yes.contains(&true) && no.contains(&true) {
                    let thread = no.iter().position(|n| *n).unwrap_or(0);
                    return Err(self.fault(&format!("if {condition}"), thread, "the branch is called uniform, but threads differ".into()));
                }
                for (side, body) in [(yes, then), (no, other)] {
                    if side.contains(&true) {
                        self.list(body, &side)?;
                    }
                }
                Ok(())
            }
            Stmt::For { .. } => self.counted(stmt, active),
            Stmt::Loop { uniform, body } => {
                let mut going = active.to_vec();
                while going.contains(&true) {
                    for stmt in body {
                        if let Stmt::BreakUnless(c) = stmt {
                            let left: Vec<bool> = (0..self.threads).map(|t| going[t] && self.holds(Some(*c), t)).collect();
                            if *uniform && left.contains(&true) && left != going {
                                let thread = (0..self.threads).find(|t| going[*t] && !left[*t]).unwrap_or(0);
                                return Err(self.fault(&format!("break unless {c}"), thread, "the loop is called uniform, but threads differ".into()));
                            }
                            going = left;
                            if !going.contains(&true) {
                                break;
                            }
                        } else {
                            self.statement(stmt, &going)?;
                        }
                    }
                }
                Ok(())
            }
            Stmt::BreakUnless(c) => Err(self.fault(&format!("break unless {c}"), 0, "it stands in no loop".into())),
        }
    }

    fn counted(&mut self, stmt: &Stmt, active: &Active) -> Result<()> {
        let Stmt::For { index, low, high, step, unsigned, uniform, body, .. } = stmt else { return Ok(()) };
        let ty = elem(self.kernel.ty(*index));
        let number = |bits: u64| if *unsigned { i128::from(bits) } else { i128::from(scalar::signed(ty, bits)) };
        let mut at: Vec<i128> = (0..self.threads).map(|t| number(self.get(*low, t))).collect();
        let high: Vec<i128> = (0..self.threads).map(|t| number(self.get(*high, t))).collect();
        let step: Vec<i128> = (0..self.threads).map(|t| number(self.get(*step, t))).collect();
        if let Some(t) = (0..self.threads).find(|t| active[*t] && step[*t] <= 0) {
            return Err(self.fault(&format!("for {index}"), t, format!("the step is {}, not above 0", step[t])));
        }
        loop {
            let going: Vec<bool> = (0..self.threads).map(|t| active[t] && at[t] < high[t]).collect();
            if !going.contains(&true) {
                return Ok(());
            }
            if *uniform && going != active {
                let thread = (0..self.threads).find(|t| going[*t] != active[*t]).unwrap_or(0);
                return Err(self.fault(&format!("for {index}"), thread, "the loop is called uniform, but threads differ".into()));
            }
            for t in (0..self.threads).filter(|t| going[*t]) {
                self.put(*index, t, at[t] as u64 & scalar::mask(ty));
            }
            self.list(body, &going)?;
            for t in 0..self.threads {
                at[t] += step[t];
            }
        }
    }

    /// An error unless every thread of the block is there.
    fn together(&self, what: &dyn Fn() -> String, active: &Active) -> Result<()> {
        match active.iter().position(|a| !a) {
            None => Ok(()),
            Some(absent) => Err(self.fault(&what(), absent, "the thread does not get there, others do".into())),
        }
    }

    /// The one value of an operand that the threads of a subgroup must agree on.
    fn agreed(&self, value: Val, subgroup: usize, what: &dyn Fn() -> String) -> Result<u64> {
        let width = self.kernel.subgroup as usize;
        let first = self.get(value, subgroup * width);
        match (subgroup * width..(subgroup + 1) * width).find(|t| self.get(value, *t) != first) {
            None => Ok(first),
            Some(t) => Err(self.fault(&what(), t, format!("{value} differs within the subgroup"))),
        }
    }

    fn instruction(&mut self, results: &[Val], inst: &Inst, active: &Active) -> Result<()> {
        let Some(result) = results.first().copied() else { return Ok(()) };
        let ty = self.kernel.ty(result);
        let what = || format!("{result} = {}", print::inst(inst, ty));
        match inst {
            Inst::FragmentZero | Inst::FragmentLoad { .. } | Inst::FragmentMulAdd(..) | Inst::FragmentGet(..) | Inst::FragmentOf(..) => {
                self.together(&what, active)?;
                return self.fragment(result, inst, &what);
            }
            Inst::Shuffle(how, source, lane) => {
                self.together(&what, active)?;
                return self.shuffle(result, *how, *source, *lane, &what);
            }
            _ => {}
        }
        for t in (0..self.threads).filter(|t| active[*t]) {
            if let Inst::Load { place, mask, other, .. } = inst {
                for (i, r) in results.iter().enumerate() {
                    let bits = if self.holds(*mask, t) {
                        self.access(place, i, results.len(), t, None).map_err(|m| self.fault(&what(), t, m))?
                    } else {
                        other.as_ref().map_or(poison(ty), |o| self.get(o[i], t))
                    };
                    self.put(*r, t, bits);
                }
            } else {
                let bits = self.one(inst, ty, t).map_err(|m| self.fault(&what(), t, m))?;
                self.put(result, t, bits);
            }
        }
        Ok(())
    }

    /// One thread's result of an instruction that concerns it alone.
    fn one(&mut self, inst: &Inst, ty: Ty, t: usize) -> Result<u64, String> {
        let kernel = self.kernel;
        let of = |v: Val| elem(kernel.ty(v));
        Ok(match inst {
            Inst::Const(bits) => bits & scalar::mask(elem(ty)),
            Inst::Undef => poison(ty),
            Inst::BlockId(axis) => u64::from(self.block[usize::from(*axis)]),
            Inst::NumBlocks(axis) => u64::from(self.grid[usize::from(*axis)]),
            Inst::ThreadId => t as u64,
            Inst::Unary(op, a) => scalar::unary(*op, of(*a), self.get(*a, t)),
            Inst::Binary(op, a, b) => scalar::binary(*op, of(*a), self.get(*a, t), self.get(*b, t)),
            Inst::Fma(a, b, c) => scalar::fma(of(*a), self.get(*a, t), self.get(*b, t), self.get(*c, t)),
            Inst::CmpI(op, a, b) => u64::from(scalar::compare_int(*op, of(*a), self.get(*a, t), self.get(*b, t))),
            Inst::CmpF(op, a, b) => u64::from(scalar::compare_float(*op, of(*a), self.get(*a, t), self.get(*b, t))),
            Inst::Select(c, a, b) => self.get(if self.holds(Some(*c), t) { *a } else { *b }, t),
            Inst::Cast(op, a) => scalar::cast(*op, of(*a), elem(ty), self.get(*a, t)),
            Inst::PtrAdd(p, i) => {
                let size = if let Ty::Ptr(e) = kernel.ty(*p) { i64::from(e.bytes()) } else { 1 };
                self.get(*p, t).wrapping_add(scalar::signed(of(*i), self.get(*i, t)).wrapping_mul(size) as u64)
            }
            Inst::Get(v, i) => self.vars[v.0 as usize][*i as usize * self.threads + t],
            Inst::GetAt(v, i) => {
                let at = self.element(v.0, *i, t)?;
                self.vars[v.0 as usize][at]
            }
            Inst::Atomic { place, rmw, value, mask, .. } => {
                if !self.holds(*mask, t) {
                    return Ok(poison(ty));
                }
                let (rmw, value, e) = (*rmw, self.get(*value, t), of(*value));
                self.access(place, 0, 1, t, Some(&|old| scalar::rmw(rmw, e, old, value)))?
            }
            Inst::AtomicCas { place, expected, desired, mask, .. } => {
                if !self.holds(*mask, t) {
                    return Ok(poison(ty));
                }
                let (expected, desired) = (self.get(*expected, t), self.get(*desired, t));
                self.access(place, 0, 1, t, Some(&|old| if old == expected { desired } else { old }))?
            }
            _ => return Err("it is no instruction of one thread".into()),
        })
    }

    /// Index into a variable's storage for a run-time element.
    fn element(&self, var: u32, index: Val, t: usize) -> Result<usize, String> {
        let at = scalar::signed(elem(self.kernel.ty(index)), self.get(index, t));
        let len = self.kernel.vars[var as usize].len;
        if at < 0 || at >= i64::from(len) {
            return Err(format!("element {at} of variable v{var}, which has {len}"));
        }
        Ok(at as usize * self.threads + t)
    }

    /// Index of element `i` of `count` consecutive ones in shared memory.
    fn shared_index(&self, index: Val, i: usize, count: usize, t: usize) -> Result<i64, String> {
        let first = scalar::signed(elem(self.kernel.ty(index)), self.get(index, t));
        if first % count as i64 != 0 {
            return Err(format!("{count} elements from {first} on, no multiple of their number"));
        }
        Ok(first + i as i64)
    }

    /// Reads element `i` of `count` consecutive ones at a place; with a function, replaces it in the same step.
    fn access(&mut self, place: &Place, i: usize, count: usize, t: usize, update: Option<&dyn Fn(u64) -> u64>) -> Result<u64, String> {
        match place {
            Place::Global { pointer, align } => {
                let Ty::Ptr(e) = self.kernel.ty(*pointer) else { return Err(format!("{pointer} is no pointer")) };
                let start = self.get(*pointer, t);
                if i == 0 && count > 1 && !start.is_multiple_of(u64::from(*align)) {
                    return Err(format!("{} bytes past a buffer's start, an alignment of {align} is claimed", start % (1 << 40)));
                }
                let bytes = memory::global(self.args, start.wrapping_add(i as u64 * u64::from(e.bytes())), e)?;
                let old = memory::read(bytes) & scalar::mask(e);
                if let Some(update) = update {
                    memory::write(bytes, update(old));
                }
                Ok(old)
            }
            Place::Shared { array, index } => {
                let at = self.shared_index(*index, i, count, t)?;
                let touch = match update {
                    None => Touch::Read,
                    Some(update) => Touch::Atomic(update(self.shared.peek(array.0, at)?)),
                };
                self.shared.touch(self.who(t), array.0, at, touch)
            }
        }
    }

    fn shuffle(&mut self, result: Val, how: Shuffle, source: Val, lane: Option<Val>, what: &dyn Fn() -> String) -> Result<()> {
        let width = self.kernel.subgroup as usize;
        if width == 0 || !self.threads.is_multiple_of(width) {
            return Err(self.fault(&what(), 0, format!("subgroups of {width} do not divide a block of {}", self.threads)));
        }
        let undefined = poison(self.kernel.ty(result));
        let old: Vec<u64> = (0..self.threads).map(|t| self.get(source, t)).collect();
        for t in 0..self.threads {
            let own = t % width;
            let from = match how {
                Shuffle::Xor(n) => Some(own ^ n as usize),
                Shuffle::Up(n) => own.checked_sub(n as usize),
                Shuffle::Down(n) => Some(own + n as usize),
                Shuffle::Lane => lane.map(|l| self.get(l, t) as usize),
            };
            let bits = from.filter(|f| *f < width).map_or(undefined, |f| old[t - own + f]);
            self.put(result, t, bits);
        }
        Ok(())
    }

    fn effect(&mut self, effect: &Effect, active: &Active) -> Result<()> {
        let what = || effect.to_string();
        match effect {
            Effect::Barrier { .. } => {
                self.together(&what, active)?;
                self.shared.barrier();
                return Ok(());
            }
            Effect::SubgroupBarrier => {
                self.together(&what, active)?;
                self.subgroup_steps.iter_mut().for_each(|s| *s += 1);
                return Ok(());
            }
            Effect::FragmentStore { .. } => {
                self.together(&what, active)?;
                return self.store_fragment(effect, &what);
            }
            Effect::CopyGroup => {
                self.together(&what, active)?;
                self.copies.iter_mut().for_each(|groups| groups.push(Vec::new()));
                return Ok(());
            }
            Effect::CopyWait(most) => {
                self.together(&what, active)?;
                return (0..self.threads).try_for_each(|t| self.arrive(t, *most as usize).map_err(|m| self.fault(&what(), t, m)));
            }
            _ => {}
        }
        for t in (0..self.threads).filter(|t| active[*t]) {
            match effect {
                Effect::Set(v, i, x) => {
                    let at = *i as usize * self.threads + t;
                    self.vars[v.0 as usize][at] = self.get(*x, t);
                }
                Effect::SetAt(v, i, x) => {
                    let at = self.element(v.0, *i, t).map_err(|m| self.fault(&what(), t, m))?;
                    self.vars[v.0 as usize][at] = self.get(*x, t);
                }
                Effect::Store { place, values, mask } if self.holds(*mask, t) => {
                    for (i, v) in values.iter().enumerate() {
                        let bits = self.get(*v, t);
                        self.write(place, i, values.len(), t, bits).map_err(|m| self.fault(&what(), t, m))?;
                    }
                }
                Effect::Copy { array, index, pointer, count, mask } => {
                    let there = self.holds(*mask, t);
                    self.copy(t, *array, *index, *pointer, *count as usize, there).map_err(|m| self.fault(&what(), t, m))?;
                }
                Effect::Assert(c, message) if !self.holds(Some(*c), t) => return Err(self.fault(&what(), t, message.clone())),
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts a copy: until it arrives what lies there is poison.
    fn copy(&mut self, t: usize, array: Shared, index: Val, pointer: Val, count: usize, there: bool) -> Result<(), String> {
        let e = self.kernel.shared[array.0 as usize].elem;
        let place = Place::Global { pointer, align: count as u32 * e.bytes() };
        for i in 0..count {
            let bits = if there { self.access(&place, i, count, t, None)? } else { 0 };
            let at = self.shared_index(index, i, count, t)?;
            self.shared.touch(self.who(t), array.0, at, Touch::Write(scalar::mask(e)))?;
            if let Some(group) = self.copies[t].last_mut() {
                group.push((array.0, at, bits));
            }
        }
        Ok(())
    }

    /// Lets a thread's copies arrive but for the latest groups.
    fn arrive(&mut self, t: usize, most: usize) -> Result<(), String> {
        let ended = self.copies[t].len().saturating_sub(1 + most);
        let arrivals: Vec<Arrival> = self.copies[t].drain(..ended).flatten().collect();
        arrivals.into_iter().try_for_each(|(array, at, bits)| self.shared.touch(self.who(t), array, at, Touch::Write(bits)).map(|_| ()))
    }

    fn write(&mut self, place: &Place, i: usize, count: usize, t: usize, bits: u64) -> Result<(), String> {
        match place {
            Place::Global { .. } => self.access(place, i, count, t, Some(&|_| bits)).map(|_| ()),
            Place::Shared { array, index } => {
                let at = self.shared_index(*index, i, count, t)?;
                self.shared.touch(self.who(t), array.0, at, Touch::Write(bits)).map(|_| ())
            }
        }
    }
}
