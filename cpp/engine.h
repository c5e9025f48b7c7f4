// The border to TensorRT and TensorRT-RTX: opaque types and plain structs, over the part of their interfaces that
// versions 8.5 to 11 and RTX 1.3 to 1.7 have in common.
//
// - Nothing is linked: the libraries are opened at run time, and their version is checked before any other call, as
//   enumerations and virtual tables differ between versions, and a wrong one crashes.
// - Exceptions end here. Calls before the start report failures by throwing, which the generated bridge turns into
//   errors of Rust; calls for each batch are noexcept and return whether they succeeded.
// - Frames, tensors and streams belong to the caller. This side holds addresses only.
#pragma once

#include "rust/cxx.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cstdint>
#include <memory>
#include <string>

namespace ocelli::tensorrt {

// Defined by the bridge, src/infer/tensorrt/bridge.rs.
struct Version;
struct IoTensor;
struct Device;
struct BuildOptions;
struct Built;
struct Progress;

// What differs between versions, cpp/portable.h.
class Contexts;

// An opened TensorRT. Stays open for the life of the process: what it started does not end before.
class Library {
  public:
    // The libraries' files, as for dlopen; the parser is opened when it is first needed.
    Library(rust::Str nvinfer, rust::Str parser);

    Version version() const noexcept;

    std::unique_ptr<nvinfer1::IBuilder> builder() const;
    std::unique_ptr<nvinfer1::IRuntime> runtime() const;
    std::unique_ptr<nvonnxparser::IParser> parser(nvinfer1::INetworkDefinition &network) const;

  private:
    using Create = void *(void *logger, std::int32_t version);
    using CreateParser = void *(void *network, void *logger, int version);
    Create *create_builder = nullptr;
    Create *create_runtime = nullptr;
    std::int32_t number = 0;
    std::string parser_file;
};

// A network that was read from an ONNX file and can be built.
class Network {
  public:
    // `path` is where the file lies: its external weights are beside it.
    Network(const Library &library, rust::Slice<const std::uint8_t> onnx, rust::Str path);

    rust::Vec<IoTensor> tensors() const;
    Built build(const BuildOptions &options, const Progress &progress) const;

  private:
    // In the order of construction: the network's weights belong to the parser.
    std::unique_ptr<nvinfer1::IBuilder> builder;
    std::unique_ptr<nvinfer1::INetworkDefinition> network;
    std::unique_ptr<nvonnxparser::IParser> parser;
};

// A plan that was loaded onto a device.
class Engine {
  public:
    Engine(const Library &library, rust::Slice<const std::uint8_t> plan, std::int32_t dla_core);
    ~Engine();

    rust::Vec<IoTensor> tensors() const;
    // Bytes of device memory that a context works in.
    std::uint64_t context_memory() const noexcept;
    // Takes over what contexts compiled at an earlier start. False if it is broken, or not for what is here.
    bool restore(rust::Slice<const std::uint8_t> compiled) noexcept;
    // What its contexts have compiled on the device, for later starts; empty where they compile nothing.
    rust::Vec<std::uint8_t> compiled() const;

    nvinfer1::ICudaEngine *get() const noexcept { return engine.get(); }
    std::unique_ptr<nvinfer1::IExecutionContext> context() const;

  private:
    // In the order of construction: an engine goes before its runtime.
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<Contexts> contexts;
};

// An execution context: one batch at a time, in memory that the caller gives it.
class Context {
  public:
    explicit Context(const Engine &loaded);

    // Where it works: as much device memory as its engine says.
    void set_memory(std::uint64_t address, std::uint64_t bytes) noexcept;

    // The optimization profile whose shapes follow, and the CUDA stream that switches to it.
    bool select_profile(std::int32_t profile, std::uint64_t cuda_stream) noexcept;
    // The shape of the input tensor `index`.
    bool set_shape(std::size_t index, rust::Slice<const std::int64_t> shape) noexcept;
    // The shape of the IO tensor `index` for the input shapes that were set; a dimension that is still open is -1.
    rust::Vec<std::int64_t> tensor_shape(std::size_t index) const;
    // Where the IO tensor `index` lies, as the device sees it.
    bool set_address(std::size_t index, std::uint64_t address) noexcept;
    // Whether that work can be recorded from a CUDA stream, instead of being done.
    bool is_capturable(std::uint64_t cuda_stream) const noexcept;
    // Puts the network's work into a CUDA stream.
    bool enqueue(std::uint64_t cuda_stream) noexcept;

  private:
    nvinfer1::ICudaEngine *engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
};

// The version of the headers that this was compiled against.
Version compiled_version() noexcept;
// The files of the libraries that belong to these headers.
rust::Str nvinfer_file() noexcept;
rust::Str parser_file() noexcept;
// Whether it can be used with devices of this compute capability (major * 10 + minor).
bool serves_capability(std::int32_t capability) noexcept;
// Where a function of the driver lies.
std::size_t driver_function(rust::Str name);
// A CUDA device, asked of the driver.
Device device(std::int32_t index);

std::unique_ptr<Library> open_library(rust::Str nvinfer, rust::Str parser);
std::unique_ptr<Network> parse_network(const Library &library, rust::Slice<const std::uint8_t> onnx, rust::Str path);
std::unique_ptr<Engine> load_engine(const Library &library, rust::Slice<const std::uint8_t> plan, std::int32_t dla_core);
std::unique_ptr<Context> create_context(const Engine &engine);

} // namespace ocelli::tensorrt
