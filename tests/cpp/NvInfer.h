// A runtime of the form of TensorRT 10's: the names and signatures that examples/cpp/detect.cpp calls, and an engine
// that is a text file: a line for each tensor (name, i or o, type, dims) and, of outputs, their values.
// The input is written to the file that FAKE_INPUT names, so that a test sees what the network would see.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kINT64 = 8 };

struct Dims64 {
  int32_t nbDims;
  int64_t d[8];
};
using Dims = Dims64;

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, char const* message) noexcept = 0;
  virtual ~ILogger() = default;
};

struct FakeTensor {
  std::string name;
  bool input = false;
  DataType type = DataType::kFLOAT;
  Dims dims{};
  std::vector<char> bytes;
};

class IExecutionContext {
 public:
  explicit IExecutionContext(const std::vector<FakeTensor>& tensors) : tensors_(tensors) {}
  bool setTensorAddress(char const* name, void* data) noexcept { return (places_[name] = data) != nullptr; }
  bool enqueueV3(cudaStream_t) noexcept {
    for (const auto& tensor : tensors_) {
      void* place = places_[tensor.name];
      if (!place) return false;
      if (!tensor.input) std::memcpy(place, tensor.bytes.data(), tensor.bytes.size());
      const char* seen = std::getenv("FAKE_INPUT");
      if (tensor.input && seen)
        std::ofstream(seen, std::ios::binary).write(static_cast<char*>(place), std::streamsize(tensor.bytes.size()));
    }
    return true;
  }

 private:
  std::vector<FakeTensor> tensors_;
  std::map<std::string, void*> places_;
};

class ICudaEngine {
 public:
  explicit ICudaEngine(std::vector<FakeTensor> tensors) : tensors_(std::move(tensors)) {}
  int32_t getNbIOTensors() const noexcept { return int32_t(tensors_.size()); }
  char const* getIOTensorName(int32_t index) const noexcept { return tensors_[size_t(index)].name.c_str(); }
  Dims getTensorShape(char const* name) const noexcept { return of(name).dims; }
  DataType getTensorDataType(char const* name) const noexcept { return of(name).type; }
  IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext(tensors_); }

 private:
  const FakeTensor& of(const std::string& name) const {
    for (const auto& tensor : tensors_)
      if (tensor.name == name) return tensor;
    std::abort();
  }
  std::vector<FakeTensor> tensors_;
};

template <typename T>
void read_values(std::istringstream& line, size_t count, std::vector<char>& bytes) {
  bytes.resize(count * sizeof(T));
  for (size_t place = 0; place < count; ++place) {
    std::string word;  // strtod reads "nan" as well
    line >> word;
    const T typed = static_cast<T>(std::strtod(word.c_str(), nullptr));
    std::memcpy(bytes.data() + place * sizeof(T), &typed, sizeof(T));
  }
}

class IRuntime {
 public:
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
    std::istringstream text(std::string(static_cast<char const*>(blob), size));
    std::string word;
    if (!(text >> word) || word != "fake-engine") return nullptr;
    std::vector<FakeTensor> tensors;
    std::getline(text, word);
    for (std::string line; std::getline(text, line);) {
      std::istringstream values(line);
      FakeTensor tensor;
      std::string mode, type;
      values >> tensor.name >> mode >> type >> tensor.dims.nbDims;
      size_t count = 1;
      for (int axis = 0; axis < tensor.dims.nbDims; ++axis) {
        values >> tensor.dims.d[axis];
        count *= size_t(tensor.dims.d[axis]);
      }
      tensor.input = mode == "i";
      tensor.type = type == "int64" ? DataType::kINT64 : type == "int32" ? DataType::kINT32 : DataType::kFLOAT;
      if (type == "float16") tensor.type = DataType::kHALF;
      if (tensor.type == DataType::kINT64) read_values<int64_t>(values, count, tensor.bytes);
      else if (tensor.type == DataType::kINT32) read_values<int32_t>(values, count, tensor.bytes);
      else read_values<float>(values, count, tensor.bytes);
      tensors.push_back(tensor);
    }
    return new ICudaEngine(tensors);
  }
};

inline IRuntime* createInferRuntime(ILogger&) noexcept { return new IRuntime; }

}  // namespace nvinfer1
