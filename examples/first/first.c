/* A first program: adds two vectors on the best device there is. */
#include "../check.h"

int main(void)
{
    enum { N = 5 };
    const int64_t shape[1] = {N};
    float a[N] = {1, 2, 3, 4, 5}, b[N] = {10, 20, 30, 40, 50}, y[N];
    flagos_context_t *context;
    flagos_device_t *device;
    flagos_stream_t *stream;
    flagos_buffer_t *memory;

    CHECK(flagos_context_create(&context));
    CHECK(flagos_device_open(context, "", &device)); /* "" is the best one; "cuda:1" names one */
    CHECK(flagos_stream_create(device, 0, 0, &stream));
    CHECK(flagos_buffer_alloc(device, 3 * sizeof a, 0, &memory));
    CHECK(flagos_write(stream, memory, 0, a, sizeof a));
    CHECK(flagos_write(stream, memory, sizeof a, b, sizeof b));

    flagos_tensor_t ta = flagos_tensor(FLAGOS_F32, 1, shape, memory, 0);
    flagos_tensor_t tb = flagos_tensor(FLAGOS_F32, 1, shape, memory, sizeof a);
    flagos_tensor_t ty = flagos_tensor(FLAGOS_F32, 1, shape, memory, 2 * sizeof a);
    CHECK(flagos_add(stream, &ta, &tb, 1.0, &ty)); /* y = a + 1·b, enqueued */
    CHECK(flagos_read(stream, memory, 2 * sizeof a, y, sizeof y));
    CHECK(flagos_stream_sync(stream));

    for (int i = 0; i < N; i++) {
        printf("%g%c", (double)y[i], i + 1 < N ? ' ' : '\n');
        if (y[i] != a[i] + b[i])
            return 1;
    }
    CHECK(flagos_buffer_release(memory));
    CHECK(flagos_stream_release(stream));
    CHECK(flagos_device_release(device));
    CHECK(flagos_context_release(context));
    return 0;
}
