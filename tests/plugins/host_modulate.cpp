// The kernel's source on a CPU: its cores in a plain loop, with FP16 emulated, behind C functions for ctypes.
// It also stands in for the CUDA launcher, so that the plugin class runs as a whole on host memory.
#include "fine_modulate.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fine
{

// FP16 as its bits.
struct Half
{
    std::uint16_t bits;
    Half() = default;
    explicit Half(float value);
};

double value_of(Half half)
{
    int const exponent = half.bits >> 10 & 31;
    int const fraction = half.bits & 1023;
    double const sign = half.bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31)
    {
        return fraction ? NAN : sign * INFINITY;
    }
    return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

// The nearest FP16, ties to even.
Half rounded(double value)
{
    Half half;
    double const magnitude = std::fabs(value);
    half.bits = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value))
    {
        half.bits |= 0x7e00;
        return half;
    }
    if (magnitude >= 65520.0)
    {
        half.bits |= 0x7c00;
        return half;
    }
    int exponent = magnitude > 0 ? std::ilogb(magnitude) : -14;
    exponent = exponent < -14 ? -14 : exponent;
    // 1024 to 2048 units for a normal number, fewer for a subnormal one; 2048 carries into the exponent.
    auto const units = static_cast<std::uint16_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
    half.bits = static_cast<std::uint16_t>(half.bits | (units + ((exponent + 14) << 10)));
    return half;
}

Half::Half(float value)
    : Half{rounded(value)}
{
}

// f * m + f of FP16 numbers is exact in double, so this rounds once, as the GPU's fused multiply-add.
Half multiply_add(Half f, Half m)
{
    return rounded(value_of(f) * value_of(m) + value_of(f));
}

} // namespace fine

#include "fine_modulate.cuh"

namespace fine
{
namespace
{

template <typename T, unsigned V>
void run(Shape const& shape, Layout layout, void const* low, void const* m, void* out)
{
    auto const* f = static_cast<T const*>(low);
    auto const* tokens = static_cast<T const*>(m);
    auto* result = static_cast<T*>(out);
    unsigned const pad = layout == Layout::kNHWC8 ? 8 : 1;
    unsigned const groups
        = layout == Layout::kNCHW ? linear_groups<V>(shape) : channels_last_groups<V>(shape, pad);
    for (unsigned i = 0; i < groups; ++i)
    {
        unsigned const group = groups - 1 - i; // the order must not matter
        layout == Layout::kNCHW ? linear_group<T, V>(shape, f, tokens, result, group)
                                : channels_last_group<T, V>(shape, pad, f, tokens, result, group);
    }
}

} // namespace

cudaError_t enqueue_modulation(
    Shape const& shape, Layout layout, bool half, void const* low, void const* m, void* out, cudaStream_t)
{
    bool const wide = layout == Layout::kNCHW || stored_channels(shape, layout == Layout::kNHWC8 ? 8 : 1) % 8 == 0;
    if (half)
    {
        wide ? run<Half, 8>(shape, layout, low, m, out) : run<Half, 1>(shape, layout, low, m, out);
    }
    else
    {
        wide ? run<float, 4>(shape, layout, low, m, out) : run<float, 1>(shape, layout, low, m, out);
    }
    return cudaSuccess;
}

} // namespace fine

// sizes: batch, channels, height, width, kernel. lanes: 1, or the number that 16 bytes hold.
extern "C" void modulate(
    unsigned const* sizes, int layout, int half, unsigned lanes, void const* low, void const* m, void* out)
{
    fine::Shape const shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
    auto const where = static_cast<fine::Layout>(layout);
    if (half)
    {
        lanes == 1 ? fine::run<fine::Half, 1>(shape, where, low, m, out)
                   : fine::run<fine::Half, 8>(shape, where, low, m, out);
    }
    else
    {
        lanes == 1 ? fine::run<float, 1>(shape, where, low, m, out) : fine::run<float, 4>(shape, where, low, m, out);
    }
}
