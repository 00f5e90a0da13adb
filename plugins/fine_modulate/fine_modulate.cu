// Chooses the kernel's width and launches it.
#include "fine_modulate.h"

#include "fine_modulate.cuh"

#include <cstdint>

namespace fine
{
namespace
{

constexpr unsigned kBlockThreads = 256;
constexpr unsigned kMostBlocks = 4096; // more would only queue; the grid-stride loop takes the rest

template <typename T>
constexpr unsigned kWide = 16 / sizeof(T);

unsigned blocks_for(unsigned groups)
{
    unsigned const blocks = ceil_div(groups, kBlockThreads);
    return blocks < kMostBlocks ? blocks : kMostBlocks;
}

bool aligned(void const* pointer)
{
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

template <typename T, unsigned V>
void launch_linear(Shape const& shape, void const* low, void const* m, void* out, cudaStream_t stream)
{
    linear_kernel<T, V><<<blocks_for(linear_groups<V>(shape)), kBlockThreads, 0, stream>>>(
        shape, static_cast<T const*>(low), static_cast<T const*>(m), static_cast<T*>(out));
}

template <typename T, unsigned V>
void launch_channels_last(
    Shape const& shape, unsigned pad, void const* low, void const* m, void* out, cudaStream_t stream)
{
    channels_last_kernel<T, V><<<blocks_for(channels_last_groups<V>(shape, pad)), kBlockThreads, 0, stream>>>(
        shape, pad, static_cast<T const*>(low), static_cast<T const*>(m), static_cast<T*>(out));
}

template <typename T>
void launch(Shape const& shape, Layout layout, void const* low, void const* m, void* out, cudaStream_t stream)
{
    unsigned const pad = layout == Layout::kNHWC8 ? 8 : 1;
    bool const wide = aligned(low) && aligned(out)
        && (layout == Layout::kNCHW || (aligned(m) && stored_channels(shape, pad) % kWide<T> == 0));
    if (layout == Layout::kNCHW)
    {
        wide ? launch_linear<T, kWide<T>>(shape, low, m, out, stream) : launch_linear<T, 1>(shape, low, m, out, stream);
    }
    else
    {
        wide ? launch_channels_last<T, kWide<T>>(shape, pad, low, m, out, stream)
             : launch_channels_last<T, 1>(shape, pad, low, m, out, stream);
    }
}

std::uint64_t stored_elements(Shape const& shape, Layout layout)
{
    std::uint64_t const channels = stored_channels(shape, layout == Layout::kNHWC8 ? 8 : 1);
    return std::uint64_t{shape.batch} * channels * shape.height * shape.width;
}

} // namespace

cudaError_t enqueue_modulation(Shape const& shape, Layout layout, bool half, void const* low, void const* m, void* out,
    cudaStream_t stream)
{
    std::uint64_t const elements = stored_elements(shape, layout);
    if (shape.kernel == 0 || elements >= (std::uint64_t{1} << 31))
    {
        return cudaErrorInvalidValue;
    }
    if (elements == 0)
    {
        return cudaSuccess; // a grid of no blocks is an error to CUDA
    }
    half ? launch<__half>(shape, layout, low, m, out, stream) : launch<float>(shape, layout, low, m, out, stream);
    return cudaGetLastError();
}

} // namespace fine
