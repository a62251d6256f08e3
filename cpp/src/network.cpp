#include "network.hpp"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>
#include <torch/version.h>

#include <sstream>

#include "error.hpp"
#include "nodule_net.hpp"

namespace carina {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Network load_network(const std::filesystem::path& path) {
  const std::string name = path.string();
  if (!std::filesystem::is_regular_file(path)) throw Error("no network at " + name + "; carina export writes it");
  try {
    if (ends_with(name, ".aoti.pt2")) {
      auto package = std::make_shared<torch::inductor::AOTIModelPackageLoader>(name);
      return {[package](const at::Tensor& input) { return package->run({input}).at(0); },
              "AOTInductor in LibTorch " TORCH_VERSION " on cpu"};
    }
    if (ends_with(name, ".pt")) {
      auto script = std::make_shared<torch::jit::Module>(torch::jit::load(name, torch::kCPU));
      script->eval();
      return {[script](const at::Tensor& input) { return script->forward({input}).toTensor(); },
              "TorchScript in LibTorch " TORCH_VERSION " on cpu"};
    }
  } catch (const c10::Error& error) {
    throw Error(name + " cannot be loaded: " + first_line(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw Error(name + " cannot be loaded: " + first_line(error.what()));
  }
  throw UsageError(name + ": expected a TorchScript file (.pt) or an AOTInductor package (.aoti.pt2)");
}

Network load_front_end(const std::filesystem::path& torchscript) {
  auto network = load_nodule_net(torchscript);
  return {[network](const at::Tensor& input) mutable { return network->forward(input); },
          "C++ front end in LibTorch " TORCH_VERSION " on cpu"};
}

at::Tensor call(const Network& network, const at::Tensor& input, at::IntArrayRef expected) {
  at::Tensor logits;
  try {
    logits = network.logits(input);
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << "the network does not take an input of shape " << input.sizes() << ": " << first_line(error.what());
    throw Error(text.str());
  }
  if (logits.sizes() != expected) {
    std::ostringstream text;
    text << "the network gave shape " << logits.sizes() << " for an input of " << input.sizes() << ", expected "
         << expected << "; is it the network for this stage?";
    throw Error(text.str());
  }
  return logits.contiguous();
}

}  // namespace carina
