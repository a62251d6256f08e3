// carina-call: one network on one stored input, timed; the C++ half of the page "four ways".
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <ctime>
#include <fstream>
#include <iostream>

#include "error.hpp"
#include "json.hpp"
#include "network.hpp"

namespace {

using namespace carina;

// Processor time means more than wall time where other programs run.
double processor_ms() { return 1000.0 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// float32 values, little-endian, as NumPy's tofile writes them.
at::Tensor read_crops(const std::string& path, const std::vector<int64_t>& shape) {
  at::Tensor crops = at::empty(shape);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Error("cannot open " + path);
  const auto expected = static_cast<int64_t>(crops.nbytes());
  if (file.tellg() != expected)
    throw Error(path + " has " + std::to_string(file.tellg()) + " bytes, a float32 input of the given shape has " +
                std::to_string(expected));
  file.seekg(0);
  file.read(static_cast<char*>(crops.data_ptr()), expected);
  return crops;
}

}  // namespace

int main(int count, char** values) {
  if (count < 9) {
    std::cerr << "usage: carina-call load|front-end NETWORK CROPS.f32 REPEATS THREADS B 1 Z Y X\n";
    return 2;
  }
  try {
    const std::string way = values[1];
    at::set_num_threads(std::stoi(values[5]));
    const Network network = way == "front-end" ? load_front_end(values[2]) : load_network(values[2]);
    std::vector<int64_t> shape;
    for (int i = 6; i < count; ++i) shape.push_back(std::stoll(values[i]));
    const at::Tensor crops = read_crops(values[3], shape);
    const c10::NoGradGuard no_grad;
    at::Tensor logits = call(network, crops, {shape[0], 2});
    const double start = processor_ms();
    Json::List times;
    for (int i = 0; i < std::stoi(values[4]); ++i) {
      const double one = processor_ms();
      logits = call(network, crops, {shape[0], 2});
      times.emplace_back(processor_ms() - one);
    }
    Json::List numbers;
    for (int64_t i = 0; i < logits.numel(); ++i) numbers.emplace_back(logits.flatten()[i].item<double>());
    std::cout << Json(Json::Object{{"runtime", network.runtime},
                                   {"load_and_first_call_ms", start},
                                   {"call_ms", times},
                                   {"logits", numbers}})
                     .dump()
              << '\n';
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "carina-call: " << error.what() << '\n';
    return 1;
  }
}
