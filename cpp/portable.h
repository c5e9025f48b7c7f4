// What differs between the versions of TensorRT, in one place.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace ocelli::tensorrt {

// RTX's headers define NV_TENSORRT_MAJOR too, as 1: it is asked for first.
#if defined(TRT_MAJOR_RTX)
#define OCELLI_RTX (TRT_MAJOR_RTX * 100 + TRT_MINOR_RTX)
#define OCELLI_TENSORRT 1100
#else
#define OCELLI_RTX 0
#define OCELLI_TENSORRT (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR)
#endif

constexpr bool RTX = OCELLI_RTX != 0;
// As getInferLibVersion() gives it: from 10 on, and for RTX, with two digits for the minor version.
constexpr std::int32_t MAJOR = NV_TENSORRT_MAJOR;
constexpr std::int32_t VERSION = MAJOR == 8 || MAJOR == 9
    ? NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH
    : NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;

#define OCELLI_TEXT_(number) #number
#define OCELLI_TEXT(number) OCELLI_TEXT_(number)
#if OCELLI_RTX
constexpr char NVINFER[] = "libtensorrt_rtx.so." OCELLI_TEXT(TRT_MAJOR_RTX);
constexpr char PARSER[] = "libtensorrt_onnxparser_rtx.so." OCELLI_TEXT(TRT_MAJOR_RTX);
#elif defined(TRT_MAJOR_ENTERPRISE)
constexpr char NVINFER[] = "libnvinfer.so." OCELLI_TEXT(TRT_MAJOR_ENTERPRISE);
constexpr char PARSER[] = "libnvonnxparser.so." OCELLI_TEXT(TRT_MAJOR_ENTERPRISE);
#else
constexpr char NVINFER[] = "libnvinfer.so." OCELLI_TEXT(NV_TENSORRT_MAJOR);
constexpr char PARSER[] = "libnvonnxparser.so." OCELLI_TEXT(NV_TENSORRT_MAJOR);
#endif

// How a network is made so that its precision is the one in the ONNX file: strongly typed where that can be asked for.
inline std::uint32_t network_flags() {
#if OCELLI_RTX >= 105 || (!OCELLI_RTX && OCELLI_TENSORRT >= 1100)
    return 0; // always
#elif OCELLI_RTX || OCELLI_TENSORRT >= 1000
    return 1U << static_cast<std::uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
    return 1U << static_cast<std::uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#endif
}

// Before networks were strongly typed, what the file asks for has to be allowed as well.
inline void allow_types([[maybe_unused]] nvinfer1::IBuilderConfig &config, [[maybe_unused]] bool half,
                        [[maybe_unused]] bool quantized) {
#if !OCELLI_RTX && OCELLI_TENSORRT < 1000
    if (half || quantized) {
        config.setFlag(nvinfer1::BuilderFlag::kFP16);
    }
    if (quantized) {
        config.setFlag(nvinfer1::BuilderFlag::kINT8);
    }
#endif
}

// TensorRT's own kernels only. Before 10, cuBLAS's and cuDNN's are candidates too: whoever runs the plan then has to
// have both libraries, and a board has to give them some hundred MiB of the memory that it shares with its GPU.
inline bool own_kernels_only([[maybe_unused]] nvinfer1::IBuilderConfig &config) {
#if !OCELLI_RTX && OCELLI_TENSORRT < 1000
    using Source = nvinfer1::TacticSource;
    nvinfer1::TacticSources sources = config.getTacticSources();
    for (const Source source : {Source::kCUBLAS, Source::kCUBLAS_LT, Source::kCUDNN}) {
        sources &= ~(1U << static_cast<std::uint32_t>(source));
    }
    return config.setTacticSources(sources);
#else
    return true;
#endif
}

inline bool set_level([[maybe_unused]] nvinfer1::IBuilderConfig &config, [[maybe_unused]] std::int32_t level) {
#if OCELLI_RTX || OCELLI_TENSORRT >= 806
    config.setBuilderOptimizationLevel(level);
    return true;
#else
    return false;
#endif
}

// Whether it builds for devices of this compute capability, and runs on them. RTX knows a few; full TensorRT says so when
// it builds.
inline bool serves([[maybe_unused]] std::int32_t capability) {
#if OCELLI_RTX
    using Known = nvinfer1::ComputeCapability;
    switch (static_cast<Known>(capability)) {
    case Known::kSM75:
    case Known::kSM80:
    case Known::kSM86:
    case Known::kSM89:
    case Known::kSM120: return true;
#if OCELLI_RTX >= 105
    case Known::kSM121: return true;
#endif
    default: return false;
    }
#else
    return true;
#endif
}

// RTX builds for devices that are not there.
inline bool set_capabilities([[maybe_unused]] nvinfer1::IBuilderConfig &config,
                             [[maybe_unused]] const std::int32_t *capabilities, [[maybe_unused]] std::int32_t count) {
#if OCELLI_RTX
    bool done = config.setNbComputeCapabilities(count);
    for (std::int32_t index = 0; index < count; ++index) {
        done = done && config.setComputeCapability(static_cast<nvinfer1::ComputeCapability>(capabilities[index]), index);
    }
    return done;
#else
    return false;
#endif
}

// How many DLAs there are, asked of a builder or a runtime. RTX knows none.
template <class Asked> std::int32_t dla_cores([[maybe_unused]] const Asked &asked) {
#if OCELLI_RTX
    return 0;
#else
    return asked.getNbDLACores();
#endif
}

// The network on a DLA that is there, and the GPU for what that can't do.
inline void set_dla([[maybe_unused]] nvinfer1::IBuilderConfig &config, [[maybe_unused]] std::int32_t core) {
#if !OCELLI_RTX
    config.setDefaultDeviceType(nvinfer1::DeviceType::kDLA);
    config.setDLACore(core);
    config.setFlag(nvinfer1::BuilderFlag::kGPU_FALLBACK);
#endif
}

inline void set_dla([[maybe_unused]] nvinfer1::IRuntime &runtime, [[maybe_unused]] std::int32_t core) {
#if !OCELLI_RTX
    runtime.setDLACore(core);
#endif
}

// What was learned in earlier builds, for the next one. RTX measures nothing while it builds, and has none.
class TimingCache {
  public:
    // One of another device or version is refused by TensorRT, and then not used.
    TimingCache([[maybe_unused]] nvinfer1::IBuilderConfig &config, [[maybe_unused]] const void *bytes,
                [[maybe_unused]] std::size_t count) {
#if !OCELLI_RTX
        cache.reset(config.createTimingCache(bytes, count));
        if (cache) {
            config.setTimingCache(*cache, false);
        }
#endif
    }

    std::unique_ptr<nvinfer1::IHostMemory> learned([[maybe_unused]] const nvinfer1::IBuilderConfig &config) const {
        std::unique_ptr<nvinfer1::IHostMemory> bytes;
#if !OCELLI_RTX
        if (const nvinfer1::ITimingCache *used = config.getTimingCache()) {
            bytes.reset(used->serialize());
        }
#endif
        return bytes;
    }

#if !OCELLI_RTX
  private:
    std::unique_ptr<nvinfer1::ITimingCache> cache;
#endif
};

inline std::uint64_t context_memory(const nvinfer1::ICudaEngine &engine) {
#if OCELLI_RTX || OCELLI_TENSORRT >= 1001
    return static_cast<std::uint64_t>(engine.getDeviceMemorySizeV2());
#else
    return static_cast<std::uint64_t>(engine.getDeviceMemorySize());
#endif
}

// An engine that never allocates on the device while it runs, and so can always be recorded as a graph; the others don't.
inline void forbid_allocation([[maybe_unused]] nvinfer1::IBuilderConfig &config) {
#if OCELLI_RTX >= 105
    config.setFlag(nvinfer1::BuilderFlag::kREQUIRE_USER_ALLOCATION);
#endif
}

// How the contexts of an engine are made: without scratch memory of their own, as contexts that never run at once share a
// piece. RTX compiles kernels on the device, for each shape: here before the shape's first batch is run, as a recorded graph
// would keep the slower ones that serve until then; and it keeps them in a cache for its next start.
class Contexts {
  public:
    explicit Contexts([[maybe_unused]] nvinfer1::ICudaEngine &engine) {
#if OCELLI_RTX
        config.reset(engine.createRuntimeConfig());
        if (config) {
            using Strategy = nvinfer1::DynamicShapesKernelSpecializationStrategy;
            config->setExecutionContextAllocationStrategy(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
            config->setDynamicShapesKernelSpecializationStrategy(Strategy::kEAGER);
            cache.reset(config->createRuntimeCache());
            ready = cache && config->setRuntimeCache(*cache);
        }
#endif
    }

    nvinfer1::IExecutionContext *make(nvinfer1::ICudaEngine &engine) const {
#if OCELLI_RTX
        return ready ? engine.createExecutionContext(config.get()) : nullptr;
#elif OCELLI_TENSORRT >= 1000
        return engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#else
        return engine.createExecutionContextWithoutDeviceMemory();
#endif
    }

    // What was compiled at an earlier start; false if it is broken or not for what is here.
    bool restore([[maybe_unused]] const void *bytes, [[maybe_unused]] std::size_t count) {
#if OCELLI_RTX
        return ready && cache->deserialize(bytes, count);
#else
        return false;
#endif
    }

    // What was compiled so far; null where nothing is.
    std::unique_ptr<nvinfer1::IHostMemory> compiled() const {
        std::unique_ptr<nvinfer1::IHostMemory> bytes;
#if OCELLI_RTX
        if (ready) {
            bytes.reset(cache->serialize());
        }
#endif
        return bytes;
    }

#if OCELLI_RTX
  private:
    // In the order of construction: the cache goes last.
    std::unique_ptr<nvinfer1::IRuntimeCache> cache;
    std::unique_ptr<nvinfer1::IRuntimeConfig> config;
    bool ready = false;
#endif
};

// Whether its next batch can be recorded as a graph. Only RTX knows before it is tried.
inline bool is_capturable([[maybe_unused]] const nvinfer1::IExecutionContext &context,
                          [[maybe_unused]] cudaStream_t stream) {
#if OCELLI_RTX >= 105
    return context.isStreamCapturable(stream);
#else
    return true;
#endif
}

inline void set_memory(nvinfer1::IExecutionContext &context, void *memory, [[maybe_unused]] std::uint64_t bytes) {
#if OCELLI_RTX || OCELLI_TENSORRT >= 1001
    context.setDeviceMemoryV2(memory, static_cast<std::int64_t>(bytes));
#else
    context.setDeviceMemory(memory);
#endif
}

#if OCELLI_RTX || OCELLI_TENSORRT >= 1000
#define OCELLI_PROGRESS 1
#else
#define OCELLI_PROGRESS 0
#endif

} // namespace ocelli::tensorrt
