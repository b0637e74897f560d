/* Loads the library as a host does and drives its tables: memory, streams, events, operators, refusals, shutdown. */
#include "flagos_backend.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

/* ---- A host ----------------------------------------------------------------------------------------------------- */

static atomic_llong live_bytes; /* host memory the backend holds */

static void *host_alloc(void *context, uint64_t bytes, uint64_t alignment)
{
    (void)context;
    atomic_fetch_add(&live_bytes, (long long)bytes);
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void host_free(void *context, void *address, uint64_t bytes, uint64_t alignment)
{
    (void)context;
    (void)alignment;
    atomic_fetch_sub(&live_bytes, (long long)bytes);
    free(address);
}

static void host_log(void *context, uint32_t level, flagos_str_t text)
{
    (void)context;
    fprintf(stderr, "[%u] %.*s\n", level, (int)text.len, text.ptr);
}

struct host_status {
    flagos_status_t status;
    char text[512];
};

static void release_status(flagos_status_t *status)
{
    free(status);
}

static flagos_status_t *host_status(void *context, uint32_t code, flagos_str_t domain, int64_t native_code, flagos_str_t message)
{
    struct host_status *s = calloc(1, sizeof *s);
    (void)context;
    (void)domain;
    CHECK(s != NULL && message.len < sizeof s->text);
    memcpy(s->text, message.ptr, message.len);
    s->status = (flagos_status_t){FLAGOS_STATUS_HEAD, .code = code, .argument = -1, .native_code = native_code, .message = flagos_str(s->text),
                                  .release = release_status};
    return &s->status;
}

static void *host_get_proc(void *context, flagos_str_t name)
{
    (void)context;
    (void)name;
    return NULL;
}

static const flagos_host_v1_t host = {FLAGOS_HOST_V1_HEAD, FLAGOS_ABI_MINOR, 0, NULL, host_alloc, host_free, host_log, host_status, host_get_proc};

/* Code of a status, which is released; unexpected errors are printed. */
static uint32_t code_of(flagos_status_t *status)
{
    if (status == NULL)
        return FLAGOS_OK;
    uint32_t code = status->code;
    CHECK(status->message.len > 0);
    status->release(status);
    return code;
}

#define OK(call)                                                                                                          \
    do {                                                                                                                  \
        flagos_status_t *s_ = (call);                                                                                     \
        if (s_ != NULL) {                                                                                                 \
            fprintf(stderr, "%s:%d: code %u: %.*s\n", __FILE__, __LINE__, s_->code, (int)s_->message.len, s_->message.ptr); \
            exit(1);                                                                                                      \
        }                                                                                                                 \
    } while (0)
#define FAILS(call, expected) CHECK(code_of(call) == (expected))

/* ---- Running an operator ------------------------------------------------------------------------------------------- */

static const flagos_backend_v1_t *backend;
static flagos_device_t *device;
static flagos_stream_t *stream;

static flagos_buffer_t *allocate(uint64_t bytes)
{
    flagos_alloc_desc_t desc = {FLAGOS_ALLOC_DESC_HEAD, .bytes = bytes, .memory_kind = FLAGOS_MEMORY_DEVICE};
    flagos_buffer_t *buffer = NULL;
    OK(backend->memory->alloc(device, &desc, &buffer));
    CHECK(*(const flagos_backend_v1_t **)buffer == backend);
    return buffer;
}

static flagos_buffer_t *upload(const void *data, uint64_t bytes)
{
    flagos_buffer_t *buffer = allocate(bytes);
    OK(backend->memory->write(stream, buffer, 0, data, bytes));
    OK(backend->stream->sync(stream));
    return buffer;
}

static flagos_op_t call(uint32_t id, const flagos_tensor_t *inputs, uint16_t n_in, const flagos_tensor_t *output, const flagos_attr_t *attrs,
                        uint32_t n_attr)
{
    flagos_op_t op;
    memset(&op, 0, sizeof op);
    op.size = (uint32_t)sizeof op;
    op.id = id;
    op.revision = 1;
    op.n_in = n_in;
    op.n_out = 1;
    op.n_attr = n_attr;
    op.inputs = inputs;
    op.outputs = output;
    op.attrs = attrs;
    return op;
}

/* Asks, plans, launches on the tensors' own buffers, waits. */
static void run(uint32_t id, const flagos_tensor_t *inputs, uint16_t n_in, const flagos_tensor_t *output, const flagos_attr_t *attrs, uint32_t n_attr)
{
    flagos_op_t op = call(id, inputs, n_in, output, attrs, n_attr);
    flagos_support_t support = {FLAGOS_SUPPORT_HEAD, .answer = 77};
    flagos_plan_limits_t limits = {FLAGOS_PLAN_LIMITS_HEAD, .workspace_bytes = UINT64_MAX};
    flagos_plan_info_t info = {FLAGOS_PLAN_INFO_HEAD, .workspace_bytes = 77};
    flagos_binding_t bindings[4];
    flagos_launch_t launch = {FLAGOS_LAUNCH_HEAD, .bindings = bindings, .n_bindings = n_in + 1u};
    flagos_plan_t *plan = NULL;
    OK(backend->op->query(device, &op, 2, &support));
    CHECK(support.answer == FLAGOS_ANSWER_YES && support.workspace_bytes == 0);
    OK(backend->op->plan(device, &op, &limits, &plan));
    OK(backend->op->plans->info(plan, &info));
    CHECK(info.workspace_bytes == 0 && info.implementation.len > 0);
    for (uint32_t i = 0; i <= n_in; i++) {
        const flagos_tensor_t *t = i < n_in ? &inputs[i] : output;
        bindings[i] = (flagos_binding_t){t->buffer, t->byte_offset};
    }
    OK(backend->op->plans->launch(plan, stream, &launch));
    OK(backend->stream->sync(stream));
    OK(backend->op->plans->destroy(plan));
}

/* Whether a call is refused by query with NO and by plan with UNIMPLEMENTED. */
static void is_not_offered(const flagos_op_t *op)
{
    flagos_support_t support = {FLAGOS_SUPPORT_HEAD, .answer = 77};
    flagos_plan_limits_t limits = {FLAGOS_PLAN_LIMITS_HEAD, .workspace_bytes = UINT64_MAX};
    flagos_plan_t *plan = NULL;
    OK(backend->op->query(device, op, 0, &support));
    CHECK(support.answer == FLAGOS_ANSWER_NO && support.reason.len > 0);
    FAILS(backend->op->plan(device, op, &limits, &plan), FLAGOS_UNIMPLEMENTED);
    CHECK(plan == NULL);
}

static void download(flagos_buffer_t *buffer, uint64_t offset, void *data, uint64_t bytes)
{
    OK(backend->memory->read(stream, buffer, offset, data, bytes));
    OK(backend->stream->sync(stream));
}

/* ---- Tests ----------------------------------------------------------------------------------------------------------- */

static void test_pointwise(void)
{
    /* x is a 2×3 view with a negative stride into six numbers, b one row: y = x + 2·b. */
    const float xs[6] = {1, 2, 3, 4, 5, 6}, bs[3] = {10, 20, 30}, want[6] = {23, 42, 61, 26, 45, 64};
    const int64_t shape[2] = {2, 3}, row[1] = {3};
    float got[6];
    flagos_buffer_t *bx = upload(xs, sizeof xs), *bb = upload(bs, sizeof bs), *by = allocate(sizeof got);
    flagos_tensor_t in[2] = {flagos_tensor(FLAGOS_F32, 2, shape, bx, 2 * sizeof(float)), flagos_tensor(FLAGOS_F32, 1, row, bb, 0)};
    flagos_tensor_t y = flagos_tensor(FLAGOS_F32, 2, shape, by, 0);
    flagos_attr_t alpha = flagos_attr_f64(FLAGOS_ATTR_KEY_ALPHA, 2);
    in[0].stride[0] = 3;
    in[0].stride[1] = -1;
    run(FLAGOS_OP_ADD, in, 2, &y, &alpha, 1);
    download(by, 0, got, sizeof got);
    CHECK(memcmp(got, want, sizeof got) == 0);

    const float values[3] = {-INFINITY, -0.0f, 2};
    flagos_buffer_t *bv = upload(values, sizeof values);
    flagos_tensor_t v = flagos_tensor(FLAGOS_F32, 1, row, bv, 0), s = flagos_tensor(FLAGOS_F32, 1, row, by, 4);
    run(FLAGOS_OP_SIGMOID, &v, 1, &s, NULL, 0);
    download(by, 4, got, sizeof values);
    CHECK(got[0] == 0 && got[1] == 0.5f && fabsf(got[2] - 0.880797078f) < 1e-7f);
    run(FLAGOS_OP_RELU, &v, 1, &v, NULL, 0);
    download(bv, 0, got, sizeof values);
    CHECK(got[0] == 0 && got[1] == 0 && !signbit(got[1]) && got[2] == 2);
    OK(backend->memory->free(bx));
    OK(backend->memory->free(bb));
    OK(backend->memory->free(by));
    OK(backend->memory->free(bv));
}

static void test_reductions(void)
{
    const double xs[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, NAN, 0, 1};
    const int64_t shape[3] = {2, 2, 3}, middle[1] = {-2}, kept[3] = {2, 1, 3};
    double got[12];
    int64_t index;
    flagos_buffer_t *bx = upload(xs, sizeof xs), *by = allocate(sizeof got);
    flagos_tensor_t x = flagos_tensor(FLAGOS_F64, 3, shape, bx, 0), y = flagos_tensor(FLAGOS_F64, 3, kept, by, 0);
    flagos_tensor_t i = flagos_tensor(FLAGOS_I64, 0, NULL, by, 0);
    flagos_attr_t attrs[2] = {flagos_attr_span(FLAGOS_ATTR_KEY_DIMS, middle, 1), flagos_attr_i64(FLAGOS_ATTR_KEY_KEEPDIM, 1)};
    run(FLAGOS_OP_SUM, &x, 1, &y, attrs, 2);
    download(by, 0, got, 6 * sizeof *got);
    CHECK(got[0] == 5 && got[1] == 7 && got[2] == 9 && isnan(got[3]) && got[4] == 8 && got[5] == 10);
    run(FLAGOS_OP_ARGMAX, &x, 1, &i, NULL, 0);
    download(by, 0, &index, sizeof index);
    CHECK(index == 9);

    flagos_attr_t last = flagos_attr_i64(FLAGOS_ATTR_KEY_DIM, -1), first = flagos_attr_i64(FLAGOS_ATTR_KEY_DIM, 0);
    flagos_tensor_t p = flagos_tensor(FLAGOS_F64, 3, shape, by, 0);
    run(FLAGOS_OP_SOFTMAX, &x, 1, &p, &last, 1);
    download(by, 0, got, sizeof got);
    CHECK(fabs(got[0] - 0.09003057317038046) < 1e-15 && fabs(got[0] + got[1] + got[2] - 1) < 1e-15 && isnan(got[9]) && isnan(got[11]));
    flagos_op_t op = call(FLAGOS_OP_SOFTMAX, &x, 1, &p, &first, 1);
    is_not_offered(&op);
    OK(backend->memory->free(bx));
    OK(backend->memory->free(by));
}

static void test_products(void)
{
    /* y = 0.5·c + 2·a·bᵀ, with b transposed by strides and c one column. */
    const double a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, 1, 0, 1, 1}, c[2] = {10, 20};
    const int64_t left[2] = {2, 3}, right[2] = {3, 2}, column[2] = {2, 1}, square[2] = {2, 2};
    double got[4];
    flagos_buffer_t *ba = upload(a, sizeof a), *bb = upload(b, sizeof b), *bc = upload(c, sizeof c), *by = allocate(sizeof got);
    flagos_tensor_t in[3] = {flagos_tensor(FLAGOS_F64, 2, column, bc, 0), flagos_tensor(FLAGOS_F64, 2, left, ba, 0),
                             flagos_tensor(FLAGOS_F64, 2, right, bb, 0)};
    flagos_tensor_t y = flagos_tensor(FLAGOS_F64, 2, square, by, 0);
    flagos_attr_t attrs[2] = {flagos_attr_f64(FLAGOS_ATTR_KEY_ALPHA, 2), flagos_attr_f64(FLAGOS_ATTR_KEY_BETA, 0.5)};
    in[2].stride[0] = 1;
    in[2].stride[1] = 3;
    run(FLAGOS_OP_ADDMM, in, 3, &y, attrs, 2);
    download(by, 0, got, sizeof got);
    CHECK(got[0] == 13 && got[1] == 15 && got[2] == 30 && got[3] == 32);
    run(FLAGOS_OP_MM, in + 1, 2, &y, NULL, 0);
    download(by, 0, got, sizeof got);
    CHECK(got[0] == 4 && got[1] == 5 && got[2] == 10 && got[3] == 11);
    OK(backend->memory->free(ba));
    OK(backend->memory->free(bb));
    OK(backend->memory->free(bc));
    OK(backend->memory->free(by));
}

static void test_copies_and_casts(void)
{
    const int32_t xs[3] = {-1, 0, 7};
    const float fs[2] = {1.5f, -2.25f};
    const int64_t row[2] = {1, 3}, pair[1] = {2}, block[2] = {2, 3};
    int32_t got[6];
    double wide[2];
    flagos_buffer_t *bx = upload(xs, sizeof xs), *bf = upload(fs, sizeof fs), *by = allocate(64);
    flagos_tensor_t x = flagos_tensor(FLAGOS_I32, 2, row, bx, 0), y = flagos_tensor(FLAGOS_I32, 2, block, by, 0);
    flagos_tensor_t f = flagos_tensor(FLAGOS_F32, 1, pair, bf, 0), d = flagos_tensor(FLAGOS_F64, 1, pair, by, 32);
    run(FLAGOS_OP_COPY, &x, 1, &y, NULL, 0);
    download(by, 0, got, sizeof got);
    CHECK(got[0] == -1 && got[2] == 7 && got[3] == -1 && got[5] == 7);
    run(FLAGOS_OP_CAST, &f, 1, &d, NULL, 0);
    download(by, 32, wide, sizeof wide);
    CHECK(wide[0] == 1.5 && wide[1] == -2.25);

    flagos_tensor_t two[2] = {x, x};
    flagos_attr_t hint = flagos_attr_i64(FLAGOS_ATTR_KEY_GROUPS | FLAGOS_ATTR_HINT, 3), unknown = flagos_attr_i64(FLAGOS_ATTR_KEY_GROUPS, 3);
    flagos_op_t integers = call(FLAGOS_OP_ADD, two, 2, &y, NULL, 0), stranger = call(0x7fff, &x, 1, &y, NULL, 0);
    flagos_op_t unknown_attribute = call(FLAGOS_OP_COPY, &x, 1, &y, &unknown, 1);
    is_not_offered(&integers);
    is_not_offered(&stranger);
    is_not_offered(&unknown_attribute);
    run(FLAGOS_OP_COPY, &x, 1, &y, &hint, 1);
    OK(backend->memory->free(bx));
    OK(backend->memory->free(bf));
    OK(backend->memory->free(by));
}

static void test_memory(void)
{
    const uint32_t pattern = 0xdeadbeef;
    uint32_t got[5];
    uint64_t address;
    void *mapped;
    flagos_buffer_t *space, *buffer = allocate(24);
    flagos_memory_info_t before = {FLAGOS_MEMORY_INFO_HEAD, 0, 0}, after = before;
    flagos_alloc_desc_t huge = {FLAGOS_ALLOC_DESC_HEAD, .bytes = UINT64_MAX - 100, .memory_kind = FLAGOS_MEMORY_DEVICE};
    OK(backend->memory->fill(stream, buffer, 4, &pattern, 4, 12));
    OK(backend->memory->device_ptr(buffer, &address));
    OK(backend->memory->address_space(device, &space));
    OK(backend->memory->fill(stream, space, address, "\1", 1, 4));
    OK(backend->memory->copy(stream, buffer, 16, buffer, 4, 8));
    OK(backend->memory->map(buffer, &mapped));
    OK(backend->stream->sync(stream));
    memcpy(got, mapped, sizeof got);
    CHECK(got[0] == 0x01010101 && got[1] == pattern && got[3] == pattern && got[4] == pattern && (uint64_t)(uintptr_t)mapped == address);
    OK(backend->memory->unmap(buffer));
    FAILS(backend->memory->read(stream, buffer, 20, got, 5), FLAGOS_INVALID_ARGUMENT);
    FAILS(backend->memory->read(stream, buffer, UINT64_MAX, got, 2), FLAGOS_INVALID_ARGUMENT);
    FAILS(backend->memory->fill(stream, buffer, 0, &pattern, 3, 12), FLAGOS_INVALID_ARGUMENT);
    FAILS(backend->memory->alloc(device, &huge, &space), FLAGOS_RESOURCE_EXHAUSTED);
    FAILS(backend->memory->free(NULL), FLAGOS_INVALID_ARGUMENT);
    OK(backend->memory->info(device, &before));
    OK(backend->memory->free(buffer));
    OK(backend->memory->info(device, &after));
    CHECK(after.free_bytes == before.free_bytes + 24);
}

static void test_streams(void)
{
    /* The second stream waits for the first, which was given more work than its ring holds. */
    flagos_stream_desc_t desc = {FLAGOS_STREAM_DESC_HEAD, .native = 0};
    flagos_stream_t *other;
    flagos_event_t *event;
    uint64_t value;
    uint32_t idle, got = 0;
    flagos_buffer_t *buffer = allocate(4);
    OK(backend->stream->create(device, &desc, &other));
    OK(backend->stream->event_create(device, &event));
    FAILS(backend->stream->event_sync(event, 1, 1000), FLAGOS_DEADLINE_EXCEEDED);
    OK(backend->stream->wait(other, event, 5000));
    OK(backend->memory->read(other, buffer, 0, &got, 4));
    OK(backend->stream->query(other, &idle));
    CHECK(idle == 0);
    for (uint32_t i = 1; i <= 5000; i++) {
        OK(backend->memory->fill(stream, buffer, 0, &i, 4, 4));
        if (i % 1000 == 0)
            OK(backend->stream->signal(stream, event, i));
    }
    OK(backend->stream->sync(other));
    CHECK(got == 5000);
    OK(backend->stream->event_sync(event, 5000, UINT64_MAX));
    OK(backend->stream->event_query(event, &value));
    CHECK(value == 5000);
    FAILS(backend->stream->signal(stream, event, 5000), FLAGOS_INVALID_ARGUMENT);
    OK(backend->stream->signal(other, event, 5001));
    OK(backend->stream->event_destroy(event));
    flagos_buffer_t *large = allocate(1 << 22);
    for (uint32_t i = 0; i < 8; i++)
        OK(backend->memory->fill(stream, large, 0, &i, 4, 1 << 22));
    OK(backend->device->sync(device));
    OK(backend->stream->query(stream, &idle));
    CHECK(idle == 1);
    OK(backend->memory->free(large));
    desc.native = 7;
    FAILS(backend->stream->create(device, &desc, &other), FLAGOS_UNIMPLEMENTED);
    OK(backend->stream->destroy(other));
    OK(backend->memory->free(buffer));
}

static void test_struct_sizes(void)
{
    struct {
        flagos_alloc_desc_t known;
        uint64_t newer;
    } desc = {{sizeof desc, FLAGOS_ALLOC_DESC_KIND, .bytes = 8, .memory_kind = FLAGOS_MEMORY_DEVICE}, 0};
    flagos_buffer_t *buffer;
    OK(backend->memory->alloc(device, &desc.known, &buffer));
    OK(backend->memory->free(buffer));
    desc.newer = 1;
    FAILS(backend->memory->alloc(device, &desc.known, &buffer), FLAGOS_UNSUPPORTED_FIELD);
    desc.known.size = 8;
    FAILS(backend->memory->alloc(device, &desc.known, &buffer), FLAGOS_INVALID_ARGUMENT);
    desc.known = (flagos_alloc_desc_t){sizeof desc.known, 0x99, .bytes = 8, .memory_kind = FLAGOS_MEMORY_DEVICE};
    FAILS(backend->memory->alloc(device, &desc.known, &buffer), FLAGOS_INVALID_ARGUMENT);
    FAILS(backend->memory->alloc((flagos_device_t *)stream, &desc.known, &buffer), FLAGOS_INVALID_ARGUMENT);
}

static void test_bindings(void)
{
    const int64_t four[1] = {4};
    flagos_buffer_t *small = allocate(12);
    flagos_tensor_t x = flagos_tensor(FLAGOS_F32, 1, four, NULL, 0);
    flagos_op_t op = call(FLAGOS_OP_EXP, &x, 1, &x, NULL, 0);
    flagos_plan_limits_t limits = {FLAGOS_PLAN_LIMITS_HEAD, .workspace_bytes = 0};
    flagos_binding_t bindings[2] = {{small, 0}, {small, 0}};
    flagos_launch_t launch = {FLAGOS_LAUNCH_HEAD, .bindings = bindings, .n_bindings = 2};
    flagos_plan_t *plan;
    OK(backend->op->plan(device, &op, &limits, &plan));
    FAILS(backend->op->plans->launch(plan, stream, &launch), FLAGOS_INVALID_ARGUMENT);
    launch.n_bindings = 1;
    FAILS(backend->op->plans->launch(plan, stream, &launch), FLAGOS_INVALID_ARGUMENT);
    OK(backend->op->plans->destroy(plan));
    OK(backend->memory->free(small));
}

int main(int argc, char **argv)
{
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) {
        fprintf(stderr, "usage: smoke LIBRARY; %s\n", argc == 2 ? dlerror() : "no library was named");
        return 2;
    }
    flagos_backend_query_v1_t query;
    void *symbol = dlsym(library, "flagos_backend_query_v1");
    CHECK(symbol != NULL);
    memcpy(&query, &symbol, sizeof query);

    flagos_status_t *why_not = NULL;
    CHECK(query(NULL, &why_not) == NULL && code_of(why_not) == FLAGOS_ABI_MISMATCH);
    backend = query(&host, &why_not);
    CHECK(backend != NULL && backend == query(&host, &why_not));
    CHECK(backend->layout_hash.lo == FLAGOS_LAYOUT_HASH_LO && backend->layout_hash.hi == FLAGOS_LAYOUT_HASH_HI);

    flagos_device_probe_t probe = {FLAGOS_DEVICE_PROBE_HEAD, .score = 0};
    flagos_device_info_t info = {FLAGOS_DEVICE_INFO_HEAD, .memory_bytes = 0};
    flagos_stream_desc_t desc = {FLAGOS_STREAM_DESC_HEAD, .native = 0};
    uint32_t count = 0;
    OK(backend->probe(NULL, 0, &count));
    OK(backend->probe(&probe, 1, &count));
    CHECK(count == 1 && probe.score > 0);
    FAILS(backend->device->open(1, &device), FLAGOS_INVALID_ARGUMENT);
    OK(backend->device->open(0, &device));
    OK(backend->device->info(device, &info));
    CHECK(info.memory_bytes > 0 && (info.memory_kinds >> FLAGOS_MEMORY_DEVICE & 1) == 1);
    OK(backend->stream->create(device, &desc, &stream));

    test_pointwise();
    test_reductions();
    test_products();
    test_copies_and_casts();
    test_memory();
    test_streams();
    test_struct_sizes();
    test_bindings();

    OK(backend->shutdown());
    OK(backend->shutdown());
    FAILS(backend->stream->sync(stream), FLAGOS_FAILED_PRECONDITION);
    FAILS(backend->probe(&probe, 1, &count), FLAGOS_FAILED_PRECONDITION);
    OK(backend->stream->destroy(stream));
    OK(backend->device->close(device));
    CHECK(atomic_load(&live_bytes) == 0);
    puts("example-c: all is well");
    return 0;
}
