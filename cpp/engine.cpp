#include "engine.h"
#include "ocelli/src/infer/tensorrt/bridge.rs.h"
#include "portable.h"

#include <algorithm>
#include <dlfcn.h>
#include <mutex>
#include <stdexcept>
#include <string>

namespace ocelli::tensorrt {

namespace {

[[noreturn]] void fail(const std::string &what) { throw std::runtime_error(what); }

std::string text(rust::Str str) { return std::string(str.data(), str.size()); }

// TensorRT's log goes to ours. What it called an error last is kept: its calls just fail.
class Logger final : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char *message) noexcept override {
        // Texts are TensorRT's: what is no UTF-8 in them is replaced on the other side.
        const std::string_view said = message == nullptr ? "" : message;
        logged(static_cast<std::int32_t>(severity), {reinterpret_cast<const std::uint8_t *>(said.data()), said.size()});
        if (severity <= Severity::kERROR) {
            try {
                const std::lock_guard<std::mutex> guard(mutex);
                last = said;
            } catch (...) { // No memory for a text: the log has it.
            }
        }
    }

    // The last error since this was asked, with something before it.
    std::string reason(const std::string &what) {
        const std::lock_guard<std::mutex> guard(mutex);
        const std::string said = std::exchange(last, {});
        return said.empty() ? what : what + ": " + said;
    }

  private:
    std::mutex mutex;
    std::string last;
};

// One for the process: builders and runtimes must not outlive theirs.
Logger &logger() {
    static Logger *const logger = new Logger;
    return *logger;
}

void *opened(const std::string &file) {
    void *handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (handle == nullptr) {
        const char *why = dlerror();
        fail(why == nullptr ? file + " can't be opened" : why);
    }
    return handle;
}

template <class Function> Function *symbol(void *handle, const std::string &file, const char *name) {
    void *address = dlsym(handle, name);
    if (address == nullptr) {
        fail(file + " has no " + name + ": is it TensorRT's?");
    }
    return reinterpret_cast<Function *>(address);
}

template <class Function> Function *driver(const char *name) {
    // By the name that only the driver itself has: the CUDA toolkit's stub of it is called libcuda.so.
    void *const handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (handle == nullptr) {
        fail("there is no NVIDIA driver (libcuda.so.1)");
    }
    return symbol<Function>(handle, "libcuda.so.1", name);
}

Version version_of(std::int32_t number, bool rtx) {
    // 8 and 9 have one digit for the minor version: 8503. All others two: 100300, and RTX 10701.
    const bool one_digit = !rtx && number < 10000;
    const std::int32_t major = one_digit ? 1000 : 10000;
    return {rtx, number / major, number % major / 100, number % 100};
}

std::string name(Version version) {
    return (version.rtx ? "TensorRT-RTX " : "TensorRT ") + std::to_string(version.major) + "." +
           std::to_string(version.minor) + "." + std::to_string(version.patch);
}

// The DLA of this number, which has to be there: TensorRT takes the GPU for one that is not, and says nothing.
template <class Asked> std::int32_t dla_found(const Asked &asked, std::int32_t core) {
    const std::int32_t cores = dla_cores(asked);
    if (core >= cores) {
        fail("there is no DLA number " + std::to_string(core) + ": " + name(compiled_version()) + " finds " +
             std::to_string(cores) + " here");
    }
    return core;
}

Element element(nvinfer1::DataType type) {
    switch (type) {
    case nvinfer1::DataType::kFLOAT: return Element::F32;
    case nvinfer1::DataType::kHALF: return Element::F16;
    case nvinfer1::DataType::kINT8: return Element::I8;
    case nvinfer1::DataType::kUINT8: return Element::U8;
    case nvinfer1::DataType::kINT32: return Element::I32;
    case nvinfer1::DataType::kBOOL: return Element::Bool;
    default: return Element::Other;
    }
}

rust::Vec<std::int64_t> shape(const nvinfer1::Dims &dims) {
    rust::Vec<std::int64_t> shape;
    for (std::int32_t index = 0; index < dims.nbDims; ++index) {
        shape.push_back(dims.d[index]);
    }
    return shape;
}

// False if there are more dimensions than TensorRT knows, or one does not fit its type.
bool to_dims(const std::int64_t *shape, std::size_t count, nvinfer1::Dims &dims) noexcept {
    if (count > static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS)) {
        return false;
    }
    dims.nbDims = static_cast<std::int32_t>(count);
    for (std::size_t index = 0; index < count; ++index) {
        using Extent = std::decay_t<decltype(dims.d[0])>;
        dims.d[index] = static_cast<Extent>(shape[index]);
        if (dims.d[index] != shape[index]) {
            return false;
        }
    }
    return true;
}

nvinfer1::Dims dims_of(const rust::Vec<std::int64_t> &shape, rust::Str tensor) {
    nvinfer1::Dims dims{};
    if (!to_dims(shape.data(), shape.size(), dims)) {
        fail("a shape of " + text(tensor) + " has too many dimensions, or too large ones");
    }
    return dims;
}

#if OCELLI_PROGRESS
// The builder calls from several threads.
class Monitor final : public nvinfer1::IProgressMonitor {
  public:
    explicit Monitor(const Progress &listener) : progress(listener) {}
    void phaseStart(const char *phase, const char *parent, std::int32_t steps) noexcept override {
        started(progress, phase, parent == nullptr ? "" : parent, steps);
    }
    bool stepComplete(const char *phase, std::int32_t step) noexcept override {
        return stepped(progress, phase, step);
    }
    void phaseFinish(const char *phase) noexcept override { finished(progress, phase); }

  private:
    const Progress &progress;
};
#endif

std::string parser_errors(const nvonnxparser::IParser &parser) {
    std::string all;
    for (std::int32_t index = 0; index < parser.getNbErrors(); ++index) {
        const nvonnxparser::IParserError *error = parser.getError(index);
        if (error != nullptr && error->desc() != nullptr) {
            all += (all.empty() ? "" : "; ") + std::string(error->desc());
        }
    }
    return all;
}

// A profile for each range of shapes; inputs that are not named have no open dimension.
void add_profiles(nvinfer1::IBuilder &builder, nvinfer1::IBuilderConfig &config, const BuildOptions &options) {
    for (std::uint32_t index = 0; index < options.profiles; ++index) {
        nvinfer1::IOptimizationProfile *profile = builder.createOptimizationProfile();
        if (profile == nullptr) {
            fail(logger().reason("no optimization profile can be made"));
        }
        for (const Extent &extent : options.extents) {
            if (extent.profile != index) {
                continue;
            }
            const std::string tensor(extent.tensor);
            using Select = nvinfer1::OptProfileSelector;
            if (!profile->setDimensions(tensor.c_str(), Select::kMIN, dims_of(extent.least, extent.tensor)) ||
                !profile->setDimensions(tensor.c_str(), Select::kOPT, dims_of(extent.best, extent.tensor)) ||
                !profile->setDimensions(tensor.c_str(), Select::kMAX, dims_of(extent.most, extent.tensor))) {
                fail(logger().reason("the shapes asked for don't suit the input " + tensor));
            }
        }
        if (config.addOptimizationProfile(profile) < 0) {
            fail(logger().reason("an optimization profile does not suit the network's inputs"));
        }
    }
}

rust::Vec<std::uint8_t> copied(const nvinfer1::IHostMemory &memory) {
    const auto *bytes = static_cast<const std::uint8_t *>(memory.data());
    rust::Vec<std::uint8_t> copy;
    copy.reserve(memory.size());
    std::copy(bytes, bytes + memory.size(), std::back_inserter(copy));
    return copy;
}

} // namespace

// --- The library.

Library::Library(rust::Str nvinfer, rust::Str parser) : parser_file(text(parser)) {
    const std::string file = text(nvinfer);
    void *handle = opened(file);
    number = symbol<std::int32_t()>(handle, file, "getInferLibVersion")();
    const Version found = version(), wanted = compiled_version();
    if (found.major != wanted.major || found.minor != wanted.minor) {
        fail(file + " is " + name(found) + ", and this program was compiled for " + name(wanted) +
             ": they must have major and minor version in common; install that version, or compile with the headers of "
             "this one (OCELLI_TENSORRT_INCLUDE names their folder)");
    }
    create_builder = symbol<Create>(handle, file, "createInferBuilder_INTERNAL");
    create_runtime = symbol<Create>(handle, file, "createInferRuntime_INTERNAL");
}

Version Library::version() const noexcept { return version_of(number, RTX); }

std::unique_ptr<nvinfer1::IBuilder> Library::builder() const {
    return std::unique_ptr<nvinfer1::IBuilder>(
        static_cast<nvinfer1::IBuilder *>(create_builder(&logger(), NV_TENSORRT_VERSION)));
}

std::unique_ptr<nvinfer1::IRuntime> Library::runtime() const {
    return std::unique_ptr<nvinfer1::IRuntime>(
        static_cast<nvinfer1::IRuntime *>(create_runtime(&logger(), NV_TENSORRT_VERSION)));
}

std::unique_ptr<nvonnxparser::IParser> Library::parser(nvinfer1::INetworkDefinition &network) const {
    auto *const create = symbol<CreateParser>(opened(parser_file), parser_file, "createNvOnnxParser_INTERNAL");
    return std::unique_ptr<nvonnxparser::IParser>(
        static_cast<nvonnxparser::IParser *>(create(&network, &logger(), NV_ONNX_PARSER_VERSION)));
}

// --- A network.

Network::Network(const Library &library, rust::Slice<const std::uint8_t> onnx, rust::Str path) {
    logger().reason("");
    builder = library.builder();
    if (!builder) {
        fail(logger().reason("TensorRT has no builder here"));
    }
    network.reset(builder->createNetworkV2(network_flags()));
    if (!network) {
        fail(logger().reason("TensorRT's builder does not start"));
    }
    parser = library.parser(*network);
    if (!parser) {
        fail(logger().reason("TensorRT's ONNX parser does not start"));
    }
    const std::string file = text(path);
    if (!parser->parse(onnx.data(), onnx.size(), file.c_str())) {
        const std::string errors = parser_errors(*parser);
        fail(errors.empty() ? logger().reason("TensorRT can't read it as ONNX")
                            : "TensorRT can't read it as ONNX: " + errors);
    }
    if (network->getNbInputs() == 0 || network->getNbOutputs() == 0) {
        fail("it is an ONNX file without inputs or without outputs");
    }
}

rust::Vec<IoTensor> Network::tensors() const {
    rust::Vec<IoTensor> tensors;
    const auto add = [&](const nvinfer1::ITensor &tensor, bool input) {
        tensors.push_back({tensor.getName(), input, element(tensor.getType()), shape(tensor.getDimensions())});
    };
    for (std::int32_t index = 0; index < network->getNbInputs(); ++index) {
        add(*network->getInput(index), true);
    }
    for (std::int32_t index = 0; index < network->getNbOutputs(); ++index) {
        add(*network->getOutput(index), false);
    }
    return tensors;
}

Built Network::build(const BuildOptions &options, [[maybe_unused]] const Progress &progress) const {
    logger().reason("");
    const std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
    if (!config) {
        fail(logger().reason("TensorRT's builder does not start"));
    }
    allow_types(*config, options.half, options.quantized);
    if (!own_kernels_only(*config)) {
        fail(logger().reason("TensorRT does not build without cuBLAS and cuDNN"));
    }
    config->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, options.workspace);
    if (options.level >= 0 && !set_level(*config, options.level)) {
        fail("this version of TensorRT has no optimization levels");
    }
    if (!options.capabilities.empty() &&
        !set_capabilities(*config, options.capabilities.data(), static_cast<std::int32_t>(options.capabilities.size()))) {
        fail(logger().reason("this version of TensorRT can't build for these compute capabilities"));
    }
    if (options.dla_core >= 0) {
        set_dla(*config, dla_found(*builder, options.dla_core));
    }
    forbid_allocation(*config);
    const TimingCache cache(*config, options.timing_cache.data(), options.timing_cache.size());
    add_profiles(*builder, *config, options);
#if OCELLI_PROGRESS
    Monitor monitor(progress);
    config->setProgressMonitor(&monitor);
#endif

    const std::unique_ptr<nvinfer1::IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
    if (!plan || plan->size() == 0) {
        fail(logger().reason("TensorRT can't build it"));
    }
    Built built;
    built.plan = copied(*plan);
    built.layers = static_cast<std::uint32_t>(network->getNbLayers());
    if (const auto learned = cache.learned(*config)) {
        built.timing_cache = copied(*learned);
    }
    return built;
}

// --- The engine.

Engine::Engine(const Library &library, rust::Slice<const std::uint8_t> plan, std::int32_t dla_core) {
    device(0); // Without one the next calls crash in some versions.
    logger().reason("");
    runtime = library.runtime();
    if (!runtime) {
        fail(logger().reason("TensorRT's runtime does not start"));
    }
    if (dla_core >= 0) {
        set_dla(*runtime, dla_found(*runtime, dla_core));
    }
    engine.reset(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine) {
        fail(logger().reason("TensorRT does not take the plan"));
    }
    contexts = std::make_unique<Contexts>(*engine);
}

Engine::~Engine() = default;

rust::Vec<IoTensor> Engine::tensors() const {
    rust::Vec<IoTensor> tensors;
    for (std::int32_t index = 0; index < engine->getNbIOTensors(); ++index) {
        const char *name = engine->getIOTensorName(index);
        const bool input = engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        tensors.push_back({name, input, element(engine->getTensorDataType(name)), shape(engine->getTensorShape(name))});
    }
    return tensors;
}

std::uint64_t Engine::context_memory() const noexcept { return tensorrt::context_memory(*engine); }

bool Engine::restore(rust::Slice<const std::uint8_t> compiled) noexcept {
    return contexts->restore(compiled.data(), compiled.size());
}

rust::Vec<std::uint8_t> Engine::compiled() const {
    const auto bytes = contexts->compiled();
    return bytes ? copied(*bytes) : rust::Vec<std::uint8_t>();
}

std::unique_ptr<nvinfer1::IExecutionContext> Engine::context() const {
    logger().reason("");
    std::unique_ptr<nvinfer1::IExecutionContext> context(contexts->make(*engine));
    if (!context) {
        fail(logger().reason("no execution context can be made"));
    }
    return context;
}

// --- A context.

Context::Context(const Engine &loaded) : engine(loaded.get()), context(loaded.context()) {}

bool Context::select_profile(std::int32_t profile, std::uint64_t cuda_stream) noexcept {
    return context->setOptimizationProfileAsync(profile, reinterpret_cast<cudaStream_t>(cuda_stream));
}

bool Context::set_shape(std::size_t index, rust::Slice<const std::int64_t> shape) noexcept {
    nvinfer1::Dims dims{};
    const char *name = engine->getIOTensorName(static_cast<std::int32_t>(index));
    return name != nullptr && to_dims(shape.data(), shape.size(), dims) && context->setInputShape(name, dims);
}

void Context::set_memory(std::uint64_t address, std::uint64_t bytes) noexcept {
    tensorrt::set_memory(*context, reinterpret_cast<void *>(address), bytes);
}

rust::Vec<std::int64_t> Context::tensor_shape(std::size_t index) const {
    const char *name = engine->getIOTensorName(static_cast<std::int32_t>(index));
    if (name == nullptr) {
        fail("there is no IO tensor number " + std::to_string(index));
    }
    return shape(context->getTensorShape(name));
}

bool Context::set_address(std::size_t index, std::uint64_t address) noexcept {
    const char *name = engine->getIOTensorName(static_cast<std::int32_t>(index));
    return name != nullptr && context->setTensorAddress(name, reinterpret_cast<void *>(address));
}

bool Context::is_capturable(std::uint64_t cuda_stream) const noexcept {
    return tensorrt::is_capturable(*context, reinterpret_cast<cudaStream_t>(cuda_stream));
}

bool Context::enqueue(std::uint64_t cuda_stream) noexcept {
    return context->enqueueV3(reinterpret_cast<cudaStream_t>(cuda_stream));
}

// --- What is there.

Version compiled_version() noexcept { return version_of(VERSION, RTX); }

rust::Str nvinfer_file() noexcept { return NVINFER; }

rust::Str parser_file() noexcept { return PARSER; }

bool serves_capability(std::int32_t capability) noexcept { return serves(capability); }

std::size_t driver_function(rust::Str name) {
    return reinterpret_cast<std::size_t>(driver<void()>(text(name).c_str()));
}

Device device(std::int32_t index) {
    const auto call = [&](const char *name, auto... arguments) {
        const int status = driver<int(decltype(arguments)...)>(name)(arguments...);
        if (status != 0) {
            fail("NVIDIA's driver fails: " + std::string(name) + " gives error " + std::to_string(status));
        }
    };
    int count = 0, number = 0, major = 0, minor = 0, integrated = 0;
    call("cuInit", 0U);
    call("cuDeviceGetCount", &count);
    if (index >= count) {
        fail("there is no CUDA device number " + std::to_string(index) + "; there are " + std::to_string(count));
    }
    char name[256] = "";
    // The numbers of attributes are part of the driver's interface.
    constexpr int INTEGRATED = 18, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76;
    call("cuDeviceGet", &number, static_cast<int>(index));
    call("cuDeviceGetName", &name[0], static_cast<int>(sizeof name), number);
    call("cuDeviceGetAttribute", &integrated, INTEGRATED, number);
    call("cuDeviceGetAttribute", &major, CAPABILITY_MAJOR, number);
    call("cuDeviceGetAttribute", &minor, CAPABILITY_MINOR, number);
    return {rust::String::lossy(name), major * 10 + minor, integrated != 0};
}

std::unique_ptr<Library> open_library(rust::Str nvinfer, rust::Str parser) {
    return std::make_unique<Library>(nvinfer, parser);
}

std::unique_ptr<Network> parse_network(const Library &library, rust::Slice<const std::uint8_t> onnx, rust::Str path) {
    return std::make_unique<Network>(library, onnx, path);
}

std::unique_ptr<Engine> load_engine(const Library &library, rust::Slice<const std::uint8_t> plan, std::int32_t dla_core) {
    return std::make_unique<Engine>(library, plan, dla_core);
}

std::unique_ptr<Context> create_context(const Engine &engine) { return std::make_unique<Context>(engine); }

} // namespace ocelli::tensorrt
