// A network that can be called, whatever file it came from.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>

namespace carina {

struct Network {
  std::function<at::Tensor(const at::Tensor&)> logits;  // float32 in, float32 out
  std::string runtime;                                        // for the report
};

// Loads a file of carina export: TorchScript (.traced.pt, .scripted.pt) or an AOTInductor package (.aoti.pt2).
// Throws Error: cannot be loaded.
Network load_network(const std::filesystem::path& path);

// The nodule network of the C++ front end with the weights of a TorchScript file.
Network load_front_end(const std::filesystem::path& torchscript);

// Calls the network and checks what comes out. Throws Error: it fails, or another shape comes out.
at::Tensor call(const Network& network, const at::Tensor& input, at::IntArrayRef expected);

}  // namespace carina
