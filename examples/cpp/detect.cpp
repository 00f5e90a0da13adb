// Objects in a picture with TensorRT 10 and nothing else: one line of JSON for each.
//
//     fine-edge deploy cpp engines/rtdetr_r18_fine.fp16.engine --out deployed
//     g++ -O2 -std=c++17 detect.cpp -o detect -lnvinfer -lcudart     (-I and -L of CUDA where it is not found)
//     ./detect deployed/rtdetr_r18_fine/rtdetr_r18_fine.txt street.ppm 0.5
//
// Pictures are binary PPM (P6). The text file says what the engine takes and gives: a key and its values each line.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// What the text file says.
struct Contract {
  std::string engine, input, resize, align;
  int width = 0, height = 0, rows = 0;
  bool wide_labels = true;  // int64, else int32
  bool antialias = true;
  double scale = 0;
  std::array<double, 3> mean{}, std{};
  int pad = -1;  // level of the padding; -1: zeros behind the normalisation
  std::vector<std::string> labels;
};

Contract read_contract(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(path + ": cannot be read");
  Contract found;
  std::map<std::string, int> seen;
  for (std::string line; std::getline(file, line);) {
    const auto space = line.find(' ');
    const std::string key = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
    std::istringstream values(rest);
    std::string word;
    ++seen[key];
    if (key == "format" && rest != "1") fail(path + ": format " + rest + ", this program reads 1");
    if (key == "engine") found.engine = rest;
    if (key == "input") found.input = rest;
    if (key == "size") values >> found.width >> found.height;
    if (key == "rows") values >> found.rows;
    if (key == "labels") found.wide_labels = rest == "int64";
    if (key == "resize") {
      values >> found.resize >> found.align >> word;
      found.antialias = word == "antialias";
    }
    if (key == "scale") values >> found.scale;
    if (key == "mean") values >> found.mean[0] >> found.mean[1] >> found.mean[2];
    if (key == "std") values >> found.std[0] >> found.std[1] >> found.std[2];
    if (key == "pad" && rest != "none") values >> found.pad;
    if (key == "label") found.labels.push_back(rest);
    if (values.fail()) fail(path + ": '" + line + "' is not what this program reads");
  }
  for (const char* key : {"format", "engine", "input", "size", "rows", "labels", "resize", "scale", "mean", "std", "pad"})
    if (seen[key] != 1) fail(path + ": '" + key + "' stands there " + std::to_string(seen[key]) + " times, not once");
  const auto in_range = [](int side) { return side > 0 && side <= 1 << 14; };
  const bool divides = found.scale != 0 && found.std[0] != 0 && found.std[1] != 0 && found.std[2] != 0;
  if (!in_range(found.width) || !in_range(found.height) || found.rows < 1 || found.rows > 1 << 20 || !divides)
    fail(path + ": a size, the number of rows, the scale or std is impossible");
  return found;
}

struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // height x width x 3
};

Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path + ": cannot be read");
  std::string magic;
  int levels = 0;
  Picture found;
  const auto number = [&file] {
    while ((file >> std::ws) && file.peek() == '#') file.ignore(1 << 16, '\n');
    int value = 0;
    file >> value;
    return value;
  };
  file >> magic;
  found.width = number(), found.height = number(), levels = number();
  if (!file || magic != "P6" || levels != 255 || found.width < 1 || found.height < 1 || found.width > 1 << 14 ||
      found.height > 1 << 14)
    fail(path + ": no binary PPM of 8 bits (ffmpeg -i PICTURE out.ppm writes one)");
  file.get();  // one white space behind the header
  found.rgb.resize(size_t(3) * found.width * found.height);
  if (!file.read(reinterpret_cast<char*>(found.rgb.data()), std::streamsize(found.rgb.size())))
    fail(path + ": ends before its last pixel");
  return found;
}

// Which pixels of a line make one pixel of the resized line, and how much each counts.
struct Tap {
  int first = 0;
  std::vector<double> weights;
};

// Bilinear. With antialias the triangle spans all pixels that shrink into one, as Pillow's resize does it.
std::vector<Tap> taps(int from, int to, bool antialias) {
  const double step = double(from) / to, support = antialias ? std::max(step, 1.0) : 1.0;
  std::vector<Tap> found(to);
  for (int place = 0; place < to; ++place) {
    const double center = (place + 0.5) * step;
    const int first = std::max(0, int(std::floor(center - support + 0.5)));
    const int last = std::min(from, int(std::floor(center + support + 0.5)));
    Tap& tap = found[place];
    tap.first = first;
    for (int pixel = first; pixel < last; ++pixel)
      tap.weights.push_back(std::max(0.0, 1 - std::abs(pixel + 0.5 - center) / support));
    const double sum = std::accumulate(tap.weights.begin(), tap.weights.end(), 0.0);
    for (double& weight : tap.weights) weight /= sum;
  }
  return found;
}

// Levels 0 to 255, height x width x 3. Antialiased passes are rounded to levels, as Pillow's are.
std::vector<double> resized(const Picture& picture, int width, int height, bool antialias) {
  const auto level = [antialias](double value) { return antialias ? std::floor(value + 0.5) : value; };
  const auto across = taps(picture.width, width, antialias), down = taps(picture.height, height, antialias);
  std::vector<double> lines(size_t(3) * picture.height * width), found(size_t(3) * height * width);
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (size_t t = 0; t < across[x].weights.size(); ++t)
          sum += across[x].weights[t] * picture.rgb[3 * (size_t(y) * picture.width + across[x].first + t) + c];
        lines[3 * (size_t(y) * width + x) + c] = level(sum);
      }
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (size_t t = 0; t < down[y].weights.size(); ++t)
          sum += down[y].weights[t] * lines[3 * (size_t(down[y].first + t) * width + x) + c];
        found[3 * (size_t(y) * width + x) + c] = level(sum);
      }
  return found;
}

// Where the picture lies in the input: input pixel = picture pixel * scale + left or top.
struct Placement {
  double scale_x = 1, scale_y = 1;
  int left = 0, top = 0;
};

std::vector<float> preprocess(const Picture& picture, const Contract& how, Placement& placement) {
  int width = how.width, height = how.height;
  const bool centered = how.align == "center";
  if (how.resize == "letterbox") {
    const double ratio = std::min(double(how.height) / picture.height, double(how.width) / picture.width);
    // To the nearest pixel, a half to the even one as Python does, or down.
    const auto side = [&](int pixels) {
      return std::max(1, int(centered ? std::nearbyint(pixels * ratio) : std::floor(pixels * ratio)));
    };
    width = side(picture.width), height = side(picture.height);
  }
  placement.left = centered ? (how.width - width) / 2 : 0;
  placement.top = centered ? (how.height - height) / 2 : 0;
  placement.scale_x = double(width) / picture.width, placement.scale_y = double(height) / picture.height;
  const auto levels = resized(picture, width, height, how.antialias);
  std::vector<float> input(size_t(3) * how.width * how.height);  // 3 x height x width
  for (int c = 0; c < 3; ++c) {
    float* plane = input.data() + size_t(c) * how.width * how.height;
    const auto value = [&](double pixel) { return float((pixel * how.scale - how.mean[c]) / how.std[c]); };
    std::fill_n(plane, size_t(how.width) * how.height, how.pad < 0 ? 0.0f : value(how.pad));
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        plane[size_t(y + placement.top) * how.width + x + placement.left] =
            value(levels[3 * (size_t(y) * width + x) + c]);
  }
  return input;
}

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(status));
}

class Log : public nvinfer1::ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) std::cerr << message << '\n';
  }
};

// Memory of the device, freed with the object.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes), "cudaMalloc"); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

size_t bytes_of(nvinfer1::DataType type, const std::string& name) {
  if (type == nvinfer1::DataType::kINT64) return 8;
  if (type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kINT32) return 4;
  fail("the engine's " + name + " is neither float32 nor int32 nor int64: build it from the file of the contract");
}

// A tensor of the engine must be what the contract says, or memory would be read beyond its end.
void require(const nvinfer1::ICudaEngine& engine, const std::string& name, size_t bytes) {
  const auto shape = engine.getTensorShape(name.c_str());
  size_t has = bytes_of(engine.getTensorDataType(name.c_str()), name);
  for (int axis = 0; axis < shape.nbDims; ++axis) has *= size_t(std::max<int64_t>(shape.d[axis], 0));
  if (has != bytes)
    fail("the engine's " + name + " has " + std::to_string(has) + " bytes, its contract says " + std::to_string(bytes));
}

struct Outputs {
  std::vector<float> boxes, scores;
  std::vector<int64_t> labels;
};

Outputs infer(const std::string& path, const Contract& how, const std::vector<float>& input) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path + ": cannot be read");
  const std::vector<char> plan((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Log log;
  std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(log));
  std::unique_ptr<nvinfer1::ICudaEngine> engine(
      runtime ? runtime->deserializeCudaEngine(plan.data(), plan.size()) : nullptr);
  std::unique_ptr<nvinfer1::IExecutionContext> context(engine ? engine->createExecutionContext() : nullptr);
  if (!context) fail(path + ": TensorRT cannot load it; an engine runs on the machine and in the TensorRT it is built by");
  const size_t rows = size_t(how.rows), wide = how.wide_labels ? 8 : 4;
  const std::map<std::string, size_t> wanted = {
      {how.input, input.size() * 4}, {"labels", rows * wide}, {"boxes_xyxy", rows * 16}, {"scores", rows * 4}};
  std::map<std::string, std::unique_ptr<Buffer>> buffers;
  for (int number = 0; number < engine->getNbIOTensors(); ++number) {
    const std::string name = engine->getIOTensorName(number);
    const auto found = wanted.find(name);
    size_t bytes = found == wanted.end() ? bytes_of(engine->getTensorDataType(name.c_str()), name) : found->second;
    if (found != wanted.end()) {
      require(*engine, name, bytes);
    } else {  // another output, such as masks, needs a place as well
      const auto shape = engine->getTensorShape(name.c_str());
      for (int axis = 0; axis < shape.nbDims; ++axis) bytes *= size_t(std::max<int64_t>(shape.d[axis], 1));
    }
    buffers[name] = std::make_unique<Buffer>(bytes);
    if (!context->setTensorAddress(name.c_str(), buffers[name]->data())) fail("TensorRT takes no memory for " + name);
  }
  for (const auto& [name, bytes] : wanted)
    if (!buffers.count(name)) fail(path + ": the engine has no " + name + ": build it from the file of the contract");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  const auto copy = [stream](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
  };
  copy(buffers[how.input]->data(), input.data(), input.size() * 4, cudaMemcpyHostToDevice);
  if (!context->enqueueV3(stream)) fail("TensorRT could not run the engine");
  Outputs found{std::vector<float>(rows * 4), std::vector<float>(rows), std::vector<int64_t>(rows)};
  std::vector<int32_t> narrow(rows);
  void* labels = how.wide_labels ? static_cast<void*>(found.labels.data()) : narrow.data();
  copy(found.boxes.data(), buffers["boxes_xyxy"]->data(), rows * 16, cudaMemcpyDeviceToHost);
  copy(found.scores.data(), buffers["scores"]->data(), rows * 4, cudaMemcpyDeviceToHost);
  copy(labels, buffers["labels"]->data(), rows * wide, cudaMemcpyDeviceToHost);
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  if (!how.wide_labels) std::copy(narrow.begin(), narrow.end(), found.labels.begin());
  return found;
}

std::string quoted(const std::string& text) {
  std::string found = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') found += '\\';
    if (static_cast<unsigned char>(character) >= 0x20) found += character;
  }
  return found + '"';
}

void print(const Outputs& found, const Contract& how, const Picture& picture, const Placement& at, double threshold) {
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(found.scores.begin(), found.scores.end(), finite) ||
      !std::all_of(found.boxes.begin(), found.boxes.end(), finite))
    fail("the network gives NaN or infinities: FP16 overflows, or the weights are broken");
  std::vector<size_t> order(found.scores.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return found.scores[a] > found.scores[b]; });
  for (const size_t row : order) {
    const double score = found.scores[row];
    if (score < threshold || score == 0) continue;  // rows that find nothing have score 0
    const int64_t label = found.labels[row];
    const bool named = label >= 0 && size_t(label) < how.labels.size();
    const float* box = found.boxes.data() + 4 * row;
    const auto x = [&](float px) { return std::clamp((double(px) - at.left) / at.scale_x, 0.0, double(picture.width)); };
    const auto y = [&](float px) { return std::clamp((double(px) - at.top) / at.scale_y, 0.0, double(picture.height)); };
    std::printf("{\"label\": %s, \"label_index\": %lld, \"score\": %.5f, \"box_xyxy_px\": [%.2f, %.2f, %.2f, %.2f]}\n",
                quoted(named ? how.labels[size_t(label)] : "class " + std::to_string(label)).c_str(),
                static_cast<long long>(label), score, x(box[0]), y(box[1]), x(box[2]), y(box[3]));
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 3 && count != 4) fail("usage: detect CONTRACT.txt PICTURE.ppm [THRESHOLD]");
    const std::string text = arguments[1];
    const double threshold = count == 4 ? std::stod(arguments[3]) : 0.5;
    const Contract contract = read_contract(text);
    const Picture picture = read_ppm(arguments[2]);
    Placement placement;
    const auto input = preprocess(picture, contract, placement);
    const auto slash = text.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : text.substr(0, slash + 1);
    print(infer(folder + contract.engine, contract, input), contract, picture, placement, threshold);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
}
