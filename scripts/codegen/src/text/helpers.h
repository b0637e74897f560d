/* Text of a literal: as an initialiser of static data, and as a value. */
#define FLAGOS_STR_INIT(literal) {"" literal, sizeof(literal) - 1}
#define FLAGOS_STR(literal) flagos_str_n("" literal, sizeof(literal) - 1)

/* Text of `len` bytes; borrows them. */
static inline flagos_str_t flagos_str_n(const char *ptr, uint64_t len)
{
    flagos_str_t s;
    s.ptr = ptr;
    s.len = len;
    return s;
}

/* NUL-terminated text; borrows it. NULL is empty. */
static inline flagos_str_t flagos_str(const char *text)
{
    return flagos_str_n(text, text ? strlen(text) : 0);
}

/* An element type by its three parts. */
static inline flagos_dtype_t flagos_dtype(uint8_t code, uint8_t bits, uint16_t lanes)
{
    flagos_dtype_t t;
    t.code = code;
    t.bits = bits;
    t.lanes = lanes;
    return t;
}

/* Whether two element types are equal (0 or 1). */
static inline int flagos_dtype_equal(flagos_dtype_t a, flagos_dtype_t b)
{
    return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

/* Bytes per element. */
static inline uint64_t flagos_dtype_bytes(flagos_dtype_t t)
{
    return (uint64_t)t.bits / 8;
}

/* A tensor that is absent: for optional inputs. */
static inline flagos_tensor_t flagos_tensor_none(void)
{
    flagos_tensor_t t;
    memset(&t, 0, sizeof t);
    t.size = (uint32_t)sizeof t;
    t.dtype.code = (uint8_t)FLAGOS_DTYPE_NONE;
    return t;
}

/* A row-major tensor over `buffer` from `byte_offset` on. `rank` is at most FLAGOS_MAX_RANK. */
static inline flagos_tensor_t flagos_tensor(flagos_dtype_t dtype, uint32_t rank, const int64_t *shape, flagos_buffer_t *buffer,
                                            uint64_t byte_offset)
{
    flagos_tensor_t t = flagos_tensor_none();
    int64_t step = 1;
    uint32_t d;
    t.dtype = dtype;
    t.rank = rank;
    t.buffer = buffer;
    t.byte_offset = byte_offset;
    for (d = rank; d-- > 0 && d < FLAGOS_MAX_RANK;) {
        t.shape[d] = shape[d];
        t.stride[d] = step;
        step *= shape[d] > 0 ? shape[d] : 1;
    }
    return t;
}

/* Number of elements; INT64_MAX where it would be greater. */
static inline int64_t flagos_tensor_elems(const flagos_tensor_t *t)
{
    int64_t n = 1;
    uint32_t d;
    for (d = 0; d < t->rank && d < FLAGOS_MAX_RANK; d++)
        if (t->shape[d] == 0)
            return 0;
    for (d = 0; d < t->rank && d < FLAGOS_MAX_RANK; d++) {
        if (t->shape[d] > INT64_MAX / n)
            return INT64_MAX;
        n *= t->shape[d];
    }
    return n;
}

/* An integer attribute; also truth values and choices. */
static inline flagos_attr_t flagos_attr_i64(uint32_t key, int64_t value)
{
    flagos_attr_t a;
    a.key = key;
    a.tag = FLAGOS_ATTR_I64;
    a.value = (uint64_t)value;
    return a;
}

/* A floating-point attribute. */
static inline flagos_attr_t flagos_attr_f64(uint32_t key, double value)
{
    flagos_attr_t a;
    a.key = key;
    a.tag = FLAGOS_ATTR_F64;
    memcpy(&a.value, &value, sizeof a.value);
    return a;
}

/* A list attribute; borrows the items. */
static inline flagos_attr_t flagos_attr_span(uint32_t key, const int64_t *items, uint32_t n)
{
    flagos_attr_t a;
    a.key = key;
    a.tag = FLAGOS_ATTR_SPAN | n << 8;
    a.value = (uint64_t)(uintptr_t)items;
    return a;
}

/* Value of an integer attribute. */
static inline int64_t flagos_attr_as_i64(const flagos_attr_t *a)
{
    return (int64_t)a->value;
}

/* Value of a floating-point attribute; an integer one is converted. */
static inline double flagos_attr_as_f64(const flagos_attr_t *a)
{
    double value;
    if ((a->tag & 0xff) != FLAGOS_ATTR_F64)
        return (double)(int64_t)a->value;
    memcpy(&value, &a->value, sizeof value);
    return value;
}

/* Items of a list attribute; their number is `tag >> 8`. */
static inline const int64_t *flagos_attr_as_span(const flagos_attr_t *a)
{
    return (const int64_t *)(uintptr_t)a->value;
}

/* Attribute `key` of a call, hint or not; NULL where it is absent and takes its default. */
static inline const flagos_attr_t *flagos_op_attr(const flagos_op_t *op, uint32_t key)
{
    uint32_t i;
    for (i = 0; i < op->n_attr; i++)
        if ((op->attrs[i].key & ~FLAGOS_ATTR_HINT) == key)
            return &op->attrs[i];
    return NULL;
}
