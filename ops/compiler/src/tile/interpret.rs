//! Runs tile programs directly on byte buffers: the judge of everything after it.
//!
//! Every operation is computed for the whole tile and rounded once; narrow floats go through wider arithmetic. A product sums exact
//! products in double precision and rounds at the end, whatever `inputPrecision` allows. Blocks run one after the other, x fastest.
//! Every access is checked: an address outside the buffer its pointer came from is an error.

mod dot;
mod elementwise;
mod memory;
mod tiles;

use std::rc::Rc;

use crate::Elem;
use crate::error::{CompileError, Loc, Result};
use crate::thread::interpret::scalar;
use crate::tile::print::op_name;
use crate::tile::{Block, Function, Item, Literal, Op, OpKind, Padding, Program, Type, Value};

pub use crate::run::Arg;

use memory::Memory;

/// Most elements that operations of one launch compute, before [`run`] gives up.
pub const BUDGET: u64 = 1 << 34;

/// A value while it runs.
#[derive(Clone, Debug)]
enum Datum {
    /// Bits of a scalar's or tile's items, zero-extended, in row-major order.
    Bits(Rc<Vec<u64>>),
    /// A block pointer or descriptor.
    View(Rc<View>),
}

/// A tensor in memory, with the place of a block in it.
#[derive(Clone, Debug)]
struct View {
    base: u64,
    shape: Vec<i64>,
    strides: Vec<i64>,
    offsets: Vec<i64>,
    padding: Padding,
}

/// What went wrong, without its place.
struct Wrong(String);

impl Wrong {
    fn new(message: impl Into<String>) -> Wrong {
        Wrong(message.into())
    }
}

type Found<T> = core::result::Result<T, Wrong>;

/// Runs a kernel for every block of a grid. `args` are its parameters in order; buffers hold what it wrote afterwards, also after an
/// error. Errors: an invalid program, arguments that do not fit, an access outside a buffer, a failed assertion, an operation that
/// cannot be interpreted (inline assembly, unknown library functions), a launch beyond [`BUDGET`].
pub fn run(program: &Program, entry: &str, grid: [u32; 3], args: &mut [Arg]) -> Result<()> {
    run_within(program, entry, grid, args, BUDGET)
}

/// As [`run`], with a budget of elements.
pub fn run_within(program: &Program, entry: &str, grid: [u32; 3], args: &mut [Arg], budget: u64) -> Result<()> {
    crate::tile::verify::verify(program)?;
    let refuse = |message: String| Err(CompileError::invalid("tt.func", Loc::default(), message));
    let Some(function) = program.function(entry) else {
        return refuse(format!("the program has no function '{entry}'"));
    };
    if args.len() != function.body.args.len() {
        return refuse(format!("@{entry} takes {} arguments, not {}", function.body.args.len(), args.len()));
    }
    let mut initial = Vec::new();
    for (i, (arg, value)) in args.iter().zip(&function.body.args).enumerate() {
        let bits = match (arg, function.ty(*value)) {
            (Arg::Buffer(_), Type::Scalar(Item::Ptr(_))) => Memory::address(i),
            (Arg::Null, Type::Scalar(Item::Ptr(_))) => 0,
            (Arg::Scalar(bits), Type::Scalar(Item::Elem(elem))) => bits & scalar::mask(*elem),
            _ => return refuse(format!("argument {i} of @{entry} is not of its type")),
        };
        initial.push(Datum::one(bits));
    }
    let mut machine = Machine { program, memory: Memory::take(args), grid, block: [0; 3], left: budget };
    let mut result = Ok(());
    'grid: for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                machine.block = [x, y, z];
                result = machine.call(function, &initial).map(|_| ());
                if result.is_err() {
                    break 'grid;
                }
            }
        }
    }
    machine.memory.give(args);
    result
}

struct Machine<'a> {
    program: &'a Program,
    memory: Memory,
    grid: [u32; 3],
    block: [u32; 3],
    left: u64,
}

/// The values of a function while it runs.
struct Frame<'f> {
    function: &'f Function,
    values: Vec<Option<Datum>>,
}

impl Datum {
    fn one(bits: u64) -> Datum {
        Datum::Bits(Rc::new(vec![bits]))
    }
    fn many(bits: Vec<u64>) -> Datum {
        Datum::Bits(Rc::new(bits))
    }
    /// Bits of a scalar or tile.
    fn bits(&self) -> Found<&[u64]> {
        match self {
            Datum::Bits(b) => Ok(b),
            Datum::View(_) => Err(Wrong::new("a block pointer or descriptor where numbers are needed")),
        }
    }
    fn scalar(&self) -> Found<u64> {
        Ok(self.bits()?[0])
    }
    fn view(&self) -> Found<&View> {
        match self {
            Datum::View(v) => Ok(v),
            Datum::Bits(_) => Err(Wrong::new("numbers where a block pointer or descriptor is needed")),
        }
    }
}

impl Frame<'_> {
    fn get(&self, value: Value) -> Found<Datum> {
        self.values[value.0 as usize].clone().ok_or_else(|| Wrong(format!("%{} has no value", value.0)))
    }
    fn set(&mut self, values: &[Value], data: Vec<Datum>) {
        for (value, datum) in values.iter().zip(data) {
            self.values[value.0 as usize] = Some(datum);
        }
    }
}

impl<'a> Machine<'a> {
    fn call(&mut self, function: &'a Function, args: &[Datum]) -> Result<Vec<Datum>> {
        let mut frame = Frame { function, values: vec![None; function.types.len()] };
        self.block(&mut frame, &function.body, args.to_vec())
    }

    /// Runs a block with its arguments; gives the operands of its terminator.
    fn block(&mut self, frame: &mut Frame<'a>, block: &'a Block, args: Vec<Datum>) -> Result<Vec<Datum>> {
        frame.set(&block.args, args);
        for op in &block.ops {
            let place = |w: Wrong, block: [u32; 3]| {
                CompileError::invalid(op_name(&op.kind), op.loc, format!("{} (block {}, {}, {})", w.0, block[0], block[1], block[2]))
            };
            let mut operands = Vec::with_capacity(op.operands.len());
            for operand in &op.operands {
                operands.push(frame.get(*operand).map_err(|w| place(w, self.block))?);
            }
            let work = op.operands.iter().chain(&op.results).map(|v| frame.function.ty(*v).elems()).max().unwrap_or(1);
            let work = if let OpKind::Dot { .. } | OpKind::DotScaled { .. } = op.kind {
                work.saturating_mul(u64::from(*frame.function.ty(op.operands[0]).shape().last().unwrap_or(&1)))
            } else {
                work
            };
            if work > self.left {
                return Err(CompileError::limit(op_name(&op.kind), op.loc, "the launch takes more steps than the interpreter makes"));
            }
            self.left -= work;
            if matches!(op.kind, OpKind::Yield | OpKind::Return | OpKind::Condition) {
                return Ok(operands);
            }
            let results = match self.control(frame, op, &operands)? {
                Some(results) => results,
                None => self.op(frame, op, &operands).map_err(|w| match op.kind {
                    OpKind::InlineAsm(_) | OpKind::Extern(_) => CompileError::unsupported(op_name(&op.kind), op.loc, w.0),
                    _ => place(w, self.block),
                })?,
            };
            frame.set(&op.results, results);
        }
        Ok(Vec::new())
    }

    /// Operations with regions, and calls; `None` for others.
    fn control(&mut self, frame: &mut Frame<'a>, op: &'a Op, operands: &[Datum]) -> Result<Option<Vec<Datum>>> {
        let place = |w: Wrong| CompileError::invalid(op_name(&op.kind), op.loc, w.0);
        Ok(Some(match &op.kind {
            OpKind::For { unsigned } => {
                let elem = frame.function.ty(op.operands[0]).elem().unwrap_or(Elem::I32);
                let bound = |d: &Datum| d.scalar().map(|b| if *unsigned { i128::from(b) } else { i128::from(scalar::signed(elem, b)) });
                let (low, high) = (bound(&operands[0]).map_err(place)?, bound(&operands[1]).map_err(place)?);
                let step = bound(&operands[2]).map_err(place)?;
                if step <= 0 {
                    return Err(place(Wrong(format!("a step of {step}"))));
                }
                let mut carried = operands[3..].to_vec();
                let mut index = low;
                while index < high {
                    let args = core::iter::once(Datum::one(index as u64 & scalar::mask(elem))).chain(carried).collect();
                    carried = self.block(frame, &op.regions[0], args)?;
                    index += step;
                }
                carried
            }
            OpKind::If => {
                let region = &op.regions[usize::from(operands[0].scalar().map_err(place)? == 0)];
                self.block(frame, region, Vec::new())?
            }
            OpKind::While => {
                let mut carried = operands.to_vec();
                loop {
                    let mut forwarded = self.block(frame, &op.regions[0], carried)?;
                    let go = forwarded.remove(0).scalar().map_err(place)?;
                    if go == 0 {
                        break forwarded;
                    }
                    carried = self.block(frame, &op.regions[1], forwarded)?;
                }
            }
            OpKind::Call(callee) => match self.program.function(callee) {
                Some(function) => self.call(function, operands)?,
                None => return Err(place(Wrong(format!("there is no function @{callee}")))),
            },
            OpKind::Reduce(axis) => self.reduce(frame, op, operands, *axis)?,
            OpKind::Scan { axis, reverse } => self.scan(frame, op, operands, *axis, *reverse)?,
            OpKind::MapElementwise(pack) => self.map(frame, op, operands, *pack as usize)?,
            _ => return Ok(None),
        }))
    }

    fn op(&mut self, frame: &Frame<'a>, op: &Op, operands: &[Datum]) -> Found<Vec<Datum>> {
        let f = frame.function;
        let result = |i: usize| f.ty(op.results[i]);
        if let Some(datum) = elementwise::evaluate(f, op, operands)? {
            return Ok(vec![datum]);
        }
        Ok(match &op.kind {
            OpKind::Constant(literal) => {
                let elem = result(0).elem().unwrap_or(Elem::I64);
                let bits = match literal {
                    Literal::Int(v) => *v as u64 & scalar::mask(elem),
                    Literal::Bits(b) => *b,
                };
                vec![Datum::many(vec![bits; result(0).elems() as usize])]
            }
            OpKind::Poison => {
                let bits = result(0).elem().map_or(u64::MAX, scalar::poison);
                vec![Datum::many(vec![bits; result(0).elems() as usize])]
            }
            OpKind::ProgramId(axis) => vec![Datum::one(u64::from(self.block[usize::from(*axis)]))],
            OpKind::NumPrograms(axis) => vec![Datum::one(u64::from(self.grid[usize::from(*axis)]))],
            OpKind::Print(_) | OpKind::Barrier => vec![],
            OpKind::Assert(message) => {
                if operands[0].bits()?.contains(&0) {
                    return Err(Wrong(format!("assertion failed: {message}")));
                }
                vec![]
            }
            OpKind::Assume => {
                if operands[0].scalar()? == 0 {
                    return Err(Wrong::new("what the kernel assumes does not hold"));
                }
                vec![]
            }
            OpKind::Extern(symbol) => return Err(Wrong(format!("the library function {symbol} is not known"))),
            OpKind::InlineAsm(_) => return Err(Wrong::new("inline assembly of one vendor's chip")),
            OpKind::Dot { .. } | OpKind::DotScaled { .. } => vec![dot::evaluate(f, op, operands)?],
            _ => match tiles::evaluate(f, op, operands)? {
                Some(data) => data,
                None => self.memory.evaluate(f, op, operands)?,
            },
        })
    }
}
