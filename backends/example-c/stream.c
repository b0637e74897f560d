/* Stream table: a thread and a ring of commands per stream; events are timelines under a mutex. */
#include "example.h"

#include <errno.h>
#include <time.h>

struct flagos_event {
    struct example_head head;
    pthread_mutex_t mutex;
    pthread_cond_t raised;
    uint64_t value;    /* reached */
    uint64_t promised; /* greatest value whose signal was enqueued */
    uint32_t holders;  /* the handle, and each command that names the event */
};

enum command_kind { COPY, FILL, SIGNAL, WAIT, LAUNCH };

struct command {
    enum command_kind kind;
    union {
        struct {
            uint64_t dst, src, bytes;
        } copy;
        struct {
            uint64_t dst, bytes;
            uint32_t pattern_bytes;
            unsigned char pattern[16];
        } fill;
        struct {
            flagos_event_t *event;
            uint64_t value;
        } timeline;
        struct {
            const flagos_plan_t *plan;
            uint64_t address[EXAMPLE_OPERANDS];
        } launch;
    } u;
};

/* Commands `done` to `enqueued` - 1 wait, each in slot index % EXAMPLE_RING; the one at `done` may be running. */
struct flagos_stream {
    struct example_head head;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t done;
    uint64_t enqueued;
    int ending;
    struct command ring[EXAMPLE_RING];
};

/* ---- Timelines -------------------------------------------------------------------------------------------------- */

static void event_release(flagos_event_t *event)
{
    pthread_mutex_lock(&event->mutex);
    int last = --event->holders == 0;
    pthread_mutex_unlock(&event->mutex);
    if (last) {
        pthread_cond_destroy(&event->raised);
        pthread_mutex_destroy(&event->mutex);
        event->head.type = 0;
        example_free(event, sizeof *event);
    }
}

static void event_raise(flagos_event_t *event, uint64_t value)
{
    pthread_mutex_lock(&event->mutex);
    if (value > event->value)
        event->value = value;
    pthread_cond_broadcast(&event->raised);
    pthread_mutex_unlock(&event->mutex);
}

static void event_await(flagos_event_t *event, uint64_t value)
{
    pthread_mutex_lock(&event->mutex);
    while (event->value < value)
        pthread_cond_wait(&event->raised, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
}

/* ---- The stream's thread ---------------------------------------------------------------------------------------- */

static void fill(uint64_t dst, uint64_t bytes, const unsigned char *pattern, uint32_t pattern_bytes)
{
    unsigned char *to = (unsigned char *)(uintptr_t)dst;
    for (uint64_t at = 0; at < bytes; at += pattern_bytes)
        memcpy(to + at, pattern, pattern_bytes);
}

static void execute(struct command *c)
{
    switch (c->kind) {
    case COPY:
        if (c->u.copy.bytes > 0)
            memmove((void *)(uintptr_t)c->u.copy.dst, (const void *)(uintptr_t)c->u.copy.src, c->u.copy.bytes);
        break;
    case FILL:
        fill(c->u.fill.dst, c->u.fill.bytes, c->u.fill.pattern, c->u.fill.pattern_bytes);
        break;
    case SIGNAL:
        event_raise(c->u.timeline.event, c->u.timeline.value);
        event_release(c->u.timeline.event);
        break;
    case WAIT:
        event_await(c->u.timeline.event, c->u.timeline.value);
        event_release(c->u.timeline.event);
        break;
    case LAUNCH:
        example_run(c->u.launch.plan, c->u.launch.address);
        break;
    }
}

static void *stream_thread(void *argument)
{
    flagos_stream_t *stream = argument;
    pthread_mutex_lock(&stream->mutex);
    for (;;) {
        while (stream->done == stream->enqueued && !stream->ending)
            pthread_cond_wait(&stream->changed, &stream->mutex);
        if (stream->done == stream->enqueued)
            break;
        struct command *c = &stream->ring[stream->done % EXAMPLE_RING];
        pthread_mutex_unlock(&stream->mutex);
        execute(c);
        pthread_mutex_lock(&stream->mutex);
        stream->done++;
        pthread_cond_broadcast(&stream->changed);
        example_work_ended();
    }
    pthread_mutex_unlock(&stream->mutex);
    return NULL;
}

/* Puts a command into the ring. Waits for room where the ring is full: a launch allocates nothing, so the ring cannot grow. */
static void enqueue(flagos_stream_t *stream, const struct command *c)
{
    example_work_begins();
    pthread_mutex_lock(&stream->mutex);
    while (stream->enqueued - stream->done == EXAMPLE_RING)
        pthread_cond_wait(&stream->changed, &stream->mutex);
    stream->ring[stream->enqueued % EXAMPLE_RING] = *c;
    stream->enqueued++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->mutex);
}

void example_enqueue_copy(flagos_stream_t *stream, uint64_t dst, uint64_t src, uint64_t bytes)
{
    struct command c = {COPY, {.copy = {dst, src, bytes}}};
    enqueue(stream, &c);
}

void example_enqueue_fill(flagos_stream_t *stream, uint64_t dst, const void *pattern, uint32_t pattern_bytes, uint64_t bytes)
{
    struct command c = {FILL, {.fill = {dst, bytes, pattern_bytes, {0}}}};
    memcpy(c.u.fill.pattern, pattern, pattern_bytes);
    enqueue(stream, &c);
}

void example_enqueue_plan(flagos_stream_t *stream, const flagos_plan_t *plan, const uint64_t *address)
{
    struct command c = {LAUNCH, {.launch = {plan, {0}}}};
    memcpy(c.u.launch.address, address, sizeof c.u.launch.address);
    enqueue(stream, &c);
}

/* ---- Streams ---------------------------------------------------------------------------------------------------- */

static flagos_status_t *stream_create(flagos_device_t *device, const flagos_stream_desc_t *desc, flagos_stream_t **out_stream)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_struct(desc, FLAGOS_STREAM_DESC_KIND, sizeof *desc, "flagos_stream_desc_t"));
    TRY(example_out(out_stream, "out_stream"));
    if (desc->flags != 0)
        return example_error(FLAGOS_UNSUPPORTED_FIELD, -1, "flags of flagos_stream_desc_t are %#x, they are reserved", desc->flags);
    if (desc->native != 0)
        return example_error(FLAGOS_UNIMPLEMENTED, -1, "example-c has no native queues to wrap; set native to 0");
    flagos_stream_t *stream = example_alloc(sizeof *stream);
    if (stream == NULL)
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "no host memory for a stream");
    stream->head = (struct example_head){&example_backend, EXAMPLE_STREAM};
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->changed, NULL);
    int failed = pthread_create(&stream->thread, NULL, stream_thread, stream);
    if (failed != 0) {
        pthread_cond_destroy(&stream->changed);
        pthread_mutex_destroy(&stream->mutex);
        example_free(stream, sizeof *stream);
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "the system gave no thread for a stream (error %d)", failed);
    }
    *out_stream = stream;
    return NULL;
}

static flagos_status_t *stream_destroy(flagos_stream_t *stream)
{
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    pthread_mutex_lock(&stream->mutex);
    stream->ending = 1;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->mutex);
    pthread_join(stream->thread, NULL);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->mutex);
    stream->head.type = 0;
    example_free(stream, sizeof *stream);
    return NULL;
}

/* Kernels cannot fail once they were enqueued (all checks come before), so there is never a late error to return. */
static flagos_status_t *stream_sync(flagos_stream_t *stream)
{
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    pthread_mutex_lock(&stream->mutex);
    while (stream->done != stream->enqueued)
        pthread_cond_wait(&stream->changed, &stream->mutex);
    pthread_mutex_unlock(&stream->mutex);
    return NULL;
}

static flagos_status_t *stream_query(flagos_stream_t *stream, uint32_t *out_idle)
{
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_out(out_idle, "out_idle"));
    pthread_mutex_lock(&stream->mutex);
    *out_idle = stream->done == stream->enqueued;
    pthread_mutex_unlock(&stream->mutex);
    return NULL;
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

static flagos_status_t *event_create(flagos_device_t *device, flagos_event_t **out_event)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_out(out_event, "out_event"));
    flagos_event_t *event = example_alloc(sizeof *event);
    if (event == NULL)
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "no host memory for an event");
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&event->raised, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&event->mutex, NULL);
    event->head = (struct example_head){&example_backend, EXAMPLE_EVENT};
    event->holders = 1;
    *out_event = event;
    return NULL;
}

static flagos_status_t *event_destroy(flagos_event_t *event)
{
    TRY(example_handle(event, EXAMPLE_EVENT, "event"));
    event_release(event);
    return NULL;
}

static flagos_status_t *stream_signal(flagos_stream_t *stream, flagos_event_t *event, uint64_t value)
{
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_handle(event, EXAMPLE_EVENT, "event"));
    pthread_mutex_lock(&event->mutex);
    uint64_t promised = event->promised;
    if (value > promised) {
        event->promised = value;
        event->holders++;
    }
    pthread_mutex_unlock(&event->mutex);
    if (value <= promised)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "signal of %llu: the timeline was promised %llu already; signal a greater value",
                             (unsigned long long)value, (unsigned long long)promised);
    struct command c = {SIGNAL, {.timeline = {event, value}}};
    enqueue(stream, &c);
    return NULL;
}

static flagos_status_t *stream_wait(flagos_stream_t *stream, flagos_event_t *event, uint64_t value)
{
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_handle(event, EXAMPLE_EVENT, "event"));
    pthread_mutex_lock(&event->mutex);
    event->holders++;
    pthread_mutex_unlock(&event->mutex);
    struct command c = {WAIT, {.timeline = {event, value}}};
    enqueue(stream, &c);
    return NULL;
}

static flagos_status_t *event_query(flagos_event_t *event, uint64_t *out_value)
{
    TRY(example_running());
    TRY(example_handle(event, EXAMPLE_EVENT, "event"));
    TRY(example_out(out_value, "out_value"));
    pthread_mutex_lock(&event->mutex);
    *out_value = event->value;
    pthread_mutex_unlock(&event->mutex);
    return NULL;
}

/* The monotonic time `ns` from now; far futures end at the latest time that can be told. */
static struct timespec deadline_in(uint64_t ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t nanoseconds = (uint64_t)t.tv_nsec + ns % 1000000000u;
    t.tv_sec += (time_t)(ns / 1000000000u + nanoseconds / 1000000000u);
    t.tv_nsec = (long)(nanoseconds % 1000000000u);
    return t;
}

static flagos_status_t *event_sync(flagos_event_t *event, uint64_t value, uint64_t timeout_ns)
{
    TRY(example_running());
    TRY(example_handle(event, EXAMPLE_EVENT, "event"));
    struct timespec deadline = deadline_in(timeout_ns);
    int out_of_time = 0;
    pthread_mutex_lock(&event->mutex);
    while (event->value < value && !out_of_time) {
        if (timeout_ns == UINT64_MAX)
            pthread_cond_wait(&event->raised, &event->mutex);
        else
            out_of_time = pthread_cond_timedwait(&event->raised, &event->mutex, &deadline) == ETIMEDOUT;
    }
    uint64_t reached = event->value;
    pthread_mutex_unlock(&event->mutex);
    if (reached < value)
        return example_error(FLAGOS_DEADLINE_EXCEEDED, -1, "the timeline reached %llu of %llu within %llu ns", (unsigned long long)reached,
                             (unsigned long long)value, (unsigned long long)timeout_ns);
    return NULL;
}

/* native and elapsed stay NULL: there is no vendor queue and no device clock. */
const flagos_stream_table_t example_stream_table = {
    FLAGOS_STREAM_TABLE_HEAD,
    .create = stream_create,
    .destroy = stream_destroy,
    .sync = stream_sync,
    .query = stream_query,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .signal = stream_signal,
    .wait = stream_wait,
    .event_query = event_query,
    .event_sync = event_sync,
};
