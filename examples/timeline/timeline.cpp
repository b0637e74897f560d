// Two chips in one process: work on each, ordered by an event, with a copy between them; in C++17.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "../check.h"

namespace {

template <typename T, flagos_status_t *(*release)(T *)>
struct Releaser {
    void operator()(T *handle) const { check(release(handle), "release"); }
};
template <typename T, flagos_status_t *(*release)(T *)>
using Owned = std::unique_ptr<T, Releaser<T, release>>;

using Context = Owned<flagos_context_t, flagos_context_release>;
using Device = Owned<flagos_device_t, flagos_device_release>;
using Stream = Owned<flagos_stream_t, flagos_stream_release>;
using Buffer = Owned<flagos_buffer_t, flagos_buffer_release>;
using Event = Owned<flagos_event_t, flagos_event_release>;

Device open(const Context &context, const char *name)
{
    flagos_device_t *device = nullptr;
    check(flagos_device_open(context.get(), name, &device), name);
    return Device(device);
}

Stream stream_of(const Device &device)
{
    flagos_stream_t *stream = nullptr;
    CHECK(flagos_stream_create(device.get(), 0, 0, &stream));
    return Stream(stream);
}

Buffer alloc(const Device &device, std::uint64_t bytes)
{
    flagos_buffer_t *buffer = nullptr;
    CHECK(flagos_buffer_alloc(device.get(), bytes, 0, &buffer));
    return Buffer(buffer);
}

} // namespace

int main()
{
    flagos_context_t *raw = nullptr;
    CHECK(flagos_context_create(&raw));
    const Context context(raw);
    const Device first = open(context, "example-c"), second = open(context, "cpu");
    const std::int64_t shape[1] = {1000};
    const std::uint64_t bytes = 1000 * sizeof(float);
    std::vector<float> x(1000), y(1000);
    for (std::size_t i = 0; i < x.size(); i++)
        x[i] = static_cast<float>(i) - 500.0f;

    {
        const Stream left = stream_of(first), right = stream_of(second);
        const Buffer a = alloc(first, bytes), b = alloc(second, bytes);
        flagos_event_t *event_raw = nullptr;
        CHECK(flagos_event_create(first.get(), &event_raw));
        const Event event(event_raw);

        // On the first chip: x, then relu(x) in place; the timeline rises to 1 when that is done.
        flagos_tensor_t ta = flagos_tensor(FLAGOS_F32, 1, shape, a.get(), 0);
        CHECK(flagos_write(left.get(), a.get(), 0, x.data(), bytes));
        CHECK(flagos_relu(left.get(), &ta, &ta));
        CHECK(flagos_stream_signal(left.get(), event.get(), 1));

        // On the second: wait for it, take the result over, and negate it.
        flagos_tensor_t tb = flagos_tensor(FLAGOS_F32, 1, shape, b.get(), 0);
        CHECK(flagos_stream_wait(right.get(), event.get(), 1));
        CHECK(flagos_copy(right.get(), b.get(), 0, left.get(), a.get(), 0, bytes));
        CHECK(flagos_neg(right.get(), &tb, &tb));
        CHECK(flagos_read(right.get(), b.get(), 0, y.data(), bytes));
        CHECK(flagos_stream_sync(right.get()));
    }
    for (std::size_t i = 0; i < x.size(); i++) {
        if (y[i] != -(x[i] > 0 ? x[i] : 0.0f)) {
            std::fprintf(stderr, "element %zu is %g\n", i, static_cast<double>(y[i]));
            return 1;
        }
    }
    char *statistics = nullptr;
    CHECK(flagos_context_statistics(context.get(), &statistics));
    std::printf("two chips agree; %s\n", statistics);
    CHECK(flagos_text_free(statistics));
    return 0;
}
