/* Recognises the 1,797 handwritten digits on a device: mlp FOLDER DEVICE LEAST_ACCURACY.
 * Prints each digit found, the accuracy, and what ran where: an operator the device lacks runs on the fallback, counted and explained. */
#include <string.h>

#include "../check.h"

/* A tensor from an .npy file, on the device. */
typedef struct {
    flagos_tensor_t tensor;
    flagos_buffer_t *buffer;
    void *host;
    uint64_t bytes;
} array_t;

static void fail(const char *file, const char *what)
{
    fprintf(stderr, "%s: %s\n", file, what);
    exit(1);
}

/* Reads NumPy's format 1.0 with a row-major array of rank 1 or 2. */
static array_t load(flagos_device_t *device, flagos_stream_t *stream, const char *folder, const char *name)
{
    char path[1024], header[1024];
    unsigned char head[10];
    array_t a;
    memset(&a, 0, sizeof a);
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file || fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, "\x93NUMPY\x01", 7))
        fail(path, "no .npy file of format 1.0");
    size_t length = head[8] | (size_t)head[9] << 8;
    if (length >= sizeof header || fread(header, 1, length, file) != length)
        fail(path, "its header is cut off");
    header[length] = 0;
    int64_t shape[2] = {1, 1};
    const char *list = strstr(header, "'shape': (");
    int n = list ? sscanf(list + 10, "%ld, %ld", &shape[0], &shape[1]) : 0;
    if (n < 1 || shape[0] < 0 || shape[1] < 0 || strstr(header, "'fortran_order': True"))
        fail(path, "not a row-major array of rank 1 or 2");
    flagos_dtype_t dtype = strstr(header, "'<f4'") ? FLAGOS_F32 : FLAGOS_I64;
    if (!flagos_dtype_equal(dtype, FLAGOS_F32) && !strstr(header, "'<i8'"))
        fail(path, "neither f32 nor i64");
    a.bytes = (uint64_t)(shape[0] * shape[1]) * flagos_dtype_bytes(dtype);
    a.host = malloc(a.bytes);
    if (!a.host || fread(a.host, 1, a.bytes, file) != a.bytes)
        fail(path, "its data are cut off");
    fclose(file);
    CHECK(flagos_buffer_alloc(device, a.bytes, 0, &a.buffer));
    CHECK(flagos_write(stream, a.buffer, 0, a.host, a.bytes));
    a.tensor = flagos_tensor(dtype, (uint32_t)n, shape, a.buffer, 0);
    return a;
}

/* An output of a type and shape. */
static array_t make(flagos_device_t *device, flagos_dtype_t dtype, uint32_t rank, const int64_t *shape)
{
    array_t a;
    memset(&a, 0, sizeof a);
    a.bytes = flagos_dtype_bytes(dtype);
    for (uint32_t d = 0; d < rank; d++)
        a.bytes *= (uint64_t)shape[d];
    CHECK(flagos_buffer_alloc(device, a.bytes, 0, &a.buffer));
    a.tensor = flagos_tensor(dtype, rank, shape, a.buffer, 0);
    return a;
}

static void drop(array_t *a)
{
    CHECK(flagos_buffer_release(a->buffer));
    free(a->host);
}

/* x·w + b, without or with ReLU. */
static array_t dense(flagos_device_t *device, flagos_stream_t *stream, const array_t *x, const array_t *w, const array_t *b, int relu)
{
    const int64_t shape[2] = {x->tensor.shape[0], w->tensor.shape[1]};
    array_t y = make(device, FLAGOS_F32, 2, shape);
    CHECK(flagos_addmm(stream, &b->tensor, &x->tensor, &w->tensor, 1.0, 1.0, &y.tensor));
    if (relu)
        CHECK(flagos_relu(stream, &y.tensor, &y.tensor));
    return y;
}

int main(int argc, char **argv)
{
    flagos_context_t *context;
    flagos_device_t *device;
    flagos_stream_t *stream;
    char *text;
    if (argc != 4) {
        fprintf(stderr, "usage: %s FOLDER DEVICE LEAST_ACCURACY\n", argv[0]);
        return 2;
    }
    CHECK(flagos_context_create(&context));
    CHECK(flagos_device_open(context, argv[2], &device));
    CHECK(flagos_stream_create(device, 0, 0, &stream));

    array_t x = load(device, stream, argv[1], "images"), labels = load(device, stream, argv[1], "labels");
    array_t w[3], b[3];
    const char *const ws[3] = {"w1", "w2", "w3"}, *const bs[3] = {"b1", "b2", "b3"};
    for (int i = 0; i < 3; i++) {
        w[i] = load(device, stream, argv[1], ws[i]);
        b[i] = load(device, stream, argv[1], bs[i]);
    }
    array_t h1 = dense(device, stream, &x, &w[0], &b[0], 1);
    array_t h2 = dense(device, stream, &h1, &w[1], &b[1], 1);
    array_t logits = dense(device, stream, &h2, &w[2], &b[2], 0);

    const int64_t n = x.tensor.shape[0], rows[2] = {n, logits.tensor.shape[1]}, axis = 1;
    array_t log_p = make(device, FLAGOS_F32, 2, rows), digits = make(device, FLAGOS_I64, 1, &n);
    CHECK(flagos_log_softmax(stream, &logits.tensor, -1, &log_p.tensor));
    CHECK(flagos_argmax(stream, &log_p.tensor, &axis, 1, 0, &digits.tensor));

    int64_t *found = malloc(digits.bytes), right = 0;
    const int64_t *truth = labels.host;
    if (!found)
        return 1;
    CHECK(flagos_read(stream, digits.buffer, 0, found, digits.bytes));
    CHECK(flagos_stream_sync(stream));
    for (int64_t i = 0; i < n; i++) {
        printf("digit %ld %ld\n", (long)i, (long)found[i]);
        right += found[i] == truth[i];
    }
    double accuracy = (double)right / (double)n;
    printf("accuracy %.4f (%ld of %ld) on %s\n", accuracy, (long)right, (long)n, argv[2]);

    CHECK(flagos_context_statistics(context, &text));
    printf("statistics %s\n", text);
    CHECK(flagos_text_free(text));
    flagos_attr_t dim = flagos_attr_i64(FLAGOS_ATTR_KEY_DIM, -1);
    flagos_op_t op;
    memset(&op, 0, sizeof op);
    op.size = (uint32_t)sizeof op;
    op.id = FLAGOS_OP_LOG_SOFTMAX;
    op.revision = FLAGOS_OP_LOG_SOFTMAX_REVISION;
    op.n_in = op.n_out = 1;
    op.n_attr = 1;
    op.inputs = &logits.tensor;
    op.outputs = &log_p.tensor;
    op.attrs = &dim;
    CHECK(flagos_op_explain(device, &op, &text));
    printf("explain %s\n", text);
    CHECK(flagos_text_free(text));

    free(found);
    array_t *all[] = {&x, &labels, &h1, &h2, &logits, &log_p, &digits, &w[0], &w[1], &w[2], &b[0], &b[1], &b[2]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        drop(all[i]);
    CHECK(flagos_stream_release(stream));
    CHECK(flagos_device_release(device));
    CHECK(flagos_context_release(context));
    return accuracy >= atof(argv[3]) ? 0 : 1;
}
