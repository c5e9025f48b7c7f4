// A stand-in for TensorRT-RTX, or for TensorRT where its headers are those in use: engines that are small texts, and that answer, for each row, the largest of the input's
// elements at every so many places. So answers name the row that they came from. Work goes into the other stand-in's
// streams. What is called of TensorRT and is not here ends the process. RTX: for each batch size that its runtime cache does
// not have, a context "compiles" at its first batch, which can't be recorded. STANDIN_DLA_MS=N: a batch on a DLA takes N ms
// longer.
#include "absent.h" // Made of NvInferImpl.h: every call ends the process.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace nvinfer1;

namespace {

template <class Function> Function *driver(const char *name) {
    return reinterpret_cast<Function *>(dlsym(RTLD_DEFAULT, name));
}

bool fails(const char *call) { return driver<int(const char *)>("standin_fails")(call) != 0; }

char *behind(const void *address, std::size_t bytes) {
    return driver<char *(unsigned long long, std::size_t)>("standin_behind")(
        reinterpret_cast<unsigned long long>(address), bytes);
}

struct Tensor {
    std::string name;
    bool input;
    DataType type;
    Dims dims;
};

struct Plan {
    std::size_t scratch = 0;
    int dla = -1; // The DLA that it was built for.
    std::vector<Tensor> tensors;
};

std::size_t row(const Dims &dims) {
    std::size_t row = 1;
    for (int index = 1; index < dims.nbDims; ++index) {
        row *= static_cast<std::size_t>(dims.d[index]);
    }
    return row;
}

std::size_t element(DataType type) {
    return type == DataType::kFLOAT ? 4 : type == DataType::kHALF ? 2 : 1;
}

// Whole numbers below 2048 are all that the tests have.
float half(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    return exponent == 0 ? 0.0F : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}

unsigned short half(float value) {
    int exponent = 0;
    const float fraction = std::frexp(value, &exponent); // 0.5 to 1
    const int mantissa = static_cast<int>(std::ldexp(fraction, 11)) - 1024;
    return static_cast<unsigned short>(value == 0.0F ? 0 : (exponent + 14) << 10 | mantissa);
}

float read(const char *memory, DataType type, std::size_t index) {
    switch (type) {
    case DataType::kFLOAT: {
        float value = 0;
        std::memcpy(&value, memory + 4 * index, 4);
        return value;
    }
    case DataType::kHALF: {
        unsigned short bits = 0;
        std::memcpy(&bits, memory + 2 * index, 2);
        return half(bits);
    }
    case DataType::kINT8: return static_cast<signed char>(memory[index]);
    default: return static_cast<unsigned char>(memory[index]);
    }
}

void write(char *memory, DataType type, std::size_t index, float value) {
    if (type == DataType::kFLOAT) {
        std::memcpy(memory + 4 * index, &value, 4);
    } else {
        const unsigned short bits = half(value);
        std::memcpy(memory + 2 * index, &bits, 2);
    }
}

class HostMemory final : public IHostMemory, public AbsentHostMemory {
  public:
    explicit HostMemory(std::string of) : bytes(std::move(of)) { mImpl = this; }
    void *data() const noexcept override { return const_cast<char *>(bytes.data()); }
    std::size_t size() const noexcept override { return bytes.size(); }

  private:
    std::string bytes;
};

#if defined(TRT_MAJOR_RTX)
constexpr bool RTX = true;

class RuntimeCache final : public IRuntimeCache, public AbsentRuntimeCache {
  public:
    RuntimeCache() { mImpl = this; }
    IHostMemory *serialize() const noexcept override {
        std::string text = "compiled";
        for (const std::int64_t batch : batches) {
            text += " " + std::to_string(batch);
        }
        return fails("serialize") ? nullptr : new HostMemory(text);
    }
    bool deserialize(const void *blob, std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char *>(blob), size));
        std::string word;
        if (!(text >> word) || word != "compiled") {
            return false;
        }
        std::int64_t batch = 0;
        while (text >> batch) {
            batches.insert(batch);
        }
        return true;
    }
    bool has(std::int64_t batch) const { return batches.count(batch) != 0; }
    void add(std::int64_t batch) { batches.insert(batch); }

  private:
    std::set<std::int64_t> batches;
};

class RuntimeConfig final : public IRuntimeConfig, public AbsentRuntimeConfig {
  public:
    RuntimeConfig() { mImpl = this; }
    void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy to) noexcept override {
        bare = to == ExecutionContextAllocationStrategy::kUSER_MANAGED;
    }
    void setDynamicShapesKernelSpecializationStrategy(
        DynamicShapesKernelSpecializationStrategy to) noexcept override {
        eager = to == DynamicShapesKernelSpecializationStrategy::kEAGER;
    }
    IRuntimeCache *createRuntimeCache() const noexcept override {
        return fails("createRuntimeCache") ? nullptr : new RuntimeCache;
    }
    bool setRuntimeCache(const IRuntimeCache &to) noexcept override {
        cache = const_cast<RuntimeCache *>(static_cast<const RuntimeCache *>(&to));
        return !fails("setRuntimeCache");
    }

    bool bare = false, eager = false;
    RuntimeCache *cache = nullptr;
};
#else
constexpr bool RTX = false;

struct RuntimeCache {
    bool has(std::int64_t) const { return true; }
    void add(std::int64_t) {}
};
RuntimeCache nothing;
#endif

class Context final : public IExecutionContext, public AbsentExecutionContext {
  public:
    Context(const Plan &of, RuntimeCache &into) : plan(of), addresses(of.tensors.size()), cache(into) {
        mImpl = this;
        for (const Tensor &tensor : of.tensors) {
            batch = tensor.input ? tensor.dims.d[0] : batch;
        }
    }
    bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept override {
        selected = profile;
        return !fails("setOptimizationProfileAsync") && (profile == 0 || plan.dla >= 0) && stream != nullptr;
    }
    bool setInputShape(const char *name, const Dims &dims) noexcept override {
        const std::size_t at = find(name);
        if (fails("setInputShape") || !plan.tensors[at].input || dims.nbDims != plan.tensors[at].dims.nbDims) {
            return false;
        }
        batch = dims.d[0];
        // On a DLA each profile is for one size.
        return plan.dla < 0 || batch == selected + 1;
    }
    Dims getTensorShape(const char *name) const noexcept override {
        Dims dims = plan.tensors[find(name)].dims;
        dims.d[0] = dims.d[0] < 0 ? batch : dims.d[0];
        return dims;
    }
    bool setTensorAddress(const char *name, void *address) noexcept override {
        addresses[find(name)] = address;
        return !fails("setTensorAddress");
    }
    void setDeviceMemoryV2(void *memory, std::int64_t size) noexcept override {
        scratch = size >= static_cast<std::int64_t>(plan.scratch) ? memory : nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        if (fails("enqueueV3") || scratch == nullptr || batch < 1) {
            return false;
        }
        const bool records = driver<int(cudaStream_t)>("standin_records")(stream) != 0;
        if (records && (!capturable || !cache.has(batch))) {
            return false;
        }
        if (!cache.has(batch)) {
            fails("compile"); // Counts it.
            cache.add(batch);
        }
        const auto put = driver<void(cudaStream_t, const std::function<int()> &)>("standin_put");
        // As a captured launch: what is set now is what is used later.
        put(stream, [plan = plan, addresses = addresses, scratch = scratch, batch = batch] {
            return compute(plan, addresses, scratch, static_cast<std::size_t>(batch));
        });
        return true;
    }

#if defined(TRT_MAJOR_RTX)
    bool isStreamCapturable(cudaStream_t stream) const noexcept override {
        capturable = stream != nullptr && !fails("isStreamCapturable");
        return capturable;
    }
#endif

  private:
    std::size_t find(const char *name) const {
        for (std::size_t index = 0; index < plan.tensors.size(); ++index) {
            if (plan.tensors[index].name == name) {
                return index;
            }
        }
        unexpected("a tensor that the engine does not have");
    }

    static int compute(const Plan &plan, const std::vector<void *> &addresses, void *scratch, std::size_t batch) {
        if (plan.dla >= 0) {
            fails(("dla " + std::to_string(plan.dla)).c_str()); // Counts it.
            const char *const longer = std::getenv("STANDIN_DLA_MS");
            std::this_thread::sleep_for(std::chrono::milliseconds(longer == nullptr ? 0 : std::atoi(longer)));
        }
        constexpr int ILLEGAL_ADDRESS = 700;
        char *work = behind(scratch, plan.scratch);
        if (work == nullptr) {
            return ILLEGAL_ADDRESS;
        }
        // Whoever else works here now is seen.
        const void *const mark = &plan;
        std::memcpy(work, static_cast<const void *>(&mark), sizeof mark);
        const char *input = nullptr;
        const Tensor *in = nullptr;
        for (std::size_t index = 0; index < plan.tensors.size(); ++index) {
            if (plan.tensors[index].input) {
                in = &plan.tensors[index];
                input = behind(addresses[index], batch * row(in->dims) * element(in->type));
            }
        }
        for (std::size_t index = 0; index < plan.tensors.size(); ++index) {
            const Tensor &out = plan.tensors[index];
            if (out.input) {
                continue;
            }
            const std::size_t length = row(out.dims);
            char *output = behind(addresses[index], batch * length * element(out.type));
            if (input == nullptr || output == nullptr) {
                return ILLEGAL_ADDRESS;
            }
            for (std::size_t frame = 0; frame < batch; ++frame) {
                for (std::size_t place = 0; place < length; ++place) {
                    float largest = 0;
                    for (std::size_t at = place; at < row(in->dims); at += length) {
                        largest = std::max(largest, read(input, in->type, frame * row(in->dims) + at));
                    }
                    write(output, out.type, frame * length + place, largest);
                }
            }
        }
        return std::memcmp(work, static_cast<const void *>(&mark), sizeof mark) == 0 ? 0 : 719;
    }

    Plan plan;
    std::vector<void *> addresses;
    RuntimeCache &cache;
    mutable bool capturable = !RTX; // Of RTX nothing is, before it was asked.
    void *scratch = nullptr;
    std::int64_t batch = -1;
    std::int32_t selected = 0;
};

class Engine final : public ICudaEngine, public AbsentCudaEngine {
  public:
    explicit Engine(Plan of) : plan(std::move(of)) { mImpl = this; }
    std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(plan.tensors.size()); }
    const char *getIOTensorName(std::int32_t index) const noexcept override {
        return plan.tensors[static_cast<std::size_t>(index)].name.c_str();
    }
    TensorIOMode getTensorIOMode(const char *name) const noexcept override {
        return find(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(const char *name) const noexcept override { return find(name).type; }
    Dims getTensorShape(const char *name) const noexcept override { return find(name).dims; }
    std::int64_t getDeviceMemorySizeV2() const noexcept override { return static_cast<std::int64_t>(plan.scratch); }
#if defined(TRT_MAJOR_RTX)
    IRuntimeConfig *createRuntimeConfig() noexcept override {
        return fails("createRuntimeConfig") ? nullptr : new RuntimeConfig;
    }
    IExecutionContext *createExecutionContextWithRuntimeConfig(IRuntimeConfig *config) noexcept override {
        const auto &asked = *static_cast<RuntimeConfig *>(config);
        const bool right = asked.bare && asked.eager && asked.cache != nullptr;
        return fails("createExecutionContext") || !right ? nullptr : new Context(plan, *asked.cache);
    }
#else
    IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        const bool bare = strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED;
        return fails("createExecutionContext") || !bare ? nullptr : new Context(plan, nothing);
    }
#endif

  private:
    const Tensor &find(const char *name) const {
        for (const Tensor &tensor : plan.tensors) {
            if (tensor.name == name) {
                return tensor;
            }
        }
        unexpected("a tensor that the engine does not have");
    }

    Plan plan;
};

class Runtime final : public IRuntime, public AbsentRuntime {
  public:
    explicit Runtime(ILogger &to) : logger(to) { mImpl = this; }
    ICudaEngine *deserializeCudaEngine(const void *blob, std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char *>(blob), size));
        std::string word;
        Plan plan;
        if (fails("deserializeCudaEngine") || !(text >> word >> plan.scratch) || word != "standin") {
            logger.log(ILogger::Severity::kERROR, "the stand-in refuses the plan");
            return nullptr;
        }
        while (text >> word) {
            if (word == "dla") {
                text >> plan.dla;
                continue;
            }
            Tensor tensor{"", word == "in", DataType::kFLOAT, {}};
            std::string type;
            text >> tensor.name >> type >> tensor.dims.nbDims;
            tensor.type = type == "f16" ? DataType::kHALF
                : type == "u8"          ? DataType::kUINT8
                : type == "i8"          ? DataType::kINT8
                                        : DataType::kFLOAT;
            for (int index = 0; index < tensor.dims.nbDims; ++index) {
                text >> tensor.dims.d[index];
            }
            plan.tensors.push_back(tensor);
        }
        if (plan.dla != dla) {
            logger.log(ILogger::Severity::kERROR, "the plan is for another device");
            return nullptr;
        }
        return new Engine(plan);
    }
#if !defined(TRT_MAJOR_RTX)
    std::int32_t getNbDLACores() const noexcept override { return 2; }
    void setDLACore(std::int32_t core) noexcept override { dla = core; }
#endif

  private:
    ILogger &logger;
    std::int32_t dla = -1;
};

} // namespace

extern "C" std::int32_t getInferLibVersion() noexcept { return NV_TENSORRT_VERSION; }
extern "C" void *createInferBuilder_INTERNAL(void *, std::int32_t) noexcept;
extern "C" void *createInferBuilder_INTERNAL(void *, std::int32_t) noexcept { return nullptr; }
extern "C" void *createInferRuntime_INTERNAL(void *logger, std::int32_t) noexcept {
    if (fails("createInferRuntime_INTERNAL")) {
        return nullptr;
    }
    return static_cast<IRuntime *>(new Runtime(*static_cast<ILogger *>(logger)));
}
