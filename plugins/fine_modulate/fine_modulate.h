// What the plugin calls: one launch of the kernel, for device memory.
#pragma once

#include <cuda_runtime_api.h>

namespace fine
{

struct Shape;

enum class Layout
{
    kNCHW,  // TensorRT's kLINEAR
    kNHWC,  // kHWC: channels last
    kNHWC8, // kHWC8: channels last, padded to a multiple of 8
};

// Enqueues out = F * Up(M) + F on `stream`. `half`: FP16, else FP32. Returns cudaErrorInvalidValue for a tensor of
// 2^31 elements or more (with padding), which the kernel's 32-bit indices do not reach.
cudaError_t enqueue_modulation(Shape const& shape, Layout layout, bool half, void const* low, void const* m, void* out,
    cudaStream_t stream);

} // namespace fine
