#include "nodule_net.hpp"

#include <torch/nn/functional.h>
#include <torch/script.h>

#include <map>

#include "error.hpp"

namespace carina {
namespace nn = torch::nn;

NoduleNetImpl::NoduleNetImpl(int64_t first_filters, int64_t head_inputs) {
  input_norm_ = register_module("input_norm", nn::BatchNorm3d(1));
  blocks_ = register_module("blocks", nn::ModuleList());
  int64_t before = 1;
  for (int level = 0; level < 4; ++level) {
    const int64_t after = first_filters << level;
    blocks_->push_back(nn::Sequential(nn::Conv3d(nn::Conv3dOptions(before, after, 3).padding(1)), nn::ReLU(),
                                      nn::Conv3d(nn::Conv3dOptions(after, after, 3).padding(1)), nn::ReLU(),
                                      nn::MaxPool3d(2)));
    before = after;
  }
  head_ = register_module("head", nn::Linear(head_inputs, 2));
}

torch::Tensor NoduleNetImpl::forward(torch::Tensor crops) {
  torch::Tensor x = input_norm_(std::move(crops));
  for (const auto& block : *blocks_) x = block->as<nn::Sequential>()->forward(x);
  return head_(x.flatten(1));
}

NoduleNet load_nodule_net(const std::filesystem::path& torchscript) {
  std::map<std::string, torch::Tensor> given;
  try {
    const auto script = torch::jit::load(torchscript.string());
    for (const auto& entry : script.named_parameters()) given[entry.name] = entry.value;
    for (const auto& entry : script.named_buffers()) given[entry.name] = entry.value;
  } catch (const c10::Error& error) {
    throw Error(torchscript.string() + " is not a TorchScript file: " + error.what_without_backtrace());
  }
  if (!given.contains("blocks.0.0.weight") || !given.contains("head.weight"))
    throw Error(torchscript.string() + " is not the 3-D nodule network: it has no blocks.0.0.weight and head.weight");
  NoduleNet network(given["blocks.0.0.weight"].size(0), given["head.weight"].size(1));
  torch::NoGradGuard no_grad;
  auto wanted = network->named_parameters();
  for (const auto& entry : network->named_buffers()) wanted.insert(entry.key(), entry.value());
  for (auto& entry : wanted) {
    const auto found = given.find(entry.key());
    if (found == given.end() || found->second.sizes() != entry.value().sizes())
      throw Error(torchscript.string() + ": weights '" + entry.key() + "' are missing or of another shape");
    entry.value().copy_(found->second);
  }
  network->eval();
  return network;
}

}  // namespace carina
