//! Cases of the stream table: order, timelines, waits across streams, threads, launches on a stream that waits.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use flagos_backend_api as abi;
use flagos_backend_api::Code;

use crate::abi::sample;
use crate::bench::Bench;
use crate::check::Check;
use crate::guard::{Poison, poisoned};
use crate::memory::expect;
use crate::native::{self, Bound};
use crate::outcome::{Step, Stop, ensure, fail};
use crate::plan::RawCase;
use crate::raw::{Memory, Queue, Timeline, optional, refused_with, slot, take};
use crate::task::Task;

/// The cases.
pub const CASES: &[RawCase] = &[
    RawCase { name: "order", isolated: false, run: order },
    RawCase { name: "cross-wait", isolated: false, run: cross_wait },
    RawCase { name: "wait-before-signal", isolated: false, run: wait_before_signal },
    RawCase { name: "timeline", isolated: false, run: timeline },
    RawCase { name: "deadline", isolated: false, run: deadline },
    RawCase { name: "idle", isolated: false, run: idle },
    RawCase { name: "many", isolated: false, run: many },
    RawCase { name: "destroy-while-busy", isolated: false, run: destroy_while_busy },
    RawCase { name: "threads", isolated: false, run: threads },
    RawCase { name: "one-plan-many-streams", isolated: false, run: one_plan },
    RawCase { name: "launch-returns", isolated: true, run: launch_returns },
    RawCase { name: "elapsed", isolated: false, run: elapsed },
    RawCase { name: "native", isolated: false, run: native_queue },
];

/// Large enough that a device is still at it when the next call comes.
const BULK: u64 = 8 << 20;
const LONG: Duration = Duration::from_secs(10);

fn order(bench: &Bench) -> Step {
    let queue = bench.queue()?;
    let (a, b, c) = (bench.memory(BULK)?, bench.memory(BULK)?, bench.memory(BULK)?);
    for round in 1..=16u8 {
        queue.fill(&a, 0, &[round], BULK)?;
        queue.copy(&b, 0, &a, 0, BULK)?;
        queue.fill(&a, 0, &[0xee], BULK)?;
        queue.copy(&c, 0, &b, 0, BULK)?;
    }
    let last = queue.read(&c, 0, BULK)?;
    let wrong = last.iter().position(|x| *x != 16);
    ensure(wrong.is_none(), Check::Order, || format!("byte {wrong:?} of a chain of fills and copies is not the last round's"))
}

fn cross_wait(bench: &Bench) -> Step {
    let (first, second, event) = (bench.queue()?, bench.queue()?, bench.timeline()?);
    let (a, b) = (bench.memory(BULK)?, bench.memory(BULK)?);
    for round in 1..=8u8 {
        // The first stream overwrites what the second copies, so it waits in its turn.
        first.fill(&a, 0, &[round], BULK)?;
        first.signal(&event, 2 * u64::from(round) - 1)?;
        second.wait(&event, 2 * u64::from(round) - 1)?;
        second.copy(&b, 0, &a, 0, BULK)?;
        second.signal(&event, 2 * u64::from(round))?;
        first.wait(&event, 2 * u64::from(round))?;
        let got = second.read(&b, 0, BULK)?;
        let wrong = got.iter().position(|x| *x != round);
        ensure(wrong.is_none(), Check::CrossWait, || format!("round {round}: byte {wrong:?} was copied before the stream it waits for wrote it"))?;
    }
    first.sync()
}

/// A wait may come before the signal it waits for, from another thread.
fn wait_before_signal(bench: &Bench) -> Step {
    let (a, b) = (bench.memory(4096)?, bench.memory(4096)?);
    let (event, slow) = (bench.timeline()?, bench.queue()?);
    slow.fill(&a, 0, &[1], 4096)?;
    slow.sync()?;
    let outcome = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| -> Step<Vec<u8>> {
            let queue = bench.queue()?;
            queue.wait(&event, 1)?;
            queue.copy(&b, 0, &a, 0, 4096)?;
            queue.read(&b, 0, 4096)
        });
        std::thread::sleep(Duration::from_millis(30));
        let signalled = slow.fill(&a, 0, &[2], 4096).and_then(|()| slow.signal(&event, 1)).and_then(|()| slow.sync());
        let got = waiter.join().unwrap_or_else(|_| fail(Check::Error, "the waiting thread panicked"));
        signalled.and(got)
    })?;
    expect(Check::CrossWait, "a copy that waits for a later signal", &[2; 4096], &outcome)
}

fn timeline(bench: &Bench) -> Step {
    let (queue, event) = (bench.queue()?, bench.timeline()?);
    ensure(event.value()? == 0, Check::Timeline, || "a new event is not at 0".into())?;
    let memory = bench.memory(1 << 20)?;
    let mut seen = 0;
    // Values may skip; all ones but one is the greatest.
    for value in [1, 2, 3, 10, 1 << 20, 1 << 40, u64::MAX - 1] {
        queue.fill(&memory, 0, &[1], 1 << 20)?;
        queue.signal(&event, value)?;
        let now = event.value()?;
        ensure(now >= seen && now <= value, Check::Timeline, || format!("the event is at {now} after {seen} was seen and {value} was enqueued"))?;
        seen = now;
        if value % 2 == 0 {
            event.sync(value, LONG)??;
            seen = event.value()?;
            ensure(seen == value, Check::Timeline, || format!("the event is at {seen} after a wait for {value}"))?;
        }
    }
    queue.sync()?;
    let end = event.value()?;
    ensure(end == u64::MAX - 1, Check::Timeline, || format!("the event ends at {end}, the last signal was {}", u64::MAX - 1))?;
    let lower = bench.timeline()?;
    queue.signal(&lower, 5)?;
    queue.sync()?;
    // Going back is a caller's mistake; refused or ignored, the value stays.
    let _ = queue.try_signal(&lower, 3)?;
    queue.sync()?;
    let now = lower.value()?;
    ensure(now == 5, Check::Timeline, || format!("a signal of 3 after 5 left the event at {now}"))
}

fn deadline(bench: &Bench) -> Step {
    let (queue, event) = (bench.queue()?, bench.timeline()?);
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let started = Instant::now();
        let answer = event.sync(1, timeout)?;
        refused_with(answer, &[Code::DEADLINE_EXCEEDED], Check::Deadline, &format!("a wait of {timeout:?} for what nobody signals"))?;
        let waited = started.elapsed();
        ensure(waited >= timeout && waited < LONG, Check::Deadline, || format!("a wait of {timeout:?} took {waited:?}"))?;
    }
    queue.signal(&event, 1)?;
    event.sync(1, LONG)??;
    event.sync(1, Duration::ZERO)??;
    ensure(event.value()? == 1, Check::Deadline, || "the event is not at 1 after a wait for it".into())
}

fn idle(bench: &Bench) -> Step {
    let (queue, memory) = (bench.queue()?, bench.memory(BULK)?);
    let idle = queue.idle()?;
    ensure(idle == 1, Check::Order, || format!("a new stream answers {idle} to query; it is idle (1)"))?;
    queue.fill(&memory, 0, &[3], BULK)?;
    let busy = queue.idle()?;
    ensure(busy <= 1, Check::Order, || format!("query answers {busy}; it is 0 or 1"))?;
    queue.sync()?;
    ensure(queue.idle()? == 1, Check::Order, || "a stream that was waited for is not idle".into())?;
    slot!(bench.tables().device, sync, bench.raw.0)??;
    Ok(())
}

fn many(bench: &Bench) -> Step {
    let memory = bench.memory(64 * 64)?;
    let queues = (0..64).map(|_| bench.queue()).collect::<Step<Vec<Queue>>>()?;
    let events = (0..256).map(|_| bench.timeline()).collect::<Step<Vec<_>>>()?;
    for (i, queue) in queues.iter().enumerate() {
        queue.fill(&memory, 64 * i as u64, &[i as u8], 64)?;
        events.iter().skip(i * 4).take(4).try_for_each(|e| queue.signal(e, 1))?;
    }
    for event in &events {
        event.sync(1, LONG)??;
    }
    queues.iter().try_for_each(Queue::sync)?;
    let want: Vec<u8> = (0..64u8).flat_map(|i| [i; 64]).collect();
    expect(Check::Order, "64 streams, 64 bytes each", &want, &queues[0].read(&memory, 0, 4096)?)
}

/// A stream may be destroyed with work on it; the work is done first.
fn destroy_while_busy(bench: &Bench) -> Step {
    let (memory, event, other) = (bench.memory(BULK)?, bench.timeline()?, bench.queue()?);
    for round in 1..=8u8 {
        let queue = core::mem::ManuallyDrop::new(bench.queue()?);
        queue.fill(&memory, 0, &[round], BULK)?;
        queue.signal(&event, round.into())?;
        slot!(bench.tables().stream, destroy, queue.handle.0)??;
        event.sync(round.into(), LONG)??;
        let got = other.read(&memory, 0, BULK)?;
        ensure(got.iter().all(|x| *x == round), Check::Order, || format!("round {round}: work of a destroyed stream is not done"))?;
    }
    Ok(())
}

/// Each thread with its own stream, on its own memory.
fn threads(bench: &Bench) -> Step {
    const THREADS: u8 = 8;
    let work = |id: u8| -> Step {
        let queue = bench.queue()?;
        let event = bench.timeline()?;
        for round in 0..24u8 {
            let bytes = 1000 + 13 * u64::from(round) + u64::from(id);
            let (a, b) = (bench.memory(bytes)?, bench.memory(bytes)?);
            queue.fill(&a, 0, &[id.wrapping_mul(31) ^ round], bytes)?;
            queue.copy(&b, 0, &a, 0, bytes)?;
            queue.signal(&event, u64::from(round) + 1)?;
            event.sync(u64::from(round) + 1, LONG)??;
            let want = vec![id.wrapping_mul(31) ^ round; bytes as usize];
            expect(Check::Threads, &format!("thread {id}, round {round}"), &want, &queue.read(&b, 0, bytes)?)?;
        }
        Ok(())
    };
    all(THREADS, &work)
}

/// Runs a procedure in several threads at once; the first failure counts.
fn all(count: u8, work: &(dyn Fn(u8) -> Step + Sync)) -> Step {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..count).map(|id| scope.spawn(move || work(id))).collect();
        started.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| fail(Check::Threads, "a thread of the case panicked")))
    })
}

/// One plan, launched from several threads on several streams at once.
fn one_plan(bench: &Bench) -> Step {
    let task = Task::operator(sample(bench)?);
    let plan = native::plan(bench, &task.work, &native::limits())??;
    let bytes = plan.info()?.workspace_bytes;
    let work = |id: u8| -> Step {
        // Descriptors hold pointers and stay with their thread; the sample is the same in each.
        let (queue, task) = (bench.queue()?, Task::operator(sample(bench)?));
        let bound = Bound::new(bench, &task)?;
        let workspace = workspace(bench, bytes)?;
        for round in 0..16u8 {
            bound.fill(&queue, &task, if round % 2 == 0 { Poison::A } else { Poison::B })?;
            bound.launch(&queue, &plan, &task, workspace.as_ref().map(|w| (w, 0)))?;
            if let Some(f) = bound.judge(&queue, &task)? {
                return fail(Check::Threads, format!("thread {id}, round {round}, one plan in all threads: {}", f.message));
            }
        }
        Ok(())
    };
    all(6, &work)
}

fn workspace(bench: &Bench, bytes: u64) -> Step<Option<Memory<'_>>> {
    if bytes > 0 { bench.memory(bytes).map(Some) } else { Ok(None) }
}

/// A launch only enqueues: it returns while its stream waits for another.
fn launch_returns(bench: &Bench) -> Step {
    if bench.has(abi::caps::SYNCHRONOUS) {
        return Err(Stop::Skip("the device is synchronous: launches finish before they return".into()));
    }
    let (blocked, free, event) = (bench.queue()?, bench.queue()?, bench.timeline()?);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The receiver lives as long as the scope.
            let _ = sender.send(launch_behind(bench, &blocked, &event, &sender));
        });
        // The first message says that everything is ready, the second that the launch returned.
        receiver.recv().unwrap_or(Ok(()))?;
        let returned = receiver.recv_timeout(Duration::from_secs(3));
        let early = event.value()?;
        free.signal(&event, 1)?;
        free.sync()?;
        match returned {
            Ok(launched) => launched?,
            Err(_) => return fail(Check::LaunchSynchronises, "a launch on a stream that waits did not return within 3 s, until the wait was over"),
        }
        ensure(early == 0, Check::Timeline, || format!("the event was at {early} before anybody signalled it"))
    })?;
    blocked.sync()
}

fn launch_behind(bench: &Bench, blocked: &Queue, event: &Timeline, ready: &mpsc::Sender<Step>) -> Step {
    let task = Task::operator(sample(bench)?);
    let plan = native::plan(bench, &task.work, &native::limits())??;
    let bound = Bound::new(bench, &task)?;
    let workspace = workspace(bench, plan.info()?.workspace_bytes)?;
    bound.fill(blocked, &task, Poison::A)?;
    // What is kept to the end of the process cannot be in use when it is freed: the stream still waits when this returns.
    let kept = core::mem::ManuallyDrop::new((plan, bound, workspace));
    let _ = ready.send(Ok(()));
    blocked.wait(event, 1)?;
    kept.1.launch(blocked, &kept.0, &task, kept.2.as_ref().map(|w| (w, 0)))
}

fn elapsed(bench: &Bench) -> Step {
    let (queue, event, memory) = (bench.queue()?, bench.timeline()?, bench.memory(BULK)?);
    queue.signal(&event, 1)?;
    for _ in 0..4 {
        queue.fill(&memory, 0, &[1], BULK)?;
    }
    queue.signal(&event, 2)?;
    queue.sync()?;
    let mut ns = u64::MAX;
    optional(slot!(bench.tables().stream, elapsed, event.handle.0, 1, 2, &mut ns)?, "the device's clock")?;
    ensure(ns < 60_000_000_000, Check::Timeline, || format!("four fills of 8 MiB took {ns} ns by the device's clock"))
}

fn native_queue(bench: &Bench) -> Step {
    let queue = bench.queue()?;
    let mut native = 0;
    optional(slot!(bench.tables().stream, native, queue.handle.0, &mut native)?, "native queues")?;
    let desc = abi::StreamDesc { native, ..crate::raw::sized!(abi::StreamDesc) };
    let mut out = core::ptr::null_mut();
    let create = bench.tables().stream.create.ok_or_else(|| Stop::Skip("the slot 'create' is empty".into()))?;
    // SAFETY: the native queue is that of a live stream of this device.
    optional(take(unsafe { create(bench.raw.0, &desc, &mut out) })?, "importing streams")?;
    let memory = bench.memory(1024)?;
    slot!(bench.tables().memory, fill, out, memory.handle.0, 0, [5u8].as_ptr().cast(), 1, 1024)??;
    slot!(bench.tables().stream, sync, out)??;
    slot!(bench.tables().stream, destroy, out)??;
    // The owner's queue lives on.
    let data = poisoned(Poison::A, 1024);
    expect(Check::Handles, "work of an imported stream", &[5; 1024], &queue.read(&memory, 0, 1024)?)?;
    queue.write(&memory, 0, &data)?;
    expect(Check::Handles, "the owner's stream after the imported one was destroyed", &data, &queue.read(&memory, 0, 1024)?)
}
