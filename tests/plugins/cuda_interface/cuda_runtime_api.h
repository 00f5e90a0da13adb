// NOT NVIDIA's header: the names of the CUDA runtime that the plugin's C++ uses, so that it compiles on any host.
#pragma once

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError_t
{
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1
};
