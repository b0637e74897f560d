/* Memory table: buffers with a budget, copies and fills on a stream, mapping, addresses. */
#include "example.h"

#include <inttypes.h>
#include <stdlib.h>

flagos_status_t *example_range(const flagos_buffer_t *buffer, uint64_t offset_bytes, uint64_t bytes, const char *name, uint64_t *out_address)
{
    TRY(example_handle(buffer, EXAMPLE_BUFFER, name));
    if (offset_bytes > buffer->bytes || bytes > buffer->bytes - offset_bytes)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%s: %" PRIu64 " bytes at offset %" PRIu64 " leave the buffer of %" PRIu64 " bytes", name,
                             bytes, offset_bytes, buffer->bytes);
    *out_address = buffer->address + offset_bytes;
    return NULL;
}

static flagos_status_t *memory_alloc(flagos_device_t *device, const flagos_alloc_desc_t *desc, flagos_buffer_t **out_buffer)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_struct(desc, FLAGOS_ALLOC_DESC_KIND, sizeof *desc, "flagos_alloc_desc_t"));
    TRY(example_out(out_buffer, "out_buffer"));
    uint64_t alignment = desc->alignment_bytes > 64 ? desc->alignment_bytes : 64;
    if (desc->bytes == 0 || (desc->alignment_bytes & (desc->alignment_bytes - 1)) != 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%" PRIu64 " bytes aligned to %" PRIu64 ": give at least 1 byte and a power of two",
                             desc->bytes, desc->alignment_bytes);
    if (desc->flags != 0)
        return example_error(FLAGOS_UNSUPPORTED_FIELD, -1, "flags of flagos_alloc_desc_t are %#x, they are reserved", desc->flags);
    if (desc->memory_kind != FLAGOS_MEMORY_DEVICE && desc->memory_kind != FLAGOS_MEMORY_DEVICE_HOST_VISIBLE &&
        desc->memory_kind != FLAGOS_MEMORY_HOST)
        return example_error(FLAGOS_UNIMPLEMENTED, -1, "memory kind %u is not among the device's memory_kinds", desc->memory_kind);
    if (!example_reserve(desc->bytes))
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "%" PRIu64 " bytes wanted, the device has %" PRIu64 " of %" PRIu64 " left", desc->bytes,
                             example_total_bytes() - example_used_bytes(), example_total_bytes());
    flagos_buffer_t *buffer = example_alloc(sizeof *buffer);
    /* aligned_alloc wants a multiple of the alignment; the budget above keeps the sum from overflowing. */
    void *bytes = buffer != NULL ? aligned_alloc(alignment, (desc->bytes + alignment - 1) / alignment * alignment) : NULL;
    if (bytes == NULL) {
        if (buffer != NULL)
            example_free(buffer, sizeof *buffer);
        example_unreserve(desc->bytes);
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "the system gave no memory for a buffer of %" PRIu64 " bytes", desc->bytes);
    }
    *buffer = (struct flagos_buffer){{&example_backend, EXAMPLE_BUFFER}, device, (uint64_t)(uintptr_t)bytes, desc->bytes, desc->bytes};
    *out_buffer = buffer;
    return NULL;
}

static flagos_status_t *memory_free(flagos_buffer_t *buffer)
{
    TRY(example_handle(buffer, EXAMPLE_BUFFER, "buffer"));
    if (buffer->allocated_bytes == 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "the address-space buffer lives as long as its device; it is not freed");
    free((void *)(uintptr_t)buffer->address);
    example_unreserve(buffer->allocated_bytes);
    buffer->head.type = 0;
    example_free(buffer, sizeof *buffer);
    return NULL;
}

static flagos_status_t *memory_read(flagos_stream_t *stream, flagos_buffer_t *src, uint64_t src_offset_bytes, void *dst, uint64_t bytes)
{
    uint64_t from;
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_range(src, src_offset_bytes, bytes, "src", &from));
    if (bytes > 0)
        TRY(example_out(dst, "dst"));
    example_enqueue_copy(stream, (uint64_t)(uintptr_t)dst, from, bytes);
    return NULL;
}

static flagos_status_t *memory_write(flagos_stream_t *stream, flagos_buffer_t *dst, uint64_t dst_offset_bytes, const void *src, uint64_t bytes)
{
    uint64_t to;
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_range(dst, dst_offset_bytes, bytes, "dst", &to));
    if (bytes > 0)
        TRY(example_out(src, "src"));
    example_enqueue_copy(stream, to, (uint64_t)(uintptr_t)src, bytes);
    return NULL;
}

static flagos_status_t *memory_copy(flagos_stream_t *stream, flagos_buffer_t *dst, uint64_t dst_offset_bytes, flagos_buffer_t *src,
                                    uint64_t src_offset_bytes, uint64_t bytes)
{
    uint64_t to, from;
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_range(dst, dst_offset_bytes, bytes, "dst", &to));
    TRY(example_range(src, src_offset_bytes, bytes, "src", &from));
    example_enqueue_copy(stream, to, from, bytes);
    return NULL;
}

static flagos_status_t *memory_fill(flagos_stream_t *stream, flagos_buffer_t *dst, uint64_t dst_offset_bytes, const void *pattern,
                                    uint32_t pattern_bytes, uint64_t bytes)
{
    uint64_t to;
    TRY(example_running());
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_range(dst, dst_offset_bytes, bytes, "dst", &to));
    TRY(example_out(pattern, "pattern"));
    if (pattern_bytes == 0 || pattern_bytes > 16 || (pattern_bytes & (pattern_bytes - 1)) != 0 || bytes % pattern_bytes != 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "a pattern of %u bytes for %" PRIu64 ": give 1, 2, 4, 8 or 16, and a multiple of it",
                             pattern_bytes, bytes);
    example_enqueue_fill(stream, to, pattern, pattern_bytes, bytes);
    return NULL;
}

static flagos_status_t *memory_device_ptr(flagos_buffer_t *buffer, uint64_t *out_address)
{
    TRY(example_running());
    TRY(example_handle(buffer, EXAMPLE_BUFFER, "buffer"));
    TRY(example_out(out_address, "out_address"));
    *out_address = buffer->address;
    return NULL;
}

static flagos_status_t *memory_map(flagos_buffer_t *buffer, void **out_address)
{
    TRY(example_running());
    TRY(example_handle(buffer, EXAMPLE_BUFFER, "buffer"));
    TRY(example_out(out_address, "out_address"));
    if (buffer->address == 0)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "the address-space buffer cannot be mapped; use addresses as they are");
    *out_address = (void *)(uintptr_t)buffer->address;
    return NULL;
}

static flagos_status_t *memory_unmap(flagos_buffer_t *buffer)
{
    TRY(example_running());
    return example_handle(buffer, EXAMPLE_BUFFER, "buffer");
}

static flagos_status_t *memory_address_space(flagos_device_t *device, flagos_buffer_t **out_buffer)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_out(out_buffer, "out_buffer"));
    *out_buffer = &device->address_space;
    return NULL;
}

static flagos_status_t *memory_info(flagos_device_t *device, flagos_memory_info_t *out_info)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_out_struct(out_info, FLAGOS_MEMORY_INFO_KIND, sizeof *out_info, "flagos_memory_info_t"));
    out_info->total_bytes = example_total_bytes();
    out_info->free_bytes = out_info->total_bytes - example_used_bytes();
    return NULL;
}

/* import, export, trim and can_copy stay NULL: the header says what the host does then. */
const flagos_memory_table_t example_memory_table = {
    FLAGOS_MEMORY_TABLE_HEAD,
    .alloc = memory_alloc,
    .free = memory_free,
    .read = memory_read,
    .write = memory_write,
    .copy = memory_copy,
    .fill = memory_fill,
    .device_ptr = memory_device_ptr,
    .map = memory_map,
    .unmap = memory_unmap,
    .address_space = memory_address_space,
    .info = memory_info,
};
