//! The C border under descriptors with random sizes, tails, kinds, types, shapes, strides and attributes: every call ends in success or a
//! status with a known code and a text, never in a panic, and writes nothing outside the buffer it was given.

use core::ffi::c_void;
use core::ptr::{null, null_mut};

use flagos::border::{Buffer, Context, Device, Stream};
use flagos::calls as c;
use flagos_backend_api::{Attr, Binding, Code, DType, Error, Op, Status, Support, Tensor};
use flagos_catalog::blas::BlasCase;
use flagos_catalog::fft::FftCase;
use flagos_catalog::{Assignment, Case, Cases, Operator, Tier, assignments, operators};

use crate::random::Random;

/// Bytes of the memory calls work on.
const BYTES: u64 = 1 << 16;
/// Room behind each struct for tails.
const ROOM: usize = 128;
/// Work above this is asked about but not run: extents of 2^60 with stride 0 are valid, and take years.
const MOST_ELEMS: i64 = 1 << 14;

/// What the rounds share: a device, a stream, memory between two guards.
pub struct Rig {
    context: *mut Context,
    device: *mut Device,
    stream: *mut Stream,
    /// What calls read, and what they write: partly overlapping operands are the caller's fault, which the layer `validate` looks for.
    buffers: [*mut Buffer; 2],
    cases: Vec<(&'static Operator, Assignment, Case)>,
    blas: Vec<BlasCase>,
    fft: Vec<FftCase>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Taken.
    Done,
    /// Refused with a status.
    Refused,
}

/// Looks at what a call returned.
fn end(status: *mut Status, what: &str) -> End {
    // SAFETY: the status was returned just now and is consumed here.
    match unsafe { Error::from_status(status) } {
        Ok(()) => End::Done,
        Err(e) => {
            assert!(e.code != Code::INTERNAL && e.code != Code::PLUGIN_PANIC, "{what}: {e}");
            assert!(!e.message.is_empty(), "{what}: a refusal without a text, code {:?}", e.code);
            End::Refused
        }
    }
}

/// A struct with room behind it for a tail.
#[repr(C, align(8))]
struct Long<T> {
    value: T,
    tail: [u8; ROOM],
}

impl<T> Long<T> {
    /// `value` with a size that may be wrong and a tail that may not be zero.
    fn of(value: T, random: &mut Random, set: impl FnOnce(&mut T, u32)) -> Box<Long<T>> {
        let mut long = Box::new(Long { value, tail: [0; ROOM] });
        if random.once_in(3) {
            let size = if random.once_in(2) { random.below(size_of::<Self>() + 1) as u32 } else { size_of::<T>() as u32 + 8 * random.below(ROOM / 8) as u32 };
            set(&mut long.value, size);
        }
        if random.once_in(4) {
            long.tail[random.below(ROOM)] = random.bits() as u8;
        }
        long
    }
}

impl Rig {
    /// Opens the embedded device.
    pub fn new() -> Rig {
        let (mut context, mut device, mut stream, mut buffers) = (null_mut(), null_mut(), null_mut(), [null_mut(); 2]);
        // SAFETY: out pointers are locals.
        unsafe {
            assert_eq!(end(c::flagos_context_create(&mut context), "context"), End::Done);
            assert_eq!(end(c::flagos_device_open(context, c"embedded".as_ptr(), &mut device), "device"), End::Done);
            assert_eq!(end(c::flagos_stream_create(device, 0, 0, &mut stream), "stream"), End::Done);
            for buffer in &mut buffers {
                assert_eq!(end(c::flagos_buffer_alloc(device, BYTES, 0, buffer), "buffer"), End::Done);
            }
        }
        let mut cases = Vec::new();
        for operator in operators() {
            let types = assignments(operator);
            for case in Cases::of(operator).into_iter().filter(|case| case.tier == Tier::Smoke) {
                cases.push((*operator, types[cases.len() % types.len()].clone(), case));
            }
        }
        Rig { context, device, stream, buffers, cases, blas: flagos_catalog::blas::cases(), fft: flagos_catalog::fft::cases() }
    }

    fn operand(&self, random: &mut Random, written: bool) -> *mut c_void {
        match random.below(24) {
            0 => null_mut(),
            1 => self.stream.cast(),
            2 => self.context.cast(),
            _ => self.buffers[usize::from(written)].cast(),
        }
    }

    fn binding(&self, random: &mut Random, written: bool) -> Binding {
        Binding { buffer: self.operand(random, written).cast(), byte_offset: if random.once_in(12) { random.number() } else { 16 * random.below(BYTES as usize / 64) as u64 } }
    }

    fn tensor(&self, mut t: Tensor, random: &mut Random, written: bool) -> Tensor {
        t.buffer = self.operand(random, written).cast();
        t.byte_offset = if random.once_in(3) { random.number() } else { 8 * random.below(BYTES as usize / 16) as u64 };
        if random.once_in(4) {
            match random.below(8) {
                0 => t.size = random.number() as u32,
                1 => t.dtype = *random.pick(DType::ALL),
                2 => t.dtype = DType { code: random.bits() as u8, bits: random.bits() as u8, lanes: random.below(3) as u16 },
                3 => t.rank = random.number() as u32,
                4 => t.shape[random.below(8)] = random.number() as i64,
                5 => t.stride[random.below(8)] = random.number() as i64,
                6 => (t.layout, t.flags) = (random.number() as u16, random.number() as u16),
                _ => t.shape.swap(random.below(8), random.below(8)),
            }
        }
        t
    }

    /// One operator call: asked, inferred, explained, planned, run.
    pub fn operator(&self, random: &mut Random) -> End {
        let (operator, types, case) = random.pick(&self.cases);
        let Ok(instance) = case.instance(operator, types, 1) else { return End::Refused };
        // SAFETY: the descriptor is lent for the closure; its arrays hold what it states.
        instance.call.with_abi(|op| unsafe {
            let inputs: Vec<Tensor> = (0..op.n_in).map(|i| self.tensor(*op.inputs.add(i as usize), random, false)).collect();
            let outputs: Vec<Tensor> = (0..op.n_out).map(|i| self.tensor(*op.outputs.add(i as usize), random, true)).collect();
            let mut attrs: Vec<Attr> = (0..op.n_attr).map(|i| *op.attrs.add(i as usize)).collect();
            let span: Vec<i64> = (0..16).map(|_| random.number() as i64).collect();
            if random.once_in(3) {
                let key = if random.once_in(2) { random.number() as u32 } else { 1 + random.below(40) as u32 };
                let attr = match random.below(4) {
                    0 => Attr::f64(key, f64::from_bits(random.number())),
                    1 => Attr::span(key, &span[..random.below(span.len())]),
                    2 => Attr { key, tag: 5 + random.below(200) as u32, value: random.number() },
                    _ => Attr::i64(key, random.number() as i64),
                };
                match attrs.iter().position(|a| a.key >= key) {
                    Some(at) if random.once_in(2) => attrs[at] = attr,
                    Some(at) => attrs.insert(at, attr),
                    None => attrs.push(attr),
                }
            }
            let mut op = Op { inputs: inputs.as_ptr(), outputs: outputs.as_ptr(), attrs: attrs.as_ptr(), n_attr: attrs.len() as u32, ..*op };
            if random.once_in(4) {
                match random.below(6) {
                    0 => op.id = random.number() as u32,
                    1 => op.revision = random.number() as u32,
                    2 => op.n_in = random.below(inputs.len() + 1) as u16,
                    3 => op.n_out = random.below(outputs.len() + 1) as u16,
                    4 => op.n_attr = random.below(attrs.len() + 1) as u32,
                    _ => op.flags = random.number() as u32,
                }
            }
            let op = Long::of(op, random, |op, size| op.size = size);
            let op = &raw const op.value;
            let what = operator.name;
            let mut support = Long::of(Support { size: Support::SIZE, kind: Support::KIND, ..core::mem::zeroed() }, random, |s, size| s.size = size);
            end(c::flagos_op_query(self.device, op, random.below(4) as u32, &mut support.value), what);
            let (mut inferred, mut count) = ([Tensor::NONE; 2], 0);
            end(c::flagos_op_infer(op, inferred.as_mut_ptr(), random.below(3) as u32, &mut count), what);
            let mut text = null_mut();
            if end(c::flagos_op_explain(self.device, op, &mut text), what) == End::Done {
                c::flagos_text_free(text);
            }
            if inputs.iter().chain(&outputs).any(|t| t.elems() > MOST_ELEMS) {
                return End::Refused;
            }
            let ended = end(c::flagos_op_execute(self.stream, op), what);
            assert_eq!(end(c::flagos_stream_sync(self.stream), what), End::Done);
            ended
        })
    }

    /// One BLAS call: a case of the catalogue, changed.
    pub fn blas(&self, random: &mut Random) -> End {
        let mut desc = random.pick(&self.blas).desc;
        if random.once_in(3) {
            match random.below(6) {
                0 => desc.kind = random.number() as u32,
                1 => desc.routine = random.number() as u32,
                2 => *random.pick_mut(&mut [&mut desc.order, &mut desc.trans_a, &mut desc.trans_b, &mut desc.uplo, &mut desc.diag, &mut desc.side]) = random.number() as u32,
                3 => *random.pick_mut(&mut [&mut desc.dtype, &mut desc.out_dtype, &mut desc.compute_dtype]) = *random.pick(DType::ALL),
                4 => *random.pick_mut(&mut [&mut desc.m, &mut desc.n, &mut desc.k, &mut desc.batch]) = random.number() as i64,
                _ => {
                    let mut steps = [&mut desc.lda, &mut desc.ldb, &mut desc.ldc, &mut desc.incx, &mut desc.incy, &mut desc.stride_a, &mut desc.stride_b, &mut desc.stride_c];
                    *random.pick_mut(&mut steps) = random.number() as i64;
                }
            }
        }
        let work = [desc.m, desc.n, desc.k, desc.batch].into_iter().fold(1i64, |w, n| w.saturating_mul(n.saturating_abs().max(1)));
        let n_operands = flagos_catalog::blas::operands(&desc).map_or(3, |o| o.len());
        let n_bindings = if random.once_in(12) { random.below(5) } else { n_operands };
        let bindings: Vec<Binding> = (0..n_bindings).map(|i| self.binding(random, i + 1 == n_operands)).collect();
        let scalars = [1.0f64, 0.5];
        let desc = Long::of(desc, random, |d, size| d.size = size);
        // SAFETY: structs are as long as they state, with the tail behind them; arrays hold what is stated.
        unsafe {
            let mut support = Support { size: Support::SIZE, kind: Support::KIND, ..core::mem::zeroed() };
            end(c::flagos_blas_query(self.device, &desc.value, random.below(4) as u32, &mut support), "blas");
            if work > MOST_ELEMS {
                return End::Refused;
            }
            let alpha = if random.once_in(3) { null() } else { scalars.as_ptr().cast() };
            let ended = end(c::flagos_blas_execute(self.stream, &desc.value, bindings.as_ptr(), bindings.len() as u32, alpha, null()), "blas");
            assert_eq!(end(c::flagos_stream_sync(self.stream), "blas"), End::Done);
            ended
        }
    }

    /// One transform: a case of the catalogue, changed.
    pub fn fft(&self, random: &mut Random) -> End {
        let (mut desc, axis) = (random.pick(&self.fft).desc, random.below(3));
        if random.once_in(3) {
            match random.below(6) {
                0 => *random.pick_mut(&mut [&mut desc.kind, &mut desc.transform, &mut desc.direction, &mut desc.rank]) = random.number() as u32,
                1 => desc.precision = *random.pick(DType::ALL),
                2 => desc.scale = f64::from_bits(random.number()),
                3 => (*random.pick_mut(&mut [&mut desc.n, &mut desc.in_embed, &mut desc.out_embed]))[axis] = random.number() as i64,
                4 => desc.batch = random.number() as i64,
                _ => *random.pick_mut(&mut [&mut desc.in_stride, &mut desc.in_dist, &mut desc.out_stride, &mut desc.out_dist]) = random.number() as i64,
            }
        }
        let work = desc.n.into_iter().chain([desc.batch]).fold(1i64, |w, n| w.saturating_mul(n.saturating_abs().max(1)));
        let (input, output) = (self.binding(random, false), self.binding(random, true));
        let desc = Long::of(desc, random, |d, size| d.size = size);
        // SAFETY: structs are as long as they state, with the tail behind them.
        unsafe {
            let mut support = Support { size: Support::SIZE, kind: Support::KIND, ..core::mem::zeroed() };
            end(c::flagos_fft_query(self.device, &desc.value, random.below(4) as u32, &mut support), "fft");
            if work > MOST_ELEMS {
                return End::Refused;
            }
            let ended = end(c::flagos_fft_execute(self.stream, &desc.value, &input, &output), "fft");
            assert_eq!(end(c::flagos_stream_sync(self.stream), "fft"), End::Done);
            ended
        }
    }
}

impl Default for Rig {
    fn default() -> Rig {
        Rig::new()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // SAFETY: each handle is released once, the context last.
        unsafe {
            for buffer in self.buffers {
                end(c::flagos_buffer_release(buffer), "buffer");
            }
            end(c::flagos_stream_release(self.stream), "stream");
            end(c::flagos_device_release(self.device), "device");
            end(c::flagos_context_release(self.context), "context");
        }
    }
}
