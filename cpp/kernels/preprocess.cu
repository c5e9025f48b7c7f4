// Pre-processing of a whole batch in one launch: a block's z is the frame, its x and y a part of the tensor.
#include "preprocess.h"

namespace {

// Pixels below each other that one thread makes: what belongs to the column is computed once.
constexpr ocelli::u32 ROWS = 4;

template <class Element>
__device__ __forceinline__ void batch(const ocelli::Frame *frames, const ocelli::Tensor &tensor, Element *out) {
    // The descriptions may lie in the host's memory, which integrated GPUs do not cache: one read a block.
    __shared__ ocelli::Frame frame;
    constexpr ocelli::u32 words = sizeof(ocelli::Frame) / sizeof(ocelli::u32);
    const ocelli::u32 thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (thread < words) {
        reinterpret_cast<ocelli::u32 *>(&frame)[thread] =
            reinterpret_cast<const ocelli::u32 *>(frames + blockIdx.z)[thread];
    }
    __syncthreads();
    const ocelli::u32 x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= tensor.width) {
        return;
    }
    const ocelli::Column column = ocelli::column(frame, x);
    ocelli::u32 y = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    const ocelli::u32 end = y + ROWS < tensor.height ? y + ROWS : tensor.height;
    for (; y < end; ++y) {
        ocelli::render(frame, tensor, column, y, out + blockIdx.z * ocelli::row_length(tensor));
    }
}

} // namespace

// Launch with blocks of 32 by 8 threads, and as many as cover the tensor's width by 32 and its height by 8 * ROWS;
// one layer a frame. Every element of the rows is written.
#define OCELLI_KERNEL(name, element)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
        name(const ocelli::Frame *frames, const ocelli::Tensor tensor, element *out) {                               \
        batch(frames, tensor, out);                                                                                  \
    }

OCELLI_KERNEL(preprocess_f32, float)
OCELLI_KERNEL(preprocess_f16, ocelli::f16)
OCELLI_KERNEL(preprocess_u8, ocelli::u8)
OCELLI_KERNEL(preprocess_i8, ocelli::i8)
