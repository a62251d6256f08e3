// The stages of the pipeline, as carina.pipeline has them: segment, group, classify, join.
#pragma once

#include <cstdint>
#include <vector>

#include "geometry.hpp"
#include "json.hpp"
#include "network.hpp"

namespace carina {

// How the input of one network is made.
struct Preprocessing {
  explicit Preprocessing(const Json& json);

  Vector3 spacing;
  double clip_low, clip_high;

  [[nodiscard]] float scaled(int16_t hu) const;
};

// The constants of carina export --pipeline (pipeline.json).
struct Constants {
  explicit Constants(const Json& json);

  Preprocessing segmentation, nodule;
  Shape3 crop;
  int16_t fill_hu;
  int64_t in_channels, multiple, segmentation_flips, nodule_flips;
  std::vector<std::vector<int64_t>> flip_axes;
  std::vector<double> segmentation_thresholds;  // from the highest
  double nodule_again_above, min_volume_mm3, score_volume_mm3;
  int64_t most_candidates, most_findings;
  double join_intercept, join_segmentation, join_classification, nodule_threshold;
  double malignancy_intercept, malignancy_slope;
  bool malignancy_log;

  [[nodiscard]] double p_malignant(double diameter_mm) const;
  [[nodiscard]] double p_nodule(double segmentation, double classification) const;
};

// A scan on the grid of one network, and where candidates may lie.
struct Scan {
  std::vector<int16_t> hu;
  std::vector<uint8_t> region;  // 0: outside; others: in the lungs or close to them
  Geometry geometry;
};

struct Candidate {
  Vector3 center_zyx{}, center_lps{};
  double volume_mm3 = 0, score = 0, mean_hu = 0;
};

// Probability of nodule for each voxel of the scan, which lies on the segmentation's grid.
std::vector<float> segment(const Scan& scan, const Network& network, const Constants& constants);

// Connected regions, highest score first.
std::vector<Candidate> group(const Scan& scan, const std::vector<float>& probability, const Constants& constants);

// The 3-D network's probability of nodule at each position (mm, LPS); the scan lies on that network's grid.
std::vector<double> classify(const Scan& scan, const std::vector<Vector3>& centers_lps, const Network& network,
                             const Constants& constants);

}  // namespace carina
