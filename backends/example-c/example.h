/* Shared by the files of the example backend: the objects behind its handles, checks, statuses. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include "flagos_backend.h"

#include <pthread.h>

/* Operands of the widest operator: addmm has three inputs and one output. */
#define EXAMPLE_OPERANDS 4
/* Commands a stream holds before enqueueing waits for room. */
#define EXAMPLE_RING 1024

/* ---- Objects --------------------------------------------------------------------------------------------------- */

enum example_type {
    EXAMPLE_DEVICE = 0x64657669,
    EXAMPLE_BUFFER = 0x62756666,
    EXAMPLE_STREAM = 0x73747265,
    EXAMPLE_EVENT = 0x6576656e,
    EXAMPLE_PLAN = 0x706c616e
};

/* Begins every object. The contract wants the backend's table first; the type tells our own handles apart. */
struct example_head {
    const flagos_backend_v1_t *backend;
    uint32_t type;
};

/* Memory: `bytes` from `address` on. The address-space buffer has address 0 and every byte there is. */
struct flagos_buffer {
    struct example_head head;
    flagos_device_t *device;
    uint64_t address;
    uint64_t bytes;
    uint64_t allocated_bytes; /* 0: not ours to free */
};

/* A handle on the one device. */
struct flagos_device {
    struct example_head head;
    struct flagos_buffer address_space;
};

/* A loop over an index space. Strides are in bytes, one row per operand. */
struct example_space {
    uint32_t rank;
    int64_t shape[FLAGOS_MAX_RANK];
    int64_t stride[EXAMPLE_OPERANDS][FLAGOS_MAX_RANK];
};

/* One operand of a plan. */
struct example_operand {
    uint32_t bytes;    /* of an element */
    int64_t low_bytes; /* the range touched, relative to the binding; low = high: no element */
    int64_t high_bytes;
};

/* A prepared call: for each index of `outer` one cell is computed, with a loop over `inner`. Immutable once made. */
struct flagos_plan {
    struct example_head head;
    const struct example_row *row;
    uint32_t n_operands;
    struct example_operand operand[EXAMPLE_OPERANDS];
    struct example_space outer;
    struct example_space inner;
    double alpha;
    double beta;
};

/* What computes one cell; `address` holds one address per operand. */
typedef void example_cell_t(const flagos_plan_t *plan, const uint64_t *address);

extern const flagos_backend_v1_t example_backend;
extern const flagos_device_table_t example_device_table;
extern const flagos_memory_table_t example_memory_table;
extern const flagos_stream_table_t example_stream_table;
extern const flagos_op_table_t example_op_table;

/* ---- Statuses and checks: backend.c ---------------------------------------------------------------------------- */

/* Hands a status to the caller of the current function, unless it is NULL. */
#define TRY(expression)                            \
    do {                                           \
        flagos_status_t *status_ = (expression);   \
        if (status_ != NULL)                       \
            return status_;                        \
    } while (0)

/* A status with a printf-like text; `argument` is the operand at fault or -1. */
flagos_status_t *example_error(uint32_t code, int32_t argument, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Refuses calls after shutdown. */
flagos_status_t *example_running(void);

/* Refuses NULL, other backends' handles and handles of another type. Works after shutdown: objects can still be released. */
flagos_status_t *example_handle(const void *handle, enum example_type type, const char *name);

/* Refuses NULL out pointers. */
flagos_status_t *example_out(const void *pointer, const char *name);

/* Checks a struct that begins with size and kind: any size from `least` (minor 0's) on, and zeros beyond what is known. */
flagos_status_t *example_struct(const void *object, uint32_t kind, uint32_t least, const char *name);

/* The same for a struct to be filled, whose unknown tail is left alone. */
flagos_status_t *example_out_struct(const void *object, uint32_t kind, uint32_t least, const char *name);

/* Host memory, counted by the host for this backend; zeroed. NULL when there is none. */
void *example_alloc(uint64_t bytes);
void example_free(void *object, uint64_t bytes);

/* ---- The chip: device.c ---------------------------------------------------------------------------------------- */

/* Counts device memory; 0 when the device has not that much. */
int example_reserve(uint64_t bytes);
void example_unreserve(uint64_t bytes);
uint64_t example_total_bytes(void);
uint64_t example_used_bytes(void);

/* Counts enqueued work for `sync` of the device. */
void example_work_begins(void);
void example_work_ended(void);

/* ---- Memory and streams: memory.c, stream.c ---------------------------------------------------------------------- */

/* Address of a range of a buffer, checked against its length. `name` is for messages. */
flagos_status_t *example_range(const flagos_buffer_t *buffer, uint64_t offset_bytes, uint64_t bytes, const char *name, uint64_t *out_address);

/* Enqueues. The patterns and addresses are copied; the memory they name stays valid until the stream passed it. */
void example_enqueue_copy(flagos_stream_t *stream, uint64_t dst, uint64_t src, uint64_t bytes);
void example_enqueue_fill(flagos_stream_t *stream, uint64_t dst, const void *pattern, uint32_t pattern_bytes, uint64_t bytes);
void example_enqueue_plan(flagos_stream_t *stream, const flagos_plan_t *plan, const uint64_t *address);

/* ---- Arithmetic: kernels.c --------------------------------------------------------------------------------------- */

/* Runs a plan, on the stream's thread. */
void example_run(const flagos_plan_t *plan, const uint64_t *address);

example_cell_t example_copy, example_cast, example_sum, example_argmax, example_softmax, example_product;
example_cell_t example_add, example_sub, example_mul, example_div, example_relu, example_exp, example_sigmoid;

/* An operator this backend offers: how a call is checked and laid out, and what computes a cell. */
struct example_refusal;
struct example_row {
    uint32_t id;
    uint32_t revision;
    uint16_t n_in;
    uint32_t properties;
    uint32_t keys[2]; /* attributes it knows; 0: none */
    int (*lay_out)(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why);
    example_cell_t *cell;
};

#endif
