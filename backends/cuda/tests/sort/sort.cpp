// The kernels of sort.cu on a processor, launched as the backend launches them. KEY, BITS, KIND, INFINITY_BITS, DESCENDING and ITEMS come from the test.
#include "device.h"

#include "../../src/sort.cu"

#include <cstring>

// One launch: a kernel by its name, the arguments as the backend packs them.
extern "C" int start(const char *name, unsigned blocks, const void *args)
{
    const auto is = [&](const char *other) { return std::strcmp(name, other) == 0; };
    if (is("count_digits")) {
        const Count a = *static_cast<const Count *>(args);
        device::launch(blocks, COUNTERS, [&] { count_digits(a); });
    } else if (is("sum_digits")) {
        const Sum a = *static_cast<const Sum *>(args);
        device::launch(blocks, DIGITS, [&] { sum_digits(a); });
    } else if (is("sort_digit")) {
        const Pass a = *static_cast<const Pass *>(args);
        device::launch(blocks, THREADS, [&] { sort_digit(a); });
    } else {
        return 1;
    }
    return 0;
}
