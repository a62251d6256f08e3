#include "stages.hpp"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "error.hpp"

namespace carina {
namespace {

constexpr int64_t kBatch = 4;

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double log_odds(double p) {
  p = std::clamp(p, 1e-4, 1 - 1e-4);
  return std::log(p / (1 - p));
}

Vector3 triple(const Json& json) {
  if (json.list().size() != 3) throw Error("the JSON has " + json.dump() + " where three numbers should be");
  return {json.list()[0].number(), json.list()[1].number(), json.list()[2].number()};
}

at::Tensor one_pass(const at::Tensor& hu, const at::Tensor& region, const Network& network,
                       const Constants& c) {
  const int64_t depth = hu.size(0), height = hu.size(1), width = hu.size(2), context = c.in_channels / 2;
  const int64_t pad_y = (c.multiple - height % c.multiple) % c.multiple;
  const int64_t pad_x = (c.multiple - width % c.multiple) % c.multiple;
  const at::Tensor padded = at::replication_pad2d(hu, {0, pad_x, 0, pad_y});
  at::Tensor probability = at::zeros_like(hu);
  for (int64_t first = 0; first < depth; first += kBatch) {
    const int64_t stop = std::min(depth, first + kBatch);
    if (!region.slice(0, first, stop).any().item<bool>()) continue;  // no candidate can lie here
    std::vector<at::Tensor> slabs;
    for (int64_t z = first; z < stop; ++z)
      slabs.push_back(padded.index_select(0, at::arange(z - context, z - context + c.in_channels).clamp(0, depth - 1)));
    const at::Tensor batch = at::stack(slabs);
    const at::Tensor logits = call(network, batch, {stop - first, 1, height + pad_y, width + pad_x});
    probability.slice(0, first, stop).copy_(at::sigmoid(logits.select(1, 0).slice(1, 0, height).slice(2, 0, width)));
  }
  return probability;
}

// Appends the regions above the threshold that hold no voxel of ``taken``, and marks the voxels of all regions there.
void group_above(const Scan& scan, const std::vector<float>& probability, const Constants& c, float threshold,
                 std::vector<bool>& taken, std::vector<Candidate>& out) {
  const auto& [depth, height, width] = scan.geometry.shape;
  const double voxel = scan.geometry.voxel_volume();
  const auto top = static_cast<size_t>(std::max(1.0, std::nearbyint(c.score_volume_mm3 / voxel)));
  std::vector<bool> open(probability.size());
  for (size_t i = 0; i < open.size(); ++i)
    open[i] = probability[i] > threshold && scan.region[i] != 0;
  std::vector<int64_t> members;
  for (int64_t seed = 0; seed < static_cast<int64_t>(open.size()); ++seed) {
    if (!open[seed]) continue;
    members.assign(1, seed);
    open[seed] = false;
    for (size_t next = 0; next < members.size(); ++next) {
      const int64_t z = members[next] / (height * width), y = members[next] / width % height, x = members[next] % width;
      for (int64_t k = std::max<int64_t>(z - 1, 0); k <= std::min(z + 1, depth - 1); ++k)
        for (int64_t j = std::max<int64_t>(y - 1, 0); j <= std::min(y + 1, height - 1); ++j)
          for (int64_t i = std::max<int64_t>(x - 1, 0); i <= std::min(x + 1, width - 1); ++i) {
            const int64_t at = (k * height + j) * width + i;
            if (!open[at]) continue;
            open[at] = false;
            members.push_back(at);
          }
    }
    const auto count = static_cast<double>(members.size());
    if (count * voxel < c.min_volume_mm3) continue;
    const bool known = std::any_of(members.begin(), members.end(), [&](int64_t at) { return taken[at]; });
    for (const int64_t at : members) taken[at] = true;
    if (known) continue;
    Candidate candidate;
    double weight = 0, hu = 0;
    std::vector<double> values;
    for (const int64_t at : members) {
      const double p = probability[at];
      weight += p;
      hu += scan.hu[at];
      values.push_back(p);
      candidate.center_zyx[0] += p * static_cast<double>(at / (height * width));
      candidate.center_zyx[1] += p * static_cast<double>(at / width % height);
      candidate.center_zyx[2] += p * static_cast<double>(at % width);
    }
    for (double& position : candidate.center_zyx) position /= weight;
    std::sort(values.begin(), values.end(), std::greater<>());
    const size_t used = std::min(top, values.size());
    candidate.score = std::accumulate(values.begin(), values.begin() + static_cast<int64_t>(used), 0.0) /
                      static_cast<double>(used);
    candidate.center_lps = scan.geometry.to_lps(candidate.center_zyx);
    candidate.volume_mm3 = count * voxel;
    candidate.mean_hu = hu / count;
    out.push_back(candidate);
  }
}

// The sum of the network's logits over mirrored copies, from..until of flip_axes, of the crops around some of the centres.
at::Tensor look(const Scan& scan, const std::vector<Vector3>& centers_lps, const std::vector<size_t>& chosen,
                const Network& network, const Constants& c, int64_t from, int64_t until) {
  const auto& shape = scan.geometry.shape;
  const auto& [depth, height, width] = c.crop;
  at::Tensor total = at::zeros({static_cast<int64_t>(chosen.size()), 2}, at::kDouble);
  for (size_t first = 0; first < chosen.size(); first += kBatch) {
    const auto count = static_cast<int64_t>(std::min<size_t>(kBatch, chosen.size() - first));
    at::Tensor crops = at::empty({count, 1, depth, height, width});
    float* to = crops.data_ptr<float>();
    for (int64_t n = 0; n < count; ++n) {
      const Vector3 center = scan.geometry.to_zyx(centers_lps[chosen[first + static_cast<size_t>(n)]]);
      Shape3 begin{};
      for (int axis = 0; axis < 3; ++axis)
        begin[axis] = static_cast<int64_t>(std::nearbyint(center[axis])) - c.crop[axis] / 2;
      for (int64_t z = begin[0]; z < begin[0] + depth; ++z)
        for (int64_t y = begin[1]; y < begin[1] + height; ++y)
          for (int64_t x = begin[2]; x < begin[2] + width; ++x) {
            const bool inside = z >= 0 && z < shape[0] && y >= 0 && y < shape[1] && x >= 0 && x < shape[2];
            *to++ = c.nodule.scaled(inside ? scan.hu[(z * shape[1] + y) * shape[2] + x] : c.fill_hu);
          }
    }
    at::Tensor logits = total.narrow(0, static_cast<int64_t>(first), count);
    for (int64_t k = from; k < until; ++k) {
      std::vector<int64_t> axes = c.flip_axes.at(static_cast<size_t>(k));
      for (int64_t& axis : axes) axis += 2;  // after the batch and the channel
      logits += call(network, crops.flip(axes), {count, 2});
    }
  }
  return total;
}

double nodule(const at::Tensor& logits) { return at::softmax(logits, 0)[1].item<double>(); }

}  // namespace

Preprocessing::Preprocessing(const Json& json)
    : spacing(triple(json.at("spacing_zyx_mm"))),
      clip_low(json.at("clip_hu").list().at(0).number()),
      clip_high(json.at("clip_hu").list().at(1).number()) {}

float Preprocessing::scaled(int16_t hu) const {
  const float low = static_cast<float>(clip_low), high = static_cast<float>(clip_high);
  return (std::clamp(static_cast<float>(hu), low, high) - low) * static_cast<float>(2.0 / (clip_high - clip_low)) - 1.0F;
}

Constants::Constants(const Json& json)
    : segmentation(json.at("segmentation_preprocessing")), nodule(json.at("nodule_preprocessing")) {
  const Vector3 size = triple(json.at("nodule_preprocessing").at("crop_zyx"));
  crop = {static_cast<int64_t>(size[0]), static_cast<int64_t>(size[1]), static_cast<int64_t>(size[2])};
  fill_hu = static_cast<int16_t>(json.at("fill_hu").integer());
  in_channels = json.at("in_channels").integer();
  multiple = json.at("multiple").integer();
  segmentation_flips = json.at("segmentation_flips").integer();
  nodule_flips = json.at("nodule_flips").integer();
  nodule_again_above = json.at("nodule_again_above").number();
  for (const Json& axes : json.at("flip_axes").list()) {
    flip_axes.emplace_back();
    for (const Json& axis : axes.list()) flip_axes.back().push_back(axis.integer());
  }
  segmentation_thresholds.push_back(json.at("segmentation_threshold").number());
  for (const Json& lower : json.at("segmentation_lower_thresholds").list())
    segmentation_thresholds.push_back(lower.number());
  min_volume_mm3 = json.at("min_volume_mm3").number();
  score_volume_mm3 = json.at("score_volume_mm3").number();
  most_candidates = json.at("most_candidates").integer();
  most_findings = json.at("most_findings").integer();
  join_intercept = json.at("calibration").at("intercept").number();
  join_segmentation = json.at("calibration").at("segmentation").number();
  join_classification = json.at("calibration").at("classification").number();
  nodule_threshold = json.at("nodule_threshold").number();
  malignancy_intercept = json.at("malignancy").at("intercept").number();
  malignancy_slope = json.at("malignancy").at("slope").number();
  malignancy_log = json.at("malignancy").at("scale").text() == "log";
}

double Constants::p_malignant(double diameter_mm) const {
  return sigmoid(malignancy_intercept + malignancy_slope * (malignancy_log ? std::log(diameter_mm) : diameter_mm));
}

double Constants::p_nodule(double segmentation, double classification) const {
  return sigmoid(join_intercept + join_segmentation * log_odds(segmentation) +
                 join_classification * log_odds(classification));
}

std::vector<float> segment(const Scan& scan, const Network& network, const Constants& c) {
  const c10::NoGradGuard no_grad;
  const auto& shape = scan.geometry.shape;
  at::Tensor hu = at::empty({shape[0], shape[1], shape[2]});
  std::transform(scan.hu.begin(), scan.hu.end(), hu.data_ptr<float>(), [&](int16_t value) { return c.segmentation.scaled(value); });
  const at::Tensor region =
      at::from_blob(const_cast<uint8_t*>(scan.region.data()), hu.sizes(), at::kByte).to(at::kBool);
  at::Tensor total = at::zeros_like(hu);
  for (int64_t k = 0; k < c.segmentation_flips; ++k) {
    const auto& axes = c.flip_axes.at(static_cast<size_t>(k));
    total += one_pass(hu.flip(axes), region.flip(axes), network, c).flip(axes);
  }
  if (c.segmentation_flips > 1) total /= static_cast<double>(c.segmentation_flips);
  return {total.data_ptr<float>(), total.data_ptr<float>() + total.numel()};
}

std::vector<Candidate> group(const Scan& scan, const std::vector<float>& probability, const Constants& c) {
  std::vector<Candidate> out;
  std::vector<bool> taken(probability.size());
  for (const double threshold : c.segmentation_thresholds)
    group_above(scan, probability, c, static_cast<float>(threshold), taken, out);
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
  return out;
}

std::vector<double> classify(const Scan& scan, const std::vector<Vector3>& centers_lps, const Network& network,
                             const Constants& c) {
  const c10::NoGradGuard no_grad;
  std::vector<double> out(centers_lps.size());
  std::vector<size_t> every(centers_lps.size()), again;
  std::iota(every.begin(), every.end(), size_t{0});
  const at::Tensor first = look(scan, centers_lps, every, network, c, 0, 1);
  for (const size_t n : every) {
    out[n] = nodule(first[static_cast<int64_t>(n)]);
    if (c.nodule_flips > 1 && out[n] >= c.nodule_again_above) again.push_back(n);
  }
  const at::Tensor more = look(scan, centers_lps, again, network, c, 1, c.nodule_flips);
  for (size_t k = 0; k < again.size(); ++k)
    out[again[k]] = nodule((first[static_cast<int64_t>(again[k])] + more[static_cast<int64_t>(k)]) /
                           static_cast<double>(c.nodule_flips));
  return out;
}

}  // namespace carina
