/* Operator table: which calls are offered, and how each is laid out over index spaces. Everything is checked here, nothing later. */
#include "example.h"

/* Why a call is not planned. The text is static, so that a query can lend it. */
struct example_refusal {
    uint32_t code;
    int32_t argument;
    const char *text;
};

static int refuse(struct example_refusal *why, uint32_t code, int argument, const char *text)
{
    *why = (struct example_refusal){code, argument, text};
    return 0;
}

/* ---- Tensors ---------------------------------------------------------------------------------------------------- */

static int is_floating(flagos_dtype_t t)
{
    return flagos_dtype_equal(t, FLAGOS_F32) || flagos_dtype_equal(t, FLAGOS_F64);
}

static int same_shape(const flagos_tensor_t *a, const flagos_tensor_t *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, a->rank * sizeof a->shape[0]) == 0;
}

/* Checks one descriptor and notes what it touches. */
static int add_operand(flagos_plan_t *plan, const flagos_tensor_t *t, struct example_refusal *why)
{
    int index = (int)plan->n_operands;
    struct example_operand *operand = &plan->operand[plan->n_operands++];
    if (t->size != sizeof *t)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a flagos_tensor_t has another size than this build's; set it to sizeof");
    if (t->rank > FLAGOS_MAX_RANK)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a tensor has more than 8 dimensions");
    if (t->layout != 0 || t->flags != 0 || t->next != NULL)
        return refuse(why, FLAGOS_UNSUPPORTED_FIELD, index, "a reserved field of flagos_tensor_t is not 0");
    if (t->dtype.code == FLAGOS_DTYPE_NONE)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a required tensor is absent");
    operand->bytes = (uint32_t)flagos_dtype_bytes(t->dtype);
    for (uint32_t d = 0; d < t->rank; d++) {
        int64_t reach, *end;
        if (t->shape[d] < 0)
            return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "an extent is negative");
        if (__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach) || __builtin_mul_overflow(reach, (int64_t)operand->bytes, &reach))
            return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a tensor spans more than 2^63 bytes");
        end = reach < 0 ? &operand->low_bytes : &operand->high_bytes;
        if (__builtin_add_overflow(reach, *end, end))
            return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a tensor spans more than 2^63 bytes");
    }
    if (flagos_tensor_elems(t) == 0)
        operand->low_bytes = operand->high_bytes = 0;
    else if (__builtin_add_overflow(operand->high_bytes, (int64_t)operand->bytes, &operand->high_bytes))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, index, "a tensor spans more than 2^63 bytes");
    return 1;
}

/* Adds an axis to a space, for one operand; stride in elements. */
static void set_axis(const flagos_plan_t *plan, struct example_space *space, uint32_t operand, uint32_t axis, int64_t stride)
{
    space->stride[operand][axis] = stride * (int64_t)plan->operand[operand].bytes;
}

/* Strides of `t` over `outer`, to which it broadcasts: axes it lacks, and axes of extent 1, repeat. 0 when it does not fit. */
static int broadcast(flagos_plan_t *plan, uint32_t operand, const flagos_tensor_t *t)
{
    struct example_space *outer = &plan->outer;
    if (t->rank > outer->rank)
        return 0;
    for (uint32_t d = 0; d < t->rank; d++) {
        uint32_t axis = outer->rank - t->rank + d;
        if (t->shape[d] != outer->shape[axis] && t->shape[d] != 1)
            return 0;
        set_axis(plan, outer, operand, axis, t->shape[d] == outer->shape[axis] ? t->stride[d] : 0);
    }
    return 1;
}

/* Lays inputs and output over the output's shape. */
static int over_output(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    const flagos_tensor_t *y = &op->outputs[0];
    plan->outer.rank = y->rank;
    memcpy(plan->outer.shape, y->shape, sizeof plan->outer.shape);
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!broadcast(plan, i, &op->inputs[i]))
            return refuse(why, FLAGOS_INVALID_ARGUMENT, (int)i, "an input does not broadcast to the output's shape");
    broadcast(plan, op->n_in, y);
    return 1;
}

/* ---- Attributes -------------------------------------------------------------------------------------------------- */

static int get_number(const flagos_op_t *op, uint32_t key, double *value, struct example_refusal *why)
{
    const flagos_attr_t *a = flagos_op_attr(op, key);
    if (a == NULL)
        return 1;
    if (a->tag != FLAGOS_ATTR_F64 && a->tag != FLAGOS_ATTR_I64)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "an attribute that is a number has another tag");
    *value = flagos_attr_as_f64(a);
    return 1;
}

static int get_integer(const flagos_op_t *op, uint32_t key, int64_t *value, struct example_refusal *why)
{
    const flagos_attr_t *a = flagos_op_attr(op, key);
    if (a == NULL)
        return 1;
    if (a->tag != FLAGOS_ATTR_I64)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "an attribute that is an integer has another tag");
    *value = flagos_attr_as_i64(a);
    return 1;
}

/* Turns an axis that may count from the end into 0 to rank - 1; a scalar counts as one axis. */
static int get_axis(int64_t dim, uint32_t rank, uint32_t *axis, struct example_refusal *why)
{
    int64_t n = rank > 0 ? (int64_t)rank : 1;
    if (dim < -n || dim >= n)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "an axis is out of range for the rank");
    *axis = (uint32_t)(dim < 0 ? dim + n : dim);
    return 1;
}

/* ---- Layouts of the operators -------------------------------------------------------------------------------------- */

static int lay_out_pointwise(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    const flagos_tensor_t *y = &op->outputs[0];
    flagos_dtype_t widest = FLAGOS_F32;
    int64_t rounding_mode = 0;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (!is_floating(op->inputs[i].dtype))
            return refuse(why, FLAGOS_UNIMPLEMENTED, (int)i, "only f32 and f64 are offered");
        if (op->inputs[i].dtype.bits > widest.bits)
            widest = op->inputs[i].dtype;
    }
    if (!flagos_dtype_equal(y->dtype, widest))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, op->n_in, "the output's type is not the wider one of the inputs");
    if (!get_number(op, FLAGOS_ATTR_KEY_ALPHA, &plan->alpha, why) || !get_integer(op, FLAGOS_ATTR_KEY_ROUNDING_MODE, &rounding_mode, why))
        return 0;
    if (rounding_mode != FLAGOS_ROUNDING_MODE_NONE)
        return refuse(why, FLAGOS_UNIMPLEMENTED, -1, "div is offered without rounding only");
    if (!over_output(op, plan, why))
        return 0;
    /* An output axis longer than 1 comes from an input. */
    for (uint32_t axis = 0; axis < y->rank; axis++) {
        int found = y->shape[axis] == 1;
        for (uint32_t i = 0; i < op->n_in; i++) {
            uint32_t lead = y->rank - op->inputs[i].rank;
            found |= axis >= lead && op->inputs[i].shape[axis - lead] == y->shape[axis];
        }
        if (!found)
            return refuse(why, FLAGOS_INVALID_ARGUMENT, op->n_in, "the output is larger than the inputs broadcast together");
    }
    return 1;
}

static int lay_out_copy(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    if (!flagos_dtype_equal(op->inputs[0].dtype, op->outputs[0].dtype))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "copy keeps the type; use cast to change it");
    if (plan->operand[0].bytes == 0 || op->inputs[0].dtype.bits % 8 != 0 || op->inputs[0].dtype.lanes != 1)
        return refuse(why, FLAGOS_UNIMPLEMENTED, 0, "only element types of whole bytes are offered");
    return over_output(op, plan, why);
}

static int lay_out_cast(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    if (!is_floating(op->inputs[0].dtype) || !is_floating(op->outputs[0].dtype))
        return refuse(why, FLAGOS_UNIMPLEMENTED, 0, "only casts between f32 and f64 are offered");
    if (!same_shape(&op->inputs[0], &op->outputs[0]))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "the output has another shape than the input");
    return over_output(op, plan, why);
}

/* The axes `dims` names as bits; all where it names none. */
static int get_reduced(const flagos_op_t *op, uint32_t most, uint32_t *reduced, struct example_refusal *why)
{
    const flagos_attr_t *dims = flagos_op_attr(op, FLAGOS_ATTR_KEY_DIMS);
    uint32_t rank = op->inputs[0].rank, n = dims != NULL ? dims->tag >> 8 : 0;
    if (dims != NULL && (dims->tag & 0xff) != FLAGOS_ATTR_SPAN)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "dims is not a list");
    if (n > most)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "dims names more axes than the operator reduces");
    *reduced = n == 0 ? ~0u : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t axis;
        if (!get_axis(flagos_attr_as_span(dims)[i], rank, &axis, why))
            return 0;
        if (*reduced & 1u << axis)
            return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "dims names an axis twice");
        *reduced |= 1u << axis;
    }
    return 1;
}

/* Kept axes go to `outer`, reduced ones to `inner`. */
static int split_axes(const flagos_op_t *op, flagos_plan_t *plan, uint32_t reduced, struct example_refusal *why)
{
    const flagos_tensor_t *x = &op->inputs[0], *y = &op->outputs[0];
    int64_t keepdim = 0;
    uint32_t at = 0;
    if (!get_integer(op, FLAGOS_ATTR_KEY_KEEPDIM, &keepdim, why))
        return 0;
    for (uint32_t d = 0; d < x->rank; d++) {
        int is_reduced = reduced >> d & 1;
        struct example_space *space = is_reduced ? &plan->inner : &plan->outer;
        if (!is_reduced || keepdim != 0) {
            if (at >= y->rank || y->shape[at] != (is_reduced ? 1 : x->shape[d]))
                return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "the output's shape is not that of the reduced input");
            if (!is_reduced)
                set_axis(plan, space, 1, space->rank, y->stride[at]);
            at++;
        }
        set_axis(plan, space, 0, space->rank, x->stride[d]);
        space->shape[space->rank++] = x->shape[d];
    }
    return at == y->rank ? 1 : refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "the output has too many axes");
}

static int lay_out_sum(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    uint32_t reduced;
    if (!is_floating(op->inputs[0].dtype))
        return refuse(why, FLAGOS_UNIMPLEMENTED, 0, "only f32 and f64 are offered");
    if (!flagos_dtype_equal(op->inputs[0].dtype, op->outputs[0].dtype))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "the sum has another type than the input");
    return get_reduced(op, FLAGOS_MAX_RANK, &reduced, why) && split_axes(op, plan, reduced, why);
}

static int lay_out_argmax(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    uint32_t reduced;
    if (!is_floating(op->inputs[0].dtype))
        return refuse(why, FLAGOS_UNIMPLEMENTED, 0, "only f32 and f64 are offered");
    if (!flagos_dtype_equal(op->outputs[0].dtype, FLAGOS_I64))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "indices are i64");
    if (!get_reduced(op, 1, &reduced, why) || !split_axes(op, plan, reduced, why))
        return 0;
    if (flagos_tensor_elems(&op->inputs[0]) == 0 && flagos_tensor_elems(&op->outputs[0]) != 0)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 0, "there is no element to choose from");
    return 1;
}

static int lay_out_softmax(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    const flagos_tensor_t *x = &op->inputs[0], *y = &op->outputs[0];
    int64_t dim = -1;
    uint32_t axis;
    if (!is_floating(x->dtype))
        return refuse(why, FLAGOS_UNIMPLEMENTED, 0, "only f32 and f64 are offered");
    if (!flagos_dtype_equal(x->dtype, y->dtype) || !same_shape(x, y))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 1, "the output has another type or shape than the input");
    if (!get_integer(op, FLAGOS_ATTR_KEY_DIM, &dim, why) || !get_axis(dim, x->rank, &axis, why))
        return 0;
    if (axis + 1 < x->rank)
        return refuse(why, FLAGOS_UNIMPLEMENTED, -1, "softmax is offered along the last axis only");
    if (!over_output(op, plan, why))
        return 0;
    plan->inner.rank = 1;
    plan->inner.shape[0] = 1;
    if (x->rank > 0) {
        plan->outer.rank--;
        plan->inner.shape[0] = x->shape[axis];
        plan->inner.stride[0][0] = plan->outer.stride[0][axis];
        plan->inner.stride[1][0] = plan->outer.stride[1][axis];
    }
    return 1;
}

static int lay_out_product(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    uint32_t ia = op->n_in - 2u, ib = ia + 1;
    const flagos_tensor_t *a = &op->inputs[ia], *b = &op->inputs[ib], *y = &op->outputs[0];
    if (!is_floating(y->dtype))
        return refuse(why, FLAGOS_UNIMPLEMENTED, (int)op->n_in, "only f32 and f64 are offered");
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!flagos_dtype_equal(op->inputs[i].dtype, y->dtype))
            return refuse(why, FLAGOS_INVALID_ARGUMENT, (int)i, "operands have different types");
    if (a->rank != 2 || b->rank != 2 || y->rank != 2 || a->shape[1] != b->shape[0] || y->shape[0] != a->shape[0] || y->shape[1] != b->shape[1])
        return refuse(why, FLAGOS_INVALID_ARGUMENT, (int)ia, "shapes are not [M, K], [K, N] and [M, N]");
    if (!get_number(op, FLAGOS_ATTR_KEY_ALPHA, &plan->alpha, why) || !get_number(op, FLAGOS_ATTR_KEY_BETA, &plan->beta, why))
        return 0;
    plan->outer.rank = 2;
    memcpy(plan->outer.shape, y->shape, sizeof plan->outer.shape);
    if (ia == 1 && !broadcast(plan, 0, &op->inputs[0]))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, 0, "c does not broadcast to [M, N]");
    broadcast(plan, op->n_in, y);
    set_axis(plan, &plan->outer, ia, 0, a->stride[0]);
    set_axis(plan, &plan->outer, ib, 1, b->stride[1]);
    plan->inner.rank = 1;
    plan->inner.shape[0] = a->shape[1];
    set_axis(plan, &plan->inner, ia, 0, a->stride[1]);
    set_axis(plan, &plan->inner, ib, 0, b->stride[0]);
    return 1;
}

/* ---- The operators ------------------------------------------------------------------------------------------------- */

#define ROW(NAME) FLAGOS_OP_##NAME, FLAGOS_OP_##NAME##_REVISION
#define FIXED FLAGOS_PROPERTY_DETERMINISTIC
#define FIXED_IN_PLACE (FLAGOS_PROPERTY_DETERMINISTIC | FLAGOS_PROPERTY_IN_PLACE)

static const struct example_row rows[] = {
    {ROW(ADD), 2, FIXED_IN_PLACE, {FLAGOS_ATTR_KEY_ALPHA}, lay_out_pointwise, example_add},
    {ROW(SUB), 2, FIXED_IN_PLACE, {FLAGOS_ATTR_KEY_ALPHA}, lay_out_pointwise, example_sub},
    {ROW(MUL), 2, FIXED_IN_PLACE, {0}, lay_out_pointwise, example_mul},
    {ROW(DIV), 2, FIXED_IN_PLACE, {FLAGOS_ATTR_KEY_ROUNDING_MODE}, lay_out_pointwise, example_div},
    {ROW(RELU), 1, FIXED_IN_PLACE, {0}, lay_out_pointwise, example_relu},
    {ROW(EXP), 1, FIXED_IN_PLACE, {0}, lay_out_pointwise, example_exp},
    {ROW(SIGMOID), 1, FIXED_IN_PLACE, {0}, lay_out_pointwise, example_sigmoid},
    {ROW(COPY), 1, FIXED, {0}, lay_out_copy, example_copy},
    {ROW(CAST), 1, FIXED, {0}, lay_out_cast, example_cast},
    {ROW(SUM), 1, FIXED, {FLAGOS_ATTR_KEY_DIMS, FLAGOS_ATTR_KEY_KEEPDIM}, lay_out_sum, example_sum},
    {ROW(ARGMAX), 1, FIXED, {FLAGOS_ATTR_KEY_DIMS, FLAGOS_ATTR_KEY_KEEPDIM}, lay_out_argmax, example_argmax},
    {ROW(SOFTMAX), 1, FIXED_IN_PLACE, {FLAGOS_ATTR_KEY_DIM}, lay_out_softmax, example_softmax},
    {ROW(MM), 2, FIXED, {0}, lay_out_product, example_product},
    {ROW(ADDMM), 3, FIXED_IN_PLACE, {FLAGOS_ATTR_KEY_ALPHA, FLAGOS_ATTR_KEY_BETA}, lay_out_product, example_product},
};

/* Checks a call and lays it out in `plan`. Query and plan share it, so that what is offered is what can be planned. */
static int prepare(const flagos_op_t *op, flagos_plan_t *plan, struct example_refusal *why)
{
    const struct example_row *row = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && row == NULL; i++)
        if (rows[i].id == op->id)
            row = &rows[i];
    if (row == NULL || row->revision != op->revision)
        return refuse(why, FLAGOS_UNIMPLEMENTED, -1, "example-c does not offer this operator or revision");
    if (op->flags != 0 || op->next != NULL)
        return refuse(why, FLAGOS_UNSUPPORTED_FIELD, -1, "flagos_op_t has flags or an extension this backend does not know");
    if (op->n_in != row->n_in || op->n_out != 1)
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "the operator has another number of inputs or outputs");
    if (op->inputs == NULL || op->outputs == NULL || (op->attrs == NULL && op->n_attr > 0))
        return refuse(why, FLAGOS_INVALID_ARGUMENT, -1, "an array of flagos_op_t is NULL");
    for (uint32_t i = 0; i < op->n_attr; i++) {
        uint32_t key = op->attrs[i].key & ~FLAGOS_ATTR_HINT;
        int is_known = key != 0 && (key == row->keys[0] || key == row->keys[1]);
        if (!is_known && (op->attrs[i].key & FLAGOS_ATTR_HINT) == 0)
            return refuse(why, FLAGOS_UNIMPLEMENTED, -1, "an attribute is not known here");
    }
    *plan = (struct flagos_plan){.head = {&example_backend, EXAMPLE_PLAN}, .row = row, .alpha = 1, .beta = 1};
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!add_operand(plan, &op->inputs[i], why))
            return 0;
    return add_operand(plan, &op->outputs[0], why) && row->lay_out(op, plan, why);
}

static flagos_status_t *check_call(flagos_device_t *device, const flagos_op_t *op)
{
    TRY(example_running());
    TRY(example_handle(device, EXAMPLE_DEVICE, "device"));
    TRY(example_out(op, "the operator descriptor"));
    if (op->size != sizeof *op)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "flagos_op_t has size %u, this build's is %zu; set it to sizeof", op->size, sizeof *op);
    return NULL;
}

static flagos_status_t *op_query(flagos_device_t *device, const flagos_op_t *op, uint32_t level, flagos_support_t *out_support)
{
    flagos_plan_t plan;
    struct example_refusal why;
    TRY(check_call(device, op));
    TRY(example_out_struct(out_support, FLAGOS_SUPPORT_KIND, sizeof *out_support, "flagos_support_t"));
    int offered = prepare(op, &plan, &why);
    if (!offered && why.code != FLAGOS_UNIMPLEMENTED)
        return example_error(why.code, why.argument, "%s", why.text);
    out_support->answer = offered ? FLAGOS_ANSWER_YES : FLAGOS_ANSWER_NO;
    out_support->reason = offered ? FLAGOS_STR("") : flagos_str(why.text);
    if (level >= 1) {
        out_support->properties = offered ? plan.row->properties : 0;
        out_support->workspace_bytes = 0;
    }
    if (level >= 2) {
        out_support->fixed_ns = 5000;
        out_support->ns_per_byte = 1;
        out_support->ns_per_flop = 2;
    }
    return NULL;
}

static flagos_status_t *op_plan(flagos_device_t *device, const flagos_op_t *op, const flagos_plan_limits_t *limits, flagos_plan_t **out_plan)
{
    flagos_plan_t made;
    struct example_refusal why;
    TRY(check_call(device, op));
    TRY(example_struct(limits, FLAGOS_PLAN_LIMITS_KIND, sizeof *limits, "flagos_plan_limits_t"));
    TRY(example_out(out_plan, "out_plan"));
    if (!prepare(op, &made, &why))
        return example_error(why.code, why.argument, "%s", why.text);
    flagos_plan_t *plan = example_alloc(sizeof *plan);
    if (plan == NULL)
        return example_error(FLAGOS_RESOURCE_EXHAUSTED, -1, "no host memory for a plan");
    *plan = made;
    *out_plan = plan;
    return NULL;
}

/* ---- Plans ------------------------------------------------------------------------------------------------------------ */

static flagos_status_t *plan_info(flagos_plan_t *plan, flagos_plan_info_t *out_info)
{
    TRY(example_running());
    TRY(example_handle(plan, EXAMPLE_PLAN, "plan"));
    TRY(example_out_struct(out_info, FLAGOS_PLAN_INFO_KIND, sizeof *out_info, "flagos_plan_info_t"));
    out_info->workspace_bytes = 0;
    out_info->properties = plan->row->properties;
    out_info->flags = 0;
    out_info->implementation = FLAGOS_STR("strided C loop");
    return NULL;
}

/* Address of element (0, …, 0) of an operand, after a check that all of it lies in its buffer. */
static flagos_status_t *bind(const struct example_operand *operand, const flagos_binding_t *binding, int index, uint64_t *out_address)
{
    uint64_t low = binding->byte_offset + (uint64_t)operand->low_bytes;
    *out_address = 0;
    if (operand->low_bytes == operand->high_bytes)
        return NULL;
    if (operand->low_bytes < 0 && low > binding->byte_offset)
        return example_error(FLAGOS_INVALID_ARGUMENT, index, "operand %d reaches below the start of its buffer", index);
    TRY(example_range(binding->buffer, low, (uint64_t)operand->high_bytes - (uint64_t)operand->low_bytes, "an operand's buffer", out_address));
    *out_address -= (uint64_t)operand->low_bytes;
    return NULL;
}

static flagos_status_t *plan_launch(flagos_plan_t *plan, flagos_stream_t *stream, const flagos_launch_t *launch)
{
    uint64_t address[EXAMPLE_OPERANDS] = {0};
    TRY(example_running());
    TRY(example_handle(plan, EXAMPLE_PLAN, "plan"));
    TRY(example_handle(stream, EXAMPLE_STREAM, "stream"));
    TRY(example_struct(launch, FLAGOS_LAUNCH_KIND, sizeof *launch, "flagos_launch_t"));
    if (launch->n_bindings != plan->n_operands || launch->bindings == NULL)
        return example_error(FLAGOS_INVALID_ARGUMENT, -1, "%u bindings, the plan has %u operands", launch->n_bindings, plan->n_operands);
    if (launch->flags != 0)
        return example_error(FLAGOS_UNSUPPORTED_FIELD, -1, "flags of flagos_launch_t are %#x, they are reserved", launch->flags);
    for (uint32_t i = 0; i < plan->n_operands; i++)
        TRY(bind(&plan->operand[i], &launch->bindings[i], (int)i, &address[i]));
    example_enqueue_plan(stream, plan, address);
    return NULL;
}

static flagos_status_t *plan_destroy(flagos_plan_t *plan)
{
    TRY(example_handle(plan, EXAMPLE_PLAN, "plan"));
    plan->head.type = 0;
    example_free(plan, sizeof *plan);
    return NULL;
}

static const flagos_plan_table_t plan_table = {
    FLAGOS_PLAN_TABLE_HEAD,
    .info = plan_info,
    .launch = plan_launch,
    .destroy = plan_destroy,
};

const flagos_op_table_t example_op_table = {
    FLAGOS_OP_TABLE_HEAD,
    .query = op_query,
    .plan = op_plan,
    .plans = &plan_table,
};
