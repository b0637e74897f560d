/* Arithmetic: loops over strided index spaces. f32 is computed in double and rounded once when it is stored. */
#include "example.h"

#include <math.h>

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

/* Offsets need not be aligned, so elements are copied rather than addressed. */
static double load(uint64_t address, uint32_t bytes)
{
    float narrow;
    double wide;
    if (bytes == sizeof wide) {
        memcpy(&wide, (const void *)(uintptr_t)address, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const void *)(uintptr_t)address, sizeof narrow);
    return narrow;
}

static void store(uint64_t address, uint32_t bytes, double value)
{
    float narrow = (float)value;
    if (bytes == sizeof value)
        memcpy((void *)(uintptr_t)address, &value, sizeof value);
    else
        memcpy((void *)(uintptr_t)address, &narrow, sizeof narrow);
}

static double load_operand(const flagos_plan_t *plan, uint32_t operand, const uint64_t *address)
{
    return load(address[operand], plan->operand[operand].bytes);
}

static void store_result(const flagos_plan_t *plan, const uint64_t *address, double value)
{
    store(address[plan->n_operands - 1], plan->operand[plan->n_operands - 1].bytes, value);
}

/* ---- Index spaces -------------------------------------------------------------------------------------------------- */

static int is_empty(const struct example_space *space)
{
    for (uint32_t d = 0; d < space->rank; d++)
        if (space->shape[d] == 0)
            return 1;
    return 0;
}

/* Steps to the next index in row-major order; 0 after the last one. Addresses are numbers: they may leave the buffer between steps. */
static int advance(const struct example_space *space, int64_t *index, uint64_t *address, uint32_t n_operands)
{
    for (uint32_t d = space->rank; d-- > 0;) {
        int carry = ++index[d] == space->shape[d];
        for (uint32_t o = 0; o < n_operands; o++)
            address[o] += (uint64_t)space->stride[o][d] * (carry ? 1 - (uint64_t)space->shape[d] : 1);
        if (!carry)
            return 1;
        index[d] = 0;
    }
    return 0;
}

void example_run(const flagos_plan_t *plan, const uint64_t *address)
{
    int64_t index[FLAGOS_MAX_RANK] = {0};
    uint64_t at[EXAMPLE_OPERANDS];
    if (is_empty(&plan->outer))
        return;
    memcpy(at, address, sizeof at);
    do
        plan->row->cell(plan, at);
    while (advance(&plan->outer, index, at, plan->n_operands));
}

/* ---- Pointwise ----------------------------------------------------------------------------------------------------- */

void example_add(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, load_operand(plan, 0, address) + plan->alpha * load_operand(plan, 1, address));
}

void example_sub(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, load_operand(plan, 0, address) - plan->alpha * load_operand(plan, 1, address));
}

void example_mul(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, load_operand(plan, 0, address) * load_operand(plan, 1, address));
}

void example_div(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, load_operand(plan, 0, address) / load_operand(plan, 1, address));
}

void example_relu(const flagos_plan_t *plan, const uint64_t *address)
{
    double x = load_operand(plan, 0, address);
    store_result(plan, address, x > 0 || isnan(x) ? x : 0);
}

void example_exp(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, exp(load_operand(plan, 0, address)));
}

/* For negative x the form with exp(x) keeps subnormal results, where 1 / (1 + exp(-x)) would overflow to 0. */
void example_sigmoid(const flagos_plan_t *plan, const uint64_t *address)
{
    double x = load_operand(plan, 0, address);
    double e = exp(-fabs(x));
    store_result(plan, address, x < 0 ? e / (1 + e) : 1 / (1 + e));
}

void example_copy(const flagos_plan_t *plan, const uint64_t *address)
{
    memcpy((void *)(uintptr_t)address[1], (const void *)(uintptr_t)address[0], plan->operand[0].bytes);
}

void example_cast(const flagos_plan_t *plan, const uint64_t *address)
{
    store_result(plan, address, load_operand(plan, 0, address));
}

/* ---- Reductions ----------------------------------------------------------------------------------------------------- */

void example_sum(const flagos_plan_t *plan, const uint64_t *address)
{
    int64_t index[FLAGOS_MAX_RANK] = {0};
    uint64_t x = address[0];
    double total = 0;
    if (!is_empty(&plan->inner))
        do
            total += load(x, plan->operand[0].bytes);
        while (advance(&plan->inner, index, &x, 1));
    store_result(plan, address, total);
}

/* The first of equals, and the first NaN before everything. */
void example_argmax(const flagos_plan_t *plan, const uint64_t *address)
{
    int64_t index[FLAGOS_MAX_RANK] = {0};
    uint64_t x = address[0];
    double best = load(x, plan->operand[0].bytes);
    int64_t at = 0, best_at = 0;
    while (!isnan(best) && advance(&plan->inner, index, &x, 1)) {
        double value = load(x, plan->operand[0].bytes);
        at++;
        if (value > best || isnan(value)) {
            best = value;
            best_at = at;
        }
    }
    memcpy((void *)(uintptr_t)address[1], &best_at, sizeof best_at);
}

/* A cell is a row: `inner` runs along it. */
void example_softmax(const flagos_plan_t *plan, const uint64_t *address)
{
    int64_t n = plan->inner.shape[0];
    uint64_t x_step = (uint64_t)plan->inner.stride[0][0], y_step = (uint64_t)plan->inner.stride[1][0];
    uint32_t bytes = plan->operand[0].bytes;
    double most = -INFINITY, total = 0;
    for (int64_t i = 0; i < n && !isnan(most); i++) {
        double value = load(address[0] + (uint64_t)i * x_step, bytes);
        if (value > most || isnan(value))
            most = value;
    }
    for (int64_t i = 0; i < n; i++)
        total += exp(load(address[0] + (uint64_t)i * x_step, bytes) - most);
    for (int64_t i = 0; i < n; i++)
        store(address[1] + (uint64_t)i * y_step, bytes, exp(load(address[0] + (uint64_t)i * x_step, bytes) - most) / total);
}

/* One element of beta·c + alpha·a·b; the last three operands are a, b, y, and c comes first where there is one. */
void example_product(const flagos_plan_t *plan, const uint64_t *address)
{
    uint32_t a = plan->n_operands - 3, b = a + 1;
    uint64_t a_at = address[a], b_at = address[b];
    double total = 0;
    if (plan->alpha != 0)
        for (int64_t k = 0; k < plan->inner.shape[0]; k++) {
            total += load(a_at, plan->operand[a].bytes) * load(b_at, plan->operand[b].bytes);
            a_at += (uint64_t)plan->inner.stride[a][0];
            b_at += (uint64_t)plan->inner.stride[b][0];
        }
    if (plan->alpha != 1)
        total *= plan->alpha;
    if (a == 1 && plan->beta != 0)
        total += plan->beta * load_operand(plan, 0, address);
    store_result(plan, address, total);
}
