// Stable radix sort of lines, least digit first: digits of 8 bits, all counted at once, then one pass over the elements for each. A block takes a tile of
// a line, brings it into order in shared memory, and learns where its share of each digit begins from the tiles before it (Adinets and Merrill,
// "Onesweep", 2022: chained scan with decoupled look-back).
//
// Elements are carried as they are and turned into numbers in the order asked for wherever a digit is read: NaN greatest, zeros of either sign equal.
//
// Given when compiled: KEY, the unsigned type of an element's width (u8 to u64), and BITS, its bits; KIND 0 unsigned, 1 signed, 2 floating; INFINITY_BITS of a
// floating type; DESCENDING; ITEMS of a thread.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DIGITS 256
#define PLACES (BITS / 8)
#define THREADS 384
#define WARPS (THREADS / 32)
#define TILE (THREADS * ITEMS)
#define COUNTERS 512
#define AT_ONCE 8
#define ALL 0xffffffffu

// What a tile tells of a digit: nothing yet, its own count, or the count of all tiles up to it. The count has the other 30 bits.
#define OWN (1u << 30)
#define UP_TO (2u << 30)
#define COUNT_MASK (OWN - 1)

__device__ static KEY ordered(KEY raw)
{
    const KEY sign = (KEY)((KEY)1 << (BITS - 1));
    KEY key = raw;
    if (KIND == 1)
        key = (KEY)(raw ^ sign);
    if (KIND == 2) {
        const KEY size = (KEY)(raw & (KEY)~sign);
        if (size > (KEY)INFINITY_BITS)
            key = (KEY)~(KEY)0;
        else if (size == 0)
            key = sign;
        else
            key = raw & sign ? (KEY)~raw : (KEY)(raw | sign);
    }
    return DESCENDING ? (KEY)~key : key;
}

__device__ static u32 digit(KEY raw, u32 place)
{
    return (u32)(ordered(raw) >> (8 * place)) & (DIGITS - 1);
}

// Sum of what the threads before this one give. Every thread of the block calls it; `sums` has a word for each warp.
__device__ static u32 sum_before(u32 value, u32 *sums)
{
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 sum = value, before = 0;
    for (u32 distance = 1; distance < 32; distance *= 2) {
        const u32 other = __shfl_up_sync(ALL, sum, distance);
        sum += lane >= distance ? other : 0;
    }
    if (lane == 31)
        sums[warp] = sum;
    __syncthreads();
    for (u32 w = 0; w < warp; w++)
        before += sums[w];
    return before + sum - value;
}

struct Count {
    const KEY *x;
    // [line][place][digit], zero before.
    u32 *counts;
    u32 n;
    // Elements of a block, and blocks of a line.
    u32 chunk, chunks;
};

extern "C" __global__ void __launch_bounds__(COUNTERS) count_digits(Count a)
{
    __shared__ u32 bins[PLACES * DIGITS];
    for (u32 i = threadIdx.x; i < PLACES * DIGITS; i += COUNTERS)
        bins[i] = 0;
    __syncthreads();
    const u32 line = blockIdx.x / a.chunks, begin = blockIdx.x % a.chunks * a.chunk;
    const u32 end = a.n - begin < a.chunk ? a.n : begin + a.chunk;
    const KEY *x = a.x + (u64)line * a.n;
    for (u32 base = begin + threadIdx.x; base < end; base += COUNTERS * AT_ONCE) {
        KEY keys[AT_ONCE];
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            const u32 at = base + i * COUNTERS;
            keys[i] = at < end ? x[at] : 0;
        }
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            if (base + i * COUNTERS >= end)
                break;
            for (u32 place = 0; place < PLACES; place++)
                atomicAdd(&bins[place * DIGITS + digit(keys[i], place)], 1u);
        }
    }
    __syncthreads();
    u32 *counts = a.counts + (u64)line * PLACES * DIGITS;
    for (u32 i = threadIdx.x; i < PLACES * DIGITS; i += COUNTERS)
        if (bins[i])
            atomicAdd(&counts[i], bins[i]);
}

struct Sum {
    u32 *counts;
};

// Counts of a line's place become the digits' beginnings in it.
extern "C" __global__ void __launch_bounds__(DIGITS) sum_digits(Sum a)
{
    __shared__ u32 sums[DIGITS / 32];
    u32 *row = a.counts + (u64)blockIdx.x * DIGITS;
    row[threadIdx.x] = sum_before(row[threadIdx.x], sums);
}

struct Pass {
    const KEY *x;
    const u32 *from;
    KEY *y;
    // u32 for the next pass, 64 bits in the last.
    void *to;
    const u32 *begins;
    // [tile of all lines][digit], zero before.
    u32 *states;
    // Tiles are taken in order: one that is waited for has begun.
    u32 *ticket;
    u32 n, tiles, place;
    // The first pass numbers the elements, the last one writes them out.
    u32 first, last;
};

extern "C" __global__ void __launch_bounds__(THREADS, 2) sort_digit(Pass a)
{
    __shared__ union {
        u32 bins[WARPS][DIGITS];
        KEY keys[TILE];
    } s;
    __shared__ u32 spots[TILE], targets[DIGITS], sums[WARPS], taken;
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    if (thread == 0)
        taken = atomicAdd(a.ticket, 1u);
    for (u32 i = thread; i < WARPS * DIGITS; i += THREADS)
        s.bins[i / DIGITS][i % DIGITS] = 0;
    __syncthreads();
    const u32 line = taken / a.tiles, tile = taken % a.tiles, begin = tile * TILE;
    const u32 valid = a.n - begin < TILE ? a.n - begin : TILE;
    const u64 origin = (u64)line * a.n;

    // A warp has 32 · ITEMS elements in a row, so that order in the line is item first, lane second.
    const u32 own = warp * 32 * ITEMS + lane;
    KEY keys[ITEMS];
    u32 places[ITEMS], ranks[ITEMS];
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++) {
        const u32 at = own + i * 32;
        keys[i] = at < valid ? a.x[origin + begin + at] : 0;
        places[i] = a.first ? begin + at : at < valid ? a.from[origin + begin + at] : 0;
    }

    // An element's rank among those of its digit and warp. What fills up the last tile has the last digit and comes after all of the line.
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++) {
        const u32 d = own + i * 32 < valid ? digit(keys[i], a.place) : DIGITS - 1;
        u32 peers = ALL;
#pragma unroll
        for (u32 bit = 0; bit < 8; bit++) {
            const u32 votes = __ballot_sync(ALL, d >> bit & 1);
            peers &= d >> bit & 1 ? votes : ~votes;
        }
        const u32 before = __popc(peers & ((1u << lane) - 1)), count = s.bins[warp][d];
        __syncwarp();
        if (before == 0)
            s.bins[warp][d] = count + __popc(peers);
        __syncwarp();
        ranks[i] = d << 16 | (count + before);
    }
    __syncthreads();

    // One thread for each digit: counts of the warps before, then the tile's own count for the tiles behind.
    u32 count = 0, real = 0;
    volatile u32 *state = a.states + (u64)taken * DIGITS + thread;
    if (thread < DIGITS) {
        for (u32 w = 0; w < WARPS; w++) {
            const u32 c = s.bins[w][thread];
            s.bins[w][thread] = count;
            count += c;
        }
        real = thread == DIGITS - 1 ? count - (TILE - valid) : count;
        *state = (tile == 0 ? UP_TO : OWN) | real;
    }
    const u32 start = sum_before(count, sums);
    if (thread < DIGITS) {
        for (u32 w = 0; w < WARPS; w++)
            s.bins[w][thread] += start;
        u32 earlier = 0;
        if (tile > 0) {
            for (volatile u32 *look = state - DIGITS;;) {
                const u32 seen = *look;
                if (seen == 0)
                    continue;
                earlier += seen & COUNT_MASK;
                if (seen & UP_TO)
                    break;
                look -= DIGITS;
            }
            *state = UP_TO | (earlier + real);
        }
        targets[thread] = a.begins[((u64)line * PLACES + a.place) * DIGITS + thread] + earlier - start;
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++)
        ranks[i] = (ranks[i] & 0xffff) + s.bins[warp][ranks[i] >> 16];
    __syncthreads();

    // In order within the tile, neighbours of one digit go to neighbouring places.
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++) {
        s.keys[ranks[i]] = keys[i];
        spots[ranks[i]] = places[i];
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < ITEMS; i++) {
        const u32 at = thread + i * THREADS;
        if (at < valid) {
            const KEY key = s.keys[at];
            const u64 goal = origin + (targets[digit(key, a.place)] + at);
            a.y[goal] = key;
            if (a.last)
                ((u64 *)a.to)[goal] = spots[at];
            else
                ((u32 *)a.to)[goal] = spots[at];
        }
    }
}
