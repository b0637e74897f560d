//! Text out: the Triton dialect, parsed back to the same program.

use core::fmt::{self, Display, Formatter, Write as _};

use crate::tile::names::{BINARY, CAST, CMPF, CMPI, ORDER, PADDING, PRECISION, RMW, UNARY, name};
use crate::tile::{Block, Cast, Function, Item, Literal, Op, OpKind, Padding, Program, Type, Value, number};

/// A type as text.
pub(crate) struct TypeText<'a>(pub(crate) &'a Type);

/// `128x64xf32`, the inside of a tile's type.
struct Inside<'a>(&'a [u32], Item);

impl Display for Inside<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|n| write!(f, "{n}x"))?;
        match self.1 {
            Item::Elem(elem) => write!(f, "{elem}"),
            Item::Ptr(elem) => write!(f, "!tt.ptr<{elem}>"),
        }
    }
}

impl Display for TypeText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Type::Scalar(item) => write!(f, "{}", Inside(&[], *item)),
            Type::Tile(shape, item) => write!(f, "tensor<{}>", Inside(shape, *item)),
            Type::BlockPtr(shape, elem) => write!(f, "!tt.ptr<tensor<{}>>", Inside(shape, Item::Elem(*elem))),
            Type::Descriptor(shape, elem) => write!(f, "!tt.tensordesc<tensor<{}>>", Inside(shape, Item::Elem(*elem))),
        }
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module {{")?;
        for function in &self.functions {
            Printer { function, text: String::new() }.function(f)?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Literal {
    /// The value without its type: integers in decimal, floats as their bits in hexadecimal.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Int(v) => write!(f, "{v}"),
            Literal::Bits(b) => write!(f, "0x{b:X}"),
        }
    }
}

/// The name of an operation in text ("tt.load"), for errors.
pub fn op_name(kind: &OpKind) -> &'static str {
    match kind {
        OpKind::Constant(_) => "arith.constant",
        OpKind::Poison => "ub.poison",
        OpKind::ProgramId(_) => "tt.get_program_id",
        OpKind::NumPrograms(_) => "tt.get_num_programs",
        OpKind::MakeRange(_) => "tt.make_range",
        OpKind::Splat => "tt.splat",
        OpKind::Unsplat => "tt.unsplat",
        OpKind::ExpandDims(_) => "tt.expand_dims",
        OpKind::Broadcast => "tt.broadcast",
        OpKind::Reshape { .. } => "tt.reshape",
        OpKind::Trans(_) => "tt.trans",
        OpKind::Cat => "tt.cat",
        OpKind::Join => "tt.join",
        OpKind::Split => "tt.split",
        OpKind::Unary(unary) => name(UNARY, unary),
        OpKind::Binary(binary) => name(BINARY, binary),
        OpKind::Fma => "math.fma",
        OpKind::CmpI(_) => "arith.cmpi",
        OpKind::CmpF(_) => "arith.cmpf",
        OpKind::Select => "arith.select",
        OpKind::Clamp { .. } => "tt.clampf",
        OpKind::Cast(cast) => name(CAST, cast),
        OpKind::AddPtr => "tt.addptr",
        OpKind::Load { .. } => "tt.load",
        OpKind::Store { .. } => "tt.store",
        OpKind::MakeTensorPtr(_) => "tt.make_tensor_ptr",
        OpKind::Advance => "tt.advance",
        OpKind::MakeDescriptor(_) => "tt.make_tensor_descriptor",
        OpKind::DescriptorLoad => "tt.descriptor_load",
        OpKind::DescriptorStore => "tt.descriptor_store",
        OpKind::DescriptorReduce(_) => "tt.descriptor_reduce",
        OpKind::DescriptorGather => "tt.descriptor_gather",
        OpKind::DescriptorScatter => "tt.descriptor_scatter",
        OpKind::AtomicRmw { .. } => "tt.atomic_rmw",
        OpKind::AtomicCas(_) => "tt.atomic_cas",
        OpKind::Reduce(_) => "tt.reduce",
        OpKind::Scan { .. } => "tt.scan",
        OpKind::MapElementwise(_) => "tt.map_elementwise",
        OpKind::Dot { .. } => "tt.dot",
        OpKind::DotScaled { .. } => "tt.dot_scaled",
        OpKind::Gather(_) => "tt.gather",
        OpKind::Histogram { .. } => "tt.histogram",
        OpKind::For { .. } => "scf.for",
        OpKind::If => "scf.if",
        OpKind::While => "scf.while",
        OpKind::Condition => "scf.condition",
        OpKind::Yield => "scf.yield",
        OpKind::Return => "tt.return",
        OpKind::Call(_) => "tt.call",
        OpKind::Extern(_) => "tt.extern_elementwise",
        OpKind::InlineAsm(_) => "tt.elementwise_inline_asm",
        OpKind::Print(_) => "tt.print",
        OpKind::Assert(_) => "tt.assert",
        OpKind::Assume => "llvm.intr.assume",
        OpKind::Barrier => "gpu.barrier",
    }
}

struct Printer<'a> {
    function: &'a Function,
    text: String,
}

impl Printer<'_> {
    fn function(mut self, f: &mut Formatter<'_>) -> fmt::Result {
        let function = self.function;
        let visibility = if function.public { "public" } else { "private" };
        write!(self.text, "  tt.func {visibility} @{}(", symbol(&function.name))?;
        for (i, (arg, facts)) in function.body.args.iter().zip(&function.facts).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(self.text, "{comma}%{}: {}", arg.0, TypeText(function.ty(*arg)))?;
            let mut attrs = Vec::new();
            if facts.divisibility != 1 {
                attrs.push(format!("tt.divisibility = {} : i32", facts.divisibility));
            }
            if facts.small {
                attrs.push("tt.pointer_range = 32 : i32".to_owned());
            }
            self.text += &dictionary(&attrs);
        }
        self.text.push(')');
        if !function.results.is_empty() {
            let types: Vec<_> = function.results.iter().map(|t| TypeText(t).to_string()).collect();
            write!(self.text, " -> ({})", types.join(", "))?;
        }
        self.text += " attributes {noinline = false} {\n";
        self.ops(&function.body, 2, "tt.return")?;
        self.text += "  }\n";
        f.write_str(&self.text)
    }

    fn ops(&mut self, block: &Block, indent: usize, terminator: &str) -> fmt::Result {
        block.ops.iter().try_for_each(|op| self.op(op, indent, terminator))
    }

    fn block(&mut self, block: &Block, indent: usize, terminator: &str, label: bool) -> fmt::Result {
        self.text += "{\n";
        if label && !block.args.is_empty() {
            let args: Vec<_> = block.args.iter().map(|a| format!("%{}: {}", a.0, TypeText(self.function.ty(*a)))).collect();
            writeln!(self.text, "{}^bb0({}):", "  ".repeat(indent), args.join(", "))?;
        }
        self.ops(block, indent + 1, terminator)?;
        write!(self.text, "{}}}", "  ".repeat(indent))
    }

    fn types(&self, values: &[Value]) -> String {
        values.iter().map(|v| TypeText(self.function.ty(*v)).to_string()).collect::<Vec<_>>().join(", ")
    }

    fn ty(&self, values: &[Value], index: usize) -> String {
        values.get(index).map_or_else(String::new, |v| TypeText(self.function.ty(*v)).to_string())
    }

    /// The types in the form `(a, b) -> (c)`.
    fn signature(&self, op: &Op) -> String {
        format!("({}) -> ({})", self.types(&op.operands), self.types(&op.results))
    }

    fn op(&mut self, op: &Op, indent: usize, terminator: &str) -> fmt::Result {
        self.text += &"  ".repeat(indent);
        if !op.results.is_empty() {
            write!(self.text, "{} = ", list(&op.results))?;
        }
        if op.kind == OpKind::Yield {
            self.text += terminator;
        } else if op.regions.is_empty() || matches!(op.kind, OpKind::For { .. } | OpKind::If | OpKind::While) {
            self.text += op_name(&op.kind);
        } else {
            write!(self.text, "\"{}\"", op_name(&op.kind))?;
        }
        let (all, results) = (list(&op.operands), self.types(&op.results));
        let rest = match &op.kind {
            OpKind::Constant(literal) => {
                let ty = op.results.first().map(|v| self.function.ty(*v));
                let value = ty.and_then(Type::elem).map_or_else(String::new, |e| number::text(e, *literal));
                if ty.is_some_and(Type::is_tile) { format!(" dense<{value}> : {results}") } else { format!(" {value} : {results}") }
            }
            OpKind::Poison => format!(" : {results}"),
            OpKind::ProgramId(axis) | OpKind::NumPrograms(axis) => format!(" {} : {results}", ["x", "y", "z"][usize::from(*axis).min(2)]),
            OpKind::MakeRange(start) => {
                let extent = op.results.first().map_or(0, |v| self.function.ty(*v).elems());
                format!(" {{end = {} : i32, start = {start} : i32}} : {results}", i64::from(*start) + extent as i64)
            }
            OpKind::Splat | OpKind::Broadcast | OpKind::Split => format!(" {all} : {} -> {}", self.types(&op.operands), self.ty(&op.results, 0)),
            OpKind::Unsplat => format!(" {all} : {}", self.types(&op.operands)),
            OpKind::ExpandDims(axis) => format!(" {all} {{axis = {axis} : i32}} : {} -> {results}", self.types(&op.operands)),
            OpKind::Reshape { reorder } => {
                format!(" {all}{} : {} -> {results}", if *reorder { " allow_reorder" } else { "" }, self.types(&op.operands))
            }
            OpKind::Trans(order) => format!(" {all} {{order = {}}} : {} -> {results}", array(order), self.types(&op.operands)),
            OpKind::Cat | OpKind::Join => format!(" {all} : {} -> {results}", self.ty(&op.operands, 0)),
            OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Fma => format!(" {all} : {}", self.ty(&op.operands, 0)),
            OpKind::CmpI(p) => format!(" {}, {all} : {}", name(CMPI, p), self.ty(&op.operands, 0)),
            OpKind::CmpF(p) => format!(" {}, {all} : {}", name(CMPF, p), self.ty(&op.operands, 0)),
            OpKind::Select => {
                let tiled = op.operands.first().is_some_and(|c| self.function.ty(*c).is_tile());
                let condition = if tiled { format!("{}, ", self.ty(&op.operands, 0)) } else { String::new() };
                format!(" {all} : {condition}{results}")
            }
            OpKind::Clamp { propagate_nan } => format!(" {all}, propagateNan = {} : {results}", if *propagate_nan { "all" } else { "none" }),
            OpKind::Cast(cast) => {
                let rounding = if *cast == Cast::FpToFpRtz { ", rounding = rtz" } else { "" };
                let to = if name(CAST, cast).starts_with("arith") { "to" } else { "->" };
                format!(" {all}{rounding} : {} {to} {results}", self.types(&op.operands))
            }
            OpKind::AddPtr => format!(" {all} : {}", self.types(&op.operands)),
            OpKind::Load { boundary, padding, volatile, hints, .. } => {
                let mut words = String::new();
                for hint in hints {
                    match hint.strip_prefix('.') {
                        Some(cache) => write!(words, " cacheModifier = {cache}")?,
                        None => write!(words, " evictionPolicy = {hint}")?,
                    }
                }
                let mut attrs = boundary_attr(boundary);
                if *volatile {
                    attrs.push("isVolatile = true".into());
                }
                attrs.extend(padding_attr(*padding));
                format!(" {all}{words}{} : {}", dictionary(&attrs), self.ty(&op.operands, 0))
            }
            OpKind::Store { boundary, .. } => format!(" {all}{} : {}", dictionary(&boundary_attr(boundary)), self.ty(&op.operands, 0)),
            OpKind::MakeTensorPtr(order) => {
                let lists = lists(&op.operands, op.operands.len().saturating_sub(1) / 3);
                format!(" {lists} {{order = {}}} : {results}", array(order))
            }
            OpKind::Advance => format!(" {} : {results}", lists(&op.operands, op.operands.len().saturating_sub(1))),
            OpKind::MakeDescriptor(padding) => {
                let lists = lists(&op.operands, op.operands.len().saturating_sub(1) / 2);
                let attrs = if *padding == Padding::Zero { String::new() } else { dictionary(&padding_attr(*padding).into_iter().collect::<Vec<_>>()) };
                format!(" {lists}{attrs} : {}, {results}", self.ty(&op.operands, 0))
            }
            OpKind::DescriptorLoad => format!(" {} : {} -> {results}", indexed(&op.operands), self.ty(&op.operands, 0)),
            OpKind::DescriptorStore => self.descriptor_store(op, ""),
            OpKind::DescriptorReduce(rmw) => self.descriptor_store(op, &format!(" {},", name(RMW, rmw))),
            OpKind::DescriptorGather => format!(" {} : {}", indexed(&op.operands), self.signature(op)),
            OpKind::DescriptorScatter => {
                let (value, rest) = op.operands.split_last().map_or((Value(0), [].as_slice()), |(v, r)| (*v, r));
                format!(" {}, %{} : {}", indexed(rest), value.0, self.types(&op.operands))
            }
            OpKind::AtomicRmw { rmw, order, .. } => format!(" {}, {}, gpu, {all} : {}", name(RMW, rmw), name(ORDER, order), self.signature(op)),
            OpKind::AtomicCas(order) => format!(" {}, gpu, {all} : {}", name(ORDER, order), self.signature(op)),
            OpKind::Reduce(axis) => return self.with_region(op, &format!("axis = {axis} : i32"), "tt.reduce.return", indent),
            OpKind::Scan { axis, reverse } => {
                return self.with_region(op, &format!("axis = {axis} : i32, reverse = {reverse}"), "tt.scan.return", indent);
            }
            OpKind::MapElementwise(pack) => return self.with_region(op, &format!("pack = {pack} : i32"), "tt.map_elementwise.return", indent),
            OpKind::Dot { precision } => {
                format!(" {all}, inputPrecision = {} : {} * {} -> {results}", name(PRECISION, precision), self.ty(&op.operands, 0), self.ty(&op.operands, 1))
            }
            OpKind::DotScaled { formats, scales, pack_k } => self.dot_scaled(op, formats, *scales, *pack_k),
            OpKind::Gather(axis) => format!(" {} {{axis = {axis} : i32}} : {}", indexed(&op.operands), self.signature(op)),
            OpKind::Histogram { .. } => format!(" {all} : {} -> {results}", self.ty(&op.operands, 0)),
            OpKind::For { unsigned } => return self.scf_for(op, *unsigned, indent),
            OpKind::If => return self.scf_if(op, indent),
            OpKind::While => return self.scf_while(op, indent),
            OpKind::Condition => {
                let (condition, rest) = op.operands.split_first().map_or((Value(0), [].as_slice()), |(c, r)| (*c, r));
                format!("(%{}){}", condition.0, self.typed(rest, ""))
            }
            OpKind::Yield | OpKind::Return => self.typed(&op.operands, ""),
            OpKind::Call(callee) => format!(" @{}({all}) : {}", symbol(callee), self.signature(op)),
            OpKind::Extern(name) => {
                format!(" {all} {{libname = \"\", libpath = \"\", pure = true, symbol = {}}} : ({}) -> {results}", quoted(name), self.types(&op.operands))
            }
            OpKind::InlineAsm(text) => format!(" {} {all} : {} -> {results}", quoted(text), self.types(&op.operands)),
            OpKind::Print(prefix) => format!(" {}{}", quoted(prefix), self.typed(&op.operands, " :")),
            OpKind::Assert(message) => format!(" {all}, {} : {}", quoted(message), self.types(&op.operands)),
            OpKind::Assume => format!(" {all} : {}", self.types(&op.operands)),
            OpKind::Barrier => String::new(),
        };
        self.text += &rest;
        self.text.push('\n');
        Ok(())
    }

    /// ` %a, %b : types` after an introduction; nothing without values.
    fn typed(&self, values: &[Value], introduction: &str) -> String {
        if values.is_empty() { String::new() } else { format!("{introduction} {} : {}", list(values), self.types(values)) }
    }

    fn descriptor_store(&self, op: &Op, before: &str) -> String {
        let indices = op.operands.get(2..).unwrap_or_default();
        let (descriptor, value) = (op.operands.first().map_or(0, |v| v.0), op.operands.get(1).map_or(0, |v| v.0));
        format!("{before} %{descriptor}[{}], %{value} : {}, {}", list(indices), self.ty(&op.operands, 0), self.ty(&op.operands, 1))
    }

    fn dot_scaled(&self, op: &Op, formats: &[String; 2], scales: [bool; 2], pack_k: [bool; 2]) -> String {
        let (mut values, mut types) = ([String::new(), String::new()], [String::new(), String::new()]);
        let mut next = 3;
        for i in 0..2 {
            values[i] = list(op.operands.get(i..=i).unwrap_or_default());
            types[i] = self.ty(&op.operands, i);
            if scales[i] {
                values[i] += &format!(" scale {}", list(op.operands.get(next..=next).unwrap_or_default()));
                types[i] += &format!(", {}", self.ty(&op.operands, next));
                next += 1;
            }
        }
        let attrs = dictionary(&[format!("lhs_k_pack = {}", pack_k[0]), format!("rhs_k_pack = {}", pack_k[1])]);
        let c = list(op.operands.get(2..=2).unwrap_or_default());
        format!(
            " {}, {}, {c} lhs = {} rhs = {}{attrs} : {} * {} -> {}",
            values[0], values[1], formats[0], formats[1], types[0], types[1], self.types(&op.results)
        )
    }

    fn with_region(&mut self, op: &Op, attrs: &str, terminator: &str, indent: usize) -> fmt::Result {
        write!(self.text, "({}) <{{{attrs}}}> (", list(&op.operands))?;
        for region in &op.regions {
            self.block(region, indent, terminator, true)?;
        }
        let signature = self.signature(op);
        writeln!(self.text, ") : {signature}")
    }

    fn scf_for(&mut self, op: &Op, unsigned: bool, indent: usize) -> fmt::Result {
        let body = &op.regions[0];
        let (bounds, initial) = op.operands.split_at(3.min(op.operands.len()));
        let index = body.args.first().copied().unwrap_or(Value(0));
        write!(self.text, " {}%{}", if unsigned { "unsigned " } else { "" }, index.0)?;
        for (word, bound) in ["=", "to", "step"].into_iter().zip(bounds) {
            write!(self.text, " {word} %{}", bound.0)?;
        }
        if !op.results.is_empty() {
            let pairs: Vec<_> = body.args.iter().skip(1).zip(initial).map(|(a, v)| format!("%{} = %{}", a.0, v.0)).collect();
            write!(self.text, " iter_args({}) -> ({})", pairs.join(", "), self.types(&op.results))?;
        }
        let ty = self.ty(&op.operands, 0);
        write!(self.text, " : {ty} ")?;
        self.block(body, indent, "scf.yield", false)?;
        self.text.push('\n');
        Ok(())
    }

    fn scf_if(&mut self, op: &Op, indent: usize) -> fmt::Result {
        write!(self.text, " {}", list(&op.operands))?;
        if !op.results.is_empty() {
            let types = self.types(&op.results);
            write!(self.text, " -> ({types})")?;
        }
        self.text.push(' ');
        self.block(&op.regions[0], indent, "scf.yield", false)?;
        if let Some(other) = op.regions.get(1).filter(|r| !r.ops.is_empty()) {
            self.text += " else ";
            self.block(other, indent, "scf.yield", false)?;
        }
        self.text.push('\n');
        Ok(())
    }

    fn scf_while(&mut self, op: &Op, indent: usize) -> fmt::Result {
        let pairs: Vec<_> = op.regions[0].args.iter().zip(&op.operands).map(|(a, v)| format!("%{} = %{}", a.0, v.0)).collect();
        let signature = self.signature(op);
        write!(self.text, " ({}) : {signature} ", pairs.join(", "))?;
        self.block(&op.regions[0], indent, "scf.yield", false)?;
        self.text += " do ";
        self.block(&op.regions[1], indent, "scf.yield", true)?;
        self.text.push('\n');
        Ok(())
    }
}

fn list(values: &[Value]) -> String {
    values.iter().map(|v| format!("%{}", v.0)).collect::<Vec<_>>().join(", ")
}

/// `%base, [%a, %b], [%c, %d]`, lists of `rank` values.
fn lists(values: &[Value], rank: usize) -> String {
    let (base, rest) = values.split_first().map_or((0, [].as_slice()), |(b, r)| (b.0, r));
    rest.chunks(rank.max(1)).fold(format!("%{base}"), |text, chunk| format!("{text}, [{}]", list(chunk)))
}

/// `%first[%second, …]`.
fn indexed(values: &[Value]) -> String {
    let (base, rest) = values.split_first().map_or((0, [].as_slice()), |(b, r)| (b.0, r));
    format!("%{base}[{}]", list(rest))
}

fn array(values: &[u32]) -> String {
    let text: Vec<_> = values.iter().map(u32::to_string).collect();
    if text.is_empty() { "array<i32>".into() } else { format!("array<i32: {}>", text.join(", ")) }
}

fn boundary_attr(boundary: &[u32]) -> Vec<String> {
    if boundary.is_empty() { Vec::new() } else { vec![format!("boundaryCheck = {}", array(boundary))] }
}

fn padding_attr(padding: Padding) -> Option<String> {
    PADDING.iter().find(|(_, p)| *p == padding).map(|(n, _)| format!("padding = {n} : i32"))
}

fn dictionary(attrs: &[String]) -> String {
    if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out += &format!("\\{:02X}", c as u32),
            c if (c as u32) < 32 => out += &format!("\\{:02X}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

fn symbol(name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b'-'));
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}
