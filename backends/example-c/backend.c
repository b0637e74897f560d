/* The entry: what this backend states of itself; statuses and checks all files share. */
#include "example.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#ifndef EXAMPLE_BUILD_ID
#error "EXAMPLE_BUILD_ID must identify the build: the Makefile makes it from the sources"
#endif

/* The host lives as long as the process; the entry may be called many times, from any thread. */
static _Atomic(const flagos_host_v1_t *) the_host;
static atomic_bool is_shut_down;

/* ---- Statuses -------------------------------------------------------------------------------------------------- */

flagos_status_t *example_error(uint32_t code, int32_t argument, const char *format, ...)
{
    const flagos_host_v1_t *host = atomic_load(&the_host);
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    flagos_status_t *status = host->status(host->context, code, FLAGOS_STR(""), 0, flagos_str(text));
    status->argument = argument;
    return status;
}

flagos_status_t *example_running(void)
{
    if (atomic_load_explicit(&is_shut_down, memory_order_relaxed))
        return example_error(FLAGOS_FAILED_PRECONDITION, -1, "example-c was shut down; a process cannot start it again");
    return NULL;
}

/* ---- Checks ---------------------------------------------------------------------------------------------------- */

flagos_status_t *example_handle(const void *handle, enum example_type type, const char *name)
{
    const struct example_head *head = handle;
    if (head == NULL)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s is NULL", name);
    if (head->backend != &example_backend || head->type != (uint32_t)type)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s is not a live handle of its kind made by example-c", name);
    return NULL;
}

flagos_status_t *example_out(const void *pointer, const char *name)
{
    return pointer != NULL ? NULL : example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s is NULL", name);
}

flagos_status_t *example_out_struct(const void *object, uint32_t kind, uint32_t least, const char *name)
{
    const uint32_t *head = object;
    if (object == NULL || (uintptr_t)object % 8 != 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s is NULL or misaligned", name);
    if (head[1] != kind)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s has kind %#x, it is %#x", name, head[1], kind);
    if (head[0] < least || head[0] > 1 << 16)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s has size %u, ABI minor 0 had %u; set it to sizeof", name, head[0], least);
    return NULL;
}

flagos_status_t *example_struct(const void *object, uint32_t kind, uint32_t least, const char *name)
{
    TRY(example_out_struct(object, kind, least, name));
    /* Here `least` is also all this build knows: the header it was compiled with is of minor 0. */
    if (!flagos_tail_is_zero(object, *(const uint32_t *)object, least))
        return example_error(FLAGOS_UNSUPPORTED_FIELD, -1, "%s has a non-zero byte beyond its %u known ones", name, least);
    return NULL;
}

/* ---- Host memory ----------------------------------------------------------------------------------------------- */

void *example_alloc(uint64_t bytes)
{
    const flagos_host_v1_t *host = atomic_load(&the_host);
    void *object = host->alloc(host->context, bytes, 16);
    return object != NULL ? memset(object, 0, bytes) : NULL;
}

void example_free(void *object, uint64_t bytes)
{
    const flagos_host_v1_t *host = atomic_load(&the_host);
    host->free(host->context, object, bytes, 16);
}

/* ---- Entry ------------------------------------------------------------------------------------------------------ */

static flagos_status_t *probe(flagos_device_probe_t *out_devices, uint32_t capacity, uint32_t *out_count)
{
    TRY(example_running());
    TRY(example_out(out_count, "out_count"));
    if (capacity > 0) {
        /* With several devices: entry i lies `out_devices[0].size` bytes after entry i - 1, for the host's struct may be longer. */
        TRY(example_out_struct(out_devices, FLAGOS_DEVICE_PROBE_KIND, sizeof *out_devices, "flagos_device_probe_t"));
        out_devices->score = 1;
        out_devices->device_kind = FLAGOS_DEVICE_CPU;
        out_devices->name = FLAGOS_STR("Example device in host memory");
        out_devices->arch = FLAGOS_STR(EXAMPLE_ARCH);
        out_devices->driver = FLAGOS_STR("POSIX threads");
        out_devices->reason = FLAGOS_STR("");
        memset(out_devices->uuid, 0, sizeof out_devices->uuid);
        out_devices->pci = UINT64_MAX;
        out_devices->caps = FLAGOS_CAP_ADDRESS_SPACE | FLAGOS_CAP_HOST_VISIBLE;
    }
    *out_count = 1;
    return NULL;
}

static flagos_status_t *shutdown_backend(void)
{
    atomic_store(&is_shut_down, 1);
    return NULL;
}

const flagos_backend_v1_t example_backend = {
    FLAGOS_BACKEND_V1_HEAD,
    .abi_minor_built = FLAGOS_ABI_MINOR,
    .abi_minor_needed = 0,
    .layout_hash = FLAGOS_LAYOUT_HASH_INIT,
    .name = FLAGOS_STR_INIT("example-c"),
    .version = FLAGOS_STR_INIT("1.0.0"),
    .vendor = FLAGOS_STR_INIT("libflagos"),
    .build_id = FLAGOS_STR_INIT(EXAMPLE_BUILD_ID),
    .compiler = FLAGOS_STR_INIT(__VERSION__),
#if defined(__SANITIZE_ADDRESS__)
    .sanitizer = FLAGOS_SANITIZER_ADDRESS,
#elif defined(__SANITIZE_THREAD__)
    .sanitizer = FLAGOS_SANITIZER_THREAD,
#else
    .sanitizer = FLAGOS_SANITIZER_NONE,
#endif
    .domains = FLAGOS_DOMAIN_OP,
    .probe = probe,
    .shutdown = shutdown_backend,
    .device = &example_device_table,
    .memory = &example_memory_table,
    .stream = &example_stream_table,
    .op = &example_op_table,
};

/* Without a host there is nobody to make a status: this one is static, and releasing it does nothing. */
static void release_nothing(flagos_status_t *status)
{
    (void)status;
}

static flagos_status_t no_host = {
    FLAGOS_STATUS_HEAD,
    .code = FLAGOS_ABI_MISMATCH,
    .argument = -1,
    .message = FLAGOS_STR_INIT("example-c was given no host table of this ABI's layout"),
    .release = release_nothing,
};

const flagos_backend_v1_t *flagos_backend_query_v1(const flagos_host_v1_t *host, flagos_status_t **why_not)
{
    if (host == NULL || host->kind != FLAGOS_HOST_V1_KIND || host->size < sizeof *host) {
        if (why_not != NULL)
            *why_not = &no_host;
        return NULL;
    }
    atomic_store(&the_host, host);
    return &example_backend;
}
