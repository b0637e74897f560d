/* A kernel of one's own: Triton dialect, compiled for whatever device is named, run by blocks of 256 elements. */
#include "../check.h"

static const char *const TEXT =
    "module {\n"
    "  tt.func public @axpy(%x: !tt.ptr<f32>, %y: !tt.ptr<f32>, %a: f32, %n: i32) {\n"
    "    %c256 = arith.constant 256 : i32\n"
    "    %block = tt.get_program_id x : i32\n"
    "    %start = arith.muli %block, %c256 : i32\n"
    "    %lane = tt.make_range {end = 256 : i32, start = 0 : i32} : tensor<256xi32>\n"
    "    %starts = tt.splat %start : i32 -> tensor<256xi32>\n"
    "    %i = arith.addi %starts, %lane : tensor<256xi32>\n"
    "    %ns = tt.splat %n : i32 -> tensor<256xi32>\n"
    "    %inside = arith.cmpi slt, %i, %ns : tensor<256xi32>\n"
    "    %xs = tt.splat %x : !tt.ptr<f32> -> tensor<256x!tt.ptr<f32>>\n"
    "    %xi = tt.addptr %xs, %i : tensor<256x!tt.ptr<f32>>, tensor<256xi32>\n"
    "    %ys = tt.splat %y : !tt.ptr<f32> -> tensor<256x!tt.ptr<f32>>\n"
    "    %yi = tt.addptr %ys, %i : tensor<256x!tt.ptr<f32>>, tensor<256xi32>\n"
    "    %vx = tt.load %xi, %inside : tensor<256x!tt.ptr<f32>>\n"
    "    %vy = tt.load %yi, %inside : tensor<256x!tt.ptr<f32>>\n"
    "    %as = tt.splat %a : f32 -> tensor<256xf32>\n"
    "    %ax = arith.mulf %as, %vx : tensor<256xf32>\n"
    "    %sum = arith.addf %ax, %vy : tensor<256xf32>\n"
    "    tt.store %yi, %sum, %inside : tensor<256x!tt.ptr<f32>>\n"
    "    tt.return\n"
    "  }\n"
    "}\n";

int main(int argc, char **argv)
{
    enum { N = 1000 };
    const uint32_t grid[3] = {(N + 255) / 256, 1, 1};
    static float x[N], y[N];
    const float two = 2.0f;
    flagos_context_t *context;
    flagos_device_t *device;
    flagos_stream_t *stream;
    flagos_buffer_t *memory;
    flagos_kernel_t *kernel;
    flagos_kernel_arg_t args[4] = {{0}};

    for (int i = 0; i < N; i++) {
        x[i] = (float)i;
        y[i] = 1.0f;
    }
    CHECK(flagos_context_create(&context));
    CHECK(flagos_device_open(context, argc > 1 ? argv[1] : "", &device));
    CHECK(flagos_kernel_compile(device, TEXT, NULL, 0, &kernel)); /* slow the first time only */
    CHECK(flagos_stream_create(device, 0, 0, &stream));
    CHECK(flagos_buffer_alloc(device, sizeof x + sizeof y, 0, &memory));
    CHECK(flagos_write(stream, memory, 0, x, sizeof x));
    CHECK(flagos_write(stream, memory, sizeof x, y, sizeof y));

    for (int i = 0; i < 2; i++) {
        args[i].arg_kind = FLAGOS_ARG_BUFFER;
        args[i].binding.buffer = memory;
        args[i].binding.byte_offset = i ? sizeof x : 0;
        args[i + 2].arg_kind = FLAGOS_ARG_SCALAR;
        args[i + 2].bytes = 4;
    }
    memcpy(&args[2].scalar, &two, sizeof two);
    args[3].scalar = N;
    CHECK(flagos_kernel_launch(kernel, stream, grid, args, 4));
    CHECK(flagos_read(stream, memory, sizeof x, y, sizeof y));
    CHECK(flagos_stream_sync(stream));

    for (int i = 0; i < N; i++)
        if (y[i] != 2.0f * (float)i + 1.0f) {
            fprintf(stderr, "y[%d] is %g\n", i, (double)y[i]);
            return 1;
        }
    printf("axpy: %d elements are right\n", N);
    CHECK(flagos_buffer_release(memory));
    CHECK(flagos_stream_release(stream));
    CHECK(flagos_kernel_release(kernel));
    CHECK(flagos_device_release(device));
    CHECK(flagos_context_release(context));
    return 0;
}
