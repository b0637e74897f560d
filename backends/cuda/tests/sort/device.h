// A stand-in for a device, so that kernels in CUDA C++ run on a processor as they are: threads of a block are contexts that take turns between
// barriers, blocks are threads of the system. Only what our own kernels use, and only for tests.
#pragma once

#include <sched.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)

struct Extent {
    unsigned x, y, z;
};
static thread_local Extent threadIdx, blockIdx;

namespace device {

constexpr unsigned WARP = 32;

// Those who wait for each other: a block, or a warp.
struct Gate {
    unsigned members = 0, here = 0, turn = 0;
};

struct Block {
    std::vector<ucontext_t> contexts;
    std::vector<bool> over;
    std::vector<unsigned> values;
    std::vector<Gate> warps;
    Gate all;
    ucontext_t back;
    unsigned now = 0;
    const std::function<void()> *body = nullptr;
};
static thread_local Block *block;

static void yield()
{
    swapcontext(&block->contexts[block->now], &block->back);
    threadIdx.x = block->now;
}

static void pass(Gate &gate)
{
    const unsigned turn = gate.turn;
    if (++gate.here == gate.members) {
        gate.here = 0;
        gate.turn++;
        return;
    }
    while (gate.turn == turn)
        yield();
}

static Gate &warp()
{
    return block->warps[block->now / WARP];
}

// A value of every lane of the warp; the second gate keeps the next exchange from overtaking the reads.
template <typename F>
static unsigned exchange(unsigned own, F take)
{
    block->values[block->now] = own;
    pass(warp());
    const unsigned got = take(&block->values[block->now / WARP * WARP]);
    pass(warp());
    return got;
}

static void enter()
{
    (*block->body)();
    block->over[block->now] = true;
    for (;;)
        yield();
}

static void run_block(unsigned index, unsigned threads, const std::function<void()> &body)
{
    constexpr std::size_t STACK = 64 << 10;
    Block own;
    std::vector<char> stacks(threads * STACK);
    own.contexts.resize(threads);
    own.over.assign(threads, false);
    own.values.resize(threads);
    own.warps.resize(threads / WARP);
    for (Gate &w : own.warps)
        w.members = WARP;
    own.all.members = threads;
    own.body = &body;
    block = &own;
    for (unsigned t = 0; t < threads; t++) {
        getcontext(&own.contexts[t]);
        own.contexts[t].uc_stack.ss_sp = &stacks[t * STACK];
        own.contexts[t].uc_stack.ss_size = STACK;
        makecontext(&own.contexts[t], enter, 0);
    }
    for (unsigned left = threads; left > 0;) {
        left = 0;
        // Another order in every round: nothing may hang on who comes first.
        for (unsigned i = 0; i < threads; i++) {
            own.now = index % 2 ? threads - 1 - i : i;
            if (own.over[own.now])
                continue;
            blockIdx = {index, 0, 0};
            threadIdx = {own.now, 0, 0};
            swapcontext(&own.back, &own.contexts[own.now]);
            left += !own.over[own.now];
        }
        sched_yield();
    }
}

// Runs a grid; several blocks at a time, begun in order.
static void launch(unsigned blocks, unsigned threads, const std::function<void()> &body)
{
    std::atomic<unsigned> next{0};
    std::vector<std::thread> workers;
    for (unsigned w = 0; w < 3; w++)
        workers.emplace_back([&] {
            for (unsigned b; (b = next++) < blocks;)
                run_block(b, threads, body);
        });
    for (std::thread &w : workers)
        w.join();
}

} // namespace device

static inline void __syncthreads()
{
    device::pass(device::block->all);
}
static inline void __syncwarp()
{
    device::pass(device::warp());
}
static inline unsigned __ballot_sync(unsigned, bool vote)
{
    return device::exchange(vote, [](const unsigned *all) {
        unsigned bits = 0;
        for (unsigned lane = 0; lane < device::WARP; lane++)
            bits |= (all[lane] != 0 ? 1u : 0u) << lane;
        return bits;
    });
}
static inline unsigned __shfl_up_sync(unsigned, unsigned value, unsigned distance)
{
    const unsigned lane = threadIdx.x % device::WARP;
    return device::exchange(value, [=](const unsigned *all) { return all[lane >= distance ? lane - distance : lane]; });
}
static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}
static inline unsigned atomicAdd(unsigned *at, unsigned value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
