// Eq. 8 and 9 in one pass: out = F * Up(M) + F, nearest upsampling by an integer kernel.
//
// One source for nvcc, NVRTC and a plain C++ compiler. The cores below are the whole indexing and arithmetic; the
// device runs them in a grid-stride loop (end of this file), a host in a plain one, so what a test checks on a CPU is
// what the GPU runs. Only the element type's multiply-add and the 16-byte loads differ.
#pragma once

#ifndef __CUDACC_RTC__
#include <cmath>
#endif
#ifdef __CUDACC__
#include <cuda_fp16.h>
#define FINE_BOTH __host__ __device__ __forceinline__
#else
#define FINE_BOTH inline
#endif

namespace fine
{

// F and out are (batch, channels, height, width), M is (batch, channels, rows, columns) with
// rows = ceil(height / kernel) and columns = ceil(width / kernel): the last blocks may be smaller than the kernel.
struct Shape
{
    unsigned batch;
    unsigned channels;
    unsigned height;
    unsigned width;
    unsigned kernel;
};

FINE_BOTH unsigned ceil_div(unsigned a, unsigned b)
{
    return (a + b - 1) / b;
}

// V elements that are loaded and stored at once: 16 bytes where V * sizeof(T) is 16.
template <typename T, unsigned V>
struct alignas(sizeof(T) * V) Pack
{
    T lane[V];
};

// f * m + f, rounded once.
FINE_BOTH float multiply_add(float f, float m)
{
    return fmaf(f, m, f);
}

template <typename T, unsigned V>
FINE_BOTH void modulate(Pack<T, V>& f, Pack<T, V> const& m)
{
    for (unsigned i = 0; i < V; ++i)
    {
        f.lane[i] = multiply_add(f.lane[i], m.lane[i]);
    }
}

#ifdef __CUDACC__
__device__ __forceinline__ __half multiply_add(__half f, __half m)
{
    return __hfma(f, m, f);
}

// Two lanes an instruction (half2), each rounded once as above.
template <unsigned V>
__device__ __forceinline__ void modulate(Pack<__half, V>& f, Pack<__half, V> const& m)
{
#pragma unroll
    for (unsigned i = 0; i + 1 < V; i += 2)
    {
        __half2 const f2 = __halves2half2(f.lane[i], f.lane[i + 1]);
        __half2 const out = __hfma2(f2, __halves2half2(m.lane[i], m.lane[i + 1]), f2);
        f.lane[i] = __low2half(out);
        f.lane[i + 1] = __high2half(out);
    }
    if (V % 2)
    {
        f.lane[V - 1] = multiply_add(f.lane[V - 1], m.lane[V - 1]);
    }
}
#endif

// Number of groups of V elements that cover a tensor in memory order; the last one may be cut.
template <unsigned V>
FINE_BOTH unsigned linear_groups(Shape const& shape)
{
    return ceil_div(shape.batch * shape.channels * shape.height * shape.width, V);
}

// Group number `group` of a tensor stored NCHW (TensorRT: kLINEAR). Groups run on over the ends of rows, so every
// whole group is aligned whatever the width; the lanes follow the token under them instead of dividing for each.
template <typename T, unsigned V>
FINE_BOTH void linear_group(Shape const& shape, T const* low, T const* m, T* out, unsigned group)
{
    unsigned const total = shape.batch * shape.channels * shape.height * shape.width;
    unsigned const columns = ceil_div(shape.width, shape.kernel);
    unsigned const rows = ceil_div(shape.height, shape.kernel);
    unsigned const first = group * V;
    unsigned const lanes = total - first < V ? total - first : V;
    unsigned const line = first / shape.width; // of all batch * channels * height lines
    unsigned plane = line / shape.height;
    unsigned y = line - plane * shape.height;
    unsigned x = first - line * shape.width;
    unsigned column = x / shape.kernel;
    unsigned inside = x - column * shape.kernel; // of the block
    T const* tokens = m + (plane * rows + y / shape.kernel) * columns;

    Pack<T, V> token;
    for (unsigned i = 0; i < V; ++i)
    {
        if (i < lanes)
        {
            token.lane[i] = tokens[column];
        }
        ++x;
        if (++inside == shape.kernel)
        {
            inside = 0;
            ++column;
        }
        if (x == shape.width)
        {
            x = inside = column = 0;
            if (++y == shape.height)
            {
                y = 0;
                ++plane;
            }
            tokens = m + (plane * rows + y / shape.kernel) * columns;
        }
    }
    if (lanes == V)
    {
        Pack<T, V> values = *reinterpret_cast<Pack<T, V> const*>(low + first);
        modulate(values, token);
        *reinterpret_cast<Pack<T, V>*>(out + first) = values;
        return;
    }
    for (unsigned i = 0; i < lanes; ++i)
    {
        out[first + i] = multiply_add(low[first + i], token.lane[i]);
    }
}

// Channels as they lie in memory: TensorRT's kHWC8 pads them to a multiple of 8 (`pad`), its kHWC does not (pad = 1).
FINE_BOTH unsigned stored_channels(Shape const& shape, unsigned pad)
{
    return ceil_div(shape.channels, pad) * pad;
}

// Number of groups of V channels of a tensor stored NHWC; V divides the stored channels.
template <unsigned V>
FINE_BOTH unsigned channels_last_groups(Shape const& shape, unsigned pad)
{
    return shape.batch * shape.height * shape.width * (stored_channels(shape, pad) / V);
}

// Group number `group` of a tensor stored NHWC. All V lanes share one token, so M is loaded as F is.
// Padding channels are written as zeros: what reads them next multiplies them with zero weights, and zero times NaN
// is not zero.
template <typename T, unsigned V>
FINE_BOTH void channels_last_group(Shape const& shape, unsigned pad, T const* low, T const* m, T* out, unsigned group)
{
    unsigned const stored = stored_channels(shape, pad);
    unsigned const columns = ceil_div(shape.width, shape.kernel);
    unsigned const rows = ceil_div(shape.height, shape.kernel);
    unsigned const pixel = group / (stored / V);
    unsigned const channel = (group - pixel * (stored / V)) * V;
    unsigned const line = pixel / shape.width; // of all batch * height lines
    unsigned const x = pixel - line * shape.width;
    unsigned const image = line / shape.height;
    unsigned const y = line - image * shape.height;
    unsigned const token = (image * rows + y / shape.kernel) * columns + x / shape.kernel;

    Pack<T, V> values = *reinterpret_cast<Pack<T, V> const*>(low + pixel * stored + channel);
    Pack<T, V> const tokens = *reinterpret_cast<Pack<T, V> const*>(m + token * stored + channel);
    modulate(values, tokens);
    if (channel + V > shape.channels)
    {
        for (unsigned i = 0; i < V; ++i)
        {
            values.lane[i] = channel + i < shape.channels ? values.lane[i] : T(0.0F);
        }
    }
    *reinterpret_cast<Pack<T, V>*>(out + pixel * stored + channel) = values;
}

#ifdef __CUDACC__
template <typename T, unsigned V>
__global__ void linear_kernel(Shape shape, T const* __restrict__ low, T const* __restrict__ m, T* __restrict__ out)
{
    unsigned const groups = linear_groups<V>(shape);
    for (unsigned group = blockIdx.x * blockDim.x + threadIdx.x; group < groups; group += gridDim.x * blockDim.x)
    {
        linear_group<T, V>(shape, low, m, out, group);
    }
}

template <typename T, unsigned V>
__global__ void channels_last_kernel(
    Shape shape, unsigned pad, T const* __restrict__ low, T const* __restrict__ m, T* __restrict__ out)
{
    unsigned const groups = channels_last_groups<V>(shape, pad);
    for (unsigned group = blockIdx.x * blockDim.x + threadIdx.x; group < groups; group += gridDim.x * blockDim.x)
    {
        channels_last_group<T, V>(shape, pad, low, m, out, group);
    }
}
#endif

} // namespace fine
