// The 3-D network written with PyTorch's C++ front end: the same layers as carina.models.nodule, the same weights.
#pragma once

#include <torch/nn.h>

#include <filesystem>

namespace carina {

class NoduleNetImpl : public torch::nn::Module {
 public:
  NoduleNetImpl(int64_t first_filters, int64_t head_inputs);

  // [b 1 z y x] scaled to [-1, 1] to logits [b 2].
  torch::Tensor forward(torch::Tensor crops);

 private:
  torch::nn::BatchNorm3d input_norm_{nullptr};
  torch::nn::ModuleList blocks_{nullptr};
  torch::nn::Linear head_{nullptr};
};
TORCH_MODULE(NoduleNet);

// Takes the weights, by their names, from the TorchScript file of the same network.
// Throws Error: not such a file, or its weights have other names or shapes.
NoduleNet load_nodule_net(const std::filesystem::path& torchscript);

}  // namespace carina
