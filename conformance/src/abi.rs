//! Cases of the ABI: struct sizes and tails, what is unknown, NULL, handles, purity, threads, shutdown, another copy of the library.

use core::ffi::c_void;
use std::time::Duration;

use flagos_backend_api as abi;
use flagos_backend_api::{Answer, Attr, Code, DType, MemoryKind, Op, Tensor};
use flagos_catalog::{Cases, Instance, Tier, assignments, operators};

use crate::bench::{Bench, Footprint};
use crate::check::Check;
use crate::native::{limits, plan_op, query_op};
use crate::outcome::{Step, Stop, ensure, fail};
use crate::plan::RawCase;
use crate::protocol::Target;
use crate::raw::{Handle, refused, refused_with, sized, slot, take};

/// The cases.
pub const CASES: &[RawCase] = &[
    RawCase { name: "tables", isolated: false, run: tables },
    RawCase { name: "query-pure", isolated: false, run: query_pure },
    RawCase { name: "probe-capacity", isolated: false, run: probe_capacity },
    RawCase { name: "open-unknown", isolated: false, run: open_unknown },
    RawCase { name: "open-twice", isolated: false, run: open_twice },
    RawCase { name: "handle-word", isolated: false, run: handle_word },
    RawCase { name: "short-out", isolated: true, run: short_out },
    RawCase { name: "long-out", isolated: false, run: long_out },
    RawCase { name: "short-in", isolated: true, run: short_in },
    RawCase { name: "long-in", isolated: false, run: long_in },
    RawCase { name: "nonzero-tail", isolated: false, run: nonzero_tail },
    RawCase { name: "wrong-kind", isolated: true, run: wrong_kind },
    RawCase { name: "null-arguments", isolated: true, run: null_arguments },
    RawCase { name: "unknown-operator", isolated: false, run: unknown_operator },
    RawCase { name: "unknown-revision", isolated: false, run: unknown_revision },
    RawCase { name: "unknown-attribute", isolated: false, run: unknown_attribute },
    RawCase { name: "hint-attribute", isolated: false, run: hint_attribute },
    RawCase { name: "unknown-dtype", isolated: false, run: unknown_dtype },
    RawCase { name: "bad-descriptors", isolated: true, run: bad_descriptors },
    RawCase { name: "level-0-pure", isolated: false, run: level_0_pure },
    RawCase { name: "status-threads", isolated: false, run: status_threads },
    RawCase { name: "threads", isolated: false, run: threads },
    RawCase { name: "shutdown", isolated: true, run: shutdown },
    RawCase { name: "moved-library", isolated: true, run: moved_library },
];

/// A small call that the backend offers, in f32 where it can be.
pub fn sample(bench: &Bench) -> Step<Instance> {
    if bench.tables().op.is_none() {
        return Err(Stop::Skip("the backend has no operator table".into()));
    }
    for wanted in [Some(DType::F32), None] {
        for operator in operators() {
            for types in assignments(operator).iter().filter(|t| wanted.is_none_or(|w| t.inputs.first() == Some(&w))) {
                for case in Cases::of(operator).iter().filter(|c| c.tier == Tier::Smoke) {
                    let Ok(instance) = case.instance(operator, types, bench.seed) else { continue };
                    if instance.inputs.iter().any(|m| m.tensor.elems() == 0) || instance.inputs.iter().any(|m| m.tensor.is_none()) {
                        continue;
                    }
                    if instance.call.with_abi(|op| query_op(bench, op, 0))?.is_ok_and(|s| s.answer != Answer::NO.0) {
                        return Ok(instance);
                    }
                }
            }
        }
    }
    Err(Stop::Skip("the backend offers no operator".into()))
}

/// A struct with room behind it: `T`, then bytes that are not its own.
#[repr(C)]
struct Padded<T> {
    value: T,
    tail: [u64; 8],
}

fn tables(bench: &Bench) -> Step {
    let b = &bench.backend;
    for (what, text) in [("name", &b.name), ("version", &b.version), ("vendor", &b.vendor), ("build id", &b.build_id), ("compiler", &b.compiler)] {
        ensure(!text.trim().is_empty() && !text.chars().any(char::is_control), Check::Tables, || format!("the {what} is {text:?}"))?;
    }
    let t = bench.tables();
    let domains = t.backend.domains;
    for (bit, name, present) in [
        (abi::domains::OP, "op", t.op.is_some()),
        (abi::domains::BLAS, "blas", t.blas.is_some()),
        (abi::domains::FFT, "fft", t.fft.is_some()),
        (abi::domains::CCL, "ccl", t.ccl.is_some()),
        (abi::domains::MODULE, "module", t.module.is_some()),
        (abi::domains::PROFILE, "profile", t.profile.is_some()),
    ] {
        ensure((domains & bit != 0) == present, Check::Tables, || format!("the domain bit of '{name}' and its table disagree (table present: {present})"))?;
    }
    let i = bench.device.info();
    ensure(!i.name.is_empty() && !i.arch.is_empty(), Check::Tables, || format!("the device has name {:?} and arch {:?}; both are stated", i.name, i.arch))?;
    let probed = bench.runtime.devices().iter().find(|d| d.ordinal == bench.ordinal);
    ensure(probed.is_some_and(|p| p.arch == i.arch && p.caps == i.caps), Check::Tables, || "probe and info state different arch or caps".into())?;
    ensure(i.formats.is_empty() || t.module.is_some(), Check::Tables, || "the device lists kernel formats, and there is no module table".into())?;
    let slow = i.formats.iter().collect::<std::collections::BTreeSet<_>>().len() != i.formats.len();
    ensure(!slow, Check::Tables, || format!("the device lists a kernel format twice: {:?}", i.formats))
}

fn query_pure(bench: &Bench) -> Step {
    let (before, after) = &bench.footprint;
    ensure(before.threads == after.threads, Check::Purity, || format!("loading and asking the entry changed the number of threads from {} to {}", before.threads, after.threads))?;
    ensure(before.variables == after.variables, Check::Purity, || {
        let changed: Vec<&String> = before.variables.symmetric_difference(&after.variables).collect();
        format!("loading and asking the entry changed environment variables: {changed:?}")
    })?;
    let opened: Vec<&String> = after.devices.difference(&before.devices).collect();
    ensure(opened.is_empty(), Check::Purity, || format!("loading and asking the entry opened {opened:?}; only probe and open touch the driver"))
}

fn probe(bench: &Bench, out: &mut [abi::DeviceProbe], capacity: u32) -> Step<u32> {
    let mut count = u32::MAX;
    slot!(bench.tables().backend, probe, out.as_mut_ptr(), capacity, &mut count)??;
    Ok(count)
}

fn probe_capacity(bench: &Bench) -> Step {
    let blank = sized!(abi::DeviceProbe);
    let mut out: Vec<abi::DeviceProbe> = (0..65).map(|_| abi::DeviceProbe { pci: 0x5a5a, ..blank }).collect();
    let count = probe(bench, &mut out, 0)?;
    ensure(out[0].pci == 0x5a5a && out[0].score == 0, Check::Capacity, || "a probe with room for 0 devices wrote an entry".into())?;
    let room = count.min(64);
    let again = probe(bench, &mut out, room)?;
    ensure(again == count, Check::Capacity, || format!("probe counts {count} devices, then {again}"))?;
    ensure(out[room as usize].pci == 0x5a5a, Check::Capacity, || format!("a probe with room for {room} devices wrote one more"))?;
    let sizes = out[..room as usize].iter().all(|p| p.size == abi::DeviceProbe::SIZE && p.kind == abi::DeviceProbe::KIND);
    ensure(sizes, Check::Capacity, || "probe changed the size or kind of an entry".into())
}

fn open_unknown(bench: &Bench) -> Step {
    for ordinal in [10_000, u32::MAX] {
        let mut out = core::ptr::null_mut();
        let answer = slot!(bench.tables().device, open, ordinal, &mut out)?;
        refused_with(answer, &[Code::NOT_FOUND, Code::INVALID_ARGUMENT, Code::UNAVAILABLE], Check::Accepted, &format!("opening device {ordinal}"))?;
        ensure(out.is_null(), Check::Accepted, || "a refused open left a handle".into())?;
    }
    Ok(())
}

fn open_twice(bench: &Bench) -> Step {
    let second = crate::raw::open(&bench.tables().device, bench.ordinal)?;
    ensure(second.0 != bench.raw.0, Check::Handles, || "opening a device twice gave one handle; it gives two on one device".into())?;
    slot!(bench.tables().device, close, second.0)??;
    let memory = bench.memory(64)?;
    let queue = bench.queue()?;
    queue.write(&memory, 0, &[1; 64])?;
    crate::memory::expect(Check::Handles, "memory of the first handle after the second was closed", &[1; 64], &queue.read(&memory, 0, 64)?)
}

fn handle_word(bench: &Bench) -> Step {
    let want = bench.backend.address.as_ptr() as usize;
    let (memory, queue, event) = (bench.memory(64)?, bench.queue()?, bench.timeline()?);
    let mut handles: Vec<(&str, *const c_void)> = vec![
        ("device", bench.raw.0 as *const c_void),
        ("buffer", memory.handle.0 as *const c_void),
        ("stream", queue.handle.0 as *const c_void),
        ("event", event.handle.0 as *const c_void),
    ];
    let plan = match sample(bench) {
        Ok(instance) => Some(instance.call.with_abi(|op| plan_op(bench, op, &limits()))??),
        Err(Stop::Skip(_)) => None,
        Err(stop) => return Err(stop),
    };
    handles.extend(plan.as_ref().map(|p| ("plan", p.handle.0 as *const c_void)));
    for (what, handle) in handles {
        // SAFETY: the contract puts a pointer first in every handle; the handle is live.
        let word = unsafe { handle.cast::<usize>().read() };
        ensure(word == want, Check::HandleWord, || format!("the first word of a {what} is {word:#x}; the backend's table lies at {want:#x}"))?;
    }
    Ok(())
}

/// Out structs, each with the call that fills it: (name, size, call on a pointer whose struct says a size).
type Fill<'a> = (&'static str, u32, u32, Box<dyn Fn(*mut c_void) -> crate::raw::Answer + 'a>);

fn out_structs<'a>(bench: &'a Bench, op: &'a Op) -> Vec<Fill<'a>> {
    let t = bench.tables();
    let mut list: Vec<Fill> = vec![("flagos_device_info_t", abi::DeviceInfo::SIZE, abi::DeviceInfo::KIND, Box::new(move |p| slot!(t.device, info, bench.raw.0, p.cast())))];
    let mut state = sized!(abi::MemoryInfo);
    if slot!(t.memory, info, bench.raw.0, &mut state).is_ok_and(|answer| answer.is_ok()) {
        list.push(("flagos_memory_info_t", abi::MemoryInfo::SIZE, abi::MemoryInfo::KIND, Box::new(move |p| slot!(t.memory, info, bench.raw.0, p.cast()))));
    }
    if let Some(table) = &t.op {
        list.push(("flagos_support_t", abi::Support::SIZE, abi::Support::KIND, Box::new(move |p| slot!(table, query, bench.raw.0, op, 2, p.cast()))));
    }
    list
}

/// Runs a procedure with an operator descriptor; one of no known operator where the backend offers none.
fn with_op<R>(bench: &Bench, f: impl FnOnce(&Op) -> Step<R>) -> Step<R> {
    match sample(bench) {
        Ok(instance) => instance.call.with_abi(f),
        Err(Stop::Skip(_)) => f(&unknown()),
        Err(stop) => Err(stop),
    }
}

/// A descriptor without operands.
fn unknown() -> Op {
    Op {
        size: Op::SIZE,
        id: 0x7fff_fff0,
        revision: 1,
        n_in: 0,
        n_out: 0,
        n_attr: 0,
        flags: 0,
        inputs: core::ptr::null(),
        outputs: core::ptr::null(),
        attrs: core::ptr::null(),
        next: core::ptr::null(),
    }
}

const MARK: u64 = 0x5a5a_5a5a_5a5a_5a5a;

fn short_out(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, _, kind, fill) in out_structs(bench, op) {
            for size in [0u32, 8, 12, 16] {
                let mut words = [MARK; 64];
                words[0] = u64::from(size) | u64::from(kind) << 32;
                let answer = fill(words.as_mut_ptr().cast())?;
                let own = (size as usize).div_ceil(8).max(1);
                let beyond = words[own..].iter().position(|w| *w != MARK);
                ensure(beyond.is_none(), Check::ShortStruct, || {
                    let how = if answer.is_ok() { "accepted" } else { "refused" };
                    format!("{name} of size {size} was {how}, and byte {} was written", 8 * (own + beyond.unwrap_or(0)))
                })?;
            }
        }
        Ok(())
    })
}

fn long_out(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, size, kind, fill) in out_structs(bench, op) {
            let mut words = [0u64; 96];
            let own = (size as usize).div_ceil(8);
            words[0] = u64::from(size + 64) | u64::from(kind) << 32;
            words[own + 8..].fill(MARK);
            if let Err(e) = fill(words.as_mut_ptr().cast())? {
                return fail(Check::LongStruct, format!("{name} of size {} with a tail of zeros is refused: {e}", size + 64));
            }
            ensure(words[own..own + 8].iter().all(|w| *w == 0), Check::LongStruct, || format!("the tail of a longer {name} was written"))?;
            ensure(words[own + 8..].iter().all(|w| *w == MARK), Check::LongStruct, || format!("bytes behind a longer {name} were written"))?;
        }
        Ok(())
    })
}

fn alloc_desc(bytes: u64) -> abi::AllocDesc {
    abi::AllocDesc { bytes, memory_kind: MemoryKind::DEVICE.0, ..sized!(abi::AllocDesc) }
}

/// An in struct: name, size, its words with room behind, call on a pointer to them.
type Read<'a> = (&'static str, u32, Vec<u64>, Box<dyn Fn(*const c_void) -> crate::raw::Answer + 'a>);

/// In structs with room behind, each with the call that reads it; what it made is destroyed.
fn in_structs<'a>(bench: &'a Bench, op: &'a Op) -> Vec<Read<'a>> {
    let t = bench.tables();
    fn words<T>(value: T) -> Vec<u64> {
        let padded = Padded { value, tail: [0; 8] };
        // SAFETY: the structs of the ABI are plain data without padding bytes, in multiples of 8 bytes.
        unsafe { core::slice::from_raw_parts((&raw const padded).cast::<u64>(), size_of::<Padded<T>>() / 8) }.to_vec()
    }
    let mut list: Vec<Read<'a>> = vec![
        (
            "flagos_alloc_desc_t",
            abi::AllocDesc::SIZE,
            words(alloc_desc(64)),
            Box::new(move |p| {
                let mut out = core::ptr::null_mut();
                let answer = slot!(t.memory, alloc, bench.raw.0, p.cast(), &mut out)?;
                if answer.is_ok() {
                    slot!(t.memory, free, out)??;
                }
                Ok(answer)
            }),
        ),
        (
            "flagos_stream_desc_t",
            abi::StreamDesc::SIZE,
            words(sized!(abi::StreamDesc)),
            Box::new(move |p| {
                let mut out = core::ptr::null_mut();
                let answer = slot!(t.stream, create, bench.raw.0, p.cast(), &mut out)?;
                if answer.is_ok() {
                    slot!(t.stream, destroy, out)??;
                }
                Ok(answer)
            }),
        ),
    ];
    if let (Some(table), Some(plans)) = (&t.op, &t.op_plans)
        && op.n_out > 0
    {
        list.push((
            "flagos_plan_limits_t",
            abi::PlanLimits::SIZE,
            words(limits()),
            Box::new(move |p| {
                let mut out = core::ptr::null_mut();
                let answer = slot!(table, plan, bench.raw.0, op, p.cast(), &mut out)?;
                if answer.is_ok() {
                    slot!(plans, destroy, out)??;
                }
                Ok(answer)
            }),
        ));
    }
    list
}

fn set_size(words: &mut [u64], size: u32) {
    words[0] = (words[0] & !0xffff_ffff) | u64::from(size);
}

fn short_in(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, _, mut words, call) in in_structs(bench, op) {
            for size in [0, 4, 8] {
                set_size(&mut words, size);
                refused(call(words.as_ptr().cast())?, Check::ShortStruct, &format!("{name} of size {size}, shorter than in minor 0,"))?;
            }
        }
        Ok(())
    })
}

fn long_in(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, size, mut words, call) in in_structs(bench, op) {
            set_size(&mut words, size + 64);
            if let Err(e) = call(words.as_ptr().cast())? {
                return fail(Check::LongStruct, format!("{name} of size {} with a tail of zeros is refused: {e}", size + 64));
            }
        }
        Ok(())
    })
}

fn nonzero_tail(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, size, words, call) in in_structs(bench, op) {
            for at in [0usize, 63] {
                let mut words = words.clone();
                set_size(&mut words, size + 64);
                let byte = size as usize + at;
                words[byte / 8] |= 1 << (8 * (byte % 8));
                let answer = call(words.as_ptr().cast())?;
                refused_with(answer, &[Code::UNSUPPORTED_FIELD], Check::NonzeroTail, &format!("{name} of size {} whose byte {byte} is 1", size + 64))?;
            }
        }
        Ok(())
    })
}

fn wrong_kind(bench: &Bench) -> Step {
    with_op(bench, |op| {
        for (name, _, mut words, call) in in_structs(bench, op) {
            words[0] ^= 0x40 << 32;
            refused(call(words.as_ptr().cast())?, Check::Kind, &format!("{name} of another kind"))?;
        }
        Ok(())
    })
}

fn null_arguments(bench: &Bench) -> Step {
    let t = bench.tables();
    let queue = bench.queue()?;
    let memory = bench.memory(64)?;
    let mut buffer = core::ptr::null_mut();
    let mut value = 0;
    let (desc, stream_desc, launch) = (alloc_desc(64), sized!(abi::StreamDesc), sized!(abi::Launch));
    let (mut device_info, mut plan_info) = (sized!(abi::DeviceInfo), sized!(abi::PlanInfo));
    let answers: Vec<(&str, crate::raw::Answer)> = vec![
        ("open without out_device", slot!(t.device, open, bench.ordinal, core::ptr::null_mut())),
        ("info without a device", slot!(t.device, info, core::ptr::null_mut(), &mut device_info)),
        ("info without out_info", slot!(t.device, info, bench.raw.0, core::ptr::null_mut())),
        ("alloc without a device", slot!(t.memory, alloc, core::ptr::null_mut(), &desc, &mut buffer)),
        ("alloc without a descriptor", slot!(t.memory, alloc, bench.raw.0, core::ptr::null(), &mut buffer)),
        ("alloc without out_buffer", slot!(t.memory, alloc, bench.raw.0, &desc, core::ptr::null_mut())),
        ("free without a buffer", slot!(t.memory, free, core::ptr::null_mut())),
        ("read without a stream", slot!(t.memory, read, core::ptr::null_mut(), memory.handle.0, 0, (&raw mut value).cast(), 8)),
        ("read without a destination", slot!(t.memory, read, queue.handle.0, memory.handle.0, 0, core::ptr::null_mut(), 8)),
        ("write without a buffer", slot!(t.memory, write, queue.handle.0, core::ptr::null_mut(), 0, (&raw const value).cast(), 8)),
        ("fill without a pattern", slot!(t.memory, fill, queue.handle.0, memory.handle.0, 0, core::ptr::null(), 4, 8)),
        ("create without out_stream", slot!(t.stream, create, bench.raw.0, &stream_desc, core::ptr::null_mut())),
        ("sync without a stream", slot!(t.stream, sync, core::ptr::null_mut())),
        ("event_query without an event", slot!(t.stream, event_query, core::ptr::null_mut(), &mut value)),
        ("signal without an event", slot!(t.stream, signal, queue.handle.0, core::ptr::null_mut(), 1)),
    ];
    for (what, answer) in answers {
        refused_with(answer?, &[Code::INVALID_ARGUMENT], Check::NullArgument, what)?;
    }
    let (Some(table), Some(plans)) = (&t.op, &t.op_plans) else { return Ok(()) };
    let mut plan = core::ptr::null_mut();
    let mut support = sized!(abi::Support);
    let answers = [
        ("query without a descriptor", slot!(table, query, bench.raw.0, core::ptr::null(), 0, &mut support)),
        ("plan without a descriptor", slot!(table, plan, bench.raw.0, core::ptr::null(), &limits(), &mut plan)),
        ("plan information without a plan", slot!(plans, info, core::ptr::null_mut(), &mut plan_info)),
        ("launch without a plan", slot!(plans, launch, core::ptr::null_mut(), queue.handle.0, &launch)),
    ];
    answers.into_iter().try_for_each(|(what, answer)| refused_with(answer?, &[Code::INVALID_ARGUMENT], Check::NullArgument, what))
}

/// What comes from the future: not offered by query, UNIMPLEMENTED from plan.
fn not_offered(bench: &Bench, op: &Op, check: Check, what: &str) -> Step {
    match query_op(bench, op, 0)? {
        Ok(support) => ensure(support.answer == Answer::NO.0, check, || format!("{what} is answered {}; it is NO", Answer(support.answer)))?,
        Err(e) => ensure(e.code == Code::UNIMPLEMENTED, check, || format!("{what}: query answers {e}; it is NO or UNIMPLEMENTED"))?,
    }
    let planned = plan_op(bench, op, &limits())?.map(drop);
    refused_with(planned, &[Code::UNIMPLEMENTED], check, &format!("planning {what}"))
}

fn unknown_operator(bench: &Bench) -> Step {
    for id in [0, 0x7fff_fff0, u32::MAX] {
        let op = Op { id, ..unknown() };
        match query_op(bench, &op, 0)? {
            Ok(support) => ensure(support.answer == Answer::NO.0, Check::UnknownOperator, || format!("operator {id:#x} is answered {}", Answer(support.answer)))?,
            Err(e) => return fail(Check::UnknownOperator, format!("query of operator {id:#x} answers {e}; an unknown id is answered NO")),
        }
        not_offered(bench, &op, Check::UnknownOperator, &format!("operator {id:#x}"))?;
    }
    Ok(())
}

fn unknown_revision(bench: &Bench) -> Step {
    let call = sample(bench)?.call;
    call.with_abi(|op| not_offered(bench, &Op { revision: op.revision + 1000, ..*op }, Check::UnknownOperator, "a revision of the future"))
}

/// A sample call with one attribute more.
fn with_attribute<R>(bench: &Bench, key: u32, f: impl FnOnce(&Op) -> Step<R>) -> Step<R> {
    sample(bench)?.call.with_abi(|op| {
        let mut attrs = Vec::new();
        for i in 0..op.n_attr as usize {
            // SAFETY: the descriptor states `n_attr` attributes, lent for this call.
            attrs.push(unsafe { *op.attrs.add(i) });
        }
        attrs.push(Attr::i64(key, 1));
        f(&Op { n_attr: attrs.len() as u32, attrs: attrs.as_ptr(), ..*op })
    })
}

fn unknown_attribute(bench: &Bench) -> Step {
    with_attribute(bench, 0x7fff_fff0, |op| not_offered(bench, op, Check::UnknownAttribute, "a call with an attribute of the future"))
}

fn hint_attribute(bench: &Bench) -> Step {
    with_attribute(bench, 0x7fff_fff0 | abi::ATTR_HINT, |op| {
        let offered = query_op(bench, op, 0)?.is_ok_and(|s| s.answer != Answer::NO.0);
        ensure(offered, Check::UnknownAttribute, || "an unknown hint makes a call unsupported; hints may be ignored".into())?;
        match plan_op(bench, op, &limits())? {
            Ok(_) => Ok(()),
            Err(e) => fail(Check::UnknownAttribute, format!("an unknown hint keeps a call from being planned: {e}")),
        }
    })
}

/// A sample call with its first input changed.
fn with_input(bench: &Bench, change: impl Fn(&mut Tensor)) -> Step<(Instance, Vec<Tensor>)> {
    let instance = sample(bench)?;
    let mut inputs = instance.call.inputs.clone();
    change(&mut inputs[0]);
    Ok((instance, inputs))
}

fn unknown_dtype(bench: &Bench) -> Step {
    for dtype in [DType { code: 200, bits: 8, lanes: 1 }, DType { code: 2, bits: 24, lanes: 1 }, DType { code: 2, bits: 32, lanes: 4 }] {
        let (instance, inputs) = with_input(bench, |t| t.dtype = dtype)?;
        instance.call.with_abi(|op| -> Step {
            let op = Op { inputs: inputs.as_ptr(), ..*op };
            if let Ok(support) = query_op(bench, &op, 0)? {
                ensure(support.answer == Answer::NO.0, Check::UnknownDtype, || format!("{dtype:?} is answered {}", Answer(support.answer)))?;
            }
            let planned = plan_op(bench, &op, &limits())?.map(drop);
            refused_with(planned, &[Code::UNIMPLEMENTED, Code::INVALID_ARGUMENT], Check::UnknownDtype, &format!("planning on {dtype:?}"))
        })?;
    }
    Ok(())
}

/// Malformed tensors are refused, whatever they hold.
fn bad_descriptors(bench: &Bench) -> Step {
    type Change = fn(&mut Tensor);
    let changes: [(&str, Change); 6] = [
        ("rank 9", |t| t.rank = 9),
        ("rank 2^31", |t| t.rank = 1 << 31),
        ("a negative extent", |t| (t.rank, t.shape[0]) = (1, -4)),
        ("an extent of 2^62 with a stride of 2^62", |t| (t.rank, t.shape[0], t.stride[0]) = (1, 1 << 62, 1 << 62)),
        ("an unknown layout", |t| t.layout = 7),
        ("size 0", |t| t.size = 0),
    ];
    for (what, change) in changes {
        let (instance, inputs) = with_input(bench, change)?;
        instance.call.with_abi(|op| -> Step {
            let op = Op { inputs: inputs.as_ptr(), ..*op };
            // The host checks calls before it asks, so any answer will do; only the plan must be refused.
            let _ = query_op(bench, &op, 0)?;
            refused(plan_op(bench, &op, &limits())?.map(drop), Check::Accepted, &format!("planning on a tensor with {what}")).map(drop)
        })?;
    }
    let instance = sample(bench)?;
    instance.call.with_abi(|op| -> Step {
        for (what, op) in [("flags", Op { flags: 1, ..*op }), ("size 0", Op { size: 0, ..*op }), ("no outputs", Op { n_out: 0, ..*op })] {
            refused(plan_op(bench, &op, &limits())?.map(drop), Check::Accepted, &format!("planning a descriptor with {what}"))?;
        }
        Ok(())
    })
}

fn level_0_pure(bench: &Bench) -> Step {
    let instance = sample(bench)?;
    let before = (bench.host_use().allocations, Footprint::now().threads);
    instance.call.with_abi(|op| -> Step {
        for i in 0..10_000 {
            let answer = query_op(bench, op, 0)?.map(|s| s.answer);
            ensure(answer.as_ref().is_ok_and(|a| *a != Answer::NO.0), Check::Purity, || format!("query {i} of one call answers otherwise than the first: {answer:?}"))?;
        }
        Ok(())
    })?;
    let after = (bench.host_use().allocations, Footprint::now().threads);
    ensure(after.0 == before.0, Check::Purity, || format!("10000 level-0 queries took host memory {} times", after.0 - before.0))?;
    ensure(after.1 <= before.1, Check::Purity, || format!("level-0 queries started {} threads", after.1 - before.1))
}

fn status_threads(bench: &Bench) -> Step {
    let open = bench.tables().device.open.ok_or_else(|| Stop::Skip("the slot 'open' is empty".into()))?;
    let mut statuses = Vec::new();
    for _ in 0..64 {
        let mut out = core::ptr::null_mut();
        // SAFETY: an ordinal that does not exist; `out` is written before return.
        let status = unsafe { open(u32::MAX, &mut out) };
        ensure(!status.is_null(), Check::Accepted, || "opening device 4294967295 succeeded".into())?;
        statuses.push(Handle(status));
    }
    let taken = std::thread::spawn(move || {
        // The wrapper crosses, not the pointer in it.
        let statuses = statuses;
        statuses.into_iter().rev().map(|s| take(s.0).map(|answer| answer.is_err())).collect::<Step<Vec<bool>>>()
    });
    let taken = taken.join().unwrap_or_else(|_| fail(Check::Status, "reading statuses on another thread panicked"))?;
    ensure(taken.iter().all(|error| *error), Check::Status, || "a status read as success on another thread".into())
}

fn threads(bench: &Bench) -> Step {
    let work = || -> Step {
        let instance = match sample(bench) {
            Ok(instance) => Some(instance),
            Err(Stop::Skip(_)) => None,
            Err(stop) => return Err(stop),
        };
        for _ in 0..32 {
            let mut info = sized!(abi::DeviceInfo);
            slot!(bench.tables().device, info, bench.raw.0, &mut info)??;
            drop((bench.memory(100)?, bench.timeline()?, bench.queue()?));
            if let Some(instance) = &instance {
                let plan = instance.call.with_abi(|op| plan_op(bench, op, &limits()))??;
                plan.info()?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        started.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| fail(Check::Threads, "a thread of the case panicked")))
    })
}

/// Ends the backend; what comes after is refused, and what was given out before can still be released.
fn shutdown(bench: &Bench) -> Step {
    let t = bench.tables();
    let open = t.device.open.ok_or_else(|| Stop::Skip("the slot 'open' is empty".into()))?;
    let mut out = core::ptr::null_mut();
    // SAFETY: an ordinal that does not exist; `out` is written before return.
    let kept = unsafe { open(u32::MAX, &mut out) };
    ensure(!kept.is_null(), Check::Accepted, || "opening device 4294967295 succeeded".into())?;
    let instance = sample(bench).ok();
    let mut device_info = sized!(abi::DeviceInfo);
    slot!(t.backend, shutdown,)??;
    slot!(t.backend, shutdown,)??;
    let answers = [
        ("open", slot!(t.device, open, bench.ordinal, &mut out)),
        ("info", slot!(t.device, info, bench.raw.0, &mut device_info)),
        ("alloc", bench.try_alloc(&alloc_desc(64)).map(|a| a.map(core::mem::forget))),
        ("event_create", bench.timeline().map(core::mem::forget).map(Ok).or_else(|stop| match stop {
            Stop::Fail(f) if f.message.contains("FAILED_PRECONDITION") => Ok(Err(abi::Error::new(Code::FAILED_PRECONDITION, f.message))),
            stop => Err(stop),
        })),
    ];
    for (what, answer) in answers {
        refused_with(answer?, &[Code::FAILED_PRECONDITION], Check::Shutdown, &format!("'{what}' after shutdown"))?;
    }
    if let Some(instance) = instance {
        let planned = instance.call.with_abi(|op| plan_op(bench, op, &limits()))?.map(core::mem::forget);
        refused_with(planned, &[Code::FAILED_PRECONDITION], Check::Shutdown, "'plan' after shutdown")?;
    }
    let error = refused(take(kept)?, Check::Shutdown, "a status from before shutdown")?;
    ensure(!error.message.is_empty(), Check::Shutdown, || "a status from before shutdown lost its text".into())
}

/// A copy of the library elsewhere works, beside the first one in this process.
fn moved_library(bench: &Bench) -> Step {
    let Some(library) = &bench.backend.library else { return Err(Stop::Skip("the backend is linked in".into())) };
    let folder = std::env::temp_dir().join(format!("flagos-moved-{}", std::process::id()));
    let copy = folder.join(library.file_name().unwrap_or_default());
    let copied = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(library, &copy));
    let opened = match copied {
        Ok(_) => Bench::open(&Target::File(copy), bench.ordinal, &[], bench.tier, bench.seed, bench.implementation),
        Err(e) => return Err(Stop::Skip(format!("the library cannot be copied: {e}"))),
    };
    let worked = match &opened {
        Err(refused) => fail(Check::Moved, format!("a copy of the library is refused: {}", refused.reason)),
        Ok(second) => {
            ensure(second.backend.build_id == bench.backend.build_id, Check::Moved, || "the copy has another build id".into())
                .and_then(|()| both(bench, second))
        }
    };
    drop(opened);
    let _ = std::fs::remove_dir_all(&folder);
    worked
}

/// Two backends at work in one process.
fn both(a: &Bench, b: &Bench) -> Step {
    let (qa, qb) = (a.queue()?, b.queue()?);
    let (ma, mb) = (a.memory(4096)?, b.memory(4096)?);
    qa.fill(&ma, 0, &[1], 4096)?;
    qb.fill(&mb, 0, &[2], 4096)?;
    let (ea, eb) = (a.timeline()?, b.timeline()?);
    qa.signal(&ea, 1)?;
    qb.signal(&eb, 1)?;
    ea.sync(1, Duration::from_secs(10))??;
    eb.sync(1, Duration::from_secs(10))??;
    crate::memory::expect(Check::Moved, "memory of the first", &[1; 4096], &qa.read(&ma, 0, 4096)?)?;
    crate::memory::expect(Check::Moved, "memory of the copy", &[2; 4096], &qb.read(&mb, 0, 4096)?)
}
