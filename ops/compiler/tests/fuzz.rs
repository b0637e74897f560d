//! Mutated texts and mutated programs: every stage gives a result or an error, in time; simplification and the printer keep what a
//! program does. The budget is fixed and the numbers are the same in every run; `FLAGOS_FUZZ=N` multiplies it.

mod corpus;

use flagos_backend_api::{KernelFormat, caps};
use flagos_compiler::tile::{Block, Function, Item, OpKind, Program, Type, Value, interpret, parse::parse, simplify::simplify, verify::verify};
use flagos_compiler::{Arg, Options, Target, compile, error::Kind};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % n.max(1)
    }
    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn budget(mutants: usize) -> usize {
    mutants * std::env::var("FLAGOS_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// The texts to mutate: the corpus without most of its conversions (nearly all alike). Each still does what it did.
fn seeds() -> Vec<String> {
    let mut seeds = Vec::new();
    for case in corpus::cases() {
        if case.name.starts_with("cast_") && !case.name.ends_with("f8e5m2") {
            continue;
        }
        let text = without_places(&case.text);
        let mut args = case.args.clone();
        let program = parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", case.name));
        assert_eq!(program.to_string(), case.program().unwrap().to_string());
        interpret::run(&program, &case.entry, case.grid, &mut args).unwrap();
        case.check(&args).unwrap();
        seeds.push(text);
    }
    seeds.push(without_places(include_str!("text/forms.ttir")));
    seeds
}

/// A text without its locations, which are most of what Triton prints and the least of its meaning.
fn without_places(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" loc(") {
        out += &rest[..at];
        rest = &rest[at + 5..];
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        rest = &rest[end.map_or(rest.len(), |e| e + 1)..];
    }
    out += rest;
    out.lines().filter(|l| !l.starts_with("#loc")).map(|l| format!("{l}\n")).collect()
}

/// Words, numbers and marks of a text.
fn tokens(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '%' | '#' | '@' | '^' | '!');
    for (i, c) in text.char_indices() {
        if i > start && !(word(c) && text[start..i].chars().all(word)) {
            out.push(&text[start..i]);
            start = i;
        }
    }
    out.push(&text[start..]);
    out
}

fn mutate_text(random: &mut Random, seeds: &[String]) -> String {
    let text = random.pick(seeds).clone();
    if random.below(8) == 0 {
        let mut lines: Vec<&str> = text.lines().collect();
        let other: Vec<&str> = random.pick(seeds).lines().collect();
        for _ in 0..1 + random.below(3) {
            let (at, to) = (random.below(lines.len()), random.below(lines.len()));
            match random.below(3) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, random.pick::<&str>(&other)),
                _ => lines.swap(at, to),
            }
            if lines.is_empty() {
                break;
            }
        }
        return lines.join("\n");
    }
    const ODD: &[&str] = &[
        "0", "-1", "1", "3", "64", "4294967296", "9223372036854775807", "0x7FF", "1.0e+308", "i1", "i8", "i64", "f16", "bf16", "f64", "f8E5M2", "tensor", "!tt.ptr", "%0", "%arg0", "dense",
        "<", ">", "{", "}", "(", ")", "[", "]", ":", "->", ",", "\"", "\u{e9}", "^bb1", "axis", "true", "slt", "tt.return", "scf.yield", "x", "none", "-",
    ];
    let mut parts: Vec<&str> = tokens(&text);
    for _ in 0..1 + random.below(2) {
        let (at, to) = (random.below(parts.len()), random.below(parts.len()));
        match random.below(20) {
            0..2 => drop(parts.remove(at)),
            2..4 => parts.insert(at, random.pick::<&str>(ODD)),
            4..10 => parts[at] = random.pick::<&str>(ODD),
            10..17 => parts[at] = parts[to],
            17..19 => parts.swap(at, to),
            _ => parts.truncate(parts.len() - random.below(parts.len() / 4 + 1)),
        }
        if parts.is_empty() {
            break;
        }
    }
    parts.concat()
}

/// Changes a program where text cannot reach: operands, results, kinds, regions, types.
fn mutate_program(random: &mut Random, program: &mut Program, donors: &[OpKind]) {
    let at = random.below(program.functions.len());
    let function = &mut program.functions[at];
    if random.below(6) == 0 {
        let types = function.types.clone();
        let at = random.below(types.len());
        function.types[at] = random.pick(&types).clone();
    }
    let values = function.types.len();
    let mut block = &mut function.body;
    loop {
        if block.ops.is_empty() {
            return;
        }
        let at = random.below(block.ops.len());
        let deeper = !block.ops[at].regions.is_empty() && random.below(3) > 0;
        if deeper {
            let regions = block.ops[at].regions.len();
            block = &mut block.ops[at].regions[random.below(regions)];
            continue;
        }
        let op = &mut block.ops[at];
        match random.below(7) {
            0 => op.kind = random.pick(donors).clone(),
            1 if !op.operands.is_empty() => {
                let i = random.below(op.operands.len());
                op.operands[i] = Value(random.below(values + 1) as u32);
            }
            2 => drop(op.operands.pop()),
            3 => op.operands.push(Value(random.below(values) as u32)),
            4 => drop(op.results.pop()),
            5 => {
                let other = random.below(block.ops.len());
                block.ops.swap(at, other);
            }
            _ => drop(block.ops.remove(at)),
        }
        return;
    }
}

fn kinds(block: &Block, out: &mut Vec<OpKind>) {
    for op in &block.ops {
        out.push(op.kind.clone());
        op.regions.iter().for_each(|r| kinds(r, out));
    }
}

/// Arguments of a kernel: buffers of small whole numbers, scalars of 16.
fn arguments(function: &Function) -> Vec<Arg> {
    let argument = |value: &Value| match function.ty(*value) {
        Type::Scalar(Item::Ptr(_)) => Arg::Buffer((0..8192u32).map(|i| (i % 7) as u8).collect()),
        _ => Arg::Scalar(16),
    };
    function.body.args.iter().map(argument).collect()
}

fn launch(program: &Program, entry: &str) -> Result<Vec<Arg>, String> {
    let Some(function) = program.function(entry).filter(|f| f.public) else { return Err("no kernel".into()) };
    let mut args = arguments(function);
    interpret::run_within(program, entry, [2, 1, 1], &mut args, 1 << 17).map(|()| args).map_err(|e| e.message)
}

/// What went wrong with mutants, each kind once, with how often and the first of them.
#[derive(Default)]
struct Findings(std::collections::BTreeMap<String, (usize, String)>);

impl Findings {
    /// Runs the stages; a panic is a finding.
    fn stages(&mut self, program: &Program, what: &dyn Fn() -> String) -> bool {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stages(program, what)));
        caught.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            let kind: String = text.lines().next().unwrap_or("").chars().filter(|c| !c.is_ascii_digit()).take(90).collect();
            self.0.entry(kind).or_insert((0, text)).0 += 1;
            true
        })
    }

    fn none(&self) {
        let all: Vec<String> = self.0.values().map(|(n, text)| format!("{n} times: {text}")).collect();
        assert!(all.is_empty(), "{} findings\n\n{}", all.len(), all.join("\n\n"));
    }
}

/// Sends a program through every stage; gives whether it was valid.
fn stages(program: &Program, what: &dyn Fn() -> String) -> bool {
    if verify(program).is_err() {
        return false;
    }
    let text = program.to_string();
    let again = parse(&text).unwrap_or_else(|e| panic!("printed text does not parse: {e}\n{text}\nfrom {}", what()));
    assert_eq!(again.to_string(), {
        let mut numbered = program.clone();
        numbered.functions.iter_mut().for_each(flagos_compiler::tile::renumber);
        numbered.to_string()
    });
    let mut simple = program.clone();
    simplify(&mut simple);
    verify(&simple).unwrap_or_else(|e| panic!("simplified: {e}\n{simple}\nfrom {}", what()));
    let Some(entry) = program.functions.iter().find(|f| f.public).map(|f| f.name.clone()) else { return true };
    if let Ok(plain) = launch(program, &entry) {
        // What is simpler takes fewer steps, and touches no more memory.
        let after = launch(&simple, &entry).unwrap_or_else(|e| panic!("simplified: {e}\n{simple}\nfrom {}", what()));
        assert!(plain == after, "simplification changed what is written\n{simple}\nfrom {}", what());
    }
    for (format, threads, subgroup) in [(KernelFormat::C, 1, 0), (KernelFormat::OPENCL_C, 32, 0), (KernelFormat::SPIRV_VULKAN, 64, 32), (KernelFormat(77), 1, 0)] {
        let caps = caps::FP16 | caps::FP64 | caps::INT64;
        let target = Target { format, arch: "any".into(), caps, max_block_threads: 256, shared_bytes: 32 << 10, subgroup, matrix: Vec::new() };
        match compile(program, &entry, &target, &Options { threads, stages: 1 }) {
            Ok(compiled) => assert!(!compiled.code.is_empty() && format != KernelFormat(77)),
            Err(e) => assert!(!e.message.is_empty() && e.kind != Kind::Invalid, "{e}\n{program}\nfrom {}", what()),
        }
    }
    true
}

#[test]
fn mutated_texts_end_in_a_program_or_an_error() {
    let seeds = seeds();
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let mut findings = Findings::default();
    let (mut parsed, mut valid) = (0, 0);
    for _ in 0..budget(6000) {
        let text = mutate_text(&mut random, &seeds);
        match parse(&text) {
            Ok(program) => {
                parsed += 1;
                valid += usize::from(findings.stages(&program, &|| text.clone()));
            }
            Err(e) => assert!(!e.message.is_empty(), "{text}"),
        }
    }
    findings.none();
    assert!(parsed > 200 && valid > 100, "mutants die too early to test anything: {parsed} parsed, {valid} valid");
}

#[test]
fn mutated_programs_end_in_a_result_or_an_error() {
    let programs: Vec<Program> = seeds().iter().map(|t| parse(t).unwrap()).collect();
    let mut donors = Vec::new();
    programs.iter().flat_map(|p| &p.functions).for_each(|f| kinds(&f.body, &mut donors));
    let mut random = Random(0xFEDC_BA98_7654_3211);
    let mut findings = Findings::default();
    let mut valid = 0;
    for _ in 0..budget(3000) {
        let mut program = random.pick(&programs).clone();
        for _ in 0..1 + random.below(2) {
            mutate_program(&mut random, &mut program, &donors);
        }
        let copy = program.clone();
        valid += usize::from(findings.stages(&program, &|| format!("{copy:?}")));
    }
    findings.none();
    assert!(valid > 100, "mutants die too early to test anything: {valid} valid");
}

#[test]
fn random_bytes_are_no_program() {
    let mut random = Random(0x0BAD_5EED_0BAD_5EED);
    for length in 0..budget(2000) {
        let bytes: Vec<u8> = (0..length % 300).map(|_| b"%#@^!<>{}()[]\"=:,->/ \nxt0.1aloc\\\xc3\xa9"[random.below(34)]).collect();
        if let Ok(program) = parse(&String::from_utf8_lossy(&bytes)) {
            assert!(program.functions.is_empty());
        }
    }
}
