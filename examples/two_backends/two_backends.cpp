// Several chips in one process: copies between each two of them, and a computation whose steps run on different ones; in C++17.
//   two_backends [DEVICE...]    every device of cuda, vulkan, opencl and cpu where none is named
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
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
using Text = Owned<char, flagos_text_free>;

// Backends whose devices take part, in the order in which they take the steps of the computation.
const char *const backends[] = {"cuda", "vulkan", "opencl", "cpu"};

struct Chip {
    std::string name;
    Device device;
    Stream stream;
};

Buffer alloc(const Chip &chip, std::uint64_t bytes)
{
    flagos_buffer_t *buffer = nullptr;
    CHECK(flagos_buffer_alloc(chip.device.get(), bytes, 0, &buffer));
    return Buffer(buffer);
}

template <typename T>
void write(const Chip &chip, const Buffer &to, const std::vector<T> &from)
{
    CHECK(flagos_write(chip.stream.get(), to.get(), 0, from.data(), from.size() * sizeof(T)));
    CHECK(flagos_stream_sync(chip.stream.get()));
}

template <typename T>
std::vector<T> read(const Chip &chip, const Buffer &from, std::size_t n)
{
    std::vector<T> to(n);
    CHECK(flagos_read(chip.stream.get(), from.get(), 0, to.data(), n * sizeof(T)));
    CHECK(flagos_stream_sync(chip.stream.get()));
    return to;
}

[[noreturn]] void wrong(const std::string &text)
{
    std::fprintf(stderr, "two_backends: %s\n", text.c_str());
    std::exit(1);
}

// A number of the host's statistics.
std::uint64_t counter(const Context &context, const char *name)
{
    char *raw = nullptr;
    CHECK(flagos_context_statistics(context.get(), &raw));
    const Text text(raw);
    const char *at = std::strstr(raw, name);
    if (!at)
        wrong(std::string("the statistics have no ") + name);
    return std::strtoull(at + std::strlen(name) + 2, nullptr, 10);
}

Chip open(const Context &context, const std::string &name)
{
    flagos_device_t *device = nullptr;
    check(flagos_device_open(context.get(), name.c_str(), &device), name.c_str());
    Device owned(device);
    flagos_stream_t *stream = nullptr;
    CHECK(flagos_stream_create(device, 0, 0, &stream));
    return {name, std::move(owned), Stream(stream)};
}

// Whether a device can be used; what is missing is said, and any other error ends the program.
bool usable(const Context &context, const std::string &name)
{
    flagos_device_t *device = nullptr;
    flagos_status_t *status = flagos_device_open(context.get(), name.c_str(), &device);
    std::uint32_t code = 0;
    char *raw = nullptr;
    if (status)
        CHECK(flagos_status_code(status, &code));
    if (code != FLAGOS_UNAVAILABLE) {
        check(status, name.c_str());
        CHECK(flagos_device_release(device));
        return true;
    }
    CHECK(flagos_status_text(status, &raw));
    std::printf("%s is left out: %s\n", name.c_str(), Text(raw).get());
    CHECK(flagos_status_release(status));
    return false;
}

std::vector<std::string> present(const Context &context)
{
    std::vector<std::string> all, chosen;
    std::uint32_t count = 0;
    CHECK(flagos_device_count(context.get(), &count));
    for (std::uint32_t i = 0; i < count; i++) {
        char *raw = nullptr;
        CHECK(flagos_device_name_at(context.get(), i, &raw));
        all.emplace_back(Text(raw).get());
    }
    for (const std::string backend : backends)
        std::copy_if(all.begin(), all.end(), std::back_inserter(chosen),
                     [&](const std::string &name) { return name.rfind(backend + ":", 0) == 0 && usable(context, name); });
    return chosen;
}

// Copies bytes from one chip to another, from and to odd offsets, and compares every one.
void copy(const Context &context, const Chip &from, const Chip &to, std::uint64_t bytes)
{
    const std::uint64_t from_offset = 3, to_offset = 5, room = bytes + 16;
    std::vector<unsigned char> x(room), y(room, 0xee);
    std::uint32_t state = static_cast<std::uint32_t>(bytes);
    for (auto &b : x)
        b = static_cast<unsigned char>((state = state * 1664525u + 1013904223u) >> 24);
    const Buffer source = alloc(from, room), target = alloc(to, room);
    write(from, source, x);
    write(to, target, y);
    const std::uint64_t direct = counter(context, "direct_bytes"), staged = counter(context, "staged_bytes");
    CHECK(flagos_copy(to.stream.get(), target.get(), to_offset, from.stream.get(), source.get(), from_offset, bytes));
    const std::vector<unsigned char> got = read<unsigned char>(to, target, room);
    std::memcpy(y.data() + to_offset, x.data() + from_offset, bytes);
    const std::uint64_t by_backend = counter(context, "direct_bytes") - direct, by_host = counter(context, "staged_bytes") - staged;
    std::printf("copy %s -> %s: %llu bytes, counted direct %llu, staged %llu\n", from.name.c_str(), to.name.c_str(), static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(by_backend), static_cast<unsigned long long>(by_host));
    if (got != y)
        wrong("byte " + std::to_string(std::mismatch(got.begin(), got.end(), y.begin()).first - got.begin()) + " of the target differs");
    if (by_backend + by_host != bytes)
        wrong("the host's counters do not say what was copied");
}

const std::int64_t M = 96, K = 160, N = 72;

// What each step of the computation gave.
struct Steps {
    std::vector<float> product, activated, normalised, sum;
};

// sum(softmax(gelu(A B))), each step on a chip of its own, what it works on copied over from the one before.
Steps compute(const std::vector<const Chip *> &chips, const std::vector<float> &a, const std::vector<float> &b)
{
    const std::int64_t left[] = {M, K}, right[] = {K, N}, square[] = {M, N}, row[] = {N}, first = 0;
    const std::uint64_t bytes = static_cast<std::uint64_t>(M * N) * sizeof(float);
    const auto tensor = [](std::uint32_t rank, const std::int64_t *shape, const Buffer &memory) { return flagos_tensor(FLAGOS_F32, rank, shape, memory.get(), 0); };
    const auto moved = [&](const Chip &to, const Chip &from, const Buffer &memory) {
        Buffer here = alloc(to, bytes);
        CHECK(flagos_copy(to.stream.get(), here.get(), 0, from.stream.get(), memory.get(), 0, bytes));
        return here;
    };
    Steps steps;
    const Chip &c0 = *chips[0], &c1 = *chips[1], &c2 = *chips[2], &c3 = *chips[3];
    const Buffer a0 = alloc(c0, a.size() * sizeof(float)), b0 = alloc(c0, b.size() * sizeof(float)), p0 = alloc(c0, bytes);
    write(c0, a0, a);
    write(c0, b0, b);
    const flagos_tensor_t ta = tensor(2, left, a0), tb = tensor(2, right, b0), tp = tensor(2, square, p0);
    CHECK(flagos_mm(c0.stream.get(), &ta, &tb, &tp));

    const Buffer p1 = moved(c1, c0, p0), g1 = alloc(c1, bytes);
    const flagos_tensor_t tp1 = tensor(2, square, p1), tg1 = tensor(2, square, g1);
    CHECK(flagos_gelu(c1.stream.get(), &tp1, 0, &tg1));

    const Buffer g2 = moved(c2, c1, g1), s2 = alloc(c2, bytes);
    const flagos_tensor_t tg2 = tensor(2, square, g2), ts2 = tensor(2, square, s2);
    CHECK(flagos_softmax(c2.stream.get(), &tg2, 1, &ts2));

    const Buffer s3 = moved(c3, c2, s2), y3 = alloc(c3, static_cast<std::uint64_t>(N) * sizeof(float));
    const flagos_tensor_t ts3 = tensor(2, square, s3), ty3 = tensor(1, row, y3);
    CHECK(flagos_sum(c3.stream.get(), &ts3, &first, 1, 0, &ty3));

    const std::size_t elements = static_cast<std::size_t>(M * N);
    steps.product = read<float>(c0, p0, elements);
    steps.activated = read<float>(c1, g1, elements);
    steps.normalised = read<float>(c2, s2, elements);
    steps.sum = read<float>(c3, y3, static_cast<std::size_t>(N));
    return steps;
}

// The greatest difference as a share of what is allowed at its place.
template <typename Allowed>
double worst(const char *step, const std::vector<float> &got, const std::vector<float> &want, Allowed allowed)
{
    double share = 0;
    for (std::size_t i = 0; i < want.size(); i++) {
        const double difference = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
        // Not "greater than": a NaN must not pass.
        if (!(difference <= allowed(i)))
            wrong(std::string(step) + ": element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", on the processor " + std::to_string(want[i]));
        if (difference > 0)
            share = std::max(share, difference / allowed(i));
    }
    return share;
}

// Both sides round. The product is exact on each, gelu is off by some units of the last place of its argument; softmax carries that on, as a
// share of each value, and rounds; the sum carries that on.
void compare(const Steps &got, const Steps &want)
{
    const double u = std::ldexp(1.0, -24);
    std::vector<double> carried(static_cast<std::size_t>(M), 0.0);
    const auto of_gelu = [&](std::size_t i) { return 8 * u * std::fabs(static_cast<double>(want.product[i])); };
    for (std::size_t i = 0; i < want.product.size(); i++) {
        double &row = carried[i / static_cast<std::size_t>(N)];
        row = std::max(row, of_gelu(i));
    }
    const auto of_softmax = [&](std::size_t i) { return (2 * carried[i / static_cast<std::size_t>(N)] + 16 * u) * static_cast<double>(want.normalised[i]); };
    const auto of_sum = [&](std::size_t j) {
        double sum = 0;
        for (std::size_t i = j; i < want.normalised.size(); i += static_cast<std::size_t>(N))
            sum += of_softmax(i) + 2 * static_cast<double>(M) * u * static_cast<double>(want.normalised[i]);
        return sum;
    };
    worst("mm", got.product, want.product, [](std::size_t) { return 0.0; });
    const double gelu = worst("gelu", got.activated, want.activated, of_gelu);
    const double softmax = worst("softmax", got.normalised, want.normalised, of_softmax);
    const double sum = worst("sum", got.sum, want.sum, of_sum);
    std::printf("  mm equal bit by bit; of what is allowed gelu is off by %.2f, softmax by %.2f, sum by %.2f\n", gelu, softmax, sum);
}

} // namespace

int main(int argc, char **argv)
{
    flagos_context_t *raw = nullptr;
    CHECK(flagos_context_create(&raw));
    const Context context(raw);
    // A step its chip cannot do is an error, not another chip's work.
    CHECK(flagos_context_set_policy(context.get(), "fallback = \"forbid\"\n"));
    std::vector<std::string> names(argv + 1, argv + argc);
    if (names.empty())
        names = present(context);
    if (names.size() < 2)
        wrong("two devices are needed; name two, or install another backend");

    std::vector<Chip> chips;
    for (const std::string &name : names)
        chips.push_back(open(context, name));

    // One byte, less than a page, and more than the host moves at once.
    std::uint64_t copies = 0;
    for (const Chip &from : chips)
        for (const Chip &to : chips)
            for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{4093}, (std::uint64_t{9} << 20) + 5}) {
                if (&from == &to)
                    continue;
                copy(context, from, to, bytes);
                copies++;
            }

    // Multiples of 1/64 below 1/4 and short sums: every order of adding gives the same product.
    std::vector<float> a(static_cast<std::size_t>(M * K)), b(static_cast<std::size_t>(K * N));
    std::uint32_t state = 7;
    for (std::vector<float> *list : {&a, &b})
        for (float &value : *list)
            value = (static_cast<float>((state = state * 1664525u + 1013904223u) >> 28) - 7.5f) / 32.0f;
    const Chip processor = open(context, "cpu");
    const Steps want = compute({&processor, &processor, &processor, &processor}, a, b);
    // Each chip does each step once.
    for (std::size_t turn = 0; turn < chips.size(); turn++) {
        std::vector<const Chip *> four;
        for (std::size_t step = 0; step < 4; step++)
            four.push_back(&chips[(turn + step) % chips.size()]);
        const std::uint64_t direct = counter(context, "direct_bytes"), staged = counter(context, "staged_bytes");
        const Steps got = compute(four, a, b);
        std::printf("mm on %s, gelu on %s, softmax on %s, sum on %s: copied direct %llu, staged %llu bytes\n", four[0]->name.c_str(), four[1]->name.c_str(),
                    four[2]->name.c_str(), four[3]->name.c_str(), static_cast<unsigned long long>(counter(context, "direct_bytes") - direct),
                    static_cast<unsigned long long>(counter(context, "staged_bytes") - staged));
        compare(got, want);
    }
    if (counter(context, "calls") != 0)
        wrong("a step ran elsewhere");
    std::printf("%zu devices, %llu copies and %zu computations agree\n", chips.size(), static_cast<unsigned long long>(copies), chips.size());
    return 0;
}
