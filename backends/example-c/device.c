/* Device table: the one device, its properties, its memory budget, and waiting for all its work. */
#include "example.h"

#include <stdatomic.h>
#include <unistd.h>

/* The device itself; handles name it. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    uint64_t pending; /* commands enqueued and not yet done, on all streams */
} chip = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static atomic_uint_fast64_t used_bytes;

uint64_t example_total_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t example_used_bytes(void)
{
    return atomic_load(&used_bytes);
}

int example_reserve(uint64_t bytes)
{
    uint64_t total = example_total_bytes();
    uint_fast64_t used = atomic_load(&used_bytes);
    do {
        if (bytes > total || used > total - bytes)
            return 0;
    } while (!atomic_compare_exchange_weak(&used_bytes, &used, used + bytes));
    return 1;
}

void example_unreserve(uint64_t bytes)
{
    atomic_fetch_sub(&used_bytes, bytes);
}

void example_work_begins(void)
{
    pthread_mutex_lock(&chip.mutex);
    chip.pending++;
    pthread_mutex_unlock(&chip.mutex);
}

void example_work_ended(void)
{
    pthread_mutex_lock(&chip.mutex);
    if (--chip.pending == 0)
        pthread_cond_broadcast(&chip.idle);
    pthread_mutex_unlock(&chip.mutex);
}

static flagos_status_t *device_open(uint32_t ordinal, flagos_device_t **out_device)
{
    TRY(example_running());
    TRY(example_out(out_device, "out_device"));
    if (ordinal != 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "device %u: example-c has one device, 0", ordinal);
    flagos_device_t *device = example_alloc(sizeof *device);
    if (device == NULL)
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "no host memory for a device handle");
    device->head = (struct example_head){&example_backend, EXAMPLE_DEVICE};
    device->address_space = (struct flagos_buffer){{&example_backend, EXAMPLE_BUFFER}, device, 0, UINT64_MAX, 0};
    *out_device = device;
    return NULL;
}

static flagos_status_t *device_close(flagos_device_t *device)
{
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    device->head.type = 0;
    example_free(device, sizeof *device);
    return NULL;
}

static flagos_status_t *device_info(flagos_device_t *device, flagos_device_info_t *out_info)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_out_struct(out_info, FLAGOS_DEVICE_INFO_KIND, sizeof *out_info, "flagos_device_info_t"));
    /* Everything not named is 0: no kernel formats, no blocks, no matrix units. */
    *out_info = (flagos_device_info_t){
        .size = out_info->size,
        .kind = out_info->kind,
        .name = FLAGOS_STR("Example device in host memory"),
        .arch = FLAGOS_STR(EXAMPLE_ARCH),
        .driver = FLAGOS_STR("POSIX threads"),
        .memory_bytes = example_total_bytes(),
        .caps = FLAGOS_CAP_ADDRESS_SPACE | FLAGOS_CAP_HOST_VISIBLE,
        .device_kind = FLAGOS_DEVICE_CPU,
        .compute_units = 1,
        .alignment_bytes = 64,
        .memory_kinds = 1u << FLAGOS_MEMORY_DEVICE | 1u << FLAGOS_MEMORY_DEVICE_HOST_VISIBLE | 1u << FLAGOS_MEMORY_HOST,
    };
    return NULL;
}

static flagos_status_t *device_sync(flagos_device_t *device)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    pthread_mutex_lock(&chip.mutex);
    while (chip.pending > 0)
        pthread_cond_wait(&chip.idle, &chip.mutex);
    pthread_mutex_unlock(&chip.mutex);
    return NULL;
}

const flagos_device_table_t example_device_table = {
    FLAGOS_DEVICE_TABLE_HEAD,
    .open = device_open,
    .close = device_close,
    .info = device_info,
    .sync = device_sync,
};
