// Times OpenBLAS and FFTW and prints one JSON line: peers gemm f32|f64 N THREADS, peers fft f32 N THREADS.
#define _POSIX_C_SOURCE 200809L
#include <cblas.h>
#include <fftw3.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// A sample repeats short work until it takes this long; there are at least LEAST samples, and more until SPAN is over.
#define SAMPLE_NS 200e3
#define LEAST 31
#define MOST 2000
#define SPAN_NS 1e9
#define WARM_NS 300e6

typedef struct {
    int wide;
    int n;
    void *a, *b, *c;
    fftwf_plan plan;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void gemm(const job *j) {
    int n = j->n;
    if (j->wide)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0, j->a, n, j->b, n, 0.0, j->c, n);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, j->a, n, j->b, n, 0.0f, j->c, n);
}

static void fft(const job *j) { fftwf_execute(j->plan); }

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *head, void (*work)(const job *), const job *j, double flops) {
    static double samples[MOST];
    double start = now(), spent = 0;
    int runs = 0;
    do {
        work(j);
        runs++;
        spent = now() - start;
    } while (spent < WARM_NS);
    int repeat = (int)ceil(SAMPLE_NS / (spent / runs)), n = 0;
    start = now();
    while (n < MOST && (n < LEAST || now() - start < SPAN_NS)) {
        double before = now();
        for (int i = 0; i < repeat; i++) work(j);
        samples[n++] = (now() - before) / repeat;
    }
    qsort(samples, (size_t)n, sizeof *samples, ascending);
    double median = samples[n / 2];
    printf("{%s, \"median_ns\": %.0f, \"p10\": %.0f, \"p90\": %.0f, \"samples\": %d, \"gflops\": %.2f}\n", head, median, samples[n / 10], samples[n * 9 / 10], n,
           flops / median);
}

// Memory filled with numbers of magnitude up to 1, so that nothing is subnormal or overflows.
static void *numbers(size_t count, int wide) {
    void *memory = fftwf_malloc(count * (wide ? 8 : 4));
    if (!memory) {
        fprintf(stderr, "peers: no memory for %zu numbers\n", count);
        exit(1);
    }
    unsigned state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        double x = (double)state / 2147483648.0 - 1.0;
        if (wide)
            ((double *)memory)[i] = x;
        else
            ((float *)memory)[i] = (float)x;
    }
    return memory;
}

int main(int argc, char **argv) {
    int wide = argc > 2 && !strcmp(argv[2], "f64");
    int n = argc > 4 ? atoi(argv[3]) : 0, threads = argc > 4 ? atoi(argv[4]) : 0;
    int is_gemm = argc == 5 && !strcmp(argv[1], "gemm"), is_fft = argc == 5 && !strcmp(argv[1], "fft") && !wide;
    if ((!is_gemm && !is_fft) || n < 1 || threads < 1) {
        fprintf(stderr, "usage: %s gemm f32|f64 N THREADS | %s fft f32 N THREADS\n", argv[0], argv[0]);
        return 2;
    }
    job j = {.wide = wide, .n = n};
    char head[512];
    size_t count = (size_t)n;
    if (is_gemm) {
        openblas_set_num_threads(threads);
        j.a = numbers(count * count, wide), j.b = numbers(count * count, wide), j.c = numbers(count * count, wide);
        snprintf(head, sizeof head, "\"bench\": \"gemm\", \"size\": \"%d\", \"dtype\": \"%s\", \"threads\": %d, \"peer\": \"openblas\", \"version\": \"%s\"", n,
                 argv[2], threads, openblas_get_config());
        measure(head, gemm, &j, 2.0 * n * n * n);
    } else {
        fftwf_init_threads();
        fftwf_plan_with_nthreads(threads);
        j.a = numbers(2 * count, 0), j.b = numbers(2 * count, 0);
        j.plan = fftwf_plan_dft_1d(n, j.a, j.b, FFTW_FORWARD, FFTW_MEASURE);
        // Planning has overwritten the input.
        void *fresh = numbers(2 * count, 0);
        memcpy(j.a, fresh, 2 * count * sizeof(float));
        snprintf(head, sizeof head, "\"bench\": \"fft.c2c\", \"size\": \"%d\", \"dtype\": \"f32\", \"threads\": %d, \"peer\": \"fftw\", \"version\": \"%s\"", n, threads,
                 fftwf_version);
        measure(head, fft, &j, 5.0 * n * log2(n));
    }
    return 0;
}
