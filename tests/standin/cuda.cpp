// A stand-in for NVIDIA's driver: the host's memory is the device's, launches run at once, by the kernels' own lines. It
// shows that calls are made, in order, with the right arguments, and that all is given back, under AddressSanitizer; it
// shows nothing about time. STANDIN_FAIL names the call that fails.
#include "../../cpp/kernels/preprocess.h"

#include <cstdlib>
#include <cstring>
#include <set>

namespace {

constexpr int FINE = 0, INVALID = 1, FAILED = 719;

int answer(const char *call) {
    const char *fail = std::getenv("STANDIN_FAIL");
    return fail != nullptr && std::strcmp(fail, call) == 0 ? FAILED : FINE;
}

// Things that are made and unmade, each in an allocation of its own: a leak or a second end is found.
struct Thing {
    int kind;
};

template <class Element> void run(const ocelli::Frame *frames, ocelli::u32 count, const ocelli::Tensor &tensor, void *out) {
    for (ocelli::u32 index = 0; index < count; ++index) {
        auto *row = static_cast<Element *>(out) + index * ocelli::row_length(tensor);
        for (ocelli::u32 x = 0; x < tensor.width; ++x) {
            const ocelli::Column column = ocelli::column(frames[index], x);
            for (ocelli::u32 y = 0; y < tensor.height; ++y) {
                ocelli::render(frames[index], tensor, column, y, row);
            }
        }
    }
}

const char *const NAMES[] = {"preprocess_f32", "preprocess_f16", "preprocess_u8", "preprocess_i8"};
int context;
void *current = nullptr;

} // namespace

#define CALL(name, ...)                                                                                              \
    extern "C" int name(__VA_ARGS__);                                                                                \
    extern "C" int name(__VA_ARGS__)
#define CHECK(name)                                                                                                  \
    if (const int status = answer(name)) {                                                                           \
        return status;                                                                                               \
    }

CALL(cuInit, unsigned) { CHECK("cuInit") return FINE; }
CALL(cuDeviceGet, int *device, int number) {
    CHECK("cuDeviceGet")
    *device = number;
    return number == 0 ? FINE : 101;
}
CALL(cuDeviceGetAttribute, int *value, int attribute, int) {
    CHECK("cuDeviceGetAttribute")
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : 0;
    return FINE;
}
CALL(cuDevicePrimaryCtxRetain, void **to, int) {
    CHECK("cuDevicePrimaryCtxRetain")
    *to = &context;
    return FINE;
}
CALL(cuDevicePrimaryCtxRelease_v2, int) { return FINE; }
CALL(cuCtxGetCurrent, void **to) {
    CHECK("cuCtxGetCurrent")
    *to = current;
    return FINE;
}
CALL(cuCtxSetCurrent, void *to) {
    CHECK("cuCtxSetCurrent")
    current = to;
    return FINE;
}
CALL(cuCtxSynchronize) { return FINE; }
CALL(cuStreamCreateWithPriority, Thing **stream, unsigned, int) {
    CHECK("cuStreamCreateWithPriority")
    *stream = new Thing{1};
    return FINE;
}
CALL(cuStreamSynchronize, const Thing *stream) {
    CHECK("cuStreamSynchronize")
    return stream->kind == 1 ? FINE : INVALID;
}
CALL(cuStreamDestroy_v2, Thing *stream) {
    delete stream;
    return FINE;
}
CALL(cuMemHostAlloc, void **to, std::size_t bytes, unsigned flags) {
    CHECK("cuMemHostAlloc")
    *to = std::malloc(bytes);
    return flags == 3 ? FINE : INVALID; // portable and mapped, not write-combined
}
CALL(cuMemHostGetDevicePointer_v2, ocelli::u64 *to, void *host, unsigned) {
    CHECK("cuMemHostGetDevicePointer_v2")
    *to = reinterpret_cast<ocelli::u64>(host);
    return FINE;
}
CALL(cuMemFreeHost, void *host) {
    std::free(host);
    return FINE;
}
CALL(cuModuleLoadData, Thing **module, const char *image) {
    CHECK("cuModuleLoadData")
    if (std::memcmp(image, "\177ELF", 4) != 0) {
        return 200;
    }
    *module = new Thing{2};
    return FINE;
}
CALL(cuModuleUnload, Thing *module) {
    delete module;
    return FINE;
}
CALL(cuModuleGetFunction, const void **function, const Thing *module, const char *name) {
    CHECK("cuModuleGetFunction")
    for (const char *const &known : NAMES) {
        if (module->kind == 2 && std::strcmp(known, name) == 0) {
            *function = &known;
            return FINE;
        }
    }
    return 500;
}
CALL(cuLaunchKernel, const void *function, unsigned grid_x, unsigned grid_y, unsigned count, unsigned x, unsigned y,
     unsigned z, unsigned, const Thing *stream, void **arguments, void **) {
    CHECK("cuLaunchKernel")
    const auto *frames = reinterpret_cast<const ocelli::Frame *>(*static_cast<ocelli::u64 *>(arguments[0]));
    const auto &tensor = *static_cast<const ocelli::Tensor *>(arguments[1]);
    auto *out = reinterpret_cast<void *>(*static_cast<ocelli::u64 *>(arguments[2]));
    const bool covered = grid_x * x >= tensor.width && grid_y * y * 4 >= tensor.height;
    if (x != 32 || y != 8 || z != 1 || !covered || stream->kind != 1) {
        return INVALID;
    }
    switch (static_cast<const char *const *>(function) - NAMES) {
    case 0: run<float>(frames, count, tensor, out); break;
    case 1: run<ocelli::f16>(frames, count, tensor, out); break;
    case 2: run<ocelli::u8>(frames, count, tensor, out); break;
    default: return INVALID;
    }
    return FINE;
}
CALL(cuGetErrorString, int status, const char **text) {
    *text = status == FAILED ? "the stand-in was told to fail" : "refused by the stand-in";
    return FINE;
}
